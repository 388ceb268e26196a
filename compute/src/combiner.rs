//! The one order in which partials merge.

use crate::Partial;

/// Merges partials that come in order, as a Merkle tree would: the left part always takes the
/// largest power of two.
///
/// - The merged partial depends on the partials and their order alone, so its bits are the same for
///   any number of threads.
/// - Holds as many partials as the number pushed has binary digits.
#[derive(Debug, Default)]
pub struct Combiner {
    /// Partials of ever fewer boxes, each a power of two of them.
    stack: Vec<(u64, Partial)>,
}

impl Combiner {
    /// Takes the next partial.
    pub fn push(&mut self, partial: Partial) {
        let mut next = (1, partial);
        while let Some((size, mut left)) = self.stack.pop_if(|(size, _)| *size == next.0) {
            left.merge(&next.1);
            next = (size * 2, left);
        }
        self.stack.push(next);
    }

    /// The merged partial; `None` if there was none.
    pub fn finish(mut self) -> Option<Partial> {
        let (_, mut right) = self.stack.pop()?;
        while let Some((_, mut left)) = self.stack.pop() {
            left.merge(&right);
            right = left;
        }
        Some(right)
    }
}
