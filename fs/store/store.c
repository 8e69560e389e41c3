/* Making, opening and closing volumes. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/file.h>

#include "common/hash.h"
#include "fs/store/internal.h"
#include "fs/store/unit_cache.h"

#define CACHE_DEFAULT ((size_t)128 << 20)
#define CACHE_MIN ((size_t)16 << 20)
#define FORMAT_POOL 64u /* blocks a new volume needs for its first checkpoint */
#define ZERO_STEP ((size_t)1 << 20)

/* ---- the object ----------------------------------------------------------------------------------------------- */

/* Takes over `io` only when it succeeds. */
static struct dfs_store *store_new(struct dfs_io *io, const struct dfs_volume_params *p,
                                   const struct dfs_store_config *cfg) {
    struct dfs_store *st = calloc(1, sizeof *st);
    if (!st)
        return NULL;
    st->dirfd = st->lockfd = -1;
    st->params = *p;
    st->cfg = *cfg;
    st->cache_bytes = cfg->cache_bytes ? DFS_MAX(cfg->cache_bytes, CACHE_MIN) : CACHE_DEFAULT;
    pthread_rwlock_init(&st->gate, NULL);
    pthread_rwlock_init(&st->lock, NULL);
    pthread_mutex_init(&st->checkpoint_lock, NULL);
    pthread_mutex_init(&st->wait_lock, NULL);
    pthread_condattr_t monotonic; /* the worker's deadlines are not to jump with the wall clock */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&st->wake_worker, &monotonic);
    pthread_cond_init(&st->checkpointed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    dfs_dirty_init(&st->dirty);
    /* Half of the cache for tree nodes, a quarter each for dirty pages and decompressed units. */
    st->max_dirty_pages = st->cache_bytes / 4 / DFS_PAGE;
    st->units = dfs_unit_cache_new(st->cache_bytes / 4);
    if (!st->units || dfs_cache_init(&st->cache, st->cache_bytes / 2) != 0) {
        dfs_unit_cache_free(st->units);
        free(st);
        return NULL;
    }
    st->io = io;
    return st;
}

/* Everything but the I/O backend. */
static void store_free(struct dfs_store *st) {
    dfs_cache_destroy(&st->cache);
    dfs_dirty_destroy(&st->dirty);
    dfs_unit_cache_free(st->units);
    dfs_alloc_destroy(st->alloc);
    dfs_journal_free(st->journal);
    free(st->orphans);
    pthread_cond_destroy(&st->checkpointed);
    pthread_cond_destroy(&st->wake_worker);
    pthread_mutex_destroy(&st->wait_lock);
    pthread_mutex_destroy(&st->checkpoint_lock);
    pthread_rwlock_destroy(&st->lock);
    pthread_rwlock_destroy(&st->gate);
    if (st->lockfd >= 0)
        close(st->lockfd);
    if (st->dirfd >= 0)
        close(st->dirfd);
    free(st);
}

/* ---- making --------------------------------------------------------------------------------------------------- */

/* Zeros are written, not only space reserved: turning reserved space into written costs the host a journal commit of its
 * own, at the first fsync that touches it. */
static int zero_file(struct dfs_io *io, enum dfs_io_file file, uint64_t size) {
    int r = io->ops->allocate(io, file, 0, size);
    if (r != 0 && r != -EOPNOTSUPP)
        return r;
    cleanup_free uint8_t *zeros = dfs_io_alloc(ZERO_STEP);
    if (!zeros)
        return -ENOMEM;
    memset(zeros, 0, ZERO_STEP);
    for (uint64_t off = 0; off < size; off += ZERO_STEP) {
        r = io->ops->write(io, file, zeros, DFS_MIN(ZERO_STEP, size - off), off);
        if (r != 0)
            return r;
    }
    return io->ops->sync(io, file);
}

/* The journal and both superblocks have their space for good: a full host must not get in the way of a checkpoint. */
static int prepare_files(struct dfs_io *io, uint64_t journal_size) {
    const int r = zero_file(io, DFS_IO_JOURNAL, journal_size);
    return r != 0 ? r : zero_file(io, DFS_IO_DATA, DFS_FIRST_BLOCK * DFS_BLOCK_SIZE);
}

static int make_trees(struct dfs_store *st) {
    const struct dfs_volume_params *p = &st->params;
    const struct dfs_key key = dfs_key_inode(DFS_ROOT_INO);
    const struct timespec now = {.tv_sec = p->created};
    const struct dfs_inode root = {
        .generation = 1,
        .parent = DFS_ROOT_INO,
        .mode = S_IFDIR | (p->root_mode & 07777),
        .nlink = 2,
        .uid = p->root_uid,
        .gid = p->root_gid,
        .atime = now,
        .mtime = now,
        .ctime = now,
        .btime = now,
    };
    struct dfs_txn tx;
    int r = dfs_txn_begin(&tx, st, DFS_TXN_CHECKPOINT, 0);
    if (r != 0)
        return r;
    for (int t = 0; r == 0 && t < DFS_TREES; t++)
        r = dfs_tree_new(&tx, (enum dfs_tree_id)t);
    if (r == 0)
        r = dfs_tree_prepare(&tx, DFS_TREE_META, &key);
    if (r == 0)
        dfs_inode_put(&tx, DFS_ROOT_INO, &root);
    dfs_txn_again(&tx, &r);
    return dfs_txn_end(&tx, r);
}

int dfs_store_format_io(struct dfs_io *io, const struct dfs_volume_params *p, struct dfs_err *err) {
    const struct dfs_store_config cfg = {.cache_bytes = CACHE_MIN, .no_threads = true};
    struct dfs_store *st = store_new(io, p, &cfg);
    if (!st)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    st->next_ino = DFS_ROOT_INO + 1;
    st->next_chunk = 1;
    st->checkpoint = 1;
    st->epoch = 1;
    st->files = 1;
    /* As random as the UUID; and volumes of equal parameters are equal, which tests want. */
    st->hash_seed = dfs_hash64(p->uuid, sizeof p->uuid, 0);
    int r = prepare_files(io, p->journal_size);
    if (r == 0) {
        const struct dfs_journal_config jc = {.io = io, .size = p->journal_size, .seed = st->hash_seed, .epoch = st->epoch};
        st->journal = dfs_journal_new(&jc);
        st->alloc = dfs_alloc_new(st, 0);
        r = st->journal && st->alloc ? 0 : -ENOMEM;
    }
    if (r == 0)
        r = dfs_alloc_refill(st->alloc, FORMAT_POOL);
    if (r == 0)
        r = make_trees(st);
    if (r == 0)
        r = dfs_checkpoint(st);
    if (r == 0)
        dfs_alloc_release_pool(st->alloc);
    store_free(st);
    return r == 0 ? 0 : dfs_err_sys(err, r, "cannot write an empty volume");
}

static int make_file(int dirfd, const char *name) {
    const int fd = openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

/* The directory, made or found empty; negative errno. */
static int make_dir(const char *dir, bool *made, struct dfs_err *err) {
    *made = mkdir(dir, 0700) == 0;
    if (!*made && errno != EEXIST)
        return dfs_err_sys(err, -errno, "cannot make the directory '%s'", dir);
    cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return dfs_err_sys(err, -errno, "cannot open the directory '%s'", dir);
    DIR *d = fdopendir(dup(fd));
    if (!d)
        return dfs_err_sys(err, -errno, "cannot list the directory '%s'", dir);
    const struct dirent *e;
    bool empty = true;
    while ((e = readdir(d)))
        empty &= strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    closedir(d);
    if (!empty)
        return dfs_err_set(err, -EEXIST, "the directory '%s' is not empty", dir);
    return dfs_steal_fd(&fd);
}

static int sync_parent(const char *dir) {
    cleanup_free char *up;
    if (asprintf(&up, "%s/..", dir) < 0)
        return -ENOMEM;
    cleanup_close int fd = open(up, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

/* volume.json comes last: a directory without it is no volume, whatever else lies there. */
static int fill_dir(int dirfd, const struct dfs_volume_params *p, struct dfs_err *err) {
    static const char *const files[] = {"journal", "data", "lock"};
    struct dfs_io *io = NULL;
    int r = 0;
    for (size_t i = 0; r == 0 && i < DFS_ARRAY_SIZE(files); i++)
        if ((r = make_file(dirfd, files[i])) != 0)
            return dfs_err_sys(err, r, "cannot make the file '%s'", files[i]);
    r = dfs_io_uring_new(dirfd, false, &io, err);
    if (r == 0)
        r = dfs_store_format_io(io, p, err);
    dfs_io_free(io);
    return r != 0 ? r : dfs_volume_params_save(dirfd, p, err);
}

int dfs_store_create(const char *dir, const struct dfs_volume_params *p, struct dfs_err *err) {
    bool made;
    cleanup_close int dirfd = make_dir(dir, &made, err);
    if (dirfd < 0)
        return dirfd;
    int r = fill_dir(dirfd, p, err);
    if (r == 0 && (r = sync_parent(dir)) != 0)
        dfs_err_sys(err, r, "cannot make '%s' durable", dir);
    if (r == 0)
        return 0;
    static const char *const files[] = {"journal", "data", "lock", "volume.json"};
    for (size_t i = 0; i < DFS_ARRAY_SIZE(files); i++)
        unlinkat(dirfd, files[i], 0);
    if (made)
        rmdir(dir);
    return r;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static void take_super(struct dfs_store *st, const struct dfs_super_disk *sb) {
    st->hash_seed = le64toh(sb->hash_seed);
    st->next_ino = le64toh(sb->next_ino);
    st->next_chunk = le64toh(sb->next_chunk);
    st->files = le64toh(sb->files);
    st->pages_used = le64toh(sb->pages_used);
    st->chunk_raw = le64toh(sb->chunk_raw);
    st->chunk_stored = le64toh(sb->chunk_stored);
    st->durable_checkpoint = le64toh(sb->checkpoint);
    st->checkpoint = st->durable_checkpoint + 1;
    st->epoch = le64toh(sb->epoch);
    st->newest_snapshot = le64toh(sb->newest_snapshot);
    for (int t = 0; t < DFS_TREES; t++) {
        const struct dfs_root_disk *r = &sb->roots[t];
        st->trees[t] = (struct dfs_tree){
            .root = {le64toh(r->ptr.addr), le64toh(r->ptr.birth), le64toh(r->ptr.csum)}, .level = r->level};
    }
}

static int check_identity(const struct dfs_super_disk *sb, const struct dfs_volume_params *p, struct dfs_err *err) {
    if (memcmp(sb->uuid, p->uuid, sizeof sb->uuid) != 0)
        return dfs_err_set(err, -EUCLEAN, "volume.json and the data file belong to different volumes (their UUIDs differ)");
    if (le64toh(sb->journal_size) != p->journal_size)
        return dfs_err_set(err, -EUCLEAN, "volume.json says the journal has %" PRIu32 " bytes, the superblock %" PRIu64,
                           p->journal_size, le64toh(sb->journal_size));
    return 0;
}

static int open_store(struct dfs_store *st, struct dfs_err *err) {
    struct dfs_super_disk sb;
    int r = dfs_super_read(st->io, &sb, err);
    if (r == 0)
        r = check_identity(&sb, &st->params, err);
    if (r != 0)
        return r;
    if (le64toh(sb.features_ro_compat) & ~(uint64_t)DFS_FEATURES_RO_COMPAT && !st->cfg.read_only)
        return dfs_err_set(err, -EOPNOTSUPP, "the volume was changed by a newer dfs: it can be opened read-only only");
    take_super(st, &sb);
    st->alloc = dfs_alloc_new(st, le64toh(sb.regions));
    if (!st->alloc)
        return dfs_err_set(err, -ENOMEM, "out of memory");
    r = dfs_alloc_load(st->alloc);
    if (r != 0)
        return dfs_err_sys(err, r, "cannot read the table of free blocks");
    r = dfs_recover(st, &sb, err);
    if (r != 0 || st->cfg.read_only)
        return r;
    if (!st->cfg.no_threads)
        r = dfs_worker_start(st);
    else if (!st->cfg.keep_orphans)
        r = dfs_orphans_delete(st);
    return r == 0 ? 0 : dfs_err_sys(err, r, "cannot start work on the volume");
}

int dfs_store_open_io(struct dfs_io *io, const struct dfs_volume_params *p, const struct dfs_store_config *cfg,
                      struct dfs_store **out, struct dfs_err *err) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct dfs_store *st = store_new(io, p, cfg);
    if (!st) {
        dfs_io_free(io);
        return dfs_err_set(err, -ENOMEM, "out of memory");
    }
    const int r = open_store(st, err);
    if (r != 0) {
        dfs_store_abandon(st);
        return r;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    st->open_ns = (uint64_t)((end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec));
    *out = st;
    return 0;
}

/* One opener at a time; the file says who. */
static int take_lock(int dirfd, const char *dir, struct dfs_err *err) {
    cleanup_close int fd = openat(dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EROFS)
        fd = openat(dirfd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return dfs_err_sys(err, -errno, "cannot open the lock file of '%s'", dir);
    char who[32] = "";
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return dfs_err_sys(err, -errno, "cannot lock '%s'", dir);
        const ssize_t n = pread(fd, who, sizeof who - 1, 0);
        const long pid = n > 0 ? strtol(who, NULL, 10) : 0;
        return pid > 0 ? dfs_err_set(err, -EBUSY, "'%s' is in use by process %ld", dir, pid)
                       : dfs_err_set(err, -EBUSY, "'%s' is in use by another process", dir);
    }
    const int n = snprintf(who, sizeof who, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, who, (size_t)n, 0) != n)
        dfs_log(DFS_LOG_DEBUG, "cannot note the holder in the lock file", "errno=%d", errno);
    return dfs_steal_fd(&fd);
}

int dfs_store_open(const char *dir, const struct dfs_store_config *cfg, struct dfs_store **out, struct dfs_err *err) {
    struct dfs_volume_params p;
    struct dfs_io *io;
    cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return dfs_err_sys(err, -errno, "cannot open '%s'", dir);
    int r = dfs_volume_params_load(dirfd, &p, err);
    if (r != 0) {
        dfs_err_wrap(err, "'%s'", dir);
        return r;
    }
    cleanup_close int lockfd = take_lock(dirfd, dir, err);
    if (lockfd < 0)
        return lockfd;
    r = dfs_io_uring_new(dirfd, cfg->read_only, &io, err);
    if (r == 0)
        r = dfs_store_open_io(io, &p, cfg, out, err);
    if (r != 0) {
        dfs_err_wrap(err, "cannot open the volume '%s'", dir);
        return r;
    }
    (*out)->dirfd = dfs_steal_fd(&dirfd);
    (*out)->lockfd = dfs_steal_fd(&lockfd);
    return 0;
}

/* ---- closing -------------------------------------------------------------------------------------------------- */

void dfs_store_abandon(struct dfs_store *st) {
    struct dfs_io *io = st->io;
    dfs_worker_stop(st);
    store_free(st);
    dfs_io_free(io);
}

int dfs_store_close(struct dfs_store *st) {
    int r = 0;
    dfs_worker_stop(st);
    if (!st->cfg.read_only) {
        r = atomic_load(&st->failed) ? -EIO : dfs_checkpoint(st);
        if (r == 0)
            dfs_alloc_release_pool(st->alloc);
    }
    dfs_store_abandon(st);
    return r;
}

/* ---- parameters and figures ----------------------------------------------------------------------------------- */

const struct dfs_volume_params *dfs_store_params(const struct dfs_store *st) {
    return &st->params;
}

void dfs_store_set_size_limit(struct dfs_store *st, uint64_t bytes) {
    pthread_rwlock_wrlock(&st->lock);
    st->params.size_limit = bytes;
    pthread_rwlock_unlock(&st->lock);
}

void dfs_store_set_compression(struct dfs_store *st, int level) {
    pthread_rwlock_wrlock(&st->lock);
    st->params.compression_level = level;
    pthread_rwlock_unlock(&st->lock);
}

int dfs_statfs(struct dfs_store *st, struct dfs_statfs *out) {
    uint64_t host_free, host_total, used_blocks, free_blocks;
    const int r = st->io->ops->host_free(st->io, &host_free, &host_total);
    if (r != 0)
        return r;
    dfs_alloc_usage(st->alloc, &used_blocks, &free_blocks);
    pthread_rwlock_rdlock(&st->lock);
    const uint64_t used = st->pages_used * DFS_PAGE, limit = st->params.size_limit;
    *out = (struct dfs_statfs){.bytes_used = used, .files = st->files};
    pthread_rwlock_unlock(&st->lock);
    /* What the pool holds was taken from the host already, but is free to us. */
    const uint64_t free_bytes = host_free + dfs_alloc_pool_blocks(st->alloc) * DFS_BLOCK_SIZE;
    out->bytes_free = limit ? DFS_MIN(limit > used ? limit - used : 0, free_bytes) : free_bytes;
    out->bytes_total = limit ? limit : used + free_bytes;
    return 0;
}

void dfs_store_get_stats(struct dfs_store *st, struct dfs_store_stats *out) {
    uint64_t pos, prev;
    *out = (struct dfs_store_stats){
        .journal_size = st->params.journal_size,
        .open_ns = st->open_ns,
        .replayed_records = st->replayed,
        .read_only = st->cfg.read_only,
        .failed = atomic_load(&st->failed) || dfs_journal_error(st->journal) != 0,
        .reads = atomic_load(&st->n_reads),
        .writes = atomic_load(&st->n_writes),
        .bytes_read = atomic_load(&st->n_bytes_read),
        .bytes_written = atomic_load(&st->n_bytes_written),
        .fsyncs = atomic_load(&st->n_fsyncs),
        .checksums_verified = atomic_load(&st->n_verified),
        .checksum_errors = atomic_load(&st->n_bad),
    };
    dfs_journal_head(st->journal, &pos, &out->lsn, &prev);
    out->durable_lsn = dfs_journal_durable_lsn(st->journal);
    out->journal_used = dfs_journal_used(st->journal);
    out->journal_syncs = dfs_journal_syncs(st->journal);
    dfs_alloc_usage(st->alloc, &out->blocks_data, &out->blocks_free);
    pthread_rwlock_rdlock(&st->lock);
    out->epoch = st->epoch;
    out->checkpoint = st->durable_checkpoint;
    out->files = st->files;
    out->bytes_used = st->pages_used * DFS_PAGE;
    out->chunks_raw_bytes = st->chunk_raw;
    out->chunks_stored_bytes = st->chunk_stored;
    out->dirty_bytes = st->dirty.count * DFS_PAGE;
    out->node_bytes = st->cache.nodes * DFS_NODE_SIZE;
    pthread_rwlock_unlock(&st->lock);
    out->cache_bytes = out->node_bytes + out->dirty_bytes + dfs_unit_cache_bytes(st->units);
    pthread_mutex_lock(&st->wait_lock);
    out->checkpoints = st->checkpoints_done;
    pthread_mutex_unlock(&st->wait_lock);
}
