#!/usr/bin/env bash
# The figures of docs/performance.md: `tests/bench.sh [plan] [host] [three] [idle] [leader]`; all of them without an argument.
# Those of docs/reliability.md take half an hour and are asked for by name: `tests/bench.sh reliability [FAULT]… [--runs N]`.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "building (release)" >&2
cargo build --release --quiet --workspace --bins
if [ "${1-}" = reliability ]; then
    exec target/release/bench_reliability "${@:2}"
fi
if [ $# = 0 ] || [[ " $* " = *" plan "* ]]; then
    target/release/bench_plan
fi
args=("$@")
rest=("${args[@]/plan/}")
[ "$*" = plan ] || target/release/bench_cluster ${rest[@]+"${rest[@]}"}
