#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sim.sh BUILD COUNT [SEED] - whole buses in simulated worlds: one thread, one seed, the same history each time.
#
# The programs are the tests/sim_*_test.c. They read two variables: LIM_SEEDS is how many worlds to run (their own
# default is what ./dev test runs), LIM_SEED is the seed of the first one; with LIM_SEED they print the history. A
# failing program says which seed failed; this script turns it into the one command that replays it.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1 count=$2 seed=${3:-}
programs=$(find tests -name 'sim_*_test.c' 2>/dev/null | sed 's|.*/\(.*\)\.c$|\1|' | sort)
[ -n "$programs" ] || { echo "sim: there is no tests/sim_*_test.c" >&2 && exit 1; }
export LIM_SEEDS="$count"
[ -z "$seed" ] || export LIM_SEED="$seed"
log=$build/dev.sim
failed=0
for program in $programs; do
    if "$build/$program" >"$log" 2>&1 </dev/null; then
        [ -z "$seed" ] || grep -vE '^\[' "$log"
        echo "$program: $count worlds, all well"
    else
        code=$?
        failed=1
        if [ -n "$seed" ]; then cat "$log"; else tail -n 40 "$log"; fi
        bad=$(sed -n 's/.*\bseed[ =:]*\([0-9][0-9]*\).*/\1/p' "$log" | tail -n 1)
        echo "$program: failed with $code${bad:+; to replay it: ./dev sim $bad}"
    fi
done
exit $failed
