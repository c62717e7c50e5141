/* SPDX-License-Identifier: Apache-2.0
 * deploy.c - load a routing function, then put it into a group's slot: a bad one changes nothing. */
#include "cli/cli.h"
#include "cli/routed.h"
#include "data/data.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CODE_MAX = 16 << 20 };

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
        cli_fault(cli, missing ? CLI_NOT_FOUND : CLI_FAILED, path,
                  err == -EFBIG ? "longer than 16 MiB" : strerror(-err),
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

const char *cli_by(const struct cli *cli)
{
    const char *by = cli->opts->by ? cli->opts->by : getenv("LOGNAME");
    if (!by || !*by)
        by = getenv("USER");
    return by && strlen(by) < 64 ? by : "";
}

/* "10%", "0.5%", "10": in hundredths of a percent. */
static bool ramp_of(struct cli *cli, lim_deploy_opts *d)
{
    char *end;
    const char *text = cli->opts->ramp;
    double percent = strtod(text, &end);
    if (end == text || (*end && strcmp(end, "%") != 0) || !(percent >= 0.01 && percent <= 100)) {
        cli_fault(cli, CLI_USAGE, text, "no share of the messages", "write a percentage, as in --ramp 10%");
        return false;
    }
    d->trial = LIM_TRIAL_RAMP;
    d->ramp = (uint32_t)(percent * 100 + 0.5);
    return true;
}

static uint32_t ms_of(int64_t us)
{
    int64_t ms = (us + 999) / 1000;
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX - 1;
}

/* "10/10s", "off" */
static bool breaker_of(struct cli *cli, lim_deploy_opts *d)
{
    const char *text = cli->opts->breaker, *slash = strchr(text, '/'), *why = "";
    char number[16];
    int64_t us;
    if (strcmp(text, "off") == 0) {
        d->breaker_faults = LIM_UNLIMITED;
        return true;
    }
    snprintf(number, sizeof number, "%.*s", slash && slash - text < 15 ? (int)(slash - text) : 0, text);
    if (!slash || !cli_number(number, &d->breaker_faults, &why) || !cli_duration(slash + 1, &us, &why) ||
        us == LIM_FOREVER) {
        cli_fault(cli, CLI_USAGE, text, "no rule for a breaker", "write FAULTS/TIME, as in --breaker 10/10s, or off");
        return false;
    }
    d->breaker_ms = ms_of(us);
    if (d->breaker_faults == 0)
        d->breaker_faults = LIM_UNLIMITED;
    return true;
}

static bool trial_of(struct cli *cli, lim_deploy_opts *d)
{
    const cli_opts *o = cli->opts;
    bool ramp = o->ramp || o->ramp_where;
    if ((o->shadow && ramp) || (o->ramp_key && !ramp)) {
        cli_fault(cli, CLI_USAGE, "deploy", o->ramp_key && !ramp ? "--ramp-key without --ramp" : "--shadow and a ramp",
                  "choose one: --shadow, --ramp 10% --ramp-key FIELD, or --ramp-where EXPR");
        return false;
    }
    if (o->shadow)
        d->trial = LIM_TRIAL_SHADOW;
    if (ramp)
        d->trial = LIM_TRIAL_RAMP;
    d->ramp_key = o->ramp_key;
    d->ramp_where = o->ramp_where;
    return !o->ramp || ramp_of(cli, d);
}

/* How it is to run. False: told. */
static bool terms_of(struct cli *cli, lim_deploy_opts *d)
{
    const cli_opts *o = cli->opts;
    *d = (lim_deploy_opts){ .size = sizeof *d,
                            .cpu_us_max = o->cpu_us < UINT32_MAX ? (uint32_t)o->cpu_us : UINT32_MAX - 1,
                            .wall_ms_max = ms_of(o->wall_us),
                            .memory_bytes_max =
                                o->memory_bytes < UINT32_MAX ? (uint32_t)o->memory_bytes : UINT32_MAX - 1,
                            .log_bytes_max = o->log_bytes < UINT32_MAX ? (uint32_t)o->log_bytes : UINT32_MAX - 1,
                            .on_fault = (lim_on_fault)o->on_fault,
                            .keep = o->keep,
                            .if_named = o->if_version,
                            .by = cli_by(cli) };
    return (!o->breaker || breaker_of(cli, d)) && trial_of(cli, d);
}

static void say_ramp(struct cli *cli, const lim_routed *loaded)
{
    const char *share = cli->opts->ramp, *where = cli->opts->ramp_where;
    lim__buf_format(&cli->out, "%s: %s decides about %s%s of the messages%s%s\n", cli_word(cli, 0), loaded->version,
                    share ? share : "all", !share || strchr(share, '%') ? "" : "%", where ? " where " : "",
                    where ? where : "");
}

static void say_deployed(struct cli *cli, const lim_routed *loaded, const lim_routed *r)
{
    char hash[65], before[65];
    const char *group = cli_word(cli, 0), *previous = cli_hash_text(&r->previous, before);
    lim__buf *out = &cli->out;
    if (cli->opts->json) {
        lim__json j = lim__json_begin(out);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, cli->opts->channel ? "channel" : "group", group);
        lim__json_str(&j, "hash", cli_hash_text(&loaded->hash, hash));
        lim__json_str(&j, "short", loaded->version);
        lim__json_str(&j, "previous", previous);
        lim__json_close(&j);
        lim__buf_text(out, "\n");
        return;
    }
    if (cli->opts->shadow)
        lim__buf_format(out, "%s: %s is asked beside %s; liminal route show %s compares them\n", group, loaded->version,
                        r->version, group);
    else if (cli->opts->ramp || cli->opts->ramp_where)
        say_ramp(cli, loaded);
    if (cli->opts->shadow || cli->opts->ramp || cli->opts->ramp_where)
        return;
    lim__buf_format(out, "%s: %s routes", group, loaded->version);
    if (previous)
        lim__buf_format(out, ", %.*s did before", (int)strlen(loaded->version), previous);
    lim__buf_text(out, "\n");
}

/* Both steps; what is found wrong is told. */
static void deploy(struct cli *cli, lim_engine engine, const char *name, lim_bytes code)
{
    lim_deploy_opts opts;
    cli_routed load = { .cli = cli, .what = name }, routed = { .cli = cli, .what = cli_word(cli, 0) };
    if (!terms_of(cli, &opts)) /* what is wrong is told before anything is loaded */
        return;
    if (cli_routed_begin(&load) &&
        cli_routed_end(&load, lim_client_artifact_load_async(cli->client, engine, code, name, load.timeout_ms,
                                                             cli_on_routed, &load)) &&
        cli_routed_begin(&routed) &&
        cli_routed_end(&routed, cli->opts->channel
                                    ? lim_client_channel_deploy_async(cli->client, routed.what, &load.r.hash, &opts,
                                                                      routed.timeout_ms, cli_on_routed, &routed)
                                    : lim_client_deploy_async(cli->client, routed.what, &load.r.hash, &opts,
                                                              routed.timeout_ms, cli_on_routed, &routed)))
        say_deployed(cli, &load.r, &routed.r);
    cli_finish(cli);
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
        deploy(cli, LIM_BUILTIN, builtin, lim__str(builtin));
        return cli->code;
    }
    void *code = cli_code_read(cli, path, &len);
    if (code)
        deploy(cli, cli_is_object(lim__bytes(code, len)) ? LIM_NATIVE : LIM_LUA, path, lim__bytes(code, len));
    free(code);
    return cli->code;
}
