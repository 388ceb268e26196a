"""``Dataset.quarr``: reductions of all variables, one request for each, at the same time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import numpy as np
import xarray as xr

from .._loop import run
from ._accessor import RemoteArray, unchunked
from ._arrays import gather
from ._methods import Dims, Reductions, SimpleReductions
from ._pushing import answer, quietly, without_default
from ._reduce import NotPushed, Request, over
from ._report import Operation, Report, note_operation, report

__all__ = ["DatasetAccessor", "DatasetParts"]

NUMERIC_ONLY = {"mean", "median", "prod", "quantile", "std", "sum", "var"}
"""Reductions of datasets that leave out what is no number."""


@xr.register_dataset_accessor("quarr")
class DatasetAccessor(Reductions[xr.Dataset]):
    """``Dataset.quarr``: reductions of all variables, one request for each, at the same time."""

    def __init__(self, dataset: xr.Dataset, lazy: xr.Dataset | None = None) -> None:
        self._dataset = dataset
        self._lazy = lazy
        self.last: Report | None = None

    @property
    def dataset(self) -> xr.Dataset:
        """The dataset itself."""
        return self._dataset

    def __getitem__(self, name: Hashable) -> RemoteArray:
        lazy = None if self._lazy is None else self._lazy[name]
        return RemoteArray.of(self._dataset[name], lazy)

    def _select(self, how: Callable[[xr.Dataset], xr.Dataset]) -> DatasetAccessor:
        dataset, lazy = self._dataset, self._lazy
        if lazy is None:
            lazy = dataset.copy(deep=False)
            for name, array in dataset.data_vars.items():
                lazy[name] = unchunked(array).variable
        return DatasetAccessor(how(dataset), how(lazy))

    def isel(self, indexers: Any = None, **kwargs: Any) -> DatasetAccessor:
        """A part of it, by position; still of the service."""
        return self._select(lambda dataset: dataset.isel(indexers, **kwargs))

    def sel(self, indexers: Any = None, **kwargs: Any) -> DatasetAccessor:
        """A part of it, by labels; still of the service."""
        return self._select(lambda dataset: dataset.sel(indexers, **kwargs))

    def groupby(self, group: Any, **kwargs: Any) -> DatasetParts:
        """Groups, like ``"time.month"``; as :meth:`xarray.Dataset.groupby`."""
        return DatasetParts(self, "groupby", (group,), kwargs)

    def coarsen(self, dim: Mapping[Any, int] | None = None, **kwargs: Any) -> DatasetParts:
        """Windows of so many cells; as :meth:`xarray.Dataset.coarsen`."""
        return DatasetParts(self, "coarsen", (dim,), kwargs)

    def weighted(self, weights: xr.DataArray | str) -> DatasetParts:
        """Weights along dimensions; as :meth:`xarray.Dataset.weighted`."""
        return DatasetParts(self, "weighted", (weights,), {})

    def to_quarr(self, target: Any, **options: Any) -> Any:
        """Writes it; see :func:`quarr.to_quarr`."""
        from ._writing import to_quarr

        return to_quarr(self._dataset, target, **options)

    def _reduce(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> xr.Dataset:
        with report() as found:
            self.last = found
            return self._reduce_all(name, dim, keep_attrs, options, others)

    def _reduce_all(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> xr.Dataset:
        dataset = self._dataset
        dims = over(dataset, dim)
        if others or any(each not in dataset.dims for each in dims) or not dims:
            arguments = {"dim": dim, "keep_attrs": keep_attrs, **options, **others}
            reason = f"{name} of a dataset with dim={dim!r}"
            note_operation(Operation(name, "dataset", False, reason))
            return cast(xr.Dataset, getattr(dataset, name)(**arguments))
        looks = self._template(name, dim, keep_attrs, options, dims)
        done: dict[Hashable, xr.DataArray] = {}
        waiting: dict[Hashable, tuple[Request, xr.DataArray]] = {}
        for key in looks.data_vars:
            array = dataset[key]
            own = [each for each in array.dims if each in dims]
            if not own:
                continue
            own_dim: Dims = own
            if name.startswith("arg"):
                own_dim = None if dim is None else own[0]
            remote = self[key]
            try:
                request, template = remote._request(name, own_dim, keep_attrs, options)
                waiting[key] = request, template()
            except NotPushed as reason:
                note_operation(Operation(name, str(key), False, str(reason)))
                plain = {"dim": own_dim, "keep_attrs": keep_attrs, **without_default(options)}
                done[key] = remote._plain(name, plain)
        done |= self._fetch(name, keep_attrs, options, waiting)
        for key, found in done.items():
            values = found.transpose(*looks[key].dims).variable._data
            looks[key] = looks[key].variable.copy(deep=False, data=values)
        return looks

    def _fetch(
        self,
        name: str,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        waiting: Mapping[Hashable, tuple[Request, xr.DataArray]],
    ) -> dict[Hashable, xr.DataArray]:
        async def one(key: Hashable, request: Request, looks: xr.DataArray) -> Any:
            try:
                return await answer(name, request, looks)
            except NotPushed as reason:
                return reason

        requests = [one(key, *pair) for key, pair in waiting.items()]
        found = dict(zip(waiting, run(gather(*requests)), strict=True))
        for key, result in found.items():
            if isinstance(result, NotPushed):
                note_operation(Operation(name, str(key), False, str(result)))
                array = self._dataset[key]
                gone: Any = [each for each in array.dims if each not in waiting[key][1].dims]
                if name.startswith("arg"):
                    gone = gone[0] if len(gone) == 1 else None
                plain = {"dim": gone, "keep_attrs": keep_attrs, **without_default(options)}
                found[key] = getattr(array, name)(**plain)
        return found

    def _template(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        dims: tuple[Hashable, ...],
    ) -> xr.Dataset:
        """The dataset as xarray makes it of one with dimensions of length 1, without values."""
        small = self._dataset.copy(deep=False)
        for key, variable in self._dataset.data_vars.items():
            if variable.dtype.kind != "O" and set(variable.dims) & set(dims):
                empty = np.broadcast_to(np.zeros((), variable.dtype), variable.shape)
                small[key] = variable.variable.copy(deep=False, data=empty)
        small = small.isel({each: slice(0, 1) for each in dims})
        given = {**without_default(options), "dim": dim, "keep_attrs": keep_attrs}
        given.pop("ddof", None)
        return cast(xr.Dataset, quietly(lambda: getattr(small, name)(**given)))


class DatasetParts(SimpleReductions[xr.Dataset]):
    """Groups, windows or weights of a dataset: variable by variable."""

    def __init__(
        self,
        accessor: DatasetAccessor,
        how: str,
        arguments: tuple[Any, ...],
        options: Mapping[str, Any],
    ) -> None:
        self._accessor = accessor
        self._dataset = accessor.dataset
        self._how = how
        self._arguments = arguments
        self._options = dict(options)
        self.last: Report | None = None

    def _parts(self, of: Any) -> Any:
        return getattr(of, self._how)(*self._arguments, **self._options)

    def _reduce(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> xr.Dataset:
        given = {**without_default(options), **others}
        given |= {} if dim is None else {"dim": dim}
        given |= {} if keep_attrs is None else {"keep_attrs": keep_attrs}
        with report() as found:
            self.last = found
            try:
                return self._by_variable(name, dim, given)
            except NotPushed as reason:
                note_operation(Operation(f"{self._how} {name}", "dataset", False, str(reason)))
            return cast(xr.Dataset, getattr(self._parts(self._dataset), name)(**given))

    def _by_variable(self, name: str, dim: Dims, given: Mapping[str, Any]) -> xr.Dataset:
        dataset = self._dataset
        used = self._used(dim)
        arrays = {
            key: array
            for key, array in dataset.data_vars.items()
            if name not in NUMERIC_ONLY or array.dtype.kind in "biufc"
        }
        coords = {coord for array in arrays.values() for coord in array.coords}
        if not arrays or set(dataset.coords) - coords:
            raise NotPushed("coordinates that no variable has")
        if any(used - set(array.dims) for array in arrays.values()):
            raise NotPushed(f"variables without the dimensions {sorted(map(str, used))}")
        parts = {key: getattr(self._parts(self._accessor[key]), name)(**given) for key in arrays}
        keeps = given.get("keep_attrs")
        keeps = xr.get_options()["keep_attrs"] if keeps is None else keeps
        attrs = dataset.attrs if keeps in (True, "default") else {}
        return xr.Dataset(parts, attrs=attrs)

    def _used(self, dim: Dims) -> set[Hashable]:
        """The dimensions that every variable must have."""
        used = set() if dim is None else set(over(self._dataset, dim))
        if self._how == "groupby":
            return used | {str(self._arguments[0]).partition(".")[0]}
        if self._how == "coarsen":
            windows = {**(self._arguments[0] or {}), **self._options}
            return used | {each for each in windows if each in self._dataset.dims}
        if dim is None:
            used = set(self._dataset.dims)
        weights = self._arguments[0]
        return used | (set(weights.dims) if isinstance(weights, xr.DataArray) else set())
