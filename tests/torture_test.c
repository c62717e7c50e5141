/* SPDX-License-Identifier: Apache-2.0
 * torture_test.c - a real liminald under load is killed with SIGKILL, again and again, and everything it ever said is
 * held against what it still knows.
 *
 *      load:  keyed and plain publishers, a cursor that acknowledges, a cursor whose steps acknowledge and publish,
 *             dispatchers with idempotency keys, a worker; durable conversations and asks (torture_talk.c); deployments
 * and schedules (torture_admin.c) round: load for a random while -> SIGKILL -> start again on the same directory ->
 * audit
 *
 * One thread, one event loop, a client per role, all of them reconnecting by themselves. What was in flight at the kill
 * is in doubt; its key resolves it (it is published or dispatched again under the same key). 20 rounds, or as many as
 * LIM_TORTURE_ROUNDS says; LIM_TORTURE_SEED chooses another course.
 *
 * Audited after every round over everything that is new, and over everything at the end:
 *
 *   T1  a publish that was answered `stored` is in its channel, once, under the number of its receipt.
 *
 *   T2  nothing is in a channel that was not published; a plain publish at most once per attempt, a keyed one once.
 *
 *   T3  numbers have no holes.
 *
 *   T4  a message whose acknowledgement was answered never comes again to that cursor; every message is delivered.
 *
 *   T5  a step that was answered is there, whole: of each input message exactly one output, in the end.
 *
 *   T6  every task that was accepted ends with its own result, told once, whoever asks again under its key. (A worker
 * may be given it once more: that hand-over may have left before the result of the one before came.)
 *
 *   T7  a durable conversation whose opening was answered is there until it is closed, with every answer that was told
 * in its history; a durable ask that was answered has that answer by its id.
 *
 *   T8  the version of a routing function that was answered last is live, and its history has every operation.
 *
 *   T9  a schedule's fires are in its channel once each, in order, none left out; and one task each in its queue.
 *
 * In the end every key is stored, delivered, transformed and done (XO3). */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

enum {
    ROUNDS = 20,
    ITEMS_MAX = 400000,
    WINDOW = 64, /* of each role, under way at once */
    ROUND_MIN_MS = 20,
    ROUND_MAX_MS = 250,
    CLIENTS = 5,
    SETTLE_MS = 60000
};

typedef enum stage { IDLE = 0, PENDING, DOUBT, DONE } stage;

typedef struct item { /* number n of a role */
    stage state;
    uint64_t seq;         /* of its receipt, once DONE; keyed: never another one */
    uint32_t attempts;    /* plain: one item each */
    bool seen, acked;     /* by the cursor: delivered; acknowledged, which was answered */
    bool handed, stepped; /* likewise by the transformer */
    bool out;             /* in its output */
} item;

typedef struct role {
    const char *name;
    item items[ITEMS_MAX];
    uint32_t next, under_way, done, doubts, again;
    uint32_t doubt_at; /* no doubt below */
} role;

typedef struct audit { /* a reading of a channel from a number on */
    const char *channel;
    lim_sub sub;
    uint64_t next, last; /* to be read; the newest when it began */
    bool open, whole;
} audit;

static struct {
    const char *program, *dir;
    char address[64];
    pid_t pid;
    lim_client *clients[CLIENTS];
    lim__rng rng;
    bool load, opened;
    role keyed, plain, tasks;
    lim_sub cursor, transformer;
    lim_participant worker;
    uint32_t steps_under_way, kills;
    uint64_t redelivered;
} t;

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the server ---- */

static void start(const char *listen)
{
    int out[2];
    char line[256] = "";
    assert_int_equal(pipe(out), 0);
    t.pid = fork();
    if (t.pid == 0) {
        dup2(out[1], 1);
        int log = open("torture.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 2);
        execl(t.program, "liminald", "--listen", listen, "--data", t.dir, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    for (size_t n = 0; strchr(line, '\n') == NULL && n < sizeof line - 1;) {
        ssize_t got = read(out[0], line + n, 1);
        if (got <= 0)
            fail_msg("the server did not start again after %u kills", t.kills);
        n += (size_t)got;
    }
    close(out[0]);
    const char *at = strstr(line, "listening on ");
    assert_non_null(at);
    sscanf(at, "listening on %63[0-9.:]", t.address);
}

static void kill_server(void)
{
    int status;
    kill(t.pid, SIGKILL);
    assert_int_equal(waitpid(t.pid, &status, 0), t.pid);
    t.kills++;
}

/* ---- loads ---- */

enum { PUBLISHER, CONSUMER, DISPATCHER, WORKER, OWNER }; /* the clients */

static lim_bytes text_of(char *at, size_t size, const char *kind, uint32_t n)
{
    int len = snprintf(at, size, "%s:%u", kind, n);
    return (lim_bytes){ at, (size_t)len };
}

/* The number in "kind:n"; fails on anything else. */
static uint32_t number_in(lim_bytes payload, const char *kind)
{
    char text[32];
    unsigned n = 0;
    snprintf(text, sizeof text, "%.*s", (int)payload.len, (const char *)payload.ptr);
    size_t len = strlen(kind);
    if (strncmp(text, kind, len) != 0 || sscanf(text + len, ":%u", &n) != 1 || n >= ITEMS_MAX)
        fail_msg("there is \"%s\" where %s:N should be", text, kind); /* T2 */
    return n;
}

typedef struct attempt { /* what a callback needs to know; freed by it */
    role *role;
    uint32_t n;
} attempt;

static attempt *attempt_new(role *r, uint32_t n)
{
    attempt *a = malloc(sizeof *a);
    assert_non_null(a);
    *a = (attempt){ r, n };
    r->items[n].state = PENDING;
    r->under_way++;
    return a;
}

static void resolved(role *r, item *i)
{
    r->done += i->state != DONE;
    i->state = DONE;
}

static void in_doubt(role *r, uint32_t n)
{
    r->items[n].state = DOUBT;
    r->doubts++;
    if (n < r->doubt_at)
        r->doubt_at = n;
}

static void on_receipt(void *ctx, const lim_receipt *receipt)
{
    attempt *a = ctx;
    item *i = &a->role->items[a->n];
    a->role->under_way--;
    if (receipt->admission.verdict == LIM_ACCEPT) {
        assert_true(receipt->seq > 0);
        assert_true(i->seq == 0 || i->seq == receipt->seq);
        i->seq = receipt->seq;
        resolved(a->role, i);
    } else if (a->role == &t.keyed) {
        in_doubt(a->role, a->n);
    } else {
        i->state = DOUBT; /* a plain one is never tried again */
    }
    free(a);
}

/* The next to offer: one in doubt, else a new one; false: nothing now. */
static bool next_of(role *r, bool again, uint32_t *n)
{
    if (r->under_way >= WINDOW)
        return false;
    while (again && r->doubts > 0) {
        uint32_t at = r->doubt_at++;
        if (at >= r->next)
            break;
        if (r->items[at].state == DOUBT) {
            r->doubts--;
            *n = at;
            return true;
        }
    }
    if (!t.load || r->next == ITEMS_MAX)
        return false;
    *n = r->next++;
    return true;
}

static void publish(role *r, const char *channel, const char *kind, bool keyed)
{
    char payload[32], key[32];
    uint32_t n;
    while (next_of(r, keyed, &n)) {
        lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt, .ctx = attempt_new(r, n) };
        snprintf(key, sizeof key, "%u", n);
        if (keyed)
            opts.idempotency_key = key;
        lim_err err = lim_client_publish_async(t.clients[PUBLISHER], channel, text_of(payload, sizeof payload, kind, n),
                                               &opts, NULL, NULL);
        if (err == LIM_OK)
            continue;
        free(opts.ctx); /* nothing was sent */
        r->under_way--;
        if (keyed)
            in_doubt(r, n);
        else
            r->items[n].state = DOUBT;
        return;
    }
}

/* ---- a cursor that acknowledges each ---- */

typedef struct acking {
    uint32_t n;
} acking;

static void on_acked(void *ctx, lim_err err, const char *detail)
{
    acking *a = ctx;
    (void)detail;
    if (err == LIM_OK)
        t.keyed.items[a->n].acked = true;
    free(a);
}

static lim_done on_cursor(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    uint32_t n = number_in(d->payload, "k");
    item *i = &t.keyed.items[n];
    if (i->acked)
        fail_msg("message %u was acknowledged and came again", n); /* T4 */
    i->seen = true;
    acking *a = malloc(sizeof *a);
    *a = (acking){ n };
    if (lim_client_ack(c, t.cursor, d->seq, on_acked, a) != LIM_OK)
        free(a);
    return LIM_HOLD;
}

/* ---- consume, transform, produce ---- */

static void on_stepped(void *ctx, lim_err err, const char *detail)
{
    acking *a = ctx;
    (void)detail;
    t.steps_under_way--;
    if (err == LIM_OK)
        t.keyed.items[a->n].stepped = true;
    free(a);
}

static lim_done on_transform(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    char payload[32];
    lim_client_step *step;
    uint32_t n = number_in(d->payload, "k");
    t.keyed.items[n].handed = true;
    if (t.keyed.items[n].stepped)
        fail_msg("message %u was acknowledged in a step and came again", n); /* T4, T5 */
    if (lim_client_step_new(c, &step) != LIM_OK)
        return LIM_HOLD;
    lim_err err = lim_client_step_ack(step, t.transformer, d->seq);
    if (err == LIM_OK)
        err = lim_client_step_publish(step, "out", text_of(payload, sizeof payload, "o", n), NULL);
    acking *a = malloc(sizeof *a);
    *a = (acking){ n };
    if (err != LIM_OK) {
        lim_client_step_free(step);
        free(a);
    } else if (lim_client_step_commit(step, on_stepped, a) == LIM_OK) {
        t.steps_under_way++;
    } else {
        free(a);
    }
    return LIM_HOLD;
}

/* ---- tasks ---- */

static void on_outcome(void *ctx, const lim_outcome *o)
{
    attempt *a = ctx;
    item *i = &a->role->items[a->n];
    a->role->under_way--;
    if (o->how == LIM_HOW_REPLY) {
        assert_int_equal(number_in(o->payload, "r"), a->n); /* T6 */
        resolved(a->role, i);
    } else if (o->how == LIM_HOW_LOST || o->how == LIM_HOW_REFUSED || o->how == LIM_HOW_CLOSED) {
        in_doubt(a->role, a->n);
    } else {
        fail_msg("task %u ended %s (%s)", a->n, lim_how_text(o->how), lim_why_text(o->why));
    }
    free(a);
}

static void dispatch(void)
{
    char payload[32], key[32];
    uint32_t n;
    while (next_of(&t.tasks, true, &n)) {
        snprintf(key, sizeof key, "%u", n);
        lim_dispatch_opts opts = {
            .size = sizeof opts, .timeout_ms = LIM_FOREVER, .idempotency_key = key, .losses_max = 1000000
        };
        attempt *a = attempt_new(&t.tasks, n);
        if (lim_client_dispatch_async(t.clients[DISPATCHER], "work", text_of(payload, sizeof payload, "t", n), &opts,
                                      NULL, on_outcome, a) == LIM_OK)
            continue;
        free(a);
        t.tasks.under_way--;
        in_doubt(&t.tasks, n);
        return;
    }
}

static lim_done on_task(lim_client *c, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    char payload[32];
    uint32_t n = number_in(d->payload, "t");
    t.tasks.again += t.tasks.items[n].state == DONE; /* it left the queue before the result of the one before came */
    return lim_client_reply(c, d, text_of(payload, sizeof payload, "r", n)) == LIM_OK ? LIM_DONE : LIM_HOLD;
}

/* ---- the loop ---- */

static void process(lim_client *c, short revents)
{
    (void)revents;
    (void)!lim_client_process(c);
}

static void turn(int most_ms)
{
    struct pollfd fds[CLIENTS];
    int wait = most_ms;
    if (lim_client_state(t.clients[PUBLISHER]) == LIM_LINK_UP) {
        publish(&t.keyed, "keyed", "k", true);
        publish(&t.plain, "plain", "p", false);
    }
    if (lim_client_state(t.clients[DISPATCHER]) == LIM_LINK_UP)
        dispatch();
    if (t.opened) {
        torture_talks_turn(t.load);
        torture_admin_turn(t.load);
    }
    for (int i = 0; i < CLIENTS; i++) {
        int timeout = lim_client_timeout_ms(t.clients[i]);
        fds[i] = (struct pollfd){ .fd = lim_client_fd(t.clients[i]), .events = POLLIN };
        if (timeout >= 0 && timeout < wait)
            wait = timeout;
    }
    (void)poll(fds, CLIENTS, wait);
    for (int i = 0; i < CLIENTS; i++)
        process(t.clients[i], fds[i].revents);
}

/* What the server itself says about it, for whoever reads the failure. */
static void tell(void)
{
    const char *command = getenv("LIMINAL");
    char line[600];
    if (command == NULL)
        return;
    snprintf(
        line, sizeof line,
        "exec 1>&2; LIMINAL_SERVER=%s; export LIMINAL_SERVER; first=$(%s task ls work | awk 'NR == 2 { print $1 }'); "
        "for what in \"task show $first\" 'queue show work' 'queue why work' 'worker ls' 'cursor show keyed acks' "
        "'cursor show keyed steps'; do %s $what; done",
        t.address, command, command);
    (void)!system(line);
}

void torture_until(bool (*done)(void), const char *what)
{
    uint64_t end = now_ms() + SETTLE_MS;
    while (!done()) {
        if (now_ms() > end)
            tell();
        if (now_ms() > end)
            fail_msg("after %u kills, for %d s: not %s (keyed %u of %u, plain %u of %u, tasks %u of %u)", t.kills,
                     SETTLE_MS / 1000, what, t.keyed.done, t.keyed.next, t.plain.done, t.plain.next, t.tasks.done,
                     t.tasks.next);
        turn(20);
    }
}

bool torture_up(const lim_client *c)
{
    return lim_client_state((lim_client *)(uintptr_t)c) == LIM_LINK_UP;
}

static bool all_up(void)
{
    bool up = true;
    for (int i = 0; i < CLIENTS; i++)
        up = up && lim_client_state(t.clients[i]) == LIM_LINK_UP;
    return up;
}

static bool none_up(void)
{
    for (int i = 0; i < CLIENTS; i++)
        if (lim_client_state(t.clients[i]) == LIM_LINK_UP)
            return false;
    return true;
}

/* ---- JSON asks of $sys groups ---- */

static struct {
    bool ended;
    lim_how how;
    char reply[1 << 18];
} sys;

static void on_sys(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    sys.ended = true;
    sys.how = o->how;
    snprintf(sys.reply, sizeof sys.reply, "%.*s", (int)o->payload.len,
             o->payload.len > 0 ? (const char *)o->payload.ptr : "");
}

static bool sys_ended(void)
{
    return sys.ended;
}

const char *torture_ask(const char *group, const char *json)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 30000, .wait = true };
    sys.ended = false;
    assert_int_equal(lim_client_ask_async(t.clients[DISPATCHER], group, (lim_bytes){ json, strlen(json) }, &opts,
                                          on_sys, NULL, NULL),
                     LIM_OK);
    torture_until(sys_ended, "answered by the system");
    assert_int_equal(sys.how, LIM_HOW_REPLY);
    if (strstr(sys.reply, "\"error\"") != NULL)
        fail_msg("%s to %s: %s", json, group, sys.reply);
    return sys.reply;
}

uint64_t torture_number(const char *json, const char *key)
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(json, quoted);
    if (at == NULL)
        fail_msg("no %s in %s", key, json);
    return strtoull(at + strlen(quoted), NULL, 10);
}

/* ---- audits ---- */

static void audit_item(const audit *a, uint64_t seq, lim_bytes payload)
{
    if (strcmp(a->channel, "ticks") == 0) {
        torture_admin_tick(payload);
        return;
    }
    if (strcmp(a->channel, "out") == 0) {
        item *i = &t.keyed.items[number_in(payload, "o")];
        if (i->out)
            fail_msg("%.*s is twice in out", (int)payload.len, (const char *)payload.ptr); /* T5 */
        i->out = true;
        return;
    }
    role *r = strcmp(a->channel, "keyed") == 0 ? &t.keyed : &t.plain;
    uint32_t n = number_in(payload, r == &t.keyed ? "k" : "p");
    item *i = &r->items[n];
    if (n >= r->next || i->attempts++ > 0)
        fail_msg("%.*s in %s, number %llu: not published, or twice", (int)payload.len, (const char *)payload.ptr,
                 a->channel, (unsigned long long)seq); /* T2 */
    if (i->seq != 0 && i->seq != seq)
        fail_msg("%s %u has receipt %llu and number %llu", a->channel, n, (unsigned long long)i->seq,
                 (unsigned long long)seq); /* T1 */
    i->seq = seq;
}

static lim_done on_audit(lim_client *c, const lim_delivery *d, void *ctx)
{
    audit *a = ctx;
    (void)c;
    if (d->seq < a->next)
        return LIM_DONE; /* again, after a reconnect */
    if (d->seq != a->next)
        fail_msg("%s: %llu after %llu", a->channel, (unsigned long long)d->seq,
                 (unsigned long long)a->next - 1); /* T3 */
    a->next++;
    audit_item(a, d->seq, d->payload);
    return LIM_DONE;
}

static void on_audit_end(void *ctx, lim_err why, const char *detail)
{
    audit *a = ctx;
    if (why != LIM_OK)
        fail_msg("the audit of %s ended: %s", a->channel, detail);
    a->open = false;
}

enum { AUDITS = 4 };
static audit audits[AUDITS] = {
    { .channel = "keyed" }, { .channel = "plain" }, { .channel = "out" }, { .channel = "ticks" }
};

static bool audits_read(void)
{
    for (size_t i = 0; i < AUDITS; i++)
        if (audits[i].next <= audits[i].last)
            return false;
    return true;
}

static bool audits_closed(void)
{
    for (size_t i = 0; i < AUDITS; i++)
        if (audits[i].open)
            return false;
    return true;
}

/* Everything that came since the last audit. */
static void audit_all(void)
{
    char json[128];
    for (size_t i = 0; i < AUDITS; i++) {
        audit *a = &audits[i];
        snprintf(json, sizeof json, "{\"op\":\"show\",\"name\":\"%s\"}", a->channel);
        a->last = torture_number(torture_ask("$sys.channels", json), "last");
        lim_client_sub_opts opts = { .size = sizeof opts, .window = 512 };
        opts.handler = (lim_client_handler){ on_audit, on_audit_end, a };
        opts.read.from = LIM_FROM_SEQ;
        opts.read.start = a->next;
        a->open = true;
        assert_int_equal(lim_client_subscribe(t.clients[CONSUMER], a->channel, &opts, NULL, &a->sub), LIM_OK);
    }
    torture_until(audits_read, "everything read");
    for (size_t i = 0; i < AUDITS; i++)
        assert_int_equal(lim_client_unsubscribe(t.clients[CONSUMER], audits[i].sub), LIM_OK);
    torture_until(audits_closed, "every reading closed");
    for (role *r = &t.keyed;; r = &t.plain) {
        const audit *a = r == &t.keyed ? &audits[0] : &audits[1];
        for (uint32_t n = 0; n < r->next; n++)
            if (r->items[n].state == DONE && r->items[n].seq <= a->last && r->items[n].attempts != 1)
                fail_msg("%s %u is stored as %llu and is not there", a->channel, n,
                         (unsigned long long)r->items[n].seq); /* T1 */
        if (r == &t.plain)
            break;
    }
}

/* ---- rounds ---- */

static void subscribe_cursor(const char *name, lim_sub *sub,
                             lim_done (*on_message)(lim_client *c, const lim_delivery *d, void *ctx))
{
    lim_client_sub_opts opts = { .size = sizeof opts, .window = 64, .handler.on_message = on_message };
    opts.read.from = LIM_FROM_ALL;
    opts.read.cursor = name;
    opts.read.ack_ms = 2000;
    assert_int_equal(lim_client_subscribe(t.clients[CONSUMER], "keyed", &opts, NULL, sub), LIM_OK);
}

static void open_clients(void)
{
    static const char *const names[CLIENTS] = { "publisher", "consumer", "dispatcher", "worker", "owner" };
    for (int i = 0; i < CLIENTS; i++) {
        lim_client_opts opts = { .size = sizeof opts, .server = t.address, .name = names[i], .own_loop = true };
        assert_int_equal(lim_client_open(&opts, NULL, &t.clients[i]), LIM_OK);
    }
    torture_until(all_up, "connected");
    static const char *const channels[] = { "keyed", "plain", "out" };
    char json[160];
    for (size_t i = 0; i < 3; i++) {
        snprintf(json, sizeof json, "{\"op\":\"create\",\"name\":\"%s\",\"durable\":true,\"window_ms\":3600000}",
                 channels[i]);
        torture_ask("$sys.channels", json);
    }
    torture_ask("$sys.queues", "{\"op\":\"configure\",\"queue\":\"work\",\"durable\":true,\"reconnect_grace_ms\":500,"
                               "\"remember_ms\":3600000,\"remember_max\":1000000}");
    subscribe_cursor("acks", &t.cursor, on_cursor);
    subscribe_cursor("steps", &t.transformer, on_transform);
    lim_client_serve_opts serve = {
        .size = sizeof serve, .identity = "w", .capacity = 16, .handler.on_message = on_task
    };
    assert_int_equal(lim_client_work(t.clients[WORKER], "work", &serve, NULL, &t.worker), LIM_OK);
    torture_talks_open(t.clients[OWNER], t.clients[WORKER]);
    torture_admin_open(t.clients[OWNER], t.clients[WORKER]);
    t.opened = true;
}

static bool loads_settled(void)
{
    return t.keyed.done == t.keyed.next && t.plain.under_way == 0 && t.tasks.done == t.tasks.next &&
           torture_talks_settled() && torture_admin_settled();
}

static bool all_delivered(void)
{
    for (uint32_t n = 0; n < t.keyed.next; n++)
        if (!t.keyed.items[n].seen || !t.keyed.items[n].handed)
            return false;
    return true;
}

/* An acknowledgement that was on its way at a kill is in doubt for the client; the server knows. */
static void await_cursor(const char *name)
{
    char json[128];
    snprintf(json, sizeof json, "{\"op\":\"show\",\"channel\":\"keyed\",\"cursor\":\"%s\"}", name);
    const char *shown = torture_ask("$sys.cursors", json);
    for (uint64_t end = now_ms() + SETTLE_MS; torture_number(shown, "lag") > 0 || torture_number(shown, "pending") > 0;
         shown = torture_ask("$sys.cursors", json))
        if (now_ms() > end)
            fail_msg("%s does not get to the end: %s", name, sys.reply);
}

static void run_for(uint64_t ms)
{
    for (uint64_t end = now_ms() + ms; now_ms() < end;)
        turn(5);
}

static void test_whatever_was_answered_is_there_after_any_number_of_kills(
    void **state) /* proves DU1 DU2 XO1 XO2 XO3 CV15 GR6 GR16 */
{
    (void)state;
    const char *rounds_text = getenv("LIM_TORTURE_ROUNDS"), *seed_text = getenv("LIM_TORTURE_SEED");
    uint32_t rounds = rounds_text != NULL ? (uint32_t)strtoul(rounds_text, NULL, 10) : ROUNDS;
    t.rng = lim__rng_seeded(seed_text != NULL ? strtoull(seed_text, NULL, 10) : 1);
    start("127.0.0.1:0");
    open_clients();
    for (size_t i = 0; i < AUDITS; i++)
        audits[i].next = 1;
    for (uint32_t round = 0; round < rounds; round++) {
        t.load = true;
        run_for(ROUND_MIN_MS + lim__rng_below(&t.rng, ROUND_MAX_MS - ROUND_MIN_MS));
        kill_server();
        t.load = false;
        torture_until(none_up, "told that the server is gone");
        torture_talks_killed();
        torture_admin_killed();
        start(t.address);
        torture_until(all_up, "connected again");
        torture_talks_look();
        audit_all();
        torture_admin_look();
        torture_until(torture_talks_sound, "every conversation found again");
    }
    torture_until(loads_settled, "everything stored and done");
    torture_until(all_delivered, "everything delivered to both cursors");
    await_cursor("acks");
    await_cursor("steps");
    torture_admin_stop();
    torture_until(torture_admin_done, "every fire arrived");
    audit_all();
    for (uint32_t n = 0; n < t.keyed.next; n++) { /* XO3 */
        assert_int_equal(t.keyed.items[n].attempts, 1);
        assert_true(t.keyed.items[n].out);
    }
    print_message("%u kills: %u keyed, %u plain (%u answered), %u tasks (%u given again)\n", t.kills, t.keyed.next,
                  t.plain.next, t.plain.done, t.tasks.next, t.tasks.again);
    torture_talks_tell();
    torture_admin_tell();
    for (int i = 0; i < CLIENTS; i++)
        lim_client_close(t.clients[i]);
    kill_server();
}

static int in_a_directory_of_its_own(void **state)
{
    static char dir[] = "/tmp/liminal-torture-XXXXXX";
    (void)state;
    t.program = getenv("LIMINALD");
    if (t.program == NULL || mkdtemp(dir) == NULL || chdir(dir) != 0)
        return -1;
    t.dir = "data";
    t.keyed.name = "keyed";
    t.plain.name = "plain";
    t.tasks.name = "tasks";
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    if (t.pid > 0)
        kill(t.pid, SIGKILL);
    char dir[256];
    if (getenv("LIM_TORTURE_KEEP") != NULL || getcwd(dir, sizeof dir) == NULL)
        return 0;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whatever_was_answered_is_there_after_any_number_of_kills),
    };
    return cmocka_run_group_tests(tests, in_a_directory_of_its_own, clean_up);
}
