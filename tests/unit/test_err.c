#include "common/err.h"
#include "tests/unit/unit.h"

static void set_keeps_code_and_sentence(void **state) {
    (void)state;
    struct dfs_err e = DFS_ERR_INIT;
    assert_int_equal(dfs_err_set(&e, -EINVAL, "bad %s", "thing"), -EINVAL);
    assert_int_equal(e.code, -EINVAL);
    assert_string_equal(e.text, "bad thing");
}

static void sys_appends_the_reason(void **state) {
    (void)state;
    struct dfs_err e = DFS_ERR_INIT;
    assert_int_equal(dfs_err_sys(&e, -ENOENT, "cannot open %s", "x"), -ENOENT);
    assert_string_equal(e.text, "cannot open x: No such file or directory");
}

static void wrap_puts_the_purpose_first(void **state) {
    (void)state;
    struct dfs_err e = DFS_ERR_INIT;
    dfs_err_set(&e, -EIO, "disk gone");
    assert_int_equal(dfs_err_wrap(&e, "volume %d", 7), -EIO);
    assert_string_equal(e.text, "volume 7: disk gone");
}

static void wrap_cuts_what_does_not_fit(void **state) {
    (void)state;
    struct dfs_err e = DFS_ERR_INIT;
    char longest[2 * DFS_ERR_MAX];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    dfs_err_set(&e, -EIO, "%s", longest);
    assert_int_equal(strlen(e.text), DFS_ERR_MAX - 1);
    dfs_err_wrap(&e, "while testing");
    assert_int_equal(strlen(e.text), DFS_ERR_MAX - 1);
    assert_memory_equal(e.text, "while testing: xxx", 18);
    dfs_err_wrap(&e, "%s", longest);
    assert_int_equal(strlen(e.text), DFS_ERR_MAX - 1);
}

static void null_is_ignored(void **state) {
    (void)state;
    assert_int_equal(dfs_err_set(NULL, -EPERM, "x"), -EPERM);
    assert_int_equal(dfs_err_sys(NULL, -EPERM, "x"), -EPERM);
    dfs_err_wrap(NULL, "x");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_keeps_code_and_sentence), cmocka_unit_test(sys_appends_the_reason),
        cmocka_unit_test(wrap_puts_the_purpose_first), cmocka_unit_test(wrap_cuts_what_does_not_fit),
        cmocka_unit_test(null_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
