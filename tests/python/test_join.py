"""Many files in one import, and imports into arrays that exist, are what `xarray.concat` makes of them."""

from __future__ import annotations

import re
import subprocess
import uuid
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import requests
import xarray as xr
import zarr

import oracle
import service
import sources

pytestmark = pytest.mark.once

CALENDARS = {
    "standard": "days since 1990-01-01",
    "noleap": "hours since 1989-12-31 12:00",
    "360_day": "minutes since 1900-01-01",
    "proleptic_gregorian": "seconds since 1970-01-01",
}


@pytest.fixture
def repo() -> str:
    return f"j{uuid.uuid4().hex[:12]}"


def write(path: Path, number: int = 0, **changes) -> Path:
    """A file like those of a model: a field, its coordinates, bounds of time, packed and text data."""
    options = {
        "units": "days since 1990-01-01",
        "calendar": "noleap",
        "times": 365.0 * number + np.arange(12) * 30.0 + 15,
        "time_type": "f8",
        "lat": np.linspace(-85, 85, 18),
        "format": "NETCDF4",
        "field_type": "f4",
        "seed": number,
        **changes,
    }
    random = np.random.default_rng(options["seed"])
    times = np.asarray(options["times"])
    with netCDF4.Dataset(path, "w", format=options["format"]) as file:
        file.title = "TREFHT"
        file.history = f"file {number}"
        file.createDimension("time", None)
        file.createDimension("lat", len(options["lat"]))
        file.createDimension("lon", 36)
        file.createDimension("nv", 2)
        lat = file.createVariable("lat", "f8", ("lat",))
        lat.units = "degrees_north"
        lat[:] = options["lat"]
        lon = file.createVariable("lon", "f4", ("lon",))
        lon.units = "degrees_east"
        lon[:] = np.arange(36) * 10
        time = file.createVariable("time", options["time_type"], ("time",))
        time.units, time.calendar, time.bounds = options["units"], options["calendar"], "time_bnds"
        time[:] = times
        step = times[1] - times[0] if len(times) > 1 else 1
        bounds = file.createVariable("time_bnds", options["time_type"], ("time", "nv"))
        bounds[:] = np.stack([times - step // 2, times + step // 2], axis=1)
        chunks = (5, len(options["lat"]), 36) if options["format"] == "NETCDF4" else None
        field = file.createVariable(
            "TREFHT", options["field_type"], ("time", "lat", "lon"), chunksizes=chunks
        )
        field.units = options.get("field_units", "K")
        field.coordinates = "area"
        shape = (len(times), len(options["lat"]), 36)
        field[:] = 280 + 10 * random.normal(size=shape)
        packed = file.createVariable("packed", "i2", ("time", "lat"), fill_value=np.int16(-999))
        packed.scale_factor = options.get("scale", 0.1)
        packed.add_offset = 5.0
        packed.set_auto_maskandscale(False)
        packed[:] = random.integers(-999, 1000, size=shape[:2])
        label = file.createVariable("label", "S1", ("time", "nv"))
        label[:] = random.choice(np.array([b"a", b"b"], "S1"), size=(len(times), 2))
        area = file.createVariable("area", "f8", ("lat", "lon"))
        area[:] = np.arange(area.size).reshape(area.shape) / 7
        file.createVariable("P0", "f8", ())[...] = 1e5
        if "extra" in options:
            file.createVariable(options["extra"], "i4", ("lat",))[:] = 1
    return path


def run_import(store, repo: str, *arguments, check: bool = True) -> subprocess.CompletedProcess:
    return service.run("import", *arguments, "--to", repo, "--store", store, check=check)


def opened(paths, **options) -> list[xr.Dataset]:
    return [xr.open_dataset(path, engine="netcdf4", decode_coords="all", **options) for path in paths]


def raw(paths) -> list[xr.Dataset]:
    return [
        xr.open_dataset(path, engine="netcdf4", decode_cf=False).set_coords(
            [name for name in ("time_bnds", "area") if name in xr.open_dataset(path).variables]
        )
        for path in paths
    ]


def assert_equal(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Same names, dimensions, types and values; same attributes but for how things are stored."""
    assert set(found.variables) == set(wanted.variables)
    assert dict(found.sizes) == dict(wanted.sizes)
    oracle.assert_same_attributes(found.attrs, wanted.attrs, "dataset")
    for name in wanted.variables:
        assert found[name].dims == wanted[name].dims, name
        assert found[name].dtype == wanted[name].dtype, name
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)
        hidden = ("_FillValue", "coordinates")
        kept = [
            {k: plain(v) for k, v in d[name].attrs.items() if k not in hidden}
            for d in (found, wanted)
        ]
        oracle.assert_same_attributes(*kept, name)


def plain(value):
    """JSON has no types of numbers."""
    return value.item() if isinstance(value, np.generic) else value


def decoded(dataset: xr.Dataset) -> xr.Dataset:
    """Decoded by attributes as JSON keeps them: without the types of numbers, so in 64 bits."""
    for variable in dataset.variables.values():
        variable.attrs = {name: plain(value) for name, value in variable.attrs.items()}
    return xr.decode_cf(dataset, decode_coords="all")


def open_raw(server, repo: str, group: str | None = None) -> xr.Dataset:
    return xr.open_zarr(server.branch_url(repo), group=group, decode_cf=False)


def commits(store, repo: str) -> list[dict]:
    return service.run_json("log", repo, "--store", store)


def head(server, repo: str) -> dict:
    """The newest commit of a repository."""
    return requests.get(server.branch_url(repo).removesuffix("/zarr"), timeout=60).json()


def concat_time(datasets) -> xr.Dataset:
    return xr.concat(
        datasets, "time", data_vars="minimal", coords="minimal", compat="equals",
        combine_attrs="override",
    )


def concat_new(datasets, name: str | xr.DataArray) -> xr.Dataset:
    return xr.concat(
        datasets, name, data_vars="all", coords="minimal", compat="equals",
        combine_attrs="override",
    )


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_eight_members_along_time_and_along_a_new_dimension(store, server, repo, tmp_path, format):
    years = [write(tmp_path / f"year{n}.nc", n, format=format) for n in range(8)]
    run_import(store, repo, *years, "--append", "time")
    assert_equal(open_raw(server, repo), concat_time(raw(years)))
    found = xr.open_zarr(server.branch_url(repo), decode_coords="all")
    assert_decoded(found, decoded(concat_time(raw(years))))
    times = np.arange(12) * 30.0
    members = [
        write(tmp_path / f"m{n}.nc", format=format, seed=n, times=times) for n in range(8)
    ]
    run_import(store, f"{repo}/ensemble", *members, "--new-dim", "member")
    assert_equal(open_raw(server, repo, "ensemble"), concat_new(raw(members), "member"))
    run_import(store, f"{repo}/numbered", *members, "--new-dim", "member=@")
    found = open_raw(server, repo, "numbered")
    wanted = concat_new(raw(members), xr.DataArray(np.arange(8), dims="member", name="member"))
    assert_equal(found, wanted)
    assert len(commits(store, repo)) == 4
    service.run("verify", repo, "--deep", "--store", store)


def assert_decoded(found: xr.Dataset, wanted: xr.Dataset) -> None:
    for name in wanted.variables:
        assert found[name].dims == wanted[name].dims, name
        np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)


REAL = [sources.SAMPLE_DATA / f"TREFHT.B06.{n}.atm.1890-1999ANN.nc" for n in (57, 61)]


@pytest.mark.skipif(not all(path.exists() for path in REAL), reason="no TREFHT sample files at hand")
def test_real_members(store, server, repo):
    done = run_import(store, repo, *REAL, "--append", "time", check=False)
    assert "overlaps" in done.stderr and done.returncode == 1
    run_import(store, repo, *REAL, "--append", "time", "--unordered")
    found = xr.open_zarr(server.branch_url(repo))
    datasets = [xr.open_dataset(path) for path in REAL]
    wanted = concat_time(datasets)
    assert found.sizes == wanted.sizes
    np.testing.assert_array_equal(found["TREFHT"].values, wanted["TREFHT"].values)
    # The second file counts days since half a year later; both are stored as the first counts.
    assert found["time"].encoding["units"] == datasets[0]["time"].encoding["units"]
    assert_same_times(found["time"].values, wanted["time"].values)
    run_import(store, f"{repo}/runs", *REAL, "--new-dim", "run=@")
    found = xr.open_zarr(server.branch_url(repo), group="runs", decode_times=False)
    datasets = [xr.open_dataset(path, decode_times=False) for path in REAL]
    wanted = xr.concat(datasets, "run", join="override", combine_attrs="override")
    assert found["run"].values.tolist() == [57, 61]
    assert found["TREFHT"].dims == ("run", "time", "lat", "lon")
    np.testing.assert_array_equal(found["TREFHT"].values, wanted["TREFHT"].values)
    np.testing.assert_array_equal(found["time"].values, wanted["time"].values)


def assert_same_times(found, wanted) -> None:
    """Equal to the microsecond: a time converted from one 64-bit float to another moves by less."""
    if np.asarray(wanted).dtype.kind == "M":
        difference = np.abs((found - wanted) / np.timedelta64(1, "ns"))
    else:
        difference = np.array([abs((a - b).total_seconds()) * 1e9 for a, b in zip(found, wanted)])
    assert difference.max() <= 1000


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("time_type", ["f8", "i8", "i4"])
def test_reference_dates_and_units_are_converted(store, server, repo, tmp_path, calendar, time_type):
    units = ["hours since 1990-01-01", CALENDARS[calendar], "minutes since 1991-03-01 06:00"]
    if calendar == "proleptic_gregorian":
        units[0] = "seconds since 1990-01-01"
    paths = []
    for number, unit in enumerate(units):
        # The same half days, as each file counts them.
        dates = [
            netCDF4.num2date(12 * (3 * number + at), "hours since 1991-03-01", calendar)
            for at in range(3)
        ]
        times = netCDF4.date2num(dates, unit, calendar)
        if time_type != "f8":
            whole = np.rint(np.asarray(times, "f8"))
            if not np.array_equal(whole, times):
                times, unit = netCDF4.date2num(dates, "hours since 1990-06-01", calendar), "hours since 1990-06-01"
        paths.append(
            write(tmp_path / f"{number}.nc", number, units=unit, calendar=calendar,
                  times=np.asarray(times), time_type=time_type)
        )
    run_import(store, repo, *paths, "--append", "time")
    found = xr.open_zarr(server.branch_url(repo), decode_coords="all")
    datasets = opened(paths)
    wanted = concat_time(datasets)
    assert found["time"].encoding["units"] == datasets[0]["time"].encoding["units"]
    assert found["time"].encoding["dtype"] == np.dtype(time_type)
    assert_same_times(found["time"].values, wanted["time"].values)
    assert_same_times(found["time_bnds"].values.ravel(), wanted["time_bnds"].values.ravel())
    np.testing.assert_array_equal(found["TREFHT"].values, wanted["TREFHT"].values)


MISFITS = {
    "variable missing": ({}, {"extra": "more"}, "b.nc", "more"),
    "calendar": ({}, {"calendar": "360_day"}, "b.nc", "calendar of variable time"),
    "units": ({}, {"field_units": "degC"}, "b.nc", '"units" of variable TREFHT'),
    "packing": ({}, {"scale": 0.2}, "b.nc", '"scale_factor" of variable packed'),
    "type": ({}, {"field_type": "f8"}, "b.nc", "variable TREFHT is of type float64"),
    "grid": ({}, {"lat": np.linspace(-85, 85.5, 18)}, "b.nc", "variable lat has other values"),
    "grid size": ({}, {"lat": np.linspace(-85, 85, 17)}, "b.nc", 'along "lat"'),
    "overlap": ({}, {"times": np.arange(12) * 30.0 + 20}, "b.nc", "overlaps a.nc"),
    "order": ({"times": [900.0, 901]}, {}, "b.nc", "give b.nc before a.nc"),
    "inexact times": (
        {"time_type": "i4", "times": np.arange(3)},
        {"time_type": "i4", "times": 24 * 365 + np.arange(3), "units": "hours since 1990-01-01"},
        "b.nc", "variable time: value 8761",
    ),
    "monotonic": ({"times": [1.0, 3, 2]}, {}, "a.nc", "not strictly monotonic"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_misfits_name_file_and_variable_and_leave_no_commit(store, repo, tmp_path, what):
    first, second, file, said = MISFITS[what]
    a = write(tmp_path / "a.nc", 0, **first)
    b = write(tmp_path / "b.nc", 1, **second)
    done = run_import(store, repo, a, b, "--append", "time", check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert f"{file} does not fit" in done.stderr and said in done.stderr, done.stderr
    assert repo not in service.repositories(store)
    if file == "a.nc":
        return
    # The same against what is in the repository.
    run_import(store, repo, a, "--append", "time")
    before = commits(store, repo)
    done = run_import(store, repo, b, "--append", "time", check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "b.nc does not fit" in done.stderr, done.stderr
    assert ("/time, which reaches" if what == "order" else said.replace("a.nc", "/time")) in done.stderr
    assert commits(store, repo) == before


def test_wrong_options_say_what_to_do(store, repo, tmp_path):
    a, b = (write(tmp_path / f"{name}.nc", n) for n, name in enumerate("ab"))
    for arguments, said in [
        ((a, b), "--append DIM"),
        ((a, "--append", "tim"), "there are lat, lon, nv, time"),
        ((a, b, "--new-dim", "time"), "--append time"),
        ((a, b, "--new-dim", "m=1,2,3"), "3 values for 2 files"),
        ((a, b, "--append", "time", "--new-dim", "m"), "their new dimension"),
        ((a, "--append", "time", "--skip", "nothing"), "nothing"),
    ]:
        done = run_import(store, repo, *arguments, check=False)
        assert done.returncode == 1 and said in done.stderr, done.stderr
    assert repo not in service.repositories(store)
    run_import(store, repo, a)
    done = run_import(store, repo, b, check=False)
    assert done.returncode == 1 and "--append DIM" in done.stderr


def test_left_out_variables_need_not_fit(store, server, repo, tmp_path):
    a = write(tmp_path / "a.nc", 0)
    b = write(tmp_path / "b.nc", 1, lat=np.linspace(-85, 85.5, 18), extra="more")
    run_import(store, repo, a, b, "--append", "time", "--skip", "lat,more")
    found = open_raw(server, repo)
    assert "lat" not in found and found.sizes["time"] == 24


def test_differing_attributes_are_in_the_commit(store, server, repo, tmp_path):
    paths = [write(tmp_path / f"{n}.nc", n) for n in range(3)]
    run_import(store, repo, *paths, "--append", "time")
    properties = head(server, repo)["properties"]
    assert properties["sources"] == ["0.nc", "1.nc", "2.nc"]
    assert properties["joined_along"] == "time"
    assert properties["differing_attributes"] == [
        {"attribute": "@history", "file": f"{n}.nc", "value": f"file {n}"} for n in (1, 2)
    ]


@pytest.mark.parametrize(
    "steps", [[1] * 8, [3, 4, 1], [1, 7]], ids=lambda steps: "+".join(map(str, steps))
)
@pytest.mark.parametrize("chunks", ["", "time=7,lat=5"])
def test_appending_in_steps_is_one_joined_import(store, server, repo, tmp_path, steps, chunks):
    lengths = [5, 1, 12, 3, 1, 1, 8, 2]
    starts = np.cumsum([0, *lengths])
    paths = [
        write(tmp_path / f"{n}.nc", n, times=np.arange(starts[n], starts[n + 1]) * 1.0,
              units="days since 1990-01-01" if n % 3 else "days since 1990-01-01 00:00:00")
        for n in range(8)
    ]
    arguments = ("--append", "time", *(("--chunks", chunks) if chunks else ()))
    run_import(store, f"{repo}/whole", *paths, *arguments)
    left = list(paths)
    before = len(commits(store, repo))
    for step in steps:
        now, left = left[:step], left[step:]
        run_import(store, f"{repo}/steps", *now, *arguments)
    assert len(commits(store, repo)) == before + len(steps)
    found, wanted = (open_raw(server, repo, group) for group in ("steps", "whole"))
    assert_equal(found, wanted)
    assert_equal(found, concat_time(raw(paths)))
    service.run("verify", repo, "--deep", "--store", store)


def test_appending_converts_to_what_is_there_and_goes_on_where_it_ends(store, server, repo, tmp_path):
    a = write(tmp_path / "a.nc", 0)
    b = write(tmp_path / "b.nc", 1, units="hours since 1991-01-01", times=np.arange(12) * 720.0)
    run_import(store, repo, a, "--append", "time")
    for again in (a, b):
        before = commits(store, repo)
        done = run_import(store, repo, again, "--append", "time", check=again == b)
        if again == a:
            assert "overlaps /time" in done.stderr and commits(store, repo) == before
    found = xr.open_zarr(server.branch_url(repo))
    assert found["time"].encoding["units"] == "days since 1990-01-01"
    np.testing.assert_array_equal(
        found["time"].values, np.concatenate([d["time"].values for d in opened([a, b])])
    )


def test_members_are_appended_to_members(store, server, repo, tmp_path):
    paths = [write(tmp_path / f"m{n}.nc", seed=n) for n in range(5)]
    run_import(store, repo, *paths[:2], "--new-dim", "member=0..1")
    run_import(store, repo, *paths[2:], "--new-dim", "member=2..4", "--append", "member")
    wanted = concat_new(raw(paths), xr.DataArray(np.arange(5), dims="member", name="member"))
    assert_equal(open_raw(server, repo), wanted)
    done = run_import(store, repo, paths[0], "--new-dim", "member", "--append", "member", check=False)
    assert done.returncode == 1 and "member=VALUE" in done.stderr


def test_files_are_sorted_when_asked(store, server, repo, tmp_path):
    paths = [write(tmp_path / f"{n}.nc", n) for n in range(4)]
    run_import(store, repo, *(paths[n] for n in (2, 0, 3, 1)), "--append", "time", "--sort")
    assert_equal(open_raw(server, repo), concat_time(raw(paths)))


@pytest.mark.parametrize("codec", ["auto", "none", "gzip", "zstd:3", "zstd+shuffle", "lz4+bitshuffle"])
def test_codecs_are_those_of_zarr(store, server, repo, tmp_path, codec):
    path = write(tmp_path / "a.nc")
    done = run_import(store, repo, path, "--codec", codec, "--explain-codec", "--json")
    trials = service.json.loads(done.stdout)["codecs"]["/TREFHT"]
    assert sum(trial["chosen"] for trial in trials) == 1
    assert all(trial["ratio"] > 0.9 and trial["decode_mb_s"] > 0 for trial in trials)
    assert_equal(open_raw(server, repo), raw([path])[0])
    array = zarr.open_group(server.branch_url(repo), mode="r")["TREFHT"]
    with netCDF4.Dataset(path) as file:
        np.testing.assert_array_equal(array[...], file["TREFHT"][...])
    if codec == "auto":
        again = f"{repo}-again"
        run_import(store, again, path, "--codec", codec)
        assert head(server, repo)["tree"] == head(server, again)["tree"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(store, repo, tmp_path):
    paths = [write(tmp_path / f"{n}.nc", n) for n in range(2)]
    arguments = (*paths, "--append", "time", "--dry-run", "--json")
    planned = service.json.loads(run_import(store, repo, *arguments).stdout)["arrays"]
    assert repo not in service.repositories(store)
    field = next(array for array in planned if array["path"] == "/TREFHT")
    assert field["shape"] == [24, 18, 36] and field["bytes"] == 24 * 18 * 36 * 4
    assert field["append"] is None and 0 < field["estimated_bytes"] <= field["bytes"] * 1.1
    assert field["codec"] == "zstd:1" and field["objects"] >= 1
    run_import(store, repo, paths[0], "--append", "time")
    before = commits(store, repo)
    arguments = (paths[1], "--append", "time", "--dry-run", "--json")
    planned = service.json.loads(run_import(store, repo, *arguments).stdout)["arrays"]
    field = next(array for array in planned if array["path"] == "/TREFHT")
    assert field["append"] == {"axis": 0, "from": 12} and field["shape"] == [24, 18, 36]
    assert commits(store, repo) == before
    text = run_import(store, repo, paths[1], "--append", "time", "--dry-run").stdout
    assert re.search(r"/TREFHT float32 \[24, 18, 36\], chunks .*appended from 12", text)
