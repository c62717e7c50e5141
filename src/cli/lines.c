/* SPDX-License-Identifier: Apache-2.0
 * lines.c - standard input, a line at a time, without ever waiting for it.
 *
 * The descriptor stays blocking, as it may be shared with others: it is read once for each time poll says that it would
 * not block. A last line without its newline counts. */
#include "cli/cli.h"

#include <errno.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024 };

static void watch(cli_lines *l, bool on)
{
    if (on && !l->at_end)
        cli_watch(l->cli, &l->source);
    else
        cli_unwatch(&l->source);
}

static void on_readable(cli_source *source, short ready)
{
    cli_lines *l = LIM_CONTAINER(source, cli_lines, source);
    uint8_t *room = lim__buf_reserve(&l->buf, READ_BYTES);
    ssize_t n = room ? read(source->fd, room, READ_BYTES) : -1;
    (void)ready;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0)
        cli_fault(l->cli, CLI_FAILED, "standard input", strerror(room ? errno : ENOMEM), "see where it comes from");
    if (n > 0)
        l->buf.end += (size_t)n;
    else
        l->at_end = true;
    watch(l, true);
    l->on_more(l->cli->state);
}

void cli_lines_open(cli_lines *l, struct cli *cli, void (*on_more)(void *state))
{
    *l = (cli_lines){ .cli = cli, .on_more = on_more };
    l->source = (cli_source){ .fd = STDIN_FILENO, .events = 1 /* POLLIN */, .on_ready = on_readable };
    watch(l, true);
}

/* The newline that ends the first line, or NULL; does not look twice at the same byte. */
static const uint8_t *newline(cli_lines *l)
{
    lim_bytes all = lim__buf_bytes(&l->buf);
    const uint8_t *from = all.ptr;
    const uint8_t *found = all.len > l->scanned ? memchr(from + l->scanned, '\n', all.len - l->scanned) : NULL;
    l->scanned = found ? 0 : all.len;
    return found;
}

bool cli_lines_next(cli_lines *l, lim_bytes *line)
{
    const uint8_t *end = newline(l);
    lim_bytes all = lim__buf_bytes(&l->buf);
    if (!end && all.len > CLI_LINE_MAX && !l->at_end) {
        cli_fault(l->cli, CLI_USAGE, "standard input", "a line is over 16 MiB",
                  "send references, or cut it into lines");
        l->at_end = true;
        lim__buf_fini(&l->buf);
        watch(l, false);
        return false;
    }
    if (!end && (!l->at_end || all.len == 0))
        return false;
    size_t len = end ? (size_t)(end - (const uint8_t *)all.ptr) : all.len;
    *line = lim__bytes(all.ptr, len);
    l->buf.start += end ? len + 1 : len; /* not lim__buf_consume: the view must stay until the next call */
    return true;
}

void cli_lines_pause(cli_lines *l, bool pause)
{
    watch(l, !pause);
}

void cli_lines_close(cli_lines *l)
{
    cli_unwatch(&l->source);
    lim__buf_fini(&l->buf);
}
