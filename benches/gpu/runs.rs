//! One reduction of all chunks, on the processor or on a device.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use array::Layout;
use compute::gpu::{
    BoxOf, ChunkPart, Compressed, Failure, Found, Geometry, Gpus, Method, Staged, Stop, Stretch,
    Task, Wanted,
};
use compute::{Block, Combiner, Partial, Reducer, Reduction};

use crate::Error;
use crate::workload::{Data, Stored};

/// Tasks a device does at the same time; more would find it busy.
pub(crate) const LANES: usize = 4;

/// A reduction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) reducer: Reducer,
    /// Over which axes: time, latitude, longitude.
    pub(crate) reduced: [bool; 3],
}

impl Asked {
    /// The reduction and its axes, in words.
    pub(crate) fn name(&self) -> String {
        let axes = ["time", "latitude", "longitude"]
            .into_iter()
            .zip(self.reduced);
        let axes: Vec<&str> = axes
            .filter(|(_, reduced)| *reduced)
            .map(|(name, _)| name)
            .collect();
        let axes = if axes.len() == 3 {
            "everything".to_owned()
        } else {
            axes.join(", ")
        };
        format!("{} over {axes}", self.reducer.name())
    }

    fn reduction(&self) -> Reduction {
        Reduction::new(self.reducer)
    }
}

/// Where a device takes chunks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// From the host, decoded there as far as the device does not do it.
    Host,
    /// From the host, whatever bytes lie there: what the copies cost without decoding. The answer
    /// means nothing.
    Copies,
    /// From its memory, where they were left by a run before.
    Device,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Of these, what the threads took together to stage chunks.
    pub(crate) staging_seconds: f64,
    pub(crate) answer: Vec<u8>,
}

/// The partials of chunks as they come: merged where chunks share kept cells, else one by one.
enum Gathered {
    Merged(Mutex<(Combiner, Option<Partial>)>),
    Each(Mutex<Vec<Vec<u8>>>),
}

impl Gathered {
    fn new(asked: &Asked, chunks: usize) -> Self {
        match asked.reduced[0] {
            true => Self::Merged(Mutex::new((Combiner::new(chunks as u64), None))),
            false => Self::Each(Mutex::new(vec![Vec::new(); chunks])),
        }
    }

    fn take(&self, number: usize, partial: Partial) -> Result<(), Error> {
        match self {
            Self::Merged(merged) => {
                let mut merged = merged.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(all) = merged.0.push(number as u64, partial) {
                    merged.1 = Some(all);
                }
            }
            Self::Each(each) => {
                let bytes = partial.finish()?;
                each.lock().unwrap_or_else(PoisonError::into_inner)[number] = bytes;
            }
        }
        Ok(())
    }

    fn answer(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Merged(merged) => {
                let (_, all) = merged.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok(all.ok_or("chunks are missing")?.finish()?)
            }
            Self::Each(each) => Ok(each
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .concat()),
        }
    }
}

/// Does the parts of some work on so many threads, each part once.
///
/// # Errors
/// One of those of the parts.
pub(crate) fn share(
    threads: usize,
    parts: usize,
    work: impl Fn(usize) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let thread = || -> Result<(), Error> {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return Ok(());
            }
            work(part)?;
        }
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads.clamp(1, parts.max(1)))
            .map(|_| scope.spawn(thread))
            .collect();
        let joined = running.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => Err("a thread panicked".into()),
        });
        joined.collect()
    })
}

/// Reduces on the processor.
pub(crate) fn on_processor(data: &Data, asked: &Asked, threads: usize) -> Result<Outcome, Error> {
    let began = Instant::now();
    let gathered = Gathered::new(asked, data.encoded.len());
    share(threads, data.encoded.len(), |number| {
        let encoded = &data.encoded[number];
        let decoded;
        // What is stored as it is, is not copied to be looked at.
        let mut bytes = encoded.as_slice();
        if !matches!(data.stored, Stored::Plain | Stored::Cf) {
            let mut out = vec![0; data.chunk_bytes()];
            data.codec.decode_into(encoded, &mut out)?;
            decoded = out;
            bytes = &decoded;
        }
        let values;
        let mut data_type = &data.data_type;
        if let Some(decoder) = &data.decoder {
            values = decoder.decode(bytes);
            (bytes, data_type) = (&values, decoder.data_type());
        }
        let block = Block {
            data_type,
            bytes,
            shape: &data.inner_shape,
            reduced: &asked.reduced,
            places: &data.places(number),
            selection_shape: &data.shape(),
        };
        gathered.take(number, Partial::of(asked.reduction(), &block)?)
    })?;
    let answer = gathered.answer()?;
    Ok(Outcome {
        seconds: began.elapsed().as_secs_f64(),
        staging_seconds: 0.0,
        answer,
    })
}

/// Reduces on the first device, in tasks of about so many bytes, so many at a time.
pub(crate) fn on_device(
    gpus: &Gpus,
    data: &Data,
    asked: &Asked,
    from: From,
    task_bytes: usize,
    lanes: usize,
) -> Result<Outcome, Error> {
    let began = Instant::now();
    let chunks = data.encoded.len();
    let gathered = Gathered::new(asked, chunks);
    let staging_nanoseconds = AtomicU64::new(0);
    let geometry = whole(&data.inner_shape, &asked.reduced);
    let wanted = [Wanted::Plain(asked.reduction())];
    let shape = data.shape();
    let each = (task_bytes / data.chunk_bytes().max(1)).max(1);
    share(lanes.min(LANES), chunks.div_ceil(each), |part| {
        let first = part * each;
        let numbers = first..(first + each).min(chunks);
        let boxes: Vec<BoxOf> = numbers
            .map(|number| BoxOf {
                key: (from == From::Device).then(|| data.key(number)),
                places: data.places(number),
            })
            .collect();
        let task = Task {
            data_type: &data.data_type,
            decoder: data.decoder.as_ref(),
            chunk_bytes: data.chunk_bytes(),
            geometry: &geometry,
            selection_shape: &shape,
            wanted: &wanted,
            boxes: &boxes,
        };
        let found = run(gpus, &task, |nth, out| {
            let began = Instant::now();
            let staged = stage(gpus, data, first + nth, out, from);
            let nanoseconds = began.elapsed().as_nanos() as u64;
            staging_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
            staged
        })?;
        for (nth, found) in found.into_iter().enumerate() {
            match found.into_iter().next() {
                Some(Found::Plain(partial)) => gathered.take(first + nth, partial)?,
                _ => return Err("the device found something else".into()),
            }
        }
        Ok(())
    })?;
    let answer = gathered.answer()?;
    Ok(Outcome {
        seconds: began.elapsed().as_secs_f64(),
        staging_seconds: staging_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
        answer,
    })
}

/// All of an inner chunk.
pub(crate) fn whole(inner_shape: &[u64], reduced: &[bool]) -> Geometry {
    let stretch = |&length: &u64| Stretch {
        start: 0,
        step: 1,
        length,
    };
    Geometry {
        inner_shape: inner_shape.to_vec(),
        stretches: inner_shape.iter().map(stretch).collect(),
        reduced: reduced.to_vec(),
    }
}

/// Puts a chunk where the device takes it from: compressed, if the device decompresses.
fn stage(
    gpus: &Gpus,
    data: &Data,
    number: usize,
    out: &mut [u8],
    from: From,
) -> Result<Staged, Error> {
    let element_bytes = data.data_type.size_bytes().unwrap_or(1);
    let length = |layout: &Layout| layout.length_bytes(data.chunk_bytes(), element_bytes);
    let encoded = &data.encoded[number];
    let found = data
        .codec
        .compression(encoded)
        .filter(|_| gpus.decompresses());
    if let Some(found) = found.filter(|_| from != From::Copies) {
        let chunk = Compressed {
            encoded,
            method: match found.method {
                codecs::Method::Zstd => Method::Zstd,
                codecs::Method::Deflate => Method::Deflate,
                codecs::Method::Lz4 => Method::Lz4,
            },
            streams: found.streams.into_iter().map(part).collect(),
            stored: found.stored.into_iter().map(part).collect(),
            length: length(&found.layout),
        };
        let streams = gpus.pack(&chunk, out);
        if streams.is_some() {
            return Ok(Staged {
                length: chunk.length,
                layout: found.layout,
                streams,
            });
        }
    }
    let layout = match from {
        From::Copies => data.layouts[number],
        From::Host | From::Device => data.codec.decode_partly(encoded, out)?,
    };
    Ok(Staged {
        length: length(&layout),
        layout,
        streams: None,
    })
}

fn part(stream: codecs::Stream) -> ChunkPart {
    ChunkPart {
        encoded: stream.encoded,
        decoded: stream.decoded,
    }
}

/// Does a task, waiting while the device is busy.
pub(crate) fn run(
    gpus: &Gpus,
    task: &Task<'_>,
    mut stage: impl FnMut(usize, &mut [u8]) -> Result<Staged, Error>,
) -> Result<Vec<Vec<Found>>, Error> {
    loop {
        match gpus.run_on(0, task, &mut stage) {
            Ok(found) => return Ok(found),
            Err(Stop::Device(Failure::Busy)) => std::thread::yield_now(),
            Err(Stop::Device(failure)) => return Err(failure.into()),
            Err(Stop::Staging(error)) => return Err(error),
        }
    }
}
