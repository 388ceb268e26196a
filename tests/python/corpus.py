"""Some three hundred small NetCDF-3, NetCDF-4 and HDF5 files of every type, filter and layout.

`CASES` maps a name to a `Case`, whose function writes one file. NetCDF files are compared with what
netCDF4 and xarray show, HDF5 files with what h5py shows; `skip` names what an import has to refuse.
Everything is deterministic.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import netCDF4
import numpy as np


@dataclass(frozen=True)
class Case:
    """A file: `kind` is the oracle, `netcdf` or `hdf5`; `skip` what has no place."""

    name: str
    kind: str
    write: Callable[[Path], object]
    skip: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        return ".nc" if self.kind == "netcdf" else ".h5"


def rng_of(*parts: object) -> np.random.Generator:
    """A generator seeded by what the file is of."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, parts)).encode()))


def sample(kind: str, shape: tuple[int, ...], *seed: object) -> np.ndarray:
    """Values of a type with its extremes among them: limits, NaN with a payload, infinities, −0."""
    kind = np.dtype(kind)
    rng = rng_of(kind.str, shape, *seed)
    count = int(np.prod(shape))
    if kind.kind == "S":
        letters = np.frombuffer(b"abcXYZ 019-", "S1")
        words = [b"".join(rng.choice(letters, kind.itemsize)).rstrip() for _ in range(count)]
        return np.array(words, kind).reshape(shape)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        values = rng.integers(limits.min, limits.max, count, kind.newbyteorder("="), endpoint=True)
        special = [limits.min, limits.max, 0]
    else:
        values = rng.normal(size=count).astype(kind.newbyteorder("="))
        with np.errstate(all="ignore"):
            payload = np.array([0x7FF4_0000_DEAD_0000], "u8").view("f8").astype(values.dtype)[0]
        limits = np.finfo(values.dtype)
        special = [np.nan, payload, np.inf, -np.inf, -0.0, limits.max, limits.smallest_subnormal]
    special = special[: count // 2]
    with np.errstate(all="ignore"):
        values[: len(special)] = special
    return values.reshape(shape).astype(kind)


# --- NetCDF -------------------------------------------------------------------------------------

CLASSIC_TYPES = ("i1", "S1", "i2", "i4", "f4", "f8")
NEW_TYPES = ("u1", "u2", "u4", "i8", "u8")
FORMATS = {
    "nc3": "NETCDF3_CLASSIC",
    "nc3-64": "NETCDF3_64BIT_OFFSET",
    "cdf5": "NETCDF3_64BIT_DATA",
    "nc4": "NETCDF4",
    "nc4-classic": "NETCDF4_CLASSIC",
}
TYPES_OF = {name: CLASSIC_TYPES for name in FORMATS} | {
    "cdf5": CLASSIC_TYPES + NEW_TYPES,
    "nc4": CLASSIC_TYPES + NEW_TYPES,
}


def raw(variable: netCDF4.Variable) -> netCDF4.Variable:
    variable.set_auto_maskandscale(False)
    return variable


def netcdf_type(path: Path, name: str, kind: str) -> None:
    """One type everywhere: fixed, record, scalar, filled by default and by choice, in attributes."""
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        file.createDimension("time", None)
        file.createDimension("x", 5)
        file.createDimension("y", 3)
        own = sample(kind, (9,), "fill")[8]
        raw(file.createVariable("fixed", kind, ("y", "x")))[:] = sample(kind, (3, 5))
        raw(file.createVariable("record", kind, ("time", "x")))[:] = sample(kind, (4, 5), 1)
        raw(file.createVariable("series", kind, ("time",)))[:] = sample(kind, (4,), 2)
        raw(file.createVariable("scalar", kind, ()))[...] = sample(kind, (3,), 3)[2]
        raw(file.createVariable("partly", kind, ("y", "x")))[1, 2:4] = sample(kind, (2,), 4)
        raw(file.createVariable("filled", kind, ("y", "x"), fill_value=own))[0] = sample(kind, (5,))
        file.createVariable("unwritten", kind, ("y", "x"))
        if kind != "S1":
            values = sample(kind, (20,), 5)
            for holder in (file, file["fixed"]):
                holder.setncattr("one", values[10])
                holder.setncattr("some", values[8:12])
                holder.setncattr("extremes", values[:7])
                holder.setncattr("none", values[:0])


def netcdf_records(path: Path, name: str, which: str) -> None:
    """How records are laid out: alone (not padded), odd sizes side by side, none at all."""
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        file.createDimension("t", None)
        file.createDimension("three", 3)
        file.createDimension("one", 1)
        make = lambda label, kind, *dims: raw(file.createVariable(label, kind, dims))  # noqa: E731
        if which == "alone":
            make("only", "i1", "t", "three")[:] = sample("i1", (5, 3))
            make("fixed", "i2", "three")[:] = sample("i2", (3,))
        elif which == "alone-series":
            make("only", "i2", "t")[:] = sample("i2", (7,))
        elif which == "odd":
            make("bytes", "i1", "t", "three")[:] = sample("i1", (5, 3))
            make("shorts", "i2", "t", "three")[:] = sample("i2", (5, 3))
            make("chars", "S1", "t", "one")[:] = sample("S1", (5, 1))
            make("doubles", "f8", "t")[:] = sample("f8", (5,))
            make("fixed", "i1", "three")[:] = sample("i1", (3,))
        elif which == "none":
            make("bytes", "i1", "t", "three")
            make("t", "f8", "t")
            make("fixed", "i1", "three")[:] = [1, 2, 3]
        elif which == "unfilled":
            file.set_fill_off()
            make("bytes", "i1", "t", "three")[:] = sample("i1", (6, 3))
            make("floats", "f4", "three")[:] = sample("f4", (3,))
        elif which == "uneven":
            make("long", "f4", "t", "three")[:] = sample("f4", (6, 3))
            make("short", "i2", "t")[:2] = sample("i2", (2,))
        elif which == "deep":
            make("deep", "f4", "t", "one", "three", "three")[:] = sample("f4", (4, 1, 3, 3))
            make("flat", "f4", "three", "three")[:] = sample("f4", (3, 3))


def netcdf_empty(path: Path, name: str) -> None:
    netCDF4.Dataset(path, "w", format=FORMATS[name]).close()


def netcdf_many_attributes(path: Path, name: str) -> None:
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        file.createDimension("x", 2)
        for holder in (file, file.createVariable("v", "f4", ("x",))):
            for number in range(300):
                holder.setncattr(f"a{number:03}", np.int32(number) if number % 2 else f"text {number}")
        file["v"][:] = [1, 2]


def netcdf_names(path: Path, name: str) -> None:
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        file.createDimension("größe", 2)
        for label in ("with space", "ünïcode", "日本語", "a.b-c+d", "_x", "9lives", "v@t", "c", "x" * 200):
            variable = file.createVariable(label, "i2", ("größe",))
            variable[:] = [1, 2]
            variable.setncattr("schlüssel", "wert")


def netcdf_filter(path: Path, options: dict, kinds: tuple[str, ...]) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("y", 26)
        file.createDimension("x", 34)
        for kind in kinds:
            if "significant_digits" in options and kind[0] != "f":
                continue
            variable = file.createVariable(
                kind, kind, ("time", "y", "x"), chunksizes=(2, 11, 12), **options
            )
            raw(variable)[:] = (np.arange(5 * 26 * 34).reshape(5, 26, 34) // 60 % 100).astype(kind)


def netcdf_endian(path: Path, kind: str) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 12)
        for endian in ("native", "little", "big"):
            fill = sample(kind, (9,))[5]
            stored = {"native": "=", "little": "<", "big": ">"}[endian] + kind
            variable = file.createVariable(endian, stored, ("x",), endian=endian, fill_value=fill)
            raw(variable)[:10] = sample(kind, (10,), endian)
            variable = file.createVariable(f"{endian} z", stored, ("x",), endian=endian, zlib=True)
            raw(variable)[:] = sample(kind, (12,), endian)


def packed(path: Path, name: str, kind: str, scale: object, offset: object, extra: dict) -> None:
    """Packed data; `scale` and `offset` are NumPy scalars, whose type decides what it is read as."""
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        file.createDimension("x", 40)
        fill = extra.get("_FillValue")
        variable = raw(file.createVariable("v", kind, ("x",), fill_value=fill))
        if scale is not None:
            variable.scale_factor = scale
        if offset is not None:
            variable.add_offset = offset
        variable.units = "K"
        for key, value in extra.items():
            if key != "_FillValue":
                variable.setncattr(key, value)
        values = np.arange(40).astype(kind) - np.array(5 if kind[0] == "i" else 0, kind)
        if fill is not None:
            values[3] = fill
        variable[:] = values


PACKED = {
    "scale-f4": ("i2", np.float32(0.1), None, {}),
    "scale-f8": ("i2", np.float64(0.01), None, {}),
    "offset-f4": ("i1", None, np.float32(273.15), {}),
    "both-f4": ("i2", np.float32(0.01), np.float32(273.15), {"_FillValue": np.int16(-2)}),
    "both-f8": ("i2", 0.01, 273.15, {"_FillValue": np.int16(-32767)}),
    "mixed": ("i4", np.float32(0.5), np.float64(1e6), {"_FillValue": np.int32(-1)}),
    "integer-scale": ("i2", np.int16(2), np.int16(1), {}),
    "unsigned": ("i1", None, None, {"_Unsigned": "true", "_FillValue": np.int8(-1)}),
    "unsigned-scaled": ("i2", 0.5, 1.0, {"_Unsigned": "true", "_FillValue": np.int16(-1)}),
    "missing": ("f4", None, None, {"missing_value": np.float32(7), "_FillValue": np.float32(7)}),
    "missing-other": ("i2", 0.5, None, {"missing_value": np.int16(3)}),
    "valid": ("i2", None, None, {"valid_range": np.array([0, 30], "i2"), "valid_min": np.int16(0)}),
    "flags": ("i1", None, None, {"flag_values": np.arange(3, dtype="i1"), "flag_meanings": "a b c"}),
    "nan": ("f8", None, None, {"_FillValue": np.float64("nan"), "missing_value": np.float64(1e20)}),
}

CALENDARS = (
    "standard", "gregorian", "proleptic_gregorian", "noleap", "365_day", "all_leap", "366_day",
    "360_day", "julian", "none at all",
)  # fmt: skip
TIME_UNITS = (
    "days since 1850-01-01", "hours since 1900-01-01 00:00:0.0", "minutes since 1999-12-31T23:00:00Z",
    "seconds since 1970-01-01 00:00:00", "days since 2000-02-28 12:00:00.5",
    "milliseconds since 2001-01-01", "microseconds since 2020-01-01",
    "hours since 1582-10-04", "days since 2000-1-1 6:0:0 +02:00",
)  # fmt: skip


def times(path: Path, units: str, calendar: str) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("bnds", 2)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time.bounds = units, "time_bnds"
        if calendar != "none at all":
            time.calendar = calendar
        time[:] = np.arange(6) * 29.5
        file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = (
            np.arange(6)[:, None] * 29.5 + [0, 29.5]
        )
        whole = file.createVariable("whole", "i4", ("time",))
        whole.units = units
        if calendar != "none at all":
            whole.calendar = calendar
        whole[:] = np.arange(6) * 40
        age = file.createVariable("age", "i4", ("time",))
        age.units = "days"
        age[:] = np.arange(6)


def grid_mapping(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.11"
        for name, length in (("rlat", 4), ("rlon", 5), ("vertices", 4)):
            file.createDimension(name, length)
        pole = file.createVariable("rotated_pole", "S1", ())
        pole.grid_mapping_name = "rotated_latitude_longitude"
        pole.grid_north_pole_latitude = 39.25
        pole.grid_north_pole_longitude = -162.0
        for name in ("rlat", "rlon"):
            axis = file.createVariable(name, "f8", (name,))
            axis.units, axis.standard_name = "degrees", f"grid_{'latitude' if name == 'rlat' else 'longitude'}"
            axis[:] = np.linspace(-1, 1, len(file.dimensions[name]))
        for name in ("lat", "lon"):
            variable = file.createVariable(name, "f8", ("rlat", "rlon"))
            variable.units, variable.bounds = f"degrees_{'north' if name == 'lat' else 'east'}", f"{name}_v"
            variable[:] = np.arange(20).reshape(4, 5)
            file.createVariable(f"{name}_v", "f8", ("rlat", "rlon", "vertices"))[:] = 0.5
        tas = file.createVariable("tas", "f4", ("rlat", "rlon"), fill_value=1e20, zlib=True)
        tas.coordinates, tas.grid_mapping = "lon lat height", "rotated_pole"
        tas.cell_methods, tas.cell_measures = "time: mean (interval: 1 hour)", "area: areacella"
        tas.ancillary_variables = "tas_flag"
        tas[:] = np.ma.masked_less(rng_of("tas").normal(size=(4, 5)), 0)
        file.createVariable("tas_flag", "i1", ("rlat", "rlon"))[:] = 1
        file.createVariable("areacella", "f4", ("rlat", "rlon"))[:] = 2
        file.createVariable("height", "f8", ())[...] = 2.0


def netcdf_lengths(path: Path) -> None:
    """Several unlimited dimensions, of different lengths, one of them 0; dimensions of length 1."""
    with netCDF4.Dataset(path, "w") as file:
        for name in ("t", "level", "never"):
            file.createDimension(name, None)
        file.createDimension("one", 1)
        raw(file.createVariable("a", "f4", ("t", "one")))[:] = sample("f4", (3, 1))
        raw(file.createVariable("b", "i2", ("level", "t")))[:] = sample("i2", (4, 3))
        file.createVariable("c", "i2", ("never", "one"))
        file.createVariable("d", "f8", ("one", "never"))
        raw(file.createVariable("e", "f8", ("one",)))[:] = [1.5]


def netcdf_texts(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", None)
        file.createDimension("n", 9)
        words = ["", "a", "ünï", " leading", "trailing ", "日本", "x" * 300, "tab\tnew\nline", "end"]
        file.createVariable("fixed", str, ("n",))[:] = np.array(words, object)
        file.createVariable("grown", str, ("x",))[:4] = np.array(words[:4], object)
        file.createVariable("packed", str, ("n",), zlib=True)[:] = np.array(words, object)
        file.createVariable("longer", "i1", ("x",))[:] = np.arange(6)
        file.createVariable("scalar", str, ())[...] = np.array("word", object)
        # Of its own: xarray joins characters along no dimension that other variables have.
        file.createDimension("width", 9)
        chars = file.createVariable("chars", "S1", ("x", "width"))
        chars.setncattr("_Encoding", "utf-8")
        chars[:2] = netCDF4.stringtochar(np.array(["abc", "längere"]), "utf-8", 9)[:2, :9]


def netcdf_groups(path: Path) -> None:
    """The same names at several depths; dimensions inherited, hidden and of no variable."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 3)
        group: netCDF4.Dataset | netCDF4.Group = file
        for depth in range(6):
            length = 3 if depth < 3 else 5
            raw(group.createVariable("v", "i4", ("x",)))[:] = sample("i4", (length,), depth)
            group.setncattr("depth", np.int16(depth))
            group = group.createGroup(f"level {depth}")
            if depth == 2:
                group.createDimension("x", 5)
        group.createDimension("alone", 4)


def netcdf_types_user(path: Path) -> None:
    """What has no place: compounds, sequences and opaque bytes, in variables and attributes."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 2)
        compound = file.createCompoundType(np.dtype([("a", "i4"), ("b", "f8")]), "pair")
        file.createVariable("pairs", compound, ("x",))
        sequence = file.createVLType(np.int32, "sequence")
        file.createVariable("ragged", sequence, ("x",))
        file.createVariable("good", "i4", ("x",))[:] = [1, 2]


def netcdf_dimensions(path: Path, name: str, rank: int) -> None:
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        shape = tuple(itertools.islice(itertools.cycle((2, 1, 3)), rank))
        for axis, length in enumerate(shape):
            file.createDimension(f"d{axis}", length)
        dims = [f"d{axis}" for axis in range(rank)]
        raw(file.createVariable("v", "f4", dims))[...] = sample("f4", shape) if rank else 1.5


def netcdf_large(path: Path, name: str, shape: tuple[int, ...], options: dict) -> None:
    """More than one shard or inner chunk; the file's own chunks cross theirs."""
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        for axis, length in enumerate(shape):
            file.createDimension(f"d{axis}", length)
        dims = [f"d{axis}" for axis in range(len(shape))]
        values = rng_of(name, shape).integers(0, 1000, shape).astype("f4")
        raw(file.createVariable("v", "f4", dims, **options))[:] = values


def netcdf_random(path: Path, name: str, seed: int) -> None:
    """A few variables of random types and shapes, with random storage, partly written."""
    rng = rng_of(name, seed)
    with netCDF4.Dataset(path, "w", format=FORMATS[name]) as file:
        is_new = name == "nc4"
        lengths = {"t": None} | {f"d{n}": int(rng.integers(1, 12)) for n in range(4)}
        for dimension, length in lengths.items():
            file.createDimension(dimension, length)
        for number in range(int(rng.integers(1, 7))):
            kind = str(rng.choice([k for k in TYPES_OF[name] if k != "S1"]))
            dims = list(rng.permutation([d for d in lengths if d != "t"])[: rng.integers(0, 4)])
            if rng.random() < 0.5:
                dims.insert(0, "t")
            shape = tuple(3 if d == "t" else lengths[d] for d in dims)
            options: dict = {}
            if rng.random() < 0.3:
                options["fill_value"] = sample(kind, (9,), seed)[8]
            if is_new and dims and rng.random() < 0.7:
                options |= {
                    "zlib": bool(rng.integers(2)), "shuffle": bool(rng.integers(2)),
                    "complevel": int(rng.integers(1, 10)), "fletcher32": bool(rng.integers(2)),
                    "chunksizes": [int(rng.integers(1, n + 1)) for n in shape],
                }  # fmt: skip
            stored = kind
            if is_new:
                options["endian"] = str(rng.choice(["little", "big"]))
                stored = {"little": "<", "big": ">"}[options["endian"]] + kind
            variable = raw(file.createVariable(f"v{number}", stored, dims, **options))
            values = sample(kind, shape, seed, number) if shape else sample(kind, (5,), seed)[3]
            if shape and rng.random() < 0.3:
                variable[: max(1, shape[0] // 2)] = values[: max(1, shape[0] // 2)]
            else:
                variable[...] = values
            variable.setncattr("of", sample(kind, (9,), seed)[7])


# --- HDF5 ---------------------------------------------------------------------------------------

NUMBERS = ("i1", "u1", *(e + k for k in ("i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8") for e in "<>"))
VERSIONS = {
    "earliest": ("earliest", "v110"),
    "v18": ("v108", "v108"),
    "v110": ("v110", "v110"),
}


def dcpl(**settings: object) -> h5py.h5p.PropDCID:
    """Dataset creation properties; a value is the arguments of the setter."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for name, value in settings.items():
        getattr(properties, f"set_{name}")(*(value if isinstance(value, tuple) else (value,)))
    return properties


def low_level(
    file: h5py.Group, name: str, kind: object, shape: tuple, properties: object, maxshape: tuple | None = None
) -> h5py.Dataset:
    """A dataset with properties that h5py's own calls do not take."""
    stored = kind if isinstance(kind, h5py.h5t.TypeID) else h5py.h5t.py_create(np.dtype(kind))
    limit = tuple(h5py.h5s.UNLIMITED if n is None else n for n in maxshape) if maxshape else None
    space = h5py.h5s.create_simple(shape, limit)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), stored, space, properties))


def hdf5_number(path: Path, kind: str) -> None:
    with h5py.File(path, "w") as file:
        values = sample(kind, (6, 5))
        file["contiguous"] = values
        file["scalar"] = values[1, 1]
        file["one"] = values[:1, :1]
        file.create_dataset("chunked", data=values, chunks=(4, 3))
        file.create_dataset("gzip", data=values, chunks=(4, 3), compression="gzip", shuffle=True)
        file.create_dataset("filled", (6, 5), kind, chunks=(2, 2), fillvalue=values[2, 2])[:1] = values[:1]
        file.create_dataset("empty", (0, 3), kind)
        low_level(file, "compact", kind, (6, 5), dcpl(layout=h5py.h5d.COMPACT))[...] = values
        for holder in (file, file["scalar"]):
            holder.attrs["scalar"] = values[1, 0]
            holder.attrs["vector"] = values[0]
            holder.attrs["matrix"] = values
            holder.attrs["length one"] = values[0, :1]
            holder.attrs["no value"] = h5py.Empty(kind)
            holder.attrs["no values"] = values[:0, 0]


def hdf5_truth(path: Path) -> None:
    with h5py.File(path, "w") as file:
        values = rng_of("truth").integers(0, 2, (7, 4)).astype(bool)
        file["contiguous"] = values
        file["scalar"] = np.bool_(True)
        file.create_dataset("gzip", data=values, compression="gzip", chunks=(3, 3))
        file.create_dataset("filled", (5, 5), bool, chunks=(2, 2), fillvalue=True)[:1] = False
        file.attrs["yes"], file.attrs["both"] = True, np.array([True, False])


def hdf5_enum(path: Path, base: str) -> None:
    top = int(np.iinfo(base).max)
    kind = h5py.enum_dtype({"NONE": 0, "SOME": 1, "TOP": top}, basetype=base)
    with h5py.File(path, "w") as file:
        file.create_dataset("enum", data=np.array([0, 1, top, 1], base), dtype=kind)
        file.create_dataset("chunked", (9,), kind, chunks=(4,), compression="gzip")[:3] = [top, 0, 1]
        file.attrs.create("enum", top, dtype=kind)
        file.attrs.create("enums", np.array([0, top], base), dtype=kind)


def hdf5_complex(path: Path, kind: str) -> None:
    part = kind.replace("c8", "f4").replace("c16", "f8")
    values = np.empty((4, 3), kind)
    values.real, values.imag = sample(part, (4, 3), 1), sample(part, (4, 3), 2)[::-1]
    with h5py.File(path, "w") as file:
        file["contiguous"] = values
        file.create_dataset("gzip", data=values, compression="gzip", shuffle=True)
        file["scalar"] = values[3, 2]


def string_type(length: int | None, charset: str, padding: str) -> h5py.h5t.TypeID:
    stored = h5py.h5t.C_S1.copy()
    stored.set_size(h5py.h5t.VARIABLE if length is None else length)
    stored.set_cset({"ascii": h5py.h5t.CSET_ASCII, "utf-8": h5py.h5t.CSET_UTF8}[charset])
    stored.set_strpad(getattr(h5py.h5t, f"STR_{padding}"))
    return stored


def hdf5_fixed_strings(path: Path, charset: str, padding: str) -> None:
    words = [b"", b"a", b"abcdefgh", b"trail  ", b"  lead", b"mid dle", b"nul\0l"]
    if charset == "utf-8":
        words += ["ünï".encode(), "日本".encode()]
    values = np.array(words, "S8")
    stored = string_type(9 if padding == "NULLTERM" else 8, charset, padding)
    with h5py.File(path, "w") as file:
        memory = string_type(8, charset, "NULLPAD")
        for name, properties in {
            "contiguous": dcpl(),
            "chunked": dcpl(chunk=((4,),), deflate=5),
            "compact": dcpl(layout=h5py.h5d.COMPACT),
        }.items():
            dataset = low_level(file, name, stored, values.shape, properties)
            dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, values, memory)
        low_level(file, "unwritten", stored, (3,), dcpl())
        attribute = h5py.h5a.create(file.id, b"text", stored, h5py.h5s.create(h5py.h5s.SCALAR))
        attribute.write(np.array(b"abcdef", "S8"), memory)
        attribute = h5py.h5a.create(file.id, b"texts", stored, h5py.h5s.create_simple((3,)))
        attribute.write(values[:3], memory)


def hdf5_variable_strings(path: Path, charset: str) -> None:
    words = ["", "a", "x" * 5000, "two words", "end "] + (["ünï", "日本"] if charset == "utf-8" else [])
    kind = h5py.string_dtype(charset)
    with h5py.File(path, "w") as file:
        file.create_dataset("contiguous", data=words, dtype=kind)
        file.create_dataset("chunked", data=words, dtype=kind, chunks=(2,), compression="gzip")
        file.create_dataset("matrix", data=np.array([words[:2], words[2:4]], object), dtype=kind)
        file.create_dataset("sparse", (9,), kind, chunks=(2,))[3] = "three"
        file.create_dataset("grown", data=words, dtype=kind, maxshape=(None,))
        file.create_dataset("scalar", data="word", dtype=kind)
        file.attrs.create("text", "word", dtype=kind)
        file.attrs.create("texts", words, dtype=kind)
        file.attrs.create("length one", ["word"], dtype=kind)


GOOD_FILTERS: dict[str, dict] = {
    **{f"gzip-{level}": {"compression": "gzip", "compression_opts": level} for level in range(10)},
    "shuffle": {"shuffle": True},
    "fletcher": {"fletcher32": True},
    "shuffle-fletcher": {"shuffle": True, "fletcher32": True},
    "gzip-shuffle": {"compression": "gzip", "shuffle": True},
    "gzip-shuffle-fletcher": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "szip-nn-8": {"compression": "szip", "compression_opts": ("nn", 8)},
    "szip-ec-16": {"compression": "szip", "compression_opts": ("ec", 16)},
    "szip-fletcher": {"compression": "szip", "compression_opts": ("nn", 16), "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "lzf-shuffle": {"compression": "lzf", "shuffle": True},
    "lzf-shuffle-fletcher": {"compression": "lzf", "shuffle": True, "fletcher32": True},
}


def smooth(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values that compress, with some noise."""
    count = int(np.prod(shape))
    values = (np.arange(count) // 3) % 97 + rng_of(kind, shape).integers(0, 3, count)
    return values.reshape(shape).astype(kind)


def hdf5_filter(path: Path, options: dict) -> None:
    is_szip = options.get("compression") == "szip"
    with h5py.File(path, "w") as file:
        for kind in ("u1", "<i2", ">i4", "<f4", ">f8", "<u8"):
            values = smooth(kind, (23, 18))
            # Whole chunks and partial ones at the edges.
            chunks = (8, 16) if is_szip else (7, 5)
            file.create_dataset(kind, data=values, chunks=chunks, **options)
        if not is_szip:
            noise = rng_of("noise").integers(0, 256, (50, 20)).astype("u1")
            file.create_dataset("noise", data=noise, chunks=(50, 20), **options)


def hdf5_scale_offset(path: Path, kind: str, digits: int) -> None:
    with h5py.File(path, "w") as file:
        values = smooth(kind, (23, 18))
        if kind[1] == "f":
            values = values + values.dtype.type(0.25)
        file.create_dataset("v", data=values, chunks=(7, 5), scaleoffset=digits)
        file.create_dataset("deflated", data=values, chunks=(7, 5), scaleoffset=digits, compression="gzip")
        # With a fill value the filter marks the cells that hold it.
        file.create_dataset("filled", (23, 18), kind, chunks=(7, 5), scaleoffset=digits, fillvalue=3)[:9] = values[:9]
        file.create_dataset("constant", data=np.full((9,), 5, kind), chunks=(9,), scaleoffset=digits)


def hdf5_nbit(path: Path, which: str) -> None:
    nbit = 5
    with h5py.File(path, "w") as file:
        if which.startswith("float"):
            stored = h5py.h5t.IEEE_F32LE.copy()
            properties = dcpl(chunk=((7, 5),), filter=(nbit, 0, ()))
            low_level(file, "v", stored, (20, 9), properties)[...] = smooth("f4", (20, 9))
            return
        kind, precision, offset = {
            "i2-12": ("<i2", 12, 0), "u2-9-offset-3": ("<u2", 9, 3), "i4-20": ("<i4", 20, 0),
            "i4-be-17": (">i4", 17, 4), "u1-5": ("u1", 5, 2), "i8-40": ("<i8", 40, 0),
        }[which]  # fmt: skip
        stored = h5py.h5t.py_create(np.dtype(kind)).copy()
        stored.set_precision(precision)
        stored.set_offset(offset)
        values = smooth("i8", (20, 9)) % (1 << (precision - 1))
        if "i" in kind:
            values[::2] = -values[::2]
        for name, settings in {"v": {}, "deflated": {"deflate": 4}}.items():
            properties = dcpl(chunk=((7, 5),), filter=(nbit, 0, ()), **settings)
            dataset = low_level(file, name, stored, (20, 9), properties)
            dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, values.astype(kind.replace(">", "<")))


def blosc_frame(values: np.ndarray, codec: str, shuffle: int) -> bytes:
    from numcodecs.blosc import Blosc

    return bytes(Blosc(cname=codec, clevel=5, shuffle=shuffle).encode(values))


def zstd_frame(values: np.ndarray, level: int) -> bytes:
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=level).encode(values))


def hdf5_plugin(path: Path, filter_id: int, encode: Callable[[np.ndarray], bytes], client: tuple) -> None:
    """Chunks encoded here, since h5py's library has not the filter; their truth beside them."""
    while h5py.h5pl.size():
        h5py.h5pl.remove(0)
    with h5py.File(path, "w") as file, h5py.File(path.with_suffix(".truth"), "w") as truth:
        for kind in ("<i4", "<f8", "u1"):
            values, chunk = smooth(kind, (24, 10)), (8, 5)
            size = values.dtype.itemsize
            data = tuple(size if c == "size" else size * 40 if c == "bytes" else c for c in client)
            properties = dcpl(chunk=(chunk,), filter=(filter_id, h5py.h5z.FLAG_OPTIONAL, data))
            dataset = low_level(file, kind, kind, values.shape, properties)
            for row, column in itertools.product(range(0, 24, 8), range(0, 10, 5)):
                # One chunk stays missing.
                if (row, column) != (8, 5):
                    part = np.ascontiguousarray(values[row : row + 8, column : column + 5])
                    dataset.id.write_direct_chunk((row, column), encode(part))
                else:
                    values[row : row + 8, column : column + 5] = 0
            truth[kind] = values


def hdf5_masks(path: Path, options: dict) -> None:
    """Chunks that left out one filter or another, as a mask of theirs says."""
    values = smooth("<i4", (24, 10))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("v", (24, 10), "<i4", chunks=(8, 10), **options)
        dataset[...] = values
        filters = dataset.id.get_create_plist().get_nfilters()
        everything = (1 << filters) - 1
        dataset.id.write_direct_chunk((0, 0), values[:8].tobytes(), everything)
        if options.get("shuffle") and options.get("compression") == "gzip" and filters == 2:
            dataset.id.write_direct_chunk((8, 0), zlib.compress(values[8:16].tobytes()), 0b01)


INDEXES: dict[str, tuple[str, dict]] = {
    "btree1": ("earliest", {"maxshape": None}),
    "btree1-growing": ("earliest", {"maxshape": (None, None)}),
    "single": ("v110", {"chunks": (60, 50)}),
    "single-gzip": ("v110", {"chunks": (60, 50), "compression": "gzip"}),
    "fixed": ("v110", {}),
    "fixed-gzip": ("v110", {"compression": "gzip"}),
    "fixed-paged": ("v110", {"chunks": (1, 1)}),
    "fixed-bounded": ("v110", {"maxshape": (60, 90)}),
    "extensible": ("v110", {"maxshape": (None, 50)}),
    "extensible-gzip": ("v110", {"maxshape": (None, 50), "compression": "gzip", "chunks": (2, 3)}),
    "extensible-second": ("v110", {"maxshape": (60, None)}),
    "btree2": ("v110", {"maxshape": (None, None)}),
    "btree2-gzip": ("v110", {"maxshape": (None, None), "compression": "gzip", "chunks": (3, 2)}),
}


def hdf5_index(path: Path, version: str, options: dict) -> None:
    values = sample("<f4", (60, 50))
    with h5py.File(path, "w", libver=VERSIONS[version]) as file:
        settings = {"chunks": (7, 8)} | options
        file.create_dataset("full", data=values, **settings)
        sparse = file.create_dataset("sparse", (60, 50), "<f4", fillvalue=2.5, **settings)
        sparse[20:30, 30:33] = values[20:30, 30:33]
        file.create_dataset("never", (60, 50), "<i2", fillvalue=-7, **settings)


def hdf5_implicit(path: Path) -> None:
    """Chunks without an index: allocated early, not filtered, of fixed lengths."""
    with h5py.File(path, "w", libver=VERSIONS["v110"]) as file:
        properties = dcpl(chunk=((7, 8),), alloc_time=h5py.h5d.ALLOC_TIME_EARLY)
        values = sample("<f4", (60, 50))
        low_level(file, "full", "<f4", (60, 50), properties)[...] = values
        low_level(file, "partly", "<f4", (60, 50), properties)[:9] = values[:9]


ALLOCATIONS = {"early": h5py.h5d.ALLOC_TIME_EARLY, "late": h5py.h5d.ALLOC_TIME_LATE, "incremental": h5py.h5d.ALLOC_TIME_INCR}
FILLS: dict[str, object] = {"default": None, "own": 7, "nan": np.nan}


def hdf5_fill(path: Path, allocation: str, fill: str) -> None:
    kinds = ("<f4", ">f8") if fill == "nan" else ("<f4", ">i2", "u1")
    with h5py.File(path, "w") as file:
        for kind in kinds:
            for layout in ("contiguous", "chunked"):
                if layout == "contiguous" and allocation == "incremental":
                    continue
                properties = dcpl(alloc_time=ALLOCATIONS[allocation])
                if layout == "chunked":
                    properties.set_chunk((4, 4))
                if FILLS[fill] is not None:
                    properties.set_fill_value(np.array(FILLS[fill], kind))
                low_level(file, f"{layout} {kind}", kind, (10, 9), properties)[2:5, 2:5] = 1
                low_level(file, f"{layout} never {kind}", kind, (10, 9), properties)


def hdf5_fill_never(path: Path) -> None:
    """Fill values that are not written: all cells are, so nothing is undefined."""
    with h5py.File(path, "w") as file:
        properties = dcpl(fill_time=h5py.h5d.FILL_TIME_NEVER, chunk=((4, 4),))
        low_level(file, "v", "<f4", (10, 9), properties)[...] = sample("<f4", (10, 9))
        properties = dcpl(fill_time=h5py.h5d.FILL_TIME_NEVER)
        low_level(file, "contiguous", "<f4", (10, 9), properties)[...] = sample("<f4", (10, 9))


def hdf5_shapes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for number, shape in enumerate([(0,), (0, 3), (3, 0), (1,), (1, 1, 1), (0, 0)]):
            file.create_dataset(f"s{number}", shape, "<i4")
        file.create_dataset("grown to nothing", (0, 5), "<f4", maxshape=(None, 5), chunks=(2, 5))
        file["scalar"] = np.int16(-3)
        shrunk = file.create_dataset("shrunk", data=np.arange(20), maxshape=(None,), chunks=(3,))
        shrunk.resize((8,))
        grown = file.create_dataset("grown", data=np.arange(8), maxshape=(None,), chunks=(3,), fillvalue=9)
        grown.resize((20,))


def hdf5_dimensions(path: Path, rank: int) -> None:
    with h5py.File(path, "w") as file:
        shape = tuple(itertools.islice(itertools.cycle((2, 1, 3)), rank))
        file["v"] = sample("<f4", shape)
        file.create_dataset("chunked", data=sample("<f4", shape), chunks=tuple((n + 1) // 2 for n in shape))


def hdf5_scales(path: Path, which: str) -> None:
    with h5py.File(path, "w", track_order=which == "ordered") as file:
        file["lat"], file["lon"] = np.linspace(0, 1, 4), np.linspace(0, 1, 5)
        for name in ("lat", "lon"):
            file[name].make_scale("" if which == "unnamed" else name)
        paths = ("field", "deep/er/field") if which == "shared" else ("field",)
        for name in paths:
            file[name] = smooth("<f4", (4, 5))
            file[name].dims[0].attach_scale(file["lat"])
            if which != "half":
                file[name].dims[1].attach_scale(file["lon"])
        if which == "several":
            file["alias"] = np.arange(4)
            file["alias"].make_scale("alias")
            file["field"].dims[0].attach_scale(file["alias"])
        if which == "labels":
            file["field"].dims[0].label, file["field"].dims[1].label = "y", "x"
        if which == "square":
            file["square"] = smooth("<i2", (4, 4))
            for axis in range(2):
                file["square"].dims[axis].attach_scale(file["lat"])
        if which == "growing":
            time = file.create_dataset("time", (3,), "<f8", maxshape=(None,), chunks=(2,))
            time.make_scale("time")
            field = file.create_dataset("series", (3, 5), "<f8", maxshape=(None, 5), chunks=(2, 5))
            field[...] = 1
            field.dims[0].attach_scale(time)


def hdf5_phony(path: Path, which: str) -> None:
    with h5py.File(path, "w") as file:
        if which == "equal":
            file["a"], file["b"] = np.zeros((3, 3)), np.zeros((3, 4))
        elif which == "nested":
            file["a"], file["g/a"], file["g/h/a"] = np.zeros((3, 4)), np.zeros((4, 5)), np.zeros((3, 5))
        else:
            file.create_dataset("a", (4, 3), "<f4", maxshape=(None, 3))
            file.create_dataset("b", (4, 3), "<f4", maxshape=(None, None))
            file["c"] = np.zeros((4, 3))


def hdf5_groups(path: Path, version: str) -> None:
    with h5py.File(path, "w", libver=VERSIONS[version]) as file:
        group = file
        for depth in range(10):
            group = group.create_group(f"level {depth}")
            group["v"] = np.arange(depth + 1)
            group.attrs["depth"] = depth
        for number in range(60):
            file[f"many/d{number:02}"] = np.full(2, number)
        file.create_group("empty")


def hdf5_links(path: Path, version: str) -> None:
    with h5py.File(path, "w", libver=VERSIONS[version]) as file:
        file["a/data"] = np.arange(5)
        file["hard"] = file["a/data"]
        file["soft"] = h5py.SoftLink("/a/data")
        file["relative"] = h5py.SoftLink("a/data")
        file["chain"] = h5py.SoftLink("/soft")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["itself"] = h5py.SoftLink("/itself")
        file["group"] = h5py.SoftLink("/a")
        file["named type"] = np.dtype("<f4")
        file["of named type"] = np.zeros(3, "<f4")


def hdf5_cycle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a/b/good"] = np.arange(3)
        file["a/b/up"] = file["a"]
        file["a/root"] = h5py.SoftLink("/")


def hdf5_names(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("with space", "ünïcode", "日本語", "u\u0308", "a.b", ".hidden", "c", "_x", "a@b", "a,b", "%41", "#?&", "'q\"", "x" * 255, "tab\t", "new\nline", "é group/v"):  # fmt: skip
            file[name] = np.arange(3)
            file[name].attrs["schlüssel ä"] = name


def hdf5_names_refused(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file["zarr.json"] = np.arange(3)
        file["x" * 300] = np.arange(3)


def hdf5_user_block(path: Path, size: int) -> None:
    with h5py.File(path, "w", userblock_size=size) as file:
        file["v"] = smooth("<f4", (9, 4))
        file.create_dataset("chunked", data=smooth("<i4", (9, 4)), chunks=(4, 4), compression="gzip")
    with path.open("r+b") as file:
        file.write((b"#! anything, CDF too\n" * size)[:size])


def hdf5_superblock(path: Path, which: str) -> None:
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    if which == "narrow":
        creation.set_sizes(4, 4)
    elif which == "wide":
        creation.set_sizes(8, 8)
    elif which == "paged":
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
        creation.set_file_space_strategy(h5py.h5f.FSPACE_STRATEGY_PAGE, True, 1)
    elif which == "v18":
        access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    elif which == "v110":
        access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, creation, access)) as file:
        file["group/v"] = smooth("<f4", (9, 4))
        file.create_dataset("chunked", data=smooth("<i4", (9, 4)), chunks=(4, 4), compression="gzip")
        file.attrs["title"] = which
        if which == "v110":
            file.swmr_mode = True


def hdf5_dense(path: Path, version: str) -> None:
    """More attributes than an object header takes, and one larger than it takes."""
    with h5py.File(path, "w", libver=VERSIONS[version]) as file:
        file["v"] = np.arange(3)
        for holder in (file, file["v"]):
            for number in range(200):
                holder.attrs[f"a{number:03}"] = number if number % 3 else f"text {number}"
            if version != "earliest":
                holder.attrs["large"] = np.arange(20_000)


def hdf5_compound(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        pair = np.dtype([("a", "<i4"), ("b", "<f8")])
        file["pairs"] = np.zeros(2, pair)
        file["nested"] = np.zeros(2, np.dtype([("p", pair), ("c", "S3")]))
        file["of arrays"] = np.zeros(2, np.dtype([("a", "<i4", (3,))]))
        text = np.dtype([("name", h5py.string_dtype()), ("n", "<i4")])
        file.create_dataset("of texts", data=np.array([("x", 1)], text))


def hdf5_other_types(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("numbers", (2,), h5py.vlen_dtype("<i4"))[0] = [1, 2]
        file.create_dataset("array", (2,), np.dtype(("<f4", (3,))))
        file.create_dataset("opaque", data=np.array([b"ab", b"cd"], "V2"))
        file.create_dataset("reference", data=[file["good"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("region", data=[file["good"].regionref[:2]], dtype=h5py.regionref_dtype)
        low_level(file, "bits", h5py.h5t.STD_B8LE, (4,), dcpl())
        low_level(file, "bits wide", h5py.h5t.STD_B64BE, (4,), dcpl())
        low_level(file, "time", h5py.h5t.UNIX_D32LE, (4,), dcpl())
        brain = h5py.h5t.IEEE_F16LE.copy()
        brain.set_fields(15, 7, 8, 0, 7)
        brain.set_ebias(127)
        low_level(file, "bfloat16", brain, (4,), dcpl())
        file.create_dataset("no space", dtype="<f4", data=h5py.Empty("<f4"))
        file.create_dataset("long double", data=np.zeros(3, np.longdouble))


def hdf5_other_files(path: Path) -> None:
    other = path.with_suffix(".other")
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(3)
    bytes_of = path.with_suffix(".raw")
    bytes_of.write_bytes(b"\1\0\0\0" * 5)
    with h5py.File(path, "w", libver=VERSIONS["v110"]) as file:
        file["good"] = np.arange(3)
        file["external link"] = h5py.ExternalLink(other.name, "/data")
        file.create_dataset("external data", (5,), "<i4", external=[(str(bytes_of), 0, 20)])
        layout = h5py.VirtualLayout((3,), "<i8")
        layout[:] = h5py.VirtualSource(other, "data", (3,))
        file.create_virtual_dataset("virtual", layout)


def hdf5_attribute_types(path: Path) -> None:
    """Attributes that have no place in JSON."""
    with h5py.File(path, "w") as file:
        file["v"] = np.arange(3)
        attributes = file["v"].attrs
        attributes["compound"] = np.zeros((), np.dtype([("a", "<i4")]))
        attributes["reference"] = file["v"].ref
        attributes["opaque"] = np.void(b"ab")
        sequence = h5py.h5t.vlen_create(h5py.h5t.STD_I32LE)
        h5py.h5a.create(file["v"].id, b"numbers", sequence, h5py.h5s.create(h5py.h5s.SCALAR))
        attributes["kept"] = "yes"


def hdf5_large(path: Path, shape: tuple[int, ...], options: dict) -> None:
    with h5py.File(path, "w") as file:
        values = rng_of("large", shape).integers(0, 1000, shape).astype(">i4")
        file.create_dataset("v", data=values, **options)


def hdf5_random(path: Path, seed: int) -> None:
    rng = rng_of("hdf5", seed)
    with h5py.File(path, "w", libver=VERSIONS[str(rng.choice(list(VERSIONS)))]) as file:
        for number in range(int(rng.integers(1, 7))):
            kind = str(rng.choice(NUMBERS))
            shape = tuple(int(n) for n in rng.integers(1, 14, rng.integers(1, 5)))
            options: dict = {}
            if rng.random() < 0.8:
                options["chunks"] = tuple(int(rng.integers(1, n + 1)) for n in shape)
                if rng.random() < 0.4:
                    options["maxshape"] = tuple(None if rng.random() < 0.5 else n for n in shape)
                if rng.random() < 0.6:
                    options["compression"] = str(rng.choice(["gzip", "lzf"]))
                options["shuffle"] = bool(rng.integers(2))
                options["fletcher32"] = bool(rng.integers(2))
            if rng.random() < 0.4:
                options["fillvalue"] = sample(kind, (9,), seed)[8]
            group = "" if rng.random() < 0.6 else f"g{rng.integers(3)}/"
            dataset = file.create_dataset(f"{group}v{number}", shape, kind, **options)
            values = sample(kind, shape, seed, number)
            part = max(1, int(shape[0] * rng.random()))
            dataset[:part] = values[:part]
            dataset.attrs["of"] = values.ravel()[-1]


def cases() -> Iterator[Case]:
    def netcdf(name: str, write: Callable, *arguments: object, skip: tuple[str, ...] = ()) -> Case:
        return Case(name, "netcdf", lambda p: write(p, *arguments), skip)

    def hdf5(name: str, write: Callable, *arguments: object, skip: tuple[str, ...] = ()) -> Case:
        return Case(name, "hdf5", lambda p: write(p, *arguments), skip)

    for name in FORMATS:
        for kind in TYPES_OF[name]:
            yield netcdf(f"{name}-type-{kind}", netcdf_type, name, kind)
        yield netcdf(f"{name}-empty", netcdf_empty, name)
        yield netcdf(f"{name}-names", netcdf_names, name)
        yield netcdf(f"{name}-attributes", netcdf_many_attributes, name)
        for rank in (0, 1, 3, 6):
            yield netcdf(f"{name}-rank-{rank}", netcdf_dimensions, name, rank)
    for name in ("nc3", "nc3-64", "cdf5"):
        for which in ("alone", "alone-series", "odd", "none", "unfilled", "uneven", "deep"):
            yield netcdf(f"{name}-records-{which}", netcdf_records, name, which)
        yield netcdf(f"{name}-large", netcdf_large, name, (37, 210, 150), {})
    small = ("i1", "i2", "f4", "f8")
    for label, options in {
        "none": {},
        "shuffle": {"zlib": True, "complevel": 1, "shuffle": True},
        "plain": {"zlib": True, "complevel": 6, "shuffle": False},
        "checked": {"zlib": True, "fletcher32": True},
        "szip": {"compression": "szip", "szip_pixels_per_block": 4},
        "zstd": {"compression": "zstd"},
        "zstd-shuffle": {"compression": "zstd", "shuffle": True, "fletcher32": True},
        "blosc-lz": {"compression": "blosc_lz"},
        "blosc-lz4": {"compression": "blosc_lz4", "blosc_shuffle": 2},
        "blosc-zstd": {"compression": "blosc_zstd", "blosc_shuffle": 1},
        "bitgroom": {"zlib": True, "significant_digits": 3, "quantize_mode": "BitGroom"},
        "bitround": {"zlib": True, "significant_digits": 5, "quantize_mode": "BitRound"},
    }.items():
        yield netcdf(f"nc4-filter-{label}", netcdf_filter, options, small)
    for kind in ("i2", "u4", "i8", "f4", "f8"):
        yield netcdf(f"nc4-endian-{kind}", netcdf_endian, kind)
    for label, (kind, scale, offset, extra) in PACKED.items():
        yield netcdf(f"nc4-packed-{label}", packed, "nc4", kind, scale, offset, extra)
        if kind in CLASSIC_TYPES and label in ("both-f4", "unsigned", "missing", "valid"):
            yield netcdf(f"nc3-packed-{label}", packed, "nc3", kind, scale, offset, extra)
    for calendar in CALENDARS:
        yield netcdf(f"nc4-calendar-{calendar.replace(' ', '-')}", times, TIME_UNITS[0], calendar)
    for number, units in enumerate(TIME_UNITS):
        yield netcdf(f"nc4-time-{number}", times, units, "standard")
    yield netcdf("nc4-grid-mapping", grid_mapping)
    yield netcdf("nc4-lengths", netcdf_lengths)
    yield netcdf("nc4-texts", netcdf_texts)
    yield netcdf("nc4-groups", netcdf_groups)
    yield netcdf("nc4-user-types", netcdf_types_user, skip=("pairs", "ragged"))
    yield netcdf("nc4-large", netcdf_large, "nc4", (29, 211, 190), {"zlib": True, "complevel": 1, "chunksizes": (3, 100, 77)})  # fmt: skip
    for name in ("nc3", "cdf5", "nc4"):
        for seed in range(8):
            yield netcdf(f"{name}-random-{seed}", netcdf_random, name, seed)

    for kind in NUMBERS:
        label = kind.replace("<", "le-").replace(">", "be-")
        yield hdf5(f"h5-number-{label}", hdf5_number, kind)
    yield hdf5("h5-truth", hdf5_truth)
    for base in ("i1", "u1", "<i2", ">i2", "<u4", "<i8", ">u4"):
        label = base.replace("<", "le-").replace(">", "be-")
        yield hdf5(f"h5-enum-{label}", hdf5_enum, base)
    for kind in ("<c8", ">c8", "<c16", ">c16"):
        label = kind.replace("<", "le-").replace(">", "be-")
        yield hdf5(f"h5-complex-{label}", hdf5_complex, kind)
    for charset, padding in itertools.product(("ascii", "utf-8"), ("NULLTERM", "NULLPAD", "SPACEPAD")):
        yield hdf5(f"h5-fixed-{charset}-{padding.lower()}", hdf5_fixed_strings, charset, padding)
    for charset in ("ascii", "utf-8"):
        yield hdf5(f"h5-strings-{charset}", hdf5_variable_strings, charset)
    for label, options in GOOD_FILTERS.items():
        yield hdf5(f"h5-filter-{label}", hdf5_filter, options)
    for kind, digits in (("<i2", 0), ("<i4", 0), (">i4", 0), ("<u1", 0), ("<u2", 12), ("<i8", 0), ("<f4", 2), ("<f8", 3), (">f4", 1)):  # fmt: skip
        label = kind.replace("<", "le-").replace(">", "be-")
        yield hdf5(f"h5-scale-offset-{label}-{digits}", hdf5_scale_offset, kind, digits)
    for which in ("i2-12", "u2-9-offset-3", "i4-20", "i4-be-17", "u1-5", "i8-40", "float"):
        yield hdf5(f"h5-nbit-{which}", hdf5_nbit, which)
    for codec, shuffle in itertools.product(("blosclz", "lz4", "lz4hc", "zlib", "zstd"), (0, 1, 2)):
        encode = partial(blosc_frame, codec=codec, shuffle=shuffle)
        client = (2, 2, "size", "bytes", 5, shuffle, 0)
        yield hdf5(f"h5-blosc-{codec}-{shuffle}", hdf5_plugin, 32001, encode, client)
    for level in (1, 19):
        yield hdf5(f"h5-zstd-{level}", hdf5_plugin, 32015, partial(zstd_frame, level=level), (level,))
    for label, options in {
        "gzip": {"compression": "gzip"},
        "gzip-shuffle": {"compression": "gzip", "shuffle": True},
        "fletcher": {"fletcher32": True},
        "lzf": {"compression": "lzf", "shuffle": True},
        "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    }.items():
        yield hdf5(f"h5-mask-{label}", hdf5_masks, options)
    for label, (version, options) in INDEXES.items():
        yield hdf5(f"h5-index-{label}", hdf5_index, version, options)
    yield hdf5("h5-index-implicit", hdf5_implicit)
    for allocation, fill in itertools.product(ALLOCATIONS, FILLS):
        yield hdf5(f"h5-fill-{allocation}-{fill}", hdf5_fill, allocation, fill)
    yield hdf5("h5-fill-never", hdf5_fill_never)
    yield hdf5("h5-shapes", hdf5_shapes)
    for rank in (1, 2, 4, 7, 10):
        yield hdf5(f"h5-rank-{rank}", hdf5_dimensions, rank)
    for which in ("plain", "ordered", "unnamed", "shared", "half", "several", "labels", "square", "growing"):
        yield hdf5(f"h5-scales-{which}", hdf5_scales, which)
    for which in ("equal", "nested", "growing"):
        yield hdf5(f"h5-phony-{which}", hdf5_phony, which)
    for version in VERSIONS:
        yield hdf5(f"h5-groups-{version}", hdf5_groups, version)
        yield hdf5(f"h5-links-{version}", hdf5_links, version)
        yield hdf5(f"h5-dense-{version}", hdf5_dense, version)
    yield hdf5("h5-cycle", hdf5_cycle, skip=("a/b/up", "a/root"))
    yield hdf5("h5-names", hdf5_names)
    yield hdf5("h5-names-refused", hdf5_names_refused, skip=("zarr.json", "x" * 300))
    for size in (512, 1024, 65536):
        yield hdf5(f"h5-user-block-{size}", hdf5_user_block, size)
    for which in ("v0", "narrow", "wide", "v18", "v110", "paged"):
        yield hdf5(f"h5-superblock-{which}", hdf5_superblock, which)
    yield hdf5("h5-compound", hdf5_compound, skip=("pairs", "nested", "of arrays", "of texts"))
    yield hdf5(
        "h5-other-types",
        hdf5_other_types,
        skip=("numbers", "array", "opaque", "reference", "region", "bits", "bits wide", "time", "bfloat16", "no space", "long double"),
    )  # fmt: skip
    yield hdf5("h5-other-files", hdf5_other_files, skip=("external link", "external data", "virtual"))
    yield hdf5("h5-attribute-types", hdf5_attribute_types, skip=tuple(f"v@{a}" for a in ("compound", "reference", "opaque", "numbers")))  # fmt: skip
    for number, (shape, options) in enumerate([
        ((300, 400), {"chunks": (41, 67)}),
        ((300, 400), {"chunks": (300, 1), "compression": "gzip"}),
        ((70, 80, 90), {"chunks": (1, 80, 90), "compression": "gzip", "shuffle": True}),
        ((70, 80, 90), {"chunks": (33, 9, 50), "compression": "lzf"}),
        ((1_000_003,), {"chunks": (65_537,), "compression": "gzip", "compression_opts": 1}),
        ((700_000,), {}),
    ]):  # fmt: skip
        yield hdf5(f"h5-large-{number}", hdf5_large, shape, options)
    for seed in range(24):
        yield hdf5(f"h5-random-{seed}", hdf5_random, seed)


CASES = {case.name: case for case in cases()}
