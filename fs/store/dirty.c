#include "fs/store/dirty.h"

#include <stdlib.h>
#include <string.h>

#include "fs/store/io.h"
#include "fs/store/node_format.h"

static int page_cmp(const struct dfs_page *a, const struct dfs_page *b) {
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    return a->idx < b->idx ? -1 : a->idx > b->idx;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(dfs_page_tree, dfs_page, link, page_cmp, static)
#pragma GCC diagnostic pop

void dfs_dirty_init(struct dfs_dirty *d) {
    *d = (struct dfs_dirty){.count = 0};
    RB_INIT(&d->pages);
}

void dfs_dirty_destroy(struct dfs_dirty *d) {
    struct dfs_page *p;
    while ((p = RB_MIN(dfs_page_tree, &d->pages)))
        dfs_dirty_drop(d, p);
}

struct dfs_page *dfs_dirty_get(struct dfs_dirty *d, uint64_t ino, uint64_t idx) {
    struct dfs_page key = {.ino = ino, .idx = idx};
    return RB_FIND(dfs_page_tree, &d->pages, &key);
}

struct dfs_page *dfs_dirty_seek(struct dfs_dirty *d, uint64_t ino, uint64_t idx) {
    struct dfs_page key = {.ino = ino, .idx = idx};
    return RB_NFIND(dfs_page_tree, &d->pages, &key);
}

struct dfs_page *dfs_dirty_next(struct dfs_dirty *d, struct dfs_page *p) {
    (void)d;
    return RB_NEXT(dfs_page_tree, &d->pages, p);
}

struct dfs_page *dfs_dirty_make(struct dfs_dirty *d, uint64_t ino, uint64_t idx) {
    struct dfs_page *p = dfs_dirty_get(d, ino, idx);
    if (!p) {
        p = calloc(1, sizeof *p);
        if (!p)
            return NULL;
        p->data = dfs_io_alloc(DFS_BLOCK_SIZE);
        if (!p->data) {
            free(p);
            return NULL;
        }
        memset(p->data, 0, DFS_BLOCK_SIZE);
        p->ino = ino;
        p->idx = idx;
        RB_INSERT(dfs_page_tree, &d->pages, p);
        d->count++;
    }
    p->version = ++d->version;
    return p;
}

void dfs_dirty_drop(struct dfs_dirty *d, struct dfs_page *p) {
    RB_REMOVE(dfs_page_tree, &d->pages, p);
    d->count--;
    free(p->data);
    free(p);
}

size_t dfs_dirty_drop_range(struct dfs_dirty *d, uint64_t ino, uint64_t from, uint64_t to) {
    size_t n = 0;
    struct dfs_page *p = dfs_dirty_seek(d, ino, from);
    while (p && p->ino == ino && p->idx < to) {
        struct dfs_page *next = dfs_dirty_next(d, p);
        dfs_dirty_drop(d, p);
        p = next;
        n++;
    }
    return n;
}
