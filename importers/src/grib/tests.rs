use super::*;

/// A section of a message.
fn section(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32 + 5).to_be_bytes().to_vec();
    bytes.push(number);
    bytes.extend(payload);
    bytes
}

/// Temperature on a grid of 2 x 3, packed in 8 bits each, at a pressure, so many hours ahead.
fn message(pascals: u32, hours: u32, member: Option<u8>, values: [u8; 6]) -> Vec<u8> {
    let mut one = vec![0, 98, 0, 0, 2, 0, 1];
    one.extend(2020u16.to_be_bytes());
    one.extend([2, 29, 12, 0, 0, 0, 1]);
    let mut three = vec![0];
    three.extend(6u32.to_be_bytes());
    three.extend([
        0, 0, 0, 0, 6, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    ]);
    three.truncate(9);
    three.push(6);
    three.extend([0; 15]);
    for number in [3u32, 2, 0, u32::MAX, 10_000_000, 350_000_000] {
        three.extend(number.to_be_bytes());
    }
    three.push(48);
    for number in [
        0x8000_0000u32 | 10_000_000,
        10_000_000,
        10_000_000,
        20_000_000,
    ] {
        three.extend(number.to_be_bytes());
    }
    three.push(0);
    let mut four = vec![
        0,
        0,
        0,
        u8::from(member.is_some()),
        0,
        0,
        2,
        0,
        96,
        0,
        0,
        0,
        1,
    ];
    four.extend(hours.to_be_bytes());
    four.extend([100, 0]);
    four.extend(pascals.to_be_bytes());
    four.extend([255, 255, 255, 255, 255, 255]);
    if let Some(member) = member {
        four.extend([3, member, 50]);
    }
    let mut five = 6u32.to_be_bytes().to_vec();
    five.extend([0, 0]);
    five.extend(200f32.to_be_bytes());
    five.extend([0, 0, 0, 0, 8, 0]);
    let mut body = section(1, &one);
    body.extend(section(3, &three));
    body.extend(section(4, &four));
    body.extend(section(5, &five));
    body.extend(section(6, &[255]));
    body.extend(section(7, &values));
    body.extend(b"7777");
    let mut message = b"GRIB\0\0\0\x02".to_vec();
    message.extend((body.len() as u64 + 16).to_be_bytes());
    message.extend(body);
    message
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

fn floats(values: &[f32]) -> Elements {
    Elements::Fixed(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    )
}

#[test]
fn fields_of_a_quantity_are_one_variable() {
    let mut file = b"header of the line\r\n".to_vec();
    file.extend(message(50_000, 0, None, [0, 1, 2, 3, 4, 5]));
    file.extend(message(85_000, 0, None, [10, 11, 12, 13, 14, 15]));
    file.extend(message(85_000, 6, None, [20, 21, 22, 23, 24, 25]));
    let file = written(&file);
    let (grib, groups) = GribFile::open(file.path()).unwrap();
    let variable = |name: &str| groups[0].variables.iter().find(|v| v.name == name).unwrap();
    let t = variable("t");
    assert_eq!(
        t.dimensions,
        ["step", "isobaricInhPa", "latitude", "longitude"]
    );
    assert_eq!(t.shape, [2, 2, 2, 3]);
    let n = f32::NAN;
    let region = Region::new(vec![0, 0, 1, 0], vec![2, 2, 1, 2]).unwrap();
    let wanted = floats(&[213.0, 214.0, 203.0, 204.0, 223.0, 224.0, n, n]);
    assert_eq!(grib.read(t, &region).unwrap(), wanted);
    let numbers = |name: &str| {
        let variable = variable(name);
        let Elements::Fixed(bytes) = grib
            .read(variable, &Region::whole(&variable.shape))
            .unwrap()
        else {
            panic!("numbers");
        };
        let words = bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        words.collect::<Vec<u64>>()
    };
    let float = |values: &[f64]| {
        values
            .iter()
            .map(|value| value.to_bits())
            .collect::<Vec<u64>>()
    };
    assert_eq!(numbers("isobaricInhPa"), float(&[850.0, 500.0]));
    assert_eq!(numbers("latitude"), float(&[10.0, -10.0]));
    assert_eq!(numbers("longitude"), float(&[350.0, 360.0, 370.0]));
    assert_eq!(numbers("step"), [0, 21_600]);
    assert_eq!(numbers("time"), [1_582_977_600]);
    assert_eq!(numbers("valid_time"), [1_582_977_600, 1_582_999_200]);
}

#[test]
fn members_are_a_dimension_and_doubles_are_warned_of() {
    let mut file = message(50_000, 0, Some(1), [1; 6]);
    file.extend(message(50_000, 0, Some(0), [0; 6]));
    file.extend(message(50_000, 0, Some(0), [9; 6]));
    let file = written(&file);
    let (grib, groups) = GribFile::open(file.path()).unwrap();
    let t = groups[0].variables.iter().find(|v| v.name == "t").unwrap();
    assert_eq!(t.dimensions[0], "number");
    let region = Region::new(vec![0, 0, 0], vec![2, 1, 1]).unwrap();
    assert_eq!(grib.read(t, &region).unwrap(), floats(&[200.0, 201.0]));
    assert!(grib.warnings()[0].contains("1 fields of t"));
}

#[test]
fn damage_is_an_error_or_other_values() {
    let good = message(50_000, 0, None, [0, 1, 2, 3, 4, 5]);
    let read_all = |bytes: &[u8]| {
        let file = written(bytes);
        let Ok((grib, groups)) = GribFile::open(file.path()) else {
            return;
        };
        for variable in &groups[0].variables {
            let _ = grib.read(variable, &Region::whole(&variable.shape));
        }
    };
    for at in 0..good.len() {
        assert!(GribFile::open(written(&good[..at]).path()).is_err(), "{at}");
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            read_all(&flipped);
        }
    }
    let mut first = good.clone();
    first[7] = 1;
    let error = GribFile::open(written(&first).path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("edition 1"), "{error}");
}
