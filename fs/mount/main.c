/* mount.dfs: serves one volume on one mount point. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "common/log.h"
#include "common/util.h"
#include "fs/mount/control.h"
#include "fs/mount/daemonize.h"

/* Exit codes of mount(8). */
#define EXIT_USAGE 1
#define EXIT_MOUNT 32

/* How long to wait for a server that has been unmounted and is still closing the volume. */
#define CLOSING_SECONDS 30

static const char usage[] =
    "usage: mount.dfs VOLUME MOUNTPOINT [-o OPTION,...] [-frwnsvhV]\n"
    "Mounts a dfs volume, given by its name below the root directory or by its path (with a '/').\n"
    "  -f  stay in the foreground      -r  read-only        -v  verbose\n"
    "  -h  this help                   -V  version          -w  read-write; -n, -s: accepted\n"
    "options: root=DIR create size=SIZE compression=none|zstd[:N] chunk=SIZE journal=SIZE\n"
    "  ro rw noatime relatime strictatime nodiratime nodev nosuid noexec sync dirsync allow_other\n"
    "  cache=SIZE threads=N checkpoint=MS spin=USEC writeback nowriteback log=FILE\n"
    "mount.dfs(8) describes them.\n";

static int exit_code(int r) {
    return r == -EINVAL || r == -EPERM ? EXIT_USAGE : EXIT_MOUNT;
}

/* Does a server answer for this volume? One that is closing it has let go of its socket already. */
static bool served(const char *dir) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    cleanup_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (dirfd < 0 || fd < 0)
        return true;
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/control", dirfd);
    return connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
}

static int create_volume(const struct dfs_mount_options *o, struct dfs_err *err) {
    struct dfs_volume_params p;
    dfs_volume_params_init(&p);
    const char *slash = strrchr(o->dir, '/');
    const char *name = slash && slash[1] ? slash + 1 : o->dir;
    if (!dfs_volume_name_valid(name))
        return dfs_err_set(err, -EINVAL, "\"%s\" is no name for a volume", name);
    snprintf(p.name, sizeof p.name, "%.*s", (int)DFS_NAME_MAX, name);
    p.size_limit = o->size;
    if (o->chunk)
        p.chunk_size = o->chunk;
    if (o->journal)
        p.journal_size = o->journal;
    if (o->compression >= 0)
        p.compression_level = o->compression;
    if (geteuid() != 0) {
        p.root_uid = geteuid();
        p.root_gid = getegid();
    }
    if (!strchr(o->source, '/') && mkdir(o->root, 0755) < 0 && errno != EEXIST)
        return dfs_err_sys(err, -errno, "cannot make '%s'", o->root);
    return dfs_store_create(o->dir, &p, err);
}

static int open_volume(const struct dfs_mount_options *o, struct dfs_store **st, struct dfs_err *err) {
    char file[PATH_MAX + 16];
    const struct dfs_store_config cfg = {
        .cache_bytes = o->cache,
        .read_only = o->flags & MS_RDONLY,
        .checkpoint_interval_ms = o->checkpoint_ms,
    };
    snprintf(file, sizeof file, "%s/volume.json", o->dir);
    if (access(file, F_OK) < 0 && errno == ENOENT) {
        if (!o->create)
            return dfs_err_set(err, -ENOENT, "there is no volume in '%s' (-o create makes one)", o->dir);
        const int r = create_volume(o, err);
        if (r < 0)
            return r;
    }
    const struct timespec pause = {.tv_nsec = 20000000};
    int r = dfs_store_open(o->dir, &cfg, st, err);
    for (int i = 0; r == -EBUSY && i < CLOSING_SECONDS * 50 && !served(o->dir); i++) {
        nanosleep(&pause, NULL);
        r = dfs_store_open(o->dir, &cfg, st, err);
    }
    return r;
}

static int open_log(const struct dfs_mount_options *o, struct dfs_err *err) {
    if (!o->log[0])
        return -1;
    const int fd = open(o->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    return fd >= 0 ? fd : dfs_err_sys(err, -errno, "cannot open the log '%s'", o->log);
}

static void interrupt_read(int sig) {
    (void)sig;
}

static void block_signals(sigset_t *set) {
    struct sigaction sa = {.sa_handler = interrupt_read}; /* without SA_RESTART: ends a worker's read */
    sigaction(SIGUSR1, &sa, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* Returns when the mount has ended: by umount, or by a signal. */
static void wait_for_end(const sigset_t *set, struct dfs_mountpoint *m) {
    int sig = 0;
    sigwait(set, &sig);
    if (sig == SIGUSR2) {
        m->mounted = false;
        dfs_log(DFS_LOG_INFO, "unmounted", NULL);
        return;
    }
    dfs_log(DFS_LOG_INFO, "unmounting", "signal=%d", sig);
    const int fd = open(m->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        syncfs(fd); /* what is dirty in mappings comes in while we still answer */
        close(fd);
    }
    if (dfs_mountpoint_unmount(m, false) == -EBUSY) {
        dfs_log(DFS_LOG_WARN, "in use, detached: its users get ENOTCONN", "mountpoint=\"%s\"", m->path);
        dfs_mountpoint_unmount(m, true);
    }
}

struct mount {
    struct dfs_mount_options o;
    struct dfs_mountpoint point;
    struct dfs_store *st;
    struct dfs_session *session;
    struct dfs_control *control;
};

static int start(struct mount *t, struct dfs_err *err) {
    int r = open_volume(&t->o, &t->st, err);
    if (r < 0)
        return r;
    const char *name = dfs_store_params(t->st)->name;
    char context[DFS_NAME_MAX + 16];
    snprintf(context, sizeof context, "volume=%s", name);
    dfs_log_context(context);
    const int fd = dfs_mountpoint_mount(&t->point, &t->o, name, err);
    if (fd < 0)
        return fd;
    r = dfs_session_new(&t->o, t->st, fd, t->o.flags & MS_RDONLY, &t->session, err);
    if (r == 0)
        r = dfs_session_start(t->session, err);
    if (r == 0)
        r = dfs_control_start(t->o.dir, t->session, &t->point, &t->control, err);
    return r;
}

static int finish(struct mount *t) {
    dfs_control_stop(t->control);
    if (t->session)
        dfs_session_stop(t->session);
    if (t->point.mounted)
        dfs_mountpoint_unmount(&t->point, true);
    dfs_session_free(t->session);
    const int r = t->st ? dfs_store_close(t->st) : 0;
    if (r < 0)
        dfs_log(DFS_LOG_ERROR, "the volume was not closed cleanly", "error=\"%s\"", strerror(-r));
    return r;
}

static int run(struct mount *t, int report, int log) {
    struct dfs_err err = DFS_ERR_INIT;
    sigset_t set;
    block_signals(&set);
    dfs_log_open("mount.dfs", DFS_LOG_STDERR, t->o.verbose ? DFS_LOG_DEBUG : DFS_LOG_INFO);
    int r = start(t, &err);
    if (r < 0) {
        finish(t);
        dfs_daemonize_report(report, exit_code(r), err.text);
        return exit_code(r);
    }
    if (report >= 0 && log < 0)
        dfs_log_open("mount.dfs", DFS_LOG_SYSLOG, t->o.verbose ? DFS_LOG_DEBUG : DFS_LOG_INFO);
    dfs_log(DFS_LOG_INFO, "mounted", "mountpoint=\"%s\" threads=%u transport=%s", t->point.path, t->session->workers,
            t->session->transport->ops->name);
    dfs_daemonize_report(report, 0, "");
    if (log >= 0)
        dup2(log, STDERR_FILENO);
    wait_for_end(&set, &t->point);
    return finish(t) < 0 ? EXIT_MOUNT : 0;
}

int main(int argc, char **argv) {
    static struct mount t;
    struct dfs_err err = DFS_ERR_INIT;
    t.point.fusermount = -1;
    int r = dfs_mount_options_parse(argc, argv, &t.o, &err);
    if (r == 0 && (t.o.help || t.o.version)) {
        fputs(t.o.help ? usage : "mount.dfs " DFS_VERSION "\n", stdout);
        return 0;
    }
    if (r == 0 && t.o.remount)
        r = dfs_mountpoint_remount(&t.o, &err);
    if (r < 0) {
        fprintf(stderr, "mount.dfs: %s\n", err.text);
        return exit_code(r);
    }
    if (t.o.remount)
        return 0;
    mallopt(M_ARENA_MAX, 2);
    /* Relative names are given from here, and the server leaves for "/". */
    char *dir = realpath(t.o.dir, NULL);
    if (dir)
        snprintf(t.o.dir, sizeof t.o.dir, "%s", dir);
    free(dir);
    const int log = open_log(&t.o, &err);
    if (log < -1) {
        fprintf(stderr, "mount.dfs: %s\n", err.text);
        return EXIT_MOUNT;
    }
    const int report = t.o.foreground ? -1 : dfs_daemonize_begin();
    if (!t.o.foreground && report < 0) {
        fprintf(stderr, "mount.dfs: cannot fork: %s\n", strerror(-report));
        return EXIT_MOUNT;
    }
    return run(&t, report, log);
}
