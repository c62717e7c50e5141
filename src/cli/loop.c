/* SPDX-License-Identifier: Apache-2.0
 * loop.c - one poll(2) over the client, the signals, and whatever the command watches.
 *
 *   NEW --server answered--> UP --broke, reconnect--> AWAY --answered--> UP
 *    |                        `--broke, not so------> LOST                    on_state makes these moves
 *    `--never reached--> LOST                    any --cli_run is done--> CLOSING
 *
 * A turn: poll; the alarm; what is ready; lim_client_process; standard output is written. The client is always called
 * last, and always, because what the command queued in this turn leaves with it.
 *
 * Signals arrive as bytes in a pipe. A second one acts as if there were no handler: whoever presses ^C twice means it.
 */
#include "cli/cli.h"
#include "os/os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    POLL_SIGNAL = 0,
    POLL_CLIENT,
    POLL_SOURCES, /* the first of the command's own */
    LIVENESS_MS = 2000,
};

static int signal_pipe[2] = { -1, -1 }; /* the program's only global: a handler gets nothing else */

uint64_t cli_now_ns(void)
{
    lim__os *os = lim__os_linux();
    return os->now_ns(os);
}

uint64_t cli_wall_us(void)
{
    lim__os *os = lim__os_linux();
    return os->wall_ns(os) / 1000;
}

/* ---- signals ---- */

static void on_signal(int number)
{
    int before = errno;
    char byte = (char)number;
    ssize_t written = write(signal_pipe[1], &byte, 1);
    (void)written; /* full: it has been told */
    errno = before;
}

static bool catch_signals(void)
{
    if (signal_pipe[0] >= 0)
        return true;
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    struct sigaction caught = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
    struct sigaction ignored = { .sa_handler = SIG_IGN };
    sigaction(SIGINT, &caught, NULL);
    sigaction(SIGTERM, &caught, NULL);
    sigaction(SIGPIPE, &ignored, NULL);
    return true;
}

static void take_signals(struct cli *cli)
{
    char bytes[16];
    if (read(signal_pipe[0], bytes, sizeof bytes) <= 0)
        return;
    if (cli->on_interrupt)
        cli->on_interrupt(cli->state);
    else
        cli_end(cli, CLI_CANCELLED);
}

/* ---- what is watched ---- */

void cli_watch(struct cli *cli, cli_source *source)
{
    if (source->watched)
        return;
    source->slot = SIZE_MAX; /* not in the poll that is being dealt out */
    source->watched = true;
    lim__list_push(&cli->sources, &source->node);
}

void cli_unwatch(cli_source *source)
{
    if (!source->watched)
        return;
    source->watched = false;
    lim__list_remove(&source->node);
}

/* A source that another one's callback unwatched, or watched anew, is not in this turn's list any more. */
static void deal(struct cli *cli, const struct pollfd *fds)
{
    for (size_t i = 0; i < cli->polled_count; i++) {
        const struct pollfd *fd = &fds[POLL_SOURCES + i];
        if (fd->revents == 0)
            continue;
        LIM__LIST_EACH(node, &cli->sources) {
            cli_source *s = LIM_CONTAINER(node, cli_source, node);
            if (s->slot != i)
                continue;
            s->on_ready(s, fd->revents);
            break;
        }
    }
}

static struct pollfd *gather(struct cli *cli)
{
    size_t count = 0;
    LIM__LIST_EACH(node, &cli->sources)
        count++;
    struct pollfd *fds = calloc(POLL_SOURCES + count, sizeof *fds);
    if (!fds)
        return NULL;
    fds[POLL_SIGNAL] = (struct pollfd){ .fd = signal_pipe[0], .events = POLLIN };
    fds[POLL_CLIENT] = (struct pollfd){ .fd = cli->client ? lim_client_fd(cli->client) : -1, .events = POLLIN };
    cli->polled_count = 0;
    LIM__LIST_EACH(node, &cli->sources) {
        cli_source *s = LIM_CONTAINER(node, cli_source, node);
        s->slot = cli->polled_count++;
        fds[POLL_SOURCES + s->slot] = (struct pollfd){ .fd = s->fd, .events = s->events };
    }
    return fds;
}

/* ---- a turn ---- */

static int timeout_ms(const struct cli *cli)
{
    int ms = cli->client ? lim_client_timeout_ms(cli->client) : -1;
    if (cli->alarm_ns == 0)
        return ms;
    uint64_t now = cli_now_ns();
    uint64_t left = cli->alarm_ns > now ? (cli->alarm_ns - now + 999999) / 1000000 : 0;
    return ms < 0 || left < (uint64_t)ms ? (int)(left < INT32_MAX ? left : INT32_MAX) : ms;
}

static void ring(struct cli *cli)
{
    if (cli->alarm_ns == 0 || cli_now_ns() < cli->alarm_ns)
        return;
    cli->alarm_ns = 0;
    cli->on_alarm(cli->state);
}

/* What on_state and lim_client_process tell; both may. */
static void on_broken(struct cli *cli, bool for_good)
{
    if (cli->link == CLI_LINK_NEW || (for_good && cli->link != CLI_LINK_CLOSING)) {
        cli->link = cli->link == CLI_LINK_NEW ? CLI_LINK_NEW : CLI_LINK_LOST;
        cli_end(cli, CLI_UNREACHABLE);
    } else if (cli->link == CLI_LINK_UP) {
        cli->link = CLI_LINK_AWAY;
        cli_note("liminal: connection: %s; dialling again", cli->detail);
        if (cli->on_away)
            cli->on_away(cli->state);
    }
}

static void process_client(struct cli *cli)
{
    if (!cli->client)
        return;
    lim_err err = lim_client_process(cli->client);
    if (err == LIM_E_GONE)
        on_broken(cli, true);
}

void cli_turn(struct cli *cli)
{
    struct pollfd *fds = gather(cli);
    if (!fds) {
        cli_fault(cli, CLI_FAILED, "poll", "no memory", "free some");
        cli->ended = true;
        return;
    }
    int ready = poll(fds, (nfds_t)(POLL_SOURCES + cli->polled_count), timeout_ms(cli));
    ring(cli);
    if (ready > 0) {
        if (fds[POLL_SIGNAL].revents != 0)
            take_signals(cli);
        deal(cli, fds);
    }
    free(fds);
    process_client(cli);
    cli_flush(cli);
}

/* ---- the connection ---- */

static void on_state(void *ctx, lim_link_state state, const char *detail)
{
    struct cli *cli = ctx;
    if (cli->link == CLI_LINK_CLOSING)
        return;
    if (state == LIM_LINK_UP) {
        if (cli->link == CLI_LINK_AWAY)
            cli_note("liminal: connected again");
        cli->link = CLI_LINK_UP;
    } else if (state == LIM_LINK_DOWN || state == LIM_LINK_ENDED) {
        size_t len = detail ? strnlen(detail, sizeof cli->detail - 1) : 0;
        memcpy(cli->detail, detail ? detail : "", len);
        cli->detail[len] = 0;
        on_broken(cli, state == LIM_LINK_ENDED);
    }
}

static const char *address(const struct cli *cli)
{
    const char *from_environment = getenv("LIMINAL_SERVER");
    return cli->opts->server                       ? cli->opts->server
           : from_environment && *from_environment ? from_environment
                                                   : "127.0.0.1:4777";
}

/* "127.0.0.1:4777: the server closed the connection; ...", or, where the reason names the address itself, "connection:"
 */
static void tell_broken(struct cli *cli)
{
    const char *why = *cli->detail ? cli->detail : "the server does not answer";
    const char *what = strstr(why, address(cli)) ? "connection" : address(cli);
    cli->code = cli_worse(cli->code, CLI_UNREACHABLE);
    if (cli->told)
        return;
    if (strstr(why, "; ")) { /* says what to do as well */
        cli_note("liminal: %s: %s", what, why);
        cli->told = true;
    } else {
        cli_fault(cli, CLI_UNREACHABLE, what, why,
                  cli->link == CLI_LINK_LOST ? "see liminald's log; then run this again"
                                             : "start liminald, or name its address with --server or LIMINAL_SERVER");
    }
}

static void disconnect(struct cli *cli)
{
    cli->link = CLI_LINK_CLOSING;
    lim_client_close(cli->client);
    cli->client = NULL;
}

/* "localhost", "127.0.0.1:4777", "[::1]:4777". Names are not looked up: that could take longer than any timeout. */
static bool address_good(const char *text)
{
    char host[64];
    uint8_t raw[16];
    const char *colon = strrchr(text, ':'), *why;
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    uint32_t port = 1;
    if (len >= sizeof host || (colon && (!cli_number(colon + 1, &port, &why) || port > UINT16_MAX)))
        return false;
    bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? len - 2 : len), bracketed ? text + 1 : text);
    return strcmp(host, "localhost") == 0 || inet_pton(AF_INET, host, raw) == 1 || inet_pton(AF_INET6, host, raw) == 1;
}

bool cli_connect(struct cli *cli, bool reconnect)
{
    if (!address_good(address(cli))) {
        cli_fault(cli, CLI_USAGE, address(cli), "not an address of a server",
                  "write HOST:PORT with a numeric address or localhost, as in 127.0.0.1:4777");
        return false;
    }
    lim_diag diag = { 0 };
    lim_client_opts opts = { .size = sizeof opts,
                             .server = address(cli),
                             .name = "liminal",
                             .own_loop = true,
                             .no_reconnect = !reconnect,
                             .node = cli->opts->node,
                             .liveness_ms = cli->serves ? LIVENESS_MS : 0,
                             .on_state = on_state,
                             .ctx = cli };
    if (!catch_signals()) {
        cli_fault(cli, CLI_FAILED, "pipe", strerror(errno), "raise the limit of open files");
        return false;
    }
    lim_err err = lim_client_open(&opts, &diag, &cli->client);
    if (err != LIM_OK) {
        cli_err(cli, address(cli), err, &diag);
        return false;
    }
    while (cli->link == CLI_LINK_NEW && !cli->ended)
        cli_turn(cli);
    if (cli->link == CLI_LINK_UP)
        return true;
    if (cli->code != CLI_CANCELLED)
        tell_broken(cli);
    disconnect(cli);
    return false;
}

void cli_end(struct cli *cli, int code)
{
    cli->ended = true;
    cli->code = cli_worse(cli->code, code);
}

bool cli_over(const struct cli *cli)
{
    return cli->ended || cli->link == CLI_LINK_CLOSING;
}

int cli_run(struct cli *cli)
{
    while (!cli->ended)
        cli_turn(cli);
    if (cli->link == CLI_LINK_LOST && !cli->out_gone)
        tell_broken(cli);
    disconnect(cli);
    cli_flush(cli);
    return cli->code;
}

lim_bytes cli_input(struct cli *cli, lim__buf *keep)
{
    void *data;
    size_t len;
    int err = lim__file_read("-", CLI_INPUT_MAX, &data, &len);
    if (err != 0) {
        cli_fault(cli, CLI_FAILED, "standard input", strerror(-err), "give the payload as a word, or a smaller one");
        return lim__bytes(NULL, 0);
    }
    lim__buf_add(keep, data, len);
    free(data);
    return lim__buf_bytes(keep);
}

lim_bytes cli_payload(struct cli *cli, int word, lim__buf *keep)
{
    const char *text = cli_word(cli, word);
    return text && strcmp(text, "-") == 0 ? cli_input(cli, keep) : lim__str(text ? text : "");
}
