/* SPDX-License-Identifier: Apache-2.0
 * native_ring.h - the memory that a router and its helper processes share: who writes what, and what is believed.
 *
 *      requests: one per router                                     answers: one per helper, new with each
 *      written by the bus alone; the helpers' mapping is            written by the helper; the bus reads each word once,
 *      read only, and sealed: it cannot be made writable            copies it, checks the copy, believes nothing else
 *      +-----------------------------------------------+            +--------------------------------------------+
 *      | place[0] upto from active                     |            | word   its thread id, WAITERS, OWNER_DIED  |
 *      | place[1] upto from active                     |            | state  loading, ready, refused             |
 *      | want, bell                                    |            | started, done   counts of calls            |
 *      | calls[64]     serial % 64                     |            | asleep                                     |
 *      | records[4096] candidates, by their slot       |            | note   why it is about to die; its words   |
 *      | strings       names, tags, types              |            | replies[64]     serial % 64                |
 *      | messages      payloads, headers, lists        |            +--------------------------------------------+
 *      +-----------------------------------------------+
 *
 * Calls have serial numbers; there is one row of them, and they are answered in order. The bus writes a request, then
 * `upto` (= how many there are) of the place of the current helper; the helper makes calls until it has done that many,
 * counting `started` and `done`, and sleeps on `upto`. Two places, because the spare maps the same requests: when the
 * current helper dies with call k, the spare is told to begin with k + 1, and nothing is copied.
 *
 * There is no lock that a helper could hold. `word` is a robust futex: it holds the helper's thread id, and the kernel
 * marks it when that thread dies; the bus also sleeps on it for answers (WAITERS says so; the helper clears the bit and
 * wakes). All that a helper can do by writing nonsense here is to be taken for dead: it is then killed for certain. */
#ifndef LIM__NATIVE_RING_H
#define LIM__NATIVE_RING_H

#include <stdatomic.h>
#include <stdint.h>

enum {
    LIM__RING_CALLS = 64,
    LIM__RING_CANDIDATES = 4096,
    LIM__RING_STRINGS = 1 << 20,
    LIM__RING_MESSAGES = 4 << 20,
    LIM__RING_TEXT = 200,
};
#define LIM__RING_WAITERS    0x80000000u /* as in <linux/futex.h> */
#define LIM__RING_OWNER_DIED 0x40000000u

/* ---- requests: the bus writes ---- */
typedef struct lim__ring_place {
    _Alignas(64) _Atomic uint32_t upto; /* futex: the helper sleeps on it. Released after everything it speaks of */
    uint32_t from;                      /* the first serial of this helper, written before `active` */
    _Atomic uint32_t active;
} lim__ring_place;

typedef struct lim__ring_call {
    _Alignas(64) uint32_t serial;
    uint32_t count; /* candidates */
    uint32_t list;  /* offset in messages: of each candidate uint64_t id, then of each uint16_t slot; 16-aligned */
    uint32_t payload, payload_len, headers, headers_len; /* offsets in messages */
    uint32_t unused;
    uint64_t seed, counter;
} lim__ring_call;

typedef struct lim__ring_record {  /* a candidate */
    _Alignas(64) _Atomic uint32_t seq; /* odd while it is being written; read again if it changed */
    uint32_t shape;                /* changes with what stands in strings */
    uint64_t id;
    uint32_t in_flight, max_in_flight, buffer_depth, latency_us;
    uint32_t strings, strings_len; /* name, node, then of each tag and type uint16_t length, bytes */
    uint16_t name_len, node_len, tag_count, type_count;
} lim__ring_record;

typedef struct lim__ring_requests {
    lim__ring_place place[2];
    _Alignas(64) _Atomic uint32_t want; /* wake when so many are done ... */
    _Atomic uint32_t changes;           /* of records; who has seen so many has nothing to look for */
    _Atomic uint32_t bell;              /* ... and, if this differs from the last one served, ring the event, too */
    lim__ring_call calls[LIM__RING_CALLS];
    lim__ring_record records[LIM__RING_CANDIDATES];
    uint8_t strings[LIM__RING_STRINGS];
    _Alignas(64) uint8_t messages[LIM__RING_MESSAGES];
} lim__ring_requests;

/* ---- answers: the helper writes ---- */
enum { LIM__RING_LOADING = 0, LIM__RING_READY = 1, LIM__RING_REFUSED = 2 };          /* state */
enum { LIM__RING_NO_NOTE = 0, LIM__RING_SIGNAL = 1, LIM__RING_CALL = 2, LIM__RING_SAYS = 3 }; /* note_kind */

typedef struct lim__ring_reply {
    uint32_t serial;
    uint32_t index;   /* as the function answered */
    uint64_t id;      /* of that candidate, as the helper saw it; 0: none, or the index is out of range */
    uint64_t counter; /* after the call */
} lim__ring_reply;

typedef struct lim__ring_answers {
    _Alignas(64) _Atomic uint32_t word;
    _Atomic uint32_t state;
    _Atomic uint32_t started, done;
    _Atomic uint32_t asleep;
    _Alignas(64) _Atomic uint32_t note_kind; /* SIGNAL: number is one; CALL: a forbidden system call's; SAYS: text */
    uint32_t note_number;
    char note_text[LIM__RING_TEXT];
    lim__ring_reply replies[LIM__RING_CALLS];
} lim__ring_answers;

/* ---- what the bus and the zygote tell each other ----
 * On the control socket the bus sends `spawn` with five descriptors: life, code, requests, answers, event. On `life` it
 * hears `born`, with a pidfd, then `ended`; the end of the stream without it means that the zygote itself is gone. When
 * the bus closes its end, the zygote kills the helper. */
enum { LIM__ZYGOTE_HELLO = 1, LIM__ZYGOTE_SPAWN, LIM__ZYGOTE_BORN, LIM__ZYGOTE_ENDED };
enum { LIM__ZYGOTE_ABI = 1, LIM__ZYGOTE_FDS = 5, LIM__ZYGOTE_CONTROL_FD = 3 };
typedef struct lim__zygote_spawn {
    uint32_t what, place;
    uint64_t code_bytes, memory_bytes;
    uint32_t cpu_seconds, flags; /* cpu_seconds: of the helper's whole life */
} lim__zygote_spawn;
typedef struct lim__zygote_word {
    uint32_t what;
    int32_t pid;          /* HELLO: LIM__ZYGOTE_ABI */
    int32_t status;       /* ENDED: as of waitpid; HELLO: 0, or negative: it cannot be, because of text */
    char text[160];
} lim__zygote_word;

#endif
