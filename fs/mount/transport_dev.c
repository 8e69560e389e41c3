/* /dev/fuse, with a clone of the descriptor for each lane: no shared queue of unanswered requests to contend for. With
 * spinning, a second, non-blocking clone is polled for a moment after each request, by one lane at a time. */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <time.h>

#include "common/util.h"
#include "fs/mount/transport.h"

struct dev {
    struct dfs_transport base;
    int fd;
    unsigned spin_us;
    atomic_flag spinning;
};

struct dfs_lane {
    struct dev *dev;
    int fd, spin_fd, from; /* from: where the last request came by */
    char *memory, *buf;
};

static int clone_fd(int fd, int flags) {
    cleanup_close int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC | flags);
    if (clone < 0)
        return -errno;
    uint32_t master = (uint32_t)fd;
    if (ioctl(clone, FUSE_DEV_IOC_CLONE, &master) < 0)
        return -errno;
    return dfs_steal_fd(&clone);
}

static void dev_lane_close(struct dfs_lane *lane) {
    if (lane->fd >= 0)
        close(lane->fd);
    if (lane->spin_fd >= 0)
        close(lane->spin_fd);
    free(lane->memory);
    free(lane);
}

static int dev_lane_open(struct dfs_transport *t, struct dfs_lane **out) {
    struct dev *dev = (struct dev *)t;
    struct dfs_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return -ENOMEM;
    lane->dev = dev;
    lane->fd = lane->spin_fd = -1;
    /* 4096 bytes before the payload's place: the headers end there. */
    lane->memory = aligned_alloc(4096, DFS_ROUND_UP(DFS_REQUEST_MAX + 4096u, 4096u));
    if (!lane->memory) {
        dev_lane_close(lane);
        return -ENOMEM;
    }
    lane->buf = lane->memory + 4096 - DFS_REQUEST_PAYLOAD;
    lane->fd = clone_fd(dev->fd, 0);
    if (lane->fd < 0) {
        const int r = lane->fd;
        dev_lane_close(lane);
        return r;
    }
    if (dev->spin_us)
        lane->spin_fd = clone_fd(dev->fd, O_NONBLOCK); /* without it this lane only sleeps */
    *out = lane;
    return 0;
}

static uint64_t now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* -EAGAIN: nothing came, or another lane spins already. */
static ssize_t spin(struct dfs_lane *lane) {
    struct dev *dev = lane->dev;
    ssize_t n;
    if (lane->spin_fd < 0 || atomic_flag_test_and_set(&dev->spinning))
        return -EAGAIN;
    const uint64_t end = now_ns() + dev->spin_us * 1000u;
    do {
        n = read(lane->spin_fd, lane->buf, DFS_REQUEST_MAX);
    } while (n < 0 && errno == EAGAIN && now_ns() < end);
    if (n < 0)
        n = -errno;
    atomic_flag_clear(&dev->spinning);
    return n;
}

static ssize_t dev_receive(struct dfs_lane *lane, char **req) {
    *req = lane->buf;
    lane->from = lane->spin_fd;
    ssize_t n = spin(lane);
    if (n == -EAGAIN) {
        lane->from = lane->fd;
        n = read(lane->fd, lane->buf, DFS_REQUEST_MAX);
        if (n < 0)
            n = -errno;
    }
    return n;
}

static int dev_reply(struct dfs_lane *lane, const struct iovec *iov, int count) {
    return writev(lane->from, iov, count) < 0 ? -errno : 0;
}

static void dev_free(struct dfs_transport *t) {
    free(t);
}

static const struct dfs_transport_ops dev_ops = {
    .name = "dev",
    .lane_open = dev_lane_open,
    .receive = dev_receive,
    .reply = dev_reply,
    .lane_close = dev_lane_close,
    .free = dev_free,
};

struct dfs_transport *dfs_transport_dev_new(int fd, unsigned spin_us) {
    struct dev *dev = calloc(1, sizeof *dev);
    if (!dev)
        return NULL;
    dev->base.ops = &dev_ops;
    dev->fd = fd;
    dev->spin_us = spin_us;
    atomic_flag_clear(&dev->spinning);
    return &dev->base;
}
