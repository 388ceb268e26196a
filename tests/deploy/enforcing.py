"""A proxy in front of an S3 server that lets through what policies of AWS allow, and nothing else.

Each request becomes the action, resource and condition keys that S3 would evaluate; what is denied gets
the answer S3 gives. Source: Service Authorization Reference, "Actions, resources, and condition keys for
Amazon S3".
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import iam

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Gate:
    """What a role was let do, and what not."""

    url: str
    identity: str
    bucket: str
    principal: str
    allowed: list[iam.Request] = field(default_factory=list)
    denied: list[iam.Request] = field(default_factory=list)

    def decide(self, request: iam.Request) -> bool:
        seen = {"aws:securetransport": "true", "s3:tlsversion": "1.3", "aws:principalarn": self.principal}
        request = iam.Request(request.action, request.resource, {**seen, **request.context})
        answer = iam.decide(request, self.identity, self.bucket)
        (self.allowed if answer else self.denied).append(request)
        return answer


def requests_of(method: str, target: str, headers: dict[str, str], body: bytes) -> list[iam.Request]:
    """What S3 would evaluate for a request in path style."""
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    place = f"arn:aws:s3:::{bucket}"
    condition = {"s3:if-none-match": headers["if-none-match"]} if "if-none-match" in headers else {}
    ends, is_part = {"s3:objectcreationoperation": "true", **condition}, {"s3:objectcreationoperation": "false"}
    match method, bool(key):
        case "GET", False if "list-type" in query:
            return [iam.Request("s3:ListBucket", place)]
        case "POST", False if "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            return [iam.Request("s3:DeleteObject", f"{place}/{key}") for key in keys]
        case ("GET" | "HEAD"), True:
            return [iam.Request("s3:GetObject", f"{place}/{key}")]
        case "PUT", True:
            return [iam.Request("s3:PutObject", f"{place}/{key}", is_part if "uploadId" in query else ends)]
        case "POST", True if "uploads" in query or "uploadId" in query:
            return [iam.Request("s3:PutObject", f"{place}/{key}", ends if "uploadId" in query else is_part)]
        case "DELETE", True:
            return [iam.Request("s3:DeleteObject", f"{place}/{key}")]
    raise AssertionError(f"{method} {target} is not understood")


@contextmanager
def gate(server: str, identity: str, bucket: str, principal: str) -> Iterator[Gate]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            wanted = requests_of(self.command, self.path, headers, body)
            refused = [request for request in wanted if not opened.decide(request)]
            if not refused:
                connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
                # With its own `Host`, which is signed.
                connection.request(self.command, self.path, body, headers)
                got = connection.getresponse()
                return self.answer(got.status, got.getheaders(), got.read())
            if "delete" in parse_qs(urlsplit(self.path).query, keep_blank_values=True):
                keys = (escape(request.resource.split("/", 1)[1]) for request in refused)
                errors = (f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error>" for key in keys)
                return self.answer(200, [], f"<DeleteResult>{''.join(errors)}</DeleteResult>".encode())
            self.answer(403, [], DENIED)

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            length = str(len(body))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value
                elif name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            if not any(name.lower() == "date" for name, _ in headers):
                self.send_header("Date", self.date_time_string())
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    opened = Gate(f"http://127.0.0.1:{listening.server_address[1]}", identity, bucket, principal)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield opened
    finally:
        listening.shutdown()
        listening.server_close()
