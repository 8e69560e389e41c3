#include "fs/mount/mountpoint.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/util.h"

static unsigned long mount_flags(const struct dfs_mount_options *o) {
    /* Access times are kept by the server: to the kernel the mount has none. */
    return o->flags | (o->atime == DFS_ATIME_NONE ? MS_NOATIME : 0) | (o->nodiratime ? MS_NODIRATIME : 0) |
           (o->atime == DFS_ATIME_STRICT ? MS_STRICTATIME : 0);
}

static int mount_by_root(const struct dfs_mountpoint *m, const struct dfs_mount_options *o, const char *name,
                         const struct stat *st, struct dfs_err *err) {
    char data[256];
    cleanup_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return dfs_err_sys(err, -errno, "cannot open /dev/fuse (is the kernel's fuse module there?)");
    snprintf(data, sizeof data, "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions,allow_other", fd,
             st->st_mode & S_IFMT, getuid(), getgid());
    if (mount(name, m->path, "fuse.dfs", mount_flags(o), data) < 0)
        return dfs_err_sys(err, -errno, "cannot mount on '%s'", m->path);
    return dfs_steal_fd(&fd);
}

static int receive_fd(int sock) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do {
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    int fd;
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof fd))
        return -EPERM; /* fusermount3 has said why */
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static int mount_by_fusermount(struct dfs_mountpoint *m, const struct dfs_mount_options *o, const char *name,
                               struct dfs_err *err) {
    char list[PATH_MAX], number[16];
    int pair[2];
    snprintf(list, sizeof list, "fsname=%s,subtype=dfs,default_permissions%s%s%s%s%s%s", name,
             o->allow_other ? ",allow_other" : "", o->flags & MS_RDONLY ? ",ro" : "",
             o->flags & MS_NOEXEC ? ",noexec" : "", o->flags & MS_SYNCHRONOUS ? ",sync" : "",
             o->flags & MS_DIRSYNC ? ",dirsync" : "", o->atime == DFS_ATIME_NONE ? ",noatime" : "");
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return dfs_err_sys(err, -errno, "socketpair");
    snprintf(number, sizeof number, "%d", pair[0]);
    const pid_t pid = fork();
    if (pid == 0) {
        close(pair[1]);
        setenv("_FUSE_COMMFD", number, 1);
        execlp("fusermount3", "fusermount3", "-o", list, "--", m->path, (char *)NULL);
        dprintf(STDERR_FILENO, "mount.dfs: cannot run fusermount3: %s\n", strerror(errno));
        _exit(127);
    }
    close(pair[0]);
    fcntl(pair[1], F_SETFD, FD_CLOEXEC);
    const int fd = pid < 0 ? -errno : receive_fd(pair[1]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (fd < 0) {
        close(pair[1]);
        return dfs_err_sys(err, fd, "fusermount3 does not mount on '%s'", m->path);
    }
    m->fusermount = pair[1];
    return fd;
}

int dfs_mountpoint_mount(struct dfs_mountpoint *m, const struct dfs_mount_options *o, const char *name,
                         struct dfs_err *err) {
    struct stat st;
    memset(m, 0, sizeof *m);
    m->fusermount = -1;
    if (!realpath(o->mountpoint, m->path) || stat(m->path, &st) < 0)
        return dfs_err_sys(err, -errno, "mount point '%s'", o->mountpoint);
    if (!S_ISDIR(st.st_mode))
        return dfs_err_sys(err, -ENOTDIR, "mount point '%s'", o->mountpoint);
    m->by_root = geteuid() == 0;
    const int fd = m->by_root ? mount_by_root(m, o, name, &st, err) : mount_by_fusermount(m, o, name, err);
    m->mounted = fd >= 0;
    return fd;
}

int dfs_mountpoint_unmount(struct dfs_mountpoint *m, bool lazy) {
    if (!m->mounted)
        return 0;
    if (m->by_root) {
        if (umount2(m->path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
            return -errno;
    } else {
        int status = 0;
        const pid_t pid = fork();
        if (pid == 0) {
            execlp("fusermount3", "fusermount3", "-u", "-q", lazy ? "-z" : "--", m->path, (char *)NULL);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0)
            return -errno;
        if (status)
            return -EBUSY;
    }
    m->mounted = false;
    return 0;
}

int dfs_mountpoint_remount(const struct dfs_mount_options *o, struct dfs_err *err) {
    if (mount(NULL, o->mountpoint, NULL, MS_REMOUNT | mount_flags(o), NULL) < 0)
        return dfs_err_sys(err, -errno, "cannot remount '%s'", o->mountpoint);
    return 0;
}
