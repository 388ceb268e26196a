//! Columns of Parquet files.
//!
//! ```text
//! footer ─► columns ─► arrays of one dimension
//! box ─► the row groups it meets, one column, the rows before it skipped
//! ```
//!
//! Rows without a value: NaN in floats, a fill value in times, and in integers where the file's
//! statistics say that no row holds it; else an array of its own, `<name>_valid`, tells them.
//!
//! Left out and refused by name: nested columns, decimals.
//!
//! Source: the Apache Parquet format; CF conventions, "Time Coordinate".

mod values;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use array::{Elements, Region};
use bytes::Bytes;

use self::values::{Kind, Values};
use crate::Error;
use crate::source::{Group, Reader, Refused, Variable};

/// Most columns.
const MAX_COLUMNS: usize = 100_000;
/// Most bytes that the pages of a column in a row group may unpack to.
const MAX_COLUMN_BYTES: i64 = 4 << 30;
/// Rows decoded at once; fewer where each may be long.
const BATCH_ROWS: usize = 65_536;
const TEXT_BATCH_ROWS: usize = 4096;
/// The dimension of all columns.
const ROW: &str = "row";

/// An open Parquet file.
#[derive(Debug)]
pub(crate) struct ParquetFile {
    path: PathBuf,
    input: Input,
    metadata: ArrowReaderMetadata,
    columns: Vec<Column>,
}

/// An array made of a column.
#[derive(Clone, Debug)]
struct Column {
    /// Its number in the schema.
    at: usize,
    kind: Kind,
}

impl ParquetFile {
    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such file.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let input = Input(Arc::new((file, length)));
        let metadata = guarded(path, || {
            // The types are the file's own, not what an Arrow schema inside says they were.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::load(&input, options)
        })?;
        let rows = rows(path, metadata.metadata())?;
        let fields = metadata.schema().fields();
        if fields.len() > MAX_COLUMNS {
            let reason = format!("it has {} columns, the most is {MAX_COLUMNS}", fields.len());
            return Err(malformed(path, reason));
        }
        let (mut columns, mut variables, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        for (at, field) in fields.iter().enumerate() {
            let name = field.name().clone();
            let found = values::Found::of(&metadata, at, field);
            let found = match found {
                Ok(found) => found,
                Err(reason) => {
                    refused.push(Refused { name, reason });
                    continue;
                }
            };
            let mut add = |name: &str, kind: Kind, attributes| {
                variables.push(Variable {
                    name: name.to_owned(),
                    dimensions: vec![ROW.into()],
                    shape: vec![rows],
                    data_type: kind.data_type(),
                    attributes,
                    chunk_shape: None,
                    handle: columns.len(),
                });
                columns.push(Column { at, kind });
            };
            add(&name, found.kind, found.attributes);
            if found.needs_valid {
                let mut valid = format!("{name}_valid");
                while names.contains(&valid.as_str()) {
                    valid.push('_');
                }
                add(&valid, Kind::Valid, Vec::new());
            }
        }
        let group = Group {
            path: Vec::new(),
            attributes: Vec::new(),
            variables,
            refused,
        };
        let file = Self {
            path: path.to_owned(),
            input,
            metadata,
            columns,
        };
        Ok((file, vec![group]))
    }

    /// Reads rows of a row group.
    fn rows(
        &self,
        column: &Column,
        group: usize,
        skip: usize,
        count: usize,
        values: &mut Values,
    ) -> Result<(), Error> {
        let is_text = column.kind.data_type().is_variable_length();
        let reader = guarded(&self.path, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
                self.input.clone(),
                self.metadata.clone(),
            );
            let schema = self.metadata.parquet_schema();
            let selected = vec![RowSelector::skip(skip), RowSelector::select(count)];
            builder
                .with_projection(ProjectionMask::roots(schema, [column.at]))
                .with_row_groups(vec![group])
                .with_row_selection(RowSelection::from(selected))
                .with_batch_size(if is_text { TEXT_BATCH_ROWS } else { BATCH_ROWS })
                .build()
        })?;
        let mut reader = reader;
        let mut found = 0;
        loop {
            let batch = guarded(&self.path, || reader.next().transpose().map_err(Into::into))?;
            let Some(batch) = batch else { break };
            found += batch.num_rows();
            let array = batch.columns().first();
            let added = array.map_or(Err("a batch without a column".into()), |array| {
                values.push(array.as_ref())
            });
            added.map_err(|reason| malformed(&self.path, reason))?;
        }
        match found == count {
            true => Ok(()),
            false => {
                let reason = format!("row group {group} has {found} rows where {count} were asked");
                Err(malformed(&self.path, reason))
            }
        }
    }
}

/// Rows in all, of which the row groups agree.
fn rows(path: &Path, metadata: &ParquetMetaData) -> Result<u64, Error> {
    let odd = |reason: &str| malformed(path, reason.into());
    let mut rows = 0u64;
    for group in metadata.row_groups() {
        let count = u64::try_from(group.num_rows());
        let count = count.map_err(|_| odd("a row group claims a negative number of rows"))?;
        let sum = rows.checked_add(count).filter(|&sum| sum < 1 << 62);
        rows = sum.ok_or_else(|| odd("its row groups claim too many rows"))?;
        for column in group.columns() {
            if !(0..=MAX_COLUMN_BYTES).contains(&column.uncompressed_size()) {
                let most = MAX_COLUMN_BYTES >> 30;
                return Err(odd(&format!(
                    "a column of a row group claims {} bytes, the most is {most} GiB",
                    column.uncompressed_size()
                )));
            }
        }
    }
    if u64::try_from(metadata.file_metadata().num_rows()) != Ok(rows) {
        return Err(odd(
            "its footer and its row groups disagree about the number of rows",
        ));
    }
    Ok(rows)
}

impl Reader for ParquetFile {
    fn format(&self) -> &'static str {
        "Parquet"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let column = &self.columns[variable.handle];
        let wanted = region.range(0);
        let mut values = Values::new(column.kind.clone());
        let mut first = 0;
        for (at, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let end = first + group.num_rows() as u64;
            let (from, to) = (wanted.start.max(first), wanted.end.min(end));
            if from < to {
                let (skip, count) = ((from - first) as usize, (to - from) as usize);
                self.rows(column, at, skip, count, &mut values)?;
            }
            first = end;
        }
        values
            .finish()
            .map_err(|reason| malformed(&self.path, reason))
    }
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason,
    }
}

/// Runs code of the Parquet library, which may panic on a file that is not one.
fn guarded<T>(path: &Path, run: impl FnOnce() -> ParquetResult<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(|error| malformed(path, error.to_string())),
        Err(_) => Err(malformed(path, "the Parquet library stopped at it".into())),
    }
}

/// A file and its length, read by position.
#[derive(Clone, Debug)]
struct Input(Arc<(File, u64)>);

/// A place in a file to read on from.
struct Place {
    input: Input,
    at: u64,
}

impl Length for Input {
    fn len(&self) -> u64 {
        self.0.1
    }
}

impl ChunkReader for Input {
    type T = io::BufReader<Place>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let input = self.clone();
        Ok(io::BufReader::new(Place { input, at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.0.1) {
            let reason = format!("{length} bytes at {start} lie past the end of the file");
            return Err(ParquetError::EOF(reason));
        }
        let mut bytes = vec![0; length];
        self.0.0.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

impl Read for Place {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.input.0.0.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
