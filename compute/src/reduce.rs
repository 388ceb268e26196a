//! Reductions over any axes, in pieces that merge in one fixed order.
//!
//! ```text
//! chunk ─► Partial ┐
//! chunk ─► Partial ┴► merge ┐
//! chunk ─► Partial ┐        ├► … ─► finish ─► result cells
//! chunk ─► Partial ┴► merge ┘
//! ```
//!
//! A [`Partial`] holds one accumulator for each kept cell of a box. [`Combiner`] merges the
//! partials of consecutive boxes as a Merkle tree would, whatever the order they were computed in,
//! so the answer has the same bits for any number of threads.
//!
//! Sums of integers are exact, sums of floats are double-doubles, variances merge by Chan's formula.

use array::{DataType, Scalar, shape};
use half::{bf16, f16};

use crate::Error;
use crate::double::Double;
use crate::element::{Element, elements, with_real};

/// What to reduce to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are NumPy's functions")]
pub enum Reducer {
    Sum,
    Prod,
    Mean,
    Min,
    Max,
    Count,
    Std,
    Var,
    Any,
    All,
    ArgMin,
    ArgMax,
}

impl Reducer {
    /// Their names.
    pub const NAMES: [&'static str; 12] = [
        "sum", "prod", "mean", "min", "max", "count", "std", "var", "any", "all", "argmin",
        "argmax",
    ];
    const ALL: [Self; 12] = [
        Self::Sum,
        Self::Prod,
        Self::Mean,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Std,
        Self::Var,
        Self::Any,
        Self::All,
        Self::ArgMin,
        Self::ArgMax,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl std::str::FromStr for Reducer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|reducer| reducer.name() == text);
        found.ok_or_else(|| Error::UnknownReducer {
            name: text.to_owned(),
        })
    }
}

/// A reduction of one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduction {
    /// What to reduce to.
    pub reducer: Reducer,
    /// Leave out NaN and NaT; by default for floats and times.
    pub skip_missing: Option<bool>,
    /// Delta degrees of freedom of `std` and `var`: they divide by `n − ddof`.
    pub ddof: u32,
    /// Fewest valid values a sum or product needs; with fewer it is NaN.
    pub min_count: u64,
    /// Give the accumulator as `float64` whatever the array's type.
    pub as_float64: bool,
}

impl Reduction {
    /// The reduction with xarray's defaults.
    pub fn new(reducer: Reducer) -> Self {
        Self {
            reducer,
            skip_missing: None,
            ddof: 0,
            min_count: 0,
            as_float64: false,
        }
    }

    /// Type of the result, as xarray has it: sums and products of integers widen to 64 bits, their
    /// means are `float64`, floats keep their type.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the reducer has no meaning for `data_type`.
    pub fn data_type(&self, data_type: &DataType) -> Result<DataType, Error> {
        let undefined = || Error::Undefined {
            reducer: self.reducer.name(),
            data_type: data_type.to_string(),
        };
        let is_time = matches!(
            data_type,
            DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. }
        );
        let is_real =
            data_type.is_integer() || data_type.is_float() || *data_type == DataType::Bool;
        if !(is_real || is_time && !self.is_arithmetic()) {
            return Err(undefined());
        }
        let natural = match self.reducer {
            Reducer::Count | Reducer::ArgMin | Reducer::ArgMax => return Ok(DataType::Int64),
            Reducer::Any | Reducer::All => return Ok(DataType::Bool),
            Reducer::Min | Reducer::Max => data_type.clone(),
            _ if data_type.is_float() => data_type.clone(),
            Reducer::Sum | Reducer::Prod if data_type.is_unsigned_integer() => DataType::UInt64,
            Reducer::Sum | Reducer::Prod => DataType::Int64,
            _ => DataType::Float64,
        };
        Ok(if self.as_float64 && !is_time {
            DataType::Float64
        } else {
            natural
        })
    }

    fn is_arithmetic(&self) -> bool {
        matches!(
            self.reducer,
            Reducer::Sum | Reducer::Prod | Reducer::Mean | Reducer::Std | Reducer::Var
        )
    }

    fn skips(&self, data_type: &DataType) -> bool {
        self.skip_missing
            .unwrap_or(!data_type.is_integer() && *data_type != DataType::Bool)
    }
}

/// A dense box of decoded elements and its place in the selection.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Type of the elements.
    pub data_type: &'a DataType,
    /// The elements, C order.
    pub bytes: &'a [u8],
    /// Length along each axis.
    pub shape: &'a [u64],
    /// Which axes are reduced.
    pub reduced: &'a [bool],
    /// Places of the box's cells in the selection, along each axis.
    pub places: &'a [Vec<u64>],
    /// Lengths of the whole selection: positions `argmin` and `argmax` give count in its reduced
    /// axes, C order.
    pub selection_shape: &'a [u64],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Extreme {
    value: Scalar,
    position: u64,
    is_nan: bool,
}

/// Count, mean and sum of squared differences from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Spread {
    count: u64,
    mean: f64,
    m2: f64,
}

impl Spread {
    /// Source: Chan, Golub, LeVeque, 1979.
    fn merge(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other;
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        self.mean += delta * (b / (a + b));
        self.m2 += other.m2 + delta * delta * (a * b / (a + b));
        self.count += other.count;
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Cells {
    Counts(Vec<u64>),
    IntegerSums(Vec<(u64, i128)>),
    FloatSums(Vec<(u64, Double)>),
    IntegerProducts(Vec<(u64, i128)>),
    FloatProducts(Vec<(u64, f64)>),
    Spreads(Vec<Spread>),
    Extremes(Vec<Option<Extreme>>),
    Truths(Vec<bool>),
}

/// Accumulators of the kept cells of a box.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    reduction: Reduction,
    cells: Cells,
}

impl Partial {
    /// Reduces one box.
    ///
    /// # Errors
    /// [`Error::Undefined`] if the reducer has no meaning for the type.
    pub fn of(reduction: Reduction, block: &Block<'_>) -> Result<Self, Error> {
        reduction.data_type(block.data_type)?;
        let undefined = || Error::Undefined {
            reducer: reduction.reducer.name(),
            data_type: block.data_type.to_string(),
        };
        with_real!(block.data_type, T => Ok(reduce::<T>(reduction, block)), else Err(undefined()))
    }

    /// Merges the partial of the boxes that follow, over the same kept cells.
    pub fn merge(&mut self, later: &Self) {
        let reducer = self.reduction.reducer;
        match (&mut self.cells, &later.cells) {
            (Cells::Counts(a), Cells::Counts(b)) => each(a, b, |a, b| *a += b),
            (Cells::IntegerSums(a), Cells::IntegerSums(b)) => each(a, b, |a, b| {
                a.0 += b.0;
                a.1 = a.1.wrapping_add(b.1);
            }),
            (Cells::FloatSums(a), Cells::FloatSums(b)) => each(a, b, |a, b| {
                a.0 += b.0;
                a.1.merge(b.1);
            }),
            (Cells::IntegerProducts(a), Cells::IntegerProducts(b)) => each(a, b, |a, b| {
                a.0 += b.0;
                a.1 = i128::from((a.1 as i64).wrapping_mul(b.1 as i64));
            }),
            (Cells::FloatProducts(a), Cells::FloatProducts(b)) => each(a, b, |a, b| {
                a.0 += b.0;
                a.1 *= b.1;
            }),
            (Cells::Spreads(a), Cells::Spreads(b)) => each(a, b, Spread::merge),
            (Cells::Extremes(a), Cells::Extremes(b)) => each(a, b, |a, b| {
                if let Some(b) = b {
                    take_extreme(reducer, a, b);
                }
            }),
            (Cells::Truths(a), Cells::Truths(b)) => each(a, b, |a, b| {
                *a = if reducer == Reducer::Any {
                    *a || b
                } else {
                    *a && b
                };
            }),
            _ => debug_assert!(
                false,
                "partials of one reduction hold the same kind of cells"
            ),
        }
    }

    /// The results, one element of [`Reduction::data_type`] for each kept cell.
    ///
    /// # Errors
    /// [`Error::Empty`] for an extreme of no values.
    pub fn finish(&self, data_type: &DataType) -> Result<Vec<u8>, Error> {
        let result = self.reduction.data_type(data_type)?;
        let reducer = self.reduction.reducer;
        let min_count = self.reduction.min_count;
        let mut out = Vec::new();
        match &self.cells {
            Cells::Counts(cells) => cells
                .iter()
                .for_each(|n| out.extend((*n as i64).to_le_bytes())),
            Cells::Truths(cells) => out.extend(cells.iter().map(|truth| u8::from(*truth))),
            Cells::IntegerSums(cells) => {
                for (count, sum) in cells {
                    match reducer {
                        Reducer::Mean => push(&mut out, &result, quotient(*sum, *count)),
                        _ if result == DataType::Float64 => push(&mut out, &result, *sum as f64),
                        _ => out.extend((*sum as i64).to_le_bytes()),
                    }
                }
            }
            Cells::FloatSums(cells) => {
                for (count, sum) in cells {
                    let value = match reducer {
                        Reducer::Mean => sum.to_f64() / *count as f64,
                        _ if *count < min_count => f64::NAN,
                        _ => sum.to_f64(),
                    };
                    push(&mut out, &result, value);
                }
            }
            Cells::IntegerProducts(cells) => {
                for (_, product) in cells {
                    if result == DataType::Float64 {
                        push(&mut out, &result, *product as f64);
                    } else {
                        out.extend((*product as i64).to_le_bytes());
                    }
                }
            }
            Cells::FloatProducts(cells) => {
                for (count, product) in cells {
                    push(
                        &mut out,
                        &result,
                        if *count < min_count {
                            f64::NAN
                        } else {
                            *product
                        },
                    );
                }
            }
            Cells::Spreads(cells) => {
                for spread in cells {
                    let freedom = spread.count as f64 - f64::from(self.reduction.ddof);
                    let variance = if freedom > 0.0 {
                        spread.m2 / freedom
                    } else {
                        f64::NAN
                    };
                    let value = if reducer == Reducer::Std {
                        variance.sqrt()
                    } else {
                        variance
                    };
                    push(&mut out, &result, value);
                }
            }
            Cells::Extremes(cells) => {
                for cell in cells {
                    self.finish_extreme(*cell, data_type, &result, &mut out)?;
                }
            }
        }
        Ok(out)
    }

    fn finish_extreme(
        &self,
        cell: Option<Extreme>,
        data_type: &DataType,
        result: &DataType,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let reducer = self.reduction.reducer;
        match (reducer, cell) {
            (Reducer::ArgMin | Reducer::ArgMax, Some(extreme)) => {
                out.extend((extreme.position as i64).to_le_bytes());
            }
            (Reducer::ArgMin | Reducer::ArgMax, None) => {
                return Err(Error::Empty {
                    reducer: reducer.name(),
                    reason: "all are NaN",
                });
            }
            (_, Some(extreme)) => push_scalar(out, result, extreme.value),
            (_, None) if data_type.is_float() => push(out, result, f64::NAN),
            (_, None) if data_type.size_bytes() == Some(8) && !data_type.is_integer() => {
                out.extend(i64::MIN.to_le_bytes());
            }
            (_, None) => {
                return Err(Error::Empty {
                    reducer: reducer.name(),
                    reason: "nothing is selected",
                });
            }
        }
        Ok(())
    }

    /// The partial of no box, over `kept` cells, each of `reduced` values. One of the two is zero.
    ///
    /// # Errors
    /// [`Error::Empty`] for reducers without an answer for no values; as in NumPy also where no cell
    /// is kept.
    pub fn of_nothing(
        reduction: Reduction,
        data_type: &DataType,
        kept: usize,
        reduced: u64,
    ) -> Result<Self, Error> {
        reduction.data_type(data_type)?;
        let chooses = matches!(
            reduction.reducer,
            Reducer::Min | Reducer::Max | Reducer::ArgMin | Reducer::ArgMax
        );
        if chooses && reduced == 0 {
            return Err(Error::Empty {
                reducer: reduction.reducer.name(),
                reason: "nothing is selected",
            });
        }
        Ok(Self {
            reduction,
            cells: empty_cells(reduction, data_type.is_float(), kept),
        })
    }
}

fn each<T: Copy>(left: &mut [T], right: &[T], merge: impl Fn(&mut T, T)) {
    debug_assert_eq!(left.len(), right.len());
    left.iter_mut().zip(right).for_each(|(a, &b)| merge(a, b));
}

/// `sum / count`, rounded once for sums that fit 53 bits and else with an error below one ulp.
fn quotient(sum: i128, count: u64) -> f64 {
    if count == 0 {
        return f64::NAN;
    }
    let whole = sum / i128::from(count);
    let rest = sum % i128::from(count);
    if whole.unsigned_abs() < 1 << 52 && sum.unsigned_abs() >= 1 << 53 {
        return whole as f64 + rest as f64 / count as f64;
    }
    sum as f64 / count as f64
}

/// NumPy's rule: the first NaN wins if missing values are not skipped, then the first of equals.
fn take_extreme(reducer: Reducer, best: &mut Option<Extreme>, candidate: Extreme) {
    let Some(current) = best else {
        *best = Some(candidate);
        return;
    };
    if current.is_nan || candidate.is_nan {
        if !current.is_nan || (candidate.is_nan && candidate.position < current.position) {
            *current = candidate;
        }
        return;
    }
    let wants_less = matches!(reducer, Reducer::Min | Reducer::ArgMin);
    let order = compare(candidate.value, current.value);
    let better = if wants_less {
        order.is_lt()
    } else {
        order.is_gt()
    };
    if better || (order.is_eq() && candidate.position < current.position) {
        *current = candidate;
    }
}

fn compare(a: Scalar, b: Scalar) -> std::cmp::Ordering {
    match (a, b) {
        (Scalar::Int(a), Scalar::Int(b)) => a.cmp(&b),
        (Scalar::UInt(a), Scalar::UInt(b)) => a.cmp(&b),
        (a, b) => a
            .to_f64()
            .partial_cmp(&b.to_f64())
            .unwrap_or(std::cmp::Ordering::Equal),
    }
}

fn push(out: &mut Vec<u8>, data_type: &DataType, value: f64) {
    match data_type {
        DataType::Float16 => out.extend(f16::from_f64(value).to_le_bytes()),
        DataType::BFloat16 => out.extend(bf16::from_f64(value).to_le_bytes()),
        DataType::Float32 => out.extend((value as f32).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}

fn push_scalar(out: &mut Vec<u8>, data_type: &DataType, value: Scalar) {
    match value {
        _ if data_type.is_float() => push(out, data_type, value.to_f64()),
        Scalar::Int(value) => {
            out.extend_from_slice(&value.to_le_bytes()[..data_type.size_bytes().unwrap_or(8)]);
        }
        Scalar::UInt(value) => {
            out.extend_from_slice(&value.to_le_bytes()[..data_type.size_bytes().unwrap_or(8)]);
        }
        Scalar::Float(value) => push(out, data_type, value),
    }
}

fn empty_cells(reduction: Reduction, is_float: bool, kept: usize) -> Cells {
    match reduction.reducer {
        Reducer::Count => Cells::Counts(vec![0; kept]),
        Reducer::Any => Cells::Truths(vec![false; kept]),
        Reducer::All => Cells::Truths(vec![true; kept]),
        Reducer::Sum | Reducer::Mean if is_float => {
            Cells::FloatSums(vec![Default::default(); kept])
        }
        Reducer::Sum | Reducer::Mean => Cells::IntegerSums(vec![(0, 0); kept]),
        Reducer::Prod if is_float => Cells::FloatProducts(vec![(0, 1.0); kept]),
        Reducer::Prod => Cells::IntegerProducts(vec![(0, 1); kept]),
        Reducer::Std | Reducer::Var => Cells::Spreads(vec![Spread::default(); kept]),
        Reducer::Min | Reducer::Max | Reducer::ArgMin | Reducer::ArgMax => {
            Cells::Extremes(vec![None; kept])
        }
    }
}

fn reduce<T: Element>(reduction: Reduction, block: &Block<'_>) -> Partial {
    let values = elements::<T>(block.bytes);
    let skip = reduction.skips(block.data_type);
    let kept: u64 = kept_lengths(block).iter().product();
    let mut cells = empty_cells(reduction, T::IS_FLOAT, kept as usize);
    let valid = |value: T| !(skip && value.is_nan());
    match &mut cells {
        Cells::Counts(cells) => for_each_run(&values, block, |run| {
            run.each(cells, |cell, value: T, _| {
                *cell += u64::from(!value.is_nan());
            });
        }),
        Cells::IntegerSums(cells) => for_each_run(&values, block, |run| {
            if let Some((cell, values)) = run.one_cell(cells) {
                cell.0 += values.len() as u64;
                cell.1 += values.iter().map(|value| value.to_i128()).sum::<i128>();
            } else {
                run.each(cells, |cell, value, _| {
                    cell.0 += 1;
                    cell.1 += value.to_i128();
                });
            }
        }),
        Cells::FloatSums(cells) => for_each_run(&values, block, |run| {
            if let Some((cell, values)) = run.one_cell(cells) {
                let (count, sum) = sum_run(values, valid);
                cell.0 += count;
                cell.1.merge(sum);
            } else {
                run.each(cells, |cell, value, _| {
                    if valid(value) {
                        cell.0 += 1;
                        cell.1.add(value.to_f64());
                    }
                });
            }
        }),
        Cells::IntegerProducts(cells) => for_each_run(&values, block, |run| {
            run.each(cells, |cell, value, _| {
                cell.0 += 1;
                cell.1 = i128::from((cell.1 as i64).wrapping_mul(value.to_i128() as i64));
            });
        }),
        Cells::FloatProducts(cells) => for_each_run(&values, block, |run| {
            run.each(cells, |cell, value, _| {
                if valid(value) {
                    cell.0 += 1;
                    cell.1 *= value.to_f64();
                }
            });
        }),
        Cells::Spreads(cells) => spread(&values, block, cells, valid),
        Cells::Extremes(cells) => for_each_run(&values, block, |run| {
            run.each(cells, |cell, value, position| {
                if valid(value) {
                    let is_nan = value.is_nan();
                    take_extreme(
                        reduction.reducer,
                        cell,
                        Extreme {
                            value: value.to_scalar(),
                            position,
                            is_nan,
                        },
                    );
                }
            });
        }),
        Cells::Truths(cells) => for_each_run(&values, block, |run| {
            let any = reduction.reducer == Reducer::Any;
            run.each(cells, |cell, value, _| {
                let truth = value.is_nan() || value.to_f64() != 0.0;
                *cell = if any { *cell || truth } else { *cell && truth };
            });
        }),
    }
    Partial { reduction, cells }
}

/// Two passes over the box: means, then squared differences from them.
fn spread<T: Element>(
    values: &[T],
    block: &Block<'_>,
    cells: &mut [Spread],
    valid: impl Fn(T) -> bool + Copy,
) {
    let mut sums = vec![(0u64, Double::default()); cells.len()];
    for_each_run(values, block, |run| {
        run.each(&mut sums, |cell, value, _| {
            if valid(value) {
                cell.0 += 1;
                cell.1.add(value.to_f64());
            }
        });
    });
    for (cell, (count, sum)) in cells.iter_mut().zip(&sums) {
        cell.count = *count;
        cell.mean = if *count == 0 {
            0.0
        } else {
            sum.to_f64() / *count as f64
        };
    }
    for_each_run(values, block, |run| {
        run.each(cells, |cell, value, _| {
            if valid(value) {
                let difference = value.to_f64() - cell.mean;
                cell.m2 += difference * difference;
            }
        });
    });
}

/// Sums one run in eight lanes, which the compiler turns into vector instructions.
fn sum_run<T: Element>(values: &[T], valid: impl Fn(T) -> bool) -> (u64, Double) {
    const LANES: usize = 8;
    let mut lanes = [Double::default(); LANES];
    let mut counts = [0u64; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            let value = chunk[lane];
            let is_valid = valid(value);
            counts[lane] += u64::from(is_valid);
            lanes[lane].add(if is_valid { value.to_f64() } else { 0.0 });
        }
    }
    let mut total = Double::default();
    for lane in lanes {
        total.merge(lane);
    }
    let mut count: u64 = counts.iter().sum();
    for &value in chunks.remainder() {
        if valid(value) {
            count += 1;
            total.add(value.to_f64());
        }
    }
    (count, total)
}

fn kept_lengths(block: &Block<'_>) -> Vec<u64> {
    let lengths = block.shape.iter().zip(block.reduced);
    lengths
        .map(|(&length, &reduced)| if reduced { 1 } else { length })
        .collect()
}

/// Neighbours along the last axis.
struct Run<'a, T> {
    values: &'a [T],
    /// First kept cell.
    cell: usize,
    /// Whether all go into that cell; else each into the next one.
    is_reduced: bool,
    /// Position in the reduced axes of the selection but the last.
    position: u64,
    /// Places along the last axis.
    places: &'a [u64],
}

impl<T: Element> Run<'_, T> {
    fn each<C>(&self, cells: &mut [C], mut push: impl FnMut(&mut C, T, u64)) {
        if self.is_reduced {
            let cell = &mut cells[self.cell];
            for (value, position) in self.values.iter().zip(self.places) {
                push(cell, *value, self.position + position);
            }
        } else {
            for (cell, value) in cells[self.cell..].iter_mut().zip(self.values) {
                push(cell, *value, self.position);
            }
        }
    }

    /// The cell and values of a run that goes into one cell.
    fn one_cell<'c, C>(&self, cells: &'c mut [C]) -> Option<(&'c mut C, &[T])> {
        self.is_reduced
            .then(|| (&mut cells[self.cell], self.values))
    }
}

/// Calls `visit` with the runs of the box in C order.
fn for_each_run<T: Element>(values: &[T], block: &Block<'_>, mut visit: impl FnMut(Run<'_, T>)) {
    let Some(last) = block.shape.len().checked_sub(1) else {
        visit(Run {
            values,
            cell: 0,
            is_reduced: true,
            position: 0,
            places: &[0],
        });
        return;
    };
    if values.is_empty() {
        return;
    }
    let kept = kept_lengths(block);
    let cell_strides = shape::strides(&kept);
    let reduced_lengths: Vec<u64> = block
        .selection_shape
        .iter()
        .zip(block.reduced)
        .map(|(&length, &reduced)| if reduced { length } else { 1 })
        .collect();
    let position_strides = shape::strides(&reduced_lengths);
    let length = block.shape[last] as usize;
    let mut outer = block.shape.to_vec();
    outer[last] = 1;
    for (at, run) in array::Region::whole(&outer)
        .positions()
        .zip(values.chunks_exact(length))
    {
        let (mut cell, mut position) = (0, 0);
        for axis in 0..=last {
            if block.reduced[axis] {
                let place = if axis == last {
                    0
                } else {
                    block.places[axis][at[axis] as usize]
                };
                position += place * position_strides[axis];
            } else {
                cell += at[axis] * cell_strides[axis];
            }
        }
        visit(Run {
            values: run,
            cell: cell as usize,
            is_reduced: block.reduced[last],
            position,
            places: &block.places[last],
        });
    }
}

/// Merges partials that come in order, as a Merkle tree would: the left part always takes the
/// largest power of two. Holds as many partials as the number pushed has binary digits.
#[derive(Debug, Default)]
pub struct Combiner {
    stack: Vec<(u64, Partial)>,
}

impl Combiner {
    /// Takes the next partial.
    pub fn push(&mut self, partial: Partial) {
        let mut next = (1, partial);
        while let Some((size, mut left)) = self.stack.pop_if(|(size, _)| *size == next.0) {
            left.merge(&next.1);
            next = (size * 2, left);
        }
        self.stack.push(next);
    }

    /// The merged partial; `None` if there was none.
    pub fn finish(self) -> Option<Partial> {
        self.stack
            .into_iter()
            .map(|(_, partial)| partial)
            .rev()
            .reduce(|right, mut left| {
                left.merge(&right);
                left
            })
    }
}
