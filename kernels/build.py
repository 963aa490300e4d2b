#!/usr/bin/env python3
"""Compiles the kernels: decode.cu to PTX and cubins in prebuilt/, with a manifest of what they were made from.

    kernels/build.py            writes prebuilt/
    kernels/build.py --check    builds again and compares every byte; the oldest assembler must accept the PTX

The compiler is NVRTC at the version that requirements.txt pins by hash, installed into a virtual environment under
target/. Its output depends on the sources and nothing else: not on folders, dates, or the machine. No GPU, driver or
CUDA toolkit is needed. Any other NVRTC is refused: it would write other bytes.
"""

import argparse
import ctypes
import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PREBUILT = HERE / "prebuilt"
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = HERE.parent / "target" / "kernels-python"
MAIN = "decode.cu"
NVRTC = (12, 9)
OPTIONS = ["--std=c++17"]
# A cubin serves its major version from its minor on: sm_80 also 8.6, 8.7 and 8.9. The PTX serves all from 7.5 on.
PTX = "compute_75"
CUBINS = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]
# NVRTC 12.9 stamps its PTX with ISA 8.8, which only drivers of CUDA 12.9 and later take. Nothing in it is newer than
# ISA 8.0, that of CUDA 12.0 (driver 525), which the old assembler vouches for.
PTX_VERSION = "8.0"
OLD_TARGETS = ["sm_75", "sm_80", "sm_90"]


def install():
    """Makes the virtual environment, with what requirements.txt says and nothing else, unless it is there."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp, interpreter = ENVIRONMENT / "installed", ENVIRONMENT / "bin" / "python3"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", "--require-hashes", "-r", REQUIREMENTS], check=True)
        stamp.write_text(wanted)


def installed(pattern):
    """The one file of the environment's packages that matches."""
    found = sorted(ENVIRONMENT.glob(f"lib/python3*/site-packages/nvidia/{pattern}"))
    if len(found) != 1:
        sys.exit(f"expected one {pattern}, found {found}")
    return found[0]


class Compiler:
    """NVRTC, by its C interface."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        if (major.value, minor.value) != NVRTC:
            sys.exit(f"NVRTC {NVRTC} is wanted, not {major.value}.{minor.value}")

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name}: error {code}")

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def compile(self, sources, target):
        names = [name for name in sources if name != MAIN]
        array = ctypes.c_char_p * len(names)
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), sources[MAIN], MAIN.encode(), len(names),
                  array(*[sources[name] for name in names]), array(*[name.encode() for name in names]))
        options = [f"--gpu-architecture={target}", *OPTIONS]
        try:
            self.call("nvrtcCompileProgram", program, len(options),
                      (ctypes.c_char_p * len(options))(*[option.encode() for option in options]))
        except RuntimeError as error:
            sys.exit(f"{target}: {error}\n{self.text(program, 'ProgramLog').rstrip(bytes(1)).decode()}")
        log = self.text(program, "ProgramLog").rstrip(b"\0").decode().strip()
        if log:
            sys.exit(f"{target}: warnings\n{log}")
        ptx = target.startswith("compute_")
        output = self.text(program, "PTX" if ptx else "CUBIN")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        if not ptx:
            return output
        output, count = re.subn(rb"(?m)^\.version \d+\.\d+$", b".version " + PTX_VERSION.encode(), output.rstrip(b"\0"))
        if count != 1:
            sys.exit("the PTX has no version")
        return output


def build():
    """The contents of every file in prebuilt/, by name."""
    paths = sorted(path for path in HERE.iterdir() if path.suffix in (".cu", ".cuh", ".h"))
    sources = {path.name: path.read_bytes() for path in paths}
    compiler = Compiler(installed("cuda_nvrtc/lib/libnvrtc.so.12"))
    files = {"decode.ptx": compiler.compile(sources, PTX)}
    for target in CUBINS:
        files[f"decode.{target}.cubin"] = compiler.compile(sources, target)
    sha256 = lambda contents: hashlib.sha256(contents).hexdigest()
    manifest = {
        "compiler": "NVRTC " + re.search(r"nvrtc-cu12==(\S+)", REQUIREMENTS.read_text()).group(1),
        "options": OPTIONS,
        "ptx": {"target": PTX, "version": PTX_VERSION},
        "sources": {name: sha256(contents) for name, contents in sources.items()},
        "files": {name: {"bytes": len(files[name]), "sha256": sha256(files[name])} for name in sorted(files)},
    }
    files["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()
    return files


def assemble(ptx):
    """Has the oldest assembler take the PTX, and prints what its kernels need. False if registers were spilled."""
    clean = True
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "decode.ptx"
        path.write_bytes(ptx)
        for target in OLD_TARGETS:
            said = subprocess.run([installed("cuda_nvcc/bin/ptxas"), "-v", f"-arch={target}", path, "-o", "/dev/null"],
                                  capture_output=True, text=True)
            if said.returncode != 0:
                sys.exit(f"ptxas 12.0 refuses the PTX for {target}:\n{said.stdout}{said.stderr}")
            kernels = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
                                 r".*?Used (\d+) registers", said.stderr, re.S)
            for name, stores, loads, registers in kernels:
                print(f"ptxas 12.0 {target} {name}: {registers} registers, {stores} + {loads} bytes spilled")
                clean &= stores == loads == "0"
            clean &= bool(kernels)
    return clean


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="compare with prebuilt/ instead of writing it")
    check = arguments.parse_args().check
    install()
    files = build()
    if not check:
        PREBUILT.mkdir(exist_ok=True)
        for path in PREBUILT.iterdir():
            path.unlink()
        for name, contents in files.items():
            (PREBUILT / name).write_bytes(contents)
            print(f"wrote prebuilt/{name}, {len(contents)} bytes")
        return
    good = True
    for name in sorted(files.keys() | {path.name for path in PREBUILT.iterdir()}):
        path = PREBUILT / name
        state = "missing" if not path.exists() else "no output" if name not in files else "same"
        if state == "same" and path.read_bytes() != files[name]:
            state = "DIFFERS"
        print(f"{state:9} prebuilt/{name}")
        good &= state == "same"
    if not assemble(files["decode.ptx"]):
        sys.exit("registers were spilled")
    if not good:
        sys.exit("kernels/prebuilt is not what `make kernels` builds")


main()
