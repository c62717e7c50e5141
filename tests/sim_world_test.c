/* SPDX-License-Identifier: Apache-2.0
 * sim_world_test.c - the whole bus in simulated worlds: a server with three schedulers, clients over a network that
 * delays, splits, stalls and cuts, programs that are killed at any instant. One thread, one seed, one history.
 *
 *      server (bus, 3 schedulers) <--simulated TCP--> 4 askers, 3 servers, 4 workers, 2 triers, 2 dispatchers, pub and
 * sub the script, every few milliseconds: kill a program (and start it anew), reset or cut a connection, freeze one,
 *                                          cancel, leave and serve anew, deploy a router (one may loop or crash)
 *
 * Askers ask for one answer, for one in parts (and are slow to grant more of them), or everybody (and want so many
 * replies). Tasks go to the queue `jobs`, where each is tried once and some want progress, or to `tries`, where an
 * attempt that is slow counts as failed and three are allowed; they are signalled while they wait and run. They have
 * priorities, order keys, unique and idempotency keys, delays, fairness keys; queues are paused, limited and purged.
 *
 * The auditor's rules, checked on every history:
 *   A1  an ask of an asker that lives on ends exactly once (CV3).
 *   A2  a task that was admitted has exactly one accepted result, unless it ended without one (crashed, timed out);
 *       and a dispatcher that lives on hears exactly one outcome for it.
 *   A3  nothing waits for ever: when the storm is over, everything ends.
 *   A4  nobody is handed more than its capacity over one connection (GR2).
 *   A5  one publisher's messages arrive in its order, without duplicates (CH4).
 *   A6  when everybody has gone, the census of the bus is what it was.
 *   A7  the same seed gives the same history.
 *   A8  parts come in order, each once, before the outcome and never after it (CV13); who sends a part of an answer is
 *       never told that it broke the protocol (PR3).
 *   A9  of everybody that was asked: a reply means that enough replied, why quorum that not enough did, and who did not
 *       reply is counted (CV12).
 *   A10 a task is tried no more often than its queue says (GR9).
 *   A11 one dispatcher's tasks with one order key are done in the order of their dispatch (GR11).
 *   A12 one idempotency key is executed to the end at most once, whoever dispatches it (GR13).
 *   A13 an admitted task ends in exactly one way: a result, a dead letter, or a decision (cancelled, purged, replaced).
 *
 * LIM_SEEDS worlds from LIM_SEED on; with LIM_SEED the history is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/letters.h"
#include "server/server.h"
#include "sim/sim_os.h"

enum { SCHEDULERS = 3, PORT = 4777, ASKERS = 4, SERVERS = 3, WORKERS = 4, TRIERS = 2, DISPATCHERS = 2 };
enum { CLIENTS = ASKERS + SERVERS + WORKERS + TRIERS + DISPATCHERS + 2, ASKS = 24, TASKS = 24, MESSAGES = 200 };
enum { TRIES = 3, STREAMS = 8, PARTS_MAX = 8 };
#define SECOND 1000000000ull

typedef enum role { ASKER = 1, SERVER, WORKER, TRIER, DISPATCHER, PUBLISHER, SUBSCRIBER } role;

typedef struct world world;
typedef struct ask { /* an ask, or a task as its dispatcher sees it */
    struct program *by;
    uint32_t life; /* of the program that asked */
    uint32_t ends, verdicts;
    bool admitted, finished;
    uint64_t id;
    lim_how how;
    lim_why why;
    uint64_t call; /* of an answer in parts, or of everybody: */
    uint32_t parts, replies, held, quorum;
    bool all;
    const char *queue, *order_key; /* of a task; order_key NULL: none */
    uint32_t idempotent;           /* which idempotency key; 0: none */
    bool joins;                    /* it may be answered with another one's task */
} ask;

typedef struct hold {   /* a request in a participant's hands */
    bool used, counted; /* counted: handed over on this connection */
    lim_participant self;
    lim_conv conv;
    uint64_t lease, until_ns;
    uint32_t parts; /* of the answer, still to be sent */
} hold;

typedef struct program {
    world *w;
    role role;
    char name[16];
    uint32_t life; /* how often it was started */
    lim__os *os;
    lim_client *client;
    lim__sim_task *task;
    lim_participant who; /* servers and workers */
    uint32_t asked, published, in_hand, capacity;
    hold holds[8];
    ask *streams[STREAMS]; /* some that it still grants parts for */
    uint64_t next_ns;
    uint32_t last_number[64]; /* of each life of the publisher: each is a publisher of its own */
    char group[8];
} program;

typedef struct settled {
    uint64_t task;
    uint32_t accepted;
} settled;

struct world {
    lim__sim *sim;
    lim__os *os;
    lim_bus *bus;
    lim__server *server;
    program programs[CLIENTS];
    ask asks[CLIENTS * (ASKS + TASKS) * 4];
    uint32_t ask_count, settled_count;
    settled settled[4096];
    uint64_t told[8192]; /* conversations whose outcome has left, open addressing */
    bool storm;          /* the script still does harm */
    lim_pid clerk;       /* asks queues, and keeps what they said */
    char *said;
    const char *broken;
};

static uint64_t pick(world *w, uint64_t below)
{
    return lim__rng_below(lim__sim_rng(w->sim), below);
}

static void rule(world *w, bool holds, const char *what)
{
    if (!holds && w->broken == NULL) {
        w->broken = what;
        lim__sim_note(w->sim, "BROKEN %s", what);
    }
}

/* ---- what programs do ---- */

/* How the ask of everybody ended, against what was heard of each. */
static void judge_all(const ask *a, const lim_outcome *o)
{
    world *w = a->by->w;
    bool told = o->how == LIM_HOW_REPLY || (o->how == LIM_HOW_REFUSED && o->why == LIM_WHY_QUORUM);
    if (!told || o->attempts == 0)
        return;
    uint32_t enough = a->quorum != 0 ? a->quorum : o->attempts;
    rule(w, (a->replies >= enough) == (o->how == LIM_HOW_REPLY), "A9: the quorum was counted wrong");
    rule(w, a->parts <= o->attempts, "A9: more answered than were asked");
    rule(w, a->replies + o->losses == o->attempts, "A9: somebody was not counted");
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    ask *a = ctx;
    world *w = a->by->w;
    a->ends++;
    a->finished = true;
    a->how = o->how;
    a->why = o->why;
    lim__sim_note(w->sim, "%s outcome %s %s losses %u", a->by->name, lim_how_text(o->how), lim_why_text(o->why),
                  o->losses);
    rule(w, a->ends == 1, "A1: an exchange ended twice");
    rule(w, a->all || o->attempts <= TRIES, "A10: a task was tried too often");
    if (a->all)
        judge_all(a, o);
}

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    ask *a = ctx;
    world *w = a->by->w;
    a->parts++;
    a->replies += part->how == LIM_HOW_REPLY;
    rule(w, a->ends == 0, "A8: a part after the outcome");
    rule(w, part->seq == a->parts, "A8: parts out of order, or twice");
    if (a->all || pick(w, 3) != 0)
        return LIM_DONE;
    a->held++;
    return LIM_HOLD;
}

static void on_dispatched(void *ctx, lim_err err, const lim_admission *admission, lim_conv task)
{
    ask *a = ctx;
    a->verdicts++;
    rule(a->by->w, a->verdicts == 1, "A2: a dispatch was answered twice");
    a->admitted = err == LIM_OK && admission->verdict != LIM_REJECT;
    a->id = task.id;
    if (!a->admitted)
        a->finished = true;
}

static ask *ask_new(program *p)
{
    world *w = p->w;
    assert_true(w->ask_count < sizeof w->asks / sizeof w->asks[0]);
    ask *a = &w->asks[w->ask_count++];
    *a = (ask){ .by = p, .life = p->life };
    return a;
}

static lim_err ask_how(program *p, ask *a, lim_ask_opts *opts)
{
    world *w = p->w;
    lim_bytes ping = { "ping", 4 };
    opts->window = 1 + (uint32_t)pick(w, 4);
    opts->quorum = a->quorum = (uint32_t)pick(w, SERVERS + 1);
    switch (pick(w, 4)) {
    case 0:
        p->streams[pick(w, STREAMS)] = a; /* another one there is granted nothing any more, and times out */
        return lim_client_ask_stream(p->client, "echo", ping, opts, on_part, on_outcome, a, &a->call);
    case 1:
        a->all = true;
        return lim_client_ask_all(p->client, "echo", ping, opts, on_part, on_outcome, a, &a->call);
    default:
        return lim_client_ask_async(p->client, "echo", ping, opts, on_outcome, a, &a->call);
    }
}

static void ask_something(program *p)
{
    world *w = p->w;
    ask *a = ask_new(p);
    lim_ask_opts opts = { .size = sizeof opts,
                          .timeout_ms = 50 + (int64_t)pick(w, 3000),
                          .on_crash = pick(w, 2) ? LIM_CRASH_NEXT : LIM_CRASH_FAIL,
                          .wait = pick(w, 2) };
    if (ask_how(p, a, &opts) != LIM_OK)
        a->finished = true;
    else if (pick(w, 12) == 0)
        (void)!lim_client_cancel(p->client, a->call);
}

static void grant_something(program *p)
{
    for (size_t i = 0; i < STREAMS; i++) {
        ask *a = p->streams[i];
        if (a == NULL || a->finished || a->held == 0 || pick(p->w, 3) == 0)
            continue;
        (void)!lim_client_grant(p->client, a->call, a->held);
        a->held = 0;
    }
}

static void dispatch_something(program *p)
{
    world *w = p->w;
    ask *a = ask_new(p);
    lim_dispatch_opts opts = { .size = sizeof opts,
                               .timeout_ms = pick(w, 6) == 0 ? 2000 : LIM_FOREVER,
                               .progress_ms = pick(w, 4) == 0 ? 400 : 0,
                               .losses_max = 16,
                               .priority = (uint32_t)pick(w, 11) };
    a->queue = pick(w, 4) == 0 ? "tries" : "jobs";
    char key[32];
    switch (pick(w, 6)) {
    case 0:
    case 1:
        a->order_key = opts.order_key = pick(w, 2) ? "here" : "there";
        break;
    case 2:
        a->idempotent = 1 + (uint32_t)pick(w, 5); /* anybody's */
        snprintf(key, sizeof key, "%s-%u", a->queue, a->idempotent);
        opts.idempotency_key = key;
        a->joins = true;
        break;
    case 3:
        opts.unique_key = pick(w, 2) ? "one" : "another";
        opts.on_duplicate = (lim_unique)(LIM_UNIQUE_REJECT + pick(w, 3));
        a->joins = opts.on_duplicate != LIM_UNIQUE_REJECT;
        break;
    default:
        opts.delay_ms = pick(w, 4) == 0 ? (int64_t)pick(w, 1000) : 0;
        opts.key = pick(w, 2) ? "a" : "b";
        break;
    }
    if (lim_client_dispatch_async(p->client, a->queue, (lim_bytes){ "work", 4 }, &opts, on_dispatched, on_outcome, a) !=
        LIM_OK)
        a->finished = true;
}

static void signal_something(program *p)
{
    world *w = p->w;
    const ask *a = w->ask_count > 0 ? &w->asks[pick(w, w->ask_count)] : NULL;
    if (a != NULL && a->id != 0)
        (void)!lim_client_signal_async(p->client, (lim_conv){ a->id }, "hurry", (lim_bytes){ "!", 1 }, NULL, NULL);
}

static void publish_something(program *p)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%u %u", p->life, p->published++);
    (void)!lim_client_publish_async(p->client, "news", (lim_bytes){ text, (size_t)n }, NULL, NULL, NULL);
}

static void tell_progress(program *p)
{
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++) {
        const hold *h = &p->holds[i];
        if (h->used && pick(p->w, 4) != 0)
            (void)!lim_client_progress(p->client, h->self, h->conv, h->lease, "at it");
    }
}

static void act(program *p)
{
    if (p->role == ASKER)
        grant_something(p);
    if (p->role == WORKER || p->role == TRIER)
        tell_progress(p);
    if (p->role == ASKER && p->asked++ < ASKS)
        ask_something(p);
    else if (p->role == DISPATCHER && p->asked++ < TASKS)
        pick(p->w, 4) == 0 ? signal_something(p) : dispatch_something(p);
    else if (p->role == PUBLISHER && p->published < MESSAGES)
        publish_something(p);
}

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    program *p = ctx;
    world *w = p->w;
    if (d->event != LIM_EVENT_NONE) {
        rule(w, d->event == LIM_EVENT_SIGNAL, "an event that is none");
        return LIM_DONE;
    }
    p->in_hand++;
    rule(w, p->in_hand <= p->capacity, "A4: more in hand than the capacity");
    uint64_t chance = pick(w, 10);
    if (chance == 0 && p->role == SERVER) {
        p->in_hand--;
        return LIM_DONE; /* silence */
    }
    uint32_t parts = d->credit > 0 ? (uint32_t)pick(w, PARTS_MAX) : 0;
    for (size_t i = 0; (chance > 4 || parts > 0) && i < sizeof p->holds / sizeof p->holds[0]; i++)
        if (!p->holds[i].used) {
            uint64_t until = lim__sim_now(w->sim) + pick(w, parts > 0 ? SECOND / 20 : SECOND);
            p->holds[i] = (hold){ true, true, d->self, d->conv, d->lease, until, parts };
            return LIM_HOLD;
        }
    p->in_hand--;
    if (chance == 1 && p->role != TRIER)
        (void)!lim_client_fail(c, d, "did not feel like it");
    else
        (void)!lim_client_reply(c, d, d->payload);
    return LIM_DONE;
}

/* True: there is more to send, later. */
static bool send_part(program *p, hold *h, uint64_t now)
{
    lim_err err = h->parts == 0 ? LIM_E_GONE
                                : lim_client_part_to(p->client, h->self, h->conv, h->lease, (lim_bytes){ "part", 4 });
    if (err == LIM_OK)
        h->parts--;
    h->until_ns = now + (err == LIM_E_FULL ? SECOND / 4 : pick(p->w, SECOND / 50)); /* or on_credit says when */
    return err == LIM_OK || err == LIM_E_FULL;
}

static void on_credit(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit)
{
    program *p = ctx;
    (void)credit;
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        if (p->holds[i].used && p->holds[i].conv.id == conv.id && p->holds[i].lease == lease)
            p->holds[i].until_ns = 0;
}

static void finish_holds(program *p, uint64_t now)
{
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        if (p->holds[i].used && p->holds[i].until_ns <= now && !send_part(p, &p->holds[i], now)) {
            hold h = p->holds[i];
            p->holds[i].used = false;
            if (h.counted)
                p->in_hand--;
            (void)!lim_client_reply_to(p->client, h.self, h.conv, h.lease, (lim_bytes){ "done", 4 });
        }
}

static lim_done on_news(lim_client *c, const lim_delivery *d, void *ctx)
{
    program *p = ctx;
    char text[32];
    unsigned life, number;
    (void)c;
    snprintf(text, sizeof text, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    if (sscanf(text, "%u %u", &life, &number) == 2) {
        uint32_t *last = &p->last_number[life % 64];
        rule(p->w, number + 1 > *last, "A5: one publisher's messages out of order, or twice");
        *last = number + 1;
    }
    return LIM_DONE;
}

static void on_gone(void *ctx, lim_err why, const char *detail)
{
    (void)ctx, (void)why, (void)detail;
}

/* What was in hand when a connection broke is the bus's business no longer, or again only if it comes back to it. */
static void on_state(void *ctx, lim_link_state state, const char *detail)
{
    program *p = ctx;
    if (state != LIM_LINK_DOWN)
        return;
    bool broke_a_rule = strstr(detail, "PART on") || strstr(detail, "GRANT of") || strstr(detail, "malformed");
    rule(p->w, !broke_a_rule, "A8: somebody broke the protocol");
    p->in_hand = 0;
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        p->holds[i].counted = false;
}

static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    program *p = ctx;
    (void)why;
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        if (p->holds[i].used && p->holds[i].counted && p->holds[i].conv.id == conv.id && p->holds[i].lease == lease) {
            p->holds[i].counted = false;
            p->in_hand--;
        }
}

static void on_ready(void *ctx, const char *identity)
{
    program *p = ctx;
    lim__sim_note(p->w->sim, "%s registered as %s", p->name, identity);
}

static void introduce(program *p)
{
    lim_client_handler handler = { .on_message = on_request, .on_end = on_gone, .ctx = p };
    lim_client_serve_opts serve = { .size = sizeof serve,
                                    .identity = p->name,
                                    .capacity = p->capacity,
                                    .handler = handler,
                                    .on_ready = on_ready,
                                    .on_revoked = on_revoked,
                                    .on_credit = on_credit };
    lim_client_sub_opts sub = { .size = sizeof sub, .window = 16, .backlog = 4096, .policy = LIM_DROP_OLDEST };
    lim_sub s;
    sub.handler = (lim_client_handler){ .on_message = on_news, .on_end = on_gone, .ctx = p };
    lim_err err = LIM_OK;
    if (p->role == SERVER)
        err = lim_client_serve(p->client, "echo", &serve, NULL, &p->who);
    else if (p->role == WORKER || p->role == TRIER)
        err = lim_client_work(p->client, p->role == WORKER ? "jobs" : "tries", &serve, NULL, &p->who);
    else if (p->role == SUBSCRIBER)
        err = lim_client_subscribe(p->client, "news", &sub, NULL, &s);
    assert_int_equal(err, LIM_OK);
}

/* ---- programs as tasks ---- */

static bool program_turn(void *ctx)
{
    program *p = ctx;
    uint64_t now = lim__sim_now(p->w->sim);
    finish_holds(p, now);
    if (now >= p->next_ns) {
        p->next_ns = now + 1 + pick(p->w, SECOND / 4);
        act(p);
    }
    lim_err err = lim_client_process(p->client);
    return err == LIM_OK && lim_client_timeout_ms(p->client) == 0;
}

static uint64_t program_due(void *ctx)
{
    program *p = ctx;
    uint64_t due = p->next_ns;
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        if (p->holds[i].used && p->holds[i].until_ns < due)
            due = p->holds[i].until_ns;
    return due;
}

static void program_start(program *p)
{
    char server[32];
    snprintf(server, sizeof server, "%s:%d", lim__sim_host_address(p->w->os), PORT);
    p->os = lim__sim_host(p->w->sim, p->name);
    p->life++;
    p->in_hand = 0;
    memset(p->holds, 0, sizeof p->holds);
    memset(p->streams, 0, sizeof p->streams);
    memset(p->last_number, 0, sizeof p->last_number);
    lim_client_opts opts = { .size = sizeof opts,
                             .server = server,
                             .name = p->name,
                             .own_loop = true,
                             .os = p->os,
                             .liveness_ms = 1000,
                             .on_state = on_state,
                             .ctx = p };
    assert_int_equal(lim_client_open(&opts, NULL, &p->client), LIM_OK);
    introduce(p);
    p->next_ns = lim__sim_now(p->w->sim) + pick(p->w, SECOND / 4);
    p->task = lim__sim_task_add(p->w->sim, p->os, p->name, program_turn, program_due, p);
    lim__sim_note(p->w->sim, "%s starts", p->name);
}

/* What its memory knew is gone with it: asks of a dead program end for nobody. */
static void program_end(program *p)
{
    for (uint32_t i = 0; i < p->w->ask_count; i++)
        if (p->w->asks[i].by == p && p->w->asks[i].life == p->life)
            p->w->asks[i].life = 0;
    lim__sim_task_remove(p->w->sim, p->task);
    p->task = NULL;
}

static void program_kill(program *p)
{
    lim__sim_note(p->w->sim, "%s is killed", p->name);
    lim__sim_kill_host(p->w->sim, p->os);
    program_end(p);
    uint32_t count = p->w->ask_count; /* closing ends calls for a program that no longer exists */
    lim_client_close(p->client);
    for (uint32_t i = 0; i < count; i++)
        if (p->w->asks[i].by == p && p->w->asks[i].life == 0)
            p->w->asks[i].finished = true;
}

/* ---- the script ---- */

static void on_storm(lim__sim *sim, void *ctx);

static void heal(lim__sim *sim, void *ctx)
{
    program *p = ctx;
    lim__sim_heal(sim, p->os, p->w->os);
    lim__sim_thaw_host(sim, p->os);
}

/* Says goodbye, and comes again as somebody new; what it had in hand is others' by now. */
static void leave_and_return(world *w, program *p)
{
    if (p->role != SERVER && p->role != WORKER && p->role != TRIER)
        return;
    lim__sim_note(w->sim, "%s leaves", p->name);
    (void)!lim_client_leave(p->client, p->who);
    p->in_hand = 0;
    for (size_t i = 0; i < sizeof p->holds / sizeof p->holds[0]; i++)
        p->holds[i].counted = false;
    introduce(p);
}

static void deploy(world *w, const char *group, lim__engine engine, const char *code, lim_on_fault on_fault)
{
    lim_pid to;
    lim__deploy *d = lim__letter_new(NULL, &lim__type_deploy, sizeof *d);
    *d = (lim__deploy){ .what = code == NULL ? LIM__DEPLOY_REMOVE : LIM__DEPLOY,
                        .opts = { .size = sizeof d->opts, .cpu_us_max = 2000, .on_fault = on_fault } };
    if (code != NULL)
        assert_int_equal(lim__artifact_new(engine, lim__str(code), "storm", 0, &d->artifact), LIM_OK);
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(group), &to), LIM_OK);
    (void)!lim__post_reserved(w->bus->rt, to, d);
    lim__sim_note(w->sim, "deploy to %s: %s", group, code != NULL ? code : "nothing");
}

static void clerk_hears(lim_process *self, const lim_signal *signal, void *state)
{
    world *w = *(world **)state;
    (void)self;
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type != &lim__type_shown)
        return;
    const lim__shown *s = signal->body.ptr;
    free(w->said);
    w->said = strndup(s->json, s->len);
}

static void clerk_open(world *w)
{
    lim_spawn_opts opts = {
        .size = sizeof opts, .on_signal = clerk_hears, .state_bytes = sizeof w, .init = &w, .init_bytes = sizeof w
    };
    assert_int_equal(lim_runtime_spawn(w->bus->rt, &opts, &w->clerk), LIM_OK);
}

static void administer(world *w, const char *queue, const char *json)
{
    lim_pid to;
    size_t len = strlen(json);
    lim__admin *a = lim__letter_new(NULL, &lim__type_admin, sizeof *a + len);
    *a = (lim__admin){ .reply_to = w->clerk, .len = (uint32_t)len };
    memcpy(a->json, json, len);
    assert_int_equal(lim__group_get(w->bus, NULL, lim__str(queue), &to), LIM_OK);
    (void)!lim__post_reserved(w->bus->rt, to, a);
}

static void deploy_something(world *w)
{
    static const char *const code[] = {
        "return function(m, c) return c[1] end",
        "return function(m, c) return c[#c] end",
        "return function(m, c) if c[1].in_flight == 0 then return c[1] end end",
        "return function(m, c) while true do end end",
        "return function(m, c) error('storm') end",
        "return function(m, c) for i = 1, 2000 do local x = i end return c[1] end",
    };
    static const char *const groups[] = { "jobs", "echo", "tries" };
    const char *group = groups[pick(w, 3)];
    if (pick(w, 3) == 0)
        deploy(w, group, LIM__ENGINE_BUILTIN, pick(w, 2) ? "least_loaded" : "round_robin", LIM_ON_FAULT_REJECT);
    else
        deploy(w, group, LIM__ENGINE_LUA, code[pick(w, sizeof code / sizeof code[0])],
               (lim_on_fault)(LIM_ON_FAULT_REJECT + pick(w, 3)));
}

static void administer_something(world *w)
{
    static const char *const orders[] = { "{\"op\":\"queue.pause\"}",
                                          "{\"op\":\"queue.resume\"}",
                                          "{\"op\":\"queue.resume\"}",
                                          "{\"op\":\"queue.limit\",\"key\":\"a\",\"in_flight_max\":1}",
                                          "{\"op\":\"queue.limit\",\"key\":\"b\",\"rate\":5}",
                                          "{\"op\":\"queue.purge\"}" };
    const char *order = orders[pick(w, sizeof orders / sizeof orders[0])], *queue = pick(w, 2) ? "jobs" : "tries";
    lim__sim_note(w->sim, "%s: %s", queue, order);
    administer(w, queue, order);
}

static void harm(world *w, program *p)
{
    switch (pick(w, 8)) {
    case 5:
        administer_something(w);
        break;
    case 6:
        leave_and_return(w, p);
        break;
    case 7:
        deploy_something(w);
        break;
    case 0:
    case 1:
        program_kill(p);
        program_start(p);
        break;
    case 2:
        lim__sim_note(w->sim, "%s reset", p->name);
        lim__sim_reset(w->sim, p->os, w->os);
        break;
    case 3:
        lim__sim_note(w->sim, "%s cut", p->name);
        lim__sim_cut(w->sim, p->os, w->os);
        lim__sim_at(w->sim, lim__sim_now(w->sim) + pick(w, 10 * SECOND), heal, p);
        break;
    case 4:
        lim__sim_note(w->sim, "%s frozen", p->name);
        lim__sim_freeze_host(w->sim, p->os);
        lim__sim_at(w->sim, lim__sim_now(w->sim) + pick(w, 10 * SECOND), heal, p);
        break;
    default:
        break;
    }
}

static void on_storm(lim__sim *sim, void *ctx)
{
    world *w = ctx;
    if (!w->storm)
        return;
    harm(w, &w->programs[pick(w, CLIENTS)]);
    lim__sim_at(sim, lim__sim_now(sim) + 1 + pick(w, SECOND / 2), on_storm, w);
}

/* ---- the server ---- */

typedef struct turner {
    lim__sched *sched;
} turner;
static turner turners[SCHEDULERS];

static bool sched_turn(void *ctx)
{
    return lim__sched_turn(((turner *)ctx)->sched, -1);
}

static uint64_t sched_due(void *ctx)
{
    return lim__sched_next_due_ns(((turner *)ctx)->sched);
}

static void on_settled(void *ctx, uint64_t task, uint64_t lease, bool accepted)
{
    world *w = ctx;
    lim__sim_note(w->sim, "task %llx lease %llx %s", (unsigned long long)task, (unsigned long long)lease,
                  accepted ? "accepted" : "refused");
    if (!accepted)
        return;
    for (uint32_t i = 0; i < w->settled_count; i++)
        if (w->settled[i].task == task) {
            rule(w, ++w->settled[i].accepted == 1, "A2: a task has two accepted results");
            return;
        }
    assert_true(w->settled_count < sizeof w->settled / sizeof w->settled[0]);
    w->settled[w->settled_count++] = (settled){ task, 1 };
}

static void on_told(void *ctx, uint64_t conversation)
{
    world *w = ctx;
    size_t at = (size_t)(conversation * 0x9e3779b97f4a7c15ull >> 51);
    while (w->told[at] != 0 && w->told[at] != conversation)
        at = (at + 1) % (sizeof w->told / sizeof w->told[0]);
    rule(w, w->told[at] == 0, "A1: a conversation told its outcome twice");
    w->told[at] = conversation;
}

static bool all_quiet(void *ctx)
{
    world *w = ctx;
    if (w->broken != NULL)
        return true;
    for (uint32_t i = 0; i < w->ask_count; i++)
        if (w->asks[i].life != 0 && !w->asks[i].finished)
            return false;
    return true;
}

static bool nothing_runs(void *ctx) /* tasks of dispatchers that are dead, too */
{
    world *w = ctx;
    lim_bus_census c;
    lim_bus_census_take(w->bus, &c);
    return w->broken != NULL || c.conversations == 0;
}

static bool nobody_left(void *ctx)
{
    world *w = ctx;
    lim_bus_census c;
    lim_bus_census_take(w->bus, &c);
    return lim__server_sessions(w->server) == 0 && c.conversations == 0 && c.groups == 0 && c.subscriptions == 0;
}

/* ---- what became of the tasks ---- */

static uint32_t settled_at(const world *w,
                           uint64_t task) /* 1, 2, ... in the order in which they were accepted; 0: not */
{
    for (uint32_t i = 0; i < w->settled_count; i++)
        if (w->settled[i].task == task)
            return i + 1;
    return 0;
}

/* Of one dispatcher's tasks with one order key, none was done before one that came earlier. Duplicates of one
 * idempotency key, whoever they are from, were executed to the end once. */
static void judge_two(world *w, const ask *a, const ask *b)
{
    if (!a->admitted || !b->admitted || a->queue != b->queue)
        return;
    uint32_t at_a = settled_at(w, a->id), at_b = settled_at(w, b->id);
    if (at_a == 0 || at_b == 0)
        return;
    if (a->by == b->by && a->life == b->life && a->order_key != NULL && a->order_key == b->order_key)
        rule(w, at_a < at_b, "A11: tasks of one order key were done in another order");
    if (a->idempotent != 0 && a->idempotent == b->idempotent)
        rule(w, at_a == at_b, "A12: one idempotency key was executed twice");
}

/* Each admitted task ended in one of: a result, a dead letter, or somebody's decision. */
static void judge_ends(world *w, const char *queue)
{
    char id[32];
    administer(w, queue, "{\"op\":\"dead.ls\",\"max\":10000}");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + SECOND, NULL, NULL);
    for (uint32_t i = 0; i < w->ask_count; i++) {
        const ask *a = &w->asks[i];
        if (a->life == 0 || !a->admitted || a->queue == NULL || strcmp(a->queue, queue) != 0)
            continue;
        snprintf(id, sizeof id, "\"id\":\"%llx\"", (unsigned long long)a->id);
        bool dead = strstr(w->said, id) != NULL;
        bool decided = a->how == LIM_HOW_CANCELLED || a->why == LIM_WHY_PURGED ||
                       a->why == LIM_WHY_REPLACED; /* also if it had run */
        bool failed = a->how == LIM_HOW_FAILED || a->how == LIM_HOW_CRASHED || a->how == LIM_HOW_TIMEOUT;
        failed = failed && !decided && !(a->joins && a->how == LIM_HOW_TIMEOUT); /* the other one goes on */
        if (dead ? a->how == LIM_HOW_REPLY || decided : failed)
            lim__sim_note(w->sim, "task %s%s of %s ended %s %s, %s", id, a->joins ? " (or another)" : "", queue,
                          lim_how_text(a->how), lim_why_text(a->why), dead ? "dead" : "no dead letter");
        rule(w, !dead || (a->how != LIM_HOW_REPLY && !decided), "A13: a task with an end is a dead letter, too");
        rule(w, dead || !failed, "A13: a task that failed is no dead letter");
        rule(w, a->how != LIM_HOW_REFUSED || decided, "A13: a task was admitted and then refused");
    }
}

static void judge_tasks(world *w)
{
    for (uint32_t i = 0; i < w->ask_count; i++)
        for (uint32_t k = i + 1; w->asks[i].queue != NULL && k < w->ask_count; k++)
            if (w->asks[k].queue != NULL)
                judge_two(w, &w->asks[i], &w->asks[k]);
    judge_ends(w, "jobs");
    judge_ends(w, "tries");
}

static void world_open(world *w, uint64_t seed, FILE *trace)
{
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = SCHEDULERS };
    w->sim = lim__sim_open(seed);
    lim__sim_trace(w->sim, trace);
    w->os = lim__sim_host(w->sim, "server");
    lim__runtime_opts runtime = { .os = w->os, .scheduler_count = SCHEDULERS, .threads = false };
    assert_int_equal(lim__bus_open(&opts, &runtime, &w->bus), LIM_OK);
    w->bus->ear = (lim__ear){ w, on_settled, on_told };
    static const char *const names[SCHEDULERS] = { "sched-0", "sched-1", "sched-2" };
    for (uint32_t i = 0; i < SCHEDULERS; i++) {
        turners[i].sched = lim__sched_at(w->bus->rt, i);
        lim__sim_task_add(w->sim, w->os, names[i], sched_turn, sched_due, &turners[i]);
    }
    lim_diag diag = { 0 };
    lim__server_opts server = { .host = lim__sim_host_address(w->os), .port = PORT, .spread = true };
    assert_int_equal(lim__server_open(w->bus, &server, &diag, &w->server), LIM_OK);
}

static void census_settle(world *w, lim_bus_census *out)
{
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 5 * SECOND, NULL, NULL);
    lim_bus_census_take(w->bus, out);
}

static uint64_t world_run(uint64_t seed, FILE *trace)
{
    static const struct {
        role role;
        int count;
        const char *name;
    } cast[] = { { ASKER, ASKERS, "asker" }, { SERVER, SERVERS, "server" },       { WORKER, WORKERS, "worker" },
                 { TRIER, TRIERS, "trier" }, { DISPATCHER, DISPATCHERS, "boss" }, { PUBLISHER, 1, "pub" },
                 { SUBSCRIBER, 1, "sub" } };
    world *w = calloc(1, sizeof *w);
    lim_bus_census before, after;
    uint32_t n = 0;
    world_open(w, seed, trace);
    clerk_open(w);
    census_settle(w, &before);
    administer(w, "tries",
               "{\"op\":\"queue.configure\",\"attempts_max\":3,\"start_to_close_ms\":300,"
               "\"backoff_min_ms\":10,\"backoff_max_ms\":100}");
    for (size_t r = 0; r < sizeof cast / sizeof cast[0]; r++)
        for (int i = 0; i < cast[r].count; i++, n++) {
            program *p = &w->programs[n];
            *p = (program){ .w = w, .role = cast[r].role, .capacity = 1 + (uint32_t)pick(w, 3) };
            snprintf(p->name, sizeof p->name, "%s-%d", cast[r].name, i);
            program_start(p);
        }
    w->storm = true;
    lim__sim_at(w->sim, lim__sim_now(w->sim) + SECOND, on_storm, w);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 12 * SECOND, NULL, NULL);
    w->storm = false;
    deploy(w, "jobs", LIM__ENGINE_BUILTIN, "least_loaded", LIM_ON_FAULT_REJECT); /* the last one might loop */
    deploy(w, "tries", LIM__ENGINE_BUILTIN, "least_loaded", LIM_ON_FAULT_REJECT);
    administer(w, "jobs", "{\"op\":\"queue.resume\"}");
    administer(w, "tries", "{\"op\":\"queue.resume\"}");
    for (n = 0; n < CLIENTS; n++) {
        heal(w->sim, &w->programs[n]);
        w->programs[n].asked = ASKS; /* nobody starts anything new */
    }
    bool quiet = lim__sim_run(w->sim, lim__sim_now(w->sim) + 120 * SECOND, all_quiet, w);
    rule(w, quiet, "A3: somebody still waits");
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 10 * SECOND, NULL, NULL); /* what is still under way arrives */
    quiet = lim__sim_run(w->sim, lim__sim_now(w->sim) + 120 * SECOND, nothing_runs, w);
    rule(w, quiet, "A3: something still runs");
    for (uint32_t i = 0; i < w->ask_count; i++)
        if (w->asks[i].life != 0 && w->asks[i].admitted && w->asks[i].how == LIM_HOW_REPLY) {
            bool found = false;
            for (uint32_t k = 0; k < w->settled_count; k++)
                found |= w->settled[k].task == w->asks[i].id && w->settled[k].accepted == 1;
            rule(w, found, "A2: a task with a reply has no accepted result");
        }
    judge_tasks(w);
    for (n = 0; n < CLIENTS; n++)
        program_kill(&w->programs[n]);
    lim__sim_run(w->sim, lim__sim_now(w->sim) + 60 * SECOND, NULL, NULL);
    static const char *const queues[] = { "jobs", "tries" };
    for (size_t i = 0; i < 2; i++) { /* dead letters and settings keep a queue */
        administer(w, queues[i], "{\"op\":\"dead.drop\",\"all\":true}");
        deploy(w, queues[i], 0, NULL, 0);
    }
    deploy(w, "echo", 0, NULL, 0);
    bool left = lim__sim_run(w->sim, lim__sim_now(w->sim) + 120 * SECOND, nobody_left, w);
    census_settle(w, &after);
    if (!left)
        lim__sim_note(w->sim, "left: sessions %u conversations %llu groups %llu subscriptions %llu",
                      lim__server_sessions(w->server), (unsigned long long)after.conversations,
                      (unsigned long long)after.groups, (unsigned long long)after.subscriptions);
    rule(w, left, "A6: somebody is left");
    if (w->broken == NULL && left) {
        rule(w, after.runtime.processes == before.runtime.processes, "A6: processes are left");
        rule(w, after.runtime.links == before.runtime.links, "A6: links are left");
        rule(w, after.runtime.monitors == before.runtime.monitors, "A6: monitors are left");
        rule(w, after.runtime.timers == before.runtime.timers, "A6: timers are left");
        rule(w, after.messages_kept == before.messages_kept, "A6: messages are left");
    }
    uint64_t hash = lim__sim_hash(w->sim);
    const char *broken = w->broken;
    lim_bus_close(w->bus);
    lim__server_close(w->server);
    lim__sim_close(w->sim);
    free(w->said);
    free(w);
    if (broken != NULL)
        fail_msg("seed %llu: %s", (unsigned long long)seed, broken);
    return hash;
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

static void
test_every_exchange_ends_once_whatever_dies(void **state) /* proves CV3 CV13 GR2 GR5 GR6 GR9 GR11 GR13 CH4 RT12 RT13 */
{
    (void)state;
    uint64_t first = from_env("LIM_SEED", 1), count = from_env("LIM_SEEDS", 200);
    FILE *trace = getenv("LIM_SEED") != NULL && count == 1 ? stdout : NULL;
    for (uint64_t seed = first; seed < first + count; seed++) {
        uint64_t hash = world_run(seed, trace);
        if (seed % 10 == first % 10 && hash != world_run(seed, NULL)) /* A7 */
            fail_msg("seed %llu: A7: its second run had another history", (unsigned long long)seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_exchange_ends_once_whatever_dies) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
