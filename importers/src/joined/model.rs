//! What every file of a joined source must be like: the first file, or what is in the repository.

use std::collections::{BTreeMap, BTreeSet};

use array::{DataType, Elements};
use compute::cf::time::TimeUnits;
use serde_json::{Map, Value};

use super::reader::Recode;
use super::{Join, Template};
use crate::Error;
use crate::skip::{Skip, source_path};
use crate::source::{Group, Source};
use crate::zarr;

/// Attributes that give stored values their meaning: files whose own differ do not go together.
const MEANING: [&str; 13] = [
    "units",
    "calendar",
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "_Unsigned",
    "valid_min",
    "valid_max",
    "valid_range",
    "flag_values",
    "flag_masks",
    "flag_meanings",
];
/// Attributes that name coordinates, as `xarray.open_dataset(decode_coords="all")` takes them.
const NAMES_COORDINATES: [&str; 6] = [
    "coordinates",
    "bounds",
    "climatology",
    "grid_mapping",
    "cell_measures",
    "formula_terms",
];
/// Differing attributes that are listed; the others are counted.
const MAX_DIFFERENCES: usize = 64;
/// Longest text of a differing attribute that is listed.
const MAX_DIFFERENCE_BYTES: usize = 256;

/// How a variable of the files becomes one of the joined source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is the same in all files.
    Same,
    /// One after the other along this dimension.
    Along(usize),
    /// Stacked along a new first dimension.
    New,
}

/// A variable as every file must have it.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    dimensions: Vec<String>,
    /// Lengths in a file; that along the joined dimension says nothing.
    shape: Vec<u64>,
    data_type: DataType,
    attributes: Map<String, Value>,
    pub(super) units: Option<TimeUnits>,
}

/// What every file must be like.
#[derive(Debug)]
pub(super) struct Model {
    /// What the files are compared with, for messages.
    label: String,
    /// Whether that is a file of the import too, of which something can be left out.
    is_file: bool,
    /// By path in the file.
    pub(super) variables: BTreeMap<String, Wanted>,
    groups: BTreeMap<String, Map<String, Value>>,
    join: Join,
}

/// Attributes that differ between files without harm, to be written down.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) listed: Vec<Value>,
    pub(super) others: u64,
}

impl Differences {
    fn note(&mut self, file: &str, path: &str, name: &str, value: Option<&Value>) {
        if self.listed.len() >= MAX_DIFFERENCES {
            self.others += 1;
            return;
        }
        let value = value.cloned().unwrap_or(Value::Null);
        let text = value.to_string();
        let value = match text.len() <= MAX_DIFFERENCE_BYTES {
            true => value,
            false => {
                let end = text.floor_char_boundary(MAX_DIFFERENCE_BYTES);
                Value::String(format!("{}…", &text[..end]))
            }
        };
        self.listed.push(serde_json::json!({
            "attribute": format!("{path}@{name}"),
            "file": file,
            "value": value,
        }));
    }
}

/// A variable as one file has it.
struct Found<'a> {
    dimensions: &'a [String],
    shape: &'a [u64],
    data_type: &'a DataType,
    attributes: Map<String, Value>,
    units: Option<TimeUnits>,
}

/// The variables of a group that are not left out, by path.
fn found<'a>(group: &'a Group, skip: &Skip) -> BTreeMap<String, Found<'a>> {
    let mut all: BTreeMap<String, Found<'a>> = BTreeMap::new();
    for variable in &group.variables {
        let path = source_path(&group.path, &variable.name);
        if skip.has(&path) {
            continue;
        }
        let attributes = skip.attributes_left(&path, &variable.attributes);
        let stored = zarr::stored_attributes(&path, &variable.data_type, &attributes);
        let found = Found {
            dimensions: &variable.dimensions,
            shape: &variable.shape,
            data_type: &variable.data_type,
            attributes: stored.attributes,
            units: None,
        };
        all.insert(path, found);
    }
    let inherited = inherited(all.iter().map(|(path, found)| (path, &found.attributes)));
    for (path, found) in &mut all {
        found.units = units(found.data_type, &found.attributes, inherited.get(path));
    }
    all
}

/// The attributes of the variables that others are the bounds of, by path of the bounds.
fn inherited<'a>(
    variables: impl Iterator<Item = (&'a String, &'a Map<String, Value>)>,
) -> BTreeMap<String, Map<String, Value>> {
    let mut inherited = BTreeMap::new();
    for (path, attributes) in variables {
        for name in ["bounds", "climatology"] {
            if let Some(bounds) = attributes.get(name).and_then(Value::as_str) {
                let path = match path.rsplit_once('/') {
                    Some((group, _)) => format!("{group}/{bounds}"),
                    None => bounds.to_owned(),
                };
                inherited.insert(path, attributes.clone());
            }
        }
    }
    inherited
}

/// How times are stored; what bounds do not say themselves is said by what they bound.
///
/// Source: CF conventions §7.1.
fn units(
    data_type: &DataType,
    own: &Map<String, Value>,
    inherited: Option<&Map<String, Value>>,
) -> Option<TimeUnits> {
    let mut attributes = Map::new();
    for name in ["units", "calendar"] {
        let value = own.get(name).or_else(|| inherited?.get(name));
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    // Units that are no times are compared as text.
    TimeUnits::new(data_type, &attributes).ok().flatten()
}

/// Names of the variables that the attributes of others call coordinates, bounds and the like.
fn named_coordinates(group: &Group) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for variable in &group.variables {
        for (name, value) in &variable.attributes {
            if let (true, crate::Attribute::Text(text)) =
                (NAMES_COORDINATES.contains(&name.as_str()), value)
            {
                let words = text.split_whitespace();
                names.extend(words.filter(|word| !word.ends_with(':')));
            }
        }
    }
    names
}

impl Model {
    /// What the other files must be like if this is the first.
    pub(super) fn of_source(
        source: &Source,
        label: &str,
        join: &Join,
        skip: &Skip,
    ) -> Result<Self, Error> {
        let mut variables = BTreeMap::new();
        for group in source.groups() {
            let coordinates = named_coordinates(group);
            for (path, found) in found(group, skip) {
                let name = path.rsplit('/').next().unwrap_or(&path);
                let is_coordinate = coordinates.contains(name) || found.dimensions == [name];
                let at = found
                    .dimensions
                    .iter()
                    .position(|dimension| dimension == join.dimension());
                let kind = match (join, at) {
                    (Join::Append(_), Some(axis)) => Kind::Along(axis),
                    (Join::Append(_), None) => Kind::Same,
                    (Join::New(dimension), Some(_)) => {
                        return Err(Error::Option {
                            option: "--new-dim",
                            reason: format!(
                                "variable {path} has a dimension {dimension:?} already: join \
                                 along it with --append {dimension}, or choose another name"
                            ),
                        });
                    }
                    (Join::New(dimension), None) if name == dimension => Kind::New,
                    (Join::New(_), None) if is_coordinate => Kind::Same,
                    (Join::New(_), None) => Kind::New,
                };
                variables.insert(path, Wanted::of(kind, found));
            }
        }
        let groups = source.groups().iter().map(|group| {
            let path = group.path.join("/");
            let attributes = zarr::attributes(&skip.attributes_left(&path, &group.attributes));
            (path, attributes)
        });
        let model = Self {
            label: label.to_owned(),
            is_file: true,
            variables,
            groups: groups.collect(),
            join: join.clone(),
        };
        model.check_join(source)?;
        Ok(model)
    }

    /// Whether there is anything to join.
    fn check_join(&self, source: &Source) -> Result<(), Error> {
        let option = |reason| Error::Option {
            option: self.join.option(),
            reason,
        };
        let kinds = || self.variables.values().map(|wanted| wanted.kind);
        match &self.join {
            Join::Append(dimension) if kinds().all(|kind| kind == Kind::Same) => {
                let known: BTreeSet<&str> = source
                    .groups()
                    .iter()
                    .flat_map(|group| &group.variables)
                    .flat_map(|variable| variable.dimensions.iter().map(String::as_str))
                    .collect();
                let known: Vec<&str> = known.into_iter().collect();
                Err(option(format!(
                    "no variable of {} has a dimension {dimension:?}; there are {}",
                    self.label,
                    known.join(", ")
                )))
            }
            Join::New(dimension) => {
                let scalar = self.variables.get(dimension);
                match scalar.filter(|wanted| !wanted.shape.is_empty()) {
                    None => Ok(()),
                    Some(wanted) => Err(option(format!(
                        "variable {dimension} of {} has dimensions {}, so it cannot be the \
                         coordinate of the new one; choose another name",
                        self.label,
                        shown_names(&wanted.dimensions)
                    ))),
                }
            }
            Join::Append(_) => Ok(()),
        }
    }

    /// What files must be like to be appended to these arrays. `own` is the model of the first
    /// file: only groups that it has count, and its coordinates are coordinates here too.
    pub(super) fn of_template(template: &Template, own: &Self, file: &str) -> Result<Self, Error> {
        let dimension = own.join.dimension();
        let mut variables = BTreeMap::new();
        let inherited = inherited(
            template
                .arrays
                .iter()
                .map(|(path, metadata)| (path, &metadata.attributes)),
        );
        for (path, metadata) in &template.arrays {
            let (group, name) = path.rsplit_once('/').unwrap_or(("", path));
            if !own.groups.contains_key(group) {
                continue;
            }
            let misfit = |reason: String| Error::Misfit {
                file: file.to_owned(),
                reason: format!("variable {path}: {reason}"),
            };
            let names = metadata.dimension_names().map(|names| {
                let name = |name: &Option<String>| name.clone().unwrap_or_default();
                names.iter().map(name).collect::<Vec<String>>()
            });
            let mut wanted = Wanted {
                kind: Kind::Same,
                dimensions: names.unwrap_or_default(),
                shape: metadata.shape().to_vec(),
                data_type: metadata.data_type.clone(),
                units: units(
                    &metadata.data_type,
                    &metadata.attributes,
                    inherited.get(path),
                ),
                attributes: metadata.attributes.clone(),
            };
            let at = wanted.dimensions.iter().position(|name| name == dimension);
            let is_here = own.variables.get(path).map(|own| own.kind);
            if wanted.dimensions.len() < wanted.shape.len() && is_here.is_some() {
                let reason = format!("{} has no dimension names there", template.shown(path));
                return Err(misfit(reason));
            }
            match (&own.join, at) {
                // Only what is appended to or compared with counts.
                (_, None) if is_here.is_none() => continue,
                (Join::Append(_), Some(axis)) => wanted.kind = Kind::Along(axis),
                (Join::New(_), Some(0)) => {
                    if is_here.is_none() && name == dimension {
                        continue;
                    }
                    wanted.kind = Kind::New;
                    wanted.dimensions.remove(0);
                    wanted.shape.remove(0);
                }
                (Join::New(_), Some(axis)) => {
                    let reason = format!(
                        "{} has {dimension:?} as dimension {axis}, not as the first",
                        template.shown(path)
                    );
                    return Err(misfit(reason));
                }
                (_, None) => {}
            }
            if let (Some(kind), wanted) = (is_here, wanted.kind)
                && (kind == Kind::Same) != (wanted == Kind::Same)
            {
                let reason = format!(
                    "dimension {dimension:?} is one of only one of it and {}",
                    template.shown(path)
                );
                return Err(misfit(reason));
            }
            variables.insert(path.clone(), wanted);
        }
        Ok(Self {
            label: format!("group {} of the repository", template.group),
            is_file: false,
            variables,
            groups: own
                .groups
                .iter()
                .map(|(path, own)| {
                    let attributes = template.groups.get(path).unwrap_or(own);
                    (path.clone(), attributes.clone())
                })
                .collect(),
            join: own.join.clone(),
        })
    }

    /// Compares a file with the model: gives the length of each variable along the joined
    /// dimension, and how its times are converted where they are stored otherwise.
    pub(super) fn fit(
        &self,
        source: &Source,
        file: &str,
        skip: &Skip,
        differences: &mut Differences,
    ) -> Result<BTreeMap<String, (u64, Option<Recode>)>, Error> {
        let misfit = |reason: String| Error::Misfit {
            file: file.to_owned(),
            reason,
        };
        let mut fits = BTreeMap::new();
        let mut groups = BTreeSet::new();
        for group in source.groups() {
            let path = group.path.join("/");
            let Some(attributes) = self.groups.get(&path) else {
                let reason = format!("it has a group {path}, which {} has not", self.label);
                return Err(misfit(reason));
            };
            let own = zarr::attributes(&skip.attributes_left(&path, &group.attributes));
            for name in names_of(attributes, &own) {
                if attributes.get(name) != own.get(name) {
                    differences.note(file, &path, name, own.get(name));
                }
            }
            groups.insert(path);
            for (path, found) in found(group, skip) {
                let Some(wanted) = self.variables.get(&path) else {
                    return Err(misfit(format!(
                        "it has a variable {path}, which {} has not; leave it out with --skip \
                         {path}",
                        self.label
                    )));
                };
                let recode = self.fit_variable(wanted, &path, &found).map_err(misfit)?;
                for name in names_of(&wanted.attributes, &found.attributes) {
                    let same = wanted.attributes.get(name) == found.attributes.get(name);
                    if !same && !MEANING.contains(&name.as_str()) {
                        differences.note(file, &path, name, found.attributes.get(name));
                    }
                }
                let length = match wanted.kind {
                    Kind::Along(axis) => found.shape[axis],
                    Kind::Same | Kind::New => 1,
                };
                fits.insert(path, (length, recode));
            }
        }
        if let Some(path) = self.groups.keys().find(|path| !groups.contains(*path)) {
            let reason = format!("it has no group {path}, which {} has", self.label);
            return Err(misfit(reason));
        }
        if let Some(path) = self.variables.keys().find(|path| !fits.contains_key(*path)) {
            return Err(misfit(format!(
                "it has no variable {path}, which {} has{}",
                self.label,
                match self.is_file {
                    true => format!("; leave it out with --skip {path}"),
                    false => String::new(),
                }
            )));
        }
        Ok(fits)
    }

    fn fit_variable(
        &self,
        wanted: &Wanted,
        path: &str,
        found: &Found<'_>,
    ) -> Result<Option<Recode>, String> {
        let label = &self.label;
        if found.dimensions != wanted.dimensions {
            return Err(format!(
                "variable {path} has dimensions {}, in {label} {}",
                shown_names(found.dimensions),
                shown_names(&wanted.dimensions)
            ));
        }
        let lengths = found.shape.iter().zip(&wanted.shape).enumerate();
        for (axis, (length, other)) in lengths {
            if length != other && wanted.kind != Kind::Along(axis) {
                return Err(format!(
                    "variable {path} has length {length} along {:?}, in {label} {other}",
                    wanted.dimensions[axis]
                ));
            }
        }
        if *found.data_type != wanted.data_type {
            return Err(format!(
                "variable {path} is of type {}, in {label} {}; convert one of them first",
                found.data_type, wanted.data_type
            ));
        }
        let times = found.units.as_ref().zip(wanted.units.as_ref());
        if let Some((own, other)) = times
            && own.calendar() != other.calendar()
        {
            return Err(format!(
                "the calendar of variable {path} is {}, in {label} {}; times of different \
                 calendars do not go together",
                own.calendar().name(),
                other.calendar().name()
            ));
        }
        for name in MEANING {
            let (own, other) = (found.attributes.get(name), wanted.attributes.get(name));
            let is_time = times.is_some() && ["units", "calendar"].contains(&name);
            if own != other && !is_time {
                let shown = |value: Option<&Value>| match value {
                    Some(value) => format!("is {value}"),
                    None => "is not there".to_owned(),
                };
                return Err(format!(
                    "attribute {name:?} of variable {path} {}, in {label} it {}; values stored \
                     in different ways do not go together",
                    shown(own),
                    shown(other)
                ));
            }
        }
        Ok(times
            .filter(|(own, other)| own != other)
            .map(|(own, other)| {
                let said = |attributes: &Map<String, Value>| match attributes.get("units") {
                    Some(Value::String(units)) => units.clone(),
                    _ => "as what they bound".to_owned(),
                };
                Recode {
                    from: own.clone(),
                    to: other.clone(),
                    attributes: found.attributes.clone(),
                    said: format!(
                        "{}, in {label} {}",
                        said(&found.attributes),
                        said(&wanted.attributes)
                    ),
                }
            }))
    }
}

impl Wanted {
    /// Whether it is the coordinate of its dimension.
    pub(super) fn is_coordinate(&self, name: &str) -> bool {
        self.dimensions == [name]
    }

    fn of(kind: Kind, found: Found<'_>) -> Self {
        Self {
            kind,
            dimensions: found.dimensions.to_vec(),
            shape: found.shape.to_vec(),
            data_type: found.data_type.clone(),
            attributes: found.attributes,
            units: found.units,
        }
    }
}

fn names_of<'a>(a: &'a Map<String, Value>, b: &'a Map<String, Value>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

fn shown_names(names: &[String]) -> String {
    format!("({})", names.join(", "))
}

/// The first position at which two boxes of one type differ: numbers by value, NaN being equal to
/// NaN, times that were converted by the time they stand for, all else by its bytes.
pub(crate) fn first_difference(
    data_type: &DataType,
    a: &Elements,
    b: &Elements,
    units: Option<&TimeUnits>,
) -> Option<usize> {
    let (a, b) = match (a, b) {
        (Elements::Fixed(a), Elements::Fixed(b)) => (a, b),
        (Elements::Variable(a), Elements::Variable(b)) => {
            let differ = |(a, b): (&[u8], &[u8])| a != b;
            let at = a.iter().zip(b.iter()).position(differ);
            return at.or_else(|| (a.len() != b.len()).then_some(a.len().min(b.len())));
        }
        _ => return Some(0),
    };
    if a == b {
        return None;
    }
    let size = data_type.size_bytes().unwrap_or(1).max(1);
    // Parts of complex numbers are compared one by one.
    let part = match data_type {
        DataType::Complex64 | DataType::Complex128 => size / 2,
        _ => size,
    };
    let float = |bytes: &[u8]| -> Option<f64> {
        Some(match data_type {
            DataType::Float16 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
            DataType::BFloat16 => half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
            DataType::Float32 | DataType::Complex64 => {
                f64::from(f32::from_le_bytes(bytes.try_into().ok()?))
            }
            DataType::Float64 | DataType::Complex128 => f64::from_le_bytes(bytes.try_into().ok()?),
            _ => return None,
        })
    };
    let same = |a: &[u8], b: &[u8]| {
        a == b
            || float(a).zip(float(b)).is_some_and(|(a, b)| {
                a == b
                    || a.is_nan() && b.is_nan()
                    || units.is_some_and(|units| units.is_near(a - b))
            })
    };
    let mut pairs = a.chunks_exact(part).zip(b.chunks_exact(part));
    let at = pairs.position(|(a, b)| !same(a, b));
    at.map(|at| at / (size / part))
        .or_else(|| (a.len() != b.len()).then_some(a.len().min(b.len()) / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_numbers() {
        let floats = |values: &[f64]| {
            Elements::Fixed(
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            )
        };
        let differ = |a: &[f64], b: &[f64]| {
            first_difference(&DataType::Float64, &floats(a), &floats(b), None)
        };
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1);
        assert_eq!(differ(&[1.0, f64::NAN, 0.0], &[1.0, other_nan, -0.0]), None);
        assert_eq!(differ(&[1.0, 2.0], &[1.0, 2.5]), Some(1));
        assert_eq!(differ(&[1.0, f64::NAN], &[1.0, 2.0]), Some(1));
        let complex = |a: &[f64], b: &[f64]| {
            first_difference(&DataType::Complex128, &floats(a), &floats(b), None)
        };
        assert_eq!(
            complex(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 3.0, 5.0]),
            Some(1)
        );
        let bytes = |bytes: &[u8]| Elements::Fixed(bytes.to_vec());
        let differ = first_difference(
            &DataType::Int16,
            &bytes(&[1, 0, 2, 0]),
            &bytes(&[1, 0, 2, 1]),
            None,
        );
        assert_eq!(differ, Some(1));
        let texts =
            |texts: &[&str]| Elements::Variable(texts.iter().map(|text| text.as_bytes()).collect());
        let differ = |a, b| first_difference(&DataType::String, &texts(a), &texts(b), None);
        assert_eq!(differ(&["a", "b"], &["a", "b"]), None);
        assert_eq!(differ(&["a", "b"], &["a", "c"]), Some(1));
    }

    #[test]
    fn converted_times_are_compared_by_time() {
        let attributes = serde_json::json!({ "units": "days since 2000-01-01" });
        let units = TimeUnits::new(&DataType::Float64, attributes.as_object().unwrap());
        let units = units.unwrap().unwrap();
        let of = |value: f64| Elements::Fixed(value.to_le_bytes().to_vec());
        let differ =
            |a, b| first_difference(&DataType::Float64, &of(a), &of(b), Some(&units)).is_some();
        assert!(!differ(36_500.1, 36_500.100_000_000_006));
        assert!(differ(36_500.1, 36_500.100_1));
    }
}
