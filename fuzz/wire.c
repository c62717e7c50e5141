/* SPDX-License-Identifier: Apache-2.0
 * wire.c - any bytes, to a session of either role in any state, in pieces of any size.
 *
 * The first byte chooses role, state and where the input is cut; the rest is what the peer sends. Whole and in pieces,
 * the same frames must come out, every frame handed out must decode or be malformed without a read outside (the dump
 * reads all fields), and what decodes must encode to something that decodes to the same again.
 *
 * With libFuzzer: ./dev fuzz wire 60. Alone (-DLIM_FUZZ_ALONE): each argument is a file to run, for regressions. */
#include "wire/wire.h"

#include <stdio.h>
#include <stdlib.h>

/* Reads a frame and writes it again: the second writing must equal the first. */
static void there_and_back(const lim__frame *frame)
{
    switch (frame->type) {
#define F(id, NAME, name, sender, scope)                                                                               \
    case id: {                                                                                                         \
        lim__f_##name f = { 0 }, g = { 0 };                                                                            \
        lim__buf once = { 0 }, twice = { 0 };                                                                          \
        if (!lim__get_##name(frame, &f))                                                                               \
            break;                                                                                                     \
        LIM_ASSERT(lim__put_##name(&once, &f) == LIM_OK);                                                              \
        const uint8_t *p = once.ptr;                                                                                   \
        lim__frame again = { p[0], p[1], lim__load32(p + 2), lim__load32(p + 6), p + LIM__HEADER_SIZE };               \
        LIM_ASSERT(lim__get_##name(&again, &g));                                                                       \
        LIM_ASSERT(lim__put_##name(&twice, &g) == LIM_OK);                                                             \
        LIM_ASSERT(lim__bytes_eq(lim__buf_bytes(&once), lim__buf_bytes(&twice)));                                      \
        lim__buf_fini(&once);                                                                                          \
        lim__buf_fini(&twice);                                                                                         \
        break;                                                                                                         \
    }
        LIM__FRAME_MAP(F)
#undef F
    default:
        break;
    }
}

static void start(lim__wire *w, lim__buf *out, uint8_t how)
{
    static const lim__wire_opts opts = { .length_max = 4096 };
    lim__wire_init(w, how & 1 ? LIM__WIRE_CLIENT : LIM__WIRE_SERVER, out, &opts);
    lim__wire_open(w);
    if (how & 2)
        w->state = how & 4 ? LIM__WIRE_HELLO : LIM__WIRE_ACTIVE;
}

/* What was handed out, as text; `piece` bytes arrive at a time. */
static void run(const uint8_t *data, size_t size, uint8_t how, size_t piece, lim__buf *log)
{
    lim__buf out = { 0 };
    lim__wire w;
    lim__wire_got got = LIM__WIRE_MORE;
    lim__span in = { data, data };
    start(&w, &out, how);
    while (got == LIM__WIRE_MORE && (size_t)(in.end - data) < size) {
        size_t left = size - (size_t)(in.end - data);
        in.end += left < piece ? left : piece;
        lim__frame frame;
        while ((got = lim__wire_next(&w, &in, &frame)) == LIM__WIRE_FRAME) {
            LIM_ASSERT(frame.payload >= data && frame.payload + frame.len <= in.end);
            there_and_back(&frame);
            lim__frame_dump(&frame, log);
            lim__buf_text(log, "\n");
        }
        LIM_ASSERT(got == LIM__WIRE_END || w.need > (size_t)(in.end - in.p));
        lim__wire_check(&w);
    }
    lim__buf_format(log, "%s %d %s %zu\n", lim__wire_state_name(w.state), (int)w.code, w.text, lim__buf_len(&out));
    lim__buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    lim__buf whole = { 0 }, pieces = { 0 };
    run(data + 1, size - 1, data[0], size, &whole);
    run(data + 1, size - 1, data[0], 1u + (data[0] >> 3), &pieces);
    LIM_ASSERT(lim__bytes_eq(lim__buf_bytes(&whole), lim__buf_bytes(&pieces)));
    lim__buf_fini(&whole);
    lim__buf_fini(&pieces);
    return 0;
}

#ifdef LIM_FUZZ_ALONE
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        static uint8_t data[1 << 20];
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
#endif
