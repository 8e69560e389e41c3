/* Logging for operators: one line an event, `key=value` details, to stderr or syslog.
 *
 *     dfs_log(DFS_LOG_WARN, "replica fell out", "peer=%s lag=%" PRIu64, peer, lag);
 *
 * prints `<warn> replica fell out volume=db peer=hostB lag=4711`. dfs_log_context() sets a string that every line
 * carries (the volume's name). Values with blanks are the caller's to quote. Thread-safe; errno is preserved. */
#pragma once

enum dfs_log_level {
    DFS_LOG_QUIET = -1, /* as a maximum: no lines at all, for tests that make errors */
    DFS_LOG_ERROR,
    DFS_LOG_WARN,
    DFS_LOG_INFO,
    DFS_LOG_DEBUG,
};

enum dfs_log_target { DFS_LOG_STDERR, DFS_LOG_SYSLOG };

/* Where lines go and from which level on; `ident` is the program's name. Call before threads start. */
void dfs_log_open(const char *ident, enum dfs_log_target target, enum dfs_log_level max);

/* `context` is copied, e.g. "volume=db"; NULL clears it. Call before threads start. */
void dfs_log_context(const char *context);

/* `detail_fmt` may be NULL. */
void dfs_log(enum dfs_log_level level, const char *event, const char *detail_fmt, ...)
    __attribute__((format(printf, 3, 4)));
