/* SPDX-License-Identifier: Apache-2.0
 * admin.h - looking at a server and changing it: what the commands that ask system groups share. */
#ifndef LIM_CLI_ADMIN_H
#define LIM_CLI_ADMIN_H

#include "cli/cli.h"
#include "data/data.h"

typedef struct cli_noun {
    const char *name, *group, *list; /* the command's first word; who answers; the key of the list in the answer */
    const char *id;                  /* the field that names one of them */
    const char *filter;              /* the field that the word behind `ls` is; NULL: there is none */
    bool paged;                      /* `ls` of one queue takes after and max, in the order of their cursors */
    uint32_t max;                    /* else how many are asked for unless --max says; 0: all of them come */
    const char *columns[16];         /* what people see first; NULL-terminated */
} cli_noun;
const cli_noun *cli_noun_of(const struct cli *cli); /* of the command at hand */

/* ---- values (value.c) ---- */
void cli_value_table(struct cli *cli, const char *const *columns, const lim__val *rows, size_t count);
void cli_value_json(struct cli *cli, lim__val v); /* one line */
void cli_value_show(struct cli *cli, lim__val v); /* keys and values, a line each; with --json one line */

/* ---- running (admin.c) ---- */
/* Does `once` and, with --watch, again and again; closes the connection. The exit code. `once` asks (cli_sys) and prints;
 * before it prints it says so with cli_block. */
int cli_repeat(struct cli *cli, void (*once)(struct cli *cli, lim__doc *doc));
void cli_block(struct cli *cli);
bool cli_pause(struct cli *cli, int64_t us); /* turns the loop for so long; false: it ended meanwhile */
/* A request that begins with its op; cli_request_end closes it, asks, and frees it. False: told. */
lim__json cli_request(lim__buf *b, const char *op);
bool cli_request_end(struct cli *cli, lim__json *j, const char *group, const char *what, lim__doc *doc);
/* A word NAME=VALUE as a member: a number, true or false, a duration (then NAME_ms), else text. Which names there are is
 * the server's business: it names the nearest. False: told. */
bool cli_setting(struct cli *cli, lim__json *j, const char *word);
void cli_json_members(lim__json *j, lim__val object); /* copied, into an object that is open */
/* Asks once and ends. The answer is shown by `show`; if that is NULL the exit code says it, and --json shows it. */
int cli_once(struct cli *cli, lim__json *j, const char *group, const char *what,
             void (*show)(struct cli *cli, lim__val reply));
/* The same of {"op":OP,KEY:WORD}; key NULL: without. */
int cli_do(struct cli *cli, const char *group, const char *op, const char *key, const char *word,
           void (*show)(struct cli *cli, lim__val reply));

#endif
