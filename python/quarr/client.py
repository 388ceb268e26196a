"""The synchronous client: :mod:`quarr.aio` without ``await``, for scripts and notebooks.

Generated from ``aio.py`` by ``scripts/generate-python-client.py``; do not edit.

It works from any thread, also where an event loop is running, and after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from . import aio
from ._loop import iterate, run
from ._transport import Response, Transport
from ._wire import Labels, Selection
from .aio import POLL_S, Array, Decode, Format, Isolation, OnConflict, Proof, ReduceOptions
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

    from .store import Store
    from .xarray import RemoteArray

__all__ = [
    "Client",
    "Job",
    "Repository",
    "Snapshot",
    "Transaction",
]


class Client:
    """A service, or a store that is opened in this process.

    Parameters
    ----------
    source : URL of a service (``http://…``), URL or path of a store, or a transport.
    options : of the transport; see :func:`quarr.connect` and :func:`quarr.open`.
    """

    def __init__(
        self, source: str | os.PathLike[str] | Transport | aio.AsyncClient, **options: Any
    ) -> None:
        if isinstance(source, aio.AsyncClient):
            self._aio = source
        else:
            self._aio = aio.AsyncClient(source, **options)

    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.AsyncClient:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run(self._aio.__aexit__(kind, error, trace))

    def close(self) -> None:
        """Closes the connections; the client can be used again."""
        run(self._aio.close())

    def live(self) -> bool:
        """Whether the service answers."""
        return run(self._aio.live())

    def ready(self) -> bool:
        """Whether the service reaches its store."""
        return run(self._aio.ready())

    def metrics(self) -> str:
        """Counts of the read path, in Prometheus' text format."""
        return run(self._aio.metrics())

    def limits(self) -> Limits:
        """Bounds on what one request may ask for."""
        return run(self._aio.limits())

    def status(self) -> dict[str, Any]:
        """What the service is doing: requests, jobs, memory, GPUs, caches, the store."""
        return run(self._aio.status())

    def whoami(self) -> dict[str, Any]:
        """Who asks: ``id``, ``name``, ``grants``, and whether the service asks anyone."""
        return run(self._aio.whoami())

    def keys(self) -> list[dict[str, Any]]:
        """The API keys, the oldest first; no tokens."""
        return run(self._aio.keys())

    def key(self, key: str) -> dict[str, Any]:
        """An API key, by its id or name."""
        return run(self._aio.key(key))

    def create_key(
        self, name: str, grants: Sequence[Mapping[str, str]], *, expires_in: int | None = None
    ) -> dict[str, Any]:
        """Makes an API key; its ``token`` is shown here and never again.

        ``grants`` have a ``role`` (``reader``, ``writer``, ``admin``), and may have a ``repository`` and
        in it a ``prefix``. After ``expires_in`` seconds the key works no more.
        """
        return run(self._aio.create_key(name, grants, expires_in=expires_in))

    def rotate_key(self, key: str, *, overlap: int | None = None) -> dict[str, Any]:
        """Gives an API key a new ``token``; the one before works for ``overlap`` seconds, a day if left out.
        """
        return run(self._aio.rotate_key(key, overlap=overlap))

    def revoke_key(self, key: str) -> None:
        """Revokes an API key: within seconds it works on no node any more, and never again."""
        run(self._aio.revoke_key(key))

    def repositories(self) -> list[RepositoryInfo]:
        """All repositories."""
        return run(self._aio.repositories())

    def repo(self, name: str) -> Repository:
        """A repository; whether there is one shows when it is used."""
        return Repository(self._aio.repo(name))

    def create_repo(self, name: str, *, exist_ok: bool = False) -> Repository:
        """Creates a repository with an empty branch ``main``.

        Raises :class:`~quarr.ConflictError` if there is one, unless ``exist_ok``.
        """
        return Repository(run(self._aio.create_repo(name, exist_ok=exist_ok)))

    def delete_repo(self, name: str) -> None:
        """Deletes a repository and everything in it."""
        run(self._aio.delete_repo(name))

    def join(self, transaction: str) -> Transaction:
        """A transaction that was opened elsewhere, by its id. Its context manager does not commit:
        whoever opened it does.
        """
        return Transaction(run(self._aio.join(transaction)))

    def jobs(self) -> list[JobInfo]:
        """All jobs, the newest first."""
        return run(self._aio.jobs())

    def job(self, id: str) -> Job:
        """A job; whether there is one shows when it is used."""
        return Job(self._aio.job(id))

    def start_job(
        self, kind: str, *, repository: str, idempotency_key: str | None = None, **parameters: Any
    ) -> Job:
        """Begins a job.

        Parameters
        ----------
        kind : ``verify``, which takes ``reference``, ``since`` and ``deep``, or ``import``, for which
            there is :meth:`import_`.
        repository : what it works on.
        idempotency_key : a second request with the same key gets the first one's job.
        parameters : of this kind of job.
        """
        return Job(
            run(
                self._aio.start_job(
                    kind, repository=repository, idempotency_key=idempotency_key, **parameters
                )
            )
        )

    def import_(
        self,
        sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        repository: str,
        *,
        group: str | None = None,
        branch: str | None = None,
        message: str | None = None,
        author: str | None = None,
        access: Literal['series', 'maps', 'both', 'ml'] | None = None,
        chunks: Mapping[str, int] | None = None,
        shards: Mapping[str, int] | None = None,
        skip: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Job:
        """Begins to import files as one commit; :meth:`Job.wait` waits for it.

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
        return Job(
            run(
                self._aio.import_(
                    sources,
                    repository,
                    group=group,
                    branch=branch,
                    message=message,
                    author=author,
                    access=access,
                    chunks=chunks,
                    shards=shards,
                    skip=skip,
                    idempotency_key=idempotency_key,
                    **parameters,
                )
            )
        )

    def upload(self, path: str | os.PathLike[str], *, name: str | None = None) -> str:
        """Sends a local file to be imported; gives the source to import it by. It is read into memory:
        ``quarr import --server`` sends files of any size.

        Parameters
        ----------
        path : the file.
        name : what to call it, if not by its own name.
        """
        return run(self._aio.upload(path, name=name))

    def delete_upload(self, source: str) -> None:
        """Deletes a file that was sent and that no job has imported."""
        run(self._aio.delete_upload(source))


class Job:
    """Long work of the service that goes on without the client."""

    def __init__(self, made: aio.AsyncJob) -> None:
        self._aio = made

    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.AsyncJob:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport

    @property
    def id(self) -> str:
        """What it is called in URLs."""
        return self._aio.id

    def info(self) -> JobInfo:
        """How it is going."""
        return run(self._aio.info())

    def cancel(self) -> JobInfo:
        """Cancels it; one that has ended stays as it is."""
        return run(self._aio.cancel())

    def resume(self) -> JobInfo:
        """Goes on with it, if no process works on it, without waiting for a service to find it."""
        return run(self._aio.resume())

    def events(self) -> Iterator[JobInfo]:
        """How it is going, whenever it got on, until it has ended."""
        return iterate(self._aio.events())

    def wait(
        self, *, progress: Callable[[JobInfo], object] | None = None, timeout_s: float | None = None
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
        return run(self._aio.wait(progress=progress, timeout_s=timeout_s))


class Repository:
    """A repository: branches, tags, commits and their log."""

    def __init__(self, made: aio.AsyncRepository) -> None:
        self._aio = made

    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.AsyncRepository:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport

    def __dask_tokenize__(self) -> str:
        return self._aio.__dask_tokenize__()

    @property
    def name(self) -> str:
        """Its name."""
        return self._aio.name

    def info(self) -> RepositoryInfo:
        """Its id, and the keys its log is signed with."""
        return run(self._aio.info())

    def branches(self) -> list[Ref]:
        """The branches, sorted by name."""
        return run(self._aio.branches())

    def tags(self) -> list[Ref]:
        """The tags, sorted by name."""
        return run(self._aio.tags())

    def create_branch(self, name: str, *, from_ref: str = 'main') -> Ref:
        """Creates a branch at a branch, tag, commit id or prefix, ``x~n`` or ``x@time``.

        Raises :class:`~quarr.ConflictError` if the name is taken.
        """
        return run(self._aio.create_branch(name, from_ref=from_ref))

    def delete_branch(self, name: str) -> None:
        """Deletes a branch; its commits stay."""
        run(self._aio.delete_branch(name))

    def create_tag(self, name: str, *, from_ref: str = 'main') -> Ref:
        """Creates a tag, which never moves.

        Raises :class:`~quarr.ConflictError` if the name is taken.
        """
        return run(self._aio.create_tag(name, from_ref=from_ref))

    def delete_tag(self, name: str) -> None:
        """Deletes a tag; its commit stays."""
        run(self._aio.delete_tag(name))

    def reset(self, branch: str, to: str, *, expected: str | None = None) -> Move:
        """Moves a branch to any commit.

        Raises :class:`~quarr.PreconditionError` if the branch is not at the commit ``expected``.
        """
        return run(self._aio.reset(branch, to, expected=expected))

    def revert(
        self,
        commit: str,
        *,
        branch: str = 'main',
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Undoes the changes of one commit on a branch, as a commit.

        Raises as :meth:`merge`.
        """
        return run(
            self._aio.revert(
                commit,
                branch=branch,
                message=message,
                author=author,
                properties=properties,
                on_conflict=on_conflict,
                expected=expected,
            )
        )

    def cherry_pick(
        self,
        commit: str,
        *,
        branch: str = 'main',
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        on_conflict: OnConflict = None,
        expected: str | None = None,
    ) -> Committed:
        """Makes the changes of one commit on a branch, as a commit.

        Raises as :meth:`merge`.
        """
        return run(
            self._aio.cherry_pick(
                commit,
                branch=branch,
                message=message,
                author=author,
                properties=properties,
                on_conflict=on_conflict,
                expected=expected,
            )
        )

    def merge(
        self,
        from_: str,
        into: str = 'main',
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
        return run(
            self._aio.merge(
                from_,
                into,
                message=message,
                author=author,
                properties=properties,
                on_conflict=on_conflict,
                expected=expected,
            )
        )

    def log(self, *, after: int | None = None, limit: int | None = None) -> list[LogEntry]:
        """Log entries, oldest first: those after number ``after``, at most ``limit``, else all."""
        return run(self._aio.log(after=after, limit=limit))

    def log_entry(self, sequence: int) -> bytes:
        """A log entry as it is stored: canonical JSON with its hash in ``self``."""
        return run(self._aio.log_entry(sequence))

    def tail(self, *, after: int | None = None, poll_s: float = POLL_S) -> Iterator[LogEntry]:
        """Log entries after number ``after``, and those to come as they come. Ends never.

        Where the service streams its log, it is followed from the last entry that was seen, also
        after the connection broke; else it is asked every ``poll_s`` seconds.
        """
        return iterate(self._aio.tail(after=after, poll_s=poll_s))

    def diff(self, a: str, b: str) -> Diff:
        """The nodes and regions that differ between two refs or commits, from ``a`` to ``b``."""
        return run(self._aio.diff(a, b))

    def resolve(self, ref: str = 'main') -> Commit:
        """The commit that a branch, tag, commit id or prefix, ``x~n`` or ``x@time`` names."""
        return run(self._aio.resolve(ref))

    def at(
        self, ref: str = 'main', *, verify: bool = False, key: str | Sequence[str] | None = None
    ) -> Snapshot:
        """The commit that ``ref`` names now; it does not move with a branch.

        Parameters
        ----------
        ref : a branch, tag, commit id or prefix, ``x~n`` or ``x@time``.
        verify : check all values that are read against the commit, on this side; see
            :meth:`Snapshot.read`.
        key : with ``verify``, public keys, one of which must have signed a log with the commit.
        """
        return Snapshot(run(self._aio.at(ref, verify=verify, key=key)))

    def store(
        self,
        ref: str = 'main',
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
        return run(
            self._aio.store(
                ref,
                follow=follow,
                autocommit=autocommit,
                verify=verify,
                key=key,
                read_only=read_only,
            )
        )

    def transaction(
        self,
        branch: str = 'main',
        *,
        message: str | None = None,
        author: str | None = None,
        properties: Mapping[str, Any] | None = None,
        isolation: Isolation = 'snapshot',
        on_conflict: OnConflict = None,
    ) -> Transaction:
        """Opens a transaction: many changes, one commit.

        As a context manager it commits when the block ends and aborts when it raises.

        Parameters
        ----------
        branch : what it starts from and is committed to.
        message, author, properties : kept with the commit.
        isolation : with ``serializable``, what it reads must not have changed either.
        on_conflict : as in :meth:`merge`.
        """
        return Transaction(
            run(
                self._aio.transaction(
                    branch,
                    message=message,
                    author=author,
                    properties=properties,
                    isolation=isolation,
                    on_conflict=on_conflict,
                )
            )
        )

    def join(self, id: str) -> Transaction:
        """A transaction that was opened elsewhere, by its id. Its context manager does not commit:
        whoever opened it does.
        """
        return Transaction(run(self._aio.join(id)))

    def write(
        self,
        path: str,
        values: Any,
        slice: Selection = None,
        *,
        branch: str = 'main',
        expected: str | None = None,
    ) -> Committed:
        """Writes a region of an array, as one commit; as :meth:`Transaction.write`.

        Raises :class:`~quarr.PreconditionError` if the branch is not at the commit ``expected``.
        """
        return run(self._aio.write(path, values, slice, branch=branch, expected=expected))

    def put_node(
        self,
        path: str,
        document: Mapping[str, Any],
        *,
        branch: str = 'main',
        expected: str | None = None,
        exist_ok: bool = True,
    ) -> Committed:
        """Creates or changes a group or an array, as one commit; as
        :meth:`Transaction.put_node`.
        """
        return run(
            self._aio.put_node(path, document, branch=branch, expected=expected, exist_ok=exist_ok)
        )

    def delete(self, path: str, *, branch: str = 'main', expected: str | None = None) -> Committed:
        """Deletes a node and everything below it, as one commit."""
        return run(self._aio.delete(path, branch=branch, expected=expected))

    def tlog(self, tile: str) -> bytes:
        """A part of the transparency log, as C2SP *tlog-tiles* names it: ``checkpoint``,
        ``tile/0/000``, ``tile/entries/000``, or ``receipts/7``, the proof of log entry 7.
        """
        return run(self._aio.tlog(tile))

    def receipt(self, ref: str = 'main') -> str:
        """The receipt of a commit: the proof that the log entry that put a ref at it is in the
        transparency log.
        """
        return run(self._aio.receipt(ref))


class Snapshot:
    """One commit. It never changes."""

    def __init__(self, made: aio.AsyncSnapshot) -> None:
        self._aio = made

    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.AsyncSnapshot:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport

    @property
    def commit(self) -> str:
        """The commit's id: 64 hex digits."""
        return self._aio.commit

    @property
    def info(self) -> Commit:
        """The commit: message, author, time, parents."""
        return self._aio.info

    @property
    def repository(self) -> str:
        """The name of its repository."""
        return self._aio.repository

    @property
    def zarr_url(self) -> str:
        """The commit as a Zarr store over HTTP, for clients that know nothing of Quarr."""
        return self._aio.zarr_url

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs besides :attr:`zarr_url`, the credentials among it:
        ``xr.open_zarr(snapshot.zarr_url, storage_options=snapshot.storage_options)``.
        """
        return self._aio.storage_options

    def store(self, *, verify: bool | None = None) -> Store:
        """The commit as a Zarr store, read-only; see :class:`quarr.Store`."""
        return self._aio.store(verify=verify)

    def open_dataset(self, group: str | None = None, **options: Any) -> Dataset:
        """A group as an :class:`xarray.Dataset`, opened by the engine ``quarr``; needs xarray.

        ``options`` are those of :func:`xarray.open_dataset`.
        """
        return run(self._aio.open_dataset(group, **options))

    def nodes(self, path: str = '') -> dict[str, Any]:
        """A group or an array: ``zarr_json``, ``members``, ``statistics``, ``stored_bytes``."""
        return run(self._aio.nodes(path))

    def read(
        self,
        path: str,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal['nearest', 'pad', 'backfill'] | None = None,
        decode: Decode = 'cf',
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
        return run(
            self._aio.read(
                path,
                slice,
                sel=sel,
                method=method,
                decode=decode,
                where=where,
                strict=strict,
                expected_shape=expected_shape,
                writable=writable,
            )
        )

    def read_as(
        self,
        path: str,
        f: Format,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal['nearest', 'pad', 'backfill'] | None = None,
        decode: Decode = 'cf',
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
        return run(
            self._aio.read_as(
                path,
                f,
                slice,
                sel=sel,
                method=method,
                decode=decode,
                where=where,
                strict=strict,
                expected_shape=expected_shape,
                colormap=colormap,
                range=range,
            )
        )

    def reduce(self, path: str, reduce: str = 'mean', **options: Unpack[ReduceOptions]) -> Array:
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
        return run(self._aio.reduce(path, reduce, **options))

    def reduce_many(
        self, path: str, reduce: Sequence[str], **options: Unpack[ReduceOptions]
    ) -> dict[str, Array]:
        """Several reductions of a slice in one pass, by name; as :meth:`reduce`."""
        return run(self._aio.reduce_many(path, reduce, **options))

    def reduce_as(
        self, path: str, reduce: str | Sequence[str], f: Format, **options: Unpack[ReduceOptions]
    ) -> Response:
        """Reduces a slice; the answer comes in a format, with its coordinates where that has any;
        as :meth:`reduce`. ``headers`` has ``error-bound`` for what is approximate.
        """
        return run(self._aio.reduce_as(path, reduce, f, **options))

    def points(
        self,
        path: str,
        positions: Mapping[str, Sequence[int] | Array] | None = None,
        labels: Mapping[str, Sequence[Any] | Array] | None = None,
        *,
        method: Literal['exact', 'nearest', 'pad', 'backfill'] = 'exact',
        decode: Decode = 'cf',
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
        return run(
            self._aio.points(
                path, positions, labels, method=method, decode=decode, writable=writable
            )
        )

    def product(
        self,
        path: str,
        other: str,
        axis: int | str | None = None,
        *,
        slice: Selection = None,
        other_slice: Selection = None,
        sel: Labels | None = None,
        method: Literal['nearest', 'pad', 'backfill'] | None = None,
        decode: Decode = 'cf',
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
        return run(
            self._aio.product(
                path,
                other,
                axis,
                slice=slice,
                other_slice=other_slice,
                sel=sel,
                method=method,
                decode=decode,
                strict=strict,
                expected_shape=expected_shape,
                writable=writable,
            )
        )

    def nearest(
        self,
        path: str,
        vectors: Sequence[Any] | Array,
        k: int = 10,
        *,
        metric: Literal['cosine', 'l2', 'ip'] = 'cosine',
        slice: Selection = None,
        sel: Labels | None = None,
        method: Literal['nearest', 'pad', 'backfill'] | None = None,
        decode: Decode = 'cf',
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
        return run(
            self._aio.nearest(
                path,
                vectors,
                k,
                metric=metric,
                slice=slice,
                sel=sel,
                method=method,
                decode=decode,
                strict=strict,
            )
        )

    def explain(
        self, path: str, reduce: str | Sequence[str] | None = None, **options: Unpack[ReduceOptions]
    ) -> dict[str, Any]:
        """What a read, or with ``reduce`` a reduction, would cost: chunks, requests, bytes, memory
        and time; of a reduction, in ``compute``, whether a GPU makes it. Runs nothing.
        """
        return run(self._aio.explain(path, reduce, **options))

    def prove(
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
        return run(self._aio.prove(path, slice, chunk=chunk, reduce=reduce))

    def receipt(self) -> str:
        """The receipt of the commit: the proof that it is in the transparency log."""
        return run(self._aio.receipt())

    def __getitem__(self, path: str) -> RemoteArray:
        """An array whose slices and reductions run in the service; needs xarray."""
        from .xarray import RemoteArray

        return RemoteArray(self, path)


class Transaction:
    """Many changes that become one commit, made by any number of processes.

    It can be pickled: workers write into the same transaction. A pickled or joined one does not
    commit or abort when its ``with`` block ends; whoever opened it does.
    """

    def __init__(self, made: aio.AsyncTransaction) -> None:
        self._aio = made

    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.AsyncTransaction:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run(self._aio.__aexit__(kind, error, trace))

    @property
    def id(self) -> str:
        """What it is called in URLs; others join by it."""
        return self._aio.id

    @property
    def branch(self) -> str:
        """The branch it is committed to."""
        return self._aio.branch

    @property
    def base(self) -> str:
        """The commit it starts from."""
        return self._aio.base

    @property
    def repository(self) -> str:
        """The name of its repository."""
        return self._aio.repository

    @property
    def store(self) -> Store:
        """It as a Zarr store to read and write; see :class:`quarr.Store`."""
        return self._aio.store

    def info(self) -> TransactionInfo:
        """How it is."""
        return run(self._aio.info())

    def commit(
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
        return run(
            self._aio.commit(
                message,
                author=author,
                properties=properties,
                on_conflict=on_conflict,
                expected=expected,
            )
        )

    def abort(self) -> None:
        """Gives it up."""
        run(self._aio.abort())

    def nodes(self, path: str = '') -> dict[str, Any]:
        """A group or an array as the transaction sees it."""
        return run(self._aio.nodes(path))

    def put_node(self, path: str, document: Mapping[str, Any], *, exist_ok: bool = True) -> None:
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
        run(self._aio.put_node(path, document, exist_ok=exist_ok))

    def create_array(
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
        run(
            self._aio.create_array(
                path,
                shape=shape,
                data_type=data_type,
                chunks=chunks,
                shards=shards,
                codecs=codecs,
                fill_value=fill_value,
                dimension_names=dimension_names,
                attributes=attributes,
            )
        )

    def create_group(
        self, path: str, *, attributes: Mapping[str, Any] | None = None, exist_ok: bool = False
    ) -> None:
        """Creates a group; groups above it are created.

        Raises :class:`~quarr.PreconditionError` if there is something, unless ``exist_ok``.
        """
        run(self._aio.create_group(path, attributes=attributes, exist_ok=exist_ok))

    def resize(self, path: str, shape: Sequence[int]) -> None:
        """Gives an array another shape; what is outside it is dropped."""
        run(self._aio.resize(path, shape))

    def delete(self, path: str) -> None:
        """Deletes a node and everything below it."""
        run(self._aio.delete(path))

    def move(self, from_: str, to: str) -> None:
        """Moves a node without touching its data; groups above ``to`` are created."""
        run(self._aio.move(from_, to))

    def write(self, path: str, values: Any, slice: Selection = None) -> None:
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
        run(self._aio.write(path, values, slice))

    def read(
        self,
        path: str,
        slice: Selection = None,
        *,
        sel: Labels | None = None,
        method: Literal['nearest', 'pad', 'backfill'] | None = None,
        decode: Decode = 'cf',
        where: str | None = None,
        strict: bool = False,
        expected_shape: Sequence[int] | None = None,
        writable: bool = False,
    ) -> Array:
        """Reads a slice as the transaction sees it: its own writes over its base; as
        :meth:`Snapshot.read`.
        """
        return run(
            self._aio.read(
                path,
                slice,
                sel=sel,
                method=method,
                decode=decode,
                where=where,
                strict=strict,
                expected_shape=expected_shape,
                writable=writable,
            )
        )
