/* The error object of user-facing layers: a sentence that says what failed, on what, and what to do about it.
 *
 * The engine and everything below speaks negative errno. Where an error crosses into something a person reads
 * (opening a volume, parsing options, a control request) a `struct dfs_err` travels along and gathers context on
 * its way up: dfs_err_set() at the place that knows the cause, dfs_err_wrap() where the caller knows the purpose.
 * A NULL error object is always allowed and ignored. */
#pragma once
#include <stdarg.h>

#define DFS_ERR_MAX 1024

struct dfs_err {
    int code;              /* negative errno, 0 while nothing failed */
    char text[DFS_ERR_MAX]; /* one sentence, no newline */
};

#define DFS_ERR_INIT {0, ""}

/* Sets the sentence and returns `code` (a negative errno), so that `return dfs_err_set(err, -EINVAL, …)` works. */
int dfs_err_set(struct dfs_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As dfs_err_set(), with ": " and the text of strerror(-code) appended. */
int dfs_err_sys(struct dfs_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before what is there already and returns the error's code. */
int dfs_err_wrap(struct dfs_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
