"""The peers: how their copy of the data is made, and how they are started over a place."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from data import Sizes
from servers import (
    BUCKET,
    CACHE_BYTES,
    HERE,
    S3,
    Answering,
    Hsds,
    Quarr,
    Watched,
    drop_from_page_cache,
    s3_environment,
    s3_place,
)

ARRAY = "t2m"
REPO = "climate"
STORED = [
    "quarr",
    "quarr_pinned",
    "zarr_python",
    "zarrs_python",
    "tensor_store",
    "ice_chunk",
    "hsds",
]
TITLES = {
    "quarr": "Quarr, HTTP",
    "quarr_pinned": "Quarr, HTTP, by commit",
    "engine": "Quarr, in process",
    "zarrs": "zarrs (Rust)",
    "zarr_python": "zarr-python",
    "zarrs_python": "zarrs-python",
    "tensor_store": "tensorstore",
    "tensor_cached": "tensorstore, with a cache",
    "ice_chunk": "Icechunk",
    "hsds": "HSDS",
    "netcdf": "netCDF4",
    "x_array": "xarray, NetCDF-4",
}


def versions(hsds: Path | None) -> dict[str, str]:
    found = {}
    for name in ("zarr", "zarrs", "tensorstore", "icechunk", "netCDF4", "xarray", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if hsds:
        code = "import importlib.metadata as m; print(m.version('hsds'))"
        done = subprocess.run(
            [hsds.parent / "python", "-c", code], capture_output=True, text=True, check=False
        )
        found["hsds"] = done.stdout.strip()
    return found


def run(*arguments, env: dict | None = None) -> str:
    done = subprocess.run(
        [*map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-600:]
        raise RuntimeError(f"{Path(str(arguments[0])).name} {arguments[1]}: {said}")
    return done.stdout


@dataclass
class Setting:
    """Where one round of comparisons happens: the local disk, or a bucket behind the proxy."""

    folder: Path
    quarr: Path
    engine: Path | None
    hsds: Path | None
    sizes: Sizes
    s3: S3 | None = None
    # The port of each peer's own proxy; none on the local disk.
    ports: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    hsds_dataset: dict = field(default_factory=dict)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @property
    def zarr(self) -> Path:
        return self.folder / "zarr"

    def direct(self) -> dict:
        return s3_place(self.s3.port)

    def place(self, name: str) -> dict:
        return s3_place(self.ports[name])

    # --- Data -------------------------------------------------------------------------------------

    def prepare(self, netcdf: Path, names: list[str]) -> None:
        """Puts the same values where each peer reads them. A peer that cannot is noted."""
        for name in ["quarr", *(n for n in names if n != "quarr")]:
            step = getattr(self, f"prepare_{name}", None)
            if step is None:
                continue
            try:
                step(netcdf)
            except Exception as error:  # noqa: BLE001  it becomes a row of the table
                self.problems[name] = f"{type(error).__name__}: {str(error)[:300]}"
                print(f"  {TITLES[name]}: {self.problems[name]}")

    def store_url(self) -> str:
        return f"s3://{BUCKET}/quarr" if self.s3 else str(self.folder / "quarr")

    def import_netcdf(self, netcdf: Path, repo: str, sizes: Sizes) -> None:
        def lengths(each: tuple[int, ...]) -> str:
            names = ("time", "latitude", "longitude")
            return ",".join(f"{name}={n}" for name, n in zip(names, each, strict=True))

        run(
            *(self.quarr, "import", netcdf, "--to", repo, "--store", self.store_url()),
            *("--chunks", lengths(sizes.chunks), "--shards", lengths(sizes.shards)),
            *("--memory-mib", "1024"),
            env=s3_environment(self.direct()) if self.s3 else {},
        )

    def prepare_quarr(self, netcdf: Path) -> None:
        self.import_netcdf(netcdf, REPO, self.sizes)
        if not self.zarr.exists():
            run(
                *(self.quarr, "export", REPO, self.zarr, "--store", self.store_url()),
                env=s3_environment(self.direct()) if self.s3 else {},
            )
        if self.s3:
            self.upload(self.zarr, "zarr")

    def upload(self, folder: Path, prefix: str) -> None:
        import boto3

        place = self.direct()
        client = boto3.client(
            "s3",
            endpoint_url=place["endpoint"],
            region_name="us-east-1",
            aws_access_key_id=place["key"],
            aws_secret_access_key=place["secret"],
        )
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}"
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())

    def prepare_ice_chunk(self, netcdf: Path) -> None:
        """The same metadata and codecs, written with zarr-python into an Icechunk repository."""
        import icechunk
        import zarr
        from clients.ice_chunk import storage

        where = self.direct() | {"prefix": "icechunk"} if self.s3 else self.icechunk_folder()
        repository = icechunk.Repository.create(storage(where))
        session = repository.writable_session("main")
        source = zarr.open_group(zarr.storage.LocalStore(self.zarr, read_only=True), mode="r")
        group = zarr.create_group(session.store)
        array = group.create_array(
            ARRAY,
            shape=self.sizes.shape,
            dtype="float32",
            chunks=self.sizes.chunks,
            shards=self.sizes.shards,
            compressors=zarr.codecs.ZstdCodec(level=1),
        )
        for t in range(0, self.sizes.shape[0], self.sizes.shards[0]):
            rows = slice(t, t + self.sizes.shards[0])
            array[rows] = source[ARRAY][rows]
        session.commit("copy")

    def icechunk_folder(self) -> dict:
        return {"path": str(self.folder / "icechunk")}

    def prepare_hsds(self, netcdf: Path) -> None:
        if self.hsds is None:
            raise RuntimeError("its environment could not be installed")
        server = self.start_hsds(self.direct() if self.s3 else None)
        try:
            script = HERE / "load_hsds.py"
            python = self.hsds.parent / "python"
            text = run(python, script, server.port, netcdf, json.dumps(self.sizes.chunks))
            self.hsds_dataset = json.loads(text.strip().splitlines()[-1])
        finally:
            server.stop()

    def start_hsds(self, s3: dict | None) -> Hsds:
        return Hsds(self.hsds, self.folder / "hsds", s3, self.log("hsds"))

    # --- Starting ---------------------------------------------------------------------------------

    def start(self, name: str, netcdf: Path) -> Started:
        """A peer, nothing of it warm but what the operating system keeps."""
        if problem := self.problems.get("quarr" if name == "quarr_pinned" else name):
            raise RuntimeError(problem)
        where = {"shape": self.sizes.shape, "cache_bytes": CACHE_BYTES}
        server = None
        place = self.place(name) if name in self.ports else {}
        if name in ("engine", "zarrs"):
            if self.engine is None:
                raise RuntimeError(
                    "not built: cargo build --release -p quarr-benches --example peers"
                )
            arguments = (
                ["quarr", self.folder / "quarr", REPO, ARRAY]
                if name == "engine"
                else ["zarrs", self.zarr, ARRAY]
            )
            worker = Answering([self.engine, *arguments], self.log(name))
            return Started(name, worker, None)
        if name in ("quarr", "quarr_pinned"):
            environment = s3_environment(place) if place else {}
            server = Quarr(self.quarr, self.store_url(), self.log(name), env=environment)
            where |= {"host": "127.0.0.1", "port": server.port, "repo": REPO}
            where |= {"pinned": name == "quarr_pinned"}
        elif name == "hsds":
            server = self.start_hsds(place or None)
            where |= self.hsds_dataset
            where |= {"host": "127.0.0.1", "port": server.port, "bucket": BUCKET}
        elif name == "ice_chunk":
            where |= place | {"prefix": "icechunk"} if place else self.icechunk_folder()
        elif name in ("netcdf", "x_array"):
            where |= {"path": str(netcdf)}
        else:
            where |= place | {"prefix": "zarr"} if place else {"path": str(self.zarr)}
        if name == "tensor_store":
            where |= {"cache_bytes": 0}
        modules = {"tensor_cached": "tensor_store", "quarr_pinned": "quarr"}
        module = modules.get(name, name)
        worker = Answering(
            [sys.executable, HERE / "worker.py", module, json.dumps(where)], self.log(name)
        )
        return Started(name, worker, server)

    def forget(self, name: str, netcdf: Path) -> None:
        """Drops what the operating system keeps of a peer's files."""
        folders = {
            "quarr": self.folder / "quarr",
            "quarr_pinned": self.folder / "quarr",
            "engine": self.folder / "quarr",
            "hsds": self.folder / "hsds",
            "ice_chunk": self.folder / "icechunk",
            "netcdf": netcdf,
            "x_array": netcdf,
        }
        if not self.s3:
            drop_from_page_cache(folders.get(name, self.zarr))


@dataclass
class Started:
    name: str
    worker: Answering
    server: Watched | None

    @property
    def watched(self) -> Watched:
        """Whose memory counts: the service's, or of a library its process'."""
        return self.server or self.worker

    def stop(self) -> None:
        self.worker.stop()
        if self.server:
            self.server.stop()
