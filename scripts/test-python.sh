#!/bin/sh
# Runs the interoperability tests with every environment scripts/setup.sh made.
#
#   scripts/test-python.sh [DIRECTORY OF THE quarr BINARY] [pytest arguments...]
set -eu
cd "$(dirname "$0")/.."
QUARR_BIN=$(cd "${1:-target/debug}" && pwd)
export QUARR_BIN
# The package of this checkout, with its extension module if that was built there.
PYTHONPATH=$PWD/python${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
[ $# = 0 ] || shift
found=no
for python in .venv/*/bin/python; do
    [ -x "$python" ] || continue
    found=yes
    "$python" -m pytest -q -rs -p no:cacheprovider tests/python "$@"
done
[ "$found" = yes ] || { echo "no Python environment: run scripts/setup.sh test" >&2; exit 1; }
