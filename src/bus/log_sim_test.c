/* SPDX-License-Identifier: Apache-2.0
 * log_sim_test.c - durable channels on a machine that is killed, loses its power, and whose disk fails: whatever was
 * answered is true, for thousands of messages and hundreds of lives. */
#include "base/rng.h"
#include "bus/log_world.h"

enum { CHANNELS = 3, MESSAGES_MAX = 3000, KEYS = 40 };

typedef enum fate { OPEN_FATE = 0, STORED, REFUSED, UNKNOWN } fate;
typedef struct message {
    struct machine *m;
    uint32_t channel, number, life, key; /* key 0: none */
    uint32_t lot;                        /* of the first of a lot: how many are in it */
    fate fate;
    bool duplicate;
    uint64_t seq;
} message;

typedef struct machine {
    durable_world d;
    lim__rng rng;
    lim_channel channels[CHANNELS];
    message messages[MESSAGES_MAX];
    uint32_t count, open, lives, offered;
    bool dead;
    /* of a look at one channel */
    uint32_t looking, found, key_seen[KEYS + 1];
    uint64_t last;
    bool seen[MESSAGES_MAX];
    uint64_t seq_of[MESSAGES_MAX];
    uint32_t newest_plain;
} machine;

static const char *const names[CHANNELS] = { "plain", "keyed", "lazy" };

static void fail_world(const machine *m, const char *what, uint32_t number)
{
    fail_msg("life %u: channel %s: message %u: %s", (unsigned)m->lives, names[m->looking], (unsigned)number, what);
}

static uint64_t any(machine *m, uint64_t below)
{
    return lim__rng_below(&m->rng, below);
}

/* ---- publishing ---- */

static void on_receipt(void *ctx, const lim_receipt *r)
{
    message *x = ctx;
    if (x->m->dead)
        return;                           /* nobody heard it */
    assert_int_equal(x->fate, OPEN_FATE); /* exactly once */
    x->m->open--;
    x->duplicate = r->duplicate;
    x->seq = r->seq;
    if (r->admission.verdict != LIM_REJECT)
        x->fate = STORED;
    else
        x->fate = r->admission.why == LIM_WHY_NONE ? UNKNOWN : REFUSED;
}

static void publish(machine *m)
{
    message *x = &m->messages[m->count];
    char text[32], key[16];
    lim_admission a;
    *x = (message){ .m = m, .channel = (uint32_t)any(m, CHANNELS), .number = m->count, .life = m->lives };
    if (x->channel == 1)
        x->key = 1 + (uint32_t)any(m, KEYS);
    snprintf(text, sizeof text, "%u", (unsigned)x->number);
    snprintf(key, sizeof key, "k%u", (unsigned)x->key);
    lim_publish_opts opts = {
        .size = sizeof opts, .idempotency_key = x->key != 0 ? key : NULL, .on_receipt = on_receipt, .ctx = x
    };
    if (lim_publish(m->d.bus, m->channels[x->channel], lim__str(text), &opts, &a) != LIM_OK)
        return;
    m->count++;
    m->open++;
}

/* The lot's receipt is that of its messages, from ctx on. */
static void on_lot(void *ctx, const lim_receipt *r, const char *detail)
{
    message *x = ctx;
    lim_receipt own = *r;
    (void)detail;
    for (uint32_t i = 0; i < x->lot; i++) {
        on_receipt(x + i, &own);
        own.seq += r->seq != 0;
    }
}

/* Up to 20 at once. */
static void publish_lot(machine *m)
{
    lim__log *log;
    lim__log_lot lot;
    message *first = &m->messages[m->count];
    uint32_t channel = any(m, 2) ? 2 : 0, count = 1 + (uint32_t)any(m, 20);
    if (lim__log_find(m->d.bus, lim__str(names[channel]), &log) != LIM_OK)
        return;
    if (lim__log_lot_begin(log, 0, &lot)) {
        for (uint32_t i = 0; i < count; i++) {
            char text[32];
            first[i] = (message){ .m = m, .channel = channel, .number = m->count + i, .life = m->lives };
            snprintf(text, sizeof text, "%u", (unsigned)first[i].number);
            assert_true(lim__log_lot_add(&lot, lim__bytes(NULL, 0), lim__str(text)));
        }
        first->lot = count;
        if (lim__log_lot_publish(&lot, on_lot, first) == LIM_OK) {
            m->count += count;
            m->open += count;
        }
    }
    lim__log_unref(log);
}

/* ---- auditing ---- */

static bool audit_record(void *ctx, const lim__record *r)
{
    machine *m = ctx;
    lim__log_record record;
    char text[32];
    assert_true(lim__log_record_read(r->data, &record));
    snprintf(text, sizeof text, "%.*s", (int)record.payload.len, (const char *)record.payload.ptr);
    uint32_t n = (uint32_t)strtoul(text, NULL, 10);
    const message *x = &m->messages[n];
    if (r->seq != m->last + 1)
        fail_world(m, "there is a hole in the numbers before it", n);
    m->last = r->seq;
    if (n >= m->count || x->channel != m->looking)
        fail_world(m, "nobody published it", n);
    if (m->seen[n])
        fail_world(m, "it is there twice", n);
    if (x->fate == REFUSED)
        fail_world(m, "it was refused, and is there", n);
    if (x->key != 0 && m->key_seen[x->key]++ > 0)
        fail_world(m, "its key is there twice", n);
    if (x->key == 0 && n < m->newest_plain)
        fail_world(m, "it stands behind one that was published later", n);
    m->newest_plain = x->key == 0 ? n : m->newest_plain;
    m->seen[n] = true;
    m->seq_of[n] = r->seq;
    m->found++;
    return true;
}

/* The message that a key stands for. */
static uint64_t seq_of_key(const machine *m, uint32_t key)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->seen[i] && m->messages[i].key == key && m->messages[i].channel == m->looking)
            return m->seq_of[i];
    return 0;
}

static void audit_answers(machine *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const message *x = &m->messages[i];
        if (x->channel != m->looking || x->fate != STORED)
            continue;
        if (x->duplicate ? seq_of_key(m, x->key) != x->seq : !m->seen[i] || m->seq_of[i] != x->seq)
            fail_world(m, "it was acknowledged, and is not where its receipt says", i);
        if (x->duplicate && m->seen[i])
            fail_world(m, "it is a duplicate, and was stored", i);
    }
}

/* power: the class of "lazy" is os: what it acknowledged may be lost with the power, but nothing in front of it stays
 * away. */
static void audit(machine *m, bool power)
{
    for (m->looking = 0; m->looking < CHANNELS; m->looking++) {
        lim__log *log;
        uint64_t bad = 0;
        if (lim__log_find(m->d.bus, lim__str(names[m->looking]), &log) != LIM_OK)
            continue; /* killed before it was stored */
        m->found = m->newest_plain = 0;
        m->last = 0;
        memset(m->seen, 0, sizeof m->seen);
        memset(m->key_seen, 0, sizeof m->key_seen);
        assert_int_equal(lim__store_read(lim__durable_store(m->d.bus), log->stream, 1, 0, audit_record, m, &bad), 0);
        for (uint32_t i = 0; m->looking == 2 && power && i < m->count; i++)
            if (m->messages[i].channel == 2 && m->messages[i].fate == STORED && !m->seen[i])
                m->messages[i].fate = UNKNOWN;
        audit_answers(m);
        lim__log_check(log);
        lim__log_unref(log);
    }
}

/* ---- lives ---- */

static void begin_life(machine *m)
{
    lim_channel_opts opts = log_world_opts();
    m->lives++;
    m->dead = false;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        opts.sync = i == 2 ? LIM_SYNC_NEVER : 0;
        opts.window_ms = 100ll * 24 * 3600 * 1000;
        assert_int_equal(lim_channel_open(m->d.bus, names[i], &opts, &m->channels[i]), LIM_OK);
    }
}

static void end_life(machine *m, bool power)
{
    m->dead = true;
    lim__sim_disk_fail_at_call(m->d.os, 0, 0);
    if (power)
        durable_power_off(&m->d);
    else
        durable_kill(&m->d);
    for (uint32_t i = 0; i < m->count; i++)
        if (m->messages[i].fate == OPEN_FATE)
            m->messages[i].fate = UNKNOWN;
    m->open = 0;
}

/* deadly: the end comes at some call of the disk, in the middle of a turn. */
static void live(machine *m, bool deadly)
{
    if (deadly)
        lim__sim_disk_fail_at_call(m->d.os, 1 + any(m, 120), 0);
    uint32_t bursts = (uint32_t)any(m, 8);
    for (uint32_t i = 0; i < bursts && m->count + 40 < MESSAGES_MAX; i++) {
        for (uint64_t n = any(m, 20); n > 0 && m->count + 40 < MESSAGES_MAX; n--)
            any(m, 6) ? publish(m) : publish_lot(m);
        durable_settle(&m->d, any(m, 3000000));
    }
}

static void machine_open(machine *m, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    m->rng = lim__rng_seeded(seed);
    durable_open(&m->d, seed);
}

static machine m;

static uint32_t fates(const machine *of, fate wanted)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < of->count; i++)
        n += of->messages[i].fate == wanted;
    return n;
}

static void test_whatever_was_answered_is_true_after_every_kill(void **state) /* proves DU2, XO1 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        machine_open(&m, seed);
        for (int life = 0; life < 25; life++) {
            begin_life(&m);
            live(&m, any(&m, 2));
            bool power = any(&m, 2);
            end_life(&m, power);
            durable_start(&m.d);
            audit(&m, power);
        }
        assert_true(fates(&m, STORED) > 100 && fates(&m, UNKNOWN) > 2); /* it was worth it */
        durable_close(&m.d);
    }
}

static void test_a_disk_that_fails_now_and_then_makes_no_answer_wrong(void **state) /* proves DU3 */
{
    (void)state;
    for (uint64_t seed = 100; seed < 112; seed++) {
        machine_open(&m, seed);
        for (int life = 0; life < 12; life++) {
            begin_life(&m);
            durable_settle(&m.d, 1000000000);
            lim__sim_disk_fail_at_call(m.d.os, 1 + any(&m, 40), any(&m, 2) ? EIO : ENOSPC);
            live(&m, false);
            durable_settle(&m.d, 5000000000); /* it mends itself */
            lim__sim_disk_fail_at_call(m.d.os, 0, 0);
            uint32_t before = m.count;
            publish(&m);
            durable_settle(&m.d, 5000000000);
            if (m.count > before && m.messages[before].fate != STORED)
                fail_msg("seed %u: it does not take messages again: fate %d", (unsigned)seed,
                         (int)m.messages[before].fate);
            audit(&m, false);
            end_life(&m, true);
            durable_start(&m.d);
            audit(&m, true);
        }
        durable_close(&m.d);
    }
}

/* Each call of the disk in turn is the last one before the power fails, from a publish with a key to its receipt. */
static void test_a_kill_between_claim_and_receipt_suppresses_nothing(void **state) /* proves XO1, PR2 */
{
    (void)state;
    for (uint64_t n = 0; n < 12; n++) {
        machine_open(&m, 200);
        begin_life(&m);
        durable_settle(&m.d, 1000000000);
        lim_publish_opts opts = { .size = sizeof opts, .idempotency_key = "k" };
        lim_admission a;
        lim__sim_disk_fail_at_call(m.d.os, n + 1, 0);
        assert_int_equal(lim_publish(m.d.bus, m.channels[0], lim__str("0"), &opts, &a), LIM_OK);
        durable_settle(&m.d, 1000000000);
        end_life(&m, n & 1);
        durable_start(&m.d);
        begin_life(&m);
        m.messages[0] = (message){ .m = &m };
        m.count = m.open = 1;
        opts.on_receipt = on_receipt;
        opts.ctx = &m.messages[0];
        assert_int_equal(lim_publish(m.d.bus, m.channels[0], lim__str("0"), &opts, &a), LIM_OK);
        durable_settle(&m.d, 1000000000);
        assert_int_equal(m.messages[0].fate, STORED);
        m.messages[0].duplicate = false; /* which of the two is there does not matter: one is */
        audit(&m, false);
        assert_int_equal(m.found, 0); /* of the last channel */
        durable_close(&m.d);
    }
}

/* ---- a full disk ---- */

static void test_a_full_disk_refuses_what_adds_and_takes_what_forgets(void **state) /* proves DU3 */
{
    (void)state;
    static log_world w;
    char big[4000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_world_open(&w, 300, NULL);
    durable_settle(&w.d, 1000000000);
    lim__sim_disk disk = lim__sim_disk_get(w.d.os);
    disk.capacity = 8 << 20;
    lim__sim_disk_set(w.d.os, &disk);
    uint32_t stored = 0;
    lim_receipt r = { .admission = { .verdict = LIM_ACCEPT } };
    while (r.admission.verdict == LIM_ACCEPT && stored < 3000) {
        r = log_world_publish(&w, big, (lim_publish_opts){ .idempotency_key = NULL });
        stored += r.admission.verdict == LIM_ACCEPT;
    }
    assert_int_equal(r.admission.why, LIM_WHY_DISK_FULL);
    assert_true(r.admission.retry_after_ms > 0);
    assert_true(r.admission.limit > 0);
    assert_int_equal(log_world_look(&w, "orders"), stored); /* reading goes on */
    lim_channel_opts opts = log_world_opts();
    opts.count_max = 10; /* which forgets nearly all of it: so the disk heals */
    log_world_channel(&w, "orders", &opts);
    durable_settle(&w.d, 30000000000);
    assert_int_equal(log_world_look(&w, "orders"), 10);
    r = log_world_publish(&w, "small again", (lim_publish_opts){ 0 });
    assert_int_equal(r.admission.verdict, LIM_ACCEPT);
    assert_int_equal(r.seq, stored + 1);
    durable_power_off(&w.d);
    log_world_start(&w);
    assert_int_equal(log_world_look(&w, "orders"), 10);
    log_world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whatever_was_answered_is_true_after_every_kill),
        cmocka_unit_test(test_a_disk_that_fails_now_and_then_makes_no_answer_wrong),
        cmocka_unit_test(test_a_kill_between_claim_and_receipt_suppresses_nothing),
        cmocka_unit_test(test_a_full_disk_refuses_what_adds_and_takes_what_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
