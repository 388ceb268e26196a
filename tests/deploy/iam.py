"""Decides what policies of AWS allow.

As the service does it: a statement that denies wins over all that allow, and what nothing allows is
denied. Source: IAM User Guide, "Policy evaluation logic" and "Condition operators". What these policies
do not use is refused, so that nothing is decided by a rule that is not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

STATEMENT = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class Request:
    """One action on one resource. Keys of the context are in lower case."""

    action: str
    resource: str
    context: dict[str, str] = field(default_factory=dict)


def decide(request: Request, identity: str, resource: str = "") -> bool:
    """Whether the policy of a role, and the policy of the bucket if there is one, let it through."""
    own = matching(request, json.loads(identity)["Statement"])
    of_bucket = matching(request, json.loads(resource)["Statement"]) if resource else []
    effects = [statement["Effect"] for statement in own + of_bucket]
    return "Deny" not in effects and "Allow" in effects


def matching(request: Request, statements: Iterable[dict]) -> list[dict]:
    return [statement for statement in statements if matches(request, statement)]


def matches(request: Request, statement: dict) -> bool:
    unknown = statement.keys() - STATEMENT
    assert not unknown, f"statements with {unknown} are not understood"
    assert statement.get("Principal", "*") == "*", "principals other than everybody are not understood"
    return (
        any(like(pattern.lower(), request.action.lower()) for pattern in statement["Action"])
        and any(like(pattern, request.resource) for pattern in statement["Resource"])
        and all(
            holds(operator, request.context.get(key.lower()), wanted)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def like(pattern: str, text: str) -> bool:
    """`*` is any number of characters, `?` is one."""
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", pattern))
    return re.fullmatch("".join(parts), text, re.S) is not None


def holds(operator: str, value: str | None, wanted: str | list[str]) -> bool:
    wanted = [wanted] if isinstance(wanted, str) else wanted
    match operator:
        case "Null":
            return wanted == ["true"] if value is None else wanted == ["false"]
        case "StringNotEquals":
            return value is None or value not in wanted
        case "StringEquals" | "ArnEquals":
            return value is not None and value in wanted
        case "Bool":
            return value is not None and value.lower() in wanted
        case "NumericLessThan":
            return value is not None and any(float(value) < float(limit) for limit in wanted)
    raise AssertionError(f"the condition {operator} is not understood")
