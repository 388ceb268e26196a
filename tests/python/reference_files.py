"""HDF5 and NetCDF files whose chunks an import by reference leaves where they are.

Each writer makes one file; `COPIED` names the variables of it that have no place so and are copied.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import numpy as np

RANDOM = np.random.default_rng(20)


def wave(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Values that compress, all different along the last dimension."""
    count = int(np.prod(shape))
    values = np.arange(count, dtype="f8").reshape(shape)
    if np.dtype(dtype).kind == "f":
        return (np.sin(values / 50) * 100).astype(dtype)
    return (values * 7 % 119).astype(dtype)


def pipelines(path: Path) -> None:
    """Every filter and its combinations."""
    filters = {
        "none": {},
        "deflate": {"compression": "gzip", "compression_opts": 4},
        "shuffle": {"shuffle": True},
        "fletcher": {"fletcher32": True},
        "shuffle_deflate": {"shuffle": True, "compression": "gzip"},
        "all_usual": {"shuffle": True, "compression": "gzip", "fletcher32": True},
        "deflate_fletcher": {"compression": "gzip", "fletcher32": True},
        "lzf": {"compression": "lzf"},
        "shuffle_lzf": {"shuffle": True, "compression": "lzf", "fletcher32": True},
        "szip": {"compression": "szip"},
        "szip_entropy": {"compression": "szip", "compression_opts": ("ec", 16)},
        "shuffle_szip": {"shuffle": True, "compression": "szip"},
    }
    with h5py.File(path, "w") as file:
        for dtype in ("<i2", ">i4", "<f4", ">f8", "u1"):
            group = file.create_group(np.dtype(dtype).name + ("_big" if dtype[0] == ">" else ""))
            for name, options in filters.items():
                data = wave((25, 37), dtype)
                group.create_dataset(name, data=data, chunks=(10, 16), **options)


def packed(path: Path) -> None:
    """Scale-offset and n-bit, which drop bits."""
    with h5py.File(path, "w") as file:
        for dtype in ("<i2", ">i4", "<u8", "i1"):
            data = wave((40, 30), dtype)
            name = np.dtype(dtype).name
            file.create_dataset(f"integers_{name}", data=data, chunks=(16, 16), scaleoffset=0)
            file.create_dataset(
                f"filled_{name}", data=data, chunks=(16, 16), scaleoffset=0, fillvalue=7
            )
        for dtype in ("<f4", ">f8"):
            for decimals in (0, 2, 5):
                file.create_dataset(
                    f"decimals_{np.dtype(dtype).name}_{decimals}",
                    data=wave((40, 30), dtype),
                    chunks=(16, 16),
                    scaleoffset=decimals,
                    compression="gzip",
                )
        for name, base, bits, offset, sign in [
            ("narrow", h5py.h5t.STD_I32LE, 17, 3, -1),
            ("narrow_big", h5py.h5t.STD_U16BE, 11, 0, 1),
            ("narrow_long", h5py.h5t.STD_I64LE, 33, 7, -1),
        ]:
            for filters in ((5,), (), (5, 1)):
                stored = base.copy()
                stored.set_precision(bits)
                stored.set_offset(offset)
                properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                properties.set_chunk((16, 16))
                for number in filters:
                    properties.set_filter(number, 0, (4,) if number == 1 else ())
                values = wave((40, 30), "i8") * sign
                dataset = h5py.h5d.create(
                    file.id,
                    f"{name}_{'_'.join(map(str, filters)) or 'raw'}".encode(),
                    stored,
                    h5py.h5s.create_simple((40, 30)),
                    properties,
                )
                dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))


def layouts(path: Path) -> None:
    """Where values may lie, and chunks that are not there."""
    with h5py.File(path, "w", userblock_size=1024) as file:
        file.create_dataset("scalar", data=np.float64(3.25))
        file.create_dataset("contiguous", data=wave((30, 40), "<f4"))
        file.create_dataset("contiguous_big", data=wave((30, 40), ">i2"))
        file.create_dataset("long", data=wave((1_000_003,), "<i4"))
        file.create_dataset("never_written", shape=(5, 6), dtype="<f4", fillvalue=2.5)
        file.create_dataset("empty", shape=(0, 6), dtype="<f4")
        file.create_dataset("empty_chunked", shape=(0, 6), maxshape=(None, 6), dtype="<f4")
        some = file.create_dataset("some", shape=(100, 100), chunks=(10, 10), dtype="<i4", fillvalue=-5)
        some[33:47, 51:58] = 9
        sparse = file.create_dataset(
            "sparse", shape=(20_000, 20_000), chunks=(10, 10), dtype="<i2", fillvalue=3
        )
        sparse[5000, 6000] = 1
        file.create_dataset("wide_chunks", data=wave((7, 9), "<f8"), chunks=(7, 9), compression="gzip")
        file.create_dataset("truth", data=wave((30, 40), "i4") % 2 == 0, chunks=(8, 8), compression="gzip")
        file.create_dataset("text", data=np.array([b"ab", b"cde", b""], dtype="S5"))
        file.create_dataset("complex", data=wave((20, 3), "f4") * np.complex64(1 + 2j), chunks=(7, 3))
        file.create_dataset("variable", data=np.array(["a", "bcd", "é"], dtype=h5py.string_dtype()))
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        small = h5py.h5d.create(
            file.id, b"compact", h5py.h5t.STD_I16LE, h5py.h5s.create_simple((4,)), compact
        )
        small.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="<i2"))


def masks(path: Path) -> None:
    """Chunks that some filters were not applied to, and chunks of one array in several ways."""
    with h5py.File(path, "w") as file:
        data = wave((32, 32), "<i4")
        for name, options in {
            "usual": {"shuffle": True, "compression": "gzip", "fletcher32": True},
            "rare": {"shuffle": True, "compression": "szip"},
        }.items():
            dataset = file.create_dataset(name, data=data, chunks=(8, 8), **options)
            filters = dataset.id.get_create_plist().get_nfilters()
            for row in range(0, 32, 16):
                raw = np.ascontiguousarray(data[row : row + 8, 8:16]).tobytes()
                dataset.id.write_direct_chunk((row, 8), raw, filter_mask=(1 << filters) - 1)


def netcdf3(path: Path) -> None:
    """Fixed variables and records, which are big-endian and lie between each other."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.title = "records"
        for name, length in [("time", None), ("y", 60), ("x", 70)]:
            file.createDimension(name, length)
        for name, dtype, dims in [
            ("time", "f8", ("time",)),
            ("y", "f4", ("y",)),
            ("fixed", "i2", ("y", "x")),
            ("a", "f4", ("time", "y", "x")),
            ("b", "i2", ("time", "y", "x")),
            ("letters", "S1", ("y",)),
        ]:
            variable = file.createVariable(name, dtype, dims)
            variable.long_name = f"values of {name}"
            shape = tuple(6 if d == "time" else len(file.dimensions[d]) for d in dims)
            if dtype == "S1":
                variable[:] = np.array([b"xyz"[i % 3 : i % 3 + 1] for i in range(60)])
            else:
                variable[:] = wave(shape, dtype)


def netcdf3_one_record(path: Path) -> None:
    """A single record variable, whose records are not padded."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        file.createDimension("x", 3)
        variable = file.createVariable("only", "i1", ("time", "x"))
        variable[:] = wave((500, 3), "i1")


def netcdf4(path: Path) -> None:
    """Packed data, groups, fill values, a dimension that some variables do not fill."""
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions = "CF-1.8"
        for name, length in [("time", None), ("y", 33), ("x", 44)]:
            file.createDimension(name, length)
        time = file.createVariable("time", "f8", ("time",), chunksizes=(4,))
        time.units = "days since 2000-01-01"
        time[:] = np.arange(10)
        packed = file.createVariable(
            "packed", "i2", ("time", "y", "x"), zlib=True, shuffle=True, chunksizes=(3, 16, 16), fill_value=-999
        )
        packed.scale_factor, packed.add_offset = 0.5, 10.0
        values = np.ma.masked_array(wave((10, 33, 44), "f8"))
        values[2, 3:9] = np.ma.masked
        packed[:] = values
        short = file.createVariable("short", "f4", ("time", "x"), chunksizes=(4, 44), zlib=True)
        short[:6] = wave((6, 44), "f4")
        group = file.createGroup("deep")
        inner = group.createVariable("checked", "f8", ("y", "x"), fletcher32=True, zlib=True)
        inner[:] = wave((33, 44), "f8")


FILES = {
    "pipelines": (pipelines, "h5"),
    "packed": (packed, "h5"),
    "layouts": (layouts, "h5"),
    "masks": (masks, "h5"),
    "netcdf3": (netcdf3, "nc"),
    "netcdf3_one_record": (netcdf3_one_record, "nc"),
    "netcdf4": (netcdf4, "nc"),
}
COPIED = {
    "layouts": {"compact", "variable"},
    "netcdf3": {"time"},
}
