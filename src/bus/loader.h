/* SPDX-License-Identifier: Apache-2.0
 * loader.h - loading routing functions where nobody waits for it: on the pool for blocking work.
 *
 * Loading runs foreign code for the first time (a chunk of Lua; a native object's constructors, in a helper process that
 * is waited for), and that may take up to a second. Each is a process of its own whose handler blocks.
 *
 *      request --> a process, blocking --> a thread: compile, check, keep --> `loaded` or `deployed` to who asked
 *
 * Pieces of code that do not fit into one request are put together before (upload.c). */
#ifndef LIM__LOADER_H
#define LIM__LOADER_H

#include "bus/bus.h"
#include "bus/letters.h"

typedef struct lim__load {
    lim_pid reply_to;
    uint64_t ref;
    lim__engine engine;
    uint8_t *code;       /* malloc'd; the loader's, whatever it answers */
    size_t len;
    bool has_hash;       /* INVALID unless the code has this SHA-256 */
    uint8_t hash[LIM__HASH_SIZE];
    char name[256];
} lim__load;
typedef struct lim__loaded { /* its answer */
    uint64_t ref;
    lim_err err;
    bool fresh;
    lim__artifact *artifact; /* LIM_OK: one reference, which the letter holds */
    lim_diag diag;
} lim__loaded;
extern const lim__letter_type lim__type_loaded;
/* LIM_OK: one letter comes, unless the bus closes before. NOMEM, CLOSED. */
lim_err lim__load_begin(lim_bus *bus, lim_process *self, const lim__load *load);
/* Tries a native function out with the limits it is deployed with, then sends the letter on; what is wrong is answered as
 * `deployed`. What else is deployed is sent at once. Takes the letter in every outcome; on an error no answer comes. */
lim_err lim__deploy_checked(lim_bus *bus, lim_process *self, lim_pid to, lim__deploy *d);
/* The same check in the call, which may take a second; terms that make no sense are not its business. */
lim_err lim__deploy_check(lim_bus *bus, const lim__deploy *d, lim_diag *diag);

/* ---- upload.c: of $sys.artifacts ---- */
enum {
    LIM__UPLOADS_MAX = 4,           /* at once; one of each asker */
    LIM__UPLOAD_CHUNK = 512 << 10,  /* bytes of code in one request, at most */
    LIM__UPLOAD_IDLE_MS = 60000     /* without a chunk it is forgotten */
};

#endif
