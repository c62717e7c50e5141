/* SPDX-License-Identifier: Apache-2.0
 * lmdb_check.c - is this LMDB file whole? Read page by page, without LMDB, which would believe what it finds.
 *
 *   page 0, 1   the two metas: the one with the higher transaction number counts
 *   its trees   of free pages, and the table. A page has a head of 16 bytes, then places of nodes, two bytes each; a
 * node of a branch has a key and a child, one of a leaf a key and a value, or the number of the pages that have it
 *
 * What is checked: every page that can be reached is reached once, lies in the file, has the right kind for its level,
 * and its nodes lie in it; keys ascend, and those of a child lie between those that its branch says; the counts in the
 * meta are right; no page that is listed as free is in use. And each value has its checksum, and all of them together
 * the sum that was kept with them. So there is no bit that matters and is not looked at; what is not looked at, LMDB
 * does not either.
 *
 * The layout is that of LMDB 0.9 on 64-bit machines, whose data version is 1; a file with another one is damaged to us.
 */
#include "store/index_lmdb.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/sorted.h"

enum {
    PAGE = 4096,
    PAGE_HEAD = 16,
    NODE_HEAD = 8,
    BRANCH = 1,
    LEAF = 2,
    OVERFLOW = 4,
    META = 8,
    IN_USE = BRANCH | LEAF | OVERFLOW | META | 0x20 /* LEAF2 */ | 0x40 /* SUBP */,
    BIG = 1, /* of a leaf's node: its value is on pages of its own */
    KEY_MAX = 511,
    DEPTH_MAX = 32,
};
#define MAGIC   0xBEEFC0DEu
#define NO_PAGE UINT64_MAX

typedef struct tree {
    uint32_t pad; /* of the tree of free pages: the size of a page */
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
} tree;
static_assert(sizeof(tree) == 48, "layout");

typedef struct meta {
    uint32_t magic, version;
    uint64_t address, map_size;
    tree trees[2];
    uint64_t last_page, txn;
} meta;
static_assert(sizeof(meta) == 136, "layout");

typedef struct check {
    lim__os *os;
    int file;
    meta meta;
    uint8_t *used; /* a bit for each page */
    tree seen;
    bool is_table;
    uint8_t last_key[KEY_MAX + 1]; /* of the leaves so far */
    size_t last_key_len;
    bool any_key;
    lim__lmdb_sum sum, kept;
    bool has_kept;
    int error; /* of reading */
} check;

/* ---- pages ---- */

static bool read_pages(check *c, uint64_t number, uint64_t count, uint8_t *to)
{
    long n = c->os->file_read(c->os, c->file, to, (size_t)(count * PAGE), number * PAGE);
    if (n < 0)
        c->error = (int)n;
    return n == (long)(count * PAGE);
}

/* Not twice, not the metas, not beyond the last page. */
static bool claim(check *c, uint64_t number, uint64_t count)
{
    if (number < 2 || count == 0 || number > c->meta.last_page || count > c->meta.last_page - number + 1)
        return false;
    for (uint64_t i = number; i < number + count; i++) {
        if (c->used[i / 8] >> (i % 8) & 1)
            return false;
        c->used[i / 8] |= (uint8_t)(1u << (i % 8));
    }
    return true;
}

typedef struct node {
    uint16_t flags;
    lim_bytes key;
    uint64_t child;    /* of a branch */
    uint32_t data_len; /* of a leaf */
    const uint8_t *data;
} node;

typedef struct page {
    uint8_t bytes[PAGE];
    uint16_t flags;
    uint32_t count;
} page;

static uint16_t u16_at(const uint8_t *p)
{
    uint16_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static uint64_t u64_at(const uint8_t *p)
{
    uint64_t n;
    memcpy(&n, p, sizeof n);
    return n;
}

static bool read_page(check *c, uint64_t number, page *p)
{
    if (!claim(c, number, 1) || !read_pages(c, number, 1, p->bytes) || u64_at(p->bytes) != number)
        return false;
    p->flags = u16_at(p->bytes + 10) & IN_USE;
    uint16_t lower = u16_at(p->bytes + 12), upper = u16_at(p->bytes + 14);
    if (u16_at(p->bytes + 10) != p->flags || lower < PAGE_HEAD || lower % 2 != 0 || lower > upper || upper > PAGE)
        return false;
    p->count = (lower - PAGE_HEAD) / 2u;
    return true;
}

static bool read_node(const page *p, uint32_t i, node *out)
{
    uint32_t at = u16_at(p->bytes + PAGE_HEAD + 2 * i);
    if (at < u16_at(p->bytes + 14) || at % 2 != 0 || at + NODE_HEAD > PAGE)
        return false;
    const uint8_t *n = p->bytes + at;
    uint16_t low = u16_at(n), high = u16_at(n + 2);
    uint32_t key_len = u16_at(n + 6), room = PAGE - at - NODE_HEAD;
    *out = (node){ .flags = u16_at(n + 4), .key = lim__bytes(n + NODE_HEAD, key_len), .data = n + NODE_HEAD + key_len };
    if (key_len > room || key_len > KEY_MAX)
        return false;
    out->child = low | (uint64_t)high << 16 | (uint64_t)out->flags << 32;
    out->data_len = low | (uint32_t)high << 16;
    if (p->flags == BRANCH)
        return true;
    uint32_t here = out->flags == BIG ? 8 : out->data_len;
    return (out->flags == 0 || out->flags == BIG) && here <= room - key_len;
}

/* ---- values ---- */

static void check_table_entry(check *c, lim_bytes key, lim_bytes stored, bool *good)
{
    uint32_t crc;
    *good = stored.len >= sizeof crc && key.len > 0;
    if (!*good)
        return;
    lim_bytes value = lim__bytes(stored.ptr, stored.len - sizeof crc);
    memcpy(&crc, (const uint8_t *)stored.ptr + value.len, sizeof crc);
    *good = crc == lim__lmdb_crc(key, value);
    if (*good && lim__bytes_eq(key, LIM__LMDB_SUM_KEY)) {
        *good = value.len == sizeof c->kept;
        if (*good)
            memcpy(&c->kept, value.ptr, sizeof c->kept);
        c->has_kept = *good;
        return;
    }
    c->sum.count++;
    c->sum.sum += lim__lmdb_hash(key, stored);
}

/* A list of free pages: how many, then their numbers. They are claimed, so that none is in use or listed twice. */
static void check_free_entry(check *c, lim_bytes key, lim_bytes stored, bool *good)
{
    const uint8_t *list = stored.ptr;
    *good = key.len == 8 && stored.len >= 8 && u64_at(list) <= stored.len / 8 - 1;
    for (uint64_t i = 1; *good && i <= u64_at(list); i++)
        *good = (i == 1 || u64_at(list + 8 * i) < u64_at(list + 8 * (i - 1))) && claim(c, u64_at(list + 8 * i), 1);
}

static bool check_value(check *c, const node *n)
{
    bool good = false;
    void (*entry)(check *, lim_bytes, lim_bytes, bool *) = c->is_table ? check_table_entry : check_free_entry;
    if (n->flags != BIG) {
        entry(c, n->key, lim__bytes(n->data, n->data_len), &good);
        return good;
    }
    uint64_t number = u64_at(n->data), count = ((uint64_t)PAGE_HEAD - 1 + n->data_len) / PAGE + 1;
    if (!claim(c, number, count))
        return false;
    uint8_t *pages = malloc((size_t)(count * PAGE));
    uint32_t said = 0;
    if (pages && read_pages(c, number, count, pages)) {
        memcpy(&said, pages + 12, sizeof said);
        good = u64_at(pages) == number && u16_at(pages + 10) == OVERFLOW && said == count;
        c->seen.overflows += count;
        if (good)
            entry(c, n->key, lim__bytes(pages + PAGE_HEAD, n->data_len), &good);
    }
    c->error = pages ? c->error : -ENOMEM;
    free(pages);
    return good;
}

/* ---- trees ---- */

/* The free tree's keys are numbers of the machine, the table's are bytes. */
static int key_order(const check *c, lim_bytes a, lim_bytes b)
{
    if (c->is_table)
        return lim__key_cmp(a, b);
    uint64_t x = a.len == 8 ? u64_at(a.ptr) : 0, y = b.len == 8 ? u64_at(b.ptr) : 0;
    return (x > y) - (x < y);
}

static bool check_leaf_node(check *c, const node *n, const lim_bytes *from, const lim_bytes *to)
{
    bool behind = !c->any_key || key_order(c, lim__bytes(c->last_key, c->last_key_len), n->key) < 0;
    bool between = (!from || key_order(c, *from, n->key) <= 0) && (!to || key_order(c, n->key, *to) < 0);
    if (!behind || !between)
        return false;
    if (n->key.len > 0)
        memcpy(c->last_key, n->key.ptr, n->key.len);
    c->last_key_len = n->key.len;
    c->any_key = true;
    c->seen.entries++;
    return check_value(c, n);
}

/* A page `level` above the leaves, whose keys lie in from..to (NULL: no bound). */
static bool check_page(check *c, uint64_t number, unsigned level, const lim_bytes *from, const lim_bytes *to)
{
    page *p = malloc(sizeof *p);
    bool good = p && read_page(c, number, p) && p->flags == (level ? BRANCH : LEAF) && p->count >= (level ? 2u : 1u);
    if (good)
        *(level ? &c->seen.branches : &c->seen.leaves) += 1;
    for (uint32_t i = 0; good && i < p->count; i++) {
        node n, next;
        good = read_node(p, i, &n);
        if (good && level == 0) {
            good = check_leaf_node(c, &n, from, to);
            continue;
        }
        bool last = i + 1 == p->count;
        good = good && (last || read_node(p, i + 1, &next)); /* the first key of a branch is not looked at */
        good = good && check_page(c, n.child, level - 1, i ? &n.key : from, last ? to : &next.key);
    }
    c->error = p ? c->error : -ENOMEM;
    free(p);
    return good;
}

static bool check_tree(check *c, const tree *t, bool is_table)
{
    c->is_table = is_table;
    c->any_key = false;
    c->seen = (tree){ 0 };
    if (t->flags != (is_table ? 0 : 8 /* INTEGERKEY */) || t->depth > DEPTH_MAX ||
        (t->depth == 0) != (t->root == NO_PAGE))
        return false;
    if (t->depth > 0 && !check_page(c, t->root, t->depth - 1u, NULL, NULL))
        return false;
    return c->seen.branches == t->branches && c->seen.leaves == t->leaves && c->seen.overflows == t->overflows &&
           c->seen.entries == t->entries;
}

/* ---- the file ---- */

static bool read_meta(check *c, uint64_t number, meta *out)
{
    uint8_t bytes[PAGE];
    if (!read_pages(c, number, 1, bytes))
        return false;
    memcpy(out, bytes + PAGE_HEAD, sizeof *out);
    return u64_at(bytes) == number && u16_at(bytes + 10) == META && out->magic == MAGIC && out->version == 1 &&
           out->address == 0 && out->trees[0].pad == PAGE && out->trees[1].pad == 0 &&
           ((out->txn & 1) == number % 2 || out->txn == 0);
}

static bool check_meta(check *c, int64_t size)
{
    meta metas[2];
    if (!read_meta(c, 0, &metas[0]))
        return false;
    bool second = read_meta(c, 1, &metas[1]);
    if (!second)
        return false;
    int newer = metas[1].txn > metas[0].txn;
    c->meta = metas[newer];
    return metas[newer].txn - metas[!newer].txn <= 1 && c->meta.last_page < (uint64_t)size / PAGE;
}

static bool check_all(check *c, int64_t size)
{
    if (!check_meta(c, size))
        return false;
    c->used = calloc(1, (size_t)(c->meta.last_page / 8 + 1));
    if (!c->used) {
        c->error = -ENOMEM;
        return false;
    }
    if (!check_tree(c, &c->meta.trees[1], true) || !check_tree(c, &c->meta.trees[0], false))
        return false;
    return c->has_kept ? c->kept.count == c->sum.count && c->kept.sum == c->sum.sum : c->sum.count == 0;
}

int lim__lmdb_check(lim__os *os, const char *path)
{
    check c = { .os = os };
    c.file = os->file_open(os, path, 0);
    if (c.file < 0)
        return c.file;
    int64_t size = os->file_size(os, c.file);
    bool good = size > 0 && check_all(&c, size);
    os->file_close(os, c.file);
    free(c.used);
    if (good)
        return 0;
    return c.error ? c.error : size == 0 ? -ENOENT : -EBADMSG;
}
