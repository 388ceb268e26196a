"""The files that the oracles are computed for: generated ones always, real ones when at hand.

Real files are looked for in the folder that `QUARR_SAMPLE_DATA` names, by default `shared/data`
beside the checkout.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import netCDF4
import numpy as np

import hdf5_files

SAMPLE_DATA = Path(
    os.environ.get("QUARR_SAMPLE_DATA", Path(__file__).parents[3] / "shared" / "data")
)
MALFORMED = "bad_"


def real_files() -> list[Path]:
    """Well-formed sample files, possibly none."""
    found = [*SAMPLE_DATA.glob("*.nc"), *SAMPLE_DATA.glob("*.cdf")]
    return sorted(path for path in found if not path.name.startswith(MALFORMED))


def malformed_files() -> list[Path]:
    return sorted(SAMPLE_DATA.glob(f"{MALFORMED}*"))


def weather(path: Path) -> None:
    """The demo's file, from the writer that shares no code with any NetCDF library."""
    sample = Path(os.environ["QUARR_BIN"]) / "sample-netcdf"
    subprocess.run([sample, path], check=True)


def classic(path: Path) -> None:
    """NetCDF-3: every classic type, char arrays, scalars, records, attributes of every type."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("record", None)
        file.createDimension("x", 5)
        file.createDimension("name", 7)
        file.setncattr("text", "schön\nzwei")
        file.setncattr("empty", "")
        for kind in ("i1", "i2", "i4", "f4", "f8"):
            one, many = np.array(3, kind), np.array([1, 2, 3], kind)
            file.setncattr(f"one_{kind}", one)
            file.setncattr(f"many_{kind}", many)
            fixed = file.createVariable(f"fixed_{kind}", kind, ("x",), fill_value=np.array(9, kind))
            fixed[:] = np.arange(5)
            fixed.setncattr("valid_min", one)
            record = file.createVariable(f"record_{kind}", kind, ("record", "x"))
            record[:] = np.arange(15).reshape(3, 5)
        file.setncattr("not_finite", np.array([np.nan, np.inf, -np.inf, 1e-300]))
        file.createVariable("scalar", "f8", ())[...] = np.float64(0.1)
        file.createVariable("crs", "S1", ())[...] = b"x"
        names = file.createVariable("station", "S1", ("record", "name"))
        names[:] = netCDF4.stringtochar(np.array(["alpha", "be", ""], "S7"))
        time = file.createVariable("record", "i4", ("record",))
        time.units = "days since 1990-01-01"
        time.calendar = "noleap"
        time[:] = [0, 59, 400]


def classic_without_records(path: Path) -> None:
    """NetCDF-3 whose record dimension is still empty."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        file.createVariable("waiting", "f4", ("time", "x"))
        file.createVariable("x", "i2", ("x",))[:] = [1, 2, 3]


def cdf5(path: Path) -> None:
    """CDF-5: the unsigned and 64-bit types at their limits."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_DATA") as file:
        file.createDimension("x", 4)
        for kind in ("u1", "u2", "u4", "u8", "i8"):
            limits = np.iinfo(kind)
            values = np.array([limits.min, 0, 1, limits.max], kind)
            variable = file.createVariable(kind, kind, ("x",), fill_value=values[3])
            variable.set_auto_maskandscale(False)
            variable[:] = values
            variable.setncattr("limits", values[[0, 3]])


def netcdf4(path: Path) -> None:
    """NetCDF-4: filters, unlimited dimensions, strings, packing, fill values, dimension order."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("step", None)
        file.createDimension("y", 31)
        file.createDimension("x", 37)
        file.title = "ünïcode"
        file.setncattr_string("words", ["one", "two"])
        file.big = np.int64(2**60 + 1)
        file.huge = np.uint64(2**64 - 1)
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"):
            filters = {"zlib": True, "shuffle": kind != "i1", "fletcher32": kind == "f4"}
            variable = file.createVariable(
                f"v_{kind}", kind, ("time", "y", "x"), chunksizes=(2, 10, 11), **filters
            )
            variable[:] = np.arange(5 * 31 * 37).reshape(5, 31, 37) % 100
        big_endian = file.createVariable("big_endian", "f8", ("y",), endian="big")
        big_endian[:] = np.linspace(0, 1, 31)
        packed = file.createVariable("packed", "i2", ("y", "x"), fill_value=np.int16(-1))
        packed.scale_factor, packed.add_offset = np.float32(0.5), np.float32(10)
        packed.missing_value = np.int16(-2)
        packed.set_auto_maskandscale(False)
        packed[:] = (np.arange(31 * 37).reshape(31, 37) % 50 - 2).astype("i2")
        unsigned = file.createVariable("unsigned", "i1", ("x",), fill_value=np.int8(-1))
        unsigned.setncattr("_Unsigned", "true")
        unsigned.set_auto_maskandscale(False)
        unsigned[:] = np.arange(37) - 18
        float_fill = file.createVariable("float_fill", "f4", ("y", "x"), fill_value=np.float32(1e20))
        float_fill[:] = np.ma.masked_less(np.random.default_rng(1).normal(size=(31, 37)), 0)
        nan_fill = file.createVariable("nan_fill", "f8", ("x",), fill_value=np.nan)
        nan_fill[:30] = np.arange(30)
        words = file.createVariable("words", str, ("y",))
        words[:] = np.array([f"wört {i}" * (i % 4) for i in range(31)], object)
        letters = file.createVariable("letters", "S1", ("y", "x"))
        letters[:] = np.array([bytes([65 + i % 26]) for i in range(31 * 37)], "S1").reshape(31, 37)
        partly = file.createVariable("partly_written", "i4", ("time", "step"), chunksizes=(3, 3))
        partly[0:2, 0:4] = np.arange(8).reshape(2, 4)
        partly[4, 0:4] = 9
        scalar = file.createVariable("scalar", "i8", ())
        scalar[...] = 42
        time = file.createVariable("time", "f8", ("time",))
        time.units = "hours since 2000-01-01 06:00:00"
        time.calendar = "proleptic_gregorian"
        time[:] = np.arange(5) * 6.5
        packed.coordinates = "area"
        file.createVariable("area", "f4", ("y", "x"))[:] = 1.5


def netcdf4_groups(path: Path) -> None:
    """Nested groups whose variables use dimensions of groups above."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 6)
        file.createVariable("x", "i4", ("x",))[:] = np.arange(6)
        forecast = file.createGroup("forecast")
        forecast.centre = "here"
        forecast.createDimension("member", 3)
        forecast.createVariable("t", "f4", ("member", "x"))[:] = np.ones((3, 6))
        deep = file.createGroup("forecast/deep/er")
        deep.createVariable("t", "f8", ("member", "x"), zlib=True)[:] = np.eye(3, 6)
        file.createGroup("empty")


def netcdf4_many(path: Path) -> None:
    """Fifty variables in one group, larger than one chunk: what a model writes."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", 40)
        file.createDimension("cell", 300)
        values = np.random.default_rng(2).normal(size=(40, 300)).astype("f4")
        for number in range(50):
            file.createVariable(f"v{number:02}", "f4", ("time", "cell"))[:] = values + number


GENERATED = {
    "weather.nc": weather,
    "classic.nc": classic,
    "classic-without-records.nc": classic_without_records,
    "cdf5.nc": cdf5,
    "netcdf4.nc": netcdf4,
    "netcdf4-groups.nc": netcdf4_groups,
    "netcdf4-many.nc": netcdf4_many,
    **{f"{name.replace('_', '-')}.nc": write for name, write in hdf5_files.NETCDF4.items()},
}
