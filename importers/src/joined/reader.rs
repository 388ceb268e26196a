//! Boxes of joined variables, read from the files they touch.
//!
//! Of all files only a few are open at a time, the last ones used. A file that is opened again must
//! still hold what it held when it was looked at first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use array::{DataType, Elements, Region, VariableElements, shape};
use compute::cf::time::TimeUnits;
use serde_json::{Map, Value};

use super::Member;
use crate::Error;
use crate::source::{Grows, Reader, Source, Variable};

/// Most files open at once: half of what xarray has.
const MAX_OPEN: usize = 64;
/// Most variables of open files that were read: the HDF5 library keeps up to 1 MiB of chunks for
/// each until its file is closed.
const MAX_OPEN_VARIABLES: usize = 128;

/// The files, opened when they are read.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    open: Mutex<Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    member: usize,
    source: Source,
    /// Variables that were read.
    read: BTreeSet<String>,
}

impl Members {
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self {
            members,
            open: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// What file `nth` is called.
    pub(super) fn name(&self, nth: usize) -> &str {
        &self.members[nth].name
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// File `nth`, about to be read for the variable at `path`.
    pub(super) fn source(&self, nth: usize, path: Option<&str>) -> Result<Source, Error> {
        let known = {
            let mut open = self.open();
            let at = open.iter().position(|open| open.member == nth);
            at.map(|at| open.remove(at))
        };
        let mut used = match known {
            Some(open) => open,
            // Opened without the lock: another thread may open the same file too, which is harmless.
            None => Open {
                member: nth,
                source: (self.members[nth].open)()?,
                read: BTreeSet::new(),
            },
        };
        used.read.extend(path.map(str::to_owned));
        let source = used.source.clone();
        let mut open = self.open();
        open.push(used);
        let variables = |open: &[Open]| open.iter().map(|open| open.read.len()).sum::<usize>();
        while open.len() > 1 && (open.len() > MAX_OPEN || variables(&open) > MAX_OPEN_VARIABLES) {
            open.remove(0);
        }
        Ok(source)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.open().len()
    }
}

/// How a variable's times become those of other units.
#[derive(Debug)]
pub(super) struct Recode {
    pub(super) from: TimeUnits,
    pub(super) to: TimeUnits,
    /// What names missing values.
    pub(super) attributes: Map<String, Value>,
    /// Both units, for messages.
    pub(super) said: String,
}

/// Where the parts of a joined variable are.
#[derive(Debug)]
pub(super) enum Parts {
    /// All of it in the first file.
    Same,
    /// One after the other along a dimension: where each begins, and the end.
    Along(usize, Arc<[u64]>),
    /// One at each position of a new first dimension.
    New,
    /// In no file.
    Made(Elements),
    /// Nowhere: it is left out.
    Skipped,
}

/// A variable of the joined source.
#[derive(Debug)]
pub(super) struct JoinedVariable {
    /// Names of its group.
    pub(super) group: Vec<String>,
    pub(super) name: String,
    /// Path in its file, for messages.
    pub(super) path: String,
    pub(super) data_type: DataType,
    /// In the first file.
    pub(super) shape: Vec<u64>,
    pub(super) parts: Parts,
    /// By file, where times are stored otherwise.
    pub(super) recodes: BTreeMap<usize, Recode>,
}

/// Reads joined variables.
#[derive(Debug)]
pub(super) struct JoinedReader {
    pub(super) members: Members,
    pub(super) variables: Vec<JoinedVariable>,
    pub(super) format: &'static str,
}

impl JoinedVariable {
    /// Its shape in file `nth`.
    fn shape_in(&self, nth: usize) -> Vec<u64> {
        let mut shape = self.shape.clone();
        if let Parts::Along(axis, starts) = &self.parts {
            shape[*axis] = starts[nth + 1] - starts[nth];
        }
        shape
    }

    /// Reads a box of it from file `nth`.
    pub(super) fn read(
        &self,
        members: &Members,
        nth: usize,
        region: &Region,
    ) -> Result<Elements, Error> {
        self.read_with(members, nth, region, self.recodes.get(&nth))
    }

    /// The same with this conversion of times.
    pub(super) fn read_with(
        &self,
        members: &Members,
        nth: usize,
        region: &Region,
        recode: Option<&Recode>,
    ) -> Result<Elements, Error> {
        let source = members.source(nth, Some(&self.path))?;
        let group = source
            .groups()
            .iter()
            .find(|group| group.path == self.group);
        let variable = group.and_then(|group| {
            let mut variables = group.variables.iter();
            variables.find(|variable| variable.name == self.name)
        });
        let variable = variable.filter(|variable| {
            variable.data_type == self.data_type && variable.shape == self.shape_in(nth)
        });
        let misfit = |reason: String| Error::Misfit {
            file: members.name(nth).to_owned(),
            reason,
        };
        let Some(variable) = variable else {
            return Err(misfit(format!(
                "variable {} changed while it was imported",
                self.path
            )));
        };
        let mut elements = source.read(variable, region)?;
        if let (Some(recode), Elements::Fixed(bytes)) = (recode, &mut elements) {
            recode
                .from
                .recode(&recode.to, &self.data_type, &recode.attributes, bytes)
                .map_err(|inexact| {
                    misfit(format!(
                        "variable {}: {inexact} ({}); store the times of all files alike first",
                        self.path, recode.said
                    ))
                })?;
        }
        Ok(elements)
    }
}

impl Reader for JoinedReader {
    fn format(&self) -> &'static str {
        self.format
    }

    fn grows(&self, variable: &Variable) -> Option<Grows> {
        let joined = self.variables.get(variable.handle)?;
        match joined.parts {
            Parts::Along(axis, _) => Some(Grows::Surely(axis)),
            _ => None,
        }
    }

    fn read(&self, variable: &Variable, region: &Region) -> Result<Elements, Error> {
        let missing = || Error::Worker {
            reason: format!("variable {} is left out but was read", variable.name),
        };
        let joined = self.variables.get(variable.handle).ok_or_else(missing)?;
        let (axis, starts) = match &joined.parts {
            Parts::Skipped => return Err(missing()),
            Parts::Same => return joined.read(&self.members, 0, region),
            Parts::Made(elements) => return Ok(cut(elements, &joined.data_type, region)),
            Parts::New => (0, None),
            Parts::Along(axis, starts) => (*axis, Some(starts)),
        };
        let range = region.range(axis);
        // The files that the box meets, and the box of each.
        let first = match starts {
            None => range.start as usize,
            Some(starts) => starts.partition_point(|&start| start <= range.start) - 1,
        };
        let mut gathered = Gathered::new(&joined.data_type, region, axis)?;
        for nth in first..self.members.len() {
            let (start, end) = starts.map_or((nth as u64, nth as u64 + 1), |starts| {
                (starts[nth], starts[nth + 1])
            });
            if start >= range.end {
                break;
            }
            let (from, to) = (start.max(range.start), end.min(range.end));
            if from >= to {
                continue;
            }
            let mut corner = region.start().to_vec();
            let mut lengths = region.shape().to_vec();
            if starts.is_some() {
                (corner[axis], lengths[axis]) = (from - start, to - from);
            } else {
                corner.remove(0);
                lengths.remove(0);
            }
            let part = joined.read(&self.members, nth, &Region::new(corner, lengths)?)?;
            if from == range.start && to == range.end {
                return Ok(part);
            }
            gathered.put(part, from - range.start, to - from);
        }
        Ok(gathered.finish())
    }
}

/// Elements of a box that come part by part along one dimension.
struct Gathered {
    /// How many boxes of the dimensions before it there are.
    outer: usize,
    /// Length along it.
    length: usize,
    /// Elements of the dimensions after it.
    inner: usize,
    into: Into,
}

enum Into {
    Fixed {
        bytes: Vec<u8>,
        size: usize,
    },
    /// Lengths along the dimension, and the elements.
    Variable(Vec<(u64, VariableElements)>),
}

impl Gathered {
    fn new(data_type: &DataType, region: &Region, axis: usize) -> Result<Self, Error> {
        let lengths = region.shape();
        let into = match data_type.size_bytes() {
            None => Into::Variable(Vec::new()),
            Some(size) => {
                let mut bytes = Vec::new();
                let length = shape::size_bytes(lengths, data_type)?;
                bytes
                    .try_reserve_exact(length)
                    .map_err(|_| array::Error::TooLarge { what: "a block" })?;
                bytes.resize(length, 0);
                Into::Fixed { bytes, size }
            }
        };
        Ok(Self {
            outer: shape::elements(&lengths[..axis])? as usize,
            length: lengths[axis] as usize,
            inner: shape::elements(&lengths[axis + 1..])? as usize,
            into,
        })
    }

    /// Puts a part that begins at `at` along the dimension.
    fn put(&mut self, part: Elements, at: u64, length: u64) {
        match (&mut self.into, part) {
            (Into::Fixed { bytes, size }, Elements::Fixed(part)) => {
                let row = self.inner * *size;
                let (from, to) = (length as usize * row, self.length * row);
                if from == 0 {
                    return;
                }
                let begin = at as usize * row;
                for (outer, part) in part.chunks_exact(from).take(self.outer).enumerate() {
                    let begin = outer * to + begin;
                    bytes[begin..begin + from].copy_from_slice(part);
                }
            }
            (Into::Variable(parts), Elements::Variable(part)) => parts.push((length, part)),
            // A file's variable was checked to be of the type.
            _ => {}
        }
    }

    fn finish(self) -> Elements {
        let parts = match self.into {
            Into::Fixed { bytes, .. } => return Elements::Fixed(bytes),
            Into::Variable(parts) => parts,
        };
        let mut texts: Vec<&[u8]> = Vec::new();
        for outer in 0..self.outer {
            // Parts come in the order of the dimension.
            for (length, part) in &parts {
                let count = *length as usize * self.inner;
                let place = outer * count;
                texts.extend((place..place + count).map(|at| part.get(at).unwrap_or_default()));
            }
        }
        Elements::Variable(texts.into_iter().collect())
    }
}

/// The elements of a range of a one-dimensional array.
fn cut(elements: &Elements, data_type: &DataType, region: &Region) -> Elements {
    let range = region.range(0);
    let (start, end) = (range.start as usize, range.end as usize);
    match elements {
        Elements::Fixed(bytes) => {
            let size = data_type.size_bytes().unwrap_or(1);
            Elements::Fixed(bytes[start * size..end * size].to_vec())
        }
        Elements::Variable(texts) => {
            let texts = (start..end).map(|at| texts.get(at).unwrap_or_default());
            Elements::Variable(texts.collect())
        }
    }
}
