"""Writes reduce.json and decode.json: what xarray makes of small arrays.

Run with xarray and NumPy 2 at hand: `python make.py`, in this folder. The tests read the files and
need no Python.
"""

import itertools
import json
import warnings

import numpy as np
import xarray as xr

warnings.simplefilter("ignore")
RANDOM = np.random.default_rng(20)
SHAPE = (2, 3, 4)
DIMS = ("x", "y", "z")
TYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
TIMES = ["M8[ns]", "m8[s]"]
AXES = [("x",), ("z",), ("x", "z"), ("y", "z"), DIMS]
REDUCERS = "sum prod mean min max count std var any all argmin argmax".split()


def values(dtype: np.dtype) -> np.ndarray:
    """Few distinct values, so that extremes tie; missing ones where the type has them."""
    if dtype.kind == "b":
        return RANDOM.random(SHAPE) < 0.8
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        array = RANDOM.integers(max(info.min, -6), 7, SHAPE).astype(dtype)
        # Not the extremes of 64 bits: NumPy's means of those are inexact, as quarr's are not.
        array[0, 0, :2] = max(info.min, -(2**40)), min(info.max, 2**40)
        return array
    array = RANDOM.integers(-6, 7, SHAPE)
    if dtype.kind in "mM":
        array = array.astype(dtype)
        array[RANDOM.random(SHAPE) < 0.1] = "NaT"
        return array
    array = (array / 4).astype(dtype)
    if dtype.kind == "c":
        array += 1j * RANDOM.integers(-6, 7, SHAPE).astype(dtype) / 4
        array[RANDOM.random(SHAPE) < 0.05] = complex(1, np.nan)
    array[RANDOM.random(SHAPE) < 0.1] = np.nan
    array[1, 1] = np.nan
    if dtype.kind == "f":  # products of infinite complex numbers depend on the order
        array[1, 2, 2] = np.inf
    return array


def reduce(array: xr.Variable, reducer: str, dims: tuple, options: dict) -> dict:
    try:
        found = getattr(array, reducer)(dims, **options)
    except (TypeError, ValueError) as error:
        return {"error": type(error).__name__}
    return {"data_type": found.dtype.str, "result": found.values.tobytes().hex()}


def argument(array: xr.Variable, reducer: str, dims: tuple, options: dict) -> dict:
    """Position in the stacked reduced dimensions, which is NumPy's flat position in them."""
    stacked = array.stack(all=list(dims))
    try:
        found = getattr(stacked, reducer)("all", **options)
    except ValueError as error:
        return {"error": type(error).__name__}
    return {"data_type": found.dtype.str, "result": found.values.tobytes().hex()}


def reductions():
    for name in TYPES + TIMES:
        dtype = np.dtype(name)
        array = xr.Variable(DIMS, values(dtype))
        cases = []
        for reducer, dims in itertools.product(REDUCERS, AXES):
            if dtype.kind == "c" and reducer in ("min", "max", "argmin", "argmax"):
                continue
            if dtype.kind in "mM" and reducer in ("sum", "prod", "mean", "std", "var"):
                continue
            settings = [{}]
            if dtype.kind in "fc" and reducer not in ("count", "any", "all"):
                settings.append({"skipna": False})
            if reducer in ("std", "var"):
                settings += [{"ddof": 1}, {"ddof": 5}, {"ddof": 5, "skipna": False}]
            if reducer in ("sum", "prod"):
                settings += [{"min_count": 4}, {"min_count": 4, "skipna": False}]
            for options in settings:
                function = argument if reducer.startswith("arg") else reduce
                answer = function(array, reducer, dims, options)
                axes = [DIMS.index(d) for d in dims]
                cases.append({"reducer": reducer, "axes": axes, **options, **answer})
        yield {
            "data_type": dtype.str,
            "shape": SHAPE,
            "values": array.values.tobytes().hex(),
            "cases": cases,
        }


STORED = {
    "|i1": [1, -5, 100, -128],
    "|u1": [1, 251, 30, 128],
    "<i2": [1, -5, 300, -32768],
    "<u2": [1, 65531, 300, 65535],
    "<i4": [1, -5, 300, 2**31 - 1],
    "<i8": [1, -5, 300, 2**53],
    "<f2": [1, -5, 300, np.nan],
    "<f4": [1, -5, 300, 0.1],
    "<f8": [1, -5, 300, 0.1],
}
ATTRIBUTES = [
    {"units": "K"},
    {"_FillValue": -5},
    {"_FillValue": 10**9},
    {"_FillValue": float("nan")},
    {"missing_value": [1, 300]},
    {"missing_value": 0.1},
    {"missing_value": -5.5},
    {"missing_value": "N/A"},
    {"missing_value": 1, "_FillValue": 300},
    {"scale_factor": 0.1},
    {"scale_factor": 1.0},
    {"add_offset": 1},
    {"add_offset": [0.1]},
    {"scale_factor": 0.01, "add_offset": 273.15},
    {"scale_factor": 2, "add_offset": 1},
    {"_FillValue": -5, "scale_factor": 0.1},
    {"_FillValue": -5, "scale_factor": 0.1, "add_offset": 1.5},
    {"_FillValue": float("nan"), "scale_factor": 0.1},
    {"_FillValue": float("nan"), "scale_factor": 0.1, "add_offset": 0.3},
    {"_FillValue": float("nan"), "add_offset": 1},
    {"_Unsigned": "true"},
    {"_Unsigned": "false"},
    {"_Unsigned": "true", "_FillValue": -5},
    {"_Unsigned": "true", "_FillValue": -5, "scale_factor": 0.5},
]
INTEGER_ATTRIBUTES = [{"scale_factor": 2}, {"scale_factor": 2, "_FillValue": float("nan")}]


def decodings():
    for name, stored in STORED.items():
        array = np.array(stored, dtype=name)
        cases = []
        extra = INTEGER_ATTRIBUTES if array.dtype.kind in "iu" else []
        for attributes in ATTRIBUTES + extra:
            variable = xr.Variable("x", array, dict(attributes))
            found = xr.conventions.decode_cf_variable("v", variable, decode_times=False)
            cases.append(
                {
                    "attributes": {
                        name: "NaN" if value != value else value
                        for name, value in attributes.items()
                    },
                    "data_type": found.dtype.str,
                    "result": found.values.tobytes().hex(),
                }
            )
        yield {"data_type": array.dtype.str, "values": array.tobytes().hex(), "cases": cases}


def write(path: str, rows) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            cases = ",\n ".join(json.dumps(case) for case in row.pop("cases"))
            file.write("[" if number == 0 else ",\n")
            file.write(json.dumps(row)[:-1] + ', "cases": [\n ' + cases + "]}")
        file.write("]\n")


if __name__ == "__main__":
    write("reduce.json", reductions())
    write("decode.json", decodings())
