//! The devices that tests use.

use std::ffi::CString;
use std::os::raw::c_char;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use compute::gpu::{Gpus, Settings};

/// Tests take turns: what the emulated device is told holds for all of them.
static TURN: Mutex<()> = Mutex::new(());

/// Devices, of which the test has the only use.
pub(crate) struct Devices {
    pub(crate) gpus: Gpus,
    emulator: Option<&'static libloading::Library>,
    _turn: MutexGuard<'static, ()>,
}

enum Driver {
    Real,
    Emulated(&'static libloading::Library),
    None,
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        if ["libcuda.so", "libcuda.so.1"].into_iter().any(|name| {
            // SAFETY: whatever is installed under this name is meant to be loaded.
            unsafe { libloading::Library::new(name) }.is_ok()
        }) {
            return Driver::Real;
        }
        let Some(folder) = build() else {
            return Driver::None;
        };
        // A library that is loaded is found again by its name.
        let load = |name: &str| {
            // SAFETY: built from this repository.
            let library = unsafe { libloading::Library::new(folder.join(name)) };
            &*Box::leak(Box::new(library.unwrap()))
        };
        let driver = load("libcuda.so.1");
        load("libcublas.so.12");
        Driver::Emulated(driver)
    })
}

/// Builds the emulated device; `None` without a C++ compiler.
fn build() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    let mut script = Command::new(root.join("scripts/build-emulator.sh"));
    let status = script.arg(&folder).status().unwrap();
    match status.code() {
        Some(0) => Some(folder),
        Some(3) => None,
        other => panic!("scripts/build-emulator.sh ended with {other:?}"),
    }
}

/// Devices with so much memory; `None`, and a message, where there can be none.
pub(crate) fn open(memory_limit_bytes: Option<u64>) -> Option<Devices> {
    open_with(Settings {
        memory_limit_bytes,
        ..Settings::default()
    })
}

/// Devices with settings.
pub(crate) fn open_with(settings: Settings) -> Option<Devices> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let emulator = match driver() {
        Driver::Real => None,
        Driver::Emulated(library) => Some(*library),
        Driver::None => {
            eprintln!("skipped: neither a CUDA device nor a C++ compiler for the emulated one");
            return None;
        }
    };
    let gpus = match (Gpus::open(settings), emulator) {
        (Err(unavailable), None) => {
            eprintln!("skipped: {unavailable}");
            return None;
        }
        (gpus, _) => gpus.unwrap(),
    };
    Some(Devices {
        gpus,
        emulator,
        _turn: turn,
    })
}

impl Devices {
    /// Whether the device is emulated.
    pub(crate) fn is_emulated(&self) -> bool {
        self.emulator.is_some()
    }

    /// Tells the emulated device something; `false` if there is none.
    pub(crate) fn configure(&self, name: &str, value: &str) -> bool {
        let Some(library) = self.emulator else {
            eprintln!("skipped: only an emulated device fails when it is told to");
            return false;
        };
        type Configure = unsafe extern "C" fn(*const c_char, *const c_char);
        let (name, value) = (CString::new(name).unwrap(), CString::new(value).unwrap());
        // SAFETY: as compute/emulator/driver.h declares it.
        unsafe {
            let configure = library
                .get::<Configure>(b"quarr_emulator_configure")
                .unwrap();
            configure(name.as_ptr(), value.as_ptr());
        }
        true
    }

    /// Bytes that are taken on the first device, as the emulated driver counts them.
    pub(crate) fn allocated(&self) -> Option<usize> {
        type Allocated = unsafe extern "C" fn(i32) -> usize;
        // SAFETY: as compute/emulator/driver.h declares it.
        let allocated = unsafe {
            let function = self.emulator?.get::<Allocated>(b"quarr_emulator_allocated");
            function.unwrap()(0)
        };
        Some(allocated)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if self.emulator.is_some() {
            self.configure("FAIL", "");
        }
    }
}
