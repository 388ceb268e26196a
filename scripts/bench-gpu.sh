#!/bin/sh
# Measures reductions on this machine's CUDA device and puts what came of it into benches/RESULTS-GPU.md.
#
#   scripts/bench-gpu.sh [--mebibytes N]     decoded bytes of what is reduced, by default 1024
#   scripts/bench-gpu.sh --stress REQUESTS   only requests of random shapes in 1 GB of its memory
#   scripts/bench-gpu.sh --emulated [...]    on the emulated device: proves that the program works, measures
#                                            nothing and writes nothing
#
# Without a CUDA device it says so and writes nothing. CuPy is measured as well if PYTHON (python3) has it.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
target=${CARGO_TARGET_DIR:-target}
results=benches/RESULTS-GPU.md

if [ "${1-}" = --emulated ]; then
    emulator=$target/tmp/emulator
    mkdir -p "$target/tmp"
    scripts/build-emulator.sh "$emulator"
    # As the tests are built, so that little is built again.
    cargo build --workspace --locked --example gpu
    LD_LIBRARY_PATH=$(cd "$emulator" && pwd)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
        exec "$target/debug/examples/gpu" "$@"
fi

cargo build --release --locked -p quarr-benches --example gpu
for argument in "$@"; do
    if [ "$argument" = --stress ]; then exec "$target/release/examples/gpu" "$@"; fi
done
measured=$target/gpu-results.md
"$target/release/examples/gpu" "$@" >"$measured"
[ -s "$measured" ] || exit 0
if "${PYTHON:-python3}" benches/gpu/cupy_means.py "$@" >"$measured.cupy"; then
    cat "$measured.cupy" >>"$measured"
else
    echo "bench-gpu: CuPy could not be measured" >&2
fi
# What stands around it is kept.
awk -v measured="$measured" '
    /^<!-- measured: end -->/ { inside = 0 }
    !inside { print }
    /^<!-- measured: begin -->/ { inside = 1; while ((getline line < measured) > 0) print line }
' $results >$results.new
mv $results.new $results
echo "bench-gpu: wrote $results"
