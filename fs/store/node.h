/* One B+tree node in memory: a buffer in the on-disk layout (node_format.h) and the functions that search and edit it.
 * Pure: no I/O, no locks, no allocation. Edits assume a validated node; dfs_node_validate() is for what comes from
 * outside and trusts nothing. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "common/util.h"
#include "fs/store/node_format.h"

struct dfs_key {
    uint64_t ino;
    uint64_t off;
    uint8_t kind;
};

struct dfs_ptr {
    uint64_t addr, birth, csum;
};

static inline int dfs_key_cmp(const struct dfs_key *a, const struct dfs_key *b) {
    if (a->ino != b->ino)
        return a->ino < b->ino ? -1 : 1;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->off != b->off)
        return a->off < b->off ? -1 : 1;
    return 0;
}

static inline struct dfs_node_header *dfs_node_hdr(void *buf) {
    return buf;
}
static inline const struct dfs_node_header *dfs_node_chdr(const void *buf) {
    return buf;
}
static inline struct dfs_slot *dfs_node_slots(void *buf) {
    return (struct dfs_slot *)((uint8_t *)buf + sizeof(struct dfs_node_header));
}
static inline const struct dfs_slot *dfs_node_cslots(const void *buf) {
    return (const struct dfs_slot *)((const uint8_t *)buf + sizeof(struct dfs_node_header));
}
static inline unsigned dfs_node_nkeys(const void *buf) {
    return le16toh(dfs_node_chdr(buf)->nkeys);
}
static inline unsigned dfs_node_level(const void *buf) {
    return dfs_node_chdr(buf)->level;
}
static inline struct dfs_key dfs_node_key(const void *buf, unsigned i) {
    const struct dfs_slot *s = &dfs_node_cslots(buf)[i];
    return (struct dfs_key){.ino = le64toh(s->ino), .off = le64toh(s->off), .kind = s->kind};
}
static inline const void *dfs_node_val(const void *buf, unsigned i, size_t *len) {
    const struct dfs_slot *s = &dfs_node_cslots(buf)[i];
    if (len)
        *len = le16toh(s->len);
    return (const uint8_t *)buf + le16toh(s->pos);
}

void dfs_node_init(void *buf, uint8_t tree, uint8_t level, const uint8_t uuid[16]);

/* Index of the first key >= `key` (nkeys if none); *found: it is equal. */
unsigned dfs_node_search(const void *buf, const struct dfs_key *key, bool *found);
/* In an interior node: the child that `key` belongs to. */
unsigned dfs_node_child(const void *buf, const struct dfs_key *key);

/* Bytes for slots and values that are free, counting garbage. */
size_t dfs_node_free(const void *buf);
size_t dfs_node_used(const void *buf);
static inline bool dfs_node_fits(const void *buf, size_t len) {
    return dfs_node_free(buf) >= sizeof(struct dfs_slot) + len;
}

/* `i` is where the key belongs; it must fit. Returns the value's bytes to fill in. */
void *dfs_node_insert(void *buf, unsigned i, const struct dfs_key *key, size_t len);
void dfs_node_remove(void *buf, unsigned i);
/* Changes the length of value `i` (contents undefined after unless the length stays); it must fit. */
void *dfs_node_resize(void *buf, unsigned i, size_t len);
void dfs_node_set_key(void *buf, unsigned i, const struct dfs_key *key);

/* Moves the upper part of `from` into the empty node `to`, from key `at` on. */
void dfs_node_split(void *from, void *to, unsigned at);
/* Where to split so that both halves are about equally full; between 1 and nkeys - 1. */
unsigned dfs_node_split_point(const void *buf);
/* Appends all of `from` to `to`, which has room. */
void dfs_node_append(void *to, const void *from);

void dfs_node_get_ptr(const void *buf, unsigned i, struct dfs_ptr *ptr);
void dfs_node_set_ptr(void *buf, unsigned i, const struct dfs_ptr *ptr);

/* Fills in address, birth and checksum; returns the checksum. */
uint64_t dfs_node_seal(void *buf, uint64_t addr, uint64_t birth);
/* 0, -EBADMSG: checksum or identity wrong, -EUCLEAN: sealed but malformed. `why` gets a constant sentence. */
int dfs_node_validate(const void *buf, const struct dfs_ptr *ptr, uint8_t tree, int level, const uint8_t uuid[16],
                      const char **why);
