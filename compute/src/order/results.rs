//! Results of a search, exact or as far as they are known.

use super::found::Slot;
use super::key::{Keyed, time_middle, time_toward};
use super::search::Search;
use super::{Place, What};
use crate::Error;
use crate::cf::number::is_time;
use crate::element::with_real;
use crate::partial::encode;

/// The place of a result, and the least and the greatest possible value at both of its ranks.
type Between<T> = (Place, (T, T), (T, T));

/// Results that are not exact yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Approximation {
    /// Elements of the type of the results; middles of the intervals.
    pub values: Vec<u8>,
    /// Not greater than the exact results; NaN where these are missing.
    pub low: Vec<f64>,
    /// Not less than the exact results.
    pub high: Vec<f64>,
}

impl Approximation {
    /// The greatest distance of a value from the exact result, but for its rounding.
    pub fn error_max(&self) -> f64 {
        let widths = self
            .low
            .iter()
            .zip(&self.high)
            .map(|(low, high)| if low == high { 0.0 } else { high - low });
        widths.filter(|width| !width.is_nan()).fold(0.0, f64::max)
    }
}

impl Search {
    /// The results: elements of [`OrderStatistics::data_type`](super::OrderStatistics::data_type), quantile by quantile, of each the
    /// kept cells in C order.
    ///
    /// # Errors
    /// [`Error::Empty`] for results without a missing value where there is no value;
    /// [`Error::Parameter`] if passes are left.
    pub fn finish(&self) -> Result<Vec<u8>, Error> {
        if self.needs_pass() {
            return Err(Error::Parameter {
                name: "search",
                reason: "has passes left".to_owned(),
            });
        }
        with_real!(
            &self.data_type,
            T => self.finish_as::<T>(),
            else Err(self.undefined(&self.data_type))
        )
    }

    fn finish_as<T: Keyed>(&self) -> Result<Vec<u8>, Error> {
        let result = self.statistics.data_type(&self.data_type)?;
        let is_discrete = self.statistics.is_discrete();
        if !is_discrete && !is_time(&result) {
            let numbers = self.results::<T>().map(|found| match found {
                Some((place, low, high)) => self.between(place, low.0, high.0),
                None => f64::NAN,
            });
            return Ok(encode(&result, numbers));
        }
        let mut bytes = Vec::with_capacity(self.kept * self.statistics.len() * size_of::<T>());
        for found in self.results::<T>() {
            let value = match found {
                Some((_, low, _)) if is_discrete => low.0,
                Some((place, low, high)) => self.time_between(place, low.0, high.0),
                None => self.missing()?,
            };
            bytes.extend_from_slice(bytemuck::bytes_of(&value));
        }
        Ok(bytes)
    }

    /// Results as far as the passes until now know them.
    ///
    /// # Errors
    /// [`Error::Parameter`] before the first pass; [`Error::Empty`] as for [`Search::finish`].
    pub fn finish_approximate(&self) -> Result<Approximation, Error> {
        if self.slots.bits == 0 {
            return Err(Error::Parameter {
                name: "search",
                reason: "has made no pass".to_owned(),
            });
        }
        with_real!(
            &self.data_type,
            T => self.approximate_as::<T>(),
            else Err(self.undefined(&self.data_type))
        )
    }

    fn approximate_as<T: Keyed>(&self) -> Result<Approximation, Error> {
        let result = self.statistics.data_type(&self.data_type)?;
        let is_number = !self.statistics.is_discrete() && !is_time(&result);
        let (mut values, mut low, mut high) = (Vec::new(), Vec::new(), Vec::new());
        for found in self.results::<T>() {
            let Some((place, a, b)) = found else {
                low.push(f64::NAN);
                high.push(f64::NAN);
                values.extend(match is_number {
                    true => encode(&result, std::iter::once(f64::NAN)),
                    false => bytemuck::bytes_of(&self.missing::<T>()?).to_vec(),
                });
                continue;
            };
            // Between an infinite end and another one NaN says nothing.
            let or = |end: f64, other: f64| if end.is_nan() { other } else { end };
            let least = or(self.between(place, a.0, b.0), f64::NEG_INFINITY);
            let most = or(self.between(place, a.1, b.1), f64::INFINITY);
            low.push(least);
            high.push(most);
            if is_number {
                let middle = least / 2.0 + most / 2.0;
                let value = if least == most {
                    least
                } else {
                    or(middle, 0.0)
                };
                values.extend(encode(&result, std::iter::once(value)));
            } else {
                let middle = |(low, high): (T, T)| {
                    let (low, high) = (low.to_key(), high.to_key());
                    T::from_key(low + (high - low) / 2)
                };
                let value = if self.statistics.is_discrete() {
                    middle(a)
                } else {
                    self.time_between(place, middle(a), middle(b))
                };
                values.extend_from_slice(bytemuck::bytes_of(&value));
            }
        }
        Ok(Approximation { values, low, high })
    }

    /// What is known of each result; `None` where it is a missing value.
    fn results<T: Keyed>(&self) -> impl Iterator<Item = Option<Between<T>>> + '_ {
        (0..self.statistics.len()).flat_map(move |nth| {
            (0..self.kept).map(move |cell| {
                let n = *self.valid.get(cell).filter(|&&n| n > 0)?;
                let place = self.statistics.place(nth, n);
                let ends = |rank| self.slots.holding(cell, rank).map(|slot| self.ends(slot));
                Some((place, ends(place.low)?, ends(place.high)?))
            })
        })
    }

    /// The least and the greatest value of a slot.
    fn ends<T: Keyed>(&self, slot: &Slot) -> (T, T) {
        let unknown = T::BITS - self.slots.bits;
        if unknown == 0 {
            return (T::from_key(slot.prefix), T::from_key(slot.prefix));
        }
        let low = slot.prefix << unknown;
        let high = low | ((1 << unknown) - 1);
        // Keys beyond these are those of NaN and NaT.
        let (least, most) = (T::LOWEST.to_key(), T::HIGHEST.to_key());
        (T::from_key(low.max(least)), T::from_key(high.min(most)))
    }

    fn between<T: Keyed>(&self, place: Place, low: T, high: T) -> f64 {
        match self.statistics.what {
            _ if self.statistics.is_discrete() => low.to_f64(),
            What::Median if place.low == place.high => low.to_f64(),
            What::Median => low.middle(high),
            What::Quantiles { .. } => low.toward(high, place.fraction),
        }
    }

    fn time_between<T: Keyed>(&self, place: Place, low: T, high: T) -> T {
        let (a, b) = (low.to_i64(), high.to_i64());
        let time = match self.statistics.what {
            What::Median => time_middle(a, b),
            What::Quantiles { .. } => time_toward(a, b, place.fraction),
        };
        T::from_key(time.to_key())
    }

    /// The result of no values, as an element.
    fn missing<T: Keyed>(&self) -> Result<T, Error> {
        if T::IS_FLOAT || is_time(&self.data_type) {
            return Ok(T::MISSING);
        }
        Err(Error::Empty {
            reducer: self.statistics.name(),
            reason: "nothing is selected",
        })
    }
}
