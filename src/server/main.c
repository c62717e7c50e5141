/* SPDX-License-Identifier: Apache-2.0
 * main.c - liminald: a bus with a server in front, in the foreground, until it is told to end.
 *
 * Standard output has one line, once it is ready: where it listens. The log goes to standard error, one event a line.
 * Signals are taken by this thread alone, one at a time: the first asks for an orderly end, the second forces it.
 *
 * Exit codes: 0 ended as asked, 1 could not start or had to be forced, 2 usage. */
#include "base/base.h"
#include "server/config.h"
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef enum log_level { LOG_NONE, LOG_ERROR, LOG_INFO } log_level; /* the words of log.level, in their order */

static int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int complain(int code, const char *format, ...)
{
    va_list args;
    fputs("liminald: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return code;
}

/* -1: go on with these values; else the exit code. */
static int configure(lim__config *config, int argc, char **argv)
{
    lim__buf out = { 0 };
    lim__config_next next = lim__config_load(config, argc, argv, environ, &out);
    lim_bytes text = lim__buf_bytes(&out);
    if (text.len > 0)
        (void)!fwrite(text.ptr, 1, text.len, next == LIM__CONFIG_SHOW ? stdout : stderr);
    lim__buf_fini(&out);
    return next == LIM__CONFIG_RUN ? -1 : next == LIM__CONFIG_SHOW ? 0 : 2;
}

/* ---- the log ---- */

static void on_log(void *ctx, const char *line)
{
    const lim__config *config = ctx;
    struct timespec now;
    struct tm utc;
    char text[640];
    if (lim__config_get(config, LIM__CONFIG_LOG_LEVEL) < LOG_INFO)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    int len = snprintf(text + n, sizeof text - n, ".%03ldZ %s\n", now.tv_nsec / 1000000, line);
    size_t all = n + (size_t)len < sizeof text ? n + (size_t)len : sizeof text - 1;
    text[all - 1] = '\n';
    (void)!write(STDERR_FILENO, text, all); /* one write a line: lines of several threads do not mix */
}

/* ---- where durable things are kept ---- */

/* Every directory above it that is not there; what goes wrong shows when the store is opened. */
static void make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
}

/* Of the system manager if it gave one (the first, of several), of the machine for root, of the user otherwise. */
static bool state_directory(char *out, size_t size)
{
    const char *given = getenv("STATE_DIRECTORY"), *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (given != NULL && given[0] != '\0')
        n = snprintf(out, size, "%.*s", (int)strcspn(given, ":"), given);
    else if (geteuid() == 0)
        n = snprintf(out, size, "/var/lib/liminal");
    else if (state != NULL && state[0] == '/')
        n = snprintf(out, size, "%s/liminal", state);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, size, "%s/.local/state/liminal", home);
    return n > 0 && (size_t)n < size;
}

/* What lim_bus_opts wants; NULL: nothing is kept. False: it is not known where. */
static bool data_directory(const lim__config *config, char *out, size_t size, const char **dir)
{
    const char *text = config->values[LIM__CONFIG_DATA].text;
    *dir = text;
    if (strcmp(text, "none") == 0)
        *dir = NULL;
    if (strcmp(text, "auto") != 0)
        return true;
    *dir = out;
    if (!state_directory(out, size))
        return false;
    make_parents(out);
    return true;
}

static const char *node_name(const lim__config *config, char *out, size_t size)
{
    const char *text = config->values[LIM__CONFIG_NODE].text;
    if (strcmp(text, "auto") != 0)
        return text;
    out[size - 1] = '\0';
    return gethostname(out, size - 1) == 0 && out[0] != '\0' ? out : NULL;
}

/* ---- running ---- */

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Says goodbye to everybody. 0: nobody was cut off. */
static int drain(lim__server *server, const lim__config *config, const sigset_t *signals)
{
    const struct timespec step = { 0, 5000000 };
    uint32_t drain_ms = lim__config_get(config, LIM__CONFIG_DRAIN);
    lim__server_drain(server, drain_ms);
    while (!lim__server_drained(server))
        if (sigtimedwait(signals, NULL, &step) > 0)
            return complain(
                1, "forced to end by a second signal; whoever still waited is told that the connection is lost");
    return lim__server_forced(server) ? complain(1,
                                                 "ended after %" PRIu32 " ms with work still pending; a larger --drain "
                                                 "waits longer",
                                                 drain_ms)
                                      : 0;
}

static int serve(lim_bus *bus, const lim__config *config, const sigset_t *signals)
{
    lim__server *server;
    lim_diag diag = { 0 };
    lim__server_opts opts = { .host = config->host,
                              .port = config->port,
                              .ping_ms = lim__config_get(config, LIM__CONFIG_PING),
                              .spread = lim__config_get(config, LIM__CONFIG_SPREAD) != 0 };
    int signal, code;
    if (lim__server_open(bus, &opts, &diag, &server) != LIM_OK) {
        code = complain(1, "%s", diag.text[0] != '\0' ? diag.text : "cannot start: out of memory; free some");
        lim_bus_close(bus);
        return code;
    }
    printf("liminald %s listening on %s:%u\n", LIM_VERSION, config->host, lim__server_port(server));
    fflush(stdout);
    while (sigwait(signals, &signal) != 0)
        continue;
    lim__bus_log(bus, "event=drain signal=%d sessions=%u", signal, lim__server_sessions(server));
    code = drain(server, config, signals);
    lim_bus_close(bus);
    lim__server_close(server);
    return code;
}

int main(int argc, char **argv)
{
    lim__config config = { 0 };
    sigset_t signals;
    lim_bus *bus;
    lim_diag diag = { 0 };
    char state[LIM__CONFIG_TEXT_MAX + 1];
    char node[256];
    const char *data;
    int code = configure(&config, argc, argv);
    if (code >= 0) {
        lim__config_fini(&config);
        return code;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN); /* whoever read our standard output or error may have gone */
    raise_descriptors();
    if (!data_directory(&config, state, sizeof state, &data)) {
        lim__config_fini(&config);
        return complain(1,
                        "cannot start: there is no HOME to keep data under; say where with --data DIR, or --data none");
    }
    lim_bus_opts opts = { .size = sizeof opts,
                          .scheduler_count = lim__config_get(&config, LIM__CONFIG_SCHEDULERS),
                          .spin_us = lim__config_get(&config, LIM__CONFIG_SPIN),
                          .payload_bytes_max = lim__config_get(&config, LIM__CONFIG_PAYLOAD_MAX),
                          .on_log = on_log,
                          .log_ctx = &config,
                          .data_dir = data,
                          .data_bytes_max = config.values[LIM__CONFIG_DATA_MAX].n,
                          .sync = (lim_sync)(lim__config_get(&config, LIM__CONFIG_SYNC) + LIM_SYNC_ALWAYS),
                          .sync_interval_ms = lim__config_get(&config, LIM__CONFIG_SYNC_INTERVAL),
                          .native_engine = lim__config_get(&config, LIM__CONFIG_ROUTING_NATIVE) != 0,
                          .node = node_name(&config, node, sizeof node),
                          .diag = &diag };
    lim_err err = lim_bus_open(&opts, &bus);
    if (err == LIM_OK)
        code = serve(bus, &config, &signals);
    else if (diag.text[0] != '\0')
        code = complain(1, "cannot start: %s", diag.text);
    else
        code = complain(1, "cannot start: %s; free memory or descriptors", lim_err_text(err));
    lim__config_fini(&config);
    return code;
}
