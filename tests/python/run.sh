#!/usr/bin/env bash
# Tests that Python programs read what `df11 decompress` writes, by packages of pinned versions.
#
#     run.sh [safetensors] [judge] [llama]
#
#     safetensors    the package safetensors reads every tensor, and finds each where the index says      seconds: part of `make test`
#     judge          mlx-dfloat, a reader that others wrote, decodes what `df11 compress` writes, and brings real DF11     seconds
#     llama          convert_hf_to_gguf.py of llama.cpp makes the GGUF file that it makes of the original  part of `make test-deep`
#
# `llama` installs Debian's PyTorch, some 200 MB, if there is none. DF11 is the tool; DF11_PREFIX an installed tree that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/python
work=$PWD/target/python
df11=${DF11:-${DF11_PREFIX:-$PWD/target/stage}/bin/df11}
[ -x "$df11" ] || { echo "no df11 at $df11: make install PREFIX=$PWD/target/stage" >&2; exit 2; }
mkdir -p "$work"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
. tests/count.sh

environment() { # NAME PYTHON OPTION...: an environment with the packages of NAME.txt, made anew if they are others
    local name=$1 python=$2
    shift 2
    cmp -s "$here/$name.txt" "$work/$name/installed" && "$work/$name/bin/python" -c '' 2>/dev/null && return
    "$python" -m venv --clear "$@" "$work/$name"
    "$work/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes -r "$here/$name.txt"
    cp "$here/$name.txt" "$work/$name/installed"
}

safetensors() {
    environment safetensors python3
    local python=$work/safetensors/bin/python golden=tests/data/golden
    for name in block sharded tiny edge; do
        for bytes in 5GB 200KB; do
            t "$name, $bytes: every tensor is that of the original, in the file that the index names" \
                comes_back "$python" "$golden/$name/original.safetensors" "$golden/$name/model/config.json" "$bytes"
        done
    done
    # A tensor that is not what it was, and one that is not where the index says, must be noticed.
    t "a planted difference shows" planted "$python" "$golden/sharded"
}
comes_back() { # PYTHON ORIGINAL CONFIG BYTES
    rm -rf "$scratch/df11" "$scratch/back"
    "$df11" compress "$2" -o "$scratch/df11" --pattern "$3" --shapes
    "$df11" decompress "$scratch/df11" -o "$scratch/back" --shard-bytes "$4"
    "$1" "$here/read.py" "$2" "$scratch/back"
}
planted() { # PYTHON GOLDEN
    comes_back "$1" "$2/original.safetensors" "$2/model/config.json" 200KB
    cp -r "$scratch/back" "$scratch/other"
    printf '\x01' | dd of="$(ls "$scratch"/other/*.safetensors | head -n 1)" bs=1 seek=5000 conv=notrunc
    ! "$1" "$here/read.py" "$2/original.safetensors" "$scratch/other"
    sed -i 's/model-00001-of/model-00002-of/' "$scratch/back/model.safetensors.index.json"
    ! "$1" "$here/read.py" "$2/original.safetensors" "$scratch/back"
}

judge() {
    environment judge python3
    local python=$work/judge/bin/python golden=tests/data/golden name
    for name in block sharded tiny; do
        t "mlx-dfloat reads what is compressed: $name" judged "$python" "$golden/$name/original.safetensors" "$golden/$name/model/config.json"
    done
    # A bit that is not the original's must be noticed.
    t "mlx-dfloat notices a planted difference" judged_planted "$python" "$golden/sharded"
    t "mlx-dfloat brings groups" "$python" "$here/judge.py" slice "$scratch"
    for name in qwen3_4b_layer0_4blocks long_codes; do
        t "its group decodes, bit for bit: $name" slice "$name"
    done
}
judged() { # PYTHON ORIGINAL CONFIG
    rm -rf "$scratch/judged"
    "$df11" compress "$2" -o "$scratch/judged" --pattern "$3"
    "$1" "$here/judge.py" model "$scratch/judged" "$2"
}
judged_planted() { # PYTHON GOLDEN
    judged "$1" "$2/original.safetensors" "$2/model/config.json"
    cp "$2/original.safetensors" "$scratch/other.safetensors"
    printf '\x01' | dd of="$scratch/other.safetensors" bs=1 seek=50000 conv=notrunc
    ! "$1" "$here/judge.py" model "$scratch/judged" "$scratch/other.safetensors"
}
slice() { # NAME
    "$df11" verify "$scratch/$1"
    "$df11" decompress "$scratch/$1" -o "$scratch/$1.safetensors"
    # The values are the last bytes of the file.
    tail -c "$(stat -c %s "$scratch/$1.bf16")" "$scratch/$1.safetensors" | cmp - "$scratch/$1.bf16"
}

# The last version of the crate whose sources of llama.cpp have all of the converter. cargo downloads, checks and unpacks it.
# Nothing of the crate is compiled.
llama_version=0.1.102
llama_sum=0522f9894e22dd988dd2e34222bda7acba53a0dcce744ca6d8ddce905ba33a4e
llama() {
    if ! /usr/bin/python3 -c 'import requests, torch, venv, yaml' 2>/dev/null; then
        local as=()
        [ "$(id -u)" = 0 ] || as=(sudo)
        echo "== installing python3-torch"
        "${as[@]}" apt-get update -qq
        "${as[@]}" apt-get install -y -qq --no-install-recommends python3-torch python3-requests python3-yaml python3-venv \
            >/dev/null
    fi
    environment llama /usr/bin/python3 --system-site-packages
    converter=$(examples/ggml/llama.sh "$llama_version" "$llama_sum" "$work/fetch")/convert_hf_to_gguf.py
    local python=$work/llama/bin/python
    t "a model and its tokenizer" "$python" "$here/make_llama.py" "$scratch/original/model"
    t "the converter reads the original" convert "$python" original
    "$df11" compress "$scratch/original/model" -o "$scratch/llama-df11" --shapes >/dev/null
    rm -rf "$scratch/back"
    mkdir "$scratch/back" "$scratch/one"
    t "decompressed to one file" "$df11" decompress "$scratch/llama-df11" -o "$scratch/one/model"
    t "decompressed to several files" "$df11" decompress "$scratch/llama-df11" -o "$scratch/back/model" --shard-bytes 400KB
    t "there are several" test "$(ls "$scratch"/back/model/*.safetensors | wc -l)" -gt 2
    for folder in one back; do
        t "the converter reads it ($folder)" convert "$python" $folder
        t "the GGUF file is that of the original ($folder)" cmp "$scratch/original.gguf" "$scratch/$folder.gguf"
    done
}
convert() { # PYTHON NAME: the converter takes a model's name from its folder's, which is the same for all
    HF_HUB_OFFLINE=1 "$1" "$here/convert.py" "$converter" "$scratch/$2/model" --outtype bf16 --outfile "$scratch/$2.gguf"
}

[ $# -gt 0 ] || set -- safetensors judge llama
for part in "$@"; do
    case "$part" in
        safetensors | judge | llama) "$part" ;;
        *) echo "usage: run.sh [safetensors] [judge] [llama]" >&2; exit 2 ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
