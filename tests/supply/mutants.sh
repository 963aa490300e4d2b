#!/usr/bin/env bash
# Changes the library in one place at a time; a test must fail each time. Runs cargo-mutants over src/format, src/huffman and src/cuda,
# in a copy of the tree. It lists the mutants that survive; MUTANTS.md judges them.
#
#     mutants.sh format|huffman|cuda [SHARD/SHARDS] [OPTIONS]     a sample: every SHARDS-th mutant, from SHARD on (all by default);
#                                                                 OPTIONS are those of cargo-mutants
#
# Each mutant costs a build and a run of tests. To make that cheap, the copy has only those modules of the library that the modules
# under test need, and one program with the tests that say most about them, and the unit tests. The same sample is drawn each time. A
# mutant that only a test outside of that program would notice counts as missed. DF11_MUTANTS_TIMEOUT is the number of seconds that
# the tests may take: 120 by default, too few on a busy machine. Results: target/mutants/WHAT/mutants.out.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=27.1.0
what=${1:?format, huffman or cuda} shard=${2:-0/1}
shift
shift || true
# The marks of huffman are made for images alone, and tested with them.
case $what in
format | huffman)
    files=(-f "src/$what/**" -e src/huffman/marks.rs)
    tests=(format/quirks/mod codec/golden format/hostile/mod) without=(capi cuda writer)
    [ "$what" = format ] || tests=(codec/golden decode/main codec/encode codec/walk)
    support=(abi engine programs target traffic) packages=(df11-emulator)
    ;;
cuda)
    # cudarc's part is not compiled here, and tests/cuda/cudarc_engine.rs has it. Tests are not what is tested.
    files=(-f 'src/cuda/**' -f src/huffman/marks.rs -e src/cuda/cudarc.rs -E 'tests::')
    tests=(cuda/image sources/policy cuda/errors) without=(capi writer)
    support=(abi traffic) packages=()
    ;;
*) echo "mutants.sh: format, huffman or cuda, not $what" >&2 && exit 2 ;;
esac

tools=$PWD/target/tools
export PATH=$tools/bin:$PATH
if [ "$(cargo mutants --version 2>/dev/null)" != "cargo-mutants $version" ]; then
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools/build \
        cargo install --locked --debug "cargo-mutants@$version" --root "$tools"
    rm -rf "$tools/build"
fi

# A tree to be changed in place: one run at a time. What was built there stays.
cargo fetch --locked
tree=target/mutants/tree
mkdir -p "$tree" "target/mutants/$what"
copied=$(mktemp -d)
trap 'rm -rf "$copied"' EXIT
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --null -T - -cf - | tar -C "$copied" -xf -
sed -i 's/^crate-type = .*/crate-type = ["rlib"]/' "$copied/Cargo.toml"
for name in "${packages[@]}"; do sed -i "/^$name = /d" "$copied/Cargo.toml"; done
for name in "${without[@]}"; do sed -i "/^pub mod $name;/d" "$copied/src/lib.rs"; done
for name in "${support[@]}"; do sed -i "/^pub mod $name;/d" "$copied/tests/support/mod.rs"; done
sed -i '/^#\[cfg(target_os = "linux")\]$/d' "$copied/tests/support/mod.rs"
{
    printf '//! What is run against each mutant.\n\nmod support;\n'
    for file in "${tests[@]}"; do
        name=${file%/mod} name=${name%/main}
        printf '#[path = "%s.rs"]\nmod %s;\n' "$file" "${name##*/}"
        # Memory cannot be measured here: the allocator that counts is not this program's.
        sed -i '/^#\[path = "..\/support\/mod.rs"\]$/d; s/^mod support;$/use crate::support;/; /^#\[global_allocator\]$/,+1d' \
            "$copied/tests/$file.rs"
    done
} >"$copied/tests/mutants.rs"
find "$tree" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
cp -a "$copied/." "$tree/"

# Each takes seconds, and says of large inputs what others say of small ones.
slow=()
for name in nothing_outside_a_runs_buffers codes_of_one_length_fill decoding_takes_less_than damaged_streams \
    every_size_of_every_distribution long_and_short_codes one_to_eight_threads destinations_at_every_offset \
    random_ranges_of_large_groups; do
    slow+=(--skip "$name")
done

unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR
export CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_INCREMENTAL=1
# A mutant may ask for memory without end: it is to fail, not the machine.
ulimit -v $((16 << 20))
# The time limit is for loops without an end: many times what the tests take.
cargo mutants --dir "$tree" --in-place --output "target/mutants/$what" "${files[@]}" --no-shuffle \
    --shard "$shard" --sharding round-robin --timeout "${DF11_MUTANTS_TIMEOUT:-120}" --build-timeout 900 \
    --colors never --annotations none "$@" --cargo-arg=--lib --cargo-arg=--test=mutants -- --offline -- "${slow[@]}"
