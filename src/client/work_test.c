/* SPDX-License-Identifier: Apache-2.0
 * work_test.c - registrations: every request ends with exactly one REPLY, and a result is not lost with a connection.
 */
#include "client/fake.h"

typedef struct worker {
    int requests, ready, ends, revoked;
    lim_err why;
    char identity[32], revoked_why[64];
    lim_delivery last; /* its views are over */
    char payload[32];
    lim_done answer;
    int replies; /* how often it replies inside */
    lim_err reply_err, again_err;
    bool fails, leaves;
} worker;

static lim_done on_request(lim_client *c, const lim_delivery *d, void *ctx)
{
    worker *w = ctx;
    assert_int_equal(w->ends, 0);
    w->requests++;
    w->last = *d;
    memset(w->payload, 0, sizeof w->payload);
    memcpy(w->payload, d->payload.ptr, d->payload.len);
    for (int i = 0; i < w->replies; i++) {
        lim_err err = w->fails ? lim_client_fail(c, d, "cannot") : lim_client_reply(c, d, TEXT("result"));
        if (i == 0)
            w->reply_err = err;
        else
            w->again_err = err;
    }
    if (w->leaves)
        assert_int_equal(lim_client_leave(c, d->self), LIM_OK);
    return w->answer ? w->answer : LIM_DONE;
}
static void on_end(void *ctx, lim_err why, const char *detail)
{
    worker *w = ctx;
    (void)detail;
    w->ends++;
    w->why = why;
}
static void on_ready(void *ctx, const char *identity)
{
    worker *w = ctx;
    w->ready++;
    strncpy(w->identity, identity, sizeof w->identity - 1);
}
static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    worker *w = ctx;
    (void)conv, (void)lease;
    w->revoked++;
    strncpy(w->revoked_why, why, sizeof w->revoked_why - 1);
}

static const char *const types[] = { "quote", "price", NULL }, *const tags[] = { "gpu", NULL };

static lim_participant place(lim_client *c, worker *w, bool queue)
{
    lim_participant p;
    lim_client_serve_opts opts = { .size = sizeof opts,
                                   .capacity = 4,
                                   .types = types,
                                   .tags = tags,
                                   .handler = { on_request, on_end, w },
                                   .on_ready = on_ready,
                                   .on_revoked = on_revoked };
    assert_int_equal((queue ? lim_client_work : lim_client_serve)(c, "g", &opts, NULL, &p), LIM_OK);
    return p;
}

static uint32_t accept_reg(fake *f, lim_client *c)
{
    pump(f, c);
    HEAR(f, SERVE, serve, s);
    SAY(f, served, .stream = s.stream, .participant = 77, .identity = TEXT("w1"));
    pump(f, c);
    return s.stream;
}

static void request(fake *f, lim_client *c, uint32_t stream, uint64_t conv, uint8_t flags)
{
    SAY(f, request, .stream = stream, .flags = flags, .conversation = conv, .lease = conv + 1000, .remaining_ms = 2500,
        .attempt = 2, .losses = 1, .type = TEXT("quote"), .payload = TEXT("job"));
    pump(f, c);
}

static lim__f_reply hear_reply(fake *f, uint32_t stream, uint64_t conv, uint8_t how)
{
    HEAR(f, REPLY, reply, r);
    assert_int_equal(r.stream, stream);
    assert_int_equal(r.conversation, conv);
    assert_int_equal(r.lease, conv + 1000);
    assert_int_equal(r.how, how);
    return r;
}

static void test_a_registration_says_what_it_serves(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p = place(c, &w, false);
    pump(f, c);
    HEAR(f, SERVE, serve, s);
    assert_int_equal(s.kind, LIM__SERVE_GROUP);
    assert_int_equal(s.capacity, 4);
    assert_int_equal(s.types.count, 2);
    assert_int_equal(s.tags.count, 1);
    assert_int_equal(s.identity.len, 0);
    SAY(f, served, .stream = s.stream, .participant = 77, .identity = TEXT("participant-1"));
    request(f, c, s.stream, 5, 0);
    assert_int_equal(w.ready, 1);
    assert_string_equal(w.identity, "participant-1");
    assert_string_equal(w.payload, "job");
    assert_int_equal(w.last.self.id, p.id);
    assert_int_equal(w.last.conv.id, 5);
    assert_int_equal(w.last.remaining_ms, 2500);
    assert_int_equal(w.last.attempt, 2);
    assert_int_equal(w.last.losses, 1);
    assert_true(w.last.wants_reply);
    hear_reply(f, s.stream, 5, LIM__REPLY_NOTHING);
    reconnect(f, c);
    HEAR(f, SERVE, serve, again);
    assert_true(lim__bytes_eq(again.identity, TEXT("participant-1"))); /* the same one as before */
    assert_true(again.stream != s.stream);
    fake_end(f, c);
    assert_int_equal(w.ends, 1);
}

static void test_every_request_ends_with_exactly_one_reply(void **state)
{
    (void)state;
    static const struct {
        bool queue;
        lim_done answer;
        int replies;
        bool fails;
        uint8_t how;
        const char *content;
    } cases[] = {
        { false, LIM_DONE, 0, false, LIM__REPLY_NOTHING, "" },
        { true, LIM_DONE, 0, false, LIM__REPLY_REPLY, "" },
        { false, LIM_FAIL, 0, false, LIM__REPLY_FAILED, "" },
        { true, LIM_FAIL, 0, false, LIM__REPLY_FAILED, "" },
        { false, LIM_DONE, 1, false, LIM__REPLY_REPLY, "result" },
        { true, LIM_DONE, 2, false, LIM__REPLY_REPLY, "result" },
        { false, LIM_FAIL, 1, false, LIM__REPLY_REPLY, "result" },
        { true, LIM_HOLD, 1, false, LIM__REPLY_REPLY, "result" },
        { false, LIM_DONE, 2, true, LIM__REPLY_FAILED, "cannot" },
        { true, LIM_DONE, 1, true, LIM__REPLY_FAILED, "cannot" },
    };
    for (size_t i = 0; i < LIM_COUNT(cases); i++) {
        for (int flags = 0; flags < 6; flags += 2) { /* both: a numbered message */
            fake *f = fake_new();
            lim_client *c = fake_up(f, NULL);
            worker w = { .answer = cases[i].answer, .replies = cases[i].replies, .fails = cases[i].fails };
            place(c, &w, cases[i].queue);
            uint32_t stream = accept_reg(f, c);
            request(f, c, stream, 5, (uint8_t)flags);
            if (flags & LIM__FLAG_TAKEN)
                take(f, LIM__TAKEN);
            lim__f_reply r = hear_reply(f, stream, 5, cases[i].how);
            lim_bytes content = cases[i].how == LIM__REPLY_FAILED ? r.detail : r.payload;
            assert_true(lim__bytes_eq(content, lim__str(cases[i].content)));
            assert_int_equal(w.reply_err, LIM_OK);
            assert_int_equal(w.again_err, cases[i].replies == 2 ? LIM_E_GONE : LIM_OK);
            assert_int_equal(w.last.wants_reply, !(flags & LIM__FLAG_NO_REPLY));
            pump(f, c);
            silent(f);
            fake_end(f, c);
            assert_int_equal(w.ends, 1);
        }
    }
}

static void test_a_held_request_is_answered_from_anywhere(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    lim_participant p = place(c, &w, false);
    uint32_t stream = accept_reg(f, c);
    for (uint64_t i = 5; i < 9; i++)
        request(f, c, stream, i, 0);
    silent(f);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 7 }, 1007, TEXT("seven")), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 7 }, 1007, TEXT("seven")), LIM_E_GONE);
    assert_int_equal(lim_client_fail_to(c, p, (lim_conv){ 5 }, 1005, "no"), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 6 }, 9999, TEXT("x")), LIM_E_GONE);
    assert_int_equal(lim_client_reply_to(c, (lim_participant){ 99 }, (lim_conv){ 6 }, 1006, TEXT("x")), LIM_E_GONE);
    pump(f, c);
    hear_reply(f, stream, 7, LIM__REPLY_REPLY);
    hear_reply(f, stream, 5, LIM__REPLY_FAILED);
    silent(f);
    fake_end(f, c);
}

static void test_a_task_is_taken_before_its_handler_and_kept_until_settled(void **state) /* proves GR4 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .replies = 1 };
    place(c, &w, true);
    uint32_t stream = accept_reg(f, c);
    request(f, c, stream, 5, LIM__FLAG_TAKEN);
    request(f, c, stream, 6, LIM__FLAG_TAKEN);
    HEAR(f, TAKEN, taken, t);
    assert_int_equal(t.conversation, 5);
    assert_int_equal(t.lease, 1005);
    hear_reply(f, stream, 5, LIM__REPLY_REPLY);
    take(f, LIM__TAKEN);
    hear_reply(f, stream, 6, LIM__REPLY_REPLY);
    SAY(f, settled, .stream = stream, .conversation = 5, .lease = 1005, .accepted = 1);
    pump(f, c);
    reconnect(f, c);
    stream = accept_reg(f, c);
    hear_reply(f, stream, 6, LIM__REPLY_REPLY); /* 5 was settled, 6 is said again */
    silent(f);
    SAY(f, settled, .stream = stream, .conversation = 6, .lease = 1006, .accepted = 0);
    pump(f, c);
    assert_int_equal(w.revoked, 1);
    assert_string_equal(w.revoked_why, "the result was refused");
    reconnect(f, c);
    accept_reg(f, c);
    silent(f);
    assert_int_equal(w.requests, 2);
    fake_end(f, c);
}

static void test_after_a_break_tasks_in_hand_are_held_and_results_said_again(void **state) /* proves GR6 WI6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    lim_participant p = place(c, &w, true);
    uint32_t stream = accept_reg(f, c);
    for (uint64_t i = 5; i < 9; i++) {
        request(f, c, stream, i, i == 8 ? 0 : LIM__FLAG_TAKEN);
        if (i != 8)
            take(f, LIM__TAKEN);
    }
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("r5")), LIM_OK);
    server_breaks(f); /* before the reply is written */
    pump(f, c);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 6 }, 1006, TEXT("r6")), LIM_OK); /* while down */
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 6 }, 1006, TEXT("r6")), LIM_E_GONE);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 8 }, 1008, TEXT("r8")), LIM_E_GONE); /* its asker was told */
    later(f, c, 100);
    stream = accept_reg(f, c);
    lim__f_reply r5 = hear_reply(f, stream, 5, LIM__REPLY_REPLY);
    assert_true(lim__bytes_eq(r5.payload, TEXT("r5")));
    lim__f_reply r6 = hear_reply(f, stream, 6, LIM__REPLY_REPLY);
    assert_true(lim__bytes_eq(r6.payload, TEXT("r6")));
    HEAR(f, HOLDING, holding, h);
    assert_int_equal(h.conversation, 7);
    assert_int_equal(h.lease, 1007);
    assert_int_equal(h.stream, stream);
    silent(f);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 7 }, 1007, TEXT("r7")), LIM_OK);
    pump(f, c);
    hear_reply(f, stream, 7, LIM__REPLY_REPLY);
    for (uint64_t i = 5; i < 8; i++)
        SAY(f, settled, .stream = stream, .conversation = i, .lease = i + 1000, .accepted = 1);
    reconnect(f, c);
    accept_reg(f, c);
    silent(f);
    assert_int_equal(w.revoked, 0);
    fake_end(f, c);
}

static void test_what_a_new_server_cannot_know_is_not_said_to_it(void **state) /* proves GR6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    lim_participant p = place(c, &w, true);
    uint32_t stream = accept_reg(f, c);
    for (uint64_t i = 5; i < 7; i++) {
        request(f, c, stream, i, LIM__FLAG_TAKEN);
        take(f, LIM__TAKEN);
    }
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("r5")), LIM_OK);
    f->session = 0xb0; /* it was started anew */
    server_breaks(f);
    pump(f, c);
    assert_int_equal(w.revoked, 0);
    later(f, c, 100);
    stream = accept_reg(f, c);
    silent(f); /* no HOLDING, no REPLY */
    assert_int_equal(w.revoked, 2);
    assert_string_equal(w.revoked_why, "forgotten by the server");
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 6 }, 1006, TEXT("r6")), LIM_E_GONE);
    request(f, c, stream, 5, LIM__FLAG_TAKEN); /* the same numbers mean something else now */
    take(f, LIM__TAKEN);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("new")), LIM_OK);
    pump(f, c);
    assert_true(lim__bytes_eq(hear_reply(f, stream, 5, LIM__REPLY_REPLY).payload, TEXT("new")));
    fake_end(f, c);
}

static void test_a_failure_is_kept_with_its_words(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .replies = 1, .fails = true };
    place(c, &w, true);
    request(f, c, accept_reg(f, c), 5, LIM__FLAG_TAKEN);
    take(f, LIM__TAKEN);
    take(f, LIM__REPLY);
    reconnect(f, c);
    lim__f_reply r = hear_reply(f, accept_reg(f, c), 5, LIM__REPLY_FAILED);
    assert_true(lim__bytes_eq(r.detail, TEXT("cannot")));
    fake_end(f, c);
}

static void test_a_revoked_request_is_told_and_still_answered_once(void **state) /* proves GR6 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    lim_participant p = place(c, &w, true);
    uint32_t stream = accept_reg(f, c);
    request(f, c, stream, 5, LIM__FLAG_TAKEN);
    take(f, LIM__TAKEN);
    SAY(f, revoked, .stream = stream, .conversation = 5, .lease = 1005, .why = LIM__REVOKED_TAKEN_BY_ANOTHER);
    SAY(f, revoked, .stream = stream, .conversation = 6, .lease = 1006, .why = LIM__REVOKED_ENDED); /* not ours */
    pump(f, c);
    assert_int_equal(w.revoked, 1);
    assert_string_equal(w.revoked_why, "taken by another");
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("late")), LIM_E_GONE);
    pump(f, c);
    hear_reply(f, stream, 5, LIM__REPLY_REPLY); /* frees the place */
    SAY(f, settled, .stream = stream, .conversation = 5, .lease = 1005, .accepted = 0);
    reconnect(f, c);
    accept_reg(f, c);
    silent(f); /* and is not said again */
    assert_int_equal(w.revoked, 1);
    fake_end(f, c);
}

static void test_a_task_revoked_after_a_break_is_not_held_again(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    place(c, &w, true);
    request(f, c, accept_reg(f, c), 5, LIM__FLAG_TAKEN);
    take(f, LIM__TAKEN);
    reconnect(f, c);
    uint32_t stream = accept_reg(f, c);
    take(f, LIM__HOLDING);
    SAY(f, revoked, .stream = stream, .conversation = 5, .lease = 1005, .why = LIM__REVOKED_TAKEN_BY_ANOTHER);
    pump(f, c);
    assert_int_equal(w.revoked, 1);
    reconnect(f, c);
    accept_reg(f, c);
    silent(f);
    fake_end(f, c);
}

static void test_leases_of_one_conversation_are_told_apart(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { .answer = LIM_HOLD };
    lim_participant p = place(c, &w, true);
    uint32_t stream = accept_reg(f, c);
    for (uint64_t lease = 1; lease <= 3; lease++)
        SAY(f, request, .stream = stream, .conversation = 5, .lease = lease, .remaining_ms = 1, .attempt = 1);
    pump(f, c);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 2, TEXT("2")), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 3, TEXT("3")), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1, TEXT("1")), LIM_OK);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 2, TEXT("2")), LIM_E_GONE);
    pump(f, c);
    static const uint64_t order[] = { 2, 3, 1 };
    for (size_t i = 0; i < 3; i++) {
        HEAR(f, REPLY, reply, r);
        assert_int_equal(r.lease, order[i]);
    }
    fake_end(f, c);
}

static void test_leaving_ends_it_once_and_what_is_in_hand_is_nobodys(void **state)
{
    (void)state;
    for (int inside = 0; inside < 2; inside++) {
        fake *f = fake_new();
        lim_client *c = fake_up(f, NULL);
        worker w = { .answer = LIM_HOLD, .leaves = inside };
        lim_participant p = place(c, &w, true);
        uint32_t stream = accept_reg(f, c);
        request(f, c, stream, 5, LIM__FLAG_TAKEN);
        take(f, LIM__TAKEN);
        assert_int_equal(lim_client_leave(c, p), inside ? LIM_E_GONE : LIM_OK);
        assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("x")), LIM_E_GONE);
        pump(f, c);
        take(f, LIM__LEAVE);
        silent(f);
        SAY(f, left, .stream = stream, .code = 0);
        pump(f, c);
        assert_int_equal(w.ends, 1);
        assert_int_equal(w.why, LIM_OK);
        reconnect(f, c);
        silent(f);
        fake_end(f, c);
        assert_int_equal(w.ends, 1);
    }
}

static void test_a_refused_registration_is_told_why(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    place(c, &w, true);
    pump(f, c);
    HEAR(f, SERVE, serve, s);
    SAY(f, left, .stream = s.stream, .code = LIM_E_EXISTS, .detail = TEXT("taken"));
    pump(f, c);
    assert_int_equal(w.ends, 1);
    assert_int_equal(w.why, LIM_E_EXISTS);
    assert_int_equal(w.ready, 0);
    fake_end(f, c);
    assert_int_equal(w.ends, 1);
}

static void test_closing_with_requests_in_every_state_loses_nothing_of_ours(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker held = { .answer = LIM_HOLD }, done = { .replies = 1 };
    lim_participant p = place(c, &held, true);
    uint32_t stream = accept_reg(f, c);
    place(c, &done, true);
    uint32_t stream2 = accept_reg(f, c);
    request(f, c, stream, 5, LIM__FLAG_TAKEN);
    request(f, c, stream, 6, 0);
    request(f, c, stream2, 7, LIM__FLAG_TAKEN);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_reply_to(c, p, (lim_conv){ 5 }, 1005, TEXT("x")), LIM_OK);
    fake_end(f, c); /* the sanitizer counts */
    assert_int_equal(held.ends, 1);
    assert_int_equal(done.ends, 1);
}

static void test_registration_options_are_checked(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p;
    lim_diag diag = { 0 };
    lim_client_serve_opts good = { .size = sizeof good, .capacity = 1, .handler = { on_request, on_end, &w } },
                          o = good;
    o.capacity = 0;
    assert_int_equal(lim_client_serve(c, "g", &o, &diag, &p), LIM_E_MISUSE);
    o.capacity = LIM_UNLIMITED;
    assert_int_equal(lim_client_work(c, "g", &o, &diag, &p), LIM_E_MISUSE);
    assert_int_equal(lim_client_serve(c, "", &good, &diag, &p), LIM_E_INVALID);
    static const char *const bad[] = { "\xff", NULL };
    o = good;
    o.types = bad;
    assert_int_equal(lim_client_serve(c, "g", &o, &diag, &p), LIM_E_INVALID);
    assert_true(diag.text[0] != '\0');
    o = good;
    o.capacity = LIM_UNLIMITED;
    assert_int_equal(lim_client_serve(c, "g", &o, &diag, &p), LIM_OK);
    fake_end(f, c);
    assert_int_equal(w.ends, 1);
}

/* ---- conversations, from the side of who was asked in ---- */

static void test_a_participant_says_something_into_a_conversation(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p = place(c, &w, false);
    lim_delivery d = { .self = p, .conv = { 50 } };
    assert_int_equal(lim_client_say(c, &d, TEXT("early")), LIM_E_UNREACHABLE); /* not registered yet */
    uint32_t stream = accept_reg(f, c);
    request(f, c, stream, 50, 0);
    take(f, LIM__REPLY);
    assert_int_equal(lim_client_say(c, &w.last, TEXT("by the way")), LIM_OK);
    pump(f, c);
    HEAR(f, SAY, say, say);
    assert_int_equal(say.stream, stream);
    assert_int_equal(say.conversation, 50);
    assert_true(lim__bytes_eq(say.payload, TEXT("by the way")));
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_say(c, &d, TEXT("x")), LIM_E_UNREACHABLE);
    later(f, c, 3000);
    accept_reg(f, c);
    assert_int_equal(lim_client_leave(c, p), LIM_OK);
    assert_int_equal(lim_client_say(c, &d, TEXT("x")), LIM_E_GONE);
    fake_end(f, c);
}

static void test_the_end_of_a_conversation_is_told_and_what_was_said_before_is_handled(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    place(c, &w, false);
    uint32_t stream = accept_reg(f, c);
    SAY(f, request, .stream = stream, .flags = LIM__FLAG_NO_REPLY, .conversation = 50, .attempt = 1);
    SAY(f, revoked, .stream = stream, .conversation = 50, .lease = 0, .why = LIM__REVOKED_ENDED);
    pump(f, c);
    assert_int_equal(w.requests, 1);
    assert_int_equal(w.revoked, 1);
    assert_string_equal(w.revoked_why, "ended");
    fake_end(f, c);
}

static void test_messages_of_conversations_count_against_no_capacity(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim_participant p;
    lim_taken t;
    lim_client_serve_opts opts = { .size = sizeof opts, .capacity = 1 };
    assert_int_equal(lim_client_serve(c, "g", &opts, NULL, &p), LIM_OK);
    uint32_t stream = accept_reg(f, c);
    for (int i = 0; i < 1000; i++) /* nobody has handled any of them */
        SAY(f, request, .stream = stream, .flags = LIM__FLAG_NO_REPLY, .conversation = 50, .attempt = 1);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(lim_client_take(c, p, 0, &t), LIM_OK);
        lim_taken_fini(&t);
    }
    assert_int_equal(lim_client_take(c, p, 0, &t), LIM_E_TIMEOUT);
    fake_end(f, c);
}

static void test_the_servers_number_of_a_registration_is_known_while_it_is_there(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p = place(c, &w, false), id = { 0 };
    assert_int_equal(lim_client_participant_id(c, p, &id), LIM_E_UNREACHABLE);
    accept_reg(f, c);
    assert_int_equal(lim_client_participant_id(c, p, &id), LIM_OK);
    assert_int_equal(id.id, 77);
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_participant_id(c, p, &id), LIM_E_UNREACHABLE);
    later(f, c, 3000);
    HEAR(f, SERVE, serve, s);
    SAY(f, served, .stream = s.stream, .participant = 78, .identity = TEXT("w1"));
    pump(f, c);
    assert_int_equal(lim_client_participant_id(c, p, &id), LIM_OK);
    assert_int_equal(id.id, 78); /* another proxy stands for it */
    assert_int_equal(lim_client_participant_id(c, (lim_participant){ 99 }, &id), LIM_E_GONE);
    fake_end(f, c);
}

static void test_places_used_elsewhere_are_reported_again_after_a_break(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p = place(c, &w, false);
    assert_int_equal(lim_client_report_used(c, p, 1), LIM_OK); /* before the server has it */
    accept_reg(f, c);
    HEAR(f, REPORT, report, first);
    assert_int_equal(first.used, 1);
    assert_int_equal(lim_client_report_used(c, p, 3), LIM_OK);
    pump(f, c);
    HEAR(f, REPORT, report, second);
    assert_int_equal(second.used, 3);
    reconnect(f, c);
    uint32_t stream = accept_reg(f, c);
    HEAR(f, REPORT, report, again);
    assert_int_equal(again.used, 3);
    assert_int_equal(again.stream, stream);
    assert_int_equal(lim_client_report_used(c, p, 0), LIM_OK);
    pump(f, c);
    take(f, LIM__REPORT);
    reconnect(f, c);
    accept_reg(f, c);
    silent(f); /* 0 is what a new one begins with */
    assert_int_equal(lim_client_report_used(c, (lim_participant){ 99 }, 1), LIM_E_GONE);
    fake_end(f, c);
}

/* ---- pulled ---- */

static lim_participant pulled(lim_client *c, worker *w)
{
    lim_participant p;
    lim_client_serve_opts opts = {
        .size = sizeof opts, .capacity = 4, .handler = { NULL, on_end, w }, .on_revoked = on_revoked
    };
    assert_int_equal(lim_client_work(c, "g", &opts, NULL, &p), LIM_OK);
    return p;
}

static void test_a_client_that_pulls_is_handed_what_it_takes(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 }, pushed = { 0 };
    lim_participant p = pulled(c, &w), other;
    lim_taken t[2], none;
    uint32_t stream = accept_reg(f, c);
    assert_int_equal(lim_client_take(c, p, 0, &none), LIM_E_TIMEOUT);
    assert_int_equal(lim_client_take(c, p, 1, &none), LIM_E_MISUSE); /* nobody would read the socket meanwhile */
    request(f, c, stream, 5, LIM__FLAG_TAKEN);
    request(f, c, stream, 6, LIM__FLAG_TAKEN);
    take(f, LIM__TAKEN);
    take(f, LIM__TAKEN);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lim_client_take(c, p, 0, &t[i]), LIM_OK);
        assert_int_equal(t[i].delivery.conv.id, 5 + i);
        assert_int_equal(t[i].delivery.self.id, p.id);
        assert_int_equal(t[i].delivery.remaining_ms, 2500);
    }
    assert_int_equal(lim_client_take(c, p, 0, &none), LIM_E_TIMEOUT);
    silent(f);
    assert_int_equal(lim_client_reply_to(c, p, t[0].delivery.conv, t[0].delivery.lease, TEXT("r5")), LIM_OK);
    assert_int_equal(lim_client_fail_to(c, p, t[1].delivery.conv, t[1].delivery.lease, "no"), LIM_OK);
    pump(f, c);
    hear_reply(f, stream, 5, LIM__REPLY_REPLY);
    hear_reply(f, stream, 6, LIM__REPLY_FAILED);
    for (int i = 0; i < 2; i++) { /* what was taken outlives its answer */
        assert_true(lim__bytes_eq(t[i].delivery.payload, TEXT("job")));
        assert_true(lim__bytes_eq(t[i].delivery.type, TEXT("quote")));
        assert_int_equal(lim__msg_bytes((const lim__msg *)(const void *)t[i].delivery.msg).len, 3);
    }
    other = place(c, &pushed, false);
    assert_int_equal(lim_client_take(c, other, 0, &none), LIM_E_MISUSE);
    lim_taken_fini(&t[0]);
    fake_end(f, c);
    lim_taken_fini(&t[1]); /* and its client */
    assert_int_equal(w.ends, 1);
}

static void test_what_is_revoked_or_lost_before_it_was_taken_is_not_handed_out(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    worker w = { 0 };
    lim_participant p = pulled(c, &w);
    lim_taken t;
    uint32_t stream = accept_reg(f, c);
    for (uint64_t conv = 5; conv < 9; conv++) {
        request(f, c, stream, conv, conv == 6 ? 0 : LIM__FLAG_TAKEN);
        if (conv != 6)
            take(f, LIM__TAKEN);
    }
    SAY(f, revoked, .stream = stream, .conversation = 5, .lease = 1005, .why = LIM__REVOKED_TAKEN_BY_ANOTHER);
    pump(f, c);
    assert_int_equal(w.revoked, 1);
    hear_reply(f, stream, 5, LIM__REPLY_NOTHING); /* frees the place */
    reconnect(f, c);                              /* 6 was an ask: its asker was told */
    accept_reg(f, c);
    take(f, LIM__HOLDING);
    take(f, LIM__HOLDING);
    assert_int_equal(lim_client_take(c, p, 0, &t), LIM_OK);
    assert_int_equal(t.delivery.conv.id, 7);
    lim_taken_fini(&t);
    assert_int_equal(lim_client_leave(c, p), LIM_OK); /* 7 in hand, 8 waiting */
    assert_int_equal(lim_client_take(c, p, 0, &t), LIM_E_GONE);
    fake_end(f, c);
    assert_int_equal(w.ends, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_registration_says_what_it_serves),
        cmocka_unit_test(test_every_request_ends_with_exactly_one_reply),
        cmocka_unit_test(test_a_held_request_is_answered_from_anywhere),
        cmocka_unit_test(test_a_task_is_taken_before_its_handler_and_kept_until_settled),
        cmocka_unit_test(test_after_a_break_tasks_in_hand_are_held_and_results_said_again),
        cmocka_unit_test(test_what_a_new_server_cannot_know_is_not_said_to_it),
        cmocka_unit_test(test_a_failure_is_kept_with_its_words),
        cmocka_unit_test(test_a_revoked_request_is_told_and_still_answered_once),
        cmocka_unit_test(test_a_task_revoked_after_a_break_is_not_held_again),
        cmocka_unit_test(test_leases_of_one_conversation_are_told_apart),
        cmocka_unit_test(test_leaving_ends_it_once_and_what_is_in_hand_is_nobodys),
        cmocka_unit_test(test_a_refused_registration_is_told_why),
        cmocka_unit_test(test_closing_with_requests_in_every_state_loses_nothing_of_ours),
        cmocka_unit_test(test_registration_options_are_checked),
        cmocka_unit_test(test_a_participant_says_something_into_a_conversation),
        cmocka_unit_test(test_the_end_of_a_conversation_is_told_and_what_was_said_before_is_handled),
        cmocka_unit_test(test_messages_of_conversations_count_against_no_capacity),
        cmocka_unit_test(test_the_servers_number_of_a_registration_is_known_while_it_is_there),
        cmocka_unit_test(test_places_used_elsewhere_are_reported_again_after_a_break),
        cmocka_unit_test(test_a_client_that_pulls_is_handed_what_it_takes),
        cmocka_unit_test(test_what_is_revoked_or_lost_before_it_was_taken_is_not_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
