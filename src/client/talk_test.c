/* SPDX-License-Identifier: Apache-2.0
 * talk_test.c - conversations from an event loop: every verb without waiting, each callback exactly once, whatever
 * happens; and what is done to conversations from outside. */
#include "client/fake.h"

#include <stdio.h>

typedef struct heard {
    int opened, done, outcomes, admissions;
    lim_err err;
    lim_conv conv;
    char detail[64], text[64];
    lim_outcome last; /* its views are over */
    lim_client *c;    /* receive again, from inside */
    lim_admission admission;
} heard;

static void on_conv(void *ctx, lim_err err, lim_conv conv, const char *detail)
{
    heard *h = ctx;
    h->opened++;
    h->err = err;
    h->conv = conv;
    snprintf(h->detail, sizeof h->detail, "%s", detail);
}
static void on_done(void *ctx, lim_err err, const char *detail)
{
    heard *h = ctx;
    h->done++;
    h->err = err;
    snprintf(h->detail, sizeof h->detail, "%s", detail);
}
static void on_outcome(void *ctx, const lim_outcome *o)
{
    heard *h = ctx;
    h->outcomes++;
    h->last = *o;
    snprintf(h->text, sizeof h->text, "%.*s", (int)o->payload.len, (const char *)o->payload.ptr);
    snprintf(h->detail, sizeof h->detail, "%.*s", (int)o->detail.len, (const char *)o->detail.ptr);
    if (h->c && o->how == LIM_HOW_REPLY)
        assert_int_equal(lim_client_conv_receive_async(h->c, o->conv, 60000, on_outcome, h), LIM_OK);
}
static void on_admission(void *ctx, lim_err err, const lim_admission *a)
{
    heard *h = ctx;
    h->admissions++;
    h->err = err;
    if (a)
        h->admission = *a;
}

static const lim_client_conv_opts plain = { .size = sizeof plain, .group = "g", .timeout_ms = LIM_FOREVER };

static uint32_t open_talk(fake *f, lim_client *c, heard *h)
{
    assert_int_equal(lim_client_conv_open_async(c, &plain, on_conv, h), LIM_OK);
    pump(f, c);
    HEAR(f, OPEN, open, o);
    SAY(f, opened, .stream = o.stream, .conversation = 50);
    pump(f, c);
    assert_int_equal(h->err, LIM_OK);
    assert_int_equal(h->conv.id, 50);
    return o.stream;
}

static void message(fake *f, lim_client *c, uint32_t stream, const char *text)
{
    SAY(f, message, .stream = stream, .from = 9, .seq = 1, .payload = lim__str(text));
    pump(f, c);
}

static const lim_conv conv50 = { 50 };

/* ---- the life of one ---- */

static void test_an_event_loop_has_a_conversation(void **state) /* proves CV12 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 }, asked = { 0 };
    lim_participant nine = { 9 };
    uint64_t call;
    uint32_t on = open_talk(f, c, &h);
    assert_int_equal(h.opened, 1);
    assert_int_equal(lim_client_conv_join_async(c, conv50, nine, true, on_done, &h), LIM_OK);
    assert_int_equal(lim_client_conv_send(c, conv50, nine, TEXT("hi"), on_admission, &h), LIM_OK);
    assert_int_equal(lim_client_conv_ask_async(c, conv50, nine, TEXT("now?"), 500, on_outcome, &asked, &call), LIM_OK);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 60000, on_outcome, &h), LIM_OK);
    assert_int_equal(lim_client_conv_leave_async(c, conv50, nine, on_done, &h), LIM_OK);
    pump(f, c);
    HEAR(f, JOIN, join, j);
    HEAR(f, SEND, send, s);
    HEAR(f, ASKIN, askin, a);
    HEAR(f, DEPART, depart, d);
    assert_true(lim__bytes_eq(j.options, TEXT("\000\001\010required\000\0011")));
    assert_int_equal(a.corr, call);
    assert_int_equal(a.to, 9);
    assert_int_equal(d.participant, 9);
    assert_true(d.corr != j.corr);
    SAY(f, joined, .stream = on, .corr = j.corr);
    SAY(f, sent, .stream = on, .first_corr = s.corr, .count = 1, .verdict = LIM_REJECT, .why = LIM_WHY_CLOSING,
        .phase = LIM_PHASE_ENDED, .wanted = LIM_PHASE_ACTIVE, .limit = 7, .current = 6, .retry_after_ms = 5);
    SAY(f, outcome, .corr = a.corr, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .payload = TEXT("12:00"));
    SAY(f, message, .stream = on, .from = 9, .seq = 1, .payload = TEXT("hello"));
    pump(f, c);
    assert_int_equal(h.done, 1);
    assert_int_equal(h.admissions, 1);
    assert_int_equal(h.admission.phase, LIM_PHASE_ENDED);
    assert_int_equal(h.admission.wanted, LIM_PHASE_ACTIVE);
    assert_int_equal(h.admission.limit + h.admission.current + h.admission.retry_after_ms, 18);
    assert_string_equal(asked.text, "12:00");
    assert_int_equal(h.outcomes, 1);
    assert_string_equal(h.text, "hello");
    assert_int_equal(h.last.from.id, 9);
    SAY(f, joined, .stream = on, .corr = d.corr, .code = LIM_E_NOTFOUND, .detail = TEXT("not found"));
    pump(f, c);
    assert_int_equal(h.done, 2);
    assert_int_equal(h.err, LIM_E_NOTFOUND);
    assert_string_equal(h.detail, "not found");
    assert_int_equal(lim_client_timeout_ms(c), -1); /* nothing is expected */
    assert_int_equal(lim_client_conv_close(c, conv50), LIM_OK);
    pump(f, c);
    take(f, LIM__CLOSE);
    fake_end(f, c);
}

static void test_what_a_conversation_is_opened_with_is_said(void **state)
{
    (void)state;
    static const char *const attributes[] = { "floor=3", "kind=room", NULL };
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    lim_bytes found;
    lim_client_conv_opts opts = { .size = sizeof opts,
                                  .timeout_ms = 5000,
                                  .on_crash = LIM_CRASH_COMPENSATE,
                                  .compensate = "undo",
                                  .name = "room-1",
                                  .attributes = attributes,
                                  .cause = { { 0xab }, 2, 1000, "" } };
    assert_int_equal(lim_client_conv_open_async(c, &opts, on_conv, &h), LIM_OK);
    opts.compensate = NULL;
    assert_int_equal(lim_client_conv_open_async(c, &opts, on_conv, &h), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_open_async(c, &plain, NULL, &h), LIM_E_INVALID);
    pump(f, c);
    HEAR(f, OPEN, open, o);
    assert_int_equal(o.on_crash, LIM_CRASH_COMPENSATE);
    assert_int_equal(o.timeout_ms, 1000); /* no more than its cause has */
    assert_true(lim__packed_get(o.options, TEXT("name"), &found) && lim__bytes_eq(found, TEXT("room-1")));
    assert_true(lim__packed_get(o.options, TEXT("attr"), &found) && lim__bytes_eq(found, TEXT("kind=room")));
    assert_true(lim__packed_get(o.options, TEXT("parent"), &found) && lim__bytes_eq(found, TEXT("ab")));
    assert_true(lim__packed_get(o.options, TEXT("hops"), &found) && lim__bytes_eq(found, TEXT("3")));
    SAY(f, opened, .stream = o.stream, .code = LIM_E_EXISTS, .detail = TEXT("a living conversation has that name"));
    pump(f, c);
    assert_int_equal(h.opened, 1);
    assert_int_equal(h.err, LIM_E_EXISTS);
    assert_string_equal(h.detail, "a living conversation has that name");
    silent(f);
    fake_end(f, c);
    assert_int_equal(h.opened, 1);
}

/* ---- receives ---- */

static void test_receives_are_first_come_first_served(void **state) /* proves CV10 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 }, one = { 0 }, two = { 0 };
    uint32_t on = open_talk(f, c, &h);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 60000, on_outcome, &one), LIM_OK);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, LIM_FOREVER, on_outcome, &two), LIM_OK);
    message(f, c, on, "a");
    assert_int_equal(one.outcomes + two.outcomes, 1);
    assert_string_equal(one.text, "a");
    message(f, c, on, "b");
    assert_string_equal(two.text, "b");
    message(f, c, on, "c");
    message(f, c, on, "d");
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 60000, on_outcome, &one), LIM_OK);
    assert_int_equal(one.outcomes, 1); /* not from inside the call */
    assert_int_equal(lim_client_timeout_ms(c), 0);
    SAY(f, message, .stream = on, .from = 9, .seq = 5, .payload = TEXT("e"));
    pump(f, c);
    assert_int_equal(one.outcomes, 2);
    assert_string_equal(one.text, "c");
    two.c = c; /* d, e, and then it waits */
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 60000, on_outcome, &two), LIM_OK);
    pump(f, c);
    assert_int_equal(two.outcomes, 3);
    assert_string_equal(two.text, "e");
    two.c = NULL;
    fake_end(f, c);
    assert_int_equal(two.outcomes, 4);
    assert_int_equal(two.last.how, LIM_HOW_CLOSED);
}

static void test_a_receive_that_was_late_takes_nothing_with_it(void **state) /* proves CV9 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 }, late = { 0 }, other = { 0 };
    uint32_t on = open_talk(f, c, &h);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &other), LIM_OK);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 500, on_outcome, &late), LIM_OK);
    assert_in_range(lim_client_timeout_ms(c), 0, 500);
    later(f, c, 499);
    assert_int_equal(late.outcomes, 0);
    later(f, c, 1);
    assert_int_equal(late.outcomes, 1);
    assert_int_equal(late.last.how, LIM_HOW_TIMEOUT);
    assert_int_equal(other.outcomes, 0);
    message(f, c, on, "a");
    assert_string_equal(other.text, "a");
    later(f, c, 10000);
    assert_int_equal(late.outcomes + other.outcomes, 2);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 0, on_outcome, &late), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_receive_async(c, (lim_conv){ 51 }, 1, on_outcome, &late), LIM_E_GONE);
    fake_end(f, c);
}

static void test_events_are_received_among_the_messages(void **state) /* proves CV12 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint32_t on = open_talk(f, c, &h);
    SAY(f, message, .stream = on, .from = 9, .seq = 1, .event = LIM_EVENT_CRASHED, .note = TEXT("connection_lost"));
    SAY(f, message, .stream = on, .from = 8, .seq = 2, .payload = TEXT("after"));
    pump(f, c);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &h), LIM_OK);
    pump(f, c);
    assert_int_equal(h.last.event, LIM_EVENT_CRASHED);
    assert_int_equal(h.last.from.id, 9);
    assert_int_equal(h.last.how, LIM_HOW_REPLY);
    assert_string_equal(h.detail, "connection_lost");
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &h), LIM_OK);
    pump(f, c);
    assert_int_equal(h.last.event, LIM_EVENT_NONE);
    assert_string_equal(h.text, "after");
    fake_end(f, c);
}

static void test_what_has_come_stays_readable_after_the_end(void **state) /* proves CV6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint32_t on = open_talk(f, c, &h);
    SAY(f, message, .stream = on, .from = 9, .seq = 1, .payload = TEXT("last words"));
    SAY(f, closed, .stream = on, .phase = LIM_PHASE_BROKEN, .reason = LIM_LOST, .detail = TEXT("connection lost"));
    pump(f, c);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &h), LIM_OK);
    pump(f, c);
    assert_string_equal(h.text, "last words");
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &h), LIM_OK);
    pump(f, c);
    assert_int_equal(h.last.how, LIM_HOW_CRASHED);
    assert_int_equal(h.last.reason, LIM_LOST);
    assert_string_equal(h.detail, "connection lost");
    assert_int_equal(lim_client_conv_join_async(c, conv50, (lim_participant){ 9 }, false, on_done, &h), LIM_E_GONE);
    assert_int_equal(lim_client_conv_close(c, conv50), LIM_OK);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 1000, on_outcome, &h), LIM_E_GONE);
    fake_end(f, c);
    assert_int_equal(h.outcomes, 2);
}

/* ---- ends ---- */

static void all_at_once(lim_client *c, heard *h)
{
    lim_participant nine = { 9 };
    assert_int_equal(lim_client_conv_receive_async(c, conv50, LIM_FOREVER, on_outcome, h), LIM_OK);
    assert_int_equal(lim_client_conv_ask_async(c, conv50, nine, TEXT("q"), 500, on_outcome, h, NULL), LIM_OK);
    assert_int_equal(lim_client_conv_join_async(c, conv50, nine, false, on_done, h), LIM_OK);
    assert_int_equal(lim_client_conv_leave_async(c, conv50, nine, on_done, h), LIM_OK);
    assert_int_equal(lim_client_conv_send(c, conv50, nine, TEXT("hi"), on_admission, h), LIM_OK);
    assert_int_equal(lim_client_conv_open_async(c, &plain, on_conv, h), LIM_OK);
    assert_int_equal(lim_client_conv_find_async(c, "room-1", on_conv, h), LIM_OK);
    assert_int_equal(lim_client_signal_async(c, (lim_conv){ 90 }, "pause", TEXT("x"), on_done, h), LIM_OK);
    assert_int_equal(lim_client_await_async(c, (lim_conv){ 90 }, on_outcome, h, NULL), LIM_OK);
}

static void test_a_break_ends_everything_once(void **state) /* proves CV3 */
{
    (void)state;
    for (int closes = 0; closes < 2; closes++) {
        fake *f = fake_new();
        lim_client *c = fake_up(f, NULL);
        heard h = { 0 };
        open_talk(f, c, &h);
        all_at_once(c, &h);
        pump(f, c);
        if (closes) {
            fake_end(f, c);
        } else {
            reconnect(f, c);
            assert_int_equal(lim_client_conv_send(c, conv50, (lim_participant){ 0 }, TEXT("x"), NULL, NULL),
                             LIM_E_GONE);
        }
        assert_int_equal(h.opened, 3); /* one was open before */
        assert_int_equal(h.done, 3);
        assert_int_equal(h.admissions, 1);
        assert_int_equal(h.outcomes, 3);
        if (!closes)
            fake_end(f, c);
        assert_int_equal(h.opened + h.done + h.admissions + h.outcomes, 10);
    }
}

static void test_a_conversation_that_was_lost_is_attached_to_under_its_id(void **state) /* proves CV15 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    message(f, c, open_talk(f, c, &h), "from before");
    reconnect(f, c);
    const lim_client_conv_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .attach = conv50 };
    assert_int_equal(lim_client_conv_open_async(c, &opts, on_conv, &h), LIM_OK);
    pump(f, c);
    HEAR(f, OPEN, open, again);
    SAY(f, opened, .stream = again.stream, .conversation = 50);
    pump(f, c);
    assert_int_equal(h.opened, 2);
    assert_int_equal(h.err, LIM_OK);
    message(f, c, again.stream, "from now");
    assert_int_equal(lim_client_conv_receive_async(c, conv50, 60000, on_outcome, &h), LIM_OK);
    pump(f, c);
    assert_string_equal(h.text, "from now"); /* the id means this one */
    assert_int_equal(lim_client_conv_close(c, conv50), LIM_OK);
    pump(f, c);
    HEAR(f, CLOSE, close, over);
    assert_int_equal(over.stream, again.stream);
    fake_end(f, c);
}

static void test_a_close_ends_receives_at_once_and_the_rest_when_the_server_says_so(void **state) /* proves CV14 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint32_t on = open_talk(f, c, &h);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, LIM_FOREVER, on_outcome, &h), LIM_OK);
    assert_int_equal(lim_client_conv_join_async(c, conv50, (lim_participant){ 9 }, false, on_done, &h), LIM_OK);
    assert_int_equal(lim_client_conv_close(c, conv50), LIM_OK);
    assert_int_equal(h.outcomes, 0); /* not from inside the call */
    pump(f, c);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.last.how, LIM_HOW_CLOSED);
    assert_int_equal(h.done, 0);
    SAY(f, closed, .stream = on, .phase = LIM_PHASE_ENDED, .reason = LIM_NORMAL);
    pump(f, c);
    assert_int_equal(h.done, 1);
    assert_int_equal(h.err, LIM_E_CLOSED);
    fake_end(f, c);
    assert_int_equal(h.done + h.outcomes, 2);
}

static void test_a_silent_server_is_found_out_while_something_is_to_be_received(void **state) /* proves CV4 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    open_talk(f, c, &h);
    assert_int_equal(lim_client_conv_receive_async(c, conv50, LIM_FOREVER, on_outcome, &h), LIM_OK);
    pump(f, c);
    f->mute = true;
    later(f, c, 2000);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    later(f, c, 4000);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.last.how, LIM_HOW_LOST);
    fake_end(f, c);
}

/* ---- from outside ---- */

static void test_a_conversation_is_found_and_signalled_from_outside(void **state) /* proves CV19 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    assert_int_equal(lim_client_conv_find_async(c, "", on_conv, &h), LIM_E_INVALID);
    assert_int_equal(lim_client_signal_async(c, (lim_conv){ 0 }, "pause", TEXT(""), on_done, &h), LIM_E_INVALID);
    assert_int_equal(lim_client_conv_find_async(c, "room-1", on_conv, &h), LIM_OK);
    assert_int_equal(lim_client_conv_find_async(c, "room-2", on_conv, &h), LIM_OK);
    assert_int_equal(lim_client_signal_async(c, (lim_conv){ 90 }, "pause", TEXT("1h"), on_done, &h), LIM_OK);
    assert_int_equal(lim_client_signal_async(c, (lim_conv){ 91 }, "pause", TEXT("1h"), NULL, NULL), LIM_OK);
    pump(f, c);
    HEAR(f, FIND, find, one);
    HEAR(f, FIND, find, two);
    HEAR(f, SIGNAL, signal, s);
    HEAR(f, SIGNAL, signal, t);
    assert_true(lim__bytes_eq(one.name, TEXT("room-1")));
    assert_true(lim__bytes_eq(s.name, TEXT("pause")));
    assert_true(lim__bytes_eq(s.payload, TEXT("1h")));
    assert_int_equal(s.conversation, 90);
    assert_int_equal(lim_client_cancel(c, one.corr), LIM_E_GONE); /* not an ask */
    SAY(f, found, .corr = one.corr, .conversation = 93);
    pump(f, c);
    assert_int_equal(h.conv.id, 93);
    assert_int_equal(h.err, LIM_OK);
    SAY(f, found, .corr = two.corr, .code = LIM_E_NOTFOUND, .detail = TEXT("none"));
    pump(f, c);
    assert_int_equal(h.err, LIM_E_NOTFOUND);
    assert_string_equal(h.detail, "none");
    SAY(f, signalled, .corr = s.corr, .code = LIM_E_GONE);
    SAY(f, signalled, .corr = t.corr);
    pump(f, c);
    assert_int_equal(h.done, 1);
    assert_int_equal(h.err, LIM_E_GONE);
    assert_int_equal(h.opened, 2);
    fake_end(f, c);
}

static void test_an_await_is_withdrawn_by_its_number(void **state) /* proves GR13 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint64_t call;
    assert_int_equal(lim_client_await_async(c, (lim_conv){ 0 }, on_outcome, &h, &call), LIM_E_INVALID);
    assert_int_equal(lim_client_await_async(c, (lim_conv){ 90 }, on_outcome, &h, &call), LIM_OK);
    assert_int_equal(lim_client_cancel(c, call), LIM_OK);
    pump(f, c);
    HEAR(f, AWAIT, await, a);
    HEAR(f, CANCEL, cancel, x);
    assert_int_equal(x.corr, a.corr);
    SAY(f, outcome, .corr = call, .how = LIM_HOW_CANCELLED, .handed_over = LIM_HANDED_NO);
    pump(f, c);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.last.how, LIM_HOW_CANCELLED);
    fake_end(f, c);
}

static void test_what_a_task_is_dispatched_with_is_said(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim_dispatch_opts opts = { .size = sizeof opts,
                               .timeout_ms = 1000,
                               .priority = LIM_PRIORITY(9),
                               .key = "tenant-1",
                               .unique_key = "u",
                               .on_duplicate = LIM_UNIQUE_JOIN,
                               .idempotency_key = "o-17",
                               .delay_ms = 250,
                               .report_to = { 0xcd } };
    static const char *const want[][2] = { { "priority", "9" },   { "key", "tenant-1" },
                                           { "unique_key", "u" }, { "on_duplicate", "join" },
                                           { "delay_ms", "250" }, { "idempotency_key", "o-17" },
                                           { "report_to", "cd" } };
    lim_bytes found;
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("x"), &opts, NULL, NULL, NULL), LIM_OK);
    opts.priority = 11;
    assert_int_equal(lim_client_dispatch_async(c, "q", TEXT("x"), &opts, NULL, NULL, NULL), LIM_E_INVALID);
    pump(f, c);
    HEAR(f, DISPATCH, dispatch, d);
    for (size_t i = 0; i < LIM_COUNT(want); i++)
        assert_true(lim__packed_get(d.options, lim__str(want[i][0]), &found) &&
                    lim__bytes_eq(found, lim__str(want[i][1])));
    silent(f);
    fake_end(f, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event_loop_has_a_conversation),
        cmocka_unit_test(test_what_a_conversation_is_opened_with_is_said),
        cmocka_unit_test(test_receives_are_first_come_first_served),
        cmocka_unit_test(test_a_receive_that_was_late_takes_nothing_with_it),
        cmocka_unit_test(test_events_are_received_among_the_messages),
        cmocka_unit_test(test_what_has_come_stays_readable_after_the_end),
        cmocka_unit_test(test_a_break_ends_everything_once),
        cmocka_unit_test(test_a_conversation_that_was_lost_is_attached_to_under_its_id),
        cmocka_unit_test(test_a_close_ends_receives_at_once_and_the_rest_when_the_server_says_so),
        cmocka_unit_test(test_a_silent_server_is_found_out_while_something_is_to_be_received),
        cmocka_unit_test(test_a_conversation_is_found_and_signalled_from_outside),
        cmocka_unit_test(test_an_await_is_withdrawn_by_its_number),
        cmocka_unit_test(test_what_a_task_is_dispatched_with_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
