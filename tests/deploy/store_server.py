"""An S3 server on a free port, with an empty bucket: MinIO where it is installed, else moto."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

NAME = "bucket"
KEY = "quarr-tests"


@dataclass(frozen=True)
class Bucket:
    endpoint: str

    def settings(self, endpoint: str | None = None) -> dict[str, str]:
        """The environment in which Quarr finds it."""
        return {
            "AWS_ENDPOINT": endpoint or self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY,
        }


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as free:
        free.bind((address, 0))
        return free.getsockname()[1]


def reachable(url: str, process: subprocess.Popen, seconds: float = 60) -> None:
    """Waits until anything answers."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        try:
            requests.get(url, timeout=5)
            return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}")


@contextmanager
def started(folder: Path, address: str = "127.0.0.1") -> Iterator[Bucket]:
    port = free_port()
    bucket = Bucket(f"http://{address}:{port}")
    minio = shutil.which("minio") or shutil.which("minio", path=Path.home() / "go" / "bin")
    moto = shutil.which("moto_server", path=Path(sys.executable).parent)
    if minio:
        (folder / NAME).mkdir()
        command = [minio, "server", "--quiet", "--address", f"0.0.0.0:{port}", folder]
    elif moto:
        command = [moto, "-H", "0.0.0.0", "-p", str(port)]
    else:
        pytest.skip("neither MinIO nor moto is installed")
    environment = {**os.environ, "MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": KEY}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        reachable(bucket.endpoint, process)
        if not minio:
            requests.put(f"{bucket.endpoint}/{NAME}", timeout=30).raise_for_status()
        yield bucket
    finally:
        process.terminate()
        process.wait()
