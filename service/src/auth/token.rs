//! The text of an API key.
//!
//! ```text
//! quarr_ 0123456789abcdef _ <64 hex digits> <8 hex digits>
//!        id, public         secret          CRC-32C of all before it
//! ```
//!
//! Scanners find leaked ones by the expression `quarr_[0-9a-f]{16}_[0-9a-f]{72}` and tell them from
//! other text by the checksum, which says nothing about the secret.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every token begins with.
pub const LEAD: &str = "quarr_";
/// Says what is hashed, so that the hash means nothing elsewhere.
const DOMAIN: &[u8] = b"quarr api key\0";

/// Names a key; public. Never looked up by its secret, so looking up tells nothing about that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct KeyId([u8; 8]);

impl KeyId {
    /// A new one.
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for KeyId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = bytes_of(text).and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| format!("{text:?} is no id of a key: 16 hex digits"))?;
        Ok(Self(bytes))
    }
}

/// 256 random bits.
#[derive(Clone)]
pub(super) struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is stored of a secret.
///
/// SHA-256 once: the secret has 256 bits of entropy, so there is nothing to guess that a slow hash
/// would make dear, and every request would pay for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SecretHash([u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl SecretHash {
    /// A hash that no secret has, as far as anyone knows: to be compared with where there is none.
    pub(super) const NONE: Self = Self([0; 32]);

    /// It as hex digits.
    pub(super) fn hex(&self) -> String {
        hex_of(&self.0)
    }

    /// The hash that hex digits write.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(Self(bytes_of(text)?.try_into().ok()?))
    }

    /// Whether it is the same, in a time that does not depend on where they differ.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Secret {
    /// A new one.
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    /// What is stored of it, as the secret of this key.
    pub(super) fn hash(&self, id: KeyId) -> SecretHash {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(id.0);
        hash.update(self.0);
        SecretHash(hash.finalize().into())
    }

    /// The token, which is shown once.
    pub(super) fn token(&self, id: KeyId) -> String {
        let text = format!("{LEAD}{id}_{}", hex_of(&self.0));
        let sum = crc32c::crc32c(text.as_bytes());
        format!("{text}{sum:08x}")
    }
}

/// The id and the secret that a token names; `None` if it is no token.
pub(super) fn parse(token: &str) -> Option<(KeyId, Secret)> {
    let rest = token.strip_prefix(LEAD)?;
    let (id, rest) = rest.split_once('_')?;
    if !rest.is_ascii() || rest.len() != 72 {
        return None;
    }
    let (secret, sum) = rest.split_at(64);
    let length = token.len() - sum.len();
    let expected = crc32c::crc32c(&token.as_bytes()[..length]);
    if sum != format!("{expected:08x}") {
        return None;
    }
    Some((id.parse().ok()?, Secret(bytes_of(secret)?.try_into().ok()?)))
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case hex digits: each token is written in one way.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if !digits.len().is_multiple_of(2) || !digits.iter().all(is_hex) {
        return None;
    }
    let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    let pairs = digits.chunks_exact(2);
    Some(
        pairs
            .map(|pair| value(pair[0]) << 4 | value(pair[1]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_misspelt_ones_are_none() {
        let (id, secret) = (KeyId::random(), Secret::random());
        let token = secret.token(id);
        assert_eq!(token.len(), 95);
        let (found, again) = parse(&token).unwrap();
        assert_eq!(found, id);
        assert!(again.hash(id).matches(&secret.hash(id)));
        assert!(!again.hash(KeyId::random()).matches(&secret.hash(id)));
        for at in [6, 10, 30, 80, 94] {
            let mut wrong = token.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(
                parse(std::str::from_utf8(&wrong).unwrap()).is_none(),
                "{at}"
            );
        }
        for wrong in [
            "",
            "quarr_",
            &token[1..],
            &token[..94],
            &token.to_uppercase(),
            &format!("{token}0"),
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret([7; 32]);
        assert!(!format!("{secret:?} {:?}", secret.hash(KeyId([1; 8]))).contains('7'));
    }
}
