/* SPDX-License-Identifier: Apache-2.0
 * reg.c - registrations: serving a group or working for a queue, and what a participant says beside its answers. */
#include "client/client.h"
#include "data/options.h"

#include <stdio.h>
#include <stdlib.h>

lim__reg *lim__client_reg_find(lim_client *c, lim_participant registration)
{
    return (lim__reg *)lim__client_order_find(c, registration.id, LIM__REG);
}

/* ---- registering ---- */

void lim__client_reg_ask(lim_client *c, lim__reg *reg)
{
    lim_err err = lim__client_order_stream(c, &reg->order);
    if (err == LIM_OK)
        err =
            LIM__SAY(c, serve, .stream = reg->order.stream, .kind = reg->serve_kind, .capacity = reg->capacity,
                     .namespace = lim__str(reg->ns), .group = lim__str(reg->group), .identity = lim__str(reg->identity),
                     .types = lim__names_view(&reg->types), .tags = lim__names_view(&reg->tags));
    if (err != LIM_OK)
        lim__client_order_end(c, &reg->order, err, lim_err_text(err), strlen(lim_err_text(err)));
}

void lim__client_reg_free(lim__reg *reg)
{
    LIM_ASSERT(lim__list_empty(&reg->requests) && lim__list_empty(&reg->waiting) && lim__list_empty(&reg->takers));
    lim__newest_fini(&reg->heard);
    lim__buf_fini(&reg->types);
    lim__buf_fini(&reg->tags);
    free(reg->group);
    free(reg);
}

static lim_err check_opts(const lim_client *c, const char *group, const lim_client_serve_opts *opts, uint8_t kind,
                          lim_diag *diag)
{
    char room[256];
    if (!c || !group || group[0] == '\0' || !opts || (opts->identity && strlen(opts->identity) > 255)) {
        lim__diag_set(diag, 0, 0,
                      "a registration needs a client, a group, options, and an identity of at most 255 bytes");
        return LIM_E_INVALID;
    }
    if (lim__in_namespace(opts->ns, group, room) == NULL) {
        lim__diag_set(diag, 0, 0,
                      "a namespace, and the name of a group in one, have no dot, and 240 bytes together at most");
        return LIM_E_INVALID;
    }
    if (opts->size < sizeof *opts || opts->capacity == 0 ||
        (opts->capacity == LIM_UNLIMITED && kind == LIM__SERVE_QUEUE)) {
        lim__diag_set(diag, 0, 0,
                      "lim_client_serve_opts: size or capacity was forgotten, or a worker's capacity is unlimited");
        return LIM_E_MISUSE;
    }
    return LIM_OK;
}

static lim_err pack_names(lim__buf *buf, const char *const *names)
{
    lim_err err = LIM_OK;
    for (; names && *names && err == LIM_OK; names++)
        err = lim__names_add(buf, lim__str(*names));
    return err;
}

static lim_err serve(lim_client *c, const char *group, const lim_client_serve_opts *opts, uint8_t kind, lim_diag *diag,
                     lim_participant *out)
{
    lim_err err = out ? check_opts(c, group, opts, kind, diag) : LIM_E_INVALID;
    if (err != LIM_OK)
        return err;
    lim__reg *reg = calloc(1, sizeof *reg);
    if (!reg)
        return LIM_E_NOMEM;
    lim__list_init(&reg->requests);
    lim__list_init(&reg->waiting);
    lim__list_init(&reg->takers);
    lim__newest_init(&reg->heard, c->os->random(c->os));
    reg->pulled = !opts->handler.on_message;
    reg->serve_kind = kind;
    reg->capacity = opts->capacity;
    reg->on_ready = opts->on_ready;
    reg->on_revoked = opts->on_revoked;
    reg->on_credit = opts->on_credit;
    if (opts->identity)
        memcpy(reg->identity, opts->identity, strlen(opts->identity));
    if (opts->ns)
        snprintf(reg->ns, sizeof reg->ns, "%s", opts->ns);
    reg->group = strdup(group);
    err = reg->group ? pack_names(&reg->types, opts->types) : LIM_E_NOMEM;
    if (err == LIM_OK)
        err = pack_names(&reg->tags, opts->tags);
    if (err != LIM_OK) {
        lim__diag_set(diag, 0, 0, "types and tags are names of at most 255 bytes of UTF-8");
        lim__client_reg_free(reg);
        return err;
    }
    uint64_t id;
    err = lim__client_order_place(c, &reg->order, LIM__REG, &opts->handler, diag, &id);
    if (err == LIM_OK)
        *out = (lim_participant){ id };
    return err;
}

lim_err lim_client_serve(lim_client *c, const char *group, const lim_client_serve_opts *opts, lim_diag *diag,
                         lim_participant *out)
{
    return serve(c, group, opts, LIM__SERVE_GROUP, diag, out);
}

lim_err lim_client_work(lim_client *c, const char *queue, const lim_client_serve_opts *opts, lim_diag *diag,
                        lim_participant *out)
{
    return serve(c, queue, opts, LIM__SERVE_QUEUE, diag, out);
}

lim_err lim_client_leave(lim_client *c, lim_participant p)
{
    lim__client_lock(c);
    lim__order *order = lim__client_order_find(c, p.id, LIM__REG);
    lim_err err = order ? LIM_OK : LIM_E_GONE;
    if (order && order->stream != 0 && c->link == LIM__LINK_UP)
        err = LIM__SAY(c, leave, .stream = order->stream);
    if (order && err == LIM_OK)
        lim__client_order_end(c, order, LIM_OK, "", 0);
    lim__client_unlock(c);
    return err;
}

lim_err lim_client_participant_id(lim_client *c, lim_participant registration, lim_participant *out)
{
    lim__client_lock(c);
    const lim__reg *reg = lim__client_reg_find(c, registration);
    lim_err err = !reg ? LIM_E_GONE : reg->order.state == LIM__ORDER_LIVE ? LIM_OK : LIM_E_UNREACHABLE;
    if (err == LIM_OK)
        *out = (lim_participant){ reg->participant };
    lim__client_unlock(c);
    return err;
}

/* ---- beside requests ---- */

lim_err lim_client_report_used(lim_client *c, lim_participant registration, uint32_t used)
{
    lim__client_lock(c);
    lim__reg *reg = lim__client_reg_find(c, registration);
    lim_err err = reg ? LIM_OK : LIM_E_GONE;
    if (reg && reg->order.state == LIM__ORDER_LIVE)
        err = LIM__SAY(c, report, .stream = reg->order.stream, .used = used);
    if (reg && err == LIM_OK)
        reg->used = used; /* else SERVED says it */
    lim__client_unlock(c);
    return err;
}

lim_err lim_client_say(lim_client *c, const lim_delivery *d, lim_bytes payload)
{
    return lim_client_say_to(c, d, (lim_participant){ 0 }, payload);
}

lim_err lim_client_say_to(lim_client *c, const lim_delivery *d, lim_participant to, lim_bytes payload)
{
    lim__client_lock(c);
    lim__reg *reg = lim__client_reg_find(c, d->self);
    lim_err err = reg ? lim__link_may_put(c) : LIM_E_GONE;
    if (err == LIM_OK && reg->order.state != LIM__ORDER_LIVE)
        err = LIM_E_UNREACHABLE;
    if (err == LIM_OK)
        err =
            LIM__SAY(c, say, .stream = reg->order.stream, .conversation = d->conv.id, .to = to.id, .payload = payload);
    lim__client_unlock_now(c);
    return err;
}
