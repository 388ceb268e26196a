"""The transparency log from outside: keys, audits, and what other people's programs say of it."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

import service
from test_proofs import proof

pytestmark = pytest.mark.once

GO = Path(__file__).parents[1] / "go"


@pytest.fixture
def signed(tmp_path, import_once, store):
    """A store of its own with a signed repository, and the key of its log."""
    source = import_once("weather.nc")
    own = Signed(tmp_path)
    service.run("import", source.path, "--to", "weather", "--store", own.store)
    service.run("key", "create", "weather", "--origin", "log.example/weather", *own.place)
    return own


class Signed:
    def __init__(self, folder: Path) -> None:
        self.store, self.keys, self.folder = folder / "store", folder / "keys", folder
        self.place = ("--store", self.store, "--keys", self.keys)

    @property
    def vkey(self) -> str:
        return service.run("key", "show", "weather", *self.place).stdout.strip()

    def tag(self, *names: str) -> None:
        for name in names:
            service.run("tag", "create", "weather", name, *self.place)

    def serve(self, *arguments: str) -> service.ServerProcess:
        return service.ServerProcess(self.store, "--keys", str(self.keys), *arguments)


def test_keys_are_made_once_shown_and_rotated(signed):
    first = signed.vkey
    assert first.startswith("log.example/weather+")
    again = service.run("key", "create", "weather", *signed.place, check=False)
    assert again.returncode == 1 and "quarr key rotate" in again.stderr
    (file,) = signed.keys.glob("*.key")
    assert file.stat().st_mode & 0o777 == 0o600
    secret = file.read_text()
    made = signed.folder / "proof.json"
    service.run("prove", "weather/t2m[0,0,0]", "-o", made, *signed.place)
    service.run("check-proof", made, "--key", first)

    both = service.run("key", "rotate", "weather", *signed.place).stdout.split()
    assert both[1] == first and both[0] != first
    service.run("prove", "weather/t2m[0,0,0]", "-o", made, *signed.place)
    for key in both:
        service.run("check-proof", made, "--key", key)
    alone = service.run("key", "rotate", "weather", "--retire", *signed.place).stdout.split()
    assert len(alone) == 1 and alone[0] not in both
    service.run("prove", "weather/t2m[0,0,0]", "-o", made, *signed.place)
    service.run("check-proof", made, "--key", alone[0])
    for key in both:
        refused = service.run("check-proof", made, "--key", key, check=False)
        assert refused.returncode == 1 and "none of the given keys" in refused.stderr
    for command in (["key", "show"], ["key", "show", "weather"], ["log", "weather"]):
        output = service.run(*command, *signed.place)
        assert secret.split("+", 4)[4].strip() not in output.stdout + output.stderr
    service.run("verify", "weather", *signed.place)


def test_nothing_is_signed_without_a_key_nor_checked_without_a_choice(signed):
    made = signed.folder / "proof.json"
    elsewhere = ("--store", signed.store, "--keys", signed.folder / "none")
    service.run("repo", "create", "other", *elsewhere)
    shown = service.run("key", "show", "other", *elsewhere, check=False)
    assert shown.returncode == 1 and "quarr key create other" in shown.stderr
    service.run("prove", "weather/t2m[0,0,0]", "-o", made, *signed.place)
    assert service.run("check-proof", made, check=False).returncode == 2
    both = service.run("check-proof", made, "--no-signature", "--key", signed.vkey, check=False)
    assert both.returncode == 2
    # Other processes may commit without the key; the next one with it signs what they did.
    service.run("tag", "create", "weather", "v1", *elsewhere)
    assert (signed.store / "weather/tlog/checkpoint").read_text().split("\n")[1] == "2"
    signed.tag("v2")
    assert (signed.store / "weather/tlog/checkpoint").read_text().split("\n")[1] == "4"


def test_receipts_and_proofs_hold_for_both_verifiers(signed, tmp_path):
    key = proof.VerifierKey.parse(signed.vkey)
    receipt, data = tmp_path / "r.tlog-proof", tmp_path / "p.json"
    service.run("prove", "weather", "--receipt", "-o", receipt, *signed.place)
    service.run("prove", "weather/t2m[0]", "-o", data, *signed.place)
    for path in (receipt, data):
        told = service.run("check-proof", path, "--key", signed.vkey).stdout
        lines = proof.report(path.read_bytes(), [key])
        assert told.splitlines()[-1] == lines[-1] == "signed by log.example/weather"
    text = receipt.read_bytes()
    for at in range(0, len(text), 7):
        for bit in range(8):
            changed = bytearray(text)
            changed[at] ^= 1 << bit
            with pytest.raises(proof.ProofError):
                proof.report(bytes(changed), [key])
    for bad in (text[:-1], text + b"\n", b"", b"c2sp.org/tlog-proof@v1\n"):
        with pytest.raises(proof.ProofError):
            proof.report(bad, [key])


def audit(url: str, signed: Signed, *arguments, check: bool = True):
    state = signed.folder / "audit"
    return service.run(
        "audit", url, "--key", signed.vkey, "--state", state, *arguments, check=check
    )


def test_an_audit_follows_a_log_and_finds_what_contradicts_it(signed):
    server = signed.serve()
    try:
        first = audit(server.server.url, signed)
        assert "seen for the first time" in first.stdout
        before = signed.folder / "before"
        shutil.copytree(signed.store, before)
        signed.tag("v1", "v2", "v3")
        again = audit(f"{server.server.url}/v1/repos/weather", signed)
        assert "continues the 2 seen before" in again.stdout
        assert "log.example/weather has 5 entries" in again.stdout
        other = "log.example/weather+deadbeef+" + signed.vkey.split("+", 2)[2]
        refused = service.run("audit", server.server.url, "--key", other, check=False)
        assert refused.returncode == 2
    finally:
        server.stop()
    # An old copy of the store is served.
    shutil.rmtree(signed.store)
    shutil.copytree(before, signed.store)
    server = signed.serve()
    try:
        rolled_back = audit(server.server.url, signed, check=False)
        assert rolled_back.returncode == 1 and "rolled back" in rolled_back.stderr
    finally:
        server.stop()
    # It goes on from there as if nothing had been; whoever signs is honest, and refuses.
    told = service.run("tag", "create", "weather", "fork1", *signed.place)
    assert "not signed" in told.stderr and "entries are gone" in told.stderr
    (noted,) = signed.keys.glob("*.head")
    noted.unlink()
    told = service.run("tag", "create", "weather", "fork0", *signed.place)
    assert "not signed" in told.stderr and "is missing" in told.stderr
    # One who is not honest forgets what was signed.
    noted.write_text(f"0 {base64.b64encode(hashlib.sha256(b'').digest()).decode()}\n")
    signed.tag("fork2", "fork3")
    server = signed.serve()
    try:
        forked = audit(server.server.url, signed, check=False)
        assert forked.returncode == 1 and "the first 5 entries are not those seen" in forked.stderr
        assert len(list(signed.folder.glob("audit.head-*"))) > 2
        # What is on this machine may be damaged too.
        state = signed.folder / "audit"
        state.write_text(state.read_text().replace("\n5\n", "\n6\n"))
        damaged = audit(server.server.url, signed, check=False)
        assert damaged.returncode == 1 and "the head seen before" in damaged.stderr
    finally:
        server.stop()


def test_an_audit_finds_data_that_are_not_what_is_proven(signed):
    (shard,) = list((signed.store / "weather/shards").rglob("*"))[-1:]
    server = signed.serve()
    try:
        audit(server.server.url, signed, "--samples", "2")
        for path in (signed.store / "weather/shards").rglob("*"):
            if path.is_file():
                data = bytearray(path.read_bytes())
                data[: len(data) // 2] = bytes(len(data) // 2)
                path.chmod(0o600)
                path.write_bytes(data)
        broken = audit(server.server.url, signed, "--samples", "40", check=False)
        assert broken.returncode == 1 and "500" in broken.stderr
    finally:
        server.stop()
    assert shard.exists()


def test_a_witness_that_does_not_answer_does_not_hold_up_unless_it_must(signed):
    witness = witness_key("w.example", b"\1" * 32)
    place = (*signed.place, "--witness", f"{witness},http://127.0.0.1:9")
    told = service.run("tag", "create", "weather", "v1", *place)
    assert "not signed" not in told.stderr and "no cosignature of w.example" in told.stderr
    told = service.run("tag", "create", "weather", "v2", *place, "--witness-quorum", "1")
    assert "0 of the 1 witnesses it takes" in told.stderr
    assert "no cosignature of w.example: " in told.stderr
    twice = (*place, "--witness", place[-1], "--witness-quorum", "2")
    refused = service.run("repo", "list", *twice, check=False)
    assert refused.returncode == 1 and "given twice" in refused.stderr
    checkpoint = (signed.store / "weather/tlog/checkpoint").read_text()
    assert checkpoint.split("\n")[1] == "3"
    few = service.run("repo", "list", *place, "--witness-quorum", "2", check=False)
    assert few.returncode == 1 and "only 1 witnesses" in few.stderr


def test_copies_of_a_store_are_not_both_signed(signed):
    copy = signed.folder / "copy"
    shutil.copytree(signed.store, copy)
    for number in range(5):
        commits = [
            subprocess.Popen(
                [service.BIN, "tag", "create", "weather", f"{name}{number}", "--store", store,
                 "--keys", signed.keys],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for name, store in (("a", signed.store), ("b", copy))
        ]  # fmt: skip
        assert [commit.wait(timeout=60) for commit in commits] == [0, 0]
    heads = {}
    for store in (signed.store, copy):
        for head in (store / "weather/tlog/heads").iterdir():
            heads.setdefault(head.name, set()).add(head.read_text())
    published = [(store / "weather/tlog/checkpoint").read_text() for store in (signed.store, copy)]
    sizes = sorted(int(text.split("\n")[1]) for text in published)
    # One of them was signed first, and then it alone.
    assert sizes[0] == 2 and sizes[1] > 2
    signed_sizes = [name for name, texts in heads.items() if len(texts) > 1]
    assert signed_sizes == []


# Other people's programs


def witness_key(name: str, key: bytes) -> str:
    material = b"\4" + key
    key_id = hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(material).decode()}"


@pytest.fixture(scope="session")
def go_program(tmp_path_factory):
    """Builds a Go program of `tests/go`; skips the test where that cannot be done."""
    folder = tmp_path_factory.mktemp("go")
    shutil.copytree(GO, folder, dirs_exist_ok=True)

    def build(package: str) -> Path:
        if shutil.which("go") is None:
            pytest.skip("Go is not installed")
        path = folder / "bin" / package.rsplit("/", 1)[-1]
        command = ["go", "build", "-mod=mod", "-o", path, package]
        try:
            built = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=500, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"building {package} takes too long")
        if built.returncode != 0:
            pytest.skip(f"{package} cannot be built here: {built.stderr[-300:]}")
        return path

    return build


def succeeds(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_implementations_in_go_follow_the_log(signed, go_program, tmp_path):
    oracle = go_program("./oracle")
    server = signed.serve()
    try:
        url = server.server.url
        # Over a whole tile and into the next.
        for number in range(270):
            answer = service.requests.put(f"{url}/v1/repos/weather/tags/t{number}", timeout=60)
            assert answer.status_code == 201
        receipt = tmp_path / "r.tlog-proof"
        service.run("prove", "weather", "--receipt", "-o", receipt, "--server", url)
        # The newest entry is signed when its receipt is asked for.
        newest = server.server.get("/v1/repos/weather/tlog/receipts/271")
        assert newest.status_code == 200
        prefix = f"{url}/v1/repos/weather/tlog/"
        assert succeeds(oracle, "log", prefix, signed.vkey).strip() == "272"
        succeeds(oracle, "receipt", receipt, signed.vkey)
        public = tmp_path / "log.pub"
        public.write_text(signed.vkey)
        fsck = go_program("github.com/transparency-dev/tessera/cmd/fsck")
        succeeds(fsck, "-storage_url", prefix, "-public_key", public, "-ui=false")
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_litewitness_cosigns(signed, go_program, tmp_path):
    for program in ("ssh-agent", "ssh-add", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    litewitness = go_program("filippo.io/torchwood/cmd/litewitness")
    oracle = go_program("./oracle")
    key = tmp_path / "witness"
    succeeds("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    public = base64.b64decode((tmp_path / "witness.pub").read_text().split()[1])[-32:]
    fingerprint = succeeds("ssh-keygen", "-lf", key).split()[1]
    database, listen = tmp_path / "witness.db", f"127.0.0.1:{free_port()}"
    # The path of a socket must be short.
    agent_socket = Path(f"/tmp/quarr-witness-{os.getpid()}.sock")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", agent_socket], stdout=subprocess.DEVNULL)
    witness = None
    try:
        wait_for(agent_socket.exists)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(agent_socket)}
        subprocess.run(["ssh-add", "-q", key], env=environment, check=True)
        witness = subprocess.Popen(
            [litewitness, "-db", database, "-name", "witness.example/w", "-key", fingerprint,
             "-ssh-agent", agent_socket, "-listen", listen],
            cwd=tmp_path,
        )  # fmt: skip
        wait_for(lambda: answers(listen))
        with sqlite3.connect(database) as rows:
            empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
            rows.execute("INSERT INTO log VALUES (?, 0, ?)", ("log.example/weather", empty))
            rows.execute("INSERT INTO key VALUES (?, ?)", ("log.example/weather", signed.vkey))
        vkey = witness_key("witness.example/w", public)
        place = (*signed.place, "--witness", f"{vkey},http://{listen}", "--witness-quorum", "1")
        for name in ("v1", "v2", "v3"):
            told = service.run("tag", "create", "weather", name, *place)
            assert "not signed" not in told.stderr, told.stderr
        checkpoint = (signed.store / "weather/tlog/checkpoint").read_text()
        assert checkpoint.split("\n")[1] == "5" and "witness.example/w" in checkpoint
        receipt = tmp_path / "r.tlog-proof"
        service.run("prove", "weather", "--receipt", "-o", receipt, *place)
        both = ("--key", signed.vkey, "--key", vkey)
        told = service.run("check-proof", receipt, *both).stdout
        assert "signed by log.example/weather, witness.example/w" in told
        keys = [proof.VerifierKey.parse(text) for text in (signed.vkey, vkey)]
        assert proof.report(receipt.read_bytes(), keys)[-1] == told.splitlines()[-1]
        succeeds(oracle, "receipt", receipt, signed.vkey, vkey)
        stranger = witness_key("other.example", public)
        refused = service.run("check-proof", receipt, *both, "--key", stranger, check=False)
        assert refused.returncode == 1 and "other.example has not signed" in refused.stderr
    finally:
        for process in (witness, agent):
            if process is not None:
                process.terminate()
                process.wait(timeout=30)


def answers(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def wait_for(holds) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come up")
