"""A peer in a process of its own: requests on standard input, answers on standard output.

    worker.py MODULE WHERE

One line of JSON each. `benches/peers.rs` answers the same requests.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback

import numpy as np
from clients.base import Unsupported, sum_of_words, timed


def answer(peer, request: dict) -> dict:
    call, repeat = request["call"], request.get("repeat", 1)
    before = peer.wire_bytes() if call != "open" else None
    if call == "open":
        seconds, _ = timed(peer.open, 1)
        return {"seconds": seconds}
    if call == "read":
        seconds = []
        for box in request["boxes"]:
            values = None
            once, values = timed(lambda box=box: peer.read(box), 1)
            seconds += once
        found = {"words": str(sum_of_words(values) % 2**64)}
    elif call == "chunks":
        work = lambda: peer.random_chunks(request["boxes"], request["in_flight"])  # noqa: E731
        seconds, words = timed(work, 1)
        found = {"words": str(words % 2**64)}
    elif call == "floor":
        seconds, _ = timed(peer.floor, repeat)
        found = {}
    else:
        how, over = ("mean", (0,)) if call == "mean0" else (call, None)
        seconds, values = timed(lambda: peer.reduce(how, over), repeat)
        found = {"total": float(np.asarray(values, "f8").sum())}
    if before is not None:
        found["wire_bytes"] = (peer.wire_bytes() - before) / len(seconds)
    return {"seconds": seconds, **found}


def main() -> None:
    # Libraries print; answers go where only they are.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = None
    for line in sys.stdin:
        try:
            if peer is None:
                module = importlib.import_module(f"clients.{sys.argv[1]}")
                peer = module.Client(json.loads(sys.argv[2]))
            request = json.loads(line)
            found = {"seconds": []} if request["call"] == "import" else answer(peer, request)
        except Unsupported as reason:
            found = {"unsupported": str(reason)}
        except Exception as error:  # noqa: BLE001  it becomes a row of the table
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        answers.write(json.dumps(found) + "\n")


main()
