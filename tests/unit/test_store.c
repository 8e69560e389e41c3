/* Volumes in real directories, with the worker and many threads: what the model test, single-threaded and in memory, does
 * not see. */
#include "fs/store/store.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/log.h"
#include "fs/store/check.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

static char root[64], volume[96];
static struct dfs_err err;

static int setup(void **state) {
    (void)state;
    const int fd = unit_scratch("/tmp", root, sizeof root);
    close(fd);
    snprintf(volume, sizeof volume, "%s/vol", root);
    err = (struct dfs_err)DFS_ERR_INIT;
    return fd >= 0 ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    unit_remove_tree(root);
    return 0;
}

static void make(uint64_t size_limit) {
    struct dfs_volume_params p;
    dfs_volume_params_init(&p);
    strcpy(p.name, "vol");
    p.journal_size = 4u << 20; /* small: checkpoints come under way */
    p.size_limit = size_limit;
    if (dfs_store_create(volume, &p, &err) != 0)
        fail_msg("%s", err.text);
}

static struct dfs_store *open_volume(bool read_only) {
    const struct dfs_store_config cfg = {.cache_bytes = 16u << 20, .checkpoint_interval_ms = 20, .read_only = read_only};
    struct dfs_store *st;
    if (dfs_store_open(volume, &cfg, &st, &err) != 0)
        fail_msg("%s", err.text);
    return st;
}

static void tell(void *arg, const struct dfs_check_damage *d) {
    (void)arg;
    fprintf(stderr, "check: %s inode=%lu chunk=%lu block=%lu\n", d->what, d->ino, d->chunk, d->block);
}

static void check(struct dfs_store *st) {
    const struct dfs_check_config cfg = {.data = true, .report = tell};
    struct dfs_check_result res;
    assert_int_equal(dfs_store_check(st, &cfg, &res), 0);
    assert_int_equal(res.damages, 0);
}

static uint64_t new_file(struct dfs_store *st, const char *name) {
    const struct dfs_create c = {.mode = S_IFREG | 0644};
    struct dfs_attr a;
    assert_int_equal(dfs_create(st, DFS_ROOT_INO, name, strlen(name), &c, &a), 0);
    return a.ino;
}

static void a_volume_keeps_what_it_was_given(void **state) {
    (void)state;
    char got[16];
    struct dfs_attr a;
    make(0);
    struct dfs_store *st = open_volume(false);
    const uint64_t ino = new_file(st, "f");
    assert_int_equal(dfs_write(st, ino, 10, "hello", 5, 0), 5);
    assert_int_equal(dfs_store_close(st), 0);
    st = open_volume(false);
    assert_int_equal(dfs_lookup(st, DFS_ROOT_INO, "f", 1, &a), 0);
    assert_true(a.ino == ino && a.size == 15);
    assert_int_equal(dfs_read(st, ino, 0, got, sizeof got), 15);
    assert_memory_equal(got, "\0\0\0\0\0\0\0\0\0\0hello", 15);
    check(st);
    assert_int_equal(dfs_store_close(st), 0);
}

static void making_needs_an_empty_place(void **state) {
    (void)state;
    struct dfs_volume_params p;
    dfs_volume_params_init(&p);
    strcpy(p.name, "vol");
    make(0);
    assert_int_equal(dfs_store_create(volume, &p, &err), -EEXIST);
    assert_non_null(strstr(err.text, "not empty"));
    /* One that fails leaves nothing behind. */
    snprintf(volume, sizeof volume, "%s/other", root);
    p.chunk_size = 5000;
    assert_int_equal(dfs_store_create(volume, &p, &err), -EINVAL);
    assert_int_equal(access(volume, F_OK), -1);
}

static void only_one_has_it_open(void **state) {
    (void)state;
    const struct dfs_store_config cfg = {0};
    struct dfs_store *st, *other;
    char pid[32];
    make(0);
    st = open_volume(false);
    assert_int_equal(dfs_store_open(volume, &cfg, &other, &err), -EBUSY);
    snprintf(pid, sizeof pid, "process %d", (int)getpid());
    assert_non_null(strstr(err.text, pid));
    dfs_store_abandon(st);
    st = open_volume(false);
    assert_int_equal(dfs_store_close(st), 0);
}

static void what_is_no_volume_is_refused(void **state) {
    (void)state;
    const struct dfs_store_config cfg = {0};
    struct dfs_store *st;
    assert_int_equal(dfs_store_open(volume, &cfg, &st, &err), -ENOENT);
    assert_int_equal(mkdir(volume, 0700), 0);
    assert_int_equal(dfs_store_open(volume, &cfg, &st, &err), -ENOENT);
    assert_non_null(strstr(err.text, "not a dfs volume"));
}

static void read_only_changes_nothing(void **state) {
    (void)state;
    char got[8];
    make(0);
    struct dfs_store *st = open_volume(false);
    const uint64_t ino = new_file(st, "f");
    assert_int_equal(dfs_write(st, ino, 0, "hello", 5, 0), 5);
    dfs_store_abandon(st); /* the journal is to be replayed */
    st = open_volume(true);
    assert_int_equal(dfs_read(st, ino, 0, got, sizeof got), 5);
    assert_int_equal(dfs_write(st, ino, 0, "x", 1, 0), -EROFS);
    assert_int_equal(dfs_unlink(st, DFS_ROOT_INO, "f", 1, NULL), -EROFS);
    assert_int_equal(dfs_fsync(st, ino, false), 0);
    assert_int_equal(dfs_store_close(st), 0);
    st = open_volume(false);
    check(st);
    assert_int_equal(dfs_store_close(st), 0);
}

static void the_limit_is_a_limit(void **state) {
    (void)state;
    static uint8_t buf[1u << 20];
    struct dfs_statfs s;
    make(1u << 20);
    struct dfs_store *st = open_volume(false);
    const uint64_t ino = new_file(st, "f");
    memset(buf, 1, sizeof buf);
    assert_int_equal(dfs_write(st, ino, 0, buf, sizeof buf, 0), sizeof buf);
    assert_int_equal(dfs_write(st, ino, sizeof buf, buf, 1, 0), -EDQUOT);
    assert_int_equal(dfs_write(st, ino, 4096, buf, 4096, 0), 4096); /* what is mapped already costs nothing */
    assert_int_equal(dfs_fallocate(st, ino, 0, 2u << 20, 4096), -EDQUOT);
    assert_int_equal(dfs_statfs(st, &s), 0);
    assert_true(s.bytes_total == 1u << 20 && s.bytes_free == 0 && s.bytes_used == 1u << 20);
    dfs_store_set_size_limit(st, 2u << 20);
    assert_int_equal(dfs_write(st, ino, sizeof buf, buf, 1, 0), 1);
    check(st);
    assert_int_equal(dfs_store_close(st), 0);
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

enum { THREADS = 6, FILES = 4, ROUNDS = 400, FILE_MAX = 400000 };

struct worker {
    struct dfs_store *st;
    pthread_t thread;
    unsigned no;
    uint8_t *model[FILES]; /* what each file of this thread holds */
    uint64_t size[FILES], ino[FILES];
    const char *wrong;
};

static void *work(void *arg) {
    struct worker *w = arg;
    struct rng r = {w->no + 1};
    uint8_t *buf = malloc(FILE_MAX);
    for (unsigned i = 0; i < FILES; i++) {
        const struct dfs_create c = {.mode = S_IFREG | 0644};
        struct dfs_attr a;
        char name[32];
        snprintf(name, sizeof name, "t%u-%u", w->no, i);
        if (dfs_create(w->st, DFS_ROOT_INO, name, strlen(name), &c, &a) != 0)
            w->wrong = "create";
        w->ino[i] = a.ino;
        w->model[i] = calloc(1, FILE_MAX);
    }
    for (unsigned i = 0; !w->wrong && i < ROUNDS; i++) {
        const unsigned f = (unsigned)rng_below(&r, FILES);
        const uint64_t off = rng_below(&r, FILE_MAX / 2), len = rng_range(&r, 1, rng_one_in(&r, 6) ? FILE_MAX / 2 : 9000);
        switch (rng_below(&r, 8)) {
        case 0: {
            const struct dfs_setattr sa = {.valid = DFS_SET_SIZE, .size = off};
            struct dfs_attr a;
            if (dfs_setattr(w->st, w->ino[f], &sa, &a) != 0)
                w->wrong = "truncate";
            if (off < w->size[f])
                memset(w->model[f] + off, 0, w->size[f] - off);
            w->size[f] = off;
            break;
        }
        case 1:
            if (dfs_fsync(w->st, w->ino[f], false) != 0)
                w->wrong = "fsync";
            break;
        case 2: { /* a name comes and goes, in the directory of all */
            char name[32];
            snprintf(name, sizeof name, "x%u-%u", w->no, i);
            struct dfs_attr a;
            if (dfs_link(w->st, w->ino[f], DFS_ROOT_INO, name, strlen(name), &a) != 0 ||
                dfs_unlink(w->st, DFS_ROOT_INO, name, strlen(name), &a) != 0)
                w->wrong = "link";
            break;
        }
        case 3:
        case 4: {
            const uint64_t want = off < w->size[f] ? DFS_MIN(len, w->size[f] - off) : 0;
            if (dfs_read(w->st, w->ino[f], off, buf, len) != (ssize_t)want || memcmp(buf, w->model[f] + off, want) != 0)
                w->wrong = "read";
            break;
        }
        default:
            for (uint64_t k = 0; k < len; k++)
                buf[k] = (uint8_t)(i % 2 ? rng_next(&r) : i + k / 512);
            if (dfs_write(w->st, w->ino[f], off, buf, len, 0) != (ssize_t)len)
                w->wrong = "write";
            memcpy(w->model[f] + off, buf, len);
            w->size[f] = DFS_MAX(w->size[f], off + len);
        }
    }
    free(buf);
    return NULL;
}

static void threads_do_not_disturb_each_other(void **state) {
    (void)state;
    struct worker w[THREADS] = {{.no = 0}};
    uint8_t *buf = malloc(FILE_MAX);
    make(0);
    struct dfs_store *st = open_volume(false);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i].st = st;
        w[i].no = i;
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        if (w[i].wrong)
            fail_msg("thread %u: %s", i, w[i].wrong);
    }
    struct dfs_store_stats stats;
    dfs_store_get_stats(st, &stats);
    assert_true(stats.checkpoints > 3 && stats.checksum_errors == 0 && !stats.failed);
    check(st);
    for (int pass = 0; pass < 2; pass++) { /* as it is, and after the process died */
        for (unsigned i = 0; i < THREADS; i++)
            for (unsigned f = 0; f < FILES; f++) {
                assert_int_equal(dfs_read(st, w[i].ino[f], 0, buf, FILE_MAX), w[i].size[f]);
                assert_memory_equal(buf, w[i].model[f], w[i].size[f]);
            }
        if (pass == 0) {
            dfs_store_abandon(st);
            st = open_volume(false);
        }
    }
    check(st);
    assert_int_equal(dfs_store_close(st), 0);
    for (unsigned i = 0; i < THREADS; i++)
        for (unsigned f = 0; f < FILES; f++)
            free(w[i].model[f]);
    free(buf);
}

/* A process of its own is killed in the middle; what it had said to be done is there. */
static void a_killed_process_loses_nothing_it_answered(void **state) {
    (void)state;
    make(0);
    for (int round = 0; round < 5; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        const pid_t pid = fork();
        if (pid == 0) {
            struct dfs_store *st = open_volume(false);
            for (uint32_t n = 0;; n++) {
                const struct dfs_create c = {.mode = S_IFREG | 0644};
                struct dfs_attr a;
                char name[32];
                snprintf(name, sizeof name, "r%d-%u", round, n);
                if (dfs_create(st, DFS_ROOT_INO, name, strlen(name), &c, &a) != 0 ||
                    dfs_write(st, a.ino, 0, &n, sizeof n, 0) != sizeof n || write(pipes[1], &n, sizeof n) != sizeof n)
                    _exit(1);
            }
        }
        close(pipes[1]);
        uint32_t n = 0, last = 0;
        while (last < 500 && read(pipes[0], &n, sizeof n) == sizeof n)
            last = n;
        kill(pid, SIGKILL);
        while (read(pipes[0], &n, sizeof n) == sizeof n) /* answered before the signal came */
            last = n;
        close(pipes[0]);
        waitpid(pid, NULL, 0);
        assert_true(last >= 500);
        struct dfs_store *st = open_volume(false);
        for (uint32_t i = 0; i <= last; i++) {
            struct dfs_attr a;
            char name[32];
            snprintf(name, sizeof name, "r%d-%u", round, i);
            assert_int_equal(dfs_lookup(st, DFS_ROOT_INO, name, strlen(name), &a), 0);
            n = UINT32_MAX;
            assert_int_equal(dfs_read(st, a.ino, 0, &n, sizeof n), sizeof n);
            assert_int_equal(n, i);
        }
        check(st);
        assert_int_equal(dfs_store_close(st), 0);
    }
}

int main(void) {
    dfs_log_open("test_store", DFS_LOG_STDERR, DFS_LOG_WARN);
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_volume_keeps_what_it_was_given),
        TEST(making_needs_an_empty_place),
        TEST(only_one_has_it_open),
        TEST(what_is_no_volume_is_refused),
        TEST(read_only_changes_nothing),
        TEST(the_limit_is_a_limit),
        TEST(threads_do_not_disturb_each_other),
        TEST(a_killed_process_loses_nothing_it_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
