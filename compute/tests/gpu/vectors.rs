//! Sums over vectors are the processor's, bit by bit.

use std::sync::Arc;

use array::DataType;
use compute::lanes::Vectors;
use compute::nearest::{Metric, Queries, Search};
use compute::product;

use crate::cases::{Random, TYPES};
use crate::device::open;

/// Rows, columns and length of products.
const EXTENTS: [(usize, usize, usize); 6] = [
    (1, 1, 1),
    (3, 5, 31),
    (4, 4, 32),
    (5, 9, 100),
    (17, 2, 1000),
    (1, 33, 7),
];

#[test]
fn products_of_every_pair_of_types_are_the_processors() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(31);
    let mut done = 0;
    for left_type in &TYPES {
        for right_type in &TYPES {
            let Ok(data_type) = product::data_type(left_type, right_type) else {
                continue;
            };
            let (rows, columns, length) = EXTENTS[done % EXTENTS.len()];
            done += 1;
            let left = random.elements(left_type, rows * length);
            let right = random.elements(right_type, columns * length);
            let left = Vectors::rows(left_type, &left, rows, length);
            for right in [
                Vectors::rows(right_type, &right, columns, length),
                Vectors::columns(right_type, &right, length, columns),
            ] {
                let of = product::sum_of(&data_type);
                let found = devices.gpus.sums(of, &left, &right, false).unwrap();
                let found = product::of_sums(&data_type, &found.sums);
                let expected = product::multiply(&data_type, &left, &right, 0..rows, 0..columns);
                assert_eq!(
                    found, expected,
                    "{left_type} × {right_type} {rows} {columns} {length}"
                );
            }
        }
    }
    assert_eq!(done, 13 * 13);
}

#[test]
fn the_nearest_rows_are_the_processors() {
    let Some(devices) = open(None) else { return };
    let mut random = Random(32);
    for data_type in [DataType::Float32, DataType::Float16, DataType::Int8] {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let (count, length) = (200, 70);
            let rows = random.elements(&data_type, count * length);
            let queries: Vec<f64> = (0..3 * length)
                .map(|_| random.below(100) as f64 - 50.0)
                .collect();
            let queries = Arc::new(Queries::new(metric, 9, length, &queries).unwrap());
            let vectors = Vectors::rows(&data_type, &rows, count, length);
            let (of, with_norms) = (queries.sum_of(), queries.needs_norms());
            let found = devices
                .gpus
                .sums(of, &queries.vectors(), &vectors, with_norms)
                .unwrap();
            let compute::lanes::Sums::Floats(sums) = found.sums else {
                panic!("sums of floats");
            };
            let mut on_device = Search::new(queries.clone());
            on_device.scan_sums(&sums, &found.own_products, 40);
            let mut on_processor = Search::new(queries);
            on_processor.scan(&data_type, &rows, 40);
            let (found, expected) = (on_device.finish(), on_processor.finish());
            assert_eq!(found.rows, expected.rows, "{data_type} {metric:?}");
            let bits = |scores: &[f64]| scores.iter().map(|s| s.to_bits()).collect::<Vec<u64>>();
            assert_eq!(bits(&found.scores), bits(&expected.scores));
        }
    }
}

#[test]
fn relaxed_products_are_near_the_exact_ones() {
    let settings = compute::gpu::Settings {
        is_relaxed: true,
        ..Default::default()
    };
    let Some(devices) = crate::device::open_with(settings) else {
        return;
    };
    let data_type = DataType::Float64;
    let mut random = Random(33);
    let number = |random: &mut Random| random.below(2001) as f64 / 1000.0 - 1.0;
    let mut matrix = |count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|_| number(&mut random).to_le_bytes())
            .collect()
    };
    let (rows, columns, length) = (7, 5, 300);
    let (left, right) = (matrix(rows * length), matrix(columns * length));
    let left = Vectors::rows(&data_type, &left, rows, length);
    let right = Vectors::rows(&data_type, &right, columns, length);
    let of = product::sum_of(&data_type);
    let found = devices.gpus.products(of, &left, &right).unwrap();
    let found = product::of_sums(&data_type, &found.sums);
    let expected = product::multiply(&data_type, &left, &right, 0..rows, 0..columns);
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        bytes
            .chunks_exact(8)
            .map(bytemuck::pod_read_unaligned)
            .collect()
    };
    for (found, expected) in numbers(&found).iter().zip(numbers(&expected)) {
        // Sums of 300 products of numbers up to 1: each addition is off by less than 300 · 2^-53.
        assert!(
            (found - expected).abs() < 300.0 * 300.0 * f64::EPSILON,
            "{found} {expected}"
        );
    }
}
