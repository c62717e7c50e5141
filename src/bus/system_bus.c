/* SPDX-License-Identifier: Apache-2.0
 * system_bus.c - $sys.info, $sys.channels, $sys.artifacts and $sys.groups: the bus, its channels, its code. */
#include "bus/durable.h"
#include "bus/system.h"
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
    lim__json_str(&j, "node", s->bus->node);
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

/* ---- $sys.artifacts ---- */

bool lim__sys_artifact_of(lim__system *s, lim__artifact **out)
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

void lim__sys_artifact_show(lim__system *s)
{
    lim__artifact *a = NULL;
    if (!lim__sys_artifact_of(s, &a))
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
    if (!lim__sys_artifact_of(s, &a))
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
