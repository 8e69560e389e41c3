#include "common/log.h"
#include "tests/unit/unit.h"

/* What `line` writes to stderr. */
static const char *captured(void (*line)(void)) {
    static char text[8192];
    char path[] = "/tmp/dfs-unit-log-XXXXXX";
    const int fd = mkstemp(path), old = dup(STDERR_FILENO);
    assert_true(fd >= 0 && old >= 0);
    dup2(fd, STDERR_FILENO);
    line();
    dup2(old, STDERR_FILENO);
    close(old);
    const ssize_t n = pread(fd, text, sizeof text - 1, 0);
    assert_true(n >= 0);
    text[n] = 0;
    close(fd);
    unlink(path);
    return text;
}

static void plain(void) {
    dfs_log(DFS_LOG_WARN, "replica fell out", "peer=%s lag=%d", "b", 5);
}
static void bare(void) {
    dfs_log(DFS_LOG_ERROR, "gone", NULL);
}
static void debug(void) {
    dfs_log(DFS_LOG_DEBUG, "detail", NULL);
}
static void longest(void) {
    char x[5000];
    memset(x, 'y', sizeof x - 1);
    x[sizeof x - 1] = 0;
    dfs_log(DFS_LOG_ERROR, x, "%s", x);
}

static void one_line_with_details(void **state) {
    (void)state;
    dfs_log_open("unit", DFS_LOG_STDERR, DFS_LOG_INFO);
    assert_string_equal(captured(plain), "<warn> replica fell out peer=b lag=5\n");
    assert_string_equal(captured(bare), "<error> gone\n");
}

static void context_is_on_every_line(void **state) {
    (void)state;
    dfs_log_context("volume=db");
    assert_string_equal(captured(plain), "<warn> replica fell out volume=db peer=b lag=5\n");
    assert_string_equal(captured(bare), "<error> gone volume=db\n");
    dfs_log_context(NULL);
    assert_string_equal(captured(bare), "<error> gone\n");
}

static void levels_above_the_maximum_are_silent(void **state) {
    (void)state;
    assert_string_equal(captured(debug), "");
    dfs_log_open("unit", DFS_LOG_STDERR, DFS_LOG_DEBUG);
    assert_string_equal(captured(debug), "<debug> detail\n");
    dfs_log_open("unit", DFS_LOG_STDERR, DFS_LOG_QUIET);
    assert_string_equal(captured(bare), "");
    dfs_log_open("unit", DFS_LOG_STDERR, DFS_LOG_INFO);
}

static void too_long_lines_are_cut_and_end(void **state) {
    (void)state;
    const char *text = captured(longest);
    assert_true(strlen(text) > 2000);
    assert_int_equal(text[strlen(text) - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void errno_is_kept(void **state) {
    (void)state;
    errno = EXDEV;
    captured(bare);
    errno = EXDEV;
    dfs_log(DFS_LOG_DEBUG, "not shown", NULL);
    assert_int_equal(errno, EXDEV);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line_with_details),          cmocka_unit_test(context_is_on_every_line),
        cmocka_unit_test(levels_above_the_maximum_are_silent), cmocka_unit_test(too_long_lines_are_cut_and_end),
        cmocka_unit_test(errno_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
