/* SPDX-License-Identifier: Apache-2.0
 * reader_chaos_test.c - readers of a log while programs and readers are killed, the power fails and the disk errs at
 * random instants.
 *
 * Each seed is a history of some forty random acts. At all times: a reader without a cursor that began with the first
 * message gets every number once, in order, however replay and live messages meet; a message whose acknowledgement was
 * answered is never delivered with its cursor again; the window holds; what is delivered for the first time ascends. In
 * the end every message of the log was delivered with the cursor.
 *
 * LIM_SEEDS says how many (default 300); LIM_SEED replays one. */
#include "base/rng.h"
#include "bus/reader_world.h"

enum { NUMBERS = 2048, READERS = 3, WINDOW = 5, ACTS = 40 };

typedef struct chaos chaos;
typedef struct part { /* a subscription of the cursor */
    chaos *c;
    lim_sub sub;
    bool open;
    uint64_t held[WINDOW * 64], newest; /* newest: of those that were delivered for the first time */
    uint32_t held_count, ends;
} part;
typedef struct asked { /* an acknowledgement under way */
    chaos *c;
    uint64_t seq;
} asked;

struct chaos {
    durable_world w;
    lim__rng rng;
    uint64_t seed;
    lim_channel channel;
    lim_read_opts read;
    part parts[READERS];
    bool delivered[NUMBERS], confirmed[NUMBERS];
    asked asks[NUMBERS * 8];
    uint32_t ask_count, offered;
    lim_sub all; /* from the first message on, without a cursor */
    uint64_t all_next;
    bool calm;     /* the end: everything is done */
    bool told;     /* of an acknowledgement */
    bool orphaned; /* a reader was killed: what its members had has been delivered again */
};

static void fail_seed(const chaos *c, const char *what, uint64_t seq)
{
    fail_msg("seed %llu: %s: %llu", (unsigned long long)c->seed, what, (unsigned long long)seq);
}

/* ---- who reads ---- */

static lim_done on_all(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    chaos *c = ctx;
    (void)bus;
    if (d->seq != c->all_next)
        fail_seed(c, "not the next one", d->seq);
    c->all_next++;
    return LIM_DONE;
}

static lim_done on_part(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    part *p = ctx;
    chaos *c = p->c;
    lim_bytes times;
    (void)bus;
    assert_true(d->seq > 0 && d->seq < NUMBERS);
    if (c->confirmed[d->seq])
        fail_seed(c, "delivered after its acknowledgement was answered", d->seq);
    bool again = lim_header(d->headers, "$deliveries", &times);
    if (!again && d->seq <= p->newest)
        fail_seed(c, "new, and not in order", d->seq);
    p->newest = again ? p->newest : d->seq;
    c->delivered[d->seq] = true;
    uint64_t dice = lim__rng_below(&c->rng, 10);
    if (c->calm || dice < 3)
        return LIM_DONE;
    if (dice < 4)
        return LIM_FAIL;
    for (uint32_t i = 0; i < p->held_count; i++)
        if (p->held[i] == d->seq)
            return LIM_HOLD; /* its time was over, and it came again */
    p->held[p->held_count++] = d->seq;
    if (p->held_count > WINDOW && c->read.ack_ms == LIM_FOREVER && !c->orphaned) /* else some are not its any more */
        fail_seed(c, "more than the window", d->seq);
    return LIM_HOLD;
}

static void on_part_end(void *ctx)
{
    ((part *)ctx)->ends++;
}

static void open_part(chaos *c, part *p)
{
    uint32_t ends = p->ends;
    *p = (part){ .c = c, .ends = ends }; /* whoever was told of an end before is another one */
    const lim_sub_opts opts = { .size = sizeof opts,
                                .window = WINDOW,
                                .handler = { .on_message = on_part, .on_end = on_part_end, .ctx = p },
                                .read = c->read };
    lim_err err = lim_subscribe(c->w.bus, "orders", &opts, &p->sub);
    p->open = err == LIM_OK;
    if (err != LIM_OK && err != LIM_E_EXISTS && err != LIM_E_GONE)
        fail_seed(c, lim_err_text(err), 0);
}

static void open_all(chaos *c)
{
    const lim_sub_opts opts = { .size = sizeof opts,
                                .window = 7,
                                .handler = { .on_message = on_all, .ctx = c },
                                .read = { .from = LIM_FROM_ALL } };
    c->all_next = 1;
    assert_int_equal(lim_subscribe(c->w.bus, "orders", &opts, &c->all), LIM_OK);
}

/* ---- acts ---- */

static void on_receipt(void *ctx, const lim_receipt *r)
{
    (void)ctx, (void)r;
}

static void publish(chaos *c)
{
    uint64_t n = 1 + lim__rng_below(&c->rng, 12);
    lim_admission a;
    const lim_publish_opts opts = { .size = sizeof opts, .on_receipt = on_receipt };
    for (uint64_t i = 0; i < n && c->offered < NUMBERS - 10; i++)
        c->offered += lim_publish(c->w.bus, c->channel, lim__str("message"), &opts, &a) == LIM_OK;
}

static void on_done(void *ctx, lim_err err, const char *detail)
{
    asked *a = ctx;
    (void)detail;
    a->c->told = true;
    if (err == LIM_OK)
        a->c->confirmed[a->seq] = true;
}

static void settle_one(chaos *c, part *p)
{
    if (!p->open || p->held_count == 0)
        return;
    uint32_t i = (uint32_t)lim__rng_below(&c->rng, p->held_count);
    uint64_t seq = p->held[i], dice = lim__rng_below(&c->rng, 8);
    p->held[i] = p->held[--p->held_count];
    if (dice == 0) {
        (void)!lim_nack(c->w.bus, p->sub, seq, (int64_t)lim__rng_below(&c->rng, 50));
        return;
    }
    asked *a = &c->asks[c->ask_count++ % (NUMBERS * 8)];
    *a = (asked){ c, seq };
    (void)!lim_ack(c->w.bus, p->sub, seq, on_done, a);
}

static void leave(chaos *c, part *p)
{
    if (p->open)
        (void)!lim_unsubscribe(c->w.bus, p->sub);
    p->open = false;
}

static void limits(chaos *c)
{
    lim__readers_limit(c->w.bus->readers, 1 + (uint32_t)lim__rng_below(&c->rng, 4), 0);
    c->w.bus->logs->tail_max = 1 + (uint32_t)lim__rng_below(&c->rng, 6);
}

static void disk(chaos *c, uint32_t permille)
{
    lim__sim_disk d = lim__sim_disk_get(c->w.os);
    d.write_error_permille = d.sync_error_permille = d.read_error_permille = permille;
    lim__sim_disk_set(c->w.os, &d);
}

static void crash(chaos *c)
{
    disk(c, 0);
    if (lim__rng_below(&c->rng, 2) == 0)
        durable_kill(&c->w);
    else
        durable_power_off(&c->w);
    durable_start(&c->w);
    limits(c);
    assert_int_equal(lim_channel_open(c->w.bus, "orders", NULL, &c->channel), LIM_OK);
    open_all(c);
    for (uint32_t i = 0; i < READERS; i++)
        open_part(c, &c->parts[i]);
}

static bool is_told(void *ctx)
{
    return ((chaos *)ctx)->told;
}

/* At the very moment at which an acknowledgement is answered. */
static void crash_when_told(chaos *c, part *p)
{
    c->told = false;
    settle_one(c, p);
    (void)lim__sim_run(c->w.sim, lim__sim_now(c->w.sim) + 50000000, is_told, c);
    crash(c);
}

static void kill_reader(chaos *c)
{
    lim_pid reader;
    if (lim__readers_list(c->w.bus, lim__str("orders"), lim__str("c"), &reader, 1) == 1)
        lim_runtime_exit(c->w.bus->rt, reader, LIM_KILL);
    c->orphaned = true;
}

/* At the very moment at which an acknowledgement is answered, or somewhere before. */
static void kill_when_told(chaos *c, part *p)
{
    c->told = false;
    settle_one(c, p);
    (void)lim__sim_run(c->w.sim, lim__sim_now(c->w.sim) + lim__rng_below(&c->rng, 2000000), is_told, c);
    kill_reader(c);
}

static void act(chaos *c)
{
    part *p = &c->parts[lim__rng_below(&c->rng, READERS)];
    uint64_t dice = lim__rng_below(&c->rng, 100);
    if (dice < 30)
        publish(c);
    else if (dice < 60)
        settle_one(c, p);
    else if (dice < 80)
        durable_settle(&c->w, lim__rng_below(&c->rng, 30000000));
    else if (dice < 84)
        leave(c, p);
    else if (dice < 90 && !p->open)
        open_part(c, p);
    else if (dice < 92)
        crash(c);
    else if (dice < 94)
        crash_when_told(c, p);
    else if (dice < 95)
        kill_reader(c);
    else if (dice < 97)
        kill_when_told(c, p);
    else if (dice < 98)
        disk(c, (uint32_t)lim__rng_below(&c->rng, 2) * 30);
    else
        durable_settle(&c->w, 1 + lim__rng_below(&c->rng, 2000000));
}

/* ---- the end ---- */

static uint64_t last_number(chaos *c)
{
    lim__log *log;
    uint64_t first, last;
    assert_int_equal(lim__log_find(c->w.bus, lim__str("orders"), &log), LIM_OK);
    lim__log_span(log, &first, &last);
    lim__log_unref(log);
    return last;
}

static void check_end(chaos *c)
{
    c->calm = true;
    crash(c); /* a last one: what is to be delivered comes to somebody new */
    durable_settle(&c->w, 60000000000);
    uint64_t last = last_number(c);
    if (c->all_next != last + 1)
        fail_seed(c, "not all of the log was read", c->all_next);
    for (uint64_t seq = 1; seq <= last; seq++)
        if (!c->delivered[seq])
            fail_seed(c, "never delivered with the cursor", seq);
    for (uint32_t i = 0; i < READERS; i++)
        leave(c, &c->parts[i]);
    durable_settle(&c->w, 1000000000);
}

static void one_world(uint64_t seed)
{
    static chaos c;
    c = (chaos){ .seed = seed, .rng = lim__rng_seeded(seed) };
    const lim_channel_opts opts = { .size = sizeof opts, .durable = true };
    durable_open(&c.w, seed);
    limits(&c);
    assert_int_equal(lim_channel_open(c.w.bus, "orders", &opts, &c.channel), LIM_OK);
    durable_settle(&c.w, 100000000);
    c.read = (lim_read_opts){ .from = LIM_FROM_ALL, .cursor = "c" };
    uint64_t wait = lim__rng_below(&c.rng, 3);
    c.read.ack_ms = wait == 0 ? LIM_FOREVER : (int64_t)wait * 300;
    uint64_t mode = lim__rng_below(&c.rng, 3);
    c.read.shared = mode == 1;
    c.read.standby = mode == 2;
    open_all(&c);
    for (uint32_t i = 0; i < READERS; i++)
        open_part(&c, &c.parts[i]);
    for (int i = 0; i < ACTS; i++)
        act(&c);
    check_end(&c);
    durable_close(&c.w);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void test_nothing_is_missed_and_nothing_comes_again_whatever_fails(void **state) /* proves DU2 DU5 DU6 CH16 */
{
    (void)state;
    uint64_t one = number_of("LIM_SEED", 0), seeds = number_of("LIM_SEEDS", 300);
    for (uint64_t seed = one != 0 ? one : 1; seed <= (one != 0 ? one : seeds); seed++)
        one_world(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_missed_and_nothing_comes_again_whatever_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
