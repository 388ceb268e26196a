"""Requests to a service in this process, over a store it opens itself.

Transports over the same store with the same options share one engine, its caches and its memory. A
forked child opens its own: threads do not survive a fork.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import _native
from ._loop import run
from ._transport import Event, Response, StreamError, parse_events
from .errors import TransportError, from_response

__all__ = ["NativeTransport"]

KEPT_ENGINES = 4
"""Engines of unpickled transports that stay open between two tasks of a worker."""

_Key = tuple[str, tuple[tuple[str, Any], ...]]

_lock = threading.Lock()
_engines: weakref.WeakValueDictionary[_Key, _native.Engine] = weakref.WeakValueDictionary()
_kept: deque[_native.Engine] = deque(maxlen=KEPT_ENGINES)
_views: weakref.WeakSet[NativeView] = weakref.WeakSet()


def _forget() -> None:
    global _lock, _engines, _kept
    _lock, _engines = threading.Lock(), weakref.WeakValueDictionary()
    _kept = deque(maxlen=KEPT_ENGINES)
    for view in list(_views):
        view._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class NativeTransport:
    """Requests answered in this process, without a server.

    Parameters
    ----------
    url : the store: a directory, ``s3://bucket/prefix``, ``gs://…``, ``az://…`` or ``memory://``.
    options : settings of the store over those of the environment, by the names the environment has
        for them, in lower case (``aws_endpoint``).
    memory_limit_bytes : for caches and the work of all requests together; by default half of the
        machine's memory.
    threads : threads that decode and compute; by default one for each core.
    cache_dir : where chunks of a remote store are kept as well.
    cache_disk_bytes : most bytes there.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        options: Mapping[str, str] | None = None,
        memory_limit_bytes: int | None = None,
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_disk_bytes: int | None = None,
    ) -> None:
        text = os.fspath(url)
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
            # Wherever it is unpickled, the same directory is meant.
            text = os.path.abspath(text)
        self._url = text
        self._sizes: dict[str, Any] = {
            "options": dict(options or {}),
            "memory_limit_bytes": memory_limit_bytes,
            "threads": threads,
            "cache_dir": None if cache_dir is None else os.path.abspath(cache_dir),
            "cache_disk_bytes": cache_disk_bytes,
        }
        self._is_copy = False
        self._start()
        self._open()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._engine: _native.Engine | None = None

    @property
    def url(self) -> str:
        """What a user passed; a path is absolute."""
        return self._url

    def __repr__(self) -> str:
        return f"NativeTransport({self._url!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NativeTransport):
            return NotImplemented
        same = (self._url, self._sizes) == (other._url, other._sizes)
        return same and (not self._is_in_memory or self._open() is other._open())

    def __hash__(self) -> int:
        return hash((type(self), self._url))

    def __getstate__(self) -> dict[str, Any]:
        if self._is_in_memory:
            raise TypeError(f"{self._url!r} exists in this process alone: it cannot be pickled")
        return {"_url": self._url, "_sizes": self._sizes, "_is_copy": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def _is_in_memory(self) -> bool:
        return self._url.startswith("memory:")

    def _open(self) -> _native.Engine:
        engine = self._engine
        if engine is not None and self._pid == os.getpid():
            return engine
        if self._is_in_memory:
            if engine is not None:
                raise TransportError(f"{self._url!r} stayed in the process that was forked")
            self._engine = _native.Engine(self._url, **self._sizes)
            return self._engine
        sizes = {**self._sizes, "options": tuple(sorted(self._sizes["options"].items()))}
        key = (self._url, tuple(sizes.items()))
        with _lock:
            engine = _engines.get(key)
            if engine is None:
                engine = _engines[key] = _native.Engine(self._url, **self._sizes)
            if self._is_copy and engine not in _kept:
                _kept.append(engine)
        self._pid, self._engine = os.getpid(), engine
        return engine

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
    ) -> Response:
        """As :meth:`Transport.request`."""
        given = list(headers.items()) if headers else []
        if body is not None:
            # So that no more memory is taken for it than it needs.
            given.append(("content-length", str(memoryview(body).nbytes)))
        try:
            status, names, content = await self._open().request(method, target, given, body)
        except ConnectionError as error:
            raise TransportError(f"{error} ({method} {target})") from error
        return Response(status, _mapping(names), memoryview(content))

    async def events(
        self, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        """As :meth:`Transport.events`."""
        wanted = {"accept": "text/event-stream", **(headers or {})}
        answer = await self._open().stream("GET", target, list(wanted.items()), None)
        status, names, stream = answer[0], _mapping(answer[1]), answer[2]
        try:
            if status != 200:
                body = b"".join([bytes(piece) async for piece in _pieces(stream)])
                raise from_response("GET", target, status, names, body)
            kind = names.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise StreamError(f"no stream of events but {kind!r} (GET {target})")
            async for event in parse_events(_lines(stream)):
                yield event
        except ConnectionError as error:
            if isinstance(error, TransportError):
                raise
            raise TransportError(f"{error} (GET {target})") from error

    async def view(
        self, repository: str, commit_id: str, *, inner_chunks: bool = False
    ) -> NativeView:
        """One commit as a Zarr store, read without requests.

        ``inner_chunks`` shows the inner chunks of sharded arrays as chunks of arrays without shards.
        """
        what = _What(self, repository, commit_id, inner_chunks)
        return NativeView(what, await what.view())

    async def close(self) -> None:
        """Signs what was committed, if this machine has the keys, and lets go of the store; the
        transport can be used again."""
        engine = self._engine
        if engine is None or self._pid != os.getpid():
            return
        for warning in await engine.sign():
            warnings.warn(warning, stacklevel=2)
        if not self._is_in_memory:
            self._engine = None


@dataclass(frozen=True, slots=True)
class _What:
    """What a view is of."""

    transport: NativeTransport
    repository: str
    commit_id: str
    inner_chunks: bool

    async def view(self) -> _native.View:
        engine = self.transport._open()
        return await engine.view(self.repository, self.commit_id, inner_chunks=self.inner_chunks)


class NativeView:
    """One commit as a Zarr store. In a forked child it is opened again when it is used."""

    def __init__(self, what: _What, view: _native.View) -> None:
        self._what = what
        self._use(view)
        _views.add(self)

    def _use(self, view: _native.View) -> None:
        # Without a call in between: reading from memory takes hardly longer than one.
        self.get: Callable[..., Any] = view.get
        self.get_sync: Callable[..., Any] = view.get_sync

    def _reset(self) -> None:
        self.get, self.get_sync = self._get_anew, self._get_sync_anew

    async def _get_anew(self, key: str, start: int | None = None, stop: int | None = None) -> Any:
        self._use(await self._what.view())
        found = self.get(key, start, stop)
        return await found if hasattr(type(found), "__await__") else found

    def _get_sync_anew(self, key: str, start: int | None = None, stop: int | None = None) -> Any:
        self._use(run(self._what.view()))
        return self.get_sync(key, start, stop)


def _mapping(names: list[tuple[str, str]]) -> Mapping[str, str]:
    return MappingProxyType(dict(names))


async def _pieces(stream: _native.Stream) -> AsyncIterator[memoryview]:
    while (piece := await stream.next()) is not None:
        yield memoryview(piece)


async def _lines(stream: _native.Stream) -> AsyncIterator[bytes]:
    """The lines of a stream, with their ends."""
    begun = b""
    async for piece in _pieces(stream):
        *lines, begun = (begun + bytes(piece)).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if begun:
        yield begun
