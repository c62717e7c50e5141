/* SPDX-License-Identifier: Apache-2.0
 * sim_drive.c - the names on a simulated disk, and what a power loss leaves of them. What a file holds, and what of
 * that is on the platter, is in sim_content.c; calls, handles and faults are in sim_disk.c.
 *
 *   machine --> drive --> root --now------> entries as programs see them --------.
 *                          |   `-platter--> entries as of the last dir_sync ------+--> nodes: files and directories
 *                          `-----steps----> what happened to names since, in order'       ^
 *   program --> handles (closed by a kill, and with them its locks) ----------------------'
 *
 * A node lives as long as any of these names it. So a removed file is still on the platter until the removal is there,
 * and comes back when the power fails before. It occupies space as long as a program can reach it, by name or handle.
 *
 * A change of names is a step, and happened on the platter as a whole or not at all: create and remove set one entry, a
 * rename sets two. dir_sync takes the steps that touch its directory, in order. A power loss takes each of the rest or
 * not, as drawn, in order. A step names its node, not a path: a rename may be on the platter without the creation of
 * what it renamed. A file whose directory's own name was lost is lost, however often it was synced.
 *
 * Invariants (drive_check):
 *   D1  a node is referred to by each of its entries, steps and handles; none is there without one.
 *   D2  used = the pages of every file that can be reached by a name or a handle.
 *   D3  a lock's owner is an open handle of the file. */
#include "sim/sim_drive.h"

#include <errno.h>
#include <stdlib.h>

enum { US = 1000 };

/* One change of names: each of its halves sets an entry, to NULL when it removes it. */
struct half {
    lim__sim_node *dir, *to;
    char *name;
};
struct lim__sim_name_step {
    struct half halves[2];
    int count;
};

/* ---- nodes and entries ---- */

static lim__sim_node *node_new(lim__sim_drive *d, enum lim__sim_node_kind kind)
{
    lim__sim_node *n = lim__sim_alloc(sizeof *n);
    n->kind = kind;
    n->number = d->node_count++;
    lim__sim_content_init(&n->content);
    lim__list_push(&d->nodes, &n->all);
    return n;
}

void lim__sim_node_ref(lim__sim_node *n)
{
    if (n)
        n->refs++;
}

static void names_drop(lim__sim_node *dir);

void lim__sim_node_unref(lim__sim_node *n)
{
    if (!n || --n->refs > 0)
        return;
    LIM_ASSERT(n->handles == 0 && !n->owner);
    names_drop(n);
    lim__sim_content_fini(&n->content);
    lim__list_remove(&n->all);
    free(n);
}

static struct lim__sim_entry *entry_of(const lim__sim_entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->count; i++) {
        if (strcmp(entries->list[i].name, name) == 0)
            return &entries->list[i];
    }
    return NULL;
}

char *lim__sim_copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = lim__sim_alloc(size);
    memcpy(copy, text, size);
    return copy;
}

static void entry_add(lim__sim_entries *entries, const char *name, lim__sim_node *node)
{
    if (entries->count == entries->cap) {
        entries->cap = entries->cap ? entries->cap * 2 : 8;
        entries->list = realloc(entries->list, entries->cap * sizeof *entries->list);
        LIM_ASSERT(entries->list);
    }
    entries->list[entries->count++] = (struct lim__sim_entry){ lim__sim_copy_text(name), node };
}

/* node NULL: there is none of that name any more. */
static void entry_set(lim__sim_entries *entries, const char *name, lim__sim_node *node)
{
    struct lim__sim_entry *e = entry_of(entries, name);
    lim__sim_node *old = e ? e->node : NULL;
    lim__sim_node_ref(node);
    if (e && node) {
        e->node = node;
    } else if (e) {
        free(e->name);
        *e = entries->list[--entries->count];
    } else if (node) {
        entry_add(entries, name, node);
    }
    lim__sim_node_unref(old);
}

/* As entry_set, in what programs see. */
static void name_set(lim__sim_node *dir, const char *name, lim__sim_node *node)
{
    const struct lim__sim_entry *e = entry_of(&dir->now, name);
    if (e)
        e->node->names--;
    if (node)
        node->names++;
    entry_set(&dir->now, name, node);
}

/* All of a directory's, on the platter and off it. */
static void names_drop(lim__sim_node *dir)
{
    while (dir->now.count > 0)
        name_set(dir, dir->now.list[dir->now.count - 1].name, NULL);
    while (dir->platter.count > 0)
        entry_set(&dir->platter, dir->platter.list[dir->platter.count - 1].name, NULL);
    free(dir->now.list);
    free(dir->platter.list);
}

lim__sim_node *lim__sim_child(const lim__sim_node *dir, const char *name)
{
    const struct lim__sim_entry *e = entry_of(&dir->now, name);
    return e ? e->node : NULL;
}

/* ---- steps ---- */

static void half_add(struct lim__sim_name_step *step, lim__sim_node *dir, const char *name, lim__sim_node *to)
{
    step->halves[step->count++] = (struct half){ dir, to, lim__sim_copy_text(name) };
    lim__sim_node_ref(dir);
    lim__sim_node_ref(to);
}

/* Makes room, so that the step is part of the order from here on. */
static struct lim__sim_name_step *step_push(lim__sim_drive *d)
{
    if (d->step_count == d->step_cap) {
        d->step_cap = d->step_cap ? d->step_cap * 2 : 16;
        d->steps = realloc(d->steps, d->step_cap * sizeof *d->steps);
        LIM_ASSERT(d->steps);
    }
    struct lim__sim_name_step *step = &d->steps[d->step_count++];
    *step = (struct lim__sim_name_step){ 0 };
    return step;
}

static void step_free(const struct lim__sim_name_step *step)
{
    for (int i = 0; i < step->count; i++) {
        free(step->halves[i].name);
        lim__sim_node_unref(step->halves[i].to);
        lim__sim_node_unref(step->halves[i].dir);
    }
}

static void step_take(const struct lim__sim_name_step *step)
{
    for (int i = 0; i < step->count; i++)
        entry_set(&step->halves[i].dir->platter, step->halves[i].name, step->halves[i].to);
    step_free(step);
}

static bool step_touches(const struct lim__sim_name_step *step, const lim__sim_node *dir)
{
    return step->halves[0].dir == dir || (step->count == 2 && step->halves[1].dir == dir);
}

/* ---- steps, as calls make them ---- */

lim__sim_node *lim__sim_create(lim__sim_drive *d, lim__sim_node *dir, const char *name, enum lim__sim_node_kind kind)
{
    lim__sim_node *n = node_new(d, kind);
    name_set(dir, name, n);
    half_add(step_push(d), dir, name, n);
    return n;
}

static void unname(lim__sim_drive *d, lim__sim_node *dir, const char *name)
{
    const lim__sim_node *n = lim__sim_child(dir, name);
    if (n->names == 1 && n->handles == 0)
        d->used -= n->content.pages.count;
    name_set(dir, name, NULL);
}

void lim__sim_remove(lim__sim_drive *d, lim__sim_node *dir, const char *name)
{
    half_add(step_push(d), dir, name, NULL);
    unname(d, dir, name);
}

void lim__sim_rename(lim__sim_drive *d, lim__sim_node *dir, const char *name, lim__sim_node *to_dir,
                     const char *to_name)
{
    lim__sim_node *n = lim__sim_child(dir, name);
    struct lim__sim_name_step *step = step_push(d);
    LIM_ASSERT(n && n != lim__sim_child(to_dir, to_name));
    half_add(step, dir, name, NULL);
    half_add(step, to_dir, to_name, n);
    if (lim__sim_child(to_dir, to_name))
        unname(d, to_dir, to_name);
    name_set(to_dir, to_name, n);
    name_set(dir, name, NULL);
}

/* Takes the steps that touch it, in order; returns how many. */
size_t lim__sim_take_steps(lim__sim_drive *d, const lim__sim_node *dir)
{
    size_t left = 0, count = d->step_count;
    for (size_t i = 0; i < count; i++) {
        if (step_touches(&d->steps[i], dir))
            step_take(&d->steps[i]);
        else
            d->steps[left++] = d->steps[i];
    }
    d->step_count = left;
    return count - left;
}

/* ---- the drive ---- */

static uint64_t one_of(lim__rng *r, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t which = lim__rng_below(r, 3);
    return which == 0 ? a : which == 1 ? b : c;
}

lim__sim_drive *lim__sim_drive_new(uint64_t seed)
{
    lim__sim_drive *d = lim__sim_alloc(sizeof *d);
    d->rng = lim__rng_seeded(seed);
    d->manners.capacity = UINT64_C(1) << 40;
    d->manners.write_min_ns = 2 * US;
    d->manners.write_max_ns = one_of(&d->rng, 5 * US, 50 * US, 500 * US);
    d->manners.sync_min_ns = 20 * US;
    d->manners.sync_max_ns = one_of(&d->rng, 50 * US, 1000 * US, 20000 * US);
    d->manners.short_write_permille = (uint32_t)one_of(&d->rng, 0, 0, 50);
    lim__list_init(&d->nodes);
    d->root = node_new(d, LIM__SIM_DIR);
    lim__sim_node_ref(d->root);
    return d;
}

bool lim__sim_node_reachable(const lim__sim_node *n)
{
    return n->names > 0 || n->handles > 0;
}

static uint64_t count_used(const lim__sim_drive *d)
{
    uint64_t used = 0;
    LIM__LIST_EACH(node, &d->nodes) {
        const lim__sim_node *n = LIM_CONTAINER(node, lim__sim_node, all);
        used += lim__sim_node_reachable(n) ? n->content.pages.count : 0;
    }
    return used;
}

static void drive_check(const lim__sim_drive *d)
{
    LIM__LIST_EACH(node, &d->nodes) {
        const lim__sim_node *n = LIM_CONTAINER(node, lim__sim_node, all);
        LIM_ASSERT(n->refs >= n->names + n->handles && n->refs > 0);           /* D1 */
        LIM_ASSERT(!n->owner || n->owner->handles[n->owner_handle].node == n); /* D3 */
        lim__sim_content_check(&n->content);
    }
    LIM_ASSERT(d->used == count_used(d)); /* D2 */
}

static void steps_clear(lim__sim_drive *d)
{
    for (size_t i = 0; i < d->step_count; i++)
        step_free(&d->steps[i]);
    d->step_count = 0;
}

void lim__sim_drive_free(lim__sim_drive *d)
{
    if (!d)
        return;
    d->used = count_used(d);
    drive_check(d);
    steps_clear(d);
    free(d->steps);
    lim__sim_node_unref(d->root);
    LIM_ASSERT(lim__list_empty(&d->nodes)); /* D1 */
    free(d);
}

/* ---- what a power loss leaves ---- */

static enum lim__sim_keep keep_of(const lim__sim_drive *d)
{
    return d->manners.keep_nothing      ? LIM__SIM_KEEP_NOTHING
           : d->manners.keep_everything ? LIM__SIM_KEEP_EVERYTHING
                                        : LIM__SIM_KEEP_DRAWN;
}

/* The path of no name: the number is what stays the same. */
void lim__sim_lose_content(lim__sim *sim, lim__sim_drive *d, lim__sim_node *n, enum lim__sim_why why)
{
    lim__sim_loss loss = lim__sim_content_lose(&n->content, why, keep_of(d), &d->rng);
    if (loss.writes > 0)
        lim__sim_note(sim, "  node %llu: of %llu writes %llu sectors kept, %llu lost, %llu bytes long",
                      (unsigned long long)n->number, (unsigned long long)loss.writes, (unsigned long long)loss.kept,
                      (unsigned long long)loss.lost, (unsigned long long)n->content.size);
}

static void lose_steps(lim__sim *sim, lim__sim_drive *d)
{
    for (size_t i = 0; i < d->step_count; i++) {
        struct lim__sim_name_step *step = &d->steps[i];
        enum lim__sim_keep keep = keep_of(d);
        bool kept = keep == LIM__SIM_KEEP_EVERYTHING;
        if (keep == LIM__SIM_KEEP_DRAWN)
            kept = lim__rng_below(&d->rng, 2) == 0;
        lim__sim_note(sim, "  %s: %s%s", step->halves[step->count - 1].name,
                      step->halves[step->count - 1].to ? "named" : "removed", kept ? "" : ", lost");
        if (kept)
            step_take(step);
        else
            step_free(step);
    }
    d->step_count = 0;
}

/* What programs see becomes what is on the platter. */
static void reread_names(lim__sim_node *dir)
{
    while (dir->now.count > 0)
        name_set(dir, dir->now.list[dir->now.count - 1].name, NULL);
    for (size_t i = 0; i < dir->platter.count; i++)
        name_set(dir, dir->platter.list[i].name, dir->platter.list[i].node);
}

void lim__sim_drive_power_off(lim__sim *sim, lim__sim_machine *machine)
{
    lim__sim_drive *d = machine->drive;
    LIM__LIST_EACH(node, &d->nodes) {
        lim__sim_node *n = LIM_CONTAINER(node, lim__sim_node, all);
        lim__sim_node_ref(n); /* until all names are reread */
        lim__sim_lose_content(sim, d, n, LIM__SIM_POWER_LOSS);
    }
    lose_steps(sim, d);
    LIM__LIST_EACH(node, &d->nodes)
        reread_names(LIM_CONTAINER(node, lim__sim_node, all));
    LIM__LIST_EACH_SAFE(node, next, &d->nodes) /* may free what was before it: of those no reference is held here */
        lim__sim_node_unref(LIM_CONTAINER(node, lim__sim_node, all));
    d->used = count_used(d);
    drive_check(d);
}

/* ---- paths ---- */

/* The next part of a path, without "." and empty ones; "" at the end. -errno or 0. */
static int next_part(const char **path, char part[LIM__SIM_NAME_MAX + 1])
{
    do {
        *path += strspn(*path, "/");
        size_t len = strcspn(*path, "/");
        if (len > LIM__SIM_NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(part, *path, len);
        part[len] = 0;
        *path += len;
    } while (strcmp(part, ".") == 0);
    return strcmp(part, "..") == 0 ? -EINVAL : 0;
}

/* The directory in which a path's last part is, or would be, and that part; "" for the root itself. */
int lim__sim_walk(const lim__sim_drive *d, const char *path, lim__sim_node **dir, char name[LIM__SIM_NAME_MAX + 1])
{
    char next[LIM__SIM_NAME_MAX + 1];
    *dir = d->root;
    int err = *path ? next_part(&path, name) : -ENOENT;
    while (err == 0 && *name) {
        err = next_part(&path, next);
        if (err != 0 || !*next)
            break;
        const struct lim__sim_entry *e = entry_of(&(*dir)->now, name);
        if (!e)
            return -ENOENT;
        if (e->node->kind != LIM__SIM_DIR)
            return -ENOTDIR;
        *dir = e->node;
        memcpy(name, next, sizeof next);
    }
    return err;
}

int lim__sim_find(const lim__sim_drive *d, const char *path, lim__sim_node **out)
{
    char name[LIM__SIM_NAME_MAX + 1];
    lim__sim_node *dir;
    int err = lim__sim_walk(d, path, &dir, name);
    if (err != 0)
        return err;
    const struct lim__sim_entry *e = entry_of(&dir->now, name);
    *out = *name ? (e ? e->node : NULL) : dir;
    return *out ? 0 : -ENOENT;
}

int lim__sim_find_kind(const lim__sim_drive *d, const char *path, enum lim__sim_node_kind kind, lim__sim_node **out)
{
    int err = lim__sim_find(d, path, out);
    if (err != 0)
        return err;
    return (*out)->kind == kind ? 0 : kind == LIM__SIM_DIR ? -ENOTDIR : -EISDIR;
}
