/* SPDX-License-Identifier: Apache-2.0
 * exchange_row.c - the rows of a durable exchange: written by it, read when it is made again.
 *
 *   tasks     id        state, counts, leases: again with each step          lim__ex_row, lim__ex_read
 *             id, 1     what it was opened with, and its payload: once       lim__ex_const_row; group_store.c reads it
 *   outcomes  id        how it ended                                         lim__ex_end_row; ended_kept.c reads it
 *   dead      queue, id as a dead letter                                     lim__ex_dead_row; group_store.c reads it
 *
 * Times are wall clock, ns, 0: none. What an acknowledgement, a part or progress changes is not in them, so that those
 * cost no commit: whoever had it in hand is taken at its word when it comes back. */
#include "base/base.h"
#include "bus/ended.h"
#include "bus/exchange_inside.h"

enum { ROW_FORMAT = 1 };
enum { ROW_WAITS = 1, ROW_HELD };
enum { LEASE_CURRENT = 1, LEASE_SUSPENDED, LEASE_PAST };

bool lim__ex_lives(const exchange *x)
{
    return x->admitted && (x->state == LIM__EX_PLACING || x->state == LIM__EX_OFFERED || x->state == LIM__EX_HELD ||
                           x->state == LIM__EX_MUTE);
}

static uint64_t wall_of(const exchange *x, lim_process *self, uint64_t ns)
{
    uint64_t now_ns = lim_now_ns(self), now_wall = x->bus->os->wall_ns(x->bus->os);
    return ns == 0 || ns == UINT64_MAX ? 0 : now_wall + ns - now_ns; /* modulo 2^64: either may be the later one */
}

/* ---- what changes ---- */

static void lease_row(const given *g, uint8_t is, const old_lease *old, lim__buf *out)
{
    static const known nobody = { .member_kind = 0 };
    const known *k = lim__ex_known(g) != NULL ? lim__ex_known(g) : &nobody;
    lim__pack_u8(out, is);
    lim__pack_u8(out, old != NULL && old->lost);
    lim__pack_u64(out, g->lease);
    lim__pack_u8(out, k->member_kind);
    lim__buf_add(out, k->session, sizeof k->session);
    lim__pack_bytes(out, identity_of(g));
    lim__pack_bytes(out, lim__bytes(g->text + g->identity_len, g->router_len));
    lim__pack_u64(out, old != NULL ? old->lost_wall_us : 0);
    lim__pack_u64(out, old != NULL ? old->rerouted_us : 0);
}

void lim__ex_row(const exchange *x, lim_process *self, lim__buf *out)
{
    const trouble *t = troubled(x);
    (void)self;
    lim__pack_u8(out, ROW_FORMAT);
    lim__pack_u8(out, x->current != NULL ? ROW_HELD : ROW_WAITS);
    lim__pack_u16(out, x->attempts);
    lim__pack_u16(out, x->losses);
    lim__pack_u8(out, x->untaken);
    lim__pack_u64(out, x->extra->keep->due_wall_ns);
    lim__pack_u32(out, t != NULL ? (uint32_t)t->last_reason : 0);
    lim__pack_u64(out, t != NULL ? t->crashed_wall_us : 0);
    lim__pack_u64(out, t != NULL ? t->rerouted_ns : 0);
    lim__pack_u8(out, (uint8_t)((x->current != NULL) + (t != NULL ? t->old_count : 0)));
    if (x->current != NULL)
        lease_row(x->current, LEASE_CURRENT, NULL, out);
    for (uint32_t i = 0; t != NULL && i < t->old_count; i++)
        lease_row(t->old[i].was, t->old[i].is == OLD_SUSPENDED ? LEASE_SUSPENDED : LEASE_PAST, &t->old[i], out);
}

typedef struct lease_read {
    uint8_t is, lost, session[16], kind;
    uint64_t lease, lost_wall_us, rerouted_us;
    lim_bytes identity, router;
} lease_read;

static bool read_lease(lim__unpack *u, lease_read *l)
{
    l->is = lim__unpack_u8(u);
    l->lost = lim__unpack_u8(u);
    l->lease = lim__unpack_u64(u);
    l->kind = lim__unpack_u8(u);
    for (uint32_t i = 0; i < sizeof l->session; i++)
        l->session[i] = lim__unpack_u8(u);
    l->identity = lim__unpack_bytes(u);
    l->router = lim__unpack_bytes(u);
    l->lost_wall_us = lim__unpack_u64(u);
    l->rerouted_us = lim__unpack_u64(u);
    return !u->bad && l->is >= LEASE_CURRENT && l->is <= LEASE_PAST && l->identity.len <= 255 && l->router.len <= 255;
}

static given *given_of(exchange *x, lim_process *self, const lease_read *l)
{
    union {
        lim__assigned said;
        char room[sizeof(lim__assigned) + 512];
    } a = { .said = { .lease = l->lease,
                      .policy = { .attempts_max = 1 },
                      .member_kind = l->kind,
                      .identity_len = (uint8_t)l->identity.len,
                      .router_len = (uint8_t)l->router.len } };
    char *text = a.room + offsetof(lim__assigned, text);
    memcpy(a.said.session, l->session, sizeof l->session);
    if (l->identity.len > 0)
        memcpy(text, l->identity.ptr, l->identity.len);
    if (l->router.len > 0)
        memcpy(text + l->identity.len, l->router.ptr, l->router.len);
    return lim__ex_given(x, self, &a.said);
}

/* A suspended one is looked at as one that was lost before, whether or not that was counted. */
static bool take_lease(exchange *x, lim_process *self, const lease_read *l)
{
    given *g = given_of(x, self, l);
    if (g == NULL)
        return false;
    if (l->is == LEASE_CURRENT && x->current == NULL) {
        x->current = g;
        return true;
    }
    trouble *t = lim__ex_trouble(x, self);
    if (t == NULL || t->old_count == LIM__EX_OLD_MAX) {
        lim__ex_given_free(x, lim__proc_sched(self), g);
        return t != NULL;
    }
    t->old[t->old_count++] = (old_lease){ .was = g,
                                          .lost_wall_us = l->lost_wall_us,
                                          .rerouted_us = l->rerouted_us,
                                          .is = l->is == LEASE_SUSPENDED ? OLD_SUSPENDED : OLD_PAST,
                                          .lost = l->lost };
    return true;
}

/* For its group: what it is to know of the leases, and the rest of the row. */
bool lim__ex_row_revive(lim_bytes row, lim__revive *r, uint64_t *due_wall_ns, lim__buf *leases)
{
    lim__unpack u = lim__unpack_begin(row);
    bool good = lim__unpack_u8(&u) == ROW_FORMAT;
    (void)lim__unpack_u8(&u);
    r->attempts = lim__unpack_u16(&u);
    r->losses = lim__unpack_u16(&u);
    (void)lim__unpack_u8(&u);
    *due_wall_ns = lim__unpack_u64(&u);
    (void)lim__unpack_u32(&u);
    (void)lim__unpack_u64(&u);
    (void)lim__unpack_u64(&u);
    uint32_t count = lim__unpack_u8(&u);
    r->lease_count = 0;
    for (uint32_t i = 0; good && i < count; i++) {
        lease_read l;
        good = read_lease(&u, &l);
        if (!good || l.is == LEASE_PAST)
            continue;
        lim__pack_u64(leases, l.lease);
        lim__pack_u8(leases, l.is == LEASE_CURRENT);
        lim__pack_u8(leases, l.kind);
        lim__buf_add(leases, l.session, sizeof l.session);
        lim__pack_bytes(leases, l.identity);
        r->lease_count++;
    }
    return good && lim__unpack_end(&u) && !leases->failed;
}

/* The first letter that it had, and the number of its admission. NULL: damaged, or no memory. */
lim__open *lim__ex_row_open(lim_bus *bus, lim_bytes row, lim__relive *relive)
{
    lim__unpack u = lim__unpack_begin(row);
    uint64_t now_ns = bus->os->now_ns(bus->os), now_wall = bus->os->wall_ns(bus->os);
    lim__terms *terms = NULL;
    bool good = lim__unpack_u8(&u) == ROW_FORMAT;
    uint8_t kind = lim__unpack_u8(&u), flags = lim__unpack_u8(&u), on_crash = lim__unpack_u8(&u);
    uint32_t losses_max = lim__unpack_u32(&u);
    uint64_t participant = lim__unpack_u64(&u);
    relive->order = lim__unpack_u64(&u);
    uint64_t opened = lim__unpack_u64(&u), deadline = lim__unpack_u64(&u);
    relive->seen_until_wall_ns = lim__unpack_u64(&u);
    lim_bytes group = lim__unpack_bytes(&u), type = lim__unpack_bytes(&u), block = lim__unpack_bytes(&u);
    lim_bytes headers = lim__unpack_bytes(&u), payload = lim__unpack_bytes(&u);
    good = good && lim__unpack_end(&u) && group.len <= 255 && type.len <= 255 &&
           (kind == LIM__KIND_TASK || kind == LIM__KIND_ASK) && lim__terms_parse(block, NULL, &terms) == LIM_OK;
    lim__msg *msg = good ? lim__msg_new_with(payload, headers) : NULL;
    lim__open *o = msg != NULL ? lim__open_new(NULL, (lim__conv_kind)kind, group, type, msg) : NULL;
    if (o == NULL) {
        lim__msg_unref(msg);
        lim__terms_unref(terms);
        return NULL;
    }
    o->flags = flags;
    o->on_crash = (lim_crash)on_crash;
    o->losses_max = (uint16_t)losses_max;
    o->participant = (lim_pid){ participant };
    o->terms = terms;
    o->opened_ns = now_ns + opened - now_wall; /* modulo 2^64: how long ago that is comes out right */
    o->deadline_ns = deadline == 0 ? UINT64_MAX : deadline > now_wall ? now_ns + (deadline - now_wall) : now_ns;
    return o;
}

bool lim__ex_read(exchange *x, lim_process *self, lim_bytes row)
{
    lim__unpack u = lim__unpack_begin(row);
    keep *k = x->extra->keep;
    bool good = lim__unpack_u8(&u) == ROW_FORMAT;
    uint8_t state = lim__unpack_u8(&u);
    x->attempts = lim__unpack_u16(&u);
    x->losses = lim__unpack_u16(&u);
    x->untaken = lim__unpack_u8(&u);
    k->due_wall_ns = lim__unpack_u64(&u);
    lim_reason reason = (lim_reason)lim__unpack_u32(&u);
    uint64_t crashed_wall_us = lim__unpack_u64(&u), rerouted_ns = lim__unpack_u64(&u);
    uint32_t count = lim__unpack_u8(&u);
    good = good && !u.bad && (state == ROW_WAITS || state == ROW_HELD);
    for (uint32_t i = 0; good && i < count; i++) {
        lease_read l;
        good = read_lease(&u, &l) && take_lease(x, self, &l);
    }
    if (good && crashed_wall_us != 0) {
        trouble *t = lim__ex_trouble(x, self);
        good = t != NULL;
        if (good) {
            t->last_reason = reason;
            t->crashed_wall_us = crashed_wall_us;
            t->rerouted_ns = rerouted_ns;
            if (rerouted_ns == 0) /* how long that took is known when it is over */
                t->crashed_ns = lim_now_ns(self);
        }
    }
    return good && lim__unpack_end(&u) && (state == ROW_HELD) == (x->current != NULL);
}

/* ---- what does not ---- */

void lim__ex_const_row(const exchange *x, lim_process *self, lim__buf *out)
{
    const lim__open *o = x->open;
    const keep *k = x->extra->keep;
    lim__pack_u8(out, ROW_FORMAT);
    lim__pack_u8(out, (uint8_t)o->kind);
    lim__pack_u8(out, o->flags & (uint8_t) ~(LIM__OPEN_REPORT | LIM__OPEN_MARKED));
    lim__pack_u8(out, (uint8_t)o->on_crash);
    lim__pack_u32(out, o->losses_max);
    lim__pack_u64(out, o->participant.id);
    lim__pack_u64(out, k->order);
    lim__pack_u64(out, wall_of(x, self, o->opened_ns));
    lim__pack_u64(out, wall_of(x, self, o->deadline_ns));
    lim__pack_u64(out, k->seen_until_wall_ns);
    lim__pack_bytes(out, group_name(o));
    lim__pack_bytes(out, type_name(o));
    lim__pack_bytes(out, o->terms != NULL ? o->terms->block : lim__bytes(NULL, 0));
    lim__pack_bytes(out, lim__msg_headers(o->payload));
    lim__pack_bytes(out, lim__msg_bytes(o->payload));
}

/* ---- how it ended ---- */

static uint64_t end_until(const exchange *x)
{
    uint64_t until = x->bus->os->wall_ns(x->bus->os) + LIM__KEPT_NS, seen = x->extra->keep->seen_until_wall_ns;
    return seen > until ? seen : until;
}

void lim__ex_end_row(const exchange *x, lim_process *self, const lim__outcome_letter *o, uint64_t lease, lim__buf *out)
{
    (void)self;
    lim__outcome_letter flat = *o; /* numbers as they are; text behind; the payload by itself */
    x->extra->keep->end_until_wall_ns = end_until(x);
    lim__pack_u8(out, ROW_FORMAT);
    lim__pack_u8(out, (uint8_t)x->open->kind);
    lim__pack_u8(out, x->extra->keep->seen_until_wall_ns != 0);
    lim__pack_u64(out, x->extra->keep->end_until_wall_ns);
    lim__pack_u64(out, lease);
    lim__pack_u8(out, (uint8_t)flat.how);
    lim__pack_u8(out, (uint8_t)flat.handed_over);
    lim__pack_u8(out, (uint8_t)flat.why);
    lim__pack_u32(out, (uint32_t)flat.reason);
    lim__pack_u32(out, flat.attempts);
    lim__pack_u32(out, flat.losses);
    lim__pack_u32(out, flat.limit);
    lim__pack_u32(out, flat.current);
    lim__pack_u32(out, flat.retry_after_ms);
    lim__pack_u64(out, flat.elapsed_ns);
    lim__pack_u64(out, flat.crashed_wall_us);
    lim__pack_u64(out, flat.rerouted_ns);
    lim__pack_u64(out, flat.compensation.id);
    lim__pack_u8(out, flat.participant_len);
    lim__pack_u8(out, flat.router_len);
    lim__pack_u8(out, flat.excluded_count);
    lim__pack_u16(out, flat.detail_len);
    lim__pack_u16(out, flat.excluded_bytes);
    lim__pack_bytes(out, lim__bytes(o->text, lim__outcome_bytes(o) - sizeof *o));
    lim__pack_u8(out, o->payload != NULL);
    if (o->payload != NULL) {
        lim__pack_bytes(out, lim__msg_headers(o->payload));
        lim__pack_bytes(out, lim__msg_bytes(o->payload));
    }
}

void lim__ex_dead_row(const lim__dead *d, lim__buf *out)
{
    lim__pack_u8(out, ROW_FORMAT);
    lim__pack_u8(out, (uint8_t)d->how);
    lim__pack_u8(out, (uint8_t)d->why);
    lim__pack_u32(out, (uint32_t)d->reason);
    lim__pack_u32(out, d->attempts);
    lim__pack_u32(out, d->losses);
    lim__pack_u64(out, d->at_wall_us);
    lim__pack_bytes(out, lim__bytes(d->text, d->type_len));
    lim__pack_bytes(out, lim__bytes(d->text + d->type_len, d->detail_len));
    lim__pack_bytes(out, d->terms != NULL ? d->terms->block : lim__bytes(NULL, 0));
    lim__pack_bytes(out, lim__msg_headers(d->payload));
    lim__pack_bytes(out, lim__msg_bytes(d->payload));
}
