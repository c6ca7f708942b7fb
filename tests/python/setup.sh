#!/bin/sh
# Installs the Python tools of the tests, pinned, into a folder of the cache; prints it on stdout, all talk on stderr.
# The folder is named by the list of packages, so it is made anew when that changes and only then.
set -eu

here=$(dirname "$(readlink -f "$0")")
if [ "$(id -u)" = 0 ]; then default=/var/cache/fleet-lab; else default=${XDG_CACHE_HOME:-$HOME/.cache}/fleet-lab; fi
cache=${FLEET_LAB_CACHE:-$default}
venv="$cache/python-$(sha256sum "$here/requirements.txt" | cut -c1-12)"

say() { echo "python setup: $*" >&2; }

if [ ! -e "$venv/complete" ]; then
    mkdir -p "$cache"
    # Two tests that start at once make one folder: the second waits here and then finds it.
    exec 9>"$cache/.python-lock"
    flock 9
    if [ ! -e "$venv/complete" ]; then
        say "installing schemathesis and others (half a minute, once) in $venv"
        rm -rf "$venv"
        log="$cache/python.log"
        if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --no-input --requirement "$here/requirements.txt"; } >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            say "could not install (whole log: $log); it needs Debian's python3-venv (make test installs it) and PyPI"
            exit 1
        fi
        touch "$venv/complete"
    fi
fi
echo "$venv"
