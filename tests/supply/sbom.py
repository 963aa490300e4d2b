#!/usr/bin/env python3
"""Writes what is linked into libdf11 and its tool as a CycloneDX 1.5 bill of materials (JSON): every package with its
version, licence, checksum and the packages that it uses, and Rust's standard library. Nothing is built.

    sbom.py [--target TRIPLE] [--also NAME VERSION LICENCE]... [--out FILE]
    sbom.py --check FILE...      the fields that CycloneDX wants, and Cargo.lock's packages, in a file written before

The same sources, Cargo.lock and toolchain give the same bytes: the serial number follows from the content, and the date is
the last commit's, or SOURCE_DATE_EPOCH. Packages that only build (macros, tests) are left out, for they are not passed on.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FEATURES = "cli"


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(target):
    """(name, version) of the packages that `make build` and `make dist` link, by cargo's own resolver."""
    tree = run("cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--features", FEATURES, "--target", target,
               "--prefix", "none", "--format", "{p}")
    return {tuple(re.match(r"(\S+) v(\S+)", line).groups()) for line in tree.splitlines() if "(proc-macro)" not in line}


def commit_time():
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    commit = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True)
    return int(commit.stdout) if commit.returncode == 0 and commit.stdout.strip() else int((ROOT / "Cargo.toml").stat().st_mtime)


def bill(target, also):
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--locked", "--features", FEATURES,
                              "--filter-platform", target))
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    wanted = linked(target)
    packages = {p["id"]: p for p in metadata["packages"] if (p["name"], p["version"]) in wanted}
    purl = {at: f"pkg:cargo/{p['name']}@{p['version'].replace('+', '%2B')}" for at, p in packages.items()}

    def component(at, kind):
        p = packages[at]
        entry = {"type": kind, "bom-ref": purl[at], "name": p["name"], "version": p["version"]}
        if p["description"]:
            entry["description"] = " ".join(p["description"].split())
        checksum = checksums.get((p["name"], p["version"]))
        if checksum:
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        entry["licenses"] = [{"expression": p["license"].replace("/", " OR ")}]
        entry["purl"] = purl[at]
        if p["repository"]:
            entry["externalReferences"] = [{"type": "vcs", "url": p["repository"]}]
        return entry

    root = next(at for at, p in packages.items() if p["name"] == "libdf11")
    components = [component(at, "library") for at in sorted(packages, key=purl.get) if at != root]
    depends = {purl[at]: set() for at in packages}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in packages:
            for d in node["deps"]:
                if d["pkg"] in packages and any(k["kind"] is None for k in d["dep_kinds"]):
                    depends[purl[node["id"]]].add(purl[d["pkg"]])
    # What no package brings, and every binary has in it.
    rust = re.search(r"^release: (.*)$", run("rustc", "-vV"), re.M).group(1)
    for name, version, licence in [("rust-std", rust, "MIT OR Apache-2.0"), *also]:
        ref = f"pkg:generic/{name}@{version}"
        entry = {"type": "library", "bom-ref": ref, "name": name, "version": version}
        components.append({**entry, "licenses": [{"expression": licence}], "purl": ref})
        depends[ref] = set()
        depends[purl[root]].add(ref)

    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(commit_time(), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(root, "library"),
            "properties": [
                {"name": "cargo:target", "value": target},
                {"name": "cargo:features", "value": FEATURES},
            ],
        },
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": sorted(depends[ref])} for ref in sorted(depends)],
    }
    content = json.dumps(document, sort_keys=True)
    return {**document, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"}


def check(path):
    """What is wrong with a bill, a line each: CycloneDX's required fields, and that it names what is linked, no more."""
    document = json.loads(pathlib.Path(path).read_text())
    found = []

    def want(true, what):
        if not true:
            found.append(f"{path}: {what}")

    want(document.get("bomFormat") == "CycloneDX", "bomFormat is not CycloneDX")
    want(document.get("specVersion") == "1.5", "specVersion is not 1.5")
    want(isinstance(document.get("version"), int) and document.get("version", 0) >= 1, "version is not a number from 1 on")
    serial = r"urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"
    want(re.fullmatch(serial, document.get("serialNumber", "")), "serialNumber is no UUID")
    metadata = document.get("metadata", {})
    want(re.fullmatch(r"\d{4}(-\d\d){2}T(\d\d:){2}\d\dZ", metadata.get("timestamp", "")), "timestamp is none")
    root = metadata.get("component", {})
    want(root.get("name") == "libdf11", "metadata.component is not libdf11")
    components = document.get("components", [])
    for c in [root, *components]:
        want(c.get("type") == "library" and c.get("name") and c.get("version"), f"a component lacks type, name or version: {c}")
        want(all(e.get("expression") for e in c.get("licenses") or [{}]), f"{c.get('name')}: no licence")
        want(c.get("purl", "").startswith("pkg:"), f"{c.get('name')}: no package URL")
        for h in c.get("hashes", []):
            want(h.get("alg") == "SHA-256" and re.fullmatch("[0-9a-f]{64}", h.get("content", "")), f"{c.get('name')}: no hash")
    refs = [c.get("bom-ref") for c in [root, *components]]
    want(len(set(refs)) == len(refs), "a bom-ref is there twice")
    edges = {d.get("ref"): d.get("dependsOn", []) for d in document.get("dependencies", [])}
    want(set(edges) == set(refs), "dependencies are not those of the components")
    want(all(ref in refs for to in edges.values() for ref in to), "a dependency leads to no component")
    reached, todo = set(), [root.get("bom-ref")]
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo.extend(edges.get(ref, []))
    want(reached == set(refs), f"nothing uses {sorted(set(refs) - reached, key=str)}")

    target = next((p["value"] for p in metadata.get("properties", []) if p["name"] == "cargo:target"), None)
    want(target, "no property cargo:target")
    if target:
        cargo = {(c.get("name"), c.get("version"), tuple(h.get("content") for h in c.get("hashes", []))) for c in [root, *components]
                 if c.get("purl", "").startswith("pkg:cargo/")}
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
        sums = {(p["name"], p["version"]): (p["checksum"],) if "checksum" in p else () for p in lock["package"]}
        ours = {(*p, sums[p]) for p in linked(target)}
        for name, version, _ in sorted(ours ^ cargo, key=str):
            found.append(f"{path}: {name} {version} is linked, or listed, but not both by one checksum")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="a target triple; this machine's, unless said otherwise")
    parser.add_argument("--also", nargs=3, action="append", default=[], metavar=("NAME", "VERSION", "LICENCE"),
                        help="what a linker put in beside the packages")
    parser.add_argument("--out", help="a file; standard output, unless said otherwise")
    parser.add_argument("--check", nargs="+", metavar="FILE", help="check files written before")
    arguments = parser.parse_args()
    if arguments.check:
        found = [line for path in arguments.check for line in check(path)]
        print("\n".join(found) if found else f"{len(arguments.check)} passed, 0 failed")
        sys.exit(1 if found else 0)
    target = arguments.target or re.search(r"^host: (.*)$", run("rustc", "-vV"), re.M).group(1)
    text = json.dumps(bill(target, arguments.also), indent=2, ensure_ascii=False) + "\n"
    if arguments.out:
        pathlib.Path(arguments.out).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
