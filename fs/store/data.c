/* Reading: what a range of a file consists of is looked up under the shared tree lock; dirty pages are copied there and
 * then, chunks are read, verified and decompressed without it. Should a chunk go away and its blocks be reused meanwhile,
 * its checksum tells, and the read starts over. */
#include <inttypes.h>
#include <sys/stat.h>

#include "fs/store/scratch.h"
#include "fs/store/unit_cache.h"

#define RETRIES 16u

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *p) {
    struct dfs_scratch *s = p;
    free(s->buf);
    free(s->out);
    free(s);
}
static void scratch_key_make(void) {
    pthread_key_create(&scratch_key, scratch_free);
}
struct dfs_scratch *dfs_scratch_get(void) {
    pthread_once(&scratch_once, scratch_key_make);
    struct dfs_scratch *s = pthread_getspecific(scratch_key);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->buf = dfs_io_alloc(DFS_SCRATCH_BUF);
    s->out = dfs_io_alloc(DFS_SCRATCH_BUF);
    if (!s->buf || !s->out || pthread_setspecific(scratch_key, s) != 0) {
        scratch_free(s);
        return NULL;
    }
    return s;
}

/* Is the chunk still where it was? Then its bytes are damaged. */
static int chunk_suspect(struct dfs_store *st, uint64_t id, uint64_t addr) {
    struct dfs_txn tx;
    struct dfs_chunk c;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do
        r = dfs_chunk_get(&tx, id, &c);
    while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r == -ENOENT || (r == 0 && c.addr != addr))
        return -ESTALE;
    return r != 0 ? r : -EIO;
}

static int segs_read(struct dfs_store *st, struct dfs_read_seg *segs, unsigned n) {
    struct dfs_io *io = st->io;
    if (n == 1 && segs[0].span) {
        struct dfs_read_seg *s = &segs[0];
        s->req.result = io->ops->read(io, DFS_IO_DATA, s->span, s->span_len,
                                      s->chunk.addr * DFS_BLOCK_SIZE + s->span_off);
        return 0;
    }
    struct dfs_io_batch *b;
    int r = io->ops->batch_begin(io, &b);
    if (r != 0)
        return r;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        struct dfs_read_seg *s = &segs[i];
        s->req = (struct dfs_io_req){.op = DFS_IO_READ,
                                     .file = DFS_IO_DATA,
                                     .buf = s->span,
                                     .len = s->span_len,
                                     .off = s->chunk.addr * DFS_BLOCK_SIZE + s->span_off};
        r = io->ops->batch_submit(b, &s->req);
    }
    const int w = io->ops->batch_wait(b, 0);
    io->ops->batch_end(b);
    (void)w; /* each request has its own result */
    return r;
}

/* A part of one compressed unit: the whole unit is decompressed and kept. */
static int unit_read(struct dfs_store *st, const struct dfs_read_seg *s) {
    uint32_t unit_off, unit_len;
    dfs_chunk_unit(&s->chunk.desc, s->off, &unit_off, &unit_len);
    uint8_t *unit = malloc(unit_len);
    if (!unit)
        return -ENOMEM;
    const int r = dfs_chunk_decode(&s->chunk.desc, s->span, s->span_off, s->span_len, unit_off, unit_len, unit);
    if (r != 0) {
        free(unit);
        return r;
    }
    memcpy(s->dst, unit + (s->off - unit_off), s->len);
    dfs_unit_cache_put(st->units, s->id, unit_off, unit, unit_len);
    return 0;
}

static bool within_unit(const struct dfs_chunk_desc *d, uint32_t off, uint32_t len) {
    uint32_t unit_off, unit_len;
    dfs_chunk_unit(d, off, &unit_off, &unit_len);
    return d->codec == DFS_CODEC_ZSTD && len < unit_len && off + len <= unit_off + unit_len;
}

static int seg_decode(struct dfs_store *st, struct dfs_read_seg *s) {
    int r = s->req.result;
    if (r == 0)
        r = within_unit(&s->chunk.desc, s->off, s->len)
                ? unit_read(st, s)
                : dfs_chunk_decode(&s->chunk.desc, s->span, s->span_off, s->span_len, s->off, s->len, s->dst);
    atomic_fetch_add_explicit(&st->n_verified, 1, memory_order_relaxed);
    return r;
}

/* Sets up where the seg's stored bytes go. False: the scratch buffer is used up. */
static bool seg_place(struct dfs_read_seg *s, struct dfs_scratch *scratch, size_t *used) {
    const struct dfs_chunk_desc *d = &s->chunk.desc;
    dfs_chunk_span(d, s->off, s->len, &s->span_off, &s->span_len);
    if (d->codec == DFS_CODEC_RAW && s->span_len == s->len && s->span_off == s->off &&
        (uintptr_t)s->dst % DFS_IO_ALIGN == 0) {
        s->span = s->dst;
        return true;
    }
    if (*used + s->span_len > DFS_SCRATCH_BUF)
        return false;
    s->span = scratch->buf + *used;
    *used += s->span_len;
    return true;
}

static void report_damage(struct dfs_store *st, uint64_t ino, const struct dfs_read_seg *s, int r) {
    char path[512];
    dfs_ino_path(st, ino, path, sizeof path);
    atomic_fetch_add_explicit(&st->n_bad, 1, memory_order_relaxed);
    dfs_log(DFS_LOG_ERROR, r == -EBADMSG ? "data does not match its checksum" : "data cannot be read",
            "inode=%" PRIu64 " path=\"%s\" offset=%" PRIu64 " chunk=%" PRIu64 " block=%" PRIu64 " errno=%d answer=EIO",
            ino, path, s->file_off, s->id, s->chunk.addr, -r);
}

int dfs_chunk_read(struct dfs_store *st, uint64_t id, const struct dfs_chunk *c, uint32_t off, uint32_t len, void *dst) {
    if (off > c->desc.raw_len || len > c->desc.raw_len - off)
        return -EUCLEAN;
    if (c->addr == DFS_CHUNK_ABSENT)
        return -EIO;
    struct dfs_read_seg *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    *s = (struct dfs_read_seg){.id = id, .off = off, .len = len, .dst = dst, .chunk = *c};
    dfs_chunk_span(&c->desc, off, len, &s->span_off, &s->span_len);
    s->span = dfs_io_alloc(s->span_len);
    int r = s->span ? segs_read(st, s, 1) : -ENOMEM;
    if (r == 0)
        r = seg_decode(st, s);
    if (r == -EBADMSG || r == -EIO) {
        const int why = r;
        r = chunk_suspect(st, id, c->addr);
        if (r == -EIO) {
            atomic_fetch_add_explicit(&st->n_bad, 1, memory_order_relaxed);
            dfs_log(DFS_LOG_ERROR, "chunk damaged", "chunk=%" PRIu64 " offset=%u block=%" PRIu64 " errno=%d", id, off,
                    c->addr, -why);
        }
    }
    free(s->span);
    free(s);
    return r;
}

/* Looks up what [*pos, end) consists of, copies what is in memory, and lists chunk parts to read; *pos moves on as far as
 * the list and the scratch memory go. */
static int gather(struct dfs_txn *tx, uint64_t ino, uint64_t base, uint64_t *pos, uint64_t end, uint8_t *buf,
                  struct dfs_scratch *scratch, unsigned *n) {
    struct dfs_store *st = tx->st;
    size_t used = 0;
    *n = 0;
    struct dfs_iter it;
    struct dfs_extent e;
    int r = dfs_extent_find(tx, ino, *pos, &it, &e);
    const struct dfs_page *p = dfs_dirty_seek(&st->dirty, ino, *pos >> DFS_PAGE_SHIFT);
    uint64_t at = *pos;
    while (at < end) {
        if (r != 0 && r != -ENOENT)
            return r;
        uint8_t *dst = buf + (at - base);
        const uint64_t dirty_off = p && p->ino == ino ? p->idx << DFS_PAGE_SHIFT : UINT64_MAX;
        if (dirty_off <= at) {
            const uint64_t t = DFS_MIN(dirty_off + DFS_PAGE, end);
            memcpy(dst, p->data + (at - dirty_off), t - at);
            at = t;
            p = dfs_dirty_next(&st->dirty, (struct dfs_page *)(uintptr_t)p);
            continue;
        }
        while (r == 0 && e.off + e.len <= at)
            r = dfs_extent_next(&it, ino, &e);
        if (r != 0 && r != -ENOENT)
            return r;
        const bool mapped = r == 0 && e.off <= at;
        uint64_t t = DFS_MIN(end, dirty_off);
        t = DFS_MIN(t, mapped ? e.off + e.len : r == 0 ? e.off : UINT64_MAX);
        if (!mapped || e.type == DFS_EXTENT_UNWRITTEN) {
            memset(dst, 0, t - at);
        } else if (e.type == DFS_EXTENT_INLINE) {
            const size_t have = at < e.data_len ? DFS_MIN(e.data_len - at, t - at) : 0;
            if (have)
                memcpy(dst, e.data + at, have);
            memset(dst + have, 0, t - at - have);
        } else {
            if (*n == DFS_READ_SEGS)
                break;
            struct dfs_read_seg *s = &scratch->segs[*n];
            const uint64_t off = e.chunk_off + (at - e.off);
            const int c = dfs_chunk_get(tx, e.chunk, &s->chunk);
            if (c != 0)
                return c == -ENOENT ? -EUCLEAN : c;
            if (off + (t - at) > s->chunk.desc.raw_len)
                return -EUCLEAN;
            s->id = e.chunk;
            s->file_off = at;
            s->off = (uint32_t)off;
            s->len = (uint32_t)(t - at);
            s->dst = dst;
            s->req.result = 0;
            if (within_unit(&s->chunk.desc, s->off, s->len)) {
                uint32_t unit_off, unit_len;
                dfs_chunk_unit(&s->chunk.desc, s->off, &unit_off, &unit_len);
                if (dfs_unit_cache_get(st->units, e.chunk, unit_off, s->off - unit_off, s->len, dst)) {
                    at = t;
                    continue;
                }
            }
            if (s->chunk.addr == DFS_CHUNK_ABSENT)
                return -EIO;
            if (!seg_place(s, scratch, &used))
                break;
            ++*n;
        }
        at = t;
    }
    *pos = at;
    return 0;
}

/* One round: look up, read, verify. -ESTALE: look again. */
static int read_some(struct dfs_store *st, uint64_t ino, uint64_t off, uint64_t *pos, size_t *len, uint8_t *buf,
                     struct dfs_scratch *scratch) {
    struct dfs_txn tx;
    unsigned n = 0;
    const uint64_t start = *pos;
    uint64_t next = start;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode in;
        next = start;
        r = dfs_inode_get(&tx, ino, &in);
        if (r == 0 && !S_ISREG(in.mode))
            r = S_ISDIR(in.mode) ? -EISDIR : -EINVAL;
        if (r == 0) {
            if (off >= in.size)
                *len = 0;
            else if (*len > in.size - off)
                *len = (size_t)(in.size - off);
            if (next < off + *len)
                r = gather(&tx, ino, off, &next, off + *len, buf, scratch, &n);
        }
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r == 0 && n > 0)
        r = segs_read(st, scratch->segs, n);
    for (unsigned i = 0; r == 0 && i < n; i++) {
        struct dfs_read_seg *s = &scratch->segs[i];
        const int d = seg_decode(st, s);
        if (d == 0)
            continue;
        r = chunk_suspect(st, s->id, s->chunk.addr);
        if (r == -EIO)
            report_damage(st, ino, s, d);
    }
    if (r == 0)
        *pos = next;
    return r;
}

ssize_t dfs_read(struct dfs_store *st, uint64_t ino, uint64_t off, void *buf, size_t len) {
    struct dfs_scratch *scratch = dfs_scratch_get();
    if (!scratch)
        return -ENOMEM;
    if (off > DFS_FILE_SIZE_MAX)
        return 0;
    len = (size_t)DFS_MIN((uint64_t)len, (uint64_t)DFS_FILE_SIZE_MAX - off);
    uint64_t pos = off;
    int r = 0;
    unsigned stale = 0;
    do {
        r = read_some(st, ino, off, &pos, &len, buf, scratch);
        if (r == -ESTALE)
            r = ++stale < RETRIES ? 0 : -EIO;
    } while (r == 0 && pos < off + len);
    if (r != 0)
        return r;
    atomic_fetch_add_explicit(&st->n_reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->n_bytes_read, len, memory_order_relaxed);
    return (ssize_t)len;
}
