/* SPDX-License-Identifier: Apache-2.0
 * alone.h - a fuzz target without libFuzzer (-DLIM_FUZZ_ALONE): each argument is a file to run, for regressions.
 *
 * Included once, behind the target. */
#ifndef LIM_FUZZ_ALONE_H
#define LIM_FUZZ_ALONE_H

#ifdef LIM_FUZZ_ALONE
#include "os/os.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        void *bytes;
        size_t size;
        if (lim__file_read(argv[i], 1 << 20, &bytes, &size) != 0)
            return 1;
        LLVMFuzzerTestOneInput(bytes, size);
        free(bytes);
    }
    return 0;
}
#endif

#endif
