"""A mean over time: unmodified xarray reading chunks, and the service computing it.

    zarr       xr.open_zarr(store)["t2m"].mean("time"): whole chunks come, dask reduces them
    engine     xr.open_dataset(…, engine="quarr")["t2m"].mean("time"): whole chunks as well, as all
               of the array is read; xarray reduces them
    service    xr.open_dataset(…, engine="quarr")["t2m"].quarr.mean("time"): the mean comes

Each is a request to a server of its own over a loopback proxy that counts the bytes of both
directions, so headers and the opening of the dataset are in. A row is the median of the rounds,
which take turns. The three results are compared.

    QUARR_BIN=target/release PYTHONPATH=python python benches/python/xarray_mean.py [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import quarr
from quarr.xarray import QuarrBackend


class CountingProxy:
    """Passes connections on to an address and counts what goes through, from a thread."""

    def __init__(self, port: int) -> None:
        self.to_port = port
        self.sent_bytes = self.received_bytes = 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result()

    async def _listen(self) -> int:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service = await asyncio.open_connection("127.0.0.1", self.to_port)
        await asyncio.gather(
            self._pass(reader, service[1], "sent_bytes"),
            self._pass(service[0], writer, "received_bytes"),
            return_exceptions=True,
        )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: str
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                setattr(self, count, getattr(self, count) + len(data))
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def take(self) -> tuple[int, int]:
        """Bytes sent and received since the last call."""
        counted = self.sent_bytes, self.received_bytes
        self.sent_bytes = self.received_bytes = 0
        return counted


@contextmanager
def serving(store: Path) -> Iterator[int]:
    """A server of a new store; its port."""
    binary = Path(os.environ["QUARR_BIN"]) / "quarr"
    command = [binary, "serve", "--store", store, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "http://" in line)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def sample(days: int) -> xr.Dataset:
    """Temperatures of a grid of 1 degree, day by day."""
    lat, lon = np.linspace(90, -90, 181), np.arange(0.0, 360.0)
    season = np.cos(np.arange(days) / 365.25 * 2 * np.pi)
    noise = np.random.default_rng(5).standard_normal((days, 181, 360), dtype="f4")
    warmth = np.cos(np.deg2rad(lat))[None, :, None] * 40 + 240
    t2m = (warmth - season[:, None, None] * 10 + noise).round(1).astype("f4")
    coords = {"time": pd.date_range("2020", periods=days), "lat": lat, "lon": lon}
    return xr.Dataset({"t2m": (("time", "lat", "lon"), t2m, {"units": "K"})}, coords)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=730)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    rows: dict[str, list[tuple[float, int, int]]] = {}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "store") as port:
        proxy = CountingProxy(port)
        client = quarr.connect(f"http://127.0.0.1:{proxy.port}")
        repo = client.create_repo("bench")
        dataset = sample(given.days)
        # Inner chunks are stored one by one, so that no reader gains by how it asks for shards.
        quarr.to_quarr(dataset, repo, encoding={"t2m": {"chunks": (73, 91, 90)}})
        snapshot = repo.at("main")
        ways: dict[str, Callable[[], xr.DataArray]] = {
            "zarr": lambda: xr.open_zarr(snapshot.store())["t2m"].mean("time").compute(),
            "engine": lambda: xr.open_dataset(snapshot, engine=QuarrBackend)["t2m"].mean("time"),  # type: ignore[arg-type]
            "service": lambda: xr.open_dataset(snapshot, engine=QuarrBackend)["t2m"].quarr.mean(
                "time"
            ),  # type: ignore[arg-type]
        }
        exact = dataset.t2m.astype("f8").mean("time")
        for _ in range(given.rounds):
            for name, way in ways.items():
                proxy.take()
                start = time.perf_counter()
                found = way()
                rows.setdefault(name, []).append((time.perf_counter() - start, *proxy.take()))
                np.testing.assert_allclose(found, exact, rtol=2e-5)
                assert found.dtype == "f4" and found.dims == ("lat", "lon")
    print(f"t2m {dict(dataset.sizes)}: {dataset.t2m.nbytes / 1e6:.0f} MB decoded")
    print(f"{'':10}{'seconds':>10}{'sent B':>12}{'received B':>14}")
    table = {}
    for name, taken in rows.items():
        seconds, sent, received = (statistics.median(column) for column in zip(*taken, strict=True))
        table[name] = {"seconds": seconds, "sent_bytes": sent, "received_bytes": received}
        print(f"{name:10}{seconds:10.3f}{sent:12.0f}{received:14.0f}")
    if given.json is not None:
        given.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
