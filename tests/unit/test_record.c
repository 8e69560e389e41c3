#include "fs/store/record.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

static uint8_t body[DFS_REC_BODY_MAX], big[DFS_REC_BODY_MAX];

static struct dfs_rec_chunk_mem chunks[3];

static struct dfs_rec sample(void) {
    static uint8_t raw[65536], out[65536];
    for (unsigned i = 0; i < 3; i++) {
        chunks[i].addr = 100 + i;
        dfs_chunk_encode(raw, 4096u << i, (int)i, out, &chunks[i].desc);
    }
    return (struct dfs_rec){
        .type = DFS_REC_RENAME,
        .flags = DFS_RECF_EXCHANGE,
        .ino = 1,
        .dir = 2,
        .dir2 = 3,
        .ino2 = UINT64_MAX,
        .off = 5,
        .len = 6,
        .size = 7,
        .rdev = 8,
        .generation = 9,
        .chunk = 10,
        .time = {-5, 999999999},
        .atime = {INT64_MAX, 1},
        .mtime = {INT64_MIN, 2},
        .mode = 0100644,
        .uid = UINT32_MAX,
        .gid = 4,
        .valid = 0x3ff,
        .name = "from",
        .name_len = 4,
        .name2 = "to",
        .name2_len = 2,
        .data = "data!",
        .data_len = 5,
        .chunks = chunks,
        .nchunks = 3,
    };
}

static void what_is_encoded_is_decoded(void **state) {
    (void)state;
    const struct dfs_rec r = sample();
    struct dfs_rec d;
    const size_t n = dfs_rec_size(&r);
    assert_true(n > sizeof(struct dfs_rec_body) + 11);
    memset(body, 0xee, sizeof body);
    dfs_rec_encode(&r, body);
    assert_int_equal(body[n], 0xee);
    assert_int_equal(dfs_rec_decode(r.type, r.flags, body, n, &d), 0);
    assert_true(d.type == r.type && d.flags == r.flags && d.ino == r.ino && d.dir == r.dir && d.dir2 == r.dir2 &&
                d.ino2 == r.ino2 && d.off == r.off && d.len == r.len && d.size == r.size && d.rdev == r.rdev &&
                d.generation == r.generation && d.chunk == r.chunk && d.mode == r.mode && d.uid == r.uid &&
                d.gid == r.gid && d.valid == r.valid && d.nchunks == 3);
    assert_memory_equal(&d.time, &r.time, sizeof d.time);
    assert_memory_equal(&d.atime, &r.atime, sizeof d.atime);
    assert_memory_equal(&d.mtime, &r.mtime, sizeof d.mtime);
    assert_true(d.name_len == 4 && memcmp(d.name, "from", 4) == 0);
    assert_true(d.name2_len == 2 && memcmp(d.name2, "to", 2) == 0);
    assert_true(d.data_len == 5 && memcmp(d.data, "data!", 5) == 0);
    struct dfs_rec_chunk_iter it;
    struct dfs_chunk_desc desc;
    uint64_t addr;
    dfs_rec_chunks(&d, &it);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(dfs_rec_chunk_next(&it, &addr, &desc));
        assert_int_equal(addr, 100 + i);
        assert_int_equal(desc.raw_len, 4096u << i);
    }
    assert_false(dfs_rec_chunk_next(&it, &addr, &desc));
}

static void what_is_too_long_is_refused(void **state) {
    (void)state;
    struct dfs_rec r = {.type = DFS_REC_WRITE, .data = big, .data_len = DFS_REC_BODY_MAX - sizeof(struct dfs_rec_body)};
    assert_int_equal(dfs_rec_size(&r), DFS_REC_BODY_MAX);
    r.data_len++;
    assert_int_equal(dfs_rec_size(&r), 0);
}

static void cut_or_longer_bodies_are_refused(void **state) {
    (void)state;
    const struct dfs_rec r = sample();
    struct dfs_rec d;
    const size_t n = dfs_rec_size(&r);
    memset(body, 0, sizeof body);
    dfs_rec_encode(&r, body);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(dfs_rec_decode(r.type, r.flags, body, i, &d), -EUCLEAN);
    assert_int_equal(dfs_rec_decode(r.type, r.flags, body, n + 1, &d), -EUCLEAN);
}

/* Whatever the bytes say, decoding and walking stay inside them (the sanitizers look). */
static void hostile_bodies_are_refused_or_harmless(void **state) {
    (void)state;
    const struct dfs_rec r = sample();
    const size_t n = dfs_rec_size(&r);
    struct rng rng = {3};
    unsigned ok = 0;
    for (int i = 0; i < 20000; i++) {
        uint8_t *copy = malloc(n);
        struct dfs_rec d;
        dfs_rec_encode(&r, copy);
        for (uint64_t k = rng_range(&rng, 1, 6); k > 0; k--)
            copy[rng_below(&rng, n)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        if (dfs_rec_decode(r.type, r.flags, copy, n, &d) == 0) {
            struct dfs_rec_chunk_iter it;
            struct dfs_chunk_desc desc;
            uint64_t addr, sum = 0;
            ok++;
            dfs_rec_chunks(&d, &it);
            while (dfs_rec_chunk_next(&it, &addr, &desc))
                sum += desc.raw_len;
            for (size_t k = 0; k < d.data_len; k++)
                sum += ((const uint8_t *)d.data)[k];
            assert_true(sum < UINT64_MAX);
        }
        free(copy);
    }
    assert_true(ok > 0 && ok < 20000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(cut_or_longer_bodies_are_refused),
        cmocka_unit_test(hostile_bodies_are_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
