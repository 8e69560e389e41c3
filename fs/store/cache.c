#include "fs/store/cache.h"

#include "fs/store/io.h"

int dfs_cache_init(struct dfs_cache *c, size_t bytes) {
    *c = (struct dfs_cache){.max_nodes = DFS_MAX(bytes / DFS_NODE_SIZE, 64u)};
    TAILQ_INIT(&c->lru);
    c->hash_size = 64;
    while (c->hash_size < c->max_nodes * 2)
        c->hash_size *= 2;
    c->hash = calloc(c->hash_size, sizeof(struct dfs_node *));
    return c->hash ? 0 : -ENOMEM;
}

void dfs_cache_destroy(struct dfs_cache *c) {
    struct dfs_node *n;
    while ((n = TAILQ_FIRST(&c->lru))) {
        dfs_cache_remove(c, n);
        dfs_cache_node_free(n);
    }
    free(c->hash);
    c->hash = NULL;
}

/* Addresses of neighbouring nodes differ by DFS_NODE_BLOCKS; Fibonacci hashing spreads them. */
static size_t bucket(const struct dfs_cache *c, uint64_t addr) {
    return (size_t)((addr * 0x9e3779b97f4a7c15ull) >> 20) & (c->hash_size - 1);
}

struct dfs_node *dfs_cache_find(struct dfs_cache *c, uint64_t addr) {
    for (struct dfs_node *n = c->hash[bucket(c, addr)]; n; n = n->hash_next)
        if (n->addr == addr) {
            if (!atomic_load_explicit(&n->referenced, memory_order_relaxed))
                atomic_store_explicit(&n->referenced, true, memory_order_relaxed);
            return n;
        }
    return NULL;
}

struct dfs_node *dfs_cache_node_new(void) {
    struct dfs_node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->buf = dfs_io_alloc(DFS_NODE_SIZE);
    if (!n->buf) {
        free(n);
        return NULL;
    }
    return n;
}

void dfs_cache_node_free(struct dfs_node *n) {
    free(n->buf);
    free(n);
}

void dfs_cache_insert(struct dfs_cache *c, struct dfs_node *n) {
    const size_t b = bucket(c, n->addr);
    n->hash_next = c->hash[b];
    c->hash[b] = n;
    atomic_store_explicit(&n->referenced, true, memory_order_relaxed);
    TAILQ_INSERT_TAIL(&c->lru, n, lru);
    c->nodes++;
    if (n->state == DFS_NODE_DIRTY)
        c->dirty++;
}

void dfs_cache_remove(struct dfs_cache *c, struct dfs_node *n) {
    struct dfs_node **p = &c->hash[bucket(c, n->addr)];
    while (*p != n)
        p = &(*p)->hash_next;
    *p = n->hash_next;
    TAILQ_REMOVE(&c->lru, n, lru);
    c->nodes--;
    if (n->state == DFS_NODE_DIRTY)
        c->dirty--;
}

/* CLOCK: a node looked at since the hand passed gets another round. */
void dfs_cache_evict(struct dfs_cache *c) {
    for (size_t rounds = 2 * c->nodes; c->nodes > c->max_nodes && rounds; rounds--) {
        struct dfs_node *n = TAILQ_FIRST(&c->lru);
        if (n->state == DFS_NODE_CLEAN && !atomic_load_explicit(&n->referenced, memory_order_relaxed)) {
            dfs_cache_remove(c, n);
            dfs_cache_node_free(n);
            continue;
        }
        atomic_store_explicit(&n->referenced, false, memory_order_relaxed);
        TAILQ_REMOVE(&c->lru, n, lru);
        TAILQ_INSERT_TAIL(&c->lru, n, lru);
    }
}
