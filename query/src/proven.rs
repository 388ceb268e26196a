//! The values in a proof.

use array::{Elements, Region, Statistics, Tensor, VariableElements, shape};
use codecs::ArrayCodec;
use compute::Reducer;
use compute::cf::Missing;
use storage::proof::{Contents, Proven, ProvenStatistics};

use crate::Error;

/// Most bytes of values a proof is unpacked to: a small proof of absence may cover a huge region.
const MAX_BYTES: u64 = 1 << 30;

/// The values of the region that was proven, as stored.
///
/// # Errors
/// [`array::Error::Unsupported`] if only statistics were proven;
/// [`Error::Codecs`] if the array's codecs are not known; [`Error::Array`] if there are over 1 GiB
/// of them; [`Error::Corrupt`] if the bytes, though proven, do not decode.
pub fn proven_values(proven: &Proven) -> Result<Tensor, Error> {
    let Contents::Chunks(chunks) = &proven.content else {
        return Err(array::Error::Unsupported {
            what: "values",
            reason: "the proof is of statistics".into(),
        }
        .into());
    };
    let array = || proven.path.to_string();
    let codec = ArrayCodec::new(&proven.metadata).map_err(|error| Error::Codecs {
        array: array(),
        reason: error.to_string(),
    })?;
    let corrupt = |error: codecs::Error| Error::Corrupt {
        object: "proof".into(),
        array: array(),
        reason: error.to_string(),
    };
    let (region, fill) = (&proven.region, codec.fill_value());
    let count = shape::elements(region.shape())?;
    let size = codec.data_type().size_bytes().unwrap_or(size_of::<usize>());
    let too_large = array::Error::TooLarge {
        what: "values of a proof (1 GiB)",
    };
    if count
        .checked_mul(size as u64)
        .is_none_or(|bytes| bytes > MAX_BYTES)
    {
        return Err(too_large.into());
    }
    let mut values = match Elements::repeat(codec.data_type(), fill.as_bytes(), count)? {
        Elements::Fixed(bytes) => Values::Fixed { size, bytes },
        Elements::Variable(_) => Values::Variable(vec![fill.as_bytes().to_vec(); count as usize]),
    };
    for chunk in chunks {
        for (inner, encoded) in &chunk.inner {
            let Some(encoded) = encoded else { continue };
            let within = codec.inner_region(*inner as usize).map_err(corrupt)?;
            let corner = proven.metadata.grid().chunk_region(&chunk.index);
            let start = corner.start().iter().zip(within.start());
            let start = start.map(|(a, b)| a + b).collect();
            let cells = Region::new(start, within.shape().to_vec())?;
            values.place(&codec.decode(encoded).map_err(corrupt)?, &cells, region);
        }
    }
    Ok(Tensor {
        data_type: codec.data_type().clone(),
        shape: region.shape().to_vec(),
        elements: values.finish(),
    })
}

/// The statistics of all cells of the region that was proven, those without a stored value
/// included; as stored, neither scaled nor offset. `None` if it is values that were proven.
///
/// # Errors
/// [`Error::Codecs`] if the array's codecs are not known; [`Error::Compute`] if its attributes are
/// not valid.
pub fn proven_statistics(proven: &Proven) -> Result<Option<Statistics>, Error> {
    let Contents::Statistics(found) = &proven.content else {
        return Ok(None);
    };
    let metadata = &proven.metadata;
    let codec = ArrayCodec::new(metadata).map_err(|error| Error::Codecs {
        array: proven.path.to_string(),
        reason: error.to_string(),
    })?;
    let missing = Missing::from_attributes(&metadata.data_type, &metadata.attributes)?;
    let fill = codec.fill_value().as_bytes();
    let fill = compute::statistics(&metadata.data_type, fill, &missing);
    let absent = fill.map(|fill| fill.repeated(found.absent_cells));
    Ok(absent.map(|absent| found.stored.merge(absent)))
}

/// What a proof of statistics proves the reduction it names to be: a tensor without dimensions.
/// `None` if it is values that were proven.
///
/// # Errors
/// [`Error::Compute`] if statistics do not answer it; else as [`proven_statistics`].
pub fn proven_reduction(proven: &Proven) -> Result<Option<Tensor>, Error> {
    let (Contents::Statistics(ProvenStatistics { reduce, .. }), Some(statistics)) =
        (&proven.content, proven_statistics(proven)?)
    else {
        return Ok(None);
    };
    let reducer: Reducer = reduce.parse()?;
    let metadata = &proven.metadata;
    let (data_type, bytes) = compute::reduce_statistics(
        &statistics,
        reducer,
        &metadata.data_type,
        &metadata.attributes,
    )?;
    Ok(Some(Tensor {
        data_type,
        shape: Vec::new(),
        elements: Elements::Fixed(bytes),
    }))
}

/// The values of a region, filled box by box.
enum Values {
    Fixed { size: usize, bytes: Vec<u8> },
    Variable(Vec<Vec<u8>>),
}

impl Values {
    /// Sets the values of `cells`, those that are in `region`.
    fn place(&mut self, elements: &Elements, cells: &Region, region: &Region) {
        let at = |cell: &[u64], of: &Region| {
            let offset = cell.iter().zip(of.start()).map(|(a, b)| a - b);
            shape::linear_index(&offset.collect::<Vec<u64>>(), of.shape()) as usize
        };
        for cell in cells.intersect(region).positions() {
            let (from, to) = (at(&cell, cells), at(&cell, region));
            match (&mut *self, elements) {
                (Self::Fixed { size, bytes }, Elements::Fixed(decoded)) => {
                    let decoded = &decoded[from * *size..][..*size];
                    bytes[to * *size..][..*size].copy_from_slice(decoded);
                }
                (Self::Variable(values), Elements::Variable(decoded)) => {
                    values[to] = decoded.get(from).unwrap_or_default().to_vec();
                }
                // Decoding gives elements of the array's type.
                _ => {}
            }
        }
    }

    fn finish(self) -> Elements {
        match self {
            Self::Fixed { bytes, .. } => Elements::Fixed(bytes),
            Self::Variable(values) => {
                let values = values.iter().map(Vec::as_slice);
                Elements::Variable(values.collect::<VariableElements>())
            }
        }
    }
}
