/* SPDX-License-Identifier: Apache-2.0
 * system.c - administration: the $sys groups, which answer JSON asks. Here: what each of them knows, and the processes.
 *
 * One participant per group, members like any other: an ask of $sys.groups goes the way of every ask. A request is an
 * object with an "op" and that op's fields; an op or a field that is not in the table below is refused with the nearest
 * one that is. docs/protocol.md, "System groups", describes them for clients. */
#include "bus/system.h"
#include "base/near.h"
#include "bus/participant.h"
#include "bus/saga.h"
#include "bus/schedule.h"
#include <stdio.h>
#include <stdlib.h>

static const struct {
    lim__service service;
    const char *group;
    void (*on_signal)(lim__system *s, const lim_signal *signal); /* hears every one, after a request was answered */
    void (*before)(lim__system *s);                              /* before each signal, unless a commit is under way */
} services[] = {
    { LIM__SYS_INFO, "$sys.info", NULL, NULL },
    { LIM__SYS_CHANNELS, "$sys.channels", NULL, NULL },
    { LIM__SYS_GROUPS, "$sys.groups", NULL, NULL },
    { LIM__SYS_QUEUES, "$sys.queues", NULL, NULL },
    { LIM__SYS_TASKS, "$sys.tasks", NULL, NULL },
    { LIM__SYS_DEAD, "$sys.dead", NULL, NULL },
    { LIM__SYS_WORKERS, "$sys.workers", NULL, NULL },
    { LIM__SYS_CONVERSATIONS, "$sys.conversations", NULL, NULL },
    { LIM__SYS_ARTIFACTS, "$sys.artifacts", lim__sys_artifacts_on_signal, NULL },
    { LIM__SYS_SCHEDULES, "$sys.schedules", lim__schedules_on_signal, lim__schedules_before },
    { LIM__SYS_SAGAS, "$sys.sagas", lim__sagas_on_signal, lim__sagas_before },
    { LIM__SYS_STORE, "$sys.store", lim__sys_store_on_signal, NULL },
    { LIM__SYS_ROUTES, "$sys.routes", NULL, NULL },
    { LIM__SYS_CURSORS, "$sys.cursors", NULL, NULL },
};

#define CONFIGURE                                                                                                      \
    "queue attempts_max backoff_min_ms backoff_max_ms backoff_factor_percent backoff_jitter_percent losses_max "       \
    "high_water limit in_flight_max rate rate_period_ms key_in_flight_max key_rate key_rate_period_ms "                \
    "on_failing_head "                                                                                                 \
    "start_to_close_ms progress_ms dead_max remember_ms remember_max remember_bytes remember_forgets trace durable "   \
    "reconnect_grace_ms"

#define CREATE                                                                                                         \
    "name retain_age_ms retain_bytes retain_count retain_latest overflow dead_letter sync window_ms window_keys "      \
    "window_bytes window_slides window_forgets"

#define SCHEDULE                                                                                                       \
    "name replace queue channel type payload payload_base64 options timeout_ms at every_ms rrule cron start zone "     \
    "catch_up catch_up_max grace_ms overlap paused"

#define DEPLOY                                                                                                         \
    "group hash cpu_us wall_ms memory_bytes log_bytes unfinished on_fault breaker_faults breaker_ms keep trial "       \
    "percent ramp_key ramp_where if_version by channel"

static const lim__sys_op ops[] = {
    { LIM__SYS_INFO, "info", "", lim__sys_info },
    { LIM__SYS_CHANNELS, "ls", "", lim__sys_channel_ls },
    { LIM__SYS_CHANNELS, "show", "name", lim__sys_channel_show },
    { LIM__SYS_CHANNELS, "create", CREATE " allow_hold durable", lim__sys_channel_create },
    { LIM__SYS_CHANNELS, "configure", CREATE, lim__sys_channel_configure },
    { LIM__SYS_CHANNELS, "delete", "name", lim__sys_channel_delete },
    { LIM__SYS_CHANNELS, "purge", "name before", lim__sys_channel_purge },
    { LIM__SYS_CHANNELS, "get", "name key", lim__sys_channel_get },
    { LIM__SYS_CHANNELS, "peek", "name from max", lim__sys_channel_peek },
    { LIM__SYS_CHANNELS, "close", "name", lim__sys_channel_close },
    { LIM__SYS_GROUPS, "ls", "namespace", lim__sys_group_ls },
    { LIM__SYS_GROUPS, "show", "name", lim__sys_group_show },
    { LIM__SYS_GROUPS, "deploy", DEPLOY, lim__sys_group_deploy },
    { LIM__SYS_GROUPS, "rm", "name", lim__sys_group_rm },
    { LIM__SYS_QUEUES, "ls", "namespace", lim__sys_queue_ls },
    { LIM__SYS_QUEUES, "show", "queue", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "why", "queue", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "configure", CONFIGURE, lim__sys_queue_make },
    { LIM__SYS_QUEUES, "limit", "queue key in_flight_max rate rate_period_ms clear", lim__sys_queue_make },
    { LIM__SYS_QUEUES, "pause", "queue", lim__sys_queue_make },
    { LIM__SYS_QUEUES, "resume", "queue", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "drain", "queue", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "purge", "queue", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "keys", "queue after max", lim__sys_queue_op },
    { LIM__SYS_QUEUES, "unpark", "queue order_key", lim__sys_queue_op },
    { LIM__SYS_TASKS, "ls", "queue after max", lim__sys_task_ls },
    { LIM__SYS_TASKS, "show", "id", lim__sys_task_show },
    { LIM__SYS_TASKS, "cancel", "id", lim__sys_task_cancel },
    { LIM__SYS_TASKS, "retry", "id queue", lim__sys_task_retry },
    { LIM__SYS_DEAD, "ls", "queue after max", lim__sys_dead_ls },
    { LIM__SYS_DEAD, "show", "id queue", lim__sys_dead_show },
    { LIM__SYS_DEAD, "replay", "id all queue", lim__sys_dead_op },
    { LIM__SYS_DEAD, "drop", "id all queue", lim__sys_dead_op },
    { LIM__SYS_WORKERS, "ls", "queue namespace", lim__sys_worker_ls },
    { LIM__SYS_WORKERS, "show", "identity", lim__sys_worker_show },
    { LIM__SYS_WORKERS, "drain", "identity queue", lim__sys_worker_op },
    { LIM__SYS_WORKERS, "resume", "identity queue", lim__sys_worker_op },
    { LIM__SYS_CONVERSATIONS, "ls", "where max", lim__sys_conv_ls },
    { LIM__SYS_CONVERSATIONS, "show", "id", lim__sys_conv_show },
    { LIM__SYS_CONVERSATIONS, "cancel", "id", lim__sys_conv_cancel },
    { LIM__SYS_CONVERSATIONS, "signal", "id name signal payload payload_base64", lim__sys_conv_signal },
    { LIM__SYS_CONVERSATIONS, "history", "id after", lim__sys_conv_history },
    { LIM__SYS_CONVERSATIONS, "find", "name", lim__sys_conv_find },
    { LIM__SYS_ARTIFACTS, "ls", "", lim__sys_artifact_ls },
    { LIM__SYS_ARTIFACTS, "show", "hash", lim__sys_artifact_show },
    { LIM__SYS_ARTIFACTS, "load", "engine name code", lim__sys_artifact_load },
    { LIM__SYS_ARTIFACTS, "begin", "engine name bytes hash", lim__sys_upload_begin },
    { LIM__SYS_ARTIFACTS, "chunk", "upload at code", lim__sys_upload_chunk },
    { LIM__SYS_ARTIFACTS, "end", "upload", lim__sys_upload_end },
    { LIM__SYS_ARTIFACTS, "drop", "upload", lim__sys_upload_drop },
    { LIM__SYS_ARTIFACTS, "rm", "hash", lim__sys_artifact_rm },
    { LIM__SYS_SCHEDULES, "add", SCHEDULE, lim__sys_schedule_add },
    { LIM__SYS_SCHEDULES, "ls", "after max", lim__sys_schedule_ls },
    { LIM__SYS_SCHEDULES, "show", "name", lim__sys_schedule_show },
    { LIM__SYS_SCHEDULES, "pause", "name", lim__sys_schedule_pause },
    { LIM__SYS_SCHEDULES, "resume", "name", lim__sys_schedule_resume },
    { LIM__SYS_SCHEDULES, "rm", "name", lim__sys_schedule_rm },
    { LIM__SYS_SCHEDULES, "fire", "name", lim__sys_schedule_fire },
    { LIM__SYS_CURSORS, "ls", "channel", lim__sys_cursor_ls },
    { LIM__SYS_CURSORS, "show", "channel cursor", lim__sys_cursor_op },
    { LIM__SYS_CURSORS, "why", "channel cursor", lim__sys_cursor_op },
    { LIM__SYS_CURSORS, "reset", "channel cursor from", lim__sys_cursor_op },
    { LIM__SYS_CURSORS, "delete", "channel cursor", lim__sys_cursor_op },
    { LIM__SYS_SAGAS, "run", "name timeout_ms durable steps", lim__sys_saga_run },
    { LIM__SYS_SAGAS, "ls", "ended", lim__sys_saga_ls },
    { LIM__SYS_SAGAS, "show", "id", lim__sys_saga_show },
    { LIM__SYS_SAGAS, "cancel", "id", lim__sys_saga_cancel },
    { LIM__SYS_STORE, "info", "", lim__sys_store_info },
    { LIM__SYS_STORE, "backup", "to", lim__sys_store_backup },
    { LIM__SYS_ROUTES, "ls", "", lim__sys_route_ls },
    { LIM__SYS_ROUTES, "show", "group channel", lim__sys_route_show },
    { LIM__SYS_ROUTES, "history", "group channel after max", lim__sys_route_history },
    { LIM__SYS_ROUTES, "logs", "group channel after max", lim__sys_route_logs },
    { LIM__SYS_ROUTES, "deploy", DEPLOY, lim__sys_group_deploy },
    { LIM__SYS_ROUTES, "rollback", "group channel version by", lim__sys_route_command },
    { LIM__SYS_ROUTES, "rm", "channel", lim__sys_route_command },
    { LIM__SYS_ROUTES, "promote", "group by channel", lim__sys_route_command },
    { LIM__SYS_ROUTES, "stop", "group by channel", lim__sys_route_command },
};

/* ---- requests ---- */

/* The words of a text: *at is moved behind the next one. */
static bool next_word(const char **at, lim_bytes *word)
{
    *at += strspn(*at, " ");
    *word = lim__bytes(*at, strcspn(*at, " "));
    *at += word->len;
    return word->len > 0;
}

/* "unknown op "shw"; did you mean "show"? It is one of: ls, show". `names`: separated by spaces; may be "". */
static void refuse_unknown(lim__system *s, const char *what, lim_bytes given, const char *names)
{
    char all[600] = "";
    size_t used = 0;
    lim__near near = { .word = given };
    lim_bytes word;
    for (const char *at = names; next_word(&at, &word) && used < sizeof all;) {
        lim__near_offer(&near, word);
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%.*s", used > 0 ? ", " : "", (int)word.len,
                                 (const char *)word.ptr);
    }
    lim__sys_refuse(s, LIM_E_INVALID,
                    near.best.len > 0 ? "%s \"%.*s\" is unknown; did you mean \"%.*s\"? known: %s"
                                      : "%s \"%.*s\" is unknown%.*s; known: %s",
                    what, (int)(given.len < 64 ? given.len : 64), (const char *)given.ptr, (int)near.best.len,
                    near.best.len > 0 ? (const char *)near.best.ptr : "", *all != '\0' ? all : "none");
}

static bool has_word(const char *words, lim_bytes wanted)
{
    lim_bytes word;
    while (next_word(&words, &word))
        if (lim__bytes_eq(word, wanted))
            return true;
    return false;
}

static bool fields_known(lim__system *s, const lim__sys_op *op)
{
    lim__iter it = lim__iter_begin(s->root);
    char what[64];
    while (lim__iter_next(&it)) {
        if (lim__bytes_eq(it.key, lim__str("op")) || has_word(op->fields, it.key))
            continue;
        snprintf(what, sizeof what, "%s: the field", op->name);
        refuse_unknown(s, what, it.key, op->fields);
        return false;
    }
    return true;
}

static void unknown_op(lim__system *s, lim_bytes name)
{
    char names[200] = "", what[48];
    size_t used = 0;
    for (size_t i = 0; i < LIM_COUNT(ops); i++)
        if (ops[i].service == s->service)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s ", ops[i].name);
    LIM_ASSERT(used < sizeof names);
    snprintf(what, sizeof what, "%s: the op", services[s->service - 1].group);
    refuse_unknown(s, what, name, names);
}

static void on_request(lim__system *s, const lim__request *r)
{
    lim_diag diag = { 0 };
    s->asker = (lim__asker){ r->conv, r->lease };
    if (r->lease == 0 || r->event != LIM_EVENT_NONE)
        return; /* told, not asked */
    if (lim__doc_parse(s->doc, lim__msg_bytes(r->payload), &diag) != LIM_OK) {
        lim__sys_refuse(s, LIM_E_INVALID, "the request is not JSON: %s", diag.text);
        return;
    }
    s->request = r;
    s->root = lim__doc_root(s->doc);
    lim_bytes name = lim__val_bytes(s->root, "op", lim__bytes("", 0));
    for (size_t i = 0; i < LIM_COUNT(ops); i++) {
        if (ops[i].service != s->service || !lim__bytes_eq(name, lim__str(ops[i].name)))
            continue;
        if (fields_known(s, &ops[i]))
            ops[i].run(s);
        return;
    }
    unknown_op(s, name);
}

/* ---- the processes ---- */

/* Nobody says anything to it, but somebody may have it in a durable conversation. */
static void take_note(lim__system *s, const lim__request *r)
{
    lim__taken *t =
        lim__request_numbered(r) ? lim__letter_new(lim__proc_sched(s->self), &lim__type_taken, sizeof *t) : NULL;
    if (t == NULL)
        return;
    t->lease = r->lease;
    (void)!lim__send_reserved(s->self, lim__alias_pid(s->bus, r->conv.id), t);
}

static void on_message(lim__system *s, const lim_signal *signal)
{
    if (signal->type == &lim__type_request) {
        take_note(s, signal->body.ptr);
        on_request(s, signal->body.ptr);
    } else if (signal->type == &lim__type_shown) {
        const lim__shown *shown = signal->body.ptr;
        lim__gather_part(s, shown->ref, lim__bytes(shown->json, shown->len));
    } else if (signal->type == &lim__type_deployed) {
        lim__sys_deployed(s, signal->body.ptr);
    }
}

static void deal_with(lim__system *s, const lim_signal *signal)
{
    if (signal->kind == LIM_SIGNAL_TIMER)
        lim__gather_timer(s, signal->ref);
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->type != NULL)
        on_message(s, signal);
    if (services[s->service - 1].on_signal != NULL)
        services[s->service - 1].on_signal(s, signal);
}

static void on_signal(lim_process *self, const lim_signal *signal, void *state)
{
    lim__system *s = state;
    s->self = self;
    if (s->doc == NULL) {
        lim__list_init(&s->gathers);
        lim__stash_init(&s->stash);
        s->doc = lim__doc_new();
        s->part = lim__doc_new();
        if (s->doc == NULL || s->part == NULL) {
            lim_exit(self, LIM_FAULT);
            return;
        }
    }
    if (!s->busy && services[s->service - 1].before != NULL)
        services[s->service - 1].before(s);
    if (!s->busy || signal->type == &lim__type_stored)
        deal_with(s, signal);
    else if (lim__stash_put(&s->stash, self, signal) != LIM_OK)
        lim_exit(self, LIM_FAULT);
    if (s->replaying)
        return;
    s->replaying = true;
    while (!s->busy && lim__stash_replay(&s->stash, self, on_signal, s))
        continue;
    s->replaying = false;
}

static void on_end(void *state, lim_reason reason)
{
    lim__system *s = state;
    (void)reason;
    if (s->doc != NULL) {
        lim__gather_drop(s);
        lim__sys_uploads_drop(s);
        lim__stash_fini(&s->stash, NULL);
    }
    lim__doc_free(s->doc);
    lim__doc_free(s->part);
}

/* Once it is there (at first, and again after a restart) it joins its group. */
static void on_start(void *ctx, lim_pid pid, uint32_t starts)
{
    lim__system *s = ctx;
    lim_pid group;
    (void)starts;
    const char *name = services[s->service - 1].group;
    if (lim__group_get(s->bus, NULL, lim__str(name), &group) != LIM_OK)
        return;
    lim__join *j = lim__join_new(NULL, pid, LIM__MEMBER_SERVE, lim__str("bus"), LIM_UNLIMITED, NULL, NULL);
    if (j == NULL)
        return;
    j->reply_to = pid;
    (void)!lim__post_reserved(s->bus->rt, group, j);
}

lim_err lim__system_open(lim_bus *bus)
{
    lim_supervisor_opts opts = { .size = sizeof opts, .name = "system", .restarts_max = 8, .period_ms = 60000 };
    lim_err err = lim_supervisor_open(bus->rt, &opts, &bus->supervisor);
    for (size_t i = 0; err == LIM_OK && i < LIM_COUNT(services); i++) {
        lim__system *init = &((lim__system *)bus->system)[i];
        LIM_ASSERT(services[i].service == i + 1);
        *init = (lim__system){ .bus = bus, .service = services[i].service };
        lim_child_spec spec = { .size = sizeof spec, .restart = LIM_PERMANENT, .on_start = on_start, .ctx = init };
        spec.spawn = (lim_spawn_opts){ .size = sizeof spec.spawn,
                                       .name = services[i].group,
                                       .on_signal = on_signal,
                                       .on_end = on_end,
                                       .state_bytes = sizeof *init,
                                       .init = init,
                                       .init_bytes = sizeof *init,
                                       .mailbox_max = 65536,
                                       .trap_exit = true };
        err = lim_supervisor_add(bus->rt, bus->supervisor, &spec);
    }
    return err;
}

/* They come up by themselves, a moment later; on real threads an open bus is one that can be asked. */
lim_err lim__system_await(lim_bus *bus)
{
    static const char request[] = "{\"op\":\"ls\"}"; /* whatever the answer */
    lim_ask_opts opts = { .size = sizeof opts, .timeout_ms = 10000, .wait = true };
    lim_err err = LIM_OK;
    for (size_t i = 0; err == LIM_OK && i < LIM_COUNT(services); i++) {
        lim_outcome o = { 0 };
        err = lim_ask(bus, services[i].group, lim__str(request), &opts, &o);
        lim_outcome_fini(&o);
    }
    return err;
}

void *lim__system_new(void)
{
    return calloc(LIM_COUNT(services), sizeof(lim__system));
}
