/* SPDX-License-Identifier: Apache-2.0
 * peer_redis.c - the table for redis-server: a stream of it as a log. Only what keeps something is here.
 *
 * A publish is an XADD of one field with an id of the server's; a replay is XRANGE after XRANGE of PAGE entries each,
 * the next asked for when the last entry of a page is here. Answers are lines that end with CR LF; `*3` is followed by
 * three values, `$5` by a line of five bytes. The walk below knows nothing of their nesting, only lengths: a string as
 * long as a payload is one, the field's name has one byte, and what else there is are the ids of entries. */
#include "peer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 1000 };

static const char *log_name; /* that is replayed, by the only connection of its process that does */

static void ask_for_a_page(bench_conn *c)
{
    char from[64];
    int len = snprintf(from, sizeof from, "(%" PRIu64 "-%" PRIu64, c->last_id[0], c->last_id[1]);
    lim__buf_format(&c->out, "*6\r\n$6\r\nXRANGE\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n$1\r\n+\r\n$5\r\nCOUNT\r\n$4\r\n%d\r\n",
                    strlen(log_name), log_name, len, from, PAGE);
}

static void on_string(bench_conn *c, const uint8_t *text, size_t len)
{
    if (c->unit == 0) { /* the id of what was added */
        c->answered++;
        return;
    }
    if (len == c->unit) {
        if (++c->delivered % PAGE == 0)
            ask_for_a_page(c);
    } else if (len > 2) {
        char *dash;
        c->last_id[0] = strtoull((const char *)text, &dash, 10);
        c->last_id[1] = *dash == '-' ? strtoull(dash + 1, NULL, 10) : 0;
    }
}

static void on_line(bench_conn *c, const uint8_t *line, size_t n)
{
    if (line[0] == '-')
        bench_die("redis-server: %.*s", (int)n, (const char *)line);
    if (line[0] == '+')
        c->pongs++;
}

static const uint8_t *take(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        const uint8_t *nl = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (nl == NULL)
            return p;
        if (p[0] != '$') {
            on_line(c, p, (size_t)(nl - p));
            p = nl + 1;
            continue;
        }
        size_t len = strtoul((const char *)p + 1, NULL, 10);
        if ((size_t)(end - nl) < 1 + len + 2)
            return p;
        on_string(c, nl + 1, len);
        p = nl + 1 + len + 2;
    }
}

static void greet(bench_conn *c)
{
    lim__buf_text(&c->out, "*1\r\n$4\r\nPING\r\n");
    while (c->pongs == 0) {
        bench_flush(c);
        bench_read(c, 0);
    }
}

static void create(bench_conn *c, const char *channel)
{
    (void)c, (void)channel; /* the first XADD does */
}

static void put_publish(lim__buf *out, const char *channel, size_t size)
{
    lim__buf_format(out, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$1\r\n*\r\n$1\r\nd\r\n$%zu\r\n", strlen(channel), channel,
                    size);
    uint8_t *p = lim__buf_reserve(out, size);
    if (p == NULL)
        bench_die("out of memory");
    memset(p, 'x', size);
    out->end += size;
    lim__buf_text(out, "\r\n");
}

static void number(uint8_t *batch, size_t stride, size_t count, uint64_t first)
{
    (void)batch, (void)stride, (void)count, (void)first;
}

static void replay(bench_conn *c, const char *channel, size_t size)
{
    c->unit = size;
    log_name = channel;
    ask_for_a_page(c);
    bench_flush(c);
}

const bench_peer bench_redis = {
    .name = "redis",
    .greet = greet,
    .put_publish = put_publish,
    .number = number,
    .take = take,
    .class = "disk", /* appendfsync always */
    .create = create,
    .replay = replay,
};
