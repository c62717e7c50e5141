/* SPDX-License-Identifier: Apache-2.0
 * version.c - the one object that libliminal adds to its folders. */
#include <liminal/types.h>

const char *lim_version(void)
{
    return LIM_VERSION;
}
