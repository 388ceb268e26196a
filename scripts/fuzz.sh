#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, all or some, each so many seconds:
#
#   scripts/fuzz.sh [SECONDS [TARGET…]]
#
# Needs a nightly compiler and cargo-fuzz; without them it says so and does nothing. Fails if a target
# finds something: the input is then in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${1:-30}
shift || true

skip() {
    echo "fuzz: skipped: $1"
    exit 0
}
nightly=${QUARR_NIGHTLY:-nightly}
cargo "+$nightly" --version >/dev/null 2>&1 || skip "there is no nightly compiler: rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || skip "there is no cargo-fuzz: cargo install cargo-fuzz --locked"

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(fuzz_targets/*.rs)
    targets=("${targets[@]##*/}")
    targets=("${targets[@]%.rs}")
fi

failed=()
for target in "${targets[@]}"; do
    # Each needs its own part of Quarr alone.
    needs=$(grep -A5 "^name = \"$target\"" Cargo.toml | sed -n 's/^required-features = \["\(.*\)"\]/\1/p' || true)
    features=()
    [ -z "$needs" ] || features=(--features "$needs")
    mkdir -p "corpus/$target" "seeds/$target"
    # No sanitizer: the code is safe Rust, and the targets bound their memory themselves.
    if ! cargo "+$nightly" fuzz run --sanitizer none "${features[@]}" "$target" \
        "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0; then
        failed+=("$target")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: found something: ${failed[*]}" >&2
    exit 1
fi
echo "fuzz: ${#targets[@]} targets ran $seconds s each and found nothing"
