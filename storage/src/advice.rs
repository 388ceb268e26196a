//! What to do about errors of object stores whose cause is outside: credentials, regions, buckets,
//! clocks.

use crate::Error;
use crate::backend::NoCredentials;

/// What a store answered instead of doing what it was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    /// The error's name in the store's protocol.
    pub(crate) code: Option<String>,
    /// Where the bucket is.
    pub(crate) region: Option<String>,
    /// What it says itself.
    pub(crate) text: String,
}

/// What is wrong and what to do, if the error is of a store and its cause is known. One sentence,
/// without what the store said.
pub fn advice(error: &Error) -> Option<String> {
    let Error::Store { source, .. } = error else {
        return None;
    };
    if has_cause::<NoCredentials>(source) {
        return Some(
            "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
             AWS_PROFILE (after aws sso login, if it is one of SSO), or run where a role is attached"
                .to_owned(),
        );
    }
    let text = crate::error::chain(source);
    let answer = Answer {
        status: None,
        code: between(&text, "<Code>", "</Code>").map(str::to_owned),
        region: between(&text, "<Region>", "</Region>").map(str::to_owned),
        text,
    };
    for_answer(&answer)
}

/// The same for an answer.
pub(crate) fn for_answer(answer: &Answer) -> Option<String> {
    let advice = match answer.code.as_deref() {
        Some("RequestTimeTooSkewed" | "RequestExpired") => {
            "this machine's clock is wrong: set it, by NTP if possible"
        }
        Some("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException") => {
            "the session of the credentials is over: log in again, or take new ones"
        }
        Some(
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidClientTokenId"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "UnauthorizedAccess",
        ) => "the credentials are wrong: check which ones are in use and where they come from",
        Some("NoSuchBucket" | "ContainerNotFound") => {
            "there is no such bucket: quarr store init makes one on S3; elsewhere make it with the \
             provider's tools"
        }
        Some(
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint",
        ) => return Some(wrong_region(answer.region.as_deref())),
        Some("InvalidStorageClass" | "InvalidAccessTier") => {
            "the store has no such storage class: see QUARR_SHARD_STORAGE_CLASS"
        }
        Some(code) if code.starts_with("KMS.") => {
            "the KMS key cannot be used: it must exist in the bucket's region, be enabled, and \
             allow these credentials to encrypt and decrypt"
        }
        Some(
            "AccessDenied"
            | "AllAccessDisabled"
            | "AuthorizationPermissionMismatch"
            | "AuthorizationFailure"
            | "InsufficientAccountPermissions",
        ) => {
            "the credentials may not do this: docs/stores.md lists the permissions that are needed"
        }
        _ if answer.region.is_some() && matches!(answer.status, Some(301 | 307 | 400)) => {
            return Some(wrong_region(answer.region.as_deref()));
        }
        _ => return for_text(&answer.text),
    };
    Some(advice.to_owned())
}

fn wrong_region(region: Option<&str>) -> String {
    match region {
        Some(region) => format!("the bucket is in another region: set AWS_REGION={region}"),
        None => "the bucket is in another region: set AWS_REGION to its own".to_owned(),
    }
}

/// For errors without an answer.
fn for_text(text: &str) -> Option<String> {
    let advice = if text.contains("without LOCATION") {
        return Some(wrong_region(None));
    } else if text.contains("URL scheme is not allowed") {
        "the endpoint is plain HTTP: use https, or allow it with AWS_ALLOW_HTTP=true"
    } else if text.contains("error sending request") || text.contains("dispatch failure") {
        "nothing answers at the store's address: check the endpoint, the network and proxies"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// Whether an error or one of its causes is of this kind.
fn has_cause<T: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_stores_say_what_to_do() {
        let of = |body: &str| {
            let source = object_store::Error::Generic {
                store: "S3",
                source: format!("status 403: {body}").into(),
            };
            advice(&Error::Store {
                key: "a".into(),
                source,
            })
        };
        for (body, said) in [
            ("<Code>RequestTimeTooSkewed</Code>", Some("clock")),
            ("<Code>SignatureDoesNotMatch</Code>", Some("credentials")),
            ("<Code>ExpiredToken</Code>", Some("log in again")),
            ("<Code>NoSuchBucket</Code>", Some("quarr store init")),
            ("<Code>AccessDenied</Code>", Some("permissions")),
            ("<Code>KMS.DisabledException</Code>", Some("KMS key")),
            (
                "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region>",
                Some("AWS_REGION=eu-west-3"),
            ),
            ("<Code>SlowDown</Code>", None),
            ("no answer at all", None),
        ] {
            let found = of(body);
            match said {
                Some(said) => assert!(found.unwrap().contains(said), "{body}"),
                None => assert_eq!(found, None, "{body}"),
            }
        }
    }
}
