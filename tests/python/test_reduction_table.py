"""Every reducer, over every numeric type and kind of missing value, along every axis: as xarray."""

from __future__ import annotations

import io
import warnings

import netCDF4
import numpy as np
import pytest
import requests
import xarray as xr

import service

pytestmark = pytest.mark.once

SHAPE = (7, 5, 6)
DIMENSIONS = ("z", "y", "x")
TYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"]
REDUCERS = [
    "sum", "prod", "mean", "min", "max", "count", "std", "var", "any", "all", "argmin", "argmax",
    "median",
]  # fmt: skip
AXES = [("z",), ("y",), ("x",), ("z", "x"), DIMENSIONS]
SLICES = {"...": np.s_[...], "1:6,::2,[0,5,2]": np.s_[1:6, ::2, [0, 5, 2]]}


def kinds(data_type: str) -> list[str]:
    floats = ["nan", "infinite"] if data_type[0] == "f" else []
    return ["plain", "fill", "missing", "range", "packed", "all", *floats]


def write(file: netCDF4.Dataset, data_type: str, kind: str) -> None:
    """A variable of small numbers, some of them missing."""
    random = np.random.default_rng(abs(hash_of(data_type + kind)))
    values = random.integers(-9 if data_type[0] != "u" else 0, 9, SHAPE).astype(data_type)
    if data_type[0] == "f":
        values += random.integers(0, 4, SHAPE).astype(data_type) / 4
    options = {}
    if kind in ("fill", "packed", "all"):
        options["fill_value"] = np.array(3, data_type)
    variable = file.createVariable(f"{data_type}_{kind}", data_type, DIMENSIONS, **options)
    variable.set_auto_maskandscale(False)
    if kind == "missing":
        variable.missing_value = np.array(3, data_type)
    if kind == "range":
        variable.valid_range = np.array([1, 6], data_type)
    if kind == "packed":
        variable.scale_factor, variable.add_offset = 0.25, 100.0
    if kind == "all":
        values[...] = 3
    if kind == "nan":
        values[random.random(SHAPE) < 0.3] = np.nan
    if kind == "infinite":
        values[0, 0, 0], values[3, 2, 1] = np.inf, np.nan
    variable[...] = values


def hash_of(text: str) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**32


@pytest.fixture(scope="module")
def table(tmp_path_factory, store) -> xr.Dataset:
    path = tmp_path_factory.mktemp("table") / "table.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, length in zip(DIMENSIONS, SHAPE, strict=True):
            file.createDimension(name, length)
        for data_type in TYPES:
            for kind in kinds(data_type):
                write(file, data_type, kind)
    chunks = ["--chunks", "z=2,y=2,x=3", "--shards", "z=4,y=4,x=3"]
    service.run("import", path, "--to", "table", *chunks, "--store", store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(path)


def wanted(array: xr.DataArray, reducer: str, axes: tuple[str, ...], skipna: bool | None):
    """What xarray gives; `None` where it gives nothing."""
    options = {} if skipna is None or reducer in ("count", "any", "all") else {"skipna": skipna}
    if array.dtype == "f4" and reducer in ("sum", "prod", "mean", "std", "var"):
        # As exact as the result's type allows: NumPy calculates in that type.
        array = array.astype("f8")
        exact = getattr(array, reducer)(axes, **options)
        return exact.astype("f4")
    try:
        if reducer in ("argmin", "argmax"):
            flat = array.stack(all=axes).values if len(axes) > 1 else array.values
            axis = -1 if len(axes) > 1 else array.dims.index(axes[0])
            find = getattr(np, reducer if skipna is False else f"nan{reducer}")
            if array.dtype.kind != "f":
                find = getattr(np, reducer)
            return np.asarray(find(flat, axis=axis)).astype("i8")
        return getattr(array, reducer)(axes, **options)
    except ValueError:
        return None


@pytest.mark.parametrize("data_type", TYPES)
@pytest.mark.parametrize(("text", "skipna"), [*((text, None) for text in SLICES), ("...", False)])
def test_reductions_are_those_of_xarray(server, table, data_type, text, skipna):
    session = requests.Session()
    for kind in kinds(data_type):
        name = f"{data_type}_{kind}"
        array = table[name]
        if kind == "range":
            # xarray leaves such values in.
            array = array.where((array >= 1) & (array <= 6))
        array = array[SLICES[text]]
        for reducer in REDUCERS:
            for axes in AXES:
                query = {"reduce": reducer, "over": ",".join(axes), "slice": text, "f": "npy"}
                if skipna is not None:
                    query["skipna"] = str(skipna).lower()
                url = server.url + server.data_url("table", name, "reduce")
                answer = session.get(url, params=query, timeout=60)
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    expected = wanted(array, reducer, axes, skipna)
                case = f"{name} {query}"
                if expected is None:
                    assert answer.status_code == 422, case
                    continue
                assert answer.status_code == 200, f"{case}: {answer.text}"
                found, expected = np.load(io.BytesIO(answer.content)), np.asarray(expected)
                assert (found.shape, found.dtype) == (expected.shape, expected.dtype), case
                rtol = 3e-7 if found.dtype == "f4" else 1e-12
                np.testing.assert_allclose(
                    found, expected, rtol=rtol, atol=1e-12, equal_nan=True, err_msg=case
                )
