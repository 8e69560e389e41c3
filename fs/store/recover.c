/* What opening a volume does after a crash: replays the journal on the trees of the newest superblock.
 *
 * The journal is read twice. The first pass finds out which blocks its records name, so that no tree node is put there
 * while they are replayed, and where the journal ends: a record that was never known to be durable ends it if the chunks
 * it names are not on the disk (journal_format.h). The second pass applies the records before that. */
#include <inttypes.h>

#include "fs/store/internal.h"

#define REPLAY_BLOCKS 512u /* free blocks that a record's replay may need for tree nodes */
#define PASS_ENDED 1

struct replay {
    struct dfs_store *st;
    uint64_t durable_lsn; /* every record up to it was known to be durable */
    uint64_t stop_lsn;    /* second pass: the last record that counts */
};

static bool is_placed(const struct dfs_rec *r) {
    return !(r->type == DFS_REC_MATERIALISE && r->flags & DFS_RECF_UNPLACED);
}

/* Are the chunk's bytes there? 1/0, negative errno. */
static int chunk_is_there(struct dfs_store *st, uint64_t addr, const struct dfs_chunk_desc *d) {
    const size_t len = (size_t)dfs_chunk_blocks(d) * DFS_BLOCK_SIZE;
    cleanup_free void *buf = dfs_io_alloc(len);
    if (!buf)
        return -ENOMEM;
    const int r = st->io->ops->read(st->io, DFS_IO_DATA, buf, len, addr * DFS_BLOCK_SIZE);
    return r != 0 ? r : dfs_chunk_verify(d, buf);
}

static int first_pass(void *arg, const struct dfs_rec_header *h, const uint8_t *body,
                      const struct dfs_journal_place *at) {
    struct replay *rp = arg;
    struct dfs_rec rec;
    struct dfs_rec_chunk_iter it;
    struct dfs_chunk_desc desc;
    uint64_t addr;
    (void)at;
    int r = dfs_rec_decode(le16toh(h->type), le16toh(h->flags), body, le32toh(h->body_len), &rec);
    if (r != 0)
        return r;
    if (!is_placed(&rec))
        return 0;
    if (le64toh(h->lsn) > rp->durable_lsn) {
        dfs_rec_chunks(&rec, &it);
        while (dfs_rec_chunk_next(&it, &addr, &desc)) {
            r = chunk_is_there(rp->st, addr, &desc);
            if (r <= 0)
                return r < 0 ? r : PASS_ENDED;
        }
    }
    dfs_rec_chunks(&rec, &it);
    while (dfs_rec_chunk_next(&it, &addr, &desc))
        if ((r = dfs_alloc_reserve(rp->st->alloc, addr, dfs_chunk_blocks(&desc))) != 0)
            return r;
    return 0;
}

static int second_pass(void *arg, const struct dfs_rec_header *h, const uint8_t *body,
                       const struct dfs_journal_place *at) {
    struct replay *rp = arg;
    struct dfs_store *st = rp->st;
    struct dfs_rec rec;
    (void)at;
    if (le64toh(h->lsn) > rp->stop_lsn)
        return PASS_ENDED;
    int r = dfs_rec_decode(le16toh(h->type), le16toh(h->flags), body, le32toh(h->body_len), &rec);
    if (r != 0)
        return r;
    if (!st->cfg.read_only) {
        r = dfs_alloc_refill(st->alloc, REPLAY_BLOCKS);
        if (r != 0 && r != -ENOSPC) /* a full host must not keep the volume shut: see dfs_alloc_node() */
            return r;
    }
    struct dfs_txn tx = {.st = st, .changing = true, .replay = true};
    pthread_rwlock_wrlock(&st->lock);
    do
        r = dfs_apply(&tx, &rec);
    while (dfs_txn_again(&tx, &r));
    r = dfs_txn_end(&tx, r);
    if (r != 0)
        dfs_log(DFS_LOG_ERROR, "a journal record cannot be replayed",
                "lsn=%" PRIu64 " type=%u inode=%" PRIu64 " errno=%d", le64toh(h->lsn), rec.type, rec.ino, -r);
    else
        st->replayed++;
    return r;
}

/* Which inodes the last run left without a name. Those of the running one are none of our business. */
static int list_orphans(struct dfs_store *st) {
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_READ, 0);
    uint64_t from = 0;
    size_t cap = 0;
    if (r != 0)
        return r;
    do {
        const struct dfs_key key = {.ino = 0, .kind = DFS_KIND_ORPHAN, .off = from};
        struct dfs_iter it;
        for (r = dfs_iter_seek(&it, &tx, DFS_TREE_META, &key); r == 0; r = dfs_iter_next(&it)) {
            const struct dfs_key k = dfs_iter_key(&it);
            if (k.ino != 0 || k.kind != DFS_KIND_ORPHAN)
                break;
            if (st->norphans == cap) {
                cap = cap ? cap * 2 : 64;
                uint64_t *o = realloc(st->orphans, cap * sizeof *o);
                if (!o) {
                    r = -ENOMEM;
                    break;
                }
                st->orphans = o;
            }
            st->orphans[st->norphans++] = k.off;
            from = k.off + 1;
        }
        if (r == -ENOENT)
            r = 0;
    } while (dfs_txn_again(&tx, &r));
    return dfs_txn_end(&tx, r);
}

int dfs_orphans_delete(struct dfs_store *st) {
    int r = 0;
    for (size_t i = 0; r == 0 && i < st->norphans; i++)
        r = dfs_release_orphan(st, st->orphans[i]);
    if (r == 0)
        st->norphans = 0;
    return r;
}

int dfs_recover(struct dfs_store *st, const struct dfs_super_disk *sb, struct dfs_err *err) {
    const uint64_t size = st->params.journal_size;
    const struct dfs_journal_place start = {.pos = le64toh(sb->journal_pos),
                                            .lsn = le64toh(sb->lsn),
                                            .prev_csum = le64toh(sb->journal_prev),
                                            .durable_lsn = le64toh(sb->lsn)};
    struct dfs_journal_place look = start, first = start, end = start;
    struct replay rp = {.st = st};
    /* A later record may say of an earlier one that it was durable. */
    int r = dfs_journal_scan(st->io, size, st->hash_seed, &look, NULL, NULL);
    rp.durable_lsn = look.durable_lsn;
    if (r == 0)
        r = dfs_journal_scan(st->io, size, st->hash_seed, &first, first_pass, &rp);
    if (r == 0 || r == PASS_ENDED) {
        rp.stop_lsn = first.lsn;
        r = dfs_journal_scan(st->io, size, st->hash_seed, &end, second_pass, &rp);
        if (r == PASS_ENDED)
            r = 0;
    }
    /* What was handed to the host before the process died may not have reached the disk, not even the superblock; from here
     * on it counts as durable. */
    if (r == 0 && !st->cfg.read_only) {
        r = st->io->ops->sync(st->io, DFS_IO_DATA);
        if (r == 0)
            r = st->io->ops->sync(st->io, DFS_IO_JOURNAL);
    }
    if (r != 0)
        return dfs_err_sys(err, r, "the journal cannot be replayed");
    const struct dfs_journal_config jc = {.io = st->io,
                                          .size = size,
                                          .seed = st->hash_seed,
                                          .epoch = st->epoch,
                                          .pos = end.pos,
                                          .lsn = end.lsn,
                                          .prev_csum = end.prev_csum,
                                          .tail = start.pos};
    st->journal = dfs_journal_new(&jc);
    if (!st->journal)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    if (!st->cfg.keep_orphans && (r = list_orphans(st)) != 0)
        return dfs_err_sys(err, r, "cannot list what was deleted while open");
    if (st->replayed > 0)
        dfs_log(DFS_LOG_INFO, "journal replayed", "records=%" PRIu64 " lsn=%" PRIu64 " deleted_while_open=%zu", st->replayed,
                end.lsn, st->norphans);
    return 0;
}
