/* Requests in wire form: those that libfuse 3.14 does not know (TMPFILE, STATX, SYNCFS), those it drops fields of
 * (SETATTR, WRITE, SETXATTR: the flags to clear set-id bits), and those declined for good with ENOSYS, after which the
 * kernel asks no more. Every length is checked: a short request is answered with EINVAL. */
#include <sys/sysmacros.h>

#include "common/util.h"
#include "fs/mount/session.h"

#define OPCODE_STATX 52u

struct sx_time {
    int64_t sec;
    uint32_t nsec;
    int32_t reserved;
};

struct statx_in {
    uint32_t getattr_flags, reserved;
    uint64_t fh;
    uint32_t sx_flags, sx_mask;
};

struct statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, pad;
    uint64_t ino, size, blocks, attributes_mask;
    struct sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t spare2[14];
};
_Static_assert(sizeof(struct statx_in) == 24, "wire form");
_Static_assert(sizeof(struct statx_out) == 288, "wire form");

struct wire {
    struct dfs_worker *w;
    struct fuse_in_header h;
    const char *body;
    size_t len; /* of the body */
};

static int reply(const struct wire *q, int error, const void *data, size_t size) {
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof out + size),
        .error = error,
        .unique = q->h.unique,
    };
    const struct iovec iov[2] = {{&out, sizeof out}, {(void *)data, size}};
    return q->w->s->transport->ops->reply(q->w->lane, iov, size ? 2 : 1);
}

/* Copies the fixed part of the request's body; false, and answered, when it is not there. */
static bool take(const struct wire *q, void *in, size_t size) {
    if (q->len < size) {
        reply(q, -EINVAL, NULL, 0);
        return false;
    }
    memcpy(in, q->body, size);
    return true;
}

static void fill_attr(const struct dfs_attr *a, struct fuse_attr *f) {
    *f = (struct fuse_attr){
        .ino = a->ino,
        .size = a->size,
        .blocks = a->blocks,
        .atime = (uint64_t)a->atime.tv_sec,
        .mtime = (uint64_t)a->mtime.tv_sec,
        .ctime = (uint64_t)a->ctime.tv_sec,
        .atimensec = (uint32_t)a->atime.tv_nsec,
        .mtimensec = (uint32_t)a->mtime.tv_nsec,
        .ctimensec = (uint32_t)a->ctime.tv_nsec,
        .mode = a->mode,
        .nlink = a->nlink,
        .uid = a->uid,
        .gid = a->gid,
        .rdev = (uint32_t)a->rdev,
        .blksize = 4096,
    };
}

static void wire_setattr(const struct wire *q) {
    static const struct {
        uint32_t wire, store;
    } bits[] = {
        {FATTR_MODE, DFS_SET_MODE},           {FATTR_UID, DFS_SET_UID},
        {FATTR_GID, DFS_SET_GID},             {FATTR_SIZE, DFS_SET_SIZE},
        {FATTR_ATIME, DFS_SET_ATIME},         {FATTR_MTIME, DFS_SET_MTIME},
        {FATTR_CTIME, DFS_SET_CTIME},         {FATTR_ATIME_NOW, DFS_SET_ATIME_NOW},
        {FATTR_MTIME_NOW, DFS_SET_MTIME_NOW}, {FATTR_KILL_SUIDGID, DFS_SET_KILL_SUID},
    };
    struct dfs_session *s = q->w->s;
    struct fuse_setattr_in in;
    struct dfs_attr a;
    if (!take(q, &in, sizeof in))
        return;
    struct dfs_setattr sa = {
        .mode = in.mode & 07777,
        .uid = in.uid,
        .gid = in.gid,
        .size = in.size,
        .atime = {(time_t)in.atime, (long)in.atimensec},
        .mtime = {(time_t)in.mtime, (long)in.mtimensec},
        .ctime = {(time_t)in.ctime, (long)in.ctimensec},
    };
    for (size_t i = 0; i < DFS_ARRAY_SIZE(bits); i++) {
        if (in.valid & bits[i].wire)
            sa.valid |= bits[i].store;
    }
    /* The kernel sends "now" beside the time itself. */
    if (sa.valid & DFS_SET_ATIME_NOW)
        sa.valid &= ~DFS_SET_ATIME;
    if (sa.valid & DFS_SET_MTIME_NOW)
        sa.valid &= ~DFS_SET_MTIME;
    int r = 0;
    if (in.valid & (FATTR_UID | FATTR_GID)) { /* a new owner clears set-id bits, whoever gives it */
        r = dfs_getattr(s->st, q->h.nodeid, &a);
        if (r == 0 && !S_ISDIR(a.mode))
            sa.valid |= DFS_SET_KILL_SUID;
    }
    dfs_atime_written(s, q->h.nodeid);
    if (r == 0)
        r = dfs_setattr(s->st, q->h.nodeid, &sa, &a);
    if (r < 0) {
        reply(q, r, NULL, 0);
        return;
    }
    struct fuse_attr_out out = {.attr_valid = (uint64_t)DFS_TIMEOUT};
    fill_attr(&a, &out.attr);
    reply(q, 0, &out, sizeof out);
}

static void wire_write(const struct wire *q) {
    struct dfs_session *s = q->w->s;
    struct fuse_write_in in;
    if (!take(q, &in, sizeof in))
        return;
    if (in.size > q->len - sizeof in) {
        reply(q, -EINVAL, NULL, 0);
        return;
    }
    const unsigned flags = in.write_flags & FUSE_WRITE_KILL_SUIDGID ? DFS_WRITE_KILL_SUID : 0;
    ssize_t n = dfs_write(s->st, q->h.nodeid, in.offset, q->body + sizeof in, in.size, flags);
    /* Descriptors with O_SYNC and O_DSYNC: the kernel sends FSYNC after the write by itself. */
    dfs_atime_written(s, q->h.nodeid);
    if (n < 0) {
        reply(q, (int)n, NULL, 0);
        return;
    }
    const struct fuse_write_out out = {.size = (uint32_t)n};
    reply(q, 0, &out, sizeof out);
}

static void wire_setxattr(const struct wire *q) {
    struct dfs_session *s = q->w->s;
    struct fuse_setxattr_in in = {0};
    const bool ext = s->init_flags & FUSE_SETXATTR_EXT;
    const size_t fixed = ext ? sizeof in : FUSE_COMPAT_SETXATTR_IN_SIZE;
    if (!take(q, &in, fixed))
        return;
    const char *name = q->body + fixed;
    const size_t left = q->len - fixed;
    const size_t n = strnlen(name, left);
    if (n == left || in.size > left - n - 1) {
        reply(q, -EINVAL, NULL, 0);
        return;
    }
    const int r = dfs_setxattr(s->st, q->h.nodeid, name, name + n + 1, in.size, (int)in.flags,
                               in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
    reply(q, r, NULL, 0);
}

static void wire_tmpfile(const struct wire *q) {
    struct dfs_session *s = q->w->s;
    struct fuse_create_in in;
    struct dfs_attr a;
    if (!take(q, &in, sizeof in))
        return;
    const struct dfs_create c = {
        .mode = (in.mode & 07777) | S_IFREG,
        .umask = in.umask,
        .uid = q->h.uid,
        .gid = q->h.gid,
    };
    int r = dfs_tmpfile(s->st, q->h.nodeid, &c, &a);
    if (r == 0) {
        r = dfs_lookups_add(s->lookups, a.ino, 1);
        if (r < 0)
            dfs_release_orphan(s->st, a.ino);
    }
    if (r < 0) {
        reply(q, r, NULL, 0);
        return;
    }
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {
        .entry = {.nodeid = a.ino,
                  .generation = a.generation,
                  .entry_valid = (uint64_t)DFS_TIMEOUT,
                  .attr_valid = (uint64_t)DFS_TIMEOUT},
        .open = {.open_flags = FOPEN_KEEP_CACHE},
    };
    fill_attr(&a, &out.entry.attr);
    if (reply(q, 0, &out, sizeof out) < 0)
        dfs_session_forget(s, a.ino, 1);
}

static struct sx_time sx(const struct timespec *t) {
    return (struct sx_time){.sec = t->tv_sec, .nsec = (uint32_t)t->tv_nsec};
}

static void wire_statx(const struct wire *q) {
    struct dfs_attr a;
    const int r = dfs_getattr(q->w->s->st, q->h.nodeid, &a);
    if (r < 0) {
        reply(q, r, NULL, 0);
        return;
    }
    const struct statx_out out = {
        .attr_valid = (uint64_t)DFS_TIMEOUT,
        .mask = STATX_BASIC_STATS | STATX_BTIME,
        .blksize = 4096,
        .nlink = a.nlink,
        .uid = a.uid,
        .gid = a.gid,
        .mode = (uint16_t)a.mode,
        .ino = a.ino,
        .size = a.size,
        .blocks = a.blocks,
        .atime = sx(&a.atime),
        .btime = sx(&a.btime),
        .ctime = sx(&a.ctime),
        .mtime = sx(&a.mtime),
        .rdev_major = major(a.rdev),
        .rdev_minor = minor(a.rdev),
    };
    reply(q, 0, &out, sizeof out);
}

bool dfs_wire_handle(struct dfs_worker *w, const char *req, size_t len) {
    struct wire q = {.w = w};
    if (len < sizeof q.h)
        return true; /* cannot even be answered */
    memcpy(&q.h, req, sizeof q.h);
    q.body = req + sizeof q.h;
    q.len = len - sizeof q.h;
    if (q.h.len != len) {
        reply(&q, -EIO, NULL, 0);
        return true;
    }
    switch (q.h.opcode) {
    case FUSE_SETATTR: wire_setattr(&q); return true;
    case FUSE_WRITE: wire_write(&q); return true;
    case FUSE_SETXATTR: wire_setxattr(&q); return true;
    case FUSE_TMPFILE: wire_tmpfile(&q); return true;
    case OPCODE_STATX: wire_statx(&q); return true;
    case FUSE_SYNCFS: reply(&q, dfs_syncfs(w->s->st), NULL, 0); return true;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
    case FUSE_FLUSH:
    case FUSE_ACCESS:
    case FUSE_INTERRUPT: reply(&q, -ENOSYS, NULL, 0); return true;
    default: return false;
    }
}
