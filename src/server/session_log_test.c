/* SPDX-License-Identifier: Apache-2.0
 * session_log_test.c - publishing to durable channels, and steps, over connections. */
#include "server/server_world.h"

static void channel(world *w, const char *name, bool durable, uint64_t count_max)
{
    const lim_channel_opts opts = { .size = sizeof opts,
                                    .durable = durable,
                                    .count_max = durable ? count_max : 0,
                                    .overflow = durable ? LIM_OVERFLOW_REJECT : 0 };
    lim_channel ch;
    assert_int_equal(lim_channel_open(w->bus, name, &opts, &ch), LIM_OK);
    run_for(w, SECOND / 10);
}

static lim__buf options(const char *const *pairs)
{
    lim__buf b = { 0 };
    for (; pairs[0] != NULL; pairs += 2)
        assert_int_equal(lim__packed_add(&b, lim__str(pairs[0]), lim__str(pairs[1])), LIM_OK);
    return b;
}
#define OPTIONS(...) options((const char *const[]){ __VA_ARGS__, NULL })

static void publish(client *c, uint32_t corr, const char *to, const char *text, lim__buf o)
{
    PUT(c, publish, .corr = corr, .channel = lim__str(to), .options = lim__buf_bytes(&o), .payload = lim__str(text));
    lim__buf_fini(&o);
}

static lim__f_stored take_stored(client *c)
{
    lim__f_stored f;
    TAKE(c, stored, STORED, &f);
    return f;
}

static void test_each_publish_is_answered_when_it_is_stored_in_the_order_asked(void **state) /* proves PR1, DU1 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_published p;
        channel(w, "log", true, 0);
        channel(w, "live", false, 0);
        client *c = client_new(w, "c");
        publish(c, 1, "log", "a", (lim__buf){ 0 });
        publish(c, 2, "live", "b", (lim__buf){ 0 }); /* does not wait for the one before */
        publish(c, 3, "log", "c", OPTIONS("idempotency_key", "k"));
        publish(c, 4, "log", "d", OPTIONS("colour", "red")); /* refused at once, told in its turn */
        publish(c, 5, "log", "e", OPTIONS("idempotency_key", "k"));
        publish(c, 6, "live", "f", OPTIONS("idempotency_key", "k"));
        TAKE(c, published, PUBLISHED, &p);
        assert_int_equal(p.first_corr, 2);
        assert_int_equal(p.verdict, LIM_ACCEPT);
        TAKE(c, published, PUBLISHED, &p);
        assert_int_equal(p.first_corr, 6);
        assert_int_equal(p.why, LIM_WHY_BAD_REQUEST);
        lim__f_stored f = take_stored(c);
        assert_int_equal(f.corr, 1);
        assert_int_equal(f.seq, 1);
        assert_int_equal(f.class, LIM_CLASS_DISK);
        assert_true(f.at_us > 0);
        f = take_stored(c);
        assert_int_equal(f.corr, 3);
        assert_int_equal(f.seq, 2);
        assert_int_equal(f.duplicate, 0);
        f = take_stored(c);
        assert_int_equal(f.corr, 4);
        assert_int_equal(f.why, LIM_WHY_BAD_REQUEST);
        f = take_stored(c);
        assert_int_equal(f.corr, 5);
        assert_int_equal(f.seq, 2);
        assert_int_equal(f.duplicate, 1);
    }
}

static void publish_row(client *c, uint32_t corr, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "m%u", (unsigned)(corr + i));
        publish(c, corr + i, "log", text, (lim__buf){ 0 });
    }
}

/* Takes answers to `count` publishes from corr on, which are accepted as seq, seq + 1 ...; how many frames that took.
 */
static uint32_t take_row(client *c, uint32_t corr, uint32_t count, uint64_t seq)
{
    uint32_t frames = 0;
    for (uint32_t done = 0; done < count; frames++) {
        lim__f_stored f = take_stored(c);
        assert_int_equal(f.corr, corr + done);
        assert_int_equal(f.seq, seq + done);
        assert_int_equal(f.verdict, LIM_ACCEPT);
        assert_true(f.count > 0 && f.count <= count - done);
        done += f.count;
    }
    return frames;
}

static void test_what_was_published_in_a_row_is_answered_in_a_row(void **state) /* proves PR1, DU1 */
{
    (void)state;
    uint32_t frames = 0;
    KEEPING_WORLDS(w, 8)
    {
        lim__f_subscribed s;
        lim__f_deliver d;
        lim__buf o = OPTIONS("from", "all");
        channel(w, "log", true, 0);
        client *c = client_new(w, "c"), *reader = client_new(w, "reader"), *live = client_new(w, "live");
        PUT(reader, subscribe, .stream = 1, .window = 64, .pattern = lim__str("log"), .options = lim__buf_bytes(&o));
        lim__buf_fini(&o);
        TAKE(reader, subscribed, SUBSCRIBED, &s);
        PUT(live, subscribe, .stream = 1, .window = 64, .backlog = 64, .policy = 2, .pattern = lim__str("log"));
        TAKE(live, subscribed, SUBSCRIBED, &s);
        publish_row(c, 1, 20);
        publish(c, 21, "log", "m21", OPTIONS("idempotency_key", "k")); /* goes alone, and stays where it was */
        publish_row(c, 22, 10);
        publish(c, 40, "log", "m40", (lim__buf){ 0 }); /* no row with those before it */
        frames += take_row(c, 1, 20, 1);
        frames += take_row(c, 21, 1, 21);
        frames += take_row(c, 22, 10, 22);
        frames += take_row(c, 40, 1, 32);
        for (uint32_t i = 1; i <= 32; i++) {
            char text[16];
            snprintf(text, sizeof text, "m%u", (unsigned)(i < 32 ? i : 40));
            TAKE(reader, deliver, DELIVER, &d);
            assert_int_equal(d.seq, i);
            assert_text(d.payload, text);
            TAKE(live, deliver, DELIVER, &d);
            assert_text(d.payload, text);
        }
    }
    assert_true(frames < 8 * 16); /* of 32 publishes each: however the network cuts them */
}

static void test_each_of_a_row_that_is_refused_is_told(void **state) /* proves PR1 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log", true, 0);
        client *c = client_new(w, "c");
        publish_row(c, 1, 3);
        assert_int_equal(take_row(c, 1, 3, 1) > 0, true);
        lim__sim_disk_fail_at_call(w->os, 1, EIO);
        publish_row(c, 4, 3);
        uint32_t corr = 4;
        for (uint64_t seq = 4; corr < 7;) {
            lim__f_stored f = take_stored(c);
            assert_int_equal(f.corr, corr);
            if (f.verdict == LIM_ACCEPT)
                assert_int_equal(f.seq, seq), seq += f.count;
            else
                assert_int_equal(f.count, 1);
            corr += f.count;
        }
    }
}

static void test_a_refusal_says_which_limit_it_met(void **state) /* proves PR1 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log", true, 2);
        client *c = client_new(w, "c");
        for (uint32_t i = 1; i <= 3; i++)
            publish(c, i, "log", "x", (lim__buf){ 0 });
        assert_int_equal(take_stored(c).verdict, LIM_ACCEPT);
        assert_int_equal(take_stored(c).verdict, LIM_ACCEPT);
        lim__f_stored f = take_stored(c);
        assert_int_equal(f.verdict, LIM_REJECT);
        assert_int_equal(f.why, LIM_WHY_CHANNEL_FULL);
        assert_int_equal(f.limit, 2);
        assert_int_equal(f.current, 2);
        publish(c, 4, "log", "x", OPTIONS("expect_last", "7"));
        assert_int_equal(take_stored(c).why, LIM_WHY_CHANNEL_FULL);
    }
}

static void test_subscribers_hear_of_a_message_when_it_is_stored(void **state) /* proves DU1 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_subscribed s;
        lim__f_deliver d;
        lim_bytes key;
        channel(w, "log", true, 0);
        client *c = client_new(w, "c"), *live = client_new(w, "live");
        PUT(live, subscribe, .stream = 1, .window = 8, .backlog = 8, .policy = 2, .pattern = lim__str("*"));
        TAKE(live, subscribed, SUBSCRIBED, &s);
        PUT(live, subscribe, .stream = 3, .window = 8, .backlog = 8, .policy = 2, .pattern = lim__str("log"));
        TAKE(live, subscribed, SUBSCRIBED, &s);
        publish(c, 1, "log", "x", OPTIONS("key", "price"));
        lim__f_stored f = take_stored(c);
        assert_int_equal(f.matched, 2);
        for (int i = 0; i < 2; i++) {
            TAKE(live, deliver, DELIVER, &d);
            assert_text(d.payload, "x");
            assert_true(lim__packed_get(d.headers, lim__str("$key"), &key));
            assert_text(key, "price");
        }
    }
}

static void test_headers_of_the_system_are_not_for_clients(void **state)
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_published p;
        lim__buf h = OPTIONS("$key", "forged");
        channel(w, "log", true, 0);
        client *c = client_new(w, "c");
        PUT(c, publish, .corr = 1, .channel = lim__str("log"), .headers = lim__buf_bytes(&h), .payload = lim__str("x"));
        lim__buf_fini(&h);
        TAKE(c, published, PUBLISHED, &p);
        assert_int_equal(p.why, LIM_WHY_BAD_REQUEST);
    }
}

static void test_a_connection_that_breaks_loses_its_answers_and_nothing_else(void **state)
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        channel(w, "log", true, 0);
        client *c = client_new(w, "c");
        for (uint32_t i = 1; i <= 50; i++)
            publish(c, i, "log", "x", (lim__buf){ 0 });
        run_for(w, SECOND / 1000);
        client_cut(c);
        run_for(w, SECOND);
        client *d = client_new(w, "d");
        publish(d, 1, "log", "y", (lim__buf){ 0 });
        lim__f_stored f = take_stored(d);
        assert_int_equal(f.verdict, LIM_ACCEPT);
        assert_in_range(f.seq, 1, 51);
    }
}

/* ---- steps ---- */

static void step(client *c, uint32_t corr, lim__buf frames)
{
    PUT(c, step, .corr = corr, .frames = lim__buf_bytes(&frames));
    lim__buf_fini(&frames);
}

static lim__f_stepped take_stepped(client *c, uint32_t corr)
{
    lim__f_stepped f;
    TAKE(c, stepped, STEPPED, &f);
    assert_int_equal(f.corr, corr);
    return f;
}

static void test_a_step_acknowledges_and_publishes_at_once(void **state) /* proves XO2 */
{
    (void)state;
    KEEPING_WORLDS(w, 5)
    {
        lim__f_subscribed s;
        lim__f_deliver d;
        lim__buf frames = { 0 }, o = OPTIONS("from", "all", "cursor", "c");
        channel(w, "in", true, 0);
        channel(w, "out", true, 0);
        client *c = client_new(w, "c");
        publish(c, 1, "in", "x", (lim__buf){ 0 });
        assert_int_equal(take_stored(c).seq, 1);
        PUT(c, subscribe, .stream = 5, .window = 8, .pattern = lim__str("in"), .options = lim__buf_bytes(&o));
        lim__buf_fini(&o);
        TAKE(c, subscribed, SUBSCRIBED, &s);
        TAKE(c, deliver, DELIVER, &d);
        assert_int_equal(
            lim__put_publish(&frames, &(lim__f_publish){ .channel = lim__str("out"), .payload = lim__str("X") }),
            LIM_OK);
        assert_int_equal(lim__put_confirm(&frames, &(lim__f_confirm){ .stream = 5, .how = 1, .seq = d.seq }), LIM_OK);
        lim__buf again = { 0 };
        lim__buf_add(&again, lim__buf_bytes(&frames).ptr, lim__buf_len(&frames));
        step(c, 1, frames);
        assert_int_equal(take_stepped(c, 1).code, LIM_OK);
        step(c, 2, again); /* the message has been acknowledged */
        assert_int_equal(take_stepped(c, 2).code, LIM_E_GONE);
        publish(c, 2, "out", "last", OPTIONS("expect_last", "1")); /* so it was published once */
        assert_int_equal(take_stored(c).seq, 2);
        step(c, 3, (lim__buf){ 0 });
        assert_int_equal(take_stepped(c, 3).code, LIM_E_INVALID);
    }
}

static void test_a_step_that_is_no_row_of_frames_is_a_fault(void **state)
{
    (void)state;
    KEEPING_WORLDS(w, 3)
    {
        client *c = client_new(w, "c");
        PUT(c, step, .corr = 1, .frames = lim__str("this is no frame"));
        run_for(w, SECOND);
        assert_int_equal(c->wire.code, LIM_E_PROTOCOL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_publish_is_answered_when_it_is_stored_in_the_order_asked),
        cmocka_unit_test(test_what_was_published_in_a_row_is_answered_in_a_row),
        cmocka_unit_test(test_each_of_a_row_that_is_refused_is_told),
        cmocka_unit_test(test_a_refusal_says_which_limit_it_met),
        cmocka_unit_test(test_subscribers_hear_of_a_message_when_it_is_stored),
        cmocka_unit_test(test_headers_of_the_system_are_not_for_clients),
        cmocka_unit_test(test_a_connection_that_breaks_loses_its_answers_and_nothing_else),
        cmocka_unit_test(test_a_step_acknowledges_and_publishes_at_once),
        cmocka_unit_test(test_a_step_that_is_no_row_of_frames_is_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
