"""A bucket of an S3 server: MinIO where it is installed, else moto."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore.store
import pytest
import requests

NAME = "bucket"
KEY = "quarr-tests"


@dataclass(frozen=True)
class Bucket:
    """The URL of the bucket, and of the server it is on."""

    url: str
    endpoint: str
    checks_signatures: bool = False


def client(bucket: Bucket, prefix: str = "") -> obstore.store.S3Store:
    """What reads and writes below a prefix of the bucket."""
    return obstore.store.S3Store(
        NAME, prefix=prefix, endpoint=bucket.endpoint, region="us-east-1",
        access_key_id=KEY, secret_access_key=KEY, client_options={"allow_http": True},
    )


def settings(bucket: Bucket) -> dict[str, str]:
    """What clients find the bucket by in the environment."""
    return {
        "AWS_ENDPOINT": bucket.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY,
    }


def _minio() -> str | None:
    return shutil.which("minio") or shutil.which("minio", path=Path.home() / "go" / "bin")


@contextmanager
def _running(command: Callable[[int], list], environment: dict[str, str], checks_signatures: bool) -> Iterator[Bucket]:
    """A server started by what `command` makes of a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bucket = Bucket(f"s3://{NAME}", f"http://127.0.0.1:{port}", checks_signatures)
    process = subprocess.Popen(
        command(port), env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                requests.get(bucket.endpoint, timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield bucket
    finally:
        process.terminate()
        process.wait()


@contextmanager
def moto() -> Iterator[Bucket]:
    """moto with an empty bucket: all of S3's settings of buckets, and roles, but no signatures."""
    program = Path(sys.executable).parent / "moto_server"
    if not program.exists():
        pytest.skip("moto is not installed")
    with _running(lambda port: [program, "-H", "127.0.0.1", "-p", str(port)], {}, False) as bucket:
        requests.put(f"{bucket.endpoint}/{NAME}", timeout=30).raise_for_status()
        yield bucket


@contextmanager
def minio(folder: Path) -> Iterator[Bucket]:
    """MinIO with an empty bucket."""
    program = _minio()
    if program is None:
        pytest.skip("MinIO is not installed")
    (folder / NAME).mkdir()
    environment = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": KEY}
    command = [program, "server", "--quiet", "--address"]
    with _running(lambda port: [*command, f"127.0.0.1:{port}", folder], environment, True) as bucket:
        yield bucket


@contextmanager
def started(folder: Path) -> Iterator[Bucket]:
    """A server with an empty bucket, which clients find by the environment."""
    with minio(folder) if _minio() else moto() as bucket:
        before = {name: os.environ.get(name) for name in settings(bucket)}
        os.environ.update(settings(bucket))
        yield bucket
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
