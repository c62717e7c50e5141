/* SPDX-License-Identifier: Apache-2.0
 * base64.c - three bytes are four letters; what is left over is filled up with '='. */
#include "base/base64.h"

static int digit_of(uint8_t c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

void lim__base64_write(lim__buf *out, lim_bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = bytes.ptr;
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t have = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = (uint32_t)p[i] << 16 | (have > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (have > 2 ? p[i + 2] : 0u);
        char four[4];
        for (size_t k = 0; k < 4; k++)
            four[k] = k <= have ? digits[bits >> (18 - 6 * k) & 63] : '=';
        lim__buf_add(out, four, sizeof four);
    }
}

bool lim__base64_read(lim__buf *out, lim_bytes text)
{
    const uint8_t *p = text.ptr;
    size_t fill = text.len > 0 && p[text.len - 1] == '=' ? 1 + (text.len > 1 && p[text.len - 2] == '=') : 0;
    if (text.len % 4 != 0)
        return false;
    for (size_t i = 0; i < text.len; i += 4) {
        uint32_t bits = 0, count = i + 4 == text.len ? (uint32_t)(3 - fill) : 3;
        for (size_t k = 0; k < 4; k++) {
            int digit = i + k >= text.len - fill ? 0 : digit_of(p[i + k]);
            if (digit < 0)
                return false;
            bits = bits << 6 | (uint32_t)digit;
        }
        const uint8_t three[3] = { (uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits };
        lim__buf_add(out, three, count);
    }
    return !out->failed;
}
