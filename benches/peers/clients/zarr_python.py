"""zarr-python with its own codec pipeline."""

from __future__ import annotations

import numpy as np
import zarr

from .base import ARRAY, Box, Peer, slices


def store(where: dict):
    """The exported Zarr directory, or its copy in a bucket."""
    if "path" in where:
        return zarr.storage.LocalStore(where["path"], read_only=True)
    from obstore.store import S3Store

    return zarr.storage.ObjectStore(
        S3Store(
            where["bucket"],
            prefix=where["prefix"],
            endpoint=where["endpoint"],
            region="us-east-1",
            access_key_id=where["key"],
            secret_access_key=where["secret"],
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        ),
        read_only=True,
    )


class Client(Peer):
    def open(self) -> None:
        self.array = zarr.open_group(store(self.where), mode="r")[ARRAY]

    def read(self, box: Box) -> np.ndarray:
        return np.asarray(self.array[slices(box)])
