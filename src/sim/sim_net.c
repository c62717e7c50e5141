/* SPDX-License-Identifier: Apache-2.0
 * sim_net.c - TCP between simulated machines.
 *
 *   lim__sim_end, one end of a connection:
 *
 *   connect --> CONNECTING --syn-ack--> OPEN --reset, give up--> BROKEN (tells its error once, then: ended)
 *                   `------refused, give up-----------------------^
 *   a SYN that reaches a LISTENING end --> OPEN, in the listener's queue, without descriptor until accept
 *   any of them --close, kill--> GONE: no descriptor; answers what still arrives with a reset
 *
 *   One direction, from a sender S to a receiver R:
 *
 *       send            travels, in order              arrives, while there is room        recv
 *   S --------> R.inbound: [seg at t1][seg at t2] ... --------------------------> R.ring --------> the program
 *               at most R.inbound_max bytes:          the first one may stall:    at most R.ring_max
 *               S's send buffer                       NO_PATH   cut, or R is off
 *                                                     NO_WINDOW R does not read
 *
 * Only the first segment of a direction has an event, so a direction can never overtake itself.
 *
 * The kernel's detectors (set_liveness): an end whose path is down gives up after its idle time plus its user timeout,
 * and after the user timeout alone when it has something unacknowledged. A receiver that does not read for that long
 * is given up as well: that is what TCP_USER_TIMEOUT does to a full window.
 *
 * Invariants (end_check):
 *   N1  what was sent to R = what R received + R.ring + R.inbound, unless a reset threw some away.
 *   N2  R.inbound_bytes <= R.inbound_max and R.ring <= R.ring_max.
 *   N3  a GONE end has no descriptor and no program; every other one but those in an accept queue has both. */
#include "sim/sim_world.h"
#include "base/map.h"

#include <errno.h>
#include <stdlib.h>

enum segment_kind { SEG_SYN_ACK = 1, SEG_DATA, SEG_FIN, SEG_RST };
struct segment {
    lim__list link; /* in end->inbound */
    enum segment_kind kind;
    uint64_t at;
    size_t start, len;
    uint8_t data[];
};

enum { FIRST_FD = 3, BACKLOG_MAX = 128 };
static const uint64_t SECOND = 1000000000u, CONNECT_MAX_NS = 127000000000u;

/* ---- paths ---- */

static bool can_reach(const lim__sim_machine *from, const lim__sim_machine *to)
{
    return to && to->power == LIM__SIM_ON && !(from->cut >> to->index & 1);
}

static bool path_ok(const lim__sim_end *e)
{
    return can_reach(e->machine, e->far);
}

static uint64_t draw_delay(lim__sim *sim, const lim__sim_machine *from, const lim__sim_machine *to)
{
    const lim__sim_net *net = &sim->net;
    if (from == to)
        return lim__rng_range(&sim->chance, net->delay_min_ns / 2, net->delay_min_ns);
    if (net->spike_permille && lim__rng_chance(&sim->chance, net->spike_permille))
        return lim__rng_range(&sim->chance, net->delay_min_ns, net->delay_min_ns + net->spike_max_ns);
    return lim__rng_range(&sim->chance, net->delay_min_ns, net->delay_max_ns);
}

/* ---- ends ---- */

static lim__sim_end *end_new(lim__sim *sim, lim__sim_machine *machine, enum lim__sim_end_state state)
{
    const lim__sim_net *net = &sim->net;
    lim__sim_end *e = lim__sim_alloc(sizeof *e);
    *e = (lim__sim_end){ .sim = sim, .state = state, .machine = machine, .fd = -1 };
    e->rx = e->tx = e->report = LIM__SIM_FLOWS;
    e->stall = LIM__SIM_NO_STALL;
    e->dead_at = LIM__SIM_NEVER;
    e->ring_max = lim__rng_range(&sim->chance, net->buffer_min, net->buffer_max);
    e->inbound_max = lim__rng_range(&sim->chance, net->buffer_min, net->buffer_max);
    lim__list_init(&e->inbound);
    lim__list_init(&e->waiting);
    lim__list_init(&e->queued);
    lim__list_push(&sim->ends, &e->all);
    return e;
}

static void end_check(const lim__sim_end *e)
{
    LIM_CHECK(e->inbound_bytes <= e->inbound_max); /* N2 */
    LIM_CHECK(lim__buf_len(&e->ring) <= e->ring_max);
    LIM_CHECK((e->fd >= 0) == (e->process != NULL)); /* N3 */
    LIM_CHECK(e->state != LIM__SIM_GONE || e->fd < 0);
    if (e->peer && e->state == LIM__SIM_OPEN) /* N1 */
        LIM_CHECK(e->peer->sent == e->received + lim__buf_len(&e->ring) + e->inbound_bytes);
    (void)e;
}

static void segment_free(lim__sim_end *to, struct segment *seg)
{
    to->inbound_bytes -= seg->len;
    lim__list_remove(&seg->link);
    free(seg);
}

static void drop_inbound(lim__sim_end *e)
{
    LIM__LIST_EACH_SAFE(node, next, &e->inbound)
        segment_free(e, LIM_CONTAINER(node, struct segment, link));
    e->stall = LIM__SIM_NO_STALL;
}

static void end_free(lim__sim_end *e)
{
    drop_inbound(e);
    lim__buf_fini(&e->ring);
    lim__list_remove(&e->all);
    free(e);
}

/* A connection is freed when both ends are gone and no event names them. */
static void end_reap(lim__sim_end *e)
{
    lim__sim_end *peer = e->peer;
    if (e->state != LIM__SIM_GONE || e->events > 0 || (peer && (peer->state != LIM__SIM_GONE || peer->events > 0)))
        return;
    if (peer)
        end_free(peer);
    end_free(e);
}

static void fd_give(lim__sim_process *p, lim__sim_end *e)
{
    int fd = FIRST_FD;
    while (fd < p->fd_count && p->fds[fd])
        fd++;
    if (fd >= p->fd_count) {
        int count = p->fd_count ? p->fd_count * 2 : 32;
        p->fds = realloc(p->fds, (size_t)count * sizeof(lim__sim_end *));
        LIM_ASSERT(p->fds);
        for (int i = p->fd_count; i < count; i++)
            p->fds[i] = NULL;
        p->fd_count = count;
    }
    p->fds[fd] = e;
    e->fd = fd;
    e->process = p;
}

static void fd_take(lim__sim_end *e)
{
    if (e->process)
        e->process->fds[e->fd] = NULL;
    e->process = NULL;
    e->fd = -1;
}

uint32_t lim__sim_end_ready(const lim__sim_end *e)
{
    uint32_t ready = 0;
    switch (e->state) {
    case LIM__SIM_LISTENING:
        return lim__list_empty(&e->waiting) ? 0 : LIM__IO_READ;
    case LIM__SIM_CONNECTING:
    case LIM__SIM_GONE:
        return 0;
    case LIM__SIM_BROKEN:
        return LIM__IO_READ | LIM__IO_WRITE;
    case LIM__SIM_OPEN:
        if (lim__buf_len(&e->ring) > 0 || e->rx == LIM__SIM_ENDED)
            ready |= LIM__IO_READ;
        /* As Linux: not at the first free byte, or writers would be woken for crumbs. */
        if (e->tx == LIM__SIM_ENDED || e->peer->inbound_bytes * 4 <= e->peer->inbound_max * 3)
            ready |= LIM__IO_WRITE;
        return ready;
    }
    return 0;
}

/* ---- detectors ---- */

static void give_up_at(lim__sim_end *e, uint64_t when)
{
    if (when >= e->dead_at)
        return;
    e->dead_at = when;
    lim__sim_event_push(e->sim, (lim__sim_event){ .at = when, .kind = LIM__SIM_GIVE_UP, .end = e });
}

static uint64_t ms(uint32_t n)
{
    return (uint64_t)n * 1000000u;
}

/* Sets when the end gives up, from what it can know; called whenever a path, a stall or the settings change. */
static void watch_path(lim__sim_end *e)
{
    lim__sim *sim = e->sim;
    if (e->state != LIM__SIM_OPEN)
        return;
    if (path_ok(e)) {
        e->dead_at = LIM__SIM_NEVER;
        if (e->user_timeout_ms && e->peer->stall == LIM__SIM_NO_WINDOW)
            give_up_at(e, sim->now + ms(e->user_timeout_ms));
        return;
    }
    if (e->idle_ms) { /* the last probe that was answered is anything up to idle_ms old */
        uint64_t patience = e->user_timeout_ms ? ms(e->user_timeout_ms) : 3 * ms(e->idle_ms);
        give_up_at(e, sim->now + lim__rng_below(&sim->chance, ms(e->idle_ms)) + patience);
    }
    if (e->user_timeout_ms && !lim__list_empty(&e->peer->inbound))
        give_up_at(e, sim->now + ms(e->user_timeout_ms));
}

/* ---- segments ---- */

static void arrival_event(lim__sim_end *to)
{
    struct segment *first = LIM_CONTAINER(to->inbound.next, struct segment, link);
    lim__sim_event_push(to->sim, (lim__sim_event){ .at = first->at, .kind = LIM__SIM_ARRIVAL, .end = to });
}

static void travel(lim__sim_end *to, const lim__sim_machine *from, enum segment_kind kind, const void *data, size_t len)
{
    lim__sim *sim = to->sim;
    struct segment *seg = lim__sim_alloc(sizeof *seg + len);
    bool alone = lim__list_empty(&to->inbound);
    seg->kind = kind;
    seg->at = sim->now + draw_delay(sim, from, to->machine);
    seg->len = len;
    if (len > 0)
        memcpy(seg->data, data, len);
    if (!alone) {
        struct segment *last = LIM_CONTAINER(to->inbound.prev, struct segment, link);
        seg->at = last->at > seg->at ? last->at : seg->at;
    }
    lim__list_push(&to->inbound, &seg->link);
    to->inbound_bytes += len;
    if (alone)
        arrival_event(to);
}

static void end_break(lim__sim_end *e, int error)
{
    if (e->state != LIM__SIM_OPEN && e->state != LIM__SIM_CONNECTING)
        return;
    lim__sim_note(e->sim, "broken %s:%u %d", e->machine->name, e->port, error);
    e->state = LIM__SIM_BROKEN;
    e->error = error;
    e->dead_at = LIM__SIM_NEVER;
}

/* A reset does not wait for a window: what the sender's kernel still held for want of one is lost with it. */
static void send_reset(lim__sim_end *to, const lim__sim_machine *from)
{
    if (to->stall == LIM__SIM_NO_WINDOW) {
        to->peer->sent -= to->inbound_bytes;
        drop_inbound(to);
    }
    travel(to, from, SEG_RST, NULL, 0);
}

/* A segment came for somebody who is not there (any more). */
static void answer_with_reset(lim__sim_end *e)
{
    lim__sim_end *peer = e->peer;
    if (!peer || peer->state != LIM__SIM_OPEN)
        return;
    if (!lim__list_empty(&peer->inbound) && LIM_CONTAINER(peer->inbound.prev, struct segment, link)->kind == SEG_RST)
        return;
    send_reset(peer, e->machine);
}

/* Takes what fits of a data segment; false: none did, the sender must wait. */
static bool take_data(lim__sim_end *e, struct segment *seg)
{
    size_t room = e->ring_max - lim__buf_len(&e->ring), n = seg->len < room ? seg->len : room;
    if (n == 0)
        return false;
    lim__buf_add(&e->ring, seg->data + seg->start, n);
    LIM_ASSERT(!e->ring.failed);
    seg->start += n;
    seg->len -= n;
    e->inbound_bytes -= n;
    if (seg->len == 0)
        segment_free(e, seg);
    return true;
}

static void take_control(lim__sim_end *e, struct segment *seg)
{
    switch (seg->kind) {
    case SEG_SYN_ACK:
        if (e->state == LIM__SIM_CONNECTING)
            e->state = LIM__SIM_OPEN;
        else
            answer_with_reset(e);
        watch_path(e);
        break;
    case SEG_FIN:
        e->rx = LIM__SIM_ENDED;
        break;
    case SEG_RST:
        end_break(e, e->state == LIM__SIM_CONNECTING ? -ECONNREFUSED : -ECONNRESET);
        break;
    case SEG_DATA:
        break;
    }
    segment_free(e, seg);
}

/* The first segment has arrived. False: it cannot be taken now, and neither can those behind it. */
static bool take_first(lim__sim_end *e, struct segment *seg)
{
    if (e->machine->power == LIM__SIM_OFF || (e->far && !can_reach(e->far, e->machine))) {
        e->stall = LIM__SIM_NO_PATH;
        return false;
    }
    if (seg->kind != SEG_DATA) {
        take_control(e, seg);
        return true;
    }
    if (e->state != LIM__SIM_OPEN) {
        answer_with_reset(e);
        segment_free(e, seg);
        return true;
    }
    if (take_data(e, seg))
        return true;
    e->stall = LIM__SIM_NO_WINDOW;
    watch_path(e->peer);
    return false;
}

static void arrive(lim__sim_end *e)
{
    e->stall = LIM__SIM_NO_STALL;
    while (!lim__list_empty(&e->inbound)) {
        struct segment *first = LIM_CONTAINER(e->inbound.next, struct segment, link);
        if (first->at > e->sim->now) {
            arrival_event(e);
            break;
        }
        if (!take_first(e, first))
            break;
    }
    end_check(e);
}

/* ---- connecting ---- */

static lim__sim_end *listener_at(const lim__sim_machine *m, uint16_t port)
{
    lim__sim_process *p = m->process;
    for (int fd = FIRST_FD; p && fd < p->fd_count; fd++) {
        if (p->fds[fd] && p->fds[fd]->state == LIM__SIM_LISTENING && p->fds[fd]->port == port)
            return p->fds[fd];
    }
    return NULL;
}

static void syn_again(lim__sim_end *e)
{
    lim__sim *sim = e->sim;
    uint64_t patience = e->user_timeout_ms ? ms(e->user_timeout_ms) : CONNECT_MAX_NS;
    if (sim->now - e->syn_since + e->syn_wait > patience) {
        give_up_at(e, e->syn_since + patience > sim->now ? e->syn_since + patience : sim->now);
        return;
    }
    lim__sim_event_push(sim, (lim__sim_event){ .at = sim->now + e->syn_wait, .kind = LIM__SIM_SYN, .end = e });
    e->syn_wait *= 2;
}

/* The far end of a new connection, in its listener's queue. */
static void welcome(lim__sim_end *listener, lim__sim_end *e)
{
    lim__sim_end *mine = end_new(e->sim, listener->machine, LIM__SIM_OPEN);
    mine->port = listener->port;
    mine->far = e->machine;
    mine->far_port = e->port;
    mine->peer = e;
    e->peer = mine;
    lim__list_push(&listener->waiting, &mine->queued);
    listener->waiting_count++;
    travel(e, listener->machine, SEG_SYN_ACK, NULL, 0);
}

static void syn_arrives(lim__sim_end *e)
{
    if (e->state != LIM__SIM_CONNECTING || e->peer)
        return;
    if (!path_ok(e)) {
        syn_again(e);
        return;
    }
    lim__sim_end *listener = listener_at(e->far, e->far_port);
    if (!listener)
        travel(e, e->far, SEG_RST, NULL, 0);
    else if (listener->waiting_count >= BACKLOG_MAX)
        syn_again(e);
    else
        welcome(listener, e);
}

void lim__sim_net_event(lim__sim *sim, const lim__sim_event *event)
{
    lim__sim_end *e = event->end;
    e->events--;
    switch (event->kind) {
    case LIM__SIM_SYN:
        syn_arrives(e);
        break;
    case LIM__SIM_ARRIVAL:
        arrive(e);
        break;
    case LIM__SIM_GIVE_UP:
        if (e->dead_at <= sim->now)
            end_break(e, -ETIMEDOUT);
        break;
    case LIM__SIM_SCRIPT:
        break;
    }
    end_reap(e);
}

/* ---- closing ---- */

/* What a sender's kernel had not put on the wire when the connection was reset is lost. */
static void lose_some(lim__sim_end *to)
{
    while (!lim__list_empty(&to->inbound) && lim__rng_chance(&to->sim->chance, 500)) {
        struct segment *last = LIM_CONTAINER(to->inbound.prev, struct segment, link);
        /* The first one has an event that counts on it, and what is not data was not waiting to be sent. */
        if (last->link.prev == &to->inbound || last->kind != SEG_DATA)
            return;
        to->peer->sent -= last->len;
        segment_free(to, last);
    }
}

static void say_goodbye(lim__sim_end *e)
{
    lim__sim_end *peer = e->peer;
    if (lim__buf_len(&e->ring) > 0) {
        lose_some(peer);
        send_reset(peer, e->machine);
    } else if (e->tx == LIM__SIM_FLOWS) {
        travel(peer, e->machine, SEG_FIN, NULL, 0);
    }
}

static void end_close(lim__sim_end *e, bool tell_peer)
{
    enum lim__sim_end_state was = e->state;
    fd_take(e);
    e->state = LIM__SIM_GONE;
    e->dead_at = LIM__SIM_NEVER;
    if (tell_peer && was == LIM__SIM_OPEN)
        say_goodbye(e);
    else if (tell_peer && was == LIM__SIM_CONNECTING && e->peer)
        send_reset(e->peer, e->machine);
    else if (!tell_peer && e->peer)
        watch_path(e->peer);
    lim__buf_fini(&e->ring);
    for (lim__list *node; (node = lim__list_pop(&e->waiting));) {
        lim__sim_end *unmet = LIM_CONTAINER(node, lim__sim_end, queued);
        if (tell_peer && unmet->state == LIM__SIM_OPEN)
            send_reset(unmet->peer, unmet->machine);
        end_close(unmet, false);
    }
    if (e->stall == LIM__SIM_NO_WINDOW && !lim__list_empty(&e->inbound)) /* nobody will read: let it be answered */
        arrival_event(e);
    end_reap(e);
}

void lim__sim_net_drop_process(lim__sim_process *p, bool tell_peers)
{
    for (int fd = FIRST_FD; fd < p->fd_count; fd++) {
        if (p->fds[fd])
            end_close(p->fds[fd], tell_peers);
    }
}

void lim__sim_net_fini(lim__sim *sim)
{
    LIM__LIST_EACH_SAFE(node, next, &sim->ends)
        end_free(LIM_CONTAINER(node, lim__sim_end, all));
}

/* ---- scripts ---- */

static lim__sim_machine *machine_of(lim__os *host)
{
    return lim__sim_process_of(host)->machine;
}

static bool between(const lim__sim_end *e, const lim__sim_machine *a, const lim__sim_machine *b)
{
    return (e->machine == a && e->far == b) || (e->machine == b && e->far == a);
}

void lim__sim_cut(lim__sim *sim, lim__os *host_a, lim__os *host_b)
{
    lim__sim_machine *a = machine_of(host_a), *b = machine_of(host_b);
    LIM_ASSERT(a != b);
    lim__sim_note(sim, "cut %s %s", a->name, b->name);
    a->cut |= (uint64_t)1 << b->index;
    b->cut |= (uint64_t)1 << a->index;
    LIM__LIST_EACH(node, &sim->ends) {
        lim__sim_end *e = LIM_CONTAINER(node, lim__sim_end, all);
        if (between(e, a, b))
            watch_path(e);
    }
}

/* The next probe of an end whose peer has forgotten it is answered with a reset. */
static void probe_after_silence(lim__sim_end *e)
{
    lim__sim_end *peer = e->peer;
    bool forgotten = peer && (peer->state == LIM__SIM_BROKEN || peer->state == LIM__SIM_GONE);
    if (e->state == LIM__SIM_OPEN && e->idle_ms && forgotten && lim__list_empty(&e->inbound) &&
        e->rx == LIM__SIM_FLOWS) {
        travel(e, peer->machine, SEG_RST, NULL, 0);
        struct segment *reset = LIM_CONTAINER(e->inbound.next, struct segment, link);
        reset->at += lim__rng_below(&e->sim->chance, ms(e->idle_ms));
    }
}

void lim__sim_net_resume(lim__sim *sim, const lim__sim_machine *a, const lim__sim_machine *b)
{
    if (!can_reach(a, b) || !can_reach(b, a))
        return;
    LIM__LIST_EACH(node, &sim->ends) {
        lim__sim_end *e = LIM_CONTAINER(node, lim__sim_end, all);
        if (!between(e, a, b))
            continue;
        watch_path(e);
        probe_after_silence(e);
        if (e->stall != LIM__SIM_NO_PATH)
            continue;
        e->stall = LIM__SIM_NO_STALL;
        LIM_CONTAINER(e->inbound.next, struct segment, link)->at = sim->now + draw_delay(sim, e->far, e->machine);
        arrival_event(e);
    }
}

void lim__sim_heal(lim__sim *sim, lim__os *host_a, lim__os *host_b)
{
    lim__sim_machine *a = machine_of(host_a), *b = machine_of(host_b);
    lim__sim_note(sim, "heal %s %s", a->name, b->name);
    a->cut &= ~((uint64_t)1 << b->index);
    b->cut &= ~((uint64_t)1 << a->index);
    lim__sim_net_resume(sim, a, b);
}

void lim__sim_reset(lim__sim *sim, lim__os *host_a, lim__os *host_b)
{
    const lim__sim_machine *a = machine_of(host_a), *b = machine_of(host_b);
    lim__sim_note(sim, "reset %s %s", a->name, b->name);
    LIM__LIST_EACH(node, &sim->ends) {
        lim__sim_end *e = LIM_CONTAINER(node, lim__sim_end, all);
        if (!between(e, a, b) || e->state != LIM__SIM_OPEN)
            continue;
        drop_inbound(e);
        end_break(e, -ECONNRESET);
    }
}

/* ---- the table ---- */

/* What every call does first. False: the program is dead, perhaps since just now. */
static bool enter(lim__sim_process *p)
{
    if (p->kill_at_call > 0 && --p->kill_at_call == 0)
        lim__sim_kill_host(p->sim, &p->os);
    return p->life != LIM__SIM_DEAD;
}

/* The end behind a descriptor. A descriptor that is not open is a bug of the program under test. */
static lim__sim_end *end_of(lim__sim_process *p, int fd)
{
    if (!enter(p))
        return NULL;
    LIM_ASSERT(fd >= FIRST_FD && fd < p->fd_count && p->fds[fd]);
    return p->fds[fd];
}

/* Where a host name leads; false: it is not even an address. NULL: nobody is there. */
static bool find_machine(lim__sim_process *p, const char *host, lim__sim_machine **out)
{
    lim__sim *sim = p->sim;
    *out = NULL;
    if (!host)
        return false;
    static const char *const mine[] = { "localhost", "127.0.0.1", "0.0.0.0", "::1", "::" };
    for (size_t i = 0; i < LIM_COUNT(mine); i++) {
        if (strcmp(host, mine[i]) == 0)
            *out = p->machine;
    }
    for (uint32_t i = 0; i < sim->machine_count && !*out; i++) {
        if (strcmp(sim->machines[i].name, host) == 0 || strcmp(sim->machines[i].address, host) == 0)
            *out = &sim->machines[i];
    }
    return *out || strncmp(host, "10.", 3) == 0;
}

static uint16_t free_port(lim__sim_machine *m)
{
    do
        m->port_next = m->port_next == UINT16_MAX ? 32768 : m->port_next + 1;
    while (listener_at(m, m->port_next));
    return m->port_next;
}

static int net_listen(lim__os *os, const char *host, uint16_t port, uint16_t *port_out)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_machine *m;
    if (!enter(p))
        return -EBADF;
    if (!find_machine(p, host, &m))
        return -EINVAL;
    if (m != p->machine)
        return -EADDRNOTAVAIL;
    if (port != 0 && listener_at(m, port))
        return -EADDRINUSE;
    lim__sim_end *e = end_new(p->sim, m, LIM__SIM_LISTENING);
    e->port = port ? port : free_port(m);
    fd_give(p, e);
    if (port_out)
        *port_out = e->port;
    lim__sim_note(p->sim, "listen %s:%u fd %d", m->name, e->port, e->fd);
    return e->fd;
}

static int net_accept(lim__os *os, int fd, char *peer, size_t peer_size)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_end *listener = end_of(p, fd);
    if (!listener)
        return -EBADF;
    LIM_ASSERT(listener->state == LIM__SIM_LISTENING);
    lim__list *node = lim__list_pop(&listener->waiting);
    if (!node)
        return -EAGAIN;
    lim__sim_end *e = LIM_CONTAINER(node, lim__sim_end, queued);
    listener->waiting_count--;
    fd_give(p, e);
    if (peer && peer_size > 0)
        snprintf(peer, peer_size, "%s:%u", e->far->address, e->far_port);
    lim__sim_note(p->sim, "accept %s:%u from %s:%u fd %d", e->machine->name, e->port, e->far->name, e->far_port, e->fd);
    return e->fd;
}

static int net_connect(lim__os *os, const char *host, uint16_t port)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_machine *m;
    if (!enter(p))
        return -EBADF;
    if (!find_machine(p, host, &m))
        return -EINVAL;
    lim__sim *sim = p->sim;
    lim__sim_end *e = end_new(sim, p->machine, LIM__SIM_CONNECTING);
    e->far = m;
    e->far_port = port;
    e->port = free_port(p->machine);
    e->syn_since = sim->now;
    e->syn_wait = SECOND;
    fd_give(p, e);
    uint64_t at = sim->now + (m ? draw_delay(sim, p->machine, m) : 0);
    lim__sim_event_push(sim, (lim__sim_event){ .at = at, .kind = LIM__SIM_SYN, .end = e });
    lim__sim_note(sim, "connect %s:%u to %s:%u fd %d", e->machine->name, e->port, m ? m->name : host, port, e->fd);
    return e->fd;
}

static int net_connect_result(lim__os *os, int fd)
{
    const lim__sim_end *e = end_of(lim__sim_process_of(os), fd);
    if (!e)
        return -EBADF;
    return e->state == LIM__SIM_CONNECTING ? -EINPROGRESS : e->state == LIM__SIM_BROKEN ? e->error : 0;
}

/* BROKEN: the error, once. */
static int report_error(lim__sim_end *e, int afterwards)
{
    if (e->report == LIM__SIM_ENDED)
        return afterwards;
    e->report = LIM__SIM_ENDED;
    return e->error;
}

/* There is room again: what waited for it gets there after the news has travelled back. */
static void open_window(lim__sim_end *e)
{
    if (e->stall != LIM__SIM_NO_WINDOW)
        return;
    e->stall = LIM__SIM_NO_STALL;
    struct segment *first = LIM_CONTAINER(e->inbound.next, struct segment, link);
    first->at = e->sim->now + draw_delay(e->sim, e->machine, e->far);
    arrival_event(e);
    watch_path(e->peer);
}

static size_t cut_short(lim__sim *sim, size_t n, uint32_t permille)
{
    return n > 1 && permille && lim__rng_chance(&sim->chance, permille) ? lim__rng_range(&sim->chance, 1, n) : n;
}

static void note_bytes(const lim__sim_end *e, const char *what, const void *bytes, size_t n)
{
    lim__sim_note(e->sim, "%s %s:%u %zu bytes %016llx", what, e->machine->name, e->port, n,
                  (unsigned long long)lim__hash_bytes(lim__bytes(bytes, n), 0));
}

static long net_recv(lim__os *os, int fd, void *buf, size_t len)
{
    lim__sim_end *e = end_of(lim__sim_process_of(os), fd);
    if (!e)
        return -EBADF;
    LIM_ASSERT(e->state != LIM__SIM_LISTENING);
    size_t have = lim__buf_len(&e->ring), n = len < have ? len : have;
    if (have == 0) {
        if (e->state == LIM__SIM_BROKEN)
            return report_error(e, 0);
        return e->rx == LIM__SIM_ENDED ? 0 : -EAGAIN;
    }
    n = cut_short(e->sim, n, e->sim->net.short_read_permille);
    if (n > 0)
        memcpy(buf, e->ring.ptr + e->ring.start, n);
    lim__buf_consume(&e->ring, n);
    e->received += n;
    note_bytes(e, "recv", buf, n);
    open_window(e);
    end_check(e);
    return (long)n;
}

static long net_send(lim__os *os, int fd, const void *buf, size_t len)
{
    lim__sim_end *e = end_of(lim__sim_process_of(os), fd);
    if (!e)
        return -EBADF;
    LIM_ASSERT(e->state != LIM__SIM_LISTENING);
    if (e->state == LIM__SIM_CONNECTING)
        return -EAGAIN;
    if (e->state == LIM__SIM_BROKEN)
        return report_error(e, -EPIPE);
    if (e->tx == LIM__SIM_ENDED)
        return -EPIPE;
    size_t room = e->peer->inbound_max - e->peer->inbound_bytes, n = len < room ? len : room;
    if (n == 0)
        return len == 0 ? 0 : -EAGAIN;
    n = cut_short(e->sim, n, e->sim->net.short_write_permille);
    travel(e->peer, e->machine, SEG_DATA, buf, n);
    e->sent += n;
    note_bytes(e, "send", buf, n);
    if (!path_ok(e) && e->user_timeout_ms)
        give_up_at(e, e->sim->now + ms(e->user_timeout_ms));
    end_check(e->peer);
    return (long)n;
}

static void net_shutdown_write(lim__os *os, int fd)
{
    lim__sim_end *e = end_of(lim__sim_process_of(os), fd);
    if (!e || e->state != LIM__SIM_OPEN || e->tx == LIM__SIM_ENDED)
        return;
    e->tx = LIM__SIM_ENDED;
    travel(e->peer, e->machine, SEG_FIN, NULL, 0);
}

static void net_close(lim__os *os, int fd)
{
    lim__sim_process *p = lim__sim_process_of(os);
    if (fd < 0 || !enter(p))
        return;
    LIM_ASSERT(fd >= FIRST_FD && fd < p->fd_count && p->fds[fd]);
    LIM_ASSERT(!lim__sim_watched(p, fd)); /* os.h: remove before closing */
    lim__sim_note(p->sim, "close %s:%u fd %d", p->machine->name, p->fds[fd]->port, fd);
    end_close(p->fds[fd], true);
}

static void net_set_liveness(lim__os *os, int fd, uint32_t idle_ms, uint32_t user_timeout_ms)
{
    lim__sim_end *e = end_of(lim__sim_process_of(os), fd);
    if (!e)
        return;
    e->idle_ms = idle_ms;
    e->user_timeout_ms = user_timeout_ms;
    watch_path(e);
}

void lim__sim_net_table(lim__os *os)
{
    os->listen = net_listen;
    os->accept = net_accept;
    os->connect = net_connect;
    os->connect_result = net_connect_result;
    os->recv = net_recv;
    os->send = net_send;
    os->shutdown_write = net_shutdown_write;
    os->close = net_close;
    os->set_liveness = net_set_liveness;
}
