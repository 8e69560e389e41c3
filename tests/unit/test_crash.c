/* Crashes that the model test met, or that it seldom meets, one by one. */
#include "common/log.h"
#include "fs/store/store.h"
#include "tests/model/io_test.h"
#include "tests/unit/unit.h"

static struct dfs_volume_params params;
static struct dfs_err err;

static void fixed_clock(struct timespec *ts) {
    *ts = (struct timespec){.tv_sec = 7};
}

static struct dfs_store *open_on(struct test_disk *d, bool keep_orphans) {
    const struct dfs_store_config cfg = {
        .cache_bytes = 16u << 20, .no_threads = true, .keep_orphans = keep_orphans, .clock = fixed_clock};
    struct dfs_store *st;
    if (dfs_store_open_io(test_disk_io(d), &params, &cfg, &st, &err) != 0)
        fail_msg("%s", err.text);
    return st;
}

static struct test_disk *formatted(void) {
    struct test_disk *d = test_disk_new(1);
    dfs_volume_params_init(&params);
    strcpy(params.name, "crash");
    params.journal_size = 4u << 20;
    struct dfs_io *io = test_disk_io(d);
    assert_int_equal(dfs_store_format_io(io, &params, &err), 0);
    dfs_io_free(io);
    return d;
}

static bool has(struct dfs_store *st, const char *name) {
    struct dfs_attr a;
    return dfs_lookup(st, DFS_ROOT_INO, name, strlen(name), &a) == 0;
}

/* Records R and B were written, R was lost in a power cut, B was not. The next run happens to write R again, byte for byte
 * and at the same place: B must not follow. */
static void a_lost_record_written_again_brings_nothing_back(void **state) {
    (void)state;
    const struct dfs_create c = {.mode = S_IFREG | 0600};
    struct dfs_attr orphan, a;
    struct test_disk *d = formatted();
    struct dfs_store *st = open_on(d, true);
    assert_int_equal(dfs_tmpfile(st, DFS_ROOT_INO, &c, &orphan), 0);
    assert_int_equal(dfs_syncfs(st), 0);
    test_disk_record(d);
    assert_int_equal(dfs_release_orphan(st, orphan.ino), 0); /* R: carries no time */
    assert_int_equal(dfs_create(st, DFS_ROOT_INO, "b", 1, &c, &a), 0);
    dfs_store_abandon(st);
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct test_disk *image = test_disk_crash(d, test_disk_events(d), TEST_CUT_RANDOM, seed);
        st = open_on(image, false); /* deletes the orphan, if R did not */
        const bool before = has(st, "b");
        lost += !before;
        dfs_store_abandon(st);
        st = open_on(image, false);
        assert_int_equal(has(st, "b"), before);
        dfs_store_abandon(st);
        test_disk_free(image);
    }
    assert_true(lost > 20 && lost < 200);
    test_disk_free(d);
}

/* The last page that a file can have ends a byte past the largest size. */
static void the_last_byte_of_the_largest_file_is_kept(void **state) {
    (void)state;
    const struct dfs_create c = {.mode = S_IFREG | 0600};
    const uint64_t last = (uint64_t)DFS_FILE_SIZE_MAX - 1;
    struct dfs_attr a;
    char byte = 0;
    struct test_disk *d = formatted();
    struct dfs_store *st = open_on(d, true);
    assert_int_equal(dfs_create(st, DFS_ROOT_INO, "f", 1, &c, &a), 0);
    assert_int_equal(dfs_write(st, a.ino, last, "x", 1, 0), 1);
    assert_int_equal(dfs_write(st, a.ino, last + 1, "y", 1, 0), -EFBIG);
    assert_int_equal(dfs_checkpoint(st), 0);
    assert_int_equal(dfs_store_close(st), 0);
    st = open_on(d, true);
    assert_int_equal(dfs_read(st, a.ino, last, &byte, 1), 1);
    assert_int_equal(byte, 'x');
    assert_int_equal(dfs_seek(st, a.ino, 0, SEEK_DATA), last & ~(uint64_t)4095);
    dfs_store_abandon(st);
    test_disk_free(d);
}

/* Both superblocks have their space from the beginning. */
static void a_full_host_takes_checkpoints(void **state) {
    (void)state;
    const struct dfs_create c = {.mode = S_IFREG | 0600};
    struct test_disk *d = formatted();
    struct dfs_store *st = open_on(d, true);
    struct dfs_attr a;
    assert_int_equal(dfs_create(st, DFS_ROOT_INO, "f", 1, &c, &a), 0);
    test_disk_capacity(d, test_disk_used(d));
    for (int i = 0; i < 6; i++) {
        char name[] = {'x', (char)('0' + i)};
        const struct dfs_setattr sa = {.valid = DFS_SET_MODE, .mode = (uint32_t)i};
        assert_int_equal(dfs_setattr(st, a.ino, &sa, &a), 0);
        dfs_create(st, DFS_ROOT_INO, name, 2, &c, &(struct dfs_attr){0}); /* may be refused */
        assert_int_equal(dfs_checkpoint(st), 0);
    }
    assert_int_equal(dfs_store_close(st), 0);
    test_disk_free(d);
}

int main(void) {
    dfs_log_open("test_crash", DFS_LOG_STDERR, DFS_LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_record_written_again_brings_nothing_back),
        cmocka_unit_test(the_last_byte_of_the_largest_file_is_kept),
        cmocka_unit_test(a_full_host_takes_checkpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
