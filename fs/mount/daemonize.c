#include "fs/mount/daemonize.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "common/err.h"
#include "common/util.h"

#define CODE_LOST 32 /* mount(8): mount failure */

struct report {
    int code;
    char text[DFS_ERR_MAX];
};

int dfs_daemonize_begin(void) {
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC) < 0)
        return -errno;
    const pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        close(pipe_fd[0]);
        setsid();
        return pipe_fd[1];
    }
    close(pipe_fd[1]);
    struct report r;
    ssize_t n;
    do {
        n = read(pipe_fd[0], &r, sizeof r); /* less than a pipe's buffer: whole or not at all */
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof r) {
        fprintf(stderr, "mount.dfs: the server died while it started\n");
        _exit(CODE_LOST);
    }
    r.text[sizeof r.text - 1] = 0;
    if (r.code)
        fprintf(stderr, "mount.dfs: %s\n", r.text);
    _exit(r.code);
}

void dfs_daemonize_report(int fd, int code, const char *text) {
    struct report r = {.code = code};
    if (fd < 0) {
        if (code)
            fprintf(stderr, "mount.dfs: %s\n", text);
        return;
    }
    snprintf(r.text, sizeof r.text, "%s", text);
    if (!code) {
        const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int i = 0; null >= 0 && i < 3; i++)
            dup2(null, i);
        if (null > 2)
            close(null);
        if (chdir("/") < 0)
            r.code = 0; /* a working directory that keeps another mount busy is no failure */
    }
    if (write(fd, &r, sizeof r) != (ssize_t)sizeof r)
        r.code = code; /* the parent was killed: go on alone */
    close(fd);
}
