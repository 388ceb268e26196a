//! Traces, sent to a collector by OTLP over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;

/// Longest that ending waits for what is not sent yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Where below an endpoint traces go. Source: OTLP 1.0, "OTLP/HTTP Request".
const TRACES: &str = "v1/traces";

/// A variable that is set to something.
fn named(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where traces go: `endpoint`, or what the environment says; `None` if nobody wants them.
pub fn endpoint(endpoint: Option<&str>) -> Option<Endpoint> {
    let is_off = named("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
        || named("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    match endpoint {
        Some(endpoint) => Some(Endpoint::At(traces_at(endpoint))),
        None if is_off => None,
        None => named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| named("OTEL_EXPORTER_OTLP_ENDPOINT"))
            .map(|_| Endpoint::OfEnvironment),
    }
}

/// Where a collector takes traces.
fn traces_at(collector: &str) -> String {
    let collector = collector.trim_end_matches('/');
    match collector.ends_with(TRACES) {
        true => collector.to_owned(),
        false => format!("{collector}/{TRACES}"),
    }
}

/// How long a request to the collector may take. Source: OpenTelemetry, "OTLP Exporter
/// Configuration".
fn timeout() -> Duration {
    let millis = named("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| named("OTEL_EXPORTER_OTLP_TIMEOUT"))
        .and_then(|millis| millis.parse().ok());
    Duration::from_millis(millis.unwrap_or(10_000))
}

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// There.
    At(String),
    /// Where the variables of OpenTelemetry say.
    OfEnvironment,
}

/// Sends traces. Headers, time-outs, batches and sampling are as the variables of OpenTelemetry say.
#[derive(Clone, Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Traces to `endpoint`.
    ///
    /// # Errors
    /// What is wrong with it or with the environment, in words.
    pub fn to(endpoint: &Endpoint) -> Result<Self, String> {
        let http = reqwest::Client::builder().timeout(timeout());
        let client = Client {
            http: http.build().map_err(|error| error.to_string())?,
            runtime: Handle::current(),
        };
        let exporter = SpanExporter::builder().with_http().with_http_client(client);
        let exporter = match endpoint {
            Endpoint::At(url) => exporter.with_endpoint(url),
            Endpoint::OfEnvironment => exporter,
        };
        let exporter = exporter.build().map_err(|error| error.to_string())?;
        let mut resource = Resource::builder();
        let attributes = named("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        if named("OTEL_SERVICE_NAME").is_none() && !attributes.contains("service.name=") {
            resource = resource.with_service_name("quarr");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self(provider))
    }

    /// Makes the spans.
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("quarr")
    }

    /// Sends what is not sent yet, and ends. Gives what went wrong, in words.
    pub async fn end(self) -> Option<String> {
        let end = move || self.0.shutdown_with_timeout(FLUSH_TIMEOUT);
        match tokio::task::spawn_blocking(end).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Sends requests from a thread that is not one of the runtime's.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let answer = http.execute(request.try_into()?).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = sent.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_with_or_without_the_path_of_traces() {
        for named in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_at(named), "http://c:4318/v1/traces");
        }
    }
}
