//! Shapes, data types, selections, chunk grids and zarr.json: the words everything else is written in
