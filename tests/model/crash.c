/* Histories with crashes: at each flush boundary and at random moments the volume must open, be consistent, hold
 * everything that was promised to be durable, and be in a state that the history went through. */
#include <inttypes.h>

#include "common/util.h"
#include "tests/model/history.h"
#include "tests/model/variants.h"

#define RANDOM_CUTS 20u

struct variant_counts variant_counts;

/* Operations that must, and that may have had their effect, when the disk saw `at` events. */
static void bounds(const struct history *h, size_t at, bool kill, size_t *lo, size_t *hi) {
    *lo = *hi = 0;
    for (size_t i = 0; i < h->n; i++) {
        const struct step *s = &h->steps[i];
        if (s->end <= at && (kill || s->durable))
            *lo = i + 1;
        else if (s->end <= at && s->op.kind == OP_REOPEN && s->op.result == 0)
            *lo = i; /* the close made all durable, what the opening then did to orphans is not yet */
        if (s->begin < at || s->end <= at)
            *hi = i + 1;
    }
}

/* Goes on working where the crash left off, on the state that was found. */
static bool go_on(struct history *h, struct volume *v, struct model *m, struct rng *rng) {
    struct history next = {
        .seed = h->seed, .rng = *rng, .style = h->style, .v = *v, .m = m, .buf = h->buf, .want = h->want};
    bool ok = true;
    next.style.reopen_often = 10;
    test_disk_record(next.v.disk);
    for (int i = 0; ok && i < 12; i++)
        ok = history_step(&next);
    if (ok)
        ok = history_compare_all(&next) && history_check(&next, next.v.store);
    if (!ok)
        fprintf(stderr, "... in what was done after a crash\n");
    *v = next.v;
    free(next.steps);
    return ok;
}

/* The power goes again, while the volume is being opened or right after. */
static bool crash_again(struct history *h, struct test_disk *disk, size_t lo, size_t hi, struct rng *rng) {
    struct dfs_err err = DFS_ERR_INIT;
    struct volume v = {.params = h->v.params, .keep_orphans = false};
    const size_t at = (size_t)rng_below(rng, test_disk_events(disk) + 1);
    struct model *m = NULL;
    size_t found;
    variant_counts.crashes++;
    v.disk = test_disk_crash(disk, at, (enum test_cut)rng_below(rng, TEST_CUTS), rng_next(rng));
    bool ok = volume_open(&v, &err) == 0;
    if (!ok) {
        v.store = NULL;
        history_complain(h, "after a second crash, while opening, the volume does not open: %s", err.text);
    }
    if (ok)
        ok = history_check(h, v.store);
    if (ok) {
        struct dump d;
        dump_store(v.store, model_max_ino(h->m) + 4, &d);
        ok = history_find(h, &d, false, lo, hi, &found, &m);
        if (!ok)
            history_complain(h, "after a second crash, while opening, the content is none of those from %zu to %zu", lo, hi);
        dump_free(&d);
    }
    if (m)
        model_free(m);
    volume_drop(&v);
    return ok;
}

static bool crash_once(struct history *h, size_t at, enum test_cut how, struct rng *rng) {
    const uint64_t image_seed = rng_next(rng);
    struct dfs_err err = DFS_ERR_INIT;
    struct volume v = {.params = h->v.params, .keep_orphans = rng_one_in(rng, 2)};
    size_t lo, hi, found = 0;
    variant_counts.crashes++;
    v.disk = test_disk_crash(h->v.disk, at, how, image_seed);
    test_disk_record(v.disk);
    bounds(h, at, how == TEST_CUT_KILL, &lo, &hi);
    run_set_clock(ROOT_TIME);
    int r = volume_open(&v, &err);
    if (r != 0) {
        history_complain(h, "after a crash at event %zu (cut %d, image seed %" PRIu64 ") the volume does not open: %s",
                         at, (int)how, image_seed, err.text);
        v.store = NULL;
        volume_drop(&v);
        return false;
    }
    bool ok = history_check(h, v.store);
    struct dump d;
    struct model *m = NULL;
    dump_store(v.store, model_max_ino(h->m) + 4, &d);
    if (ok && !history_find(h, &d, v.keep_orphans, lo, hi, &found, &m)) {
        char text[16384] = "";
        struct dump want;
        struct model *w = history_replay(h, hi);
        dump_model(w, v.keep_orphans, &want);
        dump_differs(&want, &d, text, sizeof text);
        history_complain(h, "after a crash at event %zu (cut %d, image seed %" PRIu64 ", orphans %d) the content is none "
                         "of those between operations %zu and %zu; against %zu: %s",
                         at, (int)how, image_seed, v.keep_orphans, lo, hi, hi, text);
        dump_free(&want);
        model_free(w);
        ok = false;
    } else if (!ok) {
        fprintf(stderr, "... after a crash at event %zu (cut %d, image seed %" PRIu64 ")\n", at, (int)how, image_seed);
    }
    dump_free(&d);
    if (ok && rng_one_in(rng, 5))
        ok = crash_again(h, v.disk, lo, hi, rng);
    if (ok && rng_one_in(rng, 10)) {
        if (!v.keep_orphans)
            model_release_orphans(m);
        ok = go_on(h, &v, m, rng);
    }
    if (m)
        model_free(m);
    if (ok && rng_one_in(rng, 10)) {
        r = dfs_store_close(v.store);
        v.store = NULL;
        if (r != 0)
            history_complain(h, "close after a crash at event %zu: %d", at, r);
        ok = r == 0;
    }
    volume_drop(&v);
    return ok;
}

static bool crashes(struct history *h) {
    struct rng rng = {h->seed ^ 0xc2a54};
    const size_t n = test_disk_events(h->v.disk);
    unsigned char *cut = calloc(n + 1, 1);
    if (!cut)
        abort();
    for (unsigned i = 0; i < RANDOM_CUTS; i++)
        cut[rng_below(&rng, n + 1)] |= 1;
    for (size_t i = 0; i < n; i++)
        if (test_disk_is_sync(h->v.disk, i)) {
            cut[i] |= 2;
            cut[i + 1] |= 2;
        }
    cut[n] |= 1;
    bool ok = true;
    for (size_t at = 0; ok && at <= n; at++) {
        if (cut[at] & 1)
            ok = crash_once(h, at, (enum test_cut)rng_below(&rng, TEST_CUTS), &rng);
        if (ok && cut[at] & 2)
            ok = crash_once(h, at, (enum test_cut)rng_range(&rng, TEST_CUT_NONE, TEST_CUTS - 1), &rng);
    }
    free(cut);
    return ok;
}

bool variant_crash(uint64_t seed) {
    struct history h;
    history_begin(&h, seed);
    const size_t n = (size_t)rng_range(&h.rng, 10, 80);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = history_step(&h);
    variant_counts.operations += h.n;
    if (ok)
        ok = history_compare_all(&h) && history_check(&h, h.v.store);
    if (h.v.store)
        dfs_store_abandon(h.v.store);
    h.v.store = NULL;
    if (ok)
        ok = crashes(&h);
    history_end(&h);
    return ok;
}
