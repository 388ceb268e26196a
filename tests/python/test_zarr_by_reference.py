"""Zarr hierarchies imported by reference: chunks stay where they are, of shards each inner chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

import service

pytestmark = pytest.mark.once

VALUES = np.arange(35 * 50, dtype="f4").reshape(35, 50)


def version_2(path: Path) -> None:
    root = zarr.create_group(path, zarr_format=2)
    root.create_array("plain", data=VALUES, chunks=(10, 20))
    root.create_array("turned", data=VALUES.astype(">i4"), chunks=(10, 20), order="F")
    inner = root.create_group("with space")
    sparse = inner.create_array("sparse", shape=(35, 50), chunks=(10, 20), dtype="i2", fill_value=-1)
    sparse[12:15, 3:9] = 7


def version_3(path: Path) -> None:
    root = zarr.create_group(path, zarr_format=3)
    root.create_array("plain", data=VALUES, chunks=(10, 20), dimension_names=("y", "x"))
    sharded = root.create_array("sharded", shape=(35, 50), shards=(20, 40), chunks=(5, 10), dtype="f4", fill_value=9)
    sharded[...] = VALUES
    sparse = root.create_array("sparse", shape=(35, 50), shards=(20, 40), chunks=(5, 10), dtype="i8", fill_value=3)
    sparse[11:14, 3:9] = 7
    root.create_array("scalar", data=np.float64(2.5))


@pytest.fixture(params=[version_2, version_3], ids=["v2", "v3"])
def referred(request, tmp_path):
    """A hierarchy, and a store with a repository `r` that refers to it."""
    source, store = tmp_path / "source.zarr", tmp_path / "store"
    request.param(source)
    done = service.run_json("import", source, "--to", "r", "--by-reference", "--store", store)
    assert done["copied"] == []
    return source, store


def arrays(group: zarr.Group) -> dict[str, np.ndarray]:
    members = group.members(max_depth=None)
    return {path: np.asarray(item[...]) for path, item in members if isinstance(item, zarr.Array)}


def chunks(source: Path) -> list[Path]:
    files = (path for path in source.rglob("*") if path.is_file())
    return sorted(path for path in files if not path.name.startswith((".z", "zarr")))


def test_values_are_those_of_the_source_and_stay_there(referred):
    source, store = referred
    process = service.ServerProcess(store, "--import-allow", str(source))
    try:
        served = arrays(zarr.open_group(process.server.branch_url("r"), mode="r"))
    finally:
        process.stop()
    wanted = arrays(zarr.open_group(source, mode="r"))
    assert set(served) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(served[name], values, err_msg=name)
    stored = {path.read_bytes() for path in (store / "r" / "objects").rglob("*") if path.is_file()}
    assert stored.isdisjoint(path.read_bytes() for path in chunks(source))
    service.run("verify", "r", "--deep", "--store", store)


def test_a_changed_chunk_is_an_error(referred):
    source, store = referred
    changed = chunks(source / "plain")[0]
    data = bytearray(changed.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    done = service.run("get", "r@main/plain", "--store", store, check=False)
    assert done.returncode != 0 and str(changed.relative_to(source)) in done.stderr


def test_materialized_values_need_no_source(referred):
    source, store = referred
    wanted = arrays(zarr.open_group(source, mode="r"))
    service.run("materialize", "r", "--store", store)
    out = store / "exported"
    source.rename(source.with_suffix(".gone"))
    service.run("export", "r", out, "--store", store)
    found = arrays(zarr.open_group(out, mode="r"))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_chunks_cannot_be_cut_anew_where_they_are(tmp_path):
    version_3(tmp_path / "source.zarr")
    arguments = ("--by-reference", "--codec", "zstd:3", "--store", tmp_path / "store")
    done = service.run("import", tmp_path / "source.zarr", "--to", "r", *arguments, check=False)
    assert done.returncode == 1 and "leave out" in done.stderr
