//! JWTs: what one says, which keys may have signed it, and whether one of them has.
//!
//! The algorithm in a token's header is only looked up in [`Algorithm`], which has no symmetric one:
//! no public key can pass for the secret of an HMAC. The key must be of the algorithm's type, whatever
//! the header says. `ring` verifies. Sources: RFC 7515, 7517, 7518, 7519, 8037, 8725.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest token: servers bound headers at some such length anyway.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How far clocks may differ, in seconds.
const LEEWAY_S: f64 = 30.0;
/// Most keys that a token is tried with.
const MAX_TRIED: usize = 4;

/// Why a token is not taken, as a word for the audit log.
pub(super) type Reason = &'static str;

/// How tokens may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    EdDsa,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A public key of an issuer.
#[derive(Clone, Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if it says so; none that is known if that is another one.
    only: Option<Option<Algorithm>>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// The key that a JWK describes; `None` if it is of a kind that is not known, or not to verify
    /// with.
    pub(super) fn parse(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64.decode(text(name)?).ok();
        if jwk.get("use").is_some() && text("use") != Some("sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops") {
            let verifies = |operation: &Value| operation == "verify";
            operations
                .as_array()?
                .iter()
                .find(|operation| verifies(operation))?;
        }
        let public = match (text("kty")?, text("crv")) {
            ("RSA", _) => Public::Rsa {
                n: bytes("n")?,
                e: bytes("e")?,
            },
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                Public::P256([&[4][..], &x, &y].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Self {
            id: text("kid").map(str::to_owned),
            only: jwk.get("alg").map(|alg| Algorithm::parse(alg.as_str()?)),
            public,
        })
    }

    /// Whether it is of the algorithm's type, and not for another.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let is_of_type = match self.public {
            Public::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Public::P256(_) => algorithm == Algorithm::Es256,
            Public::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        is_of_type && self.only.is_none_or(|only| only == Some(algorithm))
    }

    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |how: &'static RsaParameters, n: &[u8], e: &[u8]| {
            RsaPublicKeyComponents { n, e }.verify(how, message, signature)
        };
        let other = |how: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, signature)
        };
        let verified = match (&self.public, algorithm) {
            (Public::Rsa { n, e }, Algorithm::Rs256) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
            (Public::Rsa { n, e }, Algorithm::Ps256) => rsa(&RSA_PSS_2048_8192_SHA256, n, e),
            (Public::P256(key), Algorithm::Es256) => other(&ECDSA_P256_SHA256_FIXED, key),
            (Public::Ed25519(key), Algorithm::EdDsa) => other(&ED25519, key),
            _ => return false,
        };
        verified.is_ok()
    }
}

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub(super) struct Token {
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What is signed.
    message: Vec<u8>,
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            crit: Option<Value>,
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err("malformed");
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err("malformed");
        };
        let decode = |part: &str| BASE64.decode(part).map_err(|_| "malformed");
        let read: Header = serde_json::from_slice(&decode(header)?).map_err(|_| "malformed")?;
        // What must be understood and is not: RFC 7515, 4.1.11.
        if read.crit.is_some() {
            return Err("malformed");
        }
        Ok(Self {
            algorithm: Algorithm::parse(&read.alg).ok_or("algorithm")?,
            key_id: read.kid,
            message: format!("{header}.{claims}").into_bytes(),
            signature: decode(signature)?,
            claims: serde_json::from_slice(&decode(claims)?).map_err(|_| "malformed")?,
        })
    }

    /// Who it says has issued it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The keys that may have signed it: the one it names, or those of its algorithm if it names none.
    pub(super) fn fitting<'a>(&self, keys: &'a [Key]) -> Vec<&'a Key> {
        let is_named = |key: &Key| self.key_id.is_none() || key.id == self.key_id;
        let fitting = keys
            .iter()
            .filter(|key| is_named(key) && key.fits(self.algorithm));
        fitting.take(MAX_TRIED).collect()
    }

    /// Its claims, if one of these keys signed it and it holds now, for one of these audiences.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn verified(
        self,
        keys: &[&Key],
        audiences: &[String],
        now_s: f64,
    ) -> Result<Map<String, Value>, Reason> {
        if keys.is_empty() {
            return Err("unknown-key");
        }
        let signed = |key: &&Key| key.verifies(self.algorithm, &self.message, &self.signature);
        if !keys.iter().any(signed) {
            return Err("signature");
        }
        check_times(&self.claims, now_s)?;
        check_audience(&self.claims, audiences)?;
        Ok(self.claims)
    }
}

/// A token has an end. A time that is no number is not one that may be passed over.
fn check_times(claims: &Map<String, Value>, now_s: f64) -> Result<(), Reason> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or("claims"),
    };
    let end = time("exp")?.ok_or("claims")?;
    if end + LEEWAY_S <= now_s {
        return Err("expired");
    }
    match time("nbf")? {
        Some(start) if start - LEEWAY_S > now_s => Err("not-yet-valid"),
        _ => Ok(()),
    }
}

fn check_audience(claims: &Map<String, Value>, audiences: &[String]) -> Result<(), Reason> {
    let is_own = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| !text.is_empty() && audiences.iter().any(|own| own == text))
    };
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_own),
        Some(Value::String(_)) => claims.get("aud").is_some_and(is_own),
        _ => return Err("claims"),
    };
    match is_for_us {
        true => Ok(()),
        false => Err("audience"),
    }
}
