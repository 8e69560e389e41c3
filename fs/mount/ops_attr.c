/* Requests about attributes, extended attributes and the volume; access times. */
#include <sys/mount.h>

#include "common/util.h"
#include "fs/mount/session.h"

void dfs_attr_to_stat(const struct dfs_attr *a, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_ino = a->ino;
    st->st_mode = a->mode;
    st->st_nlink = a->nlink;
    st->st_uid = a->uid;
    st->st_gid = a->gid;
    st->st_rdev = a->rdev;
    st->st_size = (off_t)a->size;
    st->st_blocks = (blkcnt_t)a->blocks;
    st->st_blksize = 4096;
    st->st_atim = a->atime;
    st->st_mtim = a->mtime;
    st->st_ctim = a->ctime;
}

void dfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)fi;
    struct dfs_attr a;
    struct stat st;
    const int r = dfs_getattr(dfs_session_of(req)->st, ino, &a);
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    dfs_attr_to_stat(&a, &st);
    fuse_reply_attr(req, &st, DFS_TIMEOUT);
}

static bool later(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* A slot remembers an inode and the hour in which its access time was found good, until it is written. */
void dfs_atime_read(struct dfs_session *s, uint64_t ino) {
    struct timespec now;
    struct dfs_attr a;
    if (s->read_only || s->o->atime == DFS_ATIME_NONE)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    _Atomic uint64_t *slot = &s->atime_slot[ino % DFS_ATIME_SLOTS];
    const uint64_t seen = ino << 8 | ((uint64_t)(now.tv_sec / 3600) & 0xff);
    const bool strict = s->o->atime == DFS_ATIME_STRICT;
    if (!strict && atomic_load_explicit(slot, memory_order_relaxed) == seen)
        return;
    if (!strict)
        atomic_store_explicit(slot, seen, memory_order_relaxed);
    if (dfs_getattr(s->st, ino, &a) < 0 || (S_ISDIR(a.mode) && s->o->nodiratime))
        return;
    if (!strict && later(&a.atime, &a.mtime) && later(&a.atime, &a.ctime) && now.tv_sec - a.atime.tv_sec < 86400)
        return;
    const struct dfs_setattr sa = {.valid = DFS_SET_ATIME | DFS_SET_CTIME, .atime = now, .ctime = a.ctime};
    dfs_setattr(s->st, ino, &sa, &a); /* without space or so, the old time stays */
}

void dfs_op_statfs(fuse_req_t req, fuse_ino_t ino) {
    (void)ino;
    struct dfs_statfs f;
    const int r = dfs_statfs(dfs_session_of(req)->st, &f);
    if (r < 0) {
        fuse_reply_err(req, -r);
        return;
    }
    const struct statvfs v = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = f.bytes_total / 4096,
        .f_bfree = f.bytes_free / 4096,
        .f_bavail = f.bytes_free / 4096,
        .f_files = f.files + f.bytes_free / 4096,
        .f_ffree = f.bytes_free / 4096,
        .f_favail = f.bytes_free / 4096,
        .f_namemax = DFS_NAME_MAX,
    };
    fuse_reply_statfs(req, &v);
}

static void reply_value(fuse_req_t req, ssize_t n, size_t size, const char *buf) {
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else if (!size)
        fuse_reply_xattr(req, (size_t)n);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

void dfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size) {
    char *buf = dfs_session_worker()->buf;
    const ssize_t n = dfs_getxattr(dfs_session_of(req)->st, ino, name, buf, DFS_MIN(size, DFS_XATTR_VALUE_MAX));
    reply_value(req, n, size, buf);
}

void dfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size) {
    char *buf = dfs_session_worker()->buf;
    const ssize_t n = dfs_listxattr(dfs_session_of(req)->st, ino, buf, DFS_MIN(size, DFS_REQUEST_DATA_MAX));
    reply_value(req, n, size, buf);
}

void dfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name) {
    fuse_reply_err(req, -dfs_removexattr(dfs_session_of(req)->st, ino, name));
}
