#include "fs/store/node.h"
#include "fs/store/item_format.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

static const uint8_t uuid[16] = "0123456789abcdef";
static uint8_t a[DFS_NODE_SIZE] __attribute__((aligned(64))), b[DFS_NODE_SIZE] __attribute__((aligned(64)));

static struct dfs_key key(uint64_t n) {
    return (struct dfs_key){.ino = n / 16, .kind = DFS_KIND_DIRENT, .off = n % 16};
}

/* Beside the node a plain table with the same content. */
struct table {
    uint16_t len[4096]; /* 0: absent, else length + 1 */
};

static void check(uint8_t *node, const struct table *t, uint64_t from, uint64_t to) {
    unsigned n = 0;
    for (uint64_t k = from; k < to; k++) {
        const struct dfs_key want = key(k);
        bool found;
        const unsigned i = dfs_node_search(node, &want, &found);
        assert_int_equal(i, n);
        assert_int_equal(found, t->len[k] != 0);
        if (!found)
            continue;
        size_t len;
        const uint8_t *val = dfs_node_val(node, i, &len);
        assert_int_equal(len, t->len[k] - 1u);
        for (size_t x = 0; x < len; x++)
            assert_int_equal(val[x], (uint8_t)k);
        n++;
    }
    assert_int_equal(dfs_node_nkeys(node), n);
    const char *why;
    struct dfs_ptr p = {.addr = 1, .birth = 1};
    p.csum = dfs_node_seal(node, 1, 1);
    if (dfs_node_validate(node, &p, DFS_TREE_META, 0, uuid, &why) != 0)
        fail_msg("%s", why);
    assert_true(dfs_node_used(node) + dfs_node_free(node) <= DFS_NODE_SIZE);
}

static void edit_at_random(uint8_t *node, struct table *t, struct rng *r, uint64_t space, unsigned times) {
    for (unsigned i = 0; i < times; i++) {
        const uint64_t k = rng_below(r, space);
        const struct dfs_key want = key(k);
        bool found;
        const unsigned at = dfs_node_search(node, &want, &found);
        const size_t len = rng_one_in(r, 5) ? 0 : (size_t)rng_below(r, rng_one_in(r, 20) ? DFS_ITEM_MAX + 1 : 120);
        if (!found && dfs_node_fits(node, len)) {
            memset(dfs_node_insert(node, at, &want, len), (int)k, len);
            t->len[k] = (uint16_t)(len + 1);
        } else if (found && rng_one_in(r, 2)) {
            dfs_node_remove(node, at);
            t->len[k] = 0;
        } else if (found && len <= t->len[k] - 1u + dfs_node_free(node)) {
            memset(dfs_node_resize(node, at, len), (int)k, len);
            t->len[k] = (uint16_t)(len + 1);
        }
    }
}

static void edits_agree_with_a_table(void **state) {
    (void)state;
    struct rng r = {11};
    for (int round = 0; round < 20; round++) {
        struct table t = {{0}};
        dfs_node_init(a, DFS_TREE_META, 0, uuid);
        for (int i = 0; i < 20; i++) {
            edit_at_random(a, &t, &r, 400, 100);
            check(a, &t, 0, 400);
        }
    }
}

static void splitting_and_appending_keep_everything(void **state) {
    (void)state;
    struct rng r = {12};
    for (int round = 0; round < 50; round++) {
        struct table t = {{0}};
        dfs_node_init(a, DFS_TREE_META, 0, uuid);
        edit_at_random(a, &t, &r, 300, 1000);
        const unsigned n = dfs_node_nkeys(a), at = dfs_node_split_point(a);
        assert_true(n >= 2 && at >= 1 && at <= n - 1);
        const struct dfs_key first = dfs_node_key(a, at);
        const uint64_t border = first.ino * 16 + first.off;
        dfs_node_init(b, DFS_TREE_META, 0, uuid);
        dfs_node_split(a, b, at);
        assert_int_equal(dfs_node_nkeys(a) + dfs_node_nkeys(b), n);
        check(a, &t, 0, border);
        check(b, &t, border, 300);
        dfs_node_append(a, b);
        check(a, &t, 0, 300);
    }
}

static void sealed_nodes_are_valid_and_identified(void **state) {
    (void)state;
    struct table t = {{0}};
    struct rng r = {13};
    const char *why;
    dfs_node_init(a, DFS_TREE_META, 0, uuid);
    edit_at_random(a, &t, &r, 200, 500);
    struct dfs_ptr p = {.addr = 77, .birth = 5};
    p.csum = dfs_node_seal(a, p.addr, p.birth);
    assert_int_equal(dfs_node_validate(a, &p, DFS_TREE_META, 0, uuid, &why), 0);
    struct dfs_ptr q = p;
    q.addr++;
    assert_int_equal(dfs_node_validate(a, &q, DFS_TREE_META, 0, uuid, &why), -EBADMSG);
    q = p;
    q.birth++;
    assert_int_equal(dfs_node_validate(a, &q, DFS_TREE_META, 0, uuid, &why), -EBADMSG);
    q = p;
    q.csum++;
    assert_int_equal(dfs_node_validate(a, &q, DFS_TREE_META, 0, uuid, &why), -EBADMSG);
    assert_true(dfs_node_validate(a, &p, DFS_TREE_LOCAL, 0, uuid, &why) < 0);
    assert_true(dfs_node_validate(a, &p, DFS_TREE_META, 1, uuid, &why) < 0);
    assert_true(dfs_node_validate(a, &p, DFS_TREE_META, 0, (const uint8_t *)"another uuid....", &why) < 0);
    for (int i = 0; i < 500; i++) {
        const size_t at = (size_t)rng_below(&r, DFS_NODE_SIZE);
        a[at] ^= 4;
        assert_int_equal(dfs_node_validate(a, &p, DFS_TREE_META, 0, uuid, &why), -EBADMSG);
        a[at] ^= 4;
    }
}

/* A node with a right checksum and wrong content is refused, or can be walked without harm (the sanitizers look). */
static void hostile_nodes_are_refused_or_harmless(void **state) {
    (void)state;
    struct table t = {{0}};
    struct rng r = {14};
    const char *why;
    unsigned refused = 0;
    dfs_node_init(a, DFS_TREE_META, 0, uuid);
    edit_at_random(a, &t, &r, 200, 500);
    uint8_t *node = aligned_alloc(64, DFS_NODE_SIZE);
    for (int i = 0; i < 20000; i++) {
        memcpy(node, a, DFS_NODE_SIZE);
        const size_t reach = sizeof(struct dfs_node_header) + dfs_node_nkeys(a) * sizeof(struct dfs_slot);
        for (uint64_t k = rng_range(&r, 1, 3); k > 0; k--)
            node[rng_below(&r, reach)] ^= (uint8_t)(1u << rng_below(&r, 8));
        struct dfs_ptr p = {.addr = 1, .birth = 1};
        p.csum = dfs_node_seal(node, 1, 1);
        if (dfs_node_validate(node, &p, DFS_TREE_META, 0, uuid, &why) != 0) {
            refused++;
            continue;
        }
        uint64_t sum = 0;
        for (unsigned k = 0; k < dfs_node_nkeys(node); k++) {
            size_t len;
            const uint8_t *v = dfs_node_val(node, k, &len);
            for (size_t x = 0; x < len; x++)
                sum += v[x];
        }
        assert_true(sum < UINT64_MAX);
    }
    free(node);
    assert_true(refused > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_agree_with_a_table),
        cmocka_unit_test(splitting_and_appending_keep_everything),
        cmocka_unit_test(sealed_nodes_are_valid_and_identified),
        cmocka_unit_test(hostile_nodes_are_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
