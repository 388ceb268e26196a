"""Runs Terraform, or OpenTofu, offline: with the providers of `provider.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import provider

ROOT = Path(__file__).parents[2] / "terraform"


def folders() -> list[Path]:
    """All modules and examples."""
    return sorted(path.parent for path in ROOT.glob("*/*/main.tf"))


@dataclass(frozen=True)
class Terraform:
    binary: str
    environment: dict[str, str]
    scratch: Path

    def run(self, folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in a folder, into which nothing is written."""
        data = self.scratch / str(folder).strip("/").replace("/", "-")
        environment = {**self.environment, "TF_DATA_DIR": str(data)}
        if not data.exists():
            self.call(folder, environment, "init", "-input=false", "-backend=false", check=True)
        return self.call(folder, environment, *arguments, check=check)

    def call(self, folder: Path, environment: dict[str, str], *arguments: str, check: bool):
        command = [self.binary, *arguments, "-no-color"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} in {folder}\n{done.stdout}{done.stderr}")
        return done

    def outputs(self, module: Path, values: dict) -> dict:
        """The outputs of a module that has no resources, for these values of its variables."""
        folder = self.scratch / f"root-{module.name}-{len(list(self.scratch.iterdir()))}"
        folder.mkdir()
        names = [name.split('"')[1] for name in (module / "outputs.tf").read_text().splitlines() if name.startswith("output ")]
        root = {
            "module": {"it": {"source": os.path.relpath(module, folder), **values}},
            "output": {name: {"value": f"${{module.it.{name}}}"} for name in names},
        }
        (folder / "main.tf.json").write_text(json.dumps(root))
        self.run(folder, "apply", "-auto-approve", "-input=false")
        return {name: it["value"] for name, it in json.loads(self.run(folder, "output", "-json").stdout).items()}


@contextmanager
def available(scratch: Path) -> Iterator[Terraform]:
    binary = shutil.which("terraform") or shutil.which("tofu")
    if not binary:
        pytest.skip("neither Terraform nor OpenTofu is installed")
    with provider.running(scratch) as reattach:
        environment = {**os.environ, **reattach, "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull}
        yield Terraform(binary, environment, scratch)
