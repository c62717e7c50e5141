#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh - the main job: verify the checksums of every installed package with a pool of workers, lose one of them in the
# middle of a task, change the routing while it runs, and show that nothing was lost and nothing counted twice.
#
#   run.sh [--stay] [--schedulers N] [--directory DIR] [--programs DIR] [--json]
#
#   --stay          leave the server up and say how to talk to it
#   --schedulers N  of the server
#   --directory DIR verify the files of a directory (the way without dpkg)
#   --programs DIR  where liminald and liminal are (default: ../../build)
#   --json          the report as one JSON object on standard output
#
#   make-tasks.sh --> dispatch --> queue "verify" --> worker-1 .. worker-4: verify.sh --> outcomes --> report
#                                     ^ least_loaded, half-way: route-big.lua      ^ one is killed with SIGKILL
#
# Exit codes: 0 every check held; 1 one did not (it is named); 2 usage.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

# ---- what the command line tool is asked, and the names in its answers: all in one place ------------------------------
queue=verify
workers=4
announced='s/.*[^0-9.]\(127\.0\.0\.1:[0-9][0-9]*\).*/\1/p' # liminald's line that says where it listens
ask_workers() { liminal worker ls --json; }
ask_worker() { liminal worker show "$1" --json; }
deploy_first() { liminal deploy "$queue" --builtin least_loaded; }
start_worker() { # start_worker NAME [--tag big]: becomes the worker
    name=$1
    shift
    exec liminal work "$queue" --exec "exec '$here/verify.sh'" --capacity 1 --identity "$name" "$@"
}
dispatch() { liminal dispatch "$queue" - --wait --json; }
deploy() { liminal deploy "$queue" "$here/route-big.lua"; }
# Of an outcome, beside outcome, participant, losses and payload: who chose; of the last death, when the server saw it
# (microseconds since 1970), and from then to the next worker's acknowledgement (microseconds).
router_name=router
seen_name=crashed_wall_us
rerouted_name=rerouted_us
# The census, without the artifacts: the one deployed here stays.
census() { liminal info --json | sed -n 's/.*"census": *{\([^}]*\)}.*/\1/p' | sed 's/"artifacts":[0-9]*,//'; }

# ---- options ---------------------------------------------------------------------------------------------------------
stay= schedulers= directory= json= programs=$here/../../build
usage() { echo "run.sh: $1; usage: run.sh [--stay] [--schedulers N] [--directory DIR] [--programs DIR] [--json]" >&2 && exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --stay) stay=yes ;;
    --json) json=yes ;;
    --schedulers | --directory | --programs)
        [ $# -ge 2 ] || usage "$1 needs a value"
        eval "${1#--}=\$2"
        shift
        ;;
    *) usage "unknown option $1" ;;
    esac
    shift
done
programs=$(cd "$programs" 2>/dev/null && pwd) || usage "no such directory: --programs"
for program in liminald liminal; do
    [ -x "$programs/$program" ] || { echo "run.sh: $programs/$program is not there: ./dev build makes it" >&2 && exit 1; }
done
PATH=$programs:$PATH

# ---- a place of its own, and no trace afterwards ----------------------------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/liminal-job.XXXXXX") || exit 1
server= pids=
cleanup() {
    trap '' INT TERM
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

now_us() { echo $(($(date +%s%N) / 1000)); }
say() { [ -n "$json" ] || echo "$*"; }
die() {
    echo "run.sh: $*" >&2
    for log in "$work"/*.err; do
        [ ! -s "$log" ] || { echo "--- $(basename "$log")" >&2 && tail -n 5 "$log" >&2; }
    done
    exit 1
}
wait_until() { # wait_until SECONDS WHAT CMD...: asks again every 10 ms
    deadline=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || die "gave up waiting: $what"
        sleep 0.01
    done
}
field() { # field NAME: the first value of that name on standard input, without quotes
    sed -n 's/\\"/"/g; s/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | head -n 1
}
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }

# ---- the work ---------------------------------------------------------------------------------------------------------
export VERIFY_NOTES="$work/notes"
mkdir "$VERIFY_NOTES"
if [ -n "$directory" ] || ! ls /var/lib/dpkg/info/*.md5sums >/dev/null 2>&1; then
    directory=$(cd "${directory:-/usr/share}" && pwd) || exit 1
    export VERIFY_LISTS="$work/lists" VERIFY_ROOT="$directory"
    what="the files of $directory"
else
    what="the installed Debian packages"
fi
"$here/make-tasks.sh" ${directory:+"$directory"} >"$work/all" 2>"$work/left-out" || { cat "$work/left-out" >&2 && exit 1; }
tasks=$(lines "$work/all")
# The biggest package goes to three fifths of the list: its turn comes when the new routing function is live, and work is
# left behind it. It is the one whose worker is killed.
victim=$(sed 's/.*"bytes":\([0-9]*\).*/\1 &/' "$work/all" | sort -rn | sed -n '1s/^[0-9]* //p')
victim_name=$(echo "$victim" | field package)
grep -vxF -e "$victim" "$work/all" |
    awk -v victim="$victim" -v at=$((tasks * 3 / 5)) 'NR == at + 1 { print victim; done = 1 } { print } END { if (!done) print victim }' \
        >"$work/tasks"
half=$((tasks / 2))
[ "$tasks" -ge 40 ] || half=0

# ---- the server and its workers ---------------------------------------------------------------------------------------
say "verifying $what: $tasks tasks, $workers workers"
log=$work/server.err
if [ -n "$stay" ]; then
    trap '' HUP
    log=$programs/liminald.log
fi
liminald --listen 127.0.0.1:0 --data "$work/data" ${schedulers:+--schedulers "$schedulers"} >"$work/server.out" 2>"$log" </dev/null &
server=$!
listening() {
    LIMINAL_SERVER=$(sed -n "$announced" "$work/server.out" | head -n 1)
    [ -n "$LIMINAL_SERVER" ] || { kill -0 "$server" 2>/dev/null || die "liminald ended before it listened"; false; }
}
wait_until 10 "liminald says where it listens" listening
export LIMINAL_SERVER
deploy_first >"$work/deploy.out" 2>"$work/deploy.err" || die "liminal deploy failed"
census_before=$(census)
[ -n "$census_before" ] || die "liminal info says no census"

registered() { ask_workers 2>/dev/null >"$work/workers" && [ "$(grep -c '"identity"' "$work/workers")" -ge "$1" ]; }
n=0
while [ $n -lt $workers ]; do
    n=$((n + 1))
    tag=
    [ $n -lt $workers ] || tag="--tag big"
    # shellcheck disable=SC2086
    (start_worker worker-$n $tag) >"$work/worker-$n.out" 2>"$work/worker-$n.err" </dev/null &
    eval "worker_$n=$!"
    pids="$pids $!"
done
wait_until 10 "all workers register" registered $workers

# ---- the job: a new routing function half-way, and one worker killed in the middle of the biggest package -------------
started_us=$(now_us)
dispatch <"$work/tasks" >"$work/outcomes" 2>"$work/dispatch.err" &
dispatcher=$!
pids="$pids $dispatcher"
half_done() { [ "$(lines "$work/outcomes")" -ge "$half" ] || ! kill -0 "$dispatcher" 2>/dev/null; }
wait_until 120 "half of the results" half_done
deploy >"$work/deploy.out" 2>"$work/deploy.err" || die "liminal deploy failed"
deployed_at=$(lines "$work/outcomes")

victim_runs() { [ -s "$VERIFY_NOTES/$victim_name.started" ] || ! kill -0 "$dispatcher" 2>/dev/null; }
wait_until 120 "the biggest package is handed out" victim_runs
read -r killed killed_task <"$VERIFY_NOTES/$victim_name.started" || die "the biggest package never ran"
in_hand=$(ask_worker "$killed" | grep -c "$killed_task")
eval "killed_pid=\$worker_${killed#worker-}"
killed_us=$(now_us)
kill -KILL "$killed_pid"
say "killed $killed (process $killed_pid) with $in_hand task in flight: $victim_name ($killed_task)"

wait "$dispatcher"
dispatch_code=$?
wall_us=$(($(now_us) - started_us))

# ---- goodbye: the workers, the census, the server ---------------------------------------------------------------------
for n in $(seq $workers); do
    eval "pid=\$worker_$n"
    [ "worker-$n" = "$killed" ] || kill -TERM "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
done
pids=
census_after=
settled() { census_after=$(census) && [ "$census_after" = "$census_before" ]; }
for _ in 1 2 3 4 5 6 7 8 9 10; do
    ! settled || break
    sleep 0.05
done
server_code=0
if [ -z "$stay" ]; then
    kill -TERM "$server"
    wait "$server"
    server_code=$?
    server=
fi

# ---- the report: one awk program over the tasks, the outcomes and the notes of executions -----------------------------
cat "$VERIFY_NOTES"/*.started | cut -d ' ' -f 1 | sort | uniq -c >"$work/executions"
awk -v json="$json" -v tasks_file="$work/tasks" -v executions_file="$work/executions" -v left_out="$(cat "$work/left-out")" \
    -v wall_us="$wall_us" -v killed="$killed" -v killed_us="$killed_us" -v in_hand="$in_hand" \
    -v dispatch_code="$dispatch_code" -v server_code="$server_code" -v stay="$stay" -v deployed_at="$deployed_at" \
    -v before="$census_before" -v after="$census_after" -v seen_name=$seen_name -v rerouted_name=$rerouted_name \
    -v router_name=$router_name '
function value(line, name,    at, rest) {
    gsub(/\\"/, "\"", line)
    if (!match(line, "\"" name "\": *"))
        return ""
    rest = substr(line, RSTART + RLENGTH)
    if (rest ~ /^"/) {
        rest = substr(rest, 2)
        at = index(rest, "\"")
        return substr(rest, 1, at - 1)
    }
    match(rest, /^[^],}]*/)
    return substr(rest, 1, RLENGTH)
}
function grouped(n,    text, out) {
    text = sprintf("%.0f", n)
    while (length(text) > 3) {
        out = "," substr(text, length(text) - 2) out
        text = substr(text, 1, length(text) - 3)
    }
    return text out
}
function check(held, text) {
    checks[++check_count] = (held ? "ok      " : "FAILED  ") text
    if (!held)
        broken++
}
function sorted(map, names,    name, n, i, other) {
    n = 0
    for (name in map) {
        for (i = ++n; i > 1 && names[i - 1] > name; i--)
            names[i] = names[i - 1]
        names[i] = name
    }
    return n
}
BEGIN {
    while ((getline line < tasks_file) > 0) {
        wanted[value(line, "package")] = 1
        tasks++
    }
    while ((getline line < executions_file) > 0) {
        split(line, words, " ")
        executions[words[2]] = words[1]
        executed += words[1]
    }
}
{
    package = value($0, "package")
    outcome = value($0, "outcome")
    if (outcome != "reply" || !(package in wanted)) {
        others[outcome]++
        if (other_shown++ < 3)
            other_lines = other_lines "\n          " substr($0, 1, 160)
        next
    }
    results[package]++
    files += value($0, "files")
    bytes += value($0, "bytes")
    mismatches += value($0, "mismatches")
    missing += value($0, "missing")
    who = value($0, "participant")
    done[who]++
    done_bytes[who] += value($0, "bytes")
    done_ms[who] += value($0, "ms")
    version[value($0, router_name)]++
    if (value($0, "losses") > 0) {
        losses += value($0, "losses")
        lost_packages = lost_packages (lost_packages == "" ? "" : ", ") package
        seen_us = value($0, seen_name)
        rerouted_us = value($0, rerouted_name)
        successor = who
    }
}
END {
    for (package in wanted) {
        if (results[package] == 1)
            once++
        else if (results[package] > 1)
            twice++
        else {
            none++
            first_none = package
        }
    }
    noticed_ms = (seen_us - killed_us) / 1000
    versions = sorted(version, version_names)
    workers = sorted(done, worker_names)

    check(once == tasks && dispatch_code == 0, "every task has exactly one accepted result: " once + 0 " of " tasks \
        (twice ? ", " twice " with more than one" : "") (none ? ", " none " without (" first_none ")" : "") \
        (dispatch_code ? ", dispatch ended with " dispatch_code : ""))
    for (outcome in others)
        check(0, others[outcome] " outcomes were " (outcome == "" ? "not readable" : outcome) other_lines)
    check(losses >= 1 && in_hand >= 1 && successor != killed, "the killed worker had " in_hand + 0 " task in flight; " \
        (losses ? lost_packages : "nothing") " went on to " (successor == "" ? "nobody" : successor) ", deliveries lost: " losses + 0)
    check(seen_us > 0 && noticed_ms >= 0 && noticed_ms < 1000, sprintf("noticed %.2f ms after SIGKILL, handed on %.2f ms later",
        noticed_ms, rerouted_us / 1000))
    check(versions >= 2, "the new routing function took over without a refused task: " versions " versions routed")
    check(before == after && before != "", "the census after the job is that before it" \
        (before == after ? "" : ": before " before ", after " after))
    if (stay == "")
        check(server_code == 0, "the server drained and ended with " server_code)

    if (json != "") {
        printf "{\"packages\":%d,\"files\":%.0f,\"bytes\":%.0f,\"mismatches\":%d,\"missing\":%d,\"wall_ms\":%.1f,", once, files,
            bytes, mismatches, missing, wall_us / 1000
        printf "\"noticed_ms\":%.3f,\"rerouted_ms\":%.3f,\"executions\":%d,\"losses\":%d,\"routed\":{", noticed_ms,
            rerouted_us / 1000, executed, losses
        for (i = 1; i <= versions; i++)
            printf "%s\"%s\":%d", (i > 1 ? "," : ""), version_names[i], version[version_names[i]]
        printf "},\"workers\":{"
        for (i = 1; i <= workers; i++)
            printf "%s\"%s\":{\"tasks\":%d,\"bytes\":%.0f}", (i > 1 ? "," : ""), worker_names[i], done[worker_names[i]],
                done_bytes[worker_names[i]]
        printf "},\"checks_failed\":%d}\n", broken
        for (i = 1; i <= check_count; i++)
            if (checks[i] ~ /^FAILED/)
                print checks[i] >"/dev/stderr"
        exit (broken > 0)
    }
    print ""
    printf "packages    %s\n", grouped(once)
    printf "files       %s\n", grouped(files)
    printf "bytes       %s (%.2f GiB)\n", grouped(bytes), bytes / 1073741824
    printf "mismatches  %s\nmissing     %s\n", grouped(mismatches), grouped(missing)
    if (left_out != "")
        print left_out
    printf "wall time   %.2f s, %.0f MiB/s, %.0f tasks/s\n\n", wall_us / 1000000, bytes / 1048576 / (wall_us / 1000000),
        once / (wall_us / 1000000)
    printf "%-12s %8s %12s %10s %10s\n", "worker", "results", "MiB", "busy ms", "executed"
    for (i = 1; i <= workers; i++) {
        name = worker_names[i]
        printf "%-12s %8d %12.1f %10.0f %10d%s\n", name, done[name], done_bytes[name] / 1048576, done_ms[name],
            executions[name], name == killed ? "  killed" : ""
    }
    if (!(killed in done))
        printf "%-12s %8d %12.1f %10.0f %10d  killed\n", killed, 0, 0, 0, executions[killed]
    printf "\nrouted by\n"
    for (i = 1; i <= versions; i++)
        printf "  %-24s %6d tasks\n", version_names[i], version[version_names[i]]
    printf "  (deployed after %d results)\n\n", deployed_at
    printf "%d executions for %d tasks: what the killed worker had in hand (%s) was executed twice, accepted once.\n\n", executed,
        tasks, lost_packages == "" ? "nothing" : lost_packages
    for (i = 1; i <= check_count; i++)
        print checks[i]
    exit (broken > 0)
}' "$work/outcomes"
code=$?

if [ -n "$stay" ]; then
    kept=$server
    server=
    cat <<EOF

The server is still up (process $kept). To talk to it:
    export LIMINAL_SERVER=$LIMINAL_SERVER PATH=$programs:\$PATH
    liminal info
    liminal group show $queue
    liminal artifact ls
It logs to $log. To stop it: kill $kept
EOF
fi
exit $code
