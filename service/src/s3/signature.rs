//! Signatures of requests: AWS Signature Version 4, in the `Authorization` header or in the query.
//!
//! What is signed is the method, the path, the query, the headers that the request names, and a hash
//! of the body. Bodies are never read here, so that hash is only what the client says it is.
//!
//! Source: AWS, "Signature Version 4 signing process"; "Authenticating Requests", Amazon S3.

use axum::http::{HeaderMap, header};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use sha2::{Digest as _, Sha256};

use super::Asked;
use super::refusal::Refusal;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TERMINATOR: &str = "aws4_request";
/// How far the clocks of client and server may differ.
const MAX_SKEW: TimeDelta = TimeDelta::minutes(15);
/// Longest a presigned request is valid, in seconds: a week.
const MAX_EXPIRES: i64 = 7 * 24 * 3600;
/// Most headers that a request may name as signed.
const MAX_SIGNED_HEADERS: usize = 100;
const CONTENT_HASH: &str = "x-amz-content-sha256";
/// What stands for the hash of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What stays as it is in names and values of a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// What stays as it is in a path.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// A request says that the holder of an access key has signed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    scope: Scope,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
    /// When it was signed, as it was written.
    stamp: String,
    time: DateTime<Utc>,
    /// Of a presigned request, how long it is valid.
    expires: Option<TimeDelta>,
    /// The hash of the body, or what stands for it.
    content_hash: String,
}

/// What a signature is good for: `KEY/20260102/region/s3/aws4_request`.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    access_key: String,
    date: String,
    region: String,
}

impl Scope {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.rsplitn(5, '/');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (terminator, service, region, date, access_key) =
            (part(), part(), part(), part(), part());
        if terminator != Some(TERMINATOR) {
            return Err("the credential does not end with aws4_request");
        }
        if service != Some(SERVICE) {
            return Err("the credential is for another service than s3");
        }
        let (Some(region), Some(date), Some(access_key)) = (region, date, access_key) else {
            return Err("the credential is not KEY/DATE/REGION/s3/aws4_request");
        };
        Ok(Self {
            access_key: access_key.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
        })
    }

    /// Without the access key.
    fn text(&self) -> String {
        format!("{}/{}/{SERVICE}/{TERMINATOR}", self.date, self.region)
    }
}

/// What a request says about who signed it; `None` if it is not signed.
///
/// # Errors
/// A refusal that says what is malformed.
pub(super) fn claim(asked: &Asked<'_>) -> Result<Option<Claim>, Refusal> {
    let mut authorizations = asked.headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let is_presigned = asked.parameters.has("X-Amz-Algorithm")
        || asked.parameters.has("X-Amz-Signature")
        || asked.parameters.has("AWSAccessKeyId");
    let claim = match (authorization, is_presigned) {
        (None, false) => return Ok(None),
        (None, true) => presigned(asked)?,
        (Some(value), false) if authorizations.next().is_none() => {
            let malformed = || Refusal::malformed_authorization("the header is not ASCII");
            in_header(value.to_str().map_err(|_| malformed())?, asked.headers)?
        }
        _ => {
            let reason = "is signed twice: only one signature is allowed";
            return Err(Refusal::invalid_argument("the request", reason));
        }
    };
    let token = "x-amz-security-token";
    if asked.headers.contains_key(token) || asked.parameters.has("X-Amz-Security-Token") {
        return Err(Refusal::unknown_token());
    }
    Ok(Some(claim))
}

fn in_header(value: &str, headers: &HeaderMap) -> Result<Claim, Refusal> {
    let malformed = Refusal::malformed_authorization;
    let Some(rest) = value.strip_prefix(ALGORITHM) else {
        let message = "signatures are understood in version 4, AWS4-HMAC-SHA256";
        return Err(Refusal::invalid_request(message));
    };
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for part in rest.split(',') {
        let part = part.trim().split_once('=');
        let (name, value) = part.ok_or_else(|| malformed("a part of the header has no ="))?;
        let place = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(malformed("a part of the header is not known")),
        };
        if place.replace(value).is_some() {
            return Err(malformed("a part of the header is given twice"));
        }
    }
    let (Some(credential), Some(signed_headers), Some(signature)) =
        (credential, signed_headers, signature)
    else {
        return Err(malformed(
            "Credential, SignedHeaders or Signature is missing",
        ));
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let stamp = text("x-amz-date").ok_or_else(|| malformed("x-amz-date is missing"))?;
    let claim = Claim::new(credential, signed_headers, signature, stamp, malformed)?;
    let missing = || Refusal::invalid_request("the header x-amz-content-sha256 is missing");
    Ok(Claim {
        content_hash: text(CONTENT_HASH).ok_or_else(missing)?.to_owned(),
        ..claim
    })
}

fn presigned(asked: &Asked<'_>) -> Result<Claim, Refusal> {
    let malformed = Refusal::malformed_presigned;
    let get = |name: &str| {
        let message = "a parameter of the signature is missing";
        asked.parameters.get(name).ok_or_else(|| malformed(message))
    };
    if get("X-Amz-Algorithm")? != ALGORITHM {
        let message = "signatures are understood in version 4, AWS4-HMAC-SHA256";
        return Err(malformed(message));
    }
    let expires = get("X-Amz-Expires")?.parse().ok();
    let expires = expires.filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
    let expires = expires
        .and_then(TimeDelta::try_seconds)
        .ok_or_else(|| malformed("X-Amz-Expires is no number of seconds up to a week"))?;
    let claim = Claim::new(
        get("X-Amz-Credential")?,
        get("X-Amz-SignedHeaders")?,
        get("X-Amz-Signature")?,
        get("X-Amz-Date")?,
        malformed,
    )?;
    Ok(Claim {
        expires: Some(expires),
        ..claim
    })
}

impl Claim {
    fn new(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        stamp: &str,
        malformed: fn(&str) -> Refusal,
    ) -> Result<Self, Refusal> {
        let scope = Scope::parse(credential).map_err(malformed)?;
        let time = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ");
        let time = time.map_err(|_| malformed("the date is not YYYYMMDDThhmmssZ"))?;
        if stamp.get(..8) != Some(scope.date.as_str()) {
            return Err(malformed("the credential is for another day than the date"));
        }
        let signed_headers: Vec<String> = signed_headers.split(';').map(str::to_owned).collect();
        if signed_headers.len() > MAX_SIGNED_HEADERS {
            return Err(malformed("too many headers are signed"));
        }
        if !signed_headers.iter().any(|name| name == "host") {
            return Err(malformed("the host is not signed"));
        }
        let signature =
            hex::decode(signature).map_err(|_| malformed("the signature is not hex"))?;
        Ok(Self {
            scope,
            signed_headers,
            signature,
            stamp: stamp.to_owned(),
            time: time.and_utc(),
            expires: None,
            content_hash: UNSIGNED.to_owned(),
        })
    }

    /// The key that it says was used.
    pub(super) fn access_key(&self) -> &str {
        &self.scope.access_key
    }

    /// Checks that the request was signed with `secret`, and that it is its time.
    ///
    /// # Errors
    /// A refusal that says what does not hold.
    pub(super) fn check(
        &self,
        asked: &Asked<'_>,
        secret: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        // Headers of S3 change what is asked for, so none may come on the way.
        let is_unsigned = |name: &&str| {
            name.starts_with("x-amz-") && !self.signed_headers.iter().any(|known| known == name)
        };
        let mut names = asked.headers.keys().map(header::HeaderName::as_str);
        if let Some(name) = names.find(is_unsigned)
            && !(self.expires.is_some() && name == CONTENT_HASH)
        {
            let message = format!("the header {name} is not signed");
            return Err(Refusal::invalid_request(message));
        }
        let request = self.canonical_request(asked)?;
        let text = format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.stamp,
            self.scope.text(),
            hex::encode(Sha256::digest(request))
        );
        // Compares in constant time.
        hmac::verify(&self.signing_key(secret), text.as_bytes(), &self.signature)
            .map_err(|_| Refusal::wrong_signature())?;
        self.check_time(now)?;
        self.check_content()
    }

    fn check_time(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        let age = now - self.time;
        match self.expires {
            _ if age < -MAX_SKEW => Err(Refusal::skewed()),
            Some(expires) if age > expires => Err(Refusal::expired()),
            None if age > MAX_SKEW => Err(Refusal::skewed()),
            _ => Ok(()),
        }
    }

    /// Bodies are not read, so a hash of one is only looked at.
    fn check_content(&self) -> Result<(), Refusal> {
        let hash = self.content_hash.as_str();
        let stands_for_it = hash == UNSIGNED || hash.starts_with("STREAMING-");
        match stands_for_it || hex::decode(hash).is_ok_and(|hash| hash.len() == 32) {
            true => Ok(()),
            false => Err(Refusal::invalid_argument(CONTENT_HASH, "is no SHA-256")),
        }
    }

    fn canonical_request(&self, asked: &Asked<'_>) -> Result<String, Refusal> {
        let path = super::address::decode(asked.uri.path())?;
        let mut pairs: Vec<(String, String)> = asked
            .parameters
            .pairs()
            .iter()
            .filter(|(name, _)| self.expires.is_none() || name != "X-Amz-Signature")
            .map(|(name, value)| (encode(name), encode(value)))
            .collect();
        pairs.sort();
        let query: Vec<String> = pairs
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut headers = String::new();
        for name in &self.signed_headers {
            let value = header_value(asked, name).ok_or_else(Refusal::wrong_signature)?;
            headers.push_str(&format!("{name}:{value}\n"));
        }
        Ok(format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            asked.method,
            utf8_percent_encode(&path, PATH),
            query.join("&"),
            self.signed_headers.join(";"),
            self.content_hash
        ))
    }

    fn signing_key(&self, secret: &str) -> hmac::Key {
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&self.scope.date, &self.scope.region, SERVICE, TERMINATOR] {
            key = sign(&key, part).as_ref().to_vec();
        }
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }
}

fn sign(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// All values of a header as they are signed: joined, with single spaces.
fn header_value(asked: &Asked<'_>, name: &str) -> Option<String> {
    if name == "host" {
        return Some(asked.host.to_owned());
    }
    let values = asked.headers.get_all(name).iter();
    let values: Vec<String> = values
        .map(|value| {
            let value = value.to_str().ok()?;
            Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect::<Option<_>>()?;
    (!values.is_empty()).then(|| values.join(","))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[cfg(test)]
mod tests;
