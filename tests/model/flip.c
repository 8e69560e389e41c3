/* Damaged images: whatever is flipped, opening, checking, reading and changing never crash, and what is read is right or
 * an error. */
#include <inttypes.h>

#include "common/util.h"
#include "fs/store/super_format.h"
#include "tests/model/history.h"
#include "tests/model/variants.h"

#define DAMAGES 20u

/* True: a superblock was hit, so that the older one may count. */
static bool damage(struct test_disk *d, struct rng *rng) {
    const enum dfs_io_file file = rng_one_in(rng, 5) ? DFS_IO_JOURNAL : DFS_IO_DATA;
    const size_t pages = test_disk_pages(d, file);
    if (pages == 0)
        return false;
    const uint64_t page = test_disk_page_offset(d, file, (size_t)rng_below(rng, pages));
    const uint64_t bits = rng_range(rng, 1, 4);
    for (uint64_t i = 0; i < bits; i++)
        test_disk_flip(d, file, page + rng_below(rng, 4096), (uint8_t)(1u << rng_below(rng, 8)));
    return file == DFS_IO_DATA && page < DFS_FIRST_BLOCK * 4096u;
}

/* Does what was read fit this state of the model? `text`: how it does not. */
static bool fits(const struct model *m, const struct dump *got, char *text, size_t size) {
    struct dump want;
    dump_model(m, true, &want);
    const bool wrong = dump_wrong(&want, got, text, size);
    dump_free(&want);
    return !wrong;
}

static bool is_right(struct history *h, const struct dump *got, bool clean) {
    char text[16384], last[16384] = "";
    uint64_t best = 0;
    /* Of what only the journal held, a damage to the journal may cut off the end, in the middle of an operation even. */
    for (size_t i = h->n + 1; i-- > (clean ? h->n : 0);) {
        struct model *m = history_replay(h, i);
        bool right = fits(m, got, text, sizeof text), more = !clean && i < h->n;
        model_free(m);
        const uint64_t ino = strtoull(text + strlen("inode "), NULL, 10);
        if (!right && ino > best) { /* tell of the state that comes closest */
            best = ino;
            memcpy(last, text, sizeof last);
        }
        for (unsigned k = 0; !right && more && k < 1000; k++) {
            m = history_replay(h, i);
            more = model_apply_part(m, &h->steps[i].op, k) || k == 0;
            right = more && fits(m, got, text, sizeof text);
            model_free(m);
        }
        if (right)
            return true;
    }
    history_complain(h, "a damaged volume (%s) gives what never was as right: %s", clean ? "clean" : "not clean", last);
    return false;
}

static bool damaged_once(struct history *h, bool clean, struct rng *rng) {
    const uint64_t seed = rng_next(rng);
    struct rng mine = {seed};
    struct dfs_err err = DFS_ERR_INIT;
    struct volume v = {.params = h->v.params, .keep_orphans = true, .disk = test_disk_copy(h->v.disk)};
    bool ok = true;
    variant_counts.damages++;
    const uint64_t n = rng_range(&mine, 1, 3);
    for (uint64_t i = 0; i < n; i++)
        if (damage(v.disk, &mine))
            clean = false;
    if (volume_open(&v, &err) == 0) {
        struct dump d;
        dump_store(v.store, model_max_ino(h->m) + 4, &d);
        ok = is_right(h, &d, clean);
        bool errors = false;
        for (uint64_t i = 0; i < d.n; i++)
            for (int k = 0; k < DUMP_PARTS; k++)
                errors |= d.part[i][k] && strstr(d.part[i][k], "ERR");
        dump_free(&d);
        if (ok && errors && history_check(NULL, v.store)) {
            history_complain(h, "the check finds nothing wrong with a volume that cannot be read");
            ok = false;
        }
        struct model *m = history_replay(h, h->n);
        for (int i = 0; ok && i < 12 && v.store; i++) {
            struct op op;
            const char *why;
            generate_op(&mine, &h->style, m, ROOT_TIME, &op);
            run_op(&v, &op, h->buf, &why);
        }
        model_free(m);
    } else {
        v.store = NULL;
    }
    if (!ok)
        fprintf(stderr, "... with the damage of seed %" PRIu64 "\n", seed);
    volume_drop(&v);
    return ok;
}

bool variant_flip(uint64_t seed) {
    struct history h;
    history_begin(&h, seed);
    const size_t n = (size_t)rng_range(&h.rng, 10, 60);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = history_step(&h);
    variant_counts.operations += h.n;
    const bool clean = rng_one_in(&h.rng, 2);
    if (clean)
        ok = ok && dfs_store_close(h.v.store) == 0;
    else if (h.v.store)
        dfs_store_abandon(h.v.store);
    h.v.store = NULL;
    for (unsigned i = 0; ok && i < DAMAGES; i++)
        ok = damaged_once(&h, clean, &h.rng);
    history_end(&h);
    return ok;
}
