"""Stands before HTTP servers, delays every request by as much as it is told, and counts.

    proxy.py NAME=HOST:PORT...

Prints the port it listens on for each name; then answers one line of JSON with another:
{"delay_ms": 50}, {"reset": NAME}, {"counts": NAME}. Connections are independent and carry one request
after another, as S3 clients do; the delay is the time to the first byte of a distant store.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from urllib.parse import unquote, urlsplit

PIECE = 1 << 18
# How the stores of the peers name chunks: Quarr, Zarr, Icechunk, HSDS.
CHUNK = re.compile(r"/shards/|/c/\d|/chunks/|/\d+(_\d+)+$")


def key_class(target: str) -> str:
    url = urlsplit(target)
    if "list-type=" in url.query:
        return "list"
    return "chunk" if CHUNK.search(unquote(url.path)) else "metadata"


class Counts:
    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()

    def note(self, method: str, target: str, size: int) -> None:
        name = f"{method} {key_class(target)}"
        self.requests[name] += 1
        self.received[name] += size
        self.keys[f"{method} {target}"] += 1

    def as_json(self) -> dict:
        return {
            "requests": dict(self.requests),
            "bytes": dict(self.received),
            "keys": dict(self.keys),
        }


class Proxy:
    delay = 0.0

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.counts = Counts()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_writer = None
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream, limit=4 * PIECE)
            while await self.exchange(reader, writer, up_reader, up_writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for each in (writer, up_writer):
                if each is not None:
                    each.close()

    async def exchange(self, reader, writer, up_reader, up_writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        fields = header_fields(head)
        if Proxy.delay:
            await asyncio.sleep(Proxy.delay)
        up_writer.write(head)
        if fields.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await forward_body(fields, reader, up_writer)
        while True:
            answer = await up_reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            if status >= 200:
                break
        writer.write(answer)
        fields = header_fields(answer)
        size = 0
        if method != "HEAD" and status not in (204, 304):
            until_closed = "content-length" not in fields and "transfer-encoding" not in fields
            size = await forward_body(fields, up_reader, writer, until_closed)
        await writer.drain()
        self.counts.note(method, target, size + len(answer))
        return fields.get("connection", "").lower() != "close"


def header_fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


async def forward_body(fields, reader, writer, until_closed: bool = False) -> int:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        total = 0
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            writer.write(line)
            await forward(reader, writer, size + 2)
            total += size
            if size == 0:
                return total
    if until_closed:
        return await forward(reader, writer, sys.maxsize)
    return await forward(reader, writer, int(fields.get("content-length", 0)))


async def forward(reader, writer, size: int) -> int:
    left = size
    while left:
        piece = await reader.read(min(PIECE, left))
        if not piece:
            if size == sys.maxsize:
                break
            raise ConnectionError("ended early")
        writer.write(piece)
        left -= len(piece)
        await writer.drain()
    return size - left


async def main() -> None:
    proxies, ports, servers = {}, {}, []
    for argument in sys.argv[1:]:
        name, address = argument.split("=")
        host, port = address.rsplit(":", 1)
        proxy = proxies[name] = Proxy(host, int(port))
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=4 * PIECE)
        servers.append(server)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request, answer = json.loads(line), {}
        if "delay_ms" in request:
            Proxy.delay = request["delay_ms"] / 1000
        elif "reset" in request:
            proxies[request["reset"]].counts = Counts()
        elif "counts" in request:
            answer = proxies[request["counts"]].counts.as_json()
        print(json.dumps(answer), flush=True)


asyncio.run(main())
