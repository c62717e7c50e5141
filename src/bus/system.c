/* SPDX-License-Identifier: Apache-2.0
 * system.c - administration: the $sys groups, which answer JSON asks.
 *
 * One participant per group, members like any other: an ask of $sys.groups goes the way of every ask. What only others
 * know is gathered: `show` letters go out to groups, agents or a conversation, `shown` letters come back, and when the
 * last one is there (or after GATHER_MS) the answer leaves.
 *
 *   request --> op known? --> answered at once
 *                       `--> gather: show to many --shown...--> joined with commas --> answered
 *
 * Errors are answers too: {"error":{"code":"NOTFOUND","message":"..."}}. */
#include "base/base.h"
#include "bus/bus.h"
#include "bus/conv.h"
#include "bus/letters.h"
#include "bus/participant.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { GATHER_MS = 1000, LS_MAX = 1000, GROUPS_MAX = 4096 };

typedef enum service { INFO = 1, CHANNELS, GROUPS, WORKERS, CONVERSATIONS, ARTIFACTS } service;
static const struct {
    service service;
    const char *group;
} services[] = {
    { INFO, "$sys.info" },       { CHANNELS, "$sys.channels" },           { GROUPS, "$sys.groups" },
    { WORKERS, "$sys.workers" }, { CONVERSATIONS, "$sys.conversations" }, { ARTIFACTS, "$sys.artifacts" },
};

typedef struct gather { /* an answer that is being put together */
    lim__list node;
    uint64_t ref, timer;
    lim_pid conv;
    uint64_t lease;
    uint32_t waiting, got;
    const char *head, *tail; /* around the parts */
    char want[256];          /* WORKERS show: this identity only */
    lim__buf body;
} gather;

typedef struct system_state {
    lim_bus *bus;
    service service;
    lim_process *self;
    lim__doc *doc, *part;
    lim__list gathers;
    uint64_t next_ref;
    const lim__request *now; /* the request at hand */
} system_state;

/* ---- answering ---- */

static void send_answer(system_state *s, lim_pid conv, uint64_t lease, lim__buf *json)
{
    lim__msg *msg = json->failed ? NULL : lim__msg_new(lim__buf_bytes(json));
    lim__answer_how how = msg != NULL ? LIM__ANSWER_REPLY : LIM__ANSWER_FAILED;
    lim__answer *a = lim__answer_new(lim__proc_sched(s->self), lim_self(s->self), lease, how, msg,
                                     msg != NULL ? lim__bytes(NULL, 0) : lim__str("out of memory"));
    if (a != NULL)
        (void)!lim__send_reserved(s->self, conv, a);
    lim__buf_fini(json);
}

static void answer(system_state *s, lim__buf *json)
{
    send_answer(s, s->now->conv, s->now->lease, json);
}

__attribute__((format(printf, 3, 4))) static void refuse(system_state *s, lim_err err, const char *format, ...)
{
    char text[400];
    lim__buf b = { 0 };
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "error", '{');
    lim__json_str(&j, "code", lim_err_name(err));
    lim__json_str(&j, "message", text);
    lim__json_close(&j);
    lim__json_close(&j);
    answer(s, &b);
}

static void refuse_diag(system_state *s, lim_err err, const lim_diag *d)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "error", '{');
    lim__json_str(&j, "code", lim_err_name(err));
    lim__json_str(&j, "message", d->text[0] != '\0' ? d->text : lim_err_text(err));
    lim__json_u64(&j, "line", (uint64_t)d->line);
    lim__json_u64(&j, "column", (uint64_t)d->column);
    lim__json_close(&j);
    lim__json_close(&j);
    answer(s, &b);
}

static bool name_of(system_state *s, lim__val root, const char *key, lim_bytes *out)
{
    *out = lim__val_bytes(root, key, lim__bytes(NULL, 0));
    if (out->len > 0 && out->len <= 255)
        return true;
    refuse(s, LIM_E_INVALID, "the request has no \"%s\", or it is longer than 255 bytes", key);
    return false;
}

/* ---- gathering ---- */

static gather *gather_begin(system_state *s, const char *head, const char *tail)
{
    gather *g = calloc(1, sizeof *g);
    if (g == NULL || lim_timer_start(s->self, GATHER_MS * 1000000ull, 1, &g->timer) != LIM_OK) {
        free(g);
        refuse(s, LIM_E_NOMEM, "out of memory");
        return NULL;
    }
    g->ref = ++s->next_ref;
    g->conv = s->now->conv;
    g->lease = s->now->lease;
    g->head = head;
    g->tail = tail;
    lim__buf_text(&g->body, head);
    lim__list_push(&s->gathers, &g->node);
    return g;
}

static void gather_end(system_state *s, gather *g)
{
    if (g->timer != 0)
        lim_timer_cancel(s->self, g->timer);
    lim__list_remove(&g->node);
    if (g->got == 0 && g->head[0] == '\0') /* a single thing was asked for, and it is not there */
        lim__buf_text(&g->body, "{\"error\":{\"code\":\"NOTFOUND\",\"message\":\"there is no such thing\"}}");
    lim__buf_text(&g->body, g->tail);
    send_answer(s, g->conv, g->lease, &g->body);
    free(g);
}

static void gather_show(system_state *s, gather *g, lim_pid who, lim_pid only, lim__show_what what, uint32_t max)
{
    lim__show *show = lim__letter_new(lim__proc_sched(s->self), &lim__type_show, sizeof *show);
    if (show == NULL)
        return;
    *show = (lim__show){ .reply_to = lim_self(s->self), .ref = g->ref, .only = only, .max = max, .what = what };
    if (lim__send_reserved(s->self, who, show) == LIM_OK)
        g->waiting++;
}

static void gather_done_if(system_state *s, gather *g)
{
    if (g->waiting == 0)
        gather_end(s, g);
}

/* Of a list of workers, those with the identity that was asked for. */
static void add_matching(system_state *s, gather *g, lim_bytes part)
{
    lim__buf array = { 0 };
    lim__buf_text(&array, "[");
    lim__buf_add(&array, part.ptr, part.len);
    lim__buf_text(&array, "]");
    if (!array.failed && lim__doc_parse(s->part, lim__buf_bytes(&array), NULL) == LIM_OK) {
        lim__iter it = lim__iter_begin(lim__doc_root(s->part));
        while (lim__iter_next(&it))
            if (g->got == 0 &&
                lim__bytes_eq(lim__val_bytes(it.val, "identity", lim__bytes(NULL, 0)), lim__str(g->want))) {
                lim__json j = lim__json_begin(&g->body);
                lim__json_val(&j, NULL, it.val);
                g->got++;
            }
    }
    lim__buf_fini(&array);
}

static void on_shown(system_state *s, const lim__shown *shown)
{
    LIM__LIST_EACH(node, &s->gathers) {
        gather *g = LIM_CONTAINER(node, gather, node);
        if (g->ref != shown->ref)
            continue;
        if (g->want[0] != '\0') {
            add_matching(s, g, lim__bytes(shown->json, shown->len));
        } else if (shown->len > 0) {
            if (g->got++ > 0)
                lim__buf_text(&g->body, ",");
            lim__buf_add(&g->body, shown->json, shown->len);
        }
        g->waiting--;
        gather_done_if(s, g);
        return;
    }
}

static void on_gather_timer(system_state *s, uint64_t timer)
{
    LIM__LIST_EACH(node, &s->gathers) {
        gather *g = LIM_CONTAINER(node, gather, node);
        if (g->timer != timer)
            continue;
        g->timer = 0;
        gather_end(s, g);
        return;
    }
}

static void gather_groups(system_state *s, gather *g, lim__show_what what)
{
    lim_pid *groups = calloc(GROUPS_MAX, sizeof *groups);
    size_t n = groups != NULL ? lim__groups_list(s->bus, groups, GROUPS_MAX) : 0;
    for (size_t i = 0; i < n && i < GROUPS_MAX; i++)
        gather_show(s, g, groups[i], (lim_pid){ 0 }, what, LS_MAX);
    free(groups);
    gather_done_if(s, g);
}

static void gather_one(system_state *s, lim_pid who, lim_pid only)
{
    gather *g = gather_begin(s, "", "");
    if (g == NULL)
        return;
    gather_show(s, g, who, only, LIM__SHOW_FULL, 1);
    gather_done_if(s, g);
}

/* ---- services ---- */

static void census_json(system_state *s, lim__json *j)
{
    lim_bus_census c;
    lim_bus_census_take(s->bus, &c);
    lim__json_open(j, "census", '{');
    lim__json_u64(j, "processes", c.runtime.processes);
    lim__json_u64(j, "links", c.runtime.links);
    lim__json_u64(j, "monitors", c.runtime.monitors);
    lim__json_u64(j, "timers", c.runtime.timers);
    lim__json_u64(j, "messages", c.runtime.messages);
    lim__json_u64(j, "letter_bytes", c.runtime.letter_bytes);
    lim__json_u64(j, "channels", c.channels);
    lim__json_u64(j, "subscriptions", c.subscriptions);
    lim__json_u64(j, "groups", c.groups);
    lim__json_u64(j, "conversations", c.conversations);
    lim__json_u64(j, "artifacts", c.artifacts);
    lim__json_u64(j, "messages_kept", c.messages_kept);
    lim__json_close(j);
    lim__json_u64(j, "turns", c.runtime.turns);
    lim__json_u64(j, "wakes", c.runtime.wakes);
    lim__json_u64(j, "overruns", c.runtime.overruns);
}

static void do_info(system_state *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__os *os = s->bus->os;
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "version", lim_version());
    lim__json_str(&j, "durability", "memory");
    lim__json_u64(&j, "uptime_ms", (os->now_ns(os) - s->bus->opened_ns) / 1000000);
    lim__json_u64(&j, "schedulers", lim__sched_count(s->bus->rt));
    lim__json_u64(&j, "payload_bytes_max", s->bus->opts.payload_bytes_max);
    lim__json_u64(&j, "spin_us", s->bus->opts.spin_us);
    census_json(s, &j);
    lim__json_close(&j);
    answer(s, &b);
}

static void do_channels(system_state *s, lim_bytes op, lim__val root)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim_bytes name;
    if (lim__bytes_eq(op, lim__str("ls"))) {
        lim__buf_text(&b, "{\"channels\":");
        lim__channels_json(s->bus->channels, &j);
        lim__buf_text(&b, "}");
        answer(s, &b);
        return;
    }
    if (!name_of(s, root, "name", &name))
        return;
    if (lim__bytes_eq(op, lim__str("show"))) {
        if (lim__channel_json(s->bus->channels, name, &j))
            answer(s, &b);
        else
            refuse(s, LIM_E_NOTFOUND, "nobody opened or subscribed to channel %.*s", (int)name.len,
                   (const char *)name.ptr);
        return;
    }
    lim_err err = LIM_E_INVALID;
    if (((const char *)name.ptr)[0] == '$') {
        refuse(s, LIM_E_INVALID, "names that begin with $ are the system's; choose another");
        return;
    }
    if (lim__bytes_eq(op, lim__str("create"))) {
        lim_channel_opts opts = { .size = sizeof opts, .allow_hold = lim__val_bool(root, "allow_hold", false) };
        lim__channel *ch = NULL;
        err = lim__channel_open(s->bus->channels, name, &opts, &ch);
        if (err == LIM_OK)
            lim__channel_unref(ch);
    } else if (lim__bytes_eq(op, lim__str("close"))) {
        err = lim__channel_close(s->bus->channels, name);
    } else {
        refuse(s, LIM_E_INVALID, "unknown op; channels know ls, show, create and close");
        return;
    }
    if (err != LIM_OK) {
        refuse(s, err, "%s: %.*s", lim_err_text(err), (int)name.len, (const char *)name.ptr);
        return;
    }
    lim__json_open(&j, NULL, '{');
    lim__json_bytes(&j, "name", name);
    lim__json_close(&j);
    answer(s, &b);
}

static bool artifact_of(system_state *s, lim__val root, lim__artifact **out)
{
    lim_bytes hash;
    if (!name_of(s, root, "hash", &hash))
        return false;
    lim_err err = lim__artifacts_get(s->bus->artifacts, hash, out);
    if (err == LIM_OK)
        return true;
    refuse(s, err,
           err == LIM_E_EXISTS ? "several artifacts begin with %.*s; give more digits"
                               : "no artifact has the hash %.*s; load it first",
           (int)hash.len, (const char *)hash.ptr);
    return false;
}

static lim_on_fault on_fault_of(lim_bytes text)
{
    return lim__bytes_eq(text, lim__str("previous"))       ? LIM_ON_FAULT_PREVIOUS
           : lim__bytes_eq(text, lim__str("least_loaded")) ? LIM_ON_FAULT_LEAST_LOADED
                                                           : LIM_ON_FAULT_REJECT;
}

/* The answer comes as `deployed` under the gather's ref. */
static void send_deploy(system_state *s, lim_bytes group, lim__artifact *a, lim__val root, bool remove)
{
    lim_pid to = lim__group_find(s->bus, group);
    lim_err err = to.id == 0 && !remove ? lim__group_get(s->bus, s->self, group, &to) : LIM_OK;
    if (err != LIM_OK || to.id == 0 || ((const char *)group.ptr)[0] == '$') {
        refuse(s, err != LIM_OK ? err : LIM_E_NOTFOUND,
               err == LIM_E_INVALID ? "%.*s is no name for a group: use letters, digits, - and _, joined by dots"
                                    : "there is no group %.*s",
               (int)group.len, (const char *)group.ptr);
        lim__artifact_unref(a);
        return;
    }
    gather *g = gather_begin(s, "", "");
    lim__deploy *d = g == NULL ? NULL : lim__letter_new(lim__proc_sched(s->self), &lim__type_deploy, sizeof *d);
    if (d == NULL) {
        lim__artifact_unref(a);
        return;
    }
    snprintf(g->want, sizeof g->want, "%.*s", (int)group.len, (const char *)group.ptr);
    *d = (lim__deploy){ .reply_to = lim_self(s->self), .ref = g->ref, .artifact = a, .remove = remove };
    d->opts = (lim_deploy_opts){ .size = sizeof d->opts,
                                 .cpu_us_max = (uint32_t)lim__val_u64(root, "cpu_us", 0),
                                 .wall_ms_max = (uint32_t)lim__val_u64(root, "wall_ms", 0),
                                 .memory_bytes_max = (uint32_t)lim__val_u64(root, "memory_bytes", 0),
                                 .unfinished_max = (uint32_t)lim__val_u64(root, "unfinished", 0),
                                 .on_fault = on_fault_of(lim__val_bytes(root, "on_fault", lim__str("reject"))) };
    g->waiting = 1;
    if (lim__send_reserved(s->self, to, d) != LIM_OK) {
        g->waiting = 0;
        gather_done_if(s, g);
    }
}

static void on_deployed(system_state *s, const lim__deployed *d)
{
    LIM__LIST_EACH(node, &s->gathers) {
        gather *g = LIM_CONTAINER(node, gather, node);
        if (g->ref != d->ref)
            continue;
        char hex[LIM__HASH_TEXT] = "";
        lim__json j = lim__json_begin(&g->body);
        lim__json_open(&j, NULL, '{');
        if (d->err != LIM_OK) {
            lim__json_open(&j, "error", '{');
            lim__json_str(&j, "code", lim_err_name(d->err));
            lim__json_str(&j, "message", d->diag.text[0] != '\0' ? d->diag.text : lim_err_text(d->err));
            lim__json_close(&j);
        } else {
            if (d->had_previous)
                lim__hash_text(d->previous.b, hex);
            lim__json_str(&j, "group", g->want);
            lim__json_str(&j, "previous", d->had_previous ? hex : NULL);
        }
        lim__json_close(&j);
        g->got = 1;
        gather_end(s, g);
        return;
    }
}

static void do_groups(system_state *s, lim_bytes op, lim__val root)
{
    lim_bytes name;
    lim__artifact *a = NULL;
    if (lim__bytes_eq(op, lim__str("ls"))) {
        gather *g = gather_begin(s, "{\"groups\":[", "]}");
        if (g != NULL)
            gather_groups(s, g, LIM__SHOW_LINE);
        return;
    }
    bool deploy = lim__bytes_eq(op, lim__str("deploy"));
    if (!name_of(s, root, deploy ? "group" : "name", &name))
        return;
    if (lim__bytes_eq(op, lim__str("show"))) {
        lim_pid who = lim__group_find(s->bus, name);
        if (who.id == 0)
            refuse(s, LIM_E_NOTFOUND, "there is no group or queue %.*s", (int)name.len, (const char *)name.ptr);
        else
            gather_one(s, who, (lim_pid){ 0 });
    } else if (deploy) {
        if (artifact_of(s, root, &a))
            send_deploy(s, name, a, root, false);
    } else if (lim__bytes_eq(op, lim__str("rm"))) {
        send_deploy(s, name, NULL, root, true);
    } else {
        refuse(s, LIM_E_INVALID, "unknown op; groups know ls, show, deploy and rm");
    }
}

static void do_workers(system_state *s, lim_bytes op, lim__val root)
{
    bool show = lim__bytes_eq(op, lim__str("show"));
    lim_bytes name = lim__bytes("", 0);
    if (!show && !lim__bytes_eq(op, lim__str("ls"))) {
        refuse(s, LIM_E_INVALID, "unknown op; workers know ls and show");
        return;
    }
    if (show && !name_of(s, root, "name", &name))
        return;
    gather *g = gather_begin(s, show ? "" : "{\"workers\":[", show ? "" : "]}");
    if (g == NULL)
        return;
    snprintf(g->want, sizeof g->want, "%.*s", (int)name.len, (const char *)name.ptr);
    gather_groups(s, g, LIM__SHOW_MEMBERS);
}

static bool id_of(system_state *s, lim__val root, lim_pid *out)
{
    char text[24];
    lim_bytes name;
    char *end;
    if (!name_of(s, root, "name", &name))
        return false;
    snprintf(text, sizeof text, "%.*s", (int)(name.len < 20 ? name.len : 20), (const char *)name.ptr);
    out->id = strtoull(text, &end, 16);
    if (out->id != 0 && *end == '\0')
        return true;
    refuse(s, LIM_E_INVALID, "%s is no id of a conversation: it is a hexadecimal number, as conversation ls shows",
           text);
    return false;
}

static void show_ended(system_state *s, lim_pid conv)
{
    lim__outcome_letter *o = lim__ended_outcome(s->bus, lim__proc_sched(s->self), conv, 0);
    lim_bytes excluded[LIM__EXCLUDED_MAX];
    lim_outcome view;
    if (o == NULL) {
        refuse(s, LIM_E_NOTFOUND, "no conversation has the id %" PRIx64 ", or it ended too long ago", conv.id);
        return;
    }
    lim__outcome_view(o, excluded, &view);
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "id", conv.id);
    lim__json_str(&j, "phase", lim_phase_text(view.how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN));
    lim__json_str(&j, "outcome", lim_how_text(view.how));
    lim__json_bytes(&j, "participant", view.participant);
    lim__json_str(&j, "reason", view.reason != 0 ? lim_reason_text(view.reason) : "");
    lim__json_u64(&j, "attempts", view.attempts);
    lim__json_u64(&j, "losses", view.losses);
    lim__json_u64(&j, "elapsed_us", view.elapsed_ns / 1000);
    lim__json_close(&j);
    lim__letter_free(lim__proc_sched(s->self), o);
    answer(s, &b);
}

static void do_conversations(system_state *s, lim_bytes op, lim__val root)
{
    lim_pid conv;
    if (lim__bytes_eq(op, lim__str("ls"))) {
        gather *g = gather_begin(s, "{\"conversations\":[", "]}");
        for (uint32_t i = 0; g != NULL && i < lim__sched_count(s->bus->rt); i++)
            gather_show(s, g, s->bus->agents[i], (lim_pid){ 0 }, LIM__SHOW_LINE, LS_MAX);
        if (g != NULL)
            gather_done_if(s, g);
        return;
    }
    if (!id_of(s, root, &conv))
        return;
    if (lim__bytes_eq(op, lim__str("show"))) {
        if (lim_alive(s->bus->rt, conv) && lim__pid_scheduler(conv) < lim__sched_count(s->bus->rt))
            gather_one(s, s->bus->agents[lim__pid_scheduler(conv)], conv);
        else
            show_ended(s, conv);
    } else if (lim__bytes_eq(op, lim__str("cancel"))) {
        if (lim_conv_cancel(s->bus, (lim_conv){ conv.id }) != LIM_OK) {
            refuse(s, LIM_E_NOTFOUND, "no conversation has the id %" PRIx64 "; it may have ended", conv.id);
            return;
        }
        lim__buf b = { 0 };
        lim__json j = lim__json_begin(&b);
        lim__json_open(&j, NULL, '{');
        lim__json_id(&j, "id", conv.id);
        lim__json_close(&j);
        answer(s, &b);
    } else {
        refuse(s, LIM_E_INVALID, "unknown op; conversations know ls, show and cancel");
    }
}

static void artifact_json(system_state *s, const lim__artifact *a, lim__json *j)
{
    char hex[LIM__HASH_TEXT];
    lim__hash_text(a->hash, hex);
    uint64_t now = s->bus->os->wall_ns(s->bus->os);
    lim__json_open(j, NULL, '{');
    lim__json_str(j, "hash", hex);
    lim__json_str(j, "short", a->id);
    lim__json_str(j, "engine", lim__engine_text(a->engine));
    lim__json_str(j, "name", a->name);
    lim__json_u64(j, "bytes", a->bytes.len);
    lim__json_u64(j, "loaded_ms_ago", now > a->loaded_at_ns ? (now - a->loaded_at_ns) / 1000000 : 0);
    lim__json_close(j);
}

static void artifacts_ls(system_state *s)
{
    lim__artifact **all = calloc(LS_MAX, sizeof *all);
    size_t n = all != NULL ? lim__artifacts_list(s->bus->artifacts, all, LS_MAX) : 0;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "artifacts", '[');
    for (size_t i = 0; i < n && i < LS_MAX; i++) {
        artifact_json(s, all[i], &j);
        lim__artifact_unref(all[i]);
    }
    lim__json_close(&j);
    lim__json_close(&j);
    free(all);
    answer(s, &b);
}

static void artifact_load(system_state *s, lim__val root)
{
    lim_diag diag = { 0 };
    lim__artifact *a = NULL;
    bool fresh = false;
    lim_bytes code = lim__val_bytes(root, "code", lim__bytes(NULL, 0));
    lim_bytes engine = lim__val_bytes(root, "engine", lim__str("lua"));
    const char *name = lim__val_str(root, "name", "");
    lim__engine which = lim__bytes_eq(engine, lim__str("lua"))       ? LIM__ENGINE_LUA
                        : lim__bytes_eq(engine, lim__str("builtin")) ? LIM__ENGINE_BUILTIN
                                                                     : 0;
    if (which == 0 || code.len == 0) {
        refuse(s, LIM_E_INVALID, "load needs \"code\" and an \"engine\": lua or builtin");
        return;
    }
    lim_err err = lim__bus_load(s->bus, which, code, name, &diag, &fresh, &a);
    if (err != LIM_OK) {
        refuse_diag(s, err, &diag);
        return;
    }
    char hex[LIM__HASH_TEXT];
    lim__hash_text(a->hash, hex);
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "hash", hex);
    lim__json_str(&j, "short", a->id);
    lim__json_bool(&j, "already", !fresh);
    lim__json_close(&j);
    lim__artifact_unref(a);
    answer(s, &b);
}

static void do_artifacts(system_state *s, lim_bytes op, lim__val root)
{
    lim__artifact *a = NULL;
    if (lim__bytes_eq(op, lim__str("ls"))) {
        artifacts_ls(s);
        return;
    }
    if (lim__bytes_eq(op, lim__str("load"))) {
        artifact_load(s, root);
        return;
    }
    bool show = lim__bytes_eq(op, lim__str("show"));
    if (!show && !lim__bytes_eq(op, lim__str("rm"))) {
        refuse(s, LIM_E_INVALID, "unknown op; artifacts know ls, show, load and rm");
        return;
    }
    if (!artifact_of(s, root, &a))
        return;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (show) {
        artifact_json(s, a, &j);
    } else { /* versions that use it keep it alive until they are retired; it is only no longer found */
        lim__artifacts_forget(s->bus->artifacts, a);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, "short", a->id);
        lim__json_close(&j);
    }
    lim__artifact_unref(a);
    answer(s, &b);
}

static void on_request(system_state *s, const lim__request *r)
{
    lim_diag diag = { 0 };
    s->now = r;
    if (r->lease == 0)
        return; /* told, not asked */
    if (lim__doc_parse(s->doc, lim__msg_bytes(r->payload), &diag) != LIM_OK) {
        refuse(s, LIM_E_INVALID, "the request is not JSON: %s", diag.text);
        return;
    }
    lim__val root = lim__doc_root(s->doc);
    lim_bytes op = lim__val_bytes(root, "op", lim__bytes("", 0));
    switch (s->service) {
    case INFO:
        do_info(s);
        return;
    case CHANNELS:
        do_channels(s, op, root);
        return;
    case GROUPS:
        do_groups(s, op, root);
        return;
    case WORKERS:
        do_workers(s, op, root);
        return;
    case CONVERSATIONS:
        do_conversations(s, op, root);
        return;
    case ARTIFACTS:
        do_artifacts(s, op, root);
        return;
    }
}

/* ---- the process ---- */

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    system_state *s = state;
    s->self = self;
    if (s->doc == NULL) {
        lim__list_init(&s->gathers);
        s->doc = lim__doc_new();
        s->part = lim__doc_new();
        if (s->doc == NULL || s->part == NULL) {
            lim_exit(self, LIM_FAULT);
            return;
        }
    }
    if (signal->kind == LIM_SIGNAL_TIMER)
        on_gather_timer(s, signal->ref);
    if (signal->kind != LIM_SIGNAL_MESSAGE || signal->type == NULL)
        return;
    if (signal->type == &lim__type_request)
        on_request(s, signal->body.ptr);
    else if (signal->type == &lim__type_shown)
        on_shown(s, signal->body.ptr);
    else if (signal->type == &lim__type_deployed)
        on_deployed(s, signal->body.ptr);
}

static void on_end(void *state, lim_reason reason)
{
    system_state *s = state;
    (void)reason;
    for (lim__list *n; s->doc != NULL && (n = lim__list_pop(&s->gathers)) != NULL;) {
        gather *g = LIM_CONTAINER(n, gather, node);
        lim__buf_fini(&g->body);
        free(g);
    }
    lim__doc_free(s->doc);
    lim__doc_free(s->part);
}

/* Once it is there (at first, and again after a restart) it joins its group. */
static void on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    system_state *s = ctx;
    lim_pid group;
    (void)starts;
    const char *name = services[s->service - 1].group;
    if (lim__group_get(s->bus, NULL, lim__str(name), &group) != LIM_OK)
        return;
    lim__join *j = lim__join_new(NULL, pid, LIM__MEMBER_SERVE, lim__str("bus"), LIM_UNLIMITED, NULL, NULL);
    if (j == NULL)
        return;
    j->reply_to = pid;
    (void)!lim__post_reserved(s->bus->rt, group, j);
}

lim_err lim__system_open(lim_bus *bus)
{
    lim_supervisor_opts opts = { .size = sizeof opts, .name = "system", .restarts_max = 8, .period_ms = 60000 };
    lim_err err = lim_supervisor_open(bus->rt, &opts, &bus->supervisor);
    for (size_t i = 0; err == LIM_OK && i < LIM_COUNT(services); i++) {
        system_state *init = &((system_state *)bus->system)[i];
        *init = (system_state){ .bus = bus, .service = services[i].service };
        lim_child_spec spec = { .size = sizeof spec, .restart = LIM_PERMANENT, .on_start = on_start, .ctx = init };
        spec.spawn = (lim_spawn_opts){ .size = sizeof spec.spawn,
                                       .name = services[i].group,
                                       .on_signal = on_signal,
                                       .on_end = on_end,
                                       .state_bytes = sizeof *init,
                                       .init = init,
                                       .init_bytes = sizeof *init,
                                       .mailbox_max = 65536,
                                       .trap_exit = true };
        err = lim_supervisor_add(bus->rt, bus->supervisor, &spec);
    }
    return err;
}

/* They come up by themselves, a moment later; on real threads an open bus is one that can be asked. */
lim_err lim__system_await(lim_bus *bus)
{
    static const char request[] = "{\"op\":\"ls\"}";
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 10000, .wait = true };
    lim_err err = LIM_OK;
    for (size_t i = 0; err == LIM_OK && i < LIM_COUNT(services); i++) {
        lim_outcome o = { 0 };
        err = lim_ask(bus, services[i].group, lim__str(request), &opts, &o);
        lim_outcome_fini(&o);
    }
    return err;
}

void *lim__system_new(void)
{
    return calloc(LIM_COUNT(services), sizeof(system_state));
}
