/* SPDX-License-Identifier: Apache-2.0
 * sim_os.c - the world: its clock, its events, its tasks and their pollers. TCP is in sim_net.c, files are in
 * sim_disk.c.
 *
 *   lim__sim_step:   events that are due --> tasks that can run? --some--> the seed picks one, it runs, time passes
 *                        (in order of time,        |
 *                         then of creation)        `--none--> the clock jumps to the next event or deadline
 *
 * A poller never blocks. It answers what is ready now; when that is nothing, it remembers how long it was asked to
 * wait. A wait that a real loop would have to repeat (it returned early, woken or with events) marks the poller, so
 * that its task gets one more turn and can say how long it wants to wait from there.
 *
 * Invariants:
 *   W1  now never decreases; an event is taken out at or after its time, and in (time, creation) order.
 *   W2  the only inputs are the seed and the calls: nothing is ordered by address, no real clock is read.
 *   W3  a dead program's tasks do not run and its calls change nothing. */
#include "sim/sim_world.h"
#include "base/map.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

static const uint64_t START_NS = 1000000000u;         /* not 0: that often means "no time" */
static const uint64_t WALL_NS = 1750000000000000000u; /* what 0 on our clock is since 1970 */
enum { US = 1000, MS = 1000000 };

enum poller_mark { SETTLED = 1, WOKEN, RETURNED_EARLY };
struct slot {
    void *ctx;
    uint32_t interest;
};
struct lim__poller {
    lim__sim_process *process;
    lim__sim_task *task; /* that waited on it last */
    enum poller_mark mark;
    uint64_t deadline;
    struct slot *slots; /* by descriptor */
    int slot_count;
    lim__list all; /* in sim->pollers */
};

enum task_state { TASK_QUIET = 1, TASK_AGAIN, TASK_REMOVED };
struct lim__sim_task {
    char name[32];
    lim__sim_process *process;
    enum task_state state;
    uint32_t weight; /* some tasks get fewer turns than others */
    bool (*turn)(void *ctx);
    uint64_t (*next_due_ns)(void *ctx);
    void *ctx;
    lim__list all; /* in sim->tasks */
};

void *lim__sim_alloc(size_t bytes)
{
    void *block = calloc(1, bytes);
    LIM_ASSERT(block);
    return block;
}

lim__sim_process *lim__sim_process_of(const lim__os *os)
{
    return LIM_CONTAINER(os, lim__sim_process, os);
}

/* ---- history ---- */

void lim__sim_note(lim__sim *sim, const char *format, ...)
{
    char line[512];
    int n = snprintf(line, sizeof line, "%llu.%09llu ", (unsigned long long)(sim->now / 1000000000u),
                     (unsigned long long)(sim->now % 1000000000u));
    va_list args;
    va_start(args, format);
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    sim->hash = lim__hash_bytes(lim__str(line), sim->hash);
    if (sim->trace)
        fprintf(sim->trace, "%s\n", line);
}

uint64_t lim__sim_hash(const lim__sim *sim)
{
    return sim->hash;
}

uint64_t lim__sim_steps(const lim__sim *sim)
{
    return sim->steps;
}

void lim__sim_trace(lim__sim *sim, FILE *out)
{
    sim->trace = out;
}

/* ---- the world ---- */

static uint64_t one_of(lim__rng *r, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t which = lim__rng_below(r, 3);
    return which == 0 ? a : which == 1 ? b : c;
}

/* Worlds differ more from each other than moments of one world: a fault that needs tiny buffers and slow links at the
 * same time is found by some seed, not by every seed's average. */
static void draw_net(lim__sim *sim)
{
    lim__rng *r = &sim->chance;
    lim__sim_net *net = &sim->net; /* one statement per draw: the order inside an initialiser is the compiler's */
    net->delay_min_ns = 10 * US;
    net->delay_max_ns = one_of(r, 50 * US, 500 * US, 5 * MS);
    net->spike_max_ns = one_of(r, 10 * MS, 50 * MS, 200 * MS);
    net->spike_permille = (uint32_t)one_of(r, 0, 5, 20);
    net->buffer_min = (uint32_t)one_of(r, 256, 4096, 65536);
    net->buffer_max = net->buffer_min * 4;
    net->short_read_permille = (uint32_t)one_of(r, 0, 100, 500);
    net->short_write_permille = (uint32_t)one_of(r, 0, 100, 500);
    net->turn_min_ns = 1 * US;
    net->turn_max_ns = one_of(r, 2 * US, 20 * US, 200 * US);
    net->clock_read_ns = 20;
}

lim__sim *lim__sim_open(uint64_t seed)
{
    lim__sim *sim = lim__sim_alloc(sizeof *sim);
    lim__rng root = lim__rng_seeded(seed);
    sim->seed = sim->hash = seed;
    sim->now = START_NS;
    sim->choices = lim__rng_seeded(lim__rng_next(&root));
    sim->chance = lim__rng_seeded(lim__rng_next(&root));
    sim->script = lim__rng_seeded(lim__rng_next(&root));
    lim__list_init(&sim->processes);
    lim__list_init(&sim->ends);
    lim__list_init(&sim->tasks);
    lim__list_init(&sim->pollers);
    draw_net(sim);
    return sim;
}

static void poller_free(lim__poller *p)
{
    lim__list_remove(&p->all);
    free(p->slots);
    free(p);
}

void lim__sim_close(lim__sim *sim)
{
    if (!sim)
        return;
    LIM_ASSERT(!sim->running);
    lim__sim_net_fini(sim);
    LIM__LIST_EACH_SAFE(node, next, &sim->pollers)
        poller_free(LIM_CONTAINER(node, lim__poller, all));
    LIM__LIST_EACH_SAFE(node, next, &sim->tasks)
        free(LIM_CONTAINER(node, lim__sim_task, all));
    LIM__LIST_EACH_SAFE(node, next, &sim->processes) {
        lim__sim_process *p = LIM_CONTAINER(node, lim__sim_process, all);
        free(p->fds);
        lim__sim_drive_drop_process(p);
        free(p);
    }
    for (uint32_t i = 0; i < sim->machine_count; i++)
        lim__sim_drive_free(sim->machines[i].drive);
    free(sim->events);
    free(sim);
}

uint64_t lim__sim_seed(const lim__sim *sim)
{
    return sim->seed;
}

lim__sim_net lim__sim_net_get(const lim__sim *sim)
{
    return sim->net;
}

void lim__sim_net_set(lim__sim *sim, const lim__sim_net *net)
{
    LIM_ASSERT(net->delay_min_ns <= net->delay_max_ns);
    LIM_ASSERT(net->buffer_min > 0 && net->buffer_min <= net->buffer_max);
    LIM_ASSERT(net->turn_min_ns > 0 && net->turn_min_ns <= net->turn_max_ns);
    sim->net = *net;
}

lim__rng *lim__sim_rng(lim__sim *sim)
{
    return &sim->script;
}

/* ---- clock and chance, as a program sees them ---- */

static uint64_t os_now(lim__os *os)
{
    lim__sim_process *p = lim__sim_process_of(os);
    if (p->life != LIM__SIM_DEAD)
        p->sim->now += p->sim->net.clock_read_ns;
    return p->sim->now;
}

static uint64_t os_wall(lim__os *os)
{
    return WALL_NS + os_now(os);
}

static uint64_t os_random(lim__os *os)
{
    return lim__rng_next(&lim__sim_process_of(os)->rng);
}

/* ---- pollers ---- */

static lim__poller *poller_open(lim__os *os)
{
    lim__sim_process *process = lim__sim_process_of(os);
    lim__poller *p = lim__sim_alloc(sizeof *p);
    p->process = process;
    p->mark = SETTLED;
    p->deadline = LIM__SIM_NEVER;
    lim__list_push(&process->sim->pollers, &p->all);
    return p;
}

static void poller_close(lim__os *os, lim__poller *p)
{
    (void)os;
    if (p)
        poller_free(p);
}

static int poller_set(lim__os *os, lim__poller *p, int fd, uint32_t interest, void *ctx)
{
    lim__sim_process *process = lim__sim_process_of(os);
    LIM_ASSERT(p->process == process);
    if (process->life == LIM__SIM_DEAD || fd < 0 || fd >= process->fd_count || !process->fds[fd])
        return interest == 0 ? 0 : -EBADF;
    if (fd >= p->slot_count) {
        int count = fd < 32 ? 64 : fd * 2;
        p->slots = realloc(p->slots, (size_t)count * sizeof *p->slots);
        LIM_ASSERT(p->slots);
        memset(p->slots + p->slot_count, 0, (size_t)(count - p->slot_count) * sizeof *p->slots);
        p->slot_count = count;
    }
    p->slots[fd] = interest == 0 ? (struct slot){ 0 } : (struct slot){ ctx, interest };
    return 0;
}

bool lim__sim_watched(const lim__sim_process *process, int fd)
{
    LIM__LIST_EACH(node, &process->sim->pollers) {
        const lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (p->process == process && fd < p->slot_count && p->slots[fd].interest != 0)
            return true;
    }
    return false;
}

/* As epoll: asked for, plus both whenever something is wrong. */
static uint32_t slot_ready(const lim__poller *p, int fd)
{
    const lim__sim_process *process = p->process;
    if (p->slots[fd].interest == 0 || fd >= process->fd_count || !process->fds[fd])
        return 0;
    const lim__sim_end *end = process->fds[fd];
    uint32_t ready = lim__sim_end_ready(end);
    bool hung_up = end->state == LIM__SIM_BROKEN || (end->rx == LIM__SIM_ENDED && end->tx == LIM__SIM_ENDED);
    return hung_up ? ready : ready & p->slots[fd].interest;
}

static bool poller_has_ready(const lim__poller *p)
{
    for (int fd = 0; fd < p->slot_count; fd++) {
        if (slot_ready(p, fd))
            return true;
    }
    return false;
}

/* Starts at a descriptor chosen by the seed: what is ready together has no order, and `max` cuts it anywhere. */
static int collect_ready(lim__poller *p, lim__io_event *ev, int max)
{
    int count = 0;
    if (p->slot_count == 0)
        return 0;
    int first = (int)lim__rng_below(&p->process->sim->choices, (uint64_t)p->slot_count);
    for (int i = 0; i < p->slot_count && count < max; i++) {
        int fd = (first + i) % p->slot_count;
        uint32_t ready = slot_ready(p, fd);
        if (ready)
            ev[count++] = (lim__io_event){ p->slots[fd].ctx, ready };
    }
    return count;
}

static int poller_wait(lim__os *os, lim__poller *p, lim__io_event *ev, int max, int64_t timeout_ns)
{
    lim__sim_process *process = lim__sim_process_of(os);
    LIM_ASSERT(p->process == process);
    LIM_ASSERT(max > 0);
    enum poller_mark before = p->mark;
    p->task = process->sim->running;
    p->mark = SETTLED;
    p->deadline = LIM__SIM_NEVER;
    if (process->life == LIM__SIM_DEAD)
        return 0;
    int count = collect_ready(p, ev, max);
    if (timeout_ns == 0)
        return count;
    if (count > 0 || before == WOKEN)
        p->mark = RETURNED_EARLY;
    else if (timeout_ns > 0 && p->task && (uint64_t)timeout_ns < LIM__SIM_NEVER - process->sim->now)
        p->deadline = process->sim->now + (uint64_t)timeout_ns;
    return count;
}

static void poller_wake(lim__os *os, lim__poller *p)
{
    (void)os;
    p->mark = WOKEN;
}

static int poller_fd(lim__os *os, lim__poller *p)
{
    (void)os;
    (void)p;
    return -1; /* there is no outside loop that could watch it */
}

/* ---- machines and programs ---- */

static lim__sim_machine *machine_named(lim__sim *sim, const char *name)
{
    for (uint32_t i = 0; i < sim->machine_count; i++) {
        if (strcmp(sim->machines[i].name, name) == 0)
            return &sim->machines[i];
    }
    LIM_ASSERT(sim->machine_count < LIM__SIM_MACHINES_MAX);
    lim__sim_machine *m = &sim->machines[sim->machine_count];
    LIM_ASSERT(strlen(name) < sizeof m->name);
    *m = (lim__sim_machine){ .index = sim->machine_count++, .power = LIM__SIM_ON, .port_next = 32768 };
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->address, sizeof m->address, "10.0.0.%u", m->index + 1);
    uint64_t mix = ~sim->seed + m->index; /* a stream of its own: what a disk does changes nothing on the network */
    m->drive = lim__sim_drive_new(lim__splitmix64(&mix));
    return m;
}

static lim__sim_process *process_start(lim__sim *sim, lim__sim_machine *m)
{
    lim__sim_process *p = lim__sim_alloc(sizeof *p);
    uint64_t mix = sim->seed + ++sim->process_count;
    p->sim = sim;
    p->machine = m;
    p->life = LIM__SIM_RUNNING;
    p->number = sim->process_count;
    p->rng = lim__rng_seeded(lim__splitmix64(&mix));
    p->os = (lim__os){
        .now_ns = os_now,
        .wall_ns = os_wall,
        .random = os_random,
        .poller_open = poller_open,
        .poller_close = poller_close,
        .poller_set = poller_set,
        .poller_wait = poller_wait,
        .poller_wake = poller_wake,
        .poller_fd = poller_fd,
    };
    lim__sim_net_table(&p->os);
    lim__sim_disk_table(&p->os);
    lim__list_push(&sim->processes, &p->all);
    m->process = p;
    return p;
}

lim__sim *lim__sim_of(const lim__os *host)
{
    return lim__sim_process_of(host)->sim;
}

const char *lim__sim_host_address(const lim__os *host)
{
    return lim__sim_process_of(host)->machine->address;
}

bool lim__sim_host_alive(const lim__os *host)
{
    return lim__sim_process_of(host)->life != LIM__SIM_DEAD;
}

lim__os *lim__sim_host(lim__sim *sim, const char *name)
{
    lim__sim_machine *m = machine_named(sim, name);
    if (m->process && m->process->life != LIM__SIM_DEAD)
        return &m->process->os;
    lim__sim_process *p = process_start(sim, m);
    lim__sim_note(sim, "start %s #%u", m->name, p->number);
    if (m->power == LIM__SIM_OFF) {
        m->power = LIM__SIM_ON;
        for (uint32_t i = 0; i < sim->machine_count; i++)
            lim__sim_net_resume(sim, m, &sim->machines[i]);
    }
    return &p->os;
}

static void end_process(lim__sim_process *p, bool tell_peers)
{
    if (p->life == LIM__SIM_DEAD)
        return;
    p->life = LIM__SIM_DEAD;
    lim__sim_note(p->sim, "%s %s #%u", tell_peers ? "kill" : "power off", p->machine->name, p->number);
    if (!tell_peers)
        p->machine->power = LIM__SIM_OFF;
    lim__sim_net_drop_process(p, tell_peers);
    lim__sim_drive_drop_process(p);
}

void lim__sim_kill_host(lim__sim *sim, lim__os *host)
{
    LIM_ASSERT(lim__sim_of(host) == sim);
    end_process(lim__sim_process_of(host), true);
}

void lim__sim_power_off(lim__sim *sim, lim__os *host)
{
    LIM_ASSERT(lim__sim_of(host) == sim);
    lim__sim_machine *m = lim__sim_process_of(host)->machine;
    if (m->power == LIM__SIM_OFF)
        return;
    if (m->process->life == LIM__SIM_DEAD)
        lim__sim_note(sim, "power off %s", m->name);
    end_process(m->process, false);
    m->power = LIM__SIM_OFF;
    lim__sim_drive_power_off(sim, m);
}

void lim__sim_kill_host_at_call(lim__sim *sim, lim__os *host, uint64_t n)
{
    LIM_ASSERT(lim__sim_of(host) == sim);
    lim__sim_process_of(host)->kill_at_call = n;
}

void lim__sim_freeze_host(lim__sim *sim, lim__os *host)
{
    lim__sim_process *p = lim__sim_process_of(host);
    if (p->life != LIM__SIM_RUNNING)
        return;
    p->life = LIM__SIM_FROZEN;
    lim__sim_note(sim, "freeze %s", p->machine->name);
}

void lim__sim_thaw_host(lim__sim *sim, lim__os *host)
{
    lim__sim_process *p = lim__sim_process_of(host);
    if (p->life != LIM__SIM_FROZEN)
        return;
    p->life = LIM__SIM_RUNNING;
    lim__sim_note(sim, "thaw %s", p->machine->name);
}

/* ---- events ---- */

static bool earlier(const lim__sim_event *a, const lim__sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void heap_up(lim__sim_event *heap, size_t i)
{
    lim__sim_event moving = heap[i];
    for (; i > 0 && earlier(&moving, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = moving;
}

static void heap_down(lim__sim_event *heap, size_t count)
{
    lim__sim_event moving = heap[0];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < count && earlier(&heap[child + 1], &heap[child]))
            child++;
        if (child >= count || !earlier(&heap[child], &moving))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

void lim__sim_event_push(lim__sim *sim, lim__sim_event event)
{
    if (sim->event_count == sim->event_cap) {
        sim->event_cap = sim->event_cap ? sim->event_cap * 2 : 64;
        sim->events = realloc(sim->events, sim->event_cap * sizeof *sim->events);
        LIM_ASSERT(sim->events);
    }
    event.seq = sim->seq++;
    if (event.end)
        event.end->events++;
    sim->events[sim->event_count] = event;
    heap_up(sim->events, sim->event_count++);
}

static lim__sim_event event_pop(lim__sim *sim)
{
    lim__sim_event first = sim->events[0];
    sim->events[0] = sim->events[--sim->event_count];
    if (sim->event_count > 0)
        heap_down(sim->events, sim->event_count);
    return first;
}

void lim__sim_at(lim__sim *sim, uint64_t when_ns, void (*fn)(lim__sim *sim, void *ctx), void *ctx)
{
    lim__sim_event_push(sim, (lim__sim_event){ .at = when_ns, .kind = LIM__SIM_SCRIPT, .fn = fn, .ctx = ctx });
}

static void run_events_until(lim__sim *sim, uint64_t when_ns)
{
    while (sim->event_count > 0 && sim->events[0].at <= when_ns) {
        lim__sim_event event = event_pop(sim);
        if (event.at > sim->now)
            sim->now = event.at;
        if (event.kind == LIM__SIM_SCRIPT)
            event.fn(sim, event.ctx);
        else
            lim__sim_net_event(sim, &event);
    }
}

uint64_t lim__sim_now(const lim__sim *sim)
{
    return sim->now;
}

void lim__sim_advance_to(lim__sim *sim, uint64_t when_ns)
{
    LIM_ASSERT(!sim->running);
    run_events_until(sim, when_ns);
    if (when_ns > sim->now)
        sim->now = when_ns;
}

/* ---- tasks ---- */

lim__sim_task *lim__sim_task_add(lim__sim *sim, lim__os *host, const char *name, bool (*turn)(void *ctx),
                                 uint64_t (*next_due_ns)(void *ctx), void *ctx)
{
    LIM_ASSERT(lim__sim_of(host) == sim);
    lim__sim_task *t = lim__sim_alloc(sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->process = lim__sim_process_of(host);
    t->state = TASK_AGAIN;
    t->weight = (uint32_t)lim__rng_range(&sim->choices, 1, 4);
    t->turn = turn;
    t->next_due_ns = next_due_ns;
    t->ctx = ctx;
    lim__list_push(&sim->tasks, &t->all);
    return t;
}

static void task_free(lim__sim *sim, lim__sim_task *t)
{
    LIM__LIST_EACH(node, &sim->pollers) {
        lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (p->task != t)
            continue;
        p->task = NULL;
        p->deadline = LIM__SIM_NEVER;
    }
    lim__list_remove(&t->all);
    free(t);
}

void lim__sim_task_remove(lim__sim *sim, lim__sim_task *task)
{
    if (!task)
        return;
    if (task == sim->running)
        task->state = TASK_REMOVED; /* freed when its turn returns */
    else
        task_free(sim, task);
}

void lim__sim_task_poke(lim__sim_task *task)
{
    if (task->state == TASK_QUIET)
        task->state = TASK_AGAIN;
}

/* Does the poller concern the task: it waited there last, or nobody did and it is the same program's. */
static bool listens(const lim__sim_task *t, const lim__poller *p)
{
    return p->task ? p->task == t : p->process == t->process;
}

static bool task_can_run(lim__sim *sim, const lim__sim_task *t)
{
    if (t->process->life != LIM__SIM_RUNNING)
        return false;
    if (t->state == TASK_AGAIN || (t->next_due_ns && t->next_due_ns(t->ctx) <= sim->now))
        return true;
    LIM__LIST_EACH(node, &sim->pollers) {
        const lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (listens(t, p) && (p->mark != SETTLED || p->deadline <= sim->now || poller_has_ready(p)))
            return true;
    }
    return false;
}

static lim__sim_task *pick_task(lim__sim *sim)
{
    uint64_t weights = 0;
    lim__sim_task *picked = NULL;
    LIM__LIST_EACH(node, &sim->tasks) {
        lim__sim_task *t = LIM_CONTAINER(node, lim__sim_task, all);
        if (!task_can_run(sim, t))
            continue;
        weights += t->weight;
        if (lim__rng_below(&sim->choices, weights) < t->weight)
            picked = t;
    }
    return picked;
}

/* A deadline that had passed when the turn began, and that the turn did not renew, has had its say. */
static void settle_deadlines(lim__sim *sim, const lim__sim_task *t, uint64_t started)
{
    LIM__LIST_EACH(node, &sim->pollers) {
        lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (listens(t, p) && p->deadline <= started)
            p->deadline = LIM__SIM_NEVER;
    }
}

static void run_task(lim__sim *sim, lim__sim_task *t)
{
    lim__sim_note(sim, "turn %s/%s", t->process->machine->name, t->name);
    uint64_t started = sim->now;
    LIM__LIST_EACH(node, &sim->pollers) {
        lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (p->task == t && p->mark == RETURNED_EARLY)
            p->mark = SETTLED;
    }
    t->state = TASK_QUIET;
    sim->running = t;
    bool more = t->turn(t->ctx);
    sim->running = NULL;
    settle_deadlines(sim, t, started);
    sim->now += lim__rng_range(&sim->chance, sim->net.turn_min_ns, sim->net.turn_max_ns);
    if (t->state == TASK_REMOVED)
        task_free(sim, t);
    else if (more)
        t->state = TASK_AGAIN;
}

/* The earliest instant at which anything changes by itself. */
static uint64_t next_instant(lim__sim *sim)
{
    uint64_t next = sim->event_count > 0 ? sim->events[0].at : LIM__SIM_NEVER;
    LIM__LIST_EACH(node, &sim->tasks) {
        lim__sim_task *t = LIM_CONTAINER(node, lim__sim_task, all);
        uint64_t due = t->next_due_ns && t->process->life == LIM__SIM_RUNNING ? t->next_due_ns(t->ctx) : next;
        next = due < next ? due : next;
    }
    LIM__LIST_EACH(node, &sim->pollers) {
        const lim__poller *p = LIM_CONTAINER(node, lim__poller, all);
        if (p->process->life == LIM__SIM_RUNNING && p->deadline < next)
            next = p->deadline;
    }
    return next;
}

/* One turn if any task can run. Else jumps, at most to the limit. False: nothing to jump to before it. */
static bool step_until(lim__sim *sim, uint64_t limit)
{
    LIM_ASSERT(!sim->running);
    run_events_until(sim, sim->now);
    sim->steps++;
    lim__sim_task *t = pick_task(sim);
    if (t) {
        run_task(sim, t);
        return true;
    }
    uint64_t next = next_instant(sim);
    if (next == LIM__SIM_NEVER || next > limit)
        return false;
    if (next > sim->now)
        sim->now = next;
    return true;
}

bool lim__sim_step(lim__sim *sim)
{
    return step_until(sim, LIM__SIM_NEVER - 1);
}

bool lim__sim_run(lim__sim *sim, uint64_t until_ns, bool (*done)(void *ctx), void *ctx)
{
    for (;;) {
        if (done && done(ctx))
            return true;
        if (sim->now >= until_ns)
            return false;
        if (!step_until(sim, until_ns)) {
            if (until_ns != LIM__SIM_NEVER && until_ns > sim->now)
                sim->now = until_ns;
            return false;
        }
    }
}
