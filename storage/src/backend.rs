//! Object stores by their URL.

use std::path::Path as FsPath;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig, aws, azure, gcp, memory::InMemory};
use url::Url;

use crate::Error;
use crate::clock::StoreClock;
use crate::durable::DurableDirectory;

/// Retries inside the client library: server errors, and time-outs of reads. It never repeats a
/// put-if-absent that timed out; the caller does, knowing that it may meet its own object.
const REQUEST_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// A store, and the part of it a URL names.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    pub(crate) is_local: bool,
    pub(crate) clock: StoreClock,
}

impl Backend {
    /// The store at `url`, with these settings over those of the environment.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the URL or a setting is not understood or the store cannot be set up.
    pub(crate) fn open(url: &str, settings: &[(&str, &str)]) -> Result<Self, Error> {
        let parsed = match Url::parse(url) {
            // A single letter is a Windows drive, not a scheme.
            Ok(parsed) if parsed.scheme().len() > 1 => parsed,
            _ => return Self::local(FsPath::new(url)),
        };
        if parsed.scheme() == "file" {
            let path = parsed
                .to_file_path()
                .map_err(|()| invalid(format!("{url} is not a local path")))?;
            return Self::local(&path);
        }
        let clock = StoreClock::default();
        let objects = remote(&parsed, url, settings, &clock)?;
        let prefix = Path::from_url_path(parsed.path())
            .map_err(|error| invalid(format!("{url}: {error}")))?;
        Ok(Self {
            objects,
            prefix,
            is_local: false,
            clock,
        })
    }

    fn local(path: &FsPath) -> Result<Self, Error> {
        let directory = DurableDirectory::new(path)
            .map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        Ok(Self {
            objects: Arc::new(directory),
            prefix: Path::default(),
            is_local: true,
            clock: StoreClock::default(),
        })
    }
}

/// Settings by the names they have as environment variables, in lower case.
fn parse<K: FromStr>(settings: &[(&str, &str)]) -> Result<Vec<(K, String)>, Error> {
    let parse = |(name, value): &(&str, &str)| match name.parse() {
        Ok(key) => Ok((key, (*value).to_owned())),
        Err(_) => Err(invalid(format!("it has no setting {name:?}"))),
    };
    settings.iter().map(parse).collect()
}

fn remote(
    parsed: &Url,
    url: &str,
    settings: &[(&str, &str)],
    clock: &StoreClock,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let retry = RetryConfig {
        retry_timeout: REQUEST_RETRY_TIMEOUT,
        ..Default::default()
    };
    let clock = clock.clone();
    let failed = |error: object_store::Error| invalid(format!("{url}: {error}"));
    Ok(match parsed.scheme() {
        "memory" => Arc::new(InMemory::new()),
        "s3" | "s3a" => Arc::new(
            parse(settings)?
                .into_iter()
                .fold(aws::AmazonS3Builder::from_env(), |builder, (key, value)| {
                    builder.with_config(key, value)
                })
                .with_url(url)
                .with_conditional_put(aws::S3ConditionalPut::ETagMatch)
                .with_retry(retry)
                .with_http_connector(clock)
                .build()
                .map_err(failed)?,
        ),
        "gs" => Arc::new(
            parse(settings)?
                .into_iter()
                .fold(
                    gcp::GoogleCloudStorageBuilder::from_env(),
                    |builder, (key, value)| builder.with_config(key, value),
                )
                .with_url(url)
                .with_retry(retry)
                .with_http_connector(clock)
                .build()
                .map_err(failed)?,
        ),
        "az" | "azure" | "abfs" | "abfss" => Arc::new(
            parse(settings)?
                .into_iter()
                .fold(
                    azure::MicrosoftAzureBuilder::from_env(),
                    |builder, (key, value)| builder.with_config(key, value),
                )
                .with_url(url)
                .with_retry(retry)
                .with_http_connector(clock)
                .build()
                .map_err(failed)?,
        ),
        scheme => {
            let reason = format!(
                "{scheme:?} in {url:?} is none of file, memory, s3, gs, az; a local directory needs no scheme"
            );
            return Err(invalid(reason));
        }
    })
}

fn invalid(reason: String) -> Error {
    Error::invalid("store", reason)
}
