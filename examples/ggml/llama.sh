#!/usr/bin/env bash
# Prints the folder of llama.cpp's sources, which come from a crate that contains them: llama.sh VERSION CHECKSUM FOLDER
# cargo downloads, checks and unpacks the crate. Nothing of it is compiled or run. FOLDER is for files that tell cargo so.
set -euo pipefail
version=$1 sum=$2 folder=$3

mkdir -p "$folder/src"
touch "$folder/src/lib.rs"
cat >"$folder/Cargo.toml" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
publish = false
[dependencies]
llama-cpp-sys-2 = "=$version"
[workspace]
END
cargo fetch --quiet --manifest-path "$folder/Cargo.toml"
grep -q "^checksum = \"$sum\"" "$folder/Cargo.lock" || { echo "llama-cpp-sys-2 $version is not what it was" >&2; exit 2; }
cargo metadata --quiet --format-version 1 --offline --manifest-path "$folder/Cargo.toml" | python3 -c '
import json, os, sys
packages = {package["name"]: package for package in json.load(sys.stdin)["packages"]}
print(os.path.join(os.path.dirname(packages["llama-cpp-sys-2"]["manifest_path"]), "llama.cpp"))'
