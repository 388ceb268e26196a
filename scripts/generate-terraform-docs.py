#!/usr/bin/env python3
"""Writes the tables of inputs and outputs into the README of each module and example of `terraform/`.

    scripts/generate-terraform-docs.py [--check]

What stands before the line `<!-- generated -->` is kept. With `--check`, only says what would change.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1] / "terraform"
MARK = "<!-- generated: scripts/generate-terraform-docs.py -->"


def blocks(folder: Path, kind: str) -> list[tuple[str, str]]:
    """Names and bodies of the variables or outputs, which `terraform fmt` has put in one form."""
    path = folder / f"{kind}s.tf"
    text = path.read_text() if path.exists() else ""
    return re.findall(rf'^{kind} "(\w+)" \{{\n(.*?)^\}}', text, re.M | re.S)


def argument(body: str, name: str) -> str:
    """What stands after `name =`, on one line; empty if it is not there."""
    found = re.search(rf"^  {name} *= (.*?)(?=^  \w|^$|\Z)", body, re.M | re.S)
    if not found:
        return ""
    one = re.sub(r" +=", " =", re.sub(r"\s*\n\s*", ", ", found[1].strip()))
    return re.sub(r"([{(\[]), ", r"\1 ", one).replace(", }", " }").replace(", ]", " ]")


def cell(text: str) -> str:
    return text.strip('"').replace('\\"', '"').replace("|", "\\|")


def tables(folder: Path) -> str:
    lines = [MARK]
    if variables := blocks(folder, "variable"):
        lines += ["", "## Inputs", "", "| name | what | type | default |", "|---|---|---|---|"]
        for name, body in variables:
            default = argument(body, "default")
            what, kind = cell(argument(body, "description")), argument(body, "type")
            lines.append(f"| `{name}` | {what} | `{kind}` | {f'`{default}`' if default else 'required'} |")
    if outputs := blocks(folder, "output"):
        lines += ["", "## Outputs", "", "| name | what |", "|---|---|"]
        lines += [f"| `{name}` | {cell(argument(body, 'description'))} |" for name, body in outputs]
    return "\n".join(lines) + "\n"


def main() -> int:
    stale = []
    for folder in sorted(path.parent for path in ROOT.glob("*/*/main.tf")):
        readme = folder / "README.md"
        before = readme.read_text() if readme.exists() else f"# {folder.name}\n\n"
        after = before.partition(MARK)[0] + tables(folder)
        if after != before:
            stale.append(readme)
            if "--check" not in sys.argv:
                readme.write_text(after)
    for readme in stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {readme.relative_to(ROOT.parent)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
