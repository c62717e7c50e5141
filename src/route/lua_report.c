/* SPDX-License-Identifier: Apache-2.0
 * lua_report.c - what people are told about a script: why it was refused, where it crashed, what it did wrong.
 *
 * An error value is any value at all, and reading it must not run or allocate anything in the script's state, which may
 * be full: so texts are read as they are, numbers are printed here, and of all else only the type is named. */
#include "route/lua.h"

#include <stdio.h>
#include <stdlib.h>

/* "NAME:LINE: " in front of a message: the line, 0 if there is none; *rest is what follows. */
static int take_place(const lim__router *r, const char *text, const char **rest)
{
    size_t n = strlen(r->name);
    char *end;
    *rest = text;
    if (strncmp(text, r->name, n) != 0 || text[n] != ':')
        return 0;
    long line = strtol(text + n + 1, &end, 10);
    if (end == text + n + 1 || *end != ':' || line <= 0)
        return 0;
    *rest = end[1] == ' ' ? end + 2 : end + 1;
    return (int)line;
}

/* Where the innermost function of the script stands. */
static int current_line(lua_State *L)
{
    lua_Debug ar;
    for (int level = 0; lua_getstack(L, level, &ar); level++) {
        if (lua_getinfo(L, "l", &ar) && ar.currentline > 0)
            return ar.currentline;
    }
    return 0;
}

static void limit_text(const lim__lua_call *c, char *out, size_t size)
{
    if (c->refused == REFUSED__TEXT)
        snprintf(out, size, "a text longer than %d bytes", LIM__ROUTE_TEXT_MAX);
    else if (c->refused == REFUSED__MEMORY)
        snprintf(out, size, "out of memory: the limit is %u bytes (routing.memory_bytes_max)",
                 c->lua->router->limits.memory_max);
    else
        snprintf(out, size, "out of memory");
}

/* The value on top of L for people, unprintable bytes replaced. */
static void value_text(lua_State *L, char *out, size_t size)
{
    size_t len = 0, n = 0;
    const char *s;
    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        s = lua_tolstring(L, -1, &len);
        for (; n < len && n + 1 < size; n++)
            out[n] = (char)((unsigned char)s[n] >= 0x20 && s[n] != 0x7F ? s[n] : ' ');
        out[n] = 0;
        return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            snprintf(out, size, "%lld", (long long)lua_tointeger(L, -1));
        else
            snprintf(out, size, "%.14g", lua_tonumber(L, -1));
        return;
    case LUA_TBOOLEAN:
        snprintf(out, size, "%s", lua_toboolean(L, -1) ? "true" : "false");
        return;
    default:
        snprintf(out, size, "a %s as error", luaL_typename(L, -1));
    }
}

/* ---- lines of the source ---- */

static lim_bytes source_line(lim_bytes source, int line)
{
    const char *p = source.ptr, *end = p + source.len;
    for (; line > 1 && p < end; line--) {
        const char *next = memchr(p, '\n', (size_t)(end - p));
        p = next ? next + 1 : end;
    }
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    return (lim_bytes){ p, (size_t)((stop ? stop : end) - p) };
}

static lim_bytes trimmed(lim_bytes b)
{
    const char *p = b.ptr;
    size_t n = b.len;
    for (; n > 0 && (*p == ' ' || *p == '\t'); p++)
        n--;
    while (n > 0 && (p[n - 1] == '\r' || p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    return (lim_bytes){ p, n < 80 ? n : 80 };
}

/* ---- outcomes ---- */

static lim__route_how report(lim__lua *m, lim__route_how how, int line, lim__route_result *out)
{
    *out = (lim__route_result){ .how = how, .line = line, .text = m->router->text, .hash = m->router->artifact->hash };
    return how;
}

lim__route_how lim__lua_crashed(lim__lua_call *c, int status, lim__route_result *out)
{
    lim__lua *m = c->lua;
    lim__router *r = m->router;
    char message[300];
    const char *rest = message;
    int line = 0;
    if (status == LUA_ERRMEM) {
        limit_text(c, message, sizeof message);
    } else {
        value_text(c->co, message, sizeof message);
        line = take_place(r, message, &rest);
    }
    if (line == 0)
        line = current_line(c->co);
    lim_bytes shown = trimmed(source_line(r->artifact->bytes, line));
    if (line > 0 && shown.len > 0)
        snprintf(r->text, sizeof r->text, "%s:%d: %s, in: %.*s", r->name, line, rest, (int)shown.len,
                 (const char *)shown.ptr);
    else if (line > 0)
        snprintf(r->text, sizeof r->text, "%s:%d: %s", r->name, line, rest);
    else
        snprintf(r->text, sizeof r->text, "%s: %s", r->name, rest);
    return report(m, LIM__ROUTE_CRASHED, line, out);
}

/* The name of the candidate whose table is on top of L, of this call or another; NULL: it is none. */
static const lim__lua_view *known_table(const lim__lua *m, lua_State *L)
{
    const void *table = lua_topointer(L, -1);
    for (uint32_t i = 0; i < m->view_count; i++) {
        if (m->views[i].id != 0 && m->views[i].table == table)
            return &m->views[i];
    }
    return NULL;
}

lim__route_how lim__lua_nonsense(lim__lua_call *c, lim__route_result *out)
{
    lim__router *r = c->lua->router;
    lua_State *L = c->co;
    const lim__lua_view *v = lua_type(L, -1) == LUA_TTABLE ? known_table(c->lua, L) : NULL;
    char chosen[120] = "";
    if (v != NULL)
        snprintf(chosen, sizeof chosen, "%.*s", (int)(v->name_len < 100 ? v->name_len : 100), v->name);
    else if (lua_type(L, -1) == LUA_TSTRING)
        value_text(L, chosen, sizeof chosen);
    if (v != NULL || lua_type(L, -1) == LUA_TSTRING)
        snprintf(r->text, sizeof r->text, "%s: chose %s, which is not among the candidates", r->name, chosen);
    else if (lua_type(L, -1) == LUA_TTABLE)
        snprintf(r->text, sizeof r->text, "%s: returned a table that is %s of the candidates%s", r->name,
                 r->sets ? "neither one" : "not one", r->sets ? " nor a list of some" : "");
    else
        snprintf(r->text, sizeof r->text, "%s: returned a %s; a candidate, the id of one, or nil is expected", r->name,
                 luaL_typename(L, -1));
    return report(c->lua, LIM__ROUTE_CRASHED, 0, out);
}

lim__route_how lim__lua_timed_out(lim__lua *m, uint64_t after_ns, bool wall, lim__route_result *out)
{
    lim__router *r = m->router;
    if (wall)
        snprintf(r->text, sizeof r->text, "%s: no answer within %llu ms (routing.wall_ms_max)", r->name,
                 (unsigned long long)(r->limits.wall_ns / 1000000));
    else
        snprintf(r->text, sizeof r->text,
                 "%s: used %llu us of processor time; the limit is %llu us (routing.cpu_us_max)", r->name,
                 (unsigned long long)(after_ns / 1000), (unsigned long long)(r->limits.cpu_ns / 1000));
    report(m, LIM__ROUTE_TIMED_OUT, 0, out);
    out->after_ns = after_ns;
    return LIM__ROUTE_TIMED_OUT;
}

lim__route_how lim__lua_not_started(lim__lua *m, bool memory, lim__route_result *out)
{
    lim__router *r = m->router;
    if (memory)
        snprintf(r->text, sizeof r->text, "%s: the host is out of memory", r->name);
    else
        snprintf(r->text, sizeof r->text, "%s: %u calls are unfinished; the limit is %u (routing.unfinished_max)",
                 r->name, m->aside_count, r->limits.unfinished_max);
    return report(m, LIM__ROUTE_NOT_STARTED, 0, out);
}

/* ---- what is wrong with a source ---- */

static bool in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Where `token` stands in the line as a word of its own, from 1; 0: nowhere, or who knows where. */
static int only_place(lim_bytes line, lim_bytes token)
{
    const char *all = line.ptr, *word = token.ptr;
    int found = 0;
    for (size_t i = 0; token.len > 0 && i + token.len <= line.len; i++) {
        if (memcmp(all + i, word, token.len) != 0)
            continue;
        if ((i > 0 && in_word(word[0]) && in_word(all[i - 1])) ||
            (i + token.len < line.len && in_word(word[token.len - 1]) && in_word(all[i + token.len])))
            continue;
        if (found > 0)
            return 0;
        found = (int)i + 1;
    }
    return found;
}

/* What Lua says ends with the token or the name that it is about: near 'x', near <eof>, (global 'x'). Where that stands
 * in the line, from 1; 0: not known. */
static int find_column(const char *message, lim_bytes line)
{
    const char *near = strstr(message, "near "), *end = strrchr(message, '\'');
    if (near != NULL && strcmp(near, "near <eof>") == 0)
        return (int)line.len + 1;
    const char *begin = near != NULL ? strchr(near, '\'') : end;
    while (near == NULL && begin != NULL && begin > message && (begin == end || *begin != '\''))
        begin--;
    if (begin == NULL || begin >= end || *begin != '\'')
        return 0;
    return only_place(line, (lim_bytes){ begin + 1, (size_t)(end - begin - 1) });
}

void lim__lua_compile_fault(lim__lua *m, lua_State *L, int status, lim_diag *diag)
{
    lim__router *r = m->router;
    char message[200];
    const char *rest = message;
    int line = 0;
    if (status == LUA_ERRMEM) {
        limit_text(&m->calls[0], message, sizeof message);
        line = current_line(L);
    } else {
        value_text(L, message, sizeof message);
        line = take_place(r, message, &rest);
        if (line == 0)
            line = current_line(L);
    }
    if (line == 0) {
        lim__diag_set(diag, 0, 0, "%s: %s", r->name, rest);
        return;
    }
    lim_bytes source = source_line(r->artifact->bytes, line), shown = trimmed(source);
    lim__diag_set(diag, line, find_column(rest, source), "%s:%d: %s, in: %.*s", r->name, line, rest, (int)shown.len,
                  (const char *)shown.ptr);
}
