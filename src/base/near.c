/* SPDX-License-Identifier: Apache-2.0
 * near.c - the distance between two names: edits, where two neighbours in the wrong order count as one. */
#include "base/near.h"
#include "base/base.h"

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t lim__name_distance(lim_bytes a, lim_bytes b)
{
    size_t rows[3][LIM__NEAR_MAX + 1];
    const char *x = a.ptr, *y = b.ptr;
    if (a.len > LIM__NEAR_MAX || b.len > LIM__NEAR_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (x[i - 1] != y[j - 1]));
            if (i > 1 && j > 1 && x[i - 1] == y[j - 2] && x[i - 2] == y[j - 1])
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[a.len % 3][b.len];
}

void lim__near_offer(lim__near *n, lim_bytes name)
{
    size_t shorter = least(n->word.len, name.len), distance = lim__name_distance(n->word, name);
    if (n->word.len == 0 || distance == SIZE_MAX)
        return;
    if (n->word.len >= 3 && shorter == n->word.len && memcmp(n->word.ptr, name.ptr, shorter) == 0)
        distance = 1;
    if (distance > shorter / 2 || (n->best.len > 0 && distance >= n->distance))
        return;
    n->best = name;
    n->distance = distance;
}
