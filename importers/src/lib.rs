//! NetCDF and HDF5 files into a transaction, and arrays back out
