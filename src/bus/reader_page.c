/* SPDX-License-Identifier: Apache-2.0
 * reader_page.c - where a reader's messages come from: the tail that is in memory, else the store, a page at a time.
 *
 *                      read_next
 *      pages that wait   |  > last stored: await a bell
 *                        |  in the tail:   take it, no disk
 *                        `  else:          a job on the reading thread makes the next pages
 *
 * Everything goes by number, so there is no moment at which replay becomes live: the same question is asked again, and
 * at some point it is the tail that answers. The next page is read while the last one is delivered, one at a time, and
 * only while somebody has room for it.
 *
 * What is read from the store comes in blocks: consecutive messages that may be delivered to one member as they are. A
 * number that is missing, a message that expires or is very large ends a block; where there are many of these, or where
 * messages are dealt out to several members, a page has messages one by one.
 *
 * A record that went bad is counted, told as an event and as the header `$damaged` of the next message, and then
 * passed. A record that memory was short for is tried again. */
#include "bus/log_inside.h"
#include "bus/reader_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct page_job {
    lim__job job; /* first */
    lim_bus *bus;
    lim_pid reader;
    lim__read_job kind;
    uint64_t stream, from, last, wall_ns;
    uint32_t max, bytes_max, rows;
} page_job;

/* ---- pages ---- */

void lim__page_free(lim__read_page *page)
{
    if (page != NULL)
        lim__letter_free(lim__sched_current(), page);
}

void lim__pages_free(lim__reader *r)
{
    while (r->page != NULL) {
        lim__read_page *page = r->page;
        r->page = page->follows;
        lim__page_free(page);
    }
    r->newest = NULL;
    r->page_count = 0;
}

static lim__read_page *page_new(lim__sched *s, uint32_t max)
{
    lim__read_page *page = lim__letter_new(s, &lim__type_read_page, sizeof *page + max * sizeof page->item[0]);
    if (page != NULL)
        *page = (lim__read_page){ 0 };
    return page;
}

/* ---- on the reading thread ---- */

typedef struct filling {
    lim__read_page *page;
    uint64_t last;
    uint32_t max;
    size_t bytes, bytes_max;
    bool full, failed;
} filling;

static bool each_record(void *ctx, const lim__record *record)
{
    filling *f = ctx;
    lim__read_page *page = f->page;
    if (record->seq > f->last)
        return false;
    f->full = page->count == f->max || f->bytes >= f->bytes_max;
    if (f->full)
        return false;
    lim__logged *item = &page->item[page->count];
    f->failed = !lim__log_decode(record, item);
    if (f->failed) {
        page->next = record->seq;
        return false;
    }
    page->count++;
    page->next = record->seq + 1;
    f->bytes += lim__msg_cost(item->msg);
    return true;
}

/* ---- blocks ---- */

typedef struct rowing {
    lim__block *block;
    uint64_t last;
    uint32_t max;
    bool stopped; /* by a message that cannot be in it */
} rowing;

static bool each_of_row(void *ctx, const lim__record *record)
{
    rowing *w = ctx;
    lim__block *b = w->block;
    lim__log_record r;
    if (record->seq > w->last || b->count == w->max)
        return false;
    if (b->count == 0)
        b->first = record->seq;
    w->stopped = record->seq != b->first + b->count || !lim__log_record_read(record->data, &r) ||
                 r.expires_wall_ns != 0 || !lim__block_add(b, record->key, r.headers, r.payload);
    return !w->stopped;
}

static lim__read_page *page_of_row(const page_job *j, lim__block *block)
{
    lim__read_page *page = page_new(NULL, 1);
    if (page == NULL)
        return NULL;
    page->from = j->from;
    page->next = block->first + block->count;
    page->count = block->count;
    page->block = block;
    page->rest = lim__bytes(block->bytes, block->len);
    page->item[0].msg = NULL;
    return page;
}

/* NULL: there is none, for whatever reason; reading one by one tells. */
static lim__read_page *read_row(const page_job *j, lim__store *store)
{
    rowing w = { .block = lim__block_new(LIM__READ_ROW_BYTES), .last = j->last, .max = j->max };
    lim__read_page *page = NULL;
    uint64_t bad = 0;
    if (w.block == NULL)
        return NULL;
    (void)lim__store_read_some(store, j->stream, j->from, j->max, LIM__READ_ROW_BYTES, each_of_row, &w, &bad);
    uint32_t least = j->max < LIM__READ_ROW_LEAST ? 1 : LIM__READ_ROW_LEAST;
    if (w.block->count >= (w.stopped ? least : 1))
        page = page_of_row(j, w.block);
    if (page == NULL)
        lim__block_unref(w.block);
    return page;
}

/* ---- and one by one ---- */

static lim__read_page *read_items(const page_job *j, lim__store *store)
{
    lim__read_page *page = page_new(NULL, j->max);
    uint64_t bad = 0;
    if (page == NULL) {
        page = page_new(NULL, 0);
        if (page != NULL)
            *page = (lim__read_page){ .err = -ENOMEM, .from = j->from, .next = j->from };
    } else {
        page->from = page->next = j->from;
        page->again = j->kind == LIM__JOB_AGAIN;
        filling f = { .page = page, .last = j->last, .max = j->max, .bytes_max = j->bytes_max };
        /* One more than fits, to know whether the page is full; not all, which would be read from the disk in vain. */
        page->err = lim__store_read(store, j->stream, j->from, j->max + 1, each_record, &f, &bad);
        if (page->err == -EBADMSG)
            page->next = bad;
        else if (page->err == 0 && f.failed)
            page->err = -ENOMEM;
        else if (page->err == 0 && !f.full)
            page->next = j->last + 1; /* what is not there was forgotten */
    }
    return page;
}

static void read_pages(page_job *j, lim__store *store)
{
    bool more;
    do {
        lim__read_page *page = j->rows > 0 ? read_row(j, store) : NULL;
        more = page != NULL && page->next <= j->last && --j->rows > 0;
        if (page == NULL)
            page = read_items(j, store);
        if (page == NULL)
            return;
        page->more = more;
        j->from = page->next;
        (void)!lim__post_reserved(j->bus->rt, j->reader, page);
    } while (more);
}

static void seek(const page_job *j, lim__store *store)
{
    lim__read_sought *s = lim__letter_new(NULL, &lim__type_read_sought, sizeof *s);
    if (s == NULL)
        return; /* asked again when somebody subscribes */
    *s = (lim__read_sought){ 0 };
    s->err = lim__store_seek(store, j->stream, j->wall_ns, &s->seq);
    (void)!lim__post_reserved(j->bus->rt, j->reader, s);
}

/* ---- the newest of every key ---- */

typedef struct newest {
    uint64_t seq;
    uint32_t len;
    char key[];
} newest;
typedef struct collecting {
    lim__smap map;
    uint64_t last;
    int err;
} collecting;

static bool each_key(void *ctx, const lim__record *record)
{
    collecting *c = ctx;
    if (record->seq > c->last)
        return false;
    if (record->key.len == 0)
        return true;
    newest *n = lim__smap_get(&c->map, record->key);
    if (n != NULL) {
        n->seq = record->seq;
        return true;
    }
    n = c->map.count < LIM__READ_KEYS_MAX ? malloc(sizeof *n + record->key.len) : NULL;
    if (n == NULL) {
        c->err = c->map.count < LIM__READ_KEYS_MAX ? -ENOMEM : -E2BIG;
        return false;
    }
    *n = (newest){ record->seq, (uint32_t)record->key.len };
    memcpy(n->key, record->key.ptr, record->key.len);
    if (lim__smap_put(&c->map, lim__bytes(n->key, n->len), n) == LIM_OK)
        return true;
    free(n);
    c->err = -ENOMEM;
    return false;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void keys_take(collecting *c, lim__read_keys *k)
{
    size_t pos = 0;
    lim_bytes key;
    void *value;
    k->seqs = calloc(c->map.count + 1, sizeof *k->seqs);
    if (k->seqs == NULL && k->err == 0)
        k->err = -ENOMEM;
    while (lim__smap_next(&c->map, &pos, &key, &value)) {
        if (k->seqs != NULL)
            k->seqs[k->count++] = ((newest *)value)->seq;
        free(value);
    }
    if (k->count > 0)
        qsort(k->seqs, k->count, sizeof *k->seqs, by_number);
    lim__smap_fini(&c->map);
}

/* Bad records are passed here: whoever delivers meets them again if they are of those that count, or between. */
static void read_keys(const page_job *j, lim__store *store)
{
    lim__read_keys *k = lim__letter_new(NULL, &lim__type_read_keys, sizeof *k);
    if (k == NULL)
        return;
    collecting c = { .last = j->last };
    uint64_t from = j->from, bad = 0;
    lim__smap_init(&c.map, j->wall_ns);
    int err;
    while ((err = lim__store_read(store, j->stream, from, 0, each_key, &c, &bad)) == -EBADMSG)
        from = bad + 1;
    *k = (lim__read_keys){ .err = err != 0 ? err : c.err, .upto = j->last };
    keys_take(&c, k);
    (void)!lim__post_reserved(j->bus->rt, j->reader, k);
}

static void run(lim__job *job, lim__store *store)
{
    page_job *j = (page_job *)job;
    if (store != NULL && j->kind == LIM__JOB_SEEK)
        seek(j, store);
    else if (store != NULL && j->kind == LIM__JOB_KEYS)
        read_keys(j, store);
    else if (store != NULL)
        read_pages(j, store);
    free(j);
}

/* ---- asking for it ---- the reader's process */

/* May what is read next go to one member, as it is stored? */
static bool in_rows(const lim__reader *r)
{
    return r->mode != LIM__READ_SHARED && lim__buf_len(&r->skips) == 0 &&
           (r->last_seqs == NULL || r->read_next > r->last_upto);
}

static void start(lim__reader *r, lim__read_job kind, uint64_t from, uint64_t last)
{
    LIM_ASSERT(r->job == LIM__JOB_NONE);
    page_job *j = malloc(sizeof *j);
    if (j == NULL) {
        lim__reader_retry(r);
        return;
    }
    *j = (page_job){ .job.run = run,
                     .bus = r->bus,
                     .reader = lim_self(r->self),
                     .kind = kind,
                     .stream = r->stream,
                     .from = from,
                     .last = last,
                     .wall_ns = r->seek_wall_ns,
                     .max = r->page_messages,
                     .bytes_max = r->page_bytes };
    if (kind == LIM__JOB_PAGE && in_rows(r)) {
        j->job.patient = true;
        j->rows = r->rows + 1;
        r->rows = j->rows < LIM__READ_ROWS_MAX ? j->rows : LIM__READ_ROWS_MAX - 1; /* the longer it goes on */
    }
    r->job = kind;
    lim__durable_read(r->bus, &j->job);
}

void lim__reader_seek(lim__reader *r)
{
    if (r->job == LIM__JOB_NONE)
        start(r, LIM__JOB_SEEK, 0, 0);
}

void lim__reader_keys(lim__reader *r)
{
    uint64_t first, last;
    lim__log_span(r->log, &first, &last);
    if (r->job == LIM__JOB_NONE)
        start(r, LIM__JOB_KEYS, 1, last);
}

void lim__reader_refetch(lim__reader *r, uint64_t seq)
{
    if (r->job == LIM__JOB_NONE)
        start(r, LIM__JOB_AGAIN, seq, r->at.next - 1);
}

/* What is new, and still in memory; NULL: it is not. */
static lim__read_page *take_tail(lim__reader *r)
{
    lim__read_page *page = page_new(lim__proc_sched(r->self), LIM__READ_TAIL_MESSAGES);
    if (page == NULL)
        return NULL;
    page->from = r->read_next;
    page->count = lim__log_tail(r->log, r->read_next, page->item, LIM__READ_TAIL_MESSAGES);
    if (page->count == 0) {
        lim__page_free(page);
        return NULL;
    }
    page->next = page->item[page->count - 1].seq + 1;
    if (LIM__MUTATION("join_skips_one"))
        page->next++;
    return page;
}

static void enter(lim__reader *r, lim__read_page *page)
{
    r->read_next = page->next;
    page->at = 0;
    page->damaged = r->damaged_last;
    r->damaged_last = 0;
    page->follows = NULL;
    if (r->page == NULL)
        r->page = page;
    else
        r->newest->follows = page;
    r->newest = page;
    r->page_count++;
}

static void read_on(lim__reader *r)
{
    uint64_t first, last;
    if (r->job != LIM__JOB_NONE ||
        r->page_count > (r->newest != NULL && r->newest->block != NULL ? LIM__READ_ROWS_AHEAD : 1))
        return;
    lim__log_span(r->log, &first, &last);
    while (r->read_next > last) {
        if (r->awaits)
            return;
        r->awaits = lim__log_await(r->log, &r->seat, last);
        if (r->awaits)
            return;
        lim__log_span(r->log, &first, &last);
    }
    lim__read_page *tail = take_tail(r);
    if (tail != NULL)
        enter(r, tail);
    else
        start(r, LIM__JOB_PAGE, r->read_next, last);
}

/* ---- the next message ---- */

static bool page_used(lim__reader *r)
{
    lim__read_page *page = r->page;
    if (page == NULL || page->at < page->count)
        return false;
    lim__cursor_pass(&r->at, page->next);
    r->page = page->follows;
    r->newest = r->page != NULL ? r->newest : NULL;
    r->page_count--;
    if (page->damaged != 0 && r->page != NULL) /* nobody was told yet */
        r->page->damaged = page->damaged;
    else if (page->damaged != 0)
        r->damaged_last = page->damaged;
    lim__page_free(page);
    return true;
}

static bool is_last_of_its_key(const lim__reader *r, uint64_t seq)
{
    return bsearch(&seq, r->last_seqs, r->last_count, sizeof seq, by_number) != NULL;
}

/* A step acknowledged it before the bus was started again; from here on the row says so. */
static bool is_skipped(lim__reader *r, uint64_t seq)
{
    uint64_t first;
    while (lim__buf_len(&r->skips) > 0) {
        memcpy(&first, lim__buf_bytes(&r->skips).ptr, sizeof first);
        if (first > seq)
            return false;
        lim__buf_add(&r->steps, &first, sizeof first);
        lim__buf_consume(&r->skips, sizeof first);
        lim__reader_dirty(r);
        if (first == seq)
            return true;
    }
    return false;
}

static bool passes(lim__reader *r, const lim__logged *item)
{
    if (LIM_UNLIKELY(lim__buf_len(&r->skips) > 0) && is_skipped(r, item->seq))
        return true;
    if (item->expires_wall_ns != 0 && item->expires_wall_ns <= r->bus->os->wall_ns(r->bus->os))
        return true;
    return r->last_seqs != NULL && item->seq <= r->last_upto && !is_last_of_its_key(r, item->seq);
}

/* The message at `at`; NULL: no memory. */
static lim__logged *item_of(lim__read_page *page)
{
    if (page->block == NULL)
        return &page->item[page->at];
    lim_bytes rest = page->rest, headers, payload;
    lim__logged *item = &page->item[0];
    if (item->msg != NULL)
        return item;
    if (LIM_NEVER(!lim__block_next(&rest, &headers, &payload)))
        return NULL;
    *item = (lim__logged){ .seq = page->block->first + page->at, .msg = lim__msg_new_with(payload, headers) };
    return item->msg != NULL ? item : NULL;
}

void lim__reader_row_taken(lim__reader *r, uint32_t count, lim_bytes rest)
{
    r->page->at += count;
    r->page->rest = rest;
}

void lim__reader_taken(lim__reader *r)
{
    lim__read_page *page = r->page;
    lim_bytes headers, payload;
    if (page->block == NULL) {
        page->item[page->at++].msg = NULL;
        return;
    }
    page->item[0].msg = NULL;
    (void)lim__block_next(&page->rest, &headers, &payload);
    page->at++;
}

/* Says which one is missing before it; without memory for that it is not said here. */
static void mark_damaged(lim__read_page *page, lim__logged *item)
{
    lim__buf headers = { 0 };
    char text[24];
    int len = snprintf(text, sizeof text, "%llu", (unsigned long long)page->damaged);
    lim_bytes before = lim__msg_headers(item->msg);
    lim__msg *copy = NULL;
    lim__buf_add(&headers, before.ptr, before.len);
    if (!headers.failed && lim__packed_add(&headers, lim__str("$damaged"), lim__bytes(text, (size_t)len)) == LIM_OK)
        copy = lim__msg_new_with(lim__msg_bytes(item->msg), lim__buf_bytes(&headers));
    lim__buf_fini(&headers);
    if (copy == NULL)
        return;
    lim__msg_unref(item->msg);
    item->msg = copy;
    page->damaged = 0;
}

/* The page that is to be delivered now, with a message at `at`; NULL: there is none yet. */
static lim__read_page *current(lim__reader *r)
{
    for (;;) {
        while (page_used(r))
            continue;
        if (r->page != NULL)
            break;
        read_on(r);
        if (r->page == NULL)
            return NULL;
    }
    if (r->page->block != NULL || r->page->at >= r->page->count / 2)
        read_on(r); /* the next one, meanwhile */
    return r->page;
}

lim__read_page *lim__reader_row_next(lim__reader *r)
{
    lim__read_page *page = current(r);
    bool whole = page != NULL && page->block != NULL && page->damaged == 0 && page->item[0].msg == NULL &&
                 lim__buf_len(&r->skips) == 0 && (r->last_seqs == NULL || page->block->first > r->last_upto);
    return whole ? page : NULL;
}

const lim__logged *lim__reader_next(lim__reader *r)
{
    for (lim__read_page *page; (page = current(r)) != NULL;) {
        lim__logged *item = item_of(page);
        if (item == NULL) {
            lim__reader_retry(r);
            return NULL;
        }
        if (!passes(r, item)) {
            if (page->damaged != 0)
                mark_damaged(page, item);
            return item;
        }
        lim__cursor_pass(&r->at, item->seq + 1);
        lim__msg_unref(item->msg);
        lim__reader_taken(r);
    }
    return NULL;
}

void lim__reader_rewind(lim__reader *r, uint64_t next)
{
    lim__pages_free(r);
    lim__reader_clear(r);
    r->at.next = r->read_next = next; /* a page that is under way is known by where it begins */
}

/* ---- what the reading thread found ---- */

static void damaged(lim__reader *r, uint64_t seq)
{
    char text[24];
    bool first = seq != r->damaged_newest + 1; /* of a row of them: one event */
    r->damaged++;
    r->damaged_newest = seq;
    lim__reader_dirty(r);
    if (!first)
        return;
    snprintf(text, sizeof text, "%llu", (unsigned long long)seq);
    LIM__EVENT(r->bus, r->self, "quarantined", { "channel", lim__log_name(r->log) }, { "cursor", lim__str(r->cursor) },
               { "seq", lim__str(text) });
}

/* True: what comes behind the page can be read at once. */
static bool page_fault(lim__reader *r, lim__read_page *page, uint64_t *bad)
{
    bool again = page->err == -ENOMEM && r->stuck == page->next; /* twice: it is not the memory */
    r->stuck = page->err == -ENOMEM ? page->next : 0;
    if (page->err != -EBADMSG && !again)
        return false;
    *bad = page->next++;
    damaged(r, *bad);
    return true;
}

static bool wants(const lim__pend *p)
{
    return p->msg == NULL && p->state == LIM__PEND_READY;
}

/* Whoever is in the page gets its message back; who should be and is not was forgotten, or went bad. */
static void give_back(lim__reader *r, lim__read_page *page)
{
    uint32_t i = 0;
    lim__pend *p = lim__cursor_from(&r->at, page->from);
    while (p != NULL && p->seq < page->next) {
        uint64_t seq = p->seq > page->from ? p->seq : page->from;
        if (wants(p) && (p = lim__cursor_take_of(&r->at, p, seq)) == NULL) {
            lim__reader_retry(r);
            return;
        }
        lim__list *next = p->in_order.next;
        while (i < page->count && page->item[i].seq < seq)
            i++;
        bool there = i < page->count && page->item[i].seq == seq;
        if (wants(p) && there) {
            p->expires_wall_ns = page->item[i].expires_wall_ns;
            lim__cursor_give(&r->at, p, page->item[i].msg);
            page->item[i].msg = NULL;
        } else if (wants(p)) {
            lim__cursor_done(&r->at, p);
            lim__reader_dirty(r);
        }
        p = next != &r->at.order ? LIM_CONTAINER(next, lim__pend, in_order) : NULL;
    }
}

void lim__reader_on_page(lim__reader *r, lim__read_page *page)
{
    bool stale = !page->again && page->from != r->read_next; /* there was a rewind meanwhile */
    if (!page->more)
        r->job = LIM__JOB_NONE;
    uint64_t bad = 0;
    if (!stale && page->err != 0 && !page_fault(r, page, &bad))
        lim__reader_retry(r);
    if (page->again)
        give_back(r, page);
    if (page->again || stale || page->next == page->from)
        lim__page_free(page);
    else
        enter(r, page);
    if (bad != 0)
        r->damaged_last = bad; /* for the page behind it */
}

void lim__reader_on_sought(lim__reader *r, const lim__read_sought *s)
{
    r->job = LIM__JOB_NONE;
    if (s->err != 0) {
        lim__reader_retry(r);
        return;
    }
    r->seek_wall_ns = 0;
    lim__reader_rewind(r, s->seq);
    lim__reader_dirty(r);
}

void lim__reader_on_keys(lim__reader *r, lim__read_keys *k)
{
    r->job = LIM__JOB_NONE;
    if (k->err == -E2BIG) {
        lim__reader_over(r, LIM_E_TOOBIG, "the channel has more keys than last_per_key can tell apart (1048576)");
        return;
    }
    if (k->err != 0) {
        lim__reader_retry(r);
        return;
    }
    r->keys_wanted = false;
    r->last_seqs = k->seqs;
    r->last_count = k->count;
    r->last_upto = k->upto;
    k->seqs = NULL;
    lim__reader_rewind(r, r->last_count > 0 ? r->last_seqs[0] : k->upto + 1);
}
