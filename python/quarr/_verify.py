"""Checks on this side that what is read is what a commit holds.

Chunks are not read from the Zarr view but from proofs: the encoded inner chunks come with the
hashes that lead from them to the commit, and :mod:`quarr.proof`, which shares no code with the
service, follows those.

    zarr.json of an array    from a proof: what the commit has
    a chunk                  from a proof; that there is none is proven as well
    a shard                  its inner chunks from proofs, put where the shard's index says
    zarr.json of a group     as served: attributes of groups and lists of members are not proven
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._transport import Transport
from ._wire import Selection, key_path, query, segment
from .aio import _Caller
from .errors import BadRequestError, IntegrityError, TooLargeError

if TYPE_CHECKING:
    from .proof import Array, Proven
    from .store import Store

DOCUMENT = "zarr.json"
CACHE_BYTES = 256 << 20
"""Proven inner chunks that are kept: a few shards, which readers come back to."""
CACHE_ENTRIES = 1 << 16
INDEXES = 1024
"""Indexes of shards that are kept, of each array."""
WHOLE_SHARD_BYTES = 16 << 20
"""Shards up to this size are proven whole to show which inner chunks are absent."""
CONCURRENCY = 16
INDEX_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
ABSENT = 2**64 - 1


def check_proof(data: bytes, keys: Sequence[str]) -> Proven:
    """What a proof proves.

    Raises :class:`~quarr.IntegrityError` if it does not hold, or if there are keys and no log that
    one of them signed has the commit.
    """
    try:
        from . import proof
    except ImportError as error:
        raise ImportError("to check proofs: pip install 'quarr[verify]'") from error
    try:
        proven = proof.check(data)
        if keys:
            if proven.checkpoint is None:
                raise proof.ProofError("the proof has no signed checkpoint")
            proven.checkpoint.verify([proof.VerifierKey.parse(key) for key in keys])
    except proof.ProofError as error:
        raise IntegrityError(f"the proof does not hold: {error}") from error
    return proven


@dataclass
class _ProvenArray:
    """An array whose metadata is proven."""

    path: str
    metadata: dict[str, Any]
    layout: Array
    document: bytes
    indexes: dict[tuple[int, ...], _Index | None] = field(default_factory=dict)

    def chunk_of(self, key: str) -> tuple[int, ...] | None:
        """The chunk that a key below the array names; ``None`` if it names none."""
        encoding = self.metadata.get("chunk_key_encoding", {"name": "default"})
        if isinstance(encoding, str):
            encoding = {"name": encoding}
        is_default = encoding["name"] == "default"
        separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
        parts = key.split(separator)
        if is_default:
            if parts.pop(0) != "c":
                return None
        elif not self.layout.shape and parts == ["0"]:
            return ()
        if len(parts) != len(self.layout.shape):
            return None
        if not all(re.fullmatch("0|[1-9][0-9]*", part) for part in parts):
            return None
        at = tuple(map(int, parts))
        inside = all(place < count for place, count in zip(at, self.layout.grid, strict=True))
        return at if inside else None

    def region_of(self, at: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Start and shape of the part of a chunk that is in the array."""
        start = [place * length for place, length in zip(at, self.layout.chunk, strict=True)]
        lengths = zip(start, self.layout.chunk, self.layout.shape, strict=True)
        return start, [min(length, whole - first) for first, length, whole in lengths]

    def inner_region(self, at: tuple[int, ...], number: int) -> tuple[list[int], list[int]]:
        """Start and shape of the part of an inner chunk that is in the array."""
        layout = self.layout
        place = [0] * len(at)
        for axis in reversed(layout.order):
            count = layout.chunk[axis] // layout.inner[axis]
            number, place[axis] = divmod(number, count)
        corners = zip(at, layout.chunk, place, layout.inner, strict=True)
        start = [chunk * length + n * inner for chunk, length, n, inner in corners]
        lengths = zip(start, layout.inner, layout.shape, strict=True)
        return start, [min(length, whole - first) for first, length, whole in lengths]

    def numbers(self, at: tuple[int, ...]) -> list[int]:
        """The inner chunks of a chunk that are in the array."""
        return self.layout.wanted(at, *self.region_of(at))


@dataclass
class _Index:
    """Where a shard says that its inner chunks are; what they hold is proven later."""

    data: bytes
    size: int
    """Of the shard, in bytes."""
    places: dict[int, tuple[int, int]]
    """Offset and length, by number."""


class Verifier:
    """Reads one commit and believes nothing."""

    def __init__(
        self, transport: Transport, repository: str, commit: str, keys: Sequence[str]
    ) -> None:
        self._caller = _Caller(transport)
        self._commit = commit
        self._keys = tuple(keys)
        self._target = f"/v1/repos/{segment(repository)}/refs/{segment(commit)}"
        self._arrays: dict[str, _ProvenArray | None] = {}
        self._kinds: dict[str, str | None] = {}
        self._cache: OrderedDict[tuple[str, tuple[int, ...], int], bytes | None] = OrderedDict()
        self._cached_bytes = 0
        # Readers may be on several event loops.
        self._lock = threading.Lock()
        self._running: dict[Any, asyncio.Task[Any]] = {}

    # What the service says, not proven

    async def _kind(self, path: str) -> str | None:
        """``array``, ``group``, or ``None`` if the service knows no such node."""
        if path not in self._kinds:
            name = key_path(path)
            target = f"{self._target}/nodes/{name}" if name else f"{self._target}/nodes"
            response = await self._caller.transport.request("GET", target)
            if response.status in (400, 404):
                self._kinds[path] = None
            else:
                # A second request to have its failure raised.
                node = (
                    json.loads(bytes(response.body))
                    if response.status == 200
                    else await self._caller._json("GET", target)
                )
                self._kinds[path] = node["kind"]
        return self._kinds[path]

    async def _served(self, key: str, headers: dict[str, str] | None = None) -> Any:
        target = f"{self._target}/zarr/{key_path(key)}"
        return await self._caller._call("GET", target, headers=headers)

    # What is proven

    async def get(self, key: str, start: int | None, stop: int | None) -> bytes | memoryview | None:
        """The object under ``key``, or part of it; ``None`` if it is proven that there is none."""
        parts = [part for part in key.split("/") if part]
        if parts and parts[-1] == DOCUMENT:
            content = await self._document("/".join(parts[:-1]))
            return content if content is None else _part(content, start, stop)
        for depth in range(len(parts)):
            path = "/".join(parts[:depth])
            kind = await self._kind(path)
            if kind is None:
                return None
            if kind == "array":
                array = await self.array(path)
                at = array.chunk_of("/".join(parts[depth:]))
                return None if at is None else await self._chunk(array, at, start, stop)
        return None

    async def _document(self, path: str) -> bytes | None:
        kind = await self._kind(path)
        if kind is None:
            return None
        if kind == "array":
            return (await self.array(path)).document
        name = f"{path}/{DOCUMENT}" if path else DOCUMENT
        document = json.loads(bytes((await self._served(name)).body))
        # It would stand in for the arrays' own documents, which are proven.
        document.pop("consolidated_metadata", None)
        return json.dumps(document).encode()

    async def array(self, path: str) -> _ProvenArray:
        """An array with the metadata it has in the commit."""
        found = self._arrays.get(path)
        if found is None:
            found = await self._once(("array", path), lambda: self._prove_array(path))
            self._arrays[path] = found
        return found

    async def _prove_array(self, path: str) -> _ProvenArray:
        from . import proof

        said = (await self._caller._json("GET", f"{self._target}/nodes/{key_path(path)}"))["shape"]
        if 0 in said:
            raise IntegrityError(f"{path!r} is said to have no cells: that cannot be proven")
        chunk = ",".join("0" for _ in said)
        proven = await self._prove(path, {"chunk": chunk} if said else {})
        array = proof.Array(proven.metadata)
        return _ProvenArray(path, proven.metadata, array, proof.canonical(proven.metadata))

    async def _prove(self, path: str, parameters: dict[str, Any]) -> Proven:
        target = f"{self._target}/proof/{key_path(path)}{query(parameters)}"
        response = await self._caller._call("GET", target)
        proven = await asyncio.to_thread(check_proof, bytes(response.body), self._keys)
        if proven.commit != self._commit or proven.path != path.strip("/"):
            raise IntegrityError(
                f"the proof is one of {proven.path!r} at {proven.commit}, not of {path!r} at "
                f"{self._commit}"
            )
        return proven

    async def _once(self, name: Any, make: Any) -> Any:
        """The result of ``make()``, which others may be waiting for already."""
        loop = asyncio.get_running_loop()
        task = self._running.get((loop, name))
        if task is None:
            task = loop.create_task(make())
            self._running[loop, name] = task
            task.add_done_callback(lambda _: self._running.pop((loop, name), None))
        return await asyncio.shield(task)

    async def _chunk(
        self, array: _ProvenArray, at: tuple[int, ...], start: int | None, stop: int | None
    ) -> bytes | memoryview | None:
        if not array.layout.is_sharded:
            content = (await self._inner_chunks(array, at, [0]))[0]
            return None if content is None else _part(content, start, stop)
        if at in array.indexes:
            index = array.indexes[at]
        else:
            index = await self._once(("index", array.path, at), lambda: self._read_index(array, at))
            array.indexes[at] = index
            if len(array.indexes) > INDEXES:
                array.indexes.pop(next(iter(array.indexes)), None)
        if index is None:
            return None
        first, last = _resolve(start, stop, index.size)
        wanted = [
            number
            for number, (offset, length) in index.places.items()
            if offset < last and offset + length > first
        ]
        proven = await self._inner_chunks(array, at, wanted)
        for number in wanted:
            content, length = proven[number], index.places[number][1]
            if content is None or len(content) != length:
                raise IntegrityError(
                    f"the index of chunk {at} of {array.path!r} is wrong about inner chunk {number}"
                )
            if index.places[number] == (first, last - first):
                return content
        part = bytearray(last - first)
        index_at = index.size - len(index.data)
        pieces = [(index.places[number][0], proven[number] or b"") for number in wanted]
        for offset, content in [*pieces, (index_at, index.data)]:
            low, high = max(offset, first), min(offset + len(content), last)
            if low < high:
                part[low - first : high - first] = content[low - offset : high - offset]
        return memoryview(bytes(part))

    async def _read_index(self, array: _ProvenArray, at: tuple[int, ...]) -> _Index | None:
        count = array.layout.inner_chunks
        length = INDEX_ENTRY.itemsize * count + 4
        key = f"{array.path}/{_chunk_key(array, at)}"
        target = f"{self._target}/zarr/{key_path(key)}"
        headers = {"range": f"bytes=-{length}"}
        response = await self._caller.transport.request("GET", target, headers=headers)
        numbers = array.numbers(at)
        if response.status == 404:
            proven = await self._inner_chunks(array, at, numbers)
            if any(content is not None for content in proven.values()):
                raise IntegrityError(f"chunk {at} of {array.path!r} is not absent, as was said")
            return None
        if response.status >= 300:
            await self._served(key, headers)
        data = bytes(response.body)
        size = response.headers.get("content-range", "").rpartition("/")[2]
        if len(data) != length or not size.isdigit():
            raise IntegrityError(f"chunk {at} of {array.path!r} has no index")
        entries = np.frombuffer(data[:-4], INDEX_ENTRY)
        places = {
            number: (int(entries[number]["offset"]), int(entries[number]["length"]))
            for number in range(count)
            if int(entries[number]["offset"]) != ABSENT
        }
        index = _Index(data, int(size), {n: place for n, place in places.items() if n in numbers})
        end = 0
        for offset, taken in sorted(places.values()):
            if offset < end or offset + taken > index.size - length:
                raise IntegrityError(f"the index of chunk {at} of {array.path!r} is no index")
            end = offset + taken
        await self._check_absent(array, at, index, numbers)
        return index

    async def _check_absent(
        self, array: _ProvenArray, at: tuple[int, ...], index: _Index, numbers: list[int]
    ) -> None:
        """Inner chunks that the index has not are absent: nobody asks for them any more."""
        absent = [number for number in numbers if number not in index.places]
        if not absent:
            return
        asked = numbers if index.size <= WHOLE_SHARD_BYTES else absent
        proven = await self._inner_chunks(array, at, asked)
        for number in absent:
            if proven[number] is not None:
                raise IntegrityError(
                    f"inner chunk {number} of chunk {at} of {array.path!r} was said to be absent; "
                    "it is not"
                )

    async def _inner_chunks(
        self, array: _ProvenArray, at: tuple[int, ...], numbers: list[int]
    ) -> dict[int, bytes | None]:
        """Encoded inner chunks by number; ``None`` for those that are all fill value."""
        found: dict[int, bytes | None] = {}
        missing = []
        with self._lock:
            for number in numbers:
                key = (array.path, at, number)
                if key in self._cache:
                    self._cache.move_to_end(key)
                    found[number] = self._cache[key]
                else:
                    missing.append(number)
        if not missing:
            return found
        regions = self._regions(array, at, missing)
        gate = asyncio.Semaphore(CONCURRENCY)

        async def prove(region: tuple[list[int], list[int]]) -> dict[int, bytes | None]:
            async with gate:
                name = ("region", array.path, at, *map(tuple, region))
                result: dict[int, bytes | None] = await self._once(
                    name, lambda: self._prove_region(array, at, *region)
                )
                return result

        for proven in await asyncio.gather(*map(prove, regions)):
            for number, content in proven.items():
                self._keep((array.path, at, number), content)
                found[number] = content
        return found

    def _regions(
        self, array: _ProvenArray, at: tuple[int, ...], numbers: list[int]
    ) -> list[tuple[list[int], list[int]]]:
        """One box, if the inner chunks fill one; else one for each."""
        if not array.layout.is_sharded:
            return [array.region_of(at)]
        each = [array.inner_region(at, number) for number in numbers]
        low = [min(start[axis] for start, _ in each) for axis in range(len(at))]
        high = [max(start[axis] + shape[axis] for start, shape in each) for axis in range(len(at))]
        shape = [last - first for first, last in zip(low, high, strict=True)]
        if set(array.layout.wanted(at, low, shape)) == set(numbers):
            return [(low, shape)]
        return each

    async def _prove_region(
        self, array: _ProvenArray, at: tuple[int, ...], start: list[int], shape: list[int]
    ) -> dict[int, bytes | None]:
        slices = ",".join(
            f"{first}:{first + length}" for first, length in zip(start, shape, strict=True)
        )
        try:
            proven = await self._prove(array.path, {"slice": slices} if slices else {})
        except TooLargeError:
            halves = self._halves(array, start, shape)
            if halves is None:
                raise
            found: dict[int, bytes | None] = {}
            for half in halves:
                found |= await self._prove_region(array, at, *half)
            return found
        if list(proven.start) != start or list(proven.shape) != shape:
            raise IntegrityError(f"the proof is one of another region of {array.path!r}")
        if proven.metadata != array.metadata or proven.chunks is None:
            raise IntegrityError(f"the proof is one of another array than {array.path!r}")
        [(chunk, inner)] = proven.chunks
        if tuple(chunk) != at:
            raise IntegrityError(f"the proof is one of another chunk of {array.path!r}")
        return dict(inner)

    def _halves(
        self, array: _ProvenArray, start: list[int], shape: list[int]
    ) -> list[tuple[list[int], list[int]]] | None:
        """The region in two, between inner chunks; ``None`` if it is one."""
        inner = array.layout.inner
        counts = [-(-length // size) for length, size in zip(shape, inner, strict=True)]
        if prod(counts) <= 1:
            return None
        axis = counts.index(max(counts))
        cut = counts[axis] // 2 * inner[axis]
        first, second = list(shape), list(shape)
        first[axis], second[axis] = cut, shape[axis] - cut
        later = list(start)
        later[axis] += cut
        return [(start, first), (later, second)]

    def _keep(self, key: tuple[str, tuple[int, ...], int], content: bytes | None) -> None:
        with self._lock:
            if key in self._cache:
                return
            self._cache[key] = content
            self._cached_bytes += len(content or b"")
            while self._cached_bytes > CACHE_BYTES or len(self._cache) > CACHE_ENTRIES:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= len(dropped or b"")


def _chunk_key(array: _ProvenArray, at: tuple[int, ...]) -> str:
    encoding = array.metadata.get("chunk_key_encoding", {"name": "default"})
    if isinstance(encoding, str):
        encoding = {"name": encoding}
    is_default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
    places = separator.join(map(str, at))
    if is_default:
        return f"c{separator}{places}" if at else "c"
    return places or "0"


def _resolve(start: int | None, stop: int | None, size: int) -> tuple[int, int]:
    first, last, _ = slice(start, stop).indices(size)
    return first, max(first, last)


def _part(content: bytes, start: int | None, stop: int | None) -> bytes | memoryview:
    return content if start is None and stop is None else memoryview(content)[start:stop]


# Values


PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned")
VALID = ("valid_min", "valid_max", "valid_range")


async def read_verified(
    store: Store,
    path: str,
    selection: Selection,
    decode: str,
    strict: bool,
    expected_shape: Sequence[int] | None,
    writable: bool,
) -> npt.NDArray[Any]:
    """Reads a slice through a store that verifies, and decodes it here."""
    from zarr.api.asynchronous import open_array

    if isinstance(selection, str):
        raise ValueError("what is verified is read by Python slices, not by texts")
    array = await open_array(store=store, path=path, mode="r")
    hull, rest = _hull(selection, array.shape, strict)
    try:
        values = np.asarray(await array.getitem(hull))
        if values.dtype.kind in "TU":
            # As the service serves texts.
            values = values.astype(object)
    except ExceptionGroup as group:
        # zarr-python reads the parts of a shard at once.
        raise _first(group) from None
    for axis, index in rest:
        # An array of texts has texts as elements, not arrays.
        values = np.asarray(values[(slice(None),) * axis + (index,)], values.dtype)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    values = _decoded(values, dict(array.attrs), decode)
    if expected_shape is not None and tuple(expected_shape) != values.shape:
        from .errors import PreconditionError

        raise PreconditionError(f"the answer has shape {values.shape}, not {tuple(expected_shape)}")
    values = np.array(values, order="C") if writable else np.asarray(values, order="C")
    if not writable:
        values = values.view()
        values.flags.writeable = False
    return values


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _hull(
    selection: Selection, shape: tuple[int, ...], strict: bool
) -> tuple[tuple[slice, ...], list[tuple[int, Any]]]:
    """The box around a selection, and what to index its result with, last axis first."""
    parts: list[Any] = list(selection) if isinstance(selection, tuple) else [selection]
    if selection is None:
        parts = [Ellipsis]
    dots = sum(part is Ellipsis for part in parts)
    if dots > 1 or len(parts) - dots > len(shape):
        raise BadRequestError(f"{selection!r} does not index {len(shape)} dimensions")
    at = next((n for n, part in enumerate(parts) if part is Ellipsis), len(parts))
    fill = [slice(None)] * (len(shape) - len(parts) + dots)
    parts = [*parts[:at], *fill, *parts[at + 1 :]]
    hull: list[slice] = []
    rest: list[tuple[int, Any]] = []
    for axis, (part, size) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            if strict and any(end is not None and not -size <= end <= size
                              for end in (part.start, part.stop)):  # fmt: skip
                raise BadRequestError(f"{part} reaches past the {size} cells of axis {axis}")
            positions = range(size)[part]
            low, high = min(positions, default=0), max(positions, default=-1) + 1
            hull.append(slice(low, high))
            # Positions count from the start of the box.
            stop: int | None = positions.stop - low
            if positions.step < 0 and positions.stop - low < 0:
                stop = None
            rest.append((axis, slice(positions.start - low, stop, positions.step)
                         if positions else slice(0, 0)))  # fmt: skip
            continue
        index = np.asarray(part)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        if index.ndim > 1 or (index.size and index.dtype.kind not in "iu"):
            raise TypeError(f"{part!r} is no index of one dimension")
        index = index.astype(np.int64)
        if ((index < -size) | (index >= size)).any():
            raise BadRequestError(f"{part!r} is outside the {size} cells of axis {axis}")
        index = np.where(index < 0, index + size, index)
        low, high = (int(index.min()), int(index.max()) + 1) if index.size else (0, 0)
        hull.append(slice(low, high))
        rest.append((axis, int(index) - low if index.ndim == 0 else index - low))
    return tuple(hull), rest[::-1]


def _decoded(values: npt.NDArray[Any], attributes: dict[str, Any], decode: str) -> npt.NDArray[Any]:
    packing = {name: attributes[name] for name in PACKING if name in attributes}
    if decode == "raw" or not (packing or any(name in attributes for name in VALID)):
        return values
    if decode != "cf" or any(name in attributes for name in VALID):
        raise ValueError("what is verified is decoded as xarray does: read decode='raw'")
    try:
        from xarray import Variable
        from xarray.conventions import decode_cf_variable
    except ImportError as error:
        raise ImportError("to decode what is verified: install xarray, or decode='raw'") from error
    dimensions = [f"dimension_{axis}" for axis in range(values.ndim)]
    variable = Variable(dimensions, values, packing)
    return np.asarray(decode_cf_variable("values", variable, decode_times=False).values)
