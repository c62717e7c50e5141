/* SPDX-License-Identifier: Apache-2.0
 * system_route.c - $sys.routes: router slots. What is in them, what happened, what functions printed; deploying,
 * rolling back, ending trials. ($sys.groups knows deploy, too.) */
#include "bus/channel_slot.h"
#include "bus/loader.h"
#include "bus/system.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

/* ---- looking ---- */

void lim__sys_route_ls(lim__system *s)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "routes", lim__bytes(NULL, 0));
    if (g != NULL)
        lim__gather_groups(s, g, LIM__SHOW_ROUTE_LINE);
}

static bool is_channel(lim__system *s)
{
    return lim__sys_given(s, "channel") && !lim__sys_given(s, "group");
}

/* The group, or the channel with a slot, that the request names; false: refused already. */
static bool group_of(lim__system *s, lim_bytes *name, lim_pid *out)
{
    if (is_channel(s)) {
        if (!lim__sys_name(s, "channel", name))
            return false;
        *out = lim__chan_slot_find(s->bus, *name);
        if (out->id == 0)
            lim__sys_refuse(s, LIM_E_NOTFOUND, "no function is deployed in front of channel %.*s", TEXT(*name));
        return out->id != 0;
    }
    if (!lim__sys_name(s, "group", name))
        return false;
    *out = ((const char *)name->ptr)[0] == '$' ? (lim_pid){ 0 } : lim__group_find(s->bus, *name);
    if (out->id == 0)
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no group or queue %.*s", TEXT(*name));
    return out->id != 0;
}

static void show(lim__system *s, lim__show_what what)
{
    lim__show letter = { .what = what, .after = lim__val_u64(s->root, "after", 0) };
    lim_bytes name;
    lim_pid who;
    if (!group_of(s, &name, &who) || !lim__sys_max(s, &letter.max))
        return;
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, name);
    if (g == NULL)
        return;
    lim__gather_show(s, g, who, &letter, lim__bytes(NULL, 0));
    lim__gather_ready(s, g);
}

void lim__sys_route_show(lim__system *s)
{
    show(s, LIM__SHOW_ROUTE);
}

void lim__sys_route_history(lim__system *s)
{
    show(s, LIM__SHOW_ROUTE_HISTORY);
}

void lim__sys_route_logs(lim__system *s)
{
    show(s, LIM__SHOW_ROUTE_LOG);
}

/* ---- what a deployment may say ---- */

static bool choice_of(lim__system *s, const char *key, const char *const *words, uint32_t *out)
{
    lim_bytes text = lim__val_bytes(s->root, key, lim__bytes(NULL, 0));
    if (!lim__sys_given(s, key))
        return true;
    char all[80] = "";
    for (uint32_t i = 0; words[i] != NULL; i++) {
        size_t used = strlen(all);
        if (lim__bytes_eq(text, lim__str(words[i]))) {
            *out = i + 1;
            return true;
        }
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"%.*s\" is no %s; there are %s", TEXT(text), key, all);
    return false;
}

static bool number_of(lim__system *s, const char *key, uint32_t *out)
{
    uint64_t n = 0;
    if (!lim__sys_given(s, key))
        return true;
    if (lim__val_as_u64(lim__val_get(s->root, key), &n) && n < UINT32_MAX) {
        *out = (uint32_t)n;
        return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"%s\" is no number from 0 to 4294967294", key);
    return false;
}

/* "percent": 12.5, of a ramp. */
static bool share_of(lim__system *s, uint32_t *out)
{
    double percent = 0;
    if (!lim__sys_given(s, "percent"))
        return true;
    if (lim__val_as_f64(lim__val_get(s->root, "percent"), &percent) && percent >= 0.01 && percent <= 100) {
        *out = (uint32_t)(percent * 100 + 0.5);
        return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"percent\" is no number from 0.01 to 100");
    return false;
}

static bool text_of(lim__system *s, const char *key, char *to, size_t size)
{
    lim_bytes text = lim__val_bytes(s->root, key, lim__bytes("", 0));
    if (text.len < size && (text.len == 0 || memchr(text.ptr, 0, text.len) == NULL)) {
        snprintf(to, size, "%.*s", TEXT(text));
        return true;
    }
    lim__sys_refuse(s, LIM_E_INVALID, "\"%s\" has more than %zu bytes", key, size - 1);
    return false;
}

static bool terms_of(lim__system *s, lim__deploy *d)
{
    static const char *const faults[] = { "reject", "previous", "least_loaded", NULL };
    static const char *const trials[] = { "shadow", "ramp", NULL };
    static_assert(LIM_ON_FAULT_REJECT == 1 && LIM_ON_FAULT_PREVIOUS == 2 && LIM_ON_FAULT_LEAST_LOADED == 3,
                  "the words");
    static_assert(LIM_TRIAL_SHADOW == 1 && LIM_TRIAL_RAMP == 2, "the words");
    uint32_t on_fault = 0, trial = 0;
    lim_deploy_opts *o = &d->opts;
    *o = (lim_deploy_opts){ .size = sizeof *o };
    if (!number_of(s, "cpu_us", &o->cpu_us_max) || !number_of(s, "wall_ms", &o->wall_ms_max) ||
        !number_of(s, "memory_bytes", &o->memory_bytes_max) || !number_of(s, "log_bytes", &o->log_bytes_max) ||
        !number_of(s, "unfinished", &o->unfinished_max) || !number_of(s, "breaker_faults", &o->breaker_faults) ||
        !number_of(s, "breaker_ms", &o->breaker_ms) || !number_of(s, "keep", &o->keep) || !share_of(s, &o->ramp) ||
        !choice_of(s, "on_fault", faults, &on_fault) || !choice_of(s, "trial", trials, &trial) ||
        !text_of(s, "if_version", d->version, sizeof d->version) ||
        !text_of(s, "ramp_key", d->ramp_key, sizeof d->ramp_key) ||
        !text_of(s, "ramp_where", d->ramp_where, sizeof d->ramp_where))
        return false;
    if (lim__sys_given(s, "breaker_faults") && o->breaker_faults == 0)
        o->breaker_faults = LIM_UNLIMITED; /* said to be 0: never */
    o->on_fault = (lim_on_fault)on_fault;
    o->trial = (lim_trial)trial;
    o->ramp_key = d->ramp_key[0] != '\0' ? d->ramp_key : NULL;
    o->ramp_where = d->ramp_where[0] != '\0' ? d->ramp_where : NULL;
    return true;
}

/* ---- commands ---- */

/* The answer comes as `deployed` under the gather's ref. */
static void send(lim__system *s, lim_bytes group, lim_pid to, const lim__deploy *letter)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, group);
    lim__deploy *d = g == NULL ? NULL : lim__letter_new(lim__proc_sched(s->self), &lim__type_deploy, sizeof *d);
    if (d == NULL) {
        lim__artifact_unref(letter->artifact);
        if (g != NULL)
            lim__gather_ready(s, g);
        return;
    }
    g->channel = is_channel(s);
    *d = *letter;
    d->reply_to = lim_self(s->self);
    d->ref = g->ref;
    d->opts.by = d->by[0] != '\0' ? d->by : NULL;
    d->opts.ramp_key = d->ramp_key[0] != '\0' ? d->ramp_key : NULL;
    d->opts.ramp_where = d->ramp_where[0] != '\0' ? d->ramp_where : NULL;
    g->waiting = 1;
    if (lim__deploy_checked(s->bus, s->self, to, d) != LIM_OK) {
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
        lim__gather_refuse(s, g, d->err, &d->diag);
        return;
    }
    lim__json j = lim__json_begin(&g->body);
    lim__json_open(&j, NULL, '{');
    if (d->had_previous)
        lim__hash_text(d->previous.b, hex);
    lim__json_str(&j, g->channel ? "channel" : "group", g->what);
    lim__json_str(&j, "version", d->version);
    lim__json_str(&j, "previous", d->had_previous ? hex : NULL);
    lim__json_close(&j);
    g->got = 1;
    lim__gather_end(s, g);
}

void lim__sys_group_deploy(lim__system *s)
{
    lim__deploy d = { .what = LIM__DEPLOY };
    lim_bytes name;
    lim_pid to;
    bool channel = is_channel(s);
    if (!lim__sys_name(s, channel ? "channel" : "group", &name) || !terms_of(s, &d) ||
        !text_of(s, "by", d.by, sizeof d.by))
        return;
    lim_err err = channel                              ? lim__chan_slot_get(s->bus, s->self, name, &to)
                  : ((const char *)name.ptr)[0] == '$' ? LIM_E_NOTFOUND
                                                       : lim__group_get(s->bus, s->self, name, &to);
    if (err != LIM_OK && channel) {
        lim__sys_refuse(s, err,
                        err == LIM_E_INVALID ? "%.*s is no name for a channel's slot: one channel, none of the system's"
                                             : "channel %.*s: there are too many slots, or no memory",
                        TEXT(name));
        return;
    }
    if (err != LIM_OK) {
        lim__sys_refuse(s, err,
                        err == LIM_E_INVALID
                            ? "%.*s is no name for a group: use letters, digits, - and _, joined by dots"
                            : "there is no group %.*s",
                        TEXT(name));
        return;
    }
    if (lim__sys_artifact_of(s, &d.artifact))
        send(s, name, to, &d);
}

void lim__sys_group_rm(lim__system *s)
{
    const lim__deploy d = { .what = LIM__DEPLOY_REMOVE };
    lim_bytes name;
    if (!lim__sys_name(s, "name", &name))
        return;
    lim_pid to = ((const char *)name.ptr)[0] == '$' ? (lim_pid){ 0 } : lim__group_find(s->bus, name);
    if (to.id == 0)
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no group %.*s", TEXT(name));
    else
        send(s, name, to, &d);
}

/* rollback, promote, stop, rm */
void lim__sys_route_command(lim__system *s)
{
    lim_bytes op = lim__val_bytes(s->root, "op", lim__bytes("", 0)), name;
    lim__deploy d = { .what = lim__bytes_eq(op, lim__str("rollback"))  ? LIM__DEPLOY_ROLLBACK
                              : lim__bytes_eq(op, lim__str("promote")) ? LIM__DEPLOY_PROMOTE
                              : lim__bytes_eq(op, lim__str("rm"))      ? LIM__DEPLOY_REMOVE
                                                                       : LIM__DEPLOY_STOP };
    lim_pid to;
    if (group_of(s, &name, &to) && text_of(s, "by", d.by, sizeof d.by) &&
        text_of(s, "version", d.version, sizeof d.version))
        send(s, name, to, &d);
}
