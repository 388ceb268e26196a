"""One store and one server for the whole run; every source file is imported once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import quarr
import sources




@dataclass(frozen=True)
class Imported:
    """A file and the repository it was imported into."""

    path: Path
    repo: str


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def server(store):
    process = quarr.ServerProcess(store)
    yield process.server
    process.stop()


@pytest.fixture(scope="session")
def import_once(store, tmp_path_factory):
    """Imports a source by name, generating it first if it is one of the generated ones."""
    folder = tmp_path_factory.mktemp("sources")
    done: dict[str, Imported] = {}

    def imported(name: str) -> Imported:
        if name not in done:
            path = sources.SAMPLE_DATA / name
            if name in sources.GENERATED:
                path = folder / name
                sources.GENERATED[name](path)
            repo = re.sub("[^a-z0-9]+", "-", name.lower())
            quarr.run("import", path, "--to", repo, "--store", store)
            done[name] = Imported(path, repo)
        return done[name]

    return imported


def source_names() -> list[str]:
    return [*sources.GENERATED, *(path.name for path in sources.real_files())]


def pytest_generate_tests(metafunc) -> None:
    """`source` stands for every file that the oracles cover."""
    if "source" in metafunc.fixturenames:
        metafunc.parametrize("source", source_names(), indirect=True)


@pytest.fixture
def source(request, import_once) -> Imported:
    return import_once(request.param)


def pytest_report_header() -> str:
    if sources.real_files():
        return f"sample data: {len(sources.real_files())} files"
    return "sample data: none found, only generated files are tested (see QUARR_SAMPLE_DATA)"
