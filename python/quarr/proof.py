"""Checks a Quarr proof with nothing but the proof.

    python -m quarr.proof proof.json

It follows ``docs/proofs.md`` and shares no code with the program that makes proofs. It needs
``blake3``. It proves that an array held certain encoded inner chunks at a commit, and that a log
entry names that commit; whether the entry is in the log one trusts is for the reader to compare.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from dataclasses import dataclass
from itertools import groupby, product
from math import prod
from typing import Any

from blake3 import blake3

FORMAT = "quarr-proof-v1"
EMPTY_ID = blake3(b"", derive_key_context="quarr v1 node").digest()
NO_HASH = bytes(32)
MAX_BYTES = 64 << 20
MAX_INNER_CHUNKS = 1 << 16
MAX_COMMITS = 1 << 16
PAGE_ROWS = 1024
LEVEL_BITS = 10

KIND_INNER, KIND_GROUP, KIND_ARRAY = 0, 1, 2
KIND_SHARD, KIND_PLAIN = 1, 2


class ProofError(Exception):
    """What does not follow."""


@dataclass(frozen=True)
class Proven:
    """What a proof proves."""

    sequence: int
    entry: str
    time: str
    reference: str
    commit: str
    path: str
    metadata: dict[str, Any]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    chunks: list[tuple[tuple[int, ...], list[tuple[int, bytes | None]]]]
    """Chunk coordinates, and of each chunk its inner chunks: number, encoded bytes or fill value."""


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise ProofError(reason)


def digest(kind: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"quarr v1 {kind}").digest()


# Canonical JSON


def _float_text(value: float) -> str:
    """ECMAScript's shortest form, with `.0` where it would read as an integer."""
    if value == 0.0:
        return "-0.0" if str(value).startswith("-") else "0.0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = int(exponent or 0) + len(whole)
    if whole == "0":
        point -= len(fraction) - len(fraction.lstrip("0")) + 1
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{rest}e{point - 1:+d}"
    return sign + (text if "." in text or "e" in text else f"{text}.0")


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        members = (canonical(name) + b":" + canonical(value[name]) for name in names)
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, float):
        return _float_text(value).encode()
    return json.dumps(value, ensure_ascii=False).encode()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    require(len(members) == len(pairs), "a member twice")
    return members


def _integer(text: str) -> int:
    value = int(text)
    require(-(2**63) <= value < 2**64, "an integer that is too large")
    return value


def _no_constant(text: str) -> None:
    raise ProofError(f"{text} is no JSON")


def parse_with_self(kind: str, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A canonical document that carries its own hash; gives the hash and the rest."""
    require(len(data) <= MAX_BYTES, "too long")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_constant=_no_constant,
        )
        is_canonical = canonical(value) == data
    except (ValueError, RecursionError) as error:
        raise ProofError(f"no canonical JSON: {error}") from error
    require(isinstance(value, dict) and is_canonical, "no canonical JSON object")
    return without_self(kind, value), value


def without_self(kind: str, value: dict[str, Any]) -> bytes:
    """Removes `self` and gives the hash of what is left, which it must be."""
    claimed = value.pop("self", None)
    own = digest(kind, canonical(value))
    require(claimed == own.hex(), "its bytes do not match their hash")
    return own


def members(value: Any, names: list[str], what: str) -> list[Any]:
    """The members of an object that has exactly these."""
    require(isinstance(value, dict) and sorted(value) == sorted(names), f"members of {what}")
    return [value[name] for name in names]


def decimal(text: Any) -> int:
    require(isinstance(text, str) and text.isascii() and text.isdecimal(), "no number")
    number = int(text)
    require(str(number) == text and number < 2**64, "no number")
    return number


def from_base64(text: Any) -> bytes:
    require(isinstance(text, str), "no base64")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ProofError("no base64") from error
    require(base64.b64encode(data).decode() == text, "no base64")
    return data


def from_hex(text: Any) -> bytes:
    is_hash = isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")
    require(is_hash, "no hash")
    return bytes.fromhex(text)


# Merkle trees


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


class Leaves:
    """Some leaves of a Merkle tree, with the hashes that make them its root."""

    def __init__(self, value: Any, leaf) -> None:
        self.count, leaves, hashes = members(value, ["count", "leaves", "hashes"], "a tree")
        require(type(self.count) is int and 0 <= self.count <= 1 << 32, "a count")
        require(isinstance(leaves, list) and isinstance(hashes, list), "a tree")
        require(all(isinstance(pair, list) and len(pair) == 2 for pair in leaves), "a leaf")
        self.places = [place for place, _ in leaves]
        require(all(type(place) is int for place in self.places), "a place")
        ordered = all(a < b for a, b in zip(self.places, self.places[1:]))
        inside = all(0 <= place < self.count for place in self.places)
        require(ordered and inside and bool(leaves or not self.count), "leaves out of order")
        self.leaves = [leaf(value) for _, value in leaves]
        self.hashes = [from_hex(text) for text in hashes]

    def root(self, leaf_hash) -> bytes:
        known = [(place, leaf_hash(leaf)) for place, leaf in zip(self.places, self.leaves)]
        rest = iter(self.hashes)
        root = self._join(0, self.count, known, rest)
        require(next(rest, None) is None, "hashes left over")
        return root

    def _join(self, start: int, count: int, known: list, rest) -> bytes:
        if count == 0:
            return EMPTY_ID
        if not known:
            found = next(rest, None)
            require(found is not None, "too few hashes")
            return found
        if count == 1:
            return known[0][1]
        left = _split(count)
        before = [pair for pair in known if pair[0] < start + left]
        after = known[len(before) :]
        return digest(
            "node",
            self._join(start, left, before, rest)
            + self._join(start + left, count - left, after, rest),
        )


class Fields:
    """Reads the parts of a row."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        require(len(self.rest) >= count, "a row that is too short")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def hash(self) -> bytes:
        return self.take(32)

    def field(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "little"))

    def text(self) -> str:
        try:
            return self.field().decode()
        except UnicodeDecodeError as error:
            raise ProofError("a name that is no text") from error

    def end(self) -> None:
        require(not self.rest, "a row that is too long")


# From the entry to the array


def check_ref(value: Any, state: bytes) -> tuple[str, bytes]:
    refs = Leaves(value, from_base64)
    require(refs.root(lambda row: digest("ref row", row)) == state, "the ref is not in the state")
    require(len(refs.leaves) == 1, "not one ref")
    fields = Fields(refs.leaves[0])
    name, commit = fields.text(), fields.hash()
    fields.end()
    return name, commit


def check_commits(documents: Any, head: bytes) -> tuple[bytes, dict[str, Any]]:
    require(isinstance(documents, list) and 0 < len(documents) <= MAX_COMMITS, "commits")
    expected, commit_id, commit = {head}, b"", {}
    for commit in documents:
        require(isinstance(commit, dict), "a commit")
        commit_id = digest("commit", canonical(commit))
        require(commit_id in expected, "a commit that does not follow")
        expected = {from_hex(parent) for parent in commit["parents"]}
    return commit_id, commit


def check_tree(pages: Any, root: bytes, name: str) -> tuple[int, bytes, bytes]:
    """Kind, content and document of the row of `name` in the tree `root`."""
    require(isinstance(pages, list) and bool(pages), "a tree without pages")
    expected, rows, level = root, None, None
    for value in pages[:-1]:
        page, fields, kind, own_level, first = _tree_row(value, expected, rows, level)
        expected, rows, level = fields.hash(), fields.number(), own_level
        fields.end()
        leads_there = kind == KIND_INNER and own_level > 0
        require(leads_there and first.encode() <= name.encode(), "a row that leads elsewhere")
    page, fields, kind, own_level, own_name = _tree_row(pages[-1], expected, rows, level)
    require(own_level == 0 and kind != KIND_INNER and own_name == name, "the row of another name")
    content, _ = fields.hash(), fields.number()
    document = fields.field()
    require(len(document) == 32, "a document without hash")
    for _ in range(2):
        require(len(fields.field()) in (0, 32), "a statistics root that is no hash")
    fields.end()
    return kind, content, document


def _tree_row(value: Any, expected: bytes, rows: int | None, level: int | None):
    page = Leaves(value, from_base64)
    is_page = page.count <= PAGE_ROWS and rows in (None, page.count)
    require(is_page and page.root(lambda row: digest("tree row", row)) == expected, "a tree page")
    require(len(page.leaves) == 1, "not one row of a tree page")
    fields = Fields(page.leaves[0])
    kind, own_level = fields.byte(), fields.byte()
    require(level in (None, own_level + 1), "a tree page of another level")
    return page, fields, kind, own_level, fields.text()


# From the array to its inner chunks


class Layout:
    """Where a chunk's row is in the radix tree over the chunk grid."""

    def __init__(self, grid: list[int]) -> None:
        require(prod(grid) < 2**64, "too many chunks")
        self.bits = [max(length - 1, 0).bit_length() for length in grid]
        total = 0 if 0 in grid else sum(self.bits)
        self.height = max(1, -(-total // LEVEL_BITS))
        self.order = [
            (axis, k)
            for k in range(max(self.bits, default=0))
            for axis, bits in enumerate(self.bits)
            if bits > k
        ]

    def address(self, coordinate) -> int:
        bits = enumerate(self.order)
        return sum((coordinate[axis] >> k & 1) << at for at, (axis, k) in bits)

    def fits(self, coordinate) -> bool:
        return all(at >> bits == 0 for at, bits in zip(coordinate, self.bits))


class Array:
    """What a `zarr.json` says about chunks and inner chunks."""

    def __init__(self, metadata: Any) -> None:
        try:
            require(metadata["node_type"] == "array" and metadata["zarr_format"] == 3, "no array")
            grid = metadata["chunk_grid"]
            require(grid["name"] == "regular", "a chunk grid that is not regular")
            self.shape = list(metadata["shape"])
            self.chunk = list(grid["configuration"]["chunk_shape"])
            require(len(self.shape) == len(self.chunk) and 0 not in self.chunk, "a chunk shape")
            self.grid = [-(-n // c) for n, c in zip(self.shape, self.chunk)]
            self._sharding(metadata["codecs"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ProofError(f"metadata: {error!r}") from error
        self.layout = Layout(self.grid)

    def _sharding(self, codecs: list[dict[str, Any]]) -> None:
        """Inner chunks, if the codecs are those of a shard that is verified by inner chunk."""
        self.inner, self.order = self.chunk, list(range(len(self.chunk)))
        self.is_sharded = False
        *before, last = codecs
        settings = last.get("configuration", {})
        if last["name"] != "sharding_indexed" or settings.get("index_location", "end") != "end":
            return
        order = self.order
        for codec in before:
            if codec["name"] == "transpose":
                order = [order[axis] for axis in codec["configuration"]["order"]]
            elif codec["name"] not in ("bitround", "fixedscaleoffset", "numcodecs.bitround",
                                       "numcodecs.fixedscaleoffset"):
                return
        index = settings["index_codecs"]
        is_canonical = (
            len(index) == 2
            and index[0]["name"] == "bytes"
            and index[0].get("configuration", {}).get("endian") == "little"
            and index[1]["name"] == "crc32c"
        )
        if not is_canonical:
            return
        self.inner = [0] * len(self.chunk)
        for axis, length in zip(order, settings["chunk_shape"], strict=True):
            self.inner[axis] = length
        self.order, self.is_sharded = order, True

    @property
    def inner_chunks(self) -> int:
        return prod(c // i for c, i in zip(self.chunk, self.inner))

    def wanted(self, chunk, start, shape) -> list[int]:
        """Numbers of the inner chunks of a chunk that meet the region."""
        if not self.is_sharded:
            return [0]
        ranges = []
        for axis, inner in enumerate(self.inner):
            corner = chunk[axis] * self.chunk[axis]
            first = max(start[axis], corner) - corner
            last = min(start[axis] + shape[axis], corner + self.chunk[axis]) - corner
            ranges.append(range(first // inner, -(-last // inner)))
        counts = [self.chunk[axis] // self.inner[axis] for axis in self.order]
        numbers = []
        for at in product(*ranges):
            number = 0
            for axis, count in zip(self.order, counts):
                number = number * count + at[axis]
            numbers.append(number)
        return sorted(numbers)


class ChunkChecker:
    """Follows the manifest to every chunk that meets the region."""

    def __init__(self, array: Array, start, shape, manifest: Any, chunks: Any) -> None:
        require(isinstance(manifest, list) and isinstance(chunks, list), "manifest and chunks")
        self.array, self.start, self.shape = array, start, shape
        self.pages, self.chunks = iter(manifest), iter(chunks)
        self.proven: list = []
        ranges = (
            range(a // c, -(-(a + n) // c)) for a, n, c in zip(start, shape, array.chunk)
        )
        self.targets = sorted((array.layout.address(at), at) for at in product(*ranges))

    def check(self, root: bytes) -> list:
        if root == EMPTY_ID:
            for _, at in self.targets:
                self.absent(at)
        else:
            self.page(root, None, self.array.layout.height - 1, 0, self.targets)
        left = next(self.pages, None) is not None or next(self.chunks, None) is not None
        require(not left, "pages or chunks left over")
        return self.proven

    def page(self, expected: bytes, rows: int | None, level: int, place: int, targets) -> None:
        value = next(self.pages, None)
        require(value is not None, "too few pages")
        page = Leaves(value, from_base64)
        is_page = 0 < page.count <= PAGE_ROWS and rows in (None, page.count)
        require(is_page and page.root(lambda row: digest("row", row)) == expected, "a page")
        shown = [self.row(row, level, place) for row in page.leaves]
        addresses = [address for address, *_ in shown]
        require(all(a < b for a, b in zip(addresses, addresses[1:])), "rows out of order")
        used = set()
        free = LEVEL_BITS * level
        for high, group in groupby(targets, lambda target: target[0] >> free):
            group, wanted = list(group), high << free
            if wanted in addresses:
                at = addresses.index(wanted)
                used.add(at)
                _, kind, own_id, length = shown[at]
                if level > 0:
                    below = wanted >> LEVEL_BITS * level
                    self.page(own_id, length, level - 1, below, group)
                else:
                    self.chunk(group[0][1], kind, own_id, length)
                continue
            # The rows on both sides are neighbours, or the page ends there.
            after = sum(address < wanted for address in addresses)
            first = page.places[after - 1] + 1 if after else 0
            end = page.places[after] if after < len(addresses) else page.count
            require(first == end, "a row between two that are not neighbours")
            used |= {at for at in (after - 1, after) if 0 <= at < len(addresses)}
            for _, at in group:
                self.absent(at)
        require(len(used) == len(shown), "rows that prove nothing")

    def row(self, data: bytes, level: int, place: int) -> tuple[int, int, bytes, int]:
        """Address, kind, id and length of a manifest row."""
        layout, fields = self.array.layout, Fields(data)
        kind, own_level, dimensions = fields.byte(), fields.byte(), fields.byte()
        require(own_level == level and dimensions == len(layout.bits), "a row of another level")
        coordinate = [fields.number() for _ in range(dimensions)]
        own_id, length = fields.hash(), fields.number()
        require(layout.fits(coordinate), "a row outside the grid")
        address = layout.address(coordinate)
        free = LEVEL_BITS * level
        in_page = address >> free + LEVEL_BITS == place and address >> free << free == address
        require(in_page, "a row that belongs to another page")
        if level > 0:
            require(kind == KIND_INNER, "a chunk where a page should be")
        else:
            require(kind in (KIND_SHARD, KIND_PLAIN), "a row of no kind")
            storage = fields.field()
            require(storage in (b"\0", b"\1", b"\2"), "a chunk that is stored nowhere")
            if storage == b"\2":
                fields.text()
                require(len(fields.field()) == 8, "an offset that is no number")
                fields.text()
        fields.end()
        return address, kind, own_id, length

    def absent(self, at) -> None:
        numbers = self.array.wanted(at, self.start, self.shape)
        self.proven.append((at, [(number, None) for number in numbers]))

    def chunk(self, at, kind: int, own_id: bytes, length: int) -> None:
        value = next(self.chunks, None)
        require(value is not None, "too few chunks")
        if kind == KIND_PLAIN:
            require(not self.array.is_sharded, "a plain chunk of a sharded array")
            data = from_base64(value)
            is_it = len(data) == length and digest("plain chunk", data) == own_id
            require(is_it, "a chunk with other bytes")
            self.proven.append((at, [(0, data)]))
            return
        require(self.array.is_sharded, "a shard of an array without shards")
        shard = Leaves(value, lambda text: None if text is None else from_base64(text))
        require(shard.count == self.array.inner_chunks, "a shard of other inner chunks")
        require(b"" not in shard.leaves, "an inner chunk of no bytes")
        leaf = lambda data: NO_HASH if data is None else digest("inner chunk", data)  # noqa: E731
        require(shard.root(leaf) == own_id, "a shard with other inner chunks")
        wanted = self.array.wanted(at, self.start, self.shape)
        require(shard.places == wanted, "other inner chunks than were asked for")
        self.proven.append((at, list(zip(wanted, shard.leaves))))


def check(data: bytes) -> Proven:
    """Checks a proof by itself.

    Raises ProofError with what does not follow.
    """
    _, document = parse_with_self("proof", data)
    names = ["format", "path", "start", "shape", "entry", "refs", "commits", "trees", "metadata",
             "manifest", "chunks"]
    (form, path, start, shape, entry, refs, commits, trees, metadata, manifest,
     chunks) = members(document, names, "a proof")
    require(form == FORMAT, f"{form!r} is not {FORMAT}")

    require(isinstance(entry, dict), "an entry")
    entry_hash = without_self("log entry", entry)
    sequence, time, state, *_ = members(
        entry, ["sequence", "time", "state", "previous", "actor", "operations"], "an entry"
    )
    number = decimal(sequence)
    reference, head = check_ref(refs, from_hex(state))
    commit_id, commit = check_commits(commits, head)

    require(isinstance(path, str) and bool(path) and isinstance(trees, list), "a path")
    parts = path.split("/")
    require(len(parts) == len(trees), "not one tree for each name")
    kind, content = KIND_GROUP, from_hex(commit["root"]["id"])
    document_hash = b""
    for part, pages in zip(parts, trees):
        require(kind == KIND_GROUP, f"{part!r} is below an array")
        kind, content, document_hash = check_tree(pages, content, part)
    require(kind == KIND_ARRAY, f"{path} is no array")
    is_its = digest("document", canonical(metadata)) == document_hash
    require(is_its, "the metadata are not those of the array")

    array = Array(metadata)
    require(isinstance(start, list) and isinstance(shape, list), "a region")
    first, lengths = [decimal(text) for text in start], [decimal(text) for text in shape]
    require(len(first) == len(lengths) == len(array.shape), "a region of other dimensions")
    inside = all(a + n <= m and n > 0 for a, n, m in zip(first, lengths, array.shape))
    require(inside, "a region that is not in the array, or empty")
    counts = (-(-(a + n) // i) - a // i for a, n, i in zip(first, lengths, array.inner))
    require(prod(counts) <= MAX_INNER_CHUNKS, "a region of too many inner chunks")
    checker = ChunkChecker(array, first, lengths, manifest, chunks)
    return Proven(
        sequence=number,
        entry=entry_hash.hex(),
        time=time,
        reference=reference,
        commit=commit_id.hex(),
        path=path,
        metadata=metadata,
        start=tuple(first),
        shape=tuple(lengths),
        chunks=checker.check(content),
    )


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m quarr.proof PROOF", file=sys.stderr)
        return 2
    try:
        with open(sys.argv[1], "rb") as file:
            proven = check(file.read())
    except (OSError, ProofError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    slices = ",".join(f"{a}:{a + n}" for a, n in zip(proven.start, proven.shape))
    print(f"holds: {proven.path}[{slices}] at commit {proven.commit}")
    print(f"not checked, who vouches for log entry {proven.sequence} {proven.entry}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
