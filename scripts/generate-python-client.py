#!/usr/bin/env python3
"""Writes python/quarr/client.py, the synchronous client, from python/quarr/aio.py.

    scripts/generate-python-client.py          writes it
    scripts/generate-python-client.py --check  fails if it is out of date

Every class `AsyncX` becomes `X` with the same methods, signatures and documentation, which hand
over to the asynchronous ones. So there is one client, and two ways to call it.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path

PYTHON = Path(__file__).parents[1] / "python" / "quarr"
WIDTH = 100

HEADER = '''\
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
'''

COMMON = '''
    def __repr__(self) -> str:
        return repr(self._aio).removeprefix("Async")

    @property
    def asynchronous(self) -> aio.{name}:
        """The same, asynchronous."""
        return self._aio

    @property
    def transport(self) -> Transport:
        """How requests reach the service."""
        return self._aio.transport
'''

CLIENT_INIT = '''
    def __init__(
        self, source: str | os.PathLike[str] | Transport | aio.AsyncClient, **options: Any
    ) -> None:
        if isinstance(source, aio.AsyncClient):
            self._aio = source
        else:
            self._aio = aio.AsyncClient(source, **options)
'''

INIT = '''
    def __init__(self, made: aio.{name}) -> None:
        self._aio = made
'''


def sync_text(text: str) -> str:
    """Documentation and annotations of the synchronous client."""
    text = re.sub(r"\bOpening\[(\w+)\]", r"\1", text)
    text = re.sub(r"\bAsync(Client|Job|Repository|Snapshot|Transaction)\b", r"\1", text)
    return text.replace("AsyncIterator", "Iterator")


def arguments(call: ast.arguments) -> str:
    """The arguments that hand everything on."""
    handed = [arg.arg for arg in call.args[1:]]
    handed += [f"{arg.arg}={arg.arg}" for arg in call.kwonlyargs]
    if call.kwarg:
        handed.append(f"**{call.kwarg.arg}")
    return ", ".join(handed)


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    returns = sync_text(ast.unparse(function.returns)) if function.returns else "None"
    call = function.args
    lines = [call.args[0].arg]
    defaults = [None] * (len(call.args) - len(call.defaults)) + list(call.defaults)

    def parameter(arg: ast.arg, default: ast.expr | None) -> str:
        text = arg.arg
        if arg.annotation:
            text += f": {sync_text(ast.unparse(arg.annotation))}"
        if default is not None:
            text += f"{' = ' if arg.annotation else '='}{ast.unparse(default)}"
        return text

    lines += [parameter(a, d) for a, d in zip(call.args[1:], defaults[1:], strict=True)]
    if call.kwonlyargs:
        lines.append("*")
    lines += [parameter(a, d) for a, d in zip(call.kwonlyargs, call.kw_defaults, strict=True)]
    if call.kwarg:
        lines.append("**" + parameter(call.kwarg, None))
    on_one = ", ".join(lines)
    if len(one := f"    def {name}({on_one}) -> {returns}:") <= WIDTH:
        return one
    if len(on_one) <= WIDTH - 8:
        return f"    def {name}(\n        {on_one}\n    ) -> {returns}:"
    spread = "".join(f"        {line},\n" for line in lines)
    return f"    def {name}(\n{spread}    ) -> {returns}:"


def body(function: ast.FunctionDef | ast.AsyncFunctionDef, is_property: bool) -> str:
    returns = ast.unparse(function.returns) if function.returns else "None"
    call = f"self._aio.{function.name}"
    if function.name == "__getitem__":
        # It needs the synchronous snapshot.
        return "        from .xarray import RemoteArray\n\n        return RemoteArray(self, path)"
    if not is_property:
        call += f"({arguments(function.args)})"
    if function.name == "__aenter__":
        return "        return self"
    if returns.startswith("AsyncIterator"):
        return f"        return iterate({call})"
    if isinstance(function, ast.AsyncFunctionDef) or returns.startswith("Opening"):
        call = f"run({call})"
    if made := re.fullmatch(r"(?:Opening\[)?Async(\w+?)\]?", returns):
        call = f"{made[1]}({call})"
    return f"        {call}" if returns == "None" else f"        return {call}"


def wrap(text: str) -> str:
    """A line that is too long, in several: calls are opened from the outside in."""
    if len(text) <= WIDTH or not text.endswith(")"):
        return text
    indent = " " * (len(text) - len(text.lstrip()))
    head, _, inside = text[:-1].partition("(")
    if re.match(r"(self|run|iterate)[.\w]*\(.*\)$", inside):
        inner = wrap(f"{indent}    {inside}")
        return f"{head}(\n{inner}\n{indent})"
    if len(one := f"{indent}    {inside}") <= WIDTH:
        return f"{head}(\n{one}\n{indent})"
    lines = "".join(f"{indent}    {item},\n" for item in inside.split(", "))
    return f"{head}(\n{lines}{indent})"


def method(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    is_property = any(ast.unparse(d) == "property" for d in function.decorator_list)
    name = function.name.replace("__aenter__", "__enter__").replace("__aexit__", "__exit__")
    parts = ["    @property"] if is_property else []
    parts.append(signature(function, name))
    documentation = ast.get_docstring(function)
    if documentation:
        lines = sync_text(documentation).splitlines()
        lines[0] = f'"""{lines[0]}'
        if len(lines) == 1 and len(lines[0]) + 11 <= WIDTH:
            lines[0] += '"""'
        else:
            lines.append('"""')
        parts.append(textwrap.indent("\n".join(lines), " " * 8, lambda line: bool(line.strip())))
    parts.append("\n".join(wrap(line) for line in body(function, is_property).splitlines()))
    return "\n".join(parts)


def generate() -> str:
    tree = ast.parse((PYTHON / "aio.py").read_text())
    names, classes = [], []
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name.startswith("Async")):
            continue
        name = node.name.removeprefix("Async")
        names.append(name)
        documentation = sync_text(ast.get_docstring(node) or "").replace("\n", "\n    ")
        documentation = re.sub(r"[ ]+\n", "\n", documentation)
        closing = '"""' if "\n" not in documentation else '\n    """'
        text = f'class {name}:\n    """{documentation}{closing}\n'
        text += CLIENT_INIT if name == "Client" else INIT.format(name=node.name)
        text += COMMON.format(name=node.name)
        for member in node.body:
            if not isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            kept = ("__aenter__", "__aexit__", "__getitem__", "__dask_tokenize__")
            if member.name.startswith("_") and member.name not in kept:
                continue
            text += f"\n{method(member)}\n"
        classes.append(text)
    listed = "".join(f'    "{name}",\n' for name in sorted(names))
    return "\n\n".join([HEADER + f"\n__all__ = [\n{listed}]\n", *classes])


def main() -> int:
    path = PYTHON / "client.py"
    text = generate()
    if "--check" in sys.argv:
        if not path.exists() or path.read_text() != text:
            print("python/quarr/client.py is out of date: scripts/generate-python-client.py")
            return 1
        return 0
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
