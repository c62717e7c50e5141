#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# mutants.sh BUILD [SEEDS] - does the auditor see? Runs the simulated worlds once as they are, which must pass, then once
# for each deliberate bug of scripts/mutants.txt, which must fail. Every name used in src/ must be in that file.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1 seeds=${2:-200}
names=$(sed -n 's/^\([a-z][a-z0-9_-]*\).*/\1/p' scripts/mutants.txt)
[ -n "$names" ] || { echo "mutants: scripts/mutants.txt names none" && exit 1; }
bad=0
for name in $(grep -rhoE 'LIM__MUTATION\("[^"]+"\)' src | sed 's/.*"\(.*\)".*/\1/' | sort -u); do
    echo "$names" | grep -qxF "$name" || { echo "mutants: $name is used in src/ and not in scripts/mutants.txt" && bad=1; }
done
unset LIM_MUTATION
sh scripts/sim.sh "$build" "$seeds" >"$build/dev.mutant" 2>&1 ||
    { tail -n 20 "$build/dev.mutant" && echo "mutants: the worlds fail without a mutation" && exit 1; }
caught=0
for name in $names; do
    if ! grep -rqF "LIM__MUTATION(\"$name\")" src; then
        echo "mutants: $name is not in src/"
        bad=1
    elif LIM_MUTATION=$name sh scripts/sim.sh "$build" "$seeds" >"$build/dev.mutant" 2>&1; then
        echo "mutants: $name was not caught in $seeds worlds"
        bad=1
    else
        caught=$((caught + 1))
    fi
done
echo "mutants: $caught of $(echo "$names" | wc -l) caught"
exit $bad
