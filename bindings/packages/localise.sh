#!/usr/bin/env bash
# Makes a static library of one object, in which only the named functions are global.
#
#     localise.sh ARCHIVE NEW_ARCHIVE FUNCTION...
#
# A static library that cargo makes contains Rust's standard library, with every symbol global. A program that links a second
# archive made by Rust then has these symbols twice: the linker refuses, or takes half of each.
#  - Sections that no named function reaches are left out.
#  - Section groups become plain sections. Of two groups with one name the linker keeps the first. The unwind tables of the other
#    archive, whose symbols are local now, would then point into the group that was dropped.
#  - Functions of newer C libraries, to which the standard library has weak references, stay weak. GNU ld makes a reference strong
#    if it left out the only uses, and every program would then need these functions.
#  - Bitcode is removed. It is for rustc's own linker and four times as large as the code, and plug-ins of other linkers fail on
#    it.
# LD, OBJCOPY, READELF and AR name the tools (GNU's, or ones that take their options); STRIP=no keeps line tables.
set -euo pipefail
archive=$1 new=$2
shift 2
ld=${LD:-ld} objcopy=${OBJCOPY:-objcopy} readelf=${READELF:-readelf} ar=${AR:-ar}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The named functions are the linker's roots. A missing one is an error here, and not an undefined symbol later.
"$ld" -r --gc-sections --force-group-allocation "${@/#/-u}" "${@/#/--require-defined=}" -o "$scratch/all.o" "$archive"
"$readelf" -sW "$archive" |
    awk '$7 == "UND" && $8 != "" { if ($5 == "WEAK") weak[$8]; else strong[$8] }
        END { for (name in weak) if (!(name in strong)) print name }' >"$scratch/weak"
options=(--remove-section=.llvmbc --remove-section=.llvmcmd "--weaken-symbols=$scratch/weak")
[ "${STRIP:-}" = no ] || options+=(--strip-unneeded)
"$objcopy" "${@/#/--keep-global-symbol=}" "${options[@]}" "$scratch/all.o" "$scratch/$(basename "$new" .a).o"
rm -f "$new"
"$ar" rcsD "$new" "$scratch/$(basename "$new" .a).o"
