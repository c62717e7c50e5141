#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# promises.sh [ID...] - the lines of docs/promises.md, their state, and the tests that cite them ("proves CV4").
# Fails when a line claims more than "not yet" without a test, and when a test cites a line that does not exist.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C
# Every citation as "ID file:test"; the comment stands on the line of the test's name, or up to three lines before it.
find src tests examples fuzz bench scripts \( -name '*.c' -o -name '*.sh' -o -name '*.cc' \) -exec grep -l 'proves [A-Z][A-Z][0-9]' {} + |
    sort | xargs -r awk '
    FNR == 1 { waiting = "" }
    match($0, /proves( [A-Z][A-Z][0-9]+,?)+/) {
        if (waiting != "")
            name_it("")
        waiting = substr($0, RSTART + 7, RLENGTH - 7)
        from = FNR
    }
    waiting != "" && match($0, /test_[a-z0-9_]+/) { name_it(":" substr($0, RSTART, RLENGTH)) }
    waiting != "" && FNR > from + 3 { name_it("") }
    function name_it(test,    ids, n, i) {
        n = split(waiting, ids, /[ ,]+/)
        for (i = 1; i <= n; i++)
            if (ids[i] != "")
                print ids[i], FILENAME test
        waiting = ""
    }' >"${TMPDIR:-/tmp}/promises.$$"
trap 'rm -f "${TMPDIR:-/tmp}/promises.$$"' EXIT
awk -v only="$*" '
    NR == FNR { if (!seen[$1, $2]++) { tests[$1] = tests[$1] "\n        " $2; count[$1]++ } next }
    /^[A-Z][A-Z][0-9]+ +\[/ {
        id = $1
        state = $0
        sub(/^[^[]*\[/, "", state)
        sub(/\].*/, "", state)
        text = $0
        sub(/^[^]]*\] */, "", text)
        if (length(text) > 96) {
            text = substr(text, 1, 96)
            sub(/ [^ ]*$/, " ...", text)
        }
        known[id] = 1
        lines++
        states[state]++
        proved += count[id] > 0
        if (state != "kept" && state != "first form" && state != "not yet")
            broken = broken "\n" id ": no such state: " state
        if (state != "not yet" && !count[id])
            broken = broken "\n" id ": said to be " state ", and no test proves it"
        if (only == "" || index(" " only " ", " " id " "))
            printf "%-5s %-10s %s%s\n", id, state, text, tests[id]
    }
    END {
        for (id in count)
            if (!(id in known))
                broken = broken "\n" id ": cited, and not a line of docs/promises.md:" tests[id]
        printf "\n%d lines: %d kept, %d in their first form, %d not yet; %d have a test\n", lines, states["kept"],
            states["first form"], states["not yet"], proved
        if (broken != "") {
            print "promises:" broken
            exit 1
        }
    }' "${TMPDIR:-/tmp}/promises.$$" docs/promises.md
