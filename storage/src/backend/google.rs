//! Google Cloud Storage.
//!
//! Credentials are what `object_store` finds, in this order: a service account by settings, the
//! application default credentials (a file that is named, or that `gcloud` left), and the machine's
//! metadata server, which is also how workload identity comes to a pod.

use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore};

use super::{Given, invalid, parse, retry, setting};
use crate::Error;
use crate::clock::StoreClock;

/// Where Google's own tools look for an emulator; it takes no credentials.
const EMULATOR: &str = "storage_emulator_host";

pub(super) fn open(
    url: &str,
    given: Given<'_>,
    clock: &StoreClock,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env();
    if let Some(host) = setting(&[], EMULATOR) {
        builder = on_emulator(builder, &host);
    }
    let builder = parse(given)?
        .into_iter()
        .fold(builder, |builder, (key, value)| {
            builder.with_config(key, value)
        });
    let store = builder
        .with_url(url)
        .with_retry(retry())
        .with_http_connector(clock.clone())
        .build()
        .map_err(|error| invalid(format!("{url}: {}", explained(&error))))?;
    Ok(Arc::new(store))
}

fn on_emulator(builder: GoogleCloudStorageBuilder, host: &str) -> GoogleCloudStorageBuilder {
    let url = match host.contains("://") {
        true => host.to_owned(),
        false => format!("http://{host}"),
    };
    builder
        .with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true")
        .with_config(GoogleConfigKey::BaseUrl, url)
        .with_config(GoogleConfigKey::SkipSignature, "true")
}

/// What is wrong with the credentials, in terms of what can be done about it.
fn explained(error: &object_store::Error) -> String {
    let text = crate::error::chain(error);
    if text.contains("external_account") || text.contains("unknown variant") {
        return format!(
            "{text}: credentials of kind external_account are not supported; use a service account, \
             or run where a metadata server gives tokens"
        );
    }
    text
}
