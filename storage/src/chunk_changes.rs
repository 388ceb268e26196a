//! Changes to the chunks of one array, packed: transactions of ten million chunks are held in
//! memory.
//!
//! The changes that fall under one page of level 0 lie together, in a buffer of their own; each is
//! unpacked when it is looked at.

use std::collections::{BTreeMap, BTreeSet};

use array::{ArrayMetadata, ChunkIndex, ChunkKind, Hash, Region, Statistics};
use bytes::Bytes;

use crate::Error;
use crate::layout::{LEVEL_BITS, Layout};
use crate::object::shard_key;
use crate::page::{ChunkRow, Location, ManifestRow, StatisticsRow};
use crate::radix::RowChange;

/// Which inner chunks of a chunk a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of them.
    Whole,
    /// These, in ascending order.
    Inner(Box<[u32]>),
    /// Those that differ from the chunk before.
    Differing,
}

/// What becomes of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ChunkChange {
    /// It is all fill value.
    Removed(Written),
    /// It has these bytes.
    Present {
        kind: ChunkKind,
        id: Hash,
        length: u64,
        location: Location,
        statistics: Option<Statistics>,
        written: Written,
    },
}

impl ChunkChange {
    pub(crate) fn present(row: ChunkRow, statistics: Option<Statistics>, written: Written) -> Self {
        Self::Present {
            kind: row.kind,
            id: row.id,
            length: row.length,
            location: row.location,
            statistics,
            written,
        }
    }

    /// The chunk's row; `None` if it is all fill value.
    pub(crate) fn row(&self, index: ChunkIndex) -> Option<ChunkRow> {
        match self {
            Self::Removed(_) => None,
            Self::Present {
                kind,
                id,
                length,
                location,
                ..
            } => Some(ChunkRow {
                index,
                kind: *kind,
                id: *id,
                length: *length,
                location: location.clone(),
            }),
        }
    }

    pub(crate) fn statistics(&self) -> Option<Statistics> {
        match self {
            Self::Removed(_) => None,
            Self::Present { statistics, .. } => *statistics,
        }
    }

    /// The same, but about these inner chunks.
    pub(crate) fn with_written(mut self, new: Written) -> Self {
        match &mut self {
            Self::Removed(written) | Self::Present { written, .. } => *written = new,
        }
        self
    }

    pub(crate) fn written(&self) -> &Written {
        match self {
            Self::Removed(written) | Self::Present { written, .. } => written,
        }
    }
}

/// Changes to chunks of one array, by their address in the layout of its grid.
#[derive(Clone, Debug)]
pub(crate) struct ChunkChanges {
    layout: Layout,
    /// By the page they fall under, none empty.
    leaves: BTreeMap<u128, Leaf>,
}

impl ChunkChanges {
    /// None yet, of an array with this metadata.
    ///
    /// # Errors
    /// [`Error::Array`] for a grid of 2^64 chunks or more.
    pub(crate) fn new(metadata: &ArrayMetadata) -> Result<Self, Error> {
        Ok(Self {
            layout: Layout::new(&metadata.grid().grid_shape())?,
            leaves: BTreeMap::new(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// The change of the chunk at `index`, if it has one.
    pub(crate) fn get(&self, index: &ChunkIndex) -> Option<ChunkChange> {
        let (leaf, at) = self.find(index)?;
        Some(leaf.get(at))
    }

    pub(crate) fn contains(&self, index: &ChunkIndex) -> bool {
        self.find(index).is_some()
    }

    fn find(&self, index: &ChunkIndex) -> Option<(&Leaf, usize)> {
        if !self.layout.fits(index.as_slice()) {
            return None;
        }
        let (page, place) = split(self.layout.address(index.as_slice()));
        let leaf = self.leaves.get(&page)?;
        Some((leaf, leaf.find(place).ok()?))
    }

    /// `index` is in the grid.
    pub(crate) fn insert(&mut self, index: &ChunkIndex, change: &ChunkChange) {
        let (page, place) = split(self.layout.address(index.as_slice()));
        let leaf = self.leaves.entry(page).or_insert_with(|| Leaf::new(page));
        leaf.insert(place, change);
    }

    /// What counts as written of a chunk if `more` is written now.
    pub(crate) fn written_with(&self, index: &ChunkIndex, more: Written) -> Written {
        let Some(before) = self.get(index) else {
            return more;
        };
        match (before.written(), more) {
            (Written::Inner(before), Written::Inner(more)) => {
                let both: BTreeSet<u32> = before.iter().chain(&more).copied().collect();
                Written::Inner(both.into_iter().collect())
            }
            _ => Written::Whole,
        }
    }

    /// Forgets the change of a chunk, if it is in the grid and has one.
    pub(crate) fn remove(&mut self, index: &ChunkIndex) {
        if !self.layout.fits(index.as_slice()) {
            return;
        }
        let (page, place) = split(self.layout.address(index.as_slice()));
        let Some(leaf) = self.leaves.get_mut(&page) else {
            return;
        };
        leaf.remove(place);
        if leaf.slots.is_empty() {
            self.leaves.remove(&page);
        }
    }

    fn places(&self) -> impl Iterator<Item = PackedChange<'_>> {
        let of_leaf = |leaf| {
            let at = move |at| PackedChange { leaf, at };
            (0..leaf.slots.len()).map(at)
        };
        self.leaves.values().flat_map(of_leaf)
    }

    /// In address order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkIndex, ChunkChange)> {
        self.places().map(|place| {
            let index = ChunkIndex::new(self.layout.coordinate(place.address_in_grid()));
            (index, place.leaf.get(place.at))
        })
    }

    /// Chunks in `region` of the grid that change and are not all fill value then, in address order,
    /// at most `most`.
    pub(crate) fn some_present(&self, region: &Region, most: usize) -> Vec<ChunkIndex> {
        let covers = |page: u128| {
            let origin = self.layout.coordinate(page << LEVEL_BITS);
            let covered = self.layout.row_box(&origin, 1);
            !covered.intersect(region).is_empty()
        };
        let leaves = self.leaves.values().filter(|leaf| covers(leaf.page));
        let places = leaves.flat_map(|leaf| {
            let present = (0..leaf.slots.len()).filter(|&at| leaf.head(at) & PRESENT != 0);
            present.map(move |at| PackedChange { leaf, at })
        });
        let indexes = places
            .map(|place| ChunkIndex::new(self.layout.coordinate(place.address_in_grid())))
            .filter(|index| region.contains_position(index.as_slice()));
        indexes.take(most).collect()
    }

    /// The same changes over the grid of `metadata`, without those outside it.
    ///
    /// # Errors
    /// As [`ChunkChanges::new`].
    pub(crate) fn moved_to(&self, metadata: &ArrayMetadata) -> Result<Self, Error> {
        let mut moved = Self::new(metadata)?;
        for (index, change) in self.iter() {
            if metadata.grid().contains(&index) {
                moved.insert(&index, &change);
            }
        }
        Ok(moved)
    }

    /// Whether every chunk that is not all fill value comes with its statistics.
    pub(crate) fn all_have_statistics(&self) -> bool {
        self.places().all(|place| {
            let head = place.leaf.head(place.at);
            head & PRESENT == 0 || head & HAS_STATISTICS != 0
        })
    }

    /// Keys of the chunks that are stored in objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = String> {
        self.places().filter_map(|place| {
            let change = place.leaf.get(place.at);
            match change {
                ChunkChange::Present {
                    id,
                    location: Location::Stored,
                    ..
                } => Some(shard_key(&id)),
                _ => None,
            }
        })
    }

    /// All of them, as changes to the rows of a tree, in address order.
    pub(crate) fn as_row_changes(&self) -> Vec<PackedChange<'_>> {
        self.places().collect()
    }
}

/// The page an address falls under, and its place there.
fn split(address: u128) -> (u128, u16) {
    let place = address & ((1 << LEVEL_BITS) - 1);
    (address >> LEVEL_BITS, place as u16)
}

/// A chunk's change as a change to a row, without copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedChange<'a> {
    leaf: &'a Leaf,
    at: usize,
}

impl PackedChange<'_> {
    fn address_in_grid(self) -> u128 {
        self.leaf.page << LEVEL_BITS | u128::from(self.leaf.slots[self.at].place)
    }
}

impl RowChange<ManifestRow> for PackedChange<'_> {
    fn address(&self) -> u128 {
        self.address_in_grid()
    }

    fn row(&self, layout: &Layout) -> Option<ManifestRow> {
        let index = ChunkIndex::new(layout.coordinate(self.address_in_grid()));
        self.leaf.get(self.at).row(index).map(ManifestRow::Chunk)
    }
}

impl RowChange<StatisticsRow> for PackedChange<'_> {
    fn address(&self) -> u128 {
        self.address_in_grid()
    }

    fn row(&self, layout: &Layout) -> Option<StatisticsRow> {
        Some(StatisticsRow {
            coordinate: layout.coordinate(self.address_in_grid()),
            child: None,
            statistics: self.leaf.get(self.at).statistics()?,
        })
    }
}

/// The changes under one page of level 0.
#[derive(Clone, Debug)]
struct Leaf {
    /// Address of the page, without the bits of the places in it.
    page: u128,
    /// By place, ascending.
    slots: Vec<Slot>,
    /// The packed changes, in no order.
    bytes: Vec<u8>,
    /// Bytes of changes that were replaced.
    wasted_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    place: u16,
    /// Where the change begins in the bytes.
    start: usize,
}

// The first byte of a packed change.
const PRESENT: u8 = 1;
const SHARD: u8 = 1 << 1;
const INLINE: u8 = 1 << 2;
const EXTERNAL: u8 = 1 << 3;
const HAS_STATISTICS: u8 = 1 << 4;
const INNER: u8 = 1 << 5;
const DIFFERING: u8 = 1 << 6;

impl Leaf {
    fn new(page: u128) -> Self {
        Self {
            page,
            slots: Vec::new(),
            bytes: Vec::new(),
            wasted_bytes: 0,
        }
    }

    fn find(&self, place: u16) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&place, |slot| slot.place)
    }

    fn head(&self, at: usize) -> u8 {
        self.bytes[self.slots[at].start]
    }

    fn get(&self, at: usize) -> ChunkChange {
        Unpacker(&self.bytes[self.slots[at].start..]).change()
    }

    fn insert(&mut self, place: u16, change: &ChunkChange) {
        match self.find(place) {
            Ok(at) => {
                self.waste(at);
                self.slots[at].start = self.bytes.len();
            }
            Err(at) => {
                let start = self.bytes.len();
                self.slots.insert(at, Slot { place, start });
            }
        }
        let packed = pack(change);
        // Doubling would leave half of the memory of a large transaction unused.
        if self.bytes.capacity() - self.bytes.len() < packed.len() {
            self.bytes
                .reserve_exact(packed.len() + self.bytes.len() / 8);
        }
        self.bytes.extend(packed);
        self.compact();
    }

    fn remove(&mut self, place: u16) {
        if let Ok(at) = self.find(place) {
            self.waste(at);
            self.slots.remove(at);
            self.compact();
        }
    }

    fn waste(&mut self, at: usize) {
        self.wasted_bytes += self.packed(at).len();
    }

    fn packed(&self, at: usize) -> &[u8] {
        let rest = &self.bytes[self.slots[at].start..];
        let mut unpacker = Unpacker(rest);
        unpacker.change();
        &rest[..rest.len() - unpacker.0.len()]
    }

    /// Drops what was replaced once it is most of the buffer.
    fn compact(&mut self) {
        if self.wasted_bytes <= self.bytes.len() / 2 {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.wasted_bytes);
        for at in 0..self.slots.len() {
            let start = bytes.len();
            bytes.extend(self.packed(at));
            // Read from the old buffer until all are moved.
            self.slots[at].start = start;
        }
        self.bytes = bytes;
        self.wasted_bytes = 0;
    }
}

fn pack(change: &ChunkChange) -> Vec<u8> {
    let mut head = match change.written() {
        Written::Whole => 0,
        Written::Inner(_) => INNER,
        Written::Differing => DIFFERING,
    };
    let mut packed = vec![0];
    if let Written::Inner(inner) = change.written() {
        put_number(&mut packed, inner.len() as u64);
        packed.extend(inner.iter().flat_map(|index| index.to_le_bytes()));
    }
    if let ChunkChange::Present {
        kind,
        id,
        length,
        location,
        statistics,
        written: _,
    } = change
    {
        head |= PRESENT;
        if *kind == ChunkKind::Shard {
            head |= SHARD;
        }
        packed.extend(id.as_bytes());
        put_number(&mut packed, *length);
        match location {
            Location::Stored => {}
            Location::Inline(bytes) => {
                head |= INLINE;
                put_bytes(&mut packed, bytes);
            }
            Location::External { url, offset, etag } => {
                head |= EXTERNAL;
                put_bytes(&mut packed, url.as_bytes());
                put_number(&mut packed, *offset);
                put_bytes(&mut packed, etag.as_bytes());
            }
        }
        if let Some(statistics) = statistics {
            head |= HAS_STATISTICS;
            packed.extend(statistics.to_bytes());
        }
    }
    packed[0] = head;
    packed
}

/// Seven bits a byte, least significant first; the top bit of all but the last is set.
fn put_number(packed: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        packed.push(number as u8 | 0x80);
        number >>= 7;
    }
    packed.push(number as u8);
}

fn put_bytes(packed: &mut Vec<u8>, bytes: &[u8]) {
    put_number(packed, bytes.len() as u64);
    packed.extend(bytes);
}

/// Reads what [`pack`] wrote, and leaves the rest.
struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N));
        array
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.number();
        self.take(length as usize)
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn change(&mut self) -> ChunkChange {
        let [head] = self.array();
        let has = |flag| head & flag != 0;
        let written = if has(INNER) {
            let count = self.number();
            let inner = (0..count).map(|_| u32::from_le_bytes(self.array()));
            Written::Inner(inner.collect())
        } else if has(DIFFERING) {
            Written::Differing
        } else {
            Written::Whole
        };
        if !has(PRESENT) {
            return ChunkChange::Removed(written);
        }
        let (id, length) = (Hash::from_bytes(self.array()), self.number());
        let location = if has(INLINE) {
            Location::Inline(Bytes::copy_from_slice(self.bytes()))
        } else if has(EXTERNAL) {
            Location::External {
                url: self.text(),
                offset: self.number(),
                etag: self.text(),
            }
        } else {
            Location::Stored
        };
        let statistics = has(HAS_STATISTICS)
            .then(|| Statistics::from_bytes(self.take(Statistics::ENCODED_BYTES)).ok())
            .flatten();
        ChunkChange::Present {
            kind: if has(SHARD) {
                ChunkKind::Shard
            } else {
                ChunkKind::Plain
            },
            id,
            length,
            location,
            statistics,
            written,
        }
    }
}

#[cfg(test)]
mod tests {
    use array::{CodecMetadata, DataType, Moments, RegularGrid, Scalar, Sum};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written() -> impl Strategy<Value = Written> {
        prop_oneof![
            Just(Written::Whole),
            Just(Written::Differing),
            prop::collection::btree_set(any::<u32>(), 0..5)
                .prop_map(|inner| Written::Inner(inner.into_iter().collect())),
        ]
    }

    fn location() -> impl Strategy<Value = Location> {
        prop_oneof![
            Just(Location::Stored),
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| Location::Inline(bytes.into())),
            (".{0,20}", any::<u64>(), ".{0,20}")
                .prop_map(|(url, offset, etag)| { Location::External { url, offset, etag } }),
        ]
    }

    fn statistics() -> impl Strategy<Value = Option<Statistics>> {
        let moments =
            (any::<i64>(), any::<i64>(), any::<i128>()).prop_map(|(min, max, sum)| Moments {
                min: Scalar::Int(min),
                max: Scalar::Int(max),
                sum: Sum::Int(sum),
                m2: array::Double::from(0.5),
            });
        let moments = (1..u64::MAX, any::<u64>(), moments);
        prop::option::of(moments.prop_map(|(valid, missing, moments)| Statistics {
            valid,
            missing,
            moments: Some(moments),
        }))
    }

    fn change() -> impl Strategy<Value = ChunkChange> {
        let kind = prop_oneof![Just(ChunkKind::Shard), Just(ChunkKind::Plain)];
        let present = (
            kind,
            any::<[u8; 32]>(),
            any::<u64>(),
            location(),
            statistics(),
            written(),
        )
            .prop_map(|(kind, id, length, location, statistics, written)| {
                ChunkChange::Present {
                    kind,
                    id: Hash::from_bytes(id),
                    length,
                    location,
                    statistics,
                    written,
                }
            });
        prop_oneof![written().prop_map(ChunkChange::Removed), present]
    }

    proptest! {
        /// Insertions and removals in any order leave what a map of whole changes has.
        #[test]
        fn packed_changes_are_those_that_were_put(
            steps in prop::collection::vec((0..40u64, 0..60u64, prop::option::of(change())), 1..200)
        ) {
            let codecs = vec![CodecMetadata::new("bytes", json!({}))];
            let grid = RegularGrid::new(vec![40, 60], vec![1, 1]).unwrap();
            let metadata = ArrayMetadata::new(grid, DataType::UInt8, codecs);
            let mut packed = ChunkChanges::new(&metadata).unwrap();
            let mut whole = BTreeMap::new();
            for (row, column, change) in steps {
                let index = ChunkIndex::new(vec![row, column]);
                let address = packed.layout().address(index.as_slice());
                if let Some(change) = change {
                    packed.insert(&index, &change);
                    whole.insert(address, (index, change));
                } else {
                    packed.remove(&index);
                    whole.remove(&address);
                }
            }
            let expected: Vec<_> = whole.into_values().collect();
            prop_assert_eq!(packed.is_empty(), expected.is_empty());
            for (index, change) in &expected {
                let found = packed.get(index);
                prop_assert_eq!(found.as_ref(), Some(change));
            }
            let found: Vec<_> = packed.iter().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
