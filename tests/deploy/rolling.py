"""A rolling restart under load: three servers on one store, in network namespaces of their own.

    python rolling.py --store s3://bucket/prefix [--rounds 3] [--writers 4] [--readers 4] [--kill] [--loopback]

`AWS_…` in the environment say where the store is; `QUARR_BIN` names the folder of the binary. Each server
has a network namespace and an address on a bridge, or, without root or with `--loopback`, an address of
127.0.0.0/8. Each round stops and starts the servers one after the other: by SIGTERM, or with `--kill` by
SIGKILL. Clients know all three addresses and go to the next one when a server does not answer.

What must hold, whatever is restarted when:

- a write that was acknowledged is there, for every reader that asks after that, on every server;
- a reader sees a value that was written there, or the one from before, and never anything else;
- a write that was not acknowledged may be there or not, and one that is sent again with its idempotency
  key is done once.

The last line of the output is a report in JSON; the exit status is 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

import quarr

PORT = 8686
SERVERS = 3
LENGTH = 20_000
BEFORE = -1.0
# A server that is stopped has 30 s for its requests; clients have long gone on by then.
STOP_S = 60
TIMEOUT_S = 30


@dataclass
class Place:
    """Where a server runs: its address, and what goes before its command."""

    address: str
    before: tuple[str, ...] = ()


@contextmanager
def namespaces() -> Iterator[tuple[list[Place], str]]:
    """Network namespaces on a bridge, and the address of this machine on it."""
    name = f"q{uuid.uuid4().hex[:6]}"
    net = f"10.213.{random.randrange(1, 255)}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with ExitStack() as undo:
        ip("link", "add", f"{name}b", "type", "bridge")
        undo.callback(ip, "link", "del", f"{name}b")
        ip("addr", "add", f"{net}.1/24", "dev", f"{name}b")
        ip("link", "set", f"{name}b", "up")
        places = []
        for number in range(SERVERS):
            space, outside, inside = f"{name}{number}", f"{name}o{number}", f"{name}i{number}"
            ip("netns", "add", space)
            undo.callback(ip, "netns", "del", space)
            ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space)
            ip("link", "set", outside, "master", f"{name}b", "up")
            address = f"{net}.{11 + number}"
            ip("-n", space, "addr", "add", f"{address}/24", "dev", inside)
            ip("-n", space, "link", "set", inside, "up")
            ip("-n", space, "link", "set", "lo", "up")
            places.append(Place(address, ("ip", "netns", "exec", space)))
        yield places, f"{net}.1"


@contextmanager
def loopback() -> Iterator[tuple[list[Place], str]]:
    yield [Place(f"127.0.0.{11 + number}") for number in range(SERVERS)], "127.0.0.1"


def has_namespaces() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        with namespaces():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@dataclass
class Report:
    where: str
    restarts: int = 0
    killed: int = 0
    writes_acknowledged: int = 0
    writes_sent_again: int = 0
    writes_refused: int = 0
    reads: int = 0
    reads_sent_again: int = 0
    longest_write_s: float = 0
    wrong: list[str] = field(default_factory=list)


class Load:
    """Clients that write and read all the time, and remember what they were told."""

    def __init__(self, urls: list[str], writers: int, readers: int, report: Report) -> None:
        self.urls, self.report = urls, report
        # By writer: how many elements are acknowledged, and how many were ever sent.
        self.acknowledged, self.sent = [0] * writers, [0] * writers
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        runs: list[tuple[Callable[[int], None], int]] = [(self.write, number) for number in range(writers)]
        runs += [(self.read, number) for number in range(readers)]
        self.threads = [threading.Thread(target=self.guarded, args=run, daemon=True) for run in runs]
        for thread in self.threads:
            thread.start()

    def guarded(self, run: Callable[[int], None], number: int) -> None:
        try:
            run(number)
        except Exception as error:  # noqa: BLE001 a client that ends early would hide what it would have seen
            self.wrong(f"a client ended: {error!r}")

    def wrong(self, what: str) -> None:
        with self.lock:
            self.report.wrong.append(what)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=2 * TIMEOUT_S)
            assert not thread.is_alive(), "a client hangs"

    @staticmethod
    def value(writer: int, index: int) -> float:
        return writer * 1e6 + index

    def write(self, writer: int) -> None:
        session, server = requests.Session(), writer
        while not self.stopping.is_set() and self.sent[writer] < LENGTH:
            index = self.sent[writer]
            self.sent[writer] = index + 1
            key, body = uuid.uuid4().hex, struct.pack("<d", self.value(writer, index))
            begun = time.monotonic()
            while True:
                url = f"{self.urls[server % SERVERS]}/v1/repos/rolling/refs/main/data/w{writer}?slice={index}:{index + 1}"
                try:
                    answer = session.put(url, body, headers={"Content-Type": "application/octet-stream", "Idempotency-Key": key}, timeout=TIMEOUT_S)
                    status = answer.status_code
                except requests.RequestException:
                    session, status = requests.Session(), 0
                if status == 200:
                    self.acknowledged[writer] = index + 1
                    break
                if status not in (0, 429, 503):
                    return self.wrong(f"write {index} of writer {writer} was answered {status}: {answer.text[:300]}")
                if time.monotonic() > begun + 4 * TIMEOUT_S:
                    return self.wrong(f"write {index} of writer {writer} never went through")
                with self.lock:
                    self.report.writes_sent_again += 1
                    self.report.writes_refused += status != 0
                server += 1
                time.sleep(0.02)
            with self.lock:
                self.report.writes_acknowledged += 1
                self.report.longest_write_s = max(self.report.longest_write_s, time.monotonic() - begun)

    def read(self, reader: int) -> None:
        session, server, chance = requests.Session(), reader, random.Random(reader)
        while not self.stopping.is_set():
            writer = chance.randrange(len(self.sent))
            # Near the end of what was written, where things happen; what is there before the request
            # counts from then on.
            known, server = self.acknowledged[writer], server + 1
            first = max(0, known - chance.randrange(1, 40))
            count = 60
            url = f"{self.urls[server % SERVERS]}/v1/repos/rolling/refs/main/data/w{writer}?slice={first}:{first + count}"
            try:
                answer = session.get(url, timeout=TIMEOUT_S)
                status = answer.status_code
            except requests.RequestException:
                session, status = requests.Session(), 0
            if status == 200:
                self.check(writer, first, known, self.sent[writer], answer.content)
            elif status in (0, 429, 503):
                with self.lock:
                    self.report.reads_sent_again += 1
                time.sleep(0.02)
            else:
                self.wrong(f"a read was answered {status}: {answer.text[:300]}")
                return

    def check(self, writer: int, first: int, known: int, sent: int, body: bytes) -> None:
        with self.lock:
            self.report.reads += 1
        values = struct.unpack(f"<{len(body) // 8}d", body)
        for index, value in enumerate(values, first):
            is_new, is_old = value == self.value(writer, index) and index < sent, value == BEFORE and index >= known
            if not (is_new or is_old):
                self.wrong(f"element {index} of writer {writer} is {value}, of {known} acknowledged and {sent} sent")
                return


def start(place: Place, store: str) -> quarr.Server:
    return quarr.Server("--insecure", "--store", store, env={}, before=place.before, listen=f"{place.address}:{PORT}")


def wait_ready(server: quarr.Server) -> None:
    until = time.monotonic() + STOP_S
    while time.monotonic() < until:
        try:
            if server.get("/readyz").ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{server.url} is not ready")


def restart(server: quarr.Server, place: Place, store: str, kill: bool, report: Report) -> quarr.Server:
    if kill:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        report.killed += 1
    else:
        server.process.terminate()
        if status := server.process.wait(timeout=STOP_S):
            report.wrong.append(f"{server.url} ended with {status}: {''.join(server.log[-5:])}")
    report.restarts += 1
    started = start(place, store)
    wait_ready(started)
    return started


def prepare(store: str, writers: int, folder: Path) -> None:
    """One array of each writer; two that wrote to one inner chunk would conflict, as they should."""
    for writer in range(writers):
        file = folder / f"w{writer}.npy"
        file.write_bytes(quarr.npy([BEFORE] * LENGTH))
        quarr.run("import", file, "--to", "rolling", "--store", store, env={})


def roll(places: list[Place], store: str, rounds: int, writers: int, readers: int, kill: bool, pause: float, report: Report) -> None:
    servers = [start(place, store) for place in places]
    try:
        for server in servers:
            wait_ready(server)
        load = Load([server.url for server in servers], writers, readers, report)
        time.sleep(pause)
        for _ in range(rounds):
            for number, place in enumerate(places):
                servers[number] = restart(servers[number], place, store, kill, report)
                time.sleep(pause)
        load.stop()
        for writer, count in enumerate(load.acknowledged):
            for server in servers:
                body = server.get(f"/v1/repos/rolling/refs/main/data/w{writer}").content
                load.check(writer, 0, count, load.sent[writer], body)
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
    done = quarr.run("verify", "rolling", "--deep", "--store", store, env={}, check=False)
    if done.returncode:
        report.wrong.append(f"verification: {done.stdout}{done.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two restarts")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--loopback", action="store_true")
    asked = parser.parse_args()
    apart = not asked.loopback and has_namespaces()
    report = Report("network namespaces" if apart else "loopback addresses")
    with tempfile.TemporaryDirectory() as folder, (namespaces() if apart else loopback()) as (places, _):
        prepare(asked.store, asked.writers, Path(folder))
        roll(places, asked.store, asked.rounds, asked.writers, asked.readers, asked.kill, asked.pause, report)
    print(json.dumps(report.__dict__))
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
