//! One stream of a device with its memory: what does one task after the other.
//!
//! ```text
//! stage 0 │ copy 0
//!         │ stage 1 │ copy 1
//!                   │ …       │ kernels │ results │
//! ```
//!
//! A chunk is copied while the next one is decoded; the lanes of a device do the same beside each
//! other. Chunks that come compressed are decompressed between the copies and the kernels (`expand.rs`).
//! Launches that come again, with the same memory, become a graph.

use std::sync::Arc;

use array::Layout;
use cudarc::driver::{CudaContext, CudaStream};

use super::accumulators::{Found, Wanted, needed, partial};
use super::cache::{Key, Resident};
use super::device::{Device, Stop};
use super::driver::{self, DeviceMemory, Graph, Launch, Pinned};
use super::error::Failure;
use super::expand::{Expander, Packed};
use super::memory::{Places, Span};
use super::plan::{Arena, Outline};
use super::streams::Streams;
use super::task::{Staged, Task};
use crate::histogram::Histogram;

/// Most bytes of the host that one lane stages chunks in.
pub(super) const STAGING_BYTES_MAX: usize = 256 << 20;
/// Memory is taken in steps of this, so that tasks of about the same size find it there.
pub(super) const STEP_BYTES: usize = 4 << 20;
/// What lies between the places of chunks that have several layouts.
const GAPS_BYTES: usize = 64 << 10;
/// Most graphs a lane keeps.
const GRAPHS: usize = 8;

/// A stream and its memory.
#[derive(Debug)]
pub(super) struct Lane {
    stream: Arc<CudaStream>,
    pinned: Option<Pinned>,
    memory: Option<DeviceMemory>,
    expander: Expander,
    /// Launches that came before, and their graph if they came twice.
    graphs: Vec<(Vec<Launch>, Option<Graph>)>,
}

/// An inner chunk of a task.
enum Chunk {
    /// It was on the device.
    Resident(Resident),
    /// It was copied to memory of its own, and may stay there.
    Kept(Key, Resident),
    /// It was copied to the arena.
    Passing { address: u64, layout: Layout },
    /// It is decompressed to memory of its own, and goes with the task: its place in the arena has its
    /// streams.
    Expanded {
        memory: DeviceMemory,
        layout: Layout,
    },
}

impl Chunk {
    fn address(&self) -> u64 {
        match self {
            Self::Resident(chunk) | Self::Kept(_, chunk) => chunk.memory.address(),
            Self::Passing { address, .. } => *address,
            Self::Expanded { memory, .. } => memory.address(),
        }
    }

    fn layout(&self) -> Layout {
        match self {
            Self::Resident(chunk) | Self::Kept(_, chunk) => chunk.layout,
            Self::Passing { layout, .. } | Self::Expanded { layout, .. } => *layout,
        }
    }
}

/// Boxes whose chunks have one layout.
struct Group<'a> {
    layout: Layout,
    boxes: Vec<usize>,
    outline: Outline<'a>,
    arena: Arena,
}

impl Lane {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, Failure> {
        Ok(Self {
            stream: context.new_stream()?,
            pinned: None,
            memory: None,
            expander: Expander::default(),
            graphs: Vec::new(),
        })
    }

    /// Bytes of the device it holds.
    pub(super) fn bytes(&self) -> usize {
        self.arena_bytes() + self.expander.bytes()
    }

    fn arena_bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, DeviceMemory::bytes)
    }

    /// Gives its memory back.
    pub(super) fn clear(&mut self) {
        (self.pinned, self.memory) = (None, None);
        self.expander = Expander::default();
        self.graphs.clear();
    }

    /// Does a task: for each box, what was found for each that was wanted. `stage` puts the chunk of
    /// a box where the device takes it from.
    pub(super) fn run<E>(
        &mut self,
        device: &Device,
        task: &Task<'_>,
        stage: &mut impl FnMut(usize, &mut [u8]) -> Result<Staged, E>,
    ) -> Result<Vec<Vec<Found>>, Stop<E>> {
        // Not dropped before the stream was waited for: kernels may read them.
        let mut chunks = Vec::new();
        let done = self.try_run(device, task, stage, &mut chunks);
        if done.is_err() {
            // What was started still reads and writes the lane's memory.
            self.stream.synchronize().map_err(Failure::from)?;
        }
        done
    }

    fn try_run<E>(
        &mut self,
        device: &Device,
        task: &Task<'_>,
        stage: &mut impl FnMut(usize, &mut [u8]) -> Result<Staged, E>,
        chunks: &mut Vec<Chunk>,
    ) -> Result<Vec<Vec<Found>>, Stop<E>> {
        let outline = Outline::new(task).ok_or(Failure::Unsupported)?;
        let known: Vec<Option<Resident>> = task
            .boxes
            .iter()
            .map(|one| device.resident(one.key.as_ref()))
            .collect();
        let missing = known.iter().filter(|known| known.is_none()).count();
        let mut places = Places::default();
        let inputs: Vec<Span> = (0..missing)
            .map(|_| places.take(task.chunk_bytes))
            .collect::<Option<_>>()
            .ok_or(Failure::Unsupported)?;
        // With one layout, what is usual, these are all places.
        let mut one = places;
        outline.arena(&mut one).ok_or(Failure::Unsupported)?;
        let room = one.bytes() + GAPS_BYTES;
        self.reserve(device, room)?;
        let packed = self.bring_in(device, task, known, &inputs, stage, chunks)?;
        let started = self.expander.start(device, &self.stream, &packed)?;
        let mut groups = groups(&outline, chunks)?;
        for group in &mut groups {
            let arena = group.outline.arena(&mut places);
            group.arena = arena.ok_or(Failure::Unsupported)?;
        }
        if places.bytes() > room {
            // The chunks are in the arena already: it cannot grow any more.
            return Err(Failure::Unsupported.into());
        }
        self.start(device, chunks, &groups)?;
        self.stream.synchronize().map_err(Failure::from)?;
        // Before anything that was found is looked at, or a chunk is kept.
        self.expander.check(&started)?;
        for chunk in chunks.drain(..) {
            if let Chunk::Kept(key, resident) = chunk {
                device.keep(key, resident);
            }
        }
        Ok(self.results(task, &groups)?)
    }

    /// Copies the chunks that are not on the device to it; those that are compressed come apart.
    fn bring_in<E>(
        &mut self,
        device: &Device,
        task: &Task<'_>,
        known: Vec<Option<Resident>>,
        inputs: &[Span],
        stage: &mut impl FnMut(usize, &mut [u8]) -> Result<Staged, E>,
        chunks: &mut Vec<Chunk>,
    ) -> Result<Vec<Packed>, Stop<E>> {
        let mut inputs = inputs.iter();
        let mut compressed = Vec::new();
        for (nth, known) in known.into_iter().enumerate() {
            if let Some(resident) = known {
                chunks.push(Chunk::Resident(resident));
                continue;
            }
            let (Some(span), Some(pinned), Some(memory)) =
                (inputs.next(), &mut self.pinned, &self.memory)
            else {
                return Err(Failure::Unsupported.into());
            };
            let place = &mut pinned.as_mut_slice()[span.start..span.start + span.bytes];
            let staged = stage(nth, place).map_err(Stop::Staging)?;
            let place = memory.address() + span.start as u64;
            let chunk = room_for(
                device,
                &self.stream,
                task.boxes[nth].key,
                &staged,
                span,
                place,
            )?;
            match staged.streams {
                None => {
                    let from = span.part(&(0..staged.length.min(span.bytes)));
                    driver::copy_in(&self.stream, pinned, from, chunk.address())?;
                    device.copied(from.bytes);
                }
                Some(streams) => {
                    if streams.length() != staged.length || streams.staged_bytes() > span.bytes {
                        return Err(Failure::Unsupported.into());
                    }
                    copy_parts(&self.stream, pinned, &streams, span, place, chunk.address())?;
                    device.copied(streams.staged_bytes());
                    compressed.push(Packed {
                        streams,
                        input: place,
                        output: chunk.address(),
                    });
                }
            }
            chunks.push(chunk);
        }
        Ok(compressed)
    }

    /// Starts the kernels and the copies of their results.
    fn start(
        &mut self,
        device: &Device,
        chunks: &[Chunk],
        groups: &[Group<'_>],
    ) -> Result<(), Failure> {
        let (Some(pinned), Some(memory)) = (&mut self.pinned, &self.memory) else {
            return Err(Failure::Unsupported);
        };
        let base = memory.address();
        let mut launches = Vec::new();
        for group in groups {
            let arena = &group.arena;
            let addresses = group.boxes.iter().map(|&nth| chunks[nth].address());
            put(pinned, arena.addresses, addresses.map(u64::to_le_bytes));
            driver::copy_in(
                &self.stream,
                pinned,
                arena.addresses,
                base + arena.addresses.start as u64,
            )?;
            for (bins, &span) in group.outline.histograms.iter().zip(&arena.edges) {
                put(
                    pinned,
                    span,
                    bins.edges().iter().map(|edge| edge.to_le_bytes()),
                );
                driver::copy_in(&self.stream, pinned, span, base + span.start as u64)?;
            }
            for &span in &arena.counts {
                driver::clear(&self.stream, base + span.start as u64, span.bytes)?;
            }
            let layout = group.outline.layout(&group.layout);
            let layout = layout.ok_or(Failure::Unsupported)?;
            launches.extend(
                group
                    .outline
                    .launches(device.kernels(), &layout, arena, base)?,
            );
        }
        device.launched(launches.len());
        self.launch(device, launches)?;
        let (Some(pinned), Some(memory)) = (&mut self.pinned, &self.memory) else {
            return Err(Failure::Unsupported);
        };
        for group in groups {
            for &span in group.arena.found.iter().chain(&group.arena.counts) {
                driver::copy_out(
                    &self.stream,
                    pinned,
                    span,
                    memory.address() + span.start as u64,
                )?;
            }
        }
        Ok(())
    }

    /// Starts launches; those that come a second time become a graph.
    fn launch(&mut self, device: &Device, launches: Vec<Launch>) -> Result<(), Failure> {
        let is_same = |known: &Vec<Launch>| {
            known.len() == launches.len() && known.iter().zip(&launches).all(|(a, b)| a.is_same(b))
        };
        let known = self.graphs.iter_mut().find(|(known, _)| is_same(known));
        match known {
            Some((_, Some(graph))) => {
                device.replayed();
                graph.launch(&self.stream)
            }
            Some((_, none)) => {
                let graph = Graph::new(self.stream.context(), &launches)?;
                graph.launch(&self.stream)?;
                *none = Some(graph);
                Ok(())
            }
            None => {
                launches
                    .iter()
                    .try_for_each(|launch| launch.run(&self.stream))?;
                if self.graphs.len() == GRAPHS {
                    self.graphs.remove(0);
                }
                self.graphs.push((launches, None));
                Ok(())
            }
        }
    }

    /// What was found, by box, from the results on the host.
    fn results(&self, task: &Task<'_>, groups: &[Group<'_>]) -> Result<Vec<Vec<Found>>, Failure> {
        let bytes = self.pinned.as_ref().map_or(&[][..], Pinned::as_slice);
        let mut found: Vec<Vec<Found>> = vec![Vec::new(); task.boxes.len()];
        for group in groups {
            for (place, &nth) in group.boxes.iter().enumerate() {
                found[nth] = of_box(task, group, bytes, place, nth)?;
            }
        }
        Ok(found)
    }

    /// Has so many bytes, here and on the device.
    fn reserve(&mut self, device: &Device, bytes: usize) -> Result<(), Failure> {
        if bytes > STAGING_BYTES_MAX {
            return Err(Failure::Unsupported);
        }
        let bytes = bytes.next_multiple_of(STEP_BYTES);
        if self
            .pinned
            .as_ref()
            .is_none_or(|pinned| pinned.bytes() < bytes)
        {
            self.pinned = None;
            self.pinned = Some(Pinned::new(self.stream.context(), bytes)?);
        }
        if self.arena_bytes() < bytes {
            // Graphs know the memory by its address.
            self.graphs.clear();
            self.memory = None;
            self.memory = Some(device.take(&self.stream, bytes)?);
        }
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Nothing may still use the memory when it goes.
        let _ = self.stream.synchronize();
    }
}

/// Where a chunk that was staged in `span` goes to, on a device where its place is at `place`.
fn room_for(
    device: &Device,
    stream: &Arc<CudaStream>,
    key: Option<Key>,
    staged: &Staged,
    span: &Span,
    place: u64,
) -> Result<Chunk, Failure> {
    let layout = staged.layout;
    let bytes = staged.length.min(span.bytes);
    let own = key.and_then(|key| Some((key, device.room(stream, bytes)?)));
    Ok(match own {
        Some((key, memory)) => {
            let memory = Arc::new(memory);
            Chunk::Kept(key, Resident { memory, layout })
        }
        None if staged.streams.is_some() => Chunk::Expanded {
            memory: device.take(stream, bytes)?,
            layout,
        },
        None => Chunk::Passing {
            address: place,
            layout,
        },
    })
}

/// Starts to copy what was staged of a compressed chunk: its streams to `place`, and what is stored to
/// where it belongs in the chunk.
fn copy_parts(
    stream: &CudaStream,
    pinned: &Pinned,
    streams: &Streams,
    span: &Span,
    place: u64,
    chunk: u64,
) -> Result<(), Failure> {
    let packed = span.part(&(0..streams.stream_bytes()));
    driver::copy_in(stream, pinned, packed, place)?;
    streams.stored().iter().try_for_each(|part| {
        let to = chunk + part.decoded.start as u64;
        driver::copy_in(stream, pinned, span.part(&part.encoded), to)
    })
}

/// What was found of a box, which is the `place`-th of its group.
fn of_box(
    task: &Task<'_>,
    group: &Group<'_>,
    bytes: &[u8],
    place: usize,
    nth: usize,
) -> Result<Vec<Found>, Failure> {
    let outline = &group.outline;
    let cells = outline.walk.params.cells as usize;
    let part = |span: &Span, each: usize| {
        let start = span.start + place * cells * each;
        &bytes[start..start + cells * each]
    };
    let mut counts = outline.histograms.iter().zip(&group.arena.counts);
    let each = task.wanted.iter().map(|wanted| match wanted {
        Wanted::Plain(reduction) => {
            let kinds = needed(reduction, task.measured()).ok_or(Failure::Unsupported)?;
            let accumulators = kinds.iter().map(|kind| {
                let at = outline.accumulators.iter().position(|other| other == kind);
                let at = at.ok_or(Failure::Unsupported)?;
                Ok(part(&group.arena.found[at], kind.0.bytes()))
            });
            let accumulators: Vec<&[u8]> = accumulators.collect::<Result<_, Failure>>()?;
            let places = &task.boxes[nth].places;
            let partial = partial(
                *reduction,
                task.measured(),
                task.geometry,
                places,
                task.selection_shape,
                &accumulators,
            )?;
            Ok(Found::Plain(partial))
        }
        Wanted::Histogram(_) => {
            let (bins, span) = counts.next().ok_or(Failure::Unsupported)?;
            let words = part(span, 8 * bins.len()).chunks_exact(8);
            let counts = words.map(bytemuck::pod_read_unaligned);
            Ok(Found::Histogram(Histogram::of_parts(counts.collect())))
        }
    });
    each.collect()
}

/// The chunks by layout; there is one, but for chunks whose encoders thought differently of them.
fn groups<'a>(outline: &Outline<'a>, chunks: &[Chunk]) -> Result<Vec<Group<'a>>, Failure> {
    let mut layouts: Vec<(Layout, Vec<usize>)> = Vec::new();
    for (nth, chunk) in chunks.iter().enumerate() {
        let layout = chunk.layout();
        match layouts.iter_mut().find(|(known, _)| *known == layout) {
            Some((_, boxes)) => boxes.push(nth),
            None => layouts.push((layout, vec![nth])),
        }
    }
    let groups = layouts.into_iter().map(|(layout, boxes)| {
        let outline = outline.of_boxes(boxes.len()).ok_or(Failure::Unsupported)?;
        Ok(Group {
            layout,
            boxes,
            outline,
            arena: Arena::default(),
        })
    });
    groups.collect()
}

/// Writes words to a place, from its first byte on.
pub(super) fn put(pinned: &mut Pinned, span: Span, words: impl Iterator<Item = [u8; 8]>) {
    let place = &mut pinned.as_mut_slice()[span.start..span.start + span.bytes];
    for (slot, word) in place.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word);
    }
}
