/* SPDX-License-Identifier: Apache-2.0
 * sim_disk.c - the files of the simulated table: calls, handles, locks, and everything that can go wrong with a disk.
 * Names are in sim_drive.c, bytes in sim_content.c.
 *
 * Every call but file_close is counted and has a fate: to act; to fail by order of the test, before it acts, except
 * that a failed sync has lost what it has lost; or to be the program's last. Then come the faults that the disk's
 * manners draw. Draws come from the drive's own stream; what a call did is a line of the history.
 *
 * The counting is the machine's, not the program's: a test can order a failure before it starts the program that is to
 * meet it while it recovers. */
#include "sim/sim_drive.h"

#include <errno.h>
#include <stdlib.h>

enum { FIRST_HANDLE = 1 << 20 }; /* no socket has such a number: mistaking one for the other is an error at once */

/* ---- calls and their fates ---- */

enum { ACTS = 0, DIES = 1 }; /* else -errno */

static lim__sim_drive *drive_of(const lim__os *host)
{
    return lim__sim_process_of(host)->machine->drive;
}

static int fate_of_call(const lim__sim_process *p)
{
    lim__sim_drive *d = p->machine->drive;
    if (p->life == LIM__SIM_DEAD)
        return -EBADF;
    d->calls++;
    if (d->fail_at_call == 0 || --d->fail_at_call > 0)
        return ACTS;
    if (d->fail_err > 0)
        lim__sim_note(p->sim, "disk of %s: call %llu fails with %d", p->machine->name, (unsigned long long)d->calls,
                      d->fail_err);
    return d->fail_err > 0 ? -d->fail_err : DIES;
}

static int die(lim__sim_process *p)
{
    lim__sim_kill_host(p->sim, &p->os);
    return -EBADF;
}

/* For calls that do nothing when they are the last. */
static int enter(lim__sim_process *p)
{
    int fate = fate_of_call(p);
    return fate == DIES ? die(p) : fate;
}

static bool happens(lim__sim_drive *d, uint32_t permille)
{
    return permille > 0 && lim__rng_chance(&d->rng, permille);
}

static void spend(lim__sim *sim, lim__sim_drive *d, uint64_t min_ns, uint64_t max_ns)
{
    if (max_ns > 0)
        sim->now += lim__rng_range(&d->rng, min_ns, max_ns);
}

static void spend_write(lim__sim_process *p)
{
    const lim__sim_disk *m = &p->machine->drive->manners;
    spend(p->sim, p->machine->drive, m->write_min_ns, m->write_max_ns);
}

static void spend_sync(lim__sim_process *p)
{
    const lim__sim_disk *m = &p->machine->drive->manners;
    spend(p->sim, p->machine->drive, m->sync_min_ns, m->sync_max_ns);
}

/* ---- handles ---- */

static lim__sim_handle *handle_of(const lim__sim_process *p, int file)
{
    int index = file - FIRST_HANDLE;
    if (file < FIRST_HANDLE || index >= p->handle_count || !p->handles[index].node)
        return NULL;
    return &p->handles[index];
}

static int handle_give(lim__sim_process *p, lim__sim_node *n, uint32_t flags)
{
    int index = 0;
    while (index < p->handle_count && p->handles[index].node)
        index++;
    if (index == p->handle_count) {
        p->handle_count = index ? index * 2 : 8;
        p->handles = realloc(p->handles, (size_t)p->handle_count * sizeof *p->handles);
        LIM_ASSERT(p->handles);
        memset(p->handles + index, 0, (size_t)(p->handle_count - index) * sizeof *p->handles);
    }
    p->handles[index] = (lim__sim_handle){ n, flags };
    lim__sim_node_ref(n);
    n->handles++;
    return index + FIRST_HANDLE;
}

static void handle_drop(lim__sim_process *p, int index)
{
    lim__sim_node *n = p->handles[index].node;
    lim__sim_drive *d = p->machine->drive;
    if (n->owner == p && n->owner_handle == index)
        n->owner = NULL;
    n->handles--;
    if (!lim__sim_node_reachable(n))
        d->used -= n->content.pages.count;
    p->handles[index].node = NULL;
    lim__sim_node_unref(n);
}

void lim__sim_drive_drop_process(lim__sim_process *p)
{
    for (int i = 0; i < p->handle_count; i++) {
        if (p->handles[i].node)
            handle_drop(p, i);
    }
    free(p->handles);
    p->handles = NULL;
    p->handle_count = 0;
}

static int open_node(lim__sim_drive *d, const char *path, uint32_t flags, lim__sim_node **out)
{
    char name[LIM__SIM_NAME_MAX + 1];
    lim__sim_node *dir;
    int err = lim__sim_walk(d, path, &dir, name);
    if (err != 0)
        return err;
    *out = *name ? lim__sim_child(dir, name) : dir;
    if (*out && (flags & LIM__FILE_EXCLUSIVE))
        return -EEXIST;
    if (*out)
        return (*out)->kind == LIM__SIM_DIR ? -EISDIR : 0;
    if (!(flags & LIM__FILE_CREATE))
        return -ENOENT;
    *out = lim__sim_create(d, dir, name, LIM__SIM_FILE);
    return 0;
}

static int disk_open(lim__os *os, const char *path, uint32_t flags)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_node *n;
    LIM_ASSERT((flags & ~(uint32_t)LIM__FILE_ALL) == 0);
    LIM_ASSERT(!(flags & LIM__FILE_EXCLUSIVE) || (flags & LIM__FILE_CREATE));
    int err = enter(p);
    if (err == 0)
        err = open_node(p->machine->drive, path, flags, &n);
    if (err != 0)
        return err;
    if (flags & LIM__FILE_CREATE)
        spend_write(p);
    int file = handle_give(p, n, flags);
    lim__sim_note(p->sim, "open %s:%s flags %u: node %llu, %d", p->machine->name, path, flags,
                  (unsigned long long)n->number, file);
    return file;
}

static void disk_close(lim__os *os, int file)
{
    lim__sim_process *p = lim__sim_process_of(os);
    if (file < 0 || p->life == LIM__SIM_DEAD)
        return;
    LIM_ASSERT(handle_of(p, file));
    lim__sim_note(p->sim, "close %s: %d", p->machine->name, file);
    handle_drop(p, file - FIRST_HANDLE);
}

/* ---- bytes ---- */

static void assert_aligned(const lim__sim_handle *h, const void *buf, size_t len, uint64_t offset)
{
    LIM_ASSERT(!(h->flags & LIM__FILE_DIRECT) || ((uintptr_t)buf | len | offset) % LIM__FILE_BLOCK == 0);
}

static void note_bytes(lim__sim_process *p, const char *what, int file, const void *buf, size_t len, uint64_t offset)
{
    lim__sim_note(p->sim, "%s %s: %d %zu bytes at %llu %016llx", what, p->machine->name, file, len,
                  (unsigned long long)offset, (unsigned long long)lim__hash_bytes(lim__bytes(buf, len), 0));
}

static long disk_read(lim__os *os, int file, void *buf, size_t len, uint64_t offset)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    int err = enter(p);
    if (err != 0)
        return err;
    const lim__sim_handle *h = handle_of(p, file);
    if (!h)
        return -EBADF;
    assert_aligned(h, buf, len, offset);
    if (offset > INT64_MAX)
        return -EINVAL;
    uint64_t size = h->node->content.size, left = offset < size ? size - offset : 0;
    size_t n = len < left ? len : (size_t)left;
    if (n > 0 && happens(d, d->manners.read_error_permille)) {
        lim__sim_note(p->sim, "read %s: %d fails", p->machine->name, file);
        return -EIO;
    }
    lim__sim_content_read(&h->node->content, h->flags & LIM__FILE_DIRECT, buf, n, offset);
    note_bytes(p, "read", file, buf, n, offset);
    return (long)n;
}

static uint64_t room_pages(const lim__sim_drive *d)
{
    uint64_t all = d->manners.capacity / LIM__FILE_BLOCK;
    return all > d->used ? all - d->used : 0;
}

/* How much of a write, and the space for it. */
static size_t cut_short(lim__sim_drive *d, const lim__sim_handle *h, size_t len)
{
    size_t unit = h->flags & LIM__FILE_DIRECT ? LIM__FILE_BLOCK : 1;
    if (len <= unit || !happens(d, d->manners.short_write_permille))
        return len;
    return lim__rng_range(&d->rng, 1, len / unit) * unit;
}

/* All of it: the caller has asked for the space. */
static void put_bytes(lim__sim_drive *d, const lim__sim_handle *h, const void *buf, size_t len, uint64_t offset)
{
    lim__sim_content *c = &h->node->content;
    d->used -= c->pages.count;
    lim__sim_content_write(c, h->flags & LIM__FILE_DIRECT, buf, len, offset);
    d->used += c->pages.count;
}

/* Killed inside a write: a first part of it has been copied. */
static long write_and_die(lim__sim_process *p, const lim__sim_handle *h, const void *buf, size_t len, uint64_t offset)
{
    lim__sim_drive *d = p->machine->drive;
    size_t part = lim__rng_range(&d->rng, 0, len / LIM__SIM_SECTOR) * LIM__SIM_SECTOR;
    part = lim__sim_content_fit(&h->node->content, part, offset, room_pages(d));
    put_bytes(d, h, buf, part, offset);
    lim__sim_note(p->sim, "last write of %s: %zu of %zu bytes at %llu", p->machine->name, part, len,
                  (unsigned long long)offset);
    return die(p);
}

static long write_fails(lim__sim_process *p, int file, const void *buf, size_t len, uint64_t offset)
{
    lim__sim_drive *d = p->machine->drive;
    const lim__sim_handle *h = handle_of(p, file);
    lim__sim_content *c = &h->node->content;
    lim__sim_note(p->sim, "write %s: %d %zu bytes at %llu fails", p->machine->name, file, len,
                  (unsigned long long)offset);
    d->used -= c->pages.count;
    if (h->flags & LIM__FILE_DIRECT)
        lim__sim_content_scribble(c, buf, lim__sim_content_fit(c, len, offset, room_pages(d)), offset, &d->rng);
    d->used += c->pages.count;
    return -EIO;
}

static long disk_write(lim__os *os, int file, const void *buf, size_t len, uint64_t offset)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    int fate = fate_of_call(p);
    if (fate < 0)
        return fate;
    const lim__sim_handle *h = handle_of(p, file);
    if (!h || !(h->flags & LIM__FILE_WRITE))
        return fate == DIES ? die(p) : -EBADF;
    assert_aligned(h, buf, len, offset);
    if (fate == DIES)
        return write_and_die(p, h, buf, len, offset);
    if (offset > INT64_MAX)
        return -EINVAL;
    if (len > INT64_MAX - offset)
        return -EFBIG;
    spend_write(p);
    if (happens(d, d->manners.write_error_permille))
        return write_fails(p, file, buf, len, offset);
    size_t n = lim__sim_content_fit(&h->node->content, cut_short(d, h, len), offset, room_pages(d));
    put_bytes(d, h, buf, n, offset);
    note_bytes(p, "write", file, buf, n, offset);
    return n == 0 && len > 0 ? -ENOSPC : (long)n;
}

/* What was unsynced is settled now, for good, and nobody is told how. */
static int sync_fails(lim__sim_process *p, lim__sim_node *n, int err)
{
    lim__sim_drive *d = p->machine->drive;
    d->used -= n->content.pages.count;
    lim__sim_lose_content(p->sim, d, n, LIM__SIM_FAILED_SYNC);
    d->used += n->content.pages.count;
    return err;
}

static int disk_sync(lim__os *os, int file)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    if (p->life == LIM__SIM_DEAD)
        return -EBADF;
    int err = enter(p);
    const lim__sim_handle *h = p->life == LIM__SIM_DEAD ? NULL : handle_of(p, file);
    if (!h)
        return -EBADF;
    spend_sync(p);
    if (err == 0 && happens(d, d->manners.sync_error_permille))
        err = -EIO;
    lim__sim_note(p->sim, "sync %s: %d node %llu, %zu changes%s", p->machine->name, file,
                  (unsigned long long)h->node->number, h->node->content.op_count, err ? ", fails" : "");
    if (err != 0)
        return sync_fails(p, h->node, err);
    lim__sim_content_sync(&h->node->content);
    d->syncs++;
    return 0;
}

static int64_t disk_size(lim__os *os, int file)
{
    const lim__sim_handle *h;
    lim__sim_process *p = lim__sim_process_of(os);
    int err = enter(p);
    if (err != 0)
        return err;
    h = handle_of(p, file);
    return h ? (int64_t)h->node->content.size : -EBADF;
}

static int disk_truncate(lim__os *os, int file, uint64_t size)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    int err = enter(p);
    if (err != 0)
        return err;
    const lim__sim_handle *h = handle_of(p, file);
    if (!h)
        return -EBADF;
    if (!(h->flags & LIM__FILE_WRITE) || size > INT64_MAX)
        return -EINVAL;
    spend_write(p);
    d->used -= h->node->content.pages.count;
    lim__sim_content_truncate(&h->node->content, size);
    d->used += h->node->content.pages.count;
    lim__sim_note(p->sim, "truncate %s: %d to %llu", p->machine->name, file, (unsigned long long)size);
    return 0;
}

static int disk_lock(lim__os *os, int file)
{
    lim__sim_process *p = lim__sim_process_of(os);
    int err = enter(p);
    if (err != 0)
        return err;
    const lim__sim_handle *h = handle_of(p, file);
    if (!h)
        return -EBADF;
    lim__sim_node *n = h->node;
    bool free_for_me = !n->owner || (n->owner == p && n->owner_handle == file - FIRST_HANDLE);
    lim__sim_note(p->sim, "lock %s: %d%s", p->machine->name, file, free_for_me ? "" : " refused");
    if (!free_for_me)
        return -EAGAIN;
    n->owner = p;
    n->owner_handle = file - FIRST_HANDLE;
    return 0;
}

/* ---- names ---- */

static int disk_remove(lim__os *os, const char *path)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    char name[LIM__SIM_NAME_MAX + 1];
    lim__sim_node *n, *dir;
    int err = enter(p);
    if (err == 0)
        err = lim__sim_walk(d, path, &dir, name);
    if (err == 0)
        err = lim__sim_find_kind(d, path, LIM__SIM_FILE, &n);
    if (err != 0)
        return err;
    spend_write(p);
    lim__sim_note(p->sim, "remove %s:%s node %llu", p->machine->name, path, (unsigned long long)n->number);
    lim__sim_remove(d, dir, name);
    return 0;
}

/* One end of a rename. node: the file there, NULL if there is none. */
struct place {
    lim__sim_node *dir, *node;
    char name[LIM__SIM_NAME_MAX + 1];
};

static int find_place(const lim__sim_drive *d, const char *path, struct place *place)
{
    int err = lim__sim_walk(d, path, &place->dir, place->name);
    if (err != 0)
        return err;
    place->node = *place->name ? lim__sim_child(place->dir, place->name) : place->dir;
    return place->node && place->node->kind == LIM__SIM_DIR ? -EISDIR : 0;
}

static int disk_rename(lim__os *os, const char *from, const char *to)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    struct place old, new;
    int err = enter(p);
    if (err == 0)
        err = find_place(d, from, &old);
    if (err == 0 && !old.node)
        err = -ENOENT;
    if (err == 0)
        err = find_place(d, to, &new);
    if (err != 0 || old.node == new.node)
        return err;
    spend_write(p);
    lim__sim_rename(d, old.dir, old.name, new.dir, new.name);
    lim__sim_note(p->sim, "rename %s:%s to %s node %llu", p->machine->name, from, to,
                  (unsigned long long)old.node->number);
    return 0;
}

static int disk_mkdir(lim__os *os, const char *path)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    char name[LIM__SIM_NAME_MAX + 1];
    lim__sim_node *n, *dir;
    int err = enter(p);
    if (err == 0)
        err = lim__sim_walk(d, path, &dir, name);
    if (err != 0)
        return err;
    err = lim__sim_find_kind(d, path, LIM__SIM_DIR, &n);
    if (err != -ENOENT)
        return err;
    spend_write(p);
    n = lim__sim_create(d, dir, name, LIM__SIM_DIR);
    lim__sim_note(p->sim, "mkdir %s:%s node %llu", p->machine->name, path, (unsigned long long)n->number);
    return 0;
}

static int disk_dir_sync(lim__os *os, const char *path)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    lim__sim_node *dir;
    int err = enter(p);
    if (err == 0)
        err = lim__sim_find_kind(d, path, LIM__SIM_DIR, &dir);
    if (err != 0)
        return err;
    spend_sync(p);
    if (happens(d, d->manners.sync_error_permille)) {
        lim__sim_note(p->sim, "dir sync %s:%s fails", p->machine->name, path);
        return -EIO;
    }
    size_t taken = lim__sim_take_steps(d, dir);
    lim__sim_note(p->sim, "dir sync %s:%s %zu steps", p->machine->name, path, taken);
    return 0;
}

static int disk_list(lim__os *os, const char *path, void (*each)(void *ctx, const char *name), void *ctx)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_drive *d = p->machine->drive;
    lim__sim_node *dir;
    int err = enter(p);
    if (err == 0)
        err = lim__sim_find_kind(d, path, LIM__SIM_DIR, &dir);
    if (err != 0)
        return err;
    size_t count = dir->now.count;
    char **names = lim__sim_alloc((count + 1) * sizeof *names); /* a copy: each may create and remove */
    for (size_t i = 0; i < count; i++) {
        size_t other = lim__rng_below(&d->rng, i + 1);
        names[i] = names[other];
        names[other] = lim__sim_copy_text(dir->now.list[i].name);
    }
    lim__sim_note(p->sim, "list %s:%s %zu names", p->machine->name, path, count);
    for (size_t i = 0; i < count; i++) {
        each(ctx, names[i]);
        free(names[i]);
    }
    free(names);
    return 0;
}

static int64_t disk_free_bytes(lim__os *os, const char *path)
{
    lim__sim_process *p = lim__sim_process_of(os);
    lim__sim_node *n;
    int err = enter(p);
    if (err == 0)
        err = lim__sim_find(p->machine->drive, path, &n);
    return err ? err : (int64_t)(room_pages(p->machine->drive) * LIM__FILE_BLOCK);
}

void lim__sim_disk_table(lim__os *os)
{
    os->file_open = disk_open;
    os->file_close = disk_close;
    os->file_read = disk_read;
    os->file_write = disk_write;
    os->file_sync = disk_sync;
    os->file_size = disk_size;
    os->file_truncate = disk_truncate;
    os->file_lock = disk_lock;
    os->file_rename = disk_rename;
    os->file_remove = disk_remove;
    os->dir_create = disk_mkdir;
    os->dir_sync = disk_dir_sync;
    os->dir_list = disk_list;
    os->disk_free = disk_free_bytes;
}

/* ---- for the test ---- */

lim__sim_disk lim__sim_disk_get(const lim__os *host)
{
    return drive_of(host)->manners;
}

void lim__sim_disk_set(lim__os *host, const lim__sim_disk *disk)
{
    LIM_ASSERT(disk->write_min_ns <= disk->write_max_ns && disk->sync_min_ns <= disk->sync_max_ns);
    LIM_ASSERT(disk->capacity <= INT64_MAX);
    LIM_ASSERT(!(disk->keep_nothing && disk->keep_everything));
    drive_of(host)->manners = *disk;
}

void lim__sim_disk_fail_at_call(lim__os *host, uint64_t n, int err)
{
    LIM_ASSERT(err >= 0);
    drive_of(host)->fail_at_call = n;
    drive_of(host)->fail_err = err;
}

uint64_t lim__sim_disk_calls(const lim__os *host)
{
    return drive_of(host)->calls;
}

uint64_t lim__sim_disk_syncs(const lim__os *host)
{
    return drive_of(host)->syncs;
}

int lim__sim_disk_flip(lim__os *host, const char *path, uint64_t bit)
{
    lim__sim_drive *d = drive_of(host);
    lim__sim_node *n;
    int err = lim__sim_find_kind(d, path, LIM__SIM_FILE, &n);
    if (err != 0)
        return err;
    if (bit / 8 >= n->content.size)
        return -ERANGE;
    d->used -= n->content.pages.count;
    lim__sim_content_flip(&n->content, bit);
    d->used += n->content.pages.count;
    lim__sim_note(lim__sim_of(host), "flip %s bit %llu", path, (unsigned long long)bit);
    return 0;
}

int lim__sim_disk_read(lim__os *host, const char *path, void **out, size_t *len)
{
    lim__sim_node *n;
    int err = lim__sim_find_kind(drive_of(host), path, LIM__SIM_FILE, &n);
    if (err != 0)
        return err;
    *len = (size_t)n->content.size;
    *out = lim__sim_alloc(*len + 1);
    lim__sim_content_read(&n->content, false, *out, *len, 0);
    return 0;
}
