#include <assert.h>
#include <inttypes.h>
#include <sys/random.h>

#include "fs/store/internal.h"

/* Blocks that the pool must hold before a change begins, so that the tree nodes it copies have a place: TXN_BLOCKS for
 * the change itself; RESERVE_BLOCKS more are left to deletes and checkpoints. */
#define TXN_BLOCKS 512u
#define RESERVE_BLOCKS 1024u

void dfs_now(struct dfs_store *st, struct timespec *ts) {
    if (st->cfg.clock)
        st->cfg.clock(ts);
    else
        clock_gettime(CLOCK_REALTIME, ts);
}

void dfs_store_fail(struct dfs_store *st, const char *what, int err) {
    if (!atomic_exchange(&st->failed, true))
        dfs_log(DFS_LOG_ERROR, what, "errno=%d consequence=\"the volume accepts no more changes until it is reopened\"",
                -err);
    dfs_journal_fail(st->journal);
}

static bool journal_has_room(struct dfs_store *st, size_t body) {
    /* A part of the ring is kept for the records of the checkpoint that will make room. */
    const uint64_t mark = sizeof(struct dfs_rec_header) + sizeof(struct dfs_rec_body);
    const uint64_t need = mark + sizeof(struct dfs_rec_header) + body + DFS_REC_ALIGN + st->params.journal_size / 8;
    return dfs_journal_room(st->journal) >= need;
}

static bool dirty_has_room(struct dfs_store *st, size_t body) {
    return st->dirty.count + body / DFS_PAGE <= st->max_dirty_pages && st->cache.dirty < st->cache.max_nodes * 3 / 4;
}

/* Waits for the host's promise of space for the change. */
static int ensure_pool(struct dfs_store *st, enum dfs_txn_kind kind, size_t body, size_t dirty) {
    uint64_t want = TXN_BLOCKS;
    if (kind == DFS_TXN_GROW)
        want += RESERVE_BLOCKS + dirty + body / DFS_PAGE + 2;
    int r = dfs_alloc_refill(st->alloc, want);
    if (r == -ENOSPC && kind == DFS_TXN_SHRINK)
        r = 0; /* what is freed comes back with the next checkpoint */
    if (r == -ENOSPC)
        dfs_checkpoint_kick(st);
    return r;
}

int dfs_txn_begin(struct dfs_txn *tx, struct dfs_store *st, enum dfs_txn_kind kind, size_t body) {
    *tx = (struct dfs_txn){.st = st, .changing = kind != DFS_TXN_READ};
    if (kind == DFS_TXN_READ) {
        pthread_rwlock_rdlock(&st->lock);
        return 0;
    }
    if (st->cfg.read_only)
        return -EROFS;
    if (kind == DFS_TXN_CHECKPOINT) {
        pthread_rwlock_wrlock(&st->lock);
        return 0;
    }
    bool retried = false;
    for (;;) {
        if (atomic_load(&st->failed) || dfs_journal_error(st->journal) != 0)
            return -EIO;
        pthread_rwlock_rdlock(&st->gate);
        pthread_rwlock_wrlock(&st->lock);
        tx->gated = true;
        const size_t dirty = st->dirty.count;
        uint64_t pool = TXN_BLOCKS;
        if (kind == DFS_TXN_GROW)
            pool += RESERVE_BLOCKS + dirty + body / DFS_PAGE + 2;
        const bool journal_ok = journal_has_room(st, body);
        if (journal_ok && (kind == DFS_TXN_SHRINK || dirty_has_room(st, body)) &&
            dfs_alloc_pool_blocks(st->alloc) >= pool)
            return 0;
        if (journal_ok && kind == DFS_TXN_SHRINK && retried)
            return 0;
        pthread_rwlock_unlock(&st->lock);
        pthread_rwlock_unlock(&st->gate);
        tx->gated = false;
        int r;
        if (!journal_ok || (kind != DFS_TXN_SHRINK && !dirty_has_room(st, body)))
            r = dfs_checkpoint_wait(st);
        else
            r = ensure_pool(st, kind, body, dirty);
        if (r == -ENOSPC && kind == DFS_TXN_GROW && !retried) {
            /* Perhaps blocks were freed that only wait for a checkpoint. */
            r = dfs_checkpoint_wait(st);
        } else if (r == -ENOSPC && kind == DFS_TXN_SHRINK && journal_ok) {
            r = 0;
        }
        if (r != 0)
            return r;
        retried = true;
    }
}

static int load_page(struct dfs_txn *tx);

bool dfs_txn_again(struct dfs_txn *tx, int *r) {
    struct dfs_store *st = tx->st;
    pthread_rwlock_unlock(&st->lock);
    if (*r != -EAGAIN)
        return false;
    const int l = tx->miss_page ? load_page(tx) : dfs_tree_load(tx);
    if (l != 0) {
        *r = l;
        return false;
    }
    if (tx->changing)
        pthread_rwlock_wrlock(&st->lock);
    else
        pthread_rwlock_rdlock(&st->lock);
    return true;
}

/* Reads the page of a chunk that tx->fills[tx->nfills] names. */
static int load_page(struct dfs_txn *tx) {
    struct dfs_store *st = tx->st;
    struct dfs_fill *f = &tx->fills[tx->nfills];
    tx->miss_page = false;
    struct dfs_txn look;
    struct dfs_chunk c;
    dfs_txn_begin(&look, st, DFS_TXN_READ, 0);
    int r;
    do
        r = dfs_chunk_get(&look, f->chunk, &c);
    while (dfs_txn_again(&look, &r));
    if (r == -ENOENT)
        return 0; /* gone meanwhile: the operation finds out */
    if (r != 0)
        return r;
    f->page = dfs_io_alloc(DFS_PAGE);
    if (!f->page)
        return -ENOMEM;
    r = dfs_chunk_read(st, f->chunk, &c, f->off, DFS_PAGE, f->page);
    if (r != 0) {
        free(f->page);
        f->page = NULL;
        return r == -ESTALE ? 0 : r;
    }
    tx->nfills++;
    return 0;
}

int dfs_txn_end(struct dfs_txn *tx, int r) {
    if (tx->gated)
        pthread_rwlock_unlock(&tx->st->gate);
    for (unsigned i = 0; i < tx->nfills; i++)
        free(tx->fills[i].page);
    if (r >= 0 && tx->end_pos) {
        const int w = dfs_journal_write(tx->st->journal, tx->end_pos);
        if (w != 0) {
            dfs_store_fail(tx->st, "journal write failed", w);
            return w;
        }
        if (dfs_journal_used(tx->st->journal) > tx->st->params.journal_size / 2 ||
            tx->dirty > tx->st->max_dirty_pages / 2)
            dfs_checkpoint_kick(tx->st);
    }
    return r;
}

int dfs_txn_commit(struct dfs_txn *tx, const struct dfs_rec *rec) {
    struct dfs_store *st = tx->st;
    const size_t body = dfs_rec_size(rec);
    if (body == 0)
        return -E2BIG;
    int r = dfs_apply(tx, rec);
    if (r != 0)
        return r;
    /* What lies in the ring behind the end of a crashed run must never be taken for a continuation of this one, not even
     * where this one happens to write the very record that got lost. So the chain of each opening begins with a mark that
     * no other has. */
    if (!st->marked) {
        struct dfs_rec mark = {.type = DFS_REC_NOOP};
        if (getrandom(&mark.generation, sizeof mark.generation, 0) != (ssize_t)sizeof mark.generation)
            abort(); /* does not happen for 8 bytes */
        dfs_journal_append(st->journal, &mark, dfs_rec_size(&mark), 0);
        st->marked = true;
    }
    uint64_t direct = 0;
    for (uint32_t i = 0; rec->type == DFS_REC_EXTENTS && i < rec->nchunks; i++)
        direct += rec->chunks[i].desc.stored_len;
    tx->end_pos = dfs_journal_append(st->journal, rec, body, direct);
    tx->dirty = st->dirty.count;
    return 0;
}

int dfs_apply(struct dfs_txn *tx, const struct dfs_rec *r) {
    switch ((enum dfs_rec_type)r->type) {
    case DFS_REC_NOOP:
        return 0;
    case DFS_REC_CREATE:
    case DFS_REC_TMPFILE:
        return dfs_apply_create(tx, r);
    case DFS_REC_LINK:
        return dfs_apply_link(tx, r);
    case DFS_REC_UNLINK:
        return dfs_apply_unlink(tx, r);
    case DFS_REC_RENAME:
        return dfs_apply_rename(tx, r);
    case DFS_REC_SETATTR:
        return dfs_apply_setattr(tx, r);
    case DFS_REC_TRUNCATE:
        return dfs_apply_truncate(tx, r);
    case DFS_REC_WRITE:
        return dfs_apply_write(tx, r);
    case DFS_REC_EXTENTS:
        return dfs_apply_extents(tx, r);
    case DFS_REC_MATERIALISE:
        return dfs_apply_materialise(tx, r);
    case DFS_REC_PUNCH:
        return dfs_apply_punch(tx, r);
    case DFS_REC_RESERVE:
        return dfs_apply_reserve(tx, r);
    case DFS_REC_CLONE:
        return dfs_apply_clone(tx, r);
    case DFS_REC_SETXATTR:
        return dfs_apply_setxattr(tx, r);
    case DFS_REC_RMXATTR:
        return dfs_apply_rmxattr(tx, r);
    case DFS_REC_EVICT:
        return dfs_apply_evict(tx, r);
    case DFS_REC_TYPES:
        break;
    }
    return -EUCLEAN;
}
