/* The superblock: two slots in the data file, written in turn; the valid one with the higher checkpoint number counts.
 *
 *   block 0: slot of even checkpoints      block 8: slot of odd ones      first block for anything else: 16
 *
 * A checkpoint is complete when its superblock is durable. The checksum is XXH3-64 over bytes 16..4095. A reader
 * refuses a volume with an unknown incompatible feature, mounts it read-only with an unknown ro-compatible one, and
 * ignores unknown compatible ones. */
#pragma once
#include <stdint.h>

#include "fs/store/item_format.h"
#include "fs/store/node_format.h"

#define DFS_SUPER_MAGIC 0x31305346445f5346ull /* "FS_DFS01" as bytes */
#define DFS_SUPER_VERSION 1u
#define DFS_SUPER_SIZE DFS_BLOCK_SIZE
#define DFS_SUPER_BLOCK0 0u
#define DFS_SUPER_BLOCK1 8u
#define DFS_FIRST_BLOCK 16u

#define DFS_FEATURES_COMPAT 0u
#define DFS_FEATURES_RO_COMPAT 0u
#define DFS_FEATURES_INCOMPAT 0u

struct dfs_root_disk {
    struct dfs_ptr_disk ptr;
    uint8_t level;
    uint8_t zero[7];
};
_Static_assert(sizeof(struct dfs_root_disk) == 32, "root");

struct dfs_super_disk {
    uint64_t magic;
    uint64_t csum;
    uint8_t uuid[16];
    uint32_t version;
    uint32_t zero0;
    uint64_t features_compat, features_ro_compat, features_incompat;
    uint64_t checkpoint;   /* number of this checkpoint; nodes born since carry higher numbers */
    uint64_t epoch;        /* of the ownership that wrote it */
    uint64_t lsn;          /* every record up to this one is in the trees */
    uint64_t journal_pos;  /* replay starts at this position */
    uint64_t journal_prev; /* checksum of the record before it */
    uint64_t journal_size;
    uint64_t next_ino;
    uint64_t next_chunk;
    uint64_t hash_seed;
    uint64_t files;
    uint64_t pages_used;   /* of file data, as in the inodes */
    uint64_t chunk_raw, chunk_stored; /* bytes of live chunks */
    uint64_t regions;      /* regions the data file has grown to */
    uint64_t newest_snapshot; /* checkpoint kept by the newest snapshot; 0: none */
    struct dfs_root_disk roots[DFS_TREES];
};
_Static_assert(sizeof(struct dfs_super_disk) <= DFS_SUPER_SIZE, "superblock");
