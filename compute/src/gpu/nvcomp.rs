//! nvCOMP, where it is installed: decompression of many streams at once, on a device.
//!
//! Looked for at run time and never needed. What is used is its batched C API, which each major version
//! has a little differently; versions that are not known here are left alone, since there is no way to
//! find out what their functions take.
//!
//! nvCOMP checks little: it may write nonsense for damaged streams and say that all is well. See
//! [`Nvcomp::decompress`] for what its caller has to check.
//!
//! Source: `nvcomp/{zstd,deflate,lz4,bitcomp}.h`, `nvcomp/shared_types.h` and `nvcomp/version.h` of nvCOMP
//! 4.0, 4.2, 5.2 and 6.0.

use std::ffi::{OsStr, c_int, c_void};
use std::mem::MaybeUninit;

use cudarc::driver::sys::CUstream;
use libloading::Library;

/// What the library is called, the newest first.
const NAMES: [&str; 4] = [
    "libnvcomp.so.6",
    "libnvcomp.so.5",
    "libnvcomp.so.4",
    "libnvcomp.so",
];
/// What a stream may decode to: of zstd and Bitcomp as their headers have it, of the others more.
const MAX_DECODED_BYTES: usize = (1 << 31) - 1;
const MAX_BITCOMP_BYTES: usize = 1 << 25;

/// What streams are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Zstandard frames.
    Zstd,
    /// Deflate without header and trailer.
    Deflate,
    /// LZ4 blocks without a size before them.
    Lz4,
    /// nvCOMP's own format, with the header its compressor writes.
    Bitcomp,
}

/// The library, and what it has. Its functions may be called by any thread.
#[derive(Debug)]
pub(super) struct Nvcomp {
    version: u32,
    zstd: Option<Functions>,
    deflate: Option<Functions>,
    lz4: Option<Functions>,
    bitcomp: Option<Functions>,
    /// Where the functions are; loaded for as long as they may be called.
    _library: Library,
}

/// Multiples that addresses must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Alignments {
    /// Of every compressed stream.
    pub(super) input_bytes: usize,
    /// Of every place that a stream is decompressed to.
    pub(super) output_bytes: usize,
    /// Of the temporary memory.
    pub(super) temp_bytes: usize,
}

/// Streams to decompress. All but the two numbers are addresses on the device; arrays have `count` items.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Number of streams.
    pub(super) count: usize,
    /// Array of addresses (u64): where the streams are.
    pub(super) inputs: u64,
    /// Array of u64: how many bytes each has.
    pub(super) input_bytes: u64,
    /// Array of addresses (u64): where each is decompressed to.
    pub(super) outputs: u64,
    /// Array of u64: how many bytes there are at each output.
    pub(super) output_bytes: u64,
    /// Array of u64 that is written: how many bytes each stream decompressed to.
    pub(super) written_bytes: u64,
    /// Array of i32 that is written: 0 for each stream that was decompressed.
    pub(super) statuses: u64,
    /// Memory that nvCOMP works in; 0 if it needs none.
    pub(super) temp: u64,
    /// Bytes of it, at least [`Nvcomp::temp_bytes`].
    pub(super) temp_bytes: usize,
}

/// What a function of nvCOMP returned instead of success: an `nvcompStatus_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) i32);

/// Options of decompression, the same for all methods as long as they are zeros: no hardware engine is
/// asked for, streams are not sorted, nothing is shuffled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Options([c_int; 16]);

const DEFAULT: Options = Options([0; 16]);

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Properties {
    version: u32,
    runtime_version: u32,
}

type GetProperties = unsafe extern "C" fn(*mut Properties) -> c_int;
type GetAlignments = unsafe extern "C" fn(Options, *mut Alignments) -> c_int;
type GetTempSize4 = unsafe extern "C" fn(usize, usize, *mut usize, usize) -> c_int;
type GetTempSize5 = unsafe extern "C" fn(usize, usize, Options, *mut usize, usize) -> c_int;
type GetTempSize6 =
    unsafe extern "C" fn(usize, usize, Options, *mut usize, usize, CUstream) -> c_int;
type Decompress4 = unsafe extern "C" fn(
    *const *const c_void,
    *const usize,
    *const usize,
    *mut usize,
    usize,
    *mut c_void,
    usize,
    *const *mut c_void,
    *mut c_int,
    CUstream,
) -> c_int;
type Decompress5 = unsafe extern "C" fn(
    *const *const c_void,
    *const usize,
    *const usize,
    *mut usize,
    usize,
    *mut c_void,
    usize,
    *const *mut c_void,
    Options,
    *mut c_int,
    CUstream,
) -> c_int;

/// The functions of one method, by major version.
#[derive(Clone, Copy, Debug)]
enum Functions {
    Four(GetTempSize4, Decompress4),
    Five(GetAlignments, GetTempSize5, Decompress5),
    Six(GetAlignments, GetTempSize6, Decompress5),
}

impl Nvcomp {
    /// The newest library there is under its usual names, where the system looks for libraries; `None`
    /// if there is none, or none of a known version.
    pub(super) fn open() -> Option<Self> {
        NAMES
            .iter()
            .find_map(|name| Self::open_at(OsStr::new(name)))
    }

    /// The library of this name or path; `None` if it is not there, no nvCOMP or of another version.
    #[expect(
        unsafe_code,
        reason = "a library is loaded and one of its functions called"
    )]
    pub(super) fn open_at(path: &OsStr) -> Option<Self> {
        // SAFETY: what is run as the library is loaded is nvCOMP's own, which asks nothing of its caller;
        // that a file of its name is nvCOMP is for whoever can put one there.
        let library = unsafe { Library::new(path) }.ok()?;
        let get_properties = find::<GetProperties>(&library, "nvcompGetProperties")?;
        let mut properties = MaybeUninit::zeroed();
        // SAFETY: `nvcomp.h` of all known versions has this function with this signature, and it writes
        // two numbers of 32 bits; there is room for them.
        let (status, properties) = unsafe {
            let status = get_properties(properties.as_mut_ptr());
            (status, properties.assume_init())
        };
        let version = (status == 0).then_some(properties.version)?;
        let functions = |method| Functions::find(&library, version / 1000, method);
        Some(Self {
            version,
            zstd: functions("Zstd"),
            deflate: functions("Deflate"),
            lz4: functions("LZ4"),
            bitcomp: functions("Bitcomp"),
            _library: library,
        })
        .filter(|found| matches!(version / 1000, 4..=6) && found.zstd.is_some())
    }

    /// Its version: thousands are the major one, hundreds the minor one.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    fn functions(&self, method: Method) -> Option<Functions> {
        match method {
            Method::Zstd => self.zstd,
            Method::Deflate => self.deflate,
            Method::Lz4 => self.lz4,
            Method::Bitcomp => self.bitcomp,
        }
    }

    /// What addresses must be multiples of; `None` if the method is not there.
    #[expect(unsafe_code, reason = "a function of the library is called")]
    pub(super) fn alignments(&self, method: Method) -> Option<Alignments> {
        let (Functions::Five(get, ..) | Functions::Six(get, ..)) = self.functions(method)? else {
            // Nothing tells; this is the most that any header of version 4 says.
            return Some(Alignments {
                input_bytes: 8,
                output_bytes: 8,
                temp_bytes: 8,
            });
        };
        let mut alignments = Alignments {
            input_bytes: 0,
            output_bytes: 0,
            temp_bytes: 0,
        };
        // SAFETY: the signature is that of this version (`Functions::find`), and three numbers of the size of
        // `usize` are written to a place for three.
        let status = unsafe { get(DEFAULT, &raw mut alignments) };
        let is_known = [
            alignments.input_bytes,
            alignments.output_bytes,
            alignments.temp_bytes,
        ]
        .iter()
        .all(|bytes| bytes.is_power_of_two());
        (status == 0 && is_known).then_some(alignments)
    }

    /// Bytes of memory on the device that nvCOMP needs to decompress so many streams; `None` if the method
    /// is not there or a stream is too large for it.
    ///
    /// `max_decoded_bytes` is the most that a stream decodes to, `total_decoded_bytes` what all do. zstd
    /// takes about three times the latter.
    ///
    /// # Safety
    /// `stream` is alive, and its context is the current one.
    #[expect(unsafe_code, reason = "a function of the library is called")]
    pub(super) unsafe fn temp_bytes(
        &self,
        method: Method,
        count: usize,
        max_decoded_bytes: usize,
        total_decoded_bytes: usize,
        stream: CUstream,
    ) -> Option<usize> {
        let most = match method {
            Method::Bitcomp => MAX_BITCOMP_BYTES,
            Method::Zstd | Method::Deflate | Method::Lz4 => MAX_DECODED_BYTES,
        };
        if count == 0 || max_decoded_bytes > most {
            return None;
        }
        let (max, total) = (max_decoded_bytes, total_decoded_bytes);
        let mut bytes = 0;
        let to = &raw mut bytes;
        // SAFETY: the signatures are those of this version (`Functions::find`); they write one number to the
        // place for one, on the host. The stream is the caller's promise.
        let status = unsafe {
            match self.functions(method)? {
                Functions::Four(get, _) => get(count, max, to, total),
                Functions::Five(_, get, _) => get(count, max, DEFAULT, to, total),
                Functions::Six(_, get, _) => get(count, max, DEFAULT, to, total, stream),
            }
        };
        (status == 0).then_some(bytes)
    }

    /// Decompresses streams, in the order of `stream`, without waiting for it.
    ///
    /// What becomes of each stream is written to the device: after `stream` got there, a stream was
    /// decompressed only if its status is 0 and its written bytes are as many as were expected. Where that
    /// is not so, nothing is known about its output, and the chunk is to be decoded on the CPU. Even
    /// where it is so, damaged streams may have given other bytes than the CPU gives: checksums that the
    /// format has are not checked here.
    ///
    /// # Errors
    /// What nvCOMP says if it does not start: nothing was decompressed then.
    ///
    /// # Safety
    /// - `stream` is alive, and its context is the current one.
    /// - Arrays and memory of `batch` are as it says, on the device of `stream`, and stay so until
    ///   `stream` got past this; what is written overlaps nothing else.
    /// - Addresses are multiples of what [`Nvcomp::alignments`] says.
    /// - Streams are what a compressor of this method wrote: of others nvCOMP says that the behaviour is
    ///   undefined. It writes within the outputs in any case, as far as its headers promise.
    #[expect(unsafe_code, reason = "a function of the library is called")]
    pub(super) unsafe fn decompress(
        &self,
        method: Method,
        batch: &Batch,
        stream: CUstream,
    ) -> Result<(), Refused> {
        let Some(functions) = self.functions(method) else {
            return Err(Refused(NOT_SUPPORTED));
        };
        let inputs = batch.inputs as *const *const c_void;
        let input_bytes = batch.input_bytes as *const usize;
        let output_bytes = batch.output_bytes as *const usize;
        let written = batch.written_bytes as *mut usize;
        let temp = batch.temp as *mut c_void;
        let outputs = batch.outputs as *const *mut c_void;
        let statuses = batch.statuses as *mut c_int;
        let (count, temp_bytes) = (batch.count, batch.temp_bytes);
        // SAFETY: the signatures are those of this version (`Functions::find`); all else is the caller's
        // promise, in the words of nvCOMP's headers.
        let status = unsafe {
            match functions {
                Functions::Four(_, run) => run(
                    inputs,
                    input_bytes,
                    output_bytes,
                    written,
                    count,
                    temp,
                    temp_bytes,
                    outputs,
                    statuses,
                    stream,
                ),
                Functions::Five(.., run) | Functions::Six(.., run) => run(
                    inputs,
                    input_bytes,
                    output_bytes,
                    written,
                    count,
                    temp,
                    temp_bytes,
                    outputs,
                    DEFAULT,
                    statuses,
                    stream,
                ),
            }
        };
        match status {
            0 => Ok(()),
            status => Err(Refused(status)),
        }
    }
}

/// `nvcompErrorNotSupported`.
const NOT_SUPPORTED: i32 = 11;

impl Functions {
    /// Those of a method in a major version; `None` if one is missing or the version is not known.
    fn find(library: &Library, major: u32, method: &str) -> Option<Self> {
        let name = |what: &str| format!("nvcompBatched{method}Decompress{what}");
        let temp = match major {
            4 => name("GetTempSizeEx"),
            5 => name("GetTempSizeAsync"),
            _ => name("GetTempSize"),
        };
        let alignments = || find(library, &name("GetRequiredAlignments"));
        let run = name("Async");
        Some(match major {
            4 => Self::Four(find(library, &temp)?, find(library, &run)?),
            5 => Self::Five(alignments()?, find(library, &temp)?, find(library, &run)?),
            6 => Self::Six(alignments()?, find(library, &temp)?, find(library, &run)?),
            _ => return None,
        })
    }
}

/// The function of this name; `None` if there is none.
#[expect(unsafe_code, reason = "functions are found by their names")]
fn find<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: every use is with the signature that the headers of the version give for the name, and
    // `Nvcomp` keeps the library for as long as it has the function.
    let symbol = unsafe { library.get::<F>(name.as_bytes()) };
    symbol.ok().map(|symbol| *symbol)
}

#[cfg(test)]
mod tests;
