/* The store's inside: what the engine's own files share. Not for other layers.
 *
 * Lock order: checkpoint_lock, gate, allocator's refill lock, tree lock (`lock`), journal's, allocator's, `wait_lock`; unit
 * cache last. */
#pragma once
#include <bsd/sys/tree.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/err.h"
#include "common/log.h"
#include "common/util.h"
#include "fs/store/alloc.h"
#include "fs/store/dirty.h"
#include "fs/store/io.h"
#include "fs/store/journal.h"
#include "fs/store/store.h"
#include "fs/store/super_format.h"
#include "fs/store/tree.h"

#define DFS_PAGE DFS_BLOCK_SIZE /* file data is mapped in pages of one block */
#define DFS_PAGE_SHIFT 12

struct dfs_unit_cache;

struct dfs_store {
    struct dfs_io *io;
    int dirfd, lockfd;
    struct dfs_volume_params params;
    struct dfs_store_config cfg;
    size_t cache_bytes;

    /* Every change passes the gate (shared); a checkpoint closes it for the last moments before it freezes the trees, so
     * that nothing dirty is left behind while readers go on. */
    pthread_rwlock_t gate;
    pthread_rwlock_t lock; /* the tree lock: guards what follows, down to the blank line */
    struct dfs_cache cache;
    struct dfs_tree trees[DFS_TREES];
    struct dfs_dirty dirty;
    uint64_t next_ino, next_chunk, hash_seed;
    uint64_t files, pages_used, chunk_raw, chunk_stored;
    uint64_t checkpoint;         /* number of the checkpoint being gathered: nodes are born with it */
    uint64_t durable_checkpoint; /* number of the last durable one */
    uint64_t epoch;
    uint64_t newest_snapshot;

    struct dfs_journal *journal;
    struct dfs_alloc *alloc;
    struct dfs_unit_cache *units;
    size_t max_dirty_pages; /* writers wait above it */

    pthread_mutex_t checkpoint_lock; /* one checkpoint at a time */
    pthread_mutex_t wait_lock;       /* guards the next lines */
    pthread_cond_t wake_worker, checkpointed;
    bool worker_running, stop, kicked;
    uint64_t checkpoints_done, checkpoints_failed;
    int checkpoint_error; /* of the last one */
    pthread_t worker;

    atomic_bool failed; /* sticky: nothing can be made durable any more */
    bool orphans_kept;
    bool marked; /* this opening has put its mark into the journal (dfs_txn_commit()); under the tree lock */

    atomic_uint_fast64_t n_reads, n_writes, n_bytes_read, n_bytes_written, n_fsyncs, n_verified, n_bad;
    uint64_t replayed, open_ns;
    uint64_t *orphans; /* of the last run, to be deleted by the worker */
    size_t norphans;
    _Atomic uint8_t incompressible[4096]; /* per inode (hashed): how often compression did not pay lately */
};

/* ---- transactions (txn.c) --------------------------------------------------------------------------------------- */

enum dfs_txn_kind {
    DFS_TXN_READ,
    DFS_TXN_GROW,   /* takes space: refused with -ENOSPC when the host has none */
    DFS_TXN_SHRINK, /* gives space back: may use the reserve */
    DFS_TXN_CHECKPOINT, /* the checkpoint's own: waits for nothing, does not pass the gate */
};

/* Takes the tree lock. A change waits for room in the journal for a record body of `body` bytes and for dirty memory;
 * -EROFS, -EIO (failed), -ENOSPC. */
int dfs_txn_begin(struct dfs_txn *tx, struct dfs_store *st, enum dfs_txn_kind kind, size_t body);
/* Releases the lock. True: the operation is to start over (`*r` was -EAGAIN and what was missing is there now). */
bool dfs_txn_again(struct dfs_txn *tx, int *r);
/* After the last dfs_txn_again(): releases fills and, where *r says that a change was made, waits until its record has
 * been handed to the host. Returns r or what that gave. */
int dfs_txn_end(struct dfs_txn *tx, int r);
/* Applies and journals one record, under the lock. -EAGAIN, or what the apply function refuses. */
int dfs_txn_commit(struct dfs_txn *tx, const struct dfs_rec *rec);
void dfs_store_fail(struct dfs_store *st, const char *what, int err);
void dfs_now(struct dfs_store *st, struct timespec *ts);

/* ---- applying records (apply*.c) -------------------------------------------------------------------------------- */

/* Makes the record's change in the trees and dirty pages. First looks at everything (and may return -EAGAIN, or -EUCLEAN
 * where the record does not fit what is there), then changes; nothing is changed when it fails. Exclusive tree lock. */
int dfs_apply(struct dfs_txn *tx, const struct dfs_rec *rec);
int dfs_apply_create(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_link(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_unlink(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_rename(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_setattr(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_setxattr(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_rmxattr(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_evict(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_truncate(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_write(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_extents(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_materialise(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_punch(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_reserve(struct dfs_txn *tx, const struct dfs_rec *r);
int dfs_apply_clone(struct dfs_txn *tx, const struct dfs_rec *r);

/* ---- inodes and items (inode.c) --------------------------------------------------------------------------------- */

struct dfs_inode {
    uint64_t size, pages, rdev, generation, parent, entries;
    uint32_t mode, nlink, uid, gid;
    struct timespec atime, mtime, ctime, btime;
};
struct dfs_key dfs_key_inode(uint64_t ino);
int dfs_inode_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in);
void dfs_inode_put(struct dfs_txn *tx, uint64_t ino, const struct dfs_inode *in); /* prepared by the get */
void dfs_inode_attr(uint64_t ino, const struct dfs_inode *in, struct dfs_attr *attr);
/* Clears suid, and sgid of group-executable files. */
void dfs_inode_kill_suid(struct dfs_inode *in);

uint64_t dfs_name_hash(const struct dfs_store *st, const char *name, size_t len); /* hash56 << 7 */
int dfs_name_check(const char *name, size_t len);
/* Finds a directory entry: 0 (item and key), -ENOENT with *key where it would go, -ENOSPC, -EAGAIN. */
struct dfs_dirent_item {
    uint64_t ino;
    uint32_t type;
    const char *name;
    size_t len;
};
int dfs_dirent_find(struct dfs_txn *tx, uint64_t dir, const char *name, size_t len, struct dfs_key *key,
                    struct dfs_dirent_item *e);
bool dfs_dirent_parse(const void *val, size_t len, struct dfs_dirent_item *e);
void dfs_dirent_put(struct dfs_txn *tx, const struct dfs_key *key, const struct dfs_dirent_item *e);
struct dfs_xattr_item {
    const char *name;
    const uint8_t *value;
    size_t name_len, value_len;
};
int dfs_xattr_find(struct dfs_txn *tx, uint64_t ino, const char *name, size_t len, struct dfs_key *key,
                   struct dfs_xattr_item *x);
bool dfs_xattr_parse(const void *val, size_t len, struct dfs_xattr_item *x);
void dfs_xattr_put(struct dfs_txn *tx, const struct dfs_key *key, const struct dfs_xattr_item *x);

/* ---- extents and chunks (extent.c) ------------------------------------------------------------------------------ */

struct dfs_extent {
    uint64_t off;  /* in the file */
    uint64_t len;  /* covered: an inline extent covers a page, whatever its bytes */
    uint64_t chunk;
    uint32_t chunk_off;
    uint8_t type;
    const uint8_t *data; /* inline bytes */
    size_t data_len;
};
/* The extent that covers `off`, or the first after it: -ENOENT, -EAGAIN, -EUCLEAN. `it` stands on it. */
int dfs_extent_find(struct dfs_txn *tx, uint64_t ino, uint64_t off, struct dfs_iter *it, struct dfs_extent *e);
int dfs_extent_next(struct dfs_iter *it, uint64_t ino, struct dfs_extent *e);
/* The last extent of the file. */
int dfs_extent_last(struct dfs_txn *tx, uint64_t ino, struct dfs_extent *e);
/* Looks at everything that removing [off, end) will touch: *pages is how many mapped pages are in it (extents only). */
int dfs_extents_prepare_remove(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end, uint64_t *pages);
/* Removes what is mapped there, splitting extents at the edges and dropping references to chunks. */
void dfs_extents_remove(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end);
void dfs_extent_put(struct dfs_txn *tx, uint64_t ino, const struct dfs_extent *e);
int dfs_extent_prepare_put(struct dfs_txn *tx, uint64_t ino, uint64_t off);

struct dfs_chunk {
    uint64_t addr;
    uint32_t refs;
    struct dfs_chunk_desc desc;
};
int dfs_chunk_get(struct dfs_txn *tx, uint64_t id, struct dfs_chunk *c);
int dfs_chunk_prepare(struct dfs_txn *tx, uint64_t id);
void dfs_chunk_put(struct dfs_txn *tx, uint64_t id, const struct dfs_chunk *c);
/* A new chunk at `addr` with one reference; commits its blocks. */
void dfs_chunk_add(struct dfs_txn *tx, uint64_t id, uint64_t addr, const struct dfs_chunk_desc *desc);
void dfs_chunk_ref(struct dfs_txn *tx, uint64_t id, int delta); /* prepared; the last reference frees it */
static inline uint32_t dfs_chunk_blocks(const struct dfs_chunk_desc *d) {
    return DFS_DIV_UP(d->stored_len, DFS_BLOCK_SIZE);
}
/* The 4 KiB page at `off` of the file, from memory, tree or tx's fills, or NULL for zeros (hole, unwritten) in *page.
 * -EAGAIN: a chunk has to be read first. *buf is room for one page. */
int dfs_page_content(struct dfs_txn *tx, uint64_t ino, uint64_t off, const uint8_t **page, uint8_t *buf);
/* Is the page mapped (dirty or by an extent)? 0/1, -EAGAIN. */
int dfs_page_mapped(struct dfs_txn *tx, uint64_t ino, uint64_t idx);

/* ---- data (data.c, write.c) --------------------------------------------------------------------------------------- */

/* Reads [off, off + len) of a stored chunk into dst, verified. -EIO: does not verify (logged). -ESTALE: the chunk has
 * gone meanwhile, look again. */
int dfs_chunk_read(struct dfs_store *st, uint64_t id, const struct dfs_chunk *c, uint32_t off, uint32_t len, void *dst);
/* Turns dirty pages of one inode (0: of all) into chunks, journalled. `final`: the data is not synced before its records
 * are made, because the superblock that follows is what makes them count. The checkpoint lock is held. */
int dfs_materialise(struct dfs_store *st, uint64_t ino, bool final);
/* The same for one file, as a matter of its own: takes the checkpoint lock. */
int dfs_materialise_file(struct dfs_store *st, uint64_t ino);
/* `n` adjacent blocks for data: refills the pool, waits for a checkpoint if that may help; -ENOSPC. Without locks. */
int dfs_blocks_take(struct dfs_store *st, uint32_t n, uint64_t *addr);
/* -EDQUOT if mapping all pages of [off, end) would exceed the volume's limit. */
int dfs_quota_check(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end);
/* Removes security.capability, if it is there: a commit of its own. */
int dfs_drop_capability(struct dfs_txn *tx, uint64_t ino);
/* Compression level for data of this inode, by the volume's setting and what was learned; and the learning. */
int dfs_compress_level(struct dfs_store *st, uint64_t ino);
void dfs_compress_learn(struct dfs_store *st, uint64_t ino, size_t raw, size_t stored);

/* ---- checkpoint, recovery ----------------------------------------------------------------------------------------- */

int dfs_super_write(struct dfs_store *st, const struct dfs_super_disk *sb);
/* The newest valid superblock; -EUCLEAN if there is none, -EOPNOTSUPP for unknown incompatible features. */
int dfs_super_read(struct dfs_io *io, struct dfs_super_disk *sb, struct dfs_err *err);
int dfs_super_decode(const void *block, struct dfs_super_disk *sb, const char **why);
/* Encodes the current state under the exclusive tree lock. */
void dfs_super_fill(struct dfs_store *st, struct dfs_super_disk *sb, uint64_t checkpoint);
void dfs_super_seal(struct dfs_super_disk *sb, uint8_t block[DFS_SUPER_SIZE]);
int dfs_recover(struct dfs_store *st, const struct dfs_super_disk *sb, struct dfs_err *err);
/* Wakes the worker; wait: until a checkpoint that began after the call has ended, and returns its result. */
void dfs_checkpoint_kick(struct dfs_store *st);
int dfs_checkpoint_wait(struct dfs_store *st);
int dfs_worker_start(struct dfs_store *st);
void dfs_worker_stop(struct dfs_store *st);
int dfs_orphans_delete(struct dfs_store *st);
