"""Compares Quarr with what else reads arrays, in one run, by turns.

    run.py --quarr BIN [--quick] [--only NAME]... [--out results.json]

Prepares one cube for all peers, measures them by turns, counts what they ask of an S3 server, checks
what Quarr promises about requests and memory, and writes the tables into benches/RESULTS.md (with
--report). Every answer is compared with the values. A peer that cannot run has a row that says why.
Sections for --only: warm, cold, s3, requests, memory, real; peers by their names.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import checks
import report
from clients.base import slices, sum_of_words
from data import FULL, QUICK, Places, generate, write_netcdf
from peers import STORED, TITLES, Setting, Started, versions
from servers import HERE, S3, Proxy

SECTIONS = ["warm", "cold", "s3", "requests", "memory", "real"]
LOCAL = ["quarr", "engine", "zarrs", *STORED[1:], "tensor_cached", "netcdf", "x_array"]
# Who is asked for statistics of everything: the others read and reduce as zarr-python does.
STATISTICS = ["quarr", "engine", "zarr_python", "hsds"]
# Repetitions of one turn, of what is fast; turns are in Amounts.
SMALL = {"map": 3, "series": 10, "slice": 20, "floor": 20}


class Amounts:
    def __init__(self, quick: bool, most_turns: int) -> None:
        self.turns = 3 if quick else 9
        self.large_turns = 2 if quick else 5
        self.cold_turns = 1 if quick else 3
        self.s3_turns = 1 if quick else 3
        self.chunks = 16 if quick else 64
        self.delays = [0, 50]
        for name, value in vars(self).items():
            if name.endswith("turns"):
                setattr(self, name, min(value, most_turns))


class Comparison:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.amounts = Amounts(options.quick, options.turns)
        self.sizes = QUICK if options.quick else FULL
        self.places = Places(self.sizes)
        self.results: dict = {"quick": options.quick, "sizes": vars(self.sizes), "notes": []}
        if options.add:
            earlier = json.loads(options.add.read_text())
            if earlier["sizes"] != json.loads(json.dumps(vars(self.sizes))):
                raise SystemExit(f"{options.add} is of another cube")
            self.results = earlier
        self.netcdf = folder / "cube.nc"

    # --- What is right ------------------------------------------------------------------------------

    def make_data(self) -> None:
        say(f"making {self.sizes.mib:.0f} MiB")
        self.values = generate(self.sizes)
        write_netcdf(self.netcdf, self.values, self.sizes)
        self.totals = {
            how: float(getattr(self.values.astype("f8"), how)()) for how in ("mean", "std", "max")
        }
        self.totals["mean0"] = float(self.values.mean(axis=0, dtype="f8").sum())

    def wrong(self, call: str, answer: dict, boxes: list) -> str | None:
        """Why an answer is not right."""
        if "words" in answer:
            read = boxes if call == "chunks" else boxes[-1:]
            words = sum(sum_of_words(self.values[slices(box)]) for box in read) % 2**64
            return None if int(answer["words"]) == words else "the values are wrong"
        if "total" in answer:
            right = self.totals[call]
            near = math.isclose(answer["total"], right, rel_tol=1e-4)
            return None if near else f"{answer['total']} instead of {right}"
        return None

    # --- Asking -------------------------------------------------------------------------------------

    def ask(self, peer: Started, call: str, turn: int, repeat: int) -> dict:
        """One turn of one peer."""
        boxes: list = []
        if call in ("chunks1", "chunks8"):
            boxes = self.places.chunks(self.amounts.chunks, turn)
            request = {"call": "chunks", "boxes": boxes, "in_flight": int(call[-1])}
        elif call in ("mean0", "mean", "std", "max", "floor"):
            request = {"call": call, "repeat": repeat}
        else:
            place = getattr(self.places, call)
            boxes = [place(turn * repeat + nth) for nth in range(repeat)]
            request = {"call": "read", "boxes": boxes}
        answer = peer.worker.ask(**request)
        if reason := self.wrong(request["call"], answer, boxes):
            return {"error": f"{call}: {reason}"}
        return answer

    def by_turns(self, table: dict, started: dict[str, Started], call: str, turns: int) -> None:
        """Fills `table[peer][call]`: each peer once a turn, in an order that moves."""
        names = list(started)
        for turn in range(turns + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                row = table.setdefault(name, {})
                cell = row.setdefault(call, {"seconds": []})
                if "error" in cell or "unsupported" in cell or is_slow(cell):
                    continue
                if turn == 1:
                    started[name].watched.reset_peak()
                answer = self.ask(started[name], call, turn, SMALL.get(call, 1))
                if "seconds" not in answer:
                    cell |= answer
                elif turn > 0:
                    # The first turn only warms.
                    cell["seconds"] += answer["seconds"]
                    if "wire_bytes" in answer:
                        cell["wire_bytes"] = answer["wire_bytes"]
                    cell["peak_mib"] = started[name].watched.peak_mib()
        shown = {n: f"{middle(table[n][call]) * 1e3:.2f}" for n in names if middle(table[n][call])}
        say(f"{call}: " + ", ".join(f"{n} {ms} ms" for n, ms in shown.items()))

    def start_all(self, setting: Setting, names: list[str], table: dict) -> dict[str, Started]:
        started = {}
        for name in names:
            try:
                peer = setting.start(name, self.netcdf)
                answer = peer.worker.ask(call="open")
                if "seconds" in answer:
                    started[name] = peer
                    continue
                reason = answer.get("unsupported") or answer.get("error")
                peer.stop()
            except Exception as error:  # noqa: BLE001  it becomes a row of the table
                reason = str(error)[:300]
            table[name] = {"not_run": reason}
            say(f"{TITLES[name]}: not run: {reason}")
        return started

    # --- Sections -----------------------------------------------------------------------------------

    def wanted(self, names: list[str]) -> list[str]:
        only = [name for name in self.options.only if name in TITLES]
        return [name for name in names if not only or name in only or name == "quarr"]

    def section(self, name: str) -> bool:
        only = [one for one in self.options.only if one in SECTIONS]
        return not only or name in only

    def local(self) -> None:
        say("preparing the local disk")
        setting = Setting(
            self.folder, self.options.quarr, self.options.engine, self.options.hsds, self.sizes
        )
        measured = self.section("warm") or self.section("cold")
        names = self.wanted(LOCAL) if measured else ["quarr"]
        setting.prepare(self.netcdf, names)
        self.local_setting = setting
        stored = sum(p.stat().st_size for p in setting.zarr.rglob("c/*/*/*"))
        self.results["ratio"] = self.sizes.mib * 2**20 / max(1, stored)
        if self.section("warm"):
            self.results["warm"] = table = {}
            started = self.start_all(setting, names, table)
            try:
                for call in ("floor", "slice", "series", "map", "strided", "chunks1", "chunks8"):
                    self.by_turns(table, started, call, self.amounts.turns)
                for call in ("mean0", "read_all"):
                    self.by_turns(table, started, call, self.amounts.large_turns)
                some = {n: started[n] for n in STATISTICS if n in started}
                for call in ("mean", "std", "max"):
                    self.by_turns(table, some, call, self.amounts.s3_turns)
            finally:
                for peer in started.values():
                    peer.stop()
        self.save()
        if self.section("cold"):
            self.results["cold"] = {}
            self.cold(setting, names, self.results["cold"], self.amounts.cold_turns, None)

    def cold(self, setting: Setting, names: list, table: dict, turns: int, proxy) -> None:
        """Every reading in processes that were just started; opening counts, starting does not."""
        for call in ("series", "map", "mean0", "read_all"):
            for turn in range(turns):
                for name in names:
                    row = table.setdefault(name, {})
                    if "not_run" in row:
                        continue
                    cell = row.setdefault(call, {"seconds": []})
                    if "error" not in cell and "unsupported" not in cell and not is_slow(cell):
                        self.cold_turn(setting, name, row, cell, call, turn, proxy)
            shown = {n: middle(table[n].get(call, {})) for n in names if n in table}
            shown = {n: f"{seconds * 1e3:.1f}" for n, seconds in shown.items() if seconds}
            say(f"cold {call}: " + ", ".join(f"{n} {ms} ms" for n, ms in shown.items()))

    def cold_turn(self, setting, name, row, cell, call, turn, proxy) -> None:
        setting.forget(name, self.netcdf)
        try:
            peer = setting.start(name, self.netcdf)
        except Exception as error:  # noqa: BLE001  it becomes a row of the table
            row["not_run"] = str(error)[:300]
            return
        try:
            if name not in ("engine", "zarrs"):
                peer.worker.ask(call="import")
            if proxy:
                proxy.reset(name)
            peer.watched.reset_peak()
            opened = peer.worker.ask(call="open")
            if "seconds" not in opened:
                row["not_run"] = opened.get("unsupported") or opened.get("error")
                return
            answer = self.ask(peer, call, turn, 1)
            if "seconds" not in answer:
                cell |= answer
                return
            cell["seconds"].append(opened["seconds"][0] + answer["seconds"][0])
            cell["wire_bytes"] = answer.get("wire_bytes")
            cell["peak_mib"] = peer.watched.peak_mib()
            if proxy:
                note_counts(cell, proxy.counts(name))
        finally:
            peer.stop()

    def s3(self) -> None:
        say("preparing the S3 server")
        folder = self.folder / "on-s3"
        folder.mkdir()
        server = S3(folder / "objects", folder / "server.log", self.options.s3)
        names = self.wanted(STORED)
        proxy = Proxy(dict.fromkeys([*names, "checks"], server.port), folder / "proxy.log")
        self.results["s3_server"] = server.name
        try:
            setting = Setting(
                folder,
                self.options.quarr,
                self.options.engine,
                self.options.hsds,
                self.sizes,
                s3=server,
                ports=proxy.ports,
            )
            setting.prepare(self.netcdf, names)
            if self.section("s3"):
                for delay in self.amounts.delays:
                    self.s3_tables(setting, names, proxy, delay)
                    self.save()
            if self.section("requests"):
                proxy.delay(0)
                self.results["requests"] = checks.requests_section(setting, proxy, self, say)
        finally:
            proxy.stop()
            server.stop()

    def s3_tables(self, setting: Setting, names: list, proxy: Proxy, delay: int) -> None:
        say(f"S3 with {delay} ms")
        proxy.delay(delay)
        self.results[f"s3_cold_{delay}"] = table = {}
        self.cold(setting, names, table, self.amounts.s3_turns, proxy)
        self.results[f"s3_warm_{delay}"] = table = {}
        started = self.start_all(setting, names, table)
        try:
            for call in ("series", "map", "mean0", "read_all"):
                for name in started:
                    proxy.reset(name)
                self.by_turns(table, started, call, self.amounts.s3_turns)
                for name in started:
                    # Of one more, now that all is as warm as it gets.
                    proxy.reset(name)
                    self.ask(started[name], call, 99, 1)
                    note_counts(table[name][call], proxy.counts(name))
            for call in ("mean", "std", "max"):
                one = {name: started[name] for name in ("quarr",) if name in started}
                if one:
                    self.by_turns(table, one, call, self.amounts.s3_turns)
        finally:
            for peer in started.values():
                peer.stop()

    def run(self) -> None:
        self.make_data()
        self.results["versions"] = versions(self.options.hsds)
        steps = [("warm", self.local)]
        if self.section("s3") or self.section("requests"):
            steps.append(("s3", self.s3))
        if self.section("memory"):
            steps.append(("memory", lambda: checks.memory_section(self, say)))
        if self.section("real"):
            steps.append(("real", lambda: checks.real_section(self, say)))
        for name, step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001  the rest still is of use
                traceback.print_exc()
                self.results["notes"].append(f"{name}: not run: {str(error)[:300]}")
            self.save()

    def save(self) -> None:
        self.options.out.write_text(json.dumps(self.results, indent=1, default=str))


def note_counts(cell: dict, counts: dict) -> None:
    cell["requests"] = sum(counts["requests"].values())
    cell["chunk_requests"] = counts["requests"].get("GET chunk", 0)
    cell["store_bytes"] = sum(n for how, n in counts["bytes"].items() if how.startswith("GET"))


def is_slow(cell: dict) -> bool:
    """Not worth another turn of everyone's time."""
    return bool(cell["seconds"]) and cell["seconds"][0] > 15


def middle(cell: dict) -> float | None:
    return statistics.median(cell["seconds"]) if cell.get("seconds") else None


START = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:6.0f} s] {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quarr", type=Path, required=True, help="the release binary")
    parser.add_argument("--engine", type=Path, help="the example `peers`; beside the binary")
    parser.add_argument("--hsds", type=Path, help="the command `hsds` of its environment")
    parser.add_argument("--s3", choices=["auto", "minio", "moto"], default="auto")
    parser.add_argument("--quick", action="store_true", help="a small cube, few repetitions")
    parser.add_argument("--turns", type=int, default=99, help="at most so many, for a shorter run")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--report", type=Path, help="the Markdown file whose section is rewritten")
    parser.add_argument("--add", type=Path, help="earlier results, to which these are added")
    parser.add_argument("--render", type=Path, help="only write the report, from earlier results")
    data = os.environ.get("QUARR_SAMPLE_DATA", HERE.parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data, help="the folder of real files")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    options = parser.parse_args()
    for name in options.only:
        if name not in [*SECTIONS, *TITLES]:
            parser.error(f"--only {name}: one of {', '.join([*SECTIONS, *TITLES])}")
    options.out = options.out.resolve()
    if options.render:
        results = json.loads(options.render.read_text())
    else:
        options.quarr = options.quarr.resolve(strict=True)
        beside = options.quarr.parent / "examples" / "peers"
        options.engine = (options.engine or beside).absolute()
        options.engine = options.engine if options.engine.exists() else None
        options.hsds = options.hsds.absolute() if options.hsds and options.hsds.exists() else None
        # So that what was started is stopped.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with tempfile.TemporaryDirectory(prefix="quarr-peers-", dir=options.folder) as folder:
            comparison = Comparison(options, Path(folder))
            comparison.run()
        results = json.loads(options.out.read_text())
    text = report.render(results)
    if options.report:
        report.replace_section(options.report, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
