#include <pthread.h>

#include "fs/mount/lookups.h"
#include "tests/unit/unit.h"

static void counts_go_up_and_down(void **state) {
    (void)state;
    struct dfs_lookups *l = dfs_lookups_new();
    assert_int_equal(dfs_lookups_add(l, 7, 2), 0);
    assert_int_equal(dfs_lookups_get(l, 7), 2);
    assert_false(dfs_lookups_sub(l, 7, 1));
    assert_true(dfs_lookups_sub(l, 7, 1));
    assert_int_equal(dfs_lookups_get(l, 7), 0);
    dfs_lookups_free(l);
}

static void forgetting_more_than_known_ends_at_zero(void **state) {
    (void)state;
    struct dfs_lookups *l = dfs_lookups_new();
    dfs_lookups_add(l, 9, 1);
    assert_true(dfs_lookups_sub(l, 9, UINT64_MAX));
    assert_true(dfs_lookups_sub(l, 12345678901, 1));
    dfs_lookups_free(l);
}

static void a_count_that_would_overflow_is_never_zero_again(void **state) {
    (void)state;
    struct dfs_lookups *l = dfs_lookups_new();
    dfs_lookups_add(l, 9, UINT64_MAX);
    assert_int_equal(dfs_lookups_get(l, 9), UINT32_MAX);
    assert_false(dfs_lookups_sub(l, 9, UINT64_MAX));
    dfs_lookups_free(l);
}

static void a_million_inodes_cost_four_mebibytes_and_give_them_back(void **state) {
    (void)state;
    struct dfs_lookups *l = dfs_lookups_new();
    const size_t empty = dfs_lookups_bytes(l);
    for (uint64_t i = 1; i <= 1000000; i++)
        dfs_lookups_add(l, i, 1);
    assert_true(dfs_lookups_bytes(l) < (4u << 20) + (64u << 10));
    for (uint64_t i = 1; i <= 1000000; i++)
        assert_true(dfs_lookups_sub(l, i, 1));
    assert_true(dfs_lookups_bytes(l) < empty + (64u << 10));
    dfs_lookups_free(l);
}

static void *up_and_down(void *l) {
    for (uint64_t round = 0; round < 20; round++) {
        for (uint64_t i = 0; i < 5000; i++)
            dfs_lookups_add(l, i * 3, 2);
        for (uint64_t i = 0; i < 5000; i++)
            dfs_lookups_sub(l, i * 3, 1);
    }
    return NULL;
}

static void threads_lose_no_count(void **state) {
    (void)state;
    struct dfs_lookups *l = dfs_lookups_new();
    pthread_t t[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, up_and_down, l), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(dfs_lookups_get(l, i * 3), 80);
    dfs_lookups_free(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_go_up_and_down),
        cmocka_unit_test(forgetting_more_than_known_ends_at_zero),
        cmocka_unit_test(a_count_that_would_overflow_is_never_zero_again),
        cmocka_unit_test(a_million_inodes_cost_four_mebibytes_and_give_them_back),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
