/* SPDX-License-Identifier: Apache-2.0
 * system_bus.c - $sys.info, $sys.channels, $sys.artifacts and $sys.groups: the bus, its channels, and the code that
 * routes. */
#include "bus/durable.h"
#include "bus/system.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

/* ---- $sys.info ---- */

static void census_json(lim__system *s, lim__json *j)
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

void lim__sys_info(lim__system *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__os *os = s->bus->os;
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "version", lim_version());
    lim__json_str(&j, "durability", lim_class_text((lim_class)lim__durable_class(s->bus)));
    if (s->bus->durable != NULL)
        lim__json_str(&j, "data", s->bus->opts.data_dir);
    lim__json_u64(&j, "uptime_ms", (os->now_ns(os) - s->bus->opened_ns) / 1000000);
    lim__json_u64(&j, "schedulers", lim__sched_count(s->bus->rt));
    lim__json_u64(&j, "payload_bytes_max", s->bus->opts.payload_bytes_max);
    lim__json_u64(&j, "spin_us", s->bus->opts.spin_us);
    census_json(s, &j);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

/* ---- $sys.channels ---- */

void lim__sys_channel_ls(lim__system *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__buf_text(&b, "{\"channels\":");
    lim__channels_json(s->bus->channels, &j);
    lim__buf_text(&b, "}");
    lim__sys_answer(s, &b);
}

void lim__sys_channel_show(lim__system *s)
{
    lim_bytes name;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (!lim__sys_name(s, "name", &name))
        return;
    if (lim__channel_json(s->bus->channels, name, &j)) {
        lim__sys_answer(s, &b);
        return;
    }
    lim__buf_fini(&b);
    lim__sys_refuse(s, LIM_E_NOTFOUND, "nobody opened or subscribed to channel %.*s", TEXT(name));
}

/* The name of a channel that is not the system's. */
static bool own_name(lim__system *s, lim_bytes *name)
{
    if (!lim__sys_name(s, "name", name))
        return false;
    if (((const char *)name->ptr)[0] != '$')
        return true;
    lim__sys_refuse(s, LIM_E_INVALID, "names that begin with $ are the system's; choose another");
    return false;
}

static void changed(lim__system *s, lim_err err, lim_bytes name)
{
    lim__buf b = { 0 };
    if (err != LIM_OK) {
        lim__sys_refuse(s, err, "%s: %.*s", lim_err_text(err), TEXT(name));
        return;
    }
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_bytes(&j, "name", name);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

void lim__sys_channel_create(lim__system *s)
{
    lim_channel_opts opts = { .size = sizeof opts, .allow_hold = lim__val_bool(s->root, "allow_hold", false) };
    lim__channel *ch = NULL;
    lim_bytes name;
    if (!own_name(s, &name))
        return;
    lim_err err = lim__channel_open(s->bus->channels, name, &opts, &ch);
    if (err == LIM_OK)
        lim__channel_unref(ch);
    changed(s, err, name);
}

void lim__sys_channel_close(lim__system *s)
{
    lim_bytes name;
    if (own_name(s, &name))
        changed(s, lim__channel_close(s->bus->channels, name), name);
}

/* ---- $sys.artifacts ---- */

static bool artifact_of(lim__system *s, lim__artifact **out)
{
    lim_bytes hash;
    if (!lim__sys_name(s, "hash", &hash))
        return false;
    lim_err err = lim__artifacts_get(s->bus->artifacts, hash, out);
    if (err == LIM_OK)
        return true;
    lim__sys_refuse(s, err,
                    err == LIM_E_EXISTS ? "several artifacts begin with %.*s; give more digits"
                                        : "no artifact has the hash %.*s; load it first",
                    TEXT(hash));
    return false;
}

static void artifact_json(lim__system *s, const lim__artifact *a, lim__json *j)
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

void lim__sys_artifact_ls(lim__system *s)
{
    lim__artifact **all = calloc(LIM__SYS_LS_MAX, sizeof *all);
    size_t n = all != NULL ? lim__artifacts_list(s->bus->artifacts, all, LIM__SYS_LS_MAX) : 0;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "artifacts", '[');
    for (size_t i = 0; i < n && i < LIM__SYS_LS_MAX; i++) {
        artifact_json(s, all[i], &j);
        lim__artifact_unref(all[i]);
    }
    lim__json_close(&j);
    lim__json_close(&j);
    free(all);
    lim__sys_answer(s, &b);
}

void lim__sys_artifact_load(lim__system *s)
{
    lim_diag diag = { 0 };
    lim__artifact *a = NULL;
    bool fresh = false;
    lim_bytes code = lim__val_bytes(s->root, "code", lim__bytes(NULL, 0));
    lim_bytes engine = lim__val_bytes(s->root, "engine", lim__str("lua"));
    const char *name = lim__val_str(s->root, "name", "");
    lim__engine which = lim__bytes_eq(engine, lim__str("lua"))       ? LIM__ENGINE_LUA
                        : lim__bytes_eq(engine, lim__str("builtin")) ? LIM__ENGINE_BUILTIN
                                                                     : 0;
    if (which == 0 || code.len == 0) {
        lim__sys_refuse(s, LIM_E_INVALID, "load needs \"code\" and an \"engine\": lua or builtin");
        return;
    }
    lim_err err = lim__bus_load(s->bus, which, code, name, &diag, &fresh, &a);
    if (err != LIM_OK) {
        lim__sys_refuse_diag(s, err, &diag);
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
    lim__sys_answer(s, &b);
}

void lim__sys_artifact_show(lim__system *s)
{
    lim__artifact *a = NULL;
    if (!artifact_of(s, &a))
        return;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    artifact_json(s, a, &j);
    lim__artifact_unref(a);
    lim__sys_answer(s, &b);
}

/* Versions that use it keep it alive until they are retired; it is only no longer found. */
void lim__sys_artifact_rm(lim__system *s)
{
    lim__artifact *a = NULL;
    if (!artifact_of(s, &a))
        return;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__artifacts_forget(s->bus->artifacts, a);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "short", a->id);
    lim__json_close(&j);
    lim__artifact_unref(a);
    lim__sys_answer(s, &b);
}

/* ---- $sys.groups ---- */

void lim__sys_group_ls(lim__system *s)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "groups", lim__bytes(NULL, 0));
    if (g != NULL)
        lim__gather_groups(s, g, LIM__SHOW_LINE);
}

void lim__sys_group_show(lim__system *s)
{
    lim_bytes name;
    const lim__show show = { .max = 1, .what = LIM__SHOW_FULL };
    if (!lim__sys_name(s, "name", &name))
        return;
    lim_pid who = lim__group_find(s->bus, name);
    if (who.id == 0) {
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no group or queue %.*s", TEXT(name));
        return;
    }
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, name);
    if (g == NULL)
        return;
    lim__gather_show(s, g, who, &show, lim__bytes(NULL, 0));
    lim__gather_ready(s, g);
}

static bool on_fault_of(lim__system *s, lim_on_fault *out)
{
    static const char *const words[] = { "reject", "previous", "least_loaded" };
    lim_bytes text = lim__val_bytes(s->root, "on_fault", lim__str("reject"));
    for (size_t i = 0; i < LIM_COUNT(words); i++) {
        *out = (lim_on_fault)(i + 1);
        if (lim__bytes_eq(text, lim__str(words[i])))
            return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "%.*s is no \"on_fault\"; it is reject, previous or least_loaded", TEXT(text));
    return false;
}
static_assert(LIM_ON_FAULT_REJECT == 1 && LIM_ON_FAULT_PREVIOUS == 2 && LIM_ON_FAULT_LEAST_LOADED == 3, "as the words");

static lim_deploy_opts deploy_opts(lim__val root, lim_on_fault on_fault)
{
    return (lim_deploy_opts){ .size = sizeof(lim_deploy_opts),
                              .cpu_us_max = (uint32_t)lim__val_u64(root, "cpu_us", 0),
                              .wall_ms_max = (uint32_t)lim__val_u64(root, "wall_ms", 0),
                              .memory_bytes_max = (uint32_t)lim__val_u64(root, "memory_bytes", 0),
                              .unfinished_max = (uint32_t)lim__val_u64(root, "unfinished", 0),
                              .on_fault = on_fault };
}

/* The answer comes as `deployed` under the gather's ref. Takes the artifact. */
static void send_deploy(lim__system *s, lim_bytes group, lim__artifact *a, lim_on_fault on_fault, bool remove)
{
    lim_pid to = lim__group_find(s->bus, group);
    lim_err err = to.id == 0 && !remove ? lim__group_get(s->bus, s->self, group, &to) : LIM_OK;
    if (err != LIM_OK || to.id == 0 || ((const char *)group.ptr)[0] == '$') {
        lim__sys_refuse(s, err != LIM_OK ? err : LIM_E_NOTFOUND,
                        err == LIM_E_INVALID
                            ? "%.*s is no name for a group: use letters, digits, - and _, joined by dots"
                            : "there is no group %.*s",
                        TEXT(group));
        lim__artifact_unref(a);
        return;
    }
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, group);
    lim__deploy *d = g == NULL ? NULL : lim__letter_new(lim__proc_sched(s->self), &lim__type_deploy, sizeof *d);
    if (d == NULL) {
        lim__artifact_unref(a);
        return;
    }
    *d = (lim__deploy){ .reply_to = lim_self(s->self), .ref = g->ref, .artifact = a, .remove = remove };
    d->opts = deploy_opts(s->root, on_fault);
    g->waiting = 1;
    if (lim__send_reserved(s->self, to, d) != LIM_OK) {
        g->waiting = 0;
        lim__gather_ready(s, g);
    }
}

void lim__sys_deployed(lim__system *s, const lim__deployed *d)
{
    lim__gather *g = lim__gather_find(s, d->ref);
    char hex[LIM__HASH_TEXT] = "";
    if (g == NULL)
        return;
    g->waiting = 0;
    if (d->err != LIM_OK) {
        snprintf(g->code, sizeof g->code, "%s", lim_err_name(d->err));
        snprintf(g->why, sizeof g->why, "%s", d->diag.text[0] != '\0' ? d->diag.text : lim_err_text(d->err));
        lim__gather_end(s, g);
        return;
    }
    lim__json j = lim__json_begin(&g->body);
    lim__json_open(&j, NULL, '{');
    if (d->had_previous)
        lim__hash_text(d->previous.b, hex);
    lim__json_str(&j, "group", g->what);
    lim__json_str(&j, "previous", d->had_previous ? hex : NULL);
    lim__json_close(&j);
    g->got = 1;
    lim__gather_end(s, g);
}

void lim__sys_group_deploy(lim__system *s)
{
    lim_bytes name;
    lim__artifact *a = NULL;
    lim_on_fault on_fault;
    if (lim__sys_name(s, "group", &name) && on_fault_of(s, &on_fault) && artifact_of(s, &a))
        send_deploy(s, name, a, on_fault, false);
}

void lim__sys_group_rm(lim__system *s)
{
    lim_bytes name;
    if (lim__sys_name(s, "name", &name))
        send_deploy(s, name, NULL, LIM_ON_FAULT_REJECT, true);
}
