//! The bytes of a row.

use array::hash::Hash;

/// Reads the parts of a row.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("a row that is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?
            .try_into()
            .map_err(|_| "a row that is too short".into())
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn hash(&mut self) -> Result<Hash, String> {
        Ok(Hash::from_bytes(self.array()?))
    }

    pub(super) fn field(&mut self) -> Result<&'a [u8], String> {
        let length = u32::from_le_bytes(self.array()?);
        self.take(length as usize)
    }

    pub(super) fn text(&mut self) -> Result<String, String> {
        let text = std::str::from_utf8(self.field()?).map_err(|_| "a name that is no text")?;
        Ok(text.to_owned())
    }

    pub(super) fn end(&self) -> Result<(), String> {
        match self.0 {
            [] => Ok(()),
            _ => Err("a row that is too long".into()),
        }
    }
}
