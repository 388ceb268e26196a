#!/bin/sh
# Compares Quarr with what else reads arrays: makes the environments and runs benches/peers/run.py.
#
#   scripts/bench-peers.sh [DIRECTORY OF THE quarr BINARY] [arguments of run.py...]
#
# HSDS gets an environment of its own, because it wants older packages. What cannot be installed has
# rows in the tables that say so. PYTHON names the interpreter; by default the newest that is found.
set -eu
cd "$(dirname "$0")/.."
binaries=$(cd "${1:-target/release}" && pwd)
[ $# = 0 ] || shift
environments=.venv-peers

newest_python() {
    for name in python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23].*/bin/python python3; do
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        echo "$version $name"
    done | sort -V -k 1,1 | tail -n 1 | cut -d ' ' -f 2
}

# One requirement after another if all at once fail: one peer less is better than none.
install() {
    environment=$environments/$1 requirements=$2
    if cmp -s "$requirements" "$environment/installed-requirements.txt"; then return 0; fi
    echo "bench-peers: creating $environment"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    pip="$environment/bin/python -m pip install --quiet --disable-pip-version-check"
    if $pip -r "$requirements"; then
        cp "$requirements" "$environment/installed-requirements.txt"
        return 0
    fi
    grep -v '^#' "$requirements" | while read -r requirement; do
        $pip "$requirement" || echo "bench-peers: no $requirement" >&2
    done
}

python=${PYTHON:-$(newest_python)}
[ -n "$python" ] || { echo "bench-peers: no Python: run scripts/setup.sh test" >&2; exit 1; }
install peers benches/peers/requirements.txt
install hsds benches/peers/requirements-hsds.txt
exec "$environments/peers/bin/python" benches/peers/run.py --quarr "$binaries/quarr" \
    --hsds "$environments/hsds/bin/hsds" --out "$binaries/peers.json" "$@"
