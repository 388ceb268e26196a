"""tensorstore: as it comes, with no cache, or with one."""

from __future__ import annotations

import os

import numpy as np
import tensorstore

from .base import ARRAY, Box, Peer, slices, sum_of_words


class Client(Peer):
    def open(self) -> None:
        where = self.where
        if "path" in where:
            kvstore = {"driver": "file", "path": f"{where['path']}/{ARRAY}/"}
        else:
            os.environ["AWS_ACCESS_KEY_ID"] = where["key"]
            os.environ["AWS_SECRET_ACCESS_KEY"] = where["secret"]
            kvstore = {
                "driver": "s3",
                "bucket": where["bucket"],
                "path": f"{where['prefix']}/{ARRAY}/",
                "endpoint": where["endpoint"],
                "aws_region": "us-east-1",
            }
        self.array = tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": kvstore,
                "context": {"cache_pool": {"total_bytes_limit": where["cache_bytes"]}},
                # Whether the cache still is what is stored is asked once, as Quarr asks nothing
                # about what cannot change.
                "recheck_cached_data": "open",
            },
            open=True,
            read=True,
        ).result()

    def read(self, box: Box) -> np.ndarray:
        return self.array[slices(box)].read().result()

    def random_chunks(self, boxes: list[Box], in_flight: int) -> int:
        words = 0
        for first in range(0, len(boxes), in_flight):
            reads = [self.array[slices(box)].read() for box in boxes[first : first + in_flight]]
            words += sum(sum_of_words(read.result()) for read in reads)
        return words
