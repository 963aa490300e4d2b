#!/usr/bin/env bash
# Makes a static library of one object, in which nothing is to be seen but the functions that are named.
#
#     localise.sh ARCHIVE NEW_ARCHIVE FUNCTION...
#
# As cargo makes it, a static library holds Rust's standard library with every symbol global. A program that links a second
# archive made by Rust then has those twice: the linker refuses, or takes half of each.
#  - What no named function reaches is left out, section by section.
#  - Section groups become plain sections. Of two groups with one name the linker keeps the first, and the unwind tables of the
#    other archive, whose symbols are local now, would point into what it threw away.
#  - Functions of newer C libraries, which the standard library asks for weakly, stay weak. GNU ld makes those strong whose
#    only uses it left out, and a program that has nothing to do with them would need them.
#  - Bitcode goes: it is for rustc's own linker, four times as large as the code, and other linkers' plug-ins stumble over it.
# LD, OBJCOPY, READELF and AR name the tools (GNU's, or ones that take their options); STRIP=no keeps line tables.
set -euo pipefail
archive=$1 new=$2
shift 2
ld=${LD:-ld} objcopy=${OBJCOPY:-objcopy} readelf=${READELF:-readelf} ar=${AR:-ar}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Roots for the linker, and an error for a function that is not there (an undefined symbol would be all one saw of it).
"$ld" -r --gc-sections --force-group-allocation "${@/#/-u}" "${@/#/--require-defined=}" -o "$scratch/all.o" "$archive"
"$readelf" -sW "$archive" |
    awk '$7 == "UND" && $8 != "" { if ($5 == "WEAK") weak[$8]; else strong[$8] }
        END { for (name in weak) if (!(name in strong)) print name }' >"$scratch/weak"
options=(--remove-section=.llvmbc --remove-section=.llvmcmd "--weaken-symbols=$scratch/weak")
[ "${STRIP:-}" = no ] || options+=(--strip-unneeded)
"$objcopy" "${@/#/--keep-global-symbol=}" "${options[@]}" "$scratch/all.o" "$scratch/$(basename "$new" .a).o"
rm -f "$new"
"$ar" rcsD "$new" "$scratch/$(basename "$new" .a).o"
