/* How requests come from the kernel and replies go back.
 *
 * A transport is opened once per mount and hands every worker thread a lane of its own; a reply must leave through the
 * lane its request came by. /dev/fuse (transport_dev.c) is the one that works everywhere. A lane belongs to one thread;
 * open and close belong to the thread that runs the mount. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* A WRITE's payload follows two headers of together 80 bytes; the request is placed so that it is aligned. */
#define DFS_REQUEST_PAYLOAD 80u
#define DFS_REQUEST_DATA_MAX (1u << 20)
#define DFS_REQUEST_MAX (DFS_REQUEST_DATA_MAX + 4096u)

struct dfs_transport;
struct dfs_lane;

struct dfs_transport_ops {
    const char *name;
    int (*lane_open)(struct dfs_transport *t, struct dfs_lane **out);
    /* Length of the request, now at *req and the lane's until the next call; -ENODEV: unmounted; -EINTR: a signal. */
    ssize_t (*receive)(struct dfs_lane *lane, char **req);
    /* 0 or negative errno; -ENOENT: nobody waits for this reply any more. */
    int (*reply)(struct dfs_lane *lane, const struct iovec *iov, int count);
    void (*lane_close)(struct dfs_lane *lane);
    void (*free)(struct dfs_transport *t);
};

struct dfs_transport {
    const struct dfs_transport_ops *ops;
};

/* `fd`: the mounted /dev/fuse, which stays the caller's. spin_us: how long one idle lane at most polls before it sleeps. */
struct dfs_transport *dfs_transport_dev_new(int fd, unsigned spin_us);
