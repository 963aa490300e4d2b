# shellcheck shell=bash disable=SC2154
# Sourced by scripts whose tests are commands. Counts in `passed` and `failed`; the script sets `scratch` to a temporary folder.
passed=0 failed=0
t() { # NAME COMMAND...: runs a test, which must exit with 0; shows what it printed only if it fails
    local name=$1 start=$SECONDS code
    shift
    set +e
    (set -e; "$@") >"$scratch/log" 2>&1
    code=$?
    set -e
    if [ $code = 0 ]; then
        passed=$((passed + 1))
        echo "ok      $name ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED  $name ($*: exit $code)"
        tail -n 100 "$scratch/log" | sed 's/^/        /'
    fi
}
