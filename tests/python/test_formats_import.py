"""Files of other formats come in as the libraries that own the formats read them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import xarray as xr
import zarr

import service

pytestmark = pytest.mark.once


@pytest.fixture
def bring_in(tmp_path):
    """Imports a source into a store of its own, exports it as Zarr, and gives the directory."""
    done = []

    def bring(source: Path | str, *arguments: str) -> Path:
        number = len(done)
        store, directory = tmp_path / f"store-{number}", tmp_path / f"out-{number}.zarr"
        done.append(store)
        service.run("import", source, "--to", "repo", "--store", store, *arguments)
        service.run("export", "repo", directory, "--store", store)
        return directory

    return bring


def refused(source: Path | str, tmp_path: Path, *arguments: str) -> str:
    """What the command says about a source it must refuse, without leaving a repository."""
    store = tmp_path / "refused"
    failed = service.run("import", source, "--to", "repo", "--store", store, *arguments, check=False)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "panicked" not in failed.stderr
    assert service.repositories(store) == []
    return failed.stderr


def tree(store: Path) -> str:
    """The hash of the root tree of a branch."""
    process = service.ServerProcess(store)
    try:
        return process.server.get("/v1/repos/repo/refs/main").json()["tree"]
    finally:
        process.stop()


# Zarr


def fill(array, seed: int) -> None:
    """Values of any type, with holes."""
    rng = np.random.default_rng(seed)
    dtype = array.dtype
    if dtype.kind == "b":
        values = rng.random(array.shape) > 0.5
    elif dtype.kind in "mM":
        values = rng.integers(-(10**9), 10**9, array.shape).astype(dtype)
    elif dtype.kind in "SU":
        values = rng.integers(0, 10**6, array.shape).astype(dtype)
    elif dtype.kind in "OT":
        values = np.asarray([f"n{n}é" * (n % 3) for n in range(array.size)], dtype=object)
        values = values.reshape(array.shape)
    elif dtype.kind == "c":
        values = (rng.normal(size=array.shape) + 1j).astype(dtype)
    else:
        values = (rng.normal(size=array.shape) * 50).astype(dtype)
    if array.ndim:
        array[: array.shape[0] // 2] = values[: array.shape[0] // 2]
    else:
        array[...] = values


def native(dtype):
    """The type in this machine's byte order; that of text of any length has none."""
    return dtype if dtype.kind == "T" else dtype.newbyteorder("=")


TYPES = ["|b1", "|i1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", "<c8", "|S5", "<U4", "<M8[ns]", "<m8[s]"]


def same_hierarchy(found: zarr.Group, wanted: zarr.Group) -> None:
    assert dict(found.attrs) == dict(wanted.attrs)
    assert sorted(found.keys()) == sorted(wanted.keys())
    for name, member in wanted.members():
        if isinstance(member, zarr.Group):
            same_hierarchy(found[name], member)
            continue
        other = found[name]
        assert other.shape == member.shape, name
        assert other.dtype == native(member.dtype), name
        np.testing.assert_array_equal(other[...], member[...], err_msg=name)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_hierarchies_of_either_version(bring_in, tmp_path, version):
    path = tmp_path / "source.zarr"
    root = zarr.create_group(path, zarr_format=version, attributes={"title": "é", "n": [1, None]})
    inner = root.create_group("a/b", attributes={"deep": {"x": 1.5}})
    for number, dtype in enumerate(TYPES):
        array = inner.create_array(f"v{number}", shape=(11, 7), chunks=(4, 3), dtype=dtype)
        fill(array, number)
    fill(root.create_array("scalar", shape=(), dtype="f8"), 50)
    root.create_array("empty", shape=(0, 3), chunks=(1, 3), dtype="i4")
    fill(root.create_array("text", shape=(9,), chunks=(4,), dtype=str), 51)
    fill(root.create_array("filled", shape=(9,), chunks=(2,), dtype="i4", fill_value=7), 52)
    if version == 3:
        for name, order in [("sharded", None), ("turned", (1, 0))]:
            filters = [zarr.codecs.TransposeCodec(order=order)] if order else "auto"
            sharded = root.create_array(
                name, shape=(50, 40), chunks=(5, 4), shards=(20, 20), dtype="f4", filters=filters
            )
            fill(sharded, 53)
    found = zarr.open_group(bring_in(path), mode="r")
    same_hierarchy(found, zarr.open_group(path, mode="r"))


def test_codecs_of_zarr_version_2(bring_in, tmp_path):
    numcodecs = pytest.importorskip("numcodecs")
    path = tmp_path / "codecs.zarr"
    root = zarr.create_group(path, zarr_format=2)
    compressors = {
        "none": None,
        "zlib": numcodecs.Zlib(level=3),
        "gzip": numcodecs.GZip(level=2),
        "zstd": numcodecs.Zstd(level=3),
        "blosc_lz4": numcodecs.Blosc(cname="lz4", shuffle=1),
        "blosc_zstd": numcodecs.Blosc(cname="zstd", clevel=3, shuffle=2),
        "blosc_auto": numcodecs.Blosc(cname="blosclz", shuffle=-1),
    }
    for order in "CF":
        for name, compressor in compressors.items():
            array = root.create_array(
                f"{name}_{order}", shape=(20, 30), chunks=(7, 11), dtype="<f4", order=order,
                compressors=compressor, chunk_key_encoding={"name": "v2", "separator": "/"},
            )
            fill(array, 1)
    shuffled = root.create_array(
        "shuffled", shape=(100,), chunks=(30,), dtype="<i4",
        filters=[numcodecs.Shuffle(elementsize=4)], compressors=numcodecs.Zlib(),
    )
    fill(shuffled, 2)
    found = zarr.open_group(bring_in(path), mode="r")
    same_hierarchy(found, zarr.open_group(path, mode="r"))


def test_a_codec_that_cannot_be_decoded_is_named(tmp_path):
    numcodecs = pytest.importorskip("numcodecs")
    path = tmp_path / "delta.zarr"
    root = zarr.create_group(path, zarr_format=2)
    root.create_array("v", shape=(9,), dtype="<i4", filters=[numcodecs.Delta(dtype="<i4")])
    said = refused(path, tmp_path)
    assert "delta" in said and "--skip v" in said


@pytest.mark.parametrize("version", [2, 3])
def test_xarray_sees_the_dataset_that_it_wrote(bring_in, tmp_path, version):
    dataset = xr.Dataset(
        {
            "t": (("time", "x"), np.where(np.eye(4, 3) > 0, np.nan, 280.5).astype("f4"), {"units": "K"}),
            "n": (("x",), np.array([1, 2, 3]), {"long_name": "number"}),
        },
        coords={"time": pd.date_range("2000-01-01", periods=4), "x": [1.0, 2.0, 4.0]},
        attrs={"title": "test"},
    )
    path = tmp_path / "xarray.zarr"
    dataset.to_zarr(path, zarr_format=version, consolidated=version == 2)
    found = xr.open_zarr(bring_in(path))
    xr.testing.assert_identical(found.load(), xr.open_zarr(path).load())


def test_what_is_exported_and_imported_again_has_the_same_tree(tmp_path):
    path = tmp_path / "source.zarr"
    root = zarr.create_group(path, attributes={"a": 1})
    for number, shards in enumerate([None, (8, 8)]):
        array = root.create_array(
            f"g/v{number}", shape=(30, 20), chunks=(4, 4), shards=shards, dtype="f8",
            dimension_names=["y", "x"],
        )
        fill(array, number)
    first, out, second = tmp_path / "first", tmp_path / "out.zarr", tmp_path / "second"
    service.run("import", path, "--to", "repo", "--store", first)
    service.run("export", "repo", out, "--store", first)
    service.run("import", out, "--to", "repo", "--store", second)
    assert tree(second) == tree(first)
    service.run("verify", "repo", "--deep", "--store", second)


@contextlib.contextmanager
def web(folder: Path):
    """A web server for a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_hierarchies_on_a_web_server_need_consolidated_metadata(bring_in, tmp_path):
    folder = tmp_path / "web"
    for version, name in [(2, "two.zarr"), (3, "three.zarr"), (3, "not.zarr")]:
        root = zarr.create_group(folder / name, zarr_format=version, attributes={"v": version})
        fill(root.create_array("g/x", shape=(10, 10), chunks=(3, 4), dtype="f4"), version)
        if name != "not.zarr":
            zarr.consolidate_metadata(folder / name)
    with web(folder) as url:
        for name in ["two.zarr", "three.zarr"]:
            found = zarr.open_group(bring_in(f"{url}/{name}"), mode="r")
            same_hierarchy(found, zarr.open_group(folder / name, mode="r"))
        assert "consolidate" in refused(f"{url}/not.zarr", tmp_path)


def test_files_on_a_web_server(bring_in, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    np.save(folder / "x.npy", np.arange(12).reshape(3, 4))
    (folder / "t.csv").write_text("a,b\n1,2\n")
    with web(folder) as url:
        found = zarr.open_group(bring_in(f"{url}/x.npy"), mode="r")
        np.testing.assert_array_equal(found["x"][...], np.arange(12).reshape(3, 4))
        assert zarr.open_group(bring_in(f"{url}/t.csv"), mode="r")["b"][...] == [2]
        assert "neither a file nor" in refused(f"{url}/none.nc", tmp_path)


# NumPy and safetensors


@pytest.mark.parametrize("compressed", [False, True])
def test_numpy_files(bring_in, tmp_path, compressed):
    rng = np.random.default_rng(1)
    arrays = {
        "f": rng.normal(size=(5, 6, 7)),
        "fortran": np.asfortranarray(rng.normal(size=(5, 6)).astype(">f4")),
        "big": np.arange(10, dtype=">i2"),
        "flag": np.array([True, False]),
        "scalar": np.float32(1.5),
        "empty": np.zeros((0, 3), "u1"),
        "text": np.array(["a", "éü"]),
        "bytes": np.array([b"ab", b"c"]),
        "when": np.array(["2000-01-01", "NaT"], "M8[ns]"),
        "complex": np.array([1 + 2j], "c16"),
    }
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    found = zarr.open_group(bring_in(path), mode="r")
    assert sorted(found.keys()) == sorted(arrays)
    for name, wanted in arrays.items():
        wanted = np.asarray(wanted)
        assert found[name].dtype == wanted.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name][...], wanted, err_msg=name)
        one = tmp_path / f"{name}.npy"
        np.save(one, wanted)
        np.testing.assert_array_equal(zarr.open_group(bring_in(one), mode="r")[name][...], wanted)


def test_pickles_and_structures_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    assert "pickle" in refused(tmp_path / "o.npy", tmp_path)
    np.save(tmp_path / "s.npy", np.zeros(2, [("a", "i4"), ("b", "f8")]))
    assert "structured (a, b)" in refused(tmp_path / "s.npy", tmp_path)


def test_safetensors(bring_in, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    rng = np.random.default_rng(2)
    tensors = {
        "layer.0.weight": rng.normal(size=(4, 5)).astype("f4"),
        "layer.0.bias": rng.normal(size=(4,)).astype("f2"),
        "ids": np.arange(6).reshape(2, 3),
        "mask": np.array([True, False, True]),
        "none": np.zeros((0, 2), "u1"),
    }
    path = tmp_path / "m.safetensors"
    safetensors.save_file(tensors, path, metadata={"format": "np"})
    found = zarr.open_group(bring_in(path), mode="r")
    assert dict(found.attrs) == {"format": "np"}
    for name, wanted in tensors.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name][...], wanted, err_msg=name)


# Columns


def test_parquet_columns(bring_in, tmp_path):
    rows = 5000
    rng = np.random.default_rng(3)
    some = rng.random(rows) > 0.2
    null = lambda values: pa.array([v if s else None for v, s in zip(values, some)])
    table = pa.table(
        {
            "i": pa.array(np.arange(rows)),
            "j": null(range(rows)),
            "u": pa.array(np.arange(rows).astype("u2")),
            "x": null(rng.normal(size=rows).tolist()),
            "flag": pa.array(some),
            "text": null([f"t{n}é" for n in range(rows)]),
            "kind": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
            "at": pa.array(pd.date_range("2001-01-01", periods=rows, freq="h"), pa.timestamp("ns")),
            "day": pa.array(np.arange(rows), pa.int32()).cast(pa.date32()),
        }
    )
    for compression in ["none", "snappy", "zstd", "gzip", "lz4"]:
        path = tmp_path / f"{compression}.parquet"
        pa.parquet.write_table(table, path, compression=compression, row_group_size=700)
        found = xr.open_zarr(bring_in(path), consolidated=False).load()
        np.testing.assert_array_equal(found.i, np.arange(rows))
        np.testing.assert_array_equal(found.u, np.arange(rows))
        np.testing.assert_array_equal(found.j, np.where(some, np.arange(rows), np.nan))
        np.testing.assert_array_equal(found.x, table["x"].to_pandas())
        np.testing.assert_array_equal(found.flag, some)
        np.testing.assert_array_equal(found.text_valid, some)
        assert list(found.text.values) == [t or "" for t in table["text"].to_pylist()]
        assert list(found.kind.values) == ["a", "b"] * (rows // 2)
        np.testing.assert_array_equal(found["at"], table["at"].to_pandas())
        np.testing.assert_array_equal(found.day, pd.to_datetime(table["day"].to_pandas()))
    nested = pa.table({"ok": [1], "list": [[1, 2]]})
    pa.parquet.write_table(nested, tmp_path / "nested.parquet")
    assert "nested" in refused(tmp_path / "nested.parquet", tmp_path)


def test_csv_columns(bring_in, tmp_path):
    rows = 9000
    frame = pd.DataFrame(
        {
            "n": np.arange(rows) - 5,
            "x": np.random.default_rng(4).normal(size=rows),
            "flag": np.arange(rows) % 3 == 0,
            "at": pd.date_range("1999-12-31 23:00", periods=rows, freq="min"),
            "code": [f"{n:05}" for n in range(rows)],
            "text": [f'say "{n}", please' for n in range(rows)],
        }
    )
    frame["gap"] = frame.x.where(frame.flag)
    frame["count"] = frame.n.where(frame.flag).astype("Int64")
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    found = xr.open_zarr(bring_in(path, "--chunks", "row=1000"), consolidated=False).load()
    for name in ["n", "x", "flag", "at", "gap", "code", "text"]:
        np.testing.assert_array_equal(found[name].values, frame[name].to_numpy(), err_msg=name)
    wanted = frame["count"].to_numpy(dtype="f8", na_value=np.nan)
    np.testing.assert_array_equal(found["count"], wanted)
    assert found.n.dtype == np.int64 and found.x.dtype == np.float64


# GeoTIFF and GRIB


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_geotiff(bring_in, tmp_path, tiled, interleave):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    data = np.random.default_rng(5).integers(0, 1000, (3, 70, 90)).astype("i2")
    path = tmp_path / "x.tif"
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 16} if tiled else {}
    ways = [("none", 1), ("deflate", 2), ("lzw", 1), ("lzw", 2), ("packbits", 1), ("zstd", 2)]
    for compress, predictor in ways:
        transform = rasterio.Affine(10.0, 0.0, 500_000.0, 0.0, -20.0, 4_000_000.0)
        with rasterio.open(
            path, "w", driver="GTiff", width=90, height=70, count=3, dtype="int16", nodata=-9999,
            crs="EPSG:32633", transform=transform, compress=compress, interleave=interleave,
            predictor=predictor, **tiles,
        ) as out:
            out.write(data)
        found = xr.open_zarr(bring_in(path), consolidated=False, mask_and_scale=False).load()
        np.testing.assert_array_equal(found.band_data, data)
        columns, rows = np.arange(90), np.arange(70)
        np.testing.assert_allclose(found.x, 500_000 + (columns + 0.5) * 10, rtol=0)
        np.testing.assert_allclose(found.y, 4_000_000 - (rows + 0.5) * 20, rtol=0)
        assert list(found.band) == [1, 2, 3]
        assert found.band_data.attrs["_FillValue"] == -9999
        assert found.spatial_ref.attrs["spatial_ref"] == "EPSG:32633"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("compress", ["none", "lzw"])
def test_geotiff_values_are_those_stored(bring_in, tmp_path, dtype, compress):
    """Of every type, predicted or not, in either byte order, also where 0 stands for white."""
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    data = np.random.default_rng(7).normal(100, 30, (1, 50, 75)).astype(dtype)
    is_count = dtype.startswith("u")
    for predictor in [1, 3 if dtype.startswith("f") else 2] if compress == "lzw" else [1]:
        for endian in ["little", "big"]:
            for photometric in ["minisblack", "miniswhite"] if is_count else ["minisblack"]:
                path = tmp_path / f"{predictor}-{endian}-{photometric}.tif"
                with rasterio.open(
                    path, "w", driver="GTiff", width=75, height=50, count=1, dtype=dtype,
                    compress=compress, predictor=predictor, endianness=endian, photometric=photometric,
                    tiled=True, blockxsize=32, blockysize=16,
                ) as out:
                    out.write(data)
                found = zarr.open_group(bring_in(path), mode="r")
                np.testing.assert_array_equal(found["band_data"][:], data, err_msg=path.name)


def test_tiff_of_floats(bring_in, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    data = np.random.default_rng(6).normal(size=(40, 50))
    for dtype in ["f4", "f8", "u1", "i4", "u8"]:
        path = tmp_path / f"{dtype}.tif"
        wanted = np.abs(data * 50).astype(dtype)
        tifffile.imwrite(path, wanted, byteorder=">", tile=(16, 32), compression="zlib")
        found = zarr.open_group(bring_in(path), mode="r")
        np.testing.assert_array_equal(found["band_data"][0], wanted)


def test_grib(bring_in, tmp_path):
    eccodes = pytest.importorskip("eccodes", reason="ecCodes is not installed")
    cfgrib = pytest.importorskip("cfgrib", reason="cfgrib is not installed")
    path = tmp_path / "t.grib2"
    rng = np.random.default_rng(7)
    with open(path, "wb") as out:
        for level in [1000, 850, 500]:
            for step in [0, 6, 12]:
                handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                for key, value in {
                    "Ni": 18, "Nj": 9, "latitudeOfFirstGridPointInDegrees": 80.0,
                    "latitudeOfLastGridPointInDegrees": -80.0, "longitudeOfFirstGridPointInDegrees": 0.0,
                    "longitudeOfLastGridPointInDegrees": 340.0, "iDirectionIncrementInDegrees": 20.0,
                    "jDirectionIncrementInDegrees": 20.0, "dataDate": 20200229, "dataTime": 1200,
                    "stepRange": step, "level": level, "shortName": "t", "bitsPerValue": 16,
                }.items():
                    eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, 250 + 30 * rng.random(18 * 9))
                eccodes.codes_write(handle, out)
                eccodes.codes_release(handle)
    wanted = cfgrib.open_dataset(path, backend_kwargs={"indexpath": ""}).load()
    found = xr.open_zarr(bring_in(path), consolidated=False).load()
    assert found.t.dims == wanted.t.dims
    np.testing.assert_allclose(found.t, wanted.t, rtol=1e-6)
    for name in ["isobaricInhPa", "latitude", "longitude", "time", "valid_time"]:
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)
    np.testing.assert_array_equal(found.step.values.astype("m8[ns]"), wanted.step.values.astype("m8[ns]"))
    assert found.t.attrs["units"] == "K"


# Patterns, and what is no source


def test_a_pattern_that_matches_nothing_or_too_much(bring_in, tmp_path):
    for name in ["a1.npy", "a2.npy"]:
        np.save(tmp_path / name, np.arange(3))
    assert "nothing matches" in refused(tmp_path / "b*.npy", tmp_path)
    assert "2 files" in refused(tmp_path / "a?.npy", tmp_path)
    assert "a1" in zarr.open_group(bring_in(tmp_path / "*1.npy"), mode="r")


def test_an_unknown_format_is_told_what_is_known(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"something else" * 100)
    said = refused(path, tmp_path)
    for name in ["NetCDF-3", "HDF5", "Zarr", "npz", "safetensors", "Parquet", "CSV", "GeoTIFF", "GRIB2"]:
        assert name in said
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "zarr.json" in refused(folder, tmp_path)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "x.zarr/v/c/0/0"])
def test_truncated_files_leave_no_repository(tmp_path, name):
    values = np.random.default_rng(8).normal(size=(30, 30))
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", v=values)
    pa.parquet.write_table(pa.table({"v": values.ravel()}), tmp_path / "x.parquet")
    root = zarr.create_group(tmp_path / "x.zarr")
    root.create_array("v", data=values, chunks=(30, 30))
    path = tmp_path / name
    whole = path.read_bytes()
    for part in [0.1, 0.5, 0.9, 0.999]:
        path.write_bytes(whole[: int(len(whole) * part)])
        store = tmp_path / f"cut-{part}"
        source = tmp_path / name.split("/")[0]
        failed = service.run("import", source, "--to", "r", "--store", store, check=False)
        assert failed.returncode == 1, part
        assert "panicked" not in failed.stderr
        if service.repositories(store):
            assert json.loads(service.run("log", "r", "--store", store, "--json").stdout)
