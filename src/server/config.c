/* SPDX-License-Identifier: Apache-2.0
 * config.c - the values of all keys, from the four places they may come from, and every fault on the way.
 *
 * A place sets a value only if nothing with precedence has set it, so the order in which the places are read does not
 * matter: the command line comes first because it names the file. A value that is overridden is checked all the same.
 *
 *      argv ---words--> |                      |
 *      env  ---words--> | lim__yaml_plain ---> | lim__config_read --> values --> finish (rules between keys)
 *      file ----------> | lim__yaml_read ----> |        `--> faults, sorted by place, one line each */
#include "server/config.h"
#include "os/os.h"
#include "server/yaml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct lim__config_fault {
    lim__config_origin origin;
    int line, column; /* in the file; line 0: the file as a whole */
    size_t order;     /* as they were found */
    char *text;       /* owned */
} lim__config_fault;

/* ---- faults ---- */

static void keep_fault(lim__config *c, lim__config_origin origin, int line, int column, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void keep_fault(lim__config *c, lim__config_origin origin, int line, int column, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    if (c->fault_count == c->fault_cap) {
        size_t cap = c->fault_cap > 0 ? c->fault_cap * 2 : 16;
        lim__config_fault *grown = realloc(c->faults, cap * sizeof *grown);
        if (grown == NULL) {
            c->no_memory = true;
            return;
        }
        c->faults = grown;
        c->fault_cap = cap;
    }
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0) {
        c->no_memory = true;
        return;
    }
    c->faults[c->fault_count] = (lim__config_fault){ origin, line, column, c->fault_count, text };
    c->fault_count++;
}

static int fault_order(const void *a, const void *b)
{
    const lim__config_fault *x = a, *y = b;
    if (x->origin != y->origin)
        return x->origin < y->origin ? -1 : 1;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* A path as it was given, but on one line. */
static void put_path(const lim__config *c, lim__buf *out)
{
    for (const char *p = c->path != NULL ? c->path : ""; *p != '\0'; p++)
        lim__buf_add(out, (uint8_t)*p < 0x20 || *p == 0x7F ? "?" : p, 1);
}

void lim__config_faults(const lim__config *c, lim__buf *out)
{
    for (size_t i = 0; i < c->fault_count; i++) {
        const lim__config_fault *f = &c->faults[i];
        lim__buf_text(out, "liminald: ");
        if (f->origin == LIM__CONFIG_FILE) {
            put_path(c, out);
            if (f->line > 0)
                lim__buf_format(out, ":%d:%d", f->line, f->column);
            lim__buf_text(out, ": ");
        }
        lim__buf_text(out, f->text);
        lim__buf_text(out, "\n");
    }
    if (c->no_memory)
        lim__buf_text(out, "liminald: out of memory: cannot read the configuration; free some\n");
}

/* ---- values ---- */

/* From outside of a file: name is a flag's or a variable's. */
static void take_word(lim__config *c, lim__config_key key, lim__config_origin origin, const char *text)
{
    char name[LIM__CONFIG_NAME_MAX + 1], why[400], clipped[LIM__YAML_CLIP + 4];
    const char *wrong;
    lim__config_value value = { .origin = origin };
    lim_err err = c->word != NULL ? lim__yaml_plain(c->word, lim__str(text), &wrong) : LIM_E_NOMEM;
    lim__config_name(key, origin == LIM__CONFIG_FLAG ? LIM__CONFIG_AS_FLAG : LIM__CONFIG_AS_VARIABLE, name);
    if (err == LIM_E_NOMEM)
        c->no_memory = true;
    else if (err != LIM_OK)
        keep_fault(c, origin, 0, 0, "%s: %s: %s", name, lim__yaml_clip(lim__str(text), clipped), wrong);
    else if (!lim__config_read(&lim__config_table[key], lim__doc_root(c->word), &value, why, sizeof why))
        keep_fault(c, origin, 0, 0, "%s: %s", name, why);
    else if (c->values[key].origin <= origin)
        c->values[key] = value;
}

void lim__config_init(lim__config *c)
{
    *c = (lim__config){ .word = lim__doc_new() };
    c->no_memory = c->word == NULL;
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++)
        take_word(c, (lim__config_key)i, LIM__CONFIG_DEFAULT, lim__config_table[i].otherwise);
    LIM_ASSERT(c->fault_count == 0);
}

void lim__config_fini(lim__config *c)
{
    for (size_t i = 0; i < c->fault_count; i++)
        free(c->faults[i].text);
    free(c->faults);
    lim__doc_free(c->word);
    *c = (lim__config){ 0 };
}

/* ---- the file ---- */

typedef struct walk { /* over the document, with the number of the value that comes next */
    lim__config *config;
    const lim__yaml *yaml;
    size_t at;
} walk;

static void on_fault(void *ctx, int line, int column, const char *text)
{
    keep_fault(ctx, LIM__CONFIG_FILE, line, column, "%s", text);
}

/* Steps over what is inside a value. */
static void skip(walk *w, lim__val v)
{
    lim__iter it = lim__iter_begin(v);
    while (lim__iter_next(&it)) {
        w->at++;
        skip(w, it.val);
    }
}

static void take_value(walk *w, lim__config_key key, lim__val v, const lim__yaml_place *place)
{
    lim__config *c = w->config;
    char why[400];
    lim__config_value value = { .origin = LIM__CONFIG_FILE, .line = place->line, .column = place->column };
    if (!lim__config_read(&lim__config_table[key], v, &value, why, sizeof why))
        keep_fault(c, LIM__CONFIG_FILE, place->line, place->column, "%s: %s", lim__config_table[key].path, why);
    else if (c->values[key].origin <= LIM__CONFIG_FILE)
        c->values[key] = value;
}

static void unknown_key(walk *w, lim_bytes path, const lim__yaml_place *place)
{
    char clipped[LIM__YAML_CLIP + 4], nearest[LIM__CONFIG_NAME_MAX + 1];
    keep_fault(w->config, LIM__CONFIG_FILE, place->key_line, place->key_column,
               "%s: unknown key; the nearest known one is %s", lim__yaml_clip(path, clipped),
               lim__config_nearest(path, LIM__CONFIG_AS_PATH, nearest));
}

static void dotted_key(walk *w, lim_bytes key, const lim__yaml_place *place)
{
    const char *dot = memrchr(key.ptr, '.', key.len);
    int before = (int)(dot - (const char *)key.ptr), after = (int)key.len - before - 1;
    keep_fault(w->config, LIM__CONFIG_FILE, place->key_line, place->key_column,
               "%.*s: a key in a file has no dot; write %.*s: and below it, indented, %.*s:", (int)key.len,
               (const char *)key.ptr, before, (const char *)key.ptr, after, dot + 1);
}

static void take_group(walk *w, lim__val group, const char *prefix);

static void take_member(walk *w, lim_bytes name, lim__val v, const char *prefix)
{
    const lim__yaml_place *place = &w->yaml->places[w->at++];
    char path[LIM__CONFIG_NAME_MAX * 2 + 2];
    lim__config_key key;
    int n = snprintf(path, sizeof path, "%s%.*s", prefix,
                     (int)(name.len < LIM__CONFIG_NAME_MAX ? name.len : LIM__CONFIG_NAME_MAX), (const char *)name.ptr);
    lim_bytes full = lim__bytes(path, (size_t)n);
    bool group = name.len < LIM__CONFIG_NAME_MAX && lim__config_is_group(path);
    if (place->faulty) {
        skip(w, v);
    } else if (group && v.kind == LIM__OBJECT) {
        path[n] = '.';
        path[n + 1] = '\0';
        take_group(w, v, path);
    } else if (group && v.kind == LIM__NULL) {
        /* all its keys are commented out */
    } else if (group) {
        keep_fault(w->config, LIM__CONFIG_FILE, place->line, place->column,
                   "%s: this is a group of keys, not a value; write its "
                   "keys below it, indented",
                   path);
        skip(w, v);
    } else if (name.len < LIM__CONFIG_NAME_MAX && lim__config_find(full, LIM__CONFIG_AS_PATH, &key)) {
        if (memchr(name.ptr, '.', name.len) != NULL)
            dotted_key(w, name, place);
        else
            take_value(w, key, v, place);
        skip(w, v);
    } else {
        unknown_key(w, full, place);
        skip(w, v);
    }
}

static void take_group(walk *w, lim__val group, const char *prefix)
{
    lim__iter it = lim__iter_begin(group);
    while (lim__iter_next(&it))
        take_member(w, it.key, it.val, prefix);
}

static void take_root(walk *w, lim__val root)
{
    const lim__yaml_place *place = &w->yaml->places[w->at++];
    if (root.kind == LIM__OBJECT && !place->faulty) {
        take_group(w, root, "");
        return;
    }
    if (root.kind != LIM__NULL && !place->faulty)
        keep_fault(w->config, LIM__CONFIG_FILE, place->line, place->column,
                   "the file holds no keys: it is a single value or a "
                   "list; a line is KEY: VALUE");
    skip(w, root);
}

void lim__config_text(lim__config *c, const char *path, lim_bytes text)
{
    lim__yaml yaml = { 0 };
    c->path = path;
    lim_err err = lim__yaml_read(&yaml, text, on_fault, c);
    if (err == LIM_OK) {
        walk w = { c, &yaml, 0 };
        take_root(&w, lim__doc_root(yaml.doc));
        LIM_ASSERT(w.at == yaml.count);
    }
    if (err == LIM_E_NOMEM || (err != LIM_OK && c->fault_count == 0))
        c->no_memory = true;
    lim__yaml_fini(&yaml);
}

static void take_file(lim__config *c, const char *path)
{
    void *text;
    size_t len;
    int err = lim__file_read(path, LIM__YAML_BYTES_MAX, &text, &len);
    c->path = path;
    if (err == -EFBIG) {
        keep_fault(c, LIM__CONFIG_FILE, 0, 0, "larger than %d MiB; a configuration is far smaller",
                   LIM__YAML_BYTES_MAX >> 20);
    } else if (err != 0) {
        keep_fault(c, LIM__CONFIG_FILE, 0, 0, "cannot be read: %s; check --config", strerror(-err));
    } else {
        lim__config_text(c, path, lim__bytes(text, len));
        free(text);
    }
}

/* ---- the environment ---- */

/* Names that other programs use: the command's own, and what Kubernetes sets for a service that is called liminal. */
static bool is_others(lim_bytes name, const char *value)
{
    static const char *const names[] = { "LIMINAL_SERVER", "LIMINAL_CONVERSATION", "LIMINAL_ATTEMPT",
                                         "LIMINAL_LOSSES", "LIMINAL_IDENTITY",     "LIMINAL_TYPE" };
    static const char service[] = "LIMINAL_SERVICE_", port[] = "LIMINAL_PORT_";
    for (size_t i = 0; i < LIM_COUNT(names); i++)
        if (lim__bytes_eq(name, lim__str(names[i])))
            return true;
    return (name.len > sizeof service - 1 && memcmp(name.ptr, service, sizeof service - 1) == 0) ||
           (name.len > sizeof port - 1 && memcmp(name.ptr, port, sizeof port - 1) == 0) ||
           (name.len == sizeof port - 2 && memcmp(name.ptr, port, sizeof port - 2) == 0 &&
            strstr(value, "://") != NULL);
}

static void take_variable(lim__config *c, lim_bytes name, const char *value)
{
    char clipped[LIM__YAML_CLIP + 4], nearest[LIM__CONFIG_NAME_MAX + 1];
    lim__config_key key;
    if (lim__config_find(name, LIM__CONFIG_AS_VARIABLE, &key))
        take_word(c, key, LIM__CONFIG_ENVIRONMENT, value);
    else if (!is_others(name, value))
        keep_fault(c, LIM__CONFIG_ENVIRONMENT, 0, 0,
                   "%s: unknown variable; unset it, or write the nearest known one, %s", lim__yaml_clip(name, clipped),
                   lim__config_nearest(name, LIM__CONFIG_AS_VARIABLE, nearest));
}

void lim__config_environment(lim__config *c, char *const *env)
{
    static const char prefix[] = "LIMINAL_";
    for (; *env != NULL; env++) {
        const char *equals = strchr(*env, '=');
        if (equals != NULL && strncmp(*env, prefix, sizeof prefix - 1) == 0)
            take_variable(c, lim__bytes(*env, (size_t)(equals - *env)), equals + 1);
    }
}

/* ---- the command line ---- */

typedef struct command_line {
    const char *file;
    bool check, print, help, version;
} command_line;

static bool *plain_flag(command_line *l, lim_bytes name)
{
    return lim__bytes_eq(name, lim__str("--check-config"))   ? &l->check
           : lim__bytes_eq(name, lim__str("--print-config")) ? &l->print
           : lim__bytes_eq(name, lim__str("--help"))         ? &l->help
           : lim__bytes_eq(name, lim__str("--version"))      ? &l->version
                                                             : NULL;
}

static bool is_flag(const char *word)
{
    return strncmp(word, "--", 2) == 0;
}

/* The value of argv[*i]: behind its '=', or the word after it. NULL: there is none, which was told. */
static const char *value_of(lim__config *c, lim_bytes name, int argc, char *const *argv, int *i)
{
    char clipped[LIM__YAML_CLIP + 4];
    if (argv[*i][name.len] == '=')
        return argv[*i] + name.len + 1;
    if (*i + 1 < argc && !is_flag(argv[*i + 1]))
        return argv[++*i];
    keep_fault(c, LIM__CONFIG_FLAG, 0, 0, "%s: its value is missing; see liminald --help",
               lim__yaml_clip(name, clipped));
    return NULL;
}

static void take_flag(lim__config *c, command_line *l, int argc, char *const *argv, int *i)
{
    const char *word = argv[*i], *value;
    lim_bytes name = lim__bytes(word, strcspn(word, "="));
    char clipped[LIM__YAML_CLIP + 4], nearest[LIM__CONFIG_NAME_MAX + 1];
    bool *plain = plain_flag(l, name), has_value = word[name.len] == '=';
    lim__config_key key;
    if (plain != NULL) {
        *plain = true;
        if (has_value)
            keep_fault(c, LIM__CONFIG_FLAG, 0, 0, "%s: it takes no value; leave that out",
                       lim__yaml_clip(name, clipped));
    } else if (lim__bytes_eq(name, lim__str("--config"))) {
        value = value_of(c, name, argc, argv, i);
        l->file = value != NULL ? value : l->file;
    } else if (lim__config_find(name, LIM__CONFIG_AS_FLAG, &key)) {
        bool alone = lim__config_table[key].kind == LIM__CONFIG_SWITCH && !has_value;
        value = alone ? "true" : value_of(c, name, argc, argv, i);
        if (value != NULL)
            take_word(c, key, LIM__CONFIG_FLAG, value);
    } else {
        keep_fault(c, LIM__CONFIG_FLAG, 0, 0,
                   "%s: unknown flag; the nearest known one is %s, liminald --help shows all",
                   lim__yaml_clip(name, clipped), lim__config_nearest(name, LIM__CONFIG_AS_FLAG, nearest));
        if (!has_value && *i + 1 < argc && !is_flag(argv[*i + 1]))
            ++*i; /* probably its value: one mistake, one line */
    }
}

static command_line take_command_line(lim__config *c, int argc, char *const *argv)
{
    command_line l = { 0 };
    char clipped[LIM__YAML_CLIP + 4];
    for (int i = 1; i < argc; i++) {
        if (is_flag(argv[i]))
            take_flag(c, &l, argc, argv, &i);
        else
            keep_fault(c, LIM__CONFIG_FLAG, 0, 0, "%s: not a flag; see liminald --help",
                       lim__yaml_clip(lim__str(argv[i]), clipped));
    }
    return l;
}

static void put_help(lim__buf *out)
{
    char flag[LIM__CONFIG_NAME_MAX + 1];
    lim__buf_text(out,
                  "liminald - the server of a liminal bus\n\n"
                  "  --config FILE                 read FILE (YAML, - is standard input); see examples/liminald.yaml\n"
                  "  --check-config                say what is wrong with the configuration, then end\n"
                  "  --print-config                print every value and where it comes from, then end\n");
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        const lim__config_entry *key = &lim__config_table[i];
        lim__config_name((lim__config_key)i, LIM__CONFIG_AS_FLAG, flag);
        int pad = 29 - (int)strlen(flag);
        lim__buf_format(out, "  %s %-*s%s (%s)\n", flag, pad, key->argument, key->text,
                        key->kind == LIM__CONFIG_SWITCH ? "off" : key->otherwise);
    }
    lim__buf_text(
        out, "  --help, --version\n\n"
             "Each of these but --config can also be set by a variable, LIMINAL_LOG_LEVEL for --log-level. A flag\n"
             "wins over a variable, a variable over the file. Durations: 50us, 250ms, 2s, 5m; sizes: 64KiB, 1MiB.\n");
}

/* ---- all of it ---- */

static void refuse_open_door(lim__config *c)
{
    const lim__config_value *listen = &c->values[LIM__CONFIG_LISTEN];
    lim__config_spelling as = listen->origin == LIM__CONFIG_FLAG          ? LIM__CONFIG_AS_FLAG
                              : listen->origin == LIM__CONFIG_ENVIRONMENT ? LIM__CONFIG_AS_VARIABLE
                                                                          : LIM__CONFIG_AS_PATH;
    char name[LIM__CONFIG_NAME_MAX + 1];
    keep_fault(
        c, listen->origin, listen->line, listen->column,
        "%s: %s is refused, other machines could reach it and nothing asks who they are; listen on 127.0.0.1, or add "
        "%s",
        lim__config_name(LIM__CONFIG_LISTEN, as, name), listen->text,
        as == LIM__CONFIG_AS_PATH ? "insecure_listen: true" : "--insecure-listen");
}

void lim__config_finish(lim__config *c)
{
    bool known = lim__config_address(c->values[LIM__CONFIG_LISTEN].text, c->host, &c->port);
    LIM_ASSERT(known || c->no_memory);
    if (known && !lim__config_is_loopback(c->host) && c->values[LIM__CONFIG_INSECURE_LISTEN].n == 0)
        refuse_open_door(c);
    if (c->fault_count > 1)
        qsort(c->faults, c->fault_count, sizeof *c->faults, fault_order);
}

static void put_origin(lim__config_key key, const lim__config_value *value, lim__buf *out)
{
    char name[LIM__CONFIG_NAME_MAX + 1];
    switch (value->origin) {
    case LIM__CONFIG_DEFAULT:
        lim__buf_text(out, "default");
        break;
    case LIM__CONFIG_FILE:
        lim__buf_format(out, "file:%d", value->line);
        break;
    case LIM__CONFIG_ENVIRONMENT:
        lim__buf_text(out, lim__config_name(key, LIM__CONFIG_AS_VARIABLE, name));
        break;
    case LIM__CONFIG_FLAG:
        lim__buf_text(out, lim__config_name(key, LIM__CONFIG_AS_FLAG, name));
        break;
    default:
        LIM_NEVER(value->origin);
    }
}

void lim__config_print(const lim__config *c, lim__buf *out)
{
    char group[LIM__CONFIG_NAME_MAX + 1] = "";
    lim__buf_text(out, "# liminald " LIM_VERSION ": the configuration in effect, each value with its origin\n");
    if (c->path != NULL) {
        lim__buf_text(out, "# file: ");
        put_path(c, out);
        lim__buf_text(out, "\n");
    }
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        const char *path = lim__config_table[i].path, *dot = strchr(path, '.');
        size_t group_len = dot != NULL ? (size_t)(dot - path) : 0;
        if (group_len > 0 && (strncmp(group, path, group_len) != 0 || group[group_len] != '\0')) {
            snprintf(group, sizeof group, "%.*s", (int)group_len, path);
            lim__buf_format(out, "%s:\n", group);
        }
        lim__buf_format(out, "%s%s: ", group_len > 0 ? "  " : "", dot != NULL ? dot + 1 : path);
        lim__config_write(&lim__config_table[i], &c->values[i], out);
        lim__buf_text(out, "  # ");
        put_origin((lim__config_key)i, &c->values[i], out);
        lim__buf_text(out, "\n");
    }
}

static lim__config_next show(const lim__config *c, const command_line *l, lim__buf *out)
{
    if (l->help)
        put_help(out);
    else if (l->version)
        lim__buf_text(out, "liminald " LIM_VERSION "\n");
    else if (l->print)
        lim__config_print(c, out);
    else
        lim__buf_text(out, "the configuration is valid\n");
    return LIM__CONFIG_SHOW;
}

lim__config_next lim__config_load(lim__config *c, int argc, char *const *argv, char *const *env, lim__buf *out)
{
    lim__config_init(c);
    command_line l = take_command_line(c, argc, argv);
    if (l.help || l.version)
        return show(c, &l, out);
    if (l.file != NULL)
        take_file(c, l.file);
    lim__config_environment(c, env);
    lim__config_finish(c);
    if (c->fault_count > 0 || c->no_memory) {
        lim__config_faults(c, out);
        return LIM__CONFIG_REFUSE;
    }
    return l.check || l.print ? show(c, &l, out) : LIM__CONFIG_RUN;
}
