/* SPDX-License-Identifier: Apache-2.0
 * yaml.h - a YAML text as a JSON document, with the place of every value.
 *
 * YAML 1.2, core schema: only null, true and false (and their two other spellings), numbers and text; `no` is a text.
 * What makes a text mean something else than it shows is refused: anchors, aliases, tags, repeated keys, a second
 * document. Every fault is told with its line and column and what to do; reading goes on where that makes sense. */
#ifndef LIM__YAML_H
#define LIM__YAML_H

#include "data/data.h"

enum { LIM__YAML_BYTES_MAX = 1 << 20, LIM__YAML_DEPTH_MAX = 32, LIM__YAML_CLIP = 64 };

typedef struct lim__yaml_place { /* lines and columns from 1; columns count characters */
    int line, column;
    int key_line, key_column; /* 0 outside of a mapping */
    bool faulty;              /* a fault was told about this value: nothing should be made of it */
} lim__yaml_place;

typedef struct lim__yaml { /* zeroed before the first use */
    lim__doc *doc;
    lim__yaml_place *places; /* one per value of the document, in its order, the root first; keys have none */
    size_t count, cap;
} lim__yaml;

typedef void lim__yaml_on_fault(void *ctx, int line, int column, const char *text); /* text: "WHAT: WHY; WHAT TO DO" */

/* LIM_OK: there is a document (null: the text says nothing), though some of it may be faulty. INVALID: it could not be
 * read to its end, which was told to on_fault; TOOBIG (told too); NOMEM (not told). */
lim_err lim__yaml_read(lim__yaml *y, lim_bytes text, lim__yaml_on_fault *on_fault, void *ctx);
void lim__yaml_fini(lim__yaml *y);

/* One word as the plain scalar it would be in a file: `doc` has it as its root. `text` ends with a NUL. INVALID: a number
 * that JSON cannot hold; `*why` says so (static). NOMEM. */
lim_err lim__yaml_plain(lim__doc *doc, lim_bytes text, const char **why);

/* For messages: at most LIM__YAML_CLIP bytes of the text, cut between characters, control characters as '?'. Answers out. */
const char *lim__yaml_clip(lim_bytes text, char out[LIM__YAML_CLIP + 4]);

#endif
