//! Bits of bytes, the highest of each first.

/// Reads bits.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that were taken out of the bytes; the lowest `count` are not read yet.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            held: 0,
            count: 0,
        }
    }

    /// Holds at least 57 bits, if there are as many.
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some((&byte, rest)) = self.bytes.split_first() else {
                return;
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
            self.bytes = rest;
        }
    }

    /// The next `count` bits, at most 64; `None` if there are fewer.
    pub(crate) fn take(&mut self, count: u32) -> Option<u64> {
        if count > 32 {
            let high = self.take(count - 32)?;
            return Some(high << 32 | self.take(32)?);
        }
        if self.count < count {
            self.fill();
        }
        self.count = self.count.checked_sub(count)?;
        let bits = self.held >> self.count;
        Some(bits & ((1 << count) - 1))
    }

    /// How many zeros come before the next one, which is taken as well.
    pub(crate) fn zeros(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        loop {
            if self.count == 0 {
                self.fill();
            }
            let left = 64u32.checked_sub(self.count).filter(|&left| left < 64)?;
            let found = (self.held << left).leading_zeros();
            if found < self.count {
                self.count -= found + 1;
                return zeros.checked_add(found);
            }
            zeros = zeros.checked_add(self.count)?;
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_highest_first() {
        let bytes: Vec<u8> = (0..32).map(|at: u8| at.wrapping_mul(37)).collect();
        let all: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
        let mut bits = Bits::new(&bytes);
        let mut at = 0;
        for count in (0..=64).cycle() {
            let wanted = all.get(at..at + count as usize);
            let wanted = wanted.map(|text| u64::from_str_radix(text, 2).unwrap_or(0));
            let found = bits.take(count);
            if wanted.is_none() {
                assert_eq!(found, None);
                break;
            }
            assert_eq!(found, wanted, "{at} {count}");
            at += count as usize;
        }
        let mut bits = Bits::new(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0b1001_0000]);
        assert_eq!(bits.zeros(), Some(79));
        assert_eq!((bits.zeros(), bits.zeros()), (Some(0), Some(2)));
        assert_eq!(bits.zeros(), None);
    }
}
