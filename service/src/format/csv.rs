//! CSV, a row for each cell: where it is, and the value of each variable.
//!
//! A dimension is a column of its coordinate, or of positions from 0 where there is none, under its
//! name; one without a name, or whose name is taken, is `dim_0` and so on by its place. A variable
//! over fewer dimensions than the others is repeated over those it lacks.
//!
//! Quotes and line ends are RFC 4180's. Floats are the shortest decimals that read back the same, with
//! `NaN`, `inf` and `-inf`: an empty field would make a row of one column a blank line, which readers
//! skip. Booleans are `True` and `False`, dates ISO 8601 with `NaT`, durations whole numbers of their
//! unit, complex numbers `1.5-2.0j`, raw bytes hexadecimal.

use array::{DataType, TimeUnit};
use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, TimeDelta};
use half::{bf16, f16};

use super::cells::{self, array};
use super::{Answer, Variable};
use crate::error::Failure;

/// Most bytes of a number or a date, with what follows it.
const NUMBER_BYTES: u64 = 33;

/// Bytes of a row with a variable of this type, at most.
pub(super) fn row_bytes(data_type: &DataType, dimensions: usize) -> u64 {
    let bytes = data_type.size_bytes().unwrap_or(32) as u64;
    let cell = match data_type {
        DataType::Complex64 | DataType::Complex128 => 2 * NUMBER_BYTES,
        // A quote takes two bytes, a byte that is no text three.
        _ => NUMBER_BYTES.max(3 * bytes + 4),
    };
    cell + NUMBER_BYTES * dimensions as u64
}

/// An answer as text.
///
/// # Errors
/// 406 if the variables do not share their dimensions, or dates are not within the years 0 to 9999.
pub(super) fn encode(answer: &Answer) -> Result<Vec<u8>, Failure> {
    let widest = answer.variables.iter().rev();
    let Some(widest) = widest.max_by_key(|variable| variable.tensor.shape.len()) else {
        return Ok(Vec::new());
    };
    let shape = &widest.tensor.shape;
    for variable in answer.variables.iter().chain(&answer.coordinates) {
        check_dates(variable)?;
    }
    let strides = answer.variables.iter().map(|v| strides(v, widest));
    let strides = strides.collect::<Result<Vec<_>, _>>()?;
    let labels: Vec<Vec<String>> = labels(answer, widest);
    let mut out = Vec::new();
    let headings = headings(answer, widest);
    let names = answer.variables.iter().map(|variable| &variable.name);
    for (place, heading) in headings.iter().chain(names).enumerate() {
        separate(place, &mut out);
        write_text(heading, &mut out);
    }
    out.extend(LINE_END);
    if shape.contains(&0) {
        return Ok(out);
    }
    let mut index = vec![0_usize; shape.len()];
    loop {
        for (axis, labels) in labels.iter().enumerate() {
            separate(axis, &mut out);
            out.extend(labels[index[axis]].as_bytes());
        }
        for (column, (variable, strides)) in answer.variables.iter().zip(&strides).enumerate() {
            separate(labels.len() + column, &mut out);
            let place = index.iter().zip(strides).map(|(i, stride)| i * stride);
            let tensor = &variable.tensor;
            let cell = cells::at(tensor, place.sum());
            write_cell(&tensor.data_type, cell, &mut out);
        }
        out.extend(LINE_END);
        // The next place in C order.
        let Some(axis) = (0..shape.len())
            .rev()
            .find(|&axis| index[axis] as u64 + 1 < shape[axis])
        else {
            return Ok(out);
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

const LINE_END: &[u8] = b"\r\n";

fn separate(column: usize, out: &mut Vec<u8>) {
    if column > 0 {
        out.push(b',');
    }
}

/// How far a step along each dimension of `widest` goes in a variable's elements.
fn strides(variable: &Variable, widest: &Variable) -> Result<Vec<usize>, Failure> {
    let shape = &variable.tensor.shape;
    let mut own = vec![1_usize; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        own[axis] = own[axis + 1].saturating_mul(shape[axis + 1] as usize);
    }
    if (&variable.dimensions, shape) == (&widest.dimensions, &widest.tensor.shape) {
        return Ok(own);
    }
    let mut strides = vec![0; widest.dimensions.len()];
    for (axis, name) in variable.dimensions.iter().enumerate() {
        let mut places = (0..widest.dimensions.len()).filter(|&place| {
            name.is_some()
                && widest.dimensions[place] == *name
                && widest.tensor.shape[place] == shape[axis]
        });
        match (places.next(), places.next()) {
            (Some(place), None) => strides[place] = own[axis],
            _ => {
                let detail = format!(
                    "{} and {} do not share their dimensions, as rows of a table must: ask for f=json, f=arrow or f=netcdf",
                    variable.name, widest.name
                );
                return Err(Failure::not_acceptable(detail));
            }
        }
    }
    Ok(strides)
}

fn headings(answer: &Answer, widest: &Variable) -> Vec<String> {
    let names = &widest.dimensions;
    let heading = |axis: usize| {
        let is_free = |name: &&String| {
            let is_variable = answer.variables.iter().any(|v| v.name == **name);
            let times = names.iter().flatten().filter(|other| other == name);
            !is_variable && times.count() == 1
        };
        let name = names[axis].as_ref().filter(is_free);
        name.cloned().unwrap_or_else(|| format!("dim_{axis}"))
    };
    (0..names.len()).map(heading).collect()
}

/// What stands in the columns of the dimensions, by dimension and position.
fn labels(answer: &Answer, widest: &Variable) -> Vec<Vec<String>> {
    let axes = widest.dimensions.iter().zip(&widest.tensor.shape);
    axes.map(|(name, &length)| {
        let name = name.as_deref();
        let coordinate = name.and_then(|name| answer.coordinate(name, length));
        let is_variable = answer.variables.iter().any(|v| Some(&*v.name) == name);
        match coordinate.filter(|_| !is_variable) {
            Some(coordinate) => {
                let tensor = &coordinate.tensor;
                let label = |cell: &[u8]| {
                    let mut out = Vec::new();
                    write_cell(&tensor.data_type, cell, &mut out);
                    String::from_utf8_lossy(&out).into_owned()
                };
                cells::bytes(tensor).map(label).collect()
            }
            // Where there are no rows, there may be positions without number.
            None if widest.tensor.shape.contains(&0) => Vec::new(),
            None => (0..length).map(|position| position.to_string()).collect(),
        }
    })
    .collect()
}

fn write_cell(data_type: &DataType, bytes: &[u8], out: &mut Vec<u8>) {
    let text = match data_type {
        DataType::Bool if bytes == [0] => "False".into(),
        DataType::Bool => "True".into(),
        DataType::Int8 => i8::from_le_bytes(array(bytes)).to_string(),
        DataType::Int16 => i16::from_le_bytes(array(bytes)).to_string(),
        DataType::Int32 => i32::from_le_bytes(array(bytes)).to_string(),
        DataType::Int64 => i64::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt8 => u8::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt16 => u16::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt32 => u32::from_le_bytes(array(bytes)).to_string(),
        DataType::UInt64 => u64::from_le_bytes(array(bytes)).to_string(),
        DataType::Float16 => float32(f16::from_le_bytes(array(bytes)).to_f32()),
        DataType::BFloat16 => float32(bf16::from_le_bytes(array(bytes)).to_f32()),
        DataType::Float32 => float32(f32::from_le_bytes(array(bytes))),
        DataType::Float64 => float64(f64::from_le_bytes(array(bytes))),
        DataType::Complex64 => {
            let (re, im) = bytes.split_at(4);
            let (re, im) = (array(re), array(im));
            let im = f32::from_le_bytes(im);
            let sign = sign(im.is_sign_negative() && !im.is_nan());
            format!("{}{sign}{}j", float32(f32::from_le_bytes(re)), float32(im))
        }
        DataType::Complex128 => {
            let (re, im) = bytes.split_at(8);
            let (re, im) = (array(re), array(im));
            let im = f64::from_le_bytes(im);
            let sign = sign(im.is_sign_negative() && !im.is_nan());
            format!("{}{sign}{}j", float64(f64::from_le_bytes(re)), float64(im))
        }
        DataType::DateTime64 { unit, scale_factor } => {
            date(i64::from_le_bytes(array(bytes)), *unit, *scale_factor)
        }
        DataType::TimeDelta64 { .. } => match i64::from_le_bytes(array(bytes)) {
            i64::MIN => "NaT".into(),
            ticks => ticks.to_string(),
        },
        DataType::String
        | DataType::NullTerminatedBytes { .. }
        | DataType::FixedLengthUtf32 { .. } => {
            let text = cells::text(data_type, bytes).unwrap_or_default();
            return write_text(&text, out);
        }
        DataType::RawBits { .. } | DataType::RawBytes { .. } | DataType::VariableLengthBytes => {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return write_text(&text, out);
        }
    };
    out.extend(text.as_bytes());
}

/// The sign that a number does not write itself.
fn sign(is_negative: bool) -> &'static str {
    if is_negative { "" } else { "+" }
}

// `Debug` writes the shortest digits, with an exponent where there would be many zeros.
fn float32(value: f32) -> String {
    format!("{value:?}")
}

fn float64(value: f64) -> String {
    format!("{value:?}")
}

/// A text, in quotes where it would not be one field otherwise.
fn write_text(text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() && !text.contains(['"', ',', '\r', '\n']) {
        return out.extend(text.as_bytes());
    }
    out.push(b'"');
    out.extend(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// ISO 8601; ticks in units finer than that of any calendar.
fn date(ticks: i64, unit: TimeUnit, scale: u32) -> String {
    if ticks == i64::MIN {
        return "NaT".into();
    }
    checked_date(ticks, unit, scale).unwrap_or_else(|| ticks.to_string())
}

/// Refuses dates that ISO 8601 does not have: a number in their place would be read as a year.
fn check_dates(variable: &Variable) -> Result<(), Failure> {
    let DataType::DateTime64 { unit, scale_factor } = variable.tensor.data_type else {
        return Ok(());
    };
    let is_dated = checked_date(0, unit, scale_factor).is_some();
    let is_written = |cell: &[u8]| {
        let ticks = i64::from_le_bytes(array(cell));
        ticks == i64::MIN || checked_date(ticks, unit, scale_factor).is_some()
    };
    if is_dated && !cells::bytes(&variable.tensor).all(is_written) {
        let detail = format!(
            "{} has dates outside the years 0 to 9999: ask for f=npy or f=json",
            variable.name
        );
        return Err(Failure::not_acceptable(detail));
    }
    Ok(())
}

/// The date, if it is one of the years 0 to 9999.
fn checked_date(ticks: i64, unit: TimeUnit, scale: u32) -> Option<String> {
    let count = ticks.checked_mul(i64::from(scale))?;
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let within = |date: NaiveDate| (0..=9999).contains(&date.year());
    let dated = |date: Option<NaiveDate>| date.filter(|&d| within(d)).map(|d| d.to_string());
    let months = |count: i64| {
        let months = Months::new(u32::try_from(count.unsigned_abs()).ok()?);
        dated(match count < 0 {
            true => epoch.checked_sub_months(months),
            false => epoch.checked_add_months(months),
        })
    };
    let days = |count: i64| {
        let days = Days::new(count.unsigned_abs());
        dated(match count < 0 {
            true => epoch.checked_sub_days(days),
            false => epoch.checked_add_days(days),
        })
    };
    let time = |delta: TimeDelta, format: &str| {
        let time = DateTime::UNIX_EPOCH.checked_add_signed(delta)?;
        within(time.date_naive()).then(|| time.format(format).to_string())
    };
    match unit {
        TimeUnit::Year => months(count.checked_mul(12)?),
        TimeUnit::Month => months(count),
        TimeUnit::Week => days(count.checked_mul(7)?),
        TimeUnit::Day => days(count),
        TimeUnit::Hour => time(TimeDelta::try_hours(count)?, "%FT%T"),
        TimeUnit::Minute => time(TimeDelta::try_minutes(count)?, "%FT%T"),
        TimeUnit::Second => time(TimeDelta::try_seconds(count)?, "%FT%T"),
        TimeUnit::Millisecond => time(TimeDelta::try_milliseconds(count)?, "%FT%T%.3f"),
        TimeUnit::Microsecond => time(TimeDelta::microseconds(count), "%FT%T%.6f"),
        TimeUnit::Nanosecond => time(TimeDelta::nanoseconds(count), "%FT%T%.9f"),
        TimeUnit::Picosecond | TimeUnit::Femtosecond | TimeUnit::Attosecond | TimeUnit::Generic => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{doubles, floats, grid, tensor, texts, variable};
    use super::*;

    fn lines(answer: &Answer) -> Vec<String> {
        let text = String::from_utf8(encode(answer).unwrap()).unwrap();
        let text = text.strip_suffix("\r\n").unwrap();
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_cell_is_a_row() {
        assert_eq!(
            lines(&grid()),
            [
                "lat,x,t",
                "-10.0,0,1.5",
                "-10.0,1,NaN",
                "-10.0,2,0.1",
                "10.0,0,-2.0",
                "10.0,1,3e30",
                "10.0,2,inf",
            ]
        );
    }

    #[test]
    fn scalars_and_empty_answers_have_a_heading() {
        let scalar = variable("v", &[], floats(&[], &[f32::NAN]));
        assert_eq!(lines(&Answer::of(scalar)), ["v", "NaN"]);
        let empty = variable("v", &["", "y"], floats(&[1 << 40, 0], &[]));
        assert_eq!(lines(&Answer::of(empty)), ["dim_0,y,v"]);
    }

    #[test]
    fn fields_are_quoted_where_they_must() {
        let words = texts(&[4], &["a", "", "b,\"c\"", "d\r\ne"]);
        let written = encode(&Answer::of(variable("w", &[""], words))).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "dim_0,w\r\n0,a\r\n1,\"\"\r\n2,\"b,\"\"c\"\"\"\r\n3,\"d\r\ne\"\r\n"
        );
    }

    #[test]
    fn variables_of_fewer_dimensions_are_repeated() {
        let mut answer = grid();
        answer
            .variables
            .insert(0, variable("w", &["x"], doubles(&[3], &[7.0, 8.0, 9.0])));
        answer
            .variables
            .push(variable("s", &[], doubles(&[], &[0.5])));
        let lines = lines(&answer);
        assert_eq!(lines[0], "lat,x,w,t,s");
        assert_eq!(lines[5], "10.0,1,8.0,3e30,0.5");
        let other = variable("o", &["z"], doubles(&[3], &[0.0; 3]));
        answer.variables.push(other);
        assert_eq!(encode(&answer).unwrap_err().problem().status, 406);
    }

    #[test]
    fn names_of_columns_are_unique() {
        let squared = variable("x", &["x", "x"], floats(&[1, 1], &[0.0]));
        assert_eq!(lines(&Answer::of(squared))[0], "dim_0,dim_1,x");
        let mut itself = Answer::of(variable("lat", &["lat"], doubles(&[1], &[4.0])));
        itself.coordinates = itself.variables.clone();
        assert_eq!(lines(&itself), ["dim_0,lat", "0,4.0"]);
    }

    #[test]
    fn every_type_has_a_text() {
        let time = |unit| DataType::DateTime64 {
            unit,
            scale_factor: 1,
        };
        let ticks = |ticks: i64| ticks.to_le_bytes().to_vec();
        let complex = |re: f64, im: f64| [re.to_le_bytes(), im.to_le_bytes()].concat();
        for (data_type, bytes, expected) in [
            (DataType::Bool, vec![1], "True"),
            (DataType::UInt64, vec![255; 8], "18446744073709551615"),
            (DataType::Int64, ticks(i64::MIN), "-9223372036854775808"),
            (
                DataType::Float64,
                f64::MAX.to_le_bytes().to_vec(),
                "1.7976931348623157e308",
            ),
            (DataType::Complex128, complex(1.5, -2.0), "1.5-2.0j"),
            (
                DataType::Complex128,
                complex(f64::NAN, f64::NAN),
                "NaN+NaNj",
            ),
            (time(TimeUnit::Month), ticks(-1), "1969-12-01"),
            (time(TimeUnit::Day), ticks(18_262), "2020-01-01"),
            (time(TimeUnit::Hour), ticks(1), "1970-01-01T01:00:00"),
            (
                time(TimeUnit::Nanosecond),
                ticks(1),
                "1970-01-01T00:00:00.000000001",
            ),
            (time(TimeUnit::Second), ticks(i64::MIN), "NaT"),
            (time(TimeUnit::Picosecond), ticks(7), "7"),
            (
                DataType::NullTerminatedBytes { length_bytes: 3 },
                b"ab\0".to_vec(),
                "ab",
            ),
            (DataType::RawBits { length_bytes: 2 }, vec![1, 255], "01ff"),
        ] {
            let limit = row_bytes(&data_type, 0) as usize;
            let cell = tensor(data_type.clone(), &[], bytes);
            let written = lines(&Answer::of(variable("v", &[], cell)));
            assert_eq!(written[1], expected, "{data_type}");
            assert!(written[1].len() + 2 <= limit, "{data_type}");
        }
        for unit in [TimeUnit::Year, TimeUnit::Day, TimeUnit::Second] {
            let far = tensor(time(unit), &[], ticks(i64::MAX));
            let refused = encode(&Answer::of(variable("v", &[], far))).unwrap_err();
            assert_eq!(refused.problem().status, 406);
        }
    }
}
