"""Quarr for Python.

    import quarr

    client = quarr.connect("http://127.0.0.1:8686")     # a service
    client = quarr.open("s3://bucket/prefix")           # or a store, without one
    repo = client.repo("climate")
    repo.at("main").read("t2m", np.s_[0, :, 10:20])     # numpy
    xr.open_zarr(repo.store("main"))                    # xarray

``docs/python.md`` is a tutorial and the reference.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .aio import (
    AsyncClient,
    AsyncJob,
    AsyncRepository,
    AsyncSnapshot,
    AsyncTransaction,
    Proof,
    ReduceOptions,
)
from .client import Client, Job, Repository, Snapshot, Transaction
from .errors import (
    BadRequestError,
    Conflict,
    ConflictError,
    DamageError,
    Error,
    ExpiredError,
    ForbiddenError,
    IntegrityError,
    JobError,
    NoAnswerError,
    NotFoundError,
    PreconditionError,
    ServiceError,
    TooLargeError,
    TransportError,
    UnauthorizedError,
    UnavailableError,
    UnknownOutcomeError,
)
from .models import (
    Commit,
    Committed,
    Diff,
    JobInfo,
    Limits,
    LogEntry,
    Move,
    NodeDifference,
    Ref,
    RepositoryInfo,
    TransactionInfo,
)

if TYPE_CHECKING:
    from .store import Store
    from .xarray import to_quarr

try:
    __version__ = metadata.version("quarr")
except metadata.PackageNotFoundError:
    # From a checkout that is not installed.
    __version__ = "0.0.0"

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AsyncRepository",
    "AsyncSnapshot",
    "AsyncTransaction",
    "BadRequestError",
    "Client",
    "Commit",
    "Committed",
    "Conflict",
    "ConflictError",
    "DamageError",
    "Diff",
    "Error",
    "ExpiredError",
    "ForbiddenError",
    "IntegrityError",
    "Job",
    "JobError",
    "JobInfo",
    "Limits",
    "LogEntry",
    "Move",
    "NoAnswerError",
    "NodeDifference",
    "NotFoundError",
    "PreconditionError",
    "Proof",
    "ReduceOptions",
    "Ref",
    "Repository",
    "RepositoryInfo",
    "ServiceError",
    "Snapshot",
    "Store",
    "TooLargeError",
    "Transaction",
    "TransactionInfo",
    "TransportError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOutcomeError",
    "connect",
    "open",
    "to_quarr",
]


def connect(
    url: str,
    *,
    token: str | None = None,
    timeout_s: float = 300.0,
    headers: Mapping[str, str] | None = None,
    compress: bool = False,
) -> Client:
    """Connects to a service.

    Parameters
    ----------
    url : where it is: ``http://127.0.0.1:8686``.
    token : an API key or a JWT, sent as ``Authorization: Bearer``; that in the environment variable
        ``QUARR_TOKEN`` if left out, none if empty.
    timeout_s : longest wait for the next bytes of an answer, in seconds.
    headers : sent with every request.
    compress : whether answers may come compressed: fewer bytes, more time.
    """
    from ._transport import HttpTransport

    return Client(
        HttpTransport(url, token=token, timeout_s=timeout_s, headers=headers, compress=compress)
    )


def open(url: str | os.PathLike[str], **options: Any) -> Client:
    """Opens a store in this process: a path, ``s3://…``, ``gs://…``, ``az://…``.

    ``options`` are those of the engine: ``options`` (of the object store), ``memory_limit_bytes``,
    ``threads``, ``cache_dir``, ``cache_disk_bytes``. A URL of a service connects to it.
    """
    return Client(AsyncClient(url, **options))


def __getattr__(name: str) -> Any:
    # zarr and xarray are optional.
    if name == "Store":
        from .store import Store

        return Store
    if name == "to_quarr":
        from .xarray import to_quarr

        return to_quarr
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
