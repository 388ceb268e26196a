//! The search for order statistics, from pass to pass.

use array::DataType;

use super::OrderStatistics;
use super::found::{Found, Keys, Pass, Slot, Slots, Values};
use crate::element::{elements, with_real};
use crate::{Block, Error};

/// Most bits counted in one pass: 2^16 counts of 8 bytes fit the second-level cache.
const MAX_DIGIT: u32 = 16;

/// Bytes a search takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// So many and it reads the blocks once: all values at the same time.
    pub one_pass: u64,
    /// With fewer it has no way.
    pub least: u64,
}

impl Needs {
    /// What the order statistics of `kept` cells take, each of at most `cells_per_kept` values of
    /// `data_type`, where `workers` count blocks at the same time.
    pub fn of(
        statistics: &OrderStatistics,
        data_type: &DataType,
        kept: u64,
        cells_per_kept: u64,
        workers: u64,
    ) -> Self {
        let width = data_type.size_bytes().unwrap_or(8) as u64;
        let held = held_bytes(statistics, kept);
        let values = kept.saturating_mul(cells_per_kept);
        // Keys, where those of each cell start in each block, and all keys of one cell.
        let keys = values.saturating_mul(width + 8);
        let order = cells_per_kept.saturating_mul(8);
        let one_pass = keys.saturating_add(order).saturating_add(held);
        // One bit a pass: two counts a slot in each partial.
        let counts = slots_max(statistics, kept).saturating_mul(16);
        let counts = counts.saturating_mul(workers.max(1) + 1);
        Self {
            one_pass,
            least: counts.saturating_add(held).min(one_pass),
        }
    }
}

/// Two ranks at most for each result.
fn slots_max(statistics: &OrderStatistics, kept: u64) -> u64 {
    kept.saturating_mul(2 * statistics.len() as u64)
}

/// Bytes of the slots from one pass to the next, and of what is known of the cells.
fn held_bytes(statistics: &OrderStatistics, kept: u64) -> u64 {
    let slots = slots_max(statistics, kept).saturating_mul(2 * size_of::<Slot>() as u64);
    slots.saturating_add(kept.saturating_mul(48))
}

/// A search for the order statistics of some kept cells.
///
/// Values map to unsigned keys of the same order. A pass counts how often each value of the next
/// bits occurs among the candidates of each rank; then the bits of the rank are known, and fewer
/// candidates are left. As soon as all of them fit the memory they are collected instead.
#[derive(Clone, Debug)]
pub struct Search {
    pub(super) statistics: OrderStatistics,
    pub(super) data_type: DataType,
    pub(super) kept: usize,
    /// Bytes for what passes find.
    bytes: u64,
    workers: u64,
    /// Values of each cell that are not missing.
    pub(super) valid: Vec<u64>,
    pub(super) slots: Slots,
    pass: Option<Pass>,
}

impl Search {
    /// A search over `kept` cells, each of at most `cells_per_kept` values. `workers` count blocks at
    /// the same time; all they find, and what the search holds, stays below `memory_bytes`.
    ///
    /// # Errors
    /// [`Error::Undefined`] as for [`OrderStatistics::data_type`]; [`Error::Parameter`] if the
    /// memory is less than [`Needs::least`].
    pub fn new(
        statistics: OrderStatistics,
        data_type: &DataType,
        kept: usize,
        cells_per_kept: u64,
        memory_bytes: u64,
        workers: usize,
    ) -> Result<Self, Error> {
        statistics.data_type(data_type)?;
        let workers = workers.max(1) as u64;
        let needs = Needs::of(&statistics, data_type, kept as u64, cells_per_kept, workers);
        if memory_bytes < needs.least {
            let least = needs.least;
            return Err(Error::Parameter {
                name: "memory",
                reason: format!("is {memory_bytes} bytes, the search takes at least {least}"),
            });
        }
        let slot = Slot {
            prefix: 0,
            below: 0,
            count: cells_per_kept,
        };
        let held = held_bytes(&statistics, kept as u64);
        let mut search = Self {
            statistics,
            data_type: data_type.clone(),
            kept,
            bytes: memory_bytes.saturating_sub(held),
            workers,
            valid: Vec::new(),
            slots: Slots {
                bits: 0,
                first: (0..=kept).collect(),
                slots: vec![slot; kept],
            },
            pass: None,
        };
        let bits = search.key_bits();
        search.pass = search.next_pass(bits);
        if memory_bytes >= needs.one_pass {
            search.pass = Some(Pass::Candidates);
        }
        Ok(search)
    }

    /// Whether the blocks have to be read once more.
    pub fn needs_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// What the present pass finds in one block, whose kept cells are those of the search.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the block is of another type.
    pub fn count(&self, block: &Block<'_>) -> Result<Found, Error> {
        if *block.data_type != self.data_type {
            return Err(self.undefined(block.data_type));
        }
        let Some(pass) = self.pass else {
            return Ok(self.nothing());
        };
        Ok(with_real!(
            &self.data_type,
            T => Found::of::<T>(&self.slots, self.kept, pass, block, &elements::<T>(block.bytes)),
            else return Err(self.undefined(block.data_type))
        ))
    }

    /// What the present pass finds in no block.
    pub fn nothing(&self) -> Found {
        Found::none(
            &self.slots,
            self.kept,
            self.pass.unwrap_or(Pass::Candidates),
        )
    }

    /// Goes to the next pass, given what this one found in all blocks. Says whether there is one.
    pub fn advance(&mut self, found: Found) -> bool {
        let bits = self.key_bits();
        match (self.pass, found.values) {
            (Some(Pass::Digits(digit)), Values::Counts(counts)) => {
                self.learn_digits(digit, &counts, &found.missing);
                self.pass = self.next_pass(bits);
            }
            (Some(Pass::Candidates), Values::Keys(parts)) => {
                self.learn_keys(bits, &parts, &found.missing);
                self.pass = None;
            }
            (Some(Pass::Candidates), Values::Pairs(pairs)) => {
                self.learn_pairs(bits, pairs);
                self.pass = None;
            }
            _ => debug_assert!(self.pass.is_none(), "what this pass looked for"),
        }
        self.needs_pass()
    }

    fn key_bits(&self) -> u32 {
        8 * self.data_type.size_bytes().unwrap_or(8) as u32
    }

    pub(super) fn undefined(&self, data_type: &DataType) -> Error {
        Error::Undefined {
            reducer: self.statistics.name(),
            data_type: data_type.to_string(),
        }
    }

    /// The best pass over keys of `bits` bits; `None` if all of them are known.
    fn next_pass(&self, bits: u32) -> Option<Pass> {
        let unknown = bits - self.slots.bits;
        let slots = self.slots.len() as u64;
        if unknown == 0 || slots == 0 {
            return None;
        }
        if self.slots.bits > 0 {
            let candidates: u64 = self.slots.slots.iter().map(|slot| slot.count).sum();
            // Lists that grow take twice what they hold.
            let pair = 2 * size_of::<(usize, u64)>() as u64;
            if candidates.saturating_mul(pair) <= self.bytes {
                return Some(Pass::Candidates);
            }
        }
        let counts = self.bytes / (slots * 8).saturating_mul(self.workers + 1);
        let widest = counts.checked_ilog2().unwrap_or(1).clamp(1, MAX_DIGIT);
        // Passes of equal width.
        Some(Pass::Digits(unknown.div_ceil(unknown.div_ceil(widest))))
    }

    /// Values of a cell that results are taken from; none if one of them is missing and they are
    /// not left out.
    fn set_valid(&mut self, cell: usize, valid: u64, missing: &[u64]) {
        let skips = self.statistics.skips(&self.data_type);
        let is_missing = !skips && missing.get(cell).is_some_and(|&missing| missing > 0);
        self.valid[cell] = if is_missing { 0 } else { valid };
    }

    fn learn_digits(&mut self, digit: u32, counts: &[u64], missing: &[u64]) {
        let is_first = self.slots.bits == 0;
        if is_first {
            self.valid = vec![0; self.kept];
            for (cell, counts) in counts.chunks_exact(1 << digit).enumerate() {
                self.set_valid(cell, counts.iter().sum(), missing);
            }
        }
        self.learn(self.slots.bits + digit, |slot, at, ranks, learn| {
            let counts = &counts[at << digit..(at + 1) << digit];
            let (mut below, mut nth) = (slot.below, 0);
            for (value, &count) in counts.iter().enumerate() {
                if nth == ranks.len() {
                    break;
                }
                let end = below + count;
                if ranks[nth] < end {
                    learn(Slot {
                        prefix: (slot.prefix << digit) | value as u64,
                        below,
                        count,
                    });
                    nth += ranks[nth..].partition_point(|&rank| rank < end);
                }
                below = end;
            }
        });
    }

    fn learn_keys(&mut self, bits: u32, parts: &[Keys], missing: &[u64]) {
        self.valid = vec![0; self.kept];
        for cell in 0..self.kept {
            let valid = parts.iter().map(|keys| keys.of(cell).len() as u64).sum();
            self.set_valid(cell, valid, missing);
        }
        let mut keys = Vec::new();
        self.learn(bits, |slot, at, ranks, learn| {
            keys.clear();
            parts.iter().for_each(|part| keys.extend(part.of(at)));
            // Each rank is looked for among the keys after the one before.
            let mut done = 0;
            for &rank in ranks {
                let nth = (rank - slot.below) as usize;
                let (_, &mut prefix, _) = keys[done..].select_nth_unstable(nth - done);
                learn(Slot {
                    prefix,
                    below: rank,
                    count: 1,
                });
                done = nth;
            }
        });
    }

    fn learn_pairs(&mut self, bits: u32, mut pairs: Vec<(usize, u64)>) {
        pairs.sort_unstable();
        let mut rest = &pairs[..];
        self.learn(bits, |slot, at, ranks, learn| {
            let start = rest.partition_point(|&(slot, _)| slot < at);
            rest = &rest[start..];
            for &rank in ranks {
                learn(Slot {
                    prefix: rest[(rank - slot.below) as usize].1,
                    below: rank,
                    count: 1,
                });
            }
        });
    }

    /// Replaces every slot by those that `split` learns of, given the ranks it holds.
    fn learn(
        &mut self,
        bits: u32,
        mut split: impl FnMut(Slot, usize, &[u64], &mut dyn FnMut(Slot)),
    ) {
        let mut next = Slots {
            bits,
            first: Vec::with_capacity(self.kept + 1),
            slots: Vec::new(),
        };
        next.first.push(0);
        let (mut n, mut ranks) = (0, Vec::new());
        for cell in 0..self.kept {
            if self.valid[cell] != n {
                n = self.valid[cell];
                ranks = self.statistics.ranks(n);
            }
            for at in self.slots.of(cell) {
                let mut slot = self.slots.slots[at];
                if self.slots.bits == 0 {
                    slot.count = n;
                }
                let from = ranks.partition_point(|&rank| rank < slot.below);
                let to = ranks.partition_point(|&rank| rank < slot.below + slot.count);
                if from < to {
                    split(slot, at, &ranks[from..to], &mut |slot| {
                        next.slots.push(slot);
                    });
                }
            }
            next.first.push(next.slots.len());
        }
        self.slots = next;
    }
}
