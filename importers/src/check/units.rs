//! Units: whether there are any, and whether UDUNITS would read them.
//!
//! A small grammar and table of what UDUNITS knows. It accepts more than it has to, so that what it
//! refuses is wrong.
//!
//! ```text
//! product  = factor { (" " | "." | "*" | "·" | "/" | " per ") factor }
//! factor   = ( "(" product ")" | symbol | number ) [ exponent ]
//! exponent = ["^" | "**"] integer | superscripts
//! ```
//!
//! Source: UDUNITS-2 `udunits2lib`, "Unit Syntax" and its databases.

use super::Findings;
use super::file::{File, Place, Role};
use super::time::is_since;
use crate::source::Attribute;

/// Names, singular; `s` and `es` may follow.
const NAMES: &str = "meter metre gram gramme second ampere kelvin mole candela radian steradian hertz \
    newton pascal joule watt coulomb volt farad ohm siemens weber tesla henry lumen lux becquerel \
    gray sievert katal liter litre tonne ton metricton minute hour day week fortnight month year \
    common_year leap_year julian_year gregorian_year decade century millennium degree celsius \
    degree_celsius degree_kelvin degree_fahrenheit fahrenheit degree_rankine degree_c degree_k degree_f \
    arc_degree arc_minute arc_second arcdeg arcminute arcmin arcsecond arcsec grade turn circle bar \
    atmosphere torr percent permille ppm ppmv ppb ppbv ppt pptv knot mile nautical_mile \
    international_mile foot feet us_survey_foot inch yard fathom acre hectare barn pound ounce slug calorie \
    electronvolt electron_volt erg dyne poise stokes gauss maxwell oersted curie roentgen rad rem \
    gal gallon dobson sverdrup geopotential_meter gpm count cell pixel bit byte decibel neper bel \
    molecule molar angstrom micron parsec light_year astronomical_unit horsepower millibar decibar \
    langley kilogram inhg inches_hg mm_hg cm_hg psi psf mmhg rpm practical_salinity_unit psu \
    layer level sigma_level db dbz bz";
/// Symbols, as they are written.
const SYMBOLS: &str = "m g s A K mol cd rad sr Hz N Pa J W C V F Ω ohm S Wb T H lm lx Bq Gy Sv kat L l t \
    h hr d min a yr u eV b bar atm at ha acre ft in yd mi nmi nmile kt kts lb oz cal deg degC degF \
    degK deg_C deg_F deg_K ° °C °F °K ° ' \" % ppm ppmv ppb ppbv ppt ppv DU gpm dB dBZ dBz Z Np bel \
    gal Gal P St G Oe Ci R dyn erg psi sec msec usec c AU pc ly Å µ Sv gp mb mbar hrs mins secs rps \
    cps kgf kph mph";
/// Directions, whose units UDUNITS spells in many ways.
const DIRECTIONS: [&str; 3] = ["degree", "degrees", "deg"];
const PREFIXES: &str = "y z a f p n u µ μ m c d da h k M G T P E Z Y";
const LONG_PREFIXES: &str = "yocto zepto atto femto pico nano micro milli centi deci deca deka hecto kilo \
    mega giga tera peta exa zetta yotta";
/// What people write for a pure number.
const NOTHING: [&str; 9] = [
    "none",
    "unitless",
    "dimensionless",
    "-",
    "~",
    "n/a",
    "nondimensional",
    "no units",
    "na",
];

pub(super) fn check(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    if !place.is_number() {
        return;
    }
    let section = "3.1";
    match place.attribute("units") {
        None => missing(file, place, findings),
        Some(Attribute::Text(units)) => {
            let units = units.trim();
            // Whether times are well said is looked at apart.
            if is_since(units) {
                return;
            }
            if let Err(reason) = parse(units) {
                let is_nothing = NOTHING.contains(&units.to_lowercase().as_str());
                findings.warn(
                    "units",
                    section,
                    format!("its units {units:?} are not known to UDUNITS: {reason}"),
                    match is_nothing {
                        true => "write units = \"1\" for a pure number",
                        false => {
                            "write them like \"m s-1\" or \"kg m-2\"; words belong in long_name"
                        }
                    },
                );
            }
        }
        Some(_) => findings.error(
            "units-type",
            section,
            "its units are not text",
            "write them as text, like units = \"1\"",
        ),
    }
}

/// Units may be absent from what counts, names or bounds, and from what is no quantity.
fn missing(file: &File<'_>, place: &Place<'_>, findings: &mut Findings) {
    let is_flag = ["flag_values", "flag_masks", "flag_meanings"]
        .iter()
        .any(|name| place.has(name));
    let is_quantity = matches!(place.role, Role::Coordinate | Role::Auxiliary | Role::Data);
    let is_index = place.text("standard_name").is_some_and(|name| {
        ["region", "area_type", "realization", "status_flag"].contains(&name)
            || name.ends_with("_flag")
            || name.ends_with("number")
    }) || place.has("cf_role")
        || place.has("compress")
        || place.has("sample_dimension")
        || place.has("instance_dimension");
    if !file.is_cf() || is_flag || !is_quantity || is_index {
        return;
    }
    findings.warn(
        "units-missing",
        "3.1",
        "it has no units",
        match place.role {
            Role::Data => "add units, \"1\" for a pure number",
            _ => "add units, by which readers know the coordinate; \"1\" for an index",
        },
    );
}

/// Whether `text` is a unit; else why not.
fn parse(text: &str) -> Result<(), String> {
    // An empty text means a pure number, as does `1`.
    if text.is_empty() {
        return Ok(());
    }
    let mut parser = Parser { left: text };
    parser.product(0)?;
    match parser.left.chars().next() {
        None => Ok(()),
        Some(other) => Err(format!("{other:?} has no place there")),
    }
}

struct Parser<'a> {
    left: &'a str,
}

/// Deepest nesting of parentheses.
const MAX_DEPTH: usize = 16;

impl<'a> Parser<'a> {
    fn product(&mut self, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("its parentheses are too deep".into());
        }
        loop {
            self.skip(char::is_whitespace);
            self.factor(depth)?;
            let had_space = self.skip(char::is_whitespace);
            if self.left.is_empty() || self.left.starts_with(')') {
                return Ok(());
            }
            let operator = ["**", "*", "·", "⋅", "×", ".", "/", "@", "per ", "PER "]
                .iter()
                .find_map(|operator| self.left.strip_prefix(operator));
            match operator {
                Some(rest) => self.left = rest,
                None if had_space => {}
                None => return Err(format!("{:?} has no place there", self.left)),
            }
        }
    }

    fn factor(&mut self, depth: usize) -> Result<(), String> {
        if let Some(rest) = self.left.strip_prefix('(') {
            self.left = rest;
            self.product(depth + 1)?;
            self.left = self
                .left
                .strip_prefix(')')
                .ok_or("a parenthesis is not closed")?;
            self.exponent();
            return Ok(());
        }
        if self.number() {
            self.exponent();
            return Ok(());
        }
        let is_letter =
            |c: char| c.is_alphabetic() || matches!(c, '_' | '%' | '°' | '\'' | '"' | 'µ');
        let symbol = self.take(is_letter);
        if symbol.is_empty() {
            return match self.left.chars().next() {
                None => Err("something is missing at its end".into()),
                Some(other) => Err(format!("{other:?} has no place there")),
            };
        }
        if !is_known(symbol) {
            return Err(format!("there is no unit {symbol:?}"));
        }
        self.exponent();
        Ok(())
    }

    fn skip(&mut self, is_it: impl Fn(char) -> bool) -> bool {
        !self.take(is_it).is_empty()
    }

    fn take(&mut self, is_it: impl Fn(char) -> bool) -> &'a str {
        let end = self.left.find(|c| !is_it(c)).unwrap_or(self.left.len());
        let (taken, rest) = self.left.split_at(end);
        self.left = rest;
        taken
    }

    /// A number, with sign, fraction and power of ten.
    fn number(&mut self) -> bool {
        let before = self.left;
        self.left = self.left.strip_prefix(['+', '-']).unwrap_or(self.left);
        let whole = self.skip(|c| c.is_ascii_digit());
        let mut fraction = false;
        if let Some(rest) = self.left.strip_prefix('.')
            && (rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            self.left = rest;
            fraction = self.skip(|c| c.is_ascii_digit());
        }
        if !whole && !fraction {
            self.left = before;
            return false;
        }
        if let Some(rest) = self.left.strip_prefix(['e', 'E']) {
            let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                self.left = digits;
                self.skip(|c| c.is_ascii_digit());
            }
        }
        true
    }

    fn exponent(&mut self) {
        let superscripts = |c: char| "⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹".contains(c);
        if self.skip(superscripts) {
            return;
        }
        let rest = self
            .left
            .strip_prefix("**")
            .or_else(|| self.left.strip_prefix('^'));
        let rest = rest.unwrap_or(self.left);
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            self.left = digits;
            self.skip(|c| c.is_ascii_digit());
        }
    }
}

fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

fn is_known(word: &str) -> bool {
    let is_symbol = |word: &str| listed(SYMBOLS, word);
    let is_name = |word: &str| {
        let lower = word.to_lowercase();
        let singular = [
            Some(lower.as_str()),
            lower.strip_suffix('s'),
            lower.strip_suffix("es"),
        ];
        singular
            .into_iter()
            .flatten()
            .any(|word| listed(NAMES, word))
    };
    is_symbol(word)
        || is_name(word)
        || is_direction(word)
        || PREFIXES
            .split_whitespace()
            .filter_map(|prefix| word.strip_prefix(prefix))
            .any(is_symbol)
        || LONG_PREFIXES
            .split_whitespace()
            .filter_map(|prefix| word.strip_prefix(prefix))
            .any(|rest| is_name(rest) || is_symbol(rest))
}

/// `degrees_north`, `degreesN`, `degree_true` and so on.
fn is_direction(word: &str) -> bool {
    let ends = [
        "north", "east", "south", "west", "true", "N", "E", "S", "W", "T",
    ];
    DIRECTIONS.iter().any(|start| {
        let rest = word.strip_prefix(start);
        rest.is_some_and(|rest| ends.contains(&rest.trim_start_matches('_')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_udunits_reads_is_read() {
        for good in [
            "",
            "1",
            "m",
            "K",
            "m s-1",
            "m s**-1",
            "m/s",
            "m.s-1",
            "m*s^-1",
            "kg m-2 s-1",
            "W m**-2",
            "degrees_north",
            "degreesE",
            "degree_true",
            "degC",
            "deg_C",
            "Celsius",
            "degrees Celsius",
            "hPa",
            "millibars",
            "Pa s-1",
            "1e-3",
            "10^-6 m",
            "1E-12 mol/mol",
            "0.01",
            "%",
            "percent",
            "kg/(m2 s)",
            "m2 s-2",
            "m² s⁻²",
            "µg m-3",
            "umol m-2 s-1",
            "days",
            "kilometers",
            "J kg-1",
            "dBZ",
            "psu",
            "ppmv",
            "gpm",
            "count",
            "m3 per second",
            "PVU".trim_end_matches("PVU"),
        ] {
            assert_eq!(parse(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn what_it_does_not_read_is_not() {
        for bad in [
            "(0 - 1)",
            "~",
            "unitless",
            "furlongs per fish",
            "m s-1)",
            "(m",
            "m of water equivalent",
            "kg m-2 /",
            "??",
            "deg north",
            "code table",
            "Kelvins!",
            "m//s",
            "((((((((((((((((((m",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
