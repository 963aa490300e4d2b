#!/usr/bin/env bash
# Changes the library in one place at a time and wants a test to fail: cargo-mutants over src/format, src/huffman and
# src/cuda, in a copy of the tree. What survives is listed, and judged in MUTANTS.md.
#
#     mutants.sh host|cuda [SHARD/SHARDS] [cargo-mutants' options]     a sample: every SHARDS-th mutant, from SHARD on; all
#                                                                      of them, unless said otherwise
#
# All mutants take a night. To make one cheap, the tests that say most about a module are put into one program (below), with
# the unit tests beside it, the library is linked as an
# rlib alone, and nothing carries debug information. The same sample is drawn each time. Results: target/mutants/NAME/mutants.out.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=27.1.0
what=${1:?host or cuda} shard=${2:-0/1}
shift
shift || true
case $what in
host) tests=(format golden decode encode properties hostile walk image) files=(-f 'src/format/**' -f 'src/huffman/**') ;;
cuda) tests=(image cuda_kernels cuda_errors) files=(-f 'src/cuda/**') ;;
*) echo "mutants.sh: host or cuda, not $what" >&2 && exit 2 ;;
esac

tools=$PWD/target/tools
export PATH=$tools/bin:$PATH
if [ "$(cargo mutants --version 2>/dev/null)" != "cargo-mutants $version" ]; then
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools/build \
        cargo install --locked --debug "cargo-mutants@$version" --root "$tools"
    rm -rf "$tools/build"
fi

# A tree to be changed in place: one run at a time. What was built there stays.
tree=target/mutants/tree
mkdir -p "$tree" target/mutants/"$what"
copied=$(mktemp -d)
trap 'rm -rf "$copied"' EXIT
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar --null -T - -cf - | tar -C "$copied" -xf -
sed -i 's/^crate-type = .*/crate-type = ["rlib"]/' "$copied/Cargo.toml"
{
    printf '//! What is run against each mutant.\n\nmod support;\n'
    for name in "${tests[@]}"; do
        printf '#[path = "%s.rs"]\nmod %s;\n' "$name" "$name"
        sed -i 's/^mod support;$/use crate::support;/' "$copied/tests/$name.rs"
    done
} >"$copied/tests/mutants.rs"
find "$tree" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
cp -a "$copied/." "$tree/"

unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR
export CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_INCREMENTAL=1
# The time limit is for loops without an end: many times what the tests take.
cargo mutants --dir "$tree" --in-place --output "target/mutants/$what" "${files[@]}" --no-shuffle \
    --shard "$shard" --sharding round-robin --timeout "${DF11_MUTANTS_TIMEOUT:-120}" --build-timeout 900 \
    --colors never --annotations none "$@" --cargo-arg=--lib --cargo-arg=--test=mutants -- --locked
