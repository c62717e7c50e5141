/* SPDX-License-Identifier: Apache-2.0
 * predicate.c - a predicate, and behind a zero byte a message: what is read can be written and read again, and the code
 * answers what the tree answers, which is what is told when it is explained.
 *
 * With libFuzzer: ./dev fuzz predicate 60. Alone (-DLIM_FUZZ_ALONE): each argument is a file to run, for regressions.
 */
#include "os/os.h"
#include "route/predicate.h"

#include <stdlib.h>

static void there_and_back(const lim__pred *p)
{
    lim__buf once = { 0 }, twice = { 0 };
    lim__pred_tree again = { 0 };
    lim__pred_print(&p->tree, p->tree.root, &once);
    lim_err err = lim__pred_parse(lim__buf_bytes(&once), &again, NULL);
    LIM_ASSERT(err == LIM_OK || err == LIM_E_TOOBIG); /* more parentheses, more blanks */
    if (err == LIM_OK) {
        lim__pred_print(&again, again.root, &twice);
        LIM_ASSERT(lim__bytes_eq(lim__buf_bytes(&once), lim__buf_bytes(&twice)));
    }
    lim__pred_tree_fini(&again);
    lim__buf_fini(&once);
    lim__buf_fini(&twice);
}

static void on_step(void *ctx, const lim_predicate_step *step)
{
    *(size_t *)ctx += strlen(step->text) + strlen(step->why);
    LIM_ASSERT(lim__text_ok(lim__str(step->text)) && lim__text_ok(lim__str(step->why)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lim__pred_reader reader;
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    lim_bytes text = { data, zero != NULL ? (size_t)(zero - data) : size };
    lim_bytes message = zero != NULL ? lim__bytes(zero + 1, size - text.len - 1) : lim__str("{\"a\":1}");
    lim__pred *p = NULL;
    lim_diag diag = { 0 };
    size_t told = 0;
    lim_err err = lim__pred_new(text, &diag, &p);
    LIM_ASSERT((err == LIM_OK) == (p != NULL) && (err == LIM_OK || diag.text[0] != '\0'));
    if (p == NULL)
        return 0;
    there_and_back(p);
    lim__pred_reader_begin(&reader, message, lim__bytes(NULL, 0));
    bool code = lim__pred_match(p, &reader);
    LIM_ASSERT(code == lim__pred_tree_match(&p->tree, p->tree.root, &reader));
    LIM_ASSERT(code == lim__pred_explain(&p->tree, p->tree.root, 0, &reader, on_step, &told));
    lim__pred_free(p);
    return 0;
}

#include "alone.h"
