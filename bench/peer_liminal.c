/* SPDX-License-Identifier: Apache-2.0
 * peer_liminal.c - the table for liminald: frames of docs/protocol.md, by the library's own codec.
 *
 * Deliveries, of which there are millions, are skipped by their header without being decoded, as the other table does
 * it. A subscriber returns half its window at a time. */
#include "data/block.h"
#include "data/data.h"
#include "peer.h"

#include <stdlib.h>
#include <string.h>

enum { STREAM = 1, READ_WINDOW = 16384 }; /* each connection opens one; credit of those that read a log */

static void must(lim_err err)
{
    if (err != LIM_OK)
        bench_die("cannot encode a frame: %s", lim_err_text(err));
}

static void greet(bench_conn *c)
{
    lim__wire_opts opts = { .hello = { .client = lim__str("bench-tcp") } };
    lim__wire_init(&c->wire, LIM__WIRE_CLIENT, &c->out, &opts);
    lim__wire_open(&c->wire);
    while (c->wire.state != LIM__WIRE_ACTIVE) {
        bench_flush(c);
        bench_read(c, 0);
    }
}

/* ---- what comes in ---- */

static void broken(const lim__frame *frame)
{
    bench_die("liminald sent a %s that cannot be decoded", lim__frame_name(frame->type));
}

static void on_published(bench_conn *c, const lim__frame *frame)
{
    lim__f_published f;
    if (!lim__get_published(frame, &f))
        broken(frame);
    c->answered += f.count;
    c->deferred += (uint64_t)f.deferred * f.count;
    c->rejected += f.verdict == LIM_REJECT ? f.count : 0;
}

static void on_stored(bench_conn *c, const lim__frame *frame)
{
    lim__f_stored f;
    if (!lim__get_stored(frame, &f))
        broken(frame);
    if (f.verdict != LIM_ACCEPT || f.class != LIM_CLASS_DISK)
        bench_die("a message was not stored on the disk: verdict %u, why %u, class %u: %.*s", f.verdict, f.why, f.class,
                  (int)f.detail.len, (const char *)f.detail.ptr);
    c->answered += f.count;
}

static void on_request(bench_conn *c, const lim__frame *frame)
{
    lim__f_request f;
    if (!lim__get_request(frame, &f))
        broken(frame);
    c->requests++;
    c->conv = f.conversation;
    c->lease = f.lease;
    if (c->deaf)
        return;
    if (f.flags & LIM__FLAG_TAKEN)
        must(lim__put_taken(&c->out, &(lim__f_taken){ STREAM, 0, f.conversation, f.lease }));
    must(lim__put_reply(&c->out, &(lim__f_reply){ .stream = STREAM,
                                                  .conversation = f.conversation,
                                                  .lease = f.lease,
                                                  .how = LIM__REPLY_REPLY,
                                                  .payload = f.payload }));
}

static void on_outcome(bench_conn *c, const lim__frame *frame)
{
    lim__f_outcome f;
    if (!lim__get_outcome(frame, &f) || f.corr >= BENCH_SLOTS_MAX || c->done_count == BENCH_SLOTS_MAX)
        broken(frame);
    if (f.how == LIM_HOW_CRASHED)
        c->crashed_count++;
    else if (f.how != LIM_HOW_REPLY)
        bench_die("an ask ended otherwise than it should: how %u, why %u: %.*s", f.how, f.why, (int)f.detail.len,
                  (const char *)f.detail.ptr);
    c->done[c->done_count++] = (uint32_t)f.corr;
    if (!c->listens)
        return;
    lim__buf_consume(&c->heard, lim__buf_len(&c->heard));
    lim__buf_add(&c->heard, f.payload.ptr, f.payload.len);
    lim__buf_add(&c->heard, "", 1);
}

static void on_dropped(bench_conn *c, const lim__frame *frame)
{
    lim__f_dropped f;
    if (!lim__get_dropped(frame, &f))
        broken(frame);
    c->dropped = f.dropped_total;
}

/* Each of them is looked at, as with the peers, and has the size and the number that it should have. */
static void on_delivers(bench_conn *c, const lim__frame *frame)
{
    lim__f_delivers f;
    lim_bytes headers, payload;
    uint32_t count = 0;
    size_t size = c->unit - LIM__HEADER_SIZE - LIM__LEAST_OF_DELIVER;
    if (!lim__get_delivers(frame, &f) || f.first != c->next)
        broken(frame);
    while (lim__block_next(&f.messages, &headers, &payload)) {
        if (payload.len != size)
            broken(frame);
        count++;
    }
    if (count != f.count || f.messages.len != 0)
        broken(frame);
    c->delivered += count;
    c->next += count;
}

static void on_subscribed(bench_conn *c, const lim__frame *frame)
{
    lim__f_subscribed f;
    if (!lim__get_subscribed(frame, &f))
        broken(frame);
    c->next = frame->flags & LIM__FLAG_READS ? f.subscription : 0;
    c->confirmed = true;
}

static void on_frame(bench_conn *c, const lim__frame *frame)
{
    switch (frame->type) {
    case LIM__DELIVER:
        c->delivered++;
        break;
    case LIM__DELIVERS:
        on_delivers(c, frame);
        break;
    case LIM__PUBLISHED:
        on_published(c, frame);
        break;
    case LIM__STORED:
        on_stored(c, frame);
        break;
    case LIM__REQUEST:
        on_request(c, frame);
        break;
    case LIM__OUTCOME:
        on_outcome(c, frame);
        break;
    case LIM__DROPPED:
        on_dropped(c, frame);
        break;
    case LIM__SUBSCRIBED:
        on_subscribed(c, frame);
        break;
    case LIM__SERVED:
        c->confirmed = true;
        break;
    case LIM__ENDED:
    case LIM__LEFT:
        bench_die("liminald ended a subscription or a registration");
    default:
        break;
    }
}

/* Of what is read from a log each number is looked at. */
static void numbered(bench_conn *c, const uint8_t *delivery)
{
    if (lim__load64(delivery + LIM__HEADER_SIZE) != c->next)
        bench_die("message %llu is missing", (unsigned long long)c->next);
    c->next++;
}

/* Skips deliveries of the expected size. */
static const uint8_t *skip(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    size_t unit = c->unit;
    if (unit == 0)
        return p;
    for (; (size_t)(end - p) >= unit && p[0] == LIM__DELIVER && lim__load32(p + 6) == unit - LIM__HEADER_SIZE;
         p += unit) {
        c->delivered++;
        if (c->next != 0)
            numbered(c, p);
    }
    return p;
}

static void acknowledge(bench_conn *c)
{
    if (c->unit == 0 || c->delivered - c->acked < c->window / 2)
        return;
    c->acked = c->delivered;
    must(lim__put_ack(&c->out, &(lim__f_ack){ .stream = STREAM, .upto_seq = c->acked }));
}

static const uint8_t *take(bench_conn *c, const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        lim__span in = { skip(c, p, end), end };
        lim__frame frame;
        lim__wire_got got = lim__wire_next(&c->wire, &in, &frame);
        if (got == LIM__WIRE_END)
            bench_die("liminald ended the session: %s", c->wire.text);
        if (got == LIM__WIRE_MORE) {
            acknowledge(c);
            return in.p;
        }
        on_frame(c, &frame);
        p = in.p;
    }
}

/* ---- what goes out ---- */

static void confirm(bench_conn *c)
{
    while (!c->confirmed) {
        bench_flush(c);
        bench_read(c, 0);
    }
}

static void subscribe(bench_conn *c, const char *channel, size_t size, uint32_t window, uint32_t backlog)
{
    c->unit = LIM__HEADER_SIZE + LIM__LEAST_OF_DELIVER + size;
    c->window = window;
    must(lim__put_subscribe(&c->out, &(lim__f_subscribe){ .stream = STREAM,
                                                          .window = window,
                                                          .backlog = backlog,
                                                          .policy = LIM_DROP_OLDEST,
                                                          .pattern = lim__str(channel) }));
    confirm(c);
}

static void serve(bench_conn *c, const char *group)
{
    must(lim__put_serve(
        &c->out, &(lim__f_serve){
                     .stream = STREAM, .kind = LIM__SERVE_GROUP, .capacity = UINT32_MAX, .group = lim__str(group) }));
    confirm(c);
}

/* The options of an ask or a dispatch; `block` gets them. */
static lim_bytes wants(const bench_conn *c, lim__buf *block)
{
    if (c->kept)
        must(lim__packed_add(block, lim__str("durable"), lim__str("1")));
    return lim__buf_bytes(block);
}

static void prepare_asking(bench_conn *c, const char *group)
{
    lim__buf block = { 0 };
    must(lim__put_ask(&c->request, &(lim__f_ask){ .timeout_ms = 20000,
                                                  .on_crash = LIM_CRASH_FAIL,
                                                  .group = lim__str(group),
                                                  .options = wants(c, &block),
                                                  .payload = lim__str("0123456789abcdef") }));
    lim__buf_fini(&block);
}

void bench_liminal_work(bench_conn *c, const char *queue, uint32_t capacity)
{
    must(lim__put_serve(
        &c->out,
        &(lim__f_serve){ .stream = STREAM, .kind = LIM__SERVE_QUEUE, .capacity = capacity, .group = lim__str(queue) }));
    confirm(c);
}

void bench_liminal_prepare_tasks(bench_conn *c, const char *queue)
{
    lim__buf block = { 0 };
    c->tasks = true;
    must(lim__put_dispatch(&c->request, &(lim__f_dispatch){ .timeout_ms = 20000,
                                                            .flags = LIM__FLAG_OUTCOME,
                                                            .queue = lim__str(queue),
                                                            .options = wants(c, &block),
                                                            .payload = lim__str("0123456789abcdef") }));
    lim__buf_fini(&block);
}

void bench_liminal_acknowledge(bench_conn *c)
{
    must(lim__put_taken(&c->out, &(lim__f_taken){ STREAM, 0, c->conv, c->lease }));
}

void bench_liminal_answer(bench_conn *c)
{
    bench_liminal_acknowledge(c);
    must(lim__put_reply(&c->out, &(lim__f_reply){ .stream = STREAM,
                                                  .conversation = c->conv,
                                                  .lease = c->lease,
                                                  .how = LIM__REPLY_REPLY,
                                                  .payload = lim__str("0123456789abcdef") }));
}

static void put_publish(lim__buf *out, const char *channel, size_t size)
{
    uint8_t payload[64 * 1024];
    if (size > sizeof payload)
        bench_die("a message has at most %zu bytes here", sizeof payload);
    memset(payload, 'x', size);
    must(lim__put_publish(out, &(lim__f_publish){ .channel = lim__str(channel), .payload = { payload, size } }));
}

static void number(uint8_t *batch, size_t stride, size_t count, uint64_t first)
{
    for (size_t i = 0; i < count; i++)
        lim__store32(batch + i * stride + LIM__HEADER_SIZE, (uint32_t)(first + i));
}

static void put_ask(bench_conn *c, uint32_t slot)
{
    lim_bytes request = lim__buf_bytes(&c->request);
    lim__buf_add(&c->out, request.ptr, request.len);
    lim__store64(c->out.ptr + c->out.end - request.len + LIM__HEADER_SIZE, slot);
}

static void settle(bench_conn *c, uint64_t published)
{
    while (c->answered < published)
        bench_read(c, 0);
    if (c->rejected > 0)
        bench_die("%llu publishes were rejected", (unsigned long long)c->rejected);
}

/* ---- what the server keeps ---- */

/* Asks the system; blocks; the answer is in c->heard. */
static void sys(bench_conn *c, const char *group, const char *request)
{
    c->listens = true;
    must(lim__put_ask(&c->out, &(lim__f_ask){ .timeout_ms = 5000,
                                              .on_crash = LIM_CRASH_FAIL,
                                              .group = lim__str(group),
                                              .payload = lim__str(request) }));
    for (c->done_count = 0; c->done_count == 0;) {
        bench_flush(c);
        bench_read(c, 0);
    }
    c->done_count = 0;
    c->listens = false;
}

static void create(bench_conn *c, const char *channel)
{
    char request[160];
    snprintf(request, sizeof request, "{\"op\":\"create\",\"name\":\"%.60s\",\"durable\":true}", channel);
    sys(c, "$sys.channels", request);
}

uint64_t bench_liminal_batches(bench_conn *c)
{
    static const char name[] = "\"batches\":";
    sys(c, "$sys.store", "{\"op\":\"info\"}");
    const char *at = strstr((const char *)lim__buf_bytes(&c->heard).ptr, name);
    if (at == NULL)
        bench_die("liminald does not say what it has written");
    return strtoull(at + sizeof name - 1, NULL, 10);
}

static void read_log(bench_conn *c, const char *log, size_t size, const char *from)
{
    lim__buf block = { 0 };
    c->unit = LIM__HEADER_SIZE + LIM__LEAST_OF_DELIVER + size;
    c->window = READ_WINDOW;
    must(lim__packed_add(&block, lim__str("from"), lim__str(from)));
    must(lim__put_subscribe(&c->out, &(lim__f_subscribe){ .stream = STREAM,
                                                          .window = c->window,
                                                          .backlog = 1,
                                                          .pattern = lim__str(log),
                                                          .options = lim__buf_bytes(&block) }));
    lim__buf_fini(&block);
    confirm(c);
}

static void replay(bench_conn *c, const char *channel, size_t size)
{
    read_log(c, channel, size, "all");
}

void bench_liminal_read_on(bench_conn *c, const char *log, size_t size)
{
    read_log(c, log, size, "new");
}

const bench_peer bench_liminal = {
    .name = "liminal",
    .tells_crashes = true,
    .tells_waiting = true,
    .greet = greet,
    .subscribe = subscribe,
    .serve = serve,
    .prepare_asking = prepare_asking,
    .put_publish = put_publish,
    .number = number,
    .put_ask = put_ask,
    .take = take,
    .settle = settle,
    .class = "disk",
    .create = create,
    .replay = replay,
};
