//! The examples of the S3 documentation, and what is refused.

use axum::http::{HeaderName, Method, Uri};
use chrono::TimeZone as _;

use super::super::address::Address;
use super::super::parameters::Parameters;
use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
const HOST: &str = "examplebucket.s3.amazonaws.com";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn at(hour: u32, minute: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2013, 5, 24, hour, minute, 0).unwrap()
}

/// The outcome for a GET: the access key, or the refusal in its debug form.
fn check(
    uri: &str,
    headers: &[(&'static str, &str)],
    secret: &str,
    now: DateTime<Utc>,
) -> Result<Option<String>, String> {
    let uri: Uri = uri.parse().unwrap();
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let text = |refusal: Refusal| format!("{refusal:?}");
    let asked = Asked {
        method: &Method::GET,
        uri: &uri,
        headers: &headers,
        host: HOST,
        address: Address::parse(uri.path(), HOST, None).map_err(text)?,
        parameters: Parameters::parse(uri.query().unwrap_or("")).map_err(text)?,
    };
    let Some(claim) = claim(&asked).map_err(text)? else {
        return Ok(None);
    };
    claim.check(&asked, secret, now).map_err(text)?;
    Ok(Some(claim.access_key().to_owned()))
}

fn authorization(signed_headers: &str, signature: &str) -> String {
    format!("{ALGORITHM} Credential={SCOPE},SignedHeaders={signed_headers},Signature={signature}")
}

const GET_SIGNED: &str = "host;range;x-amz-content-sha256;x-amz-date";
const GET_SIGNATURE: &str = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";

/// The example of GetObject, with another time of the server or other headers after the usual ones.
fn get_object(
    now: DateTime<Utc>,
    authorization: &str,
    more: &[(&'static str, &str)],
) -> Result<Option<String>, String> {
    let mut headers = vec![
        ("authorization", authorization),
        ("range", "bytes=0-9"),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", "20130524T000000Z"),
    ];
    headers.extend(more);
    check("/test.txt", &headers, SECRET, now)
}

#[test]
fn signatures_of_the_documentation_hold() {
    let known = Ok(Some("AKIAIOSFODNN7EXAMPLE".to_owned()));
    let header = authorization(GET_SIGNED, GET_SIGNATURE);
    assert_eq!(get_object(at(0, 0), &header, &[]), known);
    assert_eq!(get_object(at(0, 14), &header, &[]), known);
    let list = authorization(
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    );
    let headers = [
        ("authorization", list.as_str()),
        ("x-amz-content-sha256", EMPTY),
        ("x-amz-date", "20130524T000000Z"),
    ];
    assert_eq!(
        check("/?max-keys=2&prefix=J", &headers, SECRET, at(0, 0)),
        known
    );
    assert_eq!(
        check("/?prefix=%4A&max-keys=2", &headers, SECRET, at(0, 0)),
        known
    );
}

#[test]
fn a_presigned_request_holds_for_its_time() {
    let uri = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let known = Ok(Some("AKIAIOSFODNN7EXAMPLE".to_owned()));
    assert_eq!(check(uri, &[], SECRET, at(23, 59)), known);
    let later = at(0, 0) + TimeDelta::seconds(86401);
    let refused = check(uri, &[], SECRET, later).unwrap_err();
    assert!(refused.contains("Request has expired"), "{refused}");
    let refused = check(uri, &[], SECRET, at(0, 0) - TimeDelta::hours(1)).unwrap_err();
    assert!(refused.contains("RequestTimeTooSkewed"), "{refused}");
    for (from, to, code) in [
        ("test.txt", "other.txt", "SignatureDoesNotMatch"),
        ("Expires=86400", "Expires=86401", "SignatureDoesNotMatch"),
        (
            "Expires=86400",
            "Expires=604801",
            "AuthorizationQueryParametersError",
        ),
        (
            "Expires=86400",
            "Expires=0",
            "AuthorizationQueryParametersError",
        ),
        (
            "&X-Amz-Date=20130524T000000Z",
            "",
            "AuthorizationQueryParametersError",
        ),
        (
            "&X-Amz-Signature",
            "&X-Amz-Security-Token=a&X-Amz-Signature",
            "InvalidToken",
        ),
        ("SHA256&", "SHA256&versionId=1&", "SignatureDoesNotMatch"),
    ] {
        let changed = uri.replace(from, to);
        assert_ne!(changed, uri);
        let refused = check(&changed, &[], SECRET, at(0, 0)).unwrap_err();
        assert!(refused.contains(code), "{to}: {refused}");
    }
}

#[test]
fn what_was_not_signed_so_is_refused() {
    let good = authorization(GET_SIGNED, GET_SIGNATURE);
    for (now, header, more, code) in [
        (at(0, 16), good.clone(), vec![], "RequestTimeTooSkewed"),
        (
            at(0, 0) - TimeDelta::minutes(16),
            good.clone(),
            vec![],
            "RequestTimeTooSkewed",
        ),
        (
            at(0, 0),
            good.replace("f0e8", "f0e9"),
            vec![],
            "SignatureDoesNotMatch",
        ),
        (
            at(0, 0),
            good.replace("us-east-1", "eu-west-1"),
            vec![],
            "SignatureDoesNotMatch",
        ),
        (
            at(0, 0),
            good.replace("host;range", "host"),
            vec![],
            "SignatureDoesNotMatch",
        ),
        (
            at(0, 0),
            good.replace("range;", "range;absent;"),
            vec![],
            "SignatureDoesNotMatch",
        ),
        (
            at(0, 0),
            good.clone(),
            vec![("x-amz-meta", "1")],
            "InvalidRequest",
        ),
        (
            at(0, 0),
            good.clone(),
            vec![("range", "bytes=1-")],
            "SignatureDoesNotMatch",
        ),
        (
            at(0, 0),
            good.clone(),
            vec![("authorization", "AWS a:b")],
            "InvalidArgument",
        ),
        (
            at(0, 0),
            good.replace("/s3/", "/ec2/"),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            good.replace("20130524", "20130525"),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            good.replace("host;", ""),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            good.replace("f0e8", "zzzz"),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            good.replace(",Signature", ",Sig"),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            ALGORITHM.to_owned(),
            vec![],
            "AuthorizationHeaderMalformed",
        ),
        (
            at(0, 0),
            good.replace("AWS4-HMAC", "AWS4-ECDSA"),
            vec![],
            "InvalidRequest",
        ),
        (
            at(0, 0),
            "AWS AKIA:c2ln".to_owned(),
            vec![],
            "InvalidRequest",
        ),
        (at(0, 0), String::new(), vec![], "InvalidRequest"),
    ] {
        let refused = get_object(now, &header, &more).unwrap_err();
        assert!(refused.contains(code), "{header} {more:?}: {refused}");
    }
    let wrong = check("/test.txt", &[("authorization", &good)], SECRET, at(0, 0));
    assert!(wrong.unwrap_err().contains("x-amz-date"));
    assert_eq!(check("/test.txt", &[], SECRET, at(0, 0)), Ok(None));
}
