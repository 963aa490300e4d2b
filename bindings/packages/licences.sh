#!/usr/bin/env bash
# Prints the licences of what is linked into the libraries and the tool: every package's licence and its notices, each text once.
# Whoever distributes binaries must distribute these too. The packages must have been fetched; nothing is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}

cargo tree --locked --edges normal,no-proc-macro --features cli --target "$target" --prefix none --format '{p}|{l}' |
    sed 's/ (\*)$//; s/ (proc-macro)//' | LC_ALL=C sort -u | grep -v '^libdf11 ' >"$scratch/packages"

echo "libdf11 and its tool have these packages linked into them, besides Rust's standard library (Apache-2.0 OR MIT,"
echo "copyright the Rust Project Developers, https://www.rust-lang.org). Their notices follow."
echo
while IFS='|' read -r package licence; do
    name=${package%% *} version=${package##* v}
    echo "$name $version: $licence"
    for text in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$version"/{LICEN[CS]E,COPYING,COPYRIGHT,NOTICE,UNLICENSE}*; do
        [ -f "$text" ] || continue
        sum=$(tr -s '[:space:]' ' ' <"$text" | sha256sum | cut -c1-64)
        [ -e "$scratch/$sum" ] || cp "$text" "$scratch/$sum"
        echo "$name $version" >>"$scratch/$sum.of"
    done
done <"$scratch/packages"

# In the order of the first package that has a text.
for of in $(cd "$scratch" && grep -m 1 -H . -- *.of | LC_ALL=C sort -t: -k2 | cut -d: -f1); do
    printf '\n%s\n' "================================================================================"
    sort -u "$scratch/$of" | paste -sd, | sed 's/,/, /g' | fold -sw 100
    printf '%s\n\n' "================================================================================"
    tr -d '\r' <"$scratch/${of%.of}"
done
