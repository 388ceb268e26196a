//! NumPy's file format, and the cells of an array as one run of bytes.
//!
//! Text of any length becomes text as long as the longest, which is looked for first.
//!
//! Source: NumPy enhancement proposal 1, versions 1.0 and 2.0 of the format.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use array::{DataType, Elements};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use query::Engine;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::tally::Tally;
use super::view::ViewedArray;
use crate::Error;

/// Cells of text read together.
const TEXTS_AT_ONCE: u64 = 1 << 18;
/// Longest text, in characters: the longest of all is what each takes.
const TEXT_MAX: usize = 1 << 20;

/// Writes one array to a file.
///
/// # Errors
/// [`Error::NoPlace`] for bytes of any length; [`Error::Write`] if the file cannot be written; as
/// [`Engine::read`].
pub(super) async fn write(
    engine: &Engine,
    array: &ViewedArray,
    path: &Path,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let member = Member::new(engine, array).await?;
    tally.expect(1, member.bytes);
    let mut out = Out::open(path).await?;
    out.write(&member.header).await?;
    member.write_cells(engine, &mut out, tally).await?;
    out.finish().await
}

/// A file being written.
pub(super) struct Out {
    file: File,
    path: PathBuf,
    position: u64,
}

impl Out {
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::options().write(true).truncate(true).open(path).await;
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        Ok(Self {
            file: opened.map_err(failed)?,
            path: path.to_owned(),
            position: 0,
        })
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = self.path.clone();
        |source| Error::Write { path, source }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes).await;
        written.map_err(self.failed())?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Writes over what is at a place, and goes on at the end.
    pub(super) async fn write_at(&mut self, place: u64, bytes: &[u8]) -> Result<(), Error> {
        let failed = self.failed();
        let (end, file) = (self.position, &mut self.file);
        let work = async move {
            file.seek(SeekFrom::Start(place)).await?;
            file.write_all(bytes).await?;
            file.seek(SeekFrom::Start(end)).await
        };
        work.await.map(drop).map_err(failed)
    }

    pub(super) async fn finish(mut self) -> Result<(), Error> {
        let flushed = self.file.flush().await;
        flushed.map_err(self.failed())
    }
}

/// An array as a file of NumPy's: its header, and how its cells are written.
pub(super) struct Member<'a> {
    pub(super) array: &'a ViewedArray,
    pub(super) header: Vec<u8>,
    /// Bytes of the cells.
    pub(super) bytes: u64,
    /// Characters of each text; none for other cells.
    text: Option<usize>,
}

impl<'a> Member<'a> {
    pub(super) async fn new(engine: &Engine, array: &'a ViewedArray) -> Result<Self, Error> {
        let refused = |reason: &str| Error::NoPlace {
            format: "NumPy's format",
            array: array.path(),
            reason: reason.to_owned(),
        };
        let shape = array.shape();
        let (descr, size, text) = match &array.data_type {
            DataType::String => {
                let longest = longest_text(engine, array).await?.max(1);
                if longest > TEXT_MAX {
                    return Err(refused(&format!(
                        "each text would take as much as the longest, which has {longest} characters"
                    )));
                }
                (format!("<U{longest}"), 4 * longest, Some(longest))
            }
            other => {
                let descr = other.numpy_descr();
                let descr = descr.ok_or_else(|| refused("it has no bytes of any length"))?;
                (descr, other.size_bytes().unwrap_or(1), None)
            }
        };
        let count = array::shape::elements(&shape)?;
        let bytes = count.checked_mul(size as u64);
        Ok(Self {
            array,
            header: header(&descr, &shape),
            bytes: bytes.ok_or(array::Error::TooLarge {
                what: "array in bytes",
            })?,
            text,
        })
    }

    /// The cells in C order, piece by piece.
    pub(super) async fn pieces(
        &self,
        engine: &'a Engine,
    ) -> Result<BoxStream<'a, Result<Bytes, Error>>, Error> {
        match self.text {
            Some(characters) => Ok(texts(engine, self.array, characters)?),
            None => cells(engine, self.array).await,
        }
    }

    async fn write_cells(
        &self,
        engine: &'a Engine,
        out: &mut Out,
        tally: &Tally<'_>,
    ) -> Result<(), Error> {
        tally.begin(&self.array.path());
        let mut pieces = self.pieces(engine).await?;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            out.write(&piece).await?;
            tally.chunk(piece.len() as u64);
        }
        Ok(())
    }
}

/// The cells of an array whose elements have a fixed size, in C order, piece by piece.
pub(super) async fn cells<'a>(
    engine: &'a Engine,
    array: &'a ViewedArray,
) -> Result<BoxStream<'a, Result<Bytes, Error>>, Error> {
    let pieces = engine
        .stream(&array.reader, &array.selection, array.decode)
        .await?;
    Ok(pieces.map(|piece| Ok(piece?)).boxed())
}

async fn longest_text(engine: &Engine, array: &ViewedArray) -> Result<usize, Error> {
    let mut longest = 0;
    for region in array.runs(TEXTS_AT_ONCE)? {
        let tensor = array.read(engine, &region).await?;
        if let Elements::Variable(texts) = &tensor.elements {
            let characters = texts
                .iter()
                .map(|text| String::from_utf8_lossy(text).chars().count());
            longest = longest.max(characters.max().unwrap_or(0));
        }
    }
    Ok(longest)
}

fn texts<'a>(
    engine: &'a Engine,
    array: &'a ViewedArray,
    characters: usize,
) -> Result<BoxStream<'a, Result<Bytes, Error>>, Error> {
    // Padded, they may take far more than they do as read.
    let most = (16 << 20) / (4 * characters as u64).max(1);
    let runs = array.runs(most.clamp(1, TEXTS_AT_ONCE))?;
    let pieces = futures::stream::iter(runs).then(move |region| async move {
        let tensor = array.read(engine, &region).await?;
        let mut bytes = Vec::new();
        if let Elements::Variable(texts) = &tensor.elements {
            bytes.reserve(texts.len().saturating_mul(4 * characters));
            for (place, text) in texts.iter().enumerate() {
                let text = String::from_utf8_lossy(text);
                bytes.extend(text.chars().flat_map(|c| (c as u32).to_le_bytes()));
                bytes.resize((place + 1) * 4 * characters, 0);
            }
        }
        Ok(bytes.into())
    });
    Ok(pieces.boxed())
}

/// What comes before the cells.
fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let lengths: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let shape = match shape.len() {
        1 => lengths.trim_end(),
        _ => lengths.trim_end_matches(", "),
    };
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic and version, then the length of the text in 2 bytes.
    const PREFIX_BYTES: usize = 10;
    let length = (PREFIX_BYTES + text.len() + 1).next_multiple_of(64) - PREFIX_BYTES;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // At most 32 dimensions of 20 digits, so it fits.
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(PREFIX_BYTES + length - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_numpys() {
        for (shape, expected) in [
            (vec![], "()"),
            (vec![3], "(3,)"),
            (vec![3, 4], "(3, 4)"),
            (vec![u64::MAX; 32], "18446744073709551615)"),
        ] {
            let header = header("<f4", &shape);
            assert_eq!(header.len() % 64, 0);
            let declared = u16::from_le_bytes([header[8], header[9]]) as usize;
            assert_eq!(declared + 10, header.len());
            let text = String::from_utf8_lossy(&header[10..]);
            assert!(text.contains(&format!("{expected}, }}")), "{text}");
            assert!(text.ends_with('\n'));
        }
    }
}
