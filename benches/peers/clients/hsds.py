"""HSDS through its REST interface, without h5pyd around it: h5pyd only writes the data."""

from __future__ import annotations

import base64

import numpy as np

from .base import Box, Peer
from .quarr import Connection

# HSDS refuses requests over 100 MiB; h5pyd pages through large selections as well.
MOST_BYTES = 64 << 20


class Client(Peer):
    def open(self) -> None:
        self.http = Connection(self.where["host"], self.where["port"])
        secret = base64.b64encode(b"admin:admin").decode()
        self.headers = {
            "Authorization": f"Basic {secret}",
            "Accept": "application/octet-stream",
        }
        self.query = f"domain={self.where['domain']}&bucket={self.where['bucket']}"

    def read(self, box: Box) -> np.ndarray:
        shape = [len(range(*axis)) for axis in box]
        values = np.empty(shape, "<f4")
        rows = max(1, MOST_BYTES // max(1, 4 * int(np.prod(shape[1:]))))
        start, _, step = box[0]
        for row in range(0, shape[0], rows):
            part = values[row : row + rows]
            axis = (start + row * step, start + (row + len(part) - 1) * step + 1, step)
            text = ",".join(f"{a}:{b}:{c}" for a, b, c in [axis, *box[1:]])
            path = f"/datasets/{self.where['dataset']}/value?select=[{text}]&{self.query}"
            self.http.get(path, into=part.reshape(-1), headers=self.headers)
        return values

    def floor(self) -> None:
        self.http.get("/about")

    def wire_bytes(self) -> int:
        return self.http.received
