//! Reductions over any axes, in pieces that merge in one fixed order.
//!
//! ```text
//! chunk ─► Partial ┐
//! chunk ─► Partial ┴► merge ┐
//! chunk ─► Partial ┐        ├► … ─► finish ─► result cells
//! chunk ─► Partial ┴► merge ┘
//! ```
//!
//! A [`Partial`] holds the accumulators of the kept cells of a box;
//! [`Combiner`](crate::Combiner) merges the partials of consecutive boxes. Sums of integers are
//! exact, sums of floats double-doubles, variances merge by Chan's formula.

use array::DataType;

use crate::accumulators::{
    ComplexProducts, Counts, Extremes, IntegerProducts, IntegerSums, Order, Products, Spreads,
    Sums, Truths,
};
use crate::block::Fold;
use crate::element::{Element, elements, with_real};
use crate::halves::{bf16_of, f16_of};
use crate::{Block, Error, Reducer, Reduction};

/// Accumulators of the kept cells of a box.
#[derive(Clone, Debug)]
pub struct Partial {
    reduction: Reduction,
    /// Of the elements reduced.
    data_type: DataType,
    cells: Cells,
}

#[derive(Clone, Debug)]
pub(crate) enum Cells {
    Counts(Counts),
    Truths(Truths),
    IntegerSums(IntegerSums),
    Sums(Sums),
    IntegerProducts(IntegerProducts),
    Products(Products),
    ComplexProducts(ComplexProducts),
    Spreads(Spreads),
    Extremes(Extremes),
    /// Of the real and the imaginary parts.
    Complex(Box<[Cells; 2]>),
}

impl Partial {
    /// Reduces one box.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the reducer has no meaning for the type.
    pub fn of(reduction: Reduction, block: &Block<'_>) -> Result<Self, Error> {
        reduction.data_type(block.data_type)?;
        let cells = match block.data_type {
            DataType::Complex64 => complex::<f32>(reduction, block),
            DataType::Complex128 => complex::<f64>(reduction, block),
            data_type => with_real!(
                data_type,
                T => real(reduction, block, &elements::<T>(block.bytes)),
                else return Err(reduction.undefined(data_type))
            ),
        };
        Ok(Self {
            reduction,
            data_type: block.data_type.clone(),
            cells,
        })
    }

    /// Of accumulators that were filled elsewhere, as the reduction of this type has them.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_cells(reduction: Reduction, data_type: &DataType, cells: Cells) -> Self {
        Self {
            reduction,
            data_type: data_type.clone(),
            cells,
        }
    }

    /// The partial of no box, over `kept` cells, each of `reduced` values. One of the two is zero.
    ///
    /// # Errors
    /// [`Error::Empty`] for reducers without an answer for no values, as in NumPy also where no cell
    /// is kept; [`Error::Undefined`] as for [`Partial::of`].
    pub fn of_nothing(
        reduction: Reduction,
        data_type: &DataType,
        kept: usize,
        reduced: u64,
    ) -> Result<Self, Error> {
        reduction.data_type(data_type)?;
        if reduction.is_extreme() && reduced == 0 {
            return Err(Error::Empty {
                reducer: reduction.reducer.name(),
                reason: "nothing is selected",
            });
        }
        let block = Block {
            data_type,
            bytes: &[],
            shape: &[0, kept as u64],
            reduced: &[true, false],
            places: &[],
            selection_shape: &[],
        };
        Self::of(reduction, &block)
    }

    /// Merges the partial of the boxes that follow, over the same kept cells.
    pub fn merge(&mut self, later: &Self) {
        debug_assert_eq!(self.reduction, later.reduction, "partials of one reduction");
        self.cells.merge(&later.cells, &self.data_type);
    }

    /// The results, one element of [`Reduction::data_type`] for each kept cell, C order.
    ///
    /// # Errors
    /// [`Error::Empty`] for the position of an extreme where all values are left out.
    pub fn finish(&self) -> Result<Vec<u8>, Error> {
        let reduction = &self.reduction;
        let result = reduction.data_type(&self.data_type)?;
        Ok(match &self.cells {
            Cells::Counts(cells) => cells
                .counts()
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect(),
            Cells::Truths(cells) => cells
                .truths()
                .iter()
                .map(|&truth| u8::from(truth))
                .collect(),
            Cells::IntegerSums(cells) if reduction.reducer == Reducer::Mean => {
                encode(&result, cells.means())
            }
            Cells::IntegerSums(cells) if result == DataType::Float64 => {
                encode(&result, cells.sums().iter().map(|&sum| sum as f64))
            }
            // Modulo 2^64, as NumPy.
            Cells::IntegerSums(cells) => {
                let sums = cells.sums().iter();
                sums.flat_map(|&sum| (sum as i64).to_le_bytes()).collect()
            }
            Cells::IntegerProducts(cells) => {
                let products = cells.products().iter();
                products.flat_map(|product| product.to_le_bytes()).collect()
            }
            Cells::Extremes(cells) => self.finish_extremes(cells, &result)?,
            Cells::ComplexProducts(cells) => {
                let products = cells.iter().flat_map(|(count, [re, im])| {
                    let product = [self.or_too_few(count, re), self.or_too_few(count, im)];
                    product.into_iter()
                });
                encode(&result, products)
            }
            Cells::Complex(parts) => self.finish_complex(parts, &result),
            Cells::Sums(_) | Cells::Products(_) | Cells::Spreads(_) => {
                encode(&result, self.numbers(&self.cells).into_iter())
            }
        })
    }

    fn finish_extremes(&self, cells: &Extremes, result: &DataType) -> Result<Vec<u8>, Error> {
        if self.reduction.is_position() {
            let positions = cells
                .positions()
                .map(|position| position.map(u64::to_le_bytes));
            let positions: Option<Vec<[u8; 8]>> = positions.collect();
            return positions.map(|p| p.concat()).ok_or(Error::Empty {
                reducer: self.reduction.reducer.name(),
                reason: "all are NaN",
            });
        }
        let bytes = with_real!(&self.data_type, T => {
            let values = cells.values::<T>();
            if *result == self.data_type && !T::IS_FLOAT {
                bytemuck::cast_slice(values).to_vec()
            } else {
                // Which of equal values was found first depends on the order of the search: one
                // zero stands for both, and one NaN for all.
                let plain = values.iter().map(|value| match value.to_f64() {
                    0.0 => 0.0,
                    value => value,
                });
                encode(result, plain)
            }
        }, else return Err(self.reduction.undefined(&self.data_type)));
        Ok(bytes)
    }

    fn finish_complex(&self, [re, im]: &[Cells; 2], result: &DataType) -> Vec<u8> {
        if let (Cells::Spreads(re), Cells::Spreads(im)) = (re, im) {
            return encode(result, self.deviations(&re.together(im)).into_iter());
        }
        let parts = self.numbers(re).into_iter().zip(self.numbers(im));
        encode(result, parts.flat_map(|(re, im)| [re, im]))
    }

    /// Sums, means, products, variances or standard deviations.
    fn numbers(&self, cells: &Cells) -> Vec<f64> {
        match cells {
            Cells::Sums(cells) if self.reduction.reducer == Reducer::Mean => cells
                .iter()
                .map(|(count, sum)| sum / count as f64)
                .collect(),
            Cells::Sums(cells) => cells
                .iter()
                .map(|(count, sum)| self.or_too_few(count, sum))
                .collect(),
            Cells::Products(cells) => cells
                .iter()
                .map(|(count, product)| self.or_too_few(count, product))
                .collect(),
            Cells::Spreads(cells) => self.deviations(cells),
            _ => Vec::new(),
        }
    }

    /// NaN for a sum or product of fewer values than the reduction asks for.
    fn or_too_few(&self, count: u64, value: f64) -> f64 {
        let is_checked = self.reduction.skips(&self.data_type);
        if is_checked && count < self.reduction.min_count {
            f64::NAN
        } else {
            value
        }
    }

    /// Variances or standard deviations.
    fn deviations(&self, cells: &Spreads) -> Vec<f64> {
        let variances = cells.variances(self.reduction.ddof);
        if self.reduction.reducer == Reducer::Std {
            variances.map(f64::sqrt).collect()
        } else {
            variances.collect()
        }
    }
}

impl Cells {
    fn merge(&mut self, later: &Self, data_type: &DataType) {
        match (self, later) {
            (Self::Counts(a), Self::Counts(b)) => a.merge(b),
            (Self::Truths(a), Self::Truths(b)) => a.merge(b),
            (Self::IntegerSums(a), Self::IntegerSums(b)) => a.merge(b),
            (Self::Sums(a), Self::Sums(b)) => a.merge(b),
            (Self::IntegerProducts(a), Self::IntegerProducts(b)) => a.merge(b),
            (Self::Products(a), Self::Products(b)) => a.merge(b),
            (Self::ComplexProducts(a), Self::ComplexProducts(b)) => a.merge(b),
            (Self::Spreads(a), Self::Spreads(b)) => a.merge(b),
            (Self::Extremes(a), Self::Extremes(b)) => {
                with_real!(data_type, T => a.merge::<T>(b), else ());
            }
            (Self::Complex(a), Self::Complex(b)) => {
                a.iter_mut()
                    .zip(b.iter())
                    .for_each(|(a, b)| a.merge(b, data_type));
            }
            _ => debug_assert!(
                false,
                "partials of one reduction hold the same kind of cells"
            ),
        }
    }
}

/// Reduces real numbers.
fn real<T: Element>(reduction: Reduction, block: &Block<'_>, values: &[T]) -> Cells {
    let skip = reduction.skips(block.data_type);
    let kept = block.kept();
    let is_exact = !T::IS_FLOAT;
    match reduction.reducer {
        Reducer::Count => Cells::Counts(folded(Counts::new(kept), block, values)),
        Reducer::Any => Cells::Truths(folded(Truths::new(kept, false), block, values)),
        Reducer::All => Cells::Truths(folded(Truths::new(kept, true), block, values)),
        Reducer::Sum | Reducer::Mean if is_exact => {
            let mut cells = IntegerSums::new(kept);
            cells.fold(block, values);
            Cells::IntegerSums(cells)
        }
        Reducer::Sum | Reducer::Mean => Cells::Sums(folded(Sums::new(kept, skip), block, values)),
        Reducer::Prod if is_exact && !reduction.as_float64 => {
            Cells::IntegerProducts(folded(IntegerProducts::new(kept), block, values))
        }
        Reducer::Prod => Cells::Products(folded(Products::new(kept, skip), block, values)),
        Reducer::Std | Reducer::Var => Cells::Spreads(Spreads::of(block, values, skip)),
        Reducer::Min | Reducer::Max | Reducer::ArgMin | Reducer::ArgMax => {
            let least = matches!(reduction.reducer, Reducer::Min | Reducer::ArgMin);
            let order = Order { least, skip };
            let mut cells = Extremes::new::<T>(kept, order, reduction.is_position());
            cells.fold(block, values);
            Cells::Extremes(cells)
        }
    }
}

/// Reduces complex numbers: both parts apart, or what the reducer sees of both.
fn complex<T: Element>(reduction: Reduction, block: &Block<'_>) -> Cells
where
    [T; 2]: bytemuck::Pod,
{
    let pairs = elements::<[T; 2]>(block.bytes);
    let skip = reduction.skips(block.data_type);
    let is_missing = |[re, im]: [T; 2]| re.is_missing() || im.is_missing();
    match reduction.reducer {
        Reducer::Prod => {
            let cells = ComplexProducts::new(block.kept(), skip);
            Cells::ComplexProducts(folded(cells, block, &pairs))
        }
        Reducer::Count | Reducer::Any | Reducer::All => {
            let seen = pairs.iter().map(|&[re, im]| match [re, im] {
                pair if is_missing(pair) => T::MISSING,
                _ if re.to_f64() != 0.0 => re,
                _ => im,
            });
            real(reduction, block, &seen.collect::<Vec<T>>())
        }
        _ => {
            let part = |which: usize| {
                let values = pairs.iter().map(|&pair| {
                    if skip && is_missing(pair) {
                        T::MISSING
                    } else {
                        pair[which]
                    }
                });
                real(reduction, block, &values.collect::<Vec<T>>())
            };
            Cells::Complex(Box::new([part(0), part(1)]))
        }
    }
}

fn folded<T, F: Fold<T>>(mut cells: F, block: &Block<'_>, values: &[T]) -> F {
    block.fold(values, &mut cells);
    cells
}

/// Numbers as elements of a float type, or as the parts of a complex one; every NaN as the same bits,
/// since those of a calculated one differ between machines.
pub(crate) fn encode(data_type: &DataType, numbers: impl Iterator<Item = f64>) -> Vec<u8> {
    let numbers = numbers.map(|number| if number.is_nan() { f64::NAN } else { number });
    match data_type {
        DataType::Float16 => numbers.flat_map(|n| f16_of(n).to_le_bytes()).collect(),
        DataType::BFloat16 => numbers.flat_map(|n| bf16_of(n).to_le_bytes()).collect(),
        DataType::Float32 | DataType::Complex64 => {
            numbers.flat_map(|n| (n as f32).to_le_bytes()).collect()
        }
        _ => numbers.flat_map(f64::to_le_bytes).collect(),
    }
}
