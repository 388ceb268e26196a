"""The `quarr` binary, and its server."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests


def binary() -> Path:
    folder = os.environ.get("QUARR_BIN")
    if not folder or not (Path(folder) / "quarr").exists():
        pytest.skip("QUARR_BIN does not name a folder that has quarr")
    return Path(folder).resolve() / "quarr"


def run(*arguments: str | Path, env: dict[str, str], check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [binary(), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done


class Server:
    """`quarr serve`; what it writes is shown when a test fails."""

    def __init__(self, *arguments: str, env: dict[str, str], before: tuple[str, ...] = (), listen: str = "127.0.0.1:0") -> None:
        command = [*before, str(binary()), "serve", "--listen", listen, *arguments]
        self.process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.url = ""
        self.log: list[str] = []
        for line in self.process.stdout or ():
            self.log.append(line)
            if found := re.search(r"Quarr serves .* at (http://[\d.]+:\d+)", line):
                self.url = found[1]
                break
        if not self.url:
            raise AssertionError(f"{' '.join(command)}\n{''.join(self.log)}")
        threading.Thread(target=self.drain, daemon=True).start()

    def drain(self) -> None:
        for line in self.process.stdout or ():
            self.log.append(line)
            sys.stdout.write(line)

    def get(self, path: str, **parameters) -> requests.Response:
        return requests.get(self.url + path, params=parameters, timeout=60)

    def stop(self, seconds: float = 60) -> None:
        self.process.terminate()
        assert self.process.wait(timeout=seconds) == 0, "".join(self.log)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind, *_) -> None:
        if self.process.poll() is None:
            if kind:
                self.process.kill()
                self.process.wait()
            else:
                self.stop()


def npy(values: list[float]) -> bytes:
    """A file of NumPy with one dimension of float64."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({len(values)},), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(values)}d", *values)
