"""Reductions on CUDA devices answer byte for byte what the processor answers, and say what they did.

The device is emulated: shared libraries in place of the driver's, with the same kernels compiled for the
processor (compute/emulator). So nothing here says how fast anything is.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import quarr
import service

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
SHAPE = (21, 17, 26)
SHARD, INNER = (12, 10, 16), (6, 5, 8)
REPO = "gpu"

ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
CRC32C = {"name": "crc32c"}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
PLAIN_BYTES = {"name": "bytes"}
PACKBITS = {"name": "packbits"}


def blosc(size: int, shuffle: str) -> dict[str, Any]:
    settings = {"cname": "lz4", "clevel": 5, "shuffle": shuffle, "typesize": size, "blocksize": 0}
    return {"name": "blosc", "configuration": settings}


def shuffled(size: int) -> dict[str, Any]:
    return {"name": "numcodecs.shuffle", "configuration": {"elementsize": size}}


def low_bits(last: int) -> dict[str, Any]:
    return {"name": "packbits", "configuration": {"first_bit": 0, "last_bit": last}}


@dataclass(frozen=True)
class Case:
    """An array: its type, how it is stored, and what its attributes say."""

    data_type: str
    codecs: list[dict[str, Any]]
    sharded: bool = True
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = SHAPE
    chunks: tuple[tuple[int, ...], tuple[int, ...]] = (SHARD, INNER)
    # Integers from 0 to this; of the whole type if left out.
    largest: int | None = None


CASES = {
    "f32": Case("float32", [LITTLE, ZSTD]),
    "f32-bitshuffle": Case("float32", [LITTLE, blosc(4, "bitshuffle")], sharded=False),
    "f64-big": Case("float64", [BIG, GZIP]),
    "f64-shuffle": Case("float64", [LITTLE, blosc(8, "shuffle")]),
    "f16": Case("float16", [LITTLE, ZSTD]),
    "bf16": Case("bfloat16", [LITTLE], sharded=False),
    "i8": Case("int8", [PLAIN_BYTES, ZSTD]),
    "u8": Case("uint8", [PLAIN_BYTES], sharded=False),
    "i16-gzip-shuffle": Case("int16", [LITTLE, shuffled(2), GZIP]),
    "u16-bits": Case("uint16", [low_bits(10), ZSTD], largest=2047),
    "i32-big": Case("int32", [BIG, shuffled(4), GZIP], sharded=False),
    "u32": Case("uint32", [LITTLE, blosc(4, "bitshuffle"), CRC32C]),
    "i64-shuffle": Case("int64", [LITTLE, shuffled(8), GZIP]),
    "u64-big": Case("uint64", [BIG, ZSTD], sharded=False),
    "flags-bits": Case("bool", [PACKBITS, ZSTD]),
    "flags": Case("bool", [PLAIN_BYTES], sharded=False),
    "packed": Case(
        "int16", [LITTLE, shuffled(2), GZIP], attributes={"scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -3}
    ),
    "packed-range": Case(
        "uint8", [PLAIN_BYTES, ZSTD], attributes={"scale_factor": 0.5, "valid_range": [3, 240], "missing_value": 7}
    ),
    "packed-big": Case(
        "int32", [BIG, blosc(4, "shuffle")], attributes={"scale_factor": 2.0, "add_offset": -1.0, "_FillValue": 0}
    ),
    "missing": Case("float32", [LITTLE, ZSTD], attributes={"_FillValue": 0.5}),
    "unsigned": Case("int8", [PLAIN_BYTES, ZSTD], attributes={"_Unsigned": "true"}),
    "long": Case("float32", [LITTLE, ZSTD], shape=(5, 11000), chunks=((4, 10000), (2, 10000))),
}  # fmt: skip

REDUCERS = ["sum", "prod", "mean", "min", "max", "count", "std", "var", "any", "all", "argmin", "argmax", "median"]
# Those that kernels find in one pass; any of the others gives all of them to the processor.
TOGETHER = [["sum", "mean", "std", "var"], ["min", "max", "argmin", "argmax", "count", "any", "all"]]
AXES = {3: ["0", "1", "2", "0,1", "0,2", "1,2"], 2: ["0", "1"]}
SLICES = {
    3: ["...", "2:19,::2,3:25:3", "4,:,:", ":,[1,4,9],:", "::3,0:5,7", "[20,3,3],::-1,:", "6:12,5:10,8:16"],
    2: ["...", "1:4,10:10990", ":,::7", "[0,4],:9999"],
}
OPTIONS: list[dict[str, str]] = [
    {"reduce": "sum", "skipna": "false"},
    {"reduce": "mean", "skipna": "false", "keepdims": "true"},
    {"reduce": "max", "skipna": "false"},
    {"reduce": "argmin", "skipna": "true"},
    {"reduce": "std", "ddof": "1"},
    {"reduce": "sum", "min_count": "30"},
    {"reduce": "sum", "dtype": "float64"},
    {"reduce": "mean", "decode": "raw"},
    {"reduce": "min", "decode": "mask"},
    {"reduce": "histogram", "bins": "7", "range": "-100,100"},
    {"reduce": "histogram", "bins": "0,1,2,50,300"},
    {"reduce": "mean,histogram,count", "bins": "3", "range": "0,9", "f": "json"},
]


def values(name: str, case: Case) -> np.ndarray:
    """Numbers with the extremes of their type among them; blocks of them are fill value alone."""
    random = np.random.default_rng(sum(name.encode()))
    count = int(np.prod(case.shape))
    if case.data_type == "bool":
        found = random.random(count) < 0.4
    elif case.data_type in ("float16", "float32", "float64", "bfloat16"):
        kind = "float32" if case.data_type == "bfloat16" else case.data_type
        found = (random.standard_normal(count) * 50).astype(kind)
        special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.5, 0.0], kind)
        found[random.integers(0, count, count // 40)] = random.choice(special, count // 40)
        if kind != "float32":
            found[: count // 3] = random.integers(-3, 4, count // 3)
    else:
        limits = np.iinfo(case.data_type)
        most = case.largest or limits.max
        least = 0 if case.largest else limits.min
        found = random.integers(least, most, count, case.data_type, endpoint=True)
        small = random.random(count) < 0.5
        found[small] = (found[small] % 10).astype(case.data_type)
    found = found.reshape(case.shape)
    # Chunks that are not stored.
    found[tuple(slice(0, length // 3) for length in case.shape)] = 0
    return found


def document(case: Case) -> dict[str, Any]:
    shard, inner = case.chunks
    codecs = case.codecs
    if case.sharded:
        settings = {"chunk_shape": inner, "codecs": codecs, "index_codecs": [LITTLE, CRC32C]}
        codecs = [{"name": "sharding_indexed", "configuration": settings}]
    grid = {"chunk_shape": shard if case.sharded else inner}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": case.shape,
        "data_type": case.data_type,
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": False if case.data_type == "bool" else 0,
        "codecs": codecs,
        "attributes": case.attributes,
    }


@pytest.fixture(scope="session")
def emulator() -> Path:
    """The folder of the emulated device, the one that the tests in Rust have."""
    folder = ROOT / "target" / "tmp" / "emulator"
    script = ROOT / "scripts" / "build-emulator.sh"
    done = subprocess.run([script, folder], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def serving(store: Path, *arguments: str, driver: Path | None = None, **settings: str) -> Iterator[service.Server]:
    """A server whose driver is in this folder, and emulated with these settings."""
    environment = {f"QUARR_EMULATOR_{name}": value for name, value in settings.items()}
    if driver:
        others = os.environ.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = f"{driver}:{others}" if others else str(driver)
    process = service.ServerProcess(store, *arguments, environment=environment)
    try:
        yield process.server
    finally:
        process.stop()


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """A store with all arrays."""
    store = tmp_path_factory.mktemp("gpu-store")
    with serving(store, "--gpu", "never") as server:
        repo = quarr.connect(server.url).create_repo(REPO)
        with repo.transaction("main", message="all") as tx:
            for name, case in CASES.items():
                url = f"{server.url}/v1/transactions/{tx.id}/zarr/{name}/zarr.json"
                answer = requests.put(url, json=document(case), timeout=60)
                assert answer.ok, f"{name}: {answer.text}"
                tx.write(name, values(name, case))
    return store


@pytest.fixture(scope="module")
def processor(arrays):
    """A server without devices."""
    with serving(arrays, "--gpu", "never") as server:
        yield server


@pytest.fixture(scope="module")
def device(arrays, emulator):
    """A server that gives its device all that it can do."""
    with serving(arrays, "--gpu", "always", driver=emulator) as server:
        yield server


def ask(server: service.Server, name: str, what: str = "reduce", **query: str) -> requests.Response:
    return server.get(server.data_url(REPO, name, what), **query)


def devices(server: service.Server) -> list[dict[str, Any]]:
    found = server.get("/v1/status").json()["gpu"]["devices"]
    assert found, "there is no device"
    return found


def work(server: service.Server, what: str = "tasks") -> int:
    return sum(device[what] for device in devices(server))


def is_same(one: service.Server, other: service.Server, name: str, query: dict[str, str]) -> bool:
    """Whether both answer the same; asserts it. `False` if what they say is that it cannot be."""
    found, wanted = (ask(server, name, **query) for server in (one, other))
    case = f"{name} {query}: {found.status_code} {found.text[:300] if found.status_code != 200 else ''}"
    assert found.status_code == wanted.status_code, case
    if wanted.status_code != 200:
        assert wanted.status_code in (400, 422), case
        assert found.json()["detail"] == wanted.json()["detail"], case
        return False
    for header in ("content-type", "tensor", "etag", "repr-digest"):
        assert found.headers.get(header) == wanted.headers.get(header), case
    assert found.content == wanted.content, case
    return True


def queries(case: Case) -> list[dict[str, str]]:
    """Every reducer over all axes; options and slices over some of them, in turn."""
    dimensions = len(case.shape)
    axes = AXES[dimensions]
    found = [{"reduce": reducer, "over": over} for over in axes for reducer in REDUCERS]
    for number, options in enumerate(OPTIONS):
        found.append({"over": axes[number % len(axes)], **options})
    for number, text in enumerate(SLICES[dimensions][1:]):
        for over in {axes[number % len(axes)], axes[(number + 3) % len(axes)]}:
            for reducers in TOGETHER:
                found.append({"reduce": ",".join(reducers), "over": over, "slice": text, "f": "json"})
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_device_answers_as_the_processor(processor, device, name):
    before = work(device)
    asked = queries(CASES[name])
    # A slice may have fewer dimensions than are reduced, a type no such reduction.
    answered = sum(is_same(device, processor, name, query) for query in asked)
    assert answered > len(asked) * 0.7
    assert work(device) > before + len(asked), "the processor did it"
    assert work(device, "copied_bytes") > 0


def test_answers_from_chunks_on_the_device_are_the_same(processor, device):
    names = ["f32", "i16-gzip-shuffle", "packed", "flags-bits", "f32-bitshuffle"]
    for name in names:
        assert is_same(device, processor, name, {"reduce": "sum", "over": "0"})
    (status,) = devices(device)
    assert 0 < status["cache_bytes"] <= status["memory_used_bytes"] <= status["memory_limit_bytes"]
    assert status["cached_chunks"] > 0
    copied = work(device, "copied_bytes")
    for _ in range(3):
        for name in names:
            assert is_same(device, processor, name, {"reduce": "sum", "over": "0"})
    assert work(device, "copied_bytes") == copied
    assert work(device, "cache_hits") > status["cache_hits"]
    assert work(device, "graph_launches") > 0


def test_the_device_is_in_the_status_and_in_the_metrics(device):
    gpu = device.get("/v1/status").json()["gpu"]
    assert gpu["use"] == "always" and "unavailable" not in gpu
    assert all(rate > 0 for rate in gpu["rates"].values())
    (status,) = gpu["devices"]
    assert status["name"] and not status["broken"]
    assert status["memory_bytes"] == 1 << 30
    assert status["memory_limit_bytes"] == 3 << 28
    text = device.get("/metrics").text
    for metric, value in {
        "memory_bytes": status["memory_bytes"],
        "memory_limit_bytes": status["memory_limit_bytes"],
        "memory_used_bytes": status["memory_used_bytes"],
        "cache_bytes": status["cache_bytes"],
        "cache_hits_total": status["cache_hits"],
        "cache_misses_total": status["cache_misses"],
        "tasks_total": status["tasks"],
        "chunks_total": status["chunks"],
        "launches_total": status["launches"],
        "graph_launches_total": status["graph_launches"],
        "copied_bytes_total": status["copied_bytes"],
        "broken": 0,
    }.items():
        assert f'quarr_gpu_{metric}{{device="0"}} {value}\n' in text, metric
    for reason, count in status["fallbacks"].items():
        assert f'quarr_gpu_fallbacks_total{{device="0",reason="{reason}"}} {count}\n' in text, reason
    assert status["fallbacks"]["failure"] == 0


def test_a_plan_says_who_computes(device):
    plan = ask(device, "f32", "explain", reduce="mean", over="0").json()["compute"]
    assert plan["on"] == "gpu" and plan["gpu_ms"] > 0 and plan["cpu_ms"] > 0
    plan = ask(device, "f32", "explain", reduce="mean").json()["compute"]
    assert plan["on"] == "statistics" and "gpu_ms" not in plan
    assert "compute" not in ask(device, "f32", "explain").json()
    for query, reason in [
        ({"reduce": "prod"}, "no kernel does this, or not with float32"),
        ({"reduce": "median"}, "no kernel does this, or not with float32"),
        ({"reduce": "mean", "where": "f32>0"}, "no kernel looks at conditions"),
    ]:
        before = work(device)
        plan = ask(device, "f32", "explain", **query, over="0").json()["compute"]
        assert plan == {"on": "cpu", "reason": reason}
        assert ask(device, "f32", **query, over="0").ok
        assert work(device) == before, query


def test_auto_leaves_to_the_processor_what_it_does_faster(arrays, processor, emulator):
    with serving(arrays, "--gpu", "auto", driver=emulator) as server:
        before = work(server)
        assert is_same(server, processor, "f32", {"reduce": "mean", "over": "0"})
        assert work(server) == before
        assert server.get("/v1/status").json()["gpu"]["use"] == "auto"
        plan = ask(server, "f32", "explain", reduce="mean", over="0").json()["compute"]
    assert plan["on"] == "cpu" and "the processor is faster" in plan["reason"]
    assert plan["gpu_ms"] > plan["cpu_ms"] > 0


def test_with_little_memory_answers_are_the_same(arrays, processor, emulator):
    # Of which the large chunks need more.
    with serving(arrays, "--gpu", "always", "--gpu-memory", "16MiB", driver=emulator) as server:
        (status,) = devices(server)
        assert status["memory_limit_bytes"] == 16 << 20
        for name in ["f32", "packed", "long", "u16-bits"]:
            for query in queries(CASES[name])[::5]:
                is_same(server, processor, name, query)
        (status,) = devices(server)
        assert status["memory_peak_bytes"] <= 16 << 20
        assert not status["broken"]


def test_a_task_that_finds_no_memory_is_done_by_the_processor(tmp_path, emulator):
    shape, inner = (4, 1024, 1024), (1, 1024, 1024)
    case = Case("float64", [LITTLE], sharded=False, shape=shape, chunks=(inner, inner))
    data = np.random.default_rng(1).standard_normal(shape)
    query = {"reduce": "mean,min,std", "over": "1", "f": "json"}
    with serving(tmp_path, "--gpu", "never") as server:
        repo = quarr.connect(server.url).create_repo(REPO)
        url = f"{server.branch_url(REPO)}/large/zarr.json"
        assert requests.put(url, json=document(case), timeout=60).ok
        with repo.transaction("main", message="large") as tx:
            tx.write("large", data)
        wanted = ask(server, "large", **query)
    with serving(tmp_path, "--gpu", "always", "--gpu-memory", "16MiB", driver=emulator) as server:
        found = ask(server, "large", **query)
        (status,) = devices(server)
        metrics = server.get("/metrics").text
    assert wanted.ok and found.content == wanted.content
    count = status["fallbacks"]["memory"]
    assert count > 0 and not status["broken"]
    assert f'quarr_gpu_fallbacks_total{{device="0",reason="memory"}} {count}\n' in metrics


def test_a_device_that_breaks_is_left_alone(arrays, processor, emulator):
    # What the device is measured with needs fewer kernels.
    with serving(arrays, "--gpu", "always", driver=emulator, FAIL="cuLaunchKernel:400") as server:
        assert not devices(server)[0]["broken"]
        for query in queries(CASES["f32"]):
            is_same(server, processor, "f32", query)
            if devices(server)[0]["broken"]:
                break
        (status,) = devices(server)
        assert status["broken"] and status["fallbacks"]["failure"] >= 3
        for name in ["f32", "i8", "packed"]:
            assert is_same(server, processor, name, {"reduce": "std", "over": "0,2"})
        assert devices(server)[0]["tasks"] == status["tasks"]
        plan = ask(server, "f32", "explain", reduce="mean", over="0").json()["compute"]
        assert plan["on"] == "cpu" and "failed" in plan["reason"]
        assert 'quarr_gpu_broken{device="0"} 1\n' in server.get("/metrics").text
        for path in ("/livez", "/readyz"):
            assert server.get(path).ok
        done = service.run("doctor", "--server", server.url, check=False)
        assert done.returncode == 1 and "the CUDA device 0" in done.stdout


OLD = {"driver": "old-driver"}
CASES_WITHOUT = {
    "no driver": ({}, "no CUDA driver is installed"),
    "old driver": (OLD, "the driver knows CUDA 11.4, 12.1 is needed"),
    "no device": ({"INIT_ERROR": "100"}, "there is no CUDA device"),
    "driver and library differ": ({"INIT_ERROR": "803"}, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
    "broken from the start": ({"FAIL": "cuLaunchKernel:5"}, "the driver failed: "),
    "too old a device": ({"CAPABILITY": "61"}, "there is no CUDA device"),
}


@pytest.mark.parametrize("why", CASES_WITHOUT)
def test_without_a_device_the_server_says_why_and_answers(arrays, processor, emulator, why):
    settings, said = CASES_WITHOUT[why]
    settings = dict(settings)
    folder = emulator / settings.pop("driver", "")
    if why == "no driver":
        if has_driver():
            pytest.skip("this machine has a CUDA driver")
        folder = None
    with serving(arrays, "--gpu", "always", driver=folder, **settings) as server:
        gpu = server.get("/v1/status").json()["gpu"]
        assert gpu["use"] == "always" and gpu["devices"] == [] and "rates" not in gpu
        assert said in gpu["unavailable"]
        assert is_same(server, processor, "f32", {"reduce": "mean", "over": "0"})
        plan = ask(server, "f32", "explain", reduce="mean", over="0").json()["compute"]
        assert plan == {"on": "cpu", "reason": gpu["unavailable"]}
        assert server.get("/readyz").ok
        assert "quarr_gpu_broken{" not in server.get("/metrics").text


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_two_devices_share_the_work(arrays, processor, emulator):
    with serving(arrays, "--gpu", "always", driver=emulator, DEVICES="2") as server:
        before = [device["chunks"] for device in devices(server)]
        for name in ["f32", "i64-shuffle", "packed"]:
            for query in queries(CASES[name])[::4]:
                is_same(server, processor, name, query)
        after = devices(server)
        assert len(after) == 2
        assert all(device["chunks"] > count for device, count in zip(after, before, strict=True))
        assert 'quarr_gpu_tasks_total{device="1"} ' in server.get("/metrics").text
    with serving(arrays, "--gpu", "always", "--gpu-devices", "1", driver=emulator, DEVICES="2") as server:
        assert len(devices(server)) == 1


def test_a_damaged_chunk_is_the_same_error(arrays, emulator, tmp_path):
    shutil.copytree(arrays, tmp_path / "store")
    shards = [path for path in (tmp_path / "store" / REPO / "shards").rglob("*") if path.is_file()]
    # One of the array `long`: which of several is named first is a matter of time.
    path = max(shards, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    query = {"reduce": "sum,max", "f": "json"}
    with (
        serving(tmp_path / "store", "--gpu", "never") as plain,
        serving(tmp_path / "store", "--gpu", "always", driver=emulator) as server,
    ):
        for over in ("0", "1"):
            found, wanted = (ask(of, "long", over=over, **query) for of in (server, plain))
            assert found.status_code == wanted.status_code == 500
            problems = [answer.json() | {"trace_id": None} for answer in (found, wanted)]
            assert problems[0] == problems[1]
            assert path.name in problems[0]["detail"]
        before = work(server)
        for over in ("0", "1"):
            assert is_same(server, plain, "f32", {"over": over, **query})
        (status,) = devices(server)
        assert status["tasks"] > before
        assert status["fallbacks"]["failure"] == 0


def test_streams_that_the_device_decompresses_are_the_same_values(arrays, processor, emulator):
    """zstd and LZ4 streams go to the device as they are, where that was asked for."""
    with (
        serving(arrays, "--gpu", "always", driver=emulator) as decoded,
        serving(arrays, "--gpu", "always", "--gpu-decompress", driver=emulator) as compressed,
    ):
        before = [work(server, "copied_bytes") for server in (decoded, compressed)]
        for name in ("i8", "f16", "packed-range", "f32-bitshuffle", "f64-shuffle", "f64-big"):
            for over in AXES[3]:
                for reducers in TOGETHER:
                    query = {"reduce": ",".join(reducers), "over": over, "f": "json"}
                    assert is_same(compressed, processor, name, query)
                    assert is_same(decoded, processor, name, query)
        copied = [work(server, "copied_bytes") - was for server, was in zip((decoded, compressed), before, strict=True)]
        assert copied[1] < copied[0], "no stream was copied as it is"
        assert all(device["fallbacks"]["undecoded"] == 0 for device in devices(compressed))


def test_relaxed_products_promise_no_bits(arrays, processor, emulator):
    query = {"with": "f64-shuffle", "slice": "0,:,:", "with_slice": "1,:,:", "axis": "1", "f": "npy"}
    exact = ask(processor, "f64-shuffle", "product", **query)
    with serving(arrays, "--gpu", "always", "--gpu-relaxed", driver=emulator) as server:
        relaxed = ask(server, "f64-shuffle", "product", **query)
        assert relaxed.status_code == exact.status_code == 200
        assert "etag" in exact.headers and "etag" not in relaxed.headers
        found, wanted = (np.load(io.BytesIO(answer.content)) for answer in (relaxed, exact))
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-9)
        assert work(server) > 0
        # What is not relaxed keeps its bits.
        assert is_same(server, processor, "f64-shuffle", {"reduce": "mean", "over": "1"})


def test_a_command_uses_devices_only_if_it_is_told_to(arrays, emulator):
    environment = os.environ | {"LD_LIBRARY_PATH": str(emulator)}
    request = ["explain", f"{REPO}/f32", "--reduce", "mean", "--over", "0", "--store", arrays]

    def said(*more: str) -> str:
        command = [service.BIN, *request, *more]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        (line,) = re.findall(r"^computed by +(.*)$", done.stdout, re.M)
        return line

    assert said() == "cpu: devices are switched off"
    assert said("--gpu", "always").startswith("gpu: devices are used for all that they can do (gpu ")
