/* SPDX-License-Identifier: Apache-2.0
 * session_test.c - connections: handshake, rubbish, ends, pings, draining, slow readers. */
#include "server/server_world.h"

static void say_bytes(client *c, const void *bytes, size_t n)
{
    lim__buf_add(&c->out, bytes, n);
    client_poke(c);
}

/* A network that moves megabytes before the kernel takes who does not read for dead. */
static void widen(world *w)
{
    lim__sim_net net = lim__sim_net_get(w->sim);
    net.buffer_min = net.buffer_max = 65536;
    net.delay_max_ns = net.delay_min_ns + 100000;
    net.spike_permille = 0;
    lim__sim_net_set(w->sim, &net);
}

static void test_a_version_1_client_is_refused_in_words(void **state) /* proves WI1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_dial(w, "old", NULL);
        PUT(c, connect, .min_major = 1, .max_major = 1);
        expect_end(c);
        lim__frame frame = { .type = c->in.ptr[0],
                             .len = (uint32_t)lim__buf_len(&c->in) - LIM__HEADER_SIZE,
                             .payload = c->in.ptr + LIM__HEADER_SIZE };
        lim__f_connect_error f;
        assert_int_equal(frame.type, LIM__CONNECT_ERROR);
        assert_true(lim__get_connect_error(&frame, &f));
        assert_int_equal(f.reason, LIM__REFUSED_VERSION);
    }
}

static void test_a_session_is_welcomed_and_keeps_its_token(void **state) /* proves WI1 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *b = client_session(w, "b", &a->session, 0);
        assert_memory_equal(a->session.bytes, b->session.bytes, 16);
        client *c = client_new(w, "c");
        assert_memory_not_equal(a->session.bytes, c->session.bytes, 16);
        lim__c_id16 of_another_server = a->session;
        of_another_server.bytes[0] ^= 1;
        client *d = client_session(w, "d", &of_another_server, 0);
        assert_memory_not_equal(d->session.bytes, of_another_server.bytes, 16);
        assert_non_null(strstr(w->log, "event=connect"));
    }
}

static void test_who_never_says_hello_is_sent_away(void **state) /* proves WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_dial(w, "mute", NULL);
        run_until(w, client_is_open, c);
        uint64_t from = lim__sim_now(w->sim);
        expect_end(c);
        assert_in_range(lim__sim_now(w->sim) - from, 9 * SECOND, 20 * SECOND);
        assert_int_equal(c->in.ptr[0], LIM__CONNECT_ERROR);
    }
}

static void test_rubbish_ends_the_session_and_nothing_else(void **state) /* proves WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *good = client_new(w, "good");
        for (int i = 0; i < 6; i++) {
            char name[16];
            snprintf(name, sizeof name, "bad%d", i);
            client *c = client_dial(w, name, NULL);
            uint8_t rubbish[700];
            for (size_t k = 0; k < sizeof rubbish; k++)
                rubbish[k] = (uint8_t)lim__rng_next(lim__sim_rng(w->sim));
            say_bytes(c, rubbish, 10 + (size_t)i * 100);
        }
        PUT(good, publish, .corr = 1, .channel = lim__str("x"));
        lim__f_published f;
        TAKE(good, published, PUBLISHED, &f);
        run_for(w, 30 * SECOND);
        assert_int_equal(lim__server_sessions(w->server), 1);
        assert_int_equal(good->end, 1);
    }
}

static void test_a_frame_cut_anywhere_is_harmless(void **state) /* proves WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        lim__buf whole = { 0 };
        assert_int_equal(lim__put_connect(&whole, &(lim__f_connect){ .min_major = 1, .max_major = 2 }), LIM_OK);
        assert_int_equal(lim__put_hello(&whole, &(lim__f_hello){ .client = lim__str("cut") }), LIM_OK);
        assert_int_equal(lim__put_ask(&whole, &(lim__f_ask){ .corr = 1,
                                                             .timeout_ms = 1000,
                                                             .on_crash = 1,
                                                             .group = lim__str("g"),
                                                             .payload = lim__str("x") }),
                         LIM_OK);
        assert_int_equal(
            lim__put_subscribe(&whole,
                               &(lim__f_subscribe){ .stream = 1, .window = 1, .policy = 2, .pattern = lim__str("a") }),
            LIM_OK);
        for (size_t n = 1; n < lim__buf_len(&whole); n += 13) {
            client *c = client_dial(w, "cut", NULL);
            say_bytes(c, whole.ptr, n);
            run_for(w, SECOND / 10);
            client_free(c);
            w->client_count--;
        }
        lim__buf_fini(&whole);
        assert_true(run_until(w, nobody_is_left, w));
    }
}

static void test_breaking_the_protocol_is_told_before_the_end(void **state) /* proves WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "a");
        say_bytes(c, "\x42\0\0\0\0\0\0\0\0\2ab", 12); /* PUBLISH of two bytes */
        say_bytes(c, "more that is never read", 23);
        expect_fault(c, LIM_E_PROTOCOL);
        c = client_new(w, "b");
        say_bytes(c, "\x42\0\0\0\0\0\x7f\xff\xff\xff", 10); /* 2 GiB announced */
        expect_fault(c, LIM_E_TOOBIG);
        c = client_new(w, "c");
        say_bytes(c, "\x01\0\0\0\0\0\0\0\0\0", 10); /* CONNECT again */
        expect_fault(c, LIM_E_PROTOCOL);
        c = client_new(w, "d");
        PUT(c, subscribe, .stream = 5, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a"));
        PUT(c, subscribe, .stream = 5, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a"));
        expect_fault(c, LIM_E_PROTOCOL);
        c = client_new(w, "e");
        PUT(c, subscribe, .stream = 5, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a"));
        PUT(c, ack, .stream = 5, .upto_seq = 1);
        expect_fault(c, LIM_E_PROTOCOL);
        c = client_new(w, "f");
        PUT(c, subscribe, .stream = 5, .window = 1, .policy = LIM_DROP_OLDEST, .pattern = lim__str("a"));
        PUT(c, leave, .stream = 5);
        expect_fault(c, LIM_E_PROTOCOL);
    }
}

static uint64_t some(world *w, uint64_t below)
{
    return lim__rng_below(lim__sim_rng(w->sim), below);
}

/* Whatever a client may say, in an order and with numbers that no client would choose. */
static void say_anything(client *c)
{
    world *w = c->w;
    static const char *const names[] = { "a", "a.b", "", "a b", ">", "*", "$sys.info", "q", "$sys.events.>" };
    lim_bytes name = lim__str(names[some(w, LIM_COUNT(names))]), text = lim__bytes("some text", some(w, 10));
    uint32_t on = 1 + (uint32_t)some(w, 4), n = (uint32_t)some(w, 4);
    uint64_t corr = some(w, 40), conv = some(w, 3) == 0 ? 0 : some(w, 1u << 30), lease = some(w, 4);
    if (c->served != 0 && some(w, 2) == 0)
        conv = c->served + some(w, 3);
    switch (some(w, 21)) {
    case 0:
        PUT(c, publish, .corr = n, .flags = (uint8_t)some(w, 8), .channel = name, .payload = text);
        return;
    case 1:
        PUT(c, subscribe, .stream = on + 4, .window = n, .backlog = n, .policy = (uint8_t)(1 + n), .pattern = name);
        return;
    case 2:
        PUT(c, ack, .stream = on + 4, .upto_seq = some(w, 2));
        return;
    case 3:
        PUT(c, unsubscribe, .stream = on + 4);
        return;
    case 4:
    case 5:
        PUT(c, ask, .corr = 1000 + corr * 100 + some(w, 100), .timeout_ms = n * 1000,
            .on_crash = 1 + (uint8_t)some(w, 2), .participant = some(w, 4) == 0 ? conv : 0, .group = name,
            .payload = text);
        return;
    case 6:
        PUT(c, cancel, .corr = 1000 + corr * 100);
        return;
    case 7:
        PUT(c, serve, .stream = on + 8 + (uint32_t)some(w, 1000) * 16, .kind = 1 + (uint8_t)some(w, 2), .capacity = n,
            .group = name, .identity = some(w, 2) ? text : lim__str(""));
        return;
    case 8:
        PUT(c, leave, .stream = on + 8);
        return;
    case 9:
        PUT(c, taken, .stream = on + 8, .conversation = conv, .lease = lease);
        return;
    case 10:
        PUT(c, reply, .stream = on + 8, .conversation = conv, .lease = lease, .how = 1 + (uint8_t)some(w, 3));
        return;
    case 11:
        PUT(c, holding, .stream = on + 8, .conversation = conv, .lease = lease);
        return;
    case 12:
        PUT(c, dispatch, .corr = 10000 + corr * 100 + some(w, 100), .flags = (uint8_t)some(w, 4),
            .timeout_ms = n * 1000, .queue = name, .payload = text);
        return;
    case 13:
        PUT(c, await, .corr = 20000 + corr * 100 + some(w, 100), .task = conv);
        return;
    case 14:
        PUT(c, open, .stream = on + 12 + (uint32_t)some(w, 1000) * 16, .timeout_ms = n * 1000, .on_crash = 1,
            .group = name, .participant = some(w, 3) == 0 ? conv : 0);
        return;
    case 15:
        PUT(c, send, .stream = on + 12, .corr = n, .to = conv, .payload = text);
        return;
    case 16:
        PUT(c, askin, .stream = on + 12, .corr = 30000 + corr * 100 + some(w, 100), .timeout_ms = n * 1000, .to = conv);
        return;
    case 17:
        PUT(c, join, .stream = on + 12, .corr = n, .participant = conv);
        return;
    case 18:
        PUT(c, say, .stream = on + 8, .conversation = conv, .payload = text);
        return;
    case 19:
        PUT(c, report, .stream = on + 8, .used = some(w, 2) ? n : UINT32_MAX - n);
        return;
    default:
        PUT(c, close, .stream = on + 12);
    }
}

static void test_nothing_that_a_client_says_harms_the_server(void **state) /* proves WI4 */
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *good = client_new(w, "good");
        for (int i = 0; i < 8; i++) {
            char name[16];
            snprintf(name, sizeof name, "odd%d", i);
            client *c = client_session(w, name, NULL, 3000);
            for (int k = 0; k < 60 && c->end == 1; k++) {
                say_anything(c);
                if (some(w, 4) == 0)
                    run_for(w, some(w, SECOND / 4));
                lim__f_served served;
                const lim__frame *frame = client_has(c, LIM__SERVED) ? client_take(c, LIM__SERVED) : NULL;
                if (frame != NULL && lim__get_served(frame, &served))
                    c->served = served.participant;
            }
        }
        PUT(good, publish, .corr = 1, .channel = lim__str("x"));
        lim__f_published f;
        TAKE(good, published, PUBLISHED, &f);
        assert_int_equal(lim__never_count(), 0);
    }
}

static void test_answers_stand_before_the_fault_that_ends_the_session(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "a");
        PUT(c, publish, .corr = 7, .channel = lim__str("x"));
        say_bytes(c, "\x7f\0\0\0\0\0\0\0\0\0", 10); /* FAULT is not a client's to send */
        lim__f_published f;
        TAKE(c, published, PUBLISHED, &f);
        assert_int_equal(f.first_corr, 7);
        expect_fault(c, LIM_E_PROTOCOL);
    }
}

static void test_what_was_said_before_a_goodbye_is_dealt_with(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *sub = client_new(w, "sub"), *pub = client_new(w, "pub");
        PUT(sub, subscribe, .stream = 1, .window = 100, .policy = LIM_DROP_OLDEST, .pattern = lim__str("x"));
        lim__f_subscribed ready;
        TAKE(sub, subscribed, SUBSCRIBED, &ready);
        PUT(pub, publish, .corr = 1, .channel = lim__str("x"), .payload = lim__str("last words"));
        lim__wire_bye(&pub->wire);
        client_poke(pub);
        lim__f_deliver f;
        TAKE(sub, deliver, DELIVER, &f);
        assert_text(f.payload, "last words");
        expect_end(pub);
        assert_int_equal(pub->end, 0);
        assert_true(client_has(pub, LIM__PUBLISHED) || pub->wire.state >= LIM__WIRE_CLOSING);
    }
}

static void test_half_a_close_still_gets_its_answers(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *c = client_new(w, "a");
        for (uint32_t i = 1; i <= 100; i++)
            PUT(c, publish, .corr = i, .channel = lim__str("x"), .payload = lim__str("hello"));
        while (lim__buf_len(&c->out) > 0)
            lim__sim_step(w->sim);
        c->os->shutdown_write(c->os, c->fd);
        uint32_t answered = 0;
        while (answered < 100) {
            lim__f_published f;
            TAKE(c, published, PUBLISHED, &f);
            answered += f.count;
        }
        expect_end(c);
        assert_int_equal(c->end, 0);
    }
}

static void test_a_large_frame_comes_in_pieces(void **state)
{
    (void)state;
    FEW_WORLDS(w)
    {
        client *sub = client_new(w, "sub"), *pub = client_new(w, "pub");
        PUT(sub, subscribe, .stream = 1, .window = 100, .policy = LIM_DROP_OLDEST, .pattern = lim__str("big"));
        lim__f_subscribed ready;
        TAKE(sub, subscribed, SUBSCRIBED, &ready);
        static uint8_t bytes[1024 * 1024 + 1];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(i * 31 >> 3);
        static const size_t sizes[] = { 1024 * 1024, 300000, 262144, 262127, 1, 700000 };
        for (uint32_t i = 0; i < LIM_COUNT(sizes); i++)
            PUT(pub, publish, .corr = i + 1, .channel = lim__str("big"), .payload = lim__bytes(bytes, sizes[i]));
        PUT(pub, publish, .corr = 100, .channel = lim__str("big"), .payload = lim__bytes(bytes, sizeof bytes));
        for (uint32_t i = 0; i < LIM_COUNT(sizes); i++) {
            lim__f_deliver f;
            TAKE(sub, deliver, DELIVER, &f);
            assert_int_equal(f.payload.len, sizes[i]);
            assert_memory_equal(f.payload.ptr, bytes, sizes[i]);
        }
        lim__f_published p;
        do
            TAKE(pub, published, PUBLISHED, &p);
        while (p.first_corr != 100);
        assert_int_equal(p.verdict, LIM_REJECT);
        assert_int_equal(p.why, LIM_WHY_TOO_BIG);
    }
}

static void test_who_does_not_read_holds_nobody_up_and_is_told_of_drops(void **state) /* proves PR3 */
{
    (void)state;
    FEW_WORLDS(w)
    {
        widen(w);
        client *slow = client_new(w, "slow"), *fast = client_new(w, "fast"), *pub = client_new(w, "pub");
        lim__f_subscribed ready;
        PUT(slow, subscribe, .stream = 1, .window = 1000000, .backlog = 10, .policy = LIM_DROP_OLDEST,
            .pattern = lim__str("x"));
        PUT(fast, subscribe, .stream = 1, .window = 1000000, .backlog = 1000000, .policy = LIM_DROP_OLDEST,
            .pattern = lim__str("x"));
        TAKE(slow, subscribed, SUBSCRIBED, &ready);
        TAKE(fast, subscribed, SUBSCRIBED, &ready);
        slow->deaf = true;
        client_poke(slow);
        static char bytes[50000];
        enum { COUNT = 60 };
        for (uint32_t i = 1; i <= COUNT; i++) {
            PUT(pub, publish, .corr = i, .channel = lim__str("x"), .payload = lim__bytes(bytes, sizeof bytes));
            lim__f_deliver f;
            TAKE(fast, deliver, DELIVER, &f);
            assert_int_equal(f.seq, i);
        }
        slow->deaf = false;
        client_poke(slow);
        lim__f_deliver f = { 0 };
        uint64_t seen = 0;
        do {
            TAKE(slow, deliver, DELIVER, &f);
            assert_int_equal(f.seq, ++seen); /* no gaps in the numbers */
            PUT(pub, publish, .corr = COUNT + (uint32_t)seen, .channel = lim__str("x"), .payload = lim__str("now"));
        } while (f.payload.len > 10);
        assert_true(seen < COUNT + 1 || !client_has(slow, LIM__DROPPED));
    }
}

static void test_a_publisher_that_does_not_read_answers_is_not_read(void **state)
{
    (void)state;
    FEW_WORLDS(w)
    {
        widen(w);
        client *c = client_new(w, "a"), *other = client_new(w, "b");
        c->deaf = true;
        /* Each is refused with a text of its own, so answers are large and cannot be merged. */
        enum { COUNT = 120000 };
        for (uint32_t i = 0; i < COUNT; i++) {
            PUT(c, publish, .corr = i * 2, .channel = lim__str("no such name!"));
        }
        run_for(w, 20 * SECOND);
        assert_true(lim__buf_len(&c->out) > 0); /* the server reads no more of it */
        PUT(other, publish, .corr = 1, .channel = lim__str("x"));
        lim__f_published f;
        TAKE(other, published, PUBLISHED, &f);
        c->deaf = false;
        client_poke(c);
        for (uint32_t i = 0; i < COUNT; i++) {
            TAKE(c, published, PUBLISHED, &f);
            assert_int_equal(f.first_corr, i * 2);
        }
    }
}

static void test_an_idle_connection_has_no_timer_and_wakes_nobody(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        for (int i = 0; i < 8; i++) {
            char name[16];
            snprintf(name, sizeof name, "idle%d", i);
            client *c = client_session(w, name, NULL, 6000);
            PUT(c, subscribe, .stream = 1, .window = 10, .policy = LIM_DROP_OLDEST, .pattern = lim__str("quiet"));
            lim__f_subscribed ready;
            TAKE(c, subscribed, SUBSCRIBED, &ready);
        }
        run_for(w, 5 * SECOND);
        lim_bus_census now, later;
        lim_bus_census_take(w->bus, &now);
        assert_int_equal(now.runtime.timers, w->before.runtime.timers);
        run_for(w, 100 * SECOND);
        lim_bus_census_take(w->bus, &later);
        assert_int_equal(later.runtime.turns, now.runtime.turns);
    }
}

static void test_draining_says_goodbye_when_nothing_is_pending(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *a = client_new(w, "a"), *b = client_new(w, "b");
        lim__server_drain(w->server, 60000);
        expect_end(a);
        expect_end(b);
        assert_int_equal(a->wire.code, LIM_OK); /* DISCONNECT */
        assert_true(run_until(w, nobody_is_left, w));
        assert_true(lim__server_drained(w->server));
        assert_false(lim__server_forced(w->server));
    }
}

static void test_draining_waits_for_what_is_pending_but_not_for_ever(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        client *server = client_new(w, "server1"), *asker = client_new(w, "asker");
        lim__f_served served;
        lim__f_request request;
        PUT(server, serve, .stream = 1, .kind = LIM__SERVE_GROUP, .capacity = 4, .group = lim__str("g"));
        TAKE(server, served, SERVED, &served);
        for (uint64_t corr = 1; corr <= 2; corr++)
            PUT(asker, ask, .corr = corr, .timeout_ms = 100000, .on_crash = 1, .group = lim__str("g"));
        TAKE(server, request, REQUEST, &request);
        TAKE(server, request, REQUEST, &request);
        lim__server_drain(w->server, 3000);
        run_for(w, SECOND);
        assert_int_equal(asker->end, 1);
        PUT(asker, ask, .corr = 9, .timeout_ms = 1000, .on_crash = 1, .group = lim__str("g"));
        lim__f_outcome f;
        TAKE(asker, outcome, OUTCOME, &f);
        assert_int_equal(f.corr, 9);
        assert_int_equal(f.how, LIM_HOW_REFUSED);
        assert_int_equal(f.why, LIM_WHY_CLOSING);
        PUT(server, reply, .stream = 1, .conversation = request.conversation, .lease = request.lease, .how = 1);
        TAKE(asker, outcome, OUTCOME, &f);
        assert_int_equal(f.how, LIM_HOW_REPLY);
        expect_end(asker); /* the other ask is not answered: the bound passes */
        assert_true(run_until(w, nobody_is_left, w));
        assert_true(lim__server_forced(w->server));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_version_1_client_is_refused_in_words),
        cmocka_unit_test(test_a_session_is_welcomed_and_keeps_its_token),
        cmocka_unit_test(test_who_never_says_hello_is_sent_away),
        cmocka_unit_test(test_rubbish_ends_the_session_and_nothing_else),
        cmocka_unit_test(test_a_frame_cut_anywhere_is_harmless),
        cmocka_unit_test(test_breaking_the_protocol_is_told_before_the_end),
        cmocka_unit_test(test_nothing_that_a_client_says_harms_the_server),
        cmocka_unit_test(test_answers_stand_before_the_fault_that_ends_the_session),
        cmocka_unit_test(test_what_was_said_before_a_goodbye_is_dealt_with),
        cmocka_unit_test(test_half_a_close_still_gets_its_answers),
        cmocka_unit_test(test_a_large_frame_comes_in_pieces),
        cmocka_unit_test(test_who_does_not_read_holds_nobody_up_and_is_told_of_drops),
        cmocka_unit_test(test_a_publisher_that_does_not_read_answers_is_not_read),
        cmocka_unit_test(test_an_idle_connection_has_no_timer_and_wakes_nobody),
        cmocka_unit_test(test_draining_says_goodbye_when_nothing_is_pending),
        cmocka_unit_test(test_draining_waits_for_what_is_pending_but_not_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
