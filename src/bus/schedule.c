/* SPDX-License-Identifier: Apache-2.0
 * schedule.c - the process behind $sys.schedules: its ops, and firing what is due.
 *
 *      wake (timer, request, ...) --> look at both clocks --> what is due: fire, catch up, pass over --> one timer
 *
 * A fire on a queue opens a task conversation, owned by this process; its verdict comes as an `admitted` letter, its
 * end is seen by a monitor, and how it ended is looked up among the ended ones. A fire on a channel is a publish.
 *
 * The book belongs to the bus, and to whichever process runs: one that was started again takes over the monitors of the
 * one before. A wake deals with at most a hundred fires, so that the scheduler has time for others between them. */
#include "bus/log.h"
#include "bus/schedule_inside.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND UINT64_C(1000000000)
enum { TAG_DUE = 'S', FIRES_PER_WAKE = 100 };
enum { REF_BITS = 24, REF_MASK = (1 << REF_BITS) - 1 }; /* a fire is known by its schedule's id and a number */

static bool closing(lim_bus *bus)
{
    return atomic_load_explicit(&bus->closing, memory_order_relaxed) != 0;
}

/* ---- rows ---- */

static void apply(lim__schedules *book, const lim__schedule_change *c)
{
    lim_diag diag;
    lim__schedule_touch(book, lim__schedule_named(book, c->name));
    lim_err err = lim__schedules_apply(book, c, &diag);
    LIM_ASSERT(err == LIM_OK); /* of a schedule that is there: nothing to refuse */
    LIM_CHECK((lim__schedules_check(book), true));
}

/* ---- one fire ---- */

static lim__msg *payload_of(const lim__schedule *s, uint64_t at_ns, uint64_t number)
{
    char at[LIM__INSTANT_TEXT];
    lim__buf b = { 0 };
    if (s->payload != NULL)
        return lim__msg_ref(s->payload);
    lim__instant_text(at_ns, s->zone, at);
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_bytes(&j, "schedule", s->name);
    lim__json_str(&j, "at", at);
    lim__json_u64(&j, "fire", number);
    lim__json_close(&j);
    lim__msg *msg = b.failed ? NULL : lim__msg_new(lim__buf_bytes(&b));
    lim__buf_fini(&b);
    return msg;
}

static lim_err publish(lim__system *sys, const lim__schedule *s, lim__msg *payload, lim_admission *out)
{
    lim__channel *ch = lim__channel_find(sys->bus->channels, s->target);
    lim_err err =
        lim__publish(sys->bus->channels, sys->self, ch, lim__msg_bytes(payload), lim__bytes(NULL, 0), false, out);
    if (ch != NULL)
        lim__channel_unref(ch);
    return err;
}

/* Only the last task is watched: by it the overlap is judged. */
static void unwatch(lim__system *sys, lim__schedule *s)
{
    if (s->last.monitor == 0)
        return;
    lim_demonitor(sys->self, s->last.monitor);
    lim__map_remove(&sys->bus->schedules->by_task, s->last.task.id);
    s->last.monitor = 0;
}

static lim_err watch(lim__system *sys, lim__schedule *s, lim__fire *f)
{
    lim__map *tasks = &sys->bus->schedules->by_task;
    lim_err err = lim__map_put(tasks, f->task.id, s);
    if (err == LIM_OK && (err = lim_monitor(sys->self, f->task, &f->monitor)) != LIM_OK)
        lim__map_remove(tasks, f->task.id);
    return err;
}

static lim__open *task_letter(lim__system *sys, const lim__schedule *s, lim__msg *payload, const lim__fire *f)
{
    lim__open *open =
        lim__open_new(lim__proc_sched(sys->self), LIM__KIND_TASK, s->target, s->type, lim__msg_ref(payload));
    if (open == NULL) {
        lim__msg_unref(payload);
        return NULL;
    }
    uint64_t now = lim_now_ns(sys->self);
    open->owner = lim_self(sys->self);
    open->ref = f->ref;
    open->opened_ns = now;
    open->deadline_ns = s->timeout_ns == 0 ? UINT64_MAX : now + s->timeout_ns;
    open->terms = lim__terms_ref(s->terms);
    lim__open_set_mark(open, f->mark);
    return open;
}

static lim_err dispatch(lim__system *sys, lim__schedule *s, lim__msg *payload, lim__fire *f)
{
    lim__open *open = task_letter(sys, s, payload, f);
    if (open == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__conv_spawn(sys->bus, sys->self, open, &f->task);
    if (err == LIM_OK)
        (void)!watch(sys, s, f); /* no memory: it runs, unwatched, and nothing overlaps with what nobody sees */
    return err;
}

static void count_rejected(lim__system *sys, lim__schedule *s)
{
    char at[LIM__INSTANT_TEXT];
    if (s->last.err == LIM_OK && s->last.admission.verdict != LIM_REJECT)
        return;
    const char *why = s->last.err != LIM_OK ? lim_err_text(s->last.err) : lim_why_text(s->last.admission.why);
    lim__instant_text(s->last.at_ns, s->zone, at);
    s->rejected++;
    LIM__EVENT(sys->bus, sys->self, "schedule.rejected", { "schedule", s->name }, { "at", lim__str(at) },
               { "why", lim__str(why) });
}

static void fire(lim__system *sys, const lim__schedule_effect *e)
{
    lim__schedule *s = e->s;
    lim__fire f = { .at_ns = e->at_ns,
                    .fired_ns = sys->bus->schedules->wall_ns,
                    .ref = s->id << REF_BITS | ((s->last.ref + 1) & REF_MASK),
                    .manual = e->manual };
    s->planned = false;
    unwatch(sys, s);
    if (e->pending != NULL) {
        e->pending->ref = f.ref;
        f.mark = e->pending->mark;
    }
    if (e->log != NULL) {
        f.err = e->logged;
        f.admission.verdict = f.err == LIM_OK ? LIM_ACCEPT : 0;
    } else {
        f.err = s->to_queue ? dispatch(sys, s, e->payload, &f) : publish(sys, s, e->payload, &f.admission);
    }
    s->last = f;
    if (f.err != LIM_OK)
        lim__schedule_settled(sys->bus->schedules, s, f.ref, true);
    if (!s->to_queue || f.err != LIM_OK)
        count_rejected(sys, s);
}

/* ---- what is due ---- */

static void pass_over(lim__system *sys, const lim__schedule *s, uint64_t at_ns, uint32_t missed, uint32_t overlapped)
{
    apply(sys->bus->schedules, &(lim__schedule_change){ .kind = LIM__SCHEDULE_FIRED,
                                                        .name = s->name,
                                                        .wall_ns = sys->bus->schedules->wall_ns,
                                                        .at_ns = at_ns,
                                                        .missed = missed,
                                                        .overlapped = overlapped,
                                                        .nothing = true });
}

static void no_memory(lim__system *sys, lim__schedule *s, uint64_t at_ns)
{
    unwatch(sys, s);
    s->last = (lim__fire){ .at_ns = at_ns, .fired_ns = sys->bus->schedules->wall_ns, .err = LIM_E_NOMEM };
    count_rejected(sys, s);
}

/* What a fire needs; false: no memory for it. */
static bool prepare(lim__system *sys, lim__schedule *s, lim__schedule_effect *e)
{
    lim__schedules *book = sys->bus->schedules;
    e->payload = payload_of(s, e->at_ns, e->number);
    if (e->payload == NULL || !book->kept)
        return e->payload != NULL;
    if (s->to_queue)
        return (e->pending = lim__schedule_pend(sys, s, e)) != NULL;
    lim__channel *ch = lim__channel_find(sys->bus->channels, s->target);
    if (ch == NULL)
        return true;
    e->log = lim__log_ref(lim__channel_log(ch));
    lim__channel_unref(ch);
    book->planned_bytes += e->log != NULL ? lim__msg_bytes(e->payload).len : 0;
    return true;
}

/* With a store: its row first, then the fire. What it puts into a durable channel is in one batch with the row; a
 * task's first commit has the mark of the fire. So neither is lost, or there twice. */
static void plan_fire(lim__system *sys, lim__schedule *s, const lim__schedule_change *c, uint64_t at_ns,
                      lim__asker asker)
{
    lim__schedule_effect *e = lim__schedule_effect_new(sys, LIM__ACT_FIRE, s);
    uint64_t number = s->fires + 1;
    apply(sys->bus->schedules, c);
    if (e != NULL) {
        e->at_ns = at_ns;
        e->number = number;
        e->manual = c->manual;
        e->asker = asker;
    }
    if (e == NULL || !prepare(sys, s, e)) {
        if (e != NULL)
            lim__schedule_effect_free(e);
        no_memory(sys, s, at_ns);
        return;
    }
    s->planned = true;
    lim__schedule_then(sys, e);
}

/* One that was to become a task, and did not. */
static void fire_again(lim__system *sys, lim__schedule *s, lim__pending_fire *p)
{
    lim__schedule_effect *e = lim__schedule_effect_new(sys, LIM__ACT_FIRE, s);
    if (e == NULL)
        return; /* it stands in the row, and is fired after the next start */
    e->at_ns = p->at_ns;
    e->number = p->number;
    e->manual = p->manual;
    e->payload = payload_of(s, p->at_ns, p->number);
    if (e->payload == NULL) {
        lim__schedule_effect_free(e);
        return;
    }
    e->pending = p;
    e->old = true;
    p->restored = false;
    s->planned = true;
    lim__schedule_touch(sys->bus->schedules, s);
    lim__schedule_then(sys, e);
}

void lim__schedules_fire_again(lim__system *sys)
{
    size_t pos = 0;
    uint64_t id;
    void *value;
    sys->bus->schedules->again = false;
    while (lim__map_next(&sys->bus->schedules->by_id, &pos, &id, &value))
        LIM__LIST_EACH(n, &((lim__schedule *)value)->pending)
            if (LIM_CONTAINER(n, lim__pending_fire, node)->restored)
                fire_again(sys, value, LIM_CONTAINER(n, lim__pending_fire, node));
}

/* `upto`: later than the instant when more were missed than were looked at. */
static void fire_due(lim__system *sys, lim__schedule *s, uint64_t at_ns, uint64_t upto, uint32_t missed)
{
    if (s->skip_overlap && (s->last.monitor != 0 || s->planned)) {
        pass_over(sys, s, upto, missed, 1);
        return;
    }
    lim__schedule_change c = { .kind = LIM__SCHEDULE_FIRED,
                               .name = s->name,
                               .wall_ns = sys->bus->schedules->wall_ns,
                               .at_ns = upto,
                               .missed = missed };
    plan_fire(sys, s, &c, at_ns, (lim__asker){ { 0 }, 0 });
}

typedef struct span {    /* instants from `due` to some end */
    uint64_t last, upto; /* the last that was looked at; all up to here are in it */
    uint32_t count;      /* at least */
} span;

static span span_until(const lim__schedule *s, uint64_t end)
{
    span all = { s->due_ns, s->due_ns, 1 };
    if (s->kind == LIM__SCHEDULE_EVERY) {
        uint64_t more = (end - s->due_ns) / s->every_ns;
        all.last = all.upto = s->due_ns + more * s->every_ns;
        all.count += more < UINT32_MAX ? (uint32_t)more : UINT32_MAX - 1;
        return all;
    }
    for (; all.count < LIM__SCHEDULE_STEPS_MAX; all.count++) {
        uint64_t next = lim__schedule_next(s, all.last);
        if (next > end)
            return all;
        all.last = all.upto = next;
    }
    all.upto = end;
    return all;
}

/* The earliest one: an instant of its is due, or several are. */
static void deal_with(lim__system *sys, lim__schedule *s)
{
    uint64_t now = sys->bus->schedules->wall_ns, late = now - s->due_ns;
    lim__schedule_touch(sys->bus->schedules, s);
    if (late <= s->grace_ns) {
        s->caught_up = 0;
        fire_due(sys, s, s->due_ns, s->due_ns, 0);
    } else if (s->catch_up == LIM__CATCH_ALL && s->caught_up < s->catch_up_max) {
        s->caught_up++;
        fire_due(sys, s, s->due_ns, s->due_ns, 0);
    } else if (s->catch_up == LIM__CATCH_ONE) { /* whatever is due counts as one, however late the last of it is */
        span all = span_until(s, now);
        fire_due(sys, s, all.last, all.upto, all.count - 1);
    } else {
        span all = span_until(s, now - s->grace_ns - 1);
        pass_over(sys, s, all.upto, all.count, 0);
    }
}

/* ---- whose it is ---- */

/* The book as another process left it, which is gone: so are its timer and its monitors, and those who asked it. */
static void own(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    size_t pos = 0;
    uint64_t id;
    void *value;
    if (book->owner.id == lim_self(sys->self).id)
        return;
    book->owner = lim_self(sys->self);
    book->timer = 0;
    for (lim__list *n; (n = lim__list_pop(&book->askers)) != NULL;)
        free(LIM_CONTAINER(n, lim__fire_asker, node));
    while (lim__map_next(&book->by_id, &pos, &id, &value)) {
        lim__schedule *s = value;
        if (s->last.monitor != 0 && lim_monitor(sys->self, s->last.task, &s->last.monitor) != LIM_OK)
            lim_exit(sys->self, LIM_FAULT);
    }
    if (book->committing)
        lim__schedules_doubt(sys);
}

void lim__schedules_before(lim__system *sys)
{
    own(sys);
    lim__schedules_take_rows(sys);
}

/* ---- clocks ---- */

static void look_at_clocks(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    lim__os *os = sys->bus->os;
    uint64_t wall = os->wall_ns(os), now = lim_now_ns(sys->self);
    uint64_t passed = book->now_ns != 0 && now > book->now_ns ? now - book->now_ns : 0;
    if (book->wall_ns != 0 && wall + SECOND < book->wall_ns + passed) /* not merely slewed */
        lim__schedules_rewind(book, wall, book->wall_ns + passed - wall > 3600 * SECOND);
    book->wall_ns = wall;
    book->now_ns = now;
}

static uint64_t wait_for(uint64_t wait)
{
    uint64_t most = wait / 8 > 60 * SECOND ? wait / 8 : 60 * SECOND;
    most = most > 3600 * SECOND ? 3600 * SECOND : most;
    return wait < most ? wait : most;
}

static void set_timer(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    if (book->timer != 0)
        lim_timer_cancel(sys->self, book->timer);
    book->timer = 0;
    if ((book->heap_count == 0 && !book->again) || closing(sys->bus))
        return;
    uint64_t due = book->again ? 0 : book->heap[0]->due_ns,
             wait = due > book->wall_ns ? wait_for(due - book->wall_ns) : 0;
    if (book->hold_ns > book->now_ns && wait < book->hold_ns - book->now_ns)
        wait = book->hold_ns - book->now_ns;
    if (lim_timer_start(sys->self, wait, TAG_DUE, &book->timer) != LIM_OK)
        lim_exit(sys->self, LIM_FAULT); /* whoever is started in its place sets it anew */
}

static void wake(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    if (sys->busy)
        return;
    look_at_clocks(sys);
    if (book->again && book->hold_ns <= book->now_ns && !closing(sys->bus))
        lim__schedules_fire_again(sys);
    for (int i = 0; i < FIRES_PER_WAKE && book->heap_count > 0 && !closing(sys->bus); i++) {
        if (book->heap[0]->due_ns > book->wall_ns || book->hold_ns > book->now_ns)
            break;
        if (book->heap[0]->leaving || book->planned_bytes >= LIM__SCHEDULE_WAKE_BYTES)
            break; /* it goes on when what there is now is stored */
        deal_with(sys, book->heap[0]);
    }
    lim__schedules_commit(sys);
    set_timer(sys);
}

/* ---- ops ---- */

void lim__schedule_answer(lim__system *sys, const lim__schedule *s, bool details)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__schedule_line_json(s, &j, "schedule", details);
    lim__json_close(&j);
    lim__sys_answer(sys, &b);
}

/* NULL: refused already. */
static lim__schedule *named(lim__system *sys)
{
    lim_bytes name;
    if (!lim__sys_name(sys, "name", &name))
        return NULL;
    lim__schedule *s = lim__schedule_named(sys->bus->schedules, name);
    if (s == NULL)
        lim__sys_refuse(sys, LIM_E_NOTFOUND, "there is no schedule %.*s; schedule ls shows what there is",
                        (int)name.len, (const char *)name.ptr);
    return s;
}

void lim__sys_schedule_add(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    lim_diag diag = { 0 };
    lim_bytes name;
    if (!lim__sys_name(sys, "name", &name))
        return;
    look_at_clocks(sys);
    lim__schedule_effect *e = lim__schedule_effect_new(sys, LIM__ACT_PUT, NULL);
    lim_err err = LIM_E_NOMEM;
    if (e != NULL) {
        lim__json j = lim__json_begin(&e->json);
        lim__json_val(&j, NULL, sys->root);
        e->asker = sys->asker;
        e->wall_ns = book->wall_ns;
        lim__schedule_change c = {
            .kind = LIM__SCHEDULE_PUT, .name = name, .json = lim__buf_bytes(&e->json), .wall_ns = e->wall_ns
        };
        err = e->json.failed ? LIM_E_NOMEM : lim__schedule_prepare(book, &c, &diag, &e->s);
    }
    if (err == LIM_OK) {
        lim__schedule *out = lim__schedule_gives_way(book, e->s);
        if (out != NULL)
            out->leaving = true;
        lim__schedule_then(sys, e);
        return;
    }
    if (e != NULL)
        lim__schedule_effect_free(e);
    lim__sys_refuse(sys, err, "%s", diag.text[0] != '\0' ? diag.text : lim_err_text(err));
}

void lim__sys_schedule_show(lim__system *sys)
{
    lim__schedule *s = named(sys);
    if (s != NULL)
        lim__schedule_answer(sys, s, true);
}

static void answer_fire(lim__system *sys, const lim__schedule *s, lim__asker asker)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    sys->asker = asker;
    lim__json_open(&j, NULL, '{');
    lim__schedule_fire_json(s, &s->last, &j, "fire");
    lim__json_close(&j);
    lim__sys_answer(sys, &b);
}

/* Whoever waits for the verdict of a fire: it is known, or (s NULL) will not be. */
static void answer_askers(lim__system *sys, uint64_t ref, const lim__schedule *s)
{
    LIM__LIST_EACH_SAFE(n, next, &sys->bus->schedules->askers) {
        lim__fire_asker *a = LIM_CONTAINER(n, lim__fire_asker, node);
        if (a->ref != ref)
            continue;
        lim__list_remove(n);
        sys->asker = a->asker;
        if (s != NULL)
            answer_fire(sys, s, a->asker);
        else
            lim__sys_refuse(sys, LIM_E_GONE,
                            "it was fired; but the schedule was removed or fired again before the queue "
                            "had answered");
        free(a);
    }
}

static void removed(lim__system *sys, lim__schedule *s)
{
    lim__schedule_change c = { .kind = LIM__SCHEDULE_RM, .name = s->name, .wall_ns = sys->bus->schedules->wall_ns };
    lim__schedule_answer(sys, s, false);
    answer_askers(sys, s->last.ref, NULL);
    unwatch(sys, s);
    apply(sys->bus->schedules, &c);
}

static void change(lim__system *sys, lim__schedule_change_kind kind)
{
    lim__schedule *s = named(sys);
    if (s == NULL)
        return;
    look_at_clocks(sys);
    lim__schedule_effect *e =
        lim__schedule_effect_new(sys, kind == LIM__SCHEDULE_RM ? LIM__ACT_RM : LIM__ACT_ANSWER, s);
    if (e == NULL) {
        lim__sys_refuse(sys, LIM_E_NOMEM, "out of memory");
        return;
    }
    lim__schedule_change c = { .kind = kind, .name = s->name, .wall_ns = sys->bus->schedules->wall_ns };
    s->leaving = kind == LIM__SCHEDULE_RM;
    if (kind != LIM__SCHEDULE_RM)
        apply(sys->bus->schedules, &c);
    e->asker = sys->asker;
    lim__schedule_then(sys, e);
}

void lim__sys_schedule_pause(lim__system *sys)
{
    change(sys, LIM__SCHEDULE_PAUSE);
}

void lim__sys_schedule_resume(lim__system *sys)
{
    change(sys, LIM__SCHEDULE_RESUME);
}

void lim__sys_schedule_rm(lim__system *sys)
{
    change(sys, LIM__SCHEDULE_RM);
}

/* ---- fire, and its verdict ---- */

void lim__sys_schedule_fire(lim__system *sys)
{
    lim__schedules *book = sys->bus->schedules;
    lim__schedule *s = named(sys);
    if (s == NULL)
        return;
    if (closing(sys->bus)) {
        lim__sys_refuse(sys, LIM_E_CLOSED, "the bus is closing, and starts nothing new");
        return;
    }
    look_at_clocks(sys);
    answer_askers(sys, s->last.ref, NULL); /* of the one before, if its verdict is still under way */
    lim__schedule_change c = {
        .kind = LIM__SCHEDULE_FIRED, .name = s->name, .wall_ns = book->wall_ns, .at_ns = book->wall_ns, .manual = true
    };
    plan_fire(sys, s, &c, book->wall_ns, sys->asker);
}

/* Somebody asked for this fire: answered now, or with the verdict. */
static void fired_for(lim__system *sys, lim__schedule *s, lim__asker asker)
{
    lim__fire_asker *a = s->last.monitor != 0 ? calloc(1, sizeof *a) : NULL;
    if (a == NULL) {
        answer_fire(sys, s, asker);
        return;
    }
    a->asker = asker;
    a->ref = s->last.ref;
    lim__list_push(&sys->bus->schedules->askers, &a->node);
}

/* Takes the effect. */
void lim__schedule_act_out(lim__system *sys, lim__schedule_effect *e)
{
    sys->asker = e->asker;
    switch (e->act) {
    case LIM__ACT_ANSWER:
        lim__schedule_answer(sys, e->s, false);
        break;
    case LIM__ACT_PUT:
        lim__schedule_enter(sys->bus->schedules, e->s);
        lim__schedule_answer(sys, e->s, true);
        break;
    case LIM__ACT_RM:
        removed(sys, e->s);
        break;
    case LIM__ACT_FIRE:
        fire(sys, e);
        if (e->asker.conv.id != 0)
            fired_for(sys, e->s, e->asker);
        break;
    }
    e->s = NULL;
    lim__schedule_effect_free(e);
    LIM_CHECK((lim__schedules_check(sys->bus->schedules), true));
}

static void on_admitted(lim__system *sys, const lim__admitted *admitted)
{
    lim__schedule *s = lim__map_get(&sys->bus->schedules->by_id, admitted->ref >> REF_BITS);
    if (s != NULL)
        lim__schedule_settled(sys->bus->schedules, s, admitted->ref,
                              admitted->admission.verdict == LIM_REJECT || admitted->conv.id != s->last.task.id);
    if (s == NULL || s->last.ref != admitted->ref) {
        if (s != NULL)
            s->rejected += admitted->admission.verdict == LIM_REJECT;
        return;
    }
    s->last.admission = admitted->admission;
    if (admitted->conv.id != s->last.task.id) { /* another one stands for it: its unique key was there */
        unwatch(sys, s);
        s->last.task = admitted->conv;
        (void)!watch(sys, s, &s->last);
    }
    count_rejected(sys, s);
    answer_askers(sys, admitted->ref, s);
}

static void on_down(lim__system *sys, const lim_signal *signal)
{
    lim__schedule *s = lim__map_get(&sys->bus->schedules->by_task, signal->from.id);
    if (s == NULL || s->last.monitor != signal->ref)
        return;
    lim__map_remove(&sys->bus->schedules->by_task, signal->from.id);
    s->last.monitor = 0;
    lim__outcome_letter *o = lim__ended_outcome(sys->bus, lim__proc_sched(sys->self), signal->from, 0);
    s->last.how = o != NULL ? o->how : s->last.admission.verdict == LIM_REJECT ? LIM_HOW_REFUSED : LIM_HOW_NONE;
    lim__letter_free(lim__proc_sched(sys->self), o);
    answer_askers(sys, s->last.ref, s);
}

void lim__schedules_on_signal(lim__system *sys, const lim_signal *signal)
{
    lim__schedules *book = sys->bus->schedules;
    if (signal->type == &lim__type_stored)
        lim__schedules_stored(sys, signal->body.ptr);
    if (signal->kind == LIM_SIGNAL_TIMER && signal->ref == book->timer)
        book->timer = 0;
    if (signal->kind == LIM_SIGNAL_DOWN)
        on_down(sys, signal);
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &lim__type_admitted)
        on_admitted(sys, signal->body.ptr);
    wake(sys);
}
