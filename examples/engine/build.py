#!/usr/bin/env python3
"""Compiles the kernels of the engine: kernels.cu to PTX, in kernels_ptx.h as a C string.

    examples/engine/build.py            writes kernels_ptx.h
    examples/engine/build.py --check    builds again and compares every byte

The compiler is that of the library's kernels (kernels/build.py), which installs it under target/. Like those, the PTX
is assembled by CUDA 12.0 and 13.0, and no kernel may keep registers in local memory. Who only uses the example needs
neither.
"""

import hashlib
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "kernels"))
import build

SOURCE, HEADER = HERE / "kernels.cu", HERE / "kernels_ptx.h"
TARGET = "compute_75"


def main():
    build.install()
    source = SOURCE.read_bytes()
    compiler = build.Compiler(build.installed("cuda_nvrtc/lib/libnvrtc.so.12"))
    ptx, log = compiler.compile({SOURCE.name: source}, TARGET, "-fmad=false", main=SOURCE.name)
    if log:
        sys.exit(f"warnings\n{log}")
    kernels = sorted(re.findall(r"\.entry (\w+)", ptx.decode()))
    for version in build.ASSEMBLERS:
        for target, needs in build.assemble(ptx, version, kernels).items():
            print(f"ptxas {version}, {target}: " + ", ".join(f"{name} {needs[name][0]}" for name in kernels))
            spills = [f"{name} spills {spilled} bytes" for name, (_, spilled) in needs.items() if spilled]
            if spills:
                sys.exit("\n".join(spills))
    header = (f"// Written by build.py from kernels.cu, whose SHA-256 is\n// {hashlib.sha256(source).hexdigest()}\n"
              f'static const char KERNELS_PTX[] = R"PTX({ptx.decode()})PTX";\n')
    if sys.argv[1:] == ["--check"]:
        if HEADER.read_text() != header:
            sys.exit(f"{HEADER.name} is not what {SOURCE.name} becomes: run examples/engine/build.py")
    else:
        HEADER.write_text(header)


main()
