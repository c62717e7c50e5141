/* SPDX-License-Identifier: Apache-2.0
 * numbered_test.c - messages of durable conversations: acknowledged as soon as they are here, handed out once however
 * often they come, and not lost with the connection that they came on. */
#include "client/fake.h"

static uint32_t accept_reg(fake *f, lim_client *c)
{
    pump(f, c);
    HEAR(f, SERVE, serve, s);
    SAY(f, served, .stream = s.stream, .participant = 77, .identity = TEXT("w1"));
    pump(f, c);
    return s.stream;
}

static void message(fake *f, lim_client *c, uint32_t stream, uint64_t conv, uint64_t number, const char *text)
{
    SAY(f, request, .stream = stream, .flags = LIM__FLAG_TAKEN | LIM__FLAG_NO_REPLY, .conversation = conv,
        .lease = number, .remaining_ms = LIM__NO_TIMEOUT, .attempt = 1, .payload = lim__str(text));
    pump(f, c);
    HEAR(f, TAKEN, taken, t); /* also when it is known */
    assert_int_equal(t.stream, stream);
    assert_int_equal(t.conversation, conv);
    assert_int_equal(t.lease, number);
}

static lim_participant pulled(lim_client *c)
{
    lim_participant p;
    lim_client_serve_opts opts = { .size = sizeof opts, .capacity = 4 };
    assert_int_equal(lim_client_serve(c, "g", &opts, NULL, &p), LIM_OK);
    return p;
}

static void expect(lim_client *c, lim_participant p, uint64_t conv, const char *text)
{
    lim_taken t;
    assert_int_equal(lim_client_take(c, p, 0, &t), LIM_OK);
    assert_int_equal(t.delivery.conv.id, conv);
    assert_int_equal(t.delivery.lease, 0);
    assert_false(t.delivery.wants_reply);
    assert_true(lim__bytes_eq(t.delivery.payload, lim__str(text)));
    lim_taken_fini(&t);
}

static void expect_nothing(lim_client *c, lim_participant p)
{
    lim_taken t;
    assert_int_equal(lim_client_take(c, p, 0, &t), LIM_E_TIMEOUT);
}

static void test_a_message_that_comes_again_is_taken_again_and_handed_out_once(void **state) /* proves CV15 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim_participant p = pulled(c);
    uint32_t stream = accept_reg(f, c);
    message(f, c, stream, 50, 3, "three");
    message(f, c, stream, 50, 3, "three");
    message(f, c, stream, 51, 2, "two of another");
    message(f, c, stream, 50, 4, "four");
    message(f, c, stream, 50, 3, "three");
    expect(c, p, 50, "three");
    expect(c, p, 51, "two of another");
    expect(c, p, 50, "four");
    expect_nothing(c, p);
    silent(f); /* nothing to reply, nothing settled */
    fake_end(f, c);
}

static void test_what_was_taken_outlives_the_connection_and_does_not_come_twice(void **state) /* proves CV15 */
{
    (void)state;
    fake *f = fake_new();
    lim_client *c = fake_up(f, NULL);
    lim_participant p = pulled(c);
    uint32_t stream = accept_reg(f, c);
    for (int breaks = 0; breaks < 3; breaks++) {
        message(f, c, stream, 50, 3, "three");
        message(f, c, stream, 50, 4, "four");
        reconnect(f, c);
        stream = accept_reg(f, c);
        silent(f); /* it holds nothing */
    }
    message(f, c, stream, 50, 4, "four");
    message(f, c, stream, 50, 5, "five");
    expect(c, p, 50, "three");
    expect(c, p, 50, "four");
    expect(c, p, 50, "five");
    expect_nothing(c, p);
    silent(f);
    fake_end(f, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_that_comes_again_is_taken_again_and_handed_out_once),
        cmocka_unit_test(test_what_was_taken_outlives_the_connection_and_does_not_come_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
