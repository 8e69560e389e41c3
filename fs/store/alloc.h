/* Blocks of the data file: which are in use, which may be taken.
 *
 * The truth as of a checkpoint are the bitmaps in the local tree (a REGION item for 8,192 blocks). In memory there is
 *   - the *pool*: free extents that the host has already promised space for (fallocate), from which every allocation
 *     comes, so that an allocation that succeeded cannot meet ENOSPC when it is written;
 *   - *copies* of the bitmaps of regions that the pool was taken from;
 *   - the *changes* since the last checkpoint: blocks committed (named by a tree or a journal record) and blocks freed.
 * A checkpoint folds the changes into the bitmaps. Freed blocks may be taken again only when the checkpoint that forgets
 * them is durable; then they are also punched back to the host.
 *
 *          refill               take                 commit                    fold
 *   free ---------> in the pool ------> taken -----------------> committed ---------> in the bitmap
 *    ^                  ^                 | cancel                                         | free
 *    |                  '-----------------'                                                v
 *    '------------------------- checkpoint durable <-------- freed, in the bitmap <------ freed
 *
 * Locking: a mutex of its own, innermost of the engine's locks. refill and fold need the tree lock as their comments say. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct dfs_alloc;
struct dfs_store;
struct dfs_txn;

struct dfs_alloc *dfs_alloc_new(struct dfs_store *st, uint64_t regions);
void dfs_alloc_destroy(struct dfs_alloc *a);

/* Reads the summary of free blocks per region. Under no lock, before the store is in use. */
int dfs_alloc_load(struct dfs_alloc *a);

/* `n` adjacent blocks of one region from the pool; -ENOSPC if it has none: dfs_alloc_refill() and try again. */
int dfs_alloc_take(struct dfs_alloc *a, uint32_t n, uint64_t *addr);
/* As take, for a tree node, committed at once. Never fails: out of pool, it takes blocks the host has not promised. */
uint64_t dfs_alloc_node(struct dfs_alloc *a);
/* Gives back what was taken but not committed. */
void dfs_alloc_cancel(struct dfs_alloc *a, uint64_t addr, uint32_t n);
/* A record or tree names these blocks from now on. */
void dfs_alloc_commit(struct dfs_alloc *a, uint64_t addr, uint32_t n);
void dfs_alloc_free(struct dfs_alloc *a, uint64_t addr, uint32_t n);
/* Replay: a record will name these blocks, the pool must not take them. Needs no lock, returns -EUCLEAN for blocks
 * that cannot be, 0, or an I/O error. */
int dfs_alloc_reserve(struct dfs_alloc *a, uint64_t addr, uint32_t n);

uint64_t dfs_alloc_pool_blocks(struct dfs_alloc *a);
/* Fills the pool to at least `want` blocks. Without the tree lock. -ENOSPC: the host is full. */
int dfs_alloc_refill(struct dfs_alloc *a, uint64_t want);
/* Gives the pool back to the host (clean close). */
void dfs_alloc_release_pool(struct dfs_alloc *a);

/* Folds all changes into the bitmaps; under the exclusive tree lock. -EAGAIN: load what tx asks for and call again.
 * 0: nothing is left to fold. */
int dfs_alloc_fold(struct dfs_alloc *a, struct dfs_txn *tx);
/* The checkpoint that holds all folded changes is durable: freed blocks may be used again, and are punched. */
void dfs_alloc_checkpointed(struct dfs_alloc *a);

uint64_t dfs_alloc_regions(struct dfs_alloc *a);
void dfs_alloc_usage(struct dfs_alloc *a, uint64_t *used_blocks, uint64_t *free_blocks);
