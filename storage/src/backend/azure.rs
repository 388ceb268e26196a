//! Azure Blob Storage.
//!
//! Credentials are what `object_store` finds, in this order: a bearer token, an account key, a
//! federated token (workload identity), a client secret, a SAS, Azure's command line if that is
//! asked for, and the managed identity of the machine.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::MicrosoftAzureBuilder;

use super::{Given, invalid, parse, retry};
use crate::Error;
use crate::clock::StoreClock;

pub(super) fn open(
    url: &str,
    given: Given<'_>,
    clock: &StoreClock,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let builder = parse(given)?.into_iter().fold(
        MicrosoftAzureBuilder::from_env(),
        |builder, (key, value)| builder.with_config(key, value),
    );
    let store = builder
        .with_url(url)
        .with_retry(retry())
        .with_http_connector(clock.clone())
        .build()
        .map_err(|error| invalid(format!("{url}: {error}")))?;
    Ok(Arc::new(store))
}
