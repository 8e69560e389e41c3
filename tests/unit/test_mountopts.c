#include <sys/mount.h>

#include "fs/mount/options.h"
#include "tests/unit/unit.h"

static struct dfs_mount_options o;
static struct dfs_err err;

static int parse(const char *list) {
    char *argv[] = {"mount.dfs", "db", "/mnt", "-o", (char *)list, NULL};
    err = (struct dfs_err)DFS_ERR_INIT;
    return dfs_mount_options_parse(5, argv, &o, &err);
}

static void a_name_is_below_the_root_and_a_path_is_itself(void **state) {
    (void)state;
    assert_int_equal(parse("rw"), 0);
    assert_string_equal(o.dir, "/var/lib/dfs/db");
    assert_int_equal(parse("root=/srv"), 0);
    assert_string_equal(o.dir, "/srv/db");
    char *argv[] = {"mount.dfs", "./db", "/mnt", NULL};
    assert_int_equal(dfs_mount_options_parse(3, argv, &o, &err), 0);
    assert_string_equal(o.dir, "./db");
}

static void fstab_words_are_taken(void **state) {
    (void)state;
    assert_int_equal(parse("defaults,noauto,nofail,_netdev,user,x-systemd.automount,comment=me,,"), 0);
    assert_int_equal(o.flags, MS_NODEV | MS_NOSUID | MS_NOEXEC);
    assert_int_equal(parse("user,exec,ro,noatime,sync"), 0);
    assert_int_equal(o.flags, MS_NODEV | MS_NOSUID | MS_RDONLY | MS_SYNCHRONOUS);
    assert_int_equal(o.atime, DFS_ATIME_NONE);
}

static void errors_name_the_option(void **state) {
    static const char *const bad[] = {"frobnicate", "frobnicate=1", "cache", "cache=lots", "cache=1K",
                                      "threads=0",  "threads=-1",   "spin=99999", "create,chunk=5000",
                                      "create,journal=5", "create,compression=zstd:20", "log="};
    (void)state;
    for (size_t i = 0; i < DFS_ARRAY_SIZE(bad); i++) {
        char name[32];
        const char *last = strrchr(bad[i], ',');
        snprintf(name, sizeof name, "%s", last ? last + 1 : bad[i]);
        name[strcspn(name, "=")] = 0;
        assert_int_equal(parse(bad[i]), -EINVAL);
        assert_non_null(strstr(err.text, name));
    }
}

static void parameters_of_a_new_volume_need_create(void **state) {
    (void)state;
    assert_int_equal(parse("size=10G"), -EINVAL);
    assert_int_equal(parse("create,size=10G,chunk=64K,journal=8M,compression=none"), 0);
    assert_true(o.size == UINT64_C(10) << 30 && o.chunk == 65536 && o.journal == 8u << 20 && o.compression == 0);
}

static void names_that_leave_the_root_are_refused(void **state) {
    static const char *const names[] = {"..", ".", "", "a b"};
    (void)state;
    for (size_t i = 0; i < DFS_ARRAY_SIZE(names); i++) {
        char *argv[] = {"mount.dfs", (char *)names[i], "/mnt", NULL};
        assert_int_equal(dfs_mount_options_parse(3, argv, &o, &err), -EINVAL);
    }
}

static void sizes_do_not_overflow(void **state) {
    uint64_t n;
    (void)state;
    assert_int_equal(dfs_mount_parse_size("99999999P", &n), -ERANGE);
    assert_int_equal(dfs_mount_parse_size("99999999999999999999999", &n), -ERANGE);
    assert_int_equal(dfs_mount_parse_size("-1", &n), -EINVAL);
    assert_int_equal(dfs_mount_parse_size("1Kx", &n), -EINVAL);
    assert_int_equal(dfs_mount_parse_size("3k", &n), 0);
    assert_int_equal(n, 3072);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_below_the_root_and_a_path_is_itself),
        cmocka_unit_test(fstab_words_are_taken),
        cmocka_unit_test(errors_name_the_option),
        cmocka_unit_test(parameters_of_a_new_volume_need_create),
        cmocka_unit_test(names_that_leave_the_root_are_refused),
        cmocka_unit_test(sizes_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
