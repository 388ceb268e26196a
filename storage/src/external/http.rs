//! Files over HTTP.
//!
//! One client keeps its connections by origin. Under rules, every redirect is checked as the first
//! URL was, and so is every address a name resolves to, when the connection is made: a name that
//! means another address the second time gains nothing. Proxies are not used then, since they would
//! resolve names by themselves.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MATCH,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use tracing::debug;
use url::Url;

use super::{AllowList, Content, Place, changed, unreachable};
use crate::Error;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a server.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts at a request that failed for a passing reason; the pause after the first doubles.
const MAX_ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// What an etag starts with where the server has none that can be asked for.
const MADE_UP: &str = "quarr:";

/// The client, made when it is first needed.
#[derive(Debug)]
pub(super) struct Http {
    allowed: AllowList,
    client: OnceLock<Client>,
}

/// Why there is no answer.
enum Failed {
    /// It may work the next time.
    Passing(String),
    Lasting(Error),
}

impl Http {
    pub(super) fn new(allowed: AllowList) -> Self {
        Self {
            allowed,
            client: OnceLock::new(),
        }
    }

    /// Length and etag of a file; `None` if there is none.
    pub(super) async fn look(&self, url: &Url) -> Result<Option<Content>, Error> {
        let head = self.attempts(url, |client| async move {
            let request = client.request(Method::HEAD, url.clone());
            self.send(url, request).await
        });
        let head = head.await?;
        match head.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status if status.is_success() => {
                if let Some(length) = number(head.headers(), CONTENT_LENGTH) {
                    return Ok(Some(content(head.headers(), length)));
                }
            }
            // Some servers, and URLs signed for GET, know no HEAD.
            _ => {}
        }
        let first = self.attempts(url, |client| async move {
            let request = client.get(url.clone()).header(RANGE, "bytes=0-0");
            self.send(url, request).await
        });
        let first = first.await?;
        let headers = first.headers();
        match first.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            StatusCode::PARTIAL_CONTENT => match content_range(headers) {
                Some((_, length)) => Ok(Some(content(headers, length))),
                None => Err(unreachable(
                    url.as_str(),
                    "its server does not say how long it is",
                )),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(content(headers, 0))),
            StatusCode::OK => match number(headers, CONTENT_LENGTH) {
                Some(length) => Ok(Some(content(headers, length))),
                None => Err(unreachable(
                    url.as_str(),
                    "its server does not say how long it is",
                )),
            },
            status => Err(unreachable(
                url.as_str(),
                format!("its server says {status}"),
            )),
        }
    }

    /// Reads a range of a file with this etag.
    pub(super) async fn read(
        &self,
        url: &Url,
        etag: &str,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        self.attempts(url, |client| {
            let range = range.clone();
            async move {
                let last = range.end - 1;
                let request = client
                    .get(url.clone())
                    .header(RANGE, format!("bytes={}-{last}", range.start));
                let request = match modified_in(etag) {
                    None if etag.starts_with(MADE_UP) => request,
                    None => request.header(IF_MATCH, etag),
                    Some(date) => request.header(IF_UNMODIFIED_SINCE, date),
                };
                let response = self.send(url, request).await?;
                check(url, &response, etag, &range)?;
                body(url, response, range.end - range.start).await
            }
        })
        .await
    }

    /// Tries until there is an answer that is worth keeping.
    async fn attempts<T, F>(
        &self,
        url: &Url,
        mut attempt: impl FnMut(Client) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let client = self.client()?;
        let mut count = 1;
        loop {
            match attempt(client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Lasting(error)) => return Err(error),
                Err(Failed::Passing(reason)) if count >= MAX_ATTEMPTS => {
                    return Err(unreachable(url.as_str(), reason));
                }
                Err(Failed::Passing(reason)) => {
                    debug!(%url, count, reason, "asking again");
                    tokio::time::sleep(FIRST_PAUSE * 2u32.pow(count - 1)).await;
                    count += 1;
                }
            }
        }
    }

    fn client(&self) -> Result<&Client, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("quarr/", env!("CARGO_PKG_VERSION")));
        let allowed = self.allowed.clone();
        builder = builder.redirect(redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            let checked = Place::of(attempt.url().as_str()).and_then(|place| match place {
                Place::Http(_) => allowed.check(&place),
                _ => Err(unreachable(attempt.url().as_str(), "it is not HTTP")),
            });
            match checked {
                Ok(()) => attempt.follow(),
                Err(error) => attempt.error(Refused(error.to_string())),
            }
        }));
        if !self.allowed.is_everything() {
            let resolver = Resolver(self.allowed.clone());
            builder = builder.no_proxy().dns_resolver(Arc::new(resolver));
        }
        let client = builder
            .build()
            .map_err(|error| Error::invalid("HTTP client", error.to_string()))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Sends a request; an answer that says "later" is none.
    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, Failed> {
        // A body that is encoded has other bytes at each place.
        let request = request.header(ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(|error| failed(url, error))?;
        let status = response.status();
        let is_passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        if is_passing {
            return Err(Failed::Passing(format!("its server says {status}")));
        }
        Ok(response)
    }
}

/// A rule of the allow-list, through the errors of the client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn failed(url: &Url, error: reqwest::Error) -> Failed {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Failed::Lasting(Error::Forbidden {
                url: url.as_str().to_owned(),
                reason: refused.0.clone(),
            });
        }
        cause = error.source();
    }
    let is_redirect = error.is_redirect();
    let text = crate::error::chain(&error.without_url());
    match is_redirect {
        true => Failed::Lasting(unreachable(url.as_str(), text)),
        false => Failed::Passing(text),
    }
}

/// Resolves names to addresses that may be reached.
#[derive(Debug)]
struct Resolver(AllowList);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.0.clone();
        Box::pin(async move {
            let host = name.as_str().trim_end_matches('.');
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let is_empty = found.is_empty();
            let mut admitted = found;
            admitted.retain(|address| allowed.admits_address(host, address.ip()));
            if admitted.is_empty() && !is_empty {
                let reason = format!(
                    "{host} is at an address of this machine or a private network, and no allowed \
                     prefix names it"
                );
                return Err(Refused(reason).into());
            }
            let addresses: Addrs = Box::new(admitted.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an answer is the range that was asked for, of the content that was meant.
fn check(url: &Url, response: &Response, etag: &str, range: &Range<u64>) -> Result<(), Failed> {
    let lasting = |error: Error| Err(Failed::Lasting(error));
    let url = url.as_str();
    let headers = response.headers();
    let length = match response.status() {
        StatusCode::PARTIAL_CONTENT => match content_range(headers) {
            Some((found, length)) if found == *range => length,
            Some((_, length)) if length < range.end => {
                let reason = format!("it has {length} bytes, too few");
                return lasting(changed(url, reason));
            }
            _ => {
                return lasting(unreachable(
                    url,
                    "its server sends another range than asked for",
                ));
            }
        },
        // The whole file, which happens to be the range.
        StatusCode::OK
            if number(headers, CONTENT_LENGTH) == Some(range.end) && range.start == 0 =>
        {
            range.end
        }
        StatusCode::OK => {
            return lasting(unreachable(url, "its server does not send ranges of it"));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return lasting(changed(url, "it is not there any more"));
        }
        StatusCode::PRECONDITION_FAILED => {
            return lasting(changed(url, "it was modified since"));
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return lasting(changed(url, "it is shorter than it was"));
        }
        status => return lasting(unreachable(url, format!("its server says {status}"))),
    };
    if content(headers, length).etag != etag {
        return lasting(changed(url, "it was modified since"));
    }
    Ok(())
}

async fn body(url: &Url, mut response: Response, length: u64) -> Result<Bytes, Failed> {
    let too_large = |_| Failed::Lasting(array::Error::TooLarge { what: "range" }.into());
    let length = usize::try_from(length).map_err(too_large)?;
    let mut bytes = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failed(url, error))? {
        if piece.len() > length - bytes.len() {
            let reason = "its server sends more than asked for";
            return Err(Failed::Lasting(unreachable(url.as_str(), reason)));
        }
        // A server that sends everything at once is not copied from.
        if bytes.is_empty() && piece.len() == length {
            return Ok(piece);
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() < length {
        return Err(Failed::Passing("the answer ended early".to_owned()));
    }
    Ok(bytes.freeze())
}

/// The etag of an answer, if it can be asked for; else one made of what the server does tell.
fn content(headers: &HeaderMap, length: u64) -> Content {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let strong = text(ETAG).filter(|etag| etag.starts_with('"'));
    let etag = match (strong, text(LAST_MODIFIED)) {
        (Some(etag), _) => etag.to_owned(),
        (None, Some(date)) => format!("{MADE_UP}{length};{date}"),
        (None, None) => format!("{MADE_UP}{length}"),
    };
    Content { length, etag }
}

/// The date in an etag that was made of one.
fn modified_in(etag: &str) -> Option<&str> {
    etag.strip_prefix(MADE_UP)?
        .split_once(';')
        .map(|(_, date)| date)
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `bytes 0-9/100`: the range and the length of the whole.
fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, length) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
    Some((first.trim().parse().ok()?..end, length.trim().parse().ok()?))
}
