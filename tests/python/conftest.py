"""One store and one server for the whole run; every source file is imported once."""

from __future__ import annotations

import importlib.util
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

import buckets
import service
import sources

# The package of this checkout, unless one is installed.
sys.path.append(str(Path(__file__).parents[2] / "python"))

import quarr
from quarr._transport import Transport


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
    process = service.ServerProcess(store)
    yield process.server
    process.stop()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with buckets.started(tmp_path_factory.mktemp("bucket")) as bucket:
        yield bucket


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
            service.run("import", path, "--to", repo, "--store", store)
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


def pytest_report_header() -> list[str]:
    mode = "direct mode: not built, the client is tested over HTTP alone"
    if HAS_DIRECT_MODE:
        mode = "direct mode: built"
    if sources.real_files():
        return [mode, f"sample data: {len(sources.real_files())} files"]
    return [mode, "sample data: none found, only generated files are tested (QUARR_SAMPLE_DATA)"]


@dataclass(frozen=True)
class Backend:
    """A way to reach a store: `http` through a server, `direct` in this process."""

    name: str
    transport: Transport

    def client(self) -> quarr.Client:
        return quarr.Client(self.transport)

    def new_repo(self) -> quarr.Repository:
        """An empty repository of its own."""
        return self.client().create_repo(f"r{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="session")
def client_server(tmp_path_factory):
    """A server of the client's tests, apart from the one that reads imported files."""
    process = service.ServerProcess(tmp_path_factory.mktemp("client-store"))
    yield process.server
    process.stop()


HAS_DIRECT_MODE = importlib.util.find_spec("quarr._native") is not None


@pytest.fixture(scope="session", params=["http", "direct"] if HAS_DIRECT_MODE else ["http"])
def backend(request, tmp_path_factory) -> Backend:
    if request.param == "direct":
        folder = tmp_path_factory.mktemp("direct-store")
        return Backend("direct", quarr.open(folder).transport)
    server = request.getfixturevalue("client_server")
    return Backend("http", quarr.connect(server.url).transport)


@pytest.fixture
def repo(backend) -> quarr.Repository:
    """An empty repository."""
    return backend.new_repo()
