//! Request bodies as tensors: raw, npy, JSON.

use array::{ArrayMetadata, DataType, Elements, FillValue, Tensor, VariableElements, shape};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::Failure;

/// The values of a body, for a region of `wanted` shape of an array.
///
/// `application/octet-stream` is C order, little-endian; npy may be of either byte order;
/// `application/json` is nested lists, or one value for all cells.
///
/// # Errors
/// 400 if the body does not hold exactly these values; 415 for other media types.
pub fn parse(
    media_type: Option<&str>,
    body: &Bytes,
    metadata: &ArrayMetadata,
    wanted: &[u64],
) -> Result<Tensor, Failure> {
    let data_type = &metadata.data_type;
    let media_type = media_type.unwrap_or("application/octet-stream");
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let elements = match essence {
        "application/octet-stream" => raw(body, data_type, wanted)?,
        "application/x-npy" | "application/npy" => npy(body, data_type, wanted)?,
        "application/json" => json(body, data_type, wanted)?,
        other => {
            let detail = format!(
                "{other:?} is none of application/octet-stream, application/x-npy, application/json"
            );
            return Err(Failure::unsupported_media_type(detail));
        }
    };
    Ok(Tensor {
        data_type: data_type.clone(),
        shape: wanted.to_vec(),
        elements,
    })
}

fn invalid(detail: impl Into<String>) -> Failure {
    Failure::bad_request("body", detail)
}

fn raw(body: &[u8], data_type: &DataType, wanted: &[u64]) -> Result<Elements, Failure> {
    if data_type.is_variable_length() {
        return Err(invalid(format!("{data_type} has no fixed size: send JSON")));
    }
    let size = shape::size_bytes(wanted, data_type)?;
    if body.len() != size {
        let detail = format!(
            "{} bytes, shape {wanted:?} of {data_type} takes {size}",
            body.len()
        );
        return Err(invalid(detail));
    }
    Ok(Elements::Fixed(body.to_vec()))
}

/// The header of an npy file.
pub struct NpyHeader {
    /// As NumPy writes it: `<f4`.
    pub descr: String,
    /// The array's shape.
    pub shape: Vec<u64>,
    /// Where the values start.
    pub values: usize,
}

impl NpyHeader {
    /// Reads it.
    ///
    /// # Errors
    /// 400 if it is not that of an array in C order.
    ///
    /// Source: NumPy enhancement proposal 1.
    pub fn parse(body: &[u8]) -> Result<Self, Failure> {
        let cut_short = || invalid("an npy file that is cut short");
        if body.get(..6) != Some(b"\x93NUMPY") {
            return Err(invalid("not an npy file"));
        }
        let version = *body.get(6).ok_or_else(cut_short)?;
        let (start, length) = if version == 1 {
            let length = body.get(8..10).ok_or_else(cut_short)?;
            (10, usize::from(length[0]) | usize::from(length[1]) << 8)
        } else {
            let length = body.get(8..12).ok_or_else(cut_short)?;
            let length = length.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
            (12, length)
        };
        let values = start + length;
        let header = body.get(start..values).ok_or_else(cut_short)?;
        let header = std::str::from_utf8(header).map_err(|error| invalid(error.to_string()))?;
        let after = |name: &str| {
            let at = header.find(name).map(|at| at + name.len());
            let rest = at.and_then(|at| header[at..].split_once(':'));
            rest.map(|(_, rest)| rest.trim_start())
                .ok_or_else(|| invalid(format!("an npy header without {name}")))
        };
        if !after("'fortran_order'")?.starts_with("False") {
            return Err(invalid("an npy file in Fortran order: save it in C order"));
        }
        let descr = after("'descr'")?
            .strip_prefix('\'')
            .and_then(|d| d.split_once('\''));
        let (descr, _) = descr
            .ok_or_else(|| invalid("an npy file of records: only plain types can be stored"))?;
        let lengths = after("'shape'")?
            .strip_prefix('(')
            .and_then(|s| s.split_once(')'));
        let (lengths, _) = lengths.ok_or_else(|| invalid("an npy header without a shape"))?;
        let shape = lengths
            .split(',')
            .map(str::trim)
            .filter(|length| !length.is_empty())
            .map(|length| {
                length
                    .parse()
                    .map_err(|_| invalid("an npy header without a shape"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            descr: descr.to_owned(),
            shape,
            values,
        })
    }
}

fn npy(body: &[u8], data_type: &DataType, wanted: &[u64]) -> Result<Elements, Failure> {
    let header = NpyHeader::parse(body)?;
    let own = data_type
        .numpy_descr()
        .ok_or_else(|| invalid(format!("NumPy has no {data_type}: send JSON")))?;
    let swapped = own.strip_prefix('<').map(|kind| format!(">{kind}"));
    let is_swapped = Some(&header.descr) == swapped.as_ref();
    if header.descr != own && !is_swapped {
        let detail = format!("values of type {}, the array has {own}", header.descr);
        return Err(invalid(detail));
    }
    if header.shape != wanted {
        let detail = format!(
            "values of shape {:?}, the slice has {wanted:?}",
            header.shape
        );
        return Err(invalid(detail));
    }
    let Elements::Fixed(mut values) = raw(&body[header.values..], data_type, wanted)? else {
        return Err(invalid("values of no fixed size"));
    };
    if is_swapped {
        let size = match data_type {
            DataType::Complex64 | DataType::Complex128 => data_type.size_bytes().unwrap_or(2) / 2,
            DataType::FixedLengthUtf32 { .. } => 4,
            _ => data_type.size_bytes().unwrap_or(1),
        };
        for element in values.chunks_exact_mut(size) {
            element.reverse();
        }
    }
    Ok(Elements::Fixed(values))
}

fn json(body: &[u8], data_type: &DataType, wanted: &[u64]) -> Result<Elements, Failure> {
    let value = array::json::parse("body", body)?;
    let value = match value {
        Value::Object(members) => values_of(members, data_type, wanted)?,
        other => other,
    };
    let count = shape::elements(wanted)?;
    if !value.is_array() || is_element(data_type, &value) {
        let fill = FillValue::parse(data_type, &value)?;
        return Ok(Elements::repeat(data_type, fill.as_bytes(), count)?);
    }
    let mut values: Vec<Vec<u8>> = Vec::new();
    flatten(&value, data_type, wanted, &mut values)?;
    Ok(if data_type.is_variable_length() {
        let elements: VariableElements = values.iter().map(Vec::as_slice).collect();
        Elements::Variable(elements)
    } else {
        Elements::Fixed(values.concat())
    })
}

/// The values of an object as reads answer with: what else it says must be so.
fn values_of(
    mut members: Map<String, Value>,
    data_type: &DataType,
    wanted: &[u64],
) -> Result<Value, Failure> {
    let values = members
        .remove("values")
        .ok_or_else(|| invalid("an object without \"values\""))?;
    if let Some(found) = members.get("shape")
        && *found != serde_json::json!(wanted)
    {
        let detail = format!("values of shape {found}, the slice has {wanted:?}");
        return Err(invalid(detail));
    }
    if let Some(found) = members.get("data_type")
        && *found != data_type.to_json()
    {
        let detail = format!("values of type {found}, the array has {data_type}");
        return Err(invalid(detail));
    }
    Ok(values)
}

/// Whether a list is one element: complex numbers and raw bytes are written as lists.
fn is_element(data_type: &DataType, value: &Value) -> bool {
    let is_flat = value
        .as_array()
        .is_some_and(|items| items.iter().all(|item| !item.is_array()));
    is_flat && FillValue::parse(data_type, value).is_ok()
}

fn flatten(
    value: &Value,
    data_type: &DataType,
    wanted: &[u64],
    values: &mut Vec<Vec<u8>>,
) -> Result<(), Failure> {
    let Some((&length, rest)) = wanted.split_first() else {
        values.push(FillValue::parse(data_type, value)?.as_bytes().to_vec());
        return Ok(());
    };
    let items = value
        .as_array()
        .filter(|items| items.len() as u64 == length);
    let items = items.ok_or_else(|| invalid(format!("not nested lists of shape {wanted:?}")))?;
    items
        .iter()
        .try_for_each(|item| flatten(item, data_type, rest, values))
}

#[cfg(test)]
mod tests {
    use array::{CodecMetadata, RegularGrid};
    use serde_json::json;

    use super::*;

    fn metadata(data_type: DataType) -> ArrayMetadata {
        let grid = RegularGrid::new(vec![2, 2], vec![2, 2]).unwrap();
        ArrayMetadata::new(
            grid,
            data_type,
            vec![CodecMetadata::new("bytes", json!({}))],
        )
    }

    fn int16(media_type: &str, body: &[u8]) -> Result<Vec<u8>, u16> {
        let body = Bytes::copy_from_slice(body);
        match parse(Some(media_type), &body, &metadata(DataType::Int16), &[2, 2]) {
            Ok(Tensor {
                elements: Elements::Fixed(bytes),
                ..
            }) => Ok(bytes),
            Ok(_) => panic!("variable-length elements"),
            Err(failure) => Err(failure.problem().status),
        }
    }

    #[test]
    fn bodies_hold_exactly_the_values() {
        let values = [1, 0, 2, 0, 3, 0, 255, 255].to_vec();
        let npy = |descr: &str, shape: &str, values: &[u8]| {
            let header =
                format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
            let length = (header.len() as u16).to_le_bytes();
            [
                b"\x93NUMPY\x01\x00".as_slice(),
                &length,
                header.as_bytes(),
                values,
            ]
            .concat()
        };
        let octets = "application/octet-stream";
        assert_eq!(int16(octets, &values), Ok(values.clone()));
        assert_eq!(int16(octets, &values[1..]), Err(400));
        let swapped = [0, 1, 0, 2, 0, 3, 255, 255];
        let npy_type = "application/x-npy";
        assert_eq!(
            int16(npy_type, &npy("<i2", "(2, 2)", &values)),
            Ok(values.clone())
        );
        assert_eq!(
            int16(npy_type, &npy(">i2", "(2, 2)", &swapped)),
            Ok(values.clone())
        );
        for (descr, shape) in [("<i4", "(2, 2)"), ("<i2", "(4,)"), ("<i2", "(x)")] {
            assert_eq!(int16(npy_type, &npy(descr, shape, &values)), Err(400));
        }
        for cut in 0..npy("<i2", "(2, 2)", &values).len() {
            assert_eq!(
                int16(npy_type, &npy("<i2", "(2, 2)", &values)[..cut]),
                Err(400)
            );
        }
        let json_type = "application/json; charset=utf-8";
        assert_eq!(int16(json_type, b"[[1,2],[3,-1]]"), Ok(values.clone()));
        assert_eq!(int16(json_type, b"{\"values\":[[1,2],[3,-1]]}"), Ok(values));
        assert_eq!(int16(json_type, b"1"), Ok([1, 0].repeat(4)));
        for bad in [
            "[1,2]",
            "[[1,2],[3]]",
            "[[1,2],[3,40000]]",
            "[[1,2],[3,0.5]]",
            "{}",
            "[",
        ] {
            assert_eq!(int16(json_type, bad.as_bytes()), Err(400), "{bad}");
        }
        assert_eq!(int16("text/plain", b""), Err(415));
    }
}
