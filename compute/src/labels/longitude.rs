//! Longitudes go round: labels a whole turn apart mean the same.

use std::ops::Range;

use serde_json::{Map, Value};

/// Labels beyond are no angles, and are compared as they are.
const DEGREES_MAX: f64 = 1e6;

/// What a turn may cost in digits, in degrees.
pub(super) const SLACK: f64 = 1e-9;

/// Whether attributes say that values are longitudes: `standard_name` or the units of CF §4.2; or
/// `axis` X in degrees.
pub(super) fn is_longitude(attributes: &Map<String, Value>) -> bool {
    let text = |name| attributes.get(name).and_then(Value::as_str).unwrap_or("");
    let units = text("units");
    text("standard_name") == "longitude"
        || [
            "degrees_east",
            "degree_east",
            "degree_E",
            "degrees_E",
            "degreeE",
            "degreesE",
        ]
        .contains(&units)
        || (text("axis") == "X" && ["degrees", "degree"].contains(&units))
}

/// Where a longitude coordinate reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) west: f64,
    pub(super) east: f64,
    /// Number of values.
    pub(super) count: usize,
}

impl Extent {
    /// Whether values go round the globe: one more would close the circle, or nearly.
    fn is_global(self) -> bool {
        let span = self.east - self.west;
        let spacing = span / (self.count.max(2) - 1) as f64;
        span + 1.5 * spacing >= 360.0 && span <= 360.0 + SLACK
    }

    /// A label turned so that it is in the coordinate's convention, if it can be: how far to turn.
    pub(super) fn turn(self, label: f64) -> i16 {
        let is_near = |turn: &i16| {
            let turned = label + f64::from(*turn);
            (self.west - SLACK..self.west + 360.0).contains(&turned)
        };
        let is_inside = (self.west..=self.east).contains(&label);
        let turn = [0, 360, -360].into_iter().find(is_near);
        turn.filter(|_| !is_inside).unwrap_or(0)
    }

    /// The ranks of the range from `a` to `b`, eastward, by ranks of all values from one to another.
    ///
    /// - From west to east as written, or any two labels of a coordinate that goes round the globe:
    ///   eastward from `a` to `b`, over the seam if need be, and no further than once around.
    /// - Else, `a` above `b`: all between the two, each turned to be nearest to the coordinate's
    ///   middle.
    pub(super) fn ranks(
        self,
        a: f64,
        b: f64,
        between: impl Fn(f64, f64) -> Range<usize>,
    ) -> Vec<Range<usize>> {
        // Also keeps turns small enough to be counted.
        let ends = [a, b, self.west, self.east];
        if ends.iter().any(|end| end.abs() > DEGREES_MAX) {
            return vec![between(a.min(b), a.max(b))];
        }
        if a > b && !self.is_global() {
            let middle = f64::midpoint(self.west, self.east);
            let near = |label: f64| label + 360.0 * ((middle - label) / 360.0).round();
            let (a, b) = (near(a), near(b));
            return vec![between(a.min(b), a.max(b))];
        }
        let b = b + 360.0 * ((a - b) / 360.0).ceil().max(0.0);
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut first = ((a - self.east) / 360.0 - SLACK).ceil();
        let mut last = ((b - self.west) / 360.0 + SLACK).floor().min(first + 3.0);
        // Of the two ends of a closed circle, which are one longitude, a range has the one inside.
        let is_closed = self.east - self.west >= 360.0 - SLACK;
        if is_closed && first < last && a - 360.0 * first >= self.east - SLACK {
            first += 1.0;
        }
        if is_closed && first < last && b - 360.0 * last <= self.west + SLACK {
            last -= 1.0;
        }
        // Values turned this far lie in the range; with each turn, further east.
        let mut turn = first;
        while turn <= last {
            let slack = if turn == 0.0 { 0.0 } else { SLACK };
            let ranks = between(a - 360.0 * turn - slack, b - 360.0 * turn + slack);
            // Once around, each value comes where it came first.
            let end = found
                .iter()
                .fold(ranks.end, |end, earlier| end.min(earlier.start));
            if ranks.start < end {
                found.push(ranks.start..end);
            }
            turn += 1.0;
        }
        found
    }
}
