"""What can go wrong, one class for each thing a caller can do about it.

The service answers failures with problem documents (RFC 9457); :func:`from_response` turns one into
an exception. All of them are :class:`Error`, can be pickled, and keep the document's members.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BadRequestError",
    "Conflict",
    "ConflictError",
    "DamageError",
    "Error",
    "ExpiredError",
    "ForbiddenError",
    "IntegrityError",
    "JobError",
    "NoAnswerError",
    "NotFoundError",
    "PreconditionError",
    "ServiceError",
    "TooLargeError",
    "TransportError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownOutcomeError",
]


@dataclass(frozen=True, slots=True)
class Conflict:
    """One thing that both sides changed."""

    path: str
    """The node; empty for the root."""
    kind: str
    """``created``, ``deleted``, ``shape``, ``dropped-region``, ``data``, ``metadata``,
    ``attribute``, ``read`` or ``staged-twice``."""
    attribute: str | None = None
    """The attribute, for kind ``attribute``."""
    slice: str | None = None
    """The elements concerned, as a slice: ``0:4,5:8``."""


class Error(Exception):
    """Anything that Quarr reports.

    Attributes
    ----------
    status : HTTP status of the answer; ``None`` if there was none.
    kind : stable name of the kind of problem, like ``not-found``; empty if there is none.
    parameter : the request parameter that is wrong.
    limit : the limit that was passed, with its unit in the message.
    suggestions : names that exist and look like the one that does not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str = "",
        parameter: str | None = None,
        limit: int | None = None,
        suggestions: tuple[str, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter
        self.limit = limit
        self.suggestions = suggestions
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(kind: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BadRequestError(Error, ValueError):
    """The request is wrong in itself: a parameter, a format, a body, a name."""


class NotFoundError(Error, LookupError):
    """There is no repository, ref, node, transaction or job of this name."""


class ConflictError(Error):
    """Someone else was first: a name is taken, or both sides of a commit changed the same thing.

    ``conflicts`` lists what both sides changed; it is empty where a name is taken.
    """

    def __init__(self, message: str, *, conflicts: tuple[Conflict, ...] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.conflicts = conflicts


class ExpiredError(Error):
    """It was there and is no more."""


class UnauthorizedError(Error):
    """The service asks who you are: give a token, or one that is valid."""


class ForbiddenError(Error):
    """You may not do this, or the service may not, like reading a file of its own for an import."""


class PreconditionError(Error):
    """A condition of the request does not hold: the branch moved, or something exists already."""


class TooLargeError(Error):
    """More than the service gives, or takes, at once; ``limit`` says how much it does."""


class NoAnswerError(Error, ValueError):
    """The request is well formed and means nothing here, like the mean of texts."""


class UnavailableError(Error):
    """The service has too much to do, or its store does not answer; try again later."""


class UnknownOutcomeError(Error):
    """It is not known whether a commit went through. Repeating it with its key tells."""


class DamageError(Error):
    """Stored data is not as it was written."""


class ServiceError(Error):
    """The service failed in a way that is its own fault."""


class TransportError(Error, ConnectionError):
    """The service could not be reached, or the connection broke."""


class IntegrityError(Error):
    """What the service sent does not follow from its proof, or the proof does not hold."""


class JobError(Error):
    """A job failed or was cancelled."""


_BY_STATUS: dict[int, type[Error]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
    412: PreconditionError,
    413: TooLargeError,
    416: BadRequestError,
    422: NoAnswerError,
    429: UnavailableError,
    503: UnavailableError,
    504: UnknownOutcomeError,
}


def from_response(
    method: str, target: str, status: int, headers: Mapping[str, str], body: bytes
) -> Error:
    """The exception for an answer of status 300 or more."""
    problem: dict[str, Any] = {}
    if "json" in headers.get("content-type", ""):
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            problem = parsed
    kind = str(problem.get("type", "")).rsplit("/", 1)[-1]
    detail = problem.get("detail") or body[:200].decode("utf-8", "replace") or "no explanation"
    suggestions = tuple(map(str, problem.get("suggestions") or ()))
    if suggestions and not any(name in detail for name in suggestions):
        detail += f"; did you mean {' or '.join(suggestions)}?"
    wait = headers.get("retry-after", "")
    rest: dict[str, Any] = {
        "status": status,
        "kind": kind,
        "parameter": problem.get("parameter"),
        "limit": problem.get("limit"),
        "suggestions": suggestions,
        "retry_after_s": float(wait) if wait.isdigit() else None,
    }
    message = f"{detail} ({status} of {method} {target})"
    error = _BY_STATUS.get(status)
    if error is ConflictError:
        given = problem.get("conflicts") or ()
        names = ("path", "kind", "attribute", "slice")
        conflicts = tuple(Conflict(**{n: c[n] for n in names if n in c}) for c in given)
        if conflicts:
            places = [f"{c.kind} of /{c.path.lstrip('/')}" for c in conflicts[:5]]
            message = f"{message}: {', '.join(places)}{', …' if len(conflicts) > 5 else ''}"
        return ConflictError(message, conflicts=conflicts, **rest)
    if error is None and status < 500:
        error = BadRequestError
    elif error is None:
        error = DamageError if kind == "damaged" else ServiceError
    return error(message, **rest)
