//! Many points of an array in one request.

use std::collections::BTreeMap;
use std::sync::Arc;

use array::{ChunkIndex, DataType, Elements, ResolvedSelection, Tensor, shape};
use compute::cf::{CfDecoder, Decode};
use compute::gather::{self, AxisPart};

use crate::budget::Reservation;
use crate::concurrent::{self, Work};
use crate::engine::{Engine, Rows};
use crate::output::Output;
use crate::plan::{ChunkRead, Plan};
use crate::{ArrayReader, Error};

/// Points along some axes of an array; each takes all of the other axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Points {
    /// By axis, the position of every point, or `None` for an axis they take all of.
    pub axes: Vec<Option<Vec<u64>>>,
    /// How many points there are.
    pub count: usize,
}

impl Points {
    /// Lengths of the axes that every point takes all of, 1 for the others.
    fn rest(&self, shape: &[u64]) -> Vec<u64> {
        let axes = self.axes.iter().zip(shape);
        axes.map(|(axis, &length)| if axis.is_some() { 1 } else { length })
            .collect()
    }
}

impl Engine {
    /// Memory that reading points takes, in bytes, of which the result is part.
    ///
    /// # Errors
    /// [`Error::Array`] if it is 2^64 or more.
    pub fn points_bytes(&self, array: &ArrayReader, points: &Points) -> Result<u64, Error> {
        let metadata = array.metadata();
        let rest = shape::elements(&points.rest(metadata.shape()))?;
        let size = metadata.data_type.size_bytes().unwrap_or(64) as u64;
        let result = rest
            .checked_mul(points.count as u64)
            .and_then(|cells| cells.checked_mul(size + 8))
            .ok_or(array::Error::TooLarge { what: "result" })?;
        let whole = ResolvedSelection::whole(metadata.shape());
        let plan = Plan::new(whole, metadata.shape(), &array.codec);
        let positions = (points.count as u64).saturating_mul(8 * points.axes.len() as u64);
        Ok(result
            .saturating_add(positions)
            .saturating_add(self.scratch_bytes(array, &plan)))
    }

    /// Reads points with memory that was reserved for it, as [`Engine::points_bytes`] tells. Their
    /// number is the first dimension of the result, the axes they take all of are the others. Each
    /// inner chunk is read and decoded once, whatever the order of the points.
    ///
    /// # Errors
    /// [`Error::Array`] for positions outside the array, and for elements of no fixed size; else as
    /// [`Engine::read`].
    pub async fn points(
        &self,
        array: &ArrayReader,
        points: &Points,
        decode: Decode,
        _reservation: &Reservation,
    ) -> Result<Tensor, Error> {
        let metadata = array.metadata();
        let data_type = &metadata.data_type;
        check(points, metadata.shape(), data_type)?;
        let decoder = CfDecoder::new(data_type, &metadata.attributes, decode)?;
        let rest = points.rest(metadata.shape());
        let cells = shape::elements(&rest)?.saturating_mul(points.count as u64);
        let fill = array.codec.fill_value().as_bytes();
        let Elements::Fixed(bytes) = Elements::repeat(data_type, fill, cells)? else {
            return Err(Error::Cancelled);
        };
        let whole = ResolvedSelection::whole(metadata.shape());
        let plan = Plan::new(whole, metadata.shape(), &array.codec);
        let chunks = by_chunk(array, &plan, points);
        let rows = self.rows_of(array, &chunks).await?;
        let in_order = chunks.keys().filter_map(|index| rows.get(index));
        let job = Arc::new(Job {
            array: self.fetcher.sharing(array, in_order),
            rows,
            plan,
            points: points.clone(),
            rest: rest.clone(),
            output: Output::new(bytes),
        });
        let work = chunks.into_iter().map(|(index, inner)| -> Work<'_> {
            Box::pin(self.points_of_chunk(&job, index, inner))
        });
        concurrent::all(self.concurrent_chunks(), work).await?;
        let job = Arc::into_inner(job).ok_or(Error::Cancelled)?;
        let mut bytes = job.output.into_inner();
        if let Some(decoder) = &decoder {
            bytes = decoder.decode(&bytes);
        }
        let axes = points
            .axes
            .iter()
            .zip(&rest)
            .filter(|(axis, _)| axis.is_none());
        let mut lengths = vec![points.count as u64];
        lengths.extend(axes.map(|(_, &length)| length));
        Ok(Tensor {
            data_type: decoder.map_or(data_type.clone(), |d| d.data_type().clone()),
            shape: lengths,
            elements: Elements::Fixed(bytes),
        })
    }

    async fn rows_of(&self, array: &ArrayReader, chunks: &Chunks) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        for index in chunks.keys() {
            if let Some(row) = array.node.chunk(index).await? {
                rows.insert(index.clone(), row);
            }
        }
        Ok(rows)
    }

    async fn points_of_chunk(
        &self,
        job: &Arc<Job>,
        index: ChunkIndex,
        wanted: Wanted,
    ) -> Result<(), Error> {
        let Some(row) = job.rows.get(&index) else {
            return Ok(());
        };
        let read = ChunkRead {
            index,
            inner: wanted.keys().cloned().collect(),
        };
        let needed = crate::engine::numbers(&job.array, &job.plan, &read);
        let chunks = self.fetcher.inner_chunks(&job.array, row, &needed).await?;
        let pieces = wanted.into_iter().zip(chunks);
        let pieces: Vec<_> = pieces
            .filter_map(|((inner, points), bytes)| Some((inner, points, bytes?)))
            .collect();
        let per_task = pieces.len().div_ceil(self.pool.threads()).max(1);
        let mut tasks: Vec<Work<'_>> = Vec::new();
        for part in pieces.chunks(per_task) {
            let (job, row, part) = (job.clone(), row.clone(), part.to_vec());
            tasks.push(Box::pin(self.pool.run(move || {
                let mut decoded = vec![0; job.array.codec.decoded_bytes()];
                for (inner, points, bytes) in part {
                    let result = job.array.codec.decode_into(&bytes, &mut decoded);
                    result.map_err(|error| job.array.corrupt(&row, error))?;
                    points
                        .iter()
                        .for_each(|&point| job.put(&inner, point, &decoded));
                }
                Ok(())
            })));
        }
        let all = tasks.len().max(1);
        concurrent::all(all, tasks.into_iter()).await
    }
}

/// By inner chunk, the points that have cells in it.
type Wanted = BTreeMap<Vec<u64>, Vec<usize>>;

/// The same by stored chunk.
type Chunks = BTreeMap<ChunkIndex, Wanted>;

struct Job {
    array: ArrayReader,
    plan: Plan,
    rows: Rows,
    points: Points,
    rest: Vec<u64>,
    output: Output,
}

impl Job {
    /// Copies the cells of a point that are in an inner chunk to their places.
    fn put(&self, inner: &[u64], point: usize, decoded: &[u8]) {
        let inner_shape = self.array.codec.inner_shape();
        let parts: Vec<AxisPart> = self
            .points
            .axes
            .iter()
            .enumerate()
            .map(|(axis, positions)| match positions {
                Some(positions) => AxisPart {
                    source: vec![positions[point] - inner[axis] * inner_shape[axis]],
                    target: vec![0],
                },
                None => self.plan.part(axis, inner[axis]),
            })
            .collect();
        let size = self.array.metadata().data_type.size_bytes().unwrap_or(1);
        let start = point * self.rest.iter().product::<u64>() as usize;
        gather::for_each_run(&parts, inner_shape, &self.rest, |from, to, count| {
            let (from, length) = (from as usize * size, count as usize * size);
            // SAFETY: each point has its own places, and each inner chunk its own among those.
            #[expect(unsafe_code, reason = "see the module `output`")]
            let target = unsafe { self.output.range_mut((start + to as usize) * size, length) };
            target.copy_from_slice(&decoded[from..from + length]);
        });
    }
}

fn check(points: &Points, shape: &[u64], data_type: &DataType) -> Result<(), Error> {
    if data_type.is_variable_length() {
        return Err(array::Error::Unsupported {
            what: "points",
            reason: format!("{data_type} has elements of no fixed size"),
        }
        .into());
    }
    for (axis, (positions, &size)) in points.axes.iter().zip(shape).enumerate() {
        let outside = positions
            .iter()
            .flatten()
            .find(|position| **position >= size);
        if let Some(position) = outside {
            return Err(array::Error::OutOfBounds {
                axis,
                index: i64::try_from(*position).unwrap_or(i64::MAX),
                size,
            }
            .into());
        }
    }
    Ok(())
}

/// The inner chunks that hold cells of the points, by stored chunk.
fn by_chunk(array: &ArrayReader, plan: &Plan, points: &Points) -> Chunks {
    let inner_shape = array.codec.inner_shape();
    let mut columns: BTreeMap<Vec<Option<u64>>, Vec<usize>> = BTreeMap::new();
    for point in 0..points.count {
        let axes = points.axes.iter().zip(inner_shape);
        let column = axes.map(|(positions, length)| Some(positions.as_ref()?[point] / length));
        columns.entry(column.collect()).or_default().push(point);
    }
    let mut chunks = Chunks::new();
    for (column, points) in columns {
        let axes: Vec<Vec<u64>> = column
            .iter()
            .zip(plan.touched())
            .map(|(at, touched)| at.map_or_else(|| touched.clone(), |at| vec![at]))
            .collect();
        let lengths: Vec<u64> = axes.iter().map(|axis| axis.len() as u64).collect();
        for nth in array::Region::whole(&lengths).positions() {
            let inner: Vec<u64> = nth
                .iter()
                .zip(&axes)
                .map(|(&nth, axis)| axis[nth as usize])
                .collect();
            let (index, _) = plan.locate(&inner);
            chunks
                .entry(index)
                .or_default()
                .insert(inner, points.clone());
        }
    }
    chunks
}
