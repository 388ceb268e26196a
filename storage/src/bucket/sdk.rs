//! The AWS SDK's client for a bucket, by the same settings as the store's own, and its errors.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::advice::Answer;
use crate::backend::{S3Place, load_aws};

/// The client of a bucket whose place is complete: [`S3Place::completed`].
pub(super) async fn client(place: &S3Place) -> Client {
    let loaded = load_aws(place.region()).await;
    let mut config = aws_sdk_s3::config::Builder::from(&loaded)
        .region(place.region().map(Region::new))
        .force_path_style(!place.is_virtual_hosted())
        // Other servers know the checksums of this year's SDK not.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = place.endpoint() {
        config = config.endpoint_url(endpoint);
    }
    if let Some((id, secret, token)) = place.keys() {
        let keys = Credentials::new(id, secret, token, None, "settings");
        config = config.credentials_provider(keys);
    }
    if place.is_anonymous() {
        config = config.allow_no_auth();
    }
    Client::from_conf(config.build())
}

/// What S3 answered instead of doing what it was asked.
#[expect(
    clippy::needless_pass_by_value,
    reason = "results are mapped with it, which give their error away"
)]
pub(super) fn answer<E>(error: SdkError<E, HttpResponse>) -> Answer
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let response = error.raw_response();
    let region = response.and_then(|response| response.headers().get("x-amz-bucket-region"));
    Answer {
        status: response.map(|response| response.status().as_u16()),
        code: error.code().map(str::to_owned),
        region: region.map(str::to_owned),
        text: match error.message() {
            Some(message) => message.to_owned(),
            None => crate::error::chain(&error),
        },
    }
}

/// Whether the server has no such thing as was asked for.
pub(super) fn is_not_implemented(answer: &Answer) -> bool {
    let codes = [
        "NotImplemented",
        "XNotImplemented",
        "MethodNotAllowed",
        "NotSupported",
    ];
    let by_code = answer
        .code
        .as_deref()
        .is_some_and(|code| codes.contains(&code));
    by_code || matches!(answer.status, Some(405 | 501))
}

/// Whether what was asked for was never set.
pub(super) fn is_unset(answer: &Answer) -> bool {
    answer
        .code
        .as_deref()
        .is_some_and(|code| code.starts_with("NoSuch") || code.ends_with("NotFoundError"))
}
