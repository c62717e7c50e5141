#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# programs.sh BUILD [CHECK...] - what liminald and liminal hold, seen from outside, with real processes that are really
# killed. Each check has a server of its own, on a port of its own; CHECKs are the names of the functions below without
# "check_" (default: all). One line each; the ones that did not hold say what was seen. Fails if any did not hold.
#
# Waiting is always for an event, up to a bound; the one exception is `idle`, which measures ten seconds of nothing.
set -u
export LC_ALL=C
build=$(cd "$1" && pwd) || exit 2
shift
PATH=$build:$PATH
top=$(mktemp -d "${TMPDIR:-/tmp}/liminal-programs.XXXXXX") || exit 1
work=$top server= started=
cleanup() {
    stop_all
    rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# ---- tools ------------------------------------------------------------------------------------------------------------
stop_all() {
    # shellcheck disable=SC2086
    [ -z "$started$server" ] || kill -KILL $started $server 2>/dev/null
    wait 2>/dev/null
    started= server=
}
fail() { echo "$*" >>"$work/why"; }
within() { # within SECONDS CMD...: true as soon as CMD is; false after that time
    last=$(($(date +%s%N) / 1000000 + $1 * 1000))
    shift
    until "$@"; do
        [ $(($(date +%s%N) / 1000000)) -lt $last ] || return 1
        sleep 0.01
    done
}
ms_since() { echo $((($(date +%s%N) - $1) / 1000000)); }
expect() { # expect WHAT WANTED SEEN
    [ "$2" = "$3" ] || fail "$1: expected $2, saw $3"
}
# Nothing is kept, unless a check says --data: several run at once, and none should meet what another one left.
export LIMINAL_DATA=none

start_server() {
    : >"$work/server.out"
    # shellcheck disable=SC2086
    liminald --listen 127.0.0.1:0 ${SCHEDULERS:+--schedulers $SCHEDULERS} "$@" >"$work/server.out" 2>"$work/server.err" </dev/null &
    server=$!
    within 10 grep -q '127\.0\.0\.1:[0-9]' "$work/server.out" || { fail "the server did not say where it listens"; return 1; }
    LIMINAL_SERVER=$(sed -n 's/.*[^0-9.]\(127\.0\.0\.1:[0-9][0-9]*\).*/\1/p' "$work/server.out" | head -n 1)
    export LIMINAL_SERVER
}
background() { # background NAME CMD...: its output in NAME.out and NAME.err, its exit code in NAME.code; sets $pid
    name=$1
    shift
    ("$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null &
        echo $! >"$work/$name.pid"
        wait $! 2>/dev/null
        echo $? >"$work/$name.code") 2>/dev/null &
    within 5 test -s "$work/$name.pid"
    pid=$(cat "$work/$name.pid")
    started="$started $pid"
}
members() { # members GROUP: how many are registered
    liminal worker ls --json 2>/dev/null | grep -c "\"group\": *\"$1\""
}
has_members() { [ "$(members "$1")" -ge "$2" ]; }
in_hand() { liminal worker ls --json 2>/dev/null | grep "\"group\": *\"$1\"" | grep -vq '"in_flight": *0'; }
field() { sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1; }
code_of() { # code_of CMD...: runs it, prints its exit code; output in out and err
    code=0
    timeout 30 "$@" >"$work/out" 2>"$work/err" </dev/null || code=$?
    echo $code
}

# ---- the checks -------------------------------------------------------------------------------------------------------
# With 50 idle clients connected the server makes no wake-up in 10 s (every switch of a thread that waited is counted).
check_idle() {
    start_server || return
    i=0
    while [ $i -lt 50 ]; do
        i=$((i + 1))
        background "sub$i" liminal sub "quiet.$i"
    done
    subscribed() { [ "$(liminal channel ls --json | grep -c quiet)" -ge 50 ]; }
    within 20 subscribed || fail "only $(liminal channel ls --json | grep -c quiet) of 50 clients subscribed"
    wakes() { cat /proc/"$server"/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'; }
    settled() { before=$(wakes) && sleep 0.5 && [ "$(wakes)" = "$before" ]; }
    within 15 settled || fail "the server does not come to rest"
    before=$(wakes)
    sleep 10
    expect "wake-ups in 10 s" 0 $(($(wakes) - before))
}

# SIGKILL of the server ends every waiting command within 1 s: lost, exit code 3.
check_server_killed() {
    start_server || return
    background worker liminal work slow --exec 'sleep 60' --no-reconnect
    background server_of_asks liminal serve slow --exec 'sleep 60' --no-reconnect
    within 5 has_members slow 2 || fail "nobody registered"
    background ask liminal ask slow x --json --timeout 1m
    background dispatch liminal dispatch slow x --wait --json
    background sub liminal sub anything
    both() { [ "$(liminal worker ls --json | grep -c '"in_flight": *1')" -eq 2 ]; }
    within 5 both || fail "the work was not handed out"
    killed_ns=$(date +%s%N)
    kill -KILL "$server"
    for who in ask dispatch sub worker server_of_asks; do
        within 2 test -s "$work/$who.code" || fail "$who still waits"
        expect "$who's exit code" 3 "$(cat "$work/$who.code" 2>/dev/null)"
    done
    [ "$(ms_since "$killed_ns")" -le 1000 ] || fail "it took $(ms_since "$killed_ns") ms"
    expect "the ask's outcome" lost "$(field outcome <"$work/ask.out")"
    expect "the task's outcome" lost "$(field outcome <"$work/dispatch.out")"
}

# SIGKILL of whoever holds an ask: the asker is told, exit code 4.
check_responder_killed() {
    start_server || return
    background holder liminal serve slow --exec 'sleep 60'
    holder=$pid
    within 5 has_members slow 1 || fail "nobody registered"
    background ask liminal ask slow x --json --timeout 1m
    within 5 in_hand slow || fail "the ask was not handed out"
    killed_ns=$(date +%s%N)
    kill -KILL "$holder"
    within 2 test -s "$work/ask.code" || fail "the asker still waits"
    [ "$(ms_since "$killed_ns")" -le 500 ] || fail "it took $(ms_since "$killed_ns") ms"
    expect "exit code" 4 "$(cat "$work/ask.code" 2>/dev/null)"
    expect "outcome" crashed "$(field outcome <"$work/ask.out")"
    expect "handed over" unknown "$(field handed_over <"$work/ask.out")"
}

# A reply followed by its sender's exit is a reply, never a crash.
check_reply_then_exit() {
    start_server || return
    i=0
    while [ $i -lt 50 ]; do
        i=$((i + 1))
        background "once$i" liminal serve "once$i" --exec cat --max 1
        within 5 has_members "once$i" 1 || fail "once$i did not register"
        expect "ask $i" 0 "$(code_of liminal ask "once$i" "hello $i")"
        expect "reply $i" "hello $i" "$(cat "$work/out")"
        [ ! -s "$work/why" ] || return
    done
}

# A task that kills three workers in a row does not take the queue down; one that kills all it is given to is put away.
check_poison() {
    start_server || return
    # shellcheck disable=SC2016 # for the worker's shell
    poison='read -r t; case $t in poison*) [ $LIMINAL_LOSSES -ge ${t#poison} ] || kill -KILL $PPID ;; esac; echo "$t done"'
    for i in 1 2 3 4 5 6 7 8 9 10; do background "worker$i" liminal work q --exec "$poison" --identity "w$i"; done
    within 5 has_members q 10 || fail "only $(members q) workers registered"
    { for i in 1 2 3 4 5 6 7 8; do echo "good$i"; done && echo poison3 && for i in 9 10 11 12; do echo "good$i"; done; } |
        timeout 60 liminal dispatch q - --wait --json >"$work/tasks.out" 2>"$work/tasks.err"
    expect "replies" 13 "$(grep -c '"outcome": *"reply"' "$work/tasks.out")"
    expect "losses of the poisonous one" 3 "$(grep 'poison3 done' "$work/tasks.out" | field losses)"
    expect "exit code of a task that kills everybody it meets" 4 "$(code_of liminal dispatch q poison99 --wait --json)"
    expect "its losses" 5 "$(field losses <"$work/out")"
    expect "reason" kills_workers "$(field why <"$work/out")"
    expect "a good one afterwards" 0 "$(code_of liminal dispatch q good13 --wait)"
}

# deploy during load: nothing is refused; a bad function changes nothing.
check_deploy() {
    start_server || return
    for i in 1 2 3; do background "worker$i" liminal work q --exec cat --identity "w$i" --capacity 4; done
    within 5 has_members q 3 || fail "the workers did not register"
    i=0
    while [ $i -lt 600 ]; do
        i=$((i + 1))
        echo "{\"n\":$i}"
    done >"$work/tasks"
    (timeout 60 liminal dispatch q - --wait --json <"$work/tasks" >"$work/results" 2>"$work/dispatch.err"; echo $? >"$work/dispatch.code") &
    within 10 test -s "$work/results" || fail "no result"
    i=0
    while [ $i -lt 20 ]; do
        i=$((i + 1))
        printf 'return function(msg, candidates)\n  return candidates[1 + (%d + msg.n) %% #candidates]\nend\n' $i >"$work/route$i.lua"
        expect "deploy $i" 0 "$(code_of liminal deploy q "$work/route$i.lua")"
    done
    echo 'return function(msg, candidates) retrun candidates[1] end' >"$work/bad.lua"
    bad=$(code_of liminal deploy q "$work/bad.lua")
    [ "$bad" -ne 0 ] || fail "a function that does not compile was deployed"
    grep -q 'bad.lua:1' "$work/err" || fail "the complaint names no line: $(cat "$work/err")"
    within 60 test -s "$work/dispatch.code" || fail "the tasks do not end"
    expect "exit code" 0 "$(cat "$work/dispatch.code" 2>/dev/null)"
    expect "replies" 600 "$(grep -c '"outcome": *"reply"' "$work/results")"
}

# A child of --exec that ignores signals does not delay the notice of its worker's crash, and does not outlive it.
check_stubborn_child() {
    start_server || return
    background stubborn liminal work q --identity stubborn --exec "trap '' TERM INT HUP; echo \$\$ >'$work/child'; sleep 60; sleep 60"
    worker=$pid
    within 5 has_members q 1 || fail "nobody registered"
    background dispatch liminal dispatch q x --wait --json
    within 5 test -s "$work/child" || fail "the child did not start"
    background good liminal work q --identity good --exec 'cat'
    killed_ns=$(date +%s%N)
    kill -KILL "$worker"
    within 5 test -s "$work/dispatch.code" || fail "the task was not handed on"
    [ "$(ms_since "$killed_ns")" -le 1000 ] || fail "it took $(ms_since "$killed_ns") ms"
    expect "who did it" good "$(field participant <"$work/dispatch.out")"
    gone() { ! kill -0 "$(cat "$work/child")" 2>/dev/null; }
    within 2 gone || fail "the child outlives its worker"
}

# Two subscribers, one of which stops reading: the other loses less than 5 % of its rate.
check_slow_subscriber() {
    start_server || return
    awk 'BEGIN { for (i = 0; i < 100000; i++) printf "{\"n\":%d,\"text\":\"some text to carry, as messages have it\"}\n", i }' \
        >"$work/lines"
    reading() { liminal channel ls --json 2>/dev/null | grep '"name": *"load"' | grep -q "\"subscriptions\": *$readers"; }
    nobody_reads() { ! liminal channel ls --json 2>/dev/null | grep '"name": *"load"' | grep -q '"subscriptions": *[1-9]'; }
    run_ms() { # how long until a subscriber has 100,000 messages
        background "reader$1" liminal sub load --max 100000 --backlog 200000
        within 5 reading || fail "the subscriber did not appear"
        begin=$(date +%s%N)
        liminal pub load - <"$work/lines" >/dev/null 2>"$work/pub.err"
        within 60 test -s "$work/reader$1.code" || fail "not everything arrived"
        ms_since "$begin"
    }
    # Beside one that reads, and beside the same one stopped: reading or not must make no difference to the other.
    reader=999999 sleeper=999999
    for i in 1 2 3 4 5; do
        for how in reader sleeper; do
            background "other$how$i" liminal sub load --backlog 4096
            other=$pid readers=1
            within 5 reading || fail "the other subscriber did not appear"
            [ $how = reader ] || kill -STOP "$other"
            readers=2
            ms=$(run_ms "$how$i")
            eval "[ \"\$ms\" -ge \$$how ] || $how=\$ms"
            kill -KILL "$other"
            within 5 nobody_reads || fail "the other subscriber did not go"
        done
    done
    [ $((sleeper * 100)) -lt $((reader * 105)) ] || fail "best of five: $reader ms beside one that reads, $sleeper ms beside one that does not"
    echo "  (100,000 messages: $reader ms beside one that reads, $sleeper ms beside one that does not)"
}

# liminald's configuration: who wins, what --print-config prints is read again, and every mistake is a line with its place.
check_configuration() {
    printf 'listen: 127.0.0.1:0\nspin: 20us\nlog:\n  level: error\n' >"$work/good.yaml"
    export LIMINAL_SPIN=30us LIMINAL_SCHEDULERS=2
    expect "a good file" 0 "$(code_of liminald --config "$work/good.yaml" --check-config)"
    expect "printing" 0 "$(code_of liminald --config "$work/good.yaml" --schedulers 3 --print-config)"
    for line in 'listen: 127.0.0.1:0  # file:1' 'spin: 30us  # LIMINAL_SPIN' 'schedulers: 3  # --schedulers' \
        'drain: 5s  # default' '  level: error  # file:4'; do
        grep -qxF -e "$line" "$work/out" || fail "--print-config does not say: $line"
    done
    unset LIMINAL_SPIN LIMINAL_SCHEDULERS
    sed 's/ *#.*//' "$work/out" >"$work/values"
    cp "$work/out" "$work/printed.yaml"
    expect "what was printed, read again" 0 "$(code_of liminald --config "$work/printed.yaml" --print-config)"
    sed 's/ *#.*//' "$work/out" | grep . >"$work/again"
    grep . "$work/values" | cmp -s - "$work/again" || fail "what was printed reads differently"
    printf 'shedulers: 2\nspin: 9h\nspin: 1us\n' >"$work/bad.yaml"
    expect "a bad file" 2 "$(code_of liminald --config "$work/bad.yaml" --check-config)"
    expect "a bad file, lines" 3 "$(grep -cE '^liminald: .*/bad\.yaml:[123]:[0-9]+: .*: .*; ' "$work/err")"
    expect "a bad file, to run" 2 "$(code_of liminald --config "$work/bad.yaml")"
    start_server --config "$work/good.yaml" || return
    expect "a server with a file" 0 "$(code_of liminal info)"
}

# Every mistake gets one line that says what, why and what to do, and its exit code; the server survives all of it.
check_bad_input() {
    start_server || return
    port=${LIMINAL_SERVER##*:}
    complains() { # complains WHAT CODE CMD...
        what=$1 wanted=$2
        shift 2
        expect "$what: exit code" "$wanted" "$(code_of "$@")"
        expect "$what: lines of complaint" 1 "$(wc -l <"$work/err")"
        grep -qE ': .*(;|:) ' "$work/err" || fail "$what: says too little: $(cat "$work/err")"
    }
    complains "unknown flag" 2 liminal pub x --nonsense
    complains "unknown command" 2 liminal frobnicate
    complains "unknown flag of the server" 2 liminald --nonsense
    complains "unreachable server" 3 liminal info --server 127.0.0.1:1
    complains "nobody there" 6 liminal ask nobody x
    complains "no such group" 7 liminal group show nobody
    complains "no such conversation" 7 liminal conversation show 0000000000000001
    complains "bad name" 6 liminal pub 'two words' x
    complains "no such file" 7 liminal deploy g "$work/none.lua"
    echo 'return 42' >"$work/nonsense.lua"
    code=$(code_of liminal deploy g "$work/nonsense.lua")
    [ "$code" -ne 0 ] || fail "a file that returns no function was deployed"
    head -c 2000000 /dev/zero | tr '\0' x >"$work/big"
    code=0
    liminal pub x - <"$work/big" >"$work/out" 2>"$work/err" || code=$?
    expect "a payload over the limit: exit code" 6 $code
    code=$(code_of liminald --listen "$LIMINAL_SERVER")
    [ "$code" -ne 0 ] || fail "a second server on the same port"
    expect "port in use: lines of complaint" 1 "$(grep -c '^liminald: ' "$work/err")"
    background broken liminal serve broken --exec /no/such/command
    within 2 has_members broken 1 && expect "a command that does not exist: exit code" 1 "$(code_of liminal ask broken x)"
    # Rubbish, and frames cut anywhere.
    for i in 1 2 3 4 5 6 7 8 9 10; do
        head -c $((i * 97)) /dev/urandom | bash -c 'exec 3<>/dev/tcp/127.0.0.1/$0 && cat >&3' "$port" 2>/dev/null
        printf '\001\000\000\000\000\000\000\000\000\014\000\001\000\000\000\002\000\000\000\000\000\000' | head -c $((i * 2)) |
            bash -c 'exec 3<>/dev/tcp/127.0.0.1/$0 && cat >&3' "$port" 2>/dev/null
    done
    background echo liminal serve echo --exec cat
    within 5 has_members echo 1 || fail "the server did not survive"
    expect "an ask afterwards" 0 "$(code_of liminal ask echo hello)"
    kill -TERM "$server"
    wait "$server"
    expect "the server's exit code" 0 $?
    server=
}

# A task is tried as often as its queue says, then it is a dead letter with its reason; mended and replayed it succeeds.
check_dead_letters() {
    start_server || return
    expect "configure" 0 "$(code_of liminal queue configure q attempts_max=3 backoff_min=20ms backoff_jitter_percent=0)"
    expect "a rule that is unknown" 2 "$(code_of liminal queue configure q atempts_max=3)"
    grep -q 'did you mean "attempts_max"' "$work/err" || fail "it is not told which rule was meant: $(cat "$work/err")"
    # shellcheck disable=SC2016 # for the worker's shell
    background worker env "DIR=$work" liminal work q --exec \
        'echo "$LIMINAL_ATTEMPT" >>"$DIR/attempts"; test -e "$DIR/mended" || { echo out of ink >&2; exit 1; }; cat'
    within 5 has_members q 1 || fail "nobody registered"
    expect "a task that fails" 1 "$(code_of liminal dispatch q hello --wait --json)"
    expect "its attempts" "1 2 3" "$(tr '\n' ' ' <"$work/attempts" | sed 's/ $//')"
    task=$(field task <"$work/out")
    expect "dead letters" 0 "$(code_of liminal dead ls q --json)"
    expect "the dead letter" "$task" "$(field id <"$work/out")"
    expect "its last error" "out of ink" "$(field detail <"$work/out")"
    expect "its payload" hello "$(liminal dead show "$task" --json | field payload)"
    expect "the task, by its id" 0 "$(code_of liminal task show "$task" --json)"
    touch "$work/mended"
    expect "replay" 0 "$(code_of liminal dead replay q --all --json)"
    again=$(field task <"$work/out")
    expect "its result" 0 "$(code_of liminal task await "$again" --timeout 10s)"
    expect "its reply" hello "$(cat "$work/out")"
    expect "dead letters afterwards" "" "$(liminal dead ls --json)"
}

# A queue that is paused hands out nothing, one that drains takes nothing, and both say so.
check_pause_and_drain() {
    start_server || return
    background worker liminal work q --exec cat
    within 5 has_members q 1 || fail "nobody registered"
    expect "pause" 0 "$(code_of liminal queue pause q)"
    background waiting liminal dispatch q hello --wait
    queued() { [ "$(liminal queue ls --json | field queued)" = 1 ]; }
    within 5 queued || fail "the task does not wait"
    expect "why" paused "$(liminal queue why q --json | field why)"
    expect "resume" 0 "$(code_of liminal queue resume q)"
    within 5 test -s "$work/waiting.code" || fail "it does not go on"
    expect "the task" hello "$(cat "$work/waiting.out")"
    background slow liminal work s --exec "touch '$work/begun'; until test -e '$work/go'; do sleep 0.05; done"
    within 5 has_members s 1 || fail "nobody registered"
    background last liminal dispatch s x --wait
    within 5 test -e "$work/begun" || fail "the task did not begin"
    background drain liminal queue drain s --wait
    draining() { [ "$(code_of liminal dispatch s x)" = 6 ]; }
    within 5 draining || fail "a queue that drains takes tasks"
    [ ! -s "$work/drain.code" ] || fail "it counts as drained while a task runs"
    touch "$work/go"
    within 5 test -s "$work/drain.code" || fail "it does not become empty"
    expect "drain --wait" 0 "$(cat "$work/drain.code" 2>/dev/null)"
    expect "drain of a worker" 0 "$(code_of liminal worker drain worker-1 q)"
    expect "why it gets nothing" draining "$(liminal worker ls q --json | field why)"
}

# SIGTERM ends the server in the time it was given, whatever waits in it for somebody who never comes (aion#73).
check_stop_with_waiting_work() {
    start_server --drain 300ms || return
    background dispatch liminal dispatch lonely x --wait --json
    background ask liminal ask lonely x --wait --timeout 1m --json
    background worker liminal work slow --exec 'sleep 60' --no-reconnect
    within 5 has_members slow 1 || fail "nobody registered"
    background held liminal dispatch slow x --wait --json
    within 5 in_hand slow || fail "the task was not handed out"
    stopped_ns=$(date +%s%N)
    kill -TERM "$server"
    wait "$server"
    [ "$(ms_since "$stopped_ns")" -le 2000 ] || fail "the server took $(ms_since "$stopped_ns") ms"
    server=
    for who in dispatch ask held worker; do
        within 2 test -s "$work/$who.code" || fail "$who still waits"
    done
}

# Nothing waits without a reason: each that can be brought about from here, in one line that says what to do.
check_why() {
    start_server || return
    says() { liminal queue why "$1" --json 2>/dev/null | grep -q "\"why\":\"$2\""; }
    why() { # why QUEUE WORD
        within 5 says "$1" "$2" || fail "$1: expected $2, saw $(liminal queue why "$1")"
        liminal queue why "$1" | grep -qE "^$1: [0-9]+ tasks? waits?: $2 - .+" || fail "not a line for people: $(liminal queue why "$1")"
    }
    liminal dispatch lonely x >/dev/null
    why lonely no_workers
    liminal queue pause lonely >/dev/null
    why lonely paused
    for queue in typed full limited ordered chosen later; do
        background "$queue" liminal work $queue --exec 'sleep 60' --type a --capacity 2
        within 5 has_members $queue 1 || fail "nobody works on $queue"
    done
    liminal dispatch typed x --type b >/dev/null
    why typed no_matching_type
    for i in 1 2 3; do liminal dispatch full x --type a >/dev/null; done
    why full workers_full
    liminal queue limit limited k in_flight_max=1 >/dev/null
    for i in 1 2; do liminal dispatch limited x --type a --key k >/dev/null; done
    why limited limited
    for i in 1 2; do liminal dispatch ordered x --type a --order-key k >/dev/null; done
    why ordered ordered_behind
    echo 'return function(msg, candidates) return nil end' >"$work/none.lua"
    liminal deploy chosen "$work/none.lua" >/dev/null
    liminal dispatch chosen x --type a >/dev/null
    why chosen router_chose_none
    liminal dispatch later x --type a --delay 1h >/dev/null
    why later delayed
    expect "one that has nothing" "later: nothing waits, 0 running" \
        "$(liminal queue purge later >/dev/null && liminal queue why later)"
}

# Everybody is asked, the first one is enough, and an answer in parts comes as it is made.
check_many_and_parts() {
    start_server || return
    background one liminal serve g --exec 'echo one' --identity one
    background two liminal serve g --exec "until test -e '$work/go'; do sleep 0.05; done; echo two" --identity two
    background three liminal serve g --exec 'exit 1' --identity three
    within 5 has_members g 3 || fail "only $(members g) registered"
    expect "the first one" 0 "$(code_of liminal ask g x --any --timeout 20s)"
    expect "its reply" one "$(cat "$work/out")"
    expect "a quorum of one" 0 "$(code_of liminal ask g x --all --quorum 1 --timeout 20s --json)"
    expect "a quorum that cannot be" 6 "$(code_of liminal ask g x --all --quorum 3 --timeout 20s)"
    grep -q quorum "$work/err" || fail "it does not say quorum: $(cat "$work/err")"
    touch "$work/go"
    expect "a quorum of two" 0 "$(code_of liminal ask g x --all --quorum 2 --timeout 20s)"
    expect "their replies" "one: one two: two" "$(sort "$work/out" | tr '\n' ' ' | sed 's/ $//')"
    background parts liminal serve p --stream --exec \
        "echo 1; until test -e '$work/more'; do sleep 0.05; done; seq 2 1000; test ! -e '$work/bad' || exit 3"
    within 5 has_members p 1 || fail "nobody registered"
    background stream liminal ask p x --stream --timeout 20s --window 8
    within 5 grep -qx 1 "$work/stream.out" || fail "the first part does not come before the last is made"
    [ ! -s "$work/stream.code" ] || fail "it has ended already"
    touch "$work/more"
    within 10 test -s "$work/stream.code" || fail "it does not end"
    expect "exit code" 0 "$(cat "$work/stream.code" 2>/dev/null)"
    seq 1000 | cmp -s - "$work/stream.out" || fail "the parts are not 1 to 1000: $(wc -l <"$work/stream.out") lines"
    expect "who takes no parts" 0 "$(code_of liminal ask p x)"
    seq 1000 | cmp -s - "$work/out" || fail "the reply is not 1 to 1000"
    touch "$work/bad"
    expect "parts, then a failure" 1 "$(code_of liminal ask p x --stream --json)"
    expect "its outcome" failed "$(tail -n 1 "$work/out" | field outcome)"
    expect "its parts" 1000 "$(grep -c '"part"' "$work/out")"
    rm "$work/more" "$work/bad"
    background cut liminal ask p x --stream --timeout 20s --json
    cut=$pid
    within 5 grep -q '"part"' "$work/cut.out" || fail "no part"
    kill -INT "$cut"
    within 5 test -s "$work/cut.code" || fail "^C does not end it"
    expect "cancelled" 8 "$(cat "$work/cut.code" 2>/dev/null)"
    idle() { ! in_hand p; }
    within 5 idle || fail "the participant was not told"
}

# A running task hears a signal; who follows its history sees each entry once, from the first to the last.
check_signal_and_history() {
    start_server || return
    background worker liminal work q --exec \
        "trap 'echo stopped; exit 0' USR1; echo 'progress: half way' >&2; touch '$work/begun'; while :; do sleep 0.05; done"
    within 5 has_members q 1 || fail "nobody registered"
    background dispatch liminal dispatch q x --wait --trace --json
    within 5 test -e "$work/begun" || fail "the task did not begin"
    task=$(liminal task ls q --json | field id)
    background follow liminal conversation show "$task" --follow --json
    within 5 test -s "$work/follow.out" || fail "nothing is printed"
    expect "signal" 0 "$(code_of liminal conversation signal "$task" usr1 now)"
    within 5 test -s "$work/dispatch.code" || fail "the signal did not reach the command"
    expect "what it said" 0 "$(grep -q stopped "$work/dispatch.out"; echo $?)"
    within 5 grep -q 'signal usr1 now' "$work/worker.out" || fail "the worker does not print the signal"
    within 5 test -s "$work/follow.code" || fail "following goes on after the end"
    expect "following" 0 "$(cat "$work/follow.code" 2>/dev/null)"
    field_n() { sed -n 's/^{"n":\([0-9]*\),.*/\1/p'; }
    expect "numbers" "$(seq "$(grep -c . "$work/follow.out")" | tr '\n' ' ')" "$(field_n <"$work/follow.out" | tr '\n' ' ')"
    liminal conversation show "$task" --json >"$work/past" 2>"$work/err" || fail "it is not remembered: $(cat "$work/err")"
    for kind in opened assigned signal; do
        grep -q "\"kind\":\"$kind\"" "$work/follow.out" || fail "no entry $kind"
    done
    expect "signal of one that has ended" 8 "$(code_of liminal conversation signal "$task" usr1)"
    expect "signal of one that never was" 8 "$(code_of liminal conversation signal 0000000000000001 usr1)"
}

# What a dispatch may say: priority, unique and idempotency keys; and an ask that is to be undone when it crashes.
check_words_of_a_dispatch() {
    start_server || return
    liminal queue pause q >/dev/null
    for i in 1 5 9; do liminal dispatch q "p$i" --priority $i >/dev/null; done
    expect "a unique one" 0 "$(code_of liminal dispatch q first --unique-key u --priority 0 --json)"
    first=$(field task <"$work/out")
    expect "another one with its key" 6 "$(code_of liminal dispatch q second --unique-key u --json)"
    expect "why" duplicate "$(field why <"$work/out")"
    expect "one that joins it" 0 "$(code_of liminal dispatch q second --unique-key u --on-duplicate join --json)"
    expect "its task" "$first" "$(field task <"$work/out")"
    background replaced liminal task await "$first" --json
    expect "one that takes its place" 0 "$(code_of liminal dispatch q third --unique-key u --on-duplicate replace --priority 0)"
    within 5 test -s "$work/replaced.code" || fail "the one that was replaced goes on"
    expect "why it ended" replaced "$(field why <"$work/replaced.out")"
    background worker liminal work q --exec "cat >>'$work/done'; echo >>'$work/done'; echo ok"
    within 5 has_members q 1 || fail "nobody registered"
    liminal queue resume q >/dev/null
    all_done() { [ "$(grep -c . "$work/done" 2>/dev/null)" = 4 ]; }
    within 5 all_done || fail "not all were done: $(tr '\n' ' ' <"$work/done")"
    expect "the order" "p9 p5 p1 third" "$(tr '\n' ' ' <"$work/done" | sed 's/ $//')"
    expect "a payment" 0 "$(code_of liminal dispatch q pay --idempotency-key order-17 --wait --json)"
    paid=$(field task <"$work/out")
    expect "the same again" 0 "$(code_of liminal dispatch q pay --idempotency-key order-17 --wait --json)"
    expect "its task" "$paid" "$(field task <"$work/out")"
    expect "its result" ok "$(field payload <"$work/out" | sed 's/.n$//')"
    expect "payments" 1 "$(grep -c pay "$work/done")"
    background holder liminal serve accounts --exec 'sleep 60'
    holder=$pid
    within 5 has_members accounts 1 || fail "nobody registered"
    background ask liminal ask accounts '{"amount":5}' --compensate refunds --json --timeout 1m
    within 5 in_hand accounts || fail "the ask was not handed out"
    kill -KILL "$holder"
    within 5 test -s "$work/ask.code" || fail "the asker still waits"
    expect "its exit code" 4 "$(cat "$work/ask.code" 2>/dev/null)"
    undo=$(field compensation <"$work/ask.out")
    expect "the task that undoes it" 0 "$(code_of liminal task show "$undo" --json)"
    background refunds liminal work refunds --exec "cat >'$work/undo'"
    within 5 test -s "$work/undo" || fail "nobody gets it"
    expect "what is to be undone" '{"amount":5}' "$(field request <"$work/undo" | base64 -d)"
}

# A saga whose last step cannot be done undoes the others, newest first; one that was begun goes on without its asker.
check_saga() {
    start_server || return
    for group in hotel flight; do background $group liminal serve $group --exec cat; done
    background undo liminal work undo --exec "cat >>'$work/undone'; echo >>'$work/undone'; echo ok"
    within 5 has_members undo 1 && within 5 has_members flight 1 && within 5 has_members hotel 1 || fail "nobody registered"
    cat >"$work/trip.json" <<EOF
{"name": "trip", "steps": [
  {"name": "hotel", "ask": "hotel", "payload": "room", "compensate": "undo", "compensation": "no room"},
  {"name": "flight", "ask": "flight", "payload": "seat", "compensate": "undo", "compensation": "no seat"},
  {"name": "pay", "ask": "bank", "payload": "money"}]}
EOF
    expect "without a bank" 1 "$(code_of liminal saga run "$work/trip.json" --json)"
    expect "outcome" compensated "$(field outcome <"$work/out")"
    expect "undone" "no seat,no room," "$(tr '\n' ',' <"$work/undone")"
    background bank liminal serve bank --exec "touch '$work/paying'; until test -e '$work/go'; do sleep 0.05; done; cat"
    within 5 has_members bank 1 || fail "nobody registered"
    background run liminal saga run "$work/trip.json"
    run=$pid
    within 5 test -e "$work/paying" || fail "the last step does not begin"
    expect "it runs" pay "$(liminal saga ls --json | field step)"
    kill -KILL "$run"
    touch "$work/go"
    done_now() { liminal saga ls --all --json | grep -q '"state":"done"'; }
    within 5 done_now || fail "it does not go on without its asker"
}

# A schedule fires, its task is done by whoever works on the queue; paused it does not, and it can be fired by hand.
check_schedule() {
    start_server || return
    background worker liminal work reports --exec "cat >>'$work/done'; echo >>'$work/done'"
    within 5 has_members reports 1 || fail "nobody registered"
    : >"$work/done"
    expect "add" 0 "$(code_of liminal schedule add tick queue=reports every=1s payload=beat)"
    fired() { [ "$(grep -c beat "$work/done")" -ge "$1" ]; }
    within 5 fired 2 || fail "it does not fire every second"
    expect "pause" 0 "$(code_of liminal schedule pause tick)"
    expect "by hand" 0 "$(code_of liminal schedule fire tick)"
    expect "a name that is taken" 6 "$(code_of liminal schedule add tick queue=reports every=1s)"
    expect "a rule that is none" 2 "$(code_of liminal schedule add other queue=reports cron=nonsense)"
    expect "by calendar" 0 "$(code_of liminal schedule add nightly channel=news 'cron=30 2 * * *' zone=Europe/Berlin)"
    liminal schedule show nightly --json | grep -q 'T02:30:00+0[12]:00' || fail "it is not due at half past two in Berlin"
    expect "schedules" 2 "$(liminal schedule ls --json | grep -c name)"
    expect "rm" 0 "$(code_of liminal schedule rm tick)"
    expect "rm once more" 7 "$(code_of liminal schedule rm tick)"
}

# However a responder ends or stops, whoever asked is told why.
check_responder_ends() {
    start_server || return
    for how in KILL SEGV STOP TERM; do
        background "holder$how" liminal serve "slow$how" --exec 'sleep 60' --no-reconnect
        holder=$pid
        within 5 has_members "slow$how" 1 || fail "nobody registered"
        background "ask$how" liminal ask "slow$how" x --json --timeout 1m
        within 5 in_hand "slow$how" || fail "the ask was not handed out"
        kill "-$how" "$holder"
        case $how in STOP) reason=silent ;; TERM) reason=left ;; *) reason=connection_lost ;; esac
        within 20 test -s "$work/ask$how.code" || fail "SIG$how: the asker still waits"
        expect "SIG$how: exit code" 4 "$(cat "$work/ask$how.code" 2>/dev/null)"
        expect "SIG$how: reason" $reason "$(field reason <"$work/ask$how.out")"
    done
}

# A server that is killed and started again: what was pending is lost, those who serve come back by themselves.
check_server_restarted() {
    start_server || return
    background holder liminal serve slow --exec "echo >>'$work/begun'; test -e '$work/quick' || sleep 60; cat"
    within 5 has_members slow 1 || fail "nobody registered"
    background ask liminal ask slow x --json --timeout 1m
    background parts liminal ask slow x --stream --json --timeout 1m
    background many liminal ask slow x --all --json --timeout 1m
    three() { [ "$(grep -c '' "$work/begun" 2>/dev/null)" = 3 ]; }
    within 5 three || fail "the asks were not handed out"
    touch "$work/quick"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    liminald --listen "$LIMINAL_SERVER" >"$work/server.out" 2>"$work/server.err" </dev/null &
    server=$!
    for who in ask parts many; do
        within 5 test -s "$work/$who.code" || fail "$who still waits"
        expect "$who's exit code" 3 "$(cat "$work/$who.code" 2>/dev/null)"
        expect "$who's outcome" lost "$(field outcome <"$work/$who.out")"
    done
    within 10 has_members slow 1 || fail "whoever served did not come back"
    expect "an ask afterwards" 0 "$(code_of liminal ask slow hello)"
    expect "its reply" hello "$(cat "$work/out")"
}

# What a server keeps can be copied while it runs, checked and dumped without it, and put back.
# proves SV1: without arguments there is a store in the state directory, and what was acknowledged is there after a kill.
check_without_arguments() {
    STATE_DIRECTORY="$work/state" LIMINAL_DATA=auto start_server || return
    expect "class" disk "$(liminal info --json | field durability)"
    expect "a durable channel" 0 "$(code_of liminal channel create orders --durable)"
    expect "a publish" 0 "$(code_of liminal pub orders one --idempotency-key k --json)"
    expect "its number" 1 "$(field seq <"$work/out")"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    STATE_DIRECTORY="$work/state" LIMINAL_DATA=auto start_server || return
    expect "the same publish again" 0 "$(code_of liminal pub orders one --idempotency-key k --json)"
    expect "it is a duplicate" true "$(field duplicate <"$work/out")"
    expect "reading it" 0 "$(code_of liminal sub orders --from all --max 1 --json)"
    expect "what was read" 1 "$(field seq <"$work/out")"
    expect "a second server on the same data" 1 \
        "$(STATE_DIRECTORY="$work/state" LIMINAL_DATA=auto code_of liminald --listen 127.0.0.1:0)"
}

check_store() {
    start_server --data "$work/data" || return
    expect "a server's own copy" 0 "$(code_of liminal store backup "$work/copy")"
    expect "a second one there" 6 "$(code_of liminal store backup "$work/copy")"
    expect "what it keeps" 0 "$(code_of liminal store info)"
    expect "a check of what is open" 6 "$(code_of liminal store check "$work/data")"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    expect "a check after a kill" 0 "$(code_of liminal store check "$work/data")"
    expect "a dump" 0 "$(code_of liminal store dump "$work/data" --json)"
    expect "a copy without a server" 0 "$(code_of liminal store backup "$work/data" "$work/other")"
    expect "putting a copy back" 0 "$(code_of liminal store restore "$work/copy" "$work/again")"
    expect "putting it where something is" 6 "$(code_of liminal store restore "$work/copy" "$work/again")"
    expect "what was put back" 0 "$(code_of liminal store check "$work/again")"
    start_server --data "$work/again" || return
    expect "a server with what was put back" 0 "$(code_of liminal info)"
    expect "what is not there" 7 "$(code_of liminal store check "$work/nothing")"
}

# Reading a log: from where, with a cursor over a restart, taken, stood by, set elsewhere.
check_cursor() {
    start_server --data "$work/data" || return
    liminal channel create orders --durable --retain-age 7d >/dev/null || fail "no durable channel"
    seq 1 10 | liminal pub orders - >/dev/null || fail "nothing was published"
    expect "from a number" "4 5" "$(timeout 10 liminal sub orders --from 4 --max 2 2>/dev/null | xargs)"
    expect "from some time ago" 1 "$(timeout 10 liminal sub orders --from 5m --max 1 2>/dev/null)"
    expect "the first of a cursor" "1 2 3" "$(timeout 10 liminal sub orders --from all --durable c --max 3 2>/dev/null | xargs)"
    expect "a look that moves nothing" "4 5" "$(timeout 10 liminal sub orders --durable c --ack none --max 2 2>/dev/null | xargs)"
    expect "the next ones" "4 5" "$(timeout 10 liminal sub orders --durable c --max 2 2>/dev/null | xargs)"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    start_server --data "$work/data" || return
    expect "after a kill" "6 7" "$(timeout 10 liminal sub orders --durable c --max 2 2>/dev/null | xargs)"
    expect "its position" 7 "$(liminal cursor show orders c --json | field position)"
    background active liminal sub orders --durable c --standby
    within 10 grep -q 10 "$work/active.out" || fail "no messages came"
    expect "a second reader" 6 "$(code_of liminal sub orders --durable c)"
    background next liminal sub orders --durable c --standby
    within 10 grep -q subscribed "$work/next.err" || fail "nobody stands by"
    kill -KILL "$(cat "$work/active.pid")"
    liminal pub orders eleven >/dev/null
    within 10 grep -q eleven "$work/next.out" || fail "who stood by did not take over"
    kill -INT "$(cat "$work/next.pid")"
    within 10 test -s "$work/next.code"
    expect "why it does not move" 1 "$(liminal cursor why orders c | grep -c nobody)"
    expect "elsewhere" 0 "$(code_of liminal cursor reset orders c --from 9)"
    expect "from there" "9 10" "$(timeout 10 liminal sub orders --durable c --max 2 2>/dev/null | xargs)"
    expect "deleting it" 0 "$(code_of liminal cursor delete orders c)"
    expect "one that is not there" 7 "$(code_of liminal cursor show orders c)"
    expect "a pattern" 2 "$(code_of liminal sub 'orders.*' --from all)"
    expect "a channel that keeps nothing" 2 "$(liminal channel create live >/dev/null; code_of liminal sub live --from all)"
}

# Router slots: a shadow is compared, a ramp keeps its promise, the breaker and rollback put the last good one back, and with
# a data directory all of it is there after a kill; `route test` needs no server.
check_router_slots() {
    start_server --data "$work/data" || return
    for i in 1 2; do background "member$i" liminal serve g --exec cat --identity "m$i" --capacity 9; done
    within 5 has_members g 2 || fail "only $(members g) registered"
    printf 'return function(m, c)\n  print("n is " .. m.n)\n  return c[1]\nend\n' >"$work/first.lua"
    echo 'return function(m, c) return c[2] end' >"$work/second.lua"
    echo 'return function() error("broken") end' >"$work/bad.lua"
    by() { liminal ask g "{\"n\":$1,\"user\":$1}" --json | field participant; }
    expect "deploy" 0 "$(code_of liminal deploy g "$work/first.lua" --by ann)"
    expect "shadow" 0 "$(code_of liminal deploy g "$work/second.lua" --shadow)"
    first=$(by 1)
    by 2 >/dev/null
    expect "what differed" 2 "$(liminal route show g --json | field differed)"
    expect "two trials" 6 "$(code_of liminal deploy g "$work/bad.lua" --shadow)"
    expect "stop" 0 "$(code_of liminal route stop g)"
    expect "little to print" 0 "$(code_of liminal deploy g "$work/first.lua" --log-bytes 4 --by ann)"
    by 3 >/dev/null
    liminal route show g --json | grep -q '"log_dropped":1' || fail "it printed more than --log-bytes"
    expect "more to print" 0 "$(code_of liminal deploy g "$work/first.lua" --by ann)"
    expect "what it printed" "n is 2" "$(liminal route logs g --json | tail -n 1 | field line)"
    expect "ramp" 0 "$(code_of liminal deploy g "$work/second.lua" --ramp 50% --ramp-key user)"
    for i in 1 2 3 4 5 6 7 8; do expect "user $i again" "$(by $i)" "$(by $i)"; done
    expect "a ramp by predicate" 0 "$(code_of liminal deploy g "$work/second.lua" --ramp-where 'user > 100')"
    expect "where" "user > 100" "$(liminal route show g --json | sed 's/.*"where":"\([^"]*\)".*/\1/')"
    expect "one that does not match" "$first" "$(by 7)"
    expect "no predicate" 2 "$(code_of liminal deploy g "$work/second.lua" --ramp-where 'user >')"
    expect "promote" 0 "$(code_of liminal route promote g)"
    second=$(by 1)
    [ "$first" != "$second" ] || fail "the same one answers: $first"
    expect "bad" 0 "$(code_of liminal deploy g "$work/bad.lua" --breaker 3/10s)"
    for i in 1 2 3; do expect "a fault" 6 "$(code_of liminal ask g '{"n":1}')"; done
    expect "after the breaker" "$second" "$(by 1)"
    liminal route history g --json | grep -q '"kind":"breaker"' || fail "the history does not tell of the breaker"
    expect "a version that is not live" 6 "$(code_of liminal deploy g "$work/first.lua" --if-version 0000000000000000)"
    expect "rollback" 0 "$(code_of liminal rollback g --by bob)"
    expect "after the rollback" "$first" "$(by 1)"
    expect "no such version" 7 "$(code_of liminal rollback g ffffffff)"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    liminald --listen "$LIMINAL_SERVER" --data "$work/data" >"$work/server.out" 2>"$work/server.err" </dev/null &
    server=$!
    within 10 has_members g 2 || fail "those who served did not come back"
    liminal route show g --json | grep -q '"tripped":true' || fail "the versions are not as they were"
    expect "who did what" bob "$(liminal route history g --json | tail -n 1 | field by)"
    echo '[{"name":"w1","max_in_flight":2},{"name":"w2","max_in_flight":1,"in_flight":1}]' >"$work/c.json"
    stop_all
    expect "test" 0 "$(code_of liminal route test "$work/first.lua" --candidates "$work/c.json" --message '{"n":1}' --json)"
    expect "its choice" w1 "$(field candidate <"$work/out")"
    expect "a full one" 6 "$(code_of liminal route test "$work/second.lua" --candidates "$work/c.json" --strict)"
    expect "a bad one" 4 "$(code_of liminal route test "$work/bad.lua" --candidates "$work/c.json")"
    expect "no code" 1 "$(code_of liminal route test "$work/c.json" --candidates "$work/c.json")"
    expect "a match" 0 "$(code_of liminal predicate test 'n > 1' --message '{"n":2}')"
    expect "no match" 6 "$(code_of liminal predicate test 'n > 1 and $key == "k"' --message '{"n":2}' --json)"
    grep -q '"verdict":false,"text":"$key == \\"k\\"","why":"$key is absent"' "$work/out" || fail "it does not say why: $(cat "$work/out")"
    expect "no predicate" 2 "$(code_of liminal predicate test 'n = 1')"
    grep -q 'line 1, column 3: expected ==' "$work/err" || fail "the complaint names no place: $(cat "$work/err")"
}

# A function in front of a channel: one subscription gets a message, it is there after a kill, and it can be taken away.
check_channel_slot() {
    start_server --data "$work/data" || return
    subscribers() { liminal channel show jobs --json 2>/dev/null | field subscriptions; }
    lines() { cat "$work/$1.out" 2>/dev/null | wc -l; }
    one() { [ "$(subscribers)" = 1 ]; }
    two() { [ "$(subscribers)" = 2 ]; }
    got() { [ "$(lines one)/$(lines two)" = "$1" ]; }
    echo 'return function(m, c) print("n " .. m.n) return c[m.n] end' >"$work/nth.lua"
    echo 'return function() error("broken") end' >"$work/bad.lua"
    background one liminal sub jobs --json --reconnect
    within 5 one || fail "nobody subscribed"
    background two liminal sub jobs --json --reconnect
    within 5 two || fail "only $(subscribers) subscribed"
    expect "deploy" 0 "$(code_of liminal deploy --channel jobs "$work/nth.lua" --by ann)"
    for n in 1 2 2; do expect "publish $n" 0 "$(code_of liminal pub jobs "{\"n\":$n}" --mandatory)"; done
    expect "nobody" 6 "$(code_of liminal pub jobs '{"n":3}' --mandatory)"
    within 5 got 1/2 || fail "expected 1/2, saw $(lines one)/$(lines two)"
    expect "kind" channel "$(liminal route show --channel jobs --json | field kind)"
    liminal route ls --json | grep -q '"name":"jobs","kind":"channel"' || fail "route ls does not list it"
    expect "what it printed" "n 3" "$(liminal route logs --channel jobs --json | tail -n 1 | field line)"
    expect "a group has none" 7 "$(code_of liminal route show jobs)"
    echo 'return function(m, c) return c end' >"$work/all.lua"
    expect "a shadow" 0 "$(code_of liminal deploy --channel jobs "$work/all.lua" --shadow)"
    expect "beside it" 0 "$(code_of liminal pub jobs '{"n":2}' --mandatory)"
    expect "differed" 1 "$(liminal route show --channel jobs --json | field differed)"
    expect "stop" 0 "$(code_of liminal route stop jobs --channel)"
    expect "a ramp" 0 "$(code_of liminal deploy --channel jobs "$work/all.lua" --ramp-where 'all exists')"
    expect "everybody" 2 "$(liminal pub jobs '{"n":2,"all":1}' --json | field matched)"
    expect "promote" 0 "$(code_of liminal route promote jobs --channel)"
    expect "back again" 0 "$(code_of liminal rollback --channel jobs)"
    expect "bad" 0 "$(code_of liminal deploy --channel jobs "$work/bad.lua")"
    expect "a fault" 6 "$(code_of liminal pub jobs '{"n":1}')"
    expect "rollback" 0 "$(code_of liminal rollback --channel jobs --by bob)"
    kill -KILL "$server"
    wait "$server" 2>/dev/null
    liminald --listen "$LIMINAL_SERVER" --data "$work/data" >"$work/server.out" 2>"$work/server.err" </dev/null &
    server=$!
    within 10 two || fail "those who subscribed did not come back"
    expect "who did what" bob "$(liminal route history --channel jobs --json | tail -n 1 | field by)"
    expect "publish again" 0 "$(code_of liminal pub jobs '{"n":1}' --mandatory)"
    within 5 [ "$(($(lines one) + $(lines two)))" -ge 3 ] || fail "nobody got it"
    expect "rm" 0 "$(code_of liminal route rm jobs)"
    expect "it is gone" 7 "$(code_of liminal route rm jobs)"
    expect "to all" 2 "$(liminal pub jobs '{"n":1}' --json | field matched)"
}

# ---- running them -----------------------------------------------------------------------------------------------------
[ $# -gt 0 ] || set -- $(sed -n 's/^check_\([a-z_]*\)() {$/\1/p' "$0")
passed=0 failed=0
for check in "$@"; do
    work=$top/$check
    mkdir "$work"
    "check_$check"
    stop_all
    if [ -s "$work/why" ]; then
        failed=$((failed + 1))
        echo "FAILED $check"
        sed 's/^/         /' "$work/why"
        sed 's/^/         server: /' "$work/server.err" | tail -n 5
    else
        passed=$((passed + 1))
        echo "ok     $check"
    fi
done
echo "programs: $passed passed, $failed failed"
[ $failed -eq 0 ]
