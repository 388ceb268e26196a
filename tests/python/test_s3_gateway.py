"""S3 clients read snapshots through the gateway, unmodified: listings, ranges, conditions, errors,
signatures, and whole datasets."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
import botocore
import botocore.auth
import numpy as np
import obstore
import obstore.store
import pytest
import requests
import s3fs
import xarray as xr
import zarr
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from zarr.storage import FsspecStore, ObjectStore

import service

pytestmark = pytest.mark.once

KEY, SECRET = "ADA", "a secret of many characters"
SHAPE = (12, 4, 6)


@dataclass(frozen=True)
class Gateway:
    """The S3 address of a server, and the server."""

    url: str
    server: service.Server

    def client(self, key: str | None = KEY, secret: str = SECRET, **settings):
        settings = {"s3": {"addressing_style": "path"}, "retries": {"total_max_attempts": 1}} | settings
        if key is None:
            settings["signature_version"] = botocore.UNSIGNED
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=key,
            aws_secret_access_key=secret if key else None, config=Config(**settings),
        )

    def files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=KEY, secret=SECRET, endpoint_url=self.url, asynchronous=True, use_listings_cache=False
        )


class GatewayProcess(service.ServerProcess):
    """A server with a gateway, which listens before the server does."""

    def __init__(self, store: Path, *arguments: str | Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        super().__init__(store, "--s3-listen", address, *map(str, arguments))
        self.gateway = Gateway(f"http://{address}", self.server)


def dataset() -> xr.Dataset:
    rng = np.random.default_rng(7)
    t2m = rng.normal(size=SHAPE).astype("f4")
    t2m[0:3] = np.nan
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), t2m, {"units": "K"}),
            "t2m-std": (("lat", "lon"), rng.integers(0, 9, SHAPE[1:], "i2")),
        },
        {
            "time": np.arange("2020-01-01", "2020-01-13", dtype="M8[D]").astype("M8[ns]"),
            "lat": np.linspace(80, -80, SHAPE[1]), "lon": np.linspace(0, 300, SHAPE[2]),
        },
        {"title": "å & <b>"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A store with the repositories `demo` (branches main and side, tag v1) and `empty`."""
    folder = tmp_path_factory.mktemp("s3")
    source = folder / "source.nc"
    dataset().to_netcdf(source, encoding={"t2m": {"chunksizes": (3, 4, 6)}})
    store = folder / "store"
    service.run("import", source, "--to", "demo", "--store", store)
    service.run("tag", "create", "demo", "v1", "--store", store)
    service.run("branch", "create", "demo", "side", "--store", store)
    # Sorts before main/ although its name is longer.
    service.run("branch", "create", "demo", "main-2", "--store", store)
    service.run("repo", "create", "empty", "--store", store)
    everything = [{"role": "reader"}]
    part = [{"role": "reader", "repository": "demo", "prefix": "t2m"}]
    credentials = [
        {"access_key_id": KEY, "secret_access_key": SECRET, "principal": "ada", "grants": everything},
        {"access_key_id": "PART", "secret_access_key": SECRET, "principal": "bob", "grants": part},
    ]
    (folder / "keys.json").write_text(json.dumps(credentials))
    return folder


@pytest.fixture(scope="module")
def gateway(folder):
    process = GatewayProcess(folder / "store", "--s3-credentials", folder / "keys.json")
    yield process.gateway
    process.stop()


@pytest.fixture(scope="module")
def s3(gateway):
    return gateway.client()


@pytest.fixture(scope="module")
def keys(gateway) -> list[str]:
    """The keys of main, as the Zarr view of the HTTP API lists them."""
    found, after = [], ""
    while after is not None:
        page = gateway.server.get("/v1/repos/demo/refs/main/zarr", list="all", after=after, limit=100).json()
        found += page["keys"]
        after = page["next"]
    return found


def refused(call, *arguments, **named) -> tuple[int, str]:
    """The status and the code of a refusal."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def listed(pages) -> tuple[list[str], list[str]]:
    """The keys and the common prefixes of some pages."""
    pages = list(pages)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    return keys, [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]


# Datasets


def test_xarray_reads_the_dataset_through_s3fs(gateway):
    store = FsspecStore(gateway.files(), path="demo/main")
    with xr.open_zarr(store, consolidated=True) as found:
        xr.testing.assert_identical(found.load(), dataset())
    pinned = gateway.server.get("/v1/repos/demo/refs/v1").json()["commit"]
    store = FsspecStore(gateway.files(), path=f"demo/{pinned}")
    with xr.open_zarr(store, consolidated=False) as found:
        xr.testing.assert_identical(found.load(), dataset())


def test_zarr_reads_arrays_through_obstore(gateway):
    store = obstore.store.S3Store(
        "demo", prefix="v1", endpoint=gateway.url, region="us-east-1", access_key_id=KEY,
        secret_access_key=SECRET, client_options={"allow_http": True},
    )
    group = zarr.open_group(ObjectStore(store, read_only=True), mode="r")
    np.testing.assert_array_equal(group["t2m"][:], dataset().t2m.values)
    np.testing.assert_array_equal(group["t2m-std"][1:3, ::2], dataset()["t2m-std"].values[1:3, ::2])
    found = {one["path"] for page in obstore.list(store) for one in page}
    assert {"zarr.json", "t2m/zarr.json"} < found
    whole = bytes(obstore.get(store, "t2m/zarr.json").bytes())
    assert bytes(obstore.get_range(store, "t2m/zarr.json", start=3, end=9)) == whole[3:9]
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "t2m/nothing")


# Prints the values of a raster as JSON, or nothing where GDAL has no Zarr.
GDAL_READER = """
import json, sys
import rasterio

with rasterio.Env() as environment:
    if "Zarr" in environment.drivers():
        with rasterio.open(sys.argv[1]) as opened:
            print(json.dumps(opened.read(1).tolist()))
"""


def test_gdal_reads_an_array(gateway):
    # Without shards, which only newer GDALs read.
    metadata = {
        "zarr_format": 3, "node_type": "array", "shape": [4, 6], "data_type": "int16", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    values = np.arange(24, dtype="<i2").reshape(4, 6)
    repo = f"{gateway.server.url}/v1/repos/plain"
    requests.put(repo, timeout=60).raise_for_status()
    requests.put(f"{repo}/refs/main/nodes/v", json=metadata, timeout=60).raise_for_status()
    octets = {"Content-Type": "application/octet-stream"}
    requests.put(f"{repo}/refs/main/data/v", data=values.tobytes(), headers=octets, timeout=60).raise_for_status()
    try:
        # GDAL beside other libraries that bring an HDF5 of their own may crash the process.
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
            "AWS_S3_ENDPOINT": gateway.url.removeprefix("http://"), "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        }
        reader = [sys.executable, "-c", GDAL_READER, 'ZARR:"/vsis3/plain/main":/v']
        read = subprocess.run(reader, env=environment, capture_output=True, text=True, timeout=300)
        assert read.returncode == 0, read.stderr
        if read.stdout == "":
            pytest.skip("this GDAL reads no Zarr")
        np.testing.assert_array_equal(json.loads(read.stdout), values)
    finally:
        requests.delete(repo, timeout=60).raise_for_status()


def test_duckdb_lists_and_reads(gateway, s3, keys):
    extension = pytest.importorskip("duckdb_extension_httpfs", reason="it is for newer versions of Python")
    import duckdb

    # By file: what is not here would be fetched from the network.
    (file,) = Path(extension.__file__).parent.rglob("httpfs.duckdb_extension")
    database = duckdb.connect()
    database.execute(f"LOAD '{file}'")
    database.execute(
        f"CREATE SECRET (TYPE s3, ENDPOINT '{gateway.url.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false,"
        f" REGION 'us-east-1', KEY_ID '{KEY}', SECRET '{SECRET}')"
    )
    listed = database.execute("SELECT file FROM glob('s3://demo/main/**')").fetchall()
    assert {name for (name,) in listed} == {f"s3://demo/main/{key}" for key in keys}
    arrays = database.execute("SELECT shape FROM read_json('s3://demo/main/t2m/zarr.json')").fetchall()
    assert arrays == [(list(SHAPE),)]
    blobs = database.execute("SELECT filename, content FROM read_blob('s3://demo/main/t2m/c/**')").fetchall()
    assert blobs
    for name, content in blobs:
        key = name.removeprefix("s3://demo/")
        assert content == s3.get_object(Bucket="demo", Key=key)["Body"].read()
    with pytest.raises(duckdb.HTTPException, match="403"):
        database.execute("COPY (SELECT 1) TO 's3://demo/main/new.csv'")


def test_the_command_line_of_aws_lists_and_copies(gateway, tmp_path):
    aws = shutil.which("aws")
    if aws is None:
        pytest.skip("there is no aws command")
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": gateway.url, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    run = [aws, "s3"]
    names = subprocess.run([*run, "ls", "s3://demo/main/"], env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"PRE t2m/", names.stdout) and re.search(r"\d+ zarr.json", names.stdout)
    subprocess.run([*run, "cp", "--quiet", "--recursive", "s3://demo/main", tmp_path], env=environment, check=True)
    with xr.open_zarr(tmp_path) as found:
        xr.testing.assert_identical(found.load(), dataset())


# Objects


def test_objects_are_those_of_the_zarr_view(gateway, s3, keys):
    for key in keys:
        whole = requests.get(f"{gateway.server.branch_url('demo')}/{key}", timeout=60).content
        found = s3.get_object(Bucket="demo", Key=f"main/{key}")
        assert found["Body"].read() == whole
        head = s3.head_object(Bucket="demo", Key=f"main/{key}")
        assert head["ContentLength"] == found["ContentLength"] == len(whole)
        assert head["ETag"] == found["ETag"] and head["LastModified"] == found["LastModified"]
    commit = gateway.server.get("/v1/repos/demo/refs/main").json()
    written = datetime.fromisoformat(commit["time"]).replace(microsecond=0)
    assert head["LastModified"] == written
    # The content is the same under every ref, and so is its tag.
    tags = {s3.head_object(Bucket="demo", Key=f"{ref}/zarr.json")["ETag"] for ref in ["main", "v1", "side"]}
    assert len(tags) == 1 and re.fullmatch(r'"[0-9a-f]{32}-1"', tags.pop())


def test_ranges(s3):
    where = {"Bucket": "demo", "Key": "main/t2m/zarr.json"}
    whole = s3.get_object(**where)["Body"].read()
    size = len(whole)
    for text, part in [
        ("bytes=0-0", whole[:1]), ("bytes=5-9", whole[5:10]), (f"bytes={size - 1}-", whole[-1:]),
        ("bytes=-7", whole[-7:]), (f"bytes=-{size + 9}", whole), (f"bytes=3-{size + 9}", whole[3:]),
    ]:
        found = s3.get_object(**where, Range=text)
        assert found["Body"].read() == part
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        start = size - len(part) if text[6] == "-" else int(re.search(r"\d+", text)[0])
        assert found["ContentRange"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    head = s3.head_object(**where, Range="bytes=2-4")
    assert head["ContentLength"] == 3 and head["ResponseMetadata"]["HTTPStatusCode"] == 206
    for text in [f"bytes={size}-", "bytes=-0", f"bytes={size + 3}-{size + 5}"]:
        assert refused(s3.get_object, **where, Range=text) == (416, "InvalidRange")
    for text in ["bytes=3-2", "bytes=0-1,3-4", "lines=1-2", "bytes=x"]:
        assert s3.get_object(**where, Range=text)["Body"].read() == whole


def test_conditions(s3):
    where = {"Bucket": "demo", "Key": "main/zarr.json"}
    head = s3.head_object(**where)
    tag, time = head["ETag"], head["LastModified"]
    second = timedelta(seconds=1)
    for call in [s3.get_object, s3.head_object]:
        for good in [
            {"IfMatch": tag}, {"IfMatch": "*"}, {"IfNoneMatch": '"other"'}, {"IfUnmodifiedSince": time},
            {"IfModifiedSince": time - second}, {"IfMatch": tag, "IfUnmodifiedSince": time - second},
            {"IfNoneMatch": '"other"', "IfModifiedSince": time + second},
        ]:
            assert call(**where, **good)["ETag"] == tag
        for known in [{"IfNoneMatch": tag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": time}]:
            assert refused(call, **where, **known)[0] == 304
        for wrong in [{"IfMatch": '"other"'}, {"IfUnmodifiedSince": time - second}]:
            assert refused(call, **where, **wrong)[0] == 412
    assert refused(s3.get_object, **where, IfMatch='"other"')[1] == "PreconditionFailed"


def test_what_is_not_there(s3, gateway):
    for bucket, key, expected in [
        ("nothing", "main/zarr.json", (404, "NoSuchBucket")),
        ("Not_A_Name", "main/zarr.json", (404, "NoSuchBucket")),
        ("demo", "nothing", (404, "NoSuchKey")),
        ("demo", "nothing/zarr.json", (404, "NoSuchKey")),
        ("demo", "main", (404, "NoSuchKey")),
        ("demo", "main/", (404, "NoSuchKey")),
        ("demo", "main/t2m", (404, "NoSuchKey")),
        ("demo", "main/t2m/", (404, "NoSuchKey")),
        ("demo", "main//zarr.json", (404, "NoSuchKey")),
        ("demo", "main/zarr.json/", (404, "NoSuchKey")),
        ("demo", "main/t2m/c/999/0/0", (404, "NoSuchKey")),
        ("demo", "main/t2m/c/0/0/0/0", (404, "NoSuchKey")),
        ("demo", "main/.zgroup", (404, "NoSuchKey")),
        ("demo", "a b/zarr.json", (404, "NoSuchKey")),
        ("demo", "main/" + "x" * 1020, (400, "KeyTooLongError")),
        # Readers of Zarr would take these for fill value.
        ("demo", "nothing/t2m/c/0/0/0", (410, "Gone")),
        ("nothing", "main/t2m/c/0/0/0", (410, "Gone")),
    ]:
        assert refused(s3.get_object, Bucket=bucket, Key=key) == expected, key
        status = refused(s3.head_object, Bucket=bucket, Key=key)[0]
        assert status == expected[0], key
    assert refused(s3.list_objects_v2, Bucket="nothing") == (404, "NoSuchBucket")
    assert refused(s3.head_bucket, Bucket="nothing")[0] == 404
    assert s3.list_objects_v2(Bucket="demo", Prefix="nothing/")["KeyCount"] == 0
    for call, named in [
        (s3.get_object_acl, {"Key": "main/zarr.json"}), (s3.get_bucket_versioning, {}),
        (s3.get_object, {"Key": "main/zarr.json", "VersionId": "1"}), (s3.list_object_versions, {}),
    ]:
        assert refused(call, Bucket="demo", **named) == (501, "NotImplemented")


# Listings


def test_buckets(s3):
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["demo", "empty"]
    assert s3.head_bucket(Bucket="demo")["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket="demo")["LocationConstraint"] is None
    assert listed([s3.list_objects_v2(Bucket="empty")])[0] == ["main/zarr.json"]


def every_key(keys: list[str]) -> list[str]:
    refs = ["main", "main-2", "side", "v1"]
    return sorted(f"{ref}/{key}" for ref in refs for key in keys)


def expected(keys: list[str], prefix: str, delimiter: str, after: str = ""):
    """What S3 says is listed: keys and common prefixes."""
    found, prefixes = [], []
    for key in keys:
        rest = key.removeprefix(prefix)
        if not key.startswith(prefix):
            continue
        if delimiter and delimiter in rest:
            common = prefix + rest[: rest.index(delimiter) + len(delimiter)]
            if common > after and common not in prefixes:
                prefixes.append(common)
        elif key > after:
            found.append(key)
    return found, prefixes


@pytest.mark.parametrize("method", ["list_objects", "list_objects_v2"])
def test_pages_are_what_s3_lists(s3, keys, method):
    """Every prefix and delimiter is a filter of all keys, in pages of any length."""
    every = every_key(keys)
    pages = s3.get_paginator(method)
    prefixes = ["", "m", "main", "main/", "main-2/", "main/t", "main/t2m", "main/t2m/", "main/t2m/c", "main/t2m/c/",
                "main/t2m/c/1/", "main/zarr.json", "main/zarr.jsonx", "v1/lat", "zz", "main//", "/", "main/t2m/zarr.json/"]
    for prefix, delimiter in itertools.product(prefixes, ["", "/", "t2", "c/", "."]):
        asked = {"Bucket": "demo", "Prefix": prefix, "Delimiter": delimiter}
        wanted = expected(every, prefix, delimiter)
        for size in [1000, 7] if prefix in ("", "main/t2m", "main/t2m/c/") else [1000]:
            found = listed(pages.paginate(**asked, PaginationConfig={"PageSize": size}))
            assert found == wanted, (prefix, delimiter, size)
    found = listed(pages.paginate(Bucket="demo", Prefix="main/t2m", Delimiter="/", PaginationConfig={"PageSize": 1}))
    assert found == expected(every, "main/t2m", "/")


def test_lists_begin_after_any_text(s3, keys):
    every = every_key(keys)
    for after, (prefix, delimiter) in itertools.product(
        ["", "main", "main/", "main/t2m/c/0/0/0", "main/t2m/c/", "main/t2mz", "side/zarr.json", "zz", "main-2/"],
        [("", ""), ("main/", "/"), ("", "/"), ("main/t2m/", ""), ("main/t2m/c/", "/")],
    ):
        wanted = expected(every, prefix, delimiter, after)
        asked = {"Bucket": "demo", "Prefix": prefix, "Delimiter": delimiter}
        assert listed([s3.list_objects_v2(**asked, StartAfter=after)]) == wanted, (after, prefix)
        assert listed([s3.list_objects(**asked, Marker=after)]) == wanted, (after, prefix)


def test_pages_say_how_they_go_on(s3, keys):
    page = s3.list_objects_v2(Bucket="demo", Prefix="main/", MaxKeys=2)
    assert page["KeyCount"] == page["MaxKeys"] == 2 and page["IsTruncated"]
    token = page["NextContinuationToken"]
    after = s3.list_objects_v2(Bucket="demo", Prefix="main/", ContinuationToken=token, StartAfter="main/a")
    assert listed([page, after])[0] == [f"main/{key}" for key in keys]
    assert not after["IsTruncated"] and after["ContinuationToken"] == token
    assert s3.list_objects_v2(Bucket="demo", MaxKeys=0)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket="demo", MaxKeys=99999)["MaxKeys"] == 1000
    for page in [s3.list_objects_v2(Bucket="demo", Prefix="main/t2m/"), s3.list_objects(Bucket="demo", Prefix="main/t2m/")]:
        for one in page["Contents"]:
            head = s3.head_object(Bucket="demo", Key=one["Key"])
            assert (one["Size"], one["ETag"], one["LastModified"]) == (
                head["ContentLength"], head["ETag"], head["LastModified"])
    for wrong in [{"MaxKeys": -1}, {"ContinuationToken": "?"}, {"EncodingType": "base64"}]:
        assert refused(s3.list_objects_v2, Bucket="demo", **wrong) == (400, "InvalidArgument")


def test_odd_names_are_listed_and_read(gateway, s3):
    name = "a b+c%2F&<å>~'\"\u0007"
    body = {"shape": [2], "data_type": "int8", "chunks": [1]}
    url = f"{gateway.server.url}/v1/repos/empty/refs/main/nodes/{urllib.parse.quote(name, safe='')}"
    assert requests.put(url, json=body, timeout=60).ok
    key = f"main/{name}/zarr.json"
    assert listed([s3.list_objects_v2(Bucket="empty")])[0] == [key, "main/zarr.json"]
    assert listed([s3.list_objects_v2(Bucket="empty", Prefix="main/a b", Delimiter="/")])[1] == [f"main/{name}/"]
    document = json.loads(s3.get_object(Bucket="empty", Key=key)["Body"].read())
    assert document["shape"] == [2]
    # XML has no place for a control character.
    plain = signed(gateway, "GET", "/empty")
    assert plain.status_code == 400 and "encoding-type=url" in plain.text


# Who asks


def signed(gateway, method: str, path: str, secret: str = SECRET, headers=None, data=None, token=None):
    """A request with a signature of version 4 in its headers."""
    request = AWSRequest(method, gateway.url + path, headers=headers, data=data)
    botocore.auth.S3SigV4Auth(Credentials(KEY, secret, token), "s3", "eu-west-1").add_auth(request)
    return requests.request(
        method, gateway.url + path, headers=dict(request.headers), data=data, timeout=60
    )


def test_only_who_signs_rightly_reads(gateway, s3):
    where = {"Bucket": "demo", "Key": "main/zarr.json"}
    for client, code in [
        (gateway.client(None), "AccessDenied"),
        (gateway.client("EVE"), "InvalidAccessKeyId"),
        (gateway.client(secret="another secret of many"), "SignatureDoesNotMatch"),
    ]:
        for call, named in [
            (client.get_object, where), (client.list_objects_v2, {"Bucket": "demo"}), (client.list_buckets, {}),
            (client.get_object, where | {"Bucket": "nothing"}), (client.get_bucket_location, {"Bucket": "demo"}),
        ]:
            assert refused(call, **named) == (403, code)
        assert refused(client.head_bucket, Bucket="demo")[0] == 403
    # Any region will do; a session token will not.
    assert signed(gateway, "GET", "/demo/main/zarr.json").ok
    assert "InvalidToken" in signed(gateway, "GET", "/demo/main/zarr.json", token="abc").text
    late = datetime.now(timezone.utc) - timedelta(minutes=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: late.replace(tzinfo=None))
        assert "RequestTimeTooSkewed" in signed(gateway, "GET", "/demo/main/zarr.json").text


def test_presigned_urls(gateway, s3):
    where = {"Bucket": "demo", "Key": "main/t2m-std/zarr.json"}
    url = gateway.client(signature_version="s3v4").generate_presigned_url("get_object", where, ExpiresIn=60)
    assert requests.get(url, timeout=60).json()["shape"] == [4, 6]
    assert requests.get(url, headers={"Range": "bytes=0-3"}, timeout=60).status_code == 206
    assert requests.get(url.replace("t2m-std", "t2m"), timeout=60).status_code == 403
    assert requests.put(url, data=b"x", timeout=60).status_code == 403
    client = gateway.client(signature_version="s3v4")
    early = datetime.now(timezone.utc) - timedelta(minutes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: early.replace(tzinfo=None))
        url = client.generate_presigned_url("get_object", where, ExpiresIn=60)
    answer = requests.get(url, timeout=60)
    assert answer.status_code == 403 and "Request has expired" in answer.text


def test_nothing_is_written(gateway, s3):
    before = gateway.server.get("/v1/repos/demo/log").json()
    where = {"Bucket": "demo", "Key": "main/t2m/zarr.json"}
    denied = (403, "AccessDenied")
    # Bodies of boto3 come in signed chunks with a checksum at their end.
    assert refused(s3.put_object, **where, Body=b"x" * 70_000) == denied
    assert refused(s3.delete_object, **where) == denied
    assert refused(s3.delete_objects, Bucket="demo", Delete={"Objects": [{"Key": where["Key"]}]}) == denied
    assert refused(s3.copy_object, **where, CopySource="demo/main/zarr.json") == denied
    assert refused(s3.create_multipart_upload, **where) == denied
    assert refused(s3.create_bucket, Bucket="new") == denied
    assert refused(s3.delete_bucket, Bucket="demo") == denied
    assert refused(s3.put_object_tagging, **where, Tagging={"TagSet": []}) == denied
    for encoding in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"]:
        body = b"1;chunk-signature=00\r\nx\r\n0;chunk-signature=00\r\n\r\n"
        headers = {"X-Amz-Content-SHA256": encoding, "Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "1"}
        assert signed(gateway, "PUT", "/demo/main/new", headers=headers, data=body).status_code == 403
    assert signed(gateway, "PATCH", "/demo/main/zarr.json").status_code == 405
    assert gateway.server.get("/v1/repos/demo/log").json() == before
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["demo", "empty"]


def test_errors_are_documents(gateway):
    answer = signed(gateway, "GET", "/demo/main/nothing%3Cx%3E")
    assert answer.headers["content-type"] == "application/xml"
    assert "<Code>NoSuchKey</Code>" in answer.text and "&lt;x&gt;" in answer.text
    assert answer.headers["x-amz-request-id"] in answer.text
    for path in ["/demo/%ff", "/demo?prefix=%ff", "/demo?prefix=a&prefix=b", "/demo?list-type=3"]:
        assert requests.get(gateway.url + path, timeout=60).status_code == 400, path


def test_a_key_reads_what_its_grants_name(gateway):
    client = gateway.client("PART", SECRET)
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["demo"]
    client.head_bucket(Bucket="demo")
    assert client.get_object(Bucket="demo", Key="v1/t2m/zarr.json")["ContentLength"] > 0
    listed = client.list_objects_v2(Bucket="demo", Prefix="v1/t2m/")["Contents"]
    assert listed and all(entry["Key"].startswith("v1/t2m/") for entry in listed)
    denied = [
        lambda: client.get_object(Bucket="demo", Key="v1/zarr.json"),
        lambda: client.list_objects_v2(Bucket="demo", Prefix="v1/t2m"),
        lambda: client.list_objects_v2(Bucket="demo"),
        lambda: client.list_objects_v2(Bucket="empty"),
        lambda: client.get_object(Bucket="none", Key="v1/t2m/zarr.json"),
    ]
    for call in denied:
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Code"] == "AccessDenied"


def test_an_open_server_asks_for_no_key(folder):
    process = GatewayProcess(folder / "store", "--s3-domain", "s3.localhost")
    try:
        for client in [process.gateway.client(None), process.gateway.client("any", "key at all")]:
            assert client.head_object(Bucket="demo", Key="v1/zarr.json")["ContentLength"] > 0
        url = process.gateway.url
        hosted = requests.get(f"{url}/v1/t2m/zarr.json", headers={"Host": "demo.s3.localhost"}, timeout=60)
        assert hosted.json()["shape"] == list(SHAPE)
        foreign = requests.get(f"{url}/demo/v1/zarr.json", headers={"Host": "evil.example"}, timeout=60)
        assert foreign.status_code == 421
    finally:
        process.stop()


def test_addresses_that_anyone_reaches_need_keys(folder):
    arguments = ["serve", "--store", folder / "store", "--listen", "127.0.0.1:0", "--s3-listen", "0.0.0.0:0"]
    done = service.run(*arguments, check=False)
    assert done.returncode != 0 and "--s3-credentials" in done.stderr
    (folder / "bad.json").write_text('[{"access_key_id": "A", "secret_access_key": 17}]')
    done = service.run(*arguments, "--s3-credentials", folder / "bad.json", check=False)
    assert done.returncode != 0 and "bad.json" in done.stderr and "17" not in done.stderr
