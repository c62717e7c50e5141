/* SPDX-License-Identifier: Apache-2.0
 * channel.h - channels and subscriptions as the bus's own processes use them (the server's sessions, local subscribers).
 *
 * A publish does not pass through any process: whoever publishes looks up the channel, takes its current table of
 * subscriptions (an immutable snapshot behind one atomic pointer), reserves a place in each, and delivers: by a direct
 * call if the subscription's owner lives on the same scheduler, by a letter to the owner if not. */
#ifndef LIM__CHANNEL_H
#define LIM__CHANNEL_H

#include <liminal/liminal.h>
#include "actor/actor.h"
#include "base/buf.h"
#include "data/data.h"

typedef struct lim__channels lim__channels; /* all of a bus: names, snapshots; any thread */
typedef struct lim__channel lim__channel;   /* one name; counted */
typedef struct lim__sub lim__sub;           /* one subscription; belongs to its owner process */

lim_err lim__channels_open(lim_runtime *rt, lim__channels **out);
void lim__channels_close(lim__channels *all); /* after the runtime has ended */
/* Before anybody uses it: how many channels and subscriptions (0: 100,000 and 1,000,000; one more is refused with FULL),
 * and whether channels that nobody opened with options allow `hold` (true unless told: right when embedded, not when
 * strangers publish). */
void lim__channels_limit(lim__channels *all, uint32_t channels_max, uint32_t subscriptions_max, bool allow_hold);
/* A number that changes whenever a name that had nobody may have somebody: a publisher may remember that
 * lim__channel_find answered NULL until it does. Any thread, a few instructions. */
uint64_t lim__channels_epoch(const lim__channels *all);

/* ---- names ---- */
bool lim__channel_name_ok(lim_bytes name);    /* segments of [A-Za-z0-9_-] joined by dots, 1..255 bytes; may start with $ */
bool lim__channel_pattern_ok(lim_bytes name); /* the same with * and a last > */
/* A * or > that is the first segment does not match names that begin with $: these are subscribed to on purpose. */
bool lim__channel_matches(lim_bytes pattern, lim_bytes name);

/* ---- channels ---- */
/* Makes an explicit channel, or returns the one that is there (opts NULL: never changes it; else later subscriptions
 * follow opts). Any thread; one reference. INVALID: bad name; FULL: too many channels; NOMEM. */
lim_err lim__channel_open(lim__channels *all, lim_bytes name, const lim_channel_opts *opts, lim__channel **out);
/* The channel if anybody opened or subscribed to it (a pattern that matches counts), else NULL; one reference. A
 * publisher keeps it: as long as the reference is held the entry stays, also after close (then publishing answers CLOSED,
 * and the name is to be looked up again). A publisher bounds how many it keeps. Any thread. */
lim__channel *lim__channel_find(lim__channels *all, lim_bytes name);
lim__channel *lim__channel_ref(lim__channel *ch);
void lim__channel_unref(lim__channel *ch);
lim_bytes lim__channel_name(const lim__channel *ch);
/* Ends its subscriptions by exact name (`ended` with LIM_E_CLOSED); what they have buffered is delivered first.
 * NOTFOUND: nobody knows it. Any thread. */
lim_err lim__channel_close(lim__channels *all, lim_bytes name);

/* ---- publish ----
 * self: the publishing process, or NULL on a host thread. `ch` NULL with a valid `name`: nobody knows the channel; its
 * answer is that of a channel without subscriptions. `headers`: packed as on the wire (u16 count, name, text), may be
 * empty. `out` is the verdict. Copies the payload at most once, and only if somebody keeps it. CLOSED: the channel was
 * closed; NOMEM: no memory for the copy that a `hold` subscription needs: nobody got it. Any thread. */
lim_err lim__publish(lim__channels *all, lim_process *self, lim__channel *ch, lim_bytes payload, lim_bytes headers,
                     bool mandatory, lim_admission *out);

/* ---- subscriptions ---- */
typedef struct lim__sub_ops {
    /* May the subscription deliver now (is there room to write)? NULL: always. */
    bool (*ready)(void *ctx);
    /* One message, in order, on the owner's scheduler: called inside the publisher's turn, so it may only write into
     * buffers and queue flushes; it must not publish, close subscriptions or end processes. `msg` is NULL when nobody
     * had to copy the payload yet. */
    void (*deliver)(void *ctx, lim__sub *sub, uint64_t seq, lim_bytes channel, lim_bytes headers, lim_bytes payload,
                    lim__msg *msg);
    /* The first drop of an episode, which lasts until the backlog is empty. Same rules as `deliver`. NULL: not told. */
    void (*dropped)(void *ctx, lim__sub *sub, uint64_t dropped_total);
    /* The bus ended it: channel closed (CLOSED, after what was buffered) or policy `close` (FULL, at once: what was
     * buffered counts as dropped). Called from lim__sub_on_signal in the owner's own turn, exactly once, and not after
     * lim__sub_close. The sub is still to be closed by the owner, which may do so here. */
    void (*ended)(void *ctx, lim__sub *sub, lim_err why);
} lim__sub_ops;
typedef struct lim__sub_config {
    lim_bytes pattern;
    uint32_t window, backlog; /* window >= 1, backlog may be 0; each at most 2^30 */
    lim_policy policy;
    const lim__sub_ops *ops;
    void *ctx;
    lim_bytes owner_name;     /* for lists; copied */
    bool own_turn;            /* `deliver` only from lim__sub_on_signal, one batch each: it may do what a handler may */
} lim__sub_config;
/* When this returned, every publish offered afterwards anywhere reaches it. INVALID: bad pattern; MISUSE: policy hold
 * with a pattern, or on a channel that does not allow it, or a limit forgotten; TOOBIG: a limit above 2^30; FULL: too
 * many subscriptions or channels; NOMEM. */
lim_err lim__sub_open(lim__channels *all, lim_process *owner, const lim__sub_config *config, lim_diag *diag,
                      lim__sub **out);
/* Owner's scheduler; owner NULL: in the owner's on_end. Nothing is delivered afterwards; freed later, never touched. */
void lim__sub_close(lim_process *owner, lim__sub *sub);
void lim__sub_ack(lim_process *owner, lim__sub *sub, uint64_t upto_seq); /* cumulative; returns credit, delivers more */
void lim__sub_pump(lim_process *owner, lim__sub *sub);   /* `ready` may answer true again */
uint64_t lim__sub_id(const lim__sub *sub);
void lim__sub_info(const lim__sub *sub, lim_sub_info *out); /* any thread while the owner has not closed it */
/* An owner passes every message signal here first; true: it was for one of its subscriptions and is dealt with. */
bool lim__sub_on_signal(lim_process *owner, const lim_signal *signal);

/* ---- lists for the system groups: JSON written at the cursor; any thread ---- */
void lim__channels_json(lim__channels *all, lim__json *j);                    /* array of channels */
bool lim__channel_json(lim__channels *all, lim_bytes name, lim__json *j);     /* one with its subscriptions; false: none */
bool lim__channel_json_with(lim__channels *all, lim_bytes name, lim__json *j, void (*more)(void *ctx, lim__json *j),
                            void *ctx); /* `more` adds members to the object */
void lim__channels_count(lim__channels *all, uint64_t *channels, uint64_t *subscriptions, uint64_t *messages_kept);

#endif
