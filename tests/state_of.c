/* SPDX-License-Identifier: Apache-2.0
 * state_of.c - see state_of.h. */
#include "state_of.h"
#include "actor/internal.h"

void *lim__state_of(lim_runtime *rt, lim_pid pid)
{
    const lim__sched *s = pid.id != 0 ? lim__sched_of(rt, pid) : NULL;
    const lim_process *p = s != NULL ? lim__process_of(s, pid) : NULL;
    return p != NULL ? lim__proc_state(p) : NULL;
}
