use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use array::DataType;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, Float32Array, Int8Array, Int32Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt16Array, types::Int32Type,
};

use super::*;
use crate::source::Attribute;

fn batch() -> RecordBatch {
    let full: Vec<Option<i8>> = (0..256)
        .map(|n| (n != 3).then_some((n - 128) as i8))
        .collect();
    let rows = full.len() as i32;
    let some = |row: i32| row % 5 != 2;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i8", Arc::new(Int8Array::from(full))),
        (
            "i32",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(row * 3))
                    .collect::<Int32Array>(),
            ),
        ),
        (
            "u16",
            Arc::new(
                (0..rows)
                    .map(|row| Some(row as u16))
                    .collect::<UInt16Array>(),
            ),
        ),
        (
            "f32",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(row as f32))
                    .collect::<Float32Array>(),
            ),
        ),
        (
            "flag",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(row % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "text",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then(|| format!("t{row}")))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "at",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(i64::from(row)))
                    .collect::<TimestampMicrosecondArray>(),
            ),
        ),
        (
            "day",
            Arc::new(
                (0..rows)
                    .map(|row| some(row).then_some(row))
                    .collect::<Date32Array>(),
            ),
        ),
        (
            "raw",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter((0..rows).map(|row| [row as u8; 3])).unwrap(),
            ),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                (0..rows).map(|row| Some(vec![Some(row)])),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn write(compression: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(100))
        .set_data_page_row_count_limit(20)
        .set_write_batch_size(10)
        .build();
    let mut bytes = Vec::new();
    let batch = batch();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<(ParquetFile, Vec<Group>), Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    ParquetFile::open(file.path())
}

#[test]
fn columns_are_read_from_anywhere() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let (file, groups) = open(&write(compression)).unwrap();
        let variables = &groups[0].variables;
        let names: Vec<&str> = variables.iter().map(|v| v.name.as_str()).collect();
        let wanted = [
            "i8",
            "i8_valid",
            "i32",
            "u16",
            "f32",
            "flag",
            "flag_valid",
            "text",
            "text_valid",
            "at",
            "day",
            "raw",
        ];
        assert_eq!(names, wanted);
        assert_eq!(groups[0].refused[0].name, "list");
        let read = |name: &str, start: u64, end: u64| {
            let variable = variables.iter().find(|v| v.name == name).unwrap();
            let region = Region::new(vec![start], vec![end - start]).unwrap();
            file.read(variable, &region).unwrap()
        };
        let some = |row: &u64| row % 5 != 2;
        let fixed = |bytes: Vec<u8>| Elements::Fixed(bytes);
        for (start, end) in [(0, 256), (95, 203), (255, 256), (7, 7)] {
            let rows = || start..end;
            let i32s =
                rows().flat_map(|r| (if some(&r) { r as i32 * 3 } else { i32::MIN }).to_le_bytes());
            assert_eq!(read("i32", start, end), fixed(i32s.collect()));
            let u16s = rows().flat_map(|r| (r as u16).to_le_bytes());
            assert_eq!(read("u16", start, end), fixed(u16s.collect()));
            let f32s =
                rows().flat_map(|r| (if some(&r) { r as f32 } else { f32::NAN }).to_le_bytes());
            assert_eq!(read("f32", start, end), fixed(f32s.collect()));
            let flags = rows().map(|r| u8::from(some(&r) && r % 2 == 0));
            assert_eq!(read("flag", start, end), fixed(flags.collect()));
            let valid = rows().map(|r| u8::from(some(&r)));
            assert_eq!(read("text_valid", start, end), fixed(valid.collect()));
            let days =
                rows().flat_map(|r| (if some(&r) { r as i64 } else { i64::MIN }).to_le_bytes());
            assert_eq!(read("day", start, end), fixed(days.clone().collect()));
            assert_eq!(read("at", start, end), fixed(days.collect()));
            let raw = rows().flat_map(|r| [r as u8; 3]);
            assert_eq!(read("raw", start, end), fixed(raw.collect()));
            let Elements::Variable(found) = read("text", start, end) else {
                panic!("text");
            };
            let texts = rows().map(|r| {
                if some(&r) {
                    format!("t{r}")
                } else {
                    String::new()
                }
            });
            assert!(found.iter().eq(texts.map(String::into_bytes)));
        }
        let at = variables.iter().find(|v| v.name == "at").unwrap();
        assert_eq!(at.data_type, DataType::Int64);
        let units = Attribute::Text("microseconds since 1970-01-01".into());
        assert_eq!(at.attributes[0], ("units".into(), units));
    }
}

#[test]
fn damage_is_an_error_or_other_values() {
    let good = write(Compression::SNAPPY);
    let read_all = |bytes: &[u8]| {
        let Ok((file, groups)) = open(bytes) else {
            return;
        };
        for variable in &groups[0].variables {
            let rows = variable.shape[0].min(1000);
            let _ = file.read(variable, &Region::whole(&[rows]));
        }
    };
    for nth in 0..100 {
        assert!(open(&good[..good.len() * nth / 100]).is_err());
    }
    // The footer, byte by byte, and some of the pages.
    let footer = good.len() - 900;
    for at in (footer..good.len())
        .step_by(3)
        .chain((0..footer).step_by(97))
    {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        read_all(&flipped);
    }
}
