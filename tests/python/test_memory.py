"""An import's memory does not depend on the size of the file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import quarr

LIMIT_BYTES = 512 << 20


def peak_memory_bytes(*arguments: str | Path) -> int:
    """Runs `quarr` and returns the most memory it had resident."""
    process = subprocess.Popen(
        [quarr.BIN, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


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
    assert peak_memory_bytes(*arguments) < LIMIT_BYTES
