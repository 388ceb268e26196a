"""What went over the wire, and what of it was computed in the service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Operation", "Report", "Transfer", "report"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One read."""

    what: Literal["data", "points", "reduce", "zarr"]
    """``zarr`` is an object of the Zarr store: metadata or a chunk."""
    path: str
    """The array, or the key."""
    sent_bytes: int
    """Of the request's target and body."""
    received_bytes: int
    """Of the answer's body, as it was sent."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Operation:
    """One reduction of one array that the accessor was asked for."""

    name: str
    array: str
    pushed_down: bool
    """Whether the service computed it; else xarray did, from the values it read."""
    reason: str | None
    """Why it was not pushed down."""


@dataclass(slots=True)
class Report:
    """What was read while it was open."""

    transfers: list[Transfer] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    @property
    def sent_bytes(self) -> int:
        """Of all requests."""
        return sum(transfer.sent_bytes for transfer in self.transfers)

    @property
    def received_bytes(self) -> int:
        """Of all answers."""
        return sum(transfer.received_bytes for transfer in self.transfers)

    @property
    def pushed_down(self) -> bool:
        """Whether the service computed everything that was asked for."""
        return bool(self.operations) and all(one.pushed_down for one in self.operations)

    def __repr__(self) -> str:
        lines = [
            f"<quarr report: {len(self.transfers)} reads, {self.sent_bytes} B sent, "
            f"{self.received_bytes} B received>"
        ]
        for one in self.operations:
            where = "in the service" if one.pushed_down else f"here: {one.reason}"
            lines.append(f"  {one.name} of {one.array}: {where}")
        return "\n".join(lines)


_open: list[Report] = []
_lock = threading.Lock()


@contextmanager
def report() -> Iterator[Report]:
    """Collects what all threads of this process transfer inside the ``with`` block.

    Dask workers in other processes count for themselves.
    """
    found = Report()
    with _lock:
        _open.append(found)
    try:
        yield found
    finally:
        with _lock:
            _open[:] = [other for other in _open if other is not found]


def note_transfer(transfer: Transfer) -> None:
    """Adds a request to the reports that are open."""
    with _lock:
        for found in _open:
            found.transfers.append(transfer)


def note_operation(operation: Operation) -> None:
    """Adds an operation to the reports that are open."""
    with _lock:
        for found in _open:
            found.operations.append(operation)


def now() -> float:
    """A clock for durations, in seconds."""
    return time.perf_counter()
