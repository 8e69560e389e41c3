/* How often the kernel has looked up each inode: the counts behind FORGET.
 *
 * The kernel refers to an inode until it has forgotten as many look-ups as it was answered; only then may an inode
 * without names go. Counts are sparse pages of 1024 numbers of 32 bits, there while one of them is not zero, so a
 * million inodes cost about 4 MiB. A count that would overflow stays at its maximum: that inode is kept until the
 * volume is opened again.
 *
 * Thread-safe: pages are spread over shards by inode number, each with a mutex of its own, taken by no other module. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dfs_lookups;

struct dfs_lookups *dfs_lookups_new(void);
void dfs_lookups_free(struct dfs_lookups *l);

/* 0 or -ENOMEM. */
int dfs_lookups_add(struct dfs_lookups *l, uint64_t ino, uint64_t n);
/* Forgets n look-ups; true when the count became (or was) zero. */
bool dfs_lookups_sub(struct dfs_lookups *l, uint64_t ino, uint64_t n);
uint32_t dfs_lookups_get(struct dfs_lookups *l, uint64_t ino);
/* Memory in use for counts. */
size_t dfs_lookups_bytes(struct dfs_lookups *l);
