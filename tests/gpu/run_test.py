#!/usr/bin/env python3
"""Tests run.py's order, limits, budget and files: on a machine whose clock and processes are made up, so that eight minutes take
milliseconds, and, where processes themselves are in question, on real ones. `cargo test --test bindings the_budget` runs it."""
import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
import run  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ["quick check", "benchmark", "benchmark, PTX", "products", "products, PyTorch", "ncu", "benchmark, k1",
         "benchmark, w8", "PyTorch", "check", "check, eager loading", "check, beside a capture", "check, parts of the device", "check, PTX",
         "nvCOMP", "NWC", "SplitZip",
         "compute-sanitizer, memcheck", "compute-sanitizer, racecheck", "compute-sanitizer, initcheck",
         "compute-sanitizer, synccheck", "offload, tiny"]
SIZE = '{"weights": %d, "what": "%s", "seconds": 0.001, "gb_per_s": 2.0}'


class FakeMachine:
    """Steps take the seconds that `acts` says, print its lines, and end with its status; any other takes ten and passes."""

    def __init__(self, out, acts):
        self.clock, self.out, self.acts = 1000.0, out, acts
        self.started, self.seen = [], []

    def now(self):
        return self.clock

    def run(self, command, environment, limit, on_line):
        name = command[0]
        seconds, lines, status = self.acts.get(name, (10, [], 0))
        self.started.append((name, environment))
        for line in lines:
            on_line(line + "\n")
            # Whatever happens next, the files hold what was printed so far.
            self.seen.append((sorted(os.listdir(self.out)), json.loads((self.out / "gpu.json").read_text())))
        self.clock += min(seconds, limit)
        return status if seconds <= limit else None


class WithFakes(unittest.TestCase):
    """Tests whose steps run on a made-up machine."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = pathlib.Path(self.folder.name) / "out"
        # No tool of this machine takes part: nvidia-smi would be started by the fake as one more command.
        self.path, run.shutil.which = run.shutil.which, lambda name: None
        self.addCleanup(setattr, run.shutil, "which", self.path)

    def go(self, steps, acts, budget=480, alone=lambda figures: None):
        self.machine = FakeMachine(self.out, acts)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = run.run_all(self.machine, run.Report(self.out), budget, steps, alone)
        self.said = said.getvalue()
        self.data = json.loads((self.out / "gpu.json").read_text())
        self.results = {step["step"]: step["result"] for step in self.data["steps"]}
        self.reasons = {step["step"]: step.get("reason") for step in self.data["steps"]}
        self.assertEqual(sorted(os.listdir(self.out)), ["gpu.json", "report.txt"])
        self.assertEqual((self.out / "report.txt").read_text(), self.said)
        self.assertTrue(self.data["complete"])
        # Every step is accounted for, by name, in both files.
        for step in steps:
            self.assertIn(step.name, self.results)
            self.assertRegex(self.said, f"(?m)^{step.name} +{self.results[step.name]}")
        return status


class Products(unittest.TestCase):
    """The table of products, from figures as the benchmark and PyTorch print them."""

    def test_each_matrix_and_batch_has_its_ratio(self):
        def figure(step, what, seconds):
            return {"step": step, "what": what, "seconds": seconds, "weights": 1}

        lines = run.products([
            figure("products", "fused 4096 x 14336, batch 1", 20e-6), figure("products", "decode 4096 x 14336", 80e-6),
            figure("products", "fused 4096 x 14336, batch 8", 40e-6), figure("benchmark", "decode", 1.0),
            figure("products, PyTorch", "cuBLAS 4096 x 14336, batch 1", 30e-6),
            figure("products, PyTorch", "NWC 4096 x 14336, batch 1", 25e-6),
        ])
        self.assertEqual(lines, [
            "   4096 x 14336, batch 1: fused      20.0 us, cuBLAS      30.0 us, decoded first     110.0 us,   1.50 times cuBLAS",
            "   4096 x 14336, batch 8: fused      40.0 us",
        ])
        self.assertEqual(run.products([]), [])


class Scheduled(WithFakes):
    def test_all_pass(self):
        steps = [run.Step(name, name, [name], 20, 60) for name in "abc"]
        self.assertEqual(self.go(steps, {"b": (30, ["12 passed, 0 failed"], 0)}), 0)
        self.assertEqual([name for name, _ in self.machine.started], ["a", "b", "c"])
        self.assertEqual(self.data["steps"][1]["checks"], {"passed": 12, "failed": 0})
        self.assertEqual(self.data["seconds"], 50)
        self.assertIn("3 passed, 0 failed, 0 skipped, 0 left out", self.said)

    def test_a_step_that_hangs_is_ended_at_its_limit(self):
        steps = [run.Step(name, name, [name], 20, 60) for name in "abc"]
        self.assertEqual(self.go(steps, {"b": (10**9, [SIZE % (7, "decode")], 0)}), 1)
        self.assertEqual(self.results, {"a": "passed", "b": "failed", "c": "passed"})
        self.assertEqual(self.reasons["b"], "ended after 60 seconds")
        self.assertEqual([figure["what"] for figure in self.data["figures"]], ["decode"])
        self.assertEqual(self.data["seconds"], 80)

    def test_a_step_that_fails_costs_no_other(self):
        steps = [run.Step(name, name, [name], 20, 60) for name in "abc"]
        self.assertEqual(self.go(steps, {"a": (3, [SIZE % (7, "decode"), "boom"], -11)}), 1)
        self.assertEqual(self.results, {"a": "failed", "b": "passed", "c": "passed"})
        self.assertEqual((self.reasons["a"], len(self.data["figures"])), ("status -11", 1))

    def test_a_command_that_cannot_be_started_has_failed(self):
        steps = [run.Step("a", "a", ["/nonexistent/program"], 1, 2), run.Step("b", "b", ["true"], 1, 2)]
        with contextlib.redirect_stdout(io.StringIO()):
            run.run_all(run.Machine(), run.Report(self.out), 60, steps)
        results = json.loads((self.out / "gpu.json").read_text())["steps"]
        self.assertEqual([step["result"] for step in results], ["failed", "passed"])

    def test_nothing_is_started_that_the_budget_has_no_room_for(self):
        steps = [run.Step("a", "a", ["a"], 20, 90), run.Step("b", "b", ["b"], 40, 90), run.Step("c", "c", ["c"], 5, 90)]
        self.assertEqual(self.go(steps, {"a": (60, [], 0), "c": (10, [], 0)}, budget=100), 0)
        self.assertEqual(self.results, {"a": "passed", "b": "left out", "c": "passed"})
        self.assertEqual(self.reasons["b"], "32 seconds of the budget were left, it takes about 40")
        self.assertIn("2 passed, 0 failed, 0 skipped, 1 left out", self.said)

    def test_the_budget_ends_a_step_before_its_limit(self):
        steps = [run.Step("a", "a", ["a"], 20, 90), run.Step("b", "b", ["b"], 20, 90), run.Step("c", "c", ["c"], 1, 9)]
        self.assertEqual(self.go(steps, {"a": (60, [], 0), "b": (80, [SIZE % (7, "decode")], 0)}, budget=100), 0)
        self.assertEqual(self.results, {"a": "passed", "b": "left out", "c": "left out"})
        self.assertEqual(self.reasons["b"], "ended after 32 seconds, because the budget is over")
        self.assertEqual(len(self.data["figures"]), 1)
        self.assertLessEqual(self.machine.clock - 1000, 100 - run.KEPT)

    def test_all_steps_hang_and_the_budget_holds(self):
        steps = [run.Step(str(i), f"step {i}", [i], 20, 90) for i in range(18)]
        acts = {i: (10**9, [], 0) for i in range(18)}
        self.assertEqual(self.go(steps, acts), 1)
        self.assertLessEqual(self.machine.clock - 1000, 480 - run.KEPT)
        self.assertEqual(list(self.results.values()).count("failed"), 5)

    def test_no_step_and_no_success(self):
        self.assertEqual(self.go([run.Step("a", "a", ["a"], 20, 60, missing="PyTorch")], {}), 1)
        self.assertEqual((self.results, self.reasons["a"]), ({"a": "skipped"}, "missing: PyTorch"))
        self.assertEqual(self.machine.started, [])

    def test_a_step_may_say_what_is_missing(self):
        steps = [run.Step("check", "check", ["c"], 2, 6), run.Step("ncu", "ncu", ["n"], 2, 6), run.Step("x", "x", ["x"], 2, 6)]
        refused = ["==ERROR== ERR_NVGPUCTRPERM - The user does not have permission"]
        self.go(steps, {"c": (1, ["missing: a CUDA driver (libcuda.so.1)"], 77), "n": (1, refused, 1), "x": (1, refused, 1)})
        self.assertEqual(self.results, {"check": "skipped", "ncu": "skipped", "x": "failed"})
        self.assertEqual(self.reasons["check"], "missing: a CUDA driver (libcuda.so.1)")
        self.assertIn("performance counters", self.reasons["ncu"])

    def test_every_figure_is_in_the_file_as_soon_as_it_is_known(self):
        log = ["df11_decode: 78 registers, 0 local bytes, shared memory carve-out -1",
               "df11_decode, tables up to 32768 bytes: 12 warps and 91136 shared bytes a block, 2 blocks a multiprocessor, "
               "132 multiprocessors", "loaded the kernels sm_90"]
        lines = ['{"what": "device", "device": "A \\"GPU\\""}'] + [json.dumps({"what": "log", "text": text}) for text in log]
        lines += [SIZE % (8, "copy"), "text {", "{no JSON", SIZE % (8, "decode")]
        self.go([run.Step("bench", "benchmark", ["b"], 20, 60)], {"b": (30, lines, 0)})
        for files, data in self.machine.seen:
            self.assertEqual((files, data["complete"]), (["gpu.json", "report.txt"], False))
        self.assertEqual([len(data["figures"]) for _, data in self.machine.seen], [0, 0, 0, 0, 1, 1, 1, 2])
        self.assertEqual(self.data["device"], {"benchmark": {"device": 'A "GPU"'}})
        self.assertEqual(self.data["kernels"], [
            {"step": "benchmark", "function": "df11_decode", "registers": 78, "local_bytes": 0, "carveout": -1},
            {"step": "benchmark", "function": "df11_decode", "table_bytes": 32768, "warps": 12, "shared_bytes": 91136,
             "blocks_a_multiprocessor": 2, "multiprocessors": 132}])
        self.assertIn("{no JSON", self.said)
        self.assertNotIn('"gb_per_s"', self.said)

    def test_the_table(self):
        figures = [json.loads(SIZE % (8, what)) for what in ("copy", "decode", "reference")]
        figures[1].update(gb_per_s=30.0, of_copy=0.75, of_ceiling=0.9)
        figures[2].update(gb_per_s=10.0)
        figures = [dict(figure, step="benchmark") for figure in figures]
        for what, seconds in (("multiply", 1e-6), ("whole", 3e-6), ("chunks", 2e-6)):
            figures.append({"step": "benchmark", "weights": 8, "what": what, "seconds": seconds, "gb_per_s": 1.0})
        figures.append({"step": "NWC", "weights": 8, "what": "NWC, decoding", "seconds": 1, "gb_per_s": 5.0})
        lines = run.table(figures)
        self.assertEqual(lines[1].split(), "benchmark 8 30.0 0.750 0.900 - - 10.0 3.00 -".split())
        self.assertEqual(lines[2], "benchmark, products with 8 weights: 1.0 us from bf16, 3.0 us from a whole, 2.0 us from"
                                   " chunks in the L2")
        self.assertEqual(lines[3:], ["NWC, decoding, 8 weights: 5.0 GB/s"])


class Planned(WithFakes):
    """The steps of a bundle, which is a folder of empty files here."""

    def setUp(self):
        super().setUp()
        self.bundle = pathlib.Path(self.folder.name) / "bundle"
        for name in ("lib/libdf11.so", "lib/w8/libdf11.so", "lib/k1/libdf11.so", "data/tiny/model/x"):
            (self.bundle / name).parent.mkdir(parents=True, exist_ok=True)
            (self.bundle / name).write_bytes(b"")
        here, findable, tool = run.HERE, run.findable, run.tool
        self.addCleanup(lambda: (setattr(run, "HERE", here), setattr(run, "findable", findable), setattr(run, "tool", tool)))
        run.HERE = self.bundle
        run.findable = lambda name: True
        run.tool = lambda name, folders: f"/tools/{name}"

    def plan(self, *arguments, package_file=lambda package, pattern: None):
        before, run.package_file = run.package_file, package_file
        argv, sys.argv = sys.argv, ["run.py", *arguments]

        def run_all(machine, report, budget, steps, alone, absent):
            report.text.close()
            return steps, alone, absent, budget

        main, run.run_all = run.run_all, run_all
        try:
            return run.main()
        finally:
            run.run_all, sys.argv, run.package_file = main, argv, before

    def test_order_and_budget(self):
        steps, _, absent, budget = self.plan("--out", str(self.out))
        self.assertEqual(([step.name for step in steps], budget), (NAMES, 480))
        self.assertEqual(len(absent), 2)
        # If nothing hangs, all of it fits.
        self.assertLess(sum(step.expected for step in steps), 480 - run.KEPT)
        for step in steps:
            self.assertLessEqual(step.expected, step.limit)

    def test_each_build_has_its_library(self):
        steps = self.plan("--out", str(self.out), "--only", "sweep,check")[0]
        for step in steps:
            step.command[0] = step.name
        self.go(steps, {})
        folders = [environment["LD_LIBRARY_PATH"].split(":")[0] for _, environment in self.machine.started]
        self.assertEqual(folders, [str(self.bundle / "lib" / name) for name in ("k1", "w8", "")])

    def test_what_is_missing_is_named(self):
        run.findable, run.tool = lambda name: False, lambda name, folders: None
        steps = self.plan("--out", str(self.out))[0]
        missing = {step.name: step.missing for step in steps if step.missing}
        self.assertEqual(missing["NWC"], "numpy, torch, nwc")
        self.assertEqual(missing["SplitZip"], "numpy, torch, triton, codec_gpu")
        self.assertEqual(missing["nvCOMP"], "numpy, cupy, nvidia.nvcomp")
        self.assertEqual(missing["products, PyTorch"], "PyTorch")
        self.assertEqual(len(missing), 10)

    def test_the_kernels_of_others_take_part_where_they_are(self):
        library = pathlib.Path(self.folder.name) / "dfloat11_decode_v2.so"
        library.write_bytes(fat(b"\0.text.decode\0"))
        steps, alone, absent, _ = self.plan(
            "--out", str(self.out), "--reference", "decode.ptx", "--kernel", "other=other.ptx",
            package_file=lambda package, pattern: library if package == "vllm_df11" else None)
        command = list(map(str, steps[1].command))
        self.assertEqual(absent, [])
        self.assertEqual([command[i + 1] for i, word in enumerate(command) if word == "--reference"], ["decode.ptx"])
        kernels = [command[i + 1].split("=")[0] for i, word in enumerate(command) if word == "--kernel"]
        self.assertEqual(kernels, ["other", "vllm-df11"])
        # One that ends the benchmark costs the sizes after it no figure of ours.
        self.assertEqual(steps[1].name, "benchmark")
        again = alone([json.loads(SIZE % (128_000_000, "host time, batch")), json.loads(SIZE % (8_000_000, "decode"))])
        self.assertEqual(again.name, "benchmark, ours alone")
        words = list(map(str, again.command))
        self.assertEqual((words[-1], "--reference" in words, "--kernel" in words), ("8,512", False, False))
        self.assertIsNone(alone([json.loads(SIZE % (size * 1_000_000, "host time, batch")) for size in (8, 128, 512)]))

    def test_a_crash_of_the_benchmark_is_followed_by_ours_alone(self):
        steps = [run.Step("bench", "benchmark", ["b"], 20, 60), run.Step("x", "x", ["x"], 2, 6)]
        again = run.Step("bench", "benchmark, ours alone", ["again"], 20, 60)
        self.go(steps, {"b": (5, [], 1)}, alone=lambda figures: again)
        self.assertEqual([name for name, _ in self.machine.started], ["b", "again", "x"])
        self.go(steps, {}, alone=lambda figures: again)
        self.assertEqual([name for name, _ in self.machine.started], ["b", "x"])


def fat(contents):
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(contents)) + contents


class FatBinaries(unittest.TestCase):
    def test_the_one_with_the_function_is_found(self):
        one, two = fat(b"elf\0.text.other\0"), fat(b"elf\0.text.decode\0end")
        self.assertEqual(run.fat_binary(b"head" + one + b"pad" + two + b"tail", "decode"), two)
        self.assertIsNone(run.fat_binary(one, "decode"))
        self.assertIsNone(run.fat_binary(two[:-1], "decode"))
        self.assertIsNone(run.fat_binary(b"", "decode"))


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class RealProcesses(unittest.TestCase):
    def setUp(self):
        self.lines = []
        grace, run.GRACE = run.GRACE, 0.3
        self.addCleanup(setattr, run, "GRACE", grace)

    def shell(self, script, limit):
        start = time.monotonic()
        on_line = lambda line: self.lines.append(line.strip())
        status = run.Machine().run(["bash", "-c", script], {"WORD": "here"}, limit, on_line)
        self.seconds = time.monotonic() - start
        return status

    def none_left(self):
        until = time.monotonic() + 5
        while any(alive(int(line)) for line in self.lines if line.isdigit()):
            self.assertLess(time.monotonic(), until, f"processes {self.lines} are left")
            time.sleep(0.02)

    def test_status_output_and_environment(self):
        self.assertEqual(self.shell("echo $WORD; echo error >&2; printf '\\xb5\\n\\xc2\\xb5s\\n'; exit 3", 20), 3)
        self.assertEqual(self.lines, ["here", "error", "\ufffd", "\u00b5s"])

    def test_a_group_that_ignores_signals_is_ended(self):
        script = "trap '' TERM; (trap '' TERM; echo $BASHPID; while :; do sleep 0.1; done) & echo $$; while :; do sleep 0.1; done"
        self.assertIsNone(self.shell(script, 0.5))
        self.assertLess(self.seconds, 10)
        self.assertEqual(len(self.lines), 2)
        self.none_left()

    def test_one_that_closes_its_output_and_hangs_is_ended(self):
        self.assertIsNone(self.shell("echo $$; exec >&- 2>&-; sleep 1000", 0.5))
        self.none_left()

    def test_a_process_left_behind_keeps_nobody_waiting(self):
        self.assertEqual(self.shell("sleep 1000 & echo $!", 30), 0)
        self.assertLess(self.seconds, 10)
        self.none_left()

    def test_when_it_is_ended_itself_the_files_are_complete(self):
        with tempfile.TemporaryDirectory() as folder:
            bundle, out = pathlib.Path(folder) / "bundle", pathlib.Path(folder) / "out"
            for name in ("lib/libdf11.so", "data/tiny/model/x", "bin/check", "bin/bench"):
                (bundle / name).parent.mkdir(parents=True, exist_ok=True)
                (bundle / name).write_bytes(b"")
            shutil.copy(HERE / "run.py", bundle)
            (bundle / "bin/check").write_text("#!/bin/bash\necho 12 µs\necho 3 passed, 0 failed\n", encoding="utf-8")
            figure = '{"what": "decode", "weights": 8, "gb_per_s": 1.0}'
            (bundle / "bin/bench").write_text(f"#!/bin/bash\necho '{figure}'\necho process $$\nsleep 1000\n")
            for name in ("check", "bench"):
                (bundle / "bin" / name).chmod(0o755)
            # Nothing of this machine takes part.
            command = [sys.executable, "-s", bundle / "run.py", "--out", out, "--only", "quick,bench,check"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={
                "PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
            self.lines = [next(line.split()[1] for line in process.stdout if line.startswith("process "))]
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.stdout.close()
            self.assertEqual(process.wait(20), 1)
            self.none_left()
            data = json.loads((out / "gpu.json").read_text())
            results = [(step["step"], step["result"]) for step in data["steps"]]
            self.assertEqual(results, [("quick check", "passed"), ("benchmark", "failed")])
            self.assertEqual(list(data["libraries"]), [""])
            self.assertEqual(data["figures"], [dict({"step": "benchmark"}, **json.loads(figure))])
            said = (out / "report.txt").read_text(encoding="utf-8")
            self.assertIn("1 passed, 1 failed", said)
            self.assertIn("12 µs", said)
            self.assertEqual(sorted(os.listdir(out)), ["gpu.json", "report.txt"])


if __name__ == "__main__":
    unittest.main()
