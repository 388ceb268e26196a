#!/bin/sh
# Proves that `make demo` and `make test` need nothing beyond a base Debian 12: makes a chroot with
# debootstrap, clones this repository's HEAD into it, installs only `make`, and runs both there.
#
#   sudo scripts/prove-fresh-machine.sh [DIRECTORY] [TARGET...]
#
# DIRECTORY (default: a new temporary one) is kept, so that a failure can be looked at. TARGETs
# default to `demo test`. A folder `../shared/data` of sample files is taken along when there is one.
# The mirror is the one this machine's apt uses; certificates that this machine's administrator added
# (a proxy's, say) are trusted inside too.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "needs root: debootstrap and chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "needs debootstrap" >&2; exit 1; }

root=${1:-$(mktemp -d /var/tmp/quarr-fresh.XXXXXX)}
[ $# = 0 ] || shift
[ $# != 0 ] || set -- demo test
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | sort -u | head -n 1)

mounts=
unmount() { for at in $mounts; do umount -l "$root/$at" || true; done; }
trap unmount EXIT INT TERM

[ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"}
for at in proc sys dev; do
    mountpoint -q "$root/$at" || { mount --rbind "/$at" "$root/$at" && mount --make-rslave "$root/$at" && mounts="$at $mounts"; }
done
cp -L /etc/resolv.conf "$root/etc/resolv.conf"

in_chroot() {
    chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        DEBIAN_FRONTEND=noninteractive "$@"
}

# The one thing a base system lacks before a Makefile can take over.
in_chroot apt-get update -qq
in_chroot apt-get install -qq -y --no-install-recommends make ca-certificates >/dev/null
environment=
if [ -n "$(ls /usr/local/share/ca-certificates 2>/dev/null)" ]; then
    cp /usr/local/share/ca-certificates/* "$root/usr/local/share/ca-certificates/"
    in_chroot update-ca-certificates >/dev/null
    environment=PIP_CERT=/etc/ssl/certs/ca-certificates.crt
fi

rm -rf "$root/srv/quarr" "$root/srv/shared"
git clone -q --no-hardlinks . "$root/srv/quarr"
if [ -d ../shared/data ]; then
    mkdir -p "$root/srv/shared"
    cp -r ../shared/data "$root/srv/shared/data"
fi
for target in "$@"; do
    echo "fresh machine: make $target"
    # shellcheck disable=SC2086 # empty or one assignment
    in_chroot $environment make -C /srv/quarr "$target" </dev/null
done
echo "fresh machine: $* passed in $root"
