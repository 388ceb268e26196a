"""HDF5 files that are not NetCDF keep their groups and values."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import quarr
import sources


@pytest.fixture(scope="module")
def plain(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("hdf5") / "plain.h5"
    arrays = sources.plain_hdf5(path)
    quarr.run("import", path, "--to", "plain-hdf5", "--store", store)
    return arrays


def test_every_dataset_keeps_its_values(server, plain):
    root = zarr.open_group(server.branch_url("plain-hdf5"), mode="r")
    for name, wanted in plain.items():
        found = root[name][...]
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        if wanted.dtype.kind != "O":
            assert found.dtype == wanted.dtype.newbyteorder("<"), name
