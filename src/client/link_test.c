/* SPDX-License-Identifier: Apache-2.0
 * link_test.c - connecting, breaking, dialling again, ending; and everything a server may do to a connection. */
#include "client/fake.h"
#include "base/rng.h"

#include <stdio.h>

typedef struct states {
    lim_link_state seen[64];
    int count;
    char last[400];
} states;

static void on_state(void *ctx, lim_link_state state, const char *detail)
{
    states *s = ctx;
    assert_true(s->count < 64);
    s->seen[s->count++] = state;
    snprintf(s->last, sizeof s->last, "%s", detail);
}

static void test_the_link_goes_where_its_picture_says(void **state)
{
    (void)state;
    static const struct {
        lim__link from;
        lim__link_event event;
        lim__link to;
        lim__link_act act;
    } arrows[] = {
        { LIM__LINK_DIALLING, LIM__LINK_REACHED, LIM__LINK_CONNECTING, LIM__DO_SHAKE },
        { LIM__LINK_DIALLING, LIM__LINK_BROKE, LIM__LINK_WAITING, LIM__DO_WAIT },
        { LIM__LINK_DIALLING, LIM__LINK_BANNED, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_DIALLING, LIM__LINK_DUE, LIM__LINK_WAITING, LIM__DO_WAIT },
        { LIM__LINK_DIALLING, LIM__LINK_CLOSE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_CONNECTING, LIM__LINK_WELCOMED, LIM__LINK_UP, LIM__DO_RESUME },
        { LIM__LINK_CONNECTING, LIM__LINK_BROKE, LIM__LINK_WAITING, LIM__DO_WAIT },
        { LIM__LINK_CONNECTING, LIM__LINK_CLOSE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_UP, LIM__LINK_BROKE, LIM__LINK_WAITING, LIM__DO_WAIT },
        { LIM__LINK_UP, LIM__LINK_BANNED, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_UP, LIM__LINK_CLOSE, LIM__LINK_LEAVING, LIM__DO_GOODBYE },
        { LIM__LINK_WAITING, LIM__LINK_DUE, LIM__LINK_DIALLING, LIM__DO_DIAL },
        { LIM__LINK_WAITING, LIM__LINK_CLOSE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_LEAVING, LIM__LINK_WRITTEN, LIM__LINK_LINGERING, LIM__DO_SHUT },
        { LIM__LINK_LEAVING, LIM__LINK_DUE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_LEAVING, LIM__LINK_BROKE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_LINGERING, LIM__LINK_BROKE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_LINGERING, LIM__LINK_DUE, LIM__LINK_ENDED, LIM__DO_END },
        { LIM__LINK_LINGERING, LIM__LINK_WRITTEN, LIM__LINK_LINGERING, LIM__DO_NOTHING },
        { LIM__LINK_ENDED, LIM__LINK_CLOSE, LIM__LINK_ENDED, LIM__DO_NOTHING },
    };
    for (size_t i = 0; i < LIM_COUNT(arrows); i++) {
        lim__link_move m = lim__link_step(arrows[i].from, arrows[i].event);
        assert_int_equal(m.next, arrows[i].to);
        assert_int_equal(m.act, arrows[i].act);
    }
}

static void test_the_pause_doubles_from_50_ms_to_2_s_within_a_fifth(void **state) /* proves WI6 */
{
    (void)state;
    static const uint64_t ms[] = { 50, 100, 200, 400, 800, 1600, 2000, 2000 };
    lim__rng r = lim__rng_seeded(1);
    for (uint32_t attempt = 0; attempt < LIM_COUNT(ms); attempt++) {
        uint64_t least = UINT64_MAX, most = 0, middle = ms[attempt] * FAKE_MS;
        for (int i = 0; i < 2000; i++) {
            uint64_t ns = lim__link_backoff_ns(attempt, lim__rng_next(&r));
            least = ns < least ? ns : least;
            most = ns > most ? ns : most;
        }
        assert_in_range(least, middle * 80 / 100, middle * 82 / 100);
        assert_in_range(most, middle * 118 / 100, middle * 120 / 100);
    }
    assert_in_range(lim__link_backoff_ns(UINT32_MAX, 5), 1600 * FAKE_MS, 2400 * FAKE_MS);
}

static void test_a_client_shakes_hands_and_is_up(void **state)
{
    (void)state;
    states s = { 0 };
    fake *f = fake_new();
    lim_client *c = fake_client(f, &(lim_client_opts){ .on_state = on_state, .ctx = &s, .name = "me" });
    assert_int_equal(lim_client_state(c), LIM_LINK_CONNECTING);
    pump(f, c);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.seen[0], LIM_LINK_UP);
    assert_int_equal(fake_last(f)->session_said.bytes[0], 0);
    assert_int_equal(lim_client_timeout_ms(c), -1); /* nothing is expected: nothing is due */
    silent(f);
    fake_end(f, c);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.seen[1], LIM_LINK_ENDED);
}

static void test_a_break_is_followed_by_ever_longer_pauses(void **state)
{
    (void)state;
    fake *f = fake_new();
    states s = { 0 };
    lim_client *c = fake_up(f, &(lim_client_opts){ .on_state = on_state, .ctx = &s });
    f->now += 5000 * FAKE_MS;
    server_breaks(f);
    f->refuse = ECONNREFUSED;
    pump(f, c);
    static const int ms[] = { 50, 100, 200, 400, 800, 1600, 2000, 2000 };
    for (size_t i = 0; i < LIM_COUNT(ms); i++) {
        int pause = lim_client_timeout_ms(c);
        assert_in_range(pause, ms[i] * 80 / 100, ms[i] * 120 / 100 + 1);
        int dialled = f->conn_count;
        later(f, c, (uint64_t)pause - 2);
        assert_int_equal(f->conn_count, dialled);
        later(f, c, 2);
        assert_int_equal(f->conn_count, dialled + 1);
    }
    assert_int_equal(s.count, 2);
    assert_int_equal(s.seen[1], LIM_LINK_DOWN);
    f->refuse = 0;
    later(f, c, 2500);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    assert_int_equal(fake_last(f)->session_said.bytes[0], 0xa0); /* the token of the first session */
    f->now += 5000 * FAKE_MS;
    server_breaks(f);
    pump(f, c);
    assert_in_range(lim_client_timeout_ms(c), 40, 61); /* from the start: it had been up for long */
    fake_end(f, c);
}

static void test_a_server_that_drops_everybody_is_not_dialled_at_full_speed(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    for (int i = 0; i < 8; i++) {
        server_breaks(f);
        pump(f, c);
        int pause = lim_client_timeout_ms(c);
        if (i == 7)
            assert_in_range(pause, 1600, 2401);
        later(f, c, (uint64_t)pause + 1);
        assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    }
    fake_end(f, c);
}

static void test_without_reconnect_the_first_break_is_the_end(void **state)
{
    (void)state;
    states s = { 0 };
    fake *f = fake_new();
    lim_client *c = fake_up(f, &(lim_client_opts){ .no_reconnect = true, .on_state = on_state, .ctx = &s });
    server_breaks(f);
    pump(f, c);
    assert_int_equal(lim_client_process(c), LIM_E_GONE);
    assert_int_equal(lim_client_state(c), LIM_LINK_ENDED);
    assert_string_equal(s.last, "the server closed the connection");
    assert_int_equal(lim_client_publish_async(c, "a", TEXT("x"), NULL, NULL, NULL), LIM_E_CLOSED);
    assert_int_equal(lim_client_timeout_ms(c), -1);
    fake_end(f, c);
}

static void test_a_refused_dial_names_the_server_and_the_reason(void **state)
{
    (void)state;
    states s = { 0 };
    fake *f = fake_new();
    f->refuse = ECONNREFUSED;
    lim_client_opts opts = { .no_reconnect = true, .on_state = on_state, .ctx = &s, .server = "localhost:4777" };
    lim_client *c = fake_client(f, &opts);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_ENDED);
    assert_string_equal(s.last, "cannot reach the server at localhost:4777: connection refused");
    fake_end(f, c);
}

static void test_a_dial_and_a_handshake_that_take_too_long_are_given_up(void **state)
{
    (void)state;
    for (int mute = 0; mute < 2; mute++) {
        states s = { 0 };
        fake *f = fake_new();
        f->refuse = mute ? 0 : -1;
        f->mute = mute;
        lim_client *c =
            fake_client(f, &(lim_client_opts){ .connect_timeout_ms = 300, .on_state = on_state, .ctx = &s });
        pump(f, c);
        assert_in_range(lim_client_timeout_ms(c), 299, 300);
        later(f, c, 299);
        assert_int_equal(s.count, 0);
        later(f, c, 1);
        assert_int_equal(s.seen[0], LIM_LINK_DOWN);
        assert_string_equal(s.last, "cannot reach the server at 127.0.0.1:4777: no answer within 300 ms");
        f->refuse = f->mute = 0;
        later(f, c, 100);
        assert_int_equal(lim_client_state(c), LIM_LINK_UP);
        fake_end(f, c);
    }
}

static void test_a_fault_ends_the_connection_with_the_servers_words(void **state)
{
    (void)state;
    states s = { 0 };
    fake *f = fake_new();
    lim_client *c = fake_up(f, &(lim_client_opts){ .on_state = on_state, .ctx = &s });
    SAY(f, fault, .code = LIM_E_FULL, .detail = TEXT("you do not read"));
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    assert_string_equal(s.last, "you do not read");
    fake_end(f, c);
}

static void test_a_refused_token_is_the_end(void **state)
{
    (void)state;
    states s = { 0 };
    fake *f = fake_new();
    f->mute = true;
    lim_client *c = fake_client(f, &(lim_client_opts){ .on_state = on_state, .ctx = &s });
    pump(f, c);
    lim__wire_refuse(&fake_last(f)->wire, LIM__REFUSED_TOKEN, "wrong token");
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_ENDED);
    assert_string_equal(s.last, "refused by the server at 127.0.0.1:4777: wrong token");
    fake_end(f, c);
}

static void test_a_goodbye_of_the_server_is_followed_by_dialling_again(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    SAY(f, disconnect, 0);
    pump(f, c);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    later(f, c, 100);
    assert_int_equal(lim_client_state(c), LIM_LINK_UP);
    fake_end(f, c);
}

/* ---- answers in flight while the server is silent ---- */

static void note_outcome(void *ctx, const lim_outcome *o)
{
    int *how = ctx;
    assert_int_equal(*how, 0);
    *how = (int)o->how;
}

static void test_a_silent_server_is_found_out_while_an_answer_is_expected(void **state) /* proves CV3 CV4 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    int how = 0;
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER };
    assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &opts, note_outcome, &how, NULL), LIM_OK);
    pump(f, c);
    assert_in_range(lim_client_timeout_ms(c), 1999, 2000);
    later(f, c, 2000); /* PING, which the fake server's session answers */
    assert_in_range(lim_client_timeout_ms(c), 1999, 2000);
    f->mute = true;
    later(f, c, 2000);
    assert_in_range(lim_client_timeout_ms(c), 3999, 4000);
    later(f, c, 3999);
    assert_int_equal(how, 0);
    later(f, c, 1);
    assert_int_equal(how, LIM_HOW_LOST);
    assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
    fake_end(f, c);
}

static void test_an_idle_client_wakes_nobody(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    for (int i = 0; i < 10; i++) {
        later(f, c, 10000);
        assert_int_equal(lim_client_timeout_ms(c), -1);
    }
    silent(f);
    assert_int_equal(f->conn_count, 1);
    fake_end(f, c);
}

static void test_a_ping_is_answered_at_the_next_process(void **state) /* proves CV4 WI5 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim__wire_ping(&fake_last(f)->wire);
    pump(f, c);
    assert_int_equal(fake_last(f)->wire.pongs, 1);
    fake_end(f, c);
}

/* ---- bytes in any portions, and bytes that are no frames ---- */

static lim_done count_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    int *count = ctx;
    (void)c;
    *count += (int)d->payload.len;
    return LIM_DONE;
}

static void test_frames_may_be_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t cut = 1; cut < 100; cut++) {
        fake *f = fake_new();
        f->read_max = cut;
        lim_client *c = fake_client(f, NULL);
        int bytes = 0, how = 0;
        lim_sub sub;
        lim_client_sub_opts opts = { .size = sizeof opts, .handler = { count_message, NULL, &bytes } };
        assert_int_equal(lim_client_subscribe(c, "a.*", &opts, NULL, &sub), LIM_OK);
        pump(f, c);
        HEAR(f, SUBSCRIBE, subscribe, s);
        SAY(f, subscribed, .stream = s.stream, .subscription = 5);
        SAY(f, deliver, .stream = s.stream, .seq = 1, .channel = TEXT("a.b"), .payload = TEXT("hello"));
        SAY(f, deliver, .stream = s.stream, .seq = 2, .channel = TEXT("a.b"), .payload = TEXT("you"));
        lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 1000 };
        assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &ask, note_outcome, &how, NULL), LIM_OK);
        SAY(f, outcome, .corr = 1, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES, .payload = TEXT("!"));
        pump(f, c);
        assert_int_equal(bytes, 8);
        assert_int_equal(how, LIM_HOW_REPLY);
        fake_end(f, c);
    }
}

static void test_large_frames_arrive_whole(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    int bytes = 0;
    lim_sub sub;
    lim_client_sub_opts opts = { .size = sizeof opts, .handler = { count_message, NULL, &bytes } };
    assert_int_equal(lim_client_subscribe(c, "a", &opts, NULL, &sub), LIM_OK);
    pump(f, c);
    HEAR(f, SUBSCRIBE, subscribe, s);
    SAY(f, subscribed, .stream = s.stream);
    char *large = calloc(1, 1000000);
    for (uint64_t i = 1; i <= 3; i++)
        SAY(f, deliver, .stream = s.stream, .seq = i, .payload = lim__bytes(large, 1000000));
    pump(f, c);
    assert_int_equal(bytes, 3000000);
    free(large);
    fake_end(f, c);
}

static void test_what_the_socket_does_not_take_is_written_later(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    f->write_room = 5;
    for (int i = 0; i < 10; i++)
        assert_int_equal(lim_client_publish_async(c, "a", TEXT("0123456789"), NULL, NULL, NULL), LIM_OK);
    pump(f, c);
    silent(f);
    for (int i = 0; i < 300; i++) {
        f->write_room = 1;
        pump(f, c);
    }
    for (int i = 0; i < 10; i++)
        take(f, LIM__PUBLISH);
    fake_end(f, c);
}

static void test_garbage_breaks_the_connection_and_nothing_else(void **state) /* proves WI4 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        fake *f = fake_new();
        lim__rng r = lim__rng_seeded(seed);
        lim_client *c = fake_up(f, NULL);
        int bytes = 0, how = 0;
        lim_sub sub;
        lim_client_sub_opts opts = { .size = sizeof opts, .handler = { count_message, NULL, &bytes } };
        assert_int_equal(lim_client_subscribe(c, "a", &opts, NULL, &sub), LIM_OK);
        lim_ask_opts ask = { .size = sizeof ask, .timeout_ms = 1000 };
        assert_int_equal(lim_client_ask_async(c, "g", TEXT("q"), &ask, note_outcome, &how, NULL), LIM_OK);
        pump(f, c);
        uint8_t junk[200];
        size_t n = 11 + lim__rng_below(&r, sizeof junk - 11);
        for (size_t i = 0; i < n; i++)
            junk[i] = (uint8_t)lim__rng_next(&r);
        junk[0] = (uint8_t)(0x40 + lim__rng_below(&r, 0x40)); /* a frame of any type, with a length that fits */
        memset(junk + 2, 0, 8);
        junk[5] = (uint8_t)lim__rng_below(&r, 3);
        junk[9] = (uint8_t)(n - 10);
        lim__buf_add(server(f), junk, n);
        pump(f, c);
        fake_end(f, c);
        assert_true(how != 0); /* ended exactly once, by whatever that was, or by the close */
    }
}

static void test_an_answer_to_what_was_never_asked_breaks_the_connection(void **state)
{
    (void)state;
    for (int kind = 0; kind < 7; kind++) {
        fake *f = fake_new();
        lim_client *c = fake_up(f, NULL);
        switch (kind) {
        case 0:
            SAY(f, published, .first_corr = 1, .count = 1, .verdict = LIM_ACCEPT);
            break;
        case 1:
            SAY(f, outcome, .corr = 7, .how = LIM_HOW_REPLY, .handed_over = LIM_HANDED_YES);
            break;
        case 2:
            SAY(f, dispatched, .corr = 7, .verdict = LIM_ACCEPT);
            break;
        case 3:
            SAY(f, subscribed, .stream = 9);
            break;
        case 4:
            SAY(f, served, .stream = 9);
            break;
        case 5:
            SAY(f, opened, .stream = 9);
            break;
        default:
            SAY(f, deliver, .stream = 1, .seq = 1);
            break;
        }
        pump(f, c);
        assert_int_equal(lim_client_state(c), LIM_LINK_DOWN);
        fake_end(f, c);
    }
}

/* ---- options ---- */

static lim_err try_open(const char *server, lim_diag *diag)
{
    fake *f = fake_new();
    lim_client *c = NULL;
    lim_client_opts opts = { .size = sizeof opts, .own_loop = true, .os = &f->os, .server = server };
    lim_err err = lim_client_open(&opts, diag, &c);
    fake_end(f, c);
    return err;
}

static void test_addresses_are_checked(void **state)
{
    (void)state;
    lim_diag diag;
    assert_int_equal(try_open("localhost:80", &diag), LIM_OK);
    assert_int_equal(try_open("10.0.0.1", &diag), LIM_OK);
    assert_int_equal(try_open("[::1]:4777", &diag), LIM_OK);
    assert_int_equal(try_open("[::1]", &diag), LIM_OK);
    static const char *const bad[] = { "a:", "a:0", "a:65536", "a:x", ":4777", "a:12x", "[::1]:", "a:-1" };
    for (size_t i = 0; i < LIM_COUNT(bad); i++)
        assert_int_equal(try_open(bad[i], &diag), LIM_E_INVALID);
    assert_string_equal(diag.text, "the server's address 'a:-1' is not host:port; an example: 127.0.0.1:4777");
}

static void test_options_are_checked(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = NULL;
    lim_client_opts opts = { .own_loop = true, .os = &f->os };
    assert_int_equal(lim_client_open(NULL, NULL, &c), LIM_E_INVALID);
    assert_int_equal(lim_client_open(&opts, NULL, &c), LIM_E_MISUSE); /* size was forgotten */
    opts.size = sizeof opts;
    opts.connect_timeout_ms = -1;
    assert_int_equal(lim_client_open(&opts, NULL, &c), LIM_E_MISUSE);
    opts.connect_timeout_ms = 0;
    opts.name = "";
    assert_int_equal(lim_client_open(&opts, NULL, &c), LIM_E_INVALID);
    fake_end(f, NULL);
}

static void test_blocking_calls_are_refused_in_own_loop(void **state)
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim_outcome out;
    lim_conv conv;
    lim_client_conv_opts conv_opts = { .size = sizeof conv_opts, .timeout_ms = 1, .group = "g" };
    lim_dispatch_opts dispatch_opts = { .size = sizeof dispatch_opts, .timeout_ms = 1 };
    assert_int_equal(lim_client_publish(c, "a", TEXT("x"), NULL, NULL), LIM_E_MISUSE);
    assert_int_equal(lim_client_sys(c, "$sys.groups", "{}", 1000, &out), LIM_E_MISUSE);
    assert_int_equal(lim_client_dispatch(c, "q", TEXT("x"), &dispatch_opts, NULL, NULL), LIM_E_MISUSE);
    assert_int_equal(lim_client_await(c, (lim_conv){ 1 }, 1, &out), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_open(c, &conv_opts, NULL, &conv), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_receive(c, (lim_conv){ 1 }, 1, &out), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_ask(c, (lim_conv){ 1 }, (lim_participant){ 0 }, TEXT("x"), 1, &out), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_join(c, (lim_conv){ 1 }, (lim_participant){ 9 }), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_join_required(c, (lim_conv){ 1 }, (lim_participant){ 9 }), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_leave(c, (lim_conv){ 1 }, (lim_participant){ 9 }), LIM_E_MISUSE);
    assert_int_equal(lim_client_conv_find(c, "room-1", &conv), LIM_E_MISUSE);
    assert_int_equal(lim_client_signal(c, (lim_conv){ 1 }, "pause", TEXT("")), LIM_E_MISUSE);
    assert_int_equal(lim_client_history(c, (lim_conv){ 1 }, 0, NULL, NULL, NULL), LIM_E_MISUSE);
    assert_int_equal(lim_client_flush(c, 100), LIM_E_MISUSE);
    assert_true(lim_client_fd(c) >= 0);
    fake_end(f, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_link_goes_where_its_picture_says),
        cmocka_unit_test(test_the_pause_doubles_from_50_ms_to_2_s_within_a_fifth),
        cmocka_unit_test(test_a_client_shakes_hands_and_is_up),
        cmocka_unit_test(test_a_break_is_followed_by_ever_longer_pauses),
        cmocka_unit_test(test_a_server_that_drops_everybody_is_not_dialled_at_full_speed),
        cmocka_unit_test(test_without_reconnect_the_first_break_is_the_end),
        cmocka_unit_test(test_a_refused_dial_names_the_server_and_the_reason),
        cmocka_unit_test(test_a_dial_and_a_handshake_that_take_too_long_are_given_up),
        cmocka_unit_test(test_a_fault_ends_the_connection_with_the_servers_words),
        cmocka_unit_test(test_a_refused_token_is_the_end),
        cmocka_unit_test(test_a_goodbye_of_the_server_is_followed_by_dialling_again),
        cmocka_unit_test(test_a_silent_server_is_found_out_while_an_answer_is_expected),
        cmocka_unit_test(test_an_idle_client_wakes_nobody),
        cmocka_unit_test(test_a_ping_is_answered_at_the_next_process),
        cmocka_unit_test(test_frames_may_be_cut_at_every_byte),
        cmocka_unit_test(test_large_frames_arrive_whole),
        cmocka_unit_test(test_what_the_socket_does_not_take_is_written_later),
        cmocka_unit_test(test_garbage_breaks_the_connection_and_nothing_else),
        cmocka_unit_test(test_an_answer_to_what_was_never_asked_breaks_the_connection),
        cmocka_unit_test(test_addresses_are_checked),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_blocking_calls_are_refused_in_own_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
