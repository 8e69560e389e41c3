/* Encoding, decoding and verifying chunks (chunk_format.h). Pure functions of their arguments; any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/store/chunk_format.h"

struct dfs_chunk_desc {
    uint32_t raw_len, stored_len;
    uint64_t csum;
    uint8_t codec;
    uint16_t nunits;
    struct {
        uint32_t end, csum;
    } units[DFS_CHUNK_UNITS_MAX];
};

/* Compresses `raw` into `out` (room for raw_len bytes) at zstd `level`. Level 0, or no block saved: the codec is RAW,
 * and `raw` itself is what to store (`out` then holds nothing of use). Padding to a whole block is zeroed in `out`. */
int dfs_chunk_encode(const void *raw, size_t raw_len, int level, void *out, struct dfs_chunk_desc *d);

/* What has to be read of the stored bytes, in whole blocks, to get raw bytes [off, off + len). */
void dfs_chunk_span(const struct dfs_chunk_desc *d, uint32_t off, uint32_t len, uint32_t *span_off, uint32_t *span_len);

/* Raw bytes [off, off + len) into dst, from a span as dfs_chunk_span() gives it. -EBADMSG: the bytes do not verify. */
int dfs_chunk_decode(const struct dfs_chunk_desc *d, const void *span, uint32_t span_off, uint32_t span_len,
                     uint32_t off, uint32_t len, void *dst);

/* Do all stored bytes verify? */
bool dfs_chunk_verify(const struct dfs_chunk_desc *d, const void *stored);

/* The raw range of the unit that holds `off`. */
void dfs_chunk_unit(const struct dfs_chunk_desc *d, uint32_t off, uint32_t *unit_off, uint32_t *unit_len);

/* On-disk form: put returns its length (at most DFS_CHUNK_DESC_MAX); get trusts nothing: -EUCLEAN. */
size_t dfs_chunk_desc_put(const struct dfs_chunk_desc *d, uint8_t *out);
int dfs_chunk_desc_get(const uint8_t *in, size_t len, struct dfs_chunk_desc *d);
