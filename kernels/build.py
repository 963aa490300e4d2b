#!/usr/bin/env python3
"""Compiles the kernels: decode.cu to PTX and cubins in prebuilt/, with a manifest of what they were made from.

    kernels/build.py            writes prebuilt/, and the table of registers in README.md
    kernels/build.py --check    builds again and compares every byte and the table

Both have the PTX assembled by CUDA 12.0 and 13.0, whose assemblers are the compilers of drivers 525 and 580. Both fail
if a decoding kernel keeps registers in local memory (spills).

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
CEILING = HERE.parent / "tests" / "gpu" / "ceiling.ptx"
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = HERE.parent / "target" / "kernels-python"
MAIN = "decode.cu"
NVRTC = (12, 9)
OPTIONS = ["--std=c++17"]
# A cubin serves its major version from its minor on: sm_80 also 8.6, 8.7 and 8.9. PTX serves all from its version on;
# that for 9.0 waits for the kernel before, which older devices cannot.
PTX = {"decode.ptx": "compute_75", "decode.sm_90.ptx": "compute_90"}
# NVRTC 12.9 stamps its PTX with ISA 8.8, which only drivers of CUDA 12.9 and later take. Nothing in it is newer than ISA
# 8.0, that of CUDA 12.0 (driver 525), or 8.3, that of 12.3 (driver 545), which the assemblers vouch for.
PTX_VERSIONS = {"compute_75": "8.0", "compute_90": "8.3"}
CUBINS = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]
# Where pip puts each assembler, and the architectures that it makes code for.
ASSEMBLERS = {
    "12.0": ("cuda_nvcc/bin/ptxas", ["sm_75", "sm_80", "sm_90"]),
    "13.0": ("cu13/bin/ptxas", ["sm_75", "sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90", "sm_100", "sm_103",
                                "sm_110", "sm_120", "sm_121"]),
}
# The kernels, each with the oldest architecture that has it.
KERNELS = {"df11_decode": 75, "df11_decode_many": 75, "df11_index": 75, "df11_linear_decode": 75, "df11_linear_make": 75,
           "df11_multiply_1": 75, "df11_multiply_2": 75, "df11_multiply_8": 80, "df11_multiply_add": 75}
README = HERE / "README.md"
TABLE = re.compile(r"(?<=<!-- build.py writes this table -->\n).*?(?=<!-- end -->)", re.S)


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

    def compile(self, sources, target, *options, main=MAIN):
        """What it makes of the sources for a target, and what it says."""
        names = [name for name in sources if name != main]
        array = ctypes.c_char_p * len(names)
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), sources[main], main.encode(), len(names),
                  array(*[sources[name] for name in names]), array(*[name.encode() for name in names]))
        options = [f"--gpu-architecture={target}", *OPTIONS, *options]
        try:
            self.call("nvrtcCompileProgram", program, len(options),
                      (ctypes.c_char_p * len(options))(*[option.encode() for option in options]))
        except RuntimeError as error:
            sys.exit(f"{target}: {error}\n{self.text(program, 'ProgramLog').rstrip(bytes(1)).decode()}")
        log = self.text(program, "ProgramLog").rstrip(b"\0").decode().strip()
        ptx = target.startswith("compute_")
        output = self.text(program, "PTX" if ptx else "CUBIN")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        if not ptx:
            return output, log
        output, count = re.subn(rb"(?m)^\.version \d+\.\d+$", b".version " + PTX_VERSIONS[target].encode(), output.rstrip(b"\0"))
        if count != 1:
            sys.exit("the PTX has no version")
        # A hint for tools that look for memory that nobody wrote, newer than ISA 8.0: not all of a vector is used.
        output = re.sub(rb'(?m)^\t\.pragma "used_bytes_mask \d+";\n', b"", output)
        return output, log


def build():
    """The contents of every file in prebuilt/ by name, and what each cubin's kernels need by target."""
    paths = sorted(path for path in HERE.iterdir() if path.suffix in (".cu", ".cuh", ".h"))
    sources = {path.name: path.read_bytes() for path in paths}
    compiler = Compiler(installed("cuda_nvrtc/lib/libnvrtc.so.12"))
    files, needs = {}, {}
    for name, target in [*PTX.items()] + [(f"decode.{target}.cubin", target) for target in CUBINS]:
        files[name], log = compiler.compile(sources, target)
        if log:
            sys.exit(f"{target}: warnings\n{log}")
    for target in CUBINS:
        # Once more, because newer cubins hold the options that they were made with.
        needs[target] = needed(compiler.compile(sources, target, "--ptxas-options=-v")[1], of_target(int(target[3:])))
    sha256 = lambda contents: hashlib.sha256(contents).hexdigest()
    manifest = {
        "compiler": "NVRTC " + re.search(r"nvrtc-cu12==(\S+)", REQUIREMENTS.read_text()).group(1),
        "options": OPTIONS,
        "ptx": {name: {"target": target, "version": PTX_VERSIONS[target]} for name, target in PTX.items()},
        "sources": {name: sha256(contents) for name, contents in sources.items()},
        "files": {name: {"bytes": len(files[name]), "sha256": sha256(files[name])} for name in sorted(files)},
    }
    files["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()
    return files, needs


def of_target(oldest):
    """The names of the kernels that code has which serves targets from that one on."""
    return [name for name, since in KERNELS.items() if since <= oldest]


def needed(said, kernels):
    """The registers that each kernel needs and the bytes that it spills, from what an assembler says."""
    found = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
                       r".*?Used (\d+) registers", said, re.S)
    needs = {name: (int(registers), max(int(stores), int(loads))) for name, stores, loads, registers in found}
    if sorted(needs) != kernels:
        sys.exit(f"the assembler does not say what each kernel needs:\n{said}")
    return needs


def assemble(ptx, version, kernels=None):
    """Has an assembler take the PTX for each target that it is for. Returns what the kernels need, by target."""
    program, targets = ASSEMBLERS[version]
    oldest = int(re.search(rb"(?m)^\.target sm_(\d+)", ptx).group(1))
    targets = [target for target in targets if int(target[3:]) >= oldest]
    kernels = kernels or of_target(oldest)
    needs = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "decode.ptx"
        path.write_bytes(ptx)
        for target in targets:
            said = subprocess.run([installed(program), "-v", f"-arch={target}", path, "-o", "/dev/null"],
                                  capture_output=True, text=True)
            if said.returncode != 0:
                sys.exit(f"ptxas {version} refuses the PTX for {target}:\n{said.stdout}{said.stderr}")
            needs[target] = needed(said.stderr, kernels)
    return needs


def table(columns):
    """The table of README.md, from what kernels need by column and target."""
    def cell(needs):
        spills = lambda spilled: f" ({spilled})" if spilled else ""
        return ", ".join("{}{}".format(needs[name][0], spills(needs[name][1])) if name in needs else "-" for name in KERNELS)

    targets = sorted({target for needs in columns.values() for target in needs}, key=lambda target: int(target[3:]))
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for target in targets:
        cells = [cell(needs[target]) if target in needs else "-" for needs in columns.values()]
        rows.append(f"| {target} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="compare with prebuilt/ instead of writing it")
    check = arguments.parse_args().check
    install()
    files, cubins = build()
    columns = {"cubin": cubins}
    for version in ASSEMBLERS:
        # Drivers take the newest PTX that the device can run, but every device that it is for must take the older too.
        columns[f"PTX, ptxas {version}"] = {}
        for name, target in sorted(PTX.items(), key=lambda item: item[1]):
            if float(PTX_VERSIONS[target]) <= 8 or version != "12.0":
                columns[f"PTX, ptxas {version}"] |= assemble(files[name], version)
    readme = README.read_text()
    if len(TABLE.findall(readme)) != 1:
        sys.exit("README.md has no place for the table of registers")
    written = TABLE.sub(lambda _: table(columns), readme)
    spills = [f"{name} spills {spilled} bytes: {heading}, {target}" for heading, by_target in columns.items()
              for target, needs in by_target.items() for name, (_, spilled) in needs.items()
              if spilled and name != "df11_index"]
    # The benchmark's own kernel is written by hand, and must run on every device that the library's run on.
    for version in ASSEMBLERS:
        for target, needs in assemble(CEILING.read_bytes(), version, ["df11_ceiling"]).items():
            spills += [f"{name} spills: ptxas {version}, {target}" for name, (_, spilled) in needs.items() if spilled]
    if not check:
        PREBUILT.mkdir(exist_ok=True)
        for path in PREBUILT.iterdir():
            path.unlink()
        for name, contents in files.items():
            (PREBUILT / name).write_bytes(contents)
            print(f"wrote prebuilt/{name}, {len(contents)} bytes")
        README.write_text(written)
    good = True
    for name in sorted(files.keys() | {path.name for path in PREBUILT.iterdir()}) if check else []:
        path = PREBUILT / name
        state = "missing" if not path.exists() else "no output" if name not in files else "same"
        if state == "same" and path.read_bytes() != files[name]:
            state = "DIFFERS"
        print(f"{state:9} prebuilt/{name}")
        good &= state == "same"
    print(table(columns), end="")
    if spills:
        sys.exit("\n".join(spills))
    if not good:
        sys.exit("kernels/prebuilt is not what `make kernels` builds")
    if check and written != readme:
        sys.exit("the table of registers in kernels/README.md is not the one above: `make kernels` writes it")


if __name__ == "__main__":
    main()
