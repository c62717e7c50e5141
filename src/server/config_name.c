/* SPDX-License-Identifier: Apache-2.0
 * config_name.c - the three spellings of a key, and the one that was probably meant.
 *
 *      log.level   --log-level   LIMINAL_LOG_LEVEL                    payload_max   --payload-max   LIMINAL_PAYLOAD_MAX
 */
#include "server/config.h"
#include "base/near.h"

#include <ctype.h>
#include <stdio.h>

const char *lim__config_name(lim__config_key key, lim__config_spelling as, char out[LIM__CONFIG_NAME_MAX + 1])
{
    const char *prefix = as == LIM__CONFIG_AS_FLAG ? "--" : as == LIM__CONFIG_AS_VARIABLE ? "LIMINAL_" : "";
    int n = snprintf(out, LIM__CONFIG_NAME_MAX + 1, "%s%s", prefix, lim__config_table[key].path);
    LIM_ASSERT(n > 0 && n <= LIM__CONFIG_NAME_MAX);
    for (char *c = out + strlen(prefix); as != LIM__CONFIG_AS_PATH && *c != '\0'; c++) {
        bool joint = *c == '.' || *c == '_';
        *c = joint                       ? (as == LIM__CONFIG_AS_FLAG ? '-' : '_')
             : as == LIM__CONFIG_AS_FLAG ? *c
                                         : (char)toupper((uint8_t)*c);
    }
    return out;
}

bool lim__config_find(lim_bytes name, lim__config_spelling as, lim__config_key *out)
{
    char spelled[LIM__CONFIG_NAME_MAX + 1];
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        if (lim__bytes_eq(name, lim__str(lim__config_name((lim__config_key)i, as, spelled)))) {
            *out = (lim__config_key)i;
            return true;
        }
    }
    return false;
}

bool lim__config_is_group(const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        const char *known = lim__config_table[i].path;
        if (strncmp(known, path, len) == 0 && known[len] == '.')
            return true;
    }
    return false;
}

typedef struct nearest {
    const char *name;
    size_t distance;
} nearest;

static bool offer(nearest *best, lim_bytes word, const char *known)
{
    size_t d = lim__name_distance(word, lim__str(known));
    if (d >= best->distance)
        return false;
    *best = (nearest){ known, d };
    return true;
}

const char *lim__config_nearest(lim_bytes name, lim__config_spelling as, char out[LIM__CONFIG_NAME_MAX + 1])
{
    static const char *const flags[] = { "--config", "--check-config", "--print-config", "--help", "--version" };
    char spelled[LIM__CONFIG_NAME_MAX + 1];
    nearest best = { "", SIZE_MAX };
    if (name.len > LIM__CONFIG_NAME_MAX)
        name.len = LIM__CONFIG_NAME_MAX;
    for (size_t i = 0; i < LIM__CONFIG_KEYS; i++) {
        if (offer(&best, name, lim__config_name((lim__config_key)i, as, spelled)))
            best.name = strcpy(out, spelled);
    }
    for (size_t i = 0; as == LIM__CONFIG_AS_FLAG && i < LIM_COUNT(flags); i++) {
        if (offer(&best, name, flags[i]))
            best.name = strcpy(out, flags[i]);
    }
    return best.name;
}
