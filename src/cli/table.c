/* SPDX-License-Identifier: Apache-2.0
 * table.c - cells in aligned columns, for people.
 *
 * The text of all cells lies in one buffer, the cells say where. A column of nothing but numbers is aligned to the
 * right, the last column is never padded. Width is counted in characters, not bytes; control characters, which a name
 * from outside might bring, are shown as `?`. */
#include "cli/cli.h"

#include <ctype.h>
#include <stdlib.h>

struct cli_cell {
    size_t at, len, width;
    bool number;
};

void cli_table_begin(cli_table *t, const char *const *columns, size_t column_count)
{
    LIM_ASSERT(column_count > 0);
    *t = (cli_table){ .columns = columns, .column_count = column_count };
}

static bool room(cli_table *t)
{
    if (t->cell_count < t->cell_cap)
        return true;
    size_t cap = t->cell_cap ? t->cell_cap * 2 : 64;
    struct cli_cell *grown = realloc(t->cells, cap * sizeof *grown);
    if (!grown)
        return false;
    t->cells = grown;
    t->cell_cap = cap;
    return true;
}

void cli_table_cell(cli_table *t, lim_bytes text)
{
    const uint8_t *p = text.len ? text.ptr : (const uint8_t *)"-";
    size_t len = text.len ? text.len : 1;
    if (!room(t))
        return;
    struct cli_cell *cell = &t->cells[t->cell_count++];
    *cell = (struct cli_cell){ .at = lim__buf_len(&t->text), .len = len, .number = true };
    for (size_t i = 0; i < len; i++) {
        cell->width += (p[i] & 0xC0) != 0x80;
        cell->number = cell->number && (isdigit(p[i]) || p[i] == '.' || p[i] == '-');
        lim__buf_add(&t->text, p[i] < ' ' || p[i] == 0x7F ? (const uint8_t *)"?" : &p[i], 1);
    }
}

static void pad(lim__buf *out, size_t n)
{
    for (; n > 0; n--)
        lim__buf_add(out, " ", 1);
}

typedef struct column {
    size_t width;
    bool right;
} column;

static void measure(const cli_table *t, column *columns)
{
    for (size_t c = 0; c < t->column_count; c++)
        columns[c] = (column){ .width = strlen(t->columns[c]), .right = t->cell_count > 0 };
    for (size_t i = 0; i < t->cell_count; i++) {
        column *c = &columns[i % t->column_count];
        c->width = t->cells[i].width > c->width ? t->cells[i].width : c->width;
        c->right = c->right && t->cells[i].number;
    }
}

static void put(lim__buf *out, const column *c, bool last, const void *text, size_t len, size_t width)
{
    if (c->right)
        pad(out, c->width - width);
    lim__buf_add(out, text, len);
    if (last)
        lim__buf_text(out, "\n");
    else
        pad(out, (c->right ? 0 : c->width - width) + 2);
}

void cli_table_print(cli_table *t, lim__buf *out)
{
    column *columns = calloc(t->column_count, sizeof *columns);
    if (!columns)
        return;
    measure(t, columns);
    for (size_t c = 0; c < t->column_count; c++) {
        char upper[64] = "";
        size_t len = strlen(t->columns[c]);
        LIM_ASSERT(len < sizeof upper);
        for (size_t i = 0; i < len; i++)
            upper[i] = (char)toupper((unsigned char)t->columns[c][i]);
        put(out, &columns[c], c + 1 == t->column_count, upper, len, len);
    }
    for (size_t i = 0; i < t->cell_count; i++) {
        const struct cli_cell *cell = &t->cells[i];
        put(out, &columns[i % t->column_count], (i + 1) % t->column_count == 0, t->text.ptr + cell->at, cell->len,
            cell->width);
    }
    free(columns);
}

void cli_table_fini(cli_table *t)
{
    free(t->cells);
    lim__buf_fini(&t->text);
    *t = (cli_table){ 0 };
}
