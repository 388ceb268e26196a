//! Every reduction of every type, over boxes of many shapes.

use array::DataType;
use compute::cf::{CfDecoder, Decode};
use compute::gpu::{Geometry, Stretch, Wanted};
use compute::histogram::Bins;
use serde_json::{Map, Value, json};

use crate::cases::{Case, Random, TYPES, plain, reductions, whole};
use crate::device::open;

/// Shapes with which axes of them are reduced: short and long runs, cells that take single elements,
/// both in turns, more axes than are walked one by one.
fn shapes() -> Vec<(Vec<u64>, Vec<bool>)> {
    let shape = |lengths: &[u64], axes: &str| {
        let reduced = axes.chars().map(|axis| axis == 'r').collect();
        (lengths.to_vec(), reduced)
    };
    vec![
        shape(&[1], "r"),
        shape(&[1], "k"),
        shape(&[7], "r"),
        shape(&[33], "k"),
        shape(&[1024], "r"),
        shape(&[1025], "r"),
        shape(&[4097], "r"),
        shape(&[40_000], "r"),
        shape(&[5, 9], "kr"),
        shape(&[9, 5], "rk"),
        shape(&[3, 1500], "kr"),
        shape(&[4, 3, 5], "rkr"),
        shape(&[4, 3, 5], "krk"),
        shape(&[3, 2, 4100], "rkr"),
        shape(&[2, 1, 3, 1, 4], "rkrkr"),
        shape(&[2, 3, 2, 3, 2, 2], "krkrkr"),
    ]
}

#[test]
fn every_reduction_of_every_type_is_the_processors() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(1);
    for data_type in &TYPES {
        let wanted = plain(&reductions(data_type));
        for (shape, reduced) in shapes() {
            let count = shape.iter().product::<u64>() as usize;
            let chunks = (0..3).map(|_| random.elements(data_type, count));
            let case = Case::plain(data_type, whole(&shape, &reduced), chunks.collect());
            case.check(&devices, &wanted);
        }
    }
}

#[test]
fn every_half_and_every_value_without_number_is_taken_as_it_is() {
    let Some(devices) = open(None) else { return };
    for data_type in [DataType::Float16, DataType::BFloat16] {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let wanted = plain(&reductions(&data_type));
        for (shape, reduced) in [([16, 4096], [false, true]), ([64, 1024], [true, false])] {
            Case::plain(&data_type, whole(&shape, &reduced), vec![all.clone()])
                .check(&devices, &wanted);
        }
    }
    // Infinities, signed zeros and NaN alone.
    let special = [f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, f32::NAN];
    let data_type = DataType::Float32;
    let wanted = plain(&reductions(&data_type));
    let mut random = Random(2);
    for length in [1, 2, 5, 40, 1100] {
        let values = (0..length).flat_map(|_| special[random.below(5) as usize].to_le_bytes());
        let case = Case::plain(
            &data_type,
            whole(&[length], &[true]),
            vec![values.collect()],
        );
        case.check(&devices, &wanted);
    }
}

#[test]
fn parts_of_inner_chunks_are_walked_with_their_gaps() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(3);
    for round in 0..60 {
        let data_type = &TYPES[round % TYPES.len()];
        let axes = 1 + random.below(4) as usize;
        let mut geometry = Geometry {
            inner_shape: Vec::new(),
            stretches: Vec::new(),
            reduced: Vec::new(),
        };
        for _ in 0..axes {
            let inner = 1 + random.below(14);
            let start = random.below(inner);
            let step = 1 + random.below(3);
            let most = (inner - 1 - start) / step + 1;
            geometry.inner_shape.push(inner);
            geometry.stretches.push(Stretch {
                start,
                step,
                length: 1 + random.below(most),
            });
            geometry.reduced.push(random.below(2) == 0);
        }
        let count = geometry.inner_shape.iter().product::<u64>() as usize;
        let chunks = (0..2).map(|_| random.elements(data_type, count)).collect();
        let case = Case::plain(data_type, geometry, chunks);
        case.check(&devices, &plain(&reductions(data_type)));
    }
}

fn decoder(data_type: &DataType, attributes: &Value, decode: Decode) -> Option<CfDecoder> {
    let attributes: &Map<String, Value> = attributes.as_object().unwrap();
    CfDecoder::new(data_type, attributes, decode).unwrap()
}

#[test]
fn values_are_decoded_while_they_are_loaded() {
    let Some(devices) = open(None) else { return };
    let attributes = [
        json!({"_FillValue": 3}),
        json!({"_FillValue": 2, "missing_value": [1, 4]}),
        json!({"valid_range": [-2, 3]}),
        json!({"valid_min": 1}),
        json!({"scale_factor": 0.1}),
        json!({"scale_factor": 0.1, "add_offset": -273.15, "_FillValue": 0}),
        json!({"add_offset": 1.5}),
        json!({"_Unsigned": "true", "_FillValue": 255}),
        json!({"_Unsigned": "false"}),
        json!({"missing_value": "none"}),
    ];
    let mut random = Random(4);
    let mut decoded = 0;
    for data_type in &TYPES {
        for attributes in &attributes {
            for decode in [Decode::Cf, Decode::Mask] {
                let Some(decoder) = decoder(data_type, attributes, decode) else {
                    continue;
                };
                let wanted = plain(&reductions(decoder.data_type()));
                if !compute::gpu::supports(data_type, Some(&decoder), &wanted) {
                    continue;
                }
                decoded += 1;
                for (shape, reduced) in [([6, 50], [false, true]), ([50, 6], [true, false])] {
                    let chunks = (0..2).map(|_| random.elements(data_type, 300)).collect();
                    let mut case = Case::plain(data_type, whole(&shape, &reduced), chunks);
                    case.decoder = Some(&decoder);
                    case.check(&devices, &wanted);
                }
            }
        }
    }
    assert!(decoded > 150, "only {decoded} decodings reach the device");
}

#[test]
fn histograms_are_the_processors() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(5);
    for data_type in &TYPES {
        let edges = vec![-100.5, -1.0, 0.0, 0.5, 3.0, 3.0, 2000.0];
        let bins = [
            Bins::uniform(data_type, 10, (-50.0, 60.5)),
            Bins::uniform(data_type, 3000, (-2048.0, 2048.0)),
            Bins::over_values(data_type, 7, Some((0.0, 4.0))),
            Bins::between(data_type, edges),
        ];
        for bins in bins.into_iter().flatten() {
            let wanted = [Wanted::Histogram(&bins)];
            if !compute::gpu::supports(data_type, None, &wanted) {
                continue;
            }
            for (shape, reduced) in [
                (vec![20_000], vec![true]),
                (vec![5, 300], vec![false, true]),
                (vec![300, 5], vec![true, false]),
            ] {
                let count = shape.iter().product::<u64>() as usize;
                let chunks = (0..2).map(|_| random.elements(data_type, count)).collect();
                Case::plain(data_type, whole(&shape, &reduced), chunks).check(&devices, &wanted);
            }
        }
    }
}
