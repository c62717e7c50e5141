/* SPDX-License-Identifier: Apache-2.0
 * reader_world.h - readers of a durable channel in a simulated machine, for tests: what each of them heard, in order. */
#ifndef LIM__READER_WORLD_H
#define LIM__READER_WORLD_H

#include "bus/log_world.h"
#include "bus/reader.h"

enum { HEARD_MAX = 8192 };

typedef struct hearer {
    log_world *w;
    lim_sub sub;
    uint64_t seqs[HEARD_MAX];
    uint32_t deliveries[HEARD_MAX]; /* 1: the header is not there */
    uint32_t count, in_hand, most_in_hand, ends, wanted;
    lim_done answer;
    char last[LOG_TEXT_MAX], header[LOG_TEXT_MAX]; /* text of the last one; its header `header_name` */
    const char *header_name;
} hearer;

static inline uint32_t hearer_number(lim_bytes text)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n = n * 10 + (uint32_t)(((const char *)text.ptr)[i] - '0');
    return n;
}

static inline lim_done hearer_on_message(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    hearer *h = ctx;
    lim_bytes text;
    (void)bus;
    assert_true(h->count < HEARD_MAX);
    h->seqs[h->count] = d->seq;
    h->deliveries[h->count++] = lim_header(d->headers, "$deliveries", &text) ? hearer_number(text) : 1;
    snprintf(h->last, sizeof h->last, "%.*s", (int)d->payload.len, (const char *)d->payload.ptr);
    h->header[0] = '\0';
    if (h->header_name != NULL && lim_header(d->headers, h->header_name, &text))
        snprintf(h->header, sizeof h->header, "%.*s", (int)text.len, (const char *)text.ptr);
    h->in_hand += h->answer == LIM_HOLD;
    h->most_in_hand = h->in_hand > h->most_in_hand ? h->in_hand : h->most_in_hand;
    return h->answer;
}

static inline void hearer_on_end(void *ctx)
{
    ((hearer *)ctx)->ends++;
}

/* *h is the caller's, and begins anew. */
static inline lim_err hearer_try(hearer *h, log_world *w, const char *channel, lim_done answer, uint32_t window,
                                 lim_read_opts read)
{
    const char *header_name = h->header_name;
    *h = (hearer){ .w = w, .answer = answer, .header_name = header_name };
    const lim_sub_opts opts = { .size = sizeof opts,
                                .window = window,
                                .handler = { .on_message = hearer_on_message, .on_end = hearer_on_end, .ctx = h },
                                .read = read };
    return lim_subscribe(w->d.bus, channel, &opts, &h->sub);
}

static inline void hearer_open(hearer *h, log_world *w, lim_done answer, uint32_t window, lim_read_opts read)
{
    assert_int_equal(hearer_try(h, w, "orders", answer, window, read), LIM_OK);
}

static inline bool hearer_has(void *ctx)
{
    return ((hearer *)ctx)->count >= ((hearer *)ctx)->wanted;
}

static inline void hearer_until(hearer *h, uint32_t count)
{
    h->wanted = count;
    durable_until(&h->w->d, hearer_has, h);
    assert_int_equal(h->count, count);
}

static inline bool hearer_has_ended(void *ctx)
{
    return ((hearer *)ctx)->ends > 0;
}

static inline void hearer_close(hearer *h)
{
    assert_int_equal(lim_unsubscribe(h->w->d.bus, h->sub), LIM_OK);
    durable_until(&h->w->d, hearer_has_ended, h);
    assert_int_equal(h->ends, 1);
}

typedef struct told { /* of an acknowledgement */
    bool done;
    lim_err err;
} told;

static inline void told_on_done(void *ctx, lim_err err, const char *detail)
{
    (void)detail;
    *(told *)ctx = (told){ true, err };
}

static inline bool told_is_done(void *ctx)
{
    return ((told *)ctx)->done;
}

static inline lim_err hearer_ack(hearer *h, uint64_t seq)
{
    told t = { false, LIM_OK };
    lim_err err = lim_ack(h->w->d.bus, h->sub, seq, told_on_done, &t);
    if (err != LIM_OK)
        return err;
    durable_until(&h->w->d, told_is_done, &t);
    h->in_hand -= t.err == LIM_OK;
    return t.err;
}

static inline void publish_some(log_world *w, uint32_t from, uint32_t count)
{
    char text[16];
    for (uint32_t i = from; i < from + count; i++) {
        snprintf(text, sizeof text, "m%u", (unsigned)i);
        assert_int_equal(log_world_offer(w, text, (lim_publish_opts){ 0 }), LIM_OK);
    }
}

#endif
