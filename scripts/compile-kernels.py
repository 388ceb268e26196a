#!/usr/bin/env python3
"""Compiles the CUDA kernels to PTX with NVRTC, no GPU needed.

    scripts/compile-kernels.py            writes compute/src/gpu/ptx
    scripts/compile-kernels.py --check    says what differs from it, and fails
    scripts/compile-kernels.py --newest --nvrtc FOLDER
                                          compiles for the newest architecture that the NVRTC in FOLDER
                                          knows, writes nothing

NVRTC comes from NVIDIA's packages for Python; scripts/setup.sh puts each version into a folder of
.venv/nvrtc. What is committed is made by version 12.1, the oldest driver's that Quarr asks for (ADR
0142); `--newest` takes any version.
"""

import argparse
import ctypes
import gzip
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "compute" / "kernels"
PTX = ROOT / "compute" / "src" / "gpu" / "ptx"

#: Compute capability 7.0: what runs on Volta is compiled by the driver for all that came after it.
ARCHITECTURE = "compute_70"
VERSION = (12, 1)
NVRTC = ROOT / ".venv" / "nvrtc" / "12.1.105"
OPTIONS = ["--std=c++17", "--fmad=false"]


class Nvrtc:
    """The library, through its C interface."""

    def __init__(self, folder: Path) -> None:
        # CUDA 12 and 13 have it in different places.
        library = next(folder.glob("nvidia/*/lib/libnvrtc.so.*"), None)
        if library is None:
            sys.exit(f"compile-kernels: there is no NVRTC in {folder}: run scripts/setup.sh test")
        self.library = ctypes.CDLL(str(library))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def call(self, name: str, *arguments: object) -> None:
        if result := getattr(self.library, name)(*arguments):
            raise RuntimeError(f"{name} failed with {result}")

    def newest(self) -> str:
        """The newest architecture it compiles for."""
        count = ctypes.c_int()
        self.call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        known = (ctypes.c_int * count.value)()
        self.call("nvrtcGetSupportedArchs", known)
        return f"compute_{max(known)}"

    def compile(self, source: str, options: list[str]) -> str:
        """PTX of a source; exits with the compiler's words if it is not valid."""
        program = ctypes.c_void_p()
        given = [option.encode() for option in options]
        headers = sorted(KERNELS.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*[path.read_bytes() for path in headers])
        names = (ctypes.c_char_p * len(headers))(*[path.name.encode() for path in headers])
        text = (KERNELS / source).read_bytes()
        self.call(
            "nvrtcCreateProgram", ctypes.byref(program), text, source.encode(), len(headers), texts, names
        )
        arguments = (ctypes.c_char_p * len(given))(*given)
        result = self.library.nvrtcCompileProgram(program, len(given), arguments)
        log = self._text(program, "nvrtcGetProgramLog")
        if result or "warning" in log:
            sys.exit(f"compile-kernels: {source} {' '.join(options)}:\n{log}")
        ptx = self._text(program, "nvrtcGetPTX")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return ptx

    def _text(self, program: ctypes.c_void_p, name: str) -> str:
        size = ctypes.c_size_t()
        self.call(f"{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(name, program, buffer)
        return buffer.value.decode()


def modules() -> list[tuple[str, str, list[str]]]:
    """Name, source and macros of each module."""
    lines = (KERNELS / "modules.txt").read_text().splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return [(name, source, macros) for name, source, *macros in fields]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("--nvrtc", type=Path, default=NVRTC, metavar="FOLDER")
    wanted = parser.parse_args()
    nvrtc = Nvrtc(wanted.nvrtc)
    architecture = nvrtc.newest() if wanted.newest else ARCHITECTURE
    if not wanted.newest and nvrtc.version != VERSION:
        sys.exit(f"compile-kernels: NVRTC is {nvrtc.version}, not {VERSION}, which makes what is committed")
    changed = []
    for name, source, macros in modules():
        ptx = nvrtc.compile(source, [*OPTIONS, f"--gpu-architecture={architecture}", *macros])
        if wanted.newest:
            continue
        text = f"// quarr module {name}\n{ptx.strip()}\n".encode()
        path = PTX / f"{name}.ptx.gz"
        if not path.exists() or gzip.decompress(path.read_bytes()) != text:
            changed.append(path.relative_to(ROOT))
            if not wanted.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(gzip.compress(text, 9, mtime=0))
    known = {name for name, _, _ in modules()}
    stale = [path.relative_to(ROOT) for path in PTX.glob("*") if path.name.split(".")[0] not in known]
    if wanted.check and changed:
        sys.exit(f"compile-kernels: run make kernels: not what the sources give: {', '.join(map(str, changed))}")
    if wanted.check and stale:
        sys.exit(f"compile-kernels: of no module, remove them: {', '.join(map(str, stale))}")
    version = ".".join(map(str, nvrtc.version))
    print(f"compile-kernels: NVRTC {version}, {architecture}, {len(modules())} modules")


if __name__ == "__main__":
    main()
