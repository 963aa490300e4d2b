#!/usr/bin/env python3
"""Everything that needs a real GPU, in one command: correctness, the sanitizers, PyTorch, and the benchmark.

    python3 run.py [--out FOLDER] [--reference decode.ptx] [--only check,sanitize,torch,bench] [--millions 8,32,128,512]

It stands in the bundle that `make gpu-bundle` packs, beside bin/, lib/ and data/, and needs a driver; compute-sanitizer,
PyTorch, cupy and nvCOMP each take part where they are there, and are named as missing where not. The reference's kernel is
looked for in the installed Python package dfloat11, unless --reference names its decode.ptx.

Prints what each step printed and at last one table; writes FOLDER/gpu.json. Its status is 0 if nothing failed.
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
import time

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


def library():
    return HERE / "lib" / "libdf11.so"


def models():
    return sorted(path / "model" for path in (HERE / "data").iterdir() if (path / "model").is_dir())


def reference_ptx():
    spec = importlib.util.find_spec("dfloat11")
    if spec is None or spec.origin is None:
        return None
    path = pathlib.Path(spec.origin).parent / "decode.ptx"
    return path if path.exists() else None


def compute_sanitizer():
    found = shutil.which("compute-sanitizer")
    for folder in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        path = pathlib.Path(folder or "/nonexistent") / "bin" / "compute-sanitizer"
        if found is None and path.exists():
            found = str(path)
    return found


class Run:
    def __init__(self):
        self.steps = []

    def step(self, name, command, log, skip=None):
        """Runs a command; its output goes to the screen and to a file. Returns what it printed, None if it failed."""
        if skip is not None:
            print(f"== {name}: skipped, missing: {skip}", flush=True)
            self.steps.append({"step": name, "result": "skipped", "missing": skip})
            return None
        print(f"== {name}", flush=True)
        start = time.monotonic()
        environment = dict(os.environ, LD_LIBRARY_PATH=f"{HERE / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}")
        done = subprocess.run(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        log.write_text(done.stdout)
        print(done.stdout[-6000:], end="", flush=True)
        result = {0: "passed", 77: "skipped"}.get(done.returncode, "failed")
        self.steps.append({"step": name, "result": result, "status": done.returncode, "seconds": time.monotonic() - start})
        return done.stdout if result == "passed" else None

    def failed(self):
        return [step["step"] for step in self.steps if step["result"] == "failed"]


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
    parser.add_argument("--only", default="check,sanitize,torch,bench")
    parser.add_argument("--millions", default="8,32,128,512")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--large", type=int, default=150_000_000, help="weights of the check's made group")
    options = parser.parse_args()
    only = options.only.split(",")
    options.out.mkdir(parents=True, exist_ok=True)
    run, check, bench = Run(), HERE / "bin" / "check", HERE / "bin" / "bench"

    if "check" in only:
        run.step("check", [check, "--large", options.large, *models()], options.out / "check.log")
        run.step("check, PTX", [check, "--ptx", *models()], options.out / "check-ptx.log")
    if "sanitize" in only:
        sanitizer = compute_sanitizer()
        for tool in TOOLS:
            # A tool's own finding and a failed check both end with a status other than 0.
            run.step(
                f"compute-sanitizer, {tool}",
                [sanitizer, "--tool", tool, "--error-exitcode", "9", check, "--quick", *models()],
                options.out / f"{tool}.log", None if sanitizer else "compute-sanitizer")
    if "torch" in only:
        missing = None if importlib.util.find_spec("torch") else "PyTorch"
        run.step("PyTorch", [sys.executable, HERE / "torch_check.py", library(), *models()], options.out / "torch.log", missing)
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
                    options.out / "nvcomp.log", ", ".join(missing) or None)
                if said is not None:
                    results["results"].append(json.loads(said.strip().splitlines()[-1]))
    report = {
        "date": datetime.date.today().isoformat(), "machine": platform.machine(), "steps": run.steps, "benchmark": results,
    }
    (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    if results:
        table(results["results"])
    print()
    for step in run.steps:
        print(f"{step['step']:32s} {step['result']}" + (f", missing: {step['missing']}" if "missing" in step else ""))
    counts = {name: sum(step["result"] == name for step in run.steps) for name in ("passed", "failed", "skipped")}
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


def findable(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
