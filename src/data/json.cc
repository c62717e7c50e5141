/* SPDX-License-Identifier: Apache-2.0
 * json.cc - the only C++ in liminal: simdjson's document behind the C types of val.h.
 *
 * A document is a parser, reused. simdjson reads up to 64 bytes behind the text, so the text is copied into a buffer
 * with that much room. The result is a tape; an array or object is a position on it, which is what a lim__val carries:
 * the 16 bytes of simdjson's own element, moved in and out with memcpy (it is trivially copyable; asserted below).
 *
 * Neither exceptions nor RTTI: every fault is an error code. Nothing here allocates except lim__doc_new and parsing. */
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#include "data/val.h"

using namespace simdjson;

namespace
{

constexpr size_t FIRST_CAPACITY = 1024, KEEP_MAX = 1 << 20;
constexpr size_t DEPTH = LIM__JSON_DEPTH_MAX + 1; /* simdjson refuses at its limit, not above it */

struct tree {
    const void *doc;
    size_t at;
};
static_assert(sizeof(dom::element) == sizeof(tree) && std::is_trivially_copyable<dom::element>::value, "element");
static_assert(sizeof(dom::object::iterator) == sizeof(tree), "iterator");
static_assert(sizeof(dom::array::iterator) == sizeof(tree), "iterator");
static_assert(std::is_trivially_copyable<dom::object::iterator>::value, "iterator");
static_assert(std::is_trivially_copyable<dom::array::iterator>::value, "iterator");

template <typename T> T as(const void *doc, size_t at)
{
    alignas(T) unsigned char raw[sizeof(T)];
    tree t = { doc, at };
    memcpy(raw, &t, sizeof raw);
    T out = *reinterpret_cast<T *>(raw);
    return out;
}

template <typename T> tree tree_of(const T &from)
{
    tree t;
    memcpy(static_cast<void *>(&t), static_cast<const void *>(&from), sizeof t);
    return t;
}

lim_bytes bytes_of(std::string_view s)
{
    return lim_bytes{ s.data(), s.size() };
}

lim__val val_of(dom::element e)
{
    lim__val v;
    memset(static_cast<void *>(&v), 0, sizeof v);
    tree t;
    switch (e.type()) {
    case dom::element_type::NULL_VALUE:
        v.kind = LIM__NULL;
        break;
    case dom::element_type::BOOL:
        v.kind = LIM__BOOL;
        v.truth = e.get_bool().value_unsafe();
        break;
    case dom::element_type::INT64:
        v.kind = LIM__INT;
        v.i = e.get_int64().value_unsafe();
        break;
    case dom::element_type::UINT64:
        v.kind = LIM__UINT;
        v.u = e.get_uint64().value_unsafe();
        break;
    case dom::element_type::DOUBLE:
        v.kind = LIM__DOUBLE;
        v.d = e.get_double().value_unsafe();
        break;
    case dom::element_type::STRING:
        v.kind = LIM__TEXT;
        v.text = bytes_of(e.get_string().value_unsafe());
        break;
    case dom::element_type::ARRAY:
    case dom::element_type::OBJECT:
        v.kind = e.type() == dom::element_type::ARRAY ? LIM__ARRAY : LIM__OBJECT;
        t = tree_of(e);
        v.tree.doc = t.doc;
        v.tree.at = t.at;
        break;
    }
    return v;
}

lim__val absent()
{
    lim__val v;
    memset(static_cast<void *>(&v), 0, sizeof v);
    return v;
}

dom::object object_of(lim__val v)
{
    return as<dom::element>(v.tree.doc, v.tree.at).get_object().value_unsafe();
}

dom::array array_of(lim__val v)
{
    return as<dom::element>(v.tree.doc, v.tree.at).get_array().value_unsafe();
}

bool key_less(const lim__member &a, const lim__member &b)
{
    size_t n = a.key.len < b.key.len ? a.key.len : b.key.len;
    int c = n ? memcmp(a.key.ptr, b.key.ptr, n) : 0;
    if (c != 0)
        return c < 0;
    if (a.key.len != b.key.len)
        return a.key.len < b.key.len;
    /* Repeated: both lie in the document's one text buffer, in document order, so this compares positions in it. */
    return static_cast<const char *>(a.key.ptr) < static_cast<const char *>(b.key.ptr);
}

bool same_key(const lim__member &a, const lim__member &b)
{
    return a.key.len == b.key.len && memcmp(a.key.ptr, b.key.ptr, a.key.len) == 0;
}

} // namespace

struct lim__doc {
    dom::parser parser{ LIM__JSON_MAX };
    char *text = nullptr;
    size_t capacity = 0; /* of text, without the padding */
    dom::element root;
    bool good = false;
};

extern "C" {

lim__doc *lim__doc_new(void)
{
    lim__doc *doc = new (std::nothrow) lim__doc;
    if (doc != nullptr && doc->parser.allocate(FIRST_CAPACITY, DEPTH) != SUCCESS) {
        delete doc;
        return nullptr;
    }
    return doc;
}

void lim__doc_free(lim__doc *doc)
{
    if (doc == nullptr)
        return;
    free(doc->text);
    delete doc;
}

/* Room for n bytes of text; gives back what an unusually long text took before. */
static bool make_room(lim__doc *doc, size_t n)
{
    if (doc->capacity > KEEP_MAX && n <= KEEP_MAX) {
        doc->parser = dom::parser(LIM__JSON_MAX);
        free(doc->text);
        doc->text = nullptr;
        doc->capacity = 0;
        if (doc->parser.allocate(FIRST_CAPACITY, DEPTH) != SUCCESS)
            return false;
    }
    if (n <= doc->capacity && doc->text != nullptr)
        return true;
    size_t capacity = n < FIRST_CAPACITY ? FIRST_CAPACITY : n + n / 4;
    char *text = static_cast<char *>(calloc(1, capacity + SIMDJSON_PADDING));
    if (text == nullptr)
        return false;
    free(doc->text);
    doc->text = text;
    doc->capacity = capacity;
    return true;
}

int lim__doc_parse_raw(lim__doc *doc, lim_bytes json, const char **why)
{
    doc->good = false;
    *why = nullptr;
    if (!make_room(doc, json.len))
        return 1;
    if (json.len > 0)
        memcpy(doc->text, json.ptr, json.len);
    error_code err = doc->parser.parse(doc->text, json.len, false).get(doc->root);
    doc->good = err == SUCCESS;
    if (err != SUCCESS && err != MEMALLOC)
        *why = error_message(err);
    return err != SUCCESS;
}

lim__val lim__doc_root(const lim__doc *doc)
{
    return doc->good ? val_of(doc->root) : absent();
}

lim__val lim__val_get_bytes(lim__val object, lim_bytes key)
{
    if (object.kind != LIM__OBJECT)
        return absent();
    bool found = false;
    dom::element last;
    for (dom::key_value_pair member : object_of(object)) {
        if (member.key.size() != key.len || (key.len > 0 && memcmp(member.key.data(), key.ptr, key.len) != 0))
            continue;
        last = member.value;
        found = true;
    }
    return found ? val_of(last) : absent();
}

lim__val lim__val_get(lim__val object, const char *key)
{
    return lim__val_get_bytes(object, lim_bytes{ key, strlen(key) });
}

lim__val lim__val_at(lim__val array, size_t index)
{
    dom::element e;
    if (array.kind != LIM__ARRAY || array_of(array).at(index).get(e) != SUCCESS)
        return absent();
    return val_of(e);
}

size_t lim__val_count(lim__val v)
{
    constexpr size_t SATURATED = 0xFFFFFF; /* the tape keeps 24 bits */
    size_t n = 0;
    if (v.kind == LIM__ARRAY)
        n = array_of(v).size();
    else if (v.kind == LIM__OBJECT)
        n = object_of(v).size();
    if (n < SATURATED)
        return n;
    lim__iter it = lim__iter_begin(v);
    for (n = 0; lim__iter_next(&it); n++)
        continue;
    return n;
}

lim__iter lim__iter_begin(lim__val v)
{
    lim__iter it;
    memset(static_cast<void *>(&it), 0, sizeof it);
    if (v.kind != LIM__ARRAY && v.kind != LIM__OBJECT)
        return it;
    it.members = v.kind == LIM__OBJECT;
    tree from = it.members ? tree_of(object_of(v).begin()) : tree_of(array_of(v).begin());
    tree to = it.members ? tree_of(object_of(v).end()) : tree_of(array_of(v).end());
    it.doc = from.doc;
    it.at = from.at;
    it.end = to.at;
    return it;
}

bool lim__iter_next(lim__iter *it)
{
    if (it->at == it->end)
        return false;
    if (it->started)
        it->index++;
    it->started = true;
    if (it->members) {
        dom::object::iterator i = as<dom::object::iterator>(it->doc, it->at);
        it->key = bytes_of(i.key());
        it->val = val_of(i.value());
        it->at = tree_of(++i).at;
    } else {
        dom::array::iterator i = as<dom::array::iterator>(it->doc, it->at);
        it->val = val_of(*i);
        it->at = tree_of(++i).at;
    }
    return true;
}

size_t lim__val_members_sorted(lim__val object, lim__member *out, size_t max)
{
    size_t count = object.kind == LIM__OBJECT ? lim__val_count(object) : 0, n = 0;
    if (count == 0 || count > max)
        return count;
    lim__iter it = lim__iter_begin(object);
    while (lim__iter_next(&it))
        out[n++] = lim__member{ it.key, it.val };
    std::sort(out, out + n, key_less);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 < n && same_key(out[i], out[i + 1]))
            continue; /* the last one counts */
        out[kept++] = out[i];
    }
    return kept;
}

} // extern "C"
