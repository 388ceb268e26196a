"""Groups, windows and weights of one array, reduced in the service where it can."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
import xarray as xr

from ._methods import Dims
from ._pushing import Pushing, Template, ask, quietly, without_default
from ._reduce import (
    LATITUDE_UNITS,
    LATITUDES,
    NotPushed,
    Request,
    grouped,
    over,
    served,
    stand_in,
    weighted,
    windowed,
)
from ._report import Operation, Report, note_operation, report

__all__ = ["Groups", "Weighted", "Windows"]


class Groups(Pushing):
    """Groups of an array."""

    def __init__(
        self, array: xr.DataArray, lazy: xr.DataArray, group: Any, options: Mapping[str, Any]
    ) -> None:
        self._array = array
        self._lazy = lazy
        self._group = group
        self._options = dict(options)
        self.last = None

    def _label(self) -> str:
        return f"{self._array.name} by {self._group}"

    def _groups(self, array: xr.DataArray) -> Any:
        return array.groupby(self._group, **self._options)

    def __getattr__(self, name: str) -> Any:
        # What only xarray does.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._groups(self._array), name)

    def _plain(self, name: str, arguments: Mapping[str, Any]) -> Any:
        given = {
            key: value for key, value in arguments.items() if key != "dim" or value is not None
        }
        return getattr(self._groups(self._array), name)(**given)

    def _request(
        self, name: str, dim: Dims, keep_attrs: bool | None, options: Mapping[str, Any]
    ) -> tuple[Request, Template]:
        array = self._array
        if self._options:
            raise NotPushed(f"groupby with {', '.join(self._options)}")
        along = str(self._group).partition(".")[0]
        dims = (along,) if dim is None else over(array, dim)
        request, grouped_dim = grouped(served(self._lazy), name, self._group, dims, options)

        def template() -> xr.DataArray:
            return self._template(name, dim, keep_attrs, options, grouped_dim, dims)

        return request, template

    def _template(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        along: Hashable,
        dims: tuple[Hashable, ...],
    ) -> xr.DataArray:
        # Only the grouped dimension keeps its length; dimensions that stay get theirs back after.
        array = self._array
        others = [other for other in array.dims if other != along]
        given = dict(options)
        if dim is not None:
            given["dim"] = dim
        small = self._groups(stand_in(array, others))
        looks = quietly(lambda: getattr(small, name)(keep_attrs=keep_attrs, **given))
        # The service's groups ascend; xarray leaves labels that are groups already as they are.
        labels = looks[str(self._group).partition(".")[2] or along].values
        if not (labels[1:] > labels[:-1]).all():
            raise NotPushed("groups that do not ascend")
        kept = [other for other in others if other not in dims]
        if not kept:
            return cast(xr.DataArray, looks)
        own: dict[Hashable, Any] = {}
        for coord, variable in array.coords.items():
            if set(variable.dims) & set(kept) and coord in looks.coords:
                if not set(variable.dims) <= set(kept):
                    raise NotPushed(f"the coordinate {coord!r} is along {along!r} as well")
                own[coord] = variable
        base = looks.isel({other: 0 for other in kept}).drop_vars(list(own))
        first = array.isel({other: 0 for other in array.dims if other not in kept}, drop=True)
        first = first.drop_vars([coord for coord in first.coords if coord not in own])
        coords = base.coords.merge(first.coords).coords
        sizes = {**base.sizes, **{other: array.sizes[other] for other in kept}}
        empty = np.broadcast_to(np.zeros((), looks.dtype), [sizes[dim] for dim in looks.dims])
        return xr.DataArray(empty, coords, looks.dims, looks.name, looks.attrs)


class Windows(Pushing):
    """Windows of an array."""

    def __init__(
        self,
        array: xr.DataArray,
        lazy: xr.DataArray,
        windows: Mapping[Any, int],
        boundary: Any,
        side: Any,
        coord_func: Any,
    ) -> None:
        self._array = array
        self._lazy = lazy
        self._windows = dict(windows)
        self._boundary = boundary
        self._side = side
        self._coord_func = coord_func
        self.last = None

    def _label(self) -> str:
        return f"{self._array.name} in windows of {self._windows}"

    def _coarsen(self, array: xr.DataArray | xr.Dataset) -> Any:
        return array.coarsen(
            self._windows,
            boundary=self._boundary,
            side=self._side,
            coord_func=self._coord_func,
        )

    def _plain(self, name: str, arguments: Mapping[str, Any]) -> Any:
        given = without_default({k: v for k, v in arguments.items() if k != "dim"})
        if arguments.get("dim") is not None:
            raise TypeError(f"{name}() of windows takes no dim")
        return getattr(self._coarsen(self._array), name)(**given)

    def _request(
        self, name: str, dim: Dims, keep_attrs: bool | None, options: Mapping[str, Any]
    ) -> tuple[Request, Template]:
        array = self._array
        if dim is not None:
            raise NotPushed("windows with dim")
        if self._side != "left":
            raise NotPushed(f"side={self._side!r}")
        request = windowed(served(self._lazy), name, self._windows, self._boundary, options)

        def template() -> xr.DataArray:
            # The type and the attributes from one window, the coordinates from themselves.
            small = stand_in(array, array.dims).isel(
                {dim: [0] * length for dim, length in self._windows.items()}
            )
            given = without_default({"keep_attrs": keep_attrs, **options})
            small = small.drop_vars(list(small.coords))
            looks = quietly(lambda: getattr(self._coarsen(small), name)(**given))
            sizes = [self._length(dim) for dim in array.dims]
            empty = np.broadcast_to(np.zeros((), looks.dtype), sizes)
            coords = self._coords(array, keep_attrs)
            return xr.DataArray(empty, coords, array.dims, looks.name, looks.attrs)

        return request, template

    def _length(self, dim: Hashable) -> int:
        size, window = int(self._array.sizes[dim]), self._windows.get(dim, 1)
        length: int = -(-size // window) if self._boundary == "pad" else size // window
        return length

    def _coords(self, array: xr.DataArray, keep_attrs: bool | None) -> Any:
        beside = xr.Dataset(coords=array.coords)
        along = {dim: n for dim, n in self._windows.items() if dim in beside.dims}
        if not along:
            return beside.coords
        given = {} if keep_attrs is None else {"keep_attrs": keep_attrs}
        coarse = beside.coarsen(
            along,
            boundary=self._boundary,
            side=self._side,
            coord_func=self._coord_func,
        )
        return coarse.mean(**given).coords


class Weighted:
    """A weighted array."""

    last: Report | None = None

    def __init__(
        self, array: xr.DataArray, lazy: xr.DataArray, weights: xr.DataArray | str
    ) -> None:
        self._array = array
        self._lazy = lazy
        self._weights = self._area() if isinstance(weights, str) and weights == "area" else weights

    def _area(self) -> xr.DataArray:
        for dim in self._array.dims:
            coord = self._array.coords.get(dim)
            if coord is not None and (
                dim in LATITUDES or coord.attrs.get("units") in LATITUDE_UNITS
            ):
                return cast(xr.DataArray, np.cos(np.deg2rad(coord.astype(np.float64))))
        raise ValueError("area weights need a coordinate of latitude")

    def sum(
        self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None
    ) -> xr.DataArray:
        """Weighted sums."""
        return self._reduce("sum", dim, keep_attrs, {"skipna": skipna})

    def mean(
        self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None
    ) -> xr.DataArray:
        """Weighted means."""
        return self._reduce("mean", dim, keep_attrs, {"skipna": skipna})

    def std(
        self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None
    ) -> xr.DataArray:
        """Weighted standard deviations."""
        return self._reduce("std", dim, keep_attrs, {"skipna": skipna})

    def var(
        self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None
    ) -> xr.DataArray:
        """Weighted variances."""
        return self._reduce("var", dim, keep_attrs, {"skipna": skipna})

    def sum_of_squares(
        self, dim: Dims = None, *, skipna: bool | None = None, keep_attrs: bool | None = None
    ) -> xr.DataArray:
        """Weighted sums of squared differences from the mean."""
        return self._reduce("sum_of_squares", dim, keep_attrs, {"skipna": skipna})

    def sum_of_weights(self, dim: Dims = None, *, keep_attrs: bool | None = None) -> xr.DataArray:
        """Sums of the weights of values that are not missing."""
        return self._reduce("sum_of_weights", dim, keep_attrs, {})

    def _reduce(
        self, name: str, dim: Dims, keep_attrs: bool | None, options: Mapping[str, Any]
    ) -> xr.DataArray:
        array, weights = self._array, self._weights
        with report() as found:
            self.last = found
            try:
                if not isinstance(weights, xr.DataArray):
                    raise NotPushed("weights that are no DataArray")
                dims = over(array, dim)
                request = weighted(served(self._lazy), name, weights, dims, options)

                def template() -> xr.DataArray:
                    small = stand_in(weights, [d for d in dims if d in weights.dims])
                    parts = stand_in(array, dims).weighted(small)
                    looks = quietly(
                        lambda: getattr(parts, name)(dim=dim, keep_attrs=keep_attrs, **options)
                    )
                    return cast(xr.DataArray, looks)

                return ask(f"weighted {name}", request, template)
            except NotPushed as reason:
                label = str(array.name or "array")
                note_operation(Operation(f"weighted {name}", label, False, str(reason)))
            plain = array.weighted(cast(xr.DataArray, weights))
            return cast(
                xr.DataArray, getattr(plain, name)(dim=dim, keep_attrs=keep_attrs, **options)
            )
