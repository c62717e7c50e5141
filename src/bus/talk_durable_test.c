/* SPDX-License-Identifier: Apache-2.0
 * talk_durable_test.c - durable conversations on a bus that is killed: each stands as its last commit says, and goes
 * on. */
#include "bus/durable_world.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include "bus/talk.h"
#include "data/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
enum { HEARD_MAX = 4000, TEXT = 48 };

static durable_world w;
static uint64_t dice;
static lim_pid owner, helper_pid;
static uint64_t talk_id; /* as people know it */

/* what the owner was told in this life */
static uint32_t done_count, outcome_count, exit_count;
static lim__done last_done;
static struct {
    uint64_t ref;
    lim_how how;
    uint8_t event;
    char text[TEXT];
} outcomes[HEARD_MAX];
/* what participants were given, over all lives */
static char given[HEARD_MAX][TEXT];
static uint32_t given_count;
static bool silent; /* they do not answer */

static uint64_t pick(uint64_t n)
{
    dice = dice * 6364136223846793005ull + 1442695040888963407ull;
    return (dice >> 33) % n;
}

/* ---- the owner: a process that does what `todo` says ---- */

static void (*todo)(lim_process *self);

static void on_owner(lim_process *self, const lim_signal *signal, void *state)
{
    (void)state;
    if (signal->type == &lim__type_push) {
        todo(self);
    } else if (signal->kind == LIM_SIGNAL_EXIT) {
        exit_count++;
    } else if (signal->type == &lim__type_done) {
        last_done = *(const lim__done *)signal->body.ptr;
        done_count++;
    } else if (signal->type == &lim__type_outcome) {
        const lim__outcome_letter *o = signal->body.ptr;
        assert_true(outcome_count < HEARD_MAX);
        outcomes[outcome_count].ref = o->ref;
        outcomes[outcome_count].how = o->how;
        outcomes[outcome_count].event = o->event;
        lim_bytes text = o->payload != NULL ? lim__msg_bytes(o->payload) : lim__bytes("", 0);
        snprintf(outcomes[outcome_count++].text, TEXT, "%.*s", (int)text.len, (const char *)text.ptr);
    }
}

static void do_now(void (*what)(lim_process *self))
{
    todo = what;
    lim__command *c = lim__letter_new(NULL, &lim__type_push, sizeof *c);
    *c = (lim__command){ 0 };
    assert_int_equal(lim__post_reserved(w.bus->rt, owner, c), LIM_OK);
}

static lim_conv_opts how_to_open;
static int64_t open_ms;

static void open_it(lim_process *self)
{
    lim__buf block = { 0 };
    lim__terms *terms;
    how_to_open.size = sizeof how_to_open;
    how_to_open.durable = true;
    assert_int_equal(lim__options_open(&block, &how_to_open, NULL), LIM_OK);
    assert_int_equal(lim__terms_parse(lim__buf_bytes(&block), NULL, &terms), LIM_OK);
    lim__buf_fini(&block);
    lim__open *o = lim__open_new(lim__proc_sched(self), LIM__KIND_TALK, lim__str(how_to_open.group), lim__str(""),
                                 lim__msg_new(lim__bytes("", 0)));
    o->owner = lim_self(self);
    o->terms = terms;
    o->opened_ns = lim_now_ns(self);
    o->deadline_ns = open_ms == 0 ? UINT64_MAX : o->opened_ns + (uint64_t)open_ms * MS;
    o->on_crash = how_to_open.on_crash != 0 ? how_to_open.on_crash : LIM_CRASH_FAIL;
    lim_pid pid;
    assert_int_equal(lim__conv_spawn(w.bus, self, o, &pid), LIM_OK);
    talk_id = pid.id;
}

static lim_pid now_of(uint64_t id)
{
    return lim__alias_pid(w.bus, id);
}

static uint64_t next_ref;
static int64_t ask_ms;

static void ask_it(lim_process *self)
{
    char text[24];
    snprintf(text, sizeof text, "ask %" PRIu64, ++next_ref);
    lim__ask *a = lim__letter_new(lim__proc_sched(self), &lim__type_ask, sizeof *a);
    *a = (lim__ask){ .ref = next_ref,
                     .deadline_ns = ask_ms == 0 ? UINT64_MAX : lim_now_ns(self) + (uint64_t)ask_ms * MS,
                     .payload = lim__msg_new(lim__str(text)) };
    (void)!lim__send_reserved(self, now_of(talk_id), a);
}

static void tell_it(lim_process *self)
{
    char text[24];
    snprintf(text, sizeof text, "tell %" PRIu64, ++next_ref);
    lim__tell *m = lim__letter_new(lim__proc_sched(self), &lim__type_tell, sizeof *m);
    *m = (lim__tell){ .ref = next_ref, .payload = lim__msg_new(lim__str(text)) };
    (void)!lim__send_reserved(self, now_of(talk_id), m);
}

static void receive_it(lim_process *self)
{
    lim__receive *r = lim__letter_new(lim__proc_sched(self), &lim__type_receive, sizeof *r);
    *r = (lim__receive){ .ref = ++next_ref, .deadline_ns = lim_now_ns(self) + 100 * MS };
    (void)!lim__send_reserved(self, now_of(talk_id), r);
}

static void command_it(lim_process *self, const lim__letter_type *type)
{
    lim__command *c = lim__letter_new(lim__proc_sched(self), type, sizeof *c);
    *c = (lim__command){ ++next_ref, lim_self(self) };
    (void)!lim__send_reserved(self, now_of(talk_id), c);
}

static void close_it(lim_process *self)
{
    command_it(self, &lim__type_close);
}

static void attach_it(lim_process *self)
{
    command_it(self, &lim__type_attach);
}

static void inspect_it(lim_process *self)
{
    command_it(self, &lim__type_inspect);
}

static bool is_done(void *ctx)
{
    return done_count >= *(uint32_t *)ctx;
}

static bool is_over(void *ctx)
{
    return outcome_count >= *(uint32_t *)ctx;
}

/* Does it, and waits for the next `done`, or the next outcome. */
static lim_err and_done(void (*what)(lim_process *self))
{
    uint32_t wanted = done_count + 1;
    do_now(what);
    durable_until(&w, is_done, &wanted);
    return last_done.err;
}

static const char *and_outcome(void (*what)(lim_process *self))
{
    uint32_t wanted = outcome_count + 1;
    do_now(what);
    durable_until(&w, is_over, &wanted);
    return outcomes[wanted - 1].text;
}

/* ---- a participant ---- */

static lim_done on_request(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    char reply[TEXT + 8];
    (void)ctx;
    if (d->event != LIM_EVENT_NONE)
        return LIM_DONE;
    assert_true(given_count < HEARD_MAX);
    char *text = given[given_count++];
    snprintf(text, TEXT, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    if (!d->wants_reply)
        return LIM_DONE;
    if (silent)
        return LIM_HOLD;
    snprintf(reply, sizeof reply, "re %s", text);
    (void)!lim_reply(bus, d, lim__str(reply));
    return LIM_DONE;
}

static uint8_t helper_session; /* of its connection, in every byte; 0: of this program */

static void helper(const char *identity)
{
    lim_pid group;
    lim_handler handler = { .on_message = on_request };
    assert_int_equal(lim__group_get(w.bus, NULL, lim__str("g"), &group), LIM_OK);
    assert_int_equal(lim__participant_spawn(w.bus, &handler, LIM__MEMBER_SERVE, group, &helper_pid), LIM_OK);
    lim__join *j = lim__join_new(NULL, helper_pid, LIM__MEMBER_SERVE, lim__str(identity), 16, NULL, NULL);
    assert_non_null(j);
    memset(j->session, helper_session, sizeof j->session);
    j->reply_to = helper_pid;
    assert_int_equal(lim__post_reserved(w.bus->rt, group, j), LIM_OK);
}

/* ---- lives ---- */

static void live(void)
{
    lim_spawn_opts opts = { .size = sizeof opts, .name = "owner", .on_signal = on_owner, .trap_exit = true };
    assert_int_equal(lim_runtime_spawn(w.bus->rt, &opts, &owner), LIM_OK);
    done_count = outcome_count = exit_count = 0;
}

static void begin(uint64_t seed)
{
    durable_open(&w, seed);
    dice = seed;
    given_count = 0;
    next_ref = 0;
    silent = false;
    helper_session = 0;
    open_ms = ask_ms = 0;
    how_to_open = (lim_conv_opts){ 0 };
    live();
}

static void die(void)
{
    if (pick(2) != 0)
        durable_kill(&w);
    else
        durable_power_off(&w);
    durable_start(&w);
    live();
}

static lim_conv_info info(void)
{
    assert_int_equal(and_done(inspect_it), LIM_OK);
    return last_done.info;
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

/* ---- tests ---- */

static void test_what_was_accepted_is_received_once_and_in_order_whatever_dies(void **state) /* proves CV15 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t sent[HEARD_MAX], sent_count = 0, got = 0;
        begin(seed);
        assert_int_equal(and_done(open_it), LIM_OK);
        for (uint32_t step = 0; step < 60; step++) {
            uint64_t what = pick(10);
            if (what < 5 && and_done(tell_it) == LIM_OK) {
                assert_int_equal(last_done.admission.verdict, LIM_ACCEPT);
                sent[sent_count++] = next_ref;
            } else if (what < 8 && got < sent_count) {
                char text[24];
                snprintf(text, sizeof text, "tell %" PRIu64, sent[got++]);
                assert_string_equal(and_outcome(receive_it), text);
            } else if (what == 8) {
                die();
                assert_int_equal(and_done(attach_it), LIM_OK);
            } else if (what == 9) { /* killed in the middle of something that nobody was told of */
                uint32_t before = done_count;
                do_now(tell_it);
                durable_settle(&w, pick(400) * 1000);
                uint32_t told = done_count - before;
                uint64_t maybe = next_ref;
                die();
                assert_int_equal(and_done(attach_it), LIM_OK);
                uint64_t there = info().buffered;
                assert_true(there == sent_count - got || there == sent_count - got + 1);
                assert_true(told == 0 || there == sent_count - got + 1);
                if (there == sent_count - got + 1)
                    sent[sent_count++] = maybe;
            }
        }
        die();
        assert_int_equal(and_done(attach_it), LIM_OK);
        assert_int_equal(info().buffered, sent_count - got);
        while (got < sent_count) {
            char text[24];
            snprintf(text, sizeof text, "tell %" PRIu64, sent[got++]);
            assert_string_equal(and_outcome(receive_it), text);
        }
        do_now(close_it);
        durable_settle(&w, SECOND);
        assert_int_equal(rows(), 2);
        durable_close(&w);
    }
}

static uint32_t times_given(const char *text)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < given_count; i++)
        n += strcmp(given[i], text) == 0;
    return n;
}

static void test_an_ask_is_asked_again_until_it_is_answered_and_never_after(void **state) /* proves CV15 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        begin(seed);
        how_to_open.group = "g";
        helper("p");
        durable_settle(&w, 10 * MS);
        assert_int_equal(and_done(open_it), LIM_OK);
        for (uint32_t round = 0; round < 12; round++) {
            char text[24], reply[32];
            uint64_t number = next_ref + 1;
            snprintf(text, sizeof text, "ask %" PRIu64, number);
            snprintf(reply, sizeof reply, "re ask %" PRIu64, number);
            if (pick(2) == 0) {
                assert_string_equal(and_outcome(ask_it), reply);
                uint32_t before = times_given(text);
                die();
                helper("p");
                assert_int_equal(and_done(attach_it), LIM_OK);
                durable_settle(&w, 2 * SECOND);
                assert_int_equal(times_given(text), before); /* answered from what is stored */
                continue;
            }
            do_now(ask_it);
            durable_settle(&w, pick(600) * 1000);
            bool told = outcome_count > 0 && outcomes[outcome_count - 1].ref == number;
            uint32_t given_before = times_given(text);
            die();
            durable_settle(&w, pick(3) * SECOND);
            helper("p");
            assert_int_equal(and_done(attach_it), LIM_OK);
            durable_settle(&w, 3 * SECOND);
            lim_conv_info now = info();
            assert_int_equal(now.pending, 0);
            if (told)
                assert_int_equal(times_given(text), given_before);
            if (given_before > 0 || times_given(text) > 0) { /* it was stored: its answer came, then or now */
                assert_true(times_given(text) >= 1);
                if (times_given(text) > given_before)
                    assert_string_equal(and_outcome(receive_it), reply);
                else
                    assert_int_equal(now.buffered, 0);
            }
        }
        durable_close(&w);
    }
}

static void test_deadlines_run_on_while_the_bus_is_away(void **state) /* proves CV15 */
{
    (void)state;
    begin(3);
    how_to_open.group = "g";
    silent = true;
    helper("p");
    durable_settle(&w, 10 * MS);
    open_ms = 60000;
    ask_ms = 20000;
    assert_int_equal(and_done(open_it), LIM_OK);
    do_now(ask_it);
    durable_settle(&w, 5 * SECOND);
    assert_int_equal(given_count, 1);
    durable_kill(&w);
    durable_settle(&w, 5 * SECOND); /* away */
    durable_start(&w);
    live();
    helper("p");
    assert_int_equal(and_done(attach_it), LIM_OK);
    durable_settle(&w, 5 * SECOND);
    assert_int_equal(given_count, 2); /* asked again */
    assert_int_equal(info().pending, 1);
    durable_settle(&w, 6 * SECOND);
    assert_int_equal(info().pending, 0);
    assert_in_range(info().remaining_ms, 37000, 40000);
    durable_settle(&w, 41 * SECOND);
    assert_int_equal(now_of(talk_id).id, talk_id); /* it is over: no alias */
    assert_int_equal(rows(), 2);
    durable_close(&w);
}

static void test_who_does_not_come_back_in_time_has_crashed(void **state) /* proves CV15 */
{
    (void)state;
    begin(4);
    how_to_open.group = "g";
    silent = true;
    helper("p");
    durable_settle(&w, 10 * MS);
    assert_int_equal(and_done(open_it), LIM_OK);
    do_now(ask_it);
    durable_settle(&w, SECOND);
    die();
    helper("somebody-else");
    assert_int_equal(and_done(attach_it), LIM_OK);
    durable_settle(&w, 9 * SECOND);
    assert_int_equal(info().phase, LIM_PHASE_ACTIVE);
    assert_int_equal(and_done(tell_it), LIM_OK); /* kept for it */
    durable_settle(&w, 2 * SECOND);
    assert_int_equal(info().phase, LIM_PHASE_BROKEN);
    assert_int_equal(info().dead, 1);
    assert_int_equal(info().pending, 0);
    assert_int_equal(given_count, 1);
    die(); /* broken it stays, until it is closed */
    assert_int_equal(info().phase, LIM_PHASE_BROKEN);
    do_now(close_it);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 2);
    durable_close(&w);
}

static void test_who_comes_back_is_known_by_its_session_too(void **state) /* proves CV15 */
{
    (void)state;
    for (int same = 0; same < 2; same++) {
        begin(14);
        how_to_open.group = "g";
        helper_session = 7;
        silent = true;
        helper("p");
        durable_settle(&w, 10 * MS);
        assert_int_equal(and_done(open_it), LIM_OK);
        do_now(ask_it);
        durable_settle(&w, SECOND);
        assert_int_equal(given_count, 1);
        die();
        helper_session = same ? 7 : 8; /* another program that calls itself p knows nothing of it */
        helper("p");
        assert_int_equal(and_done(attach_it), LIM_OK);
        durable_settle(&w, 12 * SECOND);
        assert_int_equal(given_count, same ? 2 : 1);
        assert_int_equal(info().phase, same ? LIM_PHASE_ACTIVE : LIM_PHASE_BROKEN);
        durable_close(&w);
    }
}

static void test_what_is_said_to_one_that_is_away_waits_for_it(void **state) /* proves CV15 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        begin(seed);
        how_to_open.group = "g";
        helper("p");
        durable_settle(&w, 10 * MS);
        assert_int_equal(and_done(open_it), LIM_OK);
        die();
        assert_int_equal(and_done(attach_it), LIM_OK);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(and_done(tell_it), LIM_OK);
            assert_int_equal(last_done.admission.verdict, LIM_ACCEPT);
        }
        assert_int_equal(given_count, 0);
        die();
        helper("p");
        durable_settle(&w, 3 * SECOND);
        assert_int_equal(given_count, 5);
        for (uint32_t i = 1; i < given_count; i++)
            assert_true(strtoul(given[i] + 5, NULL, 10) > strtoul(given[i - 1] + 5, NULL, 10));
        durable_close(&w);
    }
}

static void test_a_process_that_is_killed_comes_back_as_it_was(void **state) /* proves CV18 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        begin(seed);
        how_to_open.group = "g";
        how_to_open.name = "agent-1";
        helper("p");
        durable_settle(&w, 10 * MS);
        assert_int_equal(and_done(open_it), LIM_OK);
        assert_string_equal(and_outcome(ask_it), "re ask 1");
        silent = true;
        do_now(ask_it);
        durable_settle(&w, pick(600) * 1000);
        lim_pid before = now_of(talk_id);
        lim_runtime_exit(w.bus->rt, before, LIM_KILL);
        durable_settle(&w, SECOND);
        assert_int_not_equal(now_of(talk_id).id, before.id);
        assert_int_equal(lim_whereis(w.bus->rt, "agent-1").id, now_of(talk_id).id);
        lim_conv_info now = info();
        assert_int_equal(now.phase, LIM_PHASE_ACTIVE);
        assert_int_equal(now.alive, 1);
        assert_in_range(now.sent, 1, 2);
        assert_int_equal(now.pending, now.sent - 1); /* the second ask was stored, or it was not */
        durable_close(&w);
    }
}

static void test_one_that_died_while_it_was_answered_is_not_asked_again(void **state) /* proves CV18 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        begin(seed);
        how_to_open.group = "g";
        helper("p");
        durable_settle(&w, 10 * MS);
        assert_int_equal(and_done(open_it), LIM_OK);
        do_now(ask_it);
        durable_settle(&w, pick(900) * 1000);
        bool told = outcome_count > 0;
        lim_runtime_exit(w.bus->rt, now_of(talk_id), LIM_KILL);
        uint32_t before = given_count;
        durable_settle(&w, 2 * SECOND);
        if (told)
            assert_int_equal(given_count, before);
        lim_conv_info now = info();
        assert_int_equal(now.pending, 0);
        assert_true(now.received == now.sent);
        assert_true(outcome_count <= 1);
        assert_int_equal(exit_count, 1); /* how its asker hears of it when the answer did not leave any more */
        durable_close(&w);
    }
}

static void test_only_one_owner_at_a_time_and_none_is_needed(void **state)
{
    (void)state;
    begin(6);
    assert_int_equal(and_done(open_it), LIM_OK);
    lim_pid first = owner;
    live();
    assert_int_equal(and_done(attach_it), LIM_E_EXISTS);
    lim_runtime_exit(w.bus->rt, first, LIM_KILL);
    durable_settle(&w, 10 * MS);
    assert_int_equal(and_done(attach_it), LIM_OK);
    assert_int_equal(and_done(tell_it), LIM_OK);
    lim_runtime_exit(w.bus->rt, owner, LIM_KILL);
    durable_settle(&w, SECOND);
    live();
    assert_int_equal(info().buffered, 1); /* it lives on without one */
    durable_close(&w);
}

static void test_what_ended_can_be_looked_at_for_ten_minutes(void **state)
{
    (void)state;
    begin(7);
    how_to_open.trace = true;
    assert_int_equal(and_done(open_it), LIM_OK);
    assert_int_equal(and_done(tell_it), LIM_OK);
    die();
    uint64_t entries = 0;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    durable_settle(&w, SECOND);
    lim__json_open(&j, NULL, '{');
    assert_true(lim__history_living_json(w.bus, now_of(talk_id), 0, &j));
    lim__json_close(&j);
    lim__buf_add(&b, "", 1);
    const char *text = (const char *)b.ptr + b.start;
    assert_non_null(strstr(text, "\"opened\""));
    assert_non_null(strstr(text, "\"sent\""));
    assert_non_null(strstr(text, "\"restored\""));
    lim__buf_fini(&b);
    do_now(close_it);
    durable_settle(&w, SECOND);
    die();
    durable_settle(&w, SECOND);
    j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    assert_true(lim__history_ended_json(w.bus, (lim_pid){ talk_id }, 0, &j));
    lim__buf_add(&b, "", 1);
    assert_non_null(strstr((const char *)b.ptr + b.start, "\"ended\""));
    lim__buf_fini(&b);
    assert_int_equal(rows(), 2);
    (void)entries;
    durable_settle(&w, 300 * SECOND);
    assert_int_equal(and_done(open_it), LIM_OK);
    do_now(close_it);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 4);
    durable_settle(&w, 361 * SECOND); /* by itself, nothing else happens */
    assert_int_equal(rows(), 2);
    durable_settle(&w, 301 * SECOND);
    assert_int_equal(rows(), 0);
    assert_int_equal(and_done(open_it), LIM_OK);
    do_now(close_it);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 2);
    durable_kill(&w);
    durable_settle(&w, 601 * SECOND);
    durable_start(&w);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 0); /* at the start, too */
    durable_close(&w);
}

static void test_a_store_that_takes_nothing_opens_nothing_and_holds_the_rest_back(void **state)
{
    (void)state;
    begin(8);
    assert_int_equal(and_done(open_it), LIM_OK);
    lim__sim_disk disk = lim__sim_disk_get(w.os), good = disk;
    disk.write_error_permille = 1000;
    lim__sim_disk_set(w.os, &disk);
    do_now(tell_it);
    durable_settle(&w, 3 * SECOND);
    assert_int_equal(done_count, 1); /* not answered: it is not stored */
    uint64_t first = talk_id;
    assert_int_equal(and_done(open_it), LIM_E_IO);
    lim__sim_disk_set(w.os, &good);
    durable_settle(&w, 5 * SECOND);
    assert_int_equal(done_count, 3);
    assert_int_equal(last_done.admission.verdict, LIM_ACCEPT);
    talk_id = first;
    assert_int_equal(info().buffered, 1);
    durable_close(&w);
}

static void test_one_that_cannot_be_opened_is_not_stored(void **state)
{
    (void)state;
    begin(9);
    how_to_open.group = "nobody";
    assert_int_equal(and_done(open_it), LIM_E_NOTFOUND);
    do_now(close_it);
    durable_settle(&w, 10 * MS);
    how_to_open.group = NULL;
    how_to_open.name = "one";
    assert_int_equal(and_done(open_it), LIM_OK);
    assert_int_equal(and_done(open_it), LIM_E_EXISTS);
    do_now(close_it);
    durable_settle(&w, SECOND);
    assert_int_equal(rows(), 2);
    durable_close(&w);
}

static void test_steps_are_one_commit_each(void **state) /* proves CV15 */
{
    (void)state;
    begin(10);
    how_to_open.group = "g";
    helper("p");
    durable_settle(&w, SECOND);
    lim__store_info before, after;
    lim__store_info_get(lim__durable_store(w.bus), &before);
    assert_int_equal(and_done(open_it), LIM_OK);
    lim__store_info_get(lim__durable_store(w.bus), &after);
    assert_int_equal(after.batches - before.batches, 1);
    assert_string_equal(and_outcome(ask_it), "re ask 1");
    lim__store_info_get(lim__durable_store(w.bus), &after);
    assert_int_equal(after.batches - before.batches, 3); /* asked, answered */
    for (int i = 0; i < 10; i++)
        assert_int_equal(and_done(inspect_it), LIM_OK); /* nothing changes */
    do_now(close_it);
    durable_settle(&w, SECOND);
    lim__store_info_get(lim__durable_store(w.bus), &after);
    assert_int_equal(after.batches - before.batches, 4);
    durable_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_accepted_is_received_once_and_in_order_whatever_dies),
        cmocka_unit_test(test_an_ask_is_asked_again_until_it_is_answered_and_never_after),
        cmocka_unit_test(test_deadlines_run_on_while_the_bus_is_away),
        cmocka_unit_test(test_who_does_not_come_back_in_time_has_crashed),
        cmocka_unit_test(test_who_comes_back_is_known_by_its_session_too),
        cmocka_unit_test(test_what_is_said_to_one_that_is_away_waits_for_it),
        cmocka_unit_test(test_a_process_that_is_killed_comes_back_as_it_was),
        cmocka_unit_test(test_one_that_died_while_it_was_answered_is_not_asked_again),
        cmocka_unit_test(test_only_one_owner_at_a_time_and_none_is_needed),
        cmocka_unit_test(test_what_ended_can_be_looked_at_for_ten_minutes),
        cmocka_unit_test(test_a_store_that_takes_nothing_opens_nothing_and_holds_the_rest_back),
        cmocka_unit_test(test_one_that_cannot_be_opened_is_not_stored),
        cmocka_unit_test(test_steps_are_one_commit_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
