//! What a field is of, and when, where and of which member.
//!
//! Source: GRIB2 templates 4.0, 4.1, 4.2, 4.8, 4.11 and 4.12.

use super::message::{Field, Octets};
use super::parameters;

/// Seconds of the units of code table 4.4 that have a fixed length.
const UNITS: [(u64, i64); 8] = [
    (0, 60),
    (1, 3600),
    (2, 86_400),
    (10, 10_800),
    (11, 21_600),
    (12, 43_200),
    (13, 1),
    (255, 3600),
];
/// Fixed surfaces: none, isobaric, height above ground.
const NO_SURFACE: u64 = 255;
const ISOBARIC: u8 = 100;
const ABOVE_GROUND: u8 = 103;

/// What makes fields those of one variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity {
    /// Discipline, category, number.
    pub(super) code: [u8; 3],
    /// Type of the first surface.
    pub(super) surface: u8,
    /// Whether there is a second surface: a layer.
    pub(super) is_layer: bool,
    /// What was done over time, if anything.
    pub(super) process: Option<u8>,
    /// What was done over the ensemble, if anything.
    pub(super) derived: Option<u8>,
    /// The bits of the height above ground, where the name depends on it.
    height: Option<u64>,
}

/// Where a field belongs in its variable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Member of the ensemble.
    pub(super) number: i64,
    /// Seconds since 1970-01-01 of the reference time.
    pub(super) time: i64,
    /// Seconds from there to the time, or the end of the span, that the field is of.
    pub(super) step: i64,
    pub(super) level: f64,
}

impl Quantity {
    /// What a field is of, and its position.
    ///
    /// # Errors
    /// Why it cannot be kept.
    pub(super) fn of(field: &Field) -> Result<(Self, Position), String> {
        let (one, four) = (Octets(&field.identification), Octets(&field.product));
        let time = seconds(&one, 13)?;
        let template = four.number(8, 2)?;
        let (is_ensemble, is_derived, is_span) = match template {
            0 => (false, false, false),
            1 => (true, false, false),
            2 => (false, true, false),
            8 => (false, false, true),
            11 => (true, false, true),
            12 => (false, true, true),
            other => {
                return Err(format!(
                    "its product is of template 4.{other}; there are 0, 1, 2, 8, 11 and 12"
                ));
            }
        };
        let byte = |first| four.number(first, 1).map(|number| number as u8);
        let code = [field.discipline, byte(10)?, byte(11)?];
        // Templates of ensembles have their own octets before those of spans.
        let span = match (is_ensemble, is_derived) {
            (true, _) => 38,
            (_, true) => 37,
            _ => 35,
        };
        let step = if is_span {
            seconds(&four, span)? - time
        } else {
            let unit = four.number(18, 1)?;
            let length = UNITS.iter().find(|known| known.0 == unit);
            let (_, length) = length.ok_or_else(|| format!("its step is in units {unit}"))?;
            four.signed(19, 4)?.saturating_mul(*length)
        };
        let surface = byte(23)?;
        let level = surface_value(&four, 24)?;
        let is_layer = four.number(29, 1)? != NO_SURFACE;
        let level = if surface == ISOBARIC {
            level / 100.0
        } else {
            level
        };
        let height = (surface == ABOVE_GROUND).then_some(level);
        let named = parameters::parameter(code, height);
        let plain = parameters::parameter(code, None);
        let quantity = Self {
            code,
            surface,
            is_layer,
            process: if is_span {
                Some(byte(span + 12)?)
            } else {
                None
            },
            derived: if is_derived { Some(byte(35)?) } else { None },
            height: (named != plain).then(|| level.to_bits()),
        };
        let number = if is_ensemble {
            four.number(36, 1)? as i64
        } else {
            0
        };
        let position = Position {
            number,
            time,
            step,
            level,
        };
        Ok((quantity, position))
    }

    /// The parameter's name and attributes, if they are known.
    pub(super) fn parameter(&self) -> Option<parameters::Parameter> {
        parameters::parameter(self.code, self.height.map(f64::from_bits))
    }

    /// A name; several quantities of a file may have the same.
    pub(super) fn name(&self) -> String {
        let [discipline, category, number] = self.code;
        match self.parameter() {
            Some(parameter) => parameter.name.to_owned(),
            None => format!("p{discipline}_{category}_{number}"),
        }
    }

    /// A name that no other quantity has.
    pub(super) fn full_name(&self) -> String {
        let mut name = format!("{}_{}", self.name(), parameters::level(self.surface).0);
        if self.is_layer {
            name.push_str("_layer");
        }
        if let Some(process) = self.process {
            name = format!("{name}_{}", parameters::process(process));
        }
        if let Some(derived) = self.derived {
            name = format!("{name}_derived_{derived}");
        }
        name
    }
}

/// The value of a surface, whose scale factor is at `first`; 0 if there is none.
fn surface_value(octets: &Octets<'_>, first: usize) -> Result<f64, String> {
    if octets.is_missing(first, 1)? || octets.is_missing(first + 1, 4)? {
        return Ok(0.0);
    }
    let scale = octets.signed(first, 1)? as i32;
    let value = octets.signed(first + 1, 4)? as f64;
    // Dividing keeps 0.1 what it reads like.
    Ok(if scale >= 0 {
        value / 10f64.powi(scale)
    } else {
        value * 10f64.powi(-scale)
    })
}

/// Seconds since 1970-01-01 of a date and time of seven octets.
fn seconds(octets: &Octets<'_>, first: usize) -> Result<i64, String> {
    let part = |at: usize| octets.number(first + at, 1).map(|number| number as i64);
    let (year, month, day) = (octets.number(first, 2)? as i64, part(2)?, part(3)?);
    let (hour, minute, second) = (part(4)?, part(5)?, part(6)?);
    let days = crate::calendar::days(year, month, day);
    let days = days.filter(|_| hour < 25 && minute < 60 && second < 61);
    let days = days.ok_or_else(|| {
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} is no time")
    })?;
    Ok(days * 86_400 + hour * 3600 + minute * 60 + second)
}
