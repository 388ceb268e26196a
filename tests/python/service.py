"""The `quarr` binary under test, its server, and what the oracles share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests

BIN = Path(os.environ["QUARR_BIN"]) / "quarr"
# Nobody's own keys.
KEYS = tempfile.TemporaryDirectory(prefix="quarr-keys-", ignore_cleanup_errors=True)
os.environ["QUARR_KEYS"] = KEYS.name


def run(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `quarr` and returns its output; fails the test on an unexpected exit status."""
    done = subprocess.run(
        [BIN, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False
    )
    if check and done.returncode != 0:
        raise AssertionError(f"quarr {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    return done


# The peak of a process includes that of the one it was started by, and this one may have grown large.
SMALL_PARENT = """
import os, signal, sys
to_nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=to_nowhere)
signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
signal.alarm(int(sys.argv[1]))
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""


@dataclass(frozen=True)
class Measured:
    """How a run ended: its status, what it said, the most memory it took."""

    status: int
    stderr: str
    memory_bytes: int


def run_measured(*arguments: str | Path, seconds: int = 600) -> Measured:
    """Runs `quarr`, for so long at most, whatever its status; counts memory."""
    command = [sys.executable, "-I", "-S", "-c", SMALL_PARENT, str(seconds), BIN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    status, peak_kib = map(int, done.stdout.split())
    return Measured(status, done.stderr, peak_kib * 1024)


def run_json(*arguments: str | Path):
    return json.loads(run(*arguments, "--json").stdout)


def repositories(store: Path) -> list[str]:
    """Names of the repositories of a store."""
    return [repo["name"] for repo in run_json("repo", "list", "--store", store)["repositories"]]


@dataclass(frozen=True)
class Server:
    """A running `quarr serve`."""

    url: str

    def get(self, path: str, **parameters) -> requests.Response:
        return requests.get(self.url + path, params=parameters, timeout=60)

    def branch_url(self, repo: str, ref: str = "main") -> str:
        """The Zarr store that follows a ref."""
        return f"{self.url}/v1/repos/{repo}/refs/{ref}/zarr"

    def pinned_url(self, repo: str, ref: str = "main") -> str:
        """The Zarr store of the commit that a ref is at now, as the server hands it out."""
        answer = self.get(f"/v1/repos/{repo}/refs/{ref}")
        answer.raise_for_status()
        url = answer.json()["zarr_url"]
        return url if url.startswith("http") else self.url + url

    def data_url(self, repo: str, path: str, what: str = "data", ref: str = "main") -> str:
        return f"/v1/repos/{repo}/refs/{ref}/{what}/{quote(path)}"


class ServerProcess:
    """Starts a server, on a free port if none is given, and stops it; its output is shown when a test
    fails."""

    def __init__(
        self,
        store: Path,
        *arguments: str,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [BIN, "serve", "--store", store, "--listen", f"127.0.0.1:{port}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # There is no balancer that would have to notice.
            env={"QUARR_DRAIN_DELAY": "0s"} | os.environ | dict(environment or {}),
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            sys.stdout.write(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.server = Server(found[0])
                break
        else:
            raise AssertionError("quarr serve stopped before it listened")
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            sys.stdout.write(line)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(timeout=30) == 0, "quarr serve did not stop cleanly"
