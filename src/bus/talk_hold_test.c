/* SPDX-License-Identifier: Apache-2.0
 * talk_hold_test.c - what a durable conversation says to a participant, while the bus is killed, the conversation's
 * process dies, and acknowledgments are late or never come: the participant's library, which lives on, has each message
 * once and in order. */
#include "bus/durable_world.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "bus/talk.h"
#include "data/options.h"

#include <stdio.h>
#include <string.h>

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
enum { TOLD_MAX = 4000 };

static durable_world w;
static uint64_t dice;
static lim_pid owner;
static uint64_t talk_id; /* as people know it */
static uint32_t done_count;
static lim__done last_done;

/* ---- the library of a participant: outlives the bus ---- */

typedef enum manner { ACKS = 1, ACKS_SOMETIMES, SILENT } manner;
static struct {
    lim_pid pid;
    manner manner;
    uint64_t newest, sent; /* numbers; sent: messages that came, however often */
    uint32_t count, events;
    uint32_t given[TOLD_MAX];
} library;
static bool up, deaf; /* deaf: what is written to its connection does not arrive any more */

static uint64_t pick(uint64_t n)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (dice >> 33) % n;
}

static void take(lim_process *self, const lim__request *r)
{
    lim__taken *t = lim__letter_new(lim__proc_sched(self), &lim__type_taken, sizeof *t);
    t->lease = r->lease;
    (void)!lim__send_reserved(self, lim__alias_pid(w.bus, r->conv.id), t);
}

static void on_library(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (!up || deaf || signal->kind != LIM_SIGNAL_MESSAGE || signal->type != &lim__type_request)
        return;
    const lim__request *r = signal->body.ptr;
    unsigned number = 0;
    assert_true(r->conv.id == talk_id); /* whatever its process is called now */
    if (!lim__request_numbered(r))
        return; /* who joined */
    library.sent++;
    if (library.manner == ACKS || (library.manner == ACKS_SOMETIMES && pick(3) == 0))
        take(self, r);
    if (r->lease <= library.newest)
        return;
    library.newest = r->lease;
    library.events += r->event == LIM_EVENT_SIGNAL;
    lim_bytes text = lim__msg_bytes(r->payload);
    assert_int_equal(sscanf(text.ptr, "tell %u.", &number), 1);
    assert_true(library.count < TOLD_MAX);
    library.given[library.count++] = number;
}

static void library_comes(void)
{
    lim_pid group;
    lim_spawn_opts opts = { .size = sizeof opts, .name = "library", .on_signal = on_library, .trap_exit = true };
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str("g"), &group), LIM_OK);
    assert_int_equal(lim_runtime_spawn(w.bus->rt, &opts, &library.pid), LIM_OK);
    lim__join *j = lim__join_new(NULL, library.pid, LIM__MEMBER_SERVE, lim__str("p"), 16, NULL, NULL);
    assert_non_null(j);
    memset(j->session, 7, sizeof j->session);
    j->reply_to = library.pid;
    assert_int_equal(lim__post_reserved(w.bus->rt, group, j), LIM_OK);
}

/* ---- the owner ---- */

static void (*todo)(lim_process *self);

static void on_owner(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->type == &lim__type_push) {
        todo(self);
    } else if (signal->type == &lim__type_done) {
        last_done = *(const lim__done *)signal->body.ptr;
        done_count++;
    }
}

static void do_now(void (*what)(lim_process *self))
{
    todo = what;
    lim__command *c = lim__letter_new(NULL, &lim__type_push, sizeof *c);
    *c = (lim__command){ 0 };
    assert_int_equal(lim__post_reserved(w.bus->rt, owner, c), LIM_OK);
}

static bool is_done(void *ctx)
{
    return done_count >= *(uint32_t *)ctx;
}

static lim_err and_done(void (*what)(lim_process *self))
{
    uint32_t wanted = done_count + 1;
    do_now(what);
    durable_until(&w, is_done, &wanted);
    return last_done.err;
}

static void open_it(lim_process *self)
{
    lim__buf block = { 0 };
    lim__terms *terms;
    lim_conv_opts how = { .size = sizeof how, .group = "g", .durable = true };
    assert_int_equal(lim__options_open(&block, &how, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(lim__buf_bytes(&block), NULL, &terms), LIM_OK);
    lim__buf_fini(&block);
    lim__open *o = lim__open_new(lim__proc_sched(self), LIM__KIND_TALK, lim__str("g"), lim__str(""),
                                 lim__msg_new(lim__bytes("", 0)));
    o->owner = lim_self(self);
    o->terms = terms;
    o->opened_ns = lim_now_ns(self);
    o->deadline_ns = UINT64_MAX;
    o->on_crash = LIM_CRASH_FAIL;
    lim_pid pid;
    assert_int_equal(lim__conv_spawn(w.bus, self, o, &pid), LIM_OK);
    talk_id = pid.id;
}

static lim_pid now(void)
{
    return lim__alias_pid(w.bus, talk_id);
}

static uint32_t next_number;

static lim__msg *next_msg(void)
{
    char text[24];
    snprintf(text, sizeof text, "tell %u.", ++next_number);
    return lim__msg_new(lim__bytes(text, strlen(text) + 1));
}

static void tell_it(lim_process *self)
{
    lim__tell *m = lim__letter_new(lim__proc_sched(self), &lim__type_tell, sizeof *m);
    *m = (lim__tell){ .ref = 1, .payload = next_msg() };
    (void)!lim__send_reserved(self, now(), m);
}

static void signal_it(lim_process *self)
{
    lim__signal_in *m = lim__letter_new(lim__proc_sched(self), &lim__type_signal_in, sizeof *m + 2);
    *m = (lim__signal_in){ .payload = next_msg(), .name_len = 2 };
    memcpy(m->name, "go", 2);
    (void)!lim__send_reserved(self, now(), m);
}

static void command(lim_process *self, const lim__letter_type *type)
{
    lim__command *c = lim__letter_new(lim__proc_sched(self), type, sizeof *c);
    *c = (lim__command){ 1, lim_self(self) };
    (void)!lim__send_reserved(self, now(), c);
}

static void attach_it(lim_process *self)
{
    command(self, &lim__type_attach);
}

static void close_it(lim_process *self)
{
    command(self, &lim__type_close);
}

/* ---- lives ---- */

static void live(void)
{
    lim_spawn_opts opts = { .size = sizeof opts, .name = "owner", .on_signal = on_owner, .trap_exit = true };
    assert_int_equal(lim_runtime_spawn(w.bus->rt, &opts, &owner), LIM_OK);
    done_count = 0;
    up = true;
    deaf = false;
}

static void begin(uint64_t seed, manner how)
{
    durable_open(&w, seed);
    dice = seed;
    next_number = 0;
    memset(&library, 0, sizeof library);
    library.manner = how;
    live();
    library_comes();
    durable_settle(&w, 10 * MS);
    assert_int_equal(and_done(open_it), LIM_OK);
}

static void die(void)
{
    up = false;
    if (pick(2) != 0)
        durable_kill(&w);
    else
        durable_power_off(&w);
    durable_start(&w);
    live();
}

static void come_back(void)
{
    library_comes();
    assert_int_equal(and_done(attach_it), LIM_OK);
    durable_settle(&w, 3 * SECOND);
}

static bool count_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    ++*(uint32_t *)ctx;
    return true;
}

static uint32_t rows(void)
{
    uint32_t n = 0;
    assert_int_equal(lim__store_scan(lim__durable_store(w.bus), LIM__TABLE_TALKS, lim__bytes(NULL, 0),
                                     lim__bytes(NULL, 0), count_row, &n),
                     0);
    return n;
}

/* Of the numbers in `sure` none is missing; in between are those that nobody was told of. */
static void assert_given(const uint32_t *sure, uint32_t count)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < library.count; i++) {
        if (i > 0 && library.given[i] <= library.given[i - 1])
            fail_msg("%u was given after %u", library.given[i], library.given[i - 1]);
        at += at < count && library.given[i] == sure[at];
    }
    if (at != count)
        fail_msg("%u was accepted and not given", sure[at]);
}

/* ---- tests ---- */

static void test_each_message_reaches_its_participant_once_whenever_the_bus_is_killed(void **state) /* proves CV15 */
{
    (void)state;
    for (uint64_t step = 0; step < 150; step++) {
        uint32_t sure[8], count = 0;
        begin(step + 1, step % 2 == 0 ? ACKS : ACKS_SOMETIMES);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(and_done(tell_it), LIM_OK);
            sure[count++] = next_number;
        }
        uint32_t before = done_count;
        do_now(tell_it);
        durable_settle(&w, step * 4000); /* killed at every step of it */
        if (done_count > before)
            sure[count++] = next_number;
        die();
        come_back();
        assert_int_equal(and_done(tell_it), LIM_OK);
        sure[count++] = next_number;
        durable_settle(&w, 10 * MS);
        assert_given(sure, count);
        durable_close(&w);
    }
}

static void test_many_lives_and_deaths_give_each_message_once_and_in_order(void **state) /* proves CV15 */
{
    (void)state;
    static uint32_t sure[TOLD_MAX];
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint32_t count = 0;
        begin(seed, seed % 3 == 0 ? SILENT : seed % 3 == 1 ? ACKS : ACKS_SOMETIMES);
        for (uint32_t step = 0; step < 40; step++) {
            uint64_t what = pick(10);
            if (what < 6 && and_done(tell_it) == LIM_OK) {
                assert_int_equal(last_done.admission.verdict, LIM_ACCEPT);
                sure[count++] = next_number;
            } else if (what == 6) { /* its process dies, and who takes part lives on */
                do_now(tell_it);
                durable_settle(&w, pick(600) * 1000);
                lim_runtime_exit(w.bus->rt, now(), LIM_KILL);
                durable_settle(&w, SECOND);
                assert_int_equal(and_done(attach_it), LIM_OK);
            } else if (what == 9) { /* accepted, and lost on the way to it */
                deaf = true;
                for (uint64_t i = pick(4); i > 0; i--) {
                    assert_int_equal(and_done(tell_it), LIM_OK);
                    sure[count++] = next_number;
                }
                die();
                come_back();
            } else if (what == 7) { /* said to one that is away */
                die();
                assert_int_equal(and_done(attach_it), LIM_OK);
                assert_int_equal(and_done(tell_it), LIM_OK);
                sure[count++] = next_number;
                come_back();
            } else if (what == 8) {
                uint32_t before = done_count;
                do_now(tell_it);
                durable_settle(&w, pick(600) * 1000);
                if (done_count > before)
                    sure[count++] = next_number;
                die();
                come_back();
            }
        }
        durable_settle(&w, SECOND);
        assert_given(sure, count);
        durable_close(&w);
    }
}

static void test_a_signal_to_one_that_is_away_waits_for_it(void **state) /* proves CV15 */
{
    (void)state;
    begin(3, ACKS);
    die();
    assert_int_equal(and_done(attach_it), LIM_OK);
    do_now(signal_it);
    durable_settle(&w, SECOND);
    assert_int_equal(library.count, 0);
    die();
    come_back();
    assert_int_equal(library.events, 1);
    assert_int_equal(library.count, 1);
    durable_close(&w);
}

static void test_what_was_taken_is_not_sent_again_and_costs_no_commit_of_its_own(void **state) /* proves CV15 */
{
    (void)state;
    lim__store_info before, after;
    begin(5, ACKS);
    durable_settle(&w, 2 * SECOND);
    uint32_t empty = rows();
    lim__store_info_get(lim__durable_store(w.bus), &before);
    for (int i = 0; i < 50; i++)
        assert_int_equal(and_done(tell_it), LIM_OK);
    lim__store_info_get(lim__durable_store(w.bus), &after);
    assert_int_equal(after.batches - before.batches, 50);
    durable_settle(&w, 3 * SECOND);
    lim__store_info_get(lim__durable_store(w.bus), &after);
    assert_int_equal(after.batches - before.batches, 51); /* one that sweeps, when nothing else comes */
    assert_int_equal(rows(), empty);
    uint64_t sent = library.sent;
    die();
    come_back();
    assert_int_equal(library.sent, sent);
    durable_close(&w);
}

static void test_one_that_takes_nothing_has_room_for_so_many_and_the_rest_is_refused(void **state) /* proves CV15 */
{
    (void)state;
    begin(6, SILENT);
    for (int i = 0; i < LIM__HELD_MAX; i++)
        assert_int_equal(and_done(tell_it), LIM_OK);
    assert_int_equal(and_done(tell_it), LIM_E_FULL);
    assert_int_equal(last_done.admission.verdict, LIM_REJECT);
    assert_int_equal(last_done.admission.why, LIM_WHY_PARTICIPANT_FULL);
    die();
    library.manner = ACKS;
    come_back();
    assert_int_equal(library.count, LIM__HELD_MAX); /* it had them all; they were sent once more */
    assert_int_equal(library.sent, 2 * LIM__HELD_MAX);
    assert_int_equal(and_done(tell_it), LIM_OK);
    do_now(close_it);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 2);
    durable_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_message_reaches_its_participant_once_whenever_the_bus_is_killed),
        cmocka_unit_test(test_many_lives_and_deaths_give_each_message_once_and_in_order),
        cmocka_unit_test(test_a_signal_to_one_that_is_away_waits_for_it),
        cmocka_unit_test(test_what_was_taken_is_not_sent_again_and_costs_no_commit_of_its_own),
        cmocka_unit_test(test_one_that_takes_nothing_has_room_for_so_many_and_the_rest_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
