"""Checks a Quarr proof or receipt with nothing but the file and the log's key.

    python -m quarr.proof proof.json --key VKEY
    python -m quarr.proof commit.tlog-proof --key VKEY

It follows ``docs/proofs.md`` and shares no code with the program that makes proofs. It needs
``blake3`` and ``cryptography``. A proof shows that an array held certain encoded inner chunks at a
commit, that a log entry names that commit, and that the entry is in the log under a signed
checkpoint. With ``--no-signature`` it does not say whose log that is.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import re
import struct
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from hashlib import sha256
from itertools import groupby, product
from math import isfinite, prod
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "quarr-proof-v1"
STATISTICS_FORMAT = "quarr-statistics-proof-v1"
REDUCERS = ("min", "max", "count", "sum", "mean", "var", "std")
STATISTICS_ATTRIBUTES = (
    "_FillValue", "_Unsigned", "add_offset", "missing_value", "scale_factor", "valid_max",
    "valid_min", "valid_range",
)  # fmt: skip
EMPTY_ID = blake3(b"", derive_key_context="quarr v1 node").digest()
NO_HASH = bytes(32)
MAX_BYTES = 64 << 20
MAX_INNER_CHUNKS = 1 << 16
MAX_COMMITS = 1 << 16
MAX_NOTE_BYTES = 64 << 10
# What reading a document that is not of its schema ends in.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
MAX_SIGNATURES = 64
RECEIPT_HEADER = "c2sp.org/tlog-proof@v1"
PAGE_ROWS = 1024
LEVEL_BITS = 10
COMMIT_MEMBERS = {
    "author", "deleted", "message", "parents", "properties", "properties_root", "root", "time",
    "totals", "tree", "write_id",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

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
    chunks: list[tuple[tuple[int, ...], list[tuple[int, bytes | None]]]] | None
    """Chunk coordinates, and of each chunk its inner chunks: number, encoded bytes or fill value."""
    statistics: ProvenStatistics | None
    """What its writer claimed of all cells, where it is statistics that are proven."""
    checkpoint: Checkpoint | None
    """Of a log that has the entry; means nothing until a key that is trusted has signed it."""


@dataclass(frozen=True)
class Statistics:
    """Of a set of cells, as stored: neither scaled nor offset."""

    valid: int = 0
    missing: int = 0
    moments: tuple[Any, Any, Any, tuple[float, float]] | None = None
    """Smallest, largest, sum (an integer, or a double-double) and squared differences (a
    double-double)."""
    kind: int = 0
    """Of the values: 0 signed, 1 unsigned, 2 float."""

    @classmethod
    def parse(cls, data: bytes) -> Statistics:
        require(len(data) == 65, "statistics of another length")
        number = struct.Struct("<Q").unpack_from
        valid, missing = number(data, 0)[0], number(data, 8)[0]
        if valid == 0:
            require(not any(data[16:]), "statistics that are not canonical")
            return cls(valid, missing)
        kind, m2 = data[16], struct.unpack_from("<dd", data, 49)
        require(kind in (0, 1, 2), "statistics of no kind")
        least, largest = struct.unpack_from(("<qq", "<QQ", "<dd")[kind], data, 17)
        require(least == least and largest == largest, "an extreme that is no number")
        total: Any = int.from_bytes(data[33:49], "little", signed=True)
        if kind == 2:
            total = struct.unpack_from("<dd", data, 33)
        return cls(valid, missing, (least, largest, total, m2), kind)

    def merge(self, other: Statistics) -> Statistics:
        valid = min(self.valid + other.valid, 2**64 - 1)
        missing = min(self.missing + other.missing, 2**64 - 1)
        if self.moments is None or other.moments is None:
            one = self if self.moments else other
            return Statistics(valid, missing, one.moments, one.kind)
        (min_a, max_a, sum_a, m2_a), (min_b, max_b, sum_b, m2_b) = self.moments, other.moments
        n_a, n_b = float(self.valid), float(other.valid)
        mean_a, mean_b = divide(to_double(sum_a), n_a), divide(to_double(sum_b), n_b)
        delta = add(mean_b, multiply(mean_a, (-1.0, 0.0)))
        weight = divide(exact_product(n_a, n_b), n_a + n_b)
        between = multiply(multiply(delta, delta), weight)
        return Statistics(
            valid,
            missing,
            (
                min_b if min_b < min_a else min_a,
                max_b if max_a < max_b else max_a,
                add_sums(sum_a, sum_b),
                add(add(m2_a, m2_b), between),
            ),
            self.kind,
        )


def sum_to_float(total: Any) -> float:
    return total[0] + total[1] if isinstance(total, tuple) else float(total)


def to_double(total: Any) -> tuple[float, float]:
    if isinstance(total, tuple):
        return total
    high = float(total)
    return high, float(total - int(high))


def renormalised(high: float, error: float) -> tuple[float, float]:
    if not isfinite(high) or not isfinite(error):
        return high, 0.0
    total, low = two_sum(high, error)
    return (total, low) if isfinite(total) else (total, 0.0)


def exact_product(a: float, b: float) -> tuple[float, float]:
    product = a * b
    if not isfinite(product):
        return product, 0.0
    return product, float(Fraction(a) * Fraction(b) - Fraction(product))


def add(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    total, error = two_sum(a[0], b[0])
    return renormalised(total, error + (a[1] + b[1]))


def multiply(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    product, error = exact_product(a[0], b[0])
    return renormalised(product, error + (a[0] * b[1] + a[1] * b[0]))


def divide(a: tuple[float, float], divisor: float) -> tuple[float, float]:
    quotient = a[0] / divisor
    product, error = exact_product(quotient, divisor)
    rest = (a[0] - product) - error + a[1]
    return renormalised(quotient, rest / divisor)


def two_sum(a: float, b: float) -> tuple[float, float]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def add_sums(a: Any, b: Any) -> Any:
    if not isinstance(a, tuple):
        return (a + b + 2**127) % 2**128 - 2**127
    high, error = two_sum(a[0], b[0])
    if not isfinite(high):
        return high, 0.0
    return two_sum(high, error + (a[1] + b[1]))


def merge_balanced(rows: list[Statistics]) -> Statistics:
    if not rows:
        return Statistics()
    if len(rows) == 1:
        return rows[0]
    half = _split(len(rows))
    return merge_balanced(rows[:half]).merge(merge_balanced(rows[half:]))


@dataclass(frozen=True)
class ProvenStatistics:
    """What is proven of the cells of a region that is made of whole chunks."""

    reduce: str
    stored: Statistics
    """Of the cells in stored chunks."""
    absent_cells: int
    """Cells in chunks that are not stored: they hold the fill value."""


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

    def __init__(self, value: Any, leaf: Callable[[Any], Any]) -> None:
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

    def root(self, leaf_hash: Callable[[Any], bytes]) -> bytes:
        known = [(place, leaf_hash(leaf)) for place, leaf in zip(self.places, self.leaves)]
        rest = iter(self.hashes)
        root = self._join(0, self.count, known, rest)
        require(next(rest, None) is None, "hashes left over")
        return root

    def around(self, after: int) -> set[int]:
        """Of the leaves shown, those that prove that there is none between: so many come before.

        They are neighbours, or the tree ends there.
        """
        first = self.places[after - 1] + 1 if after else 0
        end = self.places[after] if after < len(self.places) else self.count
        require(first == end, "a row between two that are not neighbours")
        return {at for at in (after - 1, after) if 0 <= at < len(self.places)}

    def _join(
        self, start: int, count: int, known: list[tuple[int, bytes]], rest: Iterator[bytes]
    ) -> bytes:
        if count == 0:
            return EMPTY_ID
        if not known:
            found = next(rest, b"")
            require(bool(found), "too few hashes")
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


# The transparency log: RFC 6962 over SHA-256, signed notes, checkpoints


def tree_leaf(record: bytes) -> bytes:
    return sha256(b"\0" + record).digest()


def tree_node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def root_from_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    require(0 <= index < size, "an entry that is not in the log")
    first, last, root = index, size - 1, leaf
    for sibling in path:
        require(last > 0, "too many hashes of the log")
        if first & 1 or first == last:
            root = tree_node(sibling, root)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            root = tree_node(root, sibling)
        first, last = first >> 1, last >> 1
    require(last == 0, "too few hashes of the log")
    return root


def check_key_name(name: str) -> None:
    bad = any(c.isspace() or unicodedata.category(c) == "Cc" or c == "+" for c in name)
    require(0 < len(name.encode()) <= 255 and not bad, f"{name!r} is not the name of a key")


NOTE_KEY, COSIGNATURE_KEY = 1, 4


@dataclass(frozen=True)
class VerifierKey:
    """A public key with its name: of a log, or of a witness."""

    name: str
    key_id: bytes
    kind: int
    key: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        check_key_name(name)
        material = from_base64(encoded)
        is_known = len(material) == 33 and material[0] in (NOTE_KEY, COSIGNATURE_KEY)
        require(is_known, "not an Ed25519 verifier key")
        own = sha256(name.encode() + b"\n" + material).digest()[:4]
        require(key_id.lower() == own.hex(), "name, id and key do not belong together")
        return cls(name, own, material[0], material[1:])

    def check(self, text: str, signature: bytes) -> None:
        if self.kind == COSIGNATURE_KEY:
            time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            text = f"cosignature/v1\ntime {time}\n{text}"
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text.encode())
        except (InvalidSignature, ValueError) as error:
            raise ProofError(f"the signature of {self.name} is wrong") from error


@dataclass(frozen=True)
class Checkpoint:
    """A signed head of a transparency log."""

    origin: str
    size: int
    root: bytes
    text: str
    signatures: list[tuple[str, bytes, bytes]]
    """Name and id of a key, and what it signed; right or not."""

    @classmethod
    def parse(cls, note: str) -> Checkpoint:
        require(len(note.encode()) <= MAX_NOTE_BYTES, "a note that is too long")
        require(not any(c < " " and c != "\n" for c in note), "a note with control characters")
        end = note.rfind("\n\n")
        require(end >= 0 and note.endswith("\n"), "a note without signatures")
        text, lines = note[: end + 1], note[end + 2 : -1].split("\n")
        require(len(lines) <= MAX_SIGNATURES, "too many signatures")
        body = text[:-1].split("\n")
        require(len(body) >= 3 and all(body), "no text of a checkpoint")
        root = from_base64(body[2])
        require(len(root) == 32, "no root of a log")
        signatures = [cls._signature(line) for line in lines]
        return cls(body[0], decimal(body[1]), root, text, signatures)

    @staticmethod
    def _signature(line: str) -> tuple[str, bytes, bytes]:
        require(line.startswith("\u2014 "), "no signature line")
        name, _, encoded = line[2:].partition(" ")
        check_key_name(name)
        data = from_base64(encoded)
        require(len(data) > 4, "a signature that is too short")
        return name, data[:4], data[4:]

    def verify(self, keys: list[VerifierKey]) -> list[str]:
        """The names of those who signed; every key that is given must be of one of them."""
        own = [key for key in keys if key.kind == NOTE_KEY and key.name == self.origin]
        require(bool(own), f"it is a checkpoint of {self.origin}, and no key of that log is given")
        signed = set()
        for name, key_id, signature in self.signatures:
            for key in keys:
                if (key.name, key.key_id) == (name, key_id):
                    key.check(self.text, signature)
                    signed.add((name, key.kind))
        require((self.origin, NOTE_KEY) in signed, "the log's key has not signed it")
        missing = [key.name for key in keys if (key.name, key.kind) not in signed]
        require(not missing, f"not signed by {', '.join(missing)}")
        return sorted({name for name, _ in signed})


@dataclass(frozen=True)
class Receipt:
    """The proof that a log has an entry."""

    extra: bytes | None
    index: int
    hashes: list[bytes]
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, text: str) -> Receipt:
        head, _, note = text.partition("\n\n")
        lines = head.split("\n")
        require(lines.pop(0) == RECEIPT_HEADER and bool(lines), "no receipt")
        extra = None
        if lines[0].startswith("extra "):
            extra = from_base64(lines.pop(0)[len("extra ") :])
        require(bool(lines) and lines[0].startswith("index "), "a receipt without index")
        index = decimal(lines.pop(0)[len("index ") :])
        hashes = [from_base64(line) for line in lines]
        require(all(len(data) == 32 for data in hashes), "no hash of the log")
        return cls(extra, index, hashes, Checkpoint.parse(note))

    def check(self, record: bytes) -> None:
        """Checks that the log has this record."""
        head = self.checkpoint
        root = root_from_inclusion(tree_leaf(record), self.index, head.size, self.hashes)
        require(root == head.root, f"entry {self.index} is not in the signed log")

    def check_entry(self) -> tuple[str, dict[str, Any]]:
        """The hash of the log entry that the receipt brings along, and the entry."""
        require(self.extra is not None, "a receipt without log entry")
        *first, entry = (self.extra or b"").split(b"\n", 4)
        require(len(first) == 4, "a receipt without log entry")
        record = b"\n".join(first) + b"\n"
        own, value = parse_with_self("log entry", entry)
        require(value.get("sequence") == str(self.index), "the log entry of another number")
        try:
            repository = first[1].decode()
        except UnicodeDecodeError as error:
            raise ProofError("no id of a repository") from error
        require(record == log_record(repository, self.index, own), "the record of another entry")
        self.check(record)
        return own.hex(), value


def log_record(repository: Any, sequence: int, entry: bytes) -> bytes:
    """What the transparency log says of a log entry."""
    try:
        is_id = isinstance(repository, str) and str(uuid.UUID(repository)) == repository
    except ValueError:
        is_id = False
    require(is_id, "no id of a repository")
    return f"quarr-log-v1\n{repository}\n{sequence}\n{entry.hex()}\n".encode()


def check_published(value: Any, sequence: int, entry: bytes) -> Checkpoint | None:
    if value is None:
        return None
    repository, text = members(value, ["repository", "receipt"], "a receipt")
    require(isinstance(text, str), "a receipt")
    receipt = Receipt.parse(text)
    require(receipt.extra is None and receipt.index == sequence, "the receipt of something else")
    receipt.check(log_record(repository, sequence, entry))
    return receipt.checkpoint


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
        require(set(commit) == COMMIT_MEMBERS, "members of a commit")
        expected = {from_hex(parent) for parent in commit["parents"]}
        require(len(commit["parents"]) <= 2, "parents of a commit")
        check_time(commit["time"])
    return commit_id, commit


def check_time(text: Any) -> None:
    require(isinstance(text, str) and TIME.fullmatch(text) is not None, "a time")
    datetime.fromisoformat(text)


def check_tree(pages: Any, root: bytes, name: str) -> tuple[int, bytes, bytes, Any]:
    """Kind, content, document and statistics of the row of `name` in the tree `root`."""
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
    statistics = fields.field(), fields.field()
    is_pair = [len(part) for part in statistics] in ([0, 0], [32, 32])
    require(is_pair, "a statistics root that is no hash")
    fields.end()
    return kind, content, document, statistics if statistics[0] else None


def _tree_row(
    value: Any, expected: bytes, rows: int | None, level: int | None
) -> tuple[Leaves, Fields, int, int, str]:
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

    def address(self, coordinate: Sequence[int]) -> int:
        bits = enumerate(self.order)
        return sum((coordinate[axis] >> k & 1) << at for at, (axis, k) in bits)

    def row_address(self, coordinate: Sequence[int], level: int, place: int) -> int:
        """The address of a row of the page at this level that covers this place."""
        require(self.fits(coordinate), "a row outside the grid")
        address, free = self.address(coordinate), LEVEL_BITS * level
        in_page = address >> free + LEVEL_BITS == place and address >> free << free == address
        require(in_page, "a row that belongs to another page")
        return address

    def coordinate(self, address: int) -> list[int]:
        found = [0] * len(self.bits)
        for at, (axis, k) in enumerate(self.order):
            found[axis] |= (address >> at & 1) << k
        return found

    def spans(self, level: int) -> list[int]:
        """How many chunks a row at this level covers along each dimension."""
        found = [1] * len(self.bits)
        for axis, _ in self.order[: LEVEL_BITS * level]:
            found[axis] *= 2
        return found

    def fits(self, coordinate: Sequence[int]) -> bool:
        return all(at >> bits == 0 for at, bits in zip(coordinate, self.bits))


def _codec(codec: Any) -> dict[str, Any]:
    """A codec without configuration may be its name alone."""
    return {"name": codec} if isinstance(codec, str) else codec


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

    def _sharding(self, codecs: list[Any]) -> None:
        """Inner chunks, if the codecs are those of a shard that is verified by inner chunk."""
        codecs = [_codec(codec) for codec in codecs]
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
        index = [_codec(codec) for codec in settings["index_codecs"]]
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

    def wanted(
        self, chunk: Sequence[int], start: Sequence[int], shape: Sequence[int]
    ) -> list[int]:
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

    def __init__(
        self,
        array: Array,
        start: Sequence[int],
        shape: Sequence[int],
        manifest: Any,
        chunks: Any,
    ) -> None:
        require(isinstance(manifest, list) and isinstance(chunks, list), "manifest and chunks")
        self.array, self.start, self.shape = array, start, shape
        self.pages, self.chunks = iter(manifest), iter(chunks)
        self.proven: list[Any] = []
        ranges = (
            range(a // c, -(-(a + n) // c)) for a, n, c in zip(start, shape, array.chunk)
        )
        self.targets = sorted((array.layout.address(at), at) for at in product(*ranges))

    def check(self, root: bytes) -> list[Any]:
        if root == EMPTY_ID:
            for _, at in self.targets:
                self.absent(at)
        else:
            self.page(root, None, self.array.layout.height - 1, 0, self.targets)
        left = next(self.pages, None) is not None or next(self.chunks, None) is not None
        require(not left, "pages or chunks left over")
        return self.proven

    def page(
        self, expected: bytes, rows: int | None, level: int, place: int, targets: Any
    ) -> None:
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
        for high, grouped in groupby(targets, lambda target: target[0] >> free):
            group, wanted = list(grouped), high << free
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
            used |= page.around(sum(address < wanted for address in addresses))
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
        address = layout.row_address(coordinate, level, place)
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

    def absent(self, at: Sequence[int]) -> None:
        numbers = self.array.wanted(at, self.start, self.shape)
        self.proven.append((at, [(number, None) for number in numbers]))

    def chunk(self, at: Sequence[int], kind: int, own_id: bytes, length: int) -> None:
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


class StatisticsChecker:
    """Follows the statistics to the rows that together cover the region."""

    def __init__(
        self, array: Array, start: Sequence[int], shape: Sequence[int], pages: Any
    ) -> None:
        require(isinstance(pages, list), "statistics")
        self.array, self.pages = array, iter(pages)
        self.kinds: set[int] = set()
        self.wanted = []
        for first, length, chunk, whole in zip(start, shape, array.chunk, array.shape):
            end = first + length
            is_whole = first % chunk == 0 and (end % chunk == 0 or end == whole)
            require(is_whole, "a region with parts of chunks")
            self.wanted.append((first // chunk, -(-end // chunk)))

    def check(self, root: bytes) -> Statistics:
        found = Statistics()
        if root != EMPTY_ID:
            found = self.page(root, None, self.array.layout.height - 1, 0)
        require(next(self.pages, None) is None, "pages left over")
        return found

    def slots(self, level: int, place: int) -> Iterator[tuple[int, bool]]:
        """Addresses a page may have rows at, those that meet the region, and whether whole."""
        layout, spans = self.array.layout, self.array.layout.spans(level)
        for slot in range(PAGE_ROWS):
            address = (place << LEVEL_BITS | slot) << LEVEL_BITS * level
            origin = layout.coordinate(address)
            if layout.address(origin) != address:
                return
            boxes = [
                (at, min(at + span, grid))
                for at, span, grid in zip(origin, spans, self.array.grid)
            ]
            meeting = [
                (max(a, c), min(b, d)) for (a, b), (c, d) in zip(boxes, self.wanted)
            ]
            if all(a < b for a, b in boxes) and all(a < b for a, b in meeting):
                yield address, meeting == boxes

    def page(self, expected: bytes, rows: int | None, level: int, place: int) -> Statistics:
        value = next(self.pages, None)
        require(value is not None, "too few pages")
        page = Leaves(value, from_base64)
        is_page = 0 < page.count <= PAGE_ROWS and rows in (None, page.count)
        is_it = page.root(lambda row: digest("statistics row", row)) == expected
        require(is_page and is_it, "a page")
        shown = [self.row(row, level, place) for row in page.leaves]
        addresses = [address for address, *_ in shown]
        require(all(a < b for a, b in zip(addresses, addresses[1:])), "rows out of order")
        self.kinds |= {row[3].kind for row in shown if row[3].moments}
        require(len(self.kinds) < 2, "statistics of several kinds")
        used, merging = set(), []
        for wanted, is_whole in self.slots(level, place):
            if wanted in addresses:
                at = addresses.index(wanted)
                used.add(at)
                _, child, child_rows, statistics = shown[at]
                if not is_whole:
                    require(level > 0, "a part of a chunk")
                    below = wanted >> LEVEL_BITS * level
                    statistics = self.page(child, child_rows, level - 1, below)
                merging.append(statistics)
                continue
            used |= page.around(sum(address < wanted for address in addresses))
        require(len(used) == len(shown), "rows that prove nothing")
        return merge_balanced(merging)

    def row(self, data: bytes, level: int, place: int) -> tuple[int, bytes, int, Statistics]:
        layout, fields = self.array.layout, Fields(data)
        kind, own_level, dimensions = fields.byte(), fields.byte(), fields.byte()
        is_row = kind == (0 if level else 1) and own_level == level
        require(is_row and dimensions == len(layout.bits), "a row of another kind or level")
        coordinate = [fields.number() for _ in range(dimensions)]
        child, rows = fields.hash(), fields.number()
        statistics = Statistics.parse(fields.field())
        fields.end()
        require(level > 0 or (child, rows) == (NO_HASH, 0), "a chunk with a page below")
        address = layout.row_address(coordinate, level, place)
        return address, child, rows, statistics


def check_statistics(
    array: Array,
    metadata: dict[str, Any],
    named: Any,
    start: Sequence[int],
    shape: Sequence[int],
    reduce: Any,
    pages: Any,
) -> ProvenStatistics:
    require(named is not None, "an array without statistics")
    root, assumed = named
    attributes = metadata.get("attributes", {})
    own = {
        "shape": metadata["shape"],
        "data_type": metadata["data_type"],
        "fill_value": metadata["fill_value"],
        "attributes": {n: attributes[n] for n in STATISTICS_ATTRIBUTES if n in attributes},
    }
    is_theirs = digest("statistics metadata", canonical(own)) == assumed
    require(is_theirs, "statistics of other metadata")
    require(reduce in REDUCERS, "a reducer that does not follow from statistics")
    stored = StatisticsChecker(array, start, shape, pages).check(root)
    absent = prod(shape) - stored.valid - stored.missing
    require(absent >= 0, "statistics of more cells than there are")
    return ProvenStatistics(reduce, stored, absent)


def check(data: bytes) -> Proven:
    """Checks a proof by itself.

    Raises ProofError with what does not follow.
    """
    try:
        return check_document(data)
    except MALFORMED as error:
        raise ProofError(f"malformed: {error!r}") from error


def check_document(data: bytes) -> Proven:
    _, document = parse_with_self("proof", data)
    is_statistics = document.get("format") == STATISTICS_FORMAT
    own = ["reduce", "statistics"] if is_statistics else ["manifest", "chunks"]
    names = ["format", "path", "start", "shape", "entry", "published", "refs", "commits", "trees",
             "metadata", *own]  # fmt: skip
    (form, path, start, shape, entry, published, refs, commits, trees, metadata,
     *content_of) = members(document, names, "a proof")  # fmt: skip
    require(form in (FORMAT, STATISTICS_FORMAT), f"{form!r} is no format of a proof")

    require(isinstance(entry, dict), "an entry")
    entry_hash = without_self("log entry", entry)
    sequence, time, state, previous, actor, operations = members(
        entry, ["sequence", "time", "state", "previous", "actor", "operations"], "an entry"
    )
    number = decimal(sequence)
    from_hex(previous)
    check_time(time)
    require(isinstance(actor, str) and isinstance(operations, list), "an entry")
    checkpoint = check_published(published, number, entry_hash)
    reference, head = check_ref(refs, from_hex(state))
    commit_id, commit = check_commits(commits, head)

    require(isinstance(path, str) and bool(path) and isinstance(trees, list), "a path")
    parts = path.split("/")
    require(len(parts) == len(trees), "not one tree for each name")
    kind, content = KIND_GROUP, from_hex(commit["root"]["id"])
    document_hash, named = b"", None
    for part, pages in zip(parts, trees):
        require(kind == KIND_GROUP, f"{part!r} is below an array")
        kind, content, document_hash, named = check_tree(pages, content, part)
    require(kind == KIND_ARRAY, f"{path} is no array")
    is_its = digest("document", canonical(metadata)) == document_hash
    require(is_its, "the metadata are not those of the array")

    array = Array(metadata)
    require(isinstance(start, list) and isinstance(shape, list), "a region")
    first, lengths = [decimal(text) for text in start], [decimal(text) for text in shape]
    require(len(first) == len(lengths) == len(array.shape), "a region of other dimensions")
    inside = all(a + n <= m and n > 0 for a, n, m in zip(first, lengths, array.shape))
    require(inside, "a region that is not in the array, or empty")
    proven_chunks, statistics = None, None
    if is_statistics:
        statistics = check_statistics(array, metadata, named, first, lengths, *content_of)
    else:
        counts = (-(-(a + n) // i) - a // i for a, n, i in zip(first, lengths, array.inner))
        require(prod(counts) <= MAX_INNER_CHUNKS, "a region of too many inner chunks")
        proven_chunks = ChunkChecker(array, first, lengths, *content_of).check(content)
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
        chunks=proven_chunks,
        statistics=statistics,
        checkpoint=checkpoint,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quarr.proof", description=__doc__)
    parser.add_argument("proof", type=Path)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--key", action="append", default=[], metavar="VKEY")
    who.add_argument("--no-signature", action="store_true")
    arguments = parser.parse_args()
    try:
        keys = [VerifierKey.parse(text) for text in arguments.key]
        print("\n".join(report(arguments.proof.read_bytes(), keys)))
    except (OSError, ProofError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def report(data: bytes, keys: list[VerifierKey]) -> list[str]:
    """What a proof or receipt shows, in lines."""
    if data.startswith(RECEIPT_HEADER.encode()):
        try:
            receipt = Receipt.parse(data.decode())
        except UnicodeDecodeError as error:
            raise ProofError("a receipt that is no text") from error
        entry, value = receipt.check_entry()
        sequence = receipt.index
        checkpoint: Checkpoint | None = receipt.checkpoint
        origin = receipt.checkpoint.origin
        lines = [f"holds: log entry {sequence} of {value['time']} is in {origin}"]
    else:
        proven = check(data)
        entry, sequence, checkpoint = proven.entry, proven.sequence, proven.checkpoint
        slices = ",".join(f"{a}:{a + n}" for a, n in zip(proven.start, proven.shape))
        lines = [f"holds: {proven.path}[{slices}] at commit {proven.commit}"]
        if proven.statistics is not None:
            stored, absent = proven.statistics.stored, proven.statistics.absent_cells
            lines.append(f"stored cells: {stored}; {absent} cells hold the fill value")
    if not keys:
        return [*lines, f"not checked, who vouches for log entry {sequence} {entry}"]
    if checkpoint is None:
        raise ProofError("the proof has no signed checkpoint")
    return [*lines, f"signed by {', '.join(checkpoint.verify(keys))}"]


if __name__ == "__main__":
    sys.exit(main())
