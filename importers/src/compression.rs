//! What compresses inner chunks: as asked for, or the best of several on a sample of the data.
//!
//! ```text
//! variable ─► a few boxes of the shape of its inner chunks ─► each candidate encodes, decodes them
//!          ─► bytes to fetch, and the time to decode them, weighed ─► the cheapest
//! ```
//!
//! All candidates are codecs that zarr-python has by itself. Invariant: the choice depends on the
//! data and the shapes alone. Times to decode are weighed as constants, so that an import done
//! again, on any machine, makes the same arrays; measured ones are only told.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use array::{ArrayMetadata, CodecMetadata, DataType, Elements, Region, RegularGrid, shape};
use codecs::ArrayCodec;
use serde_json::json;

use crate::Error;
use crate::chunking::Chunking;
use crate::source::{Source, Variable};
use crate::zarr;

/// Sampled of a variable: this part of it …
const SAMPLED_PART: u64 = 16;
/// … but at least so much …
const SAMPLE_MIN_BYTES: u64 = 256 << 10;
/// … and at most so much.
const SAMPLE_MAX_BYTES: u64 = 4 << 20;
/// Longest box of a sample.
const BOX_MAX_BYTES: u64 = 2 << 20;
/// Boxes that a sample is made of.
const BOXES: usize = 4;
/// Places looked at for boxes that are not all fill value.
const PLACES: u64 = 8;
/// Nanoseconds that a stored byte takes to arrive: 200 MB/s, a good connection to an object store.
const ARRIVAL_NS: f64 = 5.0;

/// What compresses inner chunks: `auto`, `none`, `gzip`, `zstd`, or `zstd` and `lz4` after a
/// `+shuffle` or `+bitshuffle`; with `:LEVEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// What suits a sample of each variable best.
    Auto,
    /// This for all.
    Fixed(Compressor),
}

/// One way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressor {
    method: Method,
    shuffle: Shuffle,
    level: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Nothing,
    Gzip,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shuffle {
    Not,
    Bytes,
    Bits,
}

impl Default for Codec {
    /// `zstd:1`.
    fn default() -> Self {
        Self::Fixed(ZSTD)
    }
}

const fn compressor(method: Method, shuffle: Shuffle, level: u8) -> Compressor {
    Compressor {
        method,
        shuffle,
        level,
    }
}

const ZSTD: Compressor = compressor(Method::Zstd, Shuffle::Not, 1);

/// What `auto` tries, and the nanoseconds that each is taken to need for a decoded byte, in
/// proportions measured on one core of a server of 2024. Levels above the first encode slower,
/// which counts a little.
const CANDIDATES: [(Compressor, f64); 7] = [
    (ZSTD, 0.8),
    (compressor(Method::Zstd, Shuffle::Not, 3), 0.9),
    (compressor(Method::Zstd, Shuffle::Bytes, 1), 0.8),
    (compressor(Method::Zstd, Shuffle::Bytes, 2), 0.9),
    (compressor(Method::Zstd, Shuffle::Bits, 1), 1.0),
    (compressor(Method::Lz4, Shuffle::Bytes, 5), 0.4),
    (compressor(Method::Nothing, Shuffle::Not, 0), 0.1),
];

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = |reason: &str| {
            format!(
                "{text:?} {reason}; there are auto, none, gzip, zstd, zstd+shuffle, \
                 zstd+bitshuffle, lz4, lz4+shuffle and lz4+bitshuffle, and :LEVEL"
            )
        };
        let (name, level) = match text.split_once(':') {
            None => (text, None),
            Some((name, level)) => {
                let level = level.parse::<u8>();
                (name, Some(level.map_err(|_| wrong("has no level"))?))
            }
        };
        let (name, shuffle) = match name.split_once('+') {
            None => (name, Shuffle::Not),
            Some((name, "shuffle")) => (name, Shuffle::Bytes),
            Some((name, "bitshuffle")) => (name, Shuffle::Bits),
            Some(_) => return Err(wrong("is not known")),
        };
        let (method, usual, levels) = match (name, shuffle) {
            ("none", Shuffle::Not) => (Method::Nothing, 0, 0..=0),
            ("gzip", Shuffle::Not) => (Method::Gzip, 5, 1..=9),
            ("zstd", Shuffle::Not) => (Method::Zstd, 1, 1..=22),
            ("zstd", _) => (Method::Zstd, 1, 1..=9),
            ("lz4", _) => (Method::Lz4, 5, 1..=9),
            _ => return Err(wrong("is not known")),
        };
        let level = level.unwrap_or(usual);
        if !levels.contains(&level) {
            let (least, most) = levels.into_inner();
            return Err(wrong(&format!("has a level that is not {least} to {most}")));
        }
        Ok(Self::Fixed(compressor(method, shuffle, level)))
    }
}

impl fmt::Display for Codec {
    /// What [`Codec::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(compressor) => compressor.fmt(f),
        }
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.method {
            Method::Nothing => return f.write_str("none"),
            Method::Gzip => "gzip",
            Method::Lz4 => "lz4",
            Method::Zstd => "zstd",
        };
        let shuffle = match self.shuffle {
            Shuffle::Not => "",
            Shuffle::Bytes => "+shuffle",
            Shuffle::Bits => "+bitshuffle",
        };
        write!(f, "{name}{shuffle}:{}", self.level)
    }
}

impl Compressor {
    /// The Zarr codecs after the one that turns elements into bytes.
    pub fn codecs(&self, data_type: &DataType) -> Vec<CodecMetadata> {
        let level = self.level;
        match (self.method, self.shuffle) {
            (Method::Nothing, _) => Vec::new(),
            (Method::Gzip, _) => vec![CodecMetadata::new("gzip", json!({ "level": level }))],
            (Method::Zstd, Shuffle::Not) => vec![CodecMetadata::new(
                "zstd",
                json!({ "level": level, "checksum": false }),
            )],
            (method, shuffle) => {
                // Blosc has no larger elements.
                let size = data_type
                    .size_bytes()
                    .filter(|size| (1..256).contains(size));
                let configuration = json!({
                    "blocksize": 0,
                    "clevel": level,
                    "cname": if method == Method::Zstd { "zstd" } else { "lz4" },
                    "shuffle": match shuffle {
                        Shuffle::Not => "noshuffle",
                        Shuffle::Bytes => "shuffle",
                        Shuffle::Bits => "bitshuffle",
                    },
                    "typesize": size.unwrap_or(1),
                });
                vec![CodecMetadata::new("blosc", configuration)]
            }
        }
    }
}

/// How a codec did on a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The codec.
    pub codec: String,
    /// Bytes of the sample.
    pub bytes: u64,
    /// Bytes it was encoded to.
    pub encoded_bytes: u64,
    /// Seconds that encoding took.
    pub encode_seconds: f64,
    /// Seconds that decoding took.
    pub decode_seconds: f64,
    /// Whether it was chosen.
    pub chosen: bool,
}

impl Trial {
    /// How many times smaller it became.
    pub fn ratio(&self) -> f64 {
        self.bytes as f64 / self.encoded_bytes.max(1) as f64
    }
}

/// The compressor for a variable of such inner chunks, and what was tried. With `explain` the
/// sample is taken also if there is nothing to choose. Blocks.
///
/// # Errors
/// If the sample cannot be read.
pub(crate) fn choose(
    source: &Source,
    variable: &Variable,
    chunking: &Chunking,
    codec: Codec,
    explain: bool,
) -> Result<(Compressor, Vec<Trial>), Error> {
    let candidates: Vec<(Compressor, f64)> = match codec {
        Codec::Fixed(fixed) if !explain => return Ok((fixed, Vec::new())),
        Codec::Fixed(fixed) => vec![(fixed, 0.0)],
        // Single bytes and texts have nothing to shuffle.
        Codec::Auto => CANDIDATES
            .into_iter()
            .filter(|(candidate, _)| {
                let size = variable.data_type.size_bytes().unwrap_or(1);
                size > 1 || candidate.shuffle == Shuffle::Not
            })
            .collect(),
    };
    let fallback = candidates.first().map_or(ZSTD, |(candidate, _)| *candidate);
    let boxes = sample(source, variable, &chunking.inner)?;
    let mut best: Option<(usize, f64)> = None;
    let mut trials = Vec::new();
    for (candidate, decode_ns) in &candidates {
        let trial = try_out(*candidate, variable, &boxes)?;
        if trial.bytes == 0 {
            return Ok((fallback, Vec::new()));
        }
        let stored = trial.encoded_bytes as f64 / trial.bytes as f64;
        let cost = stored * ARRIVAL_NS + decode_ns;
        if best.is_none_or(|(_, least)| cost < least) {
            best = Some((trials.len(), cost));
        }
        trials.push(trial);
    }
    let (at, _) = best.unwrap_or_default();
    if let Some(chosen) = trials.get_mut(at) {
        chosen.chosen = true;
    }
    Ok((
        candidates.get(at).map_or(fallback, |(chosen, _)| *chosen),
        trials,
    ))
}

/// The codec of boxes of this shape.
fn box_codec(
    compressor: Compressor,
    variable: &Variable,
    shape: &[u64],
) -> Result<ArrayCodec, Error> {
    let grid = RegularGrid::new(shape.to_vec(), shape.to_vec())?;
    let data_type = variable.data_type.clone();
    let compression = compressor.codecs(&data_type);
    let codecs = zarr::inner_codecs(&data_type, &compression)
        .iter()
        .map(CodecMetadata::parse)
        .collect::<Result<_, _>>()?;
    let mut metadata = ArrayMetadata::new(grid, data_type, codecs);
    let stored = zarr::stored_attributes("", &metadata.data_type, &variable.attributes);
    if let Some(fill_value) = stored.fill_value {
        metadata.fill_value = fill_value;
    }
    Ok(ArrayCodec::new(&metadata)?)
}

fn try_out(
    compressor: Compressor,
    variable: &Variable,
    boxes: &[(Vec<u64>, Elements)],
) -> Result<Trial, Error> {
    let mut trial = Trial {
        codec: compressor.to_string(),
        bytes: 0,
        encoded_bytes: 0,
        encode_seconds: 0.0,
        decode_seconds: 0.0,
        chosen: false,
    };
    for (shape, elements) in boxes {
        let codec = box_codec(compressor, variable, shape)?;
        let start = Instant::now();
        // All fill value is not stored.
        let Some(encoded) = codec.encode(elements, shape)? else {
            continue;
        };
        trial.encode_seconds += start.elapsed().as_secs_f64();
        let start = Instant::now();
        codec.decode(&encoded.bytes)?;
        trial.decode_seconds += start.elapsed().as_secs_f64();
        trial.bytes += elements.size_bytes() as u64;
        trial.encoded_bytes += encoded.bytes.len() as u64;
    }
    Ok(trial)
}

/// A few boxes of the shape of inner chunks from all over the variable, none of them all fill value.
fn sample(
    source: &Source,
    variable: &Variable,
    inner: &[u64],
) -> Result<Vec<(Vec<u64>, Elements)>, Error> {
    let element = variable.data_type.size_bytes().unwrap_or(32).max(1) as u64;
    let bytes = |shape: &[u64]| {
        let multiply = |bytes: u64, &length: &u64| bytes.saturating_mul(length);
        shape.iter().fold(element, multiply)
    };
    let whole = &variable.shape;
    if shape::elements(whole)? == 0 {
        return Ok(Vec::new());
    }
    let lengths = inner.iter().zip(whole);
    let mut lengths: Vec<u64> = lengths.map(|(inner, whole)| *inner.min(whole)).collect();
    while bytes(&lengths) > BOX_MAX_BYTES {
        match lengths.iter_mut().find(|length| **length > 1) {
            Some(length) => *length = length.div_ceil(2),
            None => break,
        }
    }
    let wanted = (bytes(whole) / SAMPLED_PART).clamp(SAMPLE_MIN_BYTES, SAMPLE_MAX_BYTES);
    let boxes = (wanted / bytes(&lengths).max(1)).clamp(1, BOXES as u64) as usize;
    let filled = box_codec(
        compressor(Method::Nothing, Shuffle::Not, 0),
        variable,
        &lengths,
    )?;
    let mut found: Vec<(Vec<u64>, Elements)> = Vec::new();
    let mut seen: Vec<Vec<u64>> = Vec::new();
    // The middle first: where the data begins it is often missing.
    for nth in [4u64, 1, 6, 3, 0, 7, 2, 5] {
        if found.len() >= boxes {
            break;
        }
        let axes = whole.iter().zip(&lengths);
        let start: Vec<u64> = axes
            .map(|(&whole, &length)| {
                let chunks = whole.div_ceil(length);
                let at =
                    (u128::from(chunks) * u128::from(2 * nth + 1) / u128::from(2 * PLACES)) as u64;
                (at.min(chunks - 1) * length).min(whole - length)
            })
            .collect();
        if seen.contains(&start) {
            continue;
        }
        let region = Region::new(start.clone(), lengths.clone())?;
        seen.push(start);
        let elements = source.read(variable, &region)?;
        if filled.encode(&elements, &lengths)?.is_some() {
            found.push((lengths.clone(), elements));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Group, Reader};

    /// A variable in memory.
    #[derive(Debug)]
    struct InMemory(Vec<u8>);

    impl Reader for InMemory {
        fn format(&self) -> &'static str {
            "memory"
        }

        fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
            let size = variable.data_type.size_bytes().unwrap();
            let whole = Elements::Fixed(self.0.clone());
            let all = Region::whole(&variable.shape);
            let fill = vec![0; size];
            crate::boxes::fit(&variable.data_type, &fill, &whole, &all, region)
        }
    }

    fn chosen<T: Copy>(
        data_type: DataType,
        values: &[T],
        to_bytes: impl Fn(T) -> Vec<u8>,
    ) -> (String, Vec<Trial>) {
        let side = values.len().isqrt() as u64;
        let variable = Variable {
            name: "v".into(),
            dimensions: vec!["y".into(), "x".into()],
            shape: vec![side, side],
            data_type,
            attributes: vec![],
            chunk_shape: None,
            handle: 0,
        };
        let bytes = values.iter().flat_map(|&value| to_bytes(value)).collect();
        let groups = vec![Group {
            path: vec![],
            attributes: vec![],
            variables: vec![variable.clone()],
            refused: vec![],
        }];
        let source = Source::new(groups, InMemory(bytes));
        let chunking = Chunking {
            shard: variable.shape.clone(),
            inner: vec![side / 2, side / 2],
        };
        let twice: Vec<_> = (0..2)
            .map(|_| choose(&source, &variable, &chunking, Codec::Auto, false).unwrap())
            .collect();
        assert_eq!(twice[0].0, twice[1].0);
        let (compressor, trials) = twice.into_iter().next().unwrap();
        assert_eq!(trials.iter().filter(|trial| trial.chosen).count(), 1);
        (compressor.to_string(), trials)
    }

    /// A smooth field with some noise, as weather is.
    fn field(at: usize) -> f64 {
        let (y, x) = ((at / 512) as f64, (at % 512) as f64);
        let noise = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        280.0 + 15.0 * (x / 40.0).sin() * (y / 60.0).cos() + noise as f64 / f64::from(1 << 24)
    }

    fn encoded_bytes(trials: &[Trial], codec: &str) -> u64 {
        trials
            .iter()
            .find(|trial| trial.codec == codec)
            .unwrap()
            .encoded_bytes
    }

    #[test]
    fn byte_shuffle_hurts_what_was_decoded_from_scaled_integers_and_helps_others() {
        let count = 512 * 512;
        let smooth: Vec<f32> = (0..count).map(|at| field(at) as f32).collect();
        let (codec, trials) = chosen(DataType::Float32, &smooth, |v| v.to_le_bytes().to_vec());
        assert!(codec.contains("shuffle"), "{trials:?}");
        assert!(
            encoded_bytes(&trials, "zstd+shuffle:1") * 10 < encoded_bytes(&trials, "zstd:1") * 9
        );
        // As if packed to 16 bits in the file and decoded since: few values, of four bytes each.
        let scale = 0.25;
        let packed: Vec<f32> = smooth
            .iter()
            .map(|value| ((f64::from(*value) / scale).round() * scale * 1.1) as f32)
            .collect();
        let (codec, trials) = chosen(DataType::Float32, &packed, |v| v.to_le_bytes().to_vec());
        assert!(!codec.contains("shuffle"), "{trials:?}");
        assert!(
            encoded_bytes(&trials, "zstd:1") * 10 < encoded_bytes(&trials, "zstd+shuffle:1") * 9
        );
    }

    #[test]
    fn what_does_not_compress_is_not_compressed() {
        let random: Vec<u64> = (1u64..512 * 512 + 1)
            .map(|at| {
                let mixed = at.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            })
            .collect();
        let (codec, _) = chosen(DataType::UInt64, &random, |v| v.to_le_bytes().to_vec());
        assert_eq!(codec, "none");
        let flags: Vec<u8> = (0..512 * 512u32).map(|at| (at / 1000 % 2) as u8).collect();
        let (codec, trials) = chosen(DataType::UInt8, &flags, |v| vec![v]);
        assert!(codec.starts_with("zstd:") && trials.iter().all(|t| !t.codec.contains("shuffle")));
    }

    #[test]
    fn nothing_but_fill_value_leaves_nothing_to_choose() {
        let zeros = vec![0u16; 256];
        let side = 16;
        let variable = Variable {
            name: "v".into(),
            dimensions: vec!["x".into()],
            shape: vec![side * side],
            data_type: DataType::UInt16,
            attributes: vec![],
            chunk_shape: None,
            handle: 0,
        };
        let bytes = zeros.iter().flat_map(|value| value.to_le_bytes()).collect();
        let source = Source::new(vec![], InMemory(bytes));
        let chunking = Chunking {
            shard: vec![256],
            inner: vec![64],
        };
        let found = choose(&source, &variable, &chunking, Codec::Auto, true).unwrap();
        assert_eq!(found, (ZSTD, vec![]));
    }

    #[test]
    fn names_are_read_and_written() {
        for name in [
            "auto",
            "none",
            "gzip:5",
            "zstd:22",
            "zstd+shuffle:1",
            "lz4+bitshuffle:9",
            "lz4:1",
        ] {
            assert_eq!(name.parse::<Codec>().unwrap().to_string(), name);
        }
        assert_eq!("zstd".parse::<Codec>().unwrap(), Codec::default());
        assert_eq!(
            Compressor::codecs(&ZSTD, &DataType::Int8),
            crate::default_codecs()
        );
        for bad in [
            "",
            "zip",
            "zstd:0",
            "zstd:23",
            "zstd+shuffle:10",
            "gzip+shuffle",
            "zstd+x",
            "zstd:x",
            "none:1",
        ] {
            assert!(bad.parse::<Codec>().is_err(), "{bad}");
        }
    }
}
