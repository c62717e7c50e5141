/* SPDX-License-Identifier: Apache-2.0
 * routed.c - one verb about a routing function: begun, waited for, its fault told. */
#include "cli/routed.h"

#include <stdio.h>

enum { TIMEOUT_MS = 10000 };

bool cli_routed_begin(cli_routed *w)
{
    int64_t us = w->cli->opts->timeout_us;
    w->timeout_ms = us == 0 ? TIMEOUT_MS : us == LIM_FOREVER ? LIM_FOREVER : (us + 999) / 1000;
    return w->cli->client || cli_connect(w->cli, false);
}

void cli_on_routed(void *ctx, const lim_routed *r)
{
    cli_routed *w = ctx;
    if (w->cli->link == CLI_LINK_CLOSING)
        return;
    w->ended = true;
    w->r = *r;
    if (r->err != LIM_OK && r->err != LIM_E_CLOSED) /* the link's own fault is told by it */
        cli_tell_error(w->cli, w->what, cli_err_code(r->err), *r->diag.text ? r->diag.text : lim_err_text(r->err),
                       r->diag.line, r->diag.column);
}

bool cli_routed_end(cli_routed *w, lim_err err)
{
    if (err != LIM_OK)
        cli_err(w->cli, w->what, err, NULL);
    while (err == LIM_OK && !w->ended && !w->cli->ended)
        cli_turn(w->cli);
    if (err == LIM_OK && !w->ended)
        cli_finish(w->cli); /* before `w` is gone */
    return err == LIM_OK && w->ended && w->r.err == LIM_OK;
}

const char *cli_hash_text(const lim_hash *hash, char out[65])
{
    uint8_t any = 0;
    for (size_t i = 0; i < sizeof hash->b; i++) {
        snprintf(out + 2 * i, 3, "%02x", hash->b[i]);
        any |= hash->b[i];
    }
    return any != 0 ? out : NULL;
}
