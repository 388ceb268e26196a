//! Which shapes of shards and inner chunks suit an array.
//!
//! ```text
//! shape, with room to grow ─► inner chunk: halved where its reader needs length least
//!                          ─► moved a little to fit the file's own chunks, so that each is
//!                             decompressed once
//!                          ─► shard: multiplied up to a size that is written from memory
//! ```

use std::collections::BTreeMap;

use crate::Error;
use crate::source::{Grows, Variable};

/// Inner chunks aim at this size: small enough for a map, large enough to compress and to read at
/// the speed of the network.
const INNER_TARGET_BYTES: u64 = 1 << 20;
/// Shards aim at this size: few objects, each still written from memory.
const SHARD_TARGET_BYTES: u64 = 32 << 20;
/// Arrays up to this size are one inner chunk.
const SMALL_BYTES: u64 = 2 << 20;
/// Largest shard a user may ask for: one is in memory while it is written.
const MAX_SHARD_BYTES: u64 = 256 << 20;

/// An inner chunk may grow to this part of its target, in quarters, to fit the file's chunks.
const ALIGNED_QUARTERS: u64 = 6;
/// Inner chunks of what may grow have room for so many bytes: coordinates, which are appended to a
/// few values at a time.
const ROOM_BYTES: u64 = 64 << 10;
/// What is said to grow is taken to become this long …
const ROOM_LENGTH: u64 = 1024;
/// … but inner chunks have room for so many times what there is at most: whoever appends as much
/// again writes them so many times.
const ROOM_TIMES: u64 = 16;
/// Dimensions along which series run, wherever they are.
const SERIES: [&str; 4] = ["time", "valid_time", "time_counter", "t"];

/// How an array will be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Long along the first dimension: time series at points.
    Series,
    /// Long along the last two: maps at one time.
    Maps,
    /// Some of each.
    #[default]
    Both,
    /// Whole samples along the first dimension.
    Ml,
}

impl std::str::FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "series" => Ok(Self::Series),
            "maps" => Ok(Self::Maps),
            "both" => Ok(Self::Both),
            "ml" => Ok(Self::Ml),
            other => Err(format!("{other:?} is none of series, maps, both, ml")),
        }
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Series => "series",
            Self::Maps => "maps",
            Self::Both => "both",
            Self::Ml => "ml",
        })
    }
}

/// Shapes of an array's shards and inner chunks; the one is a multiple of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Shape of a shard.
    pub shard: Vec<u64>,
    /// Shape of an inner chunk.
    pub inner: Vec<u64>,
}

/// Lengths the user gave, by dimension name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths(pub BTreeMap<String, u64>);

impl std::str::FromStr for Lengths {
    type Err = String;

    /// `time=24,lat=90`.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (name, length) = pair
                .split_once('=')
                .ok_or(format!("{pair:?} is not NAME=LENGTH"))?;
            let length = length
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|&length| length > 0);
            let length =
                length.ok_or(format!("{pair:?}: the length must be a positive integer"))?;
            Ok((name.trim().to_owned(), length))
        };
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(pair)
            .collect::<Result<_, String>>()
            .map(Self)
    }
}

/// What is known of how an array will be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes<'a> {
    /// How it will be read.
    pub(crate) access: Access,
    /// Lengths of inner chunks that the user gave.
    pub(crate) inner: &'a Lengths,
    /// Lengths of shards that the user gave.
    pub(crate) shards: &'a Lengths,
    /// Where more data is expected.
    pub(crate) grows: Option<Grows>,
}

/// Shapes for `variable`, to be read as `access` says; what the user gave wins.
///
/// # Errors
/// [`Error::Option`] if what the user gave does not fit together.
pub fn choose(
    variable: &Variable,
    access: Access,
    inner_lengths: &Lengths,
    shard_lengths: &Lengths,
) -> Result<Chunking, Error> {
    let wishes = Wishes {
        access,
        inner: inner_lengths,
        shards: shard_lengths,
        grows: None,
    };
    advise(variable, &wishes)
}

/// The same with all that is known.
pub(crate) fn advise(variable: &Variable, wishes: &Wishes<'_>) -> Result<Chunking, Error> {
    let advice = Advice::new(variable, wishes);
    let inner = advice.aligned(advice.inner());
    advice.sharded(inner)
}

/// A variable on its way to its shapes.
struct Advice<'a> {
    variable: &'a Variable,
    wishes: &'a Wishes<'a>,
    /// Bytes of an element.
    element: u64,
    /// Lengths of the array, with room to grow; at least 1.
    lengths: Vec<u64>,
    /// Longest that inner chunks may be.
    longest: Vec<u64>,
    /// Along which series run.
    series: usize,
    /// Along which maps lie.
    maps: Vec<usize>,
}

impl<'a> Advice<'a> {
    fn new(variable: &'a Variable, wishes: &'a Wishes<'a>) -> Self {
        let rank = variable.shape.len();
        let grown = match wishes.grows {
            Some(Grows::Perhaps(axis) | Grows::Surely(axis)) => Some(axis),
            None => None,
        };
        let is_series = |name: &String| SERIES.contains(&name.to_ascii_lowercase().as_str());
        let series = grown
            .or_else(|| variable.dimensions.iter().position(is_series))
            .filter(|&axis| axis < rank)
            .unwrap_or(0);
        let mut maps: Vec<usize> = (0..rank).rev().filter(|&axis| axis != series).collect();
        maps.truncate(2);
        let mut advice = Self {
            variable,
            wishes,
            // Texts are taken for so many.
            element: variable.data_type.size_bytes().unwrap_or(32).max(1) as u64,
            lengths: variable.shape.iter().map(|&length| length.max(1)).collect(),
            longest: vec![u64::MAX; rank],
            series,
            maps,
        };
        if let Some(axis) = grown.filter(|&axis| axis < rank) {
            let mut step = advice.lengths.clone();
            step[axis] = 1;
            let mut room = ROOM_BYTES / advice.bytes(&step).max(1);
            let length = advice.lengths[axis];
            if let Some(Grows::Surely(_)) = wishes.grows {
                advice.longest[axis] = room.max(length.saturating_mul(ROOM_TIMES));
                room = room.max(ROOM_LENGTH);
            }
            advice.lengths[axis] = length.max(room);
        }
        advice
    }

    fn bytes(&self, lengths: &[u64]) -> u64 {
        let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
        lengths.iter().fold(self.element, multiply)
    }

    /// The length that the user gave for a dimension.
    fn given(&self, lengths: &Lengths, axis: usize) -> Option<u64> {
        lengths.0.get(&self.variable.dimensions[axis]).copied()
    }

    fn is_free(&self, axis: usize) -> bool {
        self.given(self.wishes.inner, axis).is_none()
    }

    /// Bytes that an inner chunk aims at.
    fn target(&self) -> u64 {
        match self.bytes(&self.lengths) <= SMALL_BYTES {
            true => SMALL_BYTES,
            false => INNER_TARGET_BYTES,
        }
    }

    fn inner(&self) -> Vec<u64> {
        let lengths = self.lengths.iter().zip(&self.longest);
        let mut inner: Vec<u64> = lengths
            .map(|(length, longest)| *length.min(longest))
            .collect();
        for (axis, length) in inner.iter_mut().enumerate() {
            if let Some(wanted) = self.given(self.wishes.inner, axis) {
                // More than there is takes memory for nothing, unless it is to be filled later.
                *length = match self.wishes.grows {
                    Some(Grows::Perhaps(grown) | Grows::Surely(grown)) if grown == axis => wanted,
                    _ => wanted.min(*length),
                };
            }
        }
        while self.bytes(&inner) > self.target() {
            match self.axis_to_halve(&inner) {
                Some(axis) => inner[axis] = inner[axis].div_ceil(2),
                None => break,
            }
        }
        inner
    }

    /// The dimension to make shorter: the one the access needs least.
    fn axis_to_halve(&self, inner: &[u64]) -> Option<usize> {
        let splits = |axis: &usize| self.is_free(*axis) && inner[*axis] > 1;
        let longest = |axes: &[usize]| {
            axes.iter()
                .copied()
                .filter(splits)
                .max_by_key(|&axis| inner[axis])
        };
        let series = [self.series];
        let others: Vec<usize> = (0..inner.len())
            .filter(|axis| *axis != self.series && !self.maps.contains(axis))
            .collect();
        let chunks = |axes: &[usize]| -> u64 {
            let count = |&axis: &usize| self.lengths[axis].div_ceil(inner[axis]);
            axes.iter().map(count).fold(1, u64::saturating_mul)
        };
        let order: [&[usize]; 3] = match self.wishes.access {
            Access::Ml => return (0..inner.len()).find(|axis| splits(axis)),
            Access::Series => [&others, &self.maps, &series],
            Access::Maps => [&others, &series, &self.maps],
            // A series and a map then take about as many inner chunks.
            Access::Both if chunks(&series) <= chunks(&self.maps) => [&others, &series, &self.maps],
            Access::Both => [&others, &self.maps, &series],
        };
        order.into_iter().find_map(longest)
    }

    /// Length of the file's chunks along a dimension, where several make it up.
    fn source(&self, axis: usize) -> Option<u64> {
        let chunk = *self.variable.chunk_shape.as_ref()?.get(axis)?;
        (chunk > 1 && chunk < self.variable.shape[axis]).then_some(chunk)
    }

    /// The inner chunk with lengths that divide those of the file's chunks, or are multiples of
    /// them, where such are near.
    fn aligned(&self, mut inner: Vec<u64>) -> Vec<u64> {
        for axis in 0..inner.len() {
            let length = inner[axis];
            let Some(source) = self.source(axis).filter(|_| self.is_free(axis)) else {
                continue;
            };
            if length >= self.lengths[axis] {
                continue;
            }
            let near = (length / 2).max(1)..=(length.saturating_mul(3) / 2).min(self.lengths[axis]);
            let candidate = if source <= length {
                let multiple = ((length + source / 2) / source).max(1) * source;
                [multiple, length / source * source]
                    .into_iter()
                    .find(|c| near.contains(c))
            } else {
                let divides = |candidate: &u64| source.is_multiple_of(*candidate);
                near.filter(divides)
                    .min_by_key(|candidate| candidate.abs_diff(length))
            };
            if let Some(candidate) = candidate {
                let mut moved = inner.clone();
                moved[axis] = candidate;
                if self.bytes(&moved) / ALIGNED_QUARTERS <= self.target() / 4 {
                    inner = moved;
                }
            }
        }
        inner
    }

    /// The shards of such inner chunks.
    fn sharded(&self, mut inner: Vec<u64>) -> Result<Chunking, Error> {
        let mut shard = inner.clone();
        let mut fixed = vec![false; inner.len()];
        for axis in 0..inner.len() {
            if let Some(wanted) = self.given(self.wishes.shards, axis) {
                if wanted < inner[axis] && self.is_free(axis) {
                    inner[axis] = wanted;
                }
                if wanted % inner[axis] != 0 {
                    let reason = format!(
                        "{}={wanted} is no multiple of the inner chunk's {}; give --chunks too",
                        self.variable.dimensions[axis], inner[axis]
                    );
                    return Err(Error::Option {
                        option: "--shards",
                        reason,
                    });
                }
                shard[axis] = wanted;
                fixed[axis] = true;
            }
        }
        let fits = |shard: &[u64]| self.bytes(shard) <= SHARD_TARGET_BYTES;
        // Whole chunks of the file first, last dimensions before others.
        for axis in (0..inner.len()).rev().filter(|&axis| !fixed[axis]) {
            let Some(source) = self.source(axis) else {
                continue;
            };
            let mut larger = shard.clone();
            larger[axis] = least_common_multiple(inner[axis], source);
            if larger[axis] < self.lengths[axis].saturating_mul(2) && fits(&larger) {
                shard = larger;
            }
        }
        // Then doubles the dimension with the fewest inner chunks a shard.
        while let Some(axis) = (0..inner.len())
            .rev()
            .filter(|&axis| !fixed[axis] && shard[axis] < self.lengths[axis])
            .min_by_key(|&axis| shard[axis] / inner[axis])
        {
            let all = self.lengths[axis].div_ceil(inner[axis]) * inner[axis];
            let mut larger = shard.clone();
            larger[axis] = (shard[axis] * 2).min(all);
            if !fits(&larger) {
                break;
            }
            shard = larger;
        }
        if self.bytes(&shard) > MAX_SHARD_BYTES {
            let reason = format!(
                "shards of {shard:?} of variable {:?} take {} MiB, the most is {}",
                self.variable.name,
                self.bytes(&shard) >> 20,
                MAX_SHARD_BYTES >> 20
            );
            return Err(Error::Option {
                option: "--shards",
                reason,
            });
        }
        Ok(Chunking { shard, inner })
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use array::DataType;

    use super::*;

    fn variable(shape: &[u64]) -> Variable {
        Variable {
            name: "v".into(),
            dimensions: (0..shape.len()).map(|axis| format!("d{axis}")).collect(),
            shape: shape.to_vec(),
            data_type: DataType::Float32,
            attributes: vec![],
            chunk_shape: None,
            handle: 0,
        }
    }

    #[test]
    fn shapes_suit_size_and_access() {
        let none = Lengths::default();
        let choose =
            |shape: &[u64], access| choose(&variable(shape), access, &none, &none).unwrap();
        assert_eq!(
            choose(&[], Access::Both),
            Chunking {
                shard: vec![],
                inner: vec![]
            }
        );
        assert_eq!(choose(&[0, 5], Access::Both).inner, [1, 5]);
        assert_eq!(choose(&[110, 64, 128], Access::Both).inner, [55, 64, 64]);
        let large = choose(&[10_000, 721, 1440], Access::Both);
        assert!(large.inner.iter().product::<u64>() * 4 <= INNER_TARGET_BYTES);
        assert!(large.shard.iter().product::<u64>() * 4 <= SHARD_TARGET_BYTES);
        assert!(
            large
                .shard
                .iter()
                .zip(&large.inner)
                .all(|(shard, inner)| shard % inner == 0)
        );
        assert!(choose(&[10_000, 721, 1440], Access::Series).inner[0] > 1000);
        assert_eq!(
            choose(&[10_000, 721, 360], Access::Maps).inner,
            [1, 721, 360]
        );
        assert_eq!(
            choose(&[10_000, 100, 100], Access::Ml).inner[1..],
            [100, 100]
        );
    }

    /// Chosen for a variable with these chunks in its file, and room to grow.
    fn advised(
        dimensions: &[&str],
        shape: &[u64],
        source: Option<&[u64]>,
        access: Access,
        grows: Option<Grows>,
    ) -> Chunking {
        let mut variable = variable(shape);
        variable.dimensions = dimensions.iter().map(|&name| name.to_owned()).collect();
        variable.chunk_shape = source.map(<[u64]>::to_vec);
        let none = Lengths::default();
        let wishes = Wishes {
            access,
            inner: &none,
            shards: &none,
            grows,
        };
        advise(&variable, &wishes).unwrap()
    }

    #[test]
    fn a_series_and_a_map_take_about_as_many_inner_chunks() {
        let shape = [10_000, 721, 1440];
        let chosen = advised(&["time", "lat", "lon"], &shape, None, Access::Both, None).inner;
        let count = |axis: usize| shape[axis].div_ceil(chosen[axis]);
        let (series, map) = (count(0), count(1) * count(2));
        assert!(series <= 2 * map && map <= 4 * series, "{chosen:?}");
        // Members and levels are read one at a time; series run along time wherever it is.
        let dimensions = ["member", "time", "level", "lat", "lon"];
        let shape = [8, 5000, 37, 181, 360];
        let chosen = advised(&dimensions, &shape, None, Access::Series, None).inner;
        assert_eq!((chosen[0], chosen[1], chosen[2]), (1, 5000, 1));
        let chosen = advised(&dimensions, &shape, None, Access::Maps, None).inner;
        assert_eq!((chosen[0], &chosen[2..]), (1, [1, 181, 360].as_slice()));
    }

    #[test]
    fn inner_chunks_follow_the_chunks_of_the_file() {
        let dimensions = ["time", "lat", "lon"];
        for (shape, source, access) in [
            ([8760, 721, 1440], [24, 96, 206], Access::Both),
            ([8760, 721, 1440], [100, 100, 100], Access::Both),
            ([3650, 192, 288], [1, 192, 288], Access::Both),
            ([1460, 361, 720], [1460, 30, 30], Access::Series),
        ] {
            let chosen = advised(&dimensions, &shape, Some(&source), access, None);
            let bytes = |lengths: &[u64]| lengths.iter().product::<u64>() * 4;
            assert!(bytes(&chosen.inner) <= INNER_TARGET_BYTES / 4 * ALIGNED_QUARTERS);
            assert!(bytes(&chosen.shard) <= SHARD_TARGET_BYTES);
            for axis in 0..3 {
                let (inner, shard) = (chosen.inner[axis], chosen.shard[axis]);
                let source = source[axis];
                assert_eq!(shard % inner, 0);
                let is_split = source > 1 && source < shape[axis] && inner < shape[axis];
                let fits = inner % source == 0 || source % inner == 0;
                assert!(!is_split || fits, "{chosen:?} of {source}");
                // No chunk of the file belongs to two shards.
                assert!(!is_split || shard % source == 0, "{chosen:?} of {source}");
            }
        }
    }

    #[test]
    fn what_grows_has_room() {
        let map = ["time", "lat", "lon"];
        let one = [1, 721, 1440];
        let stays = advised(&map, &one, None, Access::Both, None);
        assert_eq!(stays.inner[0], 1);
        let grows = advised(&map, &one, None, Access::Both, Some(Grows::Surely(0)));
        assert!((4..=16).contains(&grows.inner[0]), "{grows:?}");
        // A single step of an unlimited dimension is as likely to stay alone.
        let perhaps = advised(&map, &one, None, Access::Both, Some(Grows::Perhaps(0)));
        assert_eq!(perhaps, stays);
        // Coordinates have room in any case.
        for grows in [Grows::Perhaps(0), Grows::Surely(0)] {
            let time = advised(&["time"], &[1], None, Access::Both, Some(grows));
            assert_eq!(time.inner, [16 << 10]);
        }
        // What is long already needs none.
        let long = [5000, 64, 128];
        let grows = advised(&map, &long, None, Access::Both, Some(Grows::Surely(0)));
        assert_eq!(grows, advised(&map, &long, None, Access::Both, None));
    }

    #[test]
    fn what_the_user_gives_wins_or_is_refused() {
        let parse = |text: &str| text.parse::<Lengths>().unwrap();
        let chosen = choose(
            &variable(&[1000, 1000]),
            Access::Both,
            &parse("d0=10,d1=100"),
            &parse("d0=20, d1=200"),
        )
        .unwrap();
        assert_eq!(
            chosen,
            Chunking {
                shard: vec![20, 200],
                inner: vec![10, 100]
            }
        );
        assert!(
            choose(
                &variable(&[1000, 1000]),
                Access::Both,
                &parse("d0=10"),
                &parse("d0=15")
            )
            .is_err()
        );
        let huge = variable(&[1 << 20, 1 << 20]);
        assert!(
            choose(
                &huge,
                Access::Both,
                &parse(""),
                &parse("d0=1048576,d1=1048576")
            )
            .is_err()
        );
        for bad in ["x", "x=0", "x=-1", "x=y"] {
            assert!(bad.parse::<Lengths>().is_err(), "{bad}");
        }
    }
}
