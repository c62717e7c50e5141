/* SPDX-License-Identifier: Apache-2.0
 * power_test.c - the power fails under a real file system: what was answered is there after the next start.
 *
 *   writer --store--> ext4 --> loop device --> file of a FUSE file system --> `disk`, a process of this test
 *
 * The disk keeps what was written since the last flush apart from what was there at that flush, as a drive with a cache
 * does. At random writes it takes a picture: what was flushed, and of the rest none, all, some writes, or some sectors
 * of some writes. Each picture is then a disk again: mounted (ext4 replays its journal), checked, read by the second
 * reader, opened, and compared with what the writer had been answered at that instant.
 *
 * Needs root, /dev/fuse, loop devices and mkfs.ext4; without them it is skipped, and says what is missing. The
 * simulated disks (sim_store_test) search far more, but simulate the file system as well; here that is the real one.
 *
 * LIM_POWER lives (2), from seed LIM_POWER_SEED (1) on. `./dev torture power` runs many. */
#include "os/os.h"
#include "base/base.h"
#include "base/rng.h"
#include "store/reader.h"
#include "store/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    DISK_BYTES = 24 << 20,
    SECTOR = 512,
    PENDING_MAX = 8192,
    PICTURES = 10,
    COMMITS = 220,
    APART = 30, /* writes between two pictures, on average */
    SEGMENT = 256 << 10,
    STREAM = 1,
    TABLE = 2,
    WRITE_MAX = 128 << 10,
};

typedef enum keeps { NONE = 0, ALL, WRITES, SECTORS, KEEPS } keeps;
static const char *const keeps_names[] = { "nothing", "all", "some writes", "some sectors" };

typedef struct picture {
    uint64_t acked, forgotten, pending;
    keeps keeps;
    uint8_t bytes[DISK_BYTES];
} picture;

typedef struct write_entry {
    uint64_t at;
    uint32_t len;
    uint8_t *bytes;
} write_entry;

typedef struct shared {         /* by disk, writer and test */
    _Atomic uint64_t acked;     /* records whose commit was answered, class DISK */
    _Atomic uint64_t forgotten; /* records before this number may be gone: asked for */
    atomic_bool armed;
    _Atomic uint32_t count; /* pictures */
    _Atomic uint64_t writes, flushes;
    picture pictures[PICTURES];
} shared;

typedef struct world {
    shared *s;
    uint64_t seed;
    char top[64], fuse_dir[80], disk[96], mnt[80];
    int fuse;
    pid_t disk_pid;
} world;

/* ---- the disk ---- */

typedef struct disk {
    shared *s;
    int fuse;
    lim__rng rng;
    uint8_t *now, *flushed;
    uint32_t left; /* writes until the next picture */
    write_entry pending[PENDING_MAX];
    size_t count;
} disk;

static void flush(disk *d)
{
    for (size_t i = 0; i < d->count; i++) {
        memcpy(d->flushed + d->pending[i].at, d->pending[i].bytes, d->pending[i].len);
        free(d->pending[i].bytes);
    }
    d->count = 0;
    atomic_fetch_add(&d->s->flushes, 1);
}

static void keep_some(disk *d, picture *p, const write_entry *w)
{
    bool whole = p->keeps == ALL || (p->keeps == WRITES && lim__rng_below(&d->rng, 2));
    if (whole)
        memcpy(p->bytes + w->at, w->bytes, w->len);
    for (uint32_t at = 0; !whole && p->keeps == SECTORS && at < w->len; at += SECTOR) {
        if (lim__rng_below(&d->rng, 2))
            memcpy(p->bytes + w->at + at, w->bytes + at, w->len - at < SECTOR ? w->len - at : SECTOR);
    }
}

/* What was answered is asked for first: it can only have become more since what is in the picture was flushed. */
static void take_picture(disk *d)
{
    uint32_t n = atomic_load(&d->s->count);
    picture *p = &d->s->pictures[n];
    p->acked = atomic_load(&d->s->acked);
    p->forgotten = UINT64_MAX; /* known later */
    p->keeps = (keeps)lim__rng_below(&d->rng, KEEPS);
    p->pending = d->count;
    memcpy(p->bytes, d->flushed, DISK_BYTES);
    for (size_t i = 0; i < d->count; i++)
        keep_some(d, p, &d->pending[i]);
    p->forgotten = atomic_load(&d->s->forgotten); /* asked for before it was written */
    atomic_store(&d->s->count, n + 1);
}

static int disk_write(disk *d, const struct fuse_write_in *in, const uint8_t *bytes)
{
    if (in->offset + in->size > DISK_BYTES)
        return -ENOSPC;
    if (d->count == PENDING_MAX) /* a cache of this size writes back what it has */
        flush(d);
    write_entry *w = &d->pending[d->count++];
    *w = (write_entry){ in->offset, in->size, malloc(in->size) };
    if (!w->bytes)
        abort();
    memcpy(w->bytes, bytes, in->size);
    memcpy(d->now + in->offset, bytes, in->size);
    atomic_fetch_add(&d->s->writes, 1);
    if (!atomic_load(&d->s->armed) || atomic_load(&d->s->count) == PICTURES || d->left-- > 0)
        return 0;
    take_picture(d);
    d->left = (uint32_t)lim__rng_below(&d->rng, 2 * APART);
    return 0;
}

/* ---- the least of FUSE that has one file, `disk`, of a fixed size ---- */

static void reply(disk *d, const struct fuse_in_header *in, int err, const void *data, size_t len)
{
    static uint8_t out[sizeof(struct fuse_out_header) + WRITE_MAX];
    struct fuse_out_header h = { .len = (uint32_t)(sizeof h + len), .error = err, .unique = in->unique };
    memcpy(out, &h, sizeof h);
    if (len > 0)
        memcpy(out + sizeof h, data, len);
    ssize_t n = write(d->fuse, out, sizeof h + len);
    (void)n; /* whoever asked is gone */
}

static struct fuse_attr attributes(uint64_t node)
{
    bool file = node == 2;
    return (struct fuse_attr){ .ino = node,
                               .size = file ? DISK_BYTES : 0,
                               .blocks = file ? DISK_BYTES / 512 : 0,
                               .mode = file ? S_IFREG | 0600 : S_IFDIR | 0700,
                               .nlink = 1,
                               .blksize = 4096 };
}

static void answer_init(disk *d, const struct fuse_in_header *in, const void *body)
{
    const struct fuse_init_in *i = body;
    struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
                                 .minor = i->minor < FUSE_KERNEL_MINOR_VERSION ? i->minor : FUSE_KERNEL_MINOR_VERSION,
                                 .max_readahead = i->max_readahead,
                                 .flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES,
                                 .max_background = 64,
                                 .congestion_threshold = 48,
                                 .max_write = WRITE_MAX,
                                 .time_gran = 1,
                                 .max_pages = WRITE_MAX / 4096 };
    reply(d, in, 0, &out, sizeof out);
}

static void answer_lookup(disk *d, const struct fuse_in_header *in, const char *name)
{
    struct fuse_entry_out out = { .nodeid = 2, .attr_valid = 60, .entry_valid = 60, .attr = attributes(2) };
    bool found = strcmp(name, "disk") == 0;
    reply(d, in, found ? 0 : -ENOENT, &out, found ? sizeof out : 0);
}

static void answer_read(disk *d, const struct fuse_in_header *in, const struct fuse_read_in *r)
{
    uint64_t left = r->offset < DISK_BYTES ? DISK_BYTES - r->offset : 0;
    reply(d, in, 0, d->now + (left ? r->offset : 0), r->size < left ? r->size : left);
}

/* False: it is unmounted. */
static bool answer(disk *d, const struct fuse_in_header *in, const void *body)
{
    struct fuse_attr_out attr = { .attr_valid = 60, .attr = attributes(in->nodeid) };
    struct fuse_open_out opened = { .fh = 1, .open_flags = in->opcode == FUSE_OPEN ? FOPEN_DIRECT_IO : 0 };
    struct fuse_statfs_out statfs = { .st = { .bsize = 4096, .frsize = 4096 } };
    struct fuse_write_out written = { .size = 0 };
    switch (in->opcode) {
    case FUSE_INIT:
        answer_init(d, in, body);
        return true;
    case FUSE_LOOKUP:
        answer_lookup(d, in, body);
        return true;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        reply(d, in, 0, &attr, sizeof attr);
        return true;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        reply(d, in, 0, &opened, sizeof opened);
        return true;
    case FUSE_READ:
        answer_read(d, in, body);
        return true;
    case FUSE_WRITE: {
        const struct fuse_write_in *w = body;
        int err = disk_write(d, w, (const uint8_t *)(w + 1));
        written.size = err ? 0 : w->size;
        reply(d, in, err, &written, err ? 0 : sizeof written);
        return true;
    }
    case FUSE_FSYNC:
        flush(d);
        reply(d, in, 0, NULL, 0);
        return true;
    case FUSE_FLUSH: /* somebody closed it: no flush of a disk */
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_ACCESS:
        reply(d, in, 0, NULL, 0);
        return true;
    case FUSE_STATFS:
        reply(d, in, 0, &statfs, sizeof statfs);
        return true;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        return true;
    case FUSE_DESTROY:
        reply(d, in, 0, NULL, 0);
        return false;
    default:
        reply(d, in, -ENOSYS, NULL, 0);
        return true;
    }
}

static void run_disk(shared *s, int fuse, uint64_t seed)
{
    static uint8_t request[WRITE_MAX + (64 << 10)];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    disk *d = calloc(1, sizeof *d);
    if (!d)
        _exit(1);
    *d = (disk){ .s = s, .fuse = fuse, .rng = lim__rng_seeded(seed) };
    d->now = calloc(1, DISK_BYTES);
    d->flushed = calloc(1, DISK_BYTES);
    for (bool mounted = d->now && d->flushed; mounted;) {
        ssize_t n = read(fuse, request, sizeof request);
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
            continue;
        mounted = n >= (ssize_t)sizeof(struct fuse_in_header) &&
                  answer(d, (const void *)request, request + sizeof(struct fuse_in_header));
    }
    _exit(0);
}

/* ---- the writer ---- */

/* Record n: its number, and bytes that follow from it. */
static size_t content_of(uint64_t seed, uint64_t n, uint8_t *to)
{
    lim__rng rng = lim__rng_seeded(seed * 1000003 + n);
    size_t len = 8 + (size_t)lim__rng_below(&rng, lim__rng_below(&rng, 12) == 0 ? 20000 : 700);
    for (size_t i = 8; i < len; i++)
        to[i] = (uint8_t)lim__rng_next(&rng);
    memcpy(to, &n, 8);
    return len;
}

static void on_done(void *ctx, lim__batch *b, const lim__committed *what)
{
    world *w = ctx;
    if (what->how == LIM__COMMITTED && what->class == LIM__CLASS_DISK && lim__batch_appends(b) > 0)
        atomic_store(&w->s->acked, lim__batch_seq(b, lim__batch_appends(b) - 1));
    lim__batch_free(b);
}

static int open_in(const char *dir, lim__store **out, char *why, size_t size, bool read_only,
                   void (*on_event)(void *ctx, const char *kind, const char *text), void *ctx)
{
    char path[100];
    lim__store_error error = { "" };
    snprintf(path, sizeof path, "%s/store", dir);
    lim__store_opts opts = { .os = lim__os_linux(),
                             .dir = path,
                             .segment_bytes = SEGMENT,
                             .bytes_max = 20 * (uint64_t)SEGMENT,
                             .index_map_bytes = 4 << 20,
                             .read_only = read_only,
                             .on_event = on_event,
                             .ctx = ctx };
    int err = lim__store_open(&opts, &error, out);
    if (err != 0)
        snprintf(why, size, "it does not open: %.100s", error.text);
    return err;
}

/* One batch: some records, and a row that names the last of them; now and then old ones are forgotten. */
static void write_one(world *w, lim__store *store, lim__rng *rng, uint64_t *next)
{
    static uint8_t data[32 << 10];
    lim__batch *b = lim__batch_new();
    uint64_t count = 1 + lim__rng_below(rng, 3);
    for (uint64_t i = 0; i < count; i++, ++*next) {
        lim_bytes part = lim__bytes(data, content_of(w->seed, *next, data));
        lim__batch_append(b, STREAM, lim__str(*next % 5 ? "" : "k"), &part, 1);
    }
    lim__batch_put_seq(b, TABLE, lim__str("last"), lim__str(""), (uint32_t)count - 1);
    if (lim__rng_below(rng, 9) == 0 && *next > 60) {
        atomic_store(&w->s->forgotten, *next - 50);
        lim__batch_trim(b, STREAM, *next - 50);
    }
    if (lim__store_submit(store, b, on_done, w) != 0)
        _exit(2);
    if (lim__rng_below(rng, 3) != 0) { /* else it waits for the next one: one log write */
        while (lim__store_turn(store, NULL))
            continue;
    }
}

static void run_writer(world *w)
{
    lim__store *store;
    char why[200];
    lim__rng rng = lim__rng_seeded(w->seed ^ 0x5ee1);
    uint64_t next = 1;
    if (open_in(w->mnt, &store, why, sizeof why, false, NULL, NULL) != 0) {
        fprintf(stderr, "writer: %s\n", why);
        _exit(1);
    }
    for (int i = 0; i < COMMITS; i++)
        write_one(w, store, &rng, &next);
    lim__store_close(store);
    _exit(0);
}

/* ---- what is in a picture ---- */

typedef struct seen {
    world *w;
    uint64_t next, count;
    char why[240];
} seen;

__attribute__((format(printf, 2, 3))) static bool wrong(seen *x, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!x->why[0])
        vsnprintf(x->why, sizeof x->why, format, args);
    va_end(args);
    return false;
}

static void on_event(void *ctx, const char *kind, const char *text)
{
    if (strcmp(kind, "quarantined") == 0)
        wrong(ctx, "quarantined: %.180s", text);
}

static void on_finding(void *ctx, const char *line)
{
    wrong(ctx, "check: %.180s", line);
}

static void on_odd(void *ctx, const char *line)
{
    wrong(ctx, "second reader: %.180s", line);
}

static bool right_content(seen *x, uint64_t seq, lim_bytes data)
{
    static uint8_t expected[32 << 10];
    size_t len = content_of(x->w->seed, seq, expected);
    if (x->next != 0 && seq != x->next)
        return wrong(x, "record %llu is missing", (unsigned long long)x->next);
    x->next = seq + 1;
    x->count++;
    return lim__bytes_eq(data, lim__bytes(expected, len)) ||
           wrong(x, "record %llu is not what was written", (unsigned long long)seq);
}

static bool on_record(void *ctx, const lim__record *r)
{
    return right_content(ctx, r->seq, r->data);
}

static bool on_second(void *ctx, const lim__reader_record *r)
{
    return r->lost ? wrong(ctx, "the second reader has lost a record") : right_content(ctx, r->seq, r->data);
}

static void look_with_second(seen *x, const char *dir)
{
    lim__reader *r = NULL;
    int err = lim__reader_open(lim__os_linux(), dir, NULL, on_odd, x, &r);
    if (err == -ENOENT)
        return;
    if (err != 0)
        wrong(x, "the second reader fails: %d", err);
    else
        lim__reader_records(r, on_second, x);
    lim__reader_close(r);
}

/* Of the row that names the last record. */
static uint64_t row_of(lim__store *store)
{
    void *value;
    size_t len;
    uint64_t seq = 0;
    if (lim__store_get(store, TABLE, lim__str("last"), &value, &len) != 0)
        return 0;
    memcpy(&seq, value, len == 16 ? 8 : 0);
    free(value);
    return seq;
}

static void look_with_store(seen *x, lim__store *store, const picture *p, uint64_t second_count)
{
    lim__stream_info info;
    uint64_t bad = 0;
    x->next = x->count = 0;
    int err = lim__store_read(store, STREAM, 1, 0, on_record, x, &bad);
    if (err != 0)
        wrong(x, "reading fails: %d, record %llu", err, (unsigned long long)bad);
    lim__store_stream(store, STREAM, &info);
    if (info.next <= p->acked)
        wrong(x, "record %llu was answered and is not there; %llu is the last", (unsigned long long)p->acked,
              (unsigned long long)info.next - 1);
    if (info.first > p->forgotten && info.first > 1)
        wrong(x, "records before %llu were forgotten, and it begins with %llu", (unsigned long long)p->forgotten,
              (unsigned long long)info.first);
    if (row_of(store) != info.next - 1)
        wrong(x, "a step is there in part: the row says %llu, the last record is %llu",
              (unsigned long long)row_of(store), (unsigned long long)info.next - 1);
    if (x->count != second_count || info.count != x->count)
        wrong(x, "the second reader has %llu records, the store %llu", (unsigned long long)second_count,
              (unsigned long long)x->count);
}

static void look(seen *x, const picture *p)
{
    char path[100];
    lim__store *store = NULL;
    lim__store_error error;
    snprintf(path, sizeof path, "%s/store", x->w->mnt);
    if (access(path, F_OK) != 0) {
        if (p->acked > 0)
            wrong(x, "there is no store, and something was answered");
        return;
    }
    look_with_second(x, path);
    uint64_t second_count = x->count;
    if (second_count > 0)
        (void)lim__store_check(lim__os_linux(), path, on_finding, x, &error);
    if (open_in(x->w->mnt, &store, x->why, sizeof x->why, false, on_event, x) != 0)
        return;
    look_with_store(x, store, p, second_count);
    lim__store_close(store);
}

/* ---- mounting ---- */

__attribute__((format(printf, 1, 2))) static bool does(const char *format, ...)
{
    char command[400];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    return system(command) == 0;
}

static const char *missing(void)
{
    return geteuid() != 0                                  ? "not root"
           : access("/dev/fuse", R_OK | W_OK) != 0         ? "no /dev/fuse"
           : access("/dev/loop-control", R_OK | W_OK) != 0 ? "no loop devices"
           : !does("command -v mkfs.ext4 >/dev/null 2>&1") ? "no mkfs.ext4"
           : !does("grep -qw ext4 /proc/filesystems")      ? "no ext4 in this kernel"
                                                           : NULL;
}

static world *world_new(uint64_t seed)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->seed = seed;
    w->s = mmap(NULL, sizeof *w->s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(w->s != MAP_FAILED);
    snprintf(w->top, sizeof w->top, "/tmp/liminal-power-XXXXXX");
    assert_non_null(mkdtemp(w->top));
    snprintf(w->fuse_dir, sizeof w->fuse_dir, "%s/fuse", w->top);
    snprintf(w->disk, sizeof w->disk, "%s/disk", w->fuse_dir);
    snprintf(w->mnt, sizeof w->mnt, "%s/mnt", w->top);
    assert_int_equal(mkdir(w->fuse_dir, 0700), 0);
    assert_int_equal(mkdir(w->mnt, 0700), 0);
    return w;
}

/* NULL: the disk is there, with an empty file system that is mounted. */
static const char *begin(world *w)
{
    char options[100];
    w->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (w->fuse < 0)
        return "/dev/fuse cannot be opened";
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", w->fuse);
    if (mount("liminal-power", w->fuse_dir, "fuse", MS_NODEV | MS_NOSUID, options) != 0)
        return "a FUSE file system cannot be mounted";
    w->disk_pid = fork();
    if (w->disk_pid == 0)
        run_disk(w->s, w->fuse, w->seed);
    close(w->fuse); /* so that the end of the disk is the end of what waits for it */
    w->fuse = -1;
    if (!does("mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 %s 2>&1", w->disk))
        return "no file system can be made";
    return does("mount -o loop %s %s", w->disk, w->mnt) ? NULL : "the loop device cannot be mounted";
}

static void end(world *w)
{
    does("umount %s 2>/dev/null || umount -l %s 2>/dev/null", w->mnt, w->mnt);
    does("umount %s 2>/dev/null || umount -l %s 2>/dev/null", w->fuse_dir, w->fuse_dir);
    if (w->fuse >= 0)
        close(w->fuse);
    if (w->disk_pid > 0) {
        kill(w->disk_pid, SIGKILL);
        waitpid(w->disk_pid, NULL, 0);
    }
    does("rm -rf %s", w->top);
    munmap(w->s, sizeof *w->s);
    free(w);
}

static bool look_at(world *w, uint32_t n)
{
    picture *p = &w->s->pictures[n];
    seen x = { .w = w };
    char image[96];
    snprintf(image, sizeof image, "%s/picture", w->top);
    FILE *f = fopen(image, "w");
    bool written = f && fwrite(p->bytes, 1, DISK_BYTES, f) == DISK_BYTES;
    if (f)
        fclose(f);
    if (!written || !does("mount -o loop %s %s", image, w->mnt)) {
        wrong(&x, "the picture cannot be mounted");
    } else {
        look(&x, p);
        does("umount %s", w->mnt);
    }
    if (x.why[0])
        print_message("seed %llu, picture %u (%llu writes since the last flush, kept: %s): %s\n",
                      (unsigned long long)w->seed, n, (unsigned long long)p->pending, keeps_names[p->keeps], x.why);
    return !x.why[0];
}

/* NULL: all is well. *cannot: this machine does not have what it takes. */
static const char *one_life(uint64_t seed, bool *cannot)
{
    world *w = world_new(seed);
    const char *why = begin(w);
    *cannot = why != NULL;
    if (!why) {
        int status = 0;
        atomic_store(&w->s->armed, true);
        pid_t writer = fork();
        if (writer == 0)
            run_writer(w);
        waitpid(writer, &status, 0);
        atomic_store(&w->s->armed, false);
        why = status == 0 ? NULL : "the writer failed";
        does("umount %s", w->mnt);
    }
    uint32_t count = atomic_load(&w->s->count);
    for (uint32_t i = 0; i < count && !why; i++)
        why = look_at(w, i) ? NULL : "what was answered is not there";
    if (!why && count < PICTURES / 2)
        why = "hardly any pictures were taken";
    if (!why && getenv("LIM_POWER"))
        print_message("seed %llu: %u pictures, %llu writes, %llu flushes, %llu records answered\n",
                      (unsigned long long)seed, count, (unsigned long long)w->s->writes,
                      (unsigned long long)w->s->flushes, (unsigned long long)w->s->acked);
    end(w);
    return why;
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* proves DU2 (power loss, on a real file system) */
static void test_what_was_answered_survives_power_loss_under_a_real_file_system(void **state)
{
    (void)state;
    uint64_t first = number_from("LIM_POWER_SEED", 1), count = number_from("LIM_POWER", 2);
    const char *lacks = missing();
    for (uint64_t seed = first; seed < first + count && !lacks; seed++) {
        bool cannot = false;
        const char *why = one_life(seed, &cannot);
        if (cannot)
            lacks = why;
        else if (why)
            fail_msg("seed %llu: %s", (unsigned long long)seed, why);
    }
    if (lacks) {
        print_message("skipped: %s\n", lacks);
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_answered_survives_power_loss_under_a_real_file_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
