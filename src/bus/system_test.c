/* SPDX-License-Identifier: Apache-2.0
 * system_test.c - administration as its clients see it: JSON asks of the $sys groups of a bus on real threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bus/bus.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })

static int open_bus(void **state)
{
    lim_bus *bus = NULL;
    assert_int_equal(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2), &bus), LIM_OK);
    *state = bus;
    return 0;
}

static int close_bus(void **state)
{
    lim_bus_close(*state);
    return 0;
}

typedef struct said {
    char text[16384];
} said;

static said ask(lim_bus *bus, const char *group, const char *request)
{
    said s;
    lim_outcome o;
    assert_int_equal(
        lim_ask(bus, group, (lim_bytes){ request, strlen(request) }, OPTS(lim_ask_opts, .timeout_ms = 20000), &o),
        LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    snprintf(s.text, sizeof s.text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    lim_outcome_fini(&o);
    return s;
}

static void expect(lim_bus *bus, const char *group, const char *request, const char *wanted)
{
    said s = ask(bus, group, request);
    if (strstr(s.text, wanted) == NULL)
        fail_msg("%s %s answered %s, without %s", group, request, s.text, wanted);
}

static void expect_of(lim_bus *bus, const char *group, const char *op, uint64_t id, const char *wanted)
{
    char request[128];
    snprintf(request, sizeof request, "{\"op\":\"%s\",\"id\":\"%llx\"}", op, (unsigned long long)id);
    expect(bus, group, request, wanted);
}

static int count_of(said s, const char *text)
{
    int n = 0;
    for (const char *at = s.text; (at = strstr(at, text)) != NULL; at++)
        n++;
    return n;
}

static lim_done on_hold(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)d, (void)ctx;
    return LIM_HOLD;
}

static lim_done on_failure(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_fail(bus, d, "out of ink") == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static void serve(lim_bus *bus, const char *group, const char *identity)
{
    lim_participant p;
    assert_int_equal(
        lim_serve(bus, group,
                  OPTS(lim_serve_opts, .identity = identity, .capacity = 3, .handler = { .on_message = on_hold }), &p),
        LIM_OK);
}

static void work_as(lim_bus *bus, const char *queue, const char *identity,
                    lim_done (*on_message)(lim_bus *bus, const lim_delivery *d, void *ctx))
{
    lim_participant p;
    assert_int_equal(
        lim_work(bus, queue,
                 OPTS(lim_serve_opts, .identity = identity, .capacity = 1, .handler = { .on_message = on_message }),
                 &p),
        LIM_OK);
}

static void work(lim_bus *bus, const char *queue, const char *identity)
{
    work_as(bus, queue, identity, on_hold);
}

/* Asks until it says so: for what becomes true a moment after something else. */
static void expect_soon(lim_bus *bus, const char *group, const char *request, const char *wanted)
{
    for (int i = 0; i < 2000; i++) {
        said s = ask(bus, group, request);
        if (strstr(s.text, wanted) != NULL)
            return;
    }
    expect(bus, group, request, wanted);
}

static lim_conv dispatch(lim_bus *bus, const char *queue)
{
    lim_admission a;
    lim_conv task;
    assert_int_equal(lim_dispatch(bus, queue, BYTES("{}"), OPTS(lim_dispatch_opts, .timeout_ms = LIM_FOREVER), NULL,
                                  NULL, &a, &task),
                     LIM_OK);
    assert_int_equal(a.verdict, LIM_ACCEPT);
    return task;
}

/* ---- requests ---- */

static void test_every_system_group_answers(void **state)
{
    lim_bus *bus = *state;
    static const char *asks[][3] = {
        { "$sys.info", "{\"op\":\"info\"}", "\"durability\":\"memory\"" },
        { "$sys.groups", "{\"op\":\"ls\"}", "\"name\":\"shown\"" },
        { "$sys.groups", "{\"op\":\"show\",\"name\":\"shown\"}", "\"identity\":\"one\"" },
        { "$sys.groups", "{\"op\":\"show\",\"name\":\"nix\"}", "\"code\":\"NOTFOUND\"" },
        { "$sys.queues", "{\"op\":\"ls\"}", "{\"queues\":[{\"name\":\"shown\"" },
        { "$sys.queues", "{\"op\":\"show\",\"queue\":\"shown\"}", "\"attempts_max\":1" },
        { "$sys.queues", "{\"op\":\"show\",\"queue\":\"nix\"}", "\"code\":\"NOTFOUND\"" },
        { "$sys.tasks", "{\"op\":\"ls\",\"queue\":\"shown\"}", "{\"tasks\":[]}" },
        { "$sys.dead", "{\"op\":\"ls\"}", "{\"dead\":[]}" },
        { "$sys.workers", "{\"op\":\"ls\"}", "\"identity\":\"one\"" },
        { "$sys.workers", "{\"op\":\"ls\",\"queue\":\"shown\"}", "\"identity\":\"one\"" },
        { "$sys.workers", "{\"op\":\"show\",\"identity\":\"one\"}", "{\"group\":\"shown\"" },
        { "$sys.workers", "{\"op\":\"show\",\"identity\":\"two\"}", "\"code\":\"NOTFOUND\"" },
        { "$sys.conversations", "{\"op\":\"ls\"}", "\"kind\":\"ask\"" },
        { "$sys.artifacts", "{\"op\":\"load\",\"code\":\"return 1\"}", "\"error\"" },
        { "$sys.artifacts", "{\"op\":\"ls\"}", "\"artifacts\":[" },
        { "$sys.channels", "{\"op\":\"create\",\"name\":\"news\"}", "\"name\":\"news\"" },
        { "$sys.channels", "{\"op\":\"ls\"}", "\"name\":\"news\"" },
        { "$sys.channels", "nonsense", "not JSON" },
        { "$sys.channels", "{\"op\":\"close\",\"name\":\"$sys.x\"}", "\"code\":\"INVALID\"" },
    };
    serve(bus, "shown", "one");
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++)
        expect(bus, asks[i][0], asks[i][1], asks[i][2]);
}

static void test_what_is_unknown_is_named_with_the_nearest_that_is_known(void **state) /* proves SV6 */
{
    lim_bus *bus = *state;
    expect(bus, "$sys.queues", "{\"op\":\"pauze\",\"queue\":\"q\"}", "did you mean \\\"pause\\\"?");
    expect(bus, "$sys.channels", "{\"op\":\"fly\",\"name\":\"x\"}",
           "known: ls, show, create, configure, delete, purge, get, peek, close");
    expect(bus, "$sys.queues", "{\"op\":\"configure\",\"queue\":\"q\",\"atempts_max\":3}",
           "did you mean \\\"attempts_max\\\"?");
    expect(bus, "$sys.info", "{\"op\":\"info\",\"x\":1}", "known: none");
    expect(bus, "$sys.groups", "[]", "\"code\":\"INVALID\"");
    expect(bus, "$sys.tasks", "{\"op\":\"show\",\"id\":\"xyz\"}", "it is a hexadecimal number");
    expect(bus, "$sys.tasks", "{\"op\":\"show\"}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.conversations", "{\"op\":\"ls\",\"max\":0}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.dead", "{\"op\":\"drop\"}", "say which");
    expect(bus, "$sys.dead", "{\"op\":\"drop\",\"id\":\"1\",\"all\":true}", "say which");
}

/* docs/protocol.md, malloc'd, from its chapter on. */
static char *chapter(const char *heading)
{
    char path[512];
    const char *source = getenv("LIM_SOURCE");
    if (source == NULL)
        return NULL;
    snprintf(path, sizeof path, "%s/docs/protocol.md", source);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    size_t len = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    assert_true(len > 0);
    const char *from = strstr(text, heading);
    assert_non_null(from);
    memmove(text, from, strlen(from) + 1);
    return text;
}

static void test_every_op_is_in_the_protocol(void **state)
{
    static const char *const groups[] = { "$sys.info",          "$sys.channels",  "$sys.groups",  "$sys.queues",
                                          "$sys.tasks",         "$sys.dead",      "$sys.workers", "$sys.artifacts",
                                          "$sys.conversations", "$sys.schedules", "$sys.sagas" };
    lim_bus *bus = *state;
    char *doc = chapter("## System groups");
    for (size_t i = 0; doc != NULL && i < sizeof groups / sizeof groups[0]; i++) {
        said s = ask(bus, groups[i], "{\"op\":\"?\"}"); /* ... known: ls, show, ..."}} */
        char *at = strstr(s.text, "known: ");
        assert_non_null(at);
        *strchr(at, '"') = '\0';
        for (char *op = strtok(at + strlen("known: "), ", "); op != NULL; op = strtok(NULL, ", ")) {
            char row[64];
            snprintf(row, sizeof row, "| %s |", op);
            const char *table = strstr(doc, groups[i]);
            if (table == NULL || strstr(table, row) == NULL)
                fail_msg("docs/protocol.md does not say that %s knows %s", groups[i], op);
        }
    }
    free(doc);
}

/* ---- queues, tasks, workers ---- */

static void test_a_queue_can_have_its_rules_before_anybody_works_on_it(void **state) /* proves GR9 */
{
    lim_bus *bus = *state;
    expect(bus, "$sys.queues", "{\"op\":\"configure\",\"queue\":\"early\",\"attempts_max\":4}", "\"attempts_max\":4");
    expect(bus, "$sys.queues", "{\"op\":\"show\",\"queue\":\"early\"}", "\"attempts_max\":4");
    expect(bus, "$sys.queues", "{\"op\":\"configure\",\"queue\":\"early\",\"attempts_max\":\"x\"}",
           "\"code\":\"INVALID\"");
    expect(bus, "$sys.queues", "{\"op\":\"configure\",\"queue\":\"$sys.queues\",\"limit\":4}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.queues", "{\"op\":\"pause\",\"queue\":\"two words\"}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.queues", "{\"op\":\"resume\",\"queue\":\"nowhere\"}", "\"code\":\"NOTFOUND\"");
}

static void test_a_task_is_shown_while_it_waits_and_after_it_ended(void **state) /* proves GR13 */
{
    lim_bus *bus = *state;
    lim_conv task = dispatch(bus, "q"), other = dispatch(bus, "q");
    lim_outcome o;
    said all = ask(bus, "$sys.tasks", "{\"op\":\"ls\",\"queue\":\"q\"}");
    assert_int_equal(count_of(all, "\"state\":\"ready\""), 2);
    said page = ask(bus, "$sys.tasks", "{\"op\":\"ls\",\"queue\":\"q\",\"max\":1}");
    assert_int_equal(count_of(page, "\"cursor\":"), 1);
    expect_of(bus, "$sys.tasks", "show", task.id, "\"kind\":\"task\"");
    expect_of(bus, "$sys.tasks", "cancel", task.id, "{\"id\":\"");
    assert_int_equal(lim_task_await(bus, task, 20000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_CANCELLED);
    lim_outcome_fini(&o);
    expect_of(bus, "$sys.tasks", "show", task.id, "\"outcome\":\"cancelled\"");
    expect_of(bus, "$sys.tasks", "cancel", task.id, "\"code\":\"GONE\"");
    expect_of(bus, "$sys.tasks", "show", 0x123, "\"code\":\"NOTFOUND\"");
    expect_of(bus, "$sys.tasks", "cancel", 0x123, "\"code\":\"NOTFOUND\"");
    expect_of(bus, "$sys.tasks", "retry", other.id, "\"state\":\"ready\"");
    expect_of(bus, "$sys.tasks", "retry", 0x123, "\"code\":\"NOTFOUND\"");
    expect(bus, "$sys.queues", "{\"op\":\"purge\",\"queue\":\"q\"}", "{\"purged\":1}");
}

static void test_a_queue_says_why_its_tasks_wait(void **state) /* proves GR14 */
{
    lim_bus *bus = *state;
    lim_conv task = dispatch(bus, "q");
    static const char why[] = "{\"op\":\"why\",\"queue\":\"q\"}";
    (void)task;
    expect(bus, "$sys.queues", why, "\"why\":\"no_workers\"");
    expect(bus, "$sys.queues", "{\"op\":\"pause\",\"queue\":\"q\"}", "\"paused\":true");
    expect(bus, "$sys.queues", why, "\"why\":\"paused\"");
    expect(bus, "$sys.queues", "{\"op\":\"resume\",\"queue\":\"q\"}", "\"paused\":false");
    work(bus, "q", "w");
    task = dispatch(bus, "q");
    expect(bus, "$sys.queues", why, "\"why\":\"workers_full\"");
}

static void test_a_worker_is_drained_wherever_it_has_that_identity(void **state)
{
    lim_bus *bus = *state;
    work(bus, "a", "twice");
    work(bus, "b", "twice");
    work(bus, "b", "once");
    said both = ask(bus, "$sys.workers", "{\"op\":\"drain\",\"identity\":\"twice\"}");
    assert_int_equal(count_of(both, "\"draining\":true"), 2);
    said one = ask(bus, "$sys.workers", "{\"op\":\"resume\",\"identity\":\"twice\",\"queue\":\"a\"}");
    assert_int_equal(count_of(one, "\"draining\":false"), 1);
    said list = ask(bus, "$sys.workers", "{\"op\":\"ls\"}");
    assert_int_equal(count_of(list, "\"why\":\"draining\""), 1);
    expect(bus, "$sys.workers", "{\"op\":\"drain\",\"identity\":\"nobody\"}", "\"code\":\"NOTFOUND\"");
    expect(bus, "$sys.workers", "{\"op\":\"drain\",\"identity\":\"once\",\"queue\":\"c\"}", "\"code\":\"NOTFOUND\"");
}

static void fail_one(lim_bus *bus, const char *queue, lim_conv *task)
{
    char wanted[40];
    lim_outcome o;
    work_as(bus, queue, NULL, on_failure);
    *task = dispatch(bus, queue);
    assert_int_equal(lim_task_await(bus, *task, 20000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_FAILED);
    lim_outcome_fini(&o);
    snprintf(wanted, sizeof wanted, "\"id\":\"%llx\"", (unsigned long long)task->id);
    expect_soon(bus, "$sys.dead", "{\"op\":\"ls\"}", wanted);
}

static void test_dead_letters_of_all_queues_are_listed_shown_replayed_and_dropped(void **state) /* proves GR9 */
{
    lim_bus *bus = *state;
    lim_conv a, b;
    fail_one(bus, "a", &a);
    fail_one(bus, "b", &b);
    assert_int_equal(count_of(ask(bus, "$sys.dead", "{\"op\":\"ls\"}"), "\"detail\":\"out of ink\""), 2);
    assert_int_equal(count_of(ask(bus, "$sys.dead", "{\"op\":\"ls\",\"queue\":\"b\"}"), "\"queue\":\"b\""), 1);
    expect_of(bus, "$sys.dead", "show", a.id, "{\"queue\":\"a\"");
    expect_of(bus, "$sys.dead", "show", a.id, "\"payload\":\"{}\"");
    expect_of(bus, "$sys.tasks", "show", b.id, "{\"queue\":\"b\"");
    expect_of(bus, "$sys.dead", "replay", a.id, "\"task\":\"");
    expect_of(bus, "$sys.dead", "show", a.id, "\"code\":\"NOTFOUND\"");
    expect_of(bus, "$sys.tasks", "show", a.id, "\"outcome\":\"failed\"");
    expect_soon(bus, "$sys.dead", "{\"op\":\"ls\",\"queue\":\"a\"}", "\"detail\":\"out of ink\""); /* again */
    expect_of(bus, "$sys.dead", "drop", b.id, "{\"dropped\":1}");
    expect_of(bus, "$sys.dead", "drop", b.id, "\"code\":\"NOTFOUND\"");
    expect(bus, "$sys.dead", "{\"op\":\"drop\",\"all\":true}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.dead", "{\"op\":\"drop\",\"all\":true,\"queue\":\"a\"}", "{\"dropped\":1}");
    expect(bus, "$sys.dead", "{\"op\":\"ls\"}", "{\"dead\":[]}");
}

/* ---- conversations ---- */

static lim_conv open_talk(lim_bus *bus, const char *name, const char *customer)
{
    lim_conv conv;
    const char *const attributes[] = { customer, "colour=red", NULL };
    assert_int_equal(
        lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER, .name = name, .attributes = attributes),
                      &conv),
        LIM_OK);
    return conv;
}

static void test_conversations_are_found_by_what_they_are_and_by_attribute(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    lim_conv a = open_talk(bus, "first", "customer=7"), b = open_talk(bus, NULL, "customer=8");
    static const struct {
        const char *where;
        int count;
    } cases[] = {
        { "{\"customer\":\"7\"}", 1 },
        { "{\"colour\":\"red\"}", 2 },
        { "{\"colour\":\"red\",\"customer\":\"8\"}", 1 },
        { "{\"colour\":\"blue\"}", 0 },
        { "{\"taste\":\"red\"}", 0 },
        { "{\"kind\":\"talk\"}", 2 },
        { "{\"kind\":\"talk\",\"phase\":\"created\"}", 2 },
        { "{\"phase\":\"completing\"}", 0 },
        { "{\"name\":\"first\"}", 1 },
        { "{\"group\":\"$sys.conversations\",\"kind\":\"ask\"}", 1 }, /* the asking one itself */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char request[200];
        snprintf(request, sizeof request, "{\"op\":\"ls\",\"where\":%s}", cases[i].where);
        int count = count_of(ask(bus, "$sys.conversations", request), "\"id\":");
        if (count != cases[i].count)
            fail_msg("%s found %d, not %d", request, count, cases[i].count);
    }
    expect(bus, "$sys.conversations", "{\"op\":\"ls\",\"where\":{\"a\":1}}", "\"code\":\"INVALID\"");
    expect(bus, "$sys.conversations", "{\"op\":\"ls\",\"where\":[]}", "\"code\":\"INVALID\"");
    expect_of(bus, "$sys.conversations", "cancel", a.id, "{\"id\":");
    assert_int_equal(lim_conv_close(bus, b), LIM_OK);
}

static void test_a_conversation_is_found_and_signalled_by_its_name(void **state) /* proves CV19 */
{
    lim_bus *bus = *state;
    lim_conv conv = open_talk(bus, "approval-17", "customer=7");
    char id[40];
    snprintf(id, sizeof id, "{\"id\":\"%llx\"}", (unsigned long long)conv.id);
    expect(bus, "$sys.conversations", "{\"op\":\"find\",\"name\":\"approval-17\"}", id);
    expect(bus, "$sys.conversations", "{\"op\":\"find\",\"name\":\"approval-18\"}", "\"code\":\"NOTFOUND\"");
    expect(bus, "$sys.conversations",
           "{\"op\":\"signal\",\"name\":\"approval-17\",\"signal\":\"go\",\"payload\":\"x\"}", id);
    expect(bus, "$sys.conversations",
           "{\"op\":\"signal\",\"name\":\"approval-17\",\"signal\":\"go\",\"payload_base64\":\"/w==\"}", id);
    expect(bus, "$sys.conversations",
           "{\"op\":\"signal\",\"name\":\"approval-17\",\"signal\":\"go\",\"payload_base64\":\"/w=\"}", "base64");
    expect(bus, "$sys.conversations", "{\"op\":\"signal\",\"signal\":\"go\"}", "say which");
    expect(bus, "$sys.conversations", "{\"op\":\"signal\",\"id\":\"123\",\"signal\":\"go\"}", "\"code\":\"GONE\"");
    expect(bus, "$sys.conversations", "{\"op\":\"signal\",\"name\":\"approval-17\",\"signal\":\"a b\"}",
           "\"code\":\"INVALID\"");
    expect_of(bus, "$sys.conversations", "history", conv.id, "\"code\":\"NOTFOUND\"");
    assert_int_equal(lim_conv_close(bus, conv), LIM_OK);
}

static void test_a_history_is_told_while_it_goes_on_and_after_its_end(void **state) /* proves CV17 */
{
    lim_bus *bus = *state;
    lim_conv conv;
    lim_admission a;
    char request[80];
    assert_int_equal(lim_conv_open(bus, OPTS(lim_conv_opts, .timeout_ms = LIM_FOREVER, .trace = true), &conv), LIM_OK);
    assert_int_equal(lim_conv_send(bus, conv, (lim_participant){ 0 }, BYTES("hello"), &a), LIM_OK);
    snprintf(request, sizeof request, "{\"op\":\"history\",\"id\":\"%llx\"}", (unsigned long long)conv.id);
    expect(bus, "$sys.conversations", request, "{\"n\":1,");
    expect(bus, "$sys.conversations", request, "\"kind\":\"sent\"");
    expect(bus, "$sys.conversations", request, "\"living\":true");
    said all = ask(bus, "$sys.conversations", request);
    int entries = count_of(all, "{\"n\":");
    snprintf(request, sizeof request, "{\"op\":\"history\",\"id\":\"%llx\",\"after\":%d}", (unsigned long long)conv.id,
             entries - 1);
    assert_int_equal(count_of(ask(bus, "$sys.conversations", request), "{\"n\":"), 1);
    assert_int_equal(lim_conv_close(bus, conv), LIM_OK);
    expect_soon(bus, "$sys.conversations", request, "\"living\":false");
    expect(bus, "$sys.conversations", request, "\"kind\":\"ended\"");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_bus, close_bus)
    const struct CMUnitTest tests[] = {
        T(test_every_system_group_answers),
        T(test_what_is_unknown_is_named_with_the_nearest_that_is_known),
        T(test_every_op_is_in_the_protocol),
        T(test_a_queue_can_have_its_rules_before_anybody_works_on_it),
        T(test_a_task_is_shown_while_it_waits_and_after_it_ended),
        T(test_a_queue_says_why_its_tasks_wait),
        T(test_a_worker_is_drained_wherever_it_has_that_identity),
        T(test_conversations_are_found_by_what_they_are_and_by_attribute),
        T(test_a_conversation_is_found_and_signalled_by_its_name),
        T(test_dead_letters_of_all_queues_are_listed_shown_replayed_and_dropped),
        T(test_a_history_is_told_while_it_goes_on_and_after_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
