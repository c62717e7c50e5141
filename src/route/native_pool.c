/* SPDX-License-Identifier: Apache-2.0
 * native_pool.c - what the routers of a bus share: the zygote, and what was only checked.
 *
 *      router --spawn, one packet with descriptors--> zygote --fork--> helper
 *        ^------------ born, ended: on a socket of the helper's own ------'
 *
 * A packet is sent whole or not at all, and its answers come on a socket of the router's own, so no lock is held and
 * nothing is waited for. If the zygote has ended, by whatever mishap, the next request starts another one. */
#include "route/native_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef LIM_HELPER_PATH
#define LIM_HELPER_PATH "/usr/libexec/liminal-helper"
#endif
enum { HELLO_NS_MAX = 10 }; /* seconds */

/* ---- the program ---- */

static bool find_helper(lim__native *n, const char *given, lim_diag *diag)
{
    char beside[3500] = "";
    if (given != NULL) {
        snprintf(n->helper, sizeof n->helper, "%s", given);
    } else {
        if (lim__program_folder(beside, sizeof beside) != 0)
            beside[0] = 0;
        snprintf(n->helper, sizeof n->helper, "%s/liminal-helper", beside);
        if (!lim__file_executable(n->helper)) /* in a folder below, as bench/ is */
            snprintf(n->helper, sizeof n->helper, "%s/../liminal-helper", beside);
        if (!lim__file_executable(n->helper))
            snprintf(n->helper, sizeof n->helper, "%s", LIM_HELPER_PATH);
    }
    if (lim__file_executable(n->helper))
        return true;
    lim__diag_set(diag, 0, 0, "the native engine needs the program liminal-helper: there is none %s%s%s%s", beside,
                  beside[0] != 0 ? " (beside this program), nor " : "", "at ", n->helper);
    return false;
}

/* ---- the zygote ---- */

static lim_err hello(int control, lim_diag *diag)
{
    lim__zygote_word word;
    int fd;
    if (!lim__readable(control, HELLO_NS_MAX * 1000000000ll) ||
        lim__packet_recv(control, &word, sizeof word, &fd) != (long)sizeof word || word.what != LIM__ZYGOTE_HELLO) {
        lim__diag_set(diag, 0, 0, "liminal-helper does not answer: is it of this version?");
        return LIM_E_IO;
    }
    if (word.pid != LIM__ZYGOTE_ABI) {
        lim__diag_set(diag, 0, 0, "liminal-helper is of another version");
        return LIM_E_IO;
    }
    if (word.status != 0) {
        lim__diag_set(diag, 0, 0, "native routing functions cannot be held back here: %.150s", word.text);
        return LIM_E_DENIED;
    }
    return LIM_OK;
}

static void zygote_stop(lim__native *n)
{
    if (n->control >= 0)
        lim__os_linux()->close(lim__os_linux(), n->control);
    if (n->pid > 0)
        lim__program_reap(n->pid);
    n->control = n->pid = -1;
}

static lim_err zygote_start(lim__native *n, lim_diag *diag)
{
    int ends[2], err = lim__pair_open(ends);
    if (err == 0) {
        n->control = ends[0];
        n->pid = lim__program_start(n->helper, ends[1]);
        lim__os_linux()->close(lim__os_linux(), ends[1]);
        err = n->pid < 0 ? n->pid : 0;
    }
    if (err != 0)
        lim__diag_set(diag, 0, 0, "%s cannot be started: %s", n->helper, strerror(-err));
    lim_err result = err != 0 ? LIM_E_IO : hello(n->control, diag);
    if (result != LIM_OK)
        zygote_stop(n);
    return result;
}

static int send_spawn(lim__native *n, const lim__zygote_spawn *spawn, const int *fds)
{
    return n->control < 0 ? -EPIPE : lim__packet_send(n->control, spawn, sizeof *spawn, fds, LIM__ZYGOTE_FDS);
}

int lim__native_spawn(lim__native *n, const lim__zygote_spawn *spawn, const int fds[LIM__ZYGOTE_FDS])
{
    pthread_mutex_lock(&n->mutex);
    int err = send_spawn(n, spawn, fds);
    if (err == -EPIPE || err == -ECONNRESET) {
        zygote_stop(n);
        err = zygote_start(n, NULL) == LIM_OK ? send_spawn(n, spawn, fds) : -EPIPE;
    }
    pthread_mutex_unlock(&n->mutex);
    return err;
}

int lim__native_zygote(lim__native *n)
{
    pthread_mutex_lock(&n->mutex);
    int pid = n->pid;
    pthread_mutex_unlock(&n->mutex);
    return pid;
}

/* ---- rings that were only checked ----
 * Whoever loads an artifact is about to deploy it. What was made to try it out, two helpers that are ready, is kept for
 * the slot that opens it next, so that a swap waits for nothing. The oldest gives way. */

void lim__native_park(lim__native *n, lim__ring *g)
{
    lim__ring *oldest = NULL;
    pthread_mutex_lock(&n->mutex);
    for (uint32_t i = 0; i < LIM_COUNT(n->parked); i++) {
        lim__ring *next = n->parked[i];
        n->parked[i] = g;
        g = oldest = next;
    }
    pthread_mutex_unlock(&n->mutex);
    lim__ring_free(oldest);
}

lim__ring *lim__native_take_parked(lim__native *n, const lim__router *r)
{
    lim__ring *found = NULL;
    pthread_mutex_lock(&n->mutex);
    for (uint32_t i = 0; i < LIM_COUNT(n->parked) && found == NULL; i++) {
        lim__ring *g = n->parked[i];
        if (g == NULL || g->memory_max != r->limits.memory_max ||
            memcmp(g->hash, r->artifact->hash, sizeof g->hash) != 0)
            continue;
        found = g;
        memmove(&n->parked[i], &n->parked[i + 1], (LIM_COUNT(n->parked) - i - 1) * sizeof n->parked[0]);
        n->parked[LIM_COUNT(n->parked) - 1] = NULL;
    }
    pthread_mutex_unlock(&n->mutex);
    return found;
}

/* ---- opening and closing ---- */

lim_err lim__native_open(const lim__native_opts *opts, lim_diag *diag, lim__native **out)
{
    lim__native *n = calloc(1, sizeof *n);
    if (n == NULL)
        return LIM_E_NOMEM;
    n->rt = opts->rt;
    n->os = opts->rt != NULL ? lim__runtime_os(opts->rt) : lim__os_linux();
    n->script = opts->script;
    n->script_ctx = opts->script_ctx;
    n->mutex = (lim__mutex)LIM__MUTEX_INIT;
    n->control = n->pid = -1;
    lim_err err = LIM_OK;
    if (n->script == NULL && n->os != lim__os_linux()) {
        lim__diag_set(diag, 0, 0, "there are no helper processes in a simulated world: give a script");
        err = LIM_E_DENIED;
    } else if (n->script == NULL) {
        err = find_helper(n, opts->helper, diag) ? zygote_start(n, diag) : LIM_E_NOTFOUND;
        if (err == LIM_OK)
            err = lim__keepers_open(n);
    }
    if (err != LIM_OK) {
        lim__native_close(n);
        return err;
    }
    *out = n;
    return LIM_OK;
}

void lim__native_close(lim__native *n)
{
    if (n == NULL)
        return;
    for (uint32_t i = 0; i < LIM_COUNT(n->parked); i++)
        lim__ring_free(n->parked[i]);
    zygote_stop(n);
    pthread_mutex_destroy(&n->mutex);
    free(n);
}
