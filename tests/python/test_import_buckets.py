"""Imports from a bucket: files, many of them, hierarchies; copied and by reference."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import obstore
import pytest
import xarray as xr
import zarr
from zarr.storage import ObjectStore

import buckets
import service

pytestmark = pytest.mark.once

VALUES = np.arange(40 * 30, dtype="f4").reshape(40, 30)
MODES = {"copied": (), "by-reference": ("--by-reference",)}


def hdf5(path: Path, values: np.ndarray = VALUES) -> bytes:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=values, chunks=(10, 30), compression="gzip", shuffle=True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def filled(bucket, tmp_path_factory):
    """The bucket with a file, two that follow each other, and hierarchies of both versions."""
    folder, objects = tmp_path_factory.mktemp("files"), buckets.client(bucket, "in")
    obstore.put(objects, "one.h5", hdf5(folder / "one.h5"))
    for nth in range(2):
        dataset = xr.Dataset({"t": (("time", "x"), VALUES[nth * 20 : nth * 20 + 20])}, {"time": np.arange(20) + nth * 20})
        dataset.to_netcdf(folder / f"part{nth}.nc")
        obstore.put(objects, f"part{nth}.nc", (folder / f"part{nth}.nc").read_bytes())
    for version in (2, 3):
        root = zarr.create_group(ObjectStore(buckets.client(bucket, f"in/v{version}.zarr")), zarr_format=version)
        root.create_array("a group/v", data=VALUES, chunks=(10, 30))
    return bucket


def values_of(store: Path, name: str, bucket: buckets.Bucket) -> np.ndarray:
    process = service.ServerProcess(store, "--import-allow", f"{bucket.url}/in")
    try:
        return np.asarray(zarr.open_group(process.server.branch_url("r"), mode="r")[name][...])
    finally:
        process.stop()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key,name", [("one.h5", "v"), ("v2.zarr", "a group/v"), ("v3.zarr", "a group/v")])
def test_a_source_in_a_bucket(filled, tmp_path, key, name, mode):
    done = service.run_json("import", f"{filled.url}/in/{key}", "--to", "r", "--store", tmp_path, *MODES[mode])
    assert done["copied"] == []
    np.testing.assert_array_equal(values_of(tmp_path, name, filled), VALUES)


def test_a_pattern_in_a_bucket(filled, tmp_path):
    arguments = ("--append", "time", "--to", "r", "--store", tmp_path)
    service.run("import", f"{filled.url}/in/part*.nc", *arguments)
    np.testing.assert_array_equal(values_of(tmp_path, "t", filled), VALUES)


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_an_object_that_changed_is_an_error(filled, tmp_path, kind):
    objects = buckets.client(filled, "in")
    if kind == "h5":
        key, name = "changing.h5", "v"
        obstore.put(objects, key, hdf5(tmp_path / "a.h5"))
        changed, other = key, hdf5(tmp_path / "b.h5", VALUES + 1)
    else:
        key, name, changed, other = "changing.zarr", "v", "changing.zarr/v/c/1/0", b"other bytes"
        zarr.create_group(ObjectStore(buckets.client(filled, f"in/{key}"))).create_array("v", data=VALUES, chunks=(10, 30))
    service.run("import", f"{filled.url}/in/{key}", "--to", "r", "--by-reference", "--store", tmp_path)
    obstore.put(objects, changed, other)
    done = service.run("get", f"r@main/{name}", "--store", tmp_path, check=False)
    assert done.returncode != 0 and changed in done.stderr
