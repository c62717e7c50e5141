# SPDX-License-Identifier: Apache-2.0
# check.sh - all that continuous integration could ask, one step after the other; sourced by dev. Each step has a build
# directory of its own and writes its output to build-check/STEP.log; the table at the end says how each went. A failing
# step does not keep the others from running. CHECK="step step" runs only these.
mkdir -p build-check
rm -f build-check/table

step() { # step NAME CMD...
    name=$1
    shift
    case " ${CHECK:-$name} " in *" $name "*) ;; *) return 0 ;; esac
    started=$(date +%s)
    # In a process of its own, so that `exit` ends only the step.
    if ("$@") >"build-check/$name.log" 2>&1 </dev/null; then result=ok; else result=FAILED; fi
    printf '%-10s %-7s %5d s  %s\n' "$name" "$result" $(($(date +%s) - started)) \
        "$(grep -av '^$' "build-check/$name.log" | tail -n 1 | cut -c1-90)" | tee -a build-check/table
    [ "$result" = ok ] || tail -n 40 "build-check/$name.log" >&2
}

hostile() {
    grep -rq LIM_HOSTILE src || { echo "no source asks for LIM_HOSTILE yet: nothing to test" && return 0; }
    run_tests hostile ""
}
# The checks of scripts/tidy.txt; clang's path analyzer is not among them: it takes ten minutes and does not understand
# intrusive lists and counted owners. Sanitizers and the tests that fail every allocation look for the same.
tidy() {
    configure clang && clang-tidy --quiet -p build-clang --warnings-as-errors='*' --checks="-*,$(tr -d ' \n' <scripts/tidy.txt)" \
        $(find src -name '*.c' ! -name '*_test.c') 2>/dev/null
}
mutants() {
    compile mutants && sh scripts/mutants.sh build-mutants "${MUTANT_SEEDS:-200}"
}
programs() {
    build && for n in 1 2; do SCHEDULERS=$n sh scripts/programs.sh build || return 1; done
}
# The main job checks itself: the census before and after, one result a task. With one scheduler and with two.
job() {
    build && for n in 1 2; do sh examples/verify-packages/run.sh --programs build --schedulers $n || return 1; done
}

step lint lint
step gcc run_tests test ""
step clang run_tests clang ""
step tidy tidy
step asan run_tests asan ""
step tsan run_tests tsan ""
step hostile hostile
step seeds sim --seeds "${SEEDS:-1000}"
step mutants mutants
step job job
step programs programs
step promises sh scripts/promises.sh
! grep -q FAILED build-check/table
