//! The sections of GRIB2 messages, as far as they say what the values are.
//!
//! ```text
//! message: 0 indicator │ 1 when │ { 3 grid │ { 4 product │ 5 packing │ 6 bitmap │ 7 values } … } … │ 8
//! ```
//!
//! Lengths are checked against the message, and the message's against the file, before anything is
//! read; values stay where they are.
//!
//! Source: WMO Manual on Codes, FM 92 GRIB edition 2.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Longest section that says what values are.
const MAX_SECTION_BYTES: u64 = 64 << 20;
/// Most fields of a file.
const MAX_FIELDS: usize = 5_000_000;
/// Bytes between messages that are looked through for the next.
const MAX_GAP_BYTES: u64 = 1 << 20;
const INDICATOR_BYTES: u64 = 16;
const HEADER_BYTES: u64 = 5;
/// Bitmap indicators: there is one, or it is the one before.
const HAS_BITMAP: u8 = 0;
const SAME_BITMAP: u8 = 254;

/// A part of the file.
pub(super) type Span = (u64, u64);

/// One field: values on a grid.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) discipline: u8,
    /// Sections 1, 3 and 4, with their headers.
    pub(super) identification: Arc<[u8]>,
    pub(super) grid: Arc<[u8]>,
    pub(super) product: Arc<[u8]>,
    /// Where sections 5, 6 and 7 are.
    pub(super) packing: Span,
    pub(super) bitmap: Span,
    pub(super) values: Span,
}

/// Finds every field of a file of `length` bytes.
///
/// # Errors
/// What is wrong with it; a message cut short is one thing that can be.
pub(super) fn fields(file: &File, length: u64) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    let mut at = 0;
    while let Some(start) = next_message(file, at, length)? {
        at = start
            + message(file, start, length, &mut fields)
                .map_err(|reason| format!("its message at byte {start}: {reason}"))?;
    }
    if fields.is_empty() {
        return Err("it has no message".into());
    }
    Ok(fields)
}

fn read(file: &File, (at, length): Span) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; length as usize];
    let read = file.read_exact_at(&mut bytes, at);
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    Ok(bytes)
}

/// Where the next message begins: other things may stand between them.
fn next_message(file: &File, from: u64, length: u64) -> Result<Option<u64>, String> {
    let end = length.min(from.saturating_add(MAX_GAP_BYTES));
    let bytes = read(file, (from, end.saturating_sub(from)))?;
    match bytes.windows(4).position(|word| word == b"GRIB") {
        Some(gap) => Ok(Some(from + gap as u64)),
        None if end == length => Ok(None),
        None => Err(format!(
            "there is no message within {MAX_GAP_BYTES} bytes of byte {from}"
        )),
    }
}

/// Adds the fields of a message; gives its length.
fn message(file: &File, start: u64, length: u64, fields: &mut Vec<Field>) -> Result<u64, String> {
    let room = length - start;
    if room < INDICATOR_BYTES {
        return Err("it ends inside its indicator".into());
    }
    let indicator = read(file, (start, INDICATOR_BYTES))?;
    match indicator[7] {
        2 => {}
        1 => return Err("it is of GRIB edition 1: convert it with grib_set -s edition=2".into()),
        edition => return Err(format!("it is of GRIB edition {edition}, not 2")),
    }
    let total = u64::from_be_bytes(*indicator[8..].first_chunk().unwrap_or(&[0; 8]));
    if total > room || total < INDICATOR_BYTES + 4 {
        return Err(format!("it claims {total} bytes, and the file has {room}"));
    }
    let end = start + total;
    let mut at = start + INDICATOR_BYTES;
    let (mut one, mut three, mut four) = (None, None, None);
    let (mut five, mut six, mut bitmap) = (None, None, None);
    while at + 4 < end {
        let header = read(file, (at, HEADER_BYTES.min(end - at)))?;
        let [a, b, c, d, number] = header[..] else {
            return Err("it ends inside a section".into());
        };
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        if size < HEADER_BYTES || size > end - at {
            return Err(format!(
                "section {number} claims {size} bytes and has {}",
                end - at
            ));
        }
        let span = (at, size);
        let small = || match size > MAX_SECTION_BYTES {
            true => Err(format!("section {number} takes {size} bytes")),
            false => read(file, span).map(Arc::<[u8]>::from),
        };
        match number {
            1 => one = Some(small()?),
            2 => {}
            3 => three = Some(small()?),
            4 => four = Some(small()?),
            5 => five = Some(span),
            6 => {
                let indicator = read(file, (at, size.min(6)))?;
                six = match indicator.get(5) {
                    Some(&HAS_BITMAP) => {
                        bitmap = Some(span);
                        bitmap
                    }
                    Some(&SAME_BITMAP) => bitmap,
                    _ => Some(span),
                };
            }
            7 => {
                let missing = |number| format!("section 7 comes before section {number}");
                fields.push(Field {
                    discipline: indicator[6],
                    identification: one.clone().ok_or_else(|| missing(1))?,
                    grid: three.clone().ok_or_else(|| missing(3))?,
                    product: four.clone().ok_or_else(|| missing(4))?,
                    packing: five.ok_or_else(|| missing(5))?,
                    bitmap: six.ok_or_else(|| missing(6))?,
                    values: span,
                });
                if fields.len() > MAX_FIELDS {
                    return Err(format!("the file has more than {MAX_FIELDS} fields"));
                }
            }
            number => return Err(format!("it has a section {number}")),
        }
        at += size;
    }
    match at + 4 == end && read(file, (at, 4))? == b"7777" {
        true => Ok(total),
        false => Err("it does not end with 7777".into()),
    }
}

/// Octets of a section, counted from 1 as the manual does.
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl Octets<'_> {
    /// An unsigned number.
    ///
    /// # Errors
    /// If the section is too short.
    pub(super) fn number(&self, first: usize, count: usize) -> Result<u64, String> {
        let bytes = self.0.get(first - 1..first - 1 + count);
        let bytes = bytes.ok_or("a section is too short for its template")?;
        Ok(bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A number whose first bit is its sign.
    ///
    /// # Errors
    /// If the section is too short.
    pub(super) fn signed(&self, first: usize, count: usize) -> Result<i64, String> {
        let number = self.number(first, count)?;
        let sign = 1u64 << (8 * count - 1);
        let size = (number & (sign - 1)) as i64;
        Ok(if number & sign == 0 { size } else { -size })
    }

    /// Whether every bit of a number is set, which stands for none.
    ///
    /// # Errors
    /// If the section is too short.
    pub(super) fn is_missing(&self, first: usize, count: usize) -> Result<bool, String> {
        let most = u64::MAX >> (64 - 8 * count);
        Ok(self.number(first, count)? == most)
    }
}
