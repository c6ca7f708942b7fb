#!/usr/bin/env bash
# Runs the named test programs of tests/tests: `tests/hosts.sh BUILT cluster store …`, where the file BUILT is what cargo said when it
# built them. Those that boot hosts run side by side, for most of their time is waiting for leases; how many labs are up at once is
# `fleet_tests::cluster`'s to say. The others come first, one by one. All run, whatever fails. What hosts' programs print is shown when
# they have ended. Exit status: 0 if all passed.
#
# The programs are run without cargo, which would wait for any other build to end.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

boots="cluster examples faults systemd tutorial"
export CARGO=${CARGO:-cargo}
logs=$(mktemp -d)
declare -A program running
tidy() {
    for pid in "${running[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    wait
    rm -rf "$logs"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

main() {
    local failed=0 name
    find_programs "$@" || return 1
    shift
    for name in "$@"; do
        is_booting "$name" || (run "$name" 2) || failed=1
    done
    for name in "$@"; do
        if is_booting "$name"; then
            (run "$name" 4) >"$logs/$name.out" 2>&1 &
            running[$name]=$!
        fi
    done
    for name in "${!running[@]}"; do
        wait "${running[$name]}" || failed=1
        unset "running[$name]"
        cat "$logs/$name.out"
    done
    return $failed
}

is_booting() { [[ " $boots " = *" $1 "* ]]; }

# Where cargo put each of them.
find_programs() {
    local built=$1 name path
    shift
    while read -r path; do
        name=$(basename "$path")
        program[${name%-*}]=$(readlink -f "$path")
    done < <(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$built")
    for name in "$@"; do
        [ -x "${program[$name]:-}" ] || { echo "$built names no program of the test $name; run \`make tests\`" >&2; return 1; }
    done
}

# Becomes the program: to be called in a subshell. `run NAME THREADS`.
run() {
    echo "     Running tests/tests/$1"
    cd tests || exit 1
    CARGO_MANIFEST_DIR=$PWD exec "${program[$1]}" --test-threads="$2"
}

main "$@"
