//! Inner chunks that a device reduces together.

use std::sync::Arc;

use array::Layout;
use codecs::ArrayCodec;
use compute::gather::AxisPart;
use compute::gpu::{
    BoxOf, ChunkPart, Compressed, Found, Geometry, Gpus, Method, Staged, Stop, Task,
};

use super::job::{Job, Parts, Piece};
use crate::Error;
use crate::devices::{Devices, TASK_BYTES, geometry, wanted};
use crate::engine::Engine;
use crate::measure::Part;

/// Inner chunks whose cells are reduced in the same way, for one device.
pub(super) struct Batch {
    device: usize,
    geometry: Geometry,
    pieces: Vec<(Vec<u64>, Piece, Vec<AxisPart>)>,
}

impl Engine {
    /// The pieces that devices take, in batches, and those that are left for the processor.
    pub(super) fn for_devices(
        &self,
        job: &Arc<Job>,
        pieces: Vec<(Vec<u64>, Piece)>,
    ) -> (Vec<Batch>, Vec<(Vec<u64>, Piece)>) {
        let (Some(gpus), Some(_)) = (self.devices.gpus(), job.device_codec) else {
            return (Vec::new(), pieces);
        };
        let codec = &job.array.codec;
        let most = (TASK_BYTES / job.array.decoded_bytes().max(1)).max(1) as usize;
        let mut batches: Vec<Batch> = Vec::new();
        let mut others = Vec::new();
        for (inner, piece) in pieces {
            let parts = job.plan.parts(&inner);
            let walk = geometry(&parts, codec.inner_shape(), &job.aggregation.roles);
            let (Some(geometry), Piece::Encoded(..) | Piece::Decoded(..)) = (walk, &piece) else {
                others.push((inner, piece));
                continue;
            };
            let device = job.key(&piece).map_or(0, |key| gpus.device_of(&key));
            let open = batches.iter_mut().find(|batch| {
                batch.device == device && batch.geometry == geometry && batch.pieces.len() < most
            });
            match open {
                Some(batch) => batch.pieces.push((inner, piece, parts)),
                None => batches.push(Batch {
                    device,
                    geometry,
                    pieces: vec![(inner, piece, parts)],
                }),
            }
        }
        (batches, others)
    }
}

impl Job {
    /// What a device knows an inner chunk by.
    fn key(&self, piece: &Piece) -> Option<compute::gpu::Key> {
        match (piece, self.device_codec) {
            (Piece::Encoded(_, hash) | Piece::Decoded(_, hash), Some(codec)) => {
                Some((*hash, codec))
            }
            _ => None,
        }
    }

    /// Has a device measure inner chunks; where it cannot, the processor does.
    pub(super) fn take_batch(&self, devices: &Devices, batch: &Batch) -> Result<(), Error> {
        let found = match self.on_device(devices, batch) {
            Ok(found) => found,
            Err(Stop::Staging(error)) => return Err(error),
            // Counted where it happened, but for what no kernel does.
            Err(Stop::Device(_)) => {
                let mut scratch = Vec::new();
                return batch
                    .pieces
                    .iter()
                    .try_for_each(|(inner, piece, _)| self.take(inner, piece, &[], &mut scratch));
            }
        };
        for ((inner, _, parts), found) in batch.pieces.iter().zip(found) {
            let found: Parts = found.into_iter().map(part).collect();
            let (tile, number, count) = self.place(inner, &[]);
            self.add((&tile, number, count), parts, found)?;
        }
        Ok(())
    }

    fn on_device(&self, devices: &Devices, batch: &Batch) -> Result<Vec<Vec<Found>>, Stop<Error>> {
        let unsupported = || Stop::Device(compute::gpu::Failure::Unsupported);
        let gpus = devices.gpus().ok_or_else(unsupported)?;
        let wanted = wanted(&self.aggregation.measures).ok_or_else(unsupported)?;
        let boxes: Vec<BoxOf> = batch
            .pieces
            .iter()
            .map(|(_, piece, parts)| BoxOf {
                key: self.key(piece),
                places: parts.iter().map(|part| part.target.clone()).collect(),
            })
            .collect();
        let task = Task {
            data_type: &self.array.metadata().data_type,
            decoder: self.decoder.as_ref(),
            chunk_bytes: self.array.codec.decoded_bytes(),
            geometry: &batch.geometry,
            selection_shape: &self.selected,
            wanted: &wanted,
            boxes: &boxes,
        };
        gpus.run_on(batch.device, &task, |nth, out| {
            let (inner, piece, _) = &batch.pieces[nth];
            self.stage(gpus, inner, piece, out)
        })
    }

    /// Puts an inner chunk where a device takes it from, decoded as far as neither kernels nor nvCOMP
    /// do it.
    fn stage(
        &self,
        gpus: &Gpus,
        inner: &[u64],
        piece: &Piece,
        out: &mut [u8],
    ) -> Result<Staged, Error> {
        let codec = &self.array.codec;
        match piece {
            Piece::Encoded(bytes, _) => {
                if let Some(staged) = compressed(gpus, codec, bytes, out) {
                    return Ok(staged);
                }
                let layout = codec.decode_partly(bytes, out);
                let layout = layout.map_err(|error| self.corrupt(inner, error))?;
                let element_bytes = codec.data_type().size_bytes().unwrap_or(1);
                let length = layout.length_bytes(codec.decoded_bytes(), element_bytes);
                Ok(Staged {
                    length,
                    layout,
                    streams: None,
                })
            }
            Piece::Decoded(bytes, _) if bytes.len() == out.len() => {
                out.copy_from_slice(bytes);
                Ok(Staged {
                    length: out.len(),
                    layout: Layout::ELEMENTS,
                    streams: None,
                })
            }
            Piece::Decoded(..) | Piece::Fill | Piece::Missing => Err(Error::Cancelled),
        }
    }
}

/// Puts the compressed streams of an inner chunk where a device takes them from; `None` if it is for the
/// processor to decompress them.
fn compressed(gpus: &Gpus, codec: &ArrayCodec, encoded: &[u8], out: &mut [u8]) -> Option<Staged> {
    if !gpus.decompresses() {
        return None;
    }
    let found = codec.compression(encoded)?;
    let method = match found.method {
        codecs::Method::Zstd => Method::Zstd,
        codecs::Method::Lz4 => Method::Lz4,
        codecs::Method::Deflate => return None,
    };
    // No device looks at checksums.
    if found.streams.iter().any(|stream| stream.checksum.is_some()) {
        return None;
    }
    let parts = |streams: Vec<codecs::Stream>| {
        let parts = streams.into_iter().map(|stream| ChunkPart {
            encoded: stream.encoded,
            decoded: stream.decoded,
        });
        parts.collect()
    };
    let element_bytes = codec.data_type().size_bytes()?;
    let length = found
        .layout
        .length_bytes(codec.decoded_bytes(), element_bytes);
    let chunk = Compressed {
        encoded,
        method,
        streams: parts(found.streams),
        stored: parts(found.stored),
        length,
    };
    Some(Staged {
        length,
        layout: found.layout,
        streams: Some(gpus.pack(&chunk, out)?),
    })
}

fn part(found: Found) -> Part {
    match found {
        Found::Plain(partial) => Part::Plain(partial),
        Found::Histogram(histogram) => Part::Histogram(histogram),
    }
}
