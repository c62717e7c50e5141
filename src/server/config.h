/* SPDX-License-Identifier: Apache-2.0
 * config.h - what liminald is told: a table of keys, and where the value of each comes from.
 *
 *      flags (--spin 20us)  over  LIMINAL_SPIN=20us  over  the file's `spin: 20us`  over  the default
 *
 * LIM__CONFIG_MAP is all there is to know about a key: reading, ranges, flags, environment, --help, --print-config
 * follow from it. A value from anywhere is first read as the YAML scalar that it would be in a file, then by its key's kind, so
 * the same word is right or wrong everywhere. To add a key: a line here, one in examples/liminald.yaml, a paragraph in
 * man/liminald.8.scd, and its use in main.c. */
#ifndef LIM__CONFIG_H
#define LIM__CONFIG_H

#include "base/base.h"
#include "base/buf.h"
#include "data/data.h"

/* X(name, path, kind, least, most, default, argument, text). The value is a number: of threads, microseconds (MICROS),
 * milliseconds (MILLIS), bytes; 0 or 1 (SWITCH); which of the argument's words (CHOICE); an ADDRESS and a DIRECTORY are
 * texts, as is a NAME. */
#define LIM__CONFIG_MAP(X)                                                                                             \
    X(LISTEN, "listen", ADDRESS, 0, 0, "127.0.0.1:4777", "ADDR:PORT", "where; port 0: any, printed")                   \
    X(INSECURE_LISTEN, "insecure_listen", SWITCH, 0, 1, "false", "",                                                   \
      "allow an address that other machines can reach: there is no authentication")                                    \
    X(SCHEDULERS, "schedulers", NUMBER, 1, 63, "1", "N", "threads that run connections and processes")                 \
    X(SPIN, "spin", MICROS, 0, 1000, "50us", "D", "how long a thread polls before it sleeps; 0: never")                \
    X(SPREAD, "spread", SWITCH, 0, 1, "false", "", "put connections on the threads in turn, not together")             \
    X(PAYLOAD_MAX, "payload_max", BYTES, 1 << 10, 1 << 28, "1MiB", "SIZE", "a larger payload is refused")              \
    X(PING, "ping", MILLIS, 10, 3600000, "2s", "D", "how often a client with something at stake is asked if it lives") \
    X(DRAIN, "drain", MILLIS, 0, 3600000, "5s", "D", "how long SIGTERM waits for what is pending")                     \
    X(DATA, "data", DIRECTORY, 0, 0, "auto", "DIR",                                                                    \
      "where durable things are kept; auto: the state directory of the system; none: nothing is kept")                 \
    X(DATA_MAX, "data_max", BYTES, 0, UINT64_C(1) << 50, "0", "SIZE", "how much of them; 0: what the disk has")        \
    X(SYNC, "sync", CHOICE, 0, 0, "always", "always|interval|never",                                                   \
      "when what is written is on stable storage, unless a channel says otherwise")                                    \
    X(SYNC_INTERVAL, "sync_interval", MILLIS, 1, 60000, "1s", "D", "how often, with sync: interval")                   \
    X(ROUTING_NATIVE, "routing.native", SWITCH, 0, 1, "false", "",                                                     \
      "take native routing functions, which run in processes that can only compute")                                   \
    X(NODE, "node", NAME, 0, 0, "auto", "NAME",                                                                   \
      "what routing functions see as the place of workers that say none; auto: the host's name")                       \
    X(LOG_LEVEL, "log.level", CHOICE, 0, 0, "info", "none|error|info", "what goes to standard error")

typedef enum lim__config_key {
#define X(name, ...) LIM__CONFIG_##name,
    LIM__CONFIG_MAP(X)
#undef X
        LIM__CONFIG_KEYS
} lim__config_key;

typedef enum lim__config_kind {
    LIM__CONFIG_ADDRESS = 1,
    LIM__CONFIG_DIRECTORY,
    LIM__CONFIG_NAME,
    LIM__CONFIG_NUMBER,
    LIM__CONFIG_MICROS,
    LIM__CONFIG_MILLIS,
    LIM__CONFIG_BYTES,
    LIM__CONFIG_SWITCH,
    LIM__CONFIG_CHOICE
} lim__config_kind;

enum { LIM__CONFIG_HOST_MAX = 63, LIM__CONFIG_ADDRESS_MAX = 79, LIM__CONFIG_TEXT_MAX = 1023 };

typedef enum lim__config_origin { /* the larger one wins */
    LIM__CONFIG_DEFAULT = 1,
    LIM__CONFIG_FILE,
    LIM__CONFIG_ENVIRONMENT,
    LIM__CONFIG_FLAG
} lim__config_origin;

typedef struct lim__config_value {
    uint64_t n;
    char text[LIM__CONFIG_TEXT_MAX + 1]; /* of an ADDRESS, a DIRECTORY or a NAME */
    lim__config_origin origin;
    int line, column; /* of a FILE's */
} lim__config_value;

typedef struct lim__config { /* zeroed or init'ed; owns its faults */
    lim__config_value values[LIM__CONFIG_KEYS];
    char host[LIM__CONFIG_HOST_MAX + 1]; /* of `listen`, set by lim__config_finish */
    uint16_t port;
    const char *path; /* VIEW: of the file; NULL: none */
    struct lim__config_fault *faults;
    size_t fault_count, fault_cap;
    lim__doc *word; /* for reading single words */
    bool no_memory;
} lim__config;

typedef enum lim__config_next { /* what a program does next */
    LIM__CONFIG_RUN = 1,        /* go on with these values */
    LIM__CONFIG_SHOW,           /* print `out` on standard output, exit 0 */
    LIM__CONFIG_REFUSE          /* print `out` on standard error, exit 2 */
} lim__config_next;

/* Everything: the command line, the file it names, the environment, the defaults. `config` is zeroed memory; argv stays
 * in use until lim__config_fini. Every fault that is found is a line in `out`, in the order of the places. */
lim__config_next lim__config_load(lim__config *config, int argc, char *const *argv, char *const *env, lim__buf *out);
void lim__config_fini(lim__config *config); /* zeroed: a no-op */

static inline uint32_t lim__config_get(const lim__config *config, lim__config_key key)
{
    LIM_ASSERT(config->values[key].n <= UINT32_MAX); /* but for DATA_MAX all are */
    return (uint32_t)config->values[key].n;
}

/* ---- its steps, for tests ---- any order, then finish; faults are kept until they are printed */
void lim__config_init(lim__config *config); /* the defaults */
void lim__config_text(lim__config *config, const char *path, lim_bytes yaml);
void lim__config_environment(lim__config *config, char *const *env);
void lim__config_finish(lim__config *config); /* rules between keys; sorts the faults */
void lim__config_faults(const lim__config *config, lim__buf *out); /* "liminald: PLACE: WHAT: WHY; WHAT TO DO" each */
/* The values in effect as YAML that can be fed back, each with its origin as a comment. */
void lim__config_print(const lim__config *config, lim__buf *out);

/* ---- one value (config_value.c) ---- */
typedef struct lim__config_entry {
    const char *path;
    lim__config_kind kind;
    uint64_t least, most;
    const char *otherwise, *argument, *text;
} lim__config_entry;
extern const lim__config_entry lim__config_table[LIM__CONFIG_KEYS];

/* Fills n or text in. False: why holds "VALUE WHY; give ALLOWED". */
bool lim__config_read(const lim__config_entry *key, lim__val from, lim__config_value *out, char *why, size_t size);
void lim__config_write(const lim__config_entry *key, const lim__config_value *value, lim__buf *out); /* as in a file */
/* A checked `listen` in two. False: it is no address. */
bool lim__config_address(const char *text, char host[LIM__CONFIG_HOST_MAX + 1], uint16_t *port);
bool lim__config_is_loopback(const char *host);

/* ---- names (config_name.c) ---- */
typedef enum lim__config_spelling {
    LIM__CONFIG_AS_PATH = 1, /* log.level */
    LIM__CONFIG_AS_FLAG,     /* --log-level */
    LIM__CONFIG_AS_VARIABLE  /* LIMINAL_LOG_LEVEL */
} lim__config_spelling;
enum { LIM__CONFIG_NAME_MAX = 63 };
const char *lim__config_name(lim__config_key key, lim__config_spelling as, char out[LIM__CONFIG_NAME_MAX + 1]);
bool lim__config_find(lim_bytes name, lim__config_spelling as, lim__config_key *out);
/* The known name at the least edit distance, in `out`, which it answers; of flags, also those that are no keys. */
const char *lim__config_nearest(lim_bytes name, lim__config_spelling as, char out[LIM__CONFIG_NAME_MAX + 1]);
bool lim__config_is_group(const char *path); /* log, as there is log.level */

#endif
