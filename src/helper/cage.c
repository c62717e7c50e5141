/* SPDX-License-Identifier: Apache-2.0
 * cage.c - what a helper may do, and how it says what it did when it did something else.
 *
 * Filters answer a forbidden system call with a trap instead of killing at once. The call is not made either way; but
 * the handler can say which one it was, and then ends the process. It cannot be got around: it cannot be replaced
 * (sigaction is forbidden), there is no second thread to change what it does, and its text cannot be written to
 * (mprotect is forbidden, mapped memory is never executable). If there is no stack left for it the kernel kills.
 *
 * Faults end the process by their own signal, after a note. Writes to descriptors 1 and 2, which are closed, are taken
 * for last words (that is how libc tells of a broken heap) and have no other effect. */
#include "helper/helper.h"

#undef NDEBUG
#include <assert.h> /* declares __assert_fail */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- filters ---- */

typedef struct filter {
    struct sock_fprog program;
} filter;
static filter loading_filter, strict_filter;
static volatile sig_atomic_t loading;

static const int always[] = { /* no descriptor and no path is in any of them */
                              SCMP_SYS(exit),    SCMP_SYS(exit_group),    SCMP_SYS(rt_sigreturn),
                              SCMP_SYS(brk),     SCMP_SYS(munmap),        SCMP_SYS(mremap),
                              SCMP_SYS(madvise), SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday)
};
static const int while_loading[] = { SCMP_SYS(pread64),  SCMP_SYS(fstat), SCMP_SYS(mmap),
                                     SCMP_SYS(mprotect), SCMP_SYS(close), SCMP_SYS(seccomp) };

static int allow_all(scmp_filter_ctx ctx, const int *calls, size_t n)
{
    int err = 0;
    for (size_t i = 0; i < n && err == 0; i++)
        err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
    return err;
}

static int rules(scmp_filter_ctx ctx, bool strict)
{
    int err = allow_all(ctx, always, LIM_COUNT(always));
    if (err == 0) /* FUTEX_WAIT and FUTEX_WAKE, shared or private */
        err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(futex), 1,
                               SCMP_A1(SCMP_CMP_MASKED_EQ, ~(scmp_datum_t)(FUTEX_WAKE | FUTEX_PRIVATE_FLAG), 0));
    if (err == 0)
        err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(write), 2, SCMP_A0(SCMP_CMP_EQ, EVENT_FD),
                               SCMP_A2(SCMP_CMP_EQ, sizeof(uint64_t)));
    if (err == 0 && strict)
        err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                               SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    if (err == 0 && !strict)
        err = allow_all(ctx, while_loading, LIM_COUNT(while_loading));
    return err;
}

/* libseccomp writes the program to a descriptor only. */
static bool export_to(scmp_filter_ctx ctx, filter *out)
{
    int fd = memfd_create("filter", MFD_CLOEXEC);
    struct stat st;
    bool good = false;
    if (fd >= 0 && seccomp_export_bpf(ctx, fd) == 0 && fstat(fd, &st) == 0) {
        size_t len = (size_t)st.st_size;
        out->program.filter = malloc(len);
        out->program.len = (unsigned short)(len / sizeof(struct sock_filter));
        good = out->program.filter != NULL && pread(fd, out->program.filter, len, 0) == (ssize_t)len;
    }
    if (fd >= 0)
        close(fd);
    return good;
}

static bool compile(bool strict, filter *out)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
    bool good = ctx != NULL && seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0 &&
                rules(ctx, strict) == 0 && seccomp_syscall_priority(ctx, SCMP_SYS(futex), 255) == 0 &&
                export_to(ctx, out);
    if (ctx != NULL)
        seccomp_release(ctx);
    return good;
}

static bool install(const filter *f)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &f->program) == 0;
}

/* Does the machine really stop a process? 0: yes. */
static int try_out(void)
{
    pid_t pid = fork();
    int status = 0;
    if (pid == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !install(&loading_filter) || !install(&strict_filter))
            _exit(errno != 0 ? errno : 1);
        (void)syscall(SYS_getppid);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return errno;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : -1;
}

bool cage_prepare(char *why, size_t size)
{
    if (!compile(false, &loading_filter) || !compile(true, &strict_filter)) {
        snprintf(why, size, "the system call filters could not be made");
        return false;
    }
    int err = try_out();
    if (err > 0)
        snprintf(why, size, "this machine takes no system call filter (seccomp): %s", strerror(err));
    else if (err < 0)
        snprintf(why, size, "this machine lets a process go on after a system call that its filter (seccomp) forbids");
    return err == 0;
}

/* ---- limits ---- */

static void limit(int resource, uint64_t soft, uint64_t hard, const char *name)
{
    char text[LIM__RING_TEXT];
    if (setrlimit(resource, &(struct rlimit){ soft, hard }) == 0)
        return;
    snprintf(text, sizeof text, "cannot limit %s: %s", name, strerror(errno));
    cage_note(LIM__RING_SAYS, 0, text);
    cage_end();
}

enum { STACK_BYTES = 1 << 20, OPEN_MAX_FDS = CODE_FD + 1 };

void cage_limits(uint64_t memory_bytes, uint32_t cpu_seconds)
{
    limit(RLIMIT_CORE, 0, 0, "core files");
    limit(RLIMIT_CPU, cpu_seconds, cpu_seconds + 1, "processor time");
    limit(RLIMIT_NOFILE, OPEN_MAX_FDS, OPEN_MAX_FDS, "descriptors");
    limit(RLIMIT_STACK, STACK_BYTES, STACK_BYTES, "the stack");
    limit(RLIMIT_AS, memory_bytes + STACK_BYTES, memory_bytes + STACK_BYTES, "memory");
}

/* ---- last words ---- */

static char said[LIM__RING_TEXT]; /* what was written to standard error last */

void cage_note(uint32_t kind, uint32_t number, const char *text)
{
    lim__ring_answers *a = self.answers;
    if (atomic_load(&a->note_kind) != LIM__RING_NO_NOTE)
        return;
    size_t n = 0;
    for (; text[n] != 0 && n + 1 < sizeof a->note_text; n++)
        a->note_text[n] = text[n];
    a->note_text[n] = 0;
    a->note_number = number;
    atomic_store(&a->note_kind, kind);
    serve_wake_bus();
}

_Noreturn void cage_end(void)
{
    for (;;)
        syscall(SYS_exit_group, 1);
}

static void on_fault(int signal)
{
    cage_note(LIM__RING_SIGNAL, (uint32_t)signal, said); /* the handler was for one time: the fault comes again */
}

/* The names that people will want to read; others are told by number. */
static const char *call_name(int nr)
{
    static const struct {
        int nr;
        const char *name;
    } names[] = {
        { SYS_execve, "execve" },
        { SYS_clone, "clone" },
        { SYS_openat, "openat" },
        { SYS_socket, "socket" },
        { SYS_ptrace, "ptrace" },
        { SYS_kill, "kill" },
        { SYS_tgkill, "tgkill" },
        { SYS_tkill, "tkill" },
        { SYS_prctl, "prctl" },
        { SYS_mprotect, "mprotect" },
        { SYS_mmap, "mmap" },
        { SYS_rt_sigaction, "rt_sigaction" },
        { SYS_read, "read" },
        { SYS_write, "write" },
        { SYS_writev, "writev" },
        { SYS_close, "close" },
        { SYS_ioctl, "ioctl" },
        { SYS_rt_sigprocmask, "rt_sigprocmask" },
        { SYS_getpid, "getpid" },
        { SYS_nanosleep, "nanosleep" },
        { SYS_clock_nanosleep, "clock_nanosleep" },
        { SYS_connect, "connect" },
        { SYS_getrandom, "getrandom" },
        { SYS_process_vm_readv, "process_vm_readv" },
        { SYS_dup, "dup" },
        { SYS_dup3, "dup3" },
        { SYS_sigaltstack, "sigaltstack" },
        { SYS_futex, "futex" },
        { SYS_setrlimit, "setrlimit" },
        { SYS_prlimit64, "prlimit64" },
        { SYS_unlinkat, "unlinkat" },
        { SYS_seccomp, "seccomp" },
        { SYS_process_vm_writev, "process_vm_writev" },
        { SYS_gettid, "gettid" },
        { SYS_sched_yield, "sched_yield" },
#ifdef SYS_clone3
        { SYS_clone3, "clone3" },
#endif
#ifdef SYS_fork
        { SYS_fork, "fork" },
        { SYS_vfork, "vfork" },
        { SYS_open, "open" },
        { SYS_unlink, "unlink" },
        { SYS_dup2, "dup2" },
        { SYS_pause, "pause" },
        { SYS_alarm, "alarm" },
#endif
    };
    for (size_t i = 0; i < LIM_COUNT(names); i++) {
        if (names[i].nr == nr)
            return names[i].name;
    }
    return "";
}

/* ---- trapped system calls ---- */

typedef struct trapped {
    int nr;
    uint64_t arg[4];
    int64_t result;
} trapped;

#if defined(__x86_64__)
static void trapped_read(const ucontext_t *u, trapped *t)
{
    const greg_t *r = u->uc_mcontext.gregs;
    t->arg[0] = (uint64_t)r[REG_RDI];
    t->arg[1] = (uint64_t)r[REG_RSI];
    t->arg[2] = (uint64_t)r[REG_RDX];
    t->arg[3] = (uint64_t)r[REG_R10];
}
static void trapped_answer(ucontext_t *u, const trapped *t)
{
    u->uc_mcontext.gregs[REG_RAX] = (greg_t)t->result;
}
#elif defined(__aarch64__)
static void trapped_read(const ucontext_t *u, trapped *t)
{
    for (int i = 0; i < 4; i++)
        t->arg[i] = u->uc_mcontext.regs[i];
}
static void trapped_answer(ucontext_t *u, const trapped *t)
{
    u->uc_mcontext.regs[0] = (uint64_t)t->result;
}
#else
#error "name the registers of a system call on this processor"
#endif

/* The loader asks for the file, for its beginning (where other helpers have read is none of ours: the description is
 * shared with them), and for its size. False: that was something else. */
static bool serve_loader(trapped *t)
{
    static char empty[] = "";
    static off_t at;
    if (t->nr == SYS_read && t->arg[0] == CODE_FD) {
        ssize_t n = pread(CODE_FD, (void *)(uintptr_t)t->arg[1], (size_t)t->arg[2], at);
        at += n > 0 ? n : 0;
        t->result = n >= 0 ? n : -errno;
        return true;
    }
    if (t->nr == SYS_openat) {
        bool ours = strcmp((const char *)(uintptr_t)t->arg[1], "/proc/self/fd/4") == 0;
        t->result = ours ? CODE_FD : -ENOENT;
        return true;
    }
    if (t->nr == SYS_newfstatat) {
        if (strcmp((const char *)(uintptr_t)t->arg[1], empty) != 0)
            t->result = -ENOENT;
        else
            t->result = syscall(SYS_fstat, (int)t->arg[0], (void *)(uintptr_t)t->arg[2]) == 0 ? 0 : -errno;
        return true;
    }
    return false;
}

static void say(const char *text, size_t len, size_t *at)
{
    for (size_t i = 0; i < len && *at + 1 < sizeof said; i++)
        said[(*at)++] = text[i];
    said[*at] = 0;
}

/* Writes to descriptors that are not there. */
static bool hear_words(trapped *t)
{
    size_t at = 0;
    if ((t->nr != SYS_write && t->nr != SYS_writev) || (t->arg[0] != 1 && t->arg[0] != 2))
        return false;
    t->result = 0;
    if (t->nr == SYS_write) {
        say((const char *)(uintptr_t)t->arg[1], (size_t)t->arg[2], &at);
        t->result = (int64_t)t->arg[2];
        return true;
    }
    const struct iovec *io = (const struct iovec *)(uintptr_t)t->arg[1];
    for (uint64_t i = 0; i < t->arg[2] && i < 64; i++) {
        say(io[i].iov_base, io[i].iov_len, &at);
        t->result += (int64_t)io[i].iov_len;
    }
    return true;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    trapped t = { .nr = info->si_syscall };
    int before = errno;
    trapped_read(context, &t);
    if (!(loading && serve_loader(&t)) && !hear_words(&t)) {
        if (said[0] != 0)
            cage_note(LIM__RING_SAYS, (uint32_t)t.nr, said);
        else
            cage_note(LIM__RING_CALL, (uint32_t)t.nr, call_name(t.nr));
        cage_end();
    }
    errno = before;
    trapped_answer(context, &t);
}

/* ---- what libc would do by system calls that are not allowed: functions that are linked here find these first ---- */

__attribute__((visibility("default"))) _Noreturn void abort(void)
{
    cage_note(LIM__RING_SAYS, 0, said[0] != 0 ? said : "it called abort()");
    cage_end();
}

__attribute__((visibility("default"))) _Noreturn void __assert_fail(const char *what, const char *file, unsigned line,
                                                                    const char *function)
{
    char text[LIM__RING_TEXT];
    (void)function;
    snprintf(text, sizeof text, "assertion failed at %s:%u: %s", file, line, what);
    cage_note(LIM__RING_SAYS, 0, text);
    cage_end();
}

/* ---- entering ---- */

static void handlers(void)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGXCPU };
    static char stack[64 * 1024];
    struct sigaction once = { .sa_handler = on_fault, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND | SA_NODEFER };
    struct sigaction trap = { .sa_sigaction = on_trap, .sa_flags = SA_ONSTACK | SA_SIGINFO | SA_NODEFER };
    (void)sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof stack }, NULL);
    for (size_t i = 0; i < LIM_COUNT(faults); i++)
        (void)sigaction(faults[i], &once, NULL);
    (void)sigaction(SIGSYS, &trap, NULL);
}

/* The kernel marks `word` when this thread dies, however that happens. */
static void robust(void)
{
    static struct robust_list entry;
    static struct robust_list_head head;
    head.list.next = &entry;
    entry.next = &head.list;
    head.futex_offset = (char *)&self.answers->word - (char *)&entry;
    if (syscall(SYS_set_robust_list, &head, sizeof head) == 0)
        atomic_fetch_or(&self.answers->word, (uint32_t)syscall(SYS_gettid));
}

static _Noreturn void no_filter(void)
{
    cage_note(LIM__RING_SAYS, 0, "this machine takes no system call filter (seccomp)");
    cage_end();
}

void cage_enter(void)
{
    handlers();
    robust();
    loading = 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !install(&loading_filter))
        no_filter();
}

void cage_close(void)
{
    loading = 0;
    if (!install(&strict_filter))
        no_filter();
}
