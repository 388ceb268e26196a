#!/bin/sh
# Checks the CUDA kernels on a machine without a GPU:
#
#   - what is committed of them is what their sources give, and newer compilers take the sources too;
#   - the emulated device (compute/emulator) passes its own tests, in three orders of threads;
#   - what the kernels find does not depend on that order;
#   - the benchmark for machines with a GPU (scripts/bench-gpu.sh) works.
#
#   scripts/test-kernels.sh
#
# Uses what scripts/setup.sh test installs, and what the tests of the workspace built.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"

case $(uname -s -m) in
    "Linux x86_64")
        python3 scripts/compile-kernels.py --check ;;
    *)
        echo "test-kernels: skipped: the NVRTC that makes what is committed is for Linux on x86-64 only" ;;
esac
case $(uname -s -m) in
    "Linux x86_64" | "Linux aarch64")
        for folder in .venv/nvrtc/*/; do
            [ "$folder" != .venv/nvrtc/12.1.105/ ] || continue
            python3 scripts/compile-kernels.py --newest --nvrtc "${folder%/}"
        done ;;
    *)
        echo "test-kernels: skipped: there is no newer NVRTC for this platform" ;;
esac

# Where compute's tests have it as well.
emulator=${CARGO_TARGET_DIR:-target}/tmp/emulator
mkdir -p "$emulator"
for order in "" reverse shuffle:7; do
    status=0
    QUARR_EMULATOR_ORDER=$order scripts/build-emulator.sh "$emulator" --self-test >"$emulator.log" 2>&1 || status=$?
    case $status in
        0) echo "test-kernels: emulated device, order '${order:-forward}': $(tail -n 1 "$emulator.log")" ;;
        3) echo "test-kernels: skipped: no C++ compiler for the emulated device"; exit 0 ;;
        # What it refuses it says as well, so this is for failures alone.
        *) cat "$emulator.log" >&2; exit "$status" ;;
    esac
done
# The features of the whole workspace, or much of it would be built again.
QUARR_EMULATOR_ORDER=reverse cargo test --workspace --locked --test gpu
scripts/bench-gpu.sh --emulated >/dev/null
scripts/bench-gpu.sh --emulated --stress 200
