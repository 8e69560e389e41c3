#include "fs/mount/session.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include "common/log.h"
#include "common/util.h"

static _Thread_local struct dfs_worker *current;

const struct fuse_lowlevel_ops dfs_ops = {
    .init = dfs_op_init,
    .lookup = dfs_op_lookup,
    .forget = dfs_op_forget,
    .forget_multi = dfs_op_forget_multi,
    .readlink = dfs_op_readlink,
    .mknod = dfs_op_mknod,
    .mkdir = dfs_op_mkdir,
    .unlink = dfs_op_unlink,
    .rmdir = dfs_op_rmdir,
    .symlink = dfs_op_symlink,
    .rename = dfs_op_rename,
    .link = dfs_op_link,
    .create = dfs_op_create,
    .readdir = dfs_op_readdir,
    .readdirplus = dfs_op_readdirplus,
    .getattr = dfs_op_getattr,
    .statfs = dfs_op_statfs,
    .getxattr = dfs_op_getxattr,
    .listxattr = dfs_op_listxattr,
    .removexattr = dfs_op_removexattr,
    .read = dfs_op_read,
    .fsync = dfs_op_fsync,
    .fsyncdir = dfs_op_fsync,
    .fallocate = dfs_op_fallocate,
    .lseek = dfs_op_lseek,
    .copy_file_range = dfs_op_copy_file_range,
    .ioctl = dfs_op_ioctl,
};

struct dfs_worker *dfs_session_worker(void) {
    return current;
}

void dfs_session_forget(struct dfs_session *s, uint64_t ino, uint64_t n) {
    if (dfs_lookups_sub(s->lookups, ino, n) && ino != DFS_ROOT_INO && !s->read_only)
        dfs_release_orphan(s->st, ino);
}

void dfs_session_unnamed(struct dfs_session *s, const struct dfs_attr *a) {
    if (a->nlink == 0 && !dfs_lookups_get(s->lookups, a->ino))
        dfs_release_orphan(s->st, a->ino);
}

void dfs_op_init(void *userdata, struct fuse_conn_info *conn) {
    const struct dfs_session *s = userdata;
    unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | FUSE_CAP_IOCTL_DIR |
                    FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
                    FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS;
    if (s->o->writeback)
        want |= FUSE_CAP_WRITEBACK_CACHE;
    conn->want = want & conn->capable;
    conn->max_write = DFS_REQUEST_DATA_MAX;
    conn->max_readahead = DFS_REQUEST_DATA_MAX;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
}

/* The INIT reply, with the flags that libfuse does not know. */
static void extend_init(struct dfs_session *s, const struct iovec *iov, int count) {
    struct fuse_init_out *out = count == 2 ? iov[1].iov_base : NULL;
    if (!out || iov[1].iov_len < sizeof *out)
        return;
    out->flags |= (uint32_t)s->init_flags & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata) {
    (void)fd;
    struct dfs_session *s = userdata;
    ssize_t total = 0;
    for (int i = 0; i < count; i++)
        total += (ssize_t)iov[i].iov_len;
    if (!atomic_load_explicit(&s->ready, memory_order_relaxed))
        extend_init(s, iov, count);
    const int r = s->transport->ops->reply(current->lane, iov, count);
    if (r < 0) {
        errno = -r;
        return -1;
    }
    return total;
}

/* libfuse wants one, but requests are read by our own loop. */
static ssize_t io_read(int fd, void *buf, size_t len, void *userdata) {
    (void)userdata;
    return read(fd, buf, len);
}

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void account(struct dfs_opcode_stats *o, uint64_t ns) {
    atomic_fetch_add_explicit(&o->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&o->ns, ns, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&o->max_ns, memory_order_relaxed);
    while (ns > max && !atomic_compare_exchange_weak_explicit(&o->max_ns, &max, ns, memory_order_relaxed,
                                                              memory_order_relaxed)) {
    }
}

static void handle(struct dfs_worker *w, char *req, size_t len) {
    struct fuse_in_header h = {0};
    memcpy(&h, req, DFS_MIN(len, sizeof h));
    const uint64_t begin = now_ns();
    if (!dfs_wire_handle(w, req, len)) {
        const struct fuse_buf buf = {.size = len, .mem = req};
        fuse_session_process_buf(w->s->fuse, &buf);
    }
    if (h.opcode < DFS_OPCODES)
        account(&w->s->stats[h.opcode], now_ns() - begin);
}

static void *work(void *arg) {
    struct dfs_worker *w = arg;
    struct dfs_session *s = w->s;
    current = w;
    while (!atomic_load(&s->stop)) {
        char *req;
        const ssize_t n = s->transport->ops->receive(w->lane, &req);
        if (n > 0)
            handle(w, req, (size_t)n);
        else if (n == -ENODEV || (n < 0 && n != -EINTR && n != -EAGAIN && n != -ENOENT)) {
            if (n != -ENODEV)
                dfs_log(DFS_LOG_ERROR, "cannot read requests", "error=\"%s\"", strerror((int)-n));
            break;
        }
    }
    /* The last one out tells the mount's thread. */
    if (atomic_fetch_sub(&s->running, 1) == 1)
        pthread_kill(s->main_thread, SIGUSR2);
    return NULL;
}

int dfs_session_new(const struct dfs_mount_options *o, struct dfs_store *st, int fd, bool read_only,
                    struct dfs_session **out, struct dfs_err *err) {
    static const struct fuse_custom_io io = {.writev = io_writev, .read = io_read};
    char name[] = "mount.dfs", *argv[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    struct dfs_session *s = calloc(1, sizeof *s);
    if (!s) {
        close(fd);
        return dfs_err_sys(err, -ENOMEM, "session");
    }
    s->o = o;
    s->st = st;
    s->read_only = read_only;
    s->main_thread = pthread_self();
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    s->workers = o->threads ? o->threads : (unsigned)DFS_MAX(4, DFS_MIN(cpus * 2, 16));
    s->fuse = fuse_session_new(&args, &dfs_ops, sizeof dfs_ops, s);
    if (!s->fuse || fuse_session_custom_io(s->fuse, &io, fd) != 0) {
        close(fd);
        dfs_session_free(s);
        return dfs_err_set(err, -EINVAL, "libfuse refuses the session");
    }
    s->lookups = dfs_lookups_new();
    s->transport = dfs_transport_dev_new(fd, o->spin_us);
    s->worker = calloc(s->workers, sizeof *s->worker);
    if (!s->lookups || !s->transport || !s->worker) {
        dfs_session_free(s);
        return dfs_err_sys(err, -ENOMEM, "session");
    }
    *out = s;
    return 0;
}

static int open_workers(struct dfs_session *s, struct dfs_err *err) {
    for (unsigned i = 0; i < s->workers; i++) {
        struct dfs_worker *w = &s->worker[i];
        w->s = s;
        w->buf = aligned_alloc(4096, DFS_REQUEST_DATA_MAX);
        if (!w->buf)
            return dfs_err_sys(err, -ENOMEM, "a worker's buffer");
        const int r = s->transport->ops->lane_open(s->transport, &w->lane);
        if (r < 0)
            return dfs_err_sys(err, r, "cannot clone /dev/fuse");
    }
    return 0;
}

static int answer_init(struct dfs_session *s, struct dfs_err *err) {
    struct dfs_worker *w = &s->worker[0];
    struct fuse_in_header h;
    struct fuse_init_in in = {0};
    char *req;
    ssize_t n;
    do {
        n = s->transport->ops->receive(w->lane, &req);
    } while (n == -EINTR || n == -EAGAIN);
    if (n < 0)
        return dfs_err_sys(err, (int)n, "the kernel does not open the session");
    if ((size_t)n < sizeof h + 16)
        return dfs_err_set(err, -EPROTO, "the kernel's first request is too short");
    memcpy(&h, req, sizeof h);
    memcpy(&in, req + sizeof h, DFS_MIN((size_t)n - sizeof h, sizeof in));
    if (h.opcode != FUSE_INIT)
        return dfs_err_set(err, -EPROTO, "the kernel's first request is not INIT");
    s->init_flags = in.flags;
    if (in.flags & FUSE_INIT_EXT)
        s->init_flags |= (uint64_t)in.flags2 << 32;
    current = w;
    handle(w, req, (size_t)n);
    current = NULL;
    if (fuse_session_exited(s->fuse))
        return dfs_err_set(err, -EPROTO, "libfuse and the kernel do not agree on a protocol");
    atomic_store(&s->ready, true);
    return 0;
}

int dfs_session_start(struct dfs_session *s, struct dfs_err *err) {
    int r = open_workers(s, err);
    if (r == 0)
        r = answer_init(s, err);
    if (r < 0)
        return r;
    atomic_store(&s->running, s->workers);
    for (unsigned i = 0; i < s->workers; i++) {
        r = -pthread_create(&s->worker[i].thread, NULL, work, &s->worker[i]);
        if (r < 0) {
            atomic_fetch_sub(&s->running, s->workers - i);
            return dfs_err_sys(err, r, "cannot start a worker thread");
        }
        s->worker[i].started = true;
    }
    return 0;
}

void dfs_session_stop(struct dfs_session *s) {
    const struct timespec pause = {.tv_nsec = 5000000};
    atomic_store(&s->stop, true);
    for (unsigned i = 0; i < s->workers; i++) {
        struct dfs_worker *w = &s->worker[i];
        if (!w->started)
            continue;
        /* A signal that comes just before the read begins is lost: again until the thread has ended. */
        while (pthread_tryjoin_np(w->thread, NULL) == EBUSY) {
            pthread_kill(w->thread, SIGUSR1);
            nanosleep(&pause, NULL);
        }
        w->started = false;
    }
}

void dfs_session_free(struct dfs_session *s) {
    if (!s)
        return;
    for (unsigned i = 0; s->worker && i < s->workers; i++) {
        if (s->worker[i].lane)
            s->transport->ops->lane_close(s->worker[i].lane);
        free(s->worker[i].buf);
    }
    free(s->worker);
    if (s->transport)
        s->transport->ops->free(s->transport);
    if (s->fuse)
        fuse_session_destroy(s->fuse);
    dfs_lookups_free(s->lookups);
    free(s);
}
