"""Arrays that are read when they are needed, one request for each read.

:class:`Source` says where, :class:`ServedArray` is the stored (packed) array as xarray's backends
see it, and :class:`Decoded` marks what xarray made of it: as long as an xarray object still leads
to one through nothing but indexing, the service can compute the same from its own copy.

    Variable._data -> MemoryCachedArray -> CopyOnWriteArray -> LazilyIndexedArray(key)
                                                                   -> Decoded -> ... -> ServedArray
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from xarray import Variable
from xarray.backends import BackendArray
from xarray.core import indexing

from .._loop import run
from .._transport import Response, Transport
from .._wire import json_values, key_path, query, slice_text, tensor
from ..errors import TooLargeError, from_response
from ._report import Transfer, note_transfer, now

__all__ = ["Decoded", "Origin", "ServedArray", "Source", "before_dask", "find_origin"]

MAX_TARGET_BYTES = 8000
"""Longest request target: what servers and proxies take without being asked."""
MAX_POINTS = 1 << 18
"""Most points in one request; the service takes 2^20."""
MIN_CHUNKED_BYTES = 4 << 20
"""Reads of less are one request for a slice, however many chunks they are in."""
MIN_CHUNKED_SHARE = 0.5
"""Larger reads of at least this share of the chunks they are in get these chunks: they are
compressed, and come side by side."""
MIN_POINTS_GAIN = 4
"""Points are asked for one by one if the box around them has so many times more values."""


@dataclass(frozen=True)
class Source:
    """A commit, or a transaction, of a service.

    ``target`` is ``/v1/repos/{repository}/refs/{commit}`` or ``/v1/transactions/{id}``; the latter
    gives slices only.
    """

    transport: Transport
    target: str

    @property
    def is_commit(self) -> bool:
        """Whether it computes, and never changes."""
        return self.target.startswith("/v1/repos/")

    def locate(self, what: str, path: str, parameters: Mapping[str, Any]) -> str:
        """The target of a request."""
        return f"{self.target}/{what}/{key_path(path)}{query(parameters)}"

    async def ask(
        self, what: Any, path: str, parameters: Mapping[str, Any], body: Any = None
    ) -> Response:
        """Values of an array, or what they come to.

        Raises what :mod:`quarr.errors` has for answers of status 300 or more.
        """
        target = self.locate(what, path, parameters)
        sent = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        method = "GET" if body is None else "POST"
        start = now()
        response = await self.transport.request(method, target, headers=headers, body=sent)
        length = response.headers.get("content-length", "")
        received = int(length) if length.isdigit() else len(response.body)
        if what in ("data", "points", "reduce"):
            size = len(target) + len(sent or b"")
            note_transfer(Transfer(what, path, size, received, now() - start))
        if response.status >= 300:
            content = bytes(response.body)
            raise from_response(method, target, response.status, response.headers, content)
        return response


@dataclass(frozen=True)
class Origin:
    """Where values come from, and how the service decodes them the same."""

    source: Source
    path: str
    """The array."""
    dims: tuple[str, ...]
    """The names of its dimensions in the store."""
    attrs: Mapping[str, Any]
    """As stored."""
    decode: str | None
    """How the service decodes it as xarray does; ``None`` if it does not."""
    reason: str = ""
    """Why it does not."""
    coords: Mapping[str, Variable] = field(default_factory=dict, compare=False)
    """Beside it, by dimension: as stored and decoded."""


def _plain(index: Any) -> Any:
    """A list of positions as a slice if it is one: shorter to send."""
    if not isinstance(index, np.ndarray):
        return index
    if index.dtype == bool:
        index = np.flatnonzero(index)
    if index.size > 1:
        steps = np.diff(index)
        if steps[0] > 0 and (steps == steps[0]).all() and index[0] >= 0:
            return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]))
    return index


def key_text(key: tuple[Any, ...]) -> str | None:
    """An orthogonal key in the service's notation; ``None`` for everything."""
    plain = tuple(_plain(index) for index in key)
    if all(isinstance(index, slice) and index == slice(None) for index in plain):
        return None
    return slice_text(plain)


def _length(index: Any, size: int) -> int | None:
    """How many positions an index selects; ``None`` if it drops the dimension."""
    if isinstance(index, slice):
        return len(range(*index.indices(size)))
    return int(np.size(index)) if np.ndim(index) else None


def _touched(index: Any, size: int, chunk: int) -> int:
    """How many positions the chunks have that an index touches."""
    if isinstance(index, slice):
        positions = np.arange(*index.indices(size))
    else:
        positions = np.atleast_1d(index)
    first = np.unique(positions // chunk) * chunk
    return int((np.minimum(first + chunk, size) - first).sum())


def key_shape(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what an orthogonal key selects."""
    lengths = (_length(index, size) for index, size in zip(key, shape, strict=True))
    return tuple(length for length in lengths if length is not None)


class ServedArray(BackendArray):
    """A stored array: a read is one request for a slice, or for many points.

    What is large and made of whole chunks is read as these chunks instead.

    Parameters
    ----------
    chunked : the same array as xarray reads it, chunk by chunk.
    chunks : shape of a chunk; of an inner one where there are shards.
    dims : names of the dimensions in the store; points need them.
    dtype : what the values are converted to.
    is_text : whether elements are texts of any length, which come as JSON.
    """

    __slots__ = ("chunked", "chunks", "dims", "dtype", "is_text", "path", "shape", "source")

    def __init__(
        self,
        source: Source,
        path: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunked: BackendArray,
        chunks: tuple[int, ...],
        is_text: bool = False,
    ) -> None:
        self.chunked = chunked
        self.chunks = chunks
        self.source = source
        self.path = path
        self.dims = dims
        self.shape = shape
        self.dtype = dtype
        self.is_text = is_text

    def __repr__(self) -> str:
        return f"<ServedArray {self.path} {self.shape} {self.dtype}>"

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        if self._is_of_whole_chunks(key):
            return self.chunked[key]  # type: ignore[index]
        return run(self.async_getitem(key))

    def _is_of_whole_chunks(self, key: indexing.ExplicitIndexer) -> bool:
        """Whether getting chunks costs less than getting values."""
        if isinstance(key, indexing.VectorizedIndexer):
            return False
        lines = list(zip(key.tuple, self.shape, self.chunks, strict=True))
        cells = prod(_length(index, size) or 1 for index, size, _ in lines)
        if cells * self.dtype.itemsize < MIN_CHUNKED_BYTES:
            return False
        touched = prod(_touched(index, size, chunk) for index, size, chunk in lines)
        return cells >= MIN_CHUNKED_SHARE * touched

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        if self._is_of_whole_chunks(key):
            return await self.chunked.async_getitem(key)
        if isinstance(key, indexing.VectorizedIndexer):
            points = await self._points(key.tuple)
            if points is not None:
                return points
        value = await indexing.async_explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        if self.dtype.kind == "T" and isinstance(value, str):
            return np.asarray(value, dtype=self.dtype)
        return value

    async def _read(self, key: tuple[Any, ...]) -> Any:
        """What an orthogonal key selects: positive steps only."""
        shape = key_shape(key, self.shape)
        if 0 in shape:
            return np.empty(shape, self.dtype)
        text = key_text(key)
        if len(text or "") > MAX_TARGET_BYTES:
            lists = [np.size(index) if np.ndim(index) else 0 for index in key]
            return await self._read_halves(key, int(np.argmax(lists)))
        try:
            return await self._values("data", {"slice": text}, None, shape)
        except TooLargeError:
            if max(shape, default=1) == 1:
                raise
            lengths = [
                _length(index, size) or 0 for index, size in zip(key, self.shape, strict=True)
            ]
            return await self._read_halves(key, int(np.argmax(lengths)))

    async def _read_halves(self, key: tuple[Any, ...], axis: int) -> Any:
        size = self.shape[axis]
        index = key[axis]
        positions = range(*index.indices(size)) if isinstance(index, slice) else index
        middle = len(positions) // 2
        halves: list[Any] = [positions[:middle], positions[middle:]]
        if isinstance(index, slice):
            halves = [slice(half.start, half.stop, half.step) for half in halves]
        # One after the other: together they are what is too much at once.
        parts = [await self._read((*key[:axis], half, *key[axis + 1 :])) for half in halves]
        place = sum(1 for other in key[:axis] if isinstance(other, slice) or np.ndim(other))
        return np.concatenate(parts, axis=place)

    async def _points(self, key: tuple[Any, ...]) -> Any:
        """Points in one request; ``None`` if they are better read as a box."""
        listed = [axis for axis, index in enumerate(key) if not isinstance(index, slice)]
        names = [self.dims[axis] for axis in listed]
        if not self.source.is_commit or len(set(self.dims)) < len(self.dims) or not listed:
            return None
        places = np.broadcast_arrays(*(key[axis] for axis in listed))
        rest = [axis for axis in range(len(key)) if axis not in listed]
        count = places[0].size
        if not 0 < count <= MAX_POINTS:
            return None
        box = np.prod([len(np.unique(place)) for place in places], dtype=float)
        box *= np.prod([_length(key[axis], self.shape[axis]) or 0 for axis in rest], dtype=float)
        answer = count * np.prod([self.shape[axis] for axis in rest], dtype=float)
        if box < MIN_POINTS_GAIN * answer:
            return None
        positions = {
            name: np.where(place < 0, place + self.shape[axis], place).ravel().tolist()
            for name, axis, place in zip(names, listed, places, strict=True)
        }
        shape = (count, *(self.shape[axis] for axis in rest))
        values = await self._values("points", {}, {"positions": positions}, shape)
        values = values.reshape(*places[0].shape, *shape[1:])
        return values[(..., *(key[axis] for axis in rest))]

    async def _values(
        self, what: str, parameters: dict[str, Any], body: Any, shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        given = {**parameters, "decode": "raw", "f": "json" if self.is_text else "octet-stream"}
        response = await self.source.ask(what, self.path, given, body)
        if self.is_text:
            found = json_values(json.loads(bytes(response.body)))
        else:
            found = tensor(response)
        values = np.array(found, dtype=self.dtype)
        if values.shape != shape:
            raise ValueError(f"{self.path}: asked for shape {shape}, got {values.shape}")
        return values


class Decoded(indexing.ExplicitlyIndexedNDArrayMixin):
    """What xarray made of a stored array when it was opened, and where that is from.

    Indexing passes through and loses the mark: only the :class:`LazilyIndexedArray` around it,
    which keeps its key, still leads here.
    """

    __slots__ = ("array", "origin")

    def __init__(self, array: Any, origin: Origin) -> None:
        self.array = indexing.as_indexable(array)
        self.origin = origin

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of decoded values."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        shape: tuple[int, ...] = self.array.shape
        return shape

    def get_duck_array(self) -> Any:
        return self.array.get_duck_array()

    async def async_get_duck_array(self) -> Any:
        return await self.array.async_get_duck_array()

    def transpose(self, order: Any) -> Any:
        return self.array.transpose(order)

    def _oindex_get(self, indexer: indexing.OuterIndexer) -> Any:
        return self.array.oindex[indexer]

    def _vindex_get(self, indexer: indexing.VectorizedIndexer) -> Any:
        return self.array.vindex[indexer]

    def __getitem__(self, indexer: Any) -> Any:
        return self.array[indexer]

    def __repr__(self) -> str:
        return f"Decoded({self.origin.path!r})"


def find_origin(data: Any) -> tuple[Origin, tuple[Any, ...]] | None:
    """Where the data of a variable comes from and what of it is selected, if it was only opened,
    indexed orthogonally, and split into dask chunks."""
    if hasattr(data, "dask"):
        data = before_dask(data)
    while isinstance(data, indexing.MemoryCachedArray | indexing.CopyOnWriteArray):
        data = data.array
    if type(data) is indexing.LazilyIndexedArray and isinstance(data.array, Decoded):
        return data.array.origin, data.key.tuple
    return None


def before_dask(data: Any) -> Any:
    """What an array was made of that dask only split into chunks; else ``None``."""
    graph, key = data.dask, f"original-{data.name}"
    if key not in graph:
        return None
    found = graph[key]
    found = getattr(found, "value", found)
    array = getattr(found, "array", None)
    return array if getattr(array, "shape", None) == data.shape else None


async def gather(*requests: Any) -> list[Any]:
    """Results of several requests at a time; all end before an error is raised."""
    found = await asyncio.gather(*requests, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found
