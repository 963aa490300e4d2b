#!/usr/bin/env bash
# Runs the fuzzers, two at a time, and fails where one finds something.
#
#     tests/fuzz/run.sh [SECONDS] [TARGET...]      60 seconds and every target, unless said otherwise
#     tests/fuzz/run.sh --keep                     makes tests/fuzz/corpus of what the runs have gathered
#
# libFuzzer comes with the crate libfuzzer-sys and is compiled by the C++ compiler at hand. The compiler's switches for
# coverage and AddressSanitizer are part of every Rust toolchain, but not stable yet, hence RUSTC_BOOTSTRAP: no nightly
# toolchain is needed. What a fuzzer finds is written to target/fuzz/found/TARGET: keep it, once mended, in
# tests/fuzz/regressions/TARGET. New inputs gather in target/fuzz/corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")/../.."
keep=0 seconds=60
case ${1:-} in
    --keep) keep=1 ;;
    *) seconds=${1:-60} ;;
esac
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(open_file open_folder config group encode image matrix)

host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/fuzz
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks --cfg fuzzing"
cargo build --locked --profile fuzz --target "$host" -p df11-fuzz --features fuzzer --bins
bin=target/fuzz/$host/fuzz

# Inputs to begin with, beside the kept corpus: what tests/data has.
seeds=target/fuzz/seeds
mkdir -p "$seeds"/{open_file,open_folder,config,group,encode,image,matrix}
cp tests/data/hostile/*.safetensors tests/data/golden/tiny/model/*.safetensors "$seeds/open_file/"
for file in tests/data/extension/model/*.safetensors; do # named as those of other models are
    cp "$file" "$seeds/open_file/extension-$(basename "$file")"
done
for config in tests/data/golden/*/model/config.json; do
    cp "$config" "$seeds/config/$(basename "$(dirname "$(dirname "$config")")").json"
done
python3 - "$seeds/open_folder" tests/data/golden/tiny/model tests/data/extension/model tests/data/hostile/*/ <<'PYTHON'
import pathlib, struct, sys
names = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
         "model.safetensors.index.json", "lm_head.safetensors", "notes.txt", "model.safetensors.part"]
for folder in map(pathlib.Path, sys.argv[2:]):
    parts = []
    for i, path in enumerate(sorted(folder.iterdir())):
        name = names.index(path.name) if path.name in names else 2 + i % 2
        content = path.read_bytes()[:65535]
        parts.append(struct.pack("<BH", name, len(content)) + content)
    pathlib.Path(sys.argv[1], folder.name).write_bytes(b"".join(parts))
PYTHON

fuzz() {
    local target=$1 corpus=target/fuzz/corpus/$1 found=target/fuzz/found/$1
    mkdir -p "$corpus" "$found"
    [ ! -f "tests/fuzz/corpus/$target" ] || python3 tests/fuzz/pack.py unpack "tests/fuzz/corpus/$target" "$seeds/$target"
    local log=target/fuzz/$target.log status=0 length
    # A recipe is short, but says little before it is complete: long ones from the beginning. A file may grow.
    case $target in
        group | image | matrix) length=(-max_len=600 -len_control=0) ;;
        encode) length=(-max_len=8192 -len_control=0) ;;
        *) length=(-max_len=65536) ;;
    esac
    # A target that needs 20 seconds or 2 GB for one input is a find too.
    "$bin/$target" "$corpus" "$seeds/$target" -dict=tests/fuzz/df11.dict \
        -max_total_time="$seconds" "${length[@]}" -timeout=20 -rss_limit_mb=2048 -artifact_prefix="$found/" \
        -print_final_stats=1 >"$log" 2>&1 || status=$?
    local edges executions
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: ${executions:-0} executions, $edges edges, status $status"
    if [ "$status" != 0 ]; then
        tail -n 60 "$log"
        return 1
    fi
}

# An input of some kilobytes is as good as one of many: the corpus is in every clone.
keep() {
    local kept=target/fuzz/kept/$1
    rm -rf "$kept"
    mkdir -p "$kept" tests/fuzz/corpus
    [ ! -f "tests/fuzz/corpus/$1" ] || python3 tests/fuzz/pack.py unpack "tests/fuzz/corpus/$1" "target/fuzz/corpus/$1"
    "$bin/$1" -set_cover_merge=1 -max_len=3000 -timeout=20 "$kept" "target/fuzz/corpus/$1" >"target/fuzz/$1.log" 2>&1
    python3 tests/fuzz/pack.py pack "$kept" "tests/fuzz/corpus/$1"
}
if [ "$keep" = 1 ]; then
    for target in "${targets[@]}"; do keep "$target"; done
    exit
fi

failed=0 running=()
finish() { # waits for the eldest
    wait "${running[0]}" || failed=$((failed + 1))
    running=("${running[@]:1}")
}
for target in "${targets[@]}"; do
    [ ${#running[@]} -lt 2 ] || finish
    fuzz "$target" &
    running+=($!)
done
while [ ${#running[@]} -gt 0 ]; do finish; done
echo "$((${#targets[@]} - failed)) passed, $failed failed"
[ "$failed" = 0 ]
