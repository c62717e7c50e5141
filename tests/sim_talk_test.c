/* SPDX-License-Identifier: Apache-2.0
 * sim_talk_test.c - a conversation of three programs over a simulated network, from end to end: one opens it by raw
 * frames, the other two take part in it by the client library, one with a handler and one that pulls.
 *
 *      opener ---OPEN, SEND----> agent   (group "agents", on_message)
 *             <--"ask an expert"-- SAY
 *             ---JOIN----------> expert  (group "experts", lim_client_take)
 *             ---SEND to all---> both, ASKIN --> expert, and each of them speaks
 *             ---CLOSE---------> both are told */
#include <liminal/client.h>

#include "server/server_world.h"

typedef struct program {
    world *w;
    lim_client *client;
    lim__sim_task *task;
    lim_participant registration, number;
    uint32_t heard, ends, events;
    lim_conv over; /* the conversation that was told to have ended */
} program;

static bool program_turn(void *ctx)
{
    program *p = ctx;
    return lim_client_process(p->client) == LIM_OK && lim_client_timeout_ms(p->client) == 0;
}

static uint64_t program_due(void *ctx)
{
    program *p = ctx;
    int ms = lim_client_timeout_ms(p->client);
    return ms < 0 ? UINT64_MAX : lim__sim_now(p->w->sim) + (uint64_t)ms * 1000000;
}

static void program_start(program *p, world *w, const char *name)
{
    char server[64];
    *p = (program){ .w = w };
    snprintf(server, sizeof server, "%s:%d", lim__sim_host_address(w->os), PORT);
    lim__os *os = lim__sim_host(w->sim, name);
    lim_client_opts opts = { .size = sizeof opts, .server = server, .name = name, .own_loop = true, .os = os };
    assert_int_equal(lim_client_open(&opts, NULL, &p->client), LIM_OK);
    p->task = lim__sim_task_add(w->sim, os, name, program_turn, program_due, p);
}

static void program_end(program *p)
{
    lim__sim_task_remove(p->w->sim, p->task);
    lim_client_close(p->client);
    assert_int_equal(p->ends, 1);
}

static lim_done on_message(lim_client *c, const lim_delivery *d, void *ctx)
{
    program *p = ctx;
    assert_false(d->wants_reply);
    if (d->payload.len == 0) /* an event: nobody here says nothing */
        p->events++;
    else if (p->heard++ == 0)
        assert_int_equal(lim_client_say(c, d, lim__str("ask an expert")), LIM_OK);
    return LIM_DONE;
}

static void on_end(void *ctx, lim_err why, const char *detail)
{
    (void)why, (void)detail;
    ((program *)ctx)->ends++;
}

static void on_revoked(void *ctx, lim_conv conv, uint64_t lease, const char *why)
{
    program *p = ctx;
    (void)why;
    assert_int_equal(lease, 0);
    p->over = conv;
}

static bool registered(void *ctx)
{
    program *p = ctx;
    return lim_client_participant_id(p->client, p->registration, &p->number) == LIM_OK;
}

static void program_serve(program *p, const char *group, bool pulls)
{
    lim_client_serve_opts opts = { .size = sizeof opts,
                                   .capacity = 2,
                                   .handler = { pulls ? NULL : on_message, on_end, p },
                                   .on_revoked = on_revoked };
    assert_int_equal(lim_client_serve(p->client, group, &opts, NULL, &p->registration), LIM_OK);
    assert_true(run_until(p->w, registered, p));
}

typedef struct pull {
    program *p;
    lim_taken *taken;
} pull;

static bool has_taken(void *ctx)
{
    pull *x = ctx;
    return lim_client_take(x->p->client, x->p->registration, 0, x->taken) == LIM_OK;
}

static lim_taken pull_one(program *p, const char *payload)
{
    lim_taken t;
    pull x = { p, &t };
    assert_true(run_until(p->w, has_taken, &x));
    assert_text(t.delivery.payload, payload);
    return t;
}

static void expect_message(client *opener, uint64_t from, const char *payload)
{
    lim__f_message m;
    TAKE(opener, message, MESSAGE, &m);
    assert_int_equal(m.from, from);
    assert_text(m.payload, payload);
}

static bool told_of_the_end(void *ctx)
{
    program *both = ctx;
    return both[0].over.id != 0 && both[1].over.id != 0;
}

static void converse(client *opener, program *agent, program *expert)
{
    lim__f_opened opened;
    lim__f_joined joined;
    lim__f_outcome outcome;
    PUT(opener, open, .stream = 1, .timeout_ms = 60000, .on_crash = LIM_CRASH_FAIL, .group = lim__str("agents"));
    PUT(opener, send, .stream = 1, .corr = 1, .payload = lim__str("what is it worth?"));
    expect_message(opener, agent->number.id, "ask an expert");
    TAKE(opener, opened, OPENED, &opened);
    PUT(opener, join, .stream = 1, .corr = 1, .participant = expert->number.id);
    TAKE(opener, joined, JOINED, &joined);
    assert_int_equal(joined.code, LIM_OK);
    expect_message(opener, expert->number.id, ""); /* it joined */
    lim_taken t = pull_one(expert, "");            /* who is there already */
    lim_taken_fini(&t);
    PUT(opener, send, .stream = 1, .corr = 2, .payload = lim__str("welcome"));
    t = pull_one(expert, "welcome");
    assert_int_equal(t.delivery.conv.id, opened.conversation);
    assert_int_equal(lim_client_say(expert->client, &t.delivery, lim__str("thank you")), LIM_OK);
    lim_taken_fini(&t);
    expect_message(opener, expert->number.id, "thank you");
    PUT(opener, askin, .stream = 1, .corr = 9, .timeout_ms = 60000, .to = expert->number.id,
        .payload = lim__str("what is it worth?"));
    t = pull_one(expert, "what is it worth?");
    assert_int_equal(
        lim_client_reply_to(expert->client, expert->registration, t.delivery.conv, t.delivery.lease, lim__str("42")),
        LIM_OK);
    lim_taken_fini(&t);
    TAKE(opener, outcome, OUTCOME, &outcome);
    assert_int_equal(outcome.how, LIM_HOW_REPLY);
    assert_text(outcome.payload, "42");
    PUT(opener, close, .stream = 1);
}

static void test_three_programs_have_a_conversation(void **state)
{
    (void)state;
    EVERY_WORLD(w)
    {
        program both[2];
        program_start(&both[0], w, "agent");
        program_start(&both[1], w, "expert");
        program_serve(&both[0], "agents", false);
        program_serve(&both[1], "experts", true);
        client *opener = client_new(w, "opener");
        converse(opener, &both[0], &both[1]);
        assert_true(run_until(w, told_of_the_end, both));
        assert_int_equal(both[0].over.id, both[1].over.id);
        assert_int_equal(both[0].heard, 2);
        assert_int_equal(both[0].events, 1); /* the expert joined */
        lim_delivery late = { .self = both[0].registration, .conv = both[0].over };
        both[0].over = (lim_conv){ 0 };
        assert_int_equal(lim_client_say(both[0].client, &late, lim__str("by the way")), LIM_OK);
        assert_true(run_until(w, told_of_the_end, both)); /* again: nobody hears it */
        program_end(&both[0]);
        program_end(&both[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_programs_have_a_conversation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
