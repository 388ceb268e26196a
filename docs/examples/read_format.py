"""Reads one array of a local Quarr repository by docs/format.md alone, checking the hashes on the way.

usage: read_format.py REPOSITORY_DIRECTORY BRANCH ARRAY
needs: blake3, pyarrow
"""

import json
import pathlib
import struct
import sys

import pyarrow as pa
from blake3 import blake3


def H(kind: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"quarr v1 {kind}").digest()


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return H("node", b"")
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return H("node", mth(leaves[:half]) + mth(leaves[half:]))


def field(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def key(root: pathlib.Path, folder: str, name: str) -> bytes:
    return (root / folder / name[:2] / name[2:]).read_bytes()


def without_self(data: bytes) -> tuple[str, bytes]:
    """The value of `self` and the bytes without it: the member is cut out of the text."""
    text = data.decode()
    value = json.loads(text)["self"]
    return value, text.replace(f'"self":"{value}",', "", 1).encode()


def rows_of(data: bytes) -> list[dict]:
    stream, digest = data[:-32], data[-32:]
    assert H("file", stream) == digest, "the file does not match its hash"
    return pa.ipc.open_stream(stream).read_all().to_pylist()


def pages(root: pathlib.Path, name: bytes) -> list[dict]:
    """The rows of a tree of one page; the empty id has none and no object."""
    return [] if name == H("node", b"") else rows_of(key(root, "objects", name.hex()))


def tree_row(kind: int, name: str, content: bytes, length: int, document: bytes, stats: bytes, meta: bytes) -> bytes:
    start = bytes([kind, 0]) + field(name.encode()) + content + struct.pack("<Q", length)
    return start + field(document) + field(stats) + field(meta)


def newest_commit(root: pathlib.Path, branch: str) -> str:
    refs: dict[str, str] = {}
    previous, rest = without_self((root / "repo.json").read_bytes())
    assert H("repo", rest).hex() == previous, "repo.json does not match its hash"
    for path in sorted((root / "log").glob("[0-9]*.json")):
        data = path.read_bytes()
        claimed, rest = without_self(data)
        assert H("log entry", rest).hex() == claimed, f"{path.name} does not match its hash"
        entry = json.loads(data)
        assert entry["previous"] == previous, f"{path.name} does not follow its predecessor"
        for operation in entry["operations"]:
            if operation["operation"] == "update-ref":
                if operation["to"] is None:
                    refs.pop(operation["ref"], None)
                else:
                    refs[operation["ref"]] = operation["to"]
        leaves = [H("ref row", field(name.encode()) + bytes.fromhex(refs[name])) for name in sorted(refs)]
        assert mth(leaves).hex() == entry["state"], f"{path.name}: the refs are not those of its state"
        previous = claimed
    return refs[f"heads/{branch}"]


def main(root: pathlib.Path, branch: str, array: str) -> None:
    commit_id = newest_commit(root, branch)
    data = key(root, "objects", commit_id)
    assert H("commit", data).hex() == commit_id
    commit = json.loads(data)
    print("commit", commit_id, commit["message"])

    row = commit["root"]
    encoded = tree_row(
        1, "", bytes.fromhex(row["id"]), int(commit["totals"]["stored_bytes"]), bytes.fromhex(row["document"]), b"", b""
    )
    assert H("tree row", encoded).hex() == commit["tree"]

    members = pages(root, bytes.fromhex(row["id"]))
    assert all("kind" in m for m in members), "this example stops at trees of one page"
    encoded = [
        tree_row(m["kind"], m["name"], m["id"], m["length"], m["document"], m["statistics"] or b"", m["statistics_metadata"] or b"")
        for m in members
    ]
    assert mth([H("tree row", r) for r in encoded]).hex() == row["id"]
    member = next((m for m in members if m["name"] == array and m["kind"] == 2), None)
    if member is None:
        sys.exit(f"no array {array!r} in the root group")
    document = member["zarr_json"] or key(root, "objects", member["document"].hex())
    assert H("document", document) == member["document"]
    metadata = json.loads(document)
    print("array", array, metadata["shape"], metadata["data_type"])

    ndim = len(metadata["shape"])
    chunks = pages(root, member["id"])
    assert all("kind" in c for c in chunks), "this example stops at manifests of one page"
    leaves = []
    for c in chunks:
        assert c["storage"] in (0, 1), "this example leaves external rows out"
        start = bytes([c["kind"], 0, ndim]) + b"".join(struct.pack("<Q", c[f"c{d}"]) for d in range(ndim))
        leaves.append(H("row", start + c["id"] + struct.pack("<Q", c["length"]) + field(bytes([c["storage"]]))))
    assert mth(leaves) == member["id"]

    for c in chunks:
        shard = c["inline"] if c["storage"] == 1 else key(root, "shards", c["id"].hex())
        assert len(shard) == c["length"]
        at = "/".join(str(c[f"c{d}"]) for d in range(ndim))
        if c["kind"] == 2:
            assert H("plain chunk", shard) == c["id"]
            print("chunk", at or "()", c["id"].hex(), "plain, verified")
            continue
        # n follows from the metadata: inner chunks in a shard.
        outer = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        inner = metadata["codecs"][-1]["configuration"]["chunk_shape"]
        n = 1
        for o, i in zip(outer, inner):
            n *= o // i
        footer = shard[len(shard) - (12 + 48 * n) :]
        assert footer[:8] == b"QSH1" + struct.pack("<I", n)
        table = [footer[8 + 32 * i : 40 + 32 * i] for i in range(n)]
        assert mth(table) == c["id"]
        index = struct.unpack(f"<{2 * n}Q", footer[8 + 32 * n : -4])
        present = 0
        for i in range(n):
            offset, length = index[2 * i], index[2 * i + 1]
            if table[i] == bytes(32):
                assert offset == length == 2**64 - 1
                continue
            assert H("inner chunk", shard[offset : offset + length]) == table[i]
            present += 1
        print("chunk", at or "()", c["id"].hex(), f"{present} of {n} inner chunks present, all verified")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3])
