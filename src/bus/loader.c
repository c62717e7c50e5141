/* SPDX-License-Identifier: Apache-2.0
 * loader.c - one process per piece of code that is being loaded. loader.h has the picture.
 *
 * The process belongs to nobody: who asked may be gone when it is done, and its letter then is dropped with what it
 * holds. If the pool is closed before a thread has begun, nothing is answered: whoever could hear it is being ended,
 * too. */
#include "bus/loader.h"
#include "base/base.h"
#include "bus/slot.h"
#include <stdlib.h>

typedef struct job {
    lim_bus *bus;
    lim__load load;
    lim_pid to;          /* of `deploy` */
    lim__deploy *deploy; /* NULL: it is a load */
} job;

static void drop_loaded(void *body)
{
    lim__artifact_unref(((lim__loaded *)body)->artifact);
}

const lim__letter_type lim__type_loaded = { "loaded", drop_loaded };

/* ---- on a thread of the pool ---- */

static bool is_what_was_said(const lim__load *l, lim_diag *diag)
{
    uint8_t hash[LIM__HASH_SIZE];
    char said[LIM__HASH_TEXT], is[LIM__HASH_TEXT];
    if (!l->has_hash)
        return true;
    if (lim__sha256(lim__bytes(l->code, l->len), hash) != LIM_OK)
        return false;
    if (memcmp(hash, l->hash, sizeof hash) == 0)
        return true;
    lim__hash_text(l->hash, said);
    lim__hash_text(hash, is);
    lim__diag_set(diag, 0, 0, "what came has the SHA-256 %s, not %s; upload it again", is, said);
    return false;
}

static void load(const job *j)
{
    lim__loaded *l = lim__letter_new(NULL, &lim__type_loaded, sizeof *l);
    if (l == NULL)
        return; /* its asker gives up waiting */
    *l = (lim__loaded){ .ref = j->load.ref, .err = LIM_E_INVALID };
    if (is_what_was_said(&j->load, &l->diag))
        l->err = lim__bus_load(j->bus, j->load.engine, lim__bytes(j->load.code, j->load.len), j->load.name, &l->diag,
                               &l->fresh, &l->artifact);
    (void)!lim__post_reserved(j->bus->rt, j->load.reply_to, l);
}

lim_err lim__deploy_check(lim_bus *bus, const lim__deploy *d, lim_diag *diag)
{
    lim__slot_terms terms;
    if (d->artifact->engine != LIM__ENGINE_NATIVE || lim__slot_terms_of(&d->opts, &terms, NULL) != LIM_OK)
        return LIM_OK;
    const lim__router_opts check = { .os = bus->os,
                                     .artifact = d->artifact,
                                     .instruction_ns = lim__bus_instruction_ns(bus),
                                     .limits = terms.limits,
                                     .native = bus->native };
    return lim__router_check(&check, diag);
}

static void answer_deploy(lim_bus *bus, const lim__deploy *d, lim_err err, const lim_diag *diag)
{
    lim__deployed *a = lim__letter_new(NULL, &lim__type_deployed, sizeof *a);
    if (a == NULL)
        return;
    *a = (lim__deployed){ .ref = d->ref, .err = err, .diag = *diag };
    (void)!lim__post_reserved(bus->rt, d->reply_to, a);
}

static void check(job *j)
{
    lim_diag diag = { 0 };
    lim__deploy *d = j->deploy;
    lim_pid reply_to = d->reply_to;
    uint64_t ref = d->ref;
    lim_err err = lim__deploy_check(j->bus, d, &diag);
    j->deploy = NULL;
    if (err == LIM_OK)
        err = lim__post_reserved(j->bus->rt, j->to, d);
    else
        lim__letter_free(NULL, d);
    if (err != LIM_OK)
        answer_deploy(j->bus, &(lim__deploy){ .reply_to = reply_to, .ref = ref }, err, &diag);
}

static void run(lim_process *self, const lim_signal *signal, void *state)
{
    job *j = *(job **)state;
    (void)self;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (j->deploy != NULL)
        check(j);
    else
        load(j);
}

/* ---- the process ---- */

static void job_free(job *j)
{
    if (j->deploy != NULL)
        lim__letter_free(NULL, j->deploy);
    free(j->load.code);
    free(j);
}

static void on_end(void *state, lim_reason reason)
{
    (void)reason;
    job_free(*(job **)state);
}

static const lim__letter_type type_go = { "load", NULL };

/* Takes the job in every outcome. The exit comes behind the letter: it ends when it is through. */
static lim_err begin(lim_process *self, job *j)
{
    const lim_spawn_opts opts = { .size = sizeof opts,
                                  .name = "loader",
                                  .on_signal = run,
                                  .on_end = on_end,
                                  .state_bytes = sizeof j,
                                  .init = &j,
                                  .init_bytes = sizeof j,
                                  .blocking = true };
    lim_pid pid;
    void *go = lim__letter_new(lim__proc_sched(self), &type_go, 0);
    lim_err err = go != NULL ? lim_spawn(self, &opts, &pid) : LIM_E_NOMEM;
    if (err != LIM_OK) {
        if (go != NULL)
            lim__letter_free(lim__proc_sched(self), go);
        job_free(j);
        return err;
    }
    (void)!lim__send_reserved(self, pid, go);
    (void)!lim_exit_process(self, pid, LIM_KILL);
    return LIM_OK;
}

lim_err lim__load_begin(lim_bus *bus, lim_process *self, const lim__load *load)
{
    job *j = malloc(sizeof *j);
    if (j == NULL) {
        free(load->code);
        return LIM_E_NOMEM;
    }
    *j = (job){ .bus = bus, .load = *load };
    return begin(self, j);
}

lim_err lim__deploy_checked(lim_bus *bus, lim_process *self, lim_pid to, lim__deploy *d)
{
    if (d->artifact == NULL || d->artifact->engine != LIM__ENGINE_NATIVE)
        return lim__send_reserved(self, to, d);
    job *j = malloc(sizeof *j);
    if (j == NULL) {
        lim__letter_free(lim__proc_sched(self), d);
        return LIM_E_NOMEM;
    }
    *j = (job){ .bus = bus, .to = to, .deploy = d };
    return begin(self, j);
}
