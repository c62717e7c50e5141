/* SPDX-License-Identifier: Apache-2.0
 * linux.h - what linux.c (the table, clock, chance, readiness) takes from socket.c (TCP) and file.c (files).
 * Nobody else includes it. */
#ifndef LIM__LINUX_H
#define LIM__LINUX_H

#include "os/os.h"

int lim__linux_listen(lim__os *os, const char *host, uint16_t port, uint16_t *port_out);
int lim__linux_accept(lim__os *os, int listener, char *peer, size_t peer_size);
int lim__linux_connect(lim__os *os, const char *host, uint16_t port);
int lim__linux_connect_result(lim__os *os, int fd);
long lim__linux_recv(lim__os *os, int fd, void *buf, size_t len);
long lim__linux_send(lim__os *os, int fd, const void *buf, size_t len);
void lim__linux_shutdown_write(lim__os *os, int fd);
void lim__linux_close(lim__os *os, int fd);
void lim__linux_set_liveness(lim__os *os, int fd, uint32_t idle_ms, uint32_t user_timeout_ms);

int lim__linux_file_open(lim__os *os, const char *path, uint32_t flags);
void lim__linux_file_close(lim__os *os, int file);
long lim__linux_file_read(lim__os *os, int file, void *buf, size_t len, uint64_t offset);
long lim__linux_file_write(lim__os *os, int file, const void *buf, size_t len, uint64_t offset);
int lim__linux_file_sync(lim__os *os, int file);
int64_t lim__linux_file_size(lim__os *os, int file);
int lim__linux_file_truncate(lim__os *os, int file, uint64_t size);
int lim__linux_file_lock(lim__os *os, int file);
int lim__linux_file_rename(lim__os *os, const char *from, const char *to);
int lim__linux_file_remove(lim__os *os, const char *path);
int lim__linux_dir_create(lim__os *os, const char *path);
int lim__linux_dir_sync(lim__os *os, const char *path);
int lim__linux_dir_list(lim__os *os, const char *path, void (*each)(void *ctx, const char *name), void *ctx);
int64_t lim__linux_disk_free(lim__os *os, const char *path);

#endif
