//! GeoTIFF, and any other TIFF of numbers.
//!
//! ```text
//! first directory ─► band_data (band, y, x), band, y, x, spatial_ref
//! box ─► the tiles or strips it meets, each decoded whole
//! ```
//!
//! Left out: overviews and masks, with a warning for the latter. Further images are refused by name.
//!
//! Source: TIFF 6.0; OGC GeoTIFF 1.1; names of variables and attributes: xarray's engine "rasterio"
//! in rioxarray.

mod geo;
mod lzw;

use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::tiff::TiffResult;
use ::tiff::decoder::{ChunkType, Decoder, Limits};
use ::tiff::tags::{PhotometricInterpretation, PlanarConfiguration, Tag};
use array::{DataType, Elements, Region, shape};

use self::geo::{Tags, Transform};
use self::lzw::Tiles;
use crate::Error;
use crate::recent::Recent;
use crate::source::{Attribute, Attributes, Group, Reader, Refused, Variable};

/// Most bytes one tile or strip may unpack to.
const MAX_CHUNK_BYTES: usize = 256 << 20;
/// Most bytes of one tag: 8 million tiles.
const MAX_TAG_BYTES: usize = 64 << 20;
/// Most images of a file.
const MAX_IMAGES: usize = 10_000;
/// Most bands of an image.
const MAX_BANDS: u64 = 65_535;
/// Decoded tiles that are kept for the next box.
const RECENT_BYTES: usize = 64 << 20;

/// Bits of `NewSubfileType`: a smaller version of another image, and its mask.
const IS_OVERVIEW: u32 = 1;
const IS_MASK: u32 = 4;

/// An open TIFF file.
#[derive(Debug)]
pub(crate) struct TiffFile {
    path: PathBuf,
    decoder: Mutex<Opened>,
    image: Image,
    /// What the decoder would stop at.
    lzw: Option<Tiles>,
    axes: Option<[(f64, f64); 2]>,
    recent: Recent<u32, Chunk>,
    warnings: Vec<String>,
}

/// The decoder, which tells nothing about itself.
struct Opened(Decoder<BufReader<File>>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

/// A decoded tile or strip.
#[derive(Debug)]
struct Chunk {
    pixels: Vec<u8>,
    rows: u64,
    columns: u64,
}

/// The pixels of an image.
#[derive(Clone, Debug)]
struct Image {
    data_type: DataType,
    bands: u64,
    height: u64,
    width: u64,
    /// Height and width of a tile or strip.
    chunk: [u64; 2],
    /// Whether each has one band, or all of them pixel by pixel.
    is_planar: bool,
    /// Whether the decoder turns values over, since 0 stands for white: what is stored is wanted.
    is_inverted: bool,
}

/// What the variables are, by their handles.
const BAND_DATA: usize = 0;
const BAND: usize = 1;
const Y: usize = 2;
const X: usize = 3;
const SPATIAL_REF: usize = 4;

impl TiffFile {
    /// Opens a file and reads its directories.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no such file, [`Error::Unsupported`] if its pixels are nothing
    /// that can be kept.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<Group>), Error> {
        let file = File::open(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_CHUNK_BYTES;
        limits.intermediate_buffer_size = MAX_CHUNK_BYTES;
        limits.ifd_value_size = MAX_TAG_BYTES;
        let opened = guarded(path, || Decoder::new(BufReader::new(file)))?;
        let mut decoder = opened.with_limits(limits);
        let image = Image::of(&mut decoder, path)?;
        let tags = guarded(path, || Ok(geo_tags(&mut decoder)))?;
        let attributes = guarded(path, || Ok(attributes(&mut decoder, &image, &tags)))?;
        let (refused, warnings) = guarded(path, || Ok(others(&mut decoder)))??;
        guarded(path, || decoder.seek_to_image(0))?;
        let lzw = guarded(path, || Tiles::of(&mut decoder, &image))?;
        let axes = tags.transform().unwrap_or(Transform::IDENTITY).axes();
        let group = Group {
            path: Vec::new(),
            attributes: Vec::new(),
            variables: variables(&image, attributes, tags.attributes(), axes.is_some()),
            refused,
        };
        let file = Self {
            path: path.to_owned(),
            decoder: Mutex::new(Opened(decoder)),
            image,
            lzw,
            axes,
            recent: Recent::new(RECENT_BYTES),
            warnings,
        };
        Ok((file, vec![group]))
    }

    /// Decodes a tile or strip of so many samples a pixel.
    fn chunk(&self, at: u32, samples: u64) -> Result<std::sync::Arc<Chunk>, Error> {
        if let Some(found) = self.recent.get(&at) {
            return Ok(found);
        }
        let size = self.image.data_type.size_bytes().unwrap_or(1) as u64;
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        // Without what is past the image, but for the lowest tiles of all planes but the first.
        let (columns, rows) = guarded(&self.path, || Ok(decoder.0.chunk_data_dimensions(at)))?;
        let (columns, rows) = (u64::from(columns), u64::from(rows));
        let bytes = (columns * rows).saturating_mul(samples * size);
        if bytes > MAX_CHUNK_BYTES as u64 {
            return Err(array::Error::TooLarge { what: "tile" }.into());
        }
        let [_, width] = self.image.chunk;
        let pixels = match &self.lzw {
            Some(tiles) if columns < width => guarded(&self.path, || {
                Ok(tiles.read(&mut decoder.0, at, rows as usize, columns as usize)?)
            })?,
            _ => {
                let mut pixels = zeroed(bytes as usize)?;
                guarded(&self.path, || decoder.0.read_chunk_bytes(at, &mut pixels))?;
                if self.image.is_inverted {
                    pixels.iter_mut().for_each(|byte| *byte = !*byte);
                }
                pixels
            }
        };
        let chunk = Chunk {
            pixels,
            rows,
            columns,
        };
        Ok(self.recent.put(at, chunk, bytes as usize))
    }

    fn pixels(&self, region: &Region) -> Result<Vec<u8>, Error> {
        let image = &self.image;
        let size = image.data_type.size_bytes().unwrap_or(1);
        let mut out = zeroed(shape::size_bytes(region.shape(), &image.data_type)?)?;
        let (bands, rows, columns) = (region.range(0), region.range(1), region.range(2));
        if out.is_empty() {
            return Ok(out);
        }
        let [height, width] = image.chunk;
        let across = image.width.div_ceil(width);
        let per_plane = across * image.height.div_ceil(height);
        let planes = if image.is_planar { bands.clone() } else { 0..1 };
        for plane in planes {
            for down in rows.start / height..rows.end.div_ceil(height) {
                for over in columns.start / width..columns.end.div_ceil(width) {
                    let at = plane * per_plane + down * across + over;
                    let at =
                        u32::try_from(at).map_err(|_| array::Error::TooLarge { what: "image" })?;
                    let (top, left) = (down * height, over * width);
                    let samples = if image.is_planar { 1 } else { image.bands };
                    let chunk = self.chunk(at, samples)?;
                    let chunk_rows = chunk.rows.min(image.height - top);
                    let chunk_columns = chunk.columns.min(image.width - left);
                    let pixels = &chunk.pixels;
                    let of_chunk = if image.is_planar {
                        plane..plane + 1
                    } else {
                        bands.clone()
                    };
                    for band in of_chunk {
                        let sample = if image.is_planar { 0 } else { band };
                        for row in rows.start.max(top)..rows.end.min(top + chunk_rows) {
                            let first = columns.start.max(left);
                            let last = columns.end.min(left + chunk_columns);
                            let from =
                                ((row - top) * chunk.columns + first - left) * samples + sample;
                            let to = (band - bands.start) * region.shape()[1] + row - rows.start;
                            let to = to * region.shape()[2] + first - columns.start;
                            let (from, to) = (from as usize * size, to as usize * size);
                            let count = (last - first) as usize;
                            let step = samples as usize * size;
                            for nth in 0..count {
                                let (from, to) = (from + nth * step, to + nth * size);
                                out[to..to + size].copy_from_slice(&pixels[from..from + size]);
                            }
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

impl Image {
    fn of(decoder: &mut Decoder<BufReader<File>>, path: &Path) -> Result<Self, Error> {
        let (width, height) = guarded(path, || decoder.dimensions())?;
        let mut number = |tag, default: u16| -> Result<Vec<u16>, Error> {
            let found = guarded(path, || decoder.find_tag_unsigned_vec(tag))?;
            Ok(found
                .filter(|found| !found.is_empty())
                .unwrap_or(vec![default]))
        };
        let bits = number(Tag::BitsPerSample, 1)?;
        let formats = number(Tag::SampleFormat, 1)?;
        let bands = u64::from(number(Tag::SamplesPerPixel, 1)?[0]);
        let planar = number(Tag::PlanarConfiguration, 1)?[0];
        let photometric = number(Tag::PhotometricInterpretation, 1)?[0];
        let is_inverted = photometric == PhotometricInterpretation::WhiteIsZero.to_u16();
        let unsupported = |reason: String| Error::Unsupported {
            what: path.display().to_string(),
            reason,
        };
        let is_one = |values: &[u16]| values.iter().all(|value| *value == values[0]);
        if !is_one(&bits) || !is_one(&formats) {
            let reason =
                format!("its bands have several types (bits {bits:?}, formats {formats:?})");
            return Err(unsupported(reason));
        }
        let data_type = match (bits[0], formats[0]) {
            (8, 1 | 4) => DataType::UInt8,
            (16, 1 | 4) => DataType::UInt16,
            (32, 1 | 4) => DataType::UInt32,
            (64, 1 | 4) => DataType::UInt64,
            (8, 2) => DataType::Int8,
            (16, 2) => DataType::Int16,
            (32, 2) => DataType::Int32,
            (64, 2) => DataType::Int64,
            (16, 3) => DataType::Float16,
            (32, 3) => DataType::Float32,
            (64, 3) => DataType::Float64,
            (bits, format) => {
                let reason = format!("its pixels have {bits} bits of format {format}");
                return Err(unsupported(reason));
            }
        };
        if bands == 0 || bands > MAX_BANDS || width == 0 || height == 0 {
            return Err(unsupported(format!(
                "it has {bands} bands of {width} x {height} pixels"
            )));
        }
        let (chunk, count) = guarded(path, || {
            let chunk = decoder.chunk_dimensions();
            let count = match decoder.get_chunk_type() {
                ChunkType::Strip => decoder.strip_count()?,
                ChunkType::Tile => decoder.tile_count()?,
            };
            Ok((chunk, count))
        })?;
        let image = Self {
            data_type,
            bands,
            height: height.into(),
            width: width.into(),
            chunk: [chunk.1.into(), chunk.0.into()],
            is_planar: planar == PlanarConfiguration::Planar.to_u16(),
            is_inverted,
        };
        let odd = |reason: &str| Error::Malformed {
            path: path.to_owned(),
            reason: reason.into(),
        };
        if image.chunk.contains(&0) {
            return Err(odd("its tiles have no size"));
        }
        if is_inverted && formats[0] != 1 {
            return Err(unsupported(
                "0 stands for white in pixels that are no counts".into(),
            ));
        }
        let size = image.data_type.size_bytes().unwrap_or(1) as u64;
        let samples = if image.is_planar { 1 } else { bands };
        let pixels = image.chunk[0].min(image.height) * image.chunk[1].min(image.width);
        let bytes = pixels.saturating_mul(samples * size);
        if bytes > MAX_CHUNK_BYTES as u64 {
            return Err(unsupported(format!(
                "a tile or strip of it takes {bytes} bytes, the most is {MAX_CHUNK_BYTES}: write it \
                 in tiles"
            )));
        }
        let [down, over] = [
            image.height.div_ceil(image.chunk[0]),
            image.width.div_ceil(image.chunk[1]),
        ];
        let planes = if image.is_planar { bands } else { 1 };
        if down * over * planes != u64::from(count) {
            return Err(odd("its number of tiles or strips does not fit its size"));
        }
        Ok(image)
    }
}

fn zeroed(bytes: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let room = out.try_reserve_exact(bytes);
    room.map_err(|_| array::Error::TooLarge { what: "image" })?;
    out.resize(bytes, 0);
    Ok(out)
}

fn geo_tags(decoder: &mut Decoder<BufReader<File>>) -> Tags {
    // A tag that cannot be read is one that is not there: the pixels do not depend on it.
    let mut numbers = |tag| decoder.get_tag_f64_vec(tag).unwrap_or_default();
    Tags {
        scale: numbers(Tag::ModelPixelScaleTag),
        tie_points: numbers(Tag::ModelTiepointTag),
        matrix: numbers(Tag::ModelTransformationTag),
        keys: decoder
            .get_tag_u16_vec(Tag::GeoKeyDirectoryTag)
            .unwrap_or_default(),
        text: decoder.get_tag_ascii_string(Tag::GeoAsciiParamsTag).ok(),
    }
}

fn attributes(decoder: &mut Decoder<BufReader<File>>, image: &Image, tags: &Tags) -> Attributes {
    let text = |text: &str| Attribute::Text(text.to_owned());
    let mut attributes = vec![("AREA_OR_POINT".into(), text(tags.area_or_point()))];
    for (tag, name) in [
        (Tag::ImageDescription, "description"),
        (Tag::Software, "software"),
        (Tag::DateTime, "datetime"),
        (Tag::Unknown(42112), "gdal_metadata"),
    ] {
        if let Ok(found) = decoder.get_tag_ascii_string(tag) {
            attributes.push((name.into(), text(found.trim_end_matches('\0'))));
        }
    }
    let missing = decoder.get_tag_ascii_string(Tag::GdalNodata).ok();
    let missing = missing
        .as_deref()
        .map(|text| text.trim_matches(['\0', ' ', '\n']));
    let fill = missing.and_then(|missing| match image.data_type.is_float() {
        true => missing
            .parse()
            .ok()
            .map(|fill| Attribute::Floats(vec![fill])),
        false => {
            let whole = missing
                .parse::<f64>()
                .ok()
                .filter(|fill| fill.fract() == 0.0);
            let fill = missing.parse().ok().or(whole.map(|fill| fill as i128));
            fill.map(|fill| Attribute::Integers(vec![fill]))
        }
    });
    attributes.extend(fill.map(|fill| ("_FillValue".into(), fill)));
    attributes.push(("grid_mapping".into(), text("spatial_ref")));
    attributes
}

/// What becomes of the images after the first.
fn others(decoder: &mut Decoder<BufReader<File>>) -> Result<(Vec<Refused>, Vec<String>), Error> {
    let (mut refused, mut warnings) = (Vec::new(), Vec::new());
    for nth in 2..=MAX_IMAGES {
        if !decoder.more_images() {
            break;
        }
        let name = format!("image {nth}");
        let kind = decoder
            .next_image()
            .and_then(|()| decoder.find_tag_unsigned::<u32>(Tag::NewSubfileType));
        match kind {
            Ok(Some(kind)) if kind & IS_MASK != 0 => {
                warnings.push(format!("{name} of the file is a mask and is left out"));
            }
            Ok(Some(kind)) if kind & IS_OVERVIEW != 0 => {}
            Ok(_) => refused.push(Refused {
                name,
                reason: "only the first image is imported".into(),
            }),
            Err(error) => {
                let reason = error.to_string();
                refused.push(Refused { name, reason });
                break;
            }
        }
    }
    Ok((refused, warnings))
}

fn variables(
    image: &Image,
    attributes: Attributes,
    spatial_ref: Attributes,
    has_axes: bool,
) -> Vec<Variable> {
    let variable =
        |name: &str, dimensions: &[&str], shape: &[u64], data_type, attributes, handle| Variable {
            name: name.into(),
            dimensions: dimensions.iter().map(|&name| name.to_owned()).collect(),
            shape: shape.to_vec(),
            data_type,
            attributes,
            chunk_shape: None,
            handle,
        };
    let (dimensions, lengths) = (["band", "y", "x"], [image.bands, image.height, image.width]);
    let axis = |name: &str| -> Attributes {
        let text = |text: &str| Attribute::Text(text.to_owned());
        vec![
            ("axis".into(), text(&name.to_uppercase())),
            ("long_name".into(), text(&format!("{name} coordinate"))),
        ]
    };
    let mut data = variable(
        "band_data",
        &dimensions,
        &lengths,
        image.data_type.clone(),
        attributes,
        BAND_DATA,
    );
    data.chunk_shape = Some(vec![1, image.chunk[0], image.chunk[1]]);
    let bands = &lengths[..1];
    let mut variables = vec![
        data,
        variable("band", &["band"], bands, DataType::Int64, Vec::new(), BAND),
        variable(
            "spatial_ref",
            &[],
            &[],
            DataType::Int64,
            spatial_ref,
            SPATIAL_REF,
        ),
    ];
    if has_axes {
        let double = || DataType::Float64;
        variables.push(variable(
            "y",
            &["y"],
            &lengths[1..2],
            double(),
            axis("y"),
            Y,
        ));
        variables.push(variable("x", &["x"], &lengths[2..], double(), axis("x"), X));
    }
    variables
}

impl Reader for TiffFile {
    fn format(&self) -> &'static str {
        "GeoTIFF"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let [x, y] = self.axes.unwrap_or_default();
        let axis = |(origin, step): (f64, f64)| {
            let middle = |at: u64| origin + (at as f64 + 0.5) * step;
            region
                .range(0)
                .flat_map(|at| middle(at).to_le_bytes())
                .collect()
        };
        let bytes: Vec<u8> = match variable.handle {
            BAND_DATA => self.pixels(region)?,
            BAND => region
                .range(0)
                .flat_map(|at| (at as i64 + 1).to_le_bytes())
                .collect(),
            Y => axis(y),
            X => axis(x),
            _ => vec![0; 8],
        };
        Ok(Elements::Fixed(bytes))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

/// Runs code of the TIFF library, which may panic on a file that is not one.
fn guarded<T>(path: &Path, run: impl FnOnce() -> TiffResult<T>) -> Result<T, Error> {
    let malformed = |reason: String| Error::Malformed {
        path: path.to_owned(),
        reason,
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(|error| malformed(error.to_string())),
        Err(_) => Err(malformed("the TIFF library stopped at it".into())),
    }
}

#[cfg(test)]
mod tests;
