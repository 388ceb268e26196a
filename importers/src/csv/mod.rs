//! Columns of text files: CSV, and the same with tabs or semicolons.
//!
//! ```text
//! scan: header, type of each column, where every 4096th row begins
//! read: rows of a box, from the row known before them, of one column
//! ```
//!
//! The file is read once to find the types, which all of a column's cells agree in, and once for
//! each column; no more of it is in memory than one row and the box that is asked for.
//!
//! Source: RFC 4180.

mod cell;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, ReaderBuilder};
use array::{DataType, Elements, Region, VariableElements};

use self::cell::{Time, Unit};
use crate::Error;
use crate::source::{Attribute, Attributes, Group, Reader, Variable};

/// Longest row.
const MAX_ROW_BYTES: u64 = 16 << 20;
/// Most columns.
const MAX_COLUMNS: usize = 100_000;
/// Distance between the rows whose places are noted.
const NOTED_ROWS: u64 = 4096;
/// Most bytes of text that one box gives.
const MAX_TEXT_BYTES: usize = 256 << 20;
/// What stands between cells.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// The dimension of all columns.
const ROW: &str = "row";

/// An open text file of columns.
#[derive(Debug)]
pub(crate) struct CsvFile {
    path: PathBuf,
    delimiter: u8,
    /// Where each [`NOTED_ROWS`]th row begins.
    places: Vec<u64>,
    columns: Vec<Column>,
}

/// What a column's cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Integer,
    Float,
    Bool,
    /// Whether there is a value, of the column at this place.
    Valid(usize),
    Time(Unit),
    Text,
}

impl Column {
    fn data_type(self) -> DataType {
        match self {
            Self::Integer | Self::Time(_) => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool | Self::Valid(_) => DataType::Bool,
            Self::Text => DataType::String,
        }
    }
}

impl CsvFile {
    /// Opens a file and scans it.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no table of columns with a header.
    pub(crate) fn open(path: &Path, name: &str) -> Result<(Self, Vec<Group>), Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let delimiter = match name.ends_with(".tsv") {
            true => b'\t',
            false => delimiter(&mut File::open(path).map_err(read)?).map_err(read)?,
        };
        let mut rows = Rows::open(path, 0, delimiter)?;
        let names = match rows.next()? {
            Some(header) => names(header),
            None => Err("it is empty: it needs a row of names".to_owned()),
        };
        let names = names.map_err(|reason| malformed(path, reason))?;
        let mut guesses = vec![Guess::default(); names.len()];
        let (mut places, mut count) = (Vec::new(), 0u64);
        loop {
            let place = rows.place();
            let Some(row) = rows.next()? else { break };
            if count.is_multiple_of(NOTED_ROWS) {
                places.push(place);
            }
            count += 1;
            for ((guess, cell), name) in guesses.iter_mut().zip(row).zip(&names) {
                let cell = std::str::from_utf8(cell).map_err(|_| {
                    malformed(path, format!("row {count} of {name:?} is not UTF-8"))
                })?;
                guess.look(cell);
            }
        }
        let mut columns: Vec<Column> = guesses.iter().map(Guess::column).collect();
        let mut variables = Vec::new();
        for (at, (name, guess)) in names.iter().zip(&guesses).enumerate() {
            variables.push(variable(name, columns[at], guess.attributes(), count, at));
        }
        for (at, guess) in guesses.iter().enumerate() {
            let valid = format!("{}_valid", names[at]);
            if columns[at] == Column::Bool && guess.has_missing && !names.contains(&valid) {
                let column = Column::Valid(at);
                variables.push(variable(&valid, column, Vec::new(), count, columns.len()));
                columns.push(column);
            }
        }
        let group = Group {
            path: Vec::new(),
            attributes: Vec::new(),
            variables,
            refused: Vec::new(),
        };
        let file = Self {
            path: path.to_owned(),
            delimiter,
            places,
            columns,
        };
        Ok((file, vec![group]))
    }
}

fn variable(
    name: &str,
    column: Column,
    attributes: Attributes,
    rows: u64,
    handle: usize,
) -> Variable {
    Variable {
        name: name.to_owned(),
        dimensions: vec![ROW.into()],
        shape: vec![rows],
        data_type: column.data_type(),
        attributes,
        chunk_shape: None,
        handle,
    }
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        reason,
    }
}

/// What is most often between the cells of the first line.
fn delimiter(file: &mut File) -> io::Result<u8> {
    let mut start = Vec::new();
    file.take(64 << 10).read_to_end(&mut start)?;
    let (mut counts, mut quoted) = ([0u32; DELIMITERS.len()], false);
    for byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ if quoted => {}
            byte => {
                if let Some(at) = DELIMITERS.iter().position(|&known| known == byte) {
                    counts[at] += 1;
                }
            }
        }
    }
    // Of those that are there as often, the first one.
    let most = counts.iter().max().copied().unwrap_or(0);
    let at = counts.iter().position(|&count| count == most);
    Ok(DELIMITERS[at.unwrap_or(0)])
}

/// The names in a header.
fn names(header: &ByteRecord) -> Result<Vec<String>, String> {
    if header.len() > MAX_COLUMNS {
        return Err(format!(
            "it has {} columns, the most is {MAX_COLUMNS}",
            header.len()
        ));
    }
    let mut seen = BTreeSet::new();
    let mut names = Vec::with_capacity(header.len());
    for (at, cell) in header.iter().enumerate() {
        let name = std::str::from_utf8(cell).map_err(|_| "its header is not UTF-8")?;
        let name = match name.trim_start_matches('\u{feff}').trim() {
            // As pandas writes an index.
            "" if at == 0 => "index".to_owned(),
            "" => format!("column_{at}"),
            name => name.to_owned(),
        };
        if !seen.insert(name.clone()) {
            return Err(format!("two of its columns are called {name:?}"));
        }
        names.push(name);
    }
    Ok(names)
}

/// What the cells of a column seen so far can all be.
#[derive(Clone, Debug)]
struct Guess {
    integer: bool,
    float: bool,
    bool: bool,
    time: Option<Times>,
    has_missing: bool,
    has_value: bool,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    unit: Unit,
    has_zone: Option<bool>,
    /// The first and the last, which must fit the unit.
    first: i128,
    last: i128,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            integer: true,
            float: true,
            bool: true,
            time: Some(Times {
                unit: Unit::Days,
                has_zone: None,
                first: i128::MAX,
                last: i128::MIN,
            }),
            has_missing: false,
            has_value: false,
        }
    }
}

impl Guess {
    fn look(&mut self, cell: &str) {
        if cell::is_missing(cell) {
            self.has_missing = true;
            return;
        }
        self.has_value = true;
        self.integer = self.integer && cell::integer(cell).is_some();
        self.float = self.float && cell::float(cell).is_some();
        self.bool = self.bool && cell::boolean(cell).is_some();
        self.time = match (self.time, self.time.and_then(|_| cell::time(cell))) {
            (Some(times), Some(time)) => times.with(time),
            _ => None,
        };
    }

    fn column(&self) -> Column {
        if !self.has_value {
            return if self.has_missing {
                Column::Float
            } else {
                Column::Text
            };
        }
        match self.time {
            _ if self.integer => Column::Integer,
            _ if self.float => Column::Float,
            _ if self.bool => Column::Bool,
            Some(times) if times.fit() => Column::Time(times.unit),
            _ => Column::Text,
        }
    }

    fn attributes(&self) -> Attributes {
        let column = self.column();
        let mut attributes = Vec::new();
        if let Column::Time(unit) = column {
            let units = format!("{} since 1970-01-01", unit.name());
            attributes.push(("units".into(), Attribute::Text(units)));
            let calendar = Attribute::Text("proleptic_gregorian".into());
            attributes.push(("calendar".into(), calendar));
        }
        let is_count = matches!(column, Column::Integer | Column::Time(_));
        if is_count && self.has_missing {
            let fill = Attribute::Integers(vec![i64::MIN.into()]);
            attributes.push(("_FillValue".into(), fill));
        }
        if column == Column::Float && self.has_missing {
            attributes.push(("_FillValue".into(), Attribute::Floats(vec![f64::NAN])));
        }
        attributes
    }
}

impl Times {
    /// With one more; `None` if one of them tells its zone and the other does not. Days, which have
    /// none, go with either.
    fn with(mut self, time: Time) -> Option<Self> {
        if time.unit > Unit::Days {
            if self.has_zone.is_some_and(|zone| zone != time.has_zone) {
                return None;
            }
            self.has_zone = Some(time.has_zone);
        }
        self.unit = self.unit.max(time.unit);
        self.first = self.first.min(time.nanoseconds);
        self.last = self.last.max(time.nanoseconds);
        Some(self)
    }

    fn fit(self) -> bool {
        [self.first, self.last].into_iter().all(|nanoseconds| {
            let time = Time {
                nanoseconds,
                unit: self.unit,
                has_zone: false,
            };
            time.count(self.unit).is_some_and(|count| count != i64::MIN)
        })
    }
}

impl Reader for CsvFile {
    fn format(&self) -> &'static str {
        "CSV"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let range = region.range(0);
        let mut cells = Cells::new(self.columns[variable.handle]);
        if range.is_empty() {
            return Ok(cells.finish());
        }
        let at = match self.columns[variable.handle] {
            Column::Valid(at) => at,
            _ => variable.handle,
        };
        let noted = range.start / NOTED_ROWS;
        let changed = || malformed(&self.path, "it changed while it was being read".into());
        let place = self.places.get(noted as usize).ok_or_else(changed)?;
        let mut rows = Rows::open(&self.path, *place, self.delimiter)?;
        for nth in noted * NOTED_ROWS..range.end {
            let row = rows.next()?.ok_or_else(changed)?;
            if nth >= range.start {
                let cell = row.get(at).and_then(|cell| std::str::from_utf8(cell).ok());
                let added = cell.and_then(|cell| cells.push(cell));
                added.ok_or_else(changed)?;
                if cells.text.len() > MAX_TEXT_BYTES {
                    let most = MAX_TEXT_BYTES >> 20;
                    let reason = format!(
                        "{region} of {:?} takes more than {most} MiB: make its chunks shorter with \
                         --chunks {ROW}=N",
                        variable.name
                    );
                    return Err(malformed(&self.path, reason));
                }
            }
        }
        Ok(cells.finish())
    }
}

/// The elements of a box while its rows are read.
struct Cells {
    column: Column,
    bytes: Vec<u8>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Cells {
    fn new(column: Column) -> Self {
        Self {
            column,
            bytes: Vec::new(),
            text: Vec::new(),
            ends: vec![0],
        }
    }

    /// Adds a cell; `None` if it is not what the scan found.
    fn push(&mut self, cell: &str) -> Option<()> {
        let is_missing = cell::is_missing(cell);
        match self.column {
            Column::Text => {
                self.text.extend_from_slice(cell.as_bytes());
                self.ends.push(self.text.len());
            }
            Column::Valid(_) => self.bytes.push(u8::from(!is_missing)),
            Column::Bool if is_missing => self.bytes.push(0),
            Column::Bool => self.bytes.push(u8::from(cell::boolean(cell)?)),
            Column::Float => {
                let number = if is_missing {
                    f64::NAN
                } else {
                    cell::float(cell)?
                };
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
            Column::Integer | Column::Time(_) if is_missing => {
                self.bytes.extend_from_slice(&i64::MIN.to_le_bytes());
            }
            Column::Integer => self
                .bytes
                .extend_from_slice(&cell::integer(cell)?.to_le_bytes()),
            Column::Time(unit) => {
                let count = cell::time(cell)?.count(unit)?;
                self.bytes.extend_from_slice(&count.to_le_bytes());
            }
        }
        Some(())
    }

    fn finish(self) -> Elements {
        match self.column {
            Column::Text => match VariableElements::new(self.ends, self.text) {
                Ok(texts) => Elements::Variable(texts),
                // The ends are those of the texts.
                Err(_) => Elements::Variable(std::iter::empty().collect()),
            },
            _ => Elements::Fixed(self.bytes),
        }
    }
}

/// The rows of a file from some place on.
struct Rows {
    path: PathBuf,
    start: u64,
    reader: ::csv::Reader<Limited>,
    row: ByteRecord,
}

impl Rows {
    fn open(path: &Path, start: u64, delimiter: u8) -> Result<Self, Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        file.seek(SeekFrom::Start(start)).map_err(read)?;
        let left = MAX_ROW_BYTES;
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .buffer_capacity(256 << 10)
            .from_reader(Limited { file, left });
        Ok(Self {
            path: path.to_owned(),
            start,
            reader,
            row: ByteRecord::new(),
        })
    }

    /// Where the next row begins in the file.
    fn place(&self) -> u64 {
        self.start + self.reader.position().byte()
    }

    fn next(&mut self) -> Result<Option<&ByteRecord>, Error> {
        self.reader.get_mut().left = MAX_ROW_BYTES;
        let found = self.reader.read_byte_record(&mut self.row);
        let found = found.map_err(|error| {
            let reason = match error.kind() {
                ::csv::ErrorKind::UnequalLengths {
                    pos,
                    expected_len,
                    len,
                } => {
                    let line = pos.as_ref().map_or(0, ::csv::Position::line);
                    format!("line {line} has {len} cells, those before it {expected_len}")
                }
                _ => error.to_string(),
            };
            malformed(&self.path, reason)
        })?;
        Ok(found.then_some(&self.row))
    }
}

/// A file of which one row reads so many bytes at most.
struct Limited {
    file: File,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let most = MAX_ROW_BYTES >> 20;
            let message = format!("a row is longer than {most} MiB: is a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let most = out
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut out[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
