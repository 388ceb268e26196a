//! Arrays as the columns of a table: a row for each cell of the one with the most dimensions.
//!
//! ```text
//! dimensions of the widest array ─► a column each: its coordinate, else positions from 0
//! every other array              ─► a column, repeated over the dimensions it lacks
//! ```
//!
//! Columns over one dimension without a coordinate get no column of positions: they are a table as
//! it is. Rows come in runs, so memory is bounded.

use array::{DataType, Elements, Region, Tensor, TimeUnit};
use compute::cf::Decode;
use compute::cf::time::TimeUnits;
use compute::labels::Coordinate;
use query::Engine;

use super::view::{Runs, View, ViewedArray};
use crate::Error;

/// Bytes of the cells of a run, about.
const RUN_BYTES: u64 = 32 << 20;
/// Rows of a run at most.
const RUN_ROWS_MAX: u64 = 1 << 20;
/// Attoseconds in a microsecond.
const MICROSECOND: i128 = 1_000_000_000_000;

/// A table to write.
pub(super) struct Table<'a> {
    pub(super) columns: Vec<Column<'a>>,
    shape: Vec<u64>,
    inner: Vec<u64>,
}

/// A column of a table.
pub(super) struct Column<'a> {
    pub(super) name: String,
    pub(super) kind: Kind,
    source: Source<'a>,
}

enum Source<'a> {
    /// Positions along this dimension of the table.
    Positions(usize),
    /// An array, whose dimensions are these of the table.
    Array(&'a ViewedArray, Vec<usize>),
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Elements of this type.
    Elements(DataType),
    /// Instants, in microseconds since 1970.
    Instants,
    /// Text.
    Texts,
}

/// The cells of a column in a run.
pub(super) enum Cells {
    Elements(Elements),
    Instants(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl<'a> Table<'a> {
    /// The table of everything in `view`. `format` is what messages call the file.
    ///
    /// # Errors
    /// [`Error::NoPlace`] for an array that does not share the dimensions of the others.
    pub(super) fn new(view: &'a View, format: &'static str) -> Result<Self, Error> {
        let mut widest: Option<&ViewedArray> = None;
        for array in view.arrays() {
            if widest.is_none_or(|known| array.shape().len() > known.shape().len()) {
                widest = Some(array);
            }
        }
        let widest = widest.ok_or_else(|| Error::Option {
            option: "--format",
            reason: format!("there is no array here to write to {format}"),
        })?;
        let (dimensions, shape) = (widest.dimensions(), widest.shape());
        let mut columns: Vec<Column<'_>> = Vec::new();
        let mut coordinates: Vec<&str> = Vec::new();
        for (axis, dimension) in dimensions.iter().enumerate() {
            let own = dimension.as_ref().and_then(|name| {
                let is_own = |array: &&ViewedArray| {
                    array.name() == name
                        && array.dimensions() == [Some(name.clone())]
                        && array.shape() == shape[axis..=axis]
                };
                view.arrays().find(is_own)
            });
            let is_repeated = dimensions[..axis].contains(dimension);
            match own.filter(|_| !is_repeated) {
                Some(array) => {
                    coordinates.push(&array.below);
                    columns.push(Column::of(array, vec![axis]));
                }
                None if dimensions.len() > 1 => columns.push(Column {
                    name: match dimension {
                        Some(name) if !is_repeated => name.clone(),
                        _ => format!("dim_{axis}"),
                    },
                    kind: Kind::Elements(DataType::Int64),
                    source: Source::Positions(axis),
                }),
                None => {}
            }
        }
        for array in view.arrays() {
            if coordinates.contains(&array.below.as_str()) {
                continue;
            }
            let places = places(array, &dimensions, &shape).ok_or_else(|| Error::NoPlace {
                format,
                array: array.path(),
                reason: format!(
                    "it does not share its dimensions with {}, as columns of a table must: choose arrays with --vars",
                    widest.path()
                ),
            })?;
            columns.push(Column::of(array, places));
        }
        for at in 0..columns.len() {
            let (before, column) = columns.split_at_mut(at);
            if before.iter().any(|known| known.name == column[0].name) {
                column[0].name = format!("{}_{at}", column[0].name);
            }
        }
        Ok(Self {
            columns,
            inner: widest.inner_shape(),
            shape,
        })
    }

    /// Bytes of all cells, as rows repeat them.
    pub(super) fn bytes(&self) -> u64 {
        let multiply = |bytes: u64, length: &u64| bytes.saturating_mul(*length);
        self.shape.iter().fold(self.row_bytes(), multiply)
    }

    fn row_bytes(&self) -> u64 {
        let sizes = self.columns.iter().map(|column| match column.source {
            Source::Positions(_) => 8,
            Source::Array(array, _) => array.cell_bytes().max(8),
        });
        sizes.sum::<u64>().max(1)
    }

    /// Runs of rows.
    ///
    /// # Errors
    /// [`Error::Array`] if there are 2^64 rows or more.
    pub(super) fn runs(&self) -> Result<Runs, Error> {
        array::shape::elements(&self.shape)?;
        let most = (RUN_BYTES / self.row_bytes()).clamp(1, RUN_ROWS_MAX);
        Ok(Runs::new(&self.shape, &self.inner, most))
    }
}

/// The dimension of the table that each of an array's is; `None` if one is none.
fn places(array: &ViewedArray, dimensions: &[Option<String>], shape: &[u64]) -> Option<Vec<usize>> {
    let (own, lengths) = (array.dimensions(), array.shape());
    // The array itself, whose dimensions need no names.
    if own == dimensions && lengths == shape {
        return Some((0..shape.len()).collect());
    }
    let mut places = Vec::new();
    for (name, length) in own.iter().zip(&lengths) {
        name.as_ref()?;
        let mut found = (0..dimensions.len())
            .filter(|&at| dimensions[at] == *name && shape[at] == *length && !places.contains(&at));
        let place = found.next()?;
        places.push(place);
    }
    Some(places)
}

impl<'a> Column<'a> {
    fn of(array: &'a ViewedArray, places: Vec<usize>) -> Self {
        Self {
            name: array.below.clone(),
            kind: kind(array),
            source: Source::Array(array, places),
        }
    }

    /// The cells of the rows in `run`, and what messages call the array.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub(super) async fn cells(&self, engine: &Engine, run: &Region) -> Result<Cells, Error> {
        let (array, places) = match &self.source {
            Source::Positions(axis) => {
                let positions = rows(run, &[*axis]).map(|at| run.start()[*axis] + at);
                let bytes = positions.flat_map(u64::to_le_bytes).collect();
                return Ok(Cells::Elements(Elements::Fixed(bytes)));
            }
            Source::Array(array, places) => (array, places),
        };
        let start = places.iter().map(|&place| run.start()[place]).collect();
        let shape = places.iter().map(|&place| run.shape()[place]).collect();
        let tensor = array.read(engine, &Region::new(start, shape)?).await?;
        let is_whole = places.iter().copied().eq(0..run.shape().len());
        let rows: Option<Vec<u64>> = (!is_whole).then(|| rows(run, places).collect());
        Ok(match &self.kind {
            Kind::Elements(_) => Cells::Elements(match rows {
                None => tensor.elements,
                Some(rows) => picked(&tensor, &rows),
            }),
            Kind::Instants => Cells::Instants(spread(instants(array, &tensor)?, rows)),
            Kind::Texts => Cells::Texts(spread(labels(array, tensor)?, rows)),
        })
    }

    /// What messages call where its cells are from.
    pub(super) fn path(&self) -> String {
        match self.source {
            Source::Positions(_) => self.name.clone(),
            Source::Array(array, _) => array.path(),
        }
    }
}

fn kind(array: &ViewedArray) -> Kind {
    let is_number = array.data_type.is_integer() || array.data_type.is_float();
    let units = match array.decode {
        Decode::Raw => None,
        _ => TimeUnits::new(&array.data_type, &array.attributes)
            .ok()
            .flatten(),
    };
    match (units, &array.data_type) {
        (Some(units), _) if is_number && units.calendar().is_real() => Kind::Instants,
        (Some(_), _) if is_number => Kind::Texts,
        (
            _,
            DataType::DateTime64 {
                unit: TimeUnit::Year | TimeUnit::Month,
                ..
            },
        ) => Kind::Texts,
        (_, data_type) => Kind::Elements(data_type.clone()),
    }
}

/// Of each row of a run, the place among the cells over these dimensions, in C order.
fn rows(run: &Region, places: &[usize]) -> impl Iterator<Item = u64> + use<> {
    let lengths = run.shape().to_vec();
    let mut strides = vec![0; lengths.len()];
    let mut stride = 1;
    for &place in places.iter().rev() {
        strides[place] = stride;
        stride *= lengths[place];
    }
    Region::whole(&lengths).positions().map(move |at| {
        at.iter()
            .zip(&strides)
            .map(|(at, stride)| at * stride)
            .sum()
    })
}

fn picked(tensor: &Tensor, rows: &[u64]) -> Elements {
    match &tensor.elements {
        Elements::Fixed(bytes) => {
            let size = tensor.data_type.size_bytes().unwrap_or(1).max(1);
            let mut out = Vec::with_capacity(rows.len() * size);
            for &row in rows {
                let at = row as usize * size;
                out.extend_from_slice(bytes.get(at..at + size).unwrap_or_default());
            }
            Elements::Fixed(out)
        }
        Elements::Variable(values) => {
            let values = rows
                .iter()
                .map(|&row| values.get(row as usize).unwrap_or_default());
            Elements::Variable(values.collect())
        }
    }
}

fn spread<T: Clone>(values: Vec<Option<T>>, rows: Option<Vec<u64>>) -> Vec<Option<T>> {
    match rows {
        None => values,
        Some(rows) => {
            let value = |row: u64| values.get(row as usize).cloned().flatten();
            rows.into_iter().map(value).collect()
        }
    }
}

/// Stored times as microseconds since 1970.
fn instants(array: &ViewedArray, tensor: &Tensor) -> Result<Vec<Option<i64>>, Error> {
    let units = TimeUnits::new(&array.data_type, &array.attributes)?;
    let Some(units) = units else {
        return Ok(Vec::new());
    };
    let out_of_range = || Error::NoPlace {
        format: "a table",
        array: array.path(),
        reason: "it holds a time too far from 1970 for microseconds: export with --decode raw"
            .into(),
    };
    let Elements::Fixed(bytes) = &tensor.elements else {
        return Ok(Vec::new());
    };
    let size = tensor.data_type.size_bytes().unwrap_or(8).max(1);
    let instant = |element: &[u8]| -> Result<Option<i64>, Error> {
        let instant = match number(&tensor.data_type, element) {
            Number::Integer(value) => units.decode_integer(value).map(Some),
            Number::Float(value) => units.decode_float(value),
        };
        let instant = instant.map_err(|_| out_of_range())?;
        instant
            .map(|instant| {
                i64::try_from(instant.div_euclid(MICROSECOND)).map_err(|_| out_of_range())
            })
            .transpose()
    };
    bytes.chunks_exact(size).map(instant).collect()
}

enum Number {
    Integer(i128),
    Float(f64),
}

fn number(data_type: &DataType, bytes: &[u8]) -> Number {
    fn wide<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    match data_type {
        DataType::Int8 => Number::Integer(i8::from_le_bytes(wide(bytes)).into()),
        DataType::Int16 => Number::Integer(i16::from_le_bytes(wide(bytes)).into()),
        DataType::Int32 => Number::Integer(i32::from_le_bytes(wide(bytes)).into()),
        DataType::Int64 => Number::Integer(i64::from_le_bytes(wide(bytes)).into()),
        DataType::UInt8 => Number::Integer(u8::from_le_bytes(wide(bytes)).into()),
        DataType::UInt16 => Number::Integer(u16::from_le_bytes(wide(bytes)).into()),
        DataType::UInt32 => Number::Integer(u32::from_le_bytes(wide(bytes)).into()),
        DataType::UInt64 => Number::Integer(u64::from_le_bytes(wide(bytes)).into()),
        DataType::Float16 => Number::Float(half::f16::from_le_bytes(wide(bytes)).to_f64()),
        DataType::BFloat16 => Number::Float(half::bf16::from_le_bytes(wide(bytes)).to_f64()),
        DataType::Float32 => Number::Float(f32::from_le_bytes(wide(bytes)).into()),
        _ => Number::Float(f64::from_le_bytes(wide(bytes))),
    }
}

/// Times of calendars that no table knows, as text.
fn labels(array: &ViewedArray, mut tensor: Tensor) -> Result<Vec<Option<String>>, Error> {
    let count = tensor.shape.iter().product::<u64>();
    tensor.shape = vec![count];
    let coordinate = Coordinate::new(array.name(), tensor, &array.attributes)?;
    let label = |at| coordinate.label(at).filter(|label| label != "missing");
    Ok((0..coordinate.len()).map(label).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_repeat_over_the_dimensions_a_column_lacks() {
        let run = Region::new(vec![4, 0, 0], vec![2, 3, 2]).unwrap();
        let of = |places: &[usize]| rows(&run, places).collect::<Vec<_>>();
        assert_eq!(of(&[0]), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(of(&[2]), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(of(&[]), [0; 12]);
        assert_eq!(of(&[0, 1, 2]), (0..12).collect::<Vec<_>>());
        // Dimensions in another order.
        assert_eq!(of(&[2, 0]), [0, 2, 0, 2, 0, 2, 1, 3, 1, 3, 1, 3]);
    }
}
