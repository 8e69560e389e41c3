#include "tests/model/run.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>

#include "common/hash.h"
#include "common/util.h"

#define PAGE 4096u

static int64_t clock_now = ROOT_TIME;

static void test_clock(struct timespec *ts) {
    *ts = (struct timespec){.tv_sec = clock_now, .tv_nsec = (long)(clock_now % 1000000000)};
}

void run_set_clock(int64_t now) {
    clock_now = now;
}

static void *must(void *p) {
    if (!p)
        abort();
    return p;
}

/* ---- volumes -------------------------------------------------------------------------------------------------- */

int volume_open(struct volume *v, struct dfs_err *err) {
    const struct dfs_store_config cfg = {
        .cache_bytes = 16u << 20, .keep_orphans = v->keep_orphans, .no_threads = true, .clock = test_clock};
    return dfs_store_open_io(test_disk_io(v->disk), &v->params, &cfg, &v->store, err);
}

void volume_new(struct volume *v, struct rng *rng) {
    static const int levels[] = {0, 1, 1, 3};
    struct dfs_err err = DFS_ERR_INIT;
    *v = (struct volume){.disk = test_disk_new(rng_next(rng)), .keep_orphans = true};
    dfs_volume_params_init(&v->params);
    memset(v->params.uuid, 7, sizeof v->params.uuid);
    strcpy(v->params.name, "model");
    v->params.created = ROOT_TIME;
    v->params.journal_size = 4u << 20;
    v->params.chunk_size = 4096u << rng_below(rng, 9);
    v->params.compression_level = levels[rng_below(rng, DFS_ARRAY_SIZE(levels))];
    run_set_clock(ROOT_TIME);
    struct dfs_io *io = test_disk_io(v->disk);
    int r = dfs_store_format_io(io, &v->params, &err);
    dfs_io_free(io);
    if (r == 0)
        r = volume_open(v, &err);
    if (r != 0) {
        fprintf(stderr, "cannot make a volume: %s (%d)\n", err.text, r);
        abort();
    }
}

void volume_drop(struct volume *v) {
    if (v->store)
        dfs_store_abandon(v->store);
    v->store = NULL;
    test_disk_free(v->disk);
    v->disk = NULL;
}

/* ---- operations ----------------------------------------------------------------------------------------------- */

struct listing {
    struct entry {
        char name[DFS_NAME_MAX + 1];
        uint64_t ino;
        uint32_t type;
    } *e;
    size_t n, cap;
    uint64_t cookie;
    uint64_t left; /* to take in this call */
    bool backwards;
};

static int list_entry(void *arg, const struct dfs_dirent *e) {
    struct listing *l = arg;
    if (l->left == 0)
        return 1;
    l->left--;
    l->backwards |= e->cookie <= l->cookie || e->cookie >> 63;
    l->cookie = e->cookie;
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->e = must(realloc(l->e, l->cap * sizeof *l->e));
    }
    struct entry *x = &l->e[l->n++];
    memcpy(x->name, e->name, e->len);
    x->name[e->len] = 0;
    x->ino = e->ino;
    x->type = e->type;
    return 0;
}

/* The whole directory, `step` entries at a time. */
static int list_all(struct dfs_store *st, uint64_t dir, uint64_t step, struct listing *l) {
    *l = (struct listing){0};
    for (;;) {
        const size_t before = l->n;
        l->left = step;
        const int r = dfs_readdir(st, dir, l->cookie, rng_one_in(&(struct rng){dir}, 2), list_entry, l);
        if (r != 0)
            return r;
        if (l->n - before < step)
            return 0;
    }
}

static int64_t run_readdir(struct dfs_store *st, const struct op *op, const char **why) {
    struct listing l;
    const int r = list_all(st, op->dir, op->len, &l);
    if (l.backwards)
        *why = "readdir: cookies do not grow";
    if (r == 0 && (l.n < 2 || strcmp(l.e[0].name, ".") != 0 || strcmp(l.e[1].name, "..") != 0))
        *why = "readdir: '.' and '..' do not come first";
    free(l.e);
    return r;
}

static int reopen(struct volume *v, struct op *op) {
    struct dfs_err err = DFS_ERR_INIT;
    int r = 0;
    if (op->kind == OP_REOPEN)
        r = dfs_store_close(v->store);
    else
        dfs_store_abandon(v->store);
    v->store = NULL;
    v->keep_orphans = op->flags & 1;
    const int o = volume_open(v, &err);
    if (o != 0)
        fprintf(stderr, "open: %s (%d)\n", err.text, o);
    return r != 0 ? r : o;
}

void run_op(struct volume *v, struct op *op, uint8_t *buf, const char **why) {
    struct dfs_store *st = v->store;
    struct dfs_attr attr = {.ino = 0};
    run_set_clock(op->now);
    *why = NULL;
    switch (op->kind) {
    case OP_CREATE:
        op->create.target = op->target;
        op->result = dfs_create(st, op->dir, op->name, op->name_len, &op->create, &attr);
        op->new_ino = attr.ino;
        break;
    case OP_TMPFILE:
        op->result = dfs_tmpfile(st, op->dir, &op->create, &attr);
        op->new_ino = attr.ino;
        break;
    case OP_LINK:
        op->result = dfs_link(st, op->ino, op->dir, op->name, op->name_len, &attr);
        break;
    case OP_UNLINK:
        op->result = dfs_unlink(st, op->dir, op->name, op->name_len, &attr);
        break;
    case OP_RMDIR:
        op->result = dfs_rmdir(st, op->dir, op->name, op->name_len, &attr);
        break;
    case OP_RENAME:
        op->result = dfs_rename(st, op->dir, op->name, op->name_len, op->dir2, op->name2, op->name2_len, op->flags, &attr);
        break;
    case OP_LOOKUP:
        op->result = dfs_lookup(st, op->dir, op->name, op->name_len, &attr);
        if (op->result == 0)
            op->result = (int64_t)attr.ino;
        break;
    case OP_SETATTR:
        op->result = dfs_setattr(st, op->ino, &op->set, &attr);
        break;
    case OP_WRITE:
        op_data(op, buf);
        op->result = dfs_write(st, op->ino, op->off, buf, op->len, op->flags);
        break;
    case OP_READ:
        op->result = dfs_read(st, op->ino, op->off, buf, op->len);
        break;
    case OP_FALLOCATE:
        op->result = dfs_fallocate(st, op->ino, (int)op->flags, op->off, op->len);
        break;
    case OP_SEEK:
        op->result = dfs_seek(st, op->ino, op->off, (int)op->flags);
        break;
    case OP_COPY:
        op->result = dfs_copy_range(st, op->ino, op->off, op->ino2, op->off2, op->len);
        break;
    case OP_SETXATTR:
        op_data(op, buf);
        op->result = dfs_setxattr(st, op->ino, op->name, buf, op->len, (int)op->flags, false);
        break;
    case OP_GETXATTR:
        op->result = dfs_getxattr(st, op->ino, op->name, buf, op->len);
        break;
    case OP_LISTXATTR:
        op->result = dfs_listxattr(st, op->ino, (char *)buf, OP_DATA_MAX);
        break;
    case OP_RMXATTR:
        op->result = dfs_removexattr(st, op->ino, op->name);
        break;
    case OP_READDIR:
        op->result = run_readdir(st, op, why);
        break;
    case OP_READLINK:
        op->result = dfs_readlink(st, op->ino, (char *)buf, OP_DATA_MAX);
        break;
    case OP_RELEASE:
        op->result = dfs_release_orphan(st, op->ino);
        break;
    case OP_FSYNC:
        op->result = dfs_fsync(st, op->ino, false);
        break;
    case OP_SYNCFS:
        op->result = dfs_syncfs(st);
        break;
    case OP_CHECKPOINT:
        op->result = dfs_checkpoint(st);
        break;
    case OP_REOPEN:
    case OP_KILL:
        op->result = reopen(v, op);
        break;
    case OP_KINDS:
        abort();
    }
}

/* ---- contents: text ------------------------------------------------------------------------------------------- */

struct text {
    char **line;
    size_t n, cap;
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *fmt, ...) {
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        abort();
    va_end(ap);
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 16;
        t->line = must(realloc(t->line, t->cap * sizeof *t->line));
    }
    t->line[t->n++] = s;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines, sorted, as one string; NULL if there are none. */
static char *join(struct text *t) {
    size_t len = 0, at = 0;
    char *all = NULL;
    if (t->n)
        qsort(t->line, t->n, sizeof *t->line, by_text);
    for (size_t i = 0; i < t->n; i++)
        len += strlen(t->line[i]) + 1;
    if (len)
        all = must(malloc(len + 1));
    for (size_t i = 0; i < t->n; i++) {
        const size_t n = strlen(t->line[i]);
        memcpy(all + at, t->line[i], n);
        all[at + n] = '\n';
        at += n + 1;
        free(t->line[i]);
    }
    if (all)
        all[at] = 0;
    free(t->line);
    *t = (struct text){0};
    return all;
}

static void say_attr(struct text *t, const struct dfs_attr *a) {
    say(t,
        "mode=%o nlink=%u uid=%u gid=%u size=%" PRIu64 " rdev=%" PRIu64 " atime=%lld.%ld mtime=%lld.%ld ctime=%lld.%ld "
        "btime=%lld.%ld",
        a->mode, a->nlink, a->uid, a->gid, a->size, a->rdev, (long long)a->atime.tv_sec, a->atime.tv_nsec,
        (long long)a->mtime.tv_sec, a->mtime.tv_nsec, (long long)a->ctime.tv_sec, a->ctime.tv_nsec,
        (long long)a->btime.tv_sec, a->btime.tv_nsec);
}

static void say_xattr(struct text *t, const char *name, const uint8_t *value, size_t len) {
    say(t, "xattr %s len=%zu %016" PRIx64, name, len, dfs_hash64(value, len, 0));
}

static void say_entry(struct text *t, const char *name, uint64_t ino) {
    say(t, "entry %s ino=%" PRIu64, name, ino);
}

static void say_page(struct text *t, uint64_t idx, const uint8_t *page) {
    say(t, "page %" PRIu64 " %016" PRIx64, idx, dfs_hash64(page, PAGE, 0));
}

/* ---- contents of a store -------------------------------------------------------------------------------------- */

static void dump_xattrs(struct dfs_store *st, uint64_t ino, struct text *t) {
    char names[65536];
    static uint8_t value[DFS_XATTR_VALUE_MAX];
    const ssize_t n = dfs_listxattr(st, ino, names, sizeof names);
    if (n < 0)
        say(t, "ERR list %zd", n);
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
        const ssize_t len = dfs_getxattr(st, ino, names + at, value, sizeof value);
        if (len < 0)
            say(t, "xattr %s ERR %zd", names + at, len);
        else
            say_xattr(t, names + at, value, (size_t)len);
    }
}

static void dump_entries(struct dfs_store *st, uint64_t ino, struct text *t) {
    struct listing l;
    const int r = list_all(st, ino, 1000, &l);
    if (r != 0)
        say(t, "ERR readdir %d", r);
    for (size_t i = 0; i < l.n; i++)
        if (strcmp(l.e[i].name, ".") != 0 && strcmp(l.e[i].name, "..") != 0)
            say_entry(t, l.e[i].name, l.e[i].ino);
    free(l.e);
}

static void dump_page(struct dfs_store *st, uint64_t ino, uint64_t idx, struct text *t) {
    static const uint8_t zeros[PAGE];
    uint8_t page[PAGE];
    memset(page, 0, sizeof page);
    const ssize_t n = dfs_read(st, ino, idx * PAGE, page, PAGE);
    if (n < 0)
        say(t, "page %" PRIu64 " ERR %zd", idx, n);
    else if (memcmp(page, zeros, PAGE) != 0)
        say_page(t, idx, page);
}

static void dump_pages(struct dfs_store *st, uint64_t ino, uint64_t size, struct text *t) {
    static const uint8_t zeros[PAGE];
    static uint8_t buf[64 * PAGE];
    uint64_t off = 0;
    while (off < size) {
        const int64_t data = dfs_seek(st, ino, off, SEEK_DATA);
        if (data == -ENXIO)
            return;
        const int64_t hole = data < 0 ? data : dfs_seek(st, ino, (uint64_t)data, SEEK_HOLE);
        if (hole < 0 || (uint64_t)data < off || hole <= data) {
            say(t, "ERR seek %lld %lld", (long long)data, (long long)hole);
            return;
        }
        for (uint64_t i = (uint64_t)data / PAGE; i * PAGE < (uint64_t)hole;) {
            const size_t want = (size_t)DFS_MIN(sizeof buf, DFS_ROUND_UP((uint64_t)hole, (uint64_t)PAGE) - i * PAGE);
            memset(buf, 0, want);
            const ssize_t n = dfs_read(st, ino, i * PAGE, buf, want);
            for (size_t k = 0; k < want / PAGE; k++, i++)
                if (n < 0)
                    dump_page(st, ino, i, t);
                else if (memcmp(buf + k * PAGE, zeros, PAGE) != 0)
                    say_page(t, i, buf + k * PAGE);
        }
        off = (uint64_t)hole;
    }
}

void dump_store(struct dfs_store *st, uint64_t max_ino, struct dump *d) {
    d->n = max_ino;
    d->part = must(calloc(max_ino ? max_ino : 1, sizeof *d->part));
    for (uint64_t ino = 1; ino < max_ino; ino++) {
        struct dfs_attr a;
        struct text t = {0};
        const int r = dfs_getattr(st, ino, &a);
        if (r == -ENOENT)
            continue;
        if (r != 0) {
            say(&t, "ERR getattr %d", r);
            d->part[ino][DUMP_ATTR] = join(&t);
            continue;
        }
        say_attr(&t, &a);
        d->part[ino][DUMP_ATTR] = join(&t);
        dump_xattrs(st, ino, &t);
        d->part[ino][DUMP_XATTRS] = join(&t);
        if (S_ISDIR(a.mode)) {
            dump_entries(st, ino, &t);
            d->part[ino][DUMP_ENTRIES] = join(&t);
        } else if (S_ISLNK(a.mode)) {
            char target[DFS_SYMLINK_MAX + 1];
            const ssize_t n = dfs_readlink(st, ino, target, sizeof target);
            if (n < 0)
                say(&t, "ERR readlink %zd", n);
            else
                say(&t, "target %s", target);
            d->part[ino][DUMP_DATA] = join(&t);
        } else if (S_ISREG(a.mode)) {
            dump_pages(st, ino, a.size, &t);
            d->part[ino][DUMP_DATA] = join(&t);
        }
    }
}

/* ---- contents of a model -------------------------------------------------------------------------------------- */

static void model_entry(void *arg, const char *name, size_t len, uint64_t ino) {
    (void)len;
    say_entry(arg, name, ino);
}

struct xattr_dump {
    const struct model *m;
    uint64_t ino;
    struct text *t;
};

static void model_xattr(void *arg, const char *name) {
    const struct xattr_dump *x = arg;
    uint8_t value[8192];
    const size_t len = model_getxattr(x->m, x->ino, name, value);
    say_xattr(x->t, name, value, len);
}

static void model_page(void *arg, uint64_t idx, const uint8_t *page) {
    say_page(arg, idx, page);
}

void dump_model(const struct model *m, bool orphans, struct dump *d) {
    d->n = model_max_ino(m);
    d->part = must(calloc(d->n ? d->n : 1, sizeof *d->part));
    for (uint64_t ino = 1; ino < d->n; ino++) {
        struct dfs_attr a;
        struct text t = {0};
        if (model_getattr(m, ino, &a) != 0 || (!orphans && model_orphan(m, ino)))
            continue;
        say_attr(&t, &a);
        d->part[ino][DUMP_ATTR] = join(&t);
        struct xattr_dump x = {m, ino, &t};
        model_listxattr(m, ino, model_xattr, &x);
        d->part[ino][DUMP_XATTRS] = join(&t);
        if (S_ISDIR(a.mode)) {
            model_readdir(m, ino, model_entry, &t);
            d->part[ino][DUMP_ENTRIES] = join(&t);
        } else if (S_ISLNK(a.mode)) {
            const struct op op = {.kind = OP_READLINK, .ino = ino};
            uint8_t target[DFS_SYMLINK_MAX + 1];
            model_apply((struct model *)(uintptr_t)m, &op, target);
            say(&t, "target %s", target);
            d->part[ino][DUMP_DATA] = join(&t);
        } else if (S_ISREG(a.mode)) {
            model_pages(m, ino, model_page, &t);
            d->part[ino][DUMP_DATA] = join(&t);
        }
    }
}

void dump_free(struct dump *d) {
    for (uint64_t i = 0; i < d->n; i++)
        for (int k = 0; k < DUMP_PARTS; k++)
            free(d->part[i][k]);
    free(d->part);
}

uint64_t dump_hash(const struct dump *d) {
    uint64_t h = 0;
    for (uint64_t i = 0; i < d->n; i++)
        for (int k = 0; k < DUMP_PARTS; k++)
            if (d->part[i][k])
                h = dfs_hash64(d->part[i][k], strlen(d->part[i][k]), h ^ (i * DUMP_PARTS + (uint64_t)k));
    return h;
}

static const char *part_of(const struct dump *d, uint64_t ino, int k) {
    return ino < d->n && d->part[ino][k] ? d->part[ino][k] : "";
}

bool dump_differs(const struct dump *want, const struct dump *got, char *text, size_t size) {
    for (uint64_t i = 0; i < DFS_MAX(want->n, got->n); i++)
        for (int k = 0; k < DUMP_PARTS; k++) {
            const char *w = part_of(want, i, k), *g = part_of(got, i, k);
            if (strcmp(w, g) != 0) {
                snprintf(text, size, "inode %" PRIu64 "\n--- want\n%.4000s--- got\n%.4000s", i, w, g);
                return true;
            }
        }
    return false;
}

/* Is the line in the text? */
static bool has_line(const char *text, const char *line, size_t len) {
    for (const char *p = text; *p; p = strchr(p, '\n') + 1)
        if ((size_t)(strchr(p, '\n') - p) == len && memcmp(p, line, len) == 0)
            return true;
    return false;
}

/* Does the text say that what this line tells could not be read? */
static bool excused(const char *got, const char *line, size_t len) {
    char key[512];
    if (strncmp(got, "ERR", 3) == 0 || strstr(got, "\nERR"))
        return true;
    size_t n = 0; /* "page 5" or "xattr name" */
    for (size_t i = 0, blanks = 0; i < len && n < sizeof key - 8; i++) {
        if (line[i] == ' ' && ++blanks == 2)
            break;
        key[n++] = line[i];
    }
    memcpy(key + n, " ERR", 5);
    return strstr(got, key) != NULL;
}

bool dump_wrong(const struct dump *want, const struct dump *got, char *text, size_t size) {
    for (uint64_t i = 0; i < DFS_MAX(want->n, got->n); i++) {
        if (strncmp(part_of(got, i, DUMP_ATTR), "ERR", 3) == 0)
            continue;
        for (int k = 0; k < DUMP_PARTS; k++) {
            const char *w = part_of(want, i, k), *g = part_of(got, i, k);
            const char *bad = NULL;
            for (const char *p = g; *p && !bad; p = strchr(p, '\n') + 1) {
                const size_t len = (size_t)(strchr(p, '\n') - p);
                if (!memmem(p, len, "ERR", 3) && !has_line(w, p, len))
                    bad = "says what is not so";
            }
            for (const char *p = w; *p && !bad; p = strchr(p, '\n') + 1) {
                const size_t len = (size_t)(strchr(p, '\n') - p);
                if (!has_line(g, p, len) && !excused(g, p, len))
                    bad = "keeps silent about what is missing";
            }
            if (bad) {
                snprintf(text, size, "inode %" PRIu64 ": %s\n--- want\n%.4000s--- got\n%.4000s", i, bad, w, g);
                return true;
            }
        }
    }
    return false;
}
