"""HDF5 files that are not NetCDF keep what h5py shows; what has no place is refused by name."""

from __future__ import annotations

import h5py
import netCDF4
import numpy as np
import pytest
import zarr

import hdf5_files
import service

pytestmark = pytest.mark.once


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All datasets by path, once for each name that links give them; none through dangling links."""

    def below(group: h5py.Group, prefix: str):
        for name in group:
            item = group.get(name)
            if isinstance(item, h5py.Group):
                yield from below(item, f"{prefix}{name}/")
            elif isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}", item

    return dict(below(file, ""))


@pytest.fixture(params=hdf5_files.PLAIN)
def plain(request, store, tmp_path):
    path = tmp_path / f"{request.param}.h5"
    hdf5_files.PLAIN[request.param](path)
    repo = f"plain-{request.param}"
    service.run("import", path, "--to", repo, "--store", store)
    return path, repo


def test_every_dataset_is_as_h5py_reads_it(server, plain):
    path, repo = plain
    root = zarr.open_group(server.branch_url(repo), mode="r")
    with h5py.File(path) as file:
        for name, dataset in datasets(file).items():
            is_text = dataset.dtype.kind == "O"
            wanted = np.asarray((dataset.asstr() if is_text else dataset)[()])
            found = np.asarray(root[name][()])
            np.testing.assert_array_equal(found, wanted, err_msg=name)
            if not is_text:
                assert found.dtype == wanted.dtype.newbyteorder("<"), name


@pytest.mark.parametrize("name", ["phony", "scales"])
def test_dimensions_are_named_as_netcdf_names_them(server, store, tmp_path, name):
    path, repo = tmp_path / f"{name}.h5", f"dimensions-{name}"
    hdf5_files.PLAIN[name](path)
    service.run("import", path, "--to", repo, "--store", store)
    root = zarr.open_group(server.branch_url(repo), mode="r")
    with h5py.File(path) as file, netCDF4.Dataset(path) as dataset:
        for variable in datasets(file):
            found = root[variable].metadata.dimension_names
            assert tuple(found or ()) == dataset[variable].dimensions, variable


def test_attributes_of_every_kind_are_kept(server, store, tmp_path):
    path = tmp_path / "attributes.h5"
    hdf5_files.hdf5_attributes(path)
    service.run("import", path, "--to", "hdf5-attributes", "--store", store)
    root = zarr.open_group(server.branch_url("hdf5-attributes"), mode="r")
    for node in (root, root["group"], root["v"]):
        assert dict(node.attrs) == {
            "matrix": [[1, 2, 3], [4, 5, 6]],
            "texts": [["a", "b"], ["c", "d"]],
            "bool": True,
            "bools": [True, False],
            "half": 1.5,
            "fixed": "abc  ",
            "fixed texts": ["ab", "c"],
            "latin": "caf\N{REPLACEMENT CHARACTER}",
            "empty": [],
            "empty text": "",
            "big endian": [1, 2],
            "enum": 42,
        }


@pytest.mark.parametrize("name", hdf5_files.REFUSED)
def test_what_has_no_place_is_refused_by_name_unless_skipped(store, tmp_path, name):
    path, repo = tmp_path / f"{name}.h5", f"refused-{name.replace('_', '-')}"
    refused = hdf5_files.REFUSED[name](path)

    def attempt(skipped):
        names = ",".join(skipped)
        return service.run(
            "import", path, "--to", repo, "--store", store, "--skip", names, check=False
        )

    for one in refused:
        done = attempt([other for other in refused if other != one])
        assert done.returncode == 1
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert f"--skip {one}" in done.stderr
    assert repo not in service.repositories(store)
    assert attempt([*refused, "no such thing"]).returncode == 1
    assert attempt(refused).returncode == 0
    service.run("verify", repo, "--deep", "--store", store)


def test_strings_that_were_never_written_are_the_fill_value(tmp_path):
    """The HDF5 library itself refuses to read them, h5py's too."""
    path, store = tmp_path / "filled.h5", tmp_path / "store"
    kind = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.create_dataset("filled", (2, 4), kind, chunks=(1, 2), fillvalue="none")[0, 0] = "first"
        file.create_dataset("long", (5,), kind, chunks=(2,), fillvalue="ü" * 300)[3:] = ["a", ""]
    service.run("import", path, "--to", "repo", "--store", store)
    service.run("export", "repo", tmp_path / "out", "--store", store)
    found = zarr.open_group(tmp_path / "out", mode="r")
    assert found["filled"][:].tolist() == [["first", "none", "none", "none"], ["none"] * 4]
    assert found["long"][:].tolist() == ["ü" * 300] * 3 + ["a", ""]
