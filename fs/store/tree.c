#include <assert.h>
#include <inttypes.h>

#include "fs/store/cache.h"
#include "fs/store/internal.h"

/* A path from the root to a leaf: n[l] is the node at level l, i[l] the slot in it. */
struct path {
    struct dfs_node *n[DFS_NODE_MAX_LEVEL + 1];
    unsigned i[DFS_NODE_MAX_LEVEL + 1];
};

static struct dfs_node *need(struct dfs_txn *tx, uint8_t t, const struct dfs_ptr *ptr, int level) {
    struct dfs_node *n = dfs_cache_find(&tx->st->cache, ptr->addr);
    if (n)
        return n;
    tx->miss_node = true;
    tx->miss = *ptr;
    tx->miss_tree = t;
    tx->miss_level = level;
    return NULL;
}

int dfs_tree_load(struct dfs_txn *tx) {
    struct dfs_store *st = tx->st;
    assert(tx->miss_node);
    tx->miss_node = false;
    struct dfs_node *n = dfs_cache_node_new();
    if (!n)
        return -ENOMEM;
    const char *why = "read failed";
    int r = st->io->ops->read(st->io, DFS_IO_DATA, n->buf, DFS_NODE_SIZE, tx->miss.addr * DFS_BLOCK_SIZE);
    if (r == 0)
        r = dfs_node_validate(n->buf, &tx->miss, tx->miss_tree, tx->miss_level, st->params.uuid, &why);
    atomic_fetch_add_explicit(&st->n_verified, 1, memory_order_relaxed);
    n->addr = tx->miss.addr;
    n->birth = tx->miss.birth;
    n->csum = tx->miss.csum;
    n->tree = tx->miss_tree;
    n->state = DFS_NODE_CLEAN;
    pthread_rwlock_wrlock(&st->lock);
    bool current = true;
    if (r == 0 && !dfs_cache_find(&st->cache, n->addr)) {
        dfs_cache_insert(&st->cache, n);
        dfs_cache_evict(&st->cache);
        n = NULL;
    } else if (r != 0 && dfs_cache_find(&st->cache, n->addr)) {
        current = false; /* the address was reused while we read: the operation finds out by starting over */
    }
    pthread_rwlock_unlock(&st->lock);
    if (n)
        dfs_cache_node_free(n);
    if (r == 0 || !current)
        return 0;
    /* A tree that changed under us also looks like damage; the caller may come back once with the same pointer. */
    if (r == -EBADMSG || r == -EUCLEAN) {
        atomic_fetch_add_explicit(&st->n_bad, 1, memory_order_relaxed);
        dfs_log(DFS_LOG_ERROR, "tree node damaged", "tree=%u block=%" PRIu64 " checkpoint=%" PRIu64 " reason=\"%s\"",
                tx->miss_tree, tx->miss.addr, tx->miss.birth, why);
        return -EIO;
    }
    dfs_log(DFS_LOG_ERROR, "tree node unreadable", "tree=%u block=%" PRIu64 " errno=%d", tx->miss_tree, tx->miss.addr,
            -r);
    return -EIO;
}

/* ---- searching ------------------------------------------------------------------------------------------------ */

int dfs_tree_get(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key, const void **val, size_t *len) {
    const struct dfs_tree *tree = &tx->st->trees[t];
    struct dfs_ptr ptr = tree->root;
    for (int level = tree->level;; level--) {
        struct dfs_node *n = need(tx, (uint8_t)t, &ptr, level);
        if (!n)
            return -EAGAIN;
        if (level == 0) {
            bool found;
            const unsigned i = dfs_node_search(n->buf, key, &found);
            if (!found)
                return -ENOENT;
            *val = dfs_node_val(n->buf, i, len);
            return 0;
        }
        dfs_node_get_ptr(n->buf, dfs_node_child(n->buf, key), &ptr);
    }
}

/* Goes down from it->n[level]'s slot to a leaf, to its first (or last) key. */
static int iter_descend(struct dfs_iter *it, unsigned level, bool last) {
    while (level > 0) {
        struct dfs_ptr ptr;
        dfs_node_get_ptr(it->n[level]->buf, it->i[level], &ptr);
        struct dfs_node *n = need(it->tx, it->tree, &ptr, (int)level - 1);
        if (!n)
            return -EAGAIN;
        level--;
        it->n[level] = n;
        const unsigned nkeys = dfs_node_nkeys(n->buf);
        it->i[level] = last && nkeys ? nkeys - 1 : 0;
    }
    return 0;
}

static int iter_find(struct dfs_iter *it, struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key,
                     bool *found) {
    const struct dfs_tree *tree = &tx->st->trees[t];
    it->tx = tx;
    it->tree = (uint8_t)t;
    it->level = tree->level;
    struct dfs_ptr ptr = tree->root;
    for (unsigned level = tree->level;; level--) {
        struct dfs_node *n = need(tx, (uint8_t)t, &ptr, (int)level);
        if (!n)
            return -EAGAIN;
        it->n[level] = n;
        if (level == 0) {
            it->i[0] = dfs_node_search(n->buf, key, found);
            return 0;
        }
        it->i[level] = dfs_node_child(n->buf, key);
        dfs_node_get_ptr(n->buf, it->i[level], &ptr);
    }
}

int dfs_iter_seek(struct dfs_iter *it, struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key) {
    bool found;
    const int r = iter_find(it, tx, t, key, &found);
    if (r != 0)
        return r;
    if (it->i[0] < dfs_node_nkeys(it->n[0]->buf))
        return 0;
    return dfs_iter_next(it);
}

int dfs_iter_seek_le(struct dfs_iter *it, struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key) {
    bool found;
    const int r = iter_find(it, tx, t, key, &found);
    if (r != 0 || found)
        return r;
    return dfs_iter_prev(it);
}

int dfs_iter_next(struct dfs_iter *it) {
    for (;;) {
        if (it->i[0] + 1 < dfs_node_nkeys(it->n[0]->buf)) {
            it->i[0]++;
            return 0;
        }
        unsigned level = 1;
        while (level <= it->level && it->i[level] + 1 >= dfs_node_nkeys(it->n[level]->buf))
            level++;
        if (level > it->level)
            return -ENOENT;
        it->i[level]++;
        const int r = iter_descend(it, level, false);
        if (r != 0)
            return r;
        if (dfs_node_nkeys(it->n[0]->buf) > 0)
            return 0;
    }
}

int dfs_iter_prev(struct dfs_iter *it) {
    for (;;) {
        if (it->i[0] > 0) {
            it->i[0]--;
            return 0;
        }
        unsigned level = 1;
        while (level <= it->level && it->i[level] == 0)
            level++;
        if (level > it->level)
            return -ENOENT;
        it->i[level]--;
        const int r = iter_descend(it, level, true);
        if (r != 0)
            return r;
        if (dfs_node_nkeys(it->n[0]->buf) > 0)
            return 0;
    }
}

struct dfs_key dfs_iter_key(const struct dfs_iter *it) {
    return dfs_node_key(it->n[0]->buf, it->i[0]);
}

const void *dfs_iter_val(const struct dfs_iter *it, size_t *len) {
    return dfs_node_val(it->n[0]->buf, it->i[0], len);
}

/* ---- changing ------------------------------------------------------------------------------------------------- */

static int path_find(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key, struct path *p, bool *found) {
    struct dfs_iter it;
    const int r = iter_find(&it, tx, t, key, found);
    if (r != 0)
        return r;
    memcpy(p->n, it.n, sizeof p->n);
    memcpy(p->i, it.i, sizeof p->i);
    return 0;
}

int dfs_tree_prepare(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key) {
    struct path p;
    bool found;
    return path_find(tx, t, key, &p, &found);
}

/* In the middle of a change there is no way back, and none is needed: the journal has everything that was answered. */
static struct dfs_node *node_new_or_die(void) {
    struct dfs_node *n = dfs_cache_node_new();
    if (!n) {
        dfs_log(DFS_LOG_ERROR, "out of memory in the middle of a change, the process ends", NULL);
        abort();
    }
    return n;
}

/* The node may be changed in place from here on: it is dirty, its address is new. */
static struct dfs_node *node_cow(struct dfs_store *st, struct dfs_node *n) {
    if (n->state == DFS_NODE_DIRTY)
        return n;
    const uint64_t addr = dfs_alloc_node(st->alloc);
    dfs_alloc_free(st->alloc, n->addr, DFS_NODE_BLOCKS);
    if (n->state == DFS_NODE_FROZEN) {
        struct dfs_node *copy = node_new_or_die();
        memcpy(copy->buf, n->buf, DFS_NODE_SIZE);
        copy->tree = n->tree;
        n->detached = true;
        n = copy;
    } else {
        dfs_cache_remove(&st->cache, n);
    }
    n->state = DFS_NODE_DIRTY;
    n->addr = addr;
    n->birth = st->checkpoint;
    n->csum = 0;
    dfs_cache_insert(&st->cache, n);
    return n;
}

static struct dfs_ptr ptr_of(const struct dfs_node *n) {
    return (struct dfs_ptr){n->addr, n->birth, n->csum};
}

static void path_cow(struct dfs_txn *tx, struct dfs_tree *tree, struct path *p) {
    struct dfs_store *st = tx->st;
    for (int l = tree->level; l >= 0; l--) {
        if (p->n[l]->state == DFS_NODE_DIRTY)
            continue;
        p->n[l] = node_cow(st, p->n[l]);
        const struct dfs_ptr ptr = ptr_of(p->n[l]);
        if (l == tree->level)
            tree->root = ptr;
        else
            dfs_node_set_ptr(p->n[l + 1]->buf, p->i[l + 1], &ptr);
    }
}

static struct dfs_node *node_make(struct dfs_store *st, uint8_t t, unsigned level) {
    struct dfs_node *n = node_new_or_die();
    dfs_node_init(n->buf, t, (uint8_t)level, st->params.uuid);
    n->tree = t;
    n->state = DFS_NODE_DIRTY;
    n->addr = dfs_alloc_node(st->alloc);
    n->birth = st->checkpoint;
    dfs_cache_insert(&st->cache, n);
    return n;
}

/* The node leaves the tree. */
static void node_drop(struct dfs_store *st, struct dfs_node *n) {
    dfs_alloc_free(st->alloc, n->addr, DFS_NODE_BLOCKS);
    if (n->state == DFS_NODE_FROZEN) {
        n->detached = true;
        return;
    }
    dfs_cache_remove(&st->cache, n);
    dfs_cache_node_free(n);
}

int dfs_tree_new(struct dfs_txn *tx, enum dfs_tree_id t) {
    struct dfs_node *n = node_make(tx->st, (uint8_t)t, 0);
    tx->st->trees[t] = (struct dfs_tree){.root = ptr_of(n), .level = 0};
    return 0;
}

static void insert_ptr(struct dfs_node *parent, unsigned i, const struct dfs_key *key, const struct dfs_node *child) {
    const struct dfs_ptr ptr = ptr_of(child);
    dfs_node_insert(parent->buf, i, key, sizeof(struct dfs_ptr_disk));
    dfs_node_set_ptr(parent->buf, i, &ptr);
}

/* Splits nodes of the (dirty) path from level `l` upwards until a value of `len` bytes fits at slot i[l] of n[l]. */
static void make_room(struct dfs_txn *tx, struct dfs_tree *tree, struct path *p, unsigned l, size_t len) {
    struct dfs_store *st = tx->st;
    while (!dfs_node_fits(p->n[l]->buf, len)) {
        struct dfs_node *left = p->n[l];
        if (l == tree->level) {
            assert(l < DFS_NODE_MAX_LEVEL);
            struct dfs_node *root = node_make(st, left->tree, l + 1);
            insert_ptr(root, 0, &(struct dfs_key){0}, left);
            tree->root = ptr_of(root);
            tree->level++;
            p->n[l + 1] = root;
            p->i[l + 1] = 0;
        }
        /* Making room above may split the parent and move n[l + 1], i[l + 1]; left stays the child there. */
        make_room(tx, tree, p, l + 1, sizeof(struct dfs_ptr_disk));
        struct dfs_node *right = node_make(st, left->tree, l);
        const unsigned nkeys = dfs_node_nkeys(left->buf);
        /* Appending at the very end (new inodes, chunks, file ends) leaves a full node behind, not a half-empty one. */
        const bool at_end = l == 0 ? p->i[l] == nkeys : p->i[l] == nkeys - 1;
        const unsigned at = at_end ? nkeys - 1 : dfs_node_split_point(left->buf);
        dfs_node_split(left->buf, right->buf, at);
        const struct dfs_key sep = dfs_node_key(right->buf, 0);
        insert_ptr(p->n[l + 1], p->i[l + 1] + 1, &sep, right);
        /* At an interior level i[l] names the child that is about to be split, not the place of the new pointer. */
        if (l == 0 ? p->i[l] > at : p->i[l] >= at) {
            p->n[l] = right;
            p->i[l] -= at;
            p->i[l + 1]++;
        }
    }
}

/* Keys may arrive below the first separator of a node (its first child was emptied once): lower it. */
static void lower_separators(struct dfs_tree *tree, struct path *p, const struct dfs_key *key) {
    for (unsigned l = tree->level; l > 0; l--) {
        const struct dfs_key first = dfs_node_key(p->n[l]->buf, p->i[l]);
        if (dfs_key_cmp(key, &first) < 0)
            dfs_node_set_key(p->n[l]->buf, p->i[l], key);
    }
}

void *dfs_tree_put(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key, size_t len) {
    struct dfs_tree *tree = &tx->st->trees[t];
    struct path p;
    bool found;
    const int r = path_find(tx, t, key, &p, &found);
    assert(r == 0 && len <= DFS_ITEM_MAX);
    (void)r;
    path_cow(tx, tree, &p);
    size_t old;
    if (found) {
        dfs_node_val(p.n[0]->buf, p.i[0], &old);
        if (old == len)
            return dfs_node_resize(p.n[0]->buf, p.i[0], len);
        dfs_node_remove(p.n[0]->buf, p.i[0]);
    }
    lower_separators(tree, &p, key);
    make_room(tx, tree, &p, 0, len);
    return dfs_node_insert(p.n[0]->buf, p.i[0], key, len);
}

/* Joins the node at level l with a neighbour in memory, if both fit well into one. */
static void try_merge(struct dfs_txn *tx, struct path *p, unsigned l) {
    struct dfs_store *st = tx->st;
    struct dfs_node *parent = p->n[l + 1];
    const unsigned slot = p->i[l + 1], nkeys = dfs_node_nkeys(parent->buf);
    for (int side = 0; side < 2; side++) {
        const bool right = side == 0;
        if (right ? slot + 1 >= nkeys : slot == 0)
            continue;
        const unsigned other = right ? slot + 1 : slot - 1;
        struct dfs_ptr ptr;
        dfs_node_get_ptr(parent->buf, other, &ptr);
        struct dfs_node *n = dfs_cache_find(&st->cache, ptr.addr);
        if (!n || dfs_node_used(n->buf) + dfs_node_used(p->n[l]->buf) > DFS_NODE_SIZE * 3 / 4)
            continue;
        struct dfs_node *into = p->n[l];
        if (right) {
            dfs_node_append(into->buf, n->buf);
            dfs_node_remove(parent->buf, other);
            node_drop(st, n);
        } else {
            n = node_cow(st, n);
            ptr = ptr_of(n);
            dfs_node_append(n->buf, into->buf);
            dfs_node_set_ptr(parent->buf, other, &ptr);
            dfs_node_remove(parent->buf, slot);
            node_drop(st, into);
        }
        return;
    }
}

void dfs_tree_del(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key) {
    struct dfs_store *st = tx->st;
    struct dfs_tree *tree = &st->trees[t];
    struct path p;
    bool found;
    const int r = path_find(tx, t, key, &p, &found);
    assert(r == 0 && found);
    (void)r;
    path_cow(tx, tree, &p);
    dfs_node_remove(p.n[0]->buf, p.i[0]);
    for (unsigned l = 0; l < tree->level; l++) {
        if (dfs_node_nkeys(p.n[l]->buf) == 0) {
            node_drop(st, p.n[l]);
            dfs_node_remove(p.n[l + 1]->buf, p.i[l + 1]);
        } else {
            if (dfs_node_used(p.n[l]->buf) < DFS_NODE_SIZE / 4)
                try_merge(tx, &p, l);
            if (dfs_node_used(p.n[l + 1]->buf) >= DFS_NODE_SIZE / 4)
                break;
        }
    }
    struct dfs_node *root = p.n[tree->level];
    if (tree->level > 0 && dfs_node_nkeys(root->buf) == 0) {
        dfs_node_init(root->buf, (uint8_t)t, 0, st->params.uuid);
        tree->level = 0;
        return;
    }
    while (tree->level > 0 && dfs_node_nkeys(root->buf) == 1) {
        dfs_node_get_ptr(root->buf, 0, &tree->root);
        node_drop(st, root);
        tree->level--;
        root = dfs_cache_find(&st->cache, tree->root.addr);
        if (!root)
            break;
    }
}

/* ---- checkpoint ----------------------------------------------------------------------------------------------- */

static void freeze_below(struct dfs_store *st, struct dfs_node *n, struct dfs_node *parent, unsigned slot,
                         struct dfs_node_list *frozen) {
    const unsigned level = dfs_node_level(n->buf);
    const unsigned nkeys = level ? dfs_node_nkeys(n->buf) : 0;
    for (unsigned i = 0; i < nkeys; i++) {
        struct dfs_ptr ptr;
        dfs_node_get_ptr(n->buf, i, &ptr);
        if (ptr.birth <= st->durable_checkpoint)
            continue;
        struct dfs_node *child = dfs_cache_find(&st->cache, ptr.addr);
        if (child && child->state == DFS_NODE_DIRTY)
            freeze_below(st, child, n, i, frozen);
    }
    n->state = DFS_NODE_FROZEN;
    n->frozen_parent = parent;
    n->frozen_slot = slot;
    st->cache.dirty--;
    TAILQ_INSERT_TAIL(frozen, n, work);
}

void dfs_tree_freeze(struct dfs_store *st, struct dfs_node_list *frozen) {
    TAILQ_INIT(frozen);
    for (int t = 0; t < DFS_TREES; t++) {
        struct dfs_node *root = dfs_cache_find(&st->cache, st->trees[t].root.addr);
        if (root && root->state == DFS_NODE_DIRTY)
            freeze_below(st, root, NULL, 0, frozen);
    }
    assert(st->cache.dirty == 0);
}

/* The current parent of `n`, found by n's first key from the root; NULL if n is not in the tree any more. */
static struct dfs_node *current_parent(struct dfs_store *st, const struct dfs_node *n, unsigned *slot) {
    const unsigned level = dfs_node_level(n->buf);
    const struct dfs_tree *tree = &st->trees[n->tree];
    if (level >= tree->level || dfs_node_nkeys(n->buf) == 0)
        return NULL;
    const struct dfs_key key = dfs_node_key(n->buf, 0);
    struct dfs_ptr ptr = tree->root;
    for (unsigned l = tree->level; l > level; l--) {
        struct dfs_node *p = dfs_cache_find(&st->cache, ptr.addr);
        if (!p)
            return NULL;
        *slot = dfs_node_child(p->buf, &key);
        dfs_node_get_ptr(p->buf, *slot, &ptr);
        if (l == level + 1)
            return ptr.addr == n->addr ? p : NULL;
    }
    return NULL;
}

void dfs_tree_patch(struct dfs_store *st, struct dfs_node *n) {
    const struct dfs_ptr ptr = ptr_of(n);
    if (n->frozen_parent)
        dfs_node_set_ptr(n->frozen_parent->buf, n->frozen_slot, &ptr);
    if (n->detached)
        return;
    if (st->trees[n->tree].root.addr == n->addr) {
        st->trees[n->tree].root.csum = n->csum;
        return;
    }
    unsigned slot;
    struct dfs_node *p = current_parent(st, n, &slot);
    if (p && p != n->frozen_parent)
        dfs_node_set_ptr(p->buf, slot, &ptr);
}

void dfs_tree_thaw(struct dfs_store *st, struct dfs_node_list *frozen, bool ok) {
    struct dfs_node *n;
    while ((n = TAILQ_FIRST(frozen))) {
        TAILQ_REMOVE(frozen, n, work);
        n->frozen_parent = NULL;
        if (n->detached) {
            dfs_cache_remove(&st->cache, n);
            dfs_cache_node_free(n);
        } else if (ok) {
            n->state = DFS_NODE_CLEAN;
        } else {
            n->state = DFS_NODE_DIRTY;
            st->cache.dirty++;
        }
    }
    dfs_cache_evict(&st->cache);
}
