/* SPDX-License-Identifier: Apache-2.0
 * ping-pong.c - two processes and a supervisor, in the program's own thread, with nothing of liminal but its runtime.
 *
 * pong answers requests and is badly written: every third one makes it fail. ping asks on. It never waits for someone
 * who is dead: the request that killed pong ends at once with the reason, and the supervisor's new pong is introduced
 * to ping by on_start, so there is no name to look up again and again, and no pause to guess.
 *
 *      main --turns--> runtime: supervisor --starts, links--> pong
 *                                    `--on_start: "here is pong"--> ping --request--> pong
 *                                                                    ^---- answer, or why there is none ----' */
#include <liminal/actor.h>
#include <stdio.h>

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        lim_err e_ = (call);                                                                                           \
        if (e_ != LIM_OK) {                                                                                            \
            fprintf(stderr, #call ": %s\n", lim_err_text(e_));                                                         \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

enum { HERE = 1, PING, PINGS = 7, REQUESTS_A_PONG_SURVIVES = 3 };

typedef struct score {
    int answered, lost;
    lim_reason ended; /* LIM_REASON_NONE: still playing */
} score;

/* ---- pong ---- its state is zeroed at every start: a new pong has counted nothing */
static void on_pong(lim_process *self, const lim_signal *signal, void *state)
{
    int *requests = state;
    if (signal->kind != LIM_SIGNAL_MESSAGE)
        return;
    if (++*requests == REQUESTS_A_PONG_SURVIVES)
        lim_exit(self, LIM_FAULT);
    else if (lim_respond(self, signal, signal->body) != LIM_OK)
        printf("pong: nobody waits for this any more\n");
}

/* ---- ping ---- */
typedef struct ping {
    lim_pid pong;
    int asked;
    score *score; /* main's, which is on the same thread */
} ping;

static void ask(lim_process *self, ping *p)
{
    uint64_t ref;
    if (p->asked == PINGS) {
        lim_exit(self, LIM_NORMAL);
        return;
    }
    p->asked++;
    if (lim_request(self, p->pong, PING, (lim_bytes){ &p->asked, sizeof p->asked }, 1000, &ref) != LIM_OK)
        lim_exit(self, LIM_FAULT);
}

static void on_ping(lim_process *self, const lim_signal *signal, void *state)
{
    ping *p = state;
    if (signal->kind == LIM_SIGNAL_MESSAGE && signal->tag == HERE) {
        p->pong = *(const lim_pid *)signal->body.ptr;
        ask(self, p);
    } else if (signal->kind == LIM_SIGNAL_RESPONSE && signal->reason == LIM_NORMAL) {
        printf("ping %d: pong\n", *(const int *)signal->body.ptr);
        p->score->answered++;
        ask(self, p);
    } else if (signal->kind == LIM_SIGNAL_RESPONSE) {
        printf("ping %d: no pong: %s\n", p->asked, lim_reason_text(signal->reason));
        p->score->lost++; /* and the next pong will be introduced */
    }
}

static void on_ping_end(void *state, lim_reason reason)
{
    ping *p = state;
    p->score->ended = reason;
}

/* ---- how the supervisor introduces each new pong ---- */
typedef struct introduction {
    lim_runtime *rt;
    lim_pid ping;
} introduction;

static void introduce(void *ctx, lim_pid pong, uint32_t starts)
{
    const introduction *to = ctx;
    printf("supervisor: pong started, %u so far\n", (unsigned)starts);
    if (lim_runtime_send(to->rt, to->ping, HERE, (lim_bytes){ &pong, sizeof pong }) != LIM_OK)
        printf("supervisor: ping has left\n");
}

static int play(lim_runtime *rt, score *result)
{
    ping p = { .score = result };
    lim_spawn_opts ping_opts = { .size = sizeof ping_opts,
                                 .name = "ping",
                                 .on_signal = on_ping,
                                 .on_end = on_ping_end,
                                 .state_bytes = sizeof p,
                                 .init = &p,
                                 .init_bytes = sizeof p };
    introduction to = { .rt = rt };
    TRY(lim_runtime_spawn(rt, &ping_opts, &to.ping));

    lim_pid supervisor;
    lim_supervisor_opts opts = { .size = sizeof opts, .restarts_max = 10 };
    TRY(lim_supervisor_open(rt, &opts, &supervisor));
    lim_child_spec pong = {
        .size = sizeof pong,
        .spawn = { .size = sizeof pong.spawn, .name = "pong", .on_signal = on_pong, .state_bytes = sizeof(int) },
        .restart = LIM_PERMANENT,
        .on_start = introduce,
        .ctx = &to,
    };
    TRY(lim_supervisor_add(rt, supervisor, &pong));

    while (result->ended == LIM_REASON_NONE)
        TRY(lim_runtime_turn(rt, -1));
    return 0;
}

int main(void)
{
    lim_runtime *rt;
    score result = { 0 };
    lim_runtime_opts opts = { .size = sizeof opts, .scheduler_count = 1, .own_loop = true };
    TRY(lim_runtime_open(&opts, &rt));
    int code = play(rt, &result);
    lim_runtime_close(rt);
    if (code != 0)
        return code;
    printf("%d answered, %d lost, ping ended: %s\n", result.answered, result.lost, lim_reason_text(result.ended));
    return result.answered == 5 && result.lost == 2 && result.ended == LIM_NORMAL ? 0 : 1;
}
