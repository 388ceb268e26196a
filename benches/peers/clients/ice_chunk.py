"""Icechunk with zarr-python."""

from __future__ import annotations

import icechunk
import zarr

from . import zarr_python
from .base import ARRAY


def storage(where: dict) -> icechunk.Storage:
    if "path" in where:
        return icechunk.local_filesystem_storage(where["path"])
    return icechunk.s3_storage(
        bucket=where["bucket"],
        prefix=where["prefix"],
        endpoint_url=where["endpoint"],
        region="us-east-1",
        allow_http=True,
        force_path_style=True,
        access_key_id=where["key"],
        secret_access_key=where["secret"],
    )


class Client(zarr_python.Client):
    def open(self) -> None:
        session = icechunk.Repository.open(storage(self.where)).readonly_session("main")
        self.array = zarr.open_group(session.store, mode="r")[ARRAY]
