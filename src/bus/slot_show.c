/* SPDX-License-Identifier: Apache-2.0
 * slot_show.c - what people see of a slot: its versions with their numbers, its trial, its history, its log. */
#include "base/base.h"
#include "bus/letters.h"
#include "bus/slot.h"
#include <stdio.h>

enum { PAGE_BYTES = 512 << 10 };

static const char *state_of(const lim__slot *s, const lim__version *v)
{
    if (v == s->live)
        return "active";
    if (v == s->trial)
        return v->shadow ? "shadow" : "ramp";
    return v->router != NULL && lim__router_pending(v->router) > 0 ? "draining" : "retired";
}

static const char *on_fault_text(lim_on_fault on_fault)
{
    static const char *const words[] = { "reject", "reject", "previous", "least_loaded" };
    return words[on_fault < LIM_COUNT(words) ? on_fault : 0];
}

static void terms_json(const lim__slot_terms *t, lim__json *j)
{
    lim__json_str(j, "on_fault", on_fault_text(t->on_fault));
    lim__json_u64(j, "cpu_us", t->limits.cpu_ns / 1000);
    lim__json_u64(j, "wall_ms", t->limits.wall_ns / 1000000);
    lim__json_u64(j, "memory_bytes", t->limits.memory_max);
    lim__json_u64(j, "log_bytes", t->limits.log_bytes_per_s);
    lim__json_u64(j, "unfinished", t->limits.unfinished_max);
    lim__json_u64(j, "breaker_faults", t->break_faults == LIM_UNLIMITED ? 0 : t->break_faults);
    lim__json_u64(j, "breaker_ms", t->break_ms);
    lim__json_u64(j, "keep", t->keep);
}

static void times_json(const lim__hist *h, lim__json *j)
{
    lim__json_u64(j, "samples", h->count);
    lim__json_u64(j, "p50_ns", lim__hist_percentile(h, 50));
    lim__json_u64(j, "p90_ns", lim__hist_percentile(h, 90));
    lim__json_u64(j, "p99_ns", lim__hist_percentile(h, 99));
    lim__json_u64(j, "max_ns", h->count > 0 ? h->max : 0);
}

static uint64_t age_ms(const lim__slot *s, uint64_t wall_ns)
{
    uint64_t now = s->o.bus->os->wall_ns(s->o.bus->os);
    return now > wall_ns ? (now - wall_ns) / 1000000 : 0;
}

static void version_json(const lim__slot *s, const lim__version *v, lim__json *j)
{
    char hex[LIM__HASH_TEXT];
    lim__router_stats t;
    lim__slot_tally(v, &t);
    lim__hash_text(v->artifact->hash, hex);
    lim__json_open(j, NULL, '{');
    lim__json_str(j, "id", v->id);
    lim__json_str(j, "hash", hex);
    lim__json_str(j, "name", v->artifact->name);
    lim__json_str(j, "engine", lim__engine_text(v->artifact->engine));
    lim__json_str(j, "state", state_of(s, v));
    lim__json_bool(j, "tripped", v->tripped);
    lim__json_u64(j, "in_flight", t.unfinished);
    lim__json_u64(j, "calls", t.calls);
    lim__json_u64(j, "decided", t.decided);
    lim__json_u64(j, "none", t.none);
    lim__json_u64(j, "faults", lim__slot_faults(&t));
    lim__json_u64(j, "crashed", t.crashed);
    lim__json_u64(j, "timed_out", t.timed_out);
    lim__json_u64(j, "not_started", t.not_started);
    times_json(&t.time_ns, j);
    lim__json_u64(j, "memory_used", t.memory_bytes);
    lim__json_u64(j, "overruns", t.overruns);
    lim__json_u64(j, "log_dropped", t.log_dropped);
    lim__json_u64(j, "deployed_wall_us", v->deployed_wall_ns / 1000);
    lim__json_u64(j, "age_ms", age_ms(s, v->deployed_wall_ns));
    lim__json_str(j, "by", v->terms.by);
    terms_json(&v->terms, j);
    lim__json_close(j);
}

void lim__slot_versions_json(const lim__slot *s, const char *key, lim__json *j)
{
    lim__json_open(j, key, '[');
    if (s->trial != NULL)
        version_json(s, s->trial, j);
    LIM__LIST_EACH(node, &s->versions)
        version_json(s, LIM_CONTAINER(node, lim__version, node), j);
    lim__json_close(j);
}

static void diffs_json(const lim__slot *s, lim__json *j)
{
    uint64_t from = s->diff_count > LIM__SLOT_DIFFS ? s->diff_count - LIM__SLOT_DIFFS : 0;
    lim__json_open(j, "differences", '[');
    for (uint64_t i = from; i < s->diff_count; i++) {
        const lim__slot_diff *d = &s->diffs[i % LIM__SLOT_DIFFS];
        lim__json_open(j, NULL, '{');
        lim__json_u64(j, "wall_us", d->wall_ns / 1000);
        lim__json_str(j, "live", d->live);
        lim__json_str(j, "shadow", d->shadow);
        lim__json_str(j, "message", d->about);
        lim__json_close(j);
    }
    lim__json_close(j);
}

static void trial_json(const lim__slot *s, lim__json *j)
{
    const lim__slot_terms *t = &s->trial->terms;
    lim__json_open(j, "trial", '{');
    lim__json_str(j, "id", s->trial->id);
    lim__json_str(j, "kind", s->trial->shadow ? "shadow" : "ramp");
    lim__json_u64(j, "since_wall_us", s->trial_wall_ns / 1000);
    if (!s->trial->shadow) {
        lim__json_f64(j, "percent", t->ramp / 100.0);
        lim__json_str(j, "key", t->ramp_key[0] != '\0' ? t->ramp_key : NULL);
        lim__json_str(j, "where", t->ramp_where[0] != '\0' ? t->ramp_where : NULL);
    } else {
        lim__json_u64(j, "agreed", s->agreed);
        lim__json_u64(j, "differed", s->differed);
        lim__json_u64(j, "live_faults", s->live_faults);
        lim__json_u64(j, "shadow_faults", s->shadow_faults);
        lim__json_u64(j, "skipped", s->skipped);
        diffs_json(s, j);
    }
    lim__json_close(j);
}

void lim__slot_line_json(lim__slot *s, lim__json *j)
{
    lim__router_stats t;
    lim__slot_tally(s->live, &t);
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", s->o.name);
    lim__json_str(j, "kind", s->o.kind);
    lim__json_str(j, "live", s->live->id);
    lim__json_str(j, "file", s->live->artifact->name);
    lim__json_str(j, "engine", lim__engine_text(s->live->artifact->engine));
    lim__json_str(j, "trial", s->trial == NULL ? "" : s->trial->shadow ? "shadow" : "ramp");
    lim__json_u64(j, "calls", t.calls);
    lim__json_u64(j, "faults", lim__slot_faults(&t));
    lim__json_u64(j, "p99_ns", lim__hist_percentile(&t.time_ns, 99));
    lim__json_u64(j, "deployed_wall_us", s->live->deployed_wall_ns / 1000);
    lim__json_u64(j, "age_ms", age_ms(s, s->live->deployed_wall_ns));
    lim__json_str(j, "by", s->live->terms.by);
    lim__json_close(j);
}

void lim__slot_json(lim__slot *s, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", s->o.name);
    lim__json_str(j, "kind", s->o.kind);
    lim__json_str(j, "live", s->live->id);
    lim__json_str(j, "last_fault", s->last_fault);
    lim__json_u64(j, "counter", s->counter);
    lim__json_u64(j, "logged", s->next_line);
    if (s->trial != NULL)
        trial_json(s, j);
    lim__slot_versions_json(s, "versions", j);
    lim__json_close(j);
}

void lim__slot_history_json(const lim__slot *s, uint64_t after, uint32_t max, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", s->o.name);
    lim__json_u64(j, "entries", s->next_entry);
    lim__json_open(j, "history", '[');
    LIM__LIST_EACH(node, &s->history) {
        const lim__slot_entry *e = LIM_CONTAINER(node, lim__slot_entry, node);
        if (e->n <= after || max == 0)
            continue;
        max--;
        lim__json_open(j, NULL, '{');
        lim__json_u64(j, "n", e->n);
        lim__json_u64(j, "wall_us", e->wall_ns / 1000);
        lim__json_u64(j, "age_ms", age_ms(s, e->wall_ns));
        lim__json_str(j, "kind", e->kind);
        lim__json_str(j, "version", e->version);
        lim__json_str(j, "previous", e->previous);
        lim__json_str(j, "by", e->by);
        lim__json_str(j, "detail", e->detail);
        lim__json_close(j);
    }
    lim__json_close(j);
    lim__json_close(j);
}

void lim__slot_lines_json(const lim__slot *s, uint64_t after, uint32_t max, lim__json *j)
{
    lim__json_open(j, NULL, '{');
    lim__json_bytes(j, "name", s->o.name);
    lim__json_u64(j, "lines", s->next_line);
    lim__json_open(j, "log", '[');
    LIM__LIST_EACH(node, &s->lines) {
        const lim__slot_line *l = LIM_CONTAINER(node, lim__slot_line, node);
        if (l->n <= after || max == 0 || lim__buf_len(j->buf) > PAGE_BYTES)
            continue;
        max--;
        lim__json_open(j, NULL, '{');
        lim__json_u64(j, "n", l->n);
        lim__json_u64(j, "wall_us", l->wall_ns / 1000);
        lim__json_str(j, "version", l->version);
        lim__json_bytes(j, "line", lim__bytes(l->text, l->len));
        lim__json_close(j);
    }
    lim__json_close(j);
    lim__json_close(j);
}

void lim__slot_answer(lim_process *self, const lim__slot *s, lim_pid to, const lim__deployed *what,
                      const lim_hash *previous)
{
    lim__deployed *r = to.id == 0 ? NULL : lim__letter_new(lim__proc_sched(self), &lim__type_deployed, sizeof *r);
    if (r == NULL)
        return;
    *r = *what;
    if (previous != NULL) {
        r->had_previous = true;
        r->previous = *previous;
    }
    snprintf(r->version, sizeof r->version, "%s", s->live->id);
    (void)!lim__send_reserved(self, to, r);
}
