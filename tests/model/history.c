#include "tests/model/history.h"

#include <inttypes.h>
#include <stdarg.h>

#include "common/util.h"
#include "fs/store/check.h"

static void *must(void *p) {
    if (!p)
        abort();
    return p;
}

void history_complain(const struct history *h, const char *fmt, ...) {
    char line[512];
    va_list ap;
    fprintf(stderr, "\nseed %" PRIu64 ": ", h->seed);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\noperations (chunk %u, level %d):\n", h->v.params.chunk_size, h->v.params.compression_level);
    /* The last of them; all, if somebody looks closely. */
    for (size_t i = getenv("DFS_TEST_LOG") || h->n < 12 ? 0 : h->n - 12; i < h->n; i++) {
        op_print(&h->steps[i].op, line, sizeof line);
        fprintf(stderr, "%4zu [%zu,%zu) %s\n", i, h->steps[i].begin, h->steps[i].end, line);
    }
}

static uint64_t hash_of(const struct model *m, bool orphans) {
    struct dump d;
    dump_model(m, orphans, &d);
    const uint64_t h = dump_hash(&d);
    dump_free(&d);
    return h;
}

void history_begin(struct history *h, uint64_t seed) {
    *h = (struct history){.seed = seed, .rng = {seed * 0x2545f4914f6cdd1du + 1}};
    h->buf = must(malloc(OP_DATA_MAX));
    h->want = must(malloc(OP_DATA_MAX));
    generate_style(&h->rng, &h->style);
    volume_new(&h->v, &h->rng);
    h->m = model_new(&h->v.params, ROOT_TIME);
    h->hash0 = hash_of(h->m, true);
    test_disk_record(h->v.disk);
}

void history_end(struct history *h) {
    volume_drop(&h->v);
    model_free(h->m);
    free(h->steps);
    free(h->buf);
    free(h->want);
}

struct op *history_make(struct history *h) {
    if (h->n == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 64;
        h->steps = must(realloc(h->steps, h->cap * sizeof *h->steps));
    }
    struct step *s = &h->steps[h->n];
    memset(s, 0, sizeof *s);
    generate_op(&h->rng, &h->style, h->m, ROOT_TIME + 1 + (int64_t)h->n * 1000003, &s->op);
    s->begin = test_disk_events(h->v.disk);
    return &s->op;
}

void history_keep(struct history *h, const struct op *op) {
    struct step *s = &h->steps[h->n];
    s->op = *op;
    s->end = test_disk_events(h->v.disk);
    s->hash = hash_of(h->m, true);
    s->hash_named = hash_of(h->m, false);
    s->durable = op->result == 0 && (op->kind == OP_FSYNC || op->kind == OP_SYNCFS || op->kind == OP_CHECKPOINT);
    s->effect = op->result >= 0 ? EFFECT_WHOLE : EFFECT_NONE;
    h->n++;
}

static bool same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static const char *attr_difference(const struct dfs_attr *w, const struct dfs_attr *g) {
    if (w->mode != g->mode)
        return "mode";
    if (w->nlink != g->nlink)
        return "nlink";
    if (w->uid != g->uid || w->gid != g->gid)
        return "owner";
    if (w->size != g->size)
        return "size";
    if (w->blocks != MODEL_BLOCKS_UNSURE && w->blocks != g->blocks)
        return "blocks";
    if (w->rdev != g->rdev)
        return "rdev";
    if (!same_time(w->atime, g->atime))
        return "atime";
    if (!same_time(w->mtime, g->mtime))
        return "mtime";
    if (!same_time(w->ctime, g->ctime))
        return "ctime";
    if (!same_time(w->btime, g->btime))
        return "btime";
    return NULL;
}

static bool compare_attr(struct history *h, uint64_t ino) {
    struct dfs_attr w, g;
    if (ino == 0)
        return true;
    const int rw = model_getattr(h->m, ino, &w), rg = dfs_getattr(h->v.store, ino, &g);
    if (rw != rg) {
        h->n++;
        history_complain(h, "getattr of inode %" PRIu64 " gives %d, not %d", ino, rg, rw);
        return false;
    }
    const char *what = rw == 0 ? attr_difference(&w, &g) : NULL;
    if (what) {
        h->n++;
        history_complain(h, "inode %" PRIu64 " has the wrong %s (size %" PRIu64 " blocks %" PRIu64 " mode %o nlink %u, "
                         "not size %" PRIu64 " blocks %" PRIu64 " mode %o nlink %u)",
                         ino, what, g.size, g.blocks, g.mode, g.nlink, w.size, w.blocks, w.mode, w.nlink);
    }
    return !what;
}


bool history_compare(struct history *h, struct op *op) {
    const bool makes = (op->kind == OP_CREATE || op->kind == OP_TMPFILE) && op->result == 0;
    struct dfs_attr a;
    if (makes && model_getattr(h->m, op->new_ino, &a) == 0) {
        h->n++;
        history_complain(h, "the new inode's number %" PRIu64 " is in use", op->new_ino);
        return false;
    }
    const int64_t want = model_apply(h->m, op, h->want);
    if (want != op->result) {
        h->n++;
        history_complain(h, "%s answered %" PRId64 ", not %" PRId64, op_name(op->kind), op->result, want);
        return false;
    }
    const bool reads = op->kind == OP_READ || op->kind == OP_READLINK || (op->kind == OP_GETXATTR && op->len);
    if (reads && want > 0 && memcmp(h->buf, h->want, (size_t)want) != 0) {
        size_t at = 0;
        while (h->buf[at] == h->want[at])
            at++;
        h->n++;
        history_complain(h, "%s gave wrong bytes from byte %zu: %#x, not %#x", op_name(op->kind), at, h->buf[at],
                         h->want[at]);
        return false;
    }
    struct dfs_statfs sf;
    uint64_t pages;
    if (dfs_statfs(h->v.store, &sf) == 0 && model_pages_used(h->m, &pages) && sf.bytes_used != pages * 4096) {
        h->n++;
        history_complain(h, "statfs: %" PRIu64 " pages used, not %" PRIu64, sf.bytes_used / 4096, pages);
        return false;
    }
    return compare_attr(h, op->ino) && compare_attr(h, op->ino2) && compare_attr(h, op->dir) &&
           compare_attr(h, op->dir2) && compare_attr(h, makes ? op->new_ino : 0);
}

bool history_step(struct history *h) {
    const char *why;
    struct op *op = history_make(h);
    run_op(&h->v, op, h->buf, &why);
    if (why) {
        h->n++;
        history_complain(h, "%s", why);
        return false;
    }
    if (!history_compare(h, op))
        return false;
    history_keep(h, op);
    return true;
}

bool history_compare_all(struct history *h) {
    struct dump want, got;
    char text[16384];
    struct dfs_statfs sf;
    dump_model(h->m, true, &want);
    dump_store(h->v.store, want.n + 4, &got);
    const bool bad = dump_differs(&want, &got, text, sizeof text);
    dump_free(&want);
    dump_free(&got);
    if (bad)
        history_complain(h, "the volume's content is wrong: %s", text);
    if (bad)
        return false;
    const int r = dfs_statfs(h->v.store, &sf);
    if (r != 0 || sf.files != model_files(h->m)) {
        history_complain(h, "statfs: %d, %" PRIu64 " files, not %" PRIu64, r, sf.files, model_files(h->m));
        return false;
    }
    return true;
}

struct model *history_replay(const struct history *h, size_t n) {
    struct model *m = model_new(&h->v.params, ROOT_TIME);
    for (size_t i = 0; i < n; i++)
        if (h->steps[i].effect == EFFECT_WHOLE)
            model_apply(m, &h->steps[i].op, NULL);
        else if (h->steps[i].effect >= 0)
            model_apply_part(m, &h->steps[i].op, (unsigned)h->steps[i].effect);
    return m;
}

static void tell_damage(void *arg, const struct dfs_check_damage *d) {
    const struct history *h = arg;
    if (h)
        fprintf(stderr, "check: %s (inode %" PRIu64 " offset %" PRIu64 " chunk %" PRIu64 " block %" PRIu64 ")\n", d->what,
                d->ino, d->off, d->chunk, d->block);
}

bool history_check(struct history *h, struct dfs_store *st) {
    const struct dfs_check_config cfg = {.data = true, .report = tell_damage, .arg = h};
    struct dfs_check_result res;
    const int r = dfs_store_check(st, &cfg, &res);
    if (h && (r != 0 || res.damages))
        history_complain(h, "the check gives %d and finds %" PRIu64 " damages", r, res.damages);
    return r == 0 && res.damages == 0;
}

/* The number of an inode that a failed creation made all the same. */
static uint64_t unknown_ino(struct history *h) {
    struct dfs_attr a;
    for (uint64_t ino = 1; ino < model_max_ino(h->m) + 4; ino++)
        if (model_getattr(h->m, ino, &a) == -ENOENT && dfs_getattr(h->v.store, ino, &a) == 0)
            return ino;
    return model_max_ino(h->m) + 100;
}

bool history_resolve(struct history *h, struct op *op) {
    struct dump d;
    if (op->kind == OP_CREATE || op->kind == OP_TMPFILE)
        op->new_ino = unknown_ino(h);
    dump_store(h->v.store, model_max_ino(h->m) + 4, &d);
    const uint64_t hash = dump_hash(&d);
    bool found = hash_of(h->m, true) == hash;
    int effect = EFFECT_NONE;
    for (int k = EFFECT_WHOLE; !found && k < 100; k++) {
        struct model *m = history_replay(h, h->n);
        const bool applied = k == EFFECT_WHOLE ? model_apply(m, op, NULL) >= 0 : model_apply_part(m, op, (unsigned)k);
        found = applied && hash_of(m, true) == hash;
        if (found) {
            model_free(h->m);
            h->m = m;
            effect = k;
        } else {
            model_free(m);
        }
    }
    history_keep(h, op);
    h->steps[h->n - 1].effect = effect;
    if (!found) {
        char text[16384] = "";
        struct dump want;
        dump_model(h->m, true, &want);
        dump_differs(&want, &d, text, sizeof text);
        history_complain(h, "the failed %s left neither the old nor the new state: %s", op_name(op->kind), text);
        dump_free(&want);
    }
    dump_free(&d);
    return found;
}

/* The middle of operation i: the k-th of the states it may pass. */
static bool part_matches(const struct history *h, size_t i, uint64_t hash, bool orphans, struct model **exact) {
    for (unsigned k = 0; k < 100000; k++) {
        struct model *m = history_replay(h, i);
        if (!model_apply_part(m, &h->steps[i].op, k)) {
            model_free(m);
            if (k > 0)
                return false;
            continue;
        }
        if (hash_of(m, orphans) == hash) {
            *exact = m;
            return true;
        }
        model_free(m);
    }
    return false;
}

bool history_find(const struct history *h, const struct dump *d, bool orphans, size_t lo, size_t hi, size_t *found,
                  struct model **exact) {
    const uint64_t hash = dump_hash(d);
    for (size_t i = lo; i <= hi; i++)
        if (hash == (i == 0 ? h->hash0 : orphans ? h->steps[i - 1].hash : h->steps[i - 1].hash_named)) {
            *found = i;
            *exact = history_replay(h, i);
            return true;
        }
    for (size_t i = lo; i < hi; i++)
        if (part_matches(h, i, hash, orphans, exact)) {
            *found = i;
            return true;
        }
    return false;
}
