/* SPDX-License-Identifier: Apache-2.0
 * deploy.c - load a routing function, then put it into a group's slot: two asks, and a bad one changes nothing. */
#include "cli/cli.h"
#include "base/base64.h"
#include "data/data.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CODE_MAX = 1 << 20 };

bool cli_is_object(lim_bytes code)
{
    static const char elf[] = "\177ELF";
    return code.len >= sizeof elf - 1 && memcmp(code.ptr, elf, sizeof elf - 1) == 0;
}

void *cli_code_read(struct cli *cli, const char *path, size_t *len)
{
    void *code = NULL;
    int err = lim__file_read(path, CODE_MAX, &code, len);
    bool missing = err == -ENOENT || err == -ENOTDIR;
    if (err != 0)
        cli_fault(cli, missing ? CLI_NOT_FOUND : CLI_FAILED, path, err == -EFBIG ? "longer than 1 MiB" : strerror(-err),
                  missing ? "name a file of Lua text, or --builtin least_loaded" : "make it readable and short");
    else if (cli_is_object(lim__bytes(code, *len)))
        return code;
    else if (!cli_utf8(lim__bytes(code, *len)))
        cli_fault(cli, CLI_FAILED, path, "not UTF-8", "save it as UTF-8; compiled Lua is not taken, its text is");
    else
        return code;
    free(code);
    return NULL;
}

static void load_request(lim__buf *b, const char *engine, const char *name, lim_bytes code)
{
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "load");
    lim__json_str(&j, "engine", engine);
    lim__json_str(&j, "name", name);
    if (strcmp(engine, "native") == 0) {
        lim__buf text = { 0 };
        lim__base64_write(&text, code);
        lim__json_bytes(&j, "code", lim__buf_bytes(&text));
        lim__buf_fini(&text);
    } else {
        lim__json_bytes(&j, "code", code);
    }
    lim__json_close(&j);
}

const char *cli_by(const struct cli *cli)
{
    const char *by = cli->opts->by ? cli->opts->by : getenv("LOGNAME");
    if (!by || !*by)
        by = getenv("USER");
    return by && strlen(by) < 64 ? by : "";
}

/* "10%", "0.5%", "10": as a number of percent. */
static bool ramp_json(struct cli *cli, lim__json *j)
{
    char *end;
    const char *text = cli->opts->ramp;
    double percent = strtod(text, &end);
    if (end == text || (*end && strcmp(end, "%") != 0) || !(percent >= 0.01 && percent <= 100)) {
        cli_fault(cli, CLI_USAGE, text, "no share of the messages", "write a percentage, as in --ramp 10%");
        return false;
    }
    lim__json_f64(j, "percent", percent);
    return true;
}

/* "10/10s", "off" */
static bool breaker_json(struct cli *cli, lim__json *j)
{
    const char *text = cli->opts->breaker, *slash = strchr(text, '/'), *why = "";
    char number[16];
    uint32_t faults;
    int64_t us;
    if (strcmp(text, "off") == 0) {
        lim__json_u64(j, "breaker_faults", 0);
        return true;
    }
    snprintf(number, sizeof number, "%.*s", slash && slash - text < 15 ? (int)(slash - text) : 0, text);
    if (!slash || !cli_number(number, &faults, &why) || !cli_duration(slash + 1, &us, &why) || us == LIM_FOREVER) {
        cli_fault(cli, CLI_USAGE, text, "no rule for a breaker", "write FAULTS/TIME, as in --breaker 10/10s, or off");
        return false;
    }
    lim__json_u64(j, "breaker_faults", faults);
    lim__json_i64(j, "breaker_ms", (us + 999) / 1000);
    return true;
}

static bool trial_json(struct cli *cli, lim__json *j)
{
    const cli_opts *o = cli->opts;
    bool ramp = o->ramp || o->ramp_where;
    if ((o->shadow && ramp) || (o->ramp_key && !ramp)) {
        cli_fault(cli, CLI_USAGE, "deploy", o->ramp_key && !ramp ? "--ramp-key without --ramp" : "--shadow and a ramp",
                  "choose one: --shadow, --ramp 10% --ramp-key FIELD, or --ramp-where EXPR");
        return false;
    }
    if (o->shadow)
        lim__json_str(j, "trial", "shadow");
    if (ramp)
        lim__json_str(j, "trial", "ramp");
    if (o->ramp_key)
        lim__json_str(j, "ramp_key", o->ramp_key);
    if (o->ramp_where)
        lim__json_str(j, "ramp_where", o->ramp_where);
    return !o->ramp || ramp_json(cli, j);
}

/* The members that say how it is to run. False: told. */
static bool terms_json(struct cli *cli, lim__json *j)
{
    static const char *const faults[] = { NULL, "reject", "previous", "least_loaded" };
    const cli_opts *o = cli->opts;
    if (o->cpu_us)
        lim__json_i64(j, "cpu_us", o->cpu_us);
    if (o->wall_us)
        lim__json_i64(j, "wall_ms", (o->wall_us + 999) / 1000);
    if (o->memory_bytes)
        lim__json_u64(j, "memory_bytes", o->memory_bytes);
    if (o->log_bytes)
        lim__json_u64(j, "log_bytes", o->log_bytes);
    if (o->on_fault)
        lim__json_str(j, "on_fault", faults[o->on_fault]);
    if (o->keep)
        lim__json_u64(j, "keep", o->keep);
    if (o->if_version)
        lim__json_str(j, "if_version", o->if_version);
    lim__json_str(j, "by", cli_by(cli));
    return (!o->breaker || breaker_json(cli, j)) && trial_json(cli, j);
}

static bool deploy_request(lim__buf *b, struct cli *cli, const char *hash)
{
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "deploy");
    lim__json_str(&j, cli->opts->channel ? "channel" : "group", cli_word(cli, 0));
    lim__json_str(&j, "hash", hash);
    if (!terms_json(cli, &j))
        return false;
    lim__json_close(&j);
    return true;
}

typedef struct loaded {
    char hash[80], id[24];
} loaded;

static loaded loaded_of(lim__val reply)
{
    loaded l;
    snprintf(l.hash, sizeof l.hash, "%s", lim__val_str(reply, "hash", ""));
    snprintf(l.id, sizeof l.id, "%s", lim__val_str(reply, "short", ""));
    return l;
}

static void say_ramp(struct cli *cli, const loaded *l)
{
    const char *share = cli->opts->ramp, *where = cli->opts->ramp_where;
    lim__buf_format(&cli->out, "%s: %s decides about %s%s of the messages%s%s\n", cli_word(cli, 0), l->id,
                    share ? share : "all", !share || strchr(share, '%') ? "" : "%", where ? " where " : "",
                    where ? where : "");
}

static void say_deployed(struct cli *cli, const loaded *l, lim__val reply)
{
    const char *previous = lim__val_str(reply, "previous", NULL);
    lim__buf *out = &cli->out;
    if (cli->opts->json) {
        lim__json j = lim__json_begin(out);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, cli->opts->channel ? "channel" : "group", cli_word(cli, 0));
        lim__json_str(&j, "hash", l->hash);
        lim__json_str(&j, "short", l->id);
        lim__json_str(&j, "previous", previous);
        lim__json_close(&j);
        lim__buf_text(out, "\n");
        return;
    }
    if (cli->opts->shadow)
        lim__buf_format(out, "%s: %s is asked beside %s; liminal route show %s compares them\n", cli_word(cli, 0),
                        l->id, lim__val_str(reply, "version", "the live one"), cli_word(cli, 0));
    else if (cli->opts->ramp || cli->opts->ramp_where)
        say_ramp(cli, l);
    if (cli->opts->shadow || cli->opts->ramp || cli->opts->ramp_where)
        return;
    lim__buf_format(out, "%s: %s routes", cli_word(cli, 0), l->id);
    if (previous)
        lim__buf_format(out, ", %.*s did before", (int)strlen(l->id), previous);
    lim__buf_text(out, "\n");
}

/* Both asks; what is found wrong is told. */
static void deploy(struct cli *cli, const char *engine, const char *name, lim_bytes code)
{
    lim__buf request = { 0 };
    lim__doc *doc = lim__doc_new();
    if (!deploy_request(&request, cli, "")) /* what is wrong is told before anything is loaded */
        goto end;
    lim__buf_fini(&request);
    load_request(&request, engine, name, code);
    if (cli_sys(cli, "$sys.artifacts", name, lim__buf_bytes(&request), doc)) {
        loaded l = loaded_of(lim__doc_root(doc));
        lim__buf_fini(&request);
        if (deploy_request(&request, cli, l.hash) &&
            cli_sys(cli, "$sys.routes", cli_word(cli, 0), lim__buf_bytes(&request), doc))
            say_deployed(cli, &l, lim__doc_root(doc));
    }
    cli_finish(cli);
end:
    lim__buf_fini(&request);
    lim__doc_free(doc);
}

int cli_run_deploy(struct cli *cli)
{
    const char *path = cli_word(cli, 1), *builtin = cli->opts->builtin;
    size_t len = 0;
    if (cli->opts->timeout_us && !cli->opts->wall_us)
        cli->args.opts.wall_us = cli->opts->timeout_us; /* what is given up after so long is a decision */
    cli->args.opts.timeout_us = 0;
    if (!path == !builtin) {
        cli_fault(cli, CLI_USAGE, "deploy",
                  path ? "a file and --builtin were both given" : "there is nothing to deploy",
                  "write liminal deploy GROUP FILE.lua, or --builtin least_loaded");
        return CLI_USAGE;
    }
    if (builtin) {
        deploy(cli, "builtin", builtin, lim__str(builtin));
        return cli->code;
    }
    void *code = cli_code_read(cli, path, &len);
    if (code)
        deploy(cli, cli_is_object(lim__bytes(code, len)) ? "native" : "lua", path, lim__bytes(code, len));
    free(code);
    return cli->code;
}
