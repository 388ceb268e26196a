"""One reduction: asked of the service, or done here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import xarray as xr

from .._loop import run
from .._wire import tensor
from ..errors import Error
from ._arrays import Origin
from ._methods import Dims, SimpleReductions
from ._reduce import NotPushed, Request, fill
from ._report import Operation, Report, note_operation, report

__all__ = [
    "Pushing",
    "Template",
    "answer",
    "ask",
    "explain_request",
    "quietly",
    "without_default",
]

Template = Callable[[], xr.DataArray]
"""Makes what the answer looks like, without its values."""

KEPT_OUT = {400, 404, 406, 413, 414, 422}
"""Statuses of what the service does not do. Others are failures and raised."""


def ask(name: str, request: Request, template: Template) -> xr.DataArray:
    """The answer of the service as xarray has it."""
    looks = template()
    return run(answer(name, request, looks))


async def answer(name: str, request: Request, looks: xr.DataArray) -> xr.DataArray:
    origin = request.origin
    try:
        response = await origin.source.ask("reduce", origin.path, request.parameters)
    except Error as error:
        if error.status not in KEPT_OUT:
            raise
        raise NotPushed(f"the service says: {error}") from error
    found = fill(looks, request.dims, np.array(tensor(response)))
    note_operation(Operation(name, origin.path, True, None))
    return found


class Pushing(SimpleReductions[xr.DataArray]):
    """Reductions of one array: ``_request`` says how the service does one, ``_plain`` does it."""

    last: Report | None = None
    """What the last reduction transferred, and whether the service computed it."""

    def _plain(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """By xarray, from the values."""
        raise NotImplementedError

    def _request(
        self, name: str, dim: Dims, keep_attrs: bool | None, options: Mapping[str, Any]
    ) -> tuple[Request, Template]:
        """By the service.

        Raises :class:`NotPushed` if it does not do that.
        """
        raise NotImplementedError

    def _label(self) -> str:
        """The array, in reports."""
        raise NotImplementedError

    def _reduce(
        self,
        name: str,
        dim: Dims,
        keep_attrs: bool | None,
        options: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> xr.DataArray:
        arguments = {"dim": dim, "keep_attrs": keep_attrs, **options, **others}
        with report() as found:
            self.last = found
            try:
                if others:
                    raise NotPushed(f"{name} with {', '.join(others)}")
                request, template = self._request(name, dim, keep_attrs, options)
                return ask(name, request, template)
            except NotPushed as reason:
                note_operation(Operation(name, self._label(), False, str(reason)))
            return cast(xr.DataArray, self._plain(name, arguments))

    def explain(self, reduce: str, dim: Dims = None, **options: Any) -> dict[str, Any]:
        """What a reduction would cost the service: the answer of ``explain``; runs nothing.

        Raises :class:`ValueError` with the reason if the service would not compute it.
        """
        try:
            request, _ = self._request(reduce, dim, None, options)
        except NotPushed as reason:
            raise ValueError(f"{reduce} would run here: {reason}") from None
        return explain_request(request.origin, request.parameters)


def explain_request(origin: Origin, parameters: Mapping[str, Any]) -> dict[str, Any]:
    response = run(origin.source.ask("explain", origin.path, parameters))
    found: dict[str, Any] = json.loads(bytes(response.body))
    return found


def without_default(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that say something: not every method of xarray takes all."""
    return {
        key: value
        for key, value in options.items()
        if value is not None and not (key == "ddof" and value == 0)
    }


def quietly(make: Callable[[], Any]) -> Any:
    """Without the warnings of empty values; those about the call itself stay."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return make()
