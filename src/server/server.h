/* SPDX-License-Identifier: Apache-2.0
 * server.h - a bus's door to the network: it listens, and serves every connection by a session.
 *
 * It uses the bus, the wire, the runtime's processes and the os table only, so the simulator can run it: a bus opened by
 * lim__bus_open without threads, over a simulated table.
 *
 *      lim__server_open(bus, &opts, &diag, &server);     // accepts from here on
 *      ...
 *      lim__server_drain(server, 5000);                  // refuse new work, let what runs end, say goodbye
 *      while (!lim__server_drained(server)) ...;
 *      lim_bus_close(bus);                               // ends its processes, whatever they still do
 *      lim__server_close(server);                        // frees: nobody refers to it any more */
#ifndef LIM__SERVER_H
#define LIM__SERVER_H

#include "bus/bus.h"

typedef struct lim__server lim__server; /* OBJECT, one owner */

typedef struct lim__server_opts {
    const char *host;   /* numeric address or "localhost" */
    uint16_t port;      /* 0: any */
    uint32_t frame_max; /* largest `length` of a frame; 0: what the bus's largest payload needs */
    uint32_t ping_ms;   /* how often a client with something at stake is asked whether it lives; 0: 2000 */
    bool spread;        /* connections go round the schedulers instead of staying together while there is room */
} lim__server_opts;

/* UNREACHABLE: cannot listen there (diag: what, why, what to do); NOMEM. The bus must outlive everything but
 * lim__server_close. Not in a handler. */
lim_err lim__server_open(lim_bus *bus, const lim__server_opts *opts, lim_diag *diag, lim__server **out);
uint16_t lim__server_port(const lim__server *server);
/* Any thread; answers at once. No connection is accepted and no new work taken from now on; when nothing that clients
 * wait for is pending any more, and at the latest after bound_ms, every client is told goodbye. Again: only the bound
 * changes. */
void lim__server_drain(lim__server *server, uint32_t bound_ms);
bool lim__server_drained(const lim__server *server); /* any thread: no connection is left */
bool lim__server_forced(const lim__server *server);  /* any thread: somebody was still waiting when the bound passed */
uint32_t lim__server_sessions(const lim__server *server); /* any thread: connections, those that only close included */
void lim__server_close(lim__server *server); /* after the bus was closed; NULL is a no-op */

#endif
