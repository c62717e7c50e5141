/* SPDX-License-Identifier: Apache-2.0
 * system_store.c - $sys.store: how full it is, whether it is whole, and a copy of it while all goes on.
 *
 *   backup --copy thread--> copied{asker, err} --> answered, also when the process was made again meanwhile */
#include "bus/durable.h"
#include "bus/participant.h"
#include "bus/system.h"

#include <stdio.h>
#include <string.h>

/* False: refused already. */
static bool has_store(lim__system *s)
{
    lim_diag diag = { 0 };
    if (s->bus->durable != NULL)
        return true;
    lim__sys_refuse_diag(s, lim__durable_missing(&diag), &diag);
    return false;
}

void lim__sys_store_info(lim__system *s)
{
    lim__store_info i;
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (!has_store(s))
        return;
    lim__store_info_get(lim__durable_store(s->bus), &i);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "data", s->bus->opts.data_dir);
    lim__json_str(&j, "class", lim_class_text((lim_class)lim__durable_class(s->bus)));
    lim__json_bool(&j, "full", i.full);
    lim__json_bool(&j, "degraded", i.degraded);
    lim__json_u64(&j, "quarantined", i.quarantined);
    lim__json_u64(&j, "bytes", i.bytes);
    lim__json_u64(&j, "bytes_max", i.bytes_max);
    lim__json_u64(&j, "live_bytes", i.live_bytes);
    lim__json_u64(&j, "records", i.records);
    lim__json_u64(&j, "segments", i.segments);
    lim__json_u64(&j, "lsn", i.lsn);
    lim__json_u64(&j, "checkpoint_lsn", i.checkpoint_lsn);
    lim__json_u64(&j, "batches", i.batches);
    lim__json_u64(&j, "syncs", i.syncs);
    lim__json_u64(&j, "start_batches", i.start_batches);
    lim__json_u64(&j, "start_bytes", i.start_bytes);
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

/* ---- copies ---- */

typedef struct copied { /* letter to the process; and what the thread that copies knows of it */
    lim_runtime *rt;
    lim_pid process;
    lim__asker asker;
    lim_err err;
    char text[240];
} copied;
static const lim__letter_type type_copied = { "copied", NULL };

static void on_copied(void *ctx, lim_err err, const char *text)
{
    copied *letter = ctx;
    letter->err = err;
    snprintf(letter->text, sizeof letter->text, "%s", text);
    (void)!lim__post_reserved(letter->rt, letter->process, letter);
}

void lim__sys_store_backup(lim__system *s)
{
    lim_bytes to;
    if (!has_store(s) || !lim__sys_name(s, "to", &to))
        return;
    if (((const char *)to.ptr)[0] != '/' || memchr(to.ptr, '\0', to.len) != NULL) {
        lim__sys_refuse(s, LIM_E_INVALID, "\"to\" is no absolute path; it is one of the server's machine");
        return;
    }
    copied *letter = lim__letter_new(NULL, &type_copied, sizeof *letter);
    if (letter != NULL)
        *letter = (copied){ .rt = s->bus->rt, .process = lim_self(s->self), .asker = s->asker };
    lim_err err = letter != NULL ? lim__durable_copy(s->bus, to, on_copied, letter) : LIM_E_NOMEM;
    if (err == LIM_OK)
        return; /* answered when it is there */
    lim__letter_free(NULL, letter);
    if (err == LIM_E_EXISTS)
        lim__sys_refuse(s, err, "another backup is being made; wait for it");
    else
        lim__sys_refuse(s, err, "%s", lim_err_text(err));
}

static void backed_up(lim__system *s, const copied *c)
{
    s->asker = c->asker;
    if (c->err != LIM_OK) {
        lim__sys_refuse(s, c->err, "%s", c->text);
        return;
    }
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    lim__json_open(&j, NULL, '{');
    lim__json_close(&j);
    lim__sys_answer(s, &b);
}

void lim__sys_store_on_signal(lim__system *s, const lim_signal *signal)
{
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type == &type_copied)
        backed_up(s, signal->body.ptr);
}
