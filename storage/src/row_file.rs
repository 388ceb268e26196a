//! Row files: an Arrow IPC stream of one record batch, then the hash of all bytes before.
//!
//! ```text
//! Arrow IPC stream (schema, one record batch, end)   H(file, the stream), 32 bytes
//! ```
//!
//! Buffers are compressed with zstd, so a file can claim to be larger than memory. What it claims
//! is checked against [`MAX_BUFFER_BYTES`] before Arrow reads it.
//!
//! Spec: `docs/format.md`, "Row files"; Apache Arrow columnar format, "IPC streaming format".

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use array::hash::{self, HASH_BYTES, Hash, Kind};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MessageHeader, root_as_message};
use arrow_schema::{DataType, Field, Schema};

/// Most rows in one file.
pub(crate) const MAX_ROWS: usize = 1024;
/// Most bytes one column buffer may decompress to: 1,024 documents of 4 KiB.
const MAX_BUFFER_BYTES: u64 = 4 << 20;
/// Most bytes a row file may have.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Before each message of a stream: a marker, then the length of its metadata.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Encodes columns of equal length. Column names carry the meaning; there is no other metadata.
pub(crate) fn encode(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>, arrow_schema::ArrowError> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), column.is_nullable()))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(
        schema.clone(),
        columns.into_iter().map(|(_, c)| c).collect(),
    )?;
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    writer.write(&batch)?;
    writer.finish()?;
    let mut bytes = writer.into_inner()?;
    let hash = hash::hash(Kind::File, &bytes);
    bytes.extend_from_slice(hash.as_bytes());
    Ok(bytes)
}

/// Reads the columns of a file, whose bytes are hostile.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn decode(bytes: &[u8]) -> Result<RecordBatch, String> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!(
            "{} bytes are more than a row file may have",
            bytes.len()
        ));
    }
    let Some((stream, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else {
        return Err("shorter than a hash".into());
    };
    if hash::hash(Kind::File, stream) != Hash::from_bytes(*hash) {
        return Err("its bytes do not match their hash".into());
    }
    check_claims(stream)?;
    // Arrow validates offsets and lengths; whatever it overlooks may panic but not more.
    let read = catch_unwind(AssertUnwindSafe(|| -> Result<RecordBatch, String> {
        let mut reader =
            StreamReader::try_new(Cursor::new(stream), None).map_err(|error| error.to_string())?;
        let batch = reader
            .next()
            .ok_or("no record batch")?
            .map_err(|error| error.to_string())?;
        if reader.next().is_some() {
            return Err("more than one record batch".into());
        }
        Ok(batch)
    }));
    let batch = read.unwrap_or_else(|_| Err("Arrow cannot read it".into()))?;
    if batch.num_rows() == 0 || batch.num_rows() > MAX_ROWS {
        return Err(format!("{} rows", batch.num_rows()));
    }
    Ok(batch)
}

/// Walks the messages of a stream and refuses any buffer that claims to decompress to too much.
fn check_claims(stream: &[u8]) -> Result<(), String> {
    let truncated = || "truncated".to_owned();
    let mut rest = stream;
    loop {
        let (marker, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        if *marker != CONTINUATION {
            return Err("not an Arrow IPC stream".into());
        }
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            return if after.is_empty() {
                Ok(())
            } else {
                Err("bytes after the end".into())
            };
        }
        let (metadata, after) = after.split_at_checked(length).ok_or_else(truncated)?;
        let message = root_as_message(metadata).map_err(|error| error.to_string())?;
        let body_length = usize::try_from(message.bodyLength()).map_err(|_| truncated())?;
        let (body, after) = after.split_at_checked(body_length).ok_or_else(truncated)?;
        match message.header_type() {
            MessageHeader::Schema => {}
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch().ok_or_else(truncated)?;
                if !(0..=MAX_ROWS as i64).contains(&batch.length()) {
                    return Err(format!("{} rows", batch.length()));
                }
                for node in batch.nodes().iter().flatten() {
                    if !(0..=MAX_ROWS as i64).contains(&node.length()) {
                        return Err(format!("a column of {} rows", node.length()));
                    }
                }
                for buffer in batch.buffers().iter().flatten() {
                    check_buffer(body, buffer.offset(), buffer.length())?;
                }
            }
            _ => return Err("an Arrow message that is neither schema nor record batch".into()),
        }
        rest = after;
    }
}

/// A compressed buffer starts with its decompressed length, −1 for one that is not compressed.
fn check_buffer(body: &[u8], offset: i64, length: i64) -> Result<(), String> {
    let outside = || "a buffer reaches past its message".to_owned();
    let start = usize::try_from(offset).map_err(|_| outside())?;
    let length = usize::try_from(length).map_err(|_| outside())?;
    let buffer = body
        .get(start..)
        .and_then(|rest| rest.get(..length))
        .ok_or_else(outside)?;
    let Some(claim) = buffer.first_chunk::<8>() else {
        return if buffer.is_empty() {
            Ok(())
        } else {
            Err(outside())
        };
    };
    match i64::from_le_bytes(*claim) {
        -1 => Ok(()),
        claim if (0..=MAX_BUFFER_BYTES as i64).contains(&claim) => Ok(()),
        claim => Err(format!("a buffer claims {claim} bytes")),
    }
}

/// The column `name` as `T`, without nulls unless `nullable`.
pub(crate) fn column<'a, T: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
    nullable: bool,
) -> Result<&'a T, String> {
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| format!("no column {name:?}"))?;
    if !nullable && column.null_count() > 0 {
        return Err(format!("column {name:?} has nulls"));
    }
    column
        .as_any()
        .downcast_ref()
        .ok_or_else(|| format!("column {name:?} has another type"))
}

/// The column `name` as hashes, one a row; `None` for nulls.
pub(crate) fn hash_column(batch: &RecordBatch, name: &str) -> Result<Vec<Option<Hash>>, String> {
    let column: &FixedSizeBinaryArray = column(batch, name, true)?;
    if *column.data_type() != DataType::FixedSizeBinary(HASH_BYTES as i32) {
        return Err(format!("column {name:?} does not hold hashes"));
    }
    Ok(column
        .iter()
        .map(|bytes| bytes.and_then(Hash::from_slice))
        .collect())
}

/// A column of fixed-size bytes; `None` is null.
pub(crate) fn fixed_column<'a>(
    rows: impl Iterator<Item = Option<&'a [u8]>>,
    size: usize,
) -> Result<ArrayRef, arrow_schema::ArrowError> {
    Ok(Arc::new(
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows, size as i32)?,
    ))
}

#[cfg(test)]
mod tests {
    use arrow_array::UInt64Array;
    use proptest::prelude::*;

    use super::*;

    fn file() -> Vec<u8> {
        let values: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..100));
        encode(vec![("c0", values)]).unwrap()
    }

    fn with_hash(stream: &[u8]) -> Vec<u8> {
        [stream, hash::hash(Kind::File, stream).as_bytes()].concat()
    }

    #[test]
    fn columns_round_trip() {
        let batch = decode(&file()).unwrap();
        let values: &UInt64Array = column(&batch, "c0", false).unwrap();
        assert_eq!(values.values().to_vec(), (0..100).collect::<Vec<_>>());
        assert!(column::<UInt64Array>(&batch, "c1", false).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_forged_file_is_an_error_or_a_batch_never_a_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
        ) {
            let file = file();
            let mut stream = file[..file.len() - HASH_BYTES].to_vec();
            for (at, byte) in changes {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            let _ = decode(&with_hash(&stream));
        }

        #[test]
        fn any_flip_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut file = file();
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            prop_assert!(decode(&file).is_err());
        }
    }

    #[test]
    fn a_buffer_that_claims_too_much_is_refused_before_it_is_read() {
        let file = file();
        let stream = &file[..file.len() - HASH_BYTES];
        // The decompressed length of the only data buffer: 800 bytes.
        let at = stream
            .windows(8)
            .position(|w| w == 800i64.to_le_bytes())
            .unwrap();
        let mut forged = stream.to_vec();
        let at = stream[at + 8..]
            .windows(8)
            .position(|w| w == 800i64.to_le_bytes())
            .map_or(at, |next| at + 8 + next);
        forged[at..at + 8].copy_from_slice(&(1i64 << 40).to_le_bytes());
        let refused = decode(&with_hash(&forged)).unwrap_err();
        assert!(refused.contains("claims"), "{refused}");
    }
}
