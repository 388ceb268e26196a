"""One event loop in a thread of its own, on which the synchronous client runs the asynchronous one.

It works from any thread, also where another loop is running already (notebooks). A forked child
makes its own: threads do not survive a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def _forget() -> None:
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started when it is first used."""
    global _loop, _thread
    with _lock:
        if _loop is None or _thread is None or not _thread.is_alive():
            loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=loop.run_forever, name="quarr", daemon=True)
            _thread.start()
            _loop = loop
        return _loop


async def _result(awaitable: Awaitable[T]) -> T:
    return await awaitable


def run(awaitable: Awaitable[T]) -> T:
    """Waits for a result. An interrupt cancels what is waited for."""
    loop = background_loop()
    if threading.current_thread() is _thread:
        if isinstance(awaitable, Coroutine):
            awaitable.close()
        raise RuntimeError("the synchronous client cannot be used on its own event loop")
    future = asyncio.run_coroutine_threadsafe(_result(awaitable), loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


_END: Any = object()


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """The items one by one; leaving the loop early closes their source."""

    async def following() -> T:
        return await anext(items, _END)

    try:
        while (item := run(following())) is not _END:
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            run(close())
