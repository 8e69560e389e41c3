/* The real I/O backend on real files: on the disk below /tmp, and in /dev/shm. */
#include <pthread.h>

#include "common/err.h"
#include "common/log.h"
#include "fs/store/io.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

struct place {
    char path[64];
    int dir;
    struct dfs_io *io;
};

static void place_make(struct place *p, const char *parent) {
    struct dfs_err err = DFS_ERR_INIT;
    p->dir = unit_scratch(parent, p->path, sizeof p->path);
    assert_true(p->dir >= 0);
    close(openat(p->dir, "journal", O_CREAT | O_RDWR, 0600));
    close(openat(p->dir, "data", O_CREAT | O_RDWR, 0600));
    if (dfs_io_uring_new(p->dir, false, &p->io, &err) != 0)
        fail_msg("%s", err.text);
}

static void place_drop(struct place *p) {
    dfs_io_free(p->io);
    close(p->dir);
    unit_remove_tree(p->path);
}

static void journal_at_any_offset(const char *parent) {
    struct place p;
    char got[64];
    place_make(&p, parent);
    assert_int_equal(p.io->ops->write(p.io, DFS_IO_JOURNAL, "hello", 5, 1234567), 0);
    assert_int_equal(p.io->ops->sync(p.io, DFS_IO_JOURNAL), 0);
    assert_int_equal(p.io->ops->read(p.io, DFS_IO_JOURNAL, got, 10, 1234565), 0);
    assert_memory_equal(got, "\0\0hello\0\0\0", 10);
    uint64_t size;
    assert_int_equal(p.io->ops->size(p.io, DFS_IO_JOURNAL, &size), 0);
    assert_int_equal(size, 1234572);
    place_drop(&p);
}

static void space(const char *parent) {
    struct place p;
    uint64_t size, bytes, total;
    struct stat st;
    place_make(&p, parent);
    assert_int_equal(p.io->ops->allocate(p.io, DFS_IO_DATA, 0, 8u << 20), 0);
    assert_int_equal(p.io->ops->size(p.io, DFS_IO_DATA, &size), 0);
    assert_int_equal(size, 8u << 20);
    uint8_t *buf = dfs_io_alloc(1u << 20);
    memset(buf, 7, 1u << 20);
    assert_int_equal(p.io->ops->write(p.io, DFS_IO_DATA, buf, 1u << 20, 0), 0);
    assert_int_equal(p.io->ops->sync(p.io, DFS_IO_DATA), 0);
    assert_int_equal(p.io->ops->punch(p.io, DFS_IO_DATA, 4096, 8192), 0);
    assert_int_equal(p.io->ops->read(p.io, DFS_IO_DATA, buf, 16384, 0), 0);
    assert_true(buf[4095] == 7 && buf[4096] == 0 && buf[12287] == 0 && buf[12288] == 7);
    assert_int_equal(fstatat(p.dir, "data", &st, 0), 0);
    assert_int_equal(st.st_size, 8u << 20);
    assert_int_equal(p.io->ops->host_free(p.io, &bytes, &total), 0);
    assert_true(bytes > 0 && bytes <= total);
    free(buf);
    place_drop(&p);
}

/* More transfers than a ring holds, of all sizes; then reads, some past the end. */
static void batches(struct dfs_io *io, uint64_t base, uint64_t seed) {
    enum { N = 200 };
    static const size_t sizes[] = {4096, 8192, 65536, 131072};
    struct dfs_io_req req[N];
    struct dfs_io_batch *b;
    struct rng r = {seed};
    uint64_t off = base;
    assert_int_equal(io->ops->batch_begin(io, &b), 0);
    for (int i = 0; i < N; i++) {
        const size_t len = sizes[rng_below(&r, DFS_ARRAY_SIZE(sizes))];
        req[i] = (struct dfs_io_req){.op = DFS_IO_WRITE, .file = DFS_IO_DATA, .buf = dfs_io_alloc(len), .len = len, .off = off};
        memset(req[i].buf, i + (int)seed, len);
        off += len;
        assert_int_equal(io->ops->batch_submit(b, &req[i]), 0);
    }
    assert_int_equal(io->ops->batch_wait(b, 10), 0);
    assert_int_equal(io->ops->batch_wait(b, 0), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(req[i].result, 0);
        memset(req[i].buf, 0xdd, req[i].len);
        req[i].op = DFS_IO_READ;
        assert_int_equal(io->ops->batch_submit(b, &req[i]), 0);
    }
    assert_int_equal(io->ops->batch_wait(b, 0), 0);
    io->ops->batch_end(b);
    for (int i = 0; i < N; i++) {
        const uint8_t *p = req[i].buf;
        const uint8_t want = (uint8_t)(i + (int)seed);
        assert_true(p[0] == want && memcmp(p, p + 1, req[i].len - 1) == 0);
        free(req[i].buf);
    }
}

static void past_the_end(struct dfs_io *io) {
    struct dfs_io_batch *b;
    uint64_t size;
    assert_int_equal(io->ops->size(io, DFS_IO_DATA, &size), 0);
    struct dfs_io_req req = {
        .op = DFS_IO_READ, .file = DFS_IO_DATA, .buf = dfs_io_alloc(16384), .len = 16384, .off = size - 4096};
    memset(req.buf, 0xdd, req.len);
    assert_int_equal(io->ops->batch_begin(io, &b), 0);
    assert_int_equal(io->ops->batch_submit(b, &req), 0);
    io->ops->batch_end(b);
    assert_int_equal(req.result, 0);
    const uint8_t *p = req.buf;
    for (size_t i = 4096; i < 16384; i++)
        assert_int_equal(p[i], 0);
    memset(req.buf, 0xdd, req.len);
    assert_int_equal(io->ops->read(io, DFS_IO_DATA, req.buf, 4096, size + (1u << 20)), 0);
    assert_true(p[0] == 0 && memcmp(p, p + 1, 4095) == 0);
    free(req.buf);
}

struct job {
    struct dfs_io *io;
    uint64_t n;
};
static void *run_job(void *arg) {
    const struct job *j = arg;
    for (int i = 0; i < 5; i++)
        batches(j->io, j->n << 26, j->n * 10 + (uint64_t)i);
    return NULL;
}

static void many_threads(struct dfs_io *io) {
    pthread_t t[6];
    struct job j[6];
    for (uint64_t i = 0; i < 6; i++) {
        j[i] = (struct job){io, i};
        assert_int_equal(pthread_create(&t[i], NULL, run_job, &j[i]), 0);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
}

static void errors_are_told(const char *parent) {
    struct place p;
    struct dfs_io *ro;
    struct dfs_io_batch *b;
    place_make(&p, parent);
    assert_int_equal(dfs_io_uring_new(p.dir, true, &ro, NULL), 0);
    struct dfs_io_req req = {.op = DFS_IO_WRITE, .file = DFS_IO_DATA, .buf = dfs_io_alloc(4096), .len = 4096};
    memset(req.buf, 0, 4096);
    assert_int_equal(ro->ops->write(ro, DFS_IO_DATA, req.buf, 4096, 0), -EBADF);
    assert_int_equal(ro->ops->batch_begin(ro, &b), 0);
    assert_int_equal(ro->ops->batch_submit(b, &req), 0);
    assert_int_equal(ro->ops->batch_wait(b, 0), -EBADF);
    assert_int_equal(req.result, -EBADF);
    ro->ops->batch_end(b);
    /* The next user of the ring starts without that error. */
    assert_int_equal(ro->ops->batch_begin(ro, &b), 0);
    req.op = DFS_IO_READ;
    assert_int_equal(ro->ops->batch_submit(b, &req), 0);
    assert_int_equal(ro->ops->batch_wait(b, 0), 0);
    ro->ops->batch_end(b);
    free(req.buf);
    dfs_io_free(ro);
    unlinkat(p.dir, "data", 0);
    struct dfs_err err = DFS_ERR_INIT;
    assert_int_equal(dfs_io_uring_new(p.dir, false, &ro, &err), -ENOENT);
    assert_non_null(strstr(err.text, "'data'"));
    place_drop(&p);
}

static void everything(const char *parent) {
    struct place p;
    journal_at_any_offset(parent);
    space(parent);
    place_make(&p, parent);
    batches(p.io, 0, 1);
    past_the_end(p.io);
    many_threads(p.io);
    place_drop(&p);
    errors_are_told(parent);
}

static void on_a_disk(void **state) {
    (void)state;
    everything("/tmp");
}

static void in_memory(void **state) {
    (void)state;
    if (access("/dev/shm", W_OK) != 0)
        skip();
    everything("/dev/shm");
}

int main(void) {
    dfs_log_open("test_io", DFS_LOG_STDERR, DFS_LOG_WARN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_a_disk), cmocka_unit_test(in_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
