"""Memory is bounded: that of an import by itself, that of a server by what it is given."""

from __future__ import annotations

import io
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import xarray as xr

import service

pytestmark = pytest.mark.once

LIMIT_BYTES = 512 << 20


@pytest.fixture(params=[1024, pytest.param(2048, marks=pytest.mark.long)])
def large(request, tmp_path) -> Path:
    """A file of so many MiB that hardly compresses; removed at once, as tests keep their folders."""
    path = tmp_path / "large.nc"
    sample = Path(os.environ["QUARR_BIN"]) / "sample-netcdf"
    subprocess.run([sample, path, str(request.param)], check=True)
    yield path
    subprocess.run(["rm", "-rf", tmp_path / "store", path], check=True)


def test_a_large_file_goes_through_little_memory(large, tmp_path):
    arguments = ["import", large, "--to", "large", "--store", tmp_path / "store"]
    done = service.run_measured(*arguments)
    assert done.status == 0, done.stderr
    assert done.memory_bytes < LIMIT_BYTES


SERVER_LIMIT = "128MiB"
SERVER_PEAK_BYTES = (128 + 256) << 20


def peak_of(process: subprocess.Popen) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)


def test_a_server_stays_within_its_memory_whatever_is_asked(tmp_path):
    shape = (96, 512, 512)
    values = np.random.default_rng(3).standard_normal(shape).astype("f4")
    source, store = tmp_path / "cube.nc", tmp_path / "store"
    xr.Dataset({"v": (("t", "y", "x"), values)}).to_netcdf(source)
    chunks = ["--chunks", "t=32,y=64,x=64", "--shards", "t=96,y=256,x=256"]
    service.run("import", source, "--to", "cube", *chunks, "--store", store)
    process = service.ServerProcess(store, "--memory-limit", SERVER_LIMIT)
    server = process.server
    url = f"{server.url}/v1/repos/cube/refs/main"
    sparse = {
        "shape": [1024, 512, 512],
        "data_type": "float32",
        "chunks": [32, 64, 64],
        "shards": [256, 256, 256],
    }
    assert requests.put(f"{url}/nodes/sparse", json=sparse, timeout=60).status_code == 200

    def reduce(query: str) -> int:
        answer = requests.get(f"{url}/reduce/v?f=npy&{query}", timeout=300)
        if answer.status_code == 200 and "mean" in query:
            found = np.load(io.BytesIO(answer.content))
            np.testing.assert_allclose(found, values.mean(0, dtype="f8"), rtol=1e-4, atol=1e-6)
        return answer.status_code

    def stream() -> int:
        with requests.get(f"{url}/data/sparse", stream=True, timeout=300) as answer:
            if answer.status_code == 200:
                pieces = answer.iter_content(1 << 20)
                assert sum(len(piece) for piece in pieces) == 1024 * 512 * 512 * 4
            return answer.status_code

    queries = ["reduce=mean&over=t", "reduce=median&over=t", "reduce=argmax&over=t"]
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(reduce, queries[nth % 3]) for nth in range(15)]
        asked.append(pool.submit(stream))
        codes = [answer.result() for answer in asked]
    peak = peak_of(process.process)
    process.stop()
    assert set(codes) <= {200, 503} and codes.count(200) >= 5, codes
    assert peak <= SERVER_PEAK_BYTES, f"{peak >> 20} MiB"
