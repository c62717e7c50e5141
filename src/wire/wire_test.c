/* SPDX-License-Identifier: Apache-2.0
 * wire_test.c - the session: a client and a server that talk through two buffers, cut at any place, and peers that do
 * not keep to the rules. */
#include "wire/wire.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

typedef struct side {
    lim__wire wire;
    lim__buf out, in; /* in: what has arrived and was not yet taken */
} side;

static void begin(side *s, lim__wire_role role, const lim__wire_opts *opts)
{
    *s = (side){ 0 };
    lim__wire_init(&s->wire, role, &s->out, opts);
    lim__wire_open(&s->wire);
}

static void finish(side *s)
{
    lim__wire_check(&s->wire);
    lim__buf_fini(&s->out);
    lim__buf_fini(&s->in);
}

/* The next frame from what has arrived; views stay valid until more is fed. */
static lim__wire_got next(side *s, lim__frame *frame)
{
    lim_bytes all = lim__buf_bytes(&s->in);
    const uint8_t *p = all.len ? (const uint8_t *)all.ptr : (const uint8_t *)"";
    lim__span span = { p, p + all.len };
    lim__wire_got got = lim__wire_next(&s->wire, &span, frame);
    s->in.start += (size_t)(span.p - p);
    lim__wire_check(&s->wire);
    return got;
}

static void feed(side *s, const void *bytes, size_t n)
{
    lim__buf_add(&s->in, bytes, n);
}
#define FEED(s, literal) feed(s, literal, sizeof(literal) - 1)

static void carry(side *from, side *to)
{
    feed(to, from->out.ptr + from->out.start, lim__buf_len(&from->out));
    from->out.start = from->out.end = 0;
}

/* The one frame that s has just written. */
static lim__frame written(side *s)
{
    const uint8_t *p = s->out.ptr + s->out.start;
    assert_true(lim__buf_len(&s->out) >= LIM__HEADER_SIZE);
    lim__frame frame = { p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };
    s->out.start += LIM__HEADER_SIZE + frame.len;
    assert_true(s->out.start <= s->out.end);
    return frame;
}

static void expect_fault(side *server, lim_err code)
{
    lim__frame frame = written(server);
    lim__f_fault f = { 0 };
    assert_int_equal(frame.type, LIM__FAULT);
    assert_true(lim__get_fault(&frame, &f));
    assert_int_equal(f.code, code);
    assert_true(f.detail.len > 0);
    assert_int_equal(server->wire.code, code);
    assert_int_equal(server->wire.state, LIM__WIRE_CLOSING);
    assert_int_equal(lim__buf_len(&server->out), 0);
}

static const lim__f_welcome WELCOME = { .frame_max = 5000,
                                        .ping_ms = 2000,
                                        .session = { { 1 } },
                                        .server = { "s1", 2 },
                                        .version = { "0.1.0", 5 },
                                        .durability_class = { "none", 4 } };

static void meet(side *client, side *server, const lim__wire_opts *client_opts, const lim__wire_opts *server_opts)
{
    lim__frame frame;
    begin(client, LIM__WIRE_CLIENT, client_opts);
    begin(server, LIM__WIRE_SERVER, server_opts);
    carry(client, server);
    assert_int_equal(next(server, &frame), LIM__WIRE_MORE);
    carry(server, client);
    assert_int_equal(next(client, &frame), LIM__WIRE_MORE);
    carry(client, server);
    assert_int_equal(next(server, &frame), LIM__WIRE_FRAME);
    assert_int_equal(frame.type, LIM__HELLO);
    assert_int_equal(lim__put_welcome(&server->out, &WELCOME), LIM_OK);
    carry(server, client);
    assert_int_equal(next(client, &frame), LIM__WIRE_FRAME);
    assert_int_equal(frame.type, LIM__WELCOME);
    assert_int_equal(client->wire.state, LIM__WIRE_ACTIVE);
    assert_int_equal(server->wire.state, LIM__WIRE_ACTIVE);
    assert_int_equal(lim__buf_len(&client->out) + lim__buf_len(&server->out), 0);
}

static void test_client_and_server_meet_and_exchange_frames(void **state) /* proves WI1 */
{
    (void)state;
    side client, server;
    lim__frame frame;
    lim__wire_opts opts = { .hello = { .liveness_ms = 6000, .client = lim__str("w1") } };
    meet(&client, &server, &opts, NULL);
    assert_int_equal(client.wire.peer_length_max, 5000);
    lim__f_publish p = { .corr = 1, .channel = lim__str("orders"), .payload = lim__str("hi") }, q = { 0 };
    assert_int_equal(lim__put_publish(&client.out, &p), LIM_OK);
    carry(&client, &server);
    assert_int_equal(next(&server, &frame), LIM__WIRE_FRAME);
    assert_true(lim__get_publish(&frame, &q));
    assert_true(lim__bytes_eq(q.channel, p.channel));
    assert_int_equal(lim__put_deliver(&server.out, &(lim__f_deliver){ .stream = 1, .seq = 1 }), LIM_OK);
    carry(&server, &client);
    assert_int_equal(next(&client, &frame), LIM__WIRE_FRAME);
    assert_int_equal(frame.type, LIM__DELIVER);
    assert_int_equal(next(&client, &frame), LIM__WIRE_MORE);
    finish(&client);
    finish(&server);
}

static void test_the_hello_carries_what_the_options_say(void **state)
{
    (void)state;
    side client;
    lim__frame frame;
    lim__f_hello f = { 0 };
    lim__wire_opts opts = { .hello = { .liveness_ms = 6000, .session = { { 9 } }, .client = lim__str("w1") } };
    begin(&client, LIM__WIRE_CLIENT, &opts);
    assert_int_equal(written(&client).type, LIM__CONNECT);
    FEED(&client, "\2\0\0\0\0\0\0\0\0\10\0\2\0\0\0\0\0\0");
    assert_int_equal(next(&client, &frame), LIM__WIRE_MORE);
    frame = written(&client);
    assert_true(frame.type == LIM__HELLO && lim__get_hello(&frame, &f));
    assert_true(f.liveness_ms == 6000 && f.session.bytes[0] == 9 && lim__bytes_eq(f.client, lim__str("w1")));
    finish(&client);
}

static void test_a_client_without_version_2_is_told_what_this_server_speaks(void **state) /* proves WI1 */
{
    (void)state;
    side server;
    lim__frame frame;
    lim__f_connect_error f = { 0 };
    begin(&server, LIM__WIRE_SERVER, NULL);
    FEED(&server, "\1\0\0\0\0\0\0\0\0\14\0\1\0\0\0\1\0\0\0\0\0\0");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    frame = written(&server);
    assert_true(frame.type == LIM__CONNECT_ERROR && lim__get_connect_error(&frame, &f));
    assert_int_equal(f.reason, LIM__REFUSED_VERSION);
    assert_non_null(memmem(f.message.ptr, f.message.len, "speaks 2.0", 10));
    finish(&server);
}

static void test_a_server_without_version_2_is_named_by_the_client(void **state)
{
    (void)state;
    side client;
    lim__frame frame;
    begin(&client, LIM__WIRE_CLIENT, NULL);
    FEED(&client, "\2\0\0\0\0\0\0\0\0\10\0\1\0\0\0\0\0\0");
    assert_int_equal(next(&client, &frame), LIM__WIRE_END);
    assert_int_equal(client.wire.code, LIM_E_PROTOCOL);
    assert_non_null(strstr(client.wire.text, "version 1.0"));
    finish(&client);
}

static void test_only_the_right_token_opens_the_door(void **state)
{
    (void)state;
    static const char *const wrong[] = { "", "secre", "secret1", "Secret", "ssecret", "secretsecret" };
    side client, server;
    lim__frame frame;
    lim__wire_opts want = { .token = lim__str("secret") };
    meet(&client, &server, &want, &want);
    finish(&client);
    finish(&server);
    for (size_t i = 0; i < LIM_COUNT(wrong); i++) {
        lim__wire_opts given = { .token = lim__str(wrong[i]) };
        begin(&client, LIM__WIRE_CLIENT, &given);
        begin(&server, LIM__WIRE_SERVER, &want);
        carry(&client, &server);
        assert_int_equal(next(&server, &frame), LIM__WIRE_END);
        carry(&server, &client);
        assert_int_equal(next(&client, &frame), LIM__WIRE_END);
        assert_int_equal(client.wire.refusal, LIM__REFUSED_TOKEN);
        assert_int_equal(client.wire.code, LIM_E_DENIED);
        finish(&client);
        finish(&server);
    }
}

static void test_a_full_server_refuses_with_a_reason_before_it_has_read_anything(void **state)
{
    (void)state;
    side client, server;
    lim__frame frame;
    begin(&client, LIM__WIRE_CLIENT, NULL);
    begin(&server, LIM__WIRE_SERVER, NULL);
    lim__wire_refuse(&server.wire, LIM__REFUSED_OTHER, "too many connections");
    lim__wire_refuse(&server.wire, LIM__REFUSED_OTHER, "said once");
    carry(&server, &client);
    assert_int_equal(next(&client, &frame), LIM__WIRE_END);
    assert_string_equal(client.wire.text, "too many connections");
    assert_int_equal(client.wire.refusal, LIM__REFUSED_OTHER);
    finish(&client);
    finish(&server);
}

static void test_cut_anywhere_the_same_frames_come_out(void **state) /* proves WI4 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(7);
    lim__buf stream = { 0 };
    side client, server;
    lim__frame frame;
    uint8_t payload[300] = { 0 };
    for (uint32_t i = 0; i < 60; i++) {
        lim__f_publish f = { .corr = i, .channel = lim__str("c"), .payload = lim__bytes(payload, i * 5) };
        assert_int_equal(lim__put_publish(&stream, &f), LIM_OK);
        if (i % 7 == 0)
            assert_int_equal(lim__put_ping(&stream, &(lim__f_ping){ 0 }), LIM_OK);
        if (i % 11 == 0) /* nobody knows this one */
            lim__buf_add(&stream, "\xfe\x7f\0\0\0\x09\0\0\0\x03\xca\xfe\xba", 13);
    }
    for (int round = 0; round < 200; round++) {
        uint32_t corr = 0, pongs = 0;
        meet(&client, &server, NULL, NULL);
        for (size_t at = 0; at < stream.end;) {
            size_t n = round == 0 ? 1 : 1 + lim__rng_below(&rng, round < 100 ? 30 : 3000);
            n = n < stream.end - at ? n : stream.end - at;
            feed(&server, stream.ptr + at, n);
            at += n;
            lim__wire_got got;
            while ((got = next(&server, &frame)) == LIM__WIRE_FRAME) {
                lim__f_publish f = { 0 };
                assert_true(lim__get_publish(&frame, &f));
                assert_int_equal(f.corr, corr);
                assert_int_equal(f.payload.len, corr++ * 5);
            }
            assert_int_equal(got, LIM__WIRE_MORE);
        }
        assert_int_equal(corr, 60);
        assert_int_equal(lim__buf_len(&server.in), 0);
        for (; lim__buf_len(&server.out) > 0; pongs++)
            assert_int_equal(written(&server).type, LIM__PONG);
        assert_int_equal(pongs, 9);
        finish(&client);
        finish(&server);
    }
    lim__buf_fini(&stream);
}

static void test_an_incomplete_frame_says_how_much_it_needs(void **state)
{
    (void)state;
    side client, server;
    lim__frame frame;
    meet(&client, &server, NULL, NULL);
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    assert_int_equal(server.wire.need, 10);
    FEED(&server, "\x42\0\0\0\0\0\0\0\x20");
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    assert_int_equal(server.wire.need, 10);
    FEED(&server, "\0");
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    assert_int_equal(server.wire.need, 10 + 0x2000);
    finish(&client);
    finish(&server);
}

static void test_a_length_over_the_limit_is_refused_from_its_header(void **state) /* proves WI4 */
{
    (void)state;
    side client, server;
    lim__frame frame;
    meet(&client, &server, NULL, &(lim__wire_opts){ .length_max = 1000 });
    FEED(&server, "\x42\0\0\0\0\0\0\0\3\xe9");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    expect_fault(&server, LIM_E_TOOBIG);
    finish(&client);
    finish(&server);
    meet(&client, &server, NULL, NULL); /* unknown frames too: skipping is not a way around the limit */
    FEED(&server, "\xfe\0\0\0\0\0\xff\xff\xff\xff");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    expect_fault(&server, LIM_E_TOOBIG);
    finish(&client);
    finish(&server);
    begin(&server, LIM__WIRE_SERVER, NULL); /* a stranger gets less */
    FEED(&server, "\1\0\0\0\0\0\0\1\0\1");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    expect_fault(&server, LIM_E_TOOBIG);
    finish(&server);
}

static void test_frames_before_hello_are_a_fault(void **state) /* proves WI4 */
{
    (void)state;
    side server;
    lim__frame frame;
    begin(&server, LIM__WIRE_SERVER, NULL);
    FEED(&server, "\x52\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\1");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    expect_fault(&server, LIM_E_PROTOCOL);
    finish(&server);
    begin(&server, LIM__WIRE_SERVER, NULL);
    FEED(&server, "\1\0\0\0\0\0\0\0\0\14\0\1\0\0\0\2\0\0\0\0\0\0");
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    assert_int_equal(written(&server).type, LIM__CONNECT_ACK);
    FEED(&server, "\x52\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\1");
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    expect_fault(&server, LIM_E_PROTOCOL);
    finish(&server);
}

/* Each is fed to a server whose session is ACTIVE. */
static void test_frames_that_are_not_a_clients_to_send_are_a_fault(void **state) /* proves WI4 */
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
#define BAD(literal) { literal, sizeof(literal) - 1 }
        BAD("\x41\0\0\0\0\0\0\0\0\0"),                        /* WELCOME */
        BAD("\x46\0\0\0\0\1\0\0\0\0"),                        /* DELIVER */
        BAD("\x7f\0\0\0\0\0\0\0\0\4\0\1\0\0"),                /* FAULT */
        BAD("\x02\0\0\0\0\0\0\0\0\0"),                        /* CONNECT_ACK */
        BAD("\x09\0\0\0\0\1\0\0\0\0"),                        /* version 1.0's Publish */
        BAD("\x17\0\0\0\0\0\0\0\0\0"),                        /* version 1.0's WorkerRegister */
        BAD("\x42\0\0\0\0\1\0\0\0\0"),                        /* PUBLISH on stream 1 */
        BAD("\x44\0\0\0\0\0\0\0\0\0"),                        /* SUBSCRIBE on stream 0 */
        BAD("\x13\0\0\0\0\1\0\0\0\0"),                        /* PING on stream 1 */
        BAD("\x13\0\0\0\0\0\0\0\0\1x"),                       /* PING with content */
        BAD("\x04\0\0\0\0\0\0\0\0\1x"),                       /* DISCONNECT with content */
        BAD("\x40\0\0\0\0\0\0\0\0\0"),                        /* a second HELLO */
        BAD("\1\0\0\0\0\0\0\0\0\14\0\1\0\0\0\2\0\0\0\0\0\0"), /* a second CONNECT */
#undef BAD
    };
    side client, server;
    lim__frame frame;
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        meet(&client, &server, NULL, NULL);
        feed(&server, bad[i].bytes, bad[i].len);
        assert_int_equal(next(&server, &frame), LIM__WIRE_END);
        expect_fault(&server, LIM_E_PROTOCOL);
        finish(&client);
        finish(&server);
    }
}

static void test_a_malformed_frame_is_the_owners_to_report(void **state)
{
    (void)state;
    side client, server;
    lim__frame frame;
    lim__f_cancel f;
    meet(&client, &server, NULL, NULL);
    FEED(&server, "\x52\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
    assert_int_equal(next(&server, &frame), LIM__WIRE_FRAME);
    assert_false(lim__get_cancel(&frame, &f));
    lim__wire_malformed(&server.wire, &frame);
    assert_string_equal(server.wire.text, "CANCEL of 7 bytes on stream 0 is malformed");
    lim__wire_fault(&server.wire, LIM_E_IO, "not the first reason");
    expect_fault(&server, LIM_E_PROTOCOL);
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    finish(&client);
    finish(&server);
}

static void test_both_sides_answer_ping_at_once(void **state) /* proves WI5 */
{
    (void)state;
    side client, server;
    lim__frame frame;
    meet(&client, &server, NULL, NULL);
    lim__wire_ping(&server.wire);
    lim__wire_ping(&client.wire);
    carry(&server, &client);
    carry(&client, &server);
    assert_int_equal(next(&client, &frame), LIM__WIRE_MORE);
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    carry(&server, &client);
    carry(&client, &server);
    assert_int_equal(next(&client, &frame), LIM__WIRE_MORE);
    assert_int_equal(next(&server, &frame), LIM__WIRE_MORE);
    assert_int_equal(client.wire.pongs, 1);
    assert_int_equal(server.wire.pongs, 1);
    finish(&client);
    finish(&server);
}

static void test_goodbye_ends_both_sides_without_an_error(void **state)
{
    (void)state;
    side client, server;
    lim__frame frame;
    meet(&client, &server, NULL, NULL);
    lim__wire_bye(&client.wire);
    lim__wire_bye(&client.wire);
    lim__wire_ping(&client.wire);
    assert_int_equal(lim__buf_len(&client.out), LIM__HEADER_SIZE);
    carry(&client, &server);
    assert_int_equal(next(&server, &frame), LIM__WIRE_END);
    assert_int_equal(server.wire.code, LIM_OK);
    lim__wire_gone(&server.wire, "end of file");
    assert_int_equal(server.wire.state, LIM__WIRE_CLOSED);
    assert_string_equal(server.wire.text, "the peer said goodbye");
    finish(&client);
    finish(&server);
}

static void test_a_fault_reaches_the_client_with_code_and_words(void **state)
{
    (void)state;
    side client, server;
    lim__frame frame;
    meet(&client, &server, NULL, NULL);
    lim__wire_fault(&server.wire, LIM_E_NOMEM, "the budget of %s is used up", "this bus");
    carry(&server, &client);
    assert_int_equal(next(&client, &frame), LIM__WIRE_END);
    assert_int_equal(client.wire.code, LIM_E_NOMEM);
    assert_string_equal(client.wire.text, "the budget of this bus is used up");
    finish(&client);
    finish(&server);
}

static void test_a_lost_transport_keeps_the_first_reason(void **state)
{
    (void)state;
    side client, server;
    meet(&client, &server, NULL, NULL);
    lim__wire_gone(&server.wire, "connection reset");
    assert_int_equal(server.wire.code, LIM_E_IO);
    lim__wire_fault(&client.wire, LIM_E_PROTOCOL, "%s", "nonsense");
    assert_int_equal(lim__buf_len(&client.out), 0); /* a client has no word for it */
    lim__wire_gone(&client.wire, "closed");
    assert_string_equal(client.wire.text, "nonsense");
    assert_string_equal(lim__wire_state_name(client.wire.state), "CLOSED");
    finish(&client);
    finish(&server);
}

/* Random bytes, and random frames made of plausible headers, in every state and both roles. */
static void test_garbage_ends_in_a_clean_error_or_nothing(void **state) /* proves WI4 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(11);
    side client, server;
    lim__frame frame;
    lim__buf dump = { 0 };
    for (int round = 0; round < 5000; round++) {
        side *victim = round & 1 ? &client : &server;
        if (round % 3 == 0) {
            begin(&client, LIM__WIRE_CLIENT, NULL);
            begin(&server, LIM__WIRE_SERVER, NULL);
        } else
            meet(&client, &server, NULL, NULL);
        for (int i = 0; i < 20; i++) {
            uint8_t bytes[64];
            for (size_t k = 0; k < sizeof bytes; k++)
                bytes[k] = (uint8_t)lim__rng_next(&rng);
            if (round % 5 != 0) {
                bytes[0] = (uint8_t)lim__rng_below(&rng, 0x80);
                memset(bytes + 2, 0, 8);
                bytes[5] = (uint8_t)lim__rng_below(&rng, 2);
                bytes[9] = (uint8_t)lim__rng_below(&rng, sizeof bytes - 10);
            }
            feed(victim, bytes, round % 5 != 0 ? 10u + bytes[9] : 1 + lim__rng_below(&rng, sizeof bytes));
        }
        lim__wire_got got;
        while ((got = next(victim, &frame)) == LIM__WIRE_FRAME) {
            dump.start = dump.end = 0;
            lim__frame_dump(&frame, &dump);
        }
        if (got == LIM__WIRE_END)
            assert_true(victim->wire.code != LIM_OK || victim->wire.text[0] != 0);
        else
            assert_true(victim->wire.need > lim__buf_len(&victim->in));
        finish(&client);
        finish(&server);
    }
    lim__buf_fini(&dump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_and_server_meet_and_exchange_frames),
        cmocka_unit_test(test_the_hello_carries_what_the_options_say),
        cmocka_unit_test(test_a_client_without_version_2_is_told_what_this_server_speaks),
        cmocka_unit_test(test_a_server_without_version_2_is_named_by_the_client),
        cmocka_unit_test(test_only_the_right_token_opens_the_door),
        cmocka_unit_test(test_a_full_server_refuses_with_a_reason_before_it_has_read_anything),
        cmocka_unit_test(test_cut_anywhere_the_same_frames_come_out),
        cmocka_unit_test(test_an_incomplete_frame_says_how_much_it_needs),
        cmocka_unit_test(test_a_length_over_the_limit_is_refused_from_its_header),
        cmocka_unit_test(test_frames_before_hello_are_a_fault),
        cmocka_unit_test(test_frames_that_are_not_a_clients_to_send_are_a_fault),
        cmocka_unit_test(test_a_malformed_frame_is_the_owners_to_report),
        cmocka_unit_test(test_both_sides_answer_ping_at_once),
        cmocka_unit_test(test_goodbye_ends_both_sides_without_an_error),
        cmocka_unit_test(test_a_fault_reaches_the_client_with_code_and_words),
        cmocka_unit_test(test_a_lost_transport_keeps_the_first_reason),
        cmocka_unit_test(test_garbage_ends_in_a_clean_error_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
