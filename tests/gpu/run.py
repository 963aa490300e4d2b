#!/usr/bin/env python3
"""Everything that needs a real GPU, in one command, as much of it as a budget of seconds allows, the most telling first.

    python3 run.py [--out FOLDER] [--budget SECONDS] [--only KEYS] [--models NAMES] [--millions 128,8,512] [--repeats N]
                   [--products 4096x4096,...] [--large WEIGHTS] [--peer-millions N] [--reference decode.ptx]
                   [--kernel NAME=FILE]...

It is part of the bundle that `make gpu-bundle` packs, next to bin/, lib/ and data/, and needs a driver. The keys of its steps,
in their order: quick, bench, ptx, products, ncu, sweep, torch, check, eager, capture, parts, check-ptx, peers, sanitize, offload.

Tools and packages that are not there are named and their steps skipped. A step has a limit of its own and is ended with all
its processes when that is over; the others go on. A step for which too little of the budget is left is left out, and named.

FOLDER gets two files, which are complete whenever this program is ended: report.txt, all that was printed, and gpu.json, every
figure, written anew after each. The status is 0 if nothing failed and something passed.
"""
import argparse
import datetime
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import queue
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Seconds of the budget that no step may take: for ending one and for the summary.
KEPT = 8
# Seconds between asking a step's processes to end and ending them.
GRACE = 2
# What a tool prints that this machine does not let it work, and what is missing then.
REFUSALS = {
    "ERR_NVGPUCTRPERM": "permission to read the GPU's performance counters",
    "Failed to initialize the profiler": "a system on which ncu can read performance counters",
    "Device not supported": "a device or system that compute-sanitizer supports",
}
CLOCKS = ("name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "temperature.gpu",
          "power.draw", "power.limit", "utilization.gpu")


class Machine:
    """Time and processes. The tests have one without either."""

    def now(self):
        return time.monotonic()

    def run(self, command, environment, limit, on_line):
        """Runs a command in a process group of its own and gives each line that it prints to `on_line`. Returns its status,
        None if it was ended because `limit` seconds were over. No process of the group is left."""
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace", env=dict(os.environ, **environment), start_new_session=True)
        lines, deadline, over = queue.Queue(), self.now() + limit, False
        threading.Thread(target=self.read, args=(process.stdout, lines), daemon=True).start()
        try:
            while True:
                try:
                    line = lines.get(timeout=max(0.0, min(0.2, deadline - self.now())))
                    if line is None:
                        break
                    on_line(line)
                except queue.Empty:
                    # A process that it has left behind may hold the pipe: the command itself has ended.
                    if process.poll() is not None:
                        break
                if self.now() >= deadline:
                    over = True
                    break
            if not over:
                try:
                    process.wait(max(0.0, deadline - self.now()))
                except subprocess.TimeoutExpired:
                    over = True
        finally:
            self.end(process)
        while not lines.empty():
            line = lines.get()
            if line is not None:
                on_line(line)
        return None if over else process.returncode

    @staticmethod
    def read(pipe, lines):
        with pipe:
            for line in pipe:
                lines.put(line)
        lines.put(None)

    @staticmethod
    def end(process):
        """Ends the process and its group. One that the system cannot end is left, because nothing helps there."""
        try:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(GRACE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


class Report:
    """The two files of the folder."""

    def __init__(self, out):
        out.mkdir(parents=True, exist_ok=True)
        self.json = out / "gpu.json"
        self.text = (out / "report.txt").open("w", encoding="utf-8")
        self.data = {
            "date": datetime.date.today().isoformat(), "machine": platform.machine(), "complete": False, "steps": [],
            "device": {}, "kernels": [], "clocks": [], "figures": [],
        }
        self.write()

    def say(self, line=""):
        print(line, flush=True)
        self.text.write(line + "\n")
        self.text.flush()

    def write(self):
        """Replaces gpu.json. Whoever reads or copies it at any time finds the whole of it."""
        part = self.json.with_name("gpu.json.part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        os.replace(part, self.json)

    def figure(self, step, figure):
        """Keeps what a step printed as JSON."""
        what = figure.get("what")
        if what == "device":
            self.data["device"] = dict(self.data["device"], **{step: {k: v for k, v in figure.items() if k != "what"}})
        elif what == "log":
            self.kernel(step, figure["text"])
        else:
            self.data["figures"].append(dict({"step": step}, **figure))
        self.write()

    def kernel(self, step, text):
        """Keeps what the library logs of the driver's answers."""
        needs = re.match(r"(df11_\w+): (-?\d+) registers, (-?\d+) local bytes, shared memory carve-out (-?\d+)$", text)
        blocks = re.match(r"(df11_\w+), tables up to (\d+) bytes: (\d+) warps and (\d+) shared bytes a block, (\d+) blocks a "
                          r"multiprocessor, (?:\d+ on )?(\d+) multiprocessors$", text)
        for found, names in ((needs, ("registers", "local_bytes", "carveout")),
                             (blocks, ("table_bytes", "warps", "shared_bytes", "blocks_a_multiprocessor",
                                       "multiprocessors"))):
            if found:
                values = dict(zip(names, map(int, found.groups()[1:])))
                self.data["kernels"].append(dict({"step": step, "function": found.group(1)}, **values))


class Step:
    """A command, with the seconds that it is expected to take and those after which it is ended."""

    def __init__(self, key, name, command, expected, limit, missing=None, environment=None, library=None):
        self.key, self.name, self.command, self.expected, self.limit = key, name, command, expected, limit
        self.missing, self.library = missing, library
        self.environment = environment or {}


class Run:
    def __init__(self, machine, report, budget):
        self.machine, self.report, self.budget = machine, report, budget
        self.start = machine.now()
        report.data["budget"] = budget

    def left(self):
        return self.budget - KEPT - (self.machine.now() - self.start)

    def record(self, step, result, **more):
        self.report.data["steps"].append(dict({"step": step.name, "result": result}, **more))
        self.report.data["seconds"] = round(self.machine.now() - self.start, 1)
        self.report.write()
        return result

    def step(self, step):
        """Runs a step, unless something is missing or too little time is left; returns its result."""
        say = self.report.say
        if step.missing is not None:
            say(f"== {step.name}: skipped, missing: {step.missing}")
            return self.record(step, "skipped", reason=f"missing: {step.missing}")
        left = self.left()
        if left < step.expected:
            reason = f"{max(0, left):.0f} seconds of the budget were left, it takes about {step.expected}"
            say(f"== {step.name}: left out, {reason}")
            return self.record(step, "left out", reason=reason)
        limit = min(step.limit, left)
        say(f"== {step.name}")
        library = HERE / "lib" / step.library if step.library else HERE / "lib"
        environment = dict({"PYTHONUNBUFFERED": "1"}, **step.environment)
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, (str(library), os.environ.get("LD_LIBRARY_PATH"))))
        more, missing, refused, began = {}, [], [], self.machine.now()

        def on_line(line):
            line = line.rstrip("\n")
            if line.startswith("{"):
                try:
                    self.report.figure(step.name, json.loads(line))
                    return
                except ValueError:
                    pass
            say(line)
            counts = re.match(r"(\d+) passed, (\d+) failed$", line)
            if counts:
                more["checks"] = {"passed": int(counts.group(1)), "failed": int(counts.group(2))}
            if line.startswith("missing: "):
                missing.append(line[len("missing: "):])
            if step.key in ("ncu", "sanitize"):
                refused.extend(what for text, what in REFUSALS.items() if text in line)

        try:
            status = self.machine.run(step.command, environment, limit, on_line)
        except OSError as error:
            return self.record(step, "failed", reason=str(error))
        except BaseException:
            self.record(step, "failed", reason="this program was ended", seconds=round(self.machine.now() - began, 1))
            raise
        more.update(status=status, seconds=round(self.machine.now() - began, 1))
        if status is None and limit < step.limit:
            more["reason"] = f"ended after {limit:.0f} seconds, because the budget is over"
            result = "left out"
        elif status is None:
            more["reason"] = f"ended after {limit:.0f} seconds"
            result = "failed"
        elif status == 77 or (status != 0 and refused):
            more["reason"] = f"missing: {(missing + refused + ['see report.txt'])[0]}"
            result = "skipped"
        else:
            result = "passed" if status == 0 else "failed"
            if status != 0:
                more["reason"] = f"status {status}"
        if "reason" in more:
            say(f"== {step.name}: {result}, {more['reason']}")
        return self.record(step, result, **more)

    def clocks(self, when):
        """Keeps the device's clocks, power and temperature."""
        smi = shutil.which("nvidia-smi")
        lines = []
        if smi is not None and self.left() > 0:
            query = [smi, "--query-gpu=" + ",".join(CLOCKS), "--format=csv,noheader"]
            try:
                self.machine.run(query, {}, min(10, self.left()), lines.append)
            except OSError as error:
                lines.append(str(error))
        values = lines[0].strip().split(", ") if lines else []
        if len(values) == len(CLOCKS):
            self.report.data["clocks"].append(dict({"when": when}, **dict(zip(CLOCKS, values))))
            self.report.write()
        elif not self.report.data["clocks"]:
            values = [lines[0].strip() if lines else "missing: nvidia-smi"]
        if values:
            self.report.say(f"== clocks {when}: {', '.join(values)}")


def models(names):
    """The bundled models, or those of them that are named."""
    if not (HERE / "lib" / "libdf11.so").exists() or not (HERE / "data").is_dir():
        sys.exit(f"{HERE} is not the bundle: `make gpu-bundle` packs it; run the run.py that is in it")
    found = sorted(path / "model" for path in (HERE / "data").iterdir() if (path / "model").is_dir())
    wanted = names.split(",") if names else [path.parent.name for path in found]
    unknown = set(wanted) - {path.parent.name for path in found}
    if unknown:
        sys.exit(f"--models: there is no {', '.join(sorted(unknown))} in {HERE / 'data'}")
    return [path for path in found if path.parent.name in wanted]


def libraries():
    """The hash of each build of the library in the bundle, so that figures can be traced to it."""
    paths = {"": HERE / "lib" / "libdf11.so", **{path.parent.name: path for path in (HERE / "lib").glob("*/libdf11.so")}}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(paths.items())}


def findable(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def lacking(*names):
    """The names of Python modules that are not there, None if all are."""
    return ", ".join(name for name in names if not findable(name)) or None


def package_file(package, pattern):
    """A file of an installed Python package, which is not imported for it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(pathlib.Path(spec.origin).parent.glob(pattern))), None)


def fat_binary(contents, function):
    """The first fat binary in a library's bytes that has machine code of that function; None if there is none."""
    magic, at = struct.pack("<I", 0xBA55ED50), 0
    while True:
        at = contents.find(magic, at)
        if at < 0 or at + 16 > len(contents):
            return None
        _, version, header, size = struct.unpack_from("<IHHQ", contents, at)
        whole = contents[at:at + header + size]
        if version == 1 and len(whole) == header + size and b"\0.text." + function.encode() + b"\0" in whole:
            return whole
        at += 4


def tool(name, folders):
    """A tool's path: from PATH, or from where toolkits put it."""
    found = shutil.which(name)
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    roots += sorted(map(str, pathlib.Path("/usr/local").glob("cuda-*")), reverse=True)
    paths = [pathlib.Path(root) / folder for root in filter(None, roots) for folder in folders]
    paths += sorted(pathlib.Path("/opt/nvidia").glob("nsight-compute/*"), reverse=True)
    return found or next((str(path / name) for path in paths if os.access(path / name, os.X_OK)), None)


def plan(options, scratch):
    """All steps, in their order."""
    bin_, golden = HERE / "bin", models(options.models)
    check, bench = bin_ / "check", [bin_ / "bench", "--json", "--repeats", options.repeats, "--ceiling", HERE / "ceiling.ptx"]
    first = options.millions.split(",")[0]
    kernels = []
    if options.reference is not None:
        kernels += ["--reference", options.reference]
    for kernel in options.kernel:
        kernels += ["--kernel", kernel]
    vllm = package_file("vllm_df11", "dfloat11_decode_v2*.so")
    fat = fat_binary(vllm.read_bytes(), "decode") if vllm is not None else None
    if fat is not None:
        (scratch / "vllm-df11.fatbin").write_bytes(fat)
        kernels += ["--kernel", f"vllm-df11={scratch / 'vllm-df11.fatbin'}"]
    absent = [] if options.reference is not None else ["the reference's kernel: decode.ptx of the Python package dfloat11"]
    absent += [] if fat is not None else ["vllm-df11's kernel: the Python package vllm-df11"]

    few = ["--only", "copy,ceiling,decode,graph,tensors,batch", "--millions", first]
    steps = [
        Step("quick", "quick check", [check, "--quick", *golden], 20, 60),
        Step("bench", "benchmark", [*bench, "--millions", options.millions, *kernels], 45, 150),
        Step("ptx", "benchmark, PTX", [*bench, "--ptx", *few], 15, 60),
        Step("products", "products", [*bench, "--products", options.products], 60, 180),
        Step("products", "products, PyTorch", [sys.executable, HERE / "torch_products.py", options.products], 15, 60,
             None if findable("torch") else "PyTorch"),
    ]
    ncu = tool("ncu", ("bin",))
    # The launch after the warm-up's first: the one before is the comparison's.
    steps.append(Step(
        "ncu", "ncu", [ncu, "--clock-control", "none", "--set", "full", "--kernel-name", "regex:^df11_decode$", "--launch-skip",
                       "2", "--launch-count", "1", bin_ / "bench", "--millions", first, "--repeats", "1", "--only", "decode"],
        30, 90, None if ncu else "ncu, of Nsight Compute"))
    for library in filter(None, libraries()):
        steps.append(Step("sweep", f"benchmark, {library}", [*bench, *few], 12, 60, library=library))
    steps += [
        Step("torch", "PyTorch", [sys.executable, HERE / "torch_check.py", HERE / "lib" / "libdf11.so", *golden], 20, 60,
             None if findable("torch") else "PyTorch"),
        Step("check", "check", [check, "--large", options.large, *golden], 30, 120),
        Step("eager", "check, eager loading", [check, "--quick", golden[0]], 5, 30,
             environment={"CUDA_MODULE_LOADING": "EAGER"}),
        # A program of its own, because what it looks for is a driver that waits forever.
        Step("capture", "check, beside a capture", [check, "--quick", "--capture", golden[0]], 5, 30),
        Step("parts", "check, parts of the device", [check, "--quick", "--parts", golden[0]], 5, 30),
        Step("check-ptx", "check, PTX", [check, "--ptx", *golden], 10, 60),
    ]
    for peer, needs in (("nvCOMP", ("cupy", "nvidia.nvcomp")), ("NWC", ("torch", "nwc")),
                        ("SplitZip", ("torch", "triton", "codec_gpu"))):
        command = [sys.executable, HERE / "peers.py", peer, int(float(options.peer_millions) * 1e6)]
        steps.append(Step("peers", peer, command, 20, 60, lacking("numpy", *needs)))
    sanitizer = tool("compute-sanitizer", ("bin", "compute-sanitizer"))
    for name in TOOLS:
        # A tool's own finding and a failed check both end with a status other than 0.
        steps.append(Step(
            "sanitize", f"compute-sanitizer, {name}",
            [sanitizer, "--tool", name, "--error-exitcode", "9", check, "--quick", *golden], 30, 90,
            None if sanitizer else "compute-sanitizer"))
    for model in golden:
        steps.append(Step("offload", f"offload, {model.parent.name}", [bin_ / "offload", model], 4, 20))
    keys = options.only.split(",") if options.only else [step.key for step in steps]
    unknown = set(keys) - {step.key for step in steps} - {"sweep"}
    if unknown:
        sys.exit(f"--only: there is no {', '.join(sorted(unknown))}")

    def alone(figures):
        """The sizes that another's kernel has kept the benchmark from, without it; None if there are none."""
        done = {figure["weights"] for figure in figures if figure["what"] in ("host time, batch", "left out")}
        rest = [size for size in options.millions.split(",") if int(float(size) * 1e6) not in done]
        if not kernels or not rest:
            return None
        return Step("bench", "benchmark, ours alone", [*bench, "--millions", ",".join(rest)], 30, 120)

    return [step for step in steps if step.key in keys], alone, absent


def table(figures):
    """A line for each step and size: GB/s of bf16, with the ratios that matter; then what others reach."""
    cases = {}
    for figure in figures:
        if "weights" in figure:
            cases.setdefault((figure["step"], figure["weights"]), {})[figure["what"]] = figure
    lines = []

    def show(value, form):
        width = int(form.split(".")[0])
        return format(value, form) if value is not None else "-".rjust(width)

    for (step, weights), found in cases.items():
        def of(what, key="gb_per_s"):
            return found.get(what, {}).get(key)

        if of("decode") is None and of("graph") is None:
            continue
        reference, host = of("reference"), of("host time, decode", "seconds")
        lines.append(
            f"{step:28} {weights:11d} {show(of('decode'), '10.1f')} {show(of('decode', 'of_copy'), '9.3f')}"
            f" {show(of('decode', 'of_ceiling'), '12.3f')} {show(of('graph'), '11.1f')}"
            f" {show(of('graph', 'of_ceiling'), '12.3f')} {show(reference, '15.1f')}"
            f" {show(of('decode') / reference if reference and of('decode') else None, '7.2f')}"
            f" {show(host * 1e6 if host is not None else None, '8.2f')}")
    if lines:
        lines.insert(0, "step                             weights     decode   of copy   of ceiling       graph   of ceiling"
                        "  reference GB/s   times  host us")
    for (step, weights), found in cases.items():
        times = [found.get(what, {}).get("seconds") for what in ("multiply", "whole", "chunks")]
        if all(times):
            plain, whole, chunks = (time_ * 1e6 for time_ in times)
            lines.append(f"{step}, products with {weights} weights: {plain:.1f} us from bf16, {whole:.1f} us from a whole,"
                         f" {chunks:.1f} us from chunks in the L2")
    own = ("benchmark",)
    others = [f for f in figures if not f["step"].startswith((*own, "products")) or f["what"] == "vllm-df11"]
    lines += [f"{f['what']}, {f.get('weights', 0)} weights: {f['gb_per_s']:.1f} GB/s" for f in others if "gb_per_s" in f]
    return lines


def products(figures):
    """A line for each matrix and batch: PyTorch's product, the same after decoding, the fused one, and how many times as fast as
    PyTorch's that is. Whether the fused one is good enough is decided by these, see README.md."""
    seconds = {figure["what"]: figure["seconds"] for figure in figures
               if figure["step"].startswith("products") and "seconds" in figure}
    lines = []
    for what, fused in seconds.items():
        found = re.match(r"fused (\d+ x \d+), batch (\d+)$", what)
        if not found:
            continue
        shape, batch = found.groups()
        plain, decode = seconds.get(f"cuBLAS {shape}, batch {batch}"), seconds.get(f"decode {shape}")
        line = f"{shape:>15}, batch {batch}: fused {fused * 1e6:9.1f} us"
        if plain is not None and decode is not None:
            line += f", cuBLAS {plain * 1e6:9.1f} us, decoded first {(decode + plain) * 1e6:9.1f} us, {plain / fused:6.2f} times cuBLAS"
        lines.append(line)
    return lines


def summary(report):
    for line in table(report.data["figures"]) + products(report.data["figures"]):
        report.say(line)
    for kernel in report.data["kernels"]:
        if kernel["step"] in ("benchmark", "benchmark, PTX"):
            report.say(", ".join(f"{name} {value}" for name, value in kernel.items()))
    report.say()
    steps = report.data["steps"]
    for step in steps:
        report.say(f"{step['step']:32s} {step['result']}" + (f", {step['reason']}" if "reason" in step else ""))
    counts = {name: sum(step["result"] == name for step in steps) for name in ("passed", "failed", "skipped", "left out")}
    report.say(", ".join(f"{count} {name}" for name, count in counts.items()))
    report.data["complete"] = True
    report.write()
    report.text.close()
    return 1 if counts["failed"] or not counts["passed"] else 0


def run_all(machine, report, budget, steps, alone=lambda figures: None, absent=()):
    """Runs the steps; returns the status of the whole."""
    run = Run(machine, report, budget)
    try:
        run.clocks("before")
        for what in absent:
            report.say(f"== takes no part, missing: {what}")
        report.data["absent"] = list(absent)
        for step in steps:
            result = run.step(step)
            if step.name == "benchmark":
                run.clocks("after the benchmark")
                again = alone(report.data["figures"]) if result == "failed" else None
                if again is not None:
                    run.step(again)
        run.clocks("after everything")
    except KeyboardInterrupt:
        report.say("== this program was ended")
        summary(report)
        return 1
    return summary(report)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all of it")
    parser.add_argument("--only", help="keys of steps, separated by commas")
    parser.add_argument("--models", help="names of bundled models, separated by commas")
    parser.add_argument("--millions", default="128,8,512", help="millions of weights, the most important size first")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--products", default="4096x4096,4096x14336,14336x4096,151936x4096",
                        help="rows and columns of the matrices that are multiplied, rows a multiple of 4")
    parser.add_argument("--large", type=int, default=150_000_000, help="weights of the check's made group")
    parser.add_argument("--peer-millions", default="128", help="millions of weights that other programs decode")
    parser.add_argument("--reference", type=pathlib.Path, default=package_file("dfloat11", "decode.ptx"))
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME=FILE",
                        help="another kernel `decode` with the reference's parameters")
    options = parser.parse_args()

    def on_term(_number, _frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_term)
    sys.stdout.reconfigure(errors="replace")  # whatever tools print, on a terminal that knows ASCII alone
    with tempfile.TemporaryDirectory() as scratch:
        steps, alone, absent = plan(options, pathlib.Path(scratch))
        report = Report(options.out)
        report.data["libraries"] = libraries()
        return run_all(Machine(), report, options.budget, steps, alone, absent)


if __name__ == "__main__":
    sys.exit(main())
