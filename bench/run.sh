#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh - runs the measuring programs and gathers their numbers. ./dev bench builds them and calls this.
#
#   run.sh --build DIR [WHAT] [--runs N] [--peers] [--json]
#
# What is run is a list of jobs (below): every program DIR/bench/bench-X that needs no server, and bench-tcp's workloads
# against liminald, which is started here on a free port: `one` with one scheduler, `two` with two and connections put on
# them in turn, `still` with one that does not spin before it sleeps, `kept` with its data in a directory of $DURABLE_DIR
# (/var/tmp: put it on the disk to be measured), where its peers have theirs, too. WHAT keeps the jobs whose name contains it; those of the server `own` start one themselves,
# take long, and are run only when WHAT is their name. A program prints lines "RESULT name value unit [class]"; all jobs
# are run N times (default 5), one round after the other, and each name is reported with its median, minimum and maximum.
#
# With --peers every workload that nats-server can do is also done there, by the same program and under the same names,
# each of its runs right after ours, so that a change of the machine's mood meets both. The ratio is turned so that more
# than 1 always means that liminal is better: higher is better for units that end with /s and for x, lower for all others.
# Work that is dispatched has two peers, beanstalkd and gearmand, each in jobs of its own (bench/dispatch.c).
# The client library's peer is libnats, where that was there when the benches were built (bench/library.c).
# A routing decision's peer is a function in redis-server (bench/routing.c). The runtime's is Erlang/OTP (bench/erlang),
# pinned to the same processors with as many schedulers. What is kept has redis-server (appendfsync always), nats-server
# with JetStream (which acknowledges before it syncs) and beanstalkd (-f 0), each with jobs of its own.
#
# Beside a number stands its target, if it has one, and whether the median meets it. A missed target is no failure of this
# script: numbers are those of this machine and this moment, and only ratios travel. Exit code 1: something did not run.
#
# class: what an accepted message survives while this is measured. memory: nothing but the server's life. os: a kill of
# the server. disk: a power loss. If the peer's is another one, it stands behind a slash.
set -eu
export LC_ALL=C
build=build what= runs=${RUNS:-5} peers= json=
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

# ---- jobs: NAME SERVER ARGUMENTS [| ARGUMENTS for the peer, or - for none]; without |, the same ones --------------------
# Counts are such that a run takes 0.3 to 1 s here.
replayed=1000000 # messages that durable.replay and durable.live find there
jobs() {
    for program in $(find "$build/bench" -maxdepth 1 -type f -perm -u+x -name 'bench-*' | sort); do
        case ${program##*/bench-} in
        tcp | runtime | routing | dispatch | durable_tcp | library) ;;
        *) echo "${program##*/bench-} none -" ;;
        esac
    done
    cat <<EOF_JOBS
routing redis -
runtime.one erlang one
runtime.two erlang two
tcp.pubsub.1x1.16B one pubsub 16 8000000 1 | pubsub 16 3000000 1
tcp.pubsub.1x1.128B one pubsub 128 5000000 1 | pubsub 128 2000000 1
tcp.pubsub.1x1.1024B one pubsub 1024 1000000 1 | pubsub 1024 500000 1
tcp.pubsub.1x10.16B one pubsub 16 2000000 10 | pubsub 16 700000 10
tcp.pubsub.1x10.128B one pubsub 128 1000000 10 | pubsub 128 400000 10
tcp.pubsub.1x10.1024B one pubsub 1024 200000 10 | pubsub 1024 80000 10
tcp.ask.w1.c1.one one ask 1 8000 1 one
tcp.ask.w1.c1.two two ask 1 8000 1 two
tcp.ask.w1.c1.still still ask 1 8000 1 still
tcp.ask.w64.c1.one one ask 64 300000 1 one | ask 64 200000 1 one
tcp.ask.w64.c1.two two ask 64 300000 1 two | ask 64 200000 1 two
tcp.ask.w1.c64.one one ask 1 60000 64 one | ask 1 40000 64 one
tcp.rate.5000 one rate 5000 0.6
tcp.rate.50000 one rate 50000 0.6
tcp.crash one crash 200 | -
tcp.slow one slow 100000 | slow 40000
tcp.idle one idle 50 1
tcp.library.w64.loop one loop 64 100000 | callbacks 64 20000 loop
tcp.library.w64.callbacks one callbacks 64 100000 | callbacks 64 20000
tcp.library.w64.threads one threads 64 20000
durable.tcp.w1.redis kept publish 1 1000 redis
durable.tcp.w1.jetstream kept publish 1 1000 jetstream
durable.tcp.w100.redis kept publish 100 50000 redis | publish 100 20000 redis
durable.tcp.w100.jetstream kept publish 100 50000 jetstream
durable.tcp.w1000.redis kept publish 1000 300000 redis | publish 1000 50000 redis
durable.tcp.w1000.jetstream kept publish 1000 300000 jetstream | publish 1000 50000 jetstream
durable.replay.redis kept replay $replayed redis
durable.replay.jetstream kept replay $replayed jetstream
durable.live kept live $replayed | -
durable.ask kept ask 500 | -
durable.dispatch.pipe100.beanstalkd kept pipe 100 20000 beanstalkd | pipe 100 1000 beanstalkd
durable.start own 10000000
dispatch.one.beanstalkd one one 4000 beanstalkd
dispatch.one.gearmand one one 4000 gearmand
dispatch.pipe100.beanstalkd one pipe 100 100000 beanstalkd
dispatch.pipe100.gearmand one pipe 100 40000 gearmand
dispatch.crash.beanstalkd one crash 100 beanstalkd
dispatch.crash.gearmand one crash 100 gearmand
EOF_JOBS
}
work=$(mktemp -d)
jobs | awk -v what="$what" '$2 == "own" ? $1 == what : index($1, what)' >"$work/jobs"
[ -s "$work/jobs" ] || {
    echo "bench: nothing is named like $what; there are:" $(jobs | cut -d ' ' -f 1) >&2
    rm -rf "$work"
    exit 2
}

# ---- servers ---------------------------------------------------------------------------------------------------------
servers=
kept=$(mktemp -d "${DURABLE_DIR:-/var/tmp}/bench-kept-XXXXXX") # on a disk: what is measured there is not memory
export BENCH_DISK="$kept"
cleanup() {
    for pid in $servers; do
        kill "$pid" 2>/dev/null || :
    done
    for pid in $servers; do # their files are theirs until they have ended
        wait "$pid" 2>/dev/null || :
    done
    rm -rf "$work" "$kept"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

await() { # await WHO LOG COMMAND...: until the command prints something, which becomes $answer; 10 s at most
    who=$1 log=$2
    shift 2
    tries=0
    until answer=$("$@" 2>/dev/null) && [ -n "$answer" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || { tail -n 20 "$log" >&2 && echo "bench: $who did not start" >&2 && exit 1; }
        sleep 0.02
    done
}

export LIMINAL_DATA=none # unless a server is given --data
start_liminald() { # start_liminald NAME OPTION...: port_NAME, pid_NAME
    name=$1
    shift
    eval "options_$name=\$*"
    "$build/liminald" --listen 127.0.0.1:0 "$@" >"$work/$name.out" 2>"$work/$name.log" &
    eval "pid_$name=$!"
    servers="$servers $!"
    await liminald "$work/$name.log" sed -n 's/^liminald .* listening on .*:\([0-9]*\)$/\1/p' "$work/$name.out"
    eval "port_$name=$answer"
}

start_nats() { # start_nats NAME OPTION...: port_NAME, pid_NAME
    name=$1
    shift
    PATH=$PATH:/usr/sbin
    mkdir "$work/$name"
    nats-server -a 127.0.0.1 -p -1 --ports_file_dir "$work/$name" "$@" >"$work/$name.log" 2>&1 &
    eval "pid_$name=$!"
    servers="$servers $!"
    await nats-server "$work/$name.log" sh -c "sed -n 's/.*nats:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' '$work/$name'/*.ports"
    eval "port_$name=$answer"
}

# None tells which port it took: it gets one that was free a moment ago.
start_other() { # start_other NAME COMMAND OPTION...: port_NAME, pid_NAME; the options end with the port's
    PATH=$PATH:/usr/sbin
    name=$1 port=$("$build/bench/bench-dispatch" port)
    shift
    "$@" "$port" >"$work/$name.log" 2>&1 &
    eval "pid_$name=$! port_$name=$port"
    servers="$servers $!"
    await "$name" "$work/$name.log" "$build/bench/bench-dispatch" up "$port"
}

# The peers of durable.*, as durable as they can be; each has a directory beside ours.
start_kept() { # start_kept redis|jetstream|beanstalkd: port_kept_X, pid_kept_X
    mkdir "$kept/$1"
    case $1 in
    redis)
        start_other kept_redis redis-server --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always \
            --auto-aof-rewrite-percentage 0 --dir "$kept/redis" --port
        ;;
    jetstream) start_nats kept_jetstream -js -sd "$kept/jetstream" ;;
    beanstalkd) start_other kept_beanstalkd beanstalkd -b "$kept/beanstalkd" -f 0 -l 127.0.0.1 -p ;;
    esac
}

# A server that died is a failure to be told; the rest of the numbers come from another one.
revive_liminald() { # revive_liminald NAME
    eval "pid=\$pid_$1 options=\$options_$1"
    ! kill -0 "$pid" 2>/dev/null || return 0
    code=0
    wait "$pid" || code=$?
    echo "bench: liminald ($options) ended with $code, its last words:" >&2
    tail -n 5 "$work/$1.log" >&2
    failed=1
    # shellcheck disable=SC2086
    start_liminald "$1" $options
}

# ---- Erlang: both programs run on the first processor, or the first two, that we may use -----------------------------
compile_erlang() {
    command -v erlc >/dev/null || { echo "bench: there is no erlc: install erlang-base" >&2 && exit 1; }
    erlc -o "$work" "$(dirname "$0")/erlang/runtime.erl" || exit 1
}
pinned() { # pinned one|two COMMAND...
    cpus=$(awk -v left="$1" 'BEGIN { left = left == "one" ? 1 : 2 }
        /^Cpus_allowed_list:/ {
            count = split($2, part, ",")
            for (i = 1; i <= count; i++) {
                ends = split(part[i], edge, "-")
                for (cpu = edge[1] + 0; cpu <= edge[ends] + 0 && left-- > 0; cpu++)
                    list = list "," cpu
            }
            print substr(list, 2)
        }' /proc/self/status)
    shift
    taskset -c "$cpus" "$@"
}
erlang() { # erlang one|two
    schedulers=1
    [ "$1" = one ] || schedulers=2
    pinned "$1" erl -noshell -noinput +S $schedulers:$schedulers -pa "$work" -s runtime "$1"
}

needs_job() { cut -d ' ' -f 1 "$work/jobs" | grep -q "$1"; }
needs_server() { cut -d ' ' -f 2 "$work/jobs" | grep -qx "$1"; }
[ -z "$peers" ] || ! needs_server erlang || compile_erlang
if needs_server one || needs_server two || needs_server still || needs_server kept || needs_server own; then
    [ -x "$build/liminald" ] || { echo "bench: there is no $build/liminald" >&2 && exit 1; }
fi
! needs_server one || start_liminald one --schedulers 1
! needs_server two || start_liminald two --schedulers 2 --spread
! needs_server still || start_liminald still --schedulers 1 --spin 0
! needs_server kept || start_liminald kept --schedulers 1 --data "$kept/liminald"
if [ -n "$peers" ]; then
    ! { needs_server one || needs_server two || needs_server still; } || start_nats nats
    ! needs_job '^dispatch\..*\.beanstalkd$' || start_other beanstalkd beanstalkd -l 127.0.0.1 -p
    ! needs_job '^dispatch\..*\.gearmand$' || start_other gearmand gearmand -L 127.0.0.1 -l stderr -p
    ! needs_server redis || start_other redis redis-server --bind 127.0.0.1 --save '' --appendonly no --dir "$work" --port
    for peer in redis jetstream beanstalkd; do
        ! needs_job "^durable\..*\.$peer\$" || start_kept $peer
    done
fi

# What is replayed is put there once, by ones who wait for nothing else.
fill() { # fill PORT [--peer X]
    port=$1
    shift
    "$build/bench/bench-durable_tcp" "$@" "$port" fill $replayed || { echo "bench: nothing to replay" >&2 && exit 1; }
}
if needs_job '^durable\.\(replay\|live\)'; then
    # shellcheck disable=SC2154
    fill "$port_kept"
    for peer in redis jetstream; do
        [ -n "$peers" ] && needs_job "^durable\.replay\.$peer\$" || continue
        eval "fill \$port_kept_$peer --peer $peer"
    done
fi

# ---- runs: lines of $work/results: ours|nats-server|erlang name value unit -------------------------------------------
failed=0
measure() { # measure WHOSE PROGRAM ARGUMENT...: a job that failed once is not run again
    whose=$1
    shift
    "$@" >"$work/out" 2>"$work/err" </dev/null || {
        echo "bench: $job ($whose) ended with $?: $*" >&2
        tail -n 5 "$work/err" >&2
        echo "$job $whose" >>"$work/broken"
        failed=1
        return 0
    }
    sed -n "s/^RESULT  */$whose /p" "$work/out" >>"$work/results"
}
broken() { grep -qxF "$job $1" "$work/broken"; }

round() {
    while read -r job server arguments; do
        ours=${arguments%% | *}
        theirs=${arguments##* | }
        # shellcheck disable=SC2086
        if [ "$server" = none ]; then
            directory=
            case $job in durable | replay) directory=$kept ;; esac
            broken ours || measure ours "$build/bench/bench-$job" ${directory:+"$directory"}
            continue
        elif [ "$server" = own ]; then
            broken ours || measure ours "$build/bench/bench-durable_tcp" start "$build/liminald" "$kept/own" "$ours"
            rm -rf "$kept/own"
            continue
        elif [ "$server" = redis ]; then
            broken ours || measure ours "$build/bench/bench-routing"
            # shellcheck disable=SC2154
            [ -z "$peers" ] || broken redis || SERVER_PID=$pid_redis measure redis "$build/bench/bench-routing" --peer redis "$port_redis"
            continue
        elif [ "$server" = erlang ]; then
            broken ours || measure ours pinned "$ours" "$build/bench/bench-runtime" "$ours"
            [ -z "$peers" ] || broken erlang || measure erlang erlang "$theirs"
            continue
        fi
        revive_liminald "$server"
        eval "port=\$port_$server pid=\$pid_$server"
        case $job in
        durable.*)
            program="$build/bench/bench-durable_tcp" option= server=${job##*.}
            case $job in durable.dispatch.*) program="$build/bench/bench-dispatch" option=--durable ;; esac
            # shellcheck disable=SC2086
            broken ours || SERVER_PID=$pid measure ours "$program" $option "$port" $ours
            [ -n "$peers" ] && [ "$theirs" != - ] || continue
            eval "port=\$port_kept_$server pid=\$pid_kept_$server"
            # shellcheck disable=SC2086
            broken "$server" || SERVER_PID=$pid measure "$server" "$program" --peer "$server" $option "$port" $theirs
            continue
            ;;
        dispatch.*)
            server=${job##*.}
            # shellcheck disable=SC2086
            broken ours || SERVER_PID=$pid measure ours "$build/bench/bench-dispatch" "$port" $ours
            [ -n "$peers" ] || continue
            eval "port=\$port_$server pid=\$pid_$server"
            # shellcheck disable=SC2086
            broken "$server" || SERVER_PID=$pid measure "$server" "$build/bench/bench-dispatch" --peer "$server" "$port" $theirs
            continue
            ;;
        tcp.library.*)
            # shellcheck disable=SC2086
            broken ours || SERVER_PID=$pid measure ours "$build/bench/bench-library" "$port" $ours
            { [ -n "$peers" ] && "$build/bench/bench-library" --peer libnats has; } || continue
            # shellcheck disable=SC2086
            broken libnats || SERVER_PID=$pid_nats measure libnats "$build/bench/bench-library" --peer libnats "$port_nats" $theirs
            continue
            ;;
        esac
        # shellcheck disable=SC2086
        broken ours || SERVER_PID=$pid measure ours "$build/bench/bench-tcp" "$port" $ours
        [ -n "$peers" ] && [ "$theirs" != - ] || continue
        # shellcheck disable=SC2086
        broken nats-server || SERVER_PID=$pid_nats measure nats-server "$build/bench/bench-tcp" --peer nats "$port_nats" $theirs
    done <"$work/jobs"
}

: >"$work/results"
: >"$work/broken"
run=0
while [ $run -lt "$runs" ]; do
    run=$((run + 1))
    echo "bench: round $run of $runs" >&2
    round
done

# ---- the report ------------------------------------------------------------------------------------------------------
awk -v json="$json" -v peers="$peers" '
# Targets: of the ratio to the peer (at least), or of the value (at most, at least).
function target(name) {
    if (name ~ /^tcp\.pubsub\.1x[0-9]+\.[0-9]+B$/) return "ratio >= 2"
    if (name == "tcp.ask.w1.c1.one.p50") return "ratio >= 2"
    if (name ~ /^tcp\.ask\.w1\.c1\.[a-z]+\.p50$/) return "ratio >= 1.33"
    if (name ~ /^tcp\.library\.w64\.(loop|callbacks)\.rate$/) return "ratio >= 5"
    if (name ~ /^tcp\.dispatch\.one\..*\.rate$/) return "ratio >= 1.5"
    if (name == "tcp.dispatch.pipe100.beanstalkd.rate") return "ratio >= 5"
    if (name ~ /^tcp\.dispatch\.crash_to_next\..*\.p99$/) return "value <= 2000"
    if (name ~ /^tcp\.ask\.w64\.c1\.[a-z]+\.rate$/) return "ratio >= 1.5"
    if (name == "line.step.ratio") return "value <= 2"
    if (name ~ /^conversation\.memory_idle/) return "value <= 512"
    if (name ~ /^conversation\.open_ask_close/) return "value <= 1000"
    if (name == "tcp.crash_to_told.p99") return "value <= 1000"
    if (name == "tcp.slow.paced.kept") return "value >= 0.95"
    if (name ~ /^tcp\.idle\..*s$/) return "value <= 0"
    if (name ~ /\.LOST$/) return "value <= 0"
    if (name ~ /^runtime_(round_trip_same|spawn_exit_down)$/) return "ratio >= 10"
    if (name ~ /^runtime_(one_way_128|cascade_per_link)$/) return "ratio >= 5"
    if (name == "runtime_idle_process") return "ratio >= 8 and value <= 320"
    if (name ~ /^runtime_(callers|requests)_64_/) return "ratio >= 3"
    if (name ~ /^runtime_cross_(pipelined|single\.p50)$/) return "value <= 300"
    if (name == "runtime_10M_lives_growth") return "value <= 64"
    if (name == "route.lua_decision") return "value <= 250 and ratio >= 2"
    if (name ~ /^route\.(native\.)?kill_overshoot.*\.p99$/) return "value <= 1000"
    if (name == "route.native.batch64") return "value <= 100"
    if (name == "route.native.single.p50") return "value <= 6"
    if (name == "route.native.crash_known.p50") return "value <= 50"
    if (name == "route.native.next_good.p50") return "value <= 250"
    if (name == "durable.tcp.w1.redis.rate") return "ratio >= 1.15"
    if (name ~ /^durable\.tcp\.w1\.[a-z]+\.syncs$/) return "value <= 1.8"
    if (name == "durable.tcp.w100.redis.rate") return "ratio >= 2.5"
    if (name ~ /^durable\.tcp\.w100\.[a-z]+\.to_floor$/) return "value >= 0.9"
    if (name ~ /^durable\.tcp\.w1000\.[a-z]+\.rate$/) return "ratio >= 5"
    if (name == "durable.replay.redis.rate") return "ratio >= 3"
    if (name == "durable.replay.jetstream.rate") return "ratio >= 5"
    if (name == "durable.live.beside_replay.slower") return "value <= 1.5"
    if (name == "durable.ask.syncs") return "value <= 4.5"
    if (name == "durable.ask.commits") return "value <= 2"
    if (name == "durable.dispatch.pipe100.beanstalkd.rate") return "ratio >= 5"
    if (name == "durable.start.ready_after_kill") return "value <= 1000"
    if (name == "store.append_to_raw.w1.p50") return "value <= 1.8"
    if (name == "store.ready_after_kill") return "value <= 1000"
    if (name == "durable.one.syncs") return "value <= 1.8"
    return ""
}
function meets(goal, value, ratio,    goals, part, n, i, x, answer) {
    n = split(goal, goals, " and ")
    for (i = 1; i <= n; i++) {
        split(goals[i], part, " ")
        if (part[1] == "ratio" && ratio == "")
            return ""
        x = part[1] == "ratio" ? (ratio == "inf" ? 1e9 : ratio) : value
        if (answer != "missed")
            answer = (part[2] == ">=" ? x >= part[3] + 0 : x <= part[3] + 0) ? "met" : "missed"
    }
    return answer
}
function median(key, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = all[key, i]
        for (j = i - 1; j >= 1 && all[key, j] > x; j--)
            all[key, j + 1] = all[key, j]
        all[key, j + 1] = x
    }
    return n % 2 ? all[key, (n + 1) / 2] : (all[key, n / 2] + all[key, n / 2 + 1]) / 2
}
function ratio_of(unit, ours, theirs,    better, worse) {
    better = unit ~ /\/s$/ && unit !~ /^us/ || unit == "x" ? ours : theirs
    worse = better == ours ? theirs : ours
    if (ours == theirs)
        return 1
    return worse == 0 ? "inf" : better / worse
}
function number(x) {
    return sprintf(x != 0 && x < 10 && x > -10 ? "%.3f" : x < 10000 ? "%.1f" : "%.0f", x)
}
function print_json(name, value, key, n, theirs, ratio, goal) {
    printf "{\"name\":\"%s\",\"unit\":\"%s\",\"value\":%s,\"min\":%s,\"max\":%s,\"runs\":%d,\"durability\":\"%s\"", name,
        unit[name], number(value), number(all[key, 1]), number(all[key, n]), n, class[name]
    if (theirs != "")
        printf ",\"peer\":\"%s\",\"peer_durability\":\"%s\",\"peer_value\":%s,\"ratio\":%s", peer[name], peer_class[name],
            number(theirs), ratio == "inf" ? "null" : sprintf("%.3f", ratio)
    if (goal != "")
        printf ",\"target\":\"%s\"", goal
    if (meets(goal, value, ratio) != "")
        printf ",\"met\":%s", meets(goal, value, ratio) == "met" ? "true" : "false"
    print "}"
}
function print_row(name, value, key, n, theirs, ratio, goal,    both) {
    both = name in peer && peer_class[name] != class[name] ? class[name] "/" peer_class[name] : class[name]
    printf "%-46s %-7s %12s %-10s %12s %12s %4d", name, both, number(value), unit[name], number(all[key, 1]), number(all[key, n]), n
    if (peers)
        printf " %12s %8s", theirs == "" ? "" : number(theirs), ratio == "" ? "" : ratio == "inf" ? ratio : sprintf("%.2f", ratio)
    if (goal != "")
        printf "  %s%s", goal, meets(goal, value, ratio) == "" ? " (--peers tells)" : ": " meets(goal, value, ratio)
    print ""
}
{
    if (!($2 in unit)) {
        unit[$2] = $4
        order[++names] = $2
    }
    if ($1 != "ours") {
        peer[$2] = $1
        peer_class[$2] = $5 == "" ? "memory" : $5
    } else {
        class[$2] = $5 == "" ? "memory" : $5
    }
    all[$1 SUBSEP $2, ++count[$1, $2]] = $3 + 0
}
END {
    if (json == "") {
        printf "%-46s %-7s %12s %-10s %12s %12s %4s", "name", "class", "median", "unit", "min", "max", "runs"
        print peers ? sprintf(" %12s %8s  %s", "peer", "ratio", "target") : "  target"
    }
    for (i = 1; i <= names; i++) {
        name = order[i]
        n = count["ours", name]
        if (n == 0)
            continue
        key = "ours" SUBSEP name
        value = median(key, n)
        theirs = name in peer ? median(peer[name] SUBSEP name, count[peer[name], name]) : ""
        ratio = theirs == "" ? "" : ratio_of(unit[name], value, theirs)
        if (json != "")
            print_json(name, value, key, n, theirs, ratio, target(name))
        else
            print_row(name, value, key, n, theirs, ratio, target(name))
    }
}' "$work/results"
[ $failed -eq 0 ]
