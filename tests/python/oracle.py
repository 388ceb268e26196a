"""What xarray shows for a file: the truth that a dataset read through Quarr must equal.

`docs/format.md`, "What importers write": a file opened without decoding, written by xarray as Zarr
version 3 and opened again.
"""

from __future__ import annotations

import math
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

ENCODING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "units", "calendar", "coordinates")


def groups(path: Path) -> list[str]:
    """Paths of a NetCDF file's groups, the root (``""``) first."""

    def walk(group, prefix: str) -> list[str]:
        below = [walk(child, f"{prefix}/{name}") for name, child in group.groups.items()]
        return [prefix] + [path for paths in below for path in paths]

    with netCDF4.Dataset(path) as dataset:
        return [path.lstrip("/") for path in walk(dataset, "")]


def expected(path: Path, group: str, scratch: Path) -> xr.Dataset:
    """The oracle for one group of a NetCDF file; `scratch` must not exist."""
    raw = xr.open_dataset(path, group=group or None, decode_cf=False, engine="netcdf4")
    for variable in raw.variables.values():
        drop_unholdable_fill(variable)
    raw.to_zarr(scratch, zarr_format=3)
    return xr.open_zarr(scratch)


def drop_unholdable_fill(variable: xr.Variable) -> None:
    """The one exception: a `_FillValue` that xarray cannot write (outside the data type) or cannot
    open again (text)."""
    fill = variable.attrs.get("_FillValue")
    if fill is None or variable.dtype.kind not in "iuSUTO":
        return
    if variable.dtype.kind in "iu":
        limits = np.iinfo(variable.dtype)
        if math.isfinite(fill) and limits.min <= fill <= limits.max and fill == int(fill):
            return
    del variable.attrs["_FillValue"]


def assert_same_dataset(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Same variables, coordinates, sizes and attributes, and each variable the same."""
    assert set(found.variables) == set(wanted.variables)
    assert set(found.coords) == set(wanted.coords)
    assert dict(found.sizes) == dict(wanted.sizes)
    assert_same_attributes(found.attrs, wanted.attrs, "dataset")
    for name in wanted.variables:
        assert_same_variable(found[name], wanted[name])


def assert_same_variable(found: xr.DataArray, wanted: xr.DataArray) -> None:
    name = wanted.name
    assert found.dims == wanted.dims, name
    # Text of any length stays that; xarray's writer pads it to the longest value instead.
    is_text = found.dtype.kind in "TO" and wanted.dtype.kind == "U"
    assert is_text or found.dtype == wanted.dtype, name
    assert_same_attributes(found.attrs, wanted.attrs, name)
    assert_same_attributes(encoding(found), encoding(wanted), f"{name} encoding")
    np.testing.assert_array_equal(
        found.values, wanted.values, err_msg=str(name), strict=not is_text
    )


def encoding(variable: xr.DataArray) -> dict:
    """How values are packed. A fill value of NaN, which xarray gives every float, says nothing."""
    kept = {key: variable.encoding[key] for key in ENCODING if key in variable.encoding}
    fill = kept.get("_FillValue")
    if isinstance(fill, float) and math.isnan(fill):
        del kept["_FillValue"]
    return kept


def assert_same_attributes(found: dict, wanted: dict, where) -> None:
    assert set(found) == set(wanted), where
    for key, value in wanted.items():
        value = as_json(value)
        assert same_value(found[key], value), (where, key, found[key], value)


def as_json(value):
    """JSON has no NaN and no infinities: attributes hold their names, as Zarr's fill values do."""
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def same_value(found, wanted) -> bool:
    """Equal in type, length and value; NaN equals NaN."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, (list, tuple, np.ndarray)):
        return len(found) == len(wanted) and all(map(same_value, found, wanted))
    if isinstance(wanted, (float, np.floating)) and math.isnan(wanted):
        return math.isnan(found)
    return bool(found == wanted)
