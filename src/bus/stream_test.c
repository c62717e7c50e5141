/* SPDX-License-Identifier: Apache-2.0
 * stream_test.c - answers in parts: order, credit, and ends of all kinds. */
#include "bus/exchange_world.h"

#define STREAM(...) OPTS(lim_ask_opts, .timeout_ms = 60000, __VA_ARGS__)

static lim_conv ask_stream(lim_bus *bus, const char *group, const lim_ask_opts *o, got *g)
{
    lim_conv c = { 0 };
    assert_int_equal(lim_ask_stream(bus, group, BYTES("count"), o, on_part, on_outcome, g, &c), LIM_OK);
    return c;
}

static lim_err send_part(lim_bus *bus, const worker *w, int nth, int number)
{
    char text[16];
    const seen *s = &w->seen[nth];
    int len = snprintf(text, sizeof text, "%d", number);
    return lim_part_to(bus, s->self, s->conv, s->lease, (lim_bytes){ text, (size_t)len });
}

static void test_parts_come_in_order_and_before_the_outcome(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    enum { MANY = 500 };
    lim_participant p = serve(bus, "g", &w, "w");
    ask_stream(bus, "g", STREAM(.window = 4), &g);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(w.seen[0].credit, 4);
    for (int i = 0, told = 0; i < MANY;) {
        pthread_mutex_lock(&w.mutex);
        told = w.credited;
        pthread_mutex_unlock(&w.mutex);
        lim_err err = send_part(bus, &w, 0, i);
        if (err == LIM_OK)
            i++;
        else if (err == LIM_E_FULL) /* told when there is more */
            worker_wait(&w, &w.credited, told + 1);
        else
            assert_int_equal(err, LIM_OK);
        got_wait(&g, &g.parts, i - 4); /* never more than the window under way */
    }
    assert_int_equal(lim_reply_to(bus, p, w.seen[0].conv, w.seen[0].lease, BYTES("end")), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
    assert_string_equal(g.text, "end");
    assert_int_equal(g.parts, MANY);
    for (int i = 0; i < SEEN_MAX; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        assert_string_equal(g.part[i].text, text);
        assert_int_equal(g.part[i].seq, i + 1);
        assert_string_equal(g.part[i].participant, "w");
    }
}

static void test_without_credit_nothing_is_sent_until_more_is_granted(void **state) /* proves CV13 PR3 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    g.hold = true;
    lim_participant p = serve(bus, "g", &w, "w");
    lim_conv c = ask_stream(bus, "g", STREAM(.window = 2), &g);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(send_part(bus, &w, 0, 0), LIM_OK);
    assert_int_equal(send_part(bus, &w, 0, 1), LIM_OK);
    got_wait(&g, &g.parts, 2);
    assert_int_equal(send_part(bus, &w, 0, 2), LIM_E_FULL);
    assert_int_equal(lim_conv_grant(bus, c, 0), LIM_E_MISUSE);
    assert_int_equal(lim_conv_grant(bus, c, 3), LIM_OK);
    worker_wait(&w, &w.credited, 1);
    assert_int_equal(w.credit, 3);
    for (int i = 2; i < 5; i++)
        assert_int_equal(send_part(bus, &w, 0, i), LIM_OK);
    assert_int_equal(send_part(bus, &w, 0, 5), LIM_E_FULL);
    assert_int_equal(lim_fail_to(bus, p, c, w.seen[0].lease, "half way"), LIM_OK); /* an end is no part */
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_FAILED);
    assert_int_equal(g.parts, 5);
    while (lim_alive(bus->rt, (lim_pid){ c.id }))
        sched_yield();
    assert_int_equal(lim_conv_grant(bus, c, 1), LIM_E_GONE);
    assert_int_equal(send_part(bus, &w, 0, 6), LIM_E_GONE);
}

static void test_who_asks_for_no_parts_gets_none(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    lim_participant p = serve(bus, "g", &w, "w");
    assert_int_equal(lim_ask_async(bus, "g", BYTES("x"), STREAM(0), on_outcome, &g, NULL), LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(w.seen[0].credit, 0);
    assert_int_equal(send_part(bus, &w, 0, 0), LIM_E_MISUSE);
    assert_int_equal(lim_reply_to(bus, p, w.seen[0].conv, w.seen[0].lease, BYTES("y")), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_REPLY);
}

static void test_a_cancel_reaches_whoever_streams(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT, late = GOT;
    lim_participant p = serve(bus, "g", &w, "w");
    lim_conv c = ask_stream(bus, "g", STREAM(0), &g);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(send_part(bus, &w, 0, 0), LIM_OK);
    assert_int_equal(lim_conv_cancel(bus, c), LIM_OK);
    worker_wait(&w, &w.cancelled, 1);
    assert_string_equal(w.why, "cancelled");
    assert_int_equal(send_part(bus, &w, 0, 1), LIM_E_GONE);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_CANCELLED);
    assert_int_equal(lim_fail_to(bus, p, c, w.seen[0].lease, "stopped"), LIM_OK);
    ask_stream(bus, "g", OPTS(lim_ask_opts, .timeout_ms = 20), &late); /* and so does a deadline */
    worker_wait(&w, &w.cancelled, 2);
    assert_string_equal(w.why, "timeout");
    got_wait(&late, &late.count, 1);
    assert_int_equal(late.how, LIM_HOW_TIMEOUT);
}

static void test_a_death_moves_a_stream_on_only_before_its_first_part(void **state) /* proves CV7 CV13 */
{
    lim_bus *bus = *state;
    for (int parts = 0; parts < 2; parts++) {
        worker first = WORKER("h"), second = WORKER("h");
        got g = GOT;
        lim_participant p = serve(bus, "g", &first, "first");
        ask_stream(bus, "g", STREAM(.on_crash = LIM_CRASH_NEXT, .window = 3), &g);
        worker_wait(&first, &first.count, 1);
        lim_participant q = serve(bus, "g", &second, "second");
        if (parts == 1) {
            assert_int_equal(send_part(bus, &first, 0, 0), LIM_OK);
            got_wait(&g, &g.parts, 1);
        }
        assert_int_equal(lim_leave(bus, p), LIM_OK);
        if (parts == 0) {
            worker_wait(&second, &second.count, 1);
            assert_int_equal(second.seen[0].credit, 3);
            assert_int_equal(send_part(bus, &second, 0, 0), LIM_OK);
            assert_int_equal(lim_reply_to(bus, q, second.seen[0].conv, second.seen[0].lease, BYTES("end")), LIM_OK);
        }
        got_wait(&g, &g.count, 1);
        assert_int_equal(g.how, parts == 0 ? LIM_HOW_REPLY : LIM_HOW_CRASHED);
        assert_int_equal(g.parts, 1);
        assert_int_equal(second.count, parts == 0);
        assert_int_equal(g.handed_over, LIM_HANDED_YES); /* it had been read, and that is known */
        assert_int_equal(lim_leave(bus, q), LIM_OK);
    }
}

/* What the library here does not let anybody do, somebody else's may. */
static void test_more_parts_than_granted_end_the_ask(void **state) /* proves CV13 WI4 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    serve(bus, "g", &w, "w");
    g.hold = true;
    lim_conv c = ask_stream(bus, "g", STREAM(.window = 2), &g);
    worker_wait(&w, &w.count, 1);
    for (int i = 0; i < 3; i++) {
        lim__part *p = lim__letter_new(NULL, &lim__type_part, sizeof *p);
        *p = (lim__part){ w.seen[0].lease, { w.seen[0].self.id }, lim__msg_new(BYTES("x")) };
        assert_int_equal(lim__post_reserved(bus->rt, (lim_pid){ c.id }, p), LIM_OK);
    }
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_FAILED);
    assert_int_equal(g.parts, 2);
    assert_non_null(strstr(g.detail, "more parts"));
    worker_wait(&w, &w.cancelled, 1);
}

/* ---- parts of a handler, and of the thread that it hands on to ---- */

typedef struct relay {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    lim_bus *bus;
    seen at;
    bool ready, over;
} relay;

static lim_done on_relay(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    relay *r = ctx;
    assert_int_equal(lim_part(bus, d, BYTES("0")), LIM_OK);
    pthread_mutex_lock(&r->mutex);
    r->at = (seen){ .conv = d->conv, .self = d->self, .lease = d->lease };
    r->ready = true;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->mutex);
    return LIM_HOLD;
}

static void *relay_on(void *ctx)
{
    relay *r = ctx;
    pthread_mutex_lock(&r->mutex);
    while (!r->over) {
        if (!r->ready) {
            pthread_cond_wait(&r->cond, &r->mutex);
            continue;
        }
        r->ready = false;
        assert_int_equal(lim_part_to(r->bus, r->at.self, r->at.conv, r->at.lease, BYTES("1")), LIM_OK);
        assert_int_equal(lim_reply_to(r->bus, r->at.self, r->at.conv, r->at.lease, BYTES("2")), LIM_OK);
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

static void test_parts_of_a_handler_and_of_a_thread_keep_their_order(void **state) /* proves CV13 RT2 */
{
    lim_bus *bus = *state;
    relay r = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .bus = bus };
    pthread_t thread;
    lim_participant p;
    assert_int_equal(pthread_create(&thread, NULL, relay_on, &r), 0);
    assert_int_equal(
        lim_serve(bus, "g", OPTS(lim_serve_opts, .capacity = 1, .handler = { .on_message = on_relay, .ctx = &r }), &p),
        LIM_OK);
    for (int i = 0; i < 300; i++) {
        got g = GOT;
        ask_stream(bus, "g", STREAM(0), &g);
        got_wait(&g, &g.count, 1);
        assert_int_equal(g.parts, 2);
        assert_string_equal(g.part[0].text, "0");
        assert_string_equal(g.part[1].text, "1");
        assert_string_equal(g.text, "2");
    }
    pthread_mutex_lock(&r.mutex);
    r.over = true;
    pthread_cond_broadcast(&r.cond);
    pthread_mutex_unlock(&r.mutex);
    pthread_join(thread, NULL);
}

static void test_who_pulls_may_stream_too(void **state) /* proves CV13 GR1 */
{
    lim_bus *bus = *state;
    got g = GOT;
    lim_participant p;
    lim_taken t = { 0 };
    assert_int_equal(lim_serve(bus, "g", OPTS(lim_serve_opts, .capacity = 1), &p), LIM_OK);
    ask_stream(bus, "g", STREAM(.window = 1), &g);
    assert_int_equal(lim_take(bus, p, 60000, &t), LIM_OK);
    assert_int_equal(t.delivery.credit, 1);
    for (int i = 0; i < 3;) {
        lim_err err = lim_part(bus, &t.delivery, BYTES("part"));
        assert_true(err == LIM_OK || err == LIM_E_FULL);
        i += err == LIM_OK;
        sched_yield();
    }
    assert_int_equal(lim_reply_to(bus, p, t.delivery.conv, t.delivery.lease, BYTES("end")), LIM_OK);
    lim_taken_fini(&t);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.parts, 3);
    assert_int_equal(g.how, LIM_HOW_REPLY);
}

static lim_done on_one_part(void *ctx, const lim_part_view *p)
{
    (void)on_part(ctx, p);
    return LIM_FAIL;
}

static void test_who_has_enough_cancels_from_its_callback(void **state) /* proves CV13 */
{
    lim_bus *bus = *state;
    worker w = WORKER("h");
    got g = GOT;
    serve(bus, "g", &w, "w");
    assert_int_equal(lim_ask_stream(bus, "g", BYTES("x"), STREAM(0), on_one_part, on_outcome, &g, NULL), LIM_OK);
    worker_wait(&w, &w.count, 1);
    assert_int_equal(send_part(bus, &w, 0, 0), LIM_OK);
    got_wait(&g, &g.count, 1);
    assert_int_equal(g.how, LIM_HOW_CANCELLED);
    worker_wait(&w, &w.cancelled, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_parts_come_in_order_and_before_the_outcome),
        T(test_without_credit_nothing_is_sent_until_more_is_granted),
        T(test_who_asks_for_no_parts_gets_none),
        T(test_a_cancel_reaches_whoever_streams),
        T(test_a_death_moves_a_stream_on_only_before_its_first_part),
        T(test_more_parts_than_granted_end_the_ask),
        T(test_parts_of_a_handler_and_of_a_thread_keep_their_order),
        T(test_who_pulls_may_stream_too),
        T(test_who_has_enough_cancels_from_its_callback),
    };
    int failed = cmocka_run_group_tests_name("one scheduler", tests, NULL, NULL);
    schedulers = 2;
    return failed + cmocka_run_group_tests_name("two schedulers", tests, NULL, NULL);
}
