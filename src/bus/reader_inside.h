/* SPDX-License-Identifier: Apache-2.0
 * reader_inside.h - what the files reader*.c share: a reader, its members, its letters.
 *
 *      pages (read, not delivered) --deliver--> cursor (delivered, not done) --ack--> gone; the row says so
 *        ^        ^
 *      tail      job on the reading thread          one at a time
 *
 * Invariants:
 * Old messages come in blocks (data/block.h), as they were stored, and go to the member in blocks: none of them is looked at
 * by itself. That is the usual page of one who catches up; where something is to be said of single messages it has items.
 *
 *   K1  a page is under way only while some member has room: what is read is bounded by what is wanted.
 *   K2  every pending message of the cursor with a member stands in that member's list; `flight` is its length.
 *   K3  flight <= window, and transit <= LIM__READ_TRANSIT, for every member.
 *   K4  one commit of the row is under way at most; who waits for what it says is in `committing`, the others in `waiting`.
 *   K5  without a cursor there is one member, no row, and nothing waits for a commit. */
#ifndef LIM__READER_INSIDE_H
#define LIM__READER_INSIDE_H

#include "base/base.h"
#include "base/list.h"
#include "base/map.h"
#include "bus/letters.h"
#include "bus/log.h"
#include "bus/reader.h"
#include "bus/reader_cursor.h"
#include "data/block.h"

enum {
#ifdef LIM_HOSTILE
    LIM__READ_PAGE_MESSAGES = 3,
    LIM__READ_LETTER_MESSAGES = 2,
#else
    LIM__READ_PAGE_MESSAGES = 2048,
    LIM__READ_LETTER_MESSAGES = 64,
#endif
    LIM__READ_PAGE_BYTES = 1 << 20,
    LIM__READ_ROW_BYTES = 96 << 10, /* of the log, for a block; what is read, copied and sent stays in a processor's cache */
    LIM__READ_ROW_LEAST = 4,        /* fewer, because of what is between them: items */
    LIM__READ_ROWS_MAX = 4,         /* blocks of one job, */
    LIM__READ_ROWS_AHEAD = 2,       /* which begins when no more than so many are left */
    LIM__READ_LETTER_BYTES = 256 << 10,
    LIM__READ_TAIL_MESSAGES = 64,
    LIM__READ_KEPT_BYTES = 8 << 20, /* of messages in flight that are kept in memory; the others are read again if need be */
    LIM__READ_KEYS_MAX = 1 << 20,   /* different keys, of last_per_key */
    LIM__READ_FETCHES_MAX = 64,
    LIM__READ_ACK_MS = 30000,
    LIM__READ_RETRY_MS = 100,       /* after the disk could not be read, or written */
};

typedef enum lim__read_mode { LIM__READ_ALONE = 1, LIM__READ_SHARED, LIM__READ_STANDBY } lim__read_mode;
const char *lim__read_mode_text(lim__read_mode mode);

typedef struct lim__read_member {
    lim__list node, flights; /* in reader->members, in the order they came; what it has in hand, in the order it got it */
    uint64_t id, owner_ref, monitor;
    lim_pid owner;
    uint32_t window, flight, transit; /* window LIM_PULL: as much as was fetched */
    struct {
        uint32_t count;
        uint64_t ends_ns;
    } fetches[LIM__READ_FETCHES_MAX]; /* oldest first */
    uint32_t fetch_count;
    lim__read_msgs *out; /* being filled */
    size_t out_bytes;
    char name[64];
} lim__read_member;

typedef struct lim__read_waiter { /* wants to hear that its acknowledgement is stored */
    struct lim__read_waiter *next;
    lim_pid owner;
    uint64_t owner_ref, ref;
    lim_on_done *on_done;
    void *ctx;
} lim__read_waiter;
typedef struct lim__read_waiters {
    lim__read_waiter *first, **last;
} lim__read_waiters;

typedef struct lim__read_page { /* letter of the reading thread; also what was taken from the tail */
    struct lim__read_page *follows; /* of those that wait */
    int err;              /* 0, or a negative errno: the page ends before the number `next` */
    uint64_t from, next;  /* everything in between is in it, or was forgotten */
    uint32_t at, count;   /* at: those before were delivered */
    bool again;           /* what a reader had let go, and wants back */
    bool more;            /* the job goes on */
    uint64_t damaged;     /* number of a record before its first message that went bad; 0: none */
    lim__block *block;    /* instead of items: all `count` messages; */
    lim_bytes rest;       /* those from `at` on, and item[0] is the one at `at`, if it is wanted alone */
    lim__logged item[];
} lim__read_page;
typedef struct lim__read_sought { int err; uint64_t seq; } lim__read_sought;             /* letter: where to begin */
typedef struct lim__read_keys { int err; uint64_t upto; size_t count; uint64_t *seqs; } lim__read_keys; /* letter; owned */

typedef enum lim__read_job { LIM__JOB_NONE = 1, LIM__JOB_PAGE, LIM__JOB_AGAIN, LIM__JOB_SEEK, LIM__JOB_KEYS } lim__read_job;
typedef enum lim__read_life {
    LIM__READ_LIVES = 1,
    LIM__READ_DELETING, /* the row, then itself */
    LIM__READ_ENDED     /* everybody was told; its process is about to end */
} lim__read_life;

typedef struct lim__reader {
    /* set once */
    lim_bus *bus;
    lim__log *log;
    uint64_t stream;
    uint8_t cursor_len; /* 0: none, and nothing is kept */
    char cursor[LIM__CURSOR_NAME_MAX + 1];
    uint32_t page_messages, page_bytes;
    struct lim__reader_place *place; /* in the registry; NULL without a cursor */
    uint64_t created_wall_ns;
    /* its process */
    lim_process *self; /* during a signal */
    lim__read_life life;
    lim__read_mode mode;
    uint64_t ack_ns;   /* UINT64_MAX: never */
    uint32_t deliveries_max;
    char *dead_letter; /* NULL: none */
    lim__cursor at;
    lim__list members;
    uint32_t member_count;
    uint64_t turn; /* shared: the member that got the last one */
    /* reading */
    lim__log_seat seat;
    bool seated;
    lim__read_page *page, *newest; /* those that wait, from the oldest on; NULL: none */
    uint32_t page_count, rows;     /* rows: blocks that the next job may read */
    uint64_t read_next; /* the first number that is neither in a page nor looked at */
    lim__read_job job;
    bool awaits;             /* a bell will ring */
    uint64_t seek_wall_ns, stuck; /* seek: not resolved yet, 0: it is. stuck: a record that memory was short for */
    uint64_t *last_seqs, last_upto, damaged_last, damaged_newest; /* last_per_key: up to last_upto only these, ascending */
    size_t last_count;
    bool keys_wanted;
    /* timers: 0: none */
    uint64_t due_timer, due_timer_ns, retry_timer;
    /* the row */
    lim__flush flush;
    lim__read_waiters waiting, committing;
    bool dirty, dead_in_commit; /* dead_in_commit: the one under way has dead letters */
    uint64_t commit;    /* number of the commit under way; 0: none */
    uint64_t commits;   /* begins where no other reader's does */
    uint32_t dying;     /* DYING messages */
    lim__buf steps;     /* numbers (u64 each) of step rows that the next commit takes into the row, and deletes */
    size_t steps_taken; /* bytes of these that the commit under way has */
    lim__buf skips;     /* likewise, of a former life: not looked at yet, and done; ascending */
    lim_pid deleter; /* who asked for the deletion; {0}: nobody waits */
    uint64_t deleter_ref;
    /* counted since the cursor was made */
    uint64_t redelivered, dead, damaged;
    uint64_t delivered; /* since this process was */
} lim__reader;

/* ---- letters to a reader ---- */
typedef struct lim__read_attach {
    lim_bus *bus; /* NULL: it was read. Else its owner is told that the reader has died */
    uint64_t member, owner_ref;
    lim_pid owner;
    uint32_t window;
    lim__read_mode mode;
    bool cursor; /* there will be another reader */
    uint64_t ack_ns;
    uint32_t deliveries_max;
    uint8_t name_len;
    uint16_t dead_letter_len;
    char text[]; /* name, dead_letter */
} lim__read_attach;
typedef struct lim__read_detach { uint64_t member; } lim__read_detach; /* more, too */
typedef struct lim__read_done {
    uint64_t member, delay_ns, ref;
    lim__read_how how;
    lim_on_done *on_done; /* told CLOSED if the letter is never read */
    void *ctx;
    uint32_t count;
    uint64_t seqs[];
} lim__read_done;
typedef struct lim__read_fetch { uint64_t member, ends_ns; uint32_t count; } lim__read_fetch;
typedef struct lim__read_step { lim__step_ack *ack; } lim__read_step; /* answered CLOSED if it is never read */
typedef struct lim__read_news { bool first; } lim__read_news; /* something is at its place; first: it was made again */
typedef struct lim__read_made { lim__commit_how how; } lim__read_made; /* the first row */
#define LIM__READER_LETTERS(X)                                                                                         \
    X(read_attach) X(read_detach) X(read_more) X(read_done) X(read_fetch) X(read_step) X(read_news) X(read_made)     \
    X(read_page) X(read_sought) X(read_keys)
#define X(name) extern const lim__letter_type lim__type_##name;
LIM__READER_LETTERS(X)
#undef X

/* ---- reader_place.c ---- */
typedef struct lim__read_stepped { uint64_t seq; bool committed; } lim__read_stepped;
/* What must be heard even if the reader dies meanwhile is left at its place: letters die with it. */
typedef struct lim__reader_place { /* a cursor, as it is found; under the registry's lock */
    lim_pid pid;       /* {0}: it died, and there was no memory for another one */
    uint64_t stored;   /* number of the newest commit that has ended */
    lim__commit_how how;
    lim__buf stepped;  /* lim__read_stepped: of steps that have ended */
    uint32_t members;
    lim__read_mode mode;
    uint64_t stream;
    uint8_t channel_len, cursor_len, key_len;
    char who[64]; /* one of its members */
    char text[];  /* channel, cursor, key (stream, cursor) */
} lim__reader_place;
size_t lim__reader_key(uint8_t *at, uint64_t stream, lim_bytes cursor); /* of its row: LIM__READER_KEY_MAX bytes */
enum { LIM__READER_KEY_MAX = 8 + LIM__CURSOR_NAME_MAX + 1 + 8 };
size_t lim__reader_step_key(uint8_t *at, uint64_t stream, lim_bytes cursor, uint64_t seq);
void lim__reader_place_drop(lim__reader *r); /* it is found no more; it ends */
/* Its commit has ended; any thread. Takes the letter: to whoever is the cursor's reader now, or to `reader` if it is found
 * no more. */
void lim__reader_place_stored(lim_bus *bus, uint64_t stream, lim_bytes cursor, lim_pid reader, lim__stored *letter);
void lim__reader_place_news(lim__reader *r); /* does what was left for it */
lim_err lim__reader_place_heir(lim__reader *r, lim_pid *out); /* another process has it; nobody is a member */

/* ---- reader.c ---- */
lim_err lim__reader_spawn(lim__reader *r, bool place, uint32_t scheduler, lim_pid *out);
void lim__reader_free(lim__reader *r); /* one that was not spawned */
void lim__reader_pump(lim__reader *r); /* delivers what it has and may */
void lim__reader_arm(lim__reader *r);  /* the timer of the first that is due */
void lim__reader_retry(lim__reader *r); /* pump and commit again in LIM__READ_RETRY_MS */
void lim__reader_delete(lim__reader *r); /* its row, then itself; nobody finds it any more */
void lim__reader_clear(lim__reader *r); /* all that is pending */
void lim__reader_tell_over(lim__reader *r, lim_err why, const char *detail);
void lim__reader_over(lim__reader *r, lim_err why, const char *detail); /* tells all members, and ends */

/* ---- reader_page.c ---- */
void lim__page_free(lim__read_page *page);
void lim__pages_free(lim__reader *r); /* those that wait */
/* Makes page->at a message that is to be delivered, or NULL: none now, and whoever brings more is under way. */
const lim__logged *lim__reader_next(lim__reader *r);
void lim__reader_taken(lim__reader *r); /* it was delivered, or passed over: the reference has moved */
/* Makes page->at the first of some messages of a block that can be delivered in a row; NULL: not so. */
lim__read_page *lim__reader_row_next(lim__reader *r);
void lim__reader_row_taken(lim__reader *r, uint32_t count, lim_bytes rest); /* so many were delivered */
void lim__reader_refetch(lim__reader *r, uint64_t seq);
void lim__reader_on_page(lim__reader *r, lim__read_page *page); /* takes it */
void lim__reader_seek(lim__reader *r);
void lim__reader_on_sought(lim__reader *r, const lim__read_sought *s);
void lim__reader_keys(lim__reader *r);
void lim__reader_on_keys(lim__reader *r, lim__read_keys *k); /* takes what it owns */
void lim__reader_rewind(lim__reader *r, uint64_t next); /* nothing is pending, and `next` is read next */

/* ---- reader_member.c ---- */
lim__read_member *lim__read_member_find(const lim__reader *r, uint64_t id); /* NULL: it has left */
lim__read_member *lim__read_member_pick(lim__reader *r, uint64_t now_ns);   /* whose turn it is; NULL: nobody has room */
bool lim__read_member_add(lim__reader *r, const lim__read_attach *a);
void lim__read_member_leave(lim__reader *r, lim__read_member *m, bool watched);
void lim__read_member_bereave(lim__read_member *m, lim__cursor *at); /* without a process: what it has is READY */
/* Delivers one that is READY, or the next of the log. False: no memory; nothing happened. */
bool lim__read_member_give_again(lim__reader *r, lim__read_member *m, lim__pend *p);
bool lim__read_member_give(lim__reader *r, lim__read_member *m, const lim__logged *next);
/* Whether it has room for messages in a row now, and for how many. */
uint32_t lim__read_member_room(lim__read_member *m, uint64_t now_ns);
/* Up to `max` of a page's block from its `at` on. 0: no memory; nothing happened. */
uint32_t lim__read_member_give_row(lim__reader *r, lim__read_member *m, lim__read_page *page, uint32_t max);
void lim__read_members_send(lim__reader *r); /* the letters that are being filled */
void lim__read_member_ack(lim__reader *r, const lim__read_done *d);
void lim__read_member_fetch(lim__reader *r, const lim__read_fetch *f);
void lim__read_member_late(lim__reader *r, uint64_t now_ns); /* whose time is over, or has come */
/* It was not done: again, or it has been delivered often enough. */
void lim__read_member_undone(lim__reader *r, lim__pend *p, lim__dead_why why, uint64_t delay_ns);
void lim__read_member_doom(lim__reader *r, lim__pend *p); /* has its message */
const char *lim__dead_why_text(lim__dead_why why);
void lim__read_member_step(lim__reader *r, lim__step_ack *ack);
void lim__read_member_stepped(lim__reader *r, const lim__read_stepped *s);

/* ---- reader_row.c ---- */
void lim__reader_dirty(lim__reader *r); /* the row is to be written, at the end of this turn */
void lim__reader_wait(lim__reader *r, const lim__read_member *m, const lim__read_done *d);
void lim__reader_on_stored(lim__reader *r, uint64_t ref, lim__commit_how how);
void lim__reader_row(const lim__reader *r, lim__buf *out);
lim_err lim__reader_read_row(lim__reader *r, lim__unpack *u); /* after version and channel; INVALID, NOMEM */
void lim__reader_flush(lim_process *self, lim__flush *flush);
void lim__waiters_end(lim__reader *r, lim__read_waiters *w, lim_err err, const char *detail);

/* ---- reader_show.c ---- */
void lim__reader_show(lim__reader *r, const lim__show *show);
void lim__reader_admin(lim__reader *r, const lim__admin *a);
void lim__reader_deleted(lim__reader *r);

#endif
