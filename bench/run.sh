#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh - runs the measuring programs and gathers their numbers. ./dev bench builds them and calls this.
#
#   run.sh --build DIR [WHAT] [--runs N] [--peers] [--json]
#
# A program DIR/bench/bench-WHAT prints lines "RESULT name value unit"; it is run N times (default 3) and each name is
# reported with its median, minimum and maximum. With --peers a nats-server is started on a free port, and every program
# that can do the same work there does it (`bench-WHAT --peer nats PORT`, same names, exit code 2: it cannot); the
# ratio is ours / theirs. Runs of both alternate, so that a change of the machine's mood meets both. --json prints one
# object a line. Numbers are those of this machine, of this moment: only ratios travel.
set -eu
export LC_ALL=C
build=build what= runs=${RUNS:-3} peers= json=
usage() { echo "bench: $1; usage: bench [WHAT] [--runs N] [--peers] [--json]" >&2 && exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --build | --runs)
        [ $# -ge 2 ] || usage "$1 needs a value"
        eval "${1#--}=\$2"
        shift
        ;;
    --peers) peers=yes ;;
    --json) json=yes ;;
    -*) usage "unknown option $1" ;;
    *) what=$1 ;;
    esac
    shift
done
case $runs in '' | *[!0-9]* | 0) usage "--runs takes a number from 1 on" ;; esac

build=$(cd "$build" && pwd)
export LIMINALD="$build/liminald" LIMINAL="$build/liminal"
programs=$(find "$build/bench" -maxdepth 1 -type f -perm -u+x -name "bench-*$what*" | sort)
[ -n "$programs" ] || { echo "bench: no program is named like bench-*$what*; there are:" \
    "$(find "$build/bench" -maxdepth 1 -type f -perm -u+x -name 'bench-*' -printf '%f ')" >&2 && exit 2; }

work=$(mktemp -d)
nats=
cleanup() {
    [ -z "$nats" ] || kill "$nats" 2>/dev/null || :
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

port=
if [ -n "$peers" ]; then
    PATH=$PATH:/usr/sbin
    nats-server -a 127.0.0.1 -p -1 --ports_file_dir "$work" >"$work/nats.log" 2>&1 &
    nats=$!
    tries=0
    until port=$(sed -n 's/.*nats:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work"/*.ports 2>/dev/null | head -n 1) && [ -n "$port" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || { cat "$work/nats.log" >&2 && echo "bench: nats-server did not start" >&2 && exit 1; }
        sleep 0.02
    done
fi

# Lines of $work/results: ours|nats name value unit
measure() { # measure WHOSE PROGRAM ARG...
    whose=$1
    shift
    code=0
    "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    sed -n "s/^RESULT  */$whose /p" "$work/out" >>"$work/results"
    return $code
}
failed=0
: >"$work/results"
for program in $programs; do
    cannot=
    run=0
    while [ $run -lt "$runs" ]; do
        run=$((run + 1))
        measure ours "$program" || {
            echo "bench: $(basename "$program") ended with $?:" >&2
            tail -n 5 "$work/err" >&2
            failed=1
            break
        }
        if [ -n "$port" ] && [ -z "$cannot" ]; then
            code=0
            measure nats "$program" --peer nats "$port" || code=$?
            case $code in
            0) ;;
            2) cannot=yes ;;
            *) cannot=yes failed=1 && echo "bench: $(basename "$program") --peer nats ended with $code:" >&2 && tail -n 5 "$work/err" >&2 ;;
            esac
        fi
    done
done

awk -v json="$json" -v what="$what" '
function median(key, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = all[key, i]
        for (j = i - 1; j >= 1 && all[key, j] > x; j--)
            all[key, j + 1] = all[key, j]
        all[key, j + 1] = x
    }
    return n % 2 ? all[key, (n + 1) / 2] : (all[key, n / 2] + all[key, n / 2 + 1]) / 2
}
function number(x) {
    return sprintf(x != 0 && x < 10 && x > -10 ? "%.3f" : x < 10000 ? "%.1f" : "%.0f", x)
}
{
    if (!($2 in unit)) {
        unit[$2] = $4
        order[++names] = $2
    }
    all[$1 SUBSEP $2, ++count[$1, $2]] = $3 + 0
}
END {
    if (json == "")
        printf "%-44s %12s %-8s %12s %12s %5s %12s %8s\n", "name", "median", "unit", "min", "max", "runs", "nats", "ratio"
    for (i = 1; i <= names; i++) {
        name = order[i]
        n = count["ours", name]
        p = count["nats", name]
        if (n == 0)
            continue
        key = "ours" SUBSEP name
        value = median(key, n)
        peer = p ? median("nats" SUBSEP name, p) : 0
        if (json != "") {
            printf "{\"name\":\"%s\",\"unit\":\"%s\",\"value\":%s,\"min\":%s,\"max\":%s,\"runs\":%d", name, unit[name], number(value),
                number(all[key, 1]), number(all[key, n]), n
            if (p)
                printf ",\"peer\":\"nats-server\",\"peer_value\":%s,\"ratio\":%.3f", number(peer), (peer ? value / peer : 0)
            print "}"
        } else {
            printf "%-44s %12s %-8s %12s %12s %5d", name, number(value), unit[name], number(all[key, 1]), number(all[key, n]), n
            if (p)
                printf " %12s %8.2f", number(peer), (peer ? value / peer : 0)
            print ""
        }
    }
}' "$work/results"
[ $failed -eq 0 ]
