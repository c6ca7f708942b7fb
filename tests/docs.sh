#!/bin/sh
# Names each line of a page that is wider than 120 columns and neither a table's, a heading nor code: nobody reads those.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
LC_ALL=C.UTF-8
export LC_ALL
git ls-files '*.md' | xargs awk '
    FNR == 1 { code = 0 }
    /^ *```/ { code = !code; next }
    code || /^    / || /^\|/ || /^#/ || /^ *<?https?:/ { next }
    length($0) > 120 { printf "%s:%d: %d columns; wrap at 100\n", FILENAME, FNR, length($0); wide = 1 }
    END { exit wide }'
