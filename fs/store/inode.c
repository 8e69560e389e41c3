/* Reading and writing single items of the metadata tree: inodes, directory entries, extended attributes. */
#include <assert.h>
#include <sys/stat.h>

#include "common/hash.h"
#include "fs/store/internal.h"

#define COLLISIONS 128u

struct dfs_key dfs_key_inode(uint64_t ino) {
    return (struct dfs_key){.ino = ino, .kind = DFS_KIND_INODE, .off = 0};
}

static struct timespec time_get(const struct dfs_time_disk *t) {
    return (struct timespec){(time_t)(int64_t)le64toh((uint64_t)t->sec), (long)le32toh(t->nsec)};
}
static struct dfs_time_disk time_put(const struct timespec *t) {
    return (struct dfs_time_disk){.sec = (int64_t)htole64((uint64_t)(int64_t)t->tv_sec),
                                  .nsec = htole32((uint32_t)t->tv_nsec)};
}

int dfs_inode_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const struct dfs_key key = dfs_key_inode(ino);
    const void *val;
    size_t len;
    const int r = dfs_tree_get(tx, DFS_TREE_META, &key, &val, &len);
    if (r != 0)
        return r;
    struct dfs_inode_disk d;
    if (len != sizeof d)
        return -EUCLEAN;
    memcpy(&d, val, sizeof d);
    *in = (struct dfs_inode){
        .size = le64toh(d.size),
        .pages = le64toh(d.pages),
        .rdev = le64toh(d.rdev),
        .generation = le64toh(d.generation),
        .parent = le64toh(d.parent),
        .entries = le64toh(d.entries),
        .mode = le32toh(d.mode),
        .nlink = le32toh(d.nlink),
        .uid = le32toh(d.uid),
        .gid = le32toh(d.gid),
        .atime = time_get(&d.atime),
        .mtime = time_get(&d.mtime),
        .ctime = time_get(&d.ctime),
        .btime = time_get(&d.btime),
    };
    return 0;
}

void dfs_inode_put(struct dfs_txn *tx, uint64_t ino, const struct dfs_inode *in) {
    const struct dfs_key key = dfs_key_inode(ino);
    const struct dfs_inode_disk d = {
        .size = htole64(in->size),
        .pages = htole64(in->pages),
        .rdev = htole64(in->rdev),
        .generation = htole64(in->generation),
        .parent = htole64(in->parent),
        .entries = htole64(in->entries),
        .mode = htole32(in->mode),
        .nlink = htole32(in->nlink),
        .uid = htole32(in->uid),
        .gid = htole32(in->gid),
        .atime = time_put(&in->atime),
        .mtime = time_put(&in->mtime),
        .ctime = time_put(&in->ctime),
        .btime = time_put(&in->btime),
    };
    memcpy(dfs_tree_put(tx, DFS_TREE_META, &key, sizeof d), &d, sizeof d);
}

void dfs_inode_attr(uint64_t ino, const struct dfs_inode *in, struct dfs_attr *attr) {
    *attr = (struct dfs_attr){
        .ino = ino,
        .size = in->size,
        .blocks = in->pages * (DFS_PAGE / 512),
        .rdev = in->rdev,
        .generation = in->generation,
        .mode = in->mode,
        .nlink = in->nlink,
        .uid = in->uid,
        .gid = in->gid,
        .atime = in->atime,
        .mtime = in->mtime,
        .ctime = in->ctime,
        .btime = in->btime,
    };
}

void dfs_inode_kill_suid(struct dfs_inode *in) {
    if (!S_ISREG(in->mode))
        return;
    in->mode &= ~(uint32_t)S_ISUID;
    if (in->mode & S_IXGRP)
        in->mode &= ~(uint32_t)S_ISGID;
}

int dfs_name_check(const char *name, size_t len) {
    if (len > DFS_NAME_MAX)
        return -ENAMETOOLONG;
    if (len == 0 || memchr(name, '/', len) || memchr(name, 0, len))
        return -EINVAL;
    if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
        return -EINVAL;
    return 0;
}

uint64_t dfs_name_hash(const struct dfs_store *st, const char *name, size_t len) {
    const uint64_t h = dfs_hash64(name, len, st->hash_seed) >> 8;
    return (h ? h : 1) << 7;
}

/* ---- directory entries ---------------------------------------------------------------------------------------- */

bool dfs_dirent_parse(const void *val, size_t len, struct dfs_dirent_item *e) {
    struct dfs_dirent_disk d;
    if (len < sizeof d)
        return false;
    memcpy(&d, val, sizeof d);
    *e = (struct dfs_dirent_item){
        .ino = le64toh(d.ino),
        .type = le16toh(d.type),
        .name = (const char *)val + sizeof d,
        .len = d.len,
    };
    return len == sizeof d + d.len && d.len > 0 && e->ino != 0;
}

void dfs_dirent_put(struct dfs_txn *tx, const struct dfs_key *key, const struct dfs_dirent_item *e) {
    assert(e->len > 0 && e->len <= DFS_NAME_MAX);
    const struct dfs_dirent_disk d = {
        .ino = htole64(e->ino), .type = htole16((uint16_t)(e->type & S_IFMT)), .len = (uint8_t)e->len};
    uint8_t *out = dfs_tree_put(tx, DFS_TREE_META, key, sizeof d + e->len);
    memcpy(out, &d, sizeof d);
    memcpy(out + sizeof d, e->name, e->len);
}

/* Names that hash alike stand side by side; a new one takes the first free number among them. Calls `match` on each. */
static int find_hashed(struct dfs_txn *tx, uint64_t ino, uint8_t kind, uint64_t hash, struct dfs_key *key,
                       int (*match)(void *arg, const void *val, size_t len), void *arg) {
    *key = (struct dfs_key){.ino = ino, .kind = kind, .off = hash};
    struct dfs_iter it;
    uint64_t free_off = hash;
    int r = dfs_iter_seek(&it, tx, DFS_TREE_META, key);
    while (r == 0) {
        const struct dfs_key k = dfs_iter_key(&it);
        if (k.ino != ino || k.kind != kind || k.off >= hash + COLLISIONS)
            break;
        size_t len;
        const void *val = dfs_iter_val(&it, &len);
        const int m = match(arg, val, len);
        if (m < 0)
            return m;
        if (m > 0) {
            *key = k;
            return 0;
        }
        if (k.off == free_off)
            free_off++;
        r = dfs_iter_next(&it);
    }
    if (r != 0 && r != -ENOENT)
        return r;
    key->off = free_off;
    return free_off < hash + COLLISIONS ? -ENOENT : -ENOSPC;
}

struct dirent_match {
    const char *name;
    size_t len;
    struct dfs_dirent_item *e;
};

static int match_dirent(void *arg, const void *val, size_t len) {
    struct dirent_match *m = arg;
    if (!dfs_dirent_parse(val, len, m->e))
        return -EUCLEAN;
    return m->e->len == m->len && memcmp(m->e->name, m->name, m->len) == 0;
}

int dfs_dirent_find(struct dfs_txn *tx, uint64_t dir, const char *name, size_t len, struct dfs_key *key,
                    struct dfs_dirent_item *e) {
    struct dfs_dirent_item dummy;
    struct dirent_match m = {name, len, e ? e : &dummy};
    return find_hashed(tx, dir, DFS_KIND_DIRENT, dfs_name_hash(tx->st, name, len), key, match_dirent, &m);
}

/* ---- extended attributes -------------------------------------------------------------------------------------- */

bool dfs_xattr_parse(const void *val, size_t len, struct dfs_xattr_item *x) {
    struct dfs_xattr_disk d;
    if (len < sizeof d)
        return false;
    memcpy(&d, val, sizeof d);
    *x = (struct dfs_xattr_item){
        .name = (const char *)val + sizeof d,
        .value = (const uint8_t *)val + sizeof d + d.name_len,
        .name_len = d.name_len,
        .value_len = le16toh(d.value_len),
    };
    return len == sizeof d + x->name_len + x->value_len && x->name_len > 0;
}

void dfs_xattr_put(struct dfs_txn *tx, const struct dfs_key *key, const struct dfs_xattr_item *x) {
    assert(x->name_len <= DFS_XATTR_NAME_MAX && x->value_len <= DFS_XATTR_STORED_MAX);
    const struct dfs_xattr_disk d = {.value_len = htole16((uint16_t)x->value_len), .name_len = (uint8_t)x->name_len};
    uint8_t *out = dfs_tree_put(tx, DFS_TREE_META, key, sizeof d + x->name_len + x->value_len);
    memcpy(out, &d, sizeof d);
    memcpy(out + sizeof d, x->name, x->name_len);
    if (x->value_len)
        memcpy(out + sizeof d + x->name_len, x->value, x->value_len);
}

struct xattr_match {
    const char *name;
    size_t len;
    struct dfs_xattr_item *x;
};

static int match_xattr(void *arg, const void *val, size_t len) {
    struct xattr_match *m = arg;
    if (!dfs_xattr_parse(val, len, m->x))
        return -EUCLEAN;
    return m->x->name_len == m->len && memcmp(m->x->name, m->name, m->len) == 0;
}

int dfs_xattr_find(struct dfs_txn *tx, uint64_t ino, const char *name, size_t len, struct dfs_key *key,
                   struct dfs_xattr_item *x) {
    struct dfs_xattr_item dummy;
    struct xattr_match m = {name, len, x ? x : &dummy};
    return find_hashed(tx, ino, DFS_KIND_XATTR, dfs_name_hash(tx->st, name, len), key, match_xattr, &m);
}
