"""Labels, groups, windows, weights, conditions, quantiles and points equal xarray's."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
import requests
import xarray as xr

import service

pytestmark = pytest.mark.once

REDUCERS = ["sum", "mean", "min", "max", "count", "std", "var", "median"]
VARIABLES = ["t2m", "rain"]


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> xr.Dataset:
    random = np.random.default_rng(7)
    time = pd.date_range("2019-11-15", periods=200, freq="D")
    lat, lon = np.linspace(90, -90, 19), np.arange(0, 360, 20.0)
    shape = (len(time), len(lat), len(lon))
    t2m = (280 + 20 * random.standard_normal(shape)).astype("f4")
    t2m[random.random(shape) < 0.05] = np.nan
    rain = random.integers(-100, 100, shape).astype("i4")
    dims = ("time", "lat", "lon")
    cube = xr.Dataset(
        {"t2m": (dims, t2m), "rain": (dims, rain)}, {"time": time, "lat": lat, "lon": lon}
    )
    cube.lat.attrs["units"], cube.lon.attrs["units"] = "degrees_north", "degrees_east"
    path = tmp_path_factory.mktemp("near") / "cube.nc"
    encoding = {"time": {"units": "hours since 1900-01-01"}, "t2m": {"_FillValue": np.float32(-1)}}
    cube.to_netcdf(path, encoding=encoding)
    return xr.open_dataset(path)


@pytest.fixture(scope="module")
def repo(cube, store) -> str:
    chunks = "time=16,lat=8,lon=8"
    shards = "time=64,lat=16,lon=16"
    path = cube.encoding["source"]
    service.run("import", path, "--to", "near", "--chunks", chunks, "--shards", shards, "--store", store)
    return "near"


@pytest.fixture
def ask(server, repo):
    def ask(what: str, path: str, **parameters) -> np.ndarray:
        answer = server.get(server.data_url(repo, path, what), f="npy", **parameters)
        assert answer.status_code == 200, answer.text
        return np.load(io.BytesIO(answer.content))

    return ask


def agree(found: np.ndarray, wanted: xr.DataArray, rtol: float = 2e-6) -> None:
    """Sums of float32 are less exact in NumPy than here."""
    wanted = np.asarray(wanted)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=0, equal_nan=True)


def same(found: np.ndarray, wanted) -> None:
    np.testing.assert_array_equal(found, np.asarray(wanted), strict=True)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("over", [None, "time", "lat,lon", "time,lon"])
def test_reductions(ask, cube, variable, over):
    axes = over.split(",") if over else None
    for reducer in REDUCERS:
        parameters = {"over": over} if over else {}
        found = ask("reduce", variable, reduce=reducer, **parameters)
        # As exact as float32 allows: NumPy adds in that.
        agree(found, getattr(cube[variable], reducer)(axes), 1e-5)


def test_several_reductions_come_in_one_answer(server, repo, ask):
    url = server.data_url(repo, "t2m", "reduce")
    answer = server.get(url, reduce="mean,max,median,count", over="time", f="json").json()
    assert list(answer["variables"]) == ["mean", "max", "median", "count"]
    for name, variable in answer["variables"].items():
        alone = ask("reduce", "t2m", reduce=name, over="time")
        same(np.array(variable["values"], alone.dtype), alone)
    refused = server.get(url, reduce="mean,max", f="npy")
    assert refused.status_code == 406 and "json" in refused.json()["detail"]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("method", ["linear", "lower", "nearest", "hazen", "median_unbiased"])
def test_quantiles(ask, cube, variable, method):
    q = [0.1, 0.5, 0.99]
    text = ",".join(map(str, q))
    found = ask("reduce", variable, reduce="quantile", q=text, method=method, over="time")
    agree(found, cube[variable].quantile(q, "time", method=method))
    found = ask("reduce", variable, reduce="quantile", q="0.3", method=method)
    agree(found, cube[variable].quantile(0.3, method=method))


def test_approximate_quantiles_say_how_far_off_they_are(server, repo, cube):
    url = server.data_url(repo, "t2m", "reduce")
    answer = server.get(url, reduce="median", approximate="true", f="json")
    bound = float(answer.headers["Error-Bound"])
    found = np.float32(answer.json()["values"])
    assert abs(float(found) - float(cube.t2m.median())) <= bound
    refused = server.get(url, reduce="mean", approximate="true")
    assert refused.status_code == 400


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("component", ["month", "season", "year", "dayofyear"])
def test_groups(ask, cube, variable, component):
    group = f"time.{component}"
    grouped = cube[variable].groupby(group)
    agree(ask("reduce", variable, reduce="mean", groupby=group), grouped.mean(), 1e-5)
    found = ask("reduce", variable, reduce="max", groupby=group, over="lat")
    same(found, grouped.max(["time", "lat"]))
    found = ask("reduce", variable, reduce="median", groupby=group, over="lat,lon")
    agree(found, grouped.median(["time", "lat", "lon"]))


def test_groups_have_labels(server, repo, cube):
    url = server.data_url(repo, "t2m", "reduce")
    answer = server.get(url, reduce="mean", groupby="time.season", over="lat,lon", f="json").json()
    assert answer["dimensions"] == ["season"]
    wanted = cube.t2m.groupby("time.season").mean(["time", "lat", "lon"])
    assert answer["coordinates"]["season"]["values"] == list(wanted.season.values)


@pytest.mark.parametrize("variable", VARIABLES)
def test_windows(ask, cube, server, repo, variable):
    found = ask("reduce", variable, reduce="mean", **{"coarsen.time": 8, "coarsen.lon": 3})
    agree(found, cube[variable].coarsen(time=8, lon=3).mean(), 1e-5)
    found = ask("reduce", variable, reduce="max", boundary="trim", **{"coarsen.lat": 5})
    same(found, cube[variable].coarsen(lat=5, boundary="trim").max())
    url = server.data_url(repo, variable, "reduce")
    refused = server.get(url, reduce="mean", **{"coarsen.lat": 5})
    assert refused.status_code == 400 and "boundary=trim" in refused.json()["detail"]


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("reducer", ["mean", "sum", "std", "var", "sum_of_weights"])
def test_weights(ask, cube, variable, reducer):
    weighted = cube[variable].weighted(np.cos(np.deg2rad(cube.lat)))
    found = ask("reduce", variable, reduce=reducer, weights="area", over="lat,lon")
    agree(found, getattr(weighted, reducer)(["lat", "lon"]))


@pytest.mark.parametrize("variable", VARIABLES)
def test_conditions(ask, cube, variable):
    array = cube[variable]
    found = ask("reduce", variable, reduce="mean", where="t2m>290", over="time")
    agree(found, array.where(cube.t2m > 290).mean("time"), 1e-5)
    found = ask("reduce", variable, reduce="count", where="rain>=50 and t2m<280")
    same(found, array.where((cube.rain >= 50) & (cube.t2m < 280)).count())
    same(ask("reduce", variable, reduce="count", where="rain>5000"), np.int64(0))
    found = ask("data", variable, where="t2m>300", slice="5,:,:")
    wanted = array.where(cube.t2m > 300)[5]
    same(found, wanted.astype("f4" if variable == "t2m" else "f8"))


@pytest.mark.parametrize("variable", VARIABLES)
def test_histograms(ask, cube, variable):
    values = cube[variable].values
    counts, _ = np.histogram(values[~np.isnan(values)], bins=12)
    same(ask("reduce", variable, reduce="histogram", bins=12), counts)
    counts, _ = np.histogram(values, bins=7, range=(-50, 300))
    same(ask("reduce", variable, reduce="histogram", bins=7, range="-50,300"), counts)
    counts, _ = np.histogram(values, bins=[-100, 0, 280, 290.5])
    same(ask("reduce", variable, reduce="histogram", bins="-100,0,280,290.5"), counts)


@pytest.mark.parametrize("variable", VARIABLES)
def test_labels(ask, cube, variable):
    array = cube[variable]
    labels = {"sel.time": "2020-02", "sel.lat": "40/-20", "sel.lon": "nearest::33"}
    wanted = array.sel(time="2020-02", lat=slice(40, -20)).sel(lon=33, method="nearest")
    same(ask("data", variable, **labels), wanted)
    labels = {"sel.lat": "90,40,-90", "sel.time": "2020-01-31/2020-01-25"}
    wanted = array.sel(lat=[90, 40, -90], time=slice("2020-01-25", "2020-01-31"))
    same(ask("data", variable, **labels), wanted)
    # Around the seam of the circle, and by the other convention.
    same(ask("data", variable, **{"sel.lon": "-40/20"}), array.sel(lon=[320, 340, 0, 20]))


def test_labels_that_are_not_there_are_refused(server, repo):
    for labels, said in [
        ({"sel.lat": "41"}, "40"),
        ({"sel.level": "850"}, "no dimension"),
        ({"sel.time": "2021-02-29"}, "2021-02-29"),
        ({"sel.lat": "10", "slice": "0,0,0"}, "slice="),
        ({"coarsen.lat": "2"}, "coarsen.lat"),
    ]:
        refused = server.get(server.data_url(repo, "t2m"), **labels)
        assert refused.status_code in (400, 422), labels
        assert said in json.dumps(refused.json()), refused.text


def test_points(server, repo, cube):
    def points(body: dict) -> np.ndarray:
        url = server.url + server.data_url(repo, "t2m", "points")
        answer = requests.post(url, params={"f": "npy"}, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return np.load(io.BytesIO(answer.content))

    at = {"time": [0, 5, 199, -1], "lat": [1, 2, 3, 4], "lon": [0, 17, 2, -1]}
    wanted = cube.t2m.values[at["time"], at["lat"], at["lon"]]
    same(points({"positions": at}), wanted)
    found = points({"labels": {"lat": [40.2, -33], "lon": [10.1, 359]}, "method": "nearest"})
    lat, lon = xr.DataArray([40.2, -33], dims="p"), xr.DataArray([10.1, 0.0], dims="p")
    nearest = cube.t2m.sel(lat=lat, lon=lon, method="nearest")
    same(found, nearest.transpose("p", "time"))
    for body in ({}, {"positions": {"lat": [99]}}, {"positions": {"lat": [1], "lon": [1, 2]}}):
        url = server.url + server.data_url(repo, "t2m", "points")
        assert requests.post(url, json=body, timeout=60).status_code == 400


def test_random_slices_equal_numpy(ask, cube):
    random = np.random.default_rng(11)
    values = cube.t2m.values
    for _ in range(150):
        texts, wanted = [], values
        for axis, length in reversed(list(enumerate(values.shape))):
            kind = random.integers(4)
            if kind == 0:
                index = int(random.integers(-length, length))
                texts.append(str(index))
            elif kind == 1:
                index = [int(at) for at in random.integers(-length, length, random.integers(1, 5))]
                texts.append("[" + ",".join(map(str, index)) + "]")
            else:
                ends = [
                    None if random.random() < 0.3 else int(random.integers(-length - 5, length + 5))
                    for _ in range(2)
                ]
                step = int(random.choice([-7, -2, -1, 1, 1, 3]))
                index = slice(*ends, step)
                parts = ["" if end is None else str(end) for end in ends]
                texts.append(":".join([*parts, str(step)]))
            wanted = wanted[(slice(None),) * axis + (index,)]
        same(ask("data", "t2m", slice=",".join(reversed(texts))), wanted)


def test_a_plan_is_free_and_true(server, repo):
    url = server.data_url(repo, "t2m", "explain")
    plan = server.get(url, reduce="mean,std,max").json()
    assert plan["chunks"] == plan["chunks_in_statistics"] > 0
    assert plan["cold_requests"]["count"] == 0
    plan = server.get(url, slice=":,3,4").json()
    assert plan["shape"] == [200]
    assert 0 < plan["cold_requests"]["count"] <= 2 * plan["chunks"]


def test_metrics_count_what_is_found(server, repo):
    server.get(server.data_url(repo, "t2m"), slice="0,0,0")
    text = server.get("/metrics").text
    assert 'quarr_cache_hits_total{cache="encoded"}' in text
    assert "quarr_work_limit_bytes" in text
