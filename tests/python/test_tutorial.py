"""The tutorial in `docs/python.md` does what it shows."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

import service

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
URL = "http://127.0.0.1:8686"


def blocks() -> list[tuple[str, str | None]]:
    """The pieces of code of the tutorial, each with the output that is shown below it."""
    tutorial = DOCUMENT.read_text().partition("## Tutorial")[2].partition("## Reference")[0]
    found = re.findall(r"```(\w+)\n(.*?)```", tutorial, re.DOTALL)
    pieces: list[tuple[str, str | None]] = []
    for kind, text in found:
        if kind == "python":
            pieces.append((text, None))
        else:
            assert kind == "text" and pieces[-1][1] is None
            pieces[-1] = (pieces[-1][0], text)
    return pieces


def run(code: str, names: dict) -> str:
    """What a notebook shows: what is printed, and the value of the last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, str(DOCUMENT), "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), str(DOCUMENT), "eval"), names)
            if value is not None:
                print(repr(value))
    return printed.getvalue()


def test_the_tutorial_prints_what_it_shows(tmp_path):
    process = service.ServerProcess(tmp_path)
    try:
        names: dict = {"__name__": "tutorial"}
        for code, shown in blocks():
            found = run(code.replace(URL, process.server.url), names)
            assert found == (shown or ""), code
    finally:
        process.stop()


def test_there_is_a_tutorial():
    shown = [output for _, output in blocks() if output]
    assert len(shown) > 15


@pytest.mark.parametrize("kind", ["Client", "Repository", "Snapshot", "Transaction", "Job"])
def test_the_reference_names_every_method(kind):
    import quarr

    row = re.search(rf"^\| `{kind}` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", row[1]))
    own = {name for name in vars(getattr(quarr, kind)) if not name.startswith("_")}
    others = {"asynchronous", "transport", "name", "repository", "branch", "base"}
    assert named == own - others
