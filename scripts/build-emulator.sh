#!/bin/sh
# Builds the emulated CUDA device of compute/emulator, with the kernels of compute/kernels.
#
#   scripts/build-emulator.sh OUTPUT_FOLDER [--self-test]
#
# Put OUTPUT_FOLDER into LD_LIBRARY_PATH to use it, or OUTPUT_FOLDER/old-driver for a driver that is too
# old. What is newer than its sources is not built again, and two runs at once do not disturb each other.
# CXX names another compiler. Exits with 3 if there is none.
set -eu
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}
emulator=compute/emulator kernels=compute/kernels script=scripts/build-emulator.sh driver=
for part in settings driver modules memory streams launch faults; do
    driver="$driver $emulator/$part.cpp"
done
flags='-std=c++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -fno-fast-math -fno-strict-aliasing
    -fstack-clash-protection -U_FORTIFY_SOURCE -Wall -Wextra -Wno-unknown-pragmas'
# What a device refuses and a CPU lets pass; faults.cpp has what these checks call.
checks='-fsanitize=alignment,bounds,shift,integer-divide-by-zero,float-cast-overflow -fno-sanitize-recover=all'

# fresh TARGET SOURCE...: the target is newer than its sources.
fresh() {
    target=$1
    shift
    [ -e "$target" ] && [ -z "$(find "$@" -newer "$target")" ]
}

# One job: driver, old-driver, cublas, selftest, or a line of modules.txt. Writes a file of its own and
# renames it.
build() {
    job=$1 temporary=$out/.building.$$
    shift
    trap 'rm -f "$temporary" "$temporary".o' EXIT
    case $job in
    driver)
        "$compiler" $flags -shared -Wl,-soname,libcuda.so.1 -o "$temporary" $driver -Wl,-z,nodelete -ldl -lpthread
        mv "$temporary" "$out/libcuda.so.1" ;;
    old-driver)
        "$compiler" $flags -shared -Wl,-soname,libcuda.so.1 -o "$temporary" $emulator/old_driver.cpp
        mv "$temporary" "$out/old-driver/libcuda.so.1" ;;
    cublas)
        "$compiler" $flags -shared -Wl,-soname,libcublas.so.12 -Wl,-rpath,'$ORIGIN' -o "$temporary" \
            $emulator/cublas.cpp "$out/libcuda.so.1"
        mv "$temporary" "$out/libcublas.so.12" ;;
    nvcomp)
        "$compiler" $flags -shared -DNVCOMP_MAJOR="$1" -Wl,-soname,libnvcomp.so."$1" -o "$temporary" \
            $emulator/nvcomp.cpp -lz -ldl
        mv "$temporary" "$out/libnvcomp.so.$1" ;;
    selftest)
        "$compiler" $flags $checks -DQUARR_EMULATOR -DQUARR_MODULE=selftest -c -o "$temporary.o" \
            $emulator/selftest.cpp
        "$compiler" -Wl,-rpath,'$ORIGIN' -o "$temporary" "$temporary.o" "$out/libcublas.so.12" \
            "$out/libcuda.so.1"
        mv "$temporary" "$out/selftest" ;;
    module)
        name=$1 source=$2
        shift 2
        "$compiler" $flags $checks -fno-exceptions -x c++ -DQUARR_EMULATOR -DQUARR_MODULE="$name" "$@" \
            -I $emulator -I $kernels -c -o "$temporary.o" "$kernels/$source"
        "$compiler" -shared -Wl,-z,defs -o "$temporary" "$temporary.o" "$out/libcuda.so.1"
        mv "$temporary" "$out/modules/$name.so" ;;
    esac
}

if [ "${1:?name the output folder}" = --job ]; then
    shift
    [ $# = 0 ] || build "$@"
    exit
fi
if ! command -v "$compiler" >/dev/null; then
    echo "build-emulator: there is no C++ compiler '$compiler'; install one, or name one in CXX" >&2
    exit 3
fi
mkdir -p "$1/modules" "$1/old-driver"
out=$(cd "$1" && pwd)
export out
if command -v flock >/dev/null; then
    exec 9>"$out/.lock"
    flock 9
fi

# Every job is a line of arguments for the next step; two run at a time.
run_jobs() { xargs -P 2 -L 1 "$script" --job; }
headers="$emulator/device.h $emulator/driver.h $script"
{
    fresh "$out/libcuda.so.1" $headers $driver || echo driver
    fresh "$out/old-driver/libcuda.so.1" $emulator/old_driver.cpp $script || echo old-driver
} | run_jobs
ln -sf libcuda.so.1 "$out/libcuda.so"
ln -sf libcuda.so.1 "$out/old-driver/libcuda.so"
{
    fresh "$out/libcublas.so.12" $headers $emulator/cublas.cpp || echo cublas
    for major in 4 5 6; do
        fresh "$out/libnvcomp.so.$major" $emulator/nvcomp.cpp $script || echo nvcomp $major
    done
    if [ "${2-}" = --self-test ]; then
        fresh "$out/selftest" $headers $emulator/selftest.cpp || echo selftest
    fi
    if [ -e $kernels/modules.txt ]; then
        shared="$(find $kernels -name '*.cuh' -o -name '*.h') $kernels/modules.txt $emulator/device.h $script"
        sed 's/#.*//' $kernels/modules.txt | while read -r name source defines; do
            [ -n "$name" ] || continue
            fresh "$out/modules/$name.so" "$kernels/$source" $shared \
                || echo module "$name" "$source" $defines
        done
    fi
} | run_jobs
ln -sf libcublas.so.12 "$out/libcublas.so"
if [ "${2-}" = --self-test ]; then "$out/selftest"; fi
