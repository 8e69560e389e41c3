/* Working memory of a thread, made on first use and kept: I/O buffers and tables too large for the stack. */
#pragma once
#include "fs/store/internal.h"

#define DFS_READ_SEGS 64u
#define DFS_SCRATCH_BUF (1u << 20)

struct dfs_read_seg {
    uint64_t id;      /* of the chunk */
    uint64_t file_off;
    uint32_t off, len; /* in the chunk */
    uint8_t *dst;
    uint8_t *span; /* where the stored bytes are read to: scratch memory, or dst itself */
    uint32_t span_off, span_len;
    struct dfs_chunk chunk;
    struct dfs_io_req req;
};

struct dfs_scratch {
    struct dfs_read_seg segs[DFS_READ_SEGS];
    uint8_t *buf;  /* DFS_SCRATCH_BUF, aligned: spans read */
    uint8_t *out;  /* DFS_SCRATCH_BUF, aligned: chunks encoded */
    struct dfs_rec_chunk_mem chunks[DFS_CHUNK_UNITS_MAX];
    struct dfs_io_req reqs[DFS_CHUNK_UNITS_MAX];
};

/* NULL: no memory. */
struct dfs_scratch *dfs_scratch_get(void);
