/* SPDX-License-Identifier: Apache-2.0
 * ledger.c - applying the ops of the log to the index; keys, runs, streams. See ledger.h.
 *
 * Streams that change are kept in memory with their last run, so that a thousand records in one batch are a thousand
 * additions to arrays and a few entries of the index, put there when the batch is committed.
 *
 * Invariants:
 *   L1  runs of a stream do not overlap, and lie in first..next-1; none is empty.
 *   L2  a stream's count and bytes are those of its runs; a segment's live records and bytes are those of all runs in
 * it. L3  a record's op in the log says the stream and number under which the index has it. */
#include "store/ledger.h"

#include <errno.h>
#include <stdlib.h>

#ifdef LIM_DEBUG
enum { STREAMS_MAX = 2 }; /* so that tests see them forgotten */
#else
enum { STREAMS_MAX = 2048 }; /* that are remembered between commits */
#endif

/* ---- keys ---- */

static void key_add(lim__key *k, const void *bytes, size_t n)
{
    LIM_ASSERT(k->len + n <= sizeof k->bytes);
    if (n > 0)
        memcpy(k->bytes + k->len, bytes, n);
    k->len += n;
}

static void key_add_number(lim__key *k, uint64_t n)
{
    n = __builtin_bswap64(n);
    key_add(k, &n, sizeof n);
}

static lim__key key_of(char kind)
{
    lim__key k;
    k.len = 0;
    key_add(&k, &kind, 1);
    return k;
}

lim__key lim__key_mark(void)
{
    return key_of('M');
}

lim__key lim__key_segment(uint64_t id)
{
    lim__key k = key_of('G');
    key_add_number(&k, id);
    return k;
}

lim__key lim__key_stream(uint64_t stream)
{
    lim__key k = key_of('S');
    key_add_number(&k, stream);
    return k;
}

lim__key lim__key_run(uint64_t stream, uint64_t seq)
{
    lim__key k = key_of('N');
    key_add_number(&k, stream);
    key_add_number(&k, seq);
    return k;
}

lim__key lim__key_row(lim_bytes table_and_key)
{
    lim__key k = key_of('R');
    key_add(&k, table_and_key.ptr, table_and_key.len);
    return k;
}

lim__key lim__key_keyed(uint64_t stream, lim_bytes key, uint64_t seq)
{
    lim__key k = key_of('K');
    uint8_t len = (uint8_t)key.len;
    key_add_number(&k, stream);
    key_add(&k, &len, 1);
    key_add(&k, key.ptr, key.len);
    key_add_number(&k, seq);
    return k;
}

uint64_t lim__key_number(lim_bytes key, size_t at)
{
    uint64_t n;
    LIM_ASSERT(at + sizeof n <= key.len);
    memcpy(&n, (const uint8_t *)key.ptr + at, sizeof n);
    return __builtin_bswap64(n);
}

/* ---- runs ---- */

enum { RUN_HEAD = 24, RUN_KEY = 17 };

bool lim__run_read(lim_bytes key, lim_bytes value, lim__run *out)
{
    if (key.len != RUN_KEY || *(const char *)key.ptr != 'N' || value.len < RUN_HEAD)
        return false;
    const uint8_t *v = value.ptr;
    out->stream = lim__key_number(key, 1);
    out->first = lim__key_number(key, 9);
    memcpy(&out->segment, v, 8);
    memcpy(&out->wall_ns, v + 8, 8);
    memcpy(&out->count, v + 16, 8);
    if (out->segment == 0)
        return out->count > 0 && value.len == RUN_HEAD;
    if (out->count == 0 || out->count > LIM__RUN_MAX || value.len != RUN_HEAD + out->count * sizeof out->items[0])
        return false;
    memcpy(out->items, v + RUN_HEAD, out->count * sizeof out->items[0]);
    return true;
}

static void run_put(lim__ledger *l, const lim__run *run)
{
    uint8_t value[RUN_HEAD + sizeof run->items];
    size_t items = run->segment ? run->count * sizeof run->items[0] : 0;
    lim__key k = lim__key_run(run->stream, run->first);
    memcpy(value, &run->segment, 8);
    memcpy(value + 8, &run->wall_ns, 8);
    memcpy(value + 16, &run->count, 8);
    memcpy(value + RUN_HEAD, run->items, items);
    lim__index_put(l->ix, lim__key_bytes(&k), lim__bytes(value, RUN_HEAD + items));
}

static void run_delete(lim__ledger *l, const lim__run *run)
{
    lim__key k = lim__key_run(run->stream, run->first);
    lim__index_put(l->ix, lim__key_bytes(&k), lim__bytes(NULL, 0));
}

/* The run that a search found, if it is one of this stream. */
static int run_found(int err, uint64_t stream, const lim__buf *key, const lim__buf *value, lim__run *out)
{
    if (err != 0)
        return err;
    lim_bytes k = lim__buf_bytes(key);
    if (k.len != RUN_KEY || *(const char *)k.ptr != 'N' || lim__key_number(k, 1) != stream)
        return -ENOENT;
    return lim__run_read(k, lim__buf_bytes(value), out) ? 0 : -EBADMSG;
}

int lim__run_find(lim__seek_fn *seek, lim__index *ix, uint64_t stream, uint64_t seq, lim__run *out)
{
    lim__buf key = { 0 }, value = { 0 };
    lim__key k = lim__key_run(stream, seq);
    int err = run_found(seek(ix, lim__key_bytes(&k), LIM__SEEK_LE, &key, &value), stream, &key, &value, out);
    if (err == -ENOENT || (err == 0 && out->first + out->count <= seq))
        err = run_found(seek(ix, lim__key_bytes(&k), LIM__SEEK_GT, &key, &value), stream, &key, &value, out);
    lim__buf_fini(&key), lim__buf_fini(&value);
    if (err == -EBADMSG)
        lim__index_damage(ix);
    return err == -EBADMSG ? -EAGAIN : err;
}

/* The run with the items from..to-1 of this one, by number. */
static lim__run run_part(const lim__run *run, uint64_t from, uint64_t to)
{
    lim__run part = {
        .stream = run->stream, .first = from, .segment = run->segment, .wall_ns = run->wall_ns, .count = to - from
    };
    if (run->segment)
        memcpy(part.items, run->items + (from - run->first), part.count * sizeof part.items[0]);
    return part;
}

static bool run_takes(const lim__run *run, uint64_t seq, uint64_t segment, uint64_t wall_ns)
{
    return run->count > 0 && run->segment == segment && run->first + run->count == seq && run->count < LIM__RUN_MAX &&
           wall_ns >= run->wall_ns && (wall_ns - run->wall_ns) / LIM__WALL_UNIT <= UINT32_MAX;
}

static void run_add(lim__run *run, uint64_t at, uint32_t size, uint64_t wall_ns)
{
    run->items[run->count++] =
        (lim__run_item){ (uint32_t)(at / 8), size, (uint32_t)((wall_ns - run->wall_ns) / LIM__WALL_UNIT) };
}

/* ---- segments: what is alive in them ---- */

static void live(lim__ledger *l, lim__segment *s, uint32_t size)
{
    s->stats.live_records++;
    s->stats.live_bytes += LIM__OP_HEAD + size;
    lim__segment_touch(l->segments, s);
    l->mark.records++;
    l->mark.live_bytes += LIM__OP_HEAD + size;
}

static void dead(lim__ledger *l, const lim__run *run, uint64_t from, uint64_t to)
{
    lim__segment *s = run->segment ? lim__segment_find(l->segments, run->segment) : NULL;
    l->mark.records -= to - from;
    for (uint64_t seq = from; run->segment && seq < to; seq++) {
        uint64_t bytes = (uint64_t)LIM__OP_HEAD + run->items[seq - run->first].size;
        l->mark.live_bytes -= bytes;
        if (s) {
            s->stats.live_records--;
            s->stats.live_bytes -= bytes;
            lim__segment_touch(l->segments, s);
        }
    }
}

/* ---- streams ---- */

void lim__ledger_init(lim__ledger *l, lim__index *ix, lim__segments *segments, uint64_t seed)
{
    *l = (lim__ledger){ .ix = ix, .segments = segments };
    lim__map_init(&l->streams, seed);
}

static void forget_streams(lim__ledger *l)
{
    uint64_t id;
    void *st;
    for (size_t pos = 0; lim__map_next(&l->streams, &pos, &id, &st);)
        free(st);
    lim__map_clear(&l->streams);
    l->touched = NULL;
}

void lim__ledger_fini(lim__ledger *l)
{
    if (!l->ix)
        return;
    forget_streams(l);
    lim__map_fini(&l->streams);
    free(l->listed);
}

void lim__ledger_clear(lim__ledger *l)
{
    forget_streams(l);
    l->mark = (lim__mark){ .store_id = l->mark.store_id };
    l->failed = false;
    l->lost = 0;
    l->pages.id = 0;
    l->pages.whole = false;
    l->listed_count = 0;
}

static int stream_read(lim__ledger *l, lim__stream *st)
{
    lim__buf value = { 0 };
    lim__key k = lim__key_stream(st->id);
    int err = lim__index_w_get(l->ix, lim__key_bytes(&k), &value);
    if (err == 0 && lim__buf_len(&value) != sizeof st->info) {
        lim__index_damage(l->ix);
        err = -EAGAIN;
    }
    if (err == 0)
        memcpy(&st->info, lim__buf_bytes(&value).ptr, sizeof st->info);
    lim__buf_fini(&value);
    return err;
}

static void touch(lim__ledger *l, lim__stream *st)
{
    if (st->touched)
        return;
    st->touched = true;
    st->next_touched = l->touched;
    l->touched = st;
}

lim__stream *lim__ledger_stream(lim__ledger *l, uint64_t id)
{
    lim__stream *st = lim__map_get(&l->streams, id);
    if (st) {
        touch(l, st);
        return st;
    }
    st = malloc(sizeof *st);
    if (!st) {
        l->failed = true;
        return NULL;
    }
    st->id = id;
    st->info = (lim__stream_info){ .next = 0 };
    st->touched = st->changed = st->run_known = st->run_changed = false;
    st->run.count = 0;
    int err = stream_read(l, st);
    if ((err != 0 && err != -ENOENT) || lim__map_put(&l->streams, id, st) != LIM_OK) {
        l->failed = true;
        free(st);
        return NULL;
    }
    st->assigned = st->info.next ? st->info.next : 1;
    touch(l, st);
    return st;
}

static void settle_run(lim__ledger *l, lim__stream *st)
{
    if (st->run_changed)
        run_put(l, &st->run);
    st->run_changed = false;
}

/* The last run, to be added to. */
static void know_run(lim__ledger *l, lim__stream *st)
{
    if (st->run_known)
        return;
    st->run.count = 0;
    if (st->info.count > 0) {
        int err = lim__run_find(lim__index_w_seek, l->ix, st->id, st->info.next - 1, &st->run);
        if (err == -ENOENT || st->run.segment == 0)
            st->run.count = 0;
        if (err != 0 && err != -ENOENT)
            l->failed = true;
    }
    st->run_known = true;
}

/* ---- records ---- */

static void copy(lim__ledger *l, lim__segment *s, uint64_t at, const lim__op *op);

static void append(lim__ledger *l, lim__segment *s, uint64_t at, const lim__op *op)
{
    lim__stream *st = lim__ledger_stream(l, op->stream);
    if (!st)
        return;
    if (op->seq < st->info.next && !l->remaking) { /* the log batch had to be written again, in another place */
        copy(l, s, at, op);
        return;
    }
    uint32_t size = op->key_len + op->data_len;
    know_run(l, st);
    if (!run_takes(&st->run, op->seq, s->id, op->wall_ns)) {
        settle_run(l, st);
        st->run = (lim__run){ .stream = st->id, .first = op->seq, .segment = s->id, .wall_ns = op->wall_ns };
    }
    run_add(&st->run, at, size, op->wall_ns);
    st->run_changed = st->changed = true;
    if (st->info.count++ == 0) {
        st->info.first = op->seq;
        st->info.first_ns = op->wall_ns;
    }
    st->info.next = op->seq + 1;
    st->info.bytes += size;
    st->info.last_ns = op->wall_ns;
    live(l, s, size);
}

static void remember_key(lim__ledger *l, lim__segment *s, const lim__op *op)
{
    if (op->key_len == 0 || op->key_len > LIM__STREAM_KEY_MAX)
        return;
    lim__key k = lim__key_keyed(op->stream, lim__op_key(op), op->seq);
    lim__index_put(l->ix, lim__key_bytes(&k), lim__bytes("", 0));
    s->stats.keyed++;
    lim__segment_touch(l->segments, s);
}

/* Takes the numbers from..to-1 out of a run. */
static void cut_run(lim__ledger *l, lim__stream *st, const lim__run *run, uint64_t from, uint64_t to)
{
    uint64_t end = run->first + run->count;
    dead(l, run, from, to);
    run_delete(l, run);
    if (from > run->first) {
        lim__run head = run_part(run, run->first, from);
        run_put(l, &head);
    }
    if (to < end) {
        lim__run tail = run_part(run, to, end);
        run_put(l, &tail);
    }
    st->run_known = false;
}

/* first and first_ns, after records before `from` went. */
static void find_first(lim__ledger *l, lim__stream *st, uint64_t from)
{
    lim__run run;
    int err = st->info.count ? lim__run_find(lim__index_w_seek, l->ix, st->id, from, &run) : -ENOENT;
    if (err == 0) {
        st->info.first = run.first > from ? run.first : from;
        uint64_t after = run.segment ? run.items[st->info.first - run.first].after : 0;
        st->info.first_ns = run.wall_ns + after * LIM__WALL_UNIT;
    } else if (err == -ENOENT) {
        st->info.first = st->info.next;
        st->info.first_ns = 0;
    } else {
        l->failed = true;
    }
}

static void forget(lim__ledger *l, lim__stream *st, uint64_t from, uint64_t to)
{
    lim__run run;
    settle_run(l, st);
    for (uint64_t seq = from; seq < to;) {
        int err = lim__run_find(lim__index_w_seek, l->ix, st->id, seq, &run);
        if (err != 0 && err != -ENOENT)
            l->failed = true;
        if (err != 0 || run.first >= to)
            break;
        uint64_t end = run.first + run.count, a = run.first > seq ? run.first : seq, b = end < to ? end : to;
        cut_run(l, st, &run, a, b);
        st->info.count -= b - a;
        for (uint64_t i = a; run.segment && i < b; i++)
            st->info.bytes -= run.items[i - run.first].size;
        st->changed = true;
        seq = b;
    }
    if (from <= st->info.first && to > st->info.first)
        find_first(l, st, to);
}

/* The record was here before; or (its old place is gone, the log is being read from its beginning) it was not. */
static void copy(lim__ledger *l, lim__segment *s, uint64_t at, const lim__op *op)
{
    lim__run run;
    lim__stream *st = lim__ledger_stream(l, op->stream);
    if (!st)
        return;
    uint32_t size = op->key_len + op->data_len;
    settle_run(l, st);
    int err = lim__run_find(lim__index_w_seek, l->ix, st->id, op->seq, &run);
    if (err == 0 && run.first <= op->seq) {
        cut_run(l, st, &run, op->seq, op->seq + 1);
        st->info.bytes += run.segment ? 0 : size;
    } else if (err == 0 || err == -ENOENT) {
        bool is_first = st->info.count == 0 || op->seq < st->info.first;
        st->info.count++;
        st->info.bytes += size;
        st->info.next = op->seq < st->info.next ? st->info.next : op->seq + 1;
        st->info.first = is_first ? op->seq : st->info.first;
        st->info.first_ns = is_first ? op->wall_ns : st->info.first_ns;
        st->info.last_ns = op->wall_ns > st->info.last_ns ? op->wall_ns : st->info.last_ns;
    } else {
        l->failed = true;
        return;
    }
    err = op->seq > 1 ? lim__run_find(lim__index_w_seek, l->ix, st->id, op->seq - 1, &run) : -ENOENT;
    if (err != 0 || !run_takes(&run, op->seq, s->id, op->wall_ns))
        run = (lim__run){ .stream = st->id, .first = op->seq, .segment = s->id, .wall_ns = op->wall_ns };
    run_add(&run, at, size, op->wall_ns);
    run_put(l, &run);
    live(l, s, size);
    st->changed = true;
    st->run_known = false;
}

static void lose(lim__ledger *l, lim__stream *st, uint64_t from, uint64_t to, uint64_t wall_ns)
{
    lim__run lost = { .stream = st->id, .first = from, .segment = 0, .wall_ns = wall_ns, .count = to - from };
    run_put(l, &lost);
    bool is_first = st->info.count == 0 || from < st->info.first;
    st->info.count += to - from;
    st->info.next = to > st->info.next ? to : st->info.next;
    st->info.first = is_first ? from : st->info.first;
    st->info.first_ns = is_first ? wall_ns : st->info.first_ns;
    st->info.last_ns = wall_ns > st->info.last_ns ? wall_ns : st->info.last_ns;
    st->changed = true;
    st->run_known = false;
    l->mark.records += to - from;
    l->lost += to - from;
}

/* The numbers from..to-1 that no run has are lost. */
static void lose_gaps(lim__ledger *l, lim__stream *st, uint64_t from, uint64_t to, uint64_t wall_ns)
{
    lim__run run;
    settle_run(l, st);
    while (from < to) {
        int err = lim__run_find(lim__index_w_seek, l->ix, st->id, from, &run);
        if (err != 0 && err != -ENOENT) {
            l->failed = true;
            return;
        }
        uint64_t gap_end = err == 0 && run.first < to ? run.first : to;
        if (gap_end > from)
            lose(l, st, from, gap_end, wall_ns);
        from = err == 0 && run.first < to ? run.first + run.count : to;
    }
}

void lim__ledger_missing(lim__ledger *l, const lim__op *total, uint64_t wall_ns)
{
    lim__stream *st = lim__ledger_stream(l, total->stream);
    if (st)
        lose_gaps(l, st, total->seq, total->seq + total->wall_ns, wall_ns);
}

/* ---- checkpoints ---- */

/* A stream as a checkpoint has it. Its records are those that the log has: some that it had then may have been copied
 * since, to a place that comes only later, and their first place is gone. */
static void page_stream(lim__ledger *l, uint64_t id, const lim__stream_info *info)
{
    lim__stream *st = lim__ledger_stream(l, id);
    if (!st)
        return;
    forget(l, st, 0, info->first);
    settle_run(l, st);
    st->info.next = info->next;
    st->info.last_ns = info->last_ns;
    if (st->info.count == 0)
        st->info.first = info->next;
    st->changed = true;
    st->run_known = false;
}

/* Deletes the rows behind `from` up to `to` (empty: all). Streams are never deleted. */
static void delete_rows(lim__ledger *l, lim_bytes from, lim_bytes to)
{
    lim__buf key = { 0 };
    lim__key at = { .len = 0 };
    key_add(&at, from.len ? from.ptr : "R", from.len ? from.len : 1);
    int err;
    while ((err = lim__index_w_seek(l->ix, lim__key_bytes(&at), LIM__SEEK_GT, &key, NULL)) == 0) {
        lim_bytes k = lim__buf_bytes(&key);
        if (*(const char *)k.ptr != 'R' || (to.len > 0 && lim__key_cmp(k, to) > 0))
            break;
        lim__index_put(l->ix, k, lim__bytes(NULL, 0));
        at.len = 0;
        key_add(&at, k.ptr, k.len);
    }
    if (err != 0 && err != -ENOENT)
        l->failed = true;
    lim__buf_fini(&key);
}

static void page_entries(lim__ledger *l, const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 6) {
        uint16_t key_len;
        uint32_t value_len;
        memcpy(&key_len, p, 2);
        memcpy(&value_len, p + 2, 4);
        lim_bytes key = lim__bytes(p + 6, key_len), value = lim__bytes(p + 6 + key_len, value_len);
        p += 6 + (size_t)key_len + value_len;
        LIM_ASSERT(p <= end && lim__key_in_page(key));
        if (*(const char *)key.ptr == 'R') {
            lim__index_put(l->ix, key, value);
        } else if (value.len == sizeof(lim__stream_info)) {
            lim__stream_info info;
            memcpy(&info, value.ptr, sizeof info);
            page_stream(l, lim__key_number(key, 1), &info);
        }
    }
}

static void page_begin(lim__ledger *l, const lim__op *op)
{
    l->pages.id = op->seq;
    l->pages.bytes = 0;
    l->pages.covered.len = 0;
    l->pages.whole = false;
}

static void page(lim__ledger *l, const lim__op *op)
{
    const uint8_t *data = lim__op_data(op).ptr;
    uint16_t to_len;
    memcpy(&to_len, data, 2);
    lim_bytes from = lim__op_key(op), to = lim__bytes(data + 2, to_len);
    if (l->remaking) {
        delete_rows(l, from, to);
        page_entries(l, data + 2 + to_len, data + op->data_len);
    }
    bool continues =
        l->pages.id == op->seq && !l->pages.whole && lim__bytes_eq(lim__key_bytes(&l->pages.covered), from);
    l->pages.id = continues ? op->seq : 0;
    l->pages.covered.len = 0;
    key_add(&l->pages.covered, to.ptr, to.len);
    l->pages.whole = to_len == 0;
    l->pages.bytes += op->data_len;
}

static void list_segments(lim__ledger *l, lim_bytes ids)
{
    uint64_t *listed = realloc(l->listed, ids.len ? ids.len : 1);
    if (!listed) {
        l->failed = true;
        return;
    }
    memcpy(listed, ids.ptr, ids.len);
    l->listed = listed;
    l->listed_count = ids.len / sizeof *listed;
}

static void page_end(lim__ledger *l, const lim__op *op)
{
    if (l->pages.id == op->seq && l->pages.whole && l->mark.checkpoint != op->seq) {
        if (l->remaking)
            list_segments(l, lim__op_data(op));
        l->mark.older = l->mark.checkpoint;
        l->mark.checkpoint = op->seq;
        l->mark.checkpoint_bytes = l->pages.bytes;
    }
    l->pages.id = 0;
}

/* ---- one op ---- */

static void trim(lim__ledger *l, const lim__op *op, bool one)
{
    lim__stream *st = lim__ledger_stream(l, op->stream);
    if (st)
        forget(l, st, one ? op->seq : 0, one ? op->seq + 1 : op->seq);
}

static void drop(lim__ledger *l, uint64_t id)
{
    lim__segment *s = lim__segment_find(l->segments, id);
    for (size_t i = 0; i < l->listed_count; i++)
        l->listed[i] = l->listed[i] == id ? 0 : l->listed[i];
    if (s) {
        s->dropped = true;
        lim__segment_touch(l->segments, s);
    }
}

void lim__ledger_apply(lim__ledger *l, lim__segment *s, uint64_t at, const lim__op *op)
{
    lim__key k;
    switch ((lim__op_kind)op->kind) {
    case LIM__OP_APPEND:
        append(l, s, at, op);
        remember_key(l, s, op);
        break;
    case LIM__OP_COPY:
        copy(l, s, at, op);
        remember_key(l, s, op);
        break;
    case LIM__OP_PUT:
    case LIM__OP_DELETE:
        k = lim__key_row(lim__op_key(op));
        lim__index_put(l->ix, lim__key_bytes(&k), op->kind == LIM__OP_PUT ? lim__op_data(op) : lim__bytes(NULL, 0));
        break;
    case LIM__OP_TRIM:
        trim(l, op, false);
        break;
    case LIM__OP_ERASE:
        trim(l, op, true);
        s->stats.erases++;
        lim__segment_touch(l->segments, s);
        break;
    case LIM__OP_DROP:
        drop(l, op->seq);
        break;
    case LIM__OP_PAGE_BEGIN:
        page_begin(l, op);
        break;
    case LIM__OP_PAGE:
        page(l, op);
        break;
    case LIM__OP_PAGE_END:
        page_end(l, op);
        break;
    case LIM__OP_TOTAL:
    case LIM__OP_KINDS:
        break;
    }
}

/* ---- whole batches ---- */

static void put_segments(lim__ledger *l)
{
    lim__segment *s;
    while ((s = lim__segment_take_changed(l->segments)) != NULL) {
        lim__key k = lim__key_segment(s->id);
        lim_bytes stats = lim__bytes(&s->stats, sizeof s->stats);
        lim__index_put(l->ix, lim__key_bytes(&k), s->dropped ? lim__bytes(NULL, 0) : stats);
    }
}

static void put_streams(lim__ledger *l)
{
    for (lim__stream *st = l->touched; st; st = st->next_touched) {
        lim__key k = lim__key_stream(st->id);
        settle_run(l, st);
        if (st->changed)
            lim__index_put(l->ix, lim__key_bytes(&k), lim__bytes(&st->info, sizeof st->info));
        st->changed = st->touched = false;
        st->assigned = st->info.next ? st->info.next : 1;
    }
    l->touched = NULL;
    if (l->streams.count > STREAMS_MAX)
        forget_streams(l);
}

void lim__ledger_commit(lim__ledger *l, uint64_t lsn, lim__segment *s, uint64_t at, uint64_t end, uint64_t wall_ns)
{
    lim__key k = lim__key_mark();
    if (s->stats.first_lsn == 0)
        s->stats.first_lsn = lsn;
    s->stats.last_lsn = lsn;
    s->stats.end = end;
    lim__segment_touch(l->segments, s);
    l->mark.lsn = lsn;
    l->mark.segment = s->id;
    l->mark.at = at;
    l->mark.end = end;
    l->mark.wall_ns = wall_ns;
    put_streams(l);
    put_segments(l);
    lim__index_put(l->ix, lim__key_bytes(&k), lim__bytes(&l->mark, sizeof l->mark));
    if (l->failed)
        lim__index_damage(l->ix);
    lim__index_commit(l->ix, lsn);
    lim__segments_show(l->segments, s, end);
}

void lim__ledger_abandon(lim__ledger *l)
{
    for (lim__stream *st = l->touched; st; st = st->next_touched) {
        LIM_ASSERT(!st->changed && !st->run_changed);
        st->assigned = st->info.next ? st->info.next : 1;
        st->touched = false;
    }
    l->touched = NULL;
}

bool lim__ledger_alive(lim__ledger *l, uint64_t stream, uint64_t seq, uint64_t segment, uint64_t at)
{
    lim__run run;
    int err = lim__run_find(lim__index_w_seek, l->ix, stream, seq, &run);
    if (err != 0 && err != -ENOENT)
        l->failed = true;
    return err == 0 && run.first <= seq && run.segment == segment && run.items[seq - run.first].at8 == at / 8;
}

/* ---- what the base has kept ---- */

static bool list_missing(lim__ledger *l, uint64_t id)
{
    uint64_t *listed = realloc(l->listed, (l->listed_count + 1) * sizeof *listed);
    if (!listed)
        return false;
    l->listed = listed;
    listed[l->listed_count++] = id;
    return true;
}

static int load_segment(lim__ledger *l, uint64_t id, const lim__buf *value)
{
    lim__segment *s = lim__segment_find(l->segments, id);
    if (!s)
        return list_missing(l, id) ? 0 : -ENOMEM;
    if (lim__buf_len(value) != sizeof s->stats)
        return -EBADMSG;
    memcpy(&s->stats, lim__buf_bytes(value).ptr, sizeof s->stats);
    s->past_cache = s->stats.suspect != 0;
    return 0;
}

static int load_segments(lim__ledger *l)
{
    lim__buf key = { 0 }, value = { 0 };
    lim__key at = lim__key_segment(0);
    int err;
    l->listed_count = 0;
    while ((err = lim__index_w_seek(l->ix, lim__key_bytes(&at), LIM__SEEK_GT, &key, &value)) == 0) {
        lim_bytes k = lim__buf_bytes(&key);
        if (*(const char *)k.ptr != 'G')
            break;
        uint64_t id = lim__key_number(k, 1);
        err = load_segment(l, id, &value);
        if (err != 0)
            break;
        at = lim__key_segment(id);
    }
    lim__buf_fini(&key), lim__buf_fini(&value);
    return err == -ENOENT ? 0 : err;
}

int lim__ledger_load(lim__ledger *l)
{
    lim__buf value = { 0 };
    lim__key k = lim__key_mark();
    int err = lim__index_w_get(l->ix, lim__key_bytes(&k), &value);
    if (err == 0 && lim__buf_len(&value) != sizeof l->mark)
        err = -EBADMSG;
    if (err == 0)
        memcpy(&l->mark, lim__buf_bytes(&value).ptr, sizeof l->mark);
    lim__buf_fini(&value);
    return err ? err : load_segments(l);
}
