# bash completion for fleetctl: fleetctl itself knows what fits, names of units and machines included.
_fleetctl() {
    # bash breaks words at @, : and =, which are parts of ours: split at blanks instead.
    local line=${COMP_LINE:0:COMP_POINT} words current broken
    read -ra words <<<"$line"
    case $line in *[[:blank:]]) words+=("") ;; esac
    current=${words[-1]}
    mapfile -t COMPREPLY < <(
        COMPLETE=bash _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) fleetctl -- "${words[@]}" 2>/dev/null |
            if [[ $current == -* ]]; then cat; else grep -v '^-'; fi # options only where one was begun
    )
    # bash puts the answer after the last break, so what is before it must go.
    broken=${current%"${current##*["${COMP_WORDBREAKS//[^@:=]/}"]}"}
    if [[ -n $broken && -n ${COMP_WORDBREAKS//[^@:=]/} ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$broken"}")
    fi
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
}
complete -o nosort -F _fleetctl fleetctl
