/* SPDX-License-Identifier: Apache-2.0
 * artifact.c - bytes that are named by their SHA-256, each kept once.
 *
 * The store is a hash-ordered array for look-ups by hash or by the start of one, and a list in the order things were
 * put, for people. Both are guarded by one leaf mutex; hashing happens before it is taken. Artifacts number in the
 * hundreds and are put by people: an insertion may move an array.
 *
 * Invariants (artifacts_check):
 *   F1  `sorted` is ordered by hash, then engine, without repetition.
 *   F2  everything in `sorted` is in `order` once, and the store holds one reference to it.
 *   F3  an artifact's fields never change after lim__artifact_new returned, except `refs`. */
#include "artifact/artifact.h"

#include <openssl/evp.h>
#include <stdlib.h>

/* ---- hashes ---- */

lim_err lim__sha256(lim_bytes bytes, uint8_t out[static LIM__HASH_SIZE])
{
    unsigned len = 0;
    const void *from = bytes.len > 0 ? bytes.ptr : "";
    if (EVP_Digest(from, bytes.len, out, &len, EVP_sha256(), NULL) != 1 || len != LIM__HASH_SIZE)
        return LIM_E_IO;
    return LIM_OK;
}

static void hex(const uint8_t *bytes, size_t count, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = 0;
}

void lim__hash_text(const uint8_t hash[static LIM__HASH_SIZE], char out[static LIM__HASH_TEXT])
{
    hex(hash, LIM__HASH_SIZE, out);
}

void lim__hash_short_text(const uint8_t hash[static LIM__HASH_SIZE], char out[static LIM__HASH_SHORT])
{
    hex(hash, (LIM__HASH_SHORT - 1) / 2, out);
}

const char *lim__engine_text(lim__engine engine)
{
    static const char *const texts[] = { "unknown", "builtin", "lua", "native", "host" };
    return (size_t)engine < LIM_COUNT(texts) ? texts[engine] : texts[0];
}

/* ---- one artifact ---- */

/* One block: the struct, the bytes, the name. The bytes end with a NUL that does not count. */
static lim__artifact *artifact_make(lim__engine engine, lim_bytes bytes, const char *name, uint64_t now_ns,
                                    const uint8_t *hash)
{
    size_t name_size = strlen(name) + 1;
    lim__artifact *a = malloc(sizeof *a + bytes.len + 1 + name_size);
    if (a == NULL)
        return NULL;
    uint8_t *inline_bytes = (uint8_t *)(a + 1);
    char *inline_name = (char *)inline_bytes + bytes.len + 1;
    memcpy(inline_bytes, bytes.ptr, bytes.len);
    inline_bytes[bytes.len] = 0;
    memcpy(inline_name, name, name_size);
    *a = (lim__artifact){
        .engine = engine, .bytes = { inline_bytes, bytes.len }, .name = inline_name, .loaded_at_ns = now_ns, .refs = 1
    };
    memcpy(a->hash, hash, LIM__HASH_SIZE);
    lim__hash_short_text(hash, a->id);
    return a;
}

lim_err lim__artifact_new(lim__engine engine, lim_bytes bytes, const char *name, uint64_t now_ns, lim__artifact **out)
{
    uint8_t hash[LIM__HASH_SIZE];
    if (bytes.len == 0 || bytes.ptr == NULL)
        return LIM_E_INVALID;
    lim_err err = lim__sha256(bytes, hash);
    if (err != LIM_OK)
        return err;
    lim__artifact *a = artifact_make(engine, bytes, name ? name : "", now_ns, hash);
    if (a == NULL)
        return LIM_E_NOMEM;
    *out = a;
    return LIM_OK;
}

lim__artifact *lim__artifact_ref(lim__artifact *a)
{
    if (a == NULL)
        return NULL;
    uint32_t before = __atomic_fetch_add(&a->refs, 1, __ATOMIC_RELAXED);
    LIM_ASSERT(before > 0 && before < UINT32_MAX);
    return a;
}

void lim__artifact_unref(lim__artifact *a)
{
    if (a == NULL)
        return;
    /* release and acquire: everybody's last read happens before the free */
    uint32_t before = __atomic_fetch_sub(&a->refs, 1, __ATOMIC_ACQ_REL);
    LIM_ASSERT(before > 0);
    if (before == 1)
        free(a);
}

/* ---- the store ---- */

struct lim__artifacts {
    lim__mutex mutex; /* leaf; guards all below */
    lim__artifact **sorted, **order;
    size_t count, capacity;
};

static int compare(const uint8_t *hash, lim__engine engine, const lim__artifact *b)
{
    int c = memcmp(hash, b->hash, LIM__HASH_SIZE);
    return c != 0 ? c : (int)engine - (int)b->engine;
}

/* The first place in `sorted` that is not below (hash, engine). */
static size_t lower_bound_locked(const lim__artifacts *s, const uint8_t *hash, lim__engine engine)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(hash, engine, s->sorted[mid]) > 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void artifacts_check(const lim__artifacts *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const lim__artifact *a = s->sorted[i];
        LIM_CHECK(i == 0 || compare(a->hash, a->engine, s->sorted[i - 1]) > 0); /* F1 */
        LIM_CHECK(a->refs > 0 && s->order[i]->refs > 0);                        /* F2 */
        (void)a;
    }
}

lim__artifacts *lim__artifacts_new(void)
{
    lim__artifacts *s = calloc(1, sizeof *s);
    if (s != NULL && pthread_mutex_init(&s->mutex, NULL) != 0) {
        free(s);
        return NULL;
    }
    return s;
}

void lim__artifacts_free(lim__artifacts *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->count; i++)
        lim__artifact_unref(s->order[i]);
    free(s->sorted);
    free(s->order);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* Room for one more in both arrays. */
static bool reserve_locked(lim__artifacts *s)
{
    if (s->count < s->capacity)
        return true;
    size_t capacity = s->capacity > 0 ? 2 * s->capacity : 16;
    lim__artifact **sorted = realloc(s->sorted, capacity * sizeof *sorted);
    if (sorted == NULL)
        return false;
    s->sorted = sorted;
    lim__artifact **order = realloc(s->order, capacity * sizeof *order);
    if (order == NULL)
        return false;
    s->order = order;
    s->capacity = capacity;
    return true;
}

/* Takes over the caller's reference to `a` if it is new, else answers the one that is there. */
static lim_err put_locked(lim__artifacts *s, lim__artifact *a, lim__artifact **out)
{
    size_t at = lower_bound_locked(s, a->hash, a->engine);
    if (at < s->count && compare(a->hash, a->engine, s->sorted[at]) == 0) {
        *out = lim__artifact_ref(s->sorted[at]);
        return LIM_OK;
    }
    if (!reserve_locked(s))
        return LIM_E_NOMEM;
    memmove(s->sorted + at + 1, s->sorted + at, (s->count - at) * sizeof *s->sorted);
    s->sorted[at] = a;
    s->order[s->count++] = a;
    *out = lim__artifact_ref(a);
    artifacts_check(s);
    return LIM_OK;
}

lim_err lim__artifacts_put(lim__artifacts *s, lim__engine engine, lim_bytes bytes, const char *name, uint64_t now_ns,
                           bool *fresh, lim__artifact **out)
{
    lim__artifact *made, *kept = NULL;
    lim_err err = lim__artifact_new(engine, bytes, name, now_ns, &made);
    if (err != LIM_OK)
        return err;
    pthread_mutex_lock(&s->mutex);
    err = put_locked(s, made, &kept);
    pthread_mutex_unlock(&s->mutex);
    if (kept != made)
        lim__artifact_unref(made);
    if (err != LIM_OK)
        return err;
    if (fresh != NULL)
        *fresh = kept == made;
    *out = kept;
    return LIM_OK;
}

/* ---- finding ---- */

static int nibble(uint8_t c)
{
    uint8_t low = c | 0x20;
    return c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* Hex digits to the smallest hash that starts with them. */
static bool parse_prefix(lim_bytes text, uint8_t hash[static LIM__HASH_SIZE])
{
    const uint8_t *p = text.ptr;
    if (text.len < LIM__HASH_PREFIX_MIN || text.len > 2 * LIM__HASH_SIZE)
        return false;
    memset(hash, 0, LIM__HASH_SIZE);
    for (size_t i = 0; i < text.len; i++) {
        int n = nibble(p[i]);
        if (n < 0)
            return false;
        hash[i / 2] |= (uint8_t)(i % 2 ? n : n << 4);
    }
    return true;
}

static bool starts_with(const uint8_t *hash, const uint8_t *prefix, size_t digits)
{
    if (memcmp(hash, prefix, digits / 2) != 0)
        return false;
    return digits % 2 == 0 || hash[digits / 2] >> 4 == prefix[digits / 2] >> 4;
}

static lim_err get_locked(lim__artifacts *s, const uint8_t *prefix, size_t digits, lim__artifact **out)
{
    lim__artifact *found = NULL;
    for (size_t i = lower_bound_locked(s, prefix, (lim__engine)0); i < s->count; i++) {
        lim__artifact *a = s->sorted[i];
        if (!starts_with(a->hash, prefix, digits))
            break;
        if (found != NULL && memcmp(found->hash, a->hash, LIM__HASH_SIZE) != 0)
            return LIM_E_EXISTS;
        if (found == NULL || a->loaded_at_ns >= found->loaded_at_ns)
            found = a;
    }
    if (found == NULL)
        return LIM_E_NOTFOUND;
    *out = lim__artifact_ref(found);
    return LIM_OK;
}

lim_err lim__artifacts_get(lim__artifacts *s, lim_bytes text, lim__artifact **out)
{
    uint8_t prefix[LIM__HASH_SIZE];
    if (!parse_prefix(text, prefix))
        return LIM_E_INVALID;
    pthread_mutex_lock(&s->mutex);
    lim_err err = get_locked(s, prefix, text.len, out);
    pthread_mutex_unlock(&s->mutex);
    return err;
}

size_t lim__artifacts_list(lim__artifacts *s, lim__artifact **out, size_t max)
{
    pthread_mutex_lock(&s->mutex);
    size_t count = s->count;
    for (size_t i = 0; i < count && i < max; i++)
        out[i] = lim__artifact_ref(s->order[i]);
    pthread_mutex_unlock(&s->mutex);
    return count;
}

size_t lim__artifacts_count(lim__artifacts *s)
{
    pthread_mutex_lock(&s->mutex);
    size_t count = s->count;
    pthread_mutex_unlock(&s->mutex);
    return count;
}

/* Takes `a` out of an array of `count`; false: it is not there. */
static bool take_out(lim__artifact **array, size_t count, const lim__artifact *a)
{
    for (size_t i = 0; i < count; i++) {
        if (array[i] != a)
            continue;
        memmove(array + i, array + i + 1, (count - i - 1) * sizeof *array);
        return true;
    }
    return false;
}

bool lim__artifacts_forget(lim__artifacts *s, const lim__artifact *a)
{
    pthread_mutex_lock(&s->mutex);
    bool found = take_out(s->order, s->count, a) && take_out(s->sorted, s->count, a);
    s->count -= found;
    artifacts_check(s);
    pthread_mutex_unlock(&s->mutex);
    if (found)
        lim__artifact_unref((lim__artifact *)a);
    return found;
}
