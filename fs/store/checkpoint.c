/* Checkpoints: the trees as of one LSN go to disk, copy on write, and a superblock names them.
 *
 *   dirty pages -> chunks        repeatedly, while changes go on
 *   gate closed                  changes wait, readers do not
 *     last dirty pages -> chunks
 *     allocator's changes -> bitmaps
 *     dirty nodes are frozen     from here on a change copies what is frozen
 *   gate open
 *   frozen nodes are sealed, children first, and written
 *   data file synced, superblock written, synced
 *   journal trimmed, freed blocks usable again
 */
#include <assert.h>
#include <inttypes.h>

#include "fs/store/internal.h"

#define ROUNDS 3
#define FEW_PAGES 64u
#define SEAL_BATCH 32

static int fold_all(struct dfs_store *st) {
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_CHECKPOINT, 0);
    if (r != 0)
        return r;
    do
        r = dfs_alloc_fold(st->alloc, &tx);
    while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

static size_t dirty_pages(struct dfs_store *st) {
    pthread_rwlock_rdlock(&st->lock);
    const size_t n = st->dirty.count;
    pthread_rwlock_unlock(&st->lock);
    return n;
}

/* What the superblock will say, and the roots whose checksums are still to come. */
struct frozen {
    struct dfs_node_list nodes;
    struct dfs_super_disk sb;
    struct dfs_node *root[DFS_TREES];
    uint64_t pos, lsn, number;
};

/* With the gate closed: nothing dirty is left outside the trees, and the trees are frozen. */
static int freeze(struct dfs_store *st, struct frozen *f) {
    int r = dfs_materialise(st, 0, true);
    if (r != 0)
        return r;
    struct dfs_txn tx;
    r = dfs_txn_begin(&tx, st, DFS_TXN_CHECKPOINT, 0);
    if (r != 0)
        return r;
    do {
        r = dfs_alloc_fold(st->alloc, &tx);
        if (r != 0)
            continue;
        assert(st->dirty.count == 0);
        uint64_t prev;
        dfs_journal_head(st->journal, &f->pos, &f->lsn, &prev);
        f->number = st->checkpoint;
        dfs_super_fill(st, &f->sb, f->number);
        dfs_tree_freeze(st, &f->nodes);
        struct dfs_node *n;
        TAILQ_FOREACH (n, &f->nodes, work)
            if (!n->frozen_parent)
                f->root[n->tree] = n;
        st->checkpoint++;
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* Children come before their parents in the list, so a parent is sealed when all its pointers are right. */
static void seal_all(struct dfs_store *st, struct frozen *f) {
    struct dfs_node *n = TAILQ_FIRST(&f->nodes);
    while (n) {
        pthread_rwlock_wrlock(&st->lock);
        for (int i = 0; n && i < SEAL_BATCH; i++, n = TAILQ_NEXT(n, work)) {
            n->csum = dfs_node_seal(n->buf, n->addr, n->birth);
            dfs_tree_patch(st, n);
        }
        pthread_rwlock_unlock(&st->lock);
    }
    for (int t = 0; t < DFS_TREES; t++)
        if (f->root[t])
            f->sb.roots[t].ptr.csum = htole64(f->root[t]->csum);
}

static int write_nodes(struct dfs_store *st, struct frozen *f) {
    struct dfs_io *io = st->io;
    struct dfs_io_batch *b;
    size_t n = 0;
    struct dfs_node *node;
    TAILQ_FOREACH (node, &f->nodes, work)
        n++;
    cleanup_free struct dfs_io_req *reqs = calloc(n ? n : 1, sizeof *reqs);
    if (!reqs)
        return -ENOMEM;
    int r = io->ops->batch_begin(io, &b);
    if (r != 0)
        return r;
    size_t i = 0;
    TAILQ_FOREACH (node, &f->nodes, work) {
        reqs[i] = (struct dfs_io_req){.op = DFS_IO_WRITE,
                                      .file = DFS_IO_DATA,
                                      .buf = node->buf,
                                      .len = DFS_NODE_SIZE,
                                      .off = node->addr * DFS_BLOCK_SIZE};
        r = io->ops->batch_submit(b, &reqs[i++]);
        if (r != 0)
            break;
    }
    const int w = io->ops->batch_wait(b, 0);
    io->ops->batch_end(b);
    return r != 0 ? r : w;
}

static bool nothing_to_do(struct dfs_store *st) {
    uint64_t pos, lsn, prev;
    pthread_rwlock_rdlock(&st->lock);
    dfs_journal_head(st->journal, &pos, &lsn, &prev);
    const bool idle = st->cache.dirty == 0 && st->dirty.count == 0 && dfs_journal_used(st->journal) == 0;
    pthread_rwlock_unlock(&st->lock);
    return idle;
}

static int checkpoint_locked(struct dfs_store *st) {
    if (st->cfg.read_only || nothing_to_do(st))
        return 0;
    if (atomic_load(&st->failed))
        return -EIO;
    int r = 0;
    for (int i = 0; r == 0 && i < ROUNDS && dirty_pages(st) > FEW_PAGES; i++)
        r = dfs_materialise(st, 0, false);
    if (r == 0)
        r = fold_all(st);
    if (r != 0)
        return r;
    struct frozen f = {.root = {NULL}};
    TAILQ_INIT(&f.nodes);
    pthread_rwlock_wrlock(&st->gate);
    r = freeze(st, &f);
    pthread_rwlock_unlock(&st->gate);
    if (r != 0)
        return r;
    seal_all(st, &f);
    r = write_nodes(st, &f);
    if (r == 0)
        r = st->io->ops->sync(st->io, DFS_IO_DATA);
    if (r == 0)
        r = dfs_super_write(st, &f.sb);
    pthread_rwlock_wrlock(&st->lock);
    dfs_tree_thaw(st, &f.nodes, r == 0);
    if (r == 0)
        st->durable_checkpoint = f.number;
    pthread_rwlock_unlock(&st->lock);
    if (r != 0)
        return r;
    dfs_journal_trim(st->journal, f.pos, f.lsn);
    dfs_alloc_checkpointed(st->alloc);
    return 0;
}

int dfs_checkpoint(struct dfs_store *st) {
    pthread_mutex_lock(&st->checkpoint_lock);
    const int r = checkpoint_locked(st);
    pthread_mutex_unlock(&st->checkpoint_lock);
    /* Out of space is a state that passes; anything else means that what was accepted cannot be kept. */
    if (r != 0 && r != -ENOSPC && r != -EDQUOT && r != -ENOMEM)
        dfs_store_fail(st, "checkpoint failed", r);
    pthread_mutex_lock(&st->wait_lock);
    st->checkpoint_error = r;
    if (r == 0)
        st->checkpoints_done++;
    else
        st->checkpoints_failed++;
    pthread_cond_broadcast(&st->checkpointed);
    pthread_mutex_unlock(&st->wait_lock);
    return r;
}

/* ---- the worker ----------------------------------------------------------------------------------------------- */

#define DIRECT_SYNC_BYTES (128u << 20) /* so much direct data is made durable without being asked: bounds the replay */

static void *worker_main(void *arg) {
    struct dfs_store *st = arg;
    const unsigned ms = st->cfg.checkpoint_interval_ms ? st->cfg.checkpoint_interval_ms : 5000;
    dfs_orphans_delete(st);
    pthread_mutex_lock(&st->wait_lock);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!st->stop) {
        struct timespec until = next;
        until.tv_nsec += (long)(ms % 1000) * 1000000;
        until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        int w = 0;
        while (!st->stop && !st->kicked && w == 0)
            w = pthread_cond_timedwait(&st->wake_worker, &st->wait_lock, &until);
        if (st->stop)
            break;
        st->kicked = false;
        pthread_mutex_unlock(&st->wait_lock);
        if (dfs_journal_direct_bytes(st->journal) > DIRECT_SYNC_BYTES)
            dfs_journal_sync(st->journal, UINT64_MAX);
        const int r = dfs_checkpoint(st);
        if (r == -ENOSPC)
            dfs_log(DFS_LOG_WARN, "checkpoint postponed, the host filesystem is full", "retry_ms=%u", ms);
        pthread_mutex_lock(&st->wait_lock);
        clock_gettime(CLOCK_MONOTONIC, &next);
    }
    pthread_mutex_unlock(&st->wait_lock);
    return NULL;
}

void dfs_checkpoint_kick(struct dfs_store *st) {
    pthread_mutex_lock(&st->wait_lock);
    if (!st->kicked) {
        st->kicked = true;
        pthread_cond_signal(&st->wake_worker);
    }
    pthread_mutex_unlock(&st->wait_lock);
}

int dfs_checkpoint_wait(struct dfs_store *st) {
    if (!st->worker_running)
        return dfs_checkpoint(st);
    pthread_mutex_lock(&st->wait_lock);
    const uint64_t before = st->checkpoints_done + st->checkpoints_failed;
    st->kicked = true;
    pthread_cond_signal(&st->wake_worker);
    while (!st->stop && st->checkpoints_done + st->checkpoints_failed == before)
        pthread_cond_wait(&st->checkpointed, &st->wait_lock);
    const int r = st->checkpoint_error;
    pthread_mutex_unlock(&st->wait_lock);
    return r;
}

int dfs_worker_start(struct dfs_store *st) {
    const int r = pthread_create(&st->worker, NULL, worker_main, st);
    st->worker_running = r == 0;
    return -r;
}

void dfs_worker_stop(struct dfs_store *st) {
    if (!st->worker_running)
        return;
    pthread_mutex_lock(&st->wait_lock);
    st->stop = true;
    pthread_cond_broadcast(&st->wake_worker);
    pthread_cond_broadcast(&st->checkpointed);
    pthread_mutex_unlock(&st->wait_lock);
    pthread_join(st->worker, NULL);
    st->worker_running = false;
}
