"""Independent Zarr readers under one interface: `read(location, path, index) -> array`.

A location is the URL of a Zarr view or the folder of an exported one; zarrita reads URLs alone.
"""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import tensorstore
import zarr
import zarr.storage
from obstore.store import HTTPStore, LocalStore

# An error stays one; they would ask for it again for minutes.
NO_RETRIES = {"max_retries": 1}
ZARRITA = Path(__file__).parents[1] / "zarrita"


def read_with_zarr_python(location: str, path: str, index) -> np.ndarray:
    return np.asarray(zarr.open_array(f"{location}/{path}", mode="r")[index])


def read_with_zarrs(location: str, path: str, index) -> np.ndarray:
    """zarr-python's front over the codec pipeline of zarrs, the Rust implementation."""
    with zarr.config.set(
        {
            "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
            # A fallback to zarr-python's own pipeline would test that one twice.
            "codec_pipeline.strict": True,
        }
    ):
        return np.asarray(zarr.open_array(f"{location}/{path}", mode="r")[index])


def read_with_tensorstore(location: str, path: str, index) -> np.ndarray:
    if location.startswith("http"):
        store = {"driver": "http", "base_url": f"{location}/{path}/"}
    else:
        store = {"driver": "file", "path": f"{location}/{path}/"}
    spec = {"driver": "zarr3", "kvstore": store, "context": {"http_request_retries": NO_RETRIES}}
    array = tensorstore.open(spec, open=True, read=True).result()
    return array[index].read().result()


def read_with_obstore(location: str, path: str, index) -> np.ndarray:
    """zarr-python over the object stores of obstore."""
    if location.startswith("http"):
        options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
        objects = HTTPStore.from_url(location, **options)
    else:
        objects = LocalStore(location)
    store = zarr.storage.ObjectStore(objects, read_only=True)
    return np.asarray(zarr.open_array(store, path=path, mode="r")[index])


class Zarrita:
    """The JavaScript implementation, in a process that answers line by line."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["node", ZARRITA / "read.mjs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def read(self, location: str, path: str, index) -> np.ndarray:
        bounds = () if index is ... else index
        parts = [None if part == slice(None) else [part.start, part.stop] for part in bounds]
        request = {"location": location, "path": path, "parts": parts or None}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        if "strings" in answer:
            found = np.array([*answer["strings"], None], object)[:-1]
        else:
            found = np.frombuffer(base64.b64decode(answer["data"]), answer["dtype"])
        strides = [steps * found.itemsize for steps in answer["stride"]]
        return np.lib.stride_tricks.as_strided(found, answer["shape"], strides)


zarrita = functools.cache(Zarrita)


def read_with_zarrita(location: str, path: str, index) -> np.ndarray:
    return zarrita().read(location, path, index)


CLIENTS = {
    "zarr-python": read_with_zarr_python,
    "tensorstore": read_with_tensorstore,
    "zarrs": read_with_zarrs,
    "obstore": read_with_obstore,
}
if shutil.which("node") and (ZARRITA / "node_modules").exists():
    CLIENTS["zarrita"] = read_with_zarrita
