/* Keys and items of the two trees.
 *
 * The *metadata tree* is the volume's content and is the same on every replica:
 *
 *   key (ino, kind, off)                     value
 *   (ino, INODE,  0)                         struct dfs_inode_disk
 *   (dir, DIRENT, hash56 << 7 | n)           struct dfs_dirent_disk, name
 *   (ino, XATTR,  hash56 << 7 | n)           struct dfs_xattr_disk, name, value
 *   (ino, EXTENT, file offset)               struct dfs_extent_disk [, inline bytes]
 *   (0,   ORPHAN, ino)                       nothing: an inode without a name
 *
 * hash56 is the upper 56 bits of XXH3-64 of the name with the volume's seed, never 0; n numbers names that collide. So
 * a directory entry's key is its readdir offset too, below 2^63 and stable while others come and go.
 *
 * The *local tree* says where this store keeps what:
 *
 *   (0, CHUNK,  chunk id)                    struct dfs_chunk_item_disk, chunk descriptor (chunk_format.h)
 *   (0, REGION, region number)               bitmap, a bit per block, set = in use
 *   (0, REGSUM, region number / 512)         512 x u16: free blocks of each region
 */
#pragma once
#include <stdint.h>

enum dfs_tree_id { DFS_TREE_META, DFS_TREE_LOCAL, DFS_TREES };

enum dfs_kind {
    DFS_KIND_INODE = 1,
    DFS_KIND_XATTR = 2,
    DFS_KIND_DIRENT = 3,
    DFS_KIND_EXTENT = 4,
    DFS_KIND_ORPHAN = 5,
    DFS_KIND_CHUNK = 16,
    DFS_KIND_REGION = 17,
    DFS_KIND_REGSUM = 18,
};

struct dfs_time_disk {
    int64_t sec;
    uint32_t nsec;
    uint32_t zero;
};
_Static_assert(sizeof(struct dfs_time_disk) == 16, "time");

struct dfs_inode_disk {
    uint64_t size;
    uint64_t pages;      /* 4 KiB pages mapped (data, unwritten or inline) */
    uint64_t rdev;
    uint64_t generation;
    uint64_t parent;     /* directories: the parent; others: the directory of the last name given */
    uint64_t entries;    /* directories: names in it */
    uint32_t mode;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    struct dfs_time_disk atime, mtime, ctime, btime;
};
_Static_assert(sizeof(struct dfs_inode_disk) == 128, "inode item");

struct dfs_dirent_disk {
    uint64_t ino;
    uint16_t type; /* S_IFMT bits of the mode */
    uint8_t len;   /* of the name that follows */
    uint8_t zero[5];
};
_Static_assert(sizeof(struct dfs_dirent_disk) == 16, "directory entry item");

struct dfs_xattr_disk {
    uint16_t value_len;
    uint8_t name_len;
    uint8_t zero;
};
_Static_assert(sizeof(struct dfs_xattr_disk) == 4, "xattr item");
#define DFS_XATTR_STORED_MAX 4096u

enum dfs_extent_type {
    DFS_EXTENT_CHUNK = 1,     /* bytes [chunk_off, chunk_off + len) of a chunk */
    DFS_EXTENT_UNWRITTEN = 2, /* reserved by fallocate, reads as zeros */
    DFS_EXTENT_INLINE = 3,    /* len bytes follow (the first page of a small file, a symlink's target) */
};

/* Offsets and lengths are multiples of 4096, except an inline extent's length. */
struct dfs_extent_disk {
    uint8_t type;
    uint8_t zero[3];
    uint32_t chunk_off;
    uint64_t len;
    uint64_t chunk;
};
_Static_assert(sizeof(struct dfs_extent_disk) == 24, "extent item");
#define DFS_INLINE_MAX 2048u

struct dfs_chunk_item_disk {
    uint64_t addr; /* block number; DFS_CHUNK_ABSENT: not in this store */
    uint32_t refs; /* extents that refer to it */
    uint32_t zero;
};
_Static_assert(sizeof(struct dfs_chunk_item_disk) == 16, "chunk item");
#define DFS_CHUNK_ABSENT UINT64_MAX

#define DFS_REGION_BLOCKS 8192u
#define DFS_REGION_BYTES (DFS_REGION_BLOCKS / 8)
#define DFS_REGSUM_REGIONS 512u
/* The host's largest file, 8 EiB, has fewer regions than this. */
#define DFS_REGIONS_MAX (1u << 27)
