//! JSON as Python writes it: with bare `NaN`, `Infinity` and `-Infinity`.

use serde_json::Value;

/// Parses JSON in which those three may stand for themselves; they become text, as Zarr spells
/// them elsewhere.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes).or_else(|error| {
        let quoted = quote(bytes).ok_or_else(|| error.to_string())?;
        serde_json::from_slice(&quoted).map_err(|error| error.to_string())
    })
}

/// The same text with quotes around bare non-finite numbers; `None` if there are none.
fn quote(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    let (mut at, mut in_string, mut any) = (0, false, false);
    while let Some(&byte) = bytes.get(at) {
        if in_string {
            out.push(byte);
            at += 1;
            match byte {
                b'"' => in_string = false,
                // An escaped quote does not end the text.
                b'\\' => {
                    out.extend(bytes.get(at));
                    at += 1;
                }
                _ => {}
            }
            continue;
        }
        let word = [b"-Infinity".as_slice(), b"Infinity", b"NaN"]
            .into_iter()
            .find(|word| bytes[at..].starts_with(word));
        match word {
            Some(word) => {
                any = true;
                out.push(b'"');
                out.extend_from_slice(word);
                out.push(b'"');
                at += word.len();
            }
            None => {
                in_string = byte == b'"';
                out.push(byte);
                at += 1;
            }
        }
    }
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bare_numbers_become_text_and_text_stays() {
        let text = br#"{"a": [NaN, -Infinity, Infinity], "b NaN": "x \" NaN \\", "c": -1}"#;
        let wanted =
            json!({ "a": ["NaN", "-Infinity", "Infinity"], "b NaN": "x \" NaN \\", "c": -1 });
        assert_eq!(parse(text), Ok(wanted));
        for bad in [b"{".as_slice(), b"\"\\", b"{\"a\": NaNx}", b"\xff", b""] {
            assert!(parse(bad).is_err());
        }
    }
}
