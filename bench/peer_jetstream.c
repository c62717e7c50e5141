/* SPDX-License-Identifier: Apache-2.0
 * peer_jetstream.c - the table for nats-server's streams in files. Only what keeps something is here; the text protocol
 * is that of peer_nats.c.
 *
 * Three inboxes: _A gets the answers to publishes, _R those of the API, _D and our process id what a consumer delivers.
 * What is delivered keeps the subject it was published to, so the number of the subscription says which it is. A replay
 * is an ordered consumer as client libraries make it: pushed, without acknowledgements, with flow control, whose
 * requests we answer. */
#include "peer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWERS = '1', API = '2', DELIVERIES = '3' };

/* ---- what comes in ---- */

/* The words of a line, "MSG SUBJECT SID [REPLY] SIZE" or "HMSG SUBJECT SID [REPLY] HEADERS SIZE". */
typedef struct words {
    const char *at[8];
    size_t len[8];
    uint32_t count;
} words;

static words split(const uint8_t *line, const uint8_t *end)
{
    words w = { 0 };
    for (const char *p = (const char *)line; p < (const char *)end && w.count < LIM_COUNT(w.at); p++) {
        const char *from = p;
        while (p < (const char *)end && *p != ' ' && *p != '\r')
            p++;
        w.at[w.count] = from;
        w.len[w.count++] = (size_t)(p - from);
    }
    return w;
}

/* Flow control: answer at its reply subject; or, in a heartbeat, at the one that it says the consumer stalls at. */
static void on_status(bench_conn *c, const words *w, const char *headers, size_t size)
{
    static const char stalled[] = "Nats-Consumer-Stalled: ";
    const char *at = memmem(headers, size, stalled, sizeof stalled - 1);
    if (w->count == 6) {
        lim__buf_format(&c->out, "PUB %.*s 0\r\n\r\n", (int)w->len[3], w->at[3]);
    } else if (at != NULL && at[sizeof stalled - 1] != '\r') {
        at += sizeof stalled - 1;
        lim__buf_format(&c->out, "PUB %.*s 0\r\n\r\n", (int)strcspn(at, "\r"), at);
    }
}

static void on_message(bench_conn *c, const words *w, const char *payload, size_t size)
{
    char from = w->at[2][0];
    if (w->at[0][0] == 'H')
        on_status(c, w, payload, size);
    else if (from == DELIVERIES)
        c->delivered++;
    else if (memmem(payload, size, "\"error\"", 7) != NULL)
        bench_die("nats-server: %.*s", (int)size, payload);
    else if (from == ANSWERS)
        c->answered++;
    else
        c->confirmed = c->confirmed || from == API;
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

static const uint8_t *take(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        const uint8_t *nl = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (nl == NULL)
            return p;
        if (p[0] != 'M' && p[0] != 'H') {
            on_line(c, p, (size_t)(nl - p));
            p = nl + 1;
            continue;
        }
        words w = split(p, nl);
        size_t size = strtoul(w.at[w.count - 1], NULL, 10);
        if ((size_t)(end - nl) < 1 + size + 2)
            return p;
        on_message(c, &w, (const char *)nl + 1, size);
        p = nl + 1 + size + 2;
    }
}

/* ---- what goes out ---- */

static void greet(bench_conn *c)
{
    lim__buf_format(&c->out,
                    "CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"bench-durable_tcp\",\"lang\":\"c\","
                    "\"version\":\"0\",\"protocol\":1,\"headers\":true}\r\n"
                    "SUB _A %c\r\nSUB _R %c\r\nSUB _D.%d %c\r\nPING\r\n",
                    ANSWERS, API, (int)getpid(), DELIVERIES);
    bench_flush(c);
    while (c->pongs == 0)
        bench_read(c, 0);
}

/* Asks the API and waits. */
static void api(bench_conn *c, const char *subject, const char *body)
{
    c->confirmed = false;
    lim__buf_format(&c->out, "PUB $JS.API.%s _R %zu\r\n%s\r\n", subject, strlen(body), body);
    while (!c->confirmed) {
        bench_flush(c);
        bench_read(c, 0);
    }
}

/* The stream is named as its subject. */
static void create(bench_conn *c, const char *channel)
{
    char subject[128], body[256];
    snprintf(subject, sizeof subject, "STREAM.CREATE.%.60s", channel);
    snprintf(body, sizeof body, "{\"name\":\"%.60s\",\"subjects\":[\"%.60s\"],\"storage\":\"file\",\"num_replicas\":1}",
             channel, channel);
    api(c, subject, body);
}

static void put_publish(lim__buf *out, const char *channel, size_t size)
{
    lim__buf_format(out, "PUB %s _A %zu\r\n", channel, size);
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
    char subject[128], body[512];
    (void)size;
    snprintf(subject, sizeof subject, "CONSUMER.CREATE.%.60s", channel);
    snprintf(body, sizeof body,
             "{\"stream_name\":\"%.60s\",\"config\":{\"deliver_subject\":\"_D.%d\",\"deliver_policy\":\"all\","
             "\"ack_policy\":\"none\",\"replay_policy\":\"instant\",\"max_deliver\":1,\"flow_control\":true,"
             "\"idle_heartbeat\":5000000000,\"mem_storage\":true}}",
             channel, (int)getpid());
    api(c, subject, body);
}

const bench_peer bench_jetstream = {
    .name = "jetstream",
    .greet = greet,
    .put_publish = put_publish,
    .number = number,
    .take = take,
    .class = "os", /* it syncs now and then */
    .create = create,
    .replay = replay,
};
