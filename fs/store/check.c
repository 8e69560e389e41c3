#include "fs/store/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "fs/store/internal.h"

/* What the walk learns of an inode. */
struct seen_inode {
    uint64_t ino, parent, entries, pages, size;
    uint64_t found_entries, found_pages, links, subdirs, extent_end;
    uint32_t mode, nlink;
    bool item, orphan;
};

struct ref {
    uint64_t chunk, ino, off;
    uint32_t chunk_off, len;
};

struct check {
    struct dfs_store *st;
    const struct dfs_check_config *cfg;
    struct dfs_check_result *res;
    struct seen_inode *inodes; /* open addressing by number */
    size_t ninodes, cap_inodes;
    struct ref *refs;
    size_t nrefs, cap_refs;
    uint8_t *blocks; /* a bit per block in use */
    uint64_t nblocks;
    struct ref *next_ref; /* while chunks are walked, in order */
    uint64_t raw, stored, pages;
    uint64_t last_node[DFS_TREES][DFS_NODE_MAX_LEVEL + 1];
    bool stopped[DFS_TREES];
    bool nodes_known; /* a second walk: nodes have been noted */
};

__attribute__((format(printf, 6, 7))) static void report(struct check *c, uint64_t ino, uint64_t off, uint64_t chunk,
                                                         uint64_t block, const char *fmt, ...) {
    struct dfs_check_damage d = {.ino = ino, .off = off, .chunk = chunk, .block = block};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d.what, sizeof d.what, fmt, ap);
    va_end(ap);
    c->res->damages++;
    if (c->cfg->report)
        c->cfg->report(c->cfg->arg, &d);
}

/* Room for one more element of a growing array. */
static bool grow(void *array, size_t *cap, size_t n, size_t size) {
    if (n < *cap)
        return true;
    const size_t more = *cap ? *cap * 2 : 256;
    void *p = realloc(*(void **)array, more * size);
    if (!p)
        return false;
    *(void **)array = p;
    *cap = more;
    return true;
}

/* ---- inodes --------------------------------------------------------------------------------------------------- */

static struct seen_inode *inode_slot(struct seen_inode *t, size_t cap, uint64_t ino) {
    size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ull >> 20) & (cap - 1);
    while (t[i].ino && t[i].ino != ino)
        i = (i + 1) & (cap - 1);
    return &t[i];
}

/* The note on an inode, made if there is none; NULL: out of memory. */
static struct seen_inode *inode_of(struct check *c, uint64_t ino) {
    if ((c->ninodes + 1) * 2 > c->cap_inodes) {
        const size_t cap = c->cap_inodes ? c->cap_inodes * 2 : 1024;
        struct seen_inode *t = calloc(cap, sizeof *t);
        if (!t)
            return NULL;
        for (size_t i = 0; i < c->cap_inodes; i++)
            if (c->inodes[i].ino)
                *inode_slot(t, cap, c->inodes[i].ino) = c->inodes[i];
        free(c->inodes);
        c->inodes = t;
        c->cap_inodes = cap;
    }
    struct seen_inode *s = inode_slot(c->inodes, c->cap_inodes, ino);
    if (!s->ino) {
        s->ino = ino;
        c->ninodes++;
    }
    return s;
}

static int see_inode(struct check *c, struct dfs_txn *tx, uint64_t ino, struct seen_inode *s) {
    struct dfs_inode in;
    const int r = dfs_inode_get(tx, ino, &in);
    if (r == -EUCLEAN) {
        report(c, ino, 0, 0, 0, "the inode's item is malformed");
        return 0;
    }
    if (r != 0)
        return r;
    s->item = true;
    s->mode = in.mode;
    s->nlink = in.nlink;
    s->parent = in.parent;
    s->entries = in.entries;
    s->pages = in.pages;
    s->size = in.size;
    c->pages += in.pages;
    c->res->inodes++;
    if (ino == 0 || ino >= c->st->next_ino)
        report(c, ino, 0, 0, 0, "the inode's number was never given");
    if (in.size > DFS_FILE_SIZE_MAX)
        report(c, ino, 0, 0, 0, "the inode's size is impossible");
    return 0;
}

static int see_entry(struct check *c, const struct dfs_key *k, const void *val, size_t len) {
    struct dfs_dirent_item e;
    c->res->entries++;
    if (!dfs_dirent_parse(val, len, &e) || dfs_name_check(e.name, e.len) != 0) {
        report(c, k->ino, 0, 0, 0, "a directory entry is malformed");
        return 0;
    }
    if (k->off >> 63 || k->off >> 7 != dfs_name_hash(c->st, e.name, e.len) >> 7)
        report(c, k->ino, 0, 0, 0, "a directory entry lies under the wrong hash");
    struct seen_inode *d = inode_of(c, k->ino);
    if (!d)
        return -ENOMEM;
    d->found_entries++;
    if (S_ISDIR(e.type))
        d->subdirs++;
    struct seen_inode *s = inode_of(c, e.ino);
    if (!s)
        return -ENOMEM;
    s->links++;
    if (S_ISDIR(e.type) && s->item && s->parent != k->ino)
        report(c, e.ino, 0, 0, 0, "a directory does not name the directory it is in as its parent");
    if (s->item && (s->mode & S_IFMT) != (e.type & S_IFMT))
        report(c, e.ino, 0, 0, 0, "a directory entry has the wrong type");
    return 0;
}

static int see_extent(struct check *c, const struct dfs_key *k, const void *val, size_t len) {
    struct dfs_extent_disk d;
    struct seen_inode *s = inode_of(c, k->ino);
    if (!s)
        return -ENOMEM;
    c->res->extents++;
    if (len < sizeof d) {
        report(c, k->ino, k->off, 0, 0, "an extent is malformed");
        return 0;
    }
    memcpy(&d, val, sizeof d);
    const uint64_t n = d.type == DFS_EXTENT_INLINE ? DFS_PAGE : le64toh(d.len);
    const bool bad = d.type == DFS_EXTENT_INLINE
                         ? k->off != 0 || le64toh(d.len) > DFS_PAGE || len != sizeof d + le64toh(d.len)
                         : (d.type != DFS_EXTENT_CHUNK && d.type != DFS_EXTENT_UNWRITTEN) || len != sizeof d ||
                               k->off % DFS_PAGE || n == 0 || n % DFS_PAGE || k->off > DFS_FILE_SIZE_MAX ||
                               n > (uint64_t)DFS_FILE_SIZE_MAX + 1 - k->off;
    if (bad) {
        report(c, k->ino, k->off, 0, 0, "an extent is malformed");
        return 0;
    }
    if (k->off < s->extent_end)
        report(c, k->ino, k->off, 0, 0, "an extent overlaps the one before it");
    s->extent_end = k->off + n;
    if (!S_ISLNK(s->mode))
        s->found_pages += n / DFS_PAGE;
    if (d.type != DFS_EXTENT_CHUNK)
        return 0;
    if (!grow(&c->refs, &c->cap_refs, c->nrefs, sizeof *c->refs))
        return -ENOMEM;
    c->refs[c->nrefs++] = (struct ref){.chunk = le64toh(d.chunk),
                                       .ino = k->ino,
                                       .off = k->off,
                                       .chunk_off = le32toh(d.chunk_off),
                                       .len = (uint32_t)DFS_MIN(n, (uint64_t)UINT32_MAX)};
    return 0;
}

static int see_meta(struct check *c, struct dfs_txn *tx, const struct dfs_key *k, const void *val, size_t len) {
    struct seen_inode *s;
    struct dfs_xattr_item x;
    switch (k->kind) {
    case DFS_KIND_INODE:
        s = inode_of(c, k->ino);
        return s ? see_inode(c, tx, k->ino, s) : -ENOMEM;
    case DFS_KIND_DIRENT:
        return see_entry(c, k, val, len);
    case DFS_KIND_XATTR:
        if (!dfs_xattr_parse(val, len, &x))
            report(c, k->ino, 0, 0, 0, "an extended attribute is malformed");
        s = inode_of(c, k->ino);
        if (s && !s->item)
            report(c, k->ino, 0, 0, 0, "an extended attribute belongs to no inode");
        return s ? 0 : -ENOMEM;
    case DFS_KIND_EXTENT:
        return see_extent(c, k, val, len);
    case DFS_KIND_ORPHAN:
        s = inode_of(c, k->off);
        if (s)
            s->orphan = true;
        return s ? 0 : -ENOMEM;
    default:
        report(c, k->ino, 0, 0, 0, "an item of an unknown kind (%u)", k->kind);
        return 0;
    }
}

/* Once all of the tree was seen: names against links, entries against counts. */
static void judge_inode(struct check *c, const struct seen_inode *s) {
    if (!s->item) {
        report(c, s->ino, 0, 0, 0, s->orphan ? "a deleted inode's note has no inode" : "a name or extent has no inode");
        return;
    }
    const bool dir = S_ISDIR(s->mode), root = s->ino == DFS_ROOT_INO;
    const uint64_t links = dir ? (s->links || root ? 2 + s->subdirs : 0) : s->links;
    if (s->nlink != links)
        report(c, s->ino, 0, 0, 0, "the link count is %u, it should be %" PRIu64, s->nlink, links);
    if (dir && s->links > (root ? 0u : 1u))
        report(c, s->ino, 0, 0, 0, "a directory has %" PRIu64 " names", s->links);
    if (s->orphan != (s->nlink == 0))
        report(c, s->ino, 0, 0, 0, s->orphan ? "an inode with names is noted as deleted" : "an inode has no name");
    if (s->entries != s->found_entries || (!dir && s->found_entries))
        report(c, s->ino, 0, 0, 0, "the directory counts %" PRIu64 " entries, there are %" PRIu64, s->entries,
               s->found_entries);
    if (s->pages != s->found_pages)
        report(c, s->ino, 0, 0, 0, "the inode counts %" PRIu64 " pages, there are %" PRIu64, s->pages, s->found_pages);
}

/* ---- chunks and blocks ---------------------------------------------------------------------------------------- */

static void own_blocks(struct check *c, uint64_t addr, uint32_t n, uint64_t chunk) {
    if (addr < DFS_FIRST_BLOCK || n > c->nblocks || addr > c->nblocks - n) {
        report(c, 0, 0, chunk, addr, "blocks outside the data file are referred to");
        return;
    }
    bool twice = false;
    for (uint64_t b = addr; b < addr + n; b++) {
        twice |= c->blocks[b / 8] >> b % 8 & 1;
        c->blocks[b / 8] |= (uint8_t)(1u << b % 8);
    }
    if (twice)
        report(c, 0, 0, chunk, addr, "blocks have two owners");
    c->res->blocks += n;
}

static int ref_cmp(const void *x, const void *y) {
    const struct ref *a = x, *b = y;
    return a->chunk < b->chunk ? -1 : a->chunk > b->chunk;
}

static void missing_chunks(struct check *c, uint64_t before) {
    for (; c->next_ref < c->refs + c->nrefs && c->next_ref->chunk < before; c->next_ref++)
        if (!c->stopped[DFS_TREE_LOCAL])
            report(c, c->next_ref->ino, c->next_ref->off, c->next_ref->chunk, 0, "a file refers to a chunk that is not there");
}

static int see_chunk(struct check *c, struct dfs_txn *tx, uint64_t id) {
    struct dfs_chunk *ch = malloc(sizeof *ch); /* too large for a stack that others share */
    if (!ch)
        return -ENOMEM;
    const int r = dfs_chunk_get(tx, id, ch);
    if (r == -EUCLEAN)
        report(c, 0, 0, id, 0, "the chunk's entry is malformed");
    if (r != 0) {
        free(ch);
        return r == -EUCLEAN ? 0 : r;
    }
    c->res->chunks++;
    missing_chunks(c, id);
    uint64_t refs = 0;
    for (; c->next_ref < c->refs + c->nrefs && c->next_ref->chunk == id; c->next_ref++, refs++)
        if ((uint64_t)c->next_ref->chunk_off + c->next_ref->len > ch->desc.raw_len)
            report(c, c->next_ref->ino, c->next_ref->off, id, 0, "a file refers to bytes past the end of a chunk");
    if (refs != ch->refs && !c->stopped[DFS_TREE_META])
        report(c, 0, 0, id, 0, "the chunk counts %u references, there are %" PRIu64, ch->refs, refs);
    if (id == 0 || id >= c->st->next_chunk)
        report(c, 0, 0, id, 0, "the chunk's number was never given");
    c->raw += ch->desc.raw_len;
    c->stored += (uint64_t)dfs_chunk_blocks(&ch->desc) * DFS_BLOCK_SIZE;
    if (ch->addr != DFS_CHUNK_ABSENT)
        own_blocks(c, ch->addr, dfs_chunk_blocks(&ch->desc), id);
    free(ch);
    return 0;
}

static int see_local(struct check *c, struct dfs_txn *tx, const struct dfs_key *k, const void *val, size_t len) {
    (void)val;
    switch (k->kind) {
    case DFS_KIND_CHUNK:
        return see_chunk(c, tx, k->off);
    case DFS_KIND_REGION:
        if (len != DFS_REGION_BYTES)
            report(c, 0, 0, 0, k->off * DFS_REGION_BLOCKS, "a bitmap of blocks has the wrong size");
        return 0;
    case DFS_KIND_REGSUM:
        if (len != DFS_REGSUM_REGIONS * sizeof(uint16_t))
            report(c, 0, 0, 0, 0, "a table of free blocks has the wrong size");
        return 0;
    default:
        report(c, 0, 0, 0, 0, "an item of an unknown kind (%u)", k->kind);
        return 0;
    }
}

/* ---- walking -------------------------------------------------------------------------------------------------- */

static struct dfs_key successor(struct dfs_key k) {
    if (++k.off == 0 && ++k.kind == 0)
        k.ino++;
    return k;
}

/* Notes the nodes on the way to where the walk stands. */
static void see_nodes(struct check *c, const struct dfs_iter *it) {
    for (unsigned l = 0; !c->nodes_known && l <= it->level; l++) {
        const struct dfs_node *n = it->n[l];
        if (c->last_node[it->tree][l] == n->addr)
            continue;
        c->last_node[it->tree][l] = n->addr;
        c->res->nodes++;
        own_blocks(c, n->addr, DFS_NODE_BLOCKS, 0);
    }
}

/* Calls `see` on every item. Where a node is damaged the walk ends, and says so. */
static int walk(struct check *c, enum dfs_tree_id t,
                int (*see)(struct check *, struct dfs_txn *, const struct dfs_key *, const void *, size_t)) {
    struct dfs_key at = {0};
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, c->st, DFS_TXN_READ, 0);
    if (r != 0)
        return r;
    do {
        struct dfs_iter it;
        for (r = dfs_iter_seek(&it, &tx, t, &at); r == 0; r = dfs_iter_next(&it)) {
            const struct dfs_key k = dfs_iter_key(&it);
            size_t len;
            const void *val = dfs_iter_val(&it, &len);
            see_nodes(c, &it);
            if ((r = see(c, &tx, &k, val, len)) != 0)
                break;
            at = successor(k);
        }
        if (r == -ENOENT)
            r = 0;
    } while (dfs_txn_again(&tx, &r));
    const uint64_t block = tx.miss.addr;
    r = dfs_txn_end(&tx, r);
    if (r == -EIO || r == -EUCLEAN) {
        report(c, 0, 0, 0, block, "a node of the %s tree is damaged", t == DFS_TREE_META ? "metadata" : "local");
        c->stopped[t] = c->res->incomplete = true;
        r = 0;
    }
    return r;
}

static void check_root_of_empty(struct check *c, enum dfs_tree_id t) {
    /* A tree without items has one leaf, which no walk passes. */
    const struct dfs_tree *tree = &c->st->trees[t];
    if (c->last_node[t][tree->level] == 0) {
        c->last_node[t][tree->level] = tree->root.addr;
        own_blocks(c, tree->root.addr, DFS_NODE_BLOCKS, 0);
    }
}

/* The bitmaps against what the walks found in use. */
static int see_region(struct check *c, struct dfs_txn *tx, const struct dfs_key *k, const void *val, size_t len) {
    (void)tx;
    const uint64_t first = k->off * DFS_REGION_BLOCKS;
    if (k->kind != DFS_KIND_REGION || len != DFS_REGION_BYTES || first >= c->nblocks)
        return 0;
    const uint8_t *bits = val;
    uint32_t leaked = 0, wrong = 0;
    uint64_t leak_at = 0, wrong_at = 0;
    for (uint64_t b = 0; b < DFS_REGION_BLOCKS && first + b < c->nblocks; b++) {
        const bool marked = bits[b / 8] >> b % 8 & 1, used = c->blocks[(first + b) / 8] >> (first + b) % 8 & 1;
        if (marked && !used && leaked++ == 0)
            leak_at = first + b;
        if (!marked && used && wrong++ == 0)
            wrong_at = first + b;
        c->blocks[(first + b) / 8] &= (uint8_t)~(1u << (first + b) % 8); /* accounted for */
    }
    if (leaked)
        report(c, 0, 0, 0, leak_at, "%u blocks are marked in use, but nobody uses them", leaked);
    if (wrong)
        report(c, 0, 0, 0, wrong_at, "%u blocks in use are marked free", wrong);
    return 0;
}

static void judge_blocks(struct check *c) {
    for (uint64_t b = DFS_FIRST_BLOCK; b < c->nblocks; b++) /* regions without a bitmap: all free */
        if (c->blocks[b / 8] >> b % 8 & 1) {
            report(c, 0, 0, 0, b, "blocks in use have no bitmap");
            return;
        }
}

static void judge_sums(struct check *c) {
    const struct dfs_store *st = c->st;
    if (st->files != c->res->inodes)
        report(c, 0, 0, 0, 0, "the volume counts %" PRIu64 " inodes, there are %" PRIu64, st->files, c->res->inodes);
    if (st->pages_used != c->pages)
        report(c, 0, 0, 0, 0, "the volume counts %" PRIu64 " pages of data, there are %" PRIu64, st->pages_used, c->pages);
    if (st->chunk_raw != c->raw || st->chunk_stored != c->stored)
        report(c, 0, 0, 0, 0, "the volume counts %" PRIu64 " bytes of chunks (%" PRIu64 " stored), there are %" PRIu64
               " (%" PRIu64 ")", st->chunk_raw, st->chunk_stored, c->raw, c->stored);
}

static int check_structure(struct check *c) {
    c->nblocks = dfs_alloc_regions(c->st->alloc) * DFS_REGION_BLOCKS;
    c->blocks = calloc(c->nblocks / 8 + 1, 1);
    if (!c->blocks)
        return -ENOMEM;
    for (uint64_t b = 0; b < DFS_FIRST_BLOCK && b < c->nblocks; b++)
        c->blocks[b / 8] |= (uint8_t)(1u << b % 8);
    int r = walk(c, DFS_TREE_META, see_meta);
    if (r != 0)
        return r;
    if (c->nrefs)
        qsort(c->refs, c->nrefs, sizeof *c->refs, ref_cmp);
    c->next_ref = c->refs;
    r = walk(c, DFS_TREE_LOCAL, see_local);
    if (r != 0)
        return r;
    missing_chunks(c, UINT64_MAX);
    for (int t = 0; t < DFS_TREES; t++)
        check_root_of_empty(c, (enum dfs_tree_id)t);
    if (!c->stopped[DFS_TREE_META])
        for (size_t i = 0; i < c->cap_inodes; i++)
            if (c->inodes[i].ino)
                judge_inode(c, &c->inodes[i]);
    if (c->res->incomplete)
        return 0;
    judge_sums(c);
    /* In a volume that is only read, the journal's records are applied in memory, the bitmaps are not. */
    if (c->st->cfg.read_only && c->st->replayed > 0)
        return 0;
    c->nodes_known = true;
    return walk(c, DFS_TREE_LOCAL, see_region);
}

/* ---- data ----------------------------------------------------------------------------------------------------- */

static int chunk_verify(struct check *c, uint64_t id) {
    struct dfs_store *st = c->st;
    cleanup_free struct dfs_chunk *ch = malloc(sizeof *ch);
    struct dfs_txn tx;
    if (!ch)
        return -ENOMEM;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    if (r != 0)
        return r;
    do
        r = dfs_chunk_get(&tx, id, ch);
    while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r != 0)
        return r == -ENOENT || r == -EUCLEAN || r == -EIO ? 0 : r; /* gone meanwhile, or told of before */
    if (ch->addr == DFS_CHUNK_ABSENT)
        return 0;
    const size_t len = (size_t)dfs_chunk_blocks(&ch->desc) * DFS_BLOCK_SIZE;
    cleanup_free void *buf = dfs_io_alloc(len);
    if (!buf)
        return -ENOMEM;
    r = st->io->ops->read(st->io, DFS_IO_DATA, buf, len, ch->addr * DFS_BLOCK_SIZE);
    c->res->bytes_verified += ch->desc.stored_len;
    if (r == 0 && dfs_chunk_verify(&ch->desc, buf))
        return 0;
    /* Perhaps it went away, and its blocks are another's. */
    const uint64_t addr = ch->addr;
    dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    do
        r = dfs_chunk_get(&tx, id, ch);
    while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r != 0 || ch->addr != addr)
        return 0;
    const struct ref key = {.chunk = id};
    const struct ref *f = c->nrefs ? bsearch(&key, c->refs, c->nrefs, sizeof key, ref_cmp) : NULL;
    if (!f)
        report(c, 0, 0, id, addr, "a chunk does not match its checksum");
    while (f && f > c->refs && f[-1].chunk == id)
        f--;
    for (; f && f < c->refs + c->nrefs && f->chunk == id; f++)
        report(c, f->ino, f->off, id, addr, "data does not match its checksum");
    return 0;
}

static int check_data(struct check *c) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < c->nrefs; i++)
        if (i == 0 || c->refs[i].chunk != c->refs[i - 1].chunk)
            r = chunk_verify(c, c->refs[i].chunk);
    return r;
}

int dfs_store_check(struct dfs_store *st, const struct dfs_check_config *cfg, struct dfs_check_result *out) {
    struct check c = {.st = st, .cfg = cfg, .res = out};
    *out = (struct dfs_check_result){0};
    /* With the gate closed nothing changes; a checkpoint of its own brings memory and bitmaps together. */
    int r = 0;
    bool frozen = st->cfg.read_only;
    for (int i = 0; r == 0 && i < 8 && !frozen; i++) {
        r = dfs_checkpoint(st);
        pthread_mutex_lock(&st->checkpoint_lock);
        pthread_rwlock_wrlock(&st->gate);
        frozen = st->dirty.count == 0 && st->cache.dirty == 0;
        if (r != 0 || !frozen) {
            pthread_rwlock_unlock(&st->gate);
            pthread_mutex_unlock(&st->checkpoint_lock);
        }
    }
    if (r == 0 && !frozen)
        r = -EBUSY;
    if (r != 0)
        return r;
    r = check_structure(&c);
    if (r == 0 && !out->incomplete && !(st->cfg.read_only && st->replayed > 0))
        judge_blocks(&c);
    if (!st->cfg.read_only) {
        pthread_rwlock_unlock(&st->gate);
        pthread_mutex_unlock(&st->checkpoint_lock);
    }
    if (r == 0 && cfg->data)
        r = check_data(&c);
    free(c.inodes);
    free(c.refs);
    free(c.blocks);
    return r;
}
