"""`engine="quarr"`, reductions in the service, and `to_quarr` equal what xarray does by itself."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import tomllib
import uuid
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import dask
import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import oracle
import quarr
import service
import test_tutorial
from conftest import HAS_DIRECT_MODE
from quarr._transport import Response
from quarr.xarray import QuarrBackend, RemoteArray, report

ENGINE = QuarrBackend
ROOT = Path(__file__).parents[2]
SIZES = {"time": 200, "lat": 19, "lon": 18}
REDUCERS = ["sum", "prod", "mean", "min", "max", "count", "std", "var", "median", "any", "all"]
VARIABLES = ["t2m", "rain", "packed"]


def make_cube() -> xr.Dataset:
    random = np.random.default_rng(7)
    lat, lon = np.linspace(90, -90, SIZES["lat"]), np.arange(0, 360, 20.0)
    shape, dims = tuple(SIZES.values()), tuple(SIZES)
    t2m = (280 + 20 * random.standard_normal(shape)).astype("f4")
    t2m[random.random(shape) < 0.05] = np.nan
    rain = random.integers(-100, 100, shape).astype("i4")
    cube = xr.Dataset(
        {
            "t2m": (dims, t2m, {"units": "K", "long_name": "temperature"}),
            "rain": (dims, rain),
            "packed": (dims, t2m.copy(), {"units": "K"}),
            "flag": (("lat", "lon"), random.random(shape[1:]) < 0.5),
        },
        {
            "time": pd.date_range("2019-11-15", periods=shape[0], freq="D"),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
            "label": ("lat", [f"band {at}" for at in range(len(lat))]),
            "height": 2.0,
        },
        {"title": "cube"},
    )
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    cube["packed"].encoding = {**packing, "chunks": (16, 8, 8)}
    cube["t2m"].encoding = {"chunks": (16, 8, 8), "shards": (64, 16, 16)}
    return cube


@pytest.fixture(scope="module", params=["http", "direct"] if HAS_DIRECT_MODE else ["http"])
def client(request, server, store) -> quarr.Client:
    """The store of the server, through it and opened here beside it."""
    return quarr.connect(server.url) if request.param == "http" else quarr.open(store)


@pytest.fixture(scope="module")
def repo(client) -> quarr.Repository:
    repo = client.create_repo(f"xarray-{uuid.uuid4().hex}")
    quarr.to_quarr(make_cube(), repo, message="cube")
    return repo


@pytest.fixture
def new_repo(client) -> quarr.Repository:
    return client.create_repo(f"xarray-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def plain(repo) -> xr.Dataset:
    """What unmodified xarray sees, in memory."""
    return xr.open_zarr(repo.at("main").store(), chunks=None).load()


@pytest.fixture
def remote(repo) -> xr.Dataset:
    return xr.open_dataset(repo.at("main"), engine=ENGINE)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="Behaviour of argmin/argmax")
        yield


def same(found, wanted, rtol: float = 1e-12) -> None:
    """Identical but for the last digits of sums."""
    assert type(found) is type(wanted)
    if isinstance(wanted, xr.Dataset):
        assert found.attrs == wanted.attrs
        assert list(found.data_vars) == list(wanted.data_vars)
        assert set(found.coords) == set(wanted.coords)
        for name in wanted.data_vars:
            same(found[name], wanted[name], rtol)
        return
    assert (found.dims, found.dtype, found.name) == (wanted.dims, wanted.dtype, wanted.name)
    assert found.attrs == wanted.attrs
    assert set(found.coords) == set(wanted.coords)
    for name in wanted.coords:
        xr.testing.assert_identical(found[name], wanted[name])
    if wanted.dtype == "f4":
        # xarray adds up in float32.
        rtol = 2e-5
    np.testing.assert_allclose(found.values, wanted.values, rtol=rtol, atol=0, equal_nan=True)


# Opening and reading


def assert_same_opened(store, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = xr.open_zarr(store, chunks=None, **options)
        found = xr.open_dataset(store, engine=ENGINE, **options)
        for name in wanted.variables:
            assert repr(found[name].encoding) == repr(wanted[name].encoding), name
        assert found.encoding == wanted.encoding
        assert list(found.variables) == list(wanted.variables)
        assert list(found.coords) == list(wanted.coords)
        xr.testing.assert_identical(found, wanted)
        for name in wanted.variables:
            assert found[name].dtype == wanted[name].dtype
            assert (
                found[name].variable.values.flags.writeable
                == wanted[name].variable.values.flags.writeable
            )


def test_every_file_opens_like_with_open_zarr(client, source):
    store = client.repo(source.repo).at("main").store()
    for group in oracle.groups(source.path):
        assert_same_opened(store, group=group or None)
    assert_same_opened(store, decode_cf=False)
    assert_same_opened(store, mask_and_scale=False, decode_times=False)


def test_whole_trees_open_alike(client, import_once):
    store = client.repo(import_once("netcdf4-groups.nc").repo).at("main").store()
    wanted = xr.open_datatree(store, engine="zarr")
    found = xr.open_datatree(store, engine=ENGINE)
    assert len(wanted.groups) > 1
    xr.testing.assert_identical(found, wanted)
    below = [group for group in wanted.groups if group != "/"][0]
    part = xr.open_datatree(store, engine=ENGINE, group=below)
    xr.testing.assert_identical(part, xr.open_datatree(store, engine="zarr", group=below))


def test_everything_that_names_a_commit_opens(repo, server, plain, client):
    url = f"{server.url}/v1/repos/{repo.name}/refs/main"
    host = server.url.removeprefix("http://")
    for named, options in [
        (repo.at("main"), {}),
        (repo, {}),
        (repo, {"ref": repo.at("main").commit}),
        (repo.store("main"), {}),
        (repo.at("main").asynchronous, {}),
        (url, {}),
        (f"{url}/zarr", {}),
        (f"quarr+http://{host}/{repo.name}@main", {}),
        (f"quarr+http://{host}/{repo.name}", {}),
        (server.url, {"repo": repo.name, "ref": "main"}),
    ]:
        assert QuarrBackend().guess_can_open(named) or "repo" in options, named
        with xr.open_dataset(named, engine=ENGINE, **options) as found:
            xr.testing.assert_identical(found, plain)
    assert not QuarrBackend().guess_can_open("file.nc")
    with pytest.raises(ValueError, match="repo="):
        xr.open_dataset(server.url, engine=ENGINE)
    with pytest.raises(ValueError, match="another"):
        xr.open_dataset(url, engine=ENGINE, repo="other")
    with pytest.raises(quarr.NotFoundError):
        xr.open_dataset(client.repo("nowhere"), engine=ENGINE)


def test_a_dataset_stays_at_its_commit(new_repo):
    first = xr.Dataset({"a": ("x", [1, 2, 3])})
    quarr.to_quarr(first, new_repo)
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    quarr.to_quarr(first + 1, new_repo, mode="w")
    xr.testing.assert_equal(opened, first)
    xr.testing.assert_equal(xr.open_dataset(new_repo, engine=ENGINE), first + 1)


INDEXERS = [
    {"time": 3},
    {"time": slice(150, 20, -7), "lat": 4},
    {"time": [5, 3, 3, -1], "lon": [17, 0]},
    {"time": np.arange(200) % 3 == 0, "lat": slice(None, None, -1)},
    {"time": [], "lat": 0},
    {"time": slice(5, 5)},
    {"lon": xr.DataArray([[0, 1], [2, -1]], dims=("a", "b")), "lat": 2},
    {
        "time": xr.DataArray([0, 5, 199, -1], dims="p"),
        "lat": xr.DataArray([1, 2, 3, 4], dims="p"),
        "lon": xr.DataArray([0, 17, 2, -1], dims="p"),
    },
]


@pytest.mark.parametrize("number", range(len(INDEXERS)))
def test_a_selection_is_one_request_for_each_variable(repo, plain, number):
    indexer = INDEXERS[number]
    for name in [*VARIABLES, "flag"]:
        own = {dim: at for dim, at in indexer.items() if dim in plain[name].dims}
        opened = xr.open_dataset(repo.at("main"), engine=ENGINE)
        with report() as found:
            read = opened[name].isel(own).load()
        xr.testing.assert_identical(
            read.drop_vars("label", errors="ignore"),
            plain[name].isel(own).drop_vars("label", errors="ignore"),
        )
        of_array = [transfer for transfer in found.transfers if transfer.path == name]
        assert len(of_array) == (0 if read.size == 0 else 1)


def test_scattered_points_are_not_read_as_a_box(repo, plain):
    random = np.random.default_rng(3)
    at = {dim: xr.DataArray(random.integers(0, n, 50), dims="p") for dim, n in SIZES.items()}
    opened = xr.open_dataset(repo.at("main"), engine=ENGINE)
    with report() as found:
        xr.testing.assert_identical(opened.t2m.isel(at).variable, plain.t2m.isel(at).variable)
    [points] = [transfer for transfer in found.transfers if transfer.path == "t2m"]
    assert points.what == "points" and points.received_bytes == 50 * 4
    some = {dim: at[dim] for dim in ("lat", "lon")}
    some["time"] = slice(10, 150, 7)
    again = xr.open_dataset(repo.at("main"), engine=ENGINE).t2m.isel(some)
    xr.testing.assert_identical(again.variable, plain.t2m.isel(some).variable)


def test_many_positions_do_not_fit_one_url(new_repo):
    values = np.arange(20_000)
    quarr.to_quarr(xr.Dataset({"a": ("x", values)}), new_repo)
    places = np.random.default_rng(1).permutation(20_000)[:9_000]
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    with report() as found:
        np.testing.assert_array_equal(opened.a.isel(x=places), values[places])
    assert len(found.transfers) > 1


def test_large_reads_of_whole_chunks_get_the_chunks(new_repo):
    values = np.arange(4_000_000, dtype="i8").reshape(4000, 1000)
    encoding = {"a": {"chunks": (500, 250)}}
    quarr.to_quarr(xr.Dataset({"a": (("y", "x"), values)}), new_repo, encoding=encoding)

    def read(**part) -> set[str]:
        opened = xr.open_dataset(new_repo, engine=ENGINE).a
        with report() as found:
            np.testing.assert_array_equal(
                opened.isel(part), xr.Variable(("y", "x"), values).isel(part)
            )
        size = opened.isel(part).nbytes
        if found.transfers[0].what == "zarr":
            assert found.received_bytes < size
        return {transfer.what for transfer in found.transfers}

    assert read() == {"zarr"}
    assert read(y=slice(100, 3900)) == {"zarr"}
    # Less than half of the chunks it is in, or little in all.
    assert read(y=slice(0, None, 3)) == {"data"}
    assert read(y=slice(0, 500)) == {"data"}


def test_random_selections_equal_those_in_memory(repo, plain):
    random = np.random.default_rng(11)

    def index(length: int):
        kind = random.integers(4)
        if kind == 0:
            return int(random.integers(-length, length))
        if kind == 1:
            return random.integers(-length, length, random.integers(1, 5))
        ends = sorted(int(at) for at in random.integers(-length - 3, length + 3, 2))
        return slice(*ends, int(random.choice([1, 1, 2, 5])))

    for _ in range(40):
        opened = xr.open_dataset(repo.at("main"), engine=ENGINE).t2m
        at = {dim: index(length) for dim, length in SIZES.items()}
        found, wanted = opened.isel(at), plain.t2m.isel(at)
        if found.ndim:
            then = {found.dims[0]: index(found.shape[0])} if found.shape[0] else {}
            found, wanted = found.isel(then), wanted.isel(then)
        np.testing.assert_array_equal(found.values, wanted.values, strict=True)


def test_datasets_are_pickled_without_their_values(repo, plain):
    opened = xr.open_dataset(repo.at("main"), engine=ENGINE)
    bytes_of = pickle.dumps(opened)
    assert len(bytes_of) < plain.t2m.nbytes / 4
    xr.testing.assert_identical(pickle.loads(bytes_of), plain)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_dask_reads_chunk_by_chunk(repo, plain, scheduler):
    opened = xr.open_dataset(repo.at("main"), engine=ENGINE, chunks={})
    assert opened.t2m.chunks is not None and opened.packed.chunks[0][0] == 16
    with dask.config.set(scheduler=scheduler, num_workers=2):
        xr.testing.assert_identical(opened.compute(), plain)


async def test_variables_load_asynchronously(repo, plain):
    opened = xr.open_dataset(repo.at("main"), engine=ENGINE)
    part = await opened.isel(time=slice(3, 9)).load_async()
    xr.testing.assert_identical(part, plain.isel(time=slice(3, 9)))


def test_a_transaction_shows_what_was_written(new_repo):
    dataset = xr.Dataset({"a": ("x", [1.0, np.nan, 3.0])}, {"x": ["p", "q", "r"]})
    with new_repo.transaction("main", message="a") as transaction:
        quarr.to_quarr(dataset, transaction)
        opened = xr.open_dataset(transaction, engine=ENGINE)
        xr.testing.assert_identical(opened.load(), dataset)
        assert opened.a.quarr.mean() == 2.0


# Reductions


PARTS: dict[str, Callable] = {
    "all": lambda array: array,
    "slices": lambda array: array.isel(time=slice(3, 180, 2), lat=[4, 2, 7]),
    "position": lambda array: array.isel(lat=3),
    "labels": lambda array: array.sel(lat=slice(60, -30), lon=[20.0, 60.0, 340.0]),
    "backwards": lambda array: array.isel(time=slice(None, None, -1)),
    "mask": lambda array: array.isel(time=array.time.dt.month.values == 1),
    "nearest": lambda array: array.sel(lat=43.0, method="nearest"),
    "twice": lambda array: array.isel(time=slice(10, 100)).isel(time=slice(5, 50, 3)),
}


def check(accessor, wanted: Callable, reduce: Callable, pushed_down: bool = True) -> None:
    """What the accessor gives is what xarray gives, and the service computed it."""
    found = reduce(accessor)
    same(found, wanted())
    assert accessor.last.pushed_down is pushed_down, accessor.last


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variable", VARIABLES)
def test_reductions_are_those_of_xarray(remote, plain, variable, part):
    array, wanted = PARTS[part](remote[variable]), PARTS[part](plain[variable])
    for dim in [None, "time", [dim for dim in wanted.dims if dim != "time"], ...]:
        for name in REDUCERS:
            if name == "prod" and variable == "rain":
                continue  # overflows
            check(array.quarr, lambda: getattr(wanted, name)(dim), lambda q: getattr(q, name)(dim))
    for name in ("argmin", "argmax"):
        for dim in (None, "time"):
            check(array.quarr, lambda: getattr(wanted, name)(dim), lambda q: getattr(q, name)(dim))
    quantiles = [0.1, 0.5]
    check(
        array.quarr,
        lambda: wanted.quantile(quantiles, "time"),
        lambda q: q.quantile(quantiles, "time"),
    )
    check(
        array.quarr,
        lambda: wanted.quantile(0.3, method="lower", keep_attrs=True),
        lambda q: q.quantile(0.3, method="lower", keep_attrs=True),
    )


@pytest.mark.parametrize("variable", VARIABLES)
def test_arguments_mean_the_same(remote, plain, variable):
    array, wanted = remote[variable], plain[variable]
    for name, arguments in [
        ("mean", {"keep_attrs": False}),
        ("mean", {"keep_attrs": True}),
        ("mean", {"skipna": False}),
        ("std", {"ddof": 1}),
        ("var", {"ddof": 2, "skipna": True}),
        ("sum", {"min_count": 195}),
        ("max", {"skipna": True}),
    ]:
        check(
            array.quarr,
            lambda: getattr(wanted, name)("time", **arguments),
            lambda q: getattr(q, name)("time", **arguments),
        )
    with xr.set_options(keep_attrs=False):
        check(array.quarr, lambda: wanted.mean("time"), lambda q: q.mean("time"))
    renamed, wanted = (
        array.rename("other").rename(time="t"),
        wanted.rename("other").rename(time="t"),
    )
    check(renamed.quarr, lambda: wanted.mean("t"), lambda q: q.mean("t"))
    check(
        renamed.quarr.groupby("t.month"),
        lambda: wanted.groupby("t.month").mean(),
        lambda groups: groups.mean(),
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("variable", VARIABLES)
def test_groups_are_those_of_xarray(repo, plain, variable, part):
    wanted = PARTS[part](plain[variable])
    for group in ("time.month", "time.season", "time.year", "time.dayofyear", "time"):
        for name, dim in [
            ("mean", None),
            ("max", ...),
            ("median", None),
            ("count", None),
            ("sum", None),
        ]:
            arguments = {} if dim is None else {"dim": dim}
            array = PARTS[part](xr.open_dataset(repo.at("main"), engine=ENGINE)[variable])
            check(
                array.quarr.groupby(group),
                lambda: getattr(wanted.groupby(group), name)(**arguments),
                lambda groups: getattr(groups, name)(**arguments),
                # Days that are groups already stay in their order, which the service's are not.
                pushed_down=(group, part) != ("time", "backwards"),
            )


@pytest.mark.parametrize("part", ["all", "slices", "position", "backwards"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_windows_are_those_of_xarray(repo, plain, variable, part):
    wanted = PARTS[part](plain[variable])
    across = {"lon": 4} if "lon" in wanted.dims else {}
    for windows in ({"time": 7}, {"time": 5, **across}):
        for boundary in ("trim", "pad"):
            for name in ("mean", "max", "sum", "std", "count", "median"):
                array = PARTS[part](xr.open_dataset(repo.at("main"), engine=ENGINE)[variable])
                check(
                    array.quarr.coarsen(windows, boundary=boundary),
                    lambda: getattr(wanted.coarsen(windows, boundary=boundary), name)(),
                    lambda coarse: getattr(coarse, name)(),
                    pushed_down=boundary == "trim" or wanted.dtype.kind == "f",
                )
    array = PARTS[part](xr.open_dataset(repo.at("main"), engine=ENGINE)[variable])
    with pytest.raises(ValueError, match="window"):
        array.quarr.coarsen(time=163).mean()


@pytest.mark.parametrize("part", ["all", "slices", "labels", "backwards"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_weights_are_those_of_xarray(remote, plain, variable, part):
    array, wanted = PARTS[part](remote[variable]), PARTS[part](plain[variable])
    weights = np.cos(np.deg2rad(wanted.lat))
    for name in ("mean", "sum", "std", "var", "sum_of_weights", "sum_of_squares"):
        for dim in ("lat", ["lat", "lon"], None):
            for given in ("area", np.cos(np.deg2rad(array.lat))):
                check(
                    array.quarr.weighted(given),
                    lambda: getattr(wanted.weighted(weights), name)(dim),
                    lambda weighted: getattr(weighted, name)(dim),
                )


def test_weights_that_are_stored_stay_there(new_repo):
    random = np.random.default_rng(5)
    dataset = xr.Dataset(
        {"a": (("x", "y"), random.random((30, 20))), "w": (("x", "y"), random.random((30, 20)))}
    )
    quarr.to_quarr(dataset, new_repo)
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    check(
        opened.a.quarr.weighted(opened.w),
        lambda: dataset.a.weighted(dataset.w).mean("x"),
        lambda weighted: weighted.mean("x"),
    )
    part = opened.isel(x=slice(3, 20))
    check(
        part.a.quarr.weighted(part.w),
        lambda: dataset.a[3:20].weighted(dataset.w[3:20]).sum(),
        lambda weighted: weighted.sum(),
    )
    # Other weights than the ones that are stored are not taken for them.
    check(
        part.a.quarr.weighted(opened.w.isel(x=slice(4, 21))),
        lambda: dataset.a[3:20].weighted(dataset.w[4:21]).sum(),
        lambda weighted: weighted.sum(),
        pushed_down=False,
    )


@pytest.mark.parametrize("chunks", [None, {}])
def test_datasets_reduce_variable_by_variable(repo, plain, chunks):
    dataset = xr.open_dataset(repo.at("main"), engine=ENGINE, chunks=chunks)
    for name in ("mean", "sum", "max", "count", "std", "median"):
        for dim in (None, "time", ["lat", "lon"], "lat"):
            check(
                dataset.quarr,
                lambda: getattr(plain, name)(dim),
                lambda q: getattr(q, name)(dim),
            )
    check(dataset.quarr, lambda: plain.quantile(0.2, "time"), lambda q: q.quantile(0.2, "time"))
    check(
        dataset.quarr,
        lambda: plain.mean("time", keep_attrs=False),
        lambda q: q.mean("time", keep_attrs=False),
    )
    cubes = dataset[VARIABLES]
    wanted = plain[VARIABLES]
    check(cubes.quarr, lambda: wanted.argmax("time"), lambda q: q.argmax("time"))
    part = {"time": slice(20, 90)}
    check(cubes.quarr.isel(part), lambda: wanted.isel(part).mean("time"), lambda q: q.mean("time"))
    check(
        cubes.quarr.groupby("time.month"),
        lambda: wanted.groupby("time.month").mean(),
        lambda groups: groups.mean(),
    )
    check(
        cubes.quarr.coarsen(time=5),
        lambda: wanted.coarsen(time=5).mean(),
        lambda windows: windows.mean(),
    )
    check(
        cubes.quarr.weighted("area"),
        lambda: wanted.weighted(np.cos(np.deg2rad(wanted.lat))).mean(["lat", "lon"]),
        lambda weighted: weighted.mean(["lat", "lon"]),
    )


def changed(array: xr.DataArray) -> xr.DataArray:
    array = array.copy(deep=True)
    array[{"time": 0, "lat": 0}] = 1
    return array


NOT_PUSHED: dict[str, tuple[Callable, Callable]] = {
    "computed": (lambda a: a + 1, lambda a: a.mean("time")),
    "set": (changed, lambda a: a.mean("time")),
    "loaded": (lambda a: a.load(), lambda a: a.mean("time")),
    "transposed": (lambda a: a.transpose("lon", "time", "lat"), lambda a: a.mean("time")),
    "masked": (lambda a: a.where(a > 280), lambda a: a.mean("time")),
    "no dimension": (lambda a: a, lambda a: a.mean([])),
    "empty": (lambda a: a.isel(time=slice(0, 0)), lambda a: a.sum("time")),
    "other time": (
        lambda a: a.assign_coords(time=a.time + np.timedelta64(40, "D")),
        lambda a: a.groupby("time.month").mean(),
    ),
    "weights": (
        lambda a: a,
        lambda a: a.weighted(xr.DataArray(np.arange(19.0), dims="lat")).mean(),
    ),
}


@pytest.mark.parametrize("case", NOT_PUSHED)
def test_what_the_service_cannot_know_is_computed_here(remote, plain, case):
    change, reduce = NOT_PUSHED[case]
    with report() as found:
        result = reduce(change(remote.t2m).quarr)
    same(result, reduce(change(plain.t2m)))
    assert not found.pushed_down
    assert [one.reason for one in found.operations] != [None]


def test_nothing_is_pushed_down_where_the_service_decodes_otherwise(new_repo):
    dataset = xr.Dataset(
        {
            "valid": ("x", np.array([1, 5, 9]), {"valid_max": 6}),
            "packed": ("x", np.array([1.0, 5.0, 9.0]), {"valid_max": 6}),
            "text": ("x", ["a", "b", "c"]),
            "time": ("x", pd.date_range("2020", periods=3)),
            "z": ("x", np.array([1 + 2j, 3, 4])),
        }
    )
    encoding = {"packed": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}}
    quarr.to_quarr(dataset, new_repo, encoding=encoding)
    plain = xr.open_zarr(new_repo.store(), chunks=None).load()
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    # Without a fill value or packing, xarray's values are the stored ones: those are asked for.
    check(opened.valid.quarr, lambda: plain.valid.mean(), lambda q: q.mean(), True)
    check(opened.packed.quarr, lambda: plain.packed.mean(), lambda q: q.mean(), False)
    assert opened["time"].quarr.max() == plain["time"].max()
    check(opened["z"].quarr, lambda: plain["z"].sum(), lambda q: q.sum(), False)
    check(opened["text"].quarr, lambda: plain["text"].count(), lambda q: q.count(), False)
    raw = xr.open_dataset(new_repo, engine=ENGINE, mask_and_scale=False)
    wanted = xr.open_zarr(new_repo.store(), chunks=None, mask_and_scale=False).load()
    check(raw.packed.quarr, lambda: wanted.packed.mean(), lambda q: q.mean(), True)
    xr.testing.assert_identical(opened.quarr.mean(), plain.mean())


def test_what_is_verified_is_read_with_proofs(repo, plain):
    opened = xr.open_dataset(repo.at("main", verify=True), engine=ENGINE)
    with report() as found:
        same(opened.t2m.quarr.mean("time"), plain.t2m.mean("time"))
    assert not found.pushed_down
    assert {transfer.what for transfer in found.transfers} == {"zarr"}


def test_a_failing_service_is_not_taken_for_one_that_cannot(repo, monkeypatch):
    async def fail(self, *_, **__):
        return Response(500, {}, b"{}")

    opened = xr.open_dataset(repo.at("main"), engine=ENGINE)
    monkeypatch.setattr(type(repo.transport), "request", fail)
    with pytest.raises(quarr.ServiceError):
        opened.t2m.quarr.mean("time")
    with pytest.raises(quarr.ServiceError):
        opened.t2m.load()


def test_every_array_of_every_file_reduces_alike(client, source):
    snapshot = client.repo(source.repo).at("main")
    for group in oracle.groups(source.path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = xr.open_zarr(snapshot.store(), group=group or None, chunks=None)
            remote = xr.open_dataset(snapshot, group=group or None, engine=ENGINE)
            for name, array in plain.data_vars.items():
                if array.dtype.kind not in "biuf" or array.size == 0:
                    continue
                for reducer in ("mean", "max", "count", "sum"):
                    found = getattr(remote[name].quarr, reducer)()
                    wanted = getattr(array, reducer)()
                    assert found.dtype == wanted.dtype and found.attrs == wanted.attrs, name
                    exact = array.astype("f8") if array.dtype == "f4" else array
                    exact = getattr(exact, reducer)()
                    np.testing.assert_allclose(
                        found, exact.astype(wanted.dtype), rtol=1e-6, err_msg=f"{name} {reducer}"
                    )


def test_snapshots_hand_out_arrays_that_reduce(repo, plain):
    array = repo.at("main")["t2m"]
    assert isinstance(array, RemoteArray)
    same(array.mean("time"), plain.t2m.mean("time"))
    assert array.last.pushed_down
    part = array.sel(lat=slice(60, 40)).isel(lon=slice(2, 9))
    same(part.mean("time"), plain.t2m.sel(lat=slice(60, 40)).isel(lon=slice(2, 9)).mean("time"))
    assert part.last.pushed_down
    np.testing.assert_array_equal(array[3:5, 0], plain.t2m[3:5, 0])
    plan = array.explain("mean", "time")
    assert plan["shape"] == [19, 18] and plan["chunks"] > 0
    assert array.isel(lat=3).explain()["shape"] == [200, 18]
    assert array.groupby("time.month").explain("mean")["shape"][0] == 8
    with pytest.raises(ValueError, match="would run here"):
        (array.array + 1).quarr.explain("mean", "time")
    with pytest.raises(quarr.NotFoundError):
        repo.at("main")["nothing"].mean()


def test_a_pushed_down_mean_sends_far_fewer_bytes(repo, plain):
    local = xr.open_dataset(repo.at("main"), engine=ENGINE)
    with report() as reading:
        wanted = local.t2m.mean("time")
    assert reading.received_bytes >= plain.t2m.nbytes
    remote = xr.open_dataset(repo.at("main"), engine=ENGINE)
    with report() as reducing:
        found = remote.t2m.quarr.mean("time")
    same(found, wanted)
    assert reducing.received_bytes * 100 < reading.received_bytes
    assert reducing.pushed_down and "in the service" in repr(reducing)


# Writing


def assert_written(repo: quarr.Repository, wanted: xr.Dataset, group: str | None = None) -> None:
    found = xr.open_dataset(repo.at("main"), engine=ENGINE, group=group).load()
    xr.testing.assert_identical(found, wanted)
    again = xr.open_zarr(repo.at("main").store(), group=group, chunks=None).load()
    xr.testing.assert_identical(again, wanted)


def small(start: int = 0, length: int = 40) -> xr.Dataset:
    random = np.random.default_rng(start)
    shape = (length, 60, 70)
    return xr.Dataset(
        {
            "a": (("t", "y", "x"), random.random(shape).astype("f4"), {"units": "m"}),
            "i": (("t", "y"), random.integers(0, 9, shape[:2])),
            "s": ("y", [f"n{at}" for at in range(60)]),
        },
        {"t": np.arange(start, start + length), "y": np.arange(60.0), "x": np.arange(70)},
        {"title": "small"},
    )


def commits(repo: quarr.Repository) -> int:
    return sum(1 for entry in repo.log())


def test_a_dataset_is_one_commit(new_repo):
    before = commits(new_repo)
    made = quarr.to_quarr(small(), new_repo, message="small", author="me")
    assert commits(new_repo) == before + 1
    assert made.commit == new_repo.at("main").commit
    assert new_repo.at("main").info.message == "small"
    assert_written(new_repo, small())


def test_modes_are_those_of_to_zarr(new_repo):
    quarr.to_quarr(small(), new_repo)
    with pytest.raises(FileExistsError):
        quarr.to_quarr(small(), new_repo)
    quarr.to_quarr(small()[["a"]] + 1, new_repo, mode="w")
    assert set(xr.open_dataset(new_repo, engine=ENGINE).data_vars) == {"a"}
    quarr.to_quarr(small()[["i"]], new_repo, mode="a")
    assert set(xr.open_dataset(new_repo, engine=ENGINE).data_vars) == {"a", "i"}
    with pytest.raises(ValueError, match="non-pre-existing"):
        quarr.to_quarr(small()[["s"]], new_repo, mode="r+")
    for wrong in ({"mode": "w", "append_dim": "t"}, {"mode": "w", "region": "auto"}, {"mode": "x"}):
        with pytest.raises(ValueError):
            quarr.to_quarr(small(), new_repo, **wrong)


def test_groups_and_urls(client, server):
    name = f"xarray-{uuid.uuid4().hex}"
    quarr.to_quarr(small(), f"{server.url}/v1/repos/{name}/refs/main", group="deep/er")
    assert_written(client.repo(name), small(), "deep/er")
    quarr.to_quarr(small(), server.url, repo=name, group="beside", mode="w")
    assert_written(client.repo(name), small(), "beside")
    assert_written(client.repo(name), small(), "deep/er")
    small().a.quarr.to_quarr(client.repo(name), group="one")
    assert_written(client.repo(name), small().a.to_dataset(), "one")
    small().quarr.to_quarr(client.repo(name).store("main", autocommit=True), group="two")
    assert_written(client.repo(name), small(), "two")
    with pytest.raises(ValueError, match="no name"):
        quarr.to_quarr(xr.DataArray([1]), client.repo(name))
    with pytest.raises(TypeError, match="nothing to write to"):
        quarr.to_quarr(small(), client.repo(name).store("main"))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_dask_workers_share_one_transaction(client, new_repo, scheduler):
    # Without a service between them, processes write whole chunks.
    align = {
        "align_chunks": scheduler == "processes" and not client.transport.url.startswith("http")
    }
    with dask.config.set(scheduler=scheduler, num_workers=2):
        before = commits(new_repo)
        quarr.to_quarr(small().chunk(t=7, y=13), new_repo)
        assert commits(new_repo) == before + 1
        assert_written(new_repo, small())
        # Neither chunks nor the end of the array are where the stored ones are.
        more = small(40, 31)
        quarr.to_quarr(more.chunk(t=11, y=17), new_repo, append_dim="t", **align)
        both = xr.concat([small(), more], "t", data_vars="minimal")
        assert_written(new_repo, both)
        part = small().drop_vars("s").isel(t=slice(3, 29), y=slice(5, 44))
        part["a"] = part.a * 2
        quarr.to_quarr(part.chunk(t=5, y=4), new_repo, region="auto", **align)
        both.a[3:29, 5:44] *= 2
        assert_written(new_repo, both)
        assert commits(new_repo) == before + 3


def test_workers_of_a_cluster_share_one_transaction(server):
    from distributed import Client, LocalCluster

    repo = quarr.connect(server.url).create_repo(f"xarray-{uuid.uuid4().hex}")
    local = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**local) as cluster, Client(cluster):
        quarr.to_quarr(small().chunk(t=7, y=13), repo)
        before = commits(repo)
        more = small(40, 31)
        quarr.to_quarr(more.chunk(t=11, y=17), repo, append_dim="t")
        assert commits(repo) == before + 1
        both = xr.concat([small(), more], "t", data_vars="minimal")
        opened = xr.open_dataset(repo.at("main"), engine=ENGINE, chunks={})
        xr.testing.assert_identical(opened.compute(), both)


def test_computing_later_commits_later(new_repo):
    before = new_repo.at("main").commit
    later = quarr.to_quarr(small().chunk(t=10), new_repo, compute=False)
    assert new_repo.at("main").commit == before
    made = later.compute()
    assert new_repo.at("main").commit == made.commit != before
    assert_written(new_repo, small())


def test_an_error_leaves_nothing(new_repo):
    quarr.to_quarr(small(), new_repo)
    before = new_repo.at("main").commit

    def fail(block):
        raise RuntimeError("no such block")

    dataset = small().chunk(t=10)
    blocks = dataset.a.data.map_blocks(fail, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    dataset["a"] = dataset.a.copy(data=blocks)
    for options in ({"mode": "w"}, {"mode": "a"}, {"group": "new"}):
        with pytest.raises(RuntimeError, match="no such block"):
            quarr.to_quarr(dataset, new_repo, **options)
    assert new_repo.at("main").commit == before
    assert_written(new_repo, small())


def test_new_arrays_get_shards_unless_told_otherwise(new_repo):
    values = np.zeros((300, 200, 100), "f4")
    dataset = xr.Dataset({"large": (("t", "y", "x"), values), "small": ("x", np.arange(100))})
    quarr.to_quarr(dataset, new_repo)
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    chunks, shards = opened.large.encoding["chunks"], opened.large.encoding["shards"]
    assert np.prod(chunks) * 4 <= 1 << 20 and np.prod(shards) * 4 <= 32 << 20
    assert all(shard % chunk == 0 for shard, chunk in zip(shards, chunks, strict=True))
    assert opened.small.encoding["shards"] is None
    quarr.to_quarr(
        dataset,
        new_repo,
        mode="w",
        encoding={"large": {"chunks": (50, 50, 50)}},
    )
    opened = xr.open_dataset(new_repo, engine=ENGINE)
    assert (opened.large.encoding["chunks"], opened.large.encoding["shards"]) == (
        (50, 50, 50),
        None,
    )
    # What was opened is written as it was.
    quarr.to_quarr(opened.load(), new_repo, mode="w", group="copy")
    copy = xr.open_dataset(new_repo, engine=ENGINE, group="copy")
    assert copy.large.encoding["chunks"] == (50, 50, 50)
    quarr.to_quarr(dataset.chunk(t=100, y=200, x=100), new_repo, mode="w", group="dask")
    lazy = xr.open_dataset(new_repo, engine=ENGINE, group="dask")
    assert 100 % lazy.large.encoding["shards"][0] == 0
    quarr.to_quarr(dataset, new_repo, append_dim="t", group="dask")
    assert xr.open_dataset(new_repo, engine=ENGINE, group="dask").sizes["t"] == 600


def write_part(transaction: quarr.Transaction, start: int, stop: int, y: int) -> None:
    """Writes rows, in a process of its own."""
    part = small(0, 50).drop_vars("s").isel(t=slice(start, stop)).drop_vars(["y", "x"])
    quarr.to_quarr(
        part.chunk(t=3 if y % 16 else 16, y=y), transaction, region={"t": slice(start, stop)}
    )


def write_other(transaction: quarr.Transaction) -> None:
    """Appends to another group, in a process of its own."""
    quarr.to_quarr(small(10, 7).chunk(t=3), transaction, append_dim="t", group="other")


def test_processes_write_disjoint_regions_and_append_in_one_transaction(client, new_repo):
    whole = small(0, 50)
    quarr.to_quarr(small(0, 10), new_repo, group="other")
    before = commits(new_repo)
    with new_repo.transaction("main", message="together") as transaction:
        quarr.to_quarr(
            xr.zeros_like(whole.drop_vars("s")).assign(s=whole.s),
            transaction,
            mode="a",
            encoding={"a": {"chunks": (16, 16, 16)}, "i": {"chunks": (16, 16)}},
        )
        context = multiprocessing.get_context("spawn")
        # Bounds in the middle of chunks: processes write into the same ones. Without a service
        # between them, that would be a conflict.
        bounds, y = [0, 9, 23, 41, 50], 7
        if not client.transport.url.startswith("http"):
            bounds, y = [0, 16, 32, 48, 50], 16
        workers = [
            context.Process(target=write_part, args=(transaction, start, stop, y))
            for start, stop in pairwise(bounds)
        ]
        workers.append(context.Process(target=write_other, args=(transaction,)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
            assert worker.exitcode == 0
    assert commits(new_repo) == before + 1
    assert_written(new_repo, whole)
    both = xr.concat([small(0, 10), small(10, 7)], "t", data_vars="minimal")
    assert_written(new_repo, both, "other")


# The name, and the document


@pytest.fixture
def named(tmp_path, monkeypatch) -> Iterator[None]:
    """The engine has its name, as in an environment with the package."""
    project = tomllib.loads((ROOT / "python" / "pyproject.toml").read_text())["project"]
    [(name, target)] = project["entry-points"]["xarray.backends"].items()
    folder = tmp_path / "quarr_engine-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: quarr-engine\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[xarray.backends]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    xr.backends.refresh_engines()
    yield
    monkeypatch.undo()
    xr.backends.refresh_engines()


def test_the_engine_has_a_name_and_is_guessed(named, client, repo, plain, server):
    assert isinstance(xr.backends.list_engines()["quarr"], QuarrBackend)
    for found in (
        xr.open_dataset(repo.at("main"), engine="quarr"),
        xr.open_dataset(repo.at("main")),
        repo.at("main").open_dataset(),
        xr.open_dataset(f"{server.url}/v1/repos/{repo.name}/refs/main", engine="quarr"),
    ):
        assert found.t2m.quarr.explain("mean")["shape"] == []
        xr.testing.assert_identical(found, plain)


def test_the_document_prints_what_it_shows(named, tmp_path):
    text = (ROOT / "docs" / "xarray.md").read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
    process = service.ServerProcess(tmp_path / "store")
    try:
        names: dict = {"__name__": "document"}
        printed = ""
        shown = 0
        for kind, block in blocks:
            if kind == "text":
                assert printed == block
                shown += 1
                continue
            assert printed == "" or shown
            printed = test_tutorial.run(block.replace(test_tutorial.URL, process.server.url), names)
        assert shown == len(blocks) / 2
    finally:
        process.stop()
