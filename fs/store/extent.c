/* Extents of files and the chunks they refer to. */
#include <assert.h>
#include <inttypes.h>

#include "fs/store/internal.h"

static struct dfs_key extent_key(uint64_t ino, uint64_t off) {
    return (struct dfs_key){.ino = ino, .kind = DFS_KIND_EXTENT, .off = off};
}

static int extent_parse(const struct dfs_iter *it, struct dfs_extent *e) {
    size_t len;
    const uint8_t *val = dfs_iter_val(it, &len);
    struct dfs_extent_disk d;
    if (len < sizeof d)
        return -EUCLEAN;
    memcpy(&d, val, sizeof d);
    *e = (struct dfs_extent){
        .off = dfs_iter_key(it).off,
        .len = le64toh(d.len),
        .chunk = le64toh(d.chunk),
        .chunk_off = le32toh(d.chunk_off),
        .type = d.type,
    };
    if (e->type == DFS_EXTENT_INLINE) {
        if (e->off != 0 || e->len > DFS_PAGE || len != sizeof d + e->len)
            return -EUCLEAN;
        e->data = val + sizeof d;
        e->data_len = (size_t)e->len;
        e->len = DFS_PAGE;
        return 0;
    }
    if (len != sizeof d || e->off % DFS_PAGE || e->len % DFS_PAGE || e->len == 0 || e->off > DFS_FILE_SIZE_MAX ||
        e->len > (uint64_t)DFS_FILE_SIZE_MAX + 1 - e->off || e->chunk_off % DFS_PAGE)
        return -EUCLEAN;
    if (e->type != DFS_EXTENT_CHUNK && e->type != DFS_EXTENT_UNWRITTEN)
        return -EUCLEAN;
    return 0;
}

static bool is_extent_of(const struct dfs_iter *it, uint64_t ino) {
    const struct dfs_key k = dfs_iter_key(it);
    return k.ino == ino && k.kind == DFS_KIND_EXTENT;
}

int dfs_extent_find(struct dfs_txn *tx, uint64_t ino, uint64_t off, struct dfs_iter *it, struct dfs_extent *e) {
    const struct dfs_key key = extent_key(ino, off);
    int r = dfs_iter_seek_le(it, tx, DFS_TREE_META, &key);
    if (r == 0 && is_extent_of(it, ino)) {
        r = extent_parse(it, e);
        if (r != 0 || e->off + e->len > off)
            return r;
        return dfs_extent_next(it, ino, e);
    }
    if (r != 0 && r != -ENOENT)
        return r;
    r = dfs_iter_seek(it, tx, DFS_TREE_META, &key);
    if (r != 0)
        return r;
    return is_extent_of(it, ino) ? extent_parse(it, e) : -ENOENT;
}

int dfs_extent_next(struct dfs_iter *it, uint64_t ino, struct dfs_extent *e) {
    const int r = dfs_iter_next(it);
    if (r != 0)
        return r;
    return is_extent_of(it, ino) ? extent_parse(it, e) : -ENOENT;
}

int dfs_extent_last(struct dfs_txn *tx, uint64_t ino, struct dfs_extent *e) {
    const struct dfs_key key = extent_key(ino, UINT64_MAX);
    struct dfs_iter it;
    const int r = dfs_iter_seek_le(&it, tx, DFS_TREE_META, &key);
    if (r != 0)
        return r;
    return is_extent_of(&it, ino) ? extent_parse(&it, e) : -ENOENT;
}

int dfs_extent_prepare_put(struct dfs_txn *tx, uint64_t ino, uint64_t off) {
    const struct dfs_key key = extent_key(ino, off);
    return dfs_tree_prepare(tx, DFS_TREE_META, &key);
}

void dfs_extent_put(struct dfs_txn *tx, uint64_t ino, const struct dfs_extent *e) {
    const struct dfs_key key = extent_key(ino, e->off);
    const bool in = e->type == DFS_EXTENT_INLINE;
    const struct dfs_extent_disk d = {
        .type = e->type,
        .chunk_off = htole32(e->chunk_off),
        .len = htole64(in ? e->data_len : e->len),
        .chunk = htole64(e->chunk),
    };
    uint8_t *out = dfs_tree_put(tx, DFS_TREE_META, &key, sizeof d + (in ? e->data_len : 0));
    memcpy(out, &d, sizeof d);
    if (in && e->data_len)
        memcpy(out + sizeof d, e->data, e->data_len);
}

int dfs_extents_prepare_remove(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end, uint64_t *pages) {
    struct dfs_iter it;
    struct dfs_extent e;
    *pages = 0;
    int r = dfs_extent_find(tx, ino, off, &it, &e);
    while (r == 0 && e.off < end) {
        const uint64_t s = DFS_MAX(e.off, off), t = DFS_MIN(e.off + e.len, end);
        *pages += (t - s) / DFS_PAGE;
        if (e.type == DFS_EXTENT_CHUNK && (r = dfs_chunk_prepare(tx, e.chunk)) != 0)
            return r;
        if (t < e.off + e.len && (r = dfs_extent_prepare_put(tx, ino, t)) != 0)
            return r;
        r = dfs_extent_next(&it, ino, &e);
    }
    return r == -ENOENT ? 0 : r;
}

void dfs_extents_remove(struct dfs_txn *tx, uint64_t ino, uint64_t off, uint64_t end) {
    struct dfs_iter it;
    struct dfs_extent e;
    while (dfs_extent_find(tx, ino, off, &it, &e) == 0 && e.off < end) {
        const uint64_t e_end = e.off + e.len, s = DFS_MAX(e.off, off), t = DFS_MIN(e_end, end);
        int refs = -1;
        if (e.off < s) {
            struct dfs_extent left = e;
            left.len = s - e.off;
            dfs_extent_put(tx, ino, &left);
            refs++;
        } else {
            const struct dfs_key key = extent_key(ino, e.off);
            dfs_tree_del(tx, DFS_TREE_META, &key);
        }
        if (t < e_end) {
            struct dfs_extent right = e;
            right.off = t;
            right.len = e_end - t;
            right.chunk_off += e.type == DFS_EXTENT_CHUNK ? (uint32_t)(t - e.off) : 0;
            dfs_extent_put(tx, ino, &right);
            refs++;
        }
        if (e.type == DFS_EXTENT_CHUNK && refs != 0)
            dfs_chunk_ref(tx, e.chunk, refs);
        off = t;
    }
}

/* ---- chunks --------------------------------------------------------------------------------------------------- */

static struct dfs_key chunk_key(uint64_t id) {
    return (struct dfs_key){.ino = 0, .kind = DFS_KIND_CHUNK, .off = id};
}

int dfs_chunk_get(struct dfs_txn *tx, uint64_t id, struct dfs_chunk *c) {
    const struct dfs_key key = chunk_key(id);
    const void *val;
    size_t len;
    const int r = dfs_tree_get(tx, DFS_TREE_LOCAL, &key, &val, &len);
    if (r != 0)
        return r;
    struct dfs_chunk_item_disk d;
    if (len < sizeof d)
        return -EUCLEAN;
    memcpy(&d, val, sizeof d);
    c->addr = le64toh(d.addr);
    c->refs = le32toh(d.refs);
    return dfs_chunk_desc_get((const uint8_t *)val + sizeof d, len - sizeof d, &c->desc);
}

int dfs_chunk_prepare(struct dfs_txn *tx, uint64_t id) {
    const struct dfs_key key = chunk_key(id);
    const void *val;
    size_t len;
    const int r = dfs_tree_get(tx, DFS_TREE_LOCAL, &key, &val, &len);
    return r == -ENOENT ? -EUCLEAN : r;
}

void dfs_chunk_put(struct dfs_txn *tx, uint64_t id, const struct dfs_chunk *c) {
    const struct dfs_key key = chunk_key(id);
    const struct dfs_chunk_item_disk d = {.addr = htole64(c->addr), .refs = htole32(c->refs)};
    uint8_t desc[DFS_CHUNK_DESC_MAX];
    const size_t n = dfs_chunk_desc_put(&c->desc, desc);
    uint8_t *out = dfs_tree_put(tx, DFS_TREE_LOCAL, &key, sizeof d + n);
    memcpy(out, &d, sizeof d);
    memcpy(out + sizeof d, desc, n);
}

void dfs_chunk_add(struct dfs_txn *tx, uint64_t id, uint64_t addr, const struct dfs_chunk_desc *desc) {
    struct dfs_store *st = tx->st;
    dfs_alloc_commit(st->alloc, addr, dfs_chunk_blocks(desc));
    const struct dfs_chunk c = {.addr = addr, .refs = 1, .desc = *desc};
    dfs_chunk_put(tx, id, &c);
    st->chunk_raw += desc->raw_len;
    st->chunk_stored += (uint64_t)dfs_chunk_blocks(desc) * DFS_BLOCK_SIZE;
    st->next_chunk = DFS_MAX(st->next_chunk, id + 1);
}

void dfs_chunk_ref(struct dfs_txn *tx, uint64_t id, int delta) {
    struct dfs_store *st = tx->st;
    struct dfs_chunk c;
    const int r = dfs_chunk_get(tx, id, &c);
    if (r != 0 || (delta < 0 && c.refs < (uint32_t)-delta)) {
        dfs_log(DFS_LOG_ERROR, "reference count of a chunk is wrong", "chunk=%" PRIu64 " refs=%u delta=%d", id,
                r == 0 ? c.refs : 0, delta);
        return;
    }
    c.refs = (uint32_t)((int64_t)c.refs + delta);
    if (c.refs > 0) {
        const struct dfs_key key = chunk_key(id);
        size_t len;
        const void *val;
        dfs_tree_get(tx, DFS_TREE_LOCAL, &key, &val, &len);
        uint8_t *out = dfs_tree_put(tx, DFS_TREE_LOCAL, &key, len); /* same length: in place, content kept */
        dfs_put_le32(out + offsetof(struct dfs_chunk_item_disk, refs), c.refs);
        return;
    }
    const struct dfs_key key = chunk_key(id);
    dfs_tree_del(tx, DFS_TREE_LOCAL, &key);
    const uint32_t blocks = dfs_chunk_blocks(&c.desc);
    if (c.addr != DFS_CHUNK_ABSENT)
        dfs_alloc_free(st->alloc, c.addr, blocks);
    st->chunk_raw -= c.desc.raw_len;
    st->chunk_stored -= (uint64_t)blocks * DFS_BLOCK_SIZE;
}

/* ---- pages ---------------------------------------------------------------------------------------------------- */

int dfs_page_mapped(struct dfs_txn *tx, uint64_t ino, uint64_t idx) {
    if (dfs_dirty_get(&tx->st->dirty, ino, idx))
        return 1;
    struct dfs_iter it;
    struct dfs_extent e;
    const int r = dfs_extent_find(tx, ino, idx << DFS_PAGE_SHIFT, &it, &e);
    if (r == -ENOENT)
        return 0;
    return r != 0 ? r : e.off <= idx << DFS_PAGE_SHIFT;
}

static int chunk_page(struct dfs_txn *tx, uint64_t chunk, uint32_t off, const uint8_t **page) {
    for (unsigned i = 0; i < tx->nfills; i++)
        if (tx->fills[i].chunk == chunk && tx->fills[i].off == off) {
            *page = tx->fills[i].page;
            return 0;
        }
    if (tx->nfills == DFS_FILLS) {
        free(tx->fills[0].page);
        memmove(&tx->fills[0], &tx->fills[1], (DFS_FILLS - 1) * sizeof tx->fills[0]);
        tx->nfills--;
    }
    tx->fills[tx->nfills] = (struct dfs_fill){.chunk = chunk, .off = off};
    tx->miss_page = true;
    return -EAGAIN;
}

int dfs_page_content(struct dfs_txn *tx, uint64_t ino, uint64_t off, const uint8_t **page, uint8_t *buf) {
    *page = NULL;
    const struct dfs_page *p = dfs_dirty_get(&tx->st->dirty, ino, off >> DFS_PAGE_SHIFT);
    if (p) {
        *page = p->data;
        return 0;
    }
    struct dfs_iter it;
    struct dfs_extent e;
    const int r = dfs_extent_find(tx, ino, off, &it, &e);
    if (r == -ENOENT || (r == 0 && (e.off > off || e.type == DFS_EXTENT_UNWRITTEN)))
        return 0;
    if (r != 0)
        return r;
    if (e.type == DFS_EXTENT_CHUNK)
        return chunk_page(tx, e.chunk, e.chunk_off + (uint32_t)(off - e.off), page);
    memset(buf, 0, DFS_PAGE);
    if (e.data_len)
        memcpy(buf, e.data, e.data_len);
    *page = buf;
    return 0;
}
