#include "fs/store/acl.h"
#include "tests/unit/unit.h"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct entry {
    uint16_t tag, perm;
    uint32_t id;
};

static uint8_t acl[256];

static size_t make(const struct entry *e, size_t n) {
    dfs_put_le32(acl, 2);
    for (size_t i = 0; i < n; i++) {
        dfs_put_le16(acl + 4 + 8 * i, e[i].tag);
        dfs_put_le16(acl + 6 + 8 * i, e[i].perm);
        dfs_put_le32(acl + 8 + 8 * i, e[i].id);
    }
    return 4 + 8 * n;
}
#define MAKE(...) make((const struct entry[]){__VA_ARGS__}, DFS_ARRAY_SIZE(((const struct entry[]){__VA_ARGS__})))

static void well_formed_or_not(void **state) {
    (void)state;
    size_t n = MAKE({USER_OBJ, 7, 0}, {GROUP_OBJ, 5, 0}, {OTHER, 4, 0});
    assert_true(dfs_acl_valid(acl, n));
    assert_false(dfs_acl_valid(acl, n - 1));
    assert_false(dfs_acl_valid(acl, 4));
    assert_false(dfs_acl_valid(acl, 0));
    acl[0] = 3;
    assert_false(dfs_acl_valid(acl, n));
    n = MAKE({USER_OBJ, 7, 0}, {USER, 6, 1000}, {GROUP_OBJ, 5, 0}, {MASK, 6, 0}, {OTHER, 4, 0});
    assert_true(dfs_acl_valid(acl, n));
    n = MAKE({USER_OBJ, 7, 0}, {USER, 6, 1000}, {GROUP_OBJ, 5, 0}, {OTHER, 4, 0});
    assert_false(dfs_acl_valid(acl, n)); /* a named user needs a mask */
    n = MAKE({USER_OBJ, 8, 0}, {GROUP_OBJ, 5, 0}, {OTHER, 4, 0});
    assert_false(dfs_acl_valid(acl, n));
    n = MAKE({GROUP_OBJ, 5, 0}, {USER_OBJ, 7, 0}, {OTHER, 4, 0});
    assert_false(dfs_acl_valid(acl, n));
    n = MAKE({USER_OBJ, 7, 0}, {USER_OBJ, 7, 0}, {GROUP_OBJ, 5, 0}, {OTHER, 4, 0});
    assert_false(dfs_acl_valid(acl, n));
    n = MAKE({USER_OBJ, 7, 0}, {GROUP_OBJ, 5, 0}, {64, 4, 0});
    assert_false(dfs_acl_valid(acl, n));
}

static void mode_and_acl_follow_each_other(void **state) {
    (void)state;
    uint32_t mode = 0104000;
    bool minimal;
    size_t n = MAKE({USER_OBJ, 7, 0}, {GROUP_OBJ, 5, 0}, {OTHER, 1, 0});
    dfs_acl_to_mode(acl, n, &mode, &minimal);
    assert_int_equal(mode, 0104751);
    assert_true(minimal);
    n = MAKE({USER_OBJ, 6, 0}, {USER, 7, 5}, {GROUP_OBJ, 7, 0}, {MASK, 4, 0}, {OTHER, 0, 0});
    dfs_acl_to_mode(acl, n, &mode, &minimal);
    assert_int_equal(mode, 0104640); /* the mask is what the group bits show */
    assert_false(minimal);
    dfs_acl_from_mode(acl, n, 0100123);
    dfs_acl_to_mode(acl, n, &mode, &minimal);
    assert_int_equal(mode & 0777, 0123);
    assert_int_equal(dfs_get_le16(acl + 6 + 16), 7); /* the group's own entry stays */
}

static void new_objects_get_no_more_than_they_ask(void **state) {
    (void)state;
    uint32_t mode = 0100640;
    bool minimal;
    const size_t n = MAKE({USER_OBJ, 7, 0}, {USER, 7, 5}, {GROUP_OBJ, 7, 0}, {MASK, 7, 0}, {OTHER, 7, 0});
    dfs_acl_inherit(acl, n, &mode, &minimal);
    assert_int_equal(mode, 0100640);
    assert_false(minimal);
    assert_int_equal(dfs_get_le16(acl + 6 + 24), 4); /* mask */
    assert_true(dfs_acl_valid(acl, n));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_or_not),
        cmocka_unit_test(mode_and_acl_follow_each_other),
        cmocka_unit_test(new_objects_get_no_more_than_they_ask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
