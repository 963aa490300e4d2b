#!/usr/bin/env bash
# Tests what libdf11 is made of, and what is made of it. tests/README.md describes each part.
#
#     run.sh [quick|deep|PART...]      quick by default
#
#     quick    check msrv sbom                            seconds: part of `make test`
#     deep     oldest minimal package reproducible deny   part of `make test-deep`
#
# What this machine lacks (an old toolchain, the advisories) is counted as "not run", by name; with DF11_STRICT=1, as for a release,
# that is a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/tests/supply
work=$root/target/supply
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
cargo_deny=0.20.2
mkdir -p "$work"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset CARGO_TARGET_DIR CARGO_ENCODED_RUSTFLAGS RUSTFLAGS RUSTC_BOOTSTRAP

missed=0
. tests/count.sh
missing() { # WHAT: counts a test that cannot run on this machine
    missed=$((missed + 1))
    echo "NOT RUN $1"
}
copy() { # FOLDER: copies what a commit of this tree would have into a folder
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | tar --null -T - -cf - | tar -C "$1" -xf -
}

check() {
    t "licences, sources, doubles, checksums and Rust versions of all packages" "$here/check.py"
    t "every rule bites" "$here/check.py" --self-test
}

msrv() {
    t "README and CONTRIBUTING say Rust $msrv" one_msrv
    # The library's own use of newer functions is clippy's incompatible_msrv, which tests/run.sh runs with every other lint.
    t "clippy tells of functions that Rust $msrv lacks" newer_function
}
oldest() {
    cargo "+$msrv" --version >/dev/null 2>&1 || cargo "+$msrv.0" --version >/dev/null 2>&1 ||
        rustup toolchain install "$msrv" --profile minimal >/dev/null 2>&1 || true
    if cargo "+$msrv" --version >/dev/null 2>&1 || cargo "+$msrv.0" --version >/dev/null 2>&1; then
        local toolchain=$msrv
        cargo "+$msrv" --version >/dev/null 2>&1 || toolchain=$msrv.0
        t "everything compiles with Rust $toolchain" cargo "+$toolchain" check --locked --workspace --all-targets \
            --features libdf11/cli,libdf11/cudarc --target-dir "$work/msrv"
    else
        missing "compilation with Rust $msrv: rustup toolchain install $msrv"
    fi
}
one_msrv() {
    grep -q "Rust toolchain ($msrv or later)" README.md
    grep -q "Rust toolchain ($msrv or later)" CONTRIBUTING.md
}
newer_function() { # a package like ours, with a function of Rust 1.91
    local package=$work/newer
    rm -rf "$package"
    mkdir -p "$package/src"
    printf '[package]\nname = "newer"\nversion = "0.0.0"\nedition = "2024"\nrust-version = "%s"\n[workspace]\n' "$msrv" \
        >"$package/Cargo.toml"
    echo 'pub fn minutes() -> std::time::Duration { std::time::Duration::from_mins(1) }' >"$package/src/lib.rs"
    cd "$package"
    if cargo clippy --offline -- -D warnings 2>"$work/clippy"; then
        echo "clippy said nothing"
        return 1
    fi
    cat "$work/clippy"
    grep -q incompatible_msrv "$work/clippy"
}

sbom() {
    t "a bill of materials" "$here/sbom.py" --out "$work/libdf11.cdx.json"
    t "its fields, and Cargo.lock's packages" "$here/sbom.py" --check "$work/libdf11.cdx.json"
    t "once more, the same bytes" sbom_again
    t "CycloneDX's schema" schema
}
sbom_again() {
    "$here/sbom.py" --out "$work/again.cdx.json"
    cmp "$work/libdf11.cdx.json" "$work/again.cdx.json"
}
schema() {
    if ! cmp -s "$here/requirements.txt" "$work/site/installed"; then
        [ -x "$work/python/bin/pip" ] || python3 -m venv --clear "$work/python"
        rm -rf "$work/site"
        "$work/python/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --require-hashes --implementation py --abi none --platform any -r "$here/requirements.txt" --target "$work/site"
        cp "$here/requirements.txt" "$work/site/installed"
    fi
    PYTHONPATH=$work/site "$here/schema.py" "$work/libdf11.cdx.json"
    # A schema that takes anything would say the same.
    sed 's/"CycloneDX"/"Other"/' "$work/libdf11.cdx.json" >"$work/wrong.cdx.json"
    ! PYTHONPATH=$work/site "$here/schema.py" "$work/wrong.cdx.json"
}

# The switch is not stable yet, hence the variable; no other toolchain is needed.
minimal() {
    t "the lowest versions that Cargo.toml allows can be resolved" resolve_minimal
    t "they compile" in_minimal build --features cli,cudarc
    t "and decode and encode as ever" in_minimal test --features cli,cudarc --lib --test format --test codec
}
resolve_minimal() {
    copy "$work/minimal"
    cd "$work/minimal"
    RUSTC_BOOTSTRAP=1 cargo update -Z direct-minimal-versions
}
in_minimal() {
    cd "$work/minimal"
    cargo "$1" --locked --target-dir "$work/minimal-target" "${@:2}"
}

package() {
    t "cargo package, which builds what it packed" cargo package --locked --allow-dirty -p libdf11
    t "what is inside" inside
    t "the packed crate by itself: library and tool" in_package build --features cli
    t "its tests and its documentation's programs" in_package test --features cli
}
inside() {
    local file crate=target/package/libdf11-$version.crate
    tar -tzf "$crate" | sed "s|^libdf11-$version/||" | LC_ALL=C sort >"$work/packed"
    cat "$work/packed"
    for file in Cargo.toml Cargo.lock build.rs README.md CHANGELOG.md SECURITY.md LICENSE-APACHE LICENSE-MIT src/lib.rs include/df11.h \
        cbindgen.toml; do
        grep -qx "$file" "$work/packed" || { echo "missing: $file" && return 1; }
    done
    # Every compiled kernel, by git's list.
    git ls-files kernels/prebuilt | LC_ALL=C sort >"$work/kernels"
    [ -s "$work/kernels" ]
    grep '^kernels/prebuilt/' "$work/packed" | cmp - "$work/kernels"
    if grep -E '^(\.ci|\.git|target|tests/(data/golden/block|fuzz|bench|emulator)|examples/go-service|bindings/go)/' "$work/packed"; then
        echo "those are for the repository alone"
        return 1
    fi
    [ "$(stat -c %s "$crate")" -lt 3000000 ] || { echo "too large: $(stat -c %s "$crate") bytes" && return 1; }
    rm -rf "$work/package"
    mkdir -p "$work/package"
    # With the time of today: packed files carry one date, by which cargo would take what it built before for fresh.
    tar -C "$work/package" --strip-components=1 -xzmf "$crate"
    # Cargo takes it for a package of its own, not for a lost member of the workspace around it.
    printf '\n[workspace]\n' >>"$work/package/Cargo.toml"
}
in_package() {
    cd "$work/package"
    cargo "$1" --locked --target-dir "$work/package-target" "${@:2}"
}

reproducible() {
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        missing "two builds of the release: \`make dist\` builds on Linux on x86-64 only"
        return
    fi
    t "make dist and make wheel in two folders, with two homes, registries and umasks" dist_twice
    t "the same bytes" same
}
dist_twice() {
    local one=$work/one two=$work/another/of\ the\ two
    copy "$one"
    rm -rf "$two" "$work/home"
    mkdir -p "$two" "$work/home"
    (umask 0077 && cp -R "$one/." "$two/")
    ln -s "${CARGO_HOME:-$HOME/.cargo}"/* "$work/home/"
    # At once, for each of them ends on one core.
    dist_in "$one" >"$scratch/one" 2>&1 &
    (umask 0077 && CARGO_HOME=$work/home dist_in "$two") || { kill $! 2>/dev/null; return 1; }
    wait $! || { cat "$scratch/one" && return 1; }
}
dist_in() { # FOLDER
    # The linker takes a minute to install, and is no part of the question.
    mkdir -p "$1/target/dist"
    [ ! -d target/dist/python ] || ln -sfn "$root/target/dist/python" "$1/target/dist/python"
    cd "$1"
    export SOURCE_DATE_EPOCH=1700000000
    bindings/packages/dist.sh
    bindings/python/wheel.sh
}
same() {
    local one=$work/one/target/dist two=$work/another/of\ the\ two/target/dist
    # Says which file is another; what is packed has no line tables of the linker's own parts, which name its folder.
    diff -r --no-dereference "$one/tree" "$two/tree"
    diff "$one/SHA256SUMS" "$two/SHA256SUMS"
    diff "$one/../wheel/SHA256SUMS" "$two/../wheel/SHA256SUMS"
    (cd "$one" && sha256sum -c SHA256SUMS)
    (cd "$two" && sha256sum -c SHA256SUMS)
}

deny() {
    PATH=$root/target/tools/bin:$PATH
    if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $cargo_deny" ]; then
        t "cargo-deny $cargo_deny, built from its sources" install_deny
    fi
    t "cargo-deny: licences, bans, sources" cargo-deny --locked --workspace --config "$here/deny.toml" check licenses bans sources
    # Advisories are a git repository of their own.
    local db
    db=$(sed -n 's/^db-urls = \["\(.*\)"\]$/\1/p' "$here/deny.toml")
    if GIT_TERMINAL_PROMPT=0 timeout 60 git ls-remote --exit-code "$db" HEAD >/dev/null 2>&1; then
        t "cargo-deny: advisories, withdrawn versions" cargo-deny --locked --workspace --config "$here/deny.toml" check advisories
    else
        missing "cargo-deny: advisories: $db cannot be reached from here"
    fi
}
install_deny() {
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=target/tools/build \
        cargo install --locked --debug "cargo-deny@$cargo_deny" --root target/tools
    rm -rf target/tools/build
}

main() {
    local parts=() part
    for part in "${@:-quick}"; do
        case $part in
        quick) parts+=(check msrv sbom) ;;
        deep) parts+=(oldest minimal package reproducible deny) ;;
        check | msrv | sbom | oldest | minimal | package | reproducible | deny) parts+=("$part") ;;
        *) echo "run.sh: no $part; there are check, msrv, sbom, oldest, minimal, package, reproducible and deny" >&2 && exit 2 ;;
        esac
    done
    for part in "${parts[@]}"; do "$part"; done
    echo "$passed passed, $failed failed, $missed not run"
    [ "$failed" = 0 ] && { [ "$missed" = 0 ] || [ "${DF11_STRICT:-0}" != 1 ]; }
}
main "$@"; exit
