"""Stores from the command line: made, checked, probed before they are served; AWS credentials from
everywhere they may come from."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

import buckets
import service
from proxy import Answer, proxy

pytestmark = pytest.mark.once

# What the machine of the tests may have of its own.
NOTHING = {
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


def quarr(*arguments, check=True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `quarr` with nothing of AWS in the environment but this."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [service.BIN, *map(str, arguments)], env={**clean, **NOTHING, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Outcome and detail of each check."""
    found = json.loads(done.stdout)["findings"]
    return {finding["check"]: (finding["outcome"], finding["detail"]) for finding in found}


@pytest.fixture(scope="module")
def moto():
    def as_amazon_says(target: str, answer: Answer, nth: int) -> Answer:
        # With some versions of botocore, moto calls the document by the name of the request.
        answer.body = answer.body.replace(b"GetBucketVersioningResponse", b"VersioningConfiguration")
        return answer

    with buckets.moto() as bucket, proxy(bucket.endpoint, as_amazon_says) as corrected:
        yield replace(bucket, endpoint=corrected.url)


def at(bucket: buckets.Bucket) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": bucket.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}


def with_keys(bucket: buckets.Bucket) -> dict[str, str]:
    return {**at(bucket), "AWS_ACCESS_KEY_ID": buckets.KEY, "AWS_SECRET_ACCESS_KEY": buckets.KEY}


def boto(bucket: buckets.Bucket):
    import boto3

    return boto3.client(
        "s3", endpoint_url=bucket.endpoint, region_name="us-east-1",
        aws_access_key_id=buckets.KEY, aws_secret_access_key=buckets.KEY,
    )


# --- quarr store init and check ----------------------------------------------------------------------


def test_a_bucket_is_made_and_made_again(moto):
    url = "s3://made-here/a/b"
    done = findings(quarr("store", "init", url, "--json", **with_keys(moto)))
    # Some versions of S3 encrypt new buckets by themselves.
    assert done.pop("encryption")[0] in ("ok", "done")
    assert {check: outcome for check, (outcome, _) in done.items()} == {
        "bucket": "done", "public access": "done", "versioning": "ok", "lifecycle": "done", "put-if-absent": "ok",
        "clock": "ok",
    }
    client = boto(moto)
    block = client.get_public_access_block(Bucket="made-here")["PublicAccessBlockConfiguration"]
    assert all(block.values()) and len(block) == 4
    rules = client.get_bucket_lifecycle_configuration(Bucket="made-here")["Rules"]
    assert rules[0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    encryption = client.get_bucket_encryption(Bucket="made-here")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"

    again = findings(quarr("store", "init", url, "--json", **with_keys(moto)))
    assert {outcome for outcome, _ in again.values()} == {"ok"}, again
    checked = findings(quarr("store", "check", url, "--json", **with_keys(moto)))
    assert {outcome for outcome, _ in checked.values()} == {"ok"}, checked
    assert "Contents" not in client.list_objects_v2(Bucket="made-here"), "the probe left something"


def test_a_key_is_set_once(moto):
    url = "s3://by-key"
    done = findings(quarr("store", "init", url, "--kms-key", "alias/one", "--json", **with_keys(moto)))
    assert done["encryption"][0] == "done" and "alias/one" in done["encryption"][1]
    rule = boto(moto).get_bucket_encryption(Bucket="by-key")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/one"}
    assert rule["BucketKeyEnabled"] is True
    assert findings(quarr("store", "init", url, "--kms-key", "alias/one", "--json", **with_keys(moto)))["encryption"][0] == "ok"
    # Without a key it is not made weaker; with another one it stays, and that is wrong.
    assert findings(quarr("store", "init", url, "--json", **with_keys(moto)))["encryption"][0] == "ok"
    other = quarr("store", "init", url, "--kms-key", "alias/two", "--json", check=False, **with_keys(moto))
    assert other.returncode == 1 and findings(other)["encryption"][0] == "wrong"
    rule = boto(moto).get_bucket_encryption(Bucket="by-key")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "alias/one"


def test_what_others_decided_stays(moto):
    client = boto(moto)
    client.create_bucket(Bucket="of-others")
    open_to_some = {
        "BlockPublicAcls": True, "IgnorePublicAcls": False, "BlockPublicPolicy": False, "RestrictPublicBuckets": False,
    }
    client.put_public_access_block(Bucket="of-others", PublicAccessBlockConfiguration=open_to_some)
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": "store/"}, "Expiration": {"Days": 30}}
    client.put_bucket_lifecycle_configuration(Bucket="of-others", LifecycleConfiguration={"Rules": [rule]})
    client.put_bucket_versioning(Bucket="of-others", VersioningConfiguration={"Status": "Enabled"})
    for command in ("init", "check"):
        done = quarr("store", command, "s3://of-others/store", "--json", check=False, **with_keys(moto))
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert report["usable"] is False
        lifecycle = [finding for finding in report["findings"] if finding["check"] == "lifecycle"]
        assert [finding["outcome"] for finding in lifecycle] == ["wrong", "advice", "advice"]
        assert "tidy" in lifecycle[0]["detail"]
        assert findings(done)["public access"][0] == "advice"
    assert client.get_public_access_block(Bucket="of-others")["PublicAccessBlockConfiguration"] == open_to_some
    assert len(client.get_bucket_lifecycle_configuration(Bucket="of-others")["Rules"]) == 1


def test_a_bucket_that_is_not_there_is_said(moto):
    done = quarr("store", "check", "s3://nobody-made-this", check=False, **with_keys(moto))
    assert done.returncode == 1 and "quarr store init" in done.stdout
    served = quarr("serve", "--store", "s3://nobody-made-this", "--listen", "127.0.0.1:0", check=False, **with_keys(moto))
    assert served.returncode == 1 and "there is no such bucket" in served.stderr


def test_a_directory_is_made(tmp_path):
    folder = tmp_path / "a" / "b"
    assert quarr("store", "check", folder, check=False).returncode == 1
    assert findings(quarr("store", "init", folder, "--json"))["directory"][0] == "done"
    assert findings(quarr("store", "check", folder, "--json")) == findings(quarr("store", "init", folder, "--json"))
    assert list(folder.iterdir()) == []
    for option in ("--kms-key", "--region"):
        refused = quarr("store", "init", folder, option, "x", check=False)
        assert refused.returncode == 1 and "S3 buckets only" in refused.stderr


def test_minio_is_checked(bucket):
    done = quarr("store", "check", f"{bucket.url}/a", "--json", check=False, **with_keys(bucket))
    found = findings(done)
    assert found["bucket"][0] == "ok" and found["put-if-absent"][0] == "ok"
    assert done.returncode == 0, done.stdout
    made = quarr("store", "init", "s3://made-there", "--json", check=False, **with_keys(bucket))
    assert findings(made)["bucket"][0] == "done" and made.returncode == 0, made.stdout


@pytest.mark.parametrize("name,value", [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")])
def test_wrong_credentials_are_said(bucket, name, value):
    """On a server that checks signatures; moto does not."""
    if not bucket.checks_signatures:
        pytest.skip("MinIO is not installed")
    environment = {**with_keys(bucket), name: value}
    for command in (("store", "check", bucket.url), ("serve", "--store", bucket.url, "--listen", "127.0.0.1:0")):
        done = quarr(*command, check=False, **environment)
        assert done.returncode == 1
        assert "the credentials are wrong" in done.stdout + done.stderr, done.stdout + done.stderr


# --- The probe ---------------------------------------------------------------------------------------


class Store(BaseHTTPRequestHandler):
    """An S3 server without signatures that keeps or breaks the promise."""

    protocol_version = "HTTP/1.1"
    mode = "sound"

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, more: str = "", **headers: str) -> None:
        self.reply(status, f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode(), **headers)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        objects, mode = self.server.objects, self.server.mode
        self.server.puts.append((self.path, dict(self.headers)))
        if mode == "read-only":
            return self.refuse(403, "AccessDenied")
        with self.server.lock:
            is_there = self.path in objects and self.headers.get("If-None-Match") == "*"
            if is_there and mode != "ignores":
                return self.refuse(412, "PreconditionFailed")
            objects[self.path] = body
        self.reply(200)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if "list-type" in query:
            return self.reply(200, b"<ListBucketResult></ListBucketResult>")
        match self.server.mode:
            case "skewed":
                return self.refuse(403, "RequestTimeTooSkewed")
            case "elsewhere":
                region = "<Region>eu-north-1</Region>"
                return self.refuse(400, "AuthorizationHeaderMalformed", region, x_amz_bucket_region="eu-north-1")
        found = self.server.objects.get(path)
        return self.refuse(404, "NoSuchKey") if found is None else self.reply(200, found)

    def do_DELETE(self) -> None:
        if self.server.mode == "keeps":
            return self.refuse(403, "AccessDenied")
        self.server.objects.pop(self.path, None)
        self.reply(204)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        keys = [part.split("</Key>")[0] for part in body.split("<Key>")[1:]]
        if self.server.mode == "keeps":
            errors = "".join(f"<Error><Key>{key}</Key><Code>AccessDenied</Code><Message>no</Message></Error>" for key in keys)
            return self.reply(200, f"<DeleteResult>{errors}</DeleteResult>".encode())
        for key in keys:
            self.server.objects.pop(f"/bucket/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.reply(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def log_message(self, *_) -> None:
        pass


@contextmanager
def fake(mode: str):
    """A server in some mode, and what clients find it by."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.mode, server.objects, server.puts, server.lock = mode, {}, [], threading.Lock()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    yield server, with_keys(buckets.Bucket("s3://bucket", endpoint))
    server.shutdown()
    server.server_close()


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return quarr("serve", "--store", "s3://bucket/a", "--listen", "127.0.0.1:0", *arguments, check=False, **environment)


def test_a_store_that_overwrites_is_refused():
    with fake("ignores") as (server, environment):
        done = serve(**environment)
        assert done.returncode == 1
        assert "does not honour put-if-absent" in done.stderr, done.stderr
        assert server.objects == {}
        checked = findings(quarr("store", "check", "s3://bucket/a", "--json", check=False, **environment))
        assert checked["put-if-absent"][0] == "wrong"


def test_a_store_that_may_not_be_written_is_served_for_reading_alone(monkeypatch):
    with fake("read-only") as (server, environment):
        done = serve(**environment)
        assert done.returncode == 1 and "--read-only" in done.stderr, done.stderr
        checked = quarr("store", "check", "s3://bucket/a", "--json", check=False, **environment)
        assert findings(checked)["put-if-absent"][0] == "wrong" and "--read-only" in checked.stdout
        quiet = findings(quarr("store", "check", "s3://bucket/a", "--read-only", "--json", **environment))
        assert quiet["reading"][0] == "ok" and "put-if-absent" not in quiet
        server.puts.clear()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        process = service.ServerProcess("s3://bucket/a", "--read-only")
        try:
            assert process.server.get("/v1/repos").json()["repositories"] == []
            made = requests.put(f"{process.server.url}/v1/repos/r", timeout=60)
            assert made.status_code == 403 and "read-only" in made.json()["detail"], made.text
        finally:
            process.stop()
        assert server.puts == []


def test_what_the_probe_may_not_delete_is_said():
    with fake("keeps") as (server, environment):
        checked = findings(quarr("store", "check", "s3://bucket/a", "--json", **environment))
        assert checked["put-if-absent"][0] == "advice"
        assert len(server.objects) == 1 and next(iter(server.objects)).startswith("/bucket/a/_probe-")


@pytest.mark.parametrize("mode,said", [("skewed", "clock"), ("elsewhere", "AWS_REGION=eu-north-1")])
def test_errors_say_what_to_do(mode, said):
    with fake(mode) as (_, environment):
        done = serve(**environment)
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_nobody_there_is_said():
    nowhere = buckets.Bucket("s3://bucket", "http://127.0.0.1:1")
    done = quarr("store", "check", "s3://bucket/a", check=False, **with_keys(nowhere))
    assert done.returncode == 1 and "nothing answers" in done.stdout, done.stdout


def test_starts_at_the_same_time_do_not_disturb_one_another(tmp_path):
    processes = [service.ServerProcess(tmp_path) for _ in range(3)]
    for process in processes:
        process.stop()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("_probe")]


# --- Credentials -------------------------------------------------------------------------------------


def profile(folder: Path, **sections: dict[str, str]) -> dict[str, str]:
    """A configuration file of AWS's tools with these sections."""
    config = configparser.ConfigParser()
    for name, values in sections.items():
        config["default" if name == "default" else f"profile {name}"] = values
    path = folder / "config"
    with path.open("w") as file:
        config.write(file)
    return {"AWS_CONFIG_FILE": str(path)}


def usable(bucket: buckets.Bucket, **environment: str) -> None:
    """A command that reads and writes works."""
    name = f"r{uuid.uuid4().hex[:8]}"
    store = f"{bucket.url}/chain"
    quarr("repo", "create", name, "--store", store, **{**at(bucket), **environment})
    listed = quarr("repo", "list", "--store", store, "--json", **{**at(bucket), **environment})
    assert name in listed.stdout


def keys_file(folder: Path) -> str:
    """A program that prints credentials, as `credential_process` wants them."""
    program = folder / "keys.py"
    expires = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    answer = {"Version": 1, "AccessKeyId": buckets.KEY, "SecretAccessKey": buckets.KEY, "Expiration": expires}
    program.write_text(f"print('''{json.dumps(answer)}''')\n")
    return f"{sys.executable} {program}"


def test_keys_of_a_profile(bucket, tmp_path):
    keys = {"aws_access_key_id": buckets.KEY, "aws_secret_access_key": buckets.KEY}
    usable(bucket, AWS_PROFILE="mine", **profile(tmp_path, mine=keys))


def test_a_program_of_a_profile(bucket, tmp_path):
    usable(bucket, **profile(tmp_path, default={"credential_process": keys_file(tmp_path)}))


def test_the_region_and_endpoint_of_a_profile(bucket, tmp_path):
    values = {
        "aws_access_key_id": buckets.KEY, "aws_secret_access_key": buckets.KEY,
        "region": "eu-central-1", "endpoint_url": bucket.endpoint,
    }
    environment = {"AWS_ALLOW_HTTP": "true", **profile(tmp_path, default=values)}
    # MinIO checks the region that a signature names against its own, and takes any if it has none.
    done = quarr("repo", "list", "--store", f"{bucket.url}/chain", "--json", check=False, **environment)
    assert done.returncode == 0, done.stderr


class Metadata(BaseHTTPRequestHandler):
    """What gives credentials to containers."""

    def do_GET(self) -> None:
        self.server.asked += 1
        expires = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = json.dumps({
            "AccessKeyId": buckets.KEY, "SecretAccessKey": buckets.KEY, "Token": "t", "Expiration": expires,
        }).encode()
        is_allowed = self.headers.get("Authorization") == "secret"
        self.send_response(200 if is_allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def test_credentials_of_a_container(moto):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    quarr(
        "repo", "create", "r", "--store", f"{moto.url}/container", **at(moto),
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{server.server_port}/",
        AWS_CONTAINER_AUTHORIZATION_TOKEN="secret",
    )
    server.shutdown()
    server.server_close()
    # One command makes many requests.
    assert server.asked == 1


def test_a_role_to_assume(moto, tmp_path):
    source = {"aws_access_key_id": buckets.KEY, "aws_secret_access_key": buckets.KEY}
    role = {"role_arn": "arn:aws:iam::123456789012:role/reader", "source_profile": "source", "region": "us-east-1"}
    environment = profile(tmp_path, source=source, role=role)
    usable(moto, AWS_PROFILE="role", AWS_ENDPOINT_URL_STS=moto.endpoint, **environment)


def test_a_web_identity(moto, tmp_path):
    token = tmp_path / "token"
    token.write_text("a.b.c")
    usable(
        moto, AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ROLE_SESSION_NAME="test",
        AWS_ROLE_ARN="arn:aws:iam::123456789012:role/reader", AWS_ENDPOINT_URL_STS=moto.endpoint,
    )


def test_no_credentials_are_said(moto):
    done = quarr("serve", "--store", moto.url, "--listen", "127.0.0.1:0", check=False, **at(moto))
    assert done.returncode == 1 and "no AWS credentials were found" in done.stderr, done.stderr


def test_keys_in_the_environment_need_no_chain(bucket, tmp_path):
    """A profile that could not be read is not looked at."""
    broken = tmp_path / "config"
    broken.write_text("[profile\nnonsense")
    usable(
        bucket, AWS_ACCESS_KEY_ID=buckets.KEY, AWS_SECRET_ACCESS_KEY=buckets.KEY,
        AWS_CONFIG_FILE=str(broken), AWS_PROFILE="nobody",
    )
