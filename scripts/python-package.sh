#!/bin/sh
# Builds the extension module of the Python package and puts it beside the package's modules, so that
# PYTHONPATH=python finds both.
#
#   scripts/python-package.sh [debug|release]
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
case "${1:-debug}" in
    # Together with the tests and as cargo builds those, so that nothing is built twice.
    debug) folder=debug; cargo build --locked --workspace --lib --bins --tests ;;
    # As it is published: without the HDF5 library.
    release) folder=release; cargo build --locked --release -p quarr-python ;;
    *) echo "usage: scripts/python-package.sh [debug|release]" >&2; exit 2 ;;
esac
target=${CARGO_TARGET_DIR:-target}/$folder
for library in "$target/lib_native.so" "$target/lib_native.dylib"; do
    [ -e "$library" ] || continue
    # By a new name first: a process may have the old one loaded.
    cp "$library" python/quarr/_native.new
    mv python/quarr/_native.new python/quarr/_native.abi3.so
    exit 0
done
echo "no library in $target" >&2
exit 1
