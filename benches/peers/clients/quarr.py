"""Quarr through HTTP: one connection that is kept open, and Python's own client."""

from __future__ import annotations

import http.client
import json
import threading

import numpy as np

from .base import ARRAY, Box, Peer


class Connection:
    """HTTP/1.1 with as little around it as Python allows."""

    def __init__(self, host: str, port: int) -> None:
        self.local = threading.local()
        self.address = (host, port)
        self.received = 0

    def get(self, path: str, into: np.ndarray | None = None, headers: dict | None = None):
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection(
                *self.address, timeout=600
            )
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        if response.status != 200:
            text = response.read().decode(errors="replace")
            raise RuntimeError(f"{response.status} for {path}: {text[:300]}")
        if into is None:
            body = response.read()
            self.received += len(body)
            return body
        view = memoryview(into).cast("B")
        done = 0
        while done < len(view):
            count = response.readinto(view[done:])
            if count == 0:
                raise RuntimeError(f"the answer to {path} ended after {done} bytes")
            done += count
        response.read()
        self.received += done
        return into


class Client(Peer):
    def open(self) -> None:
        self.http = Connection(self.where["host"], self.where["port"])
        refs = f"/v1/repos/{self.where['repo']}/refs"
        self.path = f"{refs}/main"
        if self.where["pinned"]:
            self.path = f"{refs}/{json.loads(self.http.get(self.path))['commit']}"

    def read(self, box: Box) -> np.ndarray:
        text = ",".join(
            f"{start}:{stop}" if step == 1 else f"{start}:{stop}:{step}"
            for start, stop, step in box
        )
        shape = [len(range(*axis)) for axis in box]
        values = np.empty(shape, "<f4")
        self.http.get(f"{self.path}/data/{ARRAY}?slice={text}", into=values.reshape(-1))
        return values

    def reduce(self, how: str, over: tuple[int, ...] | None) -> np.ndarray:
        query = f"reduce={how}" + (f"&over={','.join(map(str, over))}" if over else "")
        return np.frombuffer(self.http.get(f"{self.path}/reduce/{ARRAY}?{query}"), "<f4")

    def floor(self) -> None:
        self.http.get("/livez")

    def wire_bytes(self) -> int:
        return self.http.received
