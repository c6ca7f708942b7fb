#!/bin/bash
# `make demo`: boots three machines and shows what fleet is for. Each step shows the command that a user would type and its
# real output, and checks on the machines themselves that it happened.
#
# DEMO_PAUSE=1 waits for Enter between steps; NO_COLOR=1 does without bold. DEMO_NAME names the lab (demo), and
# DEMO_BREAK=submit|spread|kill-container|kill-machine|return|shrink spoils that step, to see what a failure looks like.
# Exit status: 0 shown, 1 a step did not happen, 130 or 143 interrupted.
set -u
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

name=${DEMO_NAME:-demo}
breaks=${DEMO_BREAK:-}
count=5          # instances
pause=""         # set once the machines are up
step="the start"
seen=""          # what the last check saw instead of what it waited for
started=""       # once the lab is ours to end
# Who runs the demo need not wait for cargo at each command.
lab="${CARGO_TARGET_DIR:-target}/debug/lab"

bold="" dim="" plain=""
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

main() {
    build
    boot
    machines_register
    submit
    scale_up
    kill_a_container
    kill_a_machine
    machine_returns
    scale_down
    summary
}

# ---------------------------------------------------------------- the steps

build() {
    title "Build fleetd, fleetctl and the lab (the first time takes minutes)"
    local from; from=$(now)
    if ! job cargo build --quiet --package fleetd --package fleetctl --package fleet-tests --bins; then
        fail "cargo build failed; its errors are above"
    fi
    note "built in $(since "$from") s"
}

boot() {
    title "Boot three machines: each a systemd of its own, fleetd on all, etcd on the first"
    typed "$ " "cargo lab up 3$(other_name)"
    # A lab that somebody else has up under this name is not ours to end.
    if "$lab" --name "$name" ls --json 2>/dev/null | grep '"name"' >/dev/null; then
        fail "a lab named $name is up already; \`cargo lab --name $name down\` ends it"
    fi
    started=yes
    begin=$(now)
    job "$lab" --name "$name" up 3 --no-build || fail "the machines did not boot"
    mapfile -t addresses < <("$lab" --name "$name" ls --json | json_values address)
    in_host h1 mkdir -p /root/units || fail "h1 takes no commands"
    in_host h1 sh -c 'cat > "/root/units/web@.service"' < unit-examples/web@.service || fail "cannot copy web@.service to h1"
    pause=${DEMO_PAUSE:-}
}

machines_register() {
    title "The three machines register, and one of them leads"
    wait_until 30 three_machines_one_leader || fail "want 3 machines and 1 leader; seen: $seen"
    type_in h1 fleetctl list-machines --fields=machine,ip,metadata,leader
    note "$leader leads: it decides what runs where; any of the others takes over within seconds"
}

submit() {
    title "A template: web@.service, a podman container that serves HTTP (unit-examples/web@.service)"
    [ "$breaks" = submit ] && in_host h1 sh -c 'echo nonsense > "/root/units/web@.service"'
    type_in h1 grep -A2 -e '^ExecStart=' -e '^Restart=' web@.service
    type_in h1 fleetctl submit web@.service || fail "fleetctl submit ended with $?"
    wait_until 10 template_known || fail "the cluster does not list web@.service; seen: $seen"
    type_in h1 fleetctl list-unit-files
}

scale_up() {
    title "Five of it, please"
    local from; from=$(now)
    type_in h1 fleetctl scale web=$count || fail "fleetctl scale ended with $?"
    note "five containers up in $(since "$from") s"
    [ "$breaks" = spread ] && in_host h1 fleetctl scale --no-block web=1 >/dev/null
    wait_until 30 all_run_once $count || fail "want web@1 to web@$count, each once; seen: $seen"
    wait_until 5 spread_over 3 || fail "want instances on all three machines; seen: $seen"
    type_in h1 fleetctl list-units
    note "They answer:"
    local i
    for i in $(seq $count); do
        wait_until 10 answers "$i" || fail "web@$i does not answer; seen: $seen"
        typed "$ " "curl http://$(address_of "$i"):$((8100 + i))/"
        echo "$seen"
    done
}

kill_a_container() {
    title "One container's main process is killed, and the container comes back"
    local host=${where[2]} old new from
    old=$(in_host "$host" podman inspect --format '{{.State.Pid}}' web-2) || fail "podman in $host does not know web-2"
    typed "$host# " "podman inspect --format '{{.State.Pid}}' web-2"
    echo "$old"
    from=$(now)
    if [ "$breaks" = kill-container ]; then
        in_host "$host" systemctl kill --signal=STOP fleetd
        in_host "$host" mkdir -p /run/systemd/system/web@2.service.d
        in_host "$host" sh -c 'printf "[Service]\nRestart=no\n" > /run/systemd/system/web@2.service.d/99-break.conf; systemctl daemon-reload'
    fi
    type_as "$host# " "$host" kill -9 "$old" || fail "kill ended with $?"
    wait_until 15 new_pid "$host" web-2 "$old" || fail "want a new process in place of $old on $host; seen: $seen"
    new=$seen
    local took; took=$(since "$from")
    wait_until 10 answers 2 || fail "web@2 does not answer again; seen: $seen"
    typed "$host# " "podman inspect --format '{{.State.Pid}}' web-2"
    echo "$new"
    note "a new container, process $new, $took s after the old one died"
    wait_until 10 all_run_once $count || fail "want web@1 to web@$count, each once; seen: $seen"
}

kill_a_machine() {
    # Not h1: etcd is there, and we are.
    victim=${where[1]}
    if [ "$victim" = h1 ]; then victim=${where[2]}; fi
    local i from moved="" address
    for i in $(seq $count); do [ "${where[$i]}" = "$victim" ] && moved="$moved web@$i"; done
    title "A whole machine, $victim with$moved, loses power"
    from=$(now)
    typed "$ " "cargo lab kill $victim$(other_name)"
    [ "$breaks" = kill-machine ] && in_host h1 fleetctl scale --no-block web=2 >/dev/null
    "$lab" --name "$name" kill "$victim" || fail "cargo lab kill ended with $?"
    note "waiting: a machine that has given no sign of life for 10 s counts as lost"
    wait_until 25 all_run_once $count || fail "want web@1 to web@$count on the two machines left; seen: $seen"
    for i in $(seq $count); do wait_until 10 answers "$i" || fail "web@$i does not answer; seen: $seen"; done
    took_over=$(since "$from")
    type_in h1 fleetctl list-machines
    type_in h1 fleetctl list-units
    note "all five answer again, $took_over s after the power went"
}

machine_returns() {
    title "The machine returns, and nothing runs twice"
    typed "$ " "cargo lab boot $victim$(other_name)"
    [ "$breaks" = return ] || job "$lab" --name "$name" boot "$victim" || fail "cargo lab boot ended with $?"
    wait_until 30 three_machines_one_leader || fail "want $victim back among 3 machines; seen: $seen"
    wait_until 30 all_run_once $count || fail "want web@1 to web@$count, each once; seen: $seen"
    type_in h1 fleetctl list-machines
    type_in h1 fleetctl list-units
    note "what the machines' own systemds say:"
    local host
    for host in h1 h2 h3; do
        type_as "$host# " "$host" systemctl list-units --plain --no-legend 'web@*.service'
    done
    note "$victim runs none of them: what has moved stays where it is"
}

scale_down() {
    title "Two are enough"
    type_in h1 fleetctl scale web=2 || fail "fleetctl scale ended with $?"
    [ "$breaks" = shrink ] && in_host h1 fleetctl scale --no-block web=3 >/dev/null
    wait_until 20 all_run_once 2 || fail "want web@1 and web@2, each once; seen: $seen"
    type_in h1 fleetctl list-units
}

summary() {
    cat <<END

${bold}What you saw${plain}
  - three machines that registered, and elected one to decide
  - a template, five instances of it, spread over the machines
  - a killed container that was back at once
  - a lost machine's instances running elsewhere $took_over s later
  - its return, with nothing running twice
  - five made two
All of it in $(since "$begin") s on this machine; it is cleared away now. To try it yourself: \`cargo lab up 3\`,
\`cargo lab exec h1 -- bash\`, then fleetctl; more units are in unit-examples/.
END
}

# ---------------------------------------------------------------- what is checked, on the machines themselves

# Each sets $seen to what it saw.

three_machines_one_leader() {
    local text machines i
    text=$(in_host h1 fleetctl list-machines --no-legend --full --fields=ip,leader 2>&1) || { seen=$text; return 1; }
    machines=$(grep -c . <<<"$text")
    seen="$machines machines: $(tr '\n\t' '; ' <<<"$text")"
    leader=""
    for i in "${!addresses[@]}"; do
        grep -q "^${addresses[$i]}"$'\t'".*true" <<<"$text" && leader="h$((i + 1))"
    done
    [ "$machines" = 3 ] && [ -n "$leader" ]
}

template_known() {
    seen=$(in_host h1 fleetctl list-unit-files --no-legend --fields=unit 2>&1)
    [ "$seen" = "web@.service" ]
}

# all_run_once N: over all machines with power, systemd runs exactly web@1 … web@N, each once; so does fleet say.
all_run_once() {
    local host text all="" unit i wanted listed
    where=()
    for host in h1 h2 h3; do
        is_up "$host" || continue
        text=$(in_host "$host" systemctl list-units --plain --no-legend 'web@*.service' 2>&1) || { seen="$host: $text"; return 1; }
        while read -r unit _ active _; do
            [ -n "$unit" ] || continue
            all="$all$unit $active"$'\n'
            i=${unit#web@}
            where[${i%.service}]=$host
        done <<<"$text"
    done
    all=$(sort <<<"$all" | grep .)
    wanted=$(for i in $(seq "$1"); do echo "web@$i.service active"; done)
    listed=$(in_host h1 fleetctl list-units --no-legend --fields=unit,active 2>&1 | tr -s '\t' ' ' | sort)
    seen="systemd: ${all//$'\n'/, }; fleetctl: ${listed//$'\n'/, }"
    [ "$all" = "$wanted" ] && [ "$listed" = "$wanted" ]
}

spread_over() {
    seen="on ${where[*]}"
    [ "$(printf '%s\n' "${where[@]}" | sort -u | wc -l)" = "$1" ]
}

answers() {
    seen=$("$lab" --name "$name" net -- curl -sS --noproxy '*' --max-time 2 "http://$(address_of "$1"):$((8100 + $1))/" 2>&1)
    [ "$seen" = "Hello from web@$1.service on ${where[$1]}" ]
}

# The address of the machine that runs instance $1.
address_of() { echo "${addresses[${where[$1]#h} - 1]}"; }

new_pid() {
    seen=$(in_host "$1" podman inspect --format '{{.State.Pid}}' "$2" 2>&1) || return 1
    [[ $seen =~ ^[1-9][0-9]*$ ]] && [ "$seen" != "$3" ]
}

is_up() {
    "$lab" --name "$name" ls | grep "^$1"$'\t'".*running$" >/dev/null
}

# wait_until SECONDS CHECK…: until the check holds; false when the time is over.
wait_until() {
    local limit=$1; shift
    local end=$(($(now) + limit * 1000000000))
    until "$@"; do
        [ "$(now)" -lt $end ] || return 1
        sleep 0.1
    done
}

# ---------------------------------------------------------------- how it is shown

number=0
title() {
    if [ -n "$pause" ]; then
        printf '%s[Enter]%s ' "$dim" "$plain"
        read -r _ || true
    fi
    step=$1
    number=$((number + 1))
    printf '\n%s%s. %s%s\n' "$bold" "$number" "$1" "$plain"
}

note() { printf '%s   %s%s\n' "$dim" "$1" "$plain"; }

typed() { printf '%s%s%s%s\n' "$1" "$bold" "$2" "$plain"; }

# type_in HOST CMD…: shows the command with its prompt, and runs it there, in the folder with the unit files.
type_in() {
    local host=$1; shift
    type_as "$host\$ " "$host" "$@"
}

type_as() {
    local prompt=$1 host=$2 word line=""; shift 2
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./@:=+,-]*) line="$line '$word'" ;; *) line="$line $word" ;; esac
    done
    typed "$prompt" "${line# }"
    job "$lab" --name "$name" exec "$host" -- sh -c 'cd /root/units 2>/dev/null; exec "$@"' sh "$@"
}

in_host() {
    local host=$1; shift
    "$lab" --name "$name" exec "$host" -- "$@"
}

other_name() { [ "$name" = lab ] || printf -- ' --name %s' "$name"; }

now() { date +%s%N; }

# Seconds since a time, with one decimal.
since() {
    local tenths=$((($(now) - $1) / 100000000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

# The values of a key in pretty-printed JSON, one a line.
json_values() { sed -n "s/^ *\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

# ---------------------------------------------------------------- how it ends

# What may take long runs in a process group of its own: a signal to us is acted on at once, and ends all of the group.
child=""
job() {
    set -m
    "$@" &
    child=$!
    set +m
    wait "$child"
    local code=$?
    child=""
    return $code
}

fail() {
    local host
    if [ -n "$started" ]; then
        for host in h1 h2 h3; do
            is_up "$host" || continue
            echo "--- $host: the end of its journal" >&2
            in_host "$host" timeout 5 journalctl --no-pager --quiet --lines=12 --output=short-precise \
                --unit=fleetd.service --unit='web@*.service' >&2
        done
    fi
    printf '\n%sdemo: step %s, "%s", did not happen: %s%s\n' "$bold" "$number" "$step" "$1" "$plain" >&2
    exit 1
}

clean_up() {
    local code=$?
    # From here on nothing interrupts: it takes half a second.
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$child" ] && kill -TERM -- "-$child" 2>/dev/null; then wait "$child" 2>/dev/null; fi
    if [ -n "$started" ]; then
        "$lab" --name "$name" down || { echo "demo: \`cargo lab --name $name down\` failed; run it again" >&2; [ $code != 0 ] || code=1; }
    fi
    exit $code
}

trap clean_up EXIT
trap 'exit 129' HUP
trap 'echo; echo "demo: interrupted, cleaning up" >&2; exit 130' INT
trap 'exit 143' TERM

main
