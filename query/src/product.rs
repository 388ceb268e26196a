//! Products of two selections: of matrices, and of a tensor with a matrix along one of its axes.
//!
//! Both are read whole. What is computed is cut into parts of bounded work, so that other requests get
//! their turn on the pool, and one that is given up ends soon. Parts do not show in the result
//! ([`compute::product`]).

use std::ops::Range;
use std::sync::Arc;

use array::{DataType, Elements, ResolvedSelection, Tensor, shape};
use compute::cf::{CfDecoder, Decode};
use compute::lanes::{PANEL_BYTES, Vectors};
use compute::product;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::budget::Reservation;
use crate::devices::Devices;
use crate::engine::Engine;
use crate::{ArrayReader, Error};

/// Multiplications of one part, at most, unless a single cell takes more: some hundredths of a second.
const PART_WORK: u64 = 1 << 25;
/// Cells of one part, at most.
const PART_CELLS: u64 = 1 << 17;
/// Columns of one part, at most: a few panels share what is read for them.
const PART_COLUMNS: u64 = 192;

/// A factor: what of which array.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The array.
    pub array: ArrayReader,
    /// What of it.
    pub selection: ResolvedSelection,
}

/// Which vectors the second factor of a batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Matrix times matrix.
    Matrix,
    /// Along the last axis of a tensor: its rows times those of the matrix.
    Last,
    /// Along another axis: the rows of the matrix times the columns of each batch of the tensor.
    Inner,
}

/// Two factors that fit each other.
#[derive(Clone, Debug)]
pub struct Product {
    left: Factor,
    right: Factor,
    types: [DataType; 2],
    data_type: DataType,
    decode: Decode,
    kind: Kind,
    shape: Vec<u64>,
    extent: Extent,
}

/// The result as batches of matrices, and the length of the vectors that are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    batches: u64,
    rows: u64,
    columns: u64,
    length: u64,
}

impl Product {
    /// The product of matrices `left` and `right`, as NumPy's `matmul` of at most two dimensions;
    /// `along` an axis of `left`, the tensor whose vectors along it are multiplied by the matrix
    /// `right`, the axis staying where it is.
    ///
    /// # Errors
    /// [`compute::Error::Parameter`] named `with` or `axis` if the shapes do not fit;
    /// [`compute::Error::Undefined`] for types without a product; [`Error::Array`] for results of
    /// 2^64 elements and more.
    pub fn new(
        left: Factor,
        right: Factor,
        along: Option<usize>,
        decode: Decode,
    ) -> Result<Self, Error> {
        let (a, b) = (
            left.selection.output_shape(),
            right.selection.output_shape(),
        );
        let types = [type_of(&left, decode)?, type_of(&right, decode)?];
        let data_type = product::data_type(&types[0], &types[1])?;
        let (kind, shape, extent) = match along {
            None => matrices(&a, &b)?,
            Some(axis) => tensor(&a, &b, axis)?,
        };
        shape::elements(&shape)?;
        Ok(Self {
            left,
            right,
            types,
            data_type,
            decode,
            kind,
            shape,
            extent,
        })
    }

    /// Shape of the result.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Type of the result.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The second factor.
    pub fn right(&self) -> &Factor {
        &self.right
    }

    /// Computes a part; `left` and `right` are the elements of the factors.
    fn multiply(&self, left: &[u8], right: &[u8], part: &Part) -> Vec<u8> {
        let [left_type, right_type] = &self.types;
        let Extent {
            rows,
            columns,
            length,
            ..
        } = self.extent;
        let [rows, columns, length] = [rows, columns, length].map(|extent| extent as usize);
        let one = |a: Vectors<'_>, b: Vectors<'_>| {
            let (rows, columns) = (part.rows.clone(), part.columns.clone());
            product::multiply(&self.data_type, &a, &b, rows, columns)
        };
        match self.kind {
            Kind::Matrix => one(
                Vectors::rows(left_type, left, rows, length),
                Vectors::columns(right_type, right, length, columns),
            ),
            Kind::Last => one(
                Vectors::rows(left_type, left, rows, length),
                Vectors::rows(right_type, right, columns, length),
            ),
            Kind::Inner => {
                let matrix = Vectors::rows(right_type, right, rows, length);
                let bytes = length * columns * left_type.size_bytes().unwrap_or(1);
                let batch = |nth: usize| {
                    let batch = &left[nth * bytes..(nth + 1) * bytes];
                    one(matrix, Vectors::columns(left_type, batch, length, columns))
                };
                part.batches.clone().flat_map(batch).collect()
            }
        }
    }
}

impl Product {
    /// Computes all of it on devices; `None` if the processor has to.
    fn multiply_on(
        &self,
        devices: &Devices,
        threads: usize,
        left: &[u8],
        right: &[u8],
    ) -> Option<Vec<u8>> {
        let [left_type, right_type] = &self.types;
        let Extent {
            batches,
            rows,
            columns,
            length,
        } = self.extent;
        let [batches, rows, columns, length] =
            [batches, rows, columns, length].map(|extent| extent as usize);
        // Rows whose sums are asked for at once.
        let most = (devices.sums_bytes_max() as usize / 8 / columns.max(1)).max(1);
        let (rows_type, rows_bytes) = match self.kind {
            Kind::Matrix | Kind::Last => (left_type, left),
            Kind::Inner => (right_type, right),
        };
        let row_bytes = length * rows_type.size_bytes()?;
        let batch_bytes = length * columns * left_type.size_bytes()?;
        let size = self.data_type.size_bytes()?;
        let mut result = Vec::with_capacity(batches * rows * columns * size);
        for batch in 0..batches {
            let right = match self.kind {
                Kind::Matrix => Vectors::columns(right_type, right, length, columns),
                Kind::Last => Vectors::rows(right_type, right, columns, length),
                Kind::Inner => {
                    let bytes = &left[batch * batch_bytes..(batch + 1) * batch_bytes];
                    Vectors::columns(left_type, bytes, length, columns)
                }
            };
            for first in (0..rows).step_by(most) {
                let end = rows.min(first + most);
                let bytes = &rows_bytes[first * row_bytes..end * row_bytes];
                let left = Vectors::rows(rows_type, bytes, end - first, length);
                let of = product::sum_of(&self.data_type);
                let found = devices.products(of, &left, &right, threads)?;
                result.extend(product::of_sums(&self.data_type, &found.sums));
            }
        }
        Some(result)
    }
}

impl Extent {
    /// Lengths of a part along batches, rows and columns.
    fn part(&self) -> [u64; 3] {
        let cells = (PART_WORK / self.length.max(1)).clamp(1, PART_CELLS);
        let columns = self.columns.min(PART_COLUMNS).min(cells).max(1);
        let rows = self.rows.min(cells / columns).max(1);
        let is_whole = rows >= self.rows && columns >= self.columns;
        let batches = if is_whole {
            cells / (rows * columns)
        } else {
            1
        };
        [self.batches.min(batches).max(1), rows, columns]
    }

    /// All parts.
    fn parts(&self) -> impl Iterator<Item = Part> + use<> {
        let lengths = [self.batches, self.rows, self.columns];
        let part = self.part();
        let counts: Vec<u64> = lengths
            .iter()
            .zip(part)
            .map(|(l, p)| l.div_ceil(p))
            .collect();
        // Without cells there is none, however many batches there are.
        let is_empty = counts.contains(&0);
        let all = if is_empty { 0 } else { counts.iter().product() };
        (0..all).map(move |nth| {
            let at = shape::coordinate(nth, &counts);
            let range = |axis: usize| {
                let start = at[axis] * part[axis];
                start as usize..lengths[axis].min(start + part[axis]) as usize
            };
            Part {
                batches: range(0),
                rows: range(1),
                columns: range(2),
            }
        })
    }

    /// Copies the cells of a part, of `size` bytes each, to their places in the result.
    fn place(&self, part: &Part, size: usize, cells: &[u8], result: &mut [u8]) {
        let (rows, columns) = (self.rows as usize, self.columns as usize);
        let lines = cells.chunks_exact((part.columns.len() * size).max(1));
        let at = part.batches.clone();
        let at = at.flat_map(|batch| part.rows.clone().map(move |row| batch * rows + row));
        for (line, row) in lines.zip(at) {
            let start = (row * columns + part.columns.start) * size;
            result[start..start + line.len()].copy_from_slice(line);
        }
    }
}

/// A part of a product.
#[derive(Clone, Debug)]
struct Part {
    batches: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
}

type Layout = (Kind, Vec<u64>, Extent);

fn matrices(a: &[u64], b: &[u64]) -> Result<Layout, Error> {
    let (rows, length) = match a {
        [length] => (1, *length),
        [rows, length] => (*rows, *length),
        _ => {
            return Err(unfit(
                "axis",
                format!(
                    "is needed for slices of {} dimensions: the product of matrices takes one or two",
                    a.len()
                ),
            ));
        }
    };
    let (below, columns) = match b {
        [below] => (*below, 1),
        [below, columns] => (*below, *columns),
        _ => {
            let reason = format!("has {} dimensions: it must have one or two", b.len());
            return Err(unfit("with", reason));
        }
    };
    if below != length {
        let reason = format!("has shape {b:?}: shape {a:?} takes {length} rows");
        return Err(unfit("with", reason));
    }
    let shape = a[..a.len() - 1].iter().chain(&b[1..]).copied().collect();
    let extent = Extent {
        batches: 1,
        rows,
        columns,
        length,
    };
    Ok((Kind::Matrix, shape, extent))
}

fn tensor(a: &[u64], b: &[u64], axis: usize) -> Result<Layout, Error> {
    let Some(&length) = a.get(axis) else {
        let reason = format!("{axis} is none of the {} dimensions of the slice", a.len());
        return Err(unfit("axis", reason));
    };
    let [rows, below] = *b else {
        let reason = format!("has {} dimensions: along an axis it must have two", b.len());
        return Err(unfit("with", reason));
    };
    if below != length {
        let reason = format!("has shape {b:?}: axis {axis} of shape {a:?} takes {length} columns");
        return Err(unfit("with", reason));
    }
    let outer = shape::elements(&a[..axis])?;
    let inner = shape::elements(&a[axis + 1..])?;
    let mut shape = a.to_vec();
    shape[axis] = rows;
    Ok(match inner {
        1 => {
            let extent = Extent {
                batches: 1,
                rows: outer,
                columns: rows,
                length,
            };
            (Kind::Last, shape, extent)
        }
        _ => {
            let extent = Extent {
                batches: outer,
                rows,
                columns: inner,
                length,
            };
            (Kind::Inner, shape, extent)
        }
    })
}

fn unfit(name: &'static str, reason: String) -> Error {
    compute::Error::Parameter { name, reason }.into()
}

/// The type of a factor's values.
fn type_of(factor: &Factor, decode: Decode) -> Result<DataType, Error> {
    let metadata = factor.array.metadata();
    let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?;
    Ok(decoder.map_or(metadata.data_type.clone(), |d| d.data_type().clone()))
}

impl Engine {
    /// Memory that a product takes, in bytes, of which the result is part.
    ///
    /// # Errors
    /// As [`Engine::read_bytes`].
    pub fn product_bytes(&self, product: &Product) -> Result<u64, Error> {
        let Product {
            left,
            right,
            decode,
            ..
        } = product;
        let left = self.read_bytes(&left.array, &left.selection, *decode)?;
        let right = self.read_bytes(&right.array, &right.selection, *decode)?;
        let result = shape::size_bytes(&product.shape, &product.data_type)? as u64;
        let part: u64 = product.extent.part().iter().product();
        let part = part.saturating_mul(8 + 8).saturating_add(PANEL_BYTES);
        let parts = part.saturating_mul(self.pool.threads() as u64);
        let sums = self.devices.sums_bytes_max();
        Ok([left, right, result, parts, sums]
            .into_iter()
            .fold(0, u64::saturating_add))
    }

    /// Multiplies, with memory that was reserved for it, as [`Engine::product_bytes`] tells.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub async fn product(
        &self,
        product: &Arc<Product>,
        _reservation: &Reservation,
    ) -> Result<Tensor, Error> {
        let left = self.factor(&product.left, product.decode).await?;
        let right = self.factor(&product.right, product.decode).await?;
        let result = match self.on_device(product, &left, &right).await? {
            Some(result) => result,
            None => self.on_pool(product, &left, &right).await?,
        };
        Ok(Tensor {
            data_type: product.data_type.clone(),
            shape: product.shape.clone(),
            elements: Elements::Fixed(result),
        })
    }

    /// The elements of the product, part by part.
    async fn on_pool(
        &self,
        product: &Arc<Product>,
        left: &Arc<Vec<u8>>,
        right: &Arc<Vec<u8>>,
    ) -> Result<Vec<u8>, Error> {
        let mut result = vec![0; shape::size_bytes(&product.shape, &product.data_type)?];
        let parts = product.extent.parts().map(|part| {
            let (product, left, right) = (product.clone(), left.clone(), right.clone());
            self.pool.run(move || {
                let cells = product.multiply(&left, &right, &part);
                Ok((part, cells))
            })
        });
        let mut done = futures::stream::iter(parts).buffer_unordered(self.pool.threads());
        let size = product.data_type.size_bytes().unwrap_or(1);
        while let Some((part, cells)) = done.try_next().await? {
            product.extent.place(&part, size, &cells, &mut result);
        }
        Ok(result)
    }

    /// The same from a device, if one makes them.
    async fn on_device(
        &self,
        product: &Arc<Product>,
        left: &Arc<Vec<u8>>,
        right: &Arc<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        if self.devices.gpus().is_none() {
            return Ok(None);
        }
        let (devices, threads) = (self.devices.clone(), self.pool.threads());
        let (product, left, right) = (product.clone(), left.clone(), right.clone());
        let work = move || Ok(product.multiply_on(&devices, threads, &left, &right));
        self.pool.run(work).await
    }

    /// The elements of a factor.
    async fn factor(&self, factor: &Factor, decode: Decode) -> Result<Arc<Vec<u8>>, Error> {
        let Factor { array, selection } = factor;
        let tensor = self.read_unreserved(array, selection, decode).await?;
        match tensor.elements {
            Elements::Fixed(bytes) => Ok(Arc::new(bytes)),
            Elements::Variable(_) => Err(Error::Cancelled),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_numpys() {
        let shape = |a: &[u64], b: &[u64], axis: Option<usize>| match axis {
            None => matrices(a, b),
            Some(axis) => tensor(a, b, axis),
        };
        for (a, b, axis, wanted) in [
            (&[3, 4][..], &[4, 5][..], None, Some(&[3, 5][..])),
            (&[4], &[4, 5], None, Some(&[5])),
            (&[3, 4], &[4], None, Some(&[3])),
            (&[4], &[4], None, Some(&[])),
            (&[3, 0], &[0, 5], None, Some(&[3, 5])),
            (&[3, 4], &[5, 4], None, None),
            (&[2, 3, 4], &[4, 5], None, None),
            (&[3, 4], &[4, 5, 6], None, None),
            (&[], &[4], None, None),
            (&[3, 4], &[], None, None),
            (&[2, 3, 4], &[5, 3], Some(1), Some(&[2, 5, 4])),
            (&[2, 3, 4], &[5, 4], Some(2), Some(&[2, 3, 5])),
            (&[2, 3, 1], &[5, 3], Some(1), Some(&[2, 5, 1])),
            (&[3], &[5, 3], Some(0), Some(&[5])),
            (&[2, 3, 4], &[3, 5], Some(1), None),
            (&[2, 3, 4], &[3], Some(1), None),
            (&[2, 3, 4], &[5, 4], Some(3), None),
        ] {
            let found = shape(a, b, axis).ok().map(|(_, shape, extent)| {
                let cells = extent.batches * extent.rows * extent.columns;
                assert_eq!(cells, shape.iter().product::<u64>(), "{a:?} {b:?}");
                shape
            });
            assert_eq!(found.as_deref(), wanted, "{a:?} {b:?} {axis:?}");
        }
    }

    #[test]
    fn parts_are_bounded_whatever_the_shape() {
        for (batches, rows, columns, length) in [
            (1, 1, 1, 1 << 40),
            (1, 1 << 20, 1 << 20, 1),
            (1 << 30, 2, 2, 3),
            (1, 1 << 24, 1, 768),
            (1, 3, 1 << 24, 768),
            (1 << 40, 0, 7, 1),
            (1 << 40, 7, 0, 0),
        ] {
            let extent = Extent {
                batches,
                rows,
                columns,
                length,
            };
            let cells: u64 = extent.part().iter().product();
            assert!(cells <= PART_CELLS, "{extent:?}");
            assert!(cells == 1 || cells * length <= PART_WORK, "{extent:?}");
            let first = extent.parts().next();
            assert_eq!(first.is_none(), rows == 0 || columns == 0, "{extent:?}");
        }
    }

    proptest! {
        #[test]
        fn every_cell_is_in_one_part(
            batches in 0u64..5, rows in 0u64..90, columns in 0u64..400,
            length in prop_oneof![Just(0u64), 1u64..100, Just(PART_WORK / 50), Just(1 << 40)],
            size in 1usize..3,
        ) {
            let extent = Extent { batches, rows, columns, length };
            let total = (batches * rows * columns) as usize;
            // Cells hold their own place.
            let cell = |batch: usize, row: usize, column: usize| {
                let at = (batch * rows as usize + row) * columns as usize + column;
                (at % 251 + 1) as u8
            };
            let mut result = vec![0; total * size];
            let mut count = 0;
            // Single cells, if each is long, are many.
            prop_assume!(total < 20_000 || length < PART_WORK);
            for part in extent.parts() {
                let cells: Vec<u8> = part
                    .batches
                    .clone()
                    .flat_map(|batch| {
                        let (rows, columns) = (part.rows.clone(), part.columns.clone());
                        rows.flat_map(move |row| columns.clone().map(move |column| (batch, row, column)))
                    })
                    .flat_map(|(batch, row, column)| vec![cell(batch, row, column); size])
                    .collect();
                count += cells.len();
                extent.place(&part, size, &cells, &mut result);
            }
            prop_assert_eq!(count, total * size);
            let wanted: Vec<u8> = (0..total).flat_map(|at| vec![(at % 251 + 1) as u8; size]).collect();
            prop_assert!(result == wanted);
        }
    }
}
