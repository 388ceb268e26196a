//! Answers as bytes, one file a format.
//!
//! Every format is written from an [`Answer`]: variables over shared dimensions, with their
//! coordinates. The same answer is always the same bytes, so that a tag computed before the data are
//! read names them.

mod arrow;
mod cells;
mod csv;
mod json;
mod netcdf;
mod npy;
mod png;

use array::{DataType, Elements, Tensor};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::Failure;

pub(crate) use json::float as float_json;
pub use png::Colormap;

/// What is written: variables over shared dimensions, with their coordinates.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What was asked for.
    pub variables: Vec<Variable>,
    /// Where it is: variables of one dimension, with that dimension's name and cut to its length, and
    /// scalars.
    pub coordinates: Vec<Variable>,
}

/// An array of an answer.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name, unique in the answer.
    pub name: String,
    /// Names of its dimensions, as many as the tensor has.
    pub dimensions: Vec<Option<String>>,
    /// Its elements.
    pub tensor: Tensor,
    /// Attributes that hold for the elements as they are here: without `scale_factor` if they are
    /// scaled.
    pub attributes: Map<String, Value>,
}

impl Answer {
    /// One variable without coordinates.
    pub fn of(variable: Variable) -> Self {
        Self {
            variables: vec![variable],
            coordinates: Vec::new(),
        }
    }

    /// The coordinates that are not variables themselves.
    fn proper_coordinates(&self) -> impl Iterator<Item = &Variable> {
        let is_asked = |coordinate: &Variable| {
            let mut names = self.variables.iter().map(|variable| &variable.name);
            names.any(|name| *name == coordinate.name)
        };
        self.coordinates.iter().filter(move |c| !is_asked(c))
    }

    /// The coordinate of a dimension, of the length it has.
    fn coordinate(&self, dimension: &str, length: u64) -> Option<&Variable> {
        self.coordinates.iter().find(|coordinate| {
            coordinate.name == dimension
                && coordinate.tensor.shape == [length]
                && coordinate.dimensions == [Some(dimension.to_owned())]
        })
    }

    /// The only variable, for a format that holds one.
    fn into_single(self, format: Format) -> Result<Variable, Failure> {
        let count = self.variables.len();
        let mut variables = self.variables.into_iter();
        match (variables.next(), variables.next()) {
            (Some(variable), None) => Ok(variable),
            _ => Err(Failure::not_acceptable(format!(
                "{} holds one variable, the answer has {count}: ask for f=json, f=arrow or f=netcdf",
                format.name()
            ))),
        }
    }
}

/// The attributes of an array that hold for its elements after decoding; `is_masked` and `is_scaled`
/// say what was done to them.
pub fn remaining_attributes(
    attributes: &Map<String, Value>,
    is_masked: bool,
    is_scaled: bool,
) -> Map<String, Value> {
    const MASKS: [&str; 6] = [
        "_FillValue",
        "missing_value",
        "valid_min",
        "valid_max",
        "valid_range",
        "_Unsigned",
    ];
    const SCALES: [&str; 2] = ["scale_factor", "add_offset"];
    let is_used_up =
        |name: &str| is_masked && MASKS.contains(&name) || is_scaled && SCALES.contains(&name);
    let remaining = attributes.iter().filter(|(name, _)| !is_used_up(name));
    remaining
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What compressing a format gains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressibility {
    /// Nothing: it is compressed.
    None,
    /// What the numbers in it gain: often little.
    Low,
    /// Much: it is text.
    High,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// C order, little-endian; shape and type in the `Tensor` header.
    OctetStream,
    /// NumPy's file format.
    Npy,
    /// Type, shape and nested lists.
    Json,
    /// Arrow's IPC stream, of one record batch of one row.
    Arrow,
    /// A row for each cell.
    Csv,
    /// NetCDF classic, 64-bit offset or CDF-5.
    Netcdf,
    /// An image of two dimensions.
    Png,
}

/// What a format can be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Colours of an image.
    pub colormap: Colormap,
    /// The values that the first and the last colour stand for; those of the data if left out.
    pub range: Option<(f64, f64)>,
}

impl Options {
    /// From the query parameters.
    ///
    /// # Errors
    /// 400 for a value that is not understood, and for any with another format than [`Format::Png`].
    pub fn new(
        format: Format,
        colormap: Option<&str>,
        range: Option<&str>,
    ) -> Result<Self, Failure> {
        for (name, value) in [("colormap", colormap), ("range", range)] {
            if value.is_some() && format != Format::Png {
                let detail = format!("{name} goes with f=png, not with f={}", format.name());
                return Err(Failure::bad_request(name, detail));
            }
        }
        Ok(Self {
            colormap: colormap.map(str::parse).transpose()?.unwrap_or_default(),
            range: range.map(png::parse_range).transpose()?,
        })
    }
}

impl Format {
    /// All, the preferred ones first.
    const ALL: [Self; 7] = [
        Self::OctetStream,
        Self::Npy,
        Self::Json,
        Self::Arrow,
        Self::Csv,
        Self::Netcdf,
        Self::Png,
    ];

    /// From `f=`, else from `Accept`.
    ///
    /// Of the formats with the highest quality, the one named most exactly, then first.
    ///
    /// # Errors
    /// 400 for an unknown `f`, 406 if nothing acceptable is left.
    pub fn negotiate(f: Option<&str>, accept: Option<&str>) -> Result<Self, Failure> {
        if let Some(f) = f {
            let f = if matches!(f, "bytes" | "raw") {
                "octet-stream"
            } else {
                f
            };
            let named = Self::ALL.into_iter().find(|format| format.name() == f);
            return named.ok_or_else(|| {
                let detail = format!("{f:?} is none of {}", list(Self::name));
                Failure::bad_request("f", detail)
            });
        }
        let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
            return Ok(Self::OctetStream);
        };
        let ranges: Vec<MediaRange> = accept.split(',').map(MediaRange::parse).collect();
        let mut best: Option<((f32, u8), Self, usize)> = None;
        for format in Self::ALL {
            // The most exact range says how good a format is.
            let mut matched: Option<(&MediaRange, u8, usize)> = None;
            for (place, range) in ranges.iter().enumerate() {
                let Some(exactness) = range.matches(format) else {
                    continue;
                };
                if matched.is_none_or(|(_, known, _)| exactness > known) {
                    matched = Some((range, exactness, place));
                }
            }
            let Some((range, exactness, place)) = matched.filter(|(range, ..)| range.quality > 0.0)
            else {
                continue;
            };
            let rank = (range.quality, exactness);
            let is_better = |(known, _, known_place): &((f32, u8), Self, usize)| {
                rank > *known || rank == *known && place < *known_place
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some((rank, format, place));
            }
        }
        best.map(|(_, format, _)| format).ok_or_else(|| {
            Failure::not_acceptable(format!("offered are {}", list(Self::media_type)))
        })
    }

    /// Its name in `f=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OctetStream => "octet-stream",
            Self::Npy => "npy",
            Self::Json => "json",
            Self::Arrow => "arrow",
            Self::Csv => "csv",
            Self::Netcdf => "netcdf",
            Self::Png => "png",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OctetStream => "application/octet-stream",
            Self::Npy => "application/x-npy",
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Netcdf => "application/x-netcdf",
            Self::Png => "image/png",
        }
    }

    /// Other media types that stand for it.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Npy => &["application/npy"],
            Self::Netcdf => &["application/netcdf"],
            _ => &[],
        }
    }

    /// Bytes an element of an answer with so many dimensions takes, while it is written and after, at
    /// most; of variable size, estimated.
    pub fn element_bytes(self, data_type: &DataType, dimensions: usize) -> u64 {
        let bytes = data_type.size_bytes().unwrap_or(32) as u64;
        match self {
            Self::OctetStream | Self::Npy => bytes,
            // What is narrower than float32 is widened to it.
            Self::Arrow | Self::Netcdf if data_type.is_float() => bytes.max(4),
            Self::Arrow | Self::Netcdf => bytes,
            Self::Json => json::element_bytes(data_type),
            Self::Csv => csv::row_bytes(data_type, dimensions),
            Self::Png => bytes.max(1),
        }
    }

    /// Whether it has room for coordinates.
    pub fn holds_coordinates(self) -> bool {
        matches!(
            self,
            Self::Json | Self::Arrow | Self::Csv | Self::Netcdf | Self::Png
        )
    }

    /// What compressing it gains.
    pub(crate) fn compressibility(self) -> Compressibility {
        match self {
            Self::Json | Self::Csv => Compressibility::High,
            Self::OctetStream | Self::Npy | Self::Arrow | Self::Netcdf => Compressibility::Low,
            Self::Png => Compressibility::None,
        }
    }

    /// Writes an answer.
    ///
    /// # Errors
    /// 406 if the format cannot hold it.
    pub fn encode(self, answer: Answer, options: &Options) -> Result<Bytes, Failure> {
        match self {
            Self::OctetStream => {
                let tensor = answer.into_single(self)?.tensor;
                match tensor.elements {
                    Elements::Fixed(bytes) => Ok(bytes.into()),
                    Elements::Variable(_) => Err(no_fixed_size(&tensor.data_type)),
                }
            }
            Self::Npy => npy::encode(&answer.into_single(self)?.tensor).map(Bytes::from),
            Self::Json => Ok(json::encode(&answer).into()),
            Self::Arrow => arrow::encode(answer).map(Bytes::from),
            Self::Csv => csv::encode(&answer).map(Bytes::from),
            Self::Netcdf => netcdf::encode(&answer).map(Bytes::from),
            Self::Png => png::encode(&answer, options).map(Bytes::from),
        }
    }

    /// Writes a tensor without a name.
    ///
    /// # Errors
    /// As [`Format::encode`].
    pub fn encode_tensor(
        self,
        tensor: Tensor,
        dimensions: &[Option<String>],
    ) -> Result<Bytes, Failure> {
        let mut dimensions = dimensions.to_vec();
        dimensions.resize(tensor.shape.len(), None);
        let variable = Variable {
            name: String::new(),
            dimensions,
            tensor,
            attributes: Map::new(),
        };
        self.encode(Answer::of(variable), &Options::default())
    }

    /// The `Tensor` header: enough to read the bytes.
    pub fn tensor_header(data_type: &DataType, shape: &[u64]) -> String {
        let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
        let dtype = data_type
            .numpy_descr()
            .unwrap_or_else(|| data_type.to_string());
        format!("dtype=\"{dtype}\", shape=({})", shape.join(" "))
    }
}

fn list(name: impl Fn(Format) -> &'static str) -> String {
    Format::ALL.map(name).join(", ")
}

fn no_fixed_size(data_type: &DataType) -> Failure {
    let detail = format!("{data_type} has elements of no fixed size: ask for f=json");
    Failure::not_acceptable(detail)
}

/// A media range of `Accept`.
struct MediaRange {
    essence: String,
    quality: f32,
}

impl MediaRange {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or("").to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality = quality.map_or(Ok(1.0), str::parse::<f32>);
        Self {
            essence,
            quality: quality.unwrap_or(0.0),
        }
    }

    /// How exactly it names a format, if it does.
    fn matches(&self, format: Format) -> Option<u8> {
        let essence = format.media_type().split(';').next().unwrap_or("");
        if self.essence == essence || format.aliases().contains(&self.essence.as_str()) {
            return Some(3);
        }
        let kind = essence.split('/').next().unwrap_or("");
        match self.essence.strip_suffix("/*") {
            Some("*") => Some(1),
            Some(wanted) if wanted == kind => Some(2),
            _ => None,
        }
    }
}

/// Samples for the tests of the formats.
#[cfg(test)]
mod samples {
    use super::*;

    pub(super) fn tensor(data_type: DataType, shape: &[u64], bytes: Vec<u8>) -> Tensor {
        Tensor {
            data_type,
            shape: shape.to_vec(),
            elements: Elements::Fixed(bytes),
        }
    }

    pub(super) fn floats(shape: &[u64], values: &[f32]) -> Tensor {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        tensor(DataType::Float32, shape, bytes)
    }

    pub(super) fn doubles(shape: &[u64], values: &[f64]) -> Tensor {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        tensor(DataType::Float64, shape, bytes)
    }

    pub(super) fn texts(shape: &[u64], values: &[&str]) -> Tensor {
        Tensor {
            data_type: DataType::String,
            shape: shape.to_vec(),
            elements: Elements::Variable(values.iter().map(|text| text.as_bytes()).collect()),
        }
    }

    pub(super) fn variable(name: &str, dimensions: &[&str], tensor: Tensor) -> Variable {
        let name_of = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
        Variable {
            name: name.to_owned(),
            dimensions: dimensions.iter().map(name_of).collect(),
            tensor,
            attributes: Map::new(),
        }
    }

    /// `t(lat, x)`: 2 × 3 floats with a NaN; `lat` ascends, `x` has no coordinate.
    pub(super) fn grid() -> Answer {
        let values = [1.5, f32::NAN, 0.1, -2.0, 3e30, f32::INFINITY];
        let mut grid = variable("t", &["lat", "x"], floats(&[2, 3], &values));
        grid.attributes.insert("units".into(), "K".into());
        let mut lat = variable("lat", &["lat"], doubles(&[2], &[-10.0, 10.0]));
        lat.attributes
            .insert("units".into(), "degrees_north".into());
        Answer {
            variables: vec![grid],
            coordinates: vec![lat],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_are_negotiated() {
        let negotiate = |f, accept| Format::negotiate(f, accept).ok();
        for format in Format::ALL {
            assert_eq!(negotiate(Some(format.name()), Some("x/y")), Some(format));
            assert_eq!(negotiate(None, Some(format.media_type())), Some(format));
        }
        for (accept, expected) in [
            ("", Some(Format::OctetStream)),
            ("*/*", Some(Format::OctetStream)),
            ("application/*", Some(Format::OctetStream)),
            ("image/avif,image/*,*/*;q=0.8", Some(Format::Png)),
            ("text/html,*/*;q=0.8", Some(Format::OctetStream)),
            ("TEXT/CSV", Some(Format::Csv)),
            (
                "application/json;q=0.5, application/x-npy",
                Some(Format::Npy),
            ),
            ("application/json, text/plain, */*", Some(Format::Json)),
            ("*/*, application/json", Some(Format::Json)),
            ("text/csv, application/json", Some(Format::Csv)),
            (
                "*/*, application/octet-stream;q=0, application/x-npy;q=0.1",
                Some(Format::Json),
            ),
            ("text/html", None),
            ("*/*;q=0", None),
            ("image/png;q=nonsense", None),
        ] {
            assert_eq!(negotiate(None, Some(accept)), expected, "{accept}");
        }
        assert_eq!(negotiate(None, None), Some(Format::OctetStream));
        let unknown = Format::negotiate(Some("xml"), None).unwrap_err();
        assert_eq!(unknown.problem().status, 400);
        let refused = Format::negotiate(None, Some("text/html")).unwrap_err();
        assert_eq!(refused.problem().status, 406);
        for format in Format::ALL {
            assert!(unknown.problem().detail.contains(format.name()));
            assert!(refused.problem().detail.contains(format.media_type()));
        }
    }

    #[test]
    fn formats_of_one_variable_refuse_several() {
        let variable = samples::variable("a", &[], samples::floats(&[], &[1.0]));
        let several = Answer {
            variables: vec![variable.clone(), variable],
            coordinates: Vec::new(),
        };
        for format in [Format::OctetStream, Format::Npy, Format::Png] {
            let refused = format.encode(several.clone(), &Options::default());
            let problem = refused.unwrap_err();
            assert_eq!(problem.problem().status, 406);
            assert!(problem.problem().detail.contains("f=netcdf"));
        }
    }

    #[test]
    fn elements_are_sent_without_a_copy() {
        let tensor = samples::floats(&[2], &[1.0, 2.0]);
        let Elements::Fixed(bytes) = &tensor.elements else {
            panic!("floats have a fixed size");
        };
        let address = bytes.as_ptr();
        let sent = Format::OctetStream.encode_tensor(tensor, &[None]).unwrap();
        assert_eq!(sent.as_ptr(), address);
    }

    #[test]
    fn options_are_for_images() {
        let new = |format, colormap, range| Options::new(format, colormap, range);
        assert!(new(Format::Png, Some("magma"), Some("0,1")).is_ok());
        for (format, colormap, range) in [
            (Format::Csv, Some("magma"), None),
            (Format::Json, None, Some("0,1")),
            (Format::Png, Some("nope"), None),
            (Format::Png, None, Some("1,0")),
            (Format::Png, None, Some("0")),
            (Format::Png, None, Some("0,NaN")),
        ] {
            let refused = new(format, colormap, range).unwrap_err();
            assert_eq!(refused.problem().status, 400);
        }
    }

    #[test]
    fn attributes_that_decoding_used_up_go() {
        let Value::Object(attributes) =
            json!({"units": "K", "_FillValue": 1, "scale_factor": 2.0, "add_offset": 1})
        else {
            panic!("an object");
        };
        let names = |masked, scaled| {
            let remaining = remaining_attributes(&attributes, masked, scaled);
            remaining.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(true, true), "units");
        assert!(names(true, false).contains("scale_factor"));
        assert!(names(false, false).contains("_FillValue"));
    }
}
