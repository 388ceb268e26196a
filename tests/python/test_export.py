"""What is exported is what other programs read, value for value; and it is there whole or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import netCDF4
import numpy as np
import obstore
import pandas as pd
import pyarrow.parquet
import pytest
import safetensors
import safetensors.numpy
import xarray as xr
import zarr
from zarr.storage import ObjectStore

import buckets
import oracle
import service
import sources
from test_clients import Sample, read_sample

pytestmark = pytest.mark.once


def export(store, target: str, destination, *arguments: str, check: bool = True):
    return service.run("export", target, destination, *arguments, "--store", store, check=check)


def refused(store, target: str, destination, *arguments: str) -> str:
    """The one line, besides progress, of an export that must fail and leave nothing."""
    before = sorted(Path(destination).parent.iterdir())
    done = export(store, target, destination, *arguments, check=False)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "MB/s" not in line]
    assert len(said) == 1, done.stderr
    assert sorted(Path(destination).parent.iterdir()) == before
    return done.stderr


def open_raw(path, **options) -> xr.Dataset:
    return xr.open_dataset(path, decode_cf=False, **options)


# NetCDF


def without_unholdable(dataset: xr.Dataset) -> xr.Dataset:
    for variable in dataset.variables.values():
        oracle.drop_unholdable_fill(variable)
    return dataset


@pytest.fixture(scope="module")
def netcdf(store, import_once, tmp_path_factory):
    """Exports a source to NetCDF-4, once."""
    folder = tmp_path_factory.mktemp("netcdf")
    done: dict[str, Path] = {}

    def exported(source) -> Path:
        if source.repo not in done:
            path = folder / f"{source.repo}.nc"
            export(store, source.repo, path)
            done[source.repo] = path
        return done[source.repo]

    return exported


def test_netcdf_is_the_file_it_came_from(netcdf, source):
    path = netcdf(source)
    assert set(oracle.groups(path)) == set(oracle.groups(source.path))
    for group in oracle.groups(source.path):
        options = {"group": group or None, "engine": "netcdf4"}
        found, wanted = open_raw(path, **options), open_raw(source.path, **options)
        xr.testing.assert_identical(found, without_unholdable(wanted))
        for name in wanted.variables:
            if wanted[name].dtype.kind not in "OUT":
                assert found[name].dtype == wanted[name].dtype.newbyteorder("="), name


def test_netcdf_decodes_as_the_file_it_came_from(netcdf, source):
    path = netcdf(source)
    for group in oracle.groups(source.path):
        options = {"group": group or None, "engine": "netcdf4"}
        wanted = xr.decode_cf(without_unholdable(open_raw(source.path, **options)))
        xr.testing.assert_identical(xr.open_dataset(path, **options), wanted)


def test_netcdf_is_what_the_repository_shows(netcdf, server, source):
    path = netcdf(source)
    for group in oracle.groups(path):
        found = xr.open_dataset(path, group=group or None, engine="netcdf4", decode_cf=False)
        wanted = xr.open_zarr(server.pinned_url(source.repo), group=group or None, decode_cf=False)
        assert set(found.variables) == set(wanted.variables)
        for name in wanted.variables:
            assert found[name].dims == wanted[name].dims
            np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)


def test_netcdf_comes_back_the_same(store, netcdf, source):
    """Imported again, an export is the same tree but for the order JSON has no place for."""
    repo = f"{source.repo}-again"
    service.run("import", netcdf(source), "--to", repo, "--store", store)
    again = netcdf(type(source)(netcdf(source), repo))
    for group in oracle.groups(source.path):
        options = {"group": group or None, "engine": "netcdf4"}
        xr.testing.assert_identical(
            open_raw(again, **options), open_raw(netcdf(source), **options)
        )


def test_netcdf_can_be_changed_by_others(store, import_once, tmp_path):
    path = tmp_path / "open.nc"
    export(store, import_once("netcdf4.nc").repo, path, "--unlimited", "time,step")
    with netCDF4.Dataset(path, "a") as dataset:
        assert dataset.dimensions["time"].isunlimited()
        assert not dataset.dimensions["x"].isunlimited()
        variable = dataset["v_f4"]
        assert variable.filters()["zlib"] and variable.filters()["complevel"] == 4
        length = variable.shape[0]
        variable[length] = np.ones(variable.shape[1:])
        assert dataset["time"].shape == (length + 1,)
    with netCDF4.Dataset(path) as dataset:
        assert (dataset["v_f4"][-1] == 1).all()


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="ncdump is not installed")
def test_ncdump_reads_it(netcdf, source):
    subprocess.run(["ncdump", "-h", netcdf(source)], check=True, capture_output=True)


def test_netcdf_without_compression(store, import_once, tmp_path):
    source = import_once("netcdf4.nc")
    path = tmp_path / "plain.nc"
    export(store, source.repo, path, "--deflate", "0")
    with netCDF4.Dataset(path) as dataset:
        assert not dataset["v_f4"].filters()["zlib"]
    options = {"engine": "netcdf4"}
    xr.testing.assert_identical(open_raw(path, **options), without_unholdable(open_raw(source.path, **options)))


# Every type


@pytest.fixture(scope="module")
def samples(store, tmp_path_factory) -> dict[str, Sample]:
    folder = tmp_path_factory.mktemp("types")
    maker = Path(os.environ["QUARR_BIN"]) / "sample-types"
    subprocess.run([maker, store, "export-types", folder], check=True)
    entries = json.loads((folder / "arrays.json").read_text())
    return {entry["path"]: read_sample(entry) for entry in entries}


def test_npy_is_the_array(store, samples, tmp_path):
    for number, (path, sample) in enumerate(samples.items()):
        if sample.values.dtype.kind == "O":
            continue
        file = tmp_path / f"{number}.npy"
        export(store, f"export-types/{path}", file)
        found = np.load(file)
        assert found.dtype == sample.values.dtype and sample.equals(found, ...), path


def test_npz_holds_a_group(store, samples, tmp_path):
    names = [path for path, sample in samples.items() if sample.values.dtype.kind != "O"]
    file = tmp_path / "all.npz"
    export(store, "export-types", file, "--vars", ",".join(names))
    with np.load(file) as found:
        assert set(found) == set(names)
        for name in names:
            assert samples[name].equals(found[name], ...), name


def test_texts_become_numpys(store, samples, tmp_path):
    export(store, "export-types/types/string", tmp_path / "texts.npy")
    found = np.load(tmp_path / "texts.npy")
    wanted = samples["types/string"].values
    assert found.dtype.kind == "U"
    assert [text.encode() for text in found.flat] == [text.rstrip(b"\0") for text in wanted.flat]


SAFE = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
SAFE += ["float16", "bfloat16", "float32", "float64"]


def test_safetensors_hold_a_group(store, samples, tmp_path):
    file = tmp_path / "model.safetensors"
    names = [f"types/{name}" for name in SAFE]
    export(store, "export-types", file, "--vars", ",".join(names))
    with safetensors.safe_open(file, framework="numpy") as opened:
        assert set(opened.keys()) == {name.replace("/", ".") for name in names}
    raw = {name: entry for name, entry in safetensors.deserialize(file.read_bytes())}
    for name in names:
        entry = raw[name.replace("/", ".")]
        assert tuple(entry["shape"]) == samples[name].values.shape
        assert bytes(entry["data"]) == samples[name].values.tobytes(), name
    assert "complex128" in refused(
        store, "export-types", tmp_path / "no.safetensors", "--vars", "types/complex128"
    )


def test_zarr_v2_holds_what_it_can(store, samples, tmp_path):
    names = []
    for name in samples:
        done = export(store, f"export-types/{name}", tmp_path / name, "--format", "zarr2", check=False)
        if done.returncode:
            assert "Zarr v2 cannot hold" in done.stderr, done.stderr
        else:
            names.append(name)
    assert {f"types/{name}" for name in SAFE if name != "bfloat16"} <= set(names)
    for name in names:
        array = zarr.open_array(tmp_path / name, mode="r", zarr_format=2)
        found, wanted = array[...], samples[name].values
        if wanted.dtype.kind == "O":
            found = np.array(found, object)
        assert samples[name].equals(found, ...), name


# Zarr


def test_zarr_v3_comes_back_as_the_same_tree(store, source, tmp_path):
    export(store, source.repo, tmp_path / "a.zarr")
    found = xr.open_zarr(tmp_path / "a.zarr", decode_cf=False)
    wanted = open_raw(source.path, engine="netcdf4")
    oracle_set = set(without_unholdable(wanted).variables)
    assert set(found.variables) == oracle_set
    for name in oracle_set:
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)


def test_zarr_v2_opens_as_the_file(store, source, tmp_path):
    export(store, source.repo, tmp_path / "a.zarr", "--format", "zarr2")
    assert json.loads((tmp_path / "a.zarr" / ".zmetadata").read_text())["zarr_consolidated_format"] == 1
    for group in oracle.groups(source.path):
        found = xr.open_zarr(tmp_path / "a.zarr", group=group or None, zarr_format=2, decode_cf=False)
        wanted = without_unholdable(open_raw(source.path, group=group or None, engine="netcdf4"))
        assert set(found.variables) == set(wanted.variables)
        for name in wanted.variables:
            np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)
            fills = [d[name].attrs.get("_FillValue") for d in (found, wanted)]
            np.testing.assert_array_equal(*map(np.asarray, (fills[0], fills[1])), err_msg=name)


# Parts


@pytest.fixture(scope="module")
def cube(store, tmp_path_factory) -> xr.Dataset:
    """Packed values over four dimensions with coordinates, in a repository `cube`."""
    random_numbers = np.random.default_rng(3)
    shape = (10, 7, 40, 50)
    values = random_numbers.integers(-1000, 1000, shape).astype("i2")
    values[0, 0, :5] = -32768
    dataset = xr.Dataset(
        {
            "t": (("time", "level", "lat", "lon"), values, {
                "scale_factor": 0.01, "add_offset": 20.0, "_FillValue": np.int16(-32768), "units": "K",
            }),
            "mask": (("lat", "lon"), random_numbers.integers(0, 2, shape[2:]).astype("i1")),
            "name": (("level",), np.array([f"l{i}" for i in range(7)], object)),
        },
        {
            "time": ("time", np.arange(10) * 6, {"units": "hours since 2020-01-01", "calendar": "standard"}),
            "level": ("level", np.array([1000, 850, 700, 500, 300, 200, 100], "i4")),
            "lat": ("lat", np.linspace(-78, 78, 40), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 352.8, 50), {"units": "degrees_east"}),
        },
        {"title": "a cube"},
    )
    path = tmp_path_factory.mktemp("cube") / "cube.nc"
    dataset.to_netcdf(path)
    service.run("import", path, "--to", "cube", "--store", store, "--chunks", "time=4,lat=16,lon=16")
    return open_raw(path).load()


def same_values(found: xr.Dataset, wanted: xr.Dataset) -> None:
    assert set(found.variables) == set(wanted.variables)
    for name in wanted.variables:
        assert found[name].dims == wanted[name].dims, name
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)


@pytest.mark.parametrize("ending", ["nc", "zarr", "zarr2"])
@pytest.mark.parametrize(
    ("arguments", "select"),
    [
        pytest.param(["--isel", "time=2:9:3"], lambda d: d.isel(time=slice(2, 9, 3)), id="steps"),
        pytest.param(["--isel", "lat=[5,1,30]"], lambda d: d.isel(lat=[5, 1, 30]), id="list"),
        pytest.param(
            ["--sel", "level=850/300", "--isel", "lon=3:17"],
            lambda d: d.isel(level=slice(1, 5), lon=slice(3, 17)), id="labels",
        ),
        pytest.param(
            ["--sel", "time=2020-01-02"], lambda d: d.isel(time=slice(4, 8)), id="a day",
        ),
        pytest.param(["--isel", "level=-1"], lambda d: d.isel(level=-1), id="one level"),
        pytest.param(["--vars", "mask"], lambda d: d[["mask"]], id="one variable"),
        pytest.param(["--isel", "time=3:3"], lambda d: d.isel(time=slice(3, 3)), id="nothing"),
    ],
)
def test_parts_are_those_of_xarray(store, cube, tmp_path, ending, arguments, select):
    path = tmp_path / f"part.{ending}"
    if ending == "zarr2":
        arguments = [*arguments, "--format", "zarr2"]
    export(store, "cube", path, *arguments)
    found = open_raw(path) if ending == "nc" else xr.open_zarr(path, decode_cf=False)
    same_values(found, select(cube))
    if ending == "zarr" and "one variable" not in str(arguments):
        service.run("export", "cube", tmp_path / "again.zarr", *arguments, "--store", store)


def test_a_slice_of_one_array_brings_its_coordinates(store, cube, tmp_path):
    export(store, "cube/t[2:5,-1,:,10]", tmp_path / "slice.nc")
    found = xr.open_dataset(tmp_path / "slice.nc")
    wanted = xr.decode_cf(cube[["t"]].isel(time=slice(2, 5), level=-1, lon=10))
    xr.testing.assert_equal(found, wanted)
    assert set(found.coords) == {"time", "level", "lat", "lon"}


def test_decoded_values_are_those_of_xarray(store, cube, tmp_path):
    wanted = xr.decode_cf(cube, decode_times=False)
    for name in ("a.nc", "a.zarr"):
        export(store, "cube", tmp_path / name, "--decode", "cf")
        found = open_raw(tmp_path / name) if name == "a.nc" else xr.open_zarr(tmp_path / name, decode_cf=False)
        same_values(found, wanted)
        assert "scale_factor" not in found["t"].attrs


def test_parquet_is_the_long_form(store, cube, tmp_path):
    export(store, "cube/t[1:4]", tmp_path / "t.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    found = table.to_pandas()
    wanted = xr.decode_cf(cube[["t"]].isel(time=slice(1, 4))).to_dataframe().reset_index()
    assert list(found) == ["time", "level", "lat", "lon", "t"]
    for name in found:
        left = found[name].astype(wanted[name].dtype).to_numpy()
        np.testing.assert_array_equal(left, wanted[name].to_numpy(), err_msg=name)
    assert json.loads(table.schema.field("t").metadata[b"attributes"])["units"] == "K"


def test_tables_of_columns(store, tmp_path):
    columns = pd.DataFrame(
        {"a": np.arange(5), "b": [0.1, np.nan, 1e300, -0.0, 2.5], "c": ["x", "y,z", 'q"', "", "ü"]}
    )
    dataset = xr.Dataset({name: ("row", columns[name].to_numpy()) for name in columns})
    dataset.to_netcdf(tmp_path / "columns.nc")
    service.run("import", tmp_path / "columns.nc", "--to", "columns", "--store", store)
    for name, read in (("t.parquet", pd.read_parquet), ("t.csv", lambda path: pd.read_csv(path, keep_default_na=False, na_values=["NaN"]))):
        export(store, "columns", tmp_path / name)
        pd.testing.assert_frame_equal(read(tmp_path / name), columns, check_dtype=False)


def test_csv_is_the_long_form(store, cube, tmp_path):
    export(store, "cube/t[0,0]", tmp_path / "t.csv")
    found = pd.read_csv(tmp_path / "t.csv")
    wanted = xr.decode_cf(cube[["t"]].isel(time=0, level=0)).to_dataframe().reset_index()
    np.testing.assert_array_equal(found["t"], wanted["t"])
    np.testing.assert_array_equal(found["lat"], wanted["lat"])


@pytest.mark.parametrize(
    ("target", "name", "arguments", "what"),
    [
        ("cube", "a.npy", [], "name one"),
        ("cube", "a.tif", [], "--format"),
        ("cube[0]", "a.zarr", [], "--isel"),
        ("cube", "a.zarr", ["--vars", "nothing"], "there is no array"),
        ("cube", "a.zarr", ["--sel", "nowhere=1"], "no array here has a dimension"),
        ("cube", "a.zarr", ["--sel", "level=3"], "level"),
        ("cube", "a.nc", ["--unlimited", "nowhere"], "nowhere"),
        ("cube/t", "a.zarr", ["--isel", "time=x"], "time"),
        ("nothing", "a.zarr", [], "nothing"),
        ("cube", "a.safetensors", [], "--vars"),
    ],
)
def test_what_cannot_be_is_one_line(store, cube, tmp_path, target, name, arguments, what):
    assert what in refused(store, target, tmp_path / name, *arguments)


# Whole or not at all


@pytest.fixture(scope="module")
def large(store, tmp_path_factory) -> np.ndarray:
    """Random numbers that take a moment to write, in a repository `large`."""
    values = np.random.default_rng(4).normal(size=(24, 256, 256)).astype("f4")
    path = tmp_path_factory.mktemp("large") / "large.nc"
    xr.Dataset({"v": (("t", "y", "x"), values)}).to_netcdf(path)
    service.run("import", path, "--to", "large", "--store", store, "--chunks", "t=1,y=64,x=64", "--shards", "t=1,y=64,x=64")
    return values


def read_v(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        return np.load(path)["v"]
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)["v"]
    if path.suffix == ".parquet":
        return pd.read_parquet(path)["v"].to_numpy().reshape(24, 256, 256)
    opened = xr.open_zarr(path) if path.is_dir() else xr.open_dataset(path)
    return opened["v"].values


@pytest.mark.parametrize("name", ["a.zarr", "a.zarr2", "a.nc", "a.npz", "a.safetensors", "a.parquet"])
def test_a_killed_export_leaves_all_or_nothing(store, large, tmp_path, name):
    arguments = ["--format", "zarr2"] if name == "a.zarr2" else []
    path = tmp_path / name
    command = [service.BIN, "export", "large", path, *arguments, "--store", store]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - started
    outcomes = set()
    dice = random.Random(name)
    for _ in range(6):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        outcomes.add(path.exists())
        if path.exists():
            np.testing.assert_array_equal(read_v(path), large)
    # What the killed ones left does not stay.
    export(store, "large", path, *arguments, "--overwrite")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(read_v(path), large)


@pytest.mark.parametrize("name", ["a.zarr", "a.nc", "a.npz"])
def test_nothing_is_replaced_unasked(store, cube, large, tmp_path, name):
    path = tmp_path / name
    export(store, "cube/mask", path)
    assert "--overwrite" in refused(store, "large", path)
    export(store, "large", path, "--overwrite")
    np.testing.assert_array_equal(read_v(path), large)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_is_no_export_is_not_replaced(store, cube, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    assert "remove it first" in refused(store, "cube", folder, "--overwrite")
    assert (folder / "thesis.tex").exists()


def test_a_damaged_chunk_fails_the_export(large, store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store / "large", copy / "large")
    shard = max((copy / "large" / "shards").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    for name in ("a.zarr", "a.nc", "a.npz"):
        refused(copy, "large", tmp_path / name)


def test_memory_is_bounded(store, tmp_path):
    """An array larger than what an export may take."""
    values = np.broadcast_to(np.arange(1024, dtype="f4"), (128, 1024, 1024))
    path = tmp_path / "wide.nc"
    xr.Dataset({"v": (("t", "y", "x"), values)}).to_netcdf(path)
    chunks = ["--chunks", "t=16,y=128,x=128", "--shards", "t=16,y=128,x=128"]
    service.run("import", path, "--to", "wide", "--store", store, *chunks)
    path.unlink()
    for target, name in (("wide", "a.nc"), ("wide/v", "a.npy"), ("wide/v[1:]", "a.zarr")):
        done = service.run_measured("export", target, tmp_path / name, "--store", store, "--memory-limit", "64MiB")
        assert done.status == 0, done.stderr
        assert done.memory_bytes < values.nbytes / 2, (name, done.memory_bytes)
        shutil.rmtree(tmp_path / name) if (tmp_path / name).is_dir() else (tmp_path / name).unlink()


# Buckets


def open_bucket(bucket, prefix: str, **options) -> xr.Dataset:
    return xr.open_zarr(ObjectStore(buckets.client(bucket, prefix), read_only=True), decode_cf=False, **options)


def test_exports_to_a_bucket(store, cube, bucket, tmp_path):
    url = bucket.url
    export(store, "cube", f"{url}/a/v3")
    same_values(open_bucket(bucket, "a/v3"), cube)
    export(store, "cube", f"{url}/a/v2", "--format", "zarr2")
    same_values(open_bucket(bucket, "a/v2", zarr_format=2), cube)
    done = export(store, "cube", f"{url}/a/v3", check=False)
    assert done.returncode == 1 and "--overwrite" in done.stderr
    export(store, "cube", f"{url}/a/v3", "--vars", "mask", "--overwrite")
    same_values(open_bucket(bucket, "a/v3"), cube[["mask"]])
    export(store, "cube", f"{url}/a/cube.nc")
    objects = buckets.client(bucket)
    (tmp_path / "cube.nc").write_bytes(bytes(obstore.get(objects, "a/cube.nc").bytes()))
    xr.testing.assert_identical(open_raw(tmp_path / "cube.nc"), cube)


# Mirrors


def publish(store, target: str, destination, *arguments: str, check: bool = True):
    done = service.run("publish", target, destination, *arguments, "--store", store, "--json", check=check)
    return json.loads(done.stdout) if check else done


def append(store, repo: str, path: Path, value: int) -> None:
    """Another commit of one small array."""
    dataset = xr.Dataset({f"v{value}": ("x", np.full(4, value))})
    dataset.to_netcdf(path)
    service.run("import", path, "--to", repo, "--store", store)


def test_a_mirror_follows_a_branch(store, cube, tmp_path):
    append(store, "followed", tmp_path / "one.nc", 1)
    first = publish(store, "followed", tmp_path / "mirror")
    assert (first["chunks"], first["documents"]) == (1, 2)
    again = publish(store, "followed", tmp_path / "mirror")
    assert (again["chunks"], again["documents"], again["deleted"]) == (0, 0, 0)
    append(store, "followed", tmp_path / "two.nc", 2)
    second = publish(store, "followed", tmp_path / "mirror")
    assert (second["chunks"], second["documents"]) == (1, 2)
    found = xr.open_zarr(tmp_path / "mirror")
    assert {name: int(found[name][0]) for name in found} == {"v1": 1, "v2": 2}
    service.run("reset", "followed", "main", "main~1", "--store", store)
    third = publish(store, "followed", tmp_path / "mirror")
    assert third["deleted"] == 2
    assert set(xr.open_zarr(tmp_path / "mirror")) == {"v1"}
    done = publish(store, "cube", tmp_path / "mirror", check=False)
    assert done.returncode == 1 and "is a mirror of" in done.stderr


def test_a_mirror_in_a_bucket(store, cube, bucket):
    url = bucket.url
    publish(store, "cube", f"{url}/mirror")
    same_values(open_bucket(bucket, "mirror"), cube)
    assert publish(store, "cube", f"{url}/mirror")["chunks"] == 0


def test_a_killed_publication_goes_on(store, large, tmp_path):
    mirror = tmp_path / "mirror"
    command = [service.BIN, "publish", "large", mirror, "--store", store]
    dice = random.Random(6)
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(0, 0.4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (mirror / "zarr.json").exists():
            np.testing.assert_array_equal(read_v(mirror), large)
    publish(store, "large", mirror)
    np.testing.assert_array_equal(read_v(mirror), large)


def test_watching_follows(store, tmp_path):
    append(store, "watched", tmp_path / "one.nc", 1)
    process = subprocess.Popen(
        [service.BIN, "publish", "watched", tmp_path / "mirror", "--watch", "--interval", "1", "--json", "--store", store],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["chunks"] == 1
        append(store, "watched", tmp_path / "two.nc", 2)
        assert json.loads(process.stdout.readline())["chunks"] == 1
        assert set(xr.open_zarr(tmp_path / "mirror")) == {"v1", "v2"}
    finally:
        process.kill()
        process.wait()


# Over a service


def test_a_service_gives_arrays(server, store, cube, tmp_path):
    def export_over(target: str, name: str, *arguments: str, check: bool = True):
        return service.run("export", target, tmp_path / name, *arguments, "--server", server.url, check=check)

    export_over("cube/mask", "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), cube["mask"].values)
    export_over("cube/t[0,1]", "a.nc", "--decode", "cf")
    found = xr.open_dataset(tmp_path / "a.nc")["t"]
    np.testing.assert_allclose(found, xr.decode_cf(cube)["t"][0, 1])
    done = export_over("cube", "a.zarr", check=False)
    assert done.returncode == 1 and "--store" in done.stderr
