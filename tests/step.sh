#!/bin/sh
# Runs one part of a check and says how long it took, for .ci/run to sum up: `tests/step.sh NAME COMMAND...`.
name=$1
shift
begin=$(date +%s)
"$@"
status=$?
echo "step: $(($(date +%s) - begin)) s $name" >&2
exit $status
