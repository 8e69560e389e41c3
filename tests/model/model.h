/* A volume as a plain data structure in memory: what the engine is compared with.
 *
 * Everything is done in the simplest way that is right. Inode numbers of new objects come from the store (op->new_ino), the
 * time from op->now; everything else the model finds out by itself, errors included. */
#pragma once
#include <stdbool.h>

#include "tests/model/op.h"

struct model;

struct model *model_new(const struct dfs_volume_params *p, int64_t root_time);
void model_free(struct model *m);

/* Applies the operation; its result, as the store should have answered. `op->new_ino` is given if a new inode is made.
 * `buf` (may be NULL) receives what a read, getxattr, readlink gives: OP_DATA_MAX bytes. */
int64_t model_apply(struct model *m, const struct op *op, uint8_t *buf);

/* States that a crash in the middle of the operation may leave besides those before and after it: applies the k-th
 * (from 0). False: there is none. */
bool model_apply_part(struct model *m, const struct op *op, unsigned k);

/* The attributes, -ENOENT. */
#define MODEL_BLOCKS_UNSURE UINT64_MAX /* attr->blocks of a file that holes were copied to */
int model_getattr(const struct model *m, uint64_t ino, struct dfs_attr *attr);
/* Does an inode have this property? For choosing operands. */
uint64_t model_max_ino(const struct model *m);
bool model_orphan(const struct model *m, uint64_t ino);
/* Calls fn for each name. */
void model_readdir(const struct model *m, uint64_t dir, void (*fn)(void *, const char *, size_t, uint64_t), void *arg);
void model_listxattr(const struct model *m, uint64_t ino, void (*fn)(void *, const char *), void *arg);
/* The file's mapped pages hold something else than zeros at idx: calls fn in order. */
void model_pages(const struct model *m, uint64_t ino, void (*fn)(void *, uint64_t idx, const uint8_t *page), void *arg);
/* Removes all orphans, as opening a volume does. */
void model_release_orphans(struct model *m);
uint64_t model_files(const struct model *m);
bool model_pages_used(const struct model *m, uint64_t *pages); /* false: not sure, see MODEL_BLOCKS_UNSURE */
size_t model_getxattr(const struct model *m, uint64_t ino, const char *name, uint8_t *buf);
