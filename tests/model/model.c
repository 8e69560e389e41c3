#include "tests/model/model.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "common/util.h"

#define PAGE 4096u
#define NO_PAGE ((size_t)-1)
#define CAPABILITY "security.capability"

struct mpage {
    uint64_t idx;
    uint8_t *bytes; /* NULL: mapped, all zeros */
};

struct entry {
    char name[DFS_NAME_MAX + 1];
    size_t len;
    uint64_t ino;
};

struct xattr {
    char name[DFS_XATTR_NAME_MAX + 1];
    uint8_t *value;
    size_t len;
};

struct inode {
    struct dfs_attr a;
    uint64_t parent; /* of directories */
    bool blocks_unsure; /* a copy may have kept holes, or filled them */
    char target[DFS_SYMLINK_MAX + 1];
    struct mpage *pages; /* sorted */
    size_t npages;
    struct entry *entries;
    size_t nentries;
    struct xattr *xattrs;
    size_t nxattrs;
};

struct model {
    struct inode **inodes; /* by number */
    size_t ninodes;
    struct dfs_volume_params params;
};

static void *must(void *p) {
    if (!p)
        abort();
    return p;
}

static struct timespec at(int64_t now) {
    return (struct timespec){.tv_sec = now, .tv_nsec = (long)(now % 1000000000)};
}

/* ---- inodes --------------------------------------------------------------------------------------------------- */

static struct inode *get(const struct model *m, uint64_t ino) {
    return ino < m->ninodes ? m->inodes[ino] : NULL;
}

static struct inode *add(struct model *m, uint64_t ino) {
    if (ino >= m->ninodes) {
        const size_t n = (size_t)ino * 2 + 16;
        m->inodes = must(realloc(m->inodes, n * sizeof(struct inode *)));
        memset(m->inodes + m->ninodes, 0, (n - m->ninodes) * sizeof(struct inode *));
        m->ninodes = n;
    }
    struct inode *in = must(calloc(1, sizeof *in));
    in->a.ino = ino;
    return m->inodes[ino] = in;
}

static void drop(struct model *m, uint64_t ino) {
    struct inode *in = get(m, ino);
    for (size_t i = 0; i < in->npages; i++)
        free(in->pages[i].bytes);
    for (size_t i = 0; i < in->nxattrs; i++)
        free(in->xattrs[i].value);
    free(in->pages);
    free(in->entries);
    free(in->xattrs);
    free(in);
    m->inodes[ino] = NULL;
}

struct model *model_new(const struct dfs_volume_params *p, int64_t root_time) {
    struct model *m = must(calloc(1, sizeof *m));
    m->params = *p;
    struct inode *root = add(m, DFS_ROOT_INO);
    root->a.mode = S_IFDIR | p->root_mode;
    root->a.uid = p->root_uid;
    root->a.gid = p->root_gid;
    root->a.nlink = 2;
    root->a.generation = 1;
    root->a.atime = root->a.mtime = root->a.ctime = root->a.btime = (struct timespec){.tv_sec = root_time};
    root->parent = DFS_ROOT_INO;
    return m;
}

void model_free(struct model *m) {
    for (uint64_t i = 0; i < m->ninodes; i++)
        if (m->inodes[i])
            drop(m, i);
    free(m->inodes);
    free(m);
}

static int name_check(const char *name, size_t len) {
    if (len > DFS_NAME_MAX)
        return -ENAMETOOLONG;
    if (len == 0 || memchr(name, '/', len) || memchr(name, 0, len))
        return -EINVAL;
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return -EINVAL;
    return 0;
}

static struct entry *find(const struct inode *dir, const char *name, size_t len) {
    for (size_t i = 0; i < dir->nentries; i++)
        if (dir->entries[i].len == len && memcmp(dir->entries[i].name, name, len) == 0)
            return &dir->entries[i];
    return NULL;
}

static void add_entry(struct inode *dir, const char *name, size_t len, uint64_t ino) {
    dir->entries = must(realloc(dir->entries, (dir->nentries + 1) * sizeof *dir->entries));
    struct entry *e = &dir->entries[dir->nentries++];
    memcpy(e->name, name, len);
    e->name[len] = 0;
    e->len = len;
    e->ino = ino;
}

static void remove_entry(struct inode *dir, struct entry *e) {
    *e = dir->entries[--dir->nentries];
}

static int get_dir(const struct model *m, uint64_t ino, struct inode **dir) {
    *dir = get(m, ino);
    return !*dir ? -ENOENT : S_ISDIR((*dir)->a.mode) ? 0 : -ENOTDIR;
}

static int get_file(const struct model *m, uint64_t ino, struct inode **in) {
    *in = get(m, ino);
    return !*in ? -ENOENT : S_ISREG((*in)->a.mode) ? 0 : S_ISDIR((*in)->a.mode) ? -EISDIR : -EINVAL;
}

static void changed(struct inode *in, const struct op *op) {
    in->a.mtime = in->a.ctime = at(op->now);
}

static void kill_suid(struct inode *in) {
    if (!S_ISREG(in->a.mode))
        return;
    in->a.mode &= ~(uint32_t)S_ISUID;
    if (in->a.mode & S_IXGRP)
        in->a.mode &= ~(uint32_t)S_ISGID;
}

/* ---- names ---------------------------------------------------------------------------------------------------- */

static int64_t make(struct model *m, const struct op *op, bool named) {
    const struct dfs_create *c = &op->create;
    struct inode *dir;
    if (S_ISLNK(c->mode) && !*op->target)
        return -ENOENT;
    int r = get_dir(m, op->dir, &dir);
    if (r == 0 && dir->a.nlink == 0)
        r = -ENOENT;
    if (r == 0 && named && find(dir, op->name, op->name_len))
        r = -EEXIST;
    if (r != 0)
        return r;
    struct inode *in = add(m, op->new_ino);
    in->a.mode = S_ISLNK(c->mode) ? S_IFLNK | 0777 : c->mode & ~(c->umask & 0777);
    in->a.uid = c->uid;
    in->a.gid = c->gid;
    if (dir->a.mode & S_ISGID) {
        in->a.gid = dir->a.gid;
        if (S_ISDIR(c->mode))
            in->a.mode |= S_ISGID;
    }
    in->a.rdev = S_ISCHR(c->mode) || S_ISBLK(c->mode) ? c->rdev : 0;
    in->a.generation = 1;
    in->a.nlink = !named ? 0 : S_ISDIR(c->mode) ? 2 : 1;
    in->a.atime = in->a.mtime = in->a.ctime = in->a.btime = at(op->now);
    in->parent = op->dir;
    if (S_ISLNK(c->mode)) {
        snprintf(in->target, sizeof in->target, "%s", op->target);
        in->a.size = strlen(op->target);
    }
    if (named) {
        add_entry(dir, op->name, op->name_len, op->new_ino);
        dir->a.nlink += S_ISDIR(c->mode);
        changed(dir, op);
    }
    return 0;
}

static int64_t do_link(struct model *m, const struct op *op) {
    struct inode *in = get(m, op->ino), *dir;
    int r = name_check(op->name, op->name_len);
    if (r == 0)
        r = in ? get_dir(m, op->dir, &dir) : -ENOENT;
    if (r == 0 && S_ISDIR(in->a.mode))
        r = -EPERM;
    if (r == 0 && dir->a.nlink == 0)
        r = -ENOENT;
    if (r == 0 && find(dir, op->name, op->name_len))
        r = -EEXIST;
    if (r != 0)
        return r;
    in->a.nlink++;
    in->a.ctime = at(op->now);
    add_entry(dir, op->name, op->name_len, op->ino);
    changed(dir, op);
    return 0;
}

static void lose_name(struct inode *in, const struct op *op) {
    in->a.nlink = S_ISDIR(in->a.mode) ? 0 : in->a.nlink - 1;
    in->a.ctime = at(op->now);
}

static int64_t do_unlink(struct model *m, const struct op *op, bool want_dir) {
    struct inode *dir;
    int r = name_check(op->name, op->name_len);
    if (r == 0)
        r = get_dir(m, op->dir, &dir);
    if (r != 0)
        return r;
    struct entry *e = find(dir, op->name, op->name_len);
    if (!e)
        return -ENOENT;
    struct inode *in = get(m, e->ino);
    if (want_dir && !S_ISDIR(in->a.mode))
        return -ENOTDIR;
    if (!want_dir && S_ISDIR(in->a.mode))
        return -EISDIR;
    if (want_dir && in->nentries)
        return -ENOTEMPTY;
    remove_entry(dir, e);
    dir->a.nlink -= S_ISDIR(in->a.mode) ? 1 : 0;
    changed(dir, op);
    lose_name(in, op);
    return 0;
}

static bool is_above(const struct model *m, uint64_t ino, uint64_t dir) {
    for (;; dir = get(m, dir)->parent) {
        if (dir == ino)
            return true;
        if (dir == DFS_ROOT_INO)
            return false;
        if (get(m, dir)->a.nlink == 0 && !get(m, get(m, dir)->parent))
            return false;
    }
}

static int64_t do_rename(struct model *m, const struct op *op) {
    struct inode *d1, *d2;
    if (op->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) || op->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int r = name_check(op->name, op->name_len);
    if (r == 0)
        r = name_check(op->name2, op->name2_len);
    if (r == 0)
        r = get_dir(m, op->dir, &d1);
    if (r == 0)
        r = get_dir(m, op->dir2, &d2);
    if (r != 0)
        return r;
    struct entry *e1 = find(d1, op->name, op->name_len), *e2 = find(d2, op->name2, op->name2_len);
    if (!e1)
        return -ENOENT;
    if (op->flags & RENAME_NOREPLACE && e2)
        return -EEXIST;
    if (op->flags & RENAME_EXCHANGE && !e2)
        return -ENOENT;
    if (e2 && e1->ino == e2->ino)
        return 0;
    if (d2->a.nlink == 0)
        return -ENOENT;
    struct inode *i1 = get(m, e1->ino), *i2 = e2 ? get(m, e2->ino) : NULL;
    const bool dir1 = S_ISDIR(i1->a.mode), dir2 = i2 && S_ISDIR(i2->a.mode), exchange = op->flags & RENAME_EXCHANGE;
    if (dir1 && is_above(m, e1->ino, op->dir2))
        return -EINVAL;
    if (dir2 && is_above(m, e2->ino, op->dir))
        return exchange ? -EINVAL : -ENOTEMPTY;
    if (i2 && !exchange && dir1 && !dir2)
        return -ENOTDIR;
    if (i2 && !exchange && !dir1 && dir2)
        return -EISDIR;
    if (dir2 && !exchange && i2->nentries)
        return -ENOTEMPTY;
    d1->a.nlink -= dir1;
    d2->a.nlink += dir1;
    d2->a.nlink -= dir2;
    if (exchange) {
        d1->a.nlink += dir2;
        const uint64_t x = e1->ino;
        e1->ino = e2->ino;
        e2->ino = x;
        i2->parent = op->dir;
        i2->a.ctime = at(op->now);
    } else {
        const uint64_t ino = e1->ino;
        if (i2) {
            e2->ino = ino;
            lose_name(i2, op);
        } else {
            add_entry(d2, op->name2, op->name2_len, ino);
        }
        remove_entry(d1, find(d1, op->name, op->name_len));
    }
    i1->parent = op->dir2;
    i1->a.ctime = at(op->now);
    changed(d1, op);
    changed(d2, op);
    return 0;
}

static int64_t do_lookup(struct model *m, const struct op *op) {
    struct inode *dir;
    if (op->name_len > DFS_NAME_MAX)
        return -ENAMETOOLONG;
    const int r = get_dir(m, op->dir, &dir);
    if (r != 0)
        return r;
    if (op->name_len == 1 && op->name[0] == '.')
        return (int64_t)op->dir;
    if (op->name_len == 2 && memcmp(op->name, "..", 2) == 0)
        return get(m, dir->parent) ? (int64_t)dir->parent : -ENOENT;
    const struct entry *e = find(dir, op->name, op->name_len);
    return e ? (int64_t)e->ino : -ENOENT;
}

static int64_t do_release(struct model *m, const struct op *op) {
    struct inode *in = get(m, op->ino);
    if (in && in->a.nlink == 0)
        drop(m, op->ino);
    return 0;
}

void model_release_orphans(struct model *m) {
    for (uint64_t i = 0; i < m->ninodes; i++)
        if (m->inodes[i] && m->inodes[i]->a.nlink == 0)
            drop(m, i);
}

/* ---- data ----------------------------------------------------------------------------------------------------- */

/* Where the page is, or would go. */
static size_t page_pos(const struct inode *in, uint64_t idx) {
    size_t lo = 0, hi = in->npages;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (in->pages[mid].idx < idx)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct mpage *page_get(const struct inode *in, uint64_t idx) {
    const size_t i = page_pos(in, idx);
    return i < in->npages && in->pages[i].idx == idx ? &in->pages[i] : NULL;
}

static struct mpage *page_map(struct inode *in, uint64_t idx) {
    const size_t i = page_pos(in, idx);
    if (i < in->npages && in->pages[i].idx == idx)
        return &in->pages[i];
    in->pages = must(realloc(in->pages, (in->npages + 1) * sizeof *in->pages));
    memmove(in->pages + i + 1, in->pages + i, (in->npages - i) * sizeof *in->pages);
    in->npages++;
    in->pages[i] = (struct mpage){.idx = idx};
    return &in->pages[i];
}

static uint8_t *page_bytes(struct mpage *p) {
    if (!p->bytes)
        p->bytes = must(calloc(1, PAGE));
    return p->bytes;
}

/* Unmaps pages [from, to). */
static void unmap(struct inode *in, uint64_t from, uint64_t to) {
    size_t n = 0;
    for (size_t i = 0; i < in->npages; i++)
        if (in->pages[i].idx >= from && in->pages[i].idx < to)
            free(in->pages[i].bytes);
        else
            in->pages[n++] = in->pages[i];
    in->npages = n;
}

/* Zeroes what is mapped of [s, t), which lies in one page. */
static void zero_part(struct inode *in, uint64_t s, uint64_t t) {
    struct mpage *p = s < t ? page_get(in, s / PAGE) : NULL;
    if (p && p->bytes)
        memset(p->bytes + s % PAGE, 0, t - s);
}

static void put_bytes(struct inode *in, uint64_t off, const uint8_t *src, uint64_t len) {
    while (len > 0) {
        const uint64_t o = off % PAGE, n = DFS_MIN(PAGE - o, len);
        memcpy(page_bytes(page_map(in, off / PAGE)) + o, src, n);
        off += n;
        src += n;
        len -= n;
    }
}

static void get_bytes(const struct inode *in, uint64_t off, uint8_t *dst, uint64_t len) {
    while (len > 0) {
        const uint64_t o = off % PAGE, n = DFS_MIN(PAGE - o, len);
        const struct mpage *p = page_get(in, off / PAGE);
        if (p && p->bytes)
            memcpy(dst, p->bytes + o, n);
        else
            memset(dst, 0, n);
        off += n;
        dst += n;
        len -= n;
    }
}

static size_t xattr_find(const struct inode *in, const char *name) {
    for (size_t i = 0; i < in->nxattrs; i++)
        if (strcmp(in->xattrs[i].name, name) == 0)
            return i;
    return NO_PAGE;
}

static void xattr_remove(struct inode *in, size_t i) {
    free(in->xattrs[i].value);
    in->xattrs[i] = in->xattrs[--in->nxattrs];
}

static bool drop_capability(struct inode *in, const struct op *op) {
    const size_t i = xattr_find(in, CAPABILITY);
    if (i == NO_PAGE)
        return false;
    xattr_remove(in, i);
    in->a.ctime = at(op->now);
    return true;
}

/* The first `len` bytes of the operation's write. */
static int64_t do_write(struct model *m, const struct op *op, uint64_t len) {
    struct inode *in;
    if (op->len == 0)
        return 0;
    if (op->off >= DFS_FILE_SIZE_MAX || op->len > (uint64_t)DFS_FILE_SIZE_MAX - op->off)
        return -EFBIG;
    const int r = get_file(m, op->ino, &in);
    if (r != 0)
        return r;
    uint8_t *data = must(malloc(op->len));
    op_data(op, data);
    drop_capability(in, op);
    put_bytes(in, op->off, data, len);
    free(data);
    in->a.size = DFS_MAX(in->a.size, op->off + len);
    if (op->flags & DFS_WRITE_KILL_SUID)
        kill_suid(in);
    changed(in, op);
    return (int64_t)len;
}

static int64_t do_read(struct model *m, const struct op *op, uint8_t *buf) {
    struct inode *in;
    if (op->off > DFS_FILE_SIZE_MAX)
        return 0;
    const int r = get_file(m, op->ino, &in);
    if (r != 0)
        return r;
    if (op->off >= in->a.size)
        return 0;
    const uint64_t n = DFS_MIN(op->len, in->a.size - op->off);
    if (buf)
        get_bytes(in, op->off, buf, n);
    return (int64_t)n;
}

static int64_t truncate_to(struct model *m, const struct op *op, uint64_t size) {
    struct inode *in;
    if (op->set.size > DFS_FILE_SIZE_MAX)
        return -EFBIG;
    const int r = get_file(m, op->ino, &in);
    if (r != 0)
        return r;
    drop_capability(in, op);
    if (size <= in->a.size) {
        unmap(in, DFS_DIV_UP(size, PAGE), UINT64_MAX);
        if (size % PAGE)
            zero_part(in, size, DFS_ROUND_UP(size, (uint64_t)PAGE));
    }
    in->a.size = size;
    if (op->set.valid & DFS_SET_KILL_SUID)
        kill_suid(in);
    changed(in, op);
    return 0;
}

static int64_t do_setattr(struct model *m, const struct op *op) {
    const struct dfs_setattr *s = &op->set;
    struct inode *in = get(m, op->ino);
    const uint32_t rest = s->valid & ~(uint32_t)DFS_SET_SIZE;
    if (s->valid & DFS_SET_SIZE) {
        const int64_t r = truncate_to(m, op, s->size);
        if (r != 0 || rest == 0 || rest == DFS_SET_KILL_SUID)
            return r;
    }
    if (!in)
        return -ENOENT;
    if (rest == 0)
        return 0;
    if (rest & (DFS_SET_UID | DFS_SET_GID | DFS_SET_KILL_SUID))
        drop_capability(in, op);
    if (rest & DFS_SET_MODE)
        in->a.mode = (in->a.mode & S_IFMT) | (s->mode & 07777);
    if (rest & DFS_SET_UID)
        in->a.uid = s->uid;
    if (rest & DFS_SET_GID)
        in->a.gid = s->gid;
    if (rest & DFS_SET_KILL_SUID)
        kill_suid(in);
    if (rest & (DFS_SET_ATIME | DFS_SET_ATIME_NOW))
        in->a.atime = rest & DFS_SET_ATIME_NOW ? at(op->now) : s->atime;
    if (rest & (DFS_SET_MTIME | DFS_SET_MTIME_NOW))
        in->a.mtime = rest & DFS_SET_MTIME_NOW ? at(op->now) : s->mtime;
    if (rest & DFS_SET_CTIME)
        in->a.ctime = s->ctime;
    else if (rest != DFS_SET_ATIME)
        in->a.ctime = at(op->now);
    return 0;
}

/* The first `len` bytes of the range. */
static int64_t do_fallocate(struct model *m, const struct op *op, uint64_t len) {
    struct inode *in;
    const int mode = (int)op->flags;
    const bool keep = mode & FALLOC_FL_KEEP_SIZE, punch = mode & FALLOC_FL_PUNCH_HOLE, zero = mode & FALLOC_FL_ZERO_RANGE;
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) || (punch && (!keep || zero)))
        return -EOPNOTSUPP;
    if (op->len == 0)
        return -EINVAL;
    if (op->off >= DFS_FILE_SIZE_MAX || op->len > (uint64_t)DFS_FILE_SIZE_MAX - op->off)
        return -EFBIG;
    const int r = get_file(m, op->ino, &in);
    if (r != 0)
        return r;
    const uint64_t end = op->off + len;
    const uint64_t from = DFS_DIV_UP(op->off, PAGE), to = end / PAGE; /* whole pages */
    if (punch || zero) {
        drop_capability(in, op);
        if (from < to)
            unmap(in, from, to);
        zero_part(in, op->off, DFS_MIN(end, from * PAGE));
        if (end % PAGE)
            zero_part(in, DFS_MAX(op->off, to * PAGE), end);
    } else {
        drop_capability(in, op);
    }
    if (!punch) {
        for (uint64_t i = op->off / PAGE; i < DFS_DIV_UP(end, PAGE); i++)
            page_map(in, i);
        if (!keep)
            in->a.size = DFS_MAX(in->a.size, end);
    }
    kill_suid(in);
    in->a.ctime = at(op->now);
    if (punch || zero || !keep)
        in->a.mtime = at(op->now);
    return 0;
}

/* Data is what is mapped; a page that is mapped but was never written may count as either. So what is checked of a seek is
 * that it is not wrong: op->result comes in, and comes out if it is right. */
static int64_t do_seek(struct model *m, const struct op *op) {
    struct inode *in;
    int r = get_file(m, op->ino, &in);
    if (r != 0)
        return r;
    if (op->off >= in->a.size)
        return -ENXIO;
    const bool data = op->flags == SEEK_DATA;
    if (op->result < 0 && !(data && op->result == -ENXIO))
        return 0;
    const uint64_t got = op->result < 0 ? in->a.size : (uint64_t)op->result;
    if (got < op->off || got > in->a.size)
        return (int64_t)op->off;
    for (size_t i = 0; i < in->npages; i++) {
        const struct mpage *p = &in->pages[i];
        static const uint8_t zeros[PAGE];
        const bool content = p->bytes && memcmp(p->bytes, zeros, PAGE) != 0;
        if (data && content && (p->idx + 1) * PAGE > op->off && DFS_MAX(p->idx * PAGE, op->off) < got)
            return (int64_t)DFS_MAX(p->idx * PAGE, op->off); /* jumped over data */
        if (!data && content && got < in->a.size && p->idx == got / PAGE)
            return -EILSEQ; /* no hole there */
    }
    if (data && op->result >= 0 && !page_get(in, got / PAGE))
        return -ENODATA; /* no data there */
    if (!data)
        for (uint64_t o = op->off / PAGE; o * PAGE < got && o < op->off / PAGE + 4096; o++)
            if (!page_get(in, o))
                return (int64_t)DFS_MAX(op->off, o * PAGE); /* jumped over a hole */
    return op->result;
}

/* Copies the first `len` bytes of the range. */
static int64_t do_copy(struct model *m, const struct op *op, uint64_t max) {
    struct inode *in, *out;
    int r = get_file(m, op->ino, &in);
    if (r == 0)
        r = get_file(m, op->ino2, &out);
    if (r != 0)
        return r;
    if (op->off >= in->a.size || op->len == 0)
        return 0;
    uint64_t n = DFS_MIN(op->len, in->a.size - op->off);
    if (op->off2 >= DFS_FILE_SIZE_MAX || n > (uint64_t)DFS_FILE_SIZE_MAX - op->off2)
        return -EFBIG;
    if (in == out && op->off < op->off2 + n && op->off2 < op->off + n)
        return -EINVAL;
    n = DFS_MIN(n, max);
    if (n == 0)
        return 0;
    uint8_t *buf = must(malloc(n));
    get_bytes(in, op->off, buf, n);
    drop_capability(out, op);
    /* Holes stay holes where pages correspond; else they are written as zeros. Both are right, content is what counts. */
    put_bytes(out, op->off2, buf, n);
    out->blocks_unsure = true;
    free(buf);
    out->a.size = DFS_MAX(out->a.size, op->off2 + n);
    kill_suid(out);
    changed(out, op);
    return (int64_t)n;
}

/* ---- extended attributes -------------------------------------------------------------------------------------- */

static int64_t do_setxattr(struct model *m, const struct op *op) {
    struct inode *in = get(m, op->ino);
    if (op->name_len == 0)
        return -EINVAL;
    if (op->name_len > DFS_XATTR_NAME_MAX)
        return -ERANGE;
    if (op->len > DFS_XATTR_VALUE_MAX)
        return -E2BIG;
    if (op->len > 4096)
        return -ENOSPC;
    if (!in)
        return -ENOENT;
    size_t i = xattr_find(in, op->name);
    if (i == NO_PAGE && op->flags & XATTR_REPLACE)
        return -ENODATA;
    if (i != NO_PAGE && op->flags & XATTR_CREATE)
        return -EEXIST;
    if (i == NO_PAGE) {
        in->xattrs = must(realloc(in->xattrs, (in->nxattrs + 1) * sizeof *in->xattrs));
        i = in->nxattrs++;
        memcpy(in->xattrs[i].name, op->name, op->name_len + 1);
        in->xattrs[i].value = NULL;
    }
    in->xattrs[i].value = must(realloc(in->xattrs[i].value, op->len + 1));
    in->xattrs[i].len = op->len;
    op_data(op, in->xattrs[i].value);
    in->a.ctime = at(op->now);
    return 0;
}

static int64_t do_getxattr(struct model *m, const struct op *op, uint8_t *buf) {
    struct inode *in = get(m, op->ino);
    if (op->name_len == 0)
        return -EINVAL;
    if (op->name_len > DFS_XATTR_NAME_MAX)
        return -ERANGE;
    if (!in)
        return -ENOENT;
    const size_t i = xattr_find(in, op->name);
    if (i == NO_PAGE)
        return -ENODATA;
    if (op->len != 0 && op->len < in->xattrs[i].len)
        return -ERANGE;
    if (op->len != 0 && buf)
        memcpy(buf, in->xattrs[i].value, in->xattrs[i].len);
    return (int64_t)in->xattrs[i].len;
}

static int64_t do_rmxattr(struct model *m, const struct op *op) {
    struct inode *in = get(m, op->ino);
    if (op->name_len == 0)
        return -EINVAL;
    if (op->name_len > DFS_XATTR_NAME_MAX)
        return -ERANGE;
    if (!in)
        return -ENOENT;
    const size_t i = xattr_find(in, op->name);
    if (i == NO_PAGE)
        return -ENODATA;
    xattr_remove(in, i);
    in->a.ctime = at(op->now);
    return 0;
}

static int64_t do_listxattr(const struct model *m, const struct op *op) {
    const struct inode *in = get(m, op->ino);
    int64_t n = 0;
    if (!in)
        return -ENOENT;
    for (size_t i = 0; i < in->nxattrs; i++)
        n += (int64_t)strlen(in->xattrs[i].name) + 1;
    return n;
}

static int64_t do_readlink(const struct model *m, const struct op *op, uint8_t *buf) {
    const struct inode *in = get(m, op->ino);
    if (!in)
        return -ENOENT;
    if (!S_ISLNK(in->a.mode))
        return -EINVAL;
    if (buf)
        memcpy(buf, in->target, strlen(in->target) + 1);
    return (int64_t)strlen(in->target);
}

static int64_t do_create(struct model *m, const struct op *op) {
    switch (op->create.mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        break;
    default:
        return -EINVAL;
    }
    const int r = name_check(op->name, op->name_len);
    return r != 0 ? r : make(m, op, true);
}

int64_t model_apply(struct model *m, const struct op *op, uint8_t *buf) {
    struct inode *dir;
    switch (op->kind) {
    case OP_CREATE:
        return do_create(m, op);
    case OP_TMPFILE:
        return S_ISREG(op->create.mode) ? make(m, op, false) : -EINVAL;
    case OP_LINK:
        return do_link(m, op);
    case OP_UNLINK:
        return do_unlink(m, op, false);
    case OP_RMDIR:
        return do_unlink(m, op, true);
    case OP_RENAME:
        return do_rename(m, op);
    case OP_LOOKUP:
        return do_lookup(m, op);
    case OP_SETATTR:
        return do_setattr(m, op);
    case OP_WRITE:
        return do_write(m, op, op->len);
    case OP_READ:
        return do_read(m, op, buf);
    case OP_FALLOCATE:
        return do_fallocate(m, op, op->len);
    case OP_SEEK:
        return do_seek(m, op);
    case OP_COPY:
        return do_copy(m, op, UINT64_MAX);
    case OP_SETXATTR:
        return do_setxattr(m, op);
    case OP_GETXATTR:
        return do_getxattr(m, op, buf);
    case OP_LISTXATTR:
        return do_listxattr(m, op);
    case OP_RMXATTR:
        return do_rmxattr(m, op);
    case OP_READDIR:
        return get_dir(m, op->dir, &dir);
    case OP_READLINK:
        return do_readlink(m, op, buf);
    case OP_RELEASE:
        return do_release(m, op);
    case OP_REOPEN:
    case OP_KILL:
        if (!(op->flags & 1)) /* keep_orphans */
            model_release_orphans(m);
        return 0;
    case OP_FSYNC:
    case OP_SYNCFS:
    case OP_CHECKPOINT:
    case OP_KINDS:
        break;
    }
    return 0;
}

/* Ends at which a write may be cut: where it becomes page-aligned, and every page after. */
static bool part_of_range(uint64_t off, uint64_t len, unsigned k, uint64_t *part) {
    *part = DFS_ROUND_UP(off + 1, (uint64_t)PAGE) - off + (uint64_t)k * PAGE;
    return *part < len;
}

/* A long file is cut in steps: all pages from some page on are gone already. */
static bool truncate_part(struct model *m, const struct op *op, unsigned k) {
    const struct inode *in = get(m, op->ino);
    if (!in || !(op->set.valid & DFS_SET_SIZE))
        return false;
    for (size_t i = 0; i < in->npages; i++) {
        const uint64_t size = in->pages[i].idx * PAGE;
        if (size > op->set.size && size <= in->a.size && k-- == 0)
            return truncate_to(m, op, size) == 0;
    }
    return k == 0 && truncate_to(m, op, op->set.size) == 0;
}

/* So are orphans. *k counts down over the possible states. */
static bool evict_part(struct inode *in, unsigned *k) {
    for (size_t i = 0; i < in->npages; i++)
        if ((*k)-- == 0) {
            unmap(in, in->pages[i].idx, UINT64_MAX);
            return true;
        }
    return false;
}

bool model_apply_part(struct model *m, const struct op *op, unsigned k) {
    struct inode *in = get(m, op->kind == OP_COPY ? op->ino2 : op->ino);
    uint64_t part;
    if (op->result < 0 && op->result != -EIO && op->result != -ENOSPC && op->result != -ENOMEM)
        return false;
    if (k == 0 && in && (op->kind == OP_WRITE || op->kind == OP_SETATTR || op->kind == OP_FALLOCATE || op->kind == OP_COPY))
        return drop_capability(in, op) || model_apply_part(m, op, 1);
    if (k > 0)
        k--;
    switch (op->kind) {
    case OP_WRITE:
        return part_of_range(op->off, op->len, k, &part) && do_write(m, op, part) > 0;
    case OP_FALLOCATE:
        return part_of_range(op->off, op->len, k, &part) && do_fallocate(m, op, part) == 0;
    case OP_COPY:
        return part_of_range(op->off2, op->len, k, &part) && do_copy(m, op, part) > 0;
    case OP_SETATTR:
        return truncate_part(m, op, k);
    case OP_RELEASE:
        return in && in->a.nlink == 0 && evict_part(in, &k);
    case OP_REOPEN: /* orphans go one by one */
    case OP_KILL:
        if (op->flags & 1)
            return false;
        for (uint64_t i = 0; i < m->ninodes; i++)
            if (m->inodes[i] && m->inodes[i]->a.nlink == 0) {
                if (evict_part(m->inodes[i], &k))
                    return true;
                drop(m, i);
                if (k-- == 0)
                    return true;
            }
        return false;
    default:
        return false;
    }
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

int model_getattr(const struct model *m, uint64_t ino, struct dfs_attr *attr) {
    const struct inode *in = get(m, ino);
    if (!in)
        return -ENOENT;
    *attr = in->a;
    attr->blocks = in->blocks_unsure ? MODEL_BLOCKS_UNSURE : in->npages * (PAGE / 512);
    return 0;
}

uint64_t model_max_ino(const struct model *m) {
    return m->ninodes;
}

bool model_orphan(const struct model *m, uint64_t ino) {
    return get(m, ino) && get(m, ino)->a.nlink == 0;
}

void model_readdir(const struct model *m, uint64_t dir, void (*fn)(void *, const char *, size_t, uint64_t), void *arg) {
    const struct inode *d = get(m, dir);
    for (size_t i = 0; i < d->nentries; i++)
        fn(arg, d->entries[i].name, d->entries[i].len, d->entries[i].ino);
}

void model_listxattr(const struct model *m, uint64_t ino, void (*fn)(void *, const char *), void *arg) {
    const struct inode *in = get(m, ino);
    for (size_t i = 0; i < in->nxattrs; i++)
        fn(arg, in->xattrs[i].name);
}

size_t model_getxattr(const struct model *m, uint64_t ino, const char *name, uint8_t *buf) {
    const struct inode *in = get(m, ino);
    const struct xattr *x = &in->xattrs[xattr_find(in, name)];
    memcpy(buf, x->value, x->len);
    return x->len;
}

void model_pages(const struct model *m, uint64_t ino, void (*fn)(void *, uint64_t idx, const uint8_t *page), void *arg) {
    static const uint8_t zeros[PAGE];
    const struct inode *in = get(m, ino);
    for (size_t i = 0; i < in->npages; i++)
        if (in->pages[i].bytes && memcmp(in->pages[i].bytes, zeros, PAGE) != 0)
            fn(arg, in->pages[i].idx, in->pages[i].bytes);
}

uint64_t model_files(const struct model *m) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->ninodes; i++)
        n += m->inodes[i] != NULL;
    return n;
}

bool model_pages_used(const struct model *m, uint64_t *pages) {
    *pages = 0;
    for (uint64_t i = 0; i < m->ninodes; i++)
        if (m->inodes[i] && m->inodes[i]->blocks_unsure)
            return false;
        else
            *pages += m->inodes[i] ? m->inodes[i]->npages : 0;
    return true;
}
