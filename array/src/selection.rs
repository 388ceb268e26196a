//! Selections with NumPy semantics: which elements of an array are wanted, and in what shape.
//!
//! Text form, items joined by commas: `3` or `-1` (an index, drops the dimension), `start:stop:step`
//! with every part optional, `[1,4,9]` (a list of positions), `[true,false]` (a mask), `...`, and
//! `newaxis`. Several lists select orthogonally, as `numpy.ix_` does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::shape::MAX_DIMENSIONS;
use crate::{Error, Region};

/// Longest text that is parsed, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// One item of a selection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// One position, counted from the end when negative; the dimension is dropped.
    Index(i64),
    /// Every `step`-th position from `start` up to but not including `stop`.
    Slice {
        /// First position; from the end when negative.
        start: Option<i64>,
        /// Position to stop before.
        stop: Option<i64>,
        /// Distance between positions, never zero.
        step: i64,
    },
    /// These positions, in this order; each counted from the end when negative.
    List(Arc<[i64]>),
    /// The positions that are true; one for each position of the dimension.
    Mask(Arc<[bool]>),
    /// As many whole dimensions as are left.
    Ellipsis,
    /// A new dimension of length 1.
    NewAxis,
}

/// A selection as the user gave it, not yet applied to a shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    items: Vec<Selector>,
}

/// What to do with a slice that reaches past the array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bounds {
    /// Cut it off, as NumPy does.
    #[default]
    Clamp,
    /// Refuse it.
    Strict,
}

/// What is selected along one dimension of the array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AxisSelection {
    /// One position; the dimension is dropped.
    Index(u64),
    /// `count` positions from `start`, `step` apart.
    Range {
        /// First position.
        start: u64,
        /// Distance to the next position; negative runs backwards, never zero.
        step: i64,
        /// Number of positions.
        count: u64,
    },
    /// These positions, in this order.
    List(Arc<[u64]>),
}

impl AxisSelection {
    /// Number of positions.
    pub fn len(&self) -> u64 {
        match self {
            Self::Index(_) => 1,
            Self::Range { count, .. } => *count,
            Self::List(positions) => positions.len() as u64,
        }
    }

    /// Whether nothing is selected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position selected at `nth`, which must be below [`AxisSelection::len`].
    pub fn position(&self, nth: u64) -> u64 {
        debug_assert!(nth < self.len());
        match self {
            Self::Index(at) => *at,
            // In range of the dimension by construction, so neither step overflows.
            Self::Range { start, step, .. } => {
                start.wrapping_add_signed(step.wrapping_mul(nth.cast_signed()))
            }
            Self::List(positions) => positions[nth as usize],
        }
    }

    /// What is selected at these places of the result; an index has one place.
    fn part(&self, places: std::ops::Range<u64>) -> Self {
        let end = places.end.min(self.len());
        let start = places.start.min(end);
        match self {
            Self::Index(at) => Self::Index(*at),
            Self::Range { step, .. } => Self::Range {
                start: if start < end { self.position(start) } else { 0 },
                step: *step,
                count: end - start,
            },
            Self::List(positions) => Self::List(positions[start as usize..end as usize].into()),
        }
    }

    /// The smallest range that holds every selected position; empty if there is none.
    pub fn hull(&self) -> std::ops::Range<u64> {
        match self {
            _ if self.is_empty() => 0..0,
            Self::List(positions) => {
                let first = positions.iter().copied().min().unwrap_or(0);
                let last = positions.iter().copied().max().unwrap_or(0);
                first..last + 1
            }
            _ => {
                let (a, b) = (self.position(0), self.position(self.len() - 1));
                a.min(b)..a.max(b) + 1
            }
        }
    }
}

/// A dimension of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputAxis {
    /// The selected positions of this dimension of the array.
    Array(usize),
    /// A new dimension of length 1.
    New,
}

/// A selection applied to a shape: every position is inside the array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolvedSelection {
    axes: Vec<AxisSelection>,
    output: Vec<OutputAxis>,
}

impl ResolvedSelection {
    /// Everything in an array of `shape`.
    pub fn whole(shape: &[u64]) -> Self {
        let axes = shape
            .iter()
            .map(|&count| AxisSelection::Range {
                start: 0,
                step: 1,
                count,
            })
            .collect();
        Self {
            axes,
            output: (0..shape.len()).map(OutputAxis::Array).collect(),
        }
    }

    /// What these select along each dimension of an array, all of whose dimensions stay but those of
    /// an index.
    pub fn of_axes(axes: Vec<AxisSelection>) -> Self {
        let stays = |axis: &AxisSelection| !matches!(axis, AxisSelection::Index(_));
        let output = axes.iter().enumerate().filter(|(_, axis)| stays(axis));
        Self {
            output: output.map(|(at, _)| OutputAxis::Array(at)).collect(),
            axes,
        }
    }

    /// What is selected along each dimension of the array.
    pub fn axes(&self) -> &[AxisSelection] {
        &self.axes
    }

    /// The dimensions of the result, in order.
    pub fn output(&self) -> &[OutputAxis] {
        &self.output
    }

    /// Number of positions selected along each dimension of the array; 1 for an index.
    pub fn selected_shape(&self) -> Vec<u64> {
        self.axes.iter().map(AxisSelection::len).collect()
    }

    /// Shape of the result. It holds as many elements as [`ResolvedSelection::selected_shape`].
    pub fn output_shape(&self) -> Vec<u64> {
        self.output
            .iter()
            .map(|axis| match axis {
                OutputAxis::Array(axis) => self.axes[*axis].len(),
                OutputAxis::New => 1,
            })
            .collect()
    }

    /// The smallest box that holds every selected element.
    ///
    /// # Errors
    /// None in practice: positions are inside the array.
    pub fn hull(&self) -> Result<Region, Error> {
        let ranges: Vec<_> = self.axes.iter().map(AxisSelection::hull).collect();
        Region::new(
            ranges.iter().map(|range| range.start).collect(),
            ranges.iter().map(|range| range.end - range.start).collect(),
        )
    }

    /// The same with another selection along one dimension of the array, of which it selected all.
    #[must_use]
    pub fn with_axis(&self, axis: usize, selection: AxisSelection) -> Self {
        let drops = matches!(selection, AxisSelection::Index(_));
        let mut other = self.clone();
        if let Some(own) = other.axes.get_mut(axis) {
            *own = selection;
        }
        other
            .output
            .retain(|output| !drops || *output != OutputAxis::Array(axis));
        other
    }

    /// The part of it that has these places of the result along each dimension of the array. A
    /// range past the end is cut off.
    #[must_use]
    pub fn part(&self, places: &[std::ops::Range<u64>]) -> Self {
        let axes = self.axes.iter().zip(places);
        let axes = axes
            .map(|(axis, places)| axis.part(places.clone()))
            .collect();
        Self {
            axes,
            output: self.output.clone(),
        }
    }

    /// Canonical text: equal for selections of the same elements in the same shape.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for axis in &self.axes {
            match axis {
                AxisSelection::Index(at) => text.push_str(&format!("{at},")),
                AxisSelection::Range { start, step, count } => {
                    let step = if *count < 2 { 1 } else { *step };
                    text.push_str(&format!("{start}+{count}*{step},"));
                }
                AxisSelection::List(positions) => text.push_str(&format!("{positions:?},")),
            }
        }
        text.push_str(&format!("{:?}", self.output));
        text
    }
}

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// A selection of these items.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a zero step, more than one ellipsis, or more than 64 items.
    pub fn new(items: Vec<Selector>) -> Result<Self, Error> {
        if items.len() > 2 * MAX_DIMENSIONS {
            return Err(Error::invalid(
                "slice",
                format!("more than {} items", 2 * MAX_DIMENSIONS),
            ));
        }
        if items
            .iter()
            .filter(|item| **item == Selector::Ellipsis)
            .count()
            > 1
        {
            return Err(Error::invalid("slice", "more than one \"...\""));
        }
        if items
            .iter()
            .any(|item| matches!(item, Selector::Slice { step: 0, .. }))
        {
            return Err(Error::invalid("slice", "the step is zero"));
        }
        Ok(Self { items })
    }

    /// The items as given.
    pub fn items(&self) -> &[Selector] {
        &self.items
    }

    /// Applies the selection to an array of `shape`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] for a position outside the array (and, under [`Bounds::Strict`], a
    /// slice reaching past it); [`Error::Invalid`] for more items than dimensions, or a mask of
    /// another length than its dimension.
    pub fn resolve(&self, shape: &[u64], bounds: Bounds) -> Result<ResolvedSelection, Error> {
        if let Some(axis) = shape.iter().position(|&size| i64::try_from(size).is_err()) {
            return Err(Error::unsupported(
                "slice",
                format!("dimension {axis} is 2^63 or longer"),
            ));
        }
        let given = self
            .items
            .iter()
            .filter(|item| !matches!(item, Selector::Ellipsis | Selector::NewAxis))
            .count();
        if given > shape.len() {
            let reason = format!("{given} indices for an array of {} dimensions", shape.len());
            return Err(Error::invalid("slice", reason));
        }
        let whole = shape.len() - given;
        let mut resolved = ResolvedSelection {
            axes: Vec::new(),
            output: Vec::new(),
        };
        let take_whole = |resolved: &mut ResolvedSelection, how_many: usize| {
            for _ in 0..how_many {
                let axis = resolved.axes.len();
                resolved.axes.push(AxisSelection::Range {
                    start: 0,
                    step: 1,
                    count: shape[axis],
                });
                resolved.output.push(OutputAxis::Array(axis));
            }
        };
        for item in &self.items {
            match item {
                Selector::Ellipsis => take_whole(&mut resolved, whole),
                Selector::NewAxis => resolved.output.push(OutputAxis::New),
                item => {
                    let axis = resolved.axes.len();
                    let selection = resolve_axis(item, axis, shape[axis], bounds)?;
                    if !matches!(selection, AxisSelection::Index(_)) {
                        resolved.output.push(OutputAxis::Array(axis));
                    }
                    resolved.axes.push(selection);
                }
            }
        }
        let missing = shape.len() - resolved.axes.len();
        take_whole(&mut resolved, missing);
        Ok(resolved)
    }
}

/// `size` fits `i64`.
fn resolve_axis(
    item: &Selector,
    axis: usize,
    size: u64,
    bounds: Bounds,
) -> Result<AxisSelection, Error> {
    let out_of_bounds = |index: i64| Error::OutOfBounds { index, axis, size };
    let position = |index: i64| {
        let at = if index < 0 {
            index.checked_add_unsigned(size)
        } else {
            Some(index)
        };
        at.and_then(|at| u64::try_from(at).ok())
            .filter(|&at| at < size)
            .ok_or_else(|| out_of_bounds(index))
    };
    Ok(match item {
        Selector::Index(index) => AxisSelection::Index(position(*index)?),
        Selector::List(list) => AxisSelection::List(
            list.iter()
                .map(|&index| position(index))
                .collect::<Result<_, _>>()?,
        ),
        Selector::Mask(mask) => {
            if mask.len() as u64 != size {
                let reason = format!(
                    "a mask of {} for dimension {axis} of length {size}",
                    mask.len()
                );
                return Err(Error::invalid("slice", reason));
            }
            AxisSelection::List(
                (0..size)
                    .zip(mask.iter())
                    .filter(|(_, on)| **on)
                    .map(|(at, _)| at)
                    .collect(),
            )
        }
        Selector::Slice { start, stop, step } => {
            if bounds == Bounds::Strict {
                let signed = size.cast_signed();
                let outside = |end: &&i64| **end > signed || **end < -signed;
                if let Some(end) = [start, stop].into_iter().flatten().find(outside) {
                    return Err(out_of_bounds(*end));
                }
            }
            resolve_slice(*start, *stop, *step, size.cast_signed())
        }
        Selector::Ellipsis | Selector::NewAxis => AxisSelection::Range {
            start: 0,
            step: 1,
            count: size,
        },
    })
}

/// Python's `slice.indices`.
fn resolve_slice(start: Option<i64>, stop: Option<i64>, step: i64, size: i64) -> AxisSelection {
    let (lowest, highest) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let clamp = |end: i64| {
        let end = if end < 0 {
            end.saturating_add(size)
        } else {
            end
        };
        end.clamp(lowest, highest)
    };
    let (first, last) = if step > 0 {
        (start.map_or(lowest, clamp), stop.map_or(highest, clamp))
    } else {
        (start.map_or(highest, clamp), stop.map_or(lowest, clamp))
    };
    let distance = if step > 0 { last - first } else { first - last };
    let count = if distance <= 0 {
        0
    } else {
        distance.unsigned_abs().div_ceil(step.unsigned_abs())
    };
    if count == 0 {
        return AxisSelection::Range {
            start: 0,
            step: 1,
            count: 0,
        };
    }
    AxisSelection::Range {
        start: first.unsigned_abs(),
        step,
        count,
    }
}

impl FromStr for Selection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::invalid("slice", "longer than 1 MiB"));
        }
        if text.trim().is_empty() {
            return Ok(Self::all());
        }
        split_items(text)?
            .into_iter()
            .map(parse_item)
            .collect::<Result<_, _>>()
            .and_then(Self::new)
    }
}

/// Splits at commas outside brackets; a trailing comma is allowed, as in Python.
fn split_items(text: &str) -> Result<Vec<&str>, Error> {
    let mut items = Vec::new();
    let mut from = 0;
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '[' if inside => return Err(Error::invalid("slice", "a list inside a list")),
            '[' => inside = true,
            ']' if !inside => return Err(Error::invalid("slice", "\"]\" without \"[\"")),
            ']' => inside = false,
            ',' if !inside => {
                items.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(Error::invalid("slice", "\"[\" without \"]\""));
    }
    let last = text[from..].trim();
    if !last.is_empty() || items.is_empty() {
        items.push(last);
    }
    Ok(items)
}

fn parse_item(item: &str) -> Result<Selector, Error> {
    let integer = |text: &str| {
        text.trim().parse::<i64>().map_err(|_| {
            Error::invalid(
                "slice",
                format!("{:?} in {item:?} is not an integer", text.trim()),
            )
        })
    };
    if item == "..." {
        return Ok(Selector::Ellipsis);
    }
    if item.eq_ignore_ascii_case("newaxis") || item == "None" {
        return Ok(Selector::NewAxis);
    }
    if let Some(list) = item
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let list = list.trim().trim_end_matches(',');
        if list.is_empty() {
            return Ok(Selector::List(Arc::new([])));
        }
        let truth = |text: &str| match text.trim() {
            "true" | "True" => Some(true),
            "false" | "False" => Some(false),
            _ => None,
        };
        if truth(list.split(',').next().unwrap_or("")).is_some() {
            let mask: Option<Arc<[bool]>> = list.split(',').map(truth).collect();
            return mask.map(Selector::Mask).ok_or_else(|| {
                Error::invalid(
                    "slice",
                    format!("{item:?} mixes true and false with something else"),
                )
            });
        }
        return Ok(Selector::List(
            list.split(',').map(integer).collect::<Result<_, _>>()?,
        ));
    }
    let parts: Vec<&str> = item.split(':').collect();
    let part = |text: &str| {
        if text.trim().is_empty() {
            Ok(None)
        } else {
            integer(text).map(Some)
        }
    };
    match parts.as_slice() {
        [index] => Ok(Selector::Index(integer(index)?)),
        [start, stop] => Ok(Selector::Slice {
            start: part(start)?,
            stop: part(stop)?,
            step: 1,
        }),
        [start, stop, step] => Ok(Selector::Slice {
            start: part(start)?,
            stop: part(stop)?,
            step: part(step)?.unwrap_or(1),
        }),
        _ => Err(Error::invalid(
            "slice",
            format!("{item:?} has more than two colons"),
        )),
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, item) in self.items.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match item {
                Selector::Index(at) => write!(f, "{at}")?,
                Selector::Slice { start, stop, step } => {
                    if let Some(start) = start {
                        write!(f, "{start}")?;
                    }
                    f.write_str(":")?;
                    if let Some(stop) = stop {
                        write!(f, "{stop}")?;
                    }
                    if *step != 1 {
                        write!(f, ":{step}")?;
                    }
                }
                Selector::List(list) => {
                    let items: Vec<String> = list.iter().map(i64::to_string).collect();
                    write!(f, "[{}]", items.join(","))?;
                }
                Selector::Mask(mask) => {
                    let items: Vec<String> = mask.iter().map(bool::to_string).collect();
                    write!(f, "[{}]", items.join(","))?;
                }
                Selector::Ellipsis => f.write_str("...")?,
                Selector::NewAxis => f.write_str("newaxis")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolve(text: &str, shape: &[u64]) -> Result<ResolvedSelection, Error> {
        text.parse::<Selection>()?.resolve(shape, Bounds::Clamp)
    }

    fn positions(axis: &AxisSelection) -> Vec<u64> {
        (0..axis.len()).map(|nth| axis.position(nth)).collect()
    }

    #[test]
    fn results_have_numpys_shape() {
        for (text, shape, expected) in [
            ("", vec![3, 4], vec![3, 4]),
            ("1", vec![3, 4], vec![4]),
            ("...,1", vec![3, 4, 5], vec![3, 4]),
            ("0,1,:,10:20", vec![12, 3, 241, 480], vec![241, 10]),
            ("newaxis,0,...,None", vec![3, 4], vec![1, 4, 1]),
            ("[2,0],[1]", vec![3, 4], vec![2, 1]),
            ("[true, false, true]", vec![3], vec![2]),
            ("::-1, 100:", vec![3, 4], vec![3, 0]),
            ("[]", vec![3, 4], vec![0, 4]),
            ("...", vec![], vec![]),
            ("-1,", vec![3], vec![]),
        ] {
            let resolved = resolve(text, &shape).unwrap();
            assert_eq!(resolved.output_shape(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_errors() {
        for (text, shape) in [
            ("3", vec![3]),
            ("-4", vec![3]),
            ("[0,3]", vec![3]),
            ("::0", vec![3]),
            ("0,0", vec![3]),
            ("...,...", vec![3]),
            ("[true]", vec![3]),
            ("[true,1,0]", vec![3]),
            ("1:2:3:4", vec![3]),
            ("a", vec![3]),
            ("[[0]]", vec![3]),
            ("[0", vec![3]),
            ("0]", vec![3]),
            ("1,,2", vec![3, 3]),
            ("99999999999999999999", vec![3]),
            ("1", vec![1 << 63]),
        ] {
            assert!(resolve(text, &shape).is_err(), "{text}");
        }
        let strict = |text: &str| {
            text.parse::<Selection>()
                .unwrap()
                .resolve(&[3], Bounds::Strict)
        };
        assert!(strict("0:4").is_err() && strict("-4:").is_err() && strict("0:3").is_ok());
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "0:10,:,5",
            "...,-1",
            "[1,4,9],::-2",
            "newaxis,1:",
            "[true,false]",
        ] {
            assert_eq!(text.parse::<Selection>().unwrap().to_string(), text);
        }
    }

    /// What Python does, by walking.
    fn naive(start: Option<i64>, stop: Option<i64>, step: i64, size: i64) -> Vec<u64> {
        let normal = |end: i64| i128::from(end) + if end < 0 { i128::from(size) } else { 0 };
        let (size, step) = (i128::from(size), i128::from(step));
        let mut at = match start {
            Some(start) if step > 0 => normal(start).max(0),
            Some(start) => normal(start).min(size - 1),
            None if step > 0 => 0,
            None => size - 1,
        };
        let stop = match stop {
            Some(stop) => normal(stop),
            None if step > 0 => size,
            None => -1,
        };
        let mut found = Vec::new();
        while at >= 0 && at < size && (if step > 0 { at < stop } else { at > stop }) {
            found.push(at as u64);
            at += step;
        }
        found
    }

    proptest! {
        #[test]
        fn slices_select_what_python_selects(
            start in prop::option::of(prop_oneof![-12i64..12, any::<i64>()]),
            stop in prop::option::of(prop_oneof![-12i64..12, any::<i64>()]),
            step in prop_oneof![-5i64..5, any::<i64>()],
            size in 0i64..9,
        ) {
            prop_assume!(step != 0);
            let axis = resolve_slice(start, stop, step, size);
            let expected = naive(start, stop, step, size);
            prop_assert_eq!(positions(&axis), expected.clone());
            let hull = axis.hull();
            prop_assert_eq!(hull.start, expected.iter().copied().min().unwrap_or(0));
            prop_assert_eq!(hull.end, expected.iter().copied().max().map_or(0, |last| last + 1));
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in "[-0-9:,\\[\\]. a-z]{0,24}") {
            let _ = resolve(&text, &[3, 4, 5]);
        }
    }
}
