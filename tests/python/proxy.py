"""A proxy in front of a server that breaks or forges some answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Answer:
    """What the server answered, to be changed."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int | None = None
    """Bytes of the body after which the connection is closed; all of them if `None`."""


@dataclass
class Proxy:
    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def proxy(server: str, change: Callable[[str, Answer, int], Answer | None]) -> Iterator[Proxy]:
    """Runs a proxy to `server`.

    `change(target, answer, nth)` gives what is sent for the `nth` request (from 0) of this target;
    `None` closes the connection without an answer.
    """
    session = requests.Session()
    counts: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def forward(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host",)}
            with lock:
                nth = counts[self.path] = counts.get(self.path, -1) + 1
                running.requests.append(f"{self.command} {self.path}")
                got = session.request(self.command, server + self.path, headers=headers, data=body, stream=True)
                # Events come for as long as somebody listens.
                is_endless = got.headers.get("content-type", "").startswith("text/event-stream")
                content = b"" if is_endless else got.content
            kept = {k: v for k, v in got.headers.items() if k.lower() not in HOP_BY_HOP}
            answer = change(self.path, Answer(got.status_code, kept, content), nth)
            if answer is None:
                got.close()
                self.close_connection = True
                self.connection.close()
                return
            if is_endless:
                self.hand_on(got)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            announced = got.headers.get("content-length", "0") if self.command == "HEAD" else None
            self.send_header("Content-Length", announced or str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: answer.sent])
            if answer.sent is not None:
                self.wfile.flush()
                self.close_connection = True

        def hand_on(self, got: requests.Response) -> None:
            self.close_connection = True
            self.send_response(got.status_code)
            self.send_header("Content-Type", got.headers["content-type"])
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for piece in got.iter_content(chunk_size=None):
                    self.wfile.write(piece)
            except OSError:
                pass  # Nobody listens any more.
            finally:
                got.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    running = Proxy(f"http://127.0.0.1:{listening.server_address[1]}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        listening.shutdown()
        listening.server_close()
