/* SPDX-License-Identifier: Apache-2.0
 * log_show.c - what operators see of a durable channel: its limits beside their use, its window, its messages.
 *
 * Numbers come from the store, which counts exactly; so all of this runs on the reading thread. */
#include "base/base64.h"
#include "bus/log_inside.h"
#include "bus/log_show.h"

#include <errno.h>

static const char *const overflows[] = { "", "drop_oldest", "reject", "dead_letter" };
static const char *const syncs[] = { "", "always", "interval", "never" };

const char *lim__overflow_text(lim_overflow overflow)
{
    return (size_t)overflow < LIM_COUNT(overflows) ? overflows[overflow] : "";
}

const char *lim__sync_text(lim_sync sync)
{
    return (size_t)sync < LIM_COUNT(syncs) ? syncs[sync] : "";
}

static bool word_of(lim_bytes text, const char *const *words, size_t count, uint32_t *out)
{
    for (size_t i = 1; i < count; i++)
        if (lim__bytes_eq(text, lim__str(words[i]))) {
            *out = (uint32_t)i;
            return true;
        }
    return false;
}

bool lim__overflow_of(lim_bytes text, lim_overflow *out)
{
    uint32_t n;
    bool known = word_of(text, overflows, LIM_COUNT(overflows), &n);
    if (known)
        *out = (lim_overflow)n;
    return known;
}

bool lim__sync_of(lim_bytes text, lim_sync *out)
{
    uint32_t n;
    bool known = word_of(text, syncs, LIM_COUNT(syncs), &n);
    if (known)
        *out = (lim_sync)n;
    return known;
}

/* ---- the channel ---- */

static bool count_row(void *ctx, lim_bytes key, lim_bytes value)
{
    (void)key, (void)value;
    return ++*(uint64_t *)ctx < 100000; /* enough to say that there are many */
}

static uint64_t rows(lim__log *log, lim__store *store, lim__table table)
{
    uint8_t prefix[8];
    uint64_t n = 0;
    (void)lim__store_scan(store, (uint8_t)table, lim__log_row_key(prefix, log->stream, lim__bytes(NULL, 0)),
                          lim__bytes(NULL, 0), count_row, &n);
    return n;
}

static void limits_json(const lim_channel_opts *o, lim__json *j)
{
    lim__json_u64(j, "retain_age_ms", (uint64_t)o->age_ms_max);
    lim__json_u64(j, "retain_bytes", o->bytes_max);
    lim__json_u64(j, "retain_count", o->count_max);
    lim__json_bool(j, "retain_latest", o->latest_per_key);
    lim__json_str(j, "overflow", lim__overflow_text(o->overflow));
    lim__json_str(j, "dead_letter", o->dead_letter);
}

static void window_json(const lim__log *log, const lim_channel_opts *o, lim__json *j)
{
    lim__json_open(j, "window", '{');
    lim__json_u64(j, "ms", (uint64_t)o->window_ms);
    lim__json_u64(j, "keys", log->window_count);
    lim__json_u64(j, "keys_max", o->window_keys);
    lim__json_u64(j, "bytes", log->window_size);
    lim__json_u64(j, "bytes_max", o->window_bytes);
    lim__json_bool(j, "slides", o->window_slides);
    lim__json_str(j, "at_max", o->window_forgets ? "forget the oldest" : "refuse new keys");
    lim__json_close(j);
}

void lim__log_json(lim__log *log, lim__store *store, lim__json *j)
{
    char dead[256];
    lim_channel_opts o;
    lim__stream_info info = { 0 };
    lim__log_opts_get(log, &o, dead);
    int err = log->stream != 0 ? lim__store_stream(store, log->stream, &info) : -EIO;
    lim__class class = lim__log_class(log);
    lim__lock(&log->lock);
    bool damaged = log->state == LIM__LOG_DAMAGED;
    lim__unlock(&log->lock);
    lim__json_str(j, "state", damaged ? "damaged" : "open");
    lim__json_str(j, "class", lim_class_text((lim_class) class));
    lim__json_str(j, "sync", lim__sync_text(o.sync != 0 ? o.sync : (lim_sync)lim__durable_sync(log->bus)));
    lim__json_u64(j, "first", err == 0 ? info.first : 0);
    lim__json_u64(j, "last", err == 0 ? info.next - 1 : 0);
    lim__json_u64(j, "count", info.count);
    lim__json_u64(j, "bytes", info.bytes);
    lim__json_u64(j, "first_at_us", info.first_ns / 1000);
    lim__json_u64(j, "last_at_us", info.last_ns / 1000);
    lim__json_u64(j, "delayed", rows(log, store, LIM__TABLE_DELAYED));
    limits_json(&o, j);
    lim__lock(&log->lock);
    lim__json_u64(j, "readers", log->seat_count);
    lim__json_u64(j, "in_memory", log->tail_count);
    window_json(log, &o, j);
    lim__unlock(&log->lock);
}

/* ---- messages ---- */

void lim__payload_json(lim__json *j, lim_bytes payload)
{
    if (lim__text_ok(payload)) {
        lim__json_bytes(j, "payload", payload);
        return;
    }
    lim__buf text = { 0 };
    lim__base64_write(&text, payload);
    lim__json_bytes(j, "payload_base64", lim__buf_bytes(&text));
    lim__buf_fini(&text);
}

static void headers_json(lim__json *j, lim_bytes headers)
{
    lim_bytes key, text;
    char name[256];
    lim__json_open(j, "headers", '{');
    for (size_t pos = 0; lim__packed_next(headers, &pos, &key, &text);) {
        memcpy(name, key.ptr, key.len);
        name[key.len] = '\0';
        lim__json_bytes(j, name, text);
    }
    lim__json_close(j);
}

void lim__stored_json(lim__json *j, const lim_stored_message *m)
{
    lim__json_open(j, NULL, '{');
    lim__json_u64(j, "seq", m->seq);
    lim__json_u64(j, "at_us", m->at_wall_us);
    if (m->key.len > 0)
        lim__json_bytes(j, "key", m->key);
    if (m->headers.len > 0)
        headers_json(j, m->headers);
    lim__payload_json(j, m->payload);
    lim__json_close(j);
}

/* ---- browsing ---- */

enum { PEEK_BYTES = 512 * 1024 }; /* of the answer; at least one message */

typedef struct peek {
    lim__json *j;
    uint64_t now_ns, next;
    uint32_t left;
} peek;

static bool each_peeked(void *ctx, const lim__record *r)
{
    peek *p = ctx;
    lim__log_record m;
    p->next = r->seq + 1;
    if (!lim__log_record_read(r->data, &m) || (m.expires_wall_ns != 0 && m.expires_wall_ns <= p->now_ns))
        return true;
    lim__stored_json(p->j, &(lim_stored_message){ .seq = r->seq,
                                                  .at_wall_us = r->wall_ns / 1000,
                                                  .key = r->key,
                                                  .payload = m.payload,
                                                  .headers = m.headers });
    return --p->left > 0 && lim__buf_len(p->j->buf) < PEEK_BYTES;
}

lim_err lim__log_peek(lim__log *log, lim__store *store, uint64_t from, uint32_t max, lim__json *j, uint64_t *bad)
{
    peek p = { .j = j, .now_ns = log->bus->os->wall_ns(log->bus->os), .next = from, .left = max };
    *bad = 0;
    lim__json_open(j, "messages", '[');
    int err = lim__store_read(store, log->stream, from, 0, each_peeked, &p, bad);
    lim__json_close(j);
    lim__json_u64(j, "next", p.next);
    return err == 0 ? LIM_OK : LIM_E_IO;
}
