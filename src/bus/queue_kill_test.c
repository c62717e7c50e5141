/* SPDX-License-Identifier: Apache-2.0
 * queue_kill_test.c - durable queues and asks under kills, power losses, disk faults and a full disk at random
 * instants.
 *
 * The dispatchers and workers are scripts that outlive the program: a worker has in hand what it was given until it is
 * revoked or settled, comes back after a while (in time, or too late), says what it holds and sends again what was not
 * settled. What everybody was told is written down, and compared in the end with what the store says:
 *
 *   A1  every task that was accepted has ended, and its outcome is there; no row of a living one is left
 *   A2  nobody is told twice that a task has ended; at most one reply is settled as accepted, and that is the outcome
 *   A3  a task is handed to another worker only when whoever had it was lost, or the server was
 *   A4  nothing is handed over after its outcome was stored; a dispatch with a key that was accepted before is that
 * task A5  tasks with one order key run one at a time, in order A6  attempts: not fewer than failures that were
 * settled, not more than were sent; losses: not more than there were */
#include "bus/durable_world.h"
#include "bus/ended.h"
#include "bus/group_world.h"
#include <inttypes.h>

enum { TASKS_MAX = 400, WORKERS = 4, HAND_MAX = 64, KEYS = 6, ORDERS = 3, STEPS = 220 };

typedef struct job { /* what was dispatched */
    uint64_t id;     /* as it was told; 0: nobody was */
    bool ask, accepted, rejected;
    uint32_t key, order; /* 0: none */
    uint32_t told, heard, accepted_replies, accepted_fails, sent_fails, lost;
    uint64_t ended_ns; /* heard, in this life of the program */
    char reply[32];
} job;
typedef struct item {
    uint64_t task, lease;
    bool lost, answered, failed;
    char text[32];
} item;
typedef struct hand { /* a worker, or who serves the asks */
    uint32_t no;
    bool serves, up;
    lim_pid pid;
    item items[HAND_MAX];
    uint32_t count;
} hand;

static struct {
    durable_world w;
    job jobs[TASKS_MAX];
    uint32_t job_count;
    hand hands[WORKERS + 1];
    lim_pid owner;
    uint64_t key_task[KEYS + 1], seed, run;
    uint32_t handed, kills, losses, rejected, again;
    lim__rng *rng;
    bool easy; /* answers at once */
    puppet *boss;
} k;

__attribute__((format(printf, 2, 3))) static void broken(const char *what, const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_msg("seed %" PRIu64 ": %s: %s", k.seed, what, text);
}

#define CLAIM(what, ...)                                                                                               \
    do {                                                                                                               \
        if (!(what))                                                                                                   \
            broken(#what, __VA_ARGS__);                                                                                \
    } while (0)

static uint32_t below(uint32_t n)
{
    return (uint32_t)(lim__rng_next(k.rng) % n);
}

static job *job_of(uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < k.job_count; i++)
        if (k.jobs[i].id == id)
            return &k.jobs[i];
    return NULL;
}

static bool has_ended(uint64_t id)
{
    lim__ended_info info;
    return lim__ended_find(k.w.bus, (lim_pid){ id }, &info);
}

static item *item_of(hand *h, uint64_t task, uint64_t lease)
{
    for (uint32_t i = 0; i < h->count; i++)
        if (h->items[i].task == task && h->items[i].lease == lease)
            return &h->items[i];
    return NULL;
}

static void let_go(hand *h, item *i)
{
    if (i != NULL)
        *i = h->items[--h->count];
}

/* ---- what processes hear ---- */

static job *job_numbered(lim_bytes payload)
{
    char text[24] = "";
    snprintf(text, sizeof text, "%.*s", (int)payload.len, (const char *)payload.ptr);
    uint32_t n = (uint32_t)strtoul(text, NULL, 10);
    assert_true(n < k.job_count);
    return &k.jobs[n];
}

static void check_order(const job *j)
{
    for (const job *e = k.jobs; j->order != 0 && e < j; e++)
        if (e->order == j->order && e->accepted && e->id != 0 && e->key == 0)
            CLAIM(has_ended(e->id),
                  "A5: task %" PRIx64 " before %" PRIx64 " run %" PRIu64 " fails %u lost %u alias %llx", j->id, e->id,
                  k.run, e->sent_fails, e->lost, (unsigned long long)lim__alias_pid(k.w.bus, e->id).id);
}

static void on_request(hand *h, lim_process *self, const lim__request *r)
{
    job *j = job_numbered(lim__msg_bytes(r->payload));
    const job *first = job_of(r->conv.id);
    bool crossed = first != NULL && first->ended_ns != 0 && lim__sim_now(k.w.sim) - first->ended_ns < SECOND / 10;
    CLAIM(crossed || !has_ended(r->conv.id), "A4: %" PRIx64, r->conv.id);
    for (uint32_t n = 0; n <= WORKERS; n++)
        for (uint32_t i = 0; i < k.hands[n].count; i++) {
            const item *other = &k.hands[n].items[i];
            CLAIM(other->task != r->conv.id || other->lost || other->failed, "A3: %" PRIx64 " at %u and %u", r->conv.id,
                  n, h->no);
        }
    if (j->id == 0)
        j->id = r->conv.id;
    check_order(j);
    assert_true(h->count < HAND_MAX);
    h->items[h->count++] = (item){ .task = r->conv.id, .lease = r->lease };
    k.handed++;
    lim__taken *t = lim__letter_new(lim__proc_sched(self), &lim__type_taken, sizeof *t);
    t->lease = r->lease;
    (void)!lim__send_reserved(self, lim__alias_pid(k.w.bus, r->conv.id), t);
}

static void on_settled(hand *h, const lim__settled *s)
{
    item *i = item_of(h, s->conv.id, s->lease);
    job *j = job_of(s->conv.id);
    if (i == NULL)
        return;
    if (s->accepted && j != NULL && i->failed)
        j->accepted_fails++;
    if (s->accepted && j != NULL && !i->failed) {
        j->accepted_replies++;
        CLAIM(j->accepted_replies == 1 || strcmp(j->reply, i->text) == 0, "A2: %" PRIx64 " twice", j->id);
        memcpy(j->reply, i->text, sizeof j->reply);
    }
    let_go(h, i);
}

/* Whoever is told to stop says when it has. */
static void on_revoked(hand *h, lim_process *self, const lim__revoke *r)
{
    let_go(h, item_of(h, r->conv.id, r->lease));
    lim__answer *a =
        lim__answer_new(lim__proc_sched(self), h->pid, r->lease, LIM__ANSWER_NOTHING, NULL, lim__bytes(NULL, 0));
    (void)!lim__send_reserved(self, lim__alias_pid(k.w.bus, r->conv.id), a);
}

static void on_hand(lim_process *self, const lim_signal *signal, void *state)
{
    hand *h = *(hand **)state;
    const void *body = signal->body.ptr;
    if (signal->type == &lim__type_evict)
        lim_exit(self, ((const lim__evict *)body)->reason);
    if (signal->kind != LIM_SIGNAL_MESSAGE || !h->up || h->pid.id != lim_self(self).id)
        return; /* of a connection before */
    if (signal->type == &lim__type_request)
        on_request(h, self, body);
    else if (signal->type == &lim__type_settled)
        on_settled(h, body);
    else if (signal->type == &lim__type_revoke)
        on_revoked(h, self, body);
}

static void on_admitted(const lim__admitted *a)
{
    job *j = &k.jobs[a->ref - 1];
    if (a->admission.verdict == LIM_REJECT) {
        j->rejected = true;
        k.rejected++;
        return;
    }
    j->accepted = true;
    if (j->key != 0 && k.key_task[j->key] != 0)
        CLAIM(k.key_task[j->key] == a->conv.id, "A4: key %u was %" PRIx64 ", is %" PRIx64, j->key, k.key_task[j->key],
              a->conv.id);
    if (j->key != 0)
        k.key_task[j->key] = a->conv.id;
    j->id = a->conv.id;
}

static void on_owner(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)state;
    if (signal->type == &lim__type_admitted)
        on_admitted(signal->body.ptr);
    if (signal->type != &lim__type_outcome)
        return;
    const lim__outcome_letter *o = signal->body.ptr;
    job *j = &k.jobs[o->ref - 1];
    CLAIM(++j->told == 1, "A2: told twice");
    if (o->how == LIM_HOW_REFUSED)
        j->rejected = true;
    else if (j->ask)
        j->id = o->conv.id;
}

static void on_outcome_heard(void *ctx, uint64_t id)
{
    job *j = job_of(id);
    (void)ctx;
    if (j != NULL)
        j->ended_ns = lim__sim_now(k.w.sim);
    if (j != NULL && j->key == 0)
        CLAIM(++j->heard == 1, "A2: %" PRIx64 " ended twice", id);
}

/* ---- acting ---- */

static lim_pid spawn(lim_on_signal *fn, void *ctx)
{
    lim_spawn_opts opts = { .size = sizeof opts,
                            .on_signal = fn,
                            .state_bytes = sizeof ctx,
                            .init = &ctx,
                            .init_bytes = sizeof ctx,
                            .mailbox_max = 65536,
                            .trap_exit = true };
    lim_pid pid;
    assert_int_equal(lim_runtime_spawn(k.w.bus->rt, &opts, &pid), LIM_OK);
    return pid;
}

static void rest(uint64_t ns)
{
    durable_settle(&k.w, ns);
}

static void join(hand *h)
{
    lim_pid group;
    char name[8];
    snprintf(name, sizeof name, "w%u", h->no);
    h->pid = spawn(on_hand, h);
    h->up = true;
    assert_int_equal(lim__group_get(k.w.bus, NULL, lim__str(h->serves ? "g" : "q"), &group), LIM_OK);
    lim__join *j =
        lim__join_new(NULL, h->pid, h->serves ? LIM__MEMBER_SERVE : LIM__MEMBER_WORK, lim__str(name), 3, NULL, NULL);
    j->reply_to = h->pid;
    memset(j->session, 's', sizeof j->session);
    assert_int_equal(lim__post_reserved(k.w.bus->rt, group, j), LIM_OK);
    rest(1000000);
}

static void send_answer(hand *h, const item *i)
{
    lim__answer *a = i->failed ? lim__answer_new(NULL, h->pid, i->lease, LIM__ANSWER_FAILED, NULL, lim__str("no"))
                               : lim__answer_new(NULL, h->pid, i->lease, LIM__ANSWER_REPLY,
                                                 lim__msg_new(lim__str(i->text)), lim__bytes(NULL, 0));
    (void)!lim__post_reserved(k.w.bus->rt, lim__alias_pid(k.w.bus, i->task), a);
}

/* As the client library does: says what it has in hand, and sends again what was not settled. What the server does not
 * know any more it is told by the session; here it is seen at once. */
static void take_up(hand *h)
{
    for (uint32_t i = 0; i < h->count;) {
        item *it = &h->items[i];
        lim_pid there = lim__alias_pid(k.w.bus, it->task);
        if (!lim_alive(k.w.bus->rt, there)) {
            let_go(h, it);
            continue;
        }
        if (it->answered) {
            send_answer(h, it);
        } else {
            lim__holding *hold_letter = lim__letter_new(NULL, &lim__type_holding, sizeof *hold_letter);
            *hold_letter = (lim__holding){ it->lease, h->pid };
            (void)!lim__post_reserved(k.w.bus->rt, there, hold_letter);
            if (it->lost)
                it->lost = true; /* whether it is still its own it is told, or not */
        }
        i++;
    }
    k.again++;
}

static void come_back(hand *h)
{
    join(h);
    take_up(h);
}

static void mark_lost(hand *h)
{
    for (uint32_t i = 0; i < h->count; i++) {
        job *j = job_of(h->items[i].task);
        h->items[i].lost = true;
        if (j != NULL)
            j->lost++;
    }
}

static void lose_hand(hand *h, lim_reason reason)
{
    if (!h->up)
        return;
    lim__evict *e = lim__letter_new(NULL, &lim__type_evict, sizeof *e);
    e->reason = reason;
    (void)!lim__post_reserved(k.w.bus->rt, h->pid, e);
    mark_lost(h);
    k.losses++;
    h->up = false;
    if (reason == LIM_LEFT) /* it gave back all it had */
        h->count = 0;
}

static void finish_one(hand *h)
{
    if (!h->up || h->count == 0)
        return;
    item *i = &h->items[below(h->count)];
    job *j = job_of(i->task);
    if (i->answered)
        return;
    i->answered = true;
    i->failed = !k.easy && below(5) == 0;
    if (i->failed && j != NULL)
        j->sent_fails++;
    snprintf(i->text, sizeof i->text, "%u:%" PRIx64, h->no, i->lease);
    send_answer(h, i);
}

static lim__terms *terms_of(job *j)
{
    char key[16], order[16];
    lim__buf block = { 0 };
    lim__terms *t = NULL;
    snprintf(key, sizeof key, "k%u", j->key);
    snprintf(order, sizeof order, "o%u", j->order);
    lim_dispatch_opts o = { .size = sizeof o,
                            .timeout_ms = LIM_FOREVER,
                            .idempotency_key = j->key != 0 ? key : NULL,
                            .order_key = j->order != 0 ? order : NULL,
                            .delay_ms = below(8) == 0 && j->order == 0 ? 1 + below(3000) : 0 };
    lim_ask_opts a = { .size = sizeof a, .timeout_ms = LIM_FOREVER, .durable = true };
    assert_int_equal(
        j->ask ? lim__options_ask(&block, &a, false, false, NULL) : lim__options_dispatch(&block, &o, 0, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(lim__buf_bytes(&block), NULL, &t), LIM_OK);
    lim__buf_fini(&block);
    return t;
}

static void dispatch(void)
{
    char payload[16];
    lim_pid conv;
    if (k.job_count == TASKS_MAX)
        return;
    uint32_t n = k.job_count++;
    job *j = &k.jobs[n];
    *j = (job){ .ask = below(5) == 0 };
    if (!j->ask && below(4) == 0)
        j->key = 1 + below(KEYS);
    if (!j->ask && j->key == 0 && below(3) == 0)
        j->order = 1 + below(ORDERS);
    snprintf(payload, sizeof payload, "%u", n);
    lim__open *open = lim__open_new(NULL, j->ask ? LIM__KIND_ASK : LIM__KIND_TASK, lim__str(j->ask ? "g" : "q"),
                                    lim__str(""), lim__msg_new(lim__str(payload)));
    open->owner = k.owner;
    open->ref = n + 1;
    open->opened_ns = lim__sim_now(k.w.sim);
    open->flags = LIM__OPEN_REPORT | LIM__OPEN_WAIT;
    open->on_crash = below(2) ? LIM_CRASH_NEXT : LIM_CRASH_FAIL;
    open->losses_max = 16;
    open->terms = terms_of(j);
    assert_int_equal(lim__conv_spawn_at(k.w.bus, open->kind, k.owner, &conv), LIM_OK);
    if (j->ask)
        j->id = conv.id;
    assert_int_equal(lim__post(k.w.bus->rt, conv, open), LIM_OK);
}

static void heal(void)
{
    lim__sim_disk d = lim__sim_disk_get(k.w.os);
    d.write_error_permille = d.sync_error_permille = 0;
    d.capacity = 1ull << 40;
    lim__sim_disk_set(k.w.os, &d);
}

static void hurt(void)
{
    lim__sim_disk d = lim__sim_disk_get(k.w.os);
    d.write_error_permille = below(3) == 0 ? 200 : 0;
    d.sync_error_permille = below(3) == 0 ? 200 : 0;
    lim__sim_disk_set(k.w.os, &d);
}

static void up_again(void)
{
    heal();
    durable_start(&k.w);
    k.w.bus->ear = (lim__ear){ .on_outcome = on_outcome_heard };
    k.owner = spawn(on_owner, NULL);
    k.run++;
    rest(below(20) * 1000000ull);
}

static void kill_it(void)
{
    for (uint32_t i = 0; i <= WORKERS; i++) {
        mark_lost(&k.hands[i]);
        k.hands[i].up = false;
    }
    k.kills++;
    if (below(2))
        durable_kill(&k.w);
    else
        durable_power_off(&k.w);
    up_again();
}

static void step(void)
{
    hand *h = &k.hands[below(WORKERS + 1)];
    switch (below(24)) {
    case 0:
        if (below(3) == 0)
            kill_it();
        break;
    case 1:
        lose_hand(h, below(4) == 0 ? LIM_LEFT : LIM_LOST);
        break;
    case 2:
    case 3:
        if (!h->up)
            come_back(h);
        break;
    case 4:
        if (below(3) == 0)
            hurt();
        else
            heal();
        break;
    case 5:
        if (below(4) == 0)
            rest(11 * SECOND); /* past the grace */
        break;
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
        dispatch();
        break;
    default:
        finish_one(h);
    }
    if (below(3) != 0)
        rest(below(30) * 1000000ull);
}

static bool any_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    ++*(uint32_t *)ctx;
    return true;
}

/* What is left, for whoever has to find out why. */
static bool show_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)ctx, (void)value;
    uint64_t id = lim__key_get_u64(key.ptr);
    const job *j = job_of(id);
    print_message("row %" PRIx64 ": job %ld ask %d accepted %d, process alive %d\n", id,
                  j != NULL ? (long)(j - k.jobs) : -1, j != NULL && j->ask, j != NULL && j->accepted,
                  lim_alive(k.w.bus->rt, lim__alias_pid(k.w.bus, id)));
    for (uint32_t n = 0; n <= WORKERS; n++)
        for (uint32_t i = 0; i < k.hands[n].count; i++)
            if (k.hands[n].items[i].task == id)
                print_message("  in hand of %u (up %d): lost %d answered %d\n", n, k.hands[n].up,
                              k.hands[n].items[i].lost, k.hands[n].items[i].answered);
    return true;
}

static void show_rows(void)
{
    (void)lim__store_scan(lim__durable_store(k.w.bus), LIM__TABLE_TASKS, lim__bytes(NULL, 0), lim__bytes(NULL, 0),
                          show_row, NULL);
}

static uint32_t living(void)
{
    uint32_t n = 0;
    assert_int_equal(lim__store_scan(lim__durable_store(k.w.bus), LIM__TABLE_TASKS, lim__bytes(NULL, 0),
                                     lim__bytes(NULL, 0), any_row, &n),
                     0);
    return n;
}

static void run_out(void)
{
    k.easy = true;
    heal();
    for (uint32_t round = 0; round < 400; round++) {
        for (uint32_t i = 0; i <= WORKERS; i++) {
            hand *h = &k.hands[i];
            if (!h->up)
                come_back(h);
            for (uint32_t n = 0; n < 4; n++)
                finish_one(h);
        }
        rest(SECOND / 4);
        if (round > 8 && living() == 0)
            break;
    }
    rest(SECOND);
}

static void audit(void)
{
    if (living() > 0)
        show_rows();
    CLAIM(living() == 0, "A1: %u rows are left", living());
    for (uint32_t i = 0; i < k.job_count; i++) {
        const job *j = &k.jobs[i];
        if (j->ask ? j->told == 0 && j->accepted_replies == 0 : !j->accepted)
            continue;
        if (j->ask && j->rejected)
            continue;
        lim__outcome_letter *o = lim__ended_outcome(k.w.bus, NULL, (lim_pid){ j->id }, 0);
        CLAIM(o != NULL, "A1: %s %u (%" PRIx64 ") has no outcome", j->ask ? "ask" : "task", i, j->id);
        if (j->accepted_replies > 0) {
            CLAIM(o->how == LIM_HOW_REPLY, "A2: %" PRIx64 " was settled, and is %s", j->id, lim_how_text(o->how));
            lim_bytes payload = lim__msg_bytes(o->payload);
            CLAIM(lim__bytes_eq(payload, lim__str(j->reply)), "A2: %" PRIx64 ": another reply", j->id);
        }
        if (j->key == 0 && !j->ask) {
            CLAIM(o->attempts >= j->accepted_fails && o->attempts <= j->sent_fails,
                  "A6: %" PRIx64 ": attempts %u of %u", j->id, o->attempts, j->sent_fails);
            /* It may be lost on its way, too: then nobody ever had it. */
            CLAIM(o->losses <= j->lost + k.kills + k.losses, "A6: %" PRIx64 ": losses %u of %u", j->id, o->losses,
                  j->lost);
            CLAIM(j->lost > 0 || k.kills + k.losses > 0 || o->losses == 0, "A6: %" PRIx64, j->id);
        }
        lim__letter_free(NULL, o);
    }
}

static void configure(void)
{
    world w = { .sim = k.w.sim, .os = k.w.os, .bus = k.w.bus };
    puppet *p = puppet_new(&w);
    const char *json =
        "{\"op\":\"queue.configure\",\"queue\":\"q\",\"durable\":true,\"attempts_max\":3,\"backoff_min_ms\":50,"
        "\"reconnect_grace_ms\":8000}";
    const char *answer_json = admin(&w, p, "q", json);
    if (strstr(answer_json, "error") != NULL)
        fail_msg("%s", answer_json);
    free(p->json);
    p->json = NULL;
    k.boss = p;
}

static void one_world(uint64_t seed)
{
    memset(&k, 0, sizeof k);
    k.seed = seed;
    durable_open(&k.w, seed);
    k.rng = lim__sim_rng(k.w.sim);
    k.w.bus->ear = (lim__ear){ .on_outcome = on_outcome_heard };
    k.owner = spawn(on_owner, NULL);
    configure();
    for (uint32_t i = 0; i <= WORKERS; i++) {
        k.hands[i] = (hand){ .no = i, .serves = i == WORKERS };
        join(&k.hands[i]);
    }
    for (uint32_t i = 0; i < STEPS; i++)
        step();
    run_out();
    audit();
    kill_it();
    audit(); /* and it is still so after one more */
    durable_close(&k.w);
    free(k.boss);
}

static void test_no_durable_task_is_lost_or_ends_twice_whatever_dies(void **state) /* proves DU2 DU3 GR6 GR11 XO1 XO4 */
{
    (void)state;
    const char *first = getenv("LIM_SEED"), *count = getenv("LIM_SEEDS");
    uint64_t from = first != NULL ? strtoull(first, NULL, 10) : 1, n = count != NULL ? strtoull(count, NULL, 10) : 40;
    uint32_t handed = 0, kills = 0, rejected = 0;
    for (uint64_t seed = from; seed < from + n; seed++) {
        one_world(seed);
        handed += k.handed;
        kills += k.kills;
        rejected += k.rejected;
    }
    if (n >= 20)
        assert_true(handed > 20 * n && kills > n && rejected > 0);
    print_message("%u handed over, %u kills, %u rejected\n", handed, kills, rejected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_durable_task_is_lost_or_ends_twice_whatever_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
