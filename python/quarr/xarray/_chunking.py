"""Chunks and shards of new arrays, as the service chooses them for its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

__all__ = ["choose"]

INNER_BYTES = 1 << 20
"""Inner chunks are about this large: what is read at once."""
SHARD_BYTES = 32 << 20
"""Shards are about this large: what is stored at once."""
SMALL_BYTES = 2 << 20
"""Arrays up to this size are one chunk."""


def choose(
    shape: Sequence[int], item_bytes: int, block: Sequence[int] | None = None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes of inner chunks and of shards; without shards, chunks are stored one by one.

    ``block`` is the shape of the parts that are written at the same time: shards divide it, so that
    each is written once.
    """
    if prod(shape) * item_bytes <= SMALL_BYTES and block is None:
        return tuple(max(1, length) for length in shape), None
    if block is not None:
        shard = list(block)
        while prod(shard) * item_bytes > 2 * SHARD_BYTES and max(shard) > 1:
            _divide(shard)
        inner = list(shard)
        while prod(inner) * item_bytes > 2 * INNER_BYTES and max(inner) > 1:
            _divide(inner)
    else:
        inner = [max(1, length) for length in shape]
        while prod(inner) * item_bytes > INNER_BYTES and max(inner) > 1:
            axis = inner.index(max(inner))
            inner[axis] = -(-inner[axis] // 2)
        shard = _group(shape, inner, item_bytes)
    if shard == inner:
        return tuple(inner), None
    return tuple(inner), tuple(shard)


def _divide(lengths: list[int]) -> None:
    """Divides the greatest length by its least divisor."""
    axis = lengths.index(max(lengths))
    length = lengths[axis]
    least = next(n for n in range(2, length + 1) if length % n == 0)
    lengths[axis] = length // least


def _group(shape: Sequence[int], inner: Sequence[int], item_bytes: int) -> list[int]:
    """A shard of inner chunks: doubled where there are the fewest, last dimensions first."""
    shard = list(inner)
    while True:
        open_axes = [axis for axis in reversed(range(len(shape))) if shard[axis] < shape[axis]]
        if not open_axes:
            return shard
        axis = min(open_axes, key=lambda axis: shard[axis] // inner[axis])
        most = -(-shape[axis] // inner[axis]) * inner[axis]
        larger = [*shard]
        larger[axis] = min(2 * shard[axis], most)
        if prod(larger) * item_bytes > SHARD_BYTES:
            return shard
        shard = larger
