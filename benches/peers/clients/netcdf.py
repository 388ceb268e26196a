"""The NetCDF-4 file itself, with the netCDF4 library: zlib 1 and the same chunks."""

from __future__ import annotations

import netCDF4
import numpy as np

from .base import ARRAY, Box, Peer, Unsupported, slices


class Client(Peer):
    def open(self) -> None:
        if "path" not in self.where:
            raise Unsupported("local files only")
        self.file = netCDF4.Dataset(self.where["path"])
        self.file.set_auto_maskandscale(False)
        self.variable = self.file[ARRAY]
        # Room for everything, decoded, as the services have.
        self.variable.set_var_chunk_cache(size=self.where["cache_bytes"], nelems=10007)

    def read(self, box: Box) -> np.ndarray:
        return np.asarray(self.variable[slices(box)])

    def random_chunks(self, boxes: list[Box], in_flight: int) -> int:
        if in_flight > 1:
            raise Unsupported("one thread at a time")
        return super().random_chunks(boxes, in_flight)
