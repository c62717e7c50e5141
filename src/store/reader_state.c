/* SPDX-License-Identifier: Apache-2.0
 * reader_state.c - the second reader: what the ops of the log come to. See reader.h.
 *
 * What was forgotten never comes back under its number, so it is enough to remember how far a stream was trimmed and
 * which numbers were erased, and to take these out when the log is at its end (and before, when much has come
 * together). Of several places of one number the last in the log counts.
 *
 * Rows carry the time at which they were written, counted in ops. A page of a checkpoint kills the rows between its two
 * keys that are older than itself; that is done for all pages of a checkpoint in one go. */
#include "store/reader_inside.h"

#include <errno.h>
#include <stdlib.h>

/* ---- streams ---- */

static reader_stream *stream_of(lim__reader *r, uint64_t id)
{
    reader_stream *st = lim__map_get(&r->streams, id);
    if (st || (r->only && *r->only != id))
        return st;
    st = calloc(1, sizeof *st);
    if (!st || lim__map_put(&r->streams, id, st) != LIM_OK) {
        r->failed = true;
        free(st);
        return NULL;
    }
    st->id = id;
    st->next = 1;
    return st;
}

/* By number; what is lost before what is there, an earlier place before a later one: the last of a number counts. */
static int by_seq(const void *a, const void *b)
{
    const reader_place *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    if ((x->at == 0) != (y->at == 0))
        return x->at == 0 ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void tidy(reader_stream *st)
{
    size_t kept = 0, erased = 0;
    if (st->count > 0)
        qsort(st->places, st->count, sizeof *st->places, by_seq);
    if (st->erased_count > 0)
        qsort(st->erased, st->erased_count, sizeof *st->erased, by_number);
    for (size_t i = 0; i < st->count; i++) {
        const reader_place *p = &st->places[i];
        while (erased < st->erased_count && st->erased[erased] < p->seq)
            erased++;
        bool is_erased = erased < st->erased_count && st->erased[erased] == p->seq;
        bool is_last = i + 1 == st->count || st->places[i + 1].seq != p->seq;
        if (is_last && !is_erased && p->seq >= st->first) {
            st->places[kept] = *p;
            st->places[kept++].order = 0; /* older than all that comes */
        }
    }
    st->count = kept;
}

/* Room for one more; when there is none, what is forgotten makes some. */
static reader_place *add_place(lim__reader *r, reader_stream *st)
{
    if (st->count == st->cap) {
        tidy(st);
        size_t cap = st->count * 2 < 64 ? 64 : st->count * 2;
        reader_place *places = cap > st->cap ? realloc(st->places, cap * sizeof *places) : st->places;
        if (!places) {
            r->failed = true;
            return NULL;
        }
        st->places = places;
        st->cap = cap > st->cap ? cap : st->cap;
    }
    return &st->places[st->count++];
}

static void record(lim__reader *r, const reader_op *op, uint64_t segment, uint64_t at)
{
    reader_stream *st = stream_of(r, op->stream);
    reader_place *p = st ? add_place(r, st) : NULL;
    if (!p)
        return;
    *p = (reader_place){ .seq = op->seq,
                         .segment = segment,
                         .at = at,
                         .wall_ns = op->arg,
                         .key_len = op->key_len,
                         .data_len = op->data_len,
                         .crc = op->payload_crc,
                         .order = (uint32_t)st->count };
    st->next = op->seq + 1 > st->next ? op->seq + 1 : st->next;
}

/* These were in a batch that is damaged; those that were found have a place, before or after this. */
static void total(lim__reader *r, const reader_op *op)
{
    reader_stream *st = stream_of(r, op->stream);
    for (uint64_t seq = op->seq; st && seq - op->seq < op->arg; seq++) {
        reader_place *p = add_place(r, st);
        if (!p)
            return;
        *p = (reader_place){ .seq = seq };
        st->next = seq + 1 > st->next ? seq + 1 : st->next;
    }
}

static void trim(lim__reader *r, uint64_t id, uint64_t first)
{
    reader_stream *st = stream_of(r, id);
    if (st && first > st->first)
        st->first = first;
}

static void erase(lim__reader *r, const reader_op *op)
{
    reader_stream *st = stream_of(r, op->stream);
    if (!st)
        return;
    if (st->erased_count == st->erased_cap) {
        size_t cap = st->erased_cap ? st->erased_cap * 2 : 16;
        uint64_t *erased = realloc(st->erased, cap * sizeof *erased);
        if (!erased) {
            r->failed = true;
            return;
        }
        st->erased = erased;
        st->erased_cap = cap;
    }
    st->erased[st->erased_count++] = op->seq;
}

/* ---- rows ---- */

static reader_row *new_row(lim_bytes key, lim_bytes value, uint64_t order)
{
    reader_row *row = malloc(sizeof *row + key.len + value.len);
    if (!row)
        return NULL;
    *row = (reader_row){ .order = order, .key_len = (uint32_t)key.len, .value_len = (uint32_t)value.len };
    memcpy(row->bytes, key.ptr, key.len);
    if (value.len > 0)
        memcpy(row->bytes + key.len, value.ptr, value.len);
    return row;
}

static void put(lim__reader *r, lim_bytes key, lim_bytes value)
{
    reader_row *row = new_row(key, value, r->order), *old = lim__smap_get(&r->rows, key);
    if (!row || lim__smap_put(&r->rows, lim__bytes(row->bytes, row->key_len), row) != LIM_OK) {
        r->failed = true;
        free(row);
        return;
    }
    free(old);
}

static void delete (lim__reader *r, lim_bytes key)
{
    reader_row *row = lim__smap_get(&r->rows, key);
    if (row)
        row->gone = true;
}

static int compare(lim_bytes a, lim_bytes b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* ---- checkpoints ---- */

/* Of a key with its kind in front: does the page speak of it? */
static bool page_has(const reader_page *p, lim_bytes key)
{
    return compare(key, lim__bytes(p->from, p->from_len)) > 0 &&
           (p->to_len == 0 || compare(key, lim__bytes(p->to, p->to_len)) <= 0);
}

static const reader_page *page_for(const lim__reader *r, lim_bytes key)
{
    size_t low = 0, high = r->page_count;
    while (low < high) { /* the last one that begins before the key */
        size_t middle = low + (high - low) / 2;
        if (compare(lim__bytes(r->pages[middle].from, r->pages[middle].from_len), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 && page_has(&r->pages[low - 1], key) ? &r->pages[low - 1] : NULL;
}

static void drop_pages(lim__reader *r)
{
    for (size_t i = 0; i < r->page_count; i++)
        free(r->pages[i].from);
    r->page_count = 0;
}

/* Rows that were there before the pages that do not have them. */
static void settle_pages(lim__reader *r)
{
    lim_bytes key;
    void *value;
    for (size_t pos = 0; r->page_count > 0 && lim__smap_next(&r->rows, &pos, &key, &value);) {
        uint8_t full[1024] = { 'R' };
        reader_row *row = value;
        size_t len = key.len < sizeof full - 1 ? key.len : sizeof full - 1;
        memcpy(full + 1, key.ptr, len);
        const reader_page *page = page_for(r, lim__bytes(full, len + 1));
        row->gone = row->gone || (page && row->order < page->order);
    }
    drop_pages(r);
}

static void page_entry(lim__reader *r, lim_bytes key, lim_bytes value)
{
    const uint8_t *k = key.ptr, *v = value.ptr;
    if (key.len > 1 && k[0] == 'R')
        put(r, lim__bytes(k + 1, key.len - 1), value);
    if (key.len != 9 || k[0] != 'S' || value.len != 48)
        return;
    uint64_t id = 0, next = reader_u64(v + 8);
    for (int i = 1; i <= 8; i++)
        id = id << 8 | k[i];
    reader_stream *st = stream_of(r, id);
    trim(r, id, reader_u64(v));
    if (st && next > st->next)
        st->next = next;
}

static void page(lim__reader *r, const reader_op *op)
{
    size_t to_len = op->data_len >= 2 ? (size_t)(op->data[0] | op->data[1] << 8) : SIZE_MAX;
    if (to_len > op->data_len - 2u)
        return;
    if (r->page_count == r->page_cap) {
        size_t cap = r->page_cap ? r->page_cap * 2 : 16;
        reader_page *pages = realloc(r->pages, cap * sizeof *pages);
        r->failed = r->failed || !pages;
        r->pages = pages ? pages : r->pages;
        r->page_cap = pages ? cap : r->page_cap;
    }
    uint8_t *keys = malloc((size_t)op->key_len + to_len + 1);
    if (!keys || r->page_count == r->page_cap) {
        r->failed = true;
        free(keys);
        return;
    }
    memcpy(keys, op->key, op->key_len);
    memcpy(keys + op->key_len, op->data + 2, to_len);
    r->pages[r->page_count++] = (reader_page){ r->order, op->key_len, to_len, keys, keys + op->key_len };
    const uint8_t *at = op->data + 2 + to_len, *end = op->data + op->data_len;
    while (end - at >= 6) {
        size_t key_len = (size_t)(at[0] | at[1] << 8), value_len = reader_u32(at + 2);
        if (key_len + value_len > (size_t)(end - at) - 6)
            return;
        page_entry(r, lim__bytes(at + 6, key_len), lim__bytes(at + 6 + key_len, value_len));
        at += 6 + key_len + value_len;
    }
}

/* Each page begins where the one before it ended, from the first key of all to the last. */
static bool pages_cover_all(const lim__reader *r)
{
    for (size_t i = 0; i < r->page_count; i++) {
        const reader_page *p = &r->pages[i], *before = i ? p - 1 : NULL;
        lim_bytes from = before ? lim__bytes(before->to, before->to_len) : lim__bytes(NULL, 0);
        if (compare(lim__bytes(p->from, p->from_len), from) != 0 || (before && before->to_len == 0))
            return false;
    }
    return r->page_count > 0 && r->pages[r->page_count - 1].to_len == 0;
}

static void page_end(lim__reader *r, const reader_op *op)
{
    if (r->pages_of == op->seq && pages_cover_all(r)) {
        size_t count = op->data_len / 8;
        uint64_t *listed = realloc(r->listed, (count + 1) * sizeof *listed);
        r->failed = r->failed || !listed;
        r->listed = listed ? listed : r->listed;
        r->listed_count = listed ? count : 0;
        for (size_t i = 0; i < r->listed_count; i++)
            r->listed[i] = reader_u64(op->data + 8 * i);
        r->checkpoint = op->seq;
    }
    settle_pages(r);
    r->pages_of = 0;
}

/* ---- one op ---- */

void lim__reader_apply(lim__reader *r, const reader_op *op, uint64_t segment, uint64_t at)
{
    r->order++;
    switch (op->kind) {
    case READER_APPEND:
    case READER_COPY:
        record(r, op, segment, at);
        break;
    case READER_PUT:
        put(r, lim__bytes(op->key, op->key_len), lim__bytes(op->data, op->data_len));
        break;
    case READER_DELETE:
        delete (r, lim__bytes(op->key, op->key_len));
        break;
    case READER_TRIM:
        trim(r, op->stream, op->seq);
        break;
    case READER_ERASE:
        erase(r, op);
        break;
    case READER_DROP:
        for (size_t i = 0; i < r->listed_count; i++)
            r->listed[i] = r->listed[i] == op->seq ? 0 : r->listed[i];
        break;
    case READER_PAGE_BEGIN:
        settle_pages(r);
        r->pages_of = op->seq;
        break;
    case READER_PAGE:
        page(r, op);
        break;
    case READER_PAGE_END:
        page_end(r, op);
        break;
    case READER_TOTAL:
        total(r, op);
        break;
    default:
        break;
    }
}

void lim__reader_applied(lim__reader *r)
{
    uint64_t id;
    void *st;
    settle_pages(r);
    for (size_t pos = 0; lim__map_next(&r->streams, &pos, &id, &st);)
        tidy(st);
}

void lim__reader_forget(lim__reader *r)
{
    uint64_t id;
    lim_bytes key;
    void *value;
    for (size_t pos = 0; lim__map_next(&r->streams, &pos, &id, &value);) {
        reader_stream *st = value;
        free(st->places);
        free(st->erased);
        free(st);
    }
    for (size_t pos = 0; lim__smap_next(&r->rows, &pos, &key, &value);)
        free(value);
    drop_pages(r);
    free(r->pages);
    free(r->listed);
    lim__map_fini(&r->streams);
    lim__smap_fini(&r->rows);
}

/* ---- rows, in order ---- */

static int by_key(const void *a, const void *b)
{
    const reader_row *x = *(reader_row *const *)a, *y = *(reader_row *const *)b;
    return compare(lim__bytes(x->bytes, x->key_len), lim__bytes(y->bytes, y->key_len));
}

int lim__reader_rows(lim__reader *r, bool (*each)(void *ctx, uint8_t table, lim_bytes key, lim_bytes value), void *ctx)
{
    reader_row **list = calloc(r->rows.count + 1, sizeof *list);
    size_t count = 0;
    bool go_on = true;
    lim_bytes key;
    void *value;
    for (size_t pos = 0; list && lim__smap_next(&r->rows, &pos, &key, &value);) {
        reader_row *row = value;
        if (!row->gone && row->key_len > 0)
            list[count++] = row;
    }
    if (list)
        qsort(list, count, sizeof *list, by_key);
    for (size_t i = 0; list && i < count && go_on; i++) {
        const reader_row *row = list[i];
        go_on = each(ctx, row->bytes[0], lim__bytes(row->bytes + 1, row->key_len - 1),
                     lim__bytes(row->bytes + row->key_len, row->value_len));
    }
    free(list);
    return list ? 0 : -ENOMEM;
}
