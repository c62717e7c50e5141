/* SPDX-License-Identifier: Apache-2.0
 * constructor.c - a native function with something that runs while it is loaded; FUNCTION says what. */
#include <liminal/native.h>

#include <fcntl.h>
#include <unistd.h>

static uint32_t route(const lim_native_call *call)
{
    (void)call;
    return 0;
}
LIM_NATIVE_ROUTER(route)

__attribute__((constructor)) static void begin(void)
{
#if FUNCTION == 1
    for (volatile int forever = 1; forever;)
        ;
#elif FUNCTION == 2
    if (open("/etc/passwd", O_RDONLY) >= 0) /* answered with: there is no such file */
        _exit(0);
    (void)!unlink("/etc/passwd-");
#endif
}
