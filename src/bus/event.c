/* SPDX-License-Identifier: Apache-2.0
 * event.c - state changes of consequence: one line in the log, one message on $sys.events.KIND.
 *
 * Events are rare next to messages, so nothing here is clever; when nobody listens and nothing is logged, an event
 * costs a look-up. An event is for people and tools: nothing in liminal waits for one. */
#include "base/base.h"
#include "bus/bus.h"

static void log_line(lim_bus *bus, const char *kind, const lim__event_field *fields, size_t count)
{
    lim__buf b = { 0 };
    if (bus->opts.on_log == NULL)
        return;
    lim__buf_format(&b, "event=%s", kind);
    for (size_t i = 0; i < count; i++) {
        bool quote = memchr(fields[i].text.ptr, ' ', fields[i].text.len) != NULL;
        lim__buf_format(&b, quote ? " %s=\"%.*s\"" : " %s=%.*s", fields[i].key, (int)fields[i].text.len,
                        (const char *)fields[i].text.ptr);
    }
    lim__buf_add(&b, "", 1);
    if (!b.failed)
        bus->opts.on_log(bus->opts.log_ctx, (const char *)b.ptr + b.start);
    lim__buf_fini(&b);
}

static void publish(lim_bus *bus, lim_process *self, const char *kind, const lim__event_field *fields, size_t count)
{
    lim__buf name = { 0 }, body = { 0 };
    lim_admission ignored;
    lim__buf_format(&name, "$sys.events.%s", kind);
    lim__channel *ch = name.failed ? NULL : lim__channel_find(bus->channels, lim__buf_bytes(&name));
    lim__buf_fini(&name);
    if (ch == NULL)
        return;
    lim__json j = lim__json_begin(&body);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "event", kind);
    lim__json_u64(&j, "wall_us", bus->os->wall_ns(bus->os) / 1000);
    for (size_t i = 0; i < count; i++)
        lim__json_bytes(&j, fields[i].key, fields[i].text);
    lim__json_close(&j);
    if (!body.failed)
        (void)!lim__publish(bus->channels, self, ch, lim__buf_bytes(&body), lim__bytes(NULL, 0), false, &ignored);
    lim__buf_fini(&body);
    lim__channel_unref(ch);
}

void lim__bus_event(lim_bus *bus, lim_process *self, const char *kind, const lim__event_field *fields, size_t count)
{
    log_line(bus, kind, fields, count);
    publish(bus, self, kind, fields, count);
}
