/* SPDX-License-Identifier: Apache-2.0
 * packed.c - headers as one block of bytes, the same as on the wire, so that passing them on is copying them.
 *
 *      u16 count | { u8 length, key, u16 length, text } ...      big endian
 *
 * Messages have few headers and most are never asked for: a walk is cheaper than any index. Every step checks its
 * lengths, so a block that was never validated reads short, not out of bounds. */
#include "data/data.h"
#include <liminal/liminal.h>

static size_t load16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

static uint8_t *store16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *put(uint8_t *p, lim_bytes b)
{
    if (b.len > 0)
        memcpy(p, b.ptr, b.len);
    return p + b.len;
}

lim_err lim__packed_add(lim__buf *block, lim_bytes key, lim_bytes text)
{
    if (key.len == 0)
        return LIM_E_INVALID;
    size_t count = lim__buf_len(block) >= 2 ? load16(lim__buf_bytes(block).ptr) : 0;
    if (key.len > UINT8_MAX || text.len > UINT16_MAX || count == UINT16_MAX)
        return LIM_E_TOOBIG;
    size_t front = lim__buf_len(block) == 0 ? 2 : 0, size = front + 1 + key.len + 2 + text.len;
    uint8_t *p = lim__buf_reserve(block, size);
    if (p == NULL)
        return LIM_E_NOMEM;
    p += front;
    *p++ = (uint8_t)key.len;
    put(store16(put(p, key), text.len), text);
    block->end += size;
    store16(block->ptr + block->start, count + 1);
    return LIM_OK;
}

/* Moves *pos over one field whose length takes `width` bytes. */
static bool take(lim_bytes block, size_t *pos, size_t width, lim_bytes *out)
{
    const uint8_t *p = block.ptr;
    if (block.len - *pos < width)
        return false;
    size_t len = width == 1 ? p[*pos] : load16(p + *pos);
    if (block.len - *pos - width < len)
        return false;
    *out = (lim_bytes){ p + *pos + width, len };
    *pos += width + len;
    return true;
}

bool lim__packed_next(lim_bytes block, size_t *pos, lim_bytes *key, lim_bytes *text)
{
    if (*pos == 0)
        *pos = 2;
    if (*pos >= block.len)
        return false;
    size_t at = *pos;
    if (!take(block, &at, 1, key) || !take(block, &at, 2, text))
        return false;
    *pos = at;
    return true;
}

bool lim__packed_valid(lim_bytes block)
{
    if (block.len == 0)
        return true;
    if (block.len < 2)
        return false;
    size_t pos = 0, found = 0;
    lim_bytes key, text;
    while (lim__packed_next(block, &pos, &key, &text)) {
        if (key.len == 0)
            return false;
        found++;
    }
    return (pos == block.len || (pos == 0 && block.len == 2)) && found == load16(block.ptr);
}

bool lim__packed_get(lim_bytes block, lim_bytes key, lim_bytes *text)
{
    size_t pos = 0;
    lim_bytes k, t;
    bool found = false;
    while (lim__packed_next(block, &pos, &k, &t)) {
        if (lim__bytes_eq(k, key)) {
            *text = t;
            found = true;
        }
    }
    return found;
}

bool lim_header(lim_bytes headers, const char *name, lim_bytes *out)
{
    return name != NULL && out != NULL && lim__packed_get(headers, lim__str(name), out);
}
