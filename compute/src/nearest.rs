//! The rows of a matrix that are nearest to given vectors: all of them are looked at.
//!
//! | metric | score | best |
//! |---|---|---|
//! | `cosine` | `q·x / (√(q·q) · √(x·x))` | highest |
//! | `l2` | `√Σ(q−x)²` | lowest |
//! | `ip` | `q·x` | highest |
//!
//! Sums are those of [`crate::lanes`]; roots, products and quotients are rounded once each, as IEEE 754
//! says. Of equal scores the one with the lower row is better. A score of NaN is never found: that of
//! rows and queries that hold NaN, and of cosine where the product of the norms is zero or infinite, as
//! with a vector of zeros.
//!
//! What is found does not depend on how rows are split between searches: scores are those of single
//! rows, and the order of (score, row) is total.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use array::DataType;

use crate::Error;
use crate::lanes::{
    PANEL_COLUMNS, PANEL_ROWS, Products, SquaredDifferences, SumOf, Vectors, own_sums, sums,
};

/// How near two vectors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The cosine of the angle between them.
    #[default]
    Cosine,
    /// Their Euclidean distance.
    L2,
    /// Their inner product.
    InnerProduct,
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "cosine" => Ok(Self::Cosine),
            "l2" => Ok(Self::L2),
            "ip" => Ok(Self::InnerProduct),
            other => Err(Error::Parameter {
                name: "metric",
                reason: format!("{other:?} is none of cosine, l2, ip"),
            }),
        }
    }
}

/// Vectors whose nearest rows are wanted.
#[derive(Clone, Debug)]
pub struct Queries {
    metric: Metric,
    k: usize,
    length: usize,
    /// `float64`, one query after the other.
    values: Vec<u8>,
    norms: Vec<f64>,
}

/// Bytes that a candidate takes, and that one which is found takes in the answer.
const CANDIDATE_BYTES: u64 = 16;

impl Queries {
    /// The `k` nearest to each of some vectors of `length` elements, which come one after the other.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `k` or `length` is zero, or `values` are not whole vectors.
    pub fn new(metric: Metric, k: usize, length: usize, values: &[f64]) -> Result<Self, Error> {
        let refused = |name, reason: &str| Error::Parameter {
            name,
            reason: reason.to_owned(),
        };
        if k == 0 {
            return Err(refused("k", "is 0: ask for one or more"));
        }
        if length == 0 {
            return Err(refused("vectors", "have no elements"));
        }
        if !values.len().is_multiple_of(length) {
            return Err(refused("vectors", "are not of one length"));
        }
        let values: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let mut queries = Self {
            metric,
            k,
            length,
            values,
            norms: Vec::new(),
        };
        let vectors = queries.vectors();
        let panels = (0..vectors.count()).step_by(PANEL_ROWS);
        let panels = panels.map(|start| start..vectors.count().min(start + PANEL_ROWS));
        queries.norms = panels.flat_map(|panel| norms(&vectors, panel)).collect();
        Ok(queries)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.values.len() / self.length / size_of::<f64>()
    }

    /// Elements of each.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many rows are wanted for each.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Memory that one search takes, at most, in bytes.
    pub fn search_bytes(&self) -> u64 {
        let candidates = (self.count() as u64).saturating_mul(self.k as u64);
        candidates.saturating_mul(CANDIDATE_BYTES)
    }

    /// What is summed over each query and row.
    pub fn sum_of(&self) -> SumOf {
        match self.metric {
            Metric::L2 => SumOf::SquaredDifferences,
            Metric::Cosine | Metric::InnerProduct => SumOf::Products,
        }
    }

    /// Whether the products of rows with themselves are needed too.
    pub fn needs_norms(&self) -> bool {
        self.metric == Metric::Cosine
    }

    /// The queries as vectors.
    pub fn vectors(&self) -> Vectors<'_> {
        Vectors::rows(
            &DataType::Float64,
            &self.values,
            self.values.len() / self.length / size_of::<f64>(),
            self.length,
        )
    }
}

fn norms(vectors: &Vectors<'_>, which: Range<usize>) -> Vec<f64> {
    let squares = own_sums::<Products>(vectors, which);
    squares.into_iter().map(f64::sqrt).collect()
}

/// Whether rows of this type can be searched: real numbers, but for times.
///
/// # Errors
/// [`Error::Undefined`] if not.
pub fn check(data_type: &DataType) -> Result<(), Error> {
    let is_number = data_type.is_float() || data_type.is_integer() || *data_type == DataType::Bool;
    match is_number {
        true => Ok(()),
        false => Err(Error::Undefined {
            reducer: "nearest",
            data_type: data_type.to_string(),
        }),
    }
}

/// One of the nearest: the greater one is worse.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The score, or its negative where the highest is best.
    badness: f64,
    row: u64,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let badness = self.badness.partial_cmp(&other.badness);
        // Never NaN.
        let badness = badness.unwrap_or(Ordering::Equal);
        badness.then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The nearest of the rows it was shown.
#[derive(Clone, Debug)]
pub struct Search {
    queries: Arc<Queries>,
    /// By query; the worst is on top.
    found: Vec<BinaryHeap<Candidate>>,
}

/// What was found, best first: `k` rows for each query, one query after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Numbers of rows; −1 where there are no more.
    pub rows: Vec<i64>,
    /// Their scores; NaN where there are no more.
    pub scores: Vec<f64>,
}

impl Search {
    /// A search that was shown nothing.
    pub fn new(queries: Arc<Queries>) -> Self {
        Self {
            found: vec![BinaryHeap::new(); queries.count()],
            queries,
        }
    }

    /// Looks at rows: whole ones, in C order, numbered from `first_row`.
    ///
    /// # Panics
    /// If they are not whole rows of real numbers.
    pub fn scan(&mut self, data_type: &DataType, rows: &[u8], first_row: u64) {
        let queries = self.queries.clone();
        let size = data_type.size_bytes().unwrap_or(1) * queries.length;
        let rows = Vectors::rows(data_type, rows, rows.len() / size, queries.length);
        let vectors = queries.vectors();
        for start in (0..rows.count()).step_by(PANEL_COLUMNS) {
            let part = start..rows.count().min(start + PANEL_COLUMNS);
            let norms = match queries.metric {
                Metric::Cosine => norms(&rows, part.clone()),
                Metric::L2 | Metric::InnerProduct => Vec::new(),
            };
            for first in (0..queries.count()).step_by(PANEL_ROWS) {
                let asked = first..queries.count().min(first + PANEL_ROWS);
                let sums = match queries.metric {
                    Metric::L2 => {
                        sums::<SquaredDifferences>(&vectors, asked.clone(), &rows, part.clone())
                    }
                    Metric::Cosine | Metric::InnerProduct => {
                        sums::<Products>(&vectors, asked.clone(), &rows, part.clone())
                    }
                };
                self.take(asked, &sums, &norms, first_row + start as u64);
            }
        }
    }

    /// Takes sums of some queries with rows numbered from `first_row`, those of one query together;
    /// for cosine, the norms of the rows too.
    fn take(&mut self, asked: Range<usize>, sums: &[f64], norms: &[f64], first_row: u64) {
        let queries = self.queries.clone();
        let count = sums.len() / asked.len().max(1);
        for (query, sums) in asked.zip(sums.chunks_exact(count.max(1))) {
            for (nth, &sum) in sums.iter().enumerate() {
                let badness = match queries.metric {
                    Metric::L2 => sum.sqrt(),
                    Metric::InnerProduct => -sum,
                    Metric::Cosine => -cosine(sum, queries.norms[query], norms[nth]),
                };
                let row = first_row + nth as u64;
                self.offer(query, Candidate { badness, row });
            }
        }
    }

    /// Looks at rows, numbered from `first_row`, whose sums with all queries were made elsewhere:
    /// [`Queries::sum_of`], those of one query together. For cosine, the products of the rows with
    /// themselves come with them.
    pub fn scan_sums(&mut self, sums: &[f64], own_products: &[f64], first_row: u64) {
        let norms: Vec<f64> = own_products.iter().map(|square| square.sqrt()).collect();
        self.take(0..self.queries.count(), sums, &norms, first_row);
    }

    /// Takes over what another search for the same queries has found.
    pub fn merge(&mut self, other: Self) {
        for (query, found) in other.found.into_iter().enumerate() {
            for candidate in found {
                self.offer(query, candidate);
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> Neighbours {
        let k = self.queries.k;
        let total = k.saturating_mul(self.found.len());
        let mut neighbours = Neighbours {
            rows: Vec::with_capacity(total),
            scores: Vec::with_capacity(total),
        };
        let is_distance = self.queries.metric == Metric::L2;
        for (query, found) in self.found.into_iter().enumerate() {
            for one in found.into_sorted_vec() {
                let score = if is_distance {
                    one.badness
                } else {
                    -one.badness
                };
                neighbours.rows.push(one.row.cast_signed());
                neighbours.scores.push(score);
            }
            neighbours.rows.resize((query + 1) * k, -1);
            neighbours.scores.resize((query + 1) * k, f64::NAN);
        }
        neighbours
    }

    fn offer(&mut self, query: usize, candidate: Candidate) {
        let found = &mut self.found[query];
        if candidate.badness.is_nan() {
            return;
        }
        if found.len() < self.queries.k {
            found.push(candidate);
        } else if let Some(mut worst) = found.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }
}

/// The cosine, from an inner product and two norms; NaN where a norm says nothing.
fn cosine(product: f64, query_norm: f64, row_norm: f64) -> f64 {
    let norms = query_norm * row_norm;
    if norms > 0.0 && norms.is_finite() {
        product / norms
    } else {
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::tests::reference;

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::InnerProduct];

    fn search(
        metric: Metric,
        k: usize,
        queries: &[f64],
        rows: &[f64],
        length: usize,
    ) -> Neighbours {
        let queries = Arc::new(Queries::new(metric, k, length, queries).unwrap());
        let mut search = Search::new(queries);
        search.scan(&DataType::Float64, bytemuck::cast_slice(rows), 0);
        search.finish()
    }

    /// All rows scored and sorted.
    fn naive(metric: Metric, k: usize, query: &[f64], rows: &[f64]) -> Vec<(i64, f64)> {
        let product = |a: &[f64], b: &[f64]| reference(a, b, |a, b| a * b);
        let norm = |a: &[f64]| product(a, a).sqrt();
        let mut all: Vec<(i64, f64)> = Vec::new();
        for (nth, row) in rows.chunks(query.len()).enumerate() {
            let score = match metric {
                Metric::Cosine => product(query, row) / (norm(query) * norm(row)),
                Metric::L2 => reference(query, row, |a, b| (a - b) * (a - b)).sqrt(),
                Metric::InnerProduct => product(query, row),
            };
            if !score.is_nan() {
                all.push((nth as i64, score));
            }
        }
        let sign = if metric == Metric::L2 { 1.0 } else { -1.0 };
        all.sort_by(|a, b| {
            let scores = (sign * a.1).partial_cmp(&(sign * b.1)).unwrap();
            scores.then(a.0.cmp(&b.0))
        });
        all.resize(k.max(all.len()), (-1, f64::NAN));
        all.truncate(k);
        all
    }

    #[test]
    fn the_best_come_first_and_ties_by_row() {
        let rows = [3.0, 0.0, 0.0, 1.0, 1.0, 0.0, 2.0, 0.0];
        let query = [1.0, 0.0];
        let cosine = search(Metric::Cosine, 3, &query, &rows, 2);
        assert_eq!((cosine.rows, cosine.scores), (vec![0, 2, 3], vec![1.0; 3]));
        let l2 = search(Metric::L2, 3, &query, &rows, 2);
        assert_eq!(l2.rows, [2, 3, 1]);
        assert_eq!(l2.scores, [0.0, 1.0, 2f64.sqrt()]);
        let ip = search(Metric::InnerProduct, 2, &query, &rows, 2);
        assert_eq!((ip.rows, ip.scores), (vec![0, 3], vec![3.0, 2.0]));
    }

    #[test]
    fn rows_that_say_nothing_are_never_found() {
        let rows = [f64::NAN, 1.0, 0.0, 0.0, 1e-200, 0.0, 1.0, 1.0];
        let found = search(Metric::Cosine, 4, &[1.0, 0.0], &rows, 2);
        assert_eq!(found.rows, [3, -1, -1, -1]);
        assert!(found.scores[1..].iter().all(|score| score.is_nan()));
        // Only NaN is left out where norms are not needed.
        assert_eq!(
            search(Metric::L2, 4, &[1.0, 0.0], &rows, 2).rows,
            [1, 2, 3, -1]
        );
        assert_eq!(
            search(Metric::InnerProduct, 4, &[1.0, 0.0], &rows, 2).rows,
            [3, 2, 1, -1]
        );
        for metric in METRICS {
            assert_eq!(search(metric, 1, &[f64::NAN, 0.0], &rows, 2).rows, [-1]);
        }
        assert_eq!(search(Metric::Cosine, 1, &[0.0, 0.0], &rows, 2).rows, [-1]);
    }

    #[test]
    fn zeros_of_either_sign_are_equal() {
        let rows = [0.0, -1.0, 0.0, 1.0];
        assert_eq!(
            search(Metric::InnerProduct, 2, &[1.0, 0.0], &rows, 2).rows,
            [0, 1]
        );
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let name = |error: Result<Queries, Error>| match error {
            Err(Error::Parameter { name, .. }) => name,
            _ => "nothing",
        };
        assert_eq!(name(Queries::new(Metric::L2, 0, 1, &[1.0])), "k");
        assert_eq!(name(Queries::new(Metric::L2, 1, 0, &[])), "vectors");
        assert_eq!(name(Queries::new(Metric::L2, 1, 2, &[1.0])), "vectors");
        assert_eq!(name(Queries::new(Metric::L2, 1, 2, &[])), "nothing");
        assert!("euclid".parse::<Metric>().is_err());
        for refused in [DataType::Complex64, DataType::String] {
            assert!(check(&refused).is_err());
        }
        assert!(check(&DataType::BFloat16).is_ok());
    }

    proptest! {
        #[test]
        fn searches_find_what_sorting_finds(
            length in 1usize..70, count in 0usize..150, asked in 1usize..40, k in 1usize..12,
            cuts in prop::collection::vec(0usize..150, 0..4),
            seed in any::<u32>(),
        ) {
            // Few values, so that there are ties, zeros, and now and then NaN.
            let number = |at: usize| {
                let mixed = (at as u32 ^ seed).wrapping_mul(2_654_435_761) >> 16;
                if mixed.is_multiple_of(997) { f64::NAN } else { f64::from(mixed % 3) - 1.0 }
            };
            let rows: Vec<f64> = (0..count * length).map(number).collect();
            let queries: Vec<f64> = (0..asked * length).map(|at| number(at + 100_000)).collect();
            for metric in METRICS {
                let wanted: Vec<(i64, f64)> = queries
                    .chunks(length)
                    .flat_map(|query| naive(metric, k, query, &rows))
                    .collect();
                let asked = Arc::new(Queries::new(metric, k, length, &queries).unwrap());
                // Parts in any order.
                let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(count)).collect();
                ends.extend([0, count]);
                ends.sort_unstable();
                let mut whole = Search::new(asked.clone());
                for pair in ends.windows(2).rev() {
                    let mut part = Search::new(asked.clone());
                    let bytes = bytemuck::cast_slice(&rows[pair[0] * length..pair[1] * length]);
                    part.scan(&DataType::Float64, bytes, pair[0] as u64);
                    whole.merge(part);
                }
                let found = whole.finish();
                let rows: Vec<i64> = wanted.iter().map(|one| one.0).collect();
                prop_assert_eq!(found.rows, rows);
                for (found, wanted) in found.scores.iter().zip(&wanted) {
                    let same = found == &wanted.1 || found.is_nan() && wanted.1.is_nan();
                    prop_assert!(same, "{found} {wanted:?}");
                }
            }
        }
    }
}
