#!/usr/bin/env python3
"""Writes the tables of inputs and outputs into the README of each module and example of `terraform/`.

    scripts/generate-terraform-docs.py [--check]

What stands before the line `<!-- generated -->` is kept. With `--check`, only says what would change.
Needs python-hcl2, which the environment of the deployment tests has.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import hcl2

ROOT = Path(__file__).parents[1] / "terraform"
MARK = "<!-- generated: scripts/generate-terraform-docs.py -->"


def blocks(folder: Path, kind: str) -> list[tuple[str, dict]]:
    path = folder / f"{kind}s.tf"
    if not path.exists():
        return []
    with path.open() as file:
        found = hcl2.load(file).get(kind, [])
    return [(name.strip('"'), it) for block in found for name, it in block.items() if not name.startswith("__")]


def source(folder: Path, name: str, argument: str) -> str:
    """What stands after `argument =` in a variable, on one line."""
    text = (folder / "variables.tf").read_text()
    body = re.search(rf'^variable "{name}" \{{\n(.*?)^\}}', text, re.M | re.S)[1]
    found = re.search(rf"^  {argument} *= (.*?)(?=^  \w|^$|\Z)", body, re.M | re.S)
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
        for name, it in variables:
            default = source(folder, name, "default")
            kind = source(folder, name, "type")
            lines.append(
                f"| `{name}` | {cell(it['description'])} | `{kind}` | {f'`{default}`' if default else 'required'} |"
            )
    if outputs := blocks(folder, "output"):
        lines += ["", "## Outputs", "", "| name | what |", "|---|---|"]
        lines += [f"| `{name}` | {cell(it['description'])} |" for name, it in outputs]
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
