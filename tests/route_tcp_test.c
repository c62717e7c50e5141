/* SPDX-License-Identifier: Apache-2.0
 * route_tcp_test.c - routing functions over a connection: the verbs of client.h, code that comes in pieces, and that
 * nobody waits while something is loaded. A server, its clients and helper processes, with real threads; nothing is
 * timed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <liminal/client.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "artifact/artifact.h"
#include "base/base.h"
#include "base/base64.h"
#include "bus/loader.h"
#include "route/native.h"
#include "server/server.h"

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define TEXT(lit)       ((lim_bytes){ (lit), sizeof(lit) - 1 })
enum { BIG = 3 << 20, ODD = 12345 };

static struct {
    lim_bus *bus;
    lim__server *server;
    lim_client *c;
    lim_diag diag;
} w;

static lim_client *connect_to_server(void)
{
    char address[32];
    lim_client *c;
    lim_diag diag = { 0 };
    snprintf(address, sizeof address, "127.0.0.1:%u", lim__server_port(w.server));
    if (lim_client_open(OPTS(lim_client_opts, .server = address, .name = "router"), &diag, &c) != LIM_OK)
        fail_msg("%s", diag.text);
    return c;
}

static lim_done on_echo(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, d->payload) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

static int open_world(void **state)
{
    static const char *const names[] = { "one", "two" };
    (void)state;
    lim_diag diag = { 0 };
    if (lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 2, .native_engine = true, .diag = &diag), &w.bus) != LIM_OK)
        fail_msg("%s", diag.text);
    assert_int_equal(lim__server_open(w.bus, &(lim__server_opts){ .host = "127.0.0.1" }, &diag, &w.server), LIM_OK);
    w.c = connect_to_server();
    for (int i = 0; i < 2; i++) {
        lim_participant p;
        assert_int_equal(
            lim_serve(w.bus, "g",
                      OPTS(lim_serve_opts, .identity = names[i], .capacity = 100, .handler = { .on_message = on_echo }),
                      &p),
            LIM_OK);
    }
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    lim_client_close(w.c);
    lim_bus_close(w.bus);
    lim__server_close(w.server);
    return 0;
}

#define GOOD(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != LIM_OK)                                                                                          \
            fail_msg("%s: %s", #call, w.diag.text);                                                                    \
    } while (0)

static lim_hash load(lim_engine engine, lim_bytes code)
{
    lim_hash hash;
    GOOD(lim_client_artifact_load(w.c, engine, code, "f", &w.diag, &hash));
    return hash;
}

static void answered_by(const char *who)
{
    lim_outcome o;
    assert_int_equal(lim_client_ask(w.c, "g", TEXT("{}"), OPTS(lim_ask_opts, .timeout_ms = 60000), &o), LIM_OK);
    if (o.how != LIM_HOW_REPLY)
        fail_msg("%s: %.*s", lim_how_text(o.how), (int)o.detail.len, (const char *)o.detail.ptr);
    assert_int_equal(o.participant.len, strlen(who));
    assert_memory_equal(o.participant.ptr, who, strlen(who));
    lim_outcome_fini(&o);
}

#define FIRST  TEXT("return function(m, c) return c[1] end")
#define SECOND TEXT("return function(m, c) return c[2] end")

/* ---- verbs ---- */

static void count_entries(void *ctx, const lim_route_entry *e)
{
    char *kinds = ctx;
    assert_true(e->at_wall_us > 0 && e->version[0] != '\0');
    strcat(strcat(kinds, e->kind), " ");
}

static void test_a_client_deploys_goes_back_and_tries_out(void **state) /* proves RF15 */
{
    lim_hash first = load(LIM_LUA, FIRST), second = load(LIM_LUA, SECOND), before, zero = { 0 };
    char kinds[256] = "", hex[65];
    uint64_t entries = 0;
    (void)state;
    GOOD(lim_client_deploy(w.c, "g", &first, OPTS(lim_deploy_opts, .by = "ann"), &w.diag, &before));
    assert_memory_equal(before.b, zero.b, sizeof zero.b);
    answered_by("one");
    assert_int_equal(lim_client_deploy(w.c, "g", &second, OPTS(lim_deploy_opts, .if_version = &second), &w.diag, NULL),
                     LIM_E_EXISTS);
    assert_int_equal(
        lim_client_deploy(w.c, "g", &second, OPTS(lim_deploy_opts, .if_named = "least_loaded"), &w.diag, NULL),
        LIM_E_EXISTS);
    answered_by("one");
    GOOD(lim_client_deploy(w.c, "g", &second,
                           OPTS(lim_deploy_opts, .if_version = &first, .keep = 4, .on_fault = LIM_ON_FAULT_PREVIOUS,
                                .breaker_faults = LIM_UNLIMITED, .cpu_us_max = 1000, .wall_ms_max = 100,
                                .memory_bytes_max = 1 << 17, .log_bytes_max = 100, .unfinished_max = 2),
                           &w.diag, &before));
    assert_memory_equal(before.b, first.b, sizeof before.b);
    answered_by("two");
    lim__hash_text(first.b, hex);
    hex[8] = '\0';
    GOOD(lim_client_rollback(w.c, "g", hex, "bob", &w.diag, &before));
    assert_memory_equal(before.b, second.b, sizeof before.b);
    answered_by("one");
    GOOD(lim_client_deploy(w.c, "g", &second,
                           OPTS(lim_deploy_opts, .trial = LIM_TRIAL_RAMP, .ramp = 10000, .ramp_key = "$size"), &w.diag,
                           NULL));
    GOOD(lim_client_trial_stop(w.c, "g", "bob", &w.diag));
    GOOD(lim_client_deploy(w.c, "g", &second, OPTS(lim_deploy_opts, .trial = LIM_TRIAL_SHADOW), &w.diag, NULL));
    answered_by("one");
    GOOD(lim_client_trial_promote(w.c, "g", "bob", &w.diag, &before));
    assert_memory_equal(before.b, first.b, sizeof before.b);
    answered_by("two");
    assert_int_equal(lim_client_trial_stop(w.c, "g", NULL, &w.diag), LIM_E_NOTFOUND);
    assert_non_null(strstr(w.diag.text, "tried out"));
    assert_int_equal(lim_client_rollback(w.c, "g", "ffffffff", NULL, &w.diag, NULL), LIM_E_NOTFOUND);
    GOOD(lim_client_route_history(w.c, "g", 1, count_entries, kinds, &w.diag, &entries));
    assert_int_equal(entries, 7);
    assert_string_equal(kinds, "deploy rollback ramp trial_stop shadow promote ");
    assert_int_equal(lim_client_route_history(w.c, "nobody", 0, NULL, NULL, &w.diag, &entries), LIM_E_NOTFOUND);
}

static void test_a_client_puts_a_function_before_a_channel(void **state)
{
    lim_hash first = load(LIM_LUA, FIRST), turns = load(LIM_BUILTIN, TEXT("round_robin")), before;
    (void)state;
    GOOD(lim_client_channel_deploy(w.c, "jobs", &first, OPTS(lim_deploy_opts, .by = "ann"), &w.diag, NULL));
    GOOD(lim_client_channel_deploy(w.c, "jobs", &turns, OPTS(lim_deploy_opts, .by = "ann"), &w.diag, &before));
    assert_memory_equal(before.b, first.b, sizeof before.b);
    GOOD(lim_client_channel_rollback(w.c, "jobs", NULL, "ann", &w.diag, &before));
    assert_memory_equal(before.b, turns.b, sizeof before.b);
    GOOD(lim_client_channel_deploy(
        w.c, "jobs", &turns, OPTS(lim_deploy_opts, .trial = LIM_TRIAL_RAMP, .ramp_where = "n > 1"), &w.diag, NULL));
    GOOD(lim_client_channel_stop(w.c, "jobs", "ann", &w.diag));
    GOOD(lim_client_channel_deploy(w.c, "jobs", &turns, OPTS(lim_deploy_opts, .trial = LIM_TRIAL_SHADOW), &w.diag,
                                   NULL));
    GOOD(lim_client_channel_promote(w.c, "jobs", "ann", &w.diag, &before));
    assert_memory_equal(before.b, first.b, sizeof before.b);
    GOOD(lim_client_channel_undeploy(w.c, "jobs", &w.diag));
    assert_int_equal(lim_client_channel_undeploy(w.c, "jobs", &w.diag), LIM_E_NOTFOUND);
}

/* ---- the same without waiting ---- */

typedef struct told {
    _Atomic uint32_t count;
    lim_err err;
    lim_hash hash, previous;
} told;

static void on_routed(void *ctx, const lim_routed *r)
{
    told *t = ctx;
    t->err = r->err;
    t->previous = r->previous;
    atomic_fetch_add(&t->count, 1);
}

static told last;
static void told_once(lim_err began, lim_err err, const lim_hash *previous)
{
    assert_int_equal(began, LIM_OK);
    while (atomic_load(&last.count) == 0)
        sched_yield();
    assert_int_equal(last.err, err);
    if (previous != NULL)
        assert_memory_equal(last.previous.b, previous->b, sizeof previous->b);
    assert_int_equal(atomic_exchange(&last.count, 0), 1);
}

static void test_every_verb_of_a_slot_has_a_form_that_does_not_wait(void **state) /* proves RF15 */
{
    enum { MS = 60000 };
    lim_hash first = load(LIM_LUA, FIRST), second = load(LIM_LUA, SECOND);
    const lim_deploy_opts *plain = OPTS(lim_deploy_opts, .by = "ann");
    const lim_deploy_opts *shadow = OPTS(lim_deploy_opts, .trial = LIM_TRIAL_SHADOW);
    lim_client *c = w.c;
    (void)state;
    told_once(lim_client_deploy_async(c, "g", &first, plain, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_deploy_async(c, "g", &second, plain, MS, on_routed, &last), LIM_OK, &first);
    told_once(lim_client_rollback_async(c, "g", NULL, "bob", MS, on_routed, &last), LIM_OK, &second);
    answered_by("one");
    told_once(lim_client_deploy_async(c, "g", &second, shadow, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_trial_stop_async(c, "g", "bob", MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_trial_stop_async(c, "g", "bob", MS, on_routed, &last), LIM_E_NOTFOUND, NULL);
    told_once(lim_client_deploy_async(c, "g", &second, shadow, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_trial_promote_async(c, "g", "bob", MS, on_routed, &last), LIM_OK, &first);
    answered_by("two");
    told_once(lim_client_channel_deploy_async(c, "jobs", &first, plain, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_channel_deploy_async(c, "jobs", &second, plain, MS, on_routed, &last), LIM_OK, &first);
    told_once(lim_client_channel_rollback_async(c, "jobs", NULL, "bob", MS, on_routed, &last), LIM_OK, &second);
    told_once(lim_client_channel_deploy_async(c, "jobs", &second, shadow, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_channel_stop_async(c, "jobs", "bob", MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_channel_promote_async(c, "jobs", "bob", MS, on_routed, &last), LIM_E_NOTFOUND, NULL);
    told_once(lim_client_channel_deploy_async(c, "jobs", &second, shadow, MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_channel_promote_async(c, "jobs", "bob", MS, on_routed, &last), LIM_OK, &first);
    told_once(lim_client_channel_undeploy_async(c, "jobs", MS, on_routed, &last), LIM_OK, NULL);
    told_once(lim_client_channel_undeploy_async(c, "jobs", MS, on_routed, &last), LIM_E_NOTFOUND, NULL);
}

static void test_a_bad_one_says_where(void **state) /* proves RF6 */
{
    lim_hash hash;
    (void)state;
    assert_int_equal(lim_client_artifact_load(w.c, LIM_LUA, TEXT("return function(m, c)\n if x return end end"), "f",
                                              &w.diag, &hash),
                     LIM_E_CODE);
    assert_int_equal(w.diag.line, 2);
    assert_int_equal(lim_client_artifact_load(w.c, LIM_HOST, FIRST, "f", &w.diag, &hash), LIM_E_MISUSE);
    assert_int_equal(lim_client_deploy(w.c, "g", &(lim_hash){ { 7 } }, OPTS(lim_deploy_opts, .by = "x"), &w.diag, NULL),
                     LIM_E_NOTFOUND);
    assert_int_equal(
        lim_client_deploy_async(w.c, "g", &(lim_hash){ { 7 } }, OPTS(lim_deploy_opts, .by = "x"), 0, NULL, NULL),
        LIM_E_MISUSE);
}

/* ---- code that is long ---- */

static void *object(const char *name, size_t padded, size_t *len)
{
    char folder[3500], path[4096];
    void *code = NULL;
    assert_int_equal(lim__program_folder(folder, sizeof folder), 0);
    snprintf(path, sizeof path, "%s/tests/functions/function-%s.so", folder, name);
    assert_int_equal(lim__file_read(path, 4 << 20, &code, len), 0);
    code = realloc(code, *len + padded);
    assert_non_null(code);
    memset((char *)code + *len, 'x', padded); /* the loader does not look behind the last section */
    *len += padded;
    return code;
}

static void test_long_code_is_loaded_without_anybody_noticing(void **state) /* proves RF6, RF13 */
{
    size_t len;
    void *code = object("quick", BIG + ODD, &len);
    (void)state;
    lim_hash hash = load(LIM_NATIVE, (lim_bytes){ code, len }), again = load(LIM_NATIVE, (lim_bytes){ code, len });
    uint8_t expected[LIM__HASH_SIZE];
    assert_int_equal(lim__sha256((lim_bytes){ code, len }, expected), LIM_OK);
    assert_memory_equal(hash.b, expected, sizeof expected);
    assert_memory_equal(hash.b, again.b, sizeof hash.b);
    GOOD(lim_client_deploy(w.c, "g", &hash, OPTS(lim_deploy_opts, .by = "ann", .memory_bytes_max = 1 << 19), &w.diag,
                           NULL));
    answered_by("one");
    free(code);
    char *lua = malloc(200001);
    memset(lua, '-', 200000);
    memcpy(lua + 199900, "\nreturn function(m, c) return c[2] end\n--", 40);
    hash = load(LIM_LUA, (lim_bytes){ lua, 200000 });
    GOOD(lim_client_deploy(w.c, "g", &hash, OPTS(lim_deploy_opts, .by = "ann"), &w.diag, NULL));
    answered_by("two");
    free(lua);
}

static char *sys(lim_client *c, const char *request)
{
    static char text[2048];
    lim_outcome o;
    assert_int_equal(lim_client_sys(c, "$sys.artifacts", request, 60000, &o), LIM_OK);
    assert_int_equal(o.how, LIM_HOW_REPLY);
    snprintf(text, sizeof text, "%.*s", (int)o.payload.len, (const char *)o.payload.ptr);
    lim_outcome_fini(&o);
    return text;
}

static void says(lim_client *c, const char *request, const char *what)
{
    const char *text = sys(c, request);
    if (strstr(text, what) == NULL)
        fail_msg("%s: no %s in %s", request, what, text);
}

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"

/* The number of an upload of `bytes` that was begun. */
static unsigned begin(lim_client *c, unsigned bytes)
{
    char request[256];
    unsigned id = 0;
    snprintf(request, sizeof request, "{\"op\":\"begin\",\"engine\":\"lua\",\"bytes\":%u,\"hash\":\"" ZEROS "\"}",
             bytes);
    const char *text = sys(c, request);
    if (sscanf(text, "{\"upload\":\"%x\"", &id) != 1)
        fail_msg("%s", text);
    return id;
}

#define SAYS(what, ...)                                                                                                \
    do {                                                                                                               \
        char request_[256];                                                                                            \
        snprintf(request_, sizeof request_, __VA_ARGS__);                                                              \
        says(w.c, request_, what);                                                                                     \
    } while (0)

static void test_what_comes_in_pieces_is_whole_and_what_was_said(void **state)
{
    (void)state;
    says(w.c, "{\"op\":\"begin\",\"engine\":\"lua\",\"bytes\":5,\"hash\":\"00\"}", "SHA-256");
    says(w.c, "{\"op\":\"begin\",\"engine\":\"cobol\",\"bytes\":5,\"hash\":\"" ZEROS "\"}", "INVALID");
    SAYS("TOOBIG", "{\"op\":\"begin\",\"engine\":\"native\",\"bytes\":%d,\"hash\":\"" ZEROS "\"}",
         LIM__NATIVE_CODE_MAX + 1);
    unsigned id = begin(w.c, 6);
    says(w.c, "{\"op\":\"begin\",\"engine\":\"lua\",\"bytes\":5,\"hash\":\"" ZEROS "\"}", "has an upload under way");
    SAYS("\"got\":3", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":0,\"code\":\"YWJj\"}", id);
    SAYS("begins at 3", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":0,\"code\":\"YWJj\"}", id);
    SAYS("base64", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":3,\"code\":\"?\"}", id);
    SAYS("6 bytes were announced, and 7 have come",
         "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":3,\"code\":\"YWJjZA==\"}", id);
    SAYS("6 bytes were announced, and 3 have come", "{\"op\":\"end\",\"upload\":\"%x\"}", id);
    SAYS("\"got\":6", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":3,\"code\":\"YWJj\"}", id);
    SAYS("has the SHA-256", "{\"op\":\"end\",\"upload\":\"%x\"}", id);
    SAYS("begin again", "{\"op\":\"end\",\"upload\":\"%x\"}", id);
    id = begin(w.c, 6);
    SAYS("\"upload\"", "{\"op\":\"drop\",\"upload\":\"%x\"}", id);
    SAYS("NOTFOUND", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":0,\"code\":\"YWJj\"}", id);
}

static void test_an_upload_belongs_to_its_connection_and_goes_with_it(void **state)
{
    lim_client *others[LIM__UPLOADS_MAX];
    unsigned id = 0;
    (void)state;
    for (int i = 0; i < LIM__UPLOADS_MAX; i++) {
        others[i] = connect_to_server();
        id = begin(others[i], LIM__NATIVE_CODE_MAX);
    }
    SAYS("NOTFOUND", "{\"op\":\"chunk\",\"upload\":\"%x\",\"at\":0,\"code\":\"YWJj\"}", id);
    says(w.c, "{\"op\":\"begin\",\"engine\":\"lua\",\"bytes\":5,\"hash\":\"" ZEROS "\"}", "which is the limit");
    for (int i = 0; i < LIM__UPLOADS_MAX; i++)
        lim_client_close(others[i]);
    while (strstr(sys(w.c, "{\"op\":\"begin\",\"engine\":\"lua\",\"bytes\":5,\"hash\":\"" ZEROS "\"}"), "limit") !=
           NULL)
        continue; /* the server hears of it a moment later */
}

/* ---- loading keeps nobody waiting ---- */

typedef struct order {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int ended, loaded_at, listed_at;
    lim_routed routed;
} order;

static void on_loaded(void *ctx, const lim_routed *r)
{
    order *o = ctx;
    pthread_mutex_lock(&o->mutex);
    o->routed = *r;
    o->loaded_at = ++o->ended;
    pthread_cond_signal(&o->changed);
    pthread_mutex_unlock(&o->mutex);
}

static void on_listed(void *ctx, const lim_outcome *outcome)
{
    order *o = ctx;
    (void)outcome;
    pthread_mutex_lock(&o->mutex);
    o->listed_at = ++o->ended;
    pthread_cond_signal(&o->changed);
    pthread_mutex_unlock(&o->mutex);
}

static void test_others_are_answered_while_one_is_loaded(void **state)
{
    order o = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    size_t len;
    void *code = object("loops", 0, &len); /* its constructor does: known at the limit of processor time */
    (void)state;
    GOOD(lim_client_artifact_load_async(w.c, LIM_NATIVE, (lim_bytes){ code, len }, "loops.so", 60000, on_loaded, &o));
    GOOD(lim_client_ask_async(w.c, "$sys.artifacts", TEXT("{\"op\":\"ls\"}"), OPTS(lim_ask_opts, .timeout_ms = 60000),
                              on_listed, &o, NULL));
    pthread_mutex_lock(&o.mutex);
    while (o.ended < 2)
        pthread_cond_wait(&o.changed, &o.mutex);
    pthread_mutex_unlock(&o.mutex);
    assert_int_equal(o.listed_at, 1);
    assert_int_equal(o.routed.err, LIM_E_CODE);
    assert_non_null(strstr(o.routed.diag.text, "took too long"));
    free(code);
}

#define T(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_client_deploys_goes_back_and_tries_out),
        T(test_a_client_puts_a_function_before_a_channel),
        T(test_every_verb_of_a_slot_has_a_form_that_does_not_wait),
        T(test_a_bad_one_says_where),
        T(test_long_code_is_loaded_without_anybody_noticing),
        T(test_what_comes_in_pieces_is_whole_and_what_was_said),
        T(test_an_upload_belongs_to_its_connection_and_goes_with_it),
        T(test_others_are_answered_while_one_is_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
