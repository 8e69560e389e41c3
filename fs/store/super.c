/* Superblocks: encoding, checking, choosing, writing. */
#include <inttypes.h>

#include "common/hash.h"
#include "fs/store/internal.h"

#define CSUM_FROM 16u

void dfs_super_seal(struct dfs_super_disk *sb, uint8_t block[DFS_SUPER_SIZE]) {
    memset(block, 0, DFS_SUPER_SIZE);
    memcpy(block, sb, sizeof *sb);
    const uint64_t csum = dfs_hash64(block + CSUM_FROM, DFS_SUPER_SIZE - CSUM_FROM, 0);
    dfs_put_le64(block + offsetof(struct dfs_super_disk, csum), csum);
}

static struct dfs_root_disk root_put(const struct dfs_tree *t) {
    return (struct dfs_root_disk){
        .ptr = {htole64(t->root.addr), htole64(t->root.birth), htole64(t->root.csum)}, .level = t->level};
}

void dfs_super_fill(struct dfs_store *st, struct dfs_super_disk *sb, uint64_t checkpoint) {
    uint64_t pos, lsn, prev;
    dfs_journal_head(st->journal, &pos, &lsn, &prev);
    *sb = (struct dfs_super_disk){
        .magic = htole64(DFS_SUPER_MAGIC),
        .version = htole32(DFS_SUPER_VERSION),
        .checkpoint = htole64(checkpoint),
        .epoch = htole64(st->epoch),
        .lsn = htole64(lsn),
        .journal_pos = htole64(pos),
        .journal_prev = htole64(prev),
        .journal_size = htole64(st->params.journal_size),
        .next_ino = htole64(st->next_ino),
        .next_chunk = htole64(st->next_chunk),
        .hash_seed = htole64(st->hash_seed),
        .files = htole64(st->files),
        .pages_used = htole64(st->pages_used),
        .chunk_raw = htole64(st->chunk_raw),
        .chunk_stored = htole64(st->chunk_stored),
        .regions = htole64(dfs_alloc_regions(st->alloc)),
        .newest_snapshot = htole64(st->newest_snapshot),
    };
    memcpy(sb->uuid, st->params.uuid, sizeof sb->uuid);
    for (int t = 0; t < DFS_TREES; t++)
        sb->roots[t] = root_put(&st->trees[t]);
}

int dfs_super_write(struct dfs_store *st, const struct dfs_super_disk *sb) {
    uint8_t *block = dfs_io_alloc(DFS_SUPER_SIZE);
    if (!block)
        return -ENOMEM;
    struct dfs_super_disk copy = *sb;
    dfs_super_seal(&copy, block);
    const uint64_t slot = le64toh(sb->checkpoint) % 2 ? DFS_SUPER_BLOCK1 : DFS_SUPER_BLOCK0;
    int r = st->io->ops->write(st->io, DFS_IO_DATA, block, DFS_SUPER_SIZE, slot * DFS_BLOCK_SIZE);
    if (r == 0)
        r = st->io->ops->sync(st->io, DFS_IO_DATA);
    free(block);
    return r;
}

int dfs_super_decode(const void *block, struct dfs_super_disk *sb, const char **why) {
    memcpy(sb, block, sizeof *sb);
    const uint64_t csum = dfs_hash64((const uint8_t *)block + CSUM_FROM, DFS_SUPER_SIZE - CSUM_FROM, 0);
    *why = "not a dfs superblock";
    if (le64toh(sb->magic) != DFS_SUPER_MAGIC)
        return -EUCLEAN;
    *why = "checksum mismatch";
    if (le64toh(sb->csum) != csum)
        return -EUCLEAN;
    *why = "unknown version";
    if (le32toh(sb->version) != DFS_SUPER_VERSION)
        return -EOPNOTSUPP;
    *why = "unknown incompatible features: made by a newer dfs";
    if (le64toh(sb->features_incompat) & ~(uint64_t)DFS_FEATURES_INCOMPAT)
        return -EOPNOTSUPP;
    const uint64_t js = le64toh(sb->journal_size);
    *why = "fields out of range";
    if (le64toh(sb->regions) > DFS_REGIONS_MAX || js < 4u << 20 || js > 1u << 30 || js % (1u << 20) ||
        le64toh(sb->next_ino) <= DFS_ROOT_INO || le64toh(sb->checkpoint) == 0)
        return -EUCLEAN;
    for (int t = 0; t < DFS_TREES; t++)
        if (sb->roots[t].level > DFS_NODE_MAX_LEVEL)
            return -EUCLEAN;
    *why = NULL;
    return 0;
}

int dfs_super_read(struct dfs_io *io, struct dfs_super_disk *sb, struct dfs_err *err) {
    static const uint64_t slots[2] = {DFS_SUPER_BLOCK0, DFS_SUPER_BLOCK1};
    uint8_t *block = dfs_io_alloc(DFS_SUPER_SIZE);
    const char *why[2] = {"", ""};
    int found = 0, worst = -EUCLEAN;
    if (!block)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    for (int i = 0; i < 2; i++) {
        struct dfs_super_disk s;
        int r = io->ops->read(io, DFS_IO_DATA, block, DFS_SUPER_SIZE, slots[i] * DFS_BLOCK_SIZE);
        if (r != 0)
            why[i] = "read error";
        else
            r = dfs_super_decode(block, &s, &why[i]);
        if (r == 0 && (!found || le64toh(s.checkpoint) > le64toh(sb->checkpoint))) {
            *sb = s;
            found = 1;
        }
        if (r == -EOPNOTSUPP || (r != 0 && r != -EUCLEAN && worst == -EUCLEAN))
            worst = r;
    }
    free(block);
    /* A slot that is not valid was torn by a crash; but one that cannot be read may well be the newer, and to go on from
     * the older would undo what was durable. */
    if (found && worst == -EUCLEAN)
        return 0;
    return dfs_err_set(err, worst, "no usable superblock (slot 0: %s; slot 1: %s)", why[0] ? why[0] : "fine",
                       why[1] ? why[1] : "fine");
}
