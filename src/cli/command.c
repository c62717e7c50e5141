/* SPDX-License-Identifier: Apache-2.0
 * command.c - the commands: one table, from which come what `liminal` alone prints, each command's help, the check of
 * words and flags, and the shell completion.
 *
 * A command's name is one word, or a noun and a verb ("channel ls"). Rows of the same noun stand together: the overview
 * folds them into one line. */
#include "cli/cli.h"
#include "data/options.h"

#include <stdio.h>

#define LOOK "watch interval timeout"
#define NOUN_ROWS(noun, example)                                                                                       \
    { noun " ls", "", "list them", "liminal " noun " ls", LOOK, 0, 0, cli_run_list },                                  \
    {                                                                                                                  \
        noun " show", "NAME", "show one", "liminal " noun " show " example, LOOK, 1, 1, cli_run_show                   \
    }
#define REMOVE_ROW(noun, what, example)                                                                                \
    {                                                                                                                  \
        noun " rm", "NAME", what, "liminal " noun " rm " example, "timeout", 1, 1, cli_run_remove                      \
    }
#define STATE_ROW(verb, what, flags)                                                                                   \
    {                                                                                                                  \
        "queue " verb, "QUEUE", what, "liminal queue " verb " thumbs", flags, 1, 1, cli_run_queue_state                \
    }
#define SERVE_FLAGS "namespace exec capacity identity node type tag max no-reconnect"
#define TASK_FLAGS                                                                                                     \
    "wait timeout type priority key weight order-key unique-key on-duplicate idempotency-key delay at start-to-close " \
    "progress report-to trace durable"
#define RETAIN_FLAGS                                                                                                   \
    "retain-age retain-bytes retain-count retain-latest overflow dead-letter sync window-time window-keys "            \
    "window-bytes "                                                                                                    \
    "window-slides window-forgets"
#define SUB_FLAGS                                                                                                      \
    "max window backlog policy reconnect from durable-name ack shared standby last ack-wait max-deliveries "           \
    "dead-letter"

static const cli_command commands[] = {
    { "pub", "CHANNEL [PAYLOAD|-]", "publish a message; - publishes each line of standard input",
      "liminal pub orders.new '{\"amount\":1200}'",
      "mandatory key idempotency-key idempotency-field expires delay expect-last", 1, 2, cli_run_pub },
    { "sub", "CHANNEL", "print what is published; * is one segment, a last > the rest", "liminal sub 'orders.>' --json",
      SUB_FLAGS, 1, 1, cli_run_sub },
    { "pipe", "IN OUT --cursor NAME --exec CMD", "what a command makes of each message goes to another channel, once",
      "liminal pipe orders invoices --cursor billing --exec ./invoice.sh", "cursor exec capacity key max", 2, 2,
      cli_run_pipe },
    { "serve", "GROUP --exec CMD", "answer a group's asks with a command", "liminal serve echo --exec cat",
      SERVE_FLAGS " stream", 1, 1, cli_run_serve },
    { "ask", "GROUP [PAYLOAD|-]", "ask one participant of a group; print its reply",
      "liminal ask echo hello --timeout 2s",
      "namespace timeout type next wait all quorum any stream window compensate trace durable", 1, 2, cli_run_ask },
    { "work", "QUEUE --exec CMD", "execute a queue's tasks with a command",
      "liminal work thumbs --exec ./thumb.sh --capacity 4", SERVE_FLAGS, 1, 1, cli_run_work },
    { "dispatch", "QUEUE [PAYLOAD|-]", "give a queue a task; - takes one task a line",
      "liminal dispatch thumbs - --wait <tasks.jsonl", TASK_FLAGS " namespace", 1, 2, cli_run_dispatch },
    { "deploy", "GROUP FILE.lua", "route a group with a function, from now on", "liminal deploy thumbs route.lua",
      "channel builtin cpu wall memory log-bytes on-fault timeout shadow ramp ramp-key ramp-where breaker keep "
      "if-version by namespace",
      1, 2, cli_run_deploy },
    { "rollback", "GROUP [HASH]", "back to the last good version, or to one that is kept", "liminal rollback thumbs",
      "channel namespace by timeout", 1, 2, cli_run_rollback },
    { "route ls", "", "list router slots", "liminal route ls", LOOK, 0, 0, cli_run_list },
    { "route show", "GROUP", "a slot: its versions, and what is tried out", "liminal route show thumbs",
      LOOK " channel namespace", 1, 1, cli_run_route_show },
    { "route history", "GROUP", "what was deployed, rolled back, tried out", "liminal route history thumbs",
      LOOK " channel namespace", 1, 1, cli_run_route_history },
    { "route logs", "GROUP", "what its functions printed", "liminal route logs thumbs --follow",
      LOOK " follow channel namespace", 1, 1, cli_run_route_logs },
    { "route test", "FILE", "what a function would decide, and how fast; without a server",
      "liminal route test route.lua --message '{\"n\":1}' --candidates workers.json",
      "message candidates header strict times builtin cpu memory timeout", 0, 1, cli_run_route_test },
    { "route promote", "GROUP", "what is tried out decides from now on", "liminal route promote thumbs",
      "channel namespace by timeout", 1, 1, cli_run_route_trial },
    { "route stop", "GROUP", "end a shadow or a ramp", "liminal route stop thumbs", "channel namespace by timeout", 1,
      1, cli_run_route_trial },
    { "route rm", "CHANNEL", "take a channel's function away: every subscription gets everything again",
      "liminal route rm orders.new", "timeout", 1, 1, cli_run_route_rm },
    { "predicate test", "EXPR", "would a predicate take this message, and why; without a server",
      "liminal predicate test 'tier == \"gold\" and n > 1' --message '{\"tier\":\"gold\",\"n\":2}'",
      "message header key", 1, 1, cli_run_predicate_test },
    NOUN_ROWS("channel", "orders.new"),
    { "channel create", "NAME", "create a channel; --durable: its messages are kept",
      "liminal channel create orders --durable --retain-age 168h", RETAIN_FLAGS " durable allow-hold timeout", 1, 1,
      cli_run_channel_create },
    { "channel close", "NAME", "close a channel; its subscribers are told", "liminal channel close orders.new",
      "timeout", 1, 1, cli_run_channel_close },
    { "channel configure", "NAME", "change what a durable channel keeps",
      "liminal channel configure orders --retain-count 1000", RETAIN_FLAGS " timeout", 1, 1,
      cli_run_channel_configure },
    { "channel get", "CHANNEL KEY", "the newest message with a key", "liminal channel get prices EURUSD", "timeout", 2,
      2, cli_run_channel_get },
    { "channel peek", "CHANNEL", "look at stored messages; nothing is acknowledged",
      "liminal channel peek orders --from 1 --max 10", "from max timeout", 1, 1, cli_run_channel_peek },
    { "channel purge", "CHANNEL", "forget its messages, or those before a number",
      "liminal channel purge orders --before 1000", "before timeout", 1, 1, cli_run_channel_purge },
    { "channel delete", "CHANNEL", "end a durable channel, with all that is stored of it",
      "liminal channel delete orders", "timeout", 1, 1, cli_run_channel_delete },
    { "cursor ls", "[CHANNEL]", "list cursors: how far durable readers are", "liminal cursor ls orders", LOOK, 0, 1,
      cli_run_list },
    { "cursor show", "CHANNEL NAME", "one of them, and who reads with it", "liminal cursor show orders billing", LOOK,
      2, 2, cli_run_cursor_show },
    { "cursor why", "CHANNEL NAME", "why it does not move", "liminal cursor why orders billing", LOOK, 2, 2,
      cli_run_cursor_why },
    { "cursor reset", "CHANNEL NAME --from WHERE", "set it elsewhere", "liminal cursor reset orders billing --from all",
      "from timeout", 2, 2, cli_run_cursor_reset },
    { "cursor delete", "CHANNEL NAME", "forget it; who reads with it is told", "liminal cursor delete orders billing",
      "timeout", 2, 2, cli_run_cursor_delete },
    { "group ls", "", "list them", "liminal group ls", LOOK " namespace", 0, 0, cli_run_list },
    { "group show", "NAME", "show one", "liminal group show echo", LOOK " namespace", 1, 1, cli_run_show },
    { "group rm", "NAME", "forget its routing function, and the group when nobody is in it", "liminal group rm echo",
      "namespace timeout", 1, 1, cli_run_remove },
    { "queue ls", "", "list them", "liminal queue ls --watch", LOOK " namespace", 0, 0, cli_run_list },
    { "queue show", "QUEUE", "its numbers, rules and workers", "liminal queue show thumbs", LOOK " namespace", 1, 1,
      cli_run_show },
    { "queue why", "QUEUE", "why its tasks wait, in one line", "liminal queue why thumbs", LOOK " namespace", 1, 1,
      cli_run_queue_why },
    { "queue create", "QUEUE [NAME=VALUE...]", "a queue with these rules; --durable: its tasks are stored",
      "liminal queue create thumbs --durable attempts_max=5", "namespace durable timeout", 1, 30,
      cli_run_queue_configure },
    { "queue configure", "QUEUE NAME=VALUE...", "set its rules; queue show lists them",
      "liminal queue configure thumbs attempts_max=5 backoff_min=1s rate=100", "namespace durable timeout", 1, 30,
      cli_run_queue_configure },
    { "queue limit", "QUEUE KEY NAME=VALUE...", "a limit of one fairness key's own",
      "liminal queue limit thumbs customer-7 in_flight_max=2", "namespace clear timeout", 2, 5, cli_run_queue_limit },
    STATE_ROW("pause", "hand out nothing; what runs goes on", "namespace timeout"),
    STATE_ROW("resume", "hand out again, after pause or drain", "namespace timeout"),
    STATE_ROW("drain", "take no new tasks; --wait: until nothing waits or runs", "namespace wait timeout"),
    { "queue purge", "QUEUE", "end every task that waits: refused{purged}", "liminal queue purge thumbs",
      "namespace timeout", 1, 1, cli_run_queue_purge },
    { "queue keys", "QUEUE", "its fairness keys, and what waits for each", "liminal queue keys thumbs --max 1000",
      LOOK " namespace max", 1, 1, cli_run_list },
    { "queue unpark", "QUEUE KEY", "go on with the tasks of a parked order key", "liminal queue unpark thumbs order-17",
      "namespace timeout", 2, 2, cli_run_queue_unpark },
    { "task ls", "QUEUE", "what waits and runs in a queue", "liminal task ls thumbs --max 1000", LOOK " namespace max",
      1, 1, cli_run_list },
    { "task show", "ID", "a task that waits, runs or has ended", "liminal task show 400000002a", LOOK, 1, 1,
      cli_run_show },
    { "task cancel", "ID", "end it: cancelled", "liminal task cancel 400000002a", "timeout", 1, 1,
      cli_run_task_cancel },
    { "task retry", "ID", "try a delayed one now", "liminal task retry 400000002a", "timeout", 1, 1,
      cli_run_task_retry },
    { "task await", "ID", "wait for its result and print it", "liminal task await 400000002a --timeout 1m", "timeout",
      1, 1, cli_run_task_await },
    { "dead ls", "[QUEUE]", "tasks that ended without a result", "liminal dead ls thumbs", LOOK " namespace max", 0, 1,
      cli_run_list },
    { "dead show", "ID", "one of them, with its payload", "liminal dead show 400000002a", LOOK, 1, 1, cli_run_show },
    { "dead replay", "ID, or QUEUE --all", "dispatch it again", "liminal dead replay thumbs --all",
      "all namespace timeout", 1, 1, cli_run_dead },
    { "dead drop", "ID, or QUEUE --all", "forget it", "liminal dead drop 400000002a", "all namespace timeout", 1, 1,
      cli_run_dead },
    { "worker ls", "[QUEUE]", "list them", "liminal worker ls", LOOK " namespace", 0, 1, cli_run_list },
    { "worker show", "IDENTITY", "show one", "liminal worker show worker-1", LOOK, 1, 1, cli_run_show },
    { "worker drain", "IDENTITY [QUEUE]", "give it nothing new; what it has goes on", "liminal worker drain worker-1",
      "namespace timeout", 1, 2, cli_run_worker_drain },
    { "worker resume", "IDENTITY [QUEUE]", "give it work again", "liminal worker resume worker-1", "namespace timeout",
      1, 2, cli_run_worker_drain },
    { "conversation ls", "", "list them", "liminal conversation ls --where kind=ask --where customer=7",
      LOOK " where max", 0, 0, cli_run_list },
    { "conversation show", "ID|NAME", "show one and its history", "liminal conversation show 400000002a --follow",
      LOOK " follow", 1, 1, cli_run_conversation_show },
    { "conversation cancel", "ID|NAME", "end a conversation or task: cancelled",
      "liminal conversation cancel 400000002a", "timeout", 1, 1, cli_run_conversation_cancel },
    { "conversation signal", "ID|NAME SIGNAL [PAYLOAD|-]", "tell whoever works on it something",
      "liminal conversation signal 400000002a stop '{\"after\":3}'", "timeout", 2, 3, cli_run_conversation_signal },
    { "saga run", "FILE|-", "run steps, each with what undoes it; print how they ended",
      "liminal saga run order.json --timeout 10m", "timeout", 1, 1, cli_run_saga_run },
    { "saga ls", "", "list those that run; --all: those that ended, too", "liminal saga ls --all", LOOK " all", 0, 0,
      cli_run_list },
    { "saga show", "ID", "show one, step by step", "liminal saga show 400000002a", LOOK, 1, 1, cli_run_show },
    { "saga cancel", "ID", "stop it and undo what it has done", "liminal saga cancel 400000002a", "timeout", 1, 1,
      cli_run_saga_cancel },
    { "schedule add", "NAME SETTING=VALUE...", "a task or message at a time, every so often, or by a calendar rule",
      "liminal schedule add nightly queue=reports cron='30 2 * * *' zone=Europe/Berlin", "timeout", 3, 30,
      cli_run_schedule_add },
    { "schedule ls", "", "list them", "liminal schedule ls", LOOK " max", 0, 0, cli_run_list },
    { "schedule show", "NAME", "show one, and when it fires next", "liminal schedule show nightly", LOOK, 1, 1,
      cli_run_show },
    { "schedule pause", "NAME", "fire no more until resumed", "liminal schedule pause nightly", "timeout", 1, 1,
      cli_run_schedule_change },
    { "schedule resume", "NAME", "go on", "liminal schedule resume nightly", "timeout", 1, 1, cli_run_schedule_change },
    { "schedule rm", "NAME", "forget it", "liminal schedule rm nightly", "timeout", 1, 1, cli_run_schedule_change },
    { "schedule fire", "NAME", "fire it now", "liminal schedule fire nightly", "timeout", 1, 1, cli_run_schedule_fire },
    NOUN_ROWS("artifact", "9f86d081"),
    REMOVE_ROW("artifact", "forget it; versions that use it keep it until they are retired", "9f86d081"),
    { "store info", "", "what the server keeps: how much, whether it is whole, whether it is full",
      "liminal store info", "timeout", 0, 0, cli_run_store_info },
    { "store check", "DIR", "read all of a store that no server has open; say what is wrong",
      "liminal store check /var/lib/liminal", "", 1, 1, cli_run_store_check },
    { "store dump", "DIR [stream=N|table=N]", "its records and rows, one a line", "liminal store dump /var/lib/liminal",
      "", 1, 3, cli_run_store_dump },
    { "store backup", "[DIR] TO", "copy it; without DIR the server copies its own while it runs",
      "liminal store backup /backup/monday", "timeout", 1, 2, cli_run_store_backup },
    { "store restore", "FROM DIR", "check a copy and put it into an empty directory",
      "liminal store restore /backup/monday /var/lib/liminal", "", 2, 2, cli_run_store_restore },
    { "events", "", "print what happens on the bus", "liminal events", "max reconnect", 0, 0, cli_run_events },
    { "info", "", "the server: version, counts, limits", "liminal info --json", "timeout", 0, 0, cli_run_info },
    { "completion", "bash|zsh|fish", "print a completion script for a shell", "eval \"$(liminal completion bash)\"", "",
      1, 1, cli_run_completion },
    { "version", "", "print the version", "liminal version", "", 0, 0, cli_run_version },
    { "help", "[COMMAND]", "explain a command", "liminal help dispatch", "", 0, 2, cli_run_help },
};

const cli_command *cli_commands(size_t *count)
{
    *count = LIM_COUNT(commands);
    return commands;
}

/* ---- finding ---- */

static bool word_in(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += len) {
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0))
            return true;
    }
    return false;
}

bool cli_command_takes(const cli_command *command, const cli_flag *flag)
{
    return flag->everywhere || word_in(command->flags, cli_flag_listed(flag));
}

static bool two_words(const cli_command *command)
{
    return strchr(command->name, ' ');
}

/* Bytes of the first word of a name. */
static size_t noun_len(const char *name)
{
    return strcspn(name, " ");
}

static bool same_noun(const char *name, const char *noun)
{
    size_t len = noun_len(name);
    return name[len] == ' ' && strlen(noun) == len && memcmp(name, noun, len) == 0;
}

/* The second word of a name, or "". */
static const char *verb_of(const char *name)
{
    const char *space = strchr(name, ' ');
    return space ? space + 1 : "";
}

static const cli_command *matching(const char *const *words, int count)
{
    for (size_t i = 0; i < LIM_COUNT(commands); i++) {
        const char *name = commands[i].name;
        if (count > 0 && strcmp(name, words[0]) == 0)
            return &commands[i];
        if (count > 1 && same_noun(name, words[0]) && strcmp(verb_of(name), words[1]) == 0)
            return &commands[i];
    }
    return NULL;
}

const cli_command *cli_command_in(const cli_args *a)
{
    return matching(a->words, a->word_count);
}

const char *cli_word(const struct cli *cli, int i)
{
    int at = i + (two_words(cli->command) ? 2 : 1);
    return at < cli->args.word_count ? cli->args.words[at] : NULL;
}

/* Whether the words name no group or queue that could be in a namespace. */
static const char *names_no_group(const struct cli *cli)
{
    if (cli->opts->channel)
        return "a channel is in no namespace";
    if (cli->command->run == cli_run_dead && !cli->opts->all)
        return "an id is in no namespace: give it alone, or the queue with --all";
    return NULL;
}

bool cli_enter_namespace(struct cli *cli)
{
    int at = two_words(cli->command) ? 2 : 1;
    if (cli->command->run == cli_run_worker_drain)
        at++; /* the identity comes first */
    if (cli->opts->namespace == NULL || at >= cli->args.word_count)
        return true;
    const char *wrong = names_no_group(cli);
    if (wrong != NULL) {
        cli_fault(cli, CLI_USAGE, "--namespace", "means nothing here", wrong);
        return false;
    }
    const char *whole = lim__in_namespace(cli->opts->namespace, cli->args.words[at], cli->whole_name);
    if (whole != NULL) {
        cli->args.words[at] = whole;
        return true;
    }
    cli_fault(cli, CLI_USAGE, cli->args.words[at], "no name in a namespace",
              "neither the namespace nor the name has a dot, and both together have 240 bytes at most");
    return false;
}

/* ---- complaints ---- */

/* "channel": its verbs are known, the one given is missing or unknown. */
static bool verb_problem(cli_args *a)
{
    const char *noun = a->words[0], *verb = a->word_count > 1 ? a->words[1] : NULL;
    lim__near near = { .word = lim__str(verb ? verb : "") };
    char verbs[200] = "";
    for (size_t i = 0; i < LIM_COUNT(commands); i++) {
        const char *name = commands[i].name;
        if (!same_noun(name, noun))
            continue;
        lim__near_offer(&near, lim__str(verb_of(name)));
        size_t used = strlen(verbs);
        snprintf(verbs + used, sizeof verbs - used, "%s%s", used ? ", " : "", verb_of(name));
    }
    if (!*verbs)
        return false;
    if (!verb)
        snprintf(a->problem, sizeof a->problem, "%s: its verb is missing; write one of %s", noun, verbs);
    else if (near.best.len > 0)
        snprintf(a->problem, sizeof a->problem, "%s %s: unknown verb; did you mean %s %.*s?", noun, verb, noun,
                 (int)near.best.len, (const char *)near.best.ptr);
    else
        snprintf(a->problem, sizeof a->problem, "%s %s: unknown verb; write one of %s", noun, verb, verbs);
    return true;
}

static void unknown_problem(cli_args *a)
{
    lim__near near = { .word = lim__str(a->words[0]) };
    for (size_t i = 0; i < LIM_COUNT(commands); i++)
        lim__near_offer(&near, lim__bytes(commands[i].name, noun_len(commands[i].name)));
    if (near.best.len > 0)
        snprintf(a->problem, sizeof a->problem, "%s: unknown command; did you mean %.*s?", a->words[0],
                 (int)near.best.len, (const char *)near.best.ptr);
    else
        snprintf(a->problem, sizeof a->problem, "%s: unknown command; liminal alone lists them", a->words[0]);
}

static bool flags_fit(cli_args *a, const cli_command *command)
{
    size_t count;
    const cli_flag *flags = cli_flags(&count);
    for (size_t i = 0; i < count; i++) {
        if ((a->given[i / 64] >> i % 64 & 1) == 0 || cli_command_takes(command, &flags[i]))
            continue;
        snprintf(a->problem, sizeof a->problem, "--%s: %s does not take this flag; see liminal help %s", flags[i].name,
                 command->name, command->name);
        return false;
    }
    return true;
}

static bool words_fit(cli_args *a, const cli_command *command)
{
    int have = a->word_count - (two_words(command) ? 2 : 1);
    if (have < command->words_min)
        snprintf(a->problem, sizeof a->problem, "%s: something is missing; write liminal %s %s", command->name,
                 command->name, command->args);
    else if (have > command->words_max)
        snprintf(a->problem, sizeof a->problem,
                 "%s: one word too many; write liminal %s%s%s, text with spaces in quotes", a->words[a->word_count - 1],
                 command->name, *command->args ? " " : "", command->args);
    else
        return true;
    return false;
}

const cli_command *cli_command_find(cli_args *a)
{
    const cli_command *command = cli_command_in(a);
    if (!command && !verb_problem(a))
        unknown_problem(a);
    if (!command || !flags_fit(a, command))
        return NULL;
    return a->opts.help || words_fit(a, command) ? command : NULL;
}

/* ---- help ---- */

/* Rows of one noun are one line: "channel ls|show|create|close". Answers the rows it covers. */
static size_t overview_line(lim__buf *out, size_t from)
{
    const cli_command *c = &commands[from];
    size_t to = from + 1, len = noun_len(c->name);
    char left[120];
    if (!two_words(c)) {
        snprintf(left, sizeof left, "%s %s", c->name, c->args);
        lim__buf_format(out, "  %-34s %s\n  %-34s   %s\n", left, c->summary, "", c->example);
        return 1;
    }
    snprintf(left, sizeof left, "%s", c->name);
    while (to < LIM_COUNT(commands) && strncmp(commands[to].name, c->name, len + 1) == 0) {
        size_t used = strlen(left);
        snprintf(left + used, sizeof left - used, "|%s", commands[to++].name + len + 1);
    }
    const char *example = commands[from + (to > from + 1)].example;
    if (strlen(left) <= 34)
        lim__buf_format(out, "  %-34s %s\n", left, example);
    else
        lim__buf_format(out, "  %s\n  %-34s   %s\n", left, "", example);
    return to - from;
}

static void everywhere_lines(lim__buf *out)
{
    size_t count;
    const cli_flag *flags = cli_flags(&count);
    for (size_t i = 0; i < count; i++) {
        if (!flags[i].everywhere)
            continue;
        char left[60];
        snprintf(left, sizeof left, "--%s %s", flags[i].name, flags[i].value ? flags[i].value : "");
        lim__buf_format(out, "  %-34s %s\n", left, flags[i].help);
    }
}

int cli_help_all(lim__buf *out)
{
    lim__buf_text(out, "liminal - talk to a liminal bus\n\n");
    for (size_t i = 0; i < LIM_COUNT(commands);)
        i += overview_line(out, i);
    lim__buf_text(out, "\nEverywhere, before or after the verb:\n");
    everywhere_lines(out);
    lim__buf_text(out, "\nExit codes: 0 done, 1 the work failed, 2 usage, 3 server unreachable or lost, 4 participant"
                       " crashed,\n  5 timeout, 6 rejected or refused, 7 not found, 8 cancelled or closed."
                       "  More: liminal help COMMAND, man liminal\n");
    return CLI_DONE;
}

static void flag_lines(lim__buf *out, const cli_command *command)
{
    size_t count;
    const cli_flag *flags = cli_flags(&count);
    for (size_t i = 0; i < count; i++) {
        if (flags[i].everywhere || !cli_command_takes(command, &flags[i]))
            continue;
        char left[60];
        snprintf(left, sizeof left, "--%s %s", flags[i].name, flags[i].value ? flags[i].value : "");
        lim__buf_format(out, "  %-22s %s", left, flags[i].help);
        for (int k = 0; flags[i].choices && flags[i].choices[k]; k++)
            lim__buf_format(out, "%s%s", k ? ", " : ": ", flags[i].choices[k]);
        lim__buf_text(out, "\n");
    }
}

int cli_help_one(lim__buf *out, const cli_command *command)
{
    lim__buf_format(out, "liminal %s%s%s - %s\n\n  %s\n\n", command->name, *command->args ? " " : "", command->args,
                    command->summary, command->example);
    flag_lines(out, command);
    lim__buf_text(out, "  --server HOST:PORT, --json, --help everywhere\n");
    return CLI_DONE;
}

/* `liminal help channel`: all of a noun. */
static bool help_noun(lim__buf *out, const char *noun)
{
    size_t before = lim__buf_len(out);
    for (size_t i = 0; i < LIM_COUNT(commands); i++) {
        if (!same_noun(commands[i].name, noun))
            continue;
        if (lim__buf_len(out) > before)
            lim__buf_text(out, "\n");
        cli_help_one(out, &commands[i]);
    }
    return lim__buf_len(out) > before;
}

int cli_run_help(struct cli *cli)
{
    cli_args asked = { .word_count = cli->args.word_count - 1 };
    if (asked.word_count == 0)
        return cli_help_all(&cli->out);
    for (int i = 0; i < asked.word_count; i++)
        asked.words[i] = cli->args.words[i + 1];
    const cli_command *command = cli_command_in(&asked);
    if (command)
        return cli_help_one(&cli->out, command);
    if (asked.word_count == 1 && help_noun(&cli->out, asked.words[0]))
        return CLI_DONE;
    if (!verb_problem(&asked))
        unknown_problem(&asked);
    cli_note("liminal: %s", asked.problem);
    return CLI_USAGE;
}
