"""What users name: URLs, paths and the client's objects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from .._loop import run
from .._transport import Transport, open_transport
from .._wire import segment
from ..aio import AsyncRepository, AsyncSnapshot, AsyncTransaction
from ..client import Repository, Snapshot, Transaction
from ..store import Store
from ._arrays import Source
from ._report import Transfer, note_transfer, now

__all__ = ["Named", "Opened", "is_ours", "parse", "resolve"]

REFS = re.compile(
    r"(?P<service>https?://.+?)/v1/repos/(?P<repo>[^/?#]+)/refs/(?P<ref>[^/?#]+)(?P<rest>/[^?#]*)?"
)
REPOS = re.compile(r"(?P<service>https?://.+?)/v1/repos/(?P<repo>[^/?#]+)(?P<rest>)(?P<ref>)/?")
# xarray takes what it does not know for a path: it puts a directory before it and merges slashes.
SHORT = re.compile(
    r"(?:.*/)?quarr\+(?P<scheme>https?):/+(?P<host>[^/]+)/(?P<repo>[^/@]+)(?:@(?P<ref>[^/]+))?(?P<rest>/.*)?"
)
OURS = (
    Store, Snapshot, AsyncSnapshot, Repository, AsyncRepository, Transaction, AsyncTransaction,
)  # fmt: skip


class CountedStore(Store):
    """A store whose reads are in reports."""

    @classmethod
    def of(cls, store: Store) -> CountedStore:
        """The same store."""
        copy = cls.__new__(cls)
        copy.__dict__.update(store.__dict__)
        return copy

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As :meth:`quarr.Store.get`."""
        start = now()
        found = await super().get(key, prototype, byte_range)
        self._note(key, found, start)
        return found

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As :meth:`quarr.Store.get_sync`."""
        if self._view is None:
            # By way of get.
            return super().get_sync(key, prototype=prototype, byte_range=byte_range)
        start = now()
        found = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        self._note(key, found, start)
        return found

    def _note(self, key: str, found: Buffer | None, start: float) -> None:
        length = 0 if found is None else len(found)
        note_transfer(Transfer("zarr", key, len(key), length, now() - start))


@dataclass(frozen=True)
class Named:
    """What a URL or a path says."""

    transport: Transport
    repo: str
    ref: str
    group: str


@dataclass(frozen=True)
class Opened:
    """What a dataset is read from."""

    store: Store
    source: Source | None
    """Where slices come from; ``None`` if only whole chunks can be read."""
    group: str = ""

    @property
    def is_consolidated(self) -> bool | None:
        """Whether group documents hold what is below them."""
        return True if self.store.supports_consolidated_metadata else False

    def below(self, group: str | None) -> str | None:
        """The path of a group below what was named."""
        names = [*self.group.split("/"), *(group or "").split("/")]
        return "/".join(name for name in names if name) or None


def is_ours(named: Any) -> bool:
    """Whether it is one of the client's objects, or a URL that only Quarr has."""
    if isinstance(named, OURS):
        return True
    if not isinstance(named, str | os.PathLike):
        return False
    text = os.fspath(named)
    return REFS.fullmatch(text) is not None or SHORT.fullmatch(text) is not None


def parse(
    named: str | os.PathLike[str],
    repo: str | None = None,
    ref: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Named:
    """What a URL or a path, and ``repo`` and ``ref`` beside it, mean.

    Raises :class:`ValueError` if it does not say which repository.
    """
    text = os.fspath(named)
    found = SHORT.fullmatch(text)
    if found is not None:
        service = f"{found['scheme']}://{found['host']}"
    else:
        found = REFS.fullmatch(text) or REPOS.fullmatch(text)
        service = found["service"] if found is not None else text
    if found is not None:
        given = unquote(found["repo"]), unquote(found["ref"] or "") or None
        if repo not in (None, given[0]) or (ref is not None and given[1] not in (None, ref)):
            raise ValueError(f"{text!r} is of another repository or ref than repo= and ref=")
        repo, ref = given[0], given[1] or ref
    if repo is None:
        raise ValueError(
            f"{text!r} does not say which repository: add repo=, or give "
            "http://HOST/v1/repos/REPO/refs/REF"
        )
    group = unquote(found["rest"] or "") if found is not None else ""
    if found is not None and found.re is REFS and re.match(r"/zarr(/|$)", group):
        group = group.removeprefix("/zarr")
    transport = open_transport(service, **(options or {}))
    return Named(transport, repo, ref or "main", group.strip("/"))


def resolve(
    named: Any,
    *,
    repo: str | None = None,
    ref: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """What to read from, pinned to a commit.

    Raises :class:`TypeError` for what cannot be opened.
    """
    if isinstance(named, str | os.PathLike):
        at = parse(named, repo, ref, options)
        return _opened(Store(at.transport, at.repo, at.ref), at.group)
    if not isinstance(named, OURS):
        raise TypeError(f"{type(named).__name__} is nothing of Quarr's")
    if repo is not None:
        raise ValueError("repo= is for URLs and paths")
    if isinstance(named, Repository | AsyncRepository):
        return _opened(Store(named.transport, named.name, ref or "main"))
    if ref is not None:
        raise ValueError("ref= is for repositories, URLs and paths")
    if isinstance(named, Store):
        return _opened(named)
    store = named.store if isinstance(named, Transaction | AsyncTransaction) else named.store()
    return _opened(store)


def _opened(given: Store, group: str = "") -> Opened:
    run(given.pin())
    store = CountedStore.of(given)
    if store._transaction is not None:
        target = f"/v1/transactions/{segment(store._transaction)}"
        return Opened(store, Source(store.transport, target), group)
    if store.commit is None or store._verify:
        return Opened(store, None, group)
    target = f"/v1/repos/{segment(store.repository)}/refs/{store.commit}"
    return Opened(store, Source(store.transport, target), group)
