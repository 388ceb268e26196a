"""The independent verifier and the program agree on every proof, true or changed."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import quarr

PYTHON = Path(__file__).parents[2] / "python"
SPEC = importlib.util.spec_from_file_location("quarr_proof", PYTHON / "quarr" / "proof.py")
proof = importlib.util.module_from_spec(SPEC)
sys.modules["quarr_proof"] = proof
SPEC.loader.exec_module(proof)

MUTATIONS = 150


def prove(store: Path, target: str, out: Path) -> bytes:
    quarr.run("prove", target, "-o", out, "--store", store)
    return out.read_bytes()


def holds(data: bytes, path: Path) -> bool:
    """Whether the program accepts a proof."""
    path.write_bytes(data)
    done = quarr.run("check-proof", "--no-signature", path, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert "panicked" not in done.stderr
    return done.returncode == 0


def verdict(data: bytes) -> bool:
    """Whether the independent verifier accepts a proof."""
    try:
        proof.check(data)
    except proof.ProofError:
        return False
    return True


@pytest.mark.parametrize("slice_", ["0,0", "...", "-1", "0:3"])
def test_both_verifiers_accept_and_agree(store, import_once, tmp_path, slice_):
    source = import_once("weather.nc")
    with xr.open_dataset(source.path, mask_and_scale=False, decode_times=False) as dataset:
        for name, variable in dataset.data_vars.items():
            if variable.ndim < 2:
                continue
            path = tmp_path / f"{name}.json"
            data = prove(store, f"{source.repo}/{name}[{slice_}]", path)
            told = quarr.run_json("check-proof", "--no-signature", "--values", path)
            proven = proof.check(data)
            assert told["commit"] == proven.commit
            assert told["sequence"] == str(proven.sequence)
            assert told["entry"] == proven.entry
            assert told["path"] == proven.path
            box = tuple(slice(a, a + n) for a, n in zip(proven.start, proven.shape))
            np.testing.assert_array_equal(np.array(told["values"]), variable.values[box])


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


def test_both_verifiers_agree_on_changed_proofs(store, import_once, tmp_path):
    repo = import_once("weather.nc").repo
    with xr.open_dataset(import_once("weather.nc").path) as dataset:
        names = [name for name, variable in dataset.data_vars.items() if variable.ndim > 1]
    proofs = [
        prove(store, f"{repo}/{name}[{slice_}]", tmp_path / "proof.json")
        for name in names
        for slice_ in ("0,0", "-1")
    ]
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    refused = 0
    for number in range(MUTATIONS):
        changed = proofs[0]
        while changed in proofs:
            changed = mutate(rng.choice(proofs), rng.choice(proofs), rng)
        mine = verdict(changed)
        assert mine == holds(changed, tmp_path / "changed.json"), (seed, number, changed)
        refused += not mine
    assert refused > MUTATIONS * 0.8


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
