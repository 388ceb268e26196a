//! Parquet: a table, compressed with zstd, a row for each cell.
//!
//! Times of the calendars people live by are timestamps; those of others are text. What is missing
//! in decoded floats is NaN, a missing time null. The attributes of an array are JSON in the metadata
//! of its field, under `attributes`.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use array::{DataType, Elements, TimeUnit};
use arrow_array::types::{
    ArrowPrimitiveType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, StringArray,
};
use arrow_schema::{DataType as ArrowType, Field, Schema, TimeUnit as ArrowUnit};
use half::{bf16, f16};
use query::Engine;

use super::table::{Cells, Column, Kind, Table};
use super::tally::Tally;
use super::view::View;
use crate::Error;
use crate::blocking::blocking;

/// Rows of a group: what readers take at once.
const GROUP_ROWS: usize = 1 << 20;
/// Bytes of a group in memory before it is written whatever its rows.
const GROUP_BYTES: usize = 64 << 20;
/// What compresses: fast to read, and little slower to write than not at all.
const ZSTD_LEVEL: i32 = 1;

/// Writes everything in `view` to a file.
///
/// # Errors
/// [`Error::NoPlace`] for an array that is no column; [`Error::Write`] if the file cannot be written;
/// as [`Engine::read`].
pub(super) async fn write(
    engine: &Engine,
    view: &View,
    path: &Path,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let table = Table::new(view, "a Parquet file")?;
    let attributes = |column: &Column<'_>| {
        let array = view.arrays().find(|array| array.below == column.name);
        array.map(|array| serde_json::Value::Object(array.attributes.clone()).to_string())
    };
    let fields = table.columns.iter().map(|column| {
        let metadata = attributes(column).map(|text| ("attributes".to_owned(), text));
        let metadata: HashMap<_, _> = metadata.into_iter().collect();
        let field = Field::new(&column.name, arrow_type(column)?, true);
        Ok(field.with_metadata(metadata))
    });
    let fields = fields.collect::<Result<Vec<Field>, Error>>()?;
    let schema = Arc::new(Schema::new(fields));
    tally.expect(table.columns.len() as u64, table.bytes());
    for column in &table.columns {
        tally.begin(&column.path());
    }
    let failed = {
        let path = path.to_owned();
        move |error: ParquetError| Error::Write {
            path: path.clone(),
            source: std::io::Error::other(error),
        }
    };
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(&failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(format!("quarr {}", env!("CARGO_PKG_VERSION")))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let file = File::create(path).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })?;
    let mut writer =
        ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(&failed)?;
    for run in table.runs()? {
        let mut columns = Vec::new();
        for (column, field) in table.columns.iter().zip(schema.fields()) {
            let cells = column.cells(engine, &run).await?;
            columns.push(arrow_array(column, cells, field.data_type())?);
        }
        let rows = run.shape().iter().product::<u64>();
        let options = RecordBatchOptions::new().with_row_count(usize::try_from(rows).ok());
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options);
        let batch = batch.map_err(|error| failed(error.into()))?;
        let bytes = batch.get_array_memory_size() as u64;
        let failed = failed.clone();
        writer = blocking(move || {
            writer.write(&batch).map_err(&failed)?;
            if writer.in_progress_size() > GROUP_BYTES {
                writer.flush().map_err(&failed)?;
            }
            Ok(writer)
        })
        .await?;
        tally.chunk(bytes);
    }
    blocking(move || writer.close().map(drop).map_err(failed)).await
}

fn refused(column: &Column<'_>, reason: String) -> Error {
    Error::NoPlace {
        format: "Parquet",
        array: column.path(),
        reason,
    }
}

/// The unit of times as Arrow has it, and how many of it one of NumPy's is.
fn unit(unit: TimeUnit, scale: u32) -> Option<(ArrowUnit, i64)> {
    let scale = i64::from(scale);
    Some(match unit {
        TimeUnit::Week => (ArrowUnit::Second, 604_800 * scale),
        TimeUnit::Day => (ArrowUnit::Second, 86_400 * scale),
        TimeUnit::Hour => (ArrowUnit::Second, 3_600 * scale),
        TimeUnit::Minute => (ArrowUnit::Second, 60 * scale),
        TimeUnit::Second => (ArrowUnit::Second, scale),
        TimeUnit::Millisecond => (ArrowUnit::Millisecond, scale),
        TimeUnit::Microsecond => (ArrowUnit::Microsecond, scale),
        TimeUnit::Nanosecond => (ArrowUnit::Nanosecond, scale),
        _ => return None,
    })
}

fn arrow_type(column: &Column<'_>) -> Result<ArrowType, Error> {
    let data_type = match &column.kind {
        Kind::Instants => return Ok(ArrowType::Timestamp(ArrowUnit::Microsecond, None)),
        Kind::Texts => return Ok(ArrowType::Utf8),
        Kind::Elements(data_type) => data_type,
    };
    let none = || refused(column, format!("it has no {data_type}"));
    Ok(match data_type {
        DataType::Bool => ArrowType::Boolean,
        DataType::Int8 => ArrowType::Int8,
        DataType::Int16 => ArrowType::Int16,
        DataType::Int32 => ArrowType::Int32,
        DataType::Int64 => ArrowType::Int64,
        DataType::UInt8 => ArrowType::UInt8,
        DataType::UInt16 => ArrowType::UInt16,
        DataType::UInt32 => ArrowType::UInt32,
        DataType::UInt64 => ArrowType::UInt64,
        DataType::Float16 => ArrowType::Float16,
        DataType::BFloat16 | DataType::Float32 => ArrowType::Float32,
        DataType::Float64 => ArrowType::Float64,
        DataType::DateTime64 {
            unit: own,
            scale_factor,
        } => {
            let (unit, _) = unit(*own, *scale_factor).ok_or_else(none)?;
            ArrowType::Timestamp(unit, None)
        }
        DataType::TimeDelta64 {
            unit: own,
            scale_factor,
        } => {
            let (unit, _) = unit(*own, *scale_factor).ok_or_else(none)?;
            ArrowType::Duration(unit)
        }
        DataType::String
        | DataType::FixedLengthUtf32 { .. }
        | DataType::NullTerminatedBytes { .. } => ArrowType::Utf8,
        DataType::VariableLengthBytes => ArrowType::Binary,
        DataType::RawBits { length_bytes } | DataType::RawBytes { length_bytes } => {
            ArrowType::FixedSizeBinary(i32::try_from(*length_bytes).map_err(|_| none())?)
        }
        DataType::Complex64 | DataType::Complex128 => return Err(none()),
    })
}

fn primitive<T: ArrowPrimitiveType, const N: usize>(
    bytes: &[u8],
    read: impl Fn([u8; N]) -> T::Native,
) -> ArrayRef {
    let (elements, _) = bytes.as_chunks::<N>();
    Arc::new(PrimitiveArray::<T>::from_iter_values(
        elements.iter().map(|element| read(*element)),
    ))
}

fn arrow_array(
    column: &Column<'_>,
    cells: Cells,
    arrow_type: &ArrowType,
) -> Result<ArrayRef, Error> {
    let elements = match cells {
        Cells::Instants(instants) => {
            return Ok(Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(
                instants,
            )));
        }
        Cells::Texts(texts) => return Ok(Arc::new(StringArray::from(texts))),
        Cells::Elements(elements) => elements,
    };
    let data_type = match &column.kind {
        Kind::Elements(data_type) => data_type,
        _ => &DataType::Int64,
    };
    let bytes = match (&elements, data_type) {
        (Elements::Variable(values), DataType::String) => {
            let texts = values.iter().map(|text| std::str::from_utf8(text).ok());
            return Ok(Arc::new(texts.collect::<StringArray>()));
        }
        (Elements::Variable(values), _) => {
            return Ok(Arc::new(BinaryArray::from_iter_values(values.iter())));
        }
        (Elements::Fixed(bytes), _) => bytes.as_slice(),
    };
    let size = data_type.size_bytes().unwrap_or(1).max(1);
    Ok(match data_type {
        DataType::Bool => Arc::new(
            bytes
                .iter()
                .map(|byte| Some(*byte != 0))
                .collect::<BooleanArray>(),
        ),
        DataType::Int8 => primitive::<Int8Type, 1>(bytes, i8::from_le_bytes),
        DataType::Int16 => primitive::<Int16Type, 2>(bytes, i16::from_le_bytes),
        DataType::Int32 => primitive::<Int32Type, 4>(bytes, i32::from_le_bytes),
        DataType::Int64 => primitive::<Int64Type, 8>(bytes, i64::from_le_bytes),
        DataType::UInt8 => primitive::<UInt8Type, 1>(bytes, u8::from_le_bytes),
        DataType::UInt16 => primitive::<UInt16Type, 2>(bytes, u16::from_le_bytes),
        DataType::UInt32 => primitive::<UInt32Type, 4>(bytes, u32::from_le_bytes),
        DataType::UInt64 => primitive::<UInt64Type, 8>(bytes, u64::from_le_bytes),
        DataType::Float16 => primitive::<Float16Type, 2>(bytes, f16::from_le_bytes),
        DataType::BFloat16 => {
            primitive::<Float32Type, 2>(bytes, |half| bf16::from_le_bytes(half).to_f32())
        }
        DataType::Float32 => primitive::<Float32Type, 4>(bytes, f32::from_le_bytes),
        DataType::Float64 => primitive::<Float64Type, 8>(bytes, f64::from_le_bytes),
        DataType::DateTime64 {
            unit: own,
            scale_factor,
        }
        | DataType::TimeDelta64 {
            unit: own,
            scale_factor,
        } => {
            let factor = unit(*own, *scale_factor).map_or(1, |(_, factor)| factor);
            ticks(bytes, factor, arrow_type)
                .ok_or_else(|| refused(column, "it holds a time too far from 1970".into()))?
        }
        DataType::FixedLengthUtf32 { .. } => {
            let text = |element: &[u8]| -> String {
                let codes = element.as_chunks::<4>().0.iter();
                let text: String = codes
                    .filter_map(|code| char::from_u32(u32::from_le_bytes(*code)))
                    .collect();
                text.trim_end_matches('\0').to_owned()
            };
            Arc::new(StringArray::from_iter_values(
                bytes.chunks_exact(size).map(text),
            ))
        }
        DataType::NullTerminatedBytes { .. } => {
            let mut texts = Vec::new();
            for element in bytes.chunks_exact(size) {
                let end = element
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1);
                let text = std::str::from_utf8(&element[..end]);
                texts.push(text.map_err(|_| {
                    refused(column, "it holds bytes that are no UTF-8 text".into())
                })?);
            }
            Arc::new(StringArray::from_iter_values(texts))
        }
        _ => {
            let elements = bytes.chunks_exact(size);
            let array = FixedSizeBinaryArray::try_from_iter(elements);
            match array {
                Ok(array) => Arc::new(array),
                // No rows, of which no length could be told.
                Err(_) => arrow_array::new_empty_array(arrow_type),
            }
        }
    })
}

/// Times and lengths of time in Arrow's unit; none is null. `None` if one does not fit.
fn ticks(bytes: &[u8], factor: i64, arrow_type: &ArrowType) -> Option<ArrayRef> {
    let (words, _) = bytes.as_chunks::<8>();
    let mut ticks = Vec::with_capacity(words.len());
    for word in words {
        ticks.push(match i64::from_le_bytes(*word) {
            i64::MIN => None,
            tick => Some(tick.checked_mul(factor)?),
        });
    }
    Some(match arrow_type {
        ArrowType::Timestamp(ArrowUnit::Second, _) => {
            Arc::new(PrimitiveArray::<TimestampSecondType>::from(ticks))
        }
        ArrowType::Timestamp(ArrowUnit::Millisecond, _) => {
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(ticks))
        }
        ArrowType::Timestamp(ArrowUnit::Microsecond, _) => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(ticks))
        }
        ArrowType::Timestamp(ArrowUnit::Nanosecond, _) => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::from(ticks))
        }
        ArrowType::Duration(ArrowUnit::Second) => {
            Arc::new(PrimitiveArray::<DurationSecondType>::from(ticks))
        }
        ArrowType::Duration(ArrowUnit::Millisecond) => {
            Arc::new(PrimitiveArray::<DurationMillisecondType>::from(ticks))
        }
        ArrowType::Duration(ArrowUnit::Microsecond) => {
            Arc::new(PrimitiveArray::<DurationMicrosecondType>::from(ticks))
        }
        ArrowType::Duration(ArrowUnit::Nanosecond) => {
            Arc::new(PrimitiveArray::<DurationNanosecondType>::from(ticks))
        }
        _ => return None,
    })
}
