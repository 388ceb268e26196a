"""Other programs read slices and reductions in every format, with the values of the array."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
import xarray as xr
from PIL import Image

import service
from test_clients import read_sample

pytestmark = pytest.mark.once

SLICE = "1,:,3:40:2"
INDEX = np.s_[1, :, 3:40:2]


@pytest.fixture(scope="module")
def weather(import_once):
    return import_once("weather.nc")


@pytest.fixture(scope="module")
def temperature(weather) -> xr.DataArray:
    """As xarray decodes it."""
    return xr.open_dataset(weather.path).t2m


@pytest.fixture(scope="module")
def samples(store, tmp_path_factory) -> dict[str, np.ndarray]:
    """Arrays of every type that NumPy has."""
    folder = tmp_path_factory.mktemp("formats")
    maker = Path(os.environ["QUARR_BIN"]) / "sample-types"
    subprocess.run([maker, store, "formats", folder], check=True)
    entries = json.loads((folder / "arrays.json").read_text())
    found = {entry["path"]: read_sample(entry).values for entry in entries}
    return {path: values for path, values in found.items() if path.startswith("types/")}


def read(server, repo: str, path: str, f: str, what: str = "data", **parameters) -> bytes:
    answer = server.get(server.data_url(repo, path, what), f=f, **parameters)
    assert answer.status_code == 200, answer.text
    return answer.content


def from_arrow(content: bytes, name: str) -> np.ndarray:
    table = pa.ipc.open_stream(content).read_all()
    assert table.num_rows == 1
    column = table.column(name).chunk(0)
    if isinstance(column, pa.FixedShapeTensorArray):
        numbers = pa.types.is_integer, pa.types.is_floating
        if any(is_kind(column.type.value_type) for is_kind in numbers):
            return column.to_numpy_ndarray()[0]
        flat = column.storage.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(column.type.shape)
    if pa.types.is_list(column.type):
        shape = json.loads(table.field(name).metadata[b"shape"])
        return np.array(column.flatten().to_pylist(), object).reshape(shape)
    return np.array(column[0].as_py())


def from_netcdf(content: bytes, name: str, folder: Path) -> np.ndarray:
    path = folder / "file.nc"
    path.write_bytes(content)
    with xr.open_dataset(path) as dataset:
        return dataset[name].values


def from_csv(content: bytes, wanted: np.dtype) -> np.ndarray:
    options = {}
    if wanted.kind in "MmSUOV":
        options = {"keep_default_na": False, "dtype": str}
    if wanted.kind in "iu":
        options = {"dtype": wanted}
    if wanted.kind == "c":
        options = {"dtype": str}
    column = pd.read_csv(io.BytesIO(content), **options).iloc[:, -1].to_numpy()
    if wanted.kind == "c":
        return np.array([complex(cell) for cell in column], wanted)
    if wanted.kind == "m":
        return np.array([cell if cell == "NaT" else int(cell) for cell in column], wanted)
    return column.astype(wanted) if wanted.kind in "fM" else column


def test_all_formats_have_the_same_numbers(server, weather, temperature, tmp_path):
    wanted = temperature.values[INDEX]
    repo = weather.repo
    raw = server.get(server.data_url(repo, "t2m"), slice=SLICE)
    shape = f"{wanted.shape[0]} {wanted.shape[1]}"
    assert raw.headers["Tensor"] == f'dtype="{wanted.dtype.str}", shape=({shape})'
    found = np.frombuffer(raw.content, wanted.dtype).reshape(wanted.shape)
    np.testing.assert_array_equal(found, wanted, strict=True)
    found = np.load(io.BytesIO(read(server, repo, "t2m", "npy", slice=SLICE)))
    np.testing.assert_array_equal(found, wanted, strict=True)
    found = from_arrow(read(server, repo, "t2m", "arrow", slice=SLICE), "t2m")
    np.testing.assert_array_equal(found, wanted, strict=True)
    found = from_netcdf(read(server, repo, "t2m", "netcdf", slice=SLICE), "t2m", tmp_path)
    np.testing.assert_array_equal(found, wanted, strict=True)
    found = from_csv(read(server, repo, "t2m", "csv", slice=SLICE), wanted.dtype)
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    values = json.loads(read(server, repo, "t2m", "json", slice=SLICE))["values"]
    found = np.array(values, wanted.dtype)
    np.testing.assert_array_equal(found, wanted, strict=True)


def test_names_and_attributes_come_along(server, weather, temperature, tmp_path):
    path = tmp_path / "file.nc"
    path.write_bytes(read(server, weather.repo, "t2m", "netcdf", slice=SLICE))
    with xr.open_dataset(path) as dataset:
        found = dataset.t2m
        assert found.dims == temperature[INDEX].dims
        assert found.attrs.items() >= {**temperature.attrs}.items()
        assert "scale_factor" not in found.encoding
    field = pa.ipc.open_stream(read(server, weather.repo, "t2m", "arrow", slice=SLICE)).schema[0]
    assert field.type.dim_names == list(temperature[INDEX].dims)
    attributes = json.loads(field.metadata[b"attributes"])
    assert attributes["units"] == temperature.attrs["units"]
    table = pd.read_csv(io.BytesIO(read(server, weather.repo, "t2m", "csv", slice=SLICE)))
    assert list(table.columns) == [*temperature[INDEX].dims, "t2m"]


def test_stored_values_keep_their_packing(server, weather, temperature, tmp_path):
    """A raw answer is unpacked by xarray as the file is."""
    content = read(server, weather.repo, "t2m", "netcdf", slice=SLICE, decode="raw")
    found = from_netcdf(content, "t2m", tmp_path)
    np.testing.assert_array_equal(found, temperature.values[INDEX], strict=True)


def test_reductions_have_formats_too(server, weather, tmp_path):
    options = {"what": "reduce", "reduce": "mean"}
    wanted = np.load(io.BytesIO(read(server, weather.repo, "t2m", "npy", **options)))
    found = from_arrow(read(server, weather.repo, "t2m", "arrow", **options), "t2m")
    assert found == wanted
    found = from_csv(read(server, weather.repo, "t2m", "csv", **options), wanted.dtype)
    assert found == wanted
    content = read(server, weather.repo, "t2m", "netcdf", **options)
    assert from_netcdf(content, "t2m", tmp_path) == wanted


def equal(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether all are the same, of whatever type texts are."""
    if wanted.dtype.kind in "OSUV":
        texts = [as_text(value) for value in wanted.ravel()]
        return [as_text(value) for value in np.asarray(found).ravel()] == texts
    return np.array_equal(found, wanted, equal_nan=True)


def as_text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_every_type_is_held_or_refused(server, samples, tmp_path):
    held = {"arrow": set(), "csv": set(), "netcdf": set()}
    for path, wanted in samples.items():
        name = path.split("/")[1]
        if wanted.dtype.kind == "V":
            # NumPy has no such type, or no values that compare.
            continue
        is_opaque = name == "variable_length_bytes"
        part = "..."
        if wanted.dtype.kind in "Mm":
            # The others are too far away for one reader or another.
            part, wanted = "0,[0,2,3]", wanted[0, [0, 2, 3]]
        for f, names in held.items():
            url = server.data_url("formats", path)
            answer = server.get(url, f=f, decode="raw", slice=part)
            if answer.status_code == 406:
                assert "f=json" in answer.json()["detail"]
                continue
            assert answer.status_code == 200, answer.text
            names.add(name)
            if f == "arrow":
                found = from_arrow(answer.content, name)
            elif f == "netcdf":
                found = from_netcdf(answer.content, name, tmp_path)
            elif is_opaque:
                column = from_csv(answer.content, wanted.dtype)
                found = np.array([bytes.fromhex(cell) for cell in column], object)
            else:
                found = from_csv(answer.content, wanted.dtype)
            found = np.asarray(found).reshape(wanted.shape)
            if is_opaque:
                assert list(found.ravel()) == list(wanted.ravel()), f"{f} {path}"
            else:
                assert equal(found, wanted), f"{f} {path}"
    everything = {path.split("/")[1] for path, a in samples.items() if a.dtype.kind != "V"}
    complex_numbers = {"complex64", "complex128"}
    assert held["csv"] == everything
    assert held["arrow"] == everything - complex_numbers
    assert held["netcdf"] == everything - complex_numbers - {"variable_length_bytes"}


def test_images_have_a_pixel_for_each_element(server, weather, temperature):
    wanted = temperature.values[INDEX]
    least, most = 250.0, 300.0
    options = {"slice": SLICE, "colormap": "gray", "range": f"{least},{most}"}
    image = Image.open(io.BytesIO(read(server, weather.repo, "t2m", "png", **options)))
    assert image.size == (wanted.shape[1], wanted.shape[0])
    assert image.text["range"] == f"{least},{most}"
    pixels = np.asarray(image.convert("RGBA"))
    missing = np.isnan(wanted)
    np.testing.assert_array_equal(pixels[..., 3] == 0, missing)
    share = np.clip((wanted.astype("f8") - least) / (most - least), 0, 1)
    levels = pixels[..., 0][~missing] / 255
    assert np.abs(levels - share[~missing]).max() < 1 / 200


@pytest.mark.parametrize("ending", ["npy", "json", "bin", "arrow", "csv", "nc", "png"])
def test_files_are_the_answers_of_the_service(server, store, weather, tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    service.run("get", f"{weather.repo}/t2m[{SLICE}]", "-o", path, "--store", store)
    name = {"bin": "octet-stream", "nc": "netcdf"}.get(ending, ending)
    assert path.read_bytes() == read(server, weather.repo, "t2m", name, slice=SLICE)


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_compressed_answers_are_the_same(server, weather, coding):
    url = server.url + server.data_url(weather.repo, "t2m") + f"?f=csv&slice={SLICE}"
    answer = requests.get(url, headers={"Accept-Encoding": coding}, timeout=60, stream=True)
    assert answer.headers.get("Content-Encoding", "identity") == coding
    body = answer.raw.read(decode_content=coding == "gzip")
    if coding == "zstd":
        body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
    assert body == read(server, weather.repo, "t2m", "csv", slice=SLICE)
