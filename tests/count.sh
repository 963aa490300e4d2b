# shellcheck shell=bash disable=SC2154
# For scripts whose tests are commands: sourced, it counts in `passed` and `failed`. `scratch` is a folder of the script's.
passed=0 failed=0
t() { # NAME COMMAND...: a test, which must exit with 0; only one that fails shows what it printed
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
