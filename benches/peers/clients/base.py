"""What every peer does, so that all are asked the same."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ARRAY = "t2m"

# Start, stop and step for each dimension.
Box = list[tuple[int, int, int]]


class Unsupported(Exception):
    """The peer has no such thing; the table says why."""


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*axis) for axis in box)


def sum_of_words(values: np.ndarray) -> int:
    """Equal for equal bits in any order: tells wrong values, and costs little."""
    words = np.ascontiguousarray(values).view("<u4").ravel()
    return int(words.sum(dtype=np.uint64))


class Peer:
    """One peer, in a process of its own. `where` is what `prepare` in run.py noted for it."""

    def __init__(self, where: dict) -> None:
        self.where = where

    def open(self) -> None:
        raise NotImplementedError

    def read(self, box: Box) -> np.ndarray:
        raise NotImplementedError

    def reduce(self, how: str, over: tuple[int, ...] | None) -> np.ndarray:
        """Reads everything and reduces it with NumPy, as one does without a service."""
        values = self.read_all()
        return getattr(values, how)(axis=over)

    def read_all(self) -> np.ndarray:
        return self.read([(0, length, 1) for length in self.where["shape"]])

    def random_chunks(self, boxes: list[Box], in_flight: int) -> int:
        """Reads each box on its own; gives the sum of all words."""
        if in_flight == 1:
            return sum(sum_of_words(self.read(box)) for box in boxes)
        with ThreadPoolExecutor(in_flight) as pool:
            return sum(pool.map(lambda box: sum_of_words(self.read(box)), boxes))

    def floor(self) -> None:
        """The cheapest request the service answers."""
        raise Unsupported("no service")

    def wire_bytes(self) -> int | None:
        """Bytes of answers so far; None where nothing is between the peer and the store."""
        return None


def timed(work, repeat: int) -> tuple[list[float], object]:
    seconds, result = [], None
    for _ in range(repeat):
        result = None
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return seconds, result
