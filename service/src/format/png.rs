//! PNG: an image of two dimensions, a pixel for each element.
//!
//! The first dimension goes down and the second to the right, but north is up: rows whose coordinate is
//! a latitude that ascends go up. Colours are 255 steps of a colormap over a range, which is in the
//! image as the text `range`; values beyond it have the colours of its ends, missing ones are
//! transparent.

mod colormap;

use array::Tensor;
use serde_json::Value;

use super::{Answer, Format, Options, Variable, cells};
use crate::error::Failure;

pub use colormap::Colormap;

/// Most pixels of an image, 8192 × 8192: what browsers still show.
const MAX_PIXELS: u64 = 1 << 26;
/// The place in the palette of what is missing.
const MISSING: u8 = 0;

/// An answer as an image.
///
/// # Errors
/// 406 unless it is one variable of real numbers in two dimensions, lengths of 1 aside; 413 for an
/// image of too many pixels.
pub(super) fn encode(answer: &Answer, options: &Options) -> Result<Vec<u8>, Failure> {
    let variable = match &answer.variables[..] {
        [variable] => variable,
        // The same words as for all formats of one variable.
        _ => &answer.clone().into_single(Format::Png)?,
    };
    let (rows, height, width) = layout(variable)?;
    let values = numbers(variable)?;
    let range = options.range.unwrap_or_else(|| range(&values));
    let mut pixels: Vec<u8> = values.iter().map(|&value| step(value, range)).collect();
    if is_north_down(answer, variable, rows) {
        let row = |row: &[u8]| row.to_vec();
        pixels = pixels.rchunks_exact(width as usize).flat_map(row).collect();
    }
    write(&pixels, (width, height), options, range)
        .map_err(|error| Failure::not_acceptable(format!("there is no such image: {error}")))
}

/// `min,max`.
pub(super) fn parse_range(text: &str) -> Result<(f64, f64), Failure> {
    let parse = || {
        let (least, most) = text.split_once(',')?;
        let (least, most) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
        let is_range = f64::is_finite(least) && f64::is_finite(most) && least < most;
        is_range.then_some((least, most))
    };
    let detail = format!("{text:?} is not MIN,MAX, two numbers of which the second is larger");
    parse().ok_or_else(|| Failure::bad_request("range", detail))
}

/// The dimension that is the rows, the height and the width.
fn layout(variable: &Variable) -> Result<(usize, u32, u32), Failure> {
    let shape = &variable.tensor.shape;
    let mut kept: Vec<usize> = (0..shape.len()).collect();
    while kept.len() > 2
        && let Some(place) = kept.iter().position(|&axis| shape[axis] == 1)
    {
        kept.remove(place);
    }
    let [rows, columns] = kept[..] else {
        let detail = format!(
            "an image has two dimensions, the answer the shape {shape:?}: ask for a part of it with slice="
        );
        return Err(Failure::not_acceptable(detail));
    };
    let pixels = shape[rows].saturating_mul(shape[columns]);
    if pixels > MAX_PIXELS {
        let detail = format!(
            "an image of {pixels} pixels; the most is {MAX_PIXELS}: ask for fewer with slice=, as ::4,::4"
        );
        return Err(Failure::too_large(MAX_PIXELS, detail));
    }
    let length = |axis: usize| u32::try_from(shape[axis]).ok().filter(|&length| length > 0);
    match (length(rows), length(columns)) {
        (Some(height), Some(width)) => Ok((rows, height, width)),
        _ => Err(Failure::not_acceptable(format!(
            "an image has pixels, the answer the shape {shape:?}"
        ))),
    }
}

fn numbers(variable: &Variable) -> Result<Vec<f64>, Failure> {
    let data_type = &variable.tensor.data_type;
    let numbers = cells::bytes(&variable.tensor).map(|cell| cells::number(data_type, cell));
    numbers.collect::<Option<_>>().ok_or_else(|| {
        let detail = format!("an image is of real numbers, not of {data_type}");
        Failure::not_acceptable(detail)
    })
}

/// The least and the greatest finite value.
fn range(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (least, most) = finite.fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (least.min(value), most.max(value)),
    );
    if least > most {
        (0.0, 1.0)
    } else {
        (least, most)
    }
}

/// The place of a value's colour in the palette.
fn step(value: f64, (least, most): (f64, f64)) -> u8 {
    if value.is_nan() {
        return MISSING;
    }
    // Halves, as the difference of two numbers may be none.
    let share = if least < most {
        (value / 2.0 - least / 2.0) / (most / 2.0 - least / 2.0)
    } else {
        0.5
    };
    1 + (share.clamp(0.0, 1.0) * 254.0).round() as u8
}

/// Whether the rows begin in the south.
fn is_north_down(answer: &Answer, variable: &Variable, rows: usize) -> bool {
    let Some(name) = &variable.dimensions[rows] else {
        return false;
    };
    let coordinate = answer.coordinate(name, variable.tensor.shape[rows]);
    coordinate.is_some_and(|coordinate| is_latitude(coordinate) && ascends(&coordinate.tensor))
}

/// Source: CF conventions §4.1, and the names in use where there are no attributes.
fn is_latitude(coordinate: &Variable) -> bool {
    const UNITS: [&str; 6] = [
        "degrees_north",
        "degree_north",
        "degree_N",
        "degrees_N",
        "degreeN",
        "degreesN",
    ];
    const STANDARD_NAMES: [&str; 3] = ["latitude", "grid_latitude", "projection_y_coordinate"];
    let attribute = |name: &str| coordinate.attributes.get(name).and_then(Value::as_str);
    attribute("units").is_some_and(|units| UNITS.contains(&units))
        || attribute("standard_name").is_some_and(|name| STANDARD_NAMES.contains(&name))
        || matches!(coordinate.name.to_lowercase().as_str(), "lat" | "latitude")
}

fn ascends(tensor: &Tensor) -> bool {
    let number = |cell: &[u8]| cells::number(&tensor.data_type, cell);
    let mut numbers = cells::bytes(tensor).map(number);
    let first = numbers.next().flatten();
    let last = numbers.last().flatten();
    matches!((first, last), (Some(first), Some(last)) if first < last)
}

fn write(
    pixels: &[u8],
    (width, height): (u32, u32),
    options: &Options,
    (least, most): (f64, f64),
) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_compression(png::Compression::Balanced);
    let steps = (0..255_u8).flat_map(|place| options.colormap.color(f64::from(place) / 254.0));
    let palette: Vec<u8> = [0; 3].into_iter().chain(steps).collect();
    encoder.set_palette(palette);
    // All after the first are opaque.
    encoder.set_trns(vec![0]);
    encoder.add_text_chunk("range".into(), format!("{least:?},{most:?}"))?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use array::DataType;

    use super::super::samples::{doubles, floats, grid, tensor, texts, variable};
    use super::*;

    /// Pixels with alpha, and the text in the image.
    fn decoded(answer: &Answer, options: &Options) -> (Vec<[u8; 4]>, (u32, u32), String) {
        let file = encode(answer, options).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let size = reader.next_frame(&mut bytes).unwrap();
        let text = reader.info().uncompressed_latin1_text[0].text.clone();
        let (pixels, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty());
        (pixels.to_vec(), (size.width, size.height), text)
    }

    const GRAY: Options = Options {
        colormap: Colormap::Gray,
        range: None,
    };

    #[test]
    fn values_are_colours_and_missing_ones_transparent() {
        let values = floats(
            &[1, 2, 3],
            &[0.0, f32::NAN, 254.0, 127.0, f32::INFINITY, -1.0],
        );
        let answer = Answer::of(variable("v", &["t", "y", "x"], values));
        let options = Options {
            range: Some((0.0, 254.0)),
            ..GRAY
        };
        let (pixels, size, text) = decoded(&answer, &options);
        assert_eq!((size, text.as_str()), ((3, 2), "0.0,254.0"));
        let gray = |level: u8| [level, level, level, 255];
        assert_eq!(pixels[0], gray(0));
        assert_eq!(pixels[1][3], 0);
        assert_eq!(pixels[2], gray(255));
        assert_eq!(pixels[3], gray(128));
        assert_eq!((pixels[4], pixels[5]), (gray(255), gray(0)));
        let (_, _, of_data) = decoded(&answer, &GRAY);
        assert_eq!(of_data, "-1.0,254.0");
    }

    #[test]
    fn north_is_up() {
        let mut answer = grid();
        answer.variables[0].tensor = floats(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let reds = |answer: &Answer| -> Vec<u8> {
            decoded(answer, &GRAY)
                .0
                .iter()
                .map(|pixel| pixel[0])
                .collect()
        };
        let down = [0, 51, 102, 153, 204, 255];
        let up = [153, 204, 255, 0, 51, 102];
        let near = |found: Vec<u8>, wanted: [u8; 6]| {
            found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1)
        };
        assert!(near(reds(&answer), up));
        // From north to south it is as it lies there, and so is what is no latitude.
        answer.coordinates[0].tensor = doubles(&[2], &[10.0, -10.0]);
        assert!(near(reds(&answer), down));
        answer.coordinates[0] = variable("lat", &["lat"], doubles(&[2], &[0.0, 1.0]));
        assert!(near(reds(&answer), up));
        answer.coordinates.clear();
        assert!(near(reds(&answer), down));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let status = |tensor: Tensor| {
            let names = vec![""; tensor.shape.len()];
            let answer = Answer::of(variable("v", &names, tensor));
            encode(&answer, &GRAY).map_err(|failure| failure.problem().status)
        };
        assert!(status(floats(&[1, 1], &[1.0])).is_ok());
        assert!(status(floats(&[1, 1, 1], &[f32::NAN])).is_ok());
        assert_eq!(status(floats(&[2], &[1.0, 2.0])), Err(406));
        assert_eq!(status(floats(&[2, 2, 2], &[0.0; 8])), Err(406));
        assert_eq!(status(floats(&[0, 2], &[])), Err(406));
        assert_eq!(status(texts(&[1, 1], &["a"])), Err(406));
        let complex = tensor(DataType::Complex64, &[1, 1], vec![0; 8]);
        assert_eq!(status(complex), Err(406));
        let large = tensor(DataType::Int8, &[1 << 14, 1 << 13], Vec::new());
        assert_eq!(status(large), Err(413));
    }

    #[test]
    fn ranges_of_any_width_have_steps() {
        let whole = (f64::MIN, f64::MAX);
        assert_eq!(
            [f64::MIN, 0.0, f64::MAX].map(|v| step(v, whole)),
            [1, 128, 255]
        );
        assert_eq!(step(3.0, (3.0, 3.0)), 128);
        assert_eq!(range(&[f64::NAN]), (0.0, 1.0));
    }
}
