"""Terraform providers that know their schemas and nothing else.

Terraform checks a configuration against the schema that a provider sends: names, types, what is
required, what is a block. These send the extracts in `schemas/`, so `terraform validate` does all of
that, and `terraform test` with `mock_provider` plans and applies, with no download and no account. Any
call that would touch a real resource is refused.

Terraform finds them through `TF_REATTACH_PROVIDERS`, as it does a provider in a debugger, and speaks
version 5 of the plugin protocol (`tfplugin5.proto` in Terraform's `docs/plugin-protocol`) over a Unix
socket. The few messages needed are written here by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc

SCHEMAS = Path(__file__).parent / "schemas"
NAMES = ("aws", "google", "helm")
NESTING = {"single": 1, "list": 2, "set": 3, "map": 4, "group": 5}
# Answers to these are empty: no complaint.
SILENT = ("ValidateResourceTypeConfig", "ValidateDataSourceConfig", "Configure", "Stop")


def extract(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.json").read_text())


# --- Protocol buffers -------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def data(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


# --- Messages ---------------------------------------------------------------------------------------


def attribute(name: str, it: dict) -> bytes:
    flags = [number(field, it.get(flag, False)) for field, flag in ((4, "required"), (5, "optional"), (6, "computed"))]
    return data(1, name) + data(2, json.dumps(it["type"])) + b"".join(flags)


def nested(name: str, it: dict) -> bytes:
    bounds = number(4, it.get("min_items", 0)) + number(5, it.get("max_items", 0))
    return data(1, name) + data(2, block(it["block"])) + number(3, NESTING[it["nesting_mode"]]) + bounds


def block(it: dict) -> bytes:
    attributes = [data(2, attribute(name, value)) for name, value in it["attributes"].items()]
    blocks = [data(3, nested(name, value)) for name, value in it.get("block_types", {}).items()]
    return b"".join(attributes + blocks)


def schema(it: dict) -> bytes:
    return number(1, it["version"]) + data(2, block(it["block"]))


def all_schemas(it: dict) -> bytes:
    def entries(field: int, schemas: dict) -> bytes:
        return b"".join(data(field, data(1, name) + data(2, schema(value))) for name, value in schemas.items())

    return data(1, schema(it["provider"])) + entries(2, it["resource_schemas"]) + entries(3, it["data_source_schemas"])


# --- Server -----------------------------------------------------------------------------------------


class Provider(grpc.GenericRpcHandler):
    def __init__(self, name: str) -> None:
        self.schemas = all_schemas(extract(name))

    def service(self, details):
        service, _, method = details.method.removeprefix("/").partition("/")
        if service != "tfplugin5.Provider":
            return None
        answers = {
            "GetSchema": lambda request, context: self.schemas,
            # Request and answer have the configuration in the same field.
            "PrepareProviderConfig": lambda request, context: request,
            **dict.fromkeys(SILENT, lambda request, context: b""),
        }
        return grpc.unary_unary_rpc_method_handler(answers[method]) if method in answers else None


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the providers; gives the environment in which Terraform finds them."""
    servers, found = [], {}
    for name in NAMES:
        socket = folder / f"{name}.sock"
        server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Provider(name)])
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        servers.append(server)
        address = {"Network": "unix", "String": str(socket)}
        plugin = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True, "Addr": address}
        for host in ("registry.terraform.io", "registry.opentofu.org"):
            found[f"{host}/hashicorp/{name}"] = plugin
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps(found)}
    finally:
        for server in servers:
            server.stop(None)
