/* SPDX-License-Identifier: Apache-2.0
 * native_place.c - helpers: how they come, take over, and go.
 *
 * A router has two places. One helper is current and makes the calls; the other is the spare: loaded, tried out,
 * asleep.
 *
 *      spawn --> LOADING --ready--> READY --promote--> (current)
 *                   |                 |
 *                   `--- condemn -----+--> DYING --zygote: ended--> EMPTY --> spawn
 *
 * Whatever speaks against a helper, true or not, condemns it: the mark of its death in `word`, last words, an answer
 * that cannot be, too much time. It is then killed for certain, by its pidfd, nothing that it writes is read any more,
 * and the spare goes on with the row behind the call that was running. So a lie can only end the liar. That it has
 * ended is known from the zygote alone, which has waited for it; until then its place stays DYING. */
#include "route/native_inside.h"

#include <errno.h>
#include <stdio.h>

static void close_fd(int *fd)
{
    if (*fd >= 0)
        lim__os_linux()->close(lim__os_linux(), *fd);
    *fd = -1;
}

/* ---- spawning ---- */

static void note_failure(lim__ring *g, const char *text)
{
    snprintf(g->failure, sizeof g->failure, "%s: %.200s", g->router->name, text);
    g->failures++;
    g->failed_ns = g->router->os->now_ns(g->router->os);
}

/* Memory and sockets of a helper to come: theirs[] gets what the helper is given of it. */
static int place_open(lim__native_place *p, int *life, int *answers)
{
    int ends[2], err = lim__pair_open(ends);
    if (err != 0)
        return err;
    p->life = ends[0];
    *life = ends[1];
    *answers = lim__memory_open("answers", sizeof *p->answers);
    if (*answers < 0)
        return *answers;
    p->answers = lim__memory_map(*answers, sizeof *p->answers);
    return p->answers != NULL ? 0 : -ENOMEM;
}

static void on_life(lim_process *keeper, lim__watch *watch, uint32_t ready)
{
    (void)keeper, (void)ready;
    lim__ring_pump(LIM_CONTAINER(watch, lim__native_place, watch)->ring);
}

static int place_start(lim__ring *g, uint32_t i, int life, int answers)
{
    size_t code = g->router->artifact->bytes.len;
    lim__zygote_spawn spawn = { .what = LIM__ZYGOTE_SPAWN,
                                .place = i,
                                .code_bytes = code + LIM__NATIVE_OWN_BYTES,
                                .memory_bytes = g->memory_max,
                                .cpu_seconds = LIM__NATIVE_LIFE_S };
    const int fds[LIM__ZYGOTE_FDS] = { life, g->code_fd, g->requests_fd, answers, g->event };
    lim__ring_place *shared = &g->requests->place[i];
    atomic_store(&shared->active, 0);
    atomic_store(&shared->upto, 0);
    return lim__native_spawn(g->native, &spawn, fds);
}

void lim__place_spawn(lim__ring *g, uint32_t i)
{
    lim__native_place *p = &g->place[i];
    int life = -1, answers = -1;
    *p = (lim__native_place){ .phase = PLACE__EMPTY, .life = -1, .pidfd = -1, .pid = -1, .ring = g };
    int err = place_open(p, &life, &answers);
    if (err == 0)
        err = place_start(g, i, life, answers);
    close_fd(&life);
    close_fd(&answers);
    if (err != 0) {
        char text[120];
        snprintf(text, sizeof text, "no helper process could be started: %s", strerror(-err));
        note_failure(g, text);
        lim__place_close(g, i);
        return;
    }
    p->phase = PLACE__LOADING;
    p->born_ns = g->router->os->now_ns(g->router->os);
    lim__ring_watch_places(g, true);
}

void lim__ring_watch_places(lim__ring *g, bool on)
{
    lim_process *keeper = lim__ring_keeper(g);
    for (uint32_t i = 0; i < 2 && keeper != NULL; i++) {
        lim__native_place *p = &g->place[i];
        p->watch.on_ready = on_life;
        if (p->life >= 0)
            (void)!lim__watch_set(keeper, &p->watch, p->life, on ? LIM__IO_READ : 0);
    }
}

bool lim__ring_has_helper(const lim__ring *g)
{
    for (uint32_t i = 0; i < 2; i++) {
        if (g->place[i].phase == PLACE__LOADING || g->place[i].phase == PLACE__READY)
            return true;
    }
    return false;
}

void lim__ring_fill_places(lim__ring *g)
{
    for (uint32_t i = 0; i < 2; i++) {
        if (g->place[i].phase == PLACE__EMPTY && g->failures < LIM__NATIVE_FAILURES_MAX)
            lim__place_spawn(g, i);
    }
    lim__ring_promote(g);
    while (!lim__ring_has_helper(g) && lim__ring_waiting(g) > 0 && g->failures >= LIM__NATIVE_FAILURES_MAX)
        lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_NOT_STARTED, 0, "%s", g->failure);
}

/* ---- taking over ---- */

void lim__ring_promote(lim__ring *g)
{
    uint32_t i = g->place[0].phase == PLACE__READY ? 0 : g->place[1].phase == PLACE__READY ? 1 : LIM__NATIVE_NOBODY;
    if (g->current != LIM__NATIVE_NOBODY)
        return;
    if (i == LIM__NATIVE_NOBODY)
        i = g->place[0].phase == PLACE__LOADING ? 0 : g->place[1].phase == PLACE__LOADING ? 1 : LIM__NATIVE_NOBODY;
    if (i == LIM__NATIVE_NOBODY)
        return;
    lim__ring_place *shared = &g->requests->place[i];
    atomic_store(&g->place[i].answers->started, g->head);
    atomic_store(&g->place[i].answers->done, g->head);
    shared->from = g->head;
    atomic_store(&shared->active, 1);
    atomic_store(&shared->upto, g->tail);
    lim__futex_wake(&shared->upto);
    g->current = i;
    g->front = g->head - 1; /* nobody: it may not be ready yet */
    g->seen = g->asked_about = g->head - 1;
    g->idle_looks = 0;
}

/* It has loaded, and its first call went well. */
static void note_ready(lim__ring *g, uint32_t i)
{
    lim__native_place *p = &g->place[i];
    if (p->phase != PLACE__LOADING || atomic_load(&p->answers->state) != LIM__RING_READY)
        return;
    p->phase = PLACE__READY;
    g->failures = 0;
    if (i == g->current)
        lim__ring_observe(g);
}

/* ---- condemning ---- */

/* A pidfd comes from the zygote after the fork; the helper may be faster. */
static void kill_helper(lim__ring *g, lim__native_place *p)
{
    lim__zygote_word word;
    if (p->pidfd < 0 && lim__packet_recv(p->life, &word, sizeof word, &p->pidfd) == (long)sizeof word)
        p->pid = word.pid;
    if (p->pidfd >= 0)
        lim__pidfd_kill(p->pidfd);
    else
        lim__os_linux()->shutdown_write(lim__os_linux(), p->life); /* the zygote sees it, and kills */
    (void)g;
}

/* Last words, read once; made fit to be shown. False: there are none. */
static bool last_words(const lim__native_place *p, char out[LIM__NATIVE_TEXT])
{
    char text[LIM__RING_TEXT];
    uint32_t kind = atomic_load(&p->answers->note_kind), number = *(volatile uint32_t *)&p->answers->note_number;
    if (kind == LIM__RING_NO_NOTE)
        return false;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = *(volatile char *)&p->answers->note_text[i];
    text[sizeof text - 1] = 0;
    for (size_t i = 0; text[i] != 0; i++)
        text[i] = (char)(text[i] >= 0x20 && text[i] < 0x7F ? text[i] : text[i + 1] == 0 ? 0 : '_');
    if (kind == LIM__RING_SIGNAL)
        snprintf(out, LIM__NATIVE_TEXT, "ended by signal %u (%s)%s%.150s", number,
                 lim__signal_text(number < 128 ? (int)number : 0), text[0] != 0 ? ": " : "", text);
    else if (kind == LIM__RING_CALL)
        snprintf(out, LIM__NATIVE_TEXT, "it made the system call %u%s%.40s%s, which native functions may not", number,
                 text[0] != 0 ? " (" : "", text, text[0] != 0 ? ")" : "");
    else
        snprintf(out, LIM__NATIVE_TEXT, "%s", text);
    return true;
}

/* The oldest call was running, by what the helper counted. */
static bool was_running(const lim__ring *g, const lim__native_place *p)
{
    return lim__ring_waiting(g) > 0 && atomic_load(&p->answers->started) == g->head + 1;
}

/* The calls of a helper that died before it began with them are for the next one; not for ever. */
static void move_on(lim__ring *g, const char *why)
{
    for (uint32_t s = g->head; s != g->tail; s++)
        lim__ring_at(g, s)->moves++;
    while (lim__ring_waiting(g) > 0 && lim__ring_at(g, g->head)->moves >= LIM__NATIVE_MOVES_MAX)
        lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_NOT_STARTED, 0,
                        "%u helpers ended before they began with it: %s", LIM__NATIVE_MOVES_MAX, why);
}

static void blame_dead(lim__ring *g, lim__native_place *p)
{
    char words[LIM__NATIVE_TEXT] = "no last words";
    bool said = last_words(p, words);
    if (!was_running(g, p) || LIM__MUTATION("native_moves_on")) {
        move_on(g, words);
        return;
    }
    lim__native_call *c = lim__ring_pop(g);
    if (said) {
        lim__ring_fault(g, c, LIM__ROUTE_CRASHED, 0, "%s", words);
    } else if (c->phase == NATIVE__DROPPED) {
        lim__ring_idle(g, c);
    } else { /* the zygote will know */
        c->phase = NATIVE__DYING;
        p->culprit = c;
    }
}

static void blame(lim__ring *g, lim__native_place *p, lim__doom doom, uint64_t after_ns, const char *text)
{
    switch (doom) {
    case DOOM__DIED:
        blame_dead(g, p);
        return;
    case DOOM__CPU:
        lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_TIMED_OUT, after_ns,
                        "killed after %llu us of processor time (routing.cpu_us_max)",
                        (unsigned long long)(after_ns / 1000));
        return;
    case DOOM__WALL:
        lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_TIMED_OUT, after_ns,
                        "killed %llu ms after it was called (routing.wall_ms_max)",
                        (unsigned long long)(after_ns / 1000000));
        return;
    case DOOM__NONSENSE:
        if (lim__ring_waiting(g) > 0)
            lim__ring_fault(g, lim__ring_pop(g), LIM__ROUTE_CRASHED, 0, "%s", text);
        return;
    case DOOM__LOAD:
        move_on(g, text);
        return;
    case DOOM__RETIRED:
        return;
    }
}

void lim__place_condemn(lim__ring *g, uint32_t i, lim__doom doom, uint64_t after_ns, const char *text)
{
    lim__native_place *p = &g->place[i];
    const char *nonsense;
    if (p->phase != PLACE__LOADING && p->phase != PLACE__READY)
        return;
    note_ready(g, i);
    if (p->phase == PLACE__LOADING) {
        char words[LIM__NATIVE_TEXT];
        note_failure(g, last_words(p, words) ? words : text);
    }
    kill_helper(g, p);
    if (i == g->current && doom != DOOM__NONSENSE && !lim__ring_collect(g, &nonsense)) {
        doom = DOOM__NONSENSE;
        text = nonsense;
    }
    p->phase = PLACE__DYING;
    p->doom = doom;
    if (i != g->current)
        return;
    g->current = LIM__NATIVE_NOBODY;
    if (doom == DOOM__RETIRED || lim__ring_waiting(g) > 0)
        blame(g, p, doom, after_ns, text);
    lim__ring_promote(g);
}

/* ---- signs of life and death ---- */

void lim__place_look(lim__ring *g, uint32_t i)
{
    lim__native_place *p = &g->place[i];
    if (p->phase != PLACE__LOADING && p->phase != PLACE__READY)
        return;
    note_ready(g, i);
    bool died = (atomic_load(&p->answers->word) & LIM__RING_OWNER_DIED) != 0;
    if (atomic_load(&p->answers->note_kind) != LIM__RING_NO_NOTE || (died && p->phase == PLACE__READY))
        lim__place_condemn(g, i, DOOM__DIED, 0, "it ended before it was ready");
}

void lim__place_close(lim__ring *g, uint32_t i)
{
    lim__native_place *p = &g->place[i];
    lim_process *keeper = lim__ring_keeper(g);
    if (p->life >= 0 && keeper != NULL)
        (void)!lim__watch_set(keeper, &p->watch, p->life, 0);
    if (p->pidfd >= 0)
        lim__pidfd_kill(p->pidfd);
    if (p->answers != NULL)
        lim__memory_unmap(p->answers, sizeof *p->answers);
    close_fd(&p->pidfd);
    close_fd(&p->life); /* the zygote kills whom it still has */
    *p = (lim__native_place){ .phase = PLACE__EMPTY, .life = -1, .pidfd = -1, .pid = -1, .ring = g };
}

/* It has been waited for. `how`: what the zygote knows. */
static void ended(lim__ring *g, uint32_t i, const char *how)
{
    lim__native_place *p = &g->place[i];
    lim__place_condemn(g, i, DOOM__DIED, 0, how);
    lim__native_call *c = p->culprit;
    p->culprit = NULL;
    if (c != NULL)
        lim__ring_fault(g, c, LIM__ROUTE_CRASHED, 0, "%s", how);
    lim__place_close(g, i);
}

void lim__place_hear(lim__ring *g, uint32_t i)
{
    lim__native_place *p = &g->place[i];
    lim__zygote_word word;
    char how[LIM__NATIVE_TEXT];
    int fd;
    while (p->life >= 0) {
        long n = lim__packet_recv(p->life, &word, sizeof word, &fd);
        if (n == (long)sizeof word && word.what == LIM__ZYGOTE_BORN) {
            p->pidfd = fd;
            p->pid = word.pid;
            continue;
        }
        if (fd >= 0)
            lim__os_linux()->close(lim__os_linux(), fd);
        if (n == -EAGAIN)
            return;
        if (n == (long)sizeof word && word.status >= 0)
            lim__status_text(word.status, how, sizeof how);
        else
            snprintf(how, sizeof how, "%.150s", n == (long)sizeof word ? word.text : "all helpers were ended");
        ended(g, i, how);
    }
}
