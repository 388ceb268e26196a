//! Boxes of random elements, on the device and on the processor.

use array::{DataType, Layout, TimeUnit};
use compute::cf::CfDecoder;
use compute::gpu::{BoxOf, Found, Geometry, Staged, Stop, Stretch, Task, Wanted};
use compute::histogram::Histogram;
use compute::{Block, Partial, Reducer, Reduction};

use crate::decompress::Encoded;
use crate::device::Devices;

/// What chunks are decoded by, in keys.
pub(crate) const CODEC: array::Hash = array::Hash::from_bytes([7; 32]);

pub(crate) const TIME: DataType = DataType::DateTime64 {
    unit: TimeUnit::Second,
    scale_factor: 1,
};

pub(crate) const TYPES: [DataType; 14] = [
    DataType::Bool,
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
    DataType::Float16,
    DataType::BFloat16,
    DataType::Float32,
    DataType::Float64,
    TIME,
];

/// Those that devices do, by whether missing values are left out.
pub(crate) fn reductions(data_type: &DataType) -> Vec<Reduction> {
    let mut all = Vec::new();
    for reducer in Reducer::ALL {
        for skip_missing in [None, Some(false), Some(true)] {
            for as_float64 in [false, true] {
                let reduction = Reduction {
                    skip_missing,
                    as_float64,
                    ..Reduction::new(reducer)
                };
                if reducer != Reducer::Prod && reduction.data_type(data_type).is_ok() {
                    all.push(reduction);
                }
            }
        }
    }
    all
}

/// Numbers that depend on a seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Elements of a type: any bits for integers, mostly ordinary numbers for floats.
    pub(crate) fn elements(&mut self, data_type: &DataType, count: usize) -> Vec<u8> {
        let size = data_type.size_bytes().unwrap();
        (0..count)
            .flat_map(|_| {
                let bits = self.next();
                let special = self.below(40);
                let number = match special {
                    0 => f64::NAN,
                    1 => -0.0,
                    2 => 0.0,
                    3 => 1e4,
                    _ => (bits >> 40) as f64 / 4096.0 - 2048.0,
                };
                let bytes = match data_type {
                    DataType::Bool => u64::from(bits.is_multiple_of(3)).to_le_bytes(),
                    DataType::Float16 => widened(&half::f16::from_f64(number).to_le_bytes()),
                    DataType::BFloat16 => widened(&half::bf16::from_f64(number).to_le_bytes()),
                    DataType::Float32 => widened(&(number as f32).to_le_bytes()),
                    DataType::Float64 => (number * 1.000_000_1).to_le_bytes(),
                    _ if special == 0 => i64::MIN.to_le_bytes(),
                    _ if special < 20 => (bits % 5).to_le_bytes(),
                    _ => bits.to_le_bytes(),
                };
                bytes[..size].to_vec()
            })
            .collect()
    }
}

fn widened(bytes: &[u8]) -> [u8; 8] {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    wide
}

/// Inner chunks as they come from storage, what they decode to, and what is done with them.
#[derive(Clone, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) data_type: &'a DataType,
    pub(crate) decoder: Option<&'a CfDecoder>,
    pub(crate) geometry: Geometry,
    /// Of each inner chunk: its bytes and their layout.
    pub(crate) staged: Vec<(Vec<u8>, Layout)>,
    /// The same, decoded to elements.
    pub(crate) decoded: Vec<Vec<u8>>,
    pub(crate) keys: Vec<Option<compute::gpu::Key>>,
    /// The staged bytes of those that are compressed; none if it is empty.
    pub(crate) encoded: Vec<Option<Encoded>>,
}

/// All of an inner chunk.
pub(crate) fn whole(shape: &[u64], reduced: &[bool]) -> Geometry {
    let stretch = |&length: &u64| Stretch {
        start: 0,
        step: 1,
        length,
    };
    Geometry {
        inner_shape: shape.to_vec(),
        stretches: shape.iter().map(stretch).collect(),
        reduced: reduced.to_vec(),
    }
}

impl<'a> Case<'a> {
    /// Plain elements.
    pub(crate) fn plain(data_type: &'a DataType, geometry: Geometry, chunks: Vec<Vec<u8>>) -> Self {
        let staged = chunks.iter().map(|chunk| (chunk.clone(), Layout::ELEMENTS));
        Self {
            data_type,
            decoder: None,
            geometry,
            staged: staged.collect(),
            keys: vec![None; chunks.len()],
            encoded: Vec::new(),
            decoded: chunks,
        }
    }

    /// Places of a box in a selection that takes every third cell of a longer axis.
    fn places(&self, nth: usize) -> Vec<Vec<u64>> {
        let lengths = self.geometry.shape();
        let place = |length: u64| (0..length).map(|at| 3 * at + nth as u64).collect();
        lengths.into_iter().map(place).collect()
    }

    fn selection_shape(&self) -> Vec<u64> {
        let chunks = self.staged.len() as u64;
        self.geometry
            .shape()
            .iter()
            .map(|length| 3 * length + chunks)
            .collect()
    }

    pub(crate) fn on_device(
        &self,
        devices: &Devices,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Vec<Found>>, Stop<String>> {
        let boxes: Vec<BoxOf> = (0..self.staged.len())
            .map(|nth| BoxOf {
                key: self.keys[nth],
                places: self.places(nth),
            })
            .collect();
        let selection_shape = self.selection_shape();
        let chunk_bytes = self.decoded.first().map_or(0, Vec::len);
        let task = Task {
            data_type: self.data_type,
            decoder: self.decoder,
            chunk_bytes,
            geometry: &self.geometry,
            selection_shape: &selection_shape,
            wanted,
            boxes: &boxes,
        };
        devices.gpus.run_on(0, &task, |nth, out| {
            let (bytes, layout) = &self.staged[nth];
            assert_eq!(out.len(), chunk_bytes, "room for a decoded chunk");
            if let Some(Some(encoded)) = self.encoded.get(nth) {
                let streams = devices.gpus.pack(&encoded.chunk(bytes.len()), out);
                assert!(streams.is_some(), "{encoded:?} is packed");
                return Ok(Staged {
                    length: bytes.len(),
                    layout: *layout,
                    streams,
                });
            }
            out[..bytes.len()].copy_from_slice(bytes);
            Ok(Staged {
                length: bytes.len(),
                layout: *layout,
                streams: None,
            })
        })
    }

    /// The same by the code of the processor.
    pub(crate) fn on_processor(&self, wanted: &[Wanted<'_>]) -> Vec<Vec<Found>> {
        let shape = self.geometry.shape();
        let size = self.data_type.size_bytes().unwrap();
        let selection_shape = self.selection_shape();
        let each = self.decoded.iter().enumerate().map(|(nth, decoded)| {
            let cells = picked(&self.geometry, decoded, size);
            let (cells, measured) = match self.decoder {
                Some(decoder) => (decoder.decode(&cells), decoder.data_type()),
                None => (cells, self.data_type),
            };
            let places = self.places(nth);
            let block = Block {
                data_type: measured,
                bytes: &cells,
                shape: &shape,
                reduced: &self.geometry.reduced,
                places: &places,
                selection_shape: &selection_shape,
            };
            let found = wanted.iter().map(|wanted| match wanted {
                Wanted::Plain(reduction) => Found::Plain(Partial::of(*reduction, &block).unwrap()),
                Wanted::Histogram(bins) => Found::Histogram(Histogram::of(bins, &block).unwrap()),
            });
            found.collect()
        });
        each.collect()
    }

    /// Compares the two: the answers of every box, and of all boxes merged.
    pub(crate) fn check(&self, devices: &Devices, wanted: &[Wanted<'_>]) {
        let found = self.on_device(devices, wanted);
        let found = found.unwrap_or_else(|stop| panic!("{stop:?}: {:?}", self.geometry));
        let expected = self.on_processor(wanted);
        assert_eq!(found.len(), expected.len());
        let what = || format!("{} {:?}", self.data_type, self.geometry);
        for (nth, (found, expected)) in found.iter().zip(&expected).enumerate() {
            for (wanted, (found, expected)) in wanted.iter().zip(found.iter().zip(expected)) {
                let (found, expected) = (finish(found), finish(expected));
                assert_eq!(found, expected, "box {nth} {wanted:?} {}", what());
            }
        }
        for (number, wanted) in wanted.iter().enumerate() {
            let all = |boxes: &[Vec<Found>]| {
                let mut boxes = boxes.iter().map(|found| found[number].clone());
                let first = boxes.next().unwrap();
                finish(&boxes.fold(first, |earlier, later| merge(earlier, &later)))
            };
            assert_eq!(all(&found), all(&expected), "all {wanted:?} {}", what());
        }
    }
}

fn finish(found: &Found) -> Result<Vec<u8>, compute::Error> {
    match found {
        Found::Plain(partial) => partial.finish(),
        Found::Histogram(histogram) => Ok(histogram.finish()),
    }
}

fn merge(mut earlier: Found, later: &Found) -> Found {
    match (&mut earlier, later) {
        (Found::Plain(a), Found::Plain(b)) => a.merge(b),
        (Found::Histogram(a), Found::Histogram(b)) => compute::Merge::merge(a, b),
        _ => panic!("found of one wanted"),
    }
    earlier
}

/// The cells of a box, dense.
fn picked(geometry: &Geometry, decoded: &[u8], size: usize) -> Vec<u8> {
    let shape = geometry.shape();
    let count: u64 = shape.iter().product();
    let mut cells = Vec::new();
    for nth in 0..count {
        let (mut rest, mut at, mut stride) = (nth, 0, 1);
        for axis in (0..shape.len()).rev() {
            let part = geometry.stretches[axis];
            at += (part.start + rest % shape[axis] * part.step) * stride;
            rest /= shape[axis];
            stride *= geometry.inner_shape[axis];
        }
        cells.extend_from_slice(&decoded[at as usize * size..][..size]);
    }
    cells
}

pub(crate) fn plain(reductions: &[Reduction]) -> Vec<Wanted<'static>> {
    reductions.iter().map(|one| Wanted::Plain(*one)).collect()
}
