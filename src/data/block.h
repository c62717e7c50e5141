/* SPDX-License-Identifier: Apache-2.0
 * block.h - messages of a log one behind the other, as bytes: made once, counted, never changed. Any thread.
 *
 *      | u32 headers and payload | u16 headers | headers, packed | payload |   ...        big-endian, `count` of them
 *
 * They have the numbers first, first + 1, ...: whatever is missing in a log ends a block. The bytes are those of the frame
 * DELIVERS, so what a block was made for it can be sent as it is: whoever reads a log from the beginning costs a copy of
 * each message, and no more. */
#ifndef LIM__BLOCK_H
#define LIM__BLOCK_H

#include "base/base.h"

#include <stdatomic.h>
#include <string.h>

enum { LIM__BLOCK_HEAD = 6 }; /* of a message */

typedef struct lim__block {
    _Atomic uint32_t refs;
    uint32_t count, len, cap; /* len: bytes that are used */
    uint64_t first;
    uint8_t bytes[];
} lim__block;

lim__block *lim__block_new(uint32_t cap); /* empty; one reference; NULL: no memory */
lim__block *lim__block_ref(lim__block *b);
void lim__block_unref(lim__block *b); /* NULL is a no-op */
/* While there is one reference. False: no room, or headers that are too long for it; nothing was added. `key` (may be empty)
 * becomes the first header, `$key`. */
bool lim__block_add(lim__block *b, lim_bytes key, lim_bytes headers, lim_bytes payload);

/* The next message of some bytes, and *rest behind it. False: there is none, or the bytes are not what they should be. */
static inline bool lim__block_next(lim_bytes *rest, lim_bytes *headers, lim_bytes *payload)
{
    const uint8_t *p = rest->ptr;
    uint32_t len;
    uint16_t head;
    if (rest->len < LIM__BLOCK_HEAD)
        return false;
    memcpy(&len, p, sizeof len);
    memcpy(&head, p + sizeof len, sizeof head);
    len = __builtin_bswap32(len);
    head = __builtin_bswap16(head);
    if (LIM_UNLIKELY(len > rest->len - LIM__BLOCK_HEAD || head > len))
        return false;
    p += LIM__BLOCK_HEAD;
    *headers = lim__bytes(p, head);
    *payload = lim__bytes(p + head, len - head);
    *rest = lim__bytes(p + len, rest->len - LIM__BLOCK_HEAD - len);
    return true;
}

#endif
