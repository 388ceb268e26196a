"""The client against a service, synchronous and asynchronous, over HTTP and in this process."""

from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import quarr
import service
from quarr import aio, client
from quarr._transport import may_repeat

ROOT = Path(__file__).parents[2]
VALUES = np.arange(4 * 6, dtype="f4").reshape(4, 6)

# Every operation of the service and the method that sends it. `{}` stands for any parameter.
OPERATIONS = {
    "GET /livez": "AsyncClient.live",
    "GET /readyz": "AsyncClient.ready",
    "GET /metrics": "AsyncClient.metrics",
    "GET /v1/limits": "AsyncClient.limits",
    "GET /v1/status": "AsyncClient.status",
    "GET /v1/auth/me": "AsyncClient.whoami",
    "GET /v1/auth/keys": "AsyncClient.keys",
    "POST /v1/auth/keys": "AsyncClient.create_key",
    "GET /v1/auth/keys/{}": "AsyncClient.key",
    "DELETE /v1/auth/keys/{}": "AsyncClient.revoke_key",
    "POST /v1/auth/keys/{}/rotate": "AsyncClient.rotate_key",
    "GET /v1/jobs": "AsyncClient.jobs",
    "POST /v1/jobs": "AsyncClient.start_job",
    "GET /v1/jobs/{}": "AsyncJob.info",
    "DELETE /v1/jobs/{}": "AsyncJob.cancel",
    "GET /v1/jobs/{}/events": "AsyncJob.events",
    "POST /v1/jobs/{}/resume": "AsyncJob.resume",
    "POST /v1/uploads": "AsyncClient.upload",
    "DELETE /v1/uploads/{}": "AsyncClient.delete_upload",
    "GET /v1/repos": "AsyncClient.repositories",
    "GET /v1/repos/{}": "AsyncRepository.info",
    "PUT /v1/repos/{}": "AsyncClient.create_repo",
    "DELETE /v1/repos/{}": "AsyncClient.delete_repo",
    "GET /v1/repos/{}/branches": "AsyncRepository.branches",
    "PUT /v1/repos/{}/branches/{}": "AsyncRepository.create_branch",
    "DELETE /v1/repos/{}/branches/{}": "AsyncRepository.delete_branch",
    "POST /v1/repos/{}/branches/{}/cherry-pick": "AsyncRepository.cherry_pick",
    "POST /v1/repos/{}/branches/{}/reset": "AsyncRepository.reset",
    "POST /v1/repos/{}/branches/{}/revert": "AsyncRepository.revert",
    "GET /v1/repos/{}/diff/{}/{}": "AsyncRepository.diff",
    "GET /v1/repos/{}/log": "AsyncRepository.log",
    "GET /v1/repos/{}/log/{}": "AsyncRepository.log_entry",
    "POST /v1/repos/{}/merge": "AsyncRepository.merge",
    "GET /v1/repos/{}/refs/{}": "AsyncRepository.resolve",
    "GET /v1/repos/{}/refs/{}/data/{}": "AsyncSnapshot.read",
    "PUT /v1/repos/{}/refs/{}/data/{}": "AsyncRepository.write",
    "GET /v1/repos/{}/refs/{}/explain/{}": "AsyncSnapshot.explain",
    "GET /v1/repos/{}/refs/{}/nodes": "AsyncSnapshot.nodes",
    "GET /v1/repos/{}/refs/{}/nodes/{}": "AsyncSnapshot.nodes",
    "PUT /v1/repos/{}/refs/{}/nodes/{}": "AsyncRepository.put_node",
    "DELETE /v1/repos/{}/refs/{}/nodes/{}": "AsyncRepository.delete",
    "POST /v1/repos/{}/refs/{}/nearest/{}": "AsyncSnapshot.nearest",
    "POST /v1/repos/{}/refs/{}/points/{}": "AsyncSnapshot.points",
    "GET /v1/repos/{}/refs/{}/product/{}": "AsyncSnapshot.product",
    "GET /v1/repos/{}/refs/{}/proof/{}": "AsyncSnapshot.prove",
    "GET /v1/repos/{}/refs/{}/receipt": "AsyncSnapshot.receipt",
    "GET /v1/repos/{}/refs/{}/reduce/{}": "AsyncSnapshot.reduce",
    "GET /v1/repos/{}/refs/{}/zarr": "Store.list",
    "GET /v1/repos/{}/refs/{}/zarr/{}": "Store.get",
    "HEAD /v1/repos/{}/refs/{}/zarr/{}": "Store.exists",
    "PUT /v1/repos/{}/refs/{}/zarr/{}": "Store.set",
    "DELETE /v1/repos/{}/refs/{}/zarr": "Store.clear",
    "DELETE /v1/repos/{}/refs/{}/zarr/{}": "Store.delete",
    "GET /v1/repos/{}/tags": "AsyncRepository.tags",
    "PUT /v1/repos/{}/tags/{}": "AsyncRepository.create_tag",
    "DELETE /v1/repos/{}/tags/{}": "AsyncRepository.delete_tag",
    "GET /v1/repos/{}/tlog/{}": "AsyncRepository.tlog",
    "POST /v1/repos/{}/transactions": "AsyncRepository.transaction",
    "GET /v1/transactions/{}": "AsyncTransaction.info",
    "DELETE /v1/transactions/{}": "AsyncTransaction.abort",
    "POST /v1/transactions/{}/commit": "AsyncTransaction.commit",
    "GET /v1/transactions/{}/data/{}": "AsyncTransaction.read",
    "PUT /v1/transactions/{}/data/{}": "AsyncTransaction.write",
    "POST /v1/transactions/{}/move": "AsyncTransaction.move",
    "GET /v1/transactions/{}/nodes": "AsyncTransaction.nodes",
    "PUT /v1/transactions/{}/nodes": "AsyncTransaction.put_node",
    "GET /v1/transactions/{}/nodes/{}": "AsyncTransaction.nodes",
    "PUT /v1/transactions/{}/nodes/{}": "AsyncTransaction.put_node",
    "DELETE /v1/transactions/{}/nodes/{}": "AsyncTransaction.delete",
    "GET /v1/transactions/{}/zarr": "Store.list",
    "GET /v1/transactions/{}/zarr/{}": "Store.get",
    "PUT /v1/transactions/{}/zarr/{}": "Store.set",
    "DELETE /v1/transactions/{}/zarr": "Store.clear",
    "DELETE /v1/transactions/{}/zarr/{}": "Store.delete",
    "HEAD /v1/transactions/{}/zarr/{}": "Store.exists",
}


class Recorder:
    """A transport that notes which operations it is asked for."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.seen: set[tuple[str, str]] = set()
        self.url = inner.url

    async def request(self, method, target, *, headers=None, body=None):
        self.seen.add((method, target.partition("?")[0]))
        return await self.inner.request(method, target, headers=headers, body=body)

    def events(self, target, *, headers=None):
        self.seen.add(("GET", target))
        return self.inner.events(target, headers=headers)

    async def close(self):
        await self.inner.close()


def documented() -> set[str]:
    paths = json.loads((ROOT / "openapi" / "quarr.json").read_text())["paths"]
    return {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, methods in paths.items()
        for method in methods
        if method in ("get", "put", "post", "delete", "head", "patch")
    }


def pattern(operation: str) -> tuple[str, re.Pattern[str]]:
    """Method and expression of an operation; its last parameter may hold slashes."""
    method, path = operation.split()
    parts = path.split("{}")
    text = "[^/]+".join(map(re.escape, parts))
    if re.search(r"/(data|nodes|zarr|proof|tlog|reduce|points|nearest|product|explain)/{}$", path):
        text = text.removesuffix("[^/]+") + ".+"
    return method, re.compile(text)


def test_the_table_has_every_operation():
    assert set(OPERATIONS) >= documented()
    for name in OPERATIONS.values():
        kind, method = name.split(".")
        holder = quarr.Store if kind == "Store" else getattr(aio, kind)
        assert callable(getattr(holder, method)), name


async def test_every_operation_is_reachable(backend):
    """Calls every method of the table; the requests that were sent are all operations."""
    transport = Recorder(backend.transport)
    root = quarr.AsyncClient(transport)
    assert await root.live() and await root.ready()
    assert "quarr" in await root.metrics()
    assert (await root.limits()).answer_bytes > 0
    assert (await root.status())["version"]
    assert (await root.whoami())["authenticated"] is False
    key = await root.create_key(f"reader-of-{id(root)}", [{"role": "reader", "repository": "demo"}], expires_in=60)
    rotated = await root.rotate_key(key["key"]["id"], overlap=0)
    assert key["token"] != rotated["token"]
    assert (await root.key(key["key"]["id"]))["name"] == key["key"]["name"]
    assert key["key"]["id"] in [one["id"] for one in await root.keys()]
    await root.revoke_key(key["key"]["id"])
    name = backend.new_repo().name
    await root.delete_repo(name)
    repo = await root.create_repo(name)
    assert name in [one.name for one in await root.repositories()]
    assert (await repo.info()).name == name

    async with repo.transaction(message="first") as tx:
        await tx.put_node("", {"attributes": {"title": "all"}})
        await tx.create_array("x", shape=(4, 6), data_type="f4", dimension_names=["y", "x"])
        await tx.write("x", VALUES)
        assert (await tx.nodes())["zarr_json"]["attributes"] == {"title": "all"}
        assert (await tx.nodes("x"))["shape"] == [4, 6]
        assert (await tx.read("x", np.s_[1, 2:4])).tolist() == [8, 9]
        await tx.create_group("g")
        await tx.move("x", "moved")
        await tx.move("moved", "x")
        await tx.delete("g")
        assert (await tx.info()).state == "open"
        store = tx.store
        assert await store.exists("x/zarr.json")
        document = await store.get("x/zarr.json")
        await store.set("copy/zarr.json", document)
        await store.delete("copy/zarr.json")
        assert "x/zarr.json" in [key async for key in store.list()]
    aborted = await repo.transaction()
    await aborted.store.clear()
    await aborted.abort()

    snapshot = await repo.at()
    assert [node["name"] for node in (await snapshot.nodes())["members"]] == ["x"]
    assert (await snapshot.nodes("x"))["kind"] == "array"
    np.testing.assert_array_equal(await snapshot.read("x"), VALUES)
    assert await snapshot.reduce("x", "max") == 23
    assert (await snapshot.points("x", {"y": [0, 1], "x": [0, 1]})).tolist() == [0, 7]
    assert (await snapshot.product("x", "x", other_slice=np.s_[0])).tolist() == [55, 145, 235, 325]
    assert (await snapshot.nearest("x", VALUES[1], 1, metric="l2"))[0] == [1]
    assert (await snapshot.explain("x", "max"))["chunks_in_statistics"] == 1
    assert (await snapshot.prove("x")).check().commit == snapshot.commit
    with pytest.raises(quarr.NotFoundError, match="not published"):
        await snapshot.receipt()
    with pytest.raises(quarr.NotFoundError, match="not published"):
        await repo.tlog("checkpoint")
    assert [key async for key in (await repo.store()).list()]

    await repo.create_branch("dev")
    await repo.create_tag("v1")
    assert [one.name for one in await repo.branches()] == ["dev", "main"]
    assert [one.name for one in await repo.tags()] == ["v1"]
    await repo.put_node("y", {"shape": [3], "data_type": "int16"}, branch="dev", exist_ok=False)
    made = await repo.write("y", [1, 2, 3], branch="dev")
    diff = await repo.diff("main", "dev")
    assert [(node.path, node.change) for node in diff.nodes] == [("y", "added")]
    assert (await repo.merge("dev", "main")).branch == "main"
    await repo.revert(made.commit)
    await repo.cherry_pick(made.commit)
    assert (await (await repo.at()).read("y")).tolist() == [1, 2, 3]
    moved = await repo.reset("dev", "v1")
    assert (moved.from_, moved.to) == (made.commit, snapshot.commit)
    await repo.delete("y")
    await repo.delete_branch("dev")
    await repo.delete_tag("v1")
    entries = await repo.log(limit=2)
    assert [entry.sequence for entry in entries] == [0, 1]
    assert json.loads(await repo.log_entry(1))["sequence"] == "1"

    auto = await repo.store(autocommit=True)
    document = await auto.get("x/zarr.json")
    await auto.set("z/zarr.json", document)
    assert await auto.exists("z/zarr.json")
    await auto.delete("z/zarr.json")
    await auto.clear()

    job = await root.start_job("verify", repository=name)
    assert [info.state async for info in job.events()][-1] == "done"
    assert (await job.info()).state == (await job.cancel()).state == "done"
    assert job.id in [one.id for one in await root.jobs()]
    with pytest.raises(quarr.ConflictError):
        await job.resume()
    source = await root.upload(__file__)
    assert source.startswith("upload:")
    await root.delete_upload(source)
    await root.delete_repo(name)

    missed = [
        operation
        for operation in OPERATIONS
        for method, path in [pattern(operation)]
        if not any(m == method and path.fullmatch(p) for m, p in transport.seen)
    ]
    assert not missed


def test_the_synchronous_client_is_the_asynchronous_one():
    """The same methods with the same parameters and defaults, and generated."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate-python-client.py", "--check"], check=False
    )
    assert done.returncode == 0
    for name in client.__all__:
        alone, awaited = getattr(client, name), getattr(aio, f"Async{name}")
        methods = {m for m in vars(awaited) if not m.startswith("_")}
        assert methods <= {m for m in dir(alone) if not m.startswith("_")}
        for method in methods:
            if callable(getattr(awaited, method)):
                mine = inspect.signature(getattr(alone, method)).parameters.values()
                theirs = inspect.signature(getattr(awaited, method)).parameters.values()
                assert [(p.name, p.kind, p.default) for p in mine] == [
                    (p.name, p.kind, p.default) for p in theirs
                ]


def test_every_public_method_is_documented():
    for module in (aio, client):
        for name in module.__all__:
            for method, value in vars(getattr(module, name)).items():
                if not method.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{method}"


@pytest.fixture
def filled(repo) -> quarr.Repository:
    """A repository with `x`, 4 x 6 cells with coordinates."""
    with repo.transaction(message="filled", author="me") as tx:
        tx.create_array("x", shape=(4, 6), data_type="f4", chunks=(2, 3), shards=(4, 3),
                        dimension_names=["lat", "lon"])  # fmt: skip
        tx.write("x", VALUES)
        for name, values in {"lat": [40, 30, 20, 10], "lon": [0, 5, 10, 15, 20, 25]}.items():
            tx.create_array(name, shape=(len(values),), data_type="f8", dimension_names=[name])
            tx.write(name, values)
    return repo


@pytest.mark.parametrize(
    "index",
    [
        ..., 1, -1, np.s_[1:3], np.s_[:, ::2], np.s_[::-1, -2:], np.s_[..., 0], np.s_[2, 5],
        [0, 2], np.s_[[3, 1], 1:4], np.array([True, False, True, False]), np.s_[np.int64(2)],
        np.s_[:, [5, 0]], np.s_[2:2], np.s_[1:100], range(2),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("verify", [False, True])
def test_slices_are_numpys(filled, index, verify):
    found = filled.at(verify=verify).read("x", index)
    wanted = VALUES[list(index) if isinstance(index, range) else index]
    np.testing.assert_array_equal(found, wanted, strict=True)
    assert not found.flags.writeable


def test_lists_select_along_their_own_dimension(filled):
    for verify in (False, True):
        found = filled.at(verify=verify).read("x", np.s_[[0, 3], [1, 2, 5]])
        np.testing.assert_array_equal(found, VALUES[np.ix_([0, 3], [1, 2, 5])])


@pytest.mark.parametrize(
    ("index", "error"),
    [(np.s_[1.5], TypeError), (True, TypeError), (np.s_[0, 0, 0], ValueError), (4, ValueError),
     (np.array([[True] * 6] * 4), IndexError), ("1:x", ValueError), ("a", ValueError)],
    ids=str,
)  # fmt: skip
def test_what_is_no_index_is_refused(filled, index, error):
    with pytest.raises(error):
        filled.at().read("x", index)


def test_labels(filled):
    snapshot = filled.at()
    for labels, expected in [
        ({"lat": 30}, VALUES[1]),
        ({"lat": [10, 30.0]}, VALUES[[3, 1]]),
        ({"lat": slice(35, 15)}, VALUES[1:3]),
        ({"lat": slice(None, 25), "lon": 5}, VALUES[2:, 1]),
        ({"lon": "5/15"}, VALUES[:, 1:4]),
        ({"lat": np.float64(20)}, VALUES[2]),
        ({"lat": np.array([20, 10])}, VALUES[[2, 3]]),
    ]:
        np.testing.assert_array_equal(snapshot.read("x", sel=labels), expected)
    near = snapshot.read("x", sel={"lat": [11, 29]}, method="nearest")
    np.testing.assert_array_equal(near, VALUES[[3, 1]])
    with pytest.raises(quarr.NoAnswerError, match="11"):
        snapshot.read("x", sel={"lat": 11})
    points = snapshot.points("x", labels={"lat": [40, 10], "lon": np.array([5.0, 24])},
                             method="nearest")  # fmt: skip
    assert points.tolist() == [1, 23]
    assert snapshot.points("x", {"lon": np.array([-1])}).shape == (1, 4)


def test_labels_of_texts_and_times(repo):
    with repo.transaction() as tx:
        tx.create_array("v", shape=(3, 2), data_type="i2", dimension_names=["name", "time"])
        tx.write("v", [[1, 2], [3, 4], [5, 6]])
        tx.create_array("name", shape=(3,), data_type=str, dimension_names=["name"])
        tx.write("name", ["a/b", 'say "x"', "c,d"])
        tx.create_array("time", shape=(2,), data_type="M8[s]", dimension_names=["time"])
        tx.write("time", np.array(["2020-01-01", "2020-01-02T03"], "M8[s]"))
    snapshot = repo.at()
    assert snapshot.read("v", sel={"name": ["c,d", 'say "x"', "a/b"]}).tolist() == [
        [5, 6], [3, 4], [1, 2]
    ]  # fmt: skip
    time_of = np.datetime64("2020-01-02T03:00:00")
    assert snapshot.read("v", sel={"time": time_of}).tolist() == [2, 4, 6]
    assert snapshot.points("v", {"name": [0]}, {"time": [time_of]}).tolist() == [2]


TYPES = {
    "bool": np.array([True, False, True]),
    "int8": np.array([-1, 0, 127], "i1"),
    "uint64": np.array([0, 2**64 - 1, 1], "u8"),
    "float16": np.array([1.5, np.nan, -np.inf], "f2"),
    "float64": np.array([1e300, np.nan, -0.0]),
    "complex64": np.array([1 + 2j, np.nan, 0], "c8"),
    "complex128": np.array([1 + 2j, complex(0, np.inf), 0]),
    "datetime64[ns]": np.array(["2020-01-01T00:00:00.000000001", "NaT", "1969-12-31"], "M8[ns]"),
    "timedelta64[D]": np.array([1, "NaT", -3], "m8[D]"),
    "U4": np.array(["ab", "", "üöäß"], "U4"),
    "S3": np.array([b"abc", b"", b"x"], "S3"),
    "V2": np.array([b"ab", b"\0\0", b"x\0"], "V2"),
    "string": np.array(["a", "", "long text ü"], object),
    "variable_length_bytes": np.array([b"\xff\0", b"", b"abc"], object),
}


@pytest.mark.parametrize("data_type", TYPES)
def test_every_type_reads_as_it_was_written(repo, data_type):
    values = TYPES[data_type]
    is_object = values.dtype == object
    with repo.transaction() as tx:
        tx.create_array("x", shape=values.shape, data_type=data_type)
        tx.write("x", values)
        big = values if is_object else values.astype(values.dtype.newbyteorder(">"))
        tx.create_array("big", shape=values.shape, data_type=data_type)
        tx.write("big", big)
    for path in ("x", "big"):
        found = repo.at().read(path)
        assert found.dtype == values.dtype and found.shape == values.shape
        if is_object:
            assert found.tolist() == values.tolist()
        else:
            assert found.tobytes() == values.tobytes()


def test_bfloat16_comes_as_its_bytes(repo):
    with repo.transaction() as tx:
        tx.create_array("x", shape=(3,), data_type="bfloat16")
        tx.write("x", [1.0, 1.00390625, -np.inf])
    found = repo.at().read("x")
    assert found.dtype == "V2"
    # 1 + 2^-8 lies between two of them: the even one.
    assert found.view("<u2").tolist() == [0x3F80, 0x3F80, 0xFF80]


def test_values_are_converted_where_nothing_is_lost(repo):
    with repo.transaction() as tx:
        tx.create_array("x", shape=(2, 2), data_type="f4", fill_value=np.nan)
        assert np.isnan(tx.read("x")).all()
        tx.write("x", np.array([[1.0, 2], [3, 4]]))
        tx.write("x", 7, np.s_[0])
        tx.write("x", float("nan"), np.s_[1, 0])
        np.testing.assert_array_equal(tx.read("x"), np.array([[7, 7], [np.nan, 4]], "f4"))
        tx.create_array("i", shape=(2,), data_type="i2")
        with pytest.raises(TypeError, match="same_kind"):
            tx.write("i", np.array([1.5, 2]))
        with pytest.raises(quarr.BadRequestError, match="shape"):
            tx.write("i", np.array([1, 2, 3], "i2"))
        with pytest.raises(quarr.BadRequestError):
            tx.write("i", [1], np.s_[2:3])
        tx.write("i", np.array([4, 5])[::-1].astype(">i2"))
        assert tx.read("i").tolist() == [5, 4]
        tx.resize("i", (3,))
        assert tx.read("i").tolist() == [5, 4, 0]
        with pytest.raises(quarr.PreconditionError):
            tx.create_array("i", shape=(1,), data_type="i2")


@pytest.mark.parametrize(
    ("data_type", "values", "error"),
    [
        ("int8", [1, 300], OverflowError),
        ("uint8", -1, OverflowError),
        ("int32", [1.5, 2], OverflowError),
        ("int64", [np.nan, 2], OverflowError),
        ("float32", 1e300, OverflowError),
        ("string", [b"hi", b"ho"], TypeError),
        ("variable_length_bytes", ["hi", "ho"], TypeError),
    ],
)
def test_values_that_would_become_others_are_refused(repo, data_type, values, error):
    with repo.transaction() as tx:
        tx.create_array("x", shape=(2,), data_type=data_type)
        with pytest.raises(error):
            tx.write("x", values)


def test_a_quantile_in_a_list_has_its_dimension(filled):
    snapshot = filled.at()
    assert snapshot.reduce("x", "quantile", q=0.5).shape == ()
    for q in ([0.5], [0.25, 0.5]):
        found = snapshot.reduce("x", "quantile", q=q)
        np.testing.assert_allclose(found, np.nanquantile(VALUES, q), rtol=1e-6)
        assert found.shape == (len(q),)


class OldAnswers:
    """A service that answers for an old commit whatever commit is asked for."""

    def __init__(self, transport, asked: str, old: str) -> None:
        self._inner, self._asked, self._old, self.url = transport, asked, old, transport.url

    async def request(self, method, target, **options):
        target = target.replace(self._asked, self._old)
        return await self._inner.request(method, target, **options)


@pytest.mark.parametrize("digits", [64, 12])
def test_another_commit_than_was_named_is_a_lie(filled, backend, digits):
    old = filled.at().commit
    with filled.transaction(message="newer") as tx:
        tx.write("x", VALUES + 1)
    ref = filled.at().commit[:digits]
    liar = OldAnswers(backend.transport, ref, old)
    repo = quarr.Client(liar).repo(filled.name)
    with pytest.raises(quarr.IntegrityError, match="was asked for commit"):
        repo.at(ref)
    with pytest.raises(quarr.IntegrityError, match="was asked for commit"):
        repo.store(ref, verify=True)


def test_results_go_to_others_without_a_copy(filled):
    snapshot = filled.at()
    found = snapshot.read("x", np.s_[:2])
    view = np.from_dlpack(snapshot.read("x", writable=True))
    np.testing.assert_array_equal(view, VALUES)
    assert found.base is not None and not found.flags.owndata
    writable = snapshot.read("x", writable=True)
    writable[0] = 0
    assert writable.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_reductions(filled):
    snapshot = filled.at()
    np.testing.assert_array_equal(snapshot.reduce("x", "mean", over="lat"), VALUES.mean(0))
    np.testing.assert_array_equal(snapshot.reduce("x", "sum", over=1, keepdims=True),
                                  VALUES.sum(1, keepdims=True))  # fmt: skip
    names = ["min", "max", "argmax"]
    found = snapshot.reduce_many("x", names, over=["lat", "lon"], slice=np.s_[1:])
    assert {name: value.item() for name, value in found.items()} == {
        "min": 6, "max": 23, "argmax": 17
    }  # fmt: skip
    assert list(snapshot.reduce_many("x", ["std"])) == ["std"]
    quantiles = snapshot.reduce("x", "quantile", q=[0.25, 0.5], interpolation="lower")
    np.testing.assert_array_equal(quantiles, np.quantile(VALUES, [0.25, 0.5], method="lower"))
    counts = snapshot.reduce("x", "histogram", bins=3, range=(0, 24))
    assert counts.tolist() == [8, 8, 8]
    coarse = snapshot.reduce("x", "max", coarsen={"lat": 2, "lon": 3})
    np.testing.assert_array_equal(coarse, VALUES.reshape(2, 2, 2, 3).max((1, 3)))
    assert snapshot.reduce("x", "count", where="x>20 and x<22") == 1
    assert snapshot.reduce("x", "sum", dtype="float64").dtype == np.float64
    assert "error-bound" in snapshot.reduce_as("x", "median", "npy", approximate=True).headers
    with pytest.raises(TypeError, match="no parameter of a reduction: axis"):
        snapshot.reduce("x", "mean", axis=0)
    with pytest.raises(quarr.BadRequestError, match="reduce"):
        snapshot.reduce("x", "average")


def test_other_formats(filled):
    snapshot = filled.at()
    netcdf = snapshot.read_as("x", "netcdf", np.s_[:2])
    assert bytes(netcdf.body[:3]) == b"CDF"
    assert bytes(snapshot.read_as("x", "png", range=(0, 30), colormap="gray").body[1:4]) == b"PNG"
    rows = bytes(snapshot.reduce_as("x", "mean", "csv", over="lat").body).decode().splitlines()
    assert len(rows) == 7


def test_expectations(filled):
    snapshot = filled.at()
    assert snapshot.read("x", expected_shape=(4, 6)).shape == (4, 6)
    for verify in (False, True):
        with pytest.raises(quarr.PreconditionError):
            filled.at(verify=verify).read("x", 0, expected_shape=(4, 6))
        with pytest.raises(quarr.BadRequestError):
            filled.at(verify=verify).read("x", np.s_[:9], strict=True)


def test_errors_are_typed_and_pickled(filled):
    with pytest.raises(quarr.NotFoundError, match="did you mean") as caught:
        filled.at("mian")
    assert caught.value.status == 404 and caught.value.suggestions == ("main",)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is quarr.NotFoundError and str(copy) == str(caught.value)
    assert copy.suggestions == ("main",)
    with pytest.raises(quarr.ConflictError):
        filled.create_branch("main")
    with pytest.raises(quarr.NotFoundError):
        filled.at().read("nothing")
    with pytest.raises(ValueError, match="group"):
        filled.write("", 1)


def test_conflicts_are_listed(filled):
    first, second = filled.transaction(), filled.transaction()
    for number, tx in enumerate((first, second)):
        tx.write("x", 100 + number, np.s_[0, 0])
    first.commit("first")
    with pytest.raises(quarr.ConflictError) as caught:
        second.commit("second")
    [conflict] = caught.value.conflicts
    assert (conflict.path.strip("/"), conflict.kind) == ("x", "data")
    assert pickle.loads(pickle.dumps(caught.value)).conflicts == (conflict,)
    made = second.commit("second", on_conflict={"x": "theirs"})
    assert filled.at().commit == made.commit


def test_a_transaction_commits_or_aborts(filled):
    head = filled.at().commit
    with pytest.raises(RuntimeError, match="mine"), filled.transaction() as tx:
        tx.write("x", 1)
        raise RuntimeError("mine")
    assert filled.at().commit == head
    assert filled.join(tx.id).info().state == "aborted"
    with filled.transaction("main", message="m", author="a", properties={"n": 1}) as tx:
        tx.write("x", 1, np.s_[0])
    info = filled.at().info
    assert (info.message, info.author, info.properties) == ("m", "a", {"n": 1})
    assert info.parents == [head] and filled.join(tx.id).info().commit == info.commit
    with filled.transaction() as tx:
        tx.write("x", 2, np.s_[0])
        tx.abort()
    assert filled.at().commit == info.commit
    with pytest.raises(quarr.BadRequestError, match="is not the id of a transaction"):
        filled.join(filled.name + ":00")


def test_a_commit_is_one_however_often_it_is_asked_for(filled):
    tx = filled.transaction()
    tx.write("x", 5, np.s_[0])
    made = tx.commit("once")
    assert tx.commit("once") == made
    assert [entry for entry in filled.log() if entry.operations[0]["message"] == "once"][1:] == []


def test_serializable_reads_are_guarded(filled):
    tx = filled.transaction(isolation="serializable")
    tx.read("x", np.s_[0, 0])
    tx.create_array("y", shape=(1,), data_type="i1")
    filled.write("x", 9, np.s_[0, 0])
    with pytest.raises(quarr.ConflictError) as caught:
        tx.commit()
    assert [conflict.kind for conflict in caught.value.conflicts] == ["read"]


def test_writes_may_expect_a_commit(filled):
    head = filled.at().commit
    made = filled.write("x", 1, np.s_[0], expected=head)
    with pytest.raises(quarr.PreconditionError):
        filled.write("x", 2, np.s_[0], expected=head)
    with pytest.raises(quarr.PreconditionError):
        filled.reset("main", head, expected=head)
    assert filled.reset("main", head, expected=made.commit).to == head


def test_the_log_is_followed(filled):
    seen = []
    tail = filled.tail(after=0, poll_s=0.1)
    seen.append(next(tail))
    filled.write("x", 3, np.s_[0])
    seen.append(next(tail))
    tail.close()
    assert [entry.sequence for entry in seen] == [1, 2]
    assert [entry.sequence for entry in filled.log(after=1)] == [2]


def test_jobs_end(backend, filled):
    told = []
    job = backend.client().start_job("verify", repository=filled.name, deep=True)
    info = job.wait(progress=told.append, timeout_s=60)
    assert info.state == "done" and info.report["damage"] == [] and info.fraction == 1
    assert told[-1] == info
    with pytest.raises(quarr.NotFoundError):
        backend.client().job("00000000-0000-0000-0000-000000000000").wait()


def test_proofs_are_checked_offline(filled, tmp_path):
    snapshot = filled.at()
    proof = snapshot.prove("x", np.s_[0:2, 0:2])
    proven = proof.check()
    assert (proven.commit, proven.start, proven.shape) == (snapshot.commit, (0, 0), (2, 2))
    proof.save(tmp_path / "proof.json")
    assert (tmp_path / "proof.json").read_bytes() == proof.data
    assert snapshot.prove("x", chunk=(1, 1)).check().start == (2, 3)
    statistics = snapshot.prove("x", reduce="max").check().statistics
    assert statistics.reduce == "max" and statistics.stored.moments[1] == 23
    forged = quarr.Proof(proof.data.replace(b'"path":"x"', b'"path":"y"'))
    with pytest.raises(quarr.IntegrityError):
        forged.check()
    with pytest.raises(quarr.IntegrityError, match="no signed checkpoint"):
        proof.check(key="PUBLIC+1+a")
    with pytest.raises(quarr.IntegrityError, match="is one of"):
        quarr.Proof(proof.data, commit="00" * 32).check()


def test_it_works_inside_a_running_loop_and_from_threads(filled):
    async def notebook():
        return filled.at().read("x", 0).tolist()

    assert asyncio.run(notebook()) == VALUES[0].tolist()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(filled.at().read("x").sum()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [VALUES.sum()] * 8


def test_many_loops_one_after_the_other(filled):
    async def read():
        snapshot = await filled.asynchronous.at()
        return await asyncio.gather(*(snapshot.read("x", n) for n in range(4)))

    for _ in range(3):
        np.testing.assert_array_equal(np.stack(asyncio.run(read())), VALUES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_it_survives_a_fork(filled):
    snapshot = filled.at()
    total = snapshot.reduce("x", "sum")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [
        context.Process(target=lambda: queue.put(float(snapshot.reduce("x", "sum"))))
        for _ in range(2)
    ]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [float(total)] * 2
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert snapshot.reduce("x", "sum") == total


def test_everything_is_pickled(filled, backend):
    snapshot = pickle.loads(pickle.dumps(filled.at()))
    np.testing.assert_array_equal(snapshot.read("x"), VALUES)
    tx = filled.transaction()
    worker = pickle.loads(pickle.dumps(tx))
    with worker:
        worker.write("x", 4, np.s_[0])
    # Whoever opened it commits.
    assert tx.info().state == "open"
    assert tx.read("x", np.s_[0, 0]) == 4
    tx.abort()
    again = pickle.loads(pickle.dumps(filled))
    assert again.name == filled.name and again.transport == backend.transport


def test_names_are_escaped(repo):
    with repo.transaction() as tx:
        tx.create_array("a b/ü#?%/x&y", shape=(2,), data_type="i2")
        tx.write("a b/ü#?%/x&y", [1, 2])
    assert repo.at().read("/a b/ü#?%/x&y").tolist() == [1, 2]
    assert repo.at("main~0").read("a b/ü#?%/x&y", 1) == 2


def test_a_stopped_service_is_a_transport_error(monkeypatch):
    monkeypatch.setattr("quarr._transport.ATTEMPTS", 2)
    with pytest.raises(quarr.TransportError, match="127.0.0.1:9/v1/limits"):
        quarr.connect("http://127.0.0.1:9").limits()
    with pytest.raises(ValueError, match="is no URL"):
        quarr.connect("127.0.0.1:8686")


def test_a_service_that_restarts_is_waited_for(tmp_path):
    first = service.ServerProcess(tmp_path)
    repo = quarr.connect(first.server.url).create_repo("waits")
    first.stop()
    port = int(first.server.url.rpartition(":")[2])
    restarted: list[service.ServerProcess] = []
    later = threading.Timer(
        1.0, lambda: restarted.append(service.ServerProcess(tmp_path, port=port))
    )
    later.start()
    try:
        # Opening a transaction twice makes two; none was opened by what nobody got.
        tx = repo.transaction()
        tx.create_group("g")
        assert tx.commit("later").commit == repo.at().commit
    finally:
        later.join()
        for process in restarted:
            process.stop()


def test_only_requests_that_may_be_repeated_are():
    assert may_repeat("GET", "/v1/repos", {}) and may_repeat("PUT", "/x", {})
    assert may_repeat("POST", "/v1/repos/a/refs/main/points/x", {})
    assert may_repeat("POST", "/v1/repos/a/refs/main/nearest/x", {})
    assert not may_repeat("POST", "/v1/repos/a/transactions", {})
    assert may_repeat("POST", "/v1/transactions/a/commit", {"idempotency-key": "k"})


def test_mypy_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "quarr"],
        cwd=ROOT / "python", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
