//! Many files as one source: one after the other along a dimension, or stacked along a new one.
//!
//! ```text
//! files ─► each opened once, compared with the first (or with the repository's arrays)
//!       └► a source whose boxes are read from the files they touch, few of them open at a time
//! ```
//!
//! The rules are those of `xarray.concat(…, data_vars, coords="minimal", compat="equals",
//! combine_attrs="override")` over files opened with `decode_coords="all"`: variables with the
//! dimension are joined, with a new dimension all data variables are; what is not joined must be
//! equal in all files; attributes are those of the first. Beyond xarray, files whose values are
//! stored in different ways do not go together, but for times of one calendar, which are converted
//! to the units of the first; and a coordinate must be strictly monotonic over all files.

mod model;
mod new_dim;
mod order;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use array::{ArrayMetadata, Elements, Region, shape};
use compute::cf::time::TimeUnits;
use serde_json::{Map, Value};

use self::model::{Differences, Kind, Model};
use self::reader::{JoinedReader, JoinedVariable, Members, Parts};
use crate::Error;
use crate::skip::{Skip, source_path};
use crate::source::{Group, Source, Variable};

pub(crate) use self::model::first_difference;
pub use self::new_dim::{Labels, NewDim};
pub(crate) use self::order::{Sequence, is_ordered, numbers};

/// Most files of one source: all their lengths are in memory.
pub const MAX_MEMBERS: usize = 100_000;
/// Elements of a variable that two files are compared in at once.
const COMPARED_ELEMENTS: u64 = 1 << 19;

/// One file of a joined source. Cloning is cheap.
#[derive(Clone)]
pub struct Member {
    name: String,
    open: Arc<dyn Fn() -> Result<Source, Error> + Send + Sync>,
}

impl Member {
    /// A file that messages call `name`. `open` is called whenever the file is to be read and is
    /// not open, so it must always give the same.
    pub fn new(
        name: String,
        open: impl Fn() -> Result<Source, Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            open: Arc::new(open),
        }
    }

    /// Local files, called by their names, or by their paths if two have the same name.
    pub fn of_paths(paths: &[PathBuf]) -> Vec<Self> {
        let name = |path: &Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let mut names: Vec<_> = paths.iter().map(|path| name(path)).collect();
        names.sort_unstable();
        let is_shared = names.windows(2).any(|pair| pair[0] == pair[1]);
        paths
            .iter()
            .map(|path| {
                let short = name(path).filter(|_| !is_shared);
                let path = path.clone();
                Self::new(
                    short.unwrap_or_else(|| path.display().to_string()),
                    move || Source::open(&path),
                )
            })
            .collect()
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.name).finish()
    }
}

/// How files follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As given, which must be the order of their coordinate.
    #[default]
    Given,
    /// By the first value of their coordinate.
    Sorted,
    /// As given, whatever their coordinate says.
    Unchecked,
}

/// How several files are joined. Plain data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinOptions {
    /// The dimension along which files follow each other and, with arrays that exist, what is
    /// there already.
    pub append: Option<String>,
    /// The new dimension along which files are stacked.
    pub new_dim: Option<NewDim>,
    /// How files follow each other.
    pub order: Order,
}

impl fmt::Display for Order {
    /// What [`Order::from_str`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "given",
            Self::Sorted => "sorted",
            Self::Unchecked => "unchecked",
        })
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "given" => Ok(Self::Given),
            "sorted" => Ok(Self::Sorted),
            "unchecked" => Ok(Self::Unchecked),
            other => Err(format!("{other:?} is none of given, sorted, unchecked")),
        }
    }
}

impl JoinOptions {
    /// Whether files are joined at all.
    pub fn is_any(&self) -> bool {
        self.append.is_some() || self.new_dim.is_some()
    }

    /// The join of `files` files; `None` for one file as it is.
    fn join(&self, files: usize) -> Result<Option<Join>, Error> {
        let option = |option, reason: String| Err(Error::Option { option, reason });
        match (&self.append, &self.new_dim) {
            (Some(append), Some(new)) if *append != new.name => option(
                "--append",
                format!(
                    "stacks of files are appended along their new dimension {:?}, not along \
                     {append:?}",
                    new.name
                ),
            ),
            (_, Some(new)) => Ok(Some(Join::New(new.name.clone()))),
            (Some(append), None) => Ok(Some(Join::Append(append.clone()))),
            (None, None) if files == 1 => Ok(None),
            (None, None) => option(
                "--append",
                format!(
                    "say how {files} files go together: --append DIM, one after the other along \
                     a dimension they have, or --new-dim NAME, stacked along a new one"
                ),
            ),
        }
    }
}

/// What is done with the files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Join {
    Append(String),
    New(String),
}

impl Join {
    fn dimension(&self) -> &str {
        match self {
            Self::Append(dimension) | Self::New(dimension) => dimension,
        }
    }

    fn option(&self) -> &'static str {
        match self {
            Self::Append(_) => "--append",
            Self::New(_) => "--new-dim",
        }
    }
}

/// Arrays that files are to fit, by path as in the files.
#[derive(Debug, Default)]
pub(crate) struct Template {
    /// The path of their group, from `/`.
    pub(crate) group: String,
    pub(crate) arrays: BTreeMap<String, ArrayMetadata>,
    pub(crate) groups: BTreeMap<String, Map<String, Value>>,
}

impl Template {
    /// An array in messages.
    fn shown(&self, path: &str) -> String {
        format!("{}/{path}", self.group.trim_end_matches('/'))
    }
}

/// Files as one source.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) source: Source,
    /// Names of the files, in order.
    pub(crate) files: Vec<String>,
    /// The dimension they are joined along.
    pub(crate) dimension: Option<String>,
    /// Attributes that are not the same in all files: `attribute`, `file` and `value` of each.
    pub(crate) differences: Vec<Value>,
    /// How many more there are.
    pub(crate) other_differences: u64,
    /// How the times of variables are stored, by path.
    pub(crate) units: BTreeMap<String, TimeUnits>,
}

impl Source {
    /// Many files as one; see [`JoinOptions`]. Variables and attributes named by `skip` are not
    /// compared. Blocks.
    ///
    /// # Errors
    /// [`Error::Misfit`] for the first file that does not fit, naming file and variable;
    /// [`Error::Option`] for options that do not fit the files; else as [`Source::open`].
    pub fn joined(
        members: Vec<Member>,
        options: &JoinOptions,
        skip: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        join(members, options, skip, None).map(|joined| joined.source)
    }
}

/// Joins files that are like the first of them or, with a template, like that.
///
/// # Errors
/// As [`Source::joined`].
pub(crate) fn join(
    mut members: Vec<Member>,
    options: &JoinOptions,
    skip: &BTreeSet<String>,
    template: Option<&Template>,
) -> Result<Joined, Error> {
    let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect();
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(Error::Option {
            option: "SOURCE",
            reason: format!(
                "{} files, from 1 to {MAX_MEMBERS} can be imported",
                members.len()
            ),
        });
    }
    let skip = Skip::unchecked(skip);
    let Some(join) = options.join(members.len())? else {
        return Ok(Joined {
            source: (members[0].open)()?,
            files: names(&members),
            dimension: None,
            differences: Vec::new(),
            other_differences: 0,
            units: BTreeMap::new(),
        });
    };
    if options.order == Order::Sorted {
        members = sorted(members, &join)?;
    }
    let files: Vec<String> = names(&members);
    let members = Members::new(members);
    let first = members.source(0, None)?;
    let own = Model::of_source(&first, &files[0], &join, &skip)?;
    let model = match template {
        Some(template) => Model::of_template(template, &own, &files[0])?,
        None => own,
    };
    let labels = match (&options.new_dim, &join) {
        (
            Some(NewDim {
                labels: Some(labels),
                ..
            }),
            Join::New(name),
        ) => {
            if model.variables.contains_key(name) {
                return Err(Error::Option {
                    option: "--new-dim",
                    reason: format!("the files have a variable {name}, which is the coordinate"),
                });
            }
            Some(labels.coordinate(&files)?)
        }
        _ => None,
    };
    let mut joining = Joining {
        skip: &skip,
        checks_order: options.order != Order::Unchecked && matches!(join, Join::Append(_)),
        model,
        members,
        variables: BTreeMap::new(),
        groups: Vec::new(),
        sequences: BTreeMap::new(),
        differences: Differences::default(),
        formats: Vec::new(),
    };
    for nth in 0..files.len() {
        joining.take(nth)?;
    }
    if let (Some(template), Join::New(name)) = (template, &join) {
        check_labels(
            template,
            name,
            labels.as_ref().map(|(data_type, _)| data_type),
            &joining,
        )?;
    }
    Ok(joining.finish(files, &join, labels))
}

/// A coordinate of the new dimension is there on both sides, of one type, or on neither.
fn check_labels(
    template: &Template,
    name: &str,
    labels: Option<&array::DataType>,
    joining: &Joining<'_>,
) -> Result<(), Error> {
    let there = template.arrays.get(name).map(|array| &array.data_type);
    if joining.model.variables.contains_key(name) || there == labels {
        return Ok(());
    }
    let reason = match (there, labels) {
        (Some(data_type), None) => format!(
            "{} has values of type {data_type}: say those of the files, {name}=VALUE,…",
            template.shown(name)
        ),
        (None, _) => format!("{} is not there: give no values", template.shown(name)),
        (Some(data_type), Some(labels)) => format!(
            "{} is of type {data_type}, the values are of type {labels}",
            template.shown(name)
        ),
    };
    Err(Error::Option {
        option: "--new-dim",
        reason,
    })
}

/// Files being joined, one after the other.
struct Joining<'a> {
    skip: &'a Skip,
    checks_order: bool,
    model: Model,
    members: Members,
    /// By path: as in the first file, and what is known of it.
    variables: BTreeMap<String, Collected>,
    /// Those of the first file; of others, what is left out or refused.
    groups: Vec<Group>,
    sequences: BTreeMap<String, Sequence>,
    differences: Differences,
    formats: Vec<&'static str>,
}

/// A variable of all files so far.
struct Collected {
    joined: JoinedVariable,
    /// Where each file begins along the dimension, and the end.
    starts: Vec<u64>,
}

impl Joining<'_> {
    /// Compares file `nth` with the model and takes it in.
    fn take(&mut self, nth: usize) -> Result<(), Error> {
        let source = self.members.source(nth, None)?;
        let file = self.members.name(nth).to_owned();
        let fits = self
            .model
            .fit(&source, &file, self.skip, &mut self.differences)?;
        self.note_groups(nth, &source);
        if !self.formats.contains(&source.format()) {
            self.formats.push(source.format());
        }
        for (path, (length, recode)) in fits {
            let Some(collected) = self.variables.get_mut(&path) else {
                continue;
            };
            let end = collected.starts.last().copied().unwrap_or(0);
            let end = end.checked_add(length).ok_or(array::Error::TooLarge {
                what: "joined dimension",
            })?;
            collected.starts.push(end);
            if let Some(recode) = recode {
                collected.joined.recodes.insert(nth, recode);
            }
            let wanted = &self.model.variables[&path];
            match wanted.kind {
                Kind::Same if nth > 0 => self.compare(nth, &path)?,
                Kind::Along(_) if self.checks_order => self.see(nth, &path)?,
                Kind::Same | Kind::Along(_) | Kind::New => {}
            }
        }
        Ok(())
    }

    /// Takes over the groups of the first file, and from others what is refused or left out, so
    /// that it is known by name.
    fn note_groups(&mut self, nth: usize, source: &Source) {
        if nth == 0 {
            self.groups = source.groups().to_vec();
            for group in &self.groups {
                for variable in &group.variables {
                    let path = source_path(&group.path, &variable.name);
                    if self.skip.has(&path) {
                        continue;
                    }
                    let joined = JoinedVariable {
                        group: group.path.clone(),
                        name: variable.name.clone(),
                        path: path.clone(),
                        data_type: variable.data_type.clone(),
                        shape: variable.shape.clone(),
                        parts: Parts::Same,
                        recodes: BTreeMap::new(),
                    };
                    let starts = vec![0];
                    self.variables.insert(path, Collected { joined, starts });
                }
            }
            return;
        }
        for (own, other) in self.groups.iter_mut().zip(source.groups()) {
            if own.path != other.path {
                continue;
            }
            for refused in &other.refused {
                if own.refused.iter().all(|known| known.name != refused.name) {
                    let mut refused = refused.clone();
                    refused.reason = format!("{} (in {})", refused.reason, self.members.name(nth));
                    own.refused.push(refused);
                }
            }
            let group_path = own.path.join("/");
            for (name, value) in &other.attributes {
                let is_new = own.attributes.iter().all(|(known, _)| known != name);
                if is_new && self.skip.has_attribute(&group_path, name) {
                    own.attributes.push((name.clone(), value.clone()));
                }
            }
            for variable in &other.variables {
                let path = source_path(&own.path, &variable.name);
                let known = own
                    .variables
                    .iter_mut()
                    .find(|known| known.name == variable.name);
                match known {
                    None => {
                        // Anything but what is left out was refused.
                        own.variables.push(variable.clone());
                    }
                    Some(known) => {
                        for (name, value) in &variable.attributes {
                            let is_new = known.attributes.iter().all(|(known, _)| known != name);
                            if is_new && self.skip.has_attribute(&path, name) {
                                known.attributes.push((name.clone(), value.clone()));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Compares a variable that is not joined with that of the first file.
    fn compare(&self, nth: usize, path: &str) -> Result<(), Error> {
        let joined = &self.variables[path].joined;
        let units = match joined.recodes.is_empty() {
            true => None,
            false => self.model.variables[path].units.as_ref(),
        };
        for region in blocks(&joined.shape, COMPARED_ELEMENTS)? {
            let own = joined.read(&self.members, nth, &region)?;
            let other = joined.read(&self.members, 0, &region)?;
            if let Some(at) = first_difference(&joined.data_type, &own, &other, units) {
                let place = shape::coordinate(at as u64, region.shape());
                let place = place.iter().zip(region.start()).map(|(a, b)| a + b);
                return Err(Error::Misfit {
                    file: self.members.name(nth).to_owned(),
                    reason: format!(
                        "variable {path} has other values than in {} (the first at {:?}), and is \
                         not joined; leave it out with --skip {path}",
                        self.members.name(0),
                        place.collect::<Vec<u64>>()
                    ),
                });
            }
        }
        Ok(())
    }

    /// Checks the order of the coordinate at `path`, if it is one.
    fn see(&mut self, nth: usize, path: &str) -> Result<(), Error> {
        let collected = &self.variables[path];
        let joined = &collected.joined;
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_coordinate = joined.shape.len() == 1
            && self.model.variables[path].is_coordinate(name)
            && is_ordered(&joined.data_type);
        if !is_coordinate {
            return Ok(());
        }
        let units = self.model.variables[path].units.clone();
        let sequence = self
            .sequences
            .entry(path.to_owned())
            .or_insert_with(|| Sequence::new(path.to_owned(), units));
        let length = match collected.starts.as_slice() {
            [.., start, end] => end - start,
            _ => 0,
        };
        // The variable is read with the length it has in this file.
        let file = self.members.name(nth).to_owned();
        let at = JoinedVariable {
            group: joined.group.clone(),
            name: joined.name.clone(),
            path: joined.path.clone(),
            data_type: joined.data_type.clone(),
            shape: vec![length],
            parts: Parts::Same,
            recodes: BTreeMap::new(),
        };
        let recode = joined.recodes.get(&nth);
        for region in blocks(&[length], order::BLOCK)? {
            let elements = at.read_with(&self.members, nth, &region, recode)?;
            sequence.see(&file, &numbers(&joined.data_type, &elements))?;
        }
        Ok(())
    }

    /// The joined source.
    fn finish(
        self,
        files: Vec<String>,
        join: &Join,
        labels: Option<(array::DataType, Elements)>,
    ) -> Joined {
        let count = files.len() as u64;
        let mut known: BTreeMap<Vec<u64>, Arc<[u64]>> = BTreeMap::new();
        let mut variables: Vec<JoinedVariable> = Vec::new();
        let mut units = BTreeMap::new();
        let mut groups = self.groups;
        let mut collected = self.variables;
        for group in &mut groups {
            for variable in &mut group.variables {
                let path = source_path(&group.path, &variable.name);
                let handle = variables.len();
                variable.handle = handle;
                let (Some(Collected { mut joined, starts }), Some(wanted)) =
                    (collected.remove(&path), self.model.variables.get(&path))
                else {
                    variables.push(JoinedVariable {
                        group: group.path.clone(),
                        name: variable.name.clone(),
                        path,
                        data_type: variable.data_type.clone(),
                        shape: variable.shape.clone(),
                        parts: Parts::Skipped,
                        recodes: BTreeMap::new(),
                    });
                    continue;
                };
                if let Some(own) = &wanted.units {
                    units.insert(path.clone(), own.clone());
                }
                joined.parts = match wanted.kind {
                    Kind::Same => Parts::Same,
                    Kind::Along(axis) => {
                        variable.shape[axis] = starts.last().copied().unwrap_or(0);
                        let starts = known
                            .entry(starts)
                            .or_insert_with_key(|starts| starts.as_slice().into());
                        Parts::Along(axis, starts.clone())
                    }
                    Kind::New => {
                        variable.dimensions.insert(0, join.dimension().to_owned());
                        variable.shape.insert(0, count);
                        if let Some(chunk) = &mut variable.chunk_shape {
                            chunk.insert(0, 1);
                        }
                        Parts::New
                    }
                };
                variables.push(joined);
            }
        }
        if let (Some((data_type, elements)), Some(root)) = (labels, groups.first_mut()) {
            let name = join.dimension().to_owned();
            root.variables.push(Variable {
                name: name.clone(),
                dimensions: vec![name.clone()],
                shape: vec![count],
                data_type: data_type.clone(),
                attributes: Vec::new(),
                chunk_shape: None,
                handle: variables.len(),
            });
            variables.push(JoinedVariable {
                group: Vec::new(),
                name: name.clone(),
                path: name,
                data_type,
                shape: vec![count],
                parts: Parts::Made(elements),
                recodes: BTreeMap::new(),
            });
        }
        let reader = JoinedReader {
            members: self.members,
            variables,
            format: match self.formats.as_slice() {
                [one] => one,
                _ => "several formats",
            },
        };
        Joined {
            source: Source::new(groups, reader),
            files,
            dimension: Some(join.dimension().to_owned()),
            differences: self.differences.listed,
            other_differences: self.differences.others,
            units,
        }
    }
}

/// Boxes of at most about `elements` elements that cover `shape`, in C order.
pub(crate) fn blocks(
    shape: &[u64],
    elements: u64,
) -> Result<impl Iterator<Item = Region>, array::Error> {
    let mut lengths = shape.to_vec();
    for axis in 0..lengths.len() {
        let inner = shape::elements(&lengths[axis + 1..])?.max(1);
        lengths[axis] = (elements / inner).clamp(1, lengths[axis].max(1));
        if inner <= elements {
            break;
        }
    }
    let whole = Region::whole(shape);
    let counts = shape
        .iter()
        .zip(&lengths)
        .map(|(all, one)| all.div_ceil(*one));
    let counts: Vec<u64> = counts.collect();
    Ok(Region::whole(&counts).positions().filter_map(move |at| {
        let start = at.iter().zip(&lengths).map(|(at, length)| at * length);
        let block = Region::new(start.collect(), lengths.clone()).ok()?;
        Some(block.intersect(&whole))
    }))
}

/// The files by the first value of their coordinate.
fn sorted(members: Vec<Member>, join: &Join) -> Result<Vec<Member>, Error> {
    let option = |reason: String| Error::Option {
        option: "--sort",
        reason,
    };
    let Join::Append(dimension) = join else {
        return Err(option(
            "files stacked along a new dimension have no order".into(),
        ));
    };
    let mut keyed = Vec::with_capacity(members.len());
    let mut descending = 0usize;
    for member in members {
        let source = (member.open)()?;
        let (first, last) = ends(&source, dimension)?.ok_or_else(|| {
            option(format!(
                "{} has no coordinate {dimension:?} to sort by",
                member.name
            ))
        })?;
        descending += usize::from(last < first);
        keyed.push((first, member));
    }
    keyed.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    if descending * 2 > keyed.len() {
        keyed.reverse();
    }
    Ok(keyed.into_iter().map(|(_, member)| member).collect())
}

/// The first and last value of the first coordinate called `dimension`, times as instants.
fn ends(source: &Source, dimension: &str) -> Result<Option<(f64, f64)>, Error> {
    for group in source.groups() {
        for variable in &group.variables {
            let is_coordinate = variable.name == dimension
                && variable.dimensions == [dimension]
                && is_ordered(&variable.data_type);
            let Some(end) = variable
                .shape
                .first()
                .and_then(|length| length.checked_sub(1))
            else {
                continue;
            };
            if !is_coordinate {
                continue;
            }
            let attributes = crate::zarr::attributes(&variable.attributes);
            let units = TimeUnits::new(&variable.data_type, &attributes)
                .ok()
                .flatten();
            let value = |at: u64| -> Result<f64, Error> {
                let region = Region::new(vec![at], vec![1])?;
                let read = numbers(&variable.data_type, &source.read(variable, &region)?);
                Ok(read
                    .first()
                    .map_or(f64::NAN, |number| number.instant(units.as_ref())))
            };
            return Ok(Some((value(0)?, value(end)?)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
