/* SPDX-License-Identifier: Apache-2.0
 * slot_inside.h - what slot*.c share with each other, and nobody else needs. */
#ifndef LIM__SLOT_INSIDE_H
#define LIM__SLOT_INSIDE_H

#include "base/map.h"
#include "bus/slot.h"

/* ---- slot.c ---- */
bool lim__slot_same(const lim__artifact *a, const lim__artifact *b);
lim__version *lim__slot_kept_of(lim__slot *s, const lim__artifact *a);
bool lim__slot_is_named(const lim__version *v, const char *hash);
lim__version *lim__slot_good_behind(lim__slot *s, const lim__version *behind); /* NULL: none */
/* A version that is compiled and stands in no list. */
lim_err lim__slot_make(lim__slot *s, lim__artifact *a, const lim__slot_terms *terms, lim_diag *diag, lim__version **out);
void lim__slot_take_over(lim__version *old, lim__version *v);
void lim__slot_swap(lim__slot *s, lim__version *v);
void lim__slot_untidy(lim__slot *s);
void lim__slot_changed(lim__slot *s);
/* v NULL: the strategy of last resort. */
lim_err lim__slot_router_open(lim__slot *s, lim__version *v, lim__artifact *a, lim_diag *diag, lim__router **out);
/* ---- slot_plan.c ---- */
bool lim__slot_same_limits(const lim__route_limits *a, const lim__route_limits *b);
void lim__slot_end_trial(lim__slot *s);
/* ---- slot_keep.c ---- */
enum { SLOT__ROW_VERSION = 1, SLOT__CODE_VERSION = 1 };
struct lim__slot_rows {
    lim__mutex mutex; /* a leaf, but for the store's queue */
    lim__smap unread; /* kind and name -> row, as it was at the start, until its owner takes it */
    lim__smap uses;   /* code key -> use */
    lim__smap hosts;  /* hash -> host: functions of the program */
};

typedef struct slot__row { /* as it was at the start */
    uint32_t key_len, len;
    uint8_t bytes[]; /* key, value */
} slot__row;

void lim__slot_receipt_fini(lim__slot *s);
lim_bytes lim__slot_key(const lim__slot *s, uint8_t key[256]);
void lim__slot_code_key(const lim__artifact *a, uint8_t key[LIM__SLOT_CODE_KEY]);
/* How many rows name it, one more or less; UINT32_MAX: no memory. Under the rows' mutex, or at the start. */
uint32_t lim__slot_count_use(struct lim__slot_rows *rows, const uint8_t *key, int change);

#endif
