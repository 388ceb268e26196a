"""The reductions of xarray, by name: each calls ``_reduce``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Dims", "Reductions", "SimpleReductions"]

Result = TypeVar("Result")
Dims: TypeAlias = "str | Hashable | Iterable[Hashable] | None"


class SimpleReductions(ABC, Generic[Result]):
    """What arrays, groups and windows have in common."""

    @abstractmethod
    def _reduce(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> Result:
        """Reduces by a method of xarray.

        ``options`` have their default where they were not given; ``others`` are arguments that only
        xarray knows.
        """

    def all(self, dim: Dims = None, *, keep_attrs: bool | None = None, **kwargs: Any) -> Result:
        """Whether all values are true; as :meth:`xarray.DataArray.all`."""
        return self._reduce("all", dim, keep_attrs, {}, kwargs)

    def any(self, dim: Dims = None, *, keep_attrs: bool | None = None, **kwargs: Any) -> Result:
        """Whether any value is true; as :meth:`xarray.DataArray.any`."""
        return self._reduce("any", dim, keep_attrs, {}, kwargs)

    def count(self, dim: Dims = None, *, keep_attrs: bool | None = None, **kwargs: Any) -> Result:
        """Number of values that are not missing; as :meth:`xarray.DataArray.count`."""
        return self._reduce("count", dim, keep_attrs, {}, kwargs)

    def max(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Greatest values; as :meth:`xarray.DataArray.max`."""
        return self._reduce("max", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def mean(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Means; as :meth:`xarray.DataArray.mean`."""
        return self._reduce("mean", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def median(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Medians; as :meth:`xarray.DataArray.median`."""
        return self._reduce("median", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def min(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Least values; as :meth:`xarray.DataArray.min`."""
        return self._reduce("min", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def prod(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        min_count: int | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Products; as :meth:`xarray.DataArray.prod`."""
        return self._reduce(
            "prod", dim, keep_attrs, {"skipna": skipna, "min_count": min_count}, kwargs
        )

    def std(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        ddof: int = 0,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Standard deviations; as :meth:`xarray.DataArray.std`."""
        return self._reduce("std", dim, keep_attrs, {"skipna": skipna, "ddof": ddof}, kwargs)

    def sum(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        min_count: int | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Sums; as :meth:`xarray.DataArray.sum`."""
        return self._reduce(
            "sum", dim, keep_attrs, {"skipna": skipna, "min_count": min_count}, kwargs
        )

    def var(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        ddof: int = 0,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Variances; as :meth:`xarray.DataArray.var`."""
        return self._reduce("var", dim, keep_attrs, {"skipna": skipna, "ddof": ddof}, kwargs)


class Reductions(SimpleReductions[Result]):
    """What arrays have besides."""

    def argmax(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Positions of the greatest values; as :meth:`xarray.DataArray.argmax`."""
        return self._reduce("argmax", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def argmin(
        self,
        dim: Dims = None,
        *,
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Positions of the least values; as :meth:`xarray.DataArray.argmin`."""
        return self._reduce("argmin", dim, keep_attrs, {"skipna": skipna}, kwargs)

    def quantile(
        self,
        q: float | Sequence[float],
        dim: Dims = None,
        *,
        method: str = "linear",
        skipna: bool | None = None,
        keep_attrs: bool | None = None,
        **kwargs: Any,
    ) -> Result:
        """Quantiles; as :meth:`xarray.DataArray.quantile`."""
        options = {"q": q, "method": method, "skipna": skipna}
        return self._reduce("quantile", dim, keep_attrs, options, kwargs)
