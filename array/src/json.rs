//! Canonical JSON: one byte sequence for each value.
//!
//! Member order and string escapes are those of RFC 8785. Numbers keep their kind, because readers
//! tell `1` from `1.0`: an integer is written in decimal digits, exactly; a float in ECMAScript's
//! shortest form, with `.0` appended where that form would read as an integer. There are no
//! non-finite numbers in JSON; callers write them as strings.
//!
//! Spec: `docs/format.md`, "Canonical JSON"; RFC 8785.

use serde_json::{Number, Value};

use crate::Error;

/// The canonical bytes of `value`.
pub fn canonical_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(value, &mut out);
    out
}

/// Parses any JSON text.
///
/// # Errors
/// [`Error::Invalid`] naming `what` if the bytes are not one JSON value.
pub fn parse(what: &'static str, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(what, error.to_string()))
}

/// Parses JSON that must be exactly the bytes [`canonical_bytes`] writes.
///
/// Refuses duplicate members, white space and every other spelling of the same value.
///
/// # Errors
/// [`Error::Invalid`] naming `what` if the bytes are not canonical JSON.
pub fn parse_canonical(what: &'static str, bytes: &[u8]) -> Result<Value, Error> {
    let value = parse(what, bytes)?;
    if canonical_bytes(&value) != bytes {
        return Err(Error::invalid(what, "not in canonical form"));
    }
    Ok(value)
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (position, (name, member)) in sorted.into_iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_value(member, out);
            }
            out.push(b'}');
        }
    }
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(integer) = number.as_i64() {
        out.extend_from_slice(integer.to_string().as_bytes());
    } else if let Some(integer) = number.as_u64() {
        out.extend_from_slice(integer.to_string().as_bytes());
    } else if let Some(float) = number.as_f64() {
        if float == 0.0 && float.is_sign_negative() {
            out.extend_from_slice(b"-0.0");
            return;
        }
        let mut buffer = ryu_js::Buffer::new();
        let text = buffer.format(float);
        out.extend_from_slice(text.as_bytes());
        if !text.contains(['.', 'e']) {
            out.extend_from_slice(b".0");
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // What stands for itself is copied in one piece, from here on.
    let mut start = 0;
    out.push(b'"');
    for (at, byte) in bytes.iter().enumerate() {
        let short: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x8 => b"\\b",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            0xc => b"\\f",
            b'\r' => b"\\r",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        match short {
            [] => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            short => out.extend_from_slice(short),
        }
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canonical(text: &str) -> String {
        let value = parse("test", text.as_bytes()).unwrap();
        String::from_utf8(canonical_bytes(&value)).unwrap()
    }

    #[test]
    fn numbers_keep_their_kind() {
        for (text, expected) in [
            ("1", "1"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e21", "1e+21"),
            ("1e5", "100000.0"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("0.1", "0.1"),
            ("0.10000000149011612", "0.10000000149011612"),
            ("1e-7", "1e-7"),
        ] {
            assert_eq!(canonical(text), expected);
            assert_eq!(canonical(expected), expected, "stable");
        }
    }

    #[test]
    fn members_sort_by_utf16_and_strings_escape_as_rfc_8785() {
        assert_eq!(
            canonical(r#"{"b":1,"a":{"z":[],"y":null}}"#),
            r#"{"a":{"y":null,"z":[]},"b":1}"#
        );
        // U+10000 is a surrogate pair (0xD800…) and sorts before U+FB33 in UTF-16.
        assert_eq!(
            canonical("{\"\u{fb33}\":1,\"\u{10000}\":2}"),
            "{\"\u{10000}\":2,\"\u{fb33}\":1}"
        );
        assert_eq!(
            canonical_bytes(&json!("\u{1}\n\"\\é/")),
            "\"\\u0001\\n\\\"\\\\é/\"".as_bytes()
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        assert!(parse_canonical("test", br#"{"a":1}"#).is_ok());
        for bad in [
            r#"{"a": 1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"b":1,"a":1}"#,
            "1.00",
            "{}\n",
            "[1",
        ] {
            assert!(parse_canonical("test", bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse("test", deep.as_bytes()).is_err());
    }
}
