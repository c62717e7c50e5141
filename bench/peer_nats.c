/* SPDX-License-Identifier: Apache-2.0
 * peer_nats.c - the table for nats-server: its text protocol, as far as the workloads need it.
 *
 * A line ends with CR LF; PUB and MSG carry as many payload bytes as the line says, and another CR LF. A request is a
 * publish that names an inbox of its asker, to which the responder publishes; each asking connection has one inbox, and
 * which request is answered stands in the first bytes of the payload. Subjects and sizes are ours, so that offsets in
 * lines are known. */
#include "peer.h"

#include <stdlib.h>
#include <string.h>

static const char payload_end[] = "\r\n";

static void say(bench_conn *c, const char *text)
{
    lim__buf_text(&c->out, text);
    bench_flush(c);
}

static void ping(bench_conn *c)
{
    uint64_t pongs = c->pongs;
    say(c, "PING\r\n");
    while (c->pongs == pongs)
        bench_read(c, 0);
}

static void greet(bench_conn *c)
{
    say(c, "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"bench-tcp\",\"lang\":\"c\",\"version\":\"0\","
           "\"protocol\":1}\r\n");
    ping(c);
}

/* ---- what comes in ---- */

/* A message: `line` is "MSG SUBJECT SID [REPLY] SIZE\r\n", `payload` follows it. */
static void on_message(bench_conn *c, const uint8_t *line, const uint8_t *payload, size_t size)
{
    if (c->unit != 0) {
        c->delivered++;
        return;
    }
    const uint8_t *subject = line + 4, *sid = memchr(subject, ' ', (size_t)(payload - subject));
    const uint8_t *reply = sid + 3; /* behind " 1 " */
    const uint8_t *reply_end = memchr(reply, ' ', (size_t)(payload - reply));
    uint32_t slot;
    if (reply_end == NULL) { /* without a reply: it is one */
        memcpy(&slot, payload, sizeof slot);
        if (size != BENCH_PAYLOAD || slot >= BENCH_SLOTS_MAX || c->done_count == BENCH_SLOTS_MAX)
            bench_die("nats-server sent a reply that nobody asked for");
        c->done[c->done_count++] = slot;
        return;
    }
    c->requests++;
    if (c->deaf)
        return;
    lim__buf_add(&c->out, "PUB ", 4);
    lim__buf_add(&c->out, reply, (size_t)(payload + size + 2 - reply));
}

static void on_line(bench_conn *c, const uint8_t *line, size_t n)
{
    if (n >= 4 && memcmp(line, "PONG", 4) == 0)
        c->pongs++;
    else if (n >= 4 && memcmp(line, "PING", 4) == 0)
        lim__buf_text(&c->out, "PONG\r\n");
    else if (n >= 4 && memcmp(line, "-ERR", 4) == 0)
        bench_die("nats-server: %.*s", (int)n, (const char *)line);
}

/* Skips deliveries of the expected size. */
static const uint8_t *skip(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    size_t unit = c->unit;
    if (unit == 0)
        return p;
    for (; (size_t)(end - p) >= unit && p[0] == 'M' && p[unit - 1] == '\n'; p += unit)
        c->delivered++;
    return p;
}

static size_t payload_size(const uint8_t *line_end)
{
    const uint8_t *p = line_end;
    while (p[-1] != ' ')
        p--;
    return strtoul((const char *)p, NULL, 10);
}

static const uint8_t *take(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        p = skip(c, p, end);
        const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
        if (nl == NULL)
            return p;
        if (p[0] != 'M') {
            on_line(c, p, (size_t)(nl - p));
            p = nl + 1;
            continue;
        }
        size_t size = payload_size(nl - 1);
        if ((size_t)(end - nl) < 1 + size + 2)
            return p;
        on_message(c, p, nl + 1, size);
        p = nl + 1 + size + 2;
    }
}

/* ---- what goes out ---- */

static void subscribe(bench_conn *c, const char *channel, size_t size, uint32_t window, uint32_t backlog)
{
    char line[128];
    (void)window, (void)backlog; /* the server has limits of its own */
    c->unit = (size_t)snprintf(line, sizeof line, "MSG %.64s 1 %zu\r\n", channel, size) + size + 2;
    snprintf(line, sizeof line, "SUB %.64s 1\r\n", channel);
    lim__buf_text(&c->out, line);
    ping(c);
}

static void serve(bench_conn *c, const char *group)
{
    lim__buf_format(&c->out, "SUB %s 1\r\n", group);
    ping(c);
}

static void prepare_asking(bench_conn *c, const char *group)
{
    lim__buf_format(&c->request, "PUB %s _I.%04u %d\r\n0123456789abcdef\r\n", group, c->index, BENCH_PAYLOAD);
    lim__buf_format(&c->out, "SUB _I.%04u 1\r\n", c->index);
    ping(c);
}

static void put_publish(lim__buf *out, const char *channel, size_t size)
{
    lim__buf_format(out, "PUB %s %zu\r\n", channel, size);
    uint8_t *p = lim__buf_reserve(out, size);
    if (p == NULL)
        bench_die("out of memory");
    memset(p, 'x', size);
    out->end += size;
    lim__buf_text(out, payload_end);
}

static void number(uint8_t *batch, size_t stride, size_t count, uint64_t first)
{
    (void)batch, (void)stride, (void)count, (void)first;
}

static void put_ask(bench_conn *c, uint32_t slot)
{
    lim_bytes request = lim__buf_bytes(&c->request);
    lim__buf_add(&c->out, request.ptr, request.len);
    memcpy(c->out.ptr + c->out.end - BENCH_PAYLOAD - 2, &slot, sizeof slot);
}

static void settle(bench_conn *c, uint64_t published)
{
    (void)published;
    ping(c);
}

const bench_peer bench_nats = {
    .name = "nats",
    .greet = greet,
    .subscribe = subscribe,
    .serve = serve,
    .prepare_asking = prepare_asking,
    .put_publish = put_publish,
    .number = number,
    .put_ask = put_ask,
    .take = take,
    .settle = settle,
};
