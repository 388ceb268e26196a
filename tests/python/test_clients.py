"""Independent Zarr readers get every array whose type and codecs they know, whole and in part.

Which ones those are is the table in `docs/clients.md`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import zarr

import oracle
import service
from clients import CLIENTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
SHAPE = (7, 10)
# Slices only: zarrs takes no integers.
PARTS = [np.s_[:, :], np.s_[0:1, :], np.s_[2:7, 5:9], np.s_[3:5, 9:10]]


@dataclass(frozen=True)
class Sample:
    """An array of the sample repository and its values, `None` where NumPy has no such type."""

    path: str
    values: np.ndarray

    def equals(self, found: np.ndarray, part) -> bool:
        wanted = self.values[part]
        if wanted.dtype.kind == "O":
            return found.shape == wanted.shape and all(
                as_bytes(one) == other for one, other in zip(found.flat, wanted.flat, strict=True)
            )
        # As bytes: bit-exact, and types that NumPy lacks are compared too.
        return found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def as_bytes(value) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def read_sample(entry: dict) -> Sample:
    shape, values = entry["shape"], entry["values"]
    if isinstance(values, str):
        flat = np.frombuffer(base64.b64decode(values), entry["dtype"])
    else:
        flat = np.array([base64.b64decode(value) for value in values] + [None], object)[:-1]
    return Sample(entry["path"], flat.reshape(shape))


def documented() -> dict[tuple[str, str], str]:
    """What a client makes of an array, by (client, path), from the table."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {}
    for row in cells:
        if row[0] == "array":
            header = row
        elif path := re.fullmatch(r"`(.+)`", row[0]):
            for client, answer in zip(header[1:], row[1:], strict=True):
                found[client, path[1]] = answer_now(answer)
    return found


def answer_now(answer: str) -> str:
    """`from 3.4` is a yes or a no, by the version of zarr-python."""
    if not answer.startswith("from "):
        return answer
    wanted = tuple(map(int, answer.removeprefix("from ").split(".")))
    return "yes" if tuple(map(int, zarr.__version__.split(".")[:2])) >= wanted else "no"


DOCUMENTED = documented()


@pytest.fixture(scope="module")
def samples(store, tmp_path_factory) -> dict[str, Sample]:
    folder = tmp_path_factory.mktemp("types")
    maker = Path(os.environ["QUARR_BIN"]) / "sample-types"
    subprocess.run([maker, store, "types", folder], check=True)
    entries = json.loads((folder / "arrays.json").read_text())
    return {entry["path"]: read_sample(entry) for entry in entries}


@pytest.fixture(scope="module")
def exported(store, samples, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("exported") / "types.zarr"
    service.run("export", "types", folder, "--store", store)
    return str(folder)


@pytest.fixture(params=["branch", "pinned", "folder"])
def location(request, server, samples) -> str:
    if request.param == "folder":
        return request.getfixturevalue("exported")
    return getattr(server, f"{request.param}_url")("types")


def test_the_table_names_every_sample_array(samples):
    assert {path for _, path in DOCUMENTED} == set(samples)
    assert {client for client, _ in DOCUMENTED} - set(CLIENTS) <= {"zarrita"}


@pytest.mark.parametrize(("client", "path"), DOCUMENTED)
def test_clients_read_what_the_table_says(location, samples, client, path):
    if client not in CLIENTS:
        pytest.skip(f"{client} is not installed: it needs Node and npm")
    if client == "zarrita" and not location.startswith("http"):
        pytest.skip("zarrita reads over HTTP alone here")
    sample, read = samples[path], CLIENTS[client]
    answer = DOCUMENTED[client, path]
    if answer == "no":
        # A client's own error, of no common type; zarrs panics with one that is no `Exception`.
        with pytest.raises(BaseException):  # noqa: B017
            read(location, path, ...)
        return
    parts = PARTS if sample.values.shape == SHAPE else [...]
    equal = {sample.equals(read(location, path, part), part) for part in parts}
    assert equal == {"yes": {True}, "other": {False}, "in part": {True, False}}[answer]


def test_a_group_with_unsupported_arrays_still_opens(location):
    members = dict(zarr.open_group(location, mode="r")["types"].members())
    assert {"int8", "string", "datetime64_ns"} <= set(members)


def test_every_client_reads_imported_variables(server, store, source, tmp_path):
    """Every numeric variable of a file, whole and in part, over HTTP and exported."""
    folder = tmp_path / "exported.zarr"
    service.run("export", source.repo, folder, "--store", store)
    with netCDF4.Dataset(source.path) as dataset:
        dataset.set_auto_maskandscale(False)
        for group in oracle.groups(source.path):
            for name, variable in (dataset[group] if group else dataset).variables.items():
                wanted = np.asarray(variable[...])
                if wanted.dtype.kind not in "iuf" or wanted.size == 0:
                    continue
                wanted = wanted.astype(wanted.dtype.newbyteorder("="))
                path = f"{group}/{name}".lstrip("/")
                part = tuple(slice(n // 3, n // 3 + max(1, n // 4)) for n in wanted.shape)
                for place in (server.branch_url(source.repo), str(folder)):
                    for client, read in CLIENTS.items():
                        # Its Python front puts paths into URLs unescaped.
                        if client == "zarrs" and place != str(folder) and " " in path:
                            with pytest.raises(RuntimeError, match="invalid uri character"):
                                read(place, path, ...)
                            continue
                        if client == "zarrita" and place == str(folder):
                            continue
                        for index in (..., part) if wanted.ndim else (...,):
                            found = read(place, path, index)
                            message = f"{client} {place} {path}"
                            np.testing.assert_array_equal(
                                found, wanted[index], err_msg=message, strict=True
                            )
