"""Imports of a NetCDF-4 file: `quarr import` beside xarray's own way, in one run.

    quarr   quarr import FILE --to repo: a commit, with hashes and statistics
    xarray  xr.open_dataset(FILE, decode_cf=False).to_zarr(DIRECTORY, zarr_format=3)
    dask    the same with chunks of one shard, which dask reads and writes in parallel

All write the same shards and inner chunks with zstd at level 1: those that `quarr import` chose. The
file has a float32 variable as measurements are and an int16 one as reanalyses pack them, deflated
with shuffle. The ways take turns, each in a process of its own; a row is the median of the rounds.

    MB/s      uncompressed bytes of the input by the time it took
    per core  the same by the processor time of the process, user and system
    RSS       the most memory that the process had

What xarray wrote and what `quarr export` gives are compared in a few places.

    QUARR_BIN=target/release python benches/python/imports.py [--size MB] [--rounds N] [--level L] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import zarr

SHAPE_OF_A_MAP = (361, 720)
# What the file is chunked by, as archives have it.
CHUNKS = (24, 91, 180)
WORKER = """
import sys, json, warnings
import xarray as xr
from zarr.codecs import ZstdCodec
warnings.simplefilter("ignore")
way, source, out, layout = sys.argv[1:5]
layout = json.loads(layout)
chunks = None
if way == "dask":
    shard = max(layout.values(), key=lambda v: len(v["shards"]))
    chunks = dict(zip(shard["dims"], shard["shards"]))
dataset = xr.open_dataset(source, decode_cf=False, chunks=chunks)
encoding = {
    name: {"chunks": v["chunks"], "shards": v["shards"], "compressors": [ZstdCodec(level=1)]}
    for name, v in layout.items()
}
for variable in dataset.variables.values():
    variable.encoding.clear()
dataset.to_zarr(out, zarr_format=3, encoding=encoding, consolidated=False)
"""


@dataclass(frozen=True)
class Turn:
    seconds: float
    cpu_seconds: float
    memory_bytes: int


def generate(path: Path, megabytes: int, level: int) -> int:
    """Writes the file, map by map; gives its uncompressed bytes."""
    rows, columns = SHAPE_OF_A_MAP
    steps = max(24, megabytes * 1_000_000 // (rows * columns * 6))
    rng = np.random.default_rng(3)
    smooth = np.sin(np.linspace(0, 9, rows))[:, None] * np.cos(np.linspace(0, 12, columns))
    with netCDF4.Dataset(path, "w") as file:
        for name, length in (("time", steps), ("lat", rows), ("lon", columns)):
            file.createDimension(name, length)
        options = {"zlib": True, "complevel": level, "shuffle": True, "chunksizes": (min(CHUNKS[0], steps), *CHUNKS[1:])}
        field = file.createVariable("t2m", "f4", ("time", "lat", "lon"), **options)
        packed = file.createVariable("tp", "i2", ("time", "lat", "lon"), **options)
        packed.setncatts({"scale_factor": 0.01, "add_offset": 100.0})
        packed.set_auto_maskandscale(False)
        for start in range(0, steps, CHUNKS[0]):
            count = min(CHUNKS[0], steps - start)
            waves = np.sin(np.arange(start, start + count) / 7)[:, None, None]
            noise = rng.standard_normal((count, rows, columns), dtype=np.float32)
            values = 280 + 20 * smooth + 5 * waves + noise * 0.1
            field[start : start + count] = values.round(2)
            packed[start : start + count] = ((values - 240) * 100).astype("i2")
        file.createVariable("time", "f8", ("time",))[:] = np.arange(steps)
    return steps * rows * columns * 6 + steps * 8


def timed(command: list) -> Turn:
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed")
    seconds = time.perf_counter() - started
    return Turn(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def layout_of(exported: Path) -> dict:
    """Shards, inner chunks and dimensions of each array."""
    root = zarr.open_group(exported, mode="r")
    return {
        name: {"chunks": array.chunks, "shards": array.shards, "dims": array.metadata.dimension_names}
        for name, array in root.arrays()
    }


def compare(exported: Path, written: Path) -> None:
    one, other = zarr.open_group(exported, mode="r"), zarr.open_group(written, mode="r")
    for name, array in one.arrays():
        for at in (0, array.shape[0] // 2, array.shape[0] - 1):
            np.testing.assert_array_equal(array[at], other[name][at], err_msg=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2000, help="uncompressed MB of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--level", type=int, default=1, help="level of deflate in the file")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    binary = Path(os.environ["QUARR_BIN"]) / "quarr"
    with tempfile.TemporaryDirectory(prefix="quarr-imports-") as folder:
        folder = Path(folder)
        source = folder / "source.nc"
        total = generate(source, arguments.size, arguments.level)
        print(f"{total / 1e6:.0f} MB, deflated to {source.stat().st_size / 1e6:.0f} MB", flush=True)
        turns: dict[str, list[Turn]] = {"quarr": [], "xarray": [], "dask": []}
        layout: dict = {}
        for round_number in range(arguments.rounds):
            store = folder / "store"
            turns["quarr"].append(timed([binary, "import", source, "--to", "repo", "--store", store]))
            if not layout:
                exported = folder / "exported"
                timed([binary, "export", "repo", exported, "--store", store])
                layout = layout_of(exported)
            shutil.rmtree(store)
            for way in ("xarray", "dask"):
                out = folder / way
                turns[way].append(timed([sys.executable, "-c", WORKER, way, source, out, json.dumps(layout)]))
                if round_number == 0:
                    compare(exported, out)
                shutil.rmtree(out)
        report(turns, total, arguments.json)


def report(turns: dict[str, list[Turn]], total: int, path: Path | None) -> None:
    rows = {}
    for way, taken in turns.items():
        ratios = [other.seconds / mine.seconds for other, mine in zip(taken, turns["quarr"], strict=True)]
        rows[way] = {
            "seconds": statistics.median(turn.seconds for turn in taken),
            "mb_per_second": total / 1e6 / statistics.median(turn.seconds for turn in taken),
            "mb_per_second_per_core": total / 1e6 / statistics.median(turn.cpu_seconds for turn in taken),
            "memory_mib_max": max(turn.memory_bytes for turn in taken) / 2**20,
            "times_quarr": statistics.median(ratios),
        }
    print(f"{'':8}{'s':>8}{'MB/s':>8}{'per core':>10}{'RSS MiB':>9}{'quarr is':>10}")
    for way, row in rows.items():
        print(
            f"{way:8}{row['seconds']:8.1f}{row['mb_per_second']:8.0f}"
            f"{row['mb_per_second_per_core']:10.0f}{row['memory_mib_max']:9.0f}{row['times_quarr']:9.1f}×"
        )
    if path:
        path.write_text(json.dumps({"bytes": total, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
