"""Quarr under the policies that Terraform renders: each role is allowed all that its work asks for.

A proxy decides each request as AWS would. So a permission that is missing fails here, and not in
somebody's account; and what a role is refused is seen to do no harm.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager

import pytest
import requests

import enforcing
import quarr
import store_server
import terraform

ACCOUNT = "arn:aws:iam::111122223333:role"
STORE = f"s3://{store_server.NAME}/data"


@pytest.fixture(scope="module")
def policies(tf) -> dict[str, str]:
    values = {"bucket_arn": f"arn:aws:s3:::{store_server.NAME}", "prefix": "data/", "gc_role_arns": [f"{ACCOUNT}/quarr-gc"]}
    return tf.outputs(terraform.ROOT / "modules" / "policies-aws", values)


@pytest.fixture(scope="module")
def as_role(bucket, policies):
    """Runs what is inside with the rights of a role; gives the environment, and what was decided."""

    @contextmanager
    def run(role: str):
        with enforcing.gate(bucket.endpoint, policies[role], policies["bucket"], f"{ACCOUNT}/quarr-{role}") as gate:
            yield {**bucket.settings(gate.url), "QUARR_STORE": STORE}, gate

    return run


@pytest.fixture(scope="module")
def written(as_role, tmp_path_factory):
    """A repository that the writer made: data, a tag, a signed log, a transaction."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "a.npy").write_bytes(quarr.npy([float(value) for value in range(4000)]))
    (folder / "b.npy").write_bytes(quarr.npy([-1.0] * 4000))
    with as_role("writer") as (env, gate):
        env["QUARR_KEYS"] = str(folder / "keys")
        quarr.run("import", folder / "a.npy", "--to", "climate", env=env)
        quarr.run("key", "create", "climate", env=env)
        quarr.run("tag", "create", "climate", "v1", env=env)
        transaction = quarr.run("tx", "begin", "climate", env=env).stdout.strip()
        quarr.run("tx", "put", transaction, "a[0:4000]", folder / "b.npy", env=env)
        quarr.run("tx", "commit", transaction, "-m", "all changed", env=env)
    return gate


def test_a_writer_is_refused_nothing_but_deletion(written):
    assert {request.action for request in written.denied} <= {"s3:DeleteObject"}
    assert any(request.action == "s3:PutObject" and "/log/0" in request.resource for request in written.allowed)


def test_a_transaction_is_given_up_by_who_may_not_delete(written, as_role, tmp_path):
    (tmp_path / "b.npy").write_bytes(quarr.npy([-2.0] * 4000))
    with as_role("writer") as (env, gate):
        transaction = quarr.run("tx", "begin", "climate", env=env).stdout.strip()
        quarr.run("tx", "put", transaction, "a[0:4000]", tmp_path / "b.npy", env=env)
        quarr.run("tx", "abort", transaction, env=env)
        late = quarr.run("tx", "commit", transaction, "-m", "too late", env=env, check=False)
        assert late.returncode != 0
    assert gate.denied and {request.action for request in gate.denied} == {"s3:DeleteObject"}


def test_a_reader_serves_and_is_refused_nothing(written, as_role):
    with as_role("reader") as (env, gate):
        told = quarr.run("serve", "--listen", "127.0.0.1:0", env=env, check=False)
        assert told.returncode != 0 and "--read-only" in told.stderr
    with as_role("reader") as (env, gate), quarr.Server("--read-only", env=env) as server:
        base = "/v1/repos/climate/refs"
        assert server.get(f"{base}/main/data/a", slice="0:2", f="json").json()["values"] == [-1.0, -1.0]
        assert server.get(f"{base}/v1/data/a", slice="5:7", f="json").json()["values"] == [5.0, 6.0]
        place = f"{server.url}{base}/main/data/a"
        octets = {"Content-Type": "application/octet-stream"}
        refused = requests.put(place, struct.pack("<d", 2.0), params={"slice": "0:1"}, headers=octets, timeout=60)
        assert refused.status_code in (403, 405), refused.text
        assert server.get(f"{base}/main/data/a", slice="0:2", f="json").json()["values"] == [-1.0, -1.0]
    assert not gate.denied


def test_gc_collects_and_is_refused_nothing(written, as_role):
    with as_role("gc") as (env, gate):
        quarr.run("expire", "climate", "--older-than", "0s", env=env)
        quarr.run("gc", "climate", "--grace", "0s", "--retention", "0s", "--transaction-idle", "0s", env=env)
        quarr.run("verify", "climate", env=env)
    assert not gate.denied
    deleted = [request.resource for request in gate.allowed if request.action == "s3:DeleteObject"]
    assert any("/staging/" in key for key in deleted), deleted


def test_a_service_that_may_not_delete_finishes_its_jobs(written, as_role, tmp_path):
    (tmp_path / "c.npy").write_bytes(quarr.npy([1.0, 2.0]))
    with as_role("writer") as (env, gate), quarr.Server("--jobs", "1", env=env) as server:
        quarr.run("import", tmp_path / "c.npy", "--to", "ocean", "--server", server.url, env={"QUARR_STORE": ""})
        assert server.get("/v1/repos/ocean/refs/main/data/c", f="json").json()["values"] == [1.0, 2.0]
    assert {request.action for request in gate.denied} <= {"s3:DeleteObject"}
