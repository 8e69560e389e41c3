/* One mounted volume: the store, libfuse's session, the worker threads and what the request handlers share.
 *
 * libfuse decodes the requests it knows (ops_*.c are its callbacks); those that its version lacks or drops fields of are
 * taken from the wire first (wire.c). Handlers run on any worker at the same time and keep no state of their own beyond
 * this struct: the look-up counts, counters and the table of access times have their own locks or are atomic.
 * start, run and free belong to the thread that runs the mount. */
#pragma once
#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fs/mount/lookups.h"
#include "fs/mount/options.h"
#include "fs/mount/transport.h"
#include "fs/store/store.h"

#define DFS_OPCODES 64u
#define DFS_ATIME_SLOTS 4096u
/* The mount is the only writer: what the kernel knows stays true. */
#define DFS_TIMEOUT 31536000.0

struct dfs_opcode_stats {
    _Atomic uint64_t count, ns, max_ns;
};

struct dfs_worker {
    struct dfs_session *s;
    struct dfs_lane *lane;
    pthread_t thread;
    bool started;
    char *buf; /* replies of READ and READDIR, DFS_REQUEST_DATA_MAX bytes */
};

struct dfs_session {
    const struct dfs_mount_options *o;
    struct dfs_store *st;
    struct fuse_session *fuse;
    struct dfs_lookups *lookups;
    struct dfs_transport *transport;
    struct dfs_worker *worker;
    unsigned workers;
    pthread_t main_thread;
    atomic_bool stop, ready;
    atomic_uint running;
    uint64_t init_flags; /* what the kernel offered */
    bool read_only;
    struct dfs_opcode_stats stats[DFS_OPCODES];
    _Atomic uint64_t atime_slot[DFS_ATIME_SLOTS]; /* inodes whose access time needs no look: see ops_attr.c */
};

/* `fd`, the mounted /dev/fuse, is the session's from then on, also on failure. */
int dfs_session_new(const struct dfs_mount_options *o, struct dfs_store *st, int fd, bool read_only,
                    struct dfs_session **out, struct dfs_err *err);
/* Answers INIT and starts the workers; those send SIGUSR2 to this thread when the mount has ended. */
int dfs_session_start(struct dfs_session *s, struct dfs_err *err);
/* Ends the workers, requests under way are finished first. */
void dfs_session_stop(struct dfs_session *s);
void dfs_session_free(struct dfs_session *s);

/* ---- for the handlers ---- */

extern const struct fuse_lowlevel_ops dfs_ops;

/* The calling worker. */
struct dfs_worker *dfs_session_worker(void);
static inline struct dfs_session *dfs_session_of(fuse_req_t req) {
    return fuse_req_userdata(req);
}

/* Takes a request that libfuse would not handle in full; false: it is libfuse's. */
bool dfs_wire_handle(struct dfs_worker *w, const char *req, size_t len);

void dfs_attr_to_stat(const struct dfs_attr *a, struct stat *st);
/* An inode was read or written: keeps its access time as the mount's options say, without making that durable. */
void dfs_atime_read(struct dfs_session *s, uint64_t ino);
static inline void dfs_atime_written(struct dfs_session *s, uint64_t ino) {
    atomic_store_explicit(&s->atime_slot[ino % DFS_ATIME_SLOTS], 0, memory_order_relaxed);
}
/* The kernel refers to `ino` n times less; lets go of it when it was the last time and it has no name. */
void dfs_session_forget(struct dfs_session *s, uint64_t ino, uint64_t n);
/* An inode may have lost its last name; where nobody refers to it, it goes now. */
void dfs_session_unnamed(struct dfs_session *s, const struct dfs_attr *a);

void dfs_op_init(void *userdata, struct fuse_conn_info *conn);
void dfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void dfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void dfs_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void dfs_op_readlink(fuse_req_t req, fuse_ino_t ino);
void dfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void dfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void dfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void dfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void dfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void dfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                   unsigned flags);
void dfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void dfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void dfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void dfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void dfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void dfs_op_statfs(fuse_req_t req, fuse_ino_t ino);
void dfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void dfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void dfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void dfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void dfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void dfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void dfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void dfs_op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
                            off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
void dfs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
                  const void *in, size_t in_size, size_t out_size);
