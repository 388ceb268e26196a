//! Malformed files are refused and change nothing.

use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use quarr_tests::netcdf3::{Dimension, File, Type, Variable, Version};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use storage::Repository;

use crate::support;

/// Damaged files of each version.
const FILES: usize = 400;

fn small_file(version: Version) -> Vec<u8> {
    let variable = |name, dimensions, data_type| Variable {
        name,
        dimensions,
        attributes: vec![("units", "K".into())],
        data_type,
        elements: Box::new(|index| index as f64),
    };
    let file = File {
        version,
        dimensions: vec![
            Dimension {
                name: "time",
                length: None,
            },
            Dimension {
                name: "x",
                length: Some(5),
            },
        ],
        records: 3,
        attributes: vec![("title", "small".into())],
        variables: vec![
            variable("fixed", vec![1], Type::Double),
            variable("record", vec![0, 1], Type::Short),
            variable("time", vec![0], Type::Int),
        ],
    };
    let mut bytes = Vec::new();
    file.write(&mut bytes).unwrap();
    bytes
}

async fn import(repository: &Repository, source: &Path) -> Result<(), importers::Error> {
    support::import(repository, source, 64 << 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_netcdf3_file_never_panics_and_a_refused_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.nc");
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut refused = 0;
    for version in [Version::Classic, Version::Offset64, Version::Cdf5] {
        let good = small_file(version);
        for _ in 0..FILES {
            let mut bytes = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(3..bytes.len());
                // Extremes first of all: they are what overflows.
                bytes[at] = [0x00, 0x01, 0x7F, 0x80, 0xFF, rng.random()][rng.random_range(0..6)];
            }
            if rng.random_ratio(1, 4) {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            std::fs::write(&path, &bytes).unwrap();
            let repository = support::create(Arc::new(InMemory::new()), &[]).await;
            let before = repository.head().await.unwrap();
            if let Err(error) = import(&repository, &path).await {
                let text = support::chain(&error);
                assert!(!text.contains('\n'), "seed {seed}: {text}");
                assert_eq!(repository.head().await.unwrap(), before, "seed {seed}");
                refused += 1;
            }
        }
    }
    assert!(
        refused > FILES,
        "only {refused} were refused: the damage does not reach the header"
    );
}
