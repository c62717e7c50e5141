/* SPDX-License-Identifier: Apache-2.0
 * program_test.c - the command and the server as people meet them: processes, standard streams, exit codes.
 *
 * $LIMINALD and $LIMINAL say where the programs are; without a server there is nothing to test. Each test has a server
 * and a port of its own. All processes are jobs of one loop, so nothing waits by sleeping: `until` turns the loop until
 * a process has said or done what the test waits for. */
#include "cli/job.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { JOBS_MAX = 24, PATIENCE_S = 60 };

typedef struct program {
    cli_job job;
    int code; /* -1: still running */
} program;

typedef struct world {
    struct cli cli;
    program jobs[JOBS_MAX];
    int count;
    program *server;
    char address[80], dir[64];
} world;

/* ---- processes ---- */

static void on_end(cli_job *job, int status)
{
    LIM_CONTAINER(job, program, job)->code = cli_job_exit(status);
}

static void on_alarm(void *state)
{
    (void)state;
    fail_msg("nothing happened for %d s", PATIENCE_S);
}

static program *start_with(world *w, const char *command, const char *input)
{
    assert_true(w->count < JOBS_MAX);
    program *p = &w->jobs[w->count++];
    char server[128], dir[80];
    const char *const env[] = { server, dir, NULL };
    snprintf(server, sizeof server, "LIMINAL_SERVER=%s", w->address);
    snprintf(dir, sizeof dir, "DIR=%s", w->dir);
    *p = (program){ .job = { .on_end = on_end }, .code = -1 };
    assert_int_equal(cli_job_start(&p->job, &w->cli, command, env, lim__str(input)), 0);
    return p;
}

/* `exec` so that a signal to the child reaches the program and not a shell in front of it. */
static program *start(world *w, const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "exec \"$LIMINAL\" %s", arguments);
    return start_with(w, command, "");
}

static void turn(world *w)
{
    w->cli.alarm_ns = cli_now_ns() + PATIENCE_S * UINT64_C(1000000000);
    cli_turn(&w->cli);
}

static bool has(const lim__buf *b, const char *text)
{
    lim_bytes all = lim__buf_bytes(b);
    return memmem(all.ptr ? all.ptr : "", all.len, text, strlen(text)) != NULL;
}

static void until_says(world *w, program *p, const char *text)
{
    while (!has(&p->job.reply, text) && !has(&p->job.complaint, text)) {
        if (p->code >= 0)
            fail_msg("ended with %d and never said: %s", p->code, text);
        turn(w);
    }
}

static int until_ends(world *w, program *p)
{
    while (p->code < 0)
        turn(w);
    return p->code;
}

static int run(world *w, program **out, const char *arguments)
{
    *out = start(w, arguments);
    return until_ends(w, *out);
}

/* What it printed, NUL behind it. */
static const char *printed(program *p)
{
    lim__buf_add(&p->job.reply, "", 1);
    p->job.reply.end--;
    return (const char *)lim__buf_bytes(&p->job.reply).ptr;
}

static const char *complained(program *p)
{
    lim__buf_add(&p->job.complaint, "", 1);
    p->job.complaint.end--;
    return (const char *)lim__buf_bytes(&p->job.complaint).ptr;
}

static void send_signal(program *p, int number)
{
    assert_true(p->job.child.pid > 0);
    assert_int_equal(kill(p->job.child.pid, number), 0);
}

/* A pipe with a name: who writes into it says that it has come so far. */
static program *milestone(world *w)
{
    program *p = start_with(w, "rm -f $DIR/here; mkfifo $DIR/here; echo ready >&2; cat $DIR/here", "");
    until_says(w, p, "ready");
    return p;
}

/* ---- a server for each test ---- */

/* From now on commands are for this server. Its log, which may come first, is elsewhere. */
static void goes_to(world *w, program *server)
{
    while (!has(&server->job.reply, "\n") && server->code < 0)
        turn(w);
    const char *line = strstr(printed(server), "127.0.0.1:");
    assert_non_null(line);
    snprintf(w->address, sizeof w->address, "127.0.0.1:%d", atoi(line + strlen("127.0.0.1:")));
}

static int begin(void **state)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    *state = w;
    snprintf(w->dir, sizeof w->dir, "/tmp/liminal-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    lim__list_init(&w->cli.sources);
    w->cli.opts = &w->cli.args.opts;
    w->cli.on_alarm = on_alarm;
    w->server = start_with(w, "exec \"$LIMINALD\" --listen 127.0.0.1:0 --data none", "");
    goes_to(w, w->server);
    return 0;
}

static int finish(void **state)
{
    world *w = *state;
    until_ends(w, start_with(w, "rm -rf \"$DIR\"", ""));
    for (int i = w->count - 1; i >= 0; i--)
        cli_job_fini(&w->jobs[i].job);
    free(w);
    return 0;
}

/* ---- asking ---- */

static void test_an_ask_prints_the_reply_of_a_command(void **state)
{
    world *w = *state;
    program *served =
                start(w, "serve echo --exec 'tr a-z A-Z; echo \" $LIMINAL_TYPE $LIMINAL_IDENTITY\"' --identity me"),
            *p;
    until_says(w, served, "serving echo as me");
    assert_int_equal(run(w, &p, "ask echo hello --type quote"), CLI_DONE);
    assert_string_equal(printed(p), "HELLO quote me\n");
    assert_int_equal(run(w, &p, "--json ask echo hello"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"outcome\":\"reply\",\"payload\":\"HELLO  me\\n\",\"participant\":\"me\""));
    send_signal(served, SIGTERM);
    assert_int_equal(until_ends(w, served), CLI_DONE);
}

/* One deeper, in the same trace, and with no more time: so commands that ask each other come to an end. */
static void test_what_a_command_asks_is_a_child_of_what_it_answers(void **state) /* proves CV16 */
{
#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    static const char inner[] = "serve inner --exec 'echo \"$LIMINAL_HOPS $TRACEPARENT\"'";
    static const char outer[] = "serve outer --exec '\"$LIMINAL\" ask inner x'";
    world *w = *state;
    program *one = start(w, inner), *two = start(w, outer), *p;
    until_says(w, one, "serving inner");
    until_says(w, two, "serving outer");
    assert_int_equal(run(w, &p, "ask outer x"), CLI_DONE);
    assert_string_equal(printed(p), "1 \n");
    p = start_with(w, "LIMINAL_CONVERSATION=1 LIMINAL_HOPS=62 TRACEPARENT=" TRACE " exec \"$LIMINAL\" ask outer x", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_string_equal(printed(p), "64 " TRACE "\n");
    p = start_with(w, "LIMINAL_CONVERSATION=1 LIMINAL_HOPS=63 exec \"$LIMINAL\" ask outer x", "");
    assert_int_equal(until_ends(w, p), CLI_FAILED); /* the inner one is too deep, and so its command fails */
    assert_non_null(strstr(complained(p), "hop_limit"));
    p = start_with(w, "LIMINAL_CONVERSATION=1 LIMINAL_UNTIL_MS=1 exec \"$LIMINAL\" ask nobody x --wait", "");
    assert_int_equal(until_ends(w, p), CLI_TIMEOUT); /* the request it is for is over */
}

static void test_a_failing_command_is_a_failure_with_its_reason(void **state)
{
    world *w = *state;
    program *served = start(w, "serve bad --exec 'echo out of ink >&2; exit 3' --json"), *p;
    until_says(w, served, "serving bad");
    assert_int_equal(run(w, &p, "ask bad x"), CLI_FAILED);
    assert_non_null(strstr(complained(p), "out of ink"));
    until_says(w, served, "\"exit\":3}");
}

static void test_a_command_that_does_not_exist_is_said_by_both_sides(void **state) /* proves SV6 */
{
    world *w = *state;
    program *served = start(w, "serve none --exec no-such-command"), *p;
    until_says(w, served, "serving none");
    until_says(w, served, "no such command");
    assert_int_equal(run(w, &p, "ask none x"), CLI_FAILED);
    assert_non_null(strstr(complained(p), "does not exist"));
}

static void test_an_ask_of_nobody_is_refused_at_once(void **state)
{
    world *w = *state;
    program *p;
    assert_int_equal(run(w, &p, "ask nobody x --timeout 1h --json"), CLI_REJECTED);
    assert_non_null(strstr(printed(p), "\"outcome\":\"refused\""));
    assert_non_null(strstr(printed(p), "\"why\":\"no_participant\""));
    assert_non_null(strstr(printed(p), "\"handed_over\":\"no\""));
}

static void test_a_participant_killed_with_a_child_that_ignores_signals_is_told_at_once(void **state)
{
    world *w = *state;
    program *here = milestone(w), *p;
    program *served = start(w, "serve slow --exec 'trap \"\" TERM INT HUP; echo >$DIR/here; while :; do :; done'");
    until_says(w, served, "serving slow");
    p = start(w, "ask slow x --timeout 1h --json");
    until_ends(w, here);
    send_signal(served, SIGKILL);
    assert_int_equal(until_ends(w, p), CLI_CRASHED);
    assert_non_null(strstr(printed(p), "\"outcome\":\"crashed\""));
    assert_non_null(strstr(printed(p), "\"reason\":\"connection_lost\""));
}

/* A group whose participant never answers, and an ask of it that has been handed over. */
static program *ask_of_the_silent(world *w, program **served, const char *flags)
{
    program *here = milestone(w);
    char line[128];
    *served = start(w, "serve silent --exec 'echo >$DIR/here; exec tail -f /dev/null' --json");
    until_says(w, *served, "serving silent");
    snprintf(line, sizeof line, "ask silent x %s", flags);
    program *p = start(w, line);
    until_ends(w, here);
    return p;
}

static void test_a_timeout_ends_the_ask_and_the_command_that_was_at_it(void **state)
{
    world *w = *state;
    program *served, *p = ask_of_the_silent(w, &served, "--timeout 200ms");
    assert_int_equal(until_ends(w, p), CLI_TIMEOUT);
    assert_non_null(strstr(complained(p), "liminal: timeout: "));
    until_says(w, served, "\"exit\":137}");
}

static void test_an_interrupt_cancels_an_ask(void **state)
{
    world *w = *state;
    program *served, *p = ask_of_the_silent(w, &served, "--timeout forever --json");
    send_signal(p, SIGINT);
    assert_int_equal(until_ends(w, p), CLI_CANCELLED);
    assert_non_null(strstr(printed(p), "\"outcome\":\"cancelled\""));
    until_says(w, served, "\"exit\":137}");
}

static void test_the_end_of_the_server_ends_whoever_waits_with_lost(void **state)
{
    world *w = *state;
    program *served, *asking = ask_of_the_silent(w, &served, "--timeout forever --json");
    program *listening = start(w, "sub x"), *waiting = start(w, "dispatch idle 1 --wait --json");
    until_says(w, listening, "subscribed to x");
    send_signal(w->server, SIGKILL);
    assert_int_equal(until_ends(w, asking), CLI_UNREACHABLE);
    assert_int_equal(until_ends(w, listening), CLI_UNREACHABLE);
    assert_int_equal(until_ends(w, waiting), CLI_UNREACHABLE);
    assert_non_null(strstr(printed(asking), "\"outcome\":\"lost\""));
    until_says(w, served, "dialling again");
    send_signal(served, SIGTERM);
    assert_int_equal(until_ends(w, served), CLI_DONE);
    program *p;
    assert_int_equal(run(w, &p, "info"), CLI_UNREACHABLE);
    assert_non_null(strstr(complained(p), "; start liminald"));
}

static void
test_an_answer_in_parts_is_printed_line_by_line_and_cancelled_by_an_interrupt(void **state) /* proves CV13 */
{
    world *w = *state;
    program *here = milestone(w), *p;
    program *served =
        start(w, "serve s --stream --exec 'echo 1; echo; echo 3; echo >$DIR/here; exec tail -f /dev/null' --json");
    until_says(w, served, "serving s");
    p = start(w, "ask s x --stream --timeout 1h");
    until_says(w, p, "1\n\n3\n");
    until_ends(w, here);
    send_signal(p, SIGINT);
    assert_int_equal(until_ends(w, p), CLI_CANCELLED);
    until_says(w, served, "\"exit\":137}");
}

static void test_a_slow_reader_of_parts_gets_them_all(void **state) /* proves CV13 */
{
    world *w = *state;
    program *served = start(w, "serve s --stream --exec 'seq 5000'"), *p;
    until_says(w, served, "serving s");
    assert_int_equal(run(w, &p, "ask s x --stream --window 1 --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "{\"part\":5000,"));
    assert_non_null(strstr(printed(p), "\"payload\":\"5000\"}\n{\"outcome\":\"reply\",\"payload\":\"\""));
}

static void test_everybody_is_asked_and_whoever_does_not_reply_is_named(void **state)
{
    world *w = *state;
    program *a = start(w, "serve g --exec 'echo yes' --identity one"), *p;
    program *b = start(w, "serve g --exec 'echo no ink >&2; exit 1' --identity two");
    until_says(w, a, "serving g");
    until_says(w, b, "serving g");
    assert_int_equal(run(w, &p, "ask g x --all --quorum 1"), CLI_DONE);
    assert_string_equal(printed(p), "one: yes\n");
    assert_int_equal(run(w, &p, "ask g x --all"), CLI_REJECTED);
    assert_non_null(strstr(complained(p), "liminal: two: failed: no ink\n"));
    assert_non_null(strstr(complained(p), "quorum"));
    assert_int_equal(run(w, &p, "ask g x --any"), CLI_DONE);
    assert_string_equal(printed(p), "yes\n");
    assert_int_equal(run(w, &p, "ask g x --any --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"payload\":\"yes\\n\",\"participant\":\"one\""));
    assert_int_equal(run(w, &p, "ask nobody x --all"), CLI_REJECTED);
}

/* ---- channels ---- */

static void test_what_is_published_is_printed_a_line_each(void **state)
{
    world *w = *state;
    program *s = start(w, "sub 'a.*' --max 3"), *p;
    program *j = start(w, "sub a.b --json");
    until_says(w, s, "subscribed to a.*");
    until_says(w, j, "subscribed to a.b");
    p = start_with(w, "printf 'one\ntwo\n' | \"$LIMINAL\" pub a.b -", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_string_equal(printed(p), "accepted: 2 subscribers\naccepted: 2 subscribers\n");
    assert_int_equal(run(w, &p, "pub a.c three"), CLI_DONE);
    assert_string_equal(printed(p), "accepted: 1 subscriber\n");
    assert_int_equal(until_ends(w, s), CLI_DONE);
    assert_string_equal(printed(s), "one\ntwo\nthree\n");
    until_says(w, j, "{\"channel\":\"a.b\",\"seq\":2,\"payload\":\"two\",\"bytes\":3}\n");
    send_signal(j, SIGINT);
    assert_int_equal(until_ends(w, j), CLI_DONE);
}

static void test_a_publish_that_must_reach_somebody_is_rejected_when_nobody_listens(void **state)
{
    world *w = *state;
    program *p;
    assert_int_equal(run(w, &p, "pub a x"), CLI_DONE);
    assert_int_equal(run(w, &p, "pub a x --mandatory --json"), CLI_REJECTED);
    assert_non_null(strstr(printed(p), "{\"verdict\":\"reject\",\"why\":\"no_subscriber\",\"matched\":0,"));
}

static void test_a_reader_that_goes_away_ends_a_stream_quietly(void **state)
{
    world *w = *state;
    program *s = start_with(w, "{ \"$LIMINAL\" sub x; echo code $? >&2; } | head -n 1", ""), *p;
    until_says(w, s, "subscribed to x");
    for (int i = 0; s->code < 0; i++) {
        assert_int_equal(run(w, &p, "pub x line"), CLI_DONE);
        cli_job_fini(&p->job);
        w->count--;
        if (has(&s->job.complaint, "code"))
            break;
    }
    until_says(w, s, "code 0");
}

/* ---- tasks ---- */

static void test_every_line_is_a_task_with_one_result_and_the_worst_code_counts(void **state)
{
    world *w = *state;
    program *a = start(w, "work q --exec 'read x; [ $x != 3 ] || exit 9; echo {\\\"n\\\":$x}' --capacity 4"), *p;
    until_says(w, a, "working on q");
    p = start_with(w, "seq 20 | \"$LIMINAL\" dispatch q - --wait --json", "");
    assert_int_equal(until_ends(w, p), CLI_FAILED);
    for (int n = 1; n <= 20; n++) {
        char want[64];
        snprintf(want, sizeof want, n == 3 ? "\"line\":%d}" : "\"payload\":{\"n\":%d}", n);
        assert_non_null(strstr(printed(p), want));
    }
    assert_non_null(strstr(printed(p), "\"outcome\":\"failed\""));
    p = start_with(w, "printf '1\n2\n' | \"$LIMINAL\" dispatch q -", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_non_null(strstr(printed(p), "accepted: task "));
}

static void test_a_task_whose_worker_is_killed_is_done_by_the_next_one(void **state)
{
    world *w = *state;
    program *here = milestone(w);
    program *first = start(w, "work q --exec 'echo >$DIR/here; exec tail -f /dev/null' --identity first");
    until_says(w, first, "working on q as first");
    program *p = start(w, "dispatch q 1 --wait --json");
    until_ends(w, here);
    program *second = start(w, "work q --exec 'echo $LIMINAL_LOSSES' --identity second --max 1");
    until_says(w, second, "working on q as second");
    send_signal(first, SIGKILL);
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"outcome\":\"reply\",\"payload\":1,\"participant\":\"second\""));
    assert_non_null(strstr(printed(p), "\"losses\":1,\"excluded\":[\"first\"]"));
    assert_int_equal(until_ends(w, second), CLI_DONE);
}

/* ---- administration ---- */

static void test_code_that_does_not_compile_is_told_with_its_place(void **state) /* proves SV6 */
{
    world *w = *state;
    program *p =
        start_with(w, "cd \"$DIR\"; printf 'return 1\nbad bad\n' >f.lua; exec \"$LIMINAL\" deploy g f.lua", "");
    assert_int_equal(until_ends(w, p), CLI_FAILED);
    assert_non_null(strstr(complained(p), "liminal: f.lua:2:"));
    assert_int_equal(run(w, &p, "deploy g no-such.lua"), CLI_NOT_FOUND);
    p = start_with(
        w, "cd \"$DIR\"; echo 'return function(m, c) return c[1] end' >f.lua; exec \"$LIMINAL\" deploy g f.lua", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_int_equal(run(w, &p, "deploy g --builtin round_robin --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"group\":\"g\",\"hash\":\""));
}

static void test_a_native_function_is_deployed_where_the_server_takes_them(void **state) /* proves RF13 */
{
    world *w = *state;
    program *p = start_with(w, "exec \"$LIMINAL\" deploy g \"$LIM_FUNCTIONS/function-example.so\"", "");
    assert_int_equal(until_ends(w, p), CLI_USAGE); /* this server was not told to */
    assert_non_null(strstr(complained(p), "routing.native: true"));
    program *server = start_with(w, "exec \"$LIMINALD\" --listen 127.0.0.1:0 --data none --routing-native", "");
    goes_to(w, server);
    program *a = start(w, "serve g --exec 'echo a' --identity a"),
            *b = start(w, "serve g --exec 'echo b' --identity b");
    until_says(w, a, "serving g as a");
    until_says(w, b, "serving g as b");
    p = start_with(w, "exec \"$LIMINAL\" deploy g \"$LIM_FUNCTIONS/function-healthy.so\"", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_int_equal(run(w, &p, "ask g '{\"name\":\"b\"}'"), CLI_DONE);
    assert_string_equal(printed(p), "b\n");
    assert_int_equal(run(w, &p, "artifact ls"), CLI_DONE);
    assert_non_null(strstr(printed(p), "native"));
    p = start_with(w, "exec \"$LIMINAL\" deploy g \"$LIM_FUNCTIONS/function-no-symbol.so\"", "");
    assert_int_equal(until_ends(w, p), CLI_FAILED);
    assert_non_null(strstr(complained(p), "LIM_NATIVE_ROUTER"));
    send_signal(server, SIGTERM);
    assert_int_equal(until_ends(w, server), 0);
}

static void test_what_there_is_can_be_listed_and_shown(void **state)
{
    world *w = *state;
    program *s = start(w, "serve g --exec cat --identity me --tag big --capacity 7"), *p;
    until_says(w, s, "serving g as me");
    assert_int_equal(run(w, &p, "worker ls"), CLI_DONE);
    assert_non_null(strstr(printed(p), "IDENTITY"));
    assert_int_equal(run(w, &p, "worker show me --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"capacity\":7"));
    assert_int_equal(run(w, &p, "group show g"), CLI_DONE);
    assert_int_equal(run(w, &p, "group show nobody"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "channel create c"), CLI_DONE);
    assert_int_equal(run(w, &p, "channel ls --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"name\":\"c\""));
    assert_int_equal(run(w, &p, "channel close c"), CLI_DONE);
    assert_int_equal(run(w, &p, "channel show c"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "conversation ls --json"), CLI_DONE);
    assert_int_equal(run(w, &p, "artifact ls"), CLI_DONE);
    assert_int_equal(run(w, &p, "info --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"version\":\"" LIM_VERSION "\""));
}

static void test_queues_of_namespaces_are_their_own(void **state) /* proves GR1 */
{
    world *w = *state;
    program *p, *a = start(w, "work q --namespace a --exec 'echo by a' --identity me");
    until_says(w, a, "working on aion.dispatch.a.q as me");
    assert_int_equal(run(w, &p, "queue pause q --namespace b"), CLI_DONE);
    assert_int_equal(run(w, &p, "dispatch q 1 --namespace a --wait"), CLI_DONE);
    assert_string_equal(printed(p), "by a\n");
    assert_int_equal(run(w, &p, "queue ls --namespace a --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "aion.dispatch.a.q"));
    assert_null(strstr(printed(p), "aion.dispatch.b.q"));
    assert_int_equal(run(w, &p, "worker ls q --namespace b --json"), CLI_DONE);
    assert_string_equal(printed(p), "");
    assert_int_equal(run(w, &p, "deploy q --namespace a --builtin round_robin"), CLI_DONE);
    assert_int_equal(run(w, &p, "route show q --namespace a --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "round_robin"));
    assert_int_equal(run(w, &p, "group show q --namespace a --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "aion.dispatch.a.q"));
    assert_int_equal(run(w, &p, "worker drain me q --namespace a"), CLI_DONE);
    assert_int_equal(run(w, &p, "worker drain me q --namespace b"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "dead replay q --all --namespace a"), CLI_DONE);
    assert_int_equal(run(w, &p, "dead replay 17 --namespace a"), CLI_USAGE);
    assert_int_equal(run(w, &p, "route show q --channel --namespace a"), CLI_USAGE);
    assert_int_equal(run(w, &p, "dispatch q 1 --namespace a.b"), CLI_USAGE);
    assert_int_equal(run(w, &p, "dispatch q 1 --timeout 50000m"), CLI_DONE);
    assert_int_equal(run(w, &p, "dispatch q 1 --timeout 2000h"), CLI_USAGE); /* 83 days */
}

static void test_an_identity_that_is_taken_is_refused(void **state)
{
    world *w = *state;
    program *s = start(w, "serve g --exec cat --identity me"), *p;
    until_says(w, s, "serving g as me");
    assert_int_equal(run(w, &p, "serve g --exec cat --identity me"), CLI_REJECTED);
    assert_non_null(strstr(complained(p), "--identity"));
}

static void test_rules_of_a_queue_are_words_and_a_mistake_names_the_nearest(void **state) /* proves SV6 */
{
    world *w = *state;
    program *p;
    assert_int_equal(
        run(w, &p, "queue configure q attempts_max=4 backoff_min=2s on_failing_head=park trace=true --json"), CLI_DONE);
    assert_non_null(strstr(printed(p), "\"attempts_max\":4"));
    assert_non_null(strstr(printed(p), "\"backoff_min_ms\":2000"));
    assert_non_null(strstr(printed(p), "\"on_failing_head\":\"park\""));
    assert_non_null(strstr(printed(p), "\"trace\":true"));
    assert_int_equal(run(w, &p, "queue configure q atempts_max=4"), CLI_USAGE);
    assert_non_null(strstr(complained(p), "did you mean \"attempts_max\"?"));
    assert_int_equal(run(w, &p, "queue configure q attempts_max"), CLI_USAGE);
    assert_int_equal(run(w, &p, "queue configure q attempts_max=0"), CLI_USAGE);
    assert_int_equal(run(w, &p, "queue limit q k rate=2 rate_period=1m"), CLI_DONE);
    assert_non_null(strstr(printed(p), "60000"));
    assert_int_equal(run(w, &p, "queue limit q k"), CLI_USAGE);
    assert_int_equal(run(w, &p, "queue limit q k --clear --json"), CLI_DONE);
    assert_string_equal(printed(p), "{\"cleared\":true}\n");
    assert_int_equal(run(w, &p, "queue show q"), CLI_DONE);
    assert_non_null(strstr(printed(p), "attempts_max            4\n"));
}

static void test_what_waits_is_listed_shown_and_purged(void **state) /* proves GR14 */
{
    world *w = *state;
    program *p;
    char line[200];
    assert_int_equal(run(w, &p, "queue why q"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "dispatch q one --json"), CLI_DONE);
    const char *id = strstr(printed(p), "\"task\":\"") + 8;
    int id_len = (int)strcspn(id, "\"");
    assert_int_equal(run(w, &p, "dispatch q two"), CLI_DONE);
    assert_int_equal(run(w, &p, "queue why q"), CLI_DONE);
    assert_non_null(strstr(printed(p), "q: 2 tasks wait: no_workers - nobody works on this queue; start one with: "));
    assert_int_equal(run(w, &p, "task ls q --json --max 1"), CLI_DONE);
    snprintf(line, sizeof line, "task show %.*s", id_len, id);
    assert_non_null(strstr(printed(p), line + strlen("task show ")));
    assert_null(strchr(strchr(printed(p), '\n') + 1, '\n'));
    assert_int_equal(run(w, &p, line), CLI_DONE);
    snprintf(line, sizeof line, "task await %.*s --timeout 50ms", id_len, id);
    assert_int_equal(run(w, &p, line), CLI_TIMEOUT);
    snprintf(line, sizeof line, "task cancel %.*s", id_len, id);
    assert_int_equal(run(w, &p, line), CLI_DONE);
    assert_int_equal(run(w, &p, "queue purge q"), CLI_DONE);
    assert_string_equal(printed(p), "purged 1\n");
    snprintf(line, sizeof line, "task await %.*s --json", id_len, id);
    assert_int_equal(run(w, &p, line), CLI_CANCELLED);
    assert_non_null(strstr(printed(p), "\"outcome\":\"cancelled\""));
    assert_int_equal(run(w, &p, "task await 123"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "task show 123"), CLI_NOT_FOUND);
    assert_int_equal(run(w, &p, "dead ls --json"), CLI_DONE);
    assert_string_equal(printed(p), "");
    p = start_with(w, "seq 1200 | \"$LIMINAL\" dispatch q -", "");
    assert_int_equal(until_ends(w, p), CLI_DONE);
    p = start_with(w, "\"$LIMINAL\" task ls q --json --max 1100 | sort -u | wc -l", ""); /* two pages */
    assert_int_equal(until_ends(w, p), CLI_DONE);
    assert_int_equal(atoi(printed(p)), 1100);
    assert_int_equal(run(w, &p, "task ls q --json"), CLI_DONE);
    assert_non_null(strstr(complained(p), "these are the first 100; more with --max"));
}

static void test_a_watched_list_is_shown_again_until_it_is_interrupted(void **state)
{
    world *w = *state;
    program *watching = start(w, "queue ls --watch --interval 20ms"), *p;
    until_says(w, watching, "NAME");
    assert_int_equal(run(w, &p, "dispatch q one"), CLI_DONE);
    until_says(w, watching, "\n\nNAME"); /* blocks one after the other: it is no terminal */
    until_says(w, watching, "no_workers");
    send_signal(watching, SIGINT);
    assert_int_equal(until_ends(w, watching), CLI_DONE);
    assert_null(strstr(printed(watching), "\033"));
}

static void test_flags_that_contradict_each_other_are_refused(void **state) /* proves SV6 */
{
    static const char *const lines[] = {
        "ask g x --all --any",
        "ask g x --quorum 2",
        "ask g x --next --compensate q",
        "ask g x --all --wait",
        "dispatch q x --weight 3",
        "dispatch q x --weight 2000 --key k",
        "dispatch q x --on-duplicate join",
        "dispatch q x --report-to nobody",
        "dispatch q - --idempotency-key k",
        "dispatch q x --priority 10",
        "conversation ls --where x",
        "task await xyz",
    };
    world *w = *state;
    for (size_t i = 0; i < LIM_COUNT(lines); i++) {
        program *p;
        int code = run(w, &p, lines[i]);
        if (code != CLI_USAGE || strchr(complained(p), '\n') != strrchr(complained(p), '\n') ||
            !strchr(complained(p), ';'))
            fail_msg("liminal %s: exit %d, %s", lines[i], code, complained(p));
        cli_job_fini(&p->job);
        w->count--;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, finish)
    const struct CMUnitTest tests[] = {
        TEST(test_an_ask_prints_the_reply_of_a_command),
        TEST(test_what_a_command_asks_is_a_child_of_what_it_answers),
        TEST(test_a_failing_command_is_a_failure_with_its_reason),
        TEST(test_a_command_that_does_not_exist_is_said_by_both_sides),
        TEST(test_an_ask_of_nobody_is_refused_at_once),
        TEST(test_a_participant_killed_with_a_child_that_ignores_signals_is_told_at_once),
        TEST(test_a_timeout_ends_the_ask_and_the_command_that_was_at_it),
        TEST(test_an_interrupt_cancels_an_ask),
        TEST(test_the_end_of_the_server_ends_whoever_waits_with_lost),
        TEST(test_an_answer_in_parts_is_printed_line_by_line_and_cancelled_by_an_interrupt),
        TEST(test_a_slow_reader_of_parts_gets_them_all),
        TEST(test_everybody_is_asked_and_whoever_does_not_reply_is_named),
        TEST(test_what_is_published_is_printed_a_line_each),
        TEST(test_a_publish_that_must_reach_somebody_is_rejected_when_nobody_listens),
        TEST(test_a_reader_that_goes_away_ends_a_stream_quietly),
        TEST(test_every_line_is_a_task_with_one_result_and_the_worst_code_counts),
        TEST(test_a_task_whose_worker_is_killed_is_done_by_the_next_one),
        TEST(test_code_that_does_not_compile_is_told_with_its_place),
        TEST(test_a_native_function_is_deployed_where_the_server_takes_them),
        TEST(test_what_there_is_can_be_listed_and_shown),
        TEST(test_queues_of_namespaces_are_their_own),
        TEST(test_an_identity_that_is_taken_is_refused),
        TEST(test_rules_of_a_queue_are_words_and_a_mistake_names_the_nearest),
        TEST(test_what_waits_is_listed_shown_and_purged),
        TEST(test_a_watched_list_is_shown_again_until_it_is_interrupted),
        TEST(test_flags_that_contradict_each_other_are_refused),
    };
    if (!getenv("LIMINALD") || !getenv("LIMINAL")) {
        fprintf(stderr,
                "program_test: LIMINALD and LIMINAL say where the programs are; without them nothing is tested\n");
        return 77; /* skipped */
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
