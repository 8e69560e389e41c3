/* libdfsstore: the storage engine of one volume.
 *
 * A store is a directory holding `volume.json`, `journal` and `data`; one process has it open at a time (flock on the
 * directory's `lock` file). This header is all that the mount, the daemon, the tools, benchmarks and fuzzers see of it.
 *
 * Promises (docs/architecture.md has the reasons):
 *  1. A call that returned success survives kill -9 of the process at any instruction.
 *  2. What dfs_fsync() or dfs_syncfs() answered survives a power cut, and so does everything before it.
 *  3. After any crash dfs_store_open() succeeds by itself, in time bounded by the journal.
 *  4. A byte that does not match its checksum is never returned: the read fails with -EIO and the log names it.
 *  5. Out of host space, writes fail with -ENOSPC (over the volume's own limit: -EDQUOT); reads and deletes work.
 *  6. An error in making something durable is sticky: every later sync and change fails with -EIO until reopened.
 *
 * All calls are thread-safe. They return 0 (or a count) or a negative errno. Names are byte strings of 1 to 255 bytes
 * without '/' and NUL, not "." or ".."; others give -EINVAL or -ENAMETOOLONG. Permissions are the caller's to check.
 * Inode numbers are never reused; the root directory is DFS_ROOT_INO. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "common/err.h"

struct dfs_io;
struct dfs_store;

#define DFS_ROOT_INO 1u
#define DFS_NAME_MAX 255u
#define DFS_LINK_MAX 65000u
#define DFS_SYMLINK_MAX 4095u
#define DFS_XATTR_NAME_MAX 255u
#define DFS_XATTR_VALUE_MAX 65536u
/* Largest file size and offset + 1: the kernel's limit, 8 EiB - 1. */
#define DFS_FILE_SIZE_MAX INT64_MAX

/* ---- volumes ------------------------------------------------------------------------------------------------- */

/* A volume's fixed and adjustable parameters, as volume.json holds them. */
struct dfs_volume_params {
    char name[DFS_NAME_MAX + 1];
    uint8_t uuid[16];
    uint64_t size_limit;       /* bytes of file data, 0: none */
    uint32_t chunk_size;       /* bytes, a power of two, 4 KiB to 1 MiB */
    uint32_t journal_size;     /* bytes, multiple of 1 MiB, 4 MiB to 1 GiB */
    int compression_level;     /* 0: none; 1 to 19: zstd */
    uint32_t root_uid, root_gid, root_mode; /* of the root directory when created */
    int64_t created;           /* seconds since the epoch */
};

/* Defaults: no limit, 128 KiB chunks, 64 MiB journal, zstd 1, root 0:0 0755. */
void dfs_volume_params_init(struct dfs_volume_params *p);

/* Reads and writes volume.json (write: atomically, durable on return). Unknown keys are refused, naming them. */
int dfs_volume_params_load(int dirfd, struct dfs_volume_params *p, struct dfs_err *err);
int dfs_volume_params_save(int dirfd, const struct dfs_volume_params *p, struct dfs_err *err);
int dfs_volume_params_parse(const char *text, size_t len, struct dfs_volume_params *p, struct dfs_err *err);
char *dfs_volume_params_format(const struct dfs_volume_params *p); /* malloc'd JSON text */

/* Is this a name a volume may have: [A-Za-z0-9][A-Za-z0-9_.-]*, at most 255 bytes, no "..". */
bool dfs_volume_name_valid(const char *name);

struct dfs_store_config {
    size_t cache_bytes;           /* 0: 128 MiB; at least 16 MiB */
    bool read_only;               /* nothing is written, the journal is replayed in memory only */
    bool keep_orphans;            /* unlinked-but-open inodes of the last run survive the opening */
    unsigned checkpoint_interval_ms; /* 0: 5000 */
    bool no_threads;              /* tests: no background work; the caller calls dfs_checkpoint() */
    void (*clock)(struct timespec *); /* tests: NULL for CLOCK_REALTIME */
};

/* Makes the directory (which must not exist, or be empty) and an empty volume in it; durable on return. */
int dfs_store_create(const char *dir, const struct dfs_volume_params *p, struct dfs_err *err);

/* -EBUSY: somebody has it open, and the error says who (pid). -EUCLEAN: damaged beyond opening. */
int dfs_store_open(const char *dir, const struct dfs_store_config *cfg, struct dfs_store **out, struct dfs_err *err);

/* The same on an I/O backend of the caller's (owned by the store from then on, also on failure). */
int dfs_store_format_io(struct dfs_io *io, const struct dfs_volume_params *p, struct dfs_err *err); /* io stays the caller's */
int dfs_store_open_io(struct dfs_io *io, const struct dfs_volume_params *p, const struct dfs_store_config *cfg,
                      struct dfs_store **out, struct dfs_err *err);

/* Checkpoints and closes; the first error met, after everything is released. */
int dfs_store_close(struct dfs_store *st);

/* Releases everything without writing anything: what a crash would leave. For tests and read-only tools. */
void dfs_store_abandon(struct dfs_store *st);

const struct dfs_volume_params *dfs_store_params(const struct dfs_store *st);

/* Changes the size limit, compression level of a running volume (volume.json is the caller's to save). */
void dfs_store_set_size_limit(struct dfs_store *st, uint64_t bytes);
void dfs_store_set_compression(struct dfs_store *st, int level);

/* ---- inodes and names ---------------------------------------------------------------------------------------- */

struct dfs_attr {
    uint64_t ino;
    uint64_t size;    /* bytes */
    uint64_t blocks;  /* 512-byte units of data mapped */
    uint64_t rdev;
    uint64_t generation;
    uint32_t mode;    /* type and permissions */
    uint32_t nlink;
    uint32_t uid, gid;
    struct timespec atime, mtime, ctime, btime;
};

#define DFS_SET_MODE (1u << 0)
#define DFS_SET_UID (1u << 1)
#define DFS_SET_GID (1u << 2)
#define DFS_SET_SIZE (1u << 3)
#define DFS_SET_ATIME (1u << 4)
#define DFS_SET_MTIME (1u << 5)
#define DFS_SET_CTIME (1u << 6)
#define DFS_SET_ATIME_NOW (1u << 7)
#define DFS_SET_MTIME_NOW (1u << 8)
#define DFS_SET_KILL_SUID (1u << 9) /* clear suid, and sgid where group-executable, and security.capability */

struct dfs_setattr {
    uint32_t valid; /* DFS_SET_* */
    uint32_t mode;  /* permission bits; the type is ignored */
    uint32_t uid, gid;
    uint64_t size;
    struct timespec atime, mtime, ctime;
};

struct dfs_create {
    uint32_t mode;  /* S_IFMT says what to make */
    uint32_t umask; /* applied unless the parent has a default ACL, as the kernel does */
    uint32_t uid, gid; /* of the maker; a setgid parent's group wins, and is handed to directories */
    uint64_t rdev;
    const char *target; /* symlinks: NUL-terminated */
};

int dfs_lookup(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr);
int dfs_getattr(struct dfs_store *st, uint64_t ino, struct dfs_attr *attr);
/* -EFBIG beyond DFS_FILE_SIZE_MAX. ctime is set unless DFS_SET_CTIME gives it. Chmod keeps a POSIX ACL's mask true. */
int dfs_setattr(struct dfs_store *st, uint64_t ino, const struct dfs_setattr *sa, struct dfs_attr *attr);
/* Files, directories, symlinks, devices, fifos, sockets. -EEXIST fills nothing. Default ACLs are inherited. */
int dfs_create(struct dfs_store *st, uint64_t dir, const char *name, size_t len, const struct dfs_create *c,
               struct dfs_attr *attr);
/* A nameless regular file (O_TMPFILE): nlink 0, an orphan until dfs_link() names it. */
int dfs_tmpfile(struct dfs_store *st, uint64_t dir, const struct dfs_create *c, struct dfs_attr *attr);
int dfs_link(struct dfs_store *st, uint64_t ino, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr);
/* What lost its last name becomes an orphan, readable and writable by number until dfs_release_orphan(). `attr` (may be
 * NULL) is the inode's afterwards: nlink 0 tells. unlink refuses directories (-EISDIR), rmdir all else (-ENOTDIR). */
int dfs_unlink(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr);
int dfs_rmdir(struct dfs_store *st, uint64_t dir, const char *name, size_t len, struct dfs_attr *attr);
/* flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE of <linux/fs.h>. `replaced` (may be NULL): attributes of what stood at
 * the destination, ino 0 if nothing. */
int dfs_rename(struct dfs_store *st, uint64_t sdir, const char *sname, size_t slen, uint64_t ddir, const char *dname,
               size_t dlen, unsigned flags, struct dfs_attr *replaced);
/* Nobody refers to this inode any more: if it is an orphan, it and its data go. Unknown or linked inodes: no effect. */
int dfs_release_orphan(struct dfs_store *st, uint64_t ino);
/* The target, NUL-terminated, in `buf`; its length without NUL. */
ssize_t dfs_readlink(struct dfs_store *st, uint64_t ino, char *buf, size_t size);
/* A path that leads to the inode, for messages (the last name given, "?" where unknown). */
int dfs_ino_path(struct dfs_store *st, uint64_t ino, char *buf, size_t size);

struct dfs_dirent {
    uint64_t ino;
    uint64_t cookie; /* continue after this entry by passing it on; below 2^63, stable while others come and go */
    uint32_t type;   /* S_IFMT bits */
    const char *name;
    size_t len;
    const struct dfs_attr *attr; /* NULL unless asked for */
};
/* Calls `fn` for each entry after `cookie` (0: from the start), "." and ".." first, until it returns non-zero (the entry
 * then counts as not delivered) or the directory ends. 0 or negative errno. `fn` may not call into the store. */
int dfs_readdir(struct dfs_store *st, uint64_t dir, uint64_t cookie, bool want_attr,
                int (*fn)(void *arg, const struct dfs_dirent *e), void *arg);

/* ---- data ---------------------------------------------------------------------------------------------------- */

/* Bytes read, short only at the end of the file. */
ssize_t dfs_read(struct dfs_store *st, uint64_t ino, uint64_t off, void *buf, size_t len);
#define DFS_WRITE_KILL_SUID (1u << 0)
/* All of len or an error. */
ssize_t dfs_write(struct dfs_store *st, uint64_t ino, uint64_t off, const void *buf, size_t len, unsigned flags);
/* mode: 0, FALLOC_FL_KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; others -EOPNOTSUPP. */
int dfs_fallocate(struct dfs_store *st, uint64_t ino, int mode, uint64_t off, uint64_t len);
/* whence: SEEK_DATA or SEEK_HOLE; the offset, -ENXIO past the end. */
int64_t dfs_seek(struct dfs_store *st, uint64_t ino, uint64_t off, int whence);
/* Bytes copied; shares chunks where source and destination agree modulo 4 KiB, copies the rest. */
ssize_t dfs_copy_range(struct dfs_store *st, uint64_t in, uint64_t off_in, uint64_t out, uint64_t off_out, size_t len);
int dfs_fsync(struct dfs_store *st, uint64_t ino, bool datasync);
int dfs_syncfs(struct dfs_store *st);

/* ---- extended attributes ------------------------------------------------------------------------------------- */

/* size 0 asks for the length. -ENODATA, -ERANGE as getxattr(2). */
ssize_t dfs_getxattr(struct dfs_store *st, uint64_t ino, const char *name, void *buf, size_t size);
ssize_t dfs_listxattr(struct dfs_store *st, uint64_t ino, char *buf, size_t size);
/* flags: 0, XATTR_CREATE, XATTR_REPLACE. system.posix_acl_access is folded into the mode where it fits, as ext4 does;
 * kill_sgid: the caller lacks the group and CAP_FSETID, so an ACL change clears setgid. */
int dfs_setxattr(struct dfs_store *st, uint64_t ino, const char *name, const void *value, size_t size, int flags,
                 bool kill_sgid);
int dfs_removexattr(struct dfs_store *st, uint64_t ino, const char *name);

/* ---- the volume ---------------------------------------------------------------------------------------------- */

struct dfs_statfs {
    uint64_t bytes_total; /* the limit, or what the host could still give plus what is used */
    uint64_t bytes_used;  /* of file data, uncompressed */
    uint64_t bytes_free;
    uint64_t files;       /* inodes in use */
};
int dfs_statfs(struct dfs_store *st, struct dfs_statfs *out);

/* Figures for `dfs status`, tests and benchmarks. Counters run since the opening. */
struct dfs_store_stats {
    uint64_t lsn, durable_lsn, epoch, checkpoint;
    uint64_t files, bytes_used;
    uint64_t blocks_data, blocks_free;            /* 4 KiB blocks of the data file in use, free inside it */
    uint64_t chunks_raw_bytes, chunks_stored_bytes; /* of all live chunks */
    uint64_t journal_used, journal_size;
    uint64_t cache_bytes, dirty_bytes, node_bytes;
    uint64_t reads, writes, bytes_read, bytes_written, fsyncs, journal_syncs, checkpoints;
    uint64_t checksums_verified, checksum_errors;
    uint64_t replayed_records;
    uint64_t open_ns;
    bool read_only, failed;
};
void dfs_store_get_stats(struct dfs_store *st, struct dfs_store_stats *out);

/* Everything answered so far is in the trees and durable on return. */
int dfs_checkpoint(struct dfs_store *st);
