//! Files in memory, joined.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use array::DataType;
use proptest::prelude::*;

use super::*;
use crate::source::{Attribute, Grows, Reader, Refused};

/// Values of all variables, by handle.
#[derive(Debug)]
struct InMemory(Vec<Elements>);

impl Reader for InMemory {
    fn format(&self) -> &'static str {
        "memory"
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let fill = vec![0; variable.data_type.size_bytes().unwrap_or(0)];
        let whole = Region::whole(&variable.shape);
        let values = &self.0[variable.handle];
        crate::boxes::fit(&variable.data_type, &fill, values, &whole, region)
    }
}

/// A file being made up.
#[derive(Clone, Debug, Default)]
struct File {
    attributes: Vec<(&'static str, &'static str)>,
    variables: Vec<(Variable, Elements)>,
    refused: Vec<&'static str>,
}

fn floats(values: &[f64]) -> Elements {
    Elements::Fixed(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    )
}

fn ints(values: &[i32]) -> Elements {
    Elements::Fixed(
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    )
}

impl File {
    fn with(
        mut self,
        name: &str,
        dimensions: &[(&str, u64)],
        data_type: DataType,
        values: Elements,
        attributes: &[(&str, &str)],
    ) -> Self {
        let text = |text: &&str| Attribute::Text((*text).to_owned());
        let variable = Variable {
            name: name.into(),
            dimensions: dimensions
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            shape: dimensions.iter().map(|(_, length)| *length).collect(),
            data_type,
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), text(value)))
                .collect(),
            chunk_shape: None,
            handle: self.variables.len(),
        };
        self.variables.push((variable, values));
        self
    }

    fn source(&self) -> Source {
        let text = |text: &&str| Attribute::Text((*text).to_owned());
        let attributes = self.attributes.iter();
        let group = Group {
            path: vec![],
            attributes: attributes
                .map(|(name, value)| ((*name).to_owned(), text(value)))
                .collect(),
            variables: self
                .variables
                .iter()
                .map(|(variable, _)| variable.clone())
                .collect(),
            refused: self
                .refused
                .iter()
                .map(|name| Refused {
                    name: (*name).to_owned(),
                    reason: "no".into(),
                })
                .collect(),
        };
        let values = self
            .variables
            .iter()
            .map(|(_, values)| values.clone())
            .collect();
        Source::new(vec![group], InMemory(values))
    }
}

fn members(files: &[(&str, File)]) -> Vec<Member> {
    let member = |(name, file): &(&str, File)| {
        let file = file.clone();
        Member::new((*name).to_owned(), move || Ok(file.source()))
    };
    files.iter().map(member).collect()
}

fn append(dimension: &str) -> JoinOptions {
    JoinOptions {
        append: Some(dimension.into()),
        ..JoinOptions::default()
    }
}

fn stack(text: &str) -> JoinOptions {
    JoinOptions {
        new_dim: Some(text.parse().unwrap()),
        ..JoinOptions::default()
    }
}

fn joined(files: &[(&str, File)], options: &JoinOptions) -> Result<Joined, Error> {
    join(members(files), options, &BTreeSet::new(), None)
}

fn misfit(files: &[(&str, File)], options: &JoinOptions) -> String {
    joined(files, options).unwrap_err().to_string()
}

fn variable(source: &Source, name: &str) -> Variable {
    let mut variables = source.groups()[0].variables.iter();
    variables
        .find(|variable| variable.name == name)
        .unwrap()
        .clone()
}

fn whole(source: &Source, name: &str) -> Elements {
    let variable = variable(source, name);
    source
        .read(&variable, &Region::whole(&variable.shape))
        .unwrap()
}

/// One field and its coordinates.
fn model(units: &str, times: &[f64]) -> File {
    let count = times.len() as u64;
    let field: Vec<f64> = times.iter().flat_map(|&time| [time, time + 0.5]).collect();
    File {
        attributes: vec![("title", "t")],
        ..File::default()
    }
    .with(
        "lat",
        &[("lat", 2)],
        DataType::Float64,
        floats(&[-45.0, 45.0]),
        &[("units", "degrees_north")],
    )
    .with(
        "time",
        &[("time", count)],
        DataType::Float64,
        floats(times),
        &[("units", units), ("bounds", "time_bnds")],
    )
    .with(
        "time_bnds",
        &[("time", count), ("nv", 2)],
        DataType::Float64,
        floats(&field),
        &[],
    )
    .with(
        "t",
        &[("time", count), ("lat", 2)],
        DataType::Float64,
        floats(&field),
        &[("units", "K")],
    )
}

#[test]
fn files_follow_each_other_along_a_dimension() {
    let files = [
        ("a", model("days since 2000-01-01", &[0.0, 1.0])),
        ("b", model("days since 2000-01-01", &[2.0])),
    ];
    let joined = joined(&files, &append("time")).unwrap();
    assert_eq!(joined.files, ["a", "b"]);
    let source = &joined.source;
    assert_eq!(variable(source, "t").shape, [3, 2]);
    assert_eq!(variable(source, "lat").shape, [2]);
    assert_eq!(source.grows(&variable(source, "t")), Some(Grows::Surely(0)));
    assert_eq!(source.grows(&variable(source, "lat")), None);
    assert_eq!(whole(source, "time"), floats(&[0.0, 1.0, 2.0]));
    assert_eq!(whole(source, "t"), floats(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]));
    assert_eq!(whole(source, "lat"), floats(&[-45.0, 45.0]));
}

#[test]
fn times_are_converted_to_the_units_of_the_first_file_with_their_bounds() {
    let files = [
        ("a", model("days since 2000-01-01", &[0.0, 1.0])),
        ("b", model("hours since 2000-01-03 00:00", &[0.0, 12.0])),
    ];
    let joined = joined(&files, &append("time")).unwrap();
    assert_eq!(whole(&joined.source, "time"), floats(&[0.0, 1.0, 2.0, 2.5]));
    let half = 0.5 / 24.0;
    let bounds = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0 + half, 2.5, 2.5 + half];
    assert_eq!(whole(&joined.source, "time_bnds"), floats(&bounds));
    // The field has other units, which are no times.
    assert_eq!(
        whole(&joined.source, "t"),
        floats(&[0.0, 0.5, 1.0, 1.5, 0.0, 0.5, 12.0, 12.5])
    );
}

#[test]
fn times_that_do_not_convert_are_named() {
    let file = |units, times: &[i32]| {
        File::default().with(
            "time",
            &[("time", times.len() as u64)],
            DataType::Int32,
            ints(times),
            &[("units", units)],
        )
    };
    let files = [
        ("a", file("days since 2000-01-01", &[0])),
        ("b", file("hours since 2000-01-01", &[24, 36])),
    ];
    let error = misfit(&files, &append("time"));
    assert!(
        error.starts_with("b does not fit: variable time: value 36 at position 1"),
        "{error}"
    );
    assert!(
        error.contains("hours since 2000-01-01, in a days since 2000-01-01"),
        "{error}"
    );
    let files = [
        files[0].clone(),
        ("c", file("hours since 2000-01-02", &[0, 24])),
    ];
    let joined = joined(&files, &append("time")).unwrap();
    assert_eq!(whole(&joined.source, "time"), ints(&[0, 1, 2]));
}

#[test]
fn files_are_stacked_along_a_new_dimension() {
    let units = "days since 2000-01-01";
    let mut files = vec![
        ("r1.nc", model(units, &[0.0])),
        ("r2.nc", model(units, &[0.0])),
    ];
    files[1].1.variables[3].1 = floats(&[7.0, 8.0]);
    let joined_ = joined(&files, &stack("member=@")).unwrap();
    let source = &joined_.source;
    assert_eq!(variable(source, "t").dimensions, ["member", "time", "lat"]);
    assert_eq!(variable(source, "t").shape, [2, 1, 2]);
    assert_eq!(whole(source, "t"), floats(&[0.0, 0.5, 7.0, 8.0]));
    // Coordinates and what they name stay as they are.
    assert_eq!(variable(source, "time_bnds").shape, [1, 2]);
    assert_eq!(variable(source, "member").data_type, DataType::Int64);
    let member = variable(source, "member");
    let last = source
        .read(&member, &Region::new(vec![1], vec![1]).unwrap())
        .unwrap();
    assert_eq!(last, Elements::Fixed(2i64.to_le_bytes().to_vec()));
    // No values, no coordinate.
    let plain = joined(&files, &stack("member")).unwrap();
    assert!(
        plain.source.groups()[0]
            .variables
            .iter()
            .all(|variable| variable.name != "member")
    );
    // Coordinates must be the same, as times if not as numbers.
    files[1].1 = model("hours since 2000-01-01", &[0.0]);
    files[1].1.variables[2].1 = floats(&[0.0, 12.0]);
    assert!(joined(&files, &stack("member")).is_ok());
    files[1].1 = model("days since 2000-01-02", &[0.0]);
    let error = misfit(&files, &stack("member"));
    assert!(
        error.starts_with("r2.nc does not fit: variable time has other values than in r1.nc"),
        "{error}"
    );
    let error = misfit(&files, &stack("time"));
    assert!(error.contains("--append time"), "{error}");
    let error = misfit(&files, &stack("member=1,2,3"));
    assert!(error.contains("3 values for 2 files"), "{error}");
}

#[test]
fn a_scalar_becomes_the_coordinate_of_the_new_dimension() {
    let file = |number: i32| {
        File::default()
            .with("x", &[("x", 1)], DataType::Int32, ints(&[5]), &[])
            .with("run", &[], DataType::Int32, ints(&[number]), &[])
            .with(
                "t",
                &[("x", 1)],
                DataType::Int32,
                ints(&[10 * number]),
                &[("coordinates", "run")],
            )
    };
    let files = [("a", file(3)), ("b", file(4))];
    let joined_ = joined(&files, &stack("run")).unwrap();
    assert_eq!(variable(&joined_.source, "run").dimensions, ["run"]);
    assert_eq!(whole(&joined_.source, "run"), ints(&[3, 4]));
    assert_eq!(whole(&joined_.source, "t"), ints(&[30, 40]));
    assert!(misfit(&files, &stack("run=1,2")).contains("the files have a variable run"));
    // Under another name it is a coordinate that differs.
    let error = misfit(&files, &stack("member"));
    assert!(error.contains("variable run has other values"), "{error}");
}

#[test]
fn every_misfit_names_the_file_and_the_variable() {
    let units = "days since 2000-01-01";
    let first = model(units, &[0.0, 0.5]);
    let good = || model(units, &[1.0]);
    let changed = |change: &dyn Fn(&mut File)| {
        let mut file = good();
        change(&mut file);
        file
    };
    let attribute = |name: &str, value: Attribute| {
        let name = name.to_owned();
        changed(&|file| {
            file.variables[3]
                .0
                .attributes
                .push((name.clone(), value.clone()));
        })
    };
    for (file, wanted) in [
        (
            changed(&|file| {
                file.variables.pop();
            }),
            "it has no variable t, which a has; leave it out with --skip t",
        ),
        (
            good().with("u", &[], DataType::Int32, ints(&[1]), &[]),
            "it has a variable u, which a has not; leave it out with --skip u",
        ),
        (
            changed(&|file| file.variables[3].0.dimensions[1] = "y".into()),
            "variable t has dimensions (time, y), in a (time, lat)",
        ),
        (
            changed(&|file| file.variables[3].0.shape[1] = 3),
            "variable t has length 3 along \"lat\", in a 2",
        ),
        (
            changed(&|file| file.variables[3].0.data_type = DataType::Int64),
            "variable t is of type int64, in a float64",
        ),
        (
            changed(&|file| file.variables[3].0.attributes.clear()),
            "attribute \"units\" of variable t is not there, in a it is \"K\"",
        ),
        (
            attribute("scale_factor", Attribute::Floats(vec![0.1])),
            "attribute \"scale_factor\" of variable t is 0.1, in a it is not there",
        ),
        (
            attribute("missing_value", Attribute::Floats(vec![9.0])),
            "attribute \"missing_value\" of variable t",
        ),
        (
            attribute("_FillValue", Attribute::Floats(vec![9.0])),
            "attribute \"_FillValue\" of variable t",
        ),
        (
            changed(&|file| {
                file.variables[1]
                    .0
                    .attributes
                    .push(("calendar".into(), Attribute::Text("noleap".into())));
            }),
            "the calendar of variable time is noleap, in a standard",
        ),
        (
            changed(&|file| file.variables[0].1 = floats(&[-45.0, 44.0])),
            "variable lat has other values than in a (the first at [1])",
        ),
        (
            model(units, &[0.0]),
            "along \"time\" it overlaps a: it begins at 2000-01-01",
        ),
        (model(units, &[-1.0]), "give b before a, or --sort"),
        (
            model(units, &[1.0, 1.0]),
            "its coordinate \"time\" is not strictly monotonic: 2000-01-02",
        ),
        (
            model("months since 2000-01-01", &[1.0]),
            "attribute \"units\" of variable time",
        ),
    ] {
        let error = misfit(&[("a", first.clone()), ("b", file)], &append("time"));
        assert!(
            error.starts_with("b does not fit: ") && error.contains(wanted),
            "{error}\n{wanted}"
        );
    }
    let error = misfit(&[("a", first.clone())], &append("tim"));
    assert!(
        error.contains("no variable of a has a dimension \"tim\"; there are lat, nv, time"),
        "{error}"
    );
    let error = misfit(
        &[("a", first.clone()), ("b", good())],
        &JoinOptions::default(),
    );
    assert!(
        error.contains("--append DIM") && error.contains("--new-dim NAME"),
        "{error}"
    );
}

#[test]
fn what_is_left_out_is_not_compared_and_known_by_name() {
    let units = "days since 2000-01-01";
    let mut second = model(units, &[1.0]).with("u", &[], DataType::Int32, ints(&[1]), &[]);
    second.variables[0].1 = floats(&[0.0, 1.0]);
    second.variables[3]
        .0
        .attributes
        .push(("valid_min".into(), Attribute::Floats(vec![0.0])));
    second.refused = vec!["odd"];
    let files = [("a", model(units, &[0.0])), ("b", second)];
    let names = ["lat", "u", "t@valid_min", "odd"].map(str::to_owned);
    let skip = BTreeSet::from(names);
    let joined = join(members(&files), &append("time"), &skip, None).unwrap();
    // All names mean something to whoever checks them later.
    assert!(Skip::new(&joined.source, &skip).is_ok());
    let refused = &joined.source.groups()[0].refused;
    assert_eq!(refused[0].reason, "no (in b)");
    let lat = variable(&joined.source, "u");
    assert!(joined.source.read(&lat, &Region::whole(&[])).is_err());
}

#[test]
fn harmless_differences_are_noted() {
    let units = "days since 2000-01-01";
    let mut second = model(units, &[1.0]);
    second.attributes = vec![("title", "u"), ("history", "h")];
    second.variables[3]
        .0
        .attributes
        .push(("long_name".into(), Attribute::Text("x".repeat(1000))));
    let joined = joined(
        &[("a", model(units, &[0.0])), ("b", second)],
        &append("time"),
    )
    .unwrap();
    let noted: Vec<&str> = joined
        .differences
        .iter()
        .filter_map(|d| d["attribute"].as_str())
        .collect();
    assert_eq!(noted, ["@history", "@title", "t@long_name"]);
    assert!(joined.differences[2]["value"].as_str().unwrap().len() < 300);
    assert_eq!(
        joined.source.groups()[0].attributes[0].1,
        Attribute::Text("t".into())
    );
}

#[test]
fn files_are_sorted_by_the_time_they_begin_at_or_taken_as_they_are() {
    let files = [
        ("c", model("days since 2000-01-03", &[0.0])),
        ("a", model("days since 2000-01-01", &[0.0])),
        ("b", model("hours since 2000-01-01", &[24.0])),
    ];
    let with = |order| JoinOptions {
        order,
        ..append("time")
    };
    assert_eq!(
        joined(&files, &with(Order::Sorted)).unwrap().files,
        ["a", "b", "c"]
    );
    let unchecked = joined(&files, &with(Order::Unchecked)).unwrap();
    assert_eq!(whole(&unchecked.source, "time"), floats(&[0.0, -2.0, -1.0]));
    assert!(joined(&files, &with(Order::Given)).is_err());
}

#[test]
fn few_files_are_open_at_a_time_and_must_stay_what_they_were() {
    let opened = Arc::new(AtomicUsize::new(0));
    let members = (0..300).map(|nth| {
        let opened = opened.clone();
        Member::new(format!("{nth}"), move || {
            let times = opened.fetch_add(1, Atomic::Relaxed);
            // From its second opening on, file 7 is another one.
            let extra = if nth == 7 && times > 300 {
                vec![7.5]
            } else {
                vec![]
            };
            let values = [vec![f64::from(nth)], extra].concat();
            Ok(model("days since 2000-01-01", &values).source())
        })
    });
    let joined = join(members.collect(), &append("time"), &BTreeSet::new(), None).unwrap();
    assert_eq!(opened.load(Atomic::Relaxed), 300);
    let t = variable(&joined.source, "t");
    let read = |start, length| {
        joined
            .source
            .read(&t, &Region::new(vec![start, 0], vec![length, 2]).unwrap())
    };
    assert_eq!(read(299, 1).unwrap(), floats(&[299.0, 299.5]));
    assert_eq!(read(100, 2).unwrap(), floats(&[100.0, 100.5, 101.0, 101.5]));
    assert_eq!(opened.load(Atomic::Relaxed), 302);
    let error = read(0, 300).unwrap_err().to_string();
    assert!(
        error.contains("7 does not fit: variable t changed"),
        "{error}"
    );
}

#[test]
fn open_files_are_bounded_by_number_and_by_variables_read() {
    let all: Vec<Member> = (0..100)
        .map(|nth| {
            Member::new(format!("{nth}"), || {
                Ok(model("days since 2000-01-01", &[0.0]).source())
            })
        })
        .collect();
    let members = Members::new(all);
    for nth in 0..100 {
        members.source(nth, Some("t")).unwrap();
    }
    assert_eq!(members.open_count(), 64);
    for nth in 36..100 {
        for path in ["t", "time", "lat"] {
            members.source(nth, Some(path)).unwrap();
        }
    }
    assert!(members.open_count() <= 43);
}

#[test]
fn blocks_cover_a_shape_once() {
    for shape in [vec![], vec![0, 3], vec![5], vec![3, 4, 5], vec![1, 1, 100]] {
        let whole = Region::whole(&shape);
        let mut seen: Vec<Vec<u64>> = Vec::new();
        for block in blocks(&shape, 7).unwrap() {
            assert!(shape::elements(block.shape()).unwrap() <= 7);
            seen.extend(block.positions());
        }
        seen.sort_unstable();
        assert_eq!(seen, whole.positions().collect::<Vec<_>>(), "{shape:?}");
    }
}

proptest! {
    /// Any box of the joined source is that box of the arrays put together in memory.
    #[test]
    fn boxes_are_put_together_as_if_in_memory(
        lengths in prop::collection::vec(0u64..4, 1..5),
        axis in 0usize..3,
        is_text in any::<bool>(),
        corner in prop::collection::vec(0.0f64..1.0, 3),
        size in prop::collection::vec(0.0f64..1.0, 3),
    ) {
        let other = [2u64, 3, 2];
        let names = ["a", "b", "c"];
        let mut total = other;
        total[axis] = lengths.iter().sum();
        // Each element is its position in the whole.
        let mut start = 0;
        let mut files = Vec::new();
        for &length in &lengths {
            let mut shape = other;
            shape[axis] = length;
            let mut first = vec![0; 3];
            first[axis] = start;
            let region = Region::new(first, shape.to_vec()).unwrap();
            let numbers: Vec<u64> = region.positions().map(|at| shape::linear_index(&at, &total)).collect();
            let texts: Vec<String> = numbers.iter().map(|number| format!("n{number}")).collect();
            let (data_type, values) = match is_text {
                true => (DataType::String, Elements::Variable(texts.iter().map(String::as_bytes).collect())),
                false => (DataType::UInt64, Elements::Fixed(numbers.iter().flat_map(|n| n.to_le_bytes()).collect())),
            };
            let dimensions: Vec<(&str, u64)> = names.into_iter().zip(shape).collect();
            files.push((String::from("f"), File::default().with("v", &dimensions, data_type, values, &[])));
            start += length;
        }
        let files: Vec<(&str, File)> = files.iter().map(|(name, file)| (name.as_str(), file.clone())).collect();
        let joined = joined(&files, &append(names[axis])).unwrap();
        let v = variable(&joined.source, "v");
        prop_assert_eq!(&v.shape[..], &total[..]);
        let start: Vec<u64> = (0..3).map(|axis| (corner[axis] * total[axis] as f64) as u64).collect();
        let shape: Vec<u64> = (0..3).map(|axis| (size[axis] * (total[axis] - start[axis] + 1) as f64) as u64).collect();
        let region = Region::new(start, shape).unwrap();
        let wanted: Vec<u64> = region.positions().map(|at| shape::linear_index(&at, &total)).collect();
        match joined.source.read(&v, &region).unwrap() {
            Elements::Fixed(bytes) => {
                let found: Vec<u64> = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
                prop_assert_eq!(found, wanted);
            }
            Elements::Variable(texts) => {
                let found: Vec<String> = texts.iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect();
                let wanted: Vec<String> = wanted.iter().map(|number| format!("n{number}")).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
