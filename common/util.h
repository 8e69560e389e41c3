/* Small helpers every module uses: cleanup attributes, little-endian access, arithmetic that cannot overflow. */
#pragma once
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DFS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define DFS_MIN(a, b) ((a) < (b) ? (a) : (b))
#define DFS_MAX(a, b) ((a) > (b) ? (a) : (b))
#define DFS_DIV_UP(a, b) (((a) + (b) - 1) / (b))
#define DFS_ROUND_UP(a, b) (DFS_DIV_UP(a, b) * (b))
#define DFS_ROUND_DOWN(a, b) ((a) / (b) * (b))

/* Cleanup attributes for locals; hand ownership on with dfs_steal_ptr() or dfs_steal_fd(). errno survives them. */
static inline void dfs_cleanup_free(void *p) {
    free(*(void **)p);
}
static inline void dfs_cleanup_close(int *fd) {
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}
static inline void dfs_cleanup_fclose(FILE **f) {
    if (*f) {
        int saved = errno;
        fclose(*f);
        errno = saved;
    }
}
#define cleanup_free __attribute__((cleanup(dfs_cleanup_free)))
#define cleanup_close __attribute__((cleanup(dfs_cleanup_close)))
#define cleanup_fclose __attribute__((cleanup(dfs_cleanup_fclose)))

#define dfs_steal_ptr(pp)                                                                                              \
    ({                                                                                                                 \
        __typeof__(*(pp)) stolen_ = *(pp);                                                                             \
        *(pp) = NULL;                                                                                                  \
        stolen_;                                                                                                       \
    })
static inline int dfs_steal_fd(int *fd) {
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

/* Little-endian fields at any alignment. */
static inline uint16_t dfs_get_le16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}
static inline uint32_t dfs_get_le32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}
static inline uint64_t dfs_get_le64(const void *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}
static inline void dfs_put_le16(void *p, uint16_t v) {
    v = htole16(v);
    memcpy(p, &v, sizeof v);
}
static inline void dfs_put_le32(void *p, uint32_t v) {
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}
static inline void dfs_put_le64(void *p, uint64_t v) {
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}
