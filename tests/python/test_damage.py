"""The command line names a damaged object and exits 1."""

from __future__ import annotations

import random
import shutil

import pytest

import service

pytestmark = pytest.mark.once

FLIPS = 60


@pytest.fixture(scope="module")
def damaged_store(store, import_once, tmp_path_factory):
    """A copy of the store's `weather` repository that may be damaged."""
    repo = import_once("weather.nc").repo
    copy = tmp_path_factory.mktemp("damaged")
    shutil.copytree(store / repo, copy / repo)
    return copy, repo


def test_verify_names_a_flipped_byte(damaged_store):
    store, repo = damaged_store
    folder = store / repo
    objects = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "_hint.json")
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for _ in range(FLIPS):
        path = rng.choice(objects)
        good = path.read_bytes()
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= rng.randrange(1, 256)
        path.write_bytes(bad)
        done = service.run("verify", repo, "--deep", "--store", store, check=False)
        path.write_bytes(good)
        key = str(path.relative_to(folder))
        assert done.returncode == 1, (seed, key)
        assert key in done.stdout + done.stderr, (seed, key, done.stdout, done.stderr)
    service.run("verify", repo, "--deep", "--store", store)


def test_get_names_a_damaged_shard(damaged_store, tmp_path):
    store, repo = damaged_store
    shard = max((store / repo / "shards").rglob("*"), key=lambda path: path.stat().st_size)
    good = shard.read_bytes()
    shard.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    done = service.run("get", f"{repo}/t2m", "-o", tmp_path / "out.npy", "--store", store, check=False)
    shard.write_bytes(good)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(shard.relative_to(store / repo)) in done.stderr
    assert not (tmp_path / "out.npy").exists()
