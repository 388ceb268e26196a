use std::io::Write as _;

use super::*;

fn open(text: &[u8]) -> Result<(CsvFile, Vec<Group>), Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    let path = file.into_temp_path().keep().unwrap();
    let opened = CsvFile::open(&path, "x.csv");
    let names = opened.as_ref().map(|(_, groups)| groups[0].variables.len());
    if names.is_err() {
        std::fs::remove_file(&path).unwrap();
    }
    opened
}

fn column(file: &CsvFile, groups: &[Group], name: &str) -> (DataType, Elements) {
    let variable = groups[0].variables.iter().find(|v| v.name == name).unwrap();
    let whole = Region::whole(&variable.shape);
    (
        variable.data_type.clone(),
        file.read(variable, &whole).unwrap(),
    )
}

fn words<const N: usize>(values: [i64; N]) -> Elements {
    Elements::Fixed(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    )
}

#[test]
fn columns_have_the_type_all_their_cells_agree_in() {
    let text = "\u{feff}n,x,flag,day,at,code,\"a \"\"name\"\"\"\n\
        1,1.5,true,2020-01-01,2020-01-01T00:00:01,007,\"x, y\"\n\
        ,NA,,2020-01-02,,12,\"line\nbreak\"\n\
        -3,2,False,1969-12-31,1970-01-01T00:00:00.5,13,NA\n";
    let (file, groups) = open(text.as_bytes()).unwrap();
    let column = |name| column(&file, &groups, name);
    assert_eq!(column("n"), (DataType::Int64, words([1, i64::MIN, -3])));
    let floats = [1.5, f64::NAN, 2.0]
        .iter()
        .flat_map(|x: &f64| x.to_le_bytes());
    assert_eq!(
        column("x"),
        (DataType::Float64, Elements::Fixed(floats.collect()))
    );
    assert_eq!(
        column("flag"),
        (DataType::Bool, Elements::Fixed(vec![1, 0, 0]))
    );
    assert_eq!(
        column("flag_valid"),
        (DataType::Bool, Elements::Fixed(vec![1, 0, 1]))
    );
    assert_eq!(column("day"), (DataType::Int64, words([18262, 18263, -1])));
    assert_eq!(
        column("at"),
        (DataType::Int64, words([1_577_836_801_000, i64::MIN, 500]))
    );
    for (name, wanted) in [
        ("code", ["007", "12", "13"]),
        ("a \"name\"", ["x, y", "line\nbreak", "NA"]),
    ] {
        let (data_type, Elements::Variable(found)) = column(name) else {
            panic!("text");
        };
        assert_eq!(data_type, DataType::String);
        assert!(
            found.iter().eq(wanted.iter().map(|text| text.as_bytes())),
            "{name}"
        );
    }
    let units = |name: &str| {
        let variable = groups[0].variables.iter().find(|v| v.name == name).unwrap();
        variable.attributes.clone()
    };
    assert!(units("at").contains(&(
        "units".into(),
        Attribute::Text("milliseconds since 1970-01-01".into())
    )));
    assert!(units("n").contains(&(
        "_FillValue".into(),
        Attribute::Integers(vec![i64::MIN.into()])
    )));
    assert!(units("code").is_empty());
}

#[test]
fn boxes_begin_anywhere() {
    let mut text = String::from("index;value\n");
    for row in 0..10_000 {
        text.push_str(&format!("\"{row}\";{}\n", row * 2));
    }
    let (file, groups) = open(text.as_bytes()).unwrap();
    let value = &groups[0].variables[1];
    for (start, length) in [
        (0, 3),
        (4095, 3),
        (4096, 1),
        (8191, 1809),
        (9999, 1),
        (5, 0),
    ] {
        let region = Region::new(vec![start], vec![length]).unwrap();
        let wanted = (start..start + length).flat_map(|row| (row as i64 * 2).to_le_bytes());
        assert_eq!(
            file.read(value, &region).unwrap(),
            Elements::Fixed(wanted.collect())
        );
    }
}

#[test]
fn what_is_no_table_is_refused() {
    for (text, named) in [
        (b"".as_slice(), "empty"),
        (b"a,a\n1,2\n", "\"a\""),
        (b"a,b\n1,2\n3\n", "line 3"),
        (b"a,b\n1,\xff\n", "UTF-8"),
        (b"\xff\n", "UTF-8"),
    ] {
        let error = open(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let mut open_quote = b"a,b\n1,\"".to_vec();
    open_quote.resize(20 << 20, b'x');
    let error = open(&open_quote).unwrap_err().to_string();
    assert!(error.contains("quote"), "{error}");
}

#[test]
fn damage_is_an_error_or_other_text() {
    let text = b"a,b,c\n1,2020-01-01,x\n2,2020-01-02,\"y z\"\n3,2020-01-03,z\n".to_vec();
    for at in 0..text.len() {
        let _ = open(&text[..at]);
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[at] ^= 1 << bit;
            if let Ok((file, groups)) = open(&flipped) {
                for variable in &groups[0].variables {
                    file.read(variable, &Region::whole(&variable.shape))
                        .unwrap();
                }
                std::fs::remove_file(&file.path).unwrap();
            }
        }
    }
}
