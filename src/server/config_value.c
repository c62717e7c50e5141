/* SPDX-License-Identifier: Apache-2.0
 * config_value.c - what a key's value may be: read, refused with what is allowed, and written again.
 *
 * A duration or size without a unit is refused rather than guessed, except a size in bytes and zero. What is written is
 * the shortest that says the same exactly: 1500ms, 2s, 1MiB. */
#include "server/config.h"
#include "server/yaml.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const lim__config_entry lim__config_table[LIM__CONFIG_KEYS] = {
#define X(name, path, kind, least, most, otherwise, argument, text)                                                    \
    [LIM__CONFIG_##name] = { path, LIM__CONFIG_##kind, least, most, otherwise, argument, text },
    LIM__CONFIG_MAP(X)
#undef X
};

/* ---- units: sorted from large to small, each a multiple of all behind it ---- */

typedef struct unit {
    const char *name;
    uint64_t is; /* bytes, or microseconds */
} unit;

static const unit times[] = { { "h", 3600000000 }, { "m", 60000000 }, { "s", 1000000 },
                              { "ms", 1000 },      { "us", 1 },       { 0 } };
static const unit sizes[] = { { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 }, { "B", 1 }, { 0 } };

/* What is wrong; NULL: nothing. The number is in the smallest unit; what is too large for any key is UINT64_MAX. */
static const char *measure(lim_bytes text, const unit *units, const char *malformed, uint64_t *out)
{
    const char *p = text.ptr, *end = p + text.len;
    uint64_t n = 0;
    if (text.len == 0 || *p < '0' || *p > '9')
        return malformed;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        n = n > UINT64_MAX / 100 ? n : n * 10 + (uint64_t)(*p - '0');
    for (; units->name != NULL; units++) {
        if (lim__bytes_eq(lim__bytes(p, (size_t)(end - p)), lim__str(units->name))) {
            *out = n > UINT64_MAX / 100 / units->is ? UINT64_MAX : n * units->is;
            return NULL;
        }
    }
    return malformed;
}

static void write_measure(lim__buf *out, uint64_t n, const unit *units, const char *zero)
{
    if (n == 0) {
        lim__buf_text(out, zero);
        return;
    }
    while (n % units->is != 0)
        units++;
    lim__buf_format(out, "%" PRIu64 "%s", n / units->is, units->name);
}

/* ---- addresses ---- */

static bool decimal(const char *s, size_t len, uint32_t most, uint32_t *out)
{
    *out = 0;
    if (len == 0 || len > 5 || (len > 1 && s[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = *out * 10 + (uint32_t)(s[i] - '0');
    }
    return *out <= most;
}

static bool is_four_numbers(const char *host)
{
    uint32_t n;
    for (int i = 0; i < 4; i++) {
        size_t len = strcspn(host, ".");
        if (!decimal(host, len, 255, &n) || (host[len] == '.') != (i < 3))
            return false;
        host += len + (i < 3);
    }
    return true;
}

/* In brackets; the system judges what is between them. */
static bool is_six(const char *host)
{
    size_t len = strlen(host);
    return len >= 4 && host[0] == '[' && host[len - 1] == ']' &&
           1 + strspn(host + 1, "0123456789abcdefABCDEF:.") == len - 1 && memchr(host, ':', len) != NULL;
}

enum { PORT_DEFAULT = 4777 };

bool lim__config_address(const char *text, char host[LIM__CONFIG_HOST_MAX + 1], uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    uint32_t n = PORT_DEFAULT;
    if (colon != NULL && strchr(colon, ']') != NULL)
        colon = NULL;
    size_t len = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (len > LIM__CONFIG_HOST_MAX || (colon != NULL && !decimal(colon + 1, strlen(colon + 1), UINT16_MAX, &n)))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    *port = (uint16_t)n;
    return strcmp(host, "localhost") == 0 || is_four_numbers(host) || is_six(host);
}

bool lim__config_is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
}

/* ---- what is allowed, and what was given ---- */

static void write_number(const lim__config_entry *key, uint64_t n, lim__buf *out)
{
    if (key->kind == LIM__CONFIG_MICROS)
        write_measure(out, n, times, "0us");
    else if (key->kind == LIM__CONFIG_MILLIS)
        write_measure(out, n * 1000, times, "0ms");
    else if (key->kind == LIM__CONFIG_BYTES)
        write_measure(out, n, sizes, "0");
    else
        lim__buf_format(out, "%" PRIu64, n);
}

static void range(const lim__config_entry *key, const char *what, const char *example, lim__buf *out)
{
    lim__buf_format(out, "%s from ", what);
    write_number(key, key->least, out);
    lim__buf_text(out, " to ");
    write_number(key, key->most, out);
    lim__buf_format(out, "%s%s", example[0] != '\0' ? ", such as " : "", example);
}

static void words(const char *choice, lim__buf *out)
{
    for (const char *p = choice; *p != '\0';) {
        size_t len = strcspn(p, "|");
        bool last = p[len] == '\0', next_is_last = !last && strchr(p + len + 1, '|') == NULL;
        lim__buf_format(out, "%.*s%s", (int)len, p, last ? "" : next_is_last ? " or " : ", ");
        p += len + !last;
    }
}

static void allowed(const lim__config_entry *key, lim__buf *out)
{
    switch (key->kind) {
    case LIM__CONFIG_ADDRESS:
        lim__buf_text(out, "ADDR:PORT, a numeric address or localhost, such as 127.0.0.1:4777 or [::1]:4777");
        break;
    case LIM__CONFIG_DIRECTORY:
        lim__buf_text(out, "a directory, auto or none");
        break;
    case LIM__CONFIG_NAME:
        lim__buf_text(out, "a name of at most 255 bytes, or auto");
        break;
    case LIM__CONFIG_NUMBER:
        range(key, "a whole number", "", out);
        break;
    case LIM__CONFIG_MICROS:
    case LIM__CONFIG_MILLIS:
        range(key, "a duration", key->otherwise, out);
        break;
    case LIM__CONFIG_BYTES:
        range(key, "a size", key->otherwise, out);
        break;
    case LIM__CONFIG_SWITCH:
        lim__buf_text(out, "true or false");
        break;
    case LIM__CONFIG_CHOICE:
        words(key->argument, out);
        break;
    default:
        LIM_NEVER(key->kind);
    }
}

static void shown(lim__val v, lim__buf *out)
{
    char clipped[LIM__YAML_CLIP + 4];
    if (v.kind == LIM__TEXT) {
        lim__buf_format(out, "'%s'", lim__yaml_clip(v.text, clipped));
    } else if (v.kind != LIM__NULL && v.kind != LIM__ARRAY && v.kind != LIM__OBJECT) {
        lim__json j = lim__json_begin(out);
        lim__json_val(&j, NULL, v);
    }
}

static const char *kind_of(lim__val v)
{
    switch (v.kind) {
    case LIM__ABSENT:
    case LIM__NULL:
        return "there is no value";
    case LIM__BOOL:
        return " is true or false, nothing else";
    case LIM__INT:
    case LIM__UINT:
        return " is a whole number";
    case LIM__DOUBLE:
        return " is a fraction";
    case LIM__TEXT:
        return " is text";
    case LIM__ARRAY:
        return "this is a list";
    case LIM__OBJECT:
        return "this is a group of keys";
    default:
        return "";
    }
}

/* ---- reading ---- */

/* Each answers what is wrong, for after the value that was given; NULL: nothing. */
static const char out_of_range[] = " is out of range";

static const char *in_range(const lim__config_entry *key, uint64_t n, lim__config_value *out)
{
    if (n < key->least || n > key->most)
        return out_of_range;
    out->n = n;
    return NULL;
}

static const char *read_number(const lim__config_entry *key, lim__val v, lim__config_value *out)
{
    if (v.kind == LIM__INT && v.i >= 0)
        return in_range(key, (uint64_t)v.i, out);
    return v.kind == LIM__INT || v.kind == LIM__UINT ? out_of_range : kind_of(v);
}

static const char *read_duration(const lim__config_entry *key, lim__val v, lim__config_value *out)
{
    uint64_t us = 0, step = key->kind == LIM__CONFIG_MILLIS ? 1000 : 1;
    if (v.kind == LIM__INT && v.i != 0)
        return " has no unit: us, ms, s, m or h";
    if (v.kind == LIM__TEXT) {
        const char *wrong = measure(v.text, times, " is not a duration", &us);
        if (wrong != NULL)
            return wrong;
    } else if (v.kind != LIM__INT) {
        return kind_of(v);
    }
    if (us % step != 0 && us != UINT64_MAX)
        return " is not a whole number of milliseconds";
    return in_range(key, us / step, out);
}

static const char *read_size(const lim__config_entry *key, lim__val v, lim__config_value *out)
{
    uint64_t bytes;
    if (v.kind != LIM__TEXT)
        return read_number(key, v, out);
    const char *wrong = measure(v.text, sizes, " is not a size", &bytes);
    return wrong != NULL ? wrong : in_range(key, bytes, out);
}

static const char *read_choice(const lim__config_entry *key, lim__val v, lim__config_value *out)
{
    uint32_t i = 0;
    if (v.kind != LIM__TEXT)
        return kind_of(v);
    for (const char *p = key->argument;; i++) {
        size_t len = strcspn(p, "|");
        if (lim__bytes_eq(v.text, lim__bytes(p, len))) {
            out->n = i;
            return NULL;
        }
        if (p[len] == '\0')
            return " is no such choice";
        p += len + 1;
    }
}

static const char *read_address(lim__val v, lim__config_value *out)
{
    char host[LIM__CONFIG_HOST_MAX + 1];
    uint16_t port;
    if (v.kind != LIM__TEXT)
        return kind_of(v);
    if (v.text.len > LIM__CONFIG_ADDRESS_MAX || strlen(v.text.ptr) != v.text.len ||
        !lim__config_address(v.text.ptr, host, &port))
        return " is not an address";
    memcpy(out->text, v.text.ptr, v.text.len + 1);
    return NULL;
}

static const char *read_text(lim__val v, size_t max, lim__config_value *out)
{
    if (v.kind != LIM__TEXT)
        return kind_of(v);
    if (v.text.len == 0 || v.text.len > max)
        return " is empty or too long";
    for (size_t i = 0; i < v.text.len; i++)
        if ((uint8_t)((const char *)v.text.ptr)[i] < 0x20 || ((const char *)v.text.ptr)[i] == 0x7F)
            return " has control characters";
    memcpy(out->text, v.text.ptr, v.text.len);
    out->text[v.text.len] = '\0';
    return NULL;
}

static const char *read_switch(lim__val v, lim__config_value *out)
{
    if (v.kind != LIM__BOOL)
        return kind_of(v);
    out->n = v.truth;
    return NULL;
}

static const char *read_kind(const lim__config_entry *key, lim__val v, lim__config_value *out)
{
    switch (key->kind) {
    case LIM__CONFIG_ADDRESS:
        return read_address(v, out);
    case LIM__CONFIG_DIRECTORY:
        return read_text(v, LIM__CONFIG_TEXT_MAX, out);
    case LIM__CONFIG_NAME:
        return read_text(v, 255, out);
    case LIM__CONFIG_NUMBER:
        return read_number(key, v, out);
    case LIM__CONFIG_MICROS:
    case LIM__CONFIG_MILLIS:
        return read_duration(key, v, out);
    case LIM__CONFIG_BYTES:
        return read_size(key, v, out);
    case LIM__CONFIG_SWITCH:
        return read_switch(v, out);
    case LIM__CONFIG_CHOICE:
        return read_choice(key, v, out);
    default:
        LIM_NEVER(key->kind);
        return "";
    }
}

bool lim__config_read(const lim__config_entry *key, lim__val from, lim__config_value *out, char *why, size_t size)
{
    const char *wrong = read_kind(key, from, out);
    lim__buf text = { 0 };
    if (wrong == NULL)
        return true;
    shown(from, &text);
    lim__buf_format(&text, "%s; give ", wrong);
    allowed(key, &text);
    snprintf(why, size, "%.*s", (int)lim__buf_len(&text), (const char *)lim__buf_bytes(&text).ptr);
    lim__buf_fini(&text);
    return false;
}

/* ---- writing ---- */

static void write_choice(const lim__config_entry *key, uint64_t which, lim__buf *out)
{
    const char *p = key->argument;
    while (which-- > 0)
        p += strcspn(p, "|") + 1;
    lim__buf_add(out, p, strcspn(p, "|"));
}

/* As it is if no reader of YAML could take it for something else, else quoted. */
static void write_text(const char *text, lim__buf *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-";
    lim__json j = lim__json_begin(out);
    bool is_plain = (text[0] == '/' || (text[0] >= 'a' && text[0] <= 'z')) && text[strspn(text, plain)] == '\0';
    if (is_plain && strcmp(text, "true") != 0 && strcmp(text, "false") != 0 && strcmp(text, "null") != 0)
        lim__buf_text(out, text);
    else
        lim__json_str(&j, NULL, text);
}

void lim__config_write(const lim__config_entry *key, const lim__config_value *value, lim__buf *out)
{
    bool quoted = key->kind == LIM__CONFIG_ADDRESS && value->text[0] == '['; /* else it would be a list */
    if (key->kind == LIM__CONFIG_ADDRESS)
        lim__buf_format(out, quoted ? "\"%s\"" : "%s", value->text);
    else if (key->kind == LIM__CONFIG_DIRECTORY || key->kind == LIM__CONFIG_NAME)
        write_text(value->text, out);
    else if (key->kind == LIM__CONFIG_SWITCH)
        lim__buf_text(out, value->n ? "true" : "false");
    else if (key->kind == LIM__CONFIG_CHOICE)
        write_choice(key, value->n, out);
    else
        write_number(key, value->n, out);
}
