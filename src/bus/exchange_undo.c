/* SPDX-License-Identifier: Apache-2.0
 * exchange_undo.c - crash policy `compensate`: an ask that ends crashed leaves a task behind for those who can undo it.
 *
 * The task carries one JSON object:
 *
 *   conversation  id of the ask, hexadecimal              handed_over  "no", "yes" or "unknown"
 *   kind          "ask"                                   parts        of the answer, that had come
 *   group, type   as it was asked                         request      its payload, base64
 *   participant   identity of who had it, "" nobody       attributes   {key: value} of its options
 *   reason        why that one ended, lim_reason_text     crashed_us   when, wall clock, microseconds; 0: unknown */
#include "base/base.h"
#include "base/buf.h"
#include "bus/compensate.h"
#include "bus/exchange_inside.h"
#include <stdlib.h>

/* Standard base64 with padding; NULL: no memory. */
static char *base64(lim_bytes from, size_t *len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = from.ptr;
    char *text = malloc((from.len + 2) / 3 * 4 + 1);
    size_t n = 0;
    for (size_t i = 0; text != NULL && i < from.len; i += 3) {
        size_t left = from.len - i;
        uint32_t three = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0u);
        text[n++] = digits[three >> 18];
        text[n++] = digits[three >> 12 & 63];
        text[n++] = left > 1 ? digits[three >> 6 & 63] : '=';
        text[n++] = left > 2 ? digits[three & 63] : '=';
    }
    *len = n;
    return text;
}

static void put_attributes(lim__json *j, const lim__terms *t)
{
    size_t pos = 0;
    lim_bytes key, text;
    lim__json_open(j, "attributes", '{');
    while (lim__packed_next(t->block, &pos, &key, &text)) {
        const char *equals = lim__bytes_eq(key, lim__str("attr")) ? memchr(text.ptr, '=', text.len) : NULL;
        char name[256];
        size_t len = equals == NULL ? sizeof name : (size_t)(equals - (const char *)text.ptr);
        if (len >= sizeof name)
            continue;
        memcpy(name, text.ptr, len);
        name[len] = '\0';
        lim__json_bytes(j, name, lim__bytes(equals + 1, text.len - len - 1));
    }
    lim__json_close(j);
}

static void put_story(const exchange *x, const lim__outcome_letter *o, lim__buf *out)
{
    size_t len = 0;
    char *request = base64(lim__msg_bytes(x->open->payload), &len);
    lim__json j = lim__json_begin(out);
    lim__json_open(&j, NULL, '{');
    lim__json_id(&j, "conversation", o->conv.id);
    lim__json_str(&j, "kind", lim__conv_kind_text(x->open->kind));
    lim__json_bytes(&j, "group", group_name(x->open));
    lim__json_bytes(&j, "type", type_name(x->open));
    lim__json_bytes(&j, "participant", lim__bytes(o->text, o->participant_len));
    lim__json_str(&j, "reason", lim_reason_text(o->reason));
    lim__json_u64(&j, "crashed_us", o->crashed_wall_us);
    lim__json_str(&j, "handed_over", lim_handed_text(o->handed_over));
    lim__json_u64(&j, "parts", x->extra != NULL ? x->extra->parts : 0);
    lim__json_bytes(&j, "request", lim__bytes(request, len));
    put_attributes(&j, x->open->terms);
    lim__json_close(&j);
    out->failed |= request == NULL;
    free(request);
}

void lim__ex_undo(const exchange *x, lim_process *self, lim__outcome_letter *o)
{
    if (o->how != LIM_HOW_CRASHED || x->open->on_crash != LIM_CRASH_COMPENSATE || x->open->terms == NULL)
        return;
    lim__buf story = { 0 };
    put_story(x, o, &story);
    lim_err err = story.failed
                      ? LIM_E_NOMEM
                      : lim__compensate(x->bus, self, x->open->terms, 0, lim__buf_bytes(&story), &o->compensation);
    lim__buf_fini(&story);
    if (err != LIM_OK)
        LIM__EVENT(x->bus, self, "compensation_failed", { "group", group_name(x->open) },
                   { "why", lim__str(lim_err_text(err)) });
}
