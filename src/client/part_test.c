/* SPDX-License-Identifier: Apache-2.0
 * part_test.c - answers in parts and answers of many: credit on the side that asks and on the side that answers, and
 * what else an answering participant says meanwhile: progress; and hears: events. */
#include "client/fake.h"

#include <stdio.h>

typedef struct heard { /* by who asked */
    uint32_t seq[64], count;
    lim_how how[64];
    char text[64], who[16];
    uint64_t conv;
    lim_done says; /* of each part; 0: DONE */
    int outcomes;
    lim_how end;
    uint32_t parts_at_end;
    uint64_t compensation;
} heard;

static lim_done on_part(void *ctx, const lim_part_view *part)
{
    heard *h = ctx;
    assert_int_equal(h->outcomes, 0);
    assert_true(h->count < LIM_COUNT(h->seq));
    h->how[h->count] = part->how;
    h->seq[h->count++] = part->seq;
    h->conv = part->conv.id;
    lim_bytes text = part->how == LIM_HOW_REPLY ? part->payload : part->detail;
    snprintf(h->text, sizeof h->text, "%.*s", (int)text.len, (const char *)text.ptr);
    snprintf(h->who, sizeof h->who, "%.*s", (int)part->participant.len, (const char *)part->participant.ptr);
    return h->says ? h->says : LIM_DONE;
}

static void on_outcome(void *ctx, const lim_outcome *o)
{
    heard *h = ctx;
    h->outcomes++;
    h->end = o->how;
    h->parts_at_end = h->count;
    h->compensation = o->compensation.id;
}

static bool has_option(lim_bytes options, const char *key, const char *text)
{
    lim_bytes found;
    return lim__packed_get(options, lim__str(key), &found) && lim__bytes_eq(found, lim__str(text));
}

/* An ask for parts; answers its number on the wire, which the client's is, too. */
static uint64_t stream(fake *f, lim_client *c, heard *h, uint32_t window)
{
    uint64_t call;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 5000, .type = "tokens", .window = window };
    assert_int_equal(lim_client_ask_stream(c, "model", TEXT("q"), &opts, on_part, on_outcome, h, &call), LIM_OK);
    pump(f, c);
    HEAR(f, ASK, ask, a);
    assert_int_equal(a.corr, call);
    return call;
}

static void part(fake *f, lim_client *c, uint64_t call, uint32_t seq)
{
    SAY(f, partial, .corr = call, .conversation = 80, .seq = seq, .how = LIM_HOW_REPLY, .participant = TEXT("w1"),
        .payload = TEXT("tok"));
    pump(f, c);
}

static void hear_grant(fake *f, uint64_t call, uint32_t parts)
{
    HEAR(f, GRANT, grant, g);
    assert_int_equal(g.corr, call);
    assert_int_equal(g.parts, parts);
}

/* ---- who asks ---- */

static void test_parts_of_an_answer_are_told_in_order_and_granted_in_batches(void **state) /* proves CV13 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint64_t call;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 5000, .window = 8, .trace = true };
    assert_int_equal(lim_client_ask_stream(c, "model", TEXT("q"), &opts, on_part, on_outcome, &h, &call), LIM_OK);
    pump(f, c);
    HEAR(f, ASK, ask, a);
    assert_true(has_option(a.options, "window", "8"));
    assert_true(has_option(a.options, "trace", "1"));
    part(f, c, call, 1);
    silent(f); /* a quarter of the window is not done yet */
    part(f, c, call, 2);
    hear_grant(f, call, 2);
    for (uint32_t i = 3; i <= 12; i++)
        part(f, c, call, i);
    for (int i = 0; i < 5; i++)
        hear_grant(f, call, 2);
    SAY(f, outcome, .corr = call, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .compensation = 7);
    pump(f, c);
    assert_int_equal(h.count, 12);
    for (uint32_t i = 0; i < h.count; i++)
        assert_int_equal(h.seq[i], i + 1);
    assert_string_equal(h.text, "tok");
    assert_string_equal(h.who, "w1");
    assert_int_equal(h.conv, 80);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.compensation, 7);
    assert_int_equal(lim_client_timeout_ms(c), -1);
    fake_end(f, c);
    assert_int_equal(h.outcomes, 1);
}

static void test_a_window_of_one_is_granted_one_by_one(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint64_t call = stream(f, c, &h, 1);
    for (uint32_t i = 1; i <= 5; i++) {
        part(f, c, call, i);
        hear_grant(f, call, 1);
    }
    fake_end(f, c);
    assert_int_equal(h.end, LIM_HOW_CLOSED);
}

static void test_a_held_part_is_granted_when_it_is_done_with(void **state) /* proves CV13 PR3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { .says = LIM_HOLD };
    uint64_t call = stream(f, c, &h, 4);
    for (uint32_t i = 1; i <= 3; i++)
        part(f, c, call, i);
    silent(f);
    assert_int_equal(lim_client_grant(c, call, 0), LIM_E_INVALID);
    assert_int_equal(lim_client_grant(c, call, 4), LIM_E_INVALID); /* three are held */
    assert_int_equal(lim_client_grant(c, call, 2), LIM_OK);
    pump(f, c);
    hear_grant(f, call, 2);
    h.says = LIM_DONE;
    for (uint32_t i = 4; i <= 6; i++) /* with the one that is held, the window is full: nothing more can come */
        part(f, c, call, i);
    hear_grant(f, call, 1);
    hear_grant(f, call, 1);
    hear_grant(f, call, 1);
    assert_int_equal(lim_client_grant(c, call + 1, 1), LIM_E_GONE);
    SAY(f, outcome, .corr = call, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES);
    pump(f, c);
    assert_int_equal(lim_client_grant(c, call, 1), LIM_E_GONE);
    fake_end(f, c);
}

static void test_held_parts_do_not_keep_the_rest_from_coming(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { .says = LIM_HOLD };
    uint64_t call = stream(f, c, &h, 8);
    for (uint32_t i = 1; i <= 7; i++)
        part(f, c, call, i);
    silent(f);
    h.says = LIM_DONE;
    part(f, c, call, 8); /* less than a quarter is done, but without it the answer would stand still */
    hear_grant(f, call, 1);
    fake_end(f, c);
}

static void test_a_server_that_sends_beyond_the_window_is_left(void **state) /* proves PR3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { .says = LIM_HOLD };
    uint64_t call = stream(f, c, &h, 2);
    for (uint32_t i = 1; i <= 3; i++)
        part(f, c, call, i);
    assert_int_equal(h.count, 2);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.end, LIM_HOW_LOST);
    fake_end(f, c);
}

static void test_everybody_is_asked_and_heard(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 };
    uint64_t call;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 1000, .quorum = 2 };
    assert_int_equal(lim_client_ask_all(c, "sensors", TEXT("q"), &opts, on_part, on_outcome, &h, &call), LIM_OK);
    opts.quorum = 0;
    assert_int_equal(lim_client_ask_all(c, "sensors", TEXT("q"), &opts, on_part, on_outcome, &h, NULL), LIM_OK);
    opts.participant.id = 9;
    assert_int_equal(lim_client_ask_all(c, NULL, TEXT("q"), &opts, on_part, on_outcome, &h, NULL), LIM_E_INVALID);
    assert_int_equal(lim_client_ask_all(c, "sensors", TEXT("q"), NULL, on_part, on_outcome, &h, NULL), LIM_E_INVALID);
    opts.participant.id = 0;
    assert_int_equal(lim_client_ask_all(c, "sensors", TEXT("q"), &opts, NULL, on_outcome, &h, NULL), LIM_E_INVALID);
    pump(f, c);
    HEAR(f, ASK, ask, a);
    HEAR(f, ASK, ask, b);
    assert_true(has_option(a.options, "quorum", "2"));
    assert_true(has_option(b.options, "quorum", "0"));
    SAY(f, partial, .corr = call, .seq = 1, .how = LIM_HOW_REPLY, .participant = TEXT("s1"), .payload = TEXT("20"));
    SAY(f, partial, .corr = call, .seq = 2, .how = LIM_HOW_CRASHED, .participant = TEXT("s2"),
        .detail = TEXT("killed"));
    SAY(f, partial, .corr = call, .seq = 3, .how = LIM_HOW_REPLY, .participant = TEXT("s3"), .payload = TEXT("21"));
    SAY(f, outcome, .corr = call, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .attempts = 3, .losses = 1);
    pump(f, c);
    silent(f); /* no credit is needed for one answer of each */
    assert_int_equal(h.count, 3);
    assert_int_equal(h.how[0], LIM_HOW_REPLY);
    assert_int_equal(h.how[1], LIM_HOW_CRASHED);
    assert_string_equal(h.who, "s3");
    assert_int_equal(h.outcomes, 1);
    fake_end(f, c);
}

static void test_answers_in_parts_end_lost_with_the_connection(void **state) /* proves CV3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    heard h = { 0 }, all = { 0 };
    uint64_t call = stream(f, c, &h, 4);
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 1000 };
    assert_int_equal(lim_client_ask_all(c, "sensors", TEXT("q"), &opts, on_part, on_outcome, &all, NULL), LIM_OK);
    pump(f, c);
    part(f, c, call, 1);
    reconnect(f, c);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.outcomes, 1);
    assert_int_equal(h.end, LIM_HOW_LOST);
    assert_int_equal(all.outcomes, 1);
    assert_int_equal(all.end, LIM_HOW_LOST);
    fake_end(f, c);
    assert_int_equal(h.outcomes + all.outcomes, 2);
}

/* ---- who answers ---- */

typedef struct worker {
    int requests, events, credits, revoked;
    uint32_t credit;   /* told last */
    lim_delivery last; /* its views are over */
    char type[32], payload[32];
} worker;

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    worker *w = ctx;
    (void)c;
    w->requests += d->event == LIM_EVENT_NONE;
    w->events += d->event != LIM_EVENT_NONE;
    w->last = *d;
    snprintf(w->type, sizeof w->type, "%.*s", (int)d->type.len, (const char *)d->type.ptr);
    snprintf(w->payload, sizeof w->payload, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    return LIM_HOLD;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    (void)ctx, (void)why, (void)detail;
}
static void on_credit(void *ctx, lim_conv conv, uint64_t lease, uint32_t credit)
{
    worker *w = ctx;
    assert_int_equal(conv.id, 80);
    assert_int_equal(lease, 1080);
    w->credits++;
    w->credit = credit;
}
static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    worker *w = ctx;
    (void)conv, (void)lease, (void)why;
    w->revoked++;
}

static uint32_t accept_reg(fake *f, lim_client *c)
{
    pump(f, c);
    HEAR(f, SERVE, serve, s);
    SAY(f, served, .stream = s.stream, .participant = 77, .identity = TEXT("w1"));
    pump(f, c);
    return s.stream;
}

static uint32_t place(fake *f, lim_client *c, worker *w, bool queue, lim_participant *p)
{
    lim_client_serve_opts opts = { .size = sizeof opts,
                                   .capacity = 4,
                                   .handler = { on_request, on_end, w },
                                   .on_revoked = on_revoked,
                                   .on_credit = on_credit };
    assert_int_equal((queue ? lim_client_work : lim_client_serve)(c, "g", &opts, NULL, p), LIM_OK);
    return accept_reg(f, c);
}

static void test_a_participant_sends_parts_as_it_has_credit(void **state) /* proves CV13 PR3 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p;
    uint32_t on = place(f, c, &w, false, &p);
    lim_conv conv = { 80 };
    SAY(f, request, .stream = on, .conversation = 80, .lease = 1080, .remaining_ms = 1000, .attempt = 1, .credit = 2,
        .hops = 3);
    SAY(f, request, .stream = on, .conversation = 81, .lease = 1081, .remaining_ms = 1000, .attempt = 1);
    pump(f, c);
    assert_int_equal(w.requests, 2);
    assert_int_equal(w.last.credit, 0);
    assert_int_equal(lim_client_part(c, &w.last, TEXT("x")), LIM_E_MISUSE); /* 81 takes none */
    assert_int_equal(lim_client_part_to(c, p, conv, 1080, TEXT("a")), LIM_OK);
    assert_int_equal(lim_client_part_to(c, p, conv, 1080, TEXT("b")), LIM_OK);
    assert_int_equal(lim_client_part_to(c, p, conv, 1080, TEXT("c")), LIM_E_FULL);
    pump(f, c);
    HEAR(f, PART, part, a);
    assert_int_equal(a.stream, on);
    assert_int_equal(a.conversation, 80);
    assert_int_equal(a.lease, 1080);
    assert_true(lim__bytes_eq(a.payload, TEXT("a")));
    take(f, LIM__PART);
    silent(f);
    SAY(f, credit, .stream = on, .conversation = 80, .lease = 1080, .parts = 1);
    SAY(f, credit, .stream = on, .conversation = 99, .lease = 1099, .parts = 1); /* crossed an answer */
    pump(f, c);
    assert_int_equal(w.credits, 1);
    assert_int_equal(w.credit, 1);
    assert_int_equal(lim_client_part_to(c, p, conv, 1080, TEXT("c")), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, conv, 1080, TEXT("end")), LIM_OK);
    assert_int_equal(lim_client_part_to(c, p, conv, 1080, TEXT("d")), LIM_E_GONE);
    pump(f, c);
    take(f, LIM__PART);
    take(f, LIM__REPLY); /* behind the last part */
    fake_end(f, c);
}

static void test_parts_after_a_cancel_or_a_break_are_refused(void **state) /* proves CV13 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p;
    uint32_t on = place(f, c, &w, false, &p);
    for (uint64_t i = 80; i < 82; i++)
        SAY(f, request, .stream = on, .conversation = i, .lease = i + 1000, .remaining_ms = 1000, .attempt = 1,
            .credit = 8);
    SAY(f, revoked, .stream = on, .conversation = 80, .lease = 1080, .why = LIM__REVOKED_CANCELLED);
    pump(f, c);
    assert_int_equal(w.revoked, 1);
    assert_int_equal(lim_client_part_to(c, p, (lim_conv){ 80 }, 1080, TEXT("x")), LIM_E_GONE);
    assert_int_equal(lim_client_part_to(c, p, (lim_conv){ 81 }, 1081, TEXT("x")), LIM_OK);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_part_to(c, p, (lim_conv){ 81 }, 1081, TEXT("x")), LIM_E_GONE); /* its asker was told */
    fake_end(f, c);
}

static void test_progress_goes_on_after_a_break(void **state) /* proves GR7 */
{
    (void)state;
    static const char long_note[] = "0123456789012345678901234567890123456789012345678901234567890123456789"
                                    "0123456789012345678901234567890123456789012345678901234567890123456789"
                                    "01234567890123456789012345678901234567890123456789012345678901";
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p;
    lim_conv task = { 90 };
    uint32_t on = place(f, c, &w, true, &p);
    SAY(f, request, .stream = on, .flags = LIM__FLAG_TAKEN, .conversation = 90, .lease = 502, .remaining_ms = 1000,
        .attempt = 1);
    pump(f, c);
    take(f, LIM__TAKEN);
    assert_int_equal(lim_client_progress(c, p, task, 502, "half"), LIM_OK);
    assert_int_equal(lim_client_progress(c, p, task, 502, NULL), LIM_OK);
    assert_int_equal(lim_client_progress(c, p, task, 502, long_note), LIM_E_TOOBIG);
    assert_int_equal(lim_client_progress(c, p, task, 503, "half"), LIM_E_GONE);
    pump(f, c);
    HEAR(f, PROGRESS, progress, said);
    assert_int_equal(said.stream, on);
    assert_int_equal(said.lease, 502);
    assert_true(lim__bytes_eq(said.note, TEXT("half")));
    take(f, LIM__PROGRESS);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_progress(c, p, task, 502, "half"), LIM_E_UNREACHABLE);
    later(f, c, 3000);
    on = accept_reg(f, c);
    take(f, LIM__HOLDING);
    assert_int_equal(lim_client_progress(c, p, task, 502, "more"), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, task, 502, TEXT("r")), LIM_OK);
    assert_int_equal(lim_client_progress(c, p, task, 502, "late"), LIM_E_GONE);
    pump(f, c);
    HEAR(f, PROGRESS, progress, again);
    assert_int_equal(again.stream, on);
    take(f, LIM__REPLY);
    fake_end(f, c);
}

static void test_events_are_delivered_and_answer_nothing(void **state) /* proves CV19 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p;
    uint32_t on = place(f, c, &w, true, &p);
    SAY(f, request, .stream = on, .flags = LIM__FLAG_TAKEN, .conversation = 90, .lease = 502, .remaining_ms = 1000,
        .attempt = 1);
    pump(f, c);
    take(f, LIM__TAKEN);
    SAY(f, request, .stream = on, .flags = LIM__FLAG_NO_REPLY, .conversation = 90, .lease = 502, .attempt = 1,
        .event = LIM_EVENT_SIGNAL, .type = TEXT("pause"), .payload = TEXT("1h"));
    pump(f, c);
    assert_int_equal(w.events, 1);
    assert_int_equal(w.last.event, LIM_EVENT_SIGNAL);
    assert_int_equal(w.last.lease, 502);
    assert_false(w.last.wants_reply);
    assert_string_equal(w.type, "pause");
    assert_string_equal(w.payload, "1h");
    SAY(f, request, .stream = on, .flags = LIM__FLAG_NO_REPLY, .conversation = 91, .attempt = 1,
        .event = LIM_EVENT_JOINED, .from = 10);
    SAY(f, request, .stream = on, .flags = LIM__FLAG_NO_REPLY, .conversation = 91, .attempt = 1, .from = 11,
        .payload = TEXT("hello"));
    pump(f, c);
    assert_int_equal(w.events, 2);
    assert_int_equal(w.last.event, LIM_EVENT_NONE);
    assert_int_equal(w.last.from.id, 11);
    silent(f);
    assert_int_equal(lim_client_say_to(c, &w.last, w.last.from, TEXT("you")), LIM_OK);
    assert_int_equal(lim_client_say_to(c, &w.last, LIM_EVERYBODY, TEXT("all")), LIM_OK);
    assert_int_equal(lim_client_reply(c, &w.last, TEXT("x")), LIM_E_GONE); /* nothing was asked */
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 90 }, 502, TEXT("done")),
                     LIM_OK); /* the task is still there */
    pump(f, c);
    HEAR(f, SAY, say, one);
    assert_int_equal(one.to, 11);
    HEAR(f, SAY, say, all);
    assert_int_equal(all.to, LIM_EVERYBODY.id);
    take(f, LIM__REPLY);
    silent(f);
    fake_end(f, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_an_answer_are_told_in_order_and_granted_in_batches),
        cmocka_unit_test(test_a_window_of_one_is_granted_one_by_one),
        cmocka_unit_test(test_a_held_part_is_granted_when_it_is_done_with),
        cmocka_unit_test(test_held_parts_do_not_keep_the_rest_from_coming),
        cmocka_unit_test(test_a_server_that_sends_beyond_the_window_is_left),
        cmocka_unit_test(test_everybody_is_asked_and_heard),
        cmocka_unit_test(test_answers_in_parts_end_lost_with_the_connection),
        cmocka_unit_test(test_a_participant_sends_parts_as_it_has_credit),
        cmocka_unit_test(test_parts_after_a_cancel_or_a_break_are_refused),
        cmocka_unit_test(test_progress_goes_on_after_a_break),
        cmocka_unit_test(test_events_are_delivered_and_answer_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
