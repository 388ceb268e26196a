"""Authentication as clients see it: the command line, the Python package, plain Zarr clients, TLS."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import quarr
import requests
import service
import xarray as xr
import zarr
import zarr.storage
from obstore.store import HTTPStore

FIXTURES = Path(__file__).parents[2] / "service" / "tests" / "http" / "fixtures"


class Guarded:
    """A server that asks who its clients are, and a token of each role."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self.audit_log = folder / "audit.log"
        service.run("repo", "create", "demo", "--store", self.store)
        self.admin = self.key("root", "--role", "admin")
        self.writer = self.key("wanda", "--role", "writer", "--repository", "demo")
        self.reader = self.key("rita", "--role", "reader", "--repository", "demo")
        self.part = self.key(
            "paul", "--role", "writer", "--repository", "demo", "--prefix", "/part"
        )
        self.process = service.ServerProcess(self.store, "--audit-log", str(self.audit_log))
        self.url = self.process.server.url

    def key(self, *arguments: str) -> str:
        made = service.run("auth", "key", "create", *arguments, "--store", self.store)
        token = made.stdout.strip()
        assert re.fullmatch("quarr_[0-9a-f]{16}_[0-9a-f]{72}", token)
        return token

    def client(self, token: str) -> quarr.Client:
        return quarr.connect(self.url, token=token)

    def audit(self) -> list[dict]:
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    with guarded.client(guarded.writer).repo("demo").transaction() as tx:
        data = xr.Dataset({"t": (("x",), np.arange(8.0))}, coords={"x": np.arange(8)})
        for group in ("part", "rest"):
            data.to_zarr(tx.store, group=group, zarr_format=3, consolidated=False)
    yield guarded
    guarded.process.stop()


def test_the_command_line_is_who_has_the_token(guarded, monkeypatch):
    refused = service.run("ls", "demo", "--server", guarded.url, check=False)
    assert refused.returncode == 1 and "say who you are" in refused.stderr
    monkeypatch.setenv("QUARR_TOKEN", guarded.reader)
    assert "part" in service.run("ls", "demo", "--server", guarded.url).stdout
    me = service.run("auth", "whoami", "--server", guarded.url).stdout
    assert me.strip() == "rita: reader:demo"
    service_help = service.run("ls", "--help").stdout
    assert guarded.reader not in service_help
    denied = service.run("auth", "key", "list", "--server", guarded.url, check=False)
    assert denied.returncode == 1
    admin = ("--server", guarded.url, "--token", guarded.admin)
    made = service.run("auth", "key", "create", "temp", "--grant", "reader:demo", *admin)
    token = made.stdout.strip()
    assert requests.get(f"{guarded.url}/v1/repos/demo", headers=bearer(token)).status_code == 200
    second = service.run("auth", "key", "rotate", "temp", "--overlap", "0s", *admin)
    assert requests.get(f"{guarded.url}/v1/repos/demo", headers=bearer(token)).status_code == 401
    token = second.stdout.strip()
    assert "temp" in service.run("auth", "key", "list", *admin).stdout
    service.run("auth", "key", "revoke", "temp", *admin)
    assert requests.get(f"{guarded.url}/v1/repos/demo", headers=bearer(token)).status_code == 401


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_client_carries_its_token_everywhere(guarded, monkeypatch):
    with pytest.raises(quarr.UnauthorizedError):
        quarr.connect(guarded.url).repo("demo").branches()
    monkeypatch.setenv("QUARR_TOKEN", guarded.reader)
    repo = quarr.connect(guarded.url).repo("demo")
    snapshot = repo.at("main")
    assert snapshot.info.author == "wanda"
    assert np.array_equal(snapshot.read("part/t"), np.arange(8.0))
    opened = xr.open_zarr(repo.store("main"), group="part")
    assert opened["t"].sum() == 28
    plain = xr.open_zarr(
        snapshot.zarr_url, group="part", storage_options=snapshot.storage_options
    )
    assert plain["t"].sum() == 28
    with pytest.raises(quarr.ForbiddenError), repo.transaction() as tx:
        tx.write("part/t", 0)
    monkeypatch.delenv("QUARR_TOKEN")
    assert np.array_equal(repo.at("main").read("part/t"), np.arange(8.0)), "it keeps its token"


def test_a_part_is_read_and_written_by_clients_that_know_of_no_parts(guarded):
    repo = guarded.client(guarded.part).repo("demo")
    assert xr.open_zarr(repo.store("main"), group="part")["t"].sum() == 28
    root = zarr.open_group(repo.store("main"), mode="r")
    assert list(root) == ["part"]
    with pytest.raises(quarr.ForbiddenError):
        repo.at("main").read("rest/t")
    with repo.transaction() as tx:
        data = xr.Dataset({"u": (("x",), np.ones(3))})
        data.to_zarr(tx.store, group="part/new", zarr_format=3, consolidated=False)
    assert repo.at("main").info.author == "paul"
    assert np.array_equal(repo.at("main").read("part/new/u"), np.ones(3))
    with pytest.raises(quarr.ForbiddenError), repo.transaction() as tx:
        data.to_zarr(tx.store, group="other", zarr_format=3, consolidated=False)


def test_clients_with_user_and_password_alone_send_the_token_as_password(guarded):
    url = f"{guarded.url}/v1/repos/demo/refs/main/zarr"
    assert requests.get(f"{url}/zarr.json", auth=("any", guarded.reader)).status_code == 200
    headers = {"authorization": f"Bearer {guarded.reader}"}
    options = {"allow_http": True, "default_headers": headers}
    store = zarr.storage.ObjectStore(
        HTTPStore.from_url(url, client_options=options), read_only=True
    )
    values = zarr.open_array(store, path="part/t", mode="r")[:]
    assert np.array_equal(values, np.arange(8.0))


def test_denials_and_changes_are_in_the_log_which_can_be_renamed(guarded):
    requests.get(f"{guarded.url}/v1/repos/demo", headers=bearer("quarr_nonsense"))
    last = guarded.audit()[-1]
    assert (last["outcome"], last["reason"], last["status"]) == ("denied", "unknown-key", 401)
    assert last["remote"].startswith("127.0.0.1:")
    assert "nonsense" not in guarded.audit_log.read_text()
    commits = [line for line in guarded.audit() if line.get("commit")]
    assert commits and commits[0]["name"] == "wanda"
    assert os.stat(guarded.audit_log).st_mode & 0o777 == 0o600
    old = guarded.audit_log.with_suffix(".old")
    guarded.audit_log.rename(old)
    guarded.process.process.send_signal(signal.SIGHUP)
    wait_until(guarded.audit_log.exists)
    requests.get(f"{guarded.url}/v1/repos/demo")
    assert guarded.audit()[-1]["reason"] == "no-credentials"
    for token in (guarded.admin, guarded.writer, guarded.reader, guarded.part):
        assert token[23:] not in old.read_text() + guarded.audit_log.read_text()


def wait_until(holds, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_changes_are_refused_while_the_audit_log_cannot_be_written(guarded):
    process = service.ServerProcess(guarded.store, "--audit-log", "/dev/full")
    try:
        url = process.server.url
        headers = {**bearer(guarded.writer), "Content-Type": "application/json"}
        node = f"{url}/v1/repos/demo/refs/main/nodes/rest"
        first = requests.put(node, headers=headers, data="{}")
        assert first.status_code == 200
        second = requests.put(node, headers=headers, data='{"attributes": {"a": 1}}')
        assert second.status_code == 503 and "audit log" in second.json()["detail"]
        assert requests.get(node, headers=headers).json()["zarr_json"]["attributes"] == {}
    finally:
        process.stop()


def test_a_server_asks_where_there_are_keys_and_does_not_start_open_elsewhere(tmp_path, guarded):
    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [service.BIN, "serve", *arguments], capture_output=True, text=True, timeout=60
        )

    refused = start("--store", str(tmp_path / "new"), "--listen", "0.0.0.0:0")
    assert refused.returncode == 1 and "anyone" in refused.stderr
    for wrong in (
        ("--insecure", "--auth"),
        ("--oidc-issuer", "https://login.example"),
        ("--oidc-issuer", "http://login.example", "--oidc-audience", "quarr"),
        ("--oidc-issuer", "https://a.example", "--oidc-audience", "q", "--oidc-role", "x"),
        ("--tls-cert", "nothing.pem"),
        ("--tls-cert", "nothing.pem", "--tls-key", "nothing.pem"),
        ("--rate-limit", "0"),
        ("--audit-log", str(tmp_path / "none" / "audit.log")),
    ):
        done = start("--store", str(guarded.store), "--listen", "127.0.0.1:0", *wrong)
        assert done.returncode in (1, 2) and "panicked" not in done.stderr, wrong
    process = service.ServerProcess(guarded.store, "--insecure")
    try:
        assert requests.get(f"{process.server.url}/v1/repos/demo").status_code == 200
    finally:
        process.stop()


def test_tls_serves_and_takes_a_new_certificate_without_a_pause(tmp_path, guarded):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(name: str) -> Path:
        shutil.copy(FIXTURES / f"{name}-key.pem", key)
        shutil.copy(FIXTURES / f"{name}-cert.pem", certificate)
        return FIXTURES / f"{name}-cert.pem"

    first = install("first")
    arguments = ("--tls-cert", certificate, "--tls-key", key, "--listen", "127.0.0.1:0")
    process = subprocess.Popen(
        [service.BIN, "serve", "--store", guarded.store, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"https://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        port = int(found[1])
        url = f"https://localhost:{port}"

        def works(trusted: Path) -> bool:
            try:
                return requests.get(f"{url}/livez", verify=str(trusted)).status_code == 200
            except requests.exceptions.SSLError:
                return False

        assert works(first)
        session = requests.Session()
        session.headers.update(bearer(guarded.reader))
        commit = session.get(f"{url}/v1/repos/demo/refs/main", verify=str(first)).json()
        assert commit["zarr_url"].startswith(url)
        server = ("--server", url, "--server-ca", first, "--token", guarded.reader)
        assert "part" in service.run("ls", "demo", *server).stdout
        untrusting = service.run("ls", "demo", "--server", url, "--token", "x", check=False)
        assert untrusting.returncode == 1
        context = ssl.create_default_context(cafile=str(first))
        context.set_alpn_protocols(["h2", "http/1.1"])
        import socket

        with socket.create_connection(("localhost", port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
                assert wrapped.selected_alpn_protocol() == "h2"
                assert wrapped.version() == "TLSv1.3"
        second = install("second")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: works(second))
        assert not works(first)
        # The connection from before is still there.
        assert session.get(f"{url}/v1/repos/demo", verify=str(first)).status_code == 200
        certificate.write_text("nonsense")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert works(second)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
