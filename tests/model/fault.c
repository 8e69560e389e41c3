/* Histories in which one call to the disk fails, for each kind of call and one place after the other. The operation that
 * meets it says so, or copes; the volume holds the state before or after it; what fails to become durable is not called
 * durable, now or later; and after a reopening every promise holds. */
#include <inttypes.h>

#include "common/util.h"
#include "tests/model/history.h"
#include "tests/model/variants.h"

#define PLACES 5u /* tried per kind of call and history */

struct plan {
    enum test_call call;
    uint64_t n;
    int err;
    uint64_t after;
    bool half;
};

static bool failed(struct dfs_store *st) {
    struct dfs_store_stats s;
    dfs_store_get_stats(st, &s);
    return s.failed;
}

static bool excusable(int64_t result, int err) {
    return result == err || result == -EIO || result == -ENOSPC || result == -ENOMEM;
}

/* Opens an image of the disk and looks whether it holds what it must. */
static bool holds(struct history *h, enum test_cut how, size_t lo, uint64_t seed) {
    struct dfs_err err = DFS_ERR_INIT;
    struct volume v = {.params = h->v.params, .keep_orphans = true};
    v.disk = test_disk_crash(h->v.disk, test_disk_events(h->v.disk), how, seed);
    const int r = volume_open(&v, &err);
    bool ok = r == 0;
    if (!ok) {
        v.store = NULL;
        history_complain(h, "after the fault (cut %d) the volume does not open: %s", (int)how, err.text);
    }
    if (ok)
        ok = history_check(h, v.store);
    if (ok) {
        struct dump d;
        struct model *m = NULL;
        size_t found;
        dump_store(v.store, model_max_ino(h->m) + 4, &d);
        ok = history_find(h, &d, true, lo, h->n, &found, &m);
        if (!ok) {
            char text[16384] = "";
            struct dump want;
            dump_model(h->m, true, &want);
            dump_differs(&want, &d, text, sizeof text);
            history_complain(h, "after the fault (cut %d, image seed %" PRIu64 ") the content is none of those from %zu to "
                             "%zu: %s", (int)how, seed, lo, h->n, text);
            dump_free(&want);
        }
        if (m)
            model_free(m);
        dump_free(&d);
    }
    volume_drop(&v);
    return ok;
}

/* A volume that says it failed must go on saying so. */
static bool stays_failed(struct history *h) {
    const struct dfs_create c = {.mode = S_IFREG | 0600};
    struct dfs_attr a;
    const int s = dfs_syncfs(h->v.store), f = dfs_fsync(h->v.store, DFS_ROOT_INO, false),
              w = dfs_create(h->v.store, DFS_ROOT_INO, "after-failure", 13, &c, &a), k = dfs_checkpoint(h->v.store);
    if (s == -EIO && f == -EIO && w == -EIO && k == -EIO)
        return true;
    history_complain(h, "a failed volume answers syncfs %d, fsync %d, create %d, checkpoint %d", s, f, w, k);
    return false;
}

/* After a failed reopening: open it without faults, and see what is there. */
static bool recover(struct history *h, struct op *op) {
    struct dfs_err err = DFS_ERR_INIT;
    struct dump d;
    struct model *m;
    size_t found;
    op->kind = OP_KILL; /* whatever the close did not manage */
    op->flags = h->v.keep_orphans;
    const int r = volume_open(&h->v, &err);
    if (r != 0) {
        h->v.store = NULL;
        history_complain(h, "after a failed reopening the volume does not open: %s", err.text);
        return false;
    }
    if (!h->v.keep_orphans)
        model_release_orphans(h->m);
    op->result = 0;
    history_keep(h, op);
    dump_store(h->v.store, model_max_ino(h->m) + 4, &d);
    const bool ok = history_find(h, &d, true, h->n, h->n, &found, &m);
    dump_free(&d);
    if (ok)
        model_free(m);
    else
        history_complain(h, "after a failed reopening the content is wrong");
    return ok;
}

static bool run_with(uint64_t seed, const struct plan *p, size_t nops) {
    struct history h;
    history_begin(&h, seed);
    test_disk_fail(h.v.disk, p->call, p->n, p->err, p->after, p->half);
    bool ok = true, hit = false, dead = false, reopened = false;
    for (size_t i = 0; ok && !dead && i < nops; i++) {
        const char *why;
        struct op *op = history_make(&h);
        test_disk_pause(h.v.disk, false);
        run_op(&h.v, op, h.buf, &why);
        test_disk_pause(h.v.disk, true); /* not while we look */
        if (why) {
            history_complain(&h, "%s", why);
            ok = false;
        } else if (hit || test_disk_faults(h.v.disk) == 0) {
            ok = history_compare(&h, op);
            if (ok)
                history_keep(&h, op);
        } else {
            hit = true;
            variant_counts.faults++;
            reopened |= op->kind == OP_REOPEN || op->kind == OP_KILL;
            test_disk_fail_nothing(h.v.disk);
            if (!h.v.store) {
                ok = recover(&h, op);
                continue;
            }
            const bool cut_short = (op->kind == OP_WRITE || op->kind == OP_COPY) && op->result >= 0 &&
                                   (uint64_t)op->result < op->len;
            if (!cut_short && (op->result >= 0 || !excusable(op->result, p->err))) {
                ok = history_compare(&h, op);
                if (ok)
                    history_keep(&h, op);
            } else {
                ok = history_resolve(&h, op);
            }
            dead = ok && failed(h.v.store);
            if (dead)
                ok = stays_failed(&h);
        }
    }
    variant_counts.operations += h.n;
    if (ok && !dead)
        ok = history_compare_all(&h) && history_check(&h, h.v.store);
    size_t lo = 0;
    for (size_t i = 0; i < h.n; i++)
        if (h.steps[i].durable)
            lo = i + 1;
        else if (h.steps[i].op.kind == OP_REOPEN && h.steps[i].op.result == 0)
            lo = i;
    if (h.v.store)
        dfs_store_abandon(h.v.store);
    h.v.store = NULL;
    size_t answered = h.n - dead; /* what failed last may be there or not */
    while (answered > lo && h.steps[answered - 1].op.result < 0)
        answered--;
    if (ok)
        ok = holds(&h, TEST_CUT_KILL, answered, seed);
    /* A host that lost what it could not write says so once: a process that comes later cannot know. */
    if (ok && !(reopened && p->call == TEST_SYNC))
        ok = holds(&h, TEST_CUT_NONE, lo, seed) &&
             holds(&h, TEST_CUT_RANDOM, lo, seed) && holds(&h, TEST_CUT_RANDOM, lo, seed + 1);
    if (!ok)
        fprintf(stderr, "... with call %d number %" PRIu64 " failing with %d (and %" PRIu64 " more, half %d)\n",
                (int)p->call, p->n, p->err, p->after, p->half);
    history_end(&h);
    return ok;
}

bool variant_fault(uint64_t seed) {
    static const struct {
        enum test_call call;
        int err;
    } kinds[] = {{TEST_READ, -EIO},           {TEST_WRITE, -EIO},         {TEST_WRITE, -ENOSPC},
                 {TEST_SYNC, -EIO},           {TEST_ALLOCATE, -ENOSPC},   {TEST_ALLOCATE, -EIO},
                 {TEST_ALLOCATE, -EOPNOTSUPP}, {TEST_PUNCH, -EIO},        {TEST_PUNCH, -EOPNOTSUPP},
                 {TEST_SIZE, -EIO},           {TEST_HOST_FREE, -EIO},     {TEST_BATCH, -ENOMEM}};
    struct history h;
    struct rng rng = {seed ^ 0xfa17};
    const size_t nops = (size_t)rng_range(&rng, 5, 25);
    uint64_t calls[TEST_CALLS];
    history_begin(&h, seed);
    test_disk_fail_nothing(h.v.disk);
    bool ok = true;
    for (size_t i = 0; ok && i < nops; i++) {
        const char *why;
        struct op *op = history_make(&h);
        test_disk_pause(h.v.disk, false);
        run_op(&h.v, op, h.buf, &why);
        test_disk_pause(h.v.disk, true);
        ok = history_compare(&h, op);
        if (ok)
            history_keep(&h, op);
    }
    for (int c = 0; c < TEST_CALLS; c++)
        calls[c] = test_disk_calls(h.v.disk, (enum test_call)c);
    history_end(&h);
    for (size_t k = 0; ok && k < DFS_ARRAY_SIZE(kinds); k++) {
        const uint64_t n = calls[kinds[k].call];
        for (uint64_t i = 0; ok && i < DFS_MIN(n, (uint64_t)PLACES); i++) {
            const struct plan p = {.call = kinds[k].call,
                                   .n = n <= PLACES ? i + 1 : rng_range(&rng, 1, n),
                                   .err = kinds[k].err,
                                   .after = rng_one_in(&rng, 2) ? 0 : 1000,
                                   .half = rng_one_in(&rng, 3)};
            ok = run_with(seed, &p, nops);
        }
    }
    return ok;
}
