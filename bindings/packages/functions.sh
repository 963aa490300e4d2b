#!/usr/bin/env bash
# Prints the functions that include/df11.h declares, a name a line: what a library must export, no more and no less.
set -euo pipefail
cd "$(dirname "$0")/../.."
"${CC:-cc}" -E -P -xc include/df11.h | grep -oE '\bdf11_[a-z0-9_]+ *\(' | tr -d ' (' | LC_ALL=C sort -u
