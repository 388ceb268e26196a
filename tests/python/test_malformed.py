"""Damaged files are refused in one line and change nothing, or are imported as they are.

The failure message names the base and the seed; `malformed.damaged` gives the file again.
"""

from __future__ import annotations

import pytest

import malformed
import service

pytestmark = pytest.mark.once

FLIPS = 120
# Seeds that once crashed the HDF5 library or the importer.
REGRESSIONS: dict[str, tuple[int, ...]] = {
    # A loop in the global heap (82, 230), a string of 2 GiB (90), reads past the end of messages of
    # attributes and of their numbers.
    "earliest.h5": (153, 230, 295, 372),
    "v110.h5": (196,),
}

@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A repository with a branch that nothing may change."""
    store = tmp_path_factory.mktemp("template")
    service.run("repo", "create", "repo", "--store", store)
    return store / "repo"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name, write in malformed.BASES.items():
        write(folder / name)
    return folder


@pytest.fixture
def watch(tmp_path, template):
    return malformed.Watch(tmp_path, template)


@pytest.mark.parametrize("base", malformed.BASES)
def test_truncated_file_is_refused(watch, bases, base):
    good = (bases / base).read_bytes()
    watch.truth = malformed.contents(bases / base)
    files = [(f"{base}-{percent}.bin", data) for percent, data in malformed.truncated(good)]
    assert watch.check(files) == []


@pytest.mark.parametrize("base", malformed.BASES)
def test_damaged_file_is_refused_or_read_as_it_is(watch, bases, base):
    good = (bases / base).read_bytes()
    watch.truth = malformed.contents(bases / base)
    seeds = [*range(FLIPS), *REGRESSIONS.get(base, ())]
    is_netcdf3 = good.startswith(b"CDF")
    files = [(f"{base}-{seed}.bin", malformed.damaged(good, seed, is_netcdf3)) for seed in seeds]
    assert watch.check(files) == []


@pytest.mark.parametrize("base", ["classic.nc", "cdf5.nc"])
def test_header_that_lies_is_refused_or_read_as_it_is(watch, bases, base):
    good = (bases / base).read_bytes()
    watch.truth = malformed.contents(bases / base)
    # Each in turn, as many as fit the time of a test.
    files = [(f"{base}-{name}.bin", data) for name, data in malformed.lies(good)][::5]
    assert watch.check(files) == []


@pytest.mark.parametrize("name", malformed.BOMBS)
def test_bomb_is_refused_within_bounds(watch, tmp_path, name):
    path = tmp_path / f"{name}.h5"
    malformed.BOMBS[name](path)
    data = path.read_bytes()
    path.unlink()
    problems = watch.check([(f"{name}.bin", data)])
    assert problems == []
    # It was refused, not imported.
    assert not (tmp_path / "stores" / f"{name}.bin").exists()


def test_links_in_circles_end(watch, tmp_path):
    path = tmp_path / "circles.h5"
    malformed.cyclic_soft(path)
    data = path.read_bytes()
    path.unlink()
    assert watch.check([("circles.bin", data)]) == []
