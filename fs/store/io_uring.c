/* The real I/O backend: plain system calls for single transfers, io_uring for batches.
 *
 * Measured (see docs/performance.md): for the journal's small sequential writes pwrite + fdatasync is as fast as anything
 * io_uring offers, and twice as fast as writing through a mapping; a batch of data transfers gains from io_uring's depth.
 * Where io_uring is not to be had (seccomp, sysctl), batches transfer one after the other. */
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/err.h"
#include "common/log.h"
#include "common/util.h"
#include "fs/store/io.h"

#define DEPTH 64u
#define RINGS_KEPT 8u

struct dfs_io_batch {
    struct uring_io *io;
    struct dfs_io_batch *next;
    struct io_uring ring;
    bool have_ring;
    unsigned in_flight;
    int error;
};

struct uring_io {
    struct dfs_io base;
    int fd[DFS_IO_FILES];
    int dirfd;
    atomic_bool no_uring;
    pthread_mutex_t mu;
    struct dfs_io_batch *idle;
    unsigned nidle;
};

void *dfs_io_alloc(size_t len) {
    void *p;
    return posix_memalign(&p, DFS_IO_ALIGN, DFS_ROUND_UP(len, DFS_IO_ALIGN)) == 0 ? p : NULL;
}

static int uring_read(struct dfs_io *base, enum dfs_io_file file, void *buf, size_t len, uint64_t off) {
    struct uring_io *io = (struct uring_io *)base;
    size_t done = 0;
    while (done < len) {
        const ssize_t n = pread(io->fd[file], (uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) {
            memset((uint8_t *)buf + done, 0, len - done);
            break;
        }
        done += (size_t)n;
    }
    return 0;
}

static int uring_write(struct dfs_io *base, enum dfs_io_file file, const void *buf, size_t len, uint64_t off) {
    struct uring_io *io = (struct uring_io *)base;
    size_t done = 0;
    while (done < len) {
        const ssize_t n = pwrite(io->fd[file], (const uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int uring_sync(struct dfs_io *base, enum dfs_io_file file) {
    struct uring_io *io = (struct uring_io *)base;
    return fdatasync(io->fd[file]) == 0 ? 0 : -errno;
}

static int uring_allocate(struct dfs_io *base, enum dfs_io_file file, uint64_t off, uint64_t len) {
    struct uring_io *io = (struct uring_io *)base;
    int r;
    do
        r = fallocate(io->fd[file], 0, (off_t)off, (off_t)len) == 0 ? 0 : -errno;
    while (r == -EINTR);
    return r;
}

static int uring_punch(struct dfs_io *base, enum dfs_io_file file, uint64_t off, uint64_t len) {
    struct uring_io *io = (struct uring_io *)base;
    return fallocate(io->fd[file], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0 ? 0 : -errno;
}

static int uring_size(struct dfs_io *base, enum dfs_io_file file, uint64_t *size) {
    struct uring_io *io = (struct uring_io *)base;
    struct stat s;
    if (fstat(io->fd[file], &s) != 0)
        return -errno;
    *size = (uint64_t)s.st_size;
    return 0;
}

static int uring_host_free(struct dfs_io *base, uint64_t *bytes, uint64_t *total) {
    struct uring_io *io = (struct uring_io *)base;
    struct statvfs s;
    if (fstatvfs(io->fd[DFS_IO_DATA], &s) != 0)
        return -errno;
    *bytes = (uint64_t)s.f_bavail * s.f_frsize;
    *total = (uint64_t)s.f_blocks * s.f_frsize;
    return 0;
}

/* ---- batches -------------------------------------------------------------------------------------------------- */

static int batch_begin(struct dfs_io *base, struct dfs_io_batch **out) {
    struct uring_io *io = (struct uring_io *)base;
    pthread_mutex_lock(&io->mu);
    struct dfs_io_batch *b = io->idle;
    if (b) {
        io->idle = b->next;
        io->nidle--;
    }
    pthread_mutex_unlock(&io->mu);
    if (!b) {
        b = calloc(1, sizeof *b);
        if (!b)
            return -ENOMEM;
        b->io = io;
        if (!atomic_load(&io->no_uring)) {
            const int r = io_uring_queue_init(DEPTH, &b->ring, 0);
            b->have_ring = r == 0;
            if (r != 0 && !atomic_exchange(&io->no_uring, true))
                dfs_log(DFS_LOG_WARN, "io_uring is not available, transfers go one by one", "errno=%d", -r);
        }
    }
    b->error = 0;
    *out = b;
    return 0;
}

static void prepare(struct dfs_io_batch *b, struct dfs_io_req *req) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring); /* never NULL: at most DEPTH are in flight */
    const int fd = b->io->fd[req->file];
    uint8_t *buf = (uint8_t *)req->buf + req->done_;
    const unsigned len = (unsigned)(req->len - req->done_);
    if (req->op == DFS_IO_READ)
        io_uring_prep_read(sqe, fd, buf, len, req->off + req->done_);
    else
        io_uring_prep_write(sqe, fd, buf, len, req->off + req->done_);
    io_uring_sqe_set_data(sqe, req);
}

static int submit_prepared(struct dfs_io_batch *b) {
    int r;
    do
        r = io_uring_submit(&b->ring);
    while (r == -EINTR || r == -EAGAIN || r == -EBUSY);
    return r < 0 ? r : 0;
}

static void complete(struct dfs_io_batch *b, struct dfs_io_req *req, int result) {
    req->result = result;
    if (result != 0 && b->error == 0)
        b->error = result;
    b->in_flight--;
}

/* Reaps one completion; goes on with a transfer that was short. */
static int reap(struct dfs_io_batch *b) {
    struct io_uring_cqe *cqe;
    int r;
    do
        r = io_uring_wait_cqe(&b->ring, &cqe);
    while (r == -EINTR);
    if (r != 0)
        return r;
    struct dfs_io_req *req = io_uring_cqe_get_data(cqe);
    const int res = cqe->res;
    io_uring_cqe_seen(&b->ring, cqe);
    if (res == -EINTR || res == -EAGAIN) {
        prepare(b, req);
        return submit_prepared(b);
    }
    if (res < 0) {
        complete(b, req, res);
        return 0;
    }
    req->done_ += (size_t)res;
    if (req->done_ == req->len) {
        complete(b, req, 0);
    } else if (res == 0 && req->op == DFS_IO_READ) {
        memset((uint8_t *)req->buf + req->done_, 0, req->len - req->done_);
        complete(b, req, 0);
    } else if (res == 0) {
        complete(b, req, -EIO);
    } else {
        prepare(b, req);
        return submit_prepared(b);
    }
    return 0;
}

static int batch_submit(struct dfs_io_batch *b, struct dfs_io_req *req) {
    req->done_ = 0;
    if (!b->have_ring) {
        struct dfs_io *base = &b->io->base;
        b->in_flight++;
        complete(b, req,
                 req->op == DFS_IO_READ ? uring_read(base, req->file, req->buf, req->len, req->off)
                                        : uring_write(base, req->file, req->buf, req->len, req->off));
        return 0;
    }
    while (b->in_flight >= DEPTH) {
        const int r = reap(b);
        if (r != 0)
            return r;
    }
    b->in_flight++;
    prepare(b, req);
    const int r = submit_prepared(b);
    if (r != 0)
        complete(b, req, r);
    return r;
}

static int batch_wait(struct dfs_io_batch *b, unsigned left) {
    while (b->in_flight > left) {
        const int r = reap(b);
        if (r != 0)
            return r;
    }
    return b->error;
}

static void batch_free(struct dfs_io_batch *b) {
    if (b->have_ring)
        io_uring_queue_exit(&b->ring);
    free(b);
}

static void batch_end(struct dfs_io_batch *b) {
    struct uring_io *io = b->io;
    const bool ok = batch_wait(b, 0) == 0 || b->in_flight == 0;
    pthread_mutex_lock(&io->mu);
    const bool keep = ok && io->nidle < RINGS_KEPT;
    if (keep) {
        b->next = io->idle;
        io->idle = b;
        io->nidle++;
    }
    pthread_mutex_unlock(&io->mu);
    if (!keep)
        batch_free(b);
}

static void uring_free(struct dfs_io *base) {
    struct uring_io *io = (struct uring_io *)base;
    struct dfs_io_batch *b;
    while ((b = io->idle)) {
        io->idle = b->next;
        batch_free(b);
    }
    for (int i = 0; i < DFS_IO_FILES; i++)
        if (io->fd[i] >= 0)
            close(io->fd[i]);
    pthread_mutex_destroy(&io->mu);
    free(io);
}

static const struct dfs_io_ops uring_ops = {
    .read = uring_read,
    .write = uring_write,
    .sync = uring_sync,
    .allocate = uring_allocate,
    .punch = uring_punch,
    .size = uring_size,
    .host_free = uring_host_free,
    .batch_begin = batch_begin,
    .batch_submit = batch_submit,
    .batch_wait = batch_wait,
    .batch_end = batch_end,
    .free = uring_free,
};

/* O_DIRECT where the host takes it, found out by trying a read. */
static int open_data(int dirfd, int flags) {
    const int fd = openat(dirfd, "data", flags | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) {
        cleanup_free void *probe = dfs_io_alloc(DFS_IO_ALIGN);
        if (probe && pread(fd, probe, DFS_IO_ALIGN, 0) >= 0)
            return fd;
        close(fd);
    } else if (errno != EINVAL && errno != EOPNOTSUPP) {
        return -errno;
    }
    dfs_log(DFS_LOG_INFO, "the host filesystem has no O_DIRECT, data goes through its page cache", NULL);
    const int buffered = openat(dirfd, "data", flags | O_CLOEXEC);
    return buffered >= 0 ? buffered : -errno;
}

int dfs_io_uring_new(int dirfd, bool read_only, struct dfs_io **out, struct dfs_err *err) {
    struct uring_io *io = calloc(1, sizeof *io);
    if (!io)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    io->base.ops = &uring_ops;
    io->fd[DFS_IO_JOURNAL] = io->fd[DFS_IO_DATA] = -1;
    pthread_mutex_init(&io->mu, NULL);
    const int flags = read_only ? O_RDONLY : O_RDWR;
    io->fd[DFS_IO_JOURNAL] = openat(dirfd, "journal", flags | O_CLOEXEC);
    int r = io->fd[DFS_IO_JOURNAL] >= 0 ? 0 : -errno;
    if (r != 0) {
        dfs_err_sys(err, r, "cannot open the volume's file 'journal'");
    } else {
        io->fd[DFS_IO_DATA] = open_data(dirfd, flags);
        r = io->fd[DFS_IO_DATA] >= 0 ? 0 : io->fd[DFS_IO_DATA];
        if (r != 0)
            dfs_err_sys(err, r, "cannot open the volume's file 'data'");
    }
    if (r != 0) {
        uring_free(&io->base);
        return r;
    }
    *out = &io->base;
    return 0;
}
