/* SPDX-License-Identifier: Apache-2.0
 * value.c - JSON values for people: as a cell, as a table, as lines of keys and values. */
#include "cli/admin.h"

enum { COLUMNS_MAX = LIM_COUNT(((cli_noun *)0)->columns) };

/* As a cell: text as it is, lists and sets joined by commas, nothing for what is absent. */
static void cell_text(lim__buf *b, lim__val v)
{
    if (v.kind == LIM__ABSENT || v.kind == LIM__NULL) {
        return;
    } else if (v.kind == LIM__TEXT) {
        lim__buf_add(b, v.text.ptr, v.text.len);
    } else if (v.kind == LIM__BOOL) {
        lim__buf_text(b, v.truth ? "yes" : "no");
    } else if (v.kind == LIM__ARRAY || v.kind == LIM__OBJECT) {
        lim__iter it = lim__iter_begin(v);
        while (lim__iter_next(&it)) {
            lim__buf_text(b, it.index ? "," : "");
            if (v.kind == LIM__OBJECT)
                lim__buf_add(b, it.key.ptr, it.key.len);
            else
                cell_text(b, it.val);
        }
    } else {
        lim__json j = lim__json_begin(b);
        lim__json_val(&j, NULL, v);
    }
}

static bool any_has(const lim__val *rows, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++) {
        if (lim__val_present(lim__val_get(rows[i], key)))
            return true;
    }
    return count == 0;
}

/* A column that no row has is left out. */
void cli_value_table(struct cli *cli, const char *const *columns, const lim__val *rows, size_t row_count)
{
    const char *shown[COLUMNS_MAX];
    size_t count = 0;
    cli_table table;
    for (size_t i = 0; columns[i]; i++) {
        if (any_has(rows, row_count, columns[i]))
            shown[count++] = columns[i];
    }
    if (count == 0)
        return;
    cli_table_begin(&table, shown, count);
    for (size_t i = 0; i < row_count * count; i++) {
        lim__buf text = { 0 };
        cell_text(&text, lim__val_get(rows[i / count], shown[i % count]));
        cli_table_cell(&table, lim__buf_bytes(&text));
        lim__buf_fini(&text);
    }
    cli_table_print(&table, &cli->out);
    cli_table_fini(&table);
}

void cli_value_json(struct cli *cli, lim__val v)
{
    lim__json j = lim__json_begin(&cli->out);
    lim__json_val(&j, NULL, v);
    lim__buf_text(&cli->out, "\n");
}

static size_t widest_key(lim__val object)
{
    size_t width = 0;
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it))
        width = it.key.len > width ? it.key.len : width;
    return width;
}

static bool has_objects(lim__val v)
{
    return v.kind == LIM__ARRAY && lim__val_at(v, 0).kind == LIM__OBJECT;
}

static void print_members(struct cli *cli, lim__val object, int indent);

/* What stands under its key: an object's members, a list's objects as one line of JSON each. */
static void print_below(struct cli *cli, lim__val v, int indent)
{
    lim__buf_text(&cli->out, "\n");
    if (v.kind == LIM__OBJECT) {
        print_members(cli, v, indent);
        return;
    }
    lim__iter it = lim__iter_begin(v);
    while (lim__iter_next(&it)) {
        lim__buf_format(&cli->out, "%*s", indent, "");
        cli_value_json(cli, it.val);
    }
}

/* One line a member: key and value, aligned. */
static void print_members(struct cli *cli, lim__val object, int indent)
{
    int width = (int)widest_key(object);
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it)) {
        lim__buf_format(&cli->out, "%*s%.*s", indent, "", (int)it.key.len, (const char *)it.key.ptr);
        if ((it.val.kind == LIM__OBJECT && lim__val_count(it.val) > 0) || has_objects(it.val)) {
            print_below(cli, it.val, indent + 2);
            continue;
        }
        lim__buf_format(&cli->out, "%*s  ", width - (int)it.key.len, "");
        size_t before = lim__buf_len(&cli->out);
        cell_text(&cli->out, it.val);
        lim__buf_text(&cli->out, lim__buf_len(&cli->out) == before ? "-\n" : "\n");
    }
}

void cli_value_show(struct cli *cli, lim__val v)
{
    if (cli->opts->json)
        cli_value_json(cli, v);
    else
        print_members(cli, v, 0);
}
