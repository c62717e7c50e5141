/* SPDX-License-Identifier: Apache-2.0
 * slot_book.c - what happened in a slot, and what its functions printed: two lists with bounds, numbered, the oldest
 * first. */
#include "base/base.h"
#include "bus/slot.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void forget_entry(lim__slot *s)
{
    free(LIM_CONTAINER(lim__list_pop(&s->history), lim__slot_entry, node));
    s->history_count--;
}

static void keep_entry(lim__slot *s, lim__slot_entry *e)
{
    lim__list_push(&s->history, &e->node);
    if (++s->history_count > LIM__SLOT_HISTORY_MAX)
        forget_entry(s);
}

void lim__slot_note(lim__slot *s, const char *kind, const char *version, const char *previous, const char *by,
                    const char *format, ...)
{
    va_list args;
    lim__slot_entry *e = calloc(1, sizeof *e);
    lim__slot_entry lost;
    if (e == NULL)
        e = &lost; /* it is told, though nobody will remember it */
    *e = (lim__slot_entry){ .n = ++s->next_entry, .wall_ns = s->o.bus->os->wall_ns(s->o.bus->os) };
    snprintf(e->kind, sizeof e->kind, "%s", kind);
    snprintf(e->version, sizeof e->version, "%s", version);
    snprintf(e->previous, sizeof e->previous, "%s", previous);
    snprintf(e->by, sizeof e->by, "%s", by);
    va_start(args, format);
    vsnprintf(e->detail, sizeof e->detail, format, args);
    va_end(args);
    LIM__EVENT(s->o.bus, s->self, kind, { s->o.kind, s->o.name }, { "version", lim__str(e->version) },
               { "previous", lim__str(e->previous) }, { "by", lim__str(e->by) }, { "detail", lim__str(e->detail) });
    if (e != &lost)
        keep_entry(s, e);
}

void lim__slot_remember(lim__slot *s, const lim__slot_entry *entry)
{
    lim__slot_entry *e = malloc(sizeof *e);
    if (entry->n > s->next_entry)
        s->next_entry = entry->n;
    if (e == NULL)
        return;
    *e = *entry;
    keep_entry(s, e);
}

static void forget_line(lim__slot *s)
{
    lim__slot_line *l = LIM_CONTAINER(lim__list_pop(&s->lines), lim__slot_line, node);
    s->line_count--;
    s->line_bytes -= l->len;
    free(l);
}

void lim__slot_log(void *version, const char *line, size_t len)
{
    const lim__version *v = version;
    lim__slot *s = v->slot;
    if (len > LIM__SLOT_LINE_MAX)
        len = LIM__SLOT_LINE_MAX;
    lim__slot_line *l = malloc(sizeof *l + len);
    if (l == NULL) {
        s->lines_dropped++;
        return;
    }
    *l = (lim__slot_line){ .n = ++s->next_line, .wall_ns = s->o.bus->os->wall_ns(s->o.bus->os), .len = (uint32_t)len };
    snprintf(l->version, sizeof l->version, "%s%s", v->id, v->shadow ? " (shadow)" : "");
    memcpy(l->text, line, len);
    lim__list_push(&s->lines, &l->node);
    s->line_count++;
    s->line_bytes += l->len;
    while (s->line_count > LIM__SLOT_LOG_LINES || s->line_bytes > LIM__SLOT_LOG_BYTES)
        forget_line(s);
}

void lim__slot_book_fini(lim__slot *s)
{
    while (!lim__list_empty(&s->history))
        forget_entry(s);
    while (!lim__list_empty(&s->lines))
        forget_line(s);
}
