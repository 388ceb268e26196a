"""Requests and answers as text and bytes: paths, slices, labels, values.

Nothing here does I/O.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ._transport import Response
from .errors import IntegrityError, ServiceError

Index: TypeAlias = (
    "int | np.integer[Any] | slice | EllipsisType | Sequence[int] | npt.NDArray[Any]"
)
Selection: TypeAlias = "Index | tuple[Index, ...] | str | None"
"""What to read, as NumPy indexes an array; or in the service's notation, ``0:10,:,[1,4]``."""
Labels: TypeAlias = "Mapping[str, Any]"
"""By dimension: a label, a list of labels, or ``slice(first, last)``, both included."""

TENSOR = re.compile(r'dtype="([^"]*)", shape=\(([^)]*)\)')


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def key_path(key: str) -> str:
    """Names separated by slashes, as segments."""
    return "/".join(segment(name) for name in key.split("/") if name)


def query(parameters: Mapping[str, Any]) -> str:
    """``?a=b&c=d`` of those that are not ``None``; empty if there are none."""
    pairs = []
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, bool | np.bool):
            value = "true" if value else "false"
        # Slices and lists of labels stay readable.
        pairs.append(f"{quote(name, safe='')}={quote(str(value), safe=':,/.')}")
    return "?" + "&".join(pairs) if pairs else ""


def slice_text(selection: Selection) -> str | None:
    """A selection in the service's notation; ``None`` selects everything.

    Raises ``TypeError`` for what does not index an array, ``IndexError`` for a mask of several
    dimensions.
    """
    if selection is None or isinstance(selection, str):
        return selection or None
    parts = selection if isinstance(selection, tuple) else (selection,)
    return ",".join(_index_text(part) for part in parts) or None


def _index_text(index: Any) -> str:
    if index is Ellipsis:
        return "..."
    if isinstance(index, slice):
        ends = [index.start, index.stop]
        if index.step is not None:
            ends.append(index.step)
        return ":".join("" if end is None else str(_integer(end)) for end in ends)
    if isinstance(index, list | np.ndarray | range):
        array = np.asarray(index)
        if array.ndim == 0:
            return str(_integer(array[()]))
        if array.ndim > 1:
            raise IndexError("an index of several dimensions: give one list for each dimension")
        if array.dtype == np.bool:
            array = np.flatnonzero(array)
        return "[" + ",".join(str(_integer(item)) for item in array) + "]"
    return str(_integer(index))


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{value!r} is no index: give integers, slices, lists or ...")
    return int(value.__index__())


def label_parameters(labels: Labels | None, method: str | None = None) -> dict[str, str]:
    """``sel.DIMENSION=…`` for each dimension.

    Texts stand for themselves in the service's notation (``2020-01/2020-03``); texts in lists and
    slices are labels and quoted where they must be. ``method`` is ``nearest``, ``pad`` or
    ``backfill``.
    """
    prefix = f"{method}::" if method not in (None, "exact") else ""
    return {f"sel.{name}": prefix + _labels_text(value) for name, value in (labels or {}).items()}


def _labels_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, slice):
        if value.step is not None:
            raise TypeError("a slice of labels has no step")
        ends = (value.start, value.stop)
        return "/".join("" if end is None else _label(end) for end in ends)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return _label(value[()])
    if isinstance(value, list | tuple | np.ndarray):
        return ",".join(_label(item) for item in value)
    return _label(value)


def _label(value: Any) -> str:
    if isinstance(value, str):
        if not value or value != value.strip() or "::" in value or any(c in value for c in '/,"'):
            return '"' + value.replace('"', '""') + '"'
        return value
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value))
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)


def point_labels(values: Any) -> list[Any]:
    """Labels of points: numbers and texts, times as ISO 8601."""
    return [
        item.item() if isinstance(item, np.number) and item.dtype.kind != "m"
        else item if isinstance(item, int | float | str) else _label(item)
        for item in values
    ]  # fmt: skip


def listed(value: Any) -> str | None:
    """One or several things, comma separated."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Sequence | np.ndarray):
        return ",".join(_label(item) for item in value)
    return _label(value)


def tensor(response: Response, *, writable: bool = False) -> npt.NDArray[Any]:
    """The array in an answer of type octet-stream: a view of its bytes, or a copy to write to."""
    found = TENSOR.fullmatch(response.headers.get("tensor", ""))
    if found is None:
        raise ServiceError("the answer has no Tensor header")
    try:
        dtype = np.dtype(found[1])
        shape = tuple(map(int, found[2].split()))
        if dtype.itemsize == 0:
            array = np.empty(shape, dtype)
        else:
            array = np.frombuffer(response.body, dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise ServiceError(f"the answer is not what its Tensor header says: {error}") from error
    if writable:
        return array.copy()
    array.flags.writeable = False
    return array


_NUMBERS = {
    **{name: np.dtype(name) for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )},
    "bfloat16": np.dtype(np.float32),
}  # fmt: skip


def numpy_dtype(data_type: Any) -> np.dtype[Any]:
    """The NumPy type of a Zarr data type; objects for texts and bytes of any length, ``float32``
    for ``bfloat16``."""
    name = data_type if isinstance(data_type, str) else data_type["name"]
    if name in _NUMBERS:
        return _NUMBERS[name]
    if name in ("string", "variable_length_bytes", "bytes"):
        return np.dtype(object)
    if re.fullmatch(r"r\d+", name):
        return np.dtype(f"V{int(name[1:]) // 8}")
    settings = data_type["configuration"] if isinstance(data_type, dict) else {}
    if name in ("numpy.datetime64", "numpy.timedelta64"):
        letter, unit, scale = name[6], settings["unit"], settings["scale_factor"]
        if unit == "generic":
            return np.dtype(f"<{letter.upper() if name[6] == 'd' else letter}8")
        kind = "M" if name == "numpy.datetime64" else "m"
        return np.dtype(f"<{kind}8[{scale if scale != 1 else ''}{unit}]")
    if name == "fixed_length_utf32":
        return np.dtype(f"<U{settings['length_bytes'] // 4}")
    if name == "null_terminated_bytes":
        return np.dtype(f"S{settings['length_bytes']}")
    if name == "raw_bytes":
        return np.dtype(f"V{settings['length_bytes']}")
    raise ServiceError(f"{data_type!r} is no data type this client knows")


def json_values(variable: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The array of a variable in an answer of type JSON."""
    data_type, shape = variable["data_type"], tuple(variable["shape"])
    name = data_type if isinstance(data_type, str) else data_type["name"]
    dtype = numpy_dtype(data_type)
    flat: list[Any] = []
    _flatten(variable["values"], len(shape), flat)
    if name in ("variable_length_bytes", "bytes"):
        flat = [base64.b64decode(item) if isinstance(item, str) else bytes(item) for item in flat]
    elif dtype.kind == "c":
        flat = [complex(float(real), float(imaginary)) for real, imaginary in flat]
    elif dtype.kind == "f":
        flat = [float(item) for item in flat]
    elif dtype.kind == "V":
        return np.frombuffer(b"".join(map(bytes, flat)), dtype).reshape(shape)
    elif dtype.kind in "mM":
        return np.array(flat, np.int64).astype("<i8").view(dtype).reshape(shape)
    array = np.empty(len(flat), dtype)
    array[:] = flat
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def check_named(ref: str, commit: str) -> None:
    """Raises :class:`~quarr.IntegrityError` if ``ref`` is a commit id, or the digits one begins
    with, and the service answered with another commit."""
    if re.fullmatch("[0-9A-Fa-f]{8,64}", ref) and not commit.startswith(ref.lower()):
        raise IntegrityError(f"the service was asked for commit {ref} and answered with {commit}")


def _flatten(value: Any, depth: int, into: list[Any]) -> None:
    if depth == 0:
        into.append(value)
        return
    for item in value:
        _flatten(item, depth - 1, into)


def body_of(values: Any, data_type: Any) -> tuple[str, bytes]:
    """Values as a request body and its media type.

    ``data_type`` is that of the array, as in ``zarr.json``. Arrays are converted to it where NumPy
    calls that ``same_kind``; numbers and lists where they keep their value, but for rounding. A
    scalar is one value for all cells.

    Raises ``TypeError`` for values that cannot be converted, ``OverflowError`` for numbers that the
    type has not.
    """
    name = data_type if isinstance(data_type, str) else data_type["name"]
    dtype = numpy_dtype(data_type)
    if dtype.kind == "O":
        array = np.asarray(values, dtype=object)
        wrong = bytes if name == "string" else str
        if any(isinstance(value, wrong) for value in array.flat):
            raise TypeError(f"{wrong.__name__} cannot be written to an array of {name}")
        return "application/json", json.dumps(array.tolist(), default=_plain).encode()
    if name == "bfloat16":
        array = np.asarray(values)
        if array.dtype.itemsize != 2 or array.dtype.kind in "iu":
            array = _to_bfloat16(array.astype(np.float32))
        return _npy(array.view("V2") if array.dtype.kind != "V" or array.ndim else array, "|V2")
    if isinstance(values, np.ndarray | np.generic):
        array = np.asarray(values)
        if array.dtype != dtype:
            array = array.astype(dtype, casting="same_kind")
    else:
        array = np.asarray(values)
        if array.dtype != dtype:
            numeric = array.dtype.kind in "biuf" and dtype.kind in "biufc"
            if numeric:
                _check_numbers(array, dtype)
            is_free = numeric or array.size == 0
            array = array.astype(dtype, casting="unsafe" if is_free else "same_kind")
    if array.ndim == 0 and dtype.kind in "biufcmM":
        return "application/json", json.dumps(_scalar(array[()])).encode()
    return _npy(array, dtype.str)


def _check_numbers(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Raises ``OverflowError`` unless ``dtype`` has all numbers, rounded if it is a float type."""
    if dtype.kind in "iu" and array.dtype.kind in "iuf":
        ends = np.iinfo(dtype)
        # Of Python's numbers: NumPy's compare rounded.
        numbers = array.ravel().tolist()
        kept = [np.isfinite(n) and ends.min <= n <= ends.max and n == int(n) for n in numbers]
    elif dtype.kind in "fc" and array.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            became = array.astype(dtype)
        kept = (np.isfinite(became) | ~np.isfinite(array)).ravel().tolist()
    else:
        return
    if not all(kept):
        raise OverflowError(f"{array.ravel()[kept.index(False)]} is no number of {dtype.name}")


def _to_bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), np.uint32(0x7FC0), rounded).astype(np.uint16)


def _scalar(value: Any) -> Any:
    """A number as ``zarr.json`` writes fill values."""
    if value.dtype.kind in "mM":
        return int(value.astype(np.int64))
    if value.dtype.kind == "c":
        return [_scalar(value.real), _scalar(value.imag)]
    if value.dtype.kind == "f" and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.item()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as text or bytes")


def _npy(array: npt.NDArray[Any], descr: str) -> tuple[str, bytes]:
    """A file of NumPy's format, in C order."""
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    return "application/x-npy", file.getvalue() + array.tobytes(order="C")


def zarr_data_type(dtype: Any) -> Any:
    """The Zarr data type of a NumPy type, as in ``zarr.json``; Zarr's own names stay."""
    if isinstance(dtype, Mapping):
        return dict(dtype)
    if dtype is str or isinstance(dtype, np.dtypes.StringDType):
        return "string"
    if dtype is bytes:
        return "variable_length_bytes"
    if isinstance(dtype, str):
        if dtype in _NUMBERS or dtype in ("string", "variable_length_bytes"):
            return dtype
        if re.fullmatch(r"r\d+", dtype):
            return dtype
    found = np.dtype(dtype)
    kind = found.kind
    if kind in "mM":
        unit, scale = np.datetime_data(found)
        name = "numpy.datetime64" if kind == "M" else "numpy.timedelta64"
        return {"name": name, "configuration": {"unit": unit, "scale_factor": scale}}
    if kind == "U":
        return {"name": "fixed_length_utf32", "configuration": {"length_bytes": found.itemsize}}
    if kind == "S":
        return {"name": "null_terminated_bytes", "configuration": {"length_bytes": found.itemsize}}
    if kind == "V" and found.names is None:
        return {"name": "raw_bytes", "configuration": {"length_bytes": found.itemsize}}
    if kind == "O":
        return "string"
    if found.name not in _NUMBERS:
        raise TypeError(f"{dtype!r} has no Zarr data type")
    return found.name


def fill_value_json(value: Any) -> Any:
    """A fill value as ``zarr.json`` writes it."""
    is_text = isinstance(value, np.str_ | np.bytes_)
    if isinstance(value, float | complex | np.generic) and not is_text:
        return _scalar(np.asarray(value)[()])
    return value
