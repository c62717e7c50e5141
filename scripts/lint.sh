#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lint.sh [BUILD] - what the compiler does not check. Each rule prints one line for each break; the last line is a sum.
# BUILD (default build-test) is a directory in which the libraries have been built.
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
build=${1:-build-test}
found=$(mktemp -d) || exit 1
trap 'rm -rf "$found"' EXIT

sources() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -e "$f" ] && echo "$f"; done; }
code=$(sources 'src/*.c' 'src/*.cc' 'src/*.h' 'include/*.h')
all=$(sources 'src/*.c' 'src/*.cc' 'src/*.h' 'include/*.h' 'tests/*.[ch]' 'bench/*.[ch]' 'fuzz/*.[ch]' 'examples/*.[ch]')

rule() { # rule NAME: breaks on standard input, one a line
    cat >"$found/$1"
    [ -s "$found/$1" ] || return 0
    sed "s|^|$1: |" "$found/$1"
}

# ---- text: width, tabs, ends of lines, first lines, size; the format of .c files (headers are tables laid out by hand)
# A declaration with its contract behind it may run a little over, so that it stays one line.
awk 'length($0) > (FILENAME ~ /\.h$/ ? 128 : 120) { print FILENAME ":" FNR ": too wide (120 columns; headers 128)" }
     /\t/ { print FILENAME ":" FNR ": a tab" }
     /[ \r]$/ { print FILENAME ":" FNR ": white space at the end" }
     FNR == 1 && !/SPDX-License-Identifier: Apache-2.0/ { print FILENAME ": no SPDX line" }
     FNR == 2 && $1 != "*" { print FILENAME ":2: no word about what the file is" }
     FNR == 1001 { print FILENAME ": longer than 1000 lines" }' $all /dev/null | rule text
if command -v clang-format >/dev/null 2>&1; then
    for f in $all; do
        case $f in *.c | *.cc) clang-format --dry-run -Werror "$f" 2>/dev/null || echo "$f (./dev fmt)" ;; esac
    done | rule format
else
    echo "format: not checked, clang-format is not installed"
fi

# ---- include arrows and system headers, by table
# shellcheck disable=SC2086
awk -v arrows=scripts/arrows.txt -v headers=scripts/system-headers.txt '
function table(file, into,    line, words, n, i) {
    while ((getline line < file) > 0) {
        if (line ~ /^#/ || line !~ /:/)
            continue
        n = split(line, words, /[ :]+/)
        known[words[1]] = 1
        for (i = 2; i <= n; i++)
            if (words[i] != "")
                into[words[1], words[i]] = 1
    }
}
function allowed(into, where, name,    key, prefix) {
    if ((where, name) in into || (where, "*") in into)
        return 1
    for (key in into) {
        split(key, part, SUBSEP)
        prefix = part[2]
        if (part[1] == where && sub(/\*$/, "", prefix) && index(name, prefix) == 1)
            return 1
    }
    return 0
}
BEGIN { table(arrows, arrow); table(headers, system_header) }
FNR == 1 {
    path = FILENAME
    sub(/^(src|include)\//, "", path)
    folder = path
    sub(/\/.*/, "", folder)
    test = path ~ /_test\.c$/
    while ((getline line < FILENAME) > 0)
        test = test || line ~ /^#include <cmocka\.h>/ # a header that the tests of a folder share
    close(FILENAME)
}
match($0, /^ *# *include *"[^"]+"/) {
    name = $0
    gsub(/^[^"]*"|".*$/, "", name)
    target = name
    if (!sub(/\/.*/, "", target) || target == folder || target == "base" || (test && target == "sim"))
        next
    if (!allowed(arrow, folder, target) && !allowed(arrow, path, target))
        print FILENAME ":" FNR ": " folder " may not include " name
}
match($0, /^ *# *include *<[^>]+>/) {
    name = $0
    gsub(/^[^<]*<|>.*$/, "", name)
    if (name ~ /^liminal\// || test || allowed(system_header, "everywhere", name))
        next
    if (!allowed(system_header, folder, name) && !allowed(system_header, path, name))
        print FILENAME ":" FNR ": <" name "> is not for " folder
}' $code | rule arrows

# ---- symbols: every global is lim_ (and then in a public header) or lim__
for library in "$build"/liblim_*.a; do
    [ -e "$library" ] && [ "$library" != "$build/liblim_tests.a" ] || continue
    nm -g --defined-only -A "$library" 2>/dev/null | awk '$(NF - 1) ~ /^[TDBRC]$/ { print $NF, $1 }'
done | sort -u >"$found/.globals"
cat include/liminal/*.h | grep -oE '\blim_[a-z0-9_]+' | sort -u >"$found/.public"
awk 'NR == FNR { public[$1] = 1; next }
     $1 ~ /^lim__/ || $1 in public || $1 ~ /^(__asan|__odr_asan|__tsan|__ubsan)/ { next }
     { print $2 " " $1 ($1 ~ /^lim_/ ? " is in no public header" : " begins neither with lim_ nor with lim__") }' \
    "$found/.public" "$found/.globals" | rule symbols

# ---- headers: each compiles alone, the public ones as C17 and as C++17
cpp=$(pkg-config --cflags lua5.4 libcrypto simdjson libxxhash 2>/dev/null)
alone() { # alone HEADER COMPILER FLAGS...
    header=$1
    shift
    echo "#include \"$header\"" | "$@" -fsyntax-only -Werror - >"$found/.alone" 2>&1 ||
        echo "$header: $* : $(grep -m1 error "$found/.alone")"
}
for h in $(sources 'include/*.h'); do
    alone "${h#include/}" "${CC:-gcc}" -std=c17 -Wall -Wextra -Wpedantic -Iinclude -x c
    alone "${h#include/}" "${CXX:-g++}" -std=c++17 -Wall -Wextra -Wpedantic -Iinclude -x c++
done | rule headers
for h in $(sources 'src/*.h'); do
    alone "${h#src/}" "${CC:-gcc}" -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Iinclude -Isrc $cpp -x c
done | rule headers-inside

# ---- contracts: every public function says A, B or P
awk '
function check() {
    if (declaration != "" && declaration !~ /\/\* [ABP]([ :;,.*]|$)/) {
        match(declaration, /lim_[a-z0-9_]+ *\(/)
        print place ": " substr(declaration, RSTART, RLENGTH - 1) ": no contract letter"
    }
    declaration = ""
}
declaration != "" && complete && !/^ +\/?\*/ { check() }
/^LIM_API/ { check(); place = FILENAME ":" FNR; complete = 0; declaration = " " }
declaration != "" { declaration = declaration $0; if ($0 ~ /;/) complete = 1 }
END { check() }' $(sources 'include/*.h') | rule contracts

# ---- leftovers: what says of itself that it is not finished, and tests that wait for the clock
git grep -nIwE 'TODO|FIXME|XXX|HACK|stubs?|not implemented|for now' -- '*.c' '*.h' '*.cc' '*.awk' dev '*.sh' 2>/dev/null |
    grep -v '^scripts/lint.sh:' | rule leftovers
git grep -nE '\b(sleep|usleep|nanosleep|clock_nanosleep|thrd_sleep)\s*\(' -- 'tests/' 'src/*_test.c' | rule sleeps
git grep -nE '^\s*sleep ' -- 'tests/' | rule sleeps

# ---- notes: public functions that no test calls (told, not counted)
grep -hE '^LIM_API' include/liminal/*.h | grep -oE '\blim_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u |
    while read -r name; do
        grep -rqw --include='*_test.c' --include='*.c' "$name" tests $(sources 'src/*_test.c') 2>/dev/null || echo "$name"
    done >"$found/.untested"
[ ! -s "$found/.untested" ] || echo "note: no test calls $(wc -l <"$found/.untested") public functions:" \
    $(head -n 12 "$found/.untested") "$([ "$(wc -l <"$found/.untested")" -le 12 ] || echo ...)"

breaks=$(cat "$found"/* 2>/dev/null | wc -l)
echo "lint: $breaks breaks in $(echo "$all" | wc -l) files"
[ "$breaks" -eq 0 ]
