#!/usr/bin/env bash
# Makes Debian packages of what cargo has built: libdf11-0.1 (the shared library), libdf11-dev, and df11 (the tool).
#
#     deb.sh              writes target/deb/*.deb; BUILD as in install.sh
#
# Of Debian it needs dpkg-dev only. The packages depend on the C library that BUILD was linked with: those of `make deb` fit this
# system, and those made with BUILD=target/dist/x86_64-unknown-linux-gnu/release, after `make dist`, fit all.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
build=${BUILD:-target/release}
templates=bindings/packages/debian

version=$(dpkg-parsechangelog -l "$templates/changelog" -S Version)
[ "${version%-*}" = "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" ] ||
    { echo "deb: debian/changelog says $version, Cargo.toml something else" >&2; exit 1; }
soname=$(readelf -dW "$build/libdf11.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
abi=${soname#libdf11.so.}
# Debian's rule for a library whose name ends in a digit. Each new soname is a new package, installed next to the old one.
library=libdf11-$abi
grep -qx "Package: $library" "$templates/control" || { echo "deb: debian/control has no $library" >&2; exit 1; }
arch=$(dpkg-architecture -qDEB_HOST_ARCH) triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(dpkg-parsechangelog -l "$templates/changelog" -S Timestamp)}

work=target/deb
rm -rf "$work"
mkdir -p "$work/debian"
cp "$templates/control" "$templates/changelog" "$work/debian/"
sed -e '/@MIT@/{' -e 'r /dev/stdin' -e 'd' -e '}' "$templates/copyright" >"$work/copyright" \
    < <(tail -n +5 LICENSE-MIT | sed 's/^$/./; s/^/ /')
bindings/packages/licences.sh >"$work/THIRD-PARTY.txt"
BUILD=$build PREFIX=/usr LIBDIR=/usr/lib/$triplet PC_PREFIX=/usr ZSH=/usr/share/zsh/vendor-completions DESTDIR=$root/$work/all bindings/packages/install.sh

# Distributes the files among the packages.
cd "$work"
take() { # PACKAGE PATH...
    local package=$1 path
    shift
    for path in "$@"; do
        mkdir -p "debian/$package/$(dirname "$path")"
        mv "all/$path" "debian/$package/$path"
    done
}
lib=usr/lib/$triplet
real=$lib/libdf11.so.${version%-*}
chmod 644 "all/$real" # as Debian has it
take "$library" "$lib/$soname" "$real"
take libdf11-dev usr/include "$lib/libdf11.so" "$lib/libdf11.a" "$lib/pkgconfig" "$lib/cmake" usr/share/df11
gzip -9n all/usr/share/man/man1/*.1
take df11 usr/bin/df11 usr/share/man usr/share/{bash-completion,fish,zsh}
mkdir texts
mv all/usr/share/doc/libdf11/* texts/
left=$(find all ! -type d)
[ -z "$left" ] || { echo "deb: in no package: $left" >&2; exit 1; }

for package in "$library" libdf11-dev df11; do
    doc=debian/$package/usr/share/doc/$package
    install -D -m 644 copyright "$doc/copyright"
    gzip -9nc debian/changelog >"$doc/changelog.Debian.gz"
    gzip -9nc texts/CHANGELOG.md >"$doc/changelog.gz"
    [ "$package" = libdf11-dev ] || install -m 644 THIRD-PARTY.txt "$doc/"
    mkdir -p "debian/$package/DEBIAN"
done
# The archive contains the same code; its notices are in the package that libdf11-dev depends on.
install -m 644 texts/README.md "debian/libdf11-dev/usr/share/doc/libdf11-dev/"

# For packages that are linked with the library, and for the loader's cache.
echo "libdf11 $abi $library (>= ${version%-*})" >"debian/$library/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"debian/$library/DEBIAN/triggers"
for package in "$library" libdf11-dev df11; do
    variables=debian/$package.substvars
    : >"$variables"
    case $package in
    "$library") dpkg-shlibdeps -T"$variables" "-edebian/$package/$real" ;;
    df11) dpkg-shlibdeps -T"$variables" -edebian/df11/usr/bin/df11 ;;
    esac
    (cd "debian/$package" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    find "debian/$package" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-gencontrol -p"$package" -ldebian/changelog -cdebian/control -T"$variables" -P"debian/$package" \
        -O"debian/$package/DEBIAN/control"
    chmod -R u+rwX,go+rX,go-w "debian/$package"
    dpkg-deb --root-owner-group -Zxz --build "debian/$package" "${package}_${version}_$arch.deb" >/dev/null
done
ls -l ./*.deb
