"""What the tests of `deploy/` and `terraform/` share. None of them needs a network or an account."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import store_server
import terraform

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tf(tmp_path_factory) -> Iterator[terraform.Terraform]:
    """Terraform with providers that know their schemas alone."""
    with terraform.available(tmp_path_factory.mktemp("terraform")) as found:
        yield found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> Iterator[store_server.Bucket]:
    """A bucket of an S3 server."""
    with store_server.started(tmp_path_factory.mktemp("bucket")) as bucket:
        yield bucket


def pytest_report_header() -> list[str]:
    return [f"deployment of {REPOSITORY}, Python {sys.version.split()[0]}"]
