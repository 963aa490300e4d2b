#!/usr/bin/env python3
"""Holds every package that Cargo.lock names against deny.toml, by `cargo metadata` alone: licences, sources, doubles,
wildcards, checksums, and the Rust version that each one asks for. It needs no other tool and takes a second.

It is not cargo-deny: it takes a package's word for its licence, and knows of no advisories. `run.sh deny` has those.
With --self-test it breaks every rule once and wants to be told.
"""

import argparse
import copy
import json
import pathlib
import re
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def satisfied(expression, allowed):
    """Whether an SPDX expression can be met with the allowed licences alone. `A/B` is an old way to write `A OR B`."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def term():
        nonlocal at
        if at >= len(tokens) or tokens[at] in ("OR", "AND", "WITH", ")"):
            raise ValueError(f"no SPDX expression: {expression}")
        token = tokens[at]
        at += 1
        if token == "(":
            value = either()
            if at >= len(tokens) or tokens[at] != ")":
                raise ValueError(f"no SPDX expression: {expression}")
            at += 1
            return value
        if at + 1 < len(tokens) and tokens[at] == "WITH":
            token = f"{token} WITH {tokens[at + 1]}"
            at += 2
        return token in allowed

    def both():
        nonlocal at
        value = term()
        while at < len(tokens) and tokens[at] == "AND":
            at += 1
            value = term() and value
        return value

    def either():
        nonlocal at
        value = both()
        while at < len(tokens) and tokens[at] == "OR":
            at += 1
            value = both() or value
        return value

    value = either()
    if at != len(tokens):
        raise ValueError(f"no SPDX expression: {expression}")
    return value


def version(text):
    """The numbers of a version; build and pre-release tags do not count here."""
    return tuple(int(part) for part in re.split(r"[-+]", text)[0].split("."))


def covers(spec, package):
    """Whether `name@1.2` or `name` of deny.toml means this package: the numbers given are the first of its version."""
    name, _, wanted = spec.partition("@")
    return name == package["name"] and (not wanted or version(package["version"])[: wanted.count(".") + 1] == version(wanted))


def findings(packages, checksums, rules):
    """What is wrong, a line each."""
    found = []
    say = found.append
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    licences = rules["licenses"]
    exceptions = licences.get("exceptions", [])
    skips = rules["bans"].get("skip", [])
    ours = [p for p in packages if p["source"] is None]
    named = {p["name"]: p for p in ours}
    floor = version(named["libdf11"]["rust_version"])

    for p in packages:
        what = f"{p['name']} {p['version']}"
        if not p["license"]:
            say(f"{what}: it states no licence")
        else:
            extra = [licence for e in exceptions if covers(e["crate"], p) for licence in e["allow"]]
            try:
                if not satisfied(p["license"], {*licences["allow"], *extra}):
                    say(f"{what}: the licence {p['license']} is not allowed")
            except ValueError as error:
                say(f"{what}: {error}")
        if p["source"] is not None:
            if p["source"] not in registries:
                say(f"{what}: it comes from {p['source']}")
            elif not re.fullmatch("[0-9a-f]{64}", checksums.get((p["name"], p["version"])) or ""):
                say(f"{what}: Cargo.lock has no checksum for it")
        if p["rust_version"] and version(p["rust_version"]) > floor:
            say(f"{what}: it asks for Rust {p['rust_version']}, we promise {named['libdf11']['rust_version']}")
    for e in exceptions:
        if not any(covers(e["crate"], p) for p in packages):
            say(f"deny.toml: no package needs the exception for {e['crate']}")

    for p in ours:
        if p["rust_version"] != named["libdf11"]["rust_version"]:
            say(f"{p['name']}: it states Rust {p['rust_version']}, not {named['libdf11']['rust_version']}")
        for d in p["dependencies"]:
            by_path = d.get("path") and (p["publish"] == [] or d["kind"] == "dev")
            if d["req"] == "*" and not by_path:
                say(f"{p['name']}: any version of {d['name']} will do")

    by_name = {}
    for p in packages:
        by_name.setdefault(p["name"], []).append(p)
    for name, versions in sorted(by_name.items()):
        left = [p for p in versions if not any(covers(s["crate"], p) for s in skips)]
        if len(left) > 1:
            say(f"{name}: in versions {', '.join(p['version'] for p in left)}")
    for s in skips:
        if not any(covers(s["crate"], p) and len(by_name[p["name"]]) > 1 for p in packages):
            say(f"deny.toml: {s['crate']} is skipped, and there is no second version")
    return found


def self_test(packages, checksums, rules):
    """Each change below breaks one rule: the finding that must follow is beside it."""
    first = next(i for i, p in enumerate(packages) if p["source"] is not None and not p["name"].startswith("df11"))
    root = next(i for i, p in enumerate(packages) if p["name"] == "libdf11")
    member = next(i for i, p in enumerate(packages) if p["name"].startswith("df11-"))
    key = (packages[first]["name"], packages[first]["version"])

    def package(at, **fields):
        def change(packages, _checksums, _rules):
            packages[at].update(fields)
        return change

    def double(packages, checksums, _rules):
        packages.append({**packages[first], "version": "9999.0.0"})
        checksums[key[0], "9999.0.0"] = "0" * 64

    cases = [
        ("the licence GPL-3.0-only is not allowed", package(first, license="GPL-3.0-only")),
        ("the licence MIT AND GPL-3.0-only is not", package(first, license="MIT AND GPL-3.0-only")),
        ("the licence (MIT OR ISC) AND X is not", package(first, license="(MIT OR ISC) AND X")),
        ("the licence Apache-2.0 WITH X is not", package(first, license="Apache-2.0 WITH X")),
        ("no SPDX expression", package(first, license="MIT OR")),
        ("states no licence", package(first, license=None)),
        ("it comes from git+", package(first, source="git+https://example.org/x#0")),
        ("it asks for Rust 1.999", package(first, rust_version="1.999.0")),
        ("it states Rust None, not", package(member, rust_version=None)),
        ("has no checksum", lambda _p, checksums, _r: checksums.pop(key)),
        ("in versions", double),
        ("any version of x will do", package(root, dependencies=[{"name": "x", "req": "*", "kind": None}])),
        ("no package needs the exception", lambda _p, _c, r: r["licenses"]["exceptions"].append({"crate": "x", "allow": []})),
        ("there is no second version", lambda _p, _c, r: r["bans"]["skip"].append({"crate": "libdf11@0"})),
    ]
    failed = 0
    for wanted, change in cases:
        changed = copy.deepcopy((packages, checksums, rules))
        change(*changed)
        found = findings(*changed)
        if not any(wanted in line for line in found):
            print(f"FAILED  nothing says \"{wanted}\", only {found}")
            failed += 1
    for expression in ("MIT", "MIT/Apache-2.0", "X OR (MIT AND Zlib)", "X OR MIT", "(MIT OR X) AND (X OR ISC)"):
        if not satisfied(expression, {"MIT", "Zlib", "ISC"}):
            print(f"FAILED  {expression} is not satisfied")
            failed += 1
    print(f"{len(cases) + 5 - failed} passed, {failed} failed")
    return failed == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="test this program")
    arguments = parser.parse_args()
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE,
        ).stdout
    )
    rules = tomllib.loads((HERE / "deny.toml").read_text())
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    if arguments.self_test:
        sys.exit(0 if self_test(metadata["packages"], checksums, rules) else 1)
    found = findings(metadata["packages"], checksums, rules)
    for line in found:
        print(line)
    silent = sum(1 for p in metadata["packages"] if not p["rust_version"])
    print(f"{len(metadata['packages'])} packages, {len(found)} findings; {silent} packages do not say which Rust they need")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
