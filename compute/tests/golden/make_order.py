"""Writes order.json: medians, quantiles, histograms, weighted reductions and masks, as xarray and
NumPy have them.

Run with xarray and NumPy 2 at hand: `python make_order.py`, in this folder. The tests read the file
and need no Python.
"""

import json
import warnings

import numpy as np
import xarray as xr

warnings.simplefilter("ignore")
RANDOM = np.random.default_rng(21)
SHAPE = (2, 4, 5)
DIMS = ("x", "y", "z")
TYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "M8[ns]", "m8[s]"]
AXES = [("z",), ("x", "z"), DIMS]
METHODS = """inverted_cdf averaged_inverted_cdf closest_observation interpolated_inverted_cdf hazen
weibull linear median_unbiased normal_unbiased lower higher midpoint nearest""".split()
Q = [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.77, 1.0]
OPERATORS = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def values(dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return RANDOM.random(SHAPE) < 0.6
    if dtype.kind in "iu":
        # Differences that fit the type: NumPy's wrap around, quarr's do not.
        info = np.iinfo(dtype)
        return RANDOM.integers(max(info.min // 2, -1000), min(info.max // 2, 1000), SHAPE).astype(dtype)
    if dtype.kind in "mM":
        array = RANDOM.integers(-(10**6), 10**6, SHAPE).astype(dtype)
        array[0, 0, 0] = "NaT"
        return array
    array = RANDOM.normal(0, 10, SHAPE).astype(dtype)
    array[RANDOM.random(SHAPE) < 0.1] = np.nan
    array[:, 2, :] = np.nan
    array[1, 1, 1] = np.inf
    return array


def found(make) -> dict:
    try:
        array = make()
    except Exception as error:
        return {"error": type(error).__name__}
    if array.dtype == object:
        return {"error": "object"}
    return {"data_type": array.dtype.str, "result": np.ascontiguousarray(array).tobytes().hex()}


def quantiles(array: xr.Variable) -> list:
    cases = []
    for dims in AXES:
        axes = [DIMS.index(dim) for dim in dims]
        for skipna in (None, False):
            case = {"axes": axes, "skipna": skipna}
            cases.append(case | {"median": True} | found(lambda: array.median(dims, skipna=skipna)))
            for method in METHODS if dims == ("x", "z") else ["linear"]:
                make = lambda: array.quantile(Q, dims, method=method, skipna=skipna)
                cases.append(case | {"q": Q, "method": method} | found(make))
    return cases


def histograms(array: np.ndarray) -> list:
    flat = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    flat = flat[np.isfinite(flat)].ravel()
    low, high = float(flat.min()), float(flat.max())
    cases = []
    for bins, range in [(10, (low, high)), (7, (-3.0, 11.5)), (1, (0.1, 0.7)), (3, (2.0, 2.0)), (33, (0.0, 1000.0))]:
        counts, edges = np.histogram(array.ravel(), bins=bins, range=range)
        cases.append({"bins": bins, "range": range, "edges": edges.astype("f8").tolist(), "counts": counts.tolist()})
    counts, edges = np.histogram(flat, bins=9)
    cases.append({"bins": 9, "edges": edges.astype("f8").tolist(), "counts": counts.tolist(), "found": [low, high]})
    for edges in ([0.0, 10.0, 20.0], [-5.5, -1.0, -1.0, 0.1, 3.0, 3.0]):
        counts, _ = np.histogram(array.ravel(), bins=edges)
        cases.append({"bins": edges, "edges": edges, "counts": counts.tolist()})
    return cases


def weighted(array: np.ndarray) -> list:
    array = xr.DataArray(array, dims=DIMS)
    cases = []
    for shape in (("y",), ("x", "z"), DIMS):
        weights = xr.DataArray(RANDOM.random([SHAPE[DIMS.index(d)] for d in shape]), dims=shape)
        weights[{d: 0 for d in shape}] = 0.0
        if shape == ("y",):
            weights[:] = np.where(RANDOM.random(4) < 0.3, 0, weights)
        for dims in AXES + [("y",)]:
            for skipna in (None, False):
                for reducer in "sum sum_of_weights mean var std sum_of_squares".split():
                    options = {} if reducer == "sum_of_weights" else {"skipna": skipna}
                    result = getattr(array.weighted(weights), reducer)(dims, **options)
                    cases.append(
                        {
                            "axes": [DIMS.index(dim) for dim in dims],
                            "weight_axes": [DIMS.index(dim) for dim in shape],
                            "weights": weights.values.ravel().tobytes().hex(),
                            "skipna": skipna,
                            "reducer": reducer,
                        }
                        | found(lambda: result)
                    )
    return cases


def masks(array: np.ndarray) -> list:
    array = xr.DataArray(array, dims=DIMS)
    cases = []
    for value in (2.5, -7):
        for sign, name in OPERATORS.items():
            cases.append({"where": f"a{sign}{value}"} | found(lambda: array.where(getattr(array, f"__{name}__")(value))))
    return cases


def main() -> None:
    rows = []
    for name in TYPES:
        dtype = np.dtype(name)
        array = values(dtype)
        row = {"data_type": dtype.str, "shape": SHAPE, "values": array.tobytes().hex()}
        row["order"] = quantiles(xr.Variable(DIMS, array))
        row["histograms"] = histograms(array) if dtype.kind in "iuf" else []
        row["weighted"] = weighted(array) if name in ("i2", "f4", "f8", "?") else []
        row["masks"] = masks(array) if dtype.kind in "iuf" else []
        rows.append(json.dumps(row, allow_nan=False))
    with open("order.json", "w") as file:
        file.write("[" + ",\n".join(rows) + "]\n")


if __name__ == "__main__":
    main()
