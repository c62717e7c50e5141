/* SPDX-License-Identifier: Apache-2.0
 * deploy.c - load a routing function, then put it into a group's slot: two asks, and a bad one changes nothing. */
#include "cli/cli.h"
#include "data/data.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CODE_MAX = 1 << 20 };

/* The function's text, malloc'd; NULL: told. */
static void *code_read(struct cli *cli, const char *path, size_t *len)
{
    void *code = NULL;
    int err = lim__file_read(path, CODE_MAX, &code, len);
    bool missing = err == -ENOENT || err == -ENOTDIR;
    if (err != 0)
        cli_fault(cli, missing ? CLI_NOT_FOUND : CLI_FAILED, path, err == -EFBIG ? "longer than 1 MiB" : strerror(-err),
                  missing ? "name a file of Lua text, or --builtin least_loaded" : "make it readable and short");
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
    lim__json_bytes(&j, "code", code);
    lim__json_close(&j);
}

static void deploy_request(lim__buf *b, const struct cli *cli, const char *hash)
{
    static const char *const faults[] = { NULL, "reject", "previous", "least_loaded" };
    const cli_opts *o = cli->opts;
    lim__json j = lim__json_begin(b);
    lim__json_open(&j, NULL, '{');
    lim__json_str(&j, "op", "deploy");
    lim__json_str(&j, "group", cli_word(cli, 0));
    lim__json_str(&j, "hash", hash);
    if (o->cpu_us)
        lim__json_i64(&j, "cpu_us", o->cpu_us);
    if (o->wall_us)
        lim__json_i64(&j, "wall_ms", (o->wall_us + 999) / 1000);
    if (o->memory_bytes)
        lim__json_u64(&j, "memory_bytes", o->memory_bytes);
    if (o->on_fault)
        lim__json_str(&j, "on_fault", faults[o->on_fault]);
    lim__json_close(&j);
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

static void say_deployed(struct cli *cli, const loaded *l, lim__val reply)
{
    const char *previous = lim__val_str(reply, "previous", NULL);
    lim__buf *out = &cli->out;
    if (cli->opts->json) {
        lim__json j = lim__json_begin(out);
        lim__json_open(&j, NULL, '{');
        lim__json_str(&j, "group", cli_word(cli, 0));
        lim__json_str(&j, "hash", l->hash);
        lim__json_str(&j, "short", l->id);
        lim__json_str(&j, "previous", previous);
        lim__json_close(&j);
        lim__buf_text(out, "\n");
        return;
    }
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
    load_request(&request, engine, name, code);
    if (cli_sys(cli, "$sys.artifacts", name, lim__buf_bytes(&request), doc)) {
        loaded l = loaded_of(lim__doc_root(doc));
        lim__buf_fini(&request);
        deploy_request(&request, cli, l.hash);
        if (cli_sys(cli, "$sys.groups", cli_word(cli, 0), lim__buf_bytes(&request), doc))
            say_deployed(cli, &l, lim__doc_root(doc));
    }
    cli_finish(cli);
    lim__buf_fini(&request);
    lim__doc_free(doc);
}

int cli_run_deploy(struct cli *cli)
{
    const char *path = cli_word(cli, 1), *builtin = cli->opts->builtin;
    size_t len = 0;
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
    void *code = code_read(cli, path, &len);
    if (code)
        deploy(cli, "lua", path, lim__bytes(code, len));
    free(code);
    return cli->code;
}
