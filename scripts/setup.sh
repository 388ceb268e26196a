#!/bin/sh
# Installs what building and testing Quarr needs and the machine lacks. Safe to run again: a machine
# that has everything is left alone, and needs no root.
#
#   scripts/setup.sh build    system libraries and a Rust toolchain
#   scripts/setup.sh test     the same, the Python environments of the tests, the compiler of CUDA kernels, and
#                             with Go at hand MinIO
#   scripts/setup.sh deploy   what the tests of deploy/ and terraform/ use: Helm where Go is at hand, debootstrap, checkov
#
# Debian 12 or newer and Ubuntu are set up completely. Elsewhere the script checks and says what is
# missing.
set -eu
cd "$(dirname "$0")/.."

# What the build uses beyond Rust:
#   build-essential  the C and C++ compiler of the bundled codec libraries (blosc, zstd, zfp)
#   cmake            builds zfp; libclang-dev: bindgen reads zfp's header
#   libhdf5-dev      linked by the importers, found through pkg-config
#   curl             the demo waits for the server with it
packages="build-essential ca-certificates cmake curl libclang-dev libhdf5-dev make pkg-config"
# The emulated CUDA device of the tests, which the same C++ compiler builds, has a nvCOMP that uses zlib.
test_packages="zlib1g-dev"
python_packages="python3 python3-venv"

rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust_pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
PATH="$PATH:$HOME/.cargo/bin"
updated=no

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "need root for: $*"
    fi
}

apt_update() {
    [ "$updated" = yes ] || as_root apt-get update -qq
    updated=yes
}

apt_install() {
    apt_update
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

has_package() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
    missing=
    if command -v dpkg-query >/dev/null; then
        for package in "$@"; do
            has_package "$package" || missing="$missing $package"
        done
        # shellcheck disable=SC2086 # one word a package
        [ -z "$missing" ] || apt_install $missing
    else
        say "not a Debian system: make sure it has the equivalents of: $*"
    fi
}

# --- Rust -------------------------------------------------------------------------------------------

has_rust() {
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) && [ -n "$version" ] &&
        at_least "$version" "$rust_wanted" &&
        cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1
}

# The version `apt-get install $1` would bring, without Debian's revision; empty if none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p'; }

# A bare debootstrap lists only the frozen release. Debian's security suite, configured on every
# installed system, is where a stable release gets its newer compilers.
add_security_suite() {
    # shellcheck disable=SC1091 # the system's own description
    . /etc/os-release
    [ "$ID" = debian ] || return 0
    if apt-cache policy | grep -q -- '-security/'; then return 0; fi
    mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/debian\)\/* .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || return 0
    say "adding Debian's security suite to the package sources"
    echo "deb ${mirror}-security ${VERSION_CODENAME}-security main" |
        as_root tee /etc/apt/sources.list.d/debian-security.list >/dev/null
    updated=no
    apt_update
}

# The distribution's compiler if it is new enough: Debian keeps one in step for browsers ("-web").
install_rust_from_distribution() {
    if at_least "$(candidate cargo)" "$rust_wanted"; then
        apt_install cargo rustc rustfmt rust-clippy
    elif at_least "$(candidate cargo-web)" "$rust_wanted"; then
        apt_install cargo-web rustc-web rustfmt-web rust-web-clippy
    else
        return 1
    fi
}

install_rust_with_rustup() {
    say "installing Rust $rust_pinned with rustup"
    rustup toolchain install "$rust_pinned" --profile minimal --component rustfmt --component clippy
}

install_rust() {
    if has_rust; then return 0; fi
    if command -v rustup >/dev/null && install_rust_with_rustup && has_rust; then return 0; fi
    if command -v apt-get >/dev/null; then
        apt_update
        add_security_suite
        if install_rust_from_distribution && has_rust; then return 0; fi
        if [ -n "$(candidate rustup)" ]; then
            apt_install rustup
            if install_rust_with_rustup && has_rust; then return 0; fi
        fi
    fi
    fail "no Rust $rust_wanted or newer with rustfmt and clippy: install it with rustup, then run this again"
}

# --- Python -----------------------------------------------------------------------------------------

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# One environment for the oldest supported Python found and one for the newest, so that both the
# conservative and the latest releases of the clients read what Quarr serves.
supported_pythons() {
    for name in python3.11 python3.12 python3.13 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python; do
        version=$(python_version "$name") || continue
        case $version in 3.11 | 3.12 | 3.13) echo "$version $name" ;; esac
    done | sort -V -u -k 1,1 | sed -n '1p;$p' | uniq
}

install_python_environment() {
    version=$1 python=$2 environment=.venv/$1
    requirements=tests/python/requirements.txt
    if cmp -s "$requirements" "$environment/installed-requirements.txt"; then return 0; fi
    say "creating $environment for the interoperability tests"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    # uv installs in seconds what takes pip minutes.
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
    "$environment/bin/python" -m uv pip install --quiet --python "$environment/bin/python" -r "$requirements"
    cp "$requirements" "$environment/installed-requirements.txt"
}

install_python() {
    [ -n "$(supported_pythons)" ] || install_packages $python_packages
    found=$(supported_pythons)
    [ -n "$found" ] || fail "no Python 3.11, 3.12 or 3.13 for the interoperability tests"
    echo "$found" | while read -r version python; do
        # Debian ships ensurepip apart from its own interpreter.
        "$python" -c 'import ensurepip' 2>/dev/null || install_packages $python_packages
        install_python_environment "$version" "$python"
    done
}

# The tests of deploy/ and terraform/ have one of their own, with the newest Python found.
install_deploy_environment() {
    found=$(supported_pythons | tail -n 1)
    environment=.venv-deploy requirements=tests/deploy/requirements.txt
    if cmp -s "$requirements" "$environment/installed-requirements.txt"; then return 0; fi
    say "creating $environment for the tests of deploy/ and terraform/"
    rm -rf "$environment"
    "${found#* }" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
    "$environment/bin/python" -m uv pip install --quiet --python "$environment/bin/python" -r "$requirements"
    cp "$requirements" "$environment/installed-requirements.txt"
}

# Apart from the tests' own environment: it brings a hundred packages.
checkov=3.3.30

install_checkov() {
    if [ -x .venv-deploy/checkov/bin/checkov ]; then return 0; fi
    say "installing checkov"
    .venv-deploy/bin/python -m uv venv --quiet .venv-deploy/checkov
    .venv-deploy/bin/python -m uv pip install --quiet --python .venv-deploy/checkov/bin/python "checkov==$checkov"
}

# --- CUDA kernels -----------------------------------------------------------------------------------

# NVRTC compiles them without a GPU: the version that makes what is committed, and the newest of two
# major versions, which must take the sources as well. The first there is for x86-64 alone.
nvrtc_committed="nvidia-cuda-nvrtc-cu12==12.1.105"
nvrtc_newest="nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvrtc==13.5.37"

install_nvrtc() {
    case $(uname -s -m) in
        "Linux x86_64") wanted="$nvrtc_committed $nvrtc_newest" ;;
        "Linux aarch64") wanted=$nvrtc_newest ;;
        *) say "no NVRTC for this platform: the checks of the kernels will say that they were skipped"; return 0 ;;
    esac
    folder=.venv/nvrtc
    if [ "$(cat $folder/installed 2>/dev/null)" = "$wanted" ]; then return 0; fi
    say "installing NVRTC"
    rm -rf $folder
    # Any of them: the last.
    for environment in .venv/3.*; do :; done
    for package in $wanted; do
        "$environment/bin/python" -m uv pip install --quiet --target "$folder/${package#*==}" "$package" ||
            fail "could not install $package, which compiles the CUDA kernels"
    done
    echo "$wanted" >$folder/installed
}

# --- Servers ----------------------------------------------------------------------------------------

# A second S3 server for the tests, besides moto, where Go is at hand to build it.
minio=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

install_minio() {
    if command -v minio >/dev/null || [ -x "$HOME/go/bin/minio" ] || ! command -v go >/dev/null; then return 0; fi
    say "building MinIO (minutes)"
    GOBIN="$HOME/go/bin" go install "$minio" || say "no MinIO: its tests will say that they were skipped"
}

helm=helm.sh/helm/v3/cmd/helm@v3.20.2

install_helm() {
    if command -v helm >/dev/null || [ -x "$HOME/go/bin/helm" ] || ! command -v go >/dev/null; then return 0; fi
    say "building Helm (minutes)"
    GOBIN="$HOME/go/bin" go install "$helm" || say "no Helm: the chart's tests will say that they were skipped"
}

# The JavaScript reader of Zarr, where npm is at hand.
install_zarrita() {
    command -v npm >/dev/null || return 0
    folder=tests/zarrita
    if cmp -s $folder/package-lock.json $folder/node_modules/installed-lock.json; then return 0; fi
    say "installing zarrita"
    npm ci --silent --prefix $folder || { say "no zarrita: its tests will say that they were skipped"; return 0; }
    cp $folder/package-lock.json $folder/node_modules/installed-lock.json
}

# Azure Blob Storage for the tests, where npm is at hand. What it would reach databases with is left out:
# it keeps its objects in memory.
install_azurite() {
    command -v npm >/dev/null || return 0
    folder=tests/azurite
    if cmp -s $folder/package-lock.json $folder/node_modules/installed-lock.json; then return 0; fi
    say "installing Azurite"
    npm ci --silent --omit=optional --prefix $folder || { say "no Azurite: its tests will say that they were skipped"; return 0; }
    cp $folder/package-lock.json $folder/node_modules/installed-lock.json
}

case "${1:-}" in
    build) what=build ;;
    test) what=test ;;
    deploy) what=deploy ;;
    *) fail "usage: scripts/setup.sh build|test|deploy" ;;
esac
# shellcheck disable=SC2086 # one word a package
install_packages $packages
install_rust
# shellcheck disable=SC2086 # one word a package
[ "$what" != test ] || install_packages $test_packages
[ "$what" != test ] || { install_python; install_nvrtc; install_minio; install_zarrita; install_azurite; install_deploy_environment; }
[ "$what" != deploy ] || { install_packages debootstrap $python_packages; install_minio; install_helm; install_deploy_environment; install_checkov; }
