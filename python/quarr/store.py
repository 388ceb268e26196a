"""A commit, a branch or a transaction as a store for zarr-python, and so for xarray and dask."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.config import config

from ._loop import run
from ._transport import Response, SupportsView, Transport, View, open_transport
from ._wire import check_named, key_path, query, segment
from .aio import AsyncClient, _Caller, _keys
from .errors import BadRequestError, ServiceError, from_response

if TYPE_CHECKING:
    from ._verify import Verifier

__all__ = ["Store"]

DOCUMENT = "zarr.json"
EMPTY_GROUP = b'{"zarr_format":3,"node_type":"group","attributes":{}}'
PAGE_KEYS = 1000
"""Keys that are asked for at once."""


class _Root:
    """Whether the root group was written through a store; shared by its copies.

    A repository always has a root group. To a writer, one without members and attributes that it
    did not write itself is not there, so that ``mode="w-"`` works on a new repository and an
    emptied store is empty.
    """

    def __init__(self) -> None:
        self.is_written = False


class Store(ZarrStore):
    """A Zarr store, for ``xr.open_zarr``, ``Dataset.to_zarr``, ``zarr.open_group``.

    A key that is not there reads as ``None``; anything else that fails raises
    (:mod:`quarr.errors`), never reads as missing. It can be pickled, and used from any thread and
    event loop.

    Parameters
    ----------
    source : URL of a service, URL or path of a store, a transport or a client.
    repository : its name.
    ref : a branch, tag, commit id or prefix, ``x~n`` or ``x@time``. The store is pinned to the
        commit that it names when the store is opened.
    transaction : the id of a transaction instead: reads its writes over its base, and writes.
    follow : read what ``ref`` is at now, every time.
    autocommit : write to the branch ``ref`` without a transaction. Every write is in a commit when
        it returns; those at the same time share one.
    verify : check every chunk and every array's metadata against the commit, here; see
        ``docs/python.md``. Needs the extra ``verify``.
    key : with ``verify``, public keys, one of which must have signed a log with the commit.
    inner_chunks : show the inner chunks of sharded arrays as the chunks of arrays without shards,
        so that reading one is one look-up. Only for a commit of a store that is opened here
        (:func:`quarr.open`); it lists no keys.
    read_only : whether to refuse writes. By default only transactions and ``autocommit`` write.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Transport | AsyncClient,
        repository: str,
        ref: str = "main",
        *,
        transaction: str | None = None,
        follow: bool = False,
        autocommit: bool = False,
        verify: bool = False,
        key: str | Sequence[str] | None = None,
        inner_chunks: bool = False,
        read_only: bool | None = None,
    ) -> None:
        is_writable = transaction is not None or autocommit
        if read_only is None:
            read_only = not is_writable
        super().__init__(read_only=read_only)
        if transaction is not None and (follow or autocommit):
            raise ValueError("a transaction neither follows a branch nor commits by itself")
        keys = _keys(key)
        if (verify or keys) and (is_writable or follow):
            raise ValueError("only one commit can be verified: no transaction, follow, autocommit")
        self._transport: Transport
        if isinstance(source, str | os.PathLike):
            self._transport = open_transport(source)
        elif isinstance(source, _Caller):
            self._transport = source.transport
        else:
            self._transport = getattr(source, "transport", None) or source
        if inner_chunks and (is_writable or follow or verify or keys):
            raise ValueError("inner chunks are shown of a commit alone, without verify")
        if inner_chunks and not isinstance(self._transport, SupportsView):
            raise ValueError("inner chunks are shown of a store that is opened here (quarr.open)")
        self._inner_chunks = inner_chunks
        self._repository = repository
        self._ref = ref
        self._transaction = transaction
        self._follow = follow
        self._autocommit = autocommit
        self._verify = verify or bool(keys)
        self._keys = keys
        self._commit: str | None = None
        self._view: View | None = None
        self._verifier: Verifier | None = None
        self._root = _Root()

    # What it is

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._transport

    @property
    def repository(self) -> str:
        """The name of the repository."""
        return self._repository

    @property
    def commit(self) -> str | None:
        """The commit the store is pinned to; ``None`` if it is not, or not opened yet."""
        return self._commit

    @property
    def _is_pinned(self) -> bool:
        return self._transaction is None and not self._follow and not self._autocommit

    @property
    def _is_writable(self) -> bool:
        return self._transaction is not None or self._autocommit

    def __str__(self) -> str:
        what = self._commit or self._ref
        if self._transaction is not None:
            what = f"transaction {self._transaction}"
        return f"{self._transport.url}/{self._repository}@{what}"

    def __repr__(self) -> str:
        return f"Store({str(self)!r})"

    def _identity(self) -> tuple[Any, ...]:
        return (
            self._repository,
            self._ref if self._transaction is None else None,
            self._transaction,
            self._follow,
            self._autocommit,
            self._verify,
            self._keys,
            self._inner_chunks,
            self.read_only,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Store) or self._identity() != other._identity():
            return False
        # One that is not opened yet may be pinned to the same commit.
        commits = {self._commit, other._commit} - {None}
        return self._transport == other._transport and len(commits) < 2

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self._transport.url, self._commit, *self._identity())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_view": None, "_verifier": None}

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same store with other rights."""
        if not read_only and not self._is_writable:
            raise ValueError(
                "a commit cannot be written to: open a transaction, or the branch with autocommit"
            )
        copy = type(self)(
            self._transport,
            self._repository,
            self._ref,
            transaction=self._transaction,
            follow=self._follow,
            autocommit=self._autocommit,
            verify=self._verify,
            key=self._keys or None,
            inner_chunks=self._inner_chunks,
            read_only=read_only,
        )
        copy._commit = self._commit
        copy._root = self._root
        return copy

    @property
    def supports_writes(self) -> bool:
        """Whether this is a transaction, or commits by itself."""
        return self._is_writable

    @property
    def supports_deletes(self) -> bool:
        """Whether this is a transaction, or commits by itself."""
        return self._is_writable

    @property
    def supports_listing(self) -> bool:
        """Yes, but not of inner chunks."""
        return not self._inner_chunks

    @property
    def supports_consolidated_metadata(self) -> bool:
        """Group documents that are read come consolidated. While writing they are not: they would
        be out of date at once, and the service consolidates by itself."""
        return not self._is_writable and not self._verify

    @property
    def _supports_sync_io(self) -> bool:
        # Waiting for one answer after the other is only fast without a network.
        return self._view is not None

    # Opening

    async def _open(self) -> None:
        await super()._open()
        await self.pin()

    async def pin(self) -> None:
        """Pins the store to the commit that its ref names now, unless it is pinned or follows."""
        if not self._is_pinned or self._commit is not None:
            await self._find_view()
            return
        target = f"/v1/repos/{segment(self._repository)}/refs/{segment(self._ref)}"
        commit = (await _Caller(self._transport)._json("GET", target))["commit"]
        check_named(self._ref, commit)
        if self._commit is None:
            self._commit = commit
        await self._find_view()

    async def _find_view(self) -> None:
        if self._commit is None or self._verify or self._view is not None:
            return
        if isinstance(self._transport, SupportsView):
            self._view = await self._transport.view(
                self._repository, self._commit, inner_chunks=self._inner_chunks
            )

    async def _base(self) -> str:
        if self._transaction is not None:
            return f"/v1/transactions/{segment(self._transaction)}/zarr"
        if self._is_pinned and (self._commit is None or self._view is None):
            await self.pin()
        ref = self._commit if self._commit is not None else self._ref
        return f"/v1/repos/{segment(self._repository)}/refs/{segment(ref)}/zarr"

    async def _proofs(self) -> Verifier:
        if self._verifier is None:
            from ._verify import Verifier

            await self.pin()
            if self._commit is None:
                raise AssertionError("a store that verifies is pinned")
            self._verifier = Verifier(
                self._transport, self._repository, self._commit, self._keys
            )
        return self._verifier

    async def _request(
        self,
        method: str,
        key: str,
        parameters: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | memoryview | None = None,
        accepted: tuple[int, ...] = (),
    ) -> Response:
        path = key_path(key)
        target = f"{await self._base()}{'/' if path else ''}{path}{parameters}"
        response = await self._transport.request(method, target, headers=headers, body=body)
        if response.status >= 300 and response.status not in accepted:
            content = bytes(response.body)
            raise from_response(method, target, response.status, response.headers, content)
        return response

    # The root group

    async def _root_is_hidden(self) -> bool:
        """Whether the root group is one that nobody wrote."""
        if not self._is_writable or self._root.is_written:
            return False
        keys, prefixes = await self._children("")
        if prefixes or any(key != DOCUMENT for key in keys):
            self._root.is_written = True
            return False
        response = await self._request("GET", DOCUMENT, accepted=(404,))
        if response.status == 404:
            return True
        document = _json(response)
        document.pop("consolidated_metadata", None)
        hidden = document == _json(Response(200, {}, EMPTY_GROUP))
        self._root.is_written = not hidden
        return hidden

    # Reading

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The object under ``key``, or a range of it; ``None`` if there is none."""
        if prototype is None:
            prototype = default_buffer_prototype()
        if self._view is not None:
            content = self._view.get(key, *_ends(byte_range))
            if content is not None and hasattr(type(content), "__await__"):
                content = await content
        else:
            content = await self._get(key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    async def _get(self, key: str, byte_range: ByteRequest | None) -> bytes | memoryview | None:
        start, stop = _ends(byte_range)
        if not _may_exist(key):
            return None
        if self._verify:
            verifier = await self._proofs()
            return await verifier.get(key, start, stop)
        if self._is_pinned:
            await self._base()
        if self._view is not None:
            found = self._view.get(key, start, stop)
            if found is not None and hasattr(type(found), "__await__"):
                found = await found
            return found  # type: ignore[no-any-return]
        if key == DOCUMENT and await self._root_is_hidden():
            return None
        headers = None
        if byte_range is not None:
            if start is not None and stop is not None and stop <= start:
                return b"" if await self.exists(key) else None
            headers = {"range": _range_header(start, stop)}
        response = await self._request("GET", key, headers=headers, accepted=(404, 416))
        if response.status == 404 or _is_directory(response):
            return None
        if response.status == 416:
            return b""
        if byte_range is not None and response.status == 200:
            return _cut(response.body, start, stop)
        return response.body

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Many ranges at once, in the order they are given."""
        return list(
            await asyncio.gather(
                *(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
            )
        )

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        async def one(
            key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
        ) -> tuple[str, Buffer | None]:
            return key, await self.get(key, prototype, byte_range)

        tasks = [asyncio.ensure_future(one(*request)) for request in requests]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()

    async def exists(self, key: str) -> bool:
        """Whether there is an object under ``key``."""
        if not _may_exist(key):
            return False
        if self._verify or self._inner_chunks:
            return await self._get(key, None) is not None
        if key == DOCUMENT and await self._root_is_hidden():
            return False
        response = await self._request("HEAD", key, accepted=(404,))
        return response.status != 404 and not _is_directory(response)

    async def getsize(self, key: str) -> int:
        """Length of an object, in bytes.

        Raises ``FileNotFoundError`` if there is none.
        """
        if self._inner_chunks:
            found = await self._get(key, None)
            if found is not None:
                return len(found)
        elif _may_exist(key) and not (key == DOCUMENT and await self._root_is_hidden()):
            response = await self._request("HEAD", key, accepted=(404,))
            if response.status != 404 and not _is_directory(response):
                length = response.headers.get("content-length")
                if length is None:
                    raise ServiceError(f"the answer does not say how long {key!r} is")
                return int(length)
        raise FileNotFoundError(key)

    async def getsize_prefix(self, prefix: str) -> int:
        """Length of all objects below the directory ``prefix``, in bytes."""
        keys = [(key,) async for key in self._below(prefix)]
        sizes = await concurrent_map(keys, self.getsize, limit=config.get("async.concurrency"))
        return sum(sizes)

    # Listing

    def _check_listing(self) -> None:
        if self._inner_chunks:
            raise NotImplementedError("a store that shows inner chunks lists no keys")

    async def _children(self, prefix: str) -> tuple[list[str], list[str]]:
        """Names directly below a directory: of objects, and of directories."""
        self._check_listing()
        keys: list[str] = []
        prefixes: list[str] = []
        after = None
        while True:
            listing = {"list": "children", "after": after}
            page = _json(await self._request("GET", prefix, query(listing)))
            keys.extend(page["keys"])
            prefixes.extend(page["prefixes"])
            after = page.get("next")
            if after is None:
                return keys, prefixes

    async def _below(self, prefix: str, limit: int = PAGE_KEYS) -> AsyncGenerator[str, None]:
        """Keys below a directory."""
        self._check_listing()
        hides_root = not prefix.strip("/") and await self._root_is_hidden()
        directory = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        after = None
        while True:
            listing = {"list": "all", "after": after, "limit": limit}
            page = _json(await self._request("GET", prefix, query(listing)))
            for key in page["keys"]:
                if not (hides_root and key == DOCUMENT):
                    yield directory + key
            after = page.get("next")
            if after is None:
                return

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self._below(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with ``prefix``."""
        if not prefix or prefix.endswith("/"):
            async for key in self._below(prefix):
                yield key
            return
        parent, _, start = prefix.rpartition("/")
        above = f"{parent}/" if parent else ""
        keys, prefixes = await self._children(parent)
        if not parent and DOCUMENT in keys and await self._root_is_hidden():
            keys.remove(DOCUMENT)
        for name in keys:
            if name.startswith(start):
                yield above + name
        for name in prefixes:
            if name.startswith(start):
                async for key in self._below(above + name):
                    yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of what is directly below ``prefix``."""
        keys, prefixes = await self._children(prefix)
        if not prefix.strip("/") and DOCUMENT in keys and await self._root_is_hidden():
            keys.remove(DOCUMENT)
        for name in keys:
            yield name
        for name in prefixes:
            yield name

    async def is_empty(self, prefix: str) -> bool:
        """Whether there is nothing below the directory ``prefix``."""
        async for _ in self._below(prefix, 2):
            return False
        return True

    # Writing

    async def set(self, key: str, value: Buffer) -> None:
        """Stores an object: a document or a chunk, which have to be valid.

        Raises :class:`~quarr.BadRequestError` if it is not.
        """
        await self._set(key, value, None)

    async def _set(self, key: str, value: Buffer, headers: dict[str, str] | None) -> None:
        self._check_writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"{type(value).__name__} is no Buffer: only Buffers can be stored")
        body = value.as_buffer_like()
        view = memoryview(body).cast("B")
        accepted = (412,) if headers else ()
        try:
            await self._request("PUT", key, headers=headers, body=view, accepted=accepted)
        except BadRequestError:
            if key.endswith(DOCUMENT):
                _refuse_non_numbers(key, bytes(view))
            raise
        if key == DOCUMENT:
            self._root.is_written = True

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Stores an object unless there is one, in one step."""
        is_free = key == DOCUMENT and await self._root_is_hidden()
        await self._set(key, value, None if is_free else {"if-none-match": "*"})

    async def delete(self, key: str) -> None:
        """Deletes an object. The document of a group stands for all that is below it."""
        self._check_writable()
        if key == DOCUMENT:
            # The root group stays, without attributes.
            await self._request("PUT", key, body=EMPTY_GROUP)
            self._root.is_written = False
            return
        if _may_exist(key):
            await self._request("DELETE", key, accepted=(404,))

    async def delete_dir(self, prefix: str) -> None:
        """Deletes everything at and below ``prefix``."""
        self._check_writable()
        await self._request("DELETE", prefix.strip("/"), "?recursive=true")
        if not prefix.strip("/"):
            # The root group stays, without members and attributes.
            self._root.is_written = False

    async def clear(self) -> None:
        """Deletes everything."""
        await self.delete_dir("")

    # Without an event loop (zarr-python 3.2 and later)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As :meth:`get`; not from a coroutine."""
        if self._view is not None:
            found = self._view.get_sync(key, *_ends(byte_range))
            if found is None:
                return None
            return (prototype or default_buffer_prototype()).buffer.from_bytes(found)
        return run(self.get(key, prototype, byte_range))

    def set_sync(self, key: str, value: Buffer) -> None:
        """As :meth:`set`; not from a coroutine."""
        run(self.set(key, value))

    def delete_sync(self, key: str) -> None:
        """As :meth:`delete`; not from a coroutine."""
        run(self.delete(key))


def _may_exist(key: str) -> bool:
    """Whether there may be an object under ``key``: some names cannot be asked for."""
    return "\0" not in key and not any(name in (".", "..") for name in key.split("/"))


def _json(response: Response) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(bytes(response.body))
    except ValueError as error:
        raise ServiceError(f"the answer is no JSON: {error}") from error
    return document


def _is_directory(response: Response) -> bool:
    """Whether the answer is the index of a directory, which is no object."""
    return response.headers.get("content-type", "").startswith("text/html")


def _ends(byte_range: ByteRequest | None) -> tuple[int | None, int | None]:
    """First byte and the one after the last; a first one below 0 counts from the end."""
    match byte_range:
        case None:
            return None, None
        case RangeByteRequest():
            return byte_range.start, byte_range.end
        case OffsetByteRequest():
            return byte_range.offset, None
        case SuffixByteRequest():
            # Of length 0: nothing, wherever the object ends.
            return (-byte_range.suffix, None) if byte_range.suffix else (0, 0)
    raise ValueError(f"Unexpected byte_range, got {byte_range}.")


def _range_header(start: int | None, stop: int | None) -> str:
    if start is not None and start < 0:
        return f"bytes={start}"
    return f"bytes={start or 0}-{'' if stop is None else stop - 1}"


def _cut(body: bytes | memoryview, start: int | None, stop: int | None) -> memoryview:
    return memoryview(body)[start:stop]


def _refuse_non_numbers(key: str, document: bytes) -> None:
    """Names the members of a document that JSON has no number for; zarr-python writes them anyway."""

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for member, inner in value.items():
                walk(inner, f"{name}.{member}" if name else member)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                walk(inner, f"{name}[{number}]")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} of {key} is {value}: JSON has no such number, leave it out")

    walk(json.loads(document), "")
