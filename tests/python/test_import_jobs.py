"""Imports that are killed go on, and end as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest

import quarr
import service

pytestmark = pytest.mark.once

STALE_AFTER_S = "2"
"""A job whose process is gone is taken up at once; a saved record is never older than a part of this."""
KILLS = 4
CHUNKS = ["--chunks", "time=1,y=64,x=64", "--shards", "time=1,y=64,x=64"]
DEADLINE_S = 300


@pytest.fixture(autouse=True)
def stale_soon(monkeypatch):
    monkeypatch.setenv("QUARR_JOB_STALE_AFTER", STALE_AFTER_S)


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """A file of many shards: some noise, some missing altogether."""
    path = tmp_path_factory.mktemp("sources") / "noise.nc"
    rng = np.random.default_rng(5)
    with netCDF4.Dataset(path, "w") as file:
        for name, length in [("time", 60), ("y", 256), ("x", 256)]:
            file.createDimension(name, length)
        for name in ["a", "b"]:
            variable = file.createVariable(name, "f4", ("time", "y", "x"), zlib=True, complevel=1)
            variable[:] = rng.integers(0, 1000, (60, 256, 256)).astype("f4")
        sparse = file.createVariable("sparse", "i2", ("time", "y", "x"), fill_value=-1)
        sparse[::7] = 3
    return path


@pytest.fixture(scope="module")
def undisturbed(noise, tmp_path_factory) -> str:
    """The root tree of an import that nothing disturbs."""
    store = tmp_path_factory.mktemp("undisturbed")
    service.run("import", noise, "--to", "noise", "--store", store, *CHUNKS)
    return tree(store)


def tree(store: Path) -> str:
    """The root tree of what was imported, which was once."""
    process = service.ServerProcess(store)
    try:
        # Made, and imported into.
        assert len(process.server.get("/v1/repos/noise/log").json()["entries"]) == 2
        answer = process.server.get("/v1/repos/noise/refs/main")
        answer.raise_for_status()
        return answer.json()["tree"]
    finally:
        process.stop()


def wait_for(look, what: str):
    """The first thing that `look` finds."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} does not come")


def kill_points(seed: int) -> list[int]:
    """Numbers of chunks after which to kill, ascending."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    return sorted(rng.randrange(1, 60 * 16 * 3) for _ in range(KILLS))


def test_a_server_killed_during_an_import_goes_on(noise, undisturbed, tmp_path):
    store = tmp_path / "store"
    allow = ["--import-allow", str(noise.parent)]
    lengths = {"time": 1, "y": 64, "x": 64}
    process = service.ServerProcess(store, *allow)
    client = quarr.Client(process.server.url)
    job = client.import_(noise, "noise", chunks=lengths, shards=lengths, memory_mib=4)
    for chunks in kill_points(random.randrange(2**32)):
        url = f"/v1/jobs/{job.id}"

        def passed(server=process.server, chunks=chunks):
            info = server.get(url).json()
            is_over = info["state"] not in ("queued", "running")
            return info if is_over or info["progress"]["chunks"] >= chunks else None

        info = wait_for(passed, f"chunk {chunks}")
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()
        process = service.ServerProcess(store, *allow)
        if info["state"] == "done":
            break
    info = quarr.Client(process.server.url).job(job.id).wait(timeout_s=DEADLINE_S)
    process.stop()
    assert info.report is not None
    assert [one["path"] for one in info.report["arrays"]] == ["/a", "/b", "/sparse"]
    assert tree(store) == undisturbed


def test_a_server_that_is_asked_to_end_hands_its_import_over(noise, undisturbed, tmp_path):
    store = tmp_path / "store"
    allow = ["--import-allow", str(noise.parent)]
    lengths = {"time": 1, "y": 64, "x": 64}
    process = service.ServerProcess(store, *allow)
    client = quarr.Client(process.server.url)
    job = client.import_(noise, "noise", chunks=lengths, shards=lengths, memory_mib=4)

    def begun():
        info = process.server.get(f"/v1/jobs/{job.id}").json()
        return info if info["progress"]["chunks"] >= 1 else None

    wait_for(begun, "the first chunk")
    process.stop()
    left = newest_job(store)
    # Not that a process is gone, but that it said so lets others go on.
    assert left["state"] == "running"
    assert left["is_free"] and "process" not in left
    process = service.ServerProcess(store, *allow)
    info = quarr.Client(process.server.url).job(job.id).wait(timeout_s=DEADLINE_S)
    process.stop()
    assert info.report is not None
    assert "is_free" not in newest_job(store)
    assert tree(store) == undisturbed


def start_import(noise: Path, store: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [service.BIN, "import", noise, "--to", "noise", "--store", store, *CHUNKS, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def newest_job(store: Path) -> dict | None:
    records = sorted((store / ".quarr" / "jobs").glob("*.json"))
    return json.loads(records[-1].read_text()) if records else None


def kill_at(process: subprocess.Popen[str], store: Path, chunks: int) -> dict:
    """Kills an import once so many chunks are known to be done; its job."""

    def passed():
        if process.poll() is not None:
            return newest_job(store)
        job = newest_job(store)
        return job if job is not None and job["progress"]["chunks"] >= chunks else None

    job = wait_for(passed, f"chunk {chunks}")
    process.kill()
    process.communicate()
    return job


@pytest.mark.parametrize("again", ["resume", "import"])
def test_a_killed_command_goes_on(noise, undisturbed, tmp_path, again):
    store = tmp_path / "store"
    points = kill_points(random.randrange(2**32))
    job = kill_at(start_import(noise, store, "--memory-mib", "4"), store, points[0])
    for chunks in points[1:]:
        if job["state"] != "running":
            break
        if again == "resume":
            command = [service.BIN, "jobs", "resume", job["id"], "--store", store]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        else:
            process = start_import(noise, store, "--memory-mib", "4")
        job = kill_at(process, store, chunks)
    if newest_job(store)["state"] == "running":
        if again == "resume":
            done = service.run("jobs", "resume", job["id"], "--store", store, "--json")
        else:
            process = start_import(noise, store, "--memory-mib", "4", "--json")
            out, err = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, err
            assert f"going on with job {job['id']}" in err
            done = subprocess.CompletedProcess([], 0, out, err)
        assert json.loads(done.stdout)["job"] == job["id"]
    shown = service.run_json("jobs", "show", job["id"], "--store", store)
    assert shown["state"] == "done"
    assert len(service.run_json("jobs", "list", "--store", store)["jobs"]) == 1
    assert tree(store) == undisturbed


def test_an_interrupt_cancels(noise, tmp_path):
    store = tmp_path / "store"
    process = start_import(noise, store, "--memory-mib", "1")
    job = wait_for(lambda: newest_job(store), "the job")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "nothing was committed" in err
    assert newest_job(store)["id"] == job["id"]
    assert newest_job(store)["state"] == "cancelled"
    failed = service.run("jobs", "resume", job["id"], "--store", store, check=False)
    assert failed.returncode == 1
    assert "has ended" in failed.stderr


def test_a_file_is_sent_to_a_server(noise, undisturbed, tmp_path):
    store = tmp_path / "store"
    process = service.ServerProcess(store)
    try:
        made = service.run_json(
            "import", noise, "--to", "noise", "--server", process.server.url, *CHUNKS
        )
        assert made["arrays"] == ["/a", "/b", "/sparse"]
        client = quarr.Client(process.server.url)
        assert client.job(made["job"]).info().progress["current"].startswith("noise.nc")
        assert not list((store / ".quarr").glob("uploads/**/*.json"))
        with pytest.raises(quarr.ForbiddenError, match="--import-allow"):
            client.import_(noise, "other")
    finally:
        process.stop()
    assert tree(store) == undisturbed


def damaged(path: Path) -> Path:
    """A file whose reader must not take anybody with it: compressed data that says what is not so."""
    with h5py.File(path, "w") as file:
        data = np.arange(1 << 16, dtype="i4").reshape(256, 256)
        file.create_dataset("v", data=data, chunks=(64, 64), compression="gzip", shuffle=True)
    raw = bytearray(path.read_bytes())
    at = len(raw) // 2
    raw[at : at + 2000] = os.urandom(2000)
    path.write_bytes(raw)
    return path


def test_a_reader_that_dies_fails_its_job_alone(noise, tmp_path):
    """The process that reads the file is killed; the service goes on."""
    store = tmp_path / "store"
    process = service.ServerProcess(store, "--import-allow", str(noise.parent))
    try:
        client = quarr.Client(process.server.url)
        lengths = {"time": 1, "y": 64, "x": 64}
        job = client.import_(noise, "noise", chunks=lengths, shards=lengths, memory_mib=1)

        def reader():
            children = Path(f"/proc/{process.process.pid}/task").glob("*/children")
            pids = [int(pid) for path in children for pid in path.read_text().split()]
            return pids[0] if pids else None

        os.kill(wait_for(reader, "the reader"), signal.SIGKILL)
        with pytest.raises(quarr.JobError, match="the process that reads it stopped"):
            job.wait(timeout_s=DEADLINE_S)
        log = process.server.get("/v1/repos/noise/log")
        assert log.status_code == 404 or len(log.json()["entries"]) == 1
        again = client.import_(noise, "again")
        assert again.wait(timeout_s=DEADLINE_S).state == "done"
    finally:
        process.stop()


def test_a_damaged_file_is_one_clear_error(tmp_path):
    store = tmp_path / "store"
    for seed in range(5):
        path = damaged(tmp_path / f"damaged-{seed}.h5")
        failed = service.run("import", path, "--to", "x", "--store", store, check=False)
        if failed.returncode != 0:
            assert failed.returncode == 1
            assert failed.stderr.count("\n") == 1, failed.stderr
            assert failed.stderr.startswith("error: ")
