/* The journal: a ring of records in a file of fixed size.
 *
 * A *position* is a byte count since the volume was made; it lies at `position % size` in the file, and records run on
 * across the end of the file. A record is a header, a body and zeros up to a multiple of 8:
 *
 *   0         64          64 + body_len     length
 *   +---------+-----------+- - - -+
 *   | header  | body      | zeros |
 *   +---------+-----------+- - - -+
 *
 * Each record carries the checksum of its predecessor, so that the chain breaks at the first record that was not
 * written whole, and what an earlier lap or an abandoned tail left behind is never taken for a continuation. LSNs count
 * records, one by one. The checksum is XXH3-64 over bytes 16..length with the volume's hash seed.
 *
 * `durable_lsn` is what was known to be durable when the record was made. A record may name chunks that were written to
 * the data file but not yet durable; on replay, a record past every durable_lsn seen whose chunks do not verify was never
 * answered as durable: it ends the journal. */
#pragma once
#include <stdint.h>

#define DFS_REC_MAGIC 0x4a534644u /* "DFSJ" */
#define DFS_REC_ALIGN 8u
#define DFS_REC_BODY_MAX (512u * 1024)

struct dfs_rec_header {
    uint32_t magic;
    uint32_t length;
    uint64_t csum;
    uint64_t prev_csum;
    uint64_t lsn;
    uint64_t epoch;
    uint64_t pos;
    uint64_t durable_lsn;
    uint16_t type; /* enum dfs_rec_type */
    uint16_t flags;
    uint32_t body_len;
};
_Static_assert(sizeof(struct dfs_rec_header) == 64, "record header");
#define DFS_REC_LEN_MAX (DFS_REC_BODY_MAX + 64 + 8)

/* Every change to a volume, with its outcome resolved: applying the same records gives the same metadata tree anywhere. */
enum dfs_rec_type {
    DFS_REC_NOOP = 1,
    DFS_REC_CREATE = 2,   /* dir, name, ino, mode, uid, gid, rdev, generation, time; data: symlink target, or ACLs */
    DFS_REC_TMPFILE = 3,  /* as CREATE without dir and name */
    DFS_REC_LINK = 4,     /* ino, dir, name, time */
    DFS_REC_UNLINK = 5,   /* dir, name, ino, time; directories too */
    DFS_REC_RENAME = 6,   /* dir, name, ino -> dir2, name2, ino2 (what stood there, 0: nothing), flags, time */
    DFS_REC_SETATTR = 7,  /* ino, valid, mode, uid, gid, atime, mtime, time (ctime) */
    DFS_REC_TRUNCATE = 8, /* ino, size, valid, time */
    DFS_REC_WRITE = 9,    /* ino, off, data, valid, time */
    DFS_REC_EXTENTS = 10, /* ino, off, len, size (bytes of file data end), chunks, valid, time */
    DFS_REC_MATERIALISE = 11, /* ino, off, len, one chunk or none (inline): what the journal held becomes a chunk */
    DFS_REC_PUNCH = 12,   /* ino, off, len, valid, time */
    DFS_REC_RESERVE = 13, /* ino, off, len, size, valid, time: fallocate; flag ZERO: zero the range too */
    DFS_REC_CLONE = 14,   /* ino (source), off, ino2 (destination), off2 (in size), len, time */
    DFS_REC_SETXATTR = 15, /* ino, name, data, valid, mode, time */
    DFS_REC_RMXATTR = 16, /* ino, name, time */
    DFS_REC_EVICT = 17,   /* ino: the next batch of an orphan's items goes; the inode with the last */
    DFS_REC_TYPES
};

#define DFS_RECF_EXCHANGE 1u    /* RENAME */
#define DFS_RECF_ZERO 2u        /* RESERVE */
#define DFS_RECF_KEEP_SIZE 4u   /* RESERVE */
#define DFS_RECF_UNPLACED 8u    /* MATERIALISE of a checkpoint: not to be replayed, the data is in the journal still */

/* The body: this, then name, name2, data, and `nchunks` times struct dfs_rec_chunk with its descriptor. */
struct dfs_rec_body {
    uint64_t ino, dir, dir2, ino2;
    uint64_t off, len, size, rdev, generation;
    uint64_t chunk; /* id of the first chunk; the others count up */
    int64_t time_sec, atime_sec, mtime_sec;
    uint32_t time_nsec, atime_nsec, mtime_nsec;
    uint32_t mode, uid, gid;
    uint32_t valid; /* DFS_SET_* */
    uint32_t data_len;
    uint16_t name_len, name2_len;
    uint32_t nchunks;
};
_Static_assert(sizeof(struct dfs_rec_body) == 144, "record body");

struct dfs_rec_chunk {
    uint64_t addr; /* block: the part of the record that is this store's own */
    uint32_t desc_len;
    uint32_t zero;
};
_Static_assert(sizeof(struct dfs_rec_chunk) == 16, "record chunk");
#define DFS_REC_CHUNKS_MAX 512u
