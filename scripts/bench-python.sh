#!/bin/sh
# Compares the direct mode of the Python package with other stores on a local disk.
#
#   scripts/bench-python.sh [arguments of benches/python/direct.py...]
#
# PYTHON names the interpreter of the environment it makes; by default the newest of .venv.
set -eu
cd "$(dirname "$0")/.."
environment=.venv-peers/direct requirements=benches/python/requirements.txt
newest() { for python in .venv/*/bin/python; do echo "$python"; done | sort -V | tail -n 1; }
if ! cmp -s "$requirements" "$environment/installed-requirements.txt"; then
    echo "bench-python: creating $environment"
    rm -rf "$environment"
    "${PYTHON:-$(newest)}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$environment/installed-requirements.txt"
fi
scripts/python-package.sh release
PYTHONPATH=python exec "$environment/bin/python" benches/python/direct.py "$@"
