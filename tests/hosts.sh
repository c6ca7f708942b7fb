#!/usr/bin/env bash
# Runs the named test programs of tests/tests: `tests/hosts.sh cluster store …`. Those that boot hosts run side by side, for most of
# their time is waiting for leases; how many labs are up at once is `fleet_tests::cluster`'s to say. The others come first, one by one.
# All run, whatever fails. A program's output is shown when it has ended. Exit status: 0 if all passed.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

boots="cluster examples faults systemd"
alone=()
together=()
for name in "$@"; do
    case " $boots " in
        *" $name "*) together+=("$name") ;;
        *) alone+=(--test "$name") ;;
    esac
done

logs=$(mktemp -d)
declare -A running
tidy() {
    for pid in "${running[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    wait
    rm -rf "$logs"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failed=0
run() { "${CARGO:-cargo}" test --no-fail-fast --workspace "$@" -- --test-threads=2; }
[ ${#alone[@]} -eq 0 ] || run "${alone[@]}" || failed=1

for name in "${together[@]}"; do
    run --test "$name" >"$logs/$name" 2>&1 &
    running[$name]=$!
done
for name in "${together[@]}"; do
    wait "${running[$name]}" || failed=1
    unset "running[$name]"
    cat "$logs/$name"
done
exit $failed
