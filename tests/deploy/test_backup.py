"""Backups to another store: incremental, at any moment, refused where they would mix; and restored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import quarr
import store_server

SCRIPT = Path(__file__).parents[2] / "deploy" / "backup" / "quarr-backup.py"


@pytest.fixture
def store(tmp_path) -> Path:
    """A signed repository with two commits and a tag."""
    folder = tmp_path / "store"
    env = {"QUARR_KEYS": str(tmp_path / "keys")}
    (tmp_path / "a.npy").write_bytes(quarr.npy([1.0, 2.0]))
    (tmp_path / "b.npy").write_bytes(quarr.npy([3.0]))
    quarr.run("import", tmp_path / "a.npy", "--to", "climate", "--store", folder, env=env)
    quarr.run("key", "create", "climate", "--store", folder, env=env)
    quarr.run("import", tmp_path / "b.npy", "--to", "climate", "--store", folder, env=env)
    return folder


def backup(*arguments: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_backup_in_another_store_is_the_repository(store, tmp_path, bucket, monkeypatch):
    for name, value in bucket.settings().items():
        monkeypatch.setenv(name, value)
    away, back = f"s3://{store_server.NAME}/backup", tmp_path / "restored"
    assert "0 were there" in backup(store.as_uri(), away)
    # What is added is copied, and nothing else.
    quarr.run("tag", "create", "climate", "v1", "--store", store, env={})
    assert "climate: to entry 3; 1 objects" in backup(store.as_uri(), away)
    assert "climate: to entry 3; 0 objects, 0 bytes copied" in backup(store.as_uri(), away)
    # The drill: the store is lost, the backup is restored, everything is there and proven.
    back.mkdir()
    backup(away, back.as_uri())
    quarr.run("verify", "climate", "--deep", "--store", back, env={})
    logs = [quarr.run("log", "climate", "--store", at, env={}).stdout for at in (store, back)]
    assert logs[0] == logs[1] and logs[0]
    for key in ("a", "b"):
        (tmp_path / key).mkdir()
        quarr.run("get", f"climate@v1/{key}", "-o", tmp_path / key / "got.npy", "--store", back, env={})
        assert (tmp_path / key / "got.npy").read_bytes()[-8:] == (tmp_path / f"{key}.npy").read_bytes()[-8:]
    # It goes on from there.
    quarr.run("tag", "create", "climate", "v2", "--store", back, env={})


def test_a_backup_that_was_broken_off_is_finished(store, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    backup(store.as_uri(), away.as_uri())
    entries = sorted((away / "climate" / "log").glob("0*.json"))
    entries[-1].unlink()
    quarr.run("verify", "climate", "--store", away, env={"QUARR_KEYS": str(tmp_path / "nobody")}, check=False)
    assert " 1 objects" in backup(store.as_uri(), away.as_uri())
    quarr.run("verify", "climate", "--deep", "--store", away, env={})


def test_another_repository_of_that_name_is_left_alone(store, tmp_path):
    away = tmp_path / "away"
    quarr.run("repo", "create", "climate", "--store", away, env={})
    before = {path: path.read_bytes() for path in away.rglob("*") if path.is_file()}
    assert "another repository of this name is there" in backup(store.as_uri(), away.as_uri(), check=False)
    assert {path: path.read_bytes() for path in away.rglob("*") if path.is_file()} == before


def test_a_name_that_is_not_there_is_an_error(store, tmp_path):
    (tmp_path / "away").mkdir()
    said = backup(store.as_uri(), (tmp_path / "away").as_uri(), "--repository", "ocean", check=False)
    assert "ocean: there is no such repository" in said
