#include "tests/model/generate.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "common/util.h"

void generate_style(struct rng *rng, struct generate_style *s) {
    *s = (struct generate_style){
        .names = (unsigned)rng_range(rng, 2, 12),
        .big = rng_one_in(rng, 3),
        .far = rng_one_in(rng, 4),
        .sync_often = (unsigned)rng_range(rng, 0, 20),
        .reopen_often = (unsigned)rng_range(rng, 0, 4),
    };
}

/* ---- operands ------------------------------------------------------------------------------------------------- */

enum want { ANY, DIR, FILE_ };

/* An inode of the wanted kind; one in 30 times any number. */
static uint64_t pick(struct rng *rng, const struct model *m, enum want want) {
    const uint64_t max = model_max_ino(m);
    struct dfs_attr a;
    if (rng_one_in(rng, 30))
        return rng_below(rng, max + 3);
    const uint64_t start = rng_below(rng, max);
    for (uint64_t i = 0; i < max; i++) {
        const uint64_t ino = (start + i) % max;
        if (model_getattr(m, ino, &a) != 0)
            continue;
        if (want == ANY || (want == DIR && S_ISDIR(a.mode)) || (want == FILE_ && S_ISREG(a.mode)))
            return ino;
    }
    return DFS_ROOT_INO;
}

static size_t pick_name(struct rng *rng, const struct generate_style *s, char *name) {
    memset(name, 0, OP_NAME_MAX);
    switch (rng_below(rng, 60)) {
    case 0: {
        const size_t len = (size_t)rng_range(rng, 250, 258);
        memset(name, 'x', len);
        return len;
    }
    case 1:
        strcpy(name, "..");
        return rng_below(rng, 3);
    case 2:
        strcpy(name, "a/b");
        return 3;
    case 3:
        name[0] = (char)0xff;
        name[1] = '\n';
        return 2;
    default:
        snprintf(name, OP_NAME_MAX, "n%u", (unsigned)rng_below(rng, s->names));
        return strlen(name);
    }
}

struct nth {
    uint64_t n;
    char *name;
    size_t len;
};

static void take_nth(void *arg, const char *name, size_t len, uint64_t ino) {
    struct nth *x = arg;
    (void)ino;
    if (x->n-- == 0) {
        memcpy(x->name, name, len);
        x->name[len] = 0;
        x->len = len;
    }
}

static void count(void *arg, const char *name, size_t len, uint64_t ino) {
    (void)name, (void)len, (void)ino;
    ++*(uint64_t *)arg;
}

/* A name that is there, mostly; then *dir is where. */
static size_t pick_existing(struct rng *rng, const struct generate_style *s, const struct model *m, uint64_t *dir,
                            char *name) {
    *dir = pick(rng, m, DIR);
    struct dfs_attr a;
    uint64_t n = 0;
    if (model_getattr(m, *dir, &a) == 0 && S_ISDIR(a.mode))
        model_readdir(m, *dir, count, &n);
    if (n == 0 || rng_one_in(rng, 8))
        return pick_name(rng, s, name);
    struct nth x = {rng_below(rng, n), name, 0};
    memset(name, 0, OP_NAME_MAX);
    model_readdir(m, *dir, take_nth, &x);
    return x.len;
}

static uint64_t pick_offset(struct rng *rng, const struct generate_style *s) {
    if (s->far && rng_one_in(rng, 10)) {
        static const uint64_t places[] = {1ull << 31, 1ull << 40, (1ull << 62) - 4096, (uint64_t)INT64_MAX - 8192,
                                          (uint64_t)INT64_MAX - 1, (uint64_t)INT64_MAX, 1ull << 63};
        return places[rng_below(rng, DFS_ARRAY_SIZE(places))] + rng_below(rng, 3);
    }
    switch (rng_below(rng, 5)) {
    case 0:
        return 0;
    case 1:
        return rng_below(rng, 3000);
    case 2:
        return 4096 * rng_below(rng, 24);
    case 3:
        return rng_below(rng, 100000);
    default:
        return 65536 * rng_below(rng, 6) + (rng_one_in(rng, 2) ? 0 : rng_below(rng, 4096));
    }
}

static uint64_t pick_length(struct rng *rng, const struct generate_style *s) {
    switch (rng_below(rng, s->big ? 7 : 5)) {
    case 0:
        return rng_below(rng, 20);
    case 1:
        return rng_below(rng, 2100);
    case 2:
        return 4096 * rng_range(rng, 1, 4);
    case 3:
        return rng_below(rng, 9000);
    case 4:
        return rng_below(rng, 20000);
    case 5:
        return 4096 * rng_range(rng, 14, 70);
    default:
        return rng_range(rng, 60000, 300000);
    }
}

static void pick_xattr(struct rng *rng, struct op *op) {
    static const char *const names[] = {"user.a", "user.b", "trusted.overlay.opaque", "security.capability",
                                        "security.selinux", "user.long-name-of-an-attribute"};
    memset(op->name, 0, sizeof op->name);
    if (rng_one_in(rng, 40))
        memset(op->name, 'u', (size_t)rng_range(rng, 253, 258));
    else if (!rng_one_in(rng, 60))
        strcpy(op->name, names[rng_below(rng, DFS_ARRAY_SIZE(names))]);
    op->name_len = strlen(op->name);
}

static struct timespec pick_time(struct rng *rng) {
    return (struct timespec){.tv_sec = (time_t)(int64_t)(rng_next(rng) >> 20) - (1ll << 43),
                             .tv_nsec = (long)rng_below(rng, 1000000000)};
}

/* ---- kinds ---------------------------------------------------------------------------------------------------- */

static void fill_create(struct rng *rng, struct op *op) {
    static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFDIR,
                                     S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
    op->create = (struct dfs_create){
        .mode = types[rng_below(rng, DFS_ARRAY_SIZE(types))] | (uint32_t)rng_below(rng, 010000),
        .umask = rng_one_in(rng, 2) ? 022 : 0,
        .uid = (uint32_t)rng_below(rng, 3) * 1000,
        .gid = (uint32_t)rng_below(rng, 3) * 1000,
        .rdev = rng_below(rng, 1 << 20),
    };
    if (op->kind == OP_TMPFILE && !rng_one_in(rng, 20))
        op->create.mode = S_IFREG | (op->create.mode & 07777);
    if (rng_one_in(rng, 60))
        op->create.mode &= 07777;
    snprintf(op->target, sizeof op->target, "%.*s", (int)rng_below(rng, 40), "some/where/else/../that/is/far/away/from");
}

static void fill_setattr(struct rng *rng, const struct generate_style *s, struct op *op) {
    struct dfs_setattr *sa = &op->set;
    sa->size = rng_one_in(rng, 3) ? pick_offset(rng, s) : pick_length(rng, s);
    sa->mode = (uint32_t)rng_below(rng, 010000);
    sa->uid = (uint32_t)rng_below(rng, 5);
    sa->gid = (uint32_t)rng_below(rng, 5);
    sa->atime = pick_time(rng);
    sa->mtime = pick_time(rng);
    sa->ctime = pick_time(rng);
    switch (rng_below(rng, 6)) {
    case 0:
        sa->valid = DFS_SET_MODE;
        break;
    case 1:
        sa->valid = DFS_SET_ATIME | (rng_one_in(rng, 2) ? DFS_SET_MTIME : 0);
        break;
    case 2:
        sa->valid = (uint32_t)rng_below(rng, 1u << 10) & ~(uint32_t)DFS_SET_SIZE;
        break;
    default:
        sa->valid = DFS_SET_SIZE | (rng_one_in(rng, 4) ? DFS_SET_KILL_SUID : 0);
    }
}

static void fill_fallocate(struct rng *rng, const struct generate_style *s, struct op *op) {
    static const unsigned modes[] = {0,
                                     0,
                                     FALLOC_FL_KEEP_SIZE,
                                     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                     FALLOC_FL_ZERO_RANGE,
                                     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                     FALLOC_FL_PUNCH_HOLE,
                                     FALLOC_FL_COLLAPSE_RANGE};
    op->flags = modes[rng_below(rng, DFS_ARRAY_SIZE(modes))];
    op->off = pick_offset(rng, s);
    op->len = rng_one_in(rng, 4) ? 65536 : pick_length(rng, s);
}

static enum op_kind pick_kind(struct rng *rng, const struct generate_style *s, const struct model *m) {
    static const struct {
        enum op_kind kind;
        unsigned weight;
    } weights[] = {
        {OP_CREATE, 22},  {OP_TMPFILE, 2},  {OP_LINK, 5},      {OP_UNLINK, 9},   {OP_RMDIR, 4},
        {OP_RENAME, 12},  {OP_LOOKUP, 4},   {OP_SETATTR, 12},  {OP_WRITE, 34},   {OP_READ, 10},
        {OP_FALLOCATE, 8}, {OP_SEEK, 4},    {OP_COPY, 6},      {OP_SETXATTR, 7}, {OP_GETXATTR, 3},
        {OP_LISTXATTR, 2}, {OP_RMXATTR, 3}, {OP_READDIR, 4},   {OP_READLINK, 2}, {OP_RELEASE, 4},
    };
    if (model_files(m) < 6 && rng_one_in(rng, 2))
        return OP_CREATE;
    if (rng_below(rng, 100) < s->sync_often) {
        static const enum op_kind syncs[] = {OP_FSYNC, OP_FSYNC, OP_SYNCFS, OP_CHECKPOINT, OP_CHECKPOINT};
        return syncs[rng_below(rng, DFS_ARRAY_SIZE(syncs))];
    }
    if (rng_below(rng, 100) < s->reopen_often)
        return rng_one_in(rng, 2) ? OP_REOPEN : OP_KILL;
    unsigned total = 0;
    for (size_t i = 0; i < DFS_ARRAY_SIZE(weights); i++)
        total += weights[i].weight;
    uint64_t n = rng_below(rng, total);
    for (size_t i = 0;; i++) {
        if (n < weights[i].weight)
            return weights[i].kind;
        n -= weights[i].weight;
    }
}

void generate_op(struct rng *rng, const struct generate_style *s, const struct model *m, int64_t now, struct op *op) {
    memset(op, 0, sizeof *op);
    op->kind = pick_kind(rng, s, m);
    op->now = now;
    op->data_seed = rng_next(rng);
    op->data_kind = (int)rng_below(rng, 4);
    switch (op->kind) {
    case OP_CREATE:
    case OP_TMPFILE:
        op->dir = pick(rng, m, DIR);
        op->name_len = pick_name(rng, s, op->name);
        fill_create(rng, op);
        break;
    case OP_LINK:
        op->ino = pick(rng, m, rng_one_in(rng, 4) ? ANY : FILE_);
        op->dir = pick(rng, m, DIR);
        op->name_len = pick_name(rng, s, op->name);
        break;
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_LOOKUP:
        op->name_len = pick_existing(rng, s, m, &op->dir, op->name);
        break;
    case OP_RENAME:
        op->name_len = pick_existing(rng, s, m, &op->dir, op->name);
        if (rng_one_in(rng, 2)) {
            op->name2_len = pick_existing(rng, s, m, &op->dir2, op->name2);
        } else {
            op->dir2 = pick(rng, m, DIR);
            op->name2_len = pick_name(rng, s, op->name2);
        }
        op->flags = rng_one_in(rng, 3) ? (unsigned)rng_below(rng, 5) : 0;
        break;
    case OP_SETATTR:
        fill_setattr(rng, s, op);
        op->ino = pick(rng, m, op->set.valid & DFS_SET_SIZE ? FILE_ : ANY);
        break;
    case OP_WRITE:
    case OP_READ:
        op->ino = pick(rng, m, FILE_);
        op->off = pick_offset(rng, s);
        op->len = pick_length(rng, s);
        op->flags = op->kind == OP_WRITE && rng_one_in(rng, 3) ? DFS_WRITE_KILL_SUID : 0;
        break;
    case OP_FALLOCATE:
        op->ino = pick(rng, m, FILE_);
        fill_fallocate(rng, s, op);
        break;
    case OP_SEEK:
        op->ino = pick(rng, m, FILE_);
        op->off = pick_offset(rng, s);
        op->flags = rng_one_in(rng, 2) ? SEEK_DATA : SEEK_HOLE;
        break;
    case OP_COPY:
        op->ino = pick(rng, m, FILE_);
        op->ino2 = pick(rng, m, FILE_);
        op->off = pick_offset(rng, s);
        op->off2 = rng_one_in(rng, 2) ? op->off : pick_offset(rng, s);
        op->len = pick_length(rng, s);
        break;
    case OP_SETXATTR:
    case OP_GETXATTR:
    case OP_RMXATTR:
        op->ino = pick(rng, m, ANY);
        pick_xattr(rng, op);
        op->len = rng_one_in(rng, 3) ? rng_range(rng, 1000, 4097) : rng_below(rng, 100);
        op->flags = op->kind == OP_SETXATTR ? (unsigned)rng_below(rng, 3) : 0;
        break;
    case OP_LISTXATTR:
    case OP_READLINK:
    case OP_RELEASE:
    case OP_FSYNC:
        op->ino = pick(rng, m, ANY);
        break;
    case OP_READDIR:
        op->dir = pick(rng, m, DIR);
        op->len = rng_range(rng, 1, 5); /* entries at a time */
        break;
    case OP_REOPEN:
    case OP_KILL:
        op->flags = (unsigned)rng_below(rng, 2);
        break;
    case OP_SYNCFS:
    case OP_CHECKPOINT:
    case OP_KINDS:
        break;
    }
}
