#include "fs/store/journal.h"

#include <assert.h>
#include <pthread.h>

#include "common/hash.h"
#include "common/log.h"
#include "common/util.h"
#include "fs/store/io.h"

#define STAGING (4u << 20)
#define CSUM_FROM 16u

struct dfs_journal {
    struct dfs_io *io;
    uint64_t size, seed, epoch;
    pthread_mutex_t mu;
    pthread_cond_t written_cond, synced_cond;
    uint8_t *staging; /* ring: position p lies at p % STAGING; holds [written, appended) */
    uint64_t tail, appended, written, durable;
    uint64_t lsn, prev_csum;
    uint64_t written_lsn, durable_lsn;
    uint64_t direct_pos;    /* end of the last record that names chunks the data file has not synced */
    uint64_t direct_bytes;
    uint64_t direct_synced; /* data file synced for all records up to here */
    bool writing, syncing;
    int error;
    uint64_t syncs;
};

struct dfs_journal *dfs_journal_new(const struct dfs_journal_config *cfg) {
    struct dfs_journal *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->staging = malloc(STAGING);
    if (!j->staging) {
        free(j);
        return NULL;
    }
    j->io = cfg->io;
    j->size = cfg->size;
    j->seed = cfg->seed;
    j->epoch = cfg->epoch;
    j->tail = cfg->tail;
    j->appended = j->written = j->durable = j->direct_synced = cfg->pos;
    j->lsn = j->written_lsn = j->durable_lsn = cfg->lsn;
    j->prev_csum = cfg->prev_csum;
    pthread_mutex_init(&j->mu, NULL);
    pthread_cond_init(&j->written_cond, NULL);
    pthread_cond_init(&j->synced_cond, NULL);
    return j;
}

void dfs_journal_free(struct dfs_journal *j) {
    if (!j)
        return;
    pthread_mutex_destroy(&j->mu);
    pthread_cond_destroy(&j->written_cond);
    pthread_cond_destroy(&j->synced_cond);
    free(j->staging);
    free(j);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static void stage(struct dfs_journal *j, uint64_t pos, const void *data, size_t len) {
    const size_t at = pos % STAGING, first = DFS_MIN(len, STAGING - at);
    memcpy(j->staging + at, data, first);
    memcpy(j->staging, (const uint8_t *)data + first, len - first);
}

/* Writes [from, to) of the staging ring to the journal's ring; each may wrap around. */
static int write_range(struct dfs_journal *j, uint64_t from, uint64_t to) {
    while (from < to) {
        const size_t at = from % STAGING;
        const uint64_t off = from % j->size;
        const uint64_t n = DFS_MIN(DFS_MIN(to - from, STAGING - at), j->size - off);
        const int r = j->io->ops->write(j->io, DFS_IO_JOURNAL, j->staging + at, n, off);
        if (r != 0)
            return r;
        from += n;
    }
    return 0;
}

static void set_error(struct dfs_journal *j, const char *what, int r) {
    if (j->error == 0)
        dfs_log(DFS_LOG_ERROR, what, "errno=%d consequence=\"no further change is accepted\"", -r);
    j->error = -EIO;
}

/* With the lock held, which is released while writing. */
static int write_locked(struct dfs_journal *j, uint64_t pos) {
    while (j->error == 0 && j->written < pos) {
        if (j->writing) {
            pthread_cond_wait(&j->written_cond, &j->mu);
            continue;
        }
        j->writing = true;
        const uint64_t from = j->written, to = j->appended, lsn = j->lsn;
        pthread_mutex_unlock(&j->mu);
        const int r = write_range(j, from, to);
        pthread_mutex_lock(&j->mu);
        j->writing = false;
        if (r != 0) {
            set_error(j, "journal write failed", r);
        } else {
            j->written = to;
            j->written_lsn = lsn;
        }
        pthread_cond_broadcast(&j->written_cond);
    }
    return j->error;
}

uint64_t dfs_journal_append(struct dfs_journal *j, const struct dfs_rec *rec, size_t body_len, uint64_t direct_bytes) {
    const size_t length = DFS_ROUND_UP(sizeof(struct dfs_rec_header) + body_len, DFS_REC_ALIGN);
    uint8_t small[8192];
    uint8_t *buf = length <= sizeof small ? small : malloc(length);
    if (!buf) {
        dfs_log(DFS_LOG_ERROR, "out of memory in the middle of a change, the process ends", NULL);
        abort();
    }
    memset(buf + sizeof(struct dfs_rec_header) + body_len, 0, length - sizeof(struct dfs_rec_header) - body_len);
    dfs_rec_encode(rec, buf + sizeof(struct dfs_rec_header));

    pthread_mutex_lock(&j->mu);
    assert(j->appended + length - j->tail <= j->size);
    /* Rare: operations wait for their record to be written, so little more than one per thread is staged. */
    if (j->appended + length - j->written > STAGING)
        write_locked(j, j->appended);
    struct dfs_rec_header h = {
        .magic = htole32(DFS_REC_MAGIC),
        .length = htole32((uint32_t)length),
        .prev_csum = htole64(j->prev_csum),
        .lsn = htole64(j->lsn + 1),
        .epoch = htole64(j->epoch),
        .pos = htole64(j->appended),
        .durable_lsn = htole64(j->durable_lsn),
        .type = htole16(rec->type),
        .flags = htole16(rec->flags),
        .body_len = htole32((uint32_t)body_len),
    };
    memcpy(buf, &h, sizeof h);
    const uint64_t csum = dfs_hash64(buf + CSUM_FROM, length - CSUM_FROM, j->seed);
    h.csum = htole64(csum);
    memcpy(buf, &h, sizeof h);
    if (j->error == 0)
        stage(j, j->appended, buf, length);
    j->appended += length;
    j->lsn++;
    j->prev_csum = csum;
    const uint64_t end = j->appended;
    if (direct_bytes) {
        j->direct_pos = end;
        j->direct_bytes += direct_bytes;
    }
    pthread_mutex_unlock(&j->mu);
    if (buf != small)
        free(buf);
    return end;
}

int dfs_journal_write(struct dfs_journal *j, uint64_t pos) {
    pthread_mutex_lock(&j->mu);
    const int r = write_locked(j, pos);
    pthread_mutex_unlock(&j->mu);
    return r;
}

int dfs_journal_sync(struct dfs_journal *j, uint64_t pos) {
    pthread_mutex_lock(&j->mu);
    if (pos == UINT64_MAX)
        pos = j->appended;
    while (j->error == 0 && j->durable < pos) {
        if (j->syncing) {
            pthread_cond_wait(&j->synced_cond, &j->mu);
            continue;
        }
        j->syncing = true;
        write_locked(j, j->appended);
        const uint64_t to = j->written, lsn = j->written_lsn, direct = j->direct_pos, bytes = j->direct_bytes;
        const bool data = direct > j->direct_synced;
        int r = j->error;
        pthread_mutex_unlock(&j->mu);
        /* The data file first: a durable record never names bytes that are not. */
        if (r == 0 && data)
            r = j->io->ops->sync(j->io, DFS_IO_DATA);
        if (r == 0)
            r = j->io->ops->sync(j->io, DFS_IO_JOURNAL);
        pthread_mutex_lock(&j->mu);
        j->syncing = false;
        j->syncs++;
        if (r != 0) {
            set_error(j, "journal sync failed", r);
        } else {
            if (to > j->durable) {
                j->durable = to;
                j->durable_lsn = DFS_MAX(j->durable_lsn, lsn);
            }
            if (data) {
                j->direct_synced = DFS_MAX(j->direct_synced, direct);
                j->direct_bytes -= DFS_MIN(j->direct_bytes, bytes);
            }
        }
        pthread_cond_broadcast(&j->synced_cond);
    }
    const int r = j->error;
    pthread_mutex_unlock(&j->mu);
    return r;
}

void dfs_journal_trim(struct dfs_journal *j, uint64_t tail, uint64_t lsn) {
    pthread_mutex_lock(&j->mu);
    j->tail = DFS_MAX(j->tail, tail);
    j->durable = DFS_MAX(j->durable, tail);
    j->durable_lsn = DFS_MAX(j->durable_lsn, lsn);
    pthread_cond_broadcast(&j->synced_cond);
    pthread_mutex_unlock(&j->mu);
}

void dfs_journal_fail(struct dfs_journal *j) {
    pthread_mutex_lock(&j->mu);
    j->error = -EIO;
    pthread_cond_broadcast(&j->written_cond);
    pthread_cond_broadcast(&j->synced_cond);
    pthread_mutex_unlock(&j->mu);
}

/* One locked read of a field. */
#define GETTER(type, name, expr)                                                                                       \
    type name(struct dfs_journal *j) {                                                                                 \
        pthread_mutex_lock(&j->mu);                                                                                    \
        const type v = (expr);                                                                                         \
        pthread_mutex_unlock(&j->mu);                                                                                  \
        return v;                                                                                                      \
    }
GETTER(uint64_t, dfs_journal_room, j->size - (j->appended - j->tail))
GETTER(uint64_t, dfs_journal_used, j->appended - j->tail)
GETTER(uint64_t, dfs_journal_direct_bytes, j->direct_bytes)
GETTER(uint64_t, dfs_journal_durable_lsn, j->durable_lsn)
GETTER(uint64_t, dfs_journal_syncs, j->syncs)
GETTER(int, dfs_journal_error, j->error)

uint64_t dfs_journal_epoch(const struct dfs_journal *j) {
    return j->epoch;
}

void dfs_journal_head(struct dfs_journal *j, uint64_t *pos, uint64_t *lsn, uint64_t *csum) {
    pthread_mutex_lock(&j->mu);
    *pos = j->appended;
    *lsn = j->lsn;
    *csum = j->prev_csum;
    pthread_mutex_unlock(&j->mu);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

#define WINDOW (2u << 20) /* more than two of the longest records */

struct reader {
    struct dfs_io *io;
    uint64_t size, start; /* the window holds [have_from, have_to) */
    uint64_t have_from, have_to;
    uint8_t *buf;
};

/* Bytes [pos, pos + len) of the ring; NULL with *err on a read error. */
static const uint8_t *ring_read(struct reader *rd, uint64_t pos, size_t len, int *err) {
    if (pos >= rd->have_from && pos + len <= rd->have_to)
        return rd->buf + (pos - rd->have_from);
    const uint64_t want = DFS_MIN((uint64_t)WINDOW, rd->size);
    uint64_t done = 0;
    while (done < want) {
        const uint64_t off = (pos + done) % rd->size, n = DFS_MIN(want - done, rd->size - off);
        *err = rd->io->ops->read(rd->io, DFS_IO_JOURNAL, rd->buf + done, n, off);
        if (*err != 0)
            return NULL;
        done += n;
    }
    rd->have_from = pos;
    rd->have_to = pos + want;
    return rd->buf;
}

int dfs_journal_scan(struct dfs_io *io, uint64_t size, uint64_t seed, struct dfs_journal_place *place,
                     int (*fn)(void *, const struct dfs_rec_header *, const uint8_t *, const struct dfs_journal_place *),
                     void *arg) {
    cleanup_free uint8_t *buf = malloc(WINDOW);
    if (!buf)
        return -ENOMEM;
    struct reader rd = {.io = io, .size = size, .start = place->pos, .buf = buf};
    for (;;) {
        int err = 0;
        const uint8_t *p = ring_read(&rd, place->pos, sizeof(struct dfs_rec_header), &err);
        if (!p)
            return err;
        struct dfs_rec_header h;
        memcpy(&h, p, sizeof h);
        const uint32_t length = le32toh(h.length), body = le32toh(h.body_len);
        if (le32toh(h.magic) != DFS_REC_MAGIC || length > DFS_REC_LEN_MAX || body > DFS_REC_BODY_MAX ||
            length != DFS_ROUND_UP(sizeof h + body, DFS_REC_ALIGN) || le64toh(h.pos) != place->pos ||
            le64toh(h.lsn) != place->lsn + 1 || le64toh(h.prev_csum) != place->prev_csum ||
            place->pos + length - rd.start > size)
            return 0;
        p = ring_read(&rd, place->pos, length, &err);
        if (!p)
            return err;
        if (dfs_hash64(p + CSUM_FROM, length - CSUM_FROM, seed) != le64toh(h.csum))
            return 0;
        if (fn) {
            const int r = fn(arg, &h, p + sizeof h, place);
            if (r != 0)
                return r;
        }
        place->pos += length;
        place->lsn++;
        place->prev_csum = le64toh(h.csum);
        place->durable_lsn = DFS_MAX(place->durable_lsn, le64toh(h.durable_lsn));
    }
}
