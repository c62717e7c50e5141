/* SPDX-License-Identifier: Apache-2.0
 * reader.h - subscriptions that read the log of a durable channel, as their owners use them (sessions, local handlers, steps).
 *
 *      owner --attach, done, more, fetch, detach--> reader --row--> store          one process per cursor; without a cursor
 *            <--msgs, acked, over------------------   ^  `--page--> reading thread   one per subscription, that keeps no row
 *                                                     `--bell-- log
 *
 * An owner is a process; it gives each of its memberships a number of its own (`owner_ref`) that comes back in every letter.
 * Messages come in letters of several, at most LIM__READ_TRANSIT of them unanswered: `more` says that one was dealt with, so
 * what piles up before a slow owner is bounded in bytes. The window bounds what is delivered and not acknowledged. */
#ifndef LIM__READER_H
#define LIM__READER_H

#include "bus/bus.h"
#include "bus/durable.h"
#include "data/data.h"

enum { LIM__READ_TRANSIT = 2, LIM__CURSOR_NAME_MAX = 255 };
#define LIM__READ_BACKOFF UINT64_MAX /* as a delay: 100 ms, twice as long each time, at most 30 s */

typedef struct lim__readers lim__readers; /* of a bus: cursor -> process; any thread */
lim__readers *lim__readers_new(uint64_t seed);
void lim__readers_free(lim__readers *all);
/* For tests: messages and bytes of a page; 0: as usual. Before anybody reads. */
void lim__readers_limit(lim__readers *all, uint32_t page_messages, uint32_t page_bytes);
lim_err lim__readers_restore(lim_bus *bus, lim_diag *diag); /* a part of lim__durable_restore, behind the channels */

typedef struct lim__reading { /* VALUE: a membership */
    lim_pid reader;
    uint64_t member;
    uint64_t begins; /* the first number that it may get; 0: not known (a cursor, a time, last_per_key) */
} lim__reading;
typedef struct lim__read_want {
    lim_bytes channel;
    lim_read_opts read;
    uint32_t window; /* 1 .. 2^30, or LIM_PULL */
    lim_pid owner;
    uint64_t owner_ref;
    lim_bytes owner_name; /* for people */
} lim__read_want;
/* Whether a subscription reads a log: it says how, or is of a durable channel by its name with policy 0 or hold. Any thread. */
bool lim__reader_wanted(lim_bus *bus, lim_bytes pattern, lim_policy policy, const lim_read_opts *read);
/* Every message that is stored from here on is delivered, and those before as `read` says. self: the owner, or NULL on another
 * thread. NOTFOUND, MISUSE (a pattern, an ephemeral channel, options that exclude each other), EXISTS: the cursor is taken;
 * diag says what, by whom, and what to do. */
lim_err lim__reader_attach(lim_bus *bus, lim_process *self, const lim__read_want *want, lim_diag *diag, lim__reading *out);
/* Exactly once for each that was attached, also when it was told that it is over. In on_end: self NULL. */
void lim__reader_detach(lim_bus *bus, lim_process *self, lim__reading reading);

/* The options of a SUBSCRIBE, read: what lim__options_subscribe wrote. The texts of `read` are here. */
typedef struct lim__read_options {
    lim_read_opts read;
    bool pull;
    char cursor[LIM__CURSOR_NAME_MAX + 1], dead_letter[256];
} lim__read_options;
lim_err lim__read_options_parse(lim_bytes block, lim_diag *diag, lim__read_options *out); /* INVALID: diag says which */
lim_err lim__read_from(lim_bytes text, lim_read_opts *out); /* "all", "new", "seq:N", "time:MICROSECONDS"; INVALID */

/* ---- owner -> reader; any thread (self NULL); in order ---- */
typedef enum lim__read_how {
    LIM__READ_DONE = 1, LIM__READ_UPTO /* all that this member has up to the number */, LIM__READ_AGAIN /* after delay_ns */
} lim__read_how;
typedef struct lim__read_ack {
    lim__read_how how;
    uint64_t delay_ns;
    uint64_t ref;        /* not 0: answered by `read_acked`, once it is stored */
    lim_on_done *on_done; /* likewise, by a call on the reader's scheduler; CLOSED: the reader has ended */
    void *ctx;
    const uint64_t *seqs; /* `count` numbers; copied */
    uint32_t count;
} lim__read_ack;
lim_err lim__reader_ack(lim_bus *bus, lim_process *self, lim__reading reading, const lim__read_ack *ack); /* NOMEM, GONE */
void lim__reader_more(lim_bus *bus, lim_process *self, lim__reading reading);
lim_err lim__reader_fetch(lim_bus *bus, lim_process *self, lim__reading reading, uint32_t count, uint64_t ends_ns);

/* ---- reader -> owner ---- letters */
typedef struct lim__read_item {
    uint64_t seq;
    uint32_t deliveries; /* this one included; from the second on its headers say so: $deliveries */
    lim__msg *msg;
} lim__read_item;
typedef struct lim__read_msgs {
    uint64_t owner_ref, member;
    uint32_t count;
    lim__read_item item[];
} lim__read_msgs;
struct lim__block;
typedef struct lim__read_row { /* likewise, messages in a row: `first` and those behind it, delivered for the first time */
    uint64_t owner_ref, member, first;
    uint32_t count;
    struct lim__block *block; /* a reference */
    lim_bytes bytes;          /* of the block (data/block.h): these messages */
} lim__read_row;
typedef struct lim__read_acked { uint64_t owner_ref, ref; lim_err err; char detail[96]; } lim__read_acked;
/* Nothing follows. why UNREACHABLE: its process has died; the cursor stands where it stood, and who attaches again gets what
 * was not acknowledged. */
typedef struct lim__read_over { uint64_t owner_ref, member; lim_err why; char detail[96]; } lim__read_over;
extern const lim__letter_type lim__type_read_msgs, lim__type_read_row, lim__type_read_acked, lim__type_read_over;

/* ---- steps ----
 *   lim__reader_step_ask --(on the reader's scheduler)--> on_answer(OK) --lim__reader_step_row in the step's batch-->
 *   commit --> lim__reader_step_end(committed or not), from any thread. Meanwhile the message stays where it is. */
typedef struct lim__step_ack {
    lim__reading reading;
    uint64_t seq;
    /* Exactly once after LIM_OK, unless the bus closes first. GONE: it is not this subscription's to acknowledge (any more);
     * MISUSE: it has no cursor; CLOSED: the reader has ended. */
    void (*on_answer)(struct lim__step_ack *ack, lim_err err);
    void *ctx;
    uint64_t stream;     /* private */
    uint8_t cursor_len;
    char cursor[LIM__CURSOR_NAME_MAX];
} lim__step_ack;
lim_err lim__reader_step_ask(lim_bus *bus, lim_process *self, lim__step_ack *ack); /* ack: the caller's, until on_answer */
void lim__reader_step_row(const lim__step_ack *ack, lim__batch *batch);            /* after an answer of OK */
void lim__reader_step_end(lim_bus *bus, const lim__step_ack *ack, bool committed); /* once after an answer of OK; any thread */
/* The membership of a local subscription. GONE; MISUSE: it reads no log. */
lim_err lim__reader_of(lim_bus *bus, lim_sub sub, lim__reading *out);

/* ---- administration ---- */
/* Processes of the cursors of a channel (len 0: of all), or of one; up to max. Answers how many there are. Any thread. */
size_t lim__readers_list(lim_bus *bus, lim_bytes channel, lim_bytes cursor, lim_pid *out, size_t max);

#endif
