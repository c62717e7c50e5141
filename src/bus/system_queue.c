/* SPDX-License-Identifier: Apache-2.0
 * system_queue.c - $sys.queues, $sys.tasks, $sys.dead and $sys.workers: what the groups themselves answer.
 *
 * A request about one queue goes to its process as it came, as an `admin` letter; one that names no queue goes to all
 * of them, and whoever has the task, dead letter or worker answers. Rules may be given to a queue before anybody works
 * on it: configure, limit and pause make it. */
#include "bus/system.h"

#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).ptr

static const lim_bytes nothing = { "", 0 };

static const char *subject(const lim__system *s)
{
    return s->service == LIM__SYS_QUEUES  ? "queue"
           : s->service == LIM__SYS_TASKS ? "task"
           : s->service == LIM__SYS_DEAD  ? "dead"
                                          : "worker";
}

typedef void none_fn(lim__system *s, lim__gather *g);

/* The request to one queue. */
static void to_one(lim__system *s, lim_pid queue, lim__gather_how how, const char *list, lim_bytes what)
{
    lim__gather *g = lim__gather_begin(s, how, list, what);
    if (g == NULL)
        return;
    lim__gather_admin(s, g, queue, subject(s));
    lim__gather_ready(s, g);
}

static void to_named(lim__system *s, lim__gather_how how, const char *list, lim_bytes what)
{
    lim_bytes name;
    if (!lim__sys_name(s, "queue", &name))
        return;
    lim_pid queue = lim__group_find(s->bus, name);
    if (queue.id != 0)
        to_one(s, queue, how, list, what);
    else
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no queue %.*s; queue ls shows what there is", TEXT(name));
}

/* The request to all, or the one it names. */
static void to_all(lim__system *s, lim__gather_how how, const char *list, lim_bytes what, none_fn *none)
{
    if (lim__sys_given(s, "queue")) {
        to_named(s, how, list, what);
        return;
    }
    lim__gather *g = lim__gather_begin(s, how, list, what);
    if (g == NULL)
        return;
    g->none = none;
    lim__gather_admins(s, g, subject(s));
}

/* ---- $sys.queues ---- */

void lim__sys_queue_ls(lim__system *s)
{
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "queues", nothing);
    if (g != NULL)
        lim__gather_groups(s, g, LIM__SHOW_LINE);
}

void lim__sys_queue_op(lim__system *s)
{
    to_named(s, LIM__GATHER_FIRST, NULL, nothing);
}

void lim__sys_queue_make(lim__system *s)
{
    lim_bytes name;
    lim_pid queue = { 0 };
    if (!lim__sys_name(s, "queue", &name))
        return;
    if (((const char *)name.ptr)[0] == '$') {
        lim__sys_refuse(s, LIM_E_INVALID, "names that begin with $ are the system's; choose another");
        return;
    }
    lim_err err = lim__group_get(s->bus, s->self, name, &queue);
    if (err == LIM_OK)
        to_one(s, queue, LIM__GATHER_FIRST, NULL, nothing);
    else
        lim__sys_refuse(s, err,
                        err == LIM_E_INVALID
                            ? "%.*s is no name for a queue; use letters, digits, - and _, joined by dots"
                            : "%.*s: there is no room for one more queue; remove one",
                        TEXT(name));
}

/* ---- $sys.tasks (show and cancel: system_conv.c) ---- */

void lim__sys_task_ls(lim__system *s)
{
    to_named(s, LIM__GATHER_FIRST, NULL, nothing);
}

void lim__sys_task_retry(lim__system *s)
{
    lim_pid task;
    if (lim__sys_id(s, "id", &task))
        to_all(s, LIM__GATHER_FIRST, NULL, nothing, NULL);
}

/* ---- $sys.dead ---- */

void lim__sys_dead_ls(lim__system *s)
{
    to_all(s, LIM__GATHER_PICK, "dead", lim__str("dead"), NULL);
}

static void no_dead(lim__system *s, lim__gather *g)
{
    (void)g;
    lim__sys_refuse(s, LIM_E_NOTFOUND, "no queue has such a dead letter; dead ls shows what there is");
}

void lim__sys_dead_show(lim__system *s)
{
    lim_pid task;
    if (lim__sys_id(s, "id", &task))
        to_all(s, LIM__GATHER_PICK_FIRST, NULL, lim__str("dead"), no_dead);
}

/* replay, drop: one by its id, or all of a queue. */
void lim__sys_dead_op(lim__system *s)
{
    lim_pid task;
    bool all = lim__val_bool(s->root, "all", false);
    if (all == lim__sys_given(s, "id")) {
        lim__sys_refuse(s, LIM_E_INVALID, "say which: an \"id\", or \"all\": true with the \"queue\"");
        return;
    }
    if (all)
        to_named(s, LIM__GATHER_FIRST, NULL, nothing);
    else if (lim__sys_id(s, "id", &task))
        to_all(s, LIM__GATHER_FIRST, NULL, nothing, no_dead);
}

/* ---- $sys.workers ---- */

void lim__sys_worker_ls(lim__system *s)
{
    lim_bytes name;
    const lim__show show = { .max = LIM__SYS_LS_MAX, .what = LIM__SHOW_MEMBERS };
    bool one = lim__sys_given(s, "queue");
    if (one && !lim__sys_name(s, "queue", &name))
        return;
    lim_pid queue = one ? lim__group_find(s->bus, name) : (lim_pid){ 0 };
    if (one && queue.id == 0) {
        lim__sys_refuse(s, LIM_E_NOTFOUND, "there is no queue %.*s; queue ls shows what there is", TEXT(name));
        return;
    }
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_JOIN, "workers", nothing);
    if (g == NULL)
        return;
    if (!one) {
        lim__gather_groups(s, g, LIM__SHOW_MEMBERS);
        return;
    }
    lim__gather_show(s, g, queue, &show, nothing);
    lim__gather_ready(s, g);
}

static void no_worker(lim__system *s, lim__gather *g)
{
    lim__sys_refuse(s, LIM_E_NOTFOUND, "nobody is registered as %s; worker ls shows who is", g->what);
}

void lim__sys_worker_show(lim__system *s)
{
    lim_bytes identity;
    if (!lim__sys_name(s, "identity", &identity))
        return;
    lim__gather *g = lim__gather_begin(s, LIM__GATHER_MATCH, NULL, identity);
    if (g == NULL)
        return;
    g->none = no_worker;
    lim__gather_groups(s, g, LIM__SHOW_MEMBERS);
}

/* drain, resume: wherever there is a worker of that identity. */
void lim__sys_worker_op(lim__system *s)
{
    lim_bytes identity;
    if (lim__sys_name(s, "identity", &identity))
        to_all(s, LIM__GATHER_EACH, "workers", identity, no_worker);
}
