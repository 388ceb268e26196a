use std::io::Write as _;

use array::DataType;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

/// An `.npy` file of version 1.
fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn whole(reader: &dyn Reader, variable: &Variable) -> Result<Elements, Error> {
    reader.read(variable, &Region::whole(&variable.shape))
}

#[test]
fn arrays_are_read_in_either_order() {
    for (order, wanted) in [("False", [1, 2, 3, 4, 5, 6]), ("True", [1, 3, 5, 2, 4, 6])] {
        let file = written(&npy("'|u1'", order, "(2, 3)", &[1, 2, 3, 4, 5, 6]));
        let (npy, groups) = NpyFile::open(file.path(), "x").unwrap();
        let variable = &groups[0].variables[0];
        assert_eq!(
            (variable.name.as_str(), &variable.dimensions[1][..]),
            ("x", "dim_1")
        );
        assert_eq!(
            whole(&npy, variable).unwrap(),
            Elements::Fixed(wanted.to_vec())
        );
    }
    for version in [2u8, 3] {
        let one = npy("'>i2'", "False", "(1,)", &[1, 2]);
        let mut file = b"\x93NUMPY".to_vec();
        file.extend([version, 0, one[8], one[9], 0, 0]);
        file.extend(&one[10..]);
        let file = written(&file);
        let (npy, groups) = NpyFile::open(file.path(), "x").unwrap();
        assert_eq!(
            whole(&npy, &groups[0].variables[0]).unwrap(),
            Elements::Fixed(vec![2, 1])
        );
    }
    let file = written(&npy("'<f8'", "False", "()", &[0; 8]));
    let (_, groups) = NpyFile::open(file.path(), "x").unwrap();
    assert_eq!(groups[0].variables[0].data_type, DataType::Float64);
    assert!(groups[0].variables[0].shape.is_empty());
}

#[test]
fn headers_that_are_none_are_refused() {
    let four = [0; 4];
    for (descr, fortran, shape, named) in [
        ("'|O'", "False", "(4,)", "pickles"),
        (
            "[('a', '<i2'), ('b', '<i2')]",
            "False",
            "(1,)",
            "structured (a, b)",
        ),
        ("'<i4'", "False", "(2,)", "claims 8 bytes"),
        ("'<i4'", "False", "(0,)", "4 bytes after"),
        ("'<i4'", "False", "(18446744073709551615, 9)", "too large"),
        (
            "'<i4'",
            "False",
            "(0, 18446744073709551615, 18446744073709551615)",
            "too large",
        ),
        ("'<i4'", "False", "(99999999999999999999,)", "length of"),
        ("'<i4'", "False", "(-1,)", "literal"),
        ("'<i4'", "False", "[1]", "odd \"shape\""),
        ("'<i4'", "1", "(1,)", "odd \"fortran_order\""),
        ("__import__('os')", "False", "(1,)", "literal"),
        ("'<i4', 'descr': '<i4'", "False", "(1,)", "twice"),
        ("'<i4', 'other': 1", "False", "(1,)", "odd \"other\""),
    ] {
        let file = written(&npy(descr, fortran, shape, &four));
        let error = NpyFile::open(file.path(), "x").unwrap_err().to_string();
        assert!(error.contains(named), "{error} / {named}");
    }
    let deep = "(".repeat(100_000);
    assert!(header::parse(deep.as_bytes(), 0, 0).is_err());
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    assert!(NpyFile::open(written(&long).path(), "x").is_err());
}

#[test]
fn every_cut_and_flip_is_an_error_or_an_array() {
    let good = npy("'<i4'", "False", "(2, 3)", &[7; 24]);
    for at in 0..good.len() {
        assert!(NpyFile::open(written(&good[..at]).path(), "x").is_err());
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            let file = written(&flipped);
            if let Ok((npy, groups)) = NpyFile::open(file.path(), "x") {
                whole(&npy, &groups[0].variables[0]).unwrap();
            }
        }
    }
}

fn npz(members: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let mut zip = ZipWriter::new(&mut file);
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    file.into_inner()
}

fn members() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a.npy", npy("'<i2'", "False", "(2,)", &[1, 0, 2, 0])),
        ("g/b.npy", npy("'|b1'", "False", "()", &[1])),
        ("readme.txt", b"hello".to_vec()),
        ("o.npy", npy("'|O'", "False", "(1,)", b"pickle")),
    ]
}

#[test]
fn archives_hold_arrays_by_name() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let file = written(&npz(&members(), method));
        let (npz, groups) = NpzFile::open(file.path()).unwrap();
        assert_eq!(
            whole(&npz, &groups[0].variables[0]).unwrap(),
            Elements::Fixed(vec![1, 0, 2, 0])
        );
        assert_eq!(groups[1].path, ["g"]);
        assert_eq!(
            whole(&npz, &groups[1].variables[0]).unwrap(),
            Elements::Fixed(vec![1])
        );
        let refused: Vec<&str> = groups[0]
            .refused
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(refused, ["readme.txt", "o"]);
    }
}

#[test]
fn damaged_archives_are_refused() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let good = npz(&members()[..1], method);
        for at in 0..good.len() {
            assert!(NpzFile::open(written(&good[..at]).path()).is_err(), "{at}");
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            let file = written(&flipped);
            let Ok((npz, groups)) = NpzFile::open(file.path()) else {
                continue;
            };
            for variable in &groups[0].variables {
                // A flip in the values is found by the checksum.
                if let Ok(found) = whole(&npz, variable) {
                    assert_eq!(found, Elements::Fixed(vec![1, 0, 2, 0]), "{at}");
                }
            }
        }
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = npy("'|u1'", "False", "(4,)", &vec![0; 64 << 20]);
    let file = written(&npz(&[("x.npy", bomb)], CompressionMethod::Deflated));
    let (_, groups) = NpzFile::open(file.path()).unwrap();
    assert!(groups[0].refused[0].reason.contains("bytes after"));
}
