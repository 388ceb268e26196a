"""What the store lost or changed is an error in every client, never a fill value or an empty group."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import requests
import xarray as xr
import zarr

import service
from clients import CLIENTS

pytestmark = pytest.mark.once

VARIABLE = "t2m"


@pytest.fixture(scope="module")
def weather(store, import_once, tmp_path_factory):
    """A copy of a repository that may be damaged, its newest commit and the values of a variable."""
    repo = import_once("weather.nc").repo
    copy = tmp_path_factory.mktemp("lossy")
    shutil.copytree(store / repo, copy / repo)
    process = service.ServerProcess(copy)
    commit = process.server.pinned_url(repo).split("/refs/")[1].split("/")[0]
    values = CLIENTS["zarr-python"](process.server.pinned_url(repo), VARIABLE, ...)
    process.stop()
    return copy, repo, commit, values


def lose(path):
    path.unlink()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def read_dataset(url: str, path: str, index) -> np.ndarray:
    """xarray over zarr-python: a lost member of the group must not be a smaller dataset."""
    with xr.open_zarr(url, mask_and_scale=False, decode_times=False) as dataset:
        return dataset[path].load().to_numpy()


READERS = {**CLIENTS, "xarray": read_dataset}


def outcome(read, url: str, wanted: np.ndarray) -> str:
    try:
        found = read(url, VARIABLE, ...)
    except BaseException:  # noqa: BLE001 - zarrs panics with one that is no `Exception`
        return "error"
    np.testing.assert_array_equal(found, wanted, strict=True)
    return "right"


@pytest.mark.parametrize("damage", [lose, flip, cut])
def test_damage_is_an_error_in_every_client(weather, damage):
    store, repo, commit, wanted = weather
    folder = store / repo
    objects = [path for top in ("objects", "shards") for path in (folder / top).rglob("*")]
    objects = sorted(path for path in objects if path.is_file())
    assert objects
    failed: dict[str, set[str]] = {name: set() for name in READERS}
    for path in objects:
        good = path.read_bytes()
        damage(path)
        process = service.ServerProcess(store)
        url = f"{process.server.url}/v1/repos/{repo}/refs/{commit}/zarr"
        for name, read in READERS.items():
            if outcome(read, url, wanted) == "error":
                failed[name].add(path.relative_to(folder).parts[0])
        process.stop()
        path.write_bytes(good)
    for name, kinds in failed.items():
        assert "objects" in kinds, f"{name} never noticed"
    assert len({frozenset(kinds) for kinds in failed.values()}) == 1, failed


def test_a_lost_root_is_no_empty_group(weather):
    store, repo, commit, _ = weather
    (path,) = (store / repo / "objects").glob(f"{commit[:2]}/*{commit[2:]}")
    good = path.read_bytes()
    path.unlink()
    process = service.ServerProcess(store)
    try:
        # The log has the commit as the head of the branch: it was there.
        with pytest.raises(Exception, match="500|Internal"):
            zarr.open_group(process.server.branch_url(repo), mode="r")
        # What never was and what is lost look alike by id; neither is all fill value.
        pinned = f"{process.server.url}/v1/repos/{repo}/refs/{commit}/zarr/{VARIABLE}"
        assert requests.get(f"{pinned}/zarr.json", timeout=60).status_code == 404
        assert requests.get(f"{pinned}/c/0/0/0", timeout=60).status_code == 410
    finally:
        process.stop()
        path.write_bytes(good)
