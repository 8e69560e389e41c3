/* The node cache's inner workings, for tree.c and checkpoint.c. All under the exclusive tree lock, but find (shared). */
#pragma once
#include "fs/store/tree.h"

struct dfs_node *dfs_cache_find(struct dfs_cache *c, uint64_t addr);
/* NULL: out of memory. Not in the cache yet. */
struct dfs_node *dfs_cache_node_new(void);
void dfs_cache_node_free(struct dfs_node *n);
void dfs_cache_insert(struct dfs_cache *c, struct dfs_node *n);
void dfs_cache_remove(struct dfs_cache *c, struct dfs_node *n);
/* Lets go of clean nodes until the cache is within its limit (or only unclean ones are left). */
void dfs_cache_evict(struct dfs_cache *c);
