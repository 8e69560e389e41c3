/* A B+tree node as it lies on disk: DFS_NODE_SIZE bytes at a block address of the data file.
 *
 *   0        64                                                          16384
 *   +--------+--------+--------+--- - - ---+-------- - - -----+-----+------+
 *   | header | slot 0 | slot 1 |  free ... | ... free (heap)  | v 1 | v 0  |
 *   +--------+--------+--------+--- - - ---+-------- - - -----+-----+------+
 *             slots grow ->                 <- values grow
 *
 * Slots are sorted by key (ino, kind, off). A leaf's values are items (item_format.h); an interior node's are
 * child pointers, and slot i's key is a lower bound of all keys below child i. A pointer names the child's address,
 * the checkpoint it was born at and its checksum, so a tree verifies from its root down.
 *
 * The checksum is XXH3-64 over bytes 16..16383. Address, birth, tree and volume are repeated in the header: a block
 * that was written to the wrong place, or is left over from an older tree, does not verify either. */
#pragma once
#include <stdint.h>

#define DFS_BLOCK_SIZE 4096u
#define DFS_NODE_SIZE 16384u
#define DFS_NODE_BLOCKS (DFS_NODE_SIZE / DFS_BLOCK_SIZE)
#define DFS_NODE_MAGIC 0x4e534644u /* "DFSN" */
#define DFS_NODE_MAX_LEVEL 15      /* leaves are level 0 */

/* A node holds at least three of the largest items, so that one split always makes room. */
#define DFS_ITEM_MAX 5000u

struct dfs_node_header {
    uint32_t magic;
    uint8_t level;
    uint8_t tree; /* enum dfs_tree_id */
    uint16_t nkeys;
    uint64_t csum;
    uint64_t addr; /* block number */
    uint64_t birth;
    uint8_t uuid[16];
    uint16_t heap;    /* lowest byte offset used by a value */
    uint16_t garbage; /* bytes of the heap no slot refers to */
    uint8_t zero[12];
};
_Static_assert(sizeof(struct dfs_node_header) == 64, "node header");

struct dfs_slot {
    uint64_t ino;
    uint64_t off;
    uint8_t kind;
    uint8_t zero;
    uint16_t len; /* of the value */
    uint16_t pos; /* of the value, from the node's start */
    uint16_t zero2;
};
_Static_assert(sizeof(struct dfs_slot) == 24, "node slot");

/* Child pointers, roots in the superblock. */
struct dfs_ptr_disk {
    uint64_t addr;
    uint64_t birth;
    uint64_t csum;
};
_Static_assert(sizeof(struct dfs_ptr_disk) == 24, "node pointer");
