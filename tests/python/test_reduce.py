"""Slices and reductions equal NumPy's, on the command line and over HTTP."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import requests
import xarray as xr

import service

pytestmark = pytest.mark.once

RTOL = 1e-12

# Selections with the NumPy index they stand for.
SELECTIONS = {
    "0,1,:,10:20": np.s_[0, 1, :, 10:20],
    "-1,...,::-3": np.s_[-1, ..., ::-3],
    "1,0,5:2,:": np.s_[1, 0, 5:2, :],
    ":,2,100:-100:7,3": np.s_[:, 2, 100:-100:7, 3],
    "0,0,400:0:-50,1000:": np.s_[0, 0, 400:0:-50, 1000:],
}
WEATHER_SELECTIONS = {
    "0,10:14,20:25": np.s_[0, 10:14, 20:25],
    "-1,...,::-7": np.s_[-1, ..., ::-7],
    "5:2,:,:": np.s_[5:2],
    "::5,80:10:-9,3": np.s_[::5, 80:10:-9, 3],
    "...": np.s_[...],
}


def read(server, repo: str, path: str, what: str = "data", **parameters) -> np.ndarray:
    answer = server.get(server.data_url(repo, path, what), f="npy", **parameters)
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))


@pytest.fixture(scope="module")
def weather(import_once):
    return import_once("weather.nc")


@pytest.fixture(scope="module")
def temperature(weather) -> np.ndarray:
    """As xarray decodes it."""
    return xr.open_dataset(weather.path).t2m.values


@pytest.mark.parametrize("text", WEATHER_SELECTIONS)
def test_slices_equal_numpy(server, store, weather, temperature, tmp_path, text):
    wanted = temperature[WEATHER_SELECTIONS[text]]
    found = read(server, weather.repo, "t2m", slice=text)
    np.testing.assert_array_equal(found, wanted, strict=True)
    out = tmp_path / "out.npy"
    service.run("get", f"{weather.repo}/t2m[{text}]", "-o", out, "--store", store)
    np.testing.assert_array_equal(np.load(out), wanted, strict=True)


def test_lists_and_masks_are_orthogonal(server, weather, temperature):
    found = read(server, weather.repo, "t2m", slice="[3,1],[90,0,45],10:12")
    wanted = temperature[np.ix_([3, 1], [90, 0, 45], [10, 11])]
    np.testing.assert_array_equal(found, wanted, strict=True)


def test_raw_is_the_packed_integers(server, weather):
    wanted = xr.open_dataset(weather.path, decode_cf=False).t2m.values
    np.testing.assert_array_equal(
        read(server, weather.repo, "t2m", decode="raw"), wanted, strict=True
    )


REDUCERS = ["sum", "mean", "min", "max", "count", "std", "var", "argmin", "argmax"]
AXES = {"time": ("time",), "latitude,longitude": ("latitude", "longitude"), "": None}


@pytest.mark.parametrize("over", AXES)
@pytest.mark.parametrize("reducer", REDUCERS)
def test_reductions_equal_xarray(server, weather, reducer, over):
    # In 64-bit floats, masked cells skipped. Columns without any value are left out: what xarray
    # says of those differs between its versions.
    array = xr.open_dataset(weather.path).t2m[:, 1:40]
    if reducer.startswith("arg") and over == "latitude,longitude":
        pytest.skip("NumPy's argmin takes one axis or all")
    axes = AXES[over][0] if over == "time" else AXES[over]
    wanted = getattr(array, reducer)(axes)
    parameters = {"over": over} if over else {}
    found = read(
        server, weather.repo, "t2m", "reduce", reduce=reducer, slice=":,1:40", **parameters
    )
    np.testing.assert_allclose(found, wanted.values, rtol=1e-10)
    assert found.dtype == wanted.dtype


def test_boolean_reductions(server, import_once):
    source = import_once("netcdf4.nc")
    values = xr.open_dataset(source.path).v_i4.values
    for reducer in ("any", "all"):
        found = read(server, source.repo, "v_i4", "reduce", reduce=reducer, over="time")
        np.testing.assert_array_equal(found, getattr(values, reducer)(axis=0), strict=True)


@pytest.mark.parametrize("reducer", ["sum", "mean", "min", "max", "std", "var", "count"])
@pytest.mark.parametrize("variable", ["v_i1", "v_u8", "v_f4", "v_f8", "float_fill"])
def test_result_types_are_those_of_xarray(server, import_once, reducer, variable):
    source = import_once("netcdf4.nc")
    wanted = getattr(xr.open_dataset(source.path)[variable], reducer)()
    found = read(server, source.repo, variable, "reduce", reduce=reducer)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted.values, rtol=1e-5)


def assert_mean_over_last_axis(server, store, tmp_path, repo, path, axis, text, wanted):
    found = read(
        server, repo, path, "reduce", reduce="mean", over=axis, slice=text, dtype="float64"
    )
    np.testing.assert_allclose(found, wanted, rtol=RTOL, atol=0, strict=True)
    out = tmp_path / "mean.npy"
    service.run(
        "get", f"{repo}/{path}[{text}]", "--reduce", "mean", "--over", axis,
        "--dtype", "float64", "-o", out, "--store", store,
    )
    np.testing.assert_array_equal(np.load(out), found, strict=True)


def test_mean_equals_numpy_in_64_bits(server, store, weather, temperature, tmp_path):
    wanted = np.nanmean(temperature[0, :, 10:20].astype("f8"), axis=-1)
    assert_mean_over_last_axis(
        server, store, tmp_path, weather.repo, "t2m", "longitude", "0,:,10:20", wanted
    )


def test_mean_of_packed_reanalysis_equals_numpy_in_64_bits(server, store, import_once, tmp_path):
    try:
        source = import_once("eraint_uvz.nc")
    except AssertionError:
        pytest.skip("no sample data at hand")
    array = xr.open_dataset(source.path, mask_and_scale=False).z
    scale, offset = array.attrs["scale_factor"], array.attrs["add_offset"]
    values = array.values.astype("f8") * scale + offset
    for text, index in SELECTIONS.items():
        wanted = values[index]
        found = read(server, source.repo, "z", slice=text)
        np.testing.assert_array_equal(found, wanted.astype(found.dtype))
    wanted = values[0, 1, :, 10:20].mean(axis=-1)
    assert_mean_over_last_axis(
        server, store, tmp_path, source.repo, "z", "longitude", "0,1,:,10:20", wanted
    )


def test_json_and_octet_stream_agree_with_npy(server, weather, temperature):
    wanted = temperature[0, 10:14, 20:25]
    path = server.data_url(weather.repo, "t2m")
    octets = server.get(path, slice="0,10:14,20:25")
    assert octets.headers["content-type"] == "application/octet-stream"
    np.testing.assert_array_equal(np.frombuffer(octets.content, "<f8").reshape(4, 5), wanted)
    answer = server.get(path, slice="0,10:14,20:25", f="json")
    assert answer.headers["content-type"].startswith("application/json")
    assert json.loads(answer.text)


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"slice": "0,0,0,0"}, 400),
        ({"slice": "24"}, 400),
        ({"slice": "a:b"}, 400),
        ({"slice": "0:30", "strict": "true"}, 400),
        ({"slice": "0", "decode": "magic"}, 400),
        ({"unknown": "1"}, 400),
        ({"slice": "0", "f": "docx"}, 400),
    ],
)
def test_bad_requests_are_problem_details(server, weather, parameters, status):
    answer = server.get(server.data_url(weather.repo, "t2m"), **parameters)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail"} <= set(answer.json())


def test_a_media_type_that_is_not_offered_is_406(server, weather):
    url = server.url + server.data_url(weather.repo, "t2m")
    answer = requests.get(url, headers={"Accept": "application/msword"}, timeout=60)
    assert answer.status_code == 406


def test_unknown_names_are_404(server, weather):
    for path in (
        server.data_url(weather.repo, "nothing"),
        server.data_url("nowhere", "t2m"),
        server.data_url(weather.repo, "t2m", ref="no-branch"),
        f"/v1/repos/{weather.repo}/refs/main/zarr/t2m/c/99/0/0",
        f"/v1/repos/{weather.repo}/refs/main/zarr/.zgroup",
    ):
        assert server.get(path).status_code == 404, path
