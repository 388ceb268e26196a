"""Exports, mirrors and materializations that a service is asked for."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import xarray as xr
import zarr

import service

pytestmark = pytest.mark.once

VALUES = np.random.default_rng(3).normal(size=(60, 128, 128)).astype("f4")
DEADLINE_S = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with a repository `r` that refers to a source, a folder jobs may write to, and a server."""
    folder = tmp_path_factory.mktemp("place")
    source, store, out = folder / "source.zarr", folder / "store", folder / "out"
    out.mkdir()
    root = zarr.create_group(source)
    root.create_array("v", data=VALUES, chunks=(1, 64, 64), dimension_names=("time", "y", "x"))
    root.create_array("time", data=np.arange(60), dimension_names=("time",))
    service.run("import", source, "--to", "r", "--by-reference", "--store", store)
    process = service.ServerProcess(store, "--import-allow", str(source), "--export-allow", str(out))
    yield process.server, out, store, source
    process.stop()


def ask(server: service.Server, kind: str, **members) -> requests.Response:
    return requests.post(f"{server.url}/v1/jobs", json={"kind": kind, "repository": "r", **members}, timeout=60)


def end(server: service.Server, kind: str, **members) -> dict:
    """The job, once it has ended."""
    answer = ask(server, kind, **members)
    assert answer.status_code == 202, answer.text
    return wait(server, answer.json()["id"])


def wait(server: service.Server, job: str) -> dict:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = server.get(f"/v1/jobs/{job}").json()
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"job {job} does not end")


@pytest.mark.parametrize("name", ["whole.zarr", "whole.nc"])
def test_an_export_holds_what_was_committed(place, name):
    server, out, *_ = place
    job = end(server, "export", destination=str(out / name))
    assert job["state"] == "done", job
    assert job["report"]["arrays"] == 2 and job["report"]["bytes"] > 0
    opened = xr.open_dataset(out / name, engine="netcdf4") if name.endswith(".nc") else xr.open_zarr(out / name)
    with opened as dataset:
        np.testing.assert_array_equal(dataset["v"].values, VALUES)


def test_a_part_is_exported(place):
    server, out, *_ = place
    job = end(server, "export", path="/v", destination=str(out / "part.npy"), isel={"time": "3:5"})
    assert job["state"] == "done", job
    np.testing.assert_array_equal(np.load(out / "part.npy"), VALUES[3:5])


def test_what_is_there_is_kept_unless_it_is_said(place):
    server, out, *_ = place
    kept = out / "kept.npy"
    kept.write_bytes(b"mine")
    answer = ask(server, "export", path="/time", destination=str(kept))
    assert answer.status_code == 409 and "exists" in answer.text
    assert kept.read_bytes() == b"mine"
    assert end(server, "export", path="/time", destination=str(kept), overwrite=True)["state"] == "done"
    np.testing.assert_array_equal(np.load(kept), np.arange(60))


def test_nothing_is_written_where_nobody_allowed_it(place, tmp_path):
    server, out, *_ = place
    (out / "link").symlink_to(tmp_path)
    elsewhere = [tmp_path / "x.npy", out / "link" / "x.npy", out / ".." / "x.npy", "relative.npy", "s3://bucket/x.npy"]
    for destination in elsewhere:
        answer = ask(server, "export", path="/time", destination=str(destination))
        assert answer.status_code == 403, (destination, answer.text)
        answer = ask(server, "publish", destination=str(destination))
        assert answer.status_code == 403, (destination, answer.text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "members",
    [
        {"format": "tape"},
        {"decode": "guess"},
        {"deflate": 10},
        {"slice": "1:"},
        {"sel": {"nowhere": "1"}},
        {"path": "/nothing"},
        {"reference": "nobranch"},
        {"unknown": 1},
    ],
    ids=lambda members: next(iter(members)),
)
def test_what_makes_no_sense_is_refused(place, members):
    server, out, *_ = place
    destination = out / "refused.zarr"
    answer = ask(server, "export", destination=str(destination), **members)
    if answer.status_code == 202:
        assert wait(server, answer.json()["id"])["state"] == "failed"
    else:
        assert answer.status_code in (400, 404), answer.text
    assert not destination.exists()


def test_a_mirror_is_updated_by_what_changed(place):
    server, out, store, _ = place
    mirror = out / "mirror"
    first = end(server, "publish", destination=str(mirror))
    assert first["state"] == "done" and first["report"]["chunks"] > 0, first
    np.testing.assert_array_equal(zarr.open_group(mirror, mode="r")["v"][...], VALUES)
    again = end(server, "publish", destination=str(mirror))
    assert again["report"]["chunks"] == 0 and again["report"]["commit"] == first["report"]["commit"]


def test_a_materialized_branch_needs_no_source(place):
    server, _, store, source = place
    done = end(server, "materialize")
    assert done["state"] == "done" and set(done["report"]["materialized"]) == {"/v", "/time"}, done
    assert end(server, "materialize")["report"]["commit"] is None
    shutil.move(source, source.with_suffix(".away"))
    try:
        np.testing.assert_array_equal(zarr.open_group(server.branch_url("r"), mode="r")["v"][...], VALUES)
    finally:
        shutil.move(source.with_suffix(".away"), source)


def test_an_export_whose_server_was_killed_ends_whole(place, tmp_path, monkeypatch):
    """At any point: the server is killed again and again, later each time."""
    monkeypatch.setenv("QUARR_JOB_STALE_AFTER", "2")
    _, _, _, source = place
    store, out = tmp_path / "store", tmp_path / "out.zarr"
    service.run("import", source, "--to", "r", "--store", store)
    process = service.ServerProcess(store, "--export-allow", str(tmp_path))
    job = ask(process.server, "export", destination=str(out)).json()["id"]
    for pause_s in (0.02, 0.1, 0.3):
        time.sleep(pause_s)
        process.process.kill()
        process.process.wait()
        process = service.ServerProcess(store, "--export-allow", str(tmp_path))
    try:
        done = wait(process.server, job)
    finally:
        process.stop()
    assert done["state"] == "done", done
    np.testing.assert_array_equal(zarr.open_group(out, mode="r")["v"][...], VALUES)
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["out.zarr", "store"]
