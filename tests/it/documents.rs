//! `ARCHITECTURE.md` names files and functions that are there.

use std::path::{Path, PathBuf};

/// The text between each pair of backticks of a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A table row names files, and the functions or types in them.
#[test]
fn every_row_of_the_flow_of_a_slice_is_in_the_code() {
    let root = workspace();
    let document = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let rows: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(".rs`"))
        .collect();
    assert!(rows.len() >= 6, "the table of the flow is gone");
    for row in rows {
        let place = row.split('|').nth_back(1).unwrap();
        let files: Vec<PathBuf> = quoted(place)
            .filter(|name| name.ends_with(".rs"))
            .map(|name| root.join(name))
            .collect();
        let sources: Vec<String> = files
            .iter()
            .map(|file| {
                std::fs::read_to_string(file)
                    .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
            })
            .collect();
        let names = quoted(place).filter(|name| !name.contains('/') && !name.ends_with(".rs"));
        for name in names.filter(|name| !root.join(name).is_dir()) {
            let name = name.rsplit("::").next().unwrap();
            let defined = |source: &String| {
                ["fn", "struct", "enum"]
                    .iter()
                    .any(|kind| source.contains(&format!("{kind} {name}")))
            };
            let in_crates = || crate_sources(&root, place).iter().any(defined);
            assert!(
                sources.iter().any(defined) || in_crates(),
                "{name} is not where {row} says"
            );
        }
    }
}

/// Sources of the crates a place names without a file.
fn crate_sources(root: &Path, place: &str) -> Vec<String> {
    let crates = quoted(place)
        .map(|name| root.join(name).join("src"))
        .filter(|path| path.is_dir());
    crates
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

/// Every file or folder that any document names exists.
#[test]
fn every_file_the_documents_name_exists() {
    let root = workspace();
    for document in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "README.md",
        "STYLE.md",
    ] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for name in text.lines().flat_map(quoted) {
            let is_path = name.contains('/')
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                && !name.starts_with('/');
            let first = name.split('/').next().unwrap();
            if is_path && root.join(first).is_dir() {
                assert!(root.join(name).exists(), "{document} names {name}");
            }
        }
    }
}
