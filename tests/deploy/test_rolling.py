"""Servers are restarted one after the other while clients write and read; see `rolling.py`."""

from __future__ import annotations

import json
import struct

import pytest

import quarr
import rolling
import store_server


@pytest.mark.parametrize(
    ("rounds", "kill"),
    [(1, False), pytest.param(5, False, marks=pytest.mark.long), pytest.param(5, True, marks=pytest.mark.long)],
    ids=["short", "long", "killed"],
)
def test_no_acknowledged_write_is_lost_and_no_read_is_wrong(tmp_path, monkeypatch, rounds, kill):
    quarr.binary()
    apart = rolling.has_namespaces()
    report = rolling.Report("network namespaces" if apart else "loopback addresses")
    with (rolling.namespaces() if apart else rolling.loopback()) as (places, here):
        with store_server.started(tmp_path, here) as bucket:
            for name, value in bucket.settings().items():
                monkeypatch.setenv(name, value)
            store = f"s3://{store_server.NAME}/data"
            writers = 2 if rounds == 1 else 6
            rolling.prepare(store, writers, tmp_path)
            rolling.roll(places, store, rounds, writers, writers, kill, 0.3 if rounds == 1 else 2, report)
    print(json.dumps(report.__dict__))
    assert not report.wrong
    assert report.restarts == 3 * rounds
    assert report.writes_acknowledged > 5 and report.reads > 5


def test_the_check_finds_what_it_looks_for():
    """A value that was acknowledged and is gone, one nobody wrote, one from the future."""
    report = rolling.Report("nowhere")
    load = rolling.Load([], 0, 0, report)
    load.check(1, 10, 12, 13, struct.pack("<4d", 1e6 + 10, 1e6 + 11, rolling.BEFORE, rolling.BEFORE))
    assert not report.wrong
    for values in ((rolling.BEFORE, 1e6 + 11), (1e6 + 10, 0.0), (1e6 + 10, 1e6 + 11, 1e6 + 12, 1e6 + 13)):
        load.check(1, 10, 12, 13, struct.pack(f"<{len(values)}d", *values))
    assert len(report.wrong) == 3
