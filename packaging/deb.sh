#!/bin/sh
# Builds the Debian packages fleetd and fleetctl from built programs: `packaging/deb.sh [OPTION]... BIN_DIR OUT_DIR`.
# BIN_DIR has what `packaging/deb.sh --programs` lists; man writes the man pages and completions. Prints the packages' paths.
#   --version V   instead of Cargo.toml's
#   --fast        neither stripped nor compressed: for hosts of the lab, which live for minutes
# Needs dpkg-deb, and without --fast binutils; no root. The same input gives the same bytes.
set -eu

top=$(dirname "$(dirname "$(readlink -f "$0")")")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/Cargo.toml" | head -n 1)
fast=""

# What fleetd's units start.
fleetd_programs() { sed -n 's|^ExecStart=/usr/bin/\([a-z-]*\).*|\1|p' "$top"/fleetd/dist/*.service | sort -u; }

if [ "${1:-}" = --programs ]; then
    echo $(fleetd_programs) fleetctl man
    exit
fi
while [ $# -gt 2 ]; do
    case $1 in
    --version) version=$2; shift 2 ;;
    --fast) fast=yes; shift ;;
    *) echo "deb.sh: unknown option $1" >&2; exit 2 ;;
    esac
done
[ $# = 2 ] || { sed -n '2,3p' "$0" >&2; exit 2; }
bin=$1
out=$2

# Debian sorts 2.0.0~alpha.1 before 2.0.0, as semver does 2.0.0-alpha.1.
deb_version=$(echo "$version" | tr - '~')-1
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The fleet authors} <${DEBEMAIL:-fleet@fleet.invalid}>"
# Times in the packages: the last commit's, so that a second build gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

main() {
    for program in $(fleetd_programs) fleetctl man; do
        [ -x "$bin/$program" ] || { echo "deb.sh: $bin/$program is missing; build it first" >&2; exit 1; }
    done
    mkdir -p "$out"
    "$bin/man" "$work/pages"
    fleetd_package
    fleetctl_package
}

fleetd_package() {
    root=$work/fleetd
    for program in $(fleetd_programs); do
        program "$program"
    done
    for unit in "$top"/fleetd/dist/*.service "$top"/fleetd/dist/*.socket; do
        put "$unit" usr/lib/systemd/system
    done
    put "$top/fleetd/dist/user/fleetd.service" usr/lib/systemd/user
    pages '*.8' man8
    # Configuration is what an administrator puts here; the package brings none, since the defaults are a working machine.
    mkdir -p "$root/etc/fleet/fleetd.conf.d"
    put "$top/packaging/fleet-guard.conf" etc/needrestart/conf.d
    build "fleetd" "default-dbus-system-bus | dbus-system-bus, systemd (>= 252)" "Recommends: fleetctl
Suggests: podman, etcd-server" "makes the machines of a cluster one init system
 fleetd runs on every machine of a cluster and drives its systemd. Units go to
 the machines that fit, and the wanted number of each is kept through crashes,
 lost machines and upgrades. With etcd it is one of a cluster; without any
 configuration it manages this machine alone."
}

fleetctl_package() {
    root=$work/fleetctl
    program fleetctl
    pages 'fleetctl*.1' man1
    pages 'fleet-unit.5' man5
    put "$work/pages/completions/fleetctl" usr/share/bash-completion/completions
    put "$work/pages/completions/_fleetctl" usr/share/zsh/vendor-completions
    put "$work/pages/completions/fleetctl.fish" usr/share/fish/vendor_completions.d
    build "fleetctl" "" "Suggests: openssh-client" "command line client of fleet
 fleetctl submits systemd units to a fleet cluster, says how many of each should
 run, and shows where they run, with their status and journals."
}

# program NAME: into /usr/bin.
program() {
    mkdir -p "$root/usr/bin"
    cp "$bin/$1" "$root/usr/bin/$1"
    chmod 755 "$root/usr/bin/$1"
    [ -n "$fast" ] || strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/$1"
}

# put FILE FOLDER: as a plain file below the package's root.
put() {
    mkdir -p "$root/$2"
    cp "$1" "$root/$2/"
    chmod 644 "$root/$2/$(basename "$1")"
}

# pages PATTERN FOLDER: the man pages.
pages() {
    for page in "$work"/pages/man/$1; do
        put "$page" "usr/share/man/$2"
        gzip -9n "$root/usr/share/man/$2/$(basename "$page")"
    done
}

# build NAME DEPENDS MORE_FIELDS DESCRIPTION: the control files and documents every package has, then the package.
build() {
    doc=$root/usr/share/doc/$1
    mkdir -p "$doc" "$root/DEBIAN"
    put "$top/packaging/copyright" "usr/share/doc/$1"
    gzip -9nc "$top/CHANGELOG.md" > "$doc/changelog.gz"
    printf 'fleet (%s) unstable; urgency=medium\n\n  * Built from the source tree; changelog.gz says what is new.\n\n -- %s  %s\n' \
        "$deb_version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9nc > "$doc/changelog.Debian.gz"
    mkdir -p "$root/usr/share/lintian/overrides"
    echo "$1: initial-upload-closes-no-bugs" > "$root/usr/share/lintian/overrides/$1" # it is not for Debian's archive
    for script in "$top/packaging/$1".p*; do
        [ -e "$script" ] || continue
        cp "$script" "$root/DEBIAN/${script##*.}"
        chmod 755 "$root/DEBIAN/${script##*.}"
    done
    (cd "$root" && find etc -type f 2>/dev/null | sort | sed 's|^|/|') > "$root/DEBIAN/conffiles"
    [ -s "$root/DEBIAN/conffiles" ] || rm "$root/DEBIAN/conffiles"
    size=$(du -sk --exclude=DEBIAN "$root" | cut -f 1)
    libraries=$(libraries_of "$root"/usr/bin/*)
    cat > "$root/DEBIAN/control" <<CONTROL
Package: $1
Source: fleet
Version: $deb_version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $size
Depends: $libraries${2:+, $2}
$3
Section: admin
Priority: optional
Description: $4
CONTROL
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"
    chmod 644 "$root/DEBIAN/control" "$root/DEBIAN/md5sums"
    deb=$out/${1}_${deb_version}_$architecture.deb
    dpkg-deb --root-owner-group ${fast:+-Znone} --build "$root" "$deb" >/dev/null
    echo "$deb"
}

# What the programs are linked against, as a Depends= field: glibc in the version whose symbols they use, and gcc's unwinder.
libraries_of() {
    [ -z "$fast" ] || { echo libc6, libgcc-s1; return; } # built on this machine for hosts that are not older
    others=$(objdump -p "$@" | awk '$1 == "NEEDED" && $2 !~ /^(libc|libm|libdl|libpthread|librt|libgcc_s|ld-linux.*)\.so/ { print $2 }')
    [ -z "$others" ] || { echo "deb.sh: no package is known for" $others "that $* need; name it in libraries_of" >&2; exit 1; }
    newest=$(objdump -T "$@" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    echo "libc6 (>= ${newest#GLIBC_}), libgcc-s1 (>= 4.2)"
}

main
