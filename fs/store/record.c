#include "fs/store/record.h"

#include <assert.h>

#include "common/util.h"

size_t dfs_rec_size(const struct dfs_rec *r) {
    size_t n = sizeof(struct dfs_rec_body) + r->name_len + r->name2_len + (size_t)r->data_len;
    uint8_t desc[DFS_CHUNK_DESC_MAX];
    for (uint32_t i = 0; i < r->nchunks; i++)
        n += sizeof(struct dfs_rec_chunk) + dfs_chunk_desc_put(&r->chunks[i].desc, desc);
    return n <= DFS_REC_BODY_MAX ? n : 0;
}

void dfs_rec_encode(const struct dfs_rec *r, uint8_t *out) {
    const struct dfs_rec_body b = {
        .ino = htole64(r->ino),
        .dir = htole64(r->dir),
        .dir2 = htole64(r->dir2),
        .ino2 = htole64(r->ino2),
        .off = htole64(r->off),
        .len = htole64(r->len),
        .size = htole64(r->size),
        .rdev = htole64(r->rdev),
        .generation = htole64(r->generation),
        .chunk = htole64(r->chunk),
        .time_sec = (int64_t)htole64((uint64_t)r->time.tv_sec),
        .atime_sec = (int64_t)htole64((uint64_t)r->atime.tv_sec),
        .mtime_sec = (int64_t)htole64((uint64_t)r->mtime.tv_sec),
        .time_nsec = htole32((uint32_t)r->time.tv_nsec),
        .atime_nsec = htole32((uint32_t)r->atime.tv_nsec),
        .mtime_nsec = htole32((uint32_t)r->mtime.tv_nsec),
        .mode = htole32(r->mode),
        .uid = htole32(r->uid),
        .gid = htole32(r->gid),
        .valid = htole32(r->valid),
        .data_len = htole32(r->data_len),
        .name_len = htole16(r->name_len),
        .name2_len = htole16(r->name2_len),
        .nchunks = htole32(r->nchunks),
    };
    memcpy(out, &b, sizeof b);
    out += sizeof b;
    if (r->name_len)
        memcpy(out, r->name, r->name_len);
    out += r->name_len;
    if (r->name2_len)
        memcpy(out, r->name2, r->name2_len);
    out += r->name2_len;
    if (r->data_len)
        memcpy(out, r->data, r->data_len);
    out += r->data_len;
    for (uint32_t i = 0; i < r->nchunks; i++) {
        const size_t n = dfs_chunk_desc_put(&r->chunks[i].desc, out + sizeof(struct dfs_rec_chunk));
        const struct dfs_rec_chunk c = {.addr = htole64(r->chunks[i].addr), .desc_len = htole32((uint32_t)n)};
        memcpy(out, &c, sizeof c);
        out += sizeof c + n;
    }
}

static bool take(const uint8_t **p, size_t *left, size_t n, const uint8_t **out) {
    if (n > *left)
        return false;
    *out = *p;
    *p += n;
    *left -= n;
    return true;
}

static int check_chunks(const uint8_t *p, size_t left, uint32_t nchunks) {
    if (nchunks > DFS_REC_CHUNKS_MAX)
        return -EUCLEAN;
    for (uint32_t i = 0; i < nchunks; i++) {
        const uint8_t *c, *d;
        if (!take(&p, &left, sizeof(struct dfs_rec_chunk), &c))
            return -EUCLEAN;
        struct dfs_rec_chunk rc;
        memcpy(&rc, c, sizeof rc);
        struct dfs_chunk_desc desc;
        if (!take(&p, &left, le32toh(rc.desc_len), &d) || dfs_chunk_desc_get(d, le32toh(rc.desc_len), &desc) != 0)
            return -EUCLEAN;
    }
    return left == 0 ? 0 : -EUCLEAN;
}

int dfs_rec_decode(uint16_t type, uint16_t flags, const uint8_t *body, size_t len, struct dfs_rec *r) {
    struct dfs_rec_body b;
    if (type < DFS_REC_NOOP || type >= DFS_REC_TYPES || len < sizeof b)
        return -EUCLEAN;
    memcpy(&b, body, sizeof b);
    *r = (struct dfs_rec){
        .type = type,
        .flags = flags,
        .ino = le64toh(b.ino),
        .dir = le64toh(b.dir),
        .dir2 = le64toh(b.dir2),
        .ino2 = le64toh(b.ino2),
        .off = le64toh(b.off),
        .len = le64toh(b.len),
        .size = le64toh(b.size),
        .rdev = le64toh(b.rdev),
        .generation = le64toh(b.generation),
        .chunk = le64toh(b.chunk),
        .time = {(time_t)le64toh((uint64_t)b.time_sec), (long)le32toh(b.time_nsec)},
        .atime = {(time_t)le64toh((uint64_t)b.atime_sec), (long)le32toh(b.atime_nsec)},
        .mtime = {(time_t)le64toh((uint64_t)b.mtime_sec), (long)le32toh(b.mtime_nsec)},
        .mode = le32toh(b.mode),
        .uid = le32toh(b.uid),
        .gid = le32toh(b.gid),
        .valid = le32toh(b.valid),
        .name_len = le16toh(b.name_len),
        .name2_len = le16toh(b.name2_len),
        .data_len = le32toh(b.data_len),
        .nchunks = le32toh(b.nchunks),
    };
    if (r->time.tv_nsec > 999999999 || r->atime.tv_nsec > 999999999 || r->mtime.tv_nsec > 999999999)
        return -EUCLEAN;
    const uint8_t *p = body + sizeof b, *name, *name2, *data;
    size_t left = len - sizeof b;
    if (!take(&p, &left, r->name_len, &name) || !take(&p, &left, r->name2_len, &name2) ||
        !take(&p, &left, r->data_len, &data))
        return -EUCLEAN;
    r->name = (const char *)name;
    r->name2 = (const char *)name2;
    r->data = data;
    r->chunks_raw = p;
    return check_chunks(p, left, r->nchunks);
}

void dfs_rec_chunks(const struct dfs_rec *r, struct dfs_rec_chunk_iter *it) {
    *it = (struct dfs_rec_chunk_iter){.r = r, .p = r->chunks_raw};
}

bool dfs_rec_chunk_next(struct dfs_rec_chunk_iter *it, uint64_t *addr, struct dfs_chunk_desc *desc) {
    if (it->i >= it->r->nchunks)
        return false;
    if (it->r->chunks) {
        *addr = it->r->chunks[it->i].addr;
        *desc = it->r->chunks[it->i].desc;
    } else {
        struct dfs_rec_chunk rc;
        memcpy(&rc, it->p, sizeof rc);
        *addr = le64toh(rc.addr);
        const int r = dfs_chunk_desc_get(it->p + sizeof rc, le32toh(rc.desc_len), desc);
        assert(r == 0); /* dfs_rec_decode() has looked at it */
        (void)r;
        it->p += sizeof rc + le32toh(rc.desc_len);
    }
    it->i++;
    return true;
}
