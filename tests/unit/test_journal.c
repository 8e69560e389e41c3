#include "fs/store/journal.h"

#include <pthread.h>

#include "common/log.h"
#include "tests/model/io_test.h"
#include "tests/model/rng.h"
#include "tests/unit/unit.h"

#define SIZE (4u << 20)
#define SEED 99u

static uint8_t data[300000];

static struct dfs_journal *journal(struct dfs_io *io, const struct dfs_journal_place *at) {
    const struct dfs_journal_config cfg = {.io = io,
                                           .size = SIZE,
                                           .seed = SEED,
                                           .epoch = 3,
                                           .pos = at->pos,
                                           .lsn = at->lsn,
                                           .prev_csum = at->prev_csum,
                                           .tail = at->pos};
    struct dfs_journal *j = dfs_journal_new(&cfg);
    assert_non_null(j);
    return j;
}

/* A write of `len` bytes to inode `ino`. */
static uint64_t append(struct dfs_journal *j, uint64_t ino, uint32_t len) {
    const struct dfs_rec r = {.type = DFS_REC_WRITE, .ino = ino, .data = data, .data_len = len};
    return dfs_journal_append(j, &r, dfs_rec_size(&r), 0);
}

struct seen {
    uint64_t n, first, last;
};

static int see(void *arg, const struct dfs_rec_header *h, const uint8_t *body, const struct dfs_journal_place *at) {
    struct seen *s = arg;
    struct dfs_rec r;
    (void)at;
    assert_int_equal(dfs_rec_decode(le16toh(h->type), le16toh(h->flags), body, le32toh(h->body_len), &r), 0);
    assert_int_equal(le64toh(h->epoch), 3);
    if (s->n++ == 0)
        s->first = r.ino;
    else
        assert_int_equal(r.ino, s->last + 1);
    s->last = r.ino;
    return 0;
}

static struct seen scan(struct dfs_io *io, struct dfs_journal_place *place) {
    struct seen s = {0};
    assert_int_equal(dfs_journal_scan(io, SIZE, SEED, place, see, &s), 0);
    return s;
}

static void what_is_appended_is_found_again(void **state) {
    (void)state;
    struct test_disk *d = test_disk_new(1);
    struct dfs_io *io = test_disk_io(d);
    struct dfs_journal_place start = {0}, place = start;
    struct dfs_journal *j = journal(io, &start);
    struct rng r = {1};
    for (uint64_t i = 1; i <= 50; i++)
        assert_int_equal(dfs_journal_write(j, append(j, i, (uint32_t)rng_below(&r, 20000))), 0);
    const struct seen s = scan(io, &place);
    assert_true(s.n == 50 && s.first == 1 && s.last == 50);
    uint64_t pos, lsn, csum;
    dfs_journal_head(j, &pos, &lsn, &csum);
    assert_true(place.pos == pos && place.lsn == lsn && lsn == 50 && place.prev_csum == csum);
    dfs_journal_free(j);
    /* Going on from there makes one chain. */
    j = journal(io, &place);
    assert_int_equal(dfs_journal_write(j, append(j, 51, 10)), 0);
    place = start;
    assert_int_equal(scan(io, &place).last, 51);
    dfs_journal_free(j);
    dfs_io_free(io);
    test_disk_free(d);
}

static void the_ring_goes_round_many_times(void **state) {
    (void)state;
    struct test_disk *d = test_disk_new(1);
    struct dfs_io *io = test_disk_io(d);
    struct dfs_journal_place tail = {0};
    struct dfs_journal *j = journal(io, &tail);
    struct rng r = {2};
    uint64_t ino = 0;
    for (int lap = 0; lap < 60; lap++) {
        const uint64_t first = ino + 1;
        for (uint32_t len; len = (uint32_t)rng_below(&r, 250000), dfs_journal_room(j) > len + 1000u;) {
            append(j, ++ino, len);
            if (rng_one_in(&r, 10))
                break;
        }
        assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0);
        struct dfs_journal_place place = tail;
        const struct seen s = scan(io, &place);
        assert_true(s.n == ino + 1 - first);
        if (s.n)
            assert_true(s.first == first && s.last == ino);
        tail = place;
        dfs_journal_trim(j, tail.pos, tail.lsn);
    }
    assert_true(tail.pos > 8ull * SIZE);
    dfs_journal_free(j);
    dfs_io_free(io);
    test_disk_free(d);
}

/* At any cut, with any part of the unsynced writes: what was synced is found, and nothing comes after a gap. */
static void a_crash_leaves_a_prefix(void **state) {
    (void)state;
    struct rng r = {3};
    for (int round = 0; round < 20; round++) {
        struct test_disk *d = test_disk_new(rng_next(&r));
        struct dfs_io *io = test_disk_io(d);
        struct dfs_journal_place start = {0};
        struct dfs_journal *j = journal(io, &start);
        uint64_t synced_at[400] = {0};
        test_disk_record(d);
        for (uint64_t i = 1; i <= 40; i++) {
            dfs_journal_write(j, append(j, i, (uint32_t)rng_below(&r, 9000)));
            if (rng_one_in(&r, 6)) {
                assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0);
                synced_at[test_disk_events(d)] = i;
            }
        }
        uint64_t durable = 0;
        for (size_t at = 0; at <= test_disk_events(d); at++) {
            durable = synced_at[at] ? synced_at[at] : durable;
            struct test_disk *image = test_disk_crash(d, at, TEST_CUT_RANDOM, rng_next(&r));
            struct dfs_io *iio = test_disk_io(image);
            struct dfs_journal_place place = start;
            const struct seen s = scan(iio, &place);
            assert_true(s.last >= durable && s.n == s.last && (s.n == 0 || s.first == 1));
            /* What is appended now is not followed by what an earlier life left behind. */
            struct dfs_journal *k = journal(iio, &place);
            const uint64_t ino = s.last + 1;
            assert_int_equal(dfs_journal_write(k, append(k, ino, (uint32_t)rng_below(&r, 9000))), 0);
            place = start;
            assert_int_equal(scan(iio, &place).last, ino);
            dfs_journal_free(k);
            dfs_io_free(iio);
            test_disk_free(image);
        }
        dfs_journal_free(j);
        dfs_io_free(io);
        test_disk_free(d);
    }
}

static void data_is_synced_before_the_record_that_names_it(void **state) {
    (void)state;
    struct test_disk *d = test_disk_new(1);
    struct dfs_io *io = test_disk_io(d);
    struct dfs_journal_place start = {0};
    struct dfs_journal *j = journal(io, &start);
    const struct dfs_rec r = {.type = DFS_REC_NOOP};
    test_disk_fail_nothing(d);
    dfs_journal_append(j, &r, dfs_rec_size(&r), 0);
    assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0);
    assert_int_equal(test_disk_calls(d, TEST_SYNC), 1);
    dfs_journal_append(j, &r, dfs_rec_size(&r), 4096);
    assert_int_equal(dfs_journal_direct_bytes(j), 4096);
    assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0);
    assert_int_equal(test_disk_calls(d, TEST_SYNC), 3);
    assert_int_equal(dfs_journal_direct_bytes(j), 0);
    assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0); /* nothing new: nothing to do */
    assert_int_equal(test_disk_calls(d, TEST_SYNC), 3);
    dfs_journal_free(j);
    dfs_io_free(io);
    test_disk_free(d);
}

static void errors_are_sticky(void **state) {
    (void)state;
    for (int call = TEST_WRITE; call <= TEST_SYNC; call++) {
        struct test_disk *d = test_disk_new(1);
        struct dfs_io *io = test_disk_io(d);
        struct dfs_journal_place start = {0};
        struct dfs_journal *j = journal(io, &start);
        test_disk_fail(d, (enum test_call)call, 1, -EIO, 0, false);
        append(j, 1, 100);
        assert_int_equal(dfs_journal_sync(j, UINT64_MAX), -EIO);
        assert_int_equal(dfs_journal_sync(j, UINT64_MAX), -EIO);
        assert_int_equal(dfs_journal_write(j, append(j, 2, 100)), -EIO);
        assert_int_equal(dfs_journal_error(j), -EIO);
        dfs_journal_free(j);
        dfs_io_free(io);
        test_disk_free(d);
    }
}

struct worker {
    struct dfs_journal *j;
    pthread_mutex_t *order;
    uint64_t *next;
};

static void *work(void *arg) {
    struct worker *w = arg;
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(w->order); /* the tree lock's part */
        const uint64_t pos = append(w->j, ++*w->next, 500);
        pthread_mutex_unlock(w->order);
        if (dfs_journal_write(w->j, pos) != 0 || (i % 4 == 0 && dfs_journal_sync(w->j, pos) != 0))
            return w;
    }
    return NULL;
}

static void many_threads_make_one_chain(void **state) {
    (void)state;
    struct test_disk *d = test_disk_new(1);
    struct dfs_io *io = test_disk_io(d);
    struct dfs_journal_place start = {0};
    struct dfs_journal *j = journal(io, &start);
    pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
    uint64_t next = 0;
    struct worker w = {j, &order, &next};
    pthread_t t[6];
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&t[i], NULL, work, &w), 0);
    for (int i = 0; i < 6; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(dfs_journal_sync(j, UINT64_MAX), 0);
    const struct seen s = scan(io, &start);
    assert_true(s.n == 1200 && s.first == 1 && s.last == 1200);
    dfs_journal_free(j);
    dfs_io_free(io);
    test_disk_free(d);
}

int main(void) {
    dfs_log_open("test_journal", DFS_LOG_STDERR, DFS_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_found_again),
        cmocka_unit_test(the_ring_goes_round_many_times),
        cmocka_unit_test(a_crash_leaves_a_prefix),
        cmocka_unit_test(data_is_synced_before_the_record_that_names_it),
        cmocka_unit_test(errors_are_sticky),
        cmocka_unit_test(many_threads_make_one_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
