/* SPDX-License-Identifier: Apache-2.0
 * main.c - liminald: a bus with a server in front, in the foreground, until it is told to end.
 *
 * Standard output has one line, once it is ready: where it listens. The log goes to standard error, one event a line.
 * Signals are taken by this thread alone, one at a time: the first asks for an orderly end, the second forces it.
 *
 * Exit codes: 0 ended as asked, 1 could not start or had to be forced, 2 usage. */
#include "base/base.h"
#include "server/server.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 4777, DRAIN_MS = 5000, SCHEDULERS_MAX = 63, SPIN_US_MAX = 1000 };
typedef enum log_level { LOG_NONE = 1, LOG_ERROR, LOG_INFO } log_level;

typedef struct settings {
    char host[64];
    uint16_t port;
    uint32_t schedulers, spin_us, drain_ms;
    log_level log;
    bool spread, insecure;
} settings;

static const char usage[] =
    "liminald - the server of a liminal bus\n"
    "\n"
    "  --listen ADDR:PORT     where (127.0.0.1:4777; port 0: any, printed)\n"
    "  --schedulers N         threads that run connections and processes (1)\n"
    "  --spin US              how long a thread polls before it sleeps (50; 0: never)\n"
    "  --spread               put connections on the threads in turn, not together\n"
    "  --drain MS             how long SIGTERM waits for what is pending (5000)\n"
    "  --log-level LEVEL      none, error or info (info)\n"
    "  --insecure-listen      allow an address that other machines can reach: there is no authentication\n"
    "  --help, --version\n";

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

/* ---- the command line ---- */

static bool number(const char *text, uint32_t max, uint32_t *out)
{
    char *rest;
    errno = 0;
    unsigned long n = strtoul(text, &rest, 10);
    if (text[0] < '0' || text[0] > '9' || *rest != '\0' || errno != 0 || n > max)
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool address(const char *text, settings *o)
{
    const char *colon = strrchr(text, ':');
    uint32_t port = PORT;
    size_t len = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (len == 0 || len >= sizeof o->host || (colon != NULL && !number(colon + 1, UINT16_MAX, &port)))
        return false;
    memcpy(o->host, text, len);
    o->host[len] = '\0';
    o->port = (uint16_t)port;
    return true;
}

static bool level(const char *text, log_level *out)
{
    static const char *const names[] = { "", "none", "error", "info" };
    for (size_t i = 1; i < LIM_COUNT(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (log_level)i;
            return true;
        }
    return false;
}

/* A flag that has a value: takes it, answers what is wrong with it; NULL: nothing is. */
static const char *take(settings *o, const char *flag, const char *value, bool *known)
{
    *known = true;
    if (strcmp(flag, "--listen") == 0)
        return address(value, o) ? NULL : "give ADDR:PORT, for instance 127.0.0.1:4777";
    if (strcmp(flag, "--schedulers") == 0)
        return number(value, SCHEDULERS_MAX, &o->schedulers) && o->schedulers > 0 ? NULL : "give a number from 1 to 63";
    if (strcmp(flag, "--spin") == 0)
        return number(value, SPIN_US_MAX, &o->spin_us) ? NULL : "give microseconds, 0 to 1000";
    if (strcmp(flag, "--drain") == 0)
        return number(value, 3600000, &o->drain_ms) ? NULL : "give milliseconds, 0 to 3600000";
    if (strcmp(flag, "--log-level") == 0)
        return level(value, &o->log) ? NULL : "give none, error or info";
    *known = false;
    return NULL;
}

static bool takes_value(const char *flag)
{
    static const char *const flags[] = { "--listen", "--schedulers", "--spin", "--drain", "--log-level" };
    for (size_t i = 0; i < LIM_COUNT(flags); i++)
        if (strcmp(flag, flags[i]) == 0)
            return true;
    return false;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "[::1]") == 0;
}

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, settings *o)
{
    for (int i = 1; i < argc; i++) {
        char flag[32];
        const char *equals = strchr(argv[i], '='), *value = equals != NULL ? equals + 1 : NULL;
        size_t len = equals != NULL ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        bool known = false;
        snprintf(flag, sizeof flag, "%.*s", (int)(len < sizeof flag ? len : sizeof flag - 1), argv[i]);
        if (takes_value(flag)) {
            if (value == NULL && ++i < argc)
                value = argv[i];
            if (value == NULL)
                return complain(2, "%s: a value is missing; see liminald --help", flag);
            const char *wrong = take(o, flag, value, &known);
            if (wrong != NULL)
                return complain(2, "%s %s: not understood; %s", flag, value, wrong);
            continue;
        }
        if (value == NULL && strcmp(flag, "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (value == NULL && strcmp(flag, "--version") == 0) {
            printf("liminald %s\n", LIM_VERSION);
            return 0;
        }
        if (value == NULL && strcmp(flag, "--spread") == 0)
            o->spread = true;
        else if (value == NULL && strcmp(flag, "--insecure-listen") == 0)
            o->insecure = true;
        else
            return complain(2, "%s: unknown flag; see liminald --help", argv[i]);
    }
    if (!o->insecure && !is_loopback(o->host))
        return complain(2, "--listen %s:%u: refused, other machines could reach it and nothing asks who they are; listen "
                           "on 127.0.0.1, or add --insecure-listen", o->host, o->port);
    return -1;
}

/* ---- the log ---- */

static void on_log(void *ctx, const char *line)
{
    const settings *o = ctx;
    struct timespec now;
    struct tm utc;
    char text[640];
    if (o->log < LOG_INFO)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "ts=%Y-%m-%dT%H:%M:%S", &utc);
    int len = snprintf(text + n, sizeof text - n, ".%03ldZ %s\n", now.tv_nsec / 1000000, line);
    size_t all = n + (size_t)len < sizeof text ? n + (size_t)len : sizeof text - 1;
    text[all - 1] = '\n';
    (void)!write(STDERR_FILENO, text, all); /* one write a line: lines of several threads do not mix */
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
static int drain(lim__server *server, const settings *o, const sigset_t *signals)
{
    const struct timespec step = { 0, 5000000 };
    lim__server_drain(server, o->drain_ms);
    while (!lim__server_drained(server))
        if (sigtimedwait(signals, NULL, &step) > 0)
            return complain(1, "forced to end by a second signal; whoever still waited is told that the connection is lost");
    return lim__server_forced(server) ? complain(1, "ended after %" PRIu32 " ms with work still pending; a larger --drain "
                                                    "waits longer", o->drain_ms)
                                      : 0;
}

static int serve(lim_bus *bus, const settings *o, const sigset_t *signals)
{
    lim__server *server;
    lim_diag diag = { 0 };
    lim__server_opts opts = { .host = o->host, .port = o->port, .spread = o->spread };
    int signal, code;
    if (lim__server_open(bus, &opts, &diag, &server) != LIM_OK) {
        code = complain(1, "%s", diag.text[0] != '\0' ? diag.text : "cannot start: out of memory; free some");
        lim_bus_close(bus);
        return code;
    }
    printf("liminald %s listening on %s:%u\n", LIM_VERSION, o->host, lim__server_port(server));
    fflush(stdout);
    while (sigwait(signals, &signal) != 0)
        continue;
    lim__bus_log(bus, "event=drain signal=%d sessions=%u", signal, lim__server_sessions(server));
    code = drain(server, o, signals);
    lim_bus_close(bus);
    lim__server_close(server);
    return code;
}

int main(int argc, char **argv)
{
    settings o = { .host = "127.0.0.1", .port = PORT, .schedulers = 1, .spin_us = 50, .drain_ms = DRAIN_MS, .log = LOG_INFO };
    sigset_t signals;
    lim_bus *bus;
    int code = parse(argc, argv, &o);
    if (code >= 0)
        return code;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN); /* whoever read our standard output or error may have gone */
    raise_descriptors();
    lim_bus_opts opts = { .size = sizeof opts, .scheduler_count = o.schedulers, .spin_us = o.spin_us, .on_log = on_log,
                          .log_ctx = &o };
    lim_err err = lim_bus_open(&opts, &bus);
    if (err != LIM_OK)
        return complain(1, "cannot start: %s; free memory or descriptors", lim_err_text(err));
    return serve(bus, &o, &signals);
}
