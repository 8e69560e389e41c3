#include "fs/store/node.h"

#include <assert.h>

#include "common/hash.h"

#define HDR sizeof(struct dfs_node_header)
#define SLOT sizeof(struct dfs_slot)
#define CSUM_FROM 16u

void dfs_node_init(void *buf, uint8_t tree, uint8_t level, const uint8_t uuid[16]) {
    memset(buf, 0, DFS_NODE_SIZE);
    struct dfs_node_header *h = dfs_node_hdr(buf);
    h->magic = htole32(DFS_NODE_MAGIC);
    h->level = level;
    h->tree = tree;
    memcpy(h->uuid, uuid, sizeof h->uuid);
    h->heap = htole16(DFS_NODE_SIZE);
}

unsigned dfs_node_search(const void *buf, const struct dfs_key *key, bool *found) {
    unsigned lo = 0, hi = dfs_node_nkeys(buf);
    while (lo < hi) {
        const unsigned mid = (lo + hi) / 2;
        const struct dfs_key k = dfs_node_key(buf, mid);
        const int c = dfs_key_cmp(&k, key);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

unsigned dfs_node_child(const void *buf, const struct dfs_key *key) {
    bool found;
    const unsigned i = dfs_node_search(buf, key, &found);
    return found || i == 0 ? i : i - 1;
}

static size_t contiguous(const void *buf) {
    return le16toh(dfs_node_chdr(buf)->heap) - (HDR + dfs_node_nkeys(buf) * SLOT);
}

size_t dfs_node_free(const void *buf) {
    return contiguous(buf) + le16toh(dfs_node_chdr(buf)->garbage);
}

size_t dfs_node_used(const void *buf) {
    return DFS_NODE_SIZE - HDR - dfs_node_free(buf);
}

/* Rewrites the heap without its garbage. */
static void compact(void *buf) {
    uint8_t heap[DFS_NODE_SIZE];
    unsigned top = DFS_NODE_SIZE;
    struct dfs_slot *s = dfs_node_slots(buf);
    const unsigned n = dfs_node_nkeys(buf);
    for (unsigned i = 0; i < n; i++) {
        const unsigned len = le16toh(s[i].len);
        if (len == 0)
            continue; /* see heap_take() */
        top -= len;
        memcpy(heap + top, (uint8_t *)buf + le16toh(s[i].pos), len);
        s[i].pos = htole16((uint16_t)top);
    }
    memcpy((uint8_t *)buf + top, heap + top, DFS_NODE_SIZE - top);
    dfs_node_hdr(buf)->heap = htole16((uint16_t)top);
    dfs_node_hdr(buf)->garbage = 0;
}

/* An empty value lies at the node's end: anywhere else, the removal of a neighbour could leave it outside the heap. */
static unsigned heap_take(void *buf, size_t len) {
    struct dfs_node_header *h = dfs_node_hdr(buf);
    if (len == 0)
        return DFS_NODE_SIZE;
    const unsigned pos = le16toh(h->heap) - (unsigned)len;
    h->heap = htole16((uint16_t)pos);
    return pos;
}

void *dfs_node_insert(void *buf, unsigned i, const struct dfs_key *key, size_t len) {
    const unsigned n = dfs_node_nkeys(buf);
    assert(i <= n && dfs_node_fits(buf, len));
    if (contiguous(buf) < SLOT + len)
        compact(buf);
    const unsigned pos = heap_take(buf, len);
    struct dfs_slot *s = dfs_node_slots(buf);
    memmove(&s[i + 1], &s[i], (n - i) * SLOT);
    s[i] = (struct dfs_slot){.len = htole16((uint16_t)len), .pos = htole16((uint16_t)pos)};
    dfs_node_set_key(buf, i, key);
    dfs_node_hdr(buf)->nkeys = htole16((uint16_t)(n + 1));
    return (uint8_t *)buf + pos;
}

static void add_garbage(void *buf, unsigned pos, unsigned len) {
    struct dfs_node_header *h = dfs_node_hdr(buf);
    if (pos == le16toh(h->heap))
        h->heap = htole16((uint16_t)(pos + len));
    else
        h->garbage = htole16((uint16_t)(le16toh(h->garbage) + len));
}

void dfs_node_remove(void *buf, unsigned i) {
    const unsigned n = dfs_node_nkeys(buf);
    assert(i < n);
    struct dfs_slot *s = dfs_node_slots(buf);
    add_garbage(buf, le16toh(s[i].pos), le16toh(s[i].len));
    memmove(&s[i], &s[i + 1], (n - i - 1) * SLOT);
    memset(&s[n - 1], 0, SLOT);
    dfs_node_hdr(buf)->nkeys = htole16((uint16_t)(n - 1));
    if (n == 1) {
        dfs_node_hdr(buf)->heap = htole16(DFS_NODE_SIZE);
        dfs_node_hdr(buf)->garbage = 0;
    }
}

void *dfs_node_resize(void *buf, unsigned i, size_t len) {
    struct dfs_slot *s = &dfs_node_slots(buf)[i];
    if (le16toh(s->len) == len)
        return (uint8_t *)buf + le16toh(s->pos);
    const struct dfs_key key = dfs_node_key(buf, i);
    dfs_node_remove(buf, i);
    return dfs_node_insert(buf, i, &key, len);
}

void dfs_node_set_key(void *buf, unsigned i, const struct dfs_key *key) {
    struct dfs_slot *s = &dfs_node_slots(buf)[i];
    s->ino = htole64(key->ino);
    s->off = htole64(key->off);
    s->kind = key->kind;
}

static void copy_slot(void *to, const void *from, unsigned i) {
    size_t len;
    const struct dfs_key key = dfs_node_key(from, i);
    const void *val = dfs_node_val(from, i, &len);
    memcpy(dfs_node_insert(to, dfs_node_nkeys(to), &key, len), val, len);
}

void dfs_node_append(void *to, const void *from) {
    const unsigned n = dfs_node_nkeys(from);
    for (unsigned i = 0; i < n; i++)
        copy_slot(to, from, i);
}

void dfs_node_split(void *from, void *to, unsigned at) {
    const unsigned n = dfs_node_nkeys(from);
    assert(at > 0 && at < n);
    for (unsigned i = at; i < n; i++)
        copy_slot(to, from, i);
    for (unsigned i = n; i > at; i--)
        dfs_node_remove(from, i - 1);
}

unsigned dfs_node_split_point(const void *buf) {
    const unsigned n = dfs_node_nkeys(buf);
    const size_t half = dfs_node_used(buf) / 2;
    size_t sum = 0;
    const struct dfs_slot *s = dfs_node_cslots(buf);
    for (unsigned i = 0; i < n; i++) {
        sum += SLOT + le16toh(s[i].len);
        if (sum >= half)
            return DFS_MIN(DFS_MAX(i + 1, 1u), n - 1);
    }
    return n / 2;
}

void dfs_node_get_ptr(const void *buf, unsigned i, struct dfs_ptr *ptr) {
    struct dfs_ptr_disk d;
    memcpy(&d, dfs_node_val(buf, i, NULL), sizeof d);
    *ptr = (struct dfs_ptr){le64toh(d.addr), le64toh(d.birth), le64toh(d.csum)};
}

void dfs_node_set_ptr(void *buf, unsigned i, const struct dfs_ptr *ptr) {
    const struct dfs_ptr_disk d = {htole64(ptr->addr), htole64(ptr->birth), htole64(ptr->csum)};
    memcpy((uint8_t *)buf + le16toh(dfs_node_slots(buf)[i].pos), &d, sizeof d);
}

uint64_t dfs_node_seal(void *buf, uint64_t addr, uint64_t birth) {
    struct dfs_node_header *h = dfs_node_hdr(buf);
    h->addr = htole64(addr);
    h->birth = htole64(birth);
    const uint64_t csum = dfs_hash64((uint8_t *)buf + CSUM_FROM, DFS_NODE_SIZE - CSUM_FROM, 0);
    h->csum = htole64(csum);
    return csum;
}

static const char *malformed(const void *buf) {
    const struct dfs_node_header *h = dfs_node_chdr(buf);
    const unsigned n = le16toh(h->nkeys), heap = le16toh(h->heap), garbage = le16toh(h->garbage);
    if (HDR + n * SLOT > heap || heap > DFS_NODE_SIZE)
        return "slots and values overlap";
    if (h->level > 0 && n == 0)
        return "interior node without children";
    size_t total = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct dfs_slot *s = &dfs_node_cslots(buf)[i];
        const unsigned pos = le16toh(s->pos), len = le16toh(s->len);
        if (pos < heap || pos > DFS_NODE_SIZE || len > DFS_NODE_SIZE - pos)
            return "value outside the heap";
        if (len > DFS_ITEM_MAX)
            return "value too long";
        total += len;
        if (h->level > 0 && len != sizeof(struct dfs_ptr_disk))
            return "child pointer of a wrong size";
        if (i > 0) {
            const struct dfs_key a = dfs_node_key(buf, i - 1), b = dfs_node_key(buf, i);
            if (dfs_key_cmp(&a, &b) >= 0)
                return "keys out of order";
        }
    }
    if (total + garbage != DFS_NODE_SIZE - heap)
        return "value bytes do not add up";
    return NULL;
}

int dfs_node_validate(const void *buf, const struct dfs_ptr *ptr, uint8_t tree, int level, const uint8_t uuid[16],
                      const char **why) {
    const struct dfs_node_header *h = dfs_node_chdr(buf);
    const uint64_t csum = dfs_hash64((const uint8_t *)buf + CSUM_FROM, DFS_NODE_SIZE - CSUM_FROM, 0);
    *why = "checksum mismatch";
    if (le32toh(h->magic) != DFS_NODE_MAGIC || le64toh(h->csum) != csum || csum != ptr->csum)
        return -EBADMSG;
    *why = "not the node the parent points to";
    if (le64toh(h->addr) != ptr->addr || le64toh(h->birth) != ptr->birth || h->tree != tree ||
        memcmp(h->uuid, uuid, sizeof h->uuid) != 0)
        return -EBADMSG;
    *why = "wrong level";
    if (h->level > DFS_NODE_MAX_LEVEL || (level >= 0 && h->level != level))
        return -EUCLEAN;
    *why = malformed(buf);
    return *why ? -EUCLEAN : 0;
}
