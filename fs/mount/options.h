/* The command line of mount.dfs, as mount(8) calls its helpers: names and -o lists to one struct, or one clear error.
 *
 * Nothing is opened or looked at here: any input gives a result without side effects. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define DFS_MOUNT_ROOT "/var/lib/dfs"

enum dfs_atime { DFS_ATIME_RELATIME, DFS_ATIME_NONE, DFS_ATIME_STRICT };

struct dfs_mount_options {
    char source[PATH_MAX];     /* as given */
    char mountpoint[PATH_MAX]; /* as given */
    char dir[PATH_MAX];        /* of the volume */
    char root[PATH_MAX];
    char log[PATH_MAX];        /* "": none */
    bool help, version, foreground, verbose, remount;
    unsigned long flags;       /* MS_* of mount(2) */
    enum dfs_atime atime;
    bool nodiratime, allow_other, writeback;
    uint64_t cache;            /* bytes, 0: the engine's default */
    unsigned threads;          /* 0: by the machine */
    unsigned checkpoint_ms;    /* 0: the engine's default */
    unsigned spin_us;
    bool create;
    uint64_t size;             /* with create: */
    uint32_t chunk, journal;   /* 0: default */
    int compression;           /* -1: default */
};

int dfs_mount_options_parse(int argc, char **argv, struct dfs_mount_options *o, struct dfs_err *err);

/* "64K", "10G": bytes. -EINVAL, -ERANGE. And "none", "zstd", "zstd:N". */
int dfs_mount_parse_size(const char *text, uint64_t *out);
int dfs_mount_parse_compression(const char *text, int *level);
