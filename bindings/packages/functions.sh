#!/usr/bin/env bash
# Prints the names of the functions that the headers declare, one a line. A library must export exactly these.
set -euo pipefail
cd "$(dirname "$0")/../.."
"${CC:-cc}" -E -P -xc include/df11_experimental.h | grep -oE '\bdf11_[a-z0-9_]+ *\(' | tr -d ' (' | LC_ALL=C sort -u
