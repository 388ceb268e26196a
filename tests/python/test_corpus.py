"""Every file of the corpus keeps its values bit for bit, its types, its attributes and its dimensions.

NetCDF files are compared with netCDF4 and, raw and decoded, with xarray; HDF5 files with h5py.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

import corpus
import oracle
import service
import sources

pytestmark = pytest.mark.once

# How a file is imported: the name of the mode, and what it adds to the command.
MODES = {"copied": ()}
if "--by-reference" in service.run("import", "--help").stdout:
    MODES["by-reference"] = ("--by-reference",)


@pytest.fixture(scope="module", autouse=True)
def no_plugins():
    """Filters must be Quarr's own: netCDF4 tells every HDF5 library where it keeps plugins."""
    kept = os.environ.pop("HDF5_PLUGIN_PATH", None)
    yield
    if kept is not None:
        os.environ["HDF5_PLUGIN_PATH"] = kept


@pytest.fixture(scope="module")
def server(store):
    """A service that may read what was imported by reference."""
    folders = [tempfile.gettempdir(), str(sources.SAMPLE_DATA)]
    process = service.ServerProcess(store, *(part for folder in folders for part in ("--import-allow", folder)))
    yield process.server
    process.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes each file once."""
    folder = tmp_path_factory.mktemp("corpus")

    def written(name: str):
        case = corpus.CASES[name]
        path = folder / f"{name}{case.suffix}"
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case.write(path)
        return path

    return written


def repo_of(name: str, mode: str) -> str:
    return re.sub("[^a-z0-9]+", "-", f"corpus-{mode}-{name}".lower())


def import_file(store, path, repo: str, mode: str, skip=()):
    arguments = ["--skip", ",".join(skip)] if skip else []
    return service.run(
        "import", path, "--to", repo, "--store", store, *MODES[mode], *arguments, check=False
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", corpus.CASES)
def test_file_is_kept_exactly(server, store, files, tmp_path, name, mode):
    case, path, repo = corpus.CASES[name], files(name), repo_of(name, mode)
    if case.skip:
        refused = import_file(store, path, repo, mode)
        assert refused.returncode == 1
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        assert "--skip" in refused.stderr and any(name in refused.stderr for name in case.skip)
        assert repo not in service.repositories(store)
    done = import_file(store, path, repo, mode, case.skip)
    assert done.returncode == 0, done.stderr
    if case.kind == "netcdf":
        assert_same_netcdf(server.branch_url(repo), path, case.skip, tmp_path)
    else:
        # Exported: fsspec does not quote what a URL has other uses for.
        service.run("export", repo, tmp_path / "exported", "--store", store)
        truth = path.with_suffix(".truth")
        assert_same_hdf5(tmp_path / "exported", truth if truth.exists() else path, case.skip)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", sources.real_files(), ids=lambda path: path.name)
def test_sample_is_kept_exactly(server, store, tmp_path, path, mode):
    repo = repo_of(path.name, mode)
    done = import_file(store, path, repo, mode)
    assert done.returncode == 0, done.stderr
    assert_same_netcdf(server.branch_url(repo), path, (), tmp_path)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", sources.malformed_files(), ids=lambda path: path.name)
def test_malformed_sample_is_refused(store, path, mode):
    repo = repo_of(path.name, mode)
    done = import_file(store, path, repo, mode)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert repo not in service.repositories(store)


def assert_same_bits(found: np.ndarray, wanted: np.ndarray, name: str) -> None:
    assert found.shape == wanted.shape, name
    if wanted.dtype.kind in "OTU":
        assert found.tolist() == wanted.tolist(), name
        return
    wanted = wanted.astype(wanted.dtype.newbyteorder("<"))
    assert found.dtype.newbyteorder("<") == wanted.dtype, name
    found = found.astype(wanted.dtype)
    assert found.tobytes() == wanted.tobytes(), (name, found, wanted)


def as_json(value) -> object:
    """An attribute as JSON has it: a scalar for one value, NumPy's numbers with their exact value."""
    if isinstance(value, h5py.Empty):
        return "" if value.dtype.kind == "S" else []
    if isinstance(value, (bytes, np.bytes_)):
        return value.decode("utf-8", "replace").replace("\0", "")
    value = np.asarray(value)
    if value.dtype.kind == "S":
        value = np.array([text.decode("utf-8", "replace") for text in value.ravel()], object).reshape(value.shape)
    if value.size == 1 and value.ndim <= 1:
        value = value.reshape(())
    return oracle.as_json(value.astype("f8").tolist() if value.dtype.kind == "f" else value.tolist())


def assert_same_attributes(found, wanted: dict, where: str) -> None:
    assert set(found) == set(wanted), where
    for key, value in wanted.items():
        assert oracle.same_value(found[key], as_json(value)), (where, key, found[key], value)


# --- NetCDF -------------------------------------------------------------------------------------


def assert_same_netcdf(url: str, path, skip, scratch) -> None:
    root = zarr.open_group(url, mode="r")
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        dataset.set_auto_chartostring(False)
        for group in oracle.groups(path):
            members = dataset[group] if group else dataset
            stored = root[group] if group else root
            assert_same_attributes(stored.attrs, attributes_of(members), group)
            wanted = {name: v for name, v in members.variables.items() if name not in skip}
            assert set(stored.array_keys()) == set(wanted), group
            for name, variable in wanted.items():
                assert_same_variable(stored[name], variable, f"{group}/{name}")
    if skip:
        return
    for number, group in enumerate(oracle.groups(path)):
        assert_same_in_xarray(url, path, group, scratch / str(number))


def attributes_of(holder) -> dict:
    return {name: holder.getncattr(name) for name in holder.ncattrs()}


def assert_same_variable(stored: zarr.Array, variable: netCDF4.Variable, name: str) -> None:
    assert (stored.metadata.dimension_names or ()) == variable.dimensions, name
    wanted = np.asarray(variable[...])
    if wanted.dtype.kind == "U":
        wanted = wanted.astype(object)
    assert_same_bits(np.asarray(stored[...]), wanted, name)
    attributes = attributes_of(variable)
    # What xarray makes of it is compared below.
    found = {key: value for key, value in stored.attrs.items() if key != "_FillValue"}
    fill = attributes.pop("_FillValue", None)
    assert_same_attributes(found, attributes, name)
    if fill is not None and variable.dtype is not str and np.dtype(variable.dtype).kind in "iuf":
        held = np.asarray(fill, variable.dtype)
        assert_same_bits(np.asarray(stored.fill_value), held, f"{name} fill")


def assert_same_in_xarray(url: str, path, group: str, scratch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = oracle.expected(path, group, scratch)
        with xr.open_zarr(url, group=group or None) as found:
            oracle.assert_same_dataset(found, wanted)
        # Raw, as the file's own backend shows it.
        with (
            xr.open_zarr(url, group=group or None, decode_cf=False) as found,
            xr.open_dataset(path, group=group or None, decode_cf=False, engine="netcdf4") as file,
        ):
            assert set(found.variables) == set(file.variables)
            for name, variable in file.variables.items():
                if variable.dtype.kind not in "OUT":
                    assert_same_bits(found[name].values, variable.values, name)
                assert found[name].dims == variable.dims


# --- HDF5 ---------------------------------------------------------------------------------------


def assert_same_hdf5(exported, path, skip) -> None:
    root = zarr.open_group(exported, mode="r")
    skipped_attributes = {name for name in skip if "@" in name and name.split("@")[0]}
    with h5py.File(path) as file:
        assert_same_attributes(root.attrs, dict(file.attrs), "/")
        for name, dataset in datasets(file, skip):
            stored = root[name]
            is_text = h5py.check_string_dtype(dataset.dtype) and dataset.dtype.kind == "O"
            values = np.asarray((dataset.asstr() if is_text else dataset)[()])
            if h5py.check_enum_dtype(dataset.dtype) and values.dtype.kind != "b":
                values = values.astype(values.dtype.newbyteorder("<").str)
            assert_same_bits(np.asarray(stored[()]), values, name)
            attributes = {
                key: value
                for key, value in dataset.attrs.items()
                if key not in HIDDEN and f"{name}@{key}" not in skipped_attributes
            }
            assert_same_attributes(stored.attrs, attributes, name)


# Bookkeeping of dimension scales.
HIDDEN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST")


def datasets(group: h5py.Group, skip, prefix: str = ""):
    """All datasets by path, once for each name that links give them."""
    for name in group:
        path = f"{prefix}{name}"
        try:
            item = None if path in skip else group.get(name)
        except RuntimeError:
            # A link to itself leads nowhere.
            continue
        if isinstance(item, h5py.Group):
            yield from datasets(item, skip, f"{path}/")
        elif isinstance(item, h5py.Dataset):
            yield path, item
