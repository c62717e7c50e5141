/* SPDX-License-Identifier: Apache-2.0
 * kill_test.c - a real server, killed and started again, and real clients that come back: durable asks, whose answers
 * are found by their ids; and what can be relied on when the server says that it listens.
 *
 * One thread: an asker and a worker with their loops in here, and the command for what people type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <liminal/client.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ASKER, WORKER, CLIENTS, ASKS = 3, WAIT_MS = 60000 };

typedef struct asked {
    lim_delivery d; /* self, conv and lease of the request, as its worker has it */
    char text[16];
    bool ended;
    lim_how how;
    char reply[32];
} asked;

static struct {
    char top[64], address[64], line[256];
    pid_t pid;
    lim_client *clients[CLIENTS];
    lim_participant worker;
    asked asks[ASKS];
    uint32_t requests, ready, settled;
} t;

/* ---- the server ---- */

/* Starts it with these arguments and this environment; its first line is in t.line. */
static void start_with(const char *const *argv, const char *state)
{
    int out[2];
    assert_int_equal(pipe(out), 0);
    t.pid = fork();
    if (t.pid == 0) {
        dup2(out[1], 1);
        dup2(open("/dev/null", O_WRONLY), 2);
        close(out[0]);
        if (state != NULL) {
            setenv("STATE_DIRECTORY", state, 1);
            setenv("LIMINAL_DATA", "auto", 1);
            setenv("LIMINAL_LISTEN", "127.0.0.1:0", 1);
        }
        execv(getenv("LIMINALD"), (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(out[1]);
    memset(t.line, 0, sizeof t.line);
    for (size_t n = 0; strchr(t.line, '\n') == NULL && n < sizeof t.line - 1; n++)
        if (read(out[0], t.line + n, 1) != 1)
            fail_msg("the server did not start");
    close(out[0]);
    const char *at = strstr(t.line, "listening on ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "listening on %63[0-9.:]", t.address), 1);
}

static void start(const char *listen)
{
    char data[100], where[80];
    snprintf(data, sizeof data, "%s/data", t.top);
    snprintf(where, sizeof where, "%s", listen);
    const char *const argv[] = { "liminald", "--listen", where, "--data", data, NULL };
    start_with(argv, NULL);
}

static void kill_server(void)
{
    int status;
    assert_int_equal(kill(t.pid, SIGKILL), 0);
    assert_int_equal(waitpid(t.pid, &status, 0), t.pid);
    t.pid = 0;
}

/* ---- the loop ---- */

static void turn(void)
{
    struct pollfd fds[CLIENTS];
    int wait = 50;
    for (int i = 0; i < CLIENTS; i++) {
        int timeout = lim_client_timeout_ms(t.clients[i]);
        fds[i] = (struct pollfd){ .fd = lim_client_fd(t.clients[i]), .events = POLLIN };
        wait = timeout >= 0 && timeout < wait ? timeout : wait;
    }
    (void)poll(fds, CLIENTS, wait);
    for (int i = 0; i < CLIENTS; i++)
        (void)!lim_client_process(t.clients[i]);
}

#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        struct timespec begin, now;                                                                                    \
        clock_gettime(CLOCK_MONOTONIC, &begin);                                                                        \
        while (!(condition)) {                                                                                         \
            turn();                                                                                                    \
            clock_gettime(CLOCK_MONOTONIC, &now);                                                                      \
            if ((now.tv_sec - begin.tv_sec) * 1000 > WAIT_MS)                                                          \
                fail_msg("for a minute: not %s", #condition);                                                          \
        }                                                                                                              \
    } while (0)

static bool all_up(bool up)
{
    for (int i = 0; i < CLIENTS; i++)
        if ((lim_client_state(t.clients[i]) == LIM_LINK_UP) != up)
            return false;
    return true;
}

/* ---- who asks, and who answers ---- */

static void on_outcome(void *ctx, const lim_outcome *o)
{
    asked *a = ctx;
    a->ended = true;
    a->how = o->how;
    snprintf(a->reply, sizeof a->reply, "%.*s", (int)o->payload.len,
             o->payload.len > 0 ? (const char *)o->payload.ptr : "");
}

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)c, (void)ctx;
    if (!d->wants_reply)
        return LIM_DONE;
    for (uint32_t i = 0; i < ASKS; i++)
        if (strlen(t.asks[i].text) == d->payload.len && memcmp(t.asks[i].text, d->payload.ptr, d->payload.len) == 0)
            t.asks[i].d = (lim_delivery){ .self = d->self, .conv = d->conv, .lease = d->lease };
    t.requests++;
    return LIM_HOLD;
}

static void on_ready(void *ctx, const char *identity)
{
    (void)ctx;
    assert_string_equal(identity, "w");
    t.ready++;
}

static void answer(uint32_t i)
{
    char reply[32];
    snprintf(reply, sizeof reply, "re %s", t.asks[i].text);
    assert_int_equal(lim_client_reply_to(t.clients[WORKER], t.asks[i].d.self, t.asks[i].d.conv, t.asks[i].d.lease,
                                         (lim_bytes){ reply, strlen(reply) }),
                     LIM_OK);
}

static void ask_all(void)
{
    const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true, .durable = true };
    for (uint32_t i = 0; i < ASKS; i++) {
        snprintf(t.asks[i].text, sizeof t.asks[i].text, "ask %u", i);
        assert_int_equal(lim_client_ask_async(t.clients[ASKER], "g",
                                              (lim_bytes){ t.asks[i].text, strlen(t.asks[i].text) }, &opts, on_outcome,
                                              &t.asks[i], NULL),
                         LIM_OK);
    }
}

/* By its id; any program may. */
static void await(uint32_t i)
{
    t.asks[i].ended = false;
    assert_int_equal(lim_client_await_async(t.clients[ASKER], t.asks[i].d.conv, on_outcome, &t.asks[i], NULL), LIM_OK);
    UNTIL(t.asks[i].ended);
}

static void expect_reply(uint32_t i)
{
    char reply[32];
    snprintf(reply, sizeof reply, "re %s", t.asks[i].text);
    assert_int_equal(t.asks[i].how, LIM_HOW_REPLY);
    assert_string_equal(t.asks[i].reply, reply);
}

static void expect_command(const char *command, const char *wanted)
{
    char line[400], out[200] = "";
    snprintf(line, sizeof line, "%s --server %s %s 2>&1", getenv("LIMINAL"), t.address, command);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = '\0';
    int code = pclose(f);
    if (code != 0 || strncmp(out, wanted, strlen(wanted)) != 0)
        fail_msg("%s: exit %d, %s", line, code, out);
}

static void open_clients(void)
{
    static const char *const names[] = { "asker", "worker" };
    for (int i = 0; i < CLIENTS; i++) {
        const lim_client_opts opts = { .size = sizeof opts, .server = t.address, .name = names[i], .own_loop = true };
        assert_int_equal(lim_client_open(&opts, NULL, &t.clients[i]), LIM_OK);
    }
    UNTIL(all_up(true));
    const lim_client_serve_opts serve = { .size = sizeof serve,
                                          .identity = "w",
                                          .capacity = 8,
                                          .handler = { .on_message = on_request },
                                          .on_ready = on_ready };
    assert_int_equal(lim_client_serve(t.clients[WORKER], "g", &serve, NULL, &t.worker), LIM_OK);
    UNTIL(t.ready == 1);
}

static void
test_a_durable_ask_is_answered_by_the_worker_that_held_it_when_the_server_died(void **state) /* proves GR6 DU2 */
{
    (void)state;
    char command[64];
    start("127.0.0.1:0");
    open_clients();
    ask_all();
    UNTIL(t.requests == ASKS);
    answer(0);
    UNTIL(t.asks[0].ended);
    expect_reply(0);
    for (int kills = 1; kills <= 3; kills++) {
        kill_server();
        UNTIL(all_up(false));
        if (kills == 1)
            UNTIL(t.asks[1].ended && t.asks[2].ended);
        assert_int_equal(t.asks[2].how, LIM_HOW_LOST); /* its asker knows at once, and may look again */
        if (kills == 3)
            answer(1); /* while nobody hears it: it is said when there is a server again */
        start(t.address);
        UNTIL(all_up(true) && t.ready == (uint32_t)kills + 1);
        await(0);
        expect_reply(0); /* answered before: still known */
        t.asks[2].how = LIM_HOW_LOST;
    }
    await(1);
    expect_reply(1);
    answer(2);
    await(2);
    expect_reply(2);
    assert_int_equal(t.requests, ASKS); /* nobody was asked twice */
    for (uint32_t i = 0; i < ASKS; i++) {
        snprintf(command, sizeof command, "task await %" PRIx64, t.asks[i].d.conv.id);
        expect_command(command, t.asks[i].reply);
    }
    for (int i = 0; i < CLIENTS; i++)
        lim_client_close(t.clients[i]);
    kill_server();
}

static void test_without_arguments_it_is_ready_when_it_says_where_it_listens(void **state) /* proves SV1 */
{
    (void)state;
    char store[160];
    struct stat st;
    lim_diag diag = { 0 };
    const char *const argv[] = { "liminald", NULL };
    for (int i = 0; i < 3; i++) {
        start_with(argv, t.top);
        assert_non_null(strstr(t.line, " listening on 127.0.0.1:"));
        snprintf(store, sizeof store, "%s/lock", t.top); /* the store was there before */
        assert_int_equal(stat(store, &st), 0);
        const lim_client_opts opts = { .size = sizeof opts, .server = t.address, .no_reconnect = true };
        lim_client *c;
        lim_receipt r;
        if (lim_client_open(&opts, &diag, &c) != LIM_OK) /* the first one who dials, once */
            fail_msg("%s", diag.text);
        if (i == 0)
            expect_command("channel create orders --durable", "");
        assert_int_equal(lim_client_publish_wait(c, "orders", (lim_bytes){ "x", 1 }, NULL, &r), LIM_OK);
        assert_int_equal(r.seq, i + 1);
        assert_int_equal(r.durability, LIM_CLASS_DISK);
        lim_client_close(c);
        kill_server();
    }
}

static int set_up(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    snprintf(t.top, sizeof t.top, "/tmp/liminal-kill-XXXXXX");
    return getenv("LIMINALD") != NULL && getenv("LIMINAL") != NULL && mkdtemp(t.top) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[100];
    if (t.pid > 0)
        kill_server();
    snprintf(command, sizeof command, "rm -rf '%s'", t.top);
    return system(command) == 0 ? 0 : -1;
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_a_durable_ask_is_answered_by_the_worker_that_held_it_when_the_server_died),
        EACH(test_without_arguments_it_is_ready_when_it_says_where_it_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
