#!/bin/sh
# Checks what no compiler checks in texts; prints a line for each fault. Exit status: 0 if there is none.
#
#   - a line of a page wider than 120 columns that is no table, heading, link or code
#   - a comment in Rust code wider than 100 columns
#   - a link of a page to a file that is not there
#   - a path named in docs/architecture.md or CONTRIBUTING.md that is not there
#   - a decision that docs/decisions/README.md does not list
#   - a message in a table of docs/operating.md under "you see" that no program prints
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."

# Columns are counted as bytes without those that continue a UTF-8 character, since not every awk knows characters.
LC_ALL=C
export LC_ALL

main() {
    faults=$(wide_pages; wide_comments; dead_links; dead_paths; unlisted_decisions; dead_messages)
    [ -z "$faults" ] || { printf '%s\n' "$faults"; exit 1; }
}

wide_pages() {
    git ls-files '*.md' | xargs awk '
        FNR == 1 { code = 0 }
        /^ *```/ { code = !code; next }
        code || /^    / || /^\|/ || /^#/ || /^ *<?https?:/ { next }
        { gsub(/[\200-\277]/, "") }
        length($0) > 120 { printf "%s:%d: %d columns; wrap at 100\n", FILENAME, FNR, length($0) }'
}

# Code in a comment is as wide as it is.
wide_comments() {
    git ls-files '*.rs' | xargs awk '
        FNR == 1 { code = 0 }
        !/^ *\/\// { code = 0; next }
        /^ *\/\/[\/!]? *```/ { code = !code; next }
        { gsub(/[\200-\277]/, "") }
        !code && length($0) > 100 { printf "%s:%d: a comment of %d columns; wrap at 100\n", FILENAME, FNR, length($0) }'
}

dead_links() {
    git ls-files '*.md' | while read -r page; do
        grep -no '](\([^)#:]*\)[^):]*)' "$page" | while IFS=: read -r line link; do
            path=${link#](}
            path=${path%)}
            path=${path%%#*}
            [ -z "$path" ] || [ -e "$(dirname "$page")/$path" ] || echo "$page:$line: links to $path, which is not there"
        done
    done
}

# Any word in backticks that has a slash and ends as a file of ours does, or begins with a folder of ours.
dead_paths() {
    for page in docs/architecture.md CONTRIBUTING.md; do
        [ -e "$page" ] || continue
        grep -noE '`[A-Za-z0-9_.-]+/[A-Za-z0-9_./-]*`' "$page" | tr -d '`' | while IFS=: read -r line path; do
            case $path in
            *.rs | *.sh | *.md | fleetd/* | fleetctl/* | tests/* | docs/* | packaging/* | unit-examples/*)
                [ -e "$path" ] || echo "$page:$line: names $path, which is not there" ;;
            esac
        done
    done
}

unlisted_decisions() {
    git ls-files 'docs/decisions/[0-9]*.md' | while read -r page; do
        grep -qF "($(basename "$page"))" docs/decisions/README.md || echo "$page: docs/decisions/README.md does not list it"
    done
}

# Of a message in backticks, each piece between two `…` must stand in a source file; a string may go on in the next line.
dead_messages() {
    said=$(mktemp)
    git ls-files 'fleetd/*src/*.rs' 'fleetctl/src/*.rs' | xargs sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}' >"$said"
    awk '/^\| you see/ { rows = 1; next } !/^\|/ { rows = 0 } rows { print FNR "|" $0 }' docs/operating.md |
        while IFS='|' read -r line _ message _; do
            printf '%s\n' "$message" | grep -o '`[^`]*`' | tr -d '`' | sed 's/…/\n/g' | while read -r piece; do
                [ ${#piece} -le 2 ] || grep -qF -e "$piece" "$said" ||
                    echo "docs/operating.md:$line: no program says \"$piece\""
            done
        done
    rm -f "$said"
}

main
