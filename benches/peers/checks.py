"""What Quarr promises about requests and memory, counted and sampled; and real files."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from clients.base import timed
from data import MANY, Sizes, generate, write_netcdf
from peers import ARRAY, REPO, Setting, run
from servers import Proxy, Quarr, drop_from_page_cache, memory_kib, s3_environment

LIMIT_MIB = 512


def get(port: int, path: str, headers: dict | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def put(port: int, path: str, body: bytes, kind: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("PUT", path, body=body, headers={"Content-Type": kind})
        response = connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{response.status} for PUT {path}: {text[:300]!r}")
    finally:
        connection.close()


def has_option(quarr: Path, option: str) -> bool:
    return option in run(quarr, "serve", "--help")


# --- Requests ---------------------------------------------------------------------------------------


class Requests:
    """Counts what a fresh server asks of the bucket."""

    def __init__(self, setting: Setting, proxy: Proxy) -> None:
        self.setting, self.proxy = setting, proxy
        self.repo = f"/v1/repos/{REPO}/refs/main"

    @contextlib.contextmanager
    def server(self):
        environment = s3_environment(self.setting.place("checks"))
        store, log = self.setting.store_url(), self.setting.log("checks")
        server = Quarr(self.setting.quarr, store, log, env=environment)
        try:
            yield server
        finally:
            server.stop()

    def counted(self, work: Callable[[], object]) -> dict[str, int]:
        self.proxy.reset("checks")
        work()
        return self.proxy.counts("checks")

    def good(self, server: Quarr, path: str) -> bytes:
        status, body = get(server.port, path)
        if status != 200:
            raise RuntimeError(f"{status} for {path}: {body[:200]!r}")
        return body


def chunk_gets(counts: dict) -> int:
    return counts["requests"].get("GET chunk", 0)


def all_gets(counts: dict) -> int:
    return sum(n for how, n in counts["requests"].items() if how.startswith("GET"))


def row(what: str, limit, found, ok: bool | None, note: str = "") -> dict:
    return {"what": what, "limit": limit, "found": found, "ok": ok, "note": note}


def requests_section(setting: Setting, proxy: Proxy, comparison, say) -> list[dict]:
    requests, rows = Requests(setting, proxy), []
    for step in (
        point_series,
        identical_requests,
        statistics_only,
        mean_on_the_wire,
        open_zarr,
        dask_mean,
    ):
        shown = len(rows)
        try:
            rows += step(requests, comparison)
        except Exception as error:  # noqa: BLE001  it becomes a row of the table
            name = step.__name__.replace("_", " ")
            rows.append(row(name, "", "", None, f"not run: {str(error)[:200]}"))
        for one in rows[shown:]:
            say(f"{one['what']}: {one['found']} (limit {one['limit']}) {one['note']}")
    return rows


def point_series(requests: Requests, comparison) -> list[dict]:
    """Over S shards: footer and inner chunk of each at first, then inner chunks alone."""
    rows = []
    for nth, (of_each, sizes) in enumerate(MANY.items()):
        rows += series_of(requests, f"many{nth}", of_each, sizes)
    return rows


def series_of(requests: Requests, repo: str, of_each: str, sizes: Sizes) -> list[dict]:
    setting = requests.setting
    values = generate(sizes, seed=6)
    netcdf = setting.folder / f"{repo}.nc"
    write_netcdf(netcdf, values, sizes)
    setting.import_netcdf(netcdf, repo, sizes)
    shards = sizes.shape[0] // sizes.shards[0]
    data = f"/v1/repos/{repo}/refs/main/data/{ARRAY}?slice=:,"
    with requests.server() as server:

        def series(y: int, x: int) -> None:
            body = requests.good(server, f"{data}{y},{x}")
            if body != values[:, y, x].tobytes():
                raise RuntimeError("the values are wrong")

        cold = chunk_gets(requests.counted(lambda: series(3, 5)))
        warm = chunk_gets(requests.counted(lambda: series(40, 40)))
        again = chunk_gets(requests.counted(lambda: series(3, 6)))
    what = f"series, {of_each} of each of {shards} shards: shard GETs"
    return [
        row(f"{what}, cold", 2 * shards, cold, cold <= 2 * shards),
        row("elsewhere in the same shards", shards, warm, warm <= shards),
        row("in inner chunks that were read", 0, again, again == 0),
    ]


def identical_requests(requests: Requests, comparison) -> list[dict]:
    rows = []
    all_of = f"{requests.repo}/data/{ARRAY}?slice=0"
    mean = f"{requests.repo}/reduce/{ARRAY}?reduce=mean&over=0"
    for what, path in (("map", all_of), ("mean(axis=0)", mean)):
        found = []

        def at_once(server: Quarr, pool: ThreadPoolExecutor, count: int, path: str = path) -> None:
            list(pool.map(lambda _: requests.good(server, path), range(count)))

        for count in (1, 32):
            with requests.server() as server, ThreadPoolExecutor(count) as pool:
                found.append(all_gets(requests.counted(partial(at_once, server, pool, count))))
        one, many = found
        rows.append(row(f"32 identical requests, {what}, cold: GETs", one, many, many <= one))
    return rows


def statistics_only(requests: Requests, comparison) -> list[dict]:
    rows = []
    for how in ("mean", "std", "max"):
        with requests.server() as server:
            path = f"{requests.repo}/reduce/{ARRAY}?reduce={how}"
            found = chunk_gets(requests.counted(lambda path=path: requests.good(server, path)))
        rows.append(row(f"whole-array {how}, cold: shard GETs", 0, found, found == 0))
    return rows


def mean_on_the_wire(requests: Requests, comparison) -> list[dict]:
    with requests.server() as server:
        proxy = Proxy({"http": server.port}, requests.setting.log("checks"))
        try:
            status, _ = get(
                proxy.ports["http"], f"{requests.repo}/reduce/{ARRAY}?reduce=mean&over=0"
            )
            counts = proxy.counts("http")
        finally:
            proxy.stop()
    if status != 200:
        raise RuntimeError(f"answered {status}")
    size, most = sum(counts["bytes"].values()), int(1.1 * 2**20)
    return [row("mean(axis=0): bytes on the wire, one request", most, size, size <= most)]


# Run in a process of its own, as a notebook would.
OPEN_ZARR = """
import sys, xarray
array = xarray.open_zarr(sys.argv[1])
assert array.t2m.shape
"""
DASK_MEAN = """
import sys, xarray
array = xarray.open_zarr(sys.argv[1], chunks={})
print(float(array.t2m.mean(dtype="f8").compute()))
"""


def with_python(requests: Requests, code: str) -> tuple[dict, dict, str]:
    """What a client asks of Quarr, and Quarr of the bucket, and what the client printed."""
    with requests.server() as server:
        proxy = Proxy({"http": server.port}, requests.setting.log("checks"))
        try:
            url = f"http://127.0.0.1:{proxy.ports['http']}{requests.repo}/zarr"
            requests.proxy.reset("checks")
            done = subprocess.run(
                [sys.executable, "-c", code, url], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            return proxy.counts("http"), requests.proxy.counts("checks"), done.stdout
        finally:
            proxy.stop()


def open_zarr(requests: Requests, comparison) -> list[dict]:
    http_counts, _, _ = with_python(requests, OPEN_ZARR)
    documents = {how: n for how, n in http_counts["keys"].items() if "/c/" not in how}
    coordinates = sum(http_counts["requests"].values()) - sum(documents.values())
    found = sum(documents.values())
    note = f"and {coordinates} for coordinates"
    return [row("xr.open_zarr(url): requests for metadata", 4, found, found <= 4, note)]


def dask_mean(requests: Requests, comparison) -> list[dict]:
    http_counts, store_counts, printed = with_python(requests, DASK_MEAN)
    if not np.isclose(float(printed), comparison.totals["mean"], rtol=1e-5):
        raise RuntimeError(f"the mean is {printed}")
    # The array's shards are large; those of coordinates are not counted as shards here.
    chunks = {k: n for k, n in store_counts["keys"].items() if "/shards/" in k}
    whole = comparison.sizes.shards
    shards = int(np.prod([-(-a // b) for a, b in zip(comparison.sizes.shape, whole)]))
    most = max(chunks.values(), default=0)
    asked = http_counts["requests"].get("GET chunk", 0)
    stored = sum(n for how, n in store_counts["bytes"].items() if how == "GET chunk")
    there = sum(p.stat().st_size for p in requests.setting.zarr.rglob("c/*/*/*")) / 2**20
    note = (
        f"{shards} shards of {there:.1f} MiB in all; {sum(chunks.values())} GETs of"
        f" {stored / 2**20:.1f} MiB; {asked} chunk requests to Quarr"
    )
    more = stored / 2**20 / there if there else 0
    return [
        row("open_zarr().mean() by dask: GETs of one shard", 1, most, most <= 1, note),
        row("bytes of shards read, by those stored", 1.05, round(more, 2), more <= 1.05),
    ]


# --- Memory -----------------------------------------------------------------------------------------


class Sampler(threading.Thread):
    """The largest resident size seen, every 20 ms."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.most_kib, self.running = pid, 0, True
        self.start()

    def run(self) -> None:
        while self.running:
            self.most_kib = max(self.most_kib, memory_kib(self.pid, "VmRSS"))
            time.sleep(0.02)

    def stop(self) -> float:
        self.running = False
        self.join()
        return self.most_kib / 1024


def memory_section(comparison, say) -> None:
    quarr, folder = comparison.options.quarr, comparison.folder
    rows = comparison.results["memory"] = []
    limited = has_option(quarr, "--memory-limit")
    options = ["--memory-limit", f"{LIMIT_MIB}MiB"] if limited else []
    missing = "" if limited else "this binary has no --memory-limit"
    most = LIMIT_MIB + 256
    store = folder / "quarr"
    gib = 1 if comparison.options.quick else 10
    server = Quarr(quarr, str(store), folder / "memory.log", *options)
    try:
        make_sparse(server.port, gib)
        whole = reductions(server.port)
        idle = memory_kib(server.process.pid, "VmRSS") / 1024
        drop_from_page_cache(store)
        for what, work in (
            (
                "32 reductions of the whole cube at once",
                lambda: many_reductions(server.port, whole),
            ),
            (f"a read of {gib} GiB, sparse", lambda: read_sparse(server.port, gib)),
            ("both at once", lambda: both(server.port, whole, gib)),
        ):
            sampler, start = Sampler(server.process.pid), time.monotonic()
            try:
                note = work()
                failed = False
            except Exception as error:  # noqa: BLE001  it becomes a row of the table
                note, failed = f"not done: {str(error)[:200]}", True
            peak = sampler.stop()
            note = "; ".join(filter(None, [missing, note]))
            ok = not failed and peak <= most
            seconds = time.monotonic() - start
            rows.append(row(what, f"{most} MiB", f"{peak:.0f} MiB", ok, f"{seconds:.1f} s; {note}"))
            say(f"{what}: peak {peak:.0f} MiB, idle {idle:.0f} MiB; {note}")
    finally:
        server.stop()


def make_sparse(port: int, gib: int) -> None:
    """An array of which one row in 64 MiB is written; the rest is fill value."""
    nodes = "/v1/repos/sparse"
    put(port, nodes, b"", "application/json")
    rows = gib * 1024
    node = {
        "shape": [rows, 512, 512],
        "data_type": "float32",
        "chunks": [16, 128, 128],
        "shards": [64, 512, 512],
        "fill_value": 0.0,
        "dimension_names": ["time", "y", "x"],
    }
    put(port, f"{nodes}/refs/main/nodes/field", json.dumps(node).encode(), "application/json")
    values = np.arange(512 * 512, dtype="<f4").tobytes()
    for at in range(0, rows, rows // 4):
        path = f"{nodes}/refs/main/data/field?slice={at}"
        put(port, path, values, "application/octet-stream")


def reductions(port: int) -> bytes:
    return get(port, f"/v1/repos/{REPO}/refs/main/reduce/{ARRAY}?reduce=mean&over=0")[1]


def many_reductions(port: int, right: bytes) -> str:
    with ThreadPoolExecutor(32) as pool:
        refused, wrong = 0, 0
        paths = [f"/v1/repos/{REPO}/refs/main/reduce/{ARRAY}?reduce=mean&over=0" for _ in range(32)]
        for status, body in pool.map(lambda path: get(port, path), paths):
            refused += status == 503
            wrong += status not in (200, 503) or (status == 200 and body != right)
    if wrong:
        raise RuntimeError(f"{wrong} wrong answers")
    return f"{refused} refused with 503" if refused else "all answered, all the same"


def read_sparse(port: int, gib: int) -> str:
    """The client holds one piece at a time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("GET", "/v1/repos/sparse/refs/main/data/field")
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {response.read()[:150].decode()}")
        piece, total, words = bytearray(4 << 20), 0, 0
        while count := response.readinto(piece):
            total += count
            aligned = np.frombuffer(memoryview(piece)[: count // 4 * 4], "u1")
            words += int(aligned.any())
    finally:
        connection.close()
    if total != gib << 30:
        raise RuntimeError(f"{total} bytes instead of {gib << 30}")
    if not words:
        raise RuntimeError("nothing but zeros")
    return "all read"


def both(port: int, right: bytes, gib: int) -> str:
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(many_reductions, port, right), pool.submit(read_sparse, port, gib)]
        return ", ".join(part.result() for part in parts)


# --- Real files -------------------------------------------------------------------------------------

# The largest variables of the real files: how they are reduced in full.
REAL = [("eraint_uvz.nc", "z"), ("TREFHT.B06.57.atm.1890-1999ANN.nc", "TREFHT"), ("nc4uvt.nc", "U")]


def real_section(comparison, say) -> None:
    """Small files, but real: reads and means as xarray has them from the file itself."""
    import xarray

    data = comparison.options.data
    rows = comparison.results["real"] = []
    if not data.exists():
        comparison.results["notes"].append("Real files: skipped, there is no ../shared/data.")
        return
    quarr, store = comparison.options.quarr, comparison.folder / "real"
    server = None
    try:
        for nth, (name, _) in enumerate(REAL):
            run(quarr, "import", data / name, "--to", f"real{nth}", "--store", store)
        server = Quarr(quarr, str(store), comparison.folder / "real.log")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        for nth, (name, wanted) in enumerate(REAL):
            rows.append(real_row(xarray, connection, nth, data / name, wanted))
            say(f"{name}: {rows[-1]}")
    finally:
        if server:
            server.stop()


def real_row(xarray, connection, nth: int, path: Path, wanted: str) -> dict:
    """One variable, by turns; in each pair Quarr first."""
    try:
        with xarray.open_dataset(path, cache=False, decode_times=False) as dataset:
            named = [name for name in dataset.data_vars if name.lower() == wanted.lower()]
            variable = named[0]
            array = dataset[variable]
            pairs = {
                "read": (
                    lambda: ask(connection, f"real{nth}", f"data/{variable}"),
                    lambda: array.copy().values,
                ),
                "mean": (
                    lambda: ask(connection, f"real{nth}", f"reduce/{variable}?reduce=mean&over=0"),
                    lambda: array.mean(array.dims[0]).values,
                ),
            }
            found = {"file": path.name, "variable": variable, "mib": array.nbytes / 2**20}
            for how, pair in pairs.items():
                seconds: list[list[float]] = [[], []]
                for _ in range(11):
                    values = []
                    for place, work in enumerate(pair):
                        once, result = timed(work, 1)
                        seconds[place] += once
                        values.append(result)
                    if not np.allclose(*values, rtol=1e-5, equal_nan=True):
                        raise RuntimeError(f"{how}: the values are not xarray's")
                found[how] = [float(np.median(each)) for each in seconds]
            return found
    except Exception as error:  # noqa: BLE001  it becomes a row of the table
        return {"file": path.name, "error": str(error)[:200]}


def ask(connection: http.client.HTTPConnection, repo: str, path: str) -> np.ndarray:
    """An answer as the array its header says it is: `dtype="<f4", shape=(12 480)`."""
    connection.request("GET", f"/v1/repos/{repo}/refs/main/{path}")
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {body[:200]!r}")
    header = response.getheader("tensor")
    shape = header.split("shape=(")[1].rstrip(")").split()
    return np.frombuffer(body, header.split('"')[1]).reshape([int(n) for n in shape])
