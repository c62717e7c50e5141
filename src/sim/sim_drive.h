/* SPDX-License-Identifier: Apache-2.0
 * sim_drive.h - what sim_drive.c (names and what a power loss leaves) and sim_disk.c (calls, handles and faults) share.
 * Nobody else includes it. */
#ifndef LIM__SIM_DRIVE_H
#define LIM__SIM_DRIVE_H

#include "sim/sim_content.h"
#include "sim/sim_world.h"

enum { LIM__SIM_NAME_MAX = 255 };

typedef struct lim__sim_node lim__sim_node;
typedef struct lim__sim_entries {
    struct lim__sim_entry {
        char *name;
        lim__sim_node *node;
    } *list; /* in no order that matters */
    size_t count, cap;
} lim__sim_entries;

enum lim__sim_node_kind { LIM__SIM_FILE = 1, LIM__SIM_DIR };
struct lim__sim_node {
    lim__list all; /* in drive->nodes */
    enum lim__sim_node_kind kind;
    uint64_t number;
    uint32_t refs, names, handles; /* D1; entries of `now` that name it; open handles */
    lim__sim_content content;      /* a file's */
    const lim__sim_process *owner; /* who has it locked, by ... */
    int owner_handle;
    lim__sim_entries now, platter; /* a directory's, as programs see it and as of its last dir_sync */
};

struct lim__sim_handle {
    lim__sim_node *node; /* NULL: free */
    uint32_t flags;
};

struct lim__sim_drive {
    lim__sim_disk manners;
    lim__rng rng;
    lim__list nodes; /* in order of creation */
    lim__sim_node *root;
    struct lim__sim_name_step *steps;
    size_t step_count, step_cap;
    uint64_t node_count, used; /* pages */
    uint64_t calls, syncs;
    uint64_t fail_at_call;
    int fail_err;
};

char *lim__sim_copy_text(const char *text); /* malloc'd, never NULL */
void lim__sim_node_ref(lim__sim_node *n); /* NULL is a no-op, here and there */
void lim__sim_node_unref(lim__sim_node *n);
bool lim__sim_node_reachable(const lim__sim_node *n); /* by a program, by name or handle */

/* Paths, as programs see them: "." and doubled slashes are passed over, ".." is -EINVAL. 0 or -errno. */
/* The directory in which a path's last part is, or would be, and that part; "" for the root itself. */
int lim__sim_walk(const lim__sim_drive *d, const char *path, lim__sim_node **dir, char name[LIM__SIM_NAME_MAX + 1]);
int lim__sim_find(const lim__sim_drive *d, const char *path, lim__sim_node **out);
int lim__sim_find_kind(const lim__sim_drive *d, const char *path, enum lim__sim_node_kind kind, lim__sim_node **out);
lim__sim_node *lim__sim_child(const lim__sim_node *dir, const char *name); /* NULL: none */

/* Steps. The names are there, or free, as needed; a file that nobody can reach any more gives its space back. */
lim__sim_node *lim__sim_create(lim__sim_drive *d, lim__sim_node *dir, const char *name, enum lim__sim_node_kind kind);
void lim__sim_remove(lim__sim_drive *d, lim__sim_node *dir, const char *name);
void lim__sim_rename(lim__sim_drive *d, lim__sim_node *dir, const char *name, lim__sim_node *to_dir, const char *to_name);
size_t lim__sim_take_steps(lim__sim_drive *d, const lim__sim_node *dir); /* dir_sync; returns how many */

/* A power loss or a failed sync comes over a file's content; told to the history. */
void lim__sim_lose_content(lim__sim *sim, lim__sim_drive *d, lim__sim_node *n, enum lim__sim_why why);

#endif
