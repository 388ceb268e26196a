//! NetCDF files that xarray and netCDF4 open with coordinates and attributes; `importers` writes them.

use importers::netcdf::{self, Variable};

use super::Answer;
use crate::error::Failure;

/// An answer as a file.
///
/// # Errors
/// 406 for what NetCDF cannot hold.
pub(super) fn encode(answer: &Answer) -> Result<Vec<u8>, Failure> {
    let asked: Vec<Variable<'_>> = answer.variables.iter().map(view).collect();
    let coordinates: Vec<Variable<'_>> = answer.proper_coordinates().map(view).collect();
    netcdf::write(&asked, &coordinates).map_err(|error| {
        Failure::not_acceptable(format!("{error}: ask for f=json or f=octet-stream"))
    })
}

fn view(variable: &super::Variable) -> Variable<'_> {
    Variable {
        name: &variable.name,
        dimensions: &variable.dimensions,
        tensor: &variable.tensor,
        attributes: &variable.attributes,
    }
}
