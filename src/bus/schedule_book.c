/* SPDX-License-Identifier: Apache-2.0
 * schedule_book.c - the book of schedules: what an add request means, and the changes it knows.
 *
 * lim__schedules_apply is the only way in: a new schedule is built as a whole, every refusal comes before the first
 * change. The heap is ordered by (due, id), so that what is due at one instant fires in the order it was added. */
#include "base/base64.h"
#include "bus/schedule_inside.h"
#include "data/data.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
enum { DAY_MS = 86400000, EVERY_MIN_MS = 1000, OPTIONS_MAX = 4096 };

typedef struct zone_node {
    lim__list node;
    lim__zone *zone;
} zone_node;

/* ---- the heap ---- */

static bool before(const lim__schedule *a, const lim__schedule *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->id < b->id;
}

static void place(lim__schedules *book, lim__schedule *s, uint32_t at)
{
    book->heap[at] = s;
    s->heap_at = at;
}

static void sift(lim__schedules *book, lim__schedule *s, uint32_t at)
{
    while (at > 0 && before(s, book->heap[(at - 1) / 2])) {
        place(book, book->heap[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < book->heap_count && before(book->heap[child + 1], book->heap[child]))
            child++;
        if (child >= book->heap_count || !before(book->heap[child], s))
            break;
        place(book, book->heap[child], at);
        at = child;
    }
    place(book, s, at);
}

static lim_err heap_reserve(lim__schedules *book)
{
    if (book->by_name.count < book->heap_cap)
        return LIM_OK;
    uint32_t cap = book->heap_cap == 0 ? 16 : book->heap_cap * 2;
    lim__schedule **more = realloc(book->heap, cap * sizeof(lim__schedule *));
    if (more == NULL)
        return LIM_E_NOMEM;
    book->heap = more;
    book->heap_cap = cap;
    return LIM_OK;
}

static void heap_remove(lim__schedules *book, lim__schedule *s)
{
    lim__schedule *last = book->heap[--book->heap_count];
    if (last != s)
        sift(book, last, s->heap_at);
}

/* Into the state that `due_ns` and `state` say. There is room: one place per schedule. */
static void set_due(lim__schedules *book, lim__schedule *s, lim__schedule_state state, uint64_t due_ns)
{
    bool was = s->state == LIM__SCHEDULE_ACTIVE;
    s->state = state == LIM__SCHEDULE_ACTIVE && due_ns == UINT64_MAX ? LIM__SCHEDULE_DONE : state;
    s->due_ns = due_ns;
    if (was && s->state == LIM__SCHEDULE_ACTIVE)
        sift(book, s, s->heap_at);
    else if (was)
        heap_remove(book, s);
    else if (s->state == LIM__SCHEDULE_ACTIVE)
        sift(book, s, book->heap_count++);
}

/* ---- the rule ---- */

uint64_t lim__schedule_next(const lim__schedule *s, uint64_t after_ns)
{
    switch (s->kind) {
    case LIM__SCHEDULE_AT:
        return s->start_ns > after_ns ? s->start_ns : UINT64_MAX;
    case LIM__SCHEDULE_EVERY:
        return after_ns < s->due_ns ? s->due_ns : s->due_ns + ((after_ns - s->due_ns) / s->every_ns + 1) * s->every_ns;
    case LIM__SCHEDULE_RRULE:
    case LIM__SCHEDULE_CRON:
        return lim__calendar_next(s->calendar, after_ns);
    }
    return UINT64_MAX;
}

/* ---- reading an add request ---- */

static lim_err bad(lim_diag *diag, const char *format, ...) __attribute__((format(printf, 2, 3)));
static lim_err bad(lim_diag *diag, const char *format, ...)
{
    char text[sizeof diag->text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lim__diag_set(diag, 0, 0, "%s", text);
    return LIM_E_INVALID;
}

#define TEXT(bytes) (int)((bytes).len < 80 ? (bytes).len : 80), (const char *)(bytes).ptr

static lim_err text_of(lim__val root, const char *key, size_t max, lim_diag *diag, lim_bytes *out)
{
    lim__val v = lim__val_get(root, key);
    *out = lim__bytes("", 0);
    if (!lim__val_present(v))
        return LIM_OK;
    if (v.kind != LIM__TEXT || v.text.len > max)
        return bad(diag, "\"%s\" is no text of at most %zu bytes", key, max);
    *out = v.text;
    return LIM_OK;
}

static lim_err number_of(lim__val root, const char *key, uint64_t least, uint64_t most, lim_diag *diag, uint64_t *out)
{
    lim__val v = lim__val_get(root, key);
    if (!lim__val_present(v) || (lim__val_as_u64(v, out) && *out >= least && *out <= most))
        return LIM_OK;
    return bad(diag, "\"%s\" is no number from %" PRIu64 " to %" PRIu64, key, least, most);
}

/* One of some words: its place from 1 on; 0: it was not said. */
static lim_err word_of(lim__val root, const char *key, const char *const *words, lim_diag *diag, uint32_t *out)
{
    lim_bytes text;
    char all[80] = "";
    lim_err err = text_of(root, key, 80, diag, &text);
    *out = 0;
    for (uint32_t i = 0; err == LIM_OK && words[i] != NULL; i++) {
        if (lim__bytes_eq(text, lim__str(words[i])))
            *out = i + 1;
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    if (err != LIM_OK || *out != 0 || !lim__val_present(lim__val_get(root, key)))
        return err;
    return bad(diag, "\"%s\" is '%.*s'; it is one of: %s", key, TEXT(text), all);
}

static lim_err zone_of(lim__schedules *book, lim_bytes name, lim_diag *diag, const lim__zone **out)
{
    lim__zone *z;
    if (name.len == 0)
        name = lim__str("UTC");
    LIM__LIST_EACH(n, &book->zones) {
        *out = LIM_CONTAINER(n, zone_node, node)->zone;
        if (lim__bytes_eq(lim__zone_name(*out), name))
            return LIM_OK;
    }
    zone_node *node = malloc(sizeof *node);
    lim_err err = node == NULL ? LIM_E_NOMEM : lim__zone_open(name, diag, &z);
    if (err != LIM_OK) {
        free(node);
        return err;
    }
    node->zone = z;
    lim__list_push(&book->zones, &node->node); /* kept: there are not many */
    *out = z;
    return LIM_OK;
}

static lim_err target_of(lim__schedule *s, lim__val root, lim_diag *diag, lim_bytes *out)
{
    s->to_queue = lim__val_present(lim__val_get(root, "queue"));
    if (s->to_queue == lim__val_present(lim__val_get(root, "channel")))
        return bad(diag, "say where to: a \"queue\" (a task), or a \"channel\" (a message)");
    lim_err err = text_of(root, s->to_queue ? "queue" : "channel", 255, diag, out);
    if (err != LIM_OK)
        return err;
    if (!lim__channel_name_ok(*out) || *(const char *)out->ptr == '$')
        return bad(diag, "'%.*s' is no name of a %s; use letters, digits, - and _, joined by dots", TEXT(*out),
                   s->to_queue ? "queue" : "channel");
    static const char *const of_tasks[] = { "type", "options", "timeout_ms", "overlap" };
    for (size_t i = 0; !s->to_queue && i < LIM_COUNT(of_tasks); i++)
        if (lim__val_present(lim__val_get(root, of_tasks[i])))
            return bad(diag, "\"%s\" is for tasks; a message on a channel has none. Leave it out, or say \"queue\"",
                       of_tasks[i]);
    return LIM_OK;
}

static lim_err payload_of(lim__schedule *s, lim__val root, lim_diag *diag)
{
    lim__val v = lim__val_get(root, "payload"), raw = lim__val_get(root, "payload_base64");
    lim__buf b = { 0 };
    lim__json j = lim__json_begin(&b);
    if (!lim__val_present(v) && !lim__val_present(raw))
        return LIM_OK;
    bool good = !lim__val_present(v) || !lim__val_present(raw);
    if (v.kind == LIM__TEXT)
        lim__buf_add(&b, v.text.ptr, v.text.len);
    else if (lim__val_present(v))
        lim__json_val(&j, NULL, v);
    else
        good = raw.kind == LIM__TEXT && lim__base64_read(&b, raw.text);
    lim_err err = LIM_OK;
    if (b.failed)
        err = LIM_E_NOMEM;
    else if (!good)
        err = bad(diag, "\"payload_base64\" is base64 text, and there is no \"payload\" beside it");
    else if (lim__buf_len(&b) > LIM__SCHEDULE_PAYLOAD_MAX)
        err = bad(diag, "the payload has more than %d bytes; keep it elsewhere and send where it is",
                  LIM__SCHEDULE_PAYLOAD_MAX);
    else if ((s->payload = lim__msg_new(lim__buf_bytes(&b))) == NULL)
        err = LIM_E_NOMEM;
    lim__buf_fini(&b);
    return err;
}

static lim_err option(lim__buf *block, lim_bytes key, lim__val v, lim_diag *diag)
{
    static const char *const all[] = { "priority",    "key",          "weight",   "order_key",
                                       "unique_key",  "on_duplicate", "delay_ms", "start_to_close_ms",
                                       "progress_ms", "report_to",    "trace",    "traceparent",
                                       "durable" };
    char number[24];
    uint64_t n;
    if (lim__bytes_eq(key, lim__str("idempotency_key")))
        return bad(diag,
                   "with an idempotency_key every fire would be answered with the first one's result; leave it out");
    bool known = false;
    for (size_t i = 0; i < LIM_COUNT(all); i++)
        known |= lim__bytes_eq(key, lim__str(all[i]));
    if (!known)
        return bad(diag,
                   "the option '%.*s' is unknown; there are priority key weight order_key unique_key on_duplicate "
                   "delay_ms start_to_close_ms progress_ms report_to durable trace traceparent",
                   TEXT(key));
    if (v.kind == LIM__TEXT)
        return lim__packed_add(block, key, v.text);
    if (v.kind == LIM__BOOL)
        return v.truth ? lim__packed_add(block, key, lim__str("1")) : LIM_OK;
    if (!lim__val_as_u64(v, &n))
        return bad(diag, "the option %.*s is no text, no whole number, and not true", TEXT(key));
    int len = snprintf(number, sizeof number, "%" PRIu64, n);
    return lim__packed_add(block, key, lim__bytes(number, (size_t)len));
}

/* On a bus with a store the tasks of schedules are durable, whatever their queue: so no fire is lost, or is two tasks.
 */
static lim_err options_of(lim__schedule *s, bool durable, lim__val root, lim_diag *diag)
{
    lim__val v = lim__val_get(root, "options");
    lim__buf block = { 0 }, json = { 0 };
    lim_err err = LIM_OK;
    if (lim__val_present(v) && v.kind != LIM__OBJECT)
        return bad(diag, "\"options\" is no object");
    if (!lim__val_present(v) && !durable)
        return LIM_OK;
    lim__iter it = lim__iter_begin(v);
    while (err == LIM_OK && lim__val_present(v) && lim__iter_next(&it))
        if (!durable || !lim__bytes_eq(it.key, lim__str("durable")))
            err = option(&block, it.key, it.val, diag);
    if (err == LIM_OK && durable)
        err = lim__packed_add(&block, lim__str("durable"), lim__str("1"));
    if (err == LIM_OK && lim__buf_len(&block) > OPTIONS_MAX)
        err = bad(diag, "the options have more than %d bytes", OPTIONS_MAX);
    if (err == LIM_OK)
        err = lim__terms_parse(lim__buf_bytes(&block), diag, &s->terms);
    lim__buf_fini(&block);
    if (err != LIM_OK || !lim__val_present(v))
        return err;
    lim__json j = lim__json_begin(&json);
    lim__json_val(&j, NULL, v);
    lim__buf_add(&json, "", 1);
    s->options = json.failed ? NULL : strdup((const char *)json.ptr + json.start);
    lim__buf_fini(&json);
    return s->options != NULL ? LIM_OK : LIM_E_NOMEM;
}

static lim_err start_of(lim__schedule *s, const char *key, lim__val root, uint64_t otherwise, lim_diag *diag)
{
    lim_bytes text;
    lim_err err = text_of(root, key, 64, diag, &text);
    s->start_ns = otherwise;
    return err != LIM_OK || text.len == 0 ? err : lim__instant_parse(text, s->zone, diag, &s->start_ns);
}

static lim_err rule_at(lim__schedule *s, lim__val root, uint64_t wall_ns, lim_diag *diag)
{
    lim_err err = start_of(s, "at", root, 0, diag);
    if (err == LIM_OK && s->start_ns <= wall_ns)
        err = bad(diag, "that instant is past; what shall happen now is dispatched or published");
    s->due_ns = s->start_ns;
    return err;
}

static lim_err rule_every(lim__schedule *s, lim__val root, uint64_t wall_ns, lim_diag *diag)
{
    uint64_t ms = 0;
    lim_err err = number_of(root, "every_ms", EVERY_MIN_MS, UINT64_C(366) * DAY_MS, diag, &ms);
    if (err == LIM_OK)
        err = start_of(s, "start", root, wall_ns, diag);
    s->every_ns = ms * MS;
    s->due_ns = s->start_ns;
    if (err == LIM_OK) /* `start` itself is the first, unless it is now */
        s->due_ns = lim__schedule_next(s, wall_ns);
    return err;
}

static lim_err rule_calendar(lim__schedule *s, lim__val root, uint64_t wall_ns, lim_diag *diag)
{
    bool cron = s->kind == LIM__SCHEDULE_CRON;
    lim_err err = start_of(s, "start", root, wall_ns / 1000000000 * 1000000000, diag);
    if (err == LIM_OK)
        err = (cron ? lim__calendar_cron : lim__calendar_rrule)(s->rule, s->zone, s->start_ns, diag, &s->calendar);
    if (err != LIM_OK)
        return err;
    s->due_ns = lim__calendar_next(s->calendar, wall_ns);
    if (s->due_ns == UINT64_MAX)
        return bad(diag, "the rule never fires: there is no such time in the next hundred years");
    return LIM_OK;
}

static const char *const rules[] = { "at", "every_ms", "rrule", "cron" };

static lim_err rule_of(lim__schedule *s, lim__val root, uint64_t wall_ns, lim_diag *diag)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < LIM_COUNT(rules); i++)
        if (lim__val_present(lim__val_get(root, rules[i]))) {
            s->kind = (lim__schedule_kind)(i + 1);
            count++;
        }
    if (count != 1)
        return bad(diag, "say when, in one way: \"at\", \"every_ms\", \"rrule\" or \"cron\"");
    if (s->kind == LIM__SCHEDULE_AT && lim__val_present(lim__val_get(root, "start")))
        return bad(diag, "\"at\" is one instant; there is no \"start\" beside it");
    if (s->kind == LIM__SCHEDULE_AT)
        return rule_at(s, root, wall_ns, diag);
    if (s->kind == LIM__SCHEDULE_EVERY)
        return rule_every(s, root, wall_ns, diag);
    return rule_calendar(s, root, wall_ns, diag);
}

static lim_err policy_of(lim__schedule *s, lim__val root, lim_diag *diag)
{
    static const char *const catch_up[] = { "one", "skip", "all", NULL }, *const overlap[] = { "allow", "skip", NULL };
    uint32_t catching, overlapping;
    uint64_t max = 100, grace = 60000, timeout = 0;
    lim_err err = word_of(root, "catch_up", catch_up, diag, &catching);
    if (err == LIM_OK)
        err = word_of(root, "overlap", overlap, diag, &overlapping);
    if (err == LIM_OK)
        err = number_of(root, "catch_up_max", 1, LIM__SCHEDULE_STEPS_MAX, diag, &max);
    if (err == LIM_OK)
        err = number_of(root, "grace_ms", 1000, DAY_MS, diag, &grace);
    if (err == LIM_OK)
        err = number_of(root, "timeout_ms", 1, UINT64_C(366) * DAY_MS, diag, &timeout);
    if (err != LIM_OK)
        return err;
    s->catch_up = catching == 0 ? LIM__CATCH_ONE : (lim__catch_up)catching;
    s->catch_up_max = (uint32_t)max;
    s->grace_ns = grace * MS;
    s->timeout_ns = timeout * MS;
    s->skip_overlap = overlapping == 2;
    return LIM_OK;
}

/* Name, target, type and rule, one after the other, in memory of its own. */
static lim_err keep_texts(lim__schedule *s, lim_bytes name, lim_bytes target, lim_bytes type, lim__val root)
{
    lim_bytes rule = lim__bytes("", 0);
    for (size_t i = 0; i < LIM_COUNT(rules); i++)
        rule = lim__val_bytes(root, rules[i], rule);
    lim_bytes from[] = { name, target, type, rule }, *to[] = { &s->name, &s->target, &s->type, &s->rule };
    for (size_t i = 0; i < LIM_COUNT(from); i++)
        s->text_bytes += from[i].len;
    s->text = malloc(s->text_bytes + 1);
    if (s->text == NULL)
        return LIM_E_NOMEM;
    char *at = s->text;
    for (size_t i = 0; i < LIM_COUNT(from); i++) {
        memcpy(at, from[i].ptr, from[i].len);
        *to[i] = lim__bytes(at, from[i].len);
        at += from[i].len;
    }
    return LIM_OK;
}

static void schedule_free(lim__schedule *s)
{
    if (s == NULL)
        return;
    free(s->text);
    free(s->options);
    lim__msg_unref(s->payload);
    lim__terms_unref(s->terms);
    lim__calendar_free(s->calendar);
    for (lim__list *n; (n = lim__list_pop(&s->pending)) != NULL;)
        free(LIM_CONTAINER(n, lim__pending_fire, node));
    free(s);
}

static lim_err texts_of(lim__schedules *book, lim__schedule *s, lim__val root, lim_diag *diag)
{
    lim_bytes name, target, type = lim__bytes("", 0), zone = type;
    lim_err err = text_of(root, "name", 255, diag, &name);
    if (err == LIM_OK && (!lim__channel_name_ok(name) || *(const char *)name.ptr == '$'))
        err =
            bad(diag, "'%.*s' is no \"name\" for a schedule; use letters, digits, - and _, joined by dots", TEXT(name));
    if (err == LIM_OK)
        err = target_of(s, root, diag, &target);
    if (err == LIM_OK)
        err = text_of(root, "type", 255, diag, &type);
    if (err == LIM_OK)
        err = text_of(root, "zone", 64, diag, &zone);
    if (err == LIM_OK)
        err = zone_of(book, zone, diag, &s->zone);
    return err == LIM_OK ? keep_texts(s, name, target, type, root) : err;
}

static lim_err schedule_new(lim__schedules *book, lim__val root, uint64_t wall_ns, lim_diag *diag, lim__schedule **out)
{
    lim__schedule *s = calloc(1, sizeof *s);
    if (s == NULL)
        return LIM_E_NOMEM;
    lim__list_init(&s->pending);
    lim_err err = texts_of(book, s, root, diag);
    if (err == LIM_OK)
        err = payload_of(s, root, diag);
    if (err == LIM_OK)
        err = options_of(s, s->to_queue && book->kept, root, diag);
    if (err == LIM_OK)
        err = policy_of(s, root, diag);
    if (err == LIM_OK)
        err = rule_of(s, root, wall_ns, diag);
    if (err != LIM_OK) {
        schedule_free(s);
        return err;
    }
    s->bytes = sizeof *s + s->text_bytes + (s->payload != NULL ? lim__msg_cost(s->payload) : 0) +
               (s->options != NULL ? 3 * strlen(s->options) : 0) + (s->calendar != NULL ? 1200 : 0);
    *out = s;
    return LIM_OK;
}

/* ---- changes ---- */

static void forget(lim__schedules *book, lim__schedule *s)
{
    if (s->state == LIM__SCHEDULE_ACTIVE)
        heap_remove(book, s);
    if (s->touched)
        lim__list_remove(&s->touched_node);
    if (s->last.monitor != 0)
        lim__map_remove(&book->by_task, s->last.task.id);
    lim__smap_remove(&book->by_name, s->name);
    lim__map_remove(&book->by_id, s->id);
    book->bytes -= s->bytes;
    schedule_free(s);
}

/* When the book is full, one that has nothing left to do makes room. */
static lim__schedule *some_done(const lim__schedules *book)
{
    lim__schedule *best = NULL;
    size_t pos = 0;
    uint64_t id;
    void *value;
    while (lim__map_next(&book->by_id, &pos, &id, &value)) {
        lim__schedule *s = value;
        if (s->state == LIM__SCHEDULE_DONE && (best == NULL || s->id < best->id))
            best = s;
    }
    return best;
}

static lim_err full(lim_diag *diag, const char *what, uint64_t max)
{
    lim__diag_set(diag, 0, 0, "there are %" PRIu64 " %s, which is the most; remove some", max, what);
    return LIM_E_FULL;
}

static lim_err room_for(lim__schedules *book, const lim__schedule *s, lim__schedule *old, lim_diag *diag)
{
    size_t bytes = book->bytes + s->bytes - (old != NULL ? old->bytes : 0);
    if (bytes > LIM__SCHEDULES_BYTES_MAX)
        return full(diag, "bytes of schedules", LIM__SCHEDULES_BYTES_MAX);
    if (old == NULL && book->by_name.count >= LIM__SCHEDULES_MAX && some_done(book) == NULL)
        return full(diag, "schedules", LIM__SCHEDULES_MAX);
    return LIM_OK;
}

lim__schedule *lim__schedule_gives_way(const lim__schedules *book, const lim__schedule *s)
{
    lim__schedule *old = lim__schedule_named(book, s->name);
    return old != NULL ? old : book->by_name.count >= LIM__SCHEDULES_MAX ? some_done(book) : NULL;
}

/* So that entering cannot fail. Maps keep the room of what was taken out again. */
static lim_err reserve(lim__schedules *book, lim__schedule *s)
{
    lim_err err = heap_reserve(book);
    if (err == LIM_OK)
        err = lim__map_put(&book->by_id, s->id, s);
    if (err != LIM_OK)
        return err;
    lim__map_remove(&book->by_id, s->id);
    if (lim__schedule_named(book, s->name) != NULL) /* it leaves its place */
        return LIM_OK;
    err = lim__smap_put(&book->by_name, s->name, s);
    lim__smap_remove(&book->by_name, s->name);
    return err;
}

lim_err lim__schedule_prepare(lim__schedules *book, const lim__schedule_change *c, lim_diag *diag, lim__schedule **out)
{
    lim__schedule *s = NULL;
    if (book->doc == NULL && (book->doc = lim__doc_new()) == NULL)
        return LIM_E_NOMEM;
    lim_err err = lim__doc_parse(book->doc, c->json, diag);
    if (err != LIM_OK)
        return err;
    lim__val root = lim__doc_root(book->doc);
    lim__schedule *old = lim__schedule_named(book, lim__val_bytes(root, "name", lim__bytes("", 0)));
    if (old != NULL && !lim__val_bool(root, "replace", false)) {
        lim__diag_set(diag, 0, 0, "there is a schedule of that name; remove it, or say \"replace\": true");
        return LIM_E_EXISTS;
    }
    if ((err = schedule_new(book, root, c->wall_ns, diag, &s)) != LIM_OK)
        return err;
    s->id = book->next_id + 1;
    s->durability = book->durability;
    s->state = lim__val_bool(root, "paused", false) ? LIM__SCHEDULE_PAUSED : LIM__SCHEDULE_ACTIVE;
    err = room_for(book, s, old, diag);
    if (err == LIM_OK)
        err = reserve(book, s);
    if (err != LIM_OK) {
        schedule_free(s);
        return err;
    }
    *out = s;
    return LIM_OK;
}

void lim__schedule_enter(lim__schedules *book, lim__schedule *s)
{
    lim__schedule *out = lim__schedule_gives_way(book, s);
    lim__schedule_state state = s->state;
    if (out != NULL)
        forget(book, out);
    lim_err err = lim__map_put(&book->by_id, s->id, s);
    LIM_ASSERT(err == LIM_OK); /* reserved */
    err = lim__smap_put(&book->by_name, s->name, s);
    LIM_ASSERT(err == LIM_OK);
    book->next_id = s->id;
    book->bytes += s->bytes;
    s->state = 0;
    set_due(book, s, state, s->due_ns);
}

void lim__schedule_drop(lim__schedule *s)
{
    schedule_free(s);
}

static lim_err put(lim__schedules *book, const lim__schedule_change *c, lim_diag *diag)
{
    lim__schedule *s;
    lim_err err = lim__schedule_prepare(book, c, diag, &s);
    if (err == LIM_OK)
        lim__schedule_enter(book, s);
    return err;
}

void lim__schedule_set(lim__schedules *book, lim__schedule *s, const lim__schedule_now *now)
{
    s->fires = now->fires;
    s->rejected = now->rejected;
    s->overlapped = now->overlapped;
    s->missed = now->missed;
    s->caught_up = now->caught_up;
    set_due(book, s, now->state, now->due_ns);
}

static void fired(lim__schedules *book, lim__schedule *s, const lim__schedule_change *c)
{
    s->missed += c->missed;
    s->overlapped += c->overlapped;
    s->fires += c->overlapped == 0 && !c->nothing;
    if (!c->manual)
        set_due(book, s, s->state, lim__schedule_next(s, c->at_ns));
}

lim_err lim__schedules_apply(lim__schedules *book, const lim__schedule_change *c, lim_diag *diag)
{
    if (c->kind == LIM__SCHEDULE_PUT)
        return put(book, c, diag);
    lim__schedule *s = lim__schedule_named(book, c->name);
    if (s == NULL) {
        lim__diag_set(diag, 0, 0, "there is no schedule %.*s; schedule ls shows what there is", TEXT(c->name));
        return LIM_E_NOTFOUND;
    }
    switch (c->kind) {
    case LIM__SCHEDULE_PAUSE:
        if (s->state == LIM__SCHEDULE_ACTIVE)
            set_due(book, s, LIM__SCHEDULE_PAUSED, s->due_ns);
        break;
    case LIM__SCHEDULE_RESUME:
        if (s->state == LIM__SCHEDULE_PAUSED) /* what came meanwhile was not missed: it was not wanted */
            set_due(book, s, LIM__SCHEDULE_ACTIVE, lim__schedule_next(s, c->wall_ns));
        break;
    case LIM__SCHEDULE_RM:
        forget(book, s);
        break;
    case LIM__SCHEDULE_FIRED:
        fired(book, s, c);
        break;
    case LIM__SCHEDULE_PUT:
        break;
    }
    return LIM_OK;
}

void lim__schedules_rewind(lim__schedules *book, uint64_t wall_ns, bool much)
{
    size_t pos = 0;
    uint64_t id;
    void *value;
    while (lim__map_next(&book->by_id, &pos, &id, &value)) {
        lim__schedule *s = value;
        if (s->state != LIM__SCHEDULE_ACTIVE)
            continue;
        if (s->kind == LIM__SCHEDULE_EVERY && s->due_ns > wall_ns + s->every_ns &&
            s->due_ns != s->start_ns) /* it had begun */
            set_due(book, s, s->state, wall_ns + s->every_ns);
        else if (much && s->calendar != NULL)
            set_due(book, s, s->state, lim__calendar_next(s->calendar, wall_ns));
    }
}

/* ---- the book ---- */

lim__schedule *lim__schedule_named(const lim__schedules *book, lim_bytes name)
{
    return lim__smap_get(&book->by_name, name);
}

lim__schedules *lim__schedules_new(uint64_t seed)
{
    lim__schedules *book = calloc(1, sizeof *book);
    if (book == NULL)
        return NULL;
    lim__smap_init(&book->by_name, seed);
    lim__map_init(&book->by_id, seed);
    lim__map_init(&book->by_task, seed);
    lim__map_init(&book->marks, seed);
    lim__list_init(&book->zones);
    lim__list_init(&book->askers);
    lim__list_init(&book->touched);
    book->durability = LIM_CLASS_MEMORY;
    lim__list_init(&book->effects);
    return book;
}

void lim__schedules_free(lim__schedules *book)
{
    size_t pos = 0;
    uint64_t id;
    void *value;
    if (book == NULL)
        return;
    while (lim__map_next(&book->by_id, &pos, &id, &value))
        schedule_free(value);
    for (lim__list *n; (n = lim__list_pop(&book->zones)) != NULL;) {
        zone_node *z = LIM_CONTAINER(n, zone_node, node);
        lim__zone_free(z->zone);
        free(z);
    }
    for (lim__list *n; (n = lim__list_pop(&book->askers)) != NULL;)
        free(LIM_CONTAINER(n, lim__fire_asker, node));
    for (lim__list *n; (n = lim__list_pop(&book->effects)) != NULL;)
        lim__schedule_effect_free(LIM_CONTAINER(n, lim__schedule_effect, node));
    lim__rows_free(lim__rows_take(&book->rows));
    lim__smap_fini(&book->by_name);
    lim__map_fini(&book->by_id);
    lim__map_fini(&book->by_task);
    lim__map_fini(&book->marks);
    lim__buf_fini(&book->old_marks);
    lim__doc_free(book->doc);
    free(book->heap);
    free(book);
}

uint64_t lim__schedules_count(const lim__schedules *book)
{
    return book->by_name.count;
}

void lim__schedules_check(const lim__schedules *book)
{
    size_t pos = 0, bytes = 0;
    uint32_t active = 0;
    uint64_t id;
    void *value;
    for (uint32_t i = 0; i < book->heap_count; i++) {
        LIM_ASSERT(book->heap[i]->heap_at == i && book->heap[i]->state == LIM__SCHEDULE_ACTIVE); /* T1 */
        LIM_ASSERT(i == 0 || !before(book->heap[i], book->heap[(i - 1) / 2]));                   /* T1 */
    }
    while (lim__map_next(&book->by_id, &pos, &id, &value)) {
        const lim__schedule *s = value;
        active += s->state == LIM__SCHEDULE_ACTIVE;
        bytes += s->bytes;
        LIM_ASSERT(s->state != LIM__SCHEDULE_ACTIVE || s->due_ns != UINT64_MAX); /* T2 */
        LIM_ASSERT(lim__schedule_named(book, s->name) == s);                     /* T3 */
        LIM_ASSERT(book->kept || lim__list_empty(&s->pending));                  /* T4 */
    }
    LIM_ASSERT(active == book->heap_count && bytes == book->bytes && book->by_name.count == book->by_id.count);
}
