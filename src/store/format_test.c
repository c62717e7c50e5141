/* SPDX-License-Identifier: Apache-2.0
 * format_test.c - the bytes: fixed ones that must never change, and a reader that was written from
 * docs/internals/store.md and knows nothing of format.h. */
#include "store/test_world.h"
#include "base/crc32c.h"

/* ---- fixed bytes ---- */

static void test_a_batch_has_these_bytes_and_no_others(void **state)
{
    (void)state;
    static uint8_t batch[8192];
    lim__op op = { .kind = LIM__OP_APPEND, .key_len = 1, .data_len = 5, .stream = 2, .seq = 3, .wall_ns = 4000 };
    memcpy(batch + 64 + 40, "khello", 6);
    op.payload_crc = lim__crc32c(0, "khello", 6);
    memcpy(batch + 64, &op, sizeof op);
    lim__seal seal = { 7, lim__segment_seed(1, 7, 9) };
    assert_int_equal(seal.seed, 0xE04F9B85u);
    lim__batch_head h = { .lsn = 5, .synced_lsn = 4, .wall_ns = 4000, .ops_length = 48, .length = 48, .count = 1 };
    assert_int_equal(lim__batch_total(&h), 4096);
    lim__batch_seal(batch, &h, seal);
    assert_int_equal(lim__crc32c(0, batch, 4096), 0xBEC7C79Du);
    assert_true(lim__head_good(batch, 4096, seal, LIM__HEAD_MAGIC) && lim__payload_good(batch, seal));
    assert_true(lim__head_good(batch + 4096 - 64, 64, seal, LIM__FOOT_MAGIC));
    assert_true(lim__op_good(batch + 64, 48, seal));
    assert_false(lim__op_good(batch + 64, 47, seal));
    lim__seal other = { 7, lim__segment_seed(1, 7, 10) }; /* the next life of the same segment (J5) */
    assert_false(lim__head_good(batch, 4096, other, LIM__HEAD_MAGIC) || lim__payload_good(batch, other));
}

static void test_every_flipped_bit_of_a_batch_is_seen_by_some_checksum(void **state)
{
    (void)state;
    static uint8_t batch[4096];
    lim__op op = { .kind = LIM__OP_APPEND, .data_len = 24, .stream = 2, .seq = 3 };
    op.payload_crc = lim__crc32c(0, batch + 64 + 40, 24);
    memcpy(batch + 64, &op, sizeof op);
    lim__seal seal = { 7, 1234 };
    lim__batch_head h = { .lsn = 5, .ops_length = 64, .length = 64, .count = 1 };
    lim__batch_seal(batch, &h, seal);
    for (size_t bit = 0; bit < 8 * 128; bit++) {
        batch[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bool head = lim__head_good(batch, 4096, seal, LIM__HEAD_MAGIC);
        assert_false(head && lim__payload_good(batch, seal));
        assert_true(bit < 8 * 64 || !lim__op_good(batch + 64, 64, seal));
        batch[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_the_head_of_a_segment_survives_a_flip_in_either_copy(void **state)
{
    (void)state;
    static uint8_t block[4096];
    lim__segment_head head;
    lim__segment_seal end;
    lim__seal seal = { 2, lim__segment_seed(1, 2, 3) };
    lim__segment_head_make(block, 1, 2, 3, 65536);
    assert_false(lim__segment_seal_read(block, seal, &end));
    lim__segment_seal_make(block, seal, 77, 8192);
    for (size_t bit = 0; bit < 8 * 4096; bit += 3) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(lim__segment_head_read(block, &head), 0);
        assert_true(head.store_id == 1 && head.id == 2 && head.nonce == 3 && head.size == 65536);
        assert_true(lim__segment_seal_read(block, seal, &end) && end.last_lsn == 77 && end.end == 8192);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    block[20] ^= 1, block[2048 + 20] ^= 1;
    assert_int_equal(lim__segment_head_read(block, &head), -EBADMSG);
}

/* ---- a reader written from the document ---- */

typedef struct reader {
    uint8_t *bytes;
    size_t size;
    uint64_t lsn;
    uint32_t seed;
    char records[8][32][16]; /* of each stream, by number */
    char rows[64][16];       /* of table 1, by the number in their key */
} reader;

static uint64_t number(const uint8_t *at, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = bytes; i > 0; i--)
        n = n << 8 | at[i - 1];
    return n;
}

static void read_op(reader *r, const uint8_t *op)
{
    uint64_t key_len = number(op + 6, 2), data_len = number(op + 8, 4), stream = number(op + 16, 8);
    const char *key = (const char *)op + 40, *data = key + key_len;
    assert_int_equal(number(op, 4), lim__crc32c(r->seed, op + 4, 36));
    assert_int_equal(number(op + 12, 4), lim__crc32c(0, key, key_len + data_len));
    if (op[4] == 1 || op[4] == 2) { /* a copy is the same record */
        char *record = r->records[stream][number(op + 24, 8)];
        snprintf(record, sizeof r->records[0][0], "%.*s", (int)data_len, data);
    } else if (op[4] == 3 || op[4] == 4) {
        char row[8] = "";
        assert_int_equal(key[0], 1);
        memcpy(row, key + 4, key_len - 4);
        snprintf(r->rows[atoi(row)], sizeof r->rows[0], "%.*s", op[4] == 3 ? (int)data_len : 0, data);
    }
}

/* The batch at this offset; 0: there is none. Else where the next one is. */
static size_t read_batch(reader *r, size_t at)
{
    const uint8_t *b = r->bytes + at;
    if (at + 4096 > r->size || number(b, 4) != 0x424d494c || number(b + 4, 4) != lim__crc32c(r->seed, b + 8, 56))
        return 0;
    uint64_t length = number(b + 40, 4), ops = number(b + 44, 4), count = number(b + 48, 4);
    size_t total = (64 + length + 64 + 4095) / 4096 * 4096;
    assert_int_equal(number(b + 52, 4), lim__crc32c(r->seed, b + 64, length));
    assert_int_equal(number(b + 56, 4), lim__crc32c(r->seed, b + 64 + ops, length - ops));
    assert_int_equal(number(b + total - 64, 4), 0x464d494c);
    assert_memory_equal(b + total - 56, b + 8, 56);
    assert_true(at == 4096 ? number(b + 16, 8) > r->lsn
                           : number(b + 16, 8) == r->lsn + 1); /* a segment may have gone */
    r->lsn = number(b + 16, 8);
    for (size_t pos = 0; pos < ops; count--) {
        read_op(r, b + 64 + pos);
        pos += (40 + number(b + 64 + pos + 6, 2) + number(b + 64 + pos + 8, 4) + 7) / 8 * 8;
    }
    assert_int_equal(count, 0);
    return at + total;
}

static void read_segment(reader *r, const char *path)
{
    void *bytes;
    assert_int_equal(lim__file_read(path, SIZE_MAX / 4, &bytes, &r->size), 0);
    r->bytes = bytes;
    assert_int_equal(number(r->bytes, 8), 0x3130676573636d6c);
    assert_int_equal(number(r->bytes + 8, 4), lim__crc32c(0, r->bytes + 12, 36));
    r->seed = lim__crc32c(0, r->bytes + 16, 24); /* store id, segment id, nonce */
    size_t at = 4096;
    for (size_t next; (next = read_batch(r, at)) != 0;)
        at = next;
    if (number(r->bytes + 1024, 4) == 0x4c414553) {
        assert_int_equal(number(r->bytes + 1032, 8), r->lsn);
        assert_int_equal(number(r->bytes + 1040, 8), at);
    }
    free(bytes);
}

/* proves DU7 (the format is written down) */
static void test_a_reader_written_from_the_document_reads_everything(void **state)
{
    world *w = *state;
    reader *r = calloc(1, sizeof *r);
    char path[256], name[40];
    for (unsigned i = 0; i < 150; i++) {
        lim__batch *b = lim__batch_new();
        lim_bytes data = text("record %u", i);
        lim__batch_append(b, i % 8, text("%.*s", (int)(i % 3), "key"), &data, 1);
        lim__batch_put(b, 1, text("row%u", i % 64), text("%u", i));
        lim__batch_delete(b, 1, text("row%u", (i + 9) % 64));
        assert_int_equal(commit(w, b).how, LIM__COMMITTED);
        if (i % 50 == 49)
            reopen(w);
    }
    for (unsigned id = 1; id < 100; id++) {
        snprintf(name, sizeof name, "%016x.seg", id);
        path_of(w, name, path);
        if (access(path, R_OK) == 0)
            read_segment(r, path);
    }
    for (unsigned i = 0; i < 150; i++)
        assert_string_equal(r->records[i % 8][1 + i / 8], text("record %u", i).ptr);
    for (unsigned i = 0; i < 64; i++)
        expect_row(w, 1, text("row%u", i).ptr, r->rows[i][0] ? r->rows[i] : NULL);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_has_these_bytes_and_no_others),
        cmocka_unit_test(test_every_flipped_bit_of_a_batch_is_seen_by_some_checksum),
        cmocka_unit_test(test_the_head_of_a_segment_survives_a_flip_in_either_copy),
        cmocka_unit_test_setup_teardown(test_a_reader_written_from_the_document_reads_everything, set_up_lmdb,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
