/* SPDX-License-Identifier: Apache-2.0
 * config_test.c - what liminald makes of flags, variables and files: good ones, wrong ones, and rubbish. */
#include "base/rng.h"
#include "os/os.h"
#include "server/config.h"
#include "server/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#define ARGV(...) ((char *[]){ (char *)"liminald", __VA_ARGS__, NULL })
#define ENV(...)  ((char *[]){ __VA_ARGS__, NULL })
#define W(text)   ((char *)(uintptr_t)(text))

typedef struct run {
    lim__config config;
    lim__config_next next;
    lim__buf out;
    char path[32]; /* of the file; empty: none */
} run;

static int argc_of(char *const *argv)
{
    int n = 0;
    while (argv[n] != NULL)
        n++;
    return n;
}

static const char *said(run *r)
{
    lim__buf_add(&r->out, "", 1);
    r->out.end--;
    return (const char *)lim__buf_bytes(&r->out).ptr;
}

/* Everything as the program does it; the file is made of `yaml` (NULL: none) and is named by --config. */
static void load(run *r, const char *yaml, char *const *argv, char *const *env)
{
    char *all[24] = { W("liminald") };
    int n = argc_of(argv);
    *r = (run){ 0 };
    for (int i = 1; i < n; i++)
        all[i] = argv[i];
    if (yaml != NULL) {
        snprintf(r->path, sizeof r->path, "/tmp/config-XXXXXX");
        int fd = mkstemp(r->path);
        assert_true(fd >= 0 && write(fd, yaml, strlen(yaml)) == (ssize_t)strlen(yaml) && close(fd) == 0);
        all[n++] = W("--config");
        all[n++] = r->path;
    }
    r->next = lim__config_load(&r->config, n, all, env, &r->out);
}

static void end(run *r)
{
    if (r->path[0] != '\0')
        unlink(r->path);
    lim__config_fini(&r->config);
    lim__buf_fini(&r->out);
}

static uint32_t effective(const char *yaml, char *const *argv, char *const *env, lim__config_key key)
{
    run r;
    load(&r, yaml, argv, env);
    if (r.next != LIM__CONFIG_RUN)
        fail_msg("refused: %s", said(&r));
    uint32_t n = lim__config_get(&r.config, key);
    end(&r);
    return n;
}

/* The text alone, without the environment; what was wrong with it, one line each. */
static char *faults_of_bytes(lim_bytes yaml)
{
    lim__config c;
    lim__buf out = { 0 };
    lim__config_init(&c);
    lim__config_text(&c, "f", yaml);
    lim__config_finish(&c);
    assert_false(c.no_memory);
    lim__config_faults(&c, &out);
    lim__config_fini(&c);
    lim__buf_add(&out, "", 1);
    assert_false(out.failed);
    return (char *)out.ptr;
}

static void expect(const char *yaml, const char *faults)
{
    char *seen = faults_of_bytes(lim__str(yaml));
    assert_string_equal(seen, faults);
    free(seen);
}

/* One fault, which begins with `start` after "liminald: f:" and holds `part`. */
static void expect_one(const char *yaml, const char *start, const char *part)
{
    char *seen = faults_of_bytes(lim__str(yaml)), whole[80];
    snprintf(whole, sizeof whole, "liminald: f:%s", start);
    if (strncmp(seen, whole, strlen(whole)) != 0 || strstr(seen, part) == NULL ||
        strchr(seen, '\n') != strrchr(seen, '\n'))
        fail_msg("of <%s>: expected %s...%s, saw: %s", yaml, whole, part, seen);
    if (strstr(seen, "; ") == NULL)
        fail_msg("does not say what to do: %s", seen);
    free(seen);
}

static size_t below(lim__rng *rng, size_t n)
{
    return (size_t)lim__rng_below(rng, n);
}

/* ---- precedence ---- */

static void test_a_flag_wins_over_a_variable_over_the_file_over_the_default(void **state) /* proves SV2 */
{
    (void)state;
    const char *file = "schedulers: 3\n";
    char *const *no_env = ENV(NULL), *const *env = ENV(W("LIMINAL_SCHEDULERS=4"));
    assert_int_equal(effective(NULL, ARGV(NULL), no_env, LIM__CONFIG_SCHEDULERS), 1);
    assert_int_equal(effective(file, ARGV(NULL), no_env, LIM__CONFIG_SCHEDULERS), 3);
    assert_int_equal(effective(NULL, ARGV(NULL), env, LIM__CONFIG_SCHEDULERS), 4);
    assert_int_equal(effective(file, ARGV(NULL), env, LIM__CONFIG_SCHEDULERS), 4);
    assert_int_equal(effective(file, ARGV(W("--schedulers"), W("5")), env, LIM__CONFIG_SCHEDULERS), 5);
    assert_int_equal(effective(file, ARGV(W("--schedulers=5")), no_env, LIM__CONFIG_SCHEDULERS), 5);
    assert_int_equal(effective(file, ARGV(W("--schedulers=5"), W("--schedulers=6")), env, LIM__CONFIG_SCHEDULERS), 6);
}

static void test_each_place_sets_every_key(void **state)
{
    (void)state;
    run r;
    load(&r,
         "listen: 127.0.0.2:5\ninsecure_listen: true\nschedulers: 63\nspin: 1ms\nspread: true\npayload_max: "
         "2048\nping: 1m\n"
         "drain: 1500ms\ndata: /srv/x y\ndata_max: 20GiB\nsync: never\nsync_interval: 5ms\nrouting:\n  native: true\n"
         "node: east-1\nlog:\n  level: error\n",
         ARGV(NULL), ENV(NULL));
    static const uint64_t wanted[] = { 0, 1, 63, 1000, 1, 2048, 60000, 1500, 0, UINT64_C(20) << 30, 2, 5, 1, 0, 1 };
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        assert_int_equal(r.config.values[i].origin, LIM__CONFIG_FILE);
        assert_int_equal(r.config.values[i].n, wanted[i]);
    }
    assert_string_equal(r.config.values[LIM__CONFIG_DATA].text, "/srv/x y");
    assert_string_equal(r.config.values[LIM__CONFIG_NODE].text, "east-1");
    assert_string_equal(r.config.host, "127.0.0.2");
    assert_int_equal(r.config.port, 5);
    end(&r);
    load(&r, NULL, ARGV(W("--listen"), W("[::1]:0"), W("--insecure-listen"), W("--spread"), W("--log-level=none")),
         ENV(W("LIMINAL_SPIN=0"), W("LIMINAL_PAYLOAD_MAX=64KiB"), W("LIMINAL_PING=10ms"), W("LIMINAL_DRAIN=0"),
             W("LIMINAL_SPREAD=false"), W("LIMINAL_SCHEDULERS=0x2")));
    static const uint64_t words[] = { 0, 1, 2, 0, 1, 65536, 10, 0, 0, 0, 0, 1000, 0, 0, 0 };
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++)
        assert_int_equal(r.config.values[i].n, words[i]);
    assert_string_equal(r.config.host, "[::1]");
    assert_int_equal(r.config.port, 0);
    end(&r);
    assert_int_equal(effective("spread: true", ARGV(W("--spread=false")), ENV(NULL), LIM__CONFIG_SPREAD), 0);
}

static void test_variables_obey_the_rules_of_the_file(void **state) /* proves SV2 */
{
    (void)state;
    run r;
    load(&r, NULL, ARGV(NULL),
         ENV(W("LIMINAL_SCHEDULERS=64"), W("LIMINAL_SPREAD=yes"), W("LIMINAL_DRIAN=5s"), W("OTHER=1"),
             W("LIMINAL_PING=5"), W("LIMINAL_LISTEN="), W("LIMINAL_SPIN=99999999999999999999")));
    assert_int_equal(r.next, LIM__CONFIG_REFUSE);
    assert_string_equal(
        said(&r),
        "liminald: LIMINAL_SCHEDULERS: 64 is out of range; give a whole number from 1 to 63\n"
        "liminald: LIMINAL_SPREAD: 'yes' is text; give true or false\n"
        "liminald: LIMINAL_DRIAN: unknown variable; unset it, or write the nearest known one, LIMINAL_DRAIN\n"
        "liminald: LIMINAL_PING: 5 has no unit: us, ms, s, m or h; give a duration from 10ms to 1h, such as 2s\n"
        "liminald: LIMINAL_LISTEN: there is no value; give ADDR:PORT, a numeric address or localhost, such as "
        "127.0.0.1:4777 or [::1]:4777\n"
        "liminald: LIMINAL_SPIN: 99999999999999999999: a whole number outside of 64 bits; write a smaller one\n");
    end(&r);
}

static void test_variables_of_other_programs_are_left_alone(void **state)
{
    (void)state;
    char *const *env =
        ENV(W("LIMINAL_SERVER=nonsense"), W("LIMINAL_TYPE=t"), W("LIMINAL_ATTEMPT=1"), W("LIMINALD=/bin/x"),
            W("LIMINAL_PORT=tcp://10.0.0.1:4777"), W("LIMINAL_PORT_4777_TCP_ADDR=10.0.0.1"),
            W("LIMINAL_SERVICE_HOST=10.0.0.1"), W("LIMINAL_SPIN"), W("LIMINAL=1"));
    assert_int_equal(effective(NULL, ARGV(NULL), env, LIM__CONFIG_SPIN), 50);
}

/* ---- flags ---- */

static void refused(char *const *argv, const char *faults)
{
    run r;
    load(&r, NULL, argv, ENV(NULL));
    assert_int_equal(r.next, LIM__CONFIG_REFUSE);
    assert_string_equal(said(&r), faults);
    end(&r);
}

static void test_a_wrong_flag_is_one_line(void **state)
{
    (void)state;
    refused(ARGV(W("--nonsense"), W("x")),
            "liminald: --nonsense: unknown flag; the nearest known one is --node, liminald --help shows all\n");
    refused(ARGV(W("--confg=x")),
            "liminald: --confg: unknown flag; the nearest known one is --config, liminald --help shows all\n");
    refused(
        ARGV(W("--payload_max=1MiB")),
        "liminald: --payload_max: unknown flag; the nearest known one is --payload-max, liminald --help shows all\n");
    refused(ARGV(W("--schedulers")), "liminald: --schedulers: its value is missing; see liminald --help\n");
    refused(ARGV(W("--config"), W("--spread")), "liminald: --config: its value is missing; see liminald --help\n");
    refused(ARGV(W("--check-config=x")), "liminald: --check-config: it takes no value; leave that out\n");
    refused(ARGV(W("file.yaml")), "liminald: file.yaml: not a flag; see liminald --help\n");
    refused(ARGV(W("--log-level"), W("debug")),
            "liminald: --log-level: 'debug' is no such choice; give none, error or info\n");
    refused(ARGV(W("--spin=.inf")), "liminald: --spin: .inf: not a number to count with; write a finite one\n");
    refused(ARGV(W("--config=/no/such/file")),
            "liminald: /no/such/file: cannot be read: No such file or directory; check --config\n");
}

static void test_an_open_door_must_be_asked_for(void **state)
{
    (void)state;
    run r;
    static const char why[] =
        "is refused, other machines could reach it and nothing asks who they are; listen on 127.0.0.1, or add";
    char wanted[300];
    snprintf(wanted, sizeof wanted, "liminald: --listen: 0.0.0.0:1 %s --insecure-listen\n", why);
    refused(ARGV(W("--listen"), W("0.0.0.0:1")), wanted);
    expect_one("\nlisten: \"[::]:1\"", "2:9: listen: [::]:1 is refused", "insecure_listen: true");
    load(&r, "listen: 0.0.0.0\n", ARGV(NULL), ENV(W("LIMINAL_INSECURE_LISTEN=true")));
    assert_int_equal(r.next, LIM__CONFIG_RUN);
    assert_int_equal(r.config.port, 4777);
    end(&r);
}

static void test_help_names_every_flag_and_version_is_short(void **state)
{
    (void)state;
    run r;
    char name[LIM__CONFIG_NAME_MAX + 1];
    load(&r, NULL, ARGV(W("--help")), ENV(W("LIMINAL_SPIN=wrong")));
    assert_int_equal(r.next, LIM__CONFIG_SHOW);
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++)
        assert_non_null(strstr(said(&r), lim__config_name((lim__config_key)i, LIM__CONFIG_AS_FLAG, name)));
    end(&r);
    load(&r, NULL, ARGV(W("--version")), ENV(NULL));
    assert_string_equal(said(&r), "liminald " LIM_VERSION "\n");
    end(&r);
}

static void test_check_config_says_yes_or_everything_that_is_wrong(void **state) /* proves SV2 */
{
    (void)state;
    run r;
    load(&r, "spin: 20us\n", ARGV(W("--check-config")), ENV(NULL));
    assert_int_equal(r.next, LIM__CONFIG_SHOW);
    assert_string_equal(said(&r), "the configuration is valid\n");
    end(&r);
    load(&r, "spin: 2h\nshedulers: 2\n", ARGV(W("--check-config"), W("--ping=0")), ENV(W("LIMINAL_DRAIN=x")));
    assert_int_equal(r.next, LIM__CONFIG_REFUSE);
    char wanted[700];
    snprintf(wanted, sizeof wanted,
             "liminald: %s:1:7: spin: '2h' is out of range; give a duration from 0us to 1ms, such as 50us\n"
             "liminald: %s:2:1: shedulers: unknown key; the nearest known one is schedulers\n"
             "liminald: LIMINAL_DRAIN: 'x' is not a duration; give a duration from 0ms to 1h, such as 5s\n"
             "liminald: --ping: 0 is out of range; give a duration from 10ms to 1h, such as 2s\n",
             r.path, r.path);
    assert_string_equal(said(&r), wanted);
    end(&r);
}

/* ---- the file: values ---- */

static void test_scalars_mean_what_the_core_schema_says(void **state) /* proves SV2 */
{
    (void)state;
    expect("", "");
    expect("# nothing\n", "");
    expect("---\n", "");
    expect("%YAML 1.2\n---\nspread: True\nspin: 0x0\nschedulers: +0o17\n",
           "liminald: f:5:13: schedulers: '+0o17' is text; give a whole number from 1 to 63\n");
    expect("\xEF\xBB\xBFspread: TRUE\r\nschedulers: 0o17\r\npayload_max: 0x400\r\nlog:\r\n", "");
    expect("{schedulers: +7, \"spread\": FALSE, spin: 0us, log: {level: 'none'}}", "");
    expect_one("spread: no", "1:9: spread: 'no' is text", "give true or false");
    expect_one("spread: 'true'", "1:9: spread: 'true' is text", "");
    expect_one("spread: ~", "1:9: spread: there is no value", "");
    expect_one("spread:\nspin: 1us", "1:8: spread: there is no value", "");
    expect_one("spread: 1", "1:9: spread: 1 is a whole number", "");
    expect_one("schedulers: 1.5", "1:13: schedulers: 1.5 is a fraction", "1 to 63");
    expect_one("schedulers: -1", "1:13: schedulers: -1 is out of range", "1 to 63");
    expect_one("schedulers: \"2\"", "1:13: schedulers: '2' is text", "1 to 63");
    expect_one("schedulers: 18446744073709551615", "1:13: schedulers: 18446744073709551615 is out of range", "");
    expect_one("schedulers: 18446744073709551616", "1:13: 18446744073709551616: a whole number outside", "");
    expect_one("schedulers: 1e999", "1:13: 1e999: a number that is too large", "");
    expect_one("schedulers: -.INF", "1:13: -.INF: not a number to count with", "");
    expect_one("schedulers: .nan", "1:13: .nan: not a number to count with", "");
    expect_one("schedulers: [1]", "1:13: schedulers: this is a list", "");
    expect_one("schedulers: {a: 1}", "1:13: schedulers: this is a group of keys", "");
    expect_one("schedulers: true", "1:13: schedulers: true is true or false", "");
}

static void test_durations_sizes_and_addresses_are_checked(void **state)
{
    (void)state;
    expect("spin: 1000us\npayload_max: 256MiB\nping: 1h\ndrain: 3600s\nlisten: 127.1.2.3:65535", "");
    expect_one("spin: 1001us", "1:7: spin: '1001us' is out of range", "0us to 1ms");
    expect_one("spin: 99999999999999999999h", "1:7: spin: '99999999999999999999h' is out of range", "0us to 1ms");
    expect_one("spin: 5 us", "1:7: spin: '5 us' is not a duration", "such as 50us");
    expect_one("spin: us", "1:7: spin: 'us' is not a duration", "");
    expect_one("drain: 1500us", "1:8: drain: '1500us' is not a whole number of milliseconds", "");
    expect_one("drain: -1s", "1:8: drain: '-1s' is not a duration", "");
    expect_one("payload_max: 1023", "1:14: payload_max: 1023 is out of range", "1KiB to 256MiB");
    expect_one("payload_max: 1GiB", "1:14: payload_max: '1GiB' is out of range", "");
    expect_one("payload_max: 1MB", "1:14: payload_max: '1MB' is not a size", "");
    static const char *const addresses[] = { "4777x",
                                             "example.com:1",
                                             "127.0.0.1:65536",
                                             "'127.0.0.1:'",
                                             ":1",
                                             "127.0.0:1",
                                             "127.0.0.01:1",
                                             "127.0.0.256:1",
                                             "127.0.0.1.1",
                                             "'::1'",
                                             "'[::1'",
                                             "'[]:1'",
                                             "\"127.0.0.1\\0\"",
                                             "'[::1]x'",
                                             "'[g::]:1'",
                                             "127.0.0.1:1:1",
                                             "''" };
    for (size_t i = 0; i < LIM_COUNT(addresses); i++) {
        char yaml[80];
        snprintf(yaml, sizeof yaml, "listen: %s", addresses[i]);
        expect_one(yaml, "1:9: listen: '", "is not an address; give ADDR:PORT");
    }
    expect_one("listen: 4777", "1:9: listen: 4777 is a whole number", "ADDR:PORT");
}

/* ---- the file: faults ---- */

static void test_an_unknown_key_is_answered_with_the_nearest(void **state) /* proves SV2 */
{
    (void)state;
    expect("\nshedulers: 2\n", "liminald: f:2:1: shedulers: unknown key; the nearest known one is schedulers\n");
    expect_one("log:\n  levle: info", "2:3: log.levle: unknown key", "nearest known one is log.level");
    expect_one("payloadmax: {a: [1, {b: 2}], c: 3}", "1:1: payloadmax: unknown key", "payload_max");
    expect_one("LISTEN: x", "1:1: LISTEN: unknown key", "");
    expect_one("'': x", "1:1: : unknown key", "");
    expect_one("\"a\\nb\\x01\": x", "1:1: a?b?: unknown key", "");
    expect_one("log.level: info", "1:1: log.level: a key in a file has no dot",
               "write log: and below it, indented, level:");
    expect_one("log: info", "1:6: log: this is a group of keys", "");
    expect_one("log: [info]", "1:6: log: this is a group of keys", "");
    expect_one("- listen", "1:1: the file holds no keys", "");
    expect_one("listen", "1:1: the file holds no keys", "");
    expect_one("[{a: 1}, b]", "1:1: the file holds no keys", "");
}

static void test_what_changes_the_meaning_of_a_text_is_refused(void **state) /* proves SV2 */
{
    (void)state;
    expect_one("spin: 1us\nping: 2s\nspin: 99h", "3:1: spin: the key stands here a second time, first on line 1", "");
    expect_one("'spin': 1us\n\"spin\": 1us", "2:1: spin: the key stands here a second time", "");
    expect_one("log: {level: info, level: nonsense}", "1:20: level: the key stands here a second time", "");
    expect("a: 1\na: 1\na: 1\n",
           "liminald: f:1:1: a: unknown key; the nearest known one is data\n"
           "liminald: f:2:1: a: the key stands here a second time, first on line 1; keep one of them\n"
           "liminald: f:3:1: a: the key stands here a second time, first on line 1; keep one of them\n");
    expect_one("spin: &a 1us", "1:7: &a: an anchor", "");
    expect_one("log: &l\n  level: info", "1:6: &l: an anchor", "");
    expect_one("spin: *a", "1:7: *a: an alias", "");
    expect_one("*a : 1", "1:1: a key that is not a word", "");
    expect_one("[1]: 1", "1:1: a key that is not a word", "");
    expect_one("\"a\\0\": 1", "1:1: a key with a NUL", "");
    expect_one("schedulers: !!int 2", "1:13: tag:yaml.org,2002:int: a tag", "");
    expect_one("schedulers: ! 2", "1:13: !: a tag", "");
    expect_one("# \xC3\xA4\xE2\x82\xAC\nspin: ! '1us'", "2:7: !: a tag", "");
    expect_one("!x spin: 1us", "1:1: !x: a tag", "");
    expect_one("log: !m {level: info}", "1:6: !m: a tag", "");
    expect_one("!m {spin: 1us}", "1:1: !m: a tag", "");
    expect_one("%TAG ! tag:x,2000:\n---\nspin: 1us", "1:1: %TAG", "");
    expect_one("%YAML 1.1\n---\nspin: 1us", "1:1: %YAML 1.1", "write %YAML 1.2");
    expect_one("spin: 1us\n---\nspin: 1us", "2:1: a second document", "");
    expect_one("<<: {spin: 1us}", "1:1: <<: unknown key", "");
}

static void test_what_is_not_yaml_has_a_line_and_column(void **state)
{
    (void)state;
    expect_one("spin: [1\n", "2:1: not YAML: ", "while parsing a flow sequence");
    expect_one("spin: 1us: 2us\n", "1:10: not YAML: ", "");
    expect_one("spin: 1us\n\tping: 2s\n", "2:1: not YAML: ", "");
    expect_one("spin: \"1us\n", "2:1: not YAML: ", "");
    expect_one("log:\n  level: info\n ping: 1s\n", "3:2: not YAML: ", "");
    expect_one("\xC3\xA4: \xFF", "1:4: not YAML: ", "UTF-8");
    expect_one("spin: \x01", "1:7: not YAML: control characters", "");
    char *deep = calloc(1, 400);
    memset(deep, '[', 200);
    expect_one(deep, "1:33: nested more than 32 deep", "");
    free(deep);
}

static void test_a_file_over_the_limit_is_refused(void **state)
{
    (void)state;
    size_t len = LIM__YAML_BYTES_MAX + 1;
    char *big = malloc(len);
    memset(big, '#', len);
    char *seen = faults_of_bytes(lim__bytes(big, len));
    assert_string_equal(seen, "liminald: f:1:1: larger than 1 MiB; a configuration is far smaller\n");
    free(seen);
    seen = faults_of_bytes(lim__bytes(big, len - 1));
    assert_string_equal(seen, "");
    free(seen);
    free(big);
}

/* Many keys cost no more than their number times a logarithm: this would take minutes otherwise. */
static void test_a_mapping_of_many_keys_is_read_in_time(void **state)
{
    (void)state;
    lim__buf yaml = { 0 };
    for (int i = 0; i < 100000; i++)
        lim__buf_format(&yaml, "a%x: 1\n", i);
    lim__buf_text(&yaml, "a0: 1\n");
    char *seen = faults_of_bytes(lim__buf_bytes(&yaml));
    assert_non_null(strstr(seen, "f:100001:1: a0: the key stands here a second time, first on line 1;"));
    free(seen);
    lim__buf_fini(&yaml);
}

/* ---- printing ---- */

static void test_print_config_shows_where_each_value_comes_from(void **state) /* proves SV2 */
{
    (void)state;
    run r;
    char wanted[1000];
    load(&r, "# mine\nspin: 100us\nschedulers: 2\nlog:\n  level: none\n",
         ARGV(W("--print-config"), W("--drain=2500ms"), W("--spread")), ENV(W("LIMINAL_PAYLOAD_MAX=2097152")));
    assert_int_equal(r.next, LIM__CONFIG_SHOW);
    snprintf(wanted, sizeof wanted,
             "# liminald " LIM_VERSION ": the configuration in effect, each value with its origin\n"
             "# file: %s\n"
             "listen: 127.0.0.1:4777  # default\n"
             "insecure_listen: false  # default\n"
             "schedulers: 2  # file:3\n"
             "spin: 100us  # file:2\n"
             "spread: true  # --spread\n"
             "payload_max: 2MiB  # LIMINAL_PAYLOAD_MAX\n"
             "ping: 2s  # default\n"
             "drain: 2500ms  # --drain\n"
             "data: auto  # default\n"
             "data_max: 0  # default\n"
             "sync: always  # default\n"
             "sync_interval: 1s  # default\n"
             "routing:\n"
             "  native: false  # default\n"
             "node: auto  # default\n"
             "log:\n"
             "  level: none  # file:5\n",
             r.path);
    assert_string_equal(said(&r), wanted);
    end(&r);
}

static void assert_same_values(const lim__config *a, const lim__config *b)
{
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        assert_int_equal(a->values[i].n, b->values[i].n);
        assert_string_equal(a->values[i].text, b->values[i].text);
    }
}

/* Prints, reads what was printed, and finds the same values, all from the file. */
static void there_and_back(const lim__config *c)
{
    lim__config again;
    lim__buf printed = { 0 };
    lim__config_print(c, &printed);
    lim__config_init(&again);
    lim__config_text(&again, "again", lim__buf_bytes(&printed));
    lim__config_finish(&again);
    assert_int_equal(again.fault_count, 0);
    assert_same_values(c, &again);
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++)
        assert_int_equal(again.values[i].origin, LIM__CONFIG_FILE);
    lim__buf_fini(&printed);
    lim__config_fini(&again);
}

static void test_what_print_config_prints_can_be_fed_back(void **state) /* proves SV2 */
{
    (void)state;
    static const char *const hosts[] = { "127.0.0.1:0", "localhost", "localhost:1", "127.9.9.9", "[::1]:7", "[::1]" };
    static const char *const directories[] = { "auto",  "none", "/a/b", "x: y", "- z",
                                               "\"q\"", "'",    "true", "#",    "\xc3\xa4" };
    lim__rng rng = lim__rng_seeded(7);
    for (int round = 0; round < 2000; round++) {
        lim__config c;
        lim__config_init(&c);
        for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
            const lim__config_entry *key = &lim__config_table[i];
            uint64_t span = (uint64_t)(key->kind == LIM__CONFIG_CHOICE ? 2 : key->most) - key->least + 1;
            bool is_text = key->kind <= LIM__CONFIG_NAME;
            c.values[i].n = is_text ? 0 : key->least + below(&rng, span);
        }
        strcpy(c.values[LIM__CONFIG_LISTEN].text, hosts[round % LIM_COUNT(hosts)]);
        strcpy(c.values[LIM__CONFIG_DATA].text, directories[round % LIM_COUNT(directories)]);
        strcpy(c.values[LIM__CONFIG_NODE].text, directories[(round + 1) % LIM_COUNT(directories)]);
        lim__config_finish(&c);
        there_and_back(&c);
        lim__config_fini(&c);
    }
}

static void test_the_example_file_names_every_key_with_its_default(void **state)
{
    (void)state;
    const char *source = getenv("LIM_SOURCE");
    char path[4096];
    void *text;
    size_t len;
    lim__config defaults, c;
    if (source == NULL)
        skip();
    snprintf(path, sizeof path, "%s/examples/liminald.yaml", source);
    assert_int_equal(lim__file_read(path, LIM__YAML_BYTES_MAX, &text, &len), 0);
    lim__config_init(&defaults);
    lim__config_init(&c);
    lim__config_text(&c, path, lim__bytes(text, len));
    lim__config_finish(&c);
    assert_int_equal(c.fault_count, 0);
    assert_same_values(&c, &defaults);
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++)
        assert_int_equal(c.values[i].origin, LIM__CONFIG_FILE);
    free(text);
    lim__config_fini(&c);
    lim__config_fini(&defaults);
}

/* ---- rubbish ---- */

/* Whatever it is: faults that are lines of text with a place, or values that can be printed and read again. */
static void survives(lim_bytes yaml)
{
    lim__config c;
    lim__buf out = { 0 };
    lim__config_init(&c);
    lim__config_text(&c, "f", yaml);
    lim__config_finish(&c);
    assert_false(c.no_memory);
    if (c.fault_count == 0)
        there_and_back(&c);
    lim__config_faults(&c, &out);
    size_t lines = 0;
    lim_bytes all = lim__buf_bytes(&out);
    for (size_t i = 0; i < all.len; i++) {
        uint8_t byte = ((const uint8_t *)all.ptr)[i];
        assert_true(byte == '\n' || (byte >= 0x20 && byte != 0x7F));
        lines += byte == '\n';
    }
    assert_int_equal(lines, c.fault_count);
    lim__buf_fini(&out);
    lim__config_fini(&c);
}

static void test_random_bytes_are_refused_or_read_and_nothing_else(void **state)
{
    (void)state;
    lim__rng rng = lim__rng_seeded(11);
    for (int round = 0; round < 4000; round++) {
        uint8_t bytes[300];
        size_t len = below(&rng, sizeof bytes + 1);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)(round % 2 == 0 ? below(&rng, 256) : 0x20 + below(&rng, 0x5F));
        uint8_t *exact = malloc(len + (len == 0)); /* so that a byte read behind it is found */
        memcpy(exact, bytes, len);
        survives(lim__bytes(exact, len));
        free(exact);
    }
}

static void test_random_yaml_is_refused_or_read_and_nothing_else(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "listen", "spin", "log",        "level", "info",  "payload_max", ": ",    ":\n  ",    "\n",           "- ",
        "[",      "]",    "{",          "}",     ", ",    "&a ",         "*a",    "!!str ",   "! ",           "'",
        "\"",     "|\n ", ">\n  ",      "---\n", "...\n", "%YAML 1.1\n", "# x\n", "1us",      "2MiB",         "0x1f",
        "-1",     "1e5",  ".inf",       "~",     "true",  "? ",          "\\0",   "\xC3\xA4", "\xE2\x80\xA8", "\t",
        "\r\n",   "<<",   "127.0.0.1:1"
    };
    lim__rng rng = lim__rng_seeded(13);
    for (int round = 0; round < 6000; round++) {
        lim__buf yaml = { 0 };
        for (size_t n = below(&rng, 30); n > 0; n--)
            lim__buf_text(&yaml, parts[below(&rng, LIM_COUNT(parts))]);
        survives(lim__buf_bytes(&yaml));
        lim__buf_fini(&yaml);
    }
}

static void test_a_good_file_with_a_few_bytes_changed_is_refused_or_read(void **state)
{
    (void)state;
    static const char good[] =
        "# mine\nlisten: 127.0.0.1:4777\nschedulers: 2\nspin: 50us\nspread: true\npayload_max: 64KiB\n"
        "ping: 2s\ndrain: 5s\nlog:\n  level: \"info\"\n";
    lim__rng rng = lim__rng_seeded(17);
    for (int round = 0; round < 4000; round++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        for (size_t n = 1 + below(&rng, 4); n > 0; n--)
            text[below(&rng, sizeof good - 1)] =
                (char)(below(&rng, 2) ? below(&rng, 256) : (size_t)good[below(&rng, sizeof good)]);
        survives(lim__bytes(text, below(&rng, 4) > 0 ? sizeof good - 1 : below(&rng, sizeof good)));
    }
}

static void test_random_words_from_the_environment_are_refused_or_taken(void **state)
{
    (void)state;
    lim__rng rng = lim__rng_seeded(19);
    for (int round = 0; round < 3000; round++) {
        char text[80];
        char name[LIM__CONFIG_NAME_MAX + 1];
        lim__config c;
        int n = snprintf(
            text, sizeof text,
            "%s=", lim__config_name((lim__config_key)below(&rng, LIM__CONFIG_KEYS), LIM__CONFIG_AS_VARIABLE, name));
        for (size_t left = below(&rng, 30); left > 0; left--)
            text[n++] = (char)(1 + (below(&rng, 3) ? '+' + below(&rng, 60) : below(&rng, 255)));
        text[n] = '\0';
        lim__config_init(&c);
        lim__config_environment(&c, ENV(text));
        lim__config_finish(&c);
        assert_in_range(c.fault_count, 0, 1);
        lim__config_fini(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flag_wins_over_a_variable_over_the_file_over_the_default),
        cmocka_unit_test(test_each_place_sets_every_key),
        cmocka_unit_test(test_variables_obey_the_rules_of_the_file),
        cmocka_unit_test(test_variables_of_other_programs_are_left_alone),
        cmocka_unit_test(test_a_wrong_flag_is_one_line),
        cmocka_unit_test(test_an_open_door_must_be_asked_for),
        cmocka_unit_test(test_help_names_every_flag_and_version_is_short),
        cmocka_unit_test(test_check_config_says_yes_or_everything_that_is_wrong),
        cmocka_unit_test(test_scalars_mean_what_the_core_schema_says),
        cmocka_unit_test(test_durations_sizes_and_addresses_are_checked),
        cmocka_unit_test(test_an_unknown_key_is_answered_with_the_nearest),
        cmocka_unit_test(test_what_changes_the_meaning_of_a_text_is_refused),
        cmocka_unit_test(test_what_is_not_yaml_has_a_line_and_column),
        cmocka_unit_test(test_a_file_over_the_limit_is_refused),
        cmocka_unit_test(test_a_mapping_of_many_keys_is_read_in_time),
        cmocka_unit_test(test_print_config_shows_where_each_value_comes_from),
        cmocka_unit_test(test_what_print_config_prints_can_be_fed_back),
        cmocka_unit_test(test_the_example_file_names_every_key_with_its_default),
        cmocka_unit_test(test_random_bytes_are_refused_or_read_and_nothing_else),
        cmocka_unit_test(test_random_yaml_is_refused_or_read_and_nothing_else),
        cmocka_unit_test(test_a_good_file_with_a_few_bytes_changed_is_refused_or_read),
        cmocka_unit_test(test_random_words_from_the_environment_are_refused_or_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
