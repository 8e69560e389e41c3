/* One operation on a volume, as the model tests make them up, and what came of it. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/store/store.h"
#include "tests/model/rng.h"

enum op_kind {
    OP_CREATE, /* files, directories, symlinks, devices: mode tells */
    OP_TMPFILE,
    OP_LINK,
    OP_UNLINK,
    OP_RMDIR,
    OP_RENAME,
    OP_LOOKUP,
    OP_SETATTR,
    OP_WRITE,
    OP_READ,
    OP_FALLOCATE,
    OP_SEEK,
    OP_COPY,
    OP_SETXATTR,
    OP_GETXATTR,
    OP_LISTXATTR,
    OP_RMXATTR,
    OP_READDIR,
    OP_READLINK,
    OP_RELEASE,
    OP_FSYNC,
    OP_SYNCFS,
    OP_CHECKPOINT,
    OP_REOPEN, /* close and open */
    OP_KILL,   /* abandon and open */
    OP_KINDS
};

#define OP_NAME_MAX 300
#define OP_DATA_MAX (320u << 10)

struct op {
    enum op_kind kind;
    uint64_t ino, dir, dir2, ino2;
    char name[OP_NAME_MAX], name2[OP_NAME_MAX];
    size_t name_len, name2_len;
    uint64_t off, off2, len;
    uint64_t data_seed; /* what is written: op_data() */
    int data_kind;
    unsigned flags;
    struct dfs_create create;
    char target[64];
    struct dfs_setattr set;
    int64_t now; /* the clock while it runs: seconds, nsec the same number */

    int64_t result;   /* what the store answered */
    uint64_t new_ino; /* of what it made */
};

const char *op_name(enum op_kind kind);
/* A line for a person. */
void op_print(const struct op *op, char *buf, size_t size);
/* The bytes of a write: random, text, zeros, or a mixture. */
void op_data(const struct op *op, uint8_t *buf);
