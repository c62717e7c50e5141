/* SPDX-License-Identifier: Apache-2.0
 * sim_content.h - the bytes of one simulated file, on the platter and in the caches above it; sim_disk.c has the names,
 * the handles and the faults. Nobody else includes it. */
#ifndef LIM__SIM_CONTENT_H
#define LIM__SIM_CONTENT_H

#include "base/base.h"
#include "base/map.h"
#include "base/rng.h"

enum { LIM__SIM_SECTOR = 512 }; /* what a drive writes as a whole */

typedef struct lim__sim_content {
    uint64_t size, size_before; /* as everybody sees it; on the platter */
    lim__map pages;             /* page number -> what the device answers: the platter with everything unsynced */
    lim__map before;            /* of the pages that changed since the last sync: what the platter has */
    lim__map lies;              /* of pages that a failed sync left marked clean: what the page cache answers instead */
    struct lim__sim_op *ops;    /* unsynced, in order */
    size_t op_count, op_cap;
} lim__sim_content;

enum lim__sim_keep { LIM__SIM_KEEP_DRAWN = 1, LIM__SIM_KEEP_NOTHING, LIM__SIM_KEEP_EVERYTHING };
enum lim__sim_why { LIM__SIM_POWER_LOSS = 1, LIM__SIM_FAILED_SYNC };
typedef struct lim__sim_loss {
    uint64_t writes, kept, lost; /* writes that were unsynced, sectors of them */
} lim__sim_loss;

void lim__sim_content_init(lim__sim_content *c);
void lim__sim_content_fini(lim__sim_content *c);
/* The range lies within the size. direct: as the device answers; else through the page cache. */
void lim__sim_content_read(const lim__sim_content *c, bool direct, void *buf, size_t len, uint64_t offset);
/* How much of a write can be done with so many more pages. */
size_t lim__sim_content_fit(const lim__sim_content *c, size_t len, uint64_t offset, uint64_t room_pages);
void lim__sim_content_write(lim__sim_content *c, bool direct, const void *data, size_t len, uint64_t offset);
void lim__sim_content_truncate(lim__sim_content *c, uint64_t size);
void lim__sim_content_sync(lim__sim_content *c);
/* A power loss: of what is unsynced, what is kept reaches the platter, and the caches are gone. A failed sync: sizes
 * reach the platter, of the bytes what is kept; the page cache goes on answering what was written through it. */
lim__sim_loss lim__sim_content_lose(lim__sim_content *c, enum lim__sim_why why, enum lim__sim_keep keep, lim__rng *rng);
/* A DIRECT write that failed: any of its sectors may have been written, within the size. */
void lim__sim_content_scribble(lim__sim_content *c, const void *data, size_t len, uint64_t offset, lim__rng *rng);
void lim__sim_content_flip(lim__sim_content *c, uint64_t bit); /* within the size */
void lim__sim_content_check(const lim__sim_content *c);

#endif
