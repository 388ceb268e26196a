//! What all inner chunks of one aggregation share, and what becomes of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::{DataType, Elements, Hash, Tensor, shape};
use compute::cf::{CfDecoder, Decode};
use compute::gather::{self, AxisPart};
use compute::order::{Found, Needs, Search};
use compute::predicate::{Predicate, masked};
use compute::{Block, Combiner};

use crate::Error;
use crate::chunk_statistics::part_of;
use crate::engine::Rows;
use crate::fetch::ArrayReader;
use crate::measure::{Aggregation, Measure, Part, Role};
use crate::plan::Plan;

/// The bytes of an inner chunk.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// With the hash of its bytes.
    Encoded(bytes::Bytes, Hash),
    /// With the hash of its encoded bytes.
    Decoded(bytes::Bytes, Hash),
    /// All of it is fill value.
    Fill,
    /// No cell of it counts.
    Missing,
}

/// What all measures found in one box.
pub(super) type Parts = Vec<Part>;

/// Cells that are worked on together: kept ones of one inner chunk, by axis, or a group.
pub(super) type Tile = Vec<u64>;

/// Along a grouped axis: the inner chunks that hold cells of each group, as places among those that
/// are touched, ascending.
pub(super) type InnerOfGroups = Vec<Vec<u64>>;

/// What all inner chunks of one aggregation share.
pub(super) struct Job {
    pub(super) array: ArrayReader,
    pub(super) decode: Decode,
    pub(super) plan: Plan,
    pub(super) rows: Arc<Rows>,
    pub(super) decoder: Option<CfDecoder>,
    /// Type of decoded elements, and of those that are measured.
    pub(super) decoded: DataType,
    pub(super) measured: DataType,
    pub(super) aggregation: Aggregation,
    pub(super) results: Vec<DataType>,
    pub(super) selected: Vec<u64>,
    /// Lengths of the result.
    pub(super) kept: Vec<u64>,
    /// By axis, for those that are grouped.
    pub(super) groups: Vec<Option<InnerOfGroups>>,
    /// By tile, what was found so far.
    pub(super) tiles: Mutex<HashMap<Tile, Arc<Mutex<Combiner<Parts>>>>>,
    /// Searches for order statistics, by tile and measure.
    pub(super) searches: Mutex<HashMap<(Tile, usize), Arc<Search>>>,
    /// How far approximate results may be from exact ones.
    pub(super) error_bound: Mutex<f64>,
    /// Memory of all of them together.
    pub(super) search_bytes: u64,
    pub(super) workers: usize,
    /// What device keys name the codecs by, the array's document, if devices do the work.
    pub(super) device_codec: Option<Hash>,
    pub(super) reservation_bytes: u64,
    /// The results.
    pub(super) out: Mutex<Vec<Vec<u8>>>,
    /// What boxes of fill value come to, by their shape.
    pub(super) fills: Mutex<HashMap<Vec<u64>, Parts>>,
}

pub(super) fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Along grouped axes, which inner chunks hold cells of each group.
pub(super) fn groups(aggregation: &Aggregation, plan: &Plan) -> Vec<Option<InnerOfGroups>> {
    let axes = aggregation.roles.iter().enumerate();
    axes.map(|(axis, role)| {
        let Role::Grouped(grouping) = role else {
            return None;
        };
        let mut inner_of: InnerOfGroups = vec![Vec::new(); grouping.groups];
        for (nth, &at) in plan.touched()[axis].iter().enumerate() {
            for place in plan.part(axis, at).target {
                let group = grouping
                    .of
                    .get(place as usize)
                    .map_or(u32::MAX, |group| *group);
                if let Some(inner) = inner_of.get_mut(group as usize)
                    && inner.last() != Some(&(nth as u64))
                {
                    inner.push(nth as u64);
                }
            }
        }
        Some(inner_of)
    })
    .collect()
}

impl Job {
    /// With room for the results: what the measures come to for no value.
    pub(super) fn with_output(mut self) -> Result<Self, Error> {
        let cells = shape::elements(&self.kept)? as usize;
        let is_grouped = self.groups.iter().any(Option::is_some);
        let measures = self.aggregation.measures.iter().zip(&self.results);
        let out = measures.map(|(measure, result)| {
            let size = shape::size_bytes(&self.kept, result)?;
            // A group without cells is left as it is.
            if is_grouped {
                return Part::of_nothing(measure, &self.measured, cells, 0)
                    .or_else(|_| Ok(vec![0; size.saturating_mul(measure.results())]));
            }
            Ok(vec![0; size.saturating_mul(measure.results())])
        });
        self.out = Mutex::new(out.collect::<Result<_, Error>>()?);
        Ok(self)
    }

    /// Most cells that go into one.
    pub(super) fn cells_per_kept(&self) -> u64 {
        let axes = self.aggregation.roles.iter().zip(&self.selected);
        let gone = axes.filter(|(role, _)| !role.is_kept());
        gone.fold(1, |cells, (_, &length)| cells.saturating_mul(length))
    }

    pub(super) fn is_same(&self, array: &ArrayReader) -> bool {
        array.node.path() == self.array.node.path()
    }

    /// Measures one inner chunk and merges what is found with the chunks before and after it.
    pub(super) fn take(
        &self,
        inner: &[u64],
        piece: &Piece,
        masks: &[Option<Tensor>],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let parts = self.plan.parts(inner);
        let codec = &self.array.codec;
        let decoded: Option<&[u8]> = match piece {
            Piece::Decoded(bytes, _) => Some(bytes),
            Piece::Encoded(bytes, _) => {
                scratch.resize(codec.decoded_bytes(), 0);
                let decoded = codec.decode_into(bytes, scratch);
                decoded.map_err(|error| self.corrupt(inner, error))?;
                Some(scratch)
            }
            Piece::Fill | Piece::Missing => None,
        };
        if self.groups.iter().all(Option::is_none) {
            let (tile, number, count) = self.place(inner, &[]);
            return self.take_box(inner, &parts, decoded, piece, masks, (tile, number, count));
        }
        for (group, parts) in self.split(&parts) {
            // Conditions see all cells of the inner chunk; here only some of them are wanted.
            let places = self.place(inner, &group);
            self.take_box(inner, &parts, decoded, piece, masks, places)?;
        }
        Ok(())
    }

    /// The groups in an inner chunk, each by axis (0 where it is not grouped), with its cells.
    fn split(&self, parts: &[AxisPart]) -> Vec<(Vec<u64>, Vec<AxisPart>)> {
        let mut split: Vec<(Vec<u64>, Vec<AxisPart>)> = vec![(Vec::new(), Vec::new())];
        for (part, role) in parts.iter().zip(&self.aggregation.roles) {
            let along: Vec<(u64, AxisPart)> = match role {
                Role::Grouped(grouping) => {
                    let mut of: Vec<(u64, AxisPart)> = Vec::new();
                    for (&source, &target) in part.source.iter().zip(&part.target) {
                        let group = grouping.of.get(target as usize).map_or(u32::MAX, |g| *g);
                        if group as usize >= grouping.groups {
                            continue;
                        }
                        let known = of.iter_mut().find(|(known, _)| *known == u64::from(group));
                        match known {
                            Some((_, part)) => {
                                part.source.push(source);
                                part.target.push(target);
                            }
                            None => of.push((
                                u64::from(group),
                                AxisPart {
                                    source: vec![source],
                                    target: vec![target],
                                },
                            )),
                        }
                    }
                    of
                }
                _ => vec![(0, part.clone())],
            };
            split = split
                .into_iter()
                .flat_map(|(group, parts)| {
                    along.iter().map(move |(of, part)| {
                        let (mut group, mut parts) = (group.clone(), parts.clone());
                        group.push(*of);
                        parts.push(part.clone());
                        (group, parts)
                    })
                })
                .collect();
        }
        split
    }

    /// The tile an inner chunk goes into, its number among those that do, and how many do.
    pub(super) fn place(&self, inner: &[u64], group: &[u64]) -> (Tile, u64, u64) {
        let (mut tile, mut number, mut count) = (Tile::new(), 0u64, 1u64);
        let axes = inner.iter().zip(self.plan.touched()).enumerate();
        for (axis, (&at, touched)) in axes {
            let nth = touched.partition_point(|&other| other < at) as u64;
            match (&self.aggregation.roles[axis], &self.groups[axis]) {
                (Role::Kept, _) => tile.push(at),
                (Role::Grouped(_), Some(inner_of)) => {
                    let of = group[axis];
                    let inner = &inner_of[of as usize];
                    tile.push(of);
                    number = number * inner.len() as u64
                        + inner.partition_point(|&other| other < nth) as u64;
                    count = count.saturating_mul(inner.len() as u64);
                }
                _ => {
                    number = number * touched.len() as u64 + nth;
                    count = count.saturating_mul(touched.len() as u64);
                }
            }
        }
        (tile, number, count)
    }

    /// Measures some cells of an inner chunk.
    fn take_box(
        &self,
        inner: &[u64],
        parts: &[AxisPart],
        decoded: Option<&[u8]>,
        piece: &Piece,
        masks: &[Option<Tensor>],
        (tile, number, count): (Tile, u64, u64),
    ) -> Result<(), Error> {
        if self.is_found(&tile) {
            return Ok(());
        }
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let measures = &self.aggregation.measures;
        let is_plain_fill = matches!(piece, Piece::Fill)
            && self.aggregation.conditions.is_empty()
            && measures.iter().all(Measure::is_of_values);
        let known = match is_plain_fill {
            true => lock(&self.fills).get(&lengths).cloned(),
            false => None,
        };
        let found = match known {
            Some(known) => known,
            None => {
                let cells = self.cells(inner, parts, decoded, piece, masks)?;
                let found = self.measure(&tile, parts, &cells)?;
                if is_plain_fill {
                    lock(&self.fills).insert(lengths, found.clone());
                }
                found
            }
        };
        self.add((&tile, number, count), parts, found)
    }

    /// The error for an inner chunk that does not decode.
    pub(super) fn corrupt(&self, inner: &[u64], error: codecs::Error) -> Error {
        let (index, _) = self.plan.locate(inner);
        match self.rows.get(&index) {
            Some(row) => self.array.corrupt(row, error),
            None => Error::Cancelled,
        }
    }

    /// Merges what was found in a box with the boxes before and after it.
    pub(super) fn add(
        &self,
        (tile, number, count): (&Tile, u64, u64),
        parts: &[AxisPart],
        found: Parts,
    ) -> Result<(), Error> {
        let tree = {
            let mut tiles = lock(&self.tiles);
            let new = || Arc::new(Mutex::new(Combiner::new(count)));
            tiles.entry(tile.clone()).or_insert_with(new).clone()
        };
        let whole = lock(&tree).push(number, found);
        if let Some(whole) = whole {
            lock(&self.tiles).remove(tile);
            self.finish(tile, parts, whole)?;
        }
        Ok(())
    }

    /// Whether nothing more is wanted of a tile: in later passes, that its searches are done.
    fn is_found(&self, tile: &Tile) -> bool {
        if !self.aggregation.has_order() {
            return false;
        }
        let searches = lock(&self.searches);
        let mut of_tile = (0..self.aggregation.measures.len())
            .filter_map(|nth| searches.get(&(tile.clone(), nth)))
            .peekable();
        of_tile.peek().is_some() && of_tile.all(|search| !search.needs_pass())
    }

    /// The cells that are measured, of type `measured`.
    fn cells(
        &self,
        inner: &[u64],
        parts: &[AxisPart],
        decoded: Option<&[u8]>,
        piece: &Piece,
        masks: &[Option<Tensor>],
    ) -> Result<Vec<u8>, Error> {
        let codec = &self.array.codec;
        let count = parts.iter().map(AxisPart::len).product::<usize>();
        let stored = match decoded {
            Some(decoded) => part_of(decoded, parts, codec),
            None => codec.fill_value().as_bytes().repeat(count).into(),
        };
        let cells = match &self.decoder {
            Some(decoder) => decoder.decode(&stored),
            None => stored.into_owned(),
        };
        if self.aggregation.conditions.is_empty() {
            return Ok(cells);
        }
        let mut mask = vec![!matches!(piece, Piece::Missing); count];
        for ((_, predicate), other) in self.aggregation.conditions.iter().zip(masks) {
            match other {
                None => predicate.mask(&self.decoded, &cells, &mut mask)?,
                Some(tensor) => self.mask_by(inner, parts, predicate, tensor, &mut mask)?,
            }
        }
        Ok(masked(&self.decoded, &cells, &mask)?.1)
    }

    /// Applies a condition on another array, whose cells beside the whole inner chunk are `tensor`.
    fn mask_by(
        &self,
        inner: &[u64],
        parts: &[AxisPart],
        predicate: &Predicate,
        tensor: &Tensor,
        mask: &mut [bool],
    ) -> Result<(), Error> {
        let Elements::Fixed(bytes) = &tensor.elements else {
            return Ok(());
        };
        let whole = self.plan.parts(inner);
        let places = parts.iter().zip(&whole).map(|(part, whole)| AxisPart {
            source: part
                .target
                .iter()
                .map(|target| whole.target.partition_point(|other| other < target) as u64)
                .collect(),
            target: (0..part.len() as u64).collect(),
        });
        let size = tensor.data_type.size_bytes().unwrap_or(8);
        let lengths: Vec<u64> = whole.iter().map(|part| part.len() as u64).collect();
        let cells = gather::gather(bytes, &places.collect::<Vec<_>>(), &lengths, size);
        Ok(predicate.mask(&tensor.data_type, &cells, mask)?)
    }

    fn measure(&self, tile: &Tile, parts: &[AxisPart], cells: &[u8]) -> Result<Parts, Error> {
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let places: Vec<Vec<u64>> = parts.iter().map(|part| part.target.clone()).collect();
        let reduced: Vec<bool> = self
            .aggregation
            .roles
            .iter()
            .map(|role| !role.is_kept())
            .collect();
        let block = Block {
            data_type: &self.measured,
            bytes: cells,
            shape: &lengths,
            reduced: &reduced,
            places: &places,
            selection_shape: &self.selected,
        };
        let measures = self.aggregation.measures.iter().enumerate();
        let each = measures.map(|(nth, measure)| match measure {
            Measure::Order(_) => {
                let search = self.search(tile, nth, parts)?;
                Ok(Part::Order(search.count(&block)?))
            }
            measure => Part::of(measure, &block, parts, &self.selected),
        });
        each.collect()
    }

    /// The search for the order statistics of a tile.
    fn search(&self, tile: &Tile, nth: usize, parts: &[AxisPart]) -> Result<Arc<Search>, Error> {
        let mut searches = lock(&self.searches);
        if let Some(search) = searches.get(&(tile.clone(), nth)) {
            return Ok(search.clone());
        }
        let Measure::Order(statistics) = &self.aggregation.measures[nth] else {
            return Err(Error::Cancelled);
        };
        let axes = parts.iter().zip(&self.aggregation.roles);
        let kept = axes.filter(|(_, role)| role.is_kept());
        let kept = kept.map(|(part, _)| part.len()).product::<usize>();
        let all_cells = shape::elements(&self.kept)?.max(1);
        let cells = self.cells_per_kept();
        let share = self.search_bytes.saturating_mul(kept as u64) / all_cells;
        let needs = Needs::of(
            statistics,
            &self.measured,
            kept as u64,
            cells,
            self.workers as u64,
        );
        let memory = share.max(needs.least);
        if memory > self.reservation_bytes {
            return Err(Error::OverBudget {
                needed_bytes: memory,
                limit_bytes: self.reservation_bytes,
            });
        }
        let search = Search::new(
            statistics.clone(),
            &self.measured,
            kept,
            cells,
            memory,
            self.workers,
        )?;
        let search = Arc::new(search);
        searches.insert((tile.clone(), nth), search.clone());
        Ok(search)
    }

    /// Writes the results of a tile, one of whose boxes has these cells; or goes on to the next
    /// pass.
    fn finish(&self, tile: &Tile, box_parts: &[AxisPart], found: Parts) -> Result<(), Error> {
        let mut group = tile.iter();
        let parts: Vec<AxisPart> = box_parts
            .iter()
            .zip(&self.aggregation.roles)
            .map(|(part, role)| {
                let target = match role {
                    Role::Kept => {
                        group.next();
                        part.target.clone()
                    }
                    Role::Grouped(_) => vec![group.next().copied().unwrap_or(0)],
                    Role::Reduced => vec![0],
                };
                AxisPart {
                    source: (0..target.len() as u64).collect(),
                    target,
                }
            })
            .collect();
        for (nth, part) in found.into_iter().enumerate() {
            let measure = &self.aggregation.measures[nth];
            let element = self.results[nth].size_bytes().unwrap_or(8);
            match (measure, part) {
                (Measure::Order(statistics), Part::Order(found)) => {
                    let Some(bytes) = self.advance(tile, nth, found)? else {
                        continue;
                    };
                    let out = &mut lock(&self.out)[nth];
                    let each = bytes.len() / statistics.len();
                    let whole = out.len() / statistics.len();
                    for quantile in 0..statistics.len() {
                        let from = &bytes[quantile * each..][..each];
                        self.scatter(&parts, from, &mut out[quantile * whole..][..whole], element);
                    }
                }
                (measure, part) => {
                    let bytes = part.finish()?;
                    let out = &mut lock(&self.out)[nth];
                    self.scatter(&parts, &bytes, out, element * measure.results());
                }
            }
        }
        Ok(())
    }

    /// Goes on with a search; gives its results if it is done.
    fn advance(&self, tile: &Tile, nth: usize, found: Found) -> Result<Option<Vec<u8>>, Error> {
        let mut searches = lock(&self.searches);
        let search = searches
            .get_mut(&(tile.clone(), nth))
            .ok_or(Error::Cancelled)?;
        let mut next = Search::clone(search);
        let goes_on = next.advance(found);
        if goes_on && self.aggregation.passes == Some(1) {
            let approximation = next.finish_approximate()?;
            let mut bound = lock(&self.error_bound);
            *bound = bound.max(approximation.error_max());
            *search = Arc::new(next);
            return Ok(Some(approximation.values));
        }
        if goes_on {
            *search = Arc::new(next);
            return Ok(None);
        }
        let results = next.finish()?;
        *search = Arc::new(next);
        Ok(Some(results))
    }

    fn scatter(&self, parts: &[AxisPart], bytes: &[u8], out: &mut [u8], element: usize) {
        let tile_shape: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        gather::for_each_run(parts, &tile_shape, &self.kept, |from, to, count| {
            let (from, to) = (from as usize * element, to as usize * element);
            let length = count as usize * element;
            out[to..to + length].copy_from_slice(&bytes[from..from + length]);
        });
    }
}
