/* Writing. Small writes go into the journal and stay in memory as dirty pages until a checkpoint makes chunks of them.
 * Large ones are cut at chunk boundaries, compressed and written to their place at once; the journal then names the
 * chunks. A write is answered when its bytes have been handed to the host. */
#include <assert.h>
#include <sys/stat.h>

#include "fs/store/scratch.h"

#define DIRECT_MIN (64u << 10)
#define PIECE_MAX (1u << 20)
#define POOL_SLACK 2048u /* blocks left to small writes and tree nodes */

/* ---- compression ---------------------------------------------------------------------------------------------- */

/* A file whose data did not compress lately is tried only now and then: the count of failures says how rarely. */
#define TRY_MASK_MAX 5u

static _Atomic uint8_t *hint(struct dfs_store *st, uint64_t ino) {
    return &st->incompressible[ino % DFS_ARRAY_SIZE(st->incompressible)];
}

int dfs_compress_level(struct dfs_store *st, uint64_t ino) {
    const int level = st->params.compression_level;
    const uint8_t h = atomic_load_explicit(hint(st, ino), memory_order_relaxed);
    if (level == 0 || h == 0)
        return level;
    /* Upper half: failures; lower half: writes to let pass before the next try. */
    const uint8_t skip = h & 0x0f;
    if (skip == 0)
        return level;
    atomic_store_explicit(hint(st, ino), (uint8_t)(h - 1), memory_order_relaxed);
    return 0;
}

void dfs_compress_learn(struct dfs_store *st, uint64_t ino, size_t raw, size_t stored) {
    if (stored < raw) {
        atomic_store_explicit(hint(st, ino), 0, memory_order_relaxed);
        return;
    }
    const unsigned before = atomic_load_explicit(hint(st, ino), memory_order_relaxed) >> 4;
    const unsigned fails = DFS_MIN(before + 1, TRY_MASK_MAX);
    const unsigned skip = fails == 1 ? 1 : fails == 2 ? 3 : fails == 3 ? 7 : 15;
    atomic_store_explicit(hint(st, ino), (uint8_t)(fails << 4 | skip), memory_order_relaxed);
}

/* ---- checks --------------------------------------------------------------------------------------------------- */

static int file_look(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const int r = dfs_inode_get(tx, ino, in);
    if (r == 0 && !S_ISREG(in->mode))
        return S_ISDIR(in->mode) ? -EISDIR : -EINVAL;
    return r;
}

/* Would mapping all pages of [off, end) exceed the volume's limit? */
int dfs_quota_check(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end) {
    struct dfs_store *st = tx->st;
    if (st->params.size_limit == 0)
        return 0;
    const uint64_t limit = st->params.size_limit / DFS_PAGE;
    const uint64_t first = off >> DFS_PAGE_SHIFT, last = (end - 1) >> DFS_PAGE_SHIFT;
    if (st->pages_used + (last - first + 1) <= limit)
        return 0;
    uint64_t more = 0;
    for (uint64_t i = first; i <= last && st->pages_used + more <= limit; i++) {
        const int m = dfs_page_mapped(tx, ino, i);
        if (m < 0)
            return m;
        more += !m;
    }
    return more > 0 && st->pages_used + more > limit ? -EDQUOT : 0;
}

/* ---- small writes --------------------------------------------------------------------------------------------- */

static int write_small(struct dfs_store *st, uint64_t ino, uint64_t off, const void *buf, size_t len, unsigned flags) {
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, sizeof(struct dfs_rec_body) + len);
    if (r != 0)
        return r;
    do {
        struct dfs_inode in;
        r = file_look(&tx, ino, &in);
        if (r == 0)
            r = dfs_quota_check(&tx, ino, off, off + len);
        if (r == 0)
            r = dfs_drop_capability(&tx, ino);
        if (r != 0)
            continue;
        struct dfs_rec rec = {.type = DFS_REC_WRITE,
                              .ino = ino,
                              .off = off,
                              .data = buf,
                              .data_len = (uint32_t)len,
                              .valid = flags & DFS_WRITE_KILL_SUID ? DFS_SET_KILL_SUID : 0};
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* ---- large writes --------------------------------------------------------------------------------------------- */

int dfs_blocks_take(struct dfs_store *st, uint32_t n, uint64_t *addr) {
    for (int i = 0; i < 3; i++) {
        pthread_rwlock_rdlock(&st->lock);
        const uint64_t want = POOL_SLACK + st->dirty.count + n;
        pthread_rwlock_unlock(&st->lock);
        int r = dfs_alloc_refill(st->alloc, want);
        if (r == 0)
            r = dfs_alloc_take(st->alloc, n, addr);
        if (r != -ENOSPC)
            return r;
        /* No run of that length, or the host is full: a checkpoint gives back what was freed. */
        if (i == 0)
            r = dfs_alloc_refill(st->alloc, dfs_alloc_pool_blocks(st->alloc) + 4096);
        else if (i == 1)
            r = dfs_checkpoint_wait(st);
        if (r != 0 && r != -ENOSPC)
            return r;
    }
    return -ENOSPC;
}

static void chunks_cancel(struct dfs_store *st, const struct dfs_rec_chunk_mem *c, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        dfs_alloc_cancel(st->alloc, c[i].addr, dfs_chunk_blocks(&c[i].desc));
}

/* Encodes [off, off + len) into chunks and writes them; *n of them, their blocks taken. */
static int chunks_write(struct dfs_store *st, uint64_t ino, uint64_t off, const uint8_t *buf, size_t len,
                        struct dfs_scratch *s, unsigned *n) {
    struct dfs_io *io = st->io;
    struct dfs_io_batch *b;
    int r = io->ops->batch_begin(io, &b);
    if (r != 0)
        return r;
    *n = 0;
    for (size_t at = 0; r == 0 && at < len;) {
        const uint64_t window = st->params.chunk_size - (off + at) % st->params.chunk_size;
        const size_t raw = (size_t)DFS_MIN(window, len - at);
        struct dfs_rec_chunk_mem *c = &s->chunks[*n];
        const int level = dfs_compress_level(st, ino);
        r = dfs_chunk_encode(buf + at, raw, level, s->out + at, &c->desc);
        if (r != 0)
            break;
        if (level > 0)
            dfs_compress_learn(st, ino, raw, c->desc.stored_len);
        r = dfs_blocks_take(st, dfs_chunk_blocks(&c->desc), &c->addr);
        if (r != 0)
            break;
        const uint8_t *src = s->out + at;
        if (c->desc.codec == DFS_CODEC_RAW && (uintptr_t)(buf + at) % DFS_IO_ALIGN == 0)
            src = buf + at;
        else if (c->desc.codec == DFS_CODEC_RAW)
            memcpy(s->out + at, buf + at, raw);
        struct dfs_io_req *q = &s->reqs[(*n)++];
        *q = (struct dfs_io_req){.op = DFS_IO_WRITE,
                                 .file = DFS_IO_DATA,
                                 .buf = (void *)(uintptr_t)src,
                                 .len = (size_t)dfs_chunk_blocks(&c->desc) * DFS_BLOCK_SIZE,
                                 .off = c->addr * DFS_BLOCK_SIZE};
        r = io->ops->batch_submit(b, q);
        at += raw;
    }
    const int w = io->ops->batch_wait(b, 0);
    io->ops->batch_end(b);
    if (r == 0)
        r = w;
    if (r != 0)
        chunks_cancel(st, s->chunks, *n);
    return r;
}

static int write_direct(struct dfs_store *st, uint64_t ino, uint64_t off, const uint8_t *buf, size_t len,
                        unsigned flags) {
    struct dfs_scratch *s = dfs_scratch_get();
    struct dfs_txn tx;
    unsigned n;
    if (!s)
        return -ENOMEM;
    /* Before any work: is it a file, is there room? */
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    struct dfs_inode in;
    int r;
    do {
        r = file_look(&tx, ino, &in);
        if (r == 0)
            r = dfs_quota_check(&tx, ino, off, off + len);
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r == 0)
        r = chunks_write(st, ino, off, buf, len, s, &n);
    if (r != 0)
        return r;
    r = dfs_txn_begin(&tx, st, DFS_TXN_SHRINK, sizeof(struct dfs_rec_body) + n * 1100);
    if (r != 0) {
        chunks_cancel(st, s->chunks, n);
        return r;
    }
    do {
        r = file_look(&tx, ino, &in);
        if (r == 0)
            r = dfs_quota_check(&tx, ino, off, off + len);
        if (r == 0)
            r = dfs_drop_capability(&tx, ino);
        if (r != 0)
            continue;
        struct dfs_rec rec = {.type = DFS_REC_EXTENTS,
                              .ino = ino,
                              .off = off,
                              .len = len,
                              .size = off + len,
                              .chunk = st->next_chunk,
                              .chunks = s->chunks,
                              .nchunks = n,
                              .valid = flags & DFS_WRITE_KILL_SUID ? DFS_SET_KILL_SUID : 0};
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
    } while (dfs_txn_again(&tx, &r));
    const bool applied = r == 0;
    r = dfs_txn_end(&tx, r);
    if (!applied)
        chunks_cancel(st, s->chunks, n);
    return r;
}

ssize_t dfs_write(struct dfs_store *st, uint64_t ino, uint64_t off, const void *buf, size_t len, unsigned flags) {
    if (len == 0)
        return 0;
    if (off >= DFS_FILE_SIZE_MAX || len > (uint64_t)DFS_FILE_SIZE_MAX - off)
        return -EFBIG;
    size_t done = 0;
    int r = 0;
    while (r == 0 && done < len) {
        const uint64_t at = off + done, end = off + len;
        const uint64_t from = DFS_ROUND_UP(at, (uint64_t)DFS_PAGE), to = DFS_ROUND_DOWN(end, (uint64_t)DFS_PAGE);
        const uint8_t *src = (const uint8_t *)buf + done;
        size_t n;
        if (to > from && to - from >= DIRECT_MIN) {
            if (at < from) {
                n = (size_t)(from - at);
                r = write_small(st, ino, at, src, n, flags);
            } else {
                n = (size_t)DFS_MIN(to - from, (uint64_t)PIECE_MAX);
                r = write_direct(st, ino, at, src, n, flags);
            }
        } else {
            n = len - done;
            r = write_small(st, ino, at, src, n, flags);
        }
        if (r == 0)
            done += n;
    }
    if (done == 0)
        return r;
    atomic_fetch_add_explicit(&st->n_writes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->n_bytes_written, done, memory_order_relaxed);
    return (ssize_t)done;
}

int dfs_fsync(struct dfs_store *st, uint64_t ino, bool datasync) {
    (void)ino;
    (void)datasync; /* one journal: everything before goes along, at the same price */
    atomic_fetch_add_explicit(&st->n_fsyncs, 1, memory_order_relaxed);
    if (st->cfg.read_only)
        return 0;
    const int r = dfs_journal_sync(st->journal, UINT64_MAX);
    if (r != 0)
        dfs_store_fail(st, "sync failed", r);
    return r;
}

int dfs_syncfs(struct dfs_store *st) {
    return dfs_fsync(st, 0, false);
}
