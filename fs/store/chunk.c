#include "fs/store/chunk.h"

#include <pthread.h>
#include <zstd.h>

#include "common/hash.h"
#include "common/util.h"
#include "fs/store/node_format.h"

/* One compressor and one decompressor a thread; made on first use, freed when the thread ends. */
struct contexts {
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
};
static pthread_key_t contexts_key;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;

static void contexts_free(void *p) {
    struct contexts *x = p;
    ZSTD_freeCCtx(x->c);
    ZSTD_freeDCtx(x->d);
    free(x);
}
static void contexts_key_make(void) {
    pthread_key_create(&contexts_key, contexts_free);
}
static struct contexts *contexts(void) {
    pthread_once(&contexts_once, contexts_key_make);
    struct contexts *x = pthread_getspecific(contexts_key);
    if (!x) {
        x = calloc(1, sizeof *x);
        if (!x)
            return NULL;
        x->c = ZSTD_createCCtx();
        x->d = ZSTD_createDCtx();
        if (!x->c || !x->d || pthread_setspecific(contexts_key, x) != 0) {
            contexts_free(x);
            return NULL;
        }
    }
    return x;
}

static uint32_t half_hash(const void *data, size_t len) {
    return (uint32_t)dfs_hash64(data, len, 0);
}

static uint32_t unit_size(const struct dfs_chunk_desc *d) {
    return d->codec == DFS_CODEC_RAW ? DFS_CHUNK_UNIT_RAW : DFS_CHUNK_UNIT_ZSTD;
}

static void encode_raw(const void *raw, size_t raw_len, struct dfs_chunk_desc *d) {
    d->codec = DFS_CODEC_RAW;
    d->stored_len = (uint32_t)raw_len;
    d->nunits = (uint16_t)(raw_len / DFS_CHUNK_UNIT_RAW);
    d->csum = dfs_hash64(raw, raw_len, 0);
    for (uint32_t i = 0; i < d->nunits; i++) {
        d->units[i].end = (i + 1) * DFS_CHUNK_UNIT_RAW;
        d->units[i].csum = d->nunits == 1
                               ? (uint32_t)d->csum
                               : half_hash((const uint8_t *)raw + i * DFS_CHUNK_UNIT_RAW, DFS_CHUNK_UNIT_RAW);
    }
}

int dfs_chunk_encode(const void *raw, size_t raw_len, int level, void *out, struct dfs_chunk_desc *d) {
    if (raw_len == 0 || raw_len > DFS_CHUNK_RAW_MAX || raw_len % DFS_BLOCK_SIZE)
        return -EINVAL;
    d->raw_len = (uint32_t)raw_len;
    if (level <= 0 || raw_len <= DFS_BLOCK_SIZE) {
        encode_raw(raw, raw_len, d);
        return 0;
    }
    struct contexts *x = contexts();
    if (!x)
        return -ENOMEM;
    const size_t limit = raw_len - DFS_BLOCK_SIZE;
    size_t used = 0;
    d->codec = DFS_CODEC_ZSTD;
    d->nunits = (uint16_t)DFS_DIV_UP(raw_len, DFS_CHUNK_UNIT_ZSTD);
    for (uint32_t i = 0; i < d->nunits; i++) {
        const size_t at = (size_t)i * DFS_CHUNK_UNIT_ZSTD, n = DFS_MIN(raw_len - at, DFS_CHUNK_UNIT_ZSTD);
        const size_t r = ZSTD_compressCCtx(x->c, (uint8_t *)out + used, limit - used, (const uint8_t *)raw + at, n, level);
        if (ZSTD_isError(r)) { /* it does not fit: no gain */
            encode_raw(raw, raw_len, d);
            return 0;
        }
        d->units[i].csum = half_hash((uint8_t *)out + used, r);
        used += r;
        d->units[i].end = (uint32_t)used;
    }
    d->stored_len = (uint32_t)used;
    d->csum = dfs_hash64(out, used, 0);
    memset((uint8_t *)out + used, 0, DFS_ROUND_UP(used, DFS_BLOCK_SIZE) - used);
    return 0;
}

static uint32_t unit_start(const struct dfs_chunk_desc *d, uint32_t i) {
    return i ? d->units[i - 1].end : 0;
}

void dfs_chunk_unit(const struct dfs_chunk_desc *d, uint32_t off, uint32_t *unit_off, uint32_t *unit_len) {
    const uint32_t size = unit_size(d);
    *unit_off = off / size * size;
    *unit_len = DFS_MIN(size, d->raw_len - *unit_off);
}

void dfs_chunk_span(const struct dfs_chunk_desc *d, uint32_t off, uint32_t len, uint32_t *span_off, uint32_t *span_len) {
    const uint32_t first = off / unit_size(d), last = (off + len - 1) / unit_size(d);
    *span_off = DFS_ROUND_DOWN(unit_start(d, first), DFS_BLOCK_SIZE);
    *span_len = DFS_ROUND_UP(d->units[last].end, DFS_BLOCK_SIZE) - *span_off;
}

static int unit_decode(const struct dfs_chunk_desc *d, uint32_t i, const uint8_t *stored, uint32_t from, uint32_t n,
                       uint8_t *dst) {
    const uint32_t stored_len = d->units[i].end - unit_start(d, i);
    if (half_hash(stored, stored_len) != d->units[i].csum)
        return -EBADMSG;
    if (d->codec == DFS_CODEC_RAW) {
        if (dst != stored + from)
            memcpy(dst, stored + from, n);
        return 0;
    }
    struct contexts *x = contexts();
    if (!x)
        return -ENOMEM;
    uint32_t unit_off, unit_len;
    dfs_chunk_unit(d, i * DFS_CHUNK_UNIT_ZSTD, &unit_off, &unit_len);
    if (from == 0 && n == unit_len)
        return ZSTD_decompressDCtx(x->d, dst, unit_len, stored, stored_len) == unit_len ? 0 : -EBADMSG;
    uint8_t whole[DFS_CHUNK_UNIT_ZSTD];
    if (ZSTD_decompressDCtx(x->d, whole, unit_len, stored, stored_len) != unit_len)
        return -EBADMSG;
    memcpy(dst, whole + from, n);
    return 0;
}

int dfs_chunk_decode(const struct dfs_chunk_desc *d, const void *span, uint32_t span_off, uint32_t span_len,
                     uint32_t off, uint32_t len, void *dst) {
    const uint32_t size = unit_size(d);
    uint8_t *out = dst;
    while (len > 0) {
        const uint32_t i = off / size, from = off % size, n = DFS_MIN(len, DFS_MIN(size, d->raw_len - i * size) - from);
        const uint32_t start = unit_start(d, i);
        if (start < span_off || d->units[i].end > span_off + span_len)
            return -EINVAL;
        const int r = unit_decode(d, i, (const uint8_t *)span + (start - span_off), from, n, out);
        if (r != 0)
            return r;
        out += n;
        off += n;
        len -= n;
    }
    return 0;
}

bool dfs_chunk_verify(const struct dfs_chunk_desc *d, const void *stored) {
    return dfs_hash64(stored, d->stored_len, 0) == d->csum;
}

size_t dfs_chunk_desc_put(const struct dfs_chunk_desc *d, uint8_t *out) {
    dfs_put_le32(out, d->raw_len);
    dfs_put_le32(out + 4, d->stored_len);
    dfs_put_le64(out + 8, d->csum);
    out[16] = d->codec;
    out[17] = 0;
    dfs_put_le16(out + 18, d->nunits);
    size_t n = DFS_CHUNK_DESC_HEAD;
    for (uint32_t i = 0; d->nunits > 1 && i < d->nunits; i++) {
        if (d->codec == DFS_CODEC_ZSTD) {
            dfs_put_le32(out + n, d->units[i].end);
            n += 4;
        }
        dfs_put_le32(out + n, d->units[i].csum);
        n += 4;
    }
    return n;
}

int dfs_chunk_desc_get(const uint8_t *in, size_t len, struct dfs_chunk_desc *d) {
    if (len < DFS_CHUNK_DESC_HEAD)
        return -EUCLEAN;
    d->raw_len = dfs_get_le32(in);
    d->stored_len = dfs_get_le32(in + 4);
    d->csum = dfs_get_le64(in + 8);
    d->codec = in[16];
    d->nunits = dfs_get_le16(in + 18);
    if (d->raw_len == 0 || d->raw_len > DFS_CHUNK_RAW_MAX || d->raw_len % DFS_BLOCK_SIZE || d->stored_len == 0 ||
        d->stored_len > d->raw_len || d->codec > DFS_CODEC_ZSTD || in[17] != 0)
        return -EUCLEAN;
    const bool raw = d->codec == DFS_CODEC_RAW;
    if ((raw && d->stored_len != d->raw_len) || d->nunits != DFS_DIV_UP(d->raw_len, unit_size(d)))
        return -EUCLEAN;
    const size_t entry = raw ? 4 : 8;
    if (len != DFS_CHUNK_DESC_HEAD + (d->nunits > 1 ? d->nunits * entry : 0))
        return -EUCLEAN;
    if (d->nunits == 1) {
        d->units[0].end = d->stored_len;
        d->units[0].csum = (uint32_t)d->csum;
        return 0;
    }
    uint32_t last = 0;
    for (uint32_t i = 0; i < d->nunits; i++) {
        const uint8_t *p = in + DFS_CHUNK_DESC_HEAD + i * entry;
        d->units[i].end = raw ? (i + 1) * DFS_CHUNK_UNIT_RAW : dfs_get_le32(p);
        d->units[i].csum = dfs_get_le32(raw ? p : p + 4);
        if (d->units[i].end <= last || d->units[i].end > d->stored_len)
            return -EUCLEAN;
        last = d->units[i].end;
    }
    return last == d->stored_len ? 0 : -EUCLEAN;
}
