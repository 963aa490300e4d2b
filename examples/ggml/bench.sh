#!/usr/bin/env bash
# Measures plain bf16, A, C and D of README.md on generated models of 0.9 and 2.4 GB, in interleaved rounds, with
# ggml built as llama.cpp's defaults build it. Prints a line for each: medians over the rounds. Needs `make test-ggml`
# to have run, for libdf11 in target/stage and llama.cpp's sources; 10 GB of memory and 8 GB in target/ggml/bench.
#
#     DF11_ROUNDS=3 DF11_BENCH_THREADS="1 2" examples/ggml/bench.sh
#
# On a busy machine, processor time says more than the clock, and OMP_WAIT_POLICY=passive keeps threads from spinning.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$PWD/target/ggml/bench build=$PWD/target/ggml/native
rounds=${DF11_ROUNDS:-3}
llama=$(sed -n 's/^LLAMA_CPP:PATH=//p' target/ggml/build/CMakeCache.txt)
mkdir -p "$work"
cmake -G Ninja -S examples/ggml -B "$build" -DLLAMA_CPP="$llama" -Ddf11_DIR="$PWD/target/stage/lib/cmake/df11" \
    -DCMAKE_BUILD_TYPE=Release -DGGML_CCACHE=OFF >"$work/configure.log"
ninja -C "$build" df11-gguf df11-llama greedy ggml-df11 >"$work/build.log"
cd "$work"
for size in small:--large:28 big:--larger:24; do
    IFS=: read -r name kind layers <<<"$size"
    [ -e "$name.gguf" ] && continue
    python3 "$OLDPWD/examples/ggml/make_model.py" "$name" "$name.head.gguf" "$kind" --layers "$layers"
    "$OLDPWD/target/stage/bin/df11" compress --quiet "$name" -o "$name-df11"
    "$build/plugin/df11-gguf" "$name.head.gguf" "$name" "$name.gguf" >/dev/null
done
: >results.txt
for name in small big; do
    for threads in ${DF11_BENCH_THREADS:-1 2}; do
        export DF11_EXAMPLE_THREADS=$threads
        for _ in $(seq "$rounds"); do
            run() { # CONTESTANT COMMAND...
                echo "$name $1 $("${@:2}" 2>/dev/null)" >>results.txt
            }
            run plain "$build/greedy" --bench $name.gguf 16
            run D env GGML_BACKEND_PATH="$build/plugin/libggml-df11.so" "$build/greedy" --bench $name.gguf 16
            run A "$build/df11-llama" --bench $name.head.gguf $name-df11 16
            run C "$build/df11-llama" --bench --stream $name.head.gguf $name-df11 4
        done
    done
done
python3 - <<'END'
import collections, statistics
runs = collections.defaultdict(list)
for line in open("results.txt"):
    words = line.split()
    if "bench" not in words:  # C says in a second line what it streamed
        continue
    name, contestant, _, *rest = words
    values = dict(zip(rest[::2], rest[1::2]))
    runs[name, values["threads"], contestant].append(values)
print("| model | threads | | ms a token: median, best, CPU | prompt of 512, ms: best, CPU | anonymous, resident MiB "
      "| logits |")
print("|---|---|---|---|---|---|---|")
order = lambda item: item[0][:2] + ("pDAC".index(item[0][2][0]),)
for (name, threads, contestant), several in sorted(runs.items(), key=order):
    median = lambda key: statistics.median(float(values[key]) for values in several)
    best = lambda key: min(float(values[key]) for values in several)
    digests = {values["logits"] for values in several}
    print(f"| {name} | {threads} | {contestant} | {median('token_ms'):.1f}, {best('best_ms'):.1f}, "
          f"{median('token_cpu_ms'):.1f} | {best('prompt_best_ms'):.0f}, {median('prompt_cpu_ms'):.0f} | "
          f"{median('anonymous_mib'):.0f}, {median('resident_mib'):.0f} | {' '.join(digests)} |")
END
