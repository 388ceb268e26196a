"""The asynchronous client. :mod:`quarr.client` is the same without ``await``.

    async with quarr.AsyncClient("http://127.0.0.1:8686") as client:
        snapshot = await client.repo("climate").at("main")
        values = await snapshot.read("t2m", np.s_[0, :, 10:20])

Every method is a request or a few. What fails is an exception of :mod:`quarr.errors`: what is not
there raises :class:`~quarr.NotFoundError`, a service that cannot be reached
:class:`~quarr.TransportError`. Arrays are NumPy arrays over the bytes that were received:
read-only, in C order, little-endian.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from ._transport import Response, StreamError, Transport, open_transport
from ._wire import (
    Labels,
    Selection,
    body_of,
    check_named,
    fill_value_json,
    json_values,
    key_path,
    label_parameters,
    listed,
    point_labels,
    query,
    segment,
    slice_text,
    tensor,
    zarr_data_type,
)
from .errors import (
    Error,
    IntegrityError,
    JobError,
    NotFoundError,
    ServiceError,
    TransportError,
    from_response,
)
from .models import (
    Commit,
    Committed,
    Diff,
    JobInfo,
    Limits,
    LogEntry,
    Move,
    Ref,
    RepositoryInfo,
    TransactionInfo,
)

if TYPE_CHECKING:
    from xarray import Dataset

    from .proof import Proven
    from .store import Store
    from .xarray import RemoteArray

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncRepository",
    "AsyncSnapshot",
    "AsyncTransaction",
    "Proof",
    "ReduceOptions",
]

T = TypeVar("T")
Array: TypeAlias = "npt.NDArray[Any]"
OnConflict: TypeAlias = "str | Mapping[str, str] | None"
Isolation: TypeAlias = Literal["snapshot", "serializable"]
Decode: TypeAlias = Literal["cf", "mask", "raw"]
Format: TypeAlias = Literal["octet-stream", "npy", "json", "arrow", "csv", "netcdf", "png"]
Names: TypeAlias = "str | int | Sequence[str | int] | None"

POLL_S = 1.0
"""How often the log, or a job without events, is looked at."""


class ReduceOptions(TypedDict, total=False):
    """Parameters of reductions; ``docs/reading.md`` has more about each."""

    slice: Selection
    """What to reduce; everything if left out."""
    sel: Labels
    """The same by labels of coordinate variables."""
    method: Literal["nearest", "pad", "backfill"]
    """How the labels in ``sel`` are looked up."""
    where: str
    """What cells must satisfy to count, like ``t2m>=300 and t2m<310``."""
    decode: Decode
    strict: bool
    """Refuse slices that reach past the array instead of cutting them off."""
    expected_shape: Sequence[int]
    """The shape that the answer must have."""
    over: Names
    """Dimensions to reduce, by name or number; all if left out."""
    keepdims: bool
    skipna: bool
    ddof: int
    min_count: int
    dtype: Literal["float64"]
    """Answer in the type of the accumulator."""
    q: float | Sequence[float]
    """Quantiles, from 0 to 1."""
    interpolation: str
    """How quantiles between two values are found, as ``method`` of NumPy's ``quantile``."""
    approximate: bool
    """One pass less for medians and quantiles; the header ``Error-Bound`` of the answer says how
    far it may be off."""
    bins: int | Sequence[float]
    """Number of bins of a histogram, or their edges."""
    range: tuple[float, float]
    """Ends of a histogram's bins."""
    weights: str
    """``area``, or the name or path of an array."""
    groupby: str
    """Groups along a dimension: ``time.month``, ``time.season``, ``level``."""
    coarsen: Mapping[str, int]
    """Reduce windows of so many cells, by dimension."""
    boundary: Literal["exact", "trim", "pad"]


def _common(
    slice: Selection,
    sel: Labels | None,
    method: str | None,
    decode: str,
    where: str | None,
    strict: bool,
    expected_shape: Sequence[int] | None,
) -> dict[str, Any]:
    shape = None if expected_shape is None else ",".join(map(str, expected_shape))
    return {
        "slice": slice_text(slice),
        **label_parameters(sel, method),
        "decode": None if decode == "cf" else decode,
        "where": where,
        "strict": strict or None,
        "expected_shape": shape,
    }


def _reduce_parameters(reduce: str | Sequence[str] | None, given: ReduceOptions) -> dict[str, Any]:
    unknown = set(given) - set(ReduceOptions.__annotations__)
    if unknown:
        raise TypeError(f"no parameter of a reduction: {', '.join(sorted(unknown))}")
    parameters = _common(
        given.get("slice"),
        given.get("sel"),
        given.get("method"),
        given.get("decode", "cf"),
        given.get("where"),
        given.get("strict", False),
        given.get("expected_shape"),
    )
    for name in ("keepdims", "skipna", "ddof", "min_count", "dtype", "approximate", "weights",
                 "groupby", "boundary"):  # fmt: skip
        parameters[name] = given.get(name)
    parameters["reduce"] = listed(reduce)
    parameters["over"] = listed(given.get("over"))
    parameters["q"] = listed(given.get("q"))
    parameters["method"] = given.get("interpolation")
    parameters["bins"] = listed(given.get("bins"))
    parameters["range"] = listed(given.get("range"))
    for name, length in (given.get("coarsen") or {}).items():
        parameters[f"coarsen.{name}"] = length
    return parameters


class _Caller:
    """Requests whose failures are exceptions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._transport

    async def _call(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
    ) -> Response:
        response = await self._transport.request(method, target, headers=headers, body=body)
        if response.status >= 300:
            body = bytes(response.body)
            raise from_response(method, target, response.status, response.headers, body)
        return response

    async def _json(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        headers = dict(headers or {})
        if sent is not None:
            headers["content-type"] = "application/json"
        response = await self._call(method, target, headers=headers, body=sent)
        if not response.body:
            return None
        try:
            return json.loads(bytes(response.body))
        except ValueError as error:
            raise ServiceError(f"the answer to {method} {target} is no JSON: {error}") from error

    async def _list(self, target: str, member: str) -> list[Any]:
        """The entries of all pages of a list."""
        page = await self._json("GET", target)
        found: list[Any] = page[member]
        while (after := page.get("next")) is not None:
            page = await self._json("GET", target + query({"after": after}))
            found.extend(page[member])
        return found

    async def _values(
        self,
        target: str,
        parameters: Mapping[str, Any],
        writable: bool,
        body: Any = None,
    ) -> Array:
        """An array; texts and bytes of any length come as JSON."""
        sent = None if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        headers = {} if body is None else {"content-type": "application/json"}
        exact = target + query({**parameters, "f": "octet-stream"})
        response = await self._transport.request(method, exact, headers=headers, body=sent)
        if response.status == 406:
            answer = await self._json(method, target + query({**parameters, "f": "json"}), body)
            values = json_values(answer)
            return values.copy() if writable else values
        if response.status >= 300:
            content = bytes(response.body)
            raise from_response(method, exact, response.status, response.headers, content)
        return tensor(response, writable=writable)


class AsyncClient(_Caller):
    """A service, or a store that is opened in this process.

    Parameters
    ----------
    source : URL of a service (``http://…``), URL or path of a store, or a transport.
    options : of the transport; see :func:`quarr.connect` and :func:`quarr.open`.
    """

    def __init__(self, source: str | os.PathLike[str] | Transport, **options: Any) -> None:
        if isinstance(source, str | os.PathLike):
            super().__init__(open_transport(source, **options))
        else:
            super().__init__(source)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client can be used again."""
        await self._transport.close()

    async def live(self) -> bool:
        """Whether the service answers."""
        return (await self._transport.request("GET", "/livez")).status == 200

    async def ready(self) -> bool:
        """Whether the service reaches its store."""
        return (await self._transport.request("GET", "/readyz")).status == 200

    async def metrics(self) -> str:
        """Counts of the read path, in Prometheus' text format."""
        return bytes((await self._call("GET", "/metrics")).body).decode()

    async def limits(self) -> Limits:
        """Bounds on what one request may ask for."""
        return Limits.of(await self._json("GET", "/v1/limits"))

    async def status(self) -> dict[str, Any]:
        """What the service is doing: requests, jobs, memory, GPUs, caches, the store."""
        found: dict[str, Any] = await self._json("GET", "/v1/status")
        return found

    async def whoami(self) -> dict[str, Any]:
        """Who asks: ``id``, ``name``, ``grants``, and whether the service asks anyone."""
        found: dict[str, Any] = await self._json("GET", "/v1/auth/me")
        return found

    async def keys(self) -> list[dict[str, Any]]:
        """The API keys, the oldest first; no tokens."""
        return await self._list("/v1/auth/keys", "keys")

    async def key(self, key: str) -> dict[str, Any]:
        """An API key, by its id or name."""
        found: dict[str, Any] = await self._json("GET", f"/v1/auth/keys/{segment(key)}")
        return found

    async def create_key(
        self, name: str, grants: Sequence[Mapping[str, str]], *, expires_in: int | None = None
    ) -> dict[str, Any]:
        """Makes an API key; its ``token`` is shown here and never again.

        ``grants`` have a ``role`` (``reader``, ``writer``, ``admin``), and may have a ``repository`` and
        in it a ``prefix``. After ``expires_in`` seconds the key works no more.
        """
        body: dict[str, Any] = {"name": name, "grants": [dict(grant) for grant in grants]}
        if expires_in is not None:
            body["expires_in"] = expires_in
        made: dict[str, Any] = await self._json("POST", "/v1/auth/keys", body)
        return made

    async def rotate_key(self, key: str, *, overlap: int | None = None) -> dict[str, Any]:
        """Gives an API key a new ``token``; the one before works for ``overlap`` seconds, a day if left out."""
        body = {} if overlap is None else {"overlap": overlap}
        made: dict[str, Any] = await self._json("POST", f"/v1/auth/keys/{segment(key)}/rotate", body)
        return made

    async def revoke_key(self, key: str) -> None:
        """Revokes an API key: within seconds it works on no node any more, and never again."""
        await self._call("DELETE", f"/v1/auth/keys/{segment(key)}")

    async def repositories(self) -> list[RepositoryInfo]:
        """All repositories."""
        found = await self._list("/v1/repos", "repositories")
        return [RepositoryInfo.of(one) for one in found]

    def repo(self, name: str) -> AsyncRepository:
        """A repository; whether there is one shows when it is used."""
        return AsyncRepository(self._transport, name)

    async def create_repo(self, name: str, *, exist_ok: bool = False) -> AsyncRepository:
        """Creates a repository with an empty branch ``main``.

        Raises :class:`~quarr.ConflictError` if there is one, unless ``exist_ok``.
        """
        target = f"/v1/repos/{segment(name)}"
        if exist_ok:
            response = await self._transport.request("GET", target)
            if response.status == 200:
                return self.repo(name)
        try:
            await self._call("PUT", target, headers=_write_headers())
        except Error as error:
            if not (exist_ok and error.status == 409):
                raise
        return self.repo(name)

    async def delete_repo(self, name: str) -> None:
        """Deletes a repository and everything in it."""
        await self._call("DELETE", f"/v1/repos/{segment(name)}", headers=_write_headers())

    async def join(self, transaction: str) -> AsyncTransaction:
        """A transaction that was opened elsewhere, by its id. Its context manager does not commit:
        whoever opened it does."""
        return await _join(self._transport, transaction)

    async def jobs(self) -> list[JobInfo]:
        """All jobs, the newest first."""
        return [JobInfo.of(one) for one in await self._list("/v1/jobs", "jobs")]

    def job(self, id: str) -> AsyncJob:
        """A job; whether there is one shows when it is used."""
        return AsyncJob(self._transport, id)

    async def start_job(
        self,
        kind: str,
        *,
        repository: str,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> AsyncJob:
        """Begins a job.

        Parameters
        ----------
        kind : ``verify``, which takes ``reference``, ``since`` and ``deep``, or ``import``, for which
            there is :meth:`import_`.
        repository : what it works on.
        idempotency_key : a second request with the same key gets the first one's job.
        parameters : of this kind of job.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        spec = {"kind": kind, "repository": repository, **given}
        key = idempotency_key or uuid.uuid4().hex
        answer = await self._json("POST", "/v1/jobs", spec, {"idempotency-key": key})
        return AsyncJob(self._transport, answer["id"])

    async def import_(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        repository: str,
        *,
        group: str | None = None,
        branch: str | None = None,
        message: str | None = None,
        author: str | None = None,
        access: Literal["series", "maps", "both", "ml"] | None = None,
        chunks: Mapping[str, int] | None = None,
        shards: Mapping[str, int] | None = None,
        skip: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> AsyncJob:
        """Begins to import files as one commit; :meth:`AsyncJob.wait` waits for it.

        Parameters
        ----------
        sources : what the service reads: ``upload:…`` as :meth:`upload` gives it, or a path or URL
            that it may read.
        repository : made if there is none.
        group : the group to import into; the root if left out.
        branch : the branch to commit to; ``main`` if left out.
        message : the commit's message.
        author : who commits.
        access : how the data will be read, which decides the shapes of chunks.
        chunks : lengths of inner chunks by dimension.
        shards : lengths of shards by dimension.
        skip : variables to leave out, and attributes as ``variable@attribute``.
        idempotency_key : a second request with the same key gets the first one's job.
        parameters : what else imports take, as ``docs/importing.md`` has it.
        """
        several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
        return await self.start_job(
            "import",
            repository=repository,
            idempotency_key=idempotency_key,
            sources=[os.fspath(source) for source in several],
            group=group,
            branch=branch,
            message=message,
            author=author,
            chunks=dict(chunks) if chunks else None,
            shards=dict(shards) if shards else None,
            skip=list(skip) if skip else None,
            **{"for": access},
            **parameters,
        )

    async def upload(self, path: str | os.PathLike[str], *, name: str | None = None) -> str:
        """Sends a local file to be imported; gives the source to import it by. It is read into memory:
        ``quarr import --server`` sends files of any size.

        Parameters
        ----------
        path : the file.
        name : what to call it, if not by its own name.
        """
        body = await asyncio.to_thread(Path(path).read_bytes)
        named = {"name": name or Path(path).name, "sha256": hashlib.sha256(body).hexdigest()}
        headers = {"content-type": "application/octet-stream"}
        target = "/v1/uploads" + query(named)
        response = await self._call("POST", target, headers=headers, body=body)
        return str(json.loads(bytes(response.body))["source"])

    async def delete_upload(self, source: str) -> None:
        """Deletes a file that was sent and that no job has imported."""
        await self._call("DELETE", f"/v1/uploads/{segment(source.removeprefix('upload:'))}")


class AsyncJob(_Caller):
    """Long work of the service that goes on without the client."""

    def __init__(self, transport: Transport, id: str) -> None:
        super().__init__(transport)
        self._id = id
        self._target = f"/v1/jobs/{segment(id)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r})"

    @property
    def id(self) -> str:
        """What it is called in URLs."""
        return self._id

    async def info(self) -> JobInfo:
        """How it is going."""
        return JobInfo.of(await self._json("GET", self._target))

    async def cancel(self) -> JobInfo:
        """Cancels it; one that has ended stays as it is."""
        return JobInfo.of(await self._json("DELETE", self._target))

    async def resume(self) -> JobInfo:
        """Goes on with it, if no process works on it, without waiting for a service to find it."""
        return JobInfo.of(await self._json("POST", self._target + "/resume"))

    async def events(self) -> AsyncIterator[JobInfo]:
        """How it is going, whenever it got on, until it has ended."""
        last: JobInfo | None = None
        while last is None or not last.has_ended:
            try:
                async for event in self._transport.events(self._target + "/events"):
                    last = JobInfo.of(json.loads(event.data))
                    yield last
            except StreamError:
                raise
            except TransportError:
                # The job goes on, here or in another server; if none answers, this raises.
                info = await self.info()
                if info != last:
                    last = info
                    yield info
                await asyncio.sleep(POLL_S)

    async def wait(
        self,
        *,
        progress: Callable[[JobInfo], object] | None = None,
        timeout_s: float | None = None,
    ) -> JobInfo:
        """Waits until it has ended.

        Parameters
        ----------
        progress : called whenever it got on.
        timeout_s : longest wait, in seconds.

        Raises
        ------
        JobError : it failed or was cancelled.
        TimeoutError : it has not ended in time; it goes on.
        """
        async with asyncio.timeout(timeout_s):
            async for info in self.events():
                if progress is not None:
                    progress(info)
        if info.state == "done":
            return info
        raise JobError(f"job {self._id} {info.state}: {info.error or 'no reason given'}")


class AsyncRepository(_Caller):
    """A repository: branches, tags, commits and their log."""

    def __init__(self, transport: Transport, name: str) -> None:
        super().__init__(transport)
        self._name = name
        self._target = f"/v1/repos/{segment(name)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r} at {self._transport.url!r})"

    def __dask_tokenize__(self) -> str:
        # Its branches move: what was read of one must not be taken for what is read later.
        return uuid.uuid4().hex

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    async def info(self) -> RepositoryInfo:
        """Its id, and the keys its log is signed with."""
        return RepositoryInfo.of(await self._json("GET", self._target))

    async def branches(self) -> list[Ref]:
        """The branches, sorted by name."""
        return [Ref.of(one) for one in await self._list(self._target + "/branches", "refs")]

    async def tags(self) -> list[Ref]:
        """The tags, sorted by name."""
        return [Ref.of(one) for one in await self._list(self._target + "/tags", "refs")]

    async def create_branch(self, name: str, *, from_ref: str = "main") -> Ref:
        """Creates a branch at a branch, tag, commit id or prefix, ``x~n`` or ``x@time``.

        Raises :class:`~quarr.ConflictError` if the name is taken.
        """
        target = f"{self._target}/branches/{segment(name)}"
        return Ref.of(await self._json("PUT", target, {"from": from_ref}, _write_headers()))

    async def delete_branch(self, name: str) -> None:
        """Deletes a branch; its commits stay."""
        await self._call(
            "DELETE", f"{self._target}/branches/{segment(name)}", headers=_write_headers()
        )

    async def create_tag(self, name: str, *, from_ref: str = "main") -> Ref:
        """Creates a tag, which never moves.

        Raises :class:`~quarr.ConflictError` if the name is taken.
        """
        target = f"{self._target}/tags/{segment(name)}"
        return Ref.of(await self._json("PUT", target, {"from": from_ref}, _write_headers()))

    async def delete_tag(self, name: str) -> None:
        """Deletes a tag; its commit stays."""
        await self._call("DELETE", f"{self._target}/tags/{segment(name)}", headers=_write_headers())

    async def reset(self, branch: str, to: str, *, expected: str | None = None) -> Move:
        """Moves a branch to any commit.

        Raises :class:`~quarr.PreconditionError` if the branch is not at the commit ``expected``.
        """
        target = f"{self._target}/branches/{segment(branch)}/reset"
        return Move.of(await self._json("POST", target, {"to": to}, _write_headers(expected)))

    async def revert(
        self,
        commit: str,
        *,
        branch: str = "main",
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Undoes the changes of one commit on a branch, as a commit.

        Raises as :meth:`merge`.
        """
        target = f"{self._target}/branches/{segment(branch)}/revert"
        body = _commit_body(message, author, properties, on_conflict, commit=commit)
        return await self._commit(target, body, expected)

    async def cherry_pick(
        self,
        commit: str,
        *,
        branch: str = "main",
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Makes the changes of one commit on a branch, as a commit.

        Raises as :meth:`merge`.
        """
        target = f"{self._target}/branches/{segment(branch)}/cherry-pick"
        body = _commit_body(message, author, properties, on_conflict, commit=commit)
        return await self._commit(target, body, expected)

    async def merge(
        self,
        from_: str,
        into: str = "main",
        *,
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Merges a commit into a branch, as a commit with two parents.

        Parameters
        ----------
        from_ : a branch, tag, commit id or prefix, ``x~n`` or ``x@time``.
        into : the branch that gets the changes.
        message, author, properties : kept with the commit.
        on_conflict : ``fail`` (the default), ``ours`` (what the branch has) or ``theirs``, or one
            of these for each path.
        expected : the commit that the branch has to be at.

        Raises
        ------
        ConflictError : both sides changed the same thing; ``conflicts`` lists what.
        PreconditionError : the branch is elsewhere.
        """
        body = _commit_body(message, author, properties, on_conflict, **{"from": from_}, into=into)
        return await self._commit(self._target + "/merge", body, expected)

    async def _commit(self, target: str, body: Any, expected: str | None) -> Committed:
        return Committed.of(await self._json("POST", target, body, _write_headers(expected)))

    async def log(self, *, after: int | None = None, limit: int | None = None) -> list[LogEntry]:
        """Log entries, oldest first: those after number ``after``, at most ``limit``, else all."""
        entries: list[LogEntry] = []
        while limit is None or len(entries) < limit:
            left = None if limit is None else limit - len(entries)
            target = f"{self._target}/log{query({'after': after, 'limit': left})}"
            page = await self._json("GET", target)
            entries.extend(LogEntry.of(entry) for entry in page["entries"])
            after = page.get("next")
            if after is None:
                break
        return entries

    async def log_entry(self, sequence: int) -> bytes:
        """A log entry as it is stored: canonical JSON with its hash in ``self``."""
        return bytes((await self._call("GET", f"{self._target}/log/{sequence}")).body)

    async def tail(
        self, *, after: int | None = None, poll_s: float = POLL_S
    ) -> AsyncIterator[LogEntry]:
        """Log entries after number ``after``, and those to come as they come. Ends never.

        Where the service streams its log, it is followed from the last entry that was seen, also
        after the connection broke; else it is asked every ``poll_s`` seconds.
        """
        streams = True
        while True:
            if streams:
                target = f"{self._target}/log{query({'after': after})}"
                headers = {} if after is None else {"last-event-id": str(after)}
                try:
                    async for event in self._transport.events(target, headers=headers):
                        entry = LogEntry.of(json.loads(event.data))
                        after = entry.sequence
                        yield entry
                except StreamError:
                    streams = False
                    continue
                except TransportError:
                    # It is followed from there; if nobody answers, the next request raises.
                    pass
            for entry in await self.log(after=after):
                after = entry.sequence
                yield entry
            await asyncio.sleep(poll_s)

    async def diff(self, a: str, b: str) -> Diff:
        """The nodes and regions that differ between two refs or commits, from ``a`` to ``b``."""
        return Diff.of(await self._json("GET", f"{self._target}/diff/{segment(a)}/{segment(b)}"))

    async def resolve(self, ref: str = "main") -> Commit:
        """The commit that a branch, tag, commit id or prefix, ``x~n`` or ``x@time`` names."""
        commit = Commit.of(await self._json("GET", f"{self._target}/refs/{segment(ref)}"))
        check_named(ref, commit.commit)
        return commit

    async def at(
        self,
        ref: str = "main",
        *,
        verify: bool = False,
        key: str | Sequence[str] | None = None,
    ) -> AsyncSnapshot:
        """The commit that ``ref`` names now; it does not move with a branch.

        Parameters
        ----------
        ref : a branch, tag, commit id or prefix, ``x~n`` or ``x@time``.
        verify : check all values that are read against the commit, on this side; see
            :meth:`AsyncSnapshot.read`.
        key : with ``verify``, public keys, one of which must have signed a log with the commit.
        """
        commit = await self.resolve(ref)
        return AsyncSnapshot(self._transport, self._name, commit, verify=verify, key=key)

    async def store(
        self,
        ref: str = "main",
        *,
        follow: bool = False,
        autocommit: bool = False,
        verify: bool = False,
        key: str | Sequence[str] | None = None,
        read_only: bool | None = None,
    ) -> Store:
        """``ref`` as a Zarr store; see :class:`quarr.Store`.

        It is pinned to the commit that ``ref`` names now, unless ``follow`` or ``autocommit``.
        """
        from .store import Store

        store = Store(
            self._transport,
            self._name,
            ref,
            follow=follow,
            autocommit=autocommit,
            verify=verify,
            key=key,
            read_only=read_only,
        )
        await store.pin()
        return store

    def transaction(
        self,
        branch: str = "main",
        *,
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        isolation: Isolation = "snapshot",
        on_conflict: OnConflict = None,
    ) -> Opening[AsyncTransaction]:
        """Opens a transaction: many changes, one commit.

        As a context manager it commits when the block ends and aborts when it raises.

        Parameters
        ----------
        branch : what it starts from and is committed to.
        message, author, properties : kept with the commit.
        isolation : with ``serializable``, what it reads must not have changed either.
        on_conflict : as in :meth:`merge`.
        """

        async def open() -> AsyncTransaction:
            new = {"branch": branch, "isolation": isolation, "author": author}
            given = {name: value for name, value in new.items() if value is not None}
            answer = await self._json("POST", self._target + "/transactions", given, _write_headers())
            body = _commit_body(message, author, properties, on_conflict)
            return AsyncTransaction(self._transport, TransactionInfo.of(answer), body)

        return Opening(open)

    async def join(self, id: str) -> AsyncTransaction:
        """A transaction that was opened elsewhere, by its id. Its context manager does not commit:
        whoever opened it does."""
        joined = await _join(self._transport, id)
        if joined.repository != self._name:
            raise NotFoundError(f"transaction {id} is one of repository {joined.repository!r}")
        return joined

    async def write(
        self,
        path: str,
        values: Any,
        slice: Selection = None,
        *,
        branch: str = "main",
        expected: str | None = None,
    ) -> Committed:
        """Writes a region of an array, as one commit; as :meth:`AsyncTransaction.write`.

        Raises :class:`~quarr.PreconditionError` if the branch is not at the commit ``expected``.
        """
        at = f"{self._target}/refs/{segment(branch)}"
        node = await self._json("GET", f"{at}/nodes/{key_path(path)}")
        kind, body = body_of(values, _data_type(node, path))
        target = f"{at}/data/{key_path(path)}{query({'slice': slice_text(slice)})}"
        headers = {"content-type": kind, **_write_headers(expected)}
        response = await self._call("PUT", target, headers=headers, body=body)
        return Committed.of(json.loads(bytes(response.body)))

    async def put_node(
        self,
        path: str,
        document: Mapping[str, Any],
        *,
        branch: str = "main",
        expected: str | None = None,
        exist_ok: bool = True,
    ) -> Committed:
        """Creates or changes a group or an array, as one commit; as
        :meth:`AsyncTransaction.put_node`."""
        target = f"{self._target}/refs/{segment(branch)}/nodes/{key_path(path)}"
        headers = _write_headers(expected)
        if not exist_ok:
            headers["if-none-match"] = "*"
        return Committed.of(await self._json("PUT", target, document, headers))

    async def delete(
        self, path: str, *, branch: str = "main", expected: str | None = None
    ) -> Committed:
        """Deletes a node and everything below it, as one commit."""
        target = f"{self._target}/refs/{segment(branch)}/nodes/{key_path(path)}"
        return Committed.of(await self._json("DELETE", target, None, _write_headers(expected)))

    async def tlog(self, tile: str) -> bytes:
        """A part of the transparency log, as C2SP *tlog-tiles* names it: ``checkpoint``,
        ``tile/0/000``, ``tile/entries/000``, or ``receipts/7``, the proof of log entry 7."""
        return bytes((await self._call("GET", f"{self._target}/tlog/{key_path(tile)}")).body)

    async def receipt(self, ref: str = "main") -> str:
        """The receipt of a commit: the proof that the log entry that put a ref at it is in the
        transparency log."""
        target = f"{self._target}/refs/{segment(ref)}/receipt"
        return bytes((await self._call("GET", target)).body).decode()


def _commit_body(
    message: str | None,
    author: str | None,
    properties: Mapping[str, Any] | None,
    on_conflict: OnConflict,
    **rest: Any,
) -> dict[str, Any]:
    if isinstance(on_conflict, Mapping):
        on_conflict = dict(on_conflict)
    given = {
        "message": message,
        "author": author,
        "properties": None if properties is None else dict(properties),
        "on_conflict": on_conflict,
        **rest,
    }
    return {name: value for name, value in given.items() if value is not None}


def _write_headers(expected: str | None = None) -> dict[str, str]:
    """Of a request that takes effect once, however often it is sent because an answer was lost."""
    headers = {"idempotency-key": uuid.uuid4().hex}
    if expected is not None:
        headers["if-match"] = f'"{expected}"'
    return headers


def _data_type(node: Mapping[str, Any], path: str) -> Any:
    if node["kind"] != "array":
        raise ValueError(f"{path!r} is a group: only arrays have values")
    return node["zarr_json"]["data_type"]


async def _join(transport: Transport, id: str) -> AsyncTransaction:
    answer = await _Caller(transport)._json("GET", f"/v1/transactions/{segment(id)}")
    return AsyncTransaction(transport, TransactionInfo.of(answer), {}, is_owner=False)


class Opening(Generic[T]):
    """Something that is opened by ``await`` or by ``async with``."""

    def __init__(self, open: Callable[[], Any]) -> None:
        self._open = open
        self._opened: Any = None

    def __await__(self) -> Generator[Any, Any, T]:
        result: Generator[Any, Any, T] = self._open().__await__()
        return result

    async def __aenter__(self) -> T:
        self._opened = await self._open()
        opened: T = await self._opened.__aenter__()
        return opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)


class AsyncSnapshot(_Caller):
    """One commit. It never changes."""

    def __init__(
        self,
        transport: Transport,
        repository: str,
        commit: Commit,
        *,
        verify: bool = False,
        key: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(transport)
        self._repository = repository
        self._commit = commit
        self._keys = _keys(key)
        self._verify = verify or bool(self._keys)
        self._target = f"/v1/repos/{segment(repository)}/refs/{commit.commit}"
        self._verified: Store | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._repository}@{self._commit.commit[:12]})"

    @property
    def commit(self) -> str:
        """The commit's id: 64 hex digits."""
        return self._commit.commit

    @property
    def info(self) -> Commit:
        """The commit: message, author, time, parents."""
        return self._commit

    @property
    def repository(self) -> str:
        """The name of its repository."""
        return self._repository

    @property
    def zarr_url(self) -> str:
        """The commit as a Zarr store over HTTP, for clients that know nothing of Quarr."""
        return f"{self._transport.url}{self._target}/zarr"

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs besides :attr:`zarr_url`, the credentials among it:
        ``xr.open_zarr(snapshot.zarr_url, storage_options=snapshot.storage_options)``."""
        headers = getattr(self._transport, "headers", None)
        return {"headers": dict(headers)} if headers else {}

    def store(self, *, verify: bool | None = None) -> Store:
        """The commit as a Zarr store, read-only; see :class:`quarr.Store`."""
        from .store import Store

        check = self._verify if verify is None else verify
        return Store(
            self._transport,
            self._repository,
            self.commit,
            verify=check,
            key=self._keys if check else None,
        )

    async def open_dataset(self, group: str | None = None, **options: Any) -> Dataset:
        """A group as an :class:`xarray.Dataset`, opened by the engine ``quarr``; needs xarray.

        ``options`` are those of :func:`xarray.open_dataset`.
        """
        import xarray

        from .xarray import QuarrBackend

        # xarray's annotations know neither the stores that engines open, nor engines by class.
        store: Any = self.store()
        engine: Any = QuarrBackend

        def open() -> Dataset:
            return xarray.open_dataset(store, engine=engine, group=group, **options)

        return await asyncio.to_thread(open)

    async def nodes(self, path: str = "") -> dict[str, Any]:
        """A group or an array: ``zarr_json``, ``members``, ``statistics``, ``stored_bytes``."""
        answer: dict[str, Any] = await self._json("GET", self._node_target(path))
        return answer

    def _node_target(self, path: str) -> str:
        name = key_path(path)
        return f"{self._target}/nodes/{name}" if name else f"{self._target}/nodes"

    async def read(
        self,
        path: str,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal["nearest", "pad", "backfill"] | None = None,
        decode: Decode = "cf",
        where: str | None = None,
        strict: bool = False,
        expected_shape: Sequence[int] | None = None,
        writable: bool = False,
    ) -> Array:
        """Reads a slice of an array.

        Parameters
        ----------
        path : the array, like ``group/array``.
        slice : what to read, as NumPy indexes: integers (which drop their dimension), slices,
            ``...``, and lists, which select along their own dimension each. All if left out.
        sel : labels of coordinate variables, by dimension: one, a list, or ``slice(first, last)``
            with both ends, in either order. An open end is one of the values: ``slice(None, 20)``
            are those up to 20, however they are stored. A text is in the service's notation:
            ``"2020-01/2020-03"``.
        method : how labels that do not occur are looked up.
        decode : ``cf`` masks, scales and offsets packed values as xarray does; ``mask``; ``raw``.
        where : what cells must satisfy not to be missing, like ``t2m>=300``.
        strict : refuse slices that reach past the array instead of cutting them off.
        expected_shape : the shape the answer must have.
        writable : give a copy that can be written to, as ``torch.from_numpy`` likes it.

        Returns
        -------
        The values, in C order. Texts and bytes of any length are objects; ``bfloat16``, which
        NumPy has not, is ``V2``.

        A snapshot with ``verify`` gets the encoded values with their proof, checks that, and
        decodes them here. It takes slices only; ``where`` and ``sel`` are refused.

        Raises
        ------
        BadRequestError : the slice does not fit the array.
        NoAnswerError : there is no such label.
        TooLargeError : it is more than the service reads at once.
        PreconditionError : the answer has not ``expected_shape``.
        IntegrityError : the service lied.
        """
        if self._verify:
            if sel is not None or where is not None:
                raise ValueError("what is verified is read by slices: sel and where are not proven")
            from ._verify import read_verified

            if self._verified is None:
                self._verified = self.store()
            return await read_verified(
                self._verified, path, slice, decode, strict, expected_shape, writable
            )
        parameters = _common(slice, sel, method, decode, where, strict, expected_shape)
        return await self._values(f"{self._target}/data/{key_path(path)}", parameters, writable)

    async def read_as(
        self,
        path: str,
        f: Format,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal["nearest", "pad", "backfill"] | None = None,
        decode: Decode = "cf",
        where: str | None = None,
        strict: bool = False,
        expected_shape: Sequence[int] | None = None,
        colormap: str | None = None,
        range: tuple[float, float] | None = None,
    ) -> Response:
        """Reads a slice in a format: ``netcdf``, ``arrow``, ``csv``, ``json``, ``npy``, ``png``.

        ``colormap`` and ``range`` (the values of the first and the last colour) are for ``png``.
        The others are as in :meth:`read`. Not verified.

        Returns
        -------
        The answer: ``body`` and ``headers``.
        """
        self._refuse_to_verify("read_as")
        parameters = {
            **_common(slice, sel, method, decode, where, strict, expected_shape),
            "f": f,
            "colormap": colormap,
            "range": listed(range),
        }
        return await self._call("GET", f"{self._target}/data/{key_path(path)}{query(parameters)}")

    async def reduce(
        self, path: str, reduce: str = "mean", **options: Unpack[ReduceOptions]
    ) -> Array:
        """Reduces a slice in the service.

        Parameters
        ----------
        path : the array.
        reduce : ``sum``, ``prod``, ``mean``, ``min``, ``max``, ``count``, ``std``, ``var``,
            ``any``, ``all``, ``argmin``, ``argmax``, ``median``, ``quantile`` or ``histogram``.
        options : see :class:`ReduceOptions`.

        Returns
        -------
        The result, with the dimensions that are left; without dimensions if none is. Types are
        those of xarray: the mean of ``float32`` is ``float32``.

        Raises
        ------
        NoAnswerError : there is no such thing, like the mean of texts or of nothing.
        ValueError : the snapshot verifies; a reduction that is proven is
            :meth:`prove` with ``reduce``.
        """
        self._refuse_to_verify("reduce")
        parameters = _reduce_parameters(reduce, options)
        found = await self._values(f"{self._target}/reduce/{key_path(path)}", parameters, False)
        # The service takes one quantile for a number.
        q = options.get("q")
        is_list = reduce == "quantile" and q is not None and np.ndim(np.asarray(q)) > 0
        is_list = is_list and np.size(np.asarray(q)) == 1
        return found[np.newaxis] if is_list else found

    async def reduce_many(
        self, path: str, reduce: Sequence[str], **options: Unpack[ReduceOptions]
    ) -> dict[str, Array]:
        """Several reductions of a slice in one pass, by name; as :meth:`reduce`."""
        response = await self.reduce_as(path, list(reduce), "json", **options)
        answer = json.loads(bytes(response.body))
        variables = answer.get("variables", {reduce[0]: answer})
        return {name: json_values(variable) for name, variable in variables.items()}

    async def reduce_as(
        self,
        path: str,
        reduce: str | Sequence[str],
        f: Format,
        **options: Unpack[ReduceOptions],
    ) -> Response:
        """Reduces a slice; the answer comes in a format, with its coordinates where that has any;
        as :meth:`reduce`. ``headers`` has ``error-bound`` for what is approximate."""
        self._refuse_to_verify("reduce")
        parameters = {**_reduce_parameters(reduce, options), "f": f}
        return await self._call("GET", f"{self._target}/reduce/{key_path(path)}{query(parameters)}")

    async def points(
        self,
        path: str,
        positions: Mapping[str, Sequence[int] | Array] | None = None,
        labels: Mapping[str, Sequence[Any] | Array] | None = None,
        *,
        method: Literal["exact", "nearest", "pad", "backfill"] = "exact",
        decode: Decode = "cf",
        writable: bool = False,
    ) -> Array:
        """Reads many points in one request.

        Parameters
        ----------
        positions : by dimension, the position of each point; from the end if negative.
        labels : by dimension, the label of each point.
        method : how labels are looked up.
        decode, writable : as in :meth:`read`.

        Returns
        -------
        The values: the points are the first dimension, dimensions that are not named follow.
        """
        self._refuse_to_verify("points")
        body = _points_body(positions, labels, method)
        parameters = {"decode": None if decode == "cf" else decode}
        target = f"{self._target}/points/{key_path(path)}"
        return await self._values(target, parameters, writable, body)

    async def product(
        self,
        path: str,
        other: str,
        axis: int | str | None = None,
        *,
        slice: Selection = None,
        other_slice: Selection = None,
        sel: Labels | None = None,
        method: Literal["nearest", "pad", "backfill"] | None = None,
        decode: Decode = "cf",
        strict: bool = False,
        expected_shape: Sequence[int] | None = None,
        writable: bool = False,
    ) -> Array:
        """Multiplies two slices in the service.

        Parameters
        ----------
        path : the array.
        other : the other factor: an array beside this one, or its path.
        axis : multiply the vectors along this dimension of the slice, by number or name, by the
            matrix ``other``. Left out, both are matrices or vectors, multiplied as
            :func:`numpy.matmul` does.
        slice, sel : what of the array, as in :meth:`read`.
        other_slice : what of the other one.
        decode, strict, expected_shape, method, writable : as in :meth:`read`; ``decode`` and
            ``strict`` are for both.

        Returns
        -------
        The product, of the type :func:`numpy.matmul` would give. Floats are added as ``float64``
        and rounded once.

        Raises
        ------
        BadRequestError : the shapes do not fit each other.
        NoAnswerError : there are no products of such values, like texts.
        """
        self._refuse_to_verify("product")
        parameters = {
            **_common(slice, sel, method, decode, None, strict, expected_shape),
            "with": other,
            "with_slice": slice_text(other_slice),
            "axis": axis,
        }
        return await self._values(f"{self._target}/product/{key_path(path)}", parameters, writable)

    async def nearest(
        self,
        path: str,
        vectors: Sequence[Any] | Array,
        k: int = 10,
        *,
        metric: Literal["cosine", "l2", "ip"] = "cosine",
        slice: Selection = None,
        sel: Labels | None = None,
        method: Literal["nearest", "pad", "backfill"] | None = None,
        decode: Decode = "cf",
        strict: bool = False,
    ) -> tuple[Array, Array]:
        """Finds the rows of an array that are nearest to vectors; all rows are looked at.

        Parameters
        ----------
        path : an array of two dimensions, or of which ``slice`` leaves two: its rows are searched.
        vectors : one vector, or several as rows: as long as those of the array.
        k : how many rows to find for each.
        metric : ``cosine`` (of the angle, highest first), ``l2`` (Euclidean distance, lowest
            first) or ``ip`` (inner product, highest first).
        slice, sel, method, decode, strict : as in :meth:`read`.

        Returns
        -------
        ``indices`` along the first dimension of the slice, and ``scores``, best first; of equal
        scores the lower index. Both have shape ``(k,)`` for one vector, ``(n, k)`` for several.
        Where there are no more rows, -1 and NaN: rows that hold NaN are never found, nor, by
        ``cosine``, those of zeros.

        Raises
        ------
        BadRequestError : the slice has not two dimensions, or rows of another length.
        TooLargeError : there are too many vectors for one request.
        """
        self._refuse_to_verify("nearest")
        asked = np.asarray(vectors, np.float64)
        if asked.ndim not in (1, 2):
            raise ValueError(f"vectors of {asked.ndim} dimensions: give one vector, or rows of them")
        if not np.isfinite(asked).all():
            raise ValueError("vectors that hold NaN or infinities have no neighbours")
        body = {"vectors": np.atleast_2d(asked).tolist(), "k": int(k), "metric": metric}
        parameters = _common(slice, sel, method, decode, None, strict, None)
        target = f"{self._target}/nearest/{key_path(path)}{query({**parameters, 'f': 'json'})}"
        found = (await self._json("POST", target, body))["variables"]
        indices, scores = json_values(found["indices"]), json_values(found["scores"])
        return (indices[0], scores[0]) if asked.ndim == 1 else (indices, scores)

    async def explain(
        self,
        path: str,
        reduce: str | Sequence[str] | None = None,
        **options: Unpack[ReduceOptions],
    ) -> dict[str, Any]:
        """What a read, or with ``reduce`` a reduction, would cost: chunks, requests, bytes, memory
        and time; of a reduction, in ``compute``, whether a GPU makes it. Runs nothing."""
        parameters = _reduce_parameters(reduce, options)
        target = f"{self._target}/explain/{key_path(path)}{query(parameters)}"
        answer: dict[str, Any] = await self._json("GET", target)
        return answer

    async def prove(
        self,
        path: str,
        slice: Selection = None,
        *,
        chunk: Sequence[int] | None = None,
        reduce: str | None = None,
    ) -> Proof:
        """Proves what a slice of an array holds, or what it comes to.

        Parameters
        ----------
        slice : what to prove; the smallest box around it is.
        chunk : instead, one inner chunk by its place in the grid of inner chunks.
        reduce : prove what the slice, made of whole chunks, comes to: ``min``, ``max``, ``count``,
            ``sum``, ``mean``, ``var`` or ``std``.
        """
        place = None if chunk is None else ",".join(map(str, chunk))
        text = slice_text(slice)
        if place == "":
            # The only chunk of an array without dimensions.
            place = None
        parameters = query({"slice": text, "chunk": place, "reduce": reduce})
        response = await self._call("GET", f"{self._target}/proof/{key_path(path)}{parameters}")
        return Proof(bytes(response.body), self.commit, path.strip("/"))

    async def receipt(self) -> str:
        """The receipt of the commit: the proof that it is in the transparency log."""
        return bytes((await self._call("GET", f"{self._target}/receipt")).body).decode()

    def __getitem__(self, path: str) -> RemoteArray:
        """An array whose slices and reductions run in the service; needs xarray."""
        from .xarray import RemoteArray

        return RemoteArray(self, path)

    def _refuse_to_verify(self, what: str) -> None:
        if self._verify:
            raise ValueError(
                f"{what}() of a snapshot with verify=True would not be verified: read values with "
                "read() or store(), prove reductions with prove(reduce=…)"
            )


def _keys(key: str | Sequence[str] | None) -> tuple[str, ...]:
    if key is None:
        return ()
    return (key,) if isinstance(key, str) else tuple(key)


def _points_body(
    positions: Mapping[str, Any] | None, labels: Mapping[str, Any] | None, method: str
) -> dict[str, Any]:
    def integers(values: Any) -> list[int]:
        return [int(item) for item in values]

    return {
        "positions": {name: integers(values) for name, values in (positions or {}).items()},
        "labels": {name: point_labels(values) for name, values in (labels or {}).items()},
        "method": method,
    }


class Proof:
    """A proof: a document that holds by itself, without the service."""

    def __init__(self, data: bytes, commit: str | None = None, path: str | None = None) -> None:
        self._data = data
        self._commit = commit
        self._path = path

    def __repr__(self) -> str:
        return f"Proof({len(self._data)} bytes)"

    @property
    def data(self) -> bytes:
        """The document: what ``quarr check-proof`` and ``python -m quarr.proof`` take."""
        return self._data

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file."""
        with open(path, "wb") as file:
            file.write(self._data)

    def check(self, key: str | Sequence[str] | None = None) -> Proven:
        """Checks the proof, offline; needs the packages of the extra ``verify``.

        Parameters
        ----------
        key : public keys, one of which must have signed the log's head. Without one, everything
            but whose log it is is checked.

        Returns
        -------
        What it proves.

        Raises
        ------
        IntegrityError : it does not hold, or proves something else than was asked for.
        """
        from ._verify import check_proof

        proven = check_proof(self._data, _keys(key))
        if self._commit is not None and proven.commit != self._commit:
            raise IntegrityError(f"the proof is one of commit {proven.commit}")
        if self._path is not None and proven.path != self._path:
            raise IntegrityError(f"the proof is one of {proven.path!r}")
        return proven


class AsyncTransaction(_Caller):
    """Many changes that become one commit, made by any number of processes.

    It can be pickled: workers write into the same transaction. A pickled or joined one does not
    commit or abort when its ``with`` block ends; whoever opened it does.
    """

    def __init__(
        self,
        transport: Transport,
        info: TransactionInfo,
        commit: Mapping[str, Any],
        *,
        is_owner: bool = True,
    ) -> None:
        super().__init__(transport)
        self._info = info
        self._body = dict(commit)
        self._is_owner = is_owner
        self._target = f"/v1/transactions/{segment(info.id)}"
        self._ended = False
        self._key = uuid.uuid4().hex
        self._data_types: dict[str, Any] = {}
        self._store: Store | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_is_owner": False, "_data_types": {}}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_owner or self._ended:
            return
        if error is None:
            await self.commit()
            return
        try:
            await self.abort()
        except Error as failure:
            error.add_note(f"the transaction {self.id} could not be aborted: {failure}")

    @property
    def id(self) -> str:
        """What it is called in URLs; others join by it."""
        return self._info.id

    @property
    def branch(self) -> str:
        """The branch it is committed to."""
        return self._info.branch

    @property
    def base(self) -> str:
        """The commit it starts from."""
        return self._info.base

    @property
    def repository(self) -> str:
        """The name of its repository."""
        return self._info.repository

    @property
    def store(self) -> Store:
        """It as a Zarr store to read and write; see :class:`quarr.Store`."""
        if self._store is None:
            from .store import Store

            self._store = Store(self._transport, self.repository, transaction=self.id)
        return self._store

    async def info(self) -> TransactionInfo:
        """How it is."""
        return TransactionInfo.of(await self._json("GET", self._target))

    async def commit(
        self,
        message: str | None = None,
        *,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Commits it. A commit whose answer was lost is asked for again, and is one commit.

        Parameters
        ----------
        message, author, properties, on_conflict : instead of those it was opened with.
        expected : the commit that the branch has to be at.

        Raises
        ------
        ConflictError : someone else changed the same things since :attr:`base`; ``conflicts``
            lists what. The transaction takes no more changes, but can be committed with another
            ``on_conflict``.
        PreconditionError : the branch is elsewhere.
        """
        body = {**self._body, **_commit_body(message, author, properties, on_conflict)}
        headers = {"idempotency-key": self._key}
        if expected is not None:
            headers["if-match"] = f'"{expected}"'
        answer = await self._json("POST", self._target + "/commit", body, headers)
        self._ended = True
        return Committed.of(answer)

    async def abort(self) -> None:
        """Gives it up."""
        await self._call("DELETE", self._target)
        self._ended = True

    async def nodes(self, path: str = "") -> dict[str, Any]:
        """A group or an array as the transaction sees it."""
        name = key_path(path)
        target = f"{self._target}/nodes/{name}" if name else f"{self._target}/nodes"
        answer: dict[str, Any] = await self._json("GET", target)
        return answer

    async def put_node(
        self, path: str, document: Mapping[str, Any], *, exist_ok: bool = True
    ) -> None:
        """Creates or changes a group or an array.

        Parameters
        ----------
        document : a ``zarr.json``, or the short form: ``shape``, ``data_type``, ``chunks``,
            ``shards``, ``codecs``, ``fill_value``, ``dimension_names``, ``attributes``. Of an
            array that exists, a new ``shape`` resizes it.
        exist_ok : if not, there must be nothing at ``path``.

        Raises
        ------
        PreconditionError : there is something.
        """
        name = key_path(path)
        target = f"{self._target}/nodes/{name}" if name else f"{self._target}/nodes"
        headers = None if exist_ok else {"if-none-match": "*"}
        await self._json("PUT", target, dict(document), headers)
        self._data_types.pop(path.strip("/"), None)

    async def create_array(
        self,
        path: str,
        *,
        shape: Sequence[int],
        data_type: Any,
        chunks: Sequence[int] | None = None,
        shards: Sequence[int] | None = None,
        codecs: Sequence[Mapping[str, Any]] | None = None,
        fill_value: Any = None,
        dimension_names: Sequence[str | None] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Creates an array; groups above it are created.

        Parameters
        ----------
        shape : in cells.
        data_type : a NumPy type, or a Zarr one (``float32``, ``string``, ``bfloat16``).
        chunks : shape of an inner chunk, which is what is read at once; chosen if left out.
        shards : shape of a shard, which is what is stored at once; chosen if left out.
        codecs : from bytes to bytes, as in ``zarr.json``; zstd if left out.
        fill_value : what cells never written hold; zero if left out.
        dimension_names : one for each dimension.
        attributes : the array's.

        Raises
        ------
        PreconditionError : there is something at ``path``.
        """
        document = {
            "shape": [int(length) for length in shape],
            "data_type": zarr_data_type(data_type),
            "chunks": None if chunks is None else [int(length) for length in chunks],
            "shards": None if shards is None else [int(length) for length in shards],
            "codecs": None if codecs is None else [dict(codec) for codec in codecs],
            "fill_value": None if fill_value is None else fill_value_json(fill_value),
            "dimension_names": None if dimension_names is None else list(dimension_names),
            "attributes": None if attributes is None else dict(attributes),
        }
        given = {name: value for name, value in document.items() if value is not None}
        await self.put_node(path, given, exist_ok=False)

    async def create_group(
        self, path: str, *, attributes: Mapping[str, Any] | None = None, exist_ok: bool = False
    ) -> None:
        """Creates a group; groups above it are created.

        Raises :class:`~quarr.PreconditionError` if there is something, unless ``exist_ok``.
        """
        given = {} if attributes is None else {"attributes": dict(attributes)}
        await self.put_node(path, given, exist_ok=exist_ok)

    async def resize(self, path: str, shape: Sequence[int]) -> None:
        """Gives an array another shape; what is outside it is dropped."""
        await self.put_node(path, {"shape": [int(length) for length in shape]})

    async def delete(self, path: str) -> None:
        """Deletes a node and everything below it."""
        await self._call("DELETE", f"{self._target}/nodes/{key_path(path)}", headers=_write_headers())
        self._data_types.clear()

    async def move(self, from_: str, to: str) -> None:
        """Moves a node without touching its data; groups above ``to`` are created."""
        await self._json("POST", self._target + "/move", {"from": from_, "to": to}, _write_headers())
        self._data_types.clear()

    async def write(self, path: str, values: Any, slice: Selection = None) -> None:
        """Writes values to a region of an array, aligned to chunks or not.

        Parameters
        ----------
        values : an array of the region's shape, nested lists, or one value for all cells. They
            are converted to the array's type as NumPy's ``same_kind`` allows.
        slice : where, as NumPy indexes; it must be inside the array. All if left out.

        Raises
        ------
        BadRequestError : the values are not of the region's shape, or it is not in the array.
        TypeError : the values cannot be converted.
        """
        name = path.strip("/")
        if name not in self._data_types:
            self._data_types[name] = _data_type(await self.nodes(path), path)
        kind, body = body_of(values, self._data_types[name])
        target = f"{self._target}/data/{key_path(path)}{query({'slice': slice_text(slice)})}"
        await self._call("PUT", target, headers={"content-type": kind}, body=body)

    async def read(
        self,
        path: str,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal["nearest", "pad", "backfill"] | None = None,
        decode: Decode = "cf",
        where: str | None = None,
        strict: bool = False,
        expected_shape: Sequence[int] | None = None,
        writable: bool = False,
    ) -> Array:
        """Reads a slice as the transaction sees it: its own writes over its base; as
        :meth:`AsyncSnapshot.read`."""
        parameters = _common(slice, sel, method, decode, where, strict, expected_shape)
        return await self._values(f"{self._target}/data/{key_path(path)}", parameters, writable)
