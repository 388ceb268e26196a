//! The query of a request.

use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// Parameters that name a part of a bucket or an object which there is not here, or change what an
/// answer says. Others that are not known are left alone, as S3 does.
const SUBRESOURCES: &[&str] = &[
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "logging",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// Names and values, decoded, in the order they were sent.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            let decoded = percent_decode_str(&spaced).decode_utf8();
            decoded
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| Refusal::invalid_uri())
        };
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        let pairs = pairs.map(pair).collect::<Result<Vec<_>, Refusal>>()?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(Refusal::invalid_argument(name, "is given twice"));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Refuses what asks for other things than listings and objects.
    pub(super) fn refuse_subresources(&self) -> Result<(), Refusal> {
        let known = |(name, _): &&(String, String)| SUBRESOURCES.contains(&name.as_str());
        match self.0.iter().find(known) {
            Some((name, _)) => Err(Refusal::not_implemented(name)),
            None => Ok(()),
        }
    }
}
