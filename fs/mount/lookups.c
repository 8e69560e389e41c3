#include "fs/mount/lookups.h"

#include <pthread.h>

#include "common/util.h"

#define SHARDS 16u
#define PAGE_SHIFT 10u
#define PAGE_COUNTS (1u << PAGE_SHIFT)
#define BUCKETS_MIN 16u

struct page {
    struct page *next;
    uint64_t key;
    uint32_t used; /* counts that are not zero */
    uint32_t count[PAGE_COUNTS];
};

struct shard {
    pthread_mutex_t lock;
    struct page **bucket;
    size_t buckets, pages; /* buckets: a power of two */
};

struct dfs_lookups {
    struct shard shard[SHARDS];
};

struct dfs_lookups *dfs_lookups_new(void) {
    struct dfs_lookups *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shard[i];
        pthread_mutex_init(&s->lock, NULL);
        s->buckets = BUCKETS_MIN;
        s->bucket = calloc(s->buckets, sizeof(struct page *));
        if (!s->bucket) {
            dfs_lookups_free(l);
            return NULL;
        }
    }
    return l;
}

void dfs_lookups_free(struct dfs_lookups *l) {
    if (!l)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shard[i];
        for (size_t b = 0; s->bucket && b < s->buckets; b++) {
            for (struct page *p = s->bucket[b], *next; p; p = next) {
                next = p->next;
                free(p);
            }
        }
        free(s->bucket);
    }
    free(l);
}

static struct shard *shard_of(struct dfs_lookups *l, uint64_t key) {
    return &l->shard[key % SHARDS];
}

static struct page **find(struct shard *s, uint64_t key) {
    struct page **at = &s->bucket[(key / SHARDS) & (s->buckets - 1)];
    while (*at && (*at)->key != key)
        at = &(*at)->next;
    return at;
}

/* Longer chains are slower but right: without memory the table stays as it is. */
static void grow(struct shard *s) {
    const size_t buckets = s->buckets * 2;
    struct page **bigger = calloc(buckets, sizeof(struct page *));
    if (!bigger)
        return;
    for (size_t b = 0; b < s->buckets; b++) {
        for (struct page *p = s->bucket[b], *next; p; p = next) {
            next = p->next;
            struct page **at = &bigger[(p->key / SHARDS) & (buckets - 1)];
            p->next = *at;
            *at = p;
        }
    }
    free(s->bucket);
    s->bucket = bigger;
    s->buckets = buckets;
}

int dfs_lookups_add(struct dfs_lookups *l, uint64_t ino, uint64_t n) {
    const uint64_t key = ino >> PAGE_SHIFT;
    struct shard *s = shard_of(l, key);
    if (!n)
        return 0;
    pthread_mutex_lock(&s->lock);
    struct page **at = find(s, key), *p = *at;
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p) {
            pthread_mutex_unlock(&s->lock);
            return -ENOMEM;
        }
        p->key = key;
        *at = p;
        if (++s->pages > s->buckets)
            grow(s);
    }
    uint32_t *c = &p->count[ino & (PAGE_COUNTS - 1)];
    p->used += !*c;
    *c = n > UINT32_MAX - *c ? UINT32_MAX : *c + (uint32_t)n;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

bool dfs_lookups_sub(struct dfs_lookups *l, uint64_t ino, uint64_t n) {
    const uint64_t key = ino >> PAGE_SHIFT;
    struct shard *s = shard_of(l, key);
    bool zero = true;
    pthread_mutex_lock(&s->lock);
    struct page **at = find(s, key), *p = *at;
    uint32_t *c = p ? &p->count[ino & (PAGE_COUNTS - 1)] : NULL;
    if (c && *c) {
        if (*c != UINT32_MAX) /* the true count is not known any more */
            *c = n >= *c ? 0 : *c - (uint32_t)n;
        zero = !*c;
        if (zero && !--p->used) {
            *at = p->next;
            s->pages--;
            free(p);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return zero;
}

uint32_t dfs_lookups_get(struct dfs_lookups *l, uint64_t ino) {
    const uint64_t key = ino >> PAGE_SHIFT;
    struct shard *s = shard_of(l, key);
    pthread_mutex_lock(&s->lock);
    const struct page *p = *find(s, key);
    const uint32_t n = p ? p->count[ino & (PAGE_COUNTS - 1)] : 0;
    pthread_mutex_unlock(&s->lock);
    return n;
}

size_t dfs_lookups_bytes(struct dfs_lookups *l) {
    size_t bytes = sizeof *l;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &l->shard[i];
        pthread_mutex_lock(&s->lock);
        bytes += s->pages * sizeof(struct page) + s->buckets * sizeof(struct page *);
        pthread_mutex_unlock(&s->lock);
    }
    return bytes;
}
