/* SPDX-License-Identifier: Apache-2.0
 * ended_kept.c - outcomes of durable tasks and asks: rows of LIM__TABLE_OUTCOMES, and the same in memory, so that
 * nobody who asks for one waits for the disk.
 *
 * An outcome is kept until its time is over (LIM__KEPT_NS, or as long as its idempotency key is remembered), the oldest
 * less long when there are more than LIM__KEPT_MAX, or more than KEPT_BYTES of them. Whoever stores the next one also
 * stores that a few old ones are gone: so that costs no commit of its own, and what a crash leaves behind is swept up
 * after the restart. Any thread; one leaf mutex. */
#include "base/base.h"
#include "base/map.h"
#include "bus/durable.h"
#include "bus/ended.h"
#include <stdlib.h>

enum { SWEEP = 4, ROW_FORMAT = 1 };
#define KEPT_BYTES (128u << 20)

typedef struct kept {
    lim__list node; /* oldest first */
    lim__conv_kind kind;
    bool keyed; /* an idempotency key answers with it */
    uint64_t lease, until_wall_ns;
    size_t weight;
    uint32_t bytes;
    lim_pid also;                /* its process's, if that was another: found by it, too; or {0} */
    lim__outcome_letter *letter; /* malloc'd, with its text and its own reference to the payload */
} kept;

struct lim__kept {
    lim__mutex mutex;
    lim__map by_id;
    lim__list all;
    size_t bytes, count;
};

struct lim__kept *lim__kept_new(uint64_t seed)
{
    struct lim__kept *all = calloc(1, sizeof *all);
    if (all == NULL)
        return NULL;
    all->mutex = (lim__mutex)LIM__MUTEX_INIT;
    lim__map_init(&all->by_id, seed);
    lim__list_init(&all->all);
    return all;
}

static void forget_locked(struct lim__kept *all, kept *k)
{
    lim__list_remove(&k->node);
    if (lim__map_get(&all->by_id, k->letter->conv.id) == k)
        (void)lim__map_remove(&all->by_id, k->letter->conv.id);
    if (k->also.id != 0 && lim__map_get(&all->by_id, k->also.id) == k)
        (void)lim__map_remove(&all->by_id, k->also.id);
    all->bytes -= k->weight;
    all->count--;
    lim__msg_unref(k->letter->payload);
    free(k->letter);
    free(k);
}

void lim__kept_free(struct lim__kept *all)
{
    if (all == NULL)
        return;
    while (!lim__list_empty(&all->all))
        forget_locked(all, LIM_CONTAINER(all->all.next, kept, node));
    lim__map_fini(&all->by_id);
    free(all);
}

void lim__kept_add(lim_bus *bus, const lim__kept_note *note, const lim__outcome_letter *o)
{
    struct lim__kept *all = bus->kept;
    size_t bytes = lim__outcome_bytes(o);
    kept *k = malloc(sizeof *k);
    lim__outcome_letter *letter = malloc(bytes);
    if (k == NULL || letter == NULL) {
        free(k); /* its row is there: after a restart it is known again */
        free(letter);
        return;
    }
    memcpy(letter, o, bytes);
    lim__msg_ref(letter->payload);
    *k = (kept){ .kind = note->kind,
                 .keyed = note->keyed,
                 .lease = note->lease,
                 .until_wall_ns = note->until_wall_ns,
                 .weight = bytes + sizeof *k + (o->payload != NULL ? lim__msg_bytes(o->payload).len : 0),
                 .bytes = (uint32_t)bytes,
                 .letter = letter };
    lim__list_init(&k->node);
    pthread_mutex_lock(&all->mutex);
    kept *before = lim__map_get(&all->by_id, o->conv.id);
    if (before != NULL)
        forget_locked(all, before);
    lim__list_push(&all->all, &k->node);
    all->bytes += k->weight;
    all->count++;
    if (lim__map_put(&all->by_id, o->conv.id, k) != LIM_OK)
        forget_locked(all, k);
    else if (note->process.id != o->conv.id && lim__map_put(&all->by_id, note->process.id, k) == LIM_OK)
        k->also = note->process;
    pthread_mutex_unlock(&all->mutex);
}

void lim__kept_sweep(lim_bus *bus, lim__batch *batch)
{
    struct lim__kept *all = bus->kept;
    uint64_t now = bus->os->wall_ns(bus->os);
    uint8_t key[8];
    pthread_mutex_lock(&all->mutex);
    for (uint32_t i = 0; i < SWEEP && !lim__list_empty(&all->all); i++) {
        kept *k = LIM_CONTAINER(all->all.next, kept, node);
        bool over = all->count >= LIM__KEPT_MAX || all->bytes > KEPT_BYTES;
        if (k->until_wall_ns > now && !over)
            break;
        if (k->until_wall_ns > now && k->keyed) { /* its queue bounds those */
            lim__list_remove(&k->node);
            lim__list_push(&all->all, &k->node);
            continue;
        }
        lim__key_u64(key, k->letter->conv.id);
        lim__batch_delete(batch, LIM__TABLE_OUTCOMES, lim__bytes(key, sizeof key));
        forget_locked(all, k);
    }
    pthread_mutex_unlock(&all->mutex);
}

static const kept *find_locked(lim_bus *bus, lim_pid conv)
{
    const kept *k = lim__map_get(&bus->kept->by_id, conv.id);
    return k != NULL && k->until_wall_ns > bus->os->wall_ns(bus->os) ? k : NULL;
}

lim__outcome_letter *lim__kept_outcome(lim_bus *bus, lim__sched *s, lim_pid conv, uint64_t ref)
{
    pthread_mutex_lock(&bus->kept->mutex);
    const kept *k = find_locked(bus, conv);
    lim__outcome_letter *copy = k != NULL ? lim__letter_new(s, &lim__type_outcome, k->bytes) : NULL;
    if (copy != NULL) {
        memcpy(copy, k->letter, k->bytes);
        copy->ref = ref;
        lim__msg_ref(copy->payload);
    }
    pthread_mutex_unlock(&bus->kept->mutex);
    return copy;
}

bool lim__kept_find(lim_bus *bus, lim_pid conv, lim__ended_info *out)
{
    pthread_mutex_lock(&bus->kept->mutex);
    const kept *k = find_locked(bus, conv);
    if (k != NULL)
        *out = (lim__ended_info){ k->letter->how == LIM_HOW_REPLY ? LIM_PHASE_ENDED : LIM_PHASE_BROKEN, k->kind,
                                  k->lease };
    pthread_mutex_unlock(&bus->kept->mutex);
    return k != NULL;
}

static int by_time(const void *a, const void *b)
{
    const kept *x = *(kept *const *)a, *y = *(kept *const *)b;
    return x->until_wall_ns < y->until_wall_ns ? -1 : x->until_wall_ns > y->until_wall_ns;
}

void lim__kept_sort(lim_bus *bus)
{
    lim__list *all = &bus->kept->all;
    size_t n = bus->kept->count, i = 0;
    kept **order = calloc(n + 1, sizeof *order);
    if (order == NULL)
        return; /* then some are kept a little longer */
    while (!lim__list_empty(all))
        order[i++] = LIM_CONTAINER(lim__list_pop(all), kept, node);
    LIM_ASSERT(i == n);
    qsort(order, n, sizeof *order, by_time);
    for (i = 0; i < n; i++)
        lim__list_push(all, &order[i]->node);
    free(order);
}

/* ---- reading rows ---- */

static void read_numbers(lim__unpack *u, lim__outcome_letter *o)
{
    o->how = (lim_how)lim__unpack_u8(u);
    o->handed_over = (lim_handed)lim__unpack_u8(u);
    o->why = (lim_why)lim__unpack_u8(u);
    o->reason = (lim_reason)lim__unpack_u32(u);
    o->attempts = lim__unpack_u32(u);
    o->losses = lim__unpack_u32(u);
    o->limit = lim__unpack_u32(u);
    o->current = lim__unpack_u32(u);
    o->retry_after_ms = lim__unpack_u32(u);
    o->elapsed_ns = lim__unpack_u64(u);
    o->crashed_wall_us = lim__unpack_u64(u);
    o->rerouted_ns = lim__unpack_u64(u);
    o->compensation.id = lim__unpack_u64(u);
    o->participant_len = lim__unpack_u8(u);
    o->router_len = lim__unpack_u8(u);
    o->excluded_count = lim__unpack_u8(u);
    o->detail_len = lim__unpack_u16(u);
    o->excluded_bytes = lim__unpack_u16(u);
}

static bool read_payload(lim__unpack *u, lim__msg **out)
{
    *out = NULL;
    if (lim__unpack_u8(u) == 0)
        return true;
    lim_bytes headers = lim__unpack_bytes(u), payload = lim__unpack_bytes(u);
    *out = u->bad ? NULL : lim__msg_new_with(payload, headers);
    return *out != NULL;
}

lim_err lim__kept_read(lim_bus *bus, lim_bytes key, lim_bytes row)
{
    lim__unpack u = lim__unpack_begin(row);
    uint8_t format = lim__unpack_u8(&u);
    lim__conv_kind kind = (lim__conv_kind)lim__unpack_u8(&u);
    bool keyed = lim__unpack_u8(&u) != 0;
    uint64_t until = lim__unpack_u64(&u), lease = lim__unpack_u64(&u);
    lim__outcome_letter head = { 0 };
    read_numbers(&u, &head);
    lim_bytes text = lim__unpack_bytes(&u);
    bool good = key.len == 8 && format == ROW_FORMAT && !u.bad && head.excluded_count <= LIM__EXCLUDED_MAX &&
                text.len == lim__outcome_bytes(&head) - sizeof head && read_payload(&u, &head.payload);
    if (!good || !lim__unpack_end(&u)) {
        lim__msg_unref(head.payload);
        return LIM_E_INVALID;
    }
    head.conv.id = lim__key_get_u64(key.ptr);
    lim__outcome_letter *o = malloc(sizeof *o + text.len);
    if (o != NULL) {
        *o = head;
        if (text.len > 0)
            memcpy(o->text, text.ptr, text.len);
        lim__kept_add(bus, &(lim__kept_note){ kind, keyed, head.conv, lease, until }, o);
    }
    lim__msg_unref(head.payload);
    free(o);
    return o != NULL ? LIM_OK : LIM_E_NOMEM;
}
