/* SPDX-License-Identifier: Apache-2.0
 * crc32c.c - CRC32C by the instruction that x86-64 has for it, or by tables.
 *
 * The instruction takes 8 bytes and answers after three cycles, but can begin every cycle. So long inputs are cut into
 * three equal parts that are worked on together, and the three results are joined:
 *
 *      crc(A B C) = shift(shift(crc(A)) ^ crc(B)) ^ crc(C)        shift: what LEN zero bytes do to a checksum
 *
 * The shift is linear in the 32 bits, so four tables of 256 words, one for each byte of the checksum, hold it. There
 * are two lengths: one for whole log writes, one for single records. All tables are made when the program starts. */
#include "base/crc32c.h"

#include <stdbool.h>
#include <string.h>

enum { LONG = 2048, SHORT = 128 };
#define POLYNOMIAL 0x82F63B78u /* 0x1EDC6F41 with its bits turned round */

struct shift {
    uint32_t byte[4][256];
};
static uint32_t table[8][256]; /* [k][b]: byte b followed by k zero bytes */
static struct shift shift_long, shift_short;
static bool has_instruction;

static uint32_t table_step(uint32_t crc, const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word); /* little-endian, as everything in the store */
    word ^= crc;
    crc = 0;
    for (int i = 0; i < 8; i++)
        crc ^= table[7 - i][(word >> (8 * i)) & 255];
    return crc;
}

/* Without the inversions before and after. */
static uint32_t table_raw(uint32_t crc, const uint8_t *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8)
        crc = table_step(crc, p);
    for (; len > 0; p++, len--)
        crc = (crc >> 8) ^ table[0][(crc ^ *p) & 255];
    return crc;
}

static void make_shift(struct shift *s, size_t len)
{
    static const uint8_t zeros[LONG];
    uint32_t bit[32];
    for (int i = 0; i < 32; i++)
        bit[i] = table_raw(1u << i, zeros, len);
    for (int k = 0; k < 4; k++) {
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t sum = 0;
            for (int i = 0; i < 8; i++)
                sum ^= b >> i & 1 ? bit[8 * k + i] : 0;
            s->byte[k][b] = sum;
        }
    }
}

__attribute__((constructor)) static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int i = 0; i < 8; i++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (uint32_t b = 0; b < 256; b++)
            table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 255];
    }
    make_shift(&shift_long, LONG);
    make_shift(&shift_short, SHORT);
#ifdef __x86_64__
    has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

uint32_t lim__crc32c_table(uint32_t crc, const void *bytes, size_t len)
{
    return ~table_raw(~crc, bytes, len);
}

#ifdef __x86_64__
static uint32_t shifted(const struct shift *s, uint32_t crc)
{
    return s->byte[0][crc & 255] ^ s->byte[1][crc >> 8 & 255] ^ s->byte[2][crc >> 16 & 255] ^ s->byte[3][crc >> 24];
}

static inline uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t three_parts(const struct shift *s, uint32_t crc, const uint8_t *p,
                                                              size_t part)
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < part; i += 8) {
        a = __builtin_ia32_crc32di(a, word_at(p + i));
        b = __builtin_ia32_crc32di(b, word_at(p + part + i));
        c = __builtin_ia32_crc32di(c, word_at(p + 2 * part + i));
    }
    return shifted(s, shifted(s, (uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t instruction_raw(uint32_t crc, const uint8_t *p, size_t len)
{
    for (; len >= (size_t)3 * LONG; p += (size_t)3 * LONG, len -= (size_t)3 * LONG)
        crc = three_parts(&shift_long, crc, p, LONG);
    for (; len >= (size_t)3 * SHORT; p += (size_t)3 * SHORT, len -= (size_t)3 * SHORT)
        crc = three_parts(&shift_short, crc, p, SHORT);
    uint64_t wide = crc;
    for (; len >= 8; p += 8, len -= 8)
        wide = __builtin_ia32_crc32di(wide, word_at(p));
    crc = (uint32_t)wide;
    for (; len > 0; p++, len--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return crc;
}
#endif

uint32_t lim__crc32c(uint32_t crc, const void *bytes, size_t len)
{
#ifdef __x86_64__
    if (has_instruction)
        return ~instruction_raw(~crc, bytes, len);
#endif
    return lim__crc32c_table(crc, bytes, len);
}
