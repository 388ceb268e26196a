"""Imports by reference show what copied ones do, and notice when an original is another."""

from __future__ import annotations

import json
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import requests
import tensorstore
import xarray as xr
import zarr

import oracle
import reference_files
import service
import sources

pytestmark = pytest.mark.once

# What tensorstore has of the codecs that chunks are referred to with.
TENSORSTORE_CODECS = {"bytes", "zstd", "blosc", "gzip", "crc32c", "transpose", "sharding_indexed"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store, a folder of originals that its server may read, and the server."""
    store = tmp_path_factory.mktemp("store")
    originals = tmp_path_factory.mktemp("originals")
    process = service.ServerProcess(store, "--import-allow", str(originals))
    yield store, originals, process.server
    process.stop()


def refer(store: Path, path: Path | str, repo: str, *arguments: str) -> dict:
    """Imports a file by reference."""
    return service.run_json("import", path, "--to", repo, "--by-reference", "--store", store, *arguments)


@pytest.fixture(scope="module", params=reference_files.FILES)
def referred(request, place):
    store, originals, server = place
    write, suffix = reference_files.FILES[request.param]
    path = originals / f"{request.param}.{suffix}"
    write(path)
    repo = f"refer-{request.param.replace('_', '-')}"
    done = refer(store, path, repo)
    copied = {found["array"].strip("/") for found in done["copied"]}
    assert copied == reference_files.COPIED.get(request.param, set())
    return path, repo


def hdf5_values(path: Path) -> dict[str, np.ndarray]:
    """All values of an HDF5 file by path."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            text = h5py.check_string_dtype(item.dtype)
            is_text = text is not None and text.length is None
            # A few cells of a huge one.
            cells = (slice(4990, 5010), slice(5990, 6010)) if item.size > 10**8 else ()
            found[name] = np.asarray((item.asstr() if is_text else item)[cells])

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def raw(path: Path, group: str = "") -> xr.Dataset:
    return xr.open_dataset(path, group=group or None, decode_cf=False)


def test_values_are_those_of_the_original(place, referred):
    path, repo = referred
    store, _, server = place
    if path.suffix == ".nc":
        pytest.skip("compared with xarray below")
    root = zarr.open_group(server.branch_url(repo), mode="r")
    for name, wanted in hdf5_values(path).items():
        array = root[name]
        cells = (slice(4990, 5010), slice(5990, 6010)) if array.size > 10**8 else ()
        found = np.asarray(array[cells])
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        if wanted.dtype.kind not in "OU":
            assert found.dtype == wanted.dtype.newbyteorder(found.dtype.byteorder), name
        # The service itself decodes them too.
        slices = ",".join(f"{cut.start}:{cut.stop}" for cut in cells)
        answer = server.get(server.data_url(repo, name), slice=slices, f="npy", decode="raw")
        if wanted.dtype.kind in "iufb":
            assert answer.status_code == 200, answer.text
            got = np.frombuffer(answer.content[-wanted.nbytes :] if wanted.nbytes else b"", found.dtype.newbyteorder("<"))
            np.testing.assert_array_equal(got.reshape(wanted.shape), wanted, err_msg=name)


def test_tensorstore_reads_what_it_has_codecs_for(place, referred):
    path, repo = referred
    _, _, server = place
    if path.suffix == ".nc":
        pytest.skip("compared with xarray below")
    url = server.pinned_url(repo)
    count = 0
    for name, wanted in hdf5_values(path).items():
        document = requests.get(f"{url}/{name}/zarr.json", timeout=60).json()
        codecs = {codec["name"] for codec in document["codecs"]}
        if not codecs <= TENSORSTORE_CODECS or wanted.dtype.kind not in "iufb" or document["shape"] != list(wanted.shape):
            continue
        spec = {"driver": "zarr3", "kvstore": {"driver": "http", "base_url": f"{url}/{name}/"}}
        found = tensorstore.open(spec).result().read().result()
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        count += 1
    assert count > 0


def test_netcdf_is_as_xarray_reads_it(place, referred, tmp_path):
    path, repo = referred
    _, _, server = place
    if path.suffix != ".nc":
        pytest.skip("compared with h5py above")
    for nth, group in enumerate(oracle.groups(path)):
        wanted = oracle.expected(path, group, tmp_path / str(nth))
        found = xr.open_zarr(server.branch_url(repo), group=group or None)
        oracle.assert_same_dataset(found, wanted)


def test_the_shared_files_are_as_xarray_reads_them(place, tmp_path):
    store, originals, server = place
    files = sources.real_files()
    if not files:
        pytest.skip(f"no files in {sources.SAMPLE_DATA}")
    for path in files:
        original = originals / path.name
        shutil.copy(path, original)
        repo = "shared-" + "".join(c if c.isalnum() else "-" for c in path.stem.lower())
        refer(store, original, repo)
        for nth, group in enumerate(oracle.groups(path)):
            wanted = oracle.expected(path, group, tmp_path / f"{path.name}-{nth}")
            found = xr.open_zarr(server.branch_url(repo), group=group or None)
            oracle.assert_same_dataset(found, wanted)


def test_a_repository_by_reference_verifies_and_proves(place, referred, tmp_path):
    path, repo = referred
    store, _, _ = place
    service.run("verify", repo, "--deep", "--store", store)
    listed = service.run_json("ls", repo, "--store", store)
    names = [member["name"] for member in listed if member["kind"] == "array"]
    for name in names[:2]:
        proof = tmp_path / f"{name}.json"
        service.run("prove", f"{repo}@main/{name}", "-o", proof, "--store", store)
        service.run("check-proof", proof, "--no-signature")


def test_materialized_values_need_no_original(place, referred, tmp_path):
    path, repo = referred
    store, originals, server = place
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    process = service.ServerProcess(copy)
    try:
        moved = path.with_suffix(".moved")
        # Without leave to read the original, its values are errors.
        unread = [
            service.run("get", f"{repo}/{name}", "--server", process.server.url, check=False)
            for name in list(hdf5_values(path) if path.suffix == ".h5" else {"y": 0, "packed": 0, "only": 0})
            if requests.get(f"{process.server.branch_url(repo)}/{name}/zarr.json", timeout=60).ok
        ]
        assert any(done.returncode != 0 for done in unread)
        before = service.run_json("materialize", repo, "--store", copy)
        assert before["commit"] and before["arrays"]
        again = service.run_json("materialize", repo, "--store", copy)
        assert again["commit"] is None
        path.rename(moved)
        try:
            if path.suffix == ".h5":
                root = zarr.open_group(process.server.branch_url(repo), mode="r")
                for name, wanted in hdf5_values(moved).items():
                    array = root[name]
                    cells = (slice(4990, 5010), slice(5990, 6010)) if array.size > 10**8 else ()
                    np.testing.assert_array_equal(np.asarray(array[cells]), wanted, err_msg=name)
            else:
                found = xr.open_zarr(process.server.branch_url(repo), decode_cf=False)
                for name, wanted in raw(moved).variables.items():
                    np.testing.assert_array_equal(found[name].values, wanted.values, err_msg=name)
        finally:
            moved.rename(path)
        service.run("verify", repo, "--store", copy)
    finally:
        process.stop()


@pytest.fixture
def one(place, request):
    """A file with one chunked array and its repository."""
    store, originals, server = place
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[-40:].strip("-")
    path = originals / f"{name}.h5"
    values = reference_files.wave((40, 40), "<f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(10, 40), compression="gzip")
        file.create_dataset("flat", data=values)
    refer(store, path, name.lower())
    return store, path, name.lower(), server


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_suffix(".other")
    shutil.copy2(path, other)
    other.rename(path)


def rewrite(path: Path) -> None:
    """Other values of the same length and with the same time."""
    before = path.stat()
    with h5py.File(path) as file:
        offset = file["flat"].id.get_offset()
        chunk = file["x"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        for at in (offset + 4, chunk + 9):
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0x55]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (touch, "modified"),
        (truncate, "bytes instead of"),
        (replace, "another file"),
        (rewrite, "are others"),
        (delete, "not there any more"),
    ],
)
def test_an_original_that_is_another_is_an_error(one, change, says):
    store, path, repo, server = one
    change(path)
    for name in ("x", "flat"):
        answer = server.get(server.data_url(repo, name), slice="0:10")
        assert answer.status_code == 502, answer.text
        problem = answer.json()
        assert problem["type"] == "/problems/original-changed"
        assert path.name in problem["detail"] and says in problem["detail"], problem["detail"]
        # Zarr clients would take 404 for fill value.
        answer = requests.get(f"{server.branch_url(repo)}/{name}/c/0/0", timeout=60)
        assert answer.status_code == 502, answer.text
        reduced = server.get(server.data_url(repo, name, "reduce"), reduce="mean")
        assert reduced.status_code == 502, reduced.text
    done = service.run("verify", repo, "--store", store, check=False)
    assert done.returncode == 1
    assert "original: " in done.stdout and "damaged" not in done.stdout
    assert "is as it was written" in done.stderr
    done = service.run("materialize", repo, "--store", store, check=False)
    assert done.returncode == 1 and path.name in done.stderr
    assert service.run_json("log", repo, "--store", store)


def test_a_server_reads_only_what_it_is_allowed_to(place, tmp_path):
    """Whoever writes a repository must not decide what a server reads."""
    store, originals, server = place
    secret = tmp_path / "secret.h5"
    link = originals / "link.h5"
    with h5py.File(secret, "w") as file:
        file.create_dataset("x", data=np.arange(5000.0))
    link.symlink_to(secret)
    for nth, path in enumerate([secret, link]):
        refer(store, path, f"secret-{nth}")
        answer = server.get(server.data_url(f"secret-{nth}", "x"), slice="0:10")
        assert answer.status_code == 502
        assert answer.json()["type"] == "/problems/original-forbidden"
        # A command has the rights of its caller.
        service.run("get", f"secret-{nth}/x[0:3]", "--store", store)


class Ranges(SimpleHTTPRequestHandler):
    """Files with etags and single ranges."""

    requests_of: dict[str, list[str]] = {}

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = Path(self.directory) / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        stat = path.stat()
        etag = f'"{stat.st_size}-{stat.st_mtime_ns}"'
        data = path.read_bytes()
        asked = self.headers.get("Range")
        self.requests_of.setdefault(path.name, []).append(f"{self.command} {asked}")
        if self.headers.get("If-Match") not in (None, etag):
            self.send_error(412)
            return
        if asked:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", etag)
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def web(tmp_path):
    handler = lambda *a: Ranges(*a, directory=str(tmp_path))  # noqa: E731
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", tmp_path
        http.shutdown()


def test_chunks_behind_a_url_are_read_in_few_requests(web, tmp_path_factory):
    url, folder = web
    store = tmp_path_factory.mktemp("store")
    values = reference_files.wave((64, 100), "<f4")
    with h5py.File(folder / "far.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1, 100), compression="gzip")
    refer(store, f"{url}/far.h5", "far")
    Ranges.requests_of.clear()
    explained = service.run_json("explain", "far/x", "--store", store)
    assert explained["requests"]["count"] == 1, explained
    process = service.ServerProcess(store, "--import-allow", url)
    try:
        Ranges.requests_of.clear()
        found = process.server.get(process.server.data_url("far", "x"), f="npy")
        assert found.status_code == 200
        np.testing.assert_array_equal(
            np.frombuffer(found.content[-values.nbytes :], "<f4").reshape(values.shape), values
        )
        assert len(Ranges.requests_of["far.h5"]) == 1
        # Another content under the same URL.
        os.utime(folder / "far.h5", (5, 5))
        service.run("get", "far/x", "--server", process.server.url)  # all of it is cached
    finally:
        process.stop()
    process = service.ServerProcess(store, "--import-allow", url)
    try:
        found = process.server.get(process.server.data_url("far", "x"))
        assert found.status_code == 502 and "modified" in found.json()["detail"]
    finally:
        process.stop()
    # By default a server reads nothing elsewhere.
    process = service.ServerProcess(store)
    try:
        found = process.server.get(process.server.data_url("far", "x"))
        assert found.status_code == 502
        assert found.json()["type"] == "/problems/original-forbidden"
    finally:
        process.stop()


def test_an_array_by_reference_can_be_written_and_grown(place, tmp_path):
    store, originals, server = place
    path = originals / "grown.h5"
    values = reference_files.wave((25, 30), "<i4")
    with h5py.File(path, "w") as file:
        # Chunks that reach past the end hold fill value there, another one than the array's.
        file.create_dataset("usual", data=values, chunks=(10, 16), compression="gzip", fillvalue=77)
        file.create_dataset("rare", data=values, chunks=(10, 16), compression="szip", fillvalue=77)
        file.create_dataset("flat", data=wide(values))
    refer(store, path, "grown")
    for name in ("usual", "rare"):
        array = zarr.open_array(f"{server.branch_url('grown')}/{name}", mode="r")
        url = server.data_url("grown", name)
        answer = requests.put(
            f"{server.url}{url}",
            params={"slice": "3:5,2:4"},
            data=np.full((2, 2), -1, "<i4").tobytes(),
            headers={"Content-Type": "application/octet-stream"},
            timeout=60,
        )
        assert answer.ok, answer.text
        wanted = values.copy()
        wanted[3:5, 2:4] = -1
        np.testing.assert_array_equal(array[:], wanted)
        document = requests.get(f"{server.branch_url('grown')}/{name}/zarr.json", timeout=60).json()
        document["shape"] = [40, 40]
        answer = requests.put(
            f"{server.branch_url('grown')}/{name}/zarr.json", data=json.dumps(document), timeout=60
        )
        assert answer.ok, answer.text
        array = zarr.open_array(f"{server.branch_url('grown')}/{name}", mode="r")
        grown = np.full((40, 40), array.fill_value, "<i4")
        grown[:25, :30] = wanted
        np.testing.assert_array_equal(array[:], grown)


def wide(values: np.ndarray) -> np.ndarray:
    return np.tile(values, (1000, 1))


def test_statistics_are_computed_when_asked_for(place):
    store, originals, server = place
    path = originals / "statistics.h5"
    values = reference_files.wave((40, 40), "<f8")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(7, 40), shuffle=True, compression="gzip")
    refer(store, path, "without")
    refer(store, path, "with", "--statistics")
    for repo, known in [("without", 0), ("with", 6)]:
        explained = server.get(
            server.data_url(repo, "x", "explain"), reduce="mean"
        ).json()
        assert explained["chunks_in_statistics"] == known, explained
        answer = server.get(server.data_url(repo, "x", "reduce"), reduce="max", f="json").json()
        assert values.max() in np.ravel(answer["values"] if "values" in answer else answer["data"])
