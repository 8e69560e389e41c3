/* Requests for bytes. WRITE is taken from the wire (wire.c): libfuse drops its kill-suid flag. */
#include "common/util.h"
#include "fs/mount/session.h"

void dfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    struct dfs_session *s = dfs_session_of(req);
    char *buf = dfs_session_worker()->buf;
    const ssize_t n = dfs_read(s->st, ino, (uint64_t)off, buf, DFS_MIN(size, (size_t)DFS_REQUEST_DATA_MAX));
    if (n < 0) {
        fuse_reply_err(req, (int)-n);
        return;
    }
    dfs_atime_read(s, ino);
    fuse_reply_buf(req, buf, (size_t)n);
}

void dfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    (void)fi;
    fuse_reply_err(req, -dfs_fsync(dfs_session_of(req)->st, ino, datasync));
}

void dfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi) {
    (void)fi;
    dfs_atime_written(dfs_session_of(req), ino);
    fuse_reply_err(req, -dfs_fallocate(dfs_session_of(req)->st, ino, mode, (uint64_t)off, (uint64_t)len));
}

void dfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi) {
    (void)fi;
    const int64_t at = dfs_seek(dfs_session_of(req)->st, ino, (uint64_t)off, whence);
    if (at < 0)
        fuse_reply_err(req, (int)-at);
    else
        fuse_reply_lseek(req, at);
}

void dfs_op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
                            off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags) {
    (void)fi_in, (void)fi_out;
    if (flags) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    /* The reply counts in 32 bits. */
    const size_t most = UINT32_MAX & ~(size_t)4095;
    dfs_atime_written(dfs_session_of(req), out);
    const ssize_t n = dfs_copy_range(dfs_session_of(req)->st, in, (uint64_t)off_in, out, (uint64_t)off_out,
                                     DFS_MIN(len, most));
    if (n < 0)
        fuse_reply_err(req, (int)-n);
    else
        fuse_reply_write(req, (size_t)n);
}

void dfs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
                  const void *in, size_t in_size, size_t out_size) {
    (void)ino, (void)cmd, (void)arg, (void)fi, (void)flags, (void)in, (void)in_size, (void)out_size;
    fuse_reply_err(req, ENOTTY);
}
