/* SPDX-License-Identifier: Apache-2.0
 * file.c - a whole file at once: routing code, configuration, requests from the command line. Blocks. */
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Guesses how much there will be; 0 for pipes and the like. One more than the size, so that the end is seen at once. */
static size_t size_hint(int fd, size_t max)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0)
        return 0;
    return (uint64_t)st.st_size < max ? (size_t)st.st_size + 1 : max;
}

/* Reads to the end; *data keeps room for one byte more than *len. */
static int read_all(int fd, size_t max, char **data, size_t *len)
{
    size_t cap = size_hint(fd, max);
    cap = cap < 4096 ? 4096 : cap;
    for (;;) {
        char *grown = realloc(*data, cap + 1);
        if (!grown)
            return -ENOMEM;
        *data = grown;
        while (*len < cap) {
            ssize_t n = read(fd, *data + *len, cap - *len);
            if (n == 0)
                return 0;
            if (n < 0 && errno != EINTR)
                return -errno;
            *len += n > 0 ? (size_t)n : 0;
            if (*len > max)
                return -EFBIG;
        }
        cap = cap > SIZE_MAX / 4 ? SIZE_MAX / 2 : cap * 2;
    }
}

int lim__file_read(const char *path, size_t max, void **out, size_t *len)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    char *data = NULL;
    size_t have = 0;
    int err = read_all(fd, max, &data, &have);
    if (!is_stdin)
        close(fd);
    if (err != 0) {
        free(data);
        return err;
    }
    data[have] = 0;
    *out = data;
    *len = have;
    return 0;
}
