/* The journal's ring: appending, writing out, syncing, reading back (journal_format.h has the layout).
 *
 * Appending copies a record into a staging buffer, in the order of LSNs, under the exclusive tree lock. Before an
 * operation answers, dfs_journal_write() has handed its record to the host (one write for all records staged so far, done
 * by whoever comes first), so that it survives kill -9; dfs_journal_sync() makes it durable, one fdatasync for all who
 * wait (group commit). If a record names chunks written directly to the data file, the data file is synced before it.
 *
 * Errors of writing and syncing are sticky: every later call returns -EIO.
 *
 * Locking: its own mutex. Append is called under the tree lock; write and sync without. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/store/record.h"

struct dfs_io;
struct dfs_journal;

struct dfs_journal_config {
    struct dfs_io *io;
    uint64_t size;
    uint64_t seed;
    uint64_t epoch;
    uint64_t pos, lsn, prev_csum; /* where the next record goes; the last LSN given */
    uint64_t tail;                /* replay would start here */
};

struct dfs_journal *dfs_journal_new(const struct dfs_journal_config *cfg);
void dfs_journal_free(struct dfs_journal *j);

/* Appends; there must be room (dfs_journal_room()). Returns the position after the record. `direct_bytes`: the record
 * names so many bytes of chunks that the data file has not been synced for. */
uint64_t dfs_journal_append(struct dfs_journal *j, const struct dfs_rec *rec, size_t body_len, uint64_t direct_bytes);
/* Bytes that can be appended before the ring is full. */
uint64_t dfs_journal_room(struct dfs_journal *j);
uint64_t dfs_journal_used(struct dfs_journal *j);

int dfs_journal_write(struct dfs_journal *j, uint64_t pos);
/* Durable up to `pos` on return; UINT64_MAX: everything appended so far. */
int dfs_journal_sync(struct dfs_journal *j, uint64_t pos);
uint64_t dfs_journal_direct_bytes(struct dfs_journal *j); /* not yet synced */

/* The position, LSN and checksum of the last record appended. */
void dfs_journal_head(struct dfs_journal *j, uint64_t *pos, uint64_t *lsn, uint64_t *csum);
uint64_t dfs_journal_durable_lsn(struct dfs_journal *j);
/* The checkpoint that covers everything before `tail`, up to `lsn`, is durable. */
void dfs_journal_trim(struct dfs_journal *j, uint64_t tail, uint64_t lsn);
/* Makes every later call fail with -EIO. */
void dfs_journal_fail(struct dfs_journal *j);
int dfs_journal_error(struct dfs_journal *j);
uint64_t dfs_journal_syncs(struct dfs_journal *j);
uint64_t dfs_journal_epoch(const struct dfs_journal *j);

/* Reading: calls `fn` for each record from `pos` on, until the chain ends or `fn` returns non-zero (which is returned).
 * 0, or a read error. The end's position, LSN and checksum are stored. */
struct dfs_journal_place {
    uint64_t pos, lsn, prev_csum;
    uint64_t durable_lsn; /* highest seen */
};
int dfs_journal_scan(struct dfs_io *io, uint64_t size, uint64_t seed, struct dfs_journal_place *place,
                     int (*fn)(void *arg, const struct dfs_rec_header *h, const uint8_t *body,
                               const struct dfs_journal_place *at),
                     void *arg);
