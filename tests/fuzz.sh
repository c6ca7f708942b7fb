#!/bin/bash
# Fuzzes the unit-file parser and the API side by side: `tests/fuzz.sh [SECONDS]`, 60 s each by default. Ends with 1 when one of them
# found an input for which tests/fuzz/src does not hold, and names the file that has it; mend the fault, and add the file to the corpus.
# `tests/fuzz.sh --merge` adds to tests/fuzz/corpus what FUZZ_FOUND (a folder for finds, kept then) has of new branches.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

targets="unit_file api"
target=${CARGO_TARGET_DIR:-target}
found=${FUZZ_FOUND:-$(mktemp -d)}
declare -A pids
tidy() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ -n "${FUZZ_FOUND:-}" ] || rm -rf "$found"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --workspace, so that dependencies get the features that all other builds of the workspace give them, and are not built once more.
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/rustc.sh cargo build --quiet --workspace --features fleet-fuzz/libfuzzer \
    --bin fuzz_unit_file --bin fuzz_api

if [ "${1:-}" = --merge ]; then
    for name in $targets; do
        mkdir -p "$target/fuzz"
        "$target/debug/fuzz_$name" -set_cover_merge=1 -use_counters=0 -max_len=4096 -artifact_prefix="$target/fuzz/$name-" \
            "tests/fuzz/corpus/$name" "$found/$name" 2>&1 | tail -n 1
    done
    exit
fi

for name in $targets; do
    mkdir -p "$found/$name" "$target/fuzz"
    # New finds go into the first folder, the corpus is only read.
    "$target/debug/fuzz_$name" -max_total_time="${1:-60}" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
        -dict="tests/fuzz/$name.dict" -artifact_prefix="$target/fuzz/$name-" \
        "$found/$name" "tests/fuzz/corpus/$name" >"$found/$name.log" 2>&1 &
    pids[$name]=$!
done
failed=""
for name in $targets; do
    pid=${pids[$name]}
    status=0
    wait "$pid" || status=$?
    unset "pids[$name]"
    if [ "$status" = 0 ]; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/$name.log")
        branches=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$found/$name.log" | tail -n 1)
        echo "fuzz $name: $runs inputs, $branches branches seen, no fault"
    else
        echo "fuzz $name: found a fault" >&2
        grep -v -e '^#' -e '^INFO' "$found/$name.log" | head -n 40 >&2
        failed=yes
    fi
done
[ -z "$failed" ]
