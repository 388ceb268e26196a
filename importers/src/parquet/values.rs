//! What columns become, and their values in memory.

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use ::parquet::file::statistics::Statistics;
use array::{DataType, Elements, VariableElements};
use arrow_array::Array;
use arrow_array::cast::AsArray as _;
use arrow_schema::{DataType as ArrowType, Field, TimeUnit};

use crate::source::{Attribute, Attributes};

/// Most bytes of text that one box gives.
const MAX_TEXT_BYTES: usize = 256 << 20;

/// What the values of a column become.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// As they are, of this type; rows without one hold these bytes.
    Plain {
        data_type: DataType,
        missing: Vec<u8>,
        /// Whether no value may be those bytes.
        is_fill: bool,
    },
    /// 32-bit counts widened to 64, so that a fill value cannot be one of them.
    Widened {
        missing: i64,
    },
    Bool,
    Text,
    Bytes,
    /// Whether there is a value.
    Valid,
}

impl Kind {
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Plain { data_type, .. } => data_type.clone(),
            Self::Widened { .. } => DataType::Int64,
            Self::Bool | Self::Valid => DataType::Bool,
            Self::Text => DataType::String,
            Self::Bytes => DataType::VariableLengthBytes,
        }
    }
}

/// What a column becomes.
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// Whether another array must tell which rows have a value.
    pub(super) needs_valid: bool,
}

impl Found {
    /// What column `at` becomes.
    ///
    /// # Errors
    /// Why it cannot be kept.
    pub(super) fn of(
        metadata: &ArrowReaderMetadata,
        at: usize,
        field: &Field,
    ) -> Result<Self, String> {
        let plain = |data_type: DataType, missing: &[u8]| Kind::Plain {
            data_type,
            missing: missing.to_vec(),
            is_fill: false,
        };
        let may_miss = field.is_nullable() && may_miss(metadata, at);
        let mut attributes = Vec::new();
        let mut needs_valid = may_miss;
        let mut kind = match field.data_type() {
            ArrowType::Boolean => Kind::Bool,
            ArrowType::Int8 => plain(DataType::Int8, &i8::MIN.to_le_bytes()),
            ArrowType::Int16 => plain(DataType::Int16, &i16::MIN.to_le_bytes()),
            ArrowType::Int32 => plain(DataType::Int32, &i32::MIN.to_le_bytes()),
            ArrowType::Int64 => plain(DataType::Int64, &i64::MIN.to_le_bytes()),
            ArrowType::UInt8 => plain(DataType::UInt8, &u8::MAX.to_le_bytes()),
            ArrowType::UInt16 => plain(DataType::UInt16, &u16::MAX.to_le_bytes()),
            ArrowType::UInt32 => plain(DataType::UInt32, &u32::MAX.to_le_bytes()),
            ArrowType::UInt64 => plain(DataType::UInt64, &u64::MAX.to_le_bytes()),
            ArrowType::Float16 => plain(DataType::Float16, &half::f16::NAN.to_le_bytes()),
            ArrowType::Float32 => plain(DataType::Float32, &f32::NAN.to_le_bytes()),
            ArrowType::Float64 => plain(DataType::Float64, &f64::NAN.to_le_bytes()),
            ArrowType::Utf8 => Kind::Text,
            ArrowType::Binary => Kind::Bytes,
            ArrowType::FixedSizeBinary(length) if (1..=1 << 20).contains(length) => {
                let length_bytes = *length as u32;
                plain(
                    DataType::RawBytes { length_bytes },
                    &vec![0; length_bytes as usize],
                )
            }
            ArrowType::Timestamp(unit, zone) => {
                let units = format!("{} since 1970-01-01", unit_name(unit));
                attributes.push(("units".into(), Attribute::Text(units)));
                let calendar = Attribute::Text("proleptic_gregorian".into());
                attributes.push(("calendar".into(), calendar));
                if let Some(zone) = zone {
                    let zone = Attribute::Text(zone.to_string());
                    attributes.push(("timezone".into(), zone));
                }
                plain(DataType::Int64, &i64::MIN.to_le_bytes())
            }
            ArrowType::Date32 => {
                let units = Attribute::Text("days since 1970-01-01".into());
                attributes.push(("units".into(), units));
                let calendar = Attribute::Text("proleptic_gregorian".into());
                attributes.push(("calendar".into(), calendar));
                Kind::Widened { missing: i64::MIN }
            }
            ArrowType::Time32(unit) => {
                let units = Attribute::Text(unit_name(unit).into());
                attributes.push(("units".into(), units));
                Kind::Widened { missing: i64::MIN }
            }
            ArrowType::Time64(unit) => {
                let units = Attribute::Text(unit_name(unit).into());
                attributes.push(("units".into(), units));
                plain(DataType::Int64, &i64::MIN.to_le_bytes())
            }
            other if other.is_nested() => {
                return Err(format!(
                    "it is nested ({other}): flatten it into columns first"
                ));
            }
            ArrowType::Decimal32(..)
            | ArrowType::Decimal64(..)
            | ArrowType::Decimal128(..)
            | ArrowType::Decimal256(..) => {
                return Err("it holds decimals: cast it to float64 first".into());
            }
            other => return Err(format!("there is no data type for {other}")),
        };
        if may_miss {
            let is_time = matches!(
                field.data_type(),
                ArrowType::Timestamp(..)
                    | ArrowType::Date32
                    | ArrowType::Time32(_)
                    | ArrowType::Time64(_)
            );
            let data_type = kind.data_type();
            if data_type.is_float() {
                attributes.push(("_FillValue".into(), Attribute::Floats(vec![f64::NAN])));
                needs_valid = false;
            } else if let (true, Some(fill)) = (data_type.is_integer(), missing_integer(&kind))
                && (is_time || never_holds(metadata, at, fill))
            {
                attributes.push(("_FillValue".into(), Attribute::Integers(vec![fill])));
                needs_valid = false;
                if let Kind::Plain { is_fill, .. } = &mut kind {
                    // A file may contradict its statistics.
                    *is_fill = !is_time;
                }
            }
        }
        Ok(Self {
            kind,
            attributes,
            needs_valid,
        })
    }
}

fn unit_name(unit: &TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

fn missing_integer(kind: &Kind) -> Option<i128> {
    let (data_type, bytes) = match kind {
        Kind::Plain {
            data_type, missing, ..
        } => (data_type, missing),
        Kind::Widened { missing } => return Some((*missing).into()),
        _ => return None,
    };
    let mut wide = [if data_type.is_signed_integer() {
        0xff
    } else {
        0
    }; 16];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

/// The statistics that each row group has of a column.
fn statistics(
    metadata: &ArrowReaderMetadata,
    at: usize,
) -> impl Iterator<Item = Option<&Statistics>> {
    let schema = metadata.parquet_schema();
    let leaf = (0..schema.num_columns()).find(|&leaf| schema.get_column_root_idx(leaf) == at);
    let groups = metadata.metadata().row_groups().iter();
    groups.map(move |group| group.columns().get(leaf?)?.statistics())
}

/// Whether a row may be without a value, by the statistics of the row groups.
fn may_miss(metadata: &ArrowReaderMetadata, at: usize) -> bool {
    statistics(metadata, at).any(|known| known.and_then(Statistics::null_count_opt) != Some(0))
}

/// Whether no row holds an integer that is the least or the largest of its type, by statistics.
fn never_holds(metadata: &ArrowReaderMetadata, at: usize, value: i128) -> bool {
    statistics(metadata, at).all(|column| {
        let edge: Option<i128> = match column {
            Some(Statistics::Int32(edges)) => {
                let (least, most) = (edges.min_opt(), edges.max_opt());
                // Unsigned numbers are stored in the bits of signed ones.
                match value < 0 {
                    true => least.map(|&least| least.into()),
                    false => most.map(|&most| (most as u32).into()),
                }
            }
            Some(Statistics::Int64(edges)) => match value < 0 {
                true => edges.min_opt().map(|&least| least.into()),
                false => edges.max_opt().map(|&most| (most as u64).into()),
            },
            _ => None,
        };
        edge.is_some_and(|edge| edge != value)
    })
}

/// The values of a box while they are read.
pub(super) struct Values {
    kind: Kind,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Values {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            bytes: Vec::new(),
            ends: vec![0],
        }
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// If they are not what the footer said, or too much text.
    pub(super) fn push(&mut self, array: &dyn Array) -> Result<(), String> {
        let odd = || format!("a column holds {} where it should not", array.data_type());
        match &self.kind {
            Kind::Valid => {
                let valid = (0..array.len()).map(|row| u8::from(array.is_valid(row)));
                self.bytes.extend(valid);
            }
            Kind::Bool => {
                let values = array.as_boolean_opt().ok_or_else(odd)?;
                let value = |value: Option<bool>| u8::from(value.unwrap_or_default());
                self.bytes.extend(values.iter().map(value));
            }
            Kind::Text => {
                let values = array.as_string_opt::<i32>().ok_or_else(odd)?;
                for value in values {
                    self.text(value.unwrap_or_default().as_bytes())?;
                }
            }
            Kind::Bytes => {
                let values = array.as_binary_opt::<i32>().ok_or_else(odd)?;
                for value in values {
                    self.text(value.unwrap_or_default())?;
                }
            }
            Kind::Widened { missing } => {
                let data = array.to_data();
                let values = data.buffers().first().ok_or_else(odd)?;
                let values = values.typed_data::<i32>();
                let values = values.get(data.offset()..data.offset() + data.len());
                for (row, &value) in values.ok_or_else(odd)?.iter().enumerate() {
                    let value = if array.is_valid(row) {
                        i64::from(value)
                    } else {
                        *missing
                    };
                    self.bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
            Kind::Plain {
                missing, is_fill, ..
            } => {
                let size = missing.len();
                let values: Vec<u8> = match array.as_fixed_size_binary_opt() {
                    Some(values) => values.value_data().to_vec(),
                    None => {
                        let data = array.to_data();
                        let all = data.buffers().first().ok_or_else(odd)?.as_slice();
                        let start = data.offset() * size;
                        let part = all.get(start..start + data.len() * size);
                        part.ok_or_else(odd)?.to_vec()
                    }
                };
                if values.len() != array.len() * size {
                    return Err(odd());
                }
                for (row, value) in values.chunks_exact(size).enumerate() {
                    let is_valid = array.is_valid(row);
                    if *is_fill && is_valid && value == missing {
                        return Err("a column holds a number its statistics rule out".into());
                    }
                    let value = if is_valid { value } else { missing };
                    self.bytes.extend_from_slice(value);
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, value: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        if self.bytes.len() > MAX_TEXT_BYTES {
            let most = MAX_TEXT_BYTES >> 20;
            return Err(format!(
                "a chunk of its text takes more than {most} MiB: make chunks shorter with --chunks row=N"
            ));
        }
        Ok(())
    }

    /// The elements.
    ///
    /// # Errors
    /// None for texts that were added one by one.
    pub(super) fn finish(self) -> Result<Elements, String> {
        match self.kind {
            Kind::Text | Kind::Bytes => VariableElements::new(self.ends, self.bytes)
                .map(Elements::Variable)
                .map_err(|error| error.to_string()),
            _ => Ok(Elements::Fixed(self.bytes)),
        }
    }
}
