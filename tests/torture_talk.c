/* SPDX-License-Identifier: Apache-2.0
 * torture_talk.c - the conversations of the torture: eight durable ones at a time, a few asks and many plain messages
 * each, and durable asks on their own account.
 *
 *      FREE --open--> LIVE --ask, answered, ask, ...--> close: CLOSING --no longer found--> FREE
 *                      |  the server is killed
 *                      v
 *                     LOST --find by its name, attach, read its history--> LIVE
 *
 * Of each: one whose opening was answered is there until it is told to close, under its id; its history has every
 * answer that was told; every message that was accepted reaches who takes part once, in order; of a durable ask that
 * was answered, whoever asks by its id gets that answer. */
#include "torture.h"

enum { TALKS = 8, ASKS_EACH = 6, SAYS_EACH = 40, ASKS = 8, KEPT = 24 };

typedef enum stage { FREE = 0, OPENING, LIVE, ASKING, CLOSING, LOST, FINDING, ATTACHING, READING } stage;

typedef struct talk {
    stage stage;
    uint32_t generation, asked, told;
    bool answered, closing;   /* its opening was answered; it was told to close */
    lim_conv conv;            /* as its opener knows it */
    uint32_t said, last;      /* messages sent; the last one that came */
    uint64_t accepted, given; /* bits of messages */
    char name[32];
} talk;

typedef struct kept { /* a durable ask that was answered */
    uint64_t id;
    uint32_t number;
} kept;

static struct {
    lim_client *owner;
    lim_participant worker;
    talk talks[TALKS];
    kept kept[KEPT];
    uint32_t kept_next, kept_asked, asks, number, looking;
    uint32_t opened, answers, outcomes, attached, asked_again, says;
} t;

/* ---- who answers ---- */

static void on_said(const lim_delivery *d)
{
    char text[48];
    unsigned at, generation, n;
    snprintf(text, sizeof text, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    if (sscanf(text, "say %u %u %u", &at, &generation, &n) != 3 || at >= TALKS)
        fail_msg("nobody said \"%s\"", text);
    talk *k = &t.talks[at];
    if (k->generation != generation)
        return; /* it is over */
    if (n <= k->last)
        fail_msg("%s: message %u came after %u", k->name, n, k->last);
    k->last = n;
    k->given |= UINT64_C(1) << n;
    t.says++;
}

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    char reply[64];
    (void)ctx;
    if (d->event == LIM_EVENT_NONE && !d->wants_reply)
        on_said(d);
    if (d->event != LIM_EVENT_NONE || !d->wants_reply)
        return LIM_DONE;
    snprintf(reply, sizeof reply, "re %.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    return lim_client_reply(c, d, (lim_bytes){ reply, strlen(reply) }) == LIM_OK ? LIM_DONE : LIM_HOLD;
}

static void expect_answer(const lim_outcome *o, const char *request)
{
    char reply[64];
    int len = snprintf(reply, sizeof reply, "re %s", request);
    if (o->payload.len != (size_t)len || memcmp(o->payload.ptr, reply, (size_t)len) != 0)
        fail_msg("%s was answered \"%.*s\"", request, (int)o->payload.len, (const char *)o->payload.ptr);
}

/* ---- conversations ---- */

static void talk_text(const talk *k, uint32_t n, char text[48])
{
    snprintf(text, 48, "%s.%u", k->name, n);
}

static void free_talk(talk *k)
{
    *k = (talk){ .generation = k->generation + 1 };
}

static void on_open(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    talk *k = ctx;
    (void)detail;
    if (k->stage != OPENING)
        return; /* the server was killed first */
    if (err != LIM_OK) {
        k->stage = LOST;
        return;
    }
    k->stage = LIVE;
    k->conv = conv;
    k->answered = true;
    t.opened++;
}

static void open_talk(talk *k)
{
    snprintf(k->name, sizeof k->name, "talk-%u-%u", (unsigned)(k - t.talks), k->generation);
    lim_client_conv_opts opts = {
        .size = sizeof opts, .group = "talks", .timeout_ms = LIM_FOREVER, .name = k->name, .durable = true
    };
    k->stage = OPENING;
    if (lim_client_conv_open_async(t.owner, &opts, on_open, k) != LIM_OK)
        k->stage = FREE;
}

static void on_answer(void *ctx, const lim_outcome *o)
{
    talk *k = ctx;
    char text[48];
    if (k->stage != ASKING)
        return;
    if (o->how == LIM_HOW_LOST || o->how == LIM_HOW_CLOSED) {
        k->stage = LOST;
        return;
    }
    if (o->how != LIM_HOW_REPLY)
        fail_msg("an ask in %s ended %s (%s): %.*s", k->name, lim_how_text(o->how), lim_why_text(o->why),
                 (int)o->detail.len, o->detail.len > 0 ? (const char *)o->detail.ptr : "");
    talk_text(k, k->asked - 1, text);
    expect_answer(o, text);
    k->told++;
    t.answers++;
    k->stage = LIVE;
}

static void ask_in(talk *k)
{
    char text[48];
    talk_text(k, k->asked, text);
    if (lim_client_conv_ask_async(t.owner, k->conv, (lim_participant){ 0 }, (lim_bytes){ text, strlen(text) },
                                  LIM_FOREVER, on_answer, k, NULL) != LIM_OK)
        return;
    k->asked++;
    k->stage = ASKING;
}

typedef struct saying {
    talk *in;
    uint32_t generation, n;
} saying;

static void on_admission(void *ctx, lim_err err, const lim_admission *a)
{
    saying *s = ctx;
    if (err == LIM_OK && a->verdict != LIM_ACCEPT)
        fail_msg("a message in %s was refused: %s", s->in->name, lim_why_text(a->why));
    if (err == LIM_OK && s->in->generation == s->generation)
        s->in->accepted |= UINT64_C(1) << s->n;
    free(s);
}

static void say_in(talk *k)
{
    char text[48];
    saying *s = malloc(sizeof *s);
    assert_non_null(s);
    *s = (saying){ k, k->generation, k->said + 1 };
    snprintf(text, sizeof text, "say %u %u %u", (unsigned)(k - t.talks), k->generation, s->n);
    if (lim_client_conv_send(t.owner, k->conv, (lim_participant){ 0 }, (lim_bytes){ text, strlen(text) }, on_admission,
                             s) == LIM_OK)
        k->said++;
    else
        free(s);
}

static bool all_given(const talk *k)
{
    return (k->accepted & ~k->given) == 0;
}

/* Nobody is told when it is over: until then it is found. */
static void on_closed(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    talk *k = ctx;
    (void)conv, (void)detail;
    if (k->stage != CLOSING)
        return;
    if (err == LIM_E_NOTFOUND)
        free_talk(k);
    else if (err == LIM_OK)
        (void)!lim_client_conv_find_async(t.owner, k->name, on_closed, k);
}

static void close_talk(talk *k)
{
    k->closing = true;
    k->stage = CLOSING;
    if (lim_client_conv_close(t.owner, k->conv) == LIM_OK)
        (void)!lim_client_conv_find_async(t.owner, k->name, on_closed, k);
}

static void turn_talk(talk *k, bool load)
{
    if ((k->stage == LIVE || k->stage == ASKING) && load && k->said < SAYS_EACH)
        say_in(k);
    if (k->stage == FREE && load)
        open_talk(k);
    else if (k->stage == LIVE && load && k->asked < ASKS_EACH)
        ask_in(k);
    else if (k->stage == LIVE && ((k->asked >= ASKS_EACH && all_given(k)) || k->closing))
        close_talk(k);
}

/* ---- asks on their own account ---- */

typedef struct asking {
    uint32_t number;
    bool again; /* by its id */
} asking;

static void keep(uint64_t id, uint32_t number)
{
    t.kept[t.kept_next++ % KEPT] = (kept){ id, number };
    t.outcomes++;
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    asking *a = ctx;
    char text[48];
    t.asks -= !a->again;
    t.kept_asked -= a->again;
    snprintf(text, sizeof text, "ask-%u", a->number);
    if (o->how == LIM_HOW_REPLY) {
        expect_answer(o, text);
        if (!a->again)
            keep(o->conv.id, a->number);
        t.asked_again += a->again;
    } else if (o->how != LIM_HOW_LOST && o->how != LIM_HOW_CLOSED) {
        fail_msg("%s%s ended %s (%s): %.*s", text, a->again ? ", which was answered, asked for by its id," : "",
                 lim_how_text(o->how), lim_why_text(o->why), (int)o->detail.len,
                 o->detail.len > 0 ? (const char *)o->detail.ptr : "");
    }
    free(a);
}

static asking *asking_new(uint32_t number, bool again)
{
    asking *a = malloc(sizeof *a);
    assert_non_null(a);
    *a = (asking){ number, again };
    return a;
}

static void ask_one(void)
{
    char text[48];
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true, .durable = true };
    asking *a = asking_new(t.number++, false);
    snprintf(text, sizeof text, "ask-%u", a->number);
    t.asks++;
    if (lim_client_ask_async(t.owner, "talks", (lim_bytes){ text, strlen(text) }, &opts, on_outcome, a, NULL) == LIM_OK)
        return;
    t.asks--;
    free(a);
}

static void ask_again(const kept *k)
{
    asking *a = asking_new(k->number, true);
    t.kept_asked++;
    assert_int_equal(lim_client_await_async(t.owner, (lim_conv){ k->id }, on_outcome, a, NULL), LIM_OK);
}

/* ---- after a kill ---- */

static uint32_t count(const char *text, const char *part)
{
    uint32_t n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        n++;
    return n;
}

static void found_again(talk *k)
{
    t.looking--;
    k->stage = LIVE;
    t.attached++;
}

static void on_history(void *ctx, const lim_outcome *o)
{
    static char text[1 << 16];
    talk *k = ctx;
    if (k->stage != READING)
        return;
    assert_int_equal(o->how, LIM_HOW_REPLY);
    snprintf(text, sizeof text, "%.*s", (int)o->payload.len, (const char *)o->payload.ptr);
    if (count(text, "\"kind\":\"answered\"") < k->told || count(text, "\"kind\":\"asked\"") > k->asked)
        fail_msg("%s: %u asks, %u answers were told, and its history is %s", k->name, k->asked, k->told, text);
    found_again(k);
}

static void read_history(talk *k, lim_conv id)
{
    char json[80];
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 30000 };
    snprintf(json, sizeof json, "{\"op\":\"history\",\"id\":\"%llx\"}", (unsigned long long)id.id);
    k->stage = READING;
    assert_int_equal(lim_client_ask_async(t.owner, "$sys.conversations", (lim_bytes){ json, strlen(json) }, &opts,
                                          on_history, k, NULL),
                     LIM_OK);
}

static void find(talk *k);

static void on_attach(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    talk *k = ctx;
    if (k->stage != ATTACHING)
        return;
    if (err == LIM_E_EXISTS || (err == LIM_E_GONE && (k->closing || !k->answered))) {
        find(k); /* its owner was not yet seen to be gone; it ended meanwhile */
        return;
    }
    if (err != LIM_OK)
        fail_msg("%s is there and cannot be attached to: %s %s", k->name, lim_err_text(err), detail);
    k->conv = conv;
    read_history(k, conv);
}

static void on_found(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    talk *k = ctx;
    if (k->stage != FINDING)
        return;
    if (err == LIM_E_NOTFOUND) {
        if (k->answered && !k->closing)
            fail_msg("%s was opened, and after a kill it is not there", k->name);
        t.looking--;
        free_talk(k);
        return;
    }
    if (err != LIM_OK)
        fail_msg("%s cannot be looked for: %s %s", k->name, lim_err_text(err), detail);
    lim_client_conv_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .attach = conv };
    k->stage = ATTACHING;
    assert_int_equal(lim_client_conv_open_async(t.owner, &opts, on_attach, k), LIM_OK);
}

static void find(talk *k)
{
    k->stage = FINDING;
    assert_int_equal(lim_client_conv_find_async(t.owner, k->name, on_found, k), LIM_OK);
}

/* ---- for torture_test.c ---- */

void torture_talks_open(lim_client *owner, lim_client *worker)
{
    lim_client_serve_opts serve = {
        .size = sizeof serve, .identity = "answers", .capacity = 64, .handler.on_message = on_request
    };
    t.owner = owner;
    assert_int_equal(lim_client_serve(worker, "talks", &serve, NULL, &t.worker), LIM_OK);
}

void torture_talks_turn(bool load)
{
    if (!torture_up(t.owner))
        return;
    for (uint32_t i = 0; i < TALKS; i++)
        turn_talk(&t.talks[i], load);
    while (load && t.asks < ASKS) {
        uint32_t before = t.asks;
        ask_one();
        if (t.asks == before)
            return;
    }
}

void torture_talks_killed(void)
{
    for (uint32_t i = 0; i < TALKS; i++)
        if (t.talks[i].stage != FREE)
            t.talks[i].stage = LOST;
}

void torture_talks_look(void)
{
    for (uint32_t i = 0; i < TALKS; i++)
        if (t.talks[i].stage == LOST) {
            t.looking++;
            find(&t.talks[i]);
        }
    for (uint32_t i = 0; i < KEPT && i < t.kept_next; i++)
        ask_again(&t.kept[i]);
}

bool torture_talks_sound(void)
{
    return t.looking == 0 && t.kept_asked == 0;
}

bool torture_talks_settled(void)
{
    for (uint32_t i = 0; i < TALKS; i++)
        if ((t.talks[i].stage != FREE && t.talks[i].stage != LIVE) || !all_given(&t.talks[i]))
            return false;
    return t.asks == 0;
}

void torture_talks_tell(void)
{
    print_message(
        "%u conversations, %u answers in them, found %u times again, %u messages; %u durable asks, %u times asked "
        "for\n",
        t.opened, t.answers, t.attached, t.says, t.outcomes, t.asked_again);
}
