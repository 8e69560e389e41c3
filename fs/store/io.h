/* The engine's only way to the disk.
 *
 * A store has two files: the journal (written sequentially, buffered, made durable by sync) and the data file
 * (4 KiB blocks at any place, O_DIRECT where the host has it). Everything the engine reads or writes of them goes
 * through this interface, so that tests can keep every write and flush, produce crash images, and inject errors.
 *
 * Promises of an implementation:
 *  - write: when it returns 0 (or its request completes with 0) the bytes survive a crash of the process, but not
 *    of the host. Without a sync, writes may reach the disk in any order, or in part (torn at 512-byte sectors).
 *  - sync: when it returns 0, every write of that file that completed before sync was called survives a power cut.
 *  - All calls are thread-safe. All return 0 or negative errno; a short transfer is never reported as success
 *    (reading past the end of a file yields zero bytes in the rest of the buffer, as of a hole).
 *
 * Data-file buffers, offsets and lengths are multiples of DFS_IO_ALIGN (buffers come from dfs_io_alloc()); the journal
 * has no such rule. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dfs_err;

#define DFS_IO_ALIGN 4096u

enum dfs_io_file { DFS_IO_JOURNAL, DFS_IO_DATA, DFS_IO_FILES };

enum dfs_io_op { DFS_IO_READ, DFS_IO_WRITE };

/* One transfer of a batch. The submitter owns it and keeps it and its buffer alive until it is reaped. */
struct dfs_io_req {
    enum dfs_io_op op;
    enum dfs_io_file file;
    void *buf;
    size_t len;
    uint64_t off;
    int result;   /* set on completion: 0 or negative errno */
    void *arg;    /* the submitter's */
    size_t done_; /* the backend's: bytes transferred so far */
};

struct dfs_io;
struct dfs_io_batch; /* transfers under way for one thread */

struct dfs_io_ops {
    int (*read)(struct dfs_io *, enum dfs_io_file, void *buf, size_t len, uint64_t off);
    int (*write)(struct dfs_io *, enum dfs_io_file, const void *buf, size_t len, uint64_t off);
    int (*sync)(struct dfs_io *, enum dfs_io_file);
    /* Makes [off, off+len) of the file writable without ENOSPC later. -EOPNOTSUPP: the host cannot promise that. */
    int (*allocate)(struct dfs_io *, enum dfs_io_file, uint64_t off, uint64_t len);
    /* Gives [off, off+len) back to the host; it reads as zeros afterwards. Best effort: -EOPNOTSUPP is fine. */
    int (*punch)(struct dfs_io *, enum dfs_io_file, uint64_t off, uint64_t len);
    int (*size)(struct dfs_io *, enum dfs_io_file, uint64_t *size);
    /* Bytes free for us on the host filesystem. */
    int (*host_free)(struct dfs_io *, uint64_t *bytes, uint64_t *total);

    /* A batch: begin, any number of submits (which start the transfer and do not wait), wait, end. wait returns when
     * at most `left` transfers of the batch are still under way; 0 or the first failure seen (each request also has
     * its own result). end waits for what is left. A batch belongs to one thread at a time. */
    int (*batch_begin)(struct dfs_io *, struct dfs_io_batch **);
    int (*batch_submit)(struct dfs_io_batch *, struct dfs_io_req *);
    int (*batch_wait)(struct dfs_io_batch *, unsigned left);
    void (*batch_end)(struct dfs_io_batch *);

    void (*free)(struct dfs_io *);
};

/* Implementations embed this as their first member. */
struct dfs_io {
    const struct dfs_io_ops *ops;
};

/* The real one: files `journal` and `data` below `dirfd` (not consumed), which must exist. Logs once where O_DIRECT or
 * io_uring is not to be had and what it does instead. */
int dfs_io_uring_new(int dirfd, bool read_only, struct dfs_io **out, struct dfs_err *err);

static inline void dfs_io_free(struct dfs_io *io) {
    if (io)
        io->ops->free(io);
}

/* Memory for data-file transfers; release with free(). NULL when there is none. */
void *dfs_io_alloc(size_t len);
