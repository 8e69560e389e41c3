/* Histories on a host with little space: writes are refused cleanly, everything else works, and space comes back. */
#include <inttypes.h>

#include "common/util.h"
#include "tests/model/history.h"
#include "tests/model/variants.h"

/* May this operation be refused for want of space? */
static bool takes_space(const struct op *op) {
    switch (op->kind) {
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_RELEASE:
    case OP_LOOKUP:
    case OP_READ:
    case OP_SEEK:
    case OP_GETXATTR:
    case OP_LISTXATTR:
    case OP_RMXATTR:
    case OP_READDIR:
    case OP_READLINK:
    case OP_FSYNC:
    case OP_SYNCFS:
    case OP_KILL:
        return false;
    case OP_SETATTR:
        return false;
    default:
        return true;
    }
}

static bool step(struct history *h, bool *refused) {
    const char *why;
    struct op *op = history_make(h);
    /* Most of what is done is to write. */
    for (int i = 0; op->kind != OP_WRITE && i < 5; i++)
        op = history_make(h);
    if (op->kind == OP_WRITE && !rng_one_in(&h->rng, 4)) {
        op->len = rng_range(&h->rng, 100000, 300000);
        op->data_kind = 0;
        op->off %= 1u << 22;
    }
    run_op(&h->v, op, h->buf, &why);
    if (why) {
        history_complain(h, "%s", why);
        return false;
    }
    if (op->result == -ENOSPC && takes_space(op) && op->kind != OP_CHECKPOINT && op->kind != OP_REOPEN) {
        *refused = true;
        variant_counts.faults++;
        return history_resolve(h, op);
    }
    if (op->kind == OP_CHECKPOINT && op->result == -ENOSPC) {
        history_keep(h, op);
        return true;
    }
    if ((op->kind == OP_WRITE || op->kind == OP_COPY) && op->result > 0 && (uint64_t)op->result < op->len)
        op->len = (uint64_t)op->result;
    if (!history_compare(h, op))
        return false;
    history_keep(h, op);
    return true;
}

struct names {
    struct {
        char name[DFS_NAME_MAX + 1];
        size_t len;
        uint64_t ino;
    } e[256];
    size_t n;
};

static void gather(void *arg, const char *name, size_t len, uint64_t ino) {
    struct names *l = arg;
    if (l->n == DFS_ARRAY_SIZE(l->e))
        return;
    memcpy(l->e[l->n].name, name, len + 1);
    l->e[l->n].len = len;
    l->e[l->n++].ino = ino;
}

static bool run_fixed(struct history *h, const struct op *want) {
    const char *why;
    struct op *op = history_make(h);
    const int64_t now = op->now;
    *op = *want;
    op->now = now;
    run_op(&h->v, op, h->buf, &why);
    if (!history_compare(h, op))
        return false;
    history_keep(h, op);
    return true;
}

/* Removes everything there is below `dir`. */
static bool remove_all(struct history *h, uint64_t dir) {
    struct names *l = calloc(1, sizeof *l);
    bool ok = true;
    if (!l)
        abort();
    model_readdir(h->m, dir, gather, l);
    for (size_t i = 0; ok && i < l->n; i++) {
        struct dfs_attr a;
        model_getattr(h->m, l->e[i].ino, &a);
        struct op op = {.kind = S_ISDIR(a.mode) ? OP_RMDIR : OP_UNLINK, .dir = dir, .name_len = l->e[i].len};
        memcpy(op.name, l->e[i].name, l->e[i].len);
        if (S_ISDIR(a.mode))
            ok = remove_all(h, l->e[i].ino);
        ok = ok && run_fixed(h, &op);
    }
    free(l);
    for (uint64_t ino = 2; ok && ino < model_max_ino(h->m); ino++)
        if (model_orphan(h->m, ino)) {
            const struct op op = {.kind = OP_RELEASE, .ino = ino};
            ok = run_fixed(h, &op);
        }
    return ok;
}

/* A new file of 64 KiB finds room. */
static bool room_again(struct history *h) {
    struct op make = {.kind = OP_CREATE, .dir = DFS_ROOT_INO, .name = "again", .name_len = 5, .create.mode = S_IFREG | 0600};
    if (!run_fixed(h, &make))
        return false;
    const struct op write = {.kind = OP_WRITE, .ino = h->steps[h->n - 1].op.new_ino, .len = 65536, .data_seed = 5};
    return run_fixed(h, &write);
}

bool variant_nospace(uint64_t seed) {
    struct history h;
    history_begin(&h, seed);
    const bool promises = !rng_one_in(&h.rng, 4); /* a host without fallocate cannot promise that deleting gets its blocks */
    test_disk_can_allocate(h.v.disk, promises);
    test_disk_capacity(h.v.disk, test_disk_used(h.v.disk) + rng_range(&h.rng, 12u << 20, 26u << 20));
    bool ok = true, refused = false;
    size_t after = 0;
    for (size_t i = 0; ok && i < 300 && after < 30; i++) {
        ok = step(&h, &refused);
        after += refused;
    }
    if (ok)
        ok = history_compare_all(&h);
    if (ok && !promises) {
        test_disk_capacity(h.v.disk, 0); /* the administrator makes room */
        ok = run_fixed(&h, &(struct op){.kind = OP_CHECKPOINT});
    }
    if (ok)
        ok = history_check(&h, h.v.store);
    if (ok)
        ok = remove_all(&h, DFS_ROOT_INO);
    const struct op checkpoint = {.kind = OP_CHECKPOINT};
    for (int i = 0; ok && i < 2; i++)
        ok = run_fixed(&h, &checkpoint);
    if (ok)
        ok = room_again(&h) && history_compare_all(&h) && history_check(&h, h.v.store);
    variant_counts.operations += h.n;
    history_end(&h);
    return ok;
}
