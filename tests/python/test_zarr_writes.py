"""Unmodified Zarr clients write over plain HTTP: to a branch, and into a transaction."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import obstore
import pytest
import requests
import tensorstore
import xarray as xr
import zarr
from obstore.store import HTTPStore
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.storage import FsspecStore, MemoryStore, ObjectStore

import clients

pytestmark = pytest.mark.filterwarnings("ignore:.*V3 specification")

NUMBERS = itertools.count()
VALUES = np.arange(7 * 10, dtype="float32").reshape(7, 10)


@pytest.fixture
def branch(server) -> str:
    """The Zarr view of the branch of a new repository."""
    name = f"writes-{next(NUMBERS)}"
    requests.put(f"{server.url}/v1/repos/{name}", timeout=60).raise_for_status()
    return server.branch_url(name)


@pytest.fixture
def staged(branch) -> Staged:
    """A transaction on such a branch."""
    return Staged(branch)


class Staged:
    """A transaction, as a Zarr store."""

    def __init__(self, branch: str) -> None:
        self.branch = branch
        self.server, rest = branch.split("/v1/")
        url = f"{self.server}/v1/{rest.split('/refs/')[0]}/transactions"
        opened = requests.post(url, timeout=60)
        opened.raise_for_status()
        self.transaction = f"{self.server}/v1/transactions/{opened.json()['id']}"
        self.url = f"{self.transaction}/zarr"

    @property
    def store(self) -> FsspecStore:
        return writable(self.url)

    def put(self, key: str, body: bytes) -> requests.Response:
        return requests.put(f"{self.url}/{key}", data=body, timeout=60)

    def commit(self) -> str:
        requests.post(f"{self.transaction}/commit", timeout=60).raise_for_status()
        return self.branch


def writable(url: str) -> FsspecStore:
    return FsspecStore.from_url(url, read_only=False)


def array_store(url: str) -> ObjectStore:
    """One array. Below a group, zarr-python asks the store to create the group only if it is not
    there, which HTTP stores of obstore refuse to do."""
    return ObjectStore(HTTPStore.from_url(url, client_options={"allow_http": True}))


def commits(branch: str) -> int:
    log = requests.get(f"{branch.split('/refs/')[0]}/log?limit=1000", timeout=60).json()
    return sum(len(entry["operations"]) for entry in log["entries"])


def keys(url: str, **parameters) -> list[str]:
    found, after = [], {}
    while after is not None:
        query = {"list": "all", **parameters, **after}
        page = requests.get(url, params=query, timeout=60)
        page.raise_for_status()
        found += page.json()["keys"]
        after = {"after": page.json()["next"]} if page.json()["next"] else None
    return found


def objects(**array) -> dict[str, bytes]:
    """What zarr-python stores of an array of its own making, by key."""
    store, values = MemoryStore(), array.pop("values")
    zarr.create_array(store, **array)[...] = values
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def assert_same(found, wanted, message: str = "") -> None:
    np.testing.assert_array_equal(np.asarray(found), wanted, err_msg=message, strict=True)


# Clients that write


def test_zarr_python_writes_to_a_branch_over_fsspec(branch):
    store = writable(branch)
    array = zarr.create_array(
        store, name="g/a", shape=VALUES.shape, chunks=(3, 4), dtype="float32", fill_value=0
    )
    array[:] = VALUES
    array.attrs["units"] = "K"
    before = commits(branch)
    array[0, 0] = 5
    assert commits(branch) == before + 1
    wanted = VALUES.copy()
    wanted[0, 0] = 5
    for name, read in clients.CLIENTS.items():
        assert_same(read(branch, "g/a", ...), wanted, name)
    group = zarr.open_group(branch, mode="r")
    assert dict(group["g/a"].attrs) == {"units": "K"}
    array.resize((9, 10))
    array.append(np.ones((1, 10), "float32"))
    wanted = np.concatenate([wanted, np.zeros((2, 10), "float32"), np.ones((1, 10), "float32")])
    assert_same(zarr.open_array(f"{branch}/g/a", mode="r")[:], wanted)
    # fsspec cannot delete over HTTP, so it neither shrinks nor overwrites.
    with pytest.raises(NotImplementedError):
        zarr.create_array(store, name="g/a", data=VALUES, overwrite=True)


def test_fsspec_lists_the_view(branch):
    zarr.create_array(writable(branch), name="g/a", data=VALUES, chunks=(3, 4))
    listed = zarr.core.sync.sync(collect(FsspecStore.from_url(branch).list_prefix("g")))
    assert sorted(listed) == [key for key in keys(branch) if key.startswith("g/")]


async def collect(iterator) -> list[str]:
    return [item async for item in iterator]


def test_many_writers_share_commits_and_lose_nothing(branch):
    body = objects(
        values=0, shape=(64,), chunks=(1,), dtype="uint8", compressors=None, fill_value=0
    )["zarr.json"]
    requests.put(f"{branch}/a/zarr.json", data=body, timeout=60).raise_for_status()
    before = commits(branch)

    def put(chunk: int) -> str:
        answer = requests.put(f"{branch}/a/c/{chunk}", data=bytes([chunk + 1]), timeout=60)
        answer.raise_for_status()
        return answer.json()["commit"]

    with ThreadPoolExecutor(16) as pool:
        made = set(pool.map(put, range(64)))
    assert commits(branch) - before == len(made) < 64
    assert_same(zarr.open_array(f"{branch}/a", mode="r")[:], np.arange(1, 65, dtype="uint8"))


def test_zarr_python_writes_through_obstore(branch):
    url = f"{branch}/a"
    store = array_store(url)
    array = zarr.create_array(store, shape=VALUES.shape, chunks=(3, 4), dtype="float32")
    array[:] = VALUES
    assert_same(zarr.open_array(store, mode="r")[:], VALUES)
    assert_same(zarr.open_array(url, mode="r")[2:5, 1:], VALUES[2:5, 1:])
    array[:3, :4] = 0
    assert "a/c/0/0" not in keys(branch)
    array.resize((2, 10))
    array.resize((4, 10))
    wanted = np.concatenate([VALUES[:2], np.zeros((2, 10), "float32")])
    wanted[:, :4] = 0
    assert_same(zarr.open_array(url, mode="r")[:], wanted)


def test_obstore_gets_puts_lists_and_deletes(branch, server):
    """Its paths are those of the server, so that lists and requests agree."""
    store = HTTPStore.from_url(server.url, client_options={"allow_http": True})
    view = branch.removeprefix(f"{server.url}/")
    made = objects(values=VALUES, shape=VALUES.shape, chunks=(3, 4), dtype="float32")
    for key, body in made.items():
        obstore.put(store, f"{view}/a/{key}", body)
    listed = {item["path"]: item["size"] for page in obstore.list(store, view) for item in page}
    assert sorted(listed) == [f"{view}/{key}" for key in keys(branch)]
    for path, size in listed.items():
        assert obstore.head(store, path)["size"] == size
        body = obstore.get(store, path).bytes()
        assert len(body) == size
        assert obstore.get_range(store, path, start=1, length=3) == body[1:4]
        suffix = obstore.get(store, path, options={"range": {"suffix": 4}})
        assert suffix.bytes() == body[-4:]
    found = obstore.list_with_delimiter(store, f"{view}/a")
    assert found["common_prefixes"] == [f"{view}/a/c"]
    assert [item["path"] for item in found["objects"]] == [f"{view}/a/zarr.json"]
    assert list(obstore.list(store, f"{view}/nothing")) == []
    obstore.delete(store, f"{view}/a/c/0/0")
    with pytest.raises(FileNotFoundError):
        obstore.get(store, f"{view}/a/c/0/0")
    with pytest.raises(FileNotFoundError):
        obstore.put(store, f"{view}/b/c/0/0", b"before its array")


def test_tensorstore_reads_what_others_stage(staged):
    zarr.create_array(staged.store, name="a", data=VALUES, chunks=(3, 4))
    assert_same(clients.read_with_tensorstore(staged.url, "a", ...), VALUES)
    assert_same(clients.read_with_tensorstore(staged.commit(), "a", np.s_[1:3]), VALUES[1:3])


def test_a_dataset_of_xarray_survives(staged):
    times = np.datetime64("2020-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    dataset = xr.Dataset(
        {
            "t": (("time", "x"), np.arange(15.0).reshape(5, 3)),
            "name": ("x", np.array(["a", "größe", ""], dtype=object)),
            "n": ((), np.int16(7)),
        },
        coords={"time": times, "x": [1.0, 2.0, np.nan]},
        attrs={"title": "test"},
    )
    dataset.to_zarr(staged.store, mode="a", consolidated=True)
    more = dataset.isel(time=slice(0, 2)).drop_vars(["name", "n"])
    more.assign_coords(time=more.time + np.timedelta64(5, "D")).to_zarr(
        staged.store, append_dim="time", consolidated=True
    )
    opened = xr.open_zarr(staged.commit()).load()
    xr.testing.assert_identical(opened.isel(time=slice(0, 5)), dataset)
    assert opened.sizes["time"] == 7


# Documents


def test_consolidated_metadata_is_served_fresh(staged):
    store = staged.store
    zarr.create_array(store, name="a", data=VALUES, chunks=(3, 4))
    zarr.consolidate_metadata(store)
    document = requests.get(f"{staged.url}/zarr.json", timeout=60).json()
    assert set(document["consolidated_metadata"]["metadata"]) == {"a"}
    # A stale copy is not kept.
    document["attributes"] = {"kept": True}
    assert staged.put("zarr.json", json.dumps(document).encode()).ok
    zarr.create_array(store, name="b", data=VALUES, chunks=(3, 4))
    document = requests.get(f"{staged.url}/zarr.json", timeout=60).json()
    assert set(document["consolidated_metadata"]["metadata"]) == {"a", "b"}
    assert document["attributes"] == {"kept": True}
    assert set(zarr.open_consolidated(staged.commit()).array_keys()) == {"a", "b"}


DATA = {
    "bool": np.array([True, False, True]),
    **{name: np.array([0, 1, 100], name) for name in ("int8", "int16", "int32", "int64")},
    **{name: np.array([0, 1, 200], name) for name in ("uint8", "uint16", "uint32", "uint64")},
    **{
        name: np.array([0, np.nan, -np.inf], name)
        for name in ("float16", "float32", "float64", "complex64", "complex128")
    },
    "datetime64[ns]": np.array(["2020-01-01", "NaT", "1970-01-01"], "datetime64[ns]"),
    "datetime64[10s]": np.array([1, 2, 3], "int64").view("datetime64[10s]"),
    "timedelta64[D]": np.array([1, -2, 3], "timedelta64[D]"),
    "S3": np.array([b"abc", b"", b"d"]),
    "U4": np.array(["abcd", "", "größ"]),
    "V5": np.array([b"12345", b"\0\0\0\0\0", b"abcde"], "V5"),
    "string": np.array(["wind", "", "größe"], object),
}


@pytest.mark.parametrize("name", DATA)
def test_every_data_type_of_zarr_python_survives(staged, name):
    values = DATA[name]
    kinds = {"chunks": {"chunks": (2,)}, "shards": {"chunks": (1,), "shards": (2,)}}
    if name == "V5" and zarr.__version__ < "3.4":
        # It cannot write shards of raw bytes at all.
        del kinds["shards"]
    for kind, chunks in kinds.items():
        dtype = "string" if name == "string" else values.dtype
        array = zarr.create_array(staged.store, name=kind, shape=(3,), dtype=dtype, **chunks)
        array[:] = values
        assert_values(array[:], values)
    branch = staged.commit()
    for kind in kinds:
        assert_values(zarr.open_array(f"{branch}/{kind}", mode="r")[:], values)


def assert_values(found: np.ndarray, wanted: np.ndarray) -> None:
    if wanted.dtype.kind == "O":
        assert list(found) == list(wanted)
    else:
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes()


def test_what_cannot_be_kept_is_refused_by_name(staged):
    made = objects(values=VALUES, shape=VALUES.shape, chunks=(3, 4), dtype="f4")
    document = json.loads(made["zarr.json"])
    structured = {"name": "struct", "configuration": {"fields": [["a", "int32"]]}}

    def with_type(data_type) -> dict:
        return {**document, "data_type": data_type, "fill_value": 0}

    for change, word in [
        (with_type(structured), "struct"),
        (with_type("float8_e4m3"), "float8_e4m3"),
        (with_type({"name": "numpy.void"}), "numpy.void"),
        ({**document, "chunk_grid": {"name": "rectilinear", "configuration": {}}}, "rectilinear"),
        ({**document, "zarr_format": 2}, "zarr_format"),
        ({**document, "storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({**document, "special": {"must_understand": True}}, "special"),
        ({**document, "codecs": [{"name": "bytes"}, {"name": "nobody's"}]}, "nobody's"),
    ]:
        answer = staged.put("a/zarr.json", json.dumps(change).encode())
        assert answer.status_code == 422, answer.text
        assert word in answer.json()["detail"]
    for key in (".zgroup", "a/.zarray"):
        answer = staged.put(key, b"{}")
        assert answer.status_code == 422 and "version 2" in answer.json()["detail"]
    assert keys(staged.url) == ["zarr.json"]
    # What need not be understood stays.
    extra = {**document, "special": {"must_understand": False, "x": 1}}
    assert staged.put("a/zarr.json", json.dumps(extra).encode()).ok
    served = requests.get(f"{staged.url}/a/zarr.json", timeout=60).json()
    assert served["special"] == {"must_understand": False, "x": 1}


def test_structured_arrays_are_refused_by_name(staged):
    dtype = np.dtype([("a", "<i4"), ("b", "<f8")])
    body = objects(values=np.zeros(2, dtype), shape=(2,), dtype=dtype)["zarr.json"]
    answer = staged.put("a/zarr.json", body)
    assert answer.status_code == 422, answer.text
    name = json.loads(body)["data_type"]
    assert (name if isinstance(name, str) else name["name"]) in answer.json()["detail"]


def test_a_node_is_made_anew(staged):
    for key, body in objects(values=VALUES, shape=VALUES.shape, chunks=(3, 4), dtype="f4").items():
        assert staged.put(f"a/{key}", body).status_code == 204
    # As zarr-python does with mode "w": every key goes, then the document comes.
    for key in keys(f"{staged.url}/a"):
        assert requests.delete(f"{staged.url}/a/{key}", timeout=60).status_code == 204
    assert keys(staged.url) == ["zarr.json"]
    other = np.array([3, 4], "int8")
    for key, body in objects(values=other, shape=(2,), chunks=(1,), dtype="int8").items():
        assert staged.put(f"a/{key}", body).status_code == 204
    assert_same(zarr.open_array(f"{staged.commit()}/a", mode="r")[:], other)


# Chunks and shards


def test_chunks_that_do_not_fit_are_refused(staged):
    made = objects(values=VALUES, shape=VALUES.shape, chunks=(3, 4), dtype="f4", compressors=None)
    assert staged.put("a/c/0/0", made["c/0/0"]).status_code == 404
    assert staged.put("a/zarr.json", made["zarr.json"]).ok
    for key, body, status in [
        ("a/c/0/0", made["c/0/0"] + b"x", 422),
        ("a/c/0/0", made["c/0/0"][:-1], 422),
        ("a/c/0/0", b"", 422),
        ("a/c/3/0", made["c/0/0"], 422),
        ("a/c/0/0/0", made["c/0/0"], 400),
        ("a/c.0.0", made["c/0/0"], 400),
        ("a/c/00/0", made["c/0/0"], 400),
    ]:
        answer = staged.put(key, body)
        assert answer.status_code == status, (key, answer.text)
    assert keys(staged.url) == ["a/zarr.json", "zarr.json"]


SHARDINGS = {
    "plain": {"codecs": [], "index_location": "end", "index_codecs": [Crc32cCodec()]},
    "index_at_start": {"codecs": [ZstdCodec()], "index_location": "start"},
    "index_without_checksum": {"codecs": [GzipCodec()], "index_codecs": []},
    "blosc": {"codecs": [BloscCodec(cname="lz4"), Crc32cCodec()]},
}


def sharded(name: str) -> tuple[dict[str, bytes], np.ndarray]:
    """What zarr-python stores of a sharded array, some inner chunks of which are absent."""
    options = dict(SHARDINGS[name])
    options["codecs"] = [BytesCodec(), *options["codecs"]]
    if "index_codecs" in options:
        options["index_codecs"] = [BytesCodec(), *options["index_codecs"]]
    codec = ShardingCodec(chunk_shape=(2, 2), **options)
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=(8, 10),
        chunks=(4, 4),
        dtype="float32",
        fill_value=0,
        serializer=codec,
        compressors=None,
    )
    values = np.zeros((8, 10), "float32")
    values[:3, :] = np.arange(1, 31).reshape(3, 10)
    values[7, 9] = 5
    array[...] = values
    array[1, 1] = 9
    values[1, 1] = 9
    return {key: value.to_bytes() for key, value in store._store_dict.items()}, values


@pytest.mark.parametrize("name", SHARDINGS)
def test_shards_of_zarr_python_are_taken_in_every_layout(staged, name):
    made, values = sharded(name)
    for key in ("zarr.json", *sorted(made)):
        assert staged.put(f"a/{key}", made[key]).status_code == 204, key
    branch = staged.commit()
    for client in ("zarr-python", "tensorstore"):
        assert_same(clients.CLIENTS[client](branch, "a", ...), values, client)


def test_a_shard_with_a_wrong_index_is_refused(staged):
    made, _ = sharded("plain")
    shard = made["c/0/0"]
    assert staged.put("a/zarr.json", made["zarr.json"]).ok

    def flip(at: int) -> bytes:
        return shard[:at] + bytes([shard[at] ^ 1]) + shard[at:][1:]

    for what, body in {
        "checksum": flip(len(shard) - 1),
        "offset": flip(len(shard) - 4 - 64),
        "cut": shard[:-5],
        "only an index": shard[-68:],
        "empty": b"",
    }.items():
        answer = staged.put("a/c/0/0", body)
        assert answer.status_code == 422, (what, answer.text)
    assert keys(staged.url) == ["a/zarr.json", "zarr.json"]
    # Unused bytes are no error: the canonical shard leaves them out.
    index = np.frombuffer(shard[-68:-4], "<u8").copy()
    used = index != np.uint64(2**64 - 1)
    index[used & (np.arange(8) % 2 == 0)] += 11
    wider = b"\0" * 11 + shard[:-68] + index.tobytes()
    wider += crc32c(index.tobytes())
    assert staged.put("a/c/0/0", wider).ok
    served = requests.get(f"{staged.url}/a/c/0/0", timeout=60).content
    assert staged.put("a/c/0/0", shard).ok
    assert requests.get(f"{staged.url}/a/c/0/0", timeout=60).content == served


def crc32c(data: bytes) -> bytes:
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum >> 1) ^ (0x82F63B78 if checksum & 1 else 0)
    return (checksum ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.mark.parametrize("writer", ["tensorstore", "zarrs"])
def test_shards_of_other_writers_are_taken(staged, tmp_path, writer):
    made, values = sharded("index_at_start")
    (tmp_path / "zarr.json").write_bytes(made["zarr.json"])
    if writer == "tensorstore":
        store = {"driver": "file", "path": f"{tmp_path}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
        array[...].write(values).result()
    else:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            zarr.open_array(tmp_path, mode="r+")[...] = values
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        if path.is_file():
            key = path.relative_to(tmp_path).as_posix()
            assert staged.put(f"a/{key}", path.read_bytes()).status_code == 204, key
    assert_same(zarr.open_array(f"{staged.commit()}/a", mode="r")[...], values)


@pytest.mark.parametrize("write_empty", [False, True])
def test_chunks_of_fill_value_read_the_same_stored_or_not(staged, write_empty):
    values = np.full((6,), 3.5, "float32")
    values[2:4] = 1
    array = zarr.create_array(
        array_store(f"{staged.url}/a"),
        shape=(6,),
        chunks=(2,),
        dtype="float32",
        fill_value=3.5,
        config={"write_empty_chunks": write_empty},
    )
    array[:] = values
    branch = staged.commit()
    assert keys(f"{branch}/a") == ["c/1", "zarr.json"]
    assert_same(zarr.open_array(f"{branch}/a", mode="r")[:], values)


CORNERS = {
    "scalar": {"shape": (), "values": np.float64(1.5)},
    "old_point": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "old_slash": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "point": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "old_scalar": {
        "shape": (),
        "values": np.float64(2.5),
        "chunk_key_encoding": {"name": "v2", "separator": "."},
    },
    "big_endian": {"serializer": {"name": "bytes", "configuration": {"endian": "big"}}},
    "transposed": {"filters": [{"name": "transpose", "configuration": {"order": [1, 0]}}]},
    "dimension_names": {"dimension_names": ["y", None]},
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(staged, name):
    array = {"shape": VALUES.shape, "chunks": (3, 4), "values": VALUES, **CORNERS[name]}
    values = array["values"]
    if array["shape"] == ():
        array["chunks"] = ()
    made = objects(dtype=values.dtype, **array)
    for key in ("zarr.json", *sorted(made)):
        assert staged.put(f"a/{key}", made[key]).status_code == 204, key
    branch = staged.commit()
    assert keys(f"{branch}/a") == sorted(made)
    opened = zarr.open_array(f"{branch}/a", mode="r")
    assert_same(opened[...], np.asarray(values))
    names = array.get("dimension_names")
    assert opened.metadata.dimension_names == (names and tuple(names))
