#!/bin/sh
# A tour in one minute: a small NetCDF file goes into a fresh store, and slices, reductions, the log
# and a verification come out. On a terminal it keeps serving until Ctrl-C; otherwise it stops.
#
#   QUARR_BIN=target/release scripts/demo.sh
set -eu
bin=$(cd "${QUARR_BIN:-target/release}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/quarr-demo.XXXXXX")
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
cd "$work"

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || title() { printf '\n%s\n' "$*"; }
# Shows a command as one would type it, then runs it.
quarr() {
    printf '$ quarr'
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./,=-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$bin/quarr" "$@"
}

title "A small NetCDF file: hourly air temperature on a 2 degree grid, packed in 16 bits"
"$bin/sample-netcdf" air.nc
ls -l air.nc | awk '{ print $NF ": " $5 " bytes" }'

title "Import it: one commit in a new repository, in ./quarr-data"
quarr import air.nc --to weather -m "first day"

title "What is in it"
quarr ls weather
quarr show weather/t2m

title "A slice, decoded as CF says"
quarr get 'weather/t2m[0,10:14,20:25]'

title "A reduction over time, and one over everything"
quarr get 'weather/t2m[:,20:22,90:94]' --reduce mean --over time
quarr get weather/t2m --reduce max

title "The log: every change is an entry, chained by hash"
quarr log weather

title "Verify: every object under the prefix against its hash, every chunk decoded"
quarr verify weather --deep

title "Prove what a slice holds to someone who has only the proof and a key"
QUARR_KEYS=$work/keys
export QUARR_KEYS
quarr key create weather 2>/dev/null
quarr prove 'weather/t2m[0,10:14,20:25]' -o proof.json
quarr check-proof proof.json --key "$("$bin/quarr" key show weather)"

title "Serve it"
"$bin/quarr" serve --listen 127.0.0.1:0 >serve.log 2>&1 &
server=$!
url=
for _ in $(seq 100); do
    url=$(sed -n 's/.*\(http:\/\/127\.0\.0\.1:[0-9]*\).*/\1/p' serve.log | head -n 1)
    [ -z "$url" ] || ! curl -fs "$url/readyz" >/dev/null || break
    kill -0 "$server" 2>/dev/null || { cat serve.log >&2; exit 1; }
    sleep 0.1
done
[ -n "$url" ] || { cat serve.log >&2; exit 1; }
main="$url/v1/repos/weather/refs/main"
printf '$ curl "%s"\n' "$main/reduce/t2m?reduce=mean&over=latitude,longitude&slice=0:4&f=json"
curl -fsS "$main/reduce/t2m?reduce=mean&over=latitude,longitude&slice=0:4&f=json"
printf '\n\nxarray:   xr.open_zarr("%s")\n' "$main/zarr"
printf 'API docs: %s/docs\n' "$url"
printf 'Quarr:    %s\n' "$url"

if [ -t 0 ] && [ -t 1 ]; then
    printf '\nServing until Ctrl-C.\n'
    wait "$server"
fi
