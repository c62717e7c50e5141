/* SPDX-License-Identifier: Apache-2.0
 * lua_fields.h - the members of a short, plain JSON object, found in one walk over its text. */
#ifndef LIM__ROUTE_LUA_FIELDS_H
#define LIM__ROUTE_LUA_FIELDS_H

#include "data/data.h"

enum { FIELDS__BYTES_MAX = 512, FIELDS__COUNT_MAX = 24 };

typedef struct lim__lua_fields {
    uint32_t count;
    struct lim__lua_field {
        uint16_t key, key_len; /* in the text that was read */
        uint16_t at, len;      /* TEXT: in it. DOUBLE: i is to be divided by ten `len` times; lim__lua_field_double */
        lim__kind kind;        /* ARRAY, OBJECT: there is one; what is in it was not kept */
        union {
            bool truth;
            int64_t i;
        };
    } items[FIELDS__COUNT_MAX]; /* in the order they stand; of one key the last counts */
} lim__lua_fields;

/* True: `json` is an object that lim__doc_parse takes, and these are its members. False: it may be anything. */
bool lim__lua_fields_read(lim__lua_fields *f, lim_bytes json);
double lim__lua_field_double(const struct lim__lua_field *f); /* of a DOUBLE */
/* `json`: what was read, wherever it is now. NULL: the object has no such member. VIEW: until the next read. */
const struct lim__lua_field *lim__lua_fields_get(const lim__lua_fields *f, lim_bytes json, lim_bytes key);

#endif
