#!/bin/sh
# The hosts' image with fleet's packages installed: `install.sh IMAGE BIN_DIR` builds the packages from the programs in BIN_DIR,
# installs them by dpkg into a copy of IMAGE, and prints the copy's folder. Running it again costs a few milliseconds.
set -eu

image=$1
bin=$2
here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
cache=$(dirname "$image")
labs=${FLEET_LAB_STATE:-/var/lib/fleet-lab}
# As large as needed for a lab between this script and the file that names its image.
unused_minutes=10

main() {
    hash=$(inputs | sha256sum | cut -c1-12)
    installed=$cache/installed-$hash
    # Says that it is in use, see prune.
    touch -c "$installed"
    if [ ! -d "$installed" ]; then
        exec 9>"$cache/.lock"
        flock 9
        [ -d "$installed" ] || install
        prune
    fi
    echo "$installed"
}

# What the result depends on. The programs by size and time, since reading 60 MB takes longer than all the rest.
inputs() {
    for program in $(sh "$top/packaging/deb.sh" --programs); do
        stat -L --format='%n %s %y' "$bin/$program"
    done
    echo "$image"
    cat "$0" "$top"/packaging/* "$top"/fleetd/dist/*.* "$top"/fleetd/dist/user/* "$top"/fleetctl/dist/*
}

install() {
    building=$cache/installing-$$
    log=$cache/install.log
    rm -rf "$cache"/installing-*
    mkdir "$building"
    if ! packages >"$log" 2>&1 9>&-; then
        tail -n 15 "$log" >&2
        rm -rf "$building"
        echo "lab: could not install fleet's packages into the hosts' image (whole log: $log)" >&2
        exit 1
    fi
    mv "$building" "$installed"
}

packages() {
    sh "$top/packaging/deb.sh" --fast "$bin" "$building/packages" || return 1
    # Hard links: dpkg replaces files by renaming and so leaves the image's own alone. What it appends to must not be shared.
    cp -al "$image/root" "$building/root" || return 1
    rm -f "$building/root/var/log/dpkg.log"
    ln -s "$image/containers" "$building/containers"
    # The image is without man pages; fleet's own are worth their few kilobytes.
    unshare --mount sh -eux <<SCRIPT || return 1
mkdir -p "$building/root/tmp/packages"
mount --rbind /proc "$building/root/proc"
mount --rbind /dev "$building/root/dev"
mount --bind "$building/packages" "$building/root/tmp/packages"
chroot "$building/root" sh -c 'dpkg --force-unsafe-io --path-include=/usr/share/man/*/fleet* --install /tmp/packages/*.deb'
SCRIPT
    rmdir "$building/root/tmp/packages"
}

# Removes what no lab uses and nobody has asked for in a while: each build of fleet makes a new one.
prune() {
    find "$cache" -maxdepth 1 -name 'installed-*' -mmin "+$unused_minutes" | while read -r old; do
        grep -qs "\"$old\"" "$labs"/*/state.json || rm -rf "$old"
    done
}

main
