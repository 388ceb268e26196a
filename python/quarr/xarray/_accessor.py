"""``.quarr``: the same reductions, computed in the service where it can.

    ds = xr.open_dataset("http://localhost:8686/v1/repos/climate/refs/main", engine="quarr")
    ds["t2m"].quarr.sel(lat=slice(60, 40)).mean("time")

What comes back is what xarray would give: the same values (sums of ``float32`` are exact to the
last digit), type, dimensions, coordinates, name and attributes. Whatever the service cannot do,
xarray does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
import xarray as xr

from ..errors import NotFoundError
from ._arrays import before_dask, find_origin
from ._backend import QuarrBackend
from ._methods import Dims, Reductions
from ._parts import Groups, Weighted, Windows
from ._pushing import Pushing, Template, explain_request, quietly
from ._reduce import NotPushed, Request, over, reduction, served, stand_in

if TYPE_CHECKING:
    from ..aio import AsyncSnapshot
    from ..client import Snapshot

__all__ = ["DataArrayAccessor", "RemoteArray"]


class _ArrayOperations(Pushing, Reductions[xr.DataArray]):
    """What can be done with an array of the service."""

    @property
    def array(self) -> xr.DataArray:
        """The array itself, for everything else xarray does."""
        raise NotImplementedError

    @property
    def _lazy(self) -> xr.DataArray:
        """The array without dask, where that is known."""
        return unchunked(self.array)

    def _select(self, how: Callable[[xr.DataArray], xr.DataArray]) -> RemoteArray:
        array, lazy = self.array, self._lazy
        selected = how(array)
        return RemoteArray.of(selected, selected if lazy is array else how(lazy))

    def _label(self) -> str:
        return str(self.array.name or "array")

    def _plain(self, name: str, arguments: Mapping[str, Any]) -> Any:
        return getattr(self.array, name)(**arguments)

    def _request(
        self, name: str, dim: Dims, keep_attrs: bool | None, options: Mapping[str, Any]
    ) -> tuple[Request, Template]:
        array = self.array
        if name.startswith("arg") and not (dim is None or isinstance(dim, str)):
            raise NotPushed(f"{name} over several dimensions")
        dims = over(array, dim)
        request = reduction(served(self._lazy), name, dims, options)

        def template() -> xr.DataArray:
            small = stand_in(array, dims)
            given = dict(options)
            if name in ("std", "var"):
                given["ddof"] = 0
            found = quietly(lambda: getattr(small, name)(dim=dim, keep_attrs=keep_attrs, **given))
            return cast(xr.DataArray, found)

        return request, template

    def isel(self, indexers: Any = None, **kwargs: Any) -> RemoteArray:
        """A part of it, by position; still of the service. As :meth:`xarray.DataArray.isel`."""
        return self._select(lambda array: array.isel(indexers, **kwargs))

    def sel(self, indexers: Any = None, **kwargs: Any) -> RemoteArray:
        """A part of it, by labels; still of the service. As :meth:`xarray.DataArray.sel`."""
        return self._select(lambda array: array.sel(indexers, **kwargs))

    def groupby(self, group: Any, **kwargs: Any) -> Groups:
        """Groups, like ``"time.month"``; as :meth:`xarray.DataArray.groupby`."""
        return Groups(self.array, self._lazy, group, kwargs)

    def coarsen(
        self,
        dim: Mapping[Any, int] | None = None,
        *,
        boundary: Literal["exact", "trim", "pad"] = "exact",
        side: Any = "left",
        coord_func: Any = "mean",
        **windows: int,
    ) -> Windows:
        """Windows of so many cells; as :meth:`xarray.DataArray.coarsen`."""
        return Windows(
            self.array, self._lazy, {**(dim or {}), **windows}, boundary, side, coord_func
        )

    def weighted(self, weights: xr.DataArray | str) -> Weighted:
        """Weights along dimensions; as :meth:`xarray.DataArray.weighted`. ``"area"`` stands for the
        cosine of the latitude."""
        return Weighted(self.array, self._lazy, weights)

    def explain(
        self, reduce: str | None = None, dim: Dims = None, **options: Any
    ) -> dict[str, Any]:
        """What reading it, or a reduction, would cost the service; runs nothing.

        Raises :class:`ValueError` with the reason if the service would not compute it.
        """
        if reduce is not None:
            return super().explain(reduce, dim, **options)
        try:
            part = served(self._lazy)
            return explain_request(part.origin, part.common())
        except NotPushed as reason:
            raise ValueError(f"there is nothing to explain: {reason}") from None

    def to_quarr(self, target: Any, **options: Any) -> Any:
        """Writes it; see :func:`quarr.to_quarr`."""
        from ._writing import to_quarr

        return to_quarr(self.array, target, **options)


def unchunked(array: xr.DataArray) -> xr.DataArray:
    """The same array without dask, if that only splits what was opened: dask's own slices do not
    say what they are slices of."""
    data = array.variable._data
    if not hasattr(data, "dask") or find_origin(data) is None:
        return array
    return array.copy(deep=False, data=before_dask(data))


class RemoteArray(_ArrayOperations):
    """An array whose reductions run in the service and return :class:`xarray.DataArray`.

    It is opened when it is first used. ``numpy.asarray`` and :attr:`array` read it.
    """

    def __init__(self, snapshot: Snapshot | AsyncSnapshot | None, path: str) -> None:
        self._snapshot = snapshot
        self._path = path
        self._array: xr.DataArray | None = None
        self._without_dask: xr.DataArray | None = None

    @classmethod
    def of(cls, array: xr.DataArray, lazy: xr.DataArray | None = None) -> Self:
        """One for an array that is open; ``lazy`` is the same without dask."""
        found = cls(None, str(array.name or "array"))
        found._array = array
        found._without_dask = lazy
        return found

    @property
    def _lazy(self) -> xr.DataArray:
        return super()._lazy if self._without_dask is None else self._without_dask

    @property
    def array(self) -> xr.DataArray:
        """The array itself, for everything else xarray does."""
        if self._array is None:
            group, _, name = self._path.strip("/").rpartition("/")
            # xarray's annotations know none of what engines open.
            snapshot: Any = self._snapshot
            dataset = xr.open_dataset(snapshot, engine=QuarrBackend, group=group or None)
            if name not in dataset.variables:
                raise NotFoundError(f"there is no array {self._path!r}", status=404)
            self._array = dataset[name]
        return self._array

    def __repr__(self) -> str:
        if self._array is None:
            return f"RemoteArray({self._path!r})"
        sizes = ", ".join(f"{dim}: {size}" for dim, size in self._array.sizes.items())
        return f"RemoteArray({self._path!r}, {self._array.dtype}, {sizes})"

    def __getitem__(self, key: Any) -> RemoteArray:
        return self._select(lambda array: array[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.array.values, dtype=dtype)

    def load(self) -> xr.DataArray:
        """Its values, in one request."""
        return self.array.load()


@xr.register_dataarray_accessor("quarr")
class DataArrayAccessor(_ArrayOperations):
    """``DataArray.quarr``."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @property
    def array(self) -> xr.DataArray:
        """The array itself."""
        return self._array
