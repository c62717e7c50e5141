/* SPDX-License-Identifier: Apache-2.0
 * completion.c - completion scripts for shells, written from the tables of commands and flags.
 *
 * The scripts complete the command's words, its flags and the choices of a flag; zsh takes bash's by its own bridge. */
#include "cli/cli.h"

#include <stdio.h>

static void flags_of(lim__buf *out, const cli_command *command)
{
    size_t count;
    const cli_flag *flags = cli_flags(&count);
    for (size_t i = 0; i < count; i++) {
        if (cli_command_takes(command, &flags[i]))
            lim__buf_format(out, " --%s", flags[i].name);
    }
}

/* Its first word, if the row before does not begin with the same. */
static bool first_of_noun(const cli_command *commands, size_t i, lim_bytes *noun)
{
    size_t len = strcspn(commands[i].name, " ");
    *noun = lim__bytes(commands[i].name, len);
    const char *before = i > 0 ? commands[i - 1].name : "";
    return strncmp(before, commands[i].name, len) != 0 || (before[len] != ' ' && before[len] != 0);
}

static void bash_choices(lim__buf *out)
{
    size_t count;
    const cli_flag *flags = cli_flags(&count);
    for (size_t i = 0; i < count; i++) {
        if (!flags[i].choices)
            continue;
        lim__buf_format(out, "    --%s) COMPREPLY=($(compgen -W '", flags[i].name);
        for (int k = 0; flags[i].choices[k]; k++)
            lim__buf_format(out, "%s%s", k ? " " : "", flags[i].choices[k]);
        lim__buf_text(out, "' -- \"$word\")); return ;;\n");
    }
}

static void bash(lim__buf *out)
{
    size_t count;
    const cli_command *commands = cli_commands(&count);
    lim_bytes noun;
    lim__buf_text(out, "# completion of liminal for bash: eval \"$(liminal completion bash)\"\n_liminal() {\n"
                       "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} names=() words= i\n"
                       "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                       "        [[ ${COMP_WORDS[i]} == -* ]] || names+=(\"${COMP_WORDS[i]}\")\n    done\n"
                       "    case $before in\n");
    bash_choices(out);
    lim__buf_text(out, "    esac\n    case \"${names[0]} ${names[1]}\" in\n");
    for (size_t i = 0; i < count; i++) {
        bool two = strchr(commands[i].name, ' ');
        lim__buf_format(out, "    '%s%s words='", commands[i].name, two ? "')" : " '*)");
        flags_of(out, &commands[i]);
        lim__buf_text(out, "' ;;\n");
    }
    for (size_t i = 0; i < count; i++) {
        if (!strchr(commands[i].name, ' ') || !first_of_noun(commands, i, &noun))
            continue;
        lim__buf_format(out, "    '%.*s '*) words='", (int)noun.len, (const char *)noun.ptr);
        for (size_t k = i; k < count && strncmp(commands[k].name, commands[i].name, noun.len + 1) == 0; k++)
            lim__buf_format(out, " %s", commands[k].name + noun.len + 1);
        lim__buf_text(out, "' ;;\n");
    }
    lim__buf_text(out, "    ' ') words='--server --json --help");
    for (size_t i = 0; i < count; i++) {
        if (first_of_noun(commands, i, &noun))
            lim__buf_format(out, " %.*s", (int)noun.len, (const char *)noun.ptr);
    }
    lim__buf_text(out, "' ;;\n    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\n"
                       "complete -o default -F _liminal liminal\n");
}

static void fish_flags(lim__buf *out)
{
    size_t flag_count, count;
    const cli_flag *flags = cli_flags(&flag_count);
    const cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < flag_count; i++) {
        lim__buf_format(out, "complete -c liminal -l %s -d '%s'%s", flags[i].name, flags[i].help,
                        flags[i].kind == CLI_SWITCH ? "" : " -x");
        for (int k = 0; flags[i].choices && flags[i].choices[k]; k++)
            lim__buf_format(out, "%s%s", k ? " " : " -a '", flags[i].choices[k]);
        lim__buf_text(out, flags[i].choices ? "'" : "");
        lim_bytes noun;
        const char *between = " -n '__fish_seen_subcommand_from ";
        for (size_t c = 0; !flags[i].everywhere && c < count; c++) {
            if (!cli_command_takes(&commands[c], &flags[i]) || !first_of_noun(commands, c, &noun))
                continue;
            lim__buf_format(out, "%s%.*s", between, (int)noun.len, (const char *)noun.ptr);
            between = " ";
        }
        lim__buf_text(out, flags[i].everywhere ? "\n" : "'\n");
    }
}

static void fish(lim__buf *out)
{
    size_t count;
    const cli_command *commands = cli_commands(&count);
    lim__buf_text(out, "# completion of liminal for fish: liminal completion fish | source\n");
    for (size_t i = 0; i < count; i++) {
        lim_bytes noun;
        bool two = strchr(commands[i].name, ' '), first = first_of_noun(commands, i, &noun);
        if (first)
            lim__buf_format(out, "complete -c liminal -n __fish_use_subcommand -x -a %.*s -d '%s'\n", (int)noun.len,
                            (const char *)noun.ptr, two ? "ls, show and more" : commands[i].summary);
        if (two)
            lim__buf_format(out, "complete -c liminal -n '__fish_seen_subcommand_from %.*s' -a %s -d '%s'\n",
                            (int)noun.len, (const char *)noun.ptr, commands[i].name + noun.len + 1,
                            commands[i].summary);
    }
    fish_flags(out);
}

int cli_run_completion(struct cli *cli)
{
    const char *shell = cli_word(cli, 0);
    if (strcmp(shell, "zsh") == 0)
        lim__buf_text(&cli->out, "autoload -Uz bashcompinit && bashcompinit\n");
    if (strcmp(shell, "bash") == 0 || strcmp(shell, "zsh") == 0)
        bash(&cli->out);
    else if (strcmp(shell, "fish") == 0)
        fish(&cli->out);
    else
        cli_fault(cli, CLI_USAGE, shell, "no completion for this shell", "write bash, zsh or fish");
    return cli->code;
}
