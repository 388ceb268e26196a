//! NetCDF-3 files that the demo, the tests and the benchmarks import.

use crate::netcdf3::{Dimension, Elements, File, Type, Value, Variable, Version};

/// Latitudes of the 2 degree grid.
const LATITUDES: u64 = 91;
/// Longitudes of the 2 degree grid.
const LONGITUDES: u64 = 180;

/// A day of hourly air temperature, packed in 16 bits as CF describes, with some missing cells.
#[must_use]
pub fn weather() -> File {
    let time = Dimension {
        name: "time",
        length: None,
    };
    let latitude = Dimension {
        name: "latitude",
        length: Some(LATITUDES),
    };
    let longitude = Dimension {
        name: "longitude",
        length: Some(LONGITUDES),
    };
    File {
        version: Version::Offset64,
        dimensions: vec![time, latitude, longitude],
        records: 24,
        attributes: vec![
            ("Conventions", "CF-1.8".into()),
            ("title", "a made-up day".into()),
        ],
        variables: vec![
            axis(
                "time",
                0,
                Type::Int,
                "hours since 2020-01-01 00:00:00",
                |i| i as f64,
            ),
            axis("latitude", 1, Type::Float, "degrees_north", |i| {
                90.0 - 2.0 * i as f64
            }),
            axis("longitude", 2, Type::Float, "degrees_east", |i| {
                2.0 * i as f64
            }),
            Variable {
                name: "t2m",
                dimensions: vec![0, 1, 2],
                attributes: vec![
                    ("long_name", "2 metre temperature".into()),
                    ("units", "K".into()),
                    ("scale_factor", Value::Numbers(Type::Double, vec![0.0625])),
                    ("add_offset", Value::Numbers(Type::Double, vec![273.0])),
                    ("_FillValue", Value::Numbers(Type::Short, vec![-32768.0])),
                ],
                data_type: Type::Short,
                elements: Box::new(packed_temperature),
            },
        ],
    }
}

fn axis(
    name: &'static str,
    dimension: usize,
    data_type: Type,
    units: &str,
    of: fn(u64) -> f64,
) -> Variable {
    Variable {
        name,
        dimensions: vec![dimension],
        attributes: vec![("units", units.into())],
        data_type,
        elements: Box::new(of),
    }
}

/// Warm at the equator, a wave around the globe that moves with the hour; every 997th cell missing.
fn packed_temperature(index: u64) -> f64 {
    if index.is_multiple_of(997) {
        return -32768.0;
    }
    let hour = (index / (LATITUDES * LONGITUDES)) as f64;
    let latitude = (90.0 - 2.0 * (index / LONGITUDES % LATITUDES) as f64).to_radians();
    let longitude = (2.0 * (index % LONGITUDES) as f64).to_radians();
    let local_hour = hour / 12.0 * std::f64::consts::PI;
    let celsius = 30.0 * latitude.cos() - 15.0 + 4.0 * (longitude + local_hour).sin();
    (celsius / 0.0625).round()
}

/// One float variable of about `megabytes` MiB over records of 8 MiB, hard to compress.
///
/// It is what a model's output looks like to an importer: many records of one large field.
#[must_use]
pub fn large(megabytes: u64) -> File {
    const ROWS: u64 = 1024;
    const COLUMNS: u64 = 2048;
    File {
        version: Version::Offset64,
        dimensions: vec![
            Dimension {
                name: "time",
                length: None,
            },
            Dimension {
                name: "y",
                length: Some(ROWS),
            },
            Dimension {
                name: "x",
                length: Some(COLUMNS),
            },
        ],
        records: (megabytes << 20) / (ROWS * COLUMNS * 4),
        attributes: Vec::new(),
        variables: vec![Variable {
            name: "field",
            dimensions: vec![0, 1, 2],
            attributes: vec![("units", "1".into())],
            data_type: Type::Float,
            elements: noise(),
        }],
    }
}

/// A reproducible value in `[0, 1)` for every index.
fn noise() -> Elements {
    // The finaliser of splitmix64: every bit of the index reaches every bit of the result.
    Box::new(|index| {
        let mut bits = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits >> 40) as f64 / (1_u64 << 24) as f64
    })
}
