"""Small files to damage, ways to damage them, and a run of `quarr import` that is watched.

A damaged file is either refused, in one line and with nothing committed, or imported with exactly
the values that h5py or netCDF4 reads from it.
"""

from __future__ import annotations

import os
import pickle
import random
import resource
import shutil
import signal
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import zarr

import service

# What an import of a damaged file may take.
MEMORY_BYTES = 1 << 30
SECONDS = 240
RUNS_AT_ONCE = 3


# --- Files to damage ----------------------------------------------------------------------------


def netcdf3(path: Path, form: str) -> None:
    with netCDF4.Dataset(path, "w", format=form) as file:
        file.createDimension("time", None)
        file.createDimension("x", 5)
        file.title = "to be damaged"
        file.createVariable("fixed", "f8", ("x",))[:] = [1.5, 2.5, 3.5, 4.5, 5.5]
        record = file.createVariable("record", "i2", ("time", "x"), fill_value=-9)
        record.setncatts({"units": "K", "scale": np.float32(0.5), "range": np.array([0, 9], "i2")})
        record[:] = np.arange(15).reshape(3, 5)
        file.createVariable("time", "i4", ("time",))[:] = [1, 2, 3]
        file.createVariable("name", "S1", ("x",))[:] = np.array(list("abcde"), "S1")


def netcdf4(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("x", 6)
        file.title = "to be damaged"
        file.createVariable("x", "f8", ("x",))[:] = np.arange(6)
        file.createVariable("t", "f4", ("time", "x"), zlib=True, fletcher32=True, chunksizes=(2, 4))[:] = (
            np.arange(30).reshape(5, 6)
        )
        file.createVariable("words", str, ("x",))[:] = np.array(["a", "bc", "", "d", "e", "f"], object)
        group = file.createGroup("group")
        group.createVariable("deep", "i2", ("time", "x"), zlib=True)[:] = np.ones((5, 6))
        group.note = np.arange(20)


def hdf5(path: Path, version: str) -> None:
    with h5py.File(path, "w", libver=("earliest", "v110") if version == "earliest" else ("v110", "v110")) as file:
        values = np.arange(60, dtype="<i4").reshape(10, 6)
        file["contiguous"] = values
        file.create_dataset("chunked", data=values, chunks=(4, 4), maxshape=(None, None), compression="gzip", shuffle=True)
        file.create_dataset("growing", data=values, chunks=(3, 6), maxshape=(None, 6))
        file.create_dataset("lzf", data=values, chunks=(5, 6), compression="lzf")
        file.create_dataset("fixed", data=values, chunks=(3, 3))
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((10, 6))
        compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, properties)
        compact.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file.create_dataset("text", data=["a", "bc", "d" * 40], dtype=h5py.string_dtype())
        file["group/inner/v"] = np.arange(3.0)
        file["soft"] = h5py.SoftLink("/group/inner/v")
        for number in range(12):
            file["chunked"].attrs[f"a{number}"] = number
        file.attrs["texts"] = np.array(["x", "yy"], h5py.string_dtype())


BASES = {
    "classic.nc": lambda path: netcdf3(path, "NETCDF3_CLASSIC"),
    "offset64.nc": lambda path: netcdf3(path, "NETCDF3_64BIT_OFFSET"),
    "cdf5.nc": lambda path: netcdf3(path, "NETCDF3_64BIT_DATA"),
    "netcdf4.nc": netcdf4,
    "earliest.h5": lambda path: hdf5(path, "earliest"),
    "v110.h5": lambda path: hdf5(path, "v110"),
}


# --- Damage -------------------------------------------------------------------------------------

EXTREMES = (0x00, 0x01, 0x7F, 0x80, 0xFF)


def damaged(good: bytes, seed: int, is_netcdf3: bool) -> bytes:
    """Some bytes flipped, a block zeroed or filled, a word of a huge number; the same for a seed."""
    rng = random.Random(seed)
    data = bytearray(good)
    # Of NetCDF-3 only the header can be damaged: values are what they are.
    end = min(len(data), 600) if is_netcdf3 else len(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(8, end)
        kind = rng.randrange(6)
        if kind <= 2:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            data[at] = rng.choice(EXTREMES)
        elif kind == 4:
            length = rng.choice((4, 8, 16, 64))
            data[at : at + length] = bytes([rng.choice((0x00, 0xFF))]) * len(data[at : at + length])
        else:
            word = struct.pack(rng.choice("<>") + "Q", rng.choice((2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)))
            data[at : at + 8] = word[: len(data[at : at + 8])]
    return bytes(data)


def truncated(good: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut at every hundredth of the length."""
    for percent in range(100):
        yield percent, good[: len(good) * percent // 100]


# --- Runs ---------------------------------------------------------------------------------------


def state_of(store: Path, repo: str) -> set[str]:
    """The log of a repository: what a commit would change."""
    return {path.name for path in (store / repo / "log").iterdir()} if (store / repo).exists() else set()


class Watch:
    """Imports damaged files into a copy of one repository each, and says what is wrong."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder, self.template = folder, template

    def check(self, files: list[tuple[str, bytes]]) -> list[str]:
        """What is wrong, for any of the files by name."""
        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            runs = list(pool.map(lambda item: self._run(*item), files))
        return [f"{name}: {problem}" for name, run in runs if (problem := self._problem(name, run))]

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _run(self, name: str, data: bytes) -> tuple[str, service.Measured]:
        path = self._path(name)
        path.write_bytes(data)
        shutil.copytree(self.template, self.folder / "stores" / name / "repo")
        store = self.folder / "stores" / name
        return name, service.run_measured("import", path, "--to", "repo", "--store", store, seconds=SECONDS)

    def _problem(self, name: str, run: service.Measured) -> str | None:
        store = self.folder / "stores" / name
        if run.status < 0:
            return f"killed by {signal.Signals(-run.status).name}: {run.stderr[-300:]}"
        if run.memory_bytes > MEMORY_BYTES:
            return f"took {run.memory_bytes >> 20} MiB"
        if run.status == 0:
            return self._difference(name, store)
        if run.status != 1 or "panicked" in run.stderr:
            return f"status {run.status}: {run.stderr[-300:]}"
        if len(run.stderr.strip().splitlines()) != 1:
            return f"not one line: {run.stderr[-500:]}"
        before = {path.name for path in (self.template / "log").iterdir()}
        if state_of(store, "repo") != before:
            return "it was refused, but the log changed"
        shutil.rmtree(store)
        self._path(name).unlink()
        return None

    def _difference(self, name: str, store: Path) -> str | None:
        """How what was imported differs from what the library reads; `None` if it does not."""
        wanted = in_a_fork(lambda: contents(self._path(name)))
        if wanted is None:
            wanted = self.truth
        out = store / "exported"
        done = service.run("export", "repo", out, "--store", store, check=False)
        if done.returncode:
            return f"cannot be exported: {done.stderr}"
        found = {
            path: np.asarray(array[...])
            for path, array in zarr.open_group(out, mode="r").members(max_depth=None)
            if isinstance(array, zarr.Array)
        }
        problem = compare(found, wanted)
        if problem is None:
            shutil.rmtree(store)
        return problem

    truth: dict[str, np.ndarray] = {}


def compare(found: dict, wanted: dict) -> str | None:
    if set(found) != set(wanted):
        return f"it has {sorted(set(found) ^ set(wanted))} not in common"
    for name, values in wanted.items():
        mine = found[name]
        if mine.shape != values.shape:
            return f"{name} has shape {mine.shape}, not {values.shape}"
        if values.dtype.kind in "OTU" or mine.dtype.kind in "OTU":
            if mine.tolist() != values.tolist():
                return f"{name} has other text"
        elif mine.tobytes() != values.astype(values.dtype.newbyteorder("<")).tobytes():
            return f"{name} is {mine.ravel()[:20]}, not {values.ravel()[:20]}"
    return None


def contents(path: Path) -> dict[str, np.ndarray]:
    """All values of a file, as h5py or netCDF4 reads them."""
    with path.open("rb") as file:
        is_netcdf = file.read(3) == b"CDF" or path.name.startswith("netcdf4")
    found: dict[str, np.ndarray] = {}
    if is_netcdf:

        def below(group, prefix: str) -> None:
            for name, variable in group.variables.items():
                values = np.asarray(variable[...])
                found[f"{prefix}{name}"] = values.astype(object) if values.dtype.kind == "U" else values
            for name, child in group.groups.items():
                below(child, f"{prefix}{name}/")

        with netCDF4.Dataset(path) as dataset:
            dataset.set_auto_maskandscale(False)
            dataset.set_auto_chartostring(False)
            below(dataset, "")
        return found

    def visit(group: h5py.Group, prefix: str) -> None:
        for name in group:
            item = group.get(name)
            if item is None and not isinstance(group.get(name, getlink=True), h5py.SoftLink):
                raise ValueError(f"{name} cannot be opened")
            if isinstance(item, h5py.Group):
                visit(item, f"{prefix}{name}/")
            elif isinstance(item, h5py.Dataset):
                is_text = h5py.check_string_dtype(item.dtype) and item.dtype.kind == "O"
                found[f"{prefix}{name}"] = np.asarray((item.asstr() if is_text else item)[()])

    with h5py.File(path) as file:
        visit(file, "")
    return found


def in_a_fork(work):
    """What `work` gives, or `None` if it fails, crashes or takes long: the libraries may."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(work(), stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    try:
        return pickle.loads(data)
    except (EOFError, pickle.UnpicklingError):
        return None


# --- Bombs and lies -----------------------------------------------------------------------------


def deflated_zeros(length: int) -> bytes:
    """A stream of deflate that stands for so many zeros, with no end: one block again and again."""
    packer = zlib.compressobj(9)
    block = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block[:2] + block[2:] * (length >> 24)


def deflate_bomb(path: Path) -> None:
    """A chunk of 64 KiB whose bytes inflate to 3 GiB."""
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        dataset = file.create_dataset("bomb", (4, 65536), "u1", chunks=(1, 65536), compression="gzip")
        dataset[...] = 1
        dataset.id.write_direct_chunk((2, 0), deflated_zeros(3 << 30))


def nested_bomb(path: Path) -> None:
    """A chunk that is deflated twice, so that a few KiB stand for 3 GiB."""
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((65536,))
        properties.set_deflate(9)
        properties.set_deflate(9)
        space = h5py.h5s.create_simple((131072,))
        dataset = h5py.h5d.create(file.id, b"bomb", h5py.h5t.STD_U8LE, space, properties)
        dataset.write_direct_chunk((0,), zlib.compress(deflated_zeros(3 << 30), 9))


def short_chunk(path: Path, length: int = 100) -> None:
    """A chunk whose bytes inflate to fewer than it has: the rest is nobody's."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("v", (4, 4096), "<i4", chunks=(1, 4096), compression="gzip")
        dataset[...] = 7
        dataset.id.write_direct_chunk((1, 0), zlib.compress(bytes(length)))


def short_raw_chunk(path: Path) -> None:
    """A chunk without filters' work that is shorter than it must be."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("v", (4, 4096), "<i4", chunks=(1, 4096), compression="gzip")
        dataset[...] = 7
        dataset.id.write_direct_chunk((1, 0), bytes(10), 1)


def huge_chunk(path: Path) -> None:
    """One chunk of 8 GiB less a byte, of which nothing is stored but a few KiB."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("v", (1 << 16, 1 << 15), "u1", chunks=(1 << 16, 1 << 15), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))


def huge_shape(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("v", (2**40, 2**20), "f8", chunks=(1024, 1024))


def long_strings(path: Path) -> None:
    """Fixed strings of 1 GiB each, of which none is written."""
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(1 << 30)
        h5py.h5d.create(file.id, b"v", kind, h5py.h5s.create_simple((4,)))


def repeated_strings(path: Path) -> None:
    """Four million references to one string of 60 KiB."""
    with h5py.File(path, "w") as file:
        text = file.create_dataset("v", (1,), h5py.string_dtype(), chunks=(1,))
        text[0] = "x" * 60_000
        offset = text.id.get_chunk_info(0).byte_offset
        file.flush()
        with open(path, "rb") as raw:
            raw.seek(offset)
            reference = raw.read(16)
        many = file.create_dataset("many", (1 << 22,), h5py.string_dtype(), chunks=(1 << 18,), compression="gzip")
        for start in range(0, 1 << 22, 1 << 18):
            many.id.write_direct_chunk((start,), zlib.compress(reference * (1 << 18)))


def deep(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["v"] = [1]


def many_links(path: Path) -> None:
    """Groups that hold each other twice over, so that there are 2^30 paths."""
    with h5py.File(path, "w") as file:
        below = file.create_group("g0")
        below["v"] = [1]
        for number in range(1, 30):
            group = file.create_group(f"g{number}")
            group["a"], group["b"] = below, below
            below = group


def cyclic_soft(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
        file["c/up"] = h5py.SoftLink("/c")
        file["v"] = [1]


def large_attribute(path: Path) -> None:
    """An attribute of 2^40 elements, by a word of its dataspace."""
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file["v"] = np.arange(3)
        file["v"].attrs["a"] = np.arange(12345, dtype="u1")
    data = path.read_bytes()
    length = struct.pack("<Q", 12345)
    path.write_bytes(data.replace(length, struct.pack("<Q", 1 << 40)))


BOMBS = {
    function.__name__: function
    for function in (
        deflate_bomb, nested_bomb, short_chunk, short_raw_chunk, huge_chunk, huge_shape, long_strings,
        repeated_strings, deep, many_links, large_attribute,
    )
}  # fmt: skip


def lies(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Headers of NetCDF-3 that lie, each in one word: counts, lengths, types, offsets."""
    wide = good[3] == 5
    for at in range(4, 560, 4):
        for label, word in (("zero", 0), ("one", 1), ("large", 0x7FFFFFFF), ("negative", 0xFFFFFFFF), ("top", 0x80000000)):
            yield f"{at}-{label}", good[:at] + struct.pack(">I", word) + good[at + 4 :]
        if wide and at % 8 == 4:
            yield f"{at}-wide", good[:at] + struct.pack(">Q", 1 << 62) + good[at + 8 :]
