/* Journal records in memory, and their encoding. Decoding trusts nothing: every length is checked against the body. */
#pragma once
#include <stddef.h>
#include <time.h>

#include "fs/store/chunk.h"
#include "fs/store/journal_format.h"

struct dfs_rec_chunk_mem {
    uint64_t addr;
    struct dfs_chunk_desc desc;
};

struct dfs_rec {
    uint16_t type, flags;
    uint64_t ino, dir, dir2, ino2;
    uint64_t off, len, size, rdev, generation, chunk;
    struct timespec time, atime, mtime;
    uint32_t mode, uid, gid, valid;
    const char *name, *name2; /* not terminated */
    uint16_t name_len, name2_len;
    const void *data;
    uint32_t data_len;
    uint32_t nchunks;
    const uint8_t *chunks_raw;       /* decoded records: the encoded chunk list */
    struct dfs_rec_chunk_mem *chunks; /* records being made */
};

/* Length of the body that dfs_rec_encode() will write; 0 if it would exceed DFS_REC_BODY_MAX. */
size_t dfs_rec_size(const struct dfs_rec *r);
void dfs_rec_encode(const struct dfs_rec *r, uint8_t *out);
/* The record's pointers point into `body`. -EUCLEAN: malformed. */
int dfs_rec_decode(uint16_t type, uint16_t flags, const uint8_t *body, size_t len, struct dfs_rec *r);

/* Walks a record's chunks, made or decoded: `*cursor` starts at 0 and counts up. */
struct dfs_rec_chunk_iter {
    const struct dfs_rec *r;
    uint32_t i;
    const uint8_t *p;
};
void dfs_rec_chunks(const struct dfs_rec *r, struct dfs_rec_chunk_iter *it);
/* False at the end. */
bool dfs_rec_chunk_next(struct dfs_rec_chunk_iter *it, uint64_t *addr, struct dfs_chunk_desc *desc);
