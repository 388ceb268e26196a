"""xarray's own tests of its Zarr backend on Quarr: all pass that pass on a directory."""

from __future__ import annotations

import contextlib
import importlib.util
import uuid
from collections.abc import Iterator

import pytest
import zarr
from xarray.tests.conftest import time_unit, use_dask  # noqa: F401 (fixtures)
from xarray.tests.test_backends import TestZarrRegionAuto as RegionAuto
from xarray.tests.test_backends import ZarrBase

import quarr

pytestmark = pytest.mark.once

HAS_DIRECT_MODE = importlib.util.find_spec("quarr._native") is not None
direct = pytest.mark.skipif(not HAS_DIRECT_MODE, reason="built without quarr._native")


@pytest.fixture(params=[3])
def default_zarr_format(request) -> Iterator[None]:
    """Zarr v3 is what Quarr stores."""
    with zarr.config.set(default_zarr_format=request.param):
        yield


@pytest.fixture(autouse=True)
def skip_as_xarray_does(request) -> None:
    """What xarray's ``skip_if_param`` means: tests for another version of the format."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    for mark in request.node.iter_markers("skip_if_param"):
        wanted = {k: v for k, v in mark.kwargs.items() if k not in ("reason", "condition")}
        applies = all(parameters.get(name) == value for name, value in wanted.items())
        if mark.kwargs.get("condition", True) and applies:
            pytest.skip(mark.kwargs["reason"])


class OverHttp:
    """A new repository of the server."""

    @pytest.fixture(autouse=True)
    def connect(self, server) -> None:
        self.client = quarr.connect(server.url)

    def new_repo(self) -> quarr.Repository:
        return self.client.create_repo(f"suite-{uuid.uuid4().hex}")


class Direct:
    """A new repository of a store that is opened in this process."""

    @pytest.fixture(autouse=True)
    def connect(self, tmp_path) -> None:
        self.client = quarr.open(tmp_path / "store")

    new_repo = OverHttp.new_repo


class InTransaction:
    """Written and read in a transaction, which is committed at the end."""

    @contextlib.contextmanager
    def create_zarr_target(self) -> Iterator[quarr.Store]:
        with self.new_repo().transaction("main") as transaction:
            yield transaction.store


class OnBranch:
    """Every write is a commit of its own, or part of one with others at the same time."""

    @contextlib.contextmanager
    def create_zarr_target(self) -> Iterator[quarr.Store]:
        yield self.new_repo().store("main", autocommit=True)


class TestTransaction(OverHttp, InTransaction, ZarrBase):
    pass


class TestBranch(OverHttp, OnBranch, ZarrBase):
    pass


@direct
class TestDirect(Direct, InTransaction, ZarrBase):
    pass


class Regions(RegionAuto):
    @pytest.fixture
    def tmp_store(self) -> Iterator[quarr.Store]:
        with self.create_zarr_target() as store:
            yield store


class TestTransactionRegions(OverHttp, InTransaction, Regions):
    pass


class TestBranchRegions(OverHttp, OnBranch, Regions):
    pass


@direct
class TestDirectRegions(Direct, InTransaction, Regions):
    pass


# Not to be collected here by themselves.
del ZarrBase, RegionAuto, Regions
