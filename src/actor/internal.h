/* SPDX-License-Identifier: Apache-2.0
 * internal.h - what the files of src/actor share: the shapes of letters, processes, slots and schedulers.
 *
 * One owner per piece of state. A scheduler owns its processes, their mailboxes, links, monitors and timers; nothing
 * of that is atomic. What other threads may touch is listed in `struct lim__sched` and `struct lim__slot` under
 * "any thread" and is reached in one of three ways only:
 *
 *      inbox       a stack of letters: anybody pushes with one CAS, the owner takes everything with one exchange
 *      slot        looked up by pid: is it alive, is there room (and a far place taken)
 *      counters    read by the census
 *
 *      lim_send(self) --same scheduler--> mailbox of the target            (pointer push)
 *           |
 *           `--other scheduler--> outbox[target] --soon, one CAS--> inbox --soon--> mailbox      (sched.c: when)
 *      lim_runtime_send (host thread) ------------------one CAS----------> inbox
 *
 * Everything that reaches a process is a letter and waits in its mailbox in the order it came: messages, exits, and
 * also what the two ends of links and monitors say to each other across schedulers (LINK, UNLINK, ...), which the
 * handler never sees. That one order is what makes the rules of signal.c short. */
#ifndef LIM__ACTOR_INTERNAL_H
#define LIM__ACTOR_INTERNAL_H

#include "actor/actor.h"
#include "base/base.h"
#include "base/map.h"
#include <assert.h>
#include <stdatomic.h>

/* ---- sizes ---- in the hostile build as small as they can be, so that every list is refilled and every table grows */
#ifdef LIM_HOSTILE
enum {
    LIM__CHUNK_SLOTS = 16,
    LIM__EVENTS_MAX = 2,
    LIM__INTAKE_MAX = 1,
    LIM__TURN_SIGNALS_MAX = 8,
    LIM__SLICE_SIGNALS_MAX = 1,
    LIM__SLICE_OUTPUT_MAX = 256,
    LIM__LINKS_SCANNED_MAX = 2,
    LIM__GRANT_MAX = 2,
    LIM__TABLE_MIN = 1,
    LIM__MAGAZINE_MAX = 1,
    LIM__MAGAZINE_LARGE_MAX = 1,
};
#else
enum {
    LIM__CHUNK_SLOTS = 1024,      /* 32 KiB of slots at a time */
    LIM__EVENTS_MAX = 256,        /* readiness events fetched at a time */
    LIM__INTAKE_MAX = 32,         /* letters that end the serving of events in a turn */
    LIM__TURN_SIGNALS_MAX = 4096, /* signals handled per turn */
    LIM__SLICE_SIGNALS_MAX = 64,  /* signals one process handles before the next one's turn */
    LIM__SLICE_OUTPUT_MAX = 64 * 1024, /* bytes, each message with its header, that end a process's slice */
    LIM__LINKS_SCANNED_MAX = 16,  /* more links than this are found through a map */
    LIM__GRANT_MAX = 64,          /* places of a mailbox that other threads may take before its owner is asked again */
    LIM__TABLE_MIN = 64,          /* first size of the timer heap and of the table of numbers */
    LIM__MAGAZINE_MAX = 256,      /* blocks of a class kept by a scheduler */
    LIM__MAGAZINE_LARGE_MAX = 16,
};
#endif
enum {
    LIM__SCHEDULERS_MAX = 63,
    LIM__SLOT_BITS = 24,
    LIM__GENERATION_BITS = 26,
    LIM__CHUNKS_MAX = 16384,
    LIM__TURN_NS_MAX = 200000,
    LIM__MAILBOX_DEFAULT = 1024,
    LIM__STATE_BYTES_MAX = 64 * 1024,
    LIM__SPARE_LETTERS = 64, /* kept for exits sent by hand when memory has run out */
    LIM__BLOCKING_DEFAULT = 4,
    LIM__BLOCKING_MAX = 64,
    LIM__OVERRUN_MS_DEFAULT = 10,
    LIM__CALL_OUTPUT_MAX = 4 * 1024 * 1024, /* of one call of a handler: more is an overrun */
    LIM__SPIN_US_MAX = 1000,
    LIM__SIGNALS_PER_LOOK = 32, /* signals between two looks at the clock, unless they take long */
    LIM__LETTERS_AHEAD = 4,     /* whose lines are on their way here while a batch is turned over */
    LIM__LOOKS_PER_PUSH = 2,    /* looks between two looks at inbox and outboxes */
};
#define LIM__BODY_BYTES_MAX (1u << 30)

/* ---- pool ---- classes 0..32 are 16 c + 24 bytes (a glibc chunk wastes nothing), then coarser; beyond: malloc */
enum {
    LIM__CLASS_SMALL_MAX = 32,
    LIM__CLASS_COUNT = 43,
    LIM__CLASS_HUGE = 255,
    LIM__SMALL_BYTES_MAX = 16 * LIM__CLASS_SMALL_MAX + 24,
};
typedef struct lim__block { /* a free block outside a magazine */
    struct lim__block *next;
    struct lim__block *batch_next; /* in the first block of a batch in the depot */
} lim__block;
typedef struct lim__magazine { /* a stack; an array, so that taking a block need not wait for the block's memory */
    uint32_t count;
    void *blocks[LIM__MAGAZINE_MAX + 1];
} lim__magazine;
typedef struct lim__depot { /* what schedulers have too much of, for those who have none; locked */
    lim__mutex lock;
    lim__block *batches[LIM__CLASS_COUNT];
    _Atomic uint32_t batch_count[LIM__CLASS_COUNT];
    lim__block *spare;      /* letters for exits */
    _Atomic uint32_t spare_count;
} lim__depot;

extern _Atomic uint64_t lim__alloc_countdown; /* 0: not armed; reaches 1: that allocation fails */
/* The n-th allocation from now (1: the next) fails, once; 0 disarms. For tests, which have debug checks on. */
void lim__alloc_fail_at(uint64_t n);
uint32_t lim__class_large(size_t bytes);
void *lim__block_refill(lim__sched *s, uint32_t klass);
void lim__block_spill(lim__sched *s, uint32_t klass);
void *lim__host_alloc(uint32_t klass, size_t bytes);
size_t lim__class_bytes(uint32_t klass);
lim_err lim__depot_init(lim__depot *d);
void lim__depot_fini(lim__depot *d);
bool lim__depot_restock(lim__depot *d); /* with spare letters; false: no memory for all of them */
void lim__pool_fini(lim__sched *s);

/* ---- letters ---- */
typedef enum lim__kind {
    LIM__MESSAGE = LIM_SIGNAL_MESSAGE,
    LIM__EXIT = LIM_SIGNAL_EXIT,         /* ref: the receiver's link end, 0: sent by lim_exit_process */
    LIM__DOWN = LIM_SIGNAL_DOWN,         /* ref: the watcher's monitor or request */
    LIM__TIMER = LIM_SIGNAL_TIMER,       /* ref: the timer; the letter is the timer's own block */
    LIM__RESPONSE = LIM_SIGNAL_RESPONSE, /* ref: the request */
    LIM__LINK,                           /* the block is the receiver's end of the link */
    LIM__UNLINK,                         /* ref: the receiver's end; the block is the sender's and goes back as... */
    LIM__UNLINKED,                       /* ...this */
    LIM__MONITOR,                        /* the block is the target's end of the monitor */
    LIM__DEMONITOR,                      /* ref: the target's end; the block was the watcher's */
    LIM__TIMEOUT,                        /* ref: the request; the letter is the timer's own block */
    LIM__DUE,                            /* the deadline of the process */
    LIM__VOID,                           /* taken back while it waited in the mailbox */
    LIM__HOME,                           /* a lim__job on its way to the scheduler; in no mailbox */
} lim__kind;

enum {
    LIM__COUNTED = 1,  /* in its slot's inner `local` */
    LIM__RESERVED = 2, /* has a far place */
};

/* A signal that is no message uses only what comes before `type`: a block of LIM__SHORT_LETTER bytes will do for it, and
 * until it is posted its fields are room for others. */
typedef struct lim__letter {
    struct lim__letter *next;
    union {
        uint64_t at_ns;
        const struct lim__letter *earlier; /* in an outbox or inbox: one to be fetched while this is read; or NULL */
    };
    lim_pid to, from;
    uint32_t reason; /* TIMER: its tag */
    uint8_t kind, flags, klass;
    uint8_t link;    /* of a link (link.c) */
    uint64_t ref;
    const lim__letter_type *type;
    uint32_t tag, len; /* len: of the body, which follows */
} lim__letter;
#define LIM__SHORT_LETTER offsetof(lim__letter, type)
static_assert(sizeof(lim__letter) == 64, "a letter's header is one cache line, its body 16-aligned");

/* For an exit sent by hand; NULL: no memory, and LIM__SPARE_LETTERS under way already. */
lim__letter *lim__exit_letter(lim_runtime *rt, lim__sched *s);

/* ---- slots: what the world knows of a process ----
 * In two halves, so that a busy sender and a busy receiver do not take one cache line from each other with each message:
 * far senders write the slot, the owner writes the inner half, and neither looks at the other's but now and then. */
typedef struct lim__slot {
    /* any thread */
    _Atomic uint64_t pid;         /* 0: free. Released by the spawner, cleared by the owner */
    _Atomic uint64_t far;         /* places for other threads: taken 32 | granted 32, counted since the slot was made */
    _Atomic uint32_t mailbox_max;
    _Atomic uint8_t named;        /* the registry may know it */
    _Atomic uint8_t mark;         /* lim__pid_mark */
    uint8_t shared;               /* set once: it goes back to the list that other threads spawn from */
    struct {
        uint32_t generation, next; /* while free: of the next tenant; index + 1 of the next free slot */
    } idle;
} lim__slot;
typedef struct lim__inner { /* written by the owner, but for `process` of a spawn from elsewhere */
    _Atomic(lim_process *) process; /* NULL: free. Released by the spawner */
    _Atomic uint32_t local;         /* counted messages in the mailbox */
    _Atomic uint32_t ended;         /* far places that were taken and are free again, since the slot was made */
} lim__inner;
typedef struct lim__chunk {
    lim__slot slots[LIM__CHUNK_SLOTS];
    lim__inner inners[LIM__CHUNK_SLOTS];
} lim__chunk;
static_assert(sizeof(lim__slot) == 32 && sizeof(lim__inner) == 16, "two slots, four inner halves per cache line");
static_assert(LIM__CHUNKS_MAX * LIM__CHUNK_SLOTS <= 1 << LIM__SLOT_BITS, "every slot has a pid");

typedef struct lim__slot_list { /* FIFO of free slots, by index + 1 */
    uint32_t first, last;
} lim__slot_list;

/* ---- links (link.c) and monitors (signal.c) ---- */
typedef struct lim__node { /* in a list whose head is a plain pointer */
    struct lim__node *next, **prev;
} lim__node;

/* A link, or a process's end of one that goes to another scheduler; link.c has the picture. Once posted it is a letter:
 * an EXIT, or LINK, UNLINK, UNLINKED; then `first` is still the place in the list of who will get the EXIT of a near one. */
typedef union lim__link {
    lim__letter letter; /* all but its last word, which is not there */
    struct {
        union {
            lim__node second;       /* near: in b's list */
            union lim__link *peer;  /* far: a cookie that only the peer's owner may follow; in a LINK it is `ref` */
        };
        lim_pid a, b;               /* far: a is the owner */
        uint32_t unused;
        uint8_t kind, flags, klass;
        uint8_t link;               /* lim__link_phase, and lim__link_is */
        lim__node first;            /* in a's list */
    };
} lim__link;
enum { LIM__LINK_BYTES = 56 };
typedef enum lim__link_phase {
    LIM__LINKED = 1,
    LIM__UNLINKING, /* far: travels as UNLINK, in no list; UNLINKED brings it home */
    LIM__MUTED,     /* the peer's EXIT is on its way, or about to be, and will be swallowed */
    LIM__LINK_PHASE = 3,
} lim__link_phase;
typedef enum lim__link_is {
    LIM__LINK_NEAR = 4,
    LIM__LINK_POSTED = 8,      /* near: b is dead, and this is its EXIT in a's mailbox */
    LIM__LINK_MINE = 16,       /* far: made by lim_link of this side; both sides may have linked at the same time */
    LIM__LINK_SUPERVISED = 32, /* near: a is the supervisor that b was born to; far: the peer of this end is */
} lim__link_is;
static_assert(offsetof(lim__link, a) == offsetof(lim__letter, to) && offsetof(lim__link, b) == offsetof(lim__letter, from) &&
                  offsetof(lim__link, link) == offsetof(lim__letter, link) &&
                  offsetof(lim__link, first) == offsetof(lim__letter, ref) &&
                  offsetof(lim__link, first) + sizeof(lim__node) == LIM__LINK_BYTES,
              "a near link lies under its EXIT, of which the last three words are free");
/* The link of a place in a process's list, and whether that is its first: blocks are 16-aligned, and `first` is not. */
static inline bool lim__link_is_first(const lim__node *n)
{
    return ((uintptr_t)n & 8) != 0;
}
static inline lim__link *lim__link_of(const lim__node *n)
{
    return (lim__link *)((uintptr_t)n - (lim__link_is_first(n) ? offsetof(lim__link, first) : 0));
}
static inline lim_pid lim__link_other(const lim__node *n)
{
    return lim__link_is_first(n) ? lim__link_of(n)->b : lim__link_of(n)->a;
}
/* Of a SUPERVISED one: is that the child's place? */
static inline bool lim__link_is_child(const lim__node *n)
{
    return !lim__link_is_first(n) || (lim__link_of(n)->link & (LIM__LINK_NEAR | LIM__LINK_POSTED)) != LIM__LINK_NEAR;
}
static inline lim__link_phase lim__link_phase_of(const lim__link *k)
{
    return (lim__link_phase)(k->link & LIM__LINK_PHASE);
}

typedef union lim__timer {
    lim__letter letter; /* TIMER or TIMEOUT once fired; all but its last word, which is not there */
    struct {
        lim__node node;      /* in owner->timers while it is in the heap */
        lim_pid to;
        uint64_t heap_index; /* LIM__FIRED: in the mailbox */
        uint64_t words[2];   /* tag, kind; ref */
        lim_process *owner;
    };
} lim__timer;
enum { LIM__TIMER_BYTES = 56 };
static_assert(offsetof(lim__timer, heap_index) == offsetof(lim__letter, from) &&
                  offsetof(lim__timer, owner) == LIM__SHORT_LETTER &&
                  offsetof(lim__timer, owner) + sizeof(lim_process *) == LIM__TIMER_BYTES,
              "a timer needs nothing of its letter but what is told");
#define LIM__FIRED UINT32_MAX

typedef union lim__watcher { /* at the target; becomes the DOWN */
    lim__letter letter;
    lim__node node; /* in target->watchers, until it is posted */
} lim__watcher;
typedef struct lim__monitor { /* at the watcher; becomes the DEMONITOR */
    union {
        lim__letter letter; /* .to target, .from watcher, .ref its own number until it travels */
        struct {
            lim__node node; /* in watcher->monitors, until it travels */
            uint64_t words[4];
            lim__watcher *far; /* a cookie: only the target's scheduler may follow it */
            lim__timer *timer; /* requests with a deadline */
        };
    };
} lim__monitor;
static_assert(offsetof(lim__monitor, far) == LIM__SHORT_LETTER && sizeof(lim__monitor) == sizeof(lim__letter),
              "a monitor lies under its letter");

/* Numbers for timers, monitors and requests: generation 32 | index + 1 32, one table per scheduler. */
typedef enum lim__ref_kind { LIM__REF_FREE = 0, LIM__REF_TIMER, LIM__REF_MONITOR, LIM__REF_REQUEST } lim__ref_kind;
typedef struct lim__ref {
    void *object;
    uint32_t generation;
    uint32_t kind_or_next; /* lim__ref_kind in use; free: index + 1 of the next free entry */
} lim__ref;
typedef struct lim__refs {
    lim__ref *entries;
    uint32_t cap, used;
    uint32_t free_first, free_last;
} lim__refs;

/* ---- processes ----
 *   IDLE --signal--> QUEUED --slice--> RUNNING --mailbox empty--> IDLE
 *                       ^------more than a slice-----'
 *   any --lim_exit, fatal exit--> ENDING (or ENDING_QUEUED while in the run queue) --bury--> freed
 *   ENDING_QUEUED --bury--> GHOST --popped from the run queue--> freed
 *   RUNNING --handler blocks--> AWAY --its job is home--> IDLE or QUEUED      (blocking.c)
 *   AWAY --lim_exit--> AWAY_ENDING --its job is home--> ENDING */
typedef enum lim__phase {
    LIM__IDLE = 1,
    LIM__QUEUED,
    LIM__RUNNING,
    LIM__AWAY,
    LIM__AWAY_ENDING,
    LIM__ENDING,
    LIM__ENDING_QUEUED,
    LIM__GHOST,
} lim__phase;

typedef struct lim__rare { /* what few processes have, made on demand, and kept */
    lim__node *monitors;
    lim__watch *watches;
    lim__map *link_index; /* key -> link; NULL: few links, or no memory for it */
} lim__rare;
struct lim_process { /* owner only */
    lim_pid pid;
    lim__sched *sched;
    lim__letter *head, **tail; /* mailbox */
    lim_process *run_next;
    union {
        lim_on_signal *on_signal;
        lim_process *dying_next; /* ENDING: it is shown nothing any more */
    };
    void (*on_end)(void *state, lim_reason reason);
    const char *name;
    lim__node *links, *watchers, *timers;
    lim__rare *rare; /* NULL: nothing of it yet */
    uint32_t link_count;
    union {
        uint32_t deadline; /* its place in the heap + 1; 0: none */
        uint32_t reason;   /* ending */
    };
    uint32_t state_bytes;
    uint16_t flushes; /* queued lim__flush of this process */
    uint8_t phase;
    bool trap : 1, blocking : 1;
};
static_assert(sizeof(lim_process) == 112, "what each process takes beside its state, which is 16-aligned");

/* ---- blocking handlers (blocking.c) ---- */
typedef struct lim__worker lim__worker;
typedef struct lim__job { /* behind the state of a blocking process */
    lim__letter letter; /* HOME */
    lim_process *process;
    lim_on_signal *on_signal;
    lim_signal signal;       /* what is shown */
    lim__letter *kept;       /* whose body it shows; NULL: none */
    struct lim__job *next;   /* in the queue */
    lim__worker *worker;     /* set by its thread */
    void (*call)(void *arg); /* to be done at home; NULL: the handler has returned */
    void *arg;
} lim__job;
typedef struct lim__blocking {
    lim__mutex lock;
    lim__cond work;
    lim__job *head, **tail;
    bool stopping;
    uint32_t thread_count, thread_max;
    _Atomic uint32_t running; /* threads that have not ended */
    _Atomic uint64_t blocked; /* jobs not at home */
    _Atomic uint32_t lost;    /* threads with something that nobody waits for */
    lim__thread threads[LIM__BLOCKING_MAX];
} lim__blocking;

/* ---- scheduler ---- */
typedef struct lim__suspect { /* somebody who ran since the last look at the clock */
    const char *name;
    lim_pid pid;
} lim__suspect;
typedef struct lim__counters { /* one writer each; differences between threads cancel out in the sum */
    _Atomic uint64_t processes, link_ends, monitors, timers, messages, letter_bytes, wakes, overruns;
} lim__counters;

typedef struct lim__heap_entry {
    uint64_t due_ns, seq;
    uintptr_t what; /* a lim__timer, or a lim_process + LIM__HEAP_DEADLINE */
} lim__heap_entry;
enum { LIM__HEAP_DEADLINE = 1 };

typedef struct lim__outbox {
    lim__letter *newest, *oldest; /* newest->next->...->oldest */
    const lim__letter *recent[LIM__LETTERS_AHEAD]; /* by count: the last ones pushed */
    uint32_t count;
} lim__outbox;

struct lim__sched {
    /* any thread */
    _Alignas(64) _Atomic(lim__letter *) inbox; /* newest first */
    _Alignas(64) _Atomic uint32_t sleeping;    /* 1: whoever pushes and exchanges it to 0 must wake */
    uint32_t index;                            /* set once, as the following: read with each push */
    lim_runtime *rt;
    _Atomic(lim__chunk *) *chunks;             /* entries are set once */
    lim__os *os;
    lim__poller *poller;
    lim__thread thread;
    _Alignas(64) _Atomic uint64_t phase;       /* odd while in a turn; turns = phase / 2 */
    _Atomic uint64_t born_here, born_from_elsewhere, died;
    _Atomic uint32_t busy_permille;
    _Atomic uint32_t spared_wakes;   /* for the mutation lost_wake */
    _Atomic uint64_t busy_window_ns; /* when that share was last computed */
    lim__counters counters;

    /* under `slots_lock` */
    _Alignas(64) lim__mutex slots_lock;
    lim__slot_list shared_free; /* slots that other threads spawn into */
    uint32_t chunk_count;

    /* owner only */
    _Alignas(64) lim_process *run_head, **run_tail;
    lim_process *dying, **dying_tail;
    lim__letter *letter;   /* being handled; NULL once kept */
    lim__slot_list free;   /* slots for processes spawned here */
    uint64_t now_ns;
    lim__refs refs;
    lim__heap_entry *heap;
    uint32_t heap_count, heap_cap;
    uint64_t timer_seq;
    uint64_t outbox_mask; /* bit i: outbox[i] is not empty */
    lim__flush *flush_head, **flush_tail;
    uint32_t flush_count;
    uint32_t watch_count;
    uint32_t since_poll; /* signals handled since the poller was last asked */
    uint32_t turns_since_poll;
    uint64_t busy_ns, busy_from_ns;
    uint64_t turn_ends_ns;
    uint64_t output;     /* bytes of messages sent in this slice, or by this handler of a socket or a flush */
    uint64_t looked_ns;  /* when the clock was last read while handlers ran */
    uint32_t until_look; /* signals until the clock is read again */
    uint32_t look_every; /* signals from look to look: 1 where they take long */
    uint32_t looks;      /* until inbox and outboxes are looked at */
    uint32_t suspect_count;
    lim__suspect suspects[LIM__SIGNALS_PER_LOOK];
    uint32_t quiet_slices; /* since something last went into an outbox, while there is something in one */
    uint32_t until_glance; /* slices until the inbox is looked at within the turn */
    bool dealt;          /* the inbox was dealt within this turn */
    bool has_token;      /* for spinning */
    uint32_t spins_failed, spins_to_skip;
    bool worked; /* the last turn found something to do: worth a spin */
    int event_count, event_next;
    lim__magazine magazines[LIM__CLASS_COUNT];
    lim__outbox outbox[LIM__SCHEDULERS_MAX + 1];
    lim__io_event events[LIM__EVENTS_MAX];
};

typedef struct lim__registry {
    lim__mutex lock;
    lim__smap by_name; /* lim__name */
    lim__map by_pid;   /* first lim__name of a process */
} lim__registry;

struct lim_runtime {
    lim__os *os;
    uint32_t count;
    uint32_t first_generation; /* of every slot: by chance, so that ids of an earlier run are not those of this one */
    _Atomic uint32_t hosting; /* host threads that are sending something just now */
    bool threads, own_loop;
    uint64_t spin_ns, overrun_ns;
    void (*on_overrun)(void *ctx, const lim_overrun *overrun);
    void *on_overrun_ctx;
    lim__blocking blocking;
    _Atomic uint32_t closing;
    lim__counters host; /* any thread, fetch_add */
    lim__depot depot;
    lim__registry registry;
    lim__sched *scheds[LIM__SCHEDULERS_MAX + 1];
};

/* ---- counting ---- */
static inline void lim__bump(_Atomic uint64_t *counter, uint64_t delta) /* owner's counter */
{
    uint64_t n = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, n + delta, memory_order_relaxed);
}
static inline void lim__bump32(_Atomic uint32_t *counter, uint32_t delta)
{
    uint32_t n = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, n + delta, memory_order_relaxed);
}
#define LIM__COUNT(s, rt_, field, delta)                                                                               \
    ((s) ? lim__bump(&(s)->counters.field, (uint64_t)(delta))                                                          \
         : (void)atomic_fetch_add_explicit(&(rt_)->host.field, (uint64_t)(delta), memory_order_relaxed))
/* A message or an answer is on its way. */
static inline void lim__count_message(lim_runtime *rt, lim__sched *s, const lim__letter *l)
{
    uint64_t bytes = sizeof *l + l->len;
    LIM__COUNT(s, rt, messages, 1);
    LIM__COUNT(s, rt, letter_bytes, bytes);
    if (s)
        s->output += bytes;
}

/* ---- pids ---- */
static inline uint32_t lim__pid_sched(lim_pid pid)
{
    return (uint32_t)(pid.id >> (LIM__SLOT_BITS + LIM__GENERATION_BITS)) & 63;
}
static inline uint32_t lim__pid_node(lim_pid pid)
{
    return (uint32_t)(pid.id >> 56);
}
static inline uint32_t lim__pid_slot(lim_pid pid)
{
    return (uint32_t)(pid.id >> LIM__GENERATION_BITS) & ((1u << LIM__SLOT_BITS) - 1);
}
static inline uint64_t lim__pid_make(uint32_t sched, uint32_t slot, uint32_t generation)
{
    return (uint64_t)sched << (LIM__SLOT_BITS + LIM__GENERATION_BITS) | (uint64_t)slot << LIM__GENERATION_BITS |
           generation;
}
/* Names a process, dead or alive, of this very scheduler. */
static inline bool lim__pid_is_near(lim_pid pid, uint32_t index)
{
    return pid.id >> (LIM__SLOT_BITS + LIM__GENERATION_BITS) == index; /* and the node is 0 */
}
/* The scheduler a pid names; NULL: another node, or none of ours. */
static inline lim__sched *lim__sched_of(const lim_runtime *rt, lim_pid pid)
{
    return lim__pid_node(pid) == 0 ? rt->scheds[lim__pid_sched(pid)] : NULL;
}
static inline lim__chunk *lim__chunk_of(const lim__sched *s, uint32_t index)
{
    if (LIM__CHUNKS_MAX * LIM__CHUNK_SLOTS < 1 << LIM__SLOT_BITS && index >= LIM__CHUNKS_MAX * LIM__CHUNK_SLOTS)
        return NULL; /* only in the hostile build */
    return atomic_load_explicit(&s->chunks[index / LIM__CHUNK_SLOTS], memory_order_acquire);
}
/* The slot a pid names, and its inner half, whoever lives there now; NULL: it never existed. Any thread. */
static inline lim__slot *lim__slot_of(const lim__sched *s, lim_pid pid)
{
    lim__chunk *chunk = lim__chunk_of(s, lim__pid_slot(pid));
    return LIM_LIKELY(chunk != NULL) ? &chunk->slots[lim__pid_slot(pid) % LIM__CHUNK_SLOTS] : NULL;
}
static inline lim__inner *lim__inner_of(const lim__sched *s, lim_pid pid)
{
    lim__chunk *chunk = lim__chunk_of(s, lim__pid_slot(pid));
    return LIM_LIKELY(chunk != NULL) ? &chunk->inners[lim__pid_slot(pid) % LIM__CHUNK_SLOTS] : NULL;
}
/* The living process on its own scheduler, ENDING ones included; NULL: gone. Owner only. */
static inline lim_process *lim__process_of(const lim__sched *s, lim_pid pid)
{
    lim__inner *inner = lim__inner_of(s, pid);
    /* acquire: pairs with the release of a spawn on another thread */
    lim_process *p = LIM_LIKELY(inner != NULL) ? atomic_load_explicit(&inner->process, memory_order_acquire) : NULL;
    return LIM_LIKELY(p && p->pid.id == pid.id) ? p : NULL;
}
static inline bool lim__ending(const lim_process *p)
{
    return p->phase >= LIM__AWAY_ENDING;
}
/* The calling thread is not p's scheduler but the thread of the pool that runs p's handler. */
static inline bool lim__is_away(const lim_process *p)
{
    return LIM_UNLIKELY(p->blocking) && lim__sched_current() != p->sched;
}
static inline void *lim__state(const lim_process *p)
{
    return (void *)(p + 1);
}

/* ---- lists ---- */
static inline void lim__node_insert(lim__node **head, lim__node *n)
{
    n->next = *head;
    n->prev = head;
    if (n->next)
        n->next->prev = &n->next;
    *head = n;
}
static inline void lim__node_remove(lim__node *n)
{
    *n->prev = n->next;
    if (n->next)
        n->next->prev = n->prev;
    n->next = NULL;
    n->prev = NULL;
}

/* ---- pool, fast paths ---- */
#if defined(__SANITIZE_ADDRESS__)
#define LIM__POOL_BYPASS 1 /* let the sanitizer see every block */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIM__POOL_BYPASS 1
#endif
#endif
#ifndef LIM__POOL_BYPASS
#define LIM__POOL_BYPASS 0
#endif

static inline uint32_t lim__class_of(size_t bytes)
{
    if (LIM_UNLIKELY(bytes > LIM__SMALL_BYTES_MAX))
        return lim__class_large(bytes);
    return bytes <= 24 ? 0 : (uint32_t)(bytes - 9) >> 4;
}
static inline uint32_t lim__magazine_max(uint32_t klass)
{
    return klass <= LIM__CLASS_SMALL_MAX ? LIM__MAGAZINE_MAX : LIM__MAGAZINE_LARGE_MAX;
}
/* `bytes` matters only for LIM__CLASS_HUGE. */
static inline void *lim__block_take(lim__sched *s, uint32_t klass, size_t bytes)
{
#ifdef LIM_DEBUG
    if (LIM_UNLIKELY(atomic_load_explicit(&lim__alloc_countdown, memory_order_relaxed) != 0))
        return lim__host_alloc(klass, bytes); /* a magazine would hide the allocation that is to fail */
#endif
    if (LIM_UNLIKELY(!s || klass == LIM__CLASS_HUGE || LIM__POOL_BYPASS))
        return lim__host_alloc(klass, bytes);
    lim__magazine *m = &s->magazines[klass];
    if (LIM_UNLIKELY(m->count == 0))
        return lim__block_refill(s, klass);
    return m->blocks[--m->count];
}
void lim__block_release(void *block); /* free() */
static inline void lim__block_give(lim__sched *s, void *block, uint32_t klass)
{
    if (LIM_UNLIKELY(!s || klass == LIM__CLASS_HUGE || LIM__POOL_BYPASS)) {
        lim__block_release(block);
        return;
    }
#ifdef LIM_DEBUG
    memset(block, 0xdb, klass <= LIM__CLASS_SMALL_MAX ? 16 * klass + 24 : 64);
#endif
    lim__magazine *m = &s->magazines[klass];
    m->blocks[m->count] = block;
    if (LIM_UNLIKELY(++m->count > lim__magazine_max(klass)))
        lim__block_spill(s, klass);
}
/* Any letter of any kind: what its body refers to, then the block. */
static inline void lim__letter_drop(lim__sched *s, lim__letter *l)
{
    if (LIM_UNLIKELY(l->type && l->type->drop))
        l->type->drop(l + 1);
    lim__block_give(s, l, l->klass);
}
/* A block of a struct that starts with a letter and travels as one. */
static inline void *lim__letter_block(lim__sched *s, size_t bytes)
{
    uint32_t klass = lim__class_of(bytes);
    lim__letter *l = lim__block_take(s, klass, bytes);
    if (LIM_LIKELY(l != NULL)) {
        memset(l, 0, bytes);
        l->klass = (uint8_t)klass;
    }
    return l;
}

/* A message without an address; NULL: no memory, or longer than LIM__BODY_BYTES_MAX. */
static inline lim__letter *lim__letter_make(lim__sched *s, size_t len)
{
    if (LIM_UNLIKELY(len > LIM__BODY_BYTES_MAX))
        return NULL;
    size_t bytes = sizeof(lim__letter) + len;
    uint32_t klass = lim__class_of(bytes);
    lim__letter *l = lim__block_take(s, klass, bytes);
    if (LIM_LIKELY(l != NULL))
        *l = (lim__letter){ .len = (uint32_t)len, .kind = LIM__MESSAGE, .klass = (uint8_t)klass };
    return l;
}

/* ---- mailbox.c ---- */
static inline void lim__run_push(lim__sched *s, lim_process *p)
{
    p->phase = LIM__QUEUED;
    p->run_next = NULL;
    *s->run_tail = p;
    s->run_tail = &p->run_next;
}
static inline void lim__mailbox_push(lim_process *p, lim__letter *l)
{
    l->next = NULL;
    *p->tail = l;
    p->tail = &l->next;
    if (p->phase == LIM__IDLE)
        lim__run_push(p->sched, p);
}
static inline lim__letter *lim__mailbox_take(lim_process *p)
{
    lim__letter *l = p->head;
    if (!l)
        return NULL;
    p->head = l->next;
    if (p->head)
        __builtin_prefetch(p->head); /* in a long mailbox the next one has left the nearest cache */
    else
        p->tail = &p->head;
    if (l->flags & LIM__COUNTED)
        lim__bump32(&lim__inner_of(p->sched, p->pid)->local, (uint32_t)-1);
    else if (l->flags & LIM__RESERVED)
        lim__bump32(&lim__inner_of(p->sched, p->pid)->ended, 1);
    return l;
}
/* ---- places ---- */
static inline uint32_t lim__far_granted(uint64_t far)
{
    return (uint32_t)far;
}
static inline uint32_t lim__far_taken(uint64_t far)
{
    return (uint32_t)(far >> 32);
}
/* Messages that are in the mailbox or on their way to it. */
static inline uint32_t lim__places_used(const lim__slot *slot, const lim__inner *inner)
{
    uint32_t ended = atomic_load_explicit(&inner->ended, memory_order_acquire);
    return atomic_load_explicit(&inner->local, memory_order_relaxed) +
           lim__far_taken(atomic_load_explicit(&slot->far, memory_order_relaxed)) - ended;
}
void lim__grant_revoke(lim__slot *slot); /* what was granted and not taken */
/* Where a message will go: a place reserved, to be used or given back. */
typedef struct lim__place {
    lim_process *near; /* on the calling scheduler; NULL: elsewhere */
    lim__slot *slot;   /* elsewhere: one of its far places is ours */
    union {
        lim__inner *inner;  /* near */
        lim__sched *sched;  /* elsewhere */
    };
} lim__place;
lim_err lim__place_take(lim_runtime *rt, lim__sched *s, lim_pid to, lim__place *out);
void lim__place_give_back(lim__place *place);
void lim__place_use(lim__sched *s, lim__place *place, lim__letter *l);
void lim__deal(lim__sched *s, lim__letter *l);  /* to a mailbox of this scheduler, or undeliverable */
void lim__route(lim__sched *s, lim__letter *l); /* a signal: mailbox here, or outbox; never counted */
void lim__inbox_push(lim__sched *target, lim__letter *newest, lim__letter *oldest);
bool lim__inbox_glance(const lim__sched *s); /* something is there */
void lim__inbox_deal(lim__sched *s);
void lim__outboxes_push(lim__sched *s);
void lim__outboxes_push_awake(lim__sched *s); /* to wake somebody can wait until there is more to say */

/* ---- process.c ---- */
/* Marks the end; bury_all finishes it when no handler is on the stack. */
void lim__process_end(lim_process *p, lim_reason reason);
void lim__process_end_now(lim_process *p); /* one that was AWAY_ENDING has come home */
void lim__bury_all(lim__sched *s);
static inline void lim__bury(lim__sched *s)
{
    if (LIM_UNLIKELY(s->dying != NULL))
        lim__bury_all(s);
}
void lim__process_free(lim__sched *s, lim_process *p);
void lim__process_kill_all(lim__sched *s);
lim__rare *lim__process_rare(lim_process *p); /* NULL: no memory */
lim_err lim__slots_init(lim__sched *s);
void lim__slots_fini(lim__sched *s);
uint64_t lim__population(const lim__sched *s);

/* ---- link.c ---- */
/* Not on another scheduler: the peer can be looked at directly, or can never exist. */
static inline bool lim__is_near(const lim__sched *s, lim_pid other)
{
    lim__sched *target = lim__sched_of(s->rt, other);
    return target == s || !target;
}

static inline lim_process *lim__near_process(const lim__sched *s, lim_pid other)
{
    return lim__sched_of(s->rt, other) == s ? lim__process_of(s, other) : NULL;
}

typedef struct lim__link_pair {
    lim__link *near, *far; /* far: NULL, if both processes live on one scheduler */
} lim__link_pair;
lim_err lim__link_reserve(lim__sched *s, bool both_here, lim__link_pair *pair);
void lim__link_cancel(lim__sched *s, lim__link_pair *pair);
/* A link that both processes hold from now on; `child` is not running anywhere yet, or lives here. */
void lim__link_commit(lim_process *parent, lim_process *child, const lim__link_pair *pair, bool supervised);
static inline bool lim__link_is_exit(const lim__letter *l) /* this EXIT is a link's: else it was sent by hand */
{
    return (l->link & LIM__LINK_POSTED) || l->ref != 0;
}
/* What a link says about its EXIT: true if that is to be obeyed. Its end here is no more; the letter is the caller's. */
bool lim__link_exit_counts(lim__sched *s, lim_process *p, lim__letter *l);
void lim__link_take(lim_process *p, lim__letter *l);
void lim__unlink_take(lim__sched *s, lim_process *p, lim__letter *l);
void lim__link_nobody(lim__sched *s, lim__letter *l); /* LINK to one that is not there */
void lim__links_tell_end(lim__sched *s, lim_process *p);

/* ---- signal.c ---- */
typedef struct lim__monitor_pair {
    lim__monitor *near;
    lim__watcher *far;
} lim__monitor_pair;
lim_err lim__monitor_reserve(lim_process *watcher, lim_pid target, lim__ref_kind kind, lim__monitor_pair *pair);
void lim__monitor_cancel(lim__sched *s, lim__monitor_pair *pair);
/* Starts watching: inserts, sends MONITOR, or answers DOWN noproc. */
void lim__monitor_commit(lim_process *watcher, const lim__monitor_pair *pair);
void lim__monitor_commit_child(lim_process *watcher, lim_process *child, const lim__monitor_pair *pair);
/* Forgets the watcher's side; tells the target unless it is known to be dead. Frees or sends m. */
void lim__monitor_end(lim_process *watcher, lim__monitor *m, bool target_dead);
void lim__signal_take(lim__sched *s, lim_process *p, lim__letter *l); /* acts on one letter of p's mailbox */
void lim__message_take(lim__sched *s, lim_process *p, lim__letter *l); /* the same for a MESSAGE: most of them by far */
void lim__signals_tell_end(lim__sched *s, lim_process *p);  /* p is dead: mailbox, links, watchers, monitors */
void lim__signal_undeliverable(lim__sched *s, lim__letter *l);
static inline void lim__signal_show(lim_process *p, const lim_signal *signal)
{
    p->on_signal(p, signal, lim__state(p));
}

/* ---- blocking.c ---- */
bool lim__blocking_possible(const lim_runtime *rt);
void lim__blocking_init(lim__blocking *b, uint32_t thread_max);
void lim__blocking_fini(lim__blocking *b);
lim_err lim__blocking_prepare(lim_runtime *rt); /* there is a thread for one more blocking process */
void lim__blocking_stop(lim_runtime *rt);
size_t lim__job_offset(size_t state_bytes);
void lim__job_init(lim_process *p, lim_on_signal *on_signal);
void lim__job_home(lim__sched *s, lim__letter *l);
/* On a thread of the pool: call(arg) is done on self's scheduler, as self, before this returns. */
void lim__call_home(lim_process *self, void (*call)(void *arg), void *arg);
lim_err lim__away_link(lim_process *self, lim_pid other);
void lim__away_unlink(lim_process *self, lim_pid other);
lim_err lim__away_monitor(lim_process *self, lim_pid other, uint64_t *out);
void lim__away_demonitor(lim_process *self, uint64_t monitor);
lim_err lim__away_spawn(lim_process *self, const lim_spawn_opts *opts, lim_pid *out);
void lim__away_exit(lim_process *self, lim_reason reason);
lim_err lim__away_exit_process(lim_process *self, lim_pid target, lim_reason reason);
lim_err lim__away_request(lim_process *self, lim_pid to, uint32_t tag, lim_bytes body, int64_t timeout_ms,
                          uint64_t *out);
lim_err lim__away_respond(lim_process *self, const lim_signal *request, lim_bytes body);
lim_err lim__away_timer_start(lim_process *self, uint64_t delay_ns, uint32_t tag, uint64_t *out);
bool lim__away_timer_cancel(lim_process *self, uint64_t timer);
lim_err lim__away_ready(lim_process *self);

/* ---- supervisor.c ---- */
void lim__supervisor_on_signal(lim_process *self, const lim_signal *signal, void *state);

/* ---- request.c ---- */
void lim__request_answer(lim__sched *s, lim_process *p, lim__letter *l); /* RESPONSE, DOWN or TIMEOUT taken */

/* ---- timer.c ---- */
lim_err lim__refs_take(lim__sched *s, lim__ref_kind kind, void *object, uint64_t *out);
void lim__refs_give(lim__sched *s, uint64_t ref);
void *lim__refs_find(const lim__sched *s, uint64_t ref, lim__ref_kind *kind);
lim__timer *lim__timer_new(lim_process *p); /* not started; room in the heap is certain */
void lim__timer_begin(lim_process *p, lim__timer *t, uint64_t delay_ns);
void lim__timer_discard(lim__sched *s, lim__timer *t); /* not started, or taken from the mailbox */
void lim__timer_stop(lim__sched *s, lim__timer *t);    /* in the heap: freed; fired: its letter becomes VOID */
void lim__timers_fire(lim__sched *s);
void lim__timers_end(lim__sched *s, lim_process *p);
void lim__deadline_end(lim_process *p);
uint64_t lim__timer_next(const lim__sched *s);

/* ---- sched.c, loop.c ---- */
void *lim__sched_main(void *arg);
lim__sched *lim__sched_enter(lim__sched *s); /* the calling thread becomes s; returns what it was */
void lim__sched_leave(lim__sched *outer);
/* Around everything that runs as a process: who may have taken how long. */
void lim__look(lim__sched *s, uint64_t now); /* the clock was read: whoever ran since the last look took that long */
static inline void lim__suspect_add(lim__sched *s, const lim_process *p)
{
    lim__suspect *u = &s->suspects[s->suspect_count++ % LIM__SIGNALS_PER_LOOK];
    u->pid = p->pid;
    u->name = p->name;
}
void lim__flood(lim__sched *s);
static inline void lim__handler_done(lim__sched *s)
{
    if (LIM_UNLIKELY(s->output > LIM__SLICE_OUTPUT_MAX))
        lim__flood(s);
    s->output = 0;
    if (LIM_UNLIKELY(--s->until_look == 0))
        lim__look(s, s->os->now_ns(s->os));
}
void lim__spin_end(lim__sched *s);
void lim__watches_serve(lim__sched *s);
void lim__watches_end(lim__sched *s, lim_process *p);
void lim__flushes_run(lim__sched *s);
void lim__flushes_end(lim__sched *s, lim_process *p);
/* If it sleeps; s: whose thread this is, NULL: a host thread. */
void lim__sched_wake(lim__sched *s, lim__sched *target);
lim_err lim__sched_init(lim_runtime *rt, uint32_t index, lim__sched **out);
void lim__sched_fini(lim__sched *s);

/* ---- registry.c ---- */
void lim__registry_init(lim__registry *r, uint64_t seed);
void lim__registry_fini(lim__registry *r);
void lim__registry_forget(lim_runtime *rt, lim_pid pid);

/* ---- check.c: what must hold between turns ---- */
void lim__proc_check(const lim_process *p);
void lim__sched_check(const lim__sched *s);

#endif
