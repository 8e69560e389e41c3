/* Decompressed units of chunks (chunk_format.h), so that small reads near each other decompress once. Chunks never change,
 * so nothing here is ever stale. A mutex of its own; innermost. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dfs_unit_cache;

struct dfs_unit_cache *dfs_unit_cache_new(size_t bytes);
void dfs_unit_cache_free(struct dfs_unit_cache *c);
/* Copies [off, off + len) of the unit if it is there. */
bool dfs_unit_cache_get(struct dfs_unit_cache *c, uint64_t chunk, uint32_t unit_off, uint32_t off, uint32_t len, void *dst);
/* Takes over `data` (malloc'd), `len` bytes. */
void dfs_unit_cache_put(struct dfs_unit_cache *c, uint64_t chunk, uint32_t unit_off, uint8_t *data, uint32_t len);
size_t dfs_unit_cache_bytes(struct dfs_unit_cache *c);
