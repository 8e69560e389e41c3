#include "fs/mount/control.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/log.h"
#include "common/util.h"
#include "fs/mount/status.h"
#include "fs/store/check.h"

#define CONNECTIONS_MAX 8u
#define LINE_MAX_BYTES 65536u
#define IDLE_MS 60000
#define SEND_SECONDS 10

struct dfs_control {
    struct dfs_session *s;
    const struct dfs_mountpoint *m;
    int dirfd, listen, stop; /* stop: an eventfd, readable for good once stopping */
    pthread_t thread;
    pthread_mutex_t lock; /* guards: */
    pthread_cond_t idle;
    unsigned connections;
    pthread_mutex_t set_lock; /* one change of volume.json at a time */
};

struct connection {
    struct dfs_control *c;
    int fd;
    size_t used;
    bool broken;
    char line[LINE_MAX_BYTES];
};

static void send_json(struct connection *k, json_t *o) {
    cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text || k->broken) {
        k->broken = true;
        return;
    }
    const size_t len = strlen(text);
    text[len] = '\n'; /* in place of the NUL */
    for (size_t done = 0; done < len + 1;) {
        const ssize_t n = send(k->fd, text + done, len + 1 - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            k->broken = true;
            return;
        }
        done += (size_t)n;
    }
}

static void send_error(struct connection *k, const char *text) {
    send_json(k, json_pack("{s:b, s:s}", "ok", 0, "error", text));
}

static void send_result(struct connection *k, int r) {
    if (r < 0)
        send_error(k, strerror(-r));
    else
        send_json(k, json_pack("{s:b}", "ok", 1));
}

static void cmd_status(struct connection *k, const json_t *q) {
    (void)q;
    send_json(k, dfs_status_json(k->c->s, k->c->m));
}

static void cmd_checkpoint(struct connection *k, const json_t *q) {
    (void)q;
    send_result(k, dfs_checkpoint(k->c->s->st));
}

static void cmd_sync(struct connection *k, const json_t *q) {
    (void)q;
    send_result(k, dfs_syncfs(k->c->s->st));
}

static void cmd_unmount(struct connection *k, const json_t *q) {
    (void)q;
    send_result(k, 0);
    kill(getpid(), SIGTERM);
}

static void send_finding(void *arg, const struct dfs_check_damage *d) {
    send_json(arg, json_pack("{s:{s:s, s:I, s:I, s:I, s:I}}", "finding", "what", d->what, "ino", (json_int_t)d->ino,
                             "off", (json_int_t)d->off, "chunk", (json_int_t)d->chunk, "block", (json_int_t)d->block));
}

static void cmd_check(struct connection *k, const json_t *q) {
    struct dfs_check_result res = {0};
    const struct dfs_check_config cfg = {
        .data = json_is_true(json_object_get(q, "data")), .report = send_finding, .arg = k};
    const int r = dfs_store_check(k->c->s->st, &cfg, &res);
    if (r < 0) {
        send_result(k, r);
        return;
    }
    send_json(k, json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "ok", 1, "damages",
                           (json_int_t)res.damages, "inodes", (json_int_t)res.inodes, "entries",
                           (json_int_t)res.entries, "extents", (json_int_t)res.extents, "chunks",
                           (json_int_t)res.chunks, "nodes", (json_int_t)res.nodes, "blocks", (json_int_t)res.blocks,
                           "bytes_verified", (json_int_t)res.bytes_verified, "incomplete", res.incomplete));
}

/* First what is kept, then what runs: after a failure both are as before. */
static void cmd_set(struct connection *k, const json_t *q) {
    struct dfs_volume_params p;
    struct dfs_err err = DFS_ERR_INIT;
    const json_t *size = json_object_get(q, "size"), *compression = json_object_get(q, "compression");
    uint64_t bytes = 0;
    int level = 0;
    if (!size && !compression) {
        send_error(k, "set: size or compression is expected");
        return;
    }
    if (size) {
        if (json_is_integer(size) && json_integer_value(size) >= 0)
            bytes = (uint64_t)json_integer_value(size);
        else if (!json_is_string(size) || dfs_mount_parse_size(json_string_value(size), &bytes) < 0 ||
                 bytes > INT64_MAX) {
            send_error(k, "set: size is a number of bytes or a text such as \"10G\"");
            return;
        }
    }
    if (compression && (!json_is_string(compression) ||
                        dfs_mount_parse_compression(json_string_value(compression), &level) < 0)) {
        send_error(k, "set: compression is \"none\", \"zstd\" or \"zstd:1\" to \"zstd:19\"");
        return;
    }
    pthread_mutex_lock(&k->c->set_lock);
    int r = k->c->s->read_only ? dfs_err_set(&err, -EROFS, "the volume is mounted read-only")
                               : dfs_volume_params_load(k->c->dirfd, &p, &err);
    if (r == 0) {
        if (size)
            p.size_limit = bytes;
        if (compression)
            p.compression_level = level;
        r = dfs_volume_params_save(k->c->dirfd, &p, &err);
    }
    if (r == 0 && size)
        dfs_store_set_size_limit(k->c->s->st, bytes);
    if (r == 0 && compression)
        dfs_store_set_compression(k->c->s->st, level);
    pthread_mutex_unlock(&k->c->set_lock);
    if (r < 0)
        send_error(k, err.text);
    else
        send_result(k, 0);
}

static void dispatch(struct connection *k, const char *line, size_t len) {
    static const struct {
        const char *name;
        void (*run)(struct connection *k, const json_t *q);
    } cmds[] = {
        {"status", cmd_status}, {"checkpoint", cmd_checkpoint}, {"sync", cmd_sync},
        {"check", cmd_check},   {"set", cmd_set},               {"unmount", cmd_unmount},
    };
    json_error_t e;
    json_t *q = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
    const char *cmd = json_string_value(json_object_get(q, "cmd"));
    size_t i = 0;
    while (cmd && i < DFS_ARRAY_SIZE(cmds) && strcmp(cmd, cmds[i].name) != 0)
        i++;
    if (!cmd)
        send_error(k, q ? "an object with \"cmd\" is expected" : "this is no JSON");
    else if (i == DFS_ARRAY_SIZE(cmds))
        send_error(k, "unknown cmd");
    else
        cmds[i].run(k, q);
    json_decref(q);
}

/* False when the connection ends. */
static bool read_line(struct connection *k) {
    struct pollfd p[2] = {{.fd = k->fd, .events = POLLIN}, {.fd = k->c->stop, .events = POLLIN}};
    char *end;
    while (!(end = memchr(k->line, '\n', k->used))) {
        if (k->used == sizeof k->line) {
            send_error(k, "the request is too long");
            return false;
        }
        const int ready = poll(p, 2, IDLE_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0 || p[1].revents)
            return false;
        const ssize_t n = recv(k->fd, k->line + k->used, sizeof k->line - k->used, 0);
        if (n <= 0)
            return false;
        k->used += (size_t)n;
    }
    const size_t len = (size_t)(end - k->line);
    dispatch(k, k->line, len);
    k->used -= len + 1;
    memmove(k->line, end + 1, k->used);
    return !k->broken;
}

static void *serve(void *arg) {
    struct connection *k = arg;
    struct dfs_control *c = k->c;
    while (read_line(k)) {
    }
    close(k->fd);
    free(k);
    pthread_mutex_lock(&c->lock);
    if (--c->connections == 0)
        pthread_cond_signal(&c->idle);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void accept_one(struct dfs_control *c) {
    const struct timeval timeout = {.tv_sec = SEND_SECONDS};
    cleanup_close int fd = accept4(c->listen, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    pthread_mutex_lock(&c->lock);
    const bool room = c->connections < CONNECTIONS_MAX;
    c->connections += room;
    pthread_mutex_unlock(&c->lock);
    if (!room)
        return; /* the peer sees the end */
    struct connection *k = calloc(1, sizeof *k);
    pthread_t t;
    if (k) {
        k->c = c;
        k->fd = fd;
    }
    if (k && pthread_create(&t, NULL, serve, k) == 0) {
        pthread_detach(t);
        dfs_steal_fd(&fd);
        return;
    }
    free(k);
    pthread_mutex_lock(&c->lock);
    c->connections--;
    pthread_mutex_unlock(&c->lock);
}

static void *accept_all(void *arg) {
    struct dfs_control *c = arg;
    struct pollfd p[2] = {{.fd = c->listen, .events = POLLIN}, {.fd = c->stop, .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents)
            break;
        if (p[0].revents)
            accept_one(c);
    }
    return NULL;
}

static int listen_at(struct dfs_control *c, struct dfs_err *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    /* The volume's path may be longer than a socket's name can be. */
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/control", c->dirfd);
    c->listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listen < 0)
        return dfs_err_sys(err, -errno, "control socket");
    unlinkat(c->dirfd, "control", 0); /* we hold the volume's lock: whose it was is gone */
    const mode_t old = umask(0177);
    const int r = bind(c->listen, (struct sockaddr *)&a, sizeof a) < 0 || listen(c->listen, 8) < 0 ? -errno : 0;
    umask(old);
    return r < 0 ? dfs_err_sys(err, r, "cannot make the control socket") : 0;
}

static void control_free(struct dfs_control *c) {
    if (c->listen >= 0)
        close(c->listen);
    if (c->stop >= 0)
        close(c->stop);
    if (c->dirfd >= 0)
        close(c->dirfd);
    free(c);
}

int dfs_control_start(const char *dir, struct dfs_session *s, const struct dfs_mountpoint *m, struct dfs_control **out,
                      struct dfs_err *err) {
    struct dfs_control *c = calloc(1, sizeof *c);
    if (!c)
        return dfs_err_sys(err, -ENOMEM, "control socket");
    c->s = s;
    c->m = m;
    c->listen = -1;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->set_lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    c->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    c->stop = eventfd(0, EFD_CLOEXEC);
    int r = c->dirfd < 0 || c->stop < 0 ? dfs_err_sys(err, -errno, "control socket in '%s'", dir) : listen_at(c, err);
    if (r == 0) {
        r = -pthread_create(&c->thread, NULL, accept_all, c);
        if (r < 0)
            dfs_err_sys(err, r, "cannot start the control thread");
    }
    if (r < 0) {
        control_free(c);
        return r;
    }
    *out = c;
    return 0;
}

void dfs_control_stop(struct dfs_control *c) {
    if (!c)
        return;
    unlinkat(c->dirfd, "control", 0);
    eventfd_write(c->stop, 1);
    pthread_join(c->thread, NULL);
    pthread_mutex_lock(&c->lock);
    while (c->connections)
        pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
    control_free(c);
}
