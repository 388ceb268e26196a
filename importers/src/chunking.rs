//! Which shapes of shards and inner chunks suit an array.

use std::collections::BTreeMap;

use crate::Error;
use crate::source::Variable;

/// Inner chunks aim at this size: small enough for a map, large enough to compress and to read at
/// the speed of the network.
const INNER_TARGET_BYTES: u64 = 1 << 20;
/// Shards aim at this size: few objects, each still written from memory.
const SHARD_TARGET_BYTES: u64 = 32 << 20;
/// Arrays up to this size are one inner chunk.
const SMALL_BYTES: u64 = 2 << 20;
/// Largest shard a user may ask for: one is in memory while it is written.
const MAX_SHARD_BYTES: u64 = 256 << 20;

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
    let shape = &variable.shape;
    let element = variable.data_type.size_bytes().unwrap_or(32) as u64;
    let bytes = |lengths: &[u64]| {
        lengths
            .iter()
            .fold(element, |bytes, &length| bytes.saturating_mul(length))
    };
    let mut inner: Vec<u64> = shape.iter().map(|&length| length.max(1)).collect();
    let given = |lengths: &Lengths, axis: usize| lengths.0.get(&variable.dimensions[axis]).copied();
    for (axis, length) in inner.iter_mut().enumerate() {
        if let Some(wanted) = given(inner_lengths, axis) {
            *length = wanted.min((*length).max(1));
        }
    }
    let free: Vec<usize> = (0..shape.len())
        .filter(|&axis| given(inner_lengths, axis).is_none())
        .collect();
    while bytes(&inner)
        > if bytes(shape) <= SMALL_BYTES {
            SMALL_BYTES
        } else {
            INNER_TARGET_BYTES
        }
    {
        match axis_to_halve(&inner, &free, access) {
            Some(axis) => inner[axis] = inner[axis].div_ceil(2),
            None => break,
        }
    }
    let mut shard = inner.clone();
    let mut fixed = vec![false; shape.len()];
    for axis in 0..shape.len() {
        if let Some(wanted) = given(shard_lengths, axis) {
            if wanted < inner[axis] && given(inner_lengths, axis).is_none() {
                inner[axis] = wanted;
            }
            if wanted % inner[axis] != 0 {
                let reason = format!(
                    "{}={wanted} is no multiple of the inner chunk's {}; give --chunks too",
                    variable.dimensions[axis], inner[axis]
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
    // Doubles the dimension with the fewest inner chunks a shard, last dimensions first.
    while let Some(axis) = (0..shape.len())
        .rev()
        .filter(|&axis| !fixed[axis] && shard[axis] < shape[axis])
        .min_by_key(|&axis| shard[axis] / inner[axis])
    {
        let mut larger = shard.clone();
        larger[axis] = (shard[axis] * 2).min(shape[axis].div_ceil(inner[axis]) * inner[axis]);
        if bytes(&larger) > SHARD_TARGET_BYTES {
            break;
        }
        shard = larger;
    }
    if bytes(&shard) > MAX_SHARD_BYTES {
        let reason = format!(
            "shards of {shard:?} of variable {:?} take {} MiB, the most is {}",
            variable.name,
            bytes(&shard) >> 20,
            MAX_SHARD_BYTES >> 20
        );
        return Err(Error::Option {
            option: "--shards",
            reason,
        });
    }
    Ok(Chunking { shard, inner })
}

/// The dimension to make shorter: the one the access needs least.
fn axis_to_halve(inner: &[u64], free: &[usize], access: Access) -> Option<usize> {
    let splittable = || free.iter().copied().filter(|&axis| inner[axis] > 1);
    let longest = |axes: &mut dyn Iterator<Item = usize>| axes.max_by_key(|&axis| inner[axis]);
    let map_axes = inner.len().saturating_sub(2);
    match access {
        Access::Both => longest(&mut splittable()),
        Access::Series => longest(&mut splittable().filter(|&axis| axis > 0))
            .or_else(|| longest(&mut splittable())),
        Access::Maps => longest(&mut splittable().filter(|&axis| axis < map_axes))
            .or_else(|| longest(&mut splittable())),
        Access::Ml => splittable().next(),
    }
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
