"""A cube like a field of ERA5, and the places the comparison reads."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Sizes:
    shape: tuple[int, int, int]
    shards: tuple[int, int, int]
    chunks: tuple[int, int, int]

    @property
    def mib(self) -> float:
        return 4 * np.prod(self.shape) / 2**20


FULL = Sizes((256, 512, 512), (256, 256, 256), (32, 64, 64))
QUICK = Sizes((64, 256, 256), (64, 128, 128), (32, 64, 64))
# Eight shards along time, for what is counted by shards: a series meets one inner chunk of each, or
# four of them.
MANY = {
    "one inner chunk": Sizes((256, 64, 64), (32, 64, 64), (32, 32, 32)),
    "four inner chunks": Sizes((256, 64, 64), (32, 64, 64), (8, 32, 32)),
}


def generate(sizes: Sizes, seed: int = 5) -> np.ndarray:
    """2 m temperature: latitude, travelling waves, the day, noise; in steps of 2^-9 K, as GRIB packs."""
    times, rows, columns = sizes.shape
    numbers = np.random.default_rng(seed)
    lat = np.linspace(np.pi / 2, -np.pi / 2, rows)[:, None]
    lon = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None, :]
    mean = 255 + 45 * np.cos(lat) ** 2 + 3 * np.sin(3 * lon) * np.cos(lat)
    values = np.empty(sizes.shape, "f4")
    for t in range(times):
        field = mean + 4 * np.cos(lat) * np.cos(lon + 2 * np.pi * t / 24)
        for wave in range(2, 9):
            phase = wave * lon - 0.03 * wave * t + 1.7 * wave
            field = field + 6 / wave * np.sin(phase) * np.sin((wave + 1) * lat)
        field = field + numbers.normal(0, 0.15, field.shape)
        values[t] = np.round(field * 512) / 512
    return values


def write_netcdf(path: Path, values: np.ndarray, sizes: Sizes) -> None:
    import netCDF4

    with netCDF4.Dataset(path, "w") as file:
        for name, length in zip(("time", "latitude", "longitude"), sizes.shape, strict=True):
            file.createDimension(name, length)
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = np.arange(length)
        file["time"].units = "hours since 1995-07-01"
        file["latitude"].units, file["longitude"].units = "degrees_north", "degrees_east"
        variable = file.createVariable(
            "t2m",
            "f4",
            ("time", "latitude", "longitude"),
            zlib=True,
            complevel=1,
            shuffle=False,
            chunksizes=sizes.chunks,
        )
        variable.units = "K"
        variable[:] = values


class Places:
    """What is read. Repetitions of one reading move inside the same inner chunks, so that all are
    as warm, and no answer can be a kept one."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.at = [length // 2 // chunk * chunk for length, chunk in zip(sizes.shape, sizes.chunks)]

    def whole(self) -> list:
        return [(0, length, 1) for length in self.sizes.shape]

    def map(self, nth: int) -> list:
        t = self.at[0] + nth % self.sizes.chunks[0]
        return [(t, t + 1, 1), *self.whole()[1:]]

    def series(self, nth: int) -> list:
        y = self.at[1] + nth % self.sizes.chunks[1]
        x = self.at[2] + nth * 7 % self.sizes.chunks[2]
        return [self.whole()[0], (y, y + 1, 1), (x, x + 1, 1)]

    def slice(self, nth: int) -> list:
        """1 KiB in one inner chunk: 4 rows of 64."""
        t = self.at[0] + nth % self.sizes.chunks[0]
        y, x = self.at[1], self.at[2]
        return [(t, t + 1, 1), (y, y + 4, 1), (x, x + 64, 1)]

    def strided(self, nth: int) -> list:
        return [(nth % 8, length, 8) for length in self.sizes.shape]

    def read_all(self, nth: int) -> list:
        return self.whole()

    def chunks(self, count: int, seed: int) -> list:
        numbers = random.Random(seed)
        grid = [length // chunk for length, chunk in zip(self.sizes.shape, self.sizes.chunks)]
        every = [(i, j, k) for i in range(grid[0]) for j in range(grid[1]) for k in range(grid[2])]
        picked = numbers.sample(every, min(count, len(every)))
        return [
            [(n * c, (n + 1) * c, 1) for n, c in zip(pick, self.sizes.chunks)] for pick in picked
        ]
