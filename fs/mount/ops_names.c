/* Requests that name things: look-ups, making, removing, renaming, listing. */
#include "common/util.h"
#include "fs/mount/session.h"

/* Counts before answering: the kernel may forget as soon as it has the reply. */
static int count_entry(struct dfs_session *s, const struct dfs_attr *a, struct fuse_entry_param *e) {
    memset(e, 0, sizeof *e);
    e->ino = a->ino;
    e->generation = a->generation;
    e->attr_timeout = e->entry_timeout = DFS_TIMEOUT;
    dfs_attr_to_stat(a, &e->attr);
    return dfs_lookups_add(s->lookups, a->ino, 1);
}

static void reply_entry(fuse_req_t req, int r, const struct dfs_attr *a) {
    struct dfs_session *s = dfs_session_of(req);
    struct fuse_entry_param e;
    if (r == 0)
        r = count_entry(s, a, &e);
    if (r < 0)
        fuse_reply_err(req, -r);
    else if (fuse_reply_entry(req, &e) < 0)
        dfs_session_forget(s, a->ino, 1);
}

void dfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct dfs_session *s = dfs_session_of(req);
    struct dfs_attr a;
    int r;
    if (strcmp(name, ".") == 0) { /* a file handle is opened again */
        r = dfs_getattr(s->st, parent, &a);
        if (r == -ENOENT || (r == 0 && a.nlink == 0 && !dfs_lookups_get(s->lookups, parent)))
            r = -ESTALE;
    } else if (strcmp(name, "..") == 0) {
        r = -ESTALE;
    } else {
        r = dfs_lookup(s->st, parent, name, strlen(name), &a);
        if (r == -ENOENT) { /* remembered by the kernel: nobody else can make it */
            const struct fuse_entry_param none = {.entry_timeout = DFS_TIMEOUT};
            fuse_reply_entry(req, &none);
            return;
        }
    }
    reply_entry(req, r, &a);
}

void dfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n) {
    dfs_session_forget(dfs_session_of(req), ino, n);
    fuse_reply_none(req);
}

void dfs_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets) {
    for (size_t i = 0; i < count; i++)
        dfs_session_forget(dfs_session_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void dfs_op_readlink(fuse_req_t req, fuse_ino_t ino) {
    struct dfs_session *s = dfs_session_of(req);
    char target[DFS_SYMLINK_MAX + 1];
    const ssize_t n = dfs_readlink(s->st, ino, target, sizeof target);
    if (n < 0) {
        fuse_reply_err(req, (int)-n);
        return;
    }
    dfs_atime_read(s, ino);
    fuse_reply_readlink(req, target);
}

static int make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev, const char *target,
                struct dfs_attr *a) {
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    const struct dfs_create c = {
        .mode = mode,
        .umask = S_ISLNK(mode) ? 0 : ctx->umask,
        .uid = ctx->uid,
        .gid = ctx->gid,
        .rdev = rdev,
        .target = target,
    };
    return dfs_create(dfs_session_of(req)->st, parent, name, strlen(name), &c, a);
}

void dfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    struct dfs_attr a;
    const int r = make(req, parent, name, mode, S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0, NULL, &a);
    reply_entry(req, r, &a);
}

void dfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    struct dfs_attr a;
    const int r = make(req, parent, name, (mode & 07777) | S_IFDIR, 0, NULL, &a);
    reply_entry(req, r, &a);
}

void dfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name) {
    struct dfs_attr a;
    const int r = make(req, parent, name, S_IFLNK | 0777, 0, target, &a);
    reply_entry(req, r, &a);
}

void dfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi) {
    struct dfs_session *s = dfs_session_of(req);
    struct dfs_attr a;
    struct fuse_entry_param e;
    int r = make(req, parent, name, (mode & 07777) | S_IFREG, 0, NULL, &a);
    if (r == -EEXIST && !(fi->flags & O_EXCL))
        r = dfs_lookup(s->st, parent, name, strlen(name), &a);
    if (r == 0)
        r = count_entry(s, &a, &e);
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    fi->keep_cache = 1;
    if (fuse_reply_create(req, &e, fi) < 0)
        dfs_session_forget(s, a.ino, 1);
}

static void reply_removed(fuse_req_t req, int r, const struct dfs_attr *a) {
    if (r == 0)
        dfs_session_unnamed(dfs_session_of(req), a);
    fuse_reply_err(req, -r);
}

void dfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct dfs_attr a;
    const int r = dfs_unlink(dfs_session_of(req)->st, parent, name, strlen(name), &a);
    reply_removed(req, r, &a);
}

void dfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct dfs_attr a;
    const int r = dfs_rmdir(dfs_session_of(req)->st, parent, name, strlen(name), &a);
    reply_removed(req, r, &a);
}

void dfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                   unsigned flags) {
    struct dfs_session *s = dfs_session_of(req);
    struct dfs_attr replaced = {0};
    const int r = dfs_rename(s->st, parent, name, strlen(name), newparent, newname, strlen(newname), flags, &replaced);
    if (r == 0 && replaced.ino && replaced.nlink == 0)
        dfs_session_unnamed(s, &replaced);
    fuse_reply_err(req, -r);
}

void dfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname) {
    struct dfs_attr a;
    const int r = dfs_link(dfs_session_of(req)->st, ino, newparent, newname, strlen(newname), &a);
    reply_entry(req, r, &a);
}

/* ---- listing ---- */

struct listing {
    fuse_req_t req;
    struct dfs_session *s;
    char *buf;
    size_t size, used;
    bool plus;
};

static bool is_dot(const char *name, size_t len) {
    return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static int list_one(void *arg, const struct dfs_dirent *d) {
    struct listing *l = arg;
    char name[DFS_NAME_MAX + 1];
    memcpy(name, d->name, d->len);
    name[d->len] = 0;
    char *at = l->buf + l->used;
    const size_t left = l->size - l->used;
    size_t n;
    if (!l->plus || is_dot(name, d->len)) {
        struct fuse_entry_param e = {.attr = {.st_ino = d->ino, .st_mode = d->type}};
        n = l->plus ? fuse_add_direntry_plus(l->req, at, left, name, &e, (off_t)d->cookie)
                    : fuse_add_direntry(l->req, at, left, name, &e.attr, (off_t)d->cookie);
        if (n > left)
            return 1;
    } else {
        struct fuse_entry_param e = {
            .ino = d->ino,
            .generation = d->attr->generation,
            .attr_timeout = DFS_TIMEOUT,
            .entry_timeout = DFS_TIMEOUT,
        };
        dfs_attr_to_stat(d->attr, &e.attr);
        n = fuse_add_direntry_plus(l->req, at, left, name, &e, (off_t)d->cookie);
        if (n > left)
            return 1;
        if (dfs_lookups_add(l->s->lookups, d->ino, 1) < 0)
            return 1;
    }
    l->used += n;
    return 0;
}

/* The reply did not arrive: the kernel knows none of these look-ups. */
static void uncount(const struct listing *l) {
    size_t at = 0;
    while (at + FUSE_NAME_OFFSET_DIRENTPLUS <= l->used) {
        struct fuse_direntplus d;
        memcpy(&d, l->buf + at, FUSE_NAME_OFFSET_DIRENTPLUS);
        if (d.entry_out.nodeid)
            dfs_session_forget(l->s, d.entry_out.nodeid, 1);
        at += FUSE_DIRENTPLUS_SIZE(&d);
    }
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus) {
    struct dfs_session *s = dfs_session_of(req);
    struct listing l = {
        .req = req,
        .s = s,
        .buf = dfs_session_worker()->buf,
        .size = DFS_MIN(size, (size_t)DFS_REQUEST_DATA_MAX),
        .plus = plus,
    };
    const int r = dfs_readdir(s->st, ino, (uint64_t)off, plus, list_one, &l);
    if (r < 0 && !l.used) {
        fuse_reply_err(req, -r);
        return;
    }
    if (off == 0)
        dfs_atime_read(s, ino);
    if (fuse_reply_buf(req, l.buf, l.used) < 0 && plus)
        uncount(&l);
}

void dfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    list(req, ino, size, off, false);
}

void dfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    list(req, ino, size, off, true);
}
