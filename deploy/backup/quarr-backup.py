#!/usr/bin/env python3
"""Copies the repositories of a store to another one: a bucket in another region, account or cloud, a disk.

    quarr-backup.py SOURCE DESTINATION [--repository NAME]... [--source-setting k=v]... [--destination-setting k=v]...

Both are URLs (s3://bucket/prefix, gs://…, az://…, file:///path). Credentials come from the environment, as
Quarr takes them, with settings over them by the names of obstore (`aws_endpoint=…`). Needs obstore.

Objects are named by what they hold and never change, so only what is not there yet is copied: the second
backup copies what was added since the first. What was copied is one state of the repository: the newest
entry of the log is noted first, everything it leads to is copied next, and entries of the log last, in their
order. A backup that was broken off is a repository at an earlier entry, or none, never a wrong one; run it
again. Restoring is a backup the other way.

It must take less time than `quarr gc --retention`, 7 days unless said otherwise: what is deleted meanwhile
may be missing. `quarr verify --store DESTINATION` proves every byte of a backup.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, from_url

# In the order of copying: what is referred to comes before what refers to it. The log makes a repository
# what it is, so it comes after these, and after it what is signed.
FOLDERS = ("shards", "objects", "staging", "checkpoints")
# Overwritten, unlike all others: the newest signed head.
HEAD = "tlog/checkpoint"
AT_ONCE = 16


def keys(store: ObjectStore, prefix: str) -> dict[str, int]:
    """Sizes of the objects below a prefix."""
    return {item["path"]: item["size"] for page in obstore.list(store, prefix) for item in page}


def repositories(store: ObjectStore) -> list[str]:
    folders = obstore.list_with_delimiter(store)["common_prefixes"]
    names = [folder.rstrip("/") for folder in folders if not folder.startswith(".")]
    return [name for name in names if exists(store, f"{name}/repo.json")]


def exists(store: ObjectStore, key: str) -> bool:
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return False
    return True


def get(store: ObjectStore, key: str) -> bytes | None:
    try:
        return bytes(obstore.get(store, key).bytes())
    except FileNotFoundError:
        return None


def number(key: str) -> int:
    """The sequence number of `…/<20 digits>.json`."""
    return int(key.rpartition("/")[2].removesuffix(".json"))


def differs(source: ObjectStore, destination: ObjectStore, key: str) -> bool:
    """Whether an object is at both places and is not the same."""
    there = get(destination, key)
    return there is not None and there != get(source, key)


class Copy:
    def __init__(self, source: ObjectStore, destination: ObjectStore) -> None:
        self.source, self.destination = source, destination
        self.objects = self.bytes = self.there = 0

    def one(self, key: str) -> int:
        data = obstore.get(self.source, key).bytes()
        try:
            obstore.put(self.destination, key, data, mode="create")
        except AlreadyExistsError:
            there = obstore.head(self.destination, key)["size"]
            if there != len(data):
                raise SystemExit(f"{key}: {there} bytes are there, not {len(data)}: this is a backup of another repository") from None
        return len(data)

    def missing(self, wanted: dict[str, int], prefix: str) -> list[str]:
        there = keys(self.destination, prefix)
        for key, size in wanted.items():
            if there.get(key, size) != size:
                raise SystemExit(f"{key}: {there[key]} bytes are there, not {size}: this is a backup of another repository")
        self.there += len(wanted.keys() & there.keys())
        return [key for key in wanted if key not in there]

    def some(self, wanted: Iterable[str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for size in pool.map(self.one, wanted):
                self.objects, self.bytes = self.objects + 1, self.bytes + size

    def repository(self, name: str) -> int:
        """Copies a repository; gives the number of its newest entry that is in the copy."""
        if differs(self.source, self.destination, f"{name}/repo.json"):
            raise SystemExit(f"{name}: another repository of this name is there")
        # First the signatures, then the log, then all else: what is noted leads only to what is there by
        # the time it is listed.
        head = get(self.source, f"{name}/{HEAD}")
        signed = keys(self.source, f"{name}/tlog")
        signed.pop(f"{name}/{HEAD}", None)
        entries = keys(self.source, f"{name}/log")
        entries.pop(f"{name}/log/_hint.json", None)
        if not entries:
            raise SystemExit(f"{name}: there is no such repository")
        newest = number(max(entries))
        for folder in FOLDERS:
            wanted = keys(self.source, f"{name}/{folder}")
            if folder == "checkpoints":
                wanted = {key: size for key, size in wanted.items() if number(key) <= newest}
            self.some(self.missing(wanted, f"{name}/{folder}"))
        if not exists(self.destination, f"{name}/repo.json"):
            self.some([f"{name}/repo.json"])
        for key in sorted(self.missing(entries, f"{name}/log")):
            self.some([key])
        self.some(self.missing(signed, f"{name}/tlog"))
        if head is not None:
            obstore.put(self.destination, f"{name}/{HEAD}", head)
        return newest


def settings(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--repository", action="append", default=[], metavar="NAME")
    parser.add_argument("--source-setting", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--destination-setting", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    source = from_url(asked.source, **settings(asked.source_setting))
    destination = from_url(asked.destination, **settings(asked.destination_setting))
    for name in asked.repository or repositories(source):
        copy = Copy(source, destination)
        newest = copy.repository(name)
        print(f"{name}: to entry {newest}; {copy.objects} objects, {copy.bytes} bytes copied, {copy.there} were there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
