/* POSIX ACLs as the kernel stores them in system.posix_acl_access and _default: version 2, entries {tag u16, perm u16,
 * id u32}, all little-endian (Linux: include/uapi/linux/posix_acl_xattr.h). The algorithms are those of POSIX 1003.1e
 * draft 17, section 23.1: what a new object inherits, and how the mode and the mask follow each other. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DFS_ACL_ACCESS "system.posix_acl_access"
#define DFS_ACL_DEFAULT "system.posix_acl_default"

/* Is this a well-formed ACL: version, order, exactly one owner, group and other, a mask where one is needed? */
bool dfs_acl_valid(const void *acl, size_t len);

/* Folds the ACL's owner, mask (or group) and other permissions into *mode. *minimal: the ACL says no more than a mode. */
void dfs_acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *minimal);

/* chmod: writes *mode's bits into the ACL (in place). */
void dfs_acl_from_mode(void *acl, size_t len, uint32_t mode);

/* A new object below a directory with this default ACL: the access ACL is the default one limited by *mode (in place,
 * `acl` is a copy), and *mode is limited by it. *minimal: no access ACL is needed. */
void dfs_acl_inherit(void *acl, size_t len, uint32_t *mode, bool *minimal);
