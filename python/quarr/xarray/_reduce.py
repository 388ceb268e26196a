"""What xarray's reductions are in the service's terms.

From a call to the parameters of a request, or :class:`NotPushed` with the reason why xarray has to
do it. The service does the arithmetic; what the answer looks like (type, dimensions, coordinates,
attributes) xarray says itself, from a :func:`stand_in` whose reduced dimensions have length 1, so
that costs no more than the answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ._arrays import MAX_TARGET_BYTES, Origin, find_origin, key_text

__all__ = ["NotPushed", "Request", "Served", "over", "served", "stand_in"]

REDUCERS = (
    "all", "any", "argmax", "argmin", "count", "max", "mean", "median", "min", "prod", "quantile",
    "std", "sum", "var",
)  # fmt: skip
OPTIONS = {
    "sum": {"skipna", "min_count"},
    "prod": {"skipna", "min_count"},
    "std": {"skipna", "ddof"},
    "var": {"skipna", "ddof"},
    "count": set(),
    "any": set(),
    "all": set(),
    "quantile": {"skipna", "q", "method"},
}
"""Arguments that mean the same in both; of the others ``skipna``."""
COMPONENTS = {
    "year", "month", "day", "hour", "minute", "second", "dayofyear", "dayofweek", "quarter",
    "season",
}  # fmt: skip
"""Of times, that groups are made of."""
LATITUDES = {"lat", "latitude"}
LATITUDE_UNITS = {
    "degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN",
}  # fmt: skip


class NotPushed(Exception):
    """The service does not do this; xarray does."""


@dataclass(frozen=True)
class Request:
    """A reduction of the service."""

    origin: Origin
    parameters: Mapping[str, Any]
    dims: tuple[Hashable, ...]
    """The dimensions of the answer."""


@dataclass(frozen=True)
class Served:
    """An array that is as the service has it, or a part of it."""

    origin: Origin
    key: tuple[Any, ...]
    array: xr.DataArray

    def axis(self, dim: Hashable) -> int:
        """Of the stored array, which may have dropped dimensions and other names."""
        kept = [
            axis
            for axis, index in enumerate(self.key)
            if isinstance(index, slice) or np.ndim(index)
        ]
        return kept[self.array.dims.index(dim)]

    def stored_dim(self, dim: Hashable) -> str:
        """The name of a dimension in the store."""
        return self.origin.dims[self.axis(dim)]

    def common(self) -> dict[str, Any]:
        """The parameters that say what is reduced."""
        text = key_text(self.key)
        if len(text or "") > MAX_TARGET_BYTES // 2:
            raise NotPushed("too many positions are selected one by one")
        return {"slice": text, "decode": None if self.origin.decode == "cf" else self.origin.decode}

    def coordinate(self, dim: Hashable) -> xr.DataArray:
        """The coordinate of a dimension, if it is the one the service has."""
        stored = self.origin.coords.get(self.stored_dim(dim))
        if dim not in self.array.coords or stored is None:
            raise NotPushed(f"{dim!r} has no coordinate")
        found: xr.DataArray = self.array.coords[dim]
        wanted = stored[self.key[self.axis(dim)]]
        if not np.array_equal(found.values, wanted.values):
            raise NotPushed(f"the coordinate {dim!r} was changed")
        return found

    def is_latitude(self, dim: str) -> bool:
        """Whether the service takes a stored dimension for the latitude."""
        stored = self.origin.coords.get(dim)
        if stored is None:
            return False
        return dim in LATITUDES or stored.attrs.get("units") in LATITUDE_UNITS


def served(array: xr.DataArray) -> Served:
    """An array as the service has it.

    Raises :class:`NotPushed` for one that is not as it was opened.
    """
    found = find_origin(array.variable._data)
    if found is None:
        raise NotPushed("the values are in memory, computed here, or were opened otherwise")
    origin, key = found
    if origin.decode is None:
        raise NotPushed(origin.reason)
    if array.ndim == 0 or array.size == 0:
        raise NotPushed("there is nothing to reduce")
    return Served(origin, key, array)


def over(array: xr.DataArray | xr.Dataset, dim: Any) -> tuple[Hashable, ...]:
    """The dimensions that an argument ``dim`` of xarray means."""
    if dim is None or dim is ...:
        return tuple(array.dims)
    if isinstance(dim, str) or not isinstance(dim, Iterable):
        return (dim,)
    return tuple(dim)


def options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a reduction as parameters.

    Raises :class:`NotPushed` for arguments the service has not.
    """
    known = OPTIONS.get(name, {"skipna"})
    parameters = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise NotPushed(f"{name} with {', '.join(unknown)}")
    if "ddof" in parameters and not (
        isinstance(parameters["ddof"], int) and parameters["ddof"] >= 0
    ):
        raise NotPushed(f"ddof={parameters['ddof']!r}")
    if "q" in parameters:
        parameters["q"] = ",".join(repr(float(q)) for q in np.atleast_1d(parameters["q"]))
    return parameters


def reduction(
    part: Served, name: str, dims: Sequence[Hashable], given: Mapping[str, Any]
) -> Request:
    """A reduction over dimensions."""
    array = part.array
    missing = [dim for dim in dims if dim not in array.dims]
    if missing or not dims or len(set(dims)) < len(dims):
        raise NotPushed(f"dim={list(dims)!r}")
    kept = tuple(dim for dim in array.dims if dim not in dims)
    parameters = {**part.common(), "reduce": name, **options(name, given)}
    if kept:
        parameters["over"] = ",".join(str(array.dims.index(dim)) for dim in dims)
    if name == "quantile" and np.ndim(given["q"]):
        kept = ("quantile", *kept)
    return Request(part.origin, parameters, kept)


def grouped(
    part: Served, name: str, group: Any, dims: Sequence[Hashable], given: Mapping[str, Any]
) -> tuple[Request, Hashable]:
    """A reduction of groups, and the dimension that is grouped."""
    if not isinstance(group, str):
        raise NotPushed("groups that are not named like 'time.month'")
    if name not in REDUCERS or name.startswith("arg") or name == "quantile":
        raise NotPushed(f"{name} of groups")
    dim, _, component = group.partition(".")
    array = part.array
    if dim not in array.dims or (component and component not in COMPONENTS):
        raise NotPushed(f"groups by {group!r}")
    coordinate = part.coordinate(dim)
    if component and coordinate.dtype.kind not in "MO":
        raise NotPushed(f"{dim!r} holds no times")
    if dim not in dims or any(other not in array.dims for other in dims):
        raise NotPushed(f"groups along {dim!r} that are reduced over {list(dims)!r}")
    others = [other for other in dims if other != dim]
    named = part.stored_dim(dim) + ("." + component if component else "")
    parameters = {**part.common(), "reduce": name, "groupby": named, **options(name, given)}
    if others:
        parameters["over"] = ",".join(str(array.dims.index(other)) for other in others)
    label = component or dim
    kept = tuple(label if other == dim else other for other in array.dims if other not in others)
    return Request(part.origin, parameters, kept), dim


def windowed(
    part: Served,
    name: str,
    windows: Mapping[Hashable, int],
    boundary: Any,
    given: Mapping[str, Any],
) -> Request:
    """A reduction of windows."""
    if name not in REDUCERS or name.startswith("arg") or name == "quantile":
        raise NotPushed(f"{name} of windows")
    array = part.array
    if any(dim not in array.dims for dim in windows) or not windows:
        raise NotPushed(f"windows along {list(windows)!r}")
    if not isinstance(boundary, str) or boundary not in ("exact", "trim", "pad"):
        raise NotPushed(f"boundary={boundary!r}")
    if boundary == "pad" and (array.dtype.kind != "f" or name in ("any", "all", "prod")):
        raise NotPushed(f"{name} of padded {array.dtype}")
    parameters = {**part.common(), "reduce": name, "boundary": boundary, **options(name, given)}
    for dim, length in windows.items():
        parameters[f"coarsen.{part.stored_dim(dim)}"] = int(length)
    return Request(part.origin, parameters, tuple(array.dims))


def weighted(
    part: Served,
    name: str,
    weights: xr.DataArray,
    dims: Sequence[Hashable],
    given: Mapping[str, Any],
) -> Request:
    """A weighted reduction."""
    if name not in ("sum", "mean", "std", "var", "sum_of_weights", "sum_of_squares"):
        raise NotPushed(f"weighted {name}")
    array = part.array
    if not dims or any(dim not in array.dims for dim in dims):
        raise NotPushed(f"dim={list(dims)!r}")
    parameters = {**part.common(), "reduce": name, "weights": _weights(part, weights)}
    parameters |= options(name, given)
    kept = tuple(dim for dim in array.dims if dim not in dims)
    if kept:
        parameters["over"] = ",".join(str(array.dims.index(dim)) for dim in dims)
    return Request(part.origin, parameters, kept)


def _weights(part: Served, weights: xr.DataArray) -> str:
    if any(dim not in part.array.dims for dim in weights.dims) or weights.ndim == 0:
        raise NotPushed("weights with other dimensions")
    try:
        found = served(weights)
    except NotPushed:
        return _area(part, weights)
    is_alike = (
        found.origin.source == part.origin.source
        and list(found.origin.dims) == [part.stored_dim(dim) for dim in weights.dims]
        and all(
            _same(found.key[axis], part.key[part.axis(dim)], part.origin)
            for axis, dim in enumerate(weights.dims)
        )
        and sorted(map(part.axis, weights.dims)) == list(map(part.axis, weights.dims))
        and weights.sizes == {dim: part.array.sizes[dim] for dim in weights.dims}
    )
    if not is_alike:
        raise NotPushed("weights that are not selected like the array")
    return "/" + found.origin.path


def _same(first: Any, second: Any, _: Origin) -> bool:
    return np.array_equal(first, second) if np.ndim(first) or np.ndim(second) else first == second


def _area(part: Served, weights: xr.DataArray) -> str:
    """``area`` for weights that are the cosine of the latitude."""
    latitudes = [dim for dim in part.origin.dims if part.is_latitude(dim)]
    if weights.ndim != 1 or latitudes[:1] != [part.stored_dim(weights.dims[0])]:
        raise NotPushed("weights that were computed here")
    latitude = part.coordinate(weights.dims[0])
    cosines = np.cos(np.deg2rad(latitude.values.astype(np.float64)))
    if not np.allclose(weights.values, cosines, rtol=1e-12, atol=1e-15):
        raise NotPushed("weights that are not the cosine of the latitude")
    return "area"


def stand_in(array: xr.DataArray, shrunk: Iterable[Hashable]) -> xr.DataArray:
    """The array without values, dimensions cut to length 1: takes no memory, and asks nothing."""
    empty = np.broadcast_to(np.zeros((), array.dtype), array.shape)
    return array.copy(deep=False, data=empty).isel({dim: slice(0, 1) for dim in shrunk})


def fill(
    template: xr.DataArray, dims: tuple[Hashable, ...], values: npt.NDArray[Any]
) -> xr.DataArray:
    """The answer as xarray has it: ``values`` have dimensions ``dims``."""
    if set(dims) != set(template.dims):
        raise NotPushed(f"an answer with dimensions {dims}, not {template.dims}")
    values = values.transpose([dims.index(dim) for dim in template.dims])
    if values.shape != template.shape:
        raise NotPushed(f"an answer of shape {values.shape}, not {template.shape}")
    return template.copy(deep=False, data=values.astype(template.dtype, copy=False))
