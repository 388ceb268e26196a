//! Sums over two vectors on a device: products of matrices, nearest neighbours.
//!
//! Elements are copied as they are, widened there, and summed in the order of [`crate::lanes`], so the
//! bits are those of the processor. With [`Settings::is_relaxed`](super::Settings), products of
//! floats come from cuBLAS where it is installed: faster, and in an order of its own.

#![expect(unsafe_code, reason = "cuBLAS is a library in C")]

use std::sync::Arc;

use array::DataType;
use cudarc::cublas::{result, sys};
use cudarc::driver::{CudaContext, CudaStream};

use super::device::Device;
use super::driver::{self, DeviceMemory, Launch, Pinned};
use super::error::Failure;
use super::memory::{Places, Span};
use super::params::{SumsParams, THREADS, WARP, Widen};
use crate::lanes::{SumOf, Sums, Vectors};

/// Vectors on either side that one warp takes (`vectors.cu`).
const TILE: u64 = 4;
/// Most bytes of a product's factors and results on the device.
const BYTES_MAX: usize = 1 << 30;

/// What sums over vectors are made in: one stream and its memory.
#[derive(Debug)]
pub(super) struct VectorLane {
    /// First, so that it goes before its stream.
    blas: Option<Blas>,
    stream: Arc<CudaStream>,
    pinned: Option<Pinned>,
    memory: Option<DeviceMemory>,
}

/// What was found: the sums, those of one left vector together, and the products of the right
/// vectors with themselves if they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundSums {
    /// One for each pair.
    pub sums: Sums,
    /// One for each right vector.
    pub own_products: Vec<f64>,
}

/// The number of a type in `vectors.cu`.
fn kind(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Bool | DataType::UInt8 => 0,
        DataType::Int8 => 1,
        DataType::UInt16 => 2,
        DataType::Int16 => 3,
        DataType::UInt32 => 4,
        DataType::Int32 => 5,
        DataType::UInt64 => 6,
        DataType::Int64 => 7,
        DataType::Float16 => 8,
        DataType::BFloat16 => 9,
        DataType::Float32 => 10,
        DataType::Float64 => 11,
        _ => return None,
    })
}

impl VectorLane {
    pub(super) fn new(context: &Arc<CudaContext>, is_relaxed: bool) -> Result<Self, Failure> {
        let stream = context.new_stream()?;
        let blas = match is_relaxed {
            true => Blas::new(&stream),
            false => None,
        };
        Ok(Self {
            stream,
            pinned: None,
            memory: None,
            blas,
        })
    }

    /// Sums over each left and each right vector; products in whatever order cuBLAS likes, if that is
    /// enough and it is there.
    pub(super) fn sums(
        &mut self,
        device: &Device,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        with_own_products: bool,
        is_relaxed: bool,
    ) -> Result<FoundSums, Failure> {
        let done = self.try_sums(device, of, left, right, with_own_products, is_relaxed);
        if done.is_err() {
            // What was started still reads and writes the memory.
            self.stream.synchronize()?;
        }
        done
    }

    fn try_sums(
        &mut self,
        device: &Device,
        of: SumOf,
        left: &Vectors<'_>,
        right: &Vectors<'_>,
        with_own_products: bool,
        is_relaxed: bool,
    ) -> Result<FoundSums, Failure> {
        let extent = |vectors: &Vectors<'_>| vectors.count().checked_mul(vectors.length());
        let words = |count: Option<usize>| count.and_then(|count| count.checked_mul(8));
        let mut places = Places::default();
        let mut take = |bytes: Option<usize>| {
            let bytes = bytes.ok_or(Failure::Unsupported)?;
            places.take(bytes).ok_or(Failure::Unsupported)
        };
        let sources = [left, right].map(|vectors| vectors.source().1.len());
        // Inputs and results first: they have places on the host too.
        let inputs = [take(Some(sources[0]))?, take(Some(sources[1]))?];
        let out = take(words(left.count().checked_mul(right.count())))?;
        let own = take(Some(8 * if with_own_products { right.count() } else { 0 }))?;
        let on_host = own.start + own.bytes;
        let widened = [take(words(extent(left)))?, take(words(extent(right)))?];
        if places.bytes() > BYTES_MAX {
            return Err(Failure::Unsupported);
        }
        self.reserve(device, on_host, places.bytes())?;
        let (Some(pinned), Some(memory)) = (&mut self.pinned, &self.memory) else {
            return Err(Failure::Unsupported);
        };
        let at = |span: &Span| memory.address() + span.start as u64;
        for (nth, vectors) in [left, right].into_iter().enumerate() {
            let (data_type, bytes, are_rows) = vectors.source();
            let span = inputs[nth];
            pinned.as_mut_slice()[span.start..span.start + span.bytes].copy_from_slice(bytes);
            driver::copy_in(&self.stream, pinned, span, at(&span))?;
            let name = match of {
                SumOf::WrappingProducts => "widen_words",
                SumOf::Products | SumOf::SquaredDifferences => "widen_numbers",
            };
            let widen = Widen {
                elements: at(&span),
                out: at(&widened[nth]),
                count: vectors.count() as u64,
                length: vectors.length() as u64,
                kind: kind(data_type).ok_or(Failure::Unsupported)?,
                are_rows: u32::from(are_rows),
            };
            launch(
                device,
                &self.stream,
                name,
                widen.count * widen.length,
                &widen,
            )?;
        }
        let params = SumsParams {
            left: at(&widened[0]),
            right: at(&widened[1]),
            out: at(&out),
            rows: left.count() as u64,
            columns: right.count() as u64,
            length: left.length() as u64,
        };
        let tiles = params.rows.div_ceil(TILE) * params.columns.div_ceil(TILE);
        match (of, &self.blas) {
            (SumOf::Products, Some(blas)) if is_relaxed => blas.products(&params)?,
            (SumOf::Products, _) => warps(device, &self.stream, "products", tiles, &params)?,
            (SumOf::WrappingProducts, _) => {
                warps(device, &self.stream, "wrapping_products", tiles, &params)?;
            }
            (SumOf::SquaredDifferences, _) => {
                warps(device, &self.stream, "squared_differences", tiles, &params)?;
            }
        }
        if with_own_products {
            let own_params = SumsParams {
                left: params.right,
                out: at(&own),
                rows: params.columns,
                ..params
            };
            warps(
                device,
                &self.stream,
                "own_products",
                params.columns,
                &own_params,
            )?;
        }
        for span in [out, own] {
            driver::copy_out(&self.stream, pinned, span, at(&span))?;
        }
        self.stream.synchronize()?;
        let words = |span: Span| {
            let bytes = &pinned.as_slice()[span.start..span.start + span.bytes];
            bytes
                .chunks_exact(8)
                .map(bytemuck::pod_read_unaligned::<u64>)
        };
        let floats = |span: Span| words(span).map(f64::from_bits).collect();
        Ok(FoundSums {
            sums: match of {
                SumOf::WrappingProducts => Sums::Words(words(out).collect()),
                SumOf::Products | SumOf::SquaredDifferences => Sums::Floats(floats(out)),
            },
            own_products: floats(own),
        })
    }

    fn reserve(&mut self, device: &Device, on_host: usize, bytes: usize) -> Result<(), Failure> {
        if self
            .pinned
            .as_ref()
            .is_none_or(|pinned| pinned.bytes() < on_host)
        {
            self.pinned = None;
            self.pinned = Some(Pinned::new(self.stream.context(), on_host)?);
        }
        if self
            .memory
            .as_ref()
            .is_none_or(|memory| memory.bytes() < bytes)
        {
            self.memory = None;
            self.memory = Some(device.take(&self.stream, bytes)?);
        }
        Ok(())
    }
}

impl Drop for VectorLane {
    fn drop(&mut self) {
        // Nothing may still use the memory when it goes.
        let _ = self.stream.synchronize();
    }
}

fn launch<P: bytemuck::Pod>(
    device: &Device,
    stream: &CudaStream,
    name: &'static str,
    threads: u64,
    params: &P,
) -> Result<(), Failure> {
    let blocks = i32::try_from(threads.div_ceil(u64::from(THREADS)).max(1));
    let blocks = blocks.map_err(|_| Failure::Unsupported)? as u32;
    let function = device.kernels().get("vectors", name)?;
    device.launched(1);
    Launch::new(function, (blocks, 1), params).run(stream)
}

fn warps(
    device: &Device,
    stream: &CudaStream,
    name: &'static str,
    warps: u64,
    params: &SumsParams,
) -> Result<(), Failure> {
    launch(
        device,
        stream,
        name,
        warps.saturating_mul(u64::from(WARP)),
        params,
    )
}

/// cuBLAS, on one stream.
#[derive(Debug)]
struct Blas {
    handle: sys::cublasHandle_t,
}

// SAFETY: a handle may be used by any thread, one at a time; its lane is used by one at a time.
unsafe impl Send for Blas {}

impl Blas {
    /// `None` where the library is not installed or does not work.
    fn new(stream: &CudaStream) -> Option<Self> {
        stream.context().bind_to_thread().ok()?;
        // SAFETY: loads the library by its name, as a program that links with it would.
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let blas = Self {
            handle: result::create_handle().ok()?,
        };
        // SAFETY: the handle is new; the stream lives as long as the lane that owns both.
        unsafe { result::set_stream(blas.handle, stream.cu_stream().cast()) }.ok()?;
        Some(blas)
    }

    /// The products of each left with each right vector.
    fn products(&self, params: &SumsParams) -> Result<(), Failure> {
        let int = |number: u64| i32::try_from(number).map_err(|_| Failure::Unsupported);
        let (rows, columns) = (int(params.rows)?, int(params.columns)?);
        let length = int(params.length)?;
        if rows == 0 || columns == 0 || length == 0 {
            return Err(Failure::Unsupported);
        }
        // Matrices are in C order, which cuBLAS reads as their transposes.
        let (transposed, plain) = (
            sys::cublasOperation_t::CUBLAS_OP_T,
            sys::cublasOperation_t::CUBLAS_OP_N,
        );
        // SAFETY: the addresses are those of matrices of these sizes, laid out by `try_sums`; the
        // factors are numbers on the host, the handle's default.
        let done = unsafe {
            result::dgemm(
                self.handle,
                transposed,
                plain,
                columns,
                rows,
                length,
                &raw const ONE,
                params.right as *const f64,
                length,
                params.left as *const f64,
                length,
                &raw const ZERO,
                params.out as *mut f64,
                columns,
            )
        };
        done.map_err(|error| Failure::Failed {
            reason: format!("cuBLAS: {error:?}"),
        })
    }
}

static ONE: f64 = 1.0;
static ZERO: f64 = 0.0;

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by `new`, dropped once.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
