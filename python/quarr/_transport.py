"""How requests reach Quarr: over HTTP, or in the process itself.

A :class:`Transport` sends one request and gives back one answer of any status; what statuses mean
is decided above it. Transports can be pickled (they keep how to connect and connect again when they
are used), used from any thread and event loop, and survive a fork.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import ssl
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import aiohttp
from yarl import URL

from .errors import TransportError, from_response

__all__ = ["Event", "HttpTransport", "Response", "SupportsView", "Transport", "View"]

ATTEMPTS = 6
"""Most times a request is sent: with the waits below, about 10 s of a service that is away."""
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
CONNECTIONS = 64
"""Most connections of one event loop; more requests than these wait."""
PIECE_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 24
"""Longest line of a stream of events."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of any status."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: memoryview | bytes
    """Read-only, not copied."""


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    event: str
    data: str
    id: str | None = field(default=None)


class StreamError(TransportError):
    """The answer is no stream of events."""


class Transport(Protocol):
    """Sends requests. See the module for what implementers owe callers."""

    @property
    def url(self) -> str:
        """What a user passed."""

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
    ) -> Response:
        """Sends a request; ``target`` is the encoded path with its query, ``/v1/…``.

        Raises :class:`~quarr.TransportError` if there is no answer.
        """

    def events(
        self, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        """Server-sent events, until the stream ends.

        Raises :class:`StreamError` if the answer is something else.
        """

    async def close(self) -> None:
        """Closes what is open; the transport can be used again."""


class View(Protocol):
    """One pinned commit as a Zarr store, read without HTTP."""

    def get(self, key: str, start: int | None, stop: int | None) -> Any:
        """The object, or bytes ``start`` to ``stop`` of it: a buffer, ``None`` if there is none, or
        an awaitable of these. ``start`` below 0 counts from the end."""

    def get_sync(self, key: str, start: int | None, stop: int | None) -> Any:
        """The same without an awaitable: it waits. Not from a coroutine."""


@runtime_checkable
class SupportsView(Protocol):
    """A transport with a fast path for reading Zarr keys."""

    def view(
        self, repository: str, commit_id: str, *, inner_chunks: bool = False
    ) -> Awaitable[View]:
        """The view of a commit; see :class:`quarr.Store` for ``inner_chunks``."""


def may_repeat(method: str, target: str, headers: Mapping[str, str]) -> bool:
    """Whether a request has the same effect when it is sent twice."""
    if method in ("GET", "HEAD", "PUT", "DELETE") or "idempotency-key" in headers:
        return True
    # Points and vectors come with POST because they do not fit into a URL.
    return method == "POST" and ("/points/" in target or "/nearest/" in target)


class HttpTransport:
    """Requests over HTTP.

    Requests that are safe to repeat are sent again when the connection fails or the service is busy
    (503, 429), after the time the service asks for; all are when no connection could be made.

    Parameters
    ----------
    url : where the service is: ``http://127.0.0.1:8686``, also with a path in front of ``/v1``.
    token : an API key or a JWT, sent as ``Authorization: Bearer``; that in the environment variable
        ``QUARR_TOKEN`` if left out, none if empty.
    timeout_s : longest wait for the next bytes of an answer, in seconds.
    headers : sent with every request.
    compress : whether computed answers may come compressed, which saves bytes and costs time.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 300.0,
        headers: Mapping[str, str] | None = None,
        compress: bool = False,
    ) -> None:
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url!r} is no URL of a service: http://HOST:PORT")
        self._url = url.rstrip("/")
        if token is None:
            token = os.environ.get("QUARR_TOKEN")
        self._options: dict[str, Any] = {
            "token": token or None,
            "timeout_s": timeout_s,
            "headers": dict(headers or {}),
            "compress": compress,
        }
        self._start()

    def _start(self) -> None:
        self._sessions = _Sessions()
        # Whatever becomes of the transport, its connections are closed.
        weakref.finalize(self, self._sessions.close).atexit = False

    @property
    def url(self) -> str:
        """What a user passed."""
        return self._url

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request, credentials among them."""
        headers = dict(self._options["headers"])
        if self._options["token"] is not None:
            headers["Authorization"] = f"Bearer {self._options['token']}"
        return headers

    def __repr__(self) -> str:
        return f"HttpTransport({self._url!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HttpTransport):
            return NotImplemented
        return (self._url, self._options) == (other._url, other._options)

    def __hash__(self) -> int:
        return hash((type(self), self._url))

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _session(self) -> aiohttp.ClientSession:
        if self._sessions.pid != os.getpid():
            self._start()
        return self._sessions.of_this_loop(self._new_session)

    def _new_session(self) -> aiohttp.ClientSession:
        options = self._options
        headers = {
            "Accept-Encoding": "gzip" if options["compress"] else "identity",
            "User-Agent": "quarr-python",
            **self.headers,
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(30.0, options["timeout_s"]), sock_read=options["timeout_s"]
        )
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            headers=headers,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 20,
        )

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
    ) -> Response:
        """As :meth:`Transport.request`."""
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        attempts = ATTEMPTS if may_repeat(method, target, headers) else 1
        was_sent = False
        for attempt in range(ATTEMPTS):
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                response = await self._send(method, target, headers, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                # What was never sent has no effect that could come twice.
                is_unsent = isinstance(
                    error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
                )
                was_sent |= not is_unsent
                is_last = attempt + 1 >= (ATTEMPTS if is_unsent else attempts)
                if is_last or isinstance(error, (aiohttp.InvalidURL, ssl.SSLError)):
                    raise self._failure(method, target, error) from error
            else:
                if response.status not in (429, 503) or attempt + 1 >= attempts:
                    if method == "DELETE" and response.status == 404 and was_sent:
                        # An earlier one, whose answer was lost, has deleted it.
                        return Response(204, response.headers, b"")
                    return response
                was_sent = True
                asked = response.headers.get("retry-after", "")
                if asked.isdigit():
                    wait = max(wait, min(float(asked), 60.0))
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, method: str, target: str, error: Exception) -> TransportError:
        reason = str(error) or type(error).__name__
        return TransportError(f"{reason} ({method} {self._url}{target})")

    def _locate(self, target: str) -> URL:
        return URL(self._url + target, encoded=True)

    async def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | memoryview | None,
    ) -> Response:
        data: Any = body
        if body is not None and len(body) > PIECE_BYTES:
            # In pieces, so that other requests of the loop get their turn.
            headers = {**headers, "content-length": str(len(body))}
            data = _pieces(memoryview(body))
        async with self._session().request(
            method, self._locate(target), headers=headers, data=data, allow_redirects=False
        ) as answer:
            content = await answer.read()
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status, MappingProxyType(names), content)

    async def events(
        self, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event]:
        """As :meth:`Transport.events`."""
        wanted = {"accept": "text/event-stream", **(headers or {})}
        try:
            async with self._session().get(
                self._locate(target), headers=wanted, allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    names = {name.lower(): value for name, value in answer.headers.items()}
                    body = await answer.read()
                    raise from_response("GET", target, answer.status, names, body)
                kind = answer.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    raise StreamError(f"no stream of events but {kind!r} (GET {target})")
                async for event in parse_events(answer.content):
                    yield event
        except TransportError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failure("GET", target, error) from error

    async def close(self) -> None:
        """As :meth:`Transport.close`."""
        session = self._sessions.take_of_this_loop()
        if session is not None:
            await session.close()
        self._sessions.close()


class _Sessions:
    """The sessions of a transport, one for each event loop: none works on another's."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        _all_sessions.add(self)
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    def of_this_loop(self, make: Callable[[], aiohttp.ClientSession]) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._by_loop.get(loop)
            if known is not None and not known.closed:
                return known
            for other in [other for other in self._by_loop if other.is_closed()]:
                _discard(other, self._by_loop.pop(other))
            self._by_loop[loop] = make()
            return self._by_loop[loop]

    def take_of_this_loop(self) -> aiohttp.ClientSession | None:
        with self._lock:
            return self._by_loop.pop(asyncio.get_running_loop(), None)

    def close(self) -> None:
        """Closes the sessions, from whatever thread."""
        if self.pid != os.getpid():
            # The sockets are those of the process that was forked, and stay as they are.
            _of_parents.append(self)
            return
        while self._by_loop:
            _discard(*self._by_loop.popitem())


    def close_at_exit(self) -> None:
        """As :meth:`close`, but waits a little: nobody is left to do the rest later."""
        if self.pid == os.getpid():
            for loop in [loop for loop in self._by_loop if loop.is_running()]:
                closing = asyncio.run_coroutine_threadsafe(self._by_loop.pop(loop).close(), loop)
                with contextlib.suppress(Exception):
                    closing.result(LONGEST_CLOSE_S)
        self.close()


LONGEST_CLOSE_S = 0.5
_of_parents: list[_Sessions] = []
_all_sessions: weakref.WeakSet[_Sessions] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sessions in list(_all_sessions):
        sessions.close_at_exit()


def _discard(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    """Closes a session of a loop that is not this one."""
    connector = session.connector
    session.detach()
    if connector is None:
        return

    def close() -> None:
        with contextlib.suppress(StopIteration, RuntimeError):
            connector.close().__await__().send(None)

    try:
        if loop.is_running():
            loop.call_soon_threadsafe(close)
            return
    except RuntimeError:
        # It was closed meanwhile.
        pass
    close()


async def _pieces(body: memoryview) -> AsyncIterator[memoryview]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


async def parse_events(lines: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """The events in a stream of lines."""
    name, own_id = "message", None
    data: list[str] = []
    buffered = 0
    async for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield Event(name, "\n".join(data), own_id)
            name, data, buffered = "message", [], 0
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            buffered += len(value)
            if buffered > MAX_LINE_BYTES:
                raise TransportError("an event that is too long")
            data.append(value)
        elif key == "id":
            own_id = value


def open_transport(source: str | os.PathLike[str], **options: Any) -> Transport:
    """The transport for a URL: HTTP for ``http(s)://``, else a store in this process."""
    text = os.fspath(source)
    if text.startswith(("http://", "https://")):
        return HttpTransport(text, **options)
    try:
        from ._native_transport import NativeTransport
    except ImportError as error:
        message = f"{text!r} is no http(s) URL, and this build of quarr cannot open stores itself"
        raise ImportError(message) from error
    transport: Transport = NativeTransport(text, **options)
    return transport
