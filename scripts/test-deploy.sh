#!/bin/sh
# Runs the tests of deploy/ and terraform/ with the environment that `scripts/setup.sh test` made. They need
# no network, no account and no container engine; what a missing program keeps from being tested is said.
#
#   scripts/test-deploy.sh [DIRECTORY OF THE quarr BINARY] [pytest arguments...]
#
# Those marked long (the image in a chroot, long rolling restarts, checkov) run with `-m long`.
set -eu
cd "$(dirname "$0")/.."
QUARR_BIN=$(cd "${1:-target/debug}" && pwd)
export QUARR_BIN
[ $# = 0 ] || shift
python=.venv-deploy/bin/python
[ -x "$python" ] || { echo "no environment: run scripts/setup.sh test" >&2; exit 1; }
[ $# != 0 ] || set -- -m "not long"
exec "$python" -m pytest -q -rs -p no:cacheprovider tests/deploy -c tests/deploy/pytest.ini "$@"
