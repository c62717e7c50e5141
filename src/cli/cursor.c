/* SPDX-License-Identifier: Apache-2.0
 * cursor.c - where the readers of durable channels are: show, why, reset, delete. And how a place in a log is written.
 */
#include "cli/admin.h"

#include <stdio.h>

/* ---- places in a log ---- */

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    unsigned of_era = (unsigned)(year - era * 400);
    unsigned of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + (int64_t)(of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468;
}

/* "Z", "+02:00", or nothing. */
static bool zone_of(const char *text, int64_t *seconds)
{
    unsigned hours, minutes;
    int used = 0;
    char sign = text[0];
    *seconds = 0;
    if (text[0] == 0 || strcmp(text, "Z") == 0)
        return true;
    if ((sign != '+' && sign != '-') || sscanf(text + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 || used != 5 ||
        text[1 + used] != 0 || hours > 23 || minutes > 59)
        return false;
    *seconds = (int64_t)(hours * 3600 + minutes * 60) * (sign == '-' ? -1 : 1);
    return true;
}

/* "2026-11-20T17:00:00Z", "2026-11-20 17:00:00.5+01:00", "2026-11-20"; in UTC unless it says otherwise. */
bool cli_instant(const char *text, uint64_t *us)
{
    unsigned year, month, day, hour = 0, minute = 0, second = 0;
    int64_t micros = 0, zone;
    int used = 0, more = 0;
    if (sscanf(text, "%4u-%2u-%2u%n", &year, &month, &day, &used) != 3 || used != 10)
        return false;
    const char *rest = text + used;
    if (*rest == 'T' || *rest == ' ') {
        if (sscanf(rest + 1, "%2u:%2u:%2u%n", &hour, &minute, &second, &more) != 3 || more != 8)
            return false;
        rest += 1 + more;
    }
    if (*rest == '.') {
        int64_t unit = 100000;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            micros += (*rest - '0') * unit;
    }
    bool fits = month >= 1 && month <= 12 && day >= 1 && day <= 31 && hour <= 23 && minute <= 59 && second <= 60;
    if (!fits || !zone_of(rest, &zone))
        return false;
    int64_t seconds = days_of(year, month, day) * 86400 + (int64_t)(hour * 3600 + minute * 60 + second) - zone;
    *us = (uint64_t)(seconds * 1000000 + micros);
    return seconds >= 0;
}

bool cli_from(struct cli *cli, const char *text, lim_from *from, uint64_t *start)
{
    int64_t ago;
    const char *why;
    *start = 0;
    if (!text || strcmp(text, "new") == 0) {
        *from = text ? LIM_FROM_NEW : 0;
        return true;
    }
    if (strcmp(text, "all") == 0) {
        *from = LIM_FROM_ALL;
        return true;
    }
    *from = LIM_FROM_SEQ;
    if (cli_seq(text, start))
        return true;
    *from = LIM_FROM_TIME;
    if (cli_instant(text, start))
        return true;
    if (cli_duration(text, &ago, &why) && ago != LIM_FOREVER) {
        uint64_t now = cli_wall_us();
        *start = now > (uint64_t)ago ? now - (uint64_t)ago : 1;
        return true;
    }
    cli_fault(cli, CLI_USAGE, "--from", "no place in a log",
              "write all, new, a number, a time (2026-11-20T17:00:00Z), or how long ago (5m)");
    return false;
}

/* ---- cursors ---- */

static lim__json about(struct cli *cli, lim__buf *b, const char *op)
{
    lim__json j = cli_request(b, op);
    lim__json_str(&j, "channel", cli_word(cli, 0));
    lim__json_str(&j, "cursor", cli_word(cli, 1));
    return j;
}

static void once(struct cli *cli, lim__doc *doc, const char *op)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, op);
    if (!cli_request_end(cli, &j, "$sys.cursors", cli_word(cli, 1), doc))
        return;
    lim__val v = lim__doc_root(doc);
    bool why = strcmp(op, "why") == 0 && !cli->opts->json;
    cli_block(cli);
    if (why)
        lim__buf_format(&cli->out, "%s: %s\n", lim__val_str(v, "cursor", "?"), lim__val_str(v, "text", "?"));
    else
        cli_value_show(cli, v);
}

static void show_once(struct cli *cli, lim__doc *doc)
{
    once(cli, doc, "show");
}

static void why_once(struct cli *cli, lim__doc *doc)
{
    once(cli, doc, "why");
}

int cli_run_cursor_show(struct cli *cli)
{
    return cli_repeat(cli, show_once);
}

int cli_run_cursor_why(struct cli *cli)
{
    return cli_repeat(cli, why_once);
}

int cli_run_cursor_reset(struct cli *cli)
{
    lim__buf b = { 0 };
    lim_from from;
    uint64_t start;
    char text[40];
    if (!cli->opts->from) {
        cli_fault(cli, CLI_USAGE, "cursor reset", "it is not said where to",
                  "write --from all, new, a number or a time");
        return cli->code;
    }
    if (!cli_from(cli, cli->opts->from, &from, &start))
        return cli->code;
    if (from == LIM_FROM_SEQ || from == LIM_FROM_TIME)
        snprintf(text, sizeof text, "%s:%llu", from == LIM_FROM_SEQ ? "seq" : "time", (unsigned long long)start);
    else
        snprintf(text, sizeof text, "%s", from == LIM_FROM_ALL ? "all" : "new");
    lim__json j = about(cli, &b, "reset");
    lim__json_str(&j, "from", text);
    return cli_once(cli, &j, "$sys.cursors", cli_word(cli, 1), NULL);
}

int cli_run_cursor_delete(struct cli *cli)
{
    lim__buf b = { 0 };
    lim__json j = about(cli, &b, "delete");
    return cli_once(cli, &j, "$sys.cursors", cli_word(cli, 1), NULL);
}
