//! Content codings of computed answers. Stored bytes are never coded: they are compressed already.

use std::io::Write as _;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::format::{Compressibility, Format};

/// How the bytes of an answer are packed for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
}

/// What is shorter stays as it is: it fits a network packet or two.
const MIN_BYTES: usize = 1 << 10;
/// The quickest level: answers are made while someone waits for them.
const LEVEL: u8 = 1;

impl Coding {
    /// What `Accept-Encoding` likes best; zstd where it likes several as much. Numbers as bytes gain
    /// little and cost more time than they are made in, so they are packed only for who asks for that
    /// and not for the list that an HTTP library sends by itself. Ranges are of the plain bytes, so
    /// that a reader can ask for the part of a file that it knows the place of.
    pub(crate) fn negotiate(headers: &HeaderMap, format: Format) -> Self {
        if headers.contains_key(header::RANGE) {
            return Self::Identity;
        }
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let accepted: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let accepted = accepted.join(",");
        match format.compressibility() {
            Compressibility::None => Self::Identity,
            Compressibility::Low if is_a_list(&accepted) => Self::Identity,
            Compressibility::Low | Compressibility::High => Self::preferred(&accepted),
        }
    }

    fn preferred(accepted: &str) -> Self {
        let (mut zstd, mut gzip, mut identity, mut rest) = (None, None, None, None);
        for item in accepted.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or("").to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(Ok(1.0), str::parse::<f32>).unwrap_or(0.0);
            match name.as_str() {
                "zstd" => zstd = Some(quality),
                "gzip" | "x-gzip" => gzip = Some(quality),
                "identity" => identity = Some(quality),
                "*" => rest = Some(quality),
                _ => {}
            }
        }
        // Identity is always acceptable, but liked as much as said only if it is.
        let identity = identity.unwrap_or(0.0);
        let quality = |named: Option<f32>| named.or(rest).unwrap_or(0.0);
        let (zstd, gzip) = (quality(zstd), quality(gzip));
        if zstd > 0.0 && zstd >= gzip && zstd >= identity {
            Self::Zstd
        } else if gzip > 0.0 && gzip >= identity {
            Self::Gzip
        } else {
            Self::Identity
        }
    }

    /// Its name in `Content-Encoding`.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
        }
    }

    /// Shorter bytes; `None` where there are none or the gain is none. The same bytes always give the
    /// same.
    pub(super) fn encode(self, bytes: &[u8]) -> Option<Bytes> {
        if bytes.len() < MIN_BYTES {
            return None;
        }
        let coded = match self {
            Self::Identity => return None,
            Self::Zstd => zstd::bulk::compress(bytes, i32::from(LEVEL)).ok()?,
            Self::Gzip => {
                let level = Compression::new(u32::from(LEVEL));
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).ok()?;
                encoder.finish().ok()?
            }
        };
        (coded.len() < bytes.len()).then(|| coded.into())
    }
}

/// Whether several codings are accepted and none is preferred.
fn is_a_list(accepted: &str) -> bool {
    accepted.contains(',') && !accepted.contains(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_are_chosen_by_quality() {
        for (accepted, expected) in [
            ("", Coding::Identity),
            ("gzip, deflate", Coding::Gzip),
            ("gzip, deflate, br, zstd", Coding::Zstd),
            ("zstd;q=0.5, gzip", Coding::Gzip),
            ("*", Coding::Zstd),
            ("*, zstd;q=0", Coding::Gzip),
            ("*;q=0", Coding::Identity),
            ("X-GZIP", Coding::Gzip),
            ("gzip;q=0.5, identity", Coding::Identity),
            ("gzip;q=0.5, identity;q=0.2", Coding::Gzip),
            ("br, deflate", Coding::Identity),
            ("gzip;q=much", Coding::Identity),
        ] {
            assert_eq!(Coding::preferred(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn numbers_as_bytes_are_packed_when_asked() {
        for (accepted, text, bytes) in [
            ("", Coding::Identity, Coding::Identity),
            ("gzip, deflate", Coding::Gzip, Coding::Identity),
            ("gzip, deflate, br, zstd", Coding::Zstd, Coding::Identity),
            ("gzip", Coding::Gzip, Coding::Gzip),
            ("zstd", Coding::Zstd, Coding::Zstd),
            ("zstd, gzip;q=0.5", Coding::Zstd, Coding::Zstd),
            ("gzip;q=0.5, identity", Coding::Identity, Coding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accepted.parse().unwrap());
            for format in [Format::Csv, Format::Json] {
                assert_eq!(Coding::negotiate(&headers, format), text, "{accepted}");
            }
            for format in [
                Format::OctetStream,
                Format::Npy,
                Format::Arrow,
                Format::Netcdf,
            ] {
                assert_eq!(Coding::negotiate(&headers, format), bytes, "{accepted}");
            }
        }
    }

    #[test]
    fn images_and_ranges_are_plain() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, "zstd".parse().unwrap());
        assert_eq!(Coding::negotiate(&headers, Format::Csv), Coding::Zstd);
        assert_eq!(Coding::negotiate(&headers, Format::Png), Coding::Identity);
        headers.insert(header::RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(Coding::negotiate(&headers, Format::Csv), Coding::Identity);
    }
}
