//! safetensors: tensors one after another behind a header of JSON.
//!
//! ```text
//! u64 length of the header │ header │ tensors, without gaps and overlaps
//! ```
//!
//! Source: huggingface/safetensors, README, "Format".

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use array::{DataType, Elements, Region, shape::MAX_DIMENSIONS};
use serde_json::{Map, Value};

use crate::Error;
use crate::flat::FlatArray;
use crate::named::{Named, groups};
use crate::numpy_type::NumpyType;
use crate::source::{Attribute, Group, Reader, Refused, Variable};

/// Longest header, as the format has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes before the header.
const PREFIX_BYTES: u64 = 8;

/// An open safetensors file.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    file: File,
    tensors: Vec<FlatArray>,
}

impl SafetensorsFile {
    /// Whether a file of `length` with these first bytes can be one.
    pub(crate) fn is_one(start: &[u8], length: u64) -> bool {
        let header = start
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        start.get(PREFIX_BYTES as usize) == Some(&b'{')
            && (2..=MAX_HEADER_BYTES.min(length.saturating_sub(PREFIX_BYTES))).contains(&header)
    }

    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the header is not one of this file.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let malformed = |reason: String| Error::Malformed {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut prefix = [0; PREFIX_BYTES as usize];
        if length < PREFIX_BYTES {
            return Err(malformed("it is shorter than 8 bytes".into()));
        }
        file.read_exact_at(&mut prefix, 0).map_err(read)?;
        let header_bytes = u64::from_le_bytes(prefix);
        let room = MAX_HEADER_BYTES.min(length - PREFIX_BYTES);
        if header_bytes > room {
            let reason = format!("its header claims {header_bytes} bytes, the most is {room}");
            return Err(malformed(reason));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, PREFIX_BYTES)
            .map_err(read)?;
        let header: Map<String, Value> = serde_json::from_slice(&header)
            .map_err(|error| malformed(format!("its header: {error}")))?;
        let begin = PREFIX_BYTES + header_bytes;
        let (tensors, groups) = tensors(header, begin, length - begin).map_err(malformed)?;
        let path = path.to_owned();
        let file = Self {
            path,
            file,
            tensors,
        };
        Ok((file, groups))
    }
}

/// What a header says about tensors in the `room` bytes from `begin`.
fn tensors(
    mut header: Map<String, Value>,
    begin: u64,
    room: u64,
) -> Result<(Vec<FlatArray>, Vec<Group>), String> {
    let mut attributes = Vec::new();
    match header.remove("__metadata__") {
        None | Some(Value::Null) => {}
        Some(Value::Object(members)) => {
            for (name, value) in members {
                match value {
                    Value::String(text) => attributes.push((name, Attribute::Text(text))),
                    _ => return Err(format!("\"__metadata__\" has {name:?}, which is no text")),
                }
            }
        }
        Some(_) => return Err("\"__metadata__\" is no object".into()),
    }
    let mut parts = Vec::with_capacity(header.len());
    for (name, value) in header {
        let part = Part::parse(&value).map_err(|reason| format!("tensor {name:?}: {reason}"))?;
        parts.push((part, name));
    }
    parts.sort_by_key(|(part, _)| part.range);
    let (mut tensors, mut named, mut refused, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (part, name) in parts {
        let (from, to) = part.range;
        if from != end || to < from || to > room {
            return Err(format!(
                "tensor {name:?} leaves a gap, overlaps another or ends past the file"
            ));
        }
        end = to;
        match part.element {
            Ok(element) => {
                let bytes = FlatArray::size_bytes(&part.shape, &element.data_type);
                let bytes = bytes.map_err(|error| format!("tensor {name:?}: {error}"))?;
                if bytes != to - from {
                    let found = to - from;
                    return Err(format!(
                        "tensor {name:?} takes {bytes} bytes and has {found}"
                    ));
                }
                named.push(Named {
                    path: name,
                    shape: part.shape.clone(),
                    data_type: element.data_type.clone(),
                    handle: tensors.len(),
                });
                tensors.push(FlatArray {
                    begin: begin + from,
                    shape: part.shape,
                    element,
                    is_fortran: false,
                });
            }
            Err(reason) => refused.push(Refused { name, reason }),
        }
    }
    if end != room {
        return Err(format!("there are {} bytes after its tensors", room - end));
    }
    named.sort_by(|a, b| a.path.cmp(&b.path));
    let mut groups = groups(named);
    if let Some(root) = groups.first_mut() {
        root.attributes = attributes;
        root.refused = refused;
    }
    Ok((tensors, groups))
}

/// One tensor as the header has it.
struct Part {
    /// Its type, or why it cannot be kept.
    element: Result<NumpyType, String>,
    shape: Vec<u64>,
    range: (u64, u64),
}

impl Part {
    fn parse(value: &Value) -> Result<Self, String> {
        let numbers = |name: &str| -> Result<Vec<u64>, String> {
            let items = value.get(name).and_then(Value::as_array);
            let numbers = items.and_then(|items| items.iter().map(Value::as_u64).collect());
            numbers.ok_or_else(|| format!("{name:?} is no list of numbers"))
        };
        let dtype = value.get("dtype").and_then(Value::as_str);
        let dtype = dtype.ok_or("no \"dtype\"")?;
        let shape = numbers("shape")?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(format!("it has more than {MAX_DIMENSIONS} dimensions"));
        }
        let &[from, to] = numbers("data_offsets")?.as_slice() else {
            return Err("\"data_offsets\" are not two".into());
        };
        Ok(Self {
            element: element(dtype),
            shape,
            range: (from, to),
        })
    }
}

fn element(dtype: &str) -> Result<NumpyType, String> {
    let data_type = match dtype {
        "BOOL" => DataType::Bool,
        "I8" => DataType::Int8,
        "U8" => DataType::UInt8,
        "I16" => DataType::Int16,
        "U16" => DataType::UInt16,
        "I32" => DataType::Int32,
        "U32" => DataType::UInt32,
        "I64" => DataType::Int64,
        "U64" => DataType::UInt64,
        "F16" => DataType::Float16,
        "BF16" => DataType::BFloat16,
        "F32" => DataType::Float32,
        "F64" => DataType::Float64,
        "C64" => DataType::Complex64,
        other => return Err(format!("there is no data type for {other}")),
    };
    Ok(NumpyType {
        data_type,
        is_big_endian: false,
    })
}

impl Reader for SafetensorsFile {
    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        self.tensors[variable.handle].read(&self.file, &self.path, region)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(data).unwrap();
        file
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},
        "layer.0.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},
        "bias":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]},
        "x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[10,11]},
        "none":{"dtype":"F32","shape":[0,3],"data_offsets":[11,11]}}"#;

    #[test]
    fn tensors_are_found_by_name() {
        let file = file(GOOD, &[1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 9]);
        let (open, groups) = SafetensorsFile::open(file.path()).unwrap();
        let names: Vec<&str> = groups[0]
            .variables
            .iter()
            .map(|v| v.name.as_str())
            .collect();
        assert_eq!(names, ["bias", "layer.0.weight", "none"]);
        assert_eq!(groups[0].refused[0].name, "x");
        assert_eq!(
            groups[0].attributes,
            [("format".into(), Attribute::Text("pt".into()))]
        );
        let weight = &groups[0].variables[1];
        let row = Region::new(vec![1, 0], vec![1, 2]).unwrap();
        assert_eq!(
            open.read(weight, &row).unwrap(),
            Elements::Fixed(vec![5, 6, 7, 8])
        );
    }

    #[test]
    fn what_contradicts_the_file_is_refused() {
        let data = [0; 11];
        for (from, to) in [
            ("[0,8]", "[0,9]"),
            ("[0,8]", "[1,8]"),
            ("[0,8]", "[8,0]"),
            ("[2,2]", "[4294967296,4294967296,4294967296]"),
            ("[2,2]", "[2,-2]"),
            ("[8,10]", "[8,18446744073709551615]"),
            ("\"BF16\"", "7"),
            ("\"pt\"", "7"),
            ("}}", "}"),
        ] {
            assert!(GOOD.contains(from));
            let file = file(&GOOD.replacen(from, to, 1), &data);
            assert!(SafetensorsFile::open(file.path()).is_err(), "{from} {to}");
        }
        assert!(SafetensorsFile::open(file(GOOD, &[0; 10]).path()).is_err());
        assert!(SafetensorsFile::open(file(GOOD, &[0; 12]).path()).is_err());
        let huge = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(huge.path(), u64::MAX.to_le_bytes()).unwrap();
        assert!(SafetensorsFile::open(huge.path()).is_err());
    }

    #[test]
    fn a_truth_value_is_one_of_two() {
        let file = file(GOOD, &[2; 11]);
        let (open, groups) = SafetensorsFile::open(file.path()).unwrap();
        assert!(
            open.read(&groups[0].variables[0], &Region::whole(&[2]))
                .is_err()
        );
    }
}
