/* SPDX-License-Identifier: Apache-2.0
 * routed.h - waiting for the client's verbs about routing functions, and saying what became of them. */
#ifndef LIM_CLI_ROUTED_H
#define LIM_CLI_ROUTED_H

#include "cli/cli.h"

typedef struct cli_routed {
    struct cli *cli;
    const char *what;   /* what faults are about: a file, a group */
    int64_t timeout_ms; /* set by cli_routed_begin */
    lim_routed r;
    bool ended;
} cli_routed;
/* Connects if need be. False: told. Then the verb, with cli_on_routed and the struct; then cli_routed_end with what the
 * verb answered, which waits. False: told. */
bool cli_routed_begin(cli_routed *w);
bool cli_routed_end(cli_routed *w, lim_err err);
void cli_on_routed(void *ctx, const lim_routed *r);
const char *cli_hash_text(const lim_hash *hash, char out[65]); /* NULL: it is zero */

#endif
