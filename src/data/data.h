/* SPDX-License-Identifier: Apache-2.0
 * data.h - what a message is made of: its bytes, its headers, and the JSON inside.
 *
 *   lim__msg       the payload and headers of a message: one block, counted, never changed. Any thread.
 *   lim__packed_*  the packed form of headers: made once, passed on as bytes.
 *   lim__doc       a JSON text, parsed. Reusable; one owner, one thread at a time.
 *   lim__val       one value in a document: a small struct, by value, valid until its document is parsed again.
 *
 * Absence is a value, not an error: every getter takes what another getter answered, so a chain of them needs one look
 * at the end, and whatever is not there reads as its default. */
#ifndef LIM__DATA_H
#define LIM__DATA_H

#include "base/base.h"
#include "base/buf.h"
#include "data/val.h"

/* ---- message ----
 *      | refs | headers_len | payload_len | payload ... | headers ... |      one malloc, freed by the last unref */
typedef struct lim__msg lim__msg; /* OBJECT, shared, immutable */
lim__msg *lim__msg_new(lim_bytes payload);                        /* copies; one reference; NULL: no memory */
lim__msg *lim__msg_new_with(lim_bytes payload, lim_bytes headers); /* headers: a packed block, may be empty */
lim__msg *lim__msg_ref(lim__msg *msg);                            /* any thread; answers msg; NULL stays NULL */
void lim__msg_unref(lim__msg *msg);                               /* any thread; NULL is a no-op */
lim_bytes lim__msg_bytes(const lim__msg *msg);                    /* VIEW: as long as the caller's reference */
lim_bytes lim__msg_headers(const lim__msg *msg);                  /* VIEW: packed; empty: none */
size_t lim__msg_cost(const lim__msg *msg);                        /* bytes of memory it takes, for accounting */

/* ---- headers, packed ---- as on the wire, count in front, big endian; no bytes at all: no headers
 *      u16 count | { u8 length, key, u16 length, text } ...                        in the order they were added */
/* For tests and the command line: adds one to a block being built. INVALID: empty key; TOOBIG: a key over 255 bytes, a
 * text over 65535, more than 65535 of them; NOMEM. Nothing is added then. */
lim_err lim__packed_add(lim__buf *block, lim_bytes key, lim_bytes text);
bool lim__packed_valid(lim_bytes block); /* for blocks that come from outside; the calls below stop at a fault */
/* Visits all: *pos = 0 at first; false at the end. */
bool lim__packed_next(lim_bytes block, size_t *pos, lim_bytes *key, lim_bytes *text);
bool lim__packed_get(lim_bytes block, lim_bytes key, lim_bytes *text); /* of several, the last */

/* ---- JSON ---- documents, values, iteration: val.h; here what is built on them */
/* "a.b[2].c": members by name, elements by [index]. A key with a dot or bracket in it is not reachable this way. */
lim__val lim__val_path(lim__val from, const char *path);
lim__val lim__val_path_bytes(lim__val from, lim_bytes path);

static inline bool lim__val_present(lim__val v)
{
    return v.kind != LIM__ABSENT;
}
const char *lim__kind_text(lim__kind kind); /* "text"; static */
bool lim__val_as_i64(lim__val v, int64_t *out);  /* ints, and doubles that are whole and fit */
bool lim__val_as_u64(lim__val v, uint64_t *out);
bool lim__val_as_f64(lim__val v, double *out);   /* every number; rounds */
/* A member by name with a default, for configuration and requests. A member of another kind reads as the default. */
lim_bytes lim__val_bytes(lim__val object, const char *key, lim_bytes otherwise);
const char *lim__val_str(lim__val object, const char *key, const char *otherwise); /* a text with a NUL inside: default */
uint64_t lim__val_u64(lim__val object, const char *key, uint64_t otherwise);
int64_t lim__val_i64(lim__val object, const char *key, int64_t otherwise);
double lim__val_f64(lim__val object, const char *key, double otherwise);
bool lim__val_bool(lim__val object, const char *key, bool otherwise);

/* Writes a value back as JSON under `key` (NULL inside an array or at the top). */
void lim__json_val(lim__json *j, const char *key, lim__val v);
/* Where and why `json` is not JSON, for people; used by lim__doc_parse. False: it finds no fault. */
bool lim__json_fault(lim_bytes json, lim_diag *diag);

#endif
