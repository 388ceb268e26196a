"""The OpenAPI document is true: schemathesis asks for what it allows and what it does not.

Runs with names of its own, where every check holds, and runs with names that exist, which get further
into each operation. A slice that the schema allows may still be no slice, so the second do not ask that
whatever the schema allows is accepted. A server that asks who its clients are is tried with an
administrator's key, and with none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from service import Server, ServerProcess, run

pytestmark = pytest.mark.once

# What a request that keeps to the schema may be told, besides what schemathesis expects: nothing at a
# Zarr key of a repository that is not there (410), a commit that is not the head (412), a key that
# stands for another request (422). Slashes within a path cannot be said in OpenAPI.
EXPECTED = ["2xx", 401, 403, 404, 409, 410, 412, 422, 429, 503]
# What no schema says: that a body has a certain hash, that a node is an array and has these dimensions,
# that one parameter goes with another, that bytes are a document, that a text names a codec or a role.
ALSO_REFUSED = [
    "uploads_store", "jobs_begin", "keys_create", "data_read", "explain_explain", "nearest_search", "product_multiply", "proofs_prove", "reduce_reduce",
    "writes_data", "writes_put_node", "writes_put_key", "zarr_root", "zarr_key", "zarr_key_head",
]
CONFIG = f"""
[checks.positive_data_acceptance]
expected-statuses = {json.dumps(EXPECTED)}

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 412, 415, 422, 429, 503]

[[operations]]
include-operation-id = {json.dumps(ALSO_REFUSED)}
checks.positive_data_acceptance.expected-statuses = {json.dumps([*EXPECTED, 400])}

[parameters]
"path.reference" = "main"
"path.path" = "t2m"
"path.key" = "zarr.json"
"path.tile" = "checkpoint"
"""
NAMES = """
"path.repository" = "demo"
"path.from" = "main"
"path.to" = "main"
"path.sequence" = 1
"""
# Events of a job go on for as long as it does.
ENDLESS = "/events$"


@pytest.fixture(params=[False, True], ids=["open", "guarded"])
def served(tmp_path: Path, request: pytest.FixtureRequest):
    """A server, and the token it wants if it wants one."""
    store = tmp_path / "store"
    run("repo", "create", "demo", "--store", store)
    token = run("auth", "key", "create", "root", "--role", "admin", "--store", store).stdout if request.param else ""
    process = ServerProcess(store)
    headers = {"authorization": f"Bearer {token.strip()}"} if token else {}
    try:
        array = {"shape": [4, 3], "data_type": "float32", "chunks": [2, 3], "dimension_names": ["time", "lat"]}
        url = f"{process.server.url}/v1/repos/demo/refs/main"
        requests.put(f"{url}/nodes/t2m", json=array, headers=headers, timeout=10).raise_for_status()
        values = {"content-type": "application/octet-stream", **headers}
        requests.put(f"{url}/data/t2m", bytes(48), headers=values, timeout=10).raise_for_status()
        yield process.server, token.strip()
    finally:
        process.stop()


def schemathesis(served: tuple[Server, str], folder: Path, config: str, *arguments: str, anonymous: bool = False) -> str:
    server, token = served
    file = folder / "schemathesis.toml"
    file.write_text(config)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", file, "run"]
    options = ["--exclude-path-regex", ENDLESS, "--continue-on-failure", "--seed", "1", "--max-examples", "2"]
    if token and not anonymous:
        options += ["-H", f"Authorization: Bearer {token}"]
    # It keeps what it found in the folder it runs in.
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options, *arguments],
        capture_output=True, text=True, timeout=600, cwd=folder,
    )  # fmt: skip
    assert "Tested:" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout[-20000:]
    return done.stdout


def test_what_the_document_says_is_so(served: tuple[Server, str], tmp_path: Path) -> None:
    schemathesis(served, tmp_path, CONFIG, "--phases", "examples,coverage,fuzzing")


@pytest.mark.parametrize("served", [False], indirect=True, ids=["open"])
def test_nothing_else_happens_to_names_that_exist(served: tuple[Server, str], tmp_path: Path) -> None:
    # It would be gone for the operations that come after.
    keep = ["--exclude-method", "DELETE", "--exclude-checks", "positive_data_acceptance"]
    schemathesis(served, tmp_path, CONFIG + NAMES, "--phases", "coverage,fuzzing", *keep)


@pytest.mark.parametrize("served", [True], indirect=True, ids=["guarded"])
def test_a_stranger_gets_only_what_the_document_says(served: tuple[Server, str], tmp_path: Path) -> None:
    # What is not valid is refused before it is looked at.
    options = ["--phases", "examples,coverage", "--exclude-checks", "positive_data_acceptance"]
    schemathesis(served, tmp_path, CONFIG + NAMES, *options, anonymous=True)


@pytest.mark.parametrize("served", [False], indirect=True, ids=["open"])
def test_the_document_is_valid_and_has_examples(served: tuple[Server, str]) -> None:
    from openapi_spec_validator import validate

    document = json.loads(requests.get(f"{served[0].url}/openapi.json", timeout=10).content)
    validate(document)
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            # Values of an array are more often sent in binary.
            if body is not None and "/data/" not in path:
                assert "example" in body, f"{method} {path}"
