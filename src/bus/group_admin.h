/* SPDX-License-Identifier: Apache-2.0
 * group_admin.h - a request of an operator to one queue, shared by group_admin.c (what is asked) and group_config.c (rules). */
#ifndef LIM__GROUP_ADMIN_H
#define LIM__GROUP_ADMIN_H

#include "bus/group.h"

typedef struct request {
    group *g;
    lim__val root;
    lim__json *j; /* the answer: an object that is open */
    bool refused;
} request;

/* group_admin.c */
void lim__admin_refuse(request *r, lim_err err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* group_config.c */
void lim__admin_config_json(const group *g, lim__json *j);
void lim__admin_configure(request *r);
void lim__admin_limit(request *r);

static inline lim_bytes lim__admin_queue(const group *g)
{
    return lim__bytes(g->name, g->name_len);
}

#endif
