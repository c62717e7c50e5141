/* SPDX-License-Identifier: Apache-2.0
 * wire.c - what the codec costs: encode and decode one frame, and pull frames out of a full read buffer.
 *
 * Each number is the best of several batches: the machine's noise only ever adds. Decoding includes lim__wire_next, as
 * a connection does it. */
#include "wire/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { FRAMES = 256, ROUNDS = 400, BATCHES = 15 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void result(const char *frame, const char *what, double ns)
{
    printf("RESULT wire_%s_%s %.1f ns\n", frame, what, ns);
}

/* A session that is ACTIVE, as whoever reads the frames of interest. */
static void activate(lim__wire *w, lim__wire_role role, lim__buf *out)
{
    lim__wire_init(w, role, out, NULL);
    lim__wire_open(w);
    w->state = LIM__WIRE_ACTIVE;
}

static volatile uint64_t sink; /* what is read must be wanted by somebody */

/* The compiler must take the memory behind p as unknown: no field is a constant to it. */
#define OPAQUE(p) __asm__ volatile("" : "+r"(p) : : "memory")

#define BENCH(name, reader, field, ...)                                                                                \
    static double encode_##name(lim__buf *out)                                                                         \
    {                                                                                                                  \
        lim__f_##name sample = { __VA_ARGS__ }, *f = &sample;                                                          \
        uint64_t start = now_ns();                                                                                     \
        for (int round = 0; round < ROUNDS; round++) {                                                                 \
            out->end = 0;                                                                                              \
            for (int i = 0; i < FRAMES; i++) {                                                                         \
                f->field = (uint32_t)i;                                                                                \
                OPAQUE(f);                                                                                             \
                if (lim__put_##name(out, f) != LIM_OK)                                                                 \
                    abort();                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
        return (double)(now_ns() - start) / (ROUNDS * FRAMES);                                                         \
    }                                                                                                                  \
    static double decode_##name(lim__wire *w, const lim__buf *in)                                                      \
    {                                                                                                                  \
        uint64_t sum = 0, start = now_ns();                                                                            \
        for (int round = 0; round < ROUNDS; round++) {                                                                 \
            lim__span span = { in->ptr, in->ptr + in->end };                                                           \
            lim__frame frame;                                                                                          \
            lim__f_##name f = { 0 };                                                                                   \
            while (lim__wire_next(w, &span, &frame) == LIM__WIRE_FRAME) {                                              \
                if (!lim__get_##name(&frame, &f))                                                                      \
                    abort();                                                                                           \
                sum += f.field + f.payload.len;                                                                        \
            }                                                                                                          \
        }                                                                                                              \
        sink = sum;                                                                                                    \
        return (double)(now_ns() - start) / (ROUNDS * FRAMES);                                                         \
    }                                                                                                                  \
    static void bench_##name(void)                                                                                     \
    {                                                                                                                  \
        double encode = 1e9, decode = 1e9;                                                                             \
        lim__buf bytes = { 0 }, out = { 0 };                                                                           \
        lim__wire w;                                                                                                   \
        activate(&w, reader, &out);                                                                                    \
        for (int batch = 0; batch < BATCHES; batch++) {                                                                \
            double ns = encode_##name(&bytes);                                                                         \
            encode = ns < encode ? ns : encode;                                                                        \
            ns = decode_##name(&w, &bytes);                                                                            \
            decode = ns < decode ? ns : decode;                                                                        \
        }                                                                                                              \
        result(#name, "encode", encode);                                                                               \
        result(#name, "decode", decode);                                                                               \
        lim__buf_fini(&bytes);                                                                                         \
        lim__buf_fini(&out);                                                                                           \
    }

static uint8_t payload[128];
#define PAYLOAD                                                                                                        \
    {                                                                                                                  \
        payload, sizeof payload                                                                                        \
    }
#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }

BENCH(publish, LIM__WIRE_SERVER, corr, .channel = TEXT("orders.eu.new"), .payload = PAYLOAD)
BENCH(deliver, LIM__WIRE_CLIENT, seq, .stream = 3, .payload = PAYLOAD)
BENCH(ask, LIM__WIRE_SERVER, corr, .timeout_ms = 5000, .on_crash = 1, .group = TEXT("pricing"), .type = TEXT("quote"),
      .payload = PAYLOAD)
BENCH(outcome, LIM__WIRE_CLIENT, corr, .how = 1, .handed_over = 2, .verdict = 1, .conversation = 77, .attempts = 1,
      .participant = TEXT("worker-17"), .payload = PAYLOAD)
BENCH(request, LIM__WIRE_CLIENT, conversation, .stream = 3, .lease = 9, .remaining_ms = 4999, .attempt = 1,
      .type = TEXT("quote"), .payload = PAYLOAD)
BENCH(reply, LIM__WIRE_SERVER, conversation, .stream = 3, .lease = 9, .how = 1, .payload = PAYLOAD)

int main(void)
{
    bench_publish();
    bench_deliver();
    bench_ask();
    bench_outcome();
    bench_request();
    bench_reply();
    return 0;
}
