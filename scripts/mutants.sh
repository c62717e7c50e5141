#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mutants.sh BUILD [SEEDS [PROGRAMS]] - do the tests see? The programs named in scripts/mutants.txt run once as they are and must
# pass; then each deliberate bug runs with the programs that shall catch it, and one of them must fail (or not end in two
# minutes). A name that src/ uses and the list lacks, or the other way round, is a failure too.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1
export LIM_SEEDS="${2:-200}"
only=${3:-} # only the mutants of programs whose name begins so; the rest of the checks is left out then
bad=0
names() { sed -n 's/^\([a-z][a-z0-9_]*\)  *\([a-z*_]*\)  *.*/\1 \2/p' scripts/mutants.txt; }
programs() { # programs PATTERN: in the build
    # shellcheck disable=SC2086
    (cd "$build" && for p in $1; do [ -x "$p" ] && [ -f "$p" ] && echo "$p"; done)
}
passes() { # passes PATTERN
    for p in $(programs "$1"); do
        timeout 120 "$build/$p" >"$build/dev.mutant" 2>&1 </dev/null || return 1
    done
}
[ -n "$only" ] || for name in $(grep -rhoE 'LIM__MUTATION\("[^"]+"\)' src | sed 's/.*"\(.*\)".*/\1/' | sort -u); do
    names | grep -q "^$name " || { echo "mutants: $name is used in src/ and not in scripts/mutants.txt" && bad=1; }
done
unset LIM_MUTATION
[ -n "$only" ] || for pattern in $(names | cut -d ' ' -f 2 | sort -u); do
    [ -n "$(programs "$pattern")" ] || { echo "mutants: no test program is named like $pattern" && exit 1; }
    passes "$pattern" || { tail -n 20 "$build/dev.mutant" && echo "mutants: $pattern fails without a mutation" && exit 1; }
done
names | grep " $only" >"$build/dev.mutants"
caught=0 count=0
while read -r name pattern; do
    count=$((count + 1))
    if ! grep -rqF "LIM__MUTATION(\"$name\")" src; then
        echo "mutants: $name is not in src/"
        bad=1
    elif LIM_MUTATION=$name passes "$pattern"; then
        echo "mutants: $name was not caught by $pattern"
        bad=1
    else
        caught=$((caught + 1))
    fi
done <"$build/dev.mutants"
echo "mutants: $caught of $count caught"
exit $bad
