/* SPDX-License-Identifier: Apache-2.0
 * main.c - from the command line to an exit code. */
#include "cli/cli.h"

#include <stdlib.h>

static int usage(const char *problem)
{
    cli_note("liminal: %s", problem);
    return CLI_USAGE;
}

static int run(struct cli *cli)
{
    const cli_args *a = &cli->args;
    if (a->opts.version && a->word_count == 0)
        return cli_run_version(cli);
    if (a->word_count == 0)
        return cli_help_all(&cli->out);
    cli->command = cli_command_find(&cli->args);
    if (!cli->command)
        return usage(a->problem);
    if (!a->opts.help && !cli_enter_namespace(cli))
        return cli->code;
    return a->opts.help ? cli_help_one(&cli->out, cli->command) : cli->command->run(cli);
}

int main(int argc, char **argv)
{
    static struct cli cli; /* large, and zero */
    lim__list_init(&cli.sources);
    cli.opts = &cli.args.opts;
    int code = cli_args_parse(&cli.args, argc, argv) ? run(&cli) : usage(cli.args.problem);
    cli_flush(&cli);
    lim__buf_fini(&cli.out);
    return cli_worse(code, cli.code);
}
