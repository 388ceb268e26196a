#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets from real documents: what `quarr` writes, and small files.

    QUARR_BIN=target/debug .venv/3.13/bin/python fuzz/seeds.py

Seeds are committed; run this when a format changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import netCDF4
import numpy as np
import safetensors.numpy

ROOT = Path(__file__).parents[1]
BIN = Path(os.environ["QUARR_BIN"]) / "quarr"
SEEDS = ROOT / "fuzz" / "seeds"
# Bytes of the hash that a row file ends with.
HASH_BYTES = 32
# More than this is for no seed.
MAX_BYTES = 4096

SELECTIONS = ["", "0", "-1", "0:10,:,5", "::-2", "...,3", "[1,4,9],:", "2:8:3,...", ":,newaxis,1", "1_0", "9223372036854775807"]
LABELS = [
    "2020-01-01/2020-01-31", "40/50", "850,500", "nearest::2020-01-06", "350/10", "oslo", "2019", "0001-01-01T00:00:00Z",
    "pad::45", "-0.0/1e300", "2019-12/", "/850", "new york,rome", "nan", "backfill::-1,2",
]
QUERIES = [
    (0, "slice=0:2,:"), (0, "slice=1&decode=raw&f=json"), (0, "sel.x=2000-01-02"), (0, "f=csv&strict=true&slice=9"),
    (1, "reduce=sum,mean&over=x"), (1, "reduce=quantile&q=0.5"), (1, "reduce=mean&groupby=x.month"), (1, "reduce=max&coarsen.y=3"),
    (1, "reduce=histogram&bins=4"), (1, "reduce=std&ddof=1&skipna=false&keepdims=true"), (2, "slice=0,0"), (3, "list=all&limit=2"),
    (4, "list=children&after=a"), (1, "reduce=count&where=a>1"), (6, "slice=0,0"), (7, "reduce=argmax"), (8, "decode=mask&f=arrow"),
]


def put(target: str, content: bytes | str) -> None:
    """Adds a seed, named by what is in it."""
    content = content.encode() if isinstance(content, str) else content
    if len(content) <= MAX_BYTES:
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def steered(number: int, content: bytes | str) -> bytes:
    """What a target takes that is steered by its first byte."""
    return bytes([number]) + (content.encode() if isinstance(content, str) else content)


def quarr(*arguments: str | Path) -> str:
    done = subprocess.run([BIN, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"quarr {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def write_netcdf(path: Path, form: str) -> None:
    with netCDF4.Dataset(path, "w", format=form) as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.title = "seed"
        time = file.createVariable("time", "i4", ("time",))
        time.units = "days since 2000-01-01"
        time[:] = [0, 1]
        values = file.createVariable("v", "f4", ("time", "x"), fill_value=-1.0)
        values.scale_factor = 0.5
        values[:] = np.arange(6).reshape(2, 3)
        file.createVariable("name", "S1", ("x",))[:] = np.array(list("abc"), "S1")


def files(folder: Path) -> None:
    for number, form in enumerate(["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]):
        path = folder / f"{number}.nc"
        write_netcdf(path, form)
        put("netcdf3", path.read_bytes())
    for number, array in enumerate([np.arange(6, dtype="<f4").reshape(2, 3), np.array([1, 2], ">i2"), np.array(["å", "b"]), np.array(5 + 2j)]):
        path = folder / f"{number}.npy"
        np.save(path, np.asfortranarray(array) if number == 0 else array)
        put("npy", path.read_bytes())
    put("safetensors", safetensors.numpy.save({"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.zeros((0, 2), "i8")}, {"k": "v"}))
    put("safetensors", safetensors.numpy.save({"x": np.array(True)}))


def stored(store: Path) -> None:
    """Seeds from the objects of a store."""
    for path in sorted(store.rglob("*")):
        if not path.is_file():
            continue
        content, name = path.read_bytes(), path.relative_to(store).as_posix()
        if "/log/" in name or "/checkpoints/" in name:
            put("log", content)
        elif "/shards/" in name:
            if 0 < footer(content) <= 64:
                put("shard", steered(footer(content) - 1, content))
        elif "/tlog/" in name:
            put("tlog", steered(0, content))
        elif b'"steps"' in content:
            put("staged", content)
        elif content.startswith(b"{"):
            put("commit" if b'"parents"' in content else "zarr_json", content)
        elif content.startswith(b"\xff\xff\xff\xff"):
            stream = content[:-HASH_BYTES]
            if b"zarr_json" in stream:
                put("tree", stream)
            else:
                dimensions = sum(f"c{axis}".encode() in stream for axis in range(3))
                put("pages", steered(dimensions, stream))


def footer(shard: bytes) -> int:
    """The number of inner chunks of a canonical shard, as its table says; 0 if it is none."""
    at = shard.rfind(b"QSH1")
    return int.from_bytes(shard[at + 4 : at + 8], "little") if at >= 0 else 0


def documents(folder: Path) -> None:
    store = folder / "store"
    os.environ["QUARR_KEYS"] = str(folder / "keys")
    at = ("--store", store)
    write_netcdf(folder / "source.nc", "NETCDF3_CLASSIC")
    quarr("import", folder / "source.nc", "--to", "demo/a/b", *at)
    quarr("tag", "create", "demo", "v1", *at)
    quarr("branch", "create", "demo", "side", *at)
    np.save(folder / "v.npy", np.arange(24, dtype="i2").reshape(4, 6))
    transaction = quarr("tx", "begin", "demo", *at).split()[-1]
    quarr("tx", "put", transaction, "n", folder / "v.npy", *at)
    quarr("tx", "rm", transaction, "a/b/name", *at)
    stored(store)
    quarr("tx", "commit", transaction, "-m", "more", *at)
    for target in ["demo/n[0:2,0:3]", "demo@v1/a/b/v"]:
        quarr("prove", target, "-o", folder / "proof.json", *at)
        put("proof", (folder / "proof.json").read_bytes())
    quarr("prove", "demo/n", "--reduce", "sum", "-o", folder / "proof.json", *at)
    put("proof", (folder / "proof.json").read_bytes())
    quarr("key", "create", "demo", *at)
    quarr("repo", "show", "demo", *at)
    stored(store)


def vectors() -> None:
    """Seeds from the golden vectors of the format."""
    storage = json.loads((ROOT / "docs" / "vectors" / "storage.json").read_text())
    put("commit", storage["commit"]["bytes"])
    put("log", storage["log_entry"]["bytes"])
    put("log", storage["checkpoint"])
    log = storage["transparency_log"]
    put("tlog", steered(0, log["receipt"]))
    put("tlog", steered(0, log["receipt"].split("\n\n", 1)[1]))
    put("tlog", steered(0, log["key"]))
    record = log["record"].encode()
    put("tlog", steered(2, (len(record).to_bytes(2, "big") + record) * 2))
    for name in ["tile/0/000", "tile/entries/x001/234.p/7"]:
        put("tlog", steered(0, name))
    shard = (ROOT / "docs" / "vectors" / "shard.txt").read_text().split()[1]
    put("shard", steered(2, bytes.fromhex(shard)))


def main() -> None:
    shutil.rmtree(SEEDS, ignore_errors=True)
    for target, texts in [("selection", SELECTIONS), ("labels", LABELS)]:
        for text in texts:
            put(target, text)
    for place, query in QUERIES:
        put("http", steered(place, query))
    vectors()
    with tempfile.TemporaryDirectory() as folder:
        files(Path(folder))
        documents(Path(folder))
    for folder in sorted(SEEDS.iterdir()):
        kept = list(folder.iterdir())
        print(f"{folder.name}: {len(kept)} seeds, {sum(path.stat().st_size for path in kept)} bytes")


if __name__ == "__main__":
    main()
