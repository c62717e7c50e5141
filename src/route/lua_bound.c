/* SPDX-License-Identifier: Apache-2.0
 * lua_bound.c - functions that are seen to end before their first hook, and are run without one.
 *
 * Counting instructions doubles what each of them costs, and most routing functions walk once over the candidates and
 * return. How many instructions such a function executes at most can be read from its code: what Lua compiled, as
 * lua_dump writes it. If that many are fewer than there are between two hooks, the hook could not be called, and so it
 * is not set. It still is as soon as something is charged (lua_limits.c): what a single instruction may cost is not
 * known here.
 *
 * A function is bounded by its code if all of this is true of it:
 *
 *   B1  every instruction is one of those below: none writes to a table, none calls anything but the message with one
 *       argument, and but for the message (lua_message.c) there are no metamethods.
 *   B2  the parameters are not assigned to. So `#candidates` is what the bus made it, for as long as the call lasts.
 *   B3  it jumps forward only, except to the top of a numeric `for` whose three numbers are constants or `#candidates`,
 *       set right before it, with nothing that jumps in between.
 *
 * Then each instruction is executed once, or as often as the loops around it go round, which depends on how many
 * candidates there are; lim__lua_bound answers up to how many the sum stays small enough. Whatever is not understood,
 * the version of Lua's binary format included, makes the answer 0. */
#include "route/lua.h"

enum { CODE_MAX = 1000, DUMP_MAX = 64 + 4 * CODE_MAX, MESSAGE = 0, CANDIDATES = 1 /* registers */ };

/* ---- what lua_dump writes ---- */

typedef struct dump {
    size_t len;
    uint8_t bytes[DUMP_MAX];
} dump;

/* Takes what fits: the outermost function's code comes first. */
static int take_bytes(lua_State *L, const void *bytes, size_t len, void *ctx)
{
    (void)L;
    dump *d = ctx;
    size_t room = sizeof d->bytes - d->len;
    memcpy(d->bytes + d->len, bytes, len < room ? len : room);
    d->len += len < room ? len : room;
    return len > room;
}

typedef struct code {
    const uint8_t *at;
    uint32_t count;
} code;

static bool read_size(const uint8_t **p, const uint8_t *end, uint32_t *out)
{
    *out = 0;
    while (*p < end && *out < 1u << 20) {
        uint8_t byte = *(*p)++;
        *out = *out << 7 | (byte & 0x7F);
        if (byte & 0x80)
            return true;
    }
    return false;
}

/* Lua 5.4, format 0, on a machine like this one; then: upvalues, no source, lines, parameters, varargs, stack, code. */
static bool find_code(const dump *d, code *out)
{
    static const uint8_t magic[] = "\x1bLua\x54\0\x19\x93\r\n\x1a\n\4\10\10";
    const lua_Integer whole = 0x5678;
    const lua_Number real = 370.5;
    uint8_t head[sizeof magic - 1 + sizeof whole + sizeof real];
    memcpy(head, magic, sizeof magic - 1);
    memcpy(head + sizeof magic - 1, &whole, sizeof whole);
    memcpy(head + sizeof magic - 1 + sizeof whole, &real, sizeof real);
    const uint8_t *p = d->bytes + sizeof head + 2, *end = d->bytes + d->len;
    uint32_t lines;
    if (d->len < sizeof head + 2 || memcmp(d->bytes, head, sizeof head) != 0 || p[-1] != 0x80)
        return false;
    if (!read_size(&p, end, &lines) || !read_size(&p, end, &lines) || end - p < 3)
        return false;
    bool two_parameters = p[0] == 2 && p[1] == 0;
    p += 3;
    if (!two_parameters || !read_size(&p, end, &out->count))
        return false;
    out->at = p;
    return out->count > 0 && out->count <= CODE_MAX && (size_t)(end - p) >= 4 * (size_t)out->count;
}

/* ---- instructions ---- */

enum { MOVE = 0, LOADI = 1, LFALSESKIP = 6, LEN = 52, JMP = 56, FORLOOP = 73, FORPREP = 74, OPCODES = 83 };
/* By opcode, in tens: W writes to register A, p neither writes nor jumps, t may skip the next, j jumps, c calls, others
 * are not understood. Arithmetic on what is no number goes through MMBIN, 46 to 48, and fails: nothing has metamethods
 * for it.
 */
static const char kinds[OPCODES + 1] =
    "WWWW.WWWWW" /* MOVE LOADI LOADF LOADK . LOADFALSE LFALSESKIP LOADTRUE LOADNIL .. */
    "pWWWW....." /* SETUPVAL GETTABUP GETTABLE GETI GETFIELD */
    ".WWWWWWWWW" /* arithmetic */
    "WWWWWWWWWW"
    "WWWWWWpppW" /* ... MMBIN MMBINI MMBINK UNM */
    "WWWW..jttt" /* BNOT NOT LEN CONCAT . . JMP EQ LT LE */
    "ttttttttc." /* EQK EQI LTI LEI GTI GEI TEST TESTSET CALL */
    "pppjW....." /* RETURN RETURN0 RETURN1 FORLOOP FORPREP */
    "...";
enum { TESTSET = 67, CALL = 68 }; /* they write, too */

static uint32_t word(const code *c, uint32_t pc)
{
    uint32_t i;
    memcpy(&i, c->at + 4 * (size_t)pc, sizeof i);
    return i;
}
static uint32_t op(uint32_t i)
{
    return i & 0x7F;
}
static uint32_t arg_a(uint32_t i)
{
    return i >> 7 & 0xFF;
}
static uint32_t arg_b(uint32_t i)
{
    return i >> 16 & 0xFF;
}
static uint32_t arg_c(uint32_t i)
{
    return i >> 24;
}
static uint32_t arg_bx(uint32_t i)
{
    return i >> 15;
}
static int64_t arg_sbx(uint32_t i)
{
    return (int64_t)(i >> 15) - 65535;
}
static int64_t arg_sj(uint32_t i)
{
    return (int64_t)(i >> 7) - 16777215;
}

/* ---- loops ---- */

typedef struct loop {    /* of one pass: `for i = first, last, step` */
    uint32_t begin, end; /* its FORPREP and FORLOOP */
    int64_t first, last, step;
    bool first_len, last_len; /* that one is #candidates */
} loop;

typedef struct bound {
    code code;
    uint32_t loop_count;
    loop loops[16];             /* by where they begin */
    bool reached[CODE_MAX + 2]; /* by something that jumps or skips */
} bound;

static bool note_jump(bound *b, uint32_t pc, int64_t by)
{
    int64_t to = (int64_t)pc + 1 + by;
    if (by < 0 || to > b->code.count)
        return false;
    b->reached[to] = true;
    return true;
}

/* msg("..."), for one value: the message and the argument are put where they are called right before, and nothing jumps
 * in between. Who stands in register 0 is known (B2). */
static bool check_call(const bound *b, uint32_t pc)
{
    uint32_t i = word(&b->code, pc), at = arg_a(i);
    if (pc < 2 || arg_b(i) != 2 || arg_c(i) != 2 || b->reached[pc - 1] || b->reached[pc])
        return false;
    uint32_t callee = word(&b->code, pc - 2), argument = word(&b->code, pc - 1);
    return op(callee) == MOVE && arg_b(callee) == MESSAGE && arg_a(callee) == at && kinds[op(argument)] == 'W' &&
           op(argument) != FORPREP && op(argument) != LFALSESKIP && arg_a(argument) == at + 1;
}

/* B1, B2, and of B3 all but the loops. */
static bool check_instruction(bound *b, uint32_t pc)
{
    uint32_t i = word(&b->code, pc), o = op(i);
    char kind = o < OPCODES ? kinds[o] : '.';
    if (kind == '.')
        return false;
    if ((kind == 'W' || o == TESTSET || o == CALL) && arg_a(i) <= CANDIDATES && !LIM__MUTATION("bound_blind"))
        return false;
    if (kind == 't' || o == LFALSESKIP)
        return note_jump(b, pc, 1);
    return o != JMP || note_jump(b, pc, arg_sj(i));
}

/* A number of a loop: set by instruction i to register `at`. */
static bool loop_number(uint32_t i, uint32_t at, int64_t *value, bool *len)
{
    *len = op(i) == LEN && arg_b(i) == CANDIDATES;
    *value = op(i) == LOADI ? arg_sbx(i) : 0;
    return (*len || op(i) == LOADI) && arg_a(i) == at;
}

static bool check_loop(bound *b, uint32_t pc)
{
    const code *c = &b->code;
    uint32_t prep = word(c, pc), at = arg_a(prep);
    bool step_len;
    if (pc < 3 || b->loop_count == LIM_COUNT(b->loops))
        return false;
    loop *l = &b->loops[b->loop_count++];
    l->begin = pc;
    l->end = pc + 1 + arg_bx(prep);
    if (b->reached[pc - 2] || b->reached[pc - 1] || b->reached[pc] || l->end >= c->count)
        return false;
    uint32_t back = word(c, l->end);
    return op(back) == FORLOOP && arg_a(back) == at && arg_bx(back) == l->end - pc &&
           loop_number(word(c, pc - 3), at, &l->first, &l->first_len) &&
           loop_number(word(c, pc - 2), at + 1, &l->last, &l->last_len) &&
           loop_number(word(c, pc - 1), at + 2, &l->step, &step_len) && !step_len && l->step != 0;
}

static bool check_code(bound *b)
{
    uint32_t ends = 0;
    for (uint32_t pc = 0; pc < b->code.count; pc++) {
        if (!check_instruction(b, pc))
            return false;
        ends += op(word(&b->code, pc)) == FORLOOP;
    }
    for (uint32_t pc = 0; pc < b->code.count; pc++) {
        uint32_t o = op(word(&b->code, pc));
        if ((o == FORPREP && !check_loop(b, pc)) || (o == CALL && !check_call(b, pc)))
            return false;
    }
    return ends == b->loop_count; /* each has its beginning: no two can share an end, by the distance in it */
}

/* ---- how often ---- */

static uint64_t rounds(const loop *l, int64_t n)
{
    int64_t first = l->first_len ? n : l->first, last = l->last_len ? n : l->last;
    int64_t count = (l->step > 0 ? last - first : first - last) + 1; /* a longer step makes it fewer */
    return count > 0 ? (uint64_t)count : 0;
}

/* Instructions with n candidates, at most; stops counting above LUA__STEP. */
static uint64_t instructions(const bound *b, int64_t n)
{
    uint64_t sum = 0;
    for (uint32_t pc = 0; pc < b->code.count && sum <= LUA__STEP; pc++) {
        uint64_t times = 1;
        for (uint32_t k = 0; k < b->loop_count && times <= LUA__STEP; k++) {
            if (pc > b->loops[k].begin && pc <= b->loops[k].end)
                times *= rounds(&b->loops[k], n);
        }
        sum += times;
    }
    return sum;
}

uint32_t lim__lua_bound(lua_State *L)
{
    dump d = { .len = 0 };
    bound b = { .loop_count = 0 };
    (void)lua_dump(L, take_bytes, &d, 1); /* 1: no names and lines; what follows the code may be missing */
    if (!find_code(&d, &b.code) || !check_code(&b))
        return 0;
    uint32_t n = 0;
    while (n < LUA__STEP && instructions(&b, (int64_t)n + 1) <= LUA__STEP)
        n++;
    return n;
}
