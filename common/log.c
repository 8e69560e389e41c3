#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static struct {
    enum dfs_log_target target;
    enum dfs_log_level max;
    char context[256];
} log_state = {.target = DFS_LOG_STDERR, .max = DFS_LOG_INFO};

void dfs_log_open(const char *ident, enum dfs_log_target target, enum dfs_log_level max) {
    log_state.target = target;
    log_state.max = max;
    if (target == DFS_LOG_SYSLOG)
        openlog(ident, LOG_PID, LOG_DAEMON);
}

void dfs_log_context(const char *context) {
    snprintf(log_state.context, sizeof log_state.context, "%s", context ? context : "");
}

void dfs_log(enum dfs_log_level level, const char *event, const char *detail_fmt, ...) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    const int saved = errno;
    char detail[LINE_MAX_BYTES] = "", line[2 * LINE_MAX_BYTES];
    if (level > log_state.max)
        return;
    if (detail_fmt) {
        va_list ap;
        va_start(ap, detail_fmt);
        vsnprintf(detail, sizeof detail, detail_fmt, ap);
        va_end(ap);
    }
    const char *context = log_state.context;
    int n = snprintf(line, sizeof line, "<%s> %s%s%s%s%s\n", names[level], event, *context ? " " : "", context,
                     *detail ? " " : "", detail);
    if (n >= (int)sizeof line) { /* cut, but a line all the same */
        n = (int)sizeof line - 1;
        line[n - 1] = '\n';
    }
    if (log_state.target == DFS_LOG_SYSLOG)
        syslog(priorities[level], "%.*s", n - 1, line);
    else if (write(STDERR_FILENO, line, (size_t)n) < 0)
        errno = saved; /* nowhere left to complain */
    errno = saved;
}
