/* Applying records that change names, inodes and attributes. Each function looks first and changes then; see
 * dfs_apply(). */
#include <sys/stat.h>

#include "fs/store/acl.h"
#include "fs/store/internal.h"

static struct dfs_key orphan_key(uint64_t ino) {
    return (struct dfs_key){.ino = 0, .kind = DFS_KIND_ORPHAN, .off = ino};
}

static int orphan_prepare(struct dfs_txn *tx, uint64_t ino) {
    const struct dfs_key key = orphan_key(ino);
    return dfs_tree_prepare(tx, DFS_TREE_META, &key);
}
static void orphan_put(struct dfs_txn *tx, uint64_t ino) {
    const struct dfs_key key = orphan_key(ino);
    dfs_tree_put(tx, DFS_TREE_META, &key, 0);
}

/* What must be there for the record to fit; a record that names something missing is damage. */
static int must_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const int e = dfs_inode_get(tx, ino, in);
    return e == -ENOENT ? -EUCLEAN : e;
}
static int dir_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const int e = must_get(tx, ino, in);
    return e == 0 && !S_ISDIR(in->mode) ? -EUCLEAN : e;
}

static int entry_absent(struct dfs_txn *tx, uint64_t dir, const char *name, size_t len, struct dfs_key *key) {
    if (dfs_name_check(name, len) != 0)
        return -EUCLEAN;
    int e = dfs_dirent_find(tx, dir, name, len, key, NULL);
    if (e == 0)
        return -EUCLEAN;
    if (e == -ENOENT)
        e = dfs_tree_prepare(tx, DFS_TREE_META, key);
    return e;
}
static int entry_present(struct dfs_txn *tx, uint64_t dir, const char *name, size_t len, uint64_t ino,
                         struct dfs_key *key) {
    struct dfs_dirent_item d;
    if (dfs_name_check(name, len) != 0)
        return -EUCLEAN;
    const int e = dfs_dirent_find(tx, dir, name, len, key, &d);
    if (e != 0)
        return e == -ENOENT ? -EUCLEAN : e;
    return d.ino == ino ? 0 : -EUCLEAN;
}

/* ---- creating ------------------------------------------------------------------------------------------------- */

/* The ACLs that a CREATE carries: two lengths, then access and default ACL. */
struct acls {
    const uint8_t *data[2];
    uint16_t len[2];
    struct dfs_key key[2];
};
static const char *const acl_names[2] = {DFS_ACL_ACCESS, DFS_ACL_DEFAULT};

static int acls_prepare(struct dfs_txn *tx, const struct dfs_rec *r, struct acls *a) {
    const uint8_t *p = r->data;
    a->len[0] = a->len[1] = 0;
    if (r->data_len == 0)
        return 0;
    if (r->data_len < 4)
        return -EUCLEAN;
    a->len[0] = dfs_get_le16(p);
    a->len[1] = dfs_get_le16(p + 2);
    if (4u + a->len[0] + a->len[1] != r->data_len || a->len[0] > DFS_XATTR_STORED_MAX || a->len[1] > DFS_XATTR_STORED_MAX)
        return -EUCLEAN;
    a->data[0] = p + 4;
    a->data[1] = p + 4 + a->len[0];
    for (int i = 0; i < 2; i++) {
        a->key[i] = (struct dfs_key){.ino = r->ino,
                                     .kind = DFS_KIND_XATTR,
                                     .off = dfs_name_hash(tx->st, acl_names[i], strlen(acl_names[i]))};
        const int e = dfs_tree_prepare(tx, DFS_TREE_META, &a->key[i]);
        if (e != 0)
            return e;
    }
    return 0;
}

static void acls_put(struct dfs_txn *tx, const struct acls *a) {
    for (int i = 0; i < 2; i++)
        if (a->len[i]) {
            const struct dfs_xattr_item x = {
                .name = acl_names[i], .name_len = strlen(acl_names[i]), .value = a->data[i], .value_len = a->len[i]};
            dfs_xattr_put(tx, &a->key[i], &x);
        }
}

int dfs_apply_create(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_store *st = tx->st;
    const bool named = r->type == DFS_REC_CREATE, is_dir = S_ISDIR(r->mode), is_link = S_ISLNK(r->mode);
    struct dfs_inode dir, in;
    struct dfs_key key;
    struct acls acls = {.len = {0, 0}};
    const struct dfs_key ikey = dfs_key_inode(r->ino);
    if (r->ino < st->next_ino || r->ino == UINT64_MAX || (!named && !S_ISREG(r->mode)))
        return -EUCLEAN;
    if (is_link && (r->data_len == 0 || r->data_len > DFS_SYMLINK_MAX))
        return -EUCLEAN;
    int e = dfs_inode_get(tx, r->ino, &in);
    if (e == 0)
        return -EUCLEAN;
    if (e != -ENOENT)
        return e;
    e = dfs_tree_prepare(tx, DFS_TREE_META, &ikey);
    if (e == 0)
        e = dir_get(tx, r->dir, &dir);
    if (e == 0)
        e = named ? entry_absent(tx, r->dir, r->name, r->name_len, &key) : orphan_prepare(tx, r->ino);
    if (e == 0 && is_link)
        e = dfs_extent_prepare_put(tx, r->ino, 0);
    if (e == 0 && !is_link)
        e = acls_prepare(tx, r, &acls);
    if (e != 0)
        return e;

    in = (struct dfs_inode){
        .size = is_link ? r->data_len : 0,
        .rdev = r->rdev,
        .generation = r->generation,
        .parent = r->dir,
        .mode = r->mode,
        .nlink = !named ? 0 : is_dir ? 2 : 1,
        .uid = r->uid,
        .gid = r->gid,
        .atime = r->time,
        .mtime = r->time,
        .ctime = r->time,
        .btime = r->time,
    };
    dfs_inode_put(tx, r->ino, &in);
    if (is_link) {
        const struct dfs_extent x = {
            .len = DFS_PAGE, .type = DFS_EXTENT_INLINE, .data = r->data, .data_len = r->data_len};
        dfs_extent_put(tx, r->ino, &x);
    }
    acls_put(tx, &acls);
    if (named) {
        const struct dfs_dirent_item d = {.ino = r->ino, .type = r->mode, .name = r->name, .len = r->name_len};
        dfs_dirent_put(tx, &key, &d);
        dir.entries++;
        dir.nlink += is_dir;
        dir.mtime = dir.ctime = r->time;
        dfs_inode_put(tx, r->dir, &dir);
    } else {
        orphan_put(tx, r->ino);
    }
    st->next_ino = r->ino + 1;
    st->files++;
    return 0;
}

int dfs_apply_link(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode dir, in;
    struct dfs_key key;
    const struct dfs_key okey = orphan_key(r->ino);
    const void *val;
    size_t len;
    int e = must_get(tx, r->ino, &in);
    if (e == 0 && S_ISDIR(in.mode))
        return -EUCLEAN;
    if (e == 0)
        e = dir_get(tx, r->dir, &dir);
    if (e == 0)
        e = entry_absent(tx, r->dir, r->name, r->name_len, &key);
    if (e == 0 && in.nlink == 0) {
        e = dfs_tree_get(tx, DFS_TREE_META, &okey, &val, &len);
        if (e == -ENOENT)
            e = -EUCLEAN;
    }
    if (e != 0)
        return e;

    if (in.nlink == 0)
        dfs_tree_del(tx, DFS_TREE_META, &okey);
    in.nlink++;
    in.parent = r->dir;
    in.ctime = r->time;
    dfs_inode_put(tx, r->ino, &in);
    const struct dfs_dirent_item d = {.ino = r->ino, .type = in.mode, .name = r->name, .len = r->name_len};
    dfs_dirent_put(tx, &key, &d);
    dir.entries++;
    dir.mtime = dir.ctime = r->time;
    dfs_inode_put(tx, r->dir, &dir);
    return 0;
}

/* ---- removing ------------------------------------------------------------------------------------------------- */

/* The inode loses a name. Directories lose their only one and must be empty. */
static void lose_name(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in, const struct timespec *now) {
    in->nlink = S_ISDIR(in->mode) ? 0 : in->nlink - 1;
    in->ctime = *now;
    dfs_inode_put(tx, ino, in);
    if (in->nlink == 0)
        orphan_put(tx, ino);
}
static bool can_lose_name(const struct dfs_inode *in) {
    return in->nlink > 0 && (!S_ISDIR(in->mode) || in->entries == 0);
}

int dfs_apply_unlink(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode dir, in;
    struct dfs_key key;
    int e = dir_get(tx, r->dir, &dir);
    if (e == 0)
        e = entry_present(tx, r->dir, r->name, r->name_len, r->ino, &key);
    if (e == 0)
        e = must_get(tx, r->ino, &in);
    if (e == 0)
        e = orphan_prepare(tx, r->ino);
    if (e != 0)
        return e;
    if (!can_lose_name(&in) || dir.entries == 0)
        return -EUCLEAN;

    dfs_tree_del(tx, DFS_TREE_META, &key);
    dir.entries--;
    dir.nlink -= S_ISDIR(in.mode) ? 1 : 0;
    dir.mtime = dir.ctime = r->time;
    dfs_inode_put(tx, r->dir, &dir);
    lose_name(tx, r->ino, &in, &r->time);
    return 0;
}

/* ---- renaming ------------------------------------------------------------------------------------------------- */

/* One inode may play several parts in a rename (both directories are one); changes go through this little table. */
struct cast {
    uint64_t ino[4];
    struct dfs_inode in[4];
    unsigned n;
};

static int cast_get(struct dfs_txn *tx, struct cast *c, uint64_t ino, struct dfs_inode **in) {
    for (unsigned i = 0; i < c->n; i++)
        if (c->ino[i] == ino) {
            *in = &c->in[i];
            return 0;
        }
    const int e = must_get(tx, ino, &c->in[c->n]);
    if (e == 0) {
        c->ino[c->n] = ino;
        *in = &c->in[c->n++];
    }
    return e;
}

static int rename_exchange(struct dfs_txn *tx, const struct dfs_rec *r, struct cast *c, struct dfs_inode *d1,
                           struct dfs_inode *d2, struct dfs_inode *i1) {
    struct dfs_key k1, k2;
    struct dfs_inode *i2;
    int e = entry_present(tx, r->dir, r->name, r->name_len, r->ino, &k1);
    if (e == 0)
        e = entry_present(tx, r->dir2, r->name2, r->name2_len, r->ino2, &k2);
    if (e == 0)
        e = cast_get(tx, c, r->ino2, &i2);
    if (e != 0)
        return e;
    const struct dfs_dirent_item e1 = {.ino = r->ino2, .type = i2->mode, .name = r->name, .len = r->name_len};
    const struct dfs_dirent_item e2 = {.ino = r->ino, .type = i1->mode, .name = r->name2, .len = r->name2_len};
    dfs_dirent_put(tx, &k1, &e1);
    dfs_dirent_put(tx, &k2, &e2);
    if (S_ISDIR(i1->mode)) {
        d1->nlink--;
        d2->nlink++;
    }
    if (S_ISDIR(i2->mode)) {
        d2->nlink--;
        d1->nlink++;
    }
    i1->parent = r->dir2;
    i2->parent = r->dir;
    i1->ctime = i2->ctime = r->time;
    d1->mtime = d1->ctime = d2->mtime = d2->ctime = r->time;
    for (unsigned i = 0; i < c->n; i++)
        dfs_inode_put(tx, c->ino[i], &c->in[i]);
    return 0;
}

int dfs_apply_rename(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct cast c = {.n = 0};
    struct dfs_inode *d1, *d2, *i1, *i2 = NULL;
    struct dfs_key k1, k2;
    int e = cast_get(tx, &c, r->dir, &d1);
    if (e == 0)
        e = cast_get(tx, &c, r->dir2, &d2);
    if (e == 0)
        e = cast_get(tx, &c, r->ino, &i1);
    if (e != 0)
        return e;
    if (!S_ISDIR(d1->mode) || !S_ISDIR(d2->mode) || r->ino == r->dir || r->ino == r->dir2 || r->ino2 == r->dir ||
        r->ino2 == r->dir2 || r->ino == r->ino2)
        return -EUCLEAN;
    if (r->flags & DFS_RECF_EXCHANGE)
        return rename_exchange(tx, r, &c, d1, d2, i1);
    e = entry_present(tx, r->dir, r->name, r->name_len, r->ino, &k1);
    if (e == 0 && r->ino2)
        e = entry_present(tx, r->dir2, r->name2, r->name2_len, r->ino2, &k2);
    else if (e == 0)
        e = entry_absent(tx, r->dir2, r->name2, r->name2_len, &k2);
    if (e == 0 && r->ino2)
        e = cast_get(tx, &c, r->ino2, &i2);
    if (e == 0 && r->ino2)
        e = orphan_prepare(tx, r->ino2);
    if (e != 0)
        return e;
    if ((i2 && (!can_lose_name(i2) || S_ISDIR(i2->mode) != S_ISDIR(i1->mode))) || d1->entries == 0)
        return -EUCLEAN;

    const struct dfs_dirent_item d = {.ino = r->ino, .type = i1->mode, .name = r->name2, .len = r->name2_len};
    dfs_tree_del(tx, DFS_TREE_META, &k1);
    dfs_dirent_put(tx, &k2, &d);
    d1->entries--;
    if (!i2)
        d2->entries++;
    if (S_ISDIR(i1->mode)) {
        d1->nlink--;
        if (!i2)
            d2->nlink++;
    }
    d1->mtime = d1->ctime = d2->mtime = d2->ctime = r->time;
    i1->parent = r->dir2;
    i1->ctime = r->time;
    for (unsigned i = 0; i < c.n; i++)
        if (&c.in[i] != i2)
            dfs_inode_put(tx, c.ino[i], &c.in[i]);
    if (i2)
        lose_name(tx, r->ino2, i2, &r->time);
    return 0;
}

/* ---- attributes ----------------------------------------------------------------------------------------------- */

static int xattr_prepare(struct dfs_txn *tx, uint64_t ino, const char *name, size_t len, struct dfs_key *key) {
    int e = dfs_xattr_find(tx, ino, name, len, key, NULL);
    if (e == 0 || e == -ENOENT)
        e = dfs_tree_prepare(tx, DFS_TREE_META, key);
    return e;
}

int dfs_apply_setattr(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    struct dfs_key key;
    if (r->data_len > DFS_XATTR_STORED_MAX)
        return -EUCLEAN;
    int e = must_get(tx, r->ino, &in);
    if (e == 0 && r->data_len)
        e = xattr_prepare(tx, r->ino, DFS_ACL_ACCESS, strlen(DFS_ACL_ACCESS), &key);
    if (e != 0)
        return e;
    if (r->valid & DFS_SET_MODE)
        in.mode = (in.mode & S_IFMT) | (r->mode & 07777);
    if (r->valid & DFS_SET_UID)
        in.uid = r->uid;
    if (r->valid & DFS_SET_GID)
        in.gid = r->gid;
    if (r->valid & DFS_SET_KILL_SUID)
        dfs_inode_kill_suid(&in);
    if (r->valid & DFS_SET_ATIME)
        in.atime = r->atime;
    if (r->valid & DFS_SET_MTIME)
        in.mtime = r->mtime;
    if (r->valid & DFS_SET_CTIME)
        in.ctime = r->time;
    if (r->data_len) {
        const struct dfs_xattr_item x = {.name = DFS_ACL_ACCESS,
                                         .name_len = strlen(DFS_ACL_ACCESS),
                                         .value = r->data,
                                         .value_len = r->data_len};
        dfs_xattr_put(tx, &key, &x);
    }
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

int dfs_apply_setxattr(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    struct dfs_key key;
    if (r->name_len == 0 || r->name_len > DFS_XATTR_NAME_MAX || r->data_len > DFS_XATTR_STORED_MAX)
        return -EUCLEAN;
    int e = must_get(tx, r->ino, &in);
    if (e == 0)
        e = xattr_prepare(tx, r->ino, r->name, r->name_len, &key);
    if (e != 0)
        return e;
    const struct dfs_xattr_item x = {
        .name = r->name, .name_len = r->name_len, .value = r->data, .value_len = r->data_len};
    dfs_xattr_put(tx, &key, &x);
    if (r->valid & DFS_SET_MODE)
        in.mode = (in.mode & S_IFMT) | (r->mode & 07777);
    in.ctime = r->time;
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

int dfs_apply_rmxattr(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    struct dfs_key key;
    int e = must_get(tx, r->ino, &in);
    if (e == 0)
        e = dfs_xattr_find(tx, r->ino, r->name, r->name_len, &key, NULL);
    if (e != 0)
        return e == -ENOENT ? -EUCLEAN : e;
    dfs_tree_del(tx, DFS_TREE_META, &key);
    if (r->valid & DFS_SET_MODE)
        in.mode = (in.mode & S_IFMT) | (r->mode & 07777);
    in.ctime = r->time;
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}
