/* What every unit test includes: cmocka with the headers it wants, and a scratch directory. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"

static inline int unit_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}
static inline void unit_remove_tree(const char *path) {
    nftw(path, unit_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
/* Makes a directory below `parent`; its name goes to `path` (at least 64 bytes). */
static inline int unit_scratch(const char *parent, char *path, size_t size) {
    snprintf(path, size, "%s/dfs-unit-XXXXXX", parent);
    return mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}
