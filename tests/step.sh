#!/bin/bash
# Runs one part of a check and says how long it took, for .ci/run to sum up: `tests/step.sh NAME COMMAND...`. The processors' time is
# that of the processes which it waited for; a lab's hosts are not among them.
name=$1
shift
begin=$(date +%s)
"$@"
status=$?
# bash's `times`: its own user and system time, then its children's, as 1m2.345s.
spent=$(mktemp)
times >"$spent" # not in a pipe: a shell of its own would have waited for nobody
work=$(tail -n 1 "$spent" | awk '{ for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); sum += t[1] * 60 + t[2] } printf "%d", sum }')
rm -f "$spent"
[ $status = 0 ] || name="$name: FAILED"
echo "step: $(($(date +%s) - begin)) s, $work s of a processor, $name" >&2
exit $status
