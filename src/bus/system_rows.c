/* SPDX-License-Identifier: Apache-2.0
 * system_rows.c - how what was stored comes to the process that it is of.
 *
 * That process may run already when the store is opened, on a thread of its own, and what it owns is only its own. So
 * whoever opens the bus reads the rows and leaves them in a place from which the process takes them, before it looks at
 * the next thing that it is told. */
#include "bus/system.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool collect(void *ctx, lim_bytes key, lim_bytes value)
{
    lim__buf *rows = ctx;
    lim__pack_bytes(rows, key);
    lim__pack_bytes(rows, value);
    return !rows->failed;
}

static void nobody(void *ctx, const lim_outcome *o)
{
    (void)ctx, (void)o;
}

lim_err lim__rows_read(lim_bus *bus, lim__table table, const char *group, lim__rows *rows, lim_diag *diag)
{
    lim__buf *read = calloc(1, sizeof *read);
    if (read == NULL)
        return LIM_E_NOMEM;
    int err = lim__store_scan(lim__durable_store(bus), (uint8_t)table, lim__bytes(NULL, 0), lim__bytes(NULL, 0),
                              collect, read);
    if (err != 0 || read->failed) {
        lim_err fault = read->failed ? LIM_E_NOMEM : LIM_E_IO;
        lim__rows_free(read);
        lim__diag_set(diag, 0, 0, "what %s knows could not be read: %s", group,
                      fault == LIM_E_NOMEM ? "out of memory" : strerror(-err));
        return fault;
    }
    bool some = lim__buf_len(read) > 0;
    atomic_store_explicit(&rows->read, read, memory_order_release); /* pairs with lim__rows_take */
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = LIM_FOREVER, .wait = true };
    return !some ? LIM_OK : /* any request makes it look */
               lim_ask_async(bus, group, lim__str("{\"op\":\"ls\"}"), &opts, nobody, NULL, NULL);
}

lim__buf *lim__rows_take(lim__rows *rows)
{
    if (atomic_load_explicit(&rows->read, memory_order_relaxed) == NULL)
        return NULL;
    return atomic_exchange_explicit(&rows->read, NULL, memory_order_acquire);
}

void lim__rows_free(lim__buf *rows)
{
    if (rows == NULL)
        return;
    lim__buf_fini(rows);
    free(rows);
}
