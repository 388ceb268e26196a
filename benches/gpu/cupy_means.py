"""The reductions of benches/gpu by CuPy, on arrays that are decoded already.

    cupy_means.py [--mebibytes 1024]

Prints Markdown. Without CuPy, or without a device it can use, says so on standard error, prints nothing and
succeeds. CuPy adds 32-bit floats up as such (`dtype=float32`, its default) or in 64 bits; Quarr keeps twice
64 bits, and leaves missing values out, as `nanmean` does.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

RUNS = 5
#: Time, latitude, longitude of a chunk of benches/gpu, 1 MiB.
CHUNK = (32, 64, 128)
AXES = {"everything": None, "time": 0, "latitude": 1, "longitude": 2}


def median_seconds(work: Callable[[], object], wait: Callable[[], None]) -> float:
    """The middle one of several runs, after one that compiles."""
    work()
    wait()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    wanted = parser.parse_args()
    try:
        import cupy
        import cupyx
    except ImportError as reason:
        sys.stderr.write(f"CuPy: skipped: {reason}\n")
        return
    try:
        cupy.cuda.runtime.getDeviceCount()
        wait = cupy.cuda.get_current_stream().synchronize
    except cupy.cuda.runtime.CUDARuntimeError as reason:
        sys.stderr.write(f"CuPy: skipped: {reason}\n")
        return
    shape = (CHUNK[0] * wanted.mebibytes, *CHUNK[1:])
    host = cupyx.empty_pinned(shape, dtype="float32")
    host[...] = 280.0
    host[::7] += 0.125
    device = cupy.asarray(host)
    gigabytes = host.nbytes / 1e9
    print("### CuPy on decoded arrays\n")
    print(f"CuPy {cupy.__version__}, GB/s, medians of {RUNS} runs.\n")
    print("| reduction | copied from pinned memory first | resident | resident, added up in 64 bits |")
    print("|---|---|---|---|")
    reductions = {"mean": cupy.mean, "nanmean": cupy.nanmean, "std": cupy.std}
    for name, reduce in reductions.items():
        for axes, axis in AXES.items():

            def streamed(reduce=reduce, axis=axis) -> None:
                device.set(host)
                reduce(device, axis=axis).get()

            def resident(dtype=None, reduce=reduce, axis=axis) -> None:
                reduce(device, axis=axis, dtype=dtype).get()

            seconds = [
                median_seconds(streamed, wait),
                median_seconds(resident, wait),
                median_seconds(lambda work=resident: work("float64"), wait),
            ]
            rates = " | ".join(f"{gigabytes / one:.3g}" for one in seconds)
            print(f"| {name} over {axes} | {rates} |")
    print()


if __name__ == "__main__":
    main()
