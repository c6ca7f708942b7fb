#!/bin/sh
# cargo's RUSTC_WORKSPACE_WRAPPER for the fuzzers: fleet's own libraries get counters at every branch, for libFuzzer to see what an
# input does. Dependencies are built as ever, so a build for tests and one for fuzzing share them. Only stable options of rustc.
rustc=$1
shift
previous=""
for argument in "$@"; do
    if [ "$previous" = --crate-name ]; then
        case $argument in
        fleet_core | fleetd | fleet_fuzz)
            # Optimised, since that is millions of runs a minute more; with the checks of a debug build. fleetd less: it is ten times
            # as large as the others, and took six minutes of a processor in each CI run.
            level=2
            [ "$argument" != fleetd ] || level=1
            exec "$rustc" "$@" -C opt-level=$level -C debug-assertions=on -C overflow-checks=on \
                -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
                -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
                -C llvm-args=-sanitizer-coverage-trace-compares -C llvm-args=-simplifycfg-branch-fold-threshold=0
            ;;
        esac
    fi
    previous=$argument
done
exec "$rustc" "$@"
