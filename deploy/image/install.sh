#!/bin/sh
# Makes a Debian 12 root file system one that runs Quarr: what the image is made of, and what its test
# runs in a bare chroot. Needs root inside, and Debian's packages.
#
#   install.sh BINARY
#
# BINARY is `quarr`, built on Debian 12 (glibc 2.36, libhdf5 1.10.8). What it needs at run time: the HDF5
# library, which it is linked to; certificates, to trust object stores by; curl for the health check.
set -eu
binary=$1
# The user of the process. Numbers, because Kubernetes checks `runAsNonRoot` by number.
id=65532

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends ca-certificates curl libhdf5-103-1 >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log

groupadd --system --gid $id quarr
useradd --system --uid $id --gid $id --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin quarr

install -m 0755 "$binary" /usr/local/bin/quarr
# Nothing but this folder is written to: caches, and scratch files of imports. Mount something there.
install -d -m 0750 -o $id -g $id /var/cache/quarr

cat >/usr/local/bin/quarr-health <<'END'
#!/bin/sh
# Whether the service in this container can answer. With a certificate the name is not checked: what is
# asked is this container itself.
port=${QUARR_LISTEN:-0.0.0.0:8686}
scheme=http
[ -z "${QUARR_TLS_CERT:-}" ] || scheme=https
exec curl --fail --silent --insecure --max-time 4 --output /dev/null "$scheme://127.0.0.1:${port##*:}/readyz"
END
chmod 0755 /usr/local/bin/quarr-health

# The binary starts: every library it is linked to is there.
/usr/local/bin/quarr --version
