"""Direct mode: the service inside the process, over a store on disk."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("quarr._native", reason="scripts/python-package.sh builds it")

import quarr
import zarr
from quarr import _native
from quarr._native_transport import NativeTransport
from quarr.store import Store
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

SHARD, INNER = (8, 8), (4, 2)
VALUES = np.arange(17 * 20, dtype="float32").reshape(17, 20)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A store with an array in two shards and more, written directly."""
    folder = tmp_path / "store"
    client = quarr.open(folder)
    repository = client.create_repo("climate")
    with repository.transaction("main", message="first") as transaction:
        group = zarr.create_group(transaction.store, attributes={"title": "test"})
        array = group.create_array(
            "deep/t2m",
            shape=VALUES.shape,
            dtype=VALUES.dtype,
            shards=SHARD,
            chunks=INNER,
            fill_value=-1,
        )
        # The last columns are never written.
        array[:, :16] = VALUES[:, :16]
    client.close()
    return folder


def expected() -> np.ndarray:
    values = VALUES.copy()
    values[:, 16:] = -1
    return values


def new_engine(folder: Path, **options) -> _native.Engine:
    """An engine that shares no cache with others."""
    return _native.Engine(str(folder), **options)


async def ask(engine: _native.Engine, method: str, target: str, body: object = None):
    headers = [("content-type", "application/json")]
    encoded = None if body is None else json.dumps(body).encode()
    status, names, content = await engine.request(method, target, headers, encoded)
    return status, dict(names), bytes(content)


async def view_of(engine: _native.Engine, **options) -> _native.View:
    _, _, body = await ask(engine, "GET", "/v1/repos/climate/refs/main")
    return await engine.view("climate", json.loads(body)["commit"], **options)


async def got(view: _native.View, key: str, *ends: int | None) -> bytes | None:
    found = view.get(key, *ends)
    if found is not None and not isinstance(found, _native.Body):
        found = await found
    return None if found is None else bytes(found)


def test_results_that_are_kept_take_no_memory_of_the_engine(tmp_path):
    client = quarr.open(tmp_path / "store", memory_limit_bytes=64 << 20)
    values = np.arange(1 << 20, dtype="<f4")
    with client.create_repo("kept").transaction("main", message="first") as transaction:
        transaction.create_array("a", shape=values.shape, data_type="float32")
        transaction.write("a", values)
    snapshot = client.repo("kept").at("main")
    kept = [snapshot.read("a") for _ in range(32)]
    assert all(np.array_equal(found, values) for found in kept)


def test_what_is_written_is_read_back_by_another_engine(folder):
    client = quarr.open(folder)
    assert [repository.name for repository in client.repositories()] == ["climate"]
    array = zarr.open_group(client.repo("climate").store("main"), mode="r")["deep/t2m"]
    np.testing.assert_array_equal(array[...], expected())
    np.testing.assert_array_equal(client.repo("climate").at("main").read("deep/t2m"), expected())

    async def other() -> tuple[int, bytes]:
        status, _, body = await ask(
            new_engine(folder), "GET", "/v1/repos/climate/refs/main/data/deep/t2m?slice=3,4&f=json"
        )
        return status, body

    status, body = asyncio.run(other())
    assert status == 200 and b"64" in body


def test_the_view_answers_what_http_answers(folder):
    async def compare() -> None:
        engine = new_engine(folder)
        view = await view_of(engine)
        base = "/v1/repos/climate/refs/main/zarr"
        _, _, listing = await ask(engine, "GET", f"{base}/?list=all")
        keys = json.loads(listing)["keys"]
        assert "deep/t2m/c/0/0" in keys and "deep/t2m/zarr.json" in keys
        others = [
            *("nothing", "deep", "deep/t2m", "deep/t2m/c", "deep/t2m/c/0", "deep/t2m/c/0/0/0"),
            *("deep/t2m/c/9/9", "deep/t2m/c/0/2", "deep/t2m/c/00/0", "deep/t2m/c/zarr.json", ""),
            *(".zgroup", "deep/t2m/.zarray", "deep//t2m/c//0/1", "/zarr.json", "deep/zarr.json"),
            *("\0", "../zarr.json", "deep/t2m/c/-1/0", "deep/t2m/zarr.json/zarr.json"),
        ]
        for key in [*keys, *others]:
            status, names, body = 404, {}, b""
            if "\0" not in key and ".." not in key:
                status, names, body = await ask(engine, "GET", f"{base}/{key}")
            is_object = status == 200 and "html" not in names["content-type"]
            for _ in range(2):
                assert await got(view, key) == (body if is_object else None), key
            if is_object:
                size = len(body)
                for start, stop in [
                    *((0, 10), (5, 7), (size - 3, size + 10), (3, None), (None, 4)),
                    *((-5, None), (-size - 10, None), (size, size + 1), (4, 4), (0, 0)),
                ]:
                    assert await got(view, key, start, stop) == body[start:stop], (key, start, stop)
        with pytest.raises(ValueError, match="stop"):
            view.get("zarr.json", -3, 5)

    asyncio.run(compare())


def test_a_key_that_was_read_is_answered_at_once_and_without_a_copy(folder):
    async def read() -> None:
        view = await view_of(new_engine(folder))
        first = await got(view, "deep/t2m/c/0/0", 0, 20)
        found = view.get("deep/t2m/c/0/0", 0, 20)
        assert isinstance(found, _native.Body) and bytes(found) == first
        assert len(found) == 20
        values = np.frombuffer(found, "u1")
        assert not values.flags.writeable
        with pytest.raises(TypeError):
            memoryview(found)[0] = 1
        # The bytes live as long as what looks at them.
        del view, found
        assert values.tobytes() == first

    asyncio.run(read())


def test_inner_chunks_are_shown_as_chunks(folder):
    async def read() -> None:
        view = await view_of(new_engine(folder), inner_chunks=True)
        document = json.loads(await got(view, "deep/t2m/zarr.json"))
        assert document["chunk_grid"]["configuration"]["chunk_shape"] == list(INNER)
        assert "sharding_indexed" not in json.dumps(document["codecs"])
        root = json.loads(await got(view, "zarr.json"))
        assert root["consolidated_metadata"]["metadata"]["deep/t2m"] == document
        assert await got(view, "deep/t2m/c/0/0") is not None
        # The last inner chunks of a shard that is there, and of one that is not.
        assert await got(view, "deep/t2m/c/4/7") is not None
        assert await got(view, "deep/t2m/c/4/8") is None
        assert await got(view, "deep/t2m/c/5/0") is None
        whole = await got(view, "deep/t2m/c/1/2")
        assert await got(view, "deep/t2m/c/1/2", 3, 9) == whole[3:9]

    asyncio.run(read())
    store = Store(NativeTransport(folder), "climate", inner_chunks=True)
    array = zarr.open_group(store, mode="r")["deep/t2m"]
    assert array.chunks == INNER and array.shards is None
    np.testing.assert_array_equal(array[...], expected())
    assert pickle.loads(pickle.dumps(store)) == store
    assert store != Store(NativeTransport(folder), "climate")


def test_a_store_reads_ranges_as_zarr_asks_for_them(folder):
    async def read() -> None:
        store = Store(NativeTransport(folder), "climate")
        prototype = default_buffer_prototype()
        key = "deep/t2m/c/0/0"
        whole = (await store.get(key, prototype)).to_bytes()
        for wanted, part in [
            (RangeByteRequest(3, 9), whole[3:9]),
            (OffsetByteRequest(7), whole[7:]),
            (SuffixByteRequest(11), whole[-11:]),
        ]:
            assert (await store.get(key, prototype, wanted)).to_bytes() == part
        assert await store.get("deep/t2m/c/9/9", prototype) is None
        for wanted in (None, RangeByteRequest(0, 1)):
            assert await store.get("deep/t2m/c/0/2", prototype, wanted) is None

    asyncio.run(read())


def test_errors_are_typed(folder, tmp_path):
    client = quarr.open(folder)
    with pytest.raises(quarr.NotFoundError, match="climate"):
        client.repo("climat").branches()
    with pytest.raises(quarr.NotFoundError):
        client.repo("climate").at("no-such-branch").read("deep/t2m")
    with pytest.raises(quarr.BadRequestError):
        client.repo("climate").at("main").read("deep/t2m", (999, 999))
    with pytest.raises(quarr.ConflictError):
        client.create_repo("climate")

    async def view_of_nothing() -> None:
        await new_engine(folder).view("climate", "00" * 32)

    with pytest.raises(quarr.NotFoundError):
        asyncio.run(view_of_nothing())
    for url, words in [("ftp://host/store", "ftp"), ("s3://", "bucket|URL|s3")]:
        with pytest.raises(ValueError, match=words):
            NativeTransport(url)
    with pytest.raises(ValueError, match="64MiB"):
        NativeTransport(folder, memory_limit_bytes=1000)
    with pytest.raises(RuntimeError, match="event loop"):
        new_engine(folder).request("GET", "/livez")


def damage(folder: Path) -> None:
    """Flips a bit in the middle of every stored shard."""
    shards = [path for path in folder.rglob("*") if path.is_file() and "/shards/" in str(path)]
    assert shards
    for path in shards:
        path.chmod(0o644)
        content = bytearray(path.read_bytes())
        content[5] ^= 4
        path.write_bytes(content)


def test_damage_raises_and_is_never_a_fill_value(tmp_path):
    values = np.random.default_rng(0).standard_normal((64, 64)).astype("float32")
    client = quarr.open(tmp_path / "store")
    repository = client.create_repo("climate")
    with repository.transaction() as transaction:
        zarr.create_array(transaction.store, name="x", data=values, shards=(64, 64), chunks=(16, 16))
    client.close()
    damage(tmp_path / "store")

    async def read() -> None:
        view = await view_of(new_engine(tmp_path / "store"))
        for ends in [(None, None), (0, 100), (5, 6)]:
            with pytest.raises(quarr.DamageError):
                await got(view, "x/c/0/0", *ends)
        with pytest.raises(quarr.DamageError):
            view.get_sync("x/c/0/0")
        apart = await view_of(new_engine(tmp_path / "store"), inner_chunks=True)
        with pytest.raises(quarr.DamageError):
            await got(apart, "x/c/0/0")
        # The others are as they were written.
        assert await got(apart, "x/c/3/3") is not None

    asyncio.run(read())
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and "/shards/" in str(path):
            path.unlink()

    async def read_lost() -> None:
        view = await view_of(new_engine(tmp_path / "store"))
        with pytest.raises(quarr.Error):
            await got(view, "x/c/0/0")
        status, _, _ = await ask(
            new_engine(tmp_path / "store"), "GET", "/v1/repos/climate/refs/main/zarr/x/c/0/0"
        )
        assert status == 500

    asyncio.run(read_lost())


def test_a_cancelled_request_stops():
    async def cancel() -> None:
        connected, gone = asyncio.Event(), asyncio.Event()

        async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            connected.set()
            await reader.read()
            gone.set()
            writer.close()

        server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = {
            "aws_endpoint": f"http://127.0.0.1:{port}",
            "aws_allow_http": "true",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
            "aws_region": "us-east-1",
        }
        engine = _native.Engine("s3://bucket/prefix", options=options)
        transport = NativeTransport("s3://bucket/prefix", options=options)
        for begin in (engine.request, transport.request):
            connected.clear()
            gone.clear()
            started = asyncio.ensure_future(begin("GET", "/v1/repos"))
            await asyncio.wait_for(connected.wait(), 30)
            started.cancel()
            with pytest.raises(asyncio.CancelledError):
                await started
            # The service dropped what it was doing, and with it the connection.
            await asyncio.wait_for(gone.wait(), 30)
        server.close()

    asyncio.run(cancel())


def test_events_of_a_job_are_streamed(folder):
    client = quarr.open(folder)
    job = client.start_job("verify", repository="climate")
    states = [info.state for info in job.events()]
    assert states and states[-1] == "done"


def test_many_threads_and_loops_share_an_engine(folder):
    transport = NativeTransport(folder)
    results: list[np.ndarray] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(5):
                store = Store(transport, "climate")

                async def keys(store=store) -> list[bytes]:
                    prototype = default_buffer_prototype()
                    found = await asyncio.gather(
                        *(store.get(f"deep/t2m/c/{n % 3}/{n % 2}", prototype) for n in range(40))
                    )
                    return [one.to_bytes() for one in found]

                found = asyncio.run(keys())
                assert found[0] == found[6] and found[0] != found[1]
                results.append(zarr.open_group(store, mode="r")["deep/t2m"][...])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    assert len(results) == 40
    for found in results:
        np.testing.assert_array_equal(found, expected())


def test_two_engines_write_to_one_store(folder):
    async def write() -> None:
        engines = [new_engine(folder), new_engine(folder)]
        wanted = []
        for number in range(6):
            node = f"/v1/repos/climate/refs/main/nodes/array{number}"
            body = {"shape": [4], "data_type": "int32"}
            wanted.append(ask(engines[number % 2], "PUT", node, body))
        for status, _, body in await asyncio.gather(*wanted):
            assert status in (200, 201), body
        for engine in engines:
            for number in range(6):
                target = f"/v1/repos/climate/refs/main/nodes/array{number}"
                assert (await ask(engine, "GET", target))[0] == 200

    asyncio.run(write())


def test_a_transport_is_pickled_by_how_it_is_opened(folder, monkeypatch):
    transport = NativeTransport(folder, threads=2)
    copy = pickle.loads(pickle.dumps(transport))
    assert copy == transport and hash(copy) == hash(transport)
    assert copy != NativeTransport(folder)
    # In one process they share the engine.
    assert copy._open() is transport._open()
    monkeypatch.chdir(folder.parent)
    assert NativeTransport("store") == NativeTransport(folder)
    with pytest.raises(TypeError, match="memory"):
        pickle.dumps(NativeTransport("memory://"))


def test_a_transport_is_usable_after_it_was_closed(folder):
    async def use() -> None:
        transport = NativeTransport(folder)
        await transport.close()
        assert (await transport.request("GET", "/v1/repos")).status == 200
        await transport.close()

    asyncio.run(use())


def run_script(text: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_forked_child_opens_its_own_engine(folder):
    out = run_script(
        """
        import asyncio, os, sys
        import quarr
        import zarr

        client = quarr.open(sys.argv[1])
        client.repo("climate").branches()
        engine = client.transport._open()
        store = client.repo("climate").store("main")
        zarr.open_group(store, mode="r")
        child = os.fork()
        if child == 0:
            try:
                engine.request("GET", "/livez")
            except RuntimeError as error:
                print("refused:", "fork" in str(error))
            array = zarr.open_array(store, path="deep/t2m", mode="r")
            print("values:", float(array[1, 2]))
            print("child:", [b.name for b in client.repo("climate").branches()], flush=True)
            del engine, client
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("status:", status)
        print("parent:", [b.name for b in client.repo("climate").branches()])
        """,
        folder,
    )
    assert "values: 22.0" in out
    assert "refused: True" in out and "status: 0" in out
    assert "child: ['main']" in out and "parent: ['main']" in out


def test_a_process_ends_while_requests_are_under_way(folder):
    started = time.monotonic()
    run_script(
        """
        import asyncio, sys, threading
        from quarr import _native

        async def main():
            engine = _native.Engine(sys.argv[1])
            _, _, stream = await engine.stream(
                "GET", "/v1/repos/climate/log", [("accept", "text/event-stream")]
            )
            futures = [engine.request("GET", "/v1/repos") for _ in range(50)]
            asyncio.ensure_future(stream.next())
            await futures[0]
        asyncio.run(main())
        """,
        folder,
    )
    assert time.monotonic() - started < 60


def test_a_wheel_links_no_library_of_others():
    if not sys.platform.startswith("linux"):
        pytest.skip("ldd")
    linked = subprocess.run(["ldd", _native.__file__], capture_output=True, text=True, check=True)
    if "hdf5" in linked.stdout:
        pytest.skip("built together with the quarr command, which links the HDF5 library")
    for line in linked.stdout.splitlines():
        name = Path(line.split()[0]).name
        known = ("linux-vdso", "ld-linux", "libc.", "libm.", "libgcc_s.", "libstdc++.", "libdl.")
        assert name.startswith((*known, "libpthread.", "librt.")), line
