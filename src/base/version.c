/* SPDX-License-Identifier: Apache-2.0
 * version.c - which liminal this is. */
#include <liminal/types.h>

const char *lim_version(void)
{
    return LIM_VERSION;
}
