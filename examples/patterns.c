/* SPDX-License-Identifier: Apache-2.0
 * patterns.c - what people build on exchanges, each in a few lines: ask, the first of many, a quorum, a stream, a pool
 * of workers, a saga that undoes what it has done. Built and run by the tests; it fails if anything ends otherwise than
 * told.
 *
 * Whatever is asked ends once, in an outcome; so waiting is one semaphore, and never needs a timeout of its own. */
#include <liminal/liminal.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        lim_err e_ = (call);                                                                                           \
        if (e_ != LIM_OK) {                                                                                            \
            fprintf(stderr, #call ": %s\n", lim_err_text(e_));                                                         \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)
#define WANT(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: " #condition "\n", __FILE__, __LINE__);                                    \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

typedef struct answer { /* of something that calls back */
    sem_t over;
    lim_how how;
    lim_why why;
    uint32_t parts, asked, without;
} answer;

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    ((answer *)ctx)->parts++;
    printf("  %.*s: %s %.*s\n", (int)part->participant.len, (const char *)part->participant.ptr,
           lim_how_text(part->how), (int)part->payload.len, (const char *)part->payload.ptr);
    return LIM_DONE;
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    answer *a = ctx;
    a->how = o->how;
    a->why = o->why;
    a->asked = o->attempts;
    a->without = o->losses;
    sem_post(&a->over);
}

static void await(answer *a)
{
    while (sem_wait(&a->over) != 0)
        continue;
}

/* ---- participants ---- */

static lim_done on_price(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    const char *price = ctx; /* NULL: does not know */
    lim_err err = price ? lim_reply(bus, d, (lim_bytes){ price, strlen(price) }) : lim_fail(bus, d, "no idea");
    return err == LIM_OK ? LIM_DONE : LIM_FAIL;
}

/* More parts than are asked for at once: what finds no credit waits for on_credit, here by being kept in `at`. */
typedef struct counting {
    int at, to;
} counting;

static void count_on(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, counting *c)
{
    char text[16];
    while (c->at < c->to) {
        int len = snprintf(text, sizeof text, "%d", c->at + 1);
        lim_err err = lim_part_to(bus, self, conv, lease, (lim_bytes){ text, (size_t)len });
        if (err != LIM_OK)
            return; /* FULL: more later. GONE: nobody waits any more */
        c->at++;
    }
    lim_err err = lim_reply_to(bus, self, conv, lease, BYTES(""));
    (void)err;
}

static void on_credit(lim_bus *bus, lim_participant self, lim_conv conv, uint64_t lease, uint32_t credit, void *ctx)
{
    (void)credit;
    count_on(bus, self, conv, lease, ctx);
}

static lim_done on_count(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    count_on(bus, d->self, d->conv, d->lease, ctx);
    return LIM_HOLD;
}

static lim_done on_task(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

/* ---- the patterns ---- */

static int ask(lim_bus *bus)
{
    lim_outcome o;
    TRY(lim_ask(bus, "prices", BYTES("{\"sku\":7}"), OPTS(lim_ask_opts, .timeout_ms = 5000), &o));
    printf("ask: %s\n", lim_how_text(o.how));
    WANT(o.how == LIM_HOW_REPLY || o.how == LIM_HOW_FAILED);
    lim_outcome_fini(&o);
    return 0;
}

static int ask_many(lim_bus *bus, uint32_t quorum, lim_how how, lim_why why)
{
    answer a = { .how = LIM_HOW_NONE };
    sem_init(&a.over, 0, 0);
    printf("everybody, %u are enough\n", (unsigned)quorum);
    TRY(lim_ask_all(bus, "prices", BYTES("{\"sku\":7}"), OPTS(lim_ask_opts, .timeout_ms = 5000, .quorum = quorum),
                    on_part, on_outcome, &a, NULL));
    await(&a);
    printf("  %s: %u of %u replied\n", lim_how_text(a.how), (unsigned)(a.asked - a.without), (unsigned)a.asked);
    WANT(a.how == how && a.why == why && a.asked == 3);
    return 0;
}

static int stream(lim_bus *bus)
{
    answer a = { .how = LIM_HOW_NONE };
    sem_init(&a.over, 0, 0);
    printf("a stream, two parts under way\n");
    TRY(lim_ask_stream(bus, "numbers", BYTES(""), OPTS(lim_ask_opts, .timeout_ms = 5000, .window = 2), on_part,
                       on_outcome, &a, NULL));
    await(&a);
    WANT(a.how == LIM_HOW_REPLY && a.parts == 5);
    return 0;
}

static int pool(lim_bus *bus)
{
    lim_admission admission;
    answer a = { .how = LIM_HOW_NONE };
    sem_init(&a.over, 0, 0);
    for (int i = 0; i < 3; i++)
        TRY(lim_dispatch(bus, "thumbs", BYTES("{\"file\":\"a.jpg\"}"),
                         OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER, .key = i < 2 ? "customer-7" : "customer-8"),
                         on_outcome, &a, &admission, NULL));
    for (int i = 0; i < 3; i++)
        await(&a);
    printf("pool: three tasks, the last one %s\n", lim_how_text(a.how));
    WANT(a.how == LIM_HOW_REPLY);
    return 0;
}

/* Nobody ships, so what was debited is refunded. */
static int saga(lim_bus *bus)
{
    static const char plan[] =
        "{\"op\":\"run\",\"name\":\"order-17\",\"steps\":["
        "{\"name\":\"debit\",\"ask\":\"accounts\",\"payload\":{\"amount\":5},\"compensate\":\"refunds\"},"
        "{\"name\":\"ship\",\"ask\":\"parcels\"}]}";
    lim_outcome o;
    TRY(lim_sys(bus, "$sys.sagas", plan, 20000, &o));
    printf("saga: %.*s\n", (int)o.payload.len, (const char *)o.payload.ptr);
    WANT(o.how == LIM_HOW_REPLY && memmem(o.payload.ptr, o.payload.len, "\"outcome\":\"compensated\"", 23) != NULL);
    lim_outcome_fini(&o);
    return 0;
}

int main(void)
{
    static const char *const prices[] = { "42", "43", NULL };
    static counting numbers = { .to = 5 };
    lim_bus *bus;
    lim_participant p;
    TRY(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1), &bus));
    for (int i = 0; i < 3; i++)
        TRY(lim_serve(bus, "prices",
                      OPTS(lim_serve_opts, .capacity = 8,
                           .handler = { .on_message = on_price, .ctx = (void *)(uintptr_t)prices[i] }),
                      &p));
    TRY(lim_serve(bus, "numbers",
                  OPTS(lim_serve_opts, .capacity = 1,
                       .handler = { .on_message = on_count, .on_credit = on_credit, .ctx = &numbers }),
                  &p));
    TRY(lim_serve(bus, "accounts", OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_task }), &p));
    TRY(lim_work(bus, "refunds", OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_task }), &p));
    for (int i = 0; i < 2; i++)
        TRY(lim_work(bus, "thumbs", OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_task }), &p));
    int failed = ask(bus) || ask_many(bus, 1, LIM_HOW_REPLY, LIM_WHY_NONE) ||
                 ask_many(bus, 2, LIM_HOW_REPLY, LIM_WHY_NONE) || ask_many(bus, 3, LIM_HOW_REFUSED, LIM_WHY_QUORUM) ||
                 stream(bus) || pool(bus) || saga(bus);
    lim_bus_close(bus);
    return failed;
}
