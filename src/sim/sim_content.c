/* SPDX-License-Identifier: Apache-2.0
 * sim_content.c - the bytes of one simulated file under the caches above them.
 *
 *   reads through the page cache --> lies --not there--.
 *   DIRECT reads ------------------------------------------> pages = the platter + ops, all of them, in order
 *                                                                     |
 *   a page changes for the first time since the last sync:  before <--'  keeps what the platter has
 *
 *   sync:        the platter is as `pages` is: before and ops are forgotten
 *   power loss:  pages become before; of each op some sectors are written after all; before, ops and lies are forgotten
 *   failed sync: the same, except that sizes are kept, and that the page cache keeps, as a lie, its view of each page
 *                that was last written through it, if the platter now has something else
 *
 * A write is remembered in whole sectors, each as it was when the write had been done: a drive writes sectors as a
 * whole, so the last bytes of a sector cannot survive without the first ones that were in the cache before them. Which
 * version of a sector survives is drawn: of two writes the later may, the earlier, or none. Often a whole write
 * survives or none of it: a draw for each sector alone would never leave a long one intact.
 *
 * How long the file is, is drawn, too: an extension survives, or not, or up to some sector; what was written beyond the
 * end is gone, what is within it and was not written is zeros.
 *
 * A lie lasts until the page is written again: through the cache, the whole page becomes dirty as the cache has it, and
 * another sync may write it; DIRECT, the cache forgets it. A later sync alone writes nothing and succeeds.
 *
 * Pages are 4 KiB; one that is not there is a hole. One that holds only zeros, which is what segments are filled with
 * before their use, costs no memory. Every cost is by bytes written, but for truncation, which looks at every page.
 *
 * Invariants (lim__sim_content_check):
 *   C1  without ops nothing is in before, and size = size_before.
 *   C2  every byte of pages and lies at or past the size is zero, and no page is wholly past it.
 *   C3  a page that lies is in pages, too: it occupies space. */
#include "sim/sim_content.h"

#include <stdlib.h>

enum { PAGE = 4096 };
struct page {
    uint8_t bytes[PAGE];
};
static struct page zeros;    /* stands for every page of zeros; never written */
static struct page was_hole; /* in before: the platter has none */

enum op_kind { OP_WRITE = 1, OP_TRUNCATE };
enum op_way { THROUGH_CACHE = 1, PAST_CACHE };
struct lim__sim_op {
    enum op_kind kind;
    enum op_way way;
    uint64_t start, len; /* of the sectors; OP_TRUNCATE: none */
    uint64_t end;        /* where the write ended; OP_TRUNCATE: the size */
    uint8_t *data;       /* NULL: zeros */
};

/* ---- pages ---- */

static void put(lim__map *map, uint64_t number, struct page *page)
{
    lim_err err = lim__map_put(map, number, page);
    LIM_ASSERT(err == LIM_OK);
}

static void page_free(struct page *page)
{
    if (page != &zeros && page != &was_hole)
        free(page);
}

static struct page *page_copy(struct page *page)
{
    if (page == &zeros)
        return page;
    struct page *copy = malloc(sizeof *copy);
    LIM_ASSERT(copy);
    memcpy(copy, page, sizeof *copy);
    return copy;
}

/* The page as one that may be written, in a map that has it or not. */
static struct page *own_page(lim__map *map, uint64_t number)
{
    struct page *page = lim__map_get(map, number);
    if (page && page != &zeros)
        return page;
    page = calloc(1, sizeof *page);
    LIM_ASSERT(page);
    put(map, number, page);
    return page;
}

static void map_empty(lim__map *map)
{
    size_t pos = 0;
    uint64_t number;
    void *page;
    while (lim__map_next(map, &pos, &number, &page))
        page_free(page);
    lim__map_fini(map); /* not cleared: one big batch would make every later sync walk a big table */
    lim__map_init(map, 1);
}

void lim__sim_content_init(lim__sim_content *c)
{
    *c = (lim__sim_content){ 0 };
    lim__map_init(&c->pages, 1);
    lim__map_init(&c->before, 1);
    lim__map_init(&c->lies, 1);
}

static void ops_free(struct lim__sim_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(ops[i].data);
    free(ops);
}

static void forget_ops(lim__sim_content *c)
{
    ops_free(c->ops, c->op_count);
    c->ops = NULL;
    c->op_count = c->op_cap = 0;
}

void lim__sim_content_fini(lim__sim_content *c)
{
    forget_ops(c);
    map_empty(&c->pages);
    map_empty(&c->before);
    map_empty(&c->lies);
}

/* Past the size there are only zeros, in a map. */
static void check_end(const lim__map *map, uint64_t size)
{
    uint64_t number;
    void *page;
    for (size_t pos = 0; lim__map_next(map, &pos, &number, &page);) {
        LIM_ASSERT(number * PAGE < size);
        for (uint64_t at = size - number * PAGE; at < PAGE; at++)
            LIM_ASSERT(((struct page *)page)->bytes[at] == 0);
    }
}

void lim__sim_content_check(const lim__sim_content *c)
{
    uint64_t number;
    void *page;
    LIM_ASSERT(c->op_count > 0 || (c->before.count == 0 && c->size == c->size_before)); /* C1 */
    check_end(&c->pages, c->size);                                                      /* C2 */
    check_end(&c->lies, c->size);
    for (size_t pos = 0; lim__map_next(&c->lies, &pos, &number, &page);)
        LIM_ASSERT(lim__map_get(&c->pages, number)); /* C3 */
}

/* ---- changing what the device answers ---- */

/* Before the first change since the last sync: before keeps the page, a copy of it is changed. */
static void touch(lim__sim_content *c, uint64_t number)
{
    if (lim__map_get(&c->before, number))
        return;
    struct page *page = lim__map_get(&c->pages, number);
    put(&c->before, number, page ? page : &was_hole);
    if (page)
        put(&c->pages, number, page_copy(page));
}

static size_t within_page(uint64_t offset, uint64_t left)
{
    uint64_t room = PAGE - offset % PAGE;
    return (size_t)(left < room ? left : room);
}

/* data NULL: zeros. */
static void apply(lim__sim_content *c, const uint8_t *data, uint64_t len, uint64_t offset)
{
    for (uint64_t done = 0, n; done < len; done += n) {
        uint64_t at = offset + done, number = at / PAGE;
        n = within_page(at, len - done);
        touch(c, number);
        if (!data && n == PAGE) {
            page_free(lim__map_get(&c->pages, number));
            put(&c->pages, number, &zeros);
            continue;
        }
        uint8_t *bytes = own_page(&c->pages, number)->bytes + at % PAGE;
        if (data)
            memcpy(bytes, data + done, n);
        else
            memset(bytes, 0, n);
    }
}

/* The numbers of a map's pages from `first` on; malloc'd. */
static uint64_t *numbers_from(const lim__map *map, uint64_t first, size_t *count)
{
    uint64_t *numbers = malloc((map->count + 1) * sizeof *numbers), number;
    void *page;
    LIM_ASSERT(numbers);
    *count = 0;
    for (size_t pos = 0; lim__map_next(map, &pos, &number, &page);) {
        if (number >= first)
            numbers[(*count)++] = number;
    }
    return numbers;
}

/* Removes from a map what is past the size. */
static void trim_map(lim__map *map, uint64_t size)
{
    size_t count;
    uint64_t *numbers = numbers_from(map, (size + PAGE - 1) / PAGE, &count);
    for (size_t i = 0; i < count; i++)
        page_free(lim__map_remove(map, numbers[i]));
    free(numbers);
    struct page *last = size % PAGE ? lim__map_get(map, size / PAGE) : NULL;
    if (last && last != &zeros)
        memset(last->bytes + size % PAGE, 0, PAGE - size % PAGE);
}

static void trim(lim__sim_content *c, uint64_t size)
{
    size_t count;
    uint64_t *numbers = numbers_from(&c->pages, size / PAGE, &count);
    for (size_t i = 0; i < count; i++)
        touch(c, numbers[i]);
    free(numbers);
    trim_map(&c->pages, size);
    trim_map(&c->lies, size);
}

/* ---- reading and writing ---- */

static const struct page *page_seen(const lim__sim_content *c, bool direct, uint64_t number)
{
    const struct page *lie = direct ? NULL : lim__map_get(&c->lies, number);
    const struct page *page = lie ? lie : lim__map_get(&c->pages, number);
    return page ? page : &zeros;
}

void lim__sim_content_read(const lim__sim_content *c, bool direct, void *buf, size_t len, uint64_t offset)
{
    for (size_t done = 0, n; done < len; done += n) {
        uint64_t at = offset + done;
        n = within_page(at, len - done);
        memcpy((uint8_t *)buf + done, page_seen(c, direct, at / PAGE)->bytes + at % PAGE, n);
    }
}

size_t lim__sim_content_fit(const lim__sim_content *c, size_t len, uint64_t offset, uint64_t room_pages)
{
    size_t fits = 0;
    while (fits < len) {
        if (!lim__map_get(&c->pages, (offset + fits) / PAGE) && room_pages-- == 0)
            break;
        fits += within_page(offset + fits, len - fits);
    }
    return fits;
}

static bool all_zero(const uint8_t *data, uint64_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, (size_t)len - 1) == 0);
}

static struct lim__sim_op *op_push(lim__sim_content *c)
{
    if (c->op_count == c->op_cap) {
        c->op_cap = c->op_cap ? c->op_cap * 2 : 16;
        c->ops = realloc(c->ops, c->op_cap * sizeof *c->ops);
        LIM_ASSERT(c->ops);
    }
    struct lim__sim_op *op = &c->ops[c->op_count++];
    *op = (struct lim__sim_op){ 0 };
    return op;
}

/* Applies it and remembers it, in whole sectors. */
static void write_through(lim__sim_content *c, enum op_way way, const void *data, size_t len, uint64_t offset)
{
    struct lim__sim_op *op = op_push(c);
    op->kind = OP_WRITE;
    op->way = way;
    op->end = offset + len;
    op->start = offset - offset % LIM__SIM_SECTOR;
    op->len = (op->end + LIM__SIM_SECTOR - 1) / LIM__SIM_SECTOR * LIM__SIM_SECTOR - op->start;
    apply(c, all_zero(data, len) ? NULL : data, len, offset);
    c->size = op->end > c->size ? op->end : c->size;
    op->data = malloc((size_t)op->len);
    LIM_ASSERT(op->data);
    lim__sim_content_read(c, true, op->data, (size_t)op->len, op->start);
    if (all_zero(op->data, op->len)) {
        free(op->data);
        op->data = NULL;
    }
}

/* What the cache says about a page, when it is written again. */
static void end_lie(lim__sim_content *c, enum op_way way, uint64_t number)
{
    struct page *lie = lim__map_remove(&c->lies, number);
    if (lie && way == THROUGH_CACHE) {
        LIM_ASSERT(number * PAGE < c->size);
        write_through(c, way, lie->bytes, within_page(number * PAGE, c->size - number * PAGE), number * PAGE);
    }
    page_free(lie);
}

void lim__sim_content_write(lim__sim_content *c, bool direct, const void *data, size_t len, uint64_t offset)
{
    enum op_way way = direct ? PAST_CACHE : THROUGH_CACHE;
    if (len == 0)
        return;
    for (uint64_t number = offset / PAGE; c->lies.count > 0 && number <= (offset + len - 1) / PAGE; number++)
        end_lie(c, way, number);
    write_through(c, way, data, len, offset);
}

void lim__sim_content_truncate(lim__sim_content *c, uint64_t size)
{
    struct lim__sim_op *op = op_push(c);
    op->kind = OP_TRUNCATE;
    op->end = size;
    if (size < c->size)
        trim(c, size);
    c->size = size;
}

void lim__sim_content_sync(lim__sim_content *c)
{
    map_empty(&c->before);
    forget_ops(c);
    c->size_before = c->size;
}

/* ---- losing ---- */

/* How the sectors of one write fare. */
struct fortune {
    lim__rng *rng;
    enum { ALL = 1, NONE, SOME } way;
    uint64_t bits, left;
};

static struct fortune fortune_of_write(enum lim__sim_keep keep, lim__rng *rng)
{
    struct fortune f = { .rng = rng };
    if (keep != LIM__SIM_KEEP_DRAWN)
        f.way = keep == LIM__SIM_KEEP_EVERYTHING ? ALL : NONE;
    else
        f.way = (int[]){ ALL, NONE, SOME, SOME }[lim__rng_below(rng, 4)];
    return f;
}

static bool survives(struct fortune *f)
{
    if (f->way != SOME)
        return f->way == ALL;
    if (f->left == 0) {
        f->bits = lim__rng_next(f->rng);
        f->left = 64;
    }
    return f->bits >> --f->left & 1;
}

/* Where the file ends after an extension from `from` to `to`. */
static uint64_t drawn_end(uint64_t from, uint64_t to, enum lim__sim_keep keep, lim__rng *rng)
{
    if (keep != LIM__SIM_KEEP_DRAWN)
        return keep == LIM__SIM_KEEP_EVERYTHING ? to : from;
    uint64_t draw = lim__rng_below(rng, 4);
    if (draw == 0)
        return from;
    if (draw > 1)
        return to;
    uint64_t end = lim__rng_range(rng, from, to);
    end -= end % LIM__SIM_SECTOR;
    return end > from ? end : from;
}

static void replay_write(lim__sim_content *c, const struct lim__sim_op *op, enum lim__sim_why why,
                         enum lim__sim_keep keep, lim__rng *rng, lim__sim_loss *loss)
{
    struct fortune f = fortune_of_write(keep, rng);
    for (uint64_t done = 0; done < op->len; done += LIM__SIM_SECTOR) {
        bool kept = survives(&f);
        loss->kept += kept;
        loss->lost += !kept;
        if (kept)
            apply(c, op->data ? op->data + done : NULL, LIM__SIM_SECTOR, op->start + done);
    }
    loss->writes++;
    if (op->end <= c->size)
        return;
    c->size = drawn_end(c->size, op->end, why == LIM__SIM_FAILED_SYNC ? LIM__SIM_KEEP_EVERYTHING : keep, rng);
}

static bool truncation_survives(enum lim__sim_why why, enum lim__sim_keep keep, lim__rng *rng)
{
    if (why == LIM__SIM_FAILED_SYNC || keep == LIM__SIM_KEEP_EVERYTHING)
        return true;
    return keep == LIM__SIM_KEEP_DRAWN && lim__rng_below(rng, 2) == 0;
}

static void replay(lim__sim_content *c, const struct lim__sim_op *op, enum lim__sim_why why, enum lim__sim_keep keep,
                   lim__rng *rng, lim__sim_loss *loss)
{
    if (op->kind == OP_WRITE) {
        replay_write(c, op, why, keep, rng, loss);
    } else if (truncation_survives(why, keep, rng)) {
        trim(c, op->end);
        c->size = op->end;
    }
}

/* pages become what the platter has. */
static void restore(lim__sim_content *c)
{
    uint64_t number;
    void *page;
    for (size_t pos = 0; lim__map_next(&c->before, &pos, &number, &page);) {
        page_free(lim__map_remove(&c->pages, number));
        if (page != &was_hole)
            put(&c->pages, number, page);
    }
    lim__map_fini(&c->before);
    lim__map_init(&c->before, 1);
    c->size = c->size_before;
}

/* Before a failed sync takes its toll: the page cache keeps what it has of the pages last written through it. */
static void keep_cached(lim__sim_content *c)
{
    for (size_t i = 0; i < c->op_count; i++) {
        const struct lim__sim_op *op = &c->ops[i];
        uint64_t end = op->kind == OP_WRITE ? op->start + op->len : 0;
        for (uint64_t number = op->start / PAGE; number * PAGE < end; number++) {
            struct page *page = lim__map_get(&c->pages, number);
            page_free(lim__map_remove(&c->lies, number));
            if (page && op->way == THROUGH_CACHE)
                put(&c->lies, number, page_copy(page));
        }
    }
}

/* Afterwards: what the platter has as well is no lie, and where it has nothing, space is taken all the same. */
static void settle_lies(lim__sim_content *c)
{
    size_t count;
    uint64_t *numbers = numbers_from(&c->lies, 0, &count);
    for (size_t i = 0; i < count; i++) {
        const struct page *lie = lim__map_get(&c->lies, numbers[i]);
        if (!lim__map_get(&c->pages, numbers[i]))
            put(&c->pages, numbers[i], &zeros);
        if (memcmp(lie, lim__map_get(&c->pages, numbers[i]), sizeof *lie) == 0)
            page_free(lim__map_remove(&c->lies, numbers[i]));
    }
    free(numbers);
}

lim__sim_loss lim__sim_content_lose(lim__sim_content *c, enum lim__sim_why why, enum lim__sim_keep keep, lim__rng *rng)
{
    lim__sim_loss loss = { 0 };
    if (why == LIM__SIM_POWER_LOSS)
        map_empty(&c->lies);
    if (c->op_count == 0)
        return loss;
    if (why == LIM__SIM_FAILED_SYNC)
        keep_cached(c);
    restore(c);
    for (size_t i = 0; i < c->op_count; i++)
        replay(c, &c->ops[i], why, keep, rng, &loss);
    trim(c, c->size); /* sectors may have survived behind an end that did not */
    if (why == LIM__SIM_FAILED_SYNC)
        settle_lies(c);
    lim__sim_content_sync(c); /* what is left is on the platter */
    lim__sim_content_check(c);
    return loss;
}

void lim__sim_content_scribble(lim__sim_content *c, const void *data, size_t len, uint64_t offset, lim__rng *rng)
{
    struct fortune f = fortune_of_write(LIM__SIM_KEEP_DRAWN, rng);
    if (offset >= c->size)
        return;
    len = len < c->size - offset ? len : (size_t)(c->size - offset);
    if (f.way == ALL) {
        lim__sim_content_write(c, true, data, len, offset);
        return;
    }
    for (size_t done = 0, n; done < len; done += n) {
        n = len - done < LIM__SIM_SECTOR ? len - done : LIM__SIM_SECTOR;
        if (survives(&f))
            lim__sim_content_write(c, true, (const uint8_t *)data + done, n, offset + done);
    }
}

/* ---- rot ---- */

void lim__sim_content_flip(lim__sim_content *c, uint64_t bit)
{
    uint64_t number = bit / 8 / PAGE, at = bit / 8 % PAGE;
    uint8_t mask = (uint8_t)(1u << bit % 8);
    LIM_ASSERT(bit / 8 < c->size);
    page_free(lim__map_remove(&c->lies, number));
    own_page(&c->pages, number)->bytes[at] ^= mask;
    struct page *before = lim__map_get(&c->before, number);
    if (before && before != &was_hole)
        own_page(&c->before, number)->bytes[at] ^= mask;
}
