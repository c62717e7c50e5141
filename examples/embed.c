/* SPDX-License-Identifier: Apache-2.0
 * embed.c - a bus inside a program: a channel, a group, an exchange that ends, routing code deployed while it runs.
 * The README shows this file; the tests build and run it. */
#include <liminal/liminal.h>
#include <stdio.h>

#define OPTS(type, ...) (&(type){ .size = sizeof(type), __VA_ARGS__ })
#define BYTES(lit)      ((lim_bytes){ (lit), sizeof(lit) - 1 })
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        lim_err e_ = (call);                                                                                           \
        if (e_ != LIM_OK) {                                                                                            \
            fprintf(stderr, #call ": %s\n", lim_err_text(e_));                                                         \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static lim_done on_order(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)bus, (void)ctx;
    printf("order %.*s\n", (int)d->payload.len, (const char *)d->payload.ptr);
    return LIM_DONE;
}

static lim_done on_quote(lim_bus *bus, const lim_delivery *d, void *ctx)
{
    (void)ctx;
    return lim_reply(bus, d, BYTES("{\"price\":42}")) == LIM_OK ? LIM_DONE : LIM_FAIL;
}

int main(void)
{
    lim_bus *bus;
    lim_channel orders;
    lim_sub sub;
    lim_admission admission;
    lim_participant quoter;
    lim_outcome quote;
    lim_hash code;
    lim_diag diag;

    TRY(lim_bus_open(OPTS(lim_bus_opts, .scheduler_count = 1), &bus));

    /* A publish is answered with a verdict. */
    TRY(lim_channel_open(bus, "orders", OPTS(lim_channel_opts, .allow_hold = false), &orders));
    TRY(lim_subscribe(bus, "orders", OPTS(lim_sub_opts, .handler = { .on_message = on_order }), &sub));
    TRY(lim_publish(bus, orders, BYTES("{\"amount\":1200}"), NULL, &admission));
    printf("%s, delivered to %u\n", admission.verdict == LIM_ACCEPT ? "accepted" : "not accepted", admission.delivered);

    /* An ask ends exactly once: with a reply, or with the reason why there is none. */
    TRY(lim_serve(bus, "quotes", OPTS(lim_serve_opts, .capacity = 8, .handler = { .on_message = on_quote }), &quoter));
    TRY(lim_artifact_load(bus, LIM_LUA, BYTES("return function(msg, candidates) return candidates[1] end"), "first.lua",
                          &diag, &code));
    TRY(lim_deploy(bus, "quotes", &code, OPTS(lim_deploy_opts, .on_fault = LIM_ON_FAULT_PREVIOUS), &diag, NULL));
    TRY(lim_ask(bus, "quotes", BYTES("{\"sku\":7}"), OPTS(lim_ask_opts, .timeout_ms = 1000), &quote));
    if (quote.how == LIM_HOW_REPLY)
        printf("quote %.*s\n", (int)quote.payload.len, (const char *)quote.payload.ptr);
    else
        printf("no quote: %s\n", lim_how_text(quote.how)); /* crashed, timeout, refused, ... */
    lim_outcome_fini(&quote);

    TRY(lim_bus_drain(bus, 2000));
    lim_bus_close(bus);
    return 0;
}
