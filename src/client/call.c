/* SPDX-License-Identifier: Apache-2.0
 * call.c - what is in flight and will end by itself: asks, asks in conversations, awaits, and dispatched tasks.
 *
 * Each has a number (corr) that the server repeats. The server keeps the deadline: a client that has lost its server
 * ends them all `lost` (link.c sees to it that a silent server is lost), so there is no second clock here that could
 * call a request timed out that is being answered. Whether a lost one can have been handed over is known when not a
 * byte of it has left: then it is "no", else "unknown".
 *
 * A callback runs after its call was taken out of the table, so nothing it does can end the same call twice. A part of
 * an answer is told as it comes, while its call stays; parts that the program is done with are granted anew in batches
 * of a quarter of the window, or at once when nothing more can come otherwise.
 *
 * Invariants:
 *   K1  of a PARTED call with a window, held + owed are never more than the window: the server sends no more. */
#include "client/client.h"
#include "data/options.h"

#include <stdlib.h>

#ifdef LIM_HOSTILE
enum { FREE_MAX = 1, EXCLUDED_MAX = 1 };
#else
enum { FREE_MAX = 256, EXCLUDED_MAX = 32 };
#endif

/* ---- the table ---- */

static lim__call *take_memory(lim_client *c)
{
    lim__list *node = lim__list_pop(&c->call_free);
    if (!node)
        return malloc(sizeof(lim__call));
    c->call_free_count--;
    return LIM_CONTAINER(node, lim__call, node);
}

static void give_memory(lim_client *c, lim__call *call)
{
    if (c->call_free_count >= FREE_MAX) {
        free(call);
        return;
    }
    c->call_free_count++;
    lim__list_push_front(&c->call_free, &call->node);
}

lim__call *lim__client_call_new(lim_client *c, lim__call_state state, lim_on_outcome *on_outcome, void *ctx)
{
    lim__call *call = take_memory(c);
    if (!call)
        return NULL;
    *call = (lim__call){ .corr = c->next_corr++, .state = state, .on_outcome = on_outcome, .ctx = ctx };
    lim__list_init(&call->node);
    if (lim__map_put(&c->calls, call->corr, call) != LIM_OK) {
        give_memory(c, call);
        return NULL;
    }
    lim__list_push(&c->call_list, &call->node);
    call->at_ns = c->os->now_ns(c->os);
    call->offset = lim__link_offset(c);
    return call;
}

void lim__client_call_drop(lim_client *c, lim__call *call)
{
    lim__call *found = lim__map_remove(&c->calls, call->corr);
    LIM_ASSERT(found == call);
    lim__list_remove(&call->node);
    give_memory(c, call);
}

void lim__client_call_held(lim_client *c, uint64_t base)
{
    LIM__LIST_EACH(node, &c->call_list) {
        lim__call *call = LIM_CONTAINER(node, lim__call, node);
        if (call->offset & LIM__OFFSET_HELD)
            call->offset = (call->offset & ~LIM__OFFSET_HELD) + base;
    }
}

void lim__client_call_fini(lim_client *c)
{
    LIM_ASSERT(lim__list_empty(&c->call_list));
    for (lim__list *node; (node = lim__list_pop(&c->call_free)) != NULL;)
        free(LIM_CONTAINER(node, lim__call, node));
}

lim_err lim__client_may_call(lim_client *c)
{
    lim_err err = lim__link_may_put(c);
    return err == LIM_OK && c->calls.count >= LIM__CALLS_MAX ? LIM_E_FULL : err;
}

uint32_t lim__client_wire_timeout(int64_t timeout_ms)
{
    return timeout_ms == LIM_FOREVER         ? LIM__NO_TIMEOUT
           : timeout_ms > LIM_TIMEOUT_MS_MAX ? (uint32_t)LIM_TIMEOUT_MS_MAX /* inherited of a cause inside a bus */
                                             : (uint32_t)timeout_ms;
}

/* ---- endings ---- */

/* Takes the call out of the table and calls back. `call` is gone afterwards. */
static void finish(lim_client *c, lim__call *call, lim_outcome *outcome)
{
    lim_on_outcome *on_outcome = call->on_outcome;
    void *ctx = call->ctx;
    outcome->elapsed_ns = c->os->now_ns(c->os) - call->at_ns;
    lim__client_call_drop(c, call);
    if (!on_outcome)
        return;
    lim__client_unlock(c);
    on_outcome(ctx, outcome);
    lim__client_lock(c);
}

static lim_excluded excluded_of(const lim_client *c, const lim__lost_one *one)
{
    uint64_t now_us = c->os->wall_ns(c->os) / 1000;
    uint64_t at_us = one->ago_us == 0 ? 0 : now_us > one->ago_us ? now_us - one->ago_us : now_us;
    return (lim_excluded){ one->name, at_us, one->rerouted_us != 0 && at_us != 0 ? at_us + one->rerouted_us : 0 };
}

static lim_outcome outcome_of(lim_client *c, const lim__f_outcome *f)
{
    uint64_t wall_us = f->crashed_us ? c->os->wall_ns(c->os) / 1000 : 0; /* clocks differ: the wire says how long ago */
    return (lim_outcome){ .how = (lim_how)f->how,
                          .handed_over = (lim_handed)f->handed_over,
                          .why = (lim_why)f->why,
                          .reason = (lim_reason)f->reason,
                          .conv = { f->conversation },
                          .compensation = { f->compensation },
                          .payload = f->payload,
                          .detail = f->detail,
                          .participant = f->participant,
                          .attempts = f->attempts,
                          .losses = f->losses,
                          .limit = f->limit,
                          .current = f->current,
                          .retry_after_ms = f->retry_after_ms,
                          .router = f->router,
                          .crashed_wall_us = wall_us > f->crashed_us ? wall_us - f->crashed_us : wall_us,
                          .rerouted_ns = f->rerouted_us * 1000 };
}

bool lim__client_call_outcome(lim_client *c, const lim__frame *frame)
{
    lim__f_outcome f;
    if (!lim__get_outcome(frame, &f))
        return false;
    lim__call *call = lim__map_get(&c->calls, f.corr);
    if (!call)
        return f.corr < c->next_corr; /* an await that did not wait until now */
    if (call->state == LIM__CALL_OFFERED || call->state == LIM__CALL_SIGNAL || call->state == LIM__CALL_FIND)
        return false; /* of the first, DISPATCHED comes before */
    lim_excluded few[EXCLUDED_MAX], *excluded = few;
    if (f.excluded.count > EXCLUDED_MAX && (excluded = malloc(f.excluded.count * sizeof *excluded)) == NULL) {
        excluded = few;
        f.excluded.count = EXCLUDED_MAX;
    }
    lim_outcome outcome = outcome_of(c, &f);
    outcome.excluded = excluded;
    lim__lost_one one;
    while (lim__lost_next(&f.excluded, &one))
        excluded[outcome.excluded_count++] = excluded_of(c, &one);
    finish(c, call, &outcome);
    if (excluded != few)
        free(excluded);
    return true;
}

/* ---- parts of an answer ---- */

static lim_err grant(lim_client *c, lim__call *call)
{
    lim_err err = LIM__SAY(c, grant, .corr = call->corr, .parts = call->owed);
    if (err == LIM_OK)
        call->owed = 0;
    return err;
}

/* What on_part said of the one that was counted as held before: another thread may have granted it meanwhile. */
static void part_over(lim_client *c, lim__call *call, lim_done done)
{
    if (call->window == 0 || done == LIM_HOLD || call->held == 0)
        return;
    call->held--;
    call->owed++;
    if (call->owed < (call->window + 3) / 4 && call->held + call->owed < call->window)
        return;
    lim_err err = grant(c, call);
    if (err != LIM_OK)
        lim__wire_fault(&c->wire, err, "no memory to grant parts of an answer");
}

bool lim__client_call_partial(lim_client *c, const lim__frame *frame)
{
    lim__f_partial f;
    if (!lim__get_partial(frame, &f))
        return false;
    lim__call *call = lim__map_get(&c->calls, f.corr);
    if (!call || call->state != LIM__CALL_PARTED || (call->window > 0 && call->held + call->owed >= call->window))
        return false; /* K1 */
    call->held += call->window > 0;
    lim_part_view part = { .conv = { f.conversation },
                           .seq = f.seq,
                           .how = (lim_how)f.how,
                           .participant = f.participant,
                           .payload = f.payload,
                           .detail = f.detail };
    lim_on_part *on_part = call->on_part;
    void *ctx = call->ctx;
    lim__client_unlock(c);
    lim_done done = on_part(ctx, &part);
    lim__client_lock(c);
    call = lim__map_get(&c->calls, f.corr);
    if (call)
        part_over(c, call, done);
    return true;
}

lim_err lim_client_grant(lim_client *c, uint64_t corr, uint32_t parts)
{
    lim__client_lock(c);
    lim__call *call = lim__map_get(&c->calls, corr);
    lim_err err = !call || call->state != LIM__CALL_PARTED ? LIM_E_GONE
                  : parts == 0 || parts > call->held       ? LIM_E_INVALID
                                                           : LIM_OK;
    if (err == LIM_OK) {
        call->held -= parts;
        call->owed += parts;
        err = grant(c, call);
    }
    lim__client_unlock_now(c);
    return err;
}

/* A dispatch was answered: the call stays if its task's outcome is wanted. Without on_dispatched a refusal is told as
 * the outcome, so that somebody is. */
static void dispatched(lim_client *c, lim__call *call, lim_err err, const lim_admission *admission, lim_conv task,
                       lim_outcome *otherwise)
{
    lim_on_dispatched *on_dispatched = call->on_dispatched;
    void *ctx = call->ctx;
    bool goes_on = admission && admission->verdict != LIM_REJECT && call->on_outcome;
    if (goes_on) {
        call->state = LIM__CALL_TASK;
        call->task = task;
    } else if (!on_dispatched) {
        finish(c, call, otherwise);
        return;
    } else {
        lim__client_call_drop(c, call);
    }
    if (!on_dispatched)
        return;
    lim__client_unlock(c);
    on_dispatched(ctx, err, admission, task);
    lim__client_lock(c);
}

bool lim__client_call_dispatched(lim_client *c, const lim__frame *frame)
{
    lim__f_dispatched f;
    if (!lim__get_dispatched(frame, &f))
        return false;
    lim__call *call = lim__map_get(&c->calls, f.corr);
    if (!call || call->state != LIM__CALL_OFFERED)
        return false;
    lim_admission admission = { .verdict = (lim_verdict)f.verdict,
                                .why = (lim_why)f.why,
                                .limit = f.limit,
                                .current = f.current,
                                .retry_after_ms = f.retry_after_ms };
    lim_outcome refused = { .how = LIM_HOW_REFUSED,
                            .handed_over = LIM_HANDED_NO,
                            .why = (lim_why)f.why,
                            .detail = f.detail,
                            .limit = f.limit,
                            .current = f.current,
                            .retry_after_ms = f.retry_after_ms };
    dispatched(c, call, LIM_OK, &admission, (lim_conv){ f.task }, &refused);
    return true;
}

void lim__client_call_break(lim_client *c, lim_how how, const char *detail)
{
    /* It ends: calls that callbacks make meanwhile are refused, the link is not UP. */
    while (!lim__list_empty(&c->call_list)) {
        lim__call *call = LIM_CONTAINER(c->call_list.next, lim__call, node);
        bool left = call->offset < c->written || call->state == LIM__CALL_TASK;
        lim_outcome outcome = { .how = how,
                                .handed_over = left ? LIM_HANDED_UNKNOWN : LIM_HANDED_NO,
                                .conv = call->task,
                                .crashed_wall_us = how == LIM_HOW_LOST ? c->os->wall_ns(c->os) / 1000 : 0,
                                .participant = lim__str(how == LIM_HOW_CLOSED ? "client" : NULL),
                                .detail = lim__str(detail) };
        if (call->state == LIM__CALL_OFFERED)
            dispatched(c, call, LIM_E_CLOSED, NULL, (lim_conv){ 0 }, &outcome);
        else if (call->state == LIM__CALL_SIGNAL || call->state == LIM__CALL_FIND)
            lim__client_call_over(c, call, LIM_E_CLOSED, (lim_conv){ 0 }, lim__str(detail));
        else
            finish(c, call, &outcome);
    }
}

bool lim__client_answered(lim_client *c, uint32_t low, uint16_t code, lim_bytes detail)
{
    uint64_t corr = (c->next_corr & ~(uint64_t)UINT32_MAX) | low;
    if (corr >= c->next_corr)
        corr -= (uint64_t)UINT32_MAX + 1;
    lim__call *call = lim__map_get(&c->calls, corr);
    if (!call || call->state != LIM__CALL_SIGNAL)
        return false;
    lim__client_call_over(c, call, code == 0 ? LIM_OK : lim__client_code_err(code), (lim_conv){ 0 }, detail);
    return true;
}

/* ---- ask ---- */

static lim_err check_ask(const lim_client *c, const char *group, const lim_ask_opts *opts)
{
    if (!c || !opts)
        return LIM_E_INVALID;
    if (opts->size < sizeof *opts || !lim__client_timeout_ok(opts->timeout_ms) || (int)opts->on_crash < 0 ||
        opts->on_crash > LIM_CRASH_COMPENSATE || (opts->on_crash == LIM_CRASH_COMPENSATE && !opts->compensate))
        return LIM_E_MISUSE;
    bool has_group = group && group[0] != '\0';
    return has_group == (opts->participant.id != 0) ? LIM_E_INVALID : LIM_OK; /* one of the two */
}

typedef struct asking { /* what the verbs that ask differ in */
    lim__buf options;   /* packed; ended by who began it */
    uint32_t window;
    lim_on_part *on_part; /* NULL: one answer, in one piece */
    lim_on_outcome *on_outcome;
    void *ctx;
    uint64_t *call_out;
} asking;

static lim_err ask(lim_client *c, const char *named, lim_bytes request, const lim_ask_opts *opts, const asking *how)
{
    char room[256];
    const char *group = lim__in_namespace(opts->ns, named, room);
    lim_err err = group == NULL && named != NULL ? LIM_E_INVALID : lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call =
        lim__client_call_new(c, how->on_part ? LIM__CALL_PARTED : LIM__CALL_PLAIN, how->on_outcome, how->ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->on_part = how->on_part;
    call->window = how->window;
    err = LIM__SAY(c, ask, .flags = opts->wait ? LIM__FLAG_WAIT : 0, .corr = call->corr,
                   .timeout_ms = lim__client_wire_timeout(lim__options_timeout(opts->timeout_ms, &opts->cause)),
                   .on_crash = (uint8_t)(opts->on_crash ? opts->on_crash : LIM_CRASH_FAIL),
                   .participant = opts->participant.id, .group = lim__str(group), .type = lim__str(opts->type),
                   .options = lim__buf_bytes(&how->options), .payload = request);
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    else if (how->call_out)
        *how->call_out = call->corr;
    return err;
}

typedef enum answers { ONE_ANSWER = 1, IN_PARTS, OF_ALL } answers;

static lim_err ask_async(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts, answers want,
                         asking *how)
{
    lim_err err = check_ask(c, group, opts);
    if (err == LIM_OK && want != ONE_ANSWER && !how->on_part)
        err = LIM_E_INVALID;
    if (err == LIM_OK && want == OF_ALL && opts->participant.id != 0)
        err = LIM_E_INVALID;
    if (err == LIM_OK)
        err = lim__options_ask(&how->options, opts, want == IN_PARTS, want == OF_ALL, NULL);
    if (err == LIM_OK) {
        how->window = want != IN_PARTS ? 0 : opts->window ? opts->window : LIM__PARTS_DEFAULT;
        lim__client_lock(c);
        err = ask(c, group, request, opts, how);
        lim__client_unlock(c);
    }
    lim__buf_fini(&how->options);
    return err;
}

lim_err lim_client_ask_async(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                             lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    asking how = { .on_outcome = on_outcome, .ctx = ctx, .call_out = call_out };
    return ask_async(c, group, request, opts, ONE_ANSWER, &how);
}

lim_err lim_client_ask_stream(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                              lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    asking how = { .on_part = on_part, .on_outcome = on_outcome, .ctx = ctx, .call_out = call_out };
    return ask_async(c, group, request, opts, IN_PARTS, &how);
}

lim_err lim_client_ask_all(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts,
                           lim_on_part *on_part, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    asking how = { .on_part = on_part, .on_outcome = on_outcome, .ctx = ctx, .call_out = call_out };
    return ask_async(c, group, request, opts, OF_ALL, &how);
}

lim_err lim_client_cancel(lim_client *c, uint64_t corr)
{
    lim__client_lock(c);
    lim__call *call = lim__map_get(&c->calls, corr);
    bool can = call && call->state != LIM__CALL_SIGNAL && call->state != LIM__CALL_FIND;
    lim_err err = can ? LIM__SAY(c, cancel, .corr = corr) : LIM_E_GONE;
    lim__client_unlock(c);
    return err;
}

/* Waits for the outcome of a call whose callback is the waiter's. */
static lim_err await_outcome(lim_client *c, lim__waiter *w, lim_err err, lim_outcome *out)
{
    if (err == LIM_OK) {
        lim__client_block_wait(c, w, UINT64_MAX);
        err = w->err;
    }
    lim__client_block_leave(c, w);
    if (err == LIM_OK)
        *out = w->outcome;
    return err;
}

lim_err lim_client_ask(lim_client *c, const char *group, lim_bytes request, const lim_ask_opts *opts, lim_outcome *out)
{
    lim__waiter w;
    asking how = { .on_outcome = lim__client_waiter_on_outcome, .ctx = &w };
    lim_err err = out ? check_ask(c, group, opts) : LIM_E_INVALID;
    if (err == LIM_OK)
        err = lim__options_ask(&how.options, opts, false, false, NULL);
    if (err == LIM_OK)
        err = lim__client_block_enter(c, &w);
    if (err == LIM_OK) {
        lim__client_block_room(c);
        err = ask(c, group, request, opts, &how);
        err = await_outcome(c, &w, err, out);
    }
    lim__buf_fini(&how.options);
    return err;
}

lim_err lim_client_sys(lim_client *c, const char *group, const char *request_json, int64_t timeout_ms, lim_outcome *out)
{
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = timeout_ms };
    return lim_client_ask(c, group, lim__str(request_json), &opts, out);
}

/* ---- tasks ---- */

static lim_err check_dispatch(const lim_client *c, const char *queue, const lim_dispatch_opts *opts)
{
    if (!c || !opts || !queue || queue[0] == '\0')
        return LIM_E_INVALID;
    return opts->size < sizeof *opts || !lim__client_timeout_ok(opts->timeout_ms) ? LIM_E_MISUSE : LIM_OK;
}

typedef struct offer {
    lim__buf options; /* packed; ended by who began it */
    lim_on_dispatched *on_dispatched;
    lim_on_outcome *on_outcome;
    void *ctx;
} offer;

static lim_err dispatch(lim_client *c, const char *named, lim_bytes task, const lim_dispatch_opts *opts,
                        const offer *how)
{
    char room[256];
    const char *queue = lim__in_namespace(opts->ns, named, room);
    lim_err err = queue == NULL ? LIM_E_INVALID : lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_OFFERED, how->on_outcome, how->ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->on_dispatched = how->on_dispatched;
    err = LIM__SAY(c, dispatch, .flags = how->on_outcome ? LIM__FLAG_OUTCOME : 0, .corr = call->corr,
                   .timeout_ms = lim__client_wire_timeout(lim__options_timeout(opts->timeout_ms, &opts->cause)),
                   .losses_max = (uint16_t)(opts->losses_max < UINT16_MAX ? opts->losses_max : UINT16_MAX),
                   .queue = lim__str(queue), .type = lim__str(opts->type), .options = lim__buf_bytes(&how->options),
                   .payload = task);
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    return err;
}

lim_err lim_client_dispatch_async(lim_client *c, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                                  lim_on_dispatched *on_dispatched, lim_on_outcome *on_outcome, void *ctx)
{
    offer how = { .on_dispatched = on_dispatched, .on_outcome = on_outcome, .ctx = ctx };
    lim_err err = check_dispatch(c, queue, opts);
    if (err == LIM_OK)
        err = lim__options_dispatch(&how.options, opts, c->os->wall_ns(c->os) / 1000, NULL);
    if (err == LIM_OK) {
        lim__client_lock(c);
        err = dispatch(c, queue, task, opts, &how);
        lim__client_unlock(c);
    }
    lim__buf_fini(&how.options);
    return err;
}

static lim_err dispatch_and_wait(lim_client *c, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                                 lim__waiter *w, const offer *how)
{
    lim_err err = lim__client_block_enter(c, w);
    if (err != LIM_OK)
        return err;
    lim__client_block_room(c);
    err = dispatch(c, queue, task, opts, how);
    if (err == LIM_OK) {
        lim__client_block_wait(c, w, UINT64_MAX);
        err = w->err;
    }
    lim__client_block_leave(c, w);
    return err;
}

lim_err lim_client_dispatch(lim_client *c, const char *queue, lim_bytes task, const lim_dispatch_opts *opts,
                            lim_admission *out, lim_conv *task_out)
{
    lim__waiter w;
    offer how = { .on_dispatched = lim__client_waiter_on_dispatched, .ctx = &w };
    lim_err err = check_dispatch(c, queue, opts);
    if (err == LIM_OK)
        err = lim__options_dispatch(&how.options, opts, c->os->wall_ns(c->os) / 1000, NULL);
    if (err == LIM_OK)
        err = dispatch_and_wait(c, queue, task, opts, &w, &how);
    lim__buf_fini(&how.options);
    if (err == LIM_OK && out)
        *out = w.admission;
    if (err == LIM_OK && task_out)
        *task_out = w.conv;
    return err;
}

static lim_err await(lim_client *c, lim_conv task, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    lim_err err = lim__client_may_call(c);
    if (err != LIM_OK)
        return err;
    lim__call *call = lim__client_call_new(c, LIM__CALL_PLAIN, on_outcome, ctx);
    if (!call)
        return LIM_E_NOMEM;
    call->task = task;
    err = LIM__SAY(c, await, .corr = call->corr, .task = task.id);
    if (err != LIM_OK)
        lim__client_call_drop(c, call);
    else if (call_out)
        *call_out = call->corr;
    return err;
}

lim_err lim_client_await_async(lim_client *c, lim_conv task, lim_on_outcome *on_outcome, void *ctx, uint64_t *call_out)
{
    if (!c || !on_outcome || task.id == 0)
        return LIM_E_INVALID;
    lim__client_lock(c);
    lim_err err = await(c, task, on_outcome, ctx, call_out);
    lim__client_unlock(c);
    return err;
}

static lim_err await_for(lim_client *c, lim_conv task, uint64_t deadline, lim__waiter *w)
{
    uint64_t corr;
    lim_err err = await(c, task, lim__client_waiter_on_outcome, w, &corr);
    if (err != LIM_OK || lim__client_block_wait(c, w, deadline))
        return err;
    lim__call *call = lim__map_get(&c->calls, corr);
    if (!call)
        return LIM_OK; /* its outcome is being called back right now */
    lim__client_call_drop(c, call);
    err = LIM__SAY(c, cancel, .corr = corr); /* or the server would remember who waits; if it fails, it does */
    (void)err;
    return LIM_E_TIMEOUT;
}

/* The server's own refusal (it names no conversation), not a task's end. */
static bool is_unknown(const lim_outcome *o)
{
    return o->how == LIM_HOW_REFUSED && o->why == LIM_WHY_NO_PARTICIPANT && o->conv.id == 0;
}

lim_err lim_client_await(lim_client *c, lim_conv task, int64_t timeout_ms, lim_outcome *out)
{
    lim__waiter w;
    lim_err err = !c || !out || task.id == 0            ? LIM_E_INVALID
                  : !lim__client_timeout_ok(timeout_ms) ? LIM_E_MISUSE
                                                        : LIM_OK;
    if (err == LIM_OK)
        err = lim__client_block_enter(c, &w);
    if (err != LIM_OK)
        return err;
    uint64_t deadline = lim__client_deadline_ns(c, timeout_ms);
    lim__client_block_room(c);
    err = await_for(c, task, deadline, &w);
    err = await_outcome(c, &w, err, out);
    if (err != LIM_OK || !is_unknown(out))
        return err;
    lim_outcome_fini(out);
    return LIM_E_GONE;
}
