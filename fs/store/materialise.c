/* Dirty pages become chunks.
 *
 * Pages are taken window by window (a window is an aligned stretch of chunk-size bytes of a file). Where the dirty pages
 * are most of what the window holds, or it has crumbled into many extents, the rest of it is read and the whole is written
 * as one chunk; else each run of dirty pages becomes a chunk of its own. So random small writes cost little now and the
 * file does not stay crumbled.
 *
 * The pages are copied under the shared lock, compressed and written without it, and the extents are put in place under the
 * exclusive one, if the window is still as it was; if not, the blocks are given back and the pages wait for the next time. */
#include <assert.h>
#include <inttypes.h>

#include "fs/store/scratch.h"

#define WINDOW_EXTENTS 64u /* a window with more of them is not looked at further: whole rewriting waits for a better time */
#define CRUMBLED 16u
#define COMMIT_BATCH 16u
#define FEW_BLOCKS 1024u
#define MARK_ROOM 512u /* in the journal, for what dfs_txn_commit() may put before the record, and padding */

struct page_ref {
    uint64_t idx, version; /* version 0: not dirty, taken along from extents */
};

struct job {
    uint64_t ino, off, addr;
    uint32_t npages;
    bool inlined, done;
    uint64_t size; /* inline: the file's size */
    uint8_t *desc;
    size_t desc_len;
    struct page_ref *pages;
    unsigned nextents; /* the extents below, if any page was taken along */
    struct dfs_extent *extents;
};

struct jobs {
    struct job *j;
    size_t n, cap;
};

static void job_free(struct job *j) {
    free(j->desc);
    free(j->pages);
    free(j->extents);
}

static struct job *job_add(struct jobs *v) {
    if (v->n == v->cap) {
        const size_t cap = v->cap ? v->cap * 2 : 64;
        struct job *j = realloc(v->j, cap * sizeof *j);
        if (!j)
            return NULL;
        v->j = j;
        v->cap = cap;
    }
    v->j[v->n] = (struct job){0};
    return &v->j[v->n++];
}

/* What one window holds. */
struct window {
    uint64_t ino, off, size;
    uint32_t npages;             /* the window's size in pages */
    uint64_t version[DFS_CHUNK_UNITS_MAX]; /* of dirty pages, else 0 */
    bool mapped[DFS_CHUNK_UNITS_MAX];      /* by a chunk, and not dirty */
    unsigned ndirty, nmapped, nextents;
    bool too_many;
    struct dfs_extent extents[WINDOW_EXTENTS];
    bool inlined;
    bool roomy; /* there is space to write clean pages again, besides the dirty ones */
    uint8_t *buf;
};

static int window_extents(struct dfs_txn *tx, struct window *w) {
    struct dfs_iter it;
    struct dfs_extent e;
    const uint64_t end = w->off + (uint64_t)w->npages * DFS_PAGE;
    int r = dfs_extent_find(tx, w->ino, w->off, &it, &e);
    for (; r == 0 && e.off < end; r = dfs_extent_next(&it, w->ino, &e)) {
        if (w->nextents == WINDOW_EXTENTS) {
            w->too_many = true;
            return 0;
        }
        e.data = NULL; /* not to be kept beyond the lock */
        w->extents[w->nextents++] = e;
        if (e.type != DFS_EXTENT_CHUNK)
            continue;
        const uint64_t s = DFS_MAX(e.off, w->off), t = DFS_MIN(e.off + e.len, end);
        for (uint64_t i = (s - w->off) / DFS_PAGE; i < (t - w->off) / DFS_PAGE; i++)
            if (!w->version[i]) {
                w->mapped[i] = true;
                w->nmapped++;
            }
    }
    return r == -ENOENT ? 0 : r;
}

/* The next window with dirty pages at or after *ino, *idx; -ENOENT: none (of `only`, if that is not 0). */
static int window_next(struct dfs_store *st, uint64_t only, uint64_t *ino, uint64_t *idx, struct window *w) {
    struct dfs_txn tx;
    uint8_t *const buf = w->buf;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        memset(w, 0, sizeof *w);
        w->buf = buf;
        w->npages = st->params.chunk_size / DFS_PAGE;
        struct dfs_page *p = dfs_dirty_seek(&st->dirty, *ino, *idx);
        if (!p || (only && p->ino != only)) {
            r = -ENOENT;
            continue;
        }
        struct dfs_inode in;
        w->ino = p->ino;
        w->off = p->idx / w->npages * w->npages * DFS_PAGE;
        const uint64_t first = w->off >> DFS_PAGE_SHIFT;
        for (; p && p->ino == w->ino && p->idx < first + w->npages; p = dfs_dirty_next(&st->dirty, p)) {
            const uint64_t i = p->idx - first;
            w->version[i] = p->version;
            w->ndirty++;
            memcpy(w->buf + i * DFS_PAGE, p->data, DFS_PAGE);
        }
        r = window_extents(&tx, w);
        if (r == 0)
            r = dfs_inode_get(&tx, w->ino, &in);
        if (r == -ENOENT)
            r = -EUCLEAN;
        if (r == 0) {
            w->size = in.size;
            w->roomy = dfs_alloc_pool_blocks(st->alloc) > st->dirty.count + w->npages + FEW_BLOCKS;
            w->inlined = in.size <= DFS_INLINE_MAX && w->off == 0 && w->ndirty == 1 && w->version[0];
        }
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* Reads the clean pages of the window next to the dirty ones. */
static int window_fill(struct dfs_store *st, struct window *w) {
    for (unsigned i = 0; i < w->nextents; i++) {
        const struct dfs_extent *e = &w->extents[i];
        if (e->type != DFS_EXTENT_CHUNK)
            continue;
        const uint64_t s = DFS_MAX(e->off, w->off), t = DFS_MIN(e->off + e->len, w->off + (uint64_t)w->npages * DFS_PAGE);
        uint64_t from = (s - w->off) / DFS_PAGE;
        const uint64_t end = (t - w->off) / DFS_PAGE;
        while (from < end) {
            uint64_t to = from;
            while (to < end && w->mapped[to])
                to++;
            if (to == from) {
                from++;
                continue;
            }
            struct dfs_txn tx;
            struct dfs_chunk c;
            dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
            int r;
            do
                r = dfs_chunk_get(&tx, e->chunk, &c);
            while (dfs_txn_again(&tx, &r));
            r = dfs_txn_end(&tx, r);
            if (r == 0)
                r = dfs_chunk_read(st, e->chunk, &c, e->chunk_off + (uint32_t)(w->off + from * DFS_PAGE - e->off),
                                   (uint32_t)((to - from) * DFS_PAGE), w->buf + from * DFS_PAGE);
            if (r != 0)
                return r;
            from = to;
        }
    }
    return 0;
}

/* ---- writing chunks out --------------------------------------------------------------------------------------- */

#define UNDER_WAY 1 /* no transfer results in this */

/* Neighbouring chunks go out in one transfer. Two buffers: one fills while the other is written. */
struct writer {
    struct dfs_store *st;
    struct dfs_io_batch *batch;
    uint8_t *buf[2];
    uint8_t *out; /* the chunk being encoded. Not the thread's scratch: an operation that waits for room may hold that */
    struct dfs_chunk_desc desc;
    struct dfs_io_req req[2];
    unsigned cur;
    uint64_t addr;
    size_t used;
};

static int writer_flush(struct writer *w) {
    if (w->used == 0)
        return 0;
    struct dfs_io *io = w->st->io;
    struct dfs_io_req *mine = &w->req[w->cur], *other = &w->req[w->cur ^ 1];
    *mine = (struct dfs_io_req){.op = DFS_IO_WRITE,
                                .file = DFS_IO_DATA,
                                .buf = w->buf[w->cur],
                                .len = w->used,
                                .off = w->addr * DFS_BLOCK_SIZE,
                                .result = UNDER_WAY};
    int r = io->ops->batch_submit(w->batch, mine);
    /* The other buffer is filled next, so its transfer must have come back; the two may do so in either order. */
    if (r == 0)
        r = io->ops->batch_wait(w->batch, 1);
    if (r == 0 && other->result == UNDER_WAY)
        r = io->ops->batch_wait(w->batch, 0);
    w->cur ^= 1;
    w->used = 0;
    return r;
}

static int writer_put(struct writer *w, uint64_t addr, const uint8_t *data, size_t len) {
    if (w->used && (w->addr + w->used / DFS_BLOCK_SIZE != addr || w->used + len > DFS_SCRATCH_BUF)) {
        const int r = writer_flush(w);
        if (r != 0)
            return r;
    }
    if (w->used == 0)
        w->addr = addr;
    memcpy(w->buf[w->cur] + w->used, data, len);
    w->used += len;
    return 0;
}

/* A run of pages [from, to) of the window becomes a chunk, or several. */
static int run_write(struct dfs_store *st, struct writer *wr, struct window *w, uint32_t from, uint32_t to, bool whole,
                     struct jobs *jobs) {
    const size_t raw = (size_t)(to - from) * DFS_PAGE;
    const int level = dfs_compress_level(st, w->ino);
    struct dfs_chunk_desc *d = &wr->desc;
    int r = dfs_chunk_encode(w->buf + (size_t)from * DFS_PAGE, raw, level, wr->out, d);
    if (r != 0)
        return r;
    if (level > 0 && raw > DFS_PAGE)
        dfs_compress_learn(st, w->ino, raw, d->stored_len);
    const uint32_t blocks = dfs_chunk_blocks(d);
    uint64_t addr;
    r = dfs_alloc_take(st->alloc, blocks, &addr);
    if (r == -ENOSPC && dfs_alloc_refill(st->alloc, dfs_alloc_pool_blocks(st->alloc) + 4096) != -EIO)
        r = dfs_alloc_take(st->alloc, blocks, &addr);
    if (r == -ENOSPC && to - from > 1) { /* a full and crumbled host: smaller chunks find their places */
        const uint32_t mid = from + (to - from) / 2;
        r = run_write(st, wr, w, from, mid, whole, jobs);
        return r != 0 ? r : run_write(st, wr, w, mid, to, whole, jobs);
    }
    if (r != 0)
        return r;
    struct job *j = job_add(jobs);
    if (j) {
        j->ino = w->ino;
        j->off = w->off + (uint64_t)from * DFS_PAGE;
        j->npages = to - from;
        j->addr = addr;
        j->desc = malloc(DFS_CHUNK_DESC_HEAD + 8u * d->nunits);
        j->pages = calloc(j->npages, sizeof *j->pages);
        if (whole) {
            j->extents = malloc(w->nextents * sizeof *j->extents);
            j->nextents = w->nextents;
        }
    }
    if (!j || !j->desc || !j->pages || (whole && !j->extents)) {
        dfs_alloc_cancel(st->alloc, addr, blocks);
        if (j) {
            job_free(j);
            jobs->n--;
        }
        return -ENOMEM;
    }
    j->desc_len = dfs_chunk_desc_put(d, j->desc);
    for (uint32_t i = 0; i < j->npages; i++)
        j->pages[i] = (struct page_ref){(w->off >> DFS_PAGE_SHIFT) + from + i, w->version[from + i]};
    if (whole)
        memcpy(j->extents, w->extents, w->nextents * sizeof *j->extents);
    return writer_put(wr, addr, d->codec == DFS_CODEC_RAW ? w->buf + (size_t)from * DFS_PAGE : wr->out,
                      (size_t)blocks * DFS_BLOCK_SIZE);
}

static int window_write(struct dfs_store *st, struct writer *wr, struct window *w, struct jobs *jobs) {
    if (w->inlined) {
        struct job *j = job_add(jobs);
        if (!j || !(j->pages = calloc(1, sizeof *j->pages)))
            return -ENOMEM;
        j->ino = w->ino;
        j->inlined = true;
        j->size = w->size;
        j->npages = 1;
        j->pages[0] = (struct page_ref){0, w->version[0]};
        return 0;
    }
    bool whole = w->roomy && w->nmapped > 0 && !w->too_many && (w->ndirty >= w->nmapped || w->nextents >= CRUMBLED);
    if (whole && window_fill(st, w) != 0)
        whole = false; /* damaged or gone: what is dirty is still good */
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < w->npages;) {
        uint32_t end = i;
        bool dirty = false;
        while (end < w->npages && (w->version[end] || (whole && w->mapped[end])))
            dirty |= w->version[end++] != 0;
        if (dirty)
            r = run_write(st, wr, w, i, end, whole, jobs);
        i = end + 1;
    }
    return r;
}

/* ---- putting them in place ------------------------------------------------------------------------------------ */

/* Is everything the job was made from still so? 1/0, -EAGAIN. */
static int job_current(struct dfs_txn *tx, const struct job *j) {
    for (uint32_t i = 0; i < j->npages; i++) {
        const struct dfs_page *p = dfs_dirty_get(&tx->st->dirty, j->ino, j->pages[i].idx);
        if ((p ? p->version : 0) != j->pages[i].version)
            return 0;
    }
    struct dfs_iter it;
    struct dfs_extent e;
    for (unsigned i = 0; i < j->nextents; i++) {
        const struct dfs_extent *x = &j->extents[i];
        const uint64_t from = DFS_MAX(x->off, j->off), to = DFS_MIN(x->off + x->len, j->off + (uint64_t)j->npages * DFS_PAGE);
        if (from >= to)
            continue;
        const int r = dfs_extent_find(tx, j->ino, from, &it, &e);
        if (r == -ENOENT)
            return 0;
        if (r != 0)
            return r;
        if (e.off > from || e.off + e.len < to || e.type != x->type ||
            (x->type == DFS_EXTENT_CHUNK &&
             (e.chunk != x->chunk || e.chunk_off + (from - e.off) != x->chunk_off + (from - x->off))))
            return 0;
    }
    return 1;
}

static int job_commit(struct dfs_txn *tx, struct job *j, bool final) {
    struct dfs_store *st = tx->st;
    int r = job_current(tx, j);
    if (r < 0)
        return r;
    struct dfs_rec rec = {.type = DFS_REC_MATERIALISE, .ino = j->ino, .off = j->off, .chunk = st->next_chunk};
    struct dfs_rec_chunk_mem c = {.addr = j->addr};
    if (j->inlined) {
        struct dfs_inode in;
        if (r == 1 && (r = dfs_inode_get(tx, j->ino, &in)) == 0)
            r = in.size == j->size;
        rec.len = j->size;
        rec.chunk = 0;
    } else {
        const int d = dfs_chunk_desc_get(j->desc, j->desc_len, &c.desc);
        assert(d == 0);
        (void)d;
        rec.len = (uint64_t)j->npages * DFS_PAGE;
        rec.chunks = &c;
        rec.nchunks = 1;
        rec.flags = final ? DFS_RECF_UNPLACED : 0;
    }
    if (r < 0)
        return r;
    if (r == 1) {
        r = dfs_journal_room(st->journal) < sizeof(struct dfs_rec_header) + dfs_rec_size(&rec) + MARK_ROOM ? -ENOSPC
                                                                                                    : dfs_txn_commit(tx, &rec);
        if (r != 0)
            return r;
    } else if (!j->inlined) {
        dfs_alloc_cancel(st->alloc, j->addr, dfs_chunk_blocks(&c.desc));
    }
    j->done = true;
    return 0;
}

static int jobs_commit(struct dfs_store *st, struct jobs *jobs, bool final) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < jobs->n; i += COMMIT_BATCH) {
        struct dfs_txn tx;
        r = dfs_txn_begin(&tx, st, DFS_TXN_CHECKPOINT, 0);
        if (r != 0)
            break;
        do {
            r = 0;
            for (size_t k = i; r == 0 && k < jobs->n && k < i + COMMIT_BATCH; k++)
                if (!jobs->j[k].done)
                    r = job_commit(&tx, &jobs->j[k], final);
        } while (dfs_txn_again(&tx, &r));
        r = dfs_txn_end(&tx, r);
    }
    return r;
}

static void jobs_free(struct dfs_store *st, struct jobs *jobs) {
    for (size_t i = 0; i < jobs->n; i++) {
        struct job *j = &jobs->j[i];
        struct dfs_chunk_desc d;
        if (!j->done && !j->inlined && dfs_chunk_desc_get(j->desc, j->desc_len, &d) == 0)
            dfs_alloc_cancel(st->alloc, j->addr, dfs_chunk_blocks(&d));
        job_free(j);
    }
    free(jobs->j);
}

int dfs_materialise(struct dfs_store *st, uint64_t only, bool final) {
    struct jobs jobs = {0};
    cleanup_free struct writer *wr = calloc(1, sizeof *wr);
    uint64_t ino = only, idx = 0;
    cleanup_free struct window *w = calloc(1, sizeof *w);
    cleanup_free uint8_t *wbuf = dfs_io_alloc(st->params.chunk_size);
    cleanup_free uint8_t *b0 = dfs_io_alloc(DFS_SCRATCH_BUF);
    cleanup_free uint8_t *b1 = dfs_io_alloc(DFS_SCRATCH_BUF);
    cleanup_free uint8_t *out = dfs_io_alloc(st->params.chunk_size);
    if (!w || !wr || !wbuf || !b0 || !b1 || !out)
        return -ENOMEM;
    wr->st = st;
    wr->out = out;
    wr->buf[0] = b0;
    wr->buf[1] = b1;
    int r = st->io->ops->batch_begin(st->io, &wr->batch);
    if (r != 0)
        return r;
    while (r == 0) {
        w->buf = wbuf;
        r = window_next(st, only, &ino, &idx, w);
        if (r != 0)
            break;
        r = window_write(st, wr, w, &jobs);
        ino = w->ino;
        idx = (w->off >> DFS_PAGE_SHIFT) + w->npages;
    }
    if (r == -ENOENT)
        r = 0;
    const int f = r == 0 ? writer_flush(wr) : 0;
    const int e = st->io->ops->batch_wait(wr->batch, 0);
    st->io->ops->batch_end(wr->batch);
    if (r == 0)
        r = f != 0 ? f : e;
    bool written = false;
    for (size_t i = 0; i < jobs.n; i++)
        written |= !jobs.j[i].inlined;
    if (r == 0 && written && !final)
        r = st->io->ops->sync(st->io, DFS_IO_DATA);
    if (r == 0)
        r = jobs_commit(st, &jobs, final);
    jobs_free(st, &jobs);
    return r;
}

int dfs_materialise_file(struct dfs_store *st, uint64_t ino) {
    pthread_mutex_lock(&st->checkpoint_lock);
    const int r = dfs_materialise(st, ino, false);
    pthread_mutex_unlock(&st->checkpoint_lock);
    return r;
}
