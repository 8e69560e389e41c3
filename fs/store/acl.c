#include "fs/store/acl.h"

#include "common/util.h"

#define ACL_VERSION 2u
#define HEAD 4u
#define ENTRY 8u

enum { USER_OBJ = 0x01, USER = 0x02, GROUP_OBJ = 0x04, GROUP = 0x08, MASK = 0x10, OTHER = 0x20 };

static size_t count(size_t len) {
    return (len - HEAD) / ENTRY;
}
static uint8_t *entry(const void *acl, size_t i) {
    return (uint8_t *)(uintptr_t)acl + HEAD + i * ENTRY;
}
static unsigned tag_of(const void *acl, size_t i) {
    return dfs_get_le16(entry(acl, i));
}
static unsigned perm_of(const void *acl, size_t i) {
    return dfs_get_le16(entry(acl, i) + 2);
}
static void set_perm(void *acl, size_t i, unsigned perm) {
    dfs_put_le16(entry(acl, i) + 2, (uint16_t)perm);
}

/* The entries of the three classes: owner, mask or else group, other. */
static void classes(const void *acl, size_t len, size_t *owner, size_t *group, size_t *other, bool *mask) {
    *mask = false;
    *owner = *group = *other = 0;
    for (size_t i = 0; i < count(len); i++)
        switch (tag_of(acl, i)) {
        case USER_OBJ:
            *owner = i;
            break;
        case GROUP_OBJ:
            if (!*mask)
                *group = i;
            break;
        case MASK:
            *group = i;
            *mask = true;
            break;
        case OTHER:
            *other = i;
            break;
        default:
            break;
        }
}

bool dfs_acl_valid(const void *acl, size_t len) {
    if (len < HEAD + 3 * ENTRY || (len - HEAD) % ENTRY || dfs_get_le32(acl) != ACL_VERSION)
        return false;
    unsigned seen[64] = {0}, last = 0;
    for (size_t i = 0; i < count(len); i++) {
        const unsigned tag = tag_of(acl, i);
        if (perm_of(acl, i) > 7 || tag < last)
            return false;
        last = tag;
        switch (tag) {
        case USER_OBJ:
        case GROUP_OBJ:
        case MASK:
        case OTHER:
            if (seen[tag]++)
                return false;
            break;
        case USER:
        case GROUP:
            seen[tag]++;
            break;
        default:
            return false;
        }
    }
    if (!seen[USER_OBJ] || !seen[GROUP_OBJ] || !seen[OTHER])
        return false;
    return seen[MASK] || (!seen[USER] && !seen[GROUP]);
}

void dfs_acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *minimal) {
    size_t u, g, o;
    bool mask;
    classes(acl, len, &u, &g, &o, &mask);
    *mode = (*mode & ~0777u) | perm_of(acl, u) << 6 | perm_of(acl, g) << 3 | perm_of(acl, o);
    *minimal = count(len) == 3;
}

void dfs_acl_from_mode(void *acl, size_t len, uint32_t mode) {
    size_t u, g, o;
    bool mask;
    classes(acl, len, &u, &g, &o, &mask);
    set_perm(acl, u, mode >> 6 & 7);
    set_perm(acl, g, mode >> 3 & 7);
    set_perm(acl, o, mode & 7);
}

void dfs_acl_inherit(void *acl, size_t len, uint32_t *mode, bool *minimal) {
    size_t u, g, o;
    bool mask;
    classes(acl, len, &u, &g, &o, &mask);
    const unsigned pu = perm_of(acl, u) & (*mode >> 6 & 7), pg = perm_of(acl, g) & (*mode >> 3 & 7),
                   po = perm_of(acl, o) & (*mode & 7);
    set_perm(acl, u, pu);
    set_perm(acl, g, pg);
    set_perm(acl, o, po);
    *mode = (*mode & ~0777u) | pu << 6 | pg << 3 | po;
    *minimal = count(len) == 3;
}
