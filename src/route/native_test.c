/* SPDX-License-Identifier: Apache-2.0
 * native_test.c - native routing functions: what they see, what they may not, how their calls end, and what is left of
 * them. Real helper processes; time is the machine's, so nothing here says how long anything takes. */
#include "route/native.h"

#include <errno.h>
#include <signal.h>
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "route/test_router.h"
#include "base/buf.h"
#include "base/rng.h"

static lim__native *native;

static void *function(const char *name, size_t *len)
{
    char folder[3500], path[4096];
    void *code = NULL;
    assert_int_equal(lim__program_folder(folder, sizeof folder), 0);
    snprintf(path, sizeof path, "%s/tests/functions/function-%s.so", folder, name);
    assert_int_equal(lim__file_read(path, 4 << 20, &code, len), 0);
    return code;
}

static lim_err try_function(const char *name, lim__route_limits limits, lim_diag *diag, lim__router **out)
{
    lim__artifact *a = NULL;
    size_t len;
    void *code = function(name, &len);
    assert_int_equal(lim__artifact_new(LIM__ENGINE_NATIVE, lim__bytes(code, len), name, 0, &a), LIM_OK);
    free(code);
    w.os.now_ns = lim__os_linux()->now_ns;
    lim__router_opts opts = {
        .os = &w.os, .artifact = a, .seed = 7, .limits = limits, .native = native, .on_done = on_done, .ctx = &w
    };
    lim_err err = lim__router_open(&opts, diag, out);
    lim__artifact_unref(a);
    return err;
}

static lim__router *open_limited(const char *name, lim__route_limits limits)
{
    lim__router *r = NULL;
    lim_diag diag = { 0 };
    if (try_function(name, limits, &diag, &r) != LIM_OK)
        fail_msg("refused: %s", diag.text);
    return r;
}

/* A machine that is busy gives a helper little time: only what a call itself uses is limited closely here. */
static lim__router *open_function(const char *name)
{
    return open_limited(name, (lim__route_limits){ .wall_ns = 30000000000u });
}

static int open_world(void **state)
{
    lim_diag diag = { 0 };
    (void)state;
    if (lim__native_open(&(lim__native_opts){ 0 }, &diag, &native) != LIM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        return -1;
    }
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    lim__native_close(native);
    return 0;
}

/* ---- what a function sees ---- */

static void test_a_native_function_chooses_by_room(void **state)
{
    (void)state;
    lim__router *r = open_function("healthy");
    w.workers[0].in_flight = 10;
    assert_decided(call_to_end(r, "{}"), 1);
    w.workers[1].in_flight = 10; /* and what has changed is seen by its stamp */
    w.workers[1].stamp++;
    assert_decided(call_to_end(r, "{}"), 2);
    for (uint32_t i = 0; i < WORKERS; i++) {
        w.workers[i].in_flight = 10;
        w.workers[i].stamp++;
    }
    assert_int_equal(call_to_end(r, "{}").how, LIM__ROUTE_NONE);
    lim__router_unref(r);
}

static void test_it_reads_fields_headers_names_nodes_and_tags(void **state) /* proves GR3 */
{
    (void)state;
    lim__router *r = open_function("healthy");
    lim__buf headers = { 0 };
    assert_decided(call_to_end(r, "{\"name\":\"worker-5\"}"), 5);
    assert_decided(call_to_end(r, "{\"tag\":\"eu\"}"), 1);
    assert_decided(call_to_end(r, "{\"node\":\"west\"}"), 4);
    assert_int_equal(call_to_end(r, "{\"tag\":\"us\"}").how, LIM__ROUTE_NONE);
    assert_decided(call_to_end(r, "{\"user\":{\"pick\":[1,6]}}"), 6);
    assert_decided(call_to_end(r, "{\"share\":0.5}"), 4);
    assert_decided(call_to_end(r, "no JSON at all"), 0);
    assert_int_equal(lim__packed_add(&headers, TEXT("name"), TEXT("worker-3")), LIM_OK);
    lim__route_result result = call_with(r, TEXT("{}"), lim__buf_bytes(&headers));
    while (result.how == LIM__ROUTE_PENDING && lim__router_resume(r) > 0)
        continue;
    assert_decided(result.how == LIM__ROUTE_PENDING ? w.last : result, 3);
    lim__buf_fini(&headers);
    lim__router_unref(r);
}

static void test_the_counter_goes_on_over_versions_and_chance_is_seeded(void **state)
{
    (void)state;
    uint32_t first[8];
    for (int round = 0; round < 2; round++) {
        lim__router *r = open_function("healthy");
        assert_decided(call_to_end(r, "{\"count\":true}"), 1);
        assert_decided(call_to_end(r, "{\"count\":true}"), 2);
        for (int i = 0; i < 8; i++) {
            lim__route_result result = call_to_end(r, "{\"chance\":true}");
            assert_int_equal(result.how, LIM__ROUTE_DECIDED);
            if (round == 0)
                first[i] = result.index;
            assert_int_equal(result.index, first[i]);
        }
        lim__router_unref(r);
    }
}

static void test_one_who_takes_over_a_slot_is_shown_with_his_own_name(void **state)
{
    (void)state;
    lim__router *r = open_function("healthy");
    char name[64];
    for (int i = 0; i < 50; i++) {
        int n = snprintf(name, sizeof name, "taker-%0*d", 1 + i, i);
        char json[128];
        w.workers[2].name = lim__bytes(name, (size_t)n);
        w.workers[2].id = 5000 + (uint64_t)i;
        w.workers[2].stamp = 1;
        snprintf(json, sizeof json, "{\"name\":\"%s\"}", name);
        assert_decided(call_to_end(r, json), 2);
    }
    lim__router_unref(r);
}

static void test_many_calls_go_over_together(void **state)
{
    (void)state;
    lim__router *r = open_limited("healthy", (lim__route_limits){ .unfinished_max = 64, .wall_ns = 30000000000u });
    lim__route_result result;
    for (int round = 0; round < 200; round++) {
        w.done = 0;
        lim__router_batch(r, true);
        for (int i = 0; i < 64; i++) {
            lim__route_msg msg = { .payload = TEXT("{\"name\":\"worker-4\"}") };
            assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &w, &result), LIM__ROUTE_PENDING);
        }
        assert_int_equal(lim__router_pending(r), 64);
        lim__route_msg msg = { .payload = TEXT("{}") };
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &w, &result), LIM__ROUTE_NOT_STARTED);
        assert_non_null(strstr(result.text, "routing.unfinished_max"));
        lim__router_batch(r, false);
        while (lim__router_resume(r) > 0)
            continue;
        assert_int_equal(w.done, 64);
        assert_decided(w.last, 4);
    }
    lim__router_unref(r);
}

static void call_many(lim__router *r, int n, const char *json)
{
    lim__route_result result;
    lim__route_msg msg = { .payload = lim__str(json) };
    for (int i = 0; i < n; i++)
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &w, &result), LIM__ROUTE_PENDING);
}

/* Who has not begun is no reason to refuse others; who has used a slice is. */
static void test_it_is_busy_until_a_call_is_known_to_take_long(void **state)
{
    (void)state;
    lim__router *r = open_limited("hostile", (lim__route_limits){ .unfinished_max = 8, .cpu_ns = 2000000000 });
    for (int quick = 1; quick >= 0; quick--) {
        assert_false(lim__router_busy(r));
        lim__router_batch(r, true);
        call_many(r, 7, quick ? "{\"answer\":1}" : "{\"do\":\"loop\"}");
        assert_false(lim__router_busy(r)); /* there is room for one */
        call_many(r, 1, "{\"answer\":1}");
        assert_true(lim__router_busy(r));
        lim__router_batch(r, false);
        while (lim__router_busy(r) && quick)
            (void)lim__router_resume(r);
        while (lim__router_busy(r))
            lim__thread_yield();
        assert_int_equal(lim__router_pending(r) == 8, !quick);
        while (quick && lim__router_resume(r) > 0)
            continue;
    }
    assert_int_equal(lim__router_abandon(r), 8);
    lim__router_unref(r);
}

/* Messages of all sizes around the end of the memory that they are put into. */
static void test_messages_of_every_size_arrive_whole(void **state)
{
    (void)state;
    lim__router *r = open_limited("healthy", (lim__route_limits){ .unfinished_max = 8, .wall_ns = 30000000000u });
    static char json[1 << 20];
    lim__route_result result;
    lim__rng rng = lim__rng_seeded(11);
    for (int round = 0; round < 60; round++) {
        uint32_t calls = 1 + (uint32_t)lim__rng_below(&rng, 5);
        w.done = 0;
        lim__router_batch(r, true);
        for (uint32_t i = 0; i < calls; i++) {
            size_t pad = (size_t)lim__rng_below(&rng, sizeof json - 100);
            int n = snprintf(json, sizeof json, "{\"name\":\"worker-%u\",\"pad\":\"%0*d\"}", i, (int)pad, 0);
            lim__route_msg msg = { .payload = lim__bytes(json, (size_t)n) };
            if (lim__router_call(r, &msg, w.list, WORKERS, &w, &result) != LIM__ROUTE_PENDING)
                fail_msg("%s", result.text);
        }
        lim__router_batch(r, false);
        while (lim__router_resume(r) > 0)
            continue;
        assert_int_equal(w.done, calls);
        assert_decided(w.last, calls - 1);
    }
    lim__route_msg large = { .payload = lim__bytes(json, LIM__NATIVE_MESSAGE_MAX + 1) };
    assert_int_equal(lim__router_call(r, &large, w.list, WORKERS, &w, &result), LIM__ROUTE_NOT_STARTED);
    lim__router_unref(r);
}

/* ---- loading ---- */

static void refused(const char *name, const char *why)
{
    lim__router *r = NULL;
    lim_diag diag = { 0 };
    assert_int_equal(try_function(name, (lim__route_limits){ 0 }, &diag, &r), LIM_E_CODE);
    if (strstr(diag.text, why) == NULL)
        fail_msg("%s: %s; expected: %s", name, diag.text, why);
}

static void test_a_bad_object_is_refused_with_the_reason(void **state)
{
    (void)state;
    refused("other-abi", "it was built for version 3 of liminal/native.h; this is version 2");
    refused("no-symbol", "it exports no lim_native_router_v");
    refused("crashes", "signal 11 (SEGV)");
    refused("wrong-answer", "of one candidate it chose another");
    refused("loops", "took too long");
    refused("opens", "unlink");
}

static void test_bytes_that_are_no_object_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *why;
    } bad[] = {
        { "return function() end", "not a shared object" },
        { "\177ELF", "file too short" },
        { "\177ELF\2\1\1\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "too short" },
    };
    for (size_t i = 0; i < LIM_COUNT(bad); i++) {
        lim__artifact *a = NULL;
        lim__router *r = NULL;
        lim_diag diag = { 0 };
        assert_int_equal(lim__artifact_new(LIM__ENGINE_NATIVE, lim__str(bad[i].bytes), "bad.so", 0, &a), LIM_OK);
        lim__router_opts opts = { .artifact = a, .native = native };
        assert_int_equal(lim__router_open(&opts, &diag, &r), LIM_E_CODE);
        if (strstr(diag.text, bad[i].why) == NULL)
            fail_msg("%zu: %s; expected: %s", i, diag.text, bad[i].why);
        lim__artifact_unref(a);
    }
}

static void test_without_the_engine_a_native_function_is_refused_by_name_of_the_setting(void **state)
{
    (void)state;
    lim__native *on = native;
    lim__router *r = NULL;
    lim_diag diag = { 0 };
    native = NULL;
    assert_int_equal(try_function("healthy", (lim__route_limits){ 0 }, &diag, &r), LIM_E_MISUSE);
    assert_non_null(strstr(diag.text, "routing.native: true"));
    native = on;
}

/* ---- containment ---- */

typedef struct expectation {
    const char *what;
    lim__route_how how;
    const char *text; /* in the result's */
} expectation;

#define CRASH(what, text)                                                                                              \
    {                                                                                                                  \
        what, LIM__ROUTE_CRASHED, text                                                                                 \
    }
#define SYSCALL(what, name)                                                                                            \
    {                                                                                                                  \
        what, LIM__ROUTE_CRASHED, "(" name "), which native functions may not"                                         \
    }
#define TIMEOUT(what)                                                                                                  \
    {                                                                                                                  \
        what, LIM__ROUTE_TIMED_OUT, "routing.cpu_us_max"                                                               \
    }

static const expectation hostile[] = {
    CRASH("null", "signal 11 (SEGV)"),
    CRASH("wild_read", "signal 11 (SEGV)"),
    { "wild_answers", 0, "" }, /* its own code may have put it right again before anybody looked */
    { "wild_answers_loop", LIM__ROUTE_CRASHED, "" },
    CRASH("write_requests", "signal 11 (SEGV)"),
    SYSCALL("unseal_requests", "mprotect"),
    CRASH("stack_smash", "signal 11 (SEGV)"),
    CRASH("recursion", "signal 11 (SEGV)"),
    CRASH("divide", "system call"),
    CRASH("trap", "signal 4 (ILL)"),
    CRASH("exit", "ended with exit code 3"),
    CRASH("exit_fast", "ended with exit code 3"),
    CRASH("abort", "it called abort()"),
    CRASH("assert", "assertion failed at"),
    CRASH("fork", "system call"),
    SYSCALL("vfork", "clone"),
    SYSCALL("thread", "clone3"),
    SYSCALL("exec", "execve"),
    SYSCALL("open", "openat"),
    SYSCALL("open_code", "openat"),
    SYSCALL("create", "openat"),
    CRASH("unlink", "(unlink"),
    SYSCALL("socket", "socket"),
    SYSCALL("ptrace", "ptrace"),
    SYSCALL("kill_parent", "kill"),
    SYSCALL("kill_all", "kill"),
    CRASH("raise_all", "system call"),
    SYSCALL("sigaction", "rt_sigaction"),
    TIMEOUT("loop"),
    TIMEOUT("jump"),
    SYSCALL("nap", "nanosleep"),
    CRASH("hog", "it called abort()"),
    { "huge", LIM__ROUTE_DECIDED, "" },
    SYSCALL("mprotect", "mprotect"),
    SYSCALL("map_code", "mmap"),
    SYSCALL("steal", "process_vm_readv"),
    SYSCALL("numbers", "write"),
    TIMEOUT("bell"),
    SYSCALL("prctl", "prctl"),
    CRASH("limits", "limit"),
    SYSCALL("filter", "prctl"),
    { "heap", LIM__ROUTE_CRASHED, "" },
    CRASH("stranger_index", "index 13; there are 8 candidates"),
    CRASH("stranger_id", "somebody who is not that candidate"),
    CRASH("stranger_serial", "another call"),
    CRASH("many_done", "never made"),
    CRASH("less_done", "never made"),
    { "answer_then_work", LIM__ROUTE_NONE, "" },
    CRASH("play_dead", ""),
    TIMEOUT("hold_the_lock"),
    CRASH("tell_tales", ""),
};

static void check_hostile(lim__router *r, const expectation *e)
{
    char json[64];
    snprintf(json, sizeof json, "{\"do\":\"%s\"}", e->what);
    lim__route_result result = call_to_end(r, json);
    if ((e->how != 0 && result.how != e->how) || strstr(result.text, e->text) == NULL)
        fail_msg("%s: %s: %s; expected %s: %s", e->what, lim__route_how_text(result.how), result.text,
                 lim__route_how_text(e->how), e->text);
    if (result.how == LIM__ROUTE_CRASHED)
        assert_memory_equal(result.hash, lim__router_artifact(r)->hash, LIM__HASH_SIZE);
}

static void assert_nobody_was_hurt(void)
{
    assert_int_equal(access("/tmp/liminal-hostile", F_OK), -1);
}

/* proves RF9 */
static void test_whatever_a_native_function_does_its_call_ends_and_the_next_one_is_answered(void **state)
{
    (void)state;
    lim__router *bad = open_function("hostile"), *good = open_function("healthy");
    for (size_t i = 0; i < LIM_COUNT(hostile); i++) {
        check_hostile(bad, &hostile[i]);
        assert_decided(call_to_end(good, "{\"name\":\"worker-3\"}"), 3);
        if (strcmp(hostile[i].what, "answer_then_work") == 0 ||
            strcmp(hostile[i].what, "stranger_index") == 0) /* its process works on: the next call pays for that */
            assert_int_equal(call_to_end(bad, "{\"answer\":2}").how, LIM__ROUTE_TIMED_OUT);
        if (strcmp(hostile[i].what, "wild_answers") == 0) /* likewise, or it has been found out */
            (void)call_to_end(bad, "{\"answer\":2}");
        assert_decided(call_to_end(bad, "{\"answer\":2}"), 2);
    }
    assert_nobody_was_hurt();
    lim__router_unref(bad);
    lim__router_unref(good);
}

static void test_a_function_that_sleeps_is_ended_by_the_wall_limit(void **state)
{
    (void)state;
    lim__router *r = open_limited("hostile", (lim__route_limits){ .wall_ns = 50000000 });
    lim__route_result result = call_to_end(r, "{\"do\":\"wait\"}");
    assert_int_equal(result.how, LIM__ROUTE_TIMED_OUT);
    assert_non_null(strstr(result.text, "routing.wall_ms_max"));
    assert_true(result.after_ns >= 50000000);
    lim__router_unref(r);
}

/* Those before it are answered, it ends as it should, those behind it go to the spare. */
static void test_calls_behind_one_that_crashes_are_answered(void **state)
{
    (void)state;
    lim__router *r = open_limited("hostile", (lim__route_limits){ .unfinished_max = 16, .wall_ns = 30000000000u });
    static const char *const bad[] = { "null", "exit", "loop", "stranger_serial", "socket" };
    for (size_t b = 0; b < LIM_COUNT(bad); b++) {
        char json[64];
        snprintf(json, sizeof json, "{\"do\":\"%s\"}", bad[b]);
        lim__route_result result;
        lim__router_stats before, after;
        lim__router_stats_get(r, &before);
        w.done = 0;
        lim__router_batch(r, true);
        for (int i = 0; i < 9; i++) {
            lim__route_msg msg = { .payload = lim__str(i == 4 ? json : "{\"answer\":7}") };
            assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &w, &result), LIM__ROUTE_PENDING);
        }
        lim__router_batch(r, false);
        while (lim__router_resume(r) > 0)
            continue;
        lim__router_stats_get(r, &after);
        assert_int_equal(w.done, 9);
        assert_int_equal(after.decided - before.decided, 8);
        assert_int_equal(after.crashed + after.timed_out - before.crashed - before.timed_out, 1);
    }
    lim__router_unref(r);
}

/* proves RF9: a hundred thousand with LIM_NATIVE_CALLS=100000 */
static void test_crashes_and_good_calls_take_turns(void **state)
{
    (void)state;
    static const char *const bad[] = { "null", "exit", "stack_smash", "socket", "abort", "stranger_id" };
    const char *count = getenv("LIM_NATIVE_CALLS");
    int calls = count != NULL ? atoi(count) : 200;
    lim__router *r = open_function("hostile");
    for (int i = 0; i < calls; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"do\":\"%s\"}", bad[i % (int)LIM_COUNT(bad)]);
        assert_crashed(call_to_end(r, json), "");
        assert_decided(call_to_end(r, "{\"answer\":5}"), 5);
    }
    lim__router_unref(r);
}

static void test_calls_that_are_abandoned_end_without_a_word(void **state)
{
    (void)state;
    lim__router *r = open_function("hostile");
    lim__route_result result;
    lim__route_msg msg = { .payload = TEXT("{\"do\":\"loop\"}") };
    w.done = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lim__router_call(r, &msg, w.list, WORKERS, &w, &result), LIM__ROUTE_PENDING);
        assert_int_equal(lim__router_abandon(r), 1);
        assert_int_equal(lim__router_pending(r), 0);
    }
    assert_int_equal(w.done, 0);
    lim__router_unref(r);
}

/* ---- nothing is left ---- */

static int open_files(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* Of the whole process, whoever they are the children of: the zygote's are its own. */
static int helpers_alive(void)
{
    int n = 0;
    DIR *d = opendir("/proc");
    struct dirent *e;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        char path[300], text[256] = "";
        int parent = 0, group = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", e->d_name);
        FILE *f = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? fopen(path, "r") : NULL;
        if (f == NULL)
            continue;
        if (fgets(text, sizeof text, f) != NULL) {
            const char *end = strrchr(text, ')');
            if (end != NULL && sscanf(end + 2, "%*c %d %d", &parent, &group) == 2 &&
                strstr(text, "(liminal-helper)") != NULL && parent != getpid()) {
                snprintf(path, sizeof path, "/proc/%d/stat", parent); /* of our zygote? */
                FILE *p = fopen(path, "r");
                if (p != NULL && fgets(text, sizeof text, p) != NULL && (end = strrchr(text, ')')) != NULL &&
                    sscanf(end + 2, "%*c %d", &parent) == 1)
                    n += parent == getpid();
                if (p != NULL)
                    fclose(p);
            }
        }
        fclose(f);
    }
    closedir(d);
    return n;
}

static int mappings(void)
{
    int n = 0;
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        n += strstr(line, "memfd:") != NULL;
    fclose(f);
    return n;
}

static void wait_for_helpers(int count)
{
    int now = helpers_alive();
    for (int i = 0; i < 1500 && now != count; i++, now = helpers_alive())
        lim__thread_yield();
    assert_int_equal(now, count);
}

static void wait_until_alone(void)
{
    refused("no-symbol", ""); /* the zygote does one thing after the other: it has forked all that it was asked for */
    wait_for_helpers(0);
}

static void deploys(int count)
{
    for (int i = 0; i < count; i++) {
        lim__router *r = open_function(i % 2 != 0 ? "healthy" : "hostile");
        if (i % 5 == 0)
            assert_int_equal(call_to_end(r, i % 2 != 0 ? "{\"name\":\"x\"}" : "{\"do\":\"null\"}").how,
                             i % 2 != 0 ? LIM__ROUTE_NONE : LIM__ROUTE_CRASHED);
        lim__router_unref(r);
    }
}

/* proves RF13: ten thousand with LIM_NATIVE_DEPLOYS=10000 */
static void test_after_many_deploys_nothing_is_left_of_them(void **state)
{
    (void)state;
    const char *count = getenv("LIM_NATIVE_DEPLOYS");
    deploys(4);
    wait_until_alone();
    int files = open_files(), maps = mappings();
    deploys(count != NULL ? atoi(count) : 300);
    wait_until_alone();
    assert_int_equal(open_files(), files);
    assert_int_equal(mappings(), maps);
    assert_int_equal(maps, 0);
}

static void test_what_was_checked_is_ready_for_the_slot_that_opens_it(void **state)
{
    (void)state;
    size_t len;
    void *code = function("healthy", &len);
    lim__artifact *a = NULL;
    lim_diag diag = { 0 };
    assert_int_equal(lim__artifact_new(LIM__ENGINE_NATIVE, lim__bytes(code, len), "healthy", 0, &a), LIM_OK);
    free(code);
    wait_until_alone();
    lim__router_opts opts = { .artifact = a, .native = native, .on_done = on_done, .ctx = &w };
    for (uint32_t i = 0; i < 12; i++) { /* each twice, which is once; and more than are kept */
        opts.limits.memory_max = (1 + i / 2) << 20;
        assert_int_equal(lim__router_check(&opts, &diag), LIM_OK);
    }
    lim__artifact_unref(a);
    refused("no-symbol", "");
    wait_for_helpers(8); /* of four */
    lim__router *r[4];
    for (uint32_t i = 0; i < 4; i++)
        r[i] = open_limited("healthy", (lim__route_limits){ .memory_max = (3 + i) << 20, .wall_ns = 30000000000u });
    assert_int_equal(helpers_alive(), 8);
    for (int i = 0; i < 4; i++) {
        assert_decided(call_to_end(r[i], "{\"name\":\"worker-1\"}"), 1);
        lim__router_unref(r[i]);
    }
    wait_for_helpers(0);
}

static void test_when_the_zygote_is_killed_calls_end_and_a_new_one_takes_over(void **state)
{
    (void)state;
    lim__router *r = open_function("healthy");
    assert_decided(call_to_end(r, "{\"name\":\"worker-2\"}"), 2);
    int zygote = lim__native_zygote(native);
    assert_int_equal(kill(zygote, SIGKILL), 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)zygote, &info, WEXITED | WNOWAIT), 0); /* now its helpers are killed, too */
    bool answered = false;
    for (int i = 0; i < 1000 && !answered; i++) {
        lim__route_result result = call_to_end(r, "{\"name\":\"worker-6\"}");
        answered = result.how == LIM__ROUTE_DECIDED && result.index == 6 && lim__native_zygote(native) != zygote;
    }
    assert_true(answered);
    lim__router_unref(r);
}

static void test_a_helper_that_is_not_there_is_told(void **state)
{
    (void)state;
    lim__native *n = NULL;
    lim_diag diag = { 0 };
    assert_int_equal(lim__native_open(&(lim__native_opts){ .helper = "/nowhere/liminal-helper" }, &diag, &n),
                     LIM_E_NOTFOUND);
    assert_non_null(strstr(diag.text, "/nowhere/liminal-helper"));
    assert_int_equal(lim__native_open(&(lim__native_opts){ .helper = "/bin/true" }, &diag, &n), LIM_E_IO);
}

/* ---- the simulator's ---- */

static lim__route_how script(void *ctx, const lim__artifact *code, const lim__route_msg *msg,
                             const lim__candidate *const *candidates, uint32_t n, uint32_t *index, const char **text)
{
    (void)code, (void)candidates;
    assert_ptr_equal(ctx, &w);
    *index = n - 1;
    *text = "as it was told";
    return msg->payload.len > 2 ? LIM__ROUTE_CRASHED : LIM__ROUTE_DECIDED;
}

static void test_a_script_stands_in_for_helpers(void **state)
{
    (void)state;
    lim__native *n = NULL, *on = native;
    lim_diag diag = { 0 };
    assert_int_equal(lim__native_open(&(lim__native_opts){ .script = script, .script_ctx = &w }, &diag, &n), LIM_OK);
    native = n;
    lim__router *r = open_function("healthy");
    assert_decided(call(r, "{}"), WORKERS - 1);
    assert_crashed(call(r, "{ }"), "as it was told");
    assert_int_equal(lim__router_resume(r), 0);
    lim__router_unref(r);
    lim__native_close(n);
    native = on;
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_native_function_chooses_by_room),
        T(test_it_reads_fields_headers_names_nodes_and_tags),
        T(test_the_counter_goes_on_over_versions_and_chance_is_seeded),
        T(test_one_who_takes_over_a_slot_is_shown_with_his_own_name),
        T(test_many_calls_go_over_together),
        T(test_it_is_busy_until_a_call_is_known_to_take_long),
        T(test_messages_of_every_size_arrive_whole),
        T(test_a_bad_object_is_refused_with_the_reason),
        T(test_bytes_that_are_no_object_are_refused),
        T(test_without_the_engine_a_native_function_is_refused_by_name_of_the_setting),
        T(test_whatever_a_native_function_does_its_call_ends_and_the_next_one_is_answered),
        T(test_a_function_that_sleeps_is_ended_by_the_wall_limit),
        T(test_calls_behind_one_that_crashes_are_answered),
        T(test_crashes_and_good_calls_take_turns),
        T(test_calls_that_are_abandoned_end_without_a_word),
        T(test_after_many_deploys_nothing_is_left_of_them),
        T(test_what_was_checked_is_ready_for_the_slot_that_opens_it),
        T(test_when_the_zygote_is_killed_calls_end_and_a_new_one_takes_over),
        T(test_a_helper_that_is_not_there_is_told),
        T(test_a_script_stands_in_for_helpers),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
