/* Operations on attributes, plain and extended. */
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/store/acl.h"
#include "fs/store/internal.h"

#define CAPABILITY "security.capability"
#define BODY_MAX_XATTR (sizeof(struct dfs_rec_body) + DFS_XATTR_NAME_MAX + DFS_XATTR_STORED_MAX + 8)

int dfs_getattr(struct dfs_store *st, uint64_t ino, struct dfs_attr *attr) {
    struct dfs_txn tx;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode in;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0)
            dfs_inode_attr(ino, &in, attr);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* security.capability goes with the privileges it gave; a commit of its own, before the change that ends them. */
int dfs_drop_capability(struct dfs_txn *tx, uint64_t ino) {
    struct dfs_key key;
    int r = dfs_xattr_find(tx, ino, CAPABILITY, strlen(CAPABILITY), &key, NULL);
    if (r != 0)
        return r == -ENOENT ? 0 : r;
    struct dfs_rec rec = {
        .type = DFS_REC_RMXATTR, .ino = ino, .name = CAPABILITY, .name_len = (uint16_t)strlen(CAPABILITY)};
    dfs_now(tx->st, &rec.time);
    return dfs_txn_commit(tx, &rec);
}

/* Where to cut so that a single record removes no more than a bounded number of extents: the size for the next step. */
static int truncate_step(struct dfs_txn *tx, uint64_t ino, uint64_t size, uint64_t *step) {
    const struct dfs_key key = {.ino = ino, .kind = DFS_KIND_EXTENT, .off = UINT64_MAX};
    struct dfs_iter it;
    *step = size;
    int r = dfs_iter_seek_le(&it, tx, DFS_TREE_META, &key);
    for (unsigned i = 1; r == 0 && i < 64; i++)
        r = dfs_iter_prev(&it);
    if (r != 0)
        return r == -ENOENT ? 0 : r;
    const struct dfs_key k = dfs_iter_key(&it);
    if (k.ino == ino && k.kind == DFS_KIND_EXTENT && k.off > size)
        *step = k.off;
    return 0;
}

static int truncate_file(struct dfs_store *st, uint64_t ino, uint64_t size, bool kill_suid) {
    if (size > DFS_FILE_SIZE_MAX)
        return -EFBIG;
    for (;;) {
        struct dfs_txn tx;
        uint64_t step = size;
        int r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, sizeof(struct dfs_rec_body));
        if (r != 0)
            return r;
        do {
            struct dfs_inode in;
            r = dfs_inode_get(&tx, ino, &in);
            if (r == 0 && !S_ISREG(in.mode))
                r = S_ISDIR(in.mode) ? -EISDIR : -EINVAL;
            if (r == 0)
                r = dfs_drop_capability(&tx, ino);
            if (r == 0)
                r = truncate_step(&tx, ino, size, &step);
            if (r != 0)
                continue;
            struct dfs_rec rec = {.type = DFS_REC_TRUNCATE,
                                  .ino = ino,
                                  .size = step,
                                  .valid = kill_suid ? DFS_SET_KILL_SUID : 0};
            if (step > in.size && step > size)
                rec.size = in.size; /* reserved space past the end goes first */
            dfs_now(st, &rec.time);
            r = dfs_txn_commit(&tx, &rec);
            step = rec.size;
        } while (dfs_txn_again(&tx, &r));
        r = dfs_txn_end(&tx, r);
        if (r != 0 || step == size)
            return r;
    }
}

/* chmod and the ACL's mask go together. */
static int chmod_acl(struct dfs_txn *tx, uint64_t ino, uint32_t mode, uint8_t *acl, struct dfs_rec *rec) {
    struct dfs_key key;
    struct dfs_xattr_item x;
    const int r = dfs_xattr_find(tx, ino, DFS_ACL_ACCESS, strlen(DFS_ACL_ACCESS), &key, &x);
    if (r == -ENOENT || (r == 0 && !dfs_acl_valid(x.value, x.value_len)))
        return 0;
    if (r != 0)
        return r;
    memcpy(acl, x.value, x.value_len);
    dfs_acl_from_mode(acl, x.value_len, mode);
    rec->data = acl;
    rec->data_len = (uint32_t)x.value_len;
    return 0;
}

int dfs_setattr(struct dfs_store *st, uint64_t ino, const struct dfs_setattr *sa, struct dfs_attr *attr) {
    struct dfs_txn tx;
    uint8_t acl[DFS_XATTR_STORED_MAX];
    int r;
    if (sa->valid & DFS_SET_SIZE) {
        r = truncate_file(st, ino, sa->size, sa->valid & DFS_SET_KILL_SUID);
        if (r != 0)
            return r;
    }
    const uint32_t rest = sa->valid & ~(uint32_t)DFS_SET_SIZE;
    if (rest == 0 || (sa->valid & DFS_SET_SIZE && rest == DFS_SET_KILL_SUID))
        return attr ? dfs_getattr(st, ino, attr) : 0;
    r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, BODY_MAX_XATTR);
    if (r != 0)
        return r;
    do {
        struct dfs_inode in;
        struct dfs_rec rec = {.type = DFS_REC_SETATTR,
                              .ino = ino,
                              .valid = rest & ~(uint32_t)(DFS_SET_ATIME_NOW | DFS_SET_MTIME_NOW),
                              .mode = sa->mode & 07777,
                              .uid = sa->uid,
                              .gid = sa->gid,
                              .atime = sa->atime,
                              .mtime = sa->mtime};
        dfs_now(st, &rec.time);
        if (rest & DFS_SET_ATIME_NOW) {
            rec.atime = rec.time;
            rec.valid |= DFS_SET_ATIME;
        }
        if (rest & DFS_SET_MTIME_NOW) {
            rec.mtime = rec.time;
            rec.valid |= DFS_SET_MTIME;
        }
        if (rest & DFS_SET_CTIME)
            rec.time = sa->ctime;
        else if (rest != DFS_SET_ATIME) /* the mount's lazy atime is no change of the inode */
            rec.valid |= DFS_SET_CTIME;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0 && rest & (DFS_SET_UID | DFS_SET_GID | DFS_SET_KILL_SUID))
            r = dfs_drop_capability(&tx, ino);
        if (r == 0 && rest & DFS_SET_MODE)
            r = chmod_acl(&tx, ino, rec.mode, acl, &rec);
        if (r == 0)
            r = dfs_txn_commit(&tx, &rec);
        if (r == 0 && attr) {
            dfs_inode_get(&tx, ino, &in);
            dfs_inode_attr(ino, &in, attr);
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

ssize_t dfs_readlink(struct dfs_store *st, uint64_t ino, char *buf, size_t size) {
    struct dfs_txn tx;
    ssize_t n = 0;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode in;
        struct dfs_iter it;
        struct dfs_extent e;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0 && !S_ISLNK(in.mode))
            r = -EINVAL;
        if (r != 0)
            continue;
        r = dfs_extent_find(&tx, ino, 0, &it, &e);
        if (r == -ENOENT || (r == 0 && e.type != DFS_EXTENT_INLINE))
            r = -EUCLEAN;
        if (r != 0)
            continue;
        n = (ssize_t)e.data_len;
        if (size < e.data_len + 1) {
            r = -ENAMETOOLONG;
            continue;
        }
        memcpy(buf, e.data, e.data_len);
        buf[e.data_len] = 0;
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    return r == 0 ? n : r;
}

/* ---- extended attributes -------------------------------------------------------------------------------------- */

static int name_ok(const char *name) {
    const size_t len = strlen(name);
    return len == 0 ? -EINVAL : len > DFS_XATTR_NAME_MAX ? -ERANGE : 0;
}

ssize_t dfs_getxattr(struct dfs_store *st, uint64_t ino, const char *name, void *buf, size_t size) {
    struct dfs_txn tx;
    ssize_t n = 0;
    int r = name_ok(name);
    if (r != 0)
        return r;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    do {
        struct dfs_inode in;
        struct dfs_key key;
        struct dfs_xattr_item x;
        r = dfs_inode_get(&tx, ino, &in);
        if (r != 0)
            continue;
        r = dfs_xattr_find(&tx, ino, name, strlen(name), &key, &x);
        if (r == -ENOENT)
            r = -ENODATA;
        if (r != 0)
            continue;
        n = (ssize_t)x.value_len;
        if (size != 0 && size < x.value_len)
            r = -ERANGE;
        else if (size != 0 && x.value_len)
            memcpy(buf, x.value, x.value_len);
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    return r == 0 ? n : r;
}

/* Sums up names (with their NUL) and copies what fits into buf. */
static int list_names(struct dfs_txn *tx, uint64_t ino, char *buf, size_t size, size_t *total) {
    const struct dfs_key key = {.ino = ino, .kind = DFS_KIND_XATTR, .off = 0};
    struct dfs_iter it;
    *total = 0;
    int r;
    for (r = dfs_iter_seek(&it, tx, DFS_TREE_META, &key); r == 0; r = dfs_iter_next(&it)) {
        const struct dfs_key k = dfs_iter_key(&it);
        if (k.ino != ino || k.kind != DFS_KIND_XATTR)
            break;
        struct dfs_xattr_item x;
        size_t len;
        const void *val = dfs_iter_val(&it, &len);
        if (!dfs_xattr_parse(val, len, &x))
            return -EUCLEAN;
        if (*total + x.name_len + 1 <= size) {
            memcpy(buf + *total, x.name, x.name_len);
            buf[*total + x.name_len] = 0;
        }
        *total += x.name_len + 1;
    }
    return r == -ENOENT ? 0 : r;
}

ssize_t dfs_listxattr(struct dfs_store *st, uint64_t ino, char *buf, size_t size) {
    struct dfs_txn tx;
    size_t total = 0;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode in;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0)
            r = list_names(&tx, ino, buf, size, &total);
        if (r == 0 && size != 0 && size < total)
            r = -ERANGE;
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    return r == 0 ? (ssize_t)total : r;
}

/* Names of one inode together stay listable (listxattr(2) gives at most 64 KiB). */
#define NAMES_MAX 65536u

int dfs_setxattr(struct dfs_store *st, uint64_t ino, const char *name, const void *value, size_t size, int flags,
                 bool kill_sgid) {
    struct dfs_txn tx;
    int r = name_ok(name);
    if (r != 0)
        return r;
    if (size > DFS_XATTR_VALUE_MAX)
        return -E2BIG;
    if (size > DFS_XATTR_STORED_MAX)
        return -ENOSPC;
    const bool access = strcmp(name, DFS_ACL_ACCESS) == 0, deflt = strcmp(name, DFS_ACL_DEFAULT) == 0;
    if ((access || deflt) && !dfs_acl_valid(value, size))
        return -EINVAL;
    r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, BODY_MAX_XATTR);
    if (r != 0)
        return r;
    do {
        struct dfs_inode in;
        struct dfs_key key;
        bool minimal = false;
        size_t names;
        struct dfs_rec rec = {.type = DFS_REC_SETXATTR,
                              .ino = ino,
                              .name = name,
                              .name_len = (uint16_t)strlen(name),
                              .data = value,
                              .data_len = (uint32_t)size};
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0 && deflt && !S_ISDIR(in.mode))
            r = -EACCES;
        if (r != 0)
            continue;
        r = dfs_xattr_find(&tx, ino, name, strlen(name), &key, NULL);
        const bool there = r == 0;
        if (r == -ENOENT)
            r = flags & XATTR_REPLACE ? -ENODATA : 0;
        else if (r == 0 && flags & XATTR_CREATE)
            r = -EEXIST;
        if (r == 0 && !there) {
            r = list_names(&tx, ino, NULL, 0, &names);
            if (r == 0 && names + strlen(name) + 1 > NAMES_MAX)
                r = -ENOSPC;
        }
        if (r != 0)
            continue;
        if (access) {
            rec.valid = DFS_SET_MODE;
            rec.mode = in.mode;
            dfs_acl_to_mode(value, size, &rec.mode, &minimal);
            if (kill_sgid)
                rec.mode &= ~(uint32_t)S_ISGID;
        }
        dfs_now(st, &rec.time);
        if (minimal && there) { /* no more than a mode: no attribute is kept */
            rec.type = DFS_REC_RMXATTR;
            rec.data_len = 0;
        } else if (minimal) {
            rec = (struct dfs_rec){.type = DFS_REC_SETATTR,
                                   .ino = ino,
                                   .valid = DFS_SET_MODE | DFS_SET_CTIME,
                                   .mode = rec.mode,
                                   .time = rec.time};
        }
        r = dfs_txn_commit(&tx, &rec);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

int dfs_removexattr(struct dfs_store *st, uint64_t ino, const char *name) {
    struct dfs_txn tx;
    int r = name_ok(name);
    if (r == 0)
        r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, BODY_MAX_XATTR);
    if (r != 0)
        return r;
    do {
        struct dfs_inode in;
        struct dfs_key key;
        struct dfs_rec rec = {.type = DFS_REC_RMXATTR, .ino = ino, .name = name, .name_len = (uint16_t)strlen(name)};
        r = dfs_inode_get(&tx, ino, &in);
        if (r != 0)
            continue;
        r = dfs_xattr_find(&tx, ino, name, strlen(name), &key, NULL);
        if (r == -ENOENT)
            r = -ENODATA;
        dfs_now(st, &rec.time);
        if (r == 0)
            r = dfs_txn_commit(&tx, &rec);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}
