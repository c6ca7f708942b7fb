#!/bin/sh
# Prepares a Debian machine for the lab: installs what is missing, builds the hosts' image into the cache.
# Prints the image's folder on stdout, all talk on stderr. Running it again costs a few milliseconds.
# With --packages-only it builds no image.
set -eu

here=$(dirname "$(readlink -f "$0")")
cache=${FLEET_LAB_CACHE:-/var/cache/fleet-lab}
# What the lab itself needs, then what building and testing fleet needs (protoc, a local etcd, Python for the API tests, shells that complete).
needed="systemd-container mmdebstrap iproute2 uidmap util-linux procps busybox-static nftables curl libfaketime
        gcc g++ libc6-dev protobuf-compiler libprotobuf-dev etcd-server etcd-client python3-venv openssh-client openssh-server zsh fish"

say() { echo "lab setup: $*" >&2; }
fail() { say "$*"; exit 1; }

install_packages() {
    missing=""
    for package in $needed; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    log=$(mktemp)
    trap 'exit 130' INT TERM HUP
    # A machine's own etcd would take the ports of the tests: policy-rc.d keeps apt from starting it.
    guard=/usr/sbin/policy-rc.d
    if [ ! -e $guard ]; then
        printf '#!/bin/sh\nexit 101\n' > $guard && chmod +x $guard
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "apt-get could not install$missing (whole log: $log); check the network and /etc/apt/sources.list*, then run this again"
    fi
    rm -f "$log"
}

# The image is named by its recipe, so it is rebuilt when the recipe changes and only then.
build_image() {
    hash=$(sha256sum "$here/image.sh" | cut -c1-12)
    image="$cache/image-$hash"
    [ -d "$image" ] || {
        mkdir -p "$cache"
        # Two labs that start at once build one image: the second waits here and then finds it.
        exec 9>"$cache/.lock"
        flock 9
        if [ ! -d "$image" ]; then
            rm -rf "$cache"/building-*
            say "building the hosts' image (about half a minute, once) in $image"
            building="$cache/building-$$"
            log="$cache/build.log"
            mkdir "$building"
            if ! sh "$here/image.sh" "$building" >"$log" 2>&1 9>&-; then
                tail -n 15 "$log" >&2
                rm -rf "$building"
                fail "could not build the image (whole log: $log)"
            fi
            mv "$building" "$image"
        fi
    }
    echo "$image"
}

[ "$(id -u)" = 0 ] || fail "must run as root: it boots systemd in containers"
command -v apt-get >/dev/null || fail "needs Debian 12 or later (no apt-get found)"
install_packages
[ "${1-}" = --packages-only ] || build_image
