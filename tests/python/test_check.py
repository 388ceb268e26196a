"""`quarr check` finds what each bad file has, and nothing in good ones."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest

import corpus
import service

pytestmark = pytest.mark.once


def good(path: Path) -> netCDF4.Dataset:
    """A file as ERA5 writes them, with everything CF asks for; still open, to be spoilt."""
    file = netCDF4.Dataset(path, "w")
    file.Conventions = "CF-1.11"
    for name, length in (("time", None), ("latitude", 19), ("longitude", 36), ("bnds", 2)):
        file.createDimension(name, length)
    time = file.createVariable("time", "i4", ("time",))
    time.setncatts({"units": "hours since 1900-01-01 00:00:00", "calendar": "proleptic_gregorian"})
    time.setncatts({"standard_name": "time", "long_name": "time", "bounds": "time_bnds"})
    time[:] = np.arange(24)
    file.createVariable("time_bnds", "i4", ("time", "bnds"))[:] = np.arange(24)[:, None] + [0, 1]
    for name, units, values in (
        ("latitude", "degrees_north", np.linspace(90, -90, 19)),
        ("longitude", "degrees_east", np.arange(0, 360, 10)),
    ):
        axis = file.createVariable(name, "f4", (name,))
        axis.setncatts({"units": units, "standard_name": name})
        axis[:] = values
    crs = file.createVariable("crs", "i4", ())
    crs.grid_mapping_name = "latitude_longitude"
    dims = ("time", "latitude", "longitude")
    for name, long_name, units in (("t2m", "2 metre temperature", "K"), ("u10", "wind", "m s**-1")):
        packed = file.createVariable(name, "i2", dims, fill_value=-32767, zlib=True, complevel=1, chunksizes=(24, 19, 36))
        packed.setncatts({"units": units, "long_name": long_name, "grid_mapping": "crs"})
        packed.setncatts({"scale_factor": 0.01, "add_offset": 273.15})
        packed[:] = 280.0
    flag = file.createVariable("quality", "i1", dims, fill_value=-1)
    flag.setncatts({"long_name": "quality", "flag_meanings": "good bad"})
    flag.flag_values = np.array([0, 1], "i1")
    flag[:] = 0
    file["t2m"].ancillary_variables = "quality"
    return file


def check(path: Path) -> tuple[int, list[dict]]:
    done = service.run("check", path, "--json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def spoil(**attributes):
    """Sets attributes, by `variable__attribute`; `None` takes them out."""

    def work(file: netCDF4.Dataset) -> None:
        for key, value in attributes.items():
            variable, attribute = key.split("__", 1)
            if value is None:
                file[variable].delncattr(attribute)
            else:
                file[variable].setncattr(attribute, value)

    return work


def values(name: str, at: int, value: float):
    def work(file: netCDF4.Dataset) -> None:
        file[name][at] = value

    return work


def variable(name: str, kind, dims, fill=None, data=None, **attributes):
    def work(file: netCDF4.Dataset) -> None:
        made = file.createVariable(name, kind, dims, fill_value=fill)
        made.set_auto_maskandscale(False)
        made.setncatts(attributes)
        if data is not None:
            made[...] = data

    return work


def chunked(shape: tuple, chunks: tuple, unlimited: bool = False, **options):
    def work(file: netCDF4.Dataset) -> None:
        for axis, length in enumerate(shape):
            file.createDimension(f"d{axis}", None if unlimited and axis == 0 else length)
        dims = [f"d{axis}" for axis in range(len(shape))]
        made = file.createVariable("v", "f4", dims, chunksizes=chunks, **options)
        made.setncatts({"units": "1", "long_name": "v"})
        if unlimited:
            made[shape[0] - 1] = 0

    return work


ERROR, WARNING = "error", "warning"
# A rule, the variable it is about, how bad it is, and what spoils the file.
SPOILT = [
    ("units-missing", "t2m", WARNING, spoil(t2m__units=None)),
    ("units-missing", "latitude", WARNING, spoil(latitude__units=None)),
    ("units", "t2m", WARNING, spoil(t2m__units="furlongs per fish")),
    ("units", "t2m", WARNING, spoil(t2m__units="unitless")),
    ("units-type", "t2m", ERROR, spoil(t2m__units=np.int32(1))),
    ("time-reference", "time", ERROR, spoil(time__units="hours")),
    ("time-units", "time", ERROR, spoil(time__units="hours since the flood")),
    ("time-units", "time", ERROR, spoil(time__units="months since 1900-01-01")),
    ("time-units", "time", ERROR, spoil(time__units="days since 2001-02-29", time__calendar="noleap")),
    ("calendar", "time", ERROR, spoil(time__calendar="gregorain")),
    ("calendar", "time", ERROR, spoil(time__calendar=np.int32(1))),
    ("mixed-calendar", "time", WARNING, spoil(time__units="days since 0001-01-01", time__calendar="standard")),
    ("coordinate-order", "latitude", ERROR, values("latitude", 3, 80)),
    ("coordinate-repeats", "time", ERROR, values("time", 5, 4)),
    ("coordinate-missing", "longitude", ERROR, values("longitude", 5, np.nan)),
    ("latitude-range", "latitude", WARNING, values("latitude", 0, 900)),
    ("latitude-longitude-units", "latitude", WARNING, spoil(latitude__units="degrees")),
    ("coordinate-identity", "bnds", WARNING, variable("bnds", "i4", ("bnds",), data=[1, 2], units="1")),
    ("positive", "bnds", WARNING, variable("bnds", "f4", ("bnds",), data=[1, 2], units="m", axis="Z")),
    ("bounds-shape", "time", ERROR, spoil(time__bounds="t2m")),
    ("bounds-units", "time", WARNING, spoil(time_bnds__units="days since 1900-01-01")),
    ("absent-variable", "t2m", WARNING, spoil(t2m__coordinates="height lat2d")),
    ("absent-variable", "t2m", WARNING, spoil(t2m__grid_mapping="nowhere")),
    ("absent-variable", "latitude", WARNING, spoil(latitude__bounds="lat_bnds")),
    ("absent-variable", "t2m", WARNING, spoil(t2m__ancillary_variables="quality more")),
    ("absent-variable", "t2m", WARNING, spoil(t2m__cell_measures="area: areacella")),
    ("reference-type", "t2m", ERROR, spoil(t2m__coordinates=np.int32(1))),
    ("grid-mapping-name", "t2m", WARNING, spoil(crs__grid_mapping_name=None)),
    ("data-name", "t2m", WARNING, spoil(t2m__long_name=None)),
    ("missing-value", "t2m", WARNING, spoil(t2m__missing_value=np.float64("nan"))),
    ("missing-value-differs", "t2m", WARNING, spoil(t2m__missing_value=np.int16(-1))),
    ("valid-range", "t2m", WARNING, spoil(t2m__valid_range=np.array([200.0, 320.0]))),
    ("valid-range", "t2m", WARNING, spoil(t2m__valid_range=np.array([9, 3], "i2"))),
    ("valid-range", "t2m", WARNING, spoil(t2m__valid_min="low")),
    ("fill-value-valid", "t2m", WARNING, spoil(t2m__valid_min=np.int16(-32768))),
    ("packing", "t2m", ERROR, spoil(t2m__scale_factor=0.0)),
    ("packing", "t2m", ERROR, spoil(t2m__add_offset="much")),
    ("packed-without-fill", "p", WARNING, variable("p", "i2", ("bnds",), units="K", long_name="p", scale_factor=0.1)),
    ("packed-float", "p", WARNING, variable("p", "f4", ("bnds",), units="K", long_name="p", scale_factor=0.1)),
    ("unsigned", "p", WARNING, variable("p", "f4", ("bnds",), units="K", long_name="p", _Unsigned="true")),
    ("flags", "quality", WARNING, spoil(quality__flag_meanings="good bad ugly")),
    ("characters", "station", WARNING, variable("station", "S1", ("bnds",), long_name="name")),
    ("name", "2m-t", WARNING, variable("2m-t", "f4", ("bnds",), units="K", long_name="t")),
    ("conventions", "", WARNING, lambda file: file.delncattr("Conventions")),
    ("deflate-level", "v", WARNING, chunked((20, 30), (20, 30), zlib=True, complevel=9)),
    ("chunk-tiny", "v", WARNING, chunked((1200, 1000), (1, 1000), zlib=True, complevel=1)),
    ("chunk-unlimited", "v", WARNING, chunked((2000, 8), (1, 8), unlimited=True)),
    ("chunk-whole", "v", WARNING, chunked((4200, 4200), (4200, 4200), zlib=True, complevel=1)),
    ("chunk-cache", "v", WARNING, chunked((9000, 4200), (4500, 1050), zlib=True, complevel=1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "severity", "work"), SPOILT, ids=[f"{n}-{s[0]}" for n, s in enumerate(SPOILT)]
)
def test_bad_file_has_its_finding(tmp_path, rule, name, severity, work):
    path = tmp_path / "bad.nc"
    with good(path) as file:
        work(file)
    status, findings = check(path)
    found = [f for f in findings if (f["rule"], f["variable"], f["severity"]) == (rule, name, severity)]
    assert found, findings
    for finding in found:
        assert finding["what"] and finding["advice"] and "\n" not in finding["what"] + finding["advice"]
    is_error = any(finding["severity"] == ERROR for finding in findings)
    assert status == (1 if is_error else 0)
    # Nothing else is wrong with it, but for what follows from it.
    also = {"bounds-shape": {"time_bnds"}, "grid-mapping-name": {"u10"}}.get(rule, set())
    assert {f["variable"] for f in findings} <= {name} | also, findings


def test_good_files_have_no_findings(tmp_path):
    good(tmp_path / "good.nc").close()
    assert check(tmp_path / "good.nc") == (0, [])
    corpus.grid_mapping(tmp_path / "mapping.nc")
    status, findings = check(tmp_path / "mapping.nc")
    assert status == 0
    assert {f["rule"] for f in findings} <= {"units-missing", "data-name", "name"}


def test_fill_value_of_another_type_is_an_error(tmp_path):
    """netCDF writes none; HDF5 tools do, and so do old NetCDF-3 writers."""
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        for name, kind, fill in (
            ("nan", "i2", np.float64("nan")), ("text", "f4", "missing"), ("wide", "i1", np.int32(999)),
            ("two", "f4", np.array([1.0, 2.0])), ("fine", "f4", np.float32(9)),
        ):  # fmt: skip
            file[name] = np.zeros(3, kind)
            file[name].attrs["_FillValue"] = fill
    status, findings = check(path)
    assert status == 1
    errors = {f["variable"] for f in findings if f["rule"] == "fill-value"}
    assert errors == {"nan", "text", "wide", "two"}


def test_what_import_refuses_is_found(tmp_path):
    path = tmp_path / "other.h5"
    corpus.hdf5_other_types(path)
    _, findings = check(path)
    refused = {f["variable"] for f in findings if f["rule"] == "refused"}
    assert refused == set(corpus.CASES["h5-other-types"].skip)
    assert all("--skip" in f["advice"] for f in findings if f["rule"] == "refused")


def test_findings_are_lines_grouped_by_variable(tmp_path):
    path = tmp_path / "bad.nc"
    with good(path) as file:
        spoil(t2m__units=None, t2m__long_name=None, time__calendar="none of them")(file)
    done = service.run("check", path, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines[:-1] if line.startswith("/")] == ["/time", "/t2m"]
    assert sum(line.startswith("  ") for line in lines) == 3
    assert lines[-1].endswith("1 errors, 2 warnings")
    assert "(CF 4.4.1)" in done.stdout


@pytest.mark.parametrize("content", [b"", b"no format at all", b"CDF\1\0\0", b"\x89HDF\r\n\x1a\n"])
def test_unreadable_file_is_one_line(tmp_path, content):
    path = tmp_path / "bad.nc"
    path.write_bytes(content)
    done = service.run("check", path, check=False)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["nc3-type-f4", "cdf5-type-u8", "nc4-groups", "nc4-texts", "h5-links-v110", "h5-scales-several", "h5-phony-nested", "h5-number-le-f2"])  # fmt: skip
def test_every_format_is_checked(tmp_path, name):
    case = corpus.CASES[name]
    path = tmp_path / f"file{case.suffix}"
    case.write(path)
    status, findings = check(path)
    assert status == (1 if any(f["severity"] == ERROR for f in findings) else 0)
