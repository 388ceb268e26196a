"""zarr-python with zarrs as its codec pipeline."""

from __future__ import annotations

import zarr
import zarrs  # noqa: F401  registers the pipeline

from . import zarr_python


class Client(zarr_python.Client):
    def open(self) -> None:
        pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
        # What it cannot read must not be read by zarr-python instead, and count as zarrs.
        zarr.config.set(pipeline | {"codec_pipeline.strict": True})
        super().open()
