#include "common/err.h"

#include <stdio.h>
#include <string.h>

int dfs_err_set(struct dfs_err *err, int code, const char *fmt, ...) {
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return code;
}

int dfs_err_sys(struct dfs_err *err, int code, const char *fmt, ...) {
    if (!err)
        return code;
    va_list ap;
    va_start(ap, fmt);
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    const size_t n = strlen(err->text);
    char buf[128];
    snprintf(err->text + n, sizeof err->text - n, ": %s", strerror_r(-code, buf, sizeof buf));
    return code;
}

int dfs_err_wrap(struct dfs_err *err, const char *fmt, ...) {
    if (!err)
        return 0;
    char inner[DFS_ERR_MAX];
    memcpy(inner, err->text, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    /* Where both do not fit, the cause is cut, at the end. */
    const size_t n = strlen(err->text), room = sizeof err->text - n - 1;
    snprintf(err->text + n, room + 1, ": %.*s", (int)(room > 2 ? room - 2 : 0), inner);
    return err->code;
}
