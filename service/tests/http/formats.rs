//! Formats, ranges, content codings and digests of answers.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, MAIN, Service};

const FORMATS: [(&str, &str, &[u8]); 7] = [
    ("octet-stream", "application/octet-stream", b""),
    ("npy", "application/x-npy", b"\x93NUMPY"),
    ("json", "application/json", b"{"),
    (
        "arrow",
        "application/vnd.apache.arrow.stream",
        b"\xFF\xFF\xFF\xFF",
    ),
    ("csv", "text/csv; charset=utf-8", b"x,y,f\r\n"),
    ("netcdf", "application/x-netcdf", b"CDF\x01"),
    ("png", "image/png", b"\x89PNG\r\n"),
];

fn digest(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Sha256::digest(bytes)))
}

async fn ask(service: &Service, url: &str, headers: &[(&str, &str)]) -> Answer {
    service.ask("GET", url, headers, "").await
}

#[tokio::test]
async fn every_format_is_asked_for_by_name_or_media_type() {
    let service = Service::new().await;
    let mut tags = BTreeMap::new();
    for (name, media_type, start) in FORMATS {
        for what in ["data/g/f", "reduce/g/f?reduce=mean&over="] {
            let mark = if what.contains('?') { '&' } else { '?' };
            let url = format!("{MAIN}/{what}{mark}f={name}");
            let named = service.get(&url).await;
            assert_eq!(named.status, 200, "{url}: {:?}", named.body);
            assert_eq!(named.header("content-type"), media_type);
            let digest = digest(&named.body);
            assert_eq!(named.header("repr-digest"), digest, "{name}");
            assert_eq!(named.header("tensor"), "dtype=\"<f4\", shape=(4 6)");
            assert!(named.body.starts_with(start), "{name}: {:?}", named.body);
            let tag = named.header("etag").to_owned();
            assert_eq!(tags.insert(tag, url.clone()), None, "{url}");

            let accept = [("accept", media_type)];
            let accepted = ask(&service, &format!("{MAIN}/{what}"), &accept).await;
            assert_eq!(accepted.body, named.body, "{url}");
            assert_eq!(accepted.header("etag"), named.header("etag"));
            assert_eq!(accepted.header("vary"), "Accept, Accept-Encoding");
        }
    }
    for url in [
        "data/g/f?f=xml",
        "data/g/f?f=csv&colormap=magma",
        "data/g/f?f=png&range=1",
    ] {
        service.refused("GET", &format!("{MAIN}/{url}"), 400).await;
    }
    let refused = ask(
        &service,
        &format!("{MAIN}/data/g/f"),
        &[("accept", "text/html")],
    )
    .await;
    assert_eq!(refused.status, 406);
    for (_, media_type, _) in FORMATS {
        assert!(refused.text().contains(media_type), "{media_type}");
    }
}

#[tokio::test]
async fn formats_refuse_what_they_cannot_hold() {
    let service = Service::new().await;
    for (url, status) in [
        ("data/names?f=npy", 406),
        ("data/names?f=octet-stream", 406),
        ("data/names?f=png", 406),
        ("data/sparse?f=png", 406),
        ("data/names?f=arrow", 200),
        ("data/names?f=csv", 200),
        ("data/names?f=netcdf", 200),
        // A row of text for each byte is more than an answer may be.
        ("data/big?slice=:4096&f=csv", 413),
        ("data/big?slice=:4096&f=json", 413),
        ("data/big?slice=:4096&f=netcdf", 200),
    ] {
        let answer = service.get(&format!("{MAIN}/{url}")).await;
        assert_eq!(answer.status, status, "{url}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn options_of_images_are_parts_of_their_tags() {
    let service = Service::new().await;
    let mut seen = BTreeMap::new();
    for options in [
        "",
        "&colormap=magma",
        "&range=0,5",
        "&range=0,6",
        "&colormap=RdBu",
    ] {
        let url = format!("{MAIN}/data/g/f?f=png{options}");
        let answer = service.get(&url).await;
        assert_eq!(answer.status, 200, "{url}");
        let known = seen.insert(answer.header("etag").to_owned(), answer.body);
        assert_eq!(known, None, "{url}");
    }
    let mut images: Vec<_> = seen.into_values().collect();
    images.dedup();
    assert_eq!(images.len(), 5);
}

#[tokio::test]
async fn attributes_are_those_of_the_decoded_values() {
    let service = Service::new().await;
    for (url, has_scale) in [
        ("data/packed?f=json", false),
        ("data/packed?f=json&decode=raw", true),
    ] {
        let answer = service.json(&format!("{MAIN}/{url}")).await;
        let attributes = &answer["attributes"];
        assert_eq!(attributes["scale_factor"].is_number(), has_scale, "{url}");
        assert_eq!(attributes["_FillValue"].is_number(), has_scale, "{url}");
    }
}

#[tokio::test]
async fn ranges_are_parts_of_the_plain_answer() {
    let service = Service::new().await;
    for below in [
        "data/big?slice=:4000",
        "reduce/big?reduce=max&over=&slice=:200",
        "zarr/g/f/zarr.json",
    ] {
        let url = format!("{MAIN}/{below}");
        let whole = service.get(&url).await;
        assert_eq!(whole.header("accept-ranges"), "bytes", "{url}");
        let length = whole.body.len();
        for (range, first, end) in [
            ("bytes=0-0", 0, 1),
            ("bytes=5-", 5, length),
            ("bytes=-7", length - 7, length),
            ("bytes=3-999999", 3, length),
        ] {
            let headers = [("range", range), ("accept-encoding", "zstd")];
            let part = ask(&service, &url, &headers).await;
            assert_eq!(part.status, 206, "{url} {range}");
            assert_eq!(part.body, whole.body[first..end], "{url} {range}");
            let content_range = format!("bytes {first}-{}/{length}", end - 1);
            assert_eq!(part.header("content-range"), content_range);
            assert_eq!(part.header("content-encoding"), "");
            assert_eq!(part.header("etag"), whole.header("etag"));
            assert_eq!(part.header("repr-digest"), digest(&whole.body), "{url}");
        }
        for ignored in ["bytes=0-1,3-4", "rows=0-1", "bytes=9-2"] {
            let answer = ask(&service, &url, &[("range", ignored)]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.body),
                (200, whole.body.clone())
            );
        }
        let outside = ask(&service, &url, &[("range", "bytes=999999-")]).await;
        assert_eq!(outside.status, 416, "{url}");
        assert_eq!(outside.header("content-range"), format!("bytes */{length}"));
        let tag = whole.header("etag");
        for (if_range, status) in [(tag, 206), ("\"other\"", 200), (&*format!("W/{tag}"), 200)] {
            let headers = [("range", "bytes=0-3"), ("if-range", if_range)];
            let answer = ask(&service, &url, &headers).await;
            assert_eq!(answer.status, status, "{url} {if_range}");
        }
        let head = service
            .ask("HEAD", &url, &[("range", "bytes=0-3")], "")
            .await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{url}");
        assert_eq!(head.header("content-length"), length.to_string(), "{url}");
        for name in ["etag", "repr-digest", "content-type", "tensor"] {
            assert_eq!(head.header(name), whole.header(name), "{url} {name}");
        }
    }
}

fn decompressed(answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        "zstd" => plain = zstd::decode_all(&answer.body[..]).unwrap(),
        "gzip" => {
            let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
            decoder.read_to_end(&mut plain).unwrap();
        }
        _ => plain.extend_from_slice(&answer.body),
    }
    plain
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    let service = Service::new().await;
    let url = format!("{MAIN}/data/g/f?f=csv&slice=[0,1,2,3],[0,1,2,3,4,5,0,1,2,3]");
    let plain = service.get(&url).await;
    assert!(
        plain.status == 200 && plain.body.len() < 1024,
        "{:?}",
        plain.body
    );
    let small = ask(&service, &url, &[("accept-encoding", "zstd")]).await;
    assert_eq!(small.header("content-encoding"), "");
    assert_eq!(small.body, plain.body);

    let service = service.with_answers_of(1 << 20);
    let rows = "0,1,2,3,".repeat(64);
    let rows = rows.trim_end_matches(',');
    for (format, by_list) in [("csv", ["gzip", "zstd"]), ("npy", ["", ""])] {
        let url = format!("{MAIN}/data/g/f?f={format}&slice=[{rows}],:");
        let plain = service.get(&url).await;
        assert_eq!(plain.status, 200, "{:?}", plain.body);
        let mut tags = vec![plain.header("etag").to_owned()];
        for (accepted, coding) in [
            ("gzip, deflate", by_list[0]),
            ("gzip, deflate, br, zstd", by_list[1]),
            ("gzip", "gzip"),
            ("zstd", "zstd"),
            ("gzip;q=0.9, zstd;q=0.1", "gzip"),
            ("br", ""),
            ("identity", ""),
        ] {
            let context = format!("{accepted} {format}");
            let headers = [("accept-encoding", accepted)];
            let coded = ask(&service, &url, &headers).await;
            assert_eq!(coded.header("content-encoding"), coding, "{context}");
            assert_eq!(decompressed(&coded), plain.body, "{context}");
            assert_eq!(
                coded.header("repr-digest"),
                digest(&coded.body),
                "{context}"
            );
            assert_eq!(coded.header("tensor"), plain.header("tensor"));
            let tag = coded.header("etag").to_owned();
            let known = [headers[0], ("if-none-match", &*tag)];
            let unchanged = ask(&service, &url, &known).await;
            assert_eq!(unchanged.status, 304, "{context}");
            assert_eq!(unchanged.header("etag"), tag, "{context}");
            assert_eq!(unchanged.header("vary"), "Accept, Accept-Encoding");
            tags.push(tag);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 3, "{format} {tags:?}");
        // What is cached in one coding is not what is asked for in another.
        let gzip = ask(&service, &url, &[("accept-encoding", "gzip")]).await;
        let other = [
            ("accept-encoding", "zstd"),
            ("if-none-match", gzip.header("etag")),
        ];
        assert_eq!(ask(&service, &url, &other).await.status, 200);
    }
}

#[tokio::test]
async fn images_and_stored_bytes_are_sent_as_they_are() {
    let service = Service::new().await;
    for below in ["zarr/big/c/0", "zarr/g/f/zarr.json", "data/g/f?f=png"] {
        let url = format!("{MAIN}/{below}");
        let plain = service.get(&url).await;
        let answer = ask(&service, &url, &[("accept-encoding", "zstd, gzip")]).await;
        assert_eq!(answer.header("content-encoding"), "", "{url}");
        assert_eq!(answer.header("etag"), plain.header("etag"), "{url}");
        assert_eq!(answer.body, plain.body, "{url}");
    }
}

#[tokio::test]
async fn browsers_see_digests_and_codings() {
    let service = Service::new().await;
    let headers = [("origin", "https://example.org")];
    let answer = ask(&service, &format!("{MAIN}/data/g/f"), &headers).await;
    let exposed = answer.header("access-control-expose-headers");
    for name in ["repr-digest", "content-encoding", "tensor", "etag"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}
