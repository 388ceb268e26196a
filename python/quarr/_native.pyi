"""The service inside a Python process."""

from collections.abc import Awaitable, Mapping, Sequence
from os import PathLike
from typing import final

from typing_extensions import Buffer

__all__ = ["Body", "Engine", "Stream", "View"]

@final
class Body(Buffer):
    """Read-only bytes with the buffer protocol. They live as long as a view of them."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

@final
class Engine:
    """A service over the store at ``url``, in this process.

    Used in a process forked from the one that opened it, it raises ``RuntimeError``.
    """

    def __new__(
        cls,
        url: str,
        *,
        options: Mapping[str, str] | None = None,
        memory_limit_bytes: int | None = None,
        threads: int | None = None,
        cache_dir: str | PathLike[str] | None = None,
        cache_disk_bytes: int | None = None,
    ) -> Engine:
        """Opens the store; nothing is read yet. ``ValueError`` if the URL or a setting is wrong."""

    def request(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = ...,
        body: Buffer | None = None,
    ) -> Awaitable[tuple[int, list[tuple[str, str]], Body]]:
        """Status, headers and body of the answer, whatever its status.

        ``ConnectionError`` if the answer breaks off midway.
        """

    def stream(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] = ...,
        body: Buffer | None = None,
    ) -> Awaitable[tuple[int, list[tuple[str, str]], Stream]]:
        """The same, done when the body begins."""

    def view(
        self, repository: str, commit_id: str, *, inner_chunks: bool = False
    ) -> Awaitable[View]:
        """One commit as a Zarr store. ``quarr.NotFoundError`` if there is none.

        ``inner_chunks`` shows the inner chunks of sharded arrays as chunks of arrays without shards.
        """

    def sign(self) -> Awaitable[list[str]]:
        """Signs what this process appended to logs; gives what went wrong, in words."""

@final
class Stream:
    """The body of an answer that is still being made."""

    def next(self) -> Awaitable[Body | None]:
        """The next bytes; ``None`` at the end. ``ConnectionError`` if it breaks off."""

@final
class View:
    """One commit as a Zarr store."""

    def get(
        self, key: str, start: int | None = None, stop: int | None = None
    ) -> Body | None | Awaitable[Body | None]:
        """The object, or its bytes from ``start`` to before ``stop``; ``None`` if there is none.

        ``start`` below 0 counts from the end, and then ``stop`` is ``None``. A range is cut at the
        end of the object. Answers at once where it can without waiting, else gives a future of the
        running event loop. Raises as the client does for an answer (``quarr.DamageError``), and
        never takes what cannot be read for absent.
        """

    def get_sync(self, key: str, start: int | None = None, stop: int | None = None) -> Body | None:
        """The same, which waits. Not from a coroutine."""
