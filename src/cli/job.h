/* SPDX-License-Identifier: Apache-2.0
 * job.h - a child process with something to read and something to say, run by the loop. */
#ifndef LIM_CLI_JOB_H
#define LIM_CLI_JOB_H

#include "cli/cli.h"
#include "os/os.h"

enum {
    CLI_REPLY_MAX = 16 << 20,  /* bytes of standard output; a child that says more is killed */
    CLI_COMPLAINT_MAX = 1024,  /* bytes of standard error that are kept; the rest is read and dropped */
};

typedef struct cli_job {
    struct cli *cli;
    lim__child child;
    cli_source in, out, err, end;
    lim__buf input;            /* what is still to be written to it */
    lim__buf reply, complaint; /* its standard output; the beginning of its standard error */
    lim__buf said;             /* of its standard error: a line that is not complete yet, if on_note is there */
    bool overflowed;           /* killed because of CLI_REPLY_MAX */
    void (*on_end)(struct cli_job *job, int status); /* wait status; exactly once, from the loop; may free the job */
    /* Both may be NULL, and must not free the job. */
    void (*on_output)(struct cli_job *job);               /* there is more in reply, which it may consume */
    void (*on_note)(struct cli_job *job, lim_bytes note); /* a line "progress: NOTE", which is no complaint; VIEW */
} cli_job;

/* job is zeroed, but for its callbacks. 0 or -errno: not started, on_end will not run. */
int cli_job_start(cli_job *job, struct cli *cli, const char *command, const char *const *env, lim_bytes input);
void cli_job_pause(cli_job *job, bool pause); /* reads no more of its output while paused; what it left behind, at its end */
void cli_job_signal(cli_job *job, int number); /* to its process group; nothing once it has ended */
void cli_job_kill(cli_job *job); /* with all it has started; on_end follows */
void cli_job_fini(cli_job *job); /* frees; kills it first if it still runs */
int cli_job_exit(int status);    /* its exit code as a shell counts: 128 + signal when killed by one */

#endif
