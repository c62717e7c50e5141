/* SPDX-License-Identifier: Apache-2.0
 * json.c - any bytes as a JSON text: both scanners agree on whether it is one, and what is read can be written and read
 * again to the same writing. The bytes are also read as packed headers, which must stay within them.
 *
 * With libFuzzer: ./dev fuzz json 60. Alone (-DLIM_FUZZ_ALONE): each argument is a file to run, for regressions. */
#include "data/data.h"
#include "os/os.h"

#include <stdlib.h>

static void write_again(lim__val v, lim__buf *out)
{
    lim__json j = lim__json_begin(out);
    lim__json_val(&j, NULL, v);
    LIM_ASSERT(!out->failed);
}

static void there_and_back(lim__doc *doc)
{
    lim__buf once = { 0 }, twice = { 0 };
    write_again(lim__doc_root(doc), &once);
    LIM_ASSERT(lim__doc_parse(doc, lim__buf_bytes(&once), NULL) == LIM_OK);
    write_again(lim__doc_root(doc), &twice);
    LIM_ASSERT(lim__bytes_eq(lim__buf_bytes(&once), lim__buf_bytes(&twice)));
    lim__buf_fini(&once);
    lim__buf_fini(&twice);
}

static void packed(lim_bytes block)
{
    size_t pos = 0;
    lim_bytes key, text;
    while (lim__packed_next(block, &pos, &key, &text))
        LIM_ASSERT(pos <= block.len);
    (void)lim__packed_valid(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lim__doc *doc;
    if (doc == NULL)
        doc = lim__doc_new();
    lim_bytes text = { data, size };
    lim_diag diag;
    bool good = lim__doc_parse(doc, text, NULL) == LIM_OK;
    LIM_ASSERT(good != lim__json_fault(text, &diag));
    if (good)
        there_and_back(doc);
    packed(text);
    return 0;
}

#include "alone.h"
