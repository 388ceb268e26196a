"""`quarr.Store` under zarr-python, xarray and dask: many processes, failures, and lies."""

from __future__ import annotations

import base64
import json
import multiprocessing
import pickle
import re
import struct
import time

import dask
import google_crc32c
import numpy as np
import pytest
import requests
import xarray as xr
import zarr

import quarr
import service
from proxy import Answer, proxy
from quarr import proof
from quarr.store import Store

ROWS = 12
VALUES = np.arange(ROWS * 8, dtype="f4").reshape(ROWS, 8) + 1


@pytest.fixture
def filled(repo) -> quarr.Repository:
    """A repository with `g/x` in shards of 2 x 2 inner chunks, `g/plain` without shards, and
    `g/holes`, of which little was written."""
    with repo.transaction(message="filled") as tx:
        tx.create_group("g", attributes={"title": "a group"})
        fill(tx)
    return repo


def fill(tx: quarr.Transaction) -> None:
    tx.create_array("g/x", shape=VALUES.shape, data_type="f4", chunks=(3, 2), shards=(6, 4),
                    fill_value=np.nan, dimension_names=["row", "column"])  # fmt: skip
    tx.write("g/x", VALUES)
    plain = zarr.create_array(tx.store, name="g/plain", shape=VALUES.shape, dtype="f4",
                              chunks=(5, 8), fill_value=np.nan,
                              dimension_names=["row", "column"])  # fmt: skip
    plain[...] = VALUES
    tx.create_array("g/holes", shape=VALUES.shape, data_type="f4", chunks=(3, 2), shards=(6, 4),
                    fill_value=np.nan, dimension_names=["row", "column"])  # fmt: skip
    tx.write("g/holes", VALUES[:3, :2], np.s_[:3, :2])
    tx.write("g/holes", VALUES[7:8, 7:8], np.s_[7:8, 7:8])


def holes() -> np.ndarray:
    wanted = np.full_like(VALUES, np.nan)
    wanted[:3, :2] = VALUES[:3, :2]
    wanted[7, 7] = VALUES[7, 7]
    return wanted


def test_a_new_repository_takes_every_mode(backend):
    dataset = xr.Dataset({"a": ("x", np.arange(3.0))}, attrs={"title": "t"})
    for mode in ("w-", "w", "a"):
        repo = backend.new_repo()
        with repo.transaction() as tx:
            dataset.to_zarr(tx.store, mode=mode)
        xr.testing.assert_identical(xr.open_zarr(repo.store()).load(), dataset)
    with pytest.raises(FileExistsError, match="already contains data"), repo.transaction() as tx:
        dataset.to_zarr(tx.store, mode="w-")
    with repo.transaction() as tx:
        (dataset + 1).to_zarr(tx.store, mode="w")
    assert xr.open_zarr(repo.store())["a"].values.tolist() == [1, 2, 3]
    empty = backend.new_repo()
    assert list(zarr.open_group(empty.store(), mode="r").members()) == []


def test_a_store_is_pinned_unless_it_follows(filled):
    pinned, following = filled.store(), filled.store(follow=True)
    lazy = Store(filled.transport, filled.name)
    before = filled.at().commit
    filled.write("g/x", 0, np.s_[0, 0])
    assert zarr.open_array(pinned, path="g/x")[0, 0] == 1
    assert zarr.open_array(following, path="g/x")[0, 0] == 0
    # This one is pinned where it is first used.
    assert lazy.commit is None
    assert zarr.open_array(lazy, path="g/x", mode="r")[0, 0] == 0
    filled.write("g/x", 2, np.s_[0, 0])
    assert zarr.open_array(lazy, path="g/x", mode="r")[0, 0] == 0
    assert zarr.open_array(filled.store(before), path="g/x")[0, 0] == 1
    assert pinned.commit == before and following.commit is None


def test_equality_and_tokens(filled):
    first, again = filled.store(), filled.store()
    assert first == again == Store(filled.transport, filled.name, "main")
    assert dask.base.tokenize(first) == dask.base.tokenize(again)
    filled.write("g/x", 0, np.s_[0, 0])
    assert filled.store() != first
    tx = filled.transaction()
    assert tx.store == tx.store != first
    assert tx.store.with_read_only(True) != tx.store
    tx.abort()


def test_only_transactions_and_autocommit_write(filled):
    store = filled.store()
    assert store.read_only and not store.supports_writes and not store.supports_deletes
    with pytest.raises(ValueError, match="open a transaction"):
        store.with_read_only(False)
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(store, path="g/x", mode="r+")[0] = 1
    with pytest.raises(ValueError, match="only one commit"):
        filled.store(verify=True, follow=True)
    with pytest.raises(quarr.NotFoundError):
        filled.store("nothing")


def test_autocommit_is_a_commit_for_what_is_written_at_once(filled):
    store = filled.store(autocommit=True)
    before = len(filled.log())
    zarr.open_array(store, path="g/plain", mode="r+")[:, :] = 5
    assert (filled.at().read("g/plain") == 5).all()
    # Three chunks that are written at the same time.
    assert before < len(filled.log()) <= before + 3
    assert zarr.open_array(store, path="g/plain", mode="r")[0, 0] == 5


def test_group_documents_come_consolidated_only_to_readers(filled):
    reading = zarr.open_group(filled.store(), mode="r")
    assert reading.metadata.consolidated_metadata is not None
    with filled.transaction() as tx:
        group = zarr.open_group(tx.store, mode="a")
        assert group.metadata.consolidated_metadata is None
        group.create_array("new", shape=(2,), dtype="i2")
        assert "new" in group


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_dask_reads_and_writes(filled, scheduler):
    with dask.config.set(scheduler=scheduler, num_workers=2):
        lazy = xr.open_zarr(filled.store(), group="g", chunks={})
        assert lazy["x"].mean().values == VALUES.mean()
        with filled.transaction() as tx:
            twice = lazy[["x"]].chunk(row=6, column=4) * 2
            twice.drop_encoding().to_zarr(tx.store, group="twice")
    np.testing.assert_array_equal(filled.at().read("twice/x"), VALUES * 2)


# Many processes


def write_part(tx: quarr.Transaction, part: int, width: int) -> None:
    """Every second stripe of `width` columns, twice: what counts is the second time. The second part
    appends."""
    for value in (-1.0, 1000.0 * part):
        for column in range(part * width, 8, 2 * width):
            values = np.broadcast_to(value + np.arange(ROWS, dtype="f4")[:, None], (ROWS, width))
            tx.write("g/x", values, np.s_[:ROWS, column : column + width])
    if part == 1:
        tx.resize("g/x", (ROWS + 5, 8))
        tx.write("g/x", np.full((5, 8), 7, "f4"), np.s_[ROWS:])


def test_two_processes_share_one_transaction(backend, filled):
    # A service puts together what two write into one inner chunk. Without one they share shards.
    width = {"http": 1, "direct": 2}[backend.name]
    before = len(filled.log())
    context = multiprocessing.get_context("spawn")
    with filled.transaction(message="shared") as tx:
        parts = [(tx, part, width) for part in range(2)]
        workers = [context.Process(target=write_part, args=part) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
            assert worker.exitcode == 0
    found = filled.at().read("g/x")
    wanted = np.empty((ROWS + 5, 8), "f4")
    is_second = np.arange(8) // width % 2 == 1
    wanted[:ROWS] = np.arange(ROWS)[:, None] + 1000 * is_second
    wanted[ROWS:] = 7
    np.testing.assert_array_equal(found, wanted)
    assert len(filled.log()) == before + 1
    verified = filled.at(verify=True).read("g/x")
    np.testing.assert_array_equal(verified, wanted)


APPENDS = 4


def append_rows(repo: quarr.Repository, worker: int) -> None:
    """Appends blocks of three rows, each in a transaction of its own, and tries again."""
    for block in range(APPENDS):
        rows = np.full((3, 2), worker * 100 + block, "i4")
        for attempt in range(200):
            tx = repo.transaction(message=f"rows {worker} {block}")
            length = tx.nodes("log")["shape"][0]
            tx.resize("log", (length + 3, 2))
            tx.write("log", rows, np.s_[length:])
            try:
                tx.commit()
                break
            except quarr.ConflictError:
                time.sleep(0.01 * (attempt % 10))
        else:
            raise AssertionError("never committed")


def test_processes_that_append_lose_and_tear_nothing(repo):
    with repo.transaction() as tx:
        tx.create_array("log", shape=(0, 2), data_type="i4", chunks=(2, 2), shards=(4, 2))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_rows, args=(repo, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    found = repo.at().read("log")
    assert found.shape == (3 * APPENDS * 3, 2)
    blocks = found.reshape(-1, 3 * 2)
    assert (blocks == blocks[:, :1]).all(), "a torn block"
    assert sorted(blocks[:, 0]) == [n * 100 + b for n in range(3) for b in range(APPENDS)]
    assert len(repo.log()) == 2 + 3 * APPENDS


# Failures: an exception or the values, never anything else


@pytest.fixture
def served(client_server) -> quarr.Repository:
    """As `filled`, over HTTP."""
    repo = quarr.connect(client_server.url).create_repo(f"p{time.monotonic_ns()}")
    with repo.transaction(message="filled") as tx:
        tx.create_group("g", attributes={"title": "a group"})
        fill(tx)
    return repo


def fetch(url: str) -> bytes:
    return requests.get(url, timeout=30).content


def is_chunk(target: str) -> bool:
    return "/zarr/" in target and "/c/" in target


def broken(status: int):
    return lambda answer, nth: Answer(status, {"content-type": "text/plain"}, b"broken")


FAULTS = {
    "500": broken(500),
    "502": broken(502),
    "403": broken(403),
    "closed": lambda answer, nth: None,
    "cut short": lambda answer, nth: Answer(
        answer.status, answer.headers, answer.body, len(answer.body) // 2
    ),
    "503 for ever": broken(503),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", ["g/x", "g/plain"])
def test_failures_are_exceptions(served, monkeypatch, fault, path):
    monkeypatch.setattr("quarr._transport.ATTEMPTS", 2)

    def change(target, answer, nth):
        return FAULTS[fault](answer, nth) if is_chunk(target) else answer

    with proxy(served.transport.url, change) as between:
        store = quarr.connect(between.url).repo(served.name).store()
        array = zarr.open_array(store, path=path, mode="r")
        for index in (..., np.s_[0, 0], np.s_[:, 3]):
            # zarr-python may put it into a group of exceptions.
            with pytest.raises((quarr.Error, ExceptionGroup)) as caught:
                array[index]
            error = caught.value
            while isinstance(error, ExceptionGroup):
                [error] = error.exceptions
            assert isinstance(error, quarr.Error) and not isinstance(error, quarr.NotFoundError)


@pytest.mark.parametrize("fault", ["closed", "cut short", "503"])
def test_passing_failures_are_not_noticed(served, fault):
    faults = {**FAULTS, "503": broken(503)}

    def change(target, answer, nth):
        return faults[fault](answer, nth) if is_chunk(target) and nth == 0 else answer

    with proxy(served.transport.url, change) as between:
        store = quarr.connect(between.url).repo(served.name).store()
        for path in ("g/x", "g/plain"):
            np.testing.assert_array_equal(zarr.open_array(store, path=path)[...], VALUES)
        assert len(between.requests) > len(set(between.requests))


def test_a_commit_whose_answer_is_lost_is_one_commit(served):
    def change(target, answer, nth):
        return None if target.endswith("/commit") and nth == 0 else answer

    before = len(served.log())
    with proxy(served.transport.url, change) as between:
        repo = quarr.connect(between.url).repo(served.name)
        with repo.transaction(message="once") as tx:
            tx.write("g/x", 5, np.s_[0])
        assert sum(line.endswith("/commit") for line in between.requests) == 2
    assert len(served.log()) == before + 1


def test_jobs_and_the_log_are_followed_over_broken_connections(served):
    def change(target, answer, nth):
        return None if target.endswith("/events") and nth == 0 else answer

    with proxy(served.transport.url, change) as between, quarr.connect(between.url) as client:
        job = client.start_job("verify", repository=served.name, idempotency_key=served.name)
        again = client.start_job("verify", repository=served.name, idempotency_key=served.name)
        assert again.id == job.id
        assert job.wait(timeout_s=60).state == "done"

    def cut(target, answer, nth):
        return None if "/log?" in target and nth == 0 else answer

    with proxy(served.transport.url, cut) as between, quarr.connect(between.url) as client:
        tail = client.repo(served.name).tail(after=0, poll_s=0.1)
        assert next(tail).sequence == 1
        served.write("g/x", 3, np.s_[0])
        assert next(tail).sequence == 2
        tail.close()


def test_a_server_without_ranges_is_understood(served):
    """Proxies may answer 200 with all of it."""

    def change(target, answer, nth):
        if is_chunk(target) and answer.status == 206:
            return Answer(200, {}, fetch(served.transport.url + target))
        return answer

    with proxy(served.transport.url, change) as between:
        store = quarr.connect(between.url).repo(served.name).store()
        np.testing.assert_array_equal(zarr.open_array(store, path="g/x")[0], VALUES[0])


# Lies: verified readers notice


def verified_read(url: str, name: str, path: str, index=...) -> np.ndarray:
    return quarr.connect(url).repo(name).at(verify=True).read(path, index)


@pytest.mark.parametrize(
    ("path", "wanted"), [("g/x", VALUES), ("g/plain", VALUES), ("g/holes", holes())]
)
def test_verified_values_are_the_values(filled, path, wanted):
    snapshot = filled.at(verify=True)
    for index in (..., np.s_[0, 0], np.s_[2:9, 3:], np.s_[::-2, [7, 0]], np.s_[7]):
        found = snapshot.read(path, index)
        np.testing.assert_array_equal(found, filled.at().read(path, index))
    store = filled.store(verify=True)
    np.testing.assert_array_equal(xr.open_zarr(store, group="g")[path[2:]].values, wanted)
    assert not zarr.open_group(store, mode="r").metadata.consolidated_metadata
    copy = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(zarr.open_array(copy, path=path)[...], wanted)


def change_proof(edit):
    """A lie in proofs: whatever is edited, `self` is made to fit."""

    def change(target, answer, nth):
        if "/proof/" not in target:
            return answer
        document = json.loads(answer.body)
        edit(document)
        document.pop("self")
        digest = proof.digest("proof", proof.canonical(document))
        document["self"] = digest.hex()
        return Answer(answer.status, answer.headers, proof.canonical(document))

    return change


def flip(document) -> None:
    for chunk in document["chunks"]:
        if isinstance(chunk, str):
            data = bytearray(base64.b64decode(chunk))
            data[0] ^= 1
            document["chunks"] = [base64.b64encode(data).decode()]
            return
        for leaf in chunk["leaves"]:
            if leaf[1]:
                data = bytearray(base64.b64decode(leaf[1]))
                data[0] ^= 1
                leaf[1] = base64.b64encode(data).decode()
                return


def change_index(edit):
    """A lie in the indexes of shards, with the right checksum."""

    def change(target, answer, nth):
        count = 4
        if not is_chunk(target) or answer.status != 206 or len(answer.body) != 16 * count + 4:
            return answer
        entries = [struct.unpack_from("<QQ", answer.body, 16 * n) for n in range(count)]
        edit(entries)
        data = b"".join(struct.pack("<QQ", *entry) for entry in entries)
        body = data + struct.pack("<I", google_crc32c.value(data))
        return Answer(206, answer.headers, body)

    return change


def swap(entries) -> None:
    entries[0], entries[1] = entries[1], entries[0]


def hide(entries) -> None:
    entries[0] = (2**64 - 1, 2**64 - 1)


def deny(target, answer, nth):
    return broken(404)(answer, nth) if is_chunk(target) else answer


LIES = {
    "other bytes": ("g/x", change_proof(flip)),
    "other bytes of a plain chunk": ("g/plain", change_proof(flip)),
    "another path": ("g/x", change_proof(lambda document: document.update(path="g/holes"))),
    "another fill value": (
        "g/holes",
        change_proof(lambda document: document["metadata"].update(fill_value=0.0)),
    ),
    "a hidden inner chunk": ("g/x", change_index(hide)),
    "hidden chunks": ("g/x", deny),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_noticed(served, lie):
    path, change = LIES[lie]
    with proxy(served.transport.url, change) as between:
        with pytest.raises(quarr.IntegrityError):
            verified_read(between.url, served.name, path)


def test_an_index_says_no_more_than_where_bytes_are(served):
    """With its entries swapped a shard is another file with the same values: bytes are put where
    its index says, and are those that are proven."""
    for index in (..., np.s_[0, 0]):
        with proxy(served.transport.url, change_index(swap)) as between:
            found = verified_read(between.url, served.name, "g/x", index)
            np.testing.assert_array_equal(found, VALUES[index])
            # Whole shards are read at once, with the index they have.
            store = quarr.connect(between.url).repo(served.name).store()
            deceived = zarr.open_array(store, path="g/x")[index]
            assert (deceived != VALUES[index]).any() == (index is not ...)


def test_proofs_of_something_else_are_noticed(served):
    """A proof that holds, but of another commit, array or region."""
    old = served.at().commit
    served.write("g/x", 5, np.s_[0, 0])
    new = served.at().commit

    def older(target, answer, nth):
        if "/proof/" not in target:
            return answer
        url = served.transport.url + target.replace(new, old)
        return Answer(200, {}, fetch(url))

    def elsewhere(target, answer, nth):
        if "/proof/" not in target or "slice" not in target:
            return answer
        another = re.sub("slice=.*", "chunk=3,3", target)
        return Answer(200, {}, fetch(served.transport.url + another))

    for change in (older, elsewhere):
        with proxy(served.transport.url, change) as between:
            with pytest.raises(quarr.IntegrityError, match="is one of"):
                verified_read(between.url, served.name, "g/x", np.s_[0, 0])


def test_lies_outside_of_proofs_have_no_effect(served):
    """Documents in the Zarr view with another fill value or scale: verified readers do not use
    them; others are deceived, so the lie is one."""

    def change(target, answer, nth):
        if target.endswith("zarr.json"):
            body = answer.body.replace(b'"attributes":{}', b'"attributes":{"add_offset":9.0}')
            return Answer(200, {}, body.replace(b'"fill_value":"NaN"', b'"fill_value":1.0'))
        return answer

    with proxy(served.transport.url, change) as between:
        repo = quarr.connect(between.url).repo(served.name)
        store = repo.store(verify=True)
        found = xr.open_zarr(store, group="g")["holes"].values
        np.testing.assert_array_equal(found, holes())
        deceived = xr.open_zarr(repo.store(), group="g")["holes"].values
        assert deceived[0, 0] == VALUES[0, 0] + 9 and not np.isnan(deceived[-1]).any()


def test_proofs_are_asked_for_once(served):
    with proxy(served.transport.url, lambda target, answer, nth: answer) as between:
        store = quarr.connect(between.url).repo(served.name).store(verify=True)
        array = zarr.open_array(store, path="g/x", mode="r")
        array[...]
        asked = len(between.requests)
        array[...]
        array[3, 3]
        assert len(between.requests) == asked


def test_packed_values_are_decoded_as_the_service_does(repo):
    with repo.transaction() as tx:
        attributes = {"scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -1}
        tx.create_array("p", shape=(4,), data_type="i2", attributes=attributes)
        tx.write("p", [0, 1, -1, 7])
        tx.create_array("v", shape=(1,), data_type="i2", attributes={"valid_min": 0})
    for decode in ("cf", "raw"):
        found = repo.at(verify=True).read("p", decode=decode)
        np.testing.assert_array_equal(found, repo.at().read("p", decode=decode), strict=True)
    with pytest.raises(ValueError, match="raw"):
        repo.at(verify=True).read("v")
    assert repo.at(verify=True).read("v", decode="raw") == [0]
    for refused in (
        lambda s: s.reduce("p"), lambda s: s.points("p", {"x": [0]}),
        lambda s: s.product("p", "p"), lambda s: s.nearest("p", [1.0]),
        lambda s: s.read("p", sel={"x": 1}), lambda s: s.read_as("p", "csv"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="verif"):
            refused(repo.at(verify=True))


def test_keys_are_checked(tmp_path):
    store = tmp_path / "store"
    service.run("repo", "create", "signed", "--store", store)
    key = service.run("key", "create", "signed", "--store", store).stdout.strip().splitlines()[-1]
    process = service.ServerProcess(store)
    try:
        repo = quarr.connect(process.server.url).repo("signed")
        with repo.transaction() as tx:
            tx.create_array("x", shape=(3,), data_type="i4")
            tx.write("x", [1, 2, 3])
        deadline = time.monotonic() + 30
        while True:
            # The log is signed soon after the commit.
            try:
                found = repo.at(key=key).read("x")
                break
            except quarr.IntegrityError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert found.tolist() == [1, 2, 3]
        assert repo.info().log_keys == [key]
        assert repo.at().prove("x").check(key).commit == repo.at().commit
        assert repo.at().receipt().startswith("c2sp.org/tlog-proof@v1")
        assert repo.tlog("checkpoint").decode().splitlines()[0] == key.partition("+")[0]
        service.run("repo", "create", "other", "--store", store)
        other = service.run("key", "create", "other", "--store", store).stdout.strip()
        with pytest.raises(quarr.IntegrityError):
            repo.at(key=other.splitlines()[-1]).read("x")
    finally:
        process.stop()
