#!/bin/sh
# Times imports of a NetCDF-4 file beside xarray's own way to Zarr.
#
#   scripts/bench-imports.sh [DIRECTORY OF THE quarr BINARY] [arguments of benches/python/imports.py...]
#
# Needs the environment of the tests (scripts/setup.sh test); PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."
binaries=$(cd "${1:-target/release}" && pwd)
[ $# = 0 ] || shift
newest() { for python in .venv/*/bin/python; do echo "$python"; done | sort -V | tail -n 1; }
QUARR_BIN=$binaries exec "${PYTHON:-$(newest)}" benches/python/imports.py "$@"
