/* SPDX-License-Identifier: Apache-2.0
 * system_cursor.c - $sys.cursors: which cursors there are, and requests about one, which its reader answers itself. */
#include "bus/reader.h"
#include "bus/system.h"

#include <stdlib.h>

enum { CURSORS_MAX = 4096 };

void lim__sys_cursor_ls(lim__system *s)
{
    lim_bytes channel = lim__val_bytes(s->root, "channel", lim__bytes("", 0));
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "cursors", channel);
    lim_pid *readers = calloc(CURSORS_MAX, sizeof *readers);
    size_t n = readers != NULL ? lim__readers_list(s->bus, channel, lim__bytes("", 0), readers, CURSORS_MAX) : 0;
    const lim__show show = { .max = 1, .what = LIM__SHOW_LINE };
    for (size_t i = 0; g != NULL && i < n && i < CURSORS_MAX; i++)
        lim__gather_show(s, g, readers[i], &show, lim__bytes(NULL, 0));
    free(readers);
    if (g != NULL)
        lim__gather_ready(s, g);
}

void lim__sys_cursor_op(lim__system *s)
{
    lim_bytes channel, cursor;
    lim_pid reader;
    if (!lim__sys_name(s, "channel", &channel) || !lim__sys_name(s, "cursor", &cursor))
        return;
    if (lim__readers_list(s->bus, channel, cursor, &reader, 1) == 0) {
        lim__sys_refuse(s, LIM_E_NOTFOUND, "channel %.*s has no cursor %.*s; ls shows what there is", (int)channel.len,
                        (const char *)channel.ptr, (int)cursor.len, (const char *)cursor.ptr);
        return;
    }
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_FIRST, NULL, cursor);
    if (g == NULL)
        return;
    lim__gather_admin(s, g, reader, "cursor");
    lim__gather_ready(s, g);
}
