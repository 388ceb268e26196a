"""xarray over the NetCDF-4 file, its default engine."""

from __future__ import annotations

import numpy as np
import xarray

from .base import ARRAY, Box, Peer, Unsupported, slices


class Client(Peer):
    def open(self) -> None:
        if "path" not in self.where:
            raise Unsupported("local files only")
        self.array = xarray.open_dataset(self.where["path"], cache=False)[ARRAY]

    def read(self, box: Box) -> np.ndarray:
        return self.array[slices(box)].values

    def random_chunks(self, boxes: list[Box], in_flight: int) -> int:
        if in_flight > 1:
            raise Unsupported("one thread at a time")
        return super().random_chunks(boxes, in_flight)
