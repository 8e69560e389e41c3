/* Operations on names: look up, make, link, remove, rename, list. Each checks what POSIX wants checked, makes a record
 * with the outcome, and commits it. */
#include <linux/fs.h>
#include <sys/stat.h>

#include "fs/store/acl.h"
#include "fs/store/internal.h"

#define BODY_MAX_NAMES (sizeof(struct dfs_rec_body) + 2 * DFS_NAME_MAX + 4 + 2 * DFS_XATTR_STORED_MAX + 8)

/* The directory, which must still have a name to take new entries. */
static int dir_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *dir) {
    const int r = dfs_inode_get(tx, ino, dir);
    if (r != 0)
        return r;
    return S_ISDIR(dir->mode) ? 0 : -ENOTDIR;
}

static int entry_get(struct dfs_txn *tx, uint64_t dir, const char *name, size_t len, struct dfs_dirent_item *e) {
    struct dfs_key key;
    return dfs_dirent_find(tx, dir, name, len, &key, e);
}

int dfs_lookup(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr) {
    struct dfs_txn tx;
    if (len > DFS_NAME_MAX)
        return -ENAMETOOLONG;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode d, in;
        struct dfs_dirent_item e = {.ino = dir};
        r = dir_get(&tx, dir, &d);
        if (r == 0 && len == 2 && memcmp(name, "..", 2) == 0)
            e.ino = d.parent;
        else if (r == 0 && !(len == 1 && name[0] == '.'))
            r = entry_get(&tx, dir, name, len, &e);
        if (r == 0)
            r = dfs_inode_get(&tx, e.ino, &in);
        if (r == 0)
            dfs_inode_attr(e.ino, &in, attr);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* ---- making --------------------------------------------------------------------------------------------------- */

struct inherited {
    uint8_t data[4 + 2 * DFS_XATTR_STORED_MAX];
    uint32_t len;
};

/* Mode, group and ACLs of something new in `dir`, as ext4 gives them. */
static int inherit(struct dfs_txn *tx, uint64_t dir_ino, const struct dfs_inode *dir, const struct dfs_create *c,
                   struct dfs_rec *rec, struct inherited *inh) {
    rec->mode = c->mode;
    rec->uid = c->uid;
    rec->gid = c->gid;
    inh->len = 0;
    if (dir->mode & S_ISGID) {
        rec->gid = dir->gid;
        if (S_ISDIR(c->mode))
            rec->mode |= S_ISGID;
    }
    if (S_ISLNK(c->mode)) {
        rec->mode = S_IFLNK | 0777;
        return 0;
    }
    struct dfs_key key;
    struct dfs_xattr_item x;
    const int r = dfs_xattr_find(tx, dir_ino, DFS_ACL_DEFAULT, strlen(DFS_ACL_DEFAULT), &key, &x);
    if (r == -ENOENT || (r == 0 && !dfs_acl_valid(x.value, x.value_len))) {
        rec->mode &= ~(c->umask & 0777);
        return 0;
    }
    if (r != 0)
        return r;
    bool minimal;
    uint8_t *p = inh->data + 4;
    memcpy(p, x.value, x.value_len);
    dfs_acl_inherit(p, x.value_len, &rec->mode, &minimal);
    const size_t access = minimal ? 0 : x.value_len, deflt = S_ISDIR(c->mode) ? x.value_len : 0;
    memcpy(p + access, x.value, deflt);
    dfs_put_le16(inh->data, (uint16_t)access);
    dfs_put_le16(inh->data + 2, (uint16_t)deflt);
    inh->len = access + deflt ? (uint32_t)(4 + access + deflt) : 0;
    return 0;
}

static int make(struct dfs_store *st, uint64_t dir, const char *name, size_t len, const struct dfs_create *c,
                struct dfs_attr *attr) {
    struct dfs_txn tx;
    struct inherited inh;
    const size_t target = S_ISLNK(c->mode) ? strlen(c->target) : 0;
    if (S_ISLNK(c->mode) && target == 0)
        return -ENOENT;
    if (target > DFS_SYMLINK_MAX)
        return -ENAMETOOLONG;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, BODY_MAX_NAMES);
    if (r != 0)
        return r;
    do {
        struct dfs_inode d;
        struct dfs_dirent_item e;
        struct dfs_rec rec = {.type = name ? DFS_REC_CREATE : DFS_REC_TMPFILE,
                              .dir = dir,
                              .ino = st->next_ino,
                              .rdev = S_ISCHR(c->mode) || S_ISBLK(c->mode) ? c->rdev : 0,
                              .name = name,
                              .name_len = (uint16_t)len};
        r = dir_get(&tx, dir, &d);
        if (r == 0 && d.nlink == 0)
            r = -ENOENT;
        if (r == 0 && name) {
            r = entry_get(&tx, dir, name, len, &e);
            r = r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
        }
        if (r == 0 && name && S_ISDIR(c->mode) && d.nlink >= DFS_LINK_MAX * 16u)
            r = -EMLINK;
        if (r == 0)
            r = inherit(&tx, dir, &d, c, &rec, &inh);
        if (r != 0)
            continue;
        dfs_now(st, &rec.time);
        /* Any value that a file handle of an earlier inode of this number could not have: numbers are never reused. */
        rec.generation = 1;
        rec.data = S_ISLNK(c->mode) ? (const void *)c->target : inh.data;
        rec.data_len = S_ISLNK(c->mode) ? (uint32_t)target : inh.len;
        r = dfs_txn_commit(&tx, &rec);
        if (r == 0) {
            struct dfs_inode in;
            dfs_inode_get(&tx, rec.ino, &in);
            dfs_inode_attr(rec.ino, &in, attr);
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

int dfs_create(struct dfs_store *st, uint64_t dir, const char *name, size_t len, const struct dfs_create *c,
               struct dfs_attr *attr) {
    switch (c->mode & S_IFMT) {
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
    const int r = dfs_name_check(name, len);
    return r != 0 ? r : make(st, dir, name, len, c, attr);
}

int dfs_tmpfile(struct dfs_store *st, uint64_t dir, const struct dfs_create *c, struct dfs_attr *attr) {
    if (!S_ISREG(c->mode))
        return -EINVAL;
    return make(st, dir, NULL, 0, c, attr);
}

int dfs_link(struct dfs_store *st, uint64_t ino, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr) {
    struct dfs_txn tx;
    int r = dfs_name_check(name, len);
    if (r == 0)
        r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, BODY_MAX_NAMES);
    if (r != 0)
        return r;
    do {
        struct dfs_inode d, in;
        struct dfs_dirent_item e;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0)
            r = dir_get(&tx, dir, &d);
        if (r == 0 && S_ISDIR(in.mode))
            r = -EPERM;
        if (r == 0 && d.nlink == 0)
            r = -ENOENT;
        if (r == 0 && in.nlink >= DFS_LINK_MAX)
            r = -EMLINK;
        if (r == 0) {
            r = entry_get(&tx, dir, name, len, &e);
            r = r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
        }
        if (r != 0)
            continue;
        struct dfs_rec rec = {.type = DFS_REC_LINK, .ino = ino, .dir = dir, .name = name, .name_len = (uint16_t)len};
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
        if (r == 0 && attr) {
            dfs_inode_get(&tx, ino, &in);
            dfs_inode_attr(ino, &in, attr);
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* ---- removing ------------------------------------------------------------------------------------------------- */

static int remove_name(struct dfs_store *st, uint64_t dir, const char *name, size_t len, bool want_dir,
                       struct dfs_attr *attr) {
    struct dfs_txn tx;
    int r = dfs_name_check(name, len);
    if (r == 0)
        r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, BODY_MAX_NAMES);
    if (r != 0)
        return r;
    do {
        struct dfs_inode d, in;
        struct dfs_dirent_item e;
        r = dir_get(&tx, dir, &d);
        if (r == 0)
            r = entry_get(&tx, dir, name, len, &e);
        if (r == 0)
            r = dfs_inode_get(&tx, e.ino, &in);
        if (r != 0)
            continue;
        if (want_dir && !S_ISDIR(in.mode))
            r = -ENOTDIR;
        else if (!want_dir && S_ISDIR(in.mode))
            r = -EISDIR;
        else if (want_dir && in.entries > 0)
            r = -ENOTEMPTY;
        if (r != 0)
            continue;
        struct dfs_rec rec = {
            .type = DFS_REC_UNLINK, .dir = dir, .ino = e.ino, .name = name, .name_len = (uint16_t)len};
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
        if (r == 0 && attr) {
            dfs_inode_get(&tx, rec.ino, &in);
            dfs_inode_attr(rec.ino, &in, attr);
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

int dfs_unlink(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr) {
    return remove_name(st, dir, name, len, false, attr);
}

int dfs_rmdir(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr) {
    return remove_name(st, dir, name, len, true, attr);
}

int dfs_release_orphan(struct dfs_store *st, uint64_t ino) {
    const struct dfs_key okey = {.ino = 0, .kind = DFS_KIND_ORPHAN, .off = ino};
    for (;;) {
        struct dfs_txn tx;
        bool gone = false;
        int r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, sizeof(struct dfs_rec_body));
        if (r != 0)
            return r;
        do {
            const void *val;
            size_t len;
            r = dfs_tree_get(&tx, DFS_TREE_META, &okey, &val, &len);
            if (r == -ENOENT) {
                gone = true;
                r = 0;
                continue;
            }
            const struct dfs_rec rec = {.type = DFS_REC_EVICT, .ino = ino};
            if (r == 0)
                r = dfs_txn_commit(&tx, &rec);
        } while (dfs_txn_again(&tx, &r));
        r = dfs_txn_end(&tx, r);
        if (r != 0 || gone)
            return r;
    }
}

/* ---- renaming ------------------------------------------------------------------------------------------------- */

#define DEPTH_MAX 100000u

/* Is `ino` a directory above `dir`, or `dir` itself? 0/1, negative errno. */
static int is_above(struct dfs_txn *tx, uint64_t ino, uint64_t dir) {
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        if (dir == ino)
            return 1;
        if (dir == DFS_ROOT_INO)
            return 0;
        struct dfs_inode d;
        const int r = dfs_inode_get(tx, dir, &d);
        if (r != 0)
            return r == -ENOENT ? -EUCLEAN : r;
        dir = d.parent;
    }
    return -EUCLEAN;
}

/* What stands at both ends, and whether POSIX lets the one take the other's place. rec->ino2 is 0 where nothing stands. */
static int rename_look(struct dfs_txn *tx, struct dfs_rec *rec, unsigned flags, struct dfs_inode *target) {
    struct dfs_inode d1, d2, in;
    struct dfs_dirent_item e1, e2;
    int r = dir_get(tx, rec->dir, &d1);
    if (r == 0)
        r = dir_get(tx, rec->dir2, &d2);
    if (r == 0)
        r = entry_get(tx, rec->dir, rec->name, rec->name_len, &e1);
    if (r != 0)
        return r;
    rec->ino = e1.ino;
    r = entry_get(tx, rec->dir2, rec->name2, rec->name2_len, &e2);
    if (r != 0 && r != -ENOENT)
        return r;
    rec->ino2 = r == 0 ? e2.ino : 0;
    if (flags & RENAME_NOREPLACE && rec->ino2)
        return -EEXIST;
    if (flags & RENAME_EXCHANGE && !rec->ino2)
        return -ENOENT;
    if (rec->ino == rec->ino2)
        return 0;
    if (d2.nlink == 0)
        return -ENOENT;
    if ((r = dfs_inode_get(tx, rec->ino, &in)) != 0 ||
        (rec->ino2 && (r = dfs_inode_get(tx, rec->ino2, target)) != 0))
        return r;
    if (S_ISDIR(in.mode) && (r = is_above(tx, rec->ino, rec->dir2)) != 0)
        return r < 0 ? r : -EINVAL;
    if (!rec->ino2)
        return 0;
    if (S_ISDIR(target->mode) && (r = is_above(tx, rec->ino2, rec->dir)) != 0)
        return r < 0 ? r : flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
    if (flags & RENAME_EXCHANGE)
        return 0;
    if (S_ISDIR(in.mode) && !S_ISDIR(target->mode))
        return -ENOTDIR;
    if (!S_ISDIR(in.mode) && S_ISDIR(target->mode))
        return -EISDIR;
    return S_ISDIR(target->mode) && target->entries > 0 ? -ENOTEMPTY : 0;
}

int dfs_rename(struct dfs_store *st, uint64_t sdir, const char *sname, size_t slen, uint64_t ddir, const char *dname,
               size_t dlen, unsigned flags, struct dfs_attr *replaced) {
    struct dfs_txn tx;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int r = dfs_name_check(sname, slen);
    if (r == 0)
        r = dfs_name_check(dname, dlen);
    if (r == 0)
        r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, BODY_MAX_NAMES);
    if (r != 0)
        return r;
    do {
        struct dfs_inode target;
        struct dfs_rec rec = {.type = DFS_REC_RENAME,
                              .flags = flags & RENAME_EXCHANGE ? DFS_RECF_EXCHANGE : 0,
                              .dir = sdir,
                              .dir2 = ddir,
                              .name = sname,
                              .name2 = dname,
                              .name_len = (uint16_t)slen,
                              .name2_len = (uint16_t)dlen};
        if (replaced)
            *replaced = (struct dfs_attr){.ino = 0};
        r = rename_look(&tx, &rec, flags, &target);
        if (r != 0 || rec.ino == rec.ino2)
            continue;
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
        if (r == 0 && replaced && rec.ino2) {
            dfs_inode_get(&tx, rec.ino2, &target);
            dfs_inode_attr(rec.ino2, &target, replaced);
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* ---- listing -------------------------------------------------------------------------------------------------- */

#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u

static int deliver(struct dfs_txn *tx, const struct dfs_dirent_item *e, uint64_t cookie, bool want_attr,
                   int (*fn)(void *, const struct dfs_dirent *), void *arg) {
    struct dfs_attr attr;
    struct dfs_dirent d = {.ino = e->ino, .cookie = cookie, .type = e->type, .name = e->name, .len = e->len};
    if (want_attr) {
        struct dfs_inode in;
        const int r = dfs_inode_get(tx, e->ino, &in);
        if (r != 0)
            return r == -ENOENT ? -EUCLEAN : r;
        dfs_inode_attr(e->ino, &in, &attr);
        d.attr = &attr;
    }
    return fn(arg, &d) != 0 ? 1 : 0;
}

/* One stretch under the lock; *cookie moves on with what was delivered. 1: fn has had enough. */
static int list_some(struct dfs_txn *tx, uint64_t dir, uint64_t *cookie, bool want_attr,
                     int (*fn)(void *, const struct dfs_dirent *), void *arg) {
    struct dfs_inode d;
    int r = dir_get(tx, dir, &d);
    if (r != 0)
        return r;
    while (*cookie < COOKIE_DOTDOT) {
        const bool dot = *cookie < COOKIE_DOT;
        const struct dfs_dirent_item e = {
            .ino = dot || d.nlink == 0 ? dir : d.parent, /* a removed directory's parent may be gone */
            .type = S_IFDIR,
            .name = "..",
            .len = dot ? 1 : 2};
        const uint64_t c = dot ? COOKIE_DOT : COOKIE_DOTDOT;
        r = deliver(tx, &e, c, want_attr, fn, arg);
        if (r != 0)
            return r;
        *cookie = c;
    }
    const struct dfs_key key = {.ino = dir, .kind = DFS_KIND_DIRENT, .off = *cookie + 1};
    struct dfs_iter it;
    for (r = dfs_iter_seek(&it, tx, DFS_TREE_META, &key); r == 0; r = dfs_iter_next(&it)) {
        const struct dfs_key k = dfs_iter_key(&it);
        if (k.ino != dir || k.kind != DFS_KIND_DIRENT)
            return 0;
        struct dfs_dirent_item e;
        size_t len;
        const void *val = dfs_iter_val(&it, &len);
        if (!dfs_dirent_parse(val, len, &e) || k.off >> 63)
            return -EUCLEAN;
        r = deliver(tx, &e, k.off, want_attr, fn, arg);
        if (r != 0)
            return r;
        *cookie = k.off;
    }
    return r == -ENOENT ? 0 : r;
}

int dfs_readdir(struct dfs_store *st, uint64_t dir, uint64_t cookie, bool want_attr,
                int (*fn)(void *arg, const struct dfs_dirent *e), void *arg) {
    struct dfs_txn tx;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do
        r = list_some(&tx, dir, &cookie, want_attr, fn, arg);
    while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    return r > 0 ? 0 : r;
}

int dfs_ino_path(struct dfs_store *st, uint64_t ino, char *buf, size_t size) {
    char path[4096];
    size_t at = sizeof path - 1;
    path[at] = 0;
    struct dfs_txn tx;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        r = 0;
        at = sizeof path - 1;
        for (uint64_t i = ino; r == 0 && i != DFS_ROOT_INO;) {
            struct dfs_inode in;
            struct dfs_iter it;
            struct dfs_dirent_item e = {.ino = 0};
            r = dfs_inode_get(&tx, i, &in);
            if (r != 0)
                break;
            const struct dfs_key key = {.ino = in.parent, .kind = DFS_KIND_DIRENT, .off = 0};
            for (r = dfs_iter_seek(&it, &tx, DFS_TREE_META, &key); r == 0; r = dfs_iter_next(&it)) {
                const struct dfs_key k = dfs_iter_key(&it);
                size_t len;
                const void *val = dfs_iter_val(&it, &len);
                if (k.ino != in.parent || k.kind != DFS_KIND_DIRENT || !dfs_dirent_parse(val, len, &e))
                    r = -ENOENT;
                if (r != 0 || e.ino == i)
                    break;
            }
            if (r == 0 && e.len + 1 > at)
                r = -ENAMETOOLONG;
            if (r == 0) {
                at -= e.len;
                memcpy(path + at, e.name, e.len);
                path[--at] = '/';
                i = in.parent;
            }
        }
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r == 0)
        snprintf(buf, size, "%s", path[at] ? path + at : "/");
    else
        snprintf(buf, size, "?");
    return r;
}
