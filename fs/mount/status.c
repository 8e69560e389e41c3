#include "fs/mount/status.h"

#include "common/util.h"

static const char *const opcode_names[DFS_OPCODES] = {
    [FUSE_LOOKUP] = "lookup",       [FUSE_FORGET] = "forget",           [FUSE_GETATTR] = "getattr",
    [FUSE_SETATTR] = "setattr",     [FUSE_READLINK] = "readlink",       [FUSE_SYMLINK] = "symlink",
    [FUSE_MKNOD] = "mknod",         [FUSE_MKDIR] = "mkdir",             [FUSE_UNLINK] = "unlink",
    [FUSE_RMDIR] = "rmdir",         [FUSE_RENAME] = "rename",           [FUSE_LINK] = "link",
    [FUSE_OPEN] = "open",           [FUSE_READ] = "read",               [FUSE_WRITE] = "write",
    [FUSE_STATFS] = "statfs",       [FUSE_RELEASE] = "release",         [FUSE_FSYNC] = "fsync",
    [FUSE_SETXATTR] = "setxattr",   [FUSE_GETXATTR] = "getxattr",       [FUSE_LISTXATTR] = "listxattr",
    [FUSE_FLUSH] = "flush",         [FUSE_REMOVEXATTR] = "removexattr", [FUSE_INIT] = "init",
    [FUSE_OPENDIR] = "opendir",     [FUSE_READDIR] = "readdir",         [FUSE_RELEASEDIR] = "releasedir",
    [FUSE_FSYNCDIR] = "fsyncdir",   [FUSE_ACCESS] = "access",           [FUSE_CREATE] = "create",
    [FUSE_INTERRUPT] = "interrupt", [FUSE_DESTROY] = "destroy",         [FUSE_IOCTL] = "ioctl",
    [FUSE_POLL] = "poll",           [FUSE_BATCH_FORGET] = "batch_forget", [FUSE_FALLOCATE] = "fallocate",
    [FUSE_READDIRPLUS] = "readdirplus", [FUSE_RENAME2] = "rename2",     [FUSE_LSEEK] = "lseek",
    [FUSE_COPY_FILE_RANGE] = "copy_file_range", [FUSE_SYNCFS] = "syncfs", [FUSE_TMPFILE] = "tmpfile",
    [52] = "statx",
};

static json_t *requests_json(struct dfs_session *s) {
    json_t *all = json_object();
    for (size_t i = 0; i < DFS_OPCODES; i++) {
        const uint64_t count = atomic_load(&s->stats[i].count);
        if (!count || !opcode_names[i])
            continue;
        json_object_set_new(all, opcode_names[i],
                            json_pack("{s:I, s:f, s:f}", "count", (json_int_t)count, "average_us",
                                      (double)atomic_load(&s->stats[i].ns) / 1000.0 / (double)count, "max_us",
                                      (double)atomic_load(&s->stats[i].max_ns) / 1000.0));
    }
    return all;
}

static json_t *volume_json(const struct dfs_store *st) {
    cleanup_free char *text = dfs_volume_params_format(dfs_store_params(st));
    return text ? json_loads(text, 0, NULL) : NULL;
}

static json_t *store_json(struct dfs_store *st) {
    struct dfs_store_stats t;
    dfs_store_get_stats(st, &t);
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
#define FIGURE(f) {#f, t.f}
        FIGURE(lsn), FIGURE(durable_lsn), FIGURE(epoch), FIGURE(checkpoint), FIGURE(files), FIGURE(bytes_used),
        FIGURE(blocks_data), FIGURE(blocks_free), FIGURE(chunks_raw_bytes), FIGURE(chunks_stored_bytes),
        FIGURE(journal_used), FIGURE(journal_size), FIGURE(cache_bytes), FIGURE(dirty_bytes), FIGURE(node_bytes),
        FIGURE(reads), FIGURE(writes), FIGURE(bytes_read), FIGURE(bytes_written), FIGURE(fsyncs),
        FIGURE(journal_syncs), FIGURE(checkpoints), FIGURE(checksums_verified), FIGURE(checksum_errors),
        FIGURE(replayed_records), FIGURE(open_ns),
#undef FIGURE
    };
    json_t *o = json_pack("{s:b, s:b}", "read_only", t.read_only, "failed", t.failed);
    for (size_t i = 0; i < DFS_ARRAY_SIZE(figures); i++)
        json_object_set_new(o, figures[i].name, json_integer((json_int_t)figures[i].value));
    return o;
}

json_t *dfs_status_json(struct dfs_session *s, const struct dfs_mountpoint *m) {
    return json_pack("{s:b, s:o, s:o, s:s, s:I, s:s, s:I, s:I, s:o}", "ok", 1, "volume", volume_json(s->st), "store",
                     store_json(s->st), "mountpoint", m->path, "pid", (json_int_t)getpid(), "transport",
                     s->transport->ops->name, "threads", (json_int_t)s->workers, "lookup_bytes",
                     (json_int_t)dfs_lookups_bytes(s->lookups), "requests", requests_json(s));
}
