#!/usr/bin/env bash
# Builds unmodified ggml and libllama and the examples in this folder against an installed libdf11 (DF11_PREFIX), and
# runs them on small models. Every way in which DF11's weights reach ggml must give the logits of the plain weights, and
# planted mistakes must be noticed. Everything is built in target/ggml, where later runs find it.
#
# ggml is built for processors with AVX2, or on other machines as it is built there. DF11_GGML_KERNELS=avx512 or
# avx512_bf16 builds it with those kernels, whose sums have another order.
set -euo pipefail
cd "$(dirname "$0")/../.."

prefix=$(realpath -m "${DF11_PREFIX:-target/stage}")
work=$PWD/target/ggml
llama_version=0.1.161
llama_sum=e9bea77fde41bbc15a278891cd5edd2ba07c5260d162614b41080ba1f100b39b

need() { # COMMAND PACKAGE: installs the Debian package that has a command
    command -v "$1" >/dev/null && return
    local as=()
    [ "$(id -u)" = 0 ] || as=(sudo)
    echo "== installing $2, which has $1"
    "${as[@]}" apt-get install -y -qq "$2" >/dev/null 2>&1 ||
        { "${as[@]}" apt-get update -qq && "${as[@]}" apt-get install -y -qq "$2" >/dev/null; }
}
need "${CXX:-c++}" g++
need cmake cmake
need ninja ninja-build
need python3 python3
[ -e "$prefix/lib/cmake/df11" ] || { echo "no libdf11 in $prefix: make install PREFIX=$prefix" >&2; exit 2; }

llama=$(examples/ggml/llama.sh "$llama_version" "$llama_sum" "$work/fetch")

kernels=${DF11_GGML_KERNELS:-}
case $kernels in
    '') options=() build=build ;;
    avx512) options=(-DGGML_AVX512=ON) build=build-avx512 ;;
    avx512_bf16) options=(-DGGML_AVX512=ON -DGGML_AVX512_BF16=ON) build=build-avx512_bf16 ;;
    *) echo "DF11_GGML_KERNELS is avx512 or avx512_bf16, not $kernels" >&2; exit 2 ;;
esac

# Less optimised C++ builds in half the time, and most kernels are in C. No flags are specific to this machine.
cmake -G Ninja -S examples/ggml -B "$work/$build" -DLLAMA_CPP="$llama" -Ddf11_DIR="$prefix/lib/cmake/df11" \
    -DCMAKE_BUILD_TYPE=Release "${options[@]}" -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG" -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" \
    -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF -DGGML_LLAMAFILE=ON -DGGML_RPC=ON -DGGML_CPU_REPACK=OFF \
    -DLLAMA_ALL_WARNINGS=OFF >"$work/configure.log" 2>&1 || { cat "$work/configure.log" >&2; exit 2; }
echo "== building ggml, libllama and the examples"
ninja -C "$work/$build" -j "${DF11_JOBS:-2}" layers df11-gguf df11-llama greedy rpc ops >"$work/build.log" 2>&1 ||
    { tail -n 40 "$work/build.log" >&2; exit 2; }

# The plug-in as users build it: from the installed project.
echo "== building the installed plug-in"
plugin_project() { # FOLDER [OPTION...]
    cmake -G Ninja -S "$prefix/share/df11/llama.cpp" -B "$work/$1" -DLLAMA_CPP="$llama" \
        -DLLAMA_CPP_BUILD="$work/$build" -Ddf11_DIR="$prefix/lib/cmake/df11" "${@:2}" >"$work/$1.log" 2>&1 &&
        ninja -C "$work/$1" >>"$work/$1.log" 2>&1 || { tail -n 40 "$work/$1.log" >&2; exit 2; }
}
plugin_project plugin
plugin_project plugin-old -DDF11_GGML_VERSION=0.25.0

cargo build --quiet --locked -p df11-emulator
emulator=$(realpath "${CARGO_TARGET_DIR:-target}/debug/libdf11_emulator.so")

bin=$work/$build plugin=$work/plugin/libggml-df11.so
export PATH=$work/plugin:$PATH # df11-gguf
export GGML_NO_BACKTRACE=1
export DF11_EXAMPLE_THREADS=1 # the models are too small for two
cd "$work"
rm -rf models
mkdir models
passed=0 failed=0
check() { # WHAT COMMAND...: runs a command that must succeed
    local what=$1
    shift
    if "$@" >check.log 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what: $*"
        tail -n 20 check.log
    fi
}
says() { # FILE: prints the lines with a model's output
    grep -E '^(tokens|text|logits) ' "$1"
}
same() { # FILE FILE: both ran, with the same output
    [ "$(says "$1" | wc -l)" = 3 ] && diff <(says "$1") <(says "$2")
}
differs() { # FILE FILE: both ran, with different output
    [ "$(says "$1" | wc -l)" = 3 ] && [ "$(says "$2" | wc -l)" = 3 ] && ! diff -q <(says "$1") <(says "$2")
}
fails_with() { # TEXT COMMAND...: fails with a message that contains the text
    local text=$1
    shift
    ! "$@" >fails.log 2>&1 && { cat fails.log; grep -qF "$text" fails.log; }
}
fails_before_it_speaks() { # the same, and makes no tokens
    fails_with "$@" && ! grep '^tokens' fails.log
}
with_plugin() { # [OPTION...] MODEL.gguf: a program that does not know DF11, with the plug-in
    GGML_BACKEND_PATH=$plugin "$bin/greedy" "$@" "$prompt" $count
}
prompt="the inn in the thin"
count=12
first=-00001-of-00002.gguf # of a skeleton, which is in two parts

check "D: the plug-in exports what ggml looks for, and nothing else" \
    test "$(nm -D --defined-only "$plugin" | awk '$2 == "T" { print $3 }')" = ggml_backend_init

check "D: another version of ggml is refused" fails_with "built for ggml 0.25.0, but this program has ggml 0.26" \
    env GGML_BACKEND_PATH="$work/plugin-old/libggml-df11.so" "$bin/greedy" models/none.gguf "$prompt" 1

for plant in none tiles; do
    check "D: products and look-ups in many shapes, parts of matrices: $plant" \
        env GGML_BACKEND_PATH="$plugin" DF11_PLANT=$plant "$bin/ops"
done
check "D: a mistake in them shows" fails_with "the results differ" \
    env GGML_BACKEND_PATH="$plugin" DF11_PLANT=decode "$bin/ops"
# It is made where libdf11 adds in ggml's order, so it also shows that the plug-in has found that order.
[ "$(uname -m)" != x86_64 ] || check "D: a mistake in the sums of libdf11 shows" fails_with "the results differ" \
    env GGML_BACKEND_PATH="$plugin" DF11_PLANT=sums "$bin/ops"

for model in untied tied; do
    options=(--layers 5)
    [ $model = tied ] && options=(--layers 4 --tied)
    m=models/$model
    python3 "$OLDPWD/examples/ggml/make_model.py" $m $m.head.gguf "${options[@]}"
    "$prefix/bin/df11" compress $m -o $m-df11 >$m.compress.log

    # The plain model: a GGUF file from the bf16 folder, without any codec.
    df11-gguf $m.head.gguf $m $m.gguf
    "$bin/greedy" $m.gguf "$prompt" $count >$m.plain.txt
    ids=$(sed -n 's/^prompt //p' $m.plain.txt)
    check "$model: the plain model says several things" \
        test "$(sed -n 's/^tokens //p' $m.plain.txt | tr , '\n' | sort -u | wc -l)" -ge 3

    df11-gguf $m.head.gguf $m-df11 $m.from-df11.gguf
    check "$model: a GGUF file from DF11 is that from the original" cmp $m.gguf $m.from-df11.gguf

    df11-gguf $m.gguf $m-df11 $m.from-itself.gguf
    check "$model: any GGUF file of the model serves as the head" cmp $m.gguf $m.from-itself.gguf

    "$bin/df11-llama" $m.head.gguf $m-df11 "$prompt" $count >$m.a.txt || true
    check "$model, A: libllama with weights decoded when it loads" same $m.plain.txt $m.a.txt

    "$bin/df11-llama" --stream $m.head.gguf $m-df11 "$prompt" $count >$m.c.txt || true
    check "$model, C: libllama with layers streamed through two slots" same $m.plain.txt $m.c.txt
    grep '^layers' $m.c.txt

    check "$model, B: a transformer on ggml, its logits compared with those of resident weights" \
        "$bin/layers" $m.head.gguf $m-df11 "$ids" $count $m
    cp check.log $m.b.txt
    check "$model, B: and the tokens are libllama's" diff <(grep '^tokens' $m.plain.txt) <(grep '^tokens' $m.b.txt)
    grep -E '^(weights|[0-9]+ steps|[0-9]+ of)' $m.b.txt

    export DF11_LIBCUDA=$emulator
    check "$model, B: the same, decoded on an emulated CUDA device" \
        "$bin/layers" --device $m.head.gguf $m-df11 "$ids" 2 $m
    for mistake in slot decode early wait; do
        check "$model, B on a device: the mistake '$mistake' shows" fails_with "0 of 2 passes" \
            "$bin/layers" --device --plant $mistake $m.head.gguf $m-df11 "$ids" 2 $m
    done
    unset DF11_LIBCUDA

    df11-gguf --skeleton $m.head.gguf $m-df11 $m.skeleton.gguf
    check "$model, D: a skeleton takes less than half of the disk" \
        test $((2 * $(du -k $m.skeleton$first | cut -f1))) -lt "$(du -k $m.gguf | cut -f1)"
    with_plugin $m.gguf >$m.d.txt || true
    check "$model, D: a stock program with the plug-in" same $m.plain.txt $m.d.txt
    with_plugin --no-mmap $m.gguf >$m.d-read.txt || true
    check "$model, D: the same, the file not mapped" same $m.plain.txt $m.d-read.txt
    with_plugin $m.skeleton$first >$m.d-skeleton.txt || true
    check "$model, D: the same with a skeleton" same $m.plain.txt $m.d-skeleton.txt
    (export DF11_EXAMPLE_THREADS=3 && with_plugin $m.gguf) >$m.d-3.txt || true
    check "$model, D: the same with three threads" same $m.plain.txt $m.d-3.txt
    (export DF11_EXAMPLE_THREADS=2 DF11_PLANT=tiles && with_plugin $m.gguf) >$m.d-tiles.txt || true
    check "$model, D: the same in small tiles" same $m.plain.txt $m.d-tiles.txt

    # Mistakes that must be noticed.
    for mistake in slot decode early; do
        check "$model, B: the mistake '$mistake' shows" fails_with "0 of $count passes" \
            "$bin/layers" --plant $mistake $m.head.gguf $m-df11 "$ids" $count $m
        "$bin/df11-llama" --stream --plant $mistake $m.head.gguf $m-df11 "$prompt" $count >$m.c-$mistake.txt || true
        check "$model, C: the mistake '$mistake' shows" differs $m.plain.txt $m.c-$mistake.txt
    done
    DF11_PLANT=decode with_plugin $m.gguf >$m.d-decode.txt || true
    check "$model, D: the mistake 'decode' shows" differs $m.plain.txt $m.d-decode.txt
    check "$model, D: libllama refuses a skeleton without the plug-in" fails_before_it_speaks \
        "failed to load GGUF split" "$bin/greedy" $m.skeleton$first "$prompt" 1
done

# One layer, which stays in its slot.
m=models/single
python3 "$OLDPWD/examples/ggml/make_model.py" $m $m.head.gguf --layers 1 --tied
"$prefix/bin/df11" compress $m -o $m-df11 >$m.compress.log
df11-gguf $m.head.gguf $m $m.gguf
"$bin/greedy" $m.gguf "$prompt" $count >$m.plain.txt
"$bin/df11-llama" --stream $m.head.gguf $m-df11 "$prompt" $count >$m.c.txt || true
check "a single layer, C" same $m.plain.txt $m.c.txt
check "a single layer, B" "$bin/layers" $m.head.gguf $m-df11 "$ids" $count $m

# A layer with damaged codes: decoding finds the damage, and reports the place.
m=models/untied
cp -r $m-df11 models/damaged-df11
python3 - models/damaged-df11/model_layers_2.safetensors <<'EOF'
import json, struct, sys
with open(sys.argv[1], "r+b") as file:
    length, = struct.unpack("<Q", file.read(8))
    begin, end = json.loads(file.read(length))["model.layers.2.encoded_exponent"]["data_offsets"]
    file.seek(8 + length + (begin + end) // 2)
    file.write(bytes(64))
EOF
check "A: damage is found" fails_before_it_speaks "model_layers_2.safetensors" \
    "$bin/df11-llama" $m.head.gguf models/damaged-df11 "$prompt" 1
check "B: damage is found" fails_before_it_speaks "model_layers_2.safetensors" \
    "$bin/layers" $m.head.gguf models/damaged-df11 "$ids" 1 $m
check "B on a device: damage is found" fails_before_it_speaks "the device reports CORRUPT" env DF11_LIBCUDA="$emulator" \
    "$bin/layers" --device $m.head.gguf models/damaged-df11 "$ids" 1 $m
check "C: damage is found" fails_before_it_speaks "model_layers_2.safetensors" \
    "$bin/df11-llama" --stream $m.head.gguf models/damaged-df11 "$prompt" 1
check "D: damage is found" fails_before_it_speaks "model_layers_2.safetensors" \
    env GGML_BACKEND_PATH=$plugin DF11_MODEL=models/damaged-df11 "$bin/greedy" $m.skeleton$first "$prompt" 1
check "D: a model that is not there is found" fails_before_it_speaks "models/nowhere" \
    env GGML_BACKEND_PATH=$plugin DF11_MODEL=models/nowhere "$bin/greedy" $m.skeleton$first "$prompt" 1

# The GGUF file of one model with the DF11 model of another.
python3 "$OLDPWD/examples/ggml/make_model.py" models/other models/other.head.gguf --seed 12
"$prefix/bin/df11" compress models/other -o models/other-df11 >models/other.compress.log
check "D: another model is refused" fails_before_it_speaks "for which the skeleton was written" \
    env GGML_BACKEND_PATH=$plugin DF11_MODEL=models/other-df11 "$bin/greedy" models/untied.skeleton$first "$prompt" 1

# Experts, and a family whose rows of Q and K are permuted: the plug-in only, since the others know Qwen3.
for model in qwen3moe llama; do
    m=models/$model
    python3 "$OLDPWD/examples/ggml/make_model.py" $m $m.head.gguf --kind $model --layers 3
    "$prefix/bin/df11" compress $m -o $m-df11 >$m.compress.log
    df11-gguf $m.head.gguf $m $m.gguf
    "$bin/greedy" $m.gguf "$prompt" $count >$m.plain.txt
    df11-gguf --skeleton $m.head.gguf $m-df11 $m.skeleton.gguf
    check "$model: its skeleton has holes" grep -aq "DF11 hole" $m.skeleton$first
    for threads in 1 3; do
        (export DF11_EXAMPLE_THREADS=$threads && with_plugin $m.gguf) >$m.d.txt || true
        check "$model, D: a stock program with the plug-in, $threads threads" same $m.plain.txt $m.d.txt
    done
    with_plugin $m.skeleton$first >$m.d-skeleton.txt || true
    check "$model, D: the same with a skeleton" same $m.plain.txt $m.d-skeleton.txt
    (export DF11_EXAMPLE_THREADS=2 DF11_PLANT=tiles && with_plugin $m.gguf) >$m.d-tiles.txt || true
    check "$model, D: the same in small tiles" same $m.plain.txt $m.d-tiles.txt
    DF11_PLANT=decode with_plugin $m.gguf >$m.d-decode.txt || true
    check "$model, D: the mistake 'decode' shows" differs $m.plain.txt $m.d-decode.txt
done
# Other families: a GGUF file of the whole model, which no code of ours has written, is the head.
for model in mistral mixtral qwen2 gemma gemma2 gemma3; do
    m=models/$model
    options=()
    case $model in gemma*) options=(--tied) ;; esac
    python3 "$OLDPWD/examples/ggml/make_model.py" $m $m.gguf --whole --kind $model --layers 3 "${options[@]}"
    "$prefix/bin/df11" compress $m -o $m-df11 >$m.compress.log
    "$bin/greedy" $m.gguf "$prompt" $count >$m.plain.txt
    check "$model: the plain model says several things" \
        test "$(sed -n 's/^tokens //p' $m.plain.txt | tr , '\n' | sort -u | wc -l)" -ge 3
    df11-gguf --skeleton $m.gguf $m-df11 $m.skeleton.gguf
    check "$model: its skeleton has holes" grep -aq "DF11 hole" $m.skeleton$first
    with_plugin $m.gguf >$m.d.txt || true
    check "$model, D: a stock program with the plug-in" same $m.plain.txt $m.d.txt
    with_plugin $m.skeleton$first >$m.d-skeleton.txt || true
    check "$model, D: the same with a skeleton" same $m.plain.txt $m.d-skeleton.txt
    df11-gguf $m.gguf $m-df11 $m.from-df11.gguf
    "$bin/greedy" $m.from-df11.gguf "$prompt" $count >$m.from-df11.txt
    check "$model: a GGUF file from DF11 says the same" same $m.plain.txt $m.from-df11.txt
done
check "llama: Q and K are permuted as the converter of llama.cpp does it" python3 - <<'EOF2'
import json, struct

def tensors_of_safetensors(path):
    data = open(path, "rb").read()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return {name: data[8 + length :][slice(*info["data_offsets"])] for name, info in header.items()}

heads = {"q": 4, "k": 2}
gguf = open("models/llama.gguf", "rb").read()
for name, values in tensors_of_safetensors("models/llama/model.safetensors").items():
    part = name.split(".")[-2][0]
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        continue
    rows = [values[i : i + 256] for i in range(0, len(values), 256)]  # 128 columns
    half = len(rows) // heads[part] // 2
    # reshape(heads, 2, half, columns).swapaxes(1, 2), as in LlamaModel.permute()
    permuted = [rows[(h * 2 + j) * half + i] for h in range(heads[part]) for i in range(half) for j in range(2)]
    assert b"".join(permuted) in gguf, name
    assert values not in gguf, name
EOF2

# A server of ggml's RPC backend with the plug-in, and a client without it.
m=models/untied
for device in DF11 CPU; do
    for mistake in none decode; do
        port=$((20000 + RANDOM % 20000))
        DF11_PLANT=$mistake GGML_BACKEND_PATH=$plugin "$bin/rpc" 127.0.0.1:$port $device >rpc.log 2>&1 &
        server=$!
        for _ in $(seq 100); do
            (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && break
            sleep 0.05
        done
        DF11_EXAMPLE_RPC=127.0.0.1:$port "$bin/greedy" --rpc $m.gguf "$prompt" $count \
            >$m.rpc-$device-$mistake.txt || true
        kill $server || true
        wait $server 2>/dev/null || true
    done
    check "RPC: a server's $device device" same $m.plain.txt $m.rpc-$device-none.txt
done
check "RPC: weights on the DF11 device are matrices" differs $m.plain.txt $m.rpc-DF11-decode.txt
check "RPC: those on the CPU device are not" same $m.plain.txt $m.rpc-CPU-decode.txt
check "A: another model's metadata are refused" fails_with "the model has no model.layers.4." \
    "$bin/df11-llama" models/untied.head.gguf models/tied-df11 "$prompt" 1

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
