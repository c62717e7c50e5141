/* SPDX-License-Identifier: Apache-2.0
 * saga.c - the service behind $sys.sagas: its ops, the book, and the processes it watches.
 *
 * The service answers who asked for a saga once the process of that saga has ended and the record says ENDED; a process
 * that ended before is started again. The book outlives the service, too: the next one takes over its sagas (whoever
 * asked for them has heard by then that the service died). */
#include "bus/saga_inside.h"
#include "data/options.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { ENDED_BYTES_MAX = 16 << 20 };

lim__sagas *lim__sagas_new(void)
{
    lim__sagas *book = calloc(1, sizeof *book);
    if (book == NULL)
        return NULL;
    lim__list_init(&book->running);
    lim__list_init(&book->ended);
    return book;
}

static void free_all(lim__list *list)
{
    for (lim__list *n; (n = lim__list_pop(list)) != NULL;)
        lim__saga_free(LIM_CONTAINER(n, lim__saga, node));
}

void lim__sagas_free(lim__sagas *book)
{
    if (book == NULL)
        return;
    free_all(&book->running);
    free_all(&book->ended);
    lim__rows_free(lim__rows_take(&book->rows));
    free(book);
}

uint64_t lim__sagas_running(const lim__sagas *book)
{
    return book->running_count;
}

static lim__saga *find(const lim__list *list, uint64_t id)
{
    LIM__LIST_EACH(n, list) {
        lim__saga *saga = LIM_CONTAINER(n, lim__saga, node);
        if (saga->id == id)
            return saga;
    }
    return NULL;
}

/* ---- the end of one ---- */

static void forget_oldest(lim_bus *bus)
{
    lim__sagas *book = bus->sagas;
    lim__saga *oldest = LIM_CONTAINER(lim__list_pop(&book->ended), lim__saga, node);
    if (oldest->durable)
        lim__saga_unstore(bus, oldest);
    book->ended_count--;
    book->ended_bytes -= oldest->bytes;
    lim__saga_free(oldest);
}

void lim__saga_remember(lim_bus *bus, lim__saga *saga)
{
    lim__sagas *book = bus->sagas;
    for (uint32_t i = 0; i < saga->plan.count; i++) { /* what nobody is shown need not be kept */
        lim__saga_work *both[] = { &saga->ones[i].step, &saga->ones[i].undo };
        for (size_t k = 0; k < LIM_COUNT(both); k++) {
            lim__msg_unref(both[k]->payload);
            both[k]->payload = NULL;
            saga->bytes += both[k]->reply != NULL ? lim__msg_cost(both[k]->reply) : 0;
        }
    }
    lim__list_remove(&saga->node);
    lim__list_push(&book->ended, &saga->node);
    book->running_count--;
    book->ended_count++;
    book->ended_bytes += saga->bytes;
    while (book->ended_count > LIM__SAGAS_ENDED_MAX || (book->ended_bytes > ENDED_BYTES_MAX && book->ended_count > 1))
        forget_oldest(bus);
}

static void ended(lim__system *s, lim__saga *saga)
{
    char id[24];
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (saga->asker.conv.id != 0) {
        s->asker = saga->asker;
        lim__saga_answer_json(saga, &j);
        lim__sys_answer(s, &b);
    }
    if (lim__saga_stuck(&saga->plan)) {
        snprintf(id, sizeof id, "%" PRIx64, saga->id);
        LIM__EVENT(s->bus, s->self, "saga.stuck", { "id", lim__str(id) }, { "name", saga->name });
    }
    lim__saga_remember(s->bus, saga);
}

static void died(lim__system *s, lim__saga *saga)
{
    saga->process = (lim_pid){ 0 };
    if (saga->plan.state != LIM__SAGA_ENDED) {
        if (++saga->deaths < LIM__SAGA_DEATHS_MAX && lim__saga_start(s, saga) == LIM_OK)
            return;
        if (saga->plan.state == 0) /* it never began */
            (void)lim__saga_begin(&saga->plan);
        lim__saga_give_up(saga, lim_now_ns(s->self));
    }
    ended(s, saga);
}

/* What another service left, which is gone: its monitors are, and so are those who had asked it. */
static void own(lim__system *s)
{
    if (s->bus->sagas->owner.id == lim_self(s->self).id)
        return;
    s->bus->sagas->owner = lim_self(s->self);
    LIM__LIST_EACH(n, &s->bus->sagas->running) {
        lim__saga *saga = LIM_CONTAINER(n, lim__saga, node);
        saga->asker = (lim__asker){ { 0 }, 0 };
        if (lim_monitor(s->self, saga->process, &saga->monitor) != LIM_OK)
            lim_exit(s->self, LIM_FAULT);
    }
}

/* ---- ops ---- */

/* What its conversations inherit of the one that asked for it. */
static lim_err terms_of(const lim__request *r, lim__terms **out)
{
    lim__buf block = { 0 };
    lim_dispatch_opts o = { .size = sizeof o, .cause = { .conv = { r->conv.id }, .hops = r->hops } };
    lim_bytes trace;
    if (lim__packed_get(lim__msg_headers(r->payload), lim__str("traceparent"), &trace) &&
        trace.len < sizeof o.cause.traceparent)
        memcpy(o.cause.traceparent, trace.ptr, trace.len);
    lim_err err = lim__options_dispatch(&block, &o, 0, NULL);
    if (err == LIM_OK)
        err = lim__terms_parse(lim__buf_bytes(&block), NULL, out);
    lim__buf_fini(&block);
    return err;
}

void lim__sagas_before(lim__system *s)
{
    own(s);
    lim__sagas_take_rows(s);
}

/* What its first row will say. */
static lim_err keep_request(const lim__system *s, lim__saga *saga)
{
    lim__json j = lim__json_begin(&saga->request);
    lim__json_val(&j, NULL, s->root);
    return saga->request.failed ? LIM_E_NOMEM : LIM_OK;
}

static lim_err begin(lim__system *s, lim__saga *saga)
{
    lim_err err = terms_of(s->request, &saga->terms);
    saga->id = ++s->bus->sagas->next_id;
    if (err == LIM_OK && saga->durable)
        err = keep_request(s, saga);
    return err == LIM_OK ? lim__saga_start(s, saga) : err;
}

void lim__sys_saga_run(lim__system *s)
{
    lim__sagas *book = s->bus->sagas;
    lim_diag diag;
    if (lim__val_bool(s->root, "durable", false) && s->bus->durable == NULL) {
        lim__sys_refuse_diag(s, lim__durable_missing(&diag), &diag);
        return;
    }
    if (atomic_load_explicit(&s->bus->closing, memory_order_relaxed) != 0) {
        lim__sys_refuse(s, LIM_E_CLOSED, "the bus is closing, and starts nothing new");
        return;
    }
    if (book->running_count >= LIM__SAGAS_MAX) {
        lim__sys_refuse(s, LIM_E_FULL, "%d sagas run, which is the most at once; wait until one has ended",
                        LIM__SAGAS_MAX);
        return;
    }
    if (s->request->hops >= LIM_HOPS_MAX) {
        lim__sys_refuse(s, LIM_E_INVALID, "it is asked for %u conversations deep; its steps would be one too deep",
                        s->request->hops);
        return;
    }
    lim__saga *saga = lim__saga_read(s);
    if (saga == NULL)
        return;
    lim_err err = begin(s, saga);
    if (err != LIM_OK) {
        lim__sys_refuse(s, err, "%s", lim_err_text(err));
        lim__saga_free(saga);
        return;
    }
    book->running_count++;
    lim__list_push(&book->running, &saga->node);
}

static void list(const lim__list *from, uint64_t now_ns, lim__json *j)
{
    LIM__LIST_EACH(n, from)
        lim__saga_line_json(LIM_CONTAINER(n, lim__saga, node), now_ns, j, NULL, false);
}

void lim__sys_saga_ls(lim__system *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_open(&j, "sagas", '[');
    if (lim__val_bool(s->root, "ended", false))
        list(&s->bus->sagas->ended, lim_now_ns(s->self), &j);
    list(&s->bus->sagas->running, lim_now_ns(s->self), &j);
    lim__json_close(&j);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

static lim__saga *asked_for(lim__system *s)
{
    lim_pid id;
    if (!lim__sys_id(s, "id", &id))
        return NULL;
    lim__saga *saga = find(&s->bus->sagas->running, id.id);
    if (saga == NULL)
        saga = find(&s->bus->sagas->ended, id.id);
    if (saga == NULL)
        lim__sys_refuse(s, LIM_E_NOTFOUND,
                        "no such saga is known; saga ls shows those that run, with --all the newest "
                        "of those that ended");
    return saga;
}

void lim__sys_saga_show(lim__system *s)
{
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    const lim__saga *saga = asked_for(s);
    if (saga == NULL)
        return;
    lim__json_open(&j, NULL, '{');
    lim__saga_line_json(saga, lim_now_ns(s->self), &j, "saga", true);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

void lim__sys_saga_cancel(lim__system *s)
{
    lim__saga *saga = asked_for(s);
    if (saga == NULL)
        return;
    if (saga->plan.state == LIM__SAGA_UNDO || saga->plan.state == LIM__SAGA_ENDED) {
        lim__sys_refuse(s, LIM_E_INVALID, "it is %s; what runs can be cancelled", lim__saga_state_text(saga));
        return;
    }
    saga->cancelled = true; /* at the latest before its next step */
    const lim__saga_work *w = saga->plan.state == 0 ? NULL : lim__saga_current(saga);
    lim__command *c =
        w == NULL || w->conv.id == 0 ? NULL : lim__letter_new(lim__proc_sched(s->self), &lim__type_cancel, sizeof *c);
    if (c != NULL) {
        *c = (lim__command){ .from = lim_self(s->self) };
        (void)!lim__send_reserved(s->self, w->conv, c);
    }
    lim__sys_answer_id(s, (lim_pid){ saga->id });
}

/* ---- signals ---- */

void lim__sagas_on_signal(lim__system *s, const lim_signal *signal)
{
    lim__sagas *book = s->bus->sagas;
    if (signal->kind != LIM_SIGNAL_DOWN)
        return;
    LIM__LIST_EACH(n, &book->running) {
        lim__saga *saga = LIM_CONTAINER(n, lim__saga, node);
        if (saga->monitor == signal->ref) {
            died(s, saga);
            return;
        }
    }
}
