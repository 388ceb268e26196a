//! Tests over headers written byte by byte.

use array::DataType;

use super::*;
use crate::source::Attribute;

/// Writes NetCDF-3 headers word by word.
struct Writer {
    bytes: Vec<u8>,
    version: u8,
}

impl Writer {
    fn new(version: u8) -> Self {
        Self {
            bytes: vec![b'C', b'D', b'F', version],
            version,
        }
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    fn count(&mut self, value: u64) -> &mut Self {
        match self.version {
            5 => self.bytes.extend(value.to_be_bytes()),
            _ => self.bytes.extend((value as u32).to_be_bytes()),
        }
        self
    }

    fn offset(&mut self, value: u64) -> &mut Self {
        match self.version {
            1 => self.bytes.extend((value as u32).to_be_bytes()),
            _ => self.bytes.extend(value.to_be_bytes()),
        }
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.count(text.len() as u64);
        self.bytes.extend(text.as_bytes());
        let padding = text.len().next_multiple_of(4) - text.len();
        self.bytes.resize(self.bytes.len() + padding, 0);
        self
    }

    fn nothing(&mut self) -> &mut Self {
        self.word(0).count(0)
    }

    /// Dimensions `t` (records) and `x` of 3, attribute `title`, and a variable `v<n>(t, x)` of
    /// each type in `types`.
    fn records(mut self, records: u64, types: &[u32]) -> Vec<u8> {
        self.count(records);
        self.word(10).count(2).text("t").count(0).text("x").count(3);
        self.word(12).count(1).text("title").word(2).text("hi");
        self.word(11).count(types.len() as u64);
        let mut begins = Vec::new();
        for (n, &data_type) in types.iter().enumerate() {
            self.text(&format!("v{n}"))
                .count(2)
                .count(0)
                .count(1)
                .nothing();
            self.word(data_type).count(8);
            begins.push(self.bytes.len());
            self.offset(0);
        }
        let mut begin = self.bytes.len() as u64;
        for (&at, &data_type) in begins.iter().zip(types) {
            let end = at + if self.version == 1 { 4 } else { 8 };
            let begin_bytes = begin.to_be_bytes();
            self.bytes[at..end].copy_from_slice(&begin_bytes[8 - (end - at)..]);
            let size = [1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8][data_type as usize - 1];
            begin += (3 * size as u64).next_multiple_of(4);
        }
        self.bytes
    }
}

/// One variable `v0(t, x)` of int16 and its values, not padded between records.
fn short_records(records: u32) -> Vec<u8> {
    let mut bytes = Writer::new(1).records(records.into(), &[3]);
    bytes.extend((0..6i16).flat_map(i16::to_be_bytes));
    bytes
}

fn parse(bytes: &[u8]) -> Result<Header, Failure> {
    Header::parse(bytes, bytes.len() as u64)
}

fn opened(bytes: &[u8]) -> (NetCdf3File, Group) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.nc");
    std::fs::write(&path, bytes).unwrap();
    let (file, mut groups) = NetCdf3File::open(&path).unwrap();
    (file, groups.remove(0))
}

#[test]
fn a_single_record_variable_is_not_padded() {
    let (file, group) = opened(&short_records(2));
    assert_eq!(
        group.attributes,
        [("title".to_owned(), Attribute::Text("hi".into()))]
    );
    let variable = &group.variables[0];
    assert_eq!(variable.shape, [2, 3]);
    assert_eq!(variable.dimensions, ["t", "x"]);
    let all = file.bytes(variable, &Region::whole(&[2, 3])).unwrap();
    assert_eq!(
        all,
        (0..6i16).flat_map(i16::to_le_bytes).collect::<Vec<u8>>()
    );
    let part = Region::new(vec![1, 1], vec![1, 2]).unwrap();
    assert_eq!(file.bytes(variable, &part).unwrap(), [4, 0, 5, 0]);
}

#[test]
fn several_record_variables_are_padded_to_four_bytes() {
    let mut bytes = Writer::new(2).records(2, &[1, 3]);
    for record in 0..2u8 {
        bytes.extend([record * 10, record * 10 + 1, record * 10 + 2, 0xff]);
        let shorts = (0..3i16).map(|x| i16::from(record) * 100 + x);
        bytes.extend(shorts.flat_map(i16::to_be_bytes));
        bytes.extend([0xff; 2]);
    }
    let (file, group) = opened(&bytes);
    let whole = Region::whole(&[2, 3]);
    assert_eq!(
        file.bytes(&group.variables[0], &whole).unwrap(),
        [0, 1, 2, 10, 11, 12]
    );
    let shorts = [0, 1, 2, 100, 101, 102i16]
        .into_iter()
        .flat_map(i16::to_le_bytes);
    let column = Region::new(vec![0, 2], vec![2, 1]).unwrap();
    assert_eq!(
        file.bytes(&group.variables[1], &whole).unwrap(),
        shorts.collect::<Vec<u8>>()
    );
    assert_eq!(
        file.bytes(&group.variables[1], &column).unwrap(),
        [2, 0, 102, 0]
    );
    // Without the padding after the last value the file is still whole.
    assert!(Header::parse(&bytes, bytes.len() as u64 - 2).is_ok());
    assert!(Header::parse(&bytes, bytes.len() as u64 - 3).is_err());
}

#[test]
fn a_stream_has_as_many_records_as_the_file_has_room_for() {
    for (version, streaming) in [(1, u32::MAX.into()), (2, u32::MAX.into()), (5, u64::MAX)] {
        let mut bytes = Writer::new(version).records(streaming, &[3]);
        bytes.extend([0; 3 * 6 + 5]);
        assert_eq!(parse(&bytes).unwrap().variables[0].shape, [3, 3]);
    }
}

#[test]
fn every_type_is_read_in_its_version_only() {
    for data_type in 1..=11 {
        for version in [1, 2, 5] {
            let mut bytes = Writer::new(version).records(1, &[data_type]);
            bytes.extend([0; 24]);
            let parsed = parse(&bytes);
            let is_known = data_type <= 6 || version == 5;
            assert_eq!(parsed.is_ok(), is_known, "{data_type} in version {version}");
        }
    }
    let mut bytes = Writer::new(5).records(1, &[11]);
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8].repeat(3));
    let (file, group) = opened(&bytes);
    assert_eq!(group.variables[0].data_type, DataType::UInt64);
    let one = Region::new(vec![0, 1], vec![1, 1]).unwrap();
    let read = file.bytes(&group.variables[0], &one).unwrap();
    assert_eq!(read, [8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_header_longer_than_the_first_read_is_read_whole() {
    let mut writer = Writer::new(1);
    writer.count(0).nothing();
    writer
        .word(12)
        .count(2)
        .text("long")
        .word(2)
        .text(&"x".repeat(100_000));
    writer.text("end").word(3).count(3);
    writer.bytes.extend([0xff, 0xff, 0, 2, 0x80, 0, 0, 0]);
    writer.nothing();
    let (_, group) = opened(&writer.bytes);
    let Attribute::Text(long) = &group.attributes[0].1 else {
        panic!("text stays text")
    };
    assert_eq!(long.len(), 100_000);
    assert_eq!(
        group.attributes[1].1,
        Attribute::Integers(vec![-1, 2, -32_768])
    );
}

#[test]
fn damaged_headers_are_errors_never_panics() {
    for version in [1, 2, 5] {
        let mut whole = Writer::new(version).records(2, &[1, 6]);
        whole.extend([0; 2 * (4 + 24)]);
        assert!(parse(&whole).is_ok());
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok(header) = parse(&changed) {
                    assert_inside(&header, changed.len() as u64);
                }
            }
        }
    }
    assert!(parse(&short_records(2)).is_ok());
    assert!(parse(&short_records(3)).is_err(), "a record too many");
}

/// The last byte of every variable is inside the file.
fn assert_inside(header: &Header, file_length: u64) {
    for (variable, placement) in header.variables.iter().zip(&header.placements) {
        if variable.shape.contains(&0) {
            continue;
        }
        let last: Vec<u64> = variable.shape.iter().map(|length| length - 1).collect();
        let last = Region::new(last, vec![1; variable.shape.len()]).unwrap();
        let runs = Runs::of(placement, &variable.shape, &last).unwrap();
        let at = last.start().iter().zip(&runs.strides);
        let offset: u64 = at.map(|(at, stride)| at * stride).sum();
        assert!(placement.begin + offset + placement.element_bytes <= file_length);
    }
}

#[test]
fn hostile_counts_are_refused_without_allocating() {
    for version in [1, 2, 5] {
        let most = if version == 5 {
            i64::MAX as u64
        } else {
            i32::MAX as u64
        };
        let start = |tag: u32| {
            let mut writer = Writer::new(version);
            writer.count(0);
            if tag > 10 {
                writer.nothing();
            }
            if tag == 11 {
                writer.nothing();
            }
            writer.word(tag).count(most);
            writer.bytes
        };
        for tag in [10, 11, 12] {
            let reason = parse(&start(tag)).unwrap_err();
            assert!(
                matches!(&reason, Failure::Wrong(r) if r.contains("room")),
                "{reason:?}"
            );
        }
        // A length of a name, and an attribute of the most numbers.
        let mut name = Writer::new(version);
        name.count(0).word(10).count(1).count(most);
        assert!(matches!(parse(&name.bytes), Err(Failure::Wrong(_))));
        let mut attribute = Writer::new(version);
        attribute
            .count(0)
            .nothing()
            .word(12)
            .count(1)
            .text("a")
            .word(6)
            .count(most);
        assert!(matches!(parse(&attribute.bytes), Err(Failure::Wrong(_))));
        // Records of the most length, the most often.
        let mut records = Writer::new(version);
        records
            .count(most)
            .word(10)
            .count(2)
            .text("t")
            .count(0)
            .text("x")
            .count(most);
        records
            .nothing()
            .word(11)
            .count(1)
            .text("v")
            .count(2)
            .count(0)
            .count(1)
            .nothing();
        records.word(6).count(0).offset(1 << 20);
        assert!(matches!(parse(&records.bytes), Err(Failure::Wrong(_))));
    }
}
