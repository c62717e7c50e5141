/* SPDX-License-Identifier: Apache-2.0
 * torture_admin.c - the deployments and the schedules of the torture.
 *
 * One client loads functions, deploys them in front of the group "talks" and rolls back, one operation at a time. After
 * a kill the version that was answered last is live (or that of the one operation nobody heard the end of), and the
 * history has every operation that was answered, once.
 *
 * Schedules of a second each, and whoever calls `fire`, put messages into the durable channel "ticks" and tasks into
 * the durable queue "ticked". Every fire is numbered by its schedule: the channel has every number, once, in order;
 * every number is one task, however often that is given to its worker. */
#include "torture.h"

enum { SCHEDULES = 4, FIRES_MAX = 65536, TEXT = 1 << 18, ENTRIES = 24 };

typedef struct schedule {
    char name[8];
    uint64_t fired;            /* answered: so many fires at least */
    uint64_t ticks;            /* in the channel */
    uint64_t fires;            /* in the end */
    uint64_t tasks[FIRES_MAX]; /* of a queue: which task a number was */
} schedule;

static struct {
    lim_client *admin;
    lim_participant worker;
    /* deployments */
    enum { IDLE = 0, LOADING, DEPLOYING } stage;
    uint32_t number, answered[ENTRIES], answered_count;
    char live[80], text[TEXT], hash[80];
    bool doubt, deployed;
    uint32_t deployments, rollbacks, unknown;
    /* schedules: the first half of them to the channel */
    schedule schedules[SCHEDULES];
    bool firing;
    uint32_t turn, given_again, by_hand;
} t;

static bool to_queue(const schedule *s)
{
    return s - t.schedules >= SCHEDULES / 2;
}

/* The text behind the first "key":" in it, up to the next quote. */
static bool text_of(const char *json, const char *key, char *out, size_t size)
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\":\"", key);
    const char *at = strstr(json, quoted);
    size_t len = at == NULL ? 0 : strcspn(at + strlen(quoted), "\"");
    if (at == NULL || len >= size)
        return false;
    memcpy(out, at + strlen(quoted), len);
    out[len] = '\0';
    return true;
}

static bool ask(const char *group, const char *json, lim_on_outcome *on_outcome, void *ctx)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 30000, .wait = true };
    return lim_client_ask_async(t.admin, group, (lim_bytes){ json, strlen(json) }, &opts, on_outcome, ctx, NULL) ==
           LIM_OK;
}

/* False: nobody knows. */
static bool taken(const lim_outcome *o, const char *what)
{
    if (o->how == LIM_HOW_LOST || o->how == LIM_HOW_CLOSED)
        return false;
    snprintf(t.text, sizeof t.text, "%.*s", (int)o->payload.len,
             o->payload.len > 0 ? (const char *)o->payload.ptr : "");
    if (o->how != LIM_HOW_REPLY || strstr(t.text, "\"error\"") != NULL)
        fail_msg("%s: %s %s", what, lim_how_text(o->how), t.text);
    return true;
}

/* ---- deployments ---- */

static void on_deployed(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    t.stage = IDLE;
    t.doubt = !taken(o, "deploying");
    t.unknown += t.doubt;
    if (t.doubt)
        return;
    assert_true(text_of(t.text, "version", t.live, sizeof t.live));
    t.deployed = true;
    t.answered[t.answered_count++ % ENTRIES] = t.number;
}

static void deploy(void)
{
    char json[200];
    bool back = t.number % 4 == 3 && t.answered_count > 2;
    if (back)
        snprintf(json, sizeof json, "{\"op\":\"rollback\",\"group\":\"talks\",\"by\":\"d%u.\"}", ++t.number);
    else
        snprintf(json, sizeof json, "{\"op\":\"deploy\",\"group\":\"talks\",\"hash\":\"%s\",\"by\":\"d%u.\"}", t.hash,
                 ++t.number);
    t.rollbacks += back;
    t.deployments += !back;
    t.stage = ask("$sys.routes", json, on_deployed, NULL) ? DEPLOYING : IDLE;
}

static void on_loaded(void *ctx, const lim_outcome *o)
{
    (void)ctx;
    t.stage = IDLE;
    if (!taken(o, "loading"))
        return;
    assert_true(text_of(t.text, "hash", t.hash, sizeof t.hash));
    deploy();
}

static void load(void)
{
    char json[200];
    snprintf(json, sizeof json,
             "{\"op\":\"load\",\"name\":\"f.lua\",\"code\":\"return function(m, c) return c[1] end -- %u\"}",
             t.number + 1);
    t.stage = ask("$sys.artifacts", json, on_loaded, NULL) ? LOADING : IDLE;
}

static bool in_history(const char *history, uint32_t number)
{
    char by[32];
    snprintf(by, sizeof by, "\"by\":\"d%u.\"", number);
    const char *at = strstr(history, by);
    if (at != NULL && strstr(at + 1, by) != NULL)
        fail_msg("operation %u is twice in the history: %s", number, history);
    return at != NULL;
}

/* The version that is live, and whether the operation in doubt has happened. */
static void look_at_slot(void)
{
    char live[80];
    const char *shown = torture_ask("$sys.routes", "{\"op\":\"show\",\"group\":\"talks\"}");
    assert_true(text_of(shown, "live", live, sizeof live));
    if (strcmp(live, t.live) != 0 && !t.doubt)
        fail_msg("%s was answered, and %s is live", t.live, live);
    bool changed = strcmp(live, t.live) != 0;
    snprintf(t.live, sizeof t.live, "%s", live);
    uint64_t entries =
        torture_number(torture_ask("$sys.routes", "{\"op\":\"history\",\"group\":\"talks\"}"), "entries");
    char json[100];
    snprintf(json, sizeof json, "{\"op\":\"history\",\"group\":\"talks\",\"after\":%llu}",
             (unsigned long long)(entries > ENTRIES ? entries - ENTRIES : 0));
    const char *history = torture_ask("$sys.routes", json);
    uint32_t most = t.answered_count < 8 ? t.answered_count : 8;
    for (uint32_t i = 1; i <= most; i++)
        if (!in_history(history, t.answered[(t.answered_count - i) % ENTRIES]))
            fail_msg("operation %u was answered, and is not in the history: %s",
                     t.answered[(t.answered_count - i) % ENTRIES], history);
    if (t.doubt && in_history(history, t.number) != changed)
        fail_msg("operation %u: the live version is %s, and the history %s", t.number, live, history);
    t.doubt = false;
}

/* ---- schedules ---- */

static schedule *schedule_of(const char *json, uint64_t *number)
{
    char name[8];
    if (!text_of(json, "schedule", name, sizeof name))
        fail_msg("no fire: %s", json);
    *number = torture_number(json, "fire");
    for (uint32_t i = 0; i < SCHEDULES; i++)
        if (strcmp(t.schedules[i].name, name) == 0)
            return &t.schedules[i];
    fail_msg("no schedule has that name: %s", json);
    return NULL;
}

void torture_admin_tick(lim_bytes payload)
{
    char json[200];
    uint64_t number;
    snprintf(json, sizeof json, "%.*s", (int)payload.len, (const char *)payload.ptr);
    schedule *s = schedule_of(json, &number);
    if (number != s->ticks + 1)
        fail_msg("fire %llu of %s follows %llu", (unsigned long long)number, s->name, (unsigned long long)s->ticks);
    s->ticks = number;
}

static lim_done on_task(lim_client *c, const lim_delivery *d, void *ctx)
{
    char json[200];
    uint64_t number;
    (void)ctx;
    snprintf(json, sizeof json, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    schedule *s = schedule_of(json, &number);
    assert_true(number > 0 && number < FIRES_MAX);
    if (s->tasks[number] != 0 && s->tasks[number] != d->conv.id)
        fail_msg("fire %llu of %s is two tasks", (unsigned long long)number, s->name);
    t.given_again += s->tasks[number] != 0;
    s->tasks[number] = d->conv.id;
    return lim_client_reply(c, d, (lim_bytes){ "ok", 2 }) == LIM_OK ? LIM_DONE : LIM_HOLD;
}

static void on_fired(void *ctx, const lim_outcome *o)
{
    schedule *s = ctx;
    t.firing = false;
    if (!taken(o, "firing"))
        return;
    s->fired++;
    t.by_hand++;
}

static void fire(void)
{
    char json[64];
    schedule *s = &t.schedules[t.turn++ % SCHEDULES];
    snprintf(json, sizeof json, "{\"op\":\"fire\",\"name\":\"%s\"}", s->name);
    t.firing = ask("$sys.schedules", json, on_fired, s);
}

static void add(schedule *s)
{
    char json[300];
    snprintf(s->name, sizeof s->name, "s%u", (unsigned)(s - t.schedules));
    snprintf(json, sizeof json,
             "{\"op\":\"add\",\"name\":\"%s\",\"%s\":\"%s\",\"every_ms\":1000,\"catch_up\":\"all\","
             "\"catch_up_max\":1000}",
             s->name, to_queue(s) ? "queue" : "channel", to_queue(s) ? "ticked" : "ticks");
    torture_ask("$sys.schedules", json);
}

/* ---- for torture_test.c ---- */

void torture_admin_open(lim_client *admin, lim_client *worker)
{
    lim_client_serve_opts serve = {
        .size = sizeof serve, .identity = "ticks", .capacity = 16, .handler.on_message = on_task
    };
    t.admin = admin;
    torture_ask("$sys.channels", "{\"op\":\"create\",\"name\":\"ticks\",\"durable\":true}");
    torture_ask("$sys.queues",
                "{\"op\":\"configure\",\"queue\":\"ticked\",\"durable\":true,\"reconnect_grace_ms\":500}");
    assert_int_equal(lim_client_work(worker, "ticked", &serve, NULL, &t.worker), LIM_OK);
    for (uint32_t i = 0; i < SCHEDULES; i++)
        add(&t.schedules[i]);
}

void torture_admin_turn(bool under_load)
{
    if (!under_load || !torture_up(t.admin))
        return;
    if (t.stage == IDLE)
        load();
    if (!t.firing)
        fire();
}

void torture_admin_killed(void)
{
    t.firing = false;
}

void torture_admin_look(void)
{
    if (t.deployed)
        look_at_slot();
    t.doubt = false;
}

bool torture_admin_settled(void)
{
    return t.stage == IDLE && !t.firing;
}

void torture_admin_stop(void)
{
    for (uint32_t i = 0; i < SCHEDULES; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"op\":\"pause\",\"name\":\"%s\"}", t.schedules[i].name);
        torture_ask("$sys.schedules", json);
        snprintf(json, sizeof json, "{\"op\":\"show\",\"name\":\"%s\"}", t.schedules[i].name);
        const char *shown = torture_ask("$sys.schedules", json);
        t.schedules[i].fires = torture_number(shown, "fires");
        if (torture_number(shown, "missed") != 0 || t.schedules[i].fires < t.schedules[i].fired)
            fail_msg("%llu fires of it were answered: %s", (unsigned long long)t.schedules[i].fired, shown);
    }
}

bool torture_admin_done(void)
{
    for (uint32_t i = 0; i < SCHEDULES; i++) {
        const schedule *s = &t.schedules[i];
        for (uint64_t n = 1; n <= s->fires && to_queue(s); n++)
            if (s->tasks[n] == 0)
                return false;
        if (!to_queue(s) && s->ticks > s->fires)
            fail_msg("%s has fired %llu times, and there are %llu", s->name, (unsigned long long)s->fires,
                     (unsigned long long)s->ticks);
    }
    return true;
}

void torture_admin_tell(void)
{
    uint64_t fires = 0;
    for (uint32_t i = 0; i < SCHEDULES; i++) {
        fires += t.schedules[i].fires;
        if (!to_queue(&t.schedules[i]))
            assert_int_equal(t.schedules[i].ticks, t.schedules[i].fires);
    }
    print_message("%u deployments, %u rollbacks (%u in doubt); %llu fires (%u by hand, %u tasks given again)\n",
                  t.deployments, t.rollbacks, t.unknown, (unsigned long long)fires, t.by_hand, t.given_again);
}
