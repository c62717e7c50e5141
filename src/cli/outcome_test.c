/* SPDX-License-Identifier: Apache-2.0
 * outcome_test.c - what is said of each way in which an exchange can end. */
#include "cli/cli.h"
#include "data/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* The text lives until the next call. */
static const char *line(const lim_outcome *o)
{
    static lim__buf out;
    lim__buf_fini(&out);
    cli_outcome_line(&out, "", o);
    lim__buf_add(&out, "", 1);
    return (const char *)out.ptr;
}

static lim_outcome ended(lim_how how)
{
    return (lim_outcome){ .how = how, .handed_over = LIM_HANDED_YES, .participant = lim__str("worker-1") };
}

static void test_every_outcome_has_its_exit_code(void **state) /* proves SV5 */
{
    static const int codes[][2] = { { LIM_HOW_REPLY, 0 },   { LIM_HOW_FAILED, 1 },   { LIM_HOW_LOST, 3 },
                                    { LIM_HOW_CRASHED, 4 }, { LIM_HOW_TIMEOUT, 5 },  { LIM_HOW_REFUSED, 6 },
                                    { LIM_HOW_CLOSED, 8 },  { LIM_HOW_CANCELLED, 8 } };
    (void)state;
    for (size_t i = 0; i < LIM_COUNT(codes); i++) {
        lim_outcome o = ended((lim_how)codes[i][0]);
        assert_int_equal(cli_outcome_code(&o), codes[i][1]);
    }
}

static void test_every_outcome_is_told_as_what_why_and_what_to_do(void **state) /* proves SV6 */
{
    (void)state;
    for (int how = LIM_HOW_FAILED; how <= LIM_HOW_LOST; how++) {
        lim_outcome o = ended((lim_how)how);
        const char *text = line(&o);
        const char *why = strstr(text, ": "), *todo = strstr(text, "; ");
        assert_true(strncmp(text, lim_how_text(o.how), strlen(lim_how_text(o.how))) == 0);
        assert_true(why && todo && why < todo && strlen(todo) > 4 && !strchr(text, '\n'));
    }
}

static void test_a_crash_names_who_died_and_why(void **state)
{
    lim_outcome o = ended(LIM_HOW_CRASHED);
    (void)state;
    o.reason = LIM_LOST;
    assert_string_equal(line(&o), "crashed: worker-1 died (connection_lost) with the request in hand; ask again if "
                                  "running it twice is harmless (--next does so by itself)");
    o.why = LIM_WHY_KILLS_WORKERS;
    o.losses = 5;
    assert_non_null(strstr(line(&o), "5 workers died with it in hand"));
}

static void test_a_refusal_names_its_limit_and_when_to_come_back(void **state)
{
    lim_outcome o = ended(LIM_HOW_REFUSED);
    (void)state;
    o.why = LIM_WHY_QUEUE_FULL;
    o.limit = 10;
    o.current = 10;
    o.retry_after_ms = 50;
    assert_string_equal(line(&o), "refused: queue_full (limit 10, now 10); try again after 50 ms");
    o.why = LIM_WHY_NO_PARTICIPANT;
    assert_non_null(strstr(line(&o), "liminal serve"));
}

static void test_a_failure_says_what_the_participant_said(void **state)
{
    lim_outcome o = ended(LIM_HOW_FAILED);
    (void)state;
    o.detail = lim__str("no such file\n");
    assert_non_null(strstr(line(&o), "worker-1 could not do it: no such file; "));
}

/* Parses what cli_outcome_json says of o into doc. */
static lim__val json(lim__doc *doc, const lim_outcome *o, bool embed)
{
    lim__buf out = { 0 };
    lim__json j = lim__json_begin(&out);
    lim__json_open(&j, NULL, '{');
    cli_outcome_json(&j, o, embed);
    lim__json_close(&j);
    assert_null(memchr(lim__buf_bytes(&out).ptr, '\n', lim__buf_len(&out)));
    assert_int_equal(lim__doc_parse(doc, lim__buf_bytes(&out), NULL), LIM_OK);
    lim__buf_fini(&out);
    return lim__doc_root(doc);
}

static void test_json_has_the_payload_as_text_or_embedded_or_base64(void **state)
{
    lim__doc *doc = lim__doc_new();
    lim_outcome o = ended(LIM_HOW_REPLY);
    (void)state;
    o.payload = lim__str("{\"n\": 1,\n\"s\": \"x\"}");
    assert_string_equal(lim__val_str(json(doc, &o, false), "payload", ""), "{\"n\": 1,\n\"s\": \"x\"}");
    assert_int_equal(lim__val_u64(lim__val_get(json(doc, &o, true), "payload"), "n", 0), 1);
    o.payload = lim__str("not json");
    assert_string_equal(lim__val_str(json(doc, &o, true), "payload", ""), "not json");
    o.payload = lim__str("\xFF");
    assert_string_equal(lim__val_str(json(doc, &o, true), "payload_base64", ""), "/w==");
    lim__doc_free(doc);
}

static void test_everybody_it_was_rerouted_past_is_told_and_when(void **state) /* proves GR5 */
{
    const lim_excluded past[] = { { lim__str("w1"), 1000000, 1001500 }, { lim__str("w2"), 2000000, 0 } };
    lim__doc *doc = lim__doc_new();
    lim_outcome o = ended(LIM_HOW_CRASHED);
    (void)state;
    o.reason = LIM_LOST;
    o.excluded = past;
    o.excluded_count = 2;
    assert_non_null(strstr(line(&o), "2 participants in all: w1 (after 1.5 ms), w2"));
    lim__val list = lim__val_get(json(doc, &o, false), "rerouted_past");
    lim__val first = lim__val_at(list, 0), last = lim__val_at(list, 1);
    assert_string_equal(lim__val_str(first, "participant", ""), "w1");
    assert_int_equal(lim__val_u64(first, "observed_wall_us", 0), 1000000);
    assert_int_equal(lim__val_u64(first, "rerouted_wall_us", 0), 1001500);
    assert_int_equal(lim__val_u64(last, "observed_wall_us", 0), 2000000);
    assert_int_equal(lim__val_get(last, "rerouted_wall_us").kind, LIM__NULL);
    lim__doc_free(doc);
}

static void test_a_close_says_by_whom(void **state) /* proves CV3 */
{
    lim_outcome o = { .how = LIM_HOW_CLOSED, .handed_over = LIM_HANDED_NO, .participant = lim__str("opener") };
    (void)state;
    assert_string_equal(line(&o), "closed: the conversation was closed by its opener; it did not run");
}

static void test_json_says_null_for_what_does_not_apply(void **state)
{
    lim__doc *doc = lim__doc_new();
    lim_outcome o = ended(LIM_HOW_TIMEOUT);
    const char *const null_keys[] = {
        "payload", "reason", "why", "detail", "router", "crashed_wall_us", "rerouted_us"
    };
    (void)state;
    o.elapsed_ns = 1500;
    lim__val v = json(doc, &o, false);
    for (size_t i = 0; i < LIM_COUNT(null_keys); i++)
        assert_int_equal(lim__val_get(v, null_keys[i]).kind, LIM__NULL);
    assert_int_equal(lim__val_u64(v, "elapsed_us", 0), 2);
    assert_string_equal(lim__val_str(v, "handed_over", ""), "yes");
    lim__doc_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_outcome_has_its_exit_code),
        cmocka_unit_test(test_every_outcome_is_told_as_what_why_and_what_to_do),
        cmocka_unit_test(test_a_crash_names_who_died_and_why),
        cmocka_unit_test(test_a_close_says_by_whom),
        cmocka_unit_test(test_everybody_it_was_rerouted_past_is_told_and_when),
        cmocka_unit_test(test_a_refusal_names_its_limit_and_when_to_come_back),
        cmocka_unit_test(test_a_failure_says_what_the_participant_said),
        cmocka_unit_test(test_json_has_the_payload_as_text_or_embedded_or_base64),
        cmocka_unit_test(test_json_says_null_for_what_does_not_apply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
