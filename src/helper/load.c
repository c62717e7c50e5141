/* SPDX-License-Identifier: Apache-2.0
 * load.c - the bytes become a function, or it is said why not.
 *
 * The loader opens /proc/self/fd/4 in name only: the call is trapped (cage.c), and it reads the sealed memory that the
 * bus sent. Its constructors run here, under the filter and the limits, with time running. */
#include "helper/helper.h"

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static _Noreturn void refuse(const char *why)
{
    cage_note(LIM__RING_SAYS, 0, why);
    atomic_store(&self.answers->state, LIM__RING_REFUSED);
    cage_end();
}

/* The loader's words without the name that it was given. */
static _Noreturn void refuse_dl(void)
{
    static const char prefix[] = "/proc/self/fd/4: ";
    const char *text = dlerror();
    if (text == NULL)
        text = "it cannot be loaded";
    refuse(strncmp(text, prefix, sizeof prefix - 1) == 0 ? text + sizeof prefix - 1 : text);
}

static void check(const lim_native_router *r)
{
    char text[LIM__RING_TEXT];
    if (r->abi != LIM_NATIVE_ABI) {
        snprintf(text, sizeof text,
                 "it was built for version %u of liminal/native.h; this is version %d: build it again", r->abi,
                 LIM_NATIVE_ABI);
        refuse(text);
    }
    if (r->size < sizeof *r || r->route == NULL)
        refuse(LIM_NATIVE_SYMBOL " names no function: use LIM_NATIVE_ROUTER(function)");
}

void load_function(void)
{
    void *code = dlopen("/proc/self/fd/4", RTLD_NOW | RTLD_LOCAL);
    if (code == NULL)
        refuse_dl();
    const lim_native_router *r = dlsym(code, LIM_NATIVE_SYMBOL);
    if (r == NULL)
        refuse("it exports no " LIM_NATIVE_SYMBOL ": name the function with LIM_NATIVE_ROUTER(function)");
    check(r);
    close(CODE_FD);
    self.router = r;
}
