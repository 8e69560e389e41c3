#include "fs/store/alloc.h"

#include <assert.h>
#include <inttypes.h>

#include "fs/store/internal.h"

#define REFILL_BLOCKS 4096u  /* taken from the bitmaps at a time: 16 MiB */
#define RUN_MIN 16u          /* runs shorter than this go to the pool only when there is nothing better */
#define PUNCH_MIN_BLOCKS 16u /* smaller freed runs are not worth a hole in the host's file */

struct extent {
    uint64_t addr;
    uint32_t len;
};

struct extents {
    struct extent *e;
    size_t n, cap;
};

/* The bitmap of a region as the pool sees it: set bits are in use, taken, or not free yet. */
struct region {
    RB_ENTRY(region) link;
    uint64_t no;
    uint32_t held; /* blocks set here that the folded bitmap does not know of */
    uint8_t bits[DFS_REGION_BYTES];
};
RB_HEAD(region_tree, region);

struct dfs_alloc {
    struct dfs_store *st;
    pthread_mutex_t mu;
    pthread_mutex_t refill_mu;
    uint64_t regions;    /* the data file has grown to */
    uint16_t *summary;   /* free blocks of each region, as far as the bitmaps say */
    size_t summary_cap;
    uint64_t cursor;     /* region where the next refill looks first */
    struct extents pool;
    uint64_t pool_blocks;
    struct region_tree copies;
    struct extents committed; /* since the last fold */
    struct extents freed;     /* since the last fold */
    struct extents folded;    /* freed and folded, not durable yet; sorted by address */
    uint64_t used;            /* blocks in use, as of commit and free */
    uint64_t emergency, emergency_end;
};

static int region_cmp(const struct region *a, const struct region *b) {
    return a->no < b->no ? -1 : a->no > b->no;
}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(region_tree, region, link, region_cmp, static)
#pragma GCC diagnostic pop

static void push_or_die(struct extents *v, uint64_t addr, uint32_t len) {
    if (v->n > 0 && v->e[v->n - 1].addr + v->e[v->n - 1].len == addr &&
        addr % DFS_REGION_BLOCKS != 0) { /* extents stay within their region */
        v->e[v->n - 1].len += len;
        return;
    }
    if (v->n == v->cap) {
        const size_t cap = v->cap ? v->cap * 2 : 64;
        struct extent *e = realloc(v->e, cap * sizeof *e);
        if (!e) {
            dfs_log(DFS_LOG_ERROR, "out of memory in the middle of a change, the process ends", NULL);
            abort();
        }
        v->e = e;
        v->cap = cap;
    }
    v->e[v->n++] = (struct extent){addr, len};
}

static bool bit_get(const uint8_t *b, uint32_t i) {
    return b[i / 8] >> (i % 8) & 1;
}
static void bits_set(uint8_t *b, uint32_t from, uint32_t n, bool on) {
    for (uint32_t i = from; i < from + n; i++)
        if (on)
            b[i / 8] |= (uint8_t)(1u << (i % 8));
        else
            b[i / 8] &= (uint8_t)~(1u << (i % 8));
}
static uint32_t bits_count(const uint8_t *b) {
    uint32_t n = 0;
    for (size_t i = 0; i < DFS_REGION_BYTES; i += 8) {
        uint64_t w;
        memcpy(&w, b + i, 8);
        n += (uint32_t)__builtin_popcountll(w);
    }
    return n;
}
static uint32_t bits_count_range(const uint8_t *b, uint32_t from, uint32_t n) {
    uint32_t c = 0;
    for (uint32_t i = from; i < from + n; i++)
        c += bit_get(b, i);
    return c;
}

static bool summary_grow(struct dfs_alloc *a, uint64_t regions) {
    if (regions > a->summary_cap) {
        const size_t cap = DFS_MAX(regions, a->summary_cap * 2 + 64);
        uint16_t *s = realloc(a->summary, cap * sizeof *s);
        if (!s)
            return false;
        a->summary = s;
        a->summary_cap = cap;
    }
    for (uint64_t i = a->regions; i < regions; i++)
        a->summary[i] = i == 0 ? DFS_REGION_BLOCKS - DFS_FIRST_BLOCK : DFS_REGION_BLOCKS;
    if (regions > a->regions)
        a->regions = regions;
    return true;
}

struct dfs_alloc *dfs_alloc_new(struct dfs_store *st, uint64_t regions) {
    struct dfs_alloc *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->st = st;
    pthread_mutex_init(&a->mu, NULL);
    pthread_mutex_init(&a->refill_mu, NULL);
    RB_INIT(&a->copies);
    a->used = DFS_FIRST_BLOCK;
    if (regions > DFS_REGIONS_MAX || !summary_grow(a, regions)) {
        dfs_alloc_destroy(a);
        return NULL;
    }
    return a;
}

void dfs_alloc_destroy(struct dfs_alloc *a) {
    if (!a)
        return;
    struct region *r;
    while ((r = RB_MIN(region_tree, &a->copies))) {
        RB_REMOVE(region_tree, &a->copies, r);
        free(r);
    }
    free(a->pool.e);
    free(a->committed.e);
    free(a->freed.e);
    free(a->folded.e);
    free(a->summary);
    pthread_mutex_destroy(&a->mu);
    pthread_mutex_destroy(&a->refill_mu);
    free(a);
}

/* ---- taking and giving ---------------------------------------------------------------------------------------- */

static int take_locked(struct dfs_alloc *a, uint32_t n, uint64_t *addr) {
    for (size_t i = a->pool.n; i > 0; i--) {
        struct extent *e = &a->pool.e[i - 1];
        if (e->len < n)
            continue;
        *addr = e->addr;
        e->addr += n;
        e->len -= n;
        a->pool_blocks -= n;
        if (e->len == 0) {
            memmove(e, e + 1, (a->pool.n - i) * sizeof *e);
            a->pool.n--;
        }
        return 0;
    }
    return -ENOSPC;
}

int dfs_alloc_take(struct dfs_alloc *a, uint32_t n, uint64_t *addr) {
    pthread_mutex_lock(&a->mu);
    const int r = take_locked(a, n, addr);
    pthread_mutex_unlock(&a->mu);
    return r;
}

static struct region *copy_get(struct dfs_alloc *a, uint64_t no) {
    struct region key = {.no = no};
    return RB_FIND(region_tree, &a->copies, &key);
}

/* A region that nobody has used yet, at the end of the file. */
static struct region *region_grow(struct dfs_alloc *a) {
    struct region *r = calloc(1, sizeof *r);
    if (!r || a->regions >= DFS_REGIONS_MAX || !summary_grow(a, a->regions + 1)) {
        free(r);
        return NULL;
    }
    r->no = a->regions - 1;
    if (r->no == 0)
        bits_set(r->bits, 0, DFS_FIRST_BLOCK, true);
    RB_INSERT(region_tree, &a->copies, r);
    return r;
}

/* Past the pool: four blocks of a region at the end of the file that the host has promised nothing about. Writing them
 * may meet ENOSPC; the checkpoint is then tried again later. */
static uint64_t emergency_node(struct dfs_alloc *a) {
    if (a->emergency + DFS_NODE_BLOCKS > a->emergency_end) {
        struct region *r = region_grow(a);
        if (!r) {
            dfs_log(DFS_LOG_ERROR, "no block left in the middle of a change, the process ends", NULL);
            abort();
        }
        const uint32_t from = r->no == 0 ? DFS_FIRST_BLOCK : 0;
        bits_set(r->bits, 0, DFS_REGION_BLOCKS, true);
        r->held += DFS_REGION_BLOCKS - from;
        a->summary[r->no] = 0;
        a->emergency = r->no * DFS_REGION_BLOCKS + from;
        a->emergency_end = (r->no + 1) * DFS_REGION_BLOCKS;
    }
    const uint64_t addr = a->emergency;
    a->emergency += DFS_NODE_BLOCKS;
    return addr;
}

uint64_t dfs_alloc_node(struct dfs_alloc *a) {
    uint64_t addr;
    pthread_mutex_lock(&a->mu);
    if (take_locked(a, DFS_NODE_BLOCKS, &addr) != 0)
        addr = emergency_node(a);
    push_or_die(&a->committed, addr, DFS_NODE_BLOCKS);
    a->used += DFS_NODE_BLOCKS;
    pthread_mutex_unlock(&a->mu);
    return addr;
}

void dfs_alloc_cancel(struct dfs_alloc *a, uint64_t addr, uint32_t n) {
    pthread_mutex_lock(&a->mu);
    push_or_die(&a->pool, addr, n);
    a->pool_blocks += n;
    pthread_mutex_unlock(&a->mu);
}

void dfs_alloc_commit(struct dfs_alloc *a, uint64_t addr, uint32_t n) {
    pthread_mutex_lock(&a->mu);
    push_or_die(&a->committed, addr, n);
    a->used += n;
    pthread_mutex_unlock(&a->mu);
}

void dfs_alloc_free(struct dfs_alloc *a, uint64_t addr, uint32_t n) {
    pthread_mutex_lock(&a->mu);
    push_or_die(&a->freed, addr, n);
    a->used -= n;
    pthread_mutex_unlock(&a->mu);
}

uint64_t dfs_alloc_pool_blocks(struct dfs_alloc *a) {
    pthread_mutex_lock(&a->mu);
    const uint64_t n = a->pool_blocks;
    pthread_mutex_unlock(&a->mu);
    return n;
}

uint64_t dfs_alloc_regions(struct dfs_alloc *a) {
    pthread_mutex_lock(&a->mu);
    const uint64_t n = a->regions;
    pthread_mutex_unlock(&a->mu);
    return n;
}

void dfs_alloc_usage(struct dfs_alloc *a, uint64_t *used_blocks, uint64_t *free_blocks) {
    pthread_mutex_lock(&a->mu);
    *used_blocks = a->used;
    *free_blocks = a->regions * DFS_REGION_BLOCKS - DFS_MIN(a->used, a->regions * DFS_REGION_BLOCKS);
    pthread_mutex_unlock(&a->mu);
}

/* ---- the bitmaps ---------------------------------------------------------------------------------------------- */

static struct dfs_key region_key(uint64_t no) {
    return (struct dfs_key){.ino = 0, .kind = DFS_KIND_REGION, .off = no};
}
static struct dfs_key regsum_key(uint64_t group) {
    return (struct dfs_key){.ino = 0, .kind = DFS_KIND_REGSUM, .off = group};
}

static void bits_fresh(uint64_t no, uint8_t bits[DFS_REGION_BYTES]) {
    memset(bits, 0, DFS_REGION_BYTES);
    if (no == 0)
        bits_set(bits, 0, DFS_FIRST_BLOCK, true);
}

/* The folded bitmap of a region; -EAGAIN. */
static int bits_read(struct dfs_txn *tx, uint64_t no, uint8_t bits[DFS_REGION_BYTES]) {
    const struct dfs_key key = region_key(no);
    const void *val;
    size_t len;
    const int r = dfs_tree_get(tx, DFS_TREE_LOCAL, &key, &val, &len);
    if (r == -ENOENT) {
        bits_fresh(no, bits);
        return 0;
    }
    if (r != 0)
        return r;
    if (len != DFS_REGION_BYTES)
        return -EUCLEAN;
    memcpy(bits, val, DFS_REGION_BYTES);
    return 0;
}

int dfs_alloc_load(struct dfs_alloc *a) {
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, a->st, DFS_TXN_READ, 0);
    if (r != 0)
        return r;
    do {
        uint64_t used = 0;
        r = 0;
        for (uint64_t g = 0; g * DFS_REGSUM_REGIONS < a->regions; g++) {
            const struct dfs_key key = regsum_key(g);
            const void *val;
            size_t len;
            r = dfs_tree_get(&tx, DFS_TREE_LOCAL, &key, &val, &len);
            const bool fresh = r == -ENOENT;
            if (fresh)
                r = 0;
            else if (r == 0 && len != DFS_REGSUM_REGIONS * sizeof(uint16_t))
                r = -EUCLEAN;
            if (r != 0)
                break;
            for (uint64_t i = g * DFS_REGSUM_REGIONS; i < a->regions && i < (g + 1) * DFS_REGSUM_REGIONS; i++) {
                if (!fresh)
                    a->summary[i] = dfs_get_le16((const uint8_t *)val + (i % DFS_REGSUM_REGIONS) * 2);
                if (a->summary[i] > DFS_REGION_BLOCKS)
                    r = -EUCLEAN;
                used += DFS_REGION_BLOCKS - a->summary[i];
            }
        }
        a->used = used;
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

/* The region's copy, made from the folded bitmap if need be. Called without locks; refill_mu held (or single-threaded). */
static int copy_load(struct dfs_alloc *a, uint64_t no, struct region **out) {
    pthread_mutex_lock(&a->mu);
    *out = copy_get(a, no);
    pthread_mutex_unlock(&a->mu);
    if (*out)
        return 0;
    struct region *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->no = no;
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, a->st, DFS_TXN_READ, 0);
    if (r == 0) {
        do {
            r = bits_read(&tx, no, c->bits);
            if (r == 0) {
                /* Still under the shared tree lock: no fold can come between. Freed blocks that are not durably free yet
                 * stay set; so do those committed before the copy was made (they came through an earlier copy). */
                pthread_mutex_lock(&a->mu);
                const uint64_t lo = no * DFS_REGION_BLOCKS, hi = lo + DFS_REGION_BLOCKS;
                const struct extents *lists[] = {&a->folded, &a->committed, &a->pool};
                for (size_t l = 0; l < DFS_ARRAY_SIZE(lists); l++)
                    for (size_t i = 0; i < lists[l]->n; i++)
                        if (lists[l]->e[i].addr >= lo && lists[l]->e[i].addr < hi)
                            bits_set(c->bits, (uint32_t)(lists[l]->e[i].addr - lo), lists[l]->e[i].len, true);
                RB_INSERT(region_tree, &a->copies, c);
                a->summary[no] = (uint16_t)(DFS_REGION_BLOCKS - bits_count(c->bits));
                *out = c;
                pthread_mutex_unlock(&a->mu);
            }
        } while (dfs_txn_again(&tx, &r));
        r = dfs_txn_end(&tx, r);
    }
    if (r != 0)
        free(c);
    return r;
}

/* Moves free runs of a region's copy into the pool, at most `want` blocks, host space promised. */
static int pool_from(struct dfs_alloc *a, struct region *c, uint32_t min_run, uint32_t want, uint32_t *got) {
    struct dfs_io *io = a->st->io;
    uint32_t i = 0;
    *got = 0;
    while (i < DFS_REGION_BLOCKS && *got < want) {
        pthread_mutex_lock(&a->mu);
        while (i < DFS_REGION_BLOCKS && bit_get(c->bits, i))
            i++;
        uint32_t end = i;
        while (end < DFS_REGION_BLOCKS && end - i < want - *got && !bit_get(c->bits, end))
            end++;
        const uint32_t len = end - i;
        if (len < min_run || len == 0) {
            pthread_mutex_unlock(&a->mu);
            i = end + (len == 0);
            continue;
        }
        bits_set(c->bits, i, len, true);
        c->held += len;
        a->summary[c->no] = (uint16_t)(a->summary[c->no] - len);
        pthread_mutex_unlock(&a->mu);
        const uint64_t addr = c->no * DFS_REGION_BLOCKS + i;
        const int r = io->ops->allocate(io, DFS_IO_DATA, addr * DFS_BLOCK_SIZE, (uint64_t)len * DFS_BLOCK_SIZE);
        pthread_mutex_lock(&a->mu);
        if (r != 0 && r != -EOPNOTSUPP) {
            bits_set(c->bits, i, len, false);
            c->held -= len;
            a->summary[c->no] = (uint16_t)(a->summary[c->no] + len);
            pthread_mutex_unlock(&a->mu);
            if (r == -ENOSPC && min_run == 1) { /* scraping together: another run may still have its space */
                i = end;
                continue;
            }
            return r;
        }
        push_or_die(&a->pool, addr, len);
        a->pool_blocks += len;
        pthread_mutex_unlock(&a->mu);
        *got += len;
        i = end;
    }
    return 0;
}

/* The next region from the cursor on with at least `min_free` free blocks; UINT64_MAX: none. */
static uint64_t pick_region(struct dfs_alloc *a, uint32_t min_free) {
    uint64_t found = UINT64_MAX;
    pthread_mutex_lock(&a->mu);
    for (uint64_t i = 0; i < a->regions && found == UINT64_MAX; i++) {
        const uint64_t no = (a->cursor + i) % a->regions;
        if (a->summary[no] >= min_free)
            found = no;
    }
    pthread_mutex_unlock(&a->mu);
    return found;
}

/* One round over the regions with at least `min_free` free blocks, until the pool holds `want`. */
static int refill_round(struct dfs_alloc *a, uint64_t want, uint32_t min_free, uint32_t min_run, uint32_t step) {
    for (uint64_t left = dfs_alloc_regions(a); left > 0 && dfs_alloc_pool_blocks(a) < want; left--) {
        const uint64_t no = pick_region(a, min_free);
        if (no == UINT64_MAX)
            return 0;
        struct region *c;
        uint32_t got;
        int r = copy_load(a, no, &c);
        if (r == 0)
            r = pool_from(a, c, min_run, step, &got);
        if (r != 0)
            return r;
        pthread_mutex_lock(&a->mu);
        a->cursor = got >= step ? no : (no + 1) % a->regions;
        pthread_mutex_unlock(&a->mu);
    }
    return 0;
}

static int refill_grow(struct dfs_alloc *a, uint64_t want) {
    while (dfs_alloc_pool_blocks(a) < want) {
        pthread_mutex_lock(&a->mu);
        struct region *c = region_grow(a);
        if (c)
            a->cursor = c->no;
        pthread_mutex_unlock(&a->mu);
        if (!c)
            return -ENOSPC;
        uint32_t got;
        const int r = pool_from(a, c, RUN_MIN, REFILL_BLOCKS, &got);
        if (r != 0)
            return r;
    }
    return 0;
}

int dfs_alloc_refill(struct dfs_alloc *a, uint64_t want) {
    if (dfs_alloc_pool_blocks(a) >= want)
        return 0;
    pthread_mutex_lock(&a->refill_mu);
    int r = refill_round(a, want, 1024, RUN_MIN, REFILL_BLOCKS);
    if (r == 0)
        r = refill_grow(a, want);
    /* The host is full, or nearly: what is left of it in small pieces. */
    if (r == -ENOSPC) {
        uint64_t before;
        do {
            before = dfs_alloc_pool_blocks(a);
            r = refill_round(a, want, 1, 1, 64);
        } while (r == 0 && dfs_alloc_pool_blocks(a) < want && dfs_alloc_pool_blocks(a) > before);
    }
    pthread_mutex_unlock(&a->refill_mu);
    if (r == 0 && dfs_alloc_pool_blocks(a) < want)
        r = -ENOSPC;
    return r;
}

int dfs_alloc_reserve(struct dfs_alloc *a, uint64_t addr, uint32_t n) {
    const uint64_t no = addr / DFS_REGION_BLOCKS;
    if (n == 0 || n > DFS_REGION_BLOCKS || addr < DFS_FIRST_BLOCK || no >= DFS_REGIONS_MAX ||
        (addr + n - 1) / DFS_REGION_BLOCKS != no)
        return -EUCLEAN;
    if (!summary_grow(a, no + 1))
        return -ENOMEM;
    struct region *c;
    const int r = copy_load(a, no, &c);
    if (r != 0)
        return r;
    const uint32_t from = (uint32_t)(addr % DFS_REGION_BLOCKS);
    const uint32_t fresh = n - bits_count_range(c->bits, from, n);
    bits_set(c->bits, from, n, true);
    c->held += fresh;
    a->summary[no] = (uint16_t)(a->summary[no] - fresh);
    return 0;
}

void dfs_alloc_release_pool(struct dfs_alloc *a) {
    struct dfs_io *io = a->st->io;
    pthread_mutex_lock(&a->mu);
    for (size_t i = 0; i < a->pool.n; i++)
        io->ops->punch(io, DFS_IO_DATA, a->pool.e[i].addr * DFS_BLOCK_SIZE,
                       (uint64_t)a->pool.e[i].len * DFS_BLOCK_SIZE);
    a->pool.n = 0;
    a->pool_blocks = 0;
    pthread_mutex_unlock(&a->mu);
}

/* ---- checkpoint ----------------------------------------------------------------------------------------------- */

static int extent_cmp(const void *x, const void *y) {
    const struct extent *a = x, *b = y;
    return a->addr < b->addr ? -1 : a->addr > b->addr;
}

/* Writes one region's bitmap with all committed or freed extents of it applied. The lists are the caller's own. */
static int fold_region(struct dfs_alloc *a, struct dfs_txn *tx, uint64_t no, const struct extent *e, size_t n, bool set) {
    const struct dfs_key key = region_key(no), skey = regsum_key(no / DFS_REGSUM_REGIONS);
    uint8_t bits[DFS_REGION_BYTES];
    int r = bits_read(tx, no, bits);
    if (r == 0)
        r = dfs_tree_prepare(tx, DFS_TREE_LOCAL, &key);
    if (r == 0)
        r = dfs_tree_prepare(tx, DFS_TREE_LOCAL, &skey);
    if (r != 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        const uint32_t from = (uint32_t)(e[i].addr % DFS_REGION_BLOCKS);
        const uint32_t have = bits_count_range(bits, from, e[i].len);
        if (have != (set ? 0 : e[i].len))
            dfs_log(DFS_LOG_ERROR, set ? "blocks in use were allocated again" : "free blocks were freed again",
                    "block=%" PRIu64 " count=%u", e[i].addr, e[i].len);
        bits_set(bits, from, e[i].len, set);
    }
    memcpy(dfs_tree_put(tx, DFS_TREE_LOCAL, &key, DFS_REGION_BYTES), bits, DFS_REGION_BYTES);

    const void *old;
    size_t len;
    uint8_t sums[DFS_REGSUM_REGIONS * 2];
    if (dfs_tree_get(tx, DFS_TREE_LOCAL, &skey, &old, &len) == 0 && len == sizeof sums)
        memcpy(sums, old, sizeof sums);
    else
        for (unsigned i = 0; i < DFS_REGSUM_REGIONS; i++) {
            const bool first = no < DFS_REGSUM_REGIONS && i == 0;
            dfs_put_le16(sums + i * 2, (uint16_t)(DFS_REGION_BLOCKS - (first ? DFS_FIRST_BLOCK : 0)));
        }
    dfs_put_le16(sums + (no % DFS_REGSUM_REGIONS) * 2, (uint16_t)(DFS_REGION_BLOCKS - bits_count(bits)));
    memcpy(dfs_tree_put(tx, DFS_TREE_LOCAL, &skey, sizeof sums), sums, sizeof sums);

    pthread_mutex_lock(&a->mu);
    struct region *c = copy_get(a, no);
    for (size_t i = 0; c && set && i < n; i++)
        c->held -= DFS_MIN(c->held, e[i].len);
    pthread_mutex_unlock(&a->mu);
    return 0;
}

/* Applies the extents of `list` region by region; those done leave the list (into `done`, if given). */
static int fold_list(struct dfs_alloc *a, struct dfs_txn *tx, struct extents *list, bool set, struct extents *done) {
    struct extents mine = *list;
    *list = (struct extents){0};
    if (mine.n)
        qsort(mine.e, mine.n, sizeof *mine.e, extent_cmp);
    size_t i = 0;
    int r = 0;
    while (i < mine.n) {
        const uint64_t no = mine.e[i].addr / DFS_REGION_BLOCKS;
        size_t end = i;
        while (end < mine.n && mine.e[end].addr / DFS_REGION_BLOCKS == no)
            end++;
        pthread_mutex_unlock(&a->mu);
        r = fold_region(a, tx, no, mine.e + i, end - i, set);
        pthread_mutex_lock(&a->mu);
        if (r != 0)
            break;
        for (; done && i < end; i++)
            push_or_die(done, mine.e[i].addr, mine.e[i].len);
        i = end;
    }
    for (; i < mine.n; i++)
        push_or_die(list, mine.e[i].addr, mine.e[i].len);
    free(mine.e);
    return r;
}

int dfs_alloc_fold(struct dfs_alloc *a, struct dfs_txn *tx) {
    int r = 0;
    pthread_mutex_lock(&a->mu);
    /* Folding changes tree nodes, which commits and frees blocks in turn; each node only once, so this ends. What was
     * committed is folded before what was freed: a block can have gone through both. */
    while (r == 0 && (a->committed.n > 0 || a->freed.n > 0)) {
        r = fold_list(a, tx, &a->committed, true, NULL);
        if (r == 0 && a->committed.n == 0)
            r = fold_list(a, tx, &a->freed, false, &a->folded);
    }
    pthread_mutex_unlock(&a->mu);
    return r;
}

void dfs_alloc_checkpointed(struct dfs_alloc *a) {
    struct dfs_io *io = a->st->io;
    pthread_mutex_lock(&a->refill_mu); /* punched before the pool can take them again */
    pthread_mutex_lock(&a->mu);
    struct extents free_now = a->folded;
    a->folded = (struct extents){0};
    if (free_now.n)
        qsort(free_now.e, free_now.n, sizeof *free_now.e, extent_cmp);
    size_t merged = 0;
    for (size_t i = 0; i < free_now.n; i++) {
        struct extent *last = merged ? &free_now.e[merged - 1] : NULL;
        if (last && last->addr + last->len == free_now.e[i].addr && free_now.e[i].addr % DFS_REGION_BLOCKS != 0)
            last->len += free_now.e[i].len;
        else
            free_now.e[merged++] = free_now.e[i];
    }
    pthread_mutex_unlock(&a->mu);
    for (size_t i = 0; i < merged; i++)
        if (free_now.e[i].len >= PUNCH_MIN_BLOCKS)
            io->ops->punch(io, DFS_IO_DATA, free_now.e[i].addr * DFS_BLOCK_SIZE,
                           (uint64_t)free_now.e[i].len * DFS_BLOCK_SIZE);
    pthread_mutex_lock(&a->mu);
    for (size_t i = 0; i < merged; i++) {
        const uint64_t no = free_now.e[i].addr / DFS_REGION_BLOCKS;
        struct region *c = copy_get(a, no);
        if (c)
            bits_set(c->bits, (uint32_t)(free_now.e[i].addr % DFS_REGION_BLOCKS), free_now.e[i].len, false);
        a->summary[no] = (uint16_t)(a->summary[no] + free_now.e[i].len);
    }
    struct region *c, *next;
    for (c = RB_MIN(region_tree, &a->copies); c; c = next) {
        next = RB_NEXT(region_tree, &a->copies, c);
        if (c->held == 0) {
            RB_REMOVE(region_tree, &a->copies, c);
            free(c);
        }
    }
    pthread_mutex_unlock(&a->mu);
    pthread_mutex_unlock(&a->refill_mu);
    free(free_now.e);
}
