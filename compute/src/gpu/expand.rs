//! Decompression on a device: the streams of all chunks of a task, in one call for each method.
//!
//! ```text
//! tables ──copy──► tables ─┐              ┌─► chunks ─► kernels
//! chunks ──copy──► arena ──┴─► nvCOMP ────┴─► written, statuses ──copy──► check
//! ```
//!
//! Nothing waits: kernels are started behind it, and [`Expander::check`] says after all of it whether what
//! they found is worth anything. A stream that was not decompressed leaves any bytes in its chunk, which
//! harm no kernel.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::device::Device;
use super::driver::{self, DeviceMemory, Pinned};
use super::error::Failure;
use super::lane::{STAGING_BYTES_MAX, STEP_BYTES, put};
use super::memory::{Places, Span};
use super::nvcomp::{Batch, Method};
use super::streams::Streams;

/// What a lane decompresses in.
#[derive(Debug, Default)]
pub(super) struct Expander {
    tables: Option<Pinned>,
    memory: Option<DeviceMemory>,
}

/// A chunk whose streams were copied to the device.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) streams: Streams,
    /// Address of the first staged byte.
    pub(super) input: u64,
    /// Address of the chunk; there is room for all of it.
    pub(super) output: u64,
}

/// Streams that nvCOMP was given, to be checked.
#[derive(Debug, Default)]
pub(super) struct Started(Vec<Group>);

/// All streams of one method.
#[derive(Debug)]
struct Group {
    method: Method,
    items: Vec<Item>,
    tables: Tables,
}

/// One stream: addresses and sizes of what it is and of what it decodes to.
#[derive(Clone, Copy, Debug)]
struct Item {
    input: u64,
    input_bytes: u64,
    output: u64,
    output_bytes: u64,
}

/// What nvCOMP is told of a group and tells of it, in the words of [`Batch`]; the same places on the
/// host and on the device.
#[derive(Clone, Copy, Debug)]
struct Tables {
    inputs: Span,
    input_bytes: Span,
    outputs: Span,
    output_bytes: Span,
    written: Span,
    statuses: Span,
}

impl Expander {
    /// Bytes of the device it holds.
    pub(super) fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, DeviceMemory::bytes)
    }

    /// Starts to decompress chunks in the order of `stream`, whose copies of them were started.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`] if the device has not what nvCOMP needs, [`Failure::Undecoded`] if nvCOMP
    /// refuses; what was started before must be waited for.
    pub(super) fn start(
        &mut self,
        device: &Device,
        stream: &Arc<CudaStream>,
        chunks: &[Packed],
    ) -> Result<Started, Failure> {
        if chunks.is_empty() {
            return Ok(Started::default());
        }
        let mut places = Places::default();
        let groups = groups(chunks, &mut places).ok_or(Failure::Unsupported)?;
        let tables = Span {
            start: 0,
            bytes: places.bytes(),
        };
        let needed = groups.iter().map(|group| group.temp_bytes(device, stream));
        let needed = needed.collect::<Result<Vec<_>, _>>()?;
        // The groups take turns.
        let temp = places.take(needed.into_iter().max().unwrap_or(0));
        let temp = temp.ok_or(Failure::OutOfMemory)?;
        self.reserve(device, stream, tables.bytes, places.bytes())?;
        let (Some(pinned), Some(memory)) = (&mut self.tables, &self.memory) else {
            return Err(Failure::Unsupported);
        };
        groups.iter().for_each(|group| group.write(pinned));
        let base = memory.address();
        driver::copy_in(stream, pinned, tables, base)?;
        for group in &groups {
            group.start(device, stream, base, temp)?;
            let outcome = group.tables.outcome();
            driver::copy_out(stream, pinned, outcome, base + outcome.start as u64)?;
            device.decompressed(group.items.iter().map(|item| item.output_bytes).sum());
        }
        Ok(Started(groups))
    }

    /// Whether all was decompressed, after the stream was waited for.
    ///
    /// # Errors
    /// [`Failure::Undecoded`] if something was not.
    pub(super) fn check(&self, started: &Started) -> Result<(), Failure> {
        let bytes = self.tables.as_ref().map_or(&[][..], Pinned::as_slice);
        started.0.iter().try_for_each(|group| group.check(bytes))
    }

    /// Has so many bytes for tables, and so many on the device.
    fn reserve(
        &mut self,
        device: &Device,
        stream: &Arc<CudaStream>,
        on_host: usize,
        bytes: usize,
    ) -> Result<(), Failure> {
        if on_host > STAGING_BYTES_MAX {
            return Err(Failure::Unsupported);
        }
        if self
            .tables
            .as_ref()
            .is_none_or(|tables| tables.bytes() < on_host)
        {
            self.tables = None;
            let on_host = on_host.next_power_of_two();
            self.tables = Some(Pinned::new(stream.context(), on_host)?);
        }
        if self.bytes() < bytes {
            self.memory = None;
            let bytes = bytes.checked_next_multiple_of(STEP_BYTES);
            let bytes = bytes.ok_or(Failure::OutOfMemory)?;
            self.memory = Some(device.take(stream, bytes)?);
        }
        Ok(())
    }
}

impl Group {
    /// Memory that nvCOMP needs for it.
    #[expect(unsafe_code, reason = "nvCOMP is a library in C")]
    fn temp_bytes(&self, device: &Device, stream: &CudaStream) -> Result<usize, Failure> {
        let nvcomp = device.nvcomp().ok_or(Failure::Unsupported)?;
        let sizes = self.items.iter().map(|item| item.output_bytes as usize);
        let (max, total) = (sizes.clone().max().unwrap_or(0), sizes.sum());
        stream.context().bind_to_thread()?;
        // SAFETY: the stream is borrowed, and its context was just made the current one.
        let bytes = unsafe {
            nvcomp.temp_bytes(
                self.method,
                self.items.len(),
                max,
                total,
                stream.cu_stream(),
            )
        };
        bytes.ok_or(Failure::Undecoded { status: 0 })
    }

    /// Writes the tables, and an outcome that is none.
    fn write(&self, pinned: &mut Pinned) {
        let tables = &self.tables;
        let mut column = |span, of: fn(&Item) -> u64| {
            put(
                pinned,
                span,
                self.items.iter().map(|item| of(item).to_le_bytes()),
            );
        };
        column(tables.inputs, |item| item.input);
        column(tables.input_bytes, |item| item.input_bytes);
        column(tables.outputs, |item| item.output);
        column(tables.output_bytes, |item| item.output_bytes);
        let outcome = tables.outcome();
        pinned.as_mut_slice()[outcome.start..outcome.start + outcome.bytes].fill(0xff);
    }

    #[expect(unsafe_code, reason = "nvCOMP is a library in C")]
    fn start(
        &self,
        device: &Device,
        stream: &CudaStream,
        base: u64,
        temp: Span,
    ) -> Result<(), Failure> {
        let nvcomp = device.nvcomp().ok_or(Failure::Unsupported)?;
        let at = |span: Span| base + span.start as u64;
        let batch = Batch {
            count: self.items.len(),
            inputs: at(self.tables.inputs),
            input_bytes: at(self.tables.input_bytes),
            outputs: at(self.tables.outputs),
            output_bytes: at(self.tables.output_bytes),
            written_bytes: at(self.tables.written),
            statuses: at(self.tables.statuses),
            temp: if temp.bytes == 0 { 0 } else { at(temp) },
            temp_bytes: temp.bytes,
        };
        stream.context().bind_to_thread()?;
        // SAFETY: the stream is borrowed, and its context was just made the current one. The tables were
        // copied before this and lie side by side (`groups`), in memory that the expander has until it
        // is asked for more, after the lane waited for the stream. Streams are inside what was staged
        // and copied, outputs inside their chunks, aligned, and none overlaps another: the invariant of
        // `Streams`, and what `Lane::bring_in` checks. That a compressor wrote them is what
        // `Settings::decompresses` is about.
        let started = unsafe { nvcomp.decompress(self.method, &batch, stream.cu_stream()) };
        started.map_err(|refused| Failure::Undecoded { status: refused.0 })
    }

    fn check(&self, bytes: &[u8]) -> Result<(), Failure> {
        let part = |span: Span| &bytes[span.start..span.start + span.bytes];
        let written = part(self.tables.written).chunks_exact(8);
        let written = written.map(bytemuck::pod_read_unaligned::<u64>);
        let statuses = part(self.tables.statuses).chunks_exact(4);
        let statuses = statuses.map(bytemuck::pod_read_unaligned::<i32>);
        let mut outcomes = self.items.iter().zip(written).zip(statuses);
        let wrong = outcomes
            .find(|((item, written), status)| *status != 0 || item.output_bytes != *written);
        match wrong {
            Some((_, status)) => Err(Failure::Undecoded { status }),
            None => Ok(()),
        }
    }
}

impl Tables {
    fn take(places: &mut Places, count: usize) -> Option<Self> {
        let words = count.checked_mul(8)?;
        Some(Self {
            inputs: places.take(words)?,
            input_bytes: places.take(words)?,
            outputs: places.take(words)?,
            output_bytes: places.take(words)?,
            written: places.take(words)?,
            statuses: places.take(words / 2)?,
        })
    }

    /// What nvCOMP tells.
    fn outcome(&self) -> Span {
        let end = self.statuses.start + self.statuses.bytes;
        Span {
            start: self.written.start,
            bytes: end - self.written.start,
        }
    }
}

/// The streams of all chunks by their method, with places for their tables.
fn groups(chunks: &[Packed], places: &mut Places) -> Option<Vec<Group>> {
    let mut methods: Vec<(Method, Vec<Item>)> = Vec::new();
    for chunk in chunks {
        let items = chunk.streams.streams().iter().map(|part| Item {
            input: chunk.input + part.encoded.start as u64,
            input_bytes: part.encoded.len() as u64,
            output: chunk.output + part.decoded.start as u64,
            output_bytes: part.decoded.len() as u64,
        });
        let method = chunk.streams.method();
        match methods.iter_mut().find(|(known, _)| *known == method) {
            Some((_, all)) => all.extend(items),
            None => methods.push((method, items.collect())),
        }
    }
    let groups = methods.into_iter().map(|(method, items)| {
        Some(Group {
            tables: Tables::take(places, items.len())?,
            method,
            items,
        })
    });
    groups.collect()
}
