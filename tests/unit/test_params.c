#include "fs/store/store.h"
#include "tests/unit/unit.h"

static void defaults(struct dfs_volume_params *p) {
    dfs_volume_params_init(p);
    strcpy(p->name, "db");
}

/* The default text with one piece of it replaced. */
static char *edited(const char *from, const char *to) {
    struct dfs_volume_params p;
    defaults(&p);
    p.created = 5;
    char *text = dfs_volume_params_format(&p);
    assert_non_null(text);
    const char *at = strstr(text, from);
    assert_non_null(at);
    char *out;
    assert_true(asprintf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    free(text);
    return out;
}

static void refused(const char *from, const char *to, int code, const char *says) {
    struct dfs_volume_params p = {.chunk_size = 4711};
    struct dfs_err err = DFS_ERR_INIT;
    char *text = edited(from, to);
    assert_int_equal(dfs_volume_params_parse(text, strlen(text), &p, &err), code);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
    assert_int_equal(p.chunk_size, 4711);
    free(text);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    struct dfs_volume_params p, q;
    memset(&p, 0, sizeof p);
    defaults(&p);
    memset(p.name, 0, sizeof p.name);
    strcpy(p.name, "a.b-C_9");
    p.size_limit = INT64_MAX;
    p.chunk_size = 1u << 20;
    p.journal_size = 1u << 30;
    p.compression_level = 19;
    p.root_uid = UINT32_MAX;
    p.root_gid = 100;
    p.root_mode = 07777;
    p.created = -1;
    char *text = dfs_volume_params_format(&p);
    memset(&q, 0, sizeof q);
    assert_int_equal(dfs_volume_params_parse(text, strlen(text), &q, NULL), 0);
    assert_string_equal(p.name, q.name);
    assert_memory_equal(p.uuid, q.uuid, sizeof p.uuid);
    assert_true(p.size_limit == q.size_limit && p.chunk_size == q.chunk_size && p.journal_size == q.journal_size &&
                p.compression_level == q.compression_level && p.root_uid == q.root_uid && p.root_gid == q.root_gid &&
                p.root_mode == q.root_mode && p.created == q.created);
    free(text);
}

static void every_volume_has_its_own_uuid(void **state) {
    (void)state;
    struct dfs_volume_params p, q;
    defaults(&p);
    defaults(&q);
    assert_memory_not_equal(p.uuid, q.uuid, sizeof p.uuid);
}

static void bad_values_are_refused_by_name(void **state) {
    (void)state;
    refused("\"format\": 1", "\"format\": 2", -EOPNOTSUPP, "newer");
    refused("\"format\": 1", "\"format\": 0", -EINVAL, "'format'");
    refused("\"format\": 1,", "", -EINVAL, "'format' is missing");
    refused("\"db\"", "\"../db\"", -EINVAL, "'name'");
    refused("\"db\"", "\"d\\u0000b\"", -EINVAL, "NUL");
    refused("\"db\"", "17", -EINVAL, "'name'");
    refused("\"size_limit\": 0", "\"size_limit\": -1", -EINVAL, "'size_limit'");
    refused("\"size_limit\": 0", "\"size_limit\": 1.5", -EINVAL, "'size_limit'");
    refused("\"size_limit\": 0", "\"size_limit\": 99999999999999999999", -EINVAL, "");
    refused("131072", "131073", -EINVAL, "power of two");
    refused("131072", "2048", -EINVAL, "'chunk_size'");
    refused("131072", "2097152", -EINVAL, "'chunk_size'");
    refused("67108864", "67108865", -EINVAL, "multiple of 1 MiB");
    refused("67108864", "3145728", -EINVAL, "'journal_size'");
    refused("zstd:1", "zstd:20", -EINVAL, "'compression'");
    refused("zstd:1", "zstd:0", -EINVAL, "'compression'");
    refused("zstd:1", "zstd:", -EINVAL, "'compression'");
    refused("zstd:1", "zstd:1x", -EINVAL, "'compression'");
    refused("zstd:1", "lz4", -EINVAL, "'compression'");
    refused("\"0755\"", "\"0999\"", -EINVAL, "'root_mode'");
    refused("\"0755\"", "\"755\"", -EINVAL, "'root_mode'");
    refused("\"root_uid\": 0", "\"root_uid\": 4294967296", -EINVAL, "'root_uid'");
    refused("\"created\": 5", "\"created\": 5, \"colour\": 1", -EINVAL, "'colour'");
    refused("\"created\": 5", "\"created\": 5, \"created\": 6", -EINVAL, "uplicate");
    refused("-", "x", -EINVAL, "UUID");
}

static void what_is_no_object_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"", "[]", "1", "null", "{", "{}", "{}x", "\xff\xfe"};
    for (size_t i = 0; i < DFS_ARRAY_SIZE(texts); i++) {
        struct dfs_volume_params p;
        assert_int_equal(dfs_volume_params_parse(texts[i], strlen(texts[i]), &p, NULL), -EINVAL);
    }
    char *big = malloc(70000);
    memset(big, ' ', 70000);
    struct dfs_volume_params p;
    struct dfs_err err = DFS_ERR_INIT;
    assert_int_equal(dfs_volume_params_parse(big, 70000, &p, &err), -EINVAL);
    assert_non_null(strstr(err.text, "longer"));
    free(big);
}

static void names(void **state) {
    (void)state;
    char longest[DFS_NAME_MAX + 2];
    memset(longest, 'n', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_false(dfs_volume_name_valid(longest));
    longest[DFS_NAME_MAX] = 0;
    assert_true(dfs_volume_name_valid(longest));
    assert_true(dfs_volume_name_valid("0a"));
    assert_false(dfs_volume_name_valid(""));
    assert_false(dfs_volume_name_valid(".a"));
    assert_false(dfs_volume_name_valid("-a"));
    assert_false(dfs_volume_name_valid("a..b"));
    assert_false(dfs_volume_name_valid("a/b"));
    assert_false(dfs_volume_name_valid("a b"));
    assert_false(dfs_volume_name_valid("\xc3\xa4"));
}

static void the_file_is_replaced_whole(void **state) {
    (void)state;
    char path[64];
    cleanup_close int dir = unit_scratch("/tmp", path, sizeof path);
    struct dfs_volume_params p, q;
    struct dfs_err err = DFS_ERR_INIT;
    assert_true(dir >= 0);
    assert_int_equal(dfs_volume_params_load(dir, &q, &err), -ENOENT);
    assert_non_null(strstr(err.text, "not a dfs volume"));
    defaults(&p);
    assert_int_equal(dfs_volume_params_save(dir, &p, &err), 0);
    p.size_limit = 77;
    assert_int_equal(dfs_volume_params_save(dir, &p, &err), 0);
    assert_int_equal(dfs_volume_params_load(dir, &q, &err), 0);
    assert_int_equal(q.size_limit, 77);
    assert_int_equal(faccessat(dir, "volume.json.new", F_OK, 0), -1);
    /* Parameters that could not be read again do not replace those that can. */
    p.chunk_size = 5000;
    assert_int_equal(dfs_volume_params_save(dir, &p, &err), -EINVAL);
    assert_int_equal(dfs_volume_params_load(dir, &q, &err), 0);
    assert_int_equal(q.size_limit, 77);
    unit_remove_tree(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),        cmocka_unit_test(every_volume_has_its_own_uuid),
        cmocka_unit_test(bad_values_are_refused_by_name), cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(names),                          cmocka_unit_test(the_file_is_replaced_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
