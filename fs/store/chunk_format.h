/* A chunk: immutable bytes of file data, stored whole 4 KiB blocks at a time, and its descriptor.
 *
 * A chunk is cut into units that can be read and verified alone, so that a small read of a large chunk costs little:
 *
 *   RAW    units of 4,096 bytes as they are
 *   ZSTD   units of 32,768 bytes (the last may be shorter), each a zstd frame of its own, back to back
 *
 *   stored:  | unit 0 | unit 1 | ... | unit n-1 | zeros up to a whole block |
 *                              <--- stored_len ->
 *
 * The descriptor (in the chunk table and in journal records), little-endian:
 *
 *   0  raw_len    u32   multiple of 4,096, at most 1 MiB
 *   4  stored_len u32
 *   8  csum       u64   XXH3-64 of the stored bytes
 *   16 codec      u8
 *   17 zero       u8
 *   18 nunits     u16
 *   20 table            only if nunits > 1: RAW: u32 csum per unit; ZSTD: u32 end, u32 csum per unit
 *
 * A unit's csum is the lower half of the XXH3-64 of its stored bytes, `end` the offset behind it. ZSTD is used only where
 * it saves at least one block. */
#pragma once

#define DFS_CHUNK_RAW_MAX (1u << 20)
#define DFS_CHUNK_UNIT_RAW 4096u
#define DFS_CHUNK_UNIT_ZSTD 32768u
#define DFS_CHUNK_UNITS_MAX (DFS_CHUNK_RAW_MAX / DFS_CHUNK_UNIT_RAW)
#define DFS_CHUNK_DESC_HEAD 20u
#define DFS_CHUNK_DESC_MAX (DFS_CHUNK_DESC_HEAD + 4u * DFS_CHUNK_UNITS_MAX)

enum dfs_codec { DFS_CODEC_RAW = 0, DFS_CODEC_ZSTD = 1 };
