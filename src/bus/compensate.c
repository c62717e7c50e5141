/* SPDX-License-Identifier: Apache-2.0
 * compensate.c - see compensate.h. The task has no owner who waits for it: its admission goes to an agent that has no
 * such wait, and is dropped there. Its outcome can be asked for by its id, which the failed exchange's outcome carries.
 */
#include "bus/compensate.h"
#include "base/base.h"
#include "bus/conv.h"
#include "data/options.h"
#include <inttypes.h>
#include <stdio.h>

static lim_err child_terms(lim_process *self, const lim__terms *of, uint64_t durable, lim__terms **out)
{
    char key[40];
    lim__buf block = { 0 };
    lim_dispatch_opts o = { .size = sizeof o,
                            .cause = { .conv = { lim_self(self).id }, .hops = of->hops },
                            .trace = of->trace,
                            .durable = durable != 0,
                            .idempotency_key = durable != 0 ? key : NULL };
    snprintf(key, sizeof key, "undo.%" PRIx64, durable);
    if (of->traceparent.len > 0 && of->traceparent.len < sizeof o.cause.traceparent)
        memcpy(o.cause.traceparent, of->traceparent.ptr, of->traceparent.len);
    lim_err err = lim__options_dispatch(&block, &o, 0, NULL);
    if (err == LIM_OK)
        err = lim__terms_parse(lim__buf_bytes(&block), NULL, out);
    lim__buf_fini(&block);
    return err;
}

lim_err lim__compensate(lim_bus *bus, lim_process *self, const lim__terms *terms, uint64_t durable, lim_bytes json,
                        lim_pid *task)
{
    lim__terms *own = NULL;
    if (terms->compensate.len == 0 || terms->hops >= LIM_HOPS_MAX)
        return LIM_E_INVALID;
    lim_err err = child_terms(self, terms, durable, &own);
    if (err != LIM_OK)
        return err;
    lim__sched *s = lim__proc_sched(self);
    lim__msg *msg = lim__msg_new(json);
    lim__open *open =
        msg == NULL ? NULL : lim__open_new(s, LIM__KIND_TASK, terms->compensate, lim__str("compensate"), msg);
    if (open == NULL) {
        lim__msg_unref(msg);
        lim__terms_unref(own);
        return LIM_E_NOMEM;
    }
    open->owner = bus->agents[lim__sched_index(s)];
    open->opened_ns = lim_now_ns(self);
    open->terms = own;
    return lim__conv_spawn(bus, self, open, task);
}
