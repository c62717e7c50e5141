/* SPDX-License-Identifier: Apache-2.0
 * args.c - flags and words, by one table.
 *
 * A flag means the same in every command, so whether it takes a value is known before the command is, and flags may
 * stand before the verb, behind it or between its words. Which command takes which is the command table's business.
 * Two names mean two things (--durable, --window): these stand behind the command that says which.
 *
 *   --name VALUE   --name=VALUE   --switch   -h   a lone - is a word   -- ends the flags */
#include "cli/cli.h"
#include <liminal/types.h>

#include <stdio.h>

static const char *const policies[] = { "hold", "drop-oldest", "drop-newest", "close", NULL };
static const char *const faults[] = { "reject", "previous", "least-loaded", NULL };
static const char *const duplicates[] = { "reject", "replace", "join", NULL };
static const char *const priorities[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL };
static const char *const overflows[] = { "drop_oldest", "reject", "dead_letter", NULL };
static const char *const acks[] = { "each", "none", NULL };
static const char *const syncs[] = { "always", "interval", "never", NULL };
static_assert(LIM_OVERFLOW_DROP_OLDEST == 1 && LIM_OVERFLOW_REJECT == 2 && LIM_OVERFLOW_DEAD_LETTER == 3 &&
                  LIM_SYNC_ALWAYS == 1 && LIM_SYNC_INTERVAL == 2 && LIM_SYNC_NEVER == 3,
              "overflows and syncs are in the order of their enums");
static_assert(LIM_UNIQUE_REJECT == 1 && LIM_UNIQUE_REPLACE == 2 && LIM_UNIQUE_JOIN == 3,
              "duplicates are in the order of lim_unique");
static_assert(LIM_PRIORITY(0) == 1, "priorities are as lim_dispatch_opts has them");
static_assert(LIM_HOLD_BACK == 1 && LIM_DROP_OLDEST == 2 && LIM_DROP_NEWEST == 3 && LIM_CLOSE_SUB == 4,
              "policies are in the order of lim_policy");
static_assert(LIM_ON_FAULT_REJECT == 1 && LIM_ON_FAULT_PREVIOUS == 2 && LIM_ON_FAULT_LEAST_LOADED == 3,
              "faults are in the order of lim_on_fault");

#define AT(field) offsetof(cli_opts, field)
static const cli_flag flags[] = {
    { "server", CLI_TEXT, AT(server), "HOST:PORT", "the server (default: $LIMINAL_SERVER, else 127.0.0.1:4777)", NULL,
      true, NULL },
    { "json", CLI_SWITCH, AT(json), NULL, "print JSON, one object a line", NULL, true, NULL },
    { "help", CLI_SWITCH, AT(help), NULL, "show this", NULL, true, NULL },
    { "version", CLI_SWITCH, AT(version), NULL, "print the version", NULL, true, NULL },
    { "mandatory", CLI_SWITCH, AT(mandatory), NULL, "reject the message when nobody subscribes", NULL, false, NULL },
    { "max", CLI_NUMBER, AT(max), "N", "end after N of them", NULL, false, NULL },
    { "window", CLI_NUMBER, AT(window), "N", "messages under way at once (default 1024)", NULL, false, NULL },
    { "backlog", CLI_NUMBER, AT(backlog), "N", "messages the server keeps beyond the window (default 65536)", NULL,
      false, NULL },
    { "policy", CLI_CHOICE, AT(policy), "POLICY", "what happens to a message that finds both full", policies, false,
      NULL },
    { "timeout", CLI_DURATION, AT(timeout_us), "D", "give up after this long: 250ms, 2s, 5m, forever", NULL, false,
      NULL },
    { "type", CLI_MANY, AT(types), "T", "the activity type; workers may give several", NULL, false, NULL },
    { "tag", CLI_MANY, AT(tags), "T", "a tag that routing functions see; may be given several times", NULL, false,
      NULL },
    { "next", CLI_SWITCH, AT(next), NULL, "when the participant dies, ask the next one (it may run twice)", NULL, false,
      NULL },
    { "wait", CLI_SWITCH, AT(wait), NULL, "wait: for a participant (ask), for the results (dispatch)", NULL, false,
      NULL },
    { "exec", CLI_TEXT, AT(exec), "CMD", "the command, run by sh -c: payload on stdin, reply on stdout", NULL, false,
      NULL },
    { "capacity", CLI_NUMBER, AT(capacity), "N", "requests in hand at once (default 1)", NULL, false, NULL },
    { "namespace", CLI_TEXT, AT(namespace), "NAME", "of the group or queue: the same name in two is two of them", NULL,
      false, NULL },
    { "node", CLI_TEXT, AT(node), "NAME", "where this runs, for routing functions; default: the server's", NULL, false,
      NULL },
    { "identity", CLI_TEXT, AT(identity), "NAME", "a name that is unique in the group", NULL, false, NULL },
    { "reconnect", CLI_SWITCH, AT(reconnect), NULL, "dial again when the connection breaks", NULL, false, NULL },
    { "no-reconnect", CLI_SWITCH, AT(no_reconnect), NULL, "end when the connection breaks", NULL, false, NULL },
    { "builtin", CLI_TEXT, AT(builtin), "NAME",
      "least_loaded, round_robin, power_of_two, hash:FIELD, affinity:FIELD, everybody", NULL, false, NULL },
    { "cpu", CLI_DURATION, AT(cpu_us), "D", "computing time of one decision, at most (default 20ms)", NULL, false,
      NULL },
    { "wall", CLI_DURATION, AT(wall_us), "D", "one decision from begin to end, at most (default 5s)", NULL, false,
      NULL },
    { "memory", CLI_SIZE, AT(memory_bytes), "SIZE", "memory of this version, at most (default 1MiB)", NULL, false,
      NULL },
    { "channel", CLI_SWITCH, AT(channel), NULL, "the name is a channel's, not a group's", NULL, false, NULL },
    { "log-bytes", CLI_SIZE, AT(log_bytes), "SIZE", "what it may print in a second, at most (default 8KiB)", NULL,
      false, NULL },
    { "on-fault", CLI_CHOICE, AT(on_fault), "WHAT", "who decides when the function fails", faults, false, NULL },
    { "allow-hold", CLI_SWITCH, AT(allow_hold), NULL, "subscriptions with policy hold may make publishes rejected",
      NULL, false, NULL },
    { "watch", CLI_SWITCH, AT(watch), NULL, "show it again and again", NULL, false, NULL },
    { "interval", CLI_DURATION, AT(interval_us), "D", "how often --watch looks (default 2s)", NULL, false, NULL },
    { "where", CLI_MANY, AT(where), "KEY=VALUE", "only those: kind, phase, group, type, name or an attribute; several",
      NULL, false, NULL },
    { "follow", CLI_SWITCH, AT(follow), NULL, "print its history as it happens, until it ends", NULL, false, NULL },
    { "all", CLI_SWITCH, AT(all), NULL, "all of them: ask everybody in the group, every dead letter of the queue", NULL,
      false, NULL },
    { "any", CLI_SWITCH, AT(any), NULL, "ask everybody; the first reply counts, the others are cancelled", NULL, false,
      NULL },
    { "quorum", CLI_NUMBER, AT(quorum), "N", "with --all: so many replies are enough", NULL, false, NULL },
    { "stream", CLI_SWITCH, AT(stream), NULL, "the answer comes in parts, a line each", NULL, false, NULL },
    { "compensate", CLI_TEXT, AT(compensate), "QUEUE", "when the participant dies, a task in QUEUE shall undo it", NULL,
      false, NULL },
    { "trace", CLI_SWITCH, AT(trace), NULL, "keep its history: conversation show", NULL, false, NULL },
    { "priority", CLI_CHOICE, AT(priority), "N", "9 goes first (default 4)", priorities, false, NULL },
    { "key", CLI_TEXT, AT(key), "K",
      "of a task: keys share the queue, and may have limits; of a message: what it is about", NULL, false, NULL },
    { "weight", CLI_NUMBER, AT(weight), "N", "of its key, 1 to 1000 (default 1)", NULL, false, NULL },
    { "order-key", CLI_TEXT, AT(order_key), "K", "tasks with one order key run one at a time, in order", NULL, false,
      NULL },
    { "unique-key", CLI_TEXT, AT(unique_key), "K", "at most one task with it waits or runs", NULL, false, NULL },
    { "on-duplicate", CLI_CHOICE, AT(on_duplicate), "WHAT", "when there is one with its unique key already", duplicates,
      false, NULL },
    { "idempotency-key", CLI_TEXT, AT(idempotency_key), "K", "given again, the first one's outcome is the answer", NULL,
      false, NULL },
    { "delay", CLI_DURATION, AT(delay_us), "D", "not before", NULL, false, NULL },
    { "at", CLI_TEXT, AT(at), "TIME", "not before this time: 2026-11-21T08:00Z, or local: 2026-11-21T08:00", NULL,
      false, NULL },
    { "start-to-close", CLI_DURATION, AT(start_to_close_us), "D", "one attempt takes at most so long", NULL, false,
      NULL },
    { "progress", CLI_DURATION, AT(progress_us), "D", "without progress for so long its worker counts as stuck", NULL,
      false, NULL },
    { "report-to", CLI_TEXT, AT(report_to), "ID", "a conversation that gets the outcome, too", NULL, false, NULL },
    { "clear", CLI_SWITCH, AT(clear), NULL, "take the limit away", NULL, false, NULL },
    { "shadow", CLI_SWITCH, AT(shadow), NULL, "ask it beside the live version and compare; it decides nothing", NULL,
      false, NULL },
    { "ramp", CLI_TEXT, AT(ramp), "P%", "it decides about this share of the messages: 10%, 0.5%", NULL, false, NULL },
    { "ramp-key", CLI_TEXT, AT(ramp_key), "FIELD", "with --ramp: messages with one value meet one version", NULL, false,
      NULL },
    { "ramp-where", CLI_TEXT, AT(ramp_where), "EXPR", "it decides about messages that match: 'tier == \"gold\"'", NULL,
      false, NULL },
    { "breaker", CLI_TEXT, AT(breaker), "N/D", "N faults within D put the last good version back (10/10s); or off",
      NULL, false, NULL },
    { "keep", CLI_NUMBER, AT(keep), "N", "versions that can be rolled back to (default 8)", NULL, false, NULL },
    { "if-version", CLI_TEXT, AT(if_version), "HASH", "only if this version is live", NULL, false, NULL },
    { "durable", CLI_SWITCH, AT(durable), NULL,
      "store it on disk: a channel's messages, a queue's tasks, a task, an ask", NULL, false, NULL },
    { "durable", CLI_TEXT, AT(cursor), "NAME", "a cursor that survives: go on where it was", NULL, false,
      "durable-name" },
    { "cursor", CLI_TEXT, AT(cursor), "NAME", "its place in the channel, which survives", NULL, false, NULL },
    { "retain-age", CLI_DURATION, AT(retain_age_us), "D", "forget messages older than this", NULL, false, NULL },
    { "retain-bytes", CLI_BYTES, AT(retain_bytes), "SIZE", "keep at most so many bytes", NULL, false, NULL },
    { "retain-count", CLI_NUMBER, AT(retain_count), "N", "keep at most so many messages", NULL, false, NULL },
    { "retain-latest", CLI_SWITCH, AT(retain_latest), NULL, "of each key keep the newest message only", NULL, false,
      NULL },
    { "overflow", CLI_CHOICE, AT(overflow), "WHAT", "at retain-bytes or retain-count", overflows, false, NULL },
    { "dead-letter", CLI_TEXT, AT(dead_letter), "CHANNEL", "a durable channel for what cannot stay, or be delivered",
      NULL, false, NULL },
    { "sync", CLI_CHOICE, AT(sync), "WHEN", "when messages are on stable storage (default: the server's)", syncs, false,
      NULL },
    { "window", CLI_DURATION, AT(window_us), "D", "how long idempotency keys are remembered (default 10m)", NULL, false,
      "window-time" },
    { "window-keys", CLI_NUMBER, AT(window_keys), "N", "how many keys are remembered at most (default 1000000)", NULL,
      false, NULL },
    { "window-bytes", CLI_BYTES, AT(window_bytes), "SIZE", "how much is kept of them at most (default 64 MiB)", NULL,
      false, NULL },
    { "window-slides", CLI_SWITCH, AT(window_slides), NULL, "a duplicate starts its key's time anew", NULL, false,
      NULL },
    { "window-forgets", CLI_SWITCH, AT(window_forgets), NULL,
      "at either bound forget the oldest key, do not refuse new ones", NULL, false, NULL },
    { "from", CLI_TEXT, AT(from), "WHERE", "where to begin: all, new, a number, a time, or how long ago (5m)", NULL,
      false, NULL },
    { "ack", CLI_CHOICE, AT(ack), "WHAT", "acknowledge each message when it is printed (with --durable), or none", acks,
      false, NULL },
    { "shared", CLI_SWITCH, AT(shared), NULL, "with --durable: each message goes to one of those who read with it",
      NULL, false, NULL },
    { "standby", CLI_SWITCH, AT(standby), NULL, "with --durable: stand by, and take over when the one before ends",
      NULL, false, NULL },
    { "last", CLI_SWITCH, AT(last), NULL, "begin with the newest message of every key", NULL, false, NULL },
    { "ack-wait", CLI_DURATION, AT(ack_wait_us), "D", "not acknowledged for so long: delivered again (default 30s)",
      NULL, false, NULL },
    { "max-deliveries", CLI_NUMBER, AT(deliveries_max), "N", "of one message; then it goes to --dead-letter", NULL,
      false, NULL },
    { "before", CLI_TEXT, AT(before), "SEQ", "only messages with a smaller number", NULL, false, NULL },
    { "idempotency-field", CLI_TEXT, AT(idempotency_field), "FIELD",
      "the idempotency key is this field of each message", NULL, false, NULL },
    { "expires", CLI_DURATION, AT(expires_us), "D", "deliver it to nobody after this", NULL, false, NULL },
    { "expect-last", CLI_TEXT, AT(expect_last), "SEQ", "only if this is the channel's last number", NULL, false, NULL },
    { "message", CLI_TEXT, AT(message), "JSON", "the message to decide about; - reads standard input (default {})",
      NULL, false, NULL },
    { "candidates", CLI_TEXT, AT(candidates), "FILE", "a JSON array of candidates, or a file with one", NULL, false,
      NULL },
    { "header", CLI_MANY, AT(headers), "NAME=TEXT", "a header of the message; several", NULL, false, NULL },
    { "strict", CLI_SWITCH, AT(strict), NULL, "nobody, or one that is full, is a failure (6)", NULL, false, NULL },
    { "times", CLI_NUMBER, AT(times), "N", "decide so often, and say how long it took", NULL, false, NULL },
    { "by", CLI_TEXT, AT(by), "NAME", "who it was, for the history (default: $LOGNAME)", NULL, false, NULL },
};
static_assert(LIM_COUNT(flags) <= 128, "cli_args.given has a bit for each");

const cli_flag *cli_flags(size_t *count)
{
    *count = LIM_COUNT(flags);
    return flags;
}

static bool problem(cli_args *a, const char *flag, const char *value, const char *why)
{
    snprintf(a->problem, sizeof a->problem, value ? "--%s %s: %s" : "--%s: %s%s", flag, value ? value : "", why);
    return false;
}

const char *cli_flag_listed(const cli_flag *flag)
{
    return flag->listed ? flag->listed : flag->name;
}

/* Of two with one name the one that the command takes, as far as that is known by now; else the first. */
static const cli_flag *flag_named(const cli_args *a, const char *name, size_t len)
{
    const cli_command *command = cli_command_in(a);
    const cli_flag *first = NULL;
    for (size_t i = 0; i < LIM_COUNT(flags); i++) {
        if (strlen(flags[i].name) != len || memcmp(flags[i].name, name, len) != 0)
            continue;
        if (command && cli_command_takes(command, &flags[i]))
            return &flags[i];
        first = first ? first : &flags[i];
    }
    return first;
}

static bool set_choice(cli_args *a, const cli_flag *flag, int *field, const char *value)
{
    char all[160] = "";
    for (int i = 0; flag->choices[i]; i++) {
        if (strcmp(flag->choices[i], value) == 0) {
            *field = i + 1;
            return true;
        }
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", flag->choices[i]);
    }
    char why[240];
    snprintf(why, sizeof why, "there is no such choice; write one of %s", all);
    return problem(a, flag->name, value, why);
}

static bool add_to_list(cli_args *a, const cli_flag *flag, cli_list *list, const char *value)
{
    if (list->count + 1 >= LIM_COUNT(list->items))
        return problem(a, flag->name, value, "32 of them are the limit; leave some out");
    list->items[list->count++] = value;
    return true;
}

static bool timeout_good(int64_t us)
{
    return us == LIM_FOREVER || us / 1000 <= LIM_TIMEOUT_MS_MAX;
}

static bool set(cli_args *a, const cli_flag *flag, const char *value)
{
    void *field = (char *)&a->opts + flag->offset;
    const char *why = "";
    a->given[(flag - flags) / 64] |= UINT64_C(1) << (flag - flags) % 64;
    switch (flag->kind) {
    case CLI_SWITCH:
        *(bool *)field = true;
        return true;
    case CLI_TEXT:
        *(const char **)field = value;
        return true;
    case CLI_MANY:
        return add_to_list(a, flag, field, value);
    case CLI_CHOICE:
        return set_choice(a, flag, field, value);
    case CLI_NUMBER:
        return cli_number(value, field, &why) || problem(a, flag->name, value, why);
    case CLI_SIZE:
        return cli_size(value, field, &why) || problem(a, flag->name, value, why);
    case CLI_BYTES:
        return cli_bytes(value, field, &why) || problem(a, flag->name, value, why);
    case CLI_DURATION:
        if (!cli_duration(value, field, &why))
            return problem(a, flag->name, value, why);
        return strcmp(flag->name, "timeout") != 0 || timeout_good(*(const int64_t *)field) ||
               problem(a, flag->name, value, "over the limit of 49 days 17 hours; give less, or forever");
    }
    return false;
}

/* Near means: near among the flags of the command, as far as that is known by now. */
static bool unknown_flag(cli_args *a, const char *word)
{
    size_t dashes = strspn(word, "-"), len = strcspn(word + dashes, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(len < 63 ? len : 63), word + dashes);
    lim__near near = { .word = lim__str(name) };
    const cli_command *command = cli_command_in(a);
    for (size_t i = 0; i < LIM_COUNT(flags); i++) {
        if (!command || flags[i].everywhere || cli_command_takes(command, &flags[i]))
            lim__near_offer(&near, lim__str(flags[i].name));
    }
    char todo[120];
    if (near.best.len > 0)
        snprintf(todo, sizeof todo, "did you mean --%.*s?", (int)near.best.len, (const char *)near.best.ptr);
    else
        snprintf(todo, sizeof todo, "see liminal help%s%s; for a word that begins with -, write -- before it",
                 command ? " " : "", command ? command->name : "");
    snprintf(a->problem, sizeof a->problem, "%.*s%s: unknown flag; %s", (int)dashes, word, name, todo);
    return false;
}

/* One flag at argv[*i]; takes the next word if it is its value. */
static bool take_flag(cli_args *a, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    if (strcmp(word, "-h") == 0)
        word = "--help";
    size_t len = strncmp(word, "--", 2) == 0 ? strcspn(word + 2, "=") : 0;
    const cli_flag *flag = len > 0 ? flag_named(a, word + 2, len) : NULL;
    if (!flag)
        return unknown_flag(a, word);
    const char *value = word[2 + len] == '=' ? word + 3 + len : NULL;
    if (flag->kind == CLI_SWITCH)
        return value ? problem(a, flag->name, value, "it takes no value; leave it out") : set(a, flag, NULL);
    if (!value && *i + 1 >= argc) {
        char why[80];
        snprintf(why, sizeof why, "its value is missing; write --%s %s", flag->name, flag->value);
        return problem(a, flag->name, NULL, why);
    }
    return set(a, flag, value ? value : argv[++*i]);
}

bool cli_args_parse(cli_args *a, int argc, char **argv)
{
    bool flags_end = false;
    *a = (cli_args){ 0 };
    for (int i = 1; i < argc; i++) {
        bool is_flag = !flags_end && argv[i][0] == '-' && argv[i][1] != 0;
        if (is_flag && strcmp(argv[i], "--") == 0) {
            flags_end = true;
        } else if (is_flag) {
            if (!take_flag(a, argc, argv, &i))
                return false;
        } else if (a->word_count == CLI_WORDS_MAX) {
            snprintf(a->problem, sizeof a->problem, "%s: too many words; put text with spaces in quotes", argv[i]);
            return false;
        } else {
            a->words[a->word_count++] = argv[i];
        }
    }
    return true;
}
