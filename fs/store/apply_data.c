/* Applying records that change what files contain. Each function looks first and changes then; see dfs_apply(). */
#include <assert.h>
#include <sys/stat.h>

#include "fs/store/internal.h"

#define BATCH_PIECES 80 /* gaps or pieces a single record may deal with */

static uint64_t page_up(uint64_t off) {
    return DFS_ROUND_UP(off, (uint64_t)DFS_PAGE);
}
static uint64_t page_down(uint64_t off) {
    return off & ~(uint64_t)(DFS_PAGE - 1);
}

/* How many pages of [off, end) are mapped, by an extent or a dirty page. Both are walked in order. */
static int count_mapped(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end, uint64_t *count) {
    struct dfs_dirty *d = &tx->st->dirty;
    struct dfs_iter it;
    struct dfs_extent e;
    struct dfs_page *p = dfs_dirty_seek(d, ino, off >> DFS_PAGE_SHIFT);
    const uint64_t last = (end - 1) >> DFS_PAGE_SHIFT;
    *count = 0;
    int r = dfs_extent_find(tx, ino, off, &it, &e);
    while (r == 0 && e.off < end) {
        const uint64_t s = DFS_MAX(e.off, off), t = DFS_MIN(e.off + e.len, end);
        *count += (page_up(t) - page_down(s)) / DFS_PAGE;
        for (; p && p->ino == ino && p->idx << DFS_PAGE_SHIFT < s; p = dfs_dirty_next(d, p))
            ++*count;
        while (p && p->ino == ino && p->idx << DFS_PAGE_SHIFT < t)
            p = dfs_dirty_next(d, p);
        r = dfs_extent_next(&it, ino, &e);
    }
    if (r != 0 && r != -ENOENT)
        return r;
    for (; p && p->ino == ino && p->idx <= last; p = dfs_dirty_next(d, p))
        ++*count;
    return 0;
}

static int file_get(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in) {
    const int r = dfs_inode_get(tx, ino, in);
    if (r != 0)
        return r == -ENOENT ? -EUCLEAN : r;
    return S_ISREG(in->mode) ? 0 : -EUCLEAN;
}

static void map_pages(struct dfs_txn *tx, struct dfs_inode *in, uint64_t more, uint64_t less) {
    in->pages += more - less;
    tx->st->pages_used += more - less;
}

static void touch(struct dfs_inode *in, const struct dfs_rec *r) {
    in->mtime = in->ctime = r->time;
    if (r->valid & DFS_SET_KILL_SUID)
        dfs_inode_kill_suid(in);
}

static struct dfs_page *page_or_die(struct dfs_txn *tx, uint64_t ino, uint64_t idx) {
    struct dfs_page *p = dfs_dirty_make(&tx->st->dirty, ino, idx);
    if (!p) {
        dfs_log(DFS_LOG_ERROR, "out of memory in the middle of a change, the process ends", NULL);
        abort();
    }
    return p;
}

/* The page of the last byte that a file can have ends one byte behind the largest size. */
static bool range_ok(uint64_t off, uint64_t len) {
    return len > 0 && off <= DFS_FILE_SIZE_MAX && len <= (uint64_t)DFS_FILE_SIZE_MAX + 1 - off;
}

int dfs_apply_write(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    if (!range_ok(r->off, r->data_len) || r->off + r->data_len > DFS_FILE_SIZE_MAX)
        return -EUCLEAN;
    int e = file_get(tx, r->ino, &in);
    if (e != 0)
        return e;
    const uint64_t end = r->off + r->data_len;
    const uint64_t first = page_down(r->off), stop = page_up(end);
    uint8_t head_buf[DFS_PAGE], tail_buf[DFS_PAGE];
    const uint8_t *head = NULL, *tail = NULL;
    uint64_t mapped;
    if ((e = count_mapped(tx, r->ino, first, stop, &mapped)) != 0)
        return e;
    if (first < r->off || end < DFS_MIN(stop, first + DFS_PAGE))
        if ((e = dfs_page_content(tx, r->ino, first, &head, head_buf)) != 0)
            return e;
    if (end < stop && stop - DFS_PAGE > first)
        if ((e = dfs_page_content(tx, r->ino, stop - DFS_PAGE, &tail, tail_buf)) != 0)
            return e;

    const uint8_t *src = r->data;
    for (uint64_t off = first; off < stop; off += DFS_PAGE) {
        const uint64_t s = DFS_MAX(off, r->off), t = DFS_MIN(off + DFS_PAGE, end);
        const uint8_t *base = off == first ? head : off + DFS_PAGE == stop ? tail : NULL;
        struct dfs_page *p = page_or_die(tx, r->ino, off >> DFS_PAGE_SHIFT);
        if (base && base != p->data && t - s < DFS_PAGE)
            memcpy(p->data, base, DFS_PAGE);
        memcpy(p->data + (s - off), src, t - s);
        src += t - s;
    }
    map_pages(tx, &in, (stop - first) / DFS_PAGE - mapped, 0);
    in.size = DFS_MAX(in.size, end);
    touch(&in, r);
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

/* Looks at what putting the record's chunks at r->off needs; *total: their raw bytes. */
static int prepare_chunks(struct dfs_txn *tx, const struct dfs_rec *r, uint64_t *total) {
    struct dfs_rec_chunk_iter it;
    struct dfs_chunk_desc d;
    uint64_t addr;
    *total = 0;
    const struct dfs_key key = {.ino = 0, .kind = DFS_KIND_CHUNK, .off = r->chunk};
    int e = dfs_tree_prepare(tx, DFS_TREE_LOCAL, &key);
    if (r->chunk < tx->st->next_chunk)
        return -EUCLEAN;
    dfs_rec_chunks(r, &it);
    while (e == 0 && dfs_rec_chunk_next(&it, &addr, &d)) {
        e = dfs_extent_prepare_put(tx, r->ino, r->off + *total);
        *total += d.raw_len;
    }
    return e;
}

static void put_chunks(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_rec_chunk_iter it;
    struct dfs_chunk_desc d;
    uint64_t addr, off = r->off, id = r->chunk;
    dfs_extents_remove(tx, r->ino, r->off, r->off + r->len);
    dfs_dirty_drop_range(&tx->st->dirty, r->ino, r->off >> DFS_PAGE_SHIFT, (r->off + r->len) >> DFS_PAGE_SHIFT);
    dfs_rec_chunks(r, &it);
    while (dfs_rec_chunk_next(&it, &addr, &d)) {
        const struct dfs_extent x = {.off = off, .len = d.raw_len, .chunk = id, .type = DFS_EXTENT_CHUNK};
        dfs_chunk_add(tx, id, addr, &d);
        dfs_extent_put(tx, r->ino, &x);
        off += d.raw_len;
        id++;
    }
}

int dfs_apply_extents(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    uint64_t mapped, pages, total;
    if (!range_ok(r->off, r->len) || r->off % DFS_PAGE || r->len % DFS_PAGE || r->nchunks == 0 ||
        r->size > r->off + r->len || r->size > DFS_FILE_SIZE_MAX)
        return -EUCLEAN;
    int e = file_get(tx, r->ino, &in);
    if (e == 0)
        e = dfs_extents_prepare_remove(tx, r->ino, r->off, r->off + r->len, &pages);
    if (e == 0)
        e = count_mapped(tx, r->ino, r->off, r->off + r->len, &mapped);
    if (e == 0)
        e = prepare_chunks(tx, r, &total);
    if (e != 0)
        return e;
    if (total != r->len)
        return -EUCLEAN;

    put_chunks(tx, r);
    map_pages(tx, &in, r->len / DFS_PAGE, mapped);
    in.size = DFS_MAX(in.size, r->size);
    touch(&in, r);
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

static int materialise_inline(struct dfs_txn *tx, const struct dfs_rec *r, const struct dfs_inode *in) {
    uint64_t pages;
    struct dfs_page *p = dfs_dirty_get(&tx->st->dirty, r->ino, 0);
    if (!p || r->off != 0 || in->size != r->len || in->size > DFS_INLINE_MAX)
        return -EUCLEAN;
    int e = dfs_extents_prepare_remove(tx, r->ino, 0, DFS_PAGE, &pages);
    if (e == 0)
        e = dfs_extent_prepare_put(tx, r->ino, 0);
    if (e != 0)
        return e;
    dfs_extents_remove(tx, r->ino, 0, DFS_PAGE);
    const struct dfs_extent x = {
        .len = DFS_PAGE, .type = DFS_EXTENT_INLINE, .data = p->data, .data_len = (size_t)in->size};
    dfs_extent_put(tx, r->ino, &x);
    dfs_dirty_drop(&tx->st->dirty, p);
    return 0;
}

int dfs_apply_materialise(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    uint64_t pages, total;
    if (tx->replay && r->flags & DFS_RECF_UNPLACED) {
        tx->st->next_chunk = DFS_MAX(tx->st->next_chunk, r->chunk + 1);
        return 0;
    }
    int e = file_get(tx, r->ino, &in);
    if (e != 0)
        return e;
    if (r->nchunks == 0)
        return materialise_inline(tx, r, &in);
    if (!range_ok(r->off, r->len) || r->off % DFS_PAGE || r->len % DFS_PAGE || r->nchunks != 1)
        return -EUCLEAN;
    e = dfs_extents_prepare_remove(tx, r->ino, r->off, r->off + r->len, &pages);
    if (e == 0)
        e = prepare_chunks(tx, r, &total);
    if (e != 0)
        return e;
    if (total != r->len)
        return -EUCLEAN;
    put_chunks(tx, r);
    return 0;
}

/* The part [s, t) of one page becomes zeros. Looks; *base: the page's bytes, NULL if there is nothing to do. */
static int prepare_zero(struct dfs_txn *tx, uint64_t ino, uint64_t page_off, const uint8_t **base, uint8_t *buf) {
    return dfs_page_content(tx, ino, page_off, base, buf);
}
static void zero_part(struct dfs_txn *tx, uint64_t ino, uint64_t page_off, const uint8_t *base, uint64_t s, uint64_t t) {
    if (!base)
        return;
    struct dfs_page *p = page_or_die(tx, ino, page_off >> DFS_PAGE_SHIFT);
    if (base != p->data)
        memcpy(p->data, base, DFS_PAGE);
    memset(p->data + (s - page_off), 0, t - s);
}

int dfs_apply_truncate(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    if (r->size > DFS_FILE_SIZE_MAX)
        return -EUCLEAN;
    int e = file_get(tx, r->ino, &in);
    if (e != 0)
        return e;
    const uint64_t cut = page_up(r->size);
    uint8_t buf[DFS_PAGE];
    const uint8_t *tail = NULL;
    uint64_t mapped = 0, pages;
    const bool shrink = r->size <= in.size; /* also drops what was reserved past the end */
    if (shrink) {
        if (r->size < cut && (e = prepare_zero(tx, r->ino, page_down(r->size), &tail, buf)) != 0)
            return e;
        if ((e = dfs_extents_prepare_remove(tx, r->ino, cut, UINT64_MAX, &pages)) != 0 ||
            (e = count_mapped(tx, r->ino, cut, UINT64_MAX, &mapped)) != 0)
            return e;
    }

    if (shrink) {
        zero_part(tx, r->ino, page_down(r->size), tail, r->size, cut);
        dfs_extents_remove(tx, r->ino, cut, UINT64_MAX);
        dfs_dirty_drop_range(&tx->st->dirty, r->ino, cut >> DFS_PAGE_SHIFT, UINT64_MAX);
    }
    map_pages(tx, &in, 0, mapped);
    in.size = r->size;
    touch(&in, r);
    if (r->valid & DFS_SET_MTIME)
        in.mtime = r->mtime;
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

/* What zeroing [off, end) does: whole pages are unmapped, parts of pages at the edges are overwritten. */
struct zeroing {
    uint64_t off, end, from, to; /* [from, to): whole pages */
    const uint8_t *head, *tail;
    uint64_t mapped;
    uint8_t head_buf[DFS_PAGE], tail_buf[DFS_PAGE];
};

static int zeroing_prepare(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t len, struct zeroing *z) {
    z->off = off;
    z->end = off + len;
    z->from = page_up(off);
    z->to = DFS_MAX(page_down(z->end), z->from);
    z->head = z->tail = NULL;
    z->mapped = 0;
    const bool one = page_down(off) == page_down(z->end - 1);
    int e = 0;
    uint64_t pages;
    if (off < z->from)
        e = dfs_page_content(tx, ino, page_down(off), &z->head, z->head_buf);
    if (e == 0 && z->end % DFS_PAGE && !(one && off < z->from))
        e = dfs_page_content(tx, ino, page_down(z->end), &z->tail, z->tail_buf);
    if (e == 0 && z->from < z->to) {
        e = dfs_extents_prepare_remove(tx, ino, z->from, z->to, &pages);
        if (e == 0)
            e = count_mapped(tx, ino, z->from, z->to, &z->mapped);
    }
    return e;
}

static void zeroing_apply(struct dfs_txn *tx, uint64_t ino, struct dfs_inode *in, const struct zeroing *z) {
    zero_part(tx, ino, page_down(z->off), z->head, z->off, DFS_MIN(z->end, page_up(z->off)));
    zero_part(tx, ino, page_down(z->end), z->tail, page_down(z->end), z->end);
    if (z->from < z->to) {
        dfs_extents_remove(tx, ino, z->from, z->to);
        dfs_dirty_drop_range(&tx->st->dirty, ino, z->from >> DFS_PAGE_SHIFT, z->to >> DFS_PAGE_SHIFT);
        map_pages(tx, in, 0, z->mapped);
    }
}

int dfs_apply_punch(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    struct zeroing z;
    if (!range_ok(r->off, r->len))
        return -EUCLEAN;
    int e = file_get(tx, r->ino, &in);
    if (e == 0)
        e = zeroing_prepare(tx, r->ino, r->off, r->len, &z);
    if (e != 0)
        return e;
    zeroing_apply(tx, r->ino, &in, &z);
    touch(&in, r);
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

struct piece {
    uint64_t off, len;
};

/* The parts of [off, end) that no extent covers. */
static int find_gaps(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end, struct piece *gaps, unsigned *n) {
    struct dfs_iter it;
    struct dfs_extent x;
    *n = 0;
    int e = dfs_extent_find(tx, ino, off, &it, &x);
    while (off < end) {
        if (e != 0 && e != -ENOENT)
            return e;
        const uint64_t gap_end = e == 0 ? DFS_MIN(x.off, end) : end;
        if (gap_end > off) {
            if (*n == BATCH_PIECES)
                return -EUCLEAN;
            const int p = dfs_extent_prepare_put(tx, ino, off);
            if (p != 0)
                return p;
            gaps[(*n)++] = (struct piece){off, gap_end - off};
        }
        if (e != 0)
            break;
        off = DFS_MAX(off, x.off + x.len);
        e = dfs_extent_next(&it, ino, &x);
    }
    return 0;
}

int dfs_apply_reserve(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode in;
    struct zeroing z;
    struct piece gaps[BATCH_PIECES];
    unsigned n = 0;
    uint64_t mapped;
    const bool zero = r->flags & DFS_RECF_ZERO;
    if (!range_ok(r->off, r->len) || r->off + r->len > DFS_FILE_SIZE_MAX)
        return -EUCLEAN;
    const uint64_t from = page_down(r->off), to = page_up(r->off + r->len);
    int e = file_get(tx, r->ino, &in);
    if (e == 0 && zero)
        e = zeroing_prepare(tx, r->ino, r->off, r->len, &z);
    if (e == 0)
        e = count_mapped(tx, r->ino, from, to, &mapped);
    if (e == 0 && !zero)
        e = find_gaps(tx, r->ino, from, to, gaps, &n);
    if (e == 0)
        e = dfs_extent_prepare_put(tx, r->ino, from);
    if (e == 0 && zero)
        e = dfs_extent_prepare_put(tx, r->ino, z.from);
    if (e == 0 && zero)
        e = dfs_extent_prepare_put(tx, r->ino, to - DFS_PAGE);
    if (e != 0)
        return e;

    if (zero) {
        /* Whole pages become one unwritten extent; pages cut at the edges get one where nothing maps them. */
        zeroing_apply(tx, r->ino, &in, &z);
        n = 0;
        if (z.from < z.to)
            gaps[n++] = (struct piece){z.from, z.to - z.from};
        if (from < z.from && dfs_page_mapped(tx, r->ino, from >> DFS_PAGE_SHIFT) == 0)
            gaps[n++] = (struct piece){from, DFS_PAGE};
        const uint64_t last = to - DFS_PAGE;
        if (z.to <= last && !(from < z.from && last == from) && dfs_page_mapped(tx, r->ino, last >> DFS_PAGE_SHIFT) == 0)
            gaps[n++] = (struct piece){last, DFS_PAGE};
        mapped -= z.mapped;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct dfs_extent x = {.off = gaps[i].off, .len = gaps[i].len, .type = DFS_EXTENT_UNWRITTEN};
        dfs_extent_put(tx, r->ino, &x);
    }
    map_pages(tx, &in, (to - from) / DFS_PAGE, mapped);
    if (!(r->flags & DFS_RECF_KEEP_SIZE))
        in.size = DFS_MAX(in.size, r->off + r->len);
    touch(&in, r);
    if (r->flags & DFS_RECF_KEEP_SIZE && !zero)
        in.mtime = r->mtime;
    dfs_inode_put(tx, r->ino, &in);
    return 0;
}

struct clone_piece {
    uint64_t off, len, chunk; /* off: within the range */
    uint32_t chunk_off;
    uint8_t type;
};

static int clone_pieces(struct dfs_txn *tx, const struct dfs_rec *r, struct clone_piece *p, unsigned *n, uint64_t *pages) {
    struct dfs_iter it;
    struct dfs_extent x;
    const uint64_t end = r->off + r->len;
    *n = 0;
    *pages = 0;
    const struct dfs_page *d = dfs_dirty_seek(&tx->st->dirty, r->ino, r->off >> DFS_PAGE_SHIFT);
    if (d && d->ino == r->ino && d->idx << DFS_PAGE_SHIFT < end)
        return -EUCLEAN; /* the maker of the record sees to that */
    int e = dfs_extent_find(tx, r->ino, r->off, &it, &x);
    for (; e == 0 && x.off < end; e = dfs_extent_next(&it, r->ino, &x)) {
        const uint64_t s = DFS_MAX(x.off, r->off), t = DFS_MIN(x.off + x.len, end);
        if (x.type == DFS_EXTENT_INLINE || *n == BATCH_PIECES)
            return -EUCLEAN;
        int q = x.type == DFS_EXTENT_CHUNK ? dfs_chunk_prepare(tx, x.chunk) : 0;
        if (q == 0)
            q = dfs_extent_prepare_put(tx, r->ino2, r->size + (s - r->off));
        if (q != 0)
            return q;
        p[(*n)++] = (struct clone_piece){
            .off = s - r->off,
            .len = t - s,
            .chunk = x.chunk,
            .chunk_off = x.type == DFS_EXTENT_CHUNK ? x.chunk_off + (uint32_t)(s - x.off) : 0,
            .type = x.type,
        };
        *pages += (t - s) / DFS_PAGE;
    }
    return e == -ENOENT ? 0 : e;
}

int dfs_apply_clone(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_inode src, dst;
    struct clone_piece p[BATCH_PIECES];
    unsigned n;
    uint64_t pages, removed, mapped;
    const uint64_t to = r->size;
    if (!range_ok(r->off, r->len) || !range_ok(to, r->len) || (r->off | to | r->len) % DFS_PAGE ||
        r->generation > to + r->len || r->generation > DFS_FILE_SIZE_MAX)
        return -EUCLEAN;
    if (r->ino == r->ino2 && r->off < to + r->len && to < r->off + r->len)
        return -EUCLEAN;
    int e = file_get(tx, r->ino, &src);
    if (e == 0)
        e = file_get(tx, r->ino2, &dst);
    if (e == 0)
        e = clone_pieces(tx, r, p, &n, &pages);
    if (e == 0)
        e = dfs_extents_prepare_remove(tx, r->ino2, to, to + r->len, &removed);
    if (e == 0)
        e = count_mapped(tx, r->ino2, to, to + r->len, &mapped);
    if (e != 0)
        return e;

    for (unsigned i = 0; i < n; i++)
        if (p[i].type == DFS_EXTENT_CHUNK)
            dfs_chunk_ref(tx, p[i].chunk, 1);
    dfs_extents_remove(tx, r->ino2, to, to + r->len);
    dfs_dirty_drop_range(&tx->st->dirty, r->ino2, to >> DFS_PAGE_SHIFT, (to + r->len) >> DFS_PAGE_SHIFT);
    for (unsigned i = 0; i < n; i++) {
        const struct dfs_extent x = {.off = to + p[i].off,
                                     .len = p[i].len,
                                     .chunk = p[i].chunk,
                                     .chunk_off = p[i].chunk_off,
                                     .type = p[i].type};
        dfs_extent_put(tx, r->ino2, &x);
    }
    map_pages(tx, &dst, pages, mapped);
    dst.size = DFS_MAX(dst.size, r->generation);
    touch(&dst, r);
    dfs_inode_put(tx, r->ino2, &dst);
    return 0;
}

/* ---- orphans -------------------------------------------------------------------------------------------------- */

#define EVICT_BATCH 64

static struct dfs_key orphan_key(uint64_t ino) {
    return (struct dfs_key){.ino = 0, .kind = DFS_KIND_ORPHAN, .off = ino};
}

/* Where the last EVICT_BATCH extents begin: 0 if there are no more. */
static int evict_from(struct dfs_txn *tx, uint64_t ino, uint64_t *from) {
    const struct dfs_key key = {.ino = ino, .kind = DFS_KIND_EXTENT, .off = UINT64_MAX};
    struct dfs_iter it;
    *from = 0;
    int e = dfs_iter_seek_le(&it, tx, DFS_TREE_META, &key);
    for (unsigned i = 1; e == 0 && i < EVICT_BATCH; i++)
        e = dfs_iter_prev(&it);
    if (e != 0)
        return e == -ENOENT ? 0 : e;
    const struct dfs_key k = dfs_iter_key(&it);
    if (k.ino == ino && k.kind == DFS_KIND_EXTENT)
        *from = k.off;
    return 0;
}

int dfs_apply_evict(struct dfs_txn *tx, const struct dfs_rec *r) {
    struct dfs_store *st = tx->st;
    struct dfs_inode in;
    const struct dfs_key okey = orphan_key(r->ino), ikey = dfs_key_inode(r->ino);
    const void *val;
    size_t len;
    uint64_t from, pages, mapped;
    int e = dfs_inode_get(tx, r->ino, &in);
    if (e == 0)
        e = dfs_tree_get(tx, DFS_TREE_META, &okey, &val, &len);
    if (e != 0)
        return e == -ENOENT ? -EUCLEAN : e;
    if ((e = evict_from(tx, r->ino, &from)) != 0 ||
        (e = dfs_extents_prepare_remove(tx, r->ino, from, UINT64_MAX, &pages)) != 0 ||
        (e = count_mapped(tx, r->ino, from, UINT64_MAX, &mapped)) != 0)
        return e;
    if (S_ISLNK(in.mode))
        mapped = 0; /* a target is not counted as data */
    /* The last step takes the attributes along: a batch of them at a time as well. */
    struct dfs_key xkeys[EVICT_BATCH];
    unsigned n = 0;
    bool more = from > 0;
    struct dfs_iter it;
    const struct dfs_key xkey = {.ino = r->ino, .kind = DFS_KIND_XATTR, .off = 0};
    for (e = dfs_iter_seek(&it, tx, DFS_TREE_META, &xkey); e == 0 && !more; e = dfs_iter_next(&it)) {
        const struct dfs_key k = dfs_iter_key(&it);
        if (k.ino != r->ino || k.kind != DFS_KIND_XATTR)
            break;
        if (n == EVICT_BATCH)
            more = true;
        else
            xkeys[n++] = k;
    }
    if (e != 0 && e != -ENOENT)
        return e;

    dfs_extents_remove(tx, r->ino, from, UINT64_MAX);
    dfs_dirty_drop_range(&st->dirty, r->ino, from >> DFS_PAGE_SHIFT, UINT64_MAX);
    map_pages(tx, &in, 0, mapped);
    for (unsigned i = 0; i < n; i++)
        dfs_tree_del(tx, DFS_TREE_META, &xkeys[i]);
    if (more) {
        dfs_inode_put(tx, r->ino, &in);
        return 0;
    }
    dfs_tree_del(tx, DFS_TREE_META, &ikey);
    dfs_tree_del(tx, DFS_TREE_META, &okey);
    st->files--;
    return 0;
}
