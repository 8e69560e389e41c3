/* Dirty pages: file data that so far exists only in the journal (and here), in whole 4 KiB pages, ordered by inode and
 * page number. A checkpoint turns them into chunks (materialise.c). Guarded by the tree lock: shared to look, exclusive
 * to change. */
#pragma once
#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dfs_page {
    RB_ENTRY(dfs_page) link;
    uint64_t ino, idx;
    uint64_t version; /* changes with the content */
    uint8_t *data;    /* one page, aligned */
};
RB_HEAD(dfs_page_tree, dfs_page);

struct dfs_dirty {
    struct dfs_page_tree pages;
    size_t count;
    uint64_t version;
};

void dfs_dirty_init(struct dfs_dirty *d);
void dfs_dirty_destroy(struct dfs_dirty *d);
struct dfs_page *dfs_dirty_get(struct dfs_dirty *d, uint64_t ino, uint64_t idx);
/* First page of (ino, >= idx), or of a later inode. */
struct dfs_page *dfs_dirty_seek(struct dfs_dirty *d, uint64_t ino, uint64_t idx);
struct dfs_page *dfs_dirty_next(struct dfs_dirty *d, struct dfs_page *p);
/* The page, made zeroed if it is not there; NULL: no memory. Touches its version. */
struct dfs_page *dfs_dirty_make(struct dfs_dirty *d, uint64_t ino, uint64_t idx);
void dfs_dirty_drop(struct dfs_dirty *d, struct dfs_page *p);
/* Drops pages [from, to) of the inode; how many there were. */
size_t dfs_dirty_drop_range(struct dfs_dirty *d, uint64_t ino, uint64_t from, uint64_t to);
