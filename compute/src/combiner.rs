//! The one order in which partials merge, whatever order they come in.

use std::collections::HashMap;

use crate::Partial;

/// What is known of some boxes, and merges with what is known of those that follow.
pub trait Merge {
    /// Merges what is known of the boxes that follow, over the same kept cells.
    fn merge(&mut self, later: &Self);
}

impl Merge for Partial {
    fn merge(&mut self, later: &Self) {
        Self::merge(self, later);
    }
}

impl<P: Merge> Merge for Vec<P> {
    fn merge(&mut self, later: &Self) {
        self.iter_mut().zip(later).for_each(|(a, b)| a.merge(b));
    }
}

/// Merges partials numbered from 0 as a Merkle tree would: the left part always takes the largest
/// power of two.
///
/// - The merged partial depends on the partials and their numbers alone, so its bits are the same
///   for any number of threads.
/// - Holds about as many partials as the number of those that came has binary digits, if they come
///   about in order.
#[derive(Debug)]
pub struct Combiner<P = Partial> {
    /// Merged partials by their level and number there: at level l, of 2^l boxes.
    blocks: HashMap<(u32, u64), P>,
    missing: u64,
}

impl<P: Merge> Combiner<P> {
    /// Of so many partials, none of them there yet.
    pub fn new(partials: u64) -> Self {
        Self {
            blocks: HashMap::new(),
            missing: partials,
        }
    }

    /// Takes a partial, each once. Gives what all come to once they are there.
    pub fn push(&mut self, number: u64, partial: P) -> Option<P> {
        let (mut level, mut number, mut merged) = (0, number, partial);
        while let Some(mut other) = self.blocks.remove(&(level, number ^ 1)) {
            if number.is_multiple_of(2) {
                merged.merge(&other);
            } else {
                other.merge(&merged);
                merged = other;
            }
            (level, number) = (level + 1, number / 2);
        }
        self.blocks.insert((level, number), merged);
        self.missing -= 1;
        if self.missing > 0 {
            return None;
        }
        // What is left are ever smaller powers of two, from left to right.
        let mut left: Vec<((u32, u64), P)> = self.blocks.drain().collect();
        left.sort_unstable_by_key(|((level, _), _)| *level);
        let mut blocks = left.into_iter().map(|(_, block)| block);
        let mut right = blocks.next()?;
        for mut left in blocks {
            left.merge(&right);
            right = left;
        }
        Some(right)
    }

    /// What these partials come to, in their order; `None` if there is none.
    pub fn merge_all(partials: Vec<P>) -> Option<P> {
        let mut combiner = Self::new(partials.len() as u64);
        let mut numbered = (0..).zip(partials);
        numbered.find_map(|(number, partial)| combiner.push(number, partial))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Merge for String {
        fn merge(&mut self, later: &Self) {
            *self = format!("({self}{later})");
        }
    }

    fn balanced(parts: &[String]) -> String {
        match parts {
            [one] => one.clone(),
            parts => {
                let (left, right) = parts.split_at(parts.len().next_power_of_two() / 2);
                format!("({}{})", balanced(left), balanced(right))
            }
        }
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            order in (1usize..70).prop_flat_map(|n| Just((0..n as u64).collect::<Vec<_>>()).prop_shuffle())
        ) {
            let parts: Vec<String> = (0..order.len()).map(|n| format!("{n},")).collect();
            let mut combiner = Combiner::new(parts.len() as u64);
            let mut done = None;
            for number in order {
                prop_assert_eq!(done.take(), None);
                done = combiner.push(number, parts[number as usize].clone());
            }
            let wanted = balanced(&parts);
            prop_assert_eq!(done.as_deref(), Some(&*wanted));
            prop_assert_eq!(Combiner::merge_all(parts), Some(wanted));
        }
    }
}
