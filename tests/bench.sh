#!/usr/bin/env bash
# The figures of docs/performance.md: `tests/bench.sh [plan] [lists] [host] [three] [idle] [leader]`; all of them without an argument.
# Those of docs/reliability.md take half an hour and are asked for by name: `tests/bench.sh reliability [FAULT]… [--runs N]`.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "building (release)" >&2
cargo build --release --quiet --workspace --bins
if [ "${1-}" = reliability ]; then
    exec target/release/bench_reliability "${@:2}"
fi
# These need no lab; the rest of the words goes to the one that does.
rest=()
for word in "${@:-}"; do
    case $word in
    plan | lists) target/release/bench_"$word" ;;
    "") target/release/bench_plan && target/release/bench_lists && target/release/bench_cluster ;;
    *) rest+=("$word") ;;
    esac
done
[ ${#rest[@]} = 0 ] || target/release/bench_cluster "${rest[@]}"
