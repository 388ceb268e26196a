//! From labels to positions.

use std::ops::Range;

use array::AxisSelection;

use super::index::tightest;
use super::longitude::{Extent, SLACK};
use super::values::{Point, Span, Values};
use super::{Coordinate, Labels, Match};
use crate::Error;
use crate::cf::number::quoted;

impl Coordinate {
    /// The positions that labels select, by the rules of this module. A range may be empty.
    ///
    /// # Errors
    /// [`Error::LabelText`] for a label that is not of the kind of the values; [`Error::Label`] for
    /// one that the coordinate does not have, and for ranges where values are not sorted.
    pub fn select(&self, labels: &Labels) -> Result<AxisSelection, Error> {
        match labels {
            Labels::One(label, Match::Exact) => self.one(label),
            Labels::One(label, method) => Ok(AxisSelection::Index(self.matching(label, *method)?)),
            Labels::List(labels, method) => {
                let positions = labels.iter().map(|label| self.matching(label, *method));
                Ok(tightest(positions.collect::<Result<_, _>>()?))
            }
            Labels::Range(first, last) => self.range(first.as_deref(), last.as_deref()),
        }
    }

    fn one(&self, label: &str) -> Result<AxisSelection, Error> {
        let span = self.values.read(label)?;
        let ranks = if span.is_partial {
            self.between(Some(&span.first), Some(&span.last))
        } else {
            self.equal(&span.first)
        };
        if ranks.is_empty() {
            return Err(self.missing(label, &span));
        }
        Ok(if ranks.len() == 1 && !span.is_partial {
            AxisSelection::Index(self.index.position(ranks.start))
        } else {
            self.index.select(&[ranks])
        })
    }

    /// The one position that a label means.
    fn matching(&self, label: &str, method: Match) -> Result<u64, Error> {
        let span = self.values.read(label)?;
        if method == Match::Exact {
            return self.only(label, &span, self.equal(&span.first));
        }
        let is_text = matches!(self.values, Values::Texts(_));
        if is_text && method == Match::Nearest {
            let reason = "holds text, of which none is nearest; use pad, backfill or exact labels";
            return Err(self.fail(reason.to_owned(), Vec::new()));
        }
        if !self.index.is_sorted() && method != Match::Nearest {
            return Err(self.unsorted("no value before or after a label; use nearest"));
        }
        let fitted = self.values.fit(self.turned(&span.first));
        let ranks = self.between(Some(&fitted), Some(&fitted));
        let (lower, upper) = (ranks.end.checked_sub(1), ranks.start);
        let upper = (upper < self.index.len()).then_some(upper);
        let is_descending = self.index.is_descending();
        let rank = match method {
            Match::Pad if is_descending => upper,
            Match::Backfill if is_descending => lower,
            Match::Pad => lower,
            Match::Backfill => upper,
            Match::Exact | Match::Nearest => match (lower, upper) {
                (Some(_), Some(_)) if !ranks.is_empty() => Some(ranks.start),
                (Some(lower), Some(upper)) => {
                    let is_lower = self.is_lower_nearer(lower, upper, &fitted);
                    Some(if is_lower { lower } else { upper })
                }
                (lower, upper) => self.nearest_end(&fitted).or(lower).or(upper),
            },
        };
        let ranks = rank.map_or(0..0, |rank| {
            let at = self.index.position(rank) as usize;
            self.equal_fitted(&self.values.point(at))
        });
        self.only(label, &span, ranks)
    }

    /// The one position of the ranks that a label means.
    fn only(&self, label: &str, span: &Span, ranks: Range<usize>) -> Result<u64, Error> {
        match ranks.len() {
            0 => Err(self.missing(label, span)),
            1 => Ok(self.index.position(ranks.start)),
            count => {
                let reason = format!(
                    "has {count} values for {}; lists and methods need values that are there once",
                    quoted(label)
                );
                Err(self.fail(reason, Vec::new()))
            }
        }
    }

    pub(super) fn is_lower_nearer(&self, lower: usize, upper: usize, point: &Point) -> bool {
        let [lower, upper] = [lower, upper].map(|rank| self.index.position(rank) as usize);
        self.values.is_lower_nearer(lower, upper, point)
    }

    /// The end of a longitude coordinate that is nearest around the globe to a point east of it.
    fn nearest_end(&self, point: &Point) -> Option<usize> {
        let Extent { west, east, count } = self.longitudes()?;
        let label = point.to_f64();
        let is_east = label > east && label < west + 360.0;
        is_east.then(|| {
            if label - east < west + 360.0 - label {
                count - 1
            } else {
                0
            }
        })
    }

    fn range(&self, first: Option<&str>, last: Option<&str>) -> Result<AxisSelection, Error> {
        let read = |label: Option<&str>| label.map(|label| self.values.read(label)).transpose();
        let (first, last) = (read(first)?, read(last)?);
        if !self.index.is_sorted() {
            return Err(self.unsorted("no ranges; list labels or use slice"));
        }
        let fit = |point: Point| self.values.fit(point);
        if let (Some(extent), Some(first), Some(last)) = (self.longitudes(), &first, &last) {
            let ranks = extent.ranks(first.first.to_f64(), last.first.to_f64(), |first, last| {
                let [first, last] = [first, last].map(|degrees| fit(Point::Float(degrees)));
                self.between(Some(&first), Some(&last))
            });
            return Ok(self.index.select(&ranks));
        }
        let (first, last) = match (first, last) {
            (Some(a), Some(b)) if b.is_before(&a) => (Some(b), Some(a)),
            ends => ends,
        };
        let (first, last) = (
            first.map(|span| fit(span.first)),
            last.map(|span| fit(span.last)),
        );
        Ok(self
            .index
            .select(&[self.between(first.as_ref(), last.as_ref())]))
    }

    /// The ranks of all values from one point to another, both included.
    pub(super) fn between(&self, first: Option<&Point>, last: Option<&Point>) -> Range<usize> {
        let start = first.map_or(0, |first| {
            self.index
                .partition(|at| self.values.compare_with(at, first).is_lt())
        });
        let end = last.map_or(self.index.len(), |last| {
            self.index
                .partition(|at| self.values.compare_with(at, last).is_le())
        });
        start..end.max(start)
    }

    /// The ranks of the values equal to a label.
    fn equal(&self, point: &Point) -> Range<usize> {
        let fitted = self.values.fit(point.clone());
        if point.to_f64().is_finite() && fitted.to_f64().is_infinite() {
            // Too large for the type of the values.
            return 0..0;
        }
        let ranks = self.equal_fitted(&fitted);
        if !ranks.is_empty() || !self.is_longitude {
            return ranks;
        }
        let turned = [360, -360].map(|degrees| match point.plus(degrees) {
            Point::Float(value) => {
                let [west, east] =
                    [value - SLACK, value + SLACK].map(|v| self.values.fit(Point::Float(v)));
                self.between(Some(&west), Some(&east))
            }
            point => self.equal_fitted(&point),
        });
        turned
            .into_iter()
            .find(|ranks| !ranks.is_empty())
            .unwrap_or(0..0)
    }

    fn equal_fitted(&self, point: &Point) -> Range<usize> {
        self.between(Some(point), Some(point))
    }

    /// A label in the convention of the coordinate, if that is of longitudes.
    pub(super) fn turned(&self, point: &Point) -> Point {
        match self.longitudes().map(|extent| extent.turn(point.to_f64())) {
            None | Some(0) => point.clone(),
            Some(degrees) => point.plus(degrees),
        }
    }

    fn longitudes(&self) -> Option<Extent> {
        let count = self.index.len();
        let end = |rank| {
            self.values
                .point(self.index.position(rank) as usize)
                .to_f64()
        };
        (self.is_longitude && count > 0).then(|| Extent {
            west: end(0),
            east: end(count - 1),
            count,
        })
    }

    fn unsorted(&self, so: &str) -> Error {
        let is_any_missing = self.index.len() < self.len();
        let why = if is_any_missing {
            "has missing values"
        } else {
            "is not sorted"
        };
        self.fail(format!("{why}, so it has {so}"), Vec::new())
    }
}

impl Span {
    fn is_before(&self, other: &Self) -> bool {
        match (&self.first, &other.first) {
            (Point::Integer(a), Point::Integer(b)) => a < b,
            (Point::Text(a), Point::Text(b)) => a < b,
            (a, b) => a.to_f64() < b.to_f64(),
        }
    }
}
