/* SPDX-License-Identifier: Apache-2.0
 * say.c - standard output and standard error, and the words both share. */
#include "cli/cli.h"
#include "base/base64.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* From harmless to worst. A lost connection tops them all: nobody knows what became of the work. */
int cli_worse(int a, int b)
{
    static const int order[] = { CLI_DONE,    CLI_NOT_FOUND, CLI_FAILED, CLI_REJECTED,   CLI_CANCELLED,
                                 CLI_TIMEOUT, CLI_CRASHED,   CLI_USAGE,  CLI_UNREACHABLE };
    size_t rank_a = 0, rank_b = 0;
    for (size_t i = 0; i < LIM_COUNT(order); i++) {
        rank_a = order[i] == a ? i : rank_a;
        rank_b = order[i] == b ? i : rank_b;
    }
    return rank_a >= rank_b ? a : b;
}

/* One write, so that lines of several programs on one terminal do not mix. Line breaks would make it two lines. */
static void one_line(char *line, size_t size, size_t len)
{
    len = len < size - 1 ? len : size - 2;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7F)
            line[i] = ' ';
    }
    line[len] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len + 1);
    (void)written; /* there is nobody left to complain to */
}

void cli_note(const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len > 0)
        one_line(line, sizeof line, (size_t)len);
}

void cli_fault(struct cli *cli, int code, const char *what, const char *why, const char *todo)
{
    cli_note("liminal: %s: %s; %s", what, why, todo);
    cli->told = true;
    cli->code = cli_worse(cli->code, code);
}

void cli_flush(struct cli *cli)
{
    while (lim__buf_len(&cli->out) > 0 && !cli->out_gone) {
        lim_bytes all = lim__buf_bytes(&cli->out);
        ssize_t n = write(STDOUT_FILENO, all.ptr, all.len);
        if (n >= 0)
            lim__buf_consume(&cli->out, (size_t)n);
        else if (errno != EINTR)
            cli->out_gone = true;
        if (n < 0 && errno != EINTR && errno != EPIPE)
            cli_fault(cli, CLI_FAILED, "standard output", strerror(errno), "see where it goes to");
    }
    if (cli->out_gone) {
        lim__buf_fini(&cli->out);
        cli->ended = true;
    }
    if (cli->on_written && cli->client && cli->link == CLI_LINK_UP)
        cli->on_written(cli->state);
}

int cli_err_code(lim_err err)
{
    switch (err) {
    case LIM_OK:
        return CLI_DONE;
    case LIM_E_INVALID:
    case LIM_E_MISUSE:
        return CLI_USAGE;
    case LIM_E_UNREACHABLE:
    case LIM_E_PROTOCOL:
        return CLI_UNREACHABLE;
    case LIM_E_TIMEOUT:
        return CLI_TIMEOUT;
    case LIM_E_NOTFOUND:
        return CLI_NOT_FOUND;
    case LIM_E_GONE:
    case LIM_E_CLOSED:
        return CLI_CANCELLED;
    case LIM_E_FULL:
    case LIM_E_EXISTS:
    case LIM_E_TOOBIG:
    case LIM_E_DENIED:
        return CLI_REJECTED;
    case LIM_E_NOMEM:
    case LIM_E_CODE:
    case LIM_E_SCHEMA:
    case LIM_E_IO:
        return CLI_FAILED;
    }
    return CLI_FAILED;
}

static const char *advice(lim_err err)
{
    switch (cli_err_code(err)) {
    case CLI_USAGE:
        return "names are letters, digits, _ and - in segments joined by dots";
    case CLI_UNREACHABLE:
        return "start liminald, or name its address with --server or LIMINAL_SERVER";
    case CLI_REJECTED:
        return err == LIM_E_EXISTS   ? "choose another --identity, or leave it out"
               : err == LIM_E_TOOBIG ? "send less at once, or a reference to where it lies"
               : err == LIM_E_DENIED ? "names that begin with $ belong to the system"
                                     : "try again later";
    case CLI_NOT_FOUND:
        return "see liminal channel ls and liminal group ls";
    default:
        return "see liminald's log";
    }
}

void cli_err(struct cli *cli, const char *what, lim_err err, const lim_diag *diag)
{
    bool whole = diag && strstr(diag->text, "; "); /* already says what to do */
    if (whole)
        cli_note("liminal: %s: %s", what, diag->text);
    else
        cli_note("liminal: %s: %s; %s", what, diag && *diag->text ? diag->text : lim_err_text(err), advice(err));
    cli->told = true;
    cli->code = cli_worse(cli->code, cli_err_code(err));
}

void cli_json_payload(lim__json *j, lim_bytes payload)
{
    if (cli_utf8(payload)) {
        lim__json_bytes(j, "payload", payload);
        return;
    }
    lim__buf text = { 0 };
    lim__base64_write(&text, payload);
    lim__json_bytes(j, "payload_base64", lim__buf_bytes(&text));
    lim__buf_fini(&text);
}

void cli_json_us(lim__json *j, const char *key, uint64_t ns)
{
    if (ns == 0)
        lim__json_str(j, key, NULL);
    else
        lim__json_u64(j, key, (ns + 999) / 1000);
}

void cli_json_id(lim__json *j, const char *key, uint64_t id)
{
    char text[24];
    snprintf(text, sizeof text, CLI_ID_FORMAT, (unsigned long long)id);
    lim__json_str(j, key, id ? text : NULL);
}
