//! What can keep a device from doing something. The CPU does it then.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

/// Why a device did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Its memory, or the share of it that may be used, is taken.
    #[error("the device has no memory left")]
    OutOfMemory,
    /// There is no kernel for it.
    #[error("no kernel does this")]
    Unsupported,
    /// All its streams are at work.
    #[error("the device is busy")]
    Busy,
    /// Compressed streams were not decompressed there: they are damaged, or nvCOMP does not know how.
    #[error("the device did not decompress all streams: status {status}")]
    Undecoded {
        /// What nvCOMP says of the first of them; 0 if it only gave another number of bytes.
        status: i32,
    },
    /// The driver refused, or the device broke.
    #[error("the device failed: {reason}")]
    Failed {
        /// What the driver says.
        reason: String,
    },
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::OutOfMemory,
            code => Self::Failed {
                reason: format!("{code:?}"),
            },
        }
    }
}

/// Why there is no device to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No CUDA driver is installed.
    #[error("no CUDA driver is installed")]
    NoDriver,
    /// The driver knows too little of CUDA.
    #[error("the driver knows CUDA {found}, {needed} is needed")]
    TooOld {
        /// What it knows, as `12.1`.
        found: String,
        /// What is needed.
        needed: String,
    },
    /// A function that is needed is not in the driver's library.
    #[error("the driver has no function {name}")]
    NoFunction {
        /// Its name.
        name: &'static str,
    },
    /// There is a driver and no device.
    #[error("there is no CUDA device")]
    NoDevice,
    /// The driver or every device failed.
    #[error("the driver failed: {reason}")]
    Failed {
        /// What the driver says.
        reason: String,
    },
}
