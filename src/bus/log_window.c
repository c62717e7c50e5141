/* SPDX-License-Identifier: Apache-2.0
 * log_window.c - in which order idempotency keys are forgotten.
 *
 * Whether a key was seen is in its row alone: a publish expects that there is none. Here is only the queue of keys by
 * time, so that the oldest is found without looking: {u64 when, u8 length, key} one behind the other.
 *
 * The window is bounded three ways: in time, in keys, and in bytes (of the rows: so what is here is bounded, too).
 * Where duplicates slide a key's time, only one that comes later than a sixteenth of the window after the last is
 * written down, and every key stays that much longer: so no key stands here more than seventeen times. */
#include "base/base.h"
#include "bus/log_inside.h"

enum { ENTRY_HEAD = 9 };

void lim__window_add(lim__log *log, lim_bytes key, uint64_t when_ns)
{
    LIM_ASSERT(key.len <= LIM__LOG_KEY_MAX);
    uint8_t *at = lim__buf_reserve(&log->window, ENTRY_HEAD + key.len);
    if (at == NULL) { /* its row stays until the next start, which reads all of them */
        log->window.failed = false;
        return;
    }
    memcpy(at, &when_ns, sizeof when_ns);
    at[8] = (uint8_t)key.len;
    memcpy(at + ENTRY_HEAD, key.ptr, key.len);
    log->window.end += ENTRY_HEAD + key.len;
}

bool lim__window_at(const lim__log *log, size_t *pos, uint64_t *when_ns, lim_bytes *key)
{
    const uint8_t *at = log->window.ptr + log->window.start + *pos;
    if (*pos >= lim__buf_len(&log->window))
        return false;
    memcpy(when_ns, at, sizeof *when_ns);
    *key = lim__bytes(at + ENTRY_HEAD, at[8]);
    *pos += ENTRY_HEAD + key->len;
    return true;
}

void lim__window_drop(lim__log *log, size_t bytes)
{
    lim__buf_consume(&log->window, bytes);
}

uint64_t lim__window_due(const lim__log *log)
{
    uint64_t when;
    lim_bytes key;
    size_t pos = 0;
    if (!lim__window_at(log, &pos, &when, &key))
        return UINT64_MAX;
    bool over = log->window_count > log->opts.window_keys || log->window_size > log->opts.window_bytes;
    return log->opts.window_forgets && over ? 0 : when + lim__window_ns(&log->opts);
}

bool lim__window_full(const lim__log *log, size_t key_len)
{
    return log->window_count + log->flying_keys >= log->opts.window_keys ||
           (log->window_size + log->flying_key_bytes + key_len + LIM__WINDOW_ROW > log->opts.window_bytes &&
            !LIM__MUTATION("window_without_bytes"));
}

uint64_t lim__window_ns(const lim__log_opts *o)
{
    return o->window_slides ? o->window_ns + o->window_ns / 16 : o->window_ns;
}
