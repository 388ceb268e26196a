"""HDF5 and NetCDF-4 files of every kind the importer knows, and of those it refuses.

Each function writes one file. Those of `NETCDF4` compare with xarray's view of them, those of
`PLAIN` with h5py's, those of `REFUSED` return the names that have to be skipped.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import numpy as np

INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def enums(path: Path) -> None:
    """NetCDF-4 enums are numbers, one named like a truth value too."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 4)
        cloud = file.createEnumType(np.uint8, "cloud", {"Clear": 0, "Fog": 3, "Missing": 255})
        file.createVariable("cloud_cover", cloud, ("x",), fill_value=255)[:3] = [0, 3, 3]
        truth = file.createEnumType(np.int8, "truth", {"FALSE": 0, "TRUE": 1})
        file.createVariable("is_land", truth, ("x",))[:] = [0, 1, 1, 0]
        wide = file.createEnumType(np.int64, "wide", {"low": -(2**60), "high": 2**60})
        file.createVariable("wide_values", wide, ("x",))[:] = [2**60, -(2**60), 2**60, 2**60]


def fill_values(path: Path) -> None:
    """Fill values of every type; those of text cannot be opened by xarray and are left out."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 3)
        for kind in INTEGERS:
            limits = np.iinfo(kind)
            file.createVariable(kind, kind, ("x",), fill_value=limits.max)[0] = limits.min
        file.createVariable("f4", "f4", ("x",), fill_value=1e20)[0] = 1.5
        file.createVariable("f8", "f8", ("x",), fill_value=np.nan)[0] = 1.5
        file.createVariable("text", str, ("x",), fill_value="N/A")[0] = "one"
        file.createVariable("char", "S1", ("x",), fill_value=b"-")[0] = b"a"
        file.createVariable("none", "f8", ("x",), fill_value=False)[:] = [1, 2, 3]


def unlimited(path: Path) -> None:
    """Unlimited dimensions that some variables are shorter than, in groups too."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", None)
        file.createDimension("level", None)
        file.createDimension("never", None)
        file.createDimension("x", 3)
        file.createVariable("long", "f4", ("time", "x"))[:] = np.arange(21).reshape(7, 3)
        file.createVariable("short", "f4", ("time", "x"))[:2] = np.ones((2, 3))
        for kind in (*INTEGERS, "f8", "S1"):
            file.createVariable(f"short_{kind}", kind, ("time",))[:1] = np.ones(1, kind)
        file.createVariable("short_text", str, ("time",))[0] = "only"
        # Not along two unlimited dimensions: netCDF-C gives wrong values for those.
        file.createVariable("filled", "i4", ("time", "x"), fill_value=-9)[1] = range(3)
        file.createVariable("level", "f4", ("level",))[:] = range(4)
        file.createVariable("empty", "f8", ("time", "level"))
        file.createVariable("unwritten", "i2", ("never", "x"))
        later = file.createGroup("later").createVariable("longest", "i2", ("time",))
        later[:9] = np.arange(9)


def names(path: Path) -> None:
    """Variables named as dimensions they do not define, and names that are not identifiers."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 3)
        file.createDimension("y", 2)
        file.createDimension("alone", 5)
        file.createVariable("y", "i4", ("x",))[:] = [1, 2, 3]
        file.createVariable("x", "f8", ("x",))[:] = [0.5, 1.5, 2.5]
        file.createVariable("alone_no_more", "i1", ("alone", "y"))[:] = np.zeros((5, 2))
        for name in ("with spaces & co.", "ünïcode", "__reserved"):
            file.createVariable(name, "i1", ("x",))[:] = [1, 2, 3]
        group = file.createGroup("group")
        group.createDimension("x", 4)
        group.createVariable("own_x", "i4", ("x", "y"))[:] = np.zeros((4, 2))
        group.createGroup("inner").createVariable("x", "i4", ("x",))[:] = range(4)


def coordinates(path: Path) -> None:
    """A coordinate variable of several dimensions, which keeps their numbers in an attribute."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("station", 4)
        file.createDimension("letter", 8)
        file.createDimension("time", None)
        station = file.createVariable("station", "S1", ("station", "letter"))
        station[:] = netCDF4.stringtochar(np.array(["a", "bb", "ccc", "dddd"], "S8"))
        file.createVariable("time", "f8", ("time",))[:] = range(3)
        file.createVariable("value", "f4", ("time", "station"))[:] = np.ones((3, 4))


def attributes(path: Path) -> None:
    """Attributes of every type and length, on the file, a group and a variable."""
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 1)
        holders = [file, file.createGroup("group"), file.createVariable("v", "f4", ("x",))]
        for holder in holders:
            for kind in (*INTEGERS, "f4", "f8"):
                top = np.iinfo(kind).max if kind[0] in "iu" else 0.1
                holder.setncattr(f"one_{kind}", np.array(top, kind))
                holder.setncattr(f"many_{kind}", np.array([0, 1, top], kind))
            holder.setncattr("none", np.zeros(0, "f4"))
            holder.setncattr("whole_float", 1.0)
            holder.setncattr("text", "schön\n\ttwo  ")
            holder.setncattr("empty_text", "")
            holder.setncattr("nul", "a\0b")
            holder.setncattr_string("one_string", "s")
            holder.setncattr_string("strings", ["ä", "", "c"])
            holder.setncattr("long", "x" * 100_000)
            holder.setncattr("Conventions:with.odd chars", "x")


def filters(path: Path) -> None:
    """Filters and layouts of NetCDF-4, big-endian numbers, several chunk shapes, scalars."""
    values = np.arange(40 * 50, dtype="i4").reshape(40, 50)
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("y", 40)
        file.createDimension("x", 50)
        for name, options in {
            "contiguous": {"contiguous": True},
            "deflate": {"zlib": True, "complevel": 9, "shuffle": False},
            "shuffled": {"zlib": True, "shuffle": True},
            "checked": {"fletcher32": True},
            "big": {"endian": "big"},
            "one_chunk": {"chunksizes": (40, 50)},
            "rows": {"chunksizes": (1, 50), "zlib": True},
            "uneven": {"chunksizes": (7, 11), "zlib": True},
        }.items():
            file.createVariable(name, "i4", ("y", "x"), **options)[:] = values
        file.createVariable("scalar", "f8", ())[...] = 0.1
        file.createVariable("scalar_text", str, ())[...] = np.array("word", object)


def many_dimensions(path: Path) -> None:
    """Nine dimensions, some of length one."""
    shape = (1, 2, 1, 3, 1, 2, 1, 2, 3)
    with netCDF4.Dataset(path, "w") as file:
        dimensions = [f"d{axis}" for axis in range(len(shape))]
        for name, length in zip(dimensions, shape, strict=True):
            file.createDimension(name, length)
        file.createVariable("v", "i2", dimensions)[:] = np.arange(np.prod(shape)).reshape(shape)


NETCDF4 = {
    function.__name__: function
    for function in (
        enums, fill_values, unlimited, names, coordinates, attributes, filters, many_dimensions,
    )
}  # fmt: skip


def types(path: Path) -> None:
    """Every element type that h5py writes and Zarr has."""
    rng = np.random.default_rng(5)
    with h5py.File(path, "w") as file:
        for kind in ("i1", "u1", "<i2", ">i2", "u4", ">i8", "<u8", "<f2", ">f2", "f4", ">f8"):
            name = kind.replace("<", "le ").replace(">", "be ")
            file[f"number {name}"] = rng.integers(0, 100, (3, 5)).astype(kind)
        file["bool"] = rng.integers(0, 2, (4, 3)).astype(bool)
        file["one bool"] = True
        file["complex64"] = (rng.normal(size=7) + 1j * rng.normal(size=7)).astype("c8")
        file["complex128"] = (rng.normal(size=(2, 3)) - 2j).astype("c16")
        file["big complex"] = (rng.normal(size=3) - 2j).astype(">c16")
        file["fixed"] = np.array([b"a", b"bcd", b""], "S5")
        file["fixed chars"] = np.array([[b"a", b"b"], [b"", b"d"]], "S1")
        utf8 = file.create_dataset("fixed utf-8", (2,), h5py.string_dtype("utf-8", 6))
        utf8[...] = np.array(["ä".encode(), b"c"], utf8.dtype)
        file.create_dataset("text", data=["x", "", "ö" * 1000], dtype=h5py.string_dtype())
        file.create_dataset("ascii text", data=["x", "yy"], dtype=h5py.string_dtype("ascii"))
        file.create_dataset("unwritten text", (3,), h5py.string_dtype())
        file.create_dataset("one text", data="single")
        enum = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype="i2")
        file.create_dataset("enum", data=[0, 42, 1], dtype=enum)
        file.create_dataset("nothing", (0, 4), "f4")
        narrow = h5py.h5t.STD_I16LE.copy()
        narrow.set_precision(12)
        space = h5py.h5s.create_simple((4,))
        narrow = h5py.h5d.create(file.id, b"integers of 12 bits", narrow, space)
        narrow.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([-5, 2047, -2048, 0], "i2"))


def layouts(path: Path) -> None:
    """Compact, contiguous and chunked data, with the filters that come with the library."""
    values = np.arange(30 * 20, dtype="f4").reshape(30, 20)
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(values.shape)
        compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, space, properties)
        compact.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file["contiguous"] = values
        for name, options in {
            "gzip": {"compression": "gzip", "shuffle": True},
            "fletcher": {"fletcher32": True},
            "scaled": {"scaleoffset": True, "dtype": "i4"},
            "growing": {"maxshape": (None, 20), "chunks": (7, 6)},
            "growing both": {"maxshape": (None, None), "chunks": (7, 6)},
        }.items():
            file.create_dataset(name, data=values, **options)
        sparse = file.create_dataset("sparse", (1000, 1000), "i4", chunks=(100, 100), fillvalue=7)
        sparse[250:260, 250:260] = 1
        file.create_dataset("never written", (50, 60), "f8", chunks=(10, 10))


def links(path: Path) -> None:
    """Hard and soft links give more names; dangling ones and named types nothing."""
    with h5py.File(path, "w") as file:
        file["a/data"] = np.arange(5)
        file["a/hard"] = file["a/data"]
        file["soft"] = h5py.SoftLink("/a/data")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["b"] = h5py.SoftLink("/a")
        file["named type"] = np.dtype("f4")


def phony(path: Path) -> None:
    """No scales at all: invented dimensions, equal lengths, nested and growing ones."""
    with h5py.File(path, "w") as file:
        file["cube"] = np.zeros((3, 3, 4))
        file["matrix"] = np.zeros((4, 3))
        file.create_dataset("growing", (4, 3), "f4", maxshape=(None, 3))
        file["group/inner/deep"] = np.zeros((3, 7))
        file["group/other"] = np.zeros((7, 3))
        file["scalar"] = 1.5


def scales(path: Path) -> None:
    """Scales attached by h5py, in the order of creation, and used in a group below."""
    with h5py.File(path, "w", track_order=True) as file:
        file["lon"] = np.linspace(0, 1, 5)
        file["lat"] = np.linspace(0, 1, 4)
        for name in ("lon", "lat"):
            file[name].make_scale(f"long name of {name}")
        for name in ("field", "group/field"):
            file[name] = np.zeros((4, 5))
            file[name].dims[0].attach_scale(file["lat"])
            file[name].dims[1].attach_scale(file["lon"])
        file["similar"] = np.zeros((5, 6))


PLAIN = {function.__name__: function for function in (types, layouts, links, phony, scales)}


def hdf5_attributes(path: Path) -> None:
    """Attributes that only HDF5 has: several dimensions, truth values, enums, half precision."""
    with h5py.File(path, "w") as file:
        for holder in (file, file.create_group("group"), file.create_dataset("v", data=[1, 2])):
            holder.attrs["matrix"] = np.array([[1, 2, 3], [4, 5, 6]], "i2")
            holder.attrs["texts"] = np.array([["a", "b"], ["c", "d"]], h5py.string_dtype())
            holder.attrs["bool"] = True
            holder.attrs["bools"] = np.array([True, False])
            holder.attrs["half"] = np.float16(1.5)
            holder.attrs["fixed"] = np.bytes_("abc  ")
            holder.attrs["fixed texts"] = np.array([b"ab", b"c"], "S4")
            holder.attrs["latin"] = np.bytes_("café".encode("latin-1"))
            holder.attrs["empty"] = h5py.Empty("f8")
            holder.attrs["empty text"] = h5py.Empty("S1")
            holder.attrs["big endian"] = np.array([1, 2], ">u4")
            enum = h5py.enum_dtype({"RED": 0, "BLUE": 42}, basetype="u1")
            holder.attrs.create("enum", 42, dtype=enum)


def compounds(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file["deep/compound"] = np.zeros(2, np.dtype([("a", "i4"), ("b", "f8")]))
    return ["deep/compound"]


def references(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("reference", data=[file["good"].ref], dtype=h5py.ref_dtype)
        file["good"].attrs["points at"] = file["good"].ref
    return ["reference", "good@points at"]


def sequences(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("vlen", (2,), h5py.vlen_dtype("i4"))[0] = [1, 2]
        file.create_dataset("array", (2,), np.dtype(("f4", (3,))))
    return ["vlen", "array"]


def opaque(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("opaque", data=np.array([b"ab", b"cd"], "V2"))
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"bits", h5py.h5t.STD_B8LE, space)
        brain = h5py.h5t.IEEE_F16LE.copy()
        brain.set_fields(15, 7, 8, 0, 7)
        brain.set_ebias(127)
        h5py.h5d.create(file.id, b"bfloat16", brain, space)
        file.create_dataset("no space", dtype="f4", data=h5py.Empty("f4"))
        file.attrs["compound"] = np.zeros((), np.dtype([("a", "i4"), ("b", "f8")]))
    return ["opaque", "bits", "bfloat16", "no space", "@compound"]


def other_files(path: Path) -> list[str]:
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["data"] = np.arange(3)
    raw = path.with_name("raw.bin")
    raw.write_bytes(b"\1\0\0\0" * 5)
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        file["good"] = np.arange(3)
        file["external link"] = h5py.ExternalLink(other.name, "/data")
        file["soft to it"] = h5py.SoftLink("/external link")
        file.create_dataset("external data", (5,), "i4", external=[(str(raw), 0, 20)])
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource(other, "data", (3,))
        file.create_virtual_dataset("virtual", layout)
    return ["external link", "soft to it", "external data", "virtual"]


def cycles(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["a/b/good"] = np.arange(3)
        file["a/b/up"] = file["a"]
        file["a/root"] = h5py.SoftLink("/")
    return ["a/b/up", "a/root"]


def missing_filter(path: Path) -> list[str]:
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1000,))
        # A number for private use; optional, or the library would not make the dataset.
        properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1000,))
        dataset = h5py.h5d.create(file.id, b"unknown", h5py.h5t.NATIVE_INT64, space, properties)
        dataset.write_direct_chunk((0,), bytes(500), 0)
    return ["unknown"]


def huge(path: Path) -> list[str]:
    """Datasets that declare far more than the file can hold."""
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3)
        file.create_dataset("huge", (2**40, 2**10), "f8", chunks=(1024, 1024))
        file.create_dataset("overflow", (2**40, 2**40), "f8", chunks=(1024, 1024))
    return ["huge", "overflow"]


REFUSED = {
    function.__name__: function
    for function in (
        compounds, references, sequences, opaque, other_files, cycles, missing_filter, huge,
    )
}  # fmt: skip
