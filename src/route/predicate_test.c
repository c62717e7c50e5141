/* SPDX-License-Identifier: Apache-2.0
 * predicate_test.c - the language, what it means, and that code says what trees say. */
#include "route/predicate.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static lim__buf headers; /* of every message here: tenant=acme, x-n=7, $key=k1 */

static lim_predicate *compiled(const char *text)
{
    lim_predicate *p = NULL;
    lim_diag diag = { 0 };
    if (lim_predicate_compile(lim__str(text), &diag, &p) != LIM_OK)
        fail_msg("%s: %s", text, diag.text);
    return p;
}

static bool matches(const char *text, const char *payload)
{
    lim_predicate *p = compiled(text);
    const lim_route_message m = { .payload = lim__str(payload), .headers = lim__buf_bytes(&headers) };
    bool verdict = lim_predicate_match(p, &m);
    lim_predicate_free(p);
    return verdict;
}

typedef struct expectation {
    const char *text, *payload;
    bool verdict;
} expectation;

static void expect_all(const expectation *all, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (matches(all[i].text, all[i].payload) != all[i].verdict)
            fail_msg("%s with %s is %d", all[i].text, all[i].payload, !all[i].verdict);
}

static void test_every_form_of_the_language_says_what_it_reads_like(void **state) /* proves RF1 */
{
    (void)state;
    static const expectation all[] = {
        { "amount > 1000", "{\"amount\":1500}", true },
        { "amount > 1000", "{\"amount\":500}", false },
        { "amount>=1500 and amount<=1500", "{\"amount\":1500}", true },
        { "amount < 1500", "{\"amount\":1500}", false },
        { "tier == \"gold\"", "{\"tier\":\"gold\"}", true },
        { "tier != \"gold\"", "{\"tier\":\"silver\"}", true },
        { "tier in [\"gold\", \"silver\"]", "{\"tier\":\"silver\"}", true },
        { "tier in [1, null, true]", "{\"tier\":null}", true },
        { "tier in [1]", "{\"tier\":\"1\"}", false },
        { "amount between 100 and 200", "{\"amount\":100}", true },
        { "amount between 100 and 200", "{\"amount\":200}", true },
        { "amount between 100 and 200", "{\"amount\":50}", false },
        { "amount between 100 and 200", "{\"amount\":\"150\"}", false },
        { "amount between 200 and 100", "{\"amount\":150}", false },
        { "a between \"b\" and \"d\" and true", "{\"a\":\"c\"}", true },
        { "a exists", "{\"a\":null}", true },
        { "a exists", "{\"b\":1}", false },
        { "name starts_with \"Ja\"", "{\"name\":\"Jane\"}", true },
        { "name ends_with \"ne\"", "{\"name\":\"Jane\"}", true },
        { "name contains \"an\"", "{\"name\":\"Jane\"}", true },
        { "name contains \"x\"", "{\"name\":\"Jane\"}", false },
        { "name starts_with \"\" and name ends_with \"\" and name contains \"\"", "{\"name\":\"\"}", true },
        { "name starts_with \"long\" or name ends_with \"long\"", "{\"name\":\"l\"}", false },
        { "tags contains \"b\"", "{\"tags\":[1,\"b\"]}", true },
        { "tags contains 1.0", "{\"tags\":[1,\"b\"]}", true },
        { "tags contains \"c\"", "{\"tags\":[1,\"b\"]}", false },
        { "user.address.city == \"Bonn\"", "{\"user\":{\"address\":{\"city\":\"Bonn\"}}}", true },
        { "items[1].sku == 7", "{\"items\":[{},{\"sku\":7}]}", true },
        { "items[2] exists", "{\"items\":[1,2]}", false },
        { "[0] == 5", "[5]", true },
        { "[\"a.b\"][\"in\"].c == 1", "{\"a.b\":{\"in\":{\"c\":1}}}", true },
        { "a.in == 1", "{\"a\":{\"in\":1}}", true },
        { "a.b exists", "{\"a\":1}", false },
        { "a-b_c9 == -0.5e1", "{\"a-b_c9\":-5}", true },
        { "gr\xC3\xB6\xC3\x9F"
          "e == \"\\u00df\\n\"",
          "{\"gr\xC3\xB6\xC3\x9F"
          "e\":\"\xC3\x9F\\n\"}",
          true },
        { "$header.tenant == \"acme\"", "", true },
        { "$header[\"x-n\"] == \"7\" and $header.x-n == \"7\"", "no json", true },
        { "$header.x-n == 7", "{}", false },
        { "$header.nobody exists", "{}", false },
        { "$key == \"k1\"", "{}", true },
        { "$size == 2", "{}", true },
        { "$size > 2", "{}", false },
        { "true", "", true },
        { "false", "", false },
        { "not false and (false or true)", "", true },
        { "a == 1 or b == 1 and c == 1", "{\"a\":1}", true }, /* and binds closer */
        { "(a == 1 or b == 1) and c == 1", "{\"a\":1}", false },
        { "not a == 1 and b == 1", "{\"b\":1}", true }, /* not binds closest */
        { "not not not a exists", "{}", true },
        { "\n a\n==\t1 \n", "{\"a\":1}", true },
    };
    expect_all(all, LIM_COUNT(all));
}

static void test_what_is_absent_or_of_another_kind_is_false_and_not_is_plain_negation(void **state) /* proves RF2 */
{
    (void)state;
    static const expectation all[] = {
        { "a > 1", "{}", false },
        { "not (a > 1)", "{}", true },
        { "a != 1", "{}", false },
        { "a != 1", "{\"a\":\"x\"}", false },
        { "not (a == 1)", "{\"a\":\"x\"}", true },
        { "a == \"1\"", "{\"a\":1}", false },
        { "a != null", "{\"a\":1}", false },
        { "a == null", "{\"a\":null}", true },
        { "a != null", "{\"a\":null}", false },
        { "a >= null", "{\"a\":null}", false },
        { "a == true", "{\"a\":true}", true },
        { "a != true", "{\"a\":false}", true },
        { "a >= true", "{\"a\":true}", false },
        { "a between false and true", "{\"a\":true}", false },
        { "a == true", "{\"a\":1}", false },
        { "a == 1", "{\"a\":[1]}", false },
        { "a != 1", "{\"a\":{}}", false },
        { "a contains 1", "{\"a\":1}", false },
        { "a contains 1", "{\"a\":\"1\"}", false },
        { "a starts_with \"1\"", "{\"a\":1}", false },
        { "a == 1", "not json", false },
        { "not a == 1", "not json", true },
    };
    expect_all(all, LIM_COUNT(all));
}

static void test_integers_and_floats_compare_by_value_exactly(void **state) /* proves RF2 */
{
    (void)state;
    static const expectation all[] = {
        { "a == 1.0", "{\"a\":1}", true },
        { "a == 1", "{\"a\":1.0}", true },
        { "a > 1", "{\"a\":1.5}", true },
        { "a > -2", "{\"a\":-1.5}", true },
        { "a < -1", "{\"a\":-1.5}", true },
        { "a == 0", "{\"a\":-0.0}", true },
        { "a == 0", "{\"a\":-0.5}", false },
        { "a < 0", "{\"a\":-0.5}", true },
        { "a == 9007199254740993", "{\"a\":9007199254740992.0}", false },
        { "a > 9007199254740992.0", "{\"a\":9007199254740993}", true },
        { "a == 9223372036854775807", "{\"a\":9223372036854775808}", false },
        { "a < 9223372036854775808.0", "{\"a\":9223372036854775807}", true },
        { "a == 18446744073709551615", "{\"a\":18446744073709551615}", true },
        { "a < 18446744073709551616.0", "{\"a\":18446744073709551615}", true },
        { "a >= -9223372036854775808.0", "{\"a\":-9223372036854775808}", true },
        { "a > -1e300", "{\"a\":-9223372036854775808}", true },
        { "a < 1e300", "{\"a\":18446744073709551615}", true },
        { "a > 18446744073709551614", "{\"a\":18446744073709551615}", true },
        { "a < 18446744073709551615", "{\"a\":-1}", true },
        { "a in [2.0, 3]", "{\"a\":2}", true },
    };
    expect_all(all, LIM_COUNT(all));
    const lim__val nan = { .kind = LIM__DOUBLE, .d = __builtin_nan("") }, one = { .kind = LIM__INT, .i = 1 };
    for (lim__pred_kind k = LIM__PRED_EQ; k <= LIM__PRED_IN; k++) {
        const lim__val list[] = { one, one }, none[] = { nan, nan };
        const lim__pred_node n = { .kind = k, .literals = 2 };
        assert_false(lim__pred_test(&n, list, nan));
        assert_false(lim__pred_test(&n, none, one));
        assert_false(lim__pred_test(&n, none, nan));
    }
}

static void test_faults_name_line_column_and_what_was_expected(void **state) /* proves RF1 */
{
    (void)state;
    static const struct {
        const char *text;
        int line, column;
        const char *why;
    } all[] = {
        { "", 1, 1, "a field, not or (, but the text ends here" },
        { "a", 1, 2, "expected ==, !=" },
        { "a = 1", 1, 3, "found '='" },
        { "a == ", 1, 6, "the text ends here" },
        { "a == 'x'", 1, 6, "double quotes" },
        { "a == \"x", 1, 6, "no closing quote" },
        { "a == \"\\q\"", 1, 8, "backslash" },
        { "a == 01", 1, 6, "start with 0" },
        { "a == 99999999999999999999", 1, 6, "64 bits" },
        { "a == 1 &&\n b == 2", 1, 8, "expected and, or or the end, found '&'" },
        { "a == 1 and\n  == 2", 2, 3, "expected a field" },
        { "(a == 1", 1, 8, "and, or or )" },
        { "a == 1)", 1, 7, "and, or or the end" },
        { "and exists", 1, 1, "expected a field" },
        { "a between 1", 1, 12, "upper end" },
        { "a in 1", 1, 6, "[ and the values" },
        { "a in []", 1, 7, "a text in double quotes" },
        { "a in [1 2]", 1, 9, ", or ]" },
        { "a starts_with 1", 1, 15, "a text in double quotes" },
        { "a[x] exists", 1, 3, "a number from 0" },
        { "a[1.5] exists", 1, 3, "no place" },
        { "a. exists", 1, 3, "the name of a field" },
        { "$nobody exists", 1, 1, "found '$nobody'" },
        { "$ size exists", 1, 2, "$header.NAME" },
        { "$header exists", 1, 8, "$header.NAME" },
        { "a == 1 AND b == 2", 1, 8, "found 'AND'" },
        { "\xFF exists", 1, 1, "not UTF-8" },
    };
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        lim_predicate *p = NULL;
        lim_diag diag = { 0 };
        assert_int_equal(lim_predicate_compile(lim__str(all[i].text), &diag, &p), LIM_E_INVALID);
        if (diag.line != all[i].line || diag.column != all[i].column || strstr(diag.text, all[i].why) == NULL)
            fail_msg("%s: %d:%d %s", all[i].text, diag.line, diag.column, diag.text);
        assert_null(p);
    }
    assert_int_equal(lim_predicate_compile(lim__str("a exists"), NULL, NULL), LIM_E_MISUSE);
}

static void refuse_too_much(lim__buf *text, const char *limit)
{
    lim_predicate *p = NULL;
    lim_diag diag = { 0 };
    assert_int_equal(lim_predicate_compile(lim__buf_bytes(text), &diag, &p), LIM_E_TOOBIG);
    if (strstr(diag.text, limit) == NULL)
        fail_msg("%s", diag.text);
    lim__buf_fini(text);
}

static void test_every_limit_is_named_where_it_is_met(void **state) /* proves RF1 */
{
    (void)state;
    lim__buf b = { 0 };
    for (int i = 0; i < 65; i++)
        lim__buf_text(&b, "(");
    refuse_too_much(&b, "64 deep");
    for (int i = 0; i < 64; i++)
        lim__buf_text(&b, "not ");
    lim__buf_text(&b, "true");
    refuse_too_much(&b, "64 deep");
    for (int i = 0; i < 1024; i++)
        lim__buf_text(&b, i > 0 ? " or a < 1" : "a < 1");
    refuse_too_much(&b, "1024");
    for (int i = 0; i < 65; i++)
        lim__buf_format(&b, "%sa%d exists", i > 0 ? " or " : "", i);
    refuse_too_much(&b, "64 fields");
    for (int i = 0; i < 257; i++)
        lim__buf_format(&b, "%s%d", i > 0 ? "," : "a in [", i);
    refuse_too_much(&b, "256");
    for (int i = 0; i < 17; i++)
        lim__buf_format(&b, "%sa", i > 0 ? "." : "");
    refuse_too_much(&b, "16 steps");
    for (int i = 0; i <= LIM_PREDICATE_BYTES_MAX; i++)
        lim__buf_text(&b, " ");
    refuse_too_much(&b, "16384");
}

/* ---- explaining ---- */

static void on_step(void *ctx, const lim_predicate_step *step)
{
    lim__buf_format(ctx, "%*s%s%s%s%s\n", (int)step->depth * 2, "", step->verdict ? "+ " : "- ", step->text,
                    step->why[0] != '\0' ? " | " : "", step->why);
}

static void test_explaining_tells_every_part_with_what_the_message_has(void **state) /* proves RF2 */
{
    (void)state;
    lim__buf told = { 0 };
    lim_predicate *p = compiled("amount > 100 and not (tier in [\"gold\"] or x exists) and n == 5 and l != 1");
    const lim_route_message m = { .payload = lim__str("{\"amount\":150,\"tier\":\"silver\",\"n\":\"5\",\"l\":[1]}") };
    assert_false(lim_predicate_explain(p, &m, on_step, &told));
    lim__buf_add(&told, "", 1);
    assert_string_equal((const char *)told.ptr, "- and\n"
                                                "  + amount > 100 | amount is 150\n"
                                                "  + not\n"
                                                "    - or\n"
                                                "      - tier in [\"gold\"] | tier is \"silver\"\n"
                                                "      - x exists | x is absent\n"
                                                "  - n == 5 | n is \"5\": a text, and is compared with a number\n"
                                                "  - l != 1 | l is an array of 1, which is like nothing\n");
    lim__buf_fini(&told);
    lim_predicate_free(p);
}

/* ---- fields are looked up once ---- */

static void test_no_field_is_looked_up_twice_and_no_test_is_made_that_changes_nothing(void **state) /* proves RF3 */
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t looked;
    } all[] = {
        { "a > 1 and a < 9 and a != 3 and (a == 5 or a == 4)", 1 },
        { "true and a > 1 and false and b > 1 and c > 1", 1 }, /* false is cheaper than tests */
        { "b > 5 and a > 1", 1 },
        { "a > 1 or b > 5 or c > 5", 1 },
        { "c > 5 and nobody exists", 1 },   /* the cheaper one is asked first */
        { "b > 5 and a > 5 and a < 9", 1 }, /* the field that is asked for twice is asked first */
        { "$size > 0 and a == 5 and $size < 100", 2 },
    };
    for (size_t i = 0; i < LIM_COUNT(all); i++) {
        lim__pred *p = NULL;
        lim__pred_reader r = { 0 };
        assert_int_equal(lim__pred_new(lim__str(all[i].text), NULL, &p), LIM_OK);
        lim__pred_reader_begin(&r, lim__str("{\"a\":5,\"b\":1,\"c\":1}"), (lim_bytes){ 0 });
        (void)lim__pred_match(p, &r);
        if (r.looked > all[i].looked)
            fail_msg("%s: %u look-ups", all[i].text, r.looked);
        assert_null(r.doc);
        lim__pred_free(p);
        lim__pred_reader_fini(&r);
    }
}

/* ---- the tree and the code, by chance ---- */

static const char *const paths[] = { "a", "b", "c.d", "l[1]", "l", "$header.tenant", "$size", "[\"x y\"]", "o" };

static lim__val random_literal(lim__rng *rng)
{
    static const char *const texts[] = { "", "a", "ab", "gold", "acme", "\xC3\xBC" };
    switch (lim__rng_below(rng, 7)) {
    case 0:
        return (lim__val){ .kind = LIM__NULL };
    case 1:
        return (lim__val){ .kind = LIM__BOOL, .truth = lim__rng_below(rng, 2) == 0 };
    case 2:
        return (lim__val){ .kind = LIM__DOUBLE, .d = (double)((int)lim__rng_below(rng, 9) - 4) / 2 };
    case 3:
        return (lim__val){ .kind = LIM__UINT, .u = UINT64_MAX - lim__rng_below(rng, 3) };
    case 4:
    case 5:
        return (lim__val){ .kind = LIM__INT, .i = (int64_t)lim__rng_below(rng, 7) - 3 };
    default:
        return (lim__val){ .kind = LIM__TEXT, .text = lim__str(texts[lim__rng_below(rng, LIM_COUNT(texts))]) };
    }
}

static void random_value(lim__rng *rng, lim__buf *out, int deep)
{
    lim__json j = lim__json_begin(out);
    uint64_t kind = lim__rng_below(rng, deep > 0 ? 8 : 6);
    if (kind < 6) {
        lim__json_val(&j, NULL, random_literal(rng));
        return;
    }
    lim__buf_text(out, kind == 6 ? "[" : "{\"d\":");
    random_value(rng, out, deep - 1);
    lim__buf_text(out, kind == 6 ? "," : ",\"x y\":");
    random_value(rng, out, deep - 1);
    lim__buf_text(out, kind == 6 ? "]" : "}");
}

static void random_message(lim__rng *rng, lim__buf *out)
{
    static const char *const names[] = { "a", "b", "c", "l", "x y", "o" };
    bool first = true;
    if (lim__rng_below(rng, 20) == 0) {
        lim__buf_text(out, "no json");
        return;
    }
    lim__buf_text(out, "{");
    for (size_t i = 0; i < LIM_COUNT(names); i++) {
        if (lim__rng_below(rng, 3) == 0)
            continue;
        lim__buf_format(out, "%s\"%s\":", first ? "" : ",", names[i]);
        random_value(rng, out, 2);
        first = false;
    }
    lim__buf_text(out, "}");
}

/* A test as text, since that is how fields come into a tree. */
static void random_test(lim__rng *rng, lim__buf *out)
{
    static const char *const ops[] = { "==", "!=", ">", "<", ">=", "<=", "contains" };
    lim__json j = lim__json_begin(out);
    lim__buf_text(out, paths[lim__rng_below(rng, LIM_COUNT(paths))]);
    uint64_t kind = lim__rng_below(rng, 12);
    if (kind < 7) {
        lim__buf_format(out, " %s ", ops[kind]);
        lim__json_val(&j, NULL, random_literal(rng));
    } else if (kind == 7) {
        lim__buf_text(out, " exists");
    } else if (kind == 8) {
        lim__buf_text(out, " between ");
        lim__json_val(&j, NULL, random_literal(rng));
        lim__buf_text(out, " and ");
        j = lim__json_begin(out);
        lim__json_val(&j, NULL, random_literal(rng));
    } else if (kind == 9) {
        lim__buf_text(out, " in [");
        for (uint64_t i = 0, n = 1 + lim__rng_below(rng, 3); i < n; i++) {
            j = lim__json_begin(out);
            lim__buf_text(out, i > 0 ? "," : "");
            lim__json_val(&j, NULL, random_literal(rng));
        }
        lim__buf_text(out, "]");
    } else {
        lim__buf_text(out, kind == 10 ? " starts_with \"a\"" : " ends_with \"d\"");
    }
}

static void random_predicate(lim__rng *rng, lim__buf *out, int deep)
{
    uint64_t kind = deep > 0 ? lim__rng_below(rng, 10) : 9, n = 1 + lim__rng_below(rng, 3);
    if (kind < 2) {
        lim__buf_text(out, "not (");
        random_predicate(rng, out, deep - 1);
        lim__buf_text(out, ")");
    } else if (kind < 7) {
        for (uint64_t i = 0; i <= n; i++) {
            lim__buf_text(out, i == 0 ? "(" : kind < 5 ? ") and (" : ") or (");
            random_predicate(rng, out, deep - 1);
        }
        lim__buf_text(out, ")");
    } else if (kind == 7) {
        lim__buf_text(out, n == 1 ? "true" : "false");
    } else {
        random_test(rng, out);
    }
}

/* What is written reads as the same tree. */
static void assert_prints_itself(const lim__pred *p)
{
    lim__buf once = { 0 }, twice = { 0 };
    lim__pred_tree again = { 0 };
    lim_diag diag = { 0 };
    lim__pred_print(&p->tree, p->tree.root, &once);
    if (lim__pred_parse(lim__buf_bytes(&once), &again, &diag) != LIM_OK)
        fail_msg("%.*s: %s", (int)lim__buf_len(&once), (const char *)once.ptr, diag.text);
    lim__pred_print(&again, again.root, &twice);
    assert_true(lim__bytes_eq(lim__buf_bytes(&once), lim__buf_bytes(&twice)));
    lim__pred_tree_fini(&again);
    lim__buf_fini(&once);
    lim__buf_fini(&twice);
}

static void ignore_step(void *ctx, const lim_predicate_step *step)
{
    (void)ctx, (void)step;
}

static uint32_t ask_about_some(const lim__pred *p, lim__rng *rng, lim__pred_reader *r)
{
    uint32_t yes = 0;
    for (int i = 0; i < 10; i++) {
        lim__buf m = { 0 };
        random_message(rng, &m);
        lim__pred_reader_begin(r, lim__buf_bytes(&m), lim__buf_bytes(&headers));
        bool code = lim__pred_match(p, r);
        if (r->looked > p->tree.field_count)
            fail_msg("%u look-ups of %u fields", r->looked, p->tree.field_count);
        bool tree = lim__pred_tree_match(&p->tree, p->tree.root, r);
        bool told = lim__pred_explain(&p->tree, p->tree.root, 0, r, ignore_step, NULL);
        if (code != tree || told != tree)
            fail_msg("tree %d, code %d, explained %d about %.*s", tree, code, told, (int)lim__buf_len(&m),
                     (const char *)m.ptr);
        yes += code;
        lim__buf_fini(&m);
    }
    return yes;
}

static void test_code_answers_what_the_tree_answers(void **state) /* proves RF3 */
{
    (void)state;
    lim__rng rng = lim__rng_seeded(20261120);
    lim__pred_reader r = { 0 };
    uint32_t yes = 0;
    for (int i = 0; i < 3000; i++) {
        lim__buf text = { 0 };
        lim__pred *p = NULL;
        lim_diag diag = { 0 };
        random_predicate(&rng, &text, 4);
        if (lim__pred_new(lim__buf_bytes(&text), &diag, &p) != LIM_OK)
            fail_msg("%.*s: %s", (int)lim__buf_len(&text), (const char *)text.ptr, diag.text);
        assert_prints_itself(p);
        yes += ask_about_some(p, &rng, &r);
        lim__pred_free(p);
        lim__buf_fini(&text);
    }
    assert_in_range(yes, 5000, 25000); /* neither answer is rare */
    lim__pred_reader_fini(&r);
}

/* The trees that no text makes: `and` and `or` of nothing and of one, as the tree form has them. */
static void test_empty_and_is_true_and_empty_or_is_false_wherever_they_stand(void **state) /* proves RF1 RF3 */
{
    (void)state;
    for (int outer = LIM__PRED_AND; outer <= LIM__PRED_NOT; outer++)
        for (int inner = LIM__PRED_AND; inner <= LIM__PRED_OR; inner++) {
            lim__pred_tree t = { 0 };
            lim__pred_reader r = { 0 };
            t.root = lim__pred_node_add(&t, (lim__pred_kind)outer);
            lim__pred_child_add(&t, t.root, lim__pred_node_add(&t, (lim__pred_kind)inner));
            bool wanted = (inner == LIM__PRED_AND) != (outer == LIM__PRED_NOT);
            lim__pred *p = lim__pred_compile(&t);
            lim__pred_reader_begin(&r, lim__str("{}"), (lim_bytes){ 0 });
            assert_int_equal(lim__pred_match(p, &r), wanted);
            assert_int_equal(lim__pred_tree_match(&p->tree, p->tree.root, &r), wanted);
            assert_prints_itself(p);
            assert_int_equal(p->count, 0);
            lim__pred_free(p);
        }
}

/* ---- memory ---- */

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
void *__libc_malloc(size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_calloc(size_t n, size_t size);
static uint64_t allocations;
void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}
void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}
void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}

static void test_matching_allocates_nothing(void **state) /* proves RF3 */
{
    (void)state;
    lim_predicate *p =
        compiled("a > 1 and (u.tier == \"gold\" or l contains 3 or $header.tenant starts_with \"a\") and "
                 "not (b in [1, 2, 3] or s ends_with \"\xC3\xBC\")");
    static const char *const messages[] = { "{\"a\":5,\"b\":7}",
                                            "{\"a\":2.5,\"u\":{\"tier\":\"gold\"},\"s\":\"\\u00fc\"}",
                                            "{\"l\":[1,2,3],\"a\":1e3}", "no json" };
    uint64_t before = 0;
    uint32_t yes = 0;
    for (int i = 0; i < 1000; i++) {
        if (i == LIM_COUNT(messages)) /* each was read once */
            before = allocations;
        const lim_route_message m = { .payload = lim__str(messages[i % LIM_COUNT(messages)]),
                                      .headers = lim__buf_bytes(&headers) };
        yes += lim_predicate_match(p, &m);
    }
    assert_int_equal(allocations, before);
    assert_int_equal(yes, 500);
    lim_predicate_free(p);
}
#else
static void test_matching_allocates_nothing(void **state)
{
    (void)state;
    skip(); /* the sanitizer counts what is allocated */
}
#endif

static int setup(void **state)
{
    (void)state;
    return lim__packed_add(&headers, lim__str("tenant"), lim__str("acme")) == LIM_OK &&
                   lim__packed_add(&headers, lim__str("x-n"), lim__str("7")) == LIM_OK &&
                   lim__packed_add(&headers, lim__str("$key"), lim__str("k1")) == LIM_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    (void)state;
    lim__buf_fini(&headers);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_of_the_language_says_what_it_reads_like),
        cmocka_unit_test(test_what_is_absent_or_of_another_kind_is_false_and_not_is_plain_negation),
        cmocka_unit_test(test_integers_and_floats_compare_by_value_exactly),
        cmocka_unit_test(test_faults_name_line_column_and_what_was_expected),
        cmocka_unit_test(test_every_limit_is_named_where_it_is_met),
        cmocka_unit_test(test_explaining_tells_every_part_with_what_the_message_has),
        cmocka_unit_test(test_no_field_is_looked_up_twice_and_no_test_is_made_that_changes_nothing),
        cmocka_unit_test(test_code_answers_what_the_tree_answers),
        cmocka_unit_test(test_empty_and_is_true_and_empty_or_is_false_wherever_they_stand),
        cmocka_unit_test(test_matching_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
