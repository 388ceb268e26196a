//! CSV: a table as text, a row for each cell.
//!
//! Quotes and line ends are RFC 4180's. Floats are the shortest decimals that read back the same,
//! times ISO 8601, truth values `True` and `False`; what is missing is `NaN`, a
//! missing time `NaT`.

use std::fmt::Write as _;
use std::path::Path;

use array::{DataType, Elements, Tensor};
use compute::labels::Coordinate;
use half::{bf16, f16};
use query::Engine;
use serde_json::Map;

use super::npy::Out;
use super::table::{Cells, Column, Kind, Table};
use super::tally::Tally;
use super::view::View;
use crate::Error;

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
    let table = Table::new(view, "a CSV file")?;
    tally.expect(table.columns.len() as u64, table.bytes());
    let mut out = Out::open(path).await?;
    let mut text = String::new();
    for (place, column) in table.columns.iter().enumerate() {
        tally.begin(&column.path());
        separate(place, &mut text);
        quote(&column.name, &mut text);
    }
    text.push_str(LINE_END);
    out.write(text.as_bytes()).await?;
    for run in table.runs()? {
        let mut columns = Vec::new();
        let mut bytes = 0;
        for column in &table.columns {
            let cells = column.cells(engine, &run).await?;
            if let Cells::Elements(elements) = &cells {
                bytes += elements.size_bytes() as u64;
            }
            columns.push(fields(column, cells)?);
        }
        let rows = run.shape().iter().product::<u64>();
        text.clear();
        for row in 0..rows as usize {
            for (place, column) in columns.iter().enumerate() {
                separate(place, &mut text);
                quote(column.get(row).map_or("", String::as_str), &mut text);
            }
            text.push_str(LINE_END);
        }
        out.write(text.as_bytes()).await?;
        tally.chunk(bytes);
    }
    out.finish().await
}

const LINE_END: &str = "\r\n";

fn separate(place: usize, text: &mut String) {
    if place > 0 {
        text.push(',');
    }
}

fn quote(field: &str, text: &mut String) {
    match field.contains([',', '"', '\r', '\n']) {
        true => {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        }
        false => text.push_str(field),
    }
}

fn fields(column: &Column<'_>, cells: Cells) -> Result<Vec<String>, Error> {
    match cells {
        Cells::Texts(texts) => Ok(texts.into_iter().map(Option::unwrap_or_default).collect()),
        Cells::Instants(instants) => {
            let count = instants.len() as u64;
            let bytes = instants
                .iter()
                .flat_map(|instant| instant.unwrap_or(i64::MIN).to_le_bytes());
            let data_type = DataType::DateTime64 {
                unit: array::TimeUnit::Microsecond,
                scale_factor: 1,
            };
            times(column, data_type, count, Elements::Fixed(bytes.collect()))
        }
        Cells::Elements(elements) => {
            let Kind::Elements(data_type) = &column.kind else {
                return Ok(Vec::new());
            };
            match (elements, data_type) {
                (elements @ Elements::Fixed(_), DataType::DateTime64 { .. }) => {
                    let count = elements.size_bytes() as u64 / 8;
                    times(column, data_type.clone(), count, elements)
                }
                (Elements::Fixed(bytes), data_type) => {
                    let size = data_type.size_bytes().unwrap_or(1).max(1);
                    Ok(bytes
                        .chunks_exact(size)
                        .map(|element| field(data_type, element))
                        .collect())
                }
                (Elements::Variable(values), data_type) => Ok(values
                    .iter()
                    .map(|element| field(data_type, element))
                    .collect()),
            }
        }
    }
}

/// Times as ISO 8601.
fn times(
    column: &Column<'_>,
    data_type: DataType,
    count: u64,
    elements: Elements,
) -> Result<Vec<String>, Error> {
    let tensor = Tensor {
        data_type,
        shape: vec![count],
        elements,
    };
    let coordinate = Coordinate::new(&column.name, tensor, &Map::new())?;
    let label = |at| coordinate.label(at).filter(|label| label != "missing");
    let text = |at| label(at).unwrap_or_else(|| "NaT".to_owned());
    Ok((0..coordinate.len()).map(text).collect())
}

fn field(data_type: &DataType, bytes: &[u8]) -> String {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    let float = |value: f64, text: String| match value {
        value if value.is_nan() => "NaN".to_owned(),
        _ => text,
    };
    match data_type {
        DataType::Bool => if bytes == [0] { "False" } else { "True" }.to_owned(),
        DataType::Int8 => i8::from_le_bytes(array(bytes)).to_string(),
        DataType::Int16 => i16::from_le_bytes(array(bytes)).to_string(),
        DataType::Int32 => i32::from_le_bytes(array(bytes)).to_string(),
        DataType::Int64 => i64::from_le_bytes(array(bytes)).to_string(),
        DataType::TimeDelta64 { .. } => match i64::from_le_bytes(array(bytes)) {
            i64::MIN => "NaT".to_owned(),
            ticks => ticks.to_string(),
        },
        DataType::UInt8 => u8::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt16 => u16::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt32 => u32::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt64 => u64::from_le_bytes(array(bytes)).to_string(),
        DataType::Float16 => {
            let value = f16::from_le_bytes(array(bytes)).to_f32();
            float(value.into(), format!("{value:?}"))
        }
        DataType::BFloat16 => {
            let value = bf16::from_le_bytes(array(bytes)).to_f32();
            float(value.into(), format!("{value:?}"))
        }
        DataType::Float32 => {
            let value = f32::from_le_bytes(array(bytes));
            float(value.into(), format!("{value:?}"))
        }
        DataType::Float64 => {
            let value = f64::from_le_bytes(array(bytes));
            float(value, format!("{value:?}"))
        }
        DataType::Complex64 => {
            let (re, im) = bytes.split_at(bytes.len() / 2);
            let (re, im) = (f32::from_le_bytes(array(re)), f32::from_le_bytes(array(im)));
            format!("{re:?}{im:+?}j")
        }
        DataType::Complex128 => {
            let (re, im) = bytes.split_at(bytes.len() / 2);
            let (re, im) = (f64::from_le_bytes(array(re)), f64::from_le_bytes(array(im)));
            format!("{re:?}{im:+?}j")
        }
        DataType::String => String::from_utf8_lossy(bytes).into_owned(),
        DataType::NullTerminatedBytes { .. } => {
            let end = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        }
        DataType::FixedLengthUtf32 { .. } => {
            let codes = bytes.as_chunks::<4>().0.iter();
            let text: String = codes
                .filter_map(|code| char::from_u32(u32::from_le_bytes(*code)))
                .collect();
            text.trim_end_matches('\0').to_owned()
        }
        DataType::DateTime64 { .. }
        | DataType::RawBits { .. }
        | DataType::RawBytes { .. }
        | DataType::VariableLengthBytes => bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_read_back_the_same() {
        for (data_type, bytes, expected) in [
            (DataType::Float32, 0.1f32.to_le_bytes().to_vec(), "0.1"),
            (DataType::Float64, 1e300f64.to_le_bytes().to_vec(), "1e300"),
            (DataType::Float64, f64::NAN.to_le_bytes().to_vec(), "NaN"),
            (
                DataType::Float64,
                f64::NEG_INFINITY.to_le_bytes().to_vec(),
                "-inf",
            ),
            (DataType::Bool, vec![1], "True"),
            (
                DataType::NullTerminatedBytes { length_bytes: 3 },
                b"ab\0".to_vec(),
                "ab",
            ),
            (DataType::VariableLengthBytes, vec![1, 255], "01ff"),
        ] {
            assert_eq!(field(&data_type, &bytes), expected);
        }
    }

    #[test]
    fn what_would_break_a_row_is_quoted() {
        for (field, expected) in [("a", "a"), ("a,b", "\"a,b\""), ("a\"b\n", "\"a\"\"b\n\"")] {
            let mut text = String::new();
            quote(field, &mut text);
            assert_eq!(text, expected);
        }
    }
}
