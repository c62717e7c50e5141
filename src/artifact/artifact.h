/* SPDX-License-Identifier: Apache-2.0
 * artifact.h - bytes that are named by their SHA-256, each kept once.
 *
 * An artifact never changes after it was made. The store keeps one reference of its own until it is told to forget, so
 * that what was once put can be found again by its hash or the start of it. Knows nothing of what artifacts are for. */
#ifndef LIM__ARTIFACT_H
#define LIM__ARTIFACT_H

#include "base/base.h"
#include "os/os.h"

typedef enum lim__engine { /* what the bytes claim to be; the numbers are stored and sent: never change them */
    LIM__ENGINE_BUILTIN = 1, /* the bytes are the strategy's name */
    LIM__ENGINE_LUA = 2,
    LIM__ENGINE_NATIVE = 3,
    LIM__ENGINE_HOST = 4 /* the bytes are the identity the embedder gave */
} lim__engine;
const char *lim__engine_text(lim__engine engine); /* "lua"; "unknown" for others; static */

enum { LIM__HASH_SIZE = 32, LIM__HASH_TEXT = 65, LIM__HASH_SHORT = 17, LIM__HASH_PREFIX_MIN = 4 };

/* SHA-256 through OpenSSL, which is initialised by the first call. Any thread. IO: OpenSSL refused. */
lim_err lim__sha256(lim_bytes bytes, uint8_t out[static LIM__HASH_SIZE]);
void lim__hash_text(const uint8_t hash[static LIM__HASH_SIZE], char out[static LIM__HASH_TEXT]);        /* 64 hex */
void lim__hash_short_text(const uint8_t hash[static LIM__HASH_SIZE], char out[static LIM__HASH_SHORT]); /* first 16 */

typedef struct lim__artifact { /* OBJECT, shared; read only */
    uint8_t hash[LIM__HASH_SIZE];
    char id[LIM__HASH_SHORT]; /* the short text */
    lim__engine engine;
    lim_bytes bytes;       /* inline */
    const char *name;      /* what the first one who put it called it: a file name, a description; never NULL */
    uint64_t loaded_at_ns; /* wall clock, as the first one gave it */
    /* private */
    uint32_t refs; /* atomic */
} lim__artifact;
/* One reference, in no store. Copies. name may be NULL. NOMEM, IO, INVALID (empty). Any thread. */
lim_err lim__artifact_new(lim__engine engine, lim_bytes bytes, const char *name, uint64_t now_ns, lim__artifact **out);
lim__artifact *lim__artifact_ref(lim__artifact *a); /* any thread */
void lim__artifact_unref(lim__artifact *a);         /* any thread; NULL is a no-op */

typedef struct lim__artifacts lim__artifacts; /* OBJECT, one owner; its functions may be called by any thread */
lim__artifacts *lim__artifacts_new(void); /* NULL: no memory */
void lim__artifacts_free(lim__artifacts *store);   /* gives up its references; artifacts held elsewhere stay */
/* *out gets a reference of the caller's. The same engine and bytes give the same artifact (*fresh false, may be NULL).
 * The same bytes under another engine are another artifact with the same hash: get then answers the newer one. */
lim_err lim__artifacts_put(lim__artifacts *store, lim__engine engine, lim_bytes bytes, const char *name,
                           uint64_t now_ns, bool *fresh, lim__artifact **out);
/* By 64 hex digits or a prefix of at least 4, either case. INVALID: not that; NOTFOUND; EXISTS: the prefix fits several
 * hashes. *out is a reference of the caller's. */
lim_err lim__artifacts_get(lim__artifacts *store, lim_bytes hex, lim__artifact **out);
/* Fills up to max references, in the order they were put; answers how many there are. */
size_t lim__artifacts_list(lim__artifacts *store, lim__artifact **out, size_t max);
size_t lim__artifacts_count(lim__artifacts *store);
bool lim__artifacts_forget(lim__artifacts *store, const lim__artifact *a); /* false: it was not there */

#endif
