//! Selection and groups by the values of a coordinate, as xarray's `.sel` and `.groupby` have them.
//!
//! A coordinate is a one-dimensional array: numbers, truth values, text, or times that CF attributes
//! or the data type describe. What [`Labels`] select along it:
//!
//! - **One label** is the value equal to it, and drops the dimension. Where several values are equal,
//!   all of them. A date coarser than the finest part of any time, for instance `2020-01` among days,
//!   is all times in it, and keeps the dimension; that is pandas' rule, here for all calendars.
//! - **A list** keeps the order given. A date in it is the instant at its start. A label that several
//!   values equal is an error; xarray refuses any coordinate with values that repeat.
//! - **A range** holds all values from one label to the other, both included, whichever is larger, in
//!   the order of storage; dates count as a whole. Values must be sorted, and none missing.
//! - **Nearest, pad and backfill** look for the start of a date. Of two values as near, the larger
//!   is taken. Pad is the last value not after the label in the order of storage, backfill the first
//!   not before it; these need sorted values. Several values equal to the one found are an error.
//! - **Floats** are compared in the type of the values: `0.1` is the `float32` nearest to it.
//! - **Longitudes** are the same a whole turn apart. A range on a coordinate that goes round the
//!   globe runs east from the first label to the second: `350/10` and `-10/10` are the 20 degrees
//!   around Greenwich, values in eastward order (westward if they are stored so), also over the
//!   seam; 360 degrees or more are everything, once. On one that does not go round, so does a range
//!   written from west to east; one written from east to west is all between its labels.

mod groups;
mod index;
mod longitude;
mod near;
mod select;
mod text;
mod values;

use array::Tensor;
use serde_json::{Map, Value};

pub use groups::Groups;
pub use text::{Labels, Match};

use crate::Error;
use index::Index;
use values::Values;

/// A coordinate variable: the labels of one dimension.
#[derive(Clone, Debug)]
pub struct Coordinate {
    name: String,
    tensor: Tensor,
    values: Values,
    index: Index,
    is_longitude: bool,
    is_latitude: bool,
}

impl Coordinate {
    /// The coordinate that a tensor of one dimension holds, its missing and packed values decoded,
    /// its `units` and `calendar` not.
    ///
    /// # Errors
    /// [`Error::Attribute`] for `units` and a `calendar` that do not say what times are meant;
    /// [`Error::Label`] for more or fewer dimensions than one, a type that has no labels, and times
    /// beyond 10^9 years.
    pub fn new(name: &str, tensor: Tensor, attributes: &Map<String, Value>) -> Result<Self, Error> {
        let fail = |reason| label_error(name, reason, Vec::new());
        let values = Values::new(&tensor, attributes, fail)?;
        let index = Index::new(
            values.len(),
            |at| values.is_missing(at),
            |a, b| values.compare(a, b),
        );
        let is_number = matches!(values, Values::Integers(_) | Values::Floats { .. });
        Ok(Self {
            name: name.to_owned(),
            tensor,
            index,
            is_longitude: is_number && longitude::is_longitude(attributes),
            is_latitude: is_number && is_latitude(name, attributes),
            values,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether values are times.
    pub fn is_time(&self) -> bool {
        matches!(self.values, Values::Times { .. })
    }

    /// The value at a position as a label; `None` past the end, `missing` where it is.
    pub fn label(&self, position: usize) -> Option<String> {
        (position < self.len()).then(|| self.values.text(position))
    }

    /// The weight of each value, a latitude in degrees, as that of its circle's length: the cosine,
    /// 0 beyond the poles. NaN where the value is missing.
    ///
    /// # Errors
    /// [`Error::Label`] unless name or attributes say that values are latitudes.
    pub fn area_weights(&self) -> Result<Vec<f64>, Error> {
        if !self.is_latitude {
            let reason = "is no latitude, so it has no area weights: neither its name, its units \
                          nor its standard_name says so";
            return Err(self.fail(reason.to_owned(), Vec::new()));
        }
        let weight = |at: usize| {
            let cosine = (self.values.point(at).to_f64() * (std::f64::consts::PI / 180.0)).cos();
            // NaN stays.
            if cosine < 0.0 { 0.0 } else { cosine }
        };
        Ok((0..self.len()).map(weight).collect())
    }

    fn fail(&self, reason: String, suggestions: Vec<String>) -> Error {
        label_error(&self.name, reason, suggestions)
    }
}

fn label_error(coordinate: &str, reason: String, suggestions: Vec<String>) -> Error {
    Error::Label {
        coordinate: coordinate.to_owned(),
        reason,
        suggestions,
    }
}

/// Whether name or attributes say that values are latitudes: the units of CF §4.1.
fn is_latitude(name: &str, attributes: &Map<String, Value>) -> bool {
    let text = |name| attributes.get(name).and_then(Value::as_str).unwrap_or("");
    ["lat", "latitude"].contains(&name.to_ascii_lowercase().as_str())
        || text("standard_name") == "latitude"
        || [
            "degrees_north",
            "degree_north",
            "degree_N",
            "degrees_N",
            "degreeN",
            "degreesN",
        ]
        .contains(&text("units"))
}

#[cfg(test)]
mod tests;
