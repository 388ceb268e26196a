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
newest=
for python in .venv/*/bin/python; do
    if [ -x "$python" ]; then newest=$python; fi
done
for python in .venv/*/bin/python; do
    [ -x "$python" ] || continue
    # What does not depend on the clients is tested with the newest of them.
    selection="not long"
    [ "$python" = "$newest" ] || selection="not long and not once"
    "$python" -m pytest -q -r sfE -p no:cacheprovider -n auto --maxprocesses 4 --dist loadfile \
        -m "$selection" tests/python "$@"
done
[ -n "$newest" ] || { echo "no Python environment: run scripts/setup.sh test" >&2; exit 1; }
