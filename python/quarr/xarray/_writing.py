"""Datasets as commits: :func:`to_quarr`."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.backends import ZarrStore
from xarray.backends.common import ArrayWriter

from .._loop import run
from .._transport import Transport
from .._wire import body_of, key_path, query, segment, slice_text
from ..aio import AsyncRepository, AsyncTransaction
from ..client import Repository, Transaction
from ..errors import Error, from_response
from ..models import Committed
from ..store import Store
from ._chunking import choose
from ._targets import parse

__all__ = ["to_quarr"]

MAX_BODY_BYTES = 64 << 20
"""Most bytes of one write of a region."""
Region = Mapping[str, "slice | Literal['auto']"] | Literal["auto"] | None
Mode = Literal["w", "w-", "a", "a-", "r+"]


def to_quarr(
    ds: xr.Dataset | xr.DataArray,
    target: Any,
    *,
    repo: str | None = None,
    branch: str | None = None,
    message: str | None = None,
    author: str | None = None,
    properties: Mapping[str, Any] | None = None,
    on_conflict: Any = None,
    mode: Mode | None = None,
    group: str | None = None,
    encoding: Mapping[Hashable, Mapping[str, Any]] | None = None,
    append_dim: Hashable | None = None,
    region: Region = None,
    safe_chunks: bool = False,
    align_chunks: bool = False,
    write_empty_chunks: bool | None = None,
    compute: bool = True,
    chunkmanager_store_kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Writes a dataset in one commit: all of it is there at once, or nothing.

    Dask arrays are written by all of dask's workers, in other processes and on other machines too;
    they share the transaction. Regions need not follow chunks: the service merges what several
    workers write into one chunk. Where every process opens the store itself (:func:`quarr.open`),
    two that write into one chunk are a conflict instead, and nothing is committed: add
    ``align_chunks`` there.

    Parameters
    ----------
    ds : a dataset, or a named array.
    target : a :class:`quarr.Repository`; a URL ``http://HOST/v1/repos/REPO/refs/BRANCH`` or
        ``quarr+http://HOST/REPO@BRANCH``; the URL of a service, or the path or URL of a store, with
        ``repo=``. Repositories are created. Or a :class:`quarr.Transaction`, or its store: then
        nothing is committed.
    branch : ``main`` by default.
    message, author, properties, on_conflict : of the commit; see
        :meth:`quarr.Repository.transaction`.
    mode : ``w`` replaces the group and what is in it, ``w-`` wants it to be new (the default),
        ``a`` adds and replaces variables, ``a-`` only appends, ``r+`` only changes values; as
        :meth:`xarray.Dataset.to_zarr`.
    group : path of the group.
    encoding : by variable, as :meth:`xarray.Dataset.to_zarr`. New arrays without ``chunks`` and
        ``shards`` get shards of about 32 MiB with inner chunks of about 1 MiB; dask's chunks stay
        whole.
    append_dim : the dimension to append along.
    region : by dimension, where to write into existing arrays; ``"auto"`` finds it by coordinates.
    safe_chunks : refuse dask chunks that do not follow the stored ones. They are written right in
        any case, but slower.
    align_chunks : rechunk dask arrays so that they do.
    write_empty_chunks : whether chunks of nothing but the fill value are stored.
    compute : if not, metadata is written, and what is returned is a :class:`dask.delayed.Delayed`
        that writes the values and commits.
    chunkmanager_store_kwargs : of dask's ``store``.
    options : of :func:`quarr.connect` or :func:`quarr.open`, for URLs and paths.

    Returns
    -------
    The :class:`quarr.Committed` commit; ``None`` for a transaction, which is left open.

    Raises
    ------
    ConflictError : someone else changed the same since it began.
    """
    dataset = _dataset(ds)
    how: dict[str, Any] = {
        "mode": mode,
        "group": group,
        "encoding": encoding,
        "append_dim": append_dim,
        "region": region,
        "safe_chunks": safe_chunks,
        "align_chunks": align_chunks,
        "write_empty_chunks": write_empty_chunks,
        "compute": compute,
        "chunkmanager_store_kwargs": chunkmanager_store_kwargs,
    }
    joined = _joined(target)
    if joined is not None:
        if repo or branch or message or author or properties or on_conflict:
            raise ValueError("a transaction has its branch and message already")
        writes = _write(dataset, joined, **how)
        return None if compute else writes
    repository, branch, below = _repository(target, repo, branch, options)
    how["group"] = "/".join(name for name in (below, (group or "").strip("/")) if name) or None
    transaction = repository.transaction(
        branch, message=message, author=author, properties=properties, on_conflict=on_conflict
    )
    try:
        writes = _write(dataset, transaction.store, **how)
        if compute:
            return transaction.commit()
    except BaseException as error:
        try:
            transaction.abort()
        except Error as failure:
            error.add_note(f"the transaction {transaction.id} could not be aborted: {failure}")
        raise
    from dask.delayed import delayed

    return delayed(_commit)(writes, transaction)


def _commit(_: Any, transaction: Transaction) -> Committed:
    return transaction.commit()


def _dataset(ds: xr.Dataset | xr.DataArray) -> xr.Dataset:
    if isinstance(ds, xr.Dataset):
        return ds.copy(deep=False)
    if isinstance(ds, xr.DataArray):
        if ds.name is None:
            raise ValueError("the array has no name to be stored under: array.rename('name')")
        return ds.to_dataset()
    raise TypeError(f"{type(ds).__name__} is no Dataset or DataArray")


def _joined(target: Any) -> Store | None:
    """The store of a transaction that is open already."""
    if isinstance(target, Transaction | AsyncTransaction):
        return target.store
    if isinstance(target, Store) and target._transaction is not None:
        return target
    return None


def _repository(
    target: Any, repo: str | None, branch: str | None, options: Mapping[str, Any] | None
) -> tuple[Repository, str, str]:
    """The repository, the branch and the group that a target names."""
    if isinstance(target, str | os.PathLike):
        from ..client import Client

        named = parse(target, repo, branch, options)
        repository = Client(named.transport).create_repo(named.repo, exist_ok=True)
        return repository, named.ref, named.group
    if repo is not None:
        raise ValueError("repo= is for URLs and paths")
    if isinstance(target, Repository):
        return target, branch or "main", ""
    if isinstance(target, AsyncRepository):
        return Repository(target), branch or "main", ""
    if isinstance(target, Store) and target.supports_writes:
        if branch not in (None, target._ref):
            raise ValueError(f"the store is of branch {target._ref}, not {branch}")
        return Repository(AsyncRepository(target.transport, target.repository)), target._ref, ""
    raise TypeError(f"{type(target).__name__} is nothing to write to: give a repository or a URL")


def _write(
    dataset: xr.Dataset,
    store: Store,
    *,
    mode: Mode | None,
    group: str | None,
    encoding: Mapping[Hashable, Mapping[str, Any]] | None,
    append_dim: Hashable | None,
    region: Region,
    safe_chunks: bool,
    align_chunks: bool,
    write_empty_chunks: bool | None,
    compute: bool,
    chunkmanager_store_kwargs: Mapping[str, Any] | None,
) -> Any:
    """Writes into a transaction; the delayed writes if they are not computed."""
    given = {name: dict(wanted) for name, wanted in (encoding or {}).items()}
    for variable in dataset.variables.values():
        if variable.size == 0:
            variable.load()
    _choose_chunks(dataset, given)
    target = TransactionStore.open_group(
        store=store,
        mode=_mode(mode, append_dim, region),
        group=group,
        consolidated=False,
        consolidate_on_close=False,
        append_dim=append_dim,
        write_region=region,
        safe_chunks=safe_chunks,
        align_chunks=align_chunks,
        zarr_format=3,
        write_empty=write_empty_chunks,
    )
    dataset = target._validate_and_autodetect_region(dataset)
    target._validate_encoding(given)
    writer = ArrayWriter()
    try:
        dataset.dump_to_store(target, writer=writer, encoding=given)
        return writer.sync(compute=compute, chunkmanager_store_kwargs=chunkmanager_store_kwargs)
    finally:
        target.close()


def _mode(mode: Mode | None, append_dim: Hashable | None, region: Region) -> Mode:
    """As :meth:`xarray.Dataset.to_zarr` has it."""
    if mode is None:
        mode = "a" if append_dim is not None else "r+" if region is not None else "w-"
    if mode not in ("w", "w-", "a", "a-", "r+"):
        raise ValueError(f"mode={mode!r} is none of 'w', 'w-', 'a', 'a-', 'r+'")
    if append_dim is not None and mode not in ("a", "a-"):
        raise ValueError(f"append_dim goes with mode='a' and mode='a-', not mode={mode!r}")
    if region is not None and mode not in ("a", "a-", "r+"):
        raise ValueError(f"region goes with mode='a', 'a-' and 'r+', not mode={mode!r}")
    return mode


def _choose_chunks(dataset: xr.Dataset, encoding: dict[Hashable, dict[str, Any]]) -> None:
    """Gives variables whose encoding says nothing of chunks the service's own."""
    for name, variable in list(dataset.variables.items()):
        wanted = encoding.get(name, variable.encoding)
        if variable.ndim == 0 or variable.size == 0 or {"chunks", "shards"} & set(wanted):
            continue
        if variable.dtype.kind not in "biufcmMSU":
            continue
        block = None
        if variable.chunks is not None:
            block = [lengths[0] for lengths in variable.chunks]
            if any(set(own[:-1]) - {own[0]} or own[-1] > own[0] for own in variable.chunks):
                block = None
        item = np.dtype(wanted.get("dtype") or variable.dtype).itemsize
        chunks, shards = choose(variable.shape, item, block)
        chosen = {**wanted, "chunks": chunks, "shards": shards}
        if shards is None:
            del chosen["shards"]
        if name in encoding:
            encoding[name] = chosen
        elif variable.chunks is not None or shards is not None:
            variable.encoding = chosen


class TransactionStore(ZarrStore):
    """xarray's Zarr store, which writes regions by way of the service."""

    __slots__ = ()

    def _create_new_array(self, **given: Any) -> Any:
        return WritableRegion(super()._create_new_array(**given))

    def _open_existing_array(self, *, name: str) -> Any:
        return WritableRegion(super()._open_existing_array(name=name))


class WritableRegion:
    """An array to write to: whole chunks as chunks, other regions by the service, which merges them
    with what others write at the same time."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        shape: tuple[int, ...] = self.array.shape
        return shape

    def resize(self, shape: tuple[int, ...]) -> None:
        """Gives the array another shape."""
        self.array.resize(shape)

    def __setitem__(self, key: Any, values: Any) -> None:
        region = self._region(key)
        if region is None or self._is_aligned(region):
            self.array[key] = values
            return
        values = np.asarray(values)
        if values.shape != tuple(at.stop - at.start for at in region):
            values = np.broadcast_to(values, [at.stop - at.start for at in region])
        store: Store = self.array.store
        step = max(1, MAX_BODY_BYTES // max(1, values.nbytes // max(1, len(values))))
        first = region[0]
        for start in range(0, len(values), step):
            part = values[start : start + step]
            along = slice(first.start + start, first.start + start + len(part))
            self._put(store, (along, *region[1:]), part)

    def _region(self, key: Any) -> tuple[slice, ...] | None:
        """Where, as plain slices; ``None`` for what only Zarr does."""
        store = self.array.store
        if not isinstance(store, Store) or store._transaction is None or self.array.ndim == 0:
            return None
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key or len(key) != self.array.ndim:
            return None
        region = []
        for at, size in zip(key, self.shape, strict=True):
            if not isinstance(at, slice) or at.step not in (None, 1):
                return None
            start, stop, _ = at.indices(size)
            region.append(slice(start, max(start, stop)))
        return tuple(region)

    def _is_aligned(self, region: tuple[slice, ...]) -> bool:
        grid = self.array.shards or self.array.chunks
        lines = zip(region, grid, self.shape, strict=True)
        return all(
            at.start % length == 0 and (at.stop % length == 0 or at.stop == size)
            for at, length, size in lines
        )

    def _put(self, store: Store, region: tuple[slice, ...], values: Any) -> None:
        if 0 in values.shape:
            return
        data_type = self.array.metadata.to_dict()["data_type"]
        kind, body = body_of(values, data_type)
        target = (
            f"/v1/transactions/{segment(str(store._transaction))}/data/"
            f"{key_path(self.array.path)}{query({'slice': slice_text(region)})}"
        )
        run(_put(store.transport, target, kind, body))


async def _put(transport: Transport, target: str, kind: str, body: bytes) -> None:
    answer = await transport.request("PUT", target, headers={"content-type": kind}, body=body)
    if answer.status >= 300:
        content = bytes(answer.body)
        raise from_response("PUT", target, answer.status, answer.headers, content)
