/* SPDX-License-Identifier: Apache-2.0
 * index_lmdb.h - what index_lmdb.c writes and lmdb_check.c reads without LMDB's help. */
#ifndef LIM__STORE_INDEX_LMDB_H
#define LIM__STORE_INDEX_LMDB_H

#include "base/map.h"
#include "base/base.h"
#include "os/os.h"

/* Every value is followed by the checksum (CRC32C) of its key and itself. The entry with this key (a byte that no other key
 * begins with) has the number of all others, and the sum of their hashes: nothing can be missing or too many. */
#define LIM__LMDB_SUM_KEY lim__bytes("\0sum", 4)
typedef struct lim__lmdb_sum {
    uint64_t count, sum;
} lim__lmdb_sum;
static inline uint64_t lim__lmdb_hash(lim_bytes key, lim_bytes value_and_crc)
{
    return lim__hash_bytes(value_and_crc, lim__hash_bytes(key, 0));
}
uint32_t lim__lmdb_crc(lim_bytes key, lim_bytes value);

/* Reads the whole file of an LMDB environment and believes nothing in it. 0: LMDB will find in it exactly what was put there,
 * and will not stumble; -ENOENT: there is no file, or nothing in it; -EBADMSG: anything else; -errno. */
int lim__lmdb_check(lim__os *os, const char *path);

#endif
