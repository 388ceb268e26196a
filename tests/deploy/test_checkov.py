"""What checkov knows of insecure settings is not found in `terraform/`; each suppression says why."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CHECKOV = REPOSITORY / ".venv-deploy" / "checkov" / "bin" / "checkov"
SUPPRESSION = re.compile(r"#checkov:skip=([A-Z0-9_]+):(.*)")


def suppressions() -> list[tuple[str, str, str]]:
    files = sorted((REPOSITORY / "terraform").rglob("*.tf"))
    return [(str(path.relative_to(REPOSITORY)), *found) for path in files for found in SUPPRESSION.findall(path.read_text())]


def test_each_suppression_gives_a_reason():
    assert suppressions()
    for place, check, reason in suppressions():
        assert len(reason.split()) >= 6, f"{place}: {check}"


@pytest.mark.long
def test_checkov_finds_nothing(tmp_path):
    if not CHECKOV.exists():
        pytest.skip("checkov is not installed: scripts/setup.sh deploy")
    command = [CHECKOV, "--framework", "terraform", "--skip-download", "--compact", "-o", "json", "-d"]

    def run(folder: Path) -> dict:
        done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=900, check=False)
        found = json.loads(done.stdout)
        (of_terraform,) = found if isinstance(found, list) else [found]
        return of_terraform

    found = run(REPOSITORY / "terraform")
    failed = [f"{check['check_id']} {check['resource']} {check['check_name']}" for check in found["results"]["failed_checks"]]
    assert not failed
    assert found["summary"]["passed"] > 50 and not found["summary"]["parsing_errors"]
    # The check can fail.
    (tmp_path / "main.tf").write_text('resource "aws_s3_bucket" "open" { bucket = "a" }\n')
    assert run(tmp_path)["summary"]["failed"] > 0
