/* SPDX-License-Identifier: Apache-2.0
 * try.c - `route test`: what a routing function would decide, here, without a server: with the limits, slices and
 * sandbox of a bus (docs/adr/0009). */
#include "cli/cli.h"
#include "base/hist.h"
#include "data/data.h"
#include "os/os.h"
#include <liminal/liminal.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CANDIDATES_MAX = 65536, TIMEOUT_MS = 5000 };

typedef struct trying {
    struct cli *cli;
    const char *path;
    lim_candidate *candidates;
    lim_bytes *names; /* all their tags and types */
    uint32_t count;
    lim__doc *doc; /* that they are views of */
    lim__buf headers;
} trying;

static void on_print(void *ctx, const char *line, size_t len)
{
    (void)ctx;
    cli_note("%.*s", (int)len, line);
}

/* ---- what is given ---- */

static uint32_t take_names(trying *t, lim__val list, uint32_t *used)
{
    uint32_t from = *used;
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it))
        if (it.val.kind == LIM__TEXT)
            t->names[(*used)++] = it.val.text;
    return *used - from;
}

static size_t name_count(lim__val list)
{
    size_t n = 0;
    lim__iter it = lim__iter_begin(list);
    while (lim__iter_next(&it))
        n += lim__val_count(lim__val_get(it.val, "tags")) + lim__val_count(lim__val_get(it.val, "types"));
    return n;
}

static void take_candidate(trying *t, lim__val v, uint32_t *used)
{
    lim_candidate *c = &t->candidates[t->count++];
    *c = (lim_candidate){ .id = t->count,
                          .name = lim__val_bytes(v, "name", lim__val_bytes(v, "id", lim__bytes("", 0))),
                          .node = lim__val_bytes(v, "node", lim__str("local")),
                          .in_flight = (uint32_t)lim__val_u64(v, "in_flight", 0),
                          .max_in_flight = (uint32_t)lim__val_u64(v, "max_in_flight", 1),
                          .buffer_depth = (uint32_t)lim__val_u64(v, "buffer_depth", 0),
                          .latency_us = (uint32_t)lim__val_u64(v, "latency_us", 0) };
    c->tags = t->names + *used;
    c->tag_count = take_names(t, lim__val_get(v, "tags"), used);
    c->types = t->names + *used;
    c->type_count = take_names(t, lim__val_get(v, "types"), used);
}

/* A file, or the JSON itself if it begins with a bracket. */
static bool take_candidates(trying *t, const char *given)
{
    void *bytes = NULL;
    size_t len = 0;
    lim_diag diag = { 0 };
    uint32_t used = 0;
    bool is_file = given[0] != '[';
    int err = is_file ? lim__file_read(given, CLI_INPUT_MAX, &bytes, &len) : 0;
    if (err != 0) {
        cli_fault(t->cli, err == -ENOENT ? CLI_NOT_FOUND : CLI_FAILED, given, strerror(-err),
                  "name a file with a JSON array of candidates");
        return false;
    }
    t->doc = lim__doc_new();
    lim_err parsed = t->doc == NULL ? LIM_E_NOMEM
                                    : lim__doc_parse(t->doc, is_file ? lim__bytes(bytes, len) : lim__str(given), &diag);
    free(bytes);
    lim__val list = parsed == LIM_OK ? lim__doc_root(t->doc) : (lim__val){ 0 };
    if (list.kind != LIM__ARRAY || lim__val_count(list) > CANDIDATES_MAX) {
        cli_fault(t->cli, CLI_USAGE, "--candidates", diag.text[0] ? diag.text : "not a JSON array of objects",
                  "write [{\"name\":\"w1\",\"in_flight\":0,\"max_in_flight\":4,\"tags\":[\"big\"]}]");
        return false;
    }
    t->candidates = calloc(lim__val_count(list) + 1, sizeof *t->candidates);
    t->names = calloc(name_count(list) + 1, sizeof *t->names);
    lim__iter it = lim__iter_begin(list);
    while (t->candidates && t->names && lim__iter_next(&it))
        take_candidate(t, it.val, &used);
    return t->candidates && t->names;
}

static bool take_headers(trying *t)
{
    const cli_list *list = &t->cli->opts->headers;
    for (size_t i = 0; i < list->count; i++) {
        const char *equals = strchr(list->items[i], '=');
        size_t len = equals ? (size_t)(equals - list->items[i]) : 0;
        if (len == 0 || lim__packed_add(&t->headers, lim__bytes(list->items[i], len), lim__str(equals + 1)) != LIM_OK) {
            cli_fault(t->cli, CLI_USAGE, list->items[i], "not a header", "write --header NAME=TEXT");
            return false;
        }
    }
    return true;
}

/* ---- what comes of it ---- */

static bool has_place(const trying *t, const lim_decision *d)
{
    const lim_candidate *c = &t->candidates[d->index];
    return c->in_flight < c->max_in_flight;
}

static int code_of(const trying *t, const lim_decision *d)
{
    switch (d->how) {
    case LIM_ROUTE_DECIDED:
        return t->cli->opts->strict && !has_place(t, d) ? CLI_REJECTED : CLI_DONE;
    case LIM_ROUTE_NONE:
        return t->cli->opts->strict ? CLI_REJECTED : CLI_DONE;
    case LIM_ROUTE_CRASHED:
        return CLI_CRASHED;
    case LIM_ROUTE_TIMED_OUT:
        return CLI_TIMEOUT;
    case LIM_ROUTE_NOT_STARTED:
        break;
    }
    return CLI_REJECTED;
}

static void say_json(trying *t, const lim_decision *d, const lim__hist *times)
{
    lim__json j = lim__json_begin(&t->cli->out);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "how", lim_route_how_text(d->how));
    if (d->how == LIM_ROUTE_DECIDED) {
        lim__json_bytes(&j, "candidate", t->candidates[d->index].name);
        lim__json_u64(&j, "index", d->index);
        lim__json_bool(&j, "full", !has_place(t, d));
    }
    if (d->text[0])
        lim__json_str(&j, "text", d->text);
    if (d->line > 0)
        lim__json_u64(&j, "line", (uint64_t)d->line);
    lim__json_u64(&j, "times", times->count);
    lim__json_u64(&j, "min_ns", times->min);
    lim__json_u64(&j, "p50_ns", lim__hist_percentile(times, 50));
    lim__json_u64(&j, "p99_ns", lim__hist_percentile(times, 99));
    lim__json_u64(&j, "max_ns", times->max);
    lim__json_close(&j);
    lim__buf_text(&t->cli->out, "\n");
}

static void say(trying *t, const lim_decision *d, const lim__hist *times)
{
    lim__buf *out = &t->cli->out;
    if (t->cli->opts->json) {
        say_json(t, d, times);
        return;
    }
    lim__buf_text(out, lim_route_how_text(d->how));
    if (d->how == LIM_ROUTE_DECIDED)
        lim__buf_format(out, " %.*s%s", (int)t->candidates[d->index].name.len,
                        (const char *)t->candidates[d->index].name.ptr, has_place(t, d) ? "" : " (full)");
    if (d->text[0])
        lim__buf_format(out, ": %s", d->text);
    if (times->count > 1)
        lim__buf_format(out, "\n%llu times: least %llu ns, median %llu ns, 99 of 100 %llu ns, most %llu ns",
                        (unsigned long long)times->count, (unsigned long long)times->min,
                        (unsigned long long)lim__hist_percentile(times, 50),
                        (unsigned long long)lim__hist_percentile(times, 99), (unsigned long long)times->max);
    else
        lim__buf_format(out, "  (%llu ns)", (unsigned long long)times->max);
    lim__buf_text(out, "\n");
}

/* Until one goes wrong; the last one is told. */
static int run(trying *t, lim_route *version, lim_bytes message)
{
    int64_t us = t->cli->opts->timeout_us;
    int64_t timeout_ms = us == 0 ? TIMEOUT_MS : us == LIM_FOREVER ? LIM_FOREVER : (us + 999) / 1000;
    uint32_t times = t->cli->opts->times ? t->cli->opts->times : 1;
    const lim_route_message msg = { .payload = message, .headers = lim__buf_bytes(&t->headers) };
    static lim__hist took;
    lim_decision d = { 0 };
    int code = CLI_DONE;
    took = (lim__hist){ 0 };
    for (uint32_t i = 0; i < times && code == CLI_DONE; i++) {
        lim_err err = lim_route_call(version, &msg, t->candidates, t->count, timeout_ms, &d);
        if (err != LIM_OK) {
            cli_err(t->cli, t->path, err, NULL);
            return t->cli->code;
        }
        lim__hist_record(&took, d.took_ns);
        code = code_of(t, &d);
    }
    say(t, &d, &took);
    return code;
}

static int try_code(trying *t, lim_engine engine, lim_bytes code, lim_bytes message)
{
    const cli_opts *o = t->cli->opts;
    const lim_route_opts opts = { .size = sizeof opts,
                                  .cpu_us_max = (uint32_t)o->cpu_us,
                                  .memory_bytes_max = o->memory_bytes,
                                  .on_print = on_print };
    lim_route *version = NULL;
    lim_diag diag = { 0 };
    lim_err err = lim_route_open(engine, code, t->path, &opts, &diag, &version);
    if (err != LIM_OK) {
        char what[300];
        size_t len = strlen(t->path);
        const char *why = diag.text[0] ? diag.text : lim_err_text(err);
        if (strncmp(why, t->path, len) == 0 && strncmp(why + len, ": ", 2) == 0)
            why += len + 2;
        else if (diag.line > 0 && strncmp(why, t->path, len) == 0 && why[len] == ':' && strstr(why, ": "))
            why = strstr(why, ": ") + 2; /* the place is said in front */
        snprintf(what, sizeof what,
                 diag.column > 0 ? "%s:%d:%d"
                 : diag.line > 0 ? "%s:%d"
                                 : "%s",
                 t->path, diag.line, diag.column);
        cli_fault(t->cli, CLI_FAILED, what, why, "mend it and try again");
        return t->cli->code;
    }
    int exit_code = run(t, version, message);
    lim_route_close(version);
    return exit_code;
}

int cli_run_route_test(struct cli *cli)
{
    trying t = { .cli = cli, .path = cli_word(cli, 0) };
    const char *message = cli->opts->message ? cli->opts->message : "{}";
    lim__buf keep = { 0 };
    size_t len = 0;
    int code = CLI_USAGE;
    const char *strategy = cli->opts->builtin;
    if (!t.path == !strategy || !cli->opts->candidates) {
        cli_fault(cli, CLI_USAGE, "route test", "a function and candidates are needed",
                  "write liminal route test FILE --message '{}' --candidates FILE.json");
        return CLI_USAGE;
    }
    void *source = strategy ? NULL : cli_code_read(cli, t.path, &len);
    lim_bytes bytes = strategy ? lim__str(strategy) : lim__bytes(source, len);
    lim_bytes payload = strcmp(message, "-") == 0 ? cli_input(cli, &keep) : lim__str(message);
    if (strategy)
        t.path = strategy;
    if (bytes.ptr && take_candidates(&t, cli->opts->candidates) && take_headers(&t))
        code = try_code(&t, strategy ? LIM_BUILTIN : cli_is_object(bytes) ? LIM_NATIVE : LIM_LUA, bytes, payload);
    else
        code = cli->code;
    free(source);
    free(t.candidates);
    free(t.names);
    lim__doc_free(t.doc);
    lim__buf_fini(&t.headers);
    lim__buf_fini(&keep);
    cli_flush(cli);
    return code;
}
