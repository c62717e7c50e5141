/* SPDX-License-Identifier: Apache-2.0
 * rubbish_test.c - rows that nobody wrote: whatever stands in a table, the bus starts, and what is good is served.
 *
 * Rows have checksums, so this is not rot: it is what a later version, or a fault of this one, may have left. Three
 * kinds: rubbish under a key of the right form; a good row that is cut, grown or has a byte changed; a good row under a
 * key of somebody else. */
#include "bus/log_world.h"

enum { LIVES = 400, ROWS = 12 };

static log_world w;
static uint64_t dice;

static uint32_t below(uint32_t n)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(dice >> 33) % n;
}

typedef struct found { /* a row that is there */
    uint8_t key[300], value[2000];
    size_t key_len, value_len;
    uint32_t count, wanted;
} found;

static bool each_row(void *ctx, lim_bytes key, lim_bytes value)
{
    found *f = ctx;
    if (f->count++ != f->wanted || key.len > sizeof f->key || value.len > sizeof f->value)
        return true;
    memcpy(f->key, key.ptr, f->key_len = key.len);
    memcpy(f->value, value.ptr, f->value_len = value.len);
    return true;
}

static void spoil_row(lim__batch *b)
{
    found f = { .wanted = below(6) };
    uint8_t from = (uint8_t)(LIM__TABLE_CHANNELS + below(LIM__TABLES - LIM__TABLE_CHANNELS)), to = from;
    (void)lim__store_scan(lim__durable_store(w.d.bus), from, lim__str(""), lim__bytes(NULL, 0), each_row, &f);
    if (f.key_len == 0) { /* none: one that looks like it */
        f.key_len = lim__key_u64(f.key, 1 + below(5));
        f.key_len += below(2) ? lim__key_u64(f.key + 8, below(1000)) : below(3);
        f.value_len = below(60);
        for (size_t i = 0; i < f.value_len; i++)
            f.value[i] = (uint8_t)(i == 0 ? 1 : below(256));
    } else if (below(4) == 0) {
        f.key[below((uint32_t)f.key_len)] ^= (uint8_t)(1 + below(255));
    } else if (below(3) == 0) {
        to = (uint8_t)(LIM__TABLE_CHANNELS + below(LIM__TABLES - LIM__TABLE_CHANNELS));
    } else if (f.value_len > 0 && below(2) == 0) {
        f.value_len = below((uint32_t)f.value_len);
    } else if (f.value_len > 0) {
        f.value[below((uint32_t)f.value_len)] ^= (uint8_t)(1 + below(255));
    }
    lim__batch_put(b, to, lim__bytes(f.key, f.key_len), lim__bytes(f.value, f.value_len));
}

static void freed(void *ctx, lim__batch *batch, const lim__committed *what)
{
    *(bool *)ctx = what->how == LIM__COMMITTED;
    lim__batch_free(batch);
}

static bool is_true(void *ctx)
{
    return *(bool *)ctx;
}

static void spoil_some(void)
{
    bool stored = false;
    lim__batch *b = lim__batch_new();
    for (uint32_t i = 1 + below(ROWS); i > 0; i--)
        spoil_row(b);
    assert_int_equal(lim__durable_submit(w.d.bus, b, freed, &stored), LIM_OK);
    durable_until(&w.d, is_true, &stored);
}

static void on_answer(void *ctx, const lim_outcome *o)
{
    (void)o;
    *(bool *)ctx = true;
}

static void ask(const char *group, const char *json)
{
    static bool answered;
    const lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 5000, .wait = true };
    answered = false;
    assert_int_equal(lim_ask_async(w.d.bus, group, lim__str(json), &opts, on_answer, &answered, NULL), LIM_OK);
    durable_until(&w.d, is_true, &answered);
}

/* Something in most tables. */
static void fill(void)
{
    ask("$sys.queues", "{\"op\":\"configure\",\"queue\":\"q\",\"durable\":true}");
    ask("$sys.schedules", "{\"op\":\"add\",\"name\":\"s\",\"queue\":\"q\",\"every_ms\":60000}");
    ask("$sys.schedules", "{\"op\":\"fire\",\"name\":\"s\"}");
    ask("$sys.channels", "{\"op\":\"create\",\"name\":\"more\",\"durable\":true,\"retain_latest\":true}");
    log_world_publish(&w, "one", (lim_publish_opts){ .idempotency_key = "k", .expires_ms = 600000 });
    log_world_publish(&w, "two", (lim_publish_opts){ .delay_ms = 600000, .idempotency_key = "l" });
    durable_settle(&w.d, 100000000);
}

static void test_rows_that_make_no_sense_stop_nobody(void **state) /* proves DU3 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= LIVES; seed++) {
        dice = seed;
        log_world_open(&w, seed, NULL);
        fill();
        spoil_some();
        durable_kill(&w.d);
        if (durable_try_start(&w.d) != LIM_OK) {
            if (strstr(w.d.diag.text, "newer liminal") == NULL) /* a row of another version stops an older program */
                fail_msg("seed %u: %s", (unsigned)seed, w.d.diag.text);
            log_world_close(&w);
            continue;
        }
        durable_settle(&w.d, 3000000000);
        ask("$sys.schedules", "{\"op\":\"ls\"}");
        ask("$sys.queues", "{\"op\":\"show\",\"queue\":\"q\"}");
        ask("$sys.channels", "{\"op\":\"ls\"}");
        lim_channel_opts opts = log_world_opts();
        log_world_channel(&w, "new", &opts); /* what is new is served */
        assert_int_equal(log_world_publish(&w, "x", (lim_publish_opts){ 0 }).admission.verdict, LIM_ACCEPT);
        log_world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_make_no_sense_stop_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
