/* SPDX-License-Identifier: Apache-2.0
 * cli.h - the command `liminal`: a table of commands, a table of flags, one loop.
 *
 *   main --> args (words and flags) --> command (which one; help) --> pub, sub, ask, exec, dispatch, deploy, admin
 *                                                                        |
 *                                     loop: one poll over the client, signals, standard input, children
 *
 * One thread, which owns everything: the client runs in its own_loop form, so no callback needs a lock and a child of
 * --exec dies with the program (its death signal follows the thread that started it). The loop is poll(2) and not the
 * os table's poller because standard input may be a regular file, which epoll refuses.
 *
 * Standard output is collected and written before each wait, so that a stream is prompt when it is slow and cheap when
 * it is fast. Standard error has one line per fault: `liminal: WHAT: WHY; WHAT TO DO`.
 *
 * This is a program, not part of the library: its shared names begin with cli_. */
#ifndef LIM_CLI_H
#define LIM_CLI_H

#include <liminal/client.h>
#include "base/base.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/near.h"

#include <assert.h>

/* ---- exit codes: the same in every command ---- */
enum {
    CLI_DONE = 0,
    CLI_FAILED = 1,      /* the work itself failed */
    CLI_USAGE = 2,
    CLI_UNREACHABLE = 3, /* or lost */
    CLI_CRASHED = 4,
    CLI_TIMEOUT = 5,
    CLI_REJECTED = 6,    /* or refused */
    CLI_NOT_FOUND = 7,
    CLI_CANCELLED = 8    /* or closed */
};
int cli_worse(int a, int b); /* of two exit codes the one that says more of what went wrong */

enum { CLI_INPUT_MAX = 64 << 20, CLI_LINE_MAX = 16 << 20 }; /* bytes of a file or payload read whole; of one line */

/* ---- words (words.c) ---- */
/* "250ms", "2s", "5m", "1h", "200us", "forever" (LIM_FOREVER). False: *why says what is wrong and what would be right. */
bool cli_duration(const char *text, int64_t *us, const char **why);
bool cli_number(const char *text, uint32_t *out, const char **why);  /* 1..4294967294 */
bool cli_size(const char *text, uint32_t *out, const char **why);    /* "65536", "64KiB", "1MiB" */
bool cli_bytes(const char *text, uint64_t *out, const char **why);   /* likewise, and "10GiB", "2TiB" */
bool cli_seq(const char *text, uint64_t *out); /* a number in a channel: decimal digits */
bool cli_instant(const char *text, uint64_t *us); /* "2026-11-20T17:00:00Z": microseconds since 1970 (cursor.c) */
bool cli_id(const char *text, uint64_t *out); /* as lists show it: 1 to 16 hexadecimal digits, not 0 */
/* "2026-11-21T08:00[:30]", with Z or +01:00, or local time: microseconds since 1970. */
bool cli_time(const char *text, int64_t *us);
bool cli_utf8(lim_bytes text);
lim_bytes cli_trim(lim_bytes text); /* without white space at either end */

/* ---- flags (args.c): a flag means the same in every command that takes it ---- */
typedef struct cli_list {
    const char *items[33]; /* NULL-terminated */
    size_t count;
} cli_list;
typedef struct cli_opts { /* zero: not given */
    const char *server, *exec, *identity, *node, *namespace, *builtin, *compensate, *key, *order_key, *unique_key;
    const char *idempotency_key;
    const char *report_to, *at, *ramp, *ramp_key, *ramp_where, *breaker, *if_version, *by, *message, *candidates;
    const char *cursor, *from, *before, *dead_letter, *idempotency_field, *expect_last;
    bool json, help, version, mandatory, next, wait, allow_hold, reconnect, no_reconnect, watch, follow, all, any;
    bool shared, standby, last, channel;
    int ack; /* CLI_ACK_*; 0: not said */
    int64_t ack_wait_us;
    uint32_t deliveries_max;
    bool stream, trace, clear, shadow, strict, durable, retain_latest, window_slides, window_forgets;
    uint64_t retain_bytes, window_bytes;
    uint32_t retain_count, window_keys, max, keep, times, window, backlog, capacity, memory_bytes, log_bytes, quorum;
    uint32_t weight;
    int64_t retain_age_us, window_us, expires_us, timeout_us, cpu_us, wall_us, interval_us, delay_us, start_to_close_us;
    int64_t progress_us;
    int policy, on_fault, on_duplicate, overflow, sync; /* 1 + the index of the choice: the values of the enums in liminal.h */
    int priority;                       /* likewise: LIM_PRIORITY */
    cli_list types, tags, where, headers;
} cli_opts;

typedef enum cli_kind {
    CLI_SWITCH = 1, CLI_TEXT, CLI_MANY, CLI_NUMBER, CLI_SIZE, CLI_BYTES, CLI_DURATION, CLI_CHOICE
} cli_kind;
typedef struct cli_flag {
    const char *name;           /* without its dashes */
    cli_kind kind;
    size_t offset;              /* of its field in cli_opts */
    const char *value;          /* what help calls its value */
    const char *help;
    const char *const *choices; /* CLI_CHOICE; NULL-terminated */
    bool everywhere;            /* every command takes it */
    const char *listed;         /* how commands list it, if two flags have one name; NULL: by its name */
} cli_flag;
const cli_flag *cli_flags(size_t *count);
const char *cli_flag_listed(const cli_flag *flag);

enum { CLI_WORDS_MAX = 40 };
typedef struct cli_args {
    cli_opts opts;
    const char *words[CLI_WORDS_MAX]; /* what is no flag: the command first */
    int word_count;
    uint64_t given[2];   /* bit i: flag i of cli_flags was given */
    char problem[512];   /* "WHAT: WHY; WHAT TO DO" */
} cli_args;
bool cli_args_parse(cli_args *a, int argc, char **argv); /* false: problem says why */

/* ---- commands (command.c) ---- */
struct cli;
typedef struct cli_command {
    const char *name;    /* one word, or two: "channel ls" */
    const char *args;    /* as help shows them: "CHANNEL [PAYLOAD|-]" */
    const char *summary;
    const char *example;
    const char *flags;   /* names, separated by spaces */
    int words_min, words_max; /* after the name */
    int (*run)(struct cli *cli); /* answers the exit code */
} cli_command;
const cli_command *cli_commands(size_t *count);
bool cli_command_takes(const cli_command *command, const cli_flag *flag);
const cli_command *cli_command_in(const cli_args *a); /* the one its words begin with, or NULL */
/* The command that the words name, their count and the flags checked against it; NULL: problem says why. */
const cli_command *cli_command_find(cli_args *a);
const char *cli_word(const struct cli *cli, int i); /* the i-th word after the command's name, or NULL */
/* With --namespace the group or queue that the first word names becomes the one of that namespace. False: there can be none. */
bool cli_enter_namespace(struct cli *cli);
int cli_help_all(lim__buf *out);                             /* CLI_DONE */
int cli_help_one(lim__buf *out, const cli_command *command);

/* ---- the context ---- */
typedef struct cli_source { /* something the loop watches; lives in its owner */
    lim__list node;
    int fd;
    short events;           /* POLLIN, POLLOUT; 0: only errors */
    void (*on_ready)(struct cli_source *source, short ready);
    size_t slot;            /* private */
    bool watched;
} cli_source;

struct cli {
    cli_args args;
    const cli_opts *opts;        /* = &args.opts */
    const cli_command *command;
    char whole_name[256];        /* of a group in a namespace */
    lim__buf out;                /* standard output, until the next wait */
    lim_client *client;
    lim__list sources;
    cli_source **polled;         /* this turn's; NULL where one was unwatched meanwhile */
    size_t polled_count;
    enum { CLI_LINK_NEW = 0, CLI_LINK_UP, CLI_LINK_AWAY, CLI_LINK_LOST, CLI_LINK_CLOSING } link;
    bool ended, told;            /* told: a fault was printed */
    bool serves;                 /* answers requests: it may be asked whether it still lives */
    bool out_gone;               /* nobody reads standard output any more */
    bool printed, due;           /* admin.c: a block is there already; a pause is over */
    int code;
    char detail[240];            /* why the connection broke */
    uint64_t alarm_ns;           /* when on_alarm is due, 0: never */
    void (*on_alarm)(void *state);
    void (*on_interrupt)(void *state); /* SIGINT, SIGTERM; NULL: end with CLI_CANCELLED */
    void (*on_written)(void *state);   /* all of `out` has been written, if the client lives; may be NULL */
    void (*on_away)(void *state);      /* the connection broke and is being dialled again; may be NULL */
    void *state;                 /* of the command; given to the three above */
};

/* ---- what is said (say.c) ---- */
/* One line on stderr; the code is noted. */
void cli_fault(struct cli *cli, int code, const char *what, const char *why, const char *todo);
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));           /* one line on stderr */
void cli_flush(struct cli *cli);               /* writes what is collected; a closed pipe ends the command quietly */
void cli_err(struct cli *cli, const char *what, lim_err err, const lim_diag *diag); /* a call that was refused here */
int cli_err_code(lim_err err);
void cli_json_payload(lim__json *j, lim_bytes payload); /* "payload" as text, or "payload_base64" */
void cli_json_us(lim__json *j, const char *key, uint64_t ns); /* 0: null */
#define CLI_ID_FORMAT "%llx"
void cli_json_id(lim__json *j, const char *key, uint64_t id); /* as text, in hex; 0: null */

/* ---- outcomes (outcome.c) ---- */
int cli_outcome_code(const lim_outcome *outcome);
/* The line for people: "crashed: worker-1 died (connection_lost) with the request in hand; ask again ..." */
void cli_outcome_line(lim__buf *out, const char *where, const lim_outcome *outcome); /* where: "line 7: ", or "" */
void cli_outcome_rerouted(const lim_outcome *outcome); /* on stderr, if it was; for people */
void cli_outcome_fault(struct cli *cli, const char *where, const lim_outcome *outcome); /* says it, notes the code */
/* The members of its JSON object, without the braces; embed: a payload that is JSON becomes part of it. */
void cli_outcome_json(lim__json *j, const lim_outcome *outcome, bool embed);
const char *cli_verdict_text(lim_verdict verdict);
void cli_admission_json(lim__json *j, const lim_admission *admission);

/* ---- where a request comes from (cause.c) ---- */
typedef struct cli_cause_words { /* "NAME=value" each */
    char conversation[64], hops[32], until[48], traceparent[80];
} cli_cause_words;
void cli_cause_env(const lim_delivery *d, cli_cause_words *words); /* for the command that answers it */
lim_cause cli_cause(bool timed); /* from the environment; zeroed: nobody's child. timed: with no more time than that has */

/* ---- loop (loop.c) ---- */
/* Connects and waits until the server has answered. False: told, code is noted, the loop is closed again. */
bool cli_connect(struct cli *cli, bool reconnect);
/* Runs until cli_end, closes the connection (no callback runs afterwards) and answers the exit code. */
int cli_run(struct cli *cli);
void cli_end(struct cli *cli, int code);   /* the loop stops after this turn; the worse of several codes counts */
bool cli_over(const struct cli *cli);      /* ended or closing: callbacks that find this have nothing to do any more */
void cli_watch(struct cli *cli, cli_source *source); /* fd, events and on_ready are set */
void cli_unwatch(cli_source *source);         /* may be repeated; before the descriptor is closed */
void cli_turn(struct cli *cli);
uint64_t cli_now_ns(void);
uint64_t cli_wall_us(void); /* microseconds since 1970 */
lim_bytes cli_input(struct cli *cli, lim__buf *keep); /* all of standard input; empty, and told: it cannot be read */
lim_bytes cli_payload(struct cli *cli, int word, lim__buf *keep); /* the word, or for "-" all of standard input, in keep */

/* ---- standard input by lines (lines.c) ---- */
typedef struct cli_lines {
    cli_source source; /* stdin */
    lim__buf buf;
    size_t scanned;    /* bytes of buf known to hold no newline */
    bool at_end, watching;
    struct cli *cli;
    void (*on_more)(void *state); /* there may be lines, or the end */
} cli_lines;
void cli_lines_open(cli_lines *l, struct cli *cli, void (*on_more)(void *state));
bool cli_lines_next(cli_lines *l, lim_bytes *line); /* VIEW until the next call; false: none yet, or the end */
void cli_lines_pause(cli_lines *l, bool pause);     /* reads no further while paused */
void cli_lines_close(cli_lines *l);

/* ---- tables (table.c) ---- */
typedef struct cli_table {
    const char *const *columns;
    size_t column_count, cell_count, cell_cap;
    struct cli_cell *cells;
    lim__buf text;
} cli_table;
void cli_table_begin(cli_table *t, const char *const *columns, size_t column_count);
void cli_table_cell(cli_table *t, lim_bytes text); /* row by row; empty: "-" */
void cli_table_print(cli_table *t, lim__buf *out); /* aligned; columns of numbers to the right */
void cli_table_fini(cli_table *t);

/* ---- places in a log (cursor.c) ---- */
enum { CLI_ACK_EACH = 1, CLI_ACK_NONE };
/* all, new, a number, a time, how long ago; NULL: *from is 0. False: told. */
bool cli_from(struct cli *cli, const char *text, lim_from *from, uint64_t *start);

/* ---- asks of system groups (sys.c; what is built on them: admin.h) ---- */
/* What a server says is wrong about `about`: "liminal: about:line:column: text; what to do". */
void cli_tell_error(struct cli *cli, const char *about, int code, const char *text, int line, int column);
/* Connects if need be, sends one JSON request and waits for the reply, which is parsed into doc. False: told (`what` is
 * what the fault is about), and cli->code is set. cli_finish follows in either case. */
struct lim__doc;
bool cli_sys(struct cli *cli, const char *group, const char *what, lim_bytes request, struct lim__doc *doc);
bool cli_sys_maybe(struct cli *cli, const char *group, const char *what, lim_bytes request,
                   struct lim__doc *doc); /* the same; that it is not there (NOTFOUND) is false, and not told */
int cli_finish(struct cli *cli); /* closes the connection, if any; the exit code */

/* ---- routing (deploy.c) ---- */
/* A function's text, or the shared object that it is, malloc'd; NULL: told. */
void *cli_code_read(struct cli *cli, const char *path, size_t *len);
bool cli_is_object(lim_bytes code);
const char *cli_by(const struct cli *cli); /* who acts: --by, else $LOGNAME or $USER, else "" */

/* ---- the commands ---- */
#define CLI_RUN_MAP(X)                                                                                                 \
    X(pub) X(sub) X(pipe) X(ask) X(serve) X(work) X(dispatch) X(deploy) X(list) X(show) X(remove) X(channel_create)    \
    X(channel_configure) X(channel_delete) X(channel_purge) X(channel_get) X(channel_peek) X(channel_close)            \
    X(queue_why) X(queue_configure) X(queue_limit) X(queue_state) X(queue_purge) X(queue_unpark) X(task_cancel)        \
    X(task_retry) X(task_await) X(dead) X(worker_drain) X(conversation_show) X(conversation_cancel)                    \
    X(conversation_signal) X(saga_run) X(saga_cancel) X(schedule_add) X(schedule_change) X(schedule_fire)              \
    X(store_info) X(store_check) X(store_dump) X(store_backup) X(store_restore) X(info) X(events) X(version) X(help)   \
    X(completion) X(cursor_show) X(cursor_why) X(cursor_reset) X(cursor_delete) X(rollback) X(route_show)              \
    X(route_history) X(route_logs) X(route_trial) X(route_test) X(route_rm) X(predicate_test)
#define X(name) int cli_run_##name(struct cli *cli);
CLI_RUN_MAP(X)
#undef X

#endif
