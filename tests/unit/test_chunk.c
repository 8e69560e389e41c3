#include "fs/store/chunk.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

#define MAX DFS_CHUNK_RAW_MAX

static uint8_t raw[MAX], out[MAX], got[MAX + 1], image[MAX];
static struct dfs_chunk_desc desc, copy;

enum content { RANDOM, TEXT, ZEROS };

static void fill(enum content c, size_t len, uint64_t seed) {
    struct rng r = {seed};
    for (size_t i = 0; i < len; i++)
        raw[i] = (uint8_t)(c == RANDOM ? rng_next(&r) : c == TEXT ? 'a' + rng_below(&r, 4) : 0);
}

/* Encodes raw into `image`, as it would lie on disk. */
static void encode(size_t len, int level) {
    assert_int_equal(dfs_chunk_encode(raw, len, level, out, &desc), 0);
    memset(image, 0xee, sizeof image);
    memcpy(image, desc.codec == DFS_CODEC_RAW ? raw : out, DFS_ROUND_UP(desc.stored_len, 4096u));
    assert_true(dfs_chunk_verify(&desc, image));
}

static int decode(uint32_t off, uint32_t len) {
    uint32_t span_off, span_len;
    dfs_chunk_span(&desc, off, len, &span_off, &span_len);
    assert_true(span_off % 4096 == 0 && span_len % 4096 == 0 && span_len > 0);
    assert_true(span_off + span_len <= DFS_ROUND_UP(desc.stored_len, 4096u));
    /* Only the span, at another place: nothing else may be looked at. */
    uint8_t *span = malloc(span_len);
    memcpy(span, image + span_off, span_len);
    memset(got, 0xaa, len + 1);
    const int r = dfs_chunk_decode(&desc, span, span_off, span_len, off, len, got);
    assert_int_equal(got[len], 0xaa);
    free(span);
    return r;
}

static void whole_and_parts_come_back(void **state) {
    (void)state;
    struct rng r = {1};
    static const size_t lens[] = {4096, 8192, 12288, 32768, 36864, 65536, 131072, 135168, MAX};
    for (size_t i = 0; i < DFS_ARRAY_SIZE(lens); i++)
        for (int c = RANDOM; c <= ZEROS; c++)
            for (int level = 0; level <= 3; level += 3) {
                const uint32_t len = (uint32_t)lens[i];
                fill((enum content)c, len, i);
                encode(len, level);
                assert_int_equal(decode(0, len), 0);
                assert_memory_equal(got, raw, len);
                for (int k = 0; k < 20; k++) {
                    const uint32_t off = (uint32_t)rng_below(&r, len), n = (uint32_t)rng_range(&r, 1, len - off);
                    assert_int_equal(decode(off, n), 0);
                    assert_memory_equal(got, raw + off, n);
                }
            }
}

static void compression_is_kept_only_where_it_saves_a_block(void **state) {
    (void)state;
    fill(RANDOM, 131072, 3);
    encode(131072, 1);
    assert_int_equal(desc.codec, DFS_CODEC_RAW);
    assert_int_equal(desc.stored_len, 131072);
    fill(TEXT, 131072, 3);
    encode(131072, 1);
    assert_int_equal(desc.codec, DFS_CODEC_ZSTD);
    assert_true(desc.stored_len <= 131072 - 4096);
    fill(TEXT, 4096, 3);
    encode(4096, 19);
    assert_int_equal(desc.codec, DFS_CODEC_RAW);
    fill(ZEROS, 8192, 0);
    encode(8192, 1);
    assert_true(desc.codec == DFS_CODEC_ZSTD && desc.stored_len <= 4096);
    for (size_t i = desc.stored_len; i < 4096; i++)
        assert_int_equal(image[i], 0);
}

static void a_small_read_reads_little(void **state) {
    (void)state;
    uint32_t span_off, span_len;
    fill(RANDOM, 131072, 4);
    encode(131072, 1);
    dfs_chunk_span(&desc, 40960, 4096, &span_off, &span_len);
    assert_true(span_off == 40960 && span_len == 4096);
    fill(TEXT, 131072, 4);
    encode(131072, 1);
    dfs_chunk_span(&desc, 40960, 4096, &span_off, &span_len);
    assert_true(span_len <= desc.stored_len / 4 + 2 * 4096);
}

static void any_flipped_bit_is_noticed(void **state) {
    (void)state;
    struct rng r = {5};
    for (int c = RANDOM; c <= TEXT; c++) {
        fill((enum content)c, 131072, 6);
        encode(131072, 1);
        for (int i = 0; i < 300; i++) {
            const size_t at = rng_below(&r, desc.stored_len);
            const uint8_t bit = (uint8_t)(1u << rng_below(&r, 8));
            image[at] ^= bit;
            assert_false(dfs_chunk_verify(&desc, image));
            assert_int_equal(decode(0, 131072), -EBADMSG);
            image[at] ^= bit;
        }
        assert_int_equal(decode(0, 131072), 0);
    }
}

static void damage_elsewhere_does_not_hinder(void **state) {
    (void)state;
    fill(RANDOM, 131072, 7);
    encode(131072, 0);
    image[0] ^= 1;
    assert_int_equal(decode(4095, 2), -EBADMSG);
    assert_int_equal(decode(4096, 4096), 0);
    assert_memory_equal(got, raw + 4096, 4096);
}

static void lengths_that_cannot_be_are_refused(void **state) {
    (void)state;
    assert_int_equal(dfs_chunk_encode(raw, 0, 1, out, &desc), -EINVAL);
    assert_int_equal(dfs_chunk_encode(raw, 4097, 1, out, &desc), -EINVAL);
    assert_int_equal(dfs_chunk_encode(raw, MAX + 4096, 1, out, &desc), -EINVAL);
}

static void descriptors_come_back(void **state) {
    (void)state;
    uint8_t disk[DFS_CHUNK_DESC_MAX];
    for (int c = RANDOM; c <= ZEROS; c++)
        for (size_t len = 4096; len <= MAX; len *= 2) {
            fill((enum content)c, len, len);
            encode(len, 1);
            const size_t n = dfs_chunk_desc_put(&desc, disk);
            assert_true(n <= DFS_CHUNK_DESC_MAX);
            memset(&copy, 0, sizeof copy);
            assert_int_equal(dfs_chunk_desc_get(disk, n, &copy), 0);
            assert_true(copy.raw_len == desc.raw_len && copy.stored_len == desc.stored_len &&
                        copy.csum == desc.csum && copy.codec == desc.codec && copy.nunits == desc.nunits);
            assert_memory_equal(copy.units, desc.units, desc.nunits * sizeof desc.units[0]);
            assert_int_equal(dfs_chunk_desc_get(disk, n - 1, &copy), -EUCLEAN);
        }
}

/* Whatever a descriptor says, spans and decoding stay inside the buffers (the sanitizers look). */
static void hostile_descriptors_are_refused_or_harmless(void **state) {
    (void)state;
    struct rng r = {9};
    uint8_t disk[DFS_CHUNK_DESC_MAX];
    unsigned refused = 0;
    for (int i = 0; i < 20000; i++) {
        if (i == 0) {
            fill(TEXT, 65536, 1);
            encode(65536, 1);
        }
        size_t n = dfs_chunk_desc_put(&desc, disk);
        const struct dfs_chunk_desc keep = desc;
        for (uint64_t k = rng_range(&r, 1, 4); k > 0; k--)
            disk[rng_below(&r, n)] = (uint8_t)rng_next(&r);
        if (rng_one_in(&r, 4))
            n = rng_below(&r, n);
        if (dfs_chunk_desc_get(disk, n, &desc) == 0) {
            const uint32_t off = (uint32_t)rng_below(&r, desc.raw_len);
            decode(off, (uint32_t)rng_range(&r, 1, desc.raw_len - off));
        } else {
            refused++;
        }
        desc = keep;
    }
    assert_true(refused > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_parts_come_back),
        cmocka_unit_test(compression_is_kept_only_where_it_saves_a_block),
        cmocka_unit_test(a_small_read_reads_little),
        cmocka_unit_test(any_flipped_bit_is_noticed),
        cmocka_unit_test(damage_elsewhere_does_not_hinder),
        cmocka_unit_test(lengths_that_cannot_be_are_refused),
        cmocka_unit_test(descriptors_come_back),
        cmocka_unit_test(hostile_descriptors_are_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
