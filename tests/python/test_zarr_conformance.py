"""zarr-python's own tests for stores, run on `quarr.Store`, over HTTP and in this process.

Quarr stores arrays, not any bytes under any key. So a key is the document of a node or a chunk of
an array that exists, a document is a valid one, and a chunk has the length that its codecs give. A
test of zarr-python that stores anything else is overridden here by one that makes the same claim
with keys and bytes that are valid. `OVERRIDES` lists all of these with the reason;
`test_the_list_of_overrides_is_complete` holds the list against the classes.

`test_local_store_*` run the same classes on zarr-python's own LocalStore, to compare with.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Iterable
from typing import Any

import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import pytest
import zarr
from hypothesis import HealthCheck, Phase, Verbosity, note
from hypothesis import settings as Settings
from hypothesis.errors import UnsatisfiedAssumption
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator, sync
from zarr.storage._utils import _normalize_byte_range_index
from zarr.testing.stateful import (
    SyncStoreWrapper,
    ZarrHierarchyStateMachine,
    ZarrStoreStateMachine,
)
from zarr.testing.store import StoreTests

import quarr
from quarr.store import Store

KEYS = "its keys are below no array, or its values are no chunk"
DOCUMENTS = "its documents are no valid ones"
EMPTY = "a chunk of no bytes does not exist: the case is left out"
PARENTS = "its keys are not all: groups above a node exist, with documents"
OVERRIDES = {
    "TestStore": {
        "test_serializable_store": KEYS,
        "test_with_read_only_store": KEYS,
        "test_get": f"{KEYS}; {EMPTY}",
        "test_get_not_open": KEYS,
        "test_get_raises": KEYS,
        "test_get_many": KEYS,
        "test_getsize": f"{KEYS}; {EMPTY}",
        "test_getsize_prefix": KEYS,
        "test_set": f"{KEYS}; {DOCUMENTS}; {EMPTY}",
        "test_set_not_open": KEYS,
        "test_set_many": f"{KEYS}; {DOCUMENTS}",
        "test_get_partial_values": f"{KEYS}; {DOCUMENTS}",
        "test_exists": DOCUMENTS,
        "test_delete": DOCUMENTS,
        "test_delete_dir": f"{KEYS}; {DOCUMENTS}",
        "test_is_empty": KEYS,
        "test_clear": KEYS,
        "test_list": f"{KEYS}; {DOCUMENTS}; {PARENTS}",
        "test_list_prefix": f"{DOCUMENTS}; {PARENTS}",
        "test_list_empty_path": f"{KEYS}; {DOCUMENTS}; {PARENTS}",
        "test_list_dir": f"{KEYS}; {DOCUMENTS}; {PARENTS}",
        "test_set_if_not_exists": KEYS,
        "test_get_bytes": DOCUMENTS,
        "test_get_bytes_sync": DOCUMENTS,
        "test_get_json": DOCUMENTS,
        "test_get_json_sync": DOCUMENTS,
        "test_get_sync": KEYS,
        "test_set_sync": KEYS,
        "test_delete_sync": KEYS,
        "test_sync_async_set_get_parity": KEYS,
        "test_delete_sync_visible_to_async_get": KEYS,
        "test_get_sync_byte_range_parity": KEYS,
    },
    "StoreMachine": {
        "set": f"{KEYS}; {DOCUMENTS}",
        "delete": "the document of a node stands for all that is below it",
        "__init__": "documents of groups come with consolidated metadata, which is taken off",
    },
    "HierarchyMachine": {
        "resize_array": "what a smaller shape leaves out is gone, also from the chunks at its edge; "
        "zarr-python leaves it there, and shows it again when the array grows",
    },
    "HierarchyStore": {
        "set": "attributes drawn with half of a surrogate pair, which no UTF-8 has, and, by "
        "zarr-python 3.1, chunks of length 0, which Zarr v3 has not, are refused: such an example "
        "is left out",
    },
}
# Of the abstract ones, every store has its own.
ABSTRACT = {
    "set", "get", "store_kwargs", "test_store_repr", "test_store_supports_writes",
    "test_store_supports_listing",
}  # fmt: skip

EXAMPLES = int(os.environ.get("QUARR_EXAMPLES", "10"))

ENCODINGS = {
    "foo/c/": {"name": "default", "configuration": {"separator": "/"}},
    "dot/c.": {"name": "default", "configuration": {"separator": "."}},
    "two/": {"name": "v2", "configuration": {"separator": "/"}},
}


def document(length: int, encoding: Any = ENCODINGS["foo/c/"], count: int = 20) -> bytes:
    """The `zarr.json` of an array of bytes with chunks of this length, in the form it is stored."""
    return json.dumps(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [count * length],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [length]}},
            "chunk_key_encoding": encoding,
            "fill_value": 0,
            "codecs": [{"name": "bytes"}],
            "attributes": {},
        },
        separators=(",", ":"),
        sort_keys=True,
    ).encode()


GROUP = b'{"attributes":{},"node_type":"group","zarr_format":3}'


def buffer(data: bytes) -> Buffer:
    return cpu.Buffer.from_bytes(data)


def array_of(key: str) -> tuple[str, Any]:
    """The path of the array that a key is a chunk or the document of, and how it names chunks."""
    path = key.partition("/")[0]
    encoding = next(one for start, one in ENCODINGS.items() if start.startswith(f"{path}/"))
    return path, encoding


class TestStore(StoreTests[Store, cpu.Buffer]):
    store_cls = Store
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, backend) -> dict[str, Any]:
        repo = backend.new_repo()
        transaction = repo.transaction()
        return {
            "source": backend.transport,
            "repository": repo.name,
            "transaction": transaction.id,
        }

    async def put(self, store: Store, key: str, data: bytes) -> None:
        """Stores an object, not by the store."""
        target = f"/v1/transactions/{store._transaction}/zarr/{key}"
        answer = await store.transport.request("PUT", target, body=data)
        assert answer.status == 204, bytes(answer.body)

    async def set(self, store: Store, key: str, value: Buffer) -> None:
        path, encoding = array_of(key)
        await self.put(store, f"{path}/zarr.json", document(len(value), encoding))
        await self.put(store, key, value.to_bytes())

    async def get(self, store: Store, key: str) -> Buffer:
        target = f"/v1/transactions/{store._transaction}/zarr/{key}"
        answer = await store.transport.request("GET", target)
        assert answer.status == 200, bytes(answer.body)
        return buffer(bytes(answer.body))

    @pytest.fixture
    async def cells(self, store) -> str:
        """An array of chunks of 4 bytes, and the start of their keys."""
        await self.put(store, "foo/zarr.json", document(4))
        return "foo/c/"

    def test_store_repr(self, store):
        text = repr(store)
        assert text.startswith("Store('") and store.repository in text

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing

    async def test_serializable_store(self, store, cells):
        found = pickle.loads(pickle.dumps(store))
        assert found == store and found.read_only == store.read_only
        await store.set(f"{cells}0", buffer(b"\x01\x02\x03\x04"))
        result = await found.get(f"{cells}0", default_buffer_prototype())
        assert result.to_bytes() == b"\x01\x02\x03\x04"

    async def test_with_read_only_store(self, open_kwargs):
        reader = await self.store_cls.open(**open_kwargs, read_only=True)
        await self.put(reader, "foo/zarr.json", document(3))
        writer = reader.with_read_only(read_only=False)
        assert not writer._is_open and not writer.read_only
        await writer.set("foo/c/0", buffer(b"bar"))
        await writer.delete("foo/c/0")
        for refusing in (reader, writer.with_read_only(read_only=True)):
            assert refusing.read_only
            with pytest.raises(ValueError, match="read-only mode and does not support writing"):
                await refusing.set("foo/c/0", buffer(b"bar"))
            with pytest.raises(ValueError, match="read-only mode and does not support writing"):
                await refusing.delete("foo/c/0")

    @pytest.mark.parametrize("key", ["foo/c/0", "dot/c.0", "two/0"])
    @pytest.mark.parametrize(
        "byte_range",
        [None, RangeByteRequest(1, 4), OffsetByteRequest(1), SuffixByteRequest(1)],
    )
    async def test_get(self, store, key, byte_range):
        await super().test_get(store, key, b"\x01\x02\x03\x04", byte_range)

    async def test_get_not_open(self, store_not_open):
        assert not store_not_open._is_open
        await self.set(store_not_open, "foo/c/0", buffer(b"\x01\x02\x03\x04"))
        found = await store_not_open.get("foo/c/0", prototype=default_buffer_prototype())
        assert found.to_bytes() == b"\x01\x02\x03\x04"

    async def test_get_raises(self, store):
        await self.set(store, "foo/c/0", buffer(b"\x01\x02\x03\x04"))
        with pytest.raises((ValueError, TypeError), match=r"Unexpected byte_range, got.*"):
            await store.get("foo/c/0", default_buffer_prototype(), (0, 2))

    async def test_get_many(self, store):
        await self.put(store, "foo/zarr.json", document(1))
        wanted = {f"foo/c/{n}": str(n).encode() for n in range(10)}
        for key, value in wanted.items():
            await self.put(store, key, value)
        requests = ((key, default_buffer_prototype(), None) for key in [*wanted, "foo/c/11"])
        found = dict(await _collect_aiterator(store._get_many(requests)))
        assert found.pop("foo/c/11") is None
        assert {key: value.to_bytes() for key, value in found.items()} == wanted

    @pytest.mark.parametrize("key", ["foo/c/0", "dot/c.0", "two/0"])
    async def test_getsize(self, store, key):
        await super().test_getsize(store, key, b"\x01\x02\x03\x04")

    async def test_getsize_prefix(self, store, cells):
        await self.put(store, "foo-bar/zarr.json", document(4))
        keys = [f"{cells}{n}" for n in range(4)] + ["foo-bar/c/0"]
        await store._set_many((key, buffer(b"\x01\x02\x03\x04")) for key in keys)
        assert await store.getsize_prefix("foo/c") == 16
        assert await store.getsize_prefix("foo") == 16 + len(document(4))

    @pytest.mark.parametrize("key", ["foo/zarr.json", "foo/c/0", "dot/c.0", "two/0"])
    async def test_set(self, store, key):
        path, encoding = array_of(key)
        await store.set(f"{path}/zarr.json", buffer(document(4, encoding)))
        data = document(4) if key.endswith("json") else b"\x01\x02\x03\x04"
        await store.set(key, buffer(data))
        assert (await self.get(store, key)).to_bytes() == data

    async def test_set_not_open(self, store_not_open):
        assert not store_not_open._is_open
        await self.put(store_not_open, "foo/zarr.json", document(4))
        await store_not_open.set("foo/c/0", buffer(b"\x01\x02\x03\x04"))
        assert (await self.get(store_not_open, "foo/c/0")).to_bytes() == b"\x01\x02\x03\x04"

    async def test_set_many(self, store, cells):
        await self.put(store, "two/zarr.json", document(5, ENCODINGS["two/"]))
        wanted = {
            "zarr.json": GROUP,
            "foo/c/0": b"c/00",
            "foo/c/1": b"c/01",
            "two/0": b"foo/0",
        }
        await store._set_many((key, buffer(data)) for key, data in wanted.items())
        del wanted["zarr.json"]
        for key, data in wanted.items():
            assert (await self.get(store, key)).to_bytes() == data

    @pytest.mark.parametrize(
        "key_ranges",
        [
            [],
            [("foo/zarr.json", RangeByteRequest(0, 2))],
            [("foo/c/0", RangeByteRequest(0, 2)), ("foo/zarr.json", None)],
            [
                ("foo/c/0", RangeByteRequest(0, 2)),
                ("foo/c/1", SuffixByteRequest(2)),
                ("foo/c/2", OffsetByteRequest(2)),
                ("foo/c/2", RangeByteRequest(3, 3)),
                ("foo/c/2", RangeByteRequest(9, 12)),
                ("foo/c/2", SuffixByteRequest(9)),
            ],
        ],
    )
    async def test_get_partial_values(self, store, cells, key_ranges):
        whole = {"foo/zarr.json": document(4)}
        for n in range(3):
            whole[f"{cells}{n}"] = bytes([n + 1, 2, 3, 4])
            await self.put(store, f"{cells}{n}", whole[f"{cells}{n}"])
        cut = {
            RangeByteRequest: lambda data, ask: data[ask.start : ask.end],
            OffsetByteRequest: lambda data, ask: data[ask.offset :],
            SuffixByteRequest: lambda data, ask: data[-ask.suffix :],
            type(None): lambda data, ask: data,
        }
        wanted = [cut[type(ask)](whole[key], ask) for key, ask in key_ranges]
        ranges = (pair for pair in key_ranges)
        found = await store.get_partial_values(default_buffer_prototype(), ranges)
        assert [one.to_bytes() for one in found] == wanted

    async def test_exists(self, store):
        assert not await store.exists("foo")
        await store.set("foo/zarr.json", buffer(GROUP))
        assert await store.exists("foo/zarr.json")
        assert not await store.exists("foo")

    async def test_delete(self, store):
        await store.set("foo/zarr.json", buffer(document(4)))
        assert await store.exists("foo/zarr.json")
        await store.delete("foo/zarr.json")
        assert not await store.exists("foo/zarr.json")

    async def test_delete_dir(self, store):
        await store.set("zarr.json", buffer(GROUP))
        for path in ("foo-bar", "foo"):
            await store.set(f"{path}/zarr.json", buffer(document(5)))
            await store.set(f"{path}/c/0", buffer(b"chunk"))
        await store.delete_dir("foo")
        for key in ("zarr.json", "foo-bar/zarr.json", "foo-bar/c/0"):
            assert await store.exists(key)
        for key in ("foo/zarr.json", "foo/c/0"):
            assert not await store.exists(key)

    async def test_is_empty(self, store):
        assert await store.is_empty("")
        await self.set(store, "foo/c/0", buffer(b"something"))
        assert not await store.is_empty("")
        assert await store.is_empty("fo")
        assert not await store.is_empty("foo/")
        assert not await store.is_empty("foo")
        assert await store.is_empty("spam/")

    async def test_clear(self, store):
        await self.set(store, "foo/c/0", buffer(b"something"))
        await store.clear()
        assert await store.is_empty("")

    async def test_list(self, store):
        assert await _collect_aiterator(store.list()) == ()
        await store.set("foo/zarr.json", buffer(document(1)))
        keys = [f"foo/c/{n}" for n in range(10)]
        await store._set_many((key, buffer(b"\x01")) for key in keys)
        found = await _collect_aiterator(store.list())
        assert sorted(found) == sorted([*keys, "foo/zarr.json", "zarr.json"])

    async def test_list_prefix(self, store):
        prefixes = ("", "a/", "a/b/", "a/b/c/")
        keys = [f"{prefix}zarr.json" for prefix in prefixes]
        for key in keys:
            await store.set(key, buffer(GROUP))
        for prefix in [*prefixes, "a", "a/b/z", "z", "a/c"]:
            found = await _collect_aiterator(store.list_prefix(prefix))
            assert sorted(found) == sorted(key for key in keys if key.startswith(prefix)), prefix

    async def test_list_empty_path(self, store):
        await store.set("foo/bar/zarr.json", buffer(document(1)))
        await store.set("foo/baz/zarr.json", buffer(document(1)))
        await store.set("foo/bar/c/1", buffer(b"\x01"))
        await store.set("foo/baz/c/0", buffer(b"\x01"))
        keys = [
            "foo/bar/c/1", "foo/bar/zarr.json", "foo/baz/c/0", "foo/baz/zarr.json",
            "foo/zarr.json", "zarr.json",
        ]  # fmt: skip
        assert sorted(await _collect_aiterator(store.list())) == keys
        assert sorted(await _collect_aiterator(store.list_prefix(""))) == keys
        assert sorted(await _collect_aiterator(store.list_prefix("foo/bar/"))) == keys[:2]

    async def test_list_dir(self, store):
        assert await _collect_aiterator(store.list_dir("")) == ()
        for root in ("foo", "foo/bar"):
            assert await _collect_aiterator(store.list_dir(root)) == ()
            await store.set(f"{root}/one/zarr.json", buffer(document(1)))
            await store.set(f"{root}/one/c/1", buffer(b"\x01"))
            for prefix in (root, f"{root}/"):
                found = await _collect_aiterator(store.list_dir(prefix))
                assert sorted(found) == ["one", "zarr.json"]
        found = await _collect_aiterator(store.list_dir("foo"))
        assert sorted(found) == ["bar", "one", "zarr.json"]
        assert sorted(await _collect_aiterator(store.list_dir("foo/one"))) == ["c", "zarr.json"]
        assert await _collect_aiterator(store.list_dir("foo/one/c")) == ("1",)
        assert sorted(await _collect_aiterator(store.list_dir(""))) == ["foo", "zarr.json"]

    async def test_set_if_not_exists(self, store, cells):
        await self.put(store, f"{cells}0", b"0000")
        await store.set_if_not_exists(f"{cells}0", buffer(b"1111"))
        await store.set_if_not_exists(f"{cells}1", buffer(b"1111"))
        found = [await self.get(store, f"{cells}{n}") for n in (0, 1)]
        assert [one.to_bytes() for one in found] == [b"0000", b"1111"]

    async def test_get_bytes(self, store, cells):
        found = await store._get_bytes("foo/zarr.json", prototype=default_buffer_prototype())
        assert found == document(4)
        with pytest.raises(FileNotFoundError):
            await store._get_bytes("nothing", prototype=default_buffer_prototype())

    def test_get_bytes_sync(self, store):
        sync(self.put(store, "foo/zarr.json", document(4)))
        found = store._get_bytes_sync("foo/zarr.json", prototype=default_buffer_prototype())
        assert found == document(4)

    async def test_get_json(self, store, cells):
        found = await store._get_json("foo/zarr.json", prototype=default_buffer_prototype())
        assert found == json.loads(document(4))

    def test_get_json_sync(self, store):
        sync(self.put(store, "foo/zarr.json", document(4)))
        found = store._get_json_sync("foo/zarr.json", prototype=default_buffer_prototype())
        assert found == json.loads(document(4))

    def test_get_sync(self, store):
        sync(self.set(store, "foo/c/0", buffer(b"\x01\x02\x03\x04")))
        assert store.get_sync("foo/c/0").to_bytes() == b"\x01\x02\x03\x04"

    def test_set_sync(self, store):
        sync(self.put(store, "foo/zarr.json", document(4)))
        store.set_sync("foo/c/0", buffer(b"\x01\x02\x03\x04"))
        assert sync(self.get(store, "foo/c/0")).to_bytes() == b"\x01\x02\x03\x04"

    def test_delete_sync(self, store):
        sync(self.set(store, "foo/c/0", buffer(b"\x01\x02\x03\x04")))
        store.delete_sync("foo/c/0")
        assert store.get_sync("foo/c/0") is None

    @pytest.mark.parametrize("direction", ["set_async_get_sync", "set_sync_get_async"])
    async def test_sync_async_set_get_parity(self, store, cells, direction):
        data = buffer(b"\x01\x02\x03\x04")
        if direction == "set_async_get_sync":
            await store.set(f"{cells}0", data)
            found = store.get_sync(f"{cells}0")
        else:
            store.set_sync(f"{cells}0", data)
            found = await store.get(f"{cells}0", prototype=default_buffer_prototype())
        assert found.to_bytes() == data.to_bytes()

    async def test_delete_sync_visible_to_async_get(self, store, cells):
        await store.set(f"{cells}0", buffer(b"\x01\x02\x03\x04"))
        store.delete_sync(f"{cells}0")
        assert await store.get(f"{cells}0", prototype=default_buffer_prototype()) is None

    @pytest.mark.parametrize(
        "byte_range",
        [
            None,
            RangeByteRequest(1, 4),
            OffsetByteRequest(1),
            SuffixByteRequest(1),
            RangeByteRequest(10, 20),
        ],
    )
    async def test_get_sync_byte_range_parity(self, store, cells, byte_range):
        await store.set(f"{cells}0", buffer(b"\x01\x02\x03\x04"))
        alone = store.get_sync(f"{cells}0", byte_range=byte_range)
        awaited = await store.get(f"{cells}0", default_buffer_prototype(), byte_range)
        assert alone.to_bytes() == awaited.to_bytes()


for name in [name for name in OVERRIDES["TestStore"] if not hasattr(StoreTests, name)]:
    # Of another version of zarr-python.
    delattr(TestStore, name)


class HierarchyStore(Store):
    """The store, but for documents that are no Unicode, or have chunks of no length."""

    async def set(self, key: str, value: Buffer) -> None:
        try:
            await super().set(key, value)
        except quarr.BadRequestError:
            if not key.endswith("zarr.json"):
                raise
            document = json.loads(value.to_bytes())
            text = json.dumps(document, ensure_ascii=False)
            grid = document.get("chunk_grid", {}).get("configuration", {})
            if 0 in grid.get("chunk_shape", ()) or any("\ud800" <= c <= "\udfff" for c in text):
                raise UnsatisfiedAssumption
            raise


class HierarchyMachine(ZarrHierarchyStateMachine):
    """Groups and arrays made, changed and deleted through zarr-python, beside a MemoryStore."""

    @precondition(lambda self: bool(self.all_arrays))
    @rule(data=st.data())
    def resize_array(self, data: Any) -> None:
        path = data.draw(st.sampled_from(sorted(self.all_arrays)))
        model = zarr.open_array(self.model, path=path)
        drawn = data.draw(npst.array_shapes(min_dims=model.ndim, max_dims=model.ndim, min_side=0))
        shape = tuple(new if old else 0 for new, old in zip(drawn, model.shape, strict=True))
        note(f"resizing {path!r} from {model.shape} to {shape}")
        for axis, (new, old) in enumerate(zip(shape, model.shape, strict=True)):
            if new < old:
                model[(slice(None),) * axis + (slice(new, None),)] = model.fill_value
        model.resize(shape)
        zarr.open_array(self.store, path=path).resize(shape)


NAMES = ["a", "b", "with space", "ü"]
LENGTHS = {"a": 1, "b": 7, "with space": 100, "ü": 3}


class PlainGroups(SyncStoreWrapper):
    """A store whose root group is read without consolidated metadata, as it was written."""

    def get(self, key: str, prototype: Any) -> Any:
        found = super().get(key, prototype)
        if key != "zarr.json" or found is None:
            return found
        plain = json.loads(found.to_bytes())
        plain.pop("consolidated_metadata", None)
        return buffer(json.dumps(plain, separators=(",", ":"), sort_keys=True).encode())

    def get_partial_values(self, key_ranges: Iterable[Any], prototype: Any) -> Any:
        asked = list(key_ranges)
        found = super().get_partial_values(asked, prototype)
        root = self.get("zarr.json", prototype)
        for place, (key, ask) in enumerate(asked):
            if key == "zarr.json":
                start, stop = _normalize_byte_range_index(root, ask)
                found[place] = root[start:stop]
        return found


class StoreMachine(ZarrStoreStateMachine):
    """Keys set, read and deleted at random, beside a dictionary."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.store = PlainGroups(store)

    @rule(
        name=st.sampled_from(NAMES),
        place=st.integers(0, 4),
        encoding=st.sampled_from(["foo/c/", "two/"]),
        data=st.data(),
    )
    def set(self, name: str, place: int, encoding: str, data: Any) -> None:
        length = LENGTHS[name]
        value = data.draw(st.binary(min_size=length, max_size=length).filter(any))
        # Each kind of keys has arrays of its own.
        path = f"{name}-{encoding[0]}"
        key = f"{path}/c/{place}" if encoding == "foo/c/" else f"{path}/{place}"
        note(f"(set) {key!r} to {value!r}")
        pairs = {"zarr.json": GROUP, f"{path}/zarr.json": document(length, ENCODINGS[encoding])}
        for missing in [name for name in pairs if name not in self.model]:
            self.store.set(missing, buffer(pairs[missing]))
            self.model[missing] = buffer(pairs[missing])
        self.store.set(key, buffer(value))
        self.model[key] = buffer(value)

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(set(self.model) - {"zarr.json"})))
        note(f"(delete) {key!r}")
        self.store.delete(key)
        del self.model[key]
        if key.endswith("/zarr.json"):
            for below in [k for k in self.model if k.startswith(key.removesuffix("zarr.json"))]:
                del self.model[below]


def run_machine(machine: type[RuleBasedStateMachine], store: Any) -> None:
    run_state_machine_as_test(
        lambda: machine(store),
        settings=Settings(
            deadline=None,
            max_examples=EXAMPLES,
            stateful_step_count=25,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            # A failure shows its steps; making them fewer over HTTP takes minutes.
            phases=[Phase.generate],
            verbosity=Verbosity.normal,
            database=None,
            derandomize=True,
        ),
    )


@pytest.fixture
def writable(repo) -> Iterable[Store]:
    with contextlib.suppress(quarr.ConflictError):
        transaction = repo.transaction()
        yield transaction.store
        transaction.abort()


def test_hierarchy(writable):
    store = HierarchyStore(
        writable.transport, writable.repository, transaction=writable._transaction
    )
    run_machine(HierarchyMachine, store)


def test_store(writable):
    run_machine(StoreMachine, writable)


class TestLocalStore(StoreTests[zarr.storage.LocalStore, cpu.Buffer]):
    """The reference: zarr-python's LocalStore through zarr-python's tests as they are."""

    store_cls = zarr.storage.LocalStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path) -> dict[str, Any]:
        return {"root": str(tmp_path)}

    async def set(self, store: Any, key: str, value: Buffer) -> None:
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store: Any, key: str) -> Buffer:
        return buffer((store.root / key).read_bytes())

    def test_store_repr(self, store):
        assert "LocalStore" in repr(store)

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing


def test_local_store_hierarchy(tmp_path):
    run_machine(ZarrHierarchyStateMachine, zarr.storage.LocalStore(tmp_path))


def test_the_list_of_overrides_is_complete():
    for mine, base in [
        (TestStore, StoreTests),
        (StoreMachine, ZarrStoreStateMachine),
        (HierarchyMachine, ZarrHierarchyStateMachine),
        (HierarchyStore, Store),
    ]:
        dunder = {"__module__", "__doc__", "__qualname__", "__firstlineno__", "__parameters__",
                  "__static_attributes__", "__orig_bases__", "__annotations__",
                  "__abstractmethods__", "_abc_impl"}  # fmt: skip
        own = {name for name in vars(mine) if hasattr(base, name)} - dunder
        own -= {"store_cls", "buffer_cls"} | ABSTRACT if mine is TestStore else set()
        listed = {name for name in OVERRIDES[mine.__name__] if hasattr(base, name)}
        assert own == listed


def test_direct_mode_is_there():
    pytest.importorskip("quarr._native", reason="direct mode needs the built extension module")
