#!/usr/bin/env bash
# The figures of docs/performance.md: `tests/bench.sh [plan] [lists] [systemd] [host] [growth] [three] [idle] [leader] [probes] [quadlet]`; all of them without an
# argument.
# Those of docs/reliability.md are asked for by name: `tests/bench.sh reliability [FAULT]… [--runs N]` (over an hour) and
# `tests/bench.sh changes [CHANGE]…` (some ten minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
for part in "${@:-plan}"; do
    case $part in
        plan | lists | systemd | host | growth | three | idle | leader | probes | quadlet | reliability | changes) ;;
        *) [ "${1-}" = reliability ] || [ "${1-}" = changes ] || { echo "no such part: $part" >&2; exit 2; } ;;
    esac
done
bin=${FLEET_BENCH_BIN:-target/release} # another folder with the programs: they are not built then
if [ "$bin" = target/release ]; then
    echo "building (release)" >&2
    cargo build --release --quiet --workspace --bins
fi
case ${1-} in
    reliability | changes) exec "$bin/bench_$1" "${@:2}" ;;
esac

# fleetd's systemd part alone, on a host of its own with fleetd stopped.
systemd() {
    lab() { "$bin/lab" --name benchs "$@"; }
    trap 'lab down' EXIT
    lab up 1 --store embedded --no-build >&2
    lab exec h1 -- systemctl stop fleetd.socket fleetd
    pid=$(lab ls --json | tr -d ' \n' | sed 's/.*"init_pid":\([0-9]*\).*/\1/')
    for part in rate list; do
        FLEET_TEST_SYSTEMD_ROOT=/proc/$pid/root "$bin/bench_systemd" "$part"
    done
    lab down
    trap - EXIT
}

# What the agent works for its health checks; the web server that answers them is not counted.
probes() {
    cargo test --release --quiet -p fleetd --lib -- --ignored --nocapture a_thousand_probes
}

[ $# -gt 0 ] || set -- plan lists systemd host growth three idle leader probes quadlet
cluster=()
for part in "$@"; do
    case $part in
        plan | lists) "$bin/bench_$part" ;;
        systemd | probes) "$part" ;;
        host | growth | three | idle | leader | quadlet) cluster+=("$part") ;;
    esac
done
[ ${#cluster[@]} = 0 ] || "$bin/bench_cluster" "${cluster[@]}"
