/* Attaching /dev/fuse to a directory and letting go of it: mount(2) for root, fusermount3 for other users. */
#pragma once
#include <limits.h>
#include <stdbool.h>

#include "common/err.h"
#include "fs/mount/options.h"

struct dfs_mountpoint {
    char path[PATH_MAX]; /* absolute */
    bool by_root, mounted;
    int fusermount; /* its socket, -1 */
};

/* The descriptor of the mounted /dev/fuse, to be closed by the caller. */
int dfs_mountpoint_mount(struct dfs_mountpoint *m, const struct dfs_mount_options *o, const char *name,
                         struct dfs_err *err);
/* -EBUSY where it is in use, unless `lazy`. */
int dfs_mountpoint_unmount(struct dfs_mountpoint *m, bool lazy);
int dfs_mountpoint_remount(const struct dfs_mount_options *o, struct dfs_err *err);
