/* The copy-on-write B+trees and the cache of their nodes.
 *
 * Nothing here waits for the disk. A search that needs a node which is not in memory notes it in the transaction and
 * returns -EAGAIN; the operation lets go of the tree lock, dfs_tree_load() fetches the node, and the operation starts
 * over. So the lock is held for memory accesses only. An operation that changes trees first looks at every key it will
 * touch (dfs_tree_prepare()), so that nothing can fail once it has begun to change.
 *
 * Locking: the store's tree lock; shared for searches, exclusive for everything else (dfs_tree_load() takes it itself).
 *
 * A node's life:
 *
 *            first change                  freeze               written, parent's pointer patched
 *   CLEAN ----------------> DIRTY ----------------> FROZEN ----------------------------------> CLEAN
 *     ^  at a new address           checkpoint         |  changed meanwhile: a DIRTY copy takes its place,
 *     '- read from disk             begins             '- the frozen one is detached and goes once written
 */
#pragma once
#include <stdatomic.h>
#include <sys/queue.h>

#include "fs/store/item_format.h"
#include "fs/store/node.h"

struct dfs_store;

enum dfs_node_state { DFS_NODE_CLEAN, DFS_NODE_DIRTY, DFS_NODE_FROZEN };

struct dfs_node {
    uint64_t addr, birth, csum;
    struct dfs_node *hash_next;
    TAILQ_ENTRY(dfs_node) lru;  /* every node in the cache */
    TAILQ_ENTRY(dfs_node) work; /* FROZEN: the checkpoint's list */
    struct dfs_node *frozen_parent;
    unsigned frozen_slot;
    uint8_t tree, state;
    bool detached;
    atomic_bool referenced;
    uint8_t *buf;
};
TAILQ_HEAD(dfs_node_list, dfs_node);

struct dfs_tree {
    struct dfs_ptr root;
    uint8_t level; /* of the root */
};

struct dfs_cache {
    struct dfs_node **hash;
    size_t hash_size;
    size_t max_nodes, nodes, dirty;
    struct dfs_node_list lru;
};

int dfs_cache_init(struct dfs_cache *c, size_t bytes);
void dfs_cache_destroy(struct dfs_cache *c);

/* One operation's pass over the trees. */
struct dfs_fill {
    uint64_t chunk;
    uint32_t off;
    uint8_t *page; /* 4 KiB of a chunk that an operation needs to change part of */
};
#define DFS_FILLS 4
struct dfs_txn {
    struct dfs_store *st;
    bool changing; /* holds the lock exclusively */
    bool gated;    /* has passed the gate */
    bool replay;
    bool miss_node;
    struct dfs_ptr miss;
    uint8_t miss_tree;
    int miss_level;
    bool miss_page; /* fills[nfills] is wanted */
    unsigned nfills;
    struct dfs_fill fills[DFS_FILLS];
    uint64_t end_pos; /* journal position that the answer has to wait for */
    size_t dirty;     /* pages dirty after the last commit */
};

/* Fetches what the last -EAGAIN of `tx` asked for. Call without the lock. */
int dfs_tree_load(struct dfs_txn *tx);

/* The value of `key`: -ENOENT, -EAGAIN, or 0 and a pointer good until the lock is released or the tree changes. */
int dfs_tree_get(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key, const void **val, size_t *len);

/* Positions; valid until the lock is released or the tree changes. */
struct dfs_iter {
    struct dfs_txn *tx;
    uint8_t tree;
    unsigned level;
    struct dfs_node *n[DFS_NODE_MAX_LEVEL + 1];
    unsigned i[DFS_NODE_MAX_LEVEL + 1];
};
/* First key >= / last key <= `key`; -ENOENT, -EAGAIN. */
int dfs_iter_seek(struct dfs_iter *it, struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key);
int dfs_iter_seek_le(struct dfs_iter *it, struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key);
int dfs_iter_next(struct dfs_iter *it);
int dfs_iter_prev(struct dfs_iter *it);
struct dfs_key dfs_iter_key(const struct dfs_iter *it);
const void *dfs_iter_val(const struct dfs_iter *it, size_t *len);

/* Makes sure that a change at `key` will find all it needs. 0 or -EAGAIN. */
int dfs_tree_prepare(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key);
/* Inserts or overwrites; returns the value's `len` bytes to fill in. The key is prepared. */
void *dfs_tree_put(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key, size_t len);
/* Removes what is there. The key is prepared. */
void dfs_tree_del(struct dfs_txn *tx, enum dfs_tree_id t, const struct dfs_key *key);

/* An empty tree: a leaf without keys, dirty. */
int dfs_tree_new(struct dfs_txn *tx, enum dfs_tree_id t);

/* For the checkpoint. Freezing takes every dirty node; the list comes children first. */
void dfs_tree_freeze(struct dfs_store *st, struct dfs_node_list *frozen);
/* The node is sealed: its checksum goes into the parent, frozen or current. */
void dfs_tree_patch(struct dfs_store *st, struct dfs_node *n);
/* All are written (ok), or will be tried again with the next checkpoint. */
void dfs_tree_thaw(struct dfs_store *st, struct dfs_node_list *frozen, bool ok);
