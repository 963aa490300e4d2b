#!/usr/bin/env python3
"""Everything that needs a real GPU, in one command: correctness, the sanitizers, PyTorch, and the benchmark.

    python3 run.py [--out FOLDER] [--reference decode.ptx] [--only check,offload,sanitize,torch,bench] [--millions 8,32,128,512]
                   [--minutes N]

It is part of the bundle that `make gpu-bundle` packs, next to bin/, lib/ and data/, and needs a driver; compute-sanitizer,
PyTorch, cupy and nvCOMP each take part where they are there, and are named as missing where not. The reference's kernel is
looked for in the installed Python package dfloat11, unless --reference names its decode.ptx.

Prints what each step prints and at last one table; writes FOLDER/gpu.json. Its status is 0 if nothing failed and something
ran. A step that takes longer than --minutes (30) is ended and has failed.
"""
import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


def library():
    return HERE / "lib" / "libdf11.so"


def models():
    """Every bundled model."""
    if not library().exists() or not (HERE / "data").is_dir():
        sys.exit(f"{HERE} is not the bundle: `make gpu-bundle` packs it; run the run.py that is in it")
    return sorted(path / "model" for path in (HERE / "data").iterdir() if (path / "model").is_dir())


def reference_ptx():
    spec = importlib.util.find_spec("dfloat11")
    if spec is None or spec.origin is None:
        return None
    path = pathlib.Path(spec.origin).parent / "decode.ptx"
    return path if path.exists() else None


def compute_sanitizer():
    found = shutil.which("compute-sanitizer")
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    toolkits += sorted(map(str, pathlib.Path("/usr/local").glob("cuda-*")), reverse=True)
    for folder in filter(None, toolkits):
        for path in (pathlib.Path(folder) / "bin", pathlib.Path(folder) / "compute-sanitizer"):
            if found is None and os.access(path / "compute-sanitizer", os.X_OK):
                found = str(path / "compute-sanitizer")
    return found


class Run:
    def __init__(self, limit):
        self.limit = limit
        self.steps = []

    def skip(self, name, missing):
        print(f"== {name}: skipped, missing: {missing}", flush=True)
        self.steps.append({"step": name, "result": "skipped", "missing": missing})

    def step(self, name, command, log, missing=None):
        """Runs a command; its output goes to the screen and to a file. Returns what it printed, None if it failed."""
        if missing is not None:
            return self.skip(name, missing)
        print(f"== {name}", flush=True)
        start = time.monotonic()
        environment = dict(os.environ, PYTHONUNBUFFERED="1")
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, (str(HERE / "lib"), environment.get("LD_LIBRARY_PATH"))))
        lines = []
        with log.open("w") as file, subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=environment,
        ) as process:
            timer = threading.Timer(self.limit, process.kill)
            timer.start()
            try:
                for line in process.stdout:
                    lines.append(line)
                    file.write(line)
                    file.flush()
                    print(line, end="", flush=True)
                status = process.wait()
            finally:
                timer.cancel()
        seconds = time.monotonic() - start
        result = {0: "passed", 77: "skipped"}.get(status, "failed")
        step = {"step": name, "result": result, "status": status, "seconds": seconds}
        if result == "skipped":
            said = [line.strip().partition("missing: ")[2] for line in lines if line.startswith("missing: ")]
            step["missing"] = said[-1] if said else "see its log"
        if result == "failed":
            step["log"] = str(log)
            if seconds >= self.limit:
                step["log"] += f" (ended after {self.limit / 60:.0f} minutes)"
        self.steps.append(step)
        return "".join(lines) if result == "passed" else None


def table(results):
    """One line a size: GB/s of bf16, with the ratios that matter."""
    by_size = {}
    for result in results:
        by_size.setdefault(result["weights"], {})[result["what"]] = result
    print("\n     weights   decode GB/s  of copy   graph GB/s  of copy  reference GB/s   times   nvCOMP GB/s   host us")
    for weights, found in sorted(by_size.items()):
        def rate(what):
            return found[what]["gb_per_s"] if what in found else None

        def show(value, form):
            return format(value, form) if value is not None else "-"

        decode, graph, reference = rate("decode"), rate("graph"), rate("reference")
        host = found.get("host time, decode")
        print(
            f"{weights:12d} {show(decode, '13.1f')} {show(found.get('decode', {}).get('of_copy'), '8.3f')}"
            f" {show(graph, '12.1f')} {show(found.get('graph', {}).get('of_copy'), '8.3f')} {show(reference, '15.1f'):>15}"
            f" {show(decode / reference if decode and reference else None, '7.2f'):>7}"
            f" {show(rate('nvCOMP ANS, exponents only'), '13.1f'):>13}"
            f" {show(host['seconds'] * 1e6 if host else None, '9.2f'):>9}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out")
    parser.add_argument("--reference", type=pathlib.Path, default=reference_ptx())
    parser.add_argument("--only", default="check,offload,sanitize,torch,bench")
    parser.add_argument("--millions", default="8,32,128,512")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--large", type=int, default=150_000_000, help="weights of the check's made group")
    parser.add_argument("--minutes", type=float, default=30, help="a step that takes longer has failed")
    options = parser.parse_args()
    only = options.only.split(",")
    options.out.mkdir(parents=True, exist_ok=True)
    run, check, bench, golden = Run(60 * options.minutes), HERE / "bin" / "check", HERE / "bin" / "bench", models()

    if "check" in only:
        run.step("check", [check, "--large", options.large, *golden], options.out / "check.log")
        run.step("check, PTX", [check, "--ptx", *golden], options.out / "check-ptx.log")
    if "offload" in only:
        for model in golden:
            name = model.parent.name
            run.step(f"offload, {name}", [HERE / "bin" / "offload", model], options.out / f"offload-{name}.log")
    if "sanitize" in only:
        sanitizer = compute_sanitizer()
        for tool in TOOLS:
            # A tool's own finding and a failed check both end with a status other than 0.
            run.step(
                f"compute-sanitizer, {tool}",
                [sanitizer, "--tool", tool, "--error-exitcode", "9", check, "--quick", *golden],
                options.out / f"{tool}.log", None if sanitizer else "compute-sanitizer")
    if "torch" in only:
        missing = None if importlib.util.find_spec("torch") else "PyTorch"
        run.step("PyTorch", [sys.executable, HERE / "torch_check.py", library(), *golden], options.out / "torch.log", missing)
    results = []
    if "bench" in only:
        command = [bench, "--millions", options.millions, "--repeats", options.repeats, "--json", options.out / "bench.json"]
        if options.reference is not None:
            command += ["--reference", options.reference]
        else:
            print("== the reference's kernel takes no part, missing: decode.ptx of the Python package dfloat11")
        if run.step("benchmark", command, options.out / "bench.log") is not None:
            results = json.loads((options.out / "bench.json").read_text())
            for millions in options.millions.split(","):
                missing = [name for name in ("cupy", "nvidia.nvcomp") if not findable(name)]
                said = run.step(
                    f"nvCOMP, {millions} M", [sys.executable, HERE / "nvcomp_peer.py", int(float(millions) * 1e6)],
                    options.out / f"nvcomp-{millions}.log", ", ".join(missing) or None)
                if said is not None:
                    line = [line for line in said.splitlines() if line.startswith("{")][-1]
                    results["results"].append(json.loads(line))
    report = {
        "date": datetime.date.today().isoformat(), "machine": platform.machine(), "steps": run.steps, "benchmark": results,
    }
    (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    if results:
        table(results["results"])
    print()
    for step in run.steps:
        print(f"{step['step']:32s} {step['result']}" + (f", missing: {step['missing']}" if "missing" in step else "")
              + (f", see {step['log']}" if "log" in step else ""))
    counts = {name: sum(step["result"] == name for step in run.steps) for name in ("passed", "failed", "skipped")}
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


def findable(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
