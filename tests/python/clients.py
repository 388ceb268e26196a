"""Independent Zarr readers under one interface: `read(location, path, index) -> array`.

A location is the URL of a Zarr view or the folder of an exported one.
"""

from __future__ import annotations

import numpy as np
import tensorstore
import zarr


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
    array = tensorstore.open({"driver": "zarr3", "kvstore": store}, open=True, read=True).result()
    return array[index].read().result()


CLIENTS = {
    "zarr-python": read_with_zarr_python,
    "tensorstore": read_with_tensorstore,
    "zarrs": read_with_zarrs,
}
