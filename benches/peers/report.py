"""Tables out of the results, and their place in the Markdown file."""

from __future__ import annotations

import statistics
from pathlib import Path

from peers import TITLES

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
HEADINGS = {
    "floor": "floor",
    "slice": "1 KiB, one chunk",
    "series": "1 KiB series",
    "map": "1 MiB map",
    "strided": "`[::8,::8,::8]`",
    "chunks1": "chunks, 1 by 1",
    "chunks8": "chunks, 8 at once",
    "mean0": "`mean(axis=0)`",
    "read_all": "read all",
    "mean": "mean",
    "std": "std",
    "max": "max",
}


def middle(table: dict, name: str, call: str) -> float | None:
    seconds = table.get(name, {}).get(call, {}).get("seconds")
    return statistics.median(seconds) if seconds else None


def time_text(seconds: float) -> str:
    milliseconds = seconds * 1e3
    digits = 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{digits}f} ms"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def table_text(headings: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return (
        lines
        + ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
        + [""]
    )


def times(table: dict, calls: list[str], base: str = "quarr") -> list[str]:
    """One row a peer; in brackets how many times as long as Quarr."""
    calls = [call for call in calls if any(call in row for row in table.values())]
    rows = []
    for name in [n for n in TITLES if n in table]:
        if reason := table[name].get("not_run"):
            rows.append([TITLES[name], f"not run: {reason}", *[""] * (len(calls) - 1)])
            continue
        if not any(call in table[name] for call in calls):
            continue
        cells = []
        for call in calls:
            seconds, quarr = middle(table, name, call), middle(table, base, call)
            if seconds is None:
                cell = table[name].get(call, {})
                cells.append(f"failed: {cell['error']}" if "error" in cell else "—")
            elif quarr and name != base:
                cells.append(f"{time_text(seconds)} ({number(seconds / quarr)})")
            else:
                cells.append(time_text(seconds))
        rows.append([TITLES[name], *cells])
    return table_text(["", *(HEADINGS[call] for call in calls)], rows)


def resources(table: dict, calls: list[str]) -> list[str]:
    """Requests to the store and bytes from it, bytes to the client, memory."""
    rows = []
    for name in [n for n in TITLES if n in table]:
        for call in calls:
            cell = table[name].get(call, {})
            if not cell.get("seconds"):
                continue
            wire = cell.get("wire_bytes")
            if wire is None:
                wire = cell.get("store_bytes")
            asked = cell.get("requests")
            rows.append(
                [
                    TITLES[name],
                    HEADINGS[call],
                    "—" if asked is None else f"{asked} ({cell['chunk_requests']})",
                    mib(cell.get("store_bytes")),
                    mib(wire),
                    f"{cell['peak_mib']:,.0f} MiB",
                ]
            )
    headings = ["", "", "requests (of chunks)", "from the store", "to the client", "peak memory"]
    return table_text(headings, rows)


def mib(size: float | None) -> str:
    if size is None:
        return "—"
    return f"{size / 2**20:.2f} MiB" if size >= 2**17 else f"{size / 1024:.1f} KiB"


def mark(ok: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not measured"}[ok]


def check_rows(rows: list[dict]) -> list[str]:
    cells = [[r["what"], str(r["limit"]), str(r["found"]), mark(r["ok"]), r["note"]] for r in rows]
    return table_text(["", "at most", "found", "kept", ""], cells)


def criteria(results: dict) -> list[str]:
    """What was promised, and what came out."""
    warm, rows = results.get("warm", {}), []
    get = lambda name, call: middle(warm, name, call)  # noqa: E731

    def below(what: str, value: float | None, limit: float) -> None:
        found = "—" if value is None else time_text(value)
        rows.append(
            [what, f"≤ {limit * 1e3:g} ms", found, mark(None if value is None else value <= limit)]
        )

    def factor(what: str, other: float | None, own: float | None, least: float) -> None:
        """Quarr so many times as fast as the other."""
        if not other or not own:
            rows.append([what, f"≥ {least:g} ×", "—", mark(None)])
        else:
            found = other / own
            rows.append([what, f"≥ {least:g} ×", f"{number(found)} ×", mark(found >= least)])

    below("1 MiB map through HTTP, warm", get("quarr", "map"), 0.005)
    factor("the same, against HSDS", get("hsds", "map"), get("quarr", "map"), 1)
    below("1 KiB series through HTTP, warm", get("quarr", "series"), 0.003)
    factor("`[::8,::8,::8]`, against HSDS", get("hsds", "strided"), get("quarr", "strided"), 4)
    own, inside = get("quarr", "slice"), get("engine", "slice")
    below(
        "service around a cached 1 KiB slice: HTTP less in process",
        own - inside if own and inside else None,
        0.0005,
    )
    below("the same slice in all, client included", own, 0.0005)
    for peer, least in (("zarr_python", 2), ("hsds", 5)):
        what = f"`mean(axis=0)`, against {TITLES[peer]}"
        factor(what, get(peer, "mean0"), get("quarr", "mean0"), least)
    for how in ("mean", "std", "max"):
        what = f"{how} of the whole array through HTTP, against only reading it in process"
        factor(what, get("engine", "read_all"), get("quarr", how), 100)
    factor(
        "read all in process, against zarrs", get("zarrs", "read_all"), get("engine", "read_all"), 1
    )
    factor(
        "read all through HTTP, against in process",
        get("engine", "read_all"),
        get("quarr", "read_all"),
        0.8,
    )
    for call in ("chunks1", "chunks8"):
        for own in ("engine", "quarr"):
            for peer, least in (("zarrs_python", 2), ("tensor_store", 1)):
                what = f"random {HEADINGS[call]}: {TITLES[own]}, against {TITLES[peer]}"
                factor(what, get(peer, call), get(own, call), least)
    return table_text(["", "wanted", "found", "met"], rows)


def render(results: dict) -> str:
    sizes = results["sizes"]
    dimensions = {key: "×".join(map(str, sizes[key])) for key in ("shape", "shards", "chunks")}
    found = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    kind = "a quick run, which says nothing about speed; " if results["quick"] else ""
    lines = [
        "## Beside what else reads arrays",
        "",
        f"By `benches/peers/run.py`, on both cores: {kind}{found}. One cube of {dimensions['shape']} 32-bit floats, "
        f"smooth fields with noise in steps of 2⁻⁹ K; shards of {dimensions['shards']}, inner chunks of "
        f"{dimensions['chunks']}, zstd 1 (compressed {results.get('ratio', 0):.2f} times); every Zarr peer reads "
        "the same shards. HSDS and NetCDF-4 have the same chunks with zlib 1. All are asked by turns in one "
        "run, each in processes of its own; medians; in brackets how many times as long as Quarr through HTTP. "
        "What takes over 15 s is measured once. Every answer is checked. Quarr keeps what it is given, by default compressed chunks and those it decoded for a part of them; HSDS, netCDF4 and "
        "tensorstore with a cache may keep all of the cube decoded; zarr-python, zarrs and tensorstore as "
        "it comes keep no chunks.",
        "",
    ]
    if "warm" in results:
        warm = results["warm"]
        lines += ["### What was wanted", "", *criteria(results)]
        lines += [
            "### Warm, local disk",
            "",
            *times(warm, ["floor", "slice", "series", "map", "strided"]),
        ]
        lines += [*times(warm, ["chunks1", "chunks8", "mean0", "read_all"])]
        lines += [
            "Chunks are random inner chunks, the same for all in a turn; the time is of all of them.",
            "",
        ]
        lines += ["Of the whole array, from the statistics where there is such a thing:", ""]
        lines += times(warm, ["mean", "std", "max"])
        lines += ["Peak memory of the service, or of the process for a library, warm:", ""]
        lines += resources(warm, ["map", "mean0", "read_all"])
    if "cold" in results:
        lines += [
            "### Cold, local disk",
            "",
            "In a new process, after the system was told to forget the files; opening counts, starting not.",
            "",
            *times(results["cold"], ["series", "map", "mean0", "read_all"]),
        ]
    for delay in (0, 50):
        for how in ("cold", "warm"):
            table = results.get(f"s3_{how}_{delay}")
            if table:
                lines += [
                    f"### {how.capitalize()}, S3 ({results['s3_server']}), {delay} ms a request",
                    "",
                ]
                lines += times(table, ["series", "map", "mean0", "read_all", "mean", "std", "max"])
                lines += resources(table, ["series", "map", "mean0", "read_all"])
    if "requests" in results:
        lines += ["### Requests", "", *check_rows(results["requests"])]
    if "memory" in results:
        lines += ["### Memory", "", *check_rows(results["memory"])]
    if results.get("real"):
        lines += ["### Real files", "", "Decoded by CF, warm; xarray reads the file.", ""]
        rows = []
        for r in results["real"]:
            if "error" in r:
                rows.append([r["file"], f"failed: {r['error']}", "", "", "", ""])
                continue
            pairs = [time_text(s) for how in ("read", "mean") for s in r[how]]
            rows.append([f"{r['file']}, {r['variable']}", f"{r['mib']:.1f} MiB", *pairs])
        headings = ["", "decoded", "Quarr, read", "xarray, read", "Quarr, mean", "xarray, mean"]
        lines += table_text(headings, rows)
    for note in results["notes"]:
        lines += [note, ""]
    return "\n".join(lines).rstrip() + "\n"


def replace_section(path: Path, text: str) -> None:
    """Rewrites what is between the markers; adds them at the end if they are not there."""
    document = path.read_text() if path.exists() else "# Results\n"
    if BEGIN not in document:
        document = f"{document.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, rest = document.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
