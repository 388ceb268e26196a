//! Groups of positions: by a part of a time, or by equal values.

use array::{DataType, Elements, Tensor, VariableElements};

use super::Coordinate;
use super::values::Values;
use crate::Error;
use crate::cf::time::Component;

/// Which group each position of a coordinate is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Name of the coordinate of groups: `month`, or that of the coordinate itself.
    pub name: String,
    /// The value of each group, ascending: `int64`, text, or of the coordinate's type.
    pub labels: Tensor,
    /// The group of each position; [`Groups::NONE`] where the value is missing.
    pub of: Vec<u32>,
}

impl Groups {
    /// Stands for no group.
    pub const NONE: u32 = u32::MAX;

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.labels.shape.first().map_or(0, |&count| count as usize)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Coordinate {
    /// The groups of equal values of a component of its times, as xarray's `groupby("time.month")`
    /// sorts them; of equal values if `component` is empty.
    ///
    /// # Errors
    /// [`Error::Label`] for an unknown component, for one of a coordinate that holds no times, for
    /// weeks of a calendar that has none, and for 2^32 - 1 positions or more.
    pub fn group(&self, component: &str) -> Result<Groups, Error> {
        if u32::try_from(self.len()).is_ok_and(|length| length < Groups::NONE) {
            if component.is_empty() {
                return Ok(self.group_values());
            }
            return self.group_component(component);
        }
        Err(self.fail("is too long to group".to_owned(), Vec::new()))
    }

    fn group_values(&self) -> Groups {
        let mut of = vec![Groups::NONE; self.len()];
        let mut firsts: Vec<usize> = Vec::new();
        for rank in 0..self.index.len() {
            let at = self.index.position(rank) as usize;
            let is_new = firsts
                .last()
                .is_none_or(|&first| self.values.compare(first, at).is_ne());
            if is_new {
                firsts.push(at);
            }
            of[at] = (firsts.len() - 1) as u32;
        }
        let elements = match &self.tensor.elements {
            Elements::Variable(texts) => {
                let texts: VariableElements =
                    firsts.iter().filter_map(|&at| texts.get(at)).collect();
                Elements::Variable(texts)
            }
            Elements::Fixed(bytes) => {
                let size = self.tensor.data_type.size_bytes().unwrap_or(1);
                let each = firsts
                    .iter()
                    .flat_map(|&at| &bytes[at * size..(at + 1) * size]);
                Elements::Fixed(each.copied().collect())
            }
        };
        Groups {
            name: self.name.clone(),
            labels: tensor(self.tensor.data_type.clone(), firsts.len(), elements),
            of,
        }
    }

    fn group_component(&self, name: &str) -> Result<Groups, Error> {
        let Values::Times {
            instants, calendar, ..
        } = &self.values
        else {
            let reason = format!("holds no times, so it has no {name:?}");
            return Err(self.fail(reason, Vec::new()));
        };
        let known = || Component::ALL.map(|(name, _)| name.to_owned()).to_vec();
        let component = Component::parse(name).ok_or_else(|| {
            let reason = format!(
                "has no {}, only {}",
                crate::cf::number::quoted(name),
                known().join(", ")
            );
            self.fail(reason, super::near::alike(name, known().into_iter()))
        })?;
        let mut values: Vec<Option<i64>> = Vec::with_capacity(instants.len());
        for (at, &instant) in instants.iter().enumerate() {
            values.push(if self.values.is_missing(at) {
                None
            } else {
                let value = component.of(*calendar, instant);
                let reason = || format!("has no weeks in the {} calendar", calendar.name());
                Some(value.ok_or_else(|| self.fail(reason(), Vec::new()))?)
            });
        }
        let mut labels: Vec<i64> = values.iter().copied().flatten().collect();
        labels.sort_unstable();
        labels.dedup();
        let group = |value: i64| labels.partition_point(|&label| label < value) as u32;
        let of = values
            .iter()
            .map(|value| value.map_or(Groups::NONE, group))
            .collect();
        let texts: Option<Vec<String>> = labels
            .iter()
            .map(|&label| component.text(*calendar, label))
            .collect();
        let labels = match texts.filter(|texts| !texts.is_empty()) {
            Some(texts) => {
                let elements: VariableElements = texts.iter().map(String::as_bytes).collect();
                tensor(DataType::String, texts.len(), Elements::Variable(elements))
            }
            None => {
                let bytes = labels
                    .iter()
                    .flat_map(|label| label.to_le_bytes())
                    .collect();
                tensor(DataType::Int64, labels.len(), Elements::Fixed(bytes))
            }
        };
        Ok(Groups {
            name: name.to_owned(),
            labels,
            of,
        })
    }
}

fn tensor(data_type: DataType, count: usize, elements: Elements) -> Tensor {
    Tensor {
        data_type,
        shape: vec![count as u64],
        elements,
    }
}
