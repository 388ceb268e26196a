"""Reads of inner chunks by zarr-python from stores on a local disk, side by side.

The same array, in the same shards and inner chunks, in a plain directory (zarr's LocalStore), in
Icechunk and in Quarr, whose service runs in this process (quarr.open). The stores take turns; a row
gives the median of the turns, and the median of the turn by turn ratios.

    store   what the codec for shards does for one inner chunk: the end of the shard with its index,
            then the range of the chunk. No codec runs.
    array   array[one inner chunk] through zarr-python, which decodes it, and "of it in the store":
            the time of that in which store.get was at work.

"first" reads every inner chunk once through a store that was opened anew: files are in the system's
memory, nothing in the store's. "again" reads them once more, "often" for the fourth time. Every value
that is read is compared.

scripts/bench-python.sh builds what it needs and runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# It warns of every local repository.
os.environ.setdefault("ICECHUNK_LOG", "error")

import icechunk
import numpy as np
import quarr
import zarr
from quarr.store import Store
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

SHARD = (128, 128, 128)
INNER = (32, 64, 64)
CONCURRENT = 64
NAME = "cube"


def sample(shape: tuple[int, int, int]) -> np.ndarray:
    """A smooth field with noise in its lower digits, as measurements have."""
    z, y, x = (np.linspace(0, 6, n, dtype=np.float32) for n in shape)
    field = np.sin(z)[:, None, None] * np.cos(y)[:, None] + np.sin(x * 2)
    noise = np.random.default_rng(7).standard_normal(shape, dtype=np.float32)
    return (field * 20 + 280 + noise * 0.1).round(2).astype(np.float32)


def write(store: Any, values: np.ndarray) -> None:
    array = zarr.create_array(
        store,
        name=NAME,
        shape=values.shape,
        dtype=values.dtype,
        chunks=INNER,
        shards=SHARD,
        compressors=ZstdCodec(level=3),
    )
    array[...] = values


class Place:
    """A store on disk, and how a reader opens it."""

    def __init__(self, name: str, folder: Path, opened: Callable[[], Any]) -> None:
        self.name = name
        self.folder = folder
        self.opened = opened

    def warm(self) -> None:
        """Has the system take all files into its memory."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.read_bytes()


def local(folder: Path, values: np.ndarray) -> Place:
    write(LocalStore(folder), values)
    return Place("LocalStore", folder, lambda: LocalStore(folder, read_only=True))


def with_icechunk(folder: Path, values: np.ndarray) -> Place:
    storage = icechunk.local_filesystem_storage(str(folder))
    repository = icechunk.Repository.create(storage)
    session = repository.writable_session("main")
    write(session.store, values)
    session.commit("data")

    def opened() -> Any:
        again = icechunk.Repository.open(icechunk.local_filesystem_storage(str(folder)))
        return again.readonly_session("main").store

    return Place("Icechunk", folder, opened)


def with_quarr(folder: Path, values: np.ndarray) -> list[Place]:
    client = quarr.open(folder)
    repository = client.create_repo("bench")
    with repository.transaction("main", message="data") as transaction:
        write(transaction.store, values)
    client.close()

    def opened(inner_chunks: bool) -> Any:
        # An engine of its own: nothing is cached.
        from quarr import _native_transport

        _native_transport._forget()
        return Store(
            _native_transport.NativeTransport(folder), "bench", inner_chunks=inner_chunks
        )

    return [
        Place("Quarr", folder, lambda: opened(False)),
        Place("Quarr, inner chunks", folder, lambda: opened(True)),
    ]


# --- What is timed ----------------------------------------------------------------------------------


class Reads:
    """Every inner chunk once, in random order."""

    def __init__(self, values: np.ndarray, seed: int) -> None:
        self.values = values
        grid = [n // i for n, i in zip(values.shape, INNER, strict=True)]
        self.chunks = [tuple(map(int, at)) for at in np.ndindex(*grid)]
        random.Random(seed).shuffle(self.chunks)

    def window(self, chunk: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(at * n, at * n + n) for at, n in zip(chunk, INNER, strict=True))


def shard_of(chunk: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The shard of an inner chunk, and the chunk's number in it."""
    per_shard = [s // i for s, i in zip(SHARD, INNER, strict=True)]
    shard = tuple(at // n for at, n in zip(chunk, per_shard, strict=True))
    inner = [at % n for at, n in zip(chunk, per_shard, strict=True)]
    return shard, int(np.ravel_multi_index(inner, per_shard))


async def read_raw(store: Any, chunk: tuple[int, ...], one_get: bool) -> int:
    """Reads the bytes of an inner chunk as zarr's codec for shards does; gives their number."""
    prototype = default_buffer_prototype()
    if one_get:
        found = await store.get(f"{NAME}/c/{'/'.join(map(str, chunk))}", prototype)
        return len(found)
    shard, number = shard_of(chunk)
    key = f"{NAME}/c/{'/'.join(map(str, shard))}"
    count = int(np.prod([s // i for s, i in zip(SHARD, INNER, strict=True)]))
    index = await store.get(key, prototype, SuffixByteRequest(16 * count + 4))
    entries = np.frombuffer(index.as_buffer_like(), "<u8", 2 * count).reshape(count, 2)
    offset, length = map(int, entries[number])
    found = await store.get(key, prototype, RangeByteRequest(offset, offset + length))
    if len(found) != length:
        raise AssertionError(f"{len(found)} bytes instead of {length}")
    return length


async def time_raw(store: Any, reads: Reads, concurrent: int, one_get: bool) -> float:
    queue = iter(reads.chunks)
    total = 0

    async def worker() -> None:
        nonlocal total
        for chunk in queue:
            total += await read_raw(store, chunk, one_get)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrent)))
    elapsed = time.perf_counter() - started
    if total == 0:
        raise AssertionError("nothing was read")
    return elapsed / len(reads.chunks)


class Watched:
    """The time that passes in the reads of a store."""

    def __init__(self, store: Any) -> None:
        self.elapsed = 0.0
        self.get = store.get
        store.get = self

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return await self.get(*arguments, **named)
        finally:
            self.elapsed += time.perf_counter() - started


def time_array(store: Any, reads: Reads) -> tuple[float, float]:
    watched = Watched(store)
    array = zarr.open_array(store, path=NAME, mode="r")
    watched.elapsed = elapsed = 0.0
    for chunk in reads.chunks:
        window = reads.window(chunk)
        started = time.perf_counter()
        found = array[window]
        elapsed += time.perf_counter() - started
        if not np.array_equal(found, reads.values[window]):
            raise AssertionError(f"{chunk} differs")
    return elapsed / len(reads.chunks), watched.elapsed / len(reads.chunks)


async def raw(place: Place, reads: Reads, concurrent: int) -> list[float]:
    place.warm()
    store = place.opened()
    if not store._is_open:
        await store._open()
    one_get = "inner" in place.name
    # The node's own document is read before, as opening an array does.
    await store.get(f"{NAME}/zarr.json", default_buffer_prototype())
    return [await time_raw(store, reads, concurrent, one_get) for _ in range(4)]


def measure(place: Place, reads: Reads) -> dict[str, float]:
    """Seconds for one inner chunk, by what is measured."""
    found = {}
    for name, concurrent in (("one at a time", 1), (f"{CONCURRENT} at once", CONCURRENT)):
        first, again, _, often = asyncio.run(raw(place, reads, concurrent))
        found[f"store, {name}, first"] = first
        found[f"store, {name}, again"] = again
        found[f"store, {name}, often"] = often
    place.warm()
    store = place.opened()
    for when in ("first", "again"):
        both = time_array(store, reads)
        found[f"array, {when}"], found[f"array, {when}, of it in the store"] = both
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smaller array and fewer turns")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    arguments = parser.parse_args()
    shape = (128, 256, 256) if arguments.quick else (256, 512, 512)
    turns = arguments.turns or (3 if arguments.quick else 7)
    values = sample(shape)
    with tempfile.TemporaryDirectory(prefix="quarr-bench-") as name:
        folder = Path(name)
        places = [
            local(folder / "local", values),
            with_icechunk(folder / "icechunk", values),
            *with_quarr(folder / "quarr", values),
        ]
        measured: dict[str, list[dict[str, float]]] = {place.name: [] for place in places}
        for turn in range(turns):
            # Who begins changes from turn to turn.
            for place in places[turn % len(places) :] + places[: turn % len(places)]:
                measured[place.name].append(measure(place, Reads(values, turn)))
    report(shape, measured)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=1))


def report(shape: tuple[int, ...], measured: dict[str, list[dict[str, float]]]) -> None:
    print(
        f"float32 {shape}, shards {SHARD}, inner chunks {INNER}, zstd; "
        f"zarr {zarr.__version__}, icechunk {icechunk.__version__}"
    )
    print("µs for one inner chunk, and how many times as fast as LocalStore | Icechunk\n")
    names = list(measured)
    print(f"{'':37}" + "".join(f"{name:>30}" for name in names))
    for row in measured[names[0]][0]:
        cells = []
        for name in names:
            own = [turn[row] for turn in measured[name]]
            ratios = []
            for other in ("LocalStore", "Icechunk"):
                others = [turn[row] for turn in measured[other]]
                pairs = zip(others, own, strict=True)
                ratios.append(statistics.median(theirs / mine for theirs, mine in pairs))
            median = statistics.median(own) * 1e6
            cells.append(f"{median:9.0f}  {ratios[0]:6.2f}x | {ratios[1]:5.2f}x")
        print(f"{row:37}" + "".join(f"{cell:>30}" for cell in cells))


if __name__ == "__main__":
    main()
