#include "fs/store/unit_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define BUCKETS 4096u

struct unit {
    TAILQ_ENTRY(unit) lru;
    struct unit *next;
    uint64_t chunk;
    uint32_t unit_off, len;
    uint8_t *data;
};

struct dfs_unit_cache {
    pthread_mutex_t mu;
    size_t bytes, max;
    TAILQ_HEAD(, unit) lru;
    struct unit *buckets[BUCKETS];
};

struct dfs_unit_cache *dfs_unit_cache_new(size_t bytes) {
    struct dfs_unit_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->max = bytes;
    pthread_mutex_init(&c->mu, NULL);
    TAILQ_INIT(&c->lru);
    return c;
}

static struct unit **slot(struct dfs_unit_cache *c, uint64_t chunk, uint32_t unit_off) {
    struct unit **p = &c->buckets[((chunk * 0x9e3779b97f4a7c15ull >> 32) ^ (unit_off >> 15)) % BUCKETS];
    while (*p && ((*p)->chunk != chunk || (*p)->unit_off != unit_off))
        p = &(*p)->next;
    return p;
}

static void drop(struct dfs_unit_cache *c, struct unit *u) {
    *slot(c, u->chunk, u->unit_off) = u->next;
    TAILQ_REMOVE(&c->lru, u, lru);
    c->bytes -= u->len;
    free(u->data);
    free(u);
}

void dfs_unit_cache_free(struct dfs_unit_cache *c) {
    if (!c)
        return;
    struct unit *u;
    while ((u = TAILQ_FIRST(&c->lru)))
        drop(c, u);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

bool dfs_unit_cache_get(struct dfs_unit_cache *c, uint64_t chunk, uint32_t unit_off, uint32_t off, uint32_t len,
                        void *dst) {
    pthread_mutex_lock(&c->mu);
    struct unit *u = *slot(c, chunk, unit_off);
    const bool hit = u && off <= u->len && len <= u->len - off;
    if (hit) {
        memcpy(dst, u->data + off, len);
        TAILQ_REMOVE(&c->lru, u, lru);
        TAILQ_INSERT_TAIL(&c->lru, u, lru);
    }
    pthread_mutex_unlock(&c->mu);
    return hit;
}

void dfs_unit_cache_put(struct dfs_unit_cache *c, uint64_t chunk, uint32_t unit_off, uint8_t *data, uint32_t len) {
    struct unit *u = calloc(1, sizeof *u);
    pthread_mutex_lock(&c->mu);
    struct unit **p = slot(c, chunk, unit_off);
    if (!u || *p || len > c->max) {
        pthread_mutex_unlock(&c->mu);
        free(u);
        free(data);
        return;
    }
    *u = (struct unit){.chunk = chunk, .unit_off = unit_off, .len = len, .data = data};
    *p = u;
    TAILQ_INSERT_TAIL(&c->lru, u, lru);
    c->bytes += len;
    while (c->bytes > c->max)
        drop(c, TAILQ_FIRST(&c->lru));
    pthread_mutex_unlock(&c->mu);
}

size_t dfs_unit_cache_bytes(struct dfs_unit_cache *c) {
    pthread_mutex_lock(&c->mu);
    const size_t n = c->bytes;
    pthread_mutex_unlock(&c->mu);
    return n;
}
