/* SPDX-License-Identifier: Apache-2.0
 * durable_value.c - how rows are written: little-endian numbers and counted bytes behind a version byte; keys
 * big-endian.
 *
 * Reading is total: a value that ends early or claims more than it has is `bad`, reads zeros from there on, and
 * lim__unpack_end says so. */
#include "base/buf.h"
#include "bus/durable.h"

#include <string.h>

static void add(lim__buf *b, uint64_t v, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    lim__buf_add(b, bytes, n);
}

void lim__pack_u8(lim__buf *b, uint8_t v)
{
    add(b, v, 1);
}

void lim__pack_u16(lim__buf *b, uint16_t v)
{
    add(b, v, 2);
}

void lim__pack_u32(lim__buf *b, uint32_t v)
{
    add(b, v, 4);
}

void lim__pack_u64(lim__buf *b, uint64_t v)
{
    add(b, v, 8);
}

void lim__pack_bytes(lim__buf *b, lim_bytes v)
{
    lim__pack_u32(b, (uint32_t)v.len);
    lim__buf_add(b, v.ptr, v.len);
}

lim__unpack lim__unpack_begin(lim_bytes value)
{
    const uint8_t *at = value.ptr;
    return (lim__unpack){ at, at != NULL ? at + value.len : NULL, false };
}

static uint64_t take(lim__unpack *u, size_t n)
{
    uint64_t v = 0;
    if ((size_t)(u->end - u->at) < n) {
        u->bad = true;
        u->at = u->end;
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)u->at[i] << (8 * i);
    u->at += n;
    return v;
}

uint8_t lim__unpack_u8(lim__unpack *u)
{
    return (uint8_t)take(u, 1);
}

uint16_t lim__unpack_u16(lim__unpack *u)
{
    return (uint16_t)take(u, 2);
}

uint32_t lim__unpack_u32(lim__unpack *u)
{
    return (uint32_t)take(u, 4);
}

uint64_t lim__unpack_u64(lim__unpack *u)
{
    return take(u, 8);
}

lim_bytes lim__unpack_bytes(lim__unpack *u)
{
    size_t n = lim__unpack_u32(u);
    if ((size_t)(u->end - u->at) < n) {
        u->bad = true;
        u->at = u->end;
        n = 0;
    }
    lim_bytes out = { u->at, n };
    u->at += n;
    return out;
}

bool lim__unpack_end(const lim__unpack *u)
{
    return !u->bad && u->at == u->end;
}

size_t lim__key_u64(uint8_t *at, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> (56 - 8 * i));
    return 8;
}

uint64_t lim__key_get_u64(const uint8_t *at)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | at[i];
    return v;
}
