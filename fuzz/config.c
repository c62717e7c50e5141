/* SPDX-License-Identifier: Apache-2.0
 * config.c - any bytes as liminald's configuration file: faults with places, or values that are printed and read again
 * to the same. The bytes up to the first newline are also read as the value of every variable.
 *
 * With libFuzzer: ./dev fuzz config 60. Alone (-DLIM_FUZZ_ALONE): each argument is a file to run, for regressions. */
#include "os/os.h"
#include "server/config.h"

#include <stdio.h>
#include <stdlib.h>

static void there_and_back(const lim__config *c)
{
    lim__config again;
    lim__buf printed = { 0 };
    lim__config_print(c, &printed);
    lim__config_init(&again);
    lim__config_text(&again, "again", lim__buf_bytes(&printed));
    lim__config_finish(&again);
    LIM_ASSERT(again.fault_count == 0);
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        LIM_ASSERT(c->values[i].n == again.values[i].n);
        LIM_ASSERT(strcmp(c->values[i].text, again.values[i].text) == 0);
    }
    lim__buf_fini(&printed);
    lim__config_fini(&again);
}

static void judged(lim__config *c)
{
    lim__buf faults = { 0 };
    lim__config_finish(c);
    LIM_ASSERT(!c->no_memory);
    lim__config_faults(c, &faults);
    LIM_ASSERT((lim__buf_len(&faults) > 0) == (c->fault_count > 0));
    if (c->fault_count == 0)
        there_and_back(c);
    lim__buf_fini(&faults);
    lim__config_fini(c);
}

static void as_variables(lim_bytes bytes)
{
    const char *newline = bytes.len > 0 ? memchr(bytes.ptr, '\n', bytes.len) : NULL;
    size_t len = newline != NULL ? (size_t)(newline - (const char *)bytes.ptr) : bytes.len;
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        lim__config c;
        lim__buf text = { 0 };
        char name[LIM__CONFIG_NAME_MAX + 1];
        lim__buf_format(&text, "%s=", lim__config_name((lim__config_key)i, LIM__CONFIG_AS_VARIABLE, name));
        lim__buf_add(&text, bytes.ptr, len);
        lim__buf_add(&text, "", 1);
        char *env[] = { (char *)text.ptr, NULL };
        lim__config_init(&c);
        lim__config_environment(&c, env);
        judged(&c);
        lim__buf_fini(&text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lim__config c;
    lim__config_init(&c);
    lim__config_text(&c, "fuzz", lim__bytes(data, size));
    judged(&c);
    as_variables(lim__bytes(data, size));
    return 0;
}

#include "alone.h"
