/* SPDX-License-Identifier: Apache-2.0
 * schedule_show.c - schedules as JSON: lines of a list, and all there is to know of one. */
#include "bus/schedule_inside.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { UPCOMING = 5, LS_MOST = 1000 };
#define MS UINT64_C(1000000)

static void instant(lim__json *j, const char *key, uint64_t wall_ns, const lim__zone *z)
{
    char text[LIM__INSTANT_TEXT];
    lim__instant_text(wall_ns, z, text);
    lim__json_str(j, key, text);
}

static const char *state_text(lim__schedule_state state)
{
    return state == LIM__SCHEDULE_ACTIVE ? "active" : state == LIM__SCHEDULE_PAUSED ? "paused" : "done";
}

static const char *verdict_text(const lim__fire *f)
{
    switch (f->admission.verdict) {
    case LIM_ACCEPT:
        return "accept";
    case LIM_DEFER:
        return "defer";
    case LIM_REJECT:
        return "reject";
    }
    return f->err != LIM_OK ? "reject" : NULL;
}

/* "every 1500 ms", "every 90 s", "every 2 h": in the largest unit that does it. */
static void every_text(uint64_t ns, char *out, size_t size)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {
        { "d", 86400000 * MS }, { "h", 3600000 * MS }, { "min", 60000 * MS }, { "s", 1000 * MS }, { "ms", MS }
    };
    size_t i = 0;
    while (ns % units[i].ns != 0 && i + 1 < LIM_COUNT(units))
        i++;
    snprintf(out, size, "every %" PRIu64 " %s", ns / units[i].ns, units[i].name);
}

static void rule_json(const lim__schedule *s, lim__json *j)
{
    char text[600], at[LIM__INSTANT_TEXT];
    lim__instant_text(s->start_ns, s->zone, at);
    if (s->kind == LIM__SCHEDULE_AT)
        snprintf(text, sizeof text, "at %s", at);
    else if (s->kind == LIM__SCHEDULE_EVERY)
        every_text(s->every_ns, text, sizeof text);
    else
        snprintf(text, sizeof text, "%s %.*s", s->kind == LIM__SCHEDULE_CRON ? "cron" : "rrule", (int)s->rule.len,
                 (const char *)s->rule.ptr);
    lim__json_str(j, "rule", text);
}

void lim__schedule_fire_json(const lim__schedule *s, const lim__fire *f, lim__json *j, const char *key)
{
    const char *verdict = verdict_text(f);
    lim__json_open(j, key, '{');
    instant(j, "at", f->at_ns, s->zone);
    instant(j, "fired_at", f->fired_ns, s->zone);
    lim__json_u64(j, "late_ms", f->fired_ns > f->at_ns ? (f->fired_ns - f->at_ns) / MS : 0);
    if (verdict != NULL)
        lim__json_str(j, "verdict", verdict);
    if (f->err != LIM_OK)
        lim__json_str(j, "why", lim_err_text(f->err));
    else if (f->admission.why != LIM_WHY_NONE)
        lim__json_str(j, "why", lim_why_text(f->admission.why));
    if (f->task.id != 0)
        lim__json_id(j, "task", f->task.id);
    if (f->how != LIM_HOW_NONE)
        lim__json_str(j, "how", lim_how_text(f->how));
    lim__json_bool(j, "manual", f->manual);
    lim__json_close(j);
}

static void details_json(const lim__schedule *s, lim__json *j)
{
    static const char *const catch_up[] = { "", "one", "skip", "all" };
    uint64_t at = s->due_ns;
    instant(j, "start", s->start_ns, s->zone);
    lim__json_str(j, "catch_up", catch_up[s->catch_up]);
    lim__json_u64(j, "catch_up_max", s->catch_up_max);
    lim__json_u64(j, "grace_ms", s->grace_ns / MS);
    lim__json_str(j, "overlap", s->skip_overlap ? "skip" : "allow");
    if (s->payload != NULL)
        lim__json_u64(j, "bytes", lim__msg_bytes(s->payload).len);
    if (s->options != NULL)
        lim__json_raw(j, "options", lim__str(s->options));
    if (s->timeout_ns != 0)
        lim__json_u64(j, "timeout_ms", s->timeout_ns / MS);
    lim__json_open(j, "upcoming", '[');
    for (int i = 0; i < UPCOMING && s->state == LIM__SCHEDULE_ACTIVE && at != UINT64_MAX; i++) {
        instant(j, NULL, at, s->zone);
        at = lim__schedule_next(s, at);
    }
    lim__json_close(j);
    lim__json_u64(j, "rejected", s->rejected);
    lim__json_u64(j, "overlapped", s->overlapped);
    lim__json_u64(j, "missed", s->missed);
    lim__json_bool(j, "running", s->last.monitor != 0);
    lim__json_str(j, "durability", lim_class_text(s->durability));
    if (s->last.fired_ns != 0)
        lim__schedule_fire_json(s, &s->last, j, "last");
}

void lim__schedule_line_json(const lim__schedule *s, lim__json *j, const char *key, bool details)
{
    lim__json_open(j, key, '{');
    lim__json_bytes(j, "name", s->name);
    lim__json_str(j, "state", state_text(s->state));
    lim__json_str(j, "to", s->to_queue ? "queue" : "channel");
    lim__json_bytes(j, "target", s->target);
    lim__json_bytes(j, "type", s->type);
    rule_json(s, j);
    lim__json_bytes(j, "zone", lim__zone_name(s->zone));
    if (s->state == LIM__SCHEDULE_ACTIVE)
        instant(j, "next", s->due_ns, s->zone);
    lim__json_u64(j, "fires", s->fires);
    if (verdict_text(&s->last) != NULL)
        lim__json_str(j, "last_verdict", verdict_text(&s->last));
    if (details)
        details_json(s, j);
    lim__json_close(j);
}

/* ---- the list, by name ---- */

static int compare(lim_bytes a, lim_bytes b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common > 0 ? memcmp(a.ptr, b.ptr, common) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_name(const void *a, const void *b)
{
    return compare((*(lim__schedule *const *)a)->name, (*(lim__schedule *const *)b)->name);
}

static void list(lim__system *sys, lim__schedule **all, size_t count, size_t max)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    qsort(all, count, sizeof(lim__schedule *), by_name);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "schedules", '[');
    for (size_t i = 0; i < count && i < max; i++)
        lim__schedule_line_json(all[i], &j, NULL, false);
    lim__json_close(&j);
    lim__json_bool(&j, "more", count > max);
    lim__json_close(&j);
    lim__sys_answer(sys, &b);
}

void lim__sys_schedule_ls(lim__system *sys)
{
    const lim__schedules *book = sys->bus->schedules;
    lim_bytes after = lim__val_bytes(sys->root, "after", lim__bytes("", 0));
    size_t count = 0, pos = 0;
    uint64_t id, max = lim__val_u64(sys->root, "max", LS_MOST);
    void *value;
    if (max < 1 || max > LS_MOST) {
        lim__sys_refuse(sys, LIM_E_INVALID, "\"max\" is no number from 1 to %d", LS_MOST);
        return;
    }
    lim__schedule **all = calloc(book->by_name.count + 1, sizeof(lim__schedule *));
    if (all == NULL) {
        lim__sys_refuse(sys, LIM_E_NOMEM, "out of memory");
        return;
    }
    while (lim__map_next(&book->by_id, &pos, &id, &value))
        if (compare(((lim__schedule *)value)->name, after) > 0)
            all[count++] = value;
    list(sys, all, count, (size_t)max);
    free(all);
}
