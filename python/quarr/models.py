"""What the service tells about repositories, commits, nodes and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

__all__ = [
    "Commit",
    "Committed",
    "Diff",
    "JobInfo",
    "Limits",
    "LogEntry",
    "Move",
    "NodeDifference",
    "Ref",
    "RepositoryInfo",
    "TransactionInfo",
]


class _Model:
    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """Reads a document; members that are not known are left out."""
        names = {entry.name for entry in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value[name] for name in value if name in names})


@dataclass(frozen=True)
class RepositoryInfo(_Model):
    """A repository."""

    name: str
    id: str
    """A UUID, which stays when another repository of the name is made."""
    created: str
    """RFC 3339."""
    log_keys: list[str] = field(default_factory=list)
    """Public keys its log is signed with, the newest first; none if it is not signed here."""


@dataclass(frozen=True)
class Ref(_Model):
    """A branch or a tag."""

    name: str
    commit: str


@dataclass(frozen=True)
class Commit(_Model):
    """A commit."""

    commit: str
    """Its id: 64 hex digits."""
    parents: list[str]
    time: str
    """RFC 3339."""
    author: str
    message: str
    properties: dict[str, Any]
    stored_bytes: int
    """Of all chunks it refers to."""
    tree: str = ""
    branch: str | None = None
    """The branch it was asked for by, if it was."""


@dataclass(frozen=True)
class Committed(_Model):
    """A commit that was made."""

    commit: str
    branch: str


@dataclass(frozen=True)
class Move(_Model):
    """A branch that was moved."""

    branch: str
    from_: str | None
    """The commit it was at; ``None`` if the request had to be sent again and moved it before."""
    to: str

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["branch"], value.get("from"), value["to"])


@dataclass(frozen=True)
class LogEntry(_Model):
    """An entry of a repository's log."""

    sequence: int
    time: str
    actor: str
    operations: list[dict[str, Any]]
    """What moved where: ``operation``, ``branch`` or ``tag``, ``from``, ``to``, ``message``."""


@dataclass(frozen=True)
class NodeDifference(_Model):
    """A node that differs between two commits."""

    path: str
    kind: Literal["group", "array"]
    change: Literal["added", "removed", "replaced", "changed"]
    chunks: int
    """Number of chunks that differ."""
    attributes: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    """Boxes of chunks whose values may differ, as slices."""


@dataclass(frozen=True)
class Diff(_Model):
    """The nodes that differ between two commits."""

    from_: str
    to: str
    nodes: list[NodeDifference]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["from"], value["to"], [NodeDifference.of(n) for n in value["nodes"]])


@dataclass(frozen=True)
class TransactionInfo(_Model):
    """A transaction."""

    id: str
    repository: str
    branch: str
    base: str
    """The commit it starts from."""
    isolation: Literal["snapshot", "serializable"]
    state: Literal["open", "closing", "committed", "aborted"]
    author: str
    started: str
    commit: str | None = None
    """The commit it became."""


@dataclass(frozen=True)
class JobInfo(_Model):
    """How a job is going."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    spec: dict[str, Any]
    created: str
    updated: str
    owner: str
    """The process that works on it."""
    progress: dict[str, Any]
    """``bytes`` of ``total_bytes`` and ``chunks`` of ``total_chunks`` that were done,
    ``bytes_per_second``, ``seconds_left``, and what is ``current``."""
    begun_by: str = "service"
    """Whose rights it has: those of the ``service``, or of who gave a ``command``."""
    report: dict[str, Any] | None = None
    """What it came to."""
    warnings: list[str] = field(default_factory=list)
    """What is worth a look although it is no failure."""
    error: str | None = None
    """Why it failed."""

    @property
    def has_ended(self) -> bool:
        """Whether it stays as it is."""
        return self.state not in ("queued", "running")

    @property
    def fraction(self) -> float:
        """How much of it is done, from 0 to 1."""
        if self.has_ended:
            return 1.0
        total = self.progress.get("total_bytes", 0)
        return min(1.0, self.progress.get("bytes", 0) / total) if total else 0.0


@dataclass(frozen=True)
class Limits(_Model):
    """Bounds on what one request may ask for."""

    answer_bytes: int
    """Most decoded bytes in one answer."""
    streamed_bytes: int
    """Most bytes of a slice that is sent while it is read."""
    memory_bytes: int
    """Memory of the work of all requests together."""
    chunks: int
    """Most inner chunks one answer may be computed from."""
