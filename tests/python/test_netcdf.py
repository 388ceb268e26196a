"""A NetCDF file read back through the server is what xarray shows for the file itself."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

import oracle
import service
import sources

pytestmark = pytest.mark.once


@pytest.fixture(params=["branch", "pinned"])
def zarr_url(request, server, source) -> str:
    return getattr(server, f"{request.param}_url")(source.repo)


def test_unmodified_xarray_sees_the_original_dataset(zarr_url, source, tmp_path):
    for number, group in enumerate(oracle.groups(source.path)):
        found = xr.open_zarr(zarr_url, group=group or None)
        wanted = oracle.expected(source.path, group, tmp_path / str(number))
        oracle.assert_same_dataset(found, wanted)


def test_stored_values_are_those_of_the_file(server, source):
    root = zarr.open_group(server.branch_url(source.repo), mode="r")
    with netCDF4.Dataset(source.path) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        for group in oracle.groups(source.path):
            members = dataset[group] if group else dataset
            for name, variable in members.variables.items():
                stored = root[f"{group}/{name}".lstrip("/")]
                wanted = np.asarray(variable[...])
                np.testing.assert_array_equal(stored[...], wanted, err_msg=name)
                # A string scalar comes as NumPy's own type of its length.
                if wanted.dtype.kind not in "OU":
                    assert stored.dtype == wanted.dtype.newbyteorder("="), name


def test_data_endpoint_gives_the_stored_values_raw(server, source):
    with netCDF4.Dataset(source.path) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        for name, variable in dataset.variables.items():
            wanted = np.asarray(variable[...])
            if wanted.dtype.kind in "OU":
                continue
            answer = server.get(server.data_url(source.repo, name), decode="raw")
            assert answer.status_code == 200, answer.text
            found = np.frombuffer(answer.content, wanted.dtype.newbyteorder("<"))
            np.testing.assert_array_equal(found, wanted.ravel(), err_msg=name)


def test_whole_tree_opens_at_once(server, import_once):
    url = server.branch_url(import_once("netcdf4-groups.nc").repo)
    tree = xr.open_datatree(url, engine="zarr")
    assert {node.path for node in tree.subtree} == {
        "/", "/forecast", "/forecast/deep", "/forecast/deep/er", "/empty",
    }


def test_import_is_one_commit(store, source):
    entries = service.run_json("log", source.repo, "--store", store)
    # The entry that created the repository, and the import.
    assert len(entries) == 2


def test_import_verifies(store, source):
    service.run("verify", source.repo, "--deep", "--store", store)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"not a NetCDF file at all", id="text"),
        pytest.param(lambda data: data[:20], id="header cut short"),
        pytest.param(lambda data: data[:-5000], id="data cut short"),
        pytest.param(lambda data: data[:4] + b"\xff" * 8 + data[12:], id="hostile counts"),
    ],
)
def test_bad_file_is_one_line_and_changes_nothing(store, import_once, tmp_path, damage):
    good = import_once("weather.nc")
    bad = tmp_path / "bad.nc"
    bad.write_bytes(damage(good.path.read_bytes()))
    assert_refused(store, good.repo, bad)


@pytest.mark.skipif(not sources.malformed_files(), reason="no malformed sample file at hand")
def test_malformed_sample_is_one_line_and_changes_nothing(store, import_once):
    for path in sources.malformed_files():
        assert_refused(store, import_once("weather.nc").repo, path)


def assert_refused(store, repo: str, path) -> None:
    before = service.run_json("log", repo, "--store", store)
    done = service.run("import", path, "--to", repo, "--store", store, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert path.name in done.stderr
    assert service.run_json("log", repo, "--store", store) == before


def test_bad_file_does_not_create_a_repository(store, tmp_path):
    bad = tmp_path / "bad.nc"
    bad.write_bytes(b"CDF\x05")
    assert service.run("import", bad, "--to", "never", "--store", store, check=False).returncode == 1
    assert "never" not in service.repositories(store)
