//! Grids of latitudes and longitudes.
//!
//! Source: GRIB2 templates 3.0 and 3.40.

use std::f64::consts::PI;

use super::message::Octets;

/// Most points of a grid.
const MAX_POINTS: u64 = 1 << 28;
/// Most latitudes between pole and equator that Gaussian ones are computed for.
const MAX_GAUSSIAN: u64 = 1 << 12;
/// Scanning: columns from east to west, rows from south to north; any other bit changes the order
/// of points.
const WESTWARDS: u64 = 0x80;
const NORTHWARDS: u64 = 0x40;
/// How far a longitude may be from where the increment puts it, in degrees.
const TOLERANCE: f64 = 1e-3;

/// A grid that is the product of two axes, in the order of its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) name: &'static str,
    pub(super) latitudes: Vec<f64>,
    pub(super) longitudes: Vec<f64>,
}

impl Grid {
    /// The grid a section 3 describes.
    ///
    /// # Errors
    /// What is wrong with it, or why it cannot be kept.
    pub(super) fn of(section: &[u8]) -> Result<Self, String> {
        let octets = Octets(section);
        let points = octets.number(7, 4)?;
        if points == 0 || points > MAX_POINTS {
            return Err(format!(
                "its grid has {points} points, the most is {MAX_POINTS}"
            ));
        }
        let template = octets.number(13, 2)?;
        let name = match template {
            0 => "regular_ll",
            40 => "regular_gg",
            other => {
                return Err(format!(
                    "its grid is of template 3.{other}; grids of latitudes and longitudes (0) and \
                     regular Gaussian ones (40) can be kept: interpolate it to one of them"
                ));
            }
        };
        if octets.is_missing(31, 4)? {
            return Err("its grid is reduced: its rows have different lengths".into());
        }
        let (columns, rows) = (octets.number(31, 4)?, octets.number(35, 4)?);
        if columns.checked_mul(rows) != Some(points) {
            return Err(format!(
                "its grid of {rows} x {columns} has {points} points"
            ));
        }
        let scanning = octets.number(72, 1)?;
        if scanning & !(WESTWARDS | NORTHWARDS) != 0 {
            return Err(format!(
                "its points are in an order (scanning mode {scanning:#x}) of which only rows \
                 from west to east or east to west can be kept"
            ));
        }
        let unit = match (octets.number(39, 4)?, octets.number(43, 4)?) {
            (angle, parts) if angle != 0 && angle < u64::from(u32::MAX) && parts != 0 => {
                angle as f64 / parts as f64
            }
            _ => 1e-6,
        };
        let degrees = |first| octets.signed(first, 4).map(|number| number as f64 * unit);
        let (first, last) = (degrees(47)?, degrees(56)?);
        let latitudes = match template {
            40 => gaussian(
                octets.number(68, 4)?,
                rows,
                first,
                scanning & NORTHWARDS != 0,
            )?,
            _ => {
                let step = octets.number(68, 4)?;
                evenly(first, last, step_of(step, unit, last - first), rows)
            }
        };
        let (west, mut east) = (degrees(51)?, degrees(60)?);
        let is_westwards = scanning & WESTWARDS != 0;
        if is_westwards && east > west {
            east -= 360.0;
        } else if !is_westwards && east < west {
            east += 360.0;
        }
        let step = step_of(octets.number(64, 4)?, unit, east - west);
        let longitudes = evenly(west, east, step, columns);
        Ok(Self {
            name,
            latitudes,
            longitudes,
        })
    }

    pub(super) fn points(&self) -> usize {
        self.latitudes.len() * self.longitudes.len()
    }
}

/// The increment a section gives, signed; `None` if it gives none.
fn step_of(number: u64, unit: f64, span: f64) -> Option<f64> {
    let is_given = number != 0 && number != u64::from(u32::MAX);
    is_given.then(|| (number as f64 * unit).copysign(span))
}

/// So many values from the first to the last; from the first by the increment where the last is not
/// there, since it is rounded.
fn evenly(first: f64, last: f64, step: Option<f64>, count: u64) -> Vec<f64> {
    let gaps = count.saturating_sub(1);
    let by_ends = if gaps == 0 {
        0.0
    } else {
        (last - first) / gaps as f64
    };
    let step = match step {
        Some(step) if (step * gaps as f64 - (last - first)).abs() > TOLERANCE * gaps as f64 => step,
        _ => by_ends,
    };
    (0..count).map(|at| first + at as f64 * step).collect()
}

/// The Gaussian latitudes of order `order`, from one pole to the other, of which a grid has `rows`
/// from the one next to `first` on.
fn gaussian(order: u64, rows: u64, first: f64, northwards: bool) -> Result<Vec<f64>, String> {
    if order == 0 || order > MAX_GAUSSIAN || rows > 2 * order {
        return Err(format!(
            "its Gaussian grid is of order {order} with {rows} rows"
        ));
    }
    let degree = 2 * order;
    let mut all: Vec<f64> = (0..degree).map(|at| latitude(at, degree)).collect();
    if northwards {
        all.reverse();
    }
    let distance = |latitude: &f64| (latitude - first).abs();
    let start = (0..all.len()).min_by(|&a, &b| distance(&all[a]).total_cmp(&distance(&all[b])));
    let start = start.unwrap_or(0);
    let found = all.get(start..start + rows as usize);
    found
        .map(<[f64]>::to_vec)
        .ok_or_else(|| "its Gaussian grid ends past a pole".into())
}

/// The latitude of a root of the Legendre polynomial, from north to south, by Newton's method.
fn latitude(at: u64, degree: u64) -> f64 {
    let n = degree as f64;
    let mut x = (PI * (at as f64 + 0.75) / (n + 0.5)).cos();
    for _ in 0..20 {
        let (mut before, mut value) = (1.0, x);
        for k in 2..=degree {
            let k = k as f64;
            let next = ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k;
            before = value;
            value = next;
        }
        let slope = n * (x * value - before) / (x * x - 1.0);
        let step = value / slope;
        x -= step;
        if step.abs() < 1e-15 {
            break;
        }
    }
    x.asin().to_degrees()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaussian_latitudes_are_the_known_ones() {
        let found = gaussian(2, 4, 60.0, false).unwrap();
        for (found, wanted) in found
            .iter()
            .zip([59.444408, 19.875719, -19.875719, -59.444408])
        {
            assert!((found - wanted).abs() < 1e-6, "{found}");
        }
        let found = gaussian(32, 64, 87.864, false).unwrap();
        assert!((found[0] - 87.863_798_839_232_63).abs() < 1e-9);
        assert!(gaussian(2, 4, 19.0, false).is_err());
        assert!(gaussian(0, 0, 0.0, false).is_err());
    }

    #[test]
    fn axes_go_by_their_ends_where_these_fit() {
        assert_eq!(
            evenly(90.0, -90.0, Some(-60.0), 4),
            [90.0, 30.0, -30.0, -90.0]
        );
        assert_eq!(evenly(0.0, 0.0, None, 1), [0.0]);
        assert_eq!(evenly(0.0, 359.0, Some(1.0), 3), [0.0, 1.0, 2.0]);
    }
}
