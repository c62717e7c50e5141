/* SPDX-License-Identifier: Apache-2.0
 * log_show.h - durable channels as JSON, and the words for their options. All but the words: on the reading thread. */
#ifndef LIM__LOG_SHOW_H
#define LIM__LOG_SHOW_H

#include "base/buf.h"
#include "bus/log.h"

const char *lim__overflow_text(lim_overflow overflow); /* "drop_oldest"; "": none */
const char *lim__sync_text(lim_sync sync);             /* "always" */
bool lim__overflow_of(lim_bytes text, lim_overflow *out);
bool lim__sync_of(lim_bytes text, lim_sync *out);

void lim__log_json(lim__log *log, lim__store *store, lim__json *j); /* members of an object */
void lim__payload_json(lim__json *j, lim_bytes payload);            /* "payload", or "payload_base64" if it is no text */
void lim__stored_json(lim__json *j, const lim_stored_message *m);   /* an object */
/* Members "messages" and "next": up to max of them from number `from` on, as many as an answer has room for. IO: *bad is the
 * number of one that cannot be read. */
lim_err lim__log_peek(lim__log *log, lim__store *store, uint64_t from, uint32_t max, lim__json *j, uint64_t *bad);

#endif
