//! The kernels: PTX that was compiled ahead, given to the driver when first needed.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use array::DataType;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule};

use super::driver;
use super::error::Failure;

/// Most bytes of the PTX of one module.
const PTX_BYTES_MAX: u64 = 16 << 20;

/// Modules by name, as `scripts/compile-kernels.py` makes them.
macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// Names of all modules.
        #[cfg(test)]
        pub(super) const NAMES: &[&str] = &[$($name),*];

        fn packed(name: &str) -> Option<&'static [u8]> {
            match name {
                $($name => Some(include_bytes!(concat!("ptx/", $name, ".ptx.gz"))),)*
                _ => None,
            }
        }
    };
}

modules!(
    "reduce_u8",
    "reduce_i8",
    "reduce_u16",
    "reduce_i16",
    "reduce_u32",
    "reduce_i32",
    "reduce_u64",
    "reduce_i64",
    "reduce_f16",
    "reduce_bf16",
    "reduce_f32",
    "reduce_f64",
    "fold",
    "vectors",
);

/// The PTX of a module.
pub(super) fn ptx(name: &str) -> Option<String> {
    let mut text = String::new();
    let unpacked = flate2::read::GzDecoder::new(packed(name)?);
    unpacked
        .take(PTX_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The module that reduces elements of a type; `None` if there is none.
pub(super) fn module_of(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Bool | DataType::UInt8 => "reduce_u8",
        DataType::Int8 => "reduce_i8",
        DataType::UInt16 => "reduce_u16",
        DataType::Int16 => "reduce_i16",
        DataType::UInt32 => "reduce_u32",
        DataType::Int32 => "reduce_i32",
        DataType::UInt64 => "reduce_u64",
        DataType::Int64 | DataType::DateTime64 { .. } | DataType::TimeDelta64 { .. } => {
            "reduce_i64"
        }
        DataType::Float16 => "reduce_f16",
        DataType::BFloat16 => "reduce_bf16",
        DataType::Float32 => "reduce_f32",
        DataType::Float64 => "reduce_f64",
        _ => return None,
    })
}

/// The kernels of one device.
#[derive(Debug)]
pub(super) struct Kernels {
    context: Arc<CudaContext>,
    modules: Mutex<HashMap<&'static str, Arc<CudaModule>>>,
    functions: Mutex<HashMap<(&'static str, &'static str), CudaFunction>>,
}

impl Kernels {
    pub(super) fn new(context: &Arc<CudaContext>) -> Self {
        Self {
            context: context.clone(),
            modules: Mutex::default(),
            functions: Mutex::default(),
        }
    }

    /// A kernel of a module.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the driver does not take the module.
    pub(super) fn get(
        &self,
        module: &'static str,
        name: &'static str,
    ) -> Result<CudaFunction, Failure> {
        let lock = &self.functions;
        let known = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = known.get(&(module, name)) {
            return Ok(function.clone());
        }
        drop(known);
        let function = self.module(module)?.load_function(name)?;
        let mut known = lock.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((module, name), function.clone());
        Ok(function)
    }

    fn module(&self, name: &'static str) -> Result<Arc<CudaModule>, Failure> {
        // Held while the driver compiles: nobody else compiles the same.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(name) {
            return Ok(module.clone());
        }
        let ptx = ptx(name).ok_or_else(|| Failure::Failed {
            reason: format!("there is no module {name}"),
        })?;
        let module = driver::load(&self.context, &ptx)?;
        modules.insert(name, module.clone());
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_ptx_that_an_old_driver_takes() {
        for name in NAMES {
            let ptx = ptx(name).unwrap();
            assert!(
                ptx.starts_with(&format!("// quarr module {name}\n")),
                "{name}"
            );
            assert!(ptx.contains(".version 8.1\n.target sm_70\n"), "{name}");
        }
    }
}
