/* SPDX-License-Identifier: Apache-2.0
 * hostile.c - a native function that does what the message says, and each of these is something that it should not.
 *
 * It knows how the ring is laid out, which only the helper's own code should, and finds it in its address space as an
 * attacker would. Asked for nothing it is harmless, so that it can be deployed. */
#include <liminal/native.h>
#include "route/native_ring.h"

#include <assert.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-result"
#pragma GCC diagnostic ignored "-Winfinite-recursion"
#pragma GCC diagnostic ignored "-Wnonnull"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuse-after-free"
#endif

/* ---- finding the ring: the program's variables hold both addresses, one behind the other ---- */

typedef struct search {
    const lim__ring_requests *requests;
    lim__ring_answers *answers;
} search;

static int look_through(struct dl_phdr_info *info, size_t size, void *ctx)
{
    search *s = ctx;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum && s->answers == NULL; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || (h->p_flags & PF_W) == 0)
            continue;
        void **at = (void **)(info->dlpi_addr + ((h->p_vaddr + 15) & ~(ElfW(Addr))15));
        for (size_t n = 0; n + 1 < (h->p_memsz - 16) / sizeof *at && s->answers == NULL; n++) {
            if (at[n] == (void *)(uintptr_t)s->requests)
                s->answers = at[n + 1];
        }
    }
    return 1; /* the first is the program */
}

/* The message of a call that is alone in the row lies behind its list, at the start of messages. */
static search ring(const lim_native_call *call)
{
    size_t list = (call->candidate_count * (size_t)10 + 15) & ~(size_t)15;
    const char *messages = call->payload.ptr - list;
    search s = { (const void *)(messages - offsetof(lim__ring_requests, messages)), NULL };
    dl_iterate_phdr(look_through, &s);
    return s;
}

/* ---- what it does ---- */

static int deep(volatile char *above)
{
    volatile char here[4096];
    here[0] = above[0];
    return deep(here) + here[0];
}

static void smash(void)
{
    volatile char small[8];
    volatile char *at = small;
    for (int i = 0; i < 1 << 16; i++)
        at[i] = 0x41;
}

static void fill(volatile uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(i * 151 + 17);
}

static void loop(void)
{
    for (volatile int forever = 1; forever;)
        ;
}

static void hog(void)
{
    for (int i = 0; i < 1024; i++) { /* 64 MiB are over every limit */
        volatile char *block = malloc(1 << 16);
        if (block == NULL)
            abort();
        block[0] = 1;
    }
}

static void reply_as(const lim_native_call *call, uint32_t index, uint64_t id, uint32_t serial_off, uint32_t done_off)
{
    search s = ring(call);
    uint32_t serial = s.requests->place[0].upto;
    if (serial == 0)
        serial = s.requests->place[1].upto;
    serial = atomic_load(&s.answers->done);
    s.answers->replies[serial % LIM__RING_CALLS] = (lim__ring_reply){ serial + serial_off, index, id, 0 };
    atomic_store(&s.answers->done, serial + done_off);
    loop();
}

static void every_signal(void)
{
    for (int n = 1; n < 65; n++)
        raise(n);
}

static void ignore_everything(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    for (int n = 1; n < 65; n++)
        sigaction(n, &ignore, NULL);
    loop();
}

static jmp_buf again;
static void jump_for_ever(void)
{
    if (setjmp(again) >= 0)
        longjmp(again, 1);
}

static void answer_then_work(const lim_native_call *call)
{
    search s = ring(call);
    uint32_t serial = atomic_load(&s.answers->done);
    s.answers->replies[serial % LIM__RING_CALLS] = (lim__ring_reply){ .serial = serial, .index = UINT32_MAX };
    atomic_store(&s.answers->done, serial + 1);
    atomic_fetch_and(&s.answers->word, ~LIM__RING_WAITERS);
    syscall(SYS_futex, &s.answers->word, 1, 64, NULL, NULL, 0);
    loop();
}

static void play_dead(const lim_native_call *call)
{
    atomic_fetch_or(&ring(call).answers->word, LIM__RING_OWNER_DIED);
    loop();
}

static void hold_the_lock(const lim_native_call *call)
{
    for (lim__ring_answers *a = ring(call).answers;;)
        atomic_store(&a->word, 0x3FFFFFFFu);
}

static void tell_tales(const lim_native_call *call)
{
    lim__ring_answers *a = ring(call).answers;
    memset(a->note_text, 0xFF, sizeof a->note_text); /* and no NUL */
    a->note_number = 0xFFFFFFFFu;
    atomic_store(&a->note_kind, 0xFFFFFFFFu);
    loop();
}

static void map_code(void)
{
    if (mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        return;
    loop();
}

static void ring_the_bell(void)
{
    for (uint64_t one = 1;;)
        syscall(SYS_write, 3, &one, sizeof one);
}

static void nap(void)
{
    struct timespec long_time = { 100, 0 };
    syscall(SYS_nanosleep, &long_time, NULL);
}

static void wait_for_nothing(void)
{
    static uint32_t word;
    for (;;)
        syscall(SYS_futex, &word, 0, 0, NULL, NULL, 0);
}

static void write_requests(const lim_native_call *call)
{
    fill((volatile uint8_t *)(uintptr_t)ring(call).requests, 4096);
}

static void unseal_requests(const lim_native_call *call)
{
    mprotect((void *)(uintptr_t)ring(call).requests, 4096, PROT_READ | PROT_WRITE);
}

static void steal(void)
{
    char to[64];
    struct iovec mine = { to, sizeof to }, theirs = { (void *)4096, sizeof to };
    process_vm_readv(1, &mine, 1, &theirs, 1, 0);
}

static void numbers(void)
{
    for (int fd = 0; fd < 64; fd++)
        (void)!write(fd, "hostile!", 7);
}

/* X(name, what it does) */
#define MODES(X)                                                                                                       \
    X(null, *(volatile int *)0 = 1)                                                                                    \
    X(wild_read, (void)*(volatile int *)0xdeadbeef000)                                                                 \
    X(wild_answers, fill((volatile uint8_t *)ring(call).answers, sizeof(lim__ring_answers)))                           \
    X(wild_answers_loop, (fill((volatile uint8_t *)ring(call).answers, sizeof(lim__ring_answers)), loop()))            \
    X(write_requests, write_requests(call))                                                                            \
    X(unseal_requests, unseal_requests(call))                                                                          \
    X(stack_smash, smash())                                                                                            \
    X(recursion, deep((volatile char *)"x"))                                                                           \
    X(divide, raise(SIGFPE))                                                                                           \
    X(trap, __builtin_trap())                                                                                          \
    X(exit, exit(3))                                                                                                   \
    X(exit_fast, _exit(3))                                                                                             \
    X(abort, abort())                                                                                                  \
    X(assert, assert(call == NULL))                                                                                    \
    X(fork, fork())                                                                                                    \
    X(vfork, syscall(SYS_clone, 0x4111, 0, 0, 0, 0))                                                                   \
    X(thread, syscall(SYS_clone3, NULL, 0))                                                                            \
    X(exec, execl("/bin/sh", "sh", "-c", "touch /tmp/liminal-hostile", NULL))                                          \
    X(open, open("/etc/passwd", O_RDONLY))                                                                             \
    X(open_code, open("/proc/self/fd/4", O_RDONLY))                                                                    \
    X(create, open("/tmp/liminal-hostile", O_CREAT | O_WRONLY, 0600))                                                  \
    X(unlink, unlink("/tmp/liminal-hostile"))                                                                          \
    X(socket, socket(AF_INET, SOCK_STREAM, 0))                                                                         \
    X(ptrace, ptrace(PTRACE_TRACEME, 0, NULL, NULL))                                                                   \
    X(kill_parent, syscall(SYS_kill, 1, SIGKILL))                                                                      \
    X(kill_all, kill(-1, SIGKILL))                                                                                     \
    X(raise_all, every_signal())                                                                                       \
    X(sigaction, ignore_everything())                                                                                  \
    X(loop, loop())                                                                                                    \
    X(jump, jump_for_ever())                                                                                           \
    X(nap, nap())                                                                                                      \
    X(wait, wait_for_nothing())                                                                                        \
    X(hog, hog())                                                                                                      \
    X(huge, (malloc((size_t)1 << 40) != NULL ? loop() : (void)0))                                                      \
    X(mprotect, mprotect((void *)((uintptr_t)&loop & ~(uintptr_t)4095), 4096, PROT_READ | PROT_WRITE | PROT_EXEC))     \
    X(map_code, map_code())                                                                                            \
    X(steal, steal())                                                                                                  \
    X(numbers, numbers())                                                                                              \
    X(bell, ring_the_bell())                                                                                           \
    X(prctl, prctl(PR_SET_PDEATHSIG, 0))                                                                               \
    X(limits, setrlimit(RLIMIT_AS, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY }))                                  \
    X(filter, prctl(PR_SET_SECCOMP, 0))                                                                                \
    X(heap, (free((void *)call), free((void *)call)))                                                                  \
    X(stranger_index, reply_as(call, call->candidate_count + 5, 0, 0, 1))                                              \
    X(stranger_id, reply_as(call, 0, 0xbadc0de, 0, 1))                                                                 \
    X(stranger_serial, reply_as(call, 0, call->candidates[0]->id, 7, 1))                                               \
    X(many_done, reply_as(call, 0, call->candidates[0]->id, 0, 60))                                                    \
    X(less_done, reply_as(call, 0, call->candidates[0]->id, 0, 0xFFFFFFF0u))                                           \
    X(answer_then_work, answer_then_work(call))                                                                        \
    X(play_dead, play_dead(call))                                                                                      \
    X(hold_the_lock, hold_the_lock(call))                                                                              \
    X(tell_tales, tell_tales(call))

static uint32_t route(const lim_native_call *call)
{
    lim_native_bytes what;
    int64_t answer;
    if (lim_native_i64(call, "answer", &answer))
        return (uint32_t)answer;
    if (!lim_native_text(call, "do", &what))
        return 0;
#define X(name, act)                                                                                                   \
    if (lim_native_equal(what, #name)) {                                                                               \
        act;                                                                                                           \
        return 1;                                                                                                      \
    }
    MODES(X)
#undef X
    return LIM_NATIVE_NONE;
}
LIM_NATIVE_ROUTER(route)
