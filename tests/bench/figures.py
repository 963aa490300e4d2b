#!/usr/bin/env python3
"""Writes the table of figures in README.md from the results that are kept in tests/bench/results.

    tests/bench/figures.py                  writes the table anew, between the two markers in README.md
    tests/bench/figures.py --check          exits with 1, and shows the difference, if README.md has another table
    tests/bench/figures.py --readme FILE    does either to another file

No figure is typed in by hand: each is a median of one of the runs named in RUNS, at the largest size of that run and on one
thread. To show a newer run, commit its .json and .txt and name it here. Standard library only.
"""

import argparse
import difflib
import json
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/bench/results"
# The runs that README shows, by what they measure.
RUNS = {
    "decode": "2026-11-30-amd-epyc-decode",
    "encode": "2026-11-21-amd-epyc-encode",
    "image": "2026-11-21-amd-epyc-image",
    "model": "2026-11-21-amd-epyc-model",
}
BEGIN = "<!-- figures: written by tests/bench/figures.py -->"
END = "<!-- end of the figures -->"
# A row of the table, and how the names of its contestants begin. Of several the fastest counts, in each run by itself.
ROWS = [
    ("memory copy", "memory copy"),
    ("**libdf11**", "df11 "),
    ("huf0", "huf0 "),
    ("zstd -1", "zstd -1 "),
    ("ZipNN", "ZipNN "),
    ("OpenZL", "OpenZL "),
]


def load(kind):
    """One run; it is of the benchmark that it stands for."""
    run = json.loads((RESULTS / f"{RUNS[kind]}.json").read_text())
    if run["benchmark"] != kind:
        sys.exit(f"{RUNS[kind]}.json is a run of '{run['benchmark']}', not of '{kind}'")
    return run


def largest(run):
    """The case with the most weights."""
    return max(run["cases"], key=lambda case: case["weights"])


def best(case, prefix):
    """The fastest contestant of that name on one thread and in ordinary pages, or None if the run had none."""
    one = [e for e in case["entries"] if e["threads"] == 1 and not e["name"].endswith(", huge pages")]
    entries = [e for e in one if e["name"].startswith(prefix)]
    return max(entries, key=gigabytes, default=None)


def gigabytes(entry):
    """Gigabytes of bf16 in a second of CPU time: what else the machine does then lengthens that least."""
    return 2 / entry["cpu_ns_per_weight"]


def speed(entry, bold):
    """Two cells: gigabytes in a second, and that as a share of the copy of the same run."""
    if entry is None:
        return ["–", "–"]
    cells = [f"{gigabytes(entry):.2f}", f"{entry.get('of_peer_cpu', entry.get('of_copy_cpu')):.2f}"]
    return [f"**{cell}**" for cell in cells] if bold else cells


def bits(entries):
    """Bits for each weight: those of the encoder where it was measured, else what the decoder read."""
    known = [e["bits_per_weight"] for e in entries if e and e["bits_per_weight"] is not None]
    return f"{known[0]:.2f}" if known else "16"


def machine(run):
    """The processor and the day."""
    cpu = re.sub(r"\((R|TM)\)", "", run["machine"]["cpu"])
    return f"{cpu}, {run['machine']['date']}"


def seconds(entry):
    """The median time of a whole run."""
    times = sorted(entry["wall_s"])
    return times[len(times) // 2]


def table():
    """The lines between the markers."""
    runs = {kind: load(kind) for kind in RUNS}
    decode, encode, image = (largest(runs[kind]) for kind in ("decode", "encode", "image"))
    if decode["weights"] != encode["weights"]:
        sys.exit("the runs of decode and encode are of different sizes")
    lines = [
        "| one thread | decode, GB/s | of a copy | encode, GB/s | of a copy | bits per weight |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, prefix in ROWS:
        entries = [best(case, prefix) for case in (decode, encode)]
        if entries == [None, None]:
            sys.exit(f"no run has a contestant '{prefix}'")
        cells = [name] + [c for e in entries for c in speed(e, "*" in name)] + [bits(reversed(entries))]
        lines.append(f"| {' | '.join(cells)} |")
    whole = max((e for e in runs["model"]["entries"] if e["name"] == "df11"), key=lambda e: e["threads"])
    written = best(image, "df11 ")
    fastest = [best(case, "df11 ")["name"].removeprefix("df11 ") for case in (decode, encode)]
    text = (
        f"GB are 10⁹ bytes of bf16 in a second of CPU time, medians over {decode['weights']:,} weights whose exponents spread as "
        f"a trained layer's do. Decode: {machine(runs['decode'])}, {fastest[0]}, beside the faster of two copies. Encode: "
        f"{machine(runs['encode'])}, {fastest[1]}. A dash: not in that run. {machine(runs['image'])}: one thread writes images "
        f"for a device at {gigabytes(written):.2f} GB/s, and a model of "
        f"{runs['model']['bytes'] / 1e9:.2f} GB is compressed and verified in {seconds(whole):.2f} s on {whole['threads']} "
        f"threads, {whole['times_cp']:.1f} times as long as `cp` takes, in {whole['peak_bytes'] / 1e6:.0f} MB of memory."
    )
    lines += ["", *textwrap.wrap(text, 120), "", "**GPU: correct on emulated hardware, not yet timed.**"]
    return lines


def replaced(text):
    """README with the table of today."""
    try:
        head, rest = text.split(BEGIN + "\n", 1)
        _, tail = rest.split(END, 1)
    except ValueError:
        sys.exit(f"the markers are missing: {BEGIN} and {END}")
    return f"{head}{BEGIN}\n" + "\n".join(table()) + f"\n{END}{tail}"


def main():
    parser = argparse.ArgumentParser(description="Writes the figures of README.md from the kept results.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the table is another")
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md", metavar="FILE")
    options = parser.parse_args()
    before = options.readme.read_text()
    after = replaced(before)
    if not options.check:
        options.readme.write_text(after)
    elif before != after:
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "README.md", "the results", lineterm="", n=0)
        print("\n".join(lines))
        sys.exit("README.md has other figures than tests/bench/results: run tests/bench/figures.py")


if __name__ == "__main__":
    main()
