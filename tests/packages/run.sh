#!/usr/bin/env bash
# Builds programs in C, C++, Go and Rust against the trees of `make install`, `make dist` and `make deb`: found by pkg-config and
# by find_package, linked shared and static, and moved to another folder. Each program decodes a model that the reference
# compressor wrote; what it prints is compared with what expected.py computes from the original.
#
#     run.sh [install|rust|dist|deb]...         without arguments: all four
#
# DF11_PREFIX names a tree that is already installed; otherwise `make install PREFIX=target/stage` makes one.
# Needs cc, c++, binutils, cmake, pkg-config, python3 and dpkg-dev, which tests/run.sh installs, and Go, which bindings/go installs.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=$root/tests/packages
golden=$root/tests/data/golden/block
cc=${CC:-cc} cxx=${CXX:-c++}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
warnings=(-Wall -Wextra -Wpedantic -Werror -O1)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# No other libdf11, of the caller or of the system, may be found in place of the one under test.
unset LD_LIBRARY_PATH CPATH LIBRARY_PATH PKG_CONFIG_PATH CMAKE_PREFIX_PATH CGO_CFLAGS CGO_LDFLAGS

skipped=0
. tests/count.sh
skip() { # WHAT, and why
    skipped=$((skipped + 1))
    echo "skipped $1"
}

says() { # COMMAND...: runs a program on the golden model and compares what it prints
    "$@" "$golden/model" | LC_ALL=C sort >"$scratch/said"
    diff "$scratch/expected" "$scratch/said"
}
fails() { # COMMAND...: runs a command that must fail
    if "$@" >"$scratch/failing" 2>&1; then
        echo "this should have failed: $*"
        return 1
    fi
}
needs() { # PROGRAM: prints the shared libdf11 that it needs, or nothing
    readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(libdf11[^]]*\)\]/\1/p'
}
soname() { readelf -dW "$1/libdf11.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p'; }

# Asks pkg-config about the tree in TREE and LIB.
flags() { PKG_CONFIG_PATH=$LIB/pkgconfig pkg-config --cflags --libs "$@"; }

c_and_cpp() { # COMPILER SOURCE STANDARD
    local out=$scratch/program
    # shellcheck disable=SC2046 # words
    "$1" "-std=$3" "${warnings[@]}" "$here/$2" -o "$out" $(flags df11) "-Wl,-rpath,$LIB"
    [ "$(needs "$out")" = "$(soname "$LIB")" ]
    says "$out"
    # Without an rpath the loader does not find it by accident, but finds it in LD_LIBRARY_PATH.
    # shellcheck disable=SC2046
    "$1" "-std=$3" "${warnings[@]}" "$here/$2" -o "$out" $(flags df11)
    fails "$out" "$golden/model"
    grep -q "$(soname "$LIB")" "$scratch/failing"
    says env "LD_LIBRARY_PATH=$LIB" "$out"
    # The archive, and the system's shared libraries.
    # shellcheck disable=SC2046
    "$1" "-std=$3" "${warnings[@]}" "$here/$2" -o "$out" $(flags df11-static)
    [ -z "$(needs "$out")" ]
    says "$out"
}
stacks() { # what the header says of the stack that a call needs, also where a config is nested as deeply as it may be
    local out=$scratch/program deep=$scratch/deep runs=$scratch/runs
    rm -rf "$deep" "$runs"
    mkdir "$deep" "$runs"
    # shellcheck disable=SC2046 # words
    "$cc" -std=c11 "${warnings[@]}" tests/c/stack.c -o "$out" $(flags df11) -lpthread "-Wl,-rpath,$LIB"
    python3 "$here/nested.py" "$root/tests/data/golden/tiny/model" "$deep" >"$scratch/nested"
    xargs "$out" "$root/tests/data/golden" "$runs" <"$scratch/nested"
}
wholly_static() {
    local out=$scratch/program kind
    for kind in -static -static-pie; do
        # shellcheck disable=SC2046
        "$cc" "$kind" "${warnings[@]}" "$here/consumer.c" -o "$out" $(flags --static df11)
        fails ldd "$out" || grep -q 'statically linked' <(ldd "$out")
        says "$out"
    done
}
embedded() { # the archive inside another shared library, as docs/install.md says: it exports nothing of ours
    local out=$scratch/libengine.so
    echo '#include <df11.h>
        const char *engine(void) { return df11_version_string(); }' >"$scratch/engine.c"
    # shellcheck disable=SC2046
    "$cc" -shared -fPIC "$scratch/engine.c" -o "$out" -Wl,--exclude-libs,ALL $(flags df11-static)
    [ "$(nm -D --defined-only "$out" | awk '{print $3}')" = engine ]
}
by_cmake() {
    local language program
    for language in "C;CXX" CXX; do
        rm -rf "$scratch/cmake"
        cmake -S "$here/cmake" -B "$scratch/cmake" -DLANGUAGES="$language" -DCMAKE_PREFIX_PATH="$TREE" -DWANTED="$version"
        cmake --build "$scratch/cmake"
        for program in "$scratch"/cmake/{c,cc}_df11; do
            case "$language:$program" in CXX:*/c_df11) continue ;; esac
            [ "$(needs "$program")" = "$(soname "$LIB")" ]
            says "$program"
            [ -z "$(needs "${program}_static")" ]
            says "${program}_static"
        done
    done
}
by_fetchcontent() { # from the clone itself, with what `make build` has built
    local generator program built=${CARGO_TARGET_DIR:-$root/target}
    local from=(-S "$here/fetchcontent" -B "$scratch/fetched" -DDF11_SOURCE="$root" -DWANTED="$version")
    fails cmake "${from[@]}" -DDF11_CARGO=/nowhere/cargo
    grep -q 'libdf11 is built by cargo' "$scratch/failing"
    for generator in "Unix Makefiles" Ninja; do
        [ "$generator" != Ninja ] || command -v ninja >/dev/null || continue
        rm -rf "$scratch/fetched"
        cmake -G "$generator" "${from[@]}" -DDF11_CARGO_TARGET_DIR="$built" "-DDF11_CARGO_FLAGS=--features;cli"
        cmake --build "$scratch/fetched"
        for program in "$scratch"/fetched/{c,cc}_df11; do
            [ "$(needs "$program")" = "libdf11.so.${version%.*}" ]
            says "$program"
            [ -z "$(needs "${program}_static")" ]
            says "${program}_static"
        done
        # Nothing is linked again where nothing has changed.
        touch "$scratch/before"
        cmake --build "$scratch/fetched"
        [ ! "$scratch/fetched/cc_df11_static" -nt "$scratch/before" ]
    done
}
by_go() {
    local out=$scratch/program own
    own=$(bindings/go/flags.sh "$TREE" "$LIB")
    export PKG_CONFIG_PATH=$LIB/pkgconfig GOFLAGS="-mod=readonly $own" GOWORK=off CGO_ENABLED=1
    PATH=$(bindings/go/toolchain.sh):$PATH
    go build -C "$here/go" -o "$out" .
    [ "$(needs "$out")" = "$(soname "$LIB")" ]
    fails "$out" "$golden/model"
    says env "LD_LIBRARY_PATH=$LIB" "$out"
    CGO_LDFLAGS="-Wl,-rpath,$LIB" go build -C "$here/go" -o "$out" .
    says "$out"
    go build -C "$here/go" -tags df11_static -o "$out" .
    [ -z "$(needs "$out")" ]
    says "$out"
}
# Programs that contain the library, in a system that has glibc and nothing else, as small images do.
glibc_only() {
    local system=$scratch/glibc out=$scratch/program file jail own
    if unshare -r chroot / true 2>/dev/null; then
        jail=(unshare -r chroot "$system")
    else # tests/run.sh is root in a container
        jail=(chroot "$system")
    fi
    # shellcheck disable=SC2046 # words
    "$cc" "${warnings[@]}" "$here/consumer.c" -o "$out" $(flags df11-static)
    rm -rf "$system"
    for file in "$(readelf -lW "$out" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')" \
        "$(cc -print-file-name=libc.so.6)" "$(cc -print-file-name=libm.so.6)" \
        "$(cc -print-file-name=libpthread.so.0)" "$(cc -print-file-name=libdl.so.2)"; do
        file=$(realpath -s "$file")
        install -D "$file" "$system$file"
    done
    mkdir -p "$system$golden"
    cp -r "$golden/model" "$system$golden/"
    confined() { # PROGRAM ARGUMENT...: runs a copy of the program inside
        cp "$1" "$system/program"
        shift
        "${jail[@]}" /program "$@"
    }
    says confined "$out"
    # C++ needs its own library inside, too.
    # shellcheck disable=SC2046
    "$cxx" -static-libstdc++ "${warnings[@]}" "$here/consumer.cc" -o "$out" $(flags df11-static)
    says confined "$out"
    rm -rf "$scratch/cmake"
    cmake -S "$here/cmake" -B "$scratch/cmake" -DLANGUAGES="C;CXX" -DCMAKE_PREFIX_PATH="$TREE" -DWANTED="$version"
    cmake --build "$scratch/cmake" --target c_df11_static
    says confined "$scratch/cmake/c_df11_static"
    own=$(bindings/go/flags.sh "$TREE" "$LIB")
    PKG_CONFIG_PATH=$LIB/pkgconfig GOFLAGS="-mod=readonly $own" GOWORK=off CGO_ENABLED=1 \
        PATH=$(bindings/go/toolchain.sh):$PATH go build -C "$here/go" -tags df11_static -o "$out" .
    says confined "$out"
    # Without the option a program does not start there; otherwise the above would show nothing.
    # shellcheck disable=SC2046
    "$cc" "${warnings[@]}" "$here/consumer.c" -o "$out" $(flags df11-static | sed 's/-static-libgcc//')
    fails confined "$out" "$golden/model"
    grep -q 'libgcc_s.so.1' "$scratch/failing"
}
two_archives() {
    local out=$scratch/two other whole kind
    local all='-Wl,--whole-archive' some='-Wl,--no-whole-archive'
    rustc --edition 2024 --crate-type staticlib -C opt-level=1 "$here/other.rs" -o "$scratch/libother.a"
    # Also with all objects of both archives, so that every symbol that is in both clashes.
    for whole in no yes; do
        for other in libother libother_local; do
            [ "$other" = libother ] || bindings/packages/localise.sh "$scratch/libother.a" "$scratch/$other.a" \
                other_catch other_threads
            for kind in "" -static-pie -Wl,--gc-sections; do
                case $whole in
                no) set -- "$scratch/$other.a" "$LIB/libdf11.a" ;;
                yes) set -- "$all" "$LIB/libdf11.a" "$scratch/$other.a" "$some" ;;
                esac
                # shellcheck disable=SC2086
                "$cc" $kind "${warnings[@]}" "-I$TREE/include" "$here/two.c" "$@" -lpthread -ldl -lm -o "$out"
                "$out" "$golden/model"
            done
        done
    done
}
# The archive that cargo makes cannot be linked in this way; otherwise the test above would show nothing.
two_archives_as_cargo_makes_them() {
    fails "$cc" "-I$TREE/include" "$here/two.c" -Wl,--whole-archive target/release/libdf11.a \
        "$scratch/libother.a" -Wl,--no-whole-archive -lpthread -ldl -lm -o "$scratch/two"
    grep -q 'multiple definition' "$scratch/failing"
}
tool() {
    [ "$("$TREE/bin/df11" --version)" = "df11 $version" ]
    "$TREE/bin/df11" verify "$golden/model" --against "$golden/original.safetensors"
    # Completions that the shells read, and a manual page for each command.
    local share=$TREE/share commands command page zsh
    commands=$("$TREE/bin/df11" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v '^help$')
    # shellcheck disable=SC2016 # the other shell expands that
    env -i bash --norc -ec 'source "$1"; complete -p df11; COMP_WORDS=(df11 ver) COMP_CWORD=1; _df11 df11 ver df11
        [ "${COMPREPLY[*]}" = verify ]' - "$share/bash-completion/completions/df11"
    zsh=$(echo "$share"/zsh/*/_df11)
    grep -q '^#compdef df11' "$zsh"
    ! command -v zsh >/dev/null || zsh -n "$zsh"
    ! command -v fish >/dev/null || fish --no-execute "$share/fish/vendor_completions.d/df11.fish"
    for command in '' $commands; do
        page=$(echo "$share/man/man1/df11${command:+-$command}.1"*)
        case $page in *.gz) gzip -dc "$page" ;; *) cat "$page" ;; esac >"$scratch/page"
        grep -q '^\.SH SYNOPSIS' "$scratch/page"
        ! command -v groff >/dev/null || [ -z "$(groff -man -Tutf8 -ww -z "$scratch/page" 2>&1)" ]
        [ -z "$command" ] || grep -q "complete .*-a \"$command\"" "$share/fish/vendor_completions.d/df11.fish"
    done
}
consumers() { # LABEL TREE LIB
    TREE=$2 LIB=$3
    t "$1: C by pkg-config" c_and_cpp "$cc" consumer.c c11
    t "$1: C++ by pkg-config" c_and_cpp "$cxx" consumer.cc c++17
    t "$1: C and C++ by CMake" by_cmake
    t "$1: Go by pkg-config" by_go
}

installed() {
    local tree
    tree=$(realpath -ms "${DF11_PREFIX:-$root/target/stage}")
    [ -n "${DF11_PREFIX:-}" ] || { rm -rf "$tree" && t "make install" make install "PREFIX=$tree"; }
    t "the tree is right" bindings/packages/check.sh "$tree"
    consumers installed "$tree" "$tree/lib"
    t "the stack of every call" stacks
    t "C, static as a whole" wholly_static
    t "the archive in a shared library" embedded
    t "C, C++, CMake and Go in a system with glibc only" glibc_only
    t "two archives made by Rust in one program" two_archives
    t "as cargo makes them they clash" two_archives_as_cargo_makes_them
    t "C and C++ by FetchContent" by_fetchcontent
    t "the tool" tool
    # A tree that was moved, or is reached by a link, is found at its new place.
    cp -a "$tree" "$scratch/moved"
    mkdir "$scratch/usr" && mv "$scratch/moved" "$scratch/usr/moved to"
    mv "$scratch/usr/moved to" "$scratch/usr/moved" && ln -s usr/moved/lib "$scratch/lib"
    t "the tree names no folder" fails grep -rIl -e "$tree" "$scratch/usr/moved"
    consumers moved "$scratch/usr/moved" "$scratch/usr/moved/lib"
    t "the tool, moved" tool
}

rust() {
    TREE='' LIB=''
    t "Rust, over the packed crate" by_rust
}
by_rust() {
    local folder=$root/target/packages
    rm -rf "$folder/libdf11-$version" "$folder/consumer"
    mkdir -p "$folder/consumer"
    cargo package --locked --no-verify --allow-dirty -p libdf11 --target-dir "$folder/pack"
    # With the current time: all files in a crate have one fixed date, so cargo would not notice that they have changed.
    tar -C "$folder" -xmf "$folder/pack/package/libdf11-$version.crate"
    cp "$here/rust/main.rs" Cargo.lock "$folder/consumer/"
    sed "s/@VERSION@/$version/" "$here/rust/Cargo.toml" >"$folder/consumer/Cargo.toml"
    # In the usual target folder, because the other tests have built most packages there.
    cargo build --manifest-path "$folder/consumer/Cargo.toml" --target-dir target
    says target/debug/consumer
}

dist() {
    [ "$(uname -sm)" = "Linux x86_64" ] || { skip "make dist: it builds on Linux on x86-64 only" && return; }
    local name=libdf11-$version-x86_64-linux-gnu
    t "make dist" make dist
    t "once more, the same bytes" dist_again "$name"
    t "its checksum" sh -c 'cd target/dist && sha256sum -c SHA256SUMS'
    t "it unpacks" tar -C "$scratch" -xf "target/dist/$name.tar.gz"
    t "it needs no later glibc than 2.17" bindings/packages/check.sh "$scratch/$name" "$scratch/$name/lib" 2.17
    consumers dist "$scratch/$name" "$scratch/$name/lib"
    t "dist: C, static as a whole" wholly_static
    t "dist: two archives made by Rust in one program" two_archives
    t "dist: C, C++, CMake and Go in a system with glibc only" glibc_only
    t "dist: the tool" tool
    t "make wheel" wheel "$scratch/$name/lib"
    t "the wheel once more, the same bytes" wheel_again
    t "dist: the notices of what is linked in" grep -q '^safetensors [0-9.]*: Apache-2.0' "$scratch/$name/share/doc/libdf11/THIRD-PARTY.txt"
}
wheel() { # LIB: the wheel has the library of the release, and decodes with it in an environment that has nothing else
    make wheel
    (cd target/wheel && sha256sum -c SHA256SUMS)
    rm -rf "$scratch/wheel"
    python3 -m venv --without-pip "$scratch/wheel"
    target/wheel/python/bin/python3 -m pip --quiet --disable-pip-version-check --python "$scratch/wheel/bin/python" install \
        --no-index --no-deps target/wheel/*.whl
    cmp "$(echo "$scratch"/wheel/lib/python3*/site-packages/df11/libdf11.so)" "$1/libdf11.so"
    "$scratch/wheel/bin/python" -I bindings/python/tests/bare.py tests/data/golden
}
wheel_again() {
    mkdir -p "$scratch/again"
    (umask 0077 && BUILD=target/dist/x86_64-unknown-linux-gnu/release OUT=$scratch/again bindings/python/wheel.sh)
    cmp target/wheel/SHA256SUMS "$scratch/again/SHA256SUMS"
}
dist_again() {
    mv "target/dist/$1.tar.gz" "$scratch/first.tar.gz"
    touch include/df11.h
    make dist
    cmp "$scratch/first.tar.gz" "target/dist/$1.tar.gz"
}

deb() {
    command -v dpkg-shlibdeps >/dev/null || { skip "make deb: missing dpkg-shlibdeps (Debian package dpkg-dev)" && return; }
    t "make deb" make deb
    local system=$scratch/system
    t "dpkg installs the packages" deb_install "$system"
    t "the installed files are right" bindings/packages/check.sh "$system/usr" "$(echo "$system"/usr/lib/*-linux-gnu*)"
    TREE=$system/usr LIB=$(echo "$system"/usr/lib/*-linux-gnu*)
    t "deb: C by pkg-config, in a system root" deb_consumer "$system"
    t "deb: C and C++ by CMake" by_cmake
    t "deb: the tool" tool
    t "dpkg removes them without a trace" deb_remove "$system"
}
dpkg_in() { # ROOT ARGUMENTS: runs dpkg on a system in a folder. No package has a script, so nothing of that system is run.
    local as=()
    [ "$(id -u)" = 0 ] || as=(fakeroot)
    "${as[@]}" dpkg "--root=$1" --log=/dev/null --force-not-root --force-bad-path "${@:2}"
}
deb_install() {
    local package native
    # Where packages of several architectures are installed, a name alone may mean more than one.
    native=$(dpkg --print-architecture)
    mkdir -p "$1/var/lib/dpkg/"{updates,info,triggers}
    touch "$1/var/lib/dpkg/available"
    # The packages' dependencies are recorded as they are on this machine: dpkg refuses if that is not enough.
    for package in "libc6:$native" "libgcc-s1:$native"; do
        dpkg --status "$package"
        echo
        touch "$1/var/lib/dpkg/info/$package.list"
    done >"$1/var/lib/dpkg/status"
    for package in target/deb/*.deb; do
        [ "$(dpkg-deb --ctrl-tarfile "$package" | tar -t | grep -cE '(pre|post)(inst|rm)')" = 0 ]
        dpkg-deb --contents "$package" | fails grep -v ' root/root '
    done
    fails dpkg_in "$1" --install target/deb/libdf11-dev_*.deb # depends on the library's package
    dpkg_in "$1" --install target/deb/*.deb
    dpkg_in "$1" --verify libdf11-0.1 libdf11-dev df11 >"$scratch/verified"
    [ ! -s "$scratch/verified" ]
    grep -qx "libdf11 0.1 libdf11-0.1 (>= $version)" "$1"/var/lib/dpkg/info/libdf11-0.1*.shlibs
    [ -f "$1/usr/share/doc/libdf11-0.1/copyright" ]
}
deb_consumer() {
    local out=$scratch/program
    # Without a sysroot the .pc files must name the folders in /usr, as those of Debian's packages do.
    [ "$(PKG_CONFIG_LIBDIR=$LIB/pkgconfig pkg-config --variable=includedir df11)" = /usr/include ]
    # shellcheck disable=SC2046
    "$cc" "${warnings[@]}" "$here/consumer.c" -o "$out" \
        $(PKG_CONFIG_SYSROOT_DIR=$1 PKG_CONFIG_SYSTEM_INCLUDE_PATH=/none PKG_CONFIG_SYSTEM_LIBRARY_PATH=/none flags df11)
    [ "$(needs "$out")" = "$(soname "$LIB")" ]
    says env "LD_LIBRARY_PATH=$LIB" "$out"
}
deb_remove() {
    dpkg_in "$1" --purge libdf11-dev df11 libdf11-0.1
    find "$1" -path "$1/var" -prune -o ! -type d -print >"$scratch/left"
    [ ! -s "$scratch/left" ] || { cat "$scratch/left"; return 1; }
}

python3 "$here/expected.py" "$golden/original.safetensors" >"$scratch/expected"
[ -s "$scratch/expected" ]
for part in "${@:-all}"; do
    case $part in
    install) installed ;;
    rust | dist | deb) "$part" ;;
    all) installed && rust && dist && deb ;;
    *) echo "usage: tests/packages/run.sh [install|rust|dist|deb]..." >&2 && exit 2 ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
