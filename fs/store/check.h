/* Checking a volume: everything its trees say is walked and held against everything else, and with `data` every stored
 * byte is read and verified.
 *
 * What is checked: each node against the checksum in its parent; each inode's names, link count, entries, pages and
 * attributes; each extent and the chunk it refers to; how often chunks are referred to; that each block has one owner and
 * is marked in use, and no other block is; the sums in the superblock.
 *
 * The volume must be open; changes wait while its structure is walked (not while data is read). One check at a time. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct dfs_store;

struct dfs_check_damage {
    char what[160];      /* a sentence without names */
    uint64_t ino, off;   /* the file and offset that suffer; 0: none in particular */
    uint64_t chunk;      /* 0: none */
    uint64_t block;      /* 0: none */
};

struct dfs_check_config {
    bool data;
    void (*report)(void *arg, const struct dfs_check_damage *d); /* may be NULL; may not call into the store */
    void *arg;
};

struct dfs_check_result {
    uint64_t damages;
    uint64_t inodes, entries, extents, chunks, nodes, blocks;
    uint64_t bytes_verified; /* of stored data */
    bool incomplete;         /* a damaged node hides part of a tree: some comparisons were not possible */
};

/* 0: the walk was made, whatever it found; else why it could not be. */
int dfs_store_check(struct dfs_store *st, const struct dfs_check_config *cfg, struct dfs_check_result *out);
