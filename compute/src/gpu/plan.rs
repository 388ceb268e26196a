//! From a task to launches of kernels: what is where, what runs after what. Starts nothing.

use array::DataType;

use super::accumulators::{Kind, Wanted, needed};
use super::driver::Launch;
use super::error::Failure;
use super::kernels::{Kernels, module_of};
use super::memory::{Places, Span};
use super::params::{
    CfParams, Fold, HistogramParams, LayoutParams, Means, Reduce, Rules, SHARED_BINS, THREADS,
};
use super::task::Task;
use super::walk::Walk;
use crate::histogram::Bins;

/// Elements that one block counts into a histogram.
const PER_BLOCK: u32 = 16 * 1024;

/// What kernels fill for a task, each once, whatever wants it.
#[derive(Clone, Debug)]
pub(super) struct Outline<'a> {
    pub(super) walk: Walk,
    module: &'static str,
    cf: CfParams,
    /// Accumulators, a square after the sum it takes its means from.
    pub(super) accumulators: Vec<(Kind, Rules)>,
    pub(super) histograms: Vec<&'a Bins>,
    element_bytes: usize,
    chunk_bytes: usize,
}

/// Where a task has its things: in the memory of the device, and the results on the host too.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    /// Addresses of the inner chunks, one a box.
    pub(super) addresses: Span,
    /// Edges of each histogram.
    pub(super) edges: Vec<Span>,
    parts: Span,
    means: Span,
    /// Of each accumulator, for each box and kept cell.
    pub(super) found: Vec<Span>,
    /// Of each histogram, for each box, kept cell and bin.
    pub(super) counts: Vec<Span>,
}

impl<'a> Outline<'a> {
    /// What a task needs; `None` if kernels do not do it.
    pub(super) fn new(task: &Task<'a>) -> Option<Self> {
        let measured: &DataType = task.measured();
        let mut accumulators: Vec<(Kind, Rules)> = Vec::new();
        let mut histograms = Vec::new();
        for wanted in task.wanted {
            match wanted {
                Wanted::Plain(reduction) => {
                    for one in needed(reduction, measured)? {
                        if !accumulators.contains(&one) {
                            accumulators.push(one);
                        }
                    }
                }
                Wanted::Histogram(bins) => histograms.push(*bins),
            }
        }
        Some(Self {
            walk: Walk::new(task.geometry, task.boxes.len())?,
            module: module_of(task.stored())?,
            cf: task.cf()?,
            accumulators,
            histograms,
            element_bytes: task.data_type.size_bytes()?,
            chunk_bytes: task.chunk_bytes,
        })
    }

    /// Takes the places of all that belongs to it, results last; `None` if they are too many bytes.
    pub(super) fn arena(&self, places: &mut Places) -> Option<Arena> {
        let boxes = self.walk.params.boxes as usize;
        let size = |count: u64, bytes: usize| usize::try_from(count).ok()?.checked_mul(bytes);
        let widest = self.accumulators.iter().map(|(kind, _)| kind.bytes());
        let parts = match self.folds() {
            true => size(self.walk.parts(), widest.max().unwrap_or(0))?,
            false => 0,
        };
        let edges = self.histograms.iter();
        let edges = edges.map(|bins| places.take(size_of_val(bins.edges())));
        let (edges, addresses) = (edges.collect::<Option<_>>()?, places.take(8 * boxes)?);
        let (parts, means) = (
            places.take(parts)?,
            places.take(size(self.walk.cells(), 8)?)?,
        );
        let accumulators = self.accumulators.iter();
        let found =
            accumulators.map(|(kind, _)| places.take(size(self.walk.cells(), kind.bytes())?));
        let found = found.collect::<Option<_>>()?;
        let histograms = self.histograms.iter();
        let counts = histograms.map(|bins| {
            let counts = self.walk.cells().checked_mul(bins.len() as u64)?;
            places.take(size(counts, 8)?)
        });
        let counts = counts.collect::<Option<_>>()?;
        Some(Arena {
            addresses,
            edges,
            parts,
            means,
            found,
            counts,
        })
    }

    /// Whether something is left to do after the kernels that walk.
    fn folds(&self) -> bool {
        self.walk.has_runs && (self.walk.params.turns > 1 || self.walk.parts_of_run() > 1)
    }

    /// The launches, in their order, for chunks of one layout; `base` is the address of the arena.
    pub(super) fn launches(
        &self,
        kernels: &Kernels,
        layout: &LayoutParams,
        arena: &Arena,
        base: u64,
    ) -> Result<Vec<Launch>, Failure> {
        let at = |span: &Span| base + span.start as u64;
        let mut launches = Vec::new();
        for (&(kind, rules), found) in self.accumulators.iter().zip(&arena.found) {
            let [runs, singles, fold_runs, fold_parts] = kind.kernels();
            let means = match kind {
                Kind::Square => {
                    launches.push(self.means(kernels, arena, rules, base)?);
                    at(&arena.means)
                }
                _ => 0,
            };
            let first_out = match self.folds() {
                true => at(&arena.parts),
                false => at(found),
            };
            let params = Reduce {
                chunks: at(&arena.addresses),
                found: first_out,
                means,
                layout: *layout,
                cf: self.cf,
                rules,
                walk: self.walk.params,
            };
            let name = if self.walk.has_runs { runs } else { singles };
            let function = kernels.get(self.module, name)?;
            let count = blocks(self.walk.blocks().saturating_mul(u64::from(THREADS)))?;
            launches.push(Launch::new(function, (count, 1), &params));
            if self.folds() {
                let fold = Fold {
                    parts: at(&arena.parts),
                    found: at(found),
                    cells: self.walk.cells(),
                    turns: self.walk.params.turns,
                    count: self.walk.parts_of_run(),
                    rules,
                };
                let (name, count) = match fold.count {
                    1 => (fold_runs, blocks(fold.cells)?),
                    _ => (
                        fold_parts,
                        blocks(fold.cells.saturating_mul(u64::from(THREADS)))?,
                    ),
                };
                launches.push(Launch::new(kernels.get("fold", name)?, (count, 1), &fold));
            }
        }
        let histograms = self.histograms.iter().zip(&arena.edges).zip(&arena.counts);
        for ((bins, edges), counts) in histograms {
            launches.push(self.histogram(
                kernels,
                layout,
                arena,
                bins,
                [at(edges), at(counts)],
                base,
            )?);
        }
        Ok(launches)
    }

    /// The means of a sum by the same rules, for the squares that follow it.
    fn means(
        &self,
        kernels: &Kernels,
        arena: &Arena,
        rules: Rules,
        base: u64,
    ) -> Result<Launch, Failure> {
        let mut accumulators = self.accumulators.iter().zip(&arena.found);
        let sums = accumulators.find(|(one, _)| **one == (Kind::Sum, rules));
        let (_, sums) = sums.ok_or(Failure::Unsupported)?;
        let means = Means {
            sums: base + sums.start as u64,
            means: base + arena.means.start as u64,
            cells: self.walk.cells(),
        };
        let function = kernels.get("fold", "means")?;
        Ok(Launch::new(function, (blocks(means.cells)?, 1), &means))
    }

    fn histogram(
        &self,
        kernels: &Kernels,
        layout: &LayoutParams,
        arena: &Arena,
        bins: &Bins,
        [edges, counts]: [u64; 2],
        base: u64,
    ) -> Result<Launch, Failure> {
        let walk = &self.walk.params;
        let cells = u64::from(walk.cells) * u64::from(walk.turns) * u64::from(walk.run);
        let bins_shared = walk.cells == 1 && bins.len() <= SHARED_BINS as usize;
        let per_block = if bins_shared { PER_BLOCK } else { THREADS };
        let blocks = cells.div_ceil(u64::from(per_block));
        let uniform = bins.uniform_params();
        let [first, last, width, count] = uniform.unwrap_or([0.0; 4]);
        let params = HistogramParams {
            chunks: base + arena.addresses.start as u64,
            counts,
            edges,
            bins: bins.len() as u32,
            is_uniform: u32::from(uniform.is_some()),
            to_f32: u32::from(*bins.data_type() == DataType::Float32),
            per_block,
            first,
            last,
            width,
            count,
            layout: *layout,
            cf: self.cf,
            walk: *walk,
        };
        let (blocks, boxes) = (i32::try_from(blocks), u16::try_from(walk.boxes));
        let (Ok(blocks), Ok(boxes)) = (blocks, boxes) else {
            return Err(Failure::Unsupported);
        };
        let function = kernels.get(self.module, "histogram")?;
        Ok(Launch::new(
            function,
            (blocks as u32, u32::from(boxes)),
            &params,
        ))
    }

    /// What kernels are told of a layout; `None` if they do not undo it.
    pub(super) fn layout(&self, layout: &array::Layout) -> Option<LayoutParams> {
        LayoutParams::new(layout, self.element_bytes, self.chunk_bytes)
    }

    /// The same for another number of boxes.
    pub(super) fn of_boxes(&self, boxes: usize) -> Option<Self> {
        let mut outline = self.clone();
        outline.walk.params.boxes = u32::try_from(boxes).ok()?;
        Some(outline)
    }
}

/// Blocks of so many threads.
fn blocks(threads: u64) -> Result<u32, Failure> {
    let blocks = threads.div_ceil(u64::from(THREADS)).max(1);
    let blocks = i32::try_from(blocks).map_err(|_| Failure::Unsupported)?;
    Ok(blocks as u32)
}
