//! The keys of an array's stored chunks in the order of their text, a part at a time.
//!
//! Text orders numbers by their digits: 1, 10, 2. Keys that begin alike therefore lie together, and
//! the chunks they name are a few boxes of the grid. A set of keys is taken whole if it is small, and
//! else divided by its next digit: memory is bounded by what is asked for, however many chunks the
//! array has and however large its grid is.

use array::{ArrayMetadata, ChunkIndex, ChunkKeyEncoding, Region};
use storage::ArrayNode;

use crate::error::Failure;

/// Most chunks that are looked at together.
const TOGETHER: usize = 1024;

/// What separates coordinates in keys, and what stands before the first.
pub(crate) fn spelling(encoding: ChunkKeyEncoding) -> (char, String) {
    match encoding {
        ChunkKeyEncoding::Default { separator } => (separator, format!("c{separator}")),
        ChunkKeyEncoding::V2 { separator } => (separator, String::new()),
    }
}

/// The chunks of an array whose first coordinates are `at`, as a box of its grid.
pub(crate) fn box_at(metadata: &ArrayMetadata, at: &[u64]) -> Result<Region, Failure> {
    let mut start = at.to_vec();
    let mut lengths = vec![1; at.len()];
    let grid = metadata.grid().grid_shape();
    start.resize(grid.len(), 0);
    lengths.extend(grid.get(at.len()..).unwrap_or_default());
    Ok(Region::new(start, lengths)?)
}

/// Keys of stored chunks below a directory.
pub(crate) struct ChunkKeys<'a> {
    pub(crate) array: &'a ArrayNode,
    /// The coordinates the directory stands for.
    pub(crate) at: Vec<u64>,
    /// What stands before the first coordinate.
    pub(crate) lead: String,
    /// Only the names right below the directory, those of directories with a slash at their end.
    pub(crate) names_only: bool,
}

/// Keys that begin with the same text.
struct Set {
    text: String,
    /// The coordinates that are whole in the text.
    at: Vec<u64>,
    /// The digits after them.
    digits: String,
    /// Whether the digits are all of the next coordinate.
    is_whole: bool,
}

impl ChunkKeys<'_> {
    /// The first `most` keys after `after`, in the order of their text.
    pub(crate) async fn after(&self, after: &str, most: usize) -> Result<Vec<String>, Failure> {
        let metadata = self.array.metadata();
        let grid = metadata.grid().grid_shape();
        let mut found: Vec<String> = Vec::new();
        if grid.is_empty() {
            let only = box_at(metadata, &[])?;
            let is_stored = !self.array.some_chunks(&only, 1).await?.is_empty();
            let key = metadata.chunk_key_encoding.key(&ChunkIndex::new(vec![]));
            found.extend(Some(key).filter(|key| is_stored && key.as_str() > after && most > 0));
            return Ok(found);
        }
        let mut open = vec![Set {
            text: self.lead.clone(),
            at: self.at.clone(),
            digits: String::new(),
            is_whole: false,
        }];
        while let Some(set) = open.pop() {
            if found.len() >= most {
                break;
            }
            // All that begin so come before.
            if set.text.as_str() < after && !after.starts_with(&set.text) {
                continue;
            }
            let length = grid.get(set.at.len()).copied().unwrap_or(0);
            let together = if set.is_whole && self.names_only {
                1
            } else {
                TOGETHER
            };
            let (chunks, is_all) = self.chunks_in(&set, length, together).await?;
            if is_all || set.is_whole && self.names_only {
                let mut keys: Vec<String> = chunks.iter().map(|index| self.key(index)).collect();
                keys.retain(|key| key.as_str() > after);
                keys.sort();
                keys.dedup();
                found.extend(keys);
            } else {
                open.extend(self.divide(set));
            }
        }
        found.truncate(most);
        Ok(found)
    }

    /// Chunks of a set, at most `most`, and whether these are all.
    async fn chunks_in(
        &self,
        set: &Set,
        length: u64,
        most: usize,
    ) -> Result<(Vec<ChunkIndex>, bool), Failure> {
        let mut found = Vec::new();
        for (first, last) in numbers(set, length) {
            let mut region = box_at(self.array.metadata(), &set.at)?;
            let (mut start, mut lengths) = (region.start().to_vec(), region.shape().to_vec());
            let axis = set.at.len();
            (start[axis], lengths[axis]) = (first, last - first + 1);
            region = Region::new(start, lengths)?;
            let left = most + 1 - found.len();
            found.extend(self.array.some_chunks(&region, left).await?);
            if found.len() > most {
                return Ok((found, false));
            }
        }
        Ok((found, true))
    }

    /// The name of a chunk below the directory.
    fn key(&self, index: &ChunkIndex) -> String {
        let (separator, _) = spelling(self.array.metadata().chunk_key_encoding);
        let rest = index.as_slice().get(self.at.len()..).unwrap_or_default();
        let parts: Vec<String> = rest.iter().map(u64::to_string).collect();
        match parts.as_slice() {
            [first, _, ..] if self.names_only => format!("{first}/"),
            parts => format!("{}{}", self.lead, parts.join(&separator.to_string())),
        }
    }

    /// The parts of a set, the last of their keys first.
    fn divide(&self, set: Set) -> Vec<Set> {
        if set.is_whole {
            let (separator, _) = spelling(self.array.metadata().chunk_key_encoding);
            let mut at = set.at;
            at.extend(set.digits.parse::<u64>());
            return vec![Set {
                text: format!("{}{separator}", set.text),
                at,
                digits: String::new(),
                is_whole: false,
            }];
        }
        let with = |digit: &str, is_whole| Set {
            text: format!("{}{digit}", set.text),
            at: set.at.clone(),
            digits: format!("{}{digit}", set.digits),
            is_whole,
        };
        let digits = ["9", "8", "7", "6", "5", "4", "3", "2", "1"];
        let mut parts: Vec<Set> = digits.iter().map(|digit| with(digit, false)).collect();
        if set.digits.is_empty() {
            parts.push(with("0", true));
        } else {
            parts.push(with("0", false));
            // A separator, or the end, sorts before any digit.
            parts.push(with("", true));
        }
        parts
    }
}

/// The coordinates below `length` that begin with the digits of a set, as ranges with their ends.
fn numbers(set: &Set, length: u64) -> Vec<(u64, u64)> {
    let Some(end) = length.checked_sub(1) else {
        return Vec::new();
    };
    if set.digits.is_empty() {
        return vec![(0, end)];
    }
    let Ok(number) = set.digits.parse::<u64>() else {
        return Vec::new();
    };
    let mut ranges = Vec::new();
    let (mut first, mut last) = (u128::from(number), u128::from(number));
    while first <= u128::from(end) {
        let last_inside = last.min(u128::from(end));
        ranges.push((first as u64, last_inside as u64));
        if set.is_whole || number == 0 {
            break;
        }
        (first, last) = (first * 10, last * 10 + 9);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(digits: &str, is_whole: bool) -> Set {
        Set {
            text: digits.to_owned(),
            at: Vec::new(),
            digits: digits.to_owned(),
            is_whole,
        }
    }

    #[test]
    fn numbers_are_those_that_begin_so() {
        for length in [0, 1, 9, 10, 11, 100, 105, 1234] {
            for digits in ["", "1", "9", "10", "12", "105", "123", "99999"] {
                let ranges = numbers(&set(digits, false), length);
                let found: Vec<u64> = ranges.iter().flat_map(|&(a, b)| a..=b).collect();
                let begins = |number: &u64| number.to_string().starts_with(digits);
                let expected: Vec<u64> = (0..length).filter(begins).collect();
                assert_eq!(found, expected, "{digits} of {length}");
            }
        }
        assert_eq!(numbers(&set("1", true), 100), [(1, 1)]);
        let all = numbers(&set("18446744073709551614", false), u64::MAX);
        assert_eq!(all, [(u64::MAX - 1, u64::MAX - 1)]);
        assert_eq!(numbers(&set("18446744073709551616", false), u64::MAX), []);
    }
}
