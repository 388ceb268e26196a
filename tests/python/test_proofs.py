"""The independent verifier and the program agree on every proof, true or changed."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import service

PYTHON = Path(__file__).parents[2] / "python"
SPEC = importlib.util.spec_from_file_location("quarr_proof", PYTHON / "quarr" / "proof.py")
proof = importlib.util.module_from_spec(SPEC)
sys.modules["quarr_proof"] = proof
SPEC.loader.exec_module(proof)

MUTATIONS = int(os.environ.get("QUARR_MUTATIONS", "600"))


def prove(store: Path, target: str, out: Path) -> bytes:
    service.run("prove", target, "-o", out, "--store", store)
    return out.read_bytes()


def verdicts(proofs: list[bytes], folder: Path, *whose: str) -> list[bool]:
    """Which of these the program accepts."""
    paths = [folder / f"{number}.json" for number in range(len(proofs))]
    for path, data in zip(paths, proofs):
        path.write_bytes(data)
    done = service.run("check-proof", *whose, *paths, "--json", check=False)
    assert "panicked" not in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["proof"] for one in told] == [str(path) for path in paths], done.stderr
    holds = [one["holds"] for one in told]
    assert done.returncode == int(not all(holds)), done.stderr
    return holds


def verdict(data: bytes, keys: list) -> bool:
    """Whether the independent verifier accepts a proof."""
    try:
        proof.report(data, keys)
    except proof.ProofError:
        return False
    return True


@pytest.fixture(scope="module", autouse=True)
def signed(store, import_once):
    """The log of the repository that proofs are of is published."""
    repo = import_once("weather.nc").repo
    service.run("key", "create", repo, "--store", store)


@pytest.mark.parametrize("slice_", ["0,0", "...", "-1", "0:3"])
def test_both_verifiers_accept_and_agree(store, import_once, tmp_path, slice_):
    source = import_once("weather.nc")
    with xr.open_dataset(source.path, mask_and_scale=False, decode_times=False) as dataset:
        for name, variable in dataset.data_vars.items():
            if variable.ndim < 2:
                continue
            path = tmp_path / f"{name}.json"
            data = prove(store, f"{source.repo}/{name}[{slice_}]", path)
            told = service.run_json("check-proof", "--no-signature", "--values", path)
            proven = proof.check(data)
            assert told["commit"] == proven.commit
            assert told["sequence"] == str(proven.sequence)
            assert told["entry"] == proven.entry
            assert told["path"] == proven.path
            box = tuple(slice(a, a + n) for a, n in zip(proven.start, proven.shape))
            np.testing.assert_array_equal(np.array(told["values"]), variable.values[box])


def test_both_verifiers_agree_on_statistics(store, import_once, tmp_path):
    source = import_once("weather.nc")
    path = tmp_path / "proof.json"
    agreed = 0
    for node in service.run_json("ls", source.repo, "--store", store):
        target = f"{source.repo}/{node['name']}"
        for reducer in ("max", "count", "mean"):
            made = service.run(
                "prove", target, "--reduce", reducer, "-o", path, "--store", store, check=False
            )
            if made.returncode:
                known = ("not defined", "does not follow from statistics", "has none")
                assert any(reason in made.stderr for reason in known), made.stderr
                continue
            told = service.run_json("check-proof", "--no-signature", path)
            proven = proof.check(path.read_bytes()).statistics
            assert proven.reduce == told["reduce"] == reducer
            stored = proven.stored
            assert stored.valid + stored.missing + proven.absent_cells == (
                told["statistics"]["valid"] + told["statistics"]["missing"]
            )
            if stored.moments and not proven.absent_cells:
                assert stored.moments[:2] == (told["statistics"]["min"], told["statistics"]["max"])
                mean = proof.sum_to_float(stored.moments[2]) / stored.valid
                assert mean == told["statistics"]["mean"]
            answer = service.run_json("get", target, "--reduce", reducer, "--store", store)
            assert answer["values"] == told["value"]
            agreed += 1
    assert agreed > 10


def places(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        yield from places(member, (*at, key))


def mutate(data: bytes, donor: bytes, rng: random.Random) -> bytes:
    """One change, with the proof's own hash corrected half of the time."""
    if rng.random() < 0.2:
        changed = bytearray(data)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    value, other = json.loads(data), json.loads(donor)
    place = rng.choice([place for place in places(value) if place])
    target, theirs = value, other
    for key in place[:-1]:
        target = target[key]
        try:
            theirs = theirs[key]
        except (KeyError, IndexError, TypeError):
            theirs = None
    try:
        theirs = theirs[place[-1]]
    except (KeyError, IndexError, TypeError):
        theirs = None
    own = target[place[-1]]
    choice = rng.random()
    if choice < 0.4:
        target[place[-1]] = theirs
    elif isinstance(own, str) and own:
        at = rng.randrange(len(own))
        letter = "1" if own[at] == "0" else "0" if own[at].isdigit() else "A" if own[at] != "A" else "B"
        target[place[-1]] = own[:at] + letter + own[at + 1 :]
    elif isinstance(own, int):
        target[place[-1]] = own + rng.choice((-1, 1))
    elif isinstance(own, list) and own:
        rng.choice((own.reverse, own.pop, lambda: own.append(own[0])))()
    else:
        target[place[-1]] = {"unknown": 1}
    if rng.random() < 0.5:
        return proof.canonical(value)
    value.pop("self", None)
    value["self"] = proof.digest("proof", proof.canonical(value)).hex()
    return proof.canonical(value)


@pytest.mark.parametrize("is_signed", [True, False])
def test_both_verifiers_agree_on_changed_proofs(store, import_once, tmp_path, is_signed):
    repo = import_once("weather.nc").repo
    with xr.open_dataset(import_once("weather.nc").path) as dataset:
        names = [name for name, variable in dataset.data_vars.items() if variable.ndim > 1]
    path = tmp_path / "proof.json"
    proofs = [
        prove(store, f"{repo}/{name}[{slice_}]", path)
        for name in names
        for slice_ in ("0,0", "-1")
    ]
    for name in names:
        made = service.run(
            "prove", f"{repo}/{name}", "--reduce", "max", "-o", path, "--store", store, check=False
        )
        if made.returncode == 0:
            proofs.append(path.read_bytes())
    vkey = service.run("key", "show", repo, "--store", store).stdout.strip()
    whose = ("--key", vkey) if is_signed else ("--no-signature",)
    keys = [proof.VerifierKey.parse(vkey)] if is_signed else []
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    changed = [mutate(rng.choice(proofs), rng.choice(proofs), rng) for _ in range(MUTATIONS)]
    changed = [data for data in changed if data not in proofs]
    theirs = verdicts(changed, tmp_path, *whose)
    for number, (data, holds) in enumerate(zip(changed, theirs)):
        assert verdict(data, keys) == holds, (seed, number, data)
    assert sum(theirs) < 0.2 * len(changed)
    assert all(verdicts(proofs, tmp_path, *whose))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"), (-0.0, "-0.0"), (0.1, "0.1"), (1e21, "1e+21"), (1e20, "100000000000000000000.0"),
        (1.5e-7, "1.5e-7"), (1e-6, "0.000001"), (123456.789, "123456.789"), (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"), (-2.5, "-2.5"), (1e16, "10000000000000000.0"),
        (0.001, "0.001"), (1234567890123456789.0, "1234567890123456800.0"),
    ],
)
def test_floats_are_written_as_ecmascript_does(value, text):
    assert proof.canonical(value) == text.encode()
    assert float(text) == value
