//! What one pass finds in some blocks: counts of digits, or the candidates themselves.

use super::key::Keyed;
use crate::block::{Block, Fold};

/// What is known of the values at some ranks of one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    /// The first bits of their keys.
    pub(super) prefix: u64,
    /// Values of the cell with smaller prefixes.
    pub(super) below: u64,
    /// Values of the cell with this one.
    pub(super) count: u64,
}

/// The slots of all cells.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// Bits known of each prefix.
    pub(super) bits: u32,
    /// The first slot of each cell, and the number of slots; empty while each cell has one.
    pub(super) first: Vec<usize>,
    pub(super) slots: Vec<Slot>,
}

impl Slots {
    /// Number of slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Which slots are those of `cell`.
    #[inline(always)]
    pub(super) fn of(&self, cell: usize) -> std::ops::Range<usize> {
        self.first[cell]..self.first[cell + 1]
    }

    /// The slot of `cell` that holds rank `rank`.
    pub(super) fn holding(&self, cell: usize, rank: u64) -> Option<&Slot> {
        let slots = &self.slots[self.of(cell)];
        slots
            .iter()
            .find(|slot| (slot.below..slot.below + slot.count).contains(&rank))
    }
}

/// What a pass looks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pass {
    /// How often each value of the next so many bits occurs.
    Digits(u32),
    /// The keys.
    Candidates,
}

/// What one pass finds in some blocks. Merges in any order.
#[derive(Clone, Debug)]
pub struct Found {
    /// Values each cell misses; in the first pass only.
    pub(super) missing: Vec<u64>,
    pub(super) values: Values,
}

#[derive(Clone, Debug)]
pub(super) enum Values {
    /// Of each slot, how often each digit occurs.
    Counts(Vec<u64>),
    /// All keys, in the first pass.
    Keys(Vec<Keys>),
    /// Slots, and the keys that belong to them, in later passes.
    Pairs(Vec<(usize, u64)>),
}

/// The keys of one block, slot by slot.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The first key of each slot, and the number of keys.
    first: Vec<u32>,
    /// Bytes of a key.
    width: usize,
    bytes: Vec<u8>,
}

impl Keys {
    fn of_block<T: Keyed>(
        slots: &Slots,
        missing: &mut [u64],
        block: &Block<'_>,
        values: &[T],
    ) -> Self {
        let mut first = vec![0u32; slots.len() + 1];
        let visit = |slot: usize, _: u64| first[slot + 1] += 1;
        block.fold(values, &mut Matching::new(slots, missing, visit));
        for slot in 0..slots.len() {
            first[slot + 1] += first[slot];
        }
        let width = size_of::<T>();
        let count = first.last().map_or(0, |&count| count as usize);
        let mut bytes = vec![0; count * width];
        let mut next = first.clone();
        let visit = |slot: usize, key: u64| {
            let at = next[slot] as usize * width;
            bytes[at..at + width].copy_from_slice(&key.to_le_bytes()[..width]);
            next[slot] += 1;
        };
        block.fold(values, &mut Matching::new(slots, &mut [], visit));
        Self {
            first,
            width,
            bytes,
        }
    }

    pub(super) fn of(&self, slot: usize) -> impl ExactSizeIterator<Item = u64> + '_ {
        let keys = self.first[slot] as usize..self.first[slot + 1] as usize;
        let bytes = &self.bytes[keys.start * self.width..keys.end * self.width];
        bytes.chunks_exact(self.width).map(|key| {
            let mut wide = [0; 8];
            wide[..key.len()].copy_from_slice(key);
            u64::from_le_bytes(wide)
        })
    }
}

impl Found {
    /// Adds what the same pass found in other blocks.
    pub fn merge(&mut self, other: Self) {
        for (a, b) in self.missing.iter_mut().zip(&other.missing) {
            *a += b;
        }
        match (&mut self.values, other.values) {
            (Values::Counts(a), Values::Counts(b)) => {
                a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
            }
            (Values::Keys(a), Values::Keys(mut b)) => a.append(&mut b),
            (Values::Pairs(a), Values::Pairs(mut b)) => a.append(&mut b),
            _ => debug_assert!(false, "both were found in the same pass"),
        }
    }

    /// Nothing found yet.
    pub(super) fn none(slots: &Slots, cells: usize, pass: Pass) -> Self {
        Self {
            missing: vec![0; if slots.bits == 0 { cells } else { 0 }],
            values: match pass {
                Pass::Digits(bits) => Values::Counts(vec![0; slots.len() << bits]),
                Pass::Candidates if slots.bits == 0 => Values::Keys(Vec::new()),
                Pass::Candidates => Values::Pairs(Vec::new()),
            },
        }
    }

    pub(super) fn of<T: Keyed>(
        slots: &Slots,
        cells: usize,
        pass: Pass,
        block: &Block<'_>,
        values: &[T],
    ) -> Self {
        let mut found = Self::none(slots, cells, pass);
        let missing = &mut found.missing[..];
        let bits = slots.bits;
        match (pass, &mut found.values) {
            (Pass::Digits(digit), Values::Counts(counts)) => {
                // At least 1: a pass knows less than all bits before it, and `digit` more after.
                let known = T::BITS - bits;
                let (rest, mask) = (known - digit, (1u64 << digit) - 1);
                let visit = |slot: usize, key: u64| {
                    counts[(slot << digit) + ((key >> rest) & mask) as usize] += 1;
                };
                block.fold(values, &mut Matching::new(slots, missing, visit));
            }
            (Pass::Candidates, Values::Keys(parts)) => {
                parts.push(Keys::of_block(slots, missing, block, values));
            }
            (Pass::Candidates, Values::Pairs(pairs)) => {
                let visit = |slot: usize, key: u64| pairs.push((slot, key));
                block.fold(values, &mut Matching::new(slots, missing, visit));
            }
            _ => debug_assert!(false, "what this pass looks for"),
        }
        found
    }
}

/// Visits the slots of values whose keys start as theirs.
struct Matching<'a, V> {
    slots: &'a Slots,
    /// Of each cell, if they are to be counted.
    missing: &'a mut [u64],
    visit: V,
}

impl<'a, V: FnMut(usize, u64)> Matching<'a, V> {
    fn new(slots: &'a Slots, missing: &'a mut [u64], visit: V) -> Self {
        Self {
            slots,
            missing,
            visit,
        }
    }

    #[inline(always)]
    fn take<T: Keyed>(&mut self, cell: usize, slots: std::ops::Range<usize>, value: T) {
        if value.is_missing() {
            if let Some(missing) = self.missing.get_mut(cell) {
                *missing += 1;
            }
            return;
        }
        let key = value.to_key();
        if self.slots.bits == 0 {
            (self.visit)(cell, key);
            return;
        }
        let unknown = T::BITS - self.slots.bits;
        for slot in slots {
            if key >> unknown == self.slots.slots[slot].prefix {
                (self.visit)(slot, key);
                return;
            }
        }
    }
}

impl<T: Keyed, V: FnMut(usize, u64)> Fold<T> for Matching<'_, V> {
    #[inline(always)]
    fn one(&mut self, cell: usize, _: u64, values: &[T]) {
        let slots = self.slots.of(cell);
        for &value in values {
            self.take(cell, slots.clone(), value);
        }
    }

    #[inline(always)]
    fn each(&mut self, first_cell: usize, _: u64, values: &[T]) {
        for (nth, &value) in values.iter().enumerate() {
            let cell = first_cell + nth;
            self.take(cell, self.slots.of(cell), value);
        }
    }
}
