/* SPDX-License-Identifier: Apache-2.0
 * tree.c - a supervision tree that heals itself, one storey at a time.
 *
 *      top ------------ counter ------- till
 *      (supervisor)     (supervisor)  `-- scale
 *
 * `counter` starts each of its two children again, up to twice in five seconds; then it stops the other one, gives up
 * and ends. That is an end like any other to `top`, which starts a new counter with a new till and a new scale. Nobody
 * looks after anything but its own children.
 *
 * The critic breaks things. What it does next depends on what it is told, never on how long it has waited:
 *
 *      both are up -> break the till -> it is back: break it again -> it is back, and again
 *                  -> the counter has ended -> both are up, other ones -> close top -> everybody has ended */
#include <liminal/actor.h>
#include <semaphore.h>
#include <stdio.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        lim_err e_ = (call);                                                                                           \
        if (e_ != LIM_OK) {                                                                                            \
            fprintf(stderr, #call ": %s\n", lim_err_text(e_));                                                         \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

enum { TILL, SCALE, CHILDREN };
enum { COUNTER_IS = 1, STARTED };
enum { RESTARTS_MAX = 2 };
static const char *const names[CHILDREN] = { "till", "scale" };

typedef struct started { /* the body of STARTED */
    int which;
    uint32_t starts;
    lim_pid pid;
} started;

static lim_runtime *rt;
static lim_pid critic, top;
static sem_t closed;       /* posted when the critic has ended */
static lim_reason verdict; /* of the critic, written before that */

/* ---- till and scale: they only exist, and say so ---- */
static void on_tool(lim_process *self, const lim_signal *signal, void *state)
{
    (void)self, (void)signal, (void)state;
}

static void tool_started(void *ctx, lim_pid pid, uint32_t starts)
{
    const char *const *name = ctx;
    started body = { .which = (int)(name - names), .starts = starts, .pid = pid };
    if (lim_runtime_send(rt, critic, STARTED, (lim_bytes){ &body, sizeof body }) != LIM_OK)
        printf("%s: the critic has left\n", *name);
}

/* ---- counter: a supervisor under a supervisor; each start adds its children ---- */
static void counter_started(void *ctx, lim_pid counter, uint32_t starts)
{
    (void)ctx;
    printf("top: counter started, %u so far\n", (unsigned)starts);
    lim_err err = lim_runtime_send(rt, critic, COUNTER_IS, (lim_bytes){ &counter, sizeof counter });
    for (int i = 0; i < CHILDREN && err == LIM_OK; i++) {
        lim_child_spec child = {
            .size = sizeof child,
            .spawn = { .size = sizeof child.spawn, .name = names[i], .on_signal = on_tool },
            .restart = LIM_PERMANENT,
            .on_start = tool_started,
            .ctx = (void *)&names[i],
        };
        err = lim_supervisor_add(rt, counter, &child);
    }
    if (err != LIM_OK)
        lim_runtime_exit(rt, counter, LIM_FAULT); /* and top tries again */
}

/* ---- the critic ---- */
static void must(lim_process *self, lim_err err) /* what cannot go on ends */
{
    if (err != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

typedef struct view {
    lim_pid counter, tools[CHILDREN]; /* {0}: not up */
    lim_pid first_scale;
    uint32_t breaks;
    uint32_t awaited; /* ends that are still to be told, once top is closed; 0 before */
} view;

static void break_till(lim_process *self, view *v)
{
    printf("critic: breaks the till\n");
    v->breaks++;
    v->first_scale = v->tools[SCALE];
    must(self, lim_exit_process(self, v->tools[TILL], LIM_FAULT));
    v->tools[TILL].id = 0;
}

/* Only the root is told to end: the rest of the tree follows, and whoever watches sees it go. */
static void close_top(lim_process *self, view *v)
{
    const lim_pid watched[] = { v->tools[TILL], v->tools[SCALE], top };
    uint64_t monitor;
    printf("critic: closes top\n");
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        must(self, lim_monitor(self, watched[i], &monitor));
    v->awaited = 4; /* the counter has been watched from its start */
    must(self, lim_exit_process(self, top, LIM_SHUTDOWN));
}

static void tool_is_up(lim_process *self, view *v, const started *s)
{
    printf("counter: %s started, %u so far\n", names[s->which], (unsigned)s->starts);
    v->tools[s->which] = s->pid;
    if (!v->tools[TILL].id || !v->tools[SCALE].id)
        return;
    if (v->breaks <= RESTARTS_MAX)
        break_till(self, v);
    else if (s->starts == 1 && v->tools[SCALE].id != v->first_scale.id)
        close_top(self, v);
    else
        lim_exit(self, LIM_FAULT); /* the counter did more than it may */
}

static void somebody_ended(lim_process *self, view *v, const lim_signal *signal)
{
    if (v->awaited > 0) {
        if (--v->awaited == 0)
            lim_exit(self, LIM_NORMAL);
        return;
    }
    printf("critic: the counter has ended: %s\n", lim_reason_text(signal->reason));
    v->tools[TILL].id = v->tools[SCALE].id = 0;
    if (v->breaks != RESTARTS_MAX + 1 || signal->reason != LIM_SHUTDOWN)
        lim_exit(self, LIM_FAULT);
}

static void on_critic(lim_process *self, const lim_signal *signal, void *state)
{
    view *v = state;
    uint64_t monitor;
    if (signal->kind == LIM_SIGNAL_DOWN) {
        somebody_ended(self, v, signal);
    } else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == COUNTER_IS) {
        v->counter = *(const lim_pid *)signal->body.ptr;
        must(self, lim_monitor(self, v->counter, &monitor));
    } else if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == STARTED) {
        tool_is_up(self, v, signal->body.ptr);
    }
}

static void on_critic_end(void *state, lim_reason reason)
{
    (void)state;
    verdict = reason;
    sem_post(&closed);
}

static int grow(void)
{
    lim_spawn_opts critic_opts = { .size = sizeof critic_opts,
                                   .name = "critic",
                                   .on_signal = on_critic,
                                   .on_end = on_critic_end,
                                   .state_bytes = sizeof(view) };
    TRY(lim_runtime_spawn(rt, &critic_opts, &critic));

    lim_supervisor_opts opts = { .size = sizeof opts, .name = "top", .restarts_max = 1, .period_ms = 5000 };
    TRY(lim_supervisor_open(rt, &opts, &top));
    lim_supervisor_opts counter_opts = { .size = sizeof counter_opts,
                                         .name = "counter",
                                         .strategy = LIM_ONE_FOR_ONE,
                                         .restarts_max = RESTARTS_MAX,
                                         .period_ms = 5000 };
    lim_child_spec counter = { .size = sizeof counter,
                               .spawn = { .size = sizeof counter.spawn },
                               .supervisor = &counter_opts,
                               .restart = LIM_PERMANENT,
                               .on_start = counter_started };
    TRY(lim_supervisor_add(rt, top, &counter));
    while (sem_wait(&closed) != 0) /* interrupted: wait on */
        ;
    return 0;
}

int main(void)
{
    lim_runtime_opts opts = { .size = sizeof opts, .scheduler_count = 1 };
    if (sem_init(&closed, 0, 0) != 0)
        return 1;
    TRY(lim_runtime_open(&opts, &rt));
    int code = grow();
    lim_runtime_close(rt);
    printf("critic: ended: %s\n", lim_reason_text(verdict));
    return code == 0 && verdict == LIM_NORMAL ? 0 : 1;
}
