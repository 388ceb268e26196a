"""The processes a comparison needs: services, an S3 server, the proxy before it, workers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEY, SECRET, BUCKET = "quarrbench", "quarrbenchsecret", "bench"
# The slowest answer seen took a minute.
PATIENCE_SECONDS = 300
# Where HSDS puts its data nodes, whatever it is told.
HSDS_PORTS = range(6101, 6103)
# What each service and library may keep decoded: all of the array.
CACHE_BYTES = 512 << 20


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_free(ports: range, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            for port in ports:
                with socket.socket() as listener:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind(("127.0.0.1", port))
            return
        except OSError as error:
            if time.monotonic() > end:
                raise RuntimeError(f"port {port} is taken") from error
        time.sleep(0.1)


def wait_for(url: str, seconds: float, good=lambda status, body: status < 500) -> None:
    """Until something answers there as it should."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                last = (response.status, response.read())
        except urllib.error.HTTPError as error:
            last = (error.code, error.read())
        except OSError as error:
            last = error
        if isinstance(last, tuple) and good(*last):
            return
        time.sleep(0.05)
    raise RuntimeError(f"no answer from {url} in {seconds} s: {last!r:.300}")


# --- Memory -----------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = (entry / "stat").read_text()
                parents[int(entry.name)] = int(text.rsplit(")", 1)[1].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def memory_kib(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text()
        if match := re.search(rf"{field}:\s+(\d+) kB", text):
            return int(match[1])
    return 0


class Watched:
    """Something whose memory is looked at."""

    process: subprocess.Popen

    def reset_peak(self) -> None:
        for pid in family(self.process.pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """The sum over its processes, each at its own peak."""
        return sum(memory_kib(pid, "VmHWM") for pid in family(self.process.pid)) / 1024

    def stop(self) -> None:
        members = family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in members[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def drop_from_page_cache(folder: Path) -> None:
    """Asks the system to forget the contents of these files alone; needs no privileges."""
    os.sync()
    for path in [folder] if folder.is_file() else folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


# --- Services ---------------------------------------------------------------------------------------


class Quarr(Watched):
    def __init__(self, binary: Path, store: str, log: Path, *options: str, env=None) -> None:
        self.port = free_port()
        arguments = [binary, "serve", "--store", store, "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            [*map(str, arguments), *options],
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            env=os.environ | (env or {}),
        )
        wait_for(f"http://127.0.0.1:{self.port}/livez", 20)


class Hsds(Watched):
    """HSDS as its own command starts it, one data node a core, over a directory or a bucket."""

    def __init__(self, command: Path, folder: Path, s3: dict | None, log: Path) -> None:
        wait_until_free(HSDS_PORTS, 20)
        self.port = free_port()
        root = folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            # The chunks are half as large as what it would make of them otherwise.
            "MIN_CHUNK_SIZE": "64k",
            "CHUNK_MEM_CACHE_SIZE": f"{CACHE_BYTES >> 20}m",
            "MAX_TASK_COUNT": "1000",
            "PATH": f"{command.parent}:{os.environ['PATH']}",
        }
        arguments = [command, "--bucket_name", BUCKET, "--host", "127.0.0.1"]
        arguments += ["--port", self.port, "--count", 2, "--loglevel", "ERROR"]
        arguments += ["--hs_username", "admin", "--hs_password", "admin"]
        arguments += ["--logfile", log.with_suffix(".nodes")]
        if s3 is None:
            arguments += ["--root_dir", root]
        else:
            environment |= {
                "AWS_S3_GATEWAY": s3["endpoint"],
                "AWS_ACCESS_KEY_ID": s3["key"],
                "AWS_SECRET_ACCESS_KEY": s3["secret"],
                "AWS_REGION": "us-east-1",
            }
        self.process = subprocess.Popen(
            [*map(str, arguments)],
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
        )
        about = f"http://127.0.0.1:{self.port}/about"
        wait_for(about, 60, lambda status, body: b'"READY"' in body and b"dn_urls" in body)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        super().stop()


class S3(Watched):
    """An S3 server on a directory: MinIO where there is one, else moto."""

    def __init__(self, folder: Path, log: Path, wanted: str = "auto") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        found = shutil.which("minio") or str(Path.home() / "go/bin/minio")
        if wanted in ("auto", "minio") and Path(found).exists():
            self.name = "MinIO"
            arguments = [found, "server", folder, "--address", f"127.0.0.1:{self.port}"]
            arguments += ["--console-address", f"127.0.0.1:{free_port()}"]
            ready = "/minio/health/ready"
        elif wanted == "minio":
            raise RuntimeError("there is no MinIO")
        else:
            self.name = "moto"
            arguments = [sys.executable, "-m", "moto.server", "-p", self.port]
            ready = "/moto-api/"
        environment = os.environ | {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET}
        self.process = subprocess.Popen(
            [*map(str, arguments)],
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            env=environment,
        )
        wait_for(f"http://127.0.0.1:{self.port}{ready}", 60, lambda status, body: status == 200)
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket=BUCKET)


def s3_place(port: int) -> dict:
    """What a client needs to reach the bucket at that port: the server's or the proxy's."""
    endpoint = f"http://127.0.0.1:{port}"
    return {"endpoint": endpoint, "bucket": BUCKET, "key": KEY, "secret": SECRET}


def s3_environment(place: dict) -> dict:
    return {
        "AWS_ENDPOINT": place["endpoint"],
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": place["key"],
        "AWS_SECRET_ACCESS_KEY": place["secret"],
    }


# --- Programs that answer lines of JSON -------------------------------------------------------------


class Answering(Watched):
    def __init__(self, arguments: list, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [*map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            cwd=HERE,
        )

    def stop(self) -> None:
        super().stop()
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def answer_line(self) -> dict:
        # One line is asked for at a time, so none waits in the buffer.
        if not select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0]:
            self.process.kill()
            return {"error": f"no answer in {PATIENCE_SECONDS} s"}
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            return {"error": f"the process ended: {' '.join(tail)[:300]}"}
        return json.loads(line)

    def ask(self, **request) -> dict:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass
        return self.answer_line()


class Proxy(Answering):
    def __init__(self, upstream: dict[str, int], log: Path) -> None:
        names = [f"{name}=127.0.0.1:{port}" for name, port in upstream.items()]
        super().__init__([sys.executable, HERE / "proxy.py", *names], log)
        self.ports = self.answer_line()

    def delay(self, milliseconds: int) -> None:
        self.ask(delay_ms=milliseconds)

    def reset(self, name: str) -> None:
        self.ask(reset=name)

    def counts(self, name: str) -> dict:
        return self.ask(counts=name)
