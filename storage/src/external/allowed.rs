//! What files elsewhere a process may read.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::{Host, Url};

use super::Place;
use super::address::is_public;
use crate::Error;

/// What files elsewhere a process may read: everything (a command has the rights of its caller), or
/// what is under some prefixes (a server). Cloning is cheap.
///
/// A local path is compared after symbolic links and `..` are resolved, a URL after it is parsed and
/// normalised: scheme, host, port, then whole steps of the path. `http://` and `https://` alone admit
/// any host, but no address of this machine or of a private network; one that is meant is named.
#[derive(Clone, Debug)]
pub struct AllowList(Option<Arc<[Prefix]>>);

#[derive(Clone, Debug)]
enum Prefix {
    Local(PathBuf),
    Url(Url),
    /// `http` or `https`, on any public host.
    Scheme(&'static str),
}

impl AllowList {
    /// One that admits everything.
    pub fn everything() -> Self {
        Self(None)
    }

    /// One that admits nothing.
    pub fn nothing() -> Self {
        Self(Some(Arc::default()))
    }

    /// One that admits what is under these prefixes: directories or files (`/data`, `file:///data`),
    /// `https://host/path`, `s3://bucket/prefix`, `gs://…`, `az://…`, or `https://` and `http://`
    /// for any public host.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one is not understood, or is a relative path.
    pub fn under(prefixes: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        let parsed = prefixes
            .into_iter()
            .map(|text| Prefix::parse(text.as_ref()));
        Ok(Self(Some(parsed.collect::<Result<_, _>>()?)))
    }

    /// One that admits a file or directory of this machine too, whose path is resolved.
    #[must_use]
    pub fn with_path(&self, path: &Path) -> Self {
        let and_path = |prefixes: &Arc<[Prefix]>| {
            let path = Prefix::Local(path.to_owned());
            prefixes.iter().cloned().chain([path]).collect()
        };
        Self(self.0.as_ref().map(and_path))
    }

    /// Whether there are no rules.
    pub fn is_everything(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the file or folder at `url`, or a local path, may be read. Blocks for local ones.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if it may not; [`Error::Invalid`] if it is not understood.
    pub fn check_url(&self, url: &str) -> Result<(), Error> {
        self.check(&Place::of(url)?)
    }

    /// The same. Not the last word on a local file, which may be replaced by a link before it is
    /// opened, nor on a host, whose address may be a private one: see [`AllowList::check_file`] and
    /// [`AllowList::admits_address`].
    pub(super) fn check(&self, place: &Place) -> Result<(), Error> {
        let Some(prefixes) = &self.0 else {
            return Ok(());
        };
        match place {
            Place::Local(path) => {
                // What is not there cannot be under anything but itself.
                let resolved = path.canonicalize().unwrap_or_else(|_| plain(path));
                self.check_file(path, &resolved)
            }
            Place::Http(url) | Place::Cloud(url) => {
                let under = |prefix: &Prefix| match prefix {
                    Prefix::Local(_) => false,
                    Prefix::Url(prefix) => is_under(url, prefix),
                    Prefix::Scheme(scheme) => url.scheme() == *scheme,
                };
                if !prefixes.iter().any(under) {
                    return Err(self.forbidden(url.as_str()));
                }
                let literal = match url.host() {
                    Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
                    Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
                    _ => None,
                };
                match literal {
                    Some(address) if !self.admits_address(&host_of(url), address) => {
                        Err(private(url.as_str()))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Whether a file may be read whose path without symbolic links is `resolved`.
    pub(super) fn check_file(&self, path: &Path, resolved: &Path) -> Result<(), Error> {
        let Some(prefixes) = &self.0 else {
            return Ok(());
        };
        let under = |prefix: &Prefix| match prefix {
            Prefix::Local(prefix) => resolved.starts_with(prefix),
            _ => false,
        };
        if prefixes.iter().any(under) {
            Ok(())
        } else {
            Err(self.forbidden(&path.display().to_string()))
        }
    }

    /// Whether `host` may be reached at `address`: at a public one always, at others if a prefix
    /// names the host.
    pub(super) fn admits_address(&self, host: &str, address: IpAddr) -> bool {
        let Some(prefixes) = &self.0 else {
            return true;
        };
        let names = |prefix: &Prefix| match prefix {
            Prefix::Url(prefix) => {
                prefix.scheme().starts_with("http") && host_of(prefix).eq_ignore_ascii_case(host)
            }
            _ => false,
        };
        is_public(address) || prefixes.iter().any(names)
    }

    fn forbidden(&self, url: &str) -> Error {
        let is_empty = self.0.as_ref().is_some_and(|prefixes| prefixes.is_empty());
        let reason = match is_empty {
            true => "files outside the store are not allowed here",
            false => "it is under none of the prefixes that are allowed here",
        };
        Error::Forbidden {
            url: url.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl Prefix {
    fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        match text {
            "http://" | "http:" => return Ok(Self::Scheme("http")),
            "https://" | "https:" => return Ok(Self::Scheme("https")),
            _ => {}
        }
        match Place::of(text)? {
            Place::Local(path) if path.is_absolute() => {
                let resolved = path.canonicalize().unwrap_or_else(|_| plain(&path));
                Ok(Self::Local(resolved))
            }
            Place::Local(_) => Err(Error::invalid(
                "allowed prefix",
                format!("{text:?} is not an absolute path or a URL"),
            )),
            Place::Http(url) | Place::Cloud(url) => Ok(Self::Url(url)),
        }
    }
}

/// The path with `.` and `..` worked off, where the system cannot do it.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for step in path.components() {
        match step {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            step => out.push(step),
        }
    }
    out
}

fn is_under(url: &Url, prefix: &Url) -> bool {
    let same_origin = url.scheme() == prefix.scheme()
        && host_of(url).eq_ignore_ascii_case(&host_of(prefix))
        && url.port_or_known_default() == prefix.port_or_known_default();
    let steps = |url: &Url| -> Vec<String> {
        let steps = url.path().split('/').filter(|step| !step.is_empty());
        steps.map(str::to_owned).collect()
    };
    same_origin && steps(url).starts_with(&steps(prefix))
}

/// The host, without the brackets of an IPv6 address and the dot of the root.
fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    host.trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_owned()
}

pub(super) fn private(url: &str) -> Error {
    Error::Forbidden {
        url: url.to_owned(),
        reason: "its address is of this machine or a private network, and no allowed prefix names \
                 the host"
            .to_owned(),
    }
}
