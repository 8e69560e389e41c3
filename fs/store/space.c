/* Operations on the space of files: reserving, punching and zeroing ranges, finding data and holes, copying ranges by
 * sharing chunks. A range is worked on in steps of a bounded number of extents, each step a record of its own. */
#include <linux/falloc.h>
#include <sys/stat.h>

#include "fs/store/internal.h"

#define STEP_EXTENTS 48u
#define COPY_BUF ((size_t)256 << 10)

static int file_look(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const int r = dfs_inode_get(tx, ino, in);
    if (r == 0 && !S_ISREG(in->mode))
        return S_ISDIR(in->mode) ? -EISDIR : -EINVAL;
    return r;
}

/* How far a step from `off` may go towards `end`: past no more than STEP_EXTENTS extents, to a page's border. */
static int step_end(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end, uint64_t *stop) {
    struct dfs_iter it;
    struct dfs_extent e;
    *stop = end;
    int r = dfs_extent_find(tx, ino, off & ~(uint64_t)(DFS_PAGE - 1), &it, &e);
    for (unsigned n = 0; r == 0 && e.off < end; n++) {
        if (n == STEP_EXTENTS && e.off > off) {
            *stop = e.off;
            return 0;
        }
        r = dfs_extent_next(&it, ino, &e);
    }
    return r == -ENOENT ? 0 : r;
}

/* ---- reserving, punching, zeroing ----------------------------------------------------------------------------- */

static int fallocate_step(struct dfs_store *st, uint64_t ino, int mode, uint64_t off, uint64_t end, uint64_t *stop) {
    const bool punch = mode & FALLOC_FL_PUNCH_HOLE, zero = mode & FALLOC_FL_ZERO_RANGE;
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, st, punch ? DFS_TXN_SHRINK : DFS_TXN_GROW, sizeof(struct dfs_rec_body));
    if (r != 0)
        return r;
    do {
        struct dfs_inode in;
        r = file_look(&tx, ino, &in);
        if (r == 0 && !punch)
            r = dfs_quota_check(&tx, ino, off, end);
        if (r == 0)
            r = dfs_drop_capability(&tx, ino);
        if (r == 0)
            r = step_end(&tx, ino, off, end, stop);
        if (r != 0)
            continue;
        struct dfs_rec rec = {.type = punch ? DFS_REC_PUNCH : DFS_REC_RESERVE,
                              .ino = ino,
                              .off = off,
                              .len = *stop - off,
                              .size = *stop,
                              .mtime = in.mtime,
                              .valid = DFS_SET_KILL_SUID};
        if (!punch)
            rec.flags = (uint16_t)((zero ? DFS_RECF_ZERO : 0) | (mode & FALLOC_FL_KEEP_SIZE ? DFS_RECF_KEEP_SIZE : 0));
        dfs_now(st, &rec.time);
        r = dfs_txn_commit(&tx, &rec);
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

int dfs_fallocate(struct dfs_store *st, uint64_t ino, int mode, uint64_t off, uint64_t len) {
    switch (mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        break;
    default:
        return -EOPNOTSUPP;
    }
    if (len == 0)
        return -EINVAL;
    if (off >= DFS_FILE_SIZE_MAX || len > (uint64_t)DFS_FILE_SIZE_MAX - off)
        return -EFBIG;
    const uint64_t end = off + len;
    int r = 0;
    for (uint64_t stop; r == 0 && off < end; off = stop)
        r = fallocate_step(st, ino, mode, off, end, &stop);
    return r;
}

/* ---- data and holes ------------------------------------------------------------------------------------------- */

/* Where the next byte of data is at or after *pos; UINT64_MAX: nowhere. */
static int next_data(struct dfs_txn *tx, uint64_t ino, uint64_t pos, uint64_t *data) {
    struct dfs_iter it;
    struct dfs_extent e;
    const struct dfs_page *p = dfs_dirty_seek(&tx->st->dirty, ino, pos >> DFS_PAGE_SHIFT);
    *data = p && p->ino == ino ? DFS_MAX(pos, p->idx << DFS_PAGE_SHIFT) : UINT64_MAX;
    int r = dfs_extent_find(tx, ino, pos, &it, &e);
    for (; r == 0 && e.off < *data; r = dfs_extent_next(&it, ino, &e))
        if (e.type != DFS_EXTENT_UNWRITTEN) {
            *data = DFS_MAX(pos, e.off);
            return 0;
        }
    return r == -ENOENT ? 0 : r;
}

/* The end of the data that `*pos` lies in, if it lies in some. */
static int skip_data(struct dfs_txn *tx, uint64_t ino, uint64_t *pos) {
    struct dfs_iter it;
    struct dfs_extent e;
    int r = dfs_extent_find(tx, ino, *pos, &it, &e);
    for (;;) {
        if (r != 0 && r != -ENOENT)
            return r;
        if (r == 0 && e.off + e.len <= *pos) {
            r = dfs_extent_next(&it, ino, &e);
        } else if (r == 0 && e.off <= *pos && e.type != DFS_EXTENT_UNWRITTEN) {
            *pos = e.off + e.len;
        } else if (dfs_dirty_get(&tx->st->dirty, ino, *pos >> DFS_PAGE_SHIFT)) {
            *pos = (*pos & ~(uint64_t)(DFS_PAGE - 1)) + DFS_PAGE;
        } else {
            return 0;
        }
    }
}

int64_t dfs_seek(struct dfs_store *st, uint64_t ino, uint64_t off, int whence) {
    struct dfs_txn tx;
    uint64_t pos = off;
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    int r;
    do {
        struct dfs_inode in;
        r = file_look(&tx, ino, &in);
        if (r == 0 && off >= in.size)
            r = -ENXIO;
        if (r == 0 && whence == SEEK_HOLE) {
            r = skip_data(&tx, ino, &pos);
            pos = DFS_MIN(pos, in.size); /* also a place to go on from */
        } else if (r == 0) {
            r = next_data(&tx, ino, off, &pos);
            if (r == 0 && pos >= in.size)
                r = -ENXIO;
        }
    } while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    return r != 0 ? r : (int64_t)pos;
}

/* ---- copying -------------------------------------------------------------------------------------------------- */

struct copy {
    uint64_t in, off_in, out, off_out;
};

/* Byte by byte: `len` of them at the most. */
static ssize_t copy_bytes(struct dfs_store *st, const struct copy *c, size_t len) {
    len = DFS_MIN(len, COPY_BUF);
    cleanup_free void *buf = dfs_io_alloc(len);
    if (!buf)
        return -ENOMEM;
    const ssize_t n = dfs_read(st, c->in, c->off_in, buf, len);
    return n <= 0 ? n : dfs_write(st, c->out, c->off_out, buf, (size_t)n, DFS_WRITE_KILL_SUID);
}

/* What there is at the start of a range of whole pages: how much of it can be shared in one step (*len), or must be copied
 * (*share false). -EINPROGRESS: it is only in memory so far. */
static int look_at_source(struct dfs_txn *tx, const struct copy *c, uint64_t *len, bool *share) {
    struct dfs_iter it;
    struct dfs_extent e;
    const uint64_t end = c->off_in + *len;
    uint64_t stop;
    *share = true;
    const struct dfs_page *p = dfs_dirty_seek(&tx->st->dirty, c->in, c->off_in >> DFS_PAGE_SHIFT);
    if (p && p->ino == c->in && p->idx << DFS_PAGE_SHIFT < end)
        return -EINPROGRESS;
    int r = dfs_extent_find(tx, c->in, c->off_in, &it, &e);
    if (r == 0 && e.type == DFS_EXTENT_INLINE && e.off <= c->off_in) {
        *share = false;
        *len = DFS_PAGE;
        return 0;
    }
    if (r != 0 && r != -ENOENT)
        return r;
    r = step_end(tx, c->in, c->off_in, end, &stop);
    if (r != 0)
        return r;
    *len = stop - c->off_in;
    r = step_end(tx, c->out, c->off_out, c->off_out + *len, &stop);
    *len = stop - c->off_out;
    return r;
}

/* Shares the chunks of whole pages: how many bytes that was, 0: they have to be copied. */
static ssize_t share_pages(struct dfs_store *st, const struct copy *c, uint64_t len) {
    struct dfs_txn tx;
    uint64_t n = len;
    for (int tries = 0; tries < 3; tries++) {
        int r = dfs_txn_begin(&tx, st, DFS_TXN_GROW, sizeof(struct dfs_rec_body));
        if (r != 0)
            return r;
        do {
            struct dfs_inode src, dst;
            bool share = false;
            n = len;
            r = file_look(&tx, c->in, &src);
            if (r == 0)
                r = file_look(&tx, c->out, &dst);
            if (r == 0 && c->off_in + n > src.size)
                n = src.size > c->off_in ? (src.size - c->off_in) & ~(uint64_t)(DFS_PAGE - 1) : 0;
            if (r == 0 && n > 0)
                r = look_at_source(&tx, c, &n, &share);
            if (r == 0 && n > 0 && share)
                r = dfs_quota_check(&tx, c->out, c->off_out, c->off_out + n);
            if (r == 0 && n > 0 && share)
                r = dfs_drop_capability(&tx, c->out);
            if (r == 0 && (n == 0 || !share)) {
                n = 0;
                continue;
            }
            if (r != 0)
                continue;
            struct dfs_rec rec = {.type = DFS_REC_CLONE,
                                  .ino = c->in,
                                  .off = c->off_in,
                                  .ino2 = c->out,
                                  .size = c->off_out,
                                  .len = n,
                                  .generation = c->off_out + n,
                                  .valid = DFS_SET_KILL_SUID};
            dfs_now(st, &rec.time);
            r = dfs_txn_commit(&tx, &rec);
        } while (dfs_txn_again(&tx, &r));
        r = dfs_txn_end(&tx, r);
        if (r == 0)
            return (ssize_t)n;
        if (r != -EINPROGRESS)
            return r;
        r = dfs_materialise_file(st, c->in);
        if (r != 0 && r != -ENOSPC)
            return r;
    }
    return 0; /* it is written to all the time */
}

ssize_t dfs_copy_range(struct dfs_store *st, uint64_t in, uint64_t off_in, uint64_t out, uint64_t off_out, size_t len) {
    struct dfs_attr a, b;
    int r = dfs_getattr(st, in, &a);
    if (r == 0 && !S_ISREG(a.mode))
        r = S_ISDIR(a.mode) ? -EISDIR : -EINVAL;
    if (r == 0)
        r = dfs_getattr(st, out, &b);
    if (r == 0 && !S_ISREG(b.mode))
        r = S_ISDIR(b.mode) ? -EISDIR : -EINVAL;
    if (r != 0)
        return r;
    if (off_in >= a.size || len == 0)
        return 0;
    const uint64_t n = DFS_MIN((uint64_t)len, a.size - off_in);
    if (off_out >= DFS_FILE_SIZE_MAX || n > (uint64_t)DFS_FILE_SIZE_MAX - off_out)
        return -EFBIG;
    if (in == out && off_in < off_out + n && off_out < off_in + n)
        return -EINVAL;
    uint64_t done = 0;
    ssize_t got = 1;
    while (got > 0 && done < n) {
        const struct copy c = {in, off_in + done, out, off_out + done};
        const uint64_t left = n - done, to_page = (DFS_PAGE - c.off_in % DFS_PAGE) % DFS_PAGE;
        const bool can_share = off_in % DFS_PAGE == off_out % DFS_PAGE;
        if (!can_share || to_page) {
            got = copy_bytes(st, &c, (size_t)(can_share ? DFS_MIN(left, to_page) : left));
        } else {
            got = left >= DFS_PAGE ? share_pages(st, &c, left & ~(uint64_t)(DFS_PAGE - 1)) : 0;
            if (got == 0)
                got = copy_bytes(st, &c, (size_t)DFS_MIN(left, (uint64_t)DFS_PAGE));
        }
        if (got > 0)
            done += (uint64_t)got;
    }
    return done > 0 || got == 0 ? (ssize_t)done : got;
}
