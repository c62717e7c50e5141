/* SPDX-License-Identifier: Apache-2.0
 * reader.c - the process that reads a log for those who subscribed to it: its letters, its turn, its end.
 *
 *      bell, page, ack, more, attach, timer --> state changes --pump--> deliveries (one letter per member and turn)
 *                                                             `-end of turn-> one commit of the row
 *
 * LIVES --delete--> DELETING --row is gone--> ENDED          LIVES --channel closed, last member of none left--> ENDED
 *
 * The order in which it delivers: what somebody left behind or refused, by number, then what is new, by number.
 * Whatever a letter was about, the pump is the only place that delivers. */
#include "bus/reader_inside.h"
#include "bus/conv.h"

#include <stdio.h>
#include <stdlib.h>

#define MS ((uint64_t)1000000)
enum { TAG_DUE = 1, TAG_RETRY };
static const char OVER[] = "the process that read for it was ended";

/* ---- letters ---- */

static void drop_msgs(void *body)
{
    lim__read_msgs *m = body;
    for (uint32_t i = 0; i < m->count; i++)
        lim__msg_unref(m->item[i].msg);
}

static void drop_row(void *body)
{
    lim__block_unref(((lim__read_row *)body)->block);
}

static void drop_page(void *body)
{
    lim__read_page *page = body;
    uint32_t end = page->block != NULL ? 1 : page->count;
    for (uint32_t i = page->block != NULL ? 0 : page->at; i < end; i++)
        lim__msg_unref(page->item[i].msg);
    lim__block_unref(page->block);
}

static void drop_attach(void *body)
{
    lim__read_attach *a = body;
    if (a->bus == NULL)
        return;
    lim__read_over *o = lim__letter_new(lim__sched_current(), &lim__type_read_over, sizeof *o);
    if (o == NULL)
        return;
    *o = (lim__read_over){ .owner_ref = a->owner_ref,
                           .member = a->member,
                           .why = a->cursor ? LIM_E_UNREACHABLE : LIM_E_CLOSED };
    snprintf(o->detail, sizeof o->detail, "%s", OVER);
    (void)!lim__post_reserved(a->bus->rt, a->owner, o);
}

static void drop_done(void *body)
{
    lim__read_done *d = body;
    if (d->on_done != NULL)
        d->on_done(d->ctx, LIM_E_CLOSED, "the subscription has ended");
}

static void drop_step(void *body)
{
    lim__step_ack *ack = ((lim__read_step *)body)->ack;
    if (ack != NULL)
        ack->on_answer(ack, LIM_E_CLOSED);
}

static void drop_keys(void *body)
{
    free(((lim__read_keys *)body)->seqs);
}

const lim__letter_type lim__type_read_msgs = { "read_msgs", drop_msgs };
const lim__letter_type lim__type_read_row = { "read_row", drop_row };
const lim__letter_type lim__type_read_acked = { "read_acked", NULL };
const lim__letter_type lim__type_read_over = { "read_over", NULL };
const lim__letter_type lim__type_read_attach = { "read_attach", drop_attach };
const lim__letter_type lim__type_read_detach = { "read_detach", NULL };
const lim__letter_type lim__type_read_more = { "read_more", NULL };
const lim__letter_type lim__type_read_done = { "read_done", drop_done };
const lim__letter_type lim__type_read_fetch = { "read_fetch", NULL };
const lim__letter_type lim__type_read_step = { "read_step", drop_step };
const lim__letter_type lim__type_read_news = { "read_news", NULL };
const lim__letter_type lim__type_read_made = { "read_made", NULL };
const lim__letter_type lim__type_read_page = { "read_page", drop_page };
const lim__letter_type lim__type_read_sought = { "read_sought", NULL };
const lim__letter_type lim__type_read_keys = { "read_keys", drop_keys };

static void reader_check(const lim__reader *r)
{
#ifdef LIM_DEBUG
    uint32_t members = 0;
    lim__cursor_check(&r->at);
    LIM__LIST_EACH(node, &r->members) {
        const lim__read_member *m = LIM_CONTAINER(node, lim__read_member, node);
        uint32_t flight = 0;
        LIM__LIST_EACH(f, &m->flights)
            flight += LIM_CONTAINER(f, lim__pend, in_member)->count;
        LIM_CHECK(flight == m->flight);                             /* K2 */
        LIM_CHECK(m->window == LIM_PULL || m->flight <= m->window); /* K3 */
        members++;
    }
    LIM_CHECK(members == r->member_count);
    LIM_CHECK(r->cursor_len > 0 || (r->commit == 0 && r->waiting.first == NULL)); /* K5 */
#endif
    (void)r;
}

/* ---- the pump ---- */

/* Those in front that need nobody: they have expired, or were delivered often enough. */
static lim__pend *first_ready(lim__reader *r)
{
    lim__pend *p;
    while ((p = lim__cursor_first_ready(&r->at)) != NULL && p->msg != NULL) {
        if (p->expires_wall_ns != 0 && p->expires_wall_ns <= r->bus->os->wall_ns(r->bus->os)) {
            lim__cursor_done(&r->at, p);
            lim__reader_dirty(r);
        } else if (r->deliveries_max > 0 && p->deliveries >= r->deliveries_max) {
            lim__read_member_doom(r, p);
        } else {
            break;
        }
    }
    return p;
}

/* Whatever can be said of a row of messages without looking at one of them. False: not now, or not in a row. */
static bool deliver_row(lim__reader *r)
{
    if (r->mode == LIM__READ_SHARED || r->at.ready.count > 0 || r->at.count >= LIM__PENDING_MAX)
        return false;
    lim__read_member *m = lim__read_member_pick(r, lim_now_ns(r->self));
    uint32_t room = m != NULL ? lim__read_member_room(m, lim_now_ns(r->self)) : 0;
    lim__read_page *page = room > 1 ? lim__reader_row_next(r) : NULL;
    if (page == NULL)
        return false;
    uint32_t may = LIM__PENDING_MAX - r->at.count;
    return lim__read_member_give_row(r, m, page, room < may ? room : may) > 0;
}

/* False: nothing more now. */
static bool deliver_one(lim__reader *r)
{
    lim__pend *p = first_ready(r);
    if (p != NULL && p->msg == NULL) {
        lim__reader_refetch(r, p->seq);
        return false; /* nothing new before it */
    }
    lim__read_member *m = lim__read_member_pick(r, lim_now_ns(r->self));
    if (m == NULL)
        return false;
    if (p != NULL)
        return lim__read_member_give_again(r, m, p) || (lim__reader_retry(r), false);
    if (r->at.count >= LIM__PENDING_MAX)
        return false;
    const lim__logged *next = lim__reader_next(r);
    if (next == NULL)
        return false;
    if (!lim__read_member_give(r, m, next)) {
        lim__reader_retry(r);
        return false;
    }
    lim__reader_taken(r);
    return true;
}

void lim__reader_pump(lim__reader *r)
{
    if (r->life != LIM__READ_LIVES)
        return;
    if (r->seek_wall_ns != 0)
        lim__reader_seek(r);
    else if (r->keys_wanted)
        lim__reader_keys(r);
    else
        while (deliver_row(r) || deliver_one(r))
            continue;
    lim__read_members_send(r);
    lim__reader_arm(r);
}

/* ---- timers ---- */

void lim__reader_arm(lim__reader *r)
{
    const lim__pend *p = lim__cursor_first_due(&r->at);
    if (p == NULL || (r->due_timer != 0 && r->due_timer_ns <= p->due_ns))
        return; /* one that comes too early finds nothing, and sets the next */
    if (r->due_timer != 0)
        (void)lim_timer_cancel(r->self, r->due_timer);
    uint64_t now = lim_now_ns(r->self);
    r->due_timer_ns = p->due_ns;
    if (lim_timer_start(r->self, p->due_ns > now ? p->due_ns - now : 0, TAG_DUE, &r->due_timer) != LIM_OK)
        r->due_timer = 0; /* looked at again by whatever comes next */
}

void lim__reader_retry(lim__reader *r)
{
    if (r->retry_timer == 0 && lim_timer_start(r->self, LIM__READ_RETRY_MS * MS, TAG_RETRY, &r->retry_timer) != LIM_OK)
        r->retry_timer = 0;
}

static void on_timer(lim__reader *r, const lim_signal *signal)
{
    if (signal->tag == TAG_DUE && signal->ref == r->due_timer)
        r->due_timer = 0;
    if (signal->tag == TAG_RETRY && signal->ref == r->retry_timer) {
        r->retry_timer = 0;
        if (r->dirty)
            lim__flush_queue(r->self, &r->flush);
    }
}

/* ---- the end ---- */

void lim__reader_tell_over(lim__reader *r, lim_err why, const char *detail)
{
    LIM__LIST_EACH(node, &r->members) {
        lim__read_member *m = LIM_CONTAINER(node, lim__read_member, node);
        lim__read_over *o = lim__letter_new(lim__sched_current(), &lim__type_read_over, sizeof *o);
        if (o == NULL)
            continue;
        *o = (lim__read_over){ .owner_ref = m->owner_ref, .member = m->id, .why = why };
        size_t len = strlen(detail), room = sizeof o->detail - 1; /* no strnlen: gcc -O3 warns of short literals */
        memcpy(o->detail, detail, len < room ? len : room);
        (void)!lim__post_reserved(r->bus->rt, m->owner, o);
    }
}

static void members_free(lim__reader *r)
{
    for (lim__list *node; (node = lim__list_pop(&r->members)) != NULL;) {
        lim__read_member *m = LIM_CONTAINER(node, lim__read_member, node);
        if (m->out != NULL)
            lim__letter_free(lim__sched_current(), m->out);
        free(m);
    }
    r->member_count = 0;
}

void lim__reader_over(lim__reader *r, lim_err why, const char *detail)
{
    if (r->life == LIM__READ_ENDED)
        return;
    r->life = LIM__READ_ENDED;
    lim__reader_place_drop(r);
    lim__read_members_send(r); /* what was on its way comes before the end */
    lim__reader_tell_over(r, why, detail);
    lim_exit(r->self, LIM_NORMAL);
}

void lim__reader_free(lim__reader *r)
{
    if (r == NULL)
        return;
    lim__cursor_fini(&r->at); /* takes its messages out of the members' lists */
    members_free(r);
    lim__pages_free(r);
    lim__log_leave(r->log, &r->seat);
    lim__log_unref(r->log);
    lim__buf_fini(&r->steps);
    lim__buf_fini(&r->skips);
    free(r->last_seqs);
    free(r->dead_letter);
    free(r);
}

/* ---- another process ----
 *
 * A process that was killed between two signals leaves a whole reader behind; what is lost is its letters, timers and
 * monitors. So another process takes the same reader, without its members, who come again: what they had is READY. What
 * is settled and not stored yet is kept, and stored again: a row is all of it, so once more does no harm. What became
 * of the commit and of the steps that were under way is left at the cursor's place, whoever is there. */

static void forget_process(lim__reader *r)
{
    LIM__LIST_EACH(node, &r->members)
        lim__read_member_bereave(LIM_CONTAINER(node, lim__read_member, node), &r->at);
    lim__pages_free(r);
    r->read_next = r->at.next;
    r->job = LIM__JOB_NONE; /* what it brings is for one who is dead */
    r->awaits = false;
    r->due_timer = r->retry_timer = 0;
    r->flush = (lim__flush){ 0 };
    r->dirty = true; /* its first row may have failed, which the dead one would have heard */
    if (r->life == LIM__READ_DELETING)
        r->commit = 0; /* of a row that is to be deleted: nobody is told any more how it ended */
}

/* False: it has no cursor, its deletion is being stored, the bus closes, or there is no memory. */
static bool come_back(lim__reader *r)
{
    bool deleted = r->life == LIM__READ_DELETING && !r->dirty;
    lim__sched *here = lim__sched_current();
    if (r->cursor_len == 0 || deleted || here == NULL)
        return false;
    forget_process(r);
    lim_pid heir;
    lim__read_news *news = lim__letter_new(here, &lim__type_read_news, sizeof *news);
    if (news != NULL)
        news->first = true;
    if (lim__reader_place_heir(r, news != NULL ? &heir : NULL) != LIM_OK) {
        lim__letter_free(here, news);
        return false;
    }
    (void)!lim__post_reserved(r->bus->rt, heir, news);
    lim__bus_log(r->bus, "event=reader_made_again cursor=%s", r->cursor);
    return true;
}

static void on_end(void *state, lim_reason reason)
{
    lim__reader *r = *(lim__reader **)state;
    (void)reason;
    r->self = NULL;
    lim__log_leave(r->log, &r->seat);
    r->seated = false;
    lim__waiters_end(r, &r->committing, LIM_E_CLOSED, "the reader has ended");
    lim__waiters_end(r, &r->waiting, LIM_E_CLOSED, "the reader has ended");
    bool again = r->life != LIM__READ_ENDED && come_back(r);
    if (r->life != LIM__READ_ENDED) /* killed, or the bus closes */
        lim__reader_tell_over(r, again ? LIM_E_UNREACHABLE : LIM_E_CLOSED, OVER);
    if (again)
        members_free(r);
    else
        lim__reader_free(r);
}

/* ---- letters that come ---- */

static void leave(lim__reader *r, lim__read_member *m, bool watched)
{
    if (m == NULL)
        return;
    lim__read_member_leave(r, m, watched);
    if (r->cursor_len == 0)
        lim__reader_over(r, LIM_OK, "");
}

static void all_leave(lim__reader *r)
{
    while (!lim__list_empty(&r->members))
        lim__read_member_leave(r, LIM_CONTAINER(r->members.next, lim__read_member, node), true);
}

void lim__reader_clear(lim__reader *r)
{
    LIM__LIST_EACH(node, &r->members)
        LIM_CONTAINER(node, lim__read_member, node)->flight = 0;
    lim__cursor_drop(&r->at);
    r->dying = 0;
}

/* Its row first. Nobody finds it any more, nobody is in it. */
void lim__reader_delete(lim__reader *r)
{
    lim__reader_place_drop(r);
    lim__reader_clear(r);
    all_leave(r);
    r->life = LIM__READ_DELETING;
    lim__reader_dirty(r);
}

static void sit(lim__reader *r)
{
    if (r->seated)
        return;
    r->seat = (lim__log_seat){ .reader = lim_self(r->self) };
    r->awaits = false;
    r->seated = lim__log_sit(r->log, &r->seat) == LIM_OK;
}

static void on_news(lim__reader *r, const lim__log_push *push)
{
    r->awaits = false;
    if (push->why == LIM_OK || r->life != LIM__READ_LIVES)
        return;
    r->seated = false;
    bool closed = push->why == LIM_E_CLOSED;
    const char *detail = closed ? "the channel was closed" : "the channel was deleted";
    lim__log_leave(r->log, &r->seat);
    if (r->cursor_len == 0) {
        lim__reader_over(r, push->why, detail);
        return;
    }
    lim__read_members_send(r);
    lim__reader_tell_over(r, push->why, detail);
    if (closed)
        all_leave(r); /* the cursor stays where it is, for when the channel is opened again */
    else
        lim__reader_delete(r);
}

static void on_made(lim__reader *r, const lim__read_made *made)
{
    if (made->how == LIM__COMMITTED)
        return;
    bool full = made->how == LIM__COMMIT_FULL;
    lim__reader_over(r, full ? LIM_E_FULL : LIM_E_IO,
                     full ? "the disk is full: the cursor could not be stored" : "the disk did not take the cursor");
}

static void on_attach(lim__reader *r, const lim__read_attach *a)
{
    sit(r);
    if (r->seated && lim__read_member_add(r, a))
        return;
    lim__read_over *o = lim__letter_new(lim__proc_sched(r->self), &lim__type_read_over, sizeof *o);
    if (o == NULL)
        return;
    *o =
        (lim__read_over){ .owner_ref = a->owner_ref, .member = a->member, .why = r->seated ? LIM_E_NOMEM : LIM_E_GONE };
    snprintf(o->detail, sizeof o->detail, "%s", r->seated ? "out of memory" : "the channel was deleted");
    (void)!lim__send_reserved(r->self, a->owner, o);
}

/* The first turn of one that was made again. */
static void on_first(lim__reader *r)
{
    if (r->life == LIM__READ_LIVES)
        sit(r);
    if (r->life == LIM__READ_LIVES && !r->seated)
        lim__reader_delete(r); /* the channel was deleted meanwhile */
    lim__reader_dirty(r);
}

static void on_more(lim__reader *r, const lim__read_detach *more)
{
    lim__read_member *m = lim__read_member_find(r, more->member);
    if (m == NULL)
        return;
    LIM_ASSERT(m->transit > 0);
    m->transit--;
}

static void on_letter(lim__reader *r, const lim_signal *signal)
{
    const lim__letter_type *t = signal->type;
    void *body = (void *)(uintptr_t)signal->body.ptr;
    if (t == &lim__type_log_push) {
        on_news(r, body);
    } else if (t == &lim__type_read_done) {
        lim__read_member_ack(r, body);
        ((lim__read_done *)body)->on_done = NULL; /* told, or waits */
    } else if (t == &lim__type_read_more) {
        on_more(r, body);
    } else if (t == &lim__type_read_page) {
        lim__reader_on_page(r, lim__letter_keep(r->self, signal));
    } else if (t == &lim__type_stored) {
        lim__reader_on_stored(r, ((lim__stored *)body)->ref, ((lim__stored *)body)->how);
    } else if (t == &lim__type_read_attach) {
        on_attach(r, body);
        ((lim__read_attach *)body)->bus = NULL;
    } else if (t == &lim__type_read_detach) {
        leave(r, lim__read_member_find(r, ((lim__read_detach *)body)->member), true);
    } else if (t == &lim__type_read_fetch) {
        lim__read_member_fetch(r, body);
    } else if (t == &lim__type_read_step) {
        lim__step_ack *ack = ((lim__read_step *)body)->ack;
        ((lim__read_step *)body)->ack = NULL;
        lim__read_member_step(r, ack);
    } else if (t == &lim__type_read_news) {
        lim__reader_place_news(r);
        if (((lim__read_news *)body)->first)
            on_first(r);
    } else if (t == &lim__type_read_made) {
        on_made(r, body);
    } else if (t == &lim__type_read_sought) {
        lim__reader_on_sought(r, body);
    } else if (t == &lim__type_read_keys) {
        lim__reader_on_keys(r, body);
    } else if (t == &lim__type_show) {
        lim__reader_show(r, body);
    } else if (t == &lim__type_admin) {
        lim__reader_admin(r, body);
    }
}

static lim__read_member *member_by_monitor(lim__reader *r, uint64_t monitor)
{
    LIM__LIST_EACH(node, &r->members)
        if (LIM_CONTAINER(node, lim__read_member, node)->monitor == monitor)
            return LIM_CONTAINER(node, lim__read_member, node);
    return NULL;
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    lim__reader *r = *(lim__reader **)state;
    r->self = self;
    if (signal->kind == LIM_SIGNAL_DOWN)
        leave(r, member_by_monitor(r, signal->ref), false);
    else if (signal->kind == LIM_SIGNAL_TIMER)
        on_timer(r, signal);
    else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL)
        on_letter(r, signal);
    if (r->life == LIM__READ_LIVES) {
        lim__read_member_late(r, lim_now_ns(self));
        lim__reader_pump(r);
    }
    reader_check(r);
}

lim_err lim__reader_spawn(lim__reader *r, bool place, uint32_t scheduler, lim_pid *out)
{
    r->flush.run = lim__reader_flush;
    lim_spawn_opts opts = { .size = sizeof opts,
                            .name = "reader",
                            .on_signal = on_signal,
                            .on_end = on_end,
                            .state_bytes = sizeof r,
                            .init = &r,
                            .init_bytes = sizeof r,
                            .mailbox_max = 65536,
                            .place = place,
                            .scheduler = scheduler };
    return lim_runtime_spawn(r->bus->rt, &opts, out);
}
